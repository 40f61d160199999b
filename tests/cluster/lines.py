"""Lines between processes that can be cut: a TCP proxy each, in this process.

A line that is cut passes nothing on and tells nobody, as when a cable is pulled; what was under way waits, and goes on
when it is mended.
"""

import asyncio


class Line:
    """From a port of its own to `target`, a port of this machine."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.is_whole = True
        self.ends: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Near(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        self.is_whole = False
        for end in self.ends:
            end.pause_reading()

    def mend(self) -> None:
        self.is_whole = True
        for end in self.ends:
            end.resume_reading()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for end in list(self.ends):
            end.abort()


class End(asyncio.Protocol):
    """One end of a connection through a line: what comes in here goes out at the other."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.other: End | None = None
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.line.ends.add(transport)
        if not self.line.is_whole:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        else:
            self.early.append(data)

    def connection_lost(self, _error: Exception | None) -> None:
        assert self.transport is not None
        self.line.ends.discard(self.transport)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Near(End):
    """The end that was connected to; it connects the other one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        assert self.transport is not None
        far = End(self.line)
        far.other = self
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", self.line.target)
        except OSError:
            self.transport.abort()
            return
        self.other = far
        assert far.transport is not None
        for data in self.early:
            far.transport.write(data)
