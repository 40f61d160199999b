"""SQLite's files on the disk that lies: a VFS of SQLite's own, so that what is forced, and when, is what SQLite says.

The product opens its databases through the module `sqlite3`. `Files.connect` stands where that has `connect`: the same
few methods, over another build of SQLite into which a VFS can be put (apsw). Each write, sync and truncation goes to
disk.py's memory of what is durable, and is a moment at which the exchange may die, half-way too. A checkpoint comes
after a few pages already, because it is the one place where SQLite may lose more than the newest transactions.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import apsw

from tests.simulation.disk import Disk, Killed

CHECKPOINT_PAGES = 4
_NUMBERS = count()
_ERRORS: dict[type[apsw.Error], type[sqlite3.Error]] = {
    apsw.ConstraintError: sqlite3.IntegrityError,
    apsw.CorruptError: sqlite3.DatabaseError,
    apsw.NotADBError: sqlite3.DatabaseError,
}
Values = Sequence[Any] | Mapping[str, Any]


class File(apsw.VFSFile):
    """One open file. Whether it may be forgotten, and what of it, the disk knows by its inode."""

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        self._inode = self._path.stat().st_ino
        disk.pages[self._path] = self._inode

    def xWrite(self, data: bytes, offset: int) -> None:
        disk = self._disk
        if disk.full_at and disk.moments >= disk.full_at:
            raise apsw.FullError("the disk is full")
        was_dead = disk.dead
        try:
            disk.moment("page")
        except BaseException:
            if not was_dead:
                disk.touch(self._inode, offset)
                super().xWrite(data[: disk.rng.randrange(len(data) + 1)], offset)
            raise
        disk.touch(self._inode, offset)
        super().xWrite(data, offset)
        disk.moment("page")

    def xTruncate(self, newsize: int) -> None:
        self._disk.moment("page")
        self._disk.touch(self._inode, newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        disk = self._disk
        disk.moment("page sync")
        if disk.fails_at and disk.moments >= disk.fails_at:
            raise apsw.IOError("the disk failed")
        disk.force_page_file(self._path, self._inode)
        disk.moment("page sync")

    def excepthook(self, *_: Any) -> None:
        """A dead exchange fails in whatever it still tries; the first failure is the one that is told."""


class Files(apsw.VFS):
    """All databases of a world."""

    def __init__(self, disk: Disk) -> None:
        self.name = f"sim-{os.getpid()}-{next(_NUMBERS)}"
        self._disk = disk
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        if name is None:
            return super().xOpen(name, flags)
        return File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._disk.moment("page")
        super().xDelete(filename, syncdir)
        self._disk.pages.pop(Path(filename), None)

    def excepthook(self, *_: Any) -> None:
        """As a file's."""

    def connect(self, target: str, **_: Any) -> "Connection":
        """As sqlite3.connect does it for settlement/database.py."""
        made = Connection(self._disk, target, self.name)
        self._disk.connections.append(made)
        return made


class Connection:
    """What the product uses of a sqlite3.Connection."""

    def __init__(self, disk: Disk, target: str, vfs: str) -> None:
        mode = (
            apsw.SQLITE_OPEN_READONLY if "mode=ro" in target else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        )
        self._disk = disk
        with self.call():
            self._connection = apsw.Connection(target, mode | apsw.SQLITE_OPEN_URI, vfs)
            self._connection.wal_autocheckpoint(CHECKPOINT_PAGES)

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Errors as the product knows them; whoever died in SQLite is dead, whatever SQLite makes of that."""
        try:
            yield
        except apsw.Error as error:
            if not self._disk.dead:
                kind = next((_ERRORS[one] for one in type(error).__mro__ if one in _ERRORS), sqlite3.OperationalError)
                raise kind(str(error)) from error
        if self._disk.dead:
            raise Killed

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, values: Values = ()) -> "Cursor":
        with self.call():
            return Cursor(self, self._connection.execute(statement, values))

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self.call():
            self._connection.executemany(statement, rows)

    def close(self) -> None:
        """The kernel does it for the dead."""
        with contextlib.suppress(Killed), self.call():
            self._connection.close(True)


class Cursor:
    """What the product uses of a sqlite3.Cursor."""

    def __init__(self, connection: Connection, rows: Iterator[tuple[Any, ...]]) -> None:
        self._call, self._rows = connection.call, rows

    def fetchone(self) -> tuple[Any, ...] | None:
        with self._call():
            return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        with self._call():
            return list(self._rows)

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        with self._call():
            return list(islice(self._rows, size))


class Module:
    """`sqlite3`, with another `connect`."""

    def __init__(self, files: Files) -> None:
        self.connect = files.connect

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)
