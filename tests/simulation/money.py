"""Money of the simulated exchange: members with wallets on a simulated chain, and the product's own custody beside the node.

Deposits, withdrawals, a cycle's payouts and claims go over the contracts that ship, while blocks are taken back, requests
go unanswered and the exchange dies. `check` holds log and chain against each other afterwards, to the unit, without the
help of custody.
"""

import contextlib
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from eth_utils.address import to_canonical_address, to_checksum_address
from numpy.typing import NDArray

from engine.types import COMMAND, TRANSFER, EventKind, Kind
from settlement.abi import Decoded, interface
from settlement.chain import CallRefused, Receipt
from settlement.custody import Custody
from settlement.flows import Destination, Evidence, Route, bodies
from settlement.signer import MemorySigner, Transaction
from tests.simulation.chain import CHAIN_ID, GWEI, SECRETS, WALLET_UNITS, SimChain
from wellhead.chainfile import KeySet, make_custody
from wellhead.custody import Custodian, MoneyDesk
from wellhead.node import Node
from wellhead.services import ChainDesk

if TYPE_CHECKING:
    from tests.simulation.world import World

BLOCK_S, LOOK_S = 0.02, 0.03
DEPOSIT_UNITS = (10**9, 10**11)
NS = 1_000_000_000


class Wallet:
    """A member on the chain. What he handed in he hands in again until it is final."""

    def __init__(self, chain: SimChain, secret: bytes) -> None:
        self.chain, self.signer = chain, MemorySigner(secret)
        self.address = self.signer.address
        self.text = str(to_checksum_address(self.address))
        self._sent: list[bytes] = []

    def call(self, function: str, *arguments: Any) -> None:
        """A transaction to the vault."""
        vault = self.chain.coins.tokens[1].vault
        data, nonce = interface("Vault").call(function, *arguments), len(self._sent)
        transaction = Transaction(CHAIN_ID, nonce, vault, data, 600_000, 500 * GWEI, GWEI)
        self._sent.append(transaction.raw(self.signer.sign(transaction.digest)))
        self.insist()

    def insist(self) -> None:
        for raw in self._sent[self.done :]:
            self.chain.take(raw)

    @property
    def done(self) -> int:
        """How many of his transactions are in final blocks."""
        return self.chain.blocks[self.chain.final].nonces.get(self.address, 0)

    @property
    def waits(self) -> bool:
        return self.done < len(self._sent)

    def claim(self, papers: list[dict[str, Any]]) -> None:
        """What a root in force says is his, as far as it was not fetched."""
        for paper in papers if not self.waits else []:
            amounts = int(paper["payable_units"]), int(paper["exit_units"])
            proof = [bytes.fromhex(partner[2:]) for partner in paper["proof"]]
            try:
                data = interface("Vault").call("claim", paper["account"], *amounts, proof)
                self.chain.tried(self.address, self.chain.coins.tokens[1].vault, data)
            except CallRefused:
                continue
            self.call("claim", paper["account"], *amounts, proof)


class Money:
    """The chain, its members, and custody for as long as a life lasts."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"{world.seed} money")
        self.chain = SimChain(world.seed, world.disk, self.now_s)
        self.wallets = {
            name: Wallet(self.chain, secret)
            for name, secret in zip(sorted(set(world.accounts)), SECRETS[5:], strict=False)
        }
        self.recipients = 0
        self.custody: Custody | None = None
        self._custodian: Custodian | None = None
        self._desk: MoneyDesk | None = None

    def now_s(self) -> int:
        return self.world.clock() // NS

    # --- Of a life ----------------------------------------------------------------------------------------------------

    async def start(self, node: Node, in_peace: bool) -> None:
        """As `wellhead serve --chain` does it."""
        self.chain.calm = in_peace
        self._custodian = Custodian(node, self._make, LOOK_S)
        await self._custodian.start()
        self.custody = self._custodian.custody
        self._custodian.keep()
        self._desk = MoneyDesk(node.config.settlement_dir, self.chain.coins, node.catalogue.venue)
        node.gateway.operations.desk = ChainDesk(self._desk)
        node.observers.append(self._observe)
        self._tick()

    async def stop(self) -> None:
        if self._custodian is not None:
            await self._custodian.stop()

    def bury(self) -> None:
        """The exchange is gone; the chain goes on."""
        if self.custody is not None:
            self.custody.close()
        self.custody = self._custodian = self._desk = None
        for _ in range(self.rng.randrange(12)):
            self.chain.tick()

    def _make(self, directory: Path) -> Custody:
        roles, name = self.chain.roles, self.chain.coins.networks()[0].name
        keys = KeySet(roles.settler, roles.root_setter, roles.signers[:2])
        chains: dict[str, Any] = {name: self.chain}
        assert self.world.node is not None
        venue = self.world.node.catalogue.venue
        custody = make_custody(directory, self.chain.coins, chains, {name: keys}, venue, self.now_s)
        custody.sending.retry_s = 1
        return custody

    def _tick(self) -> None:
        """The chain's own time, and what members do there."""
        self.chain.tick()
        for name, wallet in self.wallets.items():
            wallet.insist()
            if self.rng.random() < 0.05:
                self.fetch(name)
        self.world.later(self.rng.expovariate(1 / BLOCK_S), self._tick)

    def fetch(self, name: str) -> None:
        """A member looks whether there is something to claim, and now and then asks for each cycle's gain."""
        account, node = self.number(name), self.world.node
        if account and self._desk is not None and node is not None:
            self.wallets[name].claim(self._desk.papers(account))
            if self.custody is not None and self.rng.random() < 0.3:
                self.custody.set_standing(account, 1)

    def number(self, name: str) -> int:
        node = self.world.node
        known = None if node is None else node.gateway.projection.account_by_name.get(name)
        return 0 if known is None else known.number

    def recipient(self) -> str:
        """An address that nothing was ever sent to."""
        self.recipients += 1
        return str(to_checksum_address((0xA000_0000 + self.recipients).to_bytes(20, "big")))

    def _observe(self, commands: NDArray[Any], _: NDArray[Any]) -> None:
        """Nothing may be in the log that the chain could still take back."""
        rows = commands[np.isin(commands["kind"], (Kind.DEPOSIT, Kind.PAYOUT))].view(TRANSFER)
        known = {receipt.tx_hash for receipt in self.chain.receipts(final=True)} if len(rows) else set()
        for row in rows[(rows["asset"] > 0) & (rows["refund_micros"] == 0)]:
            if Evidence.unpack(row["external_id"]).tx_hash not in known:
                kind = Kind(int(row["kind"])).name
                self.world.complain(f"{kind} {row['seq']} is in the log before its transaction is final")

    # --- The end ------------------------------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Whether all is credited, paid, claimed and in force; asks for what is missing."""
        custody, node = self.custody, self.world.node
        assert custody is not None and node is not None
        if halts := custody.halts.open():
            self.world.complain(f"withdrawals are stopped: {halts[0].reason}")
            return True
        for name in self.wallets:
            self.fetch(name)
        busy = any(outbox.under_way() for outbox in custody.sites[0].outboxes)
        waiting, last = custody.flows.waiting(), max((one.cycle for one in custody.records.exported()), default=0)
        deposits, root = [one for one, _ in self._deposits()], custody.roots.in_force(1)
        behind = bool(deposits) and (root is None or root.cycle < last)
        claimed = {row.route for row in waiting} <= {Route.CLAIM}
        if not busy and claimed and (waiting or behind) and (root is None or not behind):
            # For what is claimed, and for whoever never had a root.
            command = np.zeros(1, COMMAND)
            command["kind"] = Kind.CLOSE_CYCLE
            node.submit(command)
        unknown = [one for one in deposits if custody.flows.credit_of(1, one) is None]
        if busy or waiting or behind or unknown or any(wallet.waits for wallet in self.wallets.values()):
            return False
        if custody.records.ledger.head().applied_seq < node.exchange.engine.applied_seq:
            return False
        for difference in custody.reconcile(custody.sites[0]):
            self.world.complain(f"engine, ledger and chain: {difference}")
        return True

    def _said(self, final: bool = True) -> Iterator[tuple[Receipt, int, Decoded]]:
        vault = self.chain.coins.tokens[1].vault
        for receipt in self.chain.receipts(final):
            for log in receipt.logs:
                said = interface("Vault").event(log.topics, log.data) if log.address == vault else None
                if said is not None:
                    yield receipt, log.position, said

    def _deposits(self) -> Iterator[tuple[Evidence, Decoded]]:
        for receipt, position, said in self._said():
            if said.name == "Deposited":
                yield Evidence(receipt.tx_hash, position), said

    def check(self, commands: NDArray[Any], events: NDArray[Any], signed: set[bytes]) -> None:
        """Log and chain, to the unit. `signed` are the hashes of all that the outbox knows."""
        for _ in range(8):
            self.chain.mine()
        credits, debits = self._by_log(commands, events)
        deposits: dict[Evidence, int] = {one: int(said.values["units"]) for one, said in self._deposits()}
        for evidence in sorted(deposits.keys() | credits.keys()):
            if credits[evidence] != [deposits.get(evidence)]:
                name = f"deposit {evidence.tx_hash.hex()[:16]}"
                self.world.complain(f"{name}: {deposits.get(evidence)} on the chain, {credits[evidence]} in the log")
        deposited: Counter[bytes] = Counter()
        for _, said in self._deposits():
            deposited[to_canonical_address(said.values["depositor"])] += said.values["units"]
        for wallet in self.wallets.values():
            debits[wallet.address] += WALLET_UNITS - deposited[wallet.address]
        for address, units in sorted(debits.items()):
            if (found := self._coins_of(address)) != units:
                text = to_checksum_address(address)
                self.world.complain(f"{text} has {found} on the chain, {units} by the log")
        self._check_transactions(signed)

    def _by_log(self, commands: NDArray[Any], events: NDArray[Any]) -> tuple[dict[Evidence, list[int]], Counter[bytes]]:
        """What was credited for which log of the chain, and what each address was sent."""
        credits: dict[Evidence, list[int]] = defaultdict(list)
        debits: Counter[bytes] = Counter()
        open_: dict[int, tuple[bytes, int]] = {}
        asked = bodies(commands, events)
        self._check_gains(asked[events["kind"] == EventKind.WITHDRAWN])
        for kind, row in zip(events["kind"].tolist(), asked, strict=True):
            if kind == EventKind.WITHDRAWN and row["asset"]:
                open_[int(row["seq"])] = Destination.of(row).recipient, int(row["lots"])
            elif kind == EventKind.DEPOSITED and row["refund_micros"]:
                del open_[Evidence.unpack(row["external_id"]).number]
            elif kind == EventKind.DEPOSITED and row["asset"]:
                credits[Evidence.unpack(row["external_id"])].append(int(row["lots"]))
        for recipient, units in open_.values():
            debits[recipient] += units
        return credits, debits

    def _check_gains(self, withdrawn: NDArray[Any]) -> None:
        """A cycle's gain is paid out once."""
        rows = withdrawn[(withdrawn["asset"] > 0) & (withdrawn["flags"] == Route.BATCH)]
        gains = Counter((int(row["account"]), int(row["contra_account"])) for row in rows)
        for (account, cycle), times in gains.items():
            if times > 1:
                self.world.complain(f"account {account} was paid its gain of cycle {cycle} {times} times")

    def _coins_of(self, address: bytes) -> int:
        coin, token = interface("TestDollar"), self.chain.coins.tokens[1]
        data = coin.call("balanceOf", to_checksum_address(address))
        return int(coin.result("balanceOf", self.chain.look(token.address, data, self.chain.blocks[-1].number)))

    def _check_transactions(self, signed: set[bytes]) -> None:
        """Everything from the exchange's keys is known to the outbox, and none was sent for what was done already."""
        own = {self.chain.roles.settler.address, self.chain.roles.root_setter.address}
        done: dict[bytes, str] = {}
        for block in self.chain.blocks:
            for one, receipt in zip(block.transactions, block.receipts, strict=True):
                if one.sender not in own:
                    continue
                if one.hash not in signed:
                    self.world.complain(
                        f"transaction {one.hash.hex()[:16]} is on the chain, the outbox does not know it"
                    )
                if receipt.ok and one.data in done:
                    self.world.complain(f"transactions {done[one.data]} and {one.hash.hex()[:16]} do the same")
                if receipt.ok:
                    done[one.data] = one.hash.hex()[:16]

    def signed(self) -> set[bytes]:
        """The hashes of all that was ever signed, by the outbox."""
        assert self.custody is not None
        return {row[0] for row in self.custody.records.database.rows("SELECT tx_hash FROM attempts")}


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Without what custody tells its operator of a node that does not answer, and the gateway of a disk that is full."""
    loggers = [logging.getLogger(name) for name in ("settlement", "wellhead.custody", "gateway")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
