"""Quote every hour of one class in one region: a ladder on both sides, moved in mass quotes, until Ctrl-C or for some seconds.

    python examples/market_maker.py ws://127.0.0.1:8765 maker.key L4-EUC 30

The key needs the scopes read, trade and quote. The middle is the contract's reference price, lower the more the account is
long, so that what was bought is sold again. Offers need something to deliver: lots that were bought, or capacity that was
nominated (see provider.py). Hours that are listed later join, hours that close drop out.

Three things see to it that no quote outlives its maker or its plan: protection takes all of them off the market between two
trades when too much was traded at once; a dead man's switch cancels them when this program hangs; cancel on disconnect when
the connection is lost. At the end all are taken back.
"""

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from decimal import Decimal

from wellhead import (
    Client,
    Fill,
    Instrument,
    InstrumentEvent,
    Ladder,
    LadderAck,
    MmpEvent,
    OrderEvent,
    Position,
    PositionEvent,
    Snapshot,
)

LEVELS = 3
LOTS = 2  # on a level
HALF_SPREAD = Decimal("0.01")  # of the middle
STEP = Decimal("0.005")  # between levels, of the middle
SKEW = Decimal("0.002")  # of the middle, for each lot of the position
MOST_SKEW = Decimal("0.05")
GROUP = 1  # our quotes, for protection and for taking them back
MOST_LOTS, MOST_FILLS, WINDOW_MS = 60, 20, 1_000  # traded within so long: protection
COOL_DOWN_S = 1.0  # after it
DEAD_MAN_MS = 30_000  # of the market's clock
HOURS = 100  # in one message
PAUSE_S = 0.25


@dataclass
class Hour:
    """A contract, what the account has in it, and the ladder that was sent last; None: it is to be sent anew."""

    contract: Instrument
    net: int = 0
    capacity: int = 0
    sent: Ladder | None = None
    quotes: int = 0

    def ladder(self) -> Ladder:
        """The quotes wanted; only as many offers as there are lots to deliver."""
        tick, skew = self.contract.tick, max(-MOST_SKEW, min(MOST_SKEW, SKEW * self.net))
        middle = self.contract.ref_px * (1 - skew)
        bids, asks = [], []
        for level in range(LEVELS):
            away = middle * (HALF_SPREAD + STEP * level)
            bids.append((max(tick, (middle - away) // tick * tick), LOTS))
            if (level + 1) * LOTS <= self.capacity + self.net:
                asks.append((((middle + away) // tick + 1) * tick, LOTS))
        return Ladder(self.contract.sym, bids, asks)

    def note(self, answer: LadderAck) -> None:
        """What became of the ladder."""
        levels = answer.bids + answer.asks
        self.quotes = sum(level.left > 0 for level in levels)
        for refusal in [level.error for level in levels if level.error]:
            self.sent = None
            print(f"{self.contract.sym}: {refusal}", flush=True)


class Maker:
    """Quotes a market, and keeps count."""

    def __init__(self, client: Client, market: str) -> None:
        self.client, self.market = client, market
        self.hours: dict[str, Hour] = {}
        self.fills = 0
        self.is_protected = asyncio.Event()  # protection was triggered

    def on_listing(self, event: InstrumentEvent) -> None:
        for contract in event.instruments:
            if f"{contract.gpu_class}-{contract.region}" != self.market:
                continue
            if contract.status in ("closed", "delisted"):
                self.hours.pop(contract.sym, None)
            else:
                hour = self.hours.setdefault(contract.sym, Hour(contract))
                hour.contract, hour.sent = contract, None

    def on_event(self, event: object) -> None:
        match event:
            case Snapshot(positions=positions):
                for position in positions:
                    self._hold(position)
            case PositionEvent(position=position):
                self._hold(position)
            case Fill(sym=sym, side=side, qty=qty, px=px):
                self.fills += 1
                print(f"{'bought' if side == 'buy' else 'sold'} {qty} of {sym} at {px}", flush=True)
                self._renew(sym)
            case OrderEvent(what="canceled", sym=sym):
                self._renew(sym)
            case MmpEvent(what="triggered", lots=lots, fills=fills):
                print(f"{lots} lots in {fills} fills at once: all quotes are off the market", flush=True)
                self.is_protected.set()

    def _hold(self, position: Position) -> None:
        if (hour := self.hours.get(position.sym)) is not None:
            hour.net, hour.capacity = position.net, position.capacity

    def _renew(self, sym: str) -> None:
        if (hour := self.hours.get(sym)) is not None:
            hour.sent = None

    async def quote(self) -> None:
        """Bring all hours to their ladders, again and again."""
        told = 0
        while True:
            if self.is_protected.is_set():
                await asyncio.sleep(COOL_DOWN_S)
                self.is_protected.clear()
                await self.client.reset_mmp(GROUP)
            await self.client.cancel_after(DEAD_MAN_MS)
            trading = [hour for hour in self.hours.values() if hour.contract.status not in ("halted", "cancel_only")]
            wanted = [(hour, ladder) for hour in trading if (ladder := hour.ladder()) != hour.sent]
            for start in range(0, len(wanted), HOURS):
                part = wanted[start : start + HOURS]
                for hour, ladder in part:
                    hour.sent = ladder  # a fill that comes before the answer asks for a new one
                answers = await self.client.quote(GROUP, [ladder for _, ladder in part], post_only=True)
                for (hour, _), answer in zip(part, answers, strict=True):
                    hour.note(answer)
            if not wanted and told != len(self.hours):  # all is in place
                told = len(self.hours)
                print(
                    f"{sum(hour.quotes for hour in self.hours.values())} quotes in {told} hours of {self.market}",
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
    client = Client.from_key_file(url, key_file, cod=True)  # cancel on disconnect
    events = client.events()  # made before the connection, it begins with the whole account
    async with client:
        maker = Maker(client, market)
        gpu_class, region = market.split("-")
        maker.hours = {one.sym: Hour(one) for one in await client.instruments(gpu_class, region)}
        await client.set_mmp(GROUP, lots=MOST_LOTS, fills=MOST_FILLS, window_ms=WINDOW_MS)
        await client.reset_mmp(GROUP)  # an earlier run may have left it frozen
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(float(seconds) if seconds else None), asyncio.TaskGroup() as group:
                group.create_task(maker.follow_listings())
                group.create_task(maker.follow_events(events))
                group.create_task(maker.quote())
        print(f"{await client.cancel_all(group=GROUP)} quotes taken back after {maker.fills} fills")
        await client.cancel_after(0)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:5]))
