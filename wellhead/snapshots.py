"""A snapshot of a market that goes on: a forked process writes it.

The fork has the state of that moment; what the market changes from then on, it changes in pages of its own. So the market
waits for the fork, which copies page tables and no state, and then a little at each page that it is the first to change.

The fork is a copy of a process with other threads, and has only the one that forked. So it does nothing but make bytes and
write them: it takes no lock that another thread may have held (Python's own and the allocator's are taken care of by them),
logs nothing, and ends without any clean-up. First of all it lets go of everything that was open: neither the log's
lock nor the port nor a client's connection outlives the node because of it. It ends with the node, by the kernel's hand.

The file is written as a draft. It takes its name in `finish`, which is called once the books are as far.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Protocol

from engine.snapshot import Snapshot, SnapshotError

Sections = Callable[[], dict[str, bytes]]
"""Makes what is stored, by name."""

NICENESS = 5
"""The market comes first."""
LONGEST_S = 600.0
"""So long a fork may take; one that hangs is ended."""
MANY_FILES = 1 << 16
"""More than are open where the system names no limit."""
WRITTEN = b"written"
ENDING = {signal.SIGINT, signal.SIGTERM}
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Underway(Protocol):
    """A snapshot that was begun."""

    def finish(self) -> None:
        """Wait until it is written, and give it its name. On any thread. Raises SnapshotError."""

    def abandon(self) -> None:
        """Leave it, instead."""


class Copied:
    """The state was copied while the market waited; `finish` writes it."""

    def __init__(self, directory: Path, applied_seq: int, chain: bytes, sections: Sections) -> None:
        self._directory, self._applied_seq, self._chain, self._sections = directory, applied_seq, chain, sections

    def finish(self) -> None:
        Snapshot.write(self._directory, self._applied_seq, self._chain, self._sections())
        Snapshot.prune(self._directory)

    def abandon(self) -> None:
        pass


class Forked:
    """A fork makes and writes it."""

    def __init__(self, directory: Path, applied_seq: int, chain: bytes, sections: Sections) -> None:
        """Returns as soon as there is a fork. Raises OSError where there can be none."""
        self._directory, self._applied_seq = directory, applied_seq
        self._said, theirs = os.pipe()
        parent = os.getpid()
        # The fork never hears of them: it has a file to finish, and the loop's own way of hearing in its hands.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            self._pid = _fork()
            if self._pid == 0:
                _write(parent, theirs, lambda: Snapshot.draft(directory, applied_seq, chain, sections()))
        except OSError:
            os.close(self._said)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(theirs)

    def finish(self) -> None:
        said = self._wait()
        if said != WRITTEN:
            why = said.decode(errors="replace") or "the process that wrote it has ended"
            raise SnapshotError(f"no snapshot at seq {self._applied_seq}: {why}")
        Snapshot.name(self._directory, self._applied_seq)
        Snapshot.prune(self._directory)

    def abandon(self) -> None:
        os.kill(self._pid, signal.SIGKILL)  # it is not waited for yet, so the number is still its own
        self._wait()

    def _wait(self) -> bytes:
        """What the fork said at its end."""
        said = b""
        with os.fdopen(self._said, "rb", buffering=0) as pipe:
            while select.select([pipe], [], [], LONGEST_S)[0]:
                part = pipe.read(4_096)
                if not part:
                    break
                said += part
            else:
                os.kill(self._pid, signal.SIGKILL)
                said = b"it took too long"
        with contextlib.suppress(ChildProcessError):  # somebody else waits for all children
            os.waitpid(self._pid, 0)
        return said


def _fork() -> int:
    with warnings.catch_warnings():
        # That a process with threads is forked; see above.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _write(parent: int, said: int, draft: Callable[[], Path]) -> NoReturn:
    """What the fork does."""
    code = 1
    try:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            said = _let_go(said)
            os.nice(NICENESS)
            try:
                draft()
                os.write(said, WRITTEN)
                code = 0
            except BaseException as error:
                os.write(said, str(error).encode())
    finally:
        os._exit(code)


def _let_go(kept: int) -> int:
    """Close all that is open but one, which gets the number that is returned."""
    nothing = os.open(os.devnull, os.O_RDWR)
    kept = os.dup(kept)  # not one of those that are about to be something else
    for standard in range(3):
        os.dup2(nothing, standard)
    os.dup2(kept, 3)
    os.closerange(4, max(os.sysconf("SC_OPEN_MAX"), MANY_FILES))
    return 3
