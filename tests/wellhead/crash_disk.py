"""No room any more: a small file system of its own that is filled, or files that may not grow."""

import contextlib
import os
import random
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

DISK_MIB = 1_024


@contextlib.contextmanager
def small_disk() -> Iterator[Path | None]:
    """A file system of its own where this user may mount one."""
    with tempfile.TemporaryDirectory(prefix="wellhead-crash-") as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", name]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            mounted = False
        try:
            yield Path(name) if mounted else None
        finally:
            if mounted:
                subprocess.run(["umount", "-l", name], check=False)


@contextlib.contextmanager
def full(data_dir: Path, pid: int, rng: random.Random, on_small_disk: bool) -> Iterator[None]:
    """Leave a process no room, or only a few more bytes of it."""
    room = rng.randrange(16_384)
    if not on_small_disk or rng.random() < 0.5:
        newest = max(data_dir.glob("log/*.log"), key=lambda path: path.name)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (newest.stat().st_size + room, resource.RLIM_INFINITY))
        yield
        return
    ballast = data_dir / "ballast"
    try:
        with open(ballast, "wb") as file:
            _fill(file.fileno(), data_dir, room)
        yield
    finally:
        ballast.unlink()


def _fill(descriptor: int, directory: Path, room: int) -> None:
    """Take all that is free but `room` bytes, in smaller and smaller pieces: the server takes of it at the same time."""
    taken, piece = 0, 1 << 22
    while piece >= room // 2 + 1:
        state = os.statvfs(directory)
        if state.f_bavail * state.f_frsize - room < piece:
            piece //= 2
            continue
        try:
            os.posix_fallocate(descriptor, taken, piece)
            taken += piece
        except OSError:
            piece //= 2
