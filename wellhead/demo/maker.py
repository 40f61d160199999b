"""A market maker: a ladder on both sides of every book, moved in batches as the reference price moves.

One that was certified capacity sells hours it will deliver; one without bids, and sells on what it has bought.
"""

import asyncio
from dataclasses import dataclass

from gateway.messages import Code
from wellhead.demo.desk import Desk, Market
from wellhead.types import AmendOrder, AnyEvent, CancelOrder, Fill, NewOrder, OrderAck, OrderEvent, Side, WellheadError

PPM = 1_000_000
LEVELS = 3
BATCH_ITEMS = 100
PAUSE_S = 0.02
"""Between two markets, so that a pass over a dozen of them takes a quarter of a second."""
SKEW_PPM_PER_LOT = 250
MAX_SKEW_PPM = 6_000

Slot = tuple[str, Side, int]
"""Symbol, side, level: the place of one order of a ladder."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a maker quotes. `bias_ppm` moves its whole ladder; a level holds `lots` of eight GPUs, or eight times as many
    of one.
    """

    half_spread_ppm: int
    step_ppm: int
    bias_ppm: int
    lots: int


@dataclass(slots=True)
class Quote:
    """A working order of the ladder."""

    oid: int
    price: int
    qty: int
    left: int


class Maker:
    """Quotes until cancelled."""

    def __init__(self, desk: Desk, style: Style) -> None:
        self._desk = desk
        self._style = style
        self._quotes: dict[Slot, Quote] = {}
        self._slots: dict[int, Slot] = {}  # by order id
        self._gone: set[int] = set()  # finished before the answer to their placing was looked at
        desk.on_event = self._on_event

    async def run(self) -> None:
        """One market (all its hours) after the other, for ever."""
        desk = self._desk
        while True:
            groups: dict[str, list[Market]] = {}
            for market in desk.open_markets():
                groups.setdefault(market.symbol.rpartition("-")[0], []).append(market)
            for markets in groups.values():
                await self._requote(markets)
                await asyncio.sleep(PAUSE_S)
            self._forget_closed()
            if not groups:
                await asyncio.sleep(PAUSE_S)

    async def _requote(self, markets: list[Market]) -> None:
        """Bring the ladders of some books to where they should be."""
        orders: list[tuple[Slot, NewOrder | AmendOrder | CancelOrder]] = []
        for market in markets:
            for slot, (price, qty) in self._ladder(market).items():
                order = self._order(market, slot, price, qty)
                if order is not None:
                    orders.append((slot, order))
        # What steps back goes first, so that the other side does not meet it.
        orders.sort(key=lambda order: not self._steps_back(*order))
        for start in range(0, len(orders), BATCH_ITEMS):
            part = orders[start : start + BATCH_ITEMS]
            try:
                results = await self._desk.client.batch([order for _, order in part])
            except WellheadError as error:
                # Too fast: nothing of the batch was done, and the next pass will say it anew.
                if error.code not in (Code.RATE_LIMIT, Code.OVERLOADED):
                    raise
                await asyncio.sleep(PAUSE_S)
                continue
            for (slot, order), result in zip(part, results, strict=True):
                self._take(slot, order, result)

    def _ladder(self, market: Market) -> dict[Slot, tuple[int, int]]:
        """Price and lots wanted in every slot; no lots where nothing is wanted."""
        style, symbol = self._style, market.symbol
        lots = style.lots * (8 // market.contract.gpu_class.gpus_per_lot)
        # What was bought is to be sold again: the more of it, the lower the ladder. A provider's short is its business.
        net = max(self._desk.net(symbol), 0) * market.contract.gpu_class.gpus_per_lot // 8
        skew = min(net * SKEW_PPM_PER_LOT, MAX_SKEW_PPM)
        middle = self._desk.reference(market) * (PPM + style.bias_ppm - skew) // PPM
        spare = self._desk.sellable(symbol)
        ladder: dict[Slot, tuple[int, int]] = {}
        for level in range(LEVELS):
            away = max(1 + level, middle * (style.half_spread_ppm + level * style.step_ppm) // PPM)
            offered = min(lots, max(spare, 0))
            spare -= offered
            ladder[symbol, "buy", level] = (max(middle - away, 1), lots)
            ladder[symbol, "sell", level] = (middle + away, offered)
        return ladder

    def _order(self, market: Market, slot: Slot, price: int, qty: int) -> NewOrder | AmendOrder | CancelOrder | None:
        """What to send for a slot, None when it is as it should be."""
        quote = self._quotes.get(slot)
        if quote is None:
            return NewOrder(market.symbol, slot[1], qty, market.px(price), post_only=True) if qty else None
        if not qty:
            return CancelOrder(quote.oid)
        if quote.price == price and 2 * quote.left >= qty >= quote.left:
            return None
        total = quote.qty - quote.left + qty  # fills included
        return AmendOrder(quote.oid, px=market.px(price) if price != quote.price else None, qty=total)

    def _steps_back(self, slot: Slot, order: NewOrder | AmendOrder | CancelOrder) -> bool:
        quote = self._quotes.get(slot)
        if quote is None or not isinstance(order, AmendOrder) or order.px is None:
            return isinstance(order, CancelOrder)
        price = self._desk.markets[slot[0]].price(order.px)
        return price < quote.price if slot[1] == "buy" else price > quote.price

    def _take(self, slot: Slot, order: NewOrder | AmendOrder | CancelOrder, result: OrderAck | WellheadError) -> None:
        """Note what became of an order of a batch."""
        if isinstance(result, WellheadError):
            # A post-only order that met somebody's stale quote is tried again in the next pass.
            if result.code == Code.ORDER_NOT_FOUND:
                self._drop(slot)
            return
        if result.left == 0 or result.status == "canceled" or result.oid in self._gone:
            self._gone.discard(result.oid)
            self._drop(slot)
            return
        quote, market = self._quotes.get(slot), self._desk.markets.get(slot[0])
        px = None if isinstance(order, CancelOrder) else order.px
        if market is None or (px is None and quote is None):
            return
        price = quote.price if quote is not None and px is None else market.price(px or 0)
        self._quotes[slot] = Quote(result.oid, price, result.left + result.filled, result.left)
        self._slots[result.oid] = slot

    def _drop(self, slot: Slot) -> None:
        quote = self._quotes.pop(slot, None)
        if quote is not None:
            self._slots.pop(quote.oid, None)

    def _on_event(self, event: AnyEvent) -> None:
        if not isinstance(event, Fill | OrderEvent):
            return
        slot = self._slots.get(event.oid)
        done = event.status in ("filled", "canceled")
        if slot is None:
            if done:
                self._gone.add(event.oid)
        elif done:
            self._drop(slot)
        elif isinstance(event, Fill):
            self._quotes[slot].left = event.left

    def _forget_closed(self) -> None:
        """Orders of closed books were cancelled by the gate."""
        for slot in [slot for slot in self._quotes if slot[0] not in self._desk.markets]:
            self._drop(slot)
        if len(self._gone) > 10_000:
            self._gone.clear()
