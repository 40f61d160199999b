"""One order out of many writers: numbered frames, the order they get, and the journal of what came of them.

Where the exchange runs on several machines, gateways and others *send* frames of commands into one stream, and the
stream's order is the market's. Everything here is a pure function of that stream, so replicas need not talk:

    frame = header, commands            what one sender sends: its name, the frame's number from 1, a CRC
    entry = header, parts, commands, events     what the journal keeps of one or more frames, once for all replicas

A frame is taken if its number is one more than the last one taken of its sender. So a sender that does not know what
arrived sends again, in order, as often as it likes: what came twice or too early is passed over, by every replica alike
and without a time limit. Two that send under one name with the same number compete for it, and the first one wins;
replicas use that to let time pass once.

A taken frame's commands get the next numbers of the log and the time at which the stream stored them, never before the
last. Each frame, its commands and its events go into one SHA-256 chain. Entries may cut the stream anywhere between two
frames; the chain is the same, so whoever reads the journal, and every replica, notices at once where two differ.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.log import GENESIS
from engine.records import joined
from engine.types import COMMAND, EVENT

SENDER_BYTES = 24
MAX_FRAME_COMMANDS = 4_096
"""Commands in one frame, 0.8 MB."""
MAX_VOID = 1_000
"""So many entries one after the other that do not follow are no accident: the journal has another history."""
MAX_SENDERS = 4_096
"""Senders remembered; the one that was silent longest is forgotten for a new one."""

_FRAME_MAGIC, _ENTRY_MAGIC = b"WHI1", b"WHJ1"
_FRAME = struct.Struct("<4sI24sqI")  # magic, count, sender, number, crc of header and commands
_ENTRY = struct.Struct("<4sI24sqqIII32sI")
# magic, version, writer, after_in, last_in, parts, commands, events, chain, crc of all else
_VERSION = 1
_PART = np.dtype([("in_seq", "<i8"), ("number", "<i8"), ("commands", "<i4"), ("events", "<i4"), ("sender", "S24")])
_SENDERS = np.dtype([("number", "<i8"), ("in_seq", "<i8"), ("sender", "S24")])
_STATE = struct.Struct("<qqq32s")  # in_seq, seq, ts_ns, chain

assert (_FRAME.size, _PART.itemsize) == (44, 48)


class FrameError(ValueError):
    """Bytes that are no frame, or no entry; the message says what is wrong."""


class Frame(NamedTuple):
    """What one sender sends at once."""

    sender: str
    number: int
    commands: NDArray[np.void]

    def pack(self) -> bytes:
        """Raises FrameError for a sender's name or a number of commands that is out of bounds."""
        name = self.sender.encode()
        if not 0 < len(name) <= SENDER_BYTES or b"\0" in name:
            raise FrameError(f"a sender's name has 1 to {SENDER_BYTES} bytes, not {self.sender!r}")
        if not 0 < len(self.commands) <= MAX_FRAME_COMMANDS:
            raise FrameError(f"a frame has 1 to {MAX_FRAME_COMMANDS} commands, not {len(self.commands)}")
        body = self.commands.tobytes()
        header = _FRAME.pack(_FRAME_MAGIC, len(self.commands), name, self.number, 0)
        return _FRAME.pack(_FRAME_MAGIC, len(self.commands), name, self.number, _crc(header[:-4], body)) + body

    @classmethod
    def unpack(cls, data: bytes) -> "Frame":
        """The commands may be written to. Raises FrameError."""
        if len(data) < _FRAME.size:
            raise FrameError(f"{len(data)} bytes are no frame")
        magic, count, sender, number, crc = _FRAME.unpack_from(data)
        body = memoryview(data)[_FRAME.size :]
        if magic != _FRAME_MAGIC or crc != _crc(data[: _FRAME.size - 4], body):
            raise FrameError("the frame is not whole")
        if not 0 < count <= MAX_FRAME_COMMANDS or len(body) != count * COMMAND.itemsize:
            raise FrameError(f"the frame speaks of {count} commands and has {len(body)} bytes of them")
        try:
            name = sender.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError as error:
            raise FrameError("the sender's name is not ASCII") from error
        return cls(name, number, joined([body], COMMAND))


class Part(NamedTuple):
    """A frame as it was taken: where it stood in the stream, whose it was, and what came of it."""

    in_seq: int
    sender: str
    number: int
    commands: NDArray[np.void]
    events: NDArray[np.void]

    def chained(self, before: bytes) -> bytes:
        """The chain hash behind this part."""
        digest = sha256(before)
        digest.update(b"%d %s %d\n" % (self.in_seq, self.sender.encode(), self.number))
        digest.update(self.commands.tobytes())
        digest.update(self.events.tobytes())
        return digest.digest()


class Sequencer:
    """Which frames are taken, and their commands' numbers and times. The same stream gives the same, everywhere."""

    def __init__(self) -> None:
        self.in_seq = 0  # the last of the stream that was looked at
        self.seq = 0  # the last command's number
        self.ts_ns = 0  # and its time
        self.chain = GENESIS
        self.passed_over = 0
        """Frames that were repeated, too early or broken; not part of the state."""
        self._senders: dict[str, tuple[int, int]] = {}  # the last number taken, and where it stood; oldest first

    def last_number(self, sender: str) -> int:
        """The number of the last frame taken of a sender, 0 when there was none."""
        return self._senders.get(sender, (0, 0))[0]

    def take(self, in_seq: int, stored_ns: int, data: bytes) -> Frame | None:
        """The frame at `in_seq` with its commands numbered and timed, or None when it is passed over."""
        if in_seq <= self.in_seq:
            raise ValueError(f"message {in_seq} of the stream after {self.in_seq}")
        self.in_seq = in_seq
        try:
            frame = Frame.unpack(data)
        except FrameError:
            self.passed_over += 1
            return None
        if frame.number != self.last_number(frame.sender) + 1:
            self.passed_over += 1
            return None
        self._remember(frame.sender, frame.number)
        self.ts_ns = max(self.ts_ns, stored_ns)
        frame.commands["seq"] = np.arange(self.seq + 1, self.seq + 1 + len(frame.commands))
        frame.commands["ts_ns"] = self.ts_ns
        self.seq += len(frame.commands)
        return frame

    def done(self, frame: Frame, events: NDArray[np.void]) -> Part:
        """The part that the frame taken last became."""
        part = Part(self.in_seq, frame.sender, frame.number, frame.commands, events)
        self.chain = part.chained(self.chain)
        return part

    def _remember(self, sender: str, number: int) -> None:
        self._senders.pop(sender, None)
        while len(self._senders) >= MAX_SENDERS:
            del self._senders[next(iter(self._senders))]
        self._senders[sender] = number, self.in_seq

    def to_bytes(self) -> bytes:
        """Everything that later frames are judged by."""
        rows = [(number, in_seq, sender) for sender, (number, in_seq) in self._senders.items()]
        return _STATE.pack(self.in_seq, self.seq, self.ts_ns, self.chain) + np.array(rows, _SENDERS).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Sequencer":
        """What `to_bytes` was called on. Raises ValueError for other bytes."""
        if len(data) < _STATE.size:
            raise ValueError("these bytes are no state of a sequencer")
        made = cls()
        made.in_seq, made.seq, made.ts_ns, made.chain = _STATE.unpack_from(data)
        for row in np.frombuffer(data, _SENDERS, offset=_STATE.size):
            made._senders[row["sender"].decode()] = int(row["number"]), int(row["in_seq"])
        return made


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of the journal: what came of the frames behind `after_in`, up to `last_in`."""

    writer: str
    after_in: int
    last_in: int
    parts: list[Part]
    chain: bytes  # behind the last part

    @property
    def last_seq(self) -> int:
        """The number of its last command, 0 when it has none."""
        return int(self.parts[-1].commands["seq"][-1]) if self.parts else 0

    def pack(self) -> bytes:
        """Its bytes."""
        rows = [(p.in_seq, p.number, len(p.commands), len(p.events), p.sender) for p in self.parts]
        commands = b"".join(part.commands.tobytes() for part in self.parts)
        events = b"".join(part.events.tobytes() for part in self.parts)
        body = np.array(rows, _PART).tobytes() + commands + events
        sizes = len(rows), len(commands) // COMMAND.itemsize, len(events) // EVENT.itemsize
        fields = (_ENTRY_MAGIC, _VERSION, self.writer.encode(), self.after_in, self.last_in, *sizes)
        header = _ENTRY.pack(*fields, self.chain, 0)
        return header[:-4] + struct.pack("<I", _crc(header[:-4], body)) + body

    @classmethod
    def unpack(cls, data: bytes) -> "Entry":
        """Raises FrameError. The records may be written to."""
        if len(data) < _ENTRY.size:
            raise FrameError(f"{len(data)} bytes are no entry of a journal")
        fields = _ENTRY.unpack_from(data)
        magic, version, writer, after_in, last_in, parts, commands, events, chain, crc = fields
        body = bytearray(memoryview(data)[_ENTRY.size :])
        if magic != _ENTRY_MAGIC or version != _VERSION or crc != _crc(data[: _ENTRY.size - 4], body):
            raise FrameError("the entry is not whole, or of another version")
        if len(body) != parts * _PART.itemsize + commands * COMMAND.itemsize + events * EVENT.itemsize:
            raise FrameError("the entry's sizes do not fit")
        rows = np.frombuffer(body, _PART, parts)
        all_commands = np.frombuffer(body, COMMAND, commands, rows.nbytes)
        all_events = np.frombuffer(body, EVENT, events, rows.nbytes + all_commands.nbytes)
        return cls(writer.rstrip(b"\0").decode(), after_in, last_in, list(_cut(rows, all_commands, all_events)), chain)


class JournalError(Exception):
    """The journal holds what is no entry, or one that is not of its history."""


class Journal:
    """Where a reader of the journal stands; it checks that each entry is of this history.

    An entry that does not go on where the one before it ended is void, for every reader alike. Writers with several
    entries under way make such: when one is lost and another writer's, which ends elsewhere, takes its place, the next
    one finds the last sequence that it expected. What it covers is written again.
    """

    def __init__(self, in_seq: int = 0, seq: int = 0, chain: bytes = GENESIS) -> None:
        self.in_seq, self.seq, self.chain = in_seq, seq, chain
        self.void = 0  # entries passed over
        self._void_now = 0  # since the last one that was not

    def take(self, data: bytes) -> Entry | None:
        """The next entry, or None when it is void. Raises JournalError; then nothing has changed."""
        try:
            entry = Entry.unpack(data)
        except FrameError as error:
            raise JournalError(f"behind message {self.in_seq} of the input: {error}") from error
        if entry.after_in != self.in_seq:
            self.void += 1
            self._void_now += 1
            if self._void_now > MAX_VOID:
                raise JournalError(f"{MAX_VOID} entries do not go on behind message {self.in_seq} of the input")
            return None
        seq, chain = self.seq, self.chain
        for part in entry.parts:
            if not len(part.commands) or part.commands["seq"][0] != seq + 1:
                raise JournalError(f"commands do not follow number {seq}")
            seq, chain = int(part.commands["seq"][-1]), part.chained(chain)
        if chain != entry.chain:
            raise JournalError(f"the entry up to message {entry.last_in} is whole but not of this history")
        self.in_seq, self.seq, self.chain, self._void_now = entry.last_in, seq, chain, 0
        return entry


def frames_of(sender: str, after: int, commands: NDArray[np.void]) -> Iterator[Frame]:
    """Commands as frames, numbered behind `after`."""
    for number, start in enumerate(range(0, len(commands), MAX_FRAME_COMMANDS), after + 1):
        yield Frame(sender, number, commands[start : start + MAX_FRAME_COMMANDS])


def _cut(rows: NDArray[np.void], commands: NDArray[np.void], events: NDArray[np.void]) -> Iterable[Part]:
    command_at = event_at = 0
    for in_seq, number, command_count, event_count, sender in rows.tolist():
        command_end, event_end = command_at + command_count, event_at + event_count
        yield Part(in_seq, sender.decode(), number, commands[command_at:command_end], events[event_at:event_end])
        command_at, event_at = command_end, event_end


def _crc(header: bytes, body: bytes | bytearray | memoryview) -> int:
    return zlib.crc32(body, zlib.crc32(header))
