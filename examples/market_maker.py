"""Quote every hour of one class in one region: a ladder on both sides, moved in batches, until Ctrl-C or for some seconds.

    python examples/market_maker.py ws://127.0.0.1:8765 maker.key L4-EUC 30

The middle is the contract's reference price, lower the more the account is long, so that what was bought is sold again.
Offers need something to deliver: lots that were bought, or capacity that was nominated (see provider.py). Hours that are
listed later join, hours that close drop out; at the end all quotes are taken back.
"""

import asyncio
import contextlib
import sys
from dataclasses import dataclass, field
from decimal import Decimal

from wellhead import (
    AmendOrder,
    CancelOrder,
    Client,
    Fill,
    Instrument,
    InstrumentEvent,
    NewOrder,
    OrderAck,
    OrderEvent,
    Position,
    PositionEvent,
    Snapshot,
    WellheadError,
)

LEVELS = 3
LOTS = 2  # on a level
HALF_SPREAD = Decimal("0.01")  # of the middle
STEP = Decimal("0.005")  # between levels, of the middle
SKEW = Decimal("0.002")  # of the middle, for each lot of the position
MOST_SKEW = Decimal("0.05")
BATCH = 100  # what one request may hold
PAUSE_S = 0.25

Slot = tuple[str, int]  # side, level


@dataclass
class Hour:
    """A contract, what the account has in it, and its quotes: what was asked for last, by their place in the ladder."""

    contract: Instrument
    net: int = 0
    capacity: int = 0
    quotes: dict[Slot, tuple[int, Decimal]] = field(default_factory=dict)  # order id and price

    def ladder(self) -> dict[Slot, Decimal]:
        """The price wanted in each slot; only as many offers as there are lots to deliver."""
        tick, skew = self.contract.tick, max(-MOST_SKEW, min(MOST_SKEW, SKEW * self.net))
        middle = self.contract.ref_px * (1 - skew)
        wanted = {}
        for level in range(LEVELS):
            away = middle * (HALF_SPREAD + STEP * level)
            wanted["buy", level] = max(tick, (middle - away) // tick * tick)
            if (level + 1) * LOTS <= self.capacity + self.net:
                wanted["sell", level] = ((middle + away) // tick + 1) * tick
        return wanted

    def changes(self) -> list[tuple[Slot, NewOrder | AmendOrder | CancelOrder]]:
        """What brings the quotes to the ladder; a quote that stays keeps its place in the queue."""
        wanted, found = self.ladder(), []
        for slot, (oid, px) in self.quotes.items():
            if slot not in wanted:
                found.append((slot, CancelOrder(oid)))
            elif px != wanted[slot]:
                found.append((slot, AmendOrder(oid, px=wanted[slot])))
        for slot, px in wanted.items():
            if slot not in self.quotes:
                found.append((slot, NewOrder(self.contract.sym, slot[0], LOTS, px, post_only=True)))
        return found


class Maker:
    """Quotes a market, and keeps count."""

    def __init__(self, client: Client, market: str) -> None:
        self.client, self.market = client, market
        self.hours: dict[str, Hour] = {}
        self.gone: set[int] = set()  # orders that were done before the answer to their batch was looked at
        self.fills = 0

    def on_listing(self, event: InstrumentEvent) -> None:
        for contract in event.instruments:
            if f"{contract.gpu_class}-{contract.region}" != self.market:
                continue
            if contract.status in ("closed", "delisted"):
                self.hours.pop(contract.sym, None)
            else:
                self.hours.setdefault(contract.sym, Hour(contract))

    def on_event(self, event: object) -> None:
        match event:
            case Snapshot(positions=positions):
                for position in positions:
                    self._hold(position)
            case PositionEvent(position=position):
                self._hold(position)
            case Fill(sym=sym, oid=oid, left=left, side=side, qty=qty, px=px):
                self.fills += 1
                print(f"{'bought' if side == 'buy' else 'sold'} {qty} of {sym} at {px}", flush=True)
                if not left:
                    self._forget(sym, oid)
            case OrderEvent(what="canceled", sym=sym, oid=oid):
                self._forget(sym, oid)

    def _hold(self, position: Position) -> None:
        if (hour := self.hours.get(position.sym)) is not None:
            hour.net, hour.capacity = position.net, position.capacity

    def _forget(self, sym: str, oid: int) -> None:
        self.gone.add(oid)
        if (hour := self.hours.get(sym)) is not None:
            hour.quotes = {slot: quote for slot, quote in hour.quotes.items() if quote[0] != oid}

    async def quote(self) -> None:
        """Bring all hours to their ladders, again and again."""
        told = 0
        while True:
            changes = [(hour, *change) for hour in self.hours.values() for change in hour.changes()]
            for start in range(0, len(changes), BATCH):
                part = changes[start : start + BATCH]
                answers = await self.client.batch([order for _, _, order in part])
                for (hour, slot, order), answer in zip(part, answers, strict=True):
                    if isinstance(answer, WellheadError):
                        print(f"{slot[0]} {slot[1]} of {hour.contract.sym}: {answer}", flush=True)
                    if not isinstance(answer, OrderAck) or not answer.left or answer.oid in self.gone:
                        hour.quotes.pop(slot, None)  # refused, filled or cancelled: the next round asks anew
                    elif not isinstance(order, CancelOrder):
                        hour.quotes[slot] = (answer.oid, Decimal(order.px))
            self.gone.clear()
            if not changes and told != len(self.hours):  # all is in place
                told = len(self.hours)
                print(
                    f"{sum(len(hour.quotes) for hour in self.hours.values())} quotes in {told} hours of {self.market}",
                    flush=True,
                )
            await asyncio.sleep(PAUSE_S)

    async def follow_listings(self) -> None:
        async for event in self.client.listings():
            self.on_listing(event)

    async def follow_events(self, events) -> None:
        async for event in events:
            self.on_event(event)


async def main(url: str, key_file: str, market: str, seconds: str = "") -> None:
    client = Client.from_key_file(url, key_file, cod=True)  # cancel on disconnect: no quote outlives the maker
    events = client.events()  # made before the connection, it begins with the whole account
    async with client:
        maker = Maker(client, market)
        gpu_class, region = market.split("-")
        maker.hours = {
            one.sym: Hour(one) for one in await client.instruments(gpu_class, region) if one.status != "closed"
        }
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(float(seconds) if seconds else None), asyncio.TaskGroup() as group:
                group.create_task(maker.follow_listings())
                group.create_task(maker.follow_events(events))
                group.create_task(maker.quote())
        print(f"{await client.cancel_all()} quotes taken back after {maker.fills} fills")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
