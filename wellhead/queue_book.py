"""A local copy of a book with every order in its place, kept from the channel `l3` and checked at every step."""

import asyncio
from decimal import Decimal
from itertools import islice
from typing import NamedTuple
from zlib import crc32

from msgspec import Struct
from sortedcontainers import SortedDict

from gateway.decimals import from_text
from gateway.depth import CHECKSUM_LEVELS
from wellhead.types import BookOutOfSync


class L3(Struct):
    """A message of the channel `l3`, as it came."""

    sym: str
    ev: str
    seq: int
    prev: int
    ts: int
    b: list[tuple[int, str | int, int]]
    a: list[tuple[int, str | int, int]]
    crc: int


class QueuedOrder(NamedTuple):
    """An order in the queue of its level."""

    oid: int
    px: Decimal
    qty: int


class QueueBook:
    """Orders, best level first and oldest first in a level. `ready` is false until the first snapshot and while it is
    being fetched again.
    """

    def __init__(self, sym: str) -> None:
        self.sym = sym
        self.seq = 0
        self.ready = False
        self.resyncs = 0  # how often it had to be fetched again
        self._sides: tuple[SortedDict, SortedDict] = (
            SortedDict(),
            SortedDict(),
        )  # price -> order -> lots, in queue order
        self._places: dict[int, tuple[int, int]] = {}  # order -> side, price
        self._news = asyncio.Event()

    @property
    def bids(self) -> list[QueuedOrder]:
        """All bids."""
        return [_order(each) for each in self._orders(0)]

    @property
    def asks(self) -> list[QueuedOrder]:
        """All asks."""
        return [_order(each) for each in self._orders(1)]

    def ahead_of(self, oid: int) -> int | None:
        """The lots in front of an order at its own price; None when it is not in the book."""
        if oid not in self._places:
            return None
        side, price = self._places[oid]
        lots = 0
        for other, qty in self._sides[side][price].items():
            if other == oid:
                break
            lots += qty
        return lots

    async def changed(self) -> "QueueBook":
        """Wait for the next change; returns the book itself."""
        self._news.clear()
        await self._news.wait()
        return self

    async def wait_ready(self) -> "QueueBook":
        """Wait until the book is in step with the market."""
        while not self.ready:
            await self.changed()
        return self

    def apply(self, message: L3) -> None:
        """Follow a message. Raises BookOutOfSync when it does not follow the last one, or the checksum differs."""
        if message.ev == "snapshot":
            self._places.clear()
            for side in self._sides:
                side.clear()
            self.ready = True
        elif not self.ready:
            return
        elif message.prev != self.seq:
            self._lost(f"message {message.seq} follows {message.prev}, the book is at {self.seq}")
        for number, orders in enumerate((message.b, message.a)):
            for oid, px, lots in orders:
                self._put(number, oid, from_text(px) if isinstance(px, str) else px, lots)
        self.seq = message.seq
        if self._checksum() != message.crc:
            self._lost(f"the checksum differs at {message.seq}")
        self._news.set()

    def _put(self, side: int, oid: int, price: int, lots: int) -> None:
        if lots:
            self._sides[side].setdefault(price, {})[oid] = lots
            self._places[oid] = side, price
        elif oid in self._places:
            side, price = self._places.pop(oid)
            queue = self._sides[side][price]
            del queue[oid]
            if not queue:
                del self._sides[side][price]

    def _lost(self, why: str) -> None:
        self.ready = False
        self.resyncs += 1
        raise BookOutOfSync(0, "BOOK_OUT_OF_SYNC", f"{self.sym}: {why}")

    def _orders(self, number: int, levels: int | None = None) -> list[tuple[int, int, int]]:
        side = self._sides[number]
        prices = side if number else reversed(side)
        return [(oid, price, lots) for price in islice(prices, levels) for oid, lots in side[price].items()]

    def _checksum(self) -> int:
        best = [order for number in (0, 1) for order in self._orders(number, CHECKSUM_LEVELS)]
        return crc32("".join(f"{oid}:{price}:{lots};" for oid, price, lots in best).encode("ascii"))


def _order(order: tuple[int, int, int]) -> QueuedOrder:
    oid, price, lots = order
    return QueuedOrder(oid, Decimal(price).scaleb(-6).normalize() + 0, lots)
