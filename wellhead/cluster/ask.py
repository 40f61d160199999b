"""Questions to a running cluster: where its replicas stand, and what its journal holds."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from nats.errors import Error as NatsError
from numpy.typing import NDArray

from engine.jetstream import Publisher, Reader, end, head_of
from engine.log import FileLog
from engine.sequencing import Entry, Journal, Part
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.sender import Sender

WAIT_S = 1.0
EXECUTE_S = 30.0


async def ask_replicas(config: ClusterConfig, what: bytes = b"", wait_s: float = WAIT_S) -> list[dict[str, Any]]:
    """What each replica says of itself, by name. With `hash` it says the hash of its state, too, which takes it a while."""
    client = await config.nats.servers.connect("wellhead-ask")
    try:
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        await client.publish(f"wh.{config.name}.status", what, reply=inbox)
        found: dict[str, dict[str, Any]] = {}
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    message = await subscription.next_msg(wait_s)
                    if message.data:
                        answer = json.loads(message.data)
                        found[answer["name"]] = answer
        except (NatsError, TimeoutError):
            return [found[name] for name in sorted(found)]
    finally:
        await client.close()


def differences(found: list[dict[str, Any]]) -> list[str]:
    """A sentence for each two replicas that stand at the same command and differ."""
    first: dict[int, dict[str, Any]] = {}
    wrong = []
    for one in found:
        other = first.setdefault(one["seq"], one)
        if any(one[field] != other[field] for field in ("chain", "state")):
            wrong.append(f"{other['name']} and {one['name']} differ at command {one['seq']}")
    return wrong


async def read_journal(config: ClusterConfig) -> AsyncIterator[Entry]:
    """The journal's entries from the first to the last that is there now. Raises JournalError, LogError."""
    client = await config.nats.servers.connect("wellhead-read")
    try:
        head = await head_of(client, config.shard.journal)
        reader, journal, at = Reader(client, config.shard.journal), Journal(), 0
        await reader.start()
        try:
            while at < head:
                for message in await reader.read():
                    at = message.seq
                    if (entry := journal.take(message.data)) is not None:
                        yield entry
        finally:
            await reader.stop()
    finally:
        await client.close()


async def execute(config: ClusterConfig, commands: NDArray[np.void], wait_s: float = EXECUTE_S) -> Part:
    """Send one frame of commands, and return what came of it. Raises TimeoutError: then it may still be executed."""
    client = await config.nats.servers.connect("wellhead-execute")
    name = f"execute.{secrets.token_hex(5)}"
    publisher = Publisher(client)
    reader = Reader(client, config.shard.journal, await head_of(client, config.shard.journal))
    sender = Sender(publisher, config.shard.input_subject, name)
    await publisher.start()
    await reader.start()
    sending = asyncio.create_task(sender.run())
    try:
        async with asyncio.timeout(wait_s):
            sender.submit(commands)
            while True:
                for message in await reader.read():
                    for part in Entry.unpack(message.data).parts:
                        if part.sender == name:
                            return part
    finally:
        await end([sending])
        await reader.stop()
        await client.close()


async def export_log(config: ClusterConfig, data_dir: Path) -> int:
    """Write the journal's commands into the log of a new data directory; the number of the last one."""
    with FileLog(data_dir / "log") as log:
        async for entry in read_journal(config):
            for part in entry.parts:
                log.append(part.commands)
        return log.sync()
