"""A cycle's transfers as columns, read by SQLite's ADBC driver where it is installed: no Python object for any row.

The driver brings a SQLite of its own, and two of them must not have one file open in one process: closing the one's
file would drop the other's locks. So it reads in a process of its own, and hands over an Arrow file that is mapped.
"""

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from settlement.batches import Batch
from settlement.columns import Moves
from settlement.ledger import MOVE
from settlement.service import Books

SCRIPT = str(Path(__file__).with_name("arrow_dump.py"))
NAMES = MOVE.names or ()


def read_moves(books: Books, batch: Batch, place: Path) -> Moves:
    """The transfers of a cycle that has ended. A file in `place` is used meanwhile. Raises OSError."""
    if books.database.path is None or find_spec("adbc_driver_sqlite") is None:
        return _by_rows(books, batch)
    with tempfile.TemporaryDirectory(dir=place, prefix=".moves-") as directory:
        path = Path(directory) / "moves.arrow"
        arguments = [books.database.path, path, batch.from_seq, batch.to_seq]
        done = subprocess.run(  # noqa: S603 - our own script, and numbers
            [sys.executable, "-I", SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(f"reading the transfers of cycle {batch.cycle}: {done.stderr.strip()[-500:]}")
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            # Pieces are joined, so nothing points into the file when it goes.
            return {name: np.concatenate([np.zeros(0, "<i8"), *_pieces(table, name)]) for name in NAMES}


def _pieces(table: Any, name: str) -> list[NDArray[Any]]:
    return [chunk.to_numpy() for chunk in table.column(name).chunks]


def _by_rows(books: Books, batch: Batch) -> Moves:
    rows = np.concatenate([np.zeros(0, MOVE), *books.ledger.transfers(batch.from_seq, batch.to_seq)])
    return {name: np.ascontiguousarray(rows[name]) for name in NAMES}
