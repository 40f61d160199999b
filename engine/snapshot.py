"""A file that holds the state after one command: named sections of bytes, each under its own SHA-256.

    header   magic, version, number of sections, applied_seq, the log's chain hash at that seq
    table    for each section its name, offset, size and SHA-256
    seal     SHA-256 of header and table
    sections, in the order of the table, without gaps to the end of the file

A snapshot only saves time: the log remains the truth. So a damaged one is not repaired but passed over, with a warning,
for an older one or for the whole log. The chain hash ties it to its log: one that `Log.chain_at(applied_seq)` does not
confirm must not be used.

It is written under another name, forced to the disk, and renamed: a file named `.snapshot` was complete once.
"""

import contextlib
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from engine.log import fsync_directory

VERSION = 1
MAX_SECTIONS = 256
MAX_NAME_BYTES = 32

_MAGIC = b"WHSNAPSH"
_HEADER = struct.Struct("<8sIIq32s")  # magic, version, sections, applied_seq, chain
_ENTRY = struct.Struct("<32sQQ32s")  # name, offset, size, sha256
_SEAL_BYTES = 32
_CHAIN_BYTES = 32
_NAME = re.compile(r"\d{20}\.snapshot")


class SnapshotError(Exception):
    """A snapshot could not be written; the message says why. What was there before is unchanged."""


class SnapshotDamaged(SnapshotError):
    """A snapshot file is not what was written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}")
        self.path = path
        self.reason = reason


class Latest(NamedTuple):
    """The newest snapshot that is whole, None when there is none, and a sentence for each newer one passed over."""

    snapshot: "Snapshot | None"
    warnings: list[str]


class _Entry(NamedTuple):
    name: str
    offset: int
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after the command `applied_seq`, as each part wrote it under the name of its section."""

    applied_seq: int
    chain: bytes
    sections: dict[str, bytes]

    @classmethod
    def write(
        cls,
        directory: str | os.PathLike[str],
        applied_seq: int,
        chain: bytes,
        sections: Mapping[str, bytes | bytearray | memoryview],
    ) -> Path:
        """Write a snapshot, durable when this returns; its path. One of the same seq is replaced.

        May run in a thread: it touches nothing but the directory. Raises ValueError for a name or number out of range,
        and SnapshotError when the file cannot be written; then no trace of it stays.
        """
        cls.draft(directory, applied_seq, chain, sections)
        return cls.name(directory, applied_seq)

    @staticmethod
    def draft(
        directory: str | os.PathLike[str],
        applied_seq: int,
        chain: bytes,
        sections: Mapping[str, bytes | bytearray | memoryview],
    ) -> Path:
        """The same but for the name, which `name` gives it: until then nobody takes it for a snapshot."""
        folder = Path(directory)
        draft = _path(folder, applied_seq).with_suffix(".new")
        views = {name: memoryview(data).cast("B") for name, data in sections.items()}
        head = _head(applied_seq, chain, views)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(head)
                for view in views.values():
                    file.write(view)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritten(draft, error) from error
        return draft

    @staticmethod
    def name(directory: str | os.PathLike[str], applied_seq: int) -> Path:
        """Make a draft the snapshot, durable when this returns; its path. Raises SnapshotError."""
        path = _path(Path(directory), applied_seq)
        draft = path.with_suffix(".new")
        try:
            draft.rename(path)
            fsync_directory(path.parent)
        except OSError as error:
            raise _unwritten(draft, error) from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read and check one file. Raises SnapshotDamaged, and OSError when it cannot be opened."""
        where = Path(path)
        with where.open("rb") as file:
            applied_seq, chain, entries = _read_head(where, file)
            if where.stem != f"{applied_seq:020d}":
                raise SnapshotDamaged(where, f"it was made at seq {applied_seq}, its name says otherwise")
            sections = {}
            for entry in entries:
                data = file.read(entry.size)
                if len(data) != entry.size or sha256(data).digest() != entry.digest:
                    raise SnapshotDamaged(where, f"section {entry.name!r} at byte {entry.offset} is not whole")
                sections[entry.name] = data
            if file.read(1):
                raise SnapshotDamaged(where, "bytes follow the last section")
        return cls(applied_seq, chain, sections)

    @classmethod
    def latest(cls, directory: str | os.PathLike[str], max_seq: int | None = None) -> Latest:
        """The newest whole snapshot, of those up to `max_seq` when given. A directory that is not there has none."""
        warnings: list[str] = []
        for path in _newest_first(Path(directory)):
            if max_seq is not None and int(path.stem) > max_seq:
                continue
            try:
                return Latest(cls.load(path), warnings)
            except (SnapshotDamaged, OSError) as error:
                warnings.append(f"snapshot passed over: {error}")
        return Latest(None, warnings)

    @classmethod
    def prune(cls, directory: str | os.PathLike[str], keep: int = 2) -> list[Path]:
        """Delete what is older than the newest `keep` whole snapshots, and drafts left by a crash; what was deleted.

        A damaged one does not count, so it never drives out a good one; it goes when it is older than `keep` good ones.
        Reads what it keeps. Not beside a running `write`.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        folder = Path(directory)
        doomed = sorted(folder.glob("*.new"))
        whole = 0
        for path in _newest_first(folder):
            if whole >= keep:
                doomed.append(path)
                continue
            with contextlib.suppress(SnapshotDamaged, OSError):
                cls.load(path)
                whole += 1
        for path in doomed:
            path.unlink(missing_ok=True)
        return doomed


def _path(folder: Path, applied_seq: int) -> Path:
    return folder / f"{applied_seq:020d}.snapshot"


def _unwritten(draft: Path, error: OSError) -> SnapshotError:
    with contextlib.suppress(OSError):
        draft.unlink(missing_ok=True)
    return SnapshotError(f"cannot write {draft.with_suffix('.snapshot')}: {error}")


def _newest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    names = sorted((name for name in os.listdir(folder) if _NAME.fullmatch(name)), reverse=True)
    return [folder / name for name in names]


def _head(applied_seq: int, chain: bytes, views: Mapping[str, memoryview]) -> bytes:
    """Header, table and seal."""
    if applied_seq < 0 or len(chain) != _CHAIN_BYTES:
        raise ValueError(f"seq {applied_seq} with a chain hash of {len(chain)} bytes cannot be that of a snapshot")
    if len(views) > MAX_SECTIONS:
        raise ValueError(f"{len(views)} sections in one snapshot; the most is {MAX_SECTIONS}")
    offset = _HEADER.size + len(views) * _ENTRY.size + _SEAL_BYTES
    head = _HEADER.pack(_MAGIC, VERSION, len(views), applied_seq, chain)
    for name, view in views.items():
        raw_name = name.encode()
        if not 0 < len(raw_name) <= MAX_NAME_BYTES or b"\0" in raw_name:
            raise ValueError(f"section name {name!r} does not have 1 to {MAX_NAME_BYTES} bytes")
        head += _ENTRY.pack(raw_name, offset, view.nbytes, sha256(view).digest())
        offset += view.nbytes
    return head + sha256(head).digest()


def _read_head(path: Path, file: BinaryIO) -> tuple[int, bytes, list[_Entry]]:
    header = file.read(_HEADER.size)
    if len(header) != _HEADER.size or not header.startswith(_MAGIC):
        raise SnapshotDamaged(path, "the header is not whole")
    _, version, count, applied_seq, chain = _HEADER.unpack(header)
    if count > MAX_SECTIONS:
        raise SnapshotDamaged(path, f"the header speaks of {count} sections")
    table = file.read(count * _ENTRY.size)
    if file.read(_SEAL_BYTES) != sha256(header + table).digest():
        raise SnapshotDamaged(path, "header and table do not match their seal")
    if version != VERSION:
        raise SnapshotDamaged(path, f"version {version} cannot be read, only {VERSION}")
    entries = [_Entry(raw.rstrip(b"\0").decode(), *rest) for raw, *rest in _ENTRY.iter_unpack(table)]
    return applied_seq, chain, entries
