"""Connections that are counted while they are open; those that are too many are dropped before they can ask anything."""

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.connection import Connection
from gateway.doors import Doors


def guarded(doors: Doors) -> type[Connection]:
    """The connection class of a server with these doors."""

    class GuardedConnection(Connection):
        on_writable: Callable[[], None] | None = None

        def resume_writing(self) -> None:
            """The buffer has drained to the lower of the limits given as `write_limit`."""
            super().resume_writing()
            if self.on_writable is not None:
                self.on_writable()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """A TCP (or TLS) connection is there."""
            self._ip = ip_of(transport)
            self._entered = doors.enter(self._ip)
            if self._entered:
                super().connection_made(transport)
            else:
                cast(asyncio.Transport, transport).abort()

        def data_received(self, data: bytes) -> None:
            """Bytes from the socket."""
            if self._entered:
                super().data_received(data)

        def eof_received(self) -> None:
            """The other side sends no more."""
            if self._entered:
                super().eof_received()

        def connection_lost(self, exc: Exception | None) -> None:
            """It is gone, for whatever reason."""
            doors.leave(self._ip)
            if self._entered:
                super().connection_lost(exc)

    return GuardedConnection


def ip_of(transport: asyncio.BaseTransport) -> str:
    """The address of the other side."""
    return str((transport.get_extra_info("peername") or ("",))[0])
