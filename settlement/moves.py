"""A cycle's transfers as columns, in the order of the log: what statements of everybody are made from."""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from settlement.ledger import MOVE, Ledger

Moves = dict[str, NDArray[np.int64]]
"""The columns of MOVE, in order of seq and leg."""

NAMES = MOVE.names or ()
NEVER = -1
MANY_COMMANDS = 100_000
"""From here on it is worth the processes that read without a Python object for any row, where their packages are."""


def read_moves(ledger: Ledger, seqs: tuple[int, int]) -> Moves:
    """The transfers of the commands `seqs` (first, last), which are committed. Raises OSError.

    Of many in a SQLite file, files beside it are used meanwhile.
    """
    first, last = seqs
    if ledger.file is not None and last - first >= MANY_COMMANDS and _has_driver():
        from settlement.arrow_reader import read_columns  # noqa: PLC0415 - needs optional packages

        return read_columns(ledger.file, seqs)
    return columns_of(np.concatenate([np.zeros(0, MOVE), *ledger.transfers(first, last)]))


def columns_of(rows: NDArray[Any]) -> Moves:
    """Of rows (MOVE)."""
    return {name: np.ascontiguousarray(rows[name]) for name in NAMES}


class Kept:
    """The transfers of the cycle at hand, beside the ledger's rows, so that its end need not read all of them back.

    In a file without a name, so it is gone with the process, and the first end after a start reads the ledger. What it
    has is what was committed since the end before, or else nothing.
    """

    def __init__(self, directory: Path, applied_seq: int) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - for as long as the books are open
        self._begin(applied_seq)

    def _begin(self, applied_seq: int) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._first, self._last = applied_seq + 1, applied_seq

    def add(self, transfers: NDArray[Any], last_seq: int) -> None:
        """Rows (MOVE) that were committed: of all commands behind those before, up to `last_seq`."""
        try:
            self._file.write(transfers.tobytes())
        except OSError:  # a full disk: then the end reads the ledger
            self._first = NEVER
        self._last = last_seq

    def take(self, first_seq: int, last_seq: int) -> Moves | None:
        """Those of a cycle, None where they are not just these; what comes next is of the next cycle."""
        found = None
        if (first_seq, last_seq) == (self._first, self._last):
            self._file.seek(0)
            found = columns_of(np.fromfile(self._file, MOVE))
        self._begin(self._last)
        return found

    def close(self) -> None:
        self._file.close()


def _has_driver() -> bool:
    return find_spec("adbc_driver_sqlite") is not None and find_spec("pyarrow") is not None


def times_of(moments: NDArray[Any], seqs: NDArray[np.int64]) -> NDArray[np.int64]:
    """When each transfer happened, by the moments (MOMENT) that hold for them; both in the order of the log."""
    if not len(moments):
        return np.zeros(len(seqs), np.int64)
    at = np.searchsorted(seqs, moments["seq"])
    times: NDArray[np.int64] = np.repeat(moments["ts_ns"], np.diff(np.append(at, len(seqs))))
    return times
