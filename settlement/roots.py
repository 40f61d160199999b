"""Roots for the vaults: what each address may claim, and what it takes along if the exchange is gone.

After a cycle is frozen, for each vault, from the books as they were at the cycle's end:

    payable = all that was ever paid to the address, and its withdrawals that wait to be claimed
    exit    = all that was ever paid to the address, and its members' share of this vault in all they own

The first never falls: a withdrawal that waits to be claimed stays in it for good, also when its money was given back by
some command of an operator's. (A total that fell would let anyone dispute the root, and the owner may have claimed by
the root before it; reconciliation tells of a claim of which the books do not know.)

A member owns dollars, not coins of one vault. With several vaults each answers for the share of all that is owed which
its coins are of all coins, rounded down. What is on its way out still belongs to its owner, so a payment after the
root only lowers what an exit pays. Held deposits belong to their depositors.

Leaves are stored before the root is proposed: they are what members need to leave without the exchange.
"""

import contextlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eth_utils.address import to_canonical_address, to_checksum_address

from settlement.abi import interface
from settlement.accounts import STABLECOIN, VAULT, owner_of, token_asset
from settlement.batches import Batch, Batches
from settlement.database import Database
from settlement.deposits import Deposits, DepositState
from settlement.flows import Flows, Route, WithdrawalState
from settlement.outbox import Plan
from settlement.plans import units_of
from settlement.proofs import HASH_BYTES, ProofError
from settlement.stablecoins import Stablecoins, Token
from settlement.vault import ClaimTree, Leaf

SCHEMA = """
CREATE TABLE IF NOT EXISTS roots (
    token INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    cycle INTEGER NOT NULL,
    root BLOB NOT NULL,
    payable_units TEXT NOT NULL,
    liability_units TEXT NOT NULL,
    covered_deposits INTEGER NOT NULL,
    PRIMARY KEY (token, epoch, cycle)
) STRICT;
CREATE TABLE IF NOT EXISTS leaves (
    token INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    cycle INTEGER NOT NULL,
    address BLOB NOT NULL,
    payable_units TEXT NOT NULL,
    exit_units TEXT NOT NULL,
    PRIMARY KEY (token, epoch, cycle, address)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS in_force (
    token INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    cycle INTEGER NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Root:
    """What is proposed to a vault. An epoch may be proposed again for a later cycle, after a dispute."""

    token: int
    epoch: int
    cycle: int
    root: bytes
    payable_units: int
    liability_units: int
    covered_deposits: int


def propose_purpose(token: int, epoch: int, cycle: int) -> str:
    return f"propose:{token}:{epoch}:{cycle}"


def finalize_purpose(token: int, epoch: int, cycle: int) -> str:
    return f"finalize:{token}:{epoch}:{cycle}"


def dispute_purpose(token: int, epoch: int, root: bytes) -> str:
    return f"dispute:{token}:{epoch}:{int.from_bytes(root, 'big')}"


class Roots:
    """Builds roots from the ledger and keeps them with their leaves in the outbox's database."""

    def __init__(self, database: Database, ledger: Database, deposits: Deposits, coins: Stablecoins) -> None:
        self._database = database
        self._flows = Flows(ledger)
        self._batches = Batches(ledger)
        self._deposits = deposits
        self._coins = coins

    def create(self) -> None:
        """Make the tables where they are missing."""
        with self._database.transaction():
            self._database.create(SCHEMA)

    def build(self, token: Token, epoch: int, batch: Batch) -> Root | None:
        """The root after a cycle, stored with its leaves; None when nobody ever had anything in this vault."""
        covered = self.covered(token, batch)
        leaves = self.leaves(token, batch, covered)
        if not leaves:
            return None
        tree = ClaimTree(token.vault_domain, epoch, leaves)
        root = Root(
            token.number, epoch, batch.cycle, tree.root, tree.payable_units, tree.liability_units,
            covered,
        )  # fmt: skip
        with self._database.transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO roots VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    root.token, root.epoch, root.cycle, root.root, str(root.payable_units),
                    str(root.liability_units), root.covered_deposits,
                ),
            )  # fmt: skip
            key = (token.number, epoch, batch.cycle)
            self._database.execute("DELETE FROM leaves WHERE token = ? AND epoch = ? AND cycle = ?", key)
            self._database.execute_many(
                "INSERT INTO leaves VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (*key, to_canonical_address(leaf.account), str(leaf.payable_units), str(leaf.exit_units))
                    for leaf in leaves
                ],
            )
        return root

    def leaves(self, token: Token, batch: Batch, covered: int) -> list[Leaf]:
        """What each address is due at a cycle's end, by address."""
        paid: dict[bytes, int] = defaultdict(int)
        waiting: dict[bytes, int] = defaultdict(int)
        condition = "token = ? AND seq <= ? AND state <> ?"
        for row in self._flows.withdrawals(condition, (token.number, batch.to_seq, WithdrawalState.REFUSED)):
            if row.state == WithdrawalState.PAID and row.done_seq is not None and row.done_seq <= batch.to_seq:
                paid[row.home] += units_of(token, [row])
            elif row.route == Route.CLAIM:
                waiting[row.home] += units_of(token, [row])
        owned = self._owned(token, batch, covered)
        addresses = {address for units in (paid, waiting, owned) for address in units if units[address]}
        return [
            Leaf(
                to_checksum_address(address),
                paid.get(address, 0) + waiting.get(address, 0),
                paid.get(address, 0) + max(owned.get(address, 0), waiting.get(address, 0)),
            )
            for address in sorted(addresses)
        ]

    def _owned(self, token: Token, batch: Batch, covered: int) -> dict[bytes, int]:
        """Units of this vault that belong to each address."""
        closing, homes = self._batches.closing(batch.cycle), self._deposits.homes()
        coins = {number: closing.get((token_asset(number), VAULT), 0) for number in self._coins.tokens}
        all_coins, own_coins = sum(coins.values()), coins[token.number]
        money: dict[int, int] = defaultdict(int)
        for (asset, account), amount in closing.items():
            if asset == STABLECOIN and owner_of(account):
                money[owner_of(account)] += amount
        owned: dict[bytes, int] = defaultdict(int)
        for account, micros in money.items():
            if account in homes and all_coins:
                owned[homes[account]] += token.units_within(micros * own_coins // all_coins)
        for address, units in self._held(token, batch, covered).items():
            owned[address] += units
        return owned

    def _held(self, token: Token, batch: Batch, covered: int) -> Mapping[bytes, int]:
        held: dict[bytes, int] = defaultdict(int)
        for deposit in self._deposits.rows("token = ? AND state >= ?", (token.number, DepositState.FINAL)):
            if deposit.place >= covered:
                break
            credited = self._flows.credit_of(token.number, deposit.evidence)
            if credited is None or credited > batch.to_seq:
                held[deposit.depositor] += deposit.units
        return held

    def covered(self, token: Token, batch: Batch) -> int:
        """How many of the vault's deposits, from the first on, are in the balances or held at a cycle's end."""
        count = 0
        for deposit in self._deposits.rows("token = ? AND state >= ?", (token.number, DepositState.FINAL)):
            credited = self._flows.credit_of(token.number, deposit.evidence)
            known = deposit.state == DepositState.HELD if credited is None else credited <= batch.to_seq
            if not known or deposit.place != count:
                break
            count += 1
        return count

    def stored(self, token: int, epoch: int, cycle: int) -> Root:
        """Raises KeyError for a root that was never built."""
        row = self._database.one(
            "SELECT * FROM roots WHERE token = ? AND epoch = ? AND cycle = ?", (token, epoch, cycle)
        )
        if row is None:
            raise KeyError((token, epoch, cycle))
        number, _, _, digest, payable, liability, covered = row
        return Root(number, epoch, cycle, digest, int(payable), int(liability), covered)

    def is_ours(self, token: int, epoch: int, cycle: int, digest: bytes) -> bool:
        """Whether a root that a vault has was built here."""
        try:
            return self.stored(token, epoch, cycle).root == digest
        except KeyError:
            return False

    def note_in_force(self, token: int, epoch: int, cycle: int) -> None:
        """The vault says so in a final block, whoever put it into force."""
        self._database.execute("INSERT OR REPLACE INTO in_force VALUES (?, ?, ?)", (token, epoch, cycle))

    def epoch_in_force(self, token: int) -> int:
        """As it was noted last; 0 before the first."""
        row = self._database.one("SELECT epoch FROM in_force WHERE token = ?", (token,))
        return 0 if row is None else int(row[0])

    def in_force(self, token: int) -> Root | None:
        """The root in force as it was noted last, if it was built here."""
        row = self._database.one("SELECT epoch, cycle FROM in_force WHERE token = ?", (token,))
        with contextlib.suppress(KeyError):
            return self.stored(token, *row) if row else None
        return None

    def tree(self, token: Token, root: Root) -> ClaimTree:
        """A root's leaves, from which the proofs of all its addresses follow."""
        query = "SELECT address, payable_units, exit_units FROM leaves WHERE token = ? AND epoch = ? AND cycle = ?"
        rows = self._database.rows(query, (root.token, root.epoch, root.cycle))
        leaves = [Leaf(to_checksum_address(owner), int(payable), int(exit_)) for owner, payable, exit_ in rows]
        return ClaimTree(token.vault_domain, root.epoch, leaves)

    def papers(self, address: bytes) -> list[dict[str, Any]]:
        """What an address needs to claim or to leave without the exchange, for each vault in whose root it is."""
        papers = []
        for token in self._coins.tokens.values():
            root = self.in_force(token.number)
            with contextlib.suppress(ProofError):
                if root is not None:
                    papers.append(self.tree(token, root).paper(to_checksum_address(address)))
        return papers

    def papers_of(self, cycle: int) -> dict[int, list[dict[str, Any]]]:
        """The papers of all accounts for the roots of one cycle, one a vault: for their statements."""
        papers: dict[int, list[dict[str, Any]]] = defaultdict(list)
        query = "SELECT token, MAX(epoch) FROM roots WHERE cycle = ? GROUP BY token ORDER BY token"
        for number, epoch in self._database.rows(query, (cycle,)):
            token = self._coins.tokens.get(number)
            if token is None:
                continue
            tree = self.tree(token, self.stored(number, epoch, cycle))
            for account, home in self._deposits.homes().items():
                with contextlib.suppress(ProofError):
                    papers[account].append(tree.paper(to_checksum_address(home)))
        return papers

    def newest_cycles(self) -> list[int]:
        """Cycles with the newest root of a vault, or the one in force."""
        query = "SELECT MAX(cycle) FROM roots GROUP BY token UNION SELECT cycle FROM in_force"
        return sorted(row[0] for row in self._database.rows(query))

    # Plans

    def plan(self, purpose: str) -> Plan:
        """The call that a purpose stands for, from the stored root. Raises KeyError, ValueError."""
        kind, *numbers = purpose.split(":")
        number, epoch, cycle = (int(part) for part in numbers)
        token = self._coins.tokens[number]
        if kind == "dispute":
            return self._dispute(purpose, token, epoch, cycle.to_bytes(HASH_BYTES, "big"))
        root = self.stored(number, epoch, cycle)
        if kind == "propose":
            arguments = (epoch, cycle, root.root, root.payable_units, root.liability_units, root.covered_deposits)
            data, event = interface("Vault").call("propose_root", *arguments), "RootProposed"
        else:
            data, event = interface("Vault").call("finalize_root", epoch, root.root), "RootFinalized"
        expected = {"epoch": epoch, "cycle": cycle, "root": root.root}
        return Plan(purpose, token.network.chain_id, token.vault, data, event, expected)

    def _dispute(self, purpose: str, token: Token, epoch: int, digest: bytes) -> Plan:
        """Voids a root that was not built here. Raises ValueError for one that was."""
        query = "SELECT 1 FROM roots WHERE token = ? AND epoch = ? AND root = ?"
        if self._database.one(query, (token.number, epoch, digest)):
            raise ValueError(f"the root 0x{digest.hex()} is ours")
        data, expected = interface("Vault").call("dispute", epoch), {"epoch": epoch, "root": digest}
        return Plan(purpose, token.network.chain_id, token.vault, data, "RootDisputed", expected)

    def plan_again(self, purpose: str) -> Plan:
        """The same, after building the leaves anew from the ledger: for the policy. Raises ValueError when the root differs."""
        if purpose.startswith("dispute:"):
            return self.plan(purpose)
        number, epoch, cycle = purpose.split(":")[1:]
        token, root = self._coins.tokens[int(number)], self.stored(int(number), int(epoch), int(cycle))
        batch = self._batches.get(int(cycle))
        tree = ClaimTree(token.vault_domain, root.epoch, self.leaves(token, batch, root.covered_deposits))
        if (tree.root, tree.payable_units, tree.liability_units) != (
            root.root,
            root.payable_units,
            root.liability_units,
        ):
            raise ValueError(f"the ledger leads to another root than 0x{root.root.hex()}")
        return self.plan(purpose)
