"""Channels that need the whole node: the index of an hour comes from the books."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from engine.catalogue import Catalogue
from wellhead.config import Config
from wellhead.node import Node

NS = 1_000_000_000
START_NS = 1_795_000_000 * NS


class SetClock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns


@asynccontextmanager
async def running(path: Path, clock: SetClock, **options: Any) -> AsyncIterator[Node]:
    options = {"port": 0, "durable": False, "markets": ("H100S-USE",), "list_hours": 1, "poll_ms": 5, **options}
    node = Node(Config(path, **options), Catalogue.load(), clock)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


async def subscribe(socket: ClientConnection, **channel: Any) -> Any:
    """The first snapshot."""
    await socket.send(json.dumps({"op": "subscribe", "id": 1, "channels": [channel]}))
    return await next_of(socket, channel["name"])


async def next_of(socket: ClientConnection, channel: str) -> Any:
    async with asyncio.timeout(30):
        while (message := json.loads(await socket.recv())).get("ch") != channel:
            assert message.get("ok", True), message
    return message


async def test_the_index_of_an_hour_is_published_at_its_gate(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as node, connect(node.server.url) as socket:
        (first,) = node.gateway.projection.instruments.values()
        snapshot = await subscribe(socket, name="index", symbols=[first.symbol])
        assert (snapshot["ev"], "px" in snapshot) == ("snapshot", False)
        clock.now_ns = first.gate_ns
        update = await next_of(socket, "index")
        assert (update["ev"], update["prev"], update["source"]) == ("update", snapshot["seq"], "reference")
        assert float(update["px"]) * 1000 == first.reference_price
    async with running(tmp_path, clock) as node, connect(node.server.url) as socket:
        again = await subscribe(socket, name="index", symbols=[first.symbol])
        assert again == {**update, "ev": "snapshot", "prev": 0}
