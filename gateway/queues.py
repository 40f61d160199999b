"""The channel `l3`: every working order in its place in the queue.

The queues of an instrument are built when somebody asks for them, from the projection's orders, and followed from then
on by the events of each batch, as long as somebody holds the channel. A side is a dict from price to a dict from order
to lots: a dict keeps the order in which keys were added, which is the queue's.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from engine.types import EventKind, Reason, Side
from gateway.depth import CHECKSUM_LEVELS
from gateway.market_data import Book, MarketData, Topic
from gateway.messages import L3, QueuedOrder
from gateway.projection import Projection
from gateway.rows import EventRow, event_rows
from gateway.views import Order

KINDS = (
    EventKind.NEW, EventKind.TRADE, EventKind.CANCELED, EventKind.REPLACED, EventKind.TRIGGERED, EventKind.PREVENTED,
    EventKind.REFRESHED,
)  # fmt: skip


class QueueSide:
    """One side of a book: `levels[price][order]` are its open lots; `prices` rise."""

    __slots__ = ("descending", "levels", "prices")

    def __init__(self, descending: bool) -> None:
        self.descending = descending
        self.levels: dict[int, dict[int, int]] = {}
        self.prices: list[int] = []

    def append(self, price: int, order: int, lots: int) -> None:
        """An order at the end of its level."""
        level = self.levels.get(price)
        if level is None:
            level = self.levels[price] = {}
            insort(self.prices, price)
        level[order] = lots

    def remove(self, price: int, order: int) -> None:
        """An order is gone."""
        level = self.levels[price]
        del level[order]
        if not level:
            del self.levels[price]
            del self.prices[bisect_left(self.prices, price)]

    def best_first(self, count: int | None = None) -> Iterator[tuple[int, dict[int, int]]]:
        """The best levels, all of them for None."""
        prices: Iterable[int] = reversed(self.prices) if self.descending else self.prices
        for place, price in enumerate(prices):
            if place == count:
                return
            yield price, self.levels[price]


class Queues:
    """Both sides of one book, and what changed since `take_changes`."""

    def __init__(self) -> None:
        self.sides = (QueueSide(descending=True), QueueSide(descending=False))
        self._where: dict[int, tuple[int, int]] = {}  # order -> side, price
        self._shown: dict[int, tuple[int, int]] = {}  # where changed orders stood at the last publication
        self._changed: dict[int, None] = {}
        self._requeued: set[int] = set()  # of the shown: those that lost their place
        self._most: dict[int, int] = {}  # of icebergs: what they show at the most

    def __contains__(self, order: int) -> bool:
        return order in self._where

    def enter(self, order: int, side: int, price: int, lots: int, most: int) -> None:
        """An order enters the book with its leaves; an iceberg shows only so much of them."""
        if most:
            self._most[order] = most
        self.add(order, side, price, min(most, lots) if most else lots)

    def took(self, order: int, leaves: int) -> None:
        """An order that takes has so much left."""
        self.set(order, min(self._most.get(order, leaves), leaves))

    def add(self, order: int, side: int, price: int, lots: int) -> None:
        """A new order at the end of its queue, where it shows so many lots."""
        self._touch(order)
        self._changed[order] = self._changed.pop(order)  # orders are told in the order in which they were added
        self._where[order] = side, price
        self.sides[side].append(price, order, lots)

    def reduce(self, order: int, lots: int) -> None:
        """Some of the lots that an order shows are gone."""
        side, price = self._where[order]
        self.set(order, self.sides[side].levels[price][order] - lots)

    def keep(self, order: int, leaves: int) -> None:
        """An order keeps its place, and has so much left."""
        side, price = self._where[order]
        shown = self.sides[side].levels[price][order]
        self.set(order, min(shown, leaves) if order in self._most else leaves)

    def set(self, order: int, lots: int) -> None:
        """The open lots of an order that keeps its place; 0: it is gone."""
        self._touch(order)
        side, price = self._where[order]
        if lots > 0:
            self.sides[side].levels[price][order] = lots
        else:
            self.sides[side].remove(price, order)
            del self._where[order]

    def requeue(self, order: int, side: int, price: int, lots: int) -> None:
        """An order goes to the end of the queue at a price, perhaps the same, and shows what it may of so many lots."""
        if order in self._where:
            self.set(order, 0)
        if order in self._shown:
            self._requeued.add(order)
        if lots > 0:
            self.add(order, side, price, min(self._most.get(order, lots), lots))

    def finish(self, order: int) -> None:
        """An order is over."""
        if order in self._where:
            self.set(order, 0)
        self._most.pop(order, None)

    def _touch(self, order: int) -> None:
        if order not in self._changed:
            self._changed[order] = None
            if order in self._where:
                self._shown[order] = self._where[order]

    def take_changes(self) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """For each side (order, price, lots): 0 lots remove; a known order stays in its place, another goes to the end."""
        gone: tuple[list[tuple[int, int, int]], ...] = ([], [])
        now: tuple[list[tuple[int, int, int]], ...] = ([], [])
        for order in self._changed:
            if order in self._shown and (order in self._requeued or order not in self._where):
                side, price = self._shown[order]
                gone[side].append((order, price, 0))
            if order in self._where:
                side, price = self._where[order]
                now[side].append((order, price, self.sides[side].levels[price][order]))
        self._shown.clear()
        self._changed.clear()
        self._requeued.clear()
        return gone[Side.BUY] + now[Side.BUY], gone[Side.SELL] + now[Side.SELL]

    def checksum(self, tick: int) -> int:
        """CRC-32 of `<order>:<price in micros>:<lots>;` of the ten best bid levels in queue order, then of the asks."""
        parts = [
            f"{order}:{price * tick}:{lots};"
            for side in self.sides
            for price, level in side.best_first(CHECKSUM_LEVELS)
            for order, lots in level.items()
        ]
        return crc32("".join(parts).encode("ascii"))


class L3Topic(Topic):
    """The chain of one book. Its deltas are sent by `QueueBooks`."""

    def __init__(self, book: Book, queues: "QueueBooks") -> None:
        super().__init__("l3", book)
        self._queues = queues

    def snapshot(self) -> L3:
        """The queues after the last delta."""
        instrument, book = self.book.instrument, self._queues.book(self.book.instrument.number)
        orders: list[list[QueuedOrder]] = [
            [
                (order, price * instrument.tick_micros, lots)
                for price, level in side.best_first()
                for order, lots in level.items()
            ]
            for side in book.sides
        ]
        return self._message((self.seq, 0), orders, book)

    def update(self) -> None:
        return None

    def delta(self, seq: int) -> L3 | None:
        """What changed since the last one."""
        book, tick = self._queues.book(self.book.instrument.number), self.book.instrument.tick_micros
        changes: list[list[QueuedOrder]] = [
            [(order, price * tick, lots) for order, price, lots in side] for side in book.take_changes()
        ]
        return self._message(self._advance(seq), changes, book) if any(changes) else None

    def _message(self, chain: tuple[int, int], orders: list[list[QueuedOrder]], book: Queues) -> L3:
        """A snapshot when nothing comes before it in the chain."""
        seq, prev = chain
        instrument, ts_us = self.book.instrument, self.book.depth.ts_ns // 1000
        crc = book.checksum(instrument.tick_micros)
        return L3(instrument.symbol, "delta" if prev else "snapshot", seq, prev, ts_us, orders[0], orders[1], crc)


class QueueBooks:
    """The queues of all books that somebody looks at."""

    def __init__(self, market: MarketData, projection: Projection) -> None:
        self._market = market
        self._projection = projection
        self._books: dict[int, Queues] = {}
        self._wanted: set[int] = set()  # asked for, and not built yet
        market.makers["l3"] = self._make

    def _make(self, book: Book) -> L3Topic:
        self._wanted.add(book.instrument.number)
        return L3Topic(book, self)

    def book(self, number: int) -> Queues:
        """The queues of a book that was asked for. All that were are built together: it takes a look at every order."""
        if self._wanted:
            self._build(self._wanted)
            self._wanted.clear()
        return self._books[number]

    def _build(self, numbers: set[int]) -> None:
        for number in numbers:
            self._books[number] = Queues()
        accounts = self._projection.accounts.values()
        orders = [order for account in accounts for order in account.orders.values() if order.instrument in numbers]
        for order in sorted(orders, key=_place):
            if not order.waiting:
                self._books[order.instrument].enter(order.id, order.side, order.price, order.leaves, order.show)
                self._books[order.instrument].set(order.id, order.public_lots)
        for number in numbers:
            self._books[number].take_changes()

    def on_batch(self, events: NDArray[np.void]) -> None:
        """Follow the events of batches, and send what changed. The projection has followed them."""
        if not self._books:
            return
        held = [number for number in self._books if self._market.topic(number, "l3") is not None]
        self._books = {number: self._books[number] for number in held}
        mine = events[np.isin(events["kind"], KINDS) & np.isin(events["instrument"], held)]
        last_seq: dict[int, int] = {}
        for event in event_rows(mine):
            number = event.instrument
            # A number may have been another instrument's earlier in the batch.
            if isinstance(event, EventRow) and event.seq > self._projection.instruments[number].listed_seq:
                self._follow(self._books[number], event)
                last_seq[number] = event.seq
        for number, seq in last_seq.items():
            self._tell(number, seq)

    def _follow(self, book: Queues, event: EventRow) -> None:
        order = event.order_id
        if event.kind == EventKind.TRIGGERED or (event.kind == EventKind.NEW and event.reason != Reason.WAITING):
            book.enter(order, event.side, event.price, event.leaves_qty, event.contra_leaves_qty)
        elif event.kind == EventKind.TRADE:
            _traded(book, event)
        elif event.kind == EventKind.PREVENTED and event.reason == Reason.DECREMENT:
            book.took(order, event.leaves_qty)
            book.reduce(event.contra_order_id, event.qty)
        elif event.kind == EventKind.CANCELED:
            book.finish(order)
        elif event.kind == EventKind.REFRESHED:
            book.requeue(order, event.side, event.price, event.qty)
        elif event.kind == EventKind.REPLACED and order in book:  # else it waits
            if event.reason == Reason.KEPT:
                book.keep(order, event.leaves_qty)
            else:
                book.requeue(order, event.side, event.price, event.leaves_qty)

    def _tell(self, number: int, seq: int) -> None:
        topic = self._market.topic(number, "l3")
        if isinstance(topic, L3Topic) and (message := topic.delta(seq)) is not None:
            topic.send(message)


def _traded(book: Queues, event: EventRow) -> None:
    if event.reason == Reason.AUCTION:  # nobody takes: both lose what they show
        book.reduce(event.order_id, event.qty)
    else:
        book.took(event.order_id, event.leaves_qty)
    book.reduce(event.contra_order_id, event.qty)
    for order, leaves in ((event.order_id, event.leaves_qty), (event.contra_order_id, event.contra_leaves_qty)):
        if not leaves:
            book.finish(order)


def _place(order: Order) -> int:
    return order.queued_seq
