"""A websocket client that does as little as it can, and what is known from outside of the process it talks to."""

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.gateway_replies import count_frames, find_replies
from gateway.auth import sign

FORMATS = {"json": msgspec.json, "msgpack": msgspec.msgpack}
LIMIT_S = 60
MOST_REPLIES = 4_096
"""That are found in a read at once."""
PING, PONG = 0x89, 0x8A
HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


class Reply(msgspec.Struct):
    """What is looked at of an answer; an echo comes back without `ok`."""

    id: int | None = None
    ok: bool = True
    ch: str | None = None


class Peer(asyncio.Protocol):
    """A connection. Its mask is zero, which a server unmasks like any other."""

    def __init__(self, wire: str) -> None:
        self.wire = wire
        self.decode = FORMATS[wire].Decoder(Reply).decode
        self.on_reply: Callable[[int], None] = lambda request: None
        self.on_push: Callable[[bytes], None] | None = None
        self.on_answer: Callable[[Any], None] | None = None
        self.rest, self.received, self.refused = b"", 0, 0
        self.on_replies: Callable[[NDArray[np.int64]], None] | None = None  # instead of all the others: many at once
        self._ids = np.zeros(MOST_REPLIES, np.int64)
        self.count_only, self._skip, self.last_ns = False, 0, 0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pushed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        for one in (self.opened, self.pushed):
            if not one.done():
                one.set_exception(ConnectionError("the server closed the connection"))
                one.exception()  # whoever waits sees it; nobody has to

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        if not self.opened.done():
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self.rest = head
                return
            self.opened.set_result(None)
        if self.count_only:
            frames, self._skip, at = count_frames(np.frombuffer(data, np.uint8), self._skip)
            self.received, self.rest = self.received + frames, data[at:]
            return
        if self.on_replies is not None:
            self.rest = data[self._take_replies(np.frombuffer(data, np.uint8), self.on_replies) :]
            return
        at, end = 0, len(data)
        while end - at >= 2:
            length, start = data[at + 1] & 0x7F, at + 2
            if length == 126:
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            start += 4 if data[at + 1] & 0x80 else 0
            if start + length > end:
                break
            first, at = data[at], start + length
            if first == PING:
                self.transport.write(bytes((PONG, 0x80 | length, 0, 0, 0, 0)) + data[start:at])
            else:
                self.message(data[start:at])
        self.rest = data[at:]

    def _take_replies(self, data: NDArray[np.uint8], on_replies: Callable[[NDArray[np.int64]], None]) -> int:
        """Hand over the replies in a read; where the first frame begins that is not complete."""
        at, found = 0, MOST_REPLIES
        while found == MOST_REPLIES:
            found, refused, at = find_replies(data, at, self._ids)
            self.refused += refused
            if found:
                on_replies(self._ids[:found])
        return at

    def message(self, payload: bytes) -> None:
        self.received += 1
        reply = self.decode(payload)
        if reply.ch is None and reply.id is not None:
            self.refused += not reply.ok
            if self.on_answer is not None:
                self.on_answer(FORMATS[self.wire].decode(payload))
            self.on_reply(reply.id)
        elif not self.pushed.done():
            self.pushed.set_result(payload)
        elif self.on_push is not None:
            self.on_push(payload)


def frame(payload: bytes, wire: str) -> bytes:
    head, length = b"\x81" if wire == "json" else b"\x82", len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return head + (size if length < 65_536 else b"\xff" + length.to_bytes(8, "big")) + b"\0\0\0\0" + payload


class Target:
    """A server in its process, and connections to it."""

    def __init__(self, kind: str, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.kind, self.process, self.peers = kind, process, list[Peer]()
        self.told = json.loads(process.stdout.readline())
        self.symbols = self.told["symbols"]
        self.is_node = bool(self.told["keys"])

    async def connect(self, wire: str, key: str | None = None) -> Peer:
        """A connection, logged on when a key is named and the server is a node."""
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(lambda: Peer(wire), "127.0.0.1", self.told["port"])
        self.peers.append(peer)
        if self.kind == "raw tcp echo":
            peer.opened.set_result(None)
            return peer
        protocol = f"Sec-WebSocket-Protocol: wellhead.v1.{wire}\r\n" if self.is_node else ""
        peer.transport.write(f"{HANDSHAKE}{protocol}\r\n".encode())
        await asyncio.wait_for(peer.opened, LIMIT_S)
        if self.is_node and key is not None:
            await self.log_on(peer, key)
        return peer

    async def log_on(self, peer: Peer, key: str, **options: Any) -> None:
        """Log on with a key of the server's."""
        hello = FORMATS[peer.wire].decode(await asyncio.wait_for(peer.pushed, LIMIT_S))
        sig = sign(self.told["keys"][key], hello["challenge"], key, hello["ts"])
        await ask(peer, {"op": "session.logon", "id": 1, "key": key, "ts": hello["ts"], "sig": sig, **options})

    def drop(self) -> None:
        for peer in self.peers:
            peer.transport.abort()
        self.peers.clear()

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """Processor time that the process has used, all its threads, in the kernel too."""
        return cpu_s_of(self.process.pid)

    def books_cpu_s(self) -> float:
        """The same of the processes that it started: a node's books."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sum(cpu_s_of(int(child)) for child in children)


def cpu_s_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(peer: Peer, request: dict[str, Any]) -> None:
    """Send a request and wait for its reply, which must be a good one."""
    done = asyncio.get_running_loop().create_future()
    refused = peer.refused

    def take(_request: int) -> None:
        if not done.done():
            done.set_result(None)

    peer.on_reply = take
    peer.transport.write(frame(FORMATS[peer.wire].encode(request), peer.wire))
    await asyncio.wait_for(done, LIMIT_S)
    if peer.refused != refused:
        raise ConnectionError(f"refused: {request['op']}")
