"""A local copy of a book, kept from the channel `l2` and checked against it at every step."""

import asyncio
from decimal import Decimal

from msgspec import Struct
from sortedcontainers import SortedDict

from gateway.decimals import from_text
from gateway.depth import CHECKSUM_LEVELS, checksum
from wellhead.types import BookOutOfSync, Level


class L2(Struct):
    """A message of the channel `l2`, as it came."""

    sym: str
    ev: str
    seq: int
    prev: int
    ts: int
    b: list[tuple[str | int, int]]
    a: list[tuple[str | int, int]]
    crc: int


class Book:
    """A book that follows the market. `ready` is false until the first snapshot, and while it is being fetched again."""

    def __init__(self, sym: str, depth: int | str) -> None:
        self.sym = sym
        self.depth = depth
        self.seq = 0
        self.ts = 0
        self.ready = False
        self.resyncs = 0  # how often it had to be fetched again
        self._bids: SortedDict = SortedDict()  # price in micros -> lots
        self._asks: SortedDict = SortedDict()
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        bid, ask = (f"{best.qty} at {best.px}" if best else "none" for best in (self.best_bid, self.best_ask))
        return f"<Book {self.sym}: bid {bid}, ask {ask}{'' if self.ready else ', not ready'}>"

    @property
    def bids(self) -> list[Level]:
        """Bids, best first."""
        return [_level(px, self._bids[px]) for px in reversed(self._bids)]

    @property
    def asks(self) -> list[Level]:
        """Asks, best first."""
        return [_level(px, lots) for px, lots in self._asks.items()]

    @property
    def best_bid(self) -> Level | None:
        """The highest bid."""
        return _level(*self._bids.peekitem(-1)) if self._bids else None

    @property
    def best_ask(self) -> Level | None:
        """The lowest ask."""
        return _level(*self._asks.peekitem(0)) if self._asks else None

    async def changed(self) -> "Book":
        """Wait for the next change; returns the book itself."""
        self._news.clear()
        await self._news.wait()
        return self

    async def wait_ready(self) -> "Book":
        """Wait until the book is in step with the market."""
        while not self.ready:
            await self.changed()
        return self

    def apply(self, message: L2) -> None:
        """Follow a message. Raises BookOutOfSync when it does not follow the last one, or the checksum differs."""
        if message.ev == "snapshot":
            self._bids.clear()
            self._asks.clear()
            self.ready = True
        elif not self.ready:
            return
        elif message.prev != self.seq:
            self._lost(f"message {message.seq} follows {message.prev}, the book is at {self.seq}")
        _put(self._bids, message.b)
        _put(self._asks, message.a)
        self.seq, self.ts = message.seq, message.ts
        if self._checksum() != message.crc:
            self._lost(f"the checksum differs at {message.seq}")
        self._news.set()

    def _lost(self, why: str) -> None:
        self.ready = False
        self.resyncs += 1
        raise BookOutOfSync(0, "BOOK_OUT_OF_SYNC", f"{self.sym}: {why}")

    def _checksum(self) -> int:
        bids = [(px, self._bids[px]) for px in self._bids.islice(max(0, len(self._bids) - CHECKSUM_LEVELS))]
        return checksum(bids[::-1], [(px, self._asks[px]) for px in self._asks.islice(0, CHECKSUM_LEVELS)])


def _put(side: SortedDict, levels: list[tuple[str | int, int]]) -> None:
    for px, lots in levels:
        micros = from_text(px) if isinstance(px, str) else px
        if lots:
            side[micros] = lots
        else:
            side.pop(micros, None)


def _level(micros: int, lots: int) -> Level:
    return Level(Decimal(micros).scaleb(-6).normalize() + 0, lots)
