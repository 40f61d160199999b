"""The demo's money: a test dollar and a vault on a chain inside this process, or on a development node.

Members deposit by authorization (EIP-3009): they sign, the operator hands it in, so that nobody needs gas. In the end
each cycle's gains are pushed to the members' addresses in batches, a root is put into force, and everything is compared.
"""

import asyncio
import dataclasses
import secrets
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from eth_account import Account
from eth_utils.address import to_checksum_address

from engine.catalogue import Catalogue
from settlement.abi import interface
from settlement.chain import Chain, ChainError
from settlement.custody import Custody
from settlement.deposits import account_ref
from settlement.embedded import FINALITY, Deployer, Embedded, Terms, deploy_dollar, development_roles
from settlement.flows import WithdrawalState
from settlement.outbox import TxState
from settlement.signer import MemorySigner
from settlement.stablecoins import Limits, Network, Stablecoins, Token
from settlement.typed_data import Authorization
from settlement.vault import authorization_nonce
from wellhead.chainfile import KeySet, make_custody
from wellhead.custody import Custodian
from wellhead.demo.stage import DemoError
from wellhead.node import Node

MICROS = 1_000_000
NO_LIMITS = Limits(**{field.name: 10**17 for field in dataclasses.fields(Limits) if not field.name.startswith("min_")})
DISPUTE_WINDOW_S, EXIT_WINDOW_S = 3_600, 7 * 86_400
MAX_STEPS = 120
MOST_LAG_S = 120
DEVELOPMENT_PHRASE = "test test test test test test test test test test test junk"
"""Whose accounts development nodes (anvil, hardhat) give money to. Everybody knows their keys."""


def development_secrets(count: int = 10) -> list[bytes]:
    """The keys of a development node's first accounts."""
    Account.enable_unaudited_hdwallet_features()
    return [
        bytes(Account.from_mnemonic(DEVELOPMENT_PHRASE, account_path=f"m/44'/60'/0'/0/{number}").key)
        for number in range(count)
    ]


class Treasury:
    """Make it, `open` it with the members' deposits, `settle` at the end, `close`."""

    def __init__(self, node: Node, catalogue: Catalogue, url: str | None) -> None:
        self._node, self._catalogue, self._url = node, catalogue, url
        self.lines: list[str] = []
        self._deposited = 0

    # Opening

    async def open(self, amounts_micros: Sequence[int]) -> None:
        """Deploy, and have account n + 1 deposit the n-th amount; returns when all of it is credited. Raises DemoError."""
        try:
            await asyncio.to_thread(self._deploy)
            self._custodian = Custodian(self._node, self._custody)
            await self._custodian.start()
            await asyncio.to_thread(self._deposit, amounts_micros)
            self._deposited = sum(amounts_micros)
            self.lines.append(
                f"{self._place}: vault {to_checksum_address(self._token.vault)}, {len(amounts_micros)} deposits by authorization,"
                f" {_usd(self._deposited)} USD"
            )
            await self._until(lambda custody: self._external() == self._deposited, "deposits to be credited")
        except ChainError as error:
            raise DemoError(f"the chain: {error}") from error

    def _deploy(self) -> None:
        if self._url is None:
            embedded = Embedded()
            self._chain, keys, self._place = embedded.chain, embedded.secrets, "in-process EVM (py-evm)"
            self._mine: Callable[[int, int], None] = embedded.advance
        else:
            self._chain, keys, self._place = Chain.at(self._url, FINALITY), development_secrets(), self._url
            self._mine = self._chain.mine
        chain_id = self._chain.chain_id()
        self._place += f", chain id {chain_id}"
        self._network = Network("demo", chain_id, self._url or "", FINALITY, first_block=self._chain.head().number)
        self._roles = development_roles(keys)
        self._operator = Deployer(self._chain, self._roles.admin)
        terms = Terms(DISPUTE_WINDOW_S, EXIT_WINDOW_S)
        token = deploy_dollar(self._operator, self._network, self._roles, terms)
        self._token: Token = dataclasses.replace(token, limits=NO_LIMITS)

    def _custody(self, directory: Path) -> Custody:
        coins = Stablecoins({self._token.number: self._token})
        keys = {"demo": KeySet(self._roles.settler, self._roles.root_setter, self._roles.signers[:2])}
        return make_custody(directory, coins, {"demo": self._chain}, keys, self._catalogue.venue, self._now_s)

    def _now_s(self) -> int:
        return self._chain.head().timestamp_s

    def _deposit(self, amounts_micros: Sequence[int]) -> None:
        coin, vault, token = interface("TestDollar"), interface("Vault"), self._token
        until_s = self._now_s() + 86_400
        for account, micros in enumerate(amounts_micros, 1):
            wallet, ref = _wallet(account), account_ref(self._catalogue.venue, account)
            owner, units, salt = to_checksum_address(wallet.address), token.to_units(micros), secrets.token_bytes(32)
            self._operator.call(coin, token.address, "mint", owner, units)
            signed = Authorization(
                owner, to_checksum_address(token.vault), units, 0, until_s, authorization_nonce(ref, salt)
            )
            signature = wallet.sign(signed.digest(token.domain))
            r, s = signature.r.to_bytes(32, "big"), signature.s.to_bytes(32, "big")
            arguments = (owner, units, ref, 0, until_s, salt, 27 + signature.v, r, s)
            self._custodian.custody.deposits.set_home(account, wallet.address)
            self._operator.call(vault, token.vault, "deposit_with_authorization", *arguments)
            self._custodian.custody.set_standing(account, token.number)

    # Settling

    async def settle(self) -> None:
        """Pay every cycle's gains, put a root into force, and compare. Raises DemoError."""
        try:
            await self._until(self._is_paid, "the batches to be paid")
            await self._until(self._is_in_force, "the last cycle's root to be in force", DISPUTE_WINDOW_S)
            differences = await asyncio.to_thread(self._compare)
        except ChainError as error:
            raise DemoError(f"the chain: {error}") from error
        if differences:
            raise DemoError("; ".join(differences))

    async def _until(self, done: Callable[[Custody], bool], what: str, pass_s: int = 0) -> None:
        """Step and mine until something is so, each time with so many seconds of the chain's clock."""
        custody = self._custodian.custody
        for _ in range(MAX_STEPS):
            await self._books_follow()
            await self._custodian.step()
            if halts := custody.halts.open():
                raise DemoError(halts[0].reason)
            if await asyncio.to_thread(done, custody):
                return
            await asyncio.to_thread(self._mine, 1, pass_s)
        raise DemoError(f"waited in vain for {what}")

    async def _books_follow(self) -> None:
        """Wait for the books, which run behind the market: custody goes by them, and a chain at hand is faster than they are."""
        exchange = self._node.exchange
        seq = exchange.engine.applied_seq
        try:
            async with asyncio.timeout(MOST_LAG_S):
                while exchange.settlement.applied_seq < seq:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise DemoError(f"the books did not come to command {seq} in {MOST_LAG_S} s") from None

    def _external(self) -> int:
        header = self._node.exchange.engine.memory.header
        return int(header["deposits_micros"]) - int(header["withdrawals_micros"])

    def _cycle(self) -> int:
        return int(self._node.exchange.engine.memory.header["cycle"])

    def _is_paid(self, custody: Custody) -> bool:
        return custody.settled_to(self._network) >= self._cycle() and not custody.flows.waiting()

    def _is_in_force(self, custody: Custody) -> bool:
        root = custody.roots.in_force(self._token.number)
        return root is not None and root.cycle == self._cycle()

    def _compare(self) -> list[str]:
        custody = self._custodian.custody
        site = custody.sites[0]
        differences = custody.reconcile(site)
        paid = custody.flows.withdrawals("state = ?", (WithdrawalState.PAID,))
        chunks = [entry for entry in site.outbox.entries("event = 'ChunkSettled'") if entry.state == TxState.FINAL]
        receipts = [self._chain.receipt(entry.tx_hash) for entry in chunks if entry.tx_hash]
        gas = sum(receipt.gas_used for receipt in receipts if receipt) // max(1, len(paid))
        root = custody.roots.in_force(self._token.number)
        assert root is not None
        total, members = sum(row.amount_micros for row in paid), len({row.account for row in paid})
        calls = "1 chunk" if len(chunks) == 1 else f"{len(chunks)} chunks"
        self.lines.append(
            f"{len(paid)} gains of {members} members, {_usd(total)} USD, pushed in {calls},"
            f" {gas:,} gas each; root 0x{root.root.hex()[:16]} of cycle {root.cycle} (epoch {root.epoch}) in force"
        )
        if not differences:
            held = _usd(self._deposited - total)
            self.lines.append(
                f"engine == ledger == chain: ok  the vault holds {held} USD, each address has what is its own"
            )
        return differences

    async def close(self) -> None:
        """Let go of the files."""
        if hasattr(self, "_custodian"):
            await self._custodian.stop()


def _wallet(account: int) -> MemorySigner:
    return MemorySigner(sha256(f"wellhead demo member {account}".encode()).digest())


def _usd(micros: int) -> str:
    return f"{micros // MICROS:,}.{micros % MICROS // 10_000:02}"
