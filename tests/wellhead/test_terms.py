"""Orders that time ends, from a client over a node to the engine and back."""

import asyncio
from pathlib import Path

from engine.catalogue import NS
from gateway.auth import KeyStore
from wellhead import Client, OrderEvent, TimerEvent
from wellhead.config import Config
from wellhead.node import Node

START_NS = 1_795_000_000 * NS


async def test_what_falls_due_is_cancelled_by_the_node_itself(tmp_path: Path) -> None:
    """Also by one that was started again in between, and whatever became of the client."""
    clock = [START_NS]
    config = Config(tmp_path, port=0, markets=("L4-EUC",), list_hours=1, paper_micros=10**10, poll_ms=5)
    KeyStore(config.keys_path).create("trader", "trader", private_path=tmp_path / "trader.key")
    node = Node(config, clock=lambda: clock[0])
    await node.start()
    try:
        async with Client.from_key_file(node.server.url, tmp_path / "trader.key", cod=False) as client:
            (hour,) = await client.instruments()
            expire = START_NS // 1_000 + 5_000_000
            await client.place(hour.sym, "buy", 1, "0.4", tif="gtd", expire=expire, cid="dated")
            await client.place(hour.sym, "buy", 1, "0.39", tag=3, cid="tagged")
            await client.place(hour.sym, "buy", 1, "0.38", cid="other")
            assert await client.cancel_after(9_000, tag=3) == START_NS // 1_000 + 9_000_000
    finally:
        await node.stop()
    node = Node(config, clock=lambda: clock[0])
    await node.start()
    try:
        client = Client.from_key_file(node.server.url, tmp_path / "trader.key", cod=False)
        events = client.events()
        async with client, asyncio.timeout(60):
            clock[0] += 6 * NS
            while not isinstance(event := await anext(events), OrderEvent):
                pass
            assert (event.cid, event.why) == ("dated", "expired")
            clock[0] += 4 * NS
            while not isinstance(event := await anext(events), TimerEvent):
                pass
            assert (event.what, event.tag) == ("fired", 3)
            while not isinstance(event := await anext(events), OrderEvent):
                pass
            assert (event.cid, event.why) == ("tagged", "dead_man")
            assert [order.cid for order in await client.orders()] == ["other"]
            assert (await client.protections()).timers == []
    finally:
        await node.stop()
