"""How fast the file log takes commands in, and gives them back.

    python -m benchmarks.log [--directory DIR] [--json]

Appending stands beside a plain write (and fdatasync) of the same bytes, in turns and in the same run, because a disk's
figures mean nothing alone. Not measured: syncs in a thread while commands gather (one sync per frame here, on one
thread), a cold page cache (reading and verifying follow the writing), and a real power cut: what fdatasync is worth
is up to the device, and virtual ones often answer faster than any medium could.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.log import FileLog, verify
from engine.types import COMMAND

FRAME_COMMANDS = (1, 16, 256, 4_096)
FRAME_HEADER_BYTES = 64
ROUNDS = 6
ROUND_FRAMES = 200
ROUND_BYTES = 32 << 20
READ_COMMANDS = {1: 100_000, 256: 1_000_000, 4_096: 1_000_000}
"""Commands in the log that is read, by the commands in a frame of it."""
NS = 1_000_000_000


def random_commands(count: int) -> NDArray[np.void]:
    raw = np.random.default_rng(count).integers(0, 256, count * COMMAND.itemsize, dtype=np.uint8)
    return raw.view(COMMAND)


@contextmanager
def plain_file(path: Path, data: bytes, *, durable: bool) -> Iterator[Callable[[], object]]:
    """The baseline: the same number of bytes, appended by one write."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def step() -> None:
        os.write(fd, data)
        if durable:
            os.fdatasync(fd)

    yield step
    os.close(fd)


@contextmanager
def file_log(path: Path, commands: NDArray[np.void], *, durable: bool) -> Iterator[Callable[[], object]]:
    with FileLog(path, durable=durable) as log:

        def step() -> None:
            log.append(commands)
            log.sync()

        yield step


def timed(step: Callable[[], object], times: int) -> list[int]:
    """Nanoseconds of each call."""
    taken = []
    for _ in range(times):
        start = time.perf_counter_ns()
        step()
        taken.append(time.perf_counter_ns() - start)
    return taken


def measure_append(directory: Path, count: int, *, durable: bool) -> dict[str, Any]:
    commands = random_commands(count)
    frame_bytes = FRAME_HEADER_BYTES + commands.nbytes
    times = max(10, min(ROUND_FRAMES, ROUND_BYTES // frame_bytes))
    taken: dict[str, list[int]] = {"log": [], "plain": []}
    with (
        file_log(directory / "log", commands, durable=durable) as log_step,
        plain_file(directory / "plain", os.urandom(frame_bytes), durable=durable) as plain_step,
    ):
        timed(log_step, 5)
        timed(plain_step, 5)
        for _ in range(ROUNDS):
            taken["log"] += timed(log_step, times)
            taken["plain"] += timed(plain_step, times)
    row: dict[str, Any] = {"frame_commands": count, "durable": durable, "frames": ROUNDS * times}
    for name, ns in taken.items():
        row[name] = {
            "commands_per_s": round(len(ns) * count * NS / sum(ns)),
            "mb_per_s": round(len(ns) * frame_bytes * NS / sum(ns) / 1e6, 1),
            "p50_us": round(statistics.median(ns) / 1e3, 1),
            "p99_us": round(statistics.quantiles(ns, n=100)[98] / 1e3, 1),
        }
    return row


def measure_read(directory: Path, count: int) -> dict[str, Any]:
    commands = random_commands(count)
    total = READ_COMMANDS[count] // count * count
    with FileLog(directory, durable=False) as log:
        for _ in range(total // count):
            log.append(commands)
        nbytes = sum(path.stat().st_size for path in directory.glob("*.log"))
        read_ns, verify_ns = [], []
        for _ in range(3):
            read_ns += timed(lambda: sum(len(part) for part in log.read()), 1)
            verify_ns += timed(lambda: verify(directory), 1)
    return {
        "frame_commands": count,
        "commands": total,
        "read_mb_per_s": round(nbytes * NS / min(read_ns) / 1e6),
        "verify_mb_per_s": round(nbytes * NS / min(verify_ns) / 1e6),
    }


def conditions(directory: Path) -> dict[str, Any]:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    home = str(directory.resolve())
    holding = [(len(point), kind) for point, kind in mounts if home.startswith(point.rstrip("/") + "/") or point == "/"]
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "file_system": max(holding)[1],
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "record_bytes": COMMAND.itemsize,
    }


def run(parent: Path) -> dict[str, Any]:
    result: dict[str, Any] = {"conditions": conditions(parent), "append": [], "read": []}
    jobs: list[tuple[str, Callable[[Path], dict[str, Any]]]] = [
        ("append", partial(measure_append, count=count, durable=durable))
        for durable in (True, False)
        for count in FRAME_COMMANDS
    ]
    jobs += [("read", partial(measure_read, count=count)) for count in READ_COMMANDS]
    for kind, job in jobs:
        directory = Path(tempfile.mkdtemp(dir=parent, prefix="wellhead-bench-"))
        try:
            result[kind].append(job(directory))
        finally:
            shutil.rmtree(directory)
    return result


def show(result: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in result["conditions"].items()))
    print(f"\nappend + sync, one sync per frame, {ROUNDS} rounds in turns with the plain file")
    print(f"{'frame':>6} {'durable':>8} {'':>6} {'commands/s':>12} {'MB/s':>8} {'p50 us':>8} {'p99 us':>8}")
    for row in result["append"]:
        for name in ("log", "plain"):
            values = row[name]
            print(
                f"{row['frame_commands']:>6} {row['durable']!s:>8} {name:>6} {values['commands_per_s']:>12,}"
                f" {values['mb_per_s']:>8,} {values['p50_us']:>8,} {values['p99_us']:>8,}"
            )
    print("\nread and verify, page cache warm, best of 3")
    for row in result["read"]:
        print(
            f"{row['commands']:,} commands in frames of {row['frame_commands']}:"
            f" read {row['read_mb_per_s']:,} MB/s, verify {row['verify_mb_per_s']:,} MB/s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log", description="Measure the file log.")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to write; the disk that is measured")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    result = run(arguments.directory)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
