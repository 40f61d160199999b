"""Forcing many files to the disk at once: a call for each costs a turn of the disk each."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SYNC_FILE_SYSTEM: Any = None
with contextlib.suppress(AttributeError, OSError):  # not Linux
    _SYNC_FILE_SYSTEM = ctypes.CDLL(None, use_errno=True).syncfs


class Folder:
    """A directory that many files are written into."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Errors of writing behind are told to who had the file system open when they happened.
        self._handle = os.open(path, os.O_RDONLY)

    def force(self) -> None:
        """Everything written into it so far, and its names, survive a power failure when this returns. Raises OSError."""
        if _SYNC_FILE_SYSTEM is None:
            for file in self.path.iterdir():
                sync(file)
            os.fsync(self._handle)
        elif _SYNC_FILE_SYSTEM(self._handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self.path))

    def close(self) -> None:
        os.close(self._handle)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Folder]:
    opened = Folder(path)
    try:
        yield opened
    finally:
        opened.close()


def sync(path: Path) -> None:
    """Force a file, or the names in a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """A file that is there with all its bytes, durable, or not at all, whenever the process or the power ends."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync(path.parent)
