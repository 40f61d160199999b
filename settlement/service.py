"""Settlement as the node sees it: batches of commands and events go in, commands that are due come out.

Everything that a restart needs is in one database and moves in one transaction with `applied_seq`: ledger, plans of
deliveries, names, the sums of the cycle at hand. So there is nothing to snapshot. After a crash the node feeds the
log from any point at or before `applied_seq` on; what was applied is left out by its sequence. What follows a cycle's
end (netting, freezing, statements) comes after that transaction, step by step; a start takes up what was not
finished.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.records import joined
from engine.types import COMMAND, EVENT, MONEY, EventKind
from settlement.batches import Batch, Batches
from settlement.database import Database
from settlement.delivery import Deliveries
from settlement.disk import write_whole
from settlement.flows import Flows
from settlement.inbox import INBOX_NAME, Inbox
from settlement.indices import Indices
from settlement.ledger import Ledger, LedgerGapError, SqliteLedger
from settlement.metering import Metering
from settlement.moves import Kept
from settlement.netting import CycleSums
from settlement.posting import post
from settlement.registry import Registry
from settlement.tickets import KEY_NAME, SignedTicket, Signer

if TYPE_CHECKING:
    from settlement.statements import Statements

DATABASE_NAME = "ledger.sqlite"
LEDGER_NAME = "ledger.url"
SQLITE = "sqlite"
STATEMENTS_NAME = "statements"
OUTBOX_NAME = "outbox.sqlite"
"""What custody signed for chains (`settlement/records.py`): not made from the log."""
Job = tuple[NDArray[Any], NDArray[Any]]
"""A batch: commands (COMMAND) and their events (EVENT)."""
FORMAT = 7
"""Of the tables. Books of another one are made again from the log."""


def ledger_of(directory: Path, ledger: str = "") -> str:
    """Where the books of a directory are: `sqlite`, or the postgresql:// address; as given, else as it was last time."""
    if ledger:
        return ledger
    remembered = directory / LEDGER_NAME
    return remembered.read_text().strip() if remembered.exists() else SQLITE


def has_books(directory: Path) -> bool:
    """Whether there ever were books in a directory, or are elsewhere for it."""
    return (directory / DATABASE_NAME).exists() or (directory / LEDGER_NAME).exists()


def open_books(directory: Path, read_only: bool, ledger: str = "") -> tuple[Database, Ledger]:
    """The database with the books of a directory, wherever it is, and the ledger in it. Raises LedgerError where no
    server answers.
    """
    place = ledger_of(directory, ledger)
    if place == SQLITE:
        if ledger and not read_only:
            (directory / LEDGER_NAME).unlink(missing_ok=True)
        database = Database(directory / DATABASE_NAME, read_only)
        return database, SqliteLedger(database)
    from settlement.postgres import PostgresDatabase, PostgresLedger  # noqa: PLC0415 - optional

    server = PostgresDatabase.connect(place, read_only)
    if ledger and not read_only:
        write_whole(directory / LEDGER_NAME, ledger.encode() + b"\n", mode=0o600)  # it may have a password in it
    return server, PostgresLedger(server)


class Books:
    """The parts that live in one settlement directory. Open it read-only to look at the books of a running node."""

    def __init__(self, directory: Path, catalogue: Catalogue, read_only: bool = False, ledger: str = "") -> None:
        """`ledger` says where they are; see `ledger_of`."""
        if not read_only:
            directory.mkdir(parents=True, exist_ok=True)
        self.database, self.ledger = open_books(directory, read_only, ledger)
        self.registry = Registry(self.database)
        self.catalogue = catalogue
        self.metering = Metering(directory)
        self.indices = Indices(self.database, self.registry)
        self.deliveries = Deliveries(self.database, self.registry, self.indices, self.metering, catalogue)
        self.sums = CycleSums(self.database)
        self.flows = Flows(self.database)
        self.batches = Batches(self.database)
        self._directory = directory
        try:
            self.database.check_format(FORMAT)
            if not read_only:
                with self.database.transaction():
                    for part in (
                        self.ledger, self.registry, self.indices, self.deliveries, self.sums, self.flows, self.batches,
                    ):  # fmt: skip
                        part.create()
            self.load()
        except BaseException:
            self.close()
            raise

    @cached_property
    def statements(self) -> "Statements":
        """The statements of all batches."""
        from settlement.statements import Statements  # noqa: PLC0415 - compiled code takes longer to load than all the rest

        directory = self._directory / STATEMENTS_NAME
        return Statements(directory, self.ledger, self.registry, self.batches, self.catalogue.stablecoin)

    def load(self) -> None:
        """Read what is kept in memory from the database again."""
        self.registry.load()
        self.indices.load()
        self.deliveries.load()

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Settlement:
    """The books, written by one thread. `due`, `report` and `tickets` may be called from another one."""

    def __init__(self, directory: Path, catalogue: Catalogue, ledger: str = "") -> None:
        """Open or make the books of a directory and finish what an earlier run left unfinished.

        Raises BatchError when a cycle's two computations differ.
        """
        self.books = Books(directory, catalogue, ledger=ledger)
        self.books.ledger.claim()
        self._applied_seq = self.books.ledger.head().applied_seq
        self._kept = Kept(directory, self._applied_seq)
        self._signer = Signer(directory / KEY_NAME)
        (directory / INBOX_NAME).mkdir(exist_ok=True)
        self._inbox = Inbox(directory / INBOX_NAME, self.report)
        try:
            self._finish_batches()
        except BaseException:
            self.books.close()
            raise

    @property
    def applied_seq(self) -> int:
        """The last command in the books, durable."""
        return self._applied_seq

    def on_batch(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        """Take in a batch of durable commands (COMMAND) and their events (EVENT), in the order of the log.

        Batches may be cut anywhere between two commands, joined, and repeated. Raises LedgerGapError when commands
        are missing, and whatever else is wrong with the batch; then the books are as after the last cycle's end in
        the batch, or as before it.
        """
        if not len(commands) or commands["seq"][-1] <= self._applied_seq:
            return
        if commands["seq"][0] > self._applied_seq + 1:
            raise LedgerGapError(
                f"offered commands from {commands['seq'][0]} on, but only {self._applied_seq} is applied"
            )
        # The books must stand at a cycle's end when it is settled.
        ends = events["command_seq"][events["kind"] == EventKind.CYCLE_CLOSED].tolist()
        for last_seq in [*ends, int(commands["seq"][-1])]:
            if last_seq > self._applied_seq:
                self._apply(*_between(commands, events, self._applied_seq, last_seq))

    def on_batches(self, jobs: Sequence[Job]) -> None:
        """Several batches that follow each other, as one."""
        commands, events = zip(*jobs, strict=True)
        self.on_batch(joined(commands, COMMAND), joined(events, EVENT))

    def _apply(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        books, last_seq = self.books, int(commands["seq"][-1])
        try:
            with books.database.transaction():
                terms = books.registry.on_batch(commands, events)
                posting = post(commands, events, terms)
                books.ledger.apply(posting, self._applied_seq)
                books.sums.add(commands, events, terms)
                books.flows.on_batch(commands, events)
                books.indices.on_batch(events, terms)
                books.deliveries.on_batch(commands, events, terms)
                closed = events[events["kind"] == EventKind.CYCLE_CLOSED]
                if len(closed):
                    books.batches.open(closed.view(MONEY)[-1], books.sums, books.ledger)
        except BaseException:
            books.load()
            raise
        self._applied_seq = last_seq
        self._kept.add(posting)
        if len(closed):
            self._finish_batches()

    def _finish_batches(self) -> None:
        """Bring every batch to a frozen root and its statements to the disk."""
        batches = self.books.batches
        for cycle in batches.unfinished():
            batch = batches.advance(cycle, self.books.ledger)
            self.books.statements.write(batch, self._kept.take(batch.from_seq, batch.to_seq))
            batches.mark_exported(cycle)

    def due(self, now_ns: int) -> NDArray[Any]:
        """Commands (COMMAND) for the node to log: deliveries whose hour has ended, and DELIST of what is delivered.

        Each is handed out once, so the caller must log what it gets. Ask only after the log was replayed to its end.
        Meter reports in the inbox are taken in first.
        """
        self._inbox.take(now_ns)
        return self.books.deliveries.due(now_ns)

    def report(self, data: bytes, now_ns: int, account: int | None = None) -> int:
        """Take a meter's report (`settlement/meter.py`) of a provider; with `account`, of that one only.

        Returns the number of its records, durable. Raises MeterError, whose `code` is a Refusal; then nothing changed.
        """
        return self.books.deliveries.report(data, now_ns, account)

    def tickets(self, account: int) -> list[SignedTicket]:
        """The signed delivery tickets of an account, as provider or receiver, from the gate to DELIST."""
        tickets = self.books.deliveries.tickets(account, self.books.catalogue.venue)
        return [self._signer.sign(ticket) for ticket in tickets]

    @property
    def public_key(self) -> bytes:
        """With which tickets are checked."""
        return self._signer.public_key

    def last_batch(self) -> Batch | None:
        """The batch of the last cycle that ended."""
        batches = self.books.batches.all()
        return batches[-1] if batches else None

    def cycle_began_ns(self) -> int | None:
        """When the cycle at hand began: with the last one's end, or with the first money. None before there is any."""
        if (batch := self.last_batch()) is not None:
            return batch.closed_ns
        first = self.books.database.one("SELECT ts_ns FROM moments ORDER BY seq LIMIT 1")
        return None if first is None else int(first[0])

    def flush(self) -> None:
        """Move SQLite's write-ahead log into the file. Each batch is durable without it when `on_batch` returns."""
        self.books.database.checkpoint()

    def close(self) -> None:
        self._kept.close()
        self.books.close()


def _between(
    commands: NDArray[Any], events: NDArray[Any], after_seq: int, last_seq: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The part of a batch after one command, up to and with another. Sequences rise, so it is one piece."""
    seqs = commands["seq"]
    part = commands[np.searchsorted(seqs, after_seq, "right") : np.searchsorted(seqs, last_seq, "right")]
    seqs = events["command_seq"]
    return part, events[np.searchsorted(seqs, after_seq, "right") : np.searchsorted(seqs, last_seq, "right")]
