"""`wellhead serve` on a machine whose clock is set while it runs: what the first eight bytes of a file say is added to it.

    CLOCK_FILE=... python -m tests.wellhead.set_clock serve --data ...

The file holds nanoseconds. What measures spans (the monotonic clock) is left alone, as when a real clock is set.
"""

import mmap
import os
import time
from pathlib import Path

CLOCK_FILE = "CLOCK_FILE"
BYTES = 8
NS = 1_000_000_000
HOUR_NS, DAY_NS = 3_600 * NS, 24 * 3_600 * NS
MORNING_NS = HOUR_NS + 5 * 60 * NS
"""Into the day, UTC: the first hour of a cycle has begun a while ago, and no gate is near."""


def until_morning_ns() -> int:
    """How far off the next day's morning is: by so much a clock is set ahead that shall not show what time it is here."""
    return DAY_NS - time.time_ns() % DAY_NS + MORNING_NS


def set_clock(path: Path, offset_ns: int) -> None:
    """From now on the clock of a process that runs under this file is so much ahead, or behind."""
    with open(path, "r+b" if path.exists() else "w+b") as file:
        file.write(offset_ns.to_bytes(BYTES, "little", signed=True))


def advance_clock(path: Path, by_ns: int) -> None:
    """Set it further ahead."""
    set_clock(path, int.from_bytes(path.read_bytes(), "little", signed=True) + by_ns)


def follow(path: Path) -> None:
    """Have this process look at the file for the time. Before anything else is imported."""
    with open(path, "r+b") as file:
        view = mmap.mmap(file.fileno(), BYTES)
    real = time.time_ns

    def shown_ns() -> int:
        return real() + int.from_bytes(view[:BYTES], "little", signed=True)

    time.time_ns, time.time = shown_ns, lambda: shown_ns() / 1e9


if __name__ == "__main__":
    follow(Path(os.environ[CLOCK_FILE]))
    from wellhead.cli import main

    main()
