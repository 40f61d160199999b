"""A shard's log on a disk: the journal's commands in the files that a single node writes, so that the streams may forget them.

`wellhead verify`, `replay`, `export` and `doctor` read the directory, or a copy of it, as they read any. Beside the log lies the
*place*: which entry of the journal is the last in it, and the journal's chain there. It is written after the log is forced
to the disk, so what is up to the place is durable, and only that is said to others (wellhead/cluster/marks.py).

Events are not in it, for an engine makes them again: `replay` gives both to whoever has to begin before the journal does.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.engine import Engine
from engine.jetstream import Reader, end, head_of, join, patiently
from engine.log import MAX_FRAME_COMMANDS, FileLog, LogError, read_log
from engine.records import copied, joined
from engine.sequencing import Part
from engine.types import COMMAND, EVENT
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.marks import Marker
from wellhead.cluster.place import Place
from wellhead.cluster.tasks import first_failure
from wellhead.cluster.trim import Trimmer

PLACE_EVERY_S = 1.0


def replay(data_dir: Path, after_seq: int) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
    """The commands of an archive behind one, up to its place, and the events that an engine makes of them.

    Raises LogError, LogDamaged.
    """
    engine, last_seq = Engine(), Place.read(data_dir).seq
    for part in read_log(data_dir / "log"):
        commands = part[: np.searchsorted(part["seq"], last_seq, "right")]
        if not len(commands):
            return
        events = copied(engine.apply(commands))
        if commands["seq"][-1] > after_seq:
            first = int(np.searchsorted(events["command_seq"], after_seq, "right"))
            yield commands[np.searchsorted(commands["seq"], after_seq, "right") :], events[first:]


class Archive:
    """The log of one directory, written from the journal. One thread at a time."""

    def __init__(self, data_dir: Path) -> None:
        """Raises LogError, also where the place speaks of commands that the log does not have."""
        data_dir.mkdir(parents=True, exist_ok=True)
        self._data_dir = data_dir
        self._log = FileLog(data_dir / "log")
        self.place = Place.read(data_dir)
        """What is durable."""
        if self.place.seq > self._log.head_seq:
            if self._log.head_seq:
                self._log.close()
                raise LogError(
                    f"{data_dir / 'log'} ends at {self._log.head_seq}; {self.place.seq} was in it: it lost commands"
                )
            self.place = Place()
        self._placed_at = 0.0

    def add(self, commands: NDArray[np.void]) -> None:
        """Append what is not in the log yet, durable. Raises LogError when commands are missing between."""
        fresh = commands[commands["seq"] > self._log.head_seq]
        if len(fresh) and fresh["seq"][0] != self._log.head_seq + 1:
            raise LogError(f"command {fresh['seq'][0]} does not follow the archive's {self._log.head_seq}")
        for start in range(0, len(fresh), MAX_FRAME_COMMANDS):
            self._log.append(fresh[start : start + MAX_FRAME_COMMANDS])
            self._log.sync()

    def note(self, place: Place, at_once: bool = False) -> None:
        """Note where the log is, now and then; all up to there was added."""
        if place != self.place and (at_once or time.monotonic() - self._placed_at >= PLACE_EVERY_S):
            place.write(self._data_dir)
            self.place, self._placed_at = place, time.monotonic()

    def close(self) -> None:
        """Let go of the directory."""
        self._log.close()


class Archivist:
    """Keeps an archive, and trims the streams. `await start()`, `stop()`; `await failed()` to learn why it cannot go on."""

    KIND = "archive"

    def __init__(
        self, config: ClusterConfig, name: str, data_dir: Path, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises LogError."""
        self.config, self.name = config, name
        self._data_dir = data_dir
        self._thread = ThreadPoolExecutor(1, self.KIND)
        self._archive = Archive(data_dir)
        self.standing = self._archive.place  # all up to there is in the log
        self.journal = self.standing.journal
        self.trimmer = Trimmer(config, clock)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def journal_seq(self) -> int:
        return self.standing.journal_seq

    async def start(self) -> None:
        """Read the journal to its end, then go on. Raises LogError, nats.errors.Error."""
        shard = self.config.shard
        self._client = await join(self.config.nats.servers, shard, f"{self.KIND} {self.name}")
        self._marker = Marker(self._client, shard, self.KIND, self.name, lambda: (self._archive.place.journal_seq, -1))
        await patiently(self._marker.note)  # nothing behind it goes from now on
        self._reader = Reader(self._client, shard.journal, self.journal_seq)
        await self._reader.start()
        head = await head_of(self._client, shard.journal)
        if self.journal_seq > head:
            raise LogError(f"{self._data_dir} is at entry {self.journal_seq}; the journal ends with {head}")
        while self.journal_seq < head:
            await self._keep()
        await self._note()
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._mark())]
        if self.config.trim_every_s:
            self._tasks.append(asyncio.create_task(self.trimmer.run(self._client)))

    async def failed(self) -> None:
        """Wait for a failure, and raise it."""
        await first_failure(self._tasks)

    async def stop(self) -> None:
        """Leave; the archive stands where it is."""
        await end(self._tasks)
        await self._reader.stop()
        await self._in_thread(self._archive.note, self.standing, True)
        await self._marker.try_note()
        await self._client.close()
        self._thread.shutdown()
        self._archive.close()

    async def _follow(self) -> None:
        while True:
            await self._keep()

    async def _keep(self) -> None:
        """Take in what has arrived."""
        messages = await self._reader.read()
        entries = [self.journal.take(message.data) for message in messages]
        parts = [part for entry in entries if entry is not None for part in entry.parts]
        if parts:
            commands = joined([part.commands for part in parts], COMMAND)
            events = joined([part.events for part in parts], EVENT)
            await self._in_thread(self._take_in, commands, events)
        self.standing = Place.of(messages[-1].seq, self.journal)
        await self._in_thread(self._archive.note, self.standing)
        await self._done(parts)

    def _take_in(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        """A batch of the journal (COMMAND, EVENT), on the archive's thread."""
        self._archive.add(commands)

    async def _done(self, parts: list[Part]) -> None:
        """They are taken in."""

    async def _mark(self) -> None:
        while True:
            await asyncio.sleep(self.config.mark_every_ms / 1000)
            await self._note()

    async def _note(self) -> None:
        """Note the place, here and for the others; where the servers do not answer, the next time."""
        await self._in_thread(self._archive.note, self.standing)
        await self._marker.try_note()

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
