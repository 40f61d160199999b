"""Reasons for which nothing may leave. Only an operator who has looked takes one away."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from settlement.database import Database

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS halts (
    id INTEGER PRIMARY KEY,
    reason TEXT NOT NULL,
    since_s INTEGER NOT NULL,
    cleared_s INTEGER
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Halt:
    id: int
    reason: str
    since_s: int


class Halts:
    """Kept in the outbox's database, so that a start does not forget them."""

    def __init__(self, database: Database, now_s: Callable[[], int]) -> None:
        self._database, self._now_s = database, now_s

    def create(self) -> None:
        """Make the table where it is missing."""
        self._database.create(SCHEMA)

    def add(self, reason: str) -> None:
        """Stop withdrawals; the same reason is noted once."""
        if reason not in {halt.reason for halt in self.open()}:
            log.error("withdrawals are stopped: %s", reason)
            self._database.execute("INSERT INTO halts VALUES (NULL, ?, ?, NULL)", (reason, self._now_s()))

    def open(self) -> list[Halt]:
        """Those that hold, oldest first."""
        rows = self._database.rows("SELECT id, reason, since_s FROM halts WHERE cleared_s IS NULL ORDER BY id")
        return [Halt(*row) for row in rows]

    def clear(self) -> int:
        """An operator has looked; how many there were."""
        count = len(self.open())
        self._database.execute("UPDATE halts SET cleared_s = ? WHERE cleared_s IS NULL", (self._now_s(),))
        return count
