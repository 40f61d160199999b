"""The market's clock: the only place where time enters the exchange."""

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Nanoseconds since the epoch, now."""


def real_clock() -> int:
    """The machine's clock."""
    return time.time_ns()


def accelerated_clock(start_ns: int, speed: int) -> Clock:
    """A clock that reads `start_ns` now and runs `speed` times as fast as the machine's."""
    begun_ns = time.monotonic_ns()
    return lambda: start_ns + (time.monotonic_ns() - begun_ns) * speed
