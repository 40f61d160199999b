"""A disk that can be killed: it stands where engine.log, engine.snapshot and gateway.history have the module `os`.

SQLite comes to it by books_disk.py.

The files are real ones, in memory where the machine has such a place. Beside each the disk keeps what was forced out of
it. A killed process loses nothing that it wrote; a power cut leaves of every file the forced bytes, and of what came
after them all, nothing, a beginning, or any of the sectors; and of every name that its directory was not forced to keep
the old or the new.

Every call that writes or forces is a moment at which the exchange may die, before it, after it or half-way; and at
which the disk may be full, or fail.
"""

import errno
import os
import random
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SECTOR_BYTES = 512


class Killed(SystemExit):
    """The exchange is dead. A SystemExit, because asyncio lets no other exception out of its loop at once."""


class Disk:
    """`os`, with a memory of what is durable. `moment` is asked before and after whatever can be interrupted."""

    def __init__(self, folders: Iterable[Path], mapped: Iterable[Path], rng: random.Random) -> None:
        """`mapped`: folders of files that are written as memory."""
        self.folders, self.mapped = list(folders), list(mapped)
        self.rng = rng
        self.moments = 0  # that have passed in all
        self.dies_at = 0  # the moment of death, 0: never
        self.dies_in = (
            ""  # what it dies in, from that moment on: a write, a sync, a send, a job of a thread; "": anything
        )
        self.full_at = 0  # from this moment on nothing more can be written
        self.fails_at = 0  # the moment at which forcing fails
        self.dead = False
        self._durable: dict[int, bytearray] = {}  # by inode
        self._dirty_from: dict[int, int] = {}
        self._names: dict[Path, dict[str, int]] = {}  # of each folder, as it was last forced: name -> inode
        self._open: dict[int, Path] = {}
        self.pages: dict[Path, int] = {}  # SQLite's files (books_disk.py), and their inodes
        self.connections: list[Any] = []  # that are open to them
        self._named: set[int] = set()  # the inodes of those of them whose names are durable

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    # --- What can happen to the exchange ------------------------------------------------------------------------------

    def moment(self, what: str = "") -> None:
        """Something can be interrupted here. Raises Killed when it is, and ever after.

        SQLite's pages are so many that they count only for a death in one of them.
        """
        self.moments += not what.startswith("page") or self.dies_in.startswith("page")
        if self.dies_at and self.moments >= self.dies_at and self.dies_in in (what, ""):
            self.dead = True
        if self.dead:
            raise Killed

    def start(self) -> None:
        """A new life, without any trouble ahead."""
        self.dead = False
        self.dies_at = self.full_at = self.fails_at = 0
        self.dies_in = ""

    def release(self) -> None:
        """What the kernel does when a process ends: close its files, and with them its locks."""
        for fd in self._open:
            os.close(fd)
        self._open.clear()
        for connection in self.connections:
            connection.close()
        self.connections.clear()

    def cut_power(self) -> None:
        """Leave what a disk may have kept."""
        for folder in self.folders:
            self._forget_names(folder)
            for path in sorted(folder.glob("*")):
                self._forget_bytes(path)
        for folder in self.mapped:
            self._forget_names(folder)
            for path in sorted(folder.glob("*")):
                self._forget_pages(path)
        for path, inode in sorted(self.pages.items()):
            path.with_name(f"{path.name}-shm").unlink(missing_ok=True)  # the index of a log, which a start makes anew
            if inode in self._named or self.rng.random() < 0.5:
                self._forget_bytes(path, (0, 1, 2, 2, 2))  # pages are written all over the file
            else:
                path.unlink()
                del self.pages[path]

    def _forget_names(self, folder: Path) -> None:
        kept = self._names.get(folder, {})
        old_names = {inode: name for name, inode in kept.items()}
        for path in sorted(folder.glob("*")):
            inode = path.stat().st_ino
            if kept.get(path.name) == inode or self.rng.random() < 0.5:
                continue
            if inode in old_names:
                path.rename(folder / old_names[inode])
            else:
                path.unlink()

    def _forget_bytes(self, path: Path, ways: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        kept, now = bytes(self._durable.get(path.stat().st_ino, b"")), path.read_bytes()
        if kept == now:
            return
        what = self.rng.choice(ways)
        if what == 0:
            now = kept
        elif what == 1:
            now = kept[: len(now)] + now[len(kept) :][: self.rng.randrange(max(1, len(now) - len(kept)))]
        elif what == 2:
            now = self._mixed(kept, now)
        path.write_bytes(now)
        self._durable[path.stat().st_ino] = bytearray(now)
        self._dirty_from.pop(path.stat().st_ino, None)

    def _mixed(self, kept: bytes, now: bytes) -> bytes:
        """Each sector old or new, in the new length: the size may reach the disk before what is in it."""
        sectors = []
        for at in range(0, len(now), SECTOR_BYTES):
            new = now[at : at + SECTOR_BYTES]
            old = kept[at : at + SECTOR_BYTES].ljust(len(new), b"\0")[: len(new)]
            sectors.append(new if self.rng.random() < 0.5 else old)
        return b"".join(sectors)

    def _forget_pages(self, path: Path) -> None:
        """Memory that is a file: each of its sectors is written whenever the kernel likes."""
        kept, now = bytes(self._durable.get(path.stat().st_ino, b"")), path.read_bytes()
        if kept != now:
            path.write_bytes(self._mixed(kept, now))
            self._durable[path.stat().st_ino] = bytearray(path.read_bytes())

    # --- What books_disk.py calls -------------------------------------------------------------------------------------

    def touch(self, inode: int, offset: int) -> None:
        """A file is about to differ from here on."""
        self._dirty_from[inode] = min(offset, self._dirty_from.get(inode, offset))

    def force_page_file(self, path: Path, inode: int) -> None:
        """All that was written of it is durable. SQLite forces the folder with the first of a log or a journal."""
        with path.open("rb") as file:
            self._force_from(file.fileno(), inode, 0)
        if path.name.endswith(("-wal", "-journal")):
            self._named |= {known for one, known in self.pages.items() if one.parent == path.parent}

    # --- What engine.log and engine.snapshot call ---------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        fd = os.open(path, flags, mode)
        self._open[fd] = Path(path)
        if flags & os.O_TRUNC:
            self._touched(fd, 0)
        return fd

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)
        os.close(fd)

    def urandom(self, size: int) -> bytes:
        return self.rng.randbytes(size)

    def writev(self, fd: int, buffers: Iterable[Any]) -> int:
        return self.write(fd, b"".join(buffers))

    def write(self, fd: int, data: bytes) -> int:
        at = os.fstat(fd).st_size
        part = data[: self.rng.randrange(len(data) + 1)]
        if self.full_at and self.moments >= self.full_at:
            self._touched(fd, at)
            return os.write(fd, part)
        was_dead = self.dead
        try:
            self.moment("write")
        except Killed:
            if not was_dead:
                self._touched(fd, at)
                os.write(fd, part)
            raise
        self._touched(fd, at)
        written = os.write(fd, data)
        self.moment("write")
        return written

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self.moment()
        self._touched(fd, offset)
        return os.pwrite(fd, data, offset)

    def ftruncate(self, fd: int, length: int) -> None:
        self.moment()
        self._touched(fd, length)
        os.ftruncate(fd, length)

    def fsync(self, fd: int) -> None:
        self.moment("sync")
        if self.fails_at and self.moments >= self.fails_at:
            raise OSError(errno.EIO, "the disk failed")
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            self._names[self._open[fd]] = {entry.name: entry.inode() for entry in os.scandir(fd)}
        else:
            self._force(fd, status)
        self.moment("sync")

    def fdatasync(self, fd: int) -> None:
        self.fsync(fd)

    def _touched(self, fd: int, offset: int) -> None:
        self.touch(os.fstat(fd).st_ino, offset)

    def _force(self, fd: int, status: os.stat_result) -> None:
        """Files that were not opened here (a snapshot's draft), or are written as memory, are forced whole."""
        path = self._open.get(fd)
        is_whole = path is None or path.parent in self.mapped
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        try:
            self._force_from(reader, status.st_ino, 0 if is_whole else None)
        finally:
            os.close(reader)

    def _force_from(self, reader: int, inode: int, unless_touched: int | None) -> None:
        """What was touched is durable; `unless_touched` says from where on, where nobody has told (None: nothing)."""
        kept = self._durable.setdefault(inode, bytearray())
        start = self._dirty_from.pop(inode, len(kept) if unless_touched is None else unless_touched)
        start = min(start, len(kept))
        del kept[start:]
        kept += os.pread(reader, os.fstat(reader).st_size - start, start)
