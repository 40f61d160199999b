"""The batch of a settlement cycle, from the cycle's end to a frozen root that anybody can check.

    OPEN     the cycle has ended; its sums from the events and all balances at its end are stored, with `applied_seq`
    NETTED   the nets from the ledger are stored too
    FROZEN   both gave the same Merkle root; root and batch id are final
    SUBMITTED, CONFIRMED, FINAL are the chain's

Each step is one transaction that looks at the state first. So a crash between any two leaves a batch that `advance`
takes up where it was, and a cycle has one batch, once. The id is a hash of the content: a retry can only make the
same one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from settlement.accounts import HOUSE
from settlement.database import Database
from settlement.ledger import Balances, Ledger
from settlement.netting import CycleSums, Nets, Sums, audited_nets, ledger_nets
from settlement.proofs import NO_BATCH, Tree, batch_hash, entry

SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    cycle INTEGER PRIMARY KEY,
    from_seq INTEGER NOT NULL,
    to_seq INTEGER NOT NULL,
    closed_ns INTEGER NOT NULL,
    state INTEGER NOT NULL,
    event_gross_micros INTEGER NOT NULL,
    gross_micros INTEGER,
    leaves INTEGER,
    root BLOB,
    previous_id BLOB,
    batch_id BLOB UNIQUE,
    exported INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS batch_nets (
    cycle INTEGER NOT NULL,
    source INTEGER NOT NULL,
    account INTEGER NOT NULL,
    net_micros INTEGER NOT NULL,
    external_micros INTEGER NOT NULL,
    PRIMARY KEY (cycle, source, account)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS closing_balances (
    cycle INTEGER NOT NULL,
    asset INTEGER NOT NULL,
    account INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (cycle, asset, account)
) STRICT, WITHOUT ROWID
"""

# The `source` of stored nets; those from the events are dropped when both have agreed.
_LEDGER, _EVENTS = 0, 1


class BatchState(IntEnum):
    OPEN = 0
    NETTED = 1
    FROZEN = 2
    SUBMITTED = 3
    CONFIRMED = 4
    FINAL = 5
    FAILED = 9


class BatchError(RuntimeError):
    """A batch may not go on; nothing was changed. The message says which cycle, and where two computations differ."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of a cycle's batch. The last five fields are empty until it is frozen."""

    cycle: int
    from_seq: int
    to_seq: int
    closed_ns: int
    state: BatchState
    gross_micros: int
    leaves: int
    root: bytes
    previous_id: bytes
    batch_id: bytes
    exported: bool


class Batches:
    """All batches, in the ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)

    def open(self, closed: Any, sums: CycleSums, ledger: Ledger) -> None:
        """The cycle has ended with the event `closed` (MONEY) of the last command applied. In the caller's transaction."""
        cycle, to_seq = int(closed["lots"]), int(closed["command_seq"])
        last = self._database.one("SELECT cycle, to_seq FROM batches ORDER BY cycle DESC LIMIT 1") or (0, 0)
        if cycle != last[0] + 1:
            raise BatchError(f"cycle {cycle} cannot follow cycle {last[0]}")
        nets = sums.take()
        self._database.execute(
            "INSERT INTO batches (cycle, from_seq, to_seq, closed_ns, state, event_gross_micros, gross_micros)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (cycle, last[1] + 1, to_seq, int(closed["ts_ns"]), BatchState.OPEN, nets.gross_micros, ledger.take_gross()),
        )
        self._store(_EVENTS, cycle, nets.sums)
        self._database.execute(
            "INSERT INTO closing_balances SELECT ?, asset, account, amount FROM balances WHERE amount <> 0", (cycle,)
        )

    def unfinished(self) -> list[int]:
        """Cycles whose batch is not frozen, or frozen and not exported."""
        query = "SELECT cycle FROM batches WHERE state < ? OR exported = 0 ORDER BY cycle"
        return [row[0] for row in self._database.rows(query, (BatchState.FROZEN,))]

    def advance(self, cycle: int, ledger: Ledger) -> Batch:
        """Bring a batch to FROZEN, from wherever it is. Raises BatchError when the two computations differ."""
        while (batch := self.get(cycle)).state < BatchState.FROZEN:
            with self._database.transaction():
                if batch.state == BatchState.OPEN:
                    self._net(batch, ledger)
                else:
                    self._freeze(batch)
        return batch

    def _net(self, batch: Batch, ledger: Ledger) -> None:
        nets = ledger_nets(self._database, ledger, batch.cycle, (batch.from_seq, batch.to_seq))
        self._store(_LEDGER, batch.cycle, nets)
        self._database.execute("UPDATE batches SET state = ? WHERE cycle = ?", (BatchState.NETTED, batch.cycle))

    def _freeze(self, batch: Batch) -> None:
        tree = self._agreed_tree(batch)
        previous = self.get(batch.cycle - 1).batch_id if batch.cycle > 1 else NO_BATCH
        batch_id = batch_hash(batch.cycle, (batch.from_seq, batch.to_seq), batch.gross_micros, tree.root, previous)
        self._database.execute(
            "UPDATE batches SET state = ?, leaves = ?, root = ?, previous_id = ?, batch_id = ? WHERE cycle = ?",
            (BatchState.FROZEN, tree.count, tree.root, previous, batch_id, batch.cycle),
        )
        self._database.execute("DELETE FROM batch_nets WHERE cycle = ? AND source = ?", (batch.cycle, _EVENTS))

    def _agreed_tree(self, batch: Batch) -> Tree:
        """The tree, built once from the ledger's nets and once from the events' sums."""
        by_ledger = self.nets(batch.cycle)
        by_events = self._load(_EVENTS, batch.cycle)
        members = self.members(batch)
        trees = [Tree(entries(batch.cycle, members, sums)) for sums in (by_ledger, by_events)]
        strangers = (by_ledger.keys() | by_events.keys()) - set(members)
        if trees[0].root != trees[1].root or strangers:
            differ = [
                account
                for account in by_ledger.keys() | by_events.keys()
                if by_ledger.get(account) != by_events.get(account)
            ]
            worst = min(strangers or differ)
            raise BatchError(
                f"cycle {batch.cycle}: account {worst}: {by_ledger.get(worst)} by the ledger,"
                f" {by_events.get(worst)} by the events"
            )
        event_gross = self._database.one("SELECT event_gross_micros FROM batches WHERE cycle = ?", (batch.cycle,))
        if event_gross != (batch.gross_micros,):
            raise BatchError(
                f"cycle {batch.cycle}: gross {batch.gross_micros} by the ledger, {event_gross} by the events"
            )
        if sum(row.net_micros for row in by_ledger.values()):
            raise BatchError(f"cycle {batch.cycle}: the nets do not sum to zero")
        return trees[0]

    def get(self, cycle: int) -> Batch:
        """Raises BatchError for a cycle that has not ended."""
        row = self._database.one(
            "SELECT cycle, from_seq, to_seq, closed_ns, state, COALESCE(gross_micros, 0), COALESCE(leaves, 0),"
            " COALESCE(root, x''), COALESCE(previous_id, x''), COALESCE(batch_id, x''), exported"
            " FROM batches WHERE cycle = ?",
            (cycle,),
        )
        if row is None:
            raise BatchError(f"there is no batch of cycle {cycle}")
        cycle, from_seq, to_seq, closed_ns, state, gross, leaves, root, previous, batch_id, exported = row
        return Batch(
            cycle, from_seq, to_seq, closed_ns, BatchState(state), gross, leaves, root, previous, batch_id, bool(exported)
        )  # fmt: skip

    def all(self) -> list[Batch]:
        return [self.get(row[0]) for row in self._database.rows("SELECT cycle FROM batches ORDER BY cycle")]

    def members(self, batch: Batch) -> list[int]:
        """Whom the tree has leaves for, in order: the house and every account that was open at the cycle's end."""
        query = "SELECT account FROM members WHERE opened_seq <= ? ORDER BY account"
        return [HOUSE, *(row[0] for row in self._database.rows(query, (batch.to_seq,)))]

    def nets(self, cycle: int) -> dict[int, Sums]:
        """The nets from the ledger, as stored; an account with nothing is left out."""
        return self._load(_LEDGER, cycle)

    def tree(self, batch: Batch) -> Tree:
        """The tree of a netted batch, built again from the stored nets."""
        return Tree(entries(batch.cycle, self.members(batch), self.nets(batch.cycle)))

    def recompute(self, batch: Batch, ledger: Ledger) -> tuple[Nets, bytes]:
        """The nets and the root again, from the ledger's transfers; nothing is stored."""
        nets = audited_nets(ledger, (batch.from_seq, batch.to_seq))
        return nets, Tree(entries(batch.cycle, self.members(batch), nets.sums)).root

    def closing(self, cycle: int) -> Balances:
        """All balances at the end of a cycle; none before the first."""
        query = "SELECT asset, account, amount FROM closing_balances WHERE cycle = ?"
        return {(asset, account): amount for asset, account, amount in self._database.rows(query, (cycle,))}

    def mark_exported(self, cycle: int) -> None:
        """The statements are on the disk."""
        self._database.execute("UPDATE batches SET exported = 1 WHERE cycle = ?", (cycle,))

    def _store(self, source: int, cycle: int, sums: Mapping[int, Sums]) -> None:
        rows = [(cycle, source, account, *sums[account]) for account in sorted(sums)]
        self._database.execute_many("INSERT INTO batch_nets VALUES (?, ?, ?, ?, ?)", rows)

    def _load(self, source: int, cycle: int) -> dict[int, Sums]:
        query = "SELECT account, net_micros, external_micros FROM batch_nets WHERE cycle = ? AND source = ? ORDER BY account"
        rows = self._database.rows(query, (cycle, source))
        return {account: Sums(net, external) for account, net, external in rows}


_NOTHING = Sums(0, 0)


def entries(cycle: int, members: list[int], sums: Mapping[int, Sums]) -> list[bytes]:
    """The leaves of a cycle's tree, one for each member."""
    return [entry(cycle, account, *sums.get(account, _NOTHING)) for account in members]
