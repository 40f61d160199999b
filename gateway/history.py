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
from typing import Any, NamedTuple

import numpy as np
from msgspec import UNSET, Struct
from numpy.typing import NDArray

from engine.types import COMMAND, EVENT, LISTING, SLOT_BITS, EventKind, Flag, Kind, OrdType, Reason
from gateway.messages import Fills as FillsRequest
from gateway.messages import FillsResult, OrdersHistory, OrdersHistoryResult, PastFill, PastOrder
from gateway.private import SIDE_NAMES, TIF_NAMES, TYPE_NAMES, WHY
from gateway.projection import PPM
from gateway.rows import text_at

SLOT_MASK = (1 << SLOT_BITS) - 1
TAKE_BYTES = 512 * 1024
"""So much waits at the most before it is taken in: enough that a row costs little, and little enough that nobody waits."""
LONGEST_WALK = 20_000
"""Rows that are looked at for one page."""
PAGES = 10_000
"""Ends of pages that are remembered, so that the next one begins there."""
KINDS = frozenset((EventKind.NEW, EventKind.TRADE, EventKind.CANCELED, EventKind.REPLACED, EventKind.LISTED))

_HEAD = [
    ("seq", "<i8"),
    ("prev", "<i8"),  # the number of the account's row before, -1 for none
    ("ts_ns", "<i8"),
    ("order_id", "<i8"),
    ("account", "<i4"),
    ("price", "<i4"),
    ("qty", "<i4"),
    ("left", "<i4"),
    ("cum", "<i4"),
    ("side", "u1"),
    ("flag", "u1"),  # of a fill: 1 for the maker; of an order: its type
    ("tif", "u1"),
    ("post", "u1"),
    ("tick_micros", "<i8"),
    ("symbol", "S40"),
    ("cid", "S40"),
]
FILL = np.dtype([*_HEAD, ("fee_micros", "<i8"), ("fee_due_micros", "<i8")])
_ORDER = [*_HEAD, ("done_ns", "<i8"), ("reason", "<u2"), ("flags", "<u2"), ("stop_price", "<i4")]
ORDER = np.dtype([*_ORDER, ("expire_ns", "<i8"), ("show", "<i4"), ("pad", "V4")])
OLD_ORDER = np.dtype(_ORDER)
"""As it was without the last; its flags were zero."""
_OPEN = [
    ("order_id", "<i8"), ("ts_ns", "<i8"), ("type", "u1"), ("tif", "u1"), ("post", "u1"), ("side", "u1"),
    ("account", "<i4"), ("instrument", "<i4"), ("price", "<i4"), ("qty", "<i4"), ("cid", "S40"),
]  # fmt: skip
_OPEN_STOPS = [*_OPEN, ("stop_price", "<i4")]
OPEN = np.dtype([*_OPEN_STOPS, ("expire_ns", "<i8"), ("show", "<i4"), ("flags", "<u2")])
"""What is known of an order while it works. Older snapshots have it without the last ones."""
SHOWN_FLAGS = Flag.SLIDE | Flag.REDUCE_ONLY


class Terms(NamedTuple):
    """Of an instrument, as it was listed."""

    symbol: str
    tick_micros: int
    lot_tick_micros: int
    rebate_ppm: int


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
    picked: NDArray[np.void] = rows.view(f"V{rows.itemsize}")[index].view(rows.dtype)
    return picked


def put(rows: NDArray[np.void], index: NDArray[Any], values: NDArray[np.void]) -> None:
    """`rows[index] = values`, in the same way."""
    rows.view(f"V{rows.itemsize}")[index] = values.view(f"V{rows.itemsize}")


class Ring:
    """The last rows of a table. `count` is how many there ever were."""

    def __init__(
        self, dtype: np.dtype[np.void], capacity: int, path: Path | None, older: np.dtype[np.void] | None = None
    ) -> None:
        self.count = 0
        self._path = path
        self._rows: NDArray[np.void]
        if path is None:
            self._rows = np.zeros(capacity, dtype)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            size = capacity * dtype.itemsize
            if older is not None and path.exists() and path.stat().st_size == capacity * older.itemsize:
                _widen(path, older, dtype)
            mode = "r+" if path.exists() and path.stat().st_size == size else "w+"
            self._rows = np.memmap(path, dtype, mode, shape=(capacity,))  # type: ignore[call-overload]
        self._first = 0  # rows before are gone, whatever the ring holds
        self._last: dict[int, int] = {}  # account -> its newest row
        self._ends: OrderedDict[tuple[int, int], int] = OrderedDict()

    def append(self, rows: NDArray[np.void]) -> None:
        """Rows in order of their `seq`; their `prev` is set here."""
        capacity = len(self._rows)
        for start in range(0, len(rows), capacity):
            part = rows[start : start + capacity]
            self._link(part)
            put(self._rows, np.arange(self.count, self.count + len(part)) % capacity, part)
            self.count += len(part)

    def _link(self, rows: NDArray[np.void]) -> None:
        order = np.argsort(rows["account"], kind="stable")
        accounts = rows["account"][order]
        numbers = self.count + order
        before = np.empty(len(rows), np.int64)
        before[1:] = numbers[:-1]
        starts = np.flatnonzero(np.concatenate(([True], accounts[1:] != accounts[:-1])))
        ends = np.append(starts[1:], len(rows)) - 1
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            account = int(accounts[start])
            before[start] = self._last.get(account, -1)
            self._last[account] = int(numbers[end])
        rows["prev"][order] = before

    def page(
        self, account: int, before: int | None, limit: int, symbol: bytes | None
    ) -> tuple[NDArray[np.void], int | None]:
        """The account's newest rows with a `seq` below `before`, newest first, and where the next page begins."""
        rows, capacity = self._rows, len(self._rows)
        number = self._last.get(account, -1)
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
        capacity = len(self._rows)
        numbers = np.arange(max(0, count - capacity), count)
        kept = self._rows[numbers % capacity]
        # Rows from after the snapshot took the place of old ones; they are about to be made again.
        lost = np.flatnonzero((kept["seq"] < 1) | (kept["seq"] > seq))
        begin = int(lost[-1]) + 1 if len(lost) else 0
        self.count, self._first = count, count - len(kept) + begin
        self._ends.clear()
        accounts, places = np.unique(kept["account"][begin:][::-1], return_index=True)
        self._last = dict(zip(accounts.tolist(), (count - 1 - places).tolist(), strict=True))

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
        directory, rows = (directory, rows) if rows else (None, 1)
        self.fills = Ring(FILL, rows, directory / "fills.dat" if directory else None)
        self.orders = Ring(ORDER, rows, directory / "orders.dat" if directory else None, OLD_ORDER)
        self._open = np.zeros(1_024, OPEN)
        self._terms: dict[int, Terms] = {}
        self._seq = 0  # the last event
        self._waiting: list[tuple[bytes, bytes]] = []
        self._waiting_bytes = 0

    # --- Following the log --------------------------------------------------------------------------------------------

    def on_batch(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        """Keep a batch for `take_in`."""
        if len(events):
            self._seq = int(events["seq"][-1])
        if not self._is_kept or KINDS.isdisjoint(events["kind"].tobytes()):
            return
        self._waiting.append((commands.tobytes(), events.tobytes()))
        self._waiting_bytes += commands.nbytes + events.nbytes
        if self._waiting_bytes >= TAKE_BYTES:
            self.take_in()

    def take_in(self) -> None:
        """Everything that waits."""
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        commands = np.frombuffer(b"".join(part for part, _ in waiting), COMMAND)
        events = np.frombuffer(b"".join(part for _, part in waiting), EVENT)
        # A listing gives its number new terms, so the batch is cut there.
        cuts = np.flatnonzero(events["kind"] == EventKind.LISTED).tolist()
        start = 0
        for cut in [*cuts, len(events)]:
            self._follow(commands, events[start:cut])
            if cut < len(events):
                self._list(commands, events[cut])
            start = cut

    def _list(self, commands: NDArray[np.void], event: np.void) -> None:
        at = int(np.searchsorted(commands["seq"], event["command_seq"]))
        row = commands.view(LISTING)[at]
        self._terms[int(event["instrument"])] = Terms(
            text_at(commands.view(LISTING), at, "symbol"), int(row["tick_micros"]), int(row["lot_tick_micros"]),
            int(row["maker_rebate_ppm"]),
        )  # fmt: skip

    def _follow(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        kind = events["kind"]
        new = pick(events, kind == EventKind.NEW)
        fresh = self._fresh(commands, new)
        changed = pick(events, kind == EventKind.REPLACED)
        trades = pick(events, kind == EventKind.TRADE)
        over = pick(events, kind == EventKind.CANCELED)
        if not len(trades) and not len(over) and not len(changed):
            self._keep(fresh, np.zeros(0, np.int64))
            return
        sides = [(trades["order_id"], trades["account"]), (trades["contra_order_id"], trades["contra_account"])]
        fills = [self._fills(trades, order, account, place, fresh) for place, (order, account) in enumerate(sides)]
        both = np.zeros(2 * len(trades), FILL)
        for place in (0, 1):
            put(both, np.arange(place, len(both), 2), fills[place])
        self.fills.append(both)
        self._replace(commands, changed, fresh)
        done = self._finished(both, over, fresh)
        self.orders.append(done)
        self._keep(fresh, done["order_id"])

    def _fresh(self, commands: NDArray[np.void], new: NDArray[np.void]) -> NDArray[np.void]:
        """The orders that were accepted, by their ids."""
        asked = pick(commands, np.searchsorted(commands["seq"], new["command_seq"]))
        rows = np.zeros(len(new), OPEN)
        for name in ("order_id", "ts_ns", "account", "instrument", "side", "price", "qty"):
            rows[name] = new[name]
        rows["type"], rows["tif"], rows["post"] = asked["ord_type"], asked["time_in_force"], asked["flags"] & 1
        is_order = asked["kind"] == Kind.NEW_ORDER
        is_stop = (asked["ord_type"] >= OrdType.STOP) & is_order
        rows["stop_price"][is_stop] = asked["stop_price"][is_stop]
        rows["flags"] = asked["flags"] & SHOWN_FLAGS
        has_more = (asked["flags"] & Flag.EXTENDED != 0) & is_order
        for name, column in (("show", "show_qty"), ("expire_ns", "expire_ns")):
            rows[name][has_more] = asked[column][has_more]
        rows["cid"] = np.frombuffer(np.ascontiguousarray(asked["cl_ord_id"]).tobytes(), "S40")
        return pick(rows, np.argsort(rows["order_id"]))

    def _orders_of(self, ids: NDArray[np.int64], fresh: NDArray[np.void]) -> NDArray[np.void]:
        """What is known of orders, whether they came in this batch or before."""
        slots = ids & SLOT_MASK
        found = pick(self._open, np.minimum(slots, len(self._open) - 1))
        if len(fresh):
            places = np.minimum(np.searchsorted(fresh["order_id"], ids), len(fresh) - 1)
            hit = fresh["order_id"][places] == ids
            put(found, hit, pick(fresh, places[hit]))
        unknown = np.flatnonzero(found["order_id"] != ids)  # from before our history begins
        put(found, unknown, np.zeros(len(unknown), OPEN))
        return found

    def _replace(self, commands: NDArray[np.void], changed: NDArray[np.void], fresh: NDArray[np.void]) -> None:
        asked = pick(commands, np.searchsorted(commands["seq"], changed["command_seq"]))
        moves_stop = (asked["kind"] == Kind.AMEND) & (asked["flags"] & Flag.EXTENDED != 0) & (asked["stop_price"] > 0)
        ids, stops = changed["order_id"], np.where(moves_stop, asked["stop_price"], 0)
        places = np.minimum(np.searchsorted(fresh["order_id"], ids), max(len(fresh) - 1, 0))
        is_fresh = fresh["order_id"][places] == ids if len(fresh) else np.zeros(len(ids), np.bool_)
        slots = ids & SLOT_MASK
        is_old = ~is_fresh & (slots < len(self._open))
        for target, mine, at in ((fresh, is_fresh, places), (self._open, is_old, slots)):
            # Of several changes of an order the last one counts.
            target["price"][at[mine]], target["qty"][at[mine]] = changed["price"][mine], changed["qty"][mine]
            moved = mine & (stops > 0)
            target["stop_price"][at[moved]] = stops[moved]

    def _describe(self, rows: NDArray[np.void], orders: NDArray[np.void]) -> None:
        for name in ("order_id", "account", "side", "tif", "post", "cid"):
            rows[name] = orders[name]
        for number in np.unique(orders["instrument"]).tolist():
            terms, mine = self._terms.get(number), orders["instrument"] == number
            if terms is not None:
                rows["symbol"][mine], rows["tick_micros"][mine] = terms.symbol.encode(), terms.tick_micros

    def _fills(
        self, trades: NDArray[np.void], ids: NDArray[np.int64], accounts: NDArray[np.int32], place: int,
        fresh: NDArray[np.void],
    ) -> NDArray[np.void]:  # fmt: skip
        rows = np.zeros(len(trades), FILL)
        orders = self._orders_of(ids, fresh)
        orders["instrument"] = trades["instrument"]
        self._describe(rows, orders)
        rows["order_id"], rows["account"], rows["flag"] = ids, accounts, place
        rows["side"] = trades["side"] ^ place  # the event's is the taker's
        contra = "contra_" if place else ""
        rows["left"], rows["cum"] = trades[f"{contra}leaves_qty"], trades[f"{contra}cum_qty"]
        for name in ("seq", "ts_ns", "price", "qty"):
            rows[name] = trades[name]
        if place:
            rows["fee_micros"] = -self._rebates(trades)
        else:
            rows["fee_micros"], rows["fee_due_micros"] = trades["fee_micros"], trades["fee_due_micros"]
        return rows

    def _rebates(self, trades: NDArray[np.void]) -> NDArray[np.int64]:
        numbers, which = np.unique(trades["instrument"], return_inverse=True)
        terms = [self._terms.get(number) for number in numbers.tolist()]
        unit = np.array([one.lot_tick_micros if one else 0 for one in terms], np.int64)[which]
        ppm = np.array([one.rebate_ppm if one else 0 for one in terms], np.int64)[which]
        value = trades["price"].astype(np.int64) * unit * trades["qty"].astype(np.int64)
        return value // PPM * ppm + value % PPM * ppm // PPM

    def _finished(self, fills: NDArray[np.void], over: NDArray[np.void], fresh: NDArray[np.void]) -> NDArray[np.void]:
        filled = fills[fills["left"] == 0]
        ids = np.concatenate((filled["order_id"], over["order_id"]))
        orders = self._orders_of(ids, fresh)
        rows = np.zeros(len(ids), ORDER)
        self._describe(rows, orders)
        rows["flag"], rows["ts_ns"], rows["price"] = orders["type"], orders["ts_ns"], orders["price"]
        for name in ("stop_price", "flags", "show", "expire_ns"):
            rows[name] = orders[name]
        rows["seq"] = np.concatenate((filled["seq"], over["seq"]))
        rows["done_ns"] = np.concatenate((filled["ts_ns"], over["ts_ns"]))
        rows["cum"] = np.concatenate((filled["cum"], over["cum_qty"]))
        rows["qty"] = np.concatenate((filled["cum"], over["qty"]))
        rows["reason"][len(filled) :] = over["reason"]
        order = np.argsort(rows["seq"], kind="stable")
        return pick(rows, order[rows["order_id"][order] != 0])  # not those from before our history begins

    def _keep(self, fresh: NDArray[np.void], done: NDArray[np.int64]) -> None:
        """Remember the orders that still work."""
        if len(done):
            slots = done & SLOT_MASK
            old = slots[slots < len(self._open)]
            self._open["order_id"][old[self._open["order_id"][old] == done[slots < len(self._open)]]] = 0
        if len(done) and len(fresh):
            places = np.minimum(np.searchsorted(fresh["order_id"], done), len(fresh) - 1)
            works = np.ones(len(fresh), np.bool_)
            works[places[fresh["order_id"][places] == done]] = False
            fresh = pick(fresh, works)
        if len(fresh):
            slots = fresh["order_id"] & SLOT_MASK
            missing = int(slots.max()) + 1 - len(self._open)
            if missing > 0:
                more = np.zeros(max(missing, len(self._open)), OPEN)
                self._open = np.concatenate((self._open, more))
            put(self._open, slots, fresh)

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
        return HistoryState(
            self._seq, self.fills.count, self.orders.count, working.tobytes(),
            [(number, *terms) for number, terms in sorted(self._terms.items())], has_stops=True,
            has_terms=True,
        )  # fmt: skip

    def sync(self) -> None:
        """Force the files to the disk; on any thread."""
        self.fills.sync()
        self.orders.sync()

    def load(self, state: HistoryState) -> None:
        """Go on from a stored state, before the first batch."""
        self._seq = state.seq
        self.fills.restore(state.fills, state.seq)
        self.orders.restore(state.orders, state.seq)
        self._terms = {row[0]: Terms(row[1], row[2], row[3], row[4]) for row in state.terms}
        stored = np.frombuffer(state.open, OPEN if state.has_terms else _OPEN_STOPS if state.has_stops else _OPEN)
        working = np.zeros(len(stored), OPEN)
        for name in stored.dtype.names or ():
            working[name] = stored[name]
        self._keep(working, np.zeros(0, np.int64))


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
