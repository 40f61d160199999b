"""A cycle's statements as one Parquet file (`wellhead[data]`): by account, then by balance, then in the order of the log.

The columns of the CSV statements, with `account` before them. `amount` and `running_balance` are decimals of six places;
those of lots are whole. Opening and closing balances are rows with the code `opening` and `closing` and no amount. Each
file names its cycle, batch id, root and stablecoin in the schema's metadata.
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
from settlement.ledger import Code, group_starts
from settlement.service import Books
from settlement.statements import LOTS, POCKETS, entries_of, statement_balances, symbol_of

DECIMALS = pa.decimal128(25, MONEY_DECIMALS)
NO_CODE = {"opening": 0, "closing": max(Code) + 1}
_CODES = [
    "opening",
    *(Code(code).name.lower() if code in set(Code) else "" for code in range(1, max(Code) + 1)),
    "closing",
]

ROW = np.dtype(
    [
        ("account", "<i8"),
        ("pocket", "<i8"),
        ("asset", "<i8"),  # what the balance is of: 0 money, above it lots of a listing, below it shares
        ("seq", "<i8"),
        ("leg", "<i8"),
        ("code", "<i8"),
        ("listing", "<i8"),
        ("amount", "<i8"),
        ("running", "<i8"),
    ]
)


def write_parquet(books: Books, batch: Batch, path: Path) -> int:
    """Write the file, whole or not at all; how many rows it has. Raises OSError."""
    rows = cycle_rows(books, batch)
    draft = path.with_suffix(".draft")
    pq.write_table(_table(books, batch, rows), draft, compression="zstd")
    with open(draft, "rb") as file:
        os.fsync(file.fileno())
    draft.rename(path)
    return len(rows)


def cycle_rows(books: Books, batch: Batch) -> NDArray[Any]:
    """Opening balances, entries and closing balances (ROW) of all accounts, each behind its opening."""
    parts = [_balance_rows(books, batch.cycle - 1, "opening"), _balance_rows(books, batch.cycle, "closing")]
    for moves in books.ledger.transfers(batch.from_seq, batch.to_seq):
        entries = entries_of(moves)
        rows = np.zeros(len(entries), ROW)
        rows["account"], rows["pocket"], rows["amount"] = entries["owner"], entries["pocket"], entries["amount"]
        for name in ("seq", "leg", "code", "listing"):
            rows[name] = entries["move"][name]
        rows["asset"] = entries["move"]["asset"]
        parts.append(rows)
    rows = np.concatenate(parts)
    rows = rows[np.lexsort((rows["leg"], rows["seq"], rows["asset"], rows["pocket"], rows["account"]))]
    _run(rows)
    return rows


def _balance_rows(books: Books, cycle: int, code: str) -> NDArray[Any]:
    found: dict[tuple[int, int, int], int] = {}
    for owner, (pocket, asset), amount in statement_balances(books.batches.closing(cycle)):
        found[owner, pocket, asset] = found.get((owner, pocket, asset), 0) + amount
    rows = np.zeros(len(found), ROW)
    keys = np.array(list(found), "<i8").reshape(-1, 3)
    rows["account"], rows["pocket"], rows["asset"] = keys.T
    rows["listing"] = np.maximum(rows["asset"], 0)
    rows["running"] = list(found.values())
    rows["code"] = NO_CODE[code]
    rows["seq"] = -1 if code == "opening" else 2**62
    return rows


def _run(rows: NDArray[Any]) -> None:
    """Running balances: what was there at the opening and all entries since, balance by balance."""
    starts = group_starts(rows["account"], rows["pocket"], rows["asset"])
    is_opening = rows["code"] == NO_CODE["opening"]
    change = np.where(is_opening, rows["running"], rows["amount"])
    total = np.cumsum(change)
    before = (total - change)[starts]
    running = total - np.repeat(before, np.diff(np.append(starts, len(rows))))
    is_closing = rows["code"] == NO_CODE["closing"]
    ends = np.append(starts[1:], len(rows))[: len(starts)] - 1
    gone = ends[~is_closing[ends]]  # balances that the cycle brought to zero have no closing row
    if (running[is_closing] != rows["running"][is_closing]).any() or running[gone].any():
        raise ValueError("a closing balance is not the opening and the entries")
    rows["running"] = running


def _table(books: Books, batch: Batch, rows: NDArray[Any]) -> Any:
    symbols = books.registry.symbols()
    about, which = np.unique(np.where(rows["asset"] != 0, rows["asset"], rows["listing"]), return_inverse=True)
    units = pa.array([POCKETS[n] if n >= LOTS else books.catalogue.stablecoin for n in range(len(POCKETS))])
    is_entry = (rows["seq"] >= 0) & (rows["seq"] < 2**62)
    lots = rows["pocket"] >= LOTS
    columns = {
        "account": pa.array(rows["account"]),
        "seq": pa.array(rows["seq"], mask=~is_entry),
        "leg": pa.array(rows["leg"], mask=~is_entry),
        "time": pa.array(_times(books, batch, rows["seq"]), pa.timestamp("ns", "UTC"), mask=~is_entry),
        "balance": pa.DictionaryArray.from_arrays(rows["pocket"].astype(np.int32), pa.array(POCKETS)),
        "unit": pa.DictionaryArray.from_arrays(rows["pocket"].astype(np.int32), units),
        "symbol": pa.DictionaryArray.from_arrays(
            which.astype(np.int32), pa.array([symbol_of(symbols, asset) for asset in about.tolist()])
        ),
        "listing": pa.array(rows["listing"], mask=rows["listing"] == 0),
        "code": pa.DictionaryArray.from_arrays(rows["code"].astype(np.int32), pa.array(_CODES)),
        "amount": _decimals(rows["amount"], lots, is_entry),
        "running_balance": _decimals(rows["running"], lots, np.ones(len(rows), bool)),
    }
    head = {"cycle": str(batch.cycle), "batch_id": batch.batch_id.hex(), "root": batch.root.hex()}
    return pa.table(columns, metadata={**head, "stablecoin": books.catalogue.stablecoin})


def _times(books: Books, batch: Batch, seqs: NDArray[Any]) -> NDArray[Any]:
    moments = books.ledger.moments(batch.from_seq, batch.to_seq)
    if not len(moments):
        return np.zeros(len(seqs), "<i8")
    at = np.searchsorted(moments["seq"], seqs, "right") - 1
    times: NDArray[Any] = moments["ts_ns"][np.maximum(at, 0)]
    return times


def _decimals(amounts: NDArray[Any], lots: NDArray[np.bool_], valid: NDArray[np.bool_]) -> Any:
    """A column of 128-bit decimals from its two words: no float, and no Python number for each row."""
    words = np.empty((len(amounts), 2), "<i8")
    words[:, 0] = np.where(lots, amounts * 10**MONEY_DECIMALS, amounts)
    words[:, 1] = words[:, 0] >> 63
    bits = np.packbits(valid, bitorder="little")
    return pa.Array.from_buffers(DECIMALS, len(amounts), [pa.py_buffer(bits), pa.py_buffer(words)])
