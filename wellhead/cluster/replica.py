"""A replica: the engine in a process of its own, one of several that do the same.

All read the input and apply it; all may write the journal. Who wrote the last entry goes on at once; the others wait
`patience_ms` for the journal to move before they write what is missing. So a replica that dies or stands still costs
that much, and two that write at the same time cost one refused message: the servers store an entry only behind the one
it expects. Nobody is elected, and nobody has to know who else is there.

Whoever writes also looks at the clock: orders that expire, gates, hours to list. The commands for it go through the
input like anybody's, under a name that all replicas share, so that of two who let time pass one does it.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.engine import warm_up
from engine.jetstream import Publisher, Reader, end, join, patiently, place_of
from engine.sequencing import Entry, Part, frames_of
from engine.state import Limits
from engine.types import EventKind
from wellhead.calendar import Calendar
from wellhead.cluster import shelf
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.core import Core
from wellhead.cluster.marks import Marker
from wellhead.cluster.office import Books, Told
from wellhead.cluster.tasks import first_failure
from wellhead.index_feed import Reference
from wellhead.timers import Timers

log = logging.getLogger(__name__)

CLOCK = "clock"
ACK_S = 3.0
"""Without an acknowledgement for so long an entry is tried again."""
READ_MOST = 256
LATER_S = 0.5
"""By how much later than the one who writes do the others look at the clock."""
CLOCK_MARGIN_NS = 100_000_000
"""By how much the clocks of replicas and servers may differ: the servers' clocks stamp the commands."""


class References:
    """What the books say that hours were worth: all, and what was new when they told it last."""

    def __init__(self) -> None:
        self.all: list[Reference] = []
        self.fresh: list[Reference] = []

    def hear(self, told: list[Reference]) -> bool:
        """Take over what was told; whether there was anything new."""
        known = set(self.all)
        if fresh := [one for one in told if one not in known]:
            self.all, self.fresh = told, fresh
        return bool(fresh)


class Chores:
    """What time asks for, read out of an engine; made anew where it may have missed something."""

    def __init__(self, core: Core, config: ClusterConfig, catalogue: Catalogue, references: References) -> None:
        cycle_ns = core.cycle_ns or None
        self.calendar = Calendar(core.engine, catalogue, config.markets, config.list_hours, cycle_ns=cycle_ns)
        self.calendar.remember(references.all)
        self.calendar.know(references.fresh)
        self.timers = Timers(core.engine)

    def due(self, now_ns: int) -> NDArray[np.void]:
        """The commands (COMMAND) for what is due."""
        return np.concatenate([self.timers.due(now_ns - CLOCK_MARGIN_NS), self.calendar.due(now_ns)])


@dataclass(slots=True)
class Flight:
    """An entry under way: the place in the journal that it is for, and the last message of the input that it covers."""

    place: int
    last_in: int
    sent_at: float
    stored: "asyncio.Future[int] | None" = None

    @property
    def is_refused(self) -> bool:
        """Whether the servers have said that they do not store it."""
        return self.stored is not None and self.stored.done() and place_of(self.stored) is None


class Replica:
    """One replica. `await start()`, and `await stop()`; `await failed()` to learn why it cannot go on."""

    def __init__(
        self,
        config: ClusterConfig,
        name: str,
        *,
        limits: Limits | None = None,
        catalogue: Catalogue | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        warm_up()  # now, and not while servers wait to hear of us: at its first time it takes half a minute
        self.config, self.name, self.shard = config, name, config.shard
        self.core: Core
        self.warnings: list[str] = []
        self.joined_seq = 0  # the command of the snapshot it joined from
        self.written = 0  # entries that were ours
        self._limits = limits or Limits()
        self._catalogue = catalogue or Catalogue.load()
        self._clock = clock
        self._writer = ""  # of the last entry heard
        self._moved_at = 0.0  # when the journal moved last, or there was first something to write
        self._flights: deque[Flight] = deque()
        self._wake = asyncio.Event()
        self._clock_moved = asyncio.Event()
        self._picture: shelf.Picture | None = None
        self._pictured_seq = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.references = References()
        self._books = Books(self.shard, self._hear_news)

    def _anew(self) -> Chores:
        return Chores(self.core, self.config, self._catalogue, self.references)

    async def start(self) -> None:
        """Check the servers, join from the newest snapshot, and take part. Raises LogError, nats.errors.Error."""
        self._client: Client = await join(self.config.nats.servers, self.shard, f"replica {self.name}")
        self.core, self.warnings = await patiently(lambda: shelf.newest(self._client, self.shard, self._limits))
        self.joined_seq = self._pictured_seq = self.core.sequencer.seq
        await self._books.open(self._client)
        self._marker = Marker(self._client, self.shard, "replica", self.name, self._where)
        await patiently(self._marker.note)
        self._chores = self._anew()
        self._publisher = Publisher(self._client)
        self._input = Reader(self._client, self.shard.input, self.core.sequencer.in_seq)
        self._journal = Reader(self._client, self.shard.journal, self.core.journal_seq)
        for part in (self._publisher, self._input, self._journal):
            await part.start()
        await self._client.subscribe(f"wh.{self.shard.name}.status", cb=self._tell)
        marking = self._marker.run(self.config.mark_every_ms)
        keeping = (self._keep_time(), self._keep_pictures(), self._books.look())
        jobs = (self._apply(), self._listen(), self._write(), *keeping, marking)
        self._tasks = [asyncio.create_task(job) for job in jobs]

    def _where(self) -> tuple[int, int]:
        return self.core.journal_seq, self.core.sequencer.in_seq

    async def failed(self) -> None:
        """Wait for a failure, and raise it."""
        await first_failure(self._tasks)

    async def stop(self) -> None:
        """Leave. The others go on."""
        await end(self._tasks)
        for part in (self._input, self._journal, self._publisher):
            await part.stop()
        await self._client.close()

    # --- Reading ------------------------------------------------------------------------------------------------------

    async def _apply(self) -> None:
        while True:
            was_done = not self.core.ahead
            for message in await self._input.read(READ_MOST):
                part = self.core.apply(message.seq, message.stored_ns, message.data)
                if part is not None:
                    self._follow(part)
            if was_done:
                self._moved_at = time.monotonic()
            self._settled(self.core.settle())
            await asyncio.sleep(0)

    def _follow(self, part: Part) -> None:
        self._chores.timers.on_batch(part.commands, part.events)
        if part.sender == CLOCK:
            self._clock_moved.set()
            if np.any(part.events["kind"] == EventKind.REJECTED):
                # The stamp was before the time that was meant: it is due still.
                self._chores = self._anew()

    async def _listen(self) -> None:
        while True:
            for message in await self._journal.read():
                entry = Entry.unpack(message.data)
                self._writer = entry.writer
                self.written += entry.writer == self.name
                self._moved_at = time.monotonic()
                if not self.core.heard(message.seq, entry):
                    self._land()
                self._settled(self.core.settle())
            await asyncio.sleep(0)

    def _settled(self, count: int) -> None:
        if count and self._writer != self.name:
            self._land()  # what is under way expects another entry before it
        self._wake.set()

    # --- Writing ------------------------------------------------------------------------------------------------------

    @property
    def is_writer(self) -> bool:
        """Whether the last entry was ours, so that nobody waits for another to write."""
        return self._writer == self.name

    async def _write(self) -> None:
        patience_s = self.config.patience_ms / 1000
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s / 4 if self.core.ahead else patience_s):
                    await self._wake.wait()
            self._wake.clear()
            self._look_at_flights()
            is_due = self.is_writer or time.monotonic() - self._moved_at > patience_s
            if is_due and self.core.may_write and not self.core.is_behind:
                await self._send()

    @property
    def _sent(self) -> int:
        """How much of what is ahead is under way: the flights go on, message by message, behind what is confirmed."""
        return max(0, self._flights[-1].last_in - self.core.confirmed_in) if self._flights else 0

    async def _send(self) -> None:
        while self._sent < len(self.core.ahead) and len(self._flights) < self.config.window:
            entry = self.core.entry(self.name, self._sent)
            expected_last = self._flights[-1].place if self._flights else self.core.journal_seq
            flight = Flight(expected_last + 1, entry.last_in, time.monotonic())
            self._flights.append(flight)
            flight.stored = await self._publisher.send(self.shard.journal_subject, entry.pack(), expected_last)
            flight.stored.add_done_callback(lambda _: self._wake.set())

    def _look_at_flights(self) -> None:
        """Entries heard back are behind us; one that failed or is overdue takes all behind it with it."""
        refused = False
        while self._flights and self._flights[0].place <= self.core.journal_seq:
            # In its place may be one that covers less, be it another's or an earlier one of ours.
            refused |= self._flights.popleft().last_in > self.core.confirmed_in
        if self._flights:
            refused |= self._flights[0].is_refused or time.monotonic() - self._flights[0].sent_at > ACK_S
        if refused:
            self._land()
            self._moved_at = time.monotonic()  # perhaps another was faster: hear of it first
            self._writer = ""

    def _land(self) -> None:
        """Forget what is under way; whether it is stored, the journal says."""
        self._flights.clear()

    # --- Time ---------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(self.config.poll_ms / 1000)
            quiet_s = time.monotonic() - self._moved_at
            if self._input.waits or self.core.is_behind:
                continue
            if self.is_writer:
                await self._let_pass(self._clock())
            elif not self.core.ahead and quiet_s > LATER_S:
                await self._let_pass(self._clock() - int(LATER_S * 1e9))  # had the writer been there, it were done

    def _hear_news(self, told: Told) -> None:
        if self.references.hear(told.references):
            self._chores = self._anew()

    async def _let_pass(self, now_ns: int) -> None:
        """Send what is due, and wait until it or another replica's is in."""
        sequencer = self.core.sequencer
        due = self._chores.due(max(now_ns, sequencer.ts_ns))
        before = sequencer.last_number(CLOCK)
        frames = list(frames_of(CLOCK, before, due))
        places = []
        for frame in frames:
            future = await self._publisher.send(self.shard.input_subject, frame.pack())
            await asyncio.wait([future], timeout=ACK_S)
            if (place := place_of(future)) is not None:
                places.append(place)
        if not frames:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACK_S):
                while places and sequencer.in_seq < places[-1]:
                    self._clock_moved.clear()
                    await self._clock_moved.wait()
        # Whose frames they were that got in cannot be seen; what is due now can.
        self._chores = self._anew()

    # --- Snapshots, questions -----------------------------------------------------------------------------------------

    async def _keep_pictures(self) -> None:
        """Now and then, store the state; preferably one who does not write, for it takes a while."""
        while True:
            await asyncio.sleep(0.1)
            seq = self.core.sequencer.seq
            if self._picture is None:
                every = self.config.snapshot_every_commands * (2 if self.is_writer else 1)
                if seq - self._pictured_seq >= every:
                    self._picture = shelf.Picture.of(self.core)
                    self._pictured_seq = seq
            elif self.core.confirmed_in >= self._picture.in_seq:  # not before all have agreed to it
                picture, self._picture = self._picture, None
                try:
                    await shelf.store(self._client, self.config, picture)
                except (NatsError, OSError, TimeoutError) as error:
                    log.warning("a snapshot could not be stored: %r", error)

    async def _tell(self, message: Msg) -> None:
        """Answer a question about this replica; `hash` and `snapshot` as data ask for more."""
        core = self.core
        if message.data == b"snapshot" and self._picture is None:
            self._picture, self._pictured_seq = shelf.Picture.of(core), core.sequencer.seq
        answer = {
            "name": self.name,
            "seq": core.sequencer.seq,
            "in_seq": core.sequencer.in_seq,
            "confirmed_in": core.confirmed_in,
            "journal_seq": core.journal_seq,
            "chain": core.sequencer.chain.hex(),
            "writer": self._writer,
            "written": self.written,
            "joined_seq": self.joined_seq,
            "passed_over": core.sequencer.passed_over,
        }
        if message.data == b"hash":
            answer["state"] = core.engine.state_hash()
        await message.respond(json.dumps(answer).encode())
