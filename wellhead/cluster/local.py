"""A cluster on one machine: NATS servers, replicas, gateways, books, each a process, and whoever dies is started again."""

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellhead.cluster.config import ClusterConfig, NatsConfig, write_config
from wellhead.cluster.servers import LocalServers, free_port

LOOK_S = 0.5
READY_S = 300.0  # at the first time, code is compiled


@dataclass
class Process:
    """A part of the cluster: how it is started, and where its output goes."""

    name: str
    arguments: list[str]
    output: Path
    running: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        """Start it, for the first time or again."""
        self.starts += 1
        with self.output.open("ab") as out:
            out.write(f"start {self.starts}\n".encode())
            out.flush()
            self.running = subprocess.Popen(  # noqa: S603 - our own arguments
                [sys.executable, "-m", "wellhead.cli", "cluster", *self.arguments],
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    @property
    def is_alive(self) -> bool:
        return self.running is not None and self.running.poll() is None

    def is_ready(self) -> bool:
        """Whether it said so since its last start."""
        said = self.output.read_text(errors="replace").rpartition(f"start {self.starts}\n")[2]
        return re.search(r"^(replica|gateway|books of) \S+ (joined|listens|go on)", said, re.MULTILINE) is not None

    async def ready(self) -> None:
        """Wait until it said so. Raises TimeoutError, RuntimeError when it has ended."""
        async with asyncio.timeout(READY_S):
            while not self.is_ready():
                if not self.is_alive:
                    raise RuntimeError(f"{self.name} ended:\n{self.output.read_text(errors='replace')[-2_000:]}")
                await asyncio.sleep(0.05)

    def signal(self, what: signal.Signals) -> None:
        """Send it a signal, and wait for its end if it is SIGKILL."""
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(what)
            if what == signal.SIGKILL:
                self.running.wait()

    def stop(self) -> None:
        """End it."""
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(signal.SIGCONT)
            self.running.terminate()
            try:
                self.running.wait(10)
            except subprocess.TimeoutExpired:
                self.running.kill()
                self.running.wait()


class LocalCluster:
    """Everything under one folder: `natsN/` of each server, one of each gateway and the books, `cluster.toml`, `keys.json`."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        directory: Path,
        nodes: int = 3,
        replicas: int = 2,
        gateways: int = 2,
        port: int = 0,
        options: dict[str, Any] | None = None,
        nats: LocalServers | None = None,
        *,
        keeps_books: bool = False,
    ) -> None:
        """`options` are fields of ClusterConfig. The first gateway listens on `port`, the next on the one above."""
        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.nats = nats or LocalServers(directory, nodes)
        where = {name: getattr(self.nats.servers, name) for name in NatsConfig.__struct_fields__}
        self.config = ClusterConfig(nats=NatsConfig(**where), keys=directory / "keys.json", **(options or {}))
        self.config_path = directory / "cluster.toml"
        self.replicas = [self._process("replica", f"r{number}") for number in range(1, replicas + 1)]
        self.ports = [port + number if port else free_port() for number in range(gateways)]
        past = ("--archive", str(directory / "books")) if keeps_books else ()
        self.gateways = [
            self._process("gateway", f"g{number}", "--data", str(directory / f"g{number}"), "--port", str(at), *past)
            for number, at in enumerate(self.ports, 1)
        ]

        self.books = [self._books()] if keeps_books else []

    def _books(self) -> Process:
        arguments = ["books", "--config", str(self.config_of("books")), "--data", str(self.directory / "books")]
        return Process("books", arguments, self.directory / "books.out")

    def config_of(self, _name: str) -> Path:
        """The configuration that a process reads."""
        return self.config_path

    def _process(self, kind: str, name: str, *more: str) -> Process:
        arguments = [kind, "--config", str(self.config_of(name)), "--name", name, *more]
        return Process(name, arguments, self.directory / f"{name}.out")

    @property
    def processes(self) -> list[Process]:
        return [*self.replicas, *self.gateways, *self.books]

    @property
    def urls(self) -> list[str]:
        """Of the gateways."""
        return [f"ws://{self.config.host}:{port}" for port in self.ports]

    async def up(self) -> None:
        """Start everything, and wait until all are ready. Raises TimeoutError, RuntimeError."""
        write_config(self.config_path, self.config)
        await self.nats.up()
        for process in self.processes:
            process.start()
        for process in self.processes:
            await process.ready()

    async def keep(self, tell: Callable[[str], None]) -> None:
        """Start again who died, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            for process in self.processes:
                if not process.is_alive:
                    tell(f"{process.name} is gone; it is started again")
                    process.start()
            for number, server in enumerate(self.nats.processes):
                if server is not None and server.poll() is not None:
                    tell(f"NATS server n{number} is gone; it is started again")
                    self.nats.start(number)

    def lines(self) -> list[str]:
        """What there is, for people."""
        lines = [f"gateway {one.name}  {url}" for one, url in zip(self.gateways, self.urls, strict=True)]
        lines += [f"replica {one.name}  process {one.running.pid}" for one in self.replicas if one.running]
        servers = enumerate(zip(self.nats.processes, self.nats.ports, strict=True))
        lines += [f"books       process {one.running.pid}" for one in self.books if one.running]
        lines += [f"NATS    n{number}  process {one.pid}, port {port}" for number, (one, port) in servers if one]
        return [*lines, f"keys: wellhead keys create NAME --data {self.directory}",
                f"state: wellhead cluster status --config {self.config_path}"]  # fmt: skip

    def stop(self) -> None:
        """End everything; what is durable stays."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.stop()
        self.nats.stop()
