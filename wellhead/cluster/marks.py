"""How far the readers of a shard's streams are, noted where all can see it, so that nobody trims what one of them needs.

A replica's mark is where it stands, a gateway's the snapshot that it would start from, and that of whoever keeps an
archive what is durable in it. A mark outlives its reader: what it will ask for when it comes back is still needed.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import KeyNotFoundError

from engine.jetstream import REQUEST_S, Shard, marks_bucket

log = logging.getLogger(__name__)

KEEPERS = frozenset(("archive", "books"))
"""Kinds whose marks are the places of durable archives. They never grow old."""
_NOT_IN_KEYS = re.compile(r"[^-_a-zA-Z0-9]")


class Mark(msgspec.Struct, frozen=True):
    """What a reader has of a shard's streams."""

    kind: str  # replica, gateway, archive, books
    name: str
    journal_seq: int  # it needs the journal behind this entry
    in_seq: int  # and the input behind this message; -1: none of it
    noted_s: int  # when that was, by its clock

    @property
    def key(self) -> str:
        return f"{self.kind}.{_NOT_IN_KEYS.sub('_', self.name)}"

    def is_binding(self, now_s: float, absent_s: int) -> bool:
        """Whether it is waited for. One of a kind that can join from a snapshot or an archive is, for `absent_s`."""
        return self.kind in KEEPERS or now_s - self.noted_s < absent_s


async def note(client: Client, shard: Shard, mark: Mark) -> None:
    """Put a mark in the place of the older one. Raises nats.errors.Error."""
    await (await marks_bucket(client, shard)).put(mark.key, msgspec.json.encode(mark))


async def marks_of(client: Client, shard: Shard) -> list[Mark]:
    """All that are noted. Raises nats.errors.Error: who cannot see one must not take it for gone."""
    bucket, subjects = await marks_bucket(client, shard), f"$KV.{shard.marks}."
    info = await client.jetstream(timeout=REQUEST_S).stream_info(f"KV_{shard.marks}", subjects_filter=f"{subjects}>")
    found = []
    for subject in sorted(info.state.subjects or {}):
        try:
            entry = await bucket.get(subject.removeprefix(subjects))
        except KeyNotFoundError as error:
            if error.op is None:  # it was not found; one that was forgotten is found to be deleted
                raise
            continue
        found.append(msgspec.json.decode(entry.value or b"", type=Mark))
    return found


async def forget(client: Client, shard: Shard, kind: str, name: str) -> bool:
    """Take a mark away whose reader will not come back; False when there is none."""
    bucket, key = await marks_bucket(client, shard), Mark(kind, name, 0, 0, 0).key
    try:
        await bucket.get(key)
    except KeyNotFoundError:
        return False
    return await bucket.delete(key)


class Marker:
    """Notes the mark of one reader, at once and then again and again: also to say that it is there."""

    def __init__(
        self, client: Client, shard: Shard, kind: str, name: str, where: Callable[[], tuple[int, int]]
    ) -> None:
        """`where` gives (journal_seq, in_seq) as in a Mark."""
        self._client, self._shard, self._kind, self._name = client, shard, kind, name
        self._where = where

    async def note(self) -> None:
        """Now. Raises nats.errors.Error."""
        await note(self._client, self._shard, Mark(self._kind, self._name, *self._where(), int(time.time())))

    async def try_note(self) -> None:
        """Now, if the servers answer."""
        if not self._client.is_connected:
            return
        try:
            await self.note()
        except (NatsError, OSError, TimeoutError) as error:
            log.info("the mark of %s %s could not be noted: %r", self._kind, self._name, error)

    async def run(self, every_ms: int) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(every_ms / 1000)
            await self.try_note()
