"""The socket: a real websocket on loopback, the real engine behind it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from gateway.config import GatewayConfig
from gateway.messages import Format
from gateway.server import Server
from tests.gateway.node import SYMBOL, Node


@asynccontextmanager
async def serving(path: Path, **limits: Any) -> AsyncIterator[tuple[Node, Server]]:
    """A node that runs by itself, with one book, behind a free port."""
    node = Node(path, GatewayConfig(**limits), auto=True)
    node.wall = time.time_ns  # type: ignore[method-assign]
    node.gateway = node.make_gateway()
    node.list()
    server = Server(node.gateway)
    await server.start()
    try:
        yield node, server
    finally:
        await server.stop()


async def ask(socket: ClientConnection, **fields: Any) -> Any:
    await socket.send(json.dumps({"id": 1, **fields}))
    while "id" not in (reply := json.loads(await socket.recv())):
        pass
    return reply


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """Read until the server closes; the code and the reason."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            await asyncio.wait_for(socket.recv(), 20)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [([], None), ([Format.MSGPACK], Format.MSGPACK), (["other", Format.JSON], Format.JSON), (["other"], None)],
)
async def test_the_format_is_the_subprotocol(tmp_path: Path, offered: list[str], chosen: str | None) -> None:
    async with (
        serving(tmp_path) as (_, server),
        connect(server.url, subprotocols=[Subprotocol(name) for name in offered] or None) as socket,
    ):
        assert socket.subprotocol == chosen
        hello = await socket.recv()
        assert isinstance(hello, bytes) == (chosen == Format.MSGPACK)
        assert "permessage" not in str(socket.response and socket.response.headers)


async def test_health_and_other_paths(tmp_path: Path) -> None:
    def get(url: str) -> Any:
        with urlopen(url, timeout=10) as response:
            return response.headers["Content-Type"], json.load(response)

    async with serving(tmp_path) as (_, server), connect(server.url + "/v1"):
        content_type, health = await asyncio.to_thread(get, server.url.replace("ws", "http") + "/health")
        assert content_type == "application/json"
        assert (health["status"], health["sessions"], health["instruments"]) == ("ok", 1, 1)
        with pytest.raises(InvalidStatus, match="404"):
            await connect(server.url + "/nothing")


async def test_too_many_sessions(tmp_path: Path) -> None:
    async with serving(tmp_path, max_sessions=1) as (_, server), connect(server.url):
        with pytest.raises(InvalidStatus, match="503"):
            await connect(server.url)


async def test_too_large_a_message(tmp_path: Path) -> None:
    async with serving(tmp_path, max_message_bytes=1_000) as (_, server), connect(server.url) as socket:
        await socket.recv()
        assert (await ask(socket, op="instruments"))["ok"]
        await socket.send("x" * 1_001)
        assert (await closed(socket))[0] == 1009


async def test_garbage_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, server), connect(server.url) as socket:
        await socket.recv()
        for data in (b"\x00\xff", "{", "null", b'{"op":"nothing","id":4}'):
            await socket.send(data)
            assert json.loads(await socket.recv())["err"]["code"] in (1001, 1002)


async def test_a_planned_stop_is_announced(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, server):
        socket = await connect(server.url)
        await socket.recv()
        stopping = asyncio.create_task(server.stop())
        assert json.loads(await socket.recv())["ch"] == "shutdown"
        assert await closed(socket) == (1001, "shutdown")
        await stopping


async def test_a_silent_connection_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, logon_timeout_ms=0, heartbeat_ms=50) as (_, server), connect(server.url) as socket:
        assert (await closed(socket))[0] == 4001


async def test_a_peer_that_answers_no_ping_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, ping_interval_ms=50, ping_timeout_ms=50) as (_, server):
        socket = await connect(server.url, ping_interval=None)
        await socket.recv()
        socket.protocol.process_event = lambda event: None  # type: ignore[attr-defined]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        data = b""
        while b"heartbeat lost" not in data:
            part = await asyncio.wait_for(reader.read(4096), 20)
            assert part, data
            data += part
        writer.close()
        await socket.close()


async def test_a_reader_that_never_reads_is_dropped_and_nobody_waits_for_it(tmp_path: Path) -> None:
    limits = {"slow_soft_bytes": 20_000, "slow_hard_bytes": 40_000, "send_buffer_bytes": 4_096, "rate_burst": 10**6}
    async with (
        serving(tmp_path, **limits) as (node, server),
        connect(server.url, max_queue=1) as stalled,
        connect(server.url) as other,
    ):
        await ask(stalled, op="subscribe", channels=[{"name": "l1", "symbols": [SYMBOL]}])
        stalled.transport.pause_reading()
        session = next(session for session in node.gateway.sessions if session.topics)
        for _ in range(100_000):
            session.push(b'{"ch":"l1","filler":"' + b"x" * 4_000 + b'"}')
            node.gateway._flush()
            if session.closed:
                break
            await asyncio.sleep(0)
        assert session.closed
        await other.recv()
        assert (await ask(other, op="instruments"))["ok"]
        while session in node.gateway.sessions:
            await asyncio.sleep(0.05)  # until the close has timed out
        stalled.transport.abort()
