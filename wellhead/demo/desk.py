"""What every bot of the demo stands on: a connection, what is listed, and what it owns; all of it from the websocket.

Prices here are ticks and quantities lots, as in the engine; the client library turns them into decimals and back.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from engine.catalogue import Catalogue, Contract
from wellhead.client import Client
from wellhead.demo.prices import PricePath
from wellhead.feed import Feed
from wellhead.types import (
    AnyEvent,
    Fill,
    Instrument,
    InstrumentEvent,
    OrderEvent,
    Position,
    PositionEvent,
    Price,
    Snapshot,
)

SCALE = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Market:
    """A listed hour as a bot sees it."""

    symbol: str
    contract: Contract
    gate_us: int

    @property
    def tick_micros(self) -> int:
        return self.contract.gpu_class.tick_micros

    def px(self, ticks: int) -> Decimal:
        """Ticks as the client library takes them."""
        return Decimal(ticks * self.tick_micros) / SCALE

    def price(self, px: Price) -> int:
        """A price of the client library in ticks."""
        return int(Decimal(px) * SCALE) // self.tick_micros


class Desk:
    """A bot's view of the market and of itself. `on_event` is called with each private event, in order."""

    def __init__(
        self, client: Client, catalogue: Catalogue, path: PricePath, clock: Callable[[], int], random: Random
    ) -> None:
        self.client = client
        self.path = path
        self.random = random
        self.markets: dict[str, Market] = {}  # what can be traded, by symbol
        self.positions: dict[str, Position] = {}
        self.on_event: Callable[[AnyEvent], None] = lambda event: None
        self._catalogue = catalogue
        self._clock = clock
        self._tasks: list[asyncio.Task[Any]] = []

    @property
    def now_ns(self) -> int:
        """Market time."""
        return self._clock()

    def start(self, events: Feed[AnyEvent]) -> None:
        """Follow listings and the account."""
        self._tasks = [
            asyncio.create_task(self._follow_listings()),
            asyncio.create_task(self._follow_account(events)),
        ]

    async def stop(self) -> None:
        """Stop following. Raises what ended a follower early."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def reference(self, market: Market) -> int:
        """The reference price of a market now, in ticks."""
        return self.path.ticks(market.contract, self.now_ns) or market.contract.gpu_class.seed_price

    def minutes_to_gate(self, market: Market) -> int:
        """Market minutes until the last trade."""
        return (market.gate_us - self.now_ns // 1000) // 60_000_000

    def net(self, symbol: str) -> int:
        """Lots bought less lots sold."""
        position = self.positions.get(symbol)
        return position.net if position else 0

    def sellable(self, symbol: str) -> int:
        """Lots that may be sold in all: what is owned and what is certified, working orders not counted."""
        position = self.positions.get(symbol)
        return position.net + position.capacity if position else 0

    def open_markets(self) -> list[Market]:
        """What can be traded, the nearest gate first."""
        return sorted(self.markets.values(), key=lambda market: (market.gate_us, market.symbol))

    async def _follow_listings(self) -> None:
        async for event in self.client.listings():
            for instrument in event.instruments:
                self._list(event, instrument)

    def _list(self, event: InstrumentEvent, instrument: Instrument) -> None:
        if event.what in ("closed", "delisted") or instrument.status != "continuous":
            self.markets.pop(instrument.sym, None)
            if event.what == "delisted":
                self.positions.pop(instrument.sym, None)
            return
        contract = self._catalogue.contract(instrument.sym)
        self.markets[instrument.sym] = Market(instrument.sym, contract, instrument.gate)

    async def _follow_account(self, events: Feed[AnyEvent]) -> None:
        async for event in events:
            if isinstance(event, PositionEvent):
                self.positions[event.position.sym] = event.position
            elif isinstance(event, Snapshot):
                self.positions = {position.sym: position for position in event.positions}
            if isinstance(event, Fill | OrderEvent):
                self.on_event(event)
