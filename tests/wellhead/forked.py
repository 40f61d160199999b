"""The real server without the start of Python: forked from a process that has loaded everything, code and kernels.

Each is a process of its own all the same, with its own number, files, sockets, threads and end; nothing but the reading
of modules is shared. The process that forks (`multiprocessing`'s fork server) has one thread, no loop and no open file.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.wellhead.process import ServerProcess
from tests.wellhead.set_clock import follow

context = multiprocessing.get_context("forkserver")


def prepare() -> None:
    """Have servers forked from a process that has everything loaded; before the first of them."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads would begin with the import
    os.environ["COLUMNS"] = "200"
    context.set_forkserver_preload(["tests.wellhead.loaded"])


class ForkedServer(ServerProcess):
    """As its base, forked; under a clock file if one is given."""

    def __init__(self, data_dir: Path, *options: str, clock: Path | None = None) -> None:
        super().__init__(data_dir, *options, quiet=True)
        self._clock = clock

    async def launch(self) -> None:
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=_serve, args=(send, self._clock, self.arguments))
        child.start()
        send.close()
        self.process = Child(child, await _reader(receive))  # type: ignore[assignment]


class Child:
    """What a test uses of asyncio's Process, of a process that was forked elsewhere."""

    def __init__(self, child: ForkServerProcess, stdout: asyncio.StreamReader) -> None:
        assert child.pid is not None
        self._child, self.pid, self.stdout = child, child.pid, stdout
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(child.sentinel, self._on_end)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._child.sentinel)
        self._child.join()
        self._ended.set()

    @property
    def returncode(self) -> int | None:
        return self._child.exitcode if self._ended.is_set() else None

    def send_signal(self, number: int) -> None:
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):  # it has ended, and we are about to hear of it
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        await self._ended.wait()
        code = self._child.exitcode
        assert code is not None
        return code


async def _reader(receive: Connection) -> asyncio.StreamReader:
    """The other end of what a child says."""
    reader = asyncio.StreamReader()
    file = os.fdopen(os.dup(receive.fileno()), "rb")
    receive.close()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    return reader


def _serve(send: Connection, clock: Path | None, arguments: list[str]) -> None:
    """In the child: its output goes to the pipe, and it is the server."""
    for descriptor in (1, 2):
        os.dup2(send.fileno(), descriptor)
    send.close()
    if clock is not None:
        follow(clock)
    from wellhead.cli import main

    main(arguments)
