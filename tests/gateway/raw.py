"""A websocket client that does what no library would."""

import asyncio
import struct
from typing import Self

HANDSHAKE = (
    b"GET /v1 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)
LIMIT_S = 30


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True, rsv: int = 0, length: int | None = None) -> bytes:
    """A masked frame (the mask is zero). `length` may claim another one than the payload's."""
    size = len(payload) if length is None else length
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    return head + bytes(4) + payload


class RawClient:
    """Bytes out, frames in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int, *headers: bytes, shake: bool = True) -> Self:
        """Open a connection; with `shake` do the handshake and read the `hello`."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        if shake:
            client.writer.write(HANDSHAKE + b"".join(header + b"\r\n" for header in headers) + b"\r\n")
            head = await client.read_until(b"\r\n\r\n")
            assert b" 101 " in head, head
            await client.message()
        return client

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.readuntil(end)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: its opcode and its payload."""
        async with asyncio.timeout(LIMIT_S):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def message(self) -> bytes:
        """The next text."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 1:
                return payload
            assert opcode in (9, 10), (opcode, payload)

    async def close_code(self) -> int:
        """Read until the server closes; its code, 0 when it just drops the connection."""
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == 8:
                    return int(struct.unpack("!H", payload[:2])[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0

    async def gone(self) -> bytes:
        """Read until the connection ends; what came."""
        async with asyncio.timeout(LIMIT_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""
