"""The bots' process as the demo sees it: start it, let it begin, stop it."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from wellhead.demo.bots import READY, Plan

LOGON_TIMEOUT_S = 30
STOP_TIMEOUT_S = 2


class CrewError(RuntimeError):
    """The bots could not start, or ended before they should."""


class Crew:
    """All bots, in a process of their own, so that they and the exchange have a core each."""

    def __init__(self, process: Process, log_path: Path) -> None:
        self._process = process
        self._log_path = log_path

    @classmethod
    async def hire(cls, plan: Plan, log_path: Path) -> "Crew":
        """Start the process and wait until every bot is logged on. Raises CrewError."""
        with open(log_path, "wb") as log:
            # A session of its own: Ctrl-C is the demo's affair, which then ends the bots in order.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "wellhead.demo.bots", stdin=PIPE, stdout=PIPE, stderr=log, start_new_session=True
            )
        crew = cls(process, log_path)
        assert process.stdout is not None
        try:
            await crew._tell(plan.to_line())
            async with asyncio.timeout(LOGON_TIMEOUT_S):
                answer = await process.stdout.readline()
        except BaseException:
            await crew.stop()
            raise
        if answer.decode().strip() != READY:
            await crew.stop()
            raise CrewError(f"the bots did not start; see {log_path}")
        return crew

    async def begin(self, begun_ns: int) -> None:
        """The market's clock started at this reading of the machine's monotonic one."""
        await self._tell(f"{begun_ns}\n")

    async def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()

    def check(self) -> None:
        """Raises CrewError when the bots are gone."""
        if self._process.returncode is not None:
            raise CrewError(f"the bots ended with code {self._process.returncode}; see {self._log_path}")

    async def stop(self) -> None:
        """End the process: by closing its input, and by force when that takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
