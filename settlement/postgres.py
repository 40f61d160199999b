"""The ledger in PostgreSQL: the same tables, the same digest, for books that outgrow a file (`wellhead[postgres]`).

Transfers go in by COPY in the binary format, made by numpy; balances by one set-based update. Whoever writes has
claimed the ledger: `claim` raises the epoch, and a writer of an older epoch is refused from then on, whatever it had
under way. Commits are synchronous: a server that sets `synchronous_commit = off` or `fsync = off` gives that up.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import psycopg
from numpy.typing import NDArray

from settlement.accounts import place_text
from settlement.ledger import (
    MOMENT,
    MOVE,
    Audit,
    Balances,
    Difference,
    FencedError,
    Head,
    LedgerError,
    LedgerGapError,
    Posting,
    changes_of,
    digest_of,
    gross_of,
    new_moments,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS transfers (
    seq BIGINT NOT NULL,
    leg BIGINT NOT NULL,
    debit_account BIGINT NOT NULL,
    credit_account BIGINT NOT NULL CHECK (credit_account <> debit_account),
    asset BIGINT NOT NULL,
    amount_micros BIGINT NOT NULL CHECK (amount_micros > 0),
    code BIGINT NOT NULL,
    listing BIGINT NOT NULL,
    PRIMARY KEY (seq, leg)
);
CREATE TABLE IF NOT EXISTS balances (
    asset BIGINT NOT NULL,
    account BIGINT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount >= 0 OR asset <> 0 OR account BETWEEN 8 AND 15),
    PRIMARY KEY (asset, account)
) WITH (fillfactor = 70);
CREATE TABLE IF NOT EXISTS moments (
    seq BIGINT PRIMARY KEY,
    ts_ns BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS head (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    applied_seq BIGINT NOT NULL,
    transfers BIGINT NOT NULL,
    ts_ns BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    gross_micros BIGINT NOT NULL
);
INSERT INTO head VALUES (1, 0, 0, -1, 0, 0) ON CONFLICT DO NOTHING
"""

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_FAILING_ROW = re.compile(r"\((-?\d+), (-?\d+), (-?\d+)\)")
CHUNK_ROWS = 50_000
_MOVED = b"CREATE TEMP TABLE IF NOT EXISTS moved (asset bigint, account bigint, change bigint) ON COMMIT DELETE ROWS"
_MOVE_BALANCES = b"""
INSERT INTO balances AS now
SELECT moved.asset, moved.account, COALESCE(balances.amount, 0) + change FROM moved
LEFT JOIN balances ON balances.asset = moved.asset AND balances.account = moved.account
ON CONFLICT (asset, account) DO UPDATE SET amount = excluded.amount
"""


class PostgresLedger:
    """One connection, used by one thread at a time."""

    def __init__(self, conninfo: str) -> None:
        """Connect. Raises psycopg.OperationalError where there is no server."""
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self._epoch: int | None = None

    def create(self) -> None:
        """Make the tables where they are missing."""
        with self._connection.transaction():
            for statement in SCHEMA.split(";"):
                self._connection.execute(statement.encode())

    def claim(self) -> int:
        """Become the one writer; the epoch of that. Every earlier writer is fenced off."""
        (self._epoch,) = self._one("UPDATE head SET epoch = epoch + 1 RETURNING epoch")
        return self._epoch

    def head(self) -> Head:
        return Head(*self._one("SELECT applied_seq, transfers FROM head"))

    def apply(self, posting: Posting, previous_seq: int) -> int:
        with self._connection.transaction():
            # The lock holds off a `claim` until this is committed.
            applied, ts_ns, epoch = self._one("SELECT applied_seq, ts_ns, epoch FROM head FOR UPDATE")
            if epoch != self._epoch:
                raise FencedError(f"the ledger belongs to the writer of epoch {epoch}, this one has {self._epoch}")
            if previous_seq > applied:
                raise LedgerGapError(f"offered commands from {previous_seq + 1} on, but only {applied} is applied")
            if posting.last_seq <= applied:
                return 0
            rows = posting.transfers[posting.transfers["seq"] > applied]
            self._insert(rows)
            self._move_balances(rows)
            moments = new_moments(posting.moments[posting.moments["seq"] > applied], ts_ns)
            self._copy("moments", moments)
            self._connection.execute(
                "UPDATE head SET applied_seq = %s, transfers = transfers + %s, ts_ns = %s,"
                " gross_micros = gross_micros + %s",
                (posting.last_seq, len(rows), int(moments["ts_ns"][-1]) if len(moments) else ts_ns, gross_of(rows)),
            )
        return len(rows)

    def take_gross(self) -> int:
        (gross,) = self._one("SELECT gross_micros FROM head")
        self._connection.execute("UPDATE head SET gross_micros = 0")
        return int(gross)

    def _insert(self, rows: NDArray[Any]) -> None:
        try:
            self._copy("transfers", rows)
        except psycopg.IntegrityError as error:
            raise LedgerError(f"a transfer of commands {rows['seq'][0]} to {rows['seq'][-1]}: {error}") from error

    def _copy(self, table: str, rows: NDArray[Any]) -> None:
        if len(rows):
            with self._connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)".encode()) as copy:
                copy.write(copy_bytes(rows))

    def _move_balances(self, rows: NDArray[Any]) -> None:
        """One statement; its checks see the balances as they will be."""
        self._connection.execute(_MOVED)
        assets, accounts, changes = changes_of(rows)
        moved = np.zeros(len(assets), [("asset", "<i8"), ("account", "<i8"), ("change", "<i8")])
        moved["asset"], moved["account"], moved["change"] = assets, accounts, changes
        self._copy("moved", moved)
        try:
            self._connection.execute(_MOVE_BALANCES)
        except psycopg.errors.CheckViolation as error:
            failing = _FAILING_ROW.search(error.diag.message_detail or "")
            asset, account, amount = (int(text) for text in failing.groups()) if failing else (0, 0, 0)
            raise LedgerError(f"{place_text(asset, account)} would fall below zero, to {amount}") from error

    def balances(self, accounts: Sequence[int] | None = None, at_seq: int | None = None) -> Balances:
        if at_seq is None or at_seq >= self.head().applied_seq:
            rows = self._connection.execute("SELECT asset, account, amount FROM balances WHERE amount <> 0")
        else:
            rows = self._connection.execute(
                "SELECT asset, account, sum(change)::bigint FROM ("
                " SELECT asset, credit_account AS account, amount_micros AS change FROM transfers WHERE seq <= %(at)s"
                " UNION ALL SELECT asset, debit_account, -amount_micros FROM transfers WHERE seq <= %(at)s"
                ") AS moved GROUP BY asset, account HAVING sum(change) <> 0",
                {"at": at_seq},
            )
        wanted = None if accounts is None else set(accounts)
        return {
            (asset, account): amount for asset, account, amount in rows if wanted is None or account in wanted
        }  # fmt: skip

    def transfers(self, from_seq: int, to_seq: int) -> Iterator[NDArray[Any]]:
        with self._connection.transaction(), self._connection.cursor("transfers") as cursor:
            cursor.execute(
                "SELECT seq, leg, debit_account, credit_account, asset, amount_micros, code, listing FROM transfers"
                " WHERE seq BETWEEN %s AND %s ORDER BY seq, leg",
                (from_seq, to_seq),
            )
            while rows := cursor.fetchmany(CHUNK_ROWS):
                yield np.array(rows, "<i8").view(MOVE).reshape(-1)

    def moments(self, from_seq: int, to_seq: int) -> NDArray[Any]:
        rows = self._connection.execute(
            "SELECT seq, ts_ns FROM moments WHERE seq <= %(to)s AND seq >= COALESCE("
            "(SELECT max(seq) FROM moments WHERE seq <= %(from)s), %(from)s) ORDER BY seq",
            {"from": from_seq, "to": to_seq},
        )
        return np.array(rows.fetchall(), MOMENT)

    def digest(self) -> str:
        with self._reading():
            return digest_of(self)

    def verify(self) -> list[Difference]:
        with self._reading():
            return Audit(self).run()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Everything inside sees one state, whatever is written meanwhile."""
        with self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield

    def execute(self, statement: str) -> None:
        """Any statement: for maintenance, and for tests that tamper."""
        self._connection.execute(statement.encode())

    def _one(self, query: str) -> tuple[Any, ...]:
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None
        return row

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def copy_bytes(rows: NDArray[Any]) -> bytes:
    """Rows of int64 columns in PostgreSQL's binary COPY format: big-endian, each field behind its length."""
    names = rows.dtype.names or ()
    fields = [("count", ">i2")]
    for name in names:
        fields += [(f"{name}_bytes", ">i4"), (name, ">i8")]
    packed = np.empty(len(rows), fields)
    packed["count"] = len(names)
    for name in names:
        packed[f"{name}_bytes"] = 8
        packed[name] = rows[name]
    return _SIGNATURE + packed.tobytes() + _TRAILER
