"""The books in PostgreSQL: the same tables, the same digest, for books that outgrow a file (`wellhead[postgres]`).

Transfers go in by COPY in the binary format, made by numpy; balances by one set-based update. Whoever writes has
claimed the ledger: `claim` raises the epoch, and a writer of an older epoch is refused from then on, whatever it had
under way. Commits are synchronous: a server that sets `synchronous_commit = off` or `fsync = off` gives that up.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np
import psycopg
from numpy.typing import NDArray

from settlement.accounts import place_text
from settlement.database import Database, FormatError, Values
from settlement.ledger import (
    MOMENT,
    MOVE,
    SCHEMA,
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

TRANSFERS = """
CREATE TABLE IF NOT EXISTS transfers (
    seq INTEGER NOT NULL,
    leg INTEGER NOT NULL,
    debit_account INTEGER NOT NULL,
    credit_account INTEGER NOT NULL CHECK (credit_account <> debit_account),
    asset INTEGER NOT NULL,
    amount_micros INTEGER NOT NULL CHECK (amount_micros > 0),
    code INTEGER NOT NULL,
    listing INTEGER NOT NULL,
    PRIMARY KEY (seq, leg)
);
CREATE INDEX IF NOT EXISTS external_flows ON transfers (seq) WHERE code IN (1, 2)
"""
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
CHUNK_ROWS = 131_072
_FAILING_ROW = re.compile(r"\((-?\d+), (-?\d+), (-?\d+)\)")
_NAMED = re.compile(r"(?<![:\w]):([a-z_]+)")
_MOVED = b"CREATE TEMP TABLE IF NOT EXISTS moved (asset bigint, account bigint, change bigint) ON COMMIT DELETE ROWS"
_MOVE_BALANCES = b"""
INSERT INTO balances AS now
SELECT moved.asset, moved.account, COALESCE(balances.amount, 0) + change FROM moved
LEFT JOIN balances ON balances.asset = moved.asset AND balances.account = moved.account
ON CONFLICT (asset, account) DO UPDATE SET amount = excluded.amount
"""


class _Whole(psycopg.adapt.Loader):
    """Sums of integers come as numeric, and are integers."""

    def load(self, data: Any) -> int:
        return int(bytes(data))


class PostgresDatabase(Database):
    """Like the SQLite file: the same statements, translated, on one connection that one thread uses at a time."""

    path = None

    def __init__(self, conninfo: str, read_only: bool = False) -> None:
        """Connect. Raises psycopg.OperationalError where there is no server."""
        self.connection = psycopg.connect(conninfo, autocommit=True)
        self.connection.adapters.register_loader("numeric", _Whole)
        self._depth = 0
        self._cursors = count()
        if read_only:
            self.connection.execute("SET default_transaction_read_only = on")

    @classmethod
    def connect(cls, conninfo: str, read_only: bool = False) -> Self:
        """Raises LedgerError where there is no server."""
        try:
            return cls(conninfo, read_only)
        except psycopg.OperationalError as error:
            raise LedgerError(f"no PostgreSQL at the ledger's address: {error}") from error

    def check_format(self, number: int) -> None:
        if self.one("SELECT to_regclass('format')") == (None,):
            self.create("CREATE TABLE format (number INTEGER NOT NULL)")
            self.execute("INSERT INTO format VALUES (?)", (number,))
        found = self.one("SELECT number FROM format")
        if found != (number,):
            raise FormatError(
                f"the books in PostgreSQL have format {found and found[0]}, this version reads {number}:"
                " drop their tables, and they are made again from the log"
            )

    def create(self, schema: str) -> None:
        for statement in schema.split(";"):
            if statement.strip():
                self.execute(_in_postgres(statement))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._within("BEGIN"):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._within("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield

    @contextmanager
    def _within(self, begin: str) -> Iterator[None]:
        if self._depth == 0:
            self.connection.execute(begin.encode())
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                self.connection.execute("COMMIT")
        except BaseException:
            if self._depth == 1 and not self.connection.broken:
                self.connection.execute("ROLLBACK")
            raise
        finally:
            self._depth -= 1

    def execute(self, statement: str, values: Values = ()) -> None:
        self.connection.execute(translated(statement), values or None)

    def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(translated(statement), rows)

    def rows(self, query: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self.connection.execute(translated(query), values or None).fetchall()

    def one(self, query: str, values: Values = ()) -> tuple[Any, ...] | None:
        return self.connection.execute(translated(query), values or None).fetchone()

    def chunks(self, query: str, values: Values = (), size: int = 50_000) -> Iterator[list[tuple[Any, ...]]]:
        name, outside = f"rows_{next(self._cursors)}", self._depth == 0
        with self.connection.cursor(name, withhold=outside) as cursor:
            cursor.execute(translated(query), values or None)
            while rows := cursor.fetchmany(size):
                yield rows

    def checkpoint(self) -> None:
        """A commit is durable as it is."""

    def close(self) -> None:
        self.connection.close()


@lru_cache(maxsize=1_024)
def translated(statement: str) -> bytes:
    """A statement for SQLite as PostgreSQL wants it: other names for parameters, and for what is to be ignored."""
    text = statement.replace("%", "%%").replace("?", "%s").replace("x''", "''::bytea")
    text = _NAMED.sub(r"%(\1)s", text)
    if "INSERT OR IGNORE" in text:
        text = text.replace("INSERT OR IGNORE", "INSERT") + " ON CONFLICT DO NOTHING"
    return (text if "%s" in text or "%(" in text else text.replace("%%", "%")).encode()


def _in_postgres(schema: str) -> str:
    text = schema.replace(" STRICT, WITHOUT ROWID", "").replace(" STRICT", "")
    return text.replace(" INTEGER", " BIGINT").replace(" BLOB", " BYTEA")


class PostgresLedger:
    """The ledger in such a database."""

    file: Path | None = None

    def __init__(self, target: str | PostgresDatabase) -> None:
        """`target` may be what to connect to. Raises psycopg.OperationalError where there is no server."""
        self._database = PostgresDatabase(target) if isinstance(target, str) else target
        self._connection = self._database.connection
        self._epoch: int | None = None

    def create(self) -> None:
        """Make the tables where they are missing."""
        with self._database.transaction():
            self._database.create(SCHEMA)
            self._database.create(TRANSFERS)

    def claim(self) -> int:
        """Become the one writer; the epoch of that. Every earlier writer is fenced off."""
        (self._epoch,) = self._one("UPDATE head SET epoch = epoch + 1 RETURNING epoch")
        return self._epoch

    def head(self) -> Head:
        return Head(*self._one("SELECT applied_seq, transfers FROM head"))

    def apply(self, posting: Posting, previous_seq: int) -> int:
        with self._database.transaction():
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
        """Taken whole, so that the connection is free while they are looked at; 98 bytes each."""
        return self._read(f"seq BETWEEN {from_seq:d} AND {to_seq:d}")

    def external(self, from_seq: int, to_seq: int) -> NDArray[Any]:
        found = self._read(f"code IN (1, 2) AND seq BETWEEN {from_seq:d} AND {to_seq:d}")
        return np.concatenate([np.zeros(0, MOVE), *found])

    def _read(self, condition: str) -> Iterator[NDArray[Any]]:
        query = f"SELECT * FROM transfers WHERE {condition} ORDER BY seq, leg"  # noqa: S608 - ours
        with self._connection.cursor().copy(f"COPY ({query}) TO STDOUT (FORMAT BINARY)".encode()) as copy:
            data = b"".join(copy)
        packed = np.frombuffer(data, _packed(MOVE), offset=len(_SIGNATURE), count=_rows_in(data))
        for at in range(0, len(packed), CHUNK_ROWS):
            rows = np.empty(len(packed[at : at + CHUNK_ROWS]), MOVE)
            for name in MOVE.names or ():
                rows[name] = packed[name][at : at + CHUNK_ROWS]
            yield rows

    def moments(self, from_seq: int, to_seq: int) -> NDArray[Any]:
        rows = self._connection.execute(
            "SELECT seq, ts_ns FROM moments WHERE seq <= %(to)s AND seq >= COALESCE("
            "(SELECT max(seq) FROM moments WHERE seq <= %(from)s), %(from)s) ORDER BY seq",
            {"from": from_seq, "to": to_seq},
        )
        return np.array(rows.fetchall(), MOMENT)

    def digest(self) -> str:
        with self._database.reading():
            return digest_of(self)

    def verify(self) -> list[Difference]:
        with self._database.reading():
            return Audit(self).run()

    def execute(self, statement: str) -> None:
        """Any statement: for maintenance, and for tests that tamper."""
        self._connection.execute(statement.encode())

    def _one(self, query: str) -> tuple[Any, ...]:
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None
        return row

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _packed(layout: np.dtype[Any]) -> np.dtype[Any]:
    """A row of int64 columns in that format."""
    fields = [("count", ">i2")]
    for name in layout.names or ():
        fields += [(f"{name}_bytes", ">i4"), (name, ">i8")]
    return np.dtype(fields)


def _rows_in(data: bytes) -> int:
    return (len(data) - len(_SIGNATURE) - len(_TRAILER)) // _packed(MOVE).itemsize


def copy_bytes(rows: NDArray[Any]) -> bytes:
    """Rows of int64 columns in PostgreSQL's binary COPY format: big-endian, each field behind its length."""
    names = rows.dtype.names or ()
    packed = np.empty(len(rows), _packed(rows.dtype))
    packed["count"] = len(names)
    for name in names:
        packed[f"{name}_bytes"] = 8
        packed[name] = rows[name]
    return _SIGNATURE + packed.tobytes() + _TRAILER
