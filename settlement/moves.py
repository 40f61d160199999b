"""A cycle's transfers as columns, in the order of the log: what statements of everybody are made from."""

import tempfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from settlement.ledger import MOMENT, MOVE, Ledger, Posting

Moves = dict[str, NDArray[np.int64]]
"""The columns of MOVE, in order of seq and leg."""

NAMES = MOVE.names or ()
NEVER = -1


class Cycle(NamedTuple):
    """The transfers of some commands."""

    moves: NDArray[Any]  # MOVE
    moments: NDArray[Any]  # MOMENT: those that hold for them


def read_cycle(ledger: Ledger, seqs: tuple[int, int]) -> Cycle:
    """The transfers of the commands `seqs` (first, last), which are committed."""
    return Cycle(np.concatenate([np.zeros(0, MOVE), *ledger.transfers(*seqs)]), ledger.moments(*seqs))


def read_moves(ledger: Ledger, seqs: tuple[int, int]) -> Moves:
    """The same as columns."""
    moves, _ = read_cycle(ledger, seqs)
    return {name: np.ascontiguousarray(moves[name]) for name in NAMES}


class Kept:
    """The transfers of the cycle at hand, beside the ledger's rows, so that its end need not read all of them back.

    In files without a name, so they are gone with the process, and the first end after a start reads the ledger. What they
    have is what was committed since the end before, or else nothing.
    """

    def __init__(self, directory: Path, applied_seq: int) -> None:
        self._directory = directory
        self._begin(applied_seq)

    def _begin(self, applied_seq: int) -> None:
        # Closed by `take` and `close`.
        self._files = [tempfile.TemporaryFile(dir=self._directory) for _ in Cycle._fields]  # noqa: SIM115
        self._first, self._last = applied_seq + 1, applied_seq

    def add(self, posting: Posting) -> None:
        """What was committed, of all commands behind those before."""
        try:
            for file, rows in zip(self._files, (posting.transfers, posting.moments), strict=True):
                file.write(rows.tobytes())
        except OSError:  # a full disk: then the end reads the ledger
            self._first = NEVER
        self._last = posting.last_seq

    def take(self, first_seq: int, last_seq: int) -> Cycle | None:
        """Those of a cycle, None where they are not just these; what comes next is of the next cycle."""
        found = None
        if (first_seq, last_seq) == (self._first, self._last):
            found = Cycle(*(_mapped(file, kind) for file, kind in zip(self._files, (MOVE, MOMENT), strict=True)))
        self.close()
        self._begin(self._last)
        return found

    def close(self) -> None:
        for file in self._files:
            file.close()


def _mapped(file: IO[bytes], kind: np.dtype[Any]) -> NDArray[Any]:
    """What was written, without a copy; it lives as long as the array, although its file is closed."""
    file.flush()
    return np.memmap(file, kind, "c") if file.tell() else np.zeros(0, kind)


def times_of(moments: NDArray[Any], seqs: NDArray[np.int64]) -> NDArray[np.int64]:
    """When each transfer happened, by the moments (MOMENT) that hold for them; both in the order of the log."""
    if not len(moments):
        return np.zeros(len(seqs), np.int64)
    at = np.searchsorted(seqs, moments["seq"])
    times: NDArray[np.int64] = np.repeat(moments["ts_ns"], np.diff(np.append(at, len(seqs))))
    return times
