"""Snapshots of a shard in its bucket, from which a replica joins without reading all there ever was."""

import asyncio
import contextlib
import struct
import tempfile
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
from wellhead.cluster.core import Core

KEPT = 2
_PLACE = struct.Struct("<qqq")  # journal_seq, confirmed_in, cycle_ns
_PREFIX = "engine-"


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


async def store(client: Client, shard: Shard, picture: Picture) -> None:
    """Put a snapshot on the shelf, take off what is older than the last two, and cut the input before those."""
    bucket = await snapshot_bucket(client, shard)
    data = await asyncio.get_running_loop().run_in_executor(None, picture.to_bytes)
    await bucket.put(f"{_PREFIX}{picture.in_seq:020d}", data)
    names = await _names(bucket)
    for name in names[:-KEPT]:
        with contextlib.suppress(NotFoundError):
            await bucket.delete(name)
    if len(names) >= KEPT:
        oldest_in = int(names[-KEPT].removeprefix(_PREFIX))
        await client.jetstream(timeout=REQUEST_S).purge_stream(shard.input, seq=oldest_in + 1)


async def newest(client: Client, shard: Shard, limits: Limits) -> tuple[Core, list[str]]:
    """A core as the newest whole snapshot says, or an empty one; and a sentence for each that was passed over."""
    bucket = await snapshot_bucket(client, shard)
    warnings: list[str] = []
    for name in reversed(await _names(bucket)):
        try:
            data = (await bucket.get(name)).data or b""
            return _core(data, limits), warnings
        except (NatsError, SnapshotError, ValueError, KeyError) as error:
            warnings.append(f"snapshot {name} passed over: {error!r}")
    return Core(Engine(limits), Sequencer()), warnings


def _core(data: bytes, limits: Limits) -> Core:
    with tempfile.TemporaryDirectory(prefix="wellhead-") as folder:
        # Under which name it must be is in it, behind the magic, the version and the number of sections.
        (applied_seq,) = struct.unpack_from("<q", data, 16)
        path = Path(folder) / f"{applied_seq:020d}.snapshot"
        path.write_bytes(data)
        sections = Snapshot.load(path).sections
    engine = Engine.from_bytes(sections["engine"], limits)
    return Core(engine, Sequencer.from_bytes(sections["sequencer"]), *_PLACE.unpack(sections["place"]))


async def _names(bucket: ObjectStore) -> list[str]:
    """Of the snapshots, oldest first."""
    try:
        found = await bucket.list()
    except NotFoundError:
        return []
    return sorted(info.name for info in found if info.name and info.name.startswith(_PREFIX) and not info.deleted)
