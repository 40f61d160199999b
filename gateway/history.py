"""What an account did: its fills and its finished orders, newest first, as far back as there is room.

Two rings of fixed rows, in files where a directory is given. Each row knows the row before it of the same account, so
a page costs as much as it shows, however many others trade. What is in them is a function of the log alone. A gateway's
snapshot says how many rows there were; a start from it takes that many for granted and makes the others again from the
log, so nothing has to be forced to the disk but before a snapshot. Batches are taken in together, now and then, or
when somebody asks.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET, Struct
from numpy.typing import NDArray

from engine.kernel import JIT, Records
from engine.log import fsync_directory
from engine.records import joined
from engine.types import COMMAND, EVENT, EventKind, Flag, Reason
from gateway.fast import past
from gateway.fast.past import NO_ROW
from gateway.messages import Fills as FillsRequest
from gateway.messages import FillsResult, OrdersHistory, OrdersHistoryResult, PastFill, PastOrder
from gateway.private import SIDE_NAMES, TIF_NAMES, TYPE_NAMES, WHY

TAKE_BYTES = 512 * 1024
"""So much waits at the most before it is taken in: enough that a row costs little, and little enough that nobody waits."""
LONGEST_WALK = 20_000
"""Rows that are looked at for one page."""
PAGES = 10_000
"""Ends of pages that are remembered, so that the next one begins there."""
KINDS = frozenset((EventKind.NEW, EventKind.TRADE, EventKind.CANCELED, EventKind.REPLACED, EventKind.LISTED))


class HistoryState(Struct):
    """What is stored in a snapshot; the rows are in files of their own."""

    seq: int
    fills: int
    orders: int
    open: bytes
    terms: list[tuple[int, str, int, int, int]]
    has_stops: bool = False
    has_terms: bool = False


def pick(rows: NDArray[np.void], index: NDArray[Any]) -> NDArray[np.void]:
    """`rows[index]`, many times faster: numpy copies records field by field, unless it knows none."""
    picked = rows.view(f"V{rows.itemsize}")[index]
    return np.ndarray(len(picked), rows.dtype, picked)


class Ring:
    """The last rows of a table. `count` is how many there ever were."""

    def __init__(
        self, dtype: np.dtype[np.void], capacity: int, path: Path | None, older: np.dtype[np.void] | None = None
    ) -> None:
        self.count = 0
        self._path = path
        self.rows: NDArray[np.void]
        if path is None:
            self.rows = np.zeros(capacity, dtype)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            size = capacity * dtype.itemsize
            if older is not None and path.exists() and path.stat().st_size == capacity * older.itemsize:
                _widen(path, older, dtype)
            mode = "r+" if path.exists() and path.stat().st_size == size else "w+"
            self.rows = np.asarray(np.memmap(path, dtype, mode, shape=(capacity,)))  # type: ignore[call-overload]
        self._first = 0  # rows before are gone, whatever the ring holds
        self.last = np.full(1, NO_ROW, np.int64)  # by account: its newest row
        self._ends: OrderedDict[tuple[int, int], int] = OrderedDict()

    def page(
        self, account: int, before: int | None, limit: int, symbol: bytes | None
    ) -> tuple[NDArray[np.void], int | None]:
        """The account's newest rows with a `seq` below `before`, newest first, and where the next page begins."""
        rows, capacity = self.rows, len(self.rows)
        number = int(self.last[account]) if account < len(self.last) else NO_ROW
        if before is not None:
            number = self._ends.get((account, before), number)
        oldest = max(self._first, self.count - capacity)
        found: list[int] = []
        last_seq = before
        for _ in range(LONGEST_WALK):
            if number < oldest:
                return rows[found], None
            row = rows[number % capacity]
            seq = int(row["seq"])
            if len(found) >= limit and seq != last_seq:  # what happened in one event stays together
                break
            if (before is None or seq < before) and (symbol is None or row["symbol"] == symbol):
                found.append(number % capacity)
            last_seq = seq
            number = int(row["prev"])
        if number < oldest or last_seq is None:
            return rows[found], None
        self._ends[account, last_seq] = number
        if len(self._ends) > PAGES:
            self._ends.popitem(last=False)
        return rows[found], last_seq

    def restore(self, count: int, seq: int) -> None:
        """Take the first `count` rows for granted, of events up to `seq`, as far as the file still has them."""
        capacity = len(self.rows)
        numbers = np.arange(max(0, count - capacity), count)
        kept = self.rows[numbers % capacity]
        # Rows from after the snapshot took the place of old ones; they are about to be made again.
        lost = np.flatnonzero((kept["seq"] < 1) | (kept["seq"] > seq))
        begin = int(lost[-1]) + 1 if len(lost) else 0
        self.count, self._first = count, count - len(kept) + begin
        self._ends.clear()
        accounts, places = np.unique(kept["account"][begin:][::-1], return_index=True)
        self.last = np.full(int(accounts.max(initial=0)) + 1, NO_ROW, np.int64)
        self.last[accounts] = count - 1 - places

    def sync(self) -> None:
        """Force the file to the disk. On any thread, and without keeping the others from running, as a memmap's flush does."""
        if self._path is not None:
            fd = os.open(self._path, os.O_RDWR)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _widen(path: Path, older: np.dtype[np.void], dtype: np.dtype[np.void]) -> None:
    """Give the rows of a file the columns that have come since it was made; they are zero."""
    old = np.fromfile(path, older)
    rows = np.zeros(len(old), dtype)
    for name in older.names or ():
        rows[name] = old[name]
    made = path.with_suffix(".new")
    rows.tofile(made)
    made.replace(path)


class History:
    """Fills and finished orders of all accounts. `directory` None: in memory only."""

    def __init__(self, rows: int, directory: Path | None = None) -> None:
        """`rows` of each; with 0 nothing is kept."""
        self._is_kept = rows > 0
        self._directory = directory if rows else None
        directory, rows = (directory, rows) if rows else (None, 1)
        self.fills = Ring(past.FILL, rows, directory / "fills.dat" if directory else None)
        self.orders = Ring(past.ORDER, rows, directory / "orders.dat" if directory else None, past.OLD_ORDER)
        self._open = np.zeros(1_024, past.OPEN)  # by slot
        self._terms = np.zeros(16, past.TERMS)  # by instrument
        self._seq = 0  # the last event
        self._waiting: list[tuple[NDArray[np.void], NDArray[np.void]]] = []  # commands and events of batches
        self._waiting_bytes = 0

    # --- Following the log --------------------------------------------------------------------------------------------

    def on_batch(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        """Keep a batch for `take_in`. The arrays must not change."""
        if len(events):
            self._seq = events["seq"].item(-1)
        if not self._is_kept or KINDS.isdisjoint(events["kind"].tobytes()):
            return
        self._waiting.append((commands, events))
        self._waiting_bytes += commands.nbytes + events.nbytes
        if self._waiting_bytes >= TAKE_BYTES:
            self.take_in()

    def take_in(self) -> None:
        """Everything that waits."""
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        commands = joined([part for part, _ in waiting], COMMAND)
        events = joined([part for _, part in waiting], EVENT)
        self._make_room(events)
        fills, orders = self.fills, self.orders
        counts = np.array([fills.count, orders.count])
        past.follow_past(
            *map(
                _seen,
                (
                    commands.view(past.COMMAND_WORDS), commands.view(past.LISTING_WORDS), events,
                    self._open.view(past.OPEN_WORDS), self._terms.view(past.TERMS_WORDS),
                    fills.rows.view(past.FILL_WORDS), fills.last, orders.rows.view(past.ORDER_WORDS), orders.last, counts,
                ),
            )
        )  # fmt: skip
        fills.count, orders.count = counts.tolist()

    def _make_room(self, events: NDArray[np.void]) -> None:
        known = len(self._open), len(self.fills.last), len(self._terms)
        slots, accounts, instruments = past.needs(_seen(events), *known)
        self._open, self._terms = _grown(self._open, slots), _grown(self._terms, instruments)
        for ring in (self.fills, self.orders):
            ring.last = _grown(ring.last, accounts, NO_ROW)

    # --- Questions ----------------------------------------------------------------------------------------------------

    def past_fills(self, account: int, request: FillsRequest) -> FillsResult:
        """A page of an account's fills."""
        self.take_in()
        symbol = request.sym.encode() if request.sym is not None else None
        rows, following = self.fills.page(account, request.before, request.limit, symbol)
        return FillsResult([_fill(row) for row in _plain(rows)], following)

    def past_orders(self, account: int, request: OrdersHistory) -> OrdersHistoryResult:
        """A page of an account's finished orders."""
        self.take_in()
        symbol = request.sym.encode() if request.sym is not None else None
        rows, following = self.orders.page(account, request.before, request.limit, symbol)
        return OrdersHistoryResult([_order(row) for row in _plain(rows)], following)

    # --- Storing ------------------------------------------------------------------------------------------------------

    def dump(self) -> HistoryState:
        """What `load` needs beside the files, which `sync` puts on the disk: rows that come meanwhile are made again."""
        self.take_in()
        working = self._open[self._open["order_id"] != 0]
        listed = np.flatnonzero(self._terms["lot_tick_micros"]).tolist()
        terms = [
            (number, symbol.decode(), *ticks)
            for number, (symbol, *ticks) in zip(listed, self._terms[listed].tolist(), strict=True)
        ]
        return HistoryState(
            self._seq, self.fills.count, self.orders.count, working.tobytes(), terms, has_stops=True, has_terms=True
        )  # fmt: skip

    def sync(self) -> None:
        """Force the files and their names to the disk; on any thread."""
        self.fills.sync()
        self.orders.sync()
        if self._directory is not None:
            fsync_directory(self._directory)

    def load(self, state: HistoryState) -> None:
        """Go on from a stored state, before the first batch."""
        self._seq = state.seq
        self.fills.restore(state.fills, state.seq)
        self.orders.restore(state.orders, state.seq)
        self._terms = _grown(self._terms, 1 + max((row[0] for row in state.terms), default=0))
        for number, *terms in state.terms:
            self._terms[number] = tuple(terms)
        stored = np.frombuffer(state.open, past.OPEN if state.has_terms else past.OLDER_OPEN[state.has_stops])
        slots = stored["order_id"] & past.SLOT_MASK
        self._open = _grown(self._open, int(slots.max(initial=0)) + 1)
        for name in stored.dtype.names or ():
            self._open[name][slots] = stored[name]


def _grown(rows: NDArray[Any], count: int, empty: int = 0) -> NDArray[Any]:
    """The rows, and room for `count` of them."""
    if count <= len(rows):
        return rows
    more = np.zeros(max(count, 2 * len(rows)) - len(rows), rows.dtype)
    if empty:
        more[:] = empty
    return np.concatenate((rows, more))


def warm_up() -> bool:
    """Load the compiled code, compiling it when it is not in the cache: True. Else the market would wait for it one day."""
    history = History(1)
    history._waiting.append((np.zeros(0, COMMAND), np.zeros(0, EVENT)))
    history.take_in()
    return JIT and any(door.stats.cache_misses for door in (past.needs, past.follow_past))


def _seen(array: NDArray[Any]) -> Any:
    """An array as kernels see it."""
    return array if JIT else Records(array)


def _plain(rows: NDArray[np.void]) -> Iterator[dict[str, int | bytes]]:
    names = rows.dtype.names or ()
    return (dict(zip(names, row, strict=True)) for row in rows.tolist())


def _fill(row: dict[str, int | bytes]) -> PastFill:
    tick, side = int(row["tick_micros"]), SIDE_NAMES[int(row["side"])]
    return PastFill(
        tid=int(row["seq"]), ts=int(row["ts_ns"]) // 1000, oid=int(row["order_id"]), cid=_text(row["cid"]) or None,
        sym=_text(row["symbol"]), side=side, px=int(row["price"]) * tick, qty=int(row["qty"]), left=int(row["left"]),
        cum=int(row["cum"]), liq="maker" if row["flag"] else "taker", fee=int(row["fee_micros"]),
        fee_due=int(row["fee_due_micros"]),
    )  # fmt: skip


def _order(row: dict[str, int | bytes]) -> PastOrder:
    tick, reason = int(row["tick_micros"]), Reason(int(row["reason"]))
    filled = reason == Reason.NONE  # what is cancelled has a reason
    return PastOrder(
        seq=int(row["seq"]), oid=int(row["order_id"]), cid=_text(row["cid"]) or None, sym=_text(row["symbol"]),
        side=SIDE_NAMES[int(row["side"])], type=TYPE_NAMES[int(row["flag"])], px=int(row["price"]) * tick,
        qty=int(row["qty"]), cum=int(row["cum"]), tif=TIF_NAMES[int(row["tif"])], post=bool(row["post"]),
        st="filled" if filled else "canceled", why=None if filled else WHY.get(reason, reason.name.lower()),
        ts=int(row["ts_ns"]) // 1000, done=int(row["done_ns"]) // 1000,
        stop=int(row["stop_price"]) * tick or UNSET, show=int(row["show"]) or UNSET,
        expire=int(row["expire_ns"]) // 1000 or UNSET, slide=bool(int(row["flags"]) & Flag.SLIDE) or UNSET,
        reduce_only=bool(int(row["flags"]) & Flag.REDUCE_ONLY) or UNSET,
    )  # fmt: skip


def _text(value: int | bytes) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
