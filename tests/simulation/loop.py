"""An event loop without a world: time is a number that jumps to the next callback, and a thread is a callback."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self

from tests.simulation.disk import Disk

NS = 1_000_000_000
JOB_NS = 400_000
"""What a job of another thread takes, about: a disk's fdatasync. Now and then it takes much longer."""
SLOW_JOBS, SLOWER = 0.05, 50


class Inline:
    """Where the node makes a ThreadPoolExecutor. The loop does its work, and what is submitted is done at once."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(work(*arguments))
        return future

    def shutdown(self) -> None: ...


class SimLoop(asyncio.BaseEventLoop):
    """Everything is done in one order that follows from the seed. A step is an event that was put on its schedule."""

    def __init__(self, start_ns: int, rng: random.Random, disk: Disk) -> None:
        super().__init__()
        self.now_ns = start_ns
        self.steps = 0
        self._start_ns = start_ns
        self._rng = rng
        self._disk = disk
        self._selector = self
        self._clock_resolution = 1e-9
        self.set_exception_handler(lambda *_: None)

    def time(self) -> float:
        return (self.now_ns - self._start_ns) / NS

    def call_soon(self, *args: Any, **named: Any) -> asyncio.Handle:  # type: ignore[override]
        self.steps += 1
        return super().call_soon(*args, **named)

    def call_at(self, *args: Any, **named: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        self.steps += 1
        return super().call_at(*args, **named)

    def select(self, timeout: float | None) -> list[Any]:
        """Nothing ever comes from outside: time passes instead."""
        assert timeout is not None, "nothing is left to happen"
        if timeout:
            # Up, so that what was waited for is due.
            self.now_ns += int(timeout * NS) + 1
        return []

    def run_in_executor(self, _executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Later, at once, and on this thread. The exchange may die before and after it."""
        future = self.create_future()

        def work() -> None:
            self._disk.moment("job")
            try:
                result = function(*args)
            except Exception as error:
                future.set_exception(error)
                return
            self._disk.moment("job")
            if not future.cancelled():
                future.set_result(result)

        slower = SLOWER if self._rng.random() < SLOW_JOBS else 1
        self.call_later(self._rng.random() * 2 * slower * JOB_NS / NS, work)
        return future

    def _process_events(self, events: Any) -> None: ...

    def _write_to_self(self) -> None: ...
