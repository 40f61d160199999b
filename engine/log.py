"""The log: the one order of everything. A command is in it, durable, before anybody hears an answer.

A directory holds segments named by the first seq in them, `00000000000000000001.log` and so on, a `lock` and a `mark`:

    segment = segment header (128 bytes), frames
    frame   = frame header (64 bytes), `count` commands of 192 bytes; one append is one frame is one write
    mark    = the seq and chain hash up to which the log was last made durable

Each frame carries two checks because each answers a question the other cannot:

- CRC-32 of the payload and of the header: is this frame whole, whatever came before it? That tells a torn tail from
  damage (below), and it is cheap, so every read checks it.
- A SHA-256 chain over the previous frame's chain hash, the header's fields and the payload: is this the history? It
  finds what is whole but elsewhere (frames duplicated, left out or swapped), and one hash stands for all before it.
  SHA-256 rather than BLAKE2b: hashlib has the processor's instructions for it, and it was the faster of the two here.

A segment header repeats the chain hash before it, so verification can start at any segment. The random `log_id` in
every header keeps a command whose content imitates a frame, or a file of another log, from passing for a frame of this.

What recovery does with a frame that is not whole:

- A frame of this log stands after it, in this segment or a later one: damage. Refused, with file, offset and seq.
- Nothing follows, but the mark says the seq had been durable: damage too. Refused.
- Nothing follows and the mark is older: a write that never finished and was never acknowledged. Cut.

The mark is what tells a bit flip in the last acknowledged frame from a torn write: by content they are the same. It is
rewritten after each fdatasync and before the acknowledgement, but not itself forced to the disk. So it is never ahead
of the log; it is exact after a crash of the process or a clean stop; after a power failure it may be as old as the
kernel's write-back interval (about 30 s), and in that window a last frame that rotted is cut as if it were torn.

Not more than one frame should be written and not yet synced when power can fail: of several, the disk may have kept
only a later one, and that is refused as damage although nothing acknowledged is lost. The refusal is the safe side.

The protocol holds for a replicated stream too: append publishes under the expected last seq, sync waits for the acks.
"""

import contextlib
import errno
import fcntl
import os
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.records import joined
from engine.types import COMMAND

VERSION = 1
GENESIS = bytes(32)
"""The chain hash before the first frame."""
SEGMENT_BYTES = 256 << 20
MAX_FRAME_COMMANDS = 1 << 16
"""Commands in one append, 12.6 MB: what recovery must be ready to read for one frame."""
READ_COMMANDS = 4_096
"""`read` joins smaller frames up to about this many commands."""

_RECORD_BYTES = COMMAND.itemsize
_CHUNK_BYTES = 1 << 20

_FRAME_MAGIC = b"WHF1"
_FRAME_FIELDS = struct.Struct("<4sIqQI")  # magic, count, first_seq, log_id, payload_crc: what the chain covers
_FRAME = struct.Struct("<4sIqQI32sI")  # the same, chain, crc of all before it
_FRAME_BYTES = _FRAME.size
_CRC = struct.Struct("<I")

_SEGMENT_MAGIC = b"WHLOGSEG"
# magic, version, record size, log_id, first_seq, first_seq of the segment before (0: none), chain before, padding, crc
_SEGMENT = struct.Struct("<8sIIQqq32s52xI")
_SEGMENT_BYTES = _SEGMENT.size
_SEGMENT_NAME = re.compile(r"\d{20}\.log")

_MARK_MAGIC = b"WHLOGMRK"
_MARK = struct.Struct("<8sQq32s4xI")  # magic, log_id, seq, chain, padding, crc

assert (_FRAME_BYTES, _SEGMENT_BYTES, _MARK.size) == (64, 128, 64)


class LogError(Exception):
    """The log cannot do what was asked, and says why. After a failed write or sync it takes nothing more."""


class LogLocked(LogError):
    """Another writer has the log open."""


class LogDamaged(LogError):
    """What was once in the log is not there any more. `seq` is the first that cannot be trusted."""

    def __init__(self, path: Path, offset: int, seq: int, reason: str) -> None:
        super().__init__(f"{path} is damaged at byte {offset}, seq {seq}: {reason}")
        self.path = path
        self.offset = offset
        self.seq = seq
        self.reason = reason


class Log(Protocol):
    """One writer, any number of readers. Frame borders carry no meaning for a reader."""

    @property
    def head_seq(self) -> int:
        """The last seq written, 0 when there is none. A reader of the files may already see the frame after it."""

    @property
    def durable_seq(self) -> int:
        """The last seq that survives a power failure; only up to here may anything be acknowledged."""

    @property
    def chain(self) -> bytes:
        """The chain hash at `head_seq`: 32 bytes that stand for every frame so far."""

    def append(self, commands: NDArray[np.void]) -> int:
        """Number the commands and write them as one frame; the last seq."""

    def sync(self) -> int:
        """Make durable what was written before the call; the new `durable_seq`."""

    def read(self, from_seq: int = 1) -> Iterator[NDArray[np.void]]:
        """The commands from `from_seq` to the head as it is now."""

    def chain_at(self, seq: int) -> bytes:
        """The chain hash after `seq`, which must be the last of a frame."""

    def close(self) -> None:
        """Sync and let go."""


class _Head(NamedTuple):
    """One object, so that another thread sees all of it or none."""

    seq: int
    chain: bytes
    end: int  # offset in the last segment


class _Mark(NamedTuple):
    log_id: int
    seq: int
    chain: bytes

    def pack(self) -> bytes:
        return _sealed(_MARK.pack(_MARK_MAGIC, *self, 0))


class _Segment(NamedTuple):
    path: Path
    log_id: int
    first_seq: int
    prev_first_seq: int
    prev_chain: bytes

    def pack(self) -> bytes:
        fields = (_SEGMENT_MAGIC, VERSION, _RECORD_BYTES, *self[1:], 0)
        return _sealed(_SEGMENT.pack(*fields))


class _Frame(NamedTuple):
    offset: int
    first_seq: int
    last_seq: int
    chain: bytes
    fields: memoryview  # of the header, as the chain covers them
    payload: memoryview  # empty where only the header was read

    @property
    def end(self) -> int:
        return self.offset + _FRAME_BYTES + (self.last_seq - self.first_seq + 1) * _RECORD_BYTES


@dataclass(slots=True)
class Report:
    """What verification found. `frames` and `commands` count what was verified, not what was skipped."""

    directory: Path
    segments: int = 0
    frames: int = 0
    commands: int = 0
    head_seq: int = 0
    chain: bytes = GENESIS
    end: int = 0
    """Where the last whole frame ends, in the last segment."""
    torn_bytes: int = 0
    """After `end`: a write that never finished, or one under way in a live log."""
    durable_seq: int | None = None
    """As the mark has it, None when there is no mark to read."""
    durable_end: int = _SEGMENT_BYTES
    """Where that is in the last segment, or the start of its frames when it is not there."""
    warnings: list[str] = field(default_factory=list)
    damage: LogDamaged | None = None

    @property
    def ok(self) -> bool:
        return self.damage is None


def verify(directory: str | os.PathLike[str], from_seq: int = 1) -> Report:
    """Check every frame from the segment that holds `from_seq` on, and the headers of the segments before it.

    Reads only and takes no lock: it may run beside the writer, and then covers what was written when it came to the
    last segment. Raises LogError when there is no such directory; damage is in the report.
    """
    path = Path(directory)
    if not path.is_dir():
        raise LogError(f"{path} is not a directory")
    with _as_log_error(f"cannot read the log in {path}"):
        return _Scan(path, from_seq).report


def segment_paths(directory: str | os.PathLike[str]) -> list[Path]:
    """The segment files by their names, in order; nothing is read."""
    return sorted(path for path in Path(directory).iterdir() if _SEGMENT_NAME.fullmatch(path.name))


def read_log(directory: str | os.PathLike[str], from_seq: int = 1) -> Iterator[NDArray[np.void]]:
    """The commands of a log from `from_seq` to its end as it is now, without a lock: it may run beside the writer.

    What the log has is checked first. Raises LogDamaged, LogError.
    """
    report = verify(directory, from_seq)
    if report.damage is not None:
        raise report.damage
    if report.head_seq < from_seq:
        return iter(())
    return _joined(_read(_segments(Path(directory)), from_seq, report.head_seq), from_seq)


def chain_at(directory: str | os.PathLike[str], seq: int) -> bytes:
    """As `Log.chain_at`, of a log's files, without a lock. Raises ValueError, LogDamaged."""
    if not seq:
        return GENESIS
    frame = next(_read(_segments(Path(directory)), seq, seq), None) if seq > 0 else None
    if frame is None or frame.last_seq != seq:
        raise ValueError(f"no frame of the log ends with seq {seq}")
    return frame.chain


@dataclass(frozen=True, slots=True)
class Beyond:
    """What is still whole behind a damage: frames that cannot follow, because what is between is missing."""

    frames: int
    commands: int
    first_seq: int  # 0: none
    last_seq: int


def beyond(damage: LogDamaged) -> Beyond:
    """Count the whole frames behind a damage, in its segment and the later ones. Reads only."""
    frames = commands = first_seq = last_seq = 0
    for path in segment_paths(damage.path.parent):
        if path.name < damage.path.name:
            continue
        try:
            segment = _segment(path)
        except LogError:
            continue
        with _opened(path) as fd:
            size = os.fstat(fd).st_size
            at: int | None = max(damage.offset + 1, _SEGMENT_BYTES) if path == damage.path else _SEGMENT_BYTES
            while at is not None and (at := _find_frame(fd, at, size, segment.log_id)) is not None:
                for frame in _frames(fd, at, size, segment.log_id):
                    frames, commands = frames + 1, commands + frame.last_seq - frame.first_seq + 1
                    first_seq, last_seq, at = first_seq or frame.first_seq, frame.last_seq, frame.end
    return Beyond(frames, commands, first_seq, last_seq)


def copy_before(damage: LogDamaged, out: Path) -> Report:
    """Write the log up to a damage into the new directory `out`, durable; the report of what is there then.

    The mark is left out: it speaks of what is lost. The damaged log is not touched. Raises LogError, FileExistsError.
    """
    out.mkdir()
    with _as_log_error(f"cannot write {out}"):
        for path in segment_paths(damage.path.parent):
            size = path.stat().st_size if path.name < damage.path.name else damage.offset
            if path.name > damage.path.name or size <= _SEGMENT_BYTES:
                continue
            with path.open("rb") as whole, (out / path.name).open("wb") as part:
                while size and (chunk := whole.read(min(_CHUNK_BYTES, size))):
                    part.write(chunk)
                    size -= len(chunk)
                part.flush()
                os.fsync(part.fileno())
        fsync_directory(out)
    return verify(out)


class FileLog:
    """The log in a directory of one machine.

    One thread appends, usually the event loop's. `sync` may run in another thread at the same time: it covers what was
    written when it began, and `durable_seq` moves no further. `read`, `chain_at` and the properties are safe from any
    thread. `append` waits for a running sync only when it begins a new segment.

    A write or sync that fails poisons the log: the kernel may have dropped what it could not write, so nothing may be
    acknowledged after it. Every later append and sync raises LogError; the way on is to open the log anew.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        durable: bool = True,
        verify_from: int = 1,
        lock: int | None = None,
    ) -> None:
        """Open or create the log, verify it and cut a torn tail.

        `verify_from`: frames in segments wholly before this seq are taken on trust (a snapshot's applied_seq + 1).
        `lock`: that of `log_lock`, where the caller has it already.
        `durable=False` never forces anything to the disk; `durable_seq` then means written.
        Raises LogLocked, LogDamaged, LogError.
        """
        self._directory = Path(directory)
        self._segment_bytes = segment_bytes
        self._durable = durable
        self._failure: str | None = None
        self._closed = False
        self._sync_lock = Lock()  # held through an fdatasync, so that its file is not closed under it
        with contextlib.ExitStack() as opened:
            opened.enter_context(_as_log_error(f"cannot open the log in {self._directory}"))
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock_fd = _lock(self._directory / "lock") if lock is None else os.dup(lock)
            opened.callback(os.close, self._lock_fd)
            self.recovered: Report = _Scan(self._directory, verify_from).report
            if self.recovered.damage is not None:
                raise self.recovered.damage
            self._segments = _segments(self._directory)
            self._fd = self._open_tail() if self._segments else self._new_segment(1, GENESIS)
            opened.callback(os.close, self._fd)
            end = self.recovered.end or _SEGMENT_BYTES
            self._head = _Head(self.recovered.head_seq, self.recovered.chain, end)
            self._mark_fd = os.open(self._directory / "mark", os.O_RDWR | os.O_CREAT, 0o644)
            opened.callback(os.close, self._mark_fd)
            if durable:
                with contextlib.suppress(PermissionError):  # the parent may be somebody else's
                    fsync_directory(self._directory.parent)
                fsync_directory(self._directory)
                self._write_mark(self._head)
            self._durable_seq = self._head.seq
            self._release = opened.pop_all()

    @property
    def head_seq(self) -> int:
        return self._head.seq

    @property
    def durable_seq(self) -> int:
        return self._durable_seq

    @property
    def chain(self) -> bytes:
        return self._head.chain

    def append(self, commands: NDArray[np.void]) -> int:
        """Write `seq` into the caller's array, from head_seq + 1 on, and the array into the log as one frame.

        Returns the new head_seq. Nothing is durable before `sync`. Not thread-safe against itself. Raises ValueError
        for an array that is not one frame's worth of COMMAND, and LogError when the log is poisoned or becomes so;
        then nothing was appended and the numbers in the array mean nothing.
        """
        self._check_usable()
        _check_commands(commands)
        count = len(commands)
        if not count:
            return self._head.seq
        size = _FRAME_BYTES + commands.nbytes
        if self._head.end > _SEGMENT_BYTES and self._head.end + size > self._segment_bytes:
            self._rotate()
        head = self._head
        last_seq = head.seq + count
        commands["seq"] = last_seq if count == 1 else np.arange(head.seq + 1, last_seq + 1)
        payload = commands.tobytes()  # numpy takes longer to show the bytes of a few records than to copy them
        header, chain = _frame_header(self._segments[-1].log_id, head, count, payload)
        self._write(header, payload, size)
        self._head = _Head(last_seq, chain, head.end + size)
        return last_seq

    def sync(self) -> int:
        """Make durable everything appended before the call; the new durable_seq. May run in a thread of its own.

        Raises LogError when the log is poisoned or becomes so.
        """
        with self._sync_lock:
            self._check_usable()
            self._flush()
            return self._durable_seq

    def read(self, from_seq: int = 1) -> Iterator[NDArray[np.void]]:
        """The commands from `from_seq` to the head as it is now, in arrays that belong to the caller.

        Small frames are joined. Raises ValueError when `from_seq` is not in 1 ... head_seq + 1, and LogDamaged, while
        iterating, when a frame is no longer what was written.
        """
        head_seq, segments = self._head.seq, list(self._segments)
        if not 1 <= from_seq <= head_seq + 1:
            raise ValueError(f"cannot read from seq {from_seq}: the log holds 1 to {head_seq}")
        return _joined(_read(segments, from_seq, head_seq), from_seq)

    def chain_at(self, seq: int) -> bytes:
        """The chain hash after `seq`: what a snapshot made there must carry. ValueError unless a frame ends with it."""
        head, segments = self._head, list(self._segments)
        if seq in (0, head.seq):
            return head.chain if seq else GENESIS
        if 0 < seq < head.seq:
            frame = next(_read(segments, seq, seq))
            if frame.last_seq == seq:
                return frame.chain
        raise ValueError(f"no frame of the log ends with seq {seq}")

    def close(self) -> None:
        """Sync, unless poisoned, and release the lock. A second call does nothing.

        Waits for a running sync; not beside a running append: call it on the thread that appends.
        """
        if self._closed:
            return
        try:
            if self._failure is None:
                self.sync()
                with self._poisoned_by("closing the log"):
                    self._fdatasync(self._mark_fd)
        finally:
            with self._sync_lock:
                self._closed = True
                self._release.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise LogError(f"the log takes nothing more: {self._failure}")
        if self._closed:
            raise LogError("the log is closed")

    @contextlib.contextmanager
    def _poisoned_by(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._poison(what, error) from error

    def _poison(self, what: str, error: OSError) -> LogError:
        self._failure = f"{what} in {self._directory} failed: {error}"
        return LogError(self._failure)

    def _write(self, header: bytes, payload: bytes, size: int) -> None:
        """All or nothing: half a frame would hide every later one. Should the truncation fail too, recovery cuts it."""
        try:
            written = os.writev(self._fd, (header, payload))
            if written != size:
                raise OSError(errno.ENOSPC, f"only {written} of {size} bytes written")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._head.end)
            raise self._poison("writing a frame", error) from error

    def _flush(self) -> None:
        """Under the sync lock. The head is read first: what is appended from then on may miss the fdatasync."""
        head = self._head
        if head.seq == self._durable_seq:
            return
        if self._durable:
            with self._poisoned_by("forcing the log to the disk"):
                self._fdatasync(self._fd)
                self._write_mark(head)  # before the acknowledgement, so that what was promised is known after a crash
        self._durable_seq = head.seq

    def _fdatasync(self, fd: int) -> None:
        if self._durable:
            os.fdatasync(fd)

    def _write_mark(self, head: _Head) -> None:
        os.pwrite(self._mark_fd, _Mark(self._segments[-1].log_id, head.seq, head.chain).pack(), 0)

    def _rotate(self) -> None:
        """Begin a segment. The old one is durable first: a torn tail may only ever be in the last segment."""
        with self._sync_lock:
            self._check_usable()
            self._flush()
            with self._poisoned_by("beginning a segment"):
                old, head = self._fd, self._head
                fresh = self._new_segment(head.seq + 1, head.chain)
                os.dup2(fresh, old, inheritable=False)  # self._fd stays the same number; the old file is closed
                os.close(fresh)
                self._head = head._replace(end=_SEGMENT_BYTES)

    def _new_segment(self, first_seq: int, prev_chain: bytes) -> int:
        """Made under another name, so that a segment under its own name always has its header; the open file."""
        previous = self._segments[-1] if self._segments else None
        log_id = previous.log_id if previous else int.from_bytes(os.urandom(8), "little")
        path = self._directory / f"{first_seq:020d}.log"
        segment = _Segment(path, log_id, first_seq, previous.first_seq if previous else 0, prev_chain)
        draft = path.with_suffix(".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        try:
            if os.write(fd, segment.pack()) != _SEGMENT_BYTES:
                raise OSError(errno.ENOSPC, "segment header cut short")
            if self._durable:
                os.fsync(fd)
            draft.rename(path)
            if self._durable:
                fsync_directory(self._directory)
        except OSError:
            os.close(fd)
            raise
        self._segments.append(segment)
        return fd

    def _open_tail(self) -> int:
        """The last segment, cut after its last whole frame and durable up to there."""
        path, found = self._segments[-1].path, self.recovered
        if self._durable:
            self._sync_older()
            _rewrite(path, found.durable_end, found.end)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            if found.torn_bytes:
                os.ftruncate(fd, found.end)
            self._fdatasync(fd)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _sync_older(self) -> None:
        """Of a log that was written with durability off, the segments after the mark may never have been synced."""
        for segment, following in pairwise(self._segments):
            if following.first_seq - 1 > (self.recovered.durable_seq or 0):
                with _opened(segment.path) as fd:
                    os.fdatasync(fd)


class _Scan:
    """One pass over a directory, for recovery and for auditors. The result is in `report`."""

    def __init__(self, directory: Path, from_seq: int) -> None:
        self.report = Report(directory)
        try:
            # The mark before the segments: a live log only moves on, so the segments then reach at least the mark.
            self._mark = self._read_mark(directory / "mark")
            segments = _segments(directory)
            self._check_headers(directory, segments)
            if segments:
                first = max(0, bisect_right(segments, from_seq, key=lambda segment: segment.first_seq) - 1)
                self._check_frames(segments[first:])
        except LogDamaged as damage:
            self.report.damage = damage

    def _read_mark(self, path: Path) -> _Mark | None:
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        if len(raw) != _MARK.size or not _seal_holds(raw) or not raw.startswith(_MARK_MAGIC):
            if raw:  # an empty one is a log on its way to being made
                self.report.warnings.append(f"{path} cannot be read; the end of the log is judged by its content alone")
            return None
        mark = _Mark(*_MARK.unpack(raw)[1:4])
        self.report.durable_seq = mark.seq
        return mark

    def _check_headers(self, directory: Path, segments: list[_Segment]) -> None:
        """The segments follow each other from seq 1, and belong to one log."""
        self.report.segments = len(segments)
        if not segments:
            if self._mark is not None:
                missing = directory / f"{1:020d}.log"
                raise LogDamaged(missing, 0, 1, f"missing, and the log was durable up to seq {self._mark.seq}")
            return
        log_id = self._mark.log_id if self._mark is not None else segments[0].log_id
        before = 0
        for path, segment_log_id, first_seq, prev_first_seq, _ in segments:
            if segment_log_id != log_id:
                raise LogDamaged(path, 0, first_seq, "the segment is of another log")
            if prev_first_seq != before:
                missing = directory / f"{prev_first_seq:020d}.log"
                raise LogDamaged(missing, 0, max(prev_first_seq, 1), f"missing before {path.name}")
            before = first_seq

    def _check_frames(self, segments: list[_Segment]) -> None:
        first = segments[0]
        self.report.head_seq, self.report.chain = first.first_seq - 1, first.prev_chain
        for at, segment in enumerate(segments):
            self._check_start(segment, segments[at - 1] if at else None)
            self._check_segment(segment, is_last=at == len(segments) - 1)
        mark = self._mark
        if mark is not None and self.report.head_seq < mark.seq:
            reason = f"the log ends here and was durable up to seq {mark.seq}"
            raise LogDamaged(segments[-1].path, self.report.end, self.report.head_seq + 1, reason)

    def _check_start(self, segment: _Segment, previous: _Segment | None) -> None:
        head_seq = self.report.head_seq
        if segment.first_seq != head_seq + 1:
            where = previous.path if previous else segment.path
            raise LogDamaged(where, self.report.end, head_seq + 1, f"ends here, and {segment.path.name} follows")
        if segment.prev_chain != self.report.chain:
            raise LogDamaged(segment.path, 0, segment.first_seq, "the segment continues another history")

    def _check_segment(self, segment: _Segment, *, is_last: bool) -> None:
        report = self.report
        report.end = _SEGMENT_BYTES
        with _opened(segment.path) as fd:
            # Bytes below the size are final even in a live log, so a frame cut by it is the only one in doubt.
            size = os.fstat(fd).st_size
            for frame in _frames(fd, _SEGMENT_BYTES, size, segment.log_id):
                self._check_frame(segment.path, frame, is_last=is_last)
            if report.end < size:
                self._judge_tail(segment, fd, size, is_last)
                report.torn_bytes = size - report.end

    def _check_frame(self, path: Path, frame: _Frame, *, is_last: bool) -> None:
        report, mark = self.report, self._mark
        if frame.first_seq != report.head_seq + 1:
            reason = f"a frame with seq {frame.first_seq} to {frame.last_seq} is out of place"
            raise LogDamaged(path, frame.offset, report.head_seq + 1, reason)
        if frame.chain != _chain(report.chain, frame.fields, frame.payload):
            raise LogDamaged(path, frame.offset, frame.first_seq, "the frame is whole but not of this history")
        if mark is not None and frame.first_seq <= mark.seq <= frame.last_seq:
            if (mark.seq, mark.chain) != (frame.last_seq, frame.chain):
                raise LogDamaged(path, frame.offset, frame.first_seq, "not the frame that was made durable")
            self.report.durable_end = frame.end if is_last else _SEGMENT_BYTES
        report.frames += 1
        report.commands += frame.last_seq - frame.first_seq + 1
        report.head_seq, report.chain, report.end = frame.last_seq, frame.chain, frame.end

    def _judge_tail(self, segment: _Segment, fd: int, size: int, is_last: bool) -> None:
        """Torn, or damaged? See the head of the file; what the mark says is checked at the end of the log."""
        offset, seq = self.report.end, self.report.head_seq + 1
        if not is_last:
            raise LogDamaged(segment.path, offset, seq, "the frame is not whole, and another segment follows")
        later = _find_frame(fd, offset + 1, size, segment.log_id)
        if later is not None:
            raise LogDamaged(segment.path, offset, seq, f"the frame is not whole, and one that is follows at {later}")


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _rewrite(path: Path, start: int, end: int) -> None:
    """Write the bytes of a file again where they are.

    Recovery has read them from the page cache. If an fdatasync failed before, the kernel may have marked these pages
    clean without their being on the disk, and another fdatasync would pass over them.
    """
    fd = os.open(path, os.O_RDWR)
    try:
        while start < end:
            chunk = os.pread(fd, min(_CHUNK_BYTES, end - start), start)
            start += os.pwrite(fd, chunk, start)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _as_log_error(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LogError(f"{what}: {error}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise LogLocked(f"{path.parent} is open for writing elsewhere") from error
        raise
    return fd


@contextlib.contextmanager
def log_lock(directory: str | os.PathLike[str]) -> Iterator[int]:
    """Nobody else writes the log in a directory meanwhile; a FileLog that is opened with this keeps the lock.

    Makes the directory. Raises LogLocked, LogError.
    """
    place = Path(directory)
    with _as_log_error(f"cannot open the log in {place}"):
        place.mkdir(parents=True, exist_ok=True)
        fd = _lock(place / "lock")
    try:
        yield fd
    finally:
        os.close(fd)


def _sealed(raw: bytes) -> bytes:
    """The last four bytes become the CRC of those before."""
    body = raw[: -_CRC.size]
    return body + _CRC.pack(zlib.crc32(body))


def _seal_holds(raw: bytes | memoryview) -> bool:
    (crc,) = _CRC.unpack(raw[-_CRC.size :])
    return bool(zlib.crc32(raw[: -_CRC.size]) == crc)


def _segments(directory: Path) -> list[_Segment]:
    """The segments by their headers, in order. LogDamaged for a header that is not whole or under another's name."""
    names = sorted(name for name in os.listdir(directory) if _SEGMENT_NAME.fullmatch(name))
    return [_segment(directory / name) for name in names]


def _segment(path: Path) -> _Segment:
    first_seq = int(path.stem)
    with _opened(path) as fd:
        raw = os.pread(fd, _SEGMENT_BYTES, 0)
    if len(raw) != _SEGMENT_BYTES or not raw.startswith(_SEGMENT_MAGIC) or not _seal_holds(raw):
        raise LogDamaged(path, 0, first_seq, "the segment header is not whole")
    _, version, record_bytes, *fields, _ = _SEGMENT.unpack(raw)
    if (version, record_bytes) != (VERSION, _RECORD_BYTES):
        raise LogError(
            f"{path} has version {version} with records of {record_bytes} bytes, not {VERSION} with {_RECORD_BYTES}"
        )
    segment = _Segment(path, *fields)
    if segment.first_seq != first_seq:
        raise LogDamaged(path, 0, first_seq, f"the segment begins at seq {segment.first_seq}, its name says otherwise")
    return segment


def _check_commands(commands: NDArray[np.void]) -> None:
    if commands.dtype != COMMAND or commands.ndim != 1 or not commands.flags.c_contiguous:
        raise ValueError(f"expected a contiguous array of COMMAND, got {commands.ndim} dimensions of {commands.dtype}")
    if len(commands) > MAX_FRAME_COMMANDS:
        raise ValueError(f"{len(commands)} commands in one frame; the most is {MAX_FRAME_COMMANDS}")


def _chain(previous: bytes, fields: bytes | memoryview, payload: bytes | memoryview) -> bytes:
    digest = sha256(previous)
    digest.update(fields)
    digest.update(payload)
    return digest.digest()


def _frame_header(log_id: int, head: _Head, count: int, payload: bytes) -> tuple[bytes, bytes]:
    """The header of the frame after `head`, and the chain hash in it."""
    fields = _FRAME_FIELDS.pack(_FRAME_MAGIC, count, head.seq + 1, log_id, zlib.crc32(payload))
    chain = _chain(head.chain, fields, payload)
    body = fields + chain
    return body + _CRC.pack(zlib.crc32(body)), chain


def _frames(fd: int, offset: int, end: int, log_id: int, skip_to: int = 0) -> Iterator[_Frame]:
    """Whole frames, one behind the other from `offset`; it ends at `end` or at what is not a whole frame.

    Of frames that end before seq `skip_to` only the header is looked at, and none is yielded.
    """
    view, base = memoryview(b""), offset
    while offset + _FRAME_BYTES <= end:
        at = offset - base
        if at + _FRAME_BYTES > len(view):
            view, base, at = memoryview(os.pread(fd, min(_CHUNK_BYTES, end - offset), offset)), offset, 0
        header = view[at : at + _FRAME_BYTES]
        if len(header) < _FRAME_BYTES:  # the file has become shorter since its size was taken
            return
        magic, count, first_seq, frame_log_id, payload_crc, chain, _ = _FRAME.unpack(header)
        if magic != _FRAME_MAGIC or frame_log_id != log_id or not _seal_holds(header):
            return
        size = _FRAME_BYTES + count * _RECORD_BYTES
        if not 0 < count <= MAX_FRAME_COMMANDS or offset + size > end:
            return
        if first_seq + count > skip_to:
            if at + size > len(view):
                view, base, at = memoryview(os.pread(fd, max(size, _CHUNK_BYTES), offset)), offset, 0
            payload = view[at + _FRAME_BYTES : at + size]
            if zlib.crc32(payload) != payload_crc:
                return
            yield _Frame(offset, first_seq, first_seq + count - 1, chain, header[: _FRAME_FIELDS.size], payload)
        offset += size


def _find_frame(fd: int, offset: int, end: int, log_id: int) -> int | None:
    """Where the next whole frame of this log begins, at whatever offset: bytes may be missing as well as wrong."""
    while offset + _FRAME_BYTES <= end:
        chunk = os.pread(fd, min(_CHUNK_BYTES, end - offset), offset)
        at = chunk.find(_FRAME_MAGIC)
        while at >= 0:
            # The header alone first: whoever writes the magic into thousands of commands shall not slow recovery.
            header = os.pread(fd, _FRAME_BYTES, offset + at)
            likely = len(header) == _FRAME_BYTES and _seal_holds(header)
            if likely and next(_frames(fd, offset + at, end, log_id), None) is not None:
                return offset + at
            at = chunk.find(_FRAME_MAGIC, at + 1)
        if len(chunk) < _FRAME_BYTES:
            break
        offset += len(chunk) - len(_FRAME_MAGIC) + 1
    return None


def _read(segments: list[_Segment], from_seq: int, to_seq: int) -> Iterator[_Frame]:
    """The frames that hold from_seq to to_seq; LogDamaged where one of them is not found whole and in its place."""
    first = bisect_right(segments, from_seq, key=lambda segment: segment.first_seq) - 1
    chosen = segments[first:]
    next_first_seqs = [segment.first_seq for segment in chosen[1:]] + [to_seq + 1]
    seq = from_seq
    for segment, next_first_seq in zip(chosen, next_first_seqs, strict=True):
        if seq > to_seq:
            return
        offset = _SEGMENT_BYTES
        with _opened(segment.path) as fd:
            for frame in _frames(fd, offset, os.fstat(fd).st_size, segment.log_id, skip_to=seq):
                if frame.first_seq > seq:
                    break
                yield frame
                seq, offset = frame.last_seq + 1, frame.end
                if seq > to_seq:
                    return
        if seq != next_first_seq:
            raise LogDamaged(segment.path, offset, seq, "no whole frame where one was written")


def _joined(frames: Iterator[_Frame], from_seq: int) -> Iterator[NDArray[np.void]]:
    """Arrays of about READ_COMMANDS, or of one frame when that is larger."""
    pieces: list[memoryview] = []
    size = 0
    for frame in frames:
        skipped = max(0, from_seq - frame.first_seq)
        piece = frame.payload[skipped * _RECORD_BYTES :]
        pieces.append(piece)
        size += len(piece)
        if size >= READ_COMMANDS * _RECORD_BYTES:
            yield _array(pieces)
            pieces, size = [], 0
    if pieces:
        yield _array(pieces)


def _array(pieces: list[memoryview]) -> NDArray[np.void]:
    """One that can be written to: a kernel compiled for one kind serves both."""
    return joined(pieces, COMMAND)
