"""What custody reads and writes, opened together: the books, wherever they are, to read; the outbox beside them, to write.

`outbox.sqlite` is a file on the exchange's machine whatever keeps the books: what was signed cannot be made again from
the log, and must be on this disk before a node sees it.
"""

from collections.abc import Callable
from pathlib import Path

from settlement.batches import Batch, Batches, BatchState
from settlement.claims import Claims
from settlement.database import Database
from settlement.deposits import Deposits
from settlement.flows import Flows
from settlement.halts import Halts
from settlement.outbox import Plan
from settlement.roots import Roots
from settlement.service import OUTBOX_NAME, open_books
from settlement.stablecoins import Stablecoins
from settlement.transfers import Transfers

SCHEMA = """
CREATE TABLE IF NOT EXISTS cursors (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT
"""


class Records:
    """Of one settlement directory. One thread uses it; each that needs them opens its own."""

    def __init__(
        self, directory: Path, coins: Stablecoins, venue: str, now_s: Callable[[], int], read_only: bool = False
    ) -> None:
        """Raises LedgerError where the books' server does not answer; with `read_only` the outbox must be there."""
        self.coins, self.now_s = coins, now_s
        self.books, self.ledger = open_books(directory, read_only=True)
        self.database = Database(directory / OUTBOX_NAME, read_only)
        self.flows, self.batches = Flows(self.books), Batches(self.books)
        self.halts = Halts(self.database, now_s)
        self.deposits = Deposits(self.database, self.flows, venue)
        self.claims = Claims(self.database)
        self.transfers = Transfers(self.database, self.deposits, venue)
        self.roots = Roots(self.database, self.books, self.deposits, coins)
        if not read_only:
            with self.database.transaction():
                self.database.create(SCHEMA)
                for part in (self.halts, self.deposits, self.claims, self.transfers, self.roots):
                    part.create()

    def close(self) -> None:
        self.books.close()
        self.database.close()

    def plan_again(self, purpose: str) -> Plan:
        """What a purpose of neither a withdrawal nor a chunk stands for, worked out anew: for the policy. Raises ValueError,
        KeyError.
        """
        kind, token = purpose.split(":")[:2]
        if kind == "transfer":
            return self.transfers.plan_again(self.coins.tokens[int(token)], purpose)
        return self.roots.plan_again(purpose)

    def exported(self) -> list[Batch]:
        """The cycles that are over and have their statements, oldest first."""
        return [batch for batch in self.batches.all() if batch.state >= BatchState.FROZEN and batch.exported]

    def accounts(self) -> set[int]:
        """All that were ever opened."""
        return {row[0] for row in self.books.rows("SELECT account FROM members")}

    def cursor(self, name: str, default: int = 0) -> int:
        """How far something has got, as `advance` noted."""
        row = self.database.one("SELECT value FROM cursors WHERE name = ?", (name,))
        return default if row is None else int(row[0])

    def advance(self, name: str, value: int) -> None:
        self.database.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (name, value))
