"""Snapshots of a shard in its bucket, from which a replica joins without reading all there ever was.

Beside them lies what the journal said about cash between shards (wellhead/cluster/allocation.py), up to where it was trimmed.
"""

import asyncio
import contextlib
import struct
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from engine.engine import Engine
from engine.jetstream import REQUEST_S, Shard, snapshot_bucket
from engine.sequencing import Sequencer
from engine.snapshot import Snapshot, SnapshotError
from engine.state import Limits
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.core import Core
from wellhead.cluster.marks import marks_of

KEPT = 2
_PLACE = struct.Struct("<qqq")  # journal_seq, confirmed_in, cycle_ns
ENGINE, CASH = "engine-", "cash-"


class Picture(NamedTuple):
    """A replica's state after one message of the input."""

    in_seq: int
    applied_seq: int
    chain: bytes
    sections: dict[str, bytes]

    @classmethod
    def of(cls, core: Core) -> "Picture":
        """Copy the state as it is."""
        sequencer = core.sequencer
        sections = {
            "engine": core.engine.to_bytes(),
            "sequencer": sequencer.to_bytes(),
            "place": _PLACE.pack(core.journal_seq, core.confirmed_in, core.cycle_ns),
        }
        return cls(sequencer.in_seq, sequencer.seq, sequencer.chain, sections)

    def to_bytes(self) -> bytes:
        """As a snapshot file. Any thread."""
        with tempfile.TemporaryDirectory(prefix="wellhead-") as folder:
            return Snapshot.write(folder, self.applied_seq, self.chain, self.sections).read_bytes()


async def store(client: Client, config: ClusterConfig, picture: Picture) -> None:
    """Put a snapshot on the shelf, take off what is older than the last two, and cut the input before those.

    Nothing of the input goes that a replica which is behind has not read.
    """
    shard = config.shard
    bucket = await snapshot_bucket(client, shard)
    data = await asyncio.get_running_loop().run_in_executor(None, picture.to_bytes)
    await bucket.put(f"{ENGINE}{picture.in_seq:020d}", data)
    names = await _drop_older(bucket, ENGINE)
    if len(names) >= KEPT:
        now_s = time.time()
        behind = [mark.in_seq for mark in await marks_of(client, shard)
                  if mark.in_seq >= 0 and mark.is_binding(now_s, config.absent_s)]  # fmt: skip
        needed = min([int(names[0].removeprefix(ENGINE)), *behind])
        await client.jetstream(timeout=REQUEST_S).purge_stream(shard.input, seq=needed + 1)


async def _drop_older(bucket: ObjectStore, prefix: str) -> list[str]:
    """The names of the newest KEPT, which stay."""
    names = await _names(bucket, prefix)
    for name in names[:-KEPT]:
        with contextlib.suppress(NotFoundError):
            await bucket.delete(name)
    return names[-KEPT:]


async def entries_of_snapshots(client: Client, shard: Shard, known: dict[str, int]) -> list[int]:
    """Of each snapshot that is there and whole: the entry of the journal behind which its replica reads on.

    `known` remembers those that were looked at. Raises nats.errors.Error.
    """
    bucket = await snapshot_bucket(client, shard)
    found = {}
    for name in await _names(bucket, ENGINE):
        with contextlib.suppress(NotFoundError, SnapshotError, ValueError, KeyError):
            found[name] = known[name] if name in known else _entry_of((await bucket.get(name)).data or b"")
    known.clear()
    known.update(found)
    return list(found.values())


def _entry_of(data: bytes) -> int:
    return int(_PLACE.unpack(_sections(data)["place"])[0])


async def store_cash(client: Client, shard: Shard, journal_seq: int, data: bytes) -> None:
    """Put what was made of the journal up to an entry on the shelf. Of several that do so the one that is further counts."""
    bucket = await snapshot_bucket(client, shard)
    await bucket.put(f"{CASH}{journal_seq:020d}", data)
    await _drop_older(bucket, CASH)


async def newest_cash(client: Client, shard: Shard) -> bytes | None:
    """What `store_cash` put there last, if ever."""
    bucket = await snapshot_bucket(client, shard)
    names = await _names(bucket, CASH)
    return (await bucket.get(names[-1])).data if names else None


async def newest(client: Client, shard: Shard, limits: Limits) -> tuple[Core, list[str]]:
    """A core as the newest whole snapshot says, or an empty one; and a sentence for each that was passed over."""
    bucket = await snapshot_bucket(client, shard)
    warnings: list[str] = []
    for name in reversed(await _names(bucket, ENGINE)):
        try:
            data = (await bucket.get(name)).data or b""
            return _core(data, limits), warnings
        except (NatsError, SnapshotError, ValueError, KeyError) as error:
            warnings.append(f"snapshot {name} passed over: {error!r}")
    return Core(Engine(limits), Sequencer()), warnings


def _core(data: bytes, limits: Limits) -> Core:
    sections = _sections(data)
    engine = Engine.from_bytes(sections["engine"], limits)
    return Core(engine, Sequencer.from_bytes(sections["sequencer"]), *_PLACE.unpack(sections["place"]))


def _sections(data: bytes) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="wellhead-") as folder:
        # Under which name it must be is in it, behind the magic, the version and the number of sections.
        (applied_seq,) = struct.unpack_from("<q", data, 16)
        path = Path(folder) / f"{applied_seq:020d}.snapshot"
        path.write_bytes(data)
        return Snapshot.load(path).sections


async def _names(bucket: ObjectStore, prefix: str) -> list[str]:
    """Of the objects of a kind, oldest first."""
    try:
        found = await bucket.list()
    except NotFoundError:
        return []
    return sorted(info.name for info in found if info.name and info.name.startswith(prefix) and not info.deleted)
