"""A cycle's statements as one Parquet file (`wellhead[data]`): by account, then by balance, then in the order of the log.

The columns of the CSV statements, with `account` before them. `amount` and `running_balance` are decimals of six places;
those of lots and shares are whole. Opening and closing balances are rows with the code `opening` and `closing` and no
amount. Each file names its cycle, batch id, root and stablecoin in the schema's metadata.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from settlement.accounts import MONEY_DECIMALS
from settlement.batches import Batch
from settlement.columns import Lines, lines_of
from settlement.ledger import Code
from settlement.moves import Moves, read_moves, times_of
from settlement.service import Books
from settlement.statements import LOTS, POCKETS, symbol_of

OPENING, CLOSING = 0, max(Code) + 1
_CODES = [
    "opening",
    *(Code(code).name.lower() if code in set(Code) else "" for code in range(1, max(Code) + 1)),
    "closing",
]
IN_64_BITS = 10**18
"""Decimals of eighteen digits fit in a word, which Parquet packs and reads faster; one micro-dollar more needs two."""


def write_parquet(books: Books, batch: Batch, path: Path) -> int:
    """Write the file, whole or not at all; how many rows it has. Raises OSError, and ValueError for books that differ."""
    moves = read_moves(books.ledger, (batch.from_seq, batch.to_seq))
    lines = lines_of(moves, books.batches.closing(batch.cycle - 1), books.batches.closing(batch.cycle))
    draft = path.with_suffix(".draft")
    table = _table(books, batch, moves, lines)
    named = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    pq.write_table(
        table, draft, compression="zstd", compression_level=1, use_dictionary=named, store_decimal_as_integer=True,
        write_statistics=["account", "seq", "time"],
    )  # fmt: skip
    with open(draft, "rb") as file:
        os.fsync(file.fileno())
    draft.rename(path)
    return len(lines.account)


def _table(books: Books, batch: Batch, moves: Moves, lines: Lines) -> Any:
    count = len(moves["seq"])
    times = times_of(books.ledger.moments(batch.from_seq, batch.to_seq), moves["seq"])
    not_entry = (lines.move < 0) | (lines.move == count)
    row = np.where(not_entry, 0, lines.move)
    lots = lines.pocket >= LOTS
    listing = _of_entries(moves["listing"], row, np.where(not_entry, np.maximum(lines.asset, 0), -1))
    code = _of_entries(moves["code"], row, np.where(lines.move < 0, OPENING, np.where(not_entry, CLOSING, -1)))
    units = [POCKETS[n] if n >= LOTS else books.catalogue.stablecoin for n in range(len(POCKETS))]
    columns = {
        "account": pa.array(lines.account),
        "seq": pa.array(_of_entries(moves["seq"], row), mask=not_entry),
        "leg": pa.array(_of_entries(moves["leg"].astype(np.int32), row), mask=not_entry),
        "time": pa.array(_of_entries(times, row), pa.timestamp("ns", "UTC"), mask=not_entry),
        "balance": _named(lines.pocket, POCKETS),
        "unit": _named(lines.pocket, units),
        "symbol": _symbols(books, np.where(lines.asset != 0, lines.asset, listing)),
        "listing": pa.array(listing, mask=listing == 0),
        "code": _named(code, _CODES),
        "amount": _decimals(lines.amount, lots, not_entry),
        "running_balance": _decimals(lines.running, lots, None),
    }
    head = {"cycle": str(batch.cycle), "batch_id": batch.batch_id.hex(), "root": batch.root.hex()}
    return pa.table(columns, metadata={**head, "stablecoin": books.catalogue.stablecoin})


def _of_entries(column: NDArray[Any], row: NDArray[Any], instead: NDArray[Any] | None = None) -> NDArray[Any]:
    """A column of the transfers, for each line; where a line is no entry, what `instead` has (-1: an entry)."""
    found = column[row] if len(column) else np.zeros(len(row), column.dtype)
    return found if instead is None else np.where(instead < 0, found, instead)


def _named(numbers: NDArray[Any], names: Any) -> Any:
    return pa.DictionaryArray.from_arrays(numbers.astype(np.int8), pa.array(list(names)))


def _symbols(books: Books, assets: NDArray[Any]) -> Any:
    """Few assets, many lines: each is found by its place among them all."""
    symbols = books.registry.symbols()
    known = np.unique(np.concatenate([[0], np.fromiter(symbols, "<i8", len(symbols)), assets[assets < 0]]))
    names = pa.array([symbol_of(symbols, asset) for asset in known.tolist()])
    return pa.DictionaryArray.from_arrays(np.searchsorted(known, assets).astype(np.int32), names)


def _decimals(amounts: NDArray[Any], lots: NDArray[np.bool_], is_null: NDArray[np.bool_] | None) -> Any:
    """A column of 128-bit decimals from its two words: no float, and no Python number for each row."""
    words = np.empty((len(amounts), 2), "<i8")
    words[:, 0] = np.where(lots, amounts * 10**MONEY_DECIMALS, amounts)
    words[:, 1] = words[:, 0] >> 63
    small = not len(words) or int(np.abs(words[:, 0]).max()) < IN_64_BITS
    bits = None if is_null is None else pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    kind = pa.decimal128(18 if small else 25, MONEY_DECIMALS)
    return pa.Array.from_buffers(kind, len(amounts), [bits, pa.py_buffer(words)])
