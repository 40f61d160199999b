"""Takers: six habits of buying and selling GPU-hours. Each sees local books and its own account, nothing else."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from wellhead.book import Book
from wellhead.demo.desk import Desk, Market
from wellhead.types import Rejected, Side, TimeInForce

PPM = 1_000_000
MEMORY = 24
"""Looks at a market that a momentum trader remembers."""


class Taker:
    """Acts every `pause_s`. A habit is a subclass with its own `act`; `scope` are the markets it trades."""

    hours = 2  # of each market, the nearest, that it looks at

    def __init__(self, desk: Desk, scope: Sequence[str], pause_s: float, size: int) -> None:
        """`size` is the usual order, in units of eight GPUs."""
        self.desk = desk
        self.scope = tuple(scope)
        self.pause_s = pause_s
        self.size = size
        self._books: dict[str, Book] = {}

    async def run(self) -> None:
        """Trade until cancelled. The exchange may refuse an order: a book closes, somebody was faster. So what."""
        while True:
            with contextlib.suppress(Rejected):
                await self._follow_books()
                await self.act()
            await asyncio.sleep(self.pause_s)

    async def act(self) -> None:
        """One decision."""
        raise NotImplementedError

    async def _follow_books(self) -> None:
        wanted: dict[str, Market] = {}
        for name in self.scope:
            near = [market for market in self.desk.open_markets() if market.symbol.startswith(f"{name}-")]
            wanted |= {market.symbol: market for market in near[: self.hours]}
        for symbol in self._books.keys() - wanted.keys():
            del self._books[symbol]
            if symbol in self.desk.markets:
                await self.desk.client.drop_book(symbol)
        for symbol in wanted.keys() - self._books.keys():
            self._books[symbol] = await self.desk.client.book(symbol)

    def seen(self) -> list[tuple[Market, int, int]]:
        """(market, bid, ask) of the books that have both sides, prices in ticks."""
        found = []
        for symbol, book in self._books.items():
            market = self.desk.markets.get(symbol)
            if market is not None and book.best_bid and book.best_ask:
                found.append((market, market.price(book.best_bid.px), market.price(book.best_ask.px)))
        return found

    def owned(self) -> list[tuple[Market, int]]:
        """(market, lots) of what it has bought and could still sell."""
        return [(market, lots) for market in self.desk.open_markets() if (lots := self.desk.net(market.symbol)) > 0]

    def lots(self, market: Market) -> int:
        """A random order size around the usual one."""
        most = 2 * self.size * (8 // market.contract.gpu_class.gpus_per_lot)
        return self.desk.random.randint(1, max(most, 1))

    async def take(
        self, market: Market, side: Side, lots: int, price: int | None = None, tif: TimeInForce = "ioc"
    ) -> int:
        """Send an order that does not rest; how many lots were filled."""
        px = None if price is None else market.px(price)
        ack = await self.desk.client.place(market.symbol, side, lots, px, tif=tif)
        return ack.filled


class SteadyBuyer(Taker):
    """Needs compute hour after hour, and pays the offer, a little above at the most."""

    async def act(self) -> None:
        seen = self.seen()
        if seen:
            market, _, ask = self.desk.random.choice(seen)
            await self.take(market, "buy", self.lots(market), ask + max(1, ask // 500))


class ThriftyBuyer(Taker):
    """Can run anywhere: buys the cheapest place of all it knows, all or nothing."""

    async def act(self) -> None:
        seen = self.seen()
        if seen:
            market, _, ask = min(seen, key=lambda view: view[2] * view[0].tick_micros)
            await self.take(market, "buy", self.lots(market), ask, "fok")


class PatientBuyer(Taker):
    """Rests bids inside the spread, a few at a time, and takes the oldest away for each new one."""

    working = 8

    def __init__(self, desk: Desk, scope: Sequence[str], pause_s: float, size: int) -> None:
        super().__init__(desk, scope, pause_s, size)
        self._resting: deque[int] = deque()

    async def act(self) -> None:
        seen = self.seen()
        if not seen:
            return
        if len(self._resting) >= self.working:
            await self.desk.client.cancel(self._resting.popleft())
        market, bid, ask = self.desk.random.choice(seen)
        ack = await self.desk.client.place(market.symbol, "buy", self.lots(market), market.px((bid + ask) // 2))
        if ack.left:
            self._resting.append(ack.oid)


class Momentum(Taker):
    """Buys what rises and sells what it has when it falls."""

    threshold_ppm = 1_500

    def __init__(self, desk: Desk, scope: Sequence[str], pause_s: float, size: int) -> None:
        super().__init__(desk, scope, pause_s, size)
        self._seen: dict[str, deque[int]] = {}

    async def act(self) -> None:
        for market, bid, ask in self.seen():
            history = self._seen.setdefault(market.symbol, deque(maxlen=MEMORY))
            history.append(bid + ask)
            average = sum(history) // len(history)
            change_ppm = (bid + ask - average) * PPM // max(average, 1)
            if change_ppm > self.threshold_ppm:
                await self.take(market, "buy", self.lots(market), ask)
            elif change_ppm < -self.threshold_ppm and (lots := self.desk.net(market.symbol)) > 0:
                await self.take(market, "sell", min(lots, 2 * self.lots(market)), bid)


class Reseller(Taker):
    """Buys hours that are far off and sells them before the gate: it never takes delivery if it can help it."""

    hours = 5
    sells_before_min = 45

    async def act(self) -> None:
        for market, lots in self.owned():
            if self.desk.minutes_to_gate(market) < self.sells_before_min:
                await self.take(market, "sell", min(lots, 4 * self.lots(market)))
        far = [view for view in self.seen() if self.desk.minutes_to_gate(view[0]) > 2 * self.sells_before_min]
        if far:
            market, _, ask = self.desk.random.choice(far)
            await self.take(market, "buy", self.lots(market), ask)


class Rebalancer(Taker):
    """A laboratory whose plans change: buys at the market, and now and then sells half of what it has."""

    async def act(self) -> None:
        owned = self.owned()
        if owned and self.desk.random.randrange(3) == 0:
            market, lots = self.desk.random.choice(owned)
            await self.take(market, "sell", (lots + 1) // 2)
            return
        seen = self.seen()
        if seen:
            market, _, _ = self.desk.random.choice(seen)
            await self.take(market, "buy", self.lots(market))
