"""Transfers as columns, read by SQLite's ADBC driver (`wellhead[data]`): no Python object for any row.

The driver brings a SQLite of its own, and two of them must not have one file open in one process: closing the one's
file would drop the other's locks. So it reads in processes of its own, each a part of the commands, and each hands over
an Arrow file that is mapped.
"""

import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from settlement.moves import NAMES, Moves

SCRIPT = str(Path(__file__).with_name("arrow_dump.py"))
MOST_PROCESSES = 4


def read_columns(database: Path, seqs: tuple[int, int]) -> Moves:
    """The transfers of the commands `seqs` (first, last). Files beside the database are used meanwhile. Raises OSError."""
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=".moves-") as directory:
        parts = [(Path(directory) / f"{first}.arrow", first, last) for first, last in _parts(*seqs)]
        readers = [_start(database, *part) for part in parts]
        for reader in readers:
            _, said = reader.communicate()
            if reader.returncode:
                raise OSError(f"reading the transfers of commands {seqs[0]} to {seqs[1]}: {said.strip()[-500:]}")
        tables = [_table(path) for path, _, _ in parts]
        # Pieces are joined, so nothing points into the files when they go.
        return {name: np.concatenate([piece for table in tables for piece in _pieces(table, name)]) for name in NAMES}


def _parts(first: int, last: int) -> list[tuple[int, int]]:
    """The commands in as many parts as there are processors for them."""
    count = min(MOST_PROCESSES, os.cpu_count() or 1)
    borders = [first + (last + 1 - first) * part // count for part in range(count + 1)]
    return [(one, other - 1) for one, other in pairwise(borders)]


def _start(database: Path, path: Path, first: int, last: int) -> subprocess.Popen[str]:
    arguments = map(str, (database, path, first, last))
    return subprocess.Popen(  # noqa: S603 - our own script, and numbers
        [sys.executable, "-I", SCRIPT, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _table(path: Path) -> Any:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _pieces(table: Any, name: str) -> list[NDArray[Any]]:
    return [np.zeros(0, "<i8"), *(chunk.to_numpy() for chunk in table.column(name).chunks)]
