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


def set_clock(path: Path, offset_ns: int) -> None:
    """From now on the clock of a process that runs under this file is so much ahead, or behind."""
    with open(path, "r+b" if path.exists() else "w+b") as file:
        file.write(offset_ns.to_bytes(BYTES, "little", signed=True))


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
