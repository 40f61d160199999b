"""How much may leave in an hour and in a day: of an account, and of all. What is above that waits unsigned."""

from collections.abc import Callable, Sequence

from settlement.database import Database
from settlement.flows import Withdrawal
from settlement.stablecoins import Token

HOUR_S, DAY_S = 3_600, 86_400

SCHEMA = """
CREATE TABLE IF NOT EXISTS spends (
    seq INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    token INTEGER NOT NULL,
    amount_micros INTEGER NOT NULL,
    at_s INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS spends_by_time ON spends (token, at_s)
"""


class Rates:
    """Counts what was signed, in the outbox's database."""

    def __init__(self, database: Database, now_s: Callable[[], int]) -> None:
        self._database, self._now_s = database, now_s
        with database.transaction():
            database.create(SCHEMA)

    def allow(self, token: Token, row: Withdrawal) -> bool:
        """Whether the limits of the hour and the day leave room; what was signed once has had its room."""
        if self._database.one("SELECT 1 FROM spends WHERE seq = ?", (row.seq,)):
            return True
        limits, now_s = token.limits, self._now_s()
        return all(
            self._spent(token, now_s - span_s) + row.amount_micros <= of_venue
            and self._spent(token, now_s - span_s, row.account) + row.amount_micros <= of_account
            for span_s, of_account, of_venue in (
                (HOUR_S, limits.account_hour_micros, limits.venue_hour_micros),
                (DAY_S, limits.account_day_micros, limits.venue_day_micros),
            )
        )

    def _spent(self, token: Token, after_s: int, account: int | None = None) -> int:
        query, values = "SELECT COALESCE(SUM(amount_micros), 0) FROM spends WHERE token = ? AND at_s > ?", [after_s]
        if account is not None:
            query, values = f"{query} AND account = ?", [after_s, account]
        row = self._database.one(query, (token.number, *values))
        assert row is not None
        return int(row[0])

    def note(self, rows: Sequence[Withdrawal]) -> None:
        """Withdrawals are signed now: in the transaction that stores their signature."""
        now_s = self._now_s()
        spends = [(row.seq, row.account, row.token, row.amount_micros, now_s) for row in rows]
        self._database.execute_many("INSERT OR IGNORE INTO spends VALUES (?, ?, ?, ?, ?)", spends)
