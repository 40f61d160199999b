"""The one file with a server socket: websockets under asyncio (uvloop where the program runs it), and plain HTTP pages."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from functools import partial

from websockets.asyncio.server import Server as WebsocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.connection import Connection
from gateway.doors import Doors
from gateway.gateway import Gateway, SessionTaker
from gateway.guarded import guarded, ip_of
from gateway.messages import Close, Format
from gateway.pages import Pages
from gateway.tls import Tls

log = logging.getLogger(__name__)

POLL_S = 0.05
TLS_POLLS = 200  # polls from one look at the certificate to the next
CLOSE_TIMEOUT_S = 2
BACKLOG = 4_096
"""Connections that the kernel keeps for us until we look: when all come back at once, those beyond wait a second and more."""


class WebsocketTransport:
    """A session's way to its websocket. Writes are handed to the event loop's transport at once, and never wait."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._closing: asyncio.Task[None] | None = None

    def send_frames(self, frames: bytes) -> None:
        """Write messages, which are framed."""
        self._connection.send_frames(frames)

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._connection.close(code, reason))

    def buffered(self) -> int:
        """Bytes that the socket has not taken."""
        return int(self._connection.transport.get_write_buffer_size())


class Server:
    """The gateway's socket. `start`, then `stop`; `port` is the one it got when 0 was asked for."""

    def __init__(self, gateway: Gateway, host: str = "127.0.0.1", port: int = 0, tls: Tls | None = None) -> None:
        self.doors = Doors(gateway.config)
        self.pages = Pages(gateway, self.doors)
        self._gateway = gateway
        self._tls = tls
        self._host = host
        self.port = port
        self._server: WebsocketServer | None = None
        self._poller: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"{'wss' if self._tls else 'ws'}://{self._host}:{self.port}"

    @property
    def page_url(self) -> str:
        """Where people look at the market."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}/"

    async def start(self) -> None:
        """Open the port. The log must have been replayed. Raises OSError when the port is taken."""
        config = self._gateway.config
        self._gateway.open()
        self._gateway.publisher.later = asyncio.get_running_loop().call_later
        self._server = await serve(
            self._serve,
            self._host,
            self.port,
            backlog=BACKLOG,
            create_connection=guarded(self.doors),
            ssl=self._tls.context if self._tls else None,
            open_timeout=config.handshake_timeout_ms / 1000,
            compression=None,
            max_size=config.max_message_bytes,
            write_limit=(config.conflate_bytes, config.conflate_bytes // 2),
            ping_interval=None,  # ours, because a lost heartbeat has a close code of its own
            close_timeout=CLOSE_TIMEOUT_S,
            process_request=self._process_request,
            subprotocols=[Subprotocol(wire) for wire in Format],
            select_subprotocol=_select_subprotocol,
            server_header=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        self._poller = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """Tell the clients, answer what is under way with OUTCOME_UNKNOWN, close everything."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
        self._gateway.publisher.later = None
        self._gateway.shutdown()
        self._gateway.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _poll(self) -> None:
        polls = 0
        while True:
            await asyncio.sleep(POLL_S)
            polls += 1
            try:
                self._gateway.poll()
                for touch in self._gateway.tables.ahead():
                    asyncio.get_running_loop().run_in_executor(None, touch)
                if self._tls and polls % TLS_POLLS == 0 and self._tls.renew():
                    log.info("the certificate was renewed")
            except Exception:
                log.exception("poll failed")

    async def _serve(self, connection: ServerConnection) -> None:
        """One connection, from the handshake to its end."""
        assert isinstance(connection, Connection)
        wire = Format(connection.subprotocol or Format.JSON)
        own_socket = connection.transport.get_extra_info("socket")
        if own_socket is not None:
            buffer_bytes = self._gateway.config.send_buffer_bytes
            own_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
            own_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = self._gateway.connect(WebsocketTransport(connection), wire, ip_of(connection.transport))
        connection.on_writable = session.writable  # type: ignore[attr-defined]
        pinger = asyncio.create_task(self._ping(connection))
        try:
            connection.attach(partial(self._gateway.receive_many, session), SessionTaker(self._gateway, session))
            await connection.wait_closed()
        finally:
            pinger.cancel()
            self._gateway.disconnect(session)

    async def _ping(self, connection: ServerConnection) -> None:
        config = self._gateway.config
        while True:
            await asyncio.sleep(config.ping_interval_ms / 1000)
            try:
                pong = await connection.ping()
                await asyncio.wait_for(pong, config.ping_timeout_ms / 1000)
            except TimeoutError:
                await connection.close(Close.HEARTBEAT_LOST, "heartbeat lost")
                return
            except ConnectionClosed:
                return

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        return self.pages.respond(request, ip_of(connection.transport))


def _select_subprotocol(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The first that we know; none at all is JSON."""
    known = [Subprotocol(wire) for wire in Format]
    return next((name for name in offered if name in known), None)
