"""The SQLite file that ledger, deliveries and batches share, so that one transaction moves them all or none.

WAL with synchronous=FULL: a committed transaction survives a power cut, and readers (`wellhead verify`) do not wait.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

BUSY_TIMEOUT_S = 10.0


class FormatError(RuntimeError):
    """The file was made by another version."""


Values = Sequence[Any] | Mapping[str, Any]


class Database:
    """One connection, used by one thread at a time."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        target = f"file:{path}?mode=ro" if read_only else f"file:{path}"
        self._connection = sqlite3.connect(
            target, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._depth = 0
        self.path: Path | None = path
        if not read_only:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA temp_store = MEMORY")

    def check_format(self, number: int) -> None:
        """Note the format of the tables in a new file. Raises FormatError where they have another one."""
        found = self.one("PRAGMA user_version")
        if found == (0,) and not self.rows("SELECT name FROM sqlite_master LIMIT 1"):
            self._connection.execute(f"PRAGMA user_version = {number:d}")
        elif found != (number,):
            raise FormatError(
                f"the books have format {found and found[0]}, this version reads {number}:"
                " remove ledger.sqlite, and they are made again from the log"
            )

    def create(self, schema: str) -> None:
        """Make the tables that are missing; `schema` says IF NOT EXISTS, so this may run at every start."""
        for statement in schema.split(";"):
            if statement.strip():
                self._connection.execute(statement)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens, or nothing. Inside another transaction it becomes a part of that one."""
        if self._depth == 0:
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                self._connection.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled back already.
            if self._depth == 1 and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._depth -= 1

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Everything inside sees one state of the file, whatever is written meanwhile."""
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    def execute(self, statement: str, values: Values = ()) -> None:
        self._connection.execute(statement, values)

    def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(statement, rows)

    def rows(self, query: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, values).fetchall()

    def one(self, query: str, values: Values = ()) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        return row

    def chunks(self, query: str, values: Values = (), size: int = 50_000) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a query, `size` at a time, so that a large table never has to fit in memory."""
        cursor = self._connection.execute(query, values)
        while rows := cursor.fetchmany(size):
            yield rows

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
