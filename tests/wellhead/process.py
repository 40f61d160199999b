"""The real server as a process of its own, for tests that kill it."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import Self

from tests.wellhead.set_clock import CLOCK_FILE

ROOT = Path(__file__).parent.parent.parent
_LISTENS = re.compile(rb"ws://[\d.]+:(\d+)")


class ServerProcess:
    """
    `wellhead serve` on a free port, of the sources in `home`. Use as an async context manager; it is killed on the way
    out if it still runs. With `quiet` what it says on stderr goes where its output goes. `clock` is the file that sets its
    clock (set_clock.py); without one it has the machine's, and a gate may come at any time.
    """

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        home: Path = ROOT,
        quiet: bool = False,
        clock: Path | None = None,
        **environment: str,
    ) -> None:
        self._home, self._environment = home, environment
        self._module = "wellhead.cli"
        if clock is not None:
            self._module, self._environment = "tests.wellhead.set_clock", {CLOCK_FILE: str(clock), **environment}
        self._errors = asyncio.subprocess.STDOUT if quiet else None
        self.arguments = ["serve", "--data", str(data_dir), "--port", "0", *options]
        self.url = self.said = ""

    async def __aenter__(self) -> Self:
        await self.launch()
        await self.listens()
        return self

    async def launch(self) -> None:
        """Start the process, without waiting for what becomes of it."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", self._module, *self.arguments),
            cwd=self._home,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "COLUMNS": "200", **self._environment},
        )

    async def listens(self) -> None:
        """Wait for the open port."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said += line.decode()
            if match := _LISTENS.search(line):
                self.url = f"ws://127.0.0.1:{match[1].decode()}"
                self.said = line.decode().rstrip()
                return
        raise AssertionError(f"the server ended before it listened: {self.said}")

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            await self.kill()

    async def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        await self.process.wait()

    async def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return await self.process.wait()
