"""The depth of one book: open lots at each price, and which prices changed since it was last published."""

from bisect import bisect_left, insort
from zlib import crc32

CHECKSUM_LEVELS = 10


class DepthSide:
    """One side: `lots[price]`, the prices in ascending order, and the prices that changed."""

    __slots__ = ("changed", "descending", "lots", "prices")

    def __init__(self, descending: bool) -> None:
        self.descending = descending  # bids: the best price is the highest
        self.lots: dict[int, int] = {}
        self.prices: list[int] = []
        self.changed: set[int] = set()

    def add(self, price: int, lots: int) -> None:
        """Change the open lots at a price. O(log n) to find it, O(n) to make or drop a level."""
        before = self.lots.get(price, 0)
        after = before + lots
        if after < 0:
            raise ValueError(f"{after} lots at {price}: the events do not fit the book")
        if before == 0 and after:
            insort(self.prices, price)
        elif after == 0 and before:
            del self.prices[bisect_left(self.prices, price)]
        if after:
            self.lots[price] = after
        else:
            self.lots.pop(price, None)
        self.changed.add(price)

    def top(self, count: int | None) -> list[tuple[int, int]]:
        """The best `count` levels (all for None) as (price, lots), best first."""
        prices = self.prices
        if self.descending:
            prices = prices[: -count - 1 : -1] if count is not None else prices[::-1]
        elif count is not None:
            prices = prices[:count]
        return [(price, self.lots[price]) for price in prices]

    def best(self) -> tuple[int, int] | None:
        """The best level, None when the side is empty."""
        if not self.prices:
            return None
        price = self.prices[-1 if self.descending else 0]
        return price, self.lots[price]


class Depth:
    """Both sides, in ticks and lots. `seq` is the last event that changed either."""

    __slots__ = ("_checksum", "_checksum_seq", "asks", "bids", "seq", "ts_ns")

    def __init__(self) -> None:
        self.bids = DepthSide(descending=True)
        self.asks = DepthSide(descending=False)
        self.seq = 0
        self.ts_ns = 0
        self._checksum = 0
        self._checksum_seq = -1

    def side(self, side: int) -> DepthSide:
        """The bids for Side.BUY, else the asks."""
        return self.asks if side else self.bids

    def settle(self) -> None:
        """Forget what changed: it has been published."""
        self.bids.changed.clear()
        self.asks.changed.clear()

    def checksum(self, tick_micros: int) -> int:
        """The CRC-32 of the top levels, as the protocol defines it; computed once for each change."""
        if self._checksum_seq != self.seq:
            bids, asks = self.bids.top(CHECKSUM_LEVELS), self.asks.top(CHECKSUM_LEVELS)
            self._checksum = checksum([(p * tick_micros, q) for p, q in bids], [(p * tick_micros, q) for p, q in asks])
            self._checksum_seq = self.seq
        return self._checksum


def checksum(bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> int:
    """CRC-32 of `<price in micros>:<lots>;` of the ten best bids, best first, then of the ten best asks."""
    levels = bids[:CHECKSUM_LEVELS] + asks[:CHECKSUM_LEVELS]
    return crc32("".join([f"{price}:{lots};" for price, lots in levels]).encode("ascii"))
