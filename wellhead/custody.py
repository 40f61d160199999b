"""A node's custody: the worker of `settlement/custody.py` on a thread of its own, and what members may ask of it.

The market does not wait for it and does not fail with it. What it wants in the log it submits as any operator does.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from eth_utils.address import to_checksum_address
from numpy.typing import NDArray

from engine.engine import Engine
from engine.types import EventKind, Reason
from settlement.chain import ChainError
from settlement.custody import Custody
from settlement.deposits import Deposit, account_ref
from settlement.flows import Destination, Route, Withdrawal, withdraw_command
from settlement.reconcile import EngineView
from settlement.records import Records
from settlement.stablecoins import Stablecoins, Token, parse_address
from wellhead.node import Node

log = logging.getLogger(__name__)

POLL_S = 2.0


class MoneyError(Exception):
    """A withdrawal that is not allowed. `code` is BAD_ADDRESS, BAD_AMOUNT, NO_HOME, NOT_A_TOKEN, or the engine's reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def engine_view(engine: Engine) -> EngineView:
    """The engine's money between two batches. On the loop's thread."""
    memory = engine.memory
    accounts = memory.arrays["accounts"][: int(memory.header["accounts_used"])]
    positions = memory.arrays["positions"][: int(memory.header["positions_used"])]
    locked = accounts["frozen_micros"].copy()
    np.add.at(locked, positions["account"], positions["escrow_micros"] + positions["bond_micros"])
    custody = int(memory.header["deposits_micros"]) - int(memory.header["withdrawals_micros"])
    return EngineView(engine.applied_seq, accounts["cash_micros"] + accounts["held_micros"], locked, custody)


class Custodian:
    """Drives custody beside a node: `start`, then `step` at will or `keep`, then `stop`."""

    def __init__(self, node: Node, make: Callable[[Path], Custody], poll_s: float = POLL_S) -> None:
        """`make` opens the custody of a settlement directory; it is called on the thread that then uses it."""
        self._node = node
        self._make = make
        self._poll_s = poll_s
        self._thread = ThreadPoolExecutor(1, "custody")
        self._closing = asyncio.Event()
        self._cycle = -1
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open, and compare the registry with the chains. Raises RegistryError on a difference; a node of a chain that
        does not answer is waited for later.
        """
        loop = asyncio.get_running_loop()
        self.custody = await loop.run_in_executor(self._thread, self._make, self._node.config.settlement_dir)
        try:
            await loop.run_in_executor(self._thread, self.custody.start)
        except ChainError as error:
            log.warning("custody begins when its chain answers: %s", error)

    async def step(self) -> int:
        """One look at everything; how many commands it put in the log."""
        cycle, view = int(self._node.exchange.engine.memory.header["cycle"]), None
        if cycle != self._cycle:
            self._cycle, view = cycle, engine_view(self._node.exchange.engine)
        loop = asyncio.get_running_loop()
        commands = await loop.run_in_executor(self._thread, self.custody.step, view)
        await self._node.execute(commands)
        return len(commands)

    def keep(self) -> None:
        """Look at everything again and again from now on."""
        self._task = asyncio.create_task(self._keep(), name="custody")

    async def _keep(self) -> None:
        """Look again and again until `stop`. Whatever goes wrong is said, and tried again: trading goes on."""
        while not self._closing.is_set():
            try:
                await self.step()
            except Exception:
                log.exception("custody: this turn failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._poll_s)

    async def stop(self) -> None:
        """Before the node stops. What was sent goes on by itself; what was not waits in the outbox."""
        self._closing.set()
        if self._task is not None:
            await self._task
        await asyncio.get_running_loop().run_in_executor(self._thread, self.custody.close)
        self._thread.shutdown()


@dataclass(frozen=True, slots=True)
class DepositAddress:
    """Where an account's money goes: call `deposit(units, ref)` of the vault, or hand in a permit or an authorization."""

    token: int
    symbol: str
    chain: str
    chain_id: int
    vault: str
    coin: str
    decimals: int
    ref: str


class MoneyDesk:
    """What a gateway offers to members, through connections of its own to the files of custody; any one thread.

    `deposit.address` is `addresses`, `withdraw` is `withdrawal`, to be submitted as one command; the engine debits or
    refuses it, and the money is set aside until the chain has it.
    """

    def __init__(self, directory: Path, coins: Stablecoins, venue: str) -> None:
        """Of a settlement directory whose custody has been opened."""
        self._coins = coins
        self._venue = venue
        records = Records(directory, coins, venue, lambda: int(time.time()))
        self._flows, self._deposits, self._roots = records.flows, records.deposits, records.roots

    def addresses(self, account: int) -> list[DepositAddress]:
        """For every stablecoin that is taken here."""
        return [
            DepositAddress(
                token.number, token.symbol, token.network.name, token.network.chain_id, to_checksum_address(token.vault),
                to_checksum_address(token.address), token.decimals, "0x" + account_ref(self._venue, account).hex(),
            )
            for token in self._coins.tokens.values()
        ]  # fmt: skip

    def set_home(self, account: int, address: str) -> None:
        """Note the address that is the account's own, for good: whose leaf it is in every root, and where payouts go. Raises
        MoneyError.
        """
        try:
            own = parse_address(address)
            if own == bytes(20) or any(own in {token.vault, token.address} for token in self._coins.tokens.values()):
                raise ValueError(f"{address} is nobody's own address")
            self._deposits.set_home(account, own)
        except ValueError as error:
            raise MoneyError("BAD_ADDRESS", str(error)) from error

    def withdrawal(
        self, account: int, token_number: int, amount_micros: int, recipient: str, by_claim: bool = False
    ) -> NDArray[np.void]:
        """The WITHDRAW command (COMMAND). Raises MoneyError; then nothing has happened.

        With `by_claim` it is not sent but can be claimed from the vault, with a proof, once the next root is in force.
        """
        token = self._coins.tokens.get(token_number)
        if token is None:
            raise MoneyError("NOT_A_TOKEN", f"there is no stablecoin {token_number}")
        home = self._deposits.home(account)
        if home is None:
            raise MoneyError("NO_HOME", "say which address is the account's own first: deposit.address with home")
        self._require_amount(token, amount_micros)
        address = self._address(token, recipient)
        if by_claim and address != home:
            raise MoneyError("BAD_ADDRESS", f"what is claimed goes to {to_checksum_address(home)}")
        route = Route.CLAIM if by_claim else Route.SINGLE
        return withdraw_command(account, token_number, amount_micros, Destination(address, home, route))

    def _require_amount(self, token: Token, amount_micros: int) -> None:
        limits = token.limits
        if not limits.min_withdrawal_micros <= amount_micros <= limits.max_withdrawal_micros:
            raise MoneyError(
                "BAD_AMOUNT",
                f"{amount_micros} micros: from {limits.min_withdrawal_micros} to {limits.max_withdrawal_micros} at a time",
            )
        try:
            token.to_units(amount_micros)
        except ValueError as error:
            raise MoneyError("BAD_AMOUNT", str(error)) from error

    def _address(self, token: Token, text: str) -> bytes:
        try:
            address = parse_address(text)
        except ValueError as error:
            raise MoneyError("BAD_ADDRESS", str(error)) from error
        if address in {bytes(20), token.vault, token.address}:
            raise MoneyError("BAD_ADDRESS", f"what is sent to {text} is lost")
        return address

    def papers(self, account: int) -> list[dict[str, Any]]:
        """For `examples/claim_exit.py`: what the account's owner may claim, and takes along if the exchange is gone."""
        home = self._deposits.home(account)
        return self._roots.papers(home) if home else []

    def withdrawals(self, account: int) -> list[Withdrawal]:
        """All of an account, oldest first."""
        return self._flows.withdrawals("account = ?", (account,))

    def deposits(self, account: int) -> list[Deposit]:
        """All that was seen for an account."""
        return self._deposits.of_account(account)


async def withdraw(node: Node, command: NDArray[np.void]) -> int:
    """Put a withdrawal in the log; the sequence by which it is known. Raises MoneyError when the engine refuses it."""
    (event,) = await node.execute(command)
    if event["kind"] != EventKind.WITHDRAWN:
        reason = Reason(int(event["reason"])).name
        raise MoneyError(reason, f"the exchange refused it: {reason}")
    return int(event["command_seq"])
