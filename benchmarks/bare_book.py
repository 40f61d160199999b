"""A yardstick for the engine: one book that only matches. No accounts, no checks, no order types beyond the flow's.

It has what the engine's book has (queues as linked lists, bitmaps to find the best price) in the least form that runs a
flow file: prices in one window of 4,096 ticks around the middle, order ids that index a table.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.kernel import lowest_bit

TICKS = 4_096
ADD, CANCEL, REDUCE, REPLACE, MARKET = range(5)
NIL = -1
ORDER = np.dtype([("qty", "<i8"), ("next", "<i4"), ("prev", "<i4"), ("key", "<i4"), ("side", "<i4"), ("id", "<i8")])
LEVEL = np.dtype([("head", "<i4"), ("tail", "<i4")])
TRADE = np.dtype([("maker", "<i8"), ("taker", "<i8"), ("price", "<i8"), ("qty", "<i8")])
ROW = np.dtype([("op", "<i8"), ("id", "<i8"), ("side", "<i8"), ("price", "<i8"), ("qty", "<i8")])


@njit(inline="always")
def _set(words: Any, tops: Any, side: int, key: int) -> None:
    words[side, key >> 6] |= np.uint64(1) << np.uint64(key & 63)
    tops[side] |= np.uint64(1) << np.uint64(key >> 6)


@njit(inline="always")
def _unset(words: Any, tops: Any, side: int, key: int) -> None:
    words[side, key >> 6] &= ~(np.uint64(1) << np.uint64(key & 63))
    if words[side, key >> 6] == 0:
        tops[side] &= ~(np.uint64(1) << np.uint64(key >> 6))


@njit(inline="always")
def _best(words: Any, tops: Any, side: int) -> int:
    # Keys are flipped for bids, so the best of either side is the lowest.
    if tops[side] == 0:
        return TICKS
    high = lowest_bit(tops[side])
    return high * 64 + lowest_bit(words[side, high])


@njit(inline="always")
def _take_out(orders: Any, levels: Any, words: Any, tops: Any, order: Any) -> None:
    level = levels[order.side, order.key]
    if order.prev == NIL:
        level.head = order.next
    else:
        orders[order.prev].next = order.next
    if order.next == NIL:
        level.tail = order.prev
    else:
        orders[order.next].prev = order.prev
    if level.head == NIL:
        _unset(words, tops, order.side, order.key)


@njit
def run(rows: Any, lo: int, hi: int, base: int, orders: Any, levels: Any, words: Any, tops: Any, trades: Any) -> int:
    """Rows lo to hi of a flow (ROW); the number of trades written. An order's slot is its id."""
    n = 0
    for i in range(lo, hi):
        row = rows[i]
        side, order, op = row.side, orders[row.id], row.op
        if op in (CANCEL, REDUCE, REPLACE):
            if order.qty == 0:
                continue
            if op == REDUCE:
                order.qty = row.qty
                continue
            _take_out(orders, levels, words, tops, order)
            order.qty = 0
            if op == CANCEL:
                continue
            side = order.side
        qty = row.qty
        limit = TICKS - 1
        if op != MARKET:
            limit = row.price - base if side == 0 else TICKS - 1 - (row.price - base)
        other = 1 - side
        key = _best(words, tops, other)
        while qty > 0 and key <= limit:
            maker = orders[levels[other, key].head]
            fill = min(qty, maker.qty)
            qty -= fill
            maker.qty -= fill
            trade = trades[n]
            n += 1
            trade.maker, trade.taker, trade.qty = maker.id, row.id, fill
            trade.price = base + (key if other == 1 else TICKS - 1 - key)
            if maker.qty == 0:
                _take_out(orders, levels, words, tops, maker)
                key = _best(words, tops, other)
        if qty > 0 and op <= REPLACE:
            own = TICKS - 1 - limit
            level = levels[side, own]
            order.qty, order.key, order.side, order.id = qty, own, side, row.id
            order.next, order.prev = NIL, level.tail
            if level.tail == NIL:
                level.head = row.id
                _set(words, tops, side, own)
            else:
                orders[level.tail].next = row.id
            level.tail = row.id
    return n


class BareBook:
    """A fresh yardstick for a flow."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self.rows = np.ascontiguousarray(rows).view(ROW).reshape(-1)
        if not len(rows):
            raise ValueError("the flow has no row that does anything")
        priced = rows[rows[:, 3] > 0, 3] if (rows[:, 3] > 0).any() else np.zeros(1, np.int64)
        self.base = int((priced.min() + priced.max()) // 2) - TICKS // 2
        if priced.max() - priced.min() >= TICKS:
            raise ValueError(f"the yardstick holds {TICKS} ticks, the flow has {priced.max() - priced.min() + 1}")
        self.orders = np.zeros(int(rows[:, 1].max()) + 1, ORDER)
        self.levels = np.full((2, TICKS), NIL, "<i8").view(LEVEL)  # head and tail
        self.words, self.tops = np.zeros((2, 64), np.uint64), np.zeros(2, np.uint64)
        self.trades = np.zeros(len(rows) + 1, TRADE)

    def run(self, batch: int) -> int:
        """Run the whole flow in batches; the number of trades."""
        total = 0
        for at in range(0, len(self.rows), batch):
            room = self.trades[total:]
            total += run(
                self.rows, at, min(at + batch, len(self.rows)), self.base,
                self.orders, self.levels, self.words, self.tops, room,
            )  # fmt: skip
        return total
