"""The real server as a process of its own, for tests that kill it."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parent.parent.parent
_LISTENS = re.compile(rb"ws://[\d.]+:(\d+)")


class ServerProcess:
    """
    `wellhead serve` on a free port, of the sources in `home`. Use as an async context manager; it is killed on the way
    out if it still runs.
    """

    def __init__(self, data_dir: Path, *options: str, home: Path = ROOT, **environment: str) -> None:
        self._home, self._environment = home, environment
        self._arguments = ["-m", "wellhead.cli", "serve", "--data", str(data_dir), "--port", "0", *options]
        self.url = self.said = ""

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            cwd=self._home,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "COLUMNS": "200", **self._environment},
        )
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if match := _LISTENS.search(line):
                self.url = f"ws://127.0.0.1:{match[1].decode()}"
                self.said = line.decode().rstrip()
                return self
        raise AssertionError("the server ended before it listened")

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
