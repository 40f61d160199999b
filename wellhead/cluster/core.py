"""A replica without its connections: what it applied, and how that compares with what the journal says.

A replica applies the input as it comes, so it may be ahead of the journal; what it applied waits in `ahead` until an
entry of the journal, whoever wrote it, covers it. Then the two chains must be the same.
"""

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.engine import Engine
from engine.records import copied
from engine.sequencing import MAX_VOID, Entry, Part, Sequencer
from engine.types import EventKind

MAX_ENTRY_BYTES = 4 << 20


class DivergedError(RuntimeError):
    """This replica and the journal do not agree on what the input means. It must not go on."""


class Applied(NamedTuple):
    """A message of the input that was looked at, and the chain behind it."""

    in_seq: int
    part: Part | None
    chain: bytes


class Core:
    """Engine and sequencer, and where the journal is. One thread."""

    def __init__(
        self, engine: Engine, sequencer: Sequencer, journal_seq: int = 0, confirmed_in: int = 0, cycle_ns: int = 0
    ) -> None:
        """As they were after the same message of the input; the entry `journal_seq` covers no more than that."""
        if engine.applied_seq != sequencer.seq:
            raise DivergedError(f"the engine is at command {engine.applied_seq}, the sequencer at {sequencer.seq}")
        self.engine, self.sequencer = engine, sequencer
        self.journal_seq = journal_seq
        self.cycle_ns = cycle_ns  # when the cycle at hand began
        self.ahead: deque[Applied] = deque()
        self.confirmed_in = confirmed_in  # what the journal covers
        self._joined_in = sequencer.in_seq
        self._heard_in = confirmed_in  # what the journal covers with the entries that wait here
        self._void_now = 0
        self._entries: deque[tuple[int, Entry | None]] = deque()

    def apply(self, in_seq: int, stored_ns: int, data: bytes) -> Part | None:
        """Look at the next message of the input, and apply it when it is one to be taken."""
        frame = self.sequencer.take(in_seq, stored_ns, data)
        part = None
        if frame is not None:
            events = copied(self.engine.apply(frame.commands))
            part = self.sequencer.done(frame, events)
            self._follow_cycle(frame.commands, events)
        self.ahead.append(Applied(in_seq, part, self.sequencer.chain))
        return part

    def _follow_cycle(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        if self.cycle_ns == 0:
            self.cycle_ns = int(commands["ts_ns"][0])
        closed = events["ts_ns"][events["kind"] == EventKind.CYCLE_CLOSED]
        if len(closed):
            self.cycle_ns = int(closed[-1])

    @property
    def may_write(self) -> bool:
        """Whether it has all that follows the journal's end: a snapshot may be ahead of that."""
        return self._joined_in <= self.confirmed_in

    def entry(self, writer: str, skip: int) -> Entry:
        """The entry that follows the first `skip` of `ahead`."""
        after_in = self.ahead[skip - 1].in_seq if skip else self.confirmed_in
        parts: list[Part] = []
        size = 0
        last = self.ahead[skip]
        for place in range(skip, len(self.ahead)):
            one = self.ahead[place]
            if one.part is not None:
                size += one.part.commands.nbytes + one.part.events.nbytes
                if parts and size > MAX_ENTRY_BYTES:
                    break
                parts.append(one.part)
            last = one
        return Entry(writer, after_in, last.in_seq, parts, last.chain)

    def heard(self, journal_seq: int, entry: Entry) -> bool:
        """An entry of the journal; False when it is void (see engine.sequencing.Journal). `settle` must follow.

        Raises DivergedError when nothing follows any more.
        """
        follows = entry.after_in == self._heard_in
        self._void_now = 0 if follows else self._void_now + 1
        if self._void_now > MAX_VOID:
            raise DivergedError(f"{MAX_VOID} entries do not go on behind message {self._heard_in} of the input")
        self._entries.append((journal_seq, entry if follows else None))
        if follows:
            self._heard_in = entry.last_in
        return follows

    def settle(self) -> int:
        """Compare what was applied with the entries that came; how many of `ahead` it confirmed. Raises DivergedError."""
        confirmed = 0
        while self._entries:
            journal_seq, entry = self._entries[0]
            if entry is not None:
                if entry.last_in > self.sequencer.in_seq:
                    break
                confirmed += self._confirm(entry)
            self.journal_seq = journal_seq
            self._entries.popleft()
        return confirmed

    def _confirm(self, entry: Entry) -> int:
        confirmed, chain = 0, None
        while self.ahead and self.ahead[0].in_seq <= entry.last_in:
            chain = self.ahead.popleft().chain
            confirmed += 1
        if chain is not None and chain != entry.chain:
            raise DivergedError(f"not the same as the entry of {entry.writer} up to message {entry.last_in}")
        self.confirmed_in = entry.last_in
        return confirmed

    @property
    def is_behind(self) -> bool:
        """Whether the journal has what was not applied here yet."""
        return bool(self._entries)
