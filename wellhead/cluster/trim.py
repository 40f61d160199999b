"""What the journal's stream may forget: what archives have durable, replicas and gateways are past, and snapshots stand for.

Whoever keeps an archive looks now and then. It takes the least of

    the places that archives have noted (of so many at least as `archives` says)
    the marks of replicas and gateways, unless nobody has heard of them for `absent_s`
    the entries behind which the snapshots on the shelf begin (of two at least, whole)
    the stream's end, less `keep_entries`

and purges what is before. What allocators have to know of the entries that go, cash on its way between shards, is put on
the shelf first. Several that trim do no harm.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError

from engine.jetstream import REQUEST_S, Reader, TrimmedError, ends_of
from wellhead.cluster import shelf
from wellhead.cluster.allocation import read_cash
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.marks import KEEPERS, marks_of
from wellhead.cluster.place import Place

log = logging.getLogger(__name__)

READ_MOST = 256


class Reach(NamedTuple):
    """Up to which entry somebody lets the journal go, and who."""

    journal_seq: int
    who: str


class Trimmed(NamedTuple):
    """What a look at the journal did."""

    first_seq: int  # that is in the stream now
    last_seq: int
    held_by: Reach  # what keeps it from being shorter


class Trimmer:
    """Trims the journal of one shard."""

    def __init__(self, config: ClusterConfig, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds, as the marks have them."""
        self._config, self._clock = config, clock
        self._snapshots: dict[str, int] = {}

    async def run(self, client: Client) -> None:
        """Look again and again. Raises JournalError when the journal is not what its archive was made of."""
        while True:
            await asyncio.sleep(self._config.trim_every_s)
            try:
                await self.trim(client)
            except (NatsError, OSError, TimeoutError, TrimmedError) as error:  # or another one has trimmed meanwhile
                log.info("the journal could not be trimmed: %r", error)

    async def trim(self, client: Client) -> Trimmed:
        """Purge what nobody needs. Raises nats.errors.Error, TrimmedError."""
        shard = self._config.shard
        first_seq, last_seq = await ends_of(client, shard.journal)
        held_by = min(
            [*await self._reaches(client), Reach(max(0, last_seq - self._config.keep_entries), "keep_entries")]
        )
        if held_by.journal_seq >= first_seq:
            await self._carry_cash(client, held_by.journal_seq)
            stream = client.jetstream(timeout=REQUEST_S)
            await stream.purge_stream(shard.journal, seq=held_by.journal_seq + 1)
            first_seq = held_by.journal_seq + 1
        return Trimmed(first_seq, last_seq, held_by)

    async def _reaches(self, client: Client) -> list[Reach]:
        config, now_s = self._config, self._clock()
        marks = [mark for mark in await marks_of(client, config.shard) if mark.is_binding(now_s, config.absent_s)]
        found = [Reach(mark.journal_seq, f"{mark.kind} {mark.name}") for mark in marks]
        archives = sum(mark.kind in KEEPERS for mark in marks)
        if archives < max(1, config.archives):
            found.append(Reach(0, f"{archives} of {max(1, config.archives)} archives"))
        entries = await shelf.entries_of_snapshots(client, config.shard, self._snapshots)
        if len(entries) < shelf.KEPT:
            found.append(Reach(0, f"{len(entries)} of {shelf.KEPT} snapshots"))
        return found + [Reach(entry, "the older snapshot") for entry in entries]

    async def _carry_cash(self, client: Client, last_seq: int) -> None:
        """What allocators need of the entries that go."""
        shard = self._config.shard
        place, cash = await read_cash(client, shard)
        if place.journal_seq >= last_seq:
            return
        journal, reader, seq = place.journal, Reader(client, shard.journal, place.journal_seq), place.journal_seq
        await reader.start()
        try:
            while seq < last_seq:
                for message in await reader.read(READ_MOST):
                    if (entry := journal.take(message.data)) is not None:
                        cash.take(entry)
                    seq = message.seq
                    if seq >= last_seq:
                        break
                await asyncio.sleep(0)
        finally:
            await reader.stop()
        await shelf.store_cash(client, shard, seq, Place.of(seq, journal).pack() + cash.to_bytes())
