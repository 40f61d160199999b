"""`wellhead watch`: a market in the terminal, through the public protocol and nothing else.

A contract shows its ladder, its last trades and, with a key, the account's own orders in it. A class, a region or both
show a line for each hour: best bid and ask, the last trade and what was traded while one looked. The picture is a
function of `Scene`, which the connection fills.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wellhead.book import Book
from wellhead.client import Client
from wellhead.types import Fill, Instrument, InstrumentEvent, Order, OrderEvent, Snapshot, Trade

LADDER = 10
TRADES = 20
MOST_BOOKS = 200
"""Books at a time: more would fit on no screen, and each is a subscription."""
FRAME_S = 0.25
DOT = "·"


class WatchError(Exception):
    """There is nothing of that name to look at."""


@dataclass(slots=True)
class Traded:
    """What was traded in a contract while one looked."""

    last: Trade | None = None
    lots: int = 0


@dataclass(slots=True)
class Scene:
    """Everything a picture shows."""

    what: str
    instruments: list[Instrument]
    books: dict[str, Book] = field(default_factory=dict)
    trades: deque[Trade] = field(default_factory=lambda: deque(maxlen=TRADES))
    traded: dict[str, Traded] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)  # the account's own
    account: str = ""
    left_out: int = 0  # contracts that are listed and not shown
    connected: bool = True
    listed: dict[str, Instrument] = field(default_factory=dict)
    is_stale: bool = False  # the name means other contracts by now

    def on_listing(self, event: InstrumentEvent) -> None:
        """What is listed, or what has become of it: hours come and go while one looks."""
        for one in event.instruments:
            self.listed[one.sym] = one
        try:
            found = choose(self.what, list(self.listed.values()))[:MOST_BOOKS]
        except WatchError:
            return  # it is gone: what was known of it stays to be read
        self.is_stale = [one.sym for one in found] != [one.sym for one in self.instruments]
        self.instruments = [self.listed.get(one.sym, one) for one in self.instruments]

    def on_trade(self, trade: Trade) -> None:
        """A public trade."""
        self.trades.appendleft(trade)
        seen = self.traded.setdefault(trade.sym, Traded())
        seen.last, seen.lots = trade, seen.lots + trade.qty

    def on_event(self, event: object) -> None:
        """A private event: the account's orders as they are after it."""
        if isinstance(event, Snapshot):
            self.orders = {order.oid: order for order in event.orders}
        elif isinstance(event, OrderEvent):
            if event.status in ("filled", "canceled") or not event.left:
                self.orders.pop(event.oid, None)
            else:
                self.orders[event.oid] = Order(
                    event.oid, event.cid, event.sym, event.side, event.type, event.px, event.qty, event.left,
                    event.filled, event.tif, event.post_only, event.status, event.ts,
                )  # fmt: skip
        elif isinstance(event, Fill) and (order := self.orders.get(event.oid)) is not None:
            order.left, order.filled, order.status = event.left, event.filled, event.status
            if not event.left:
                del self.orders[event.oid]

    def own_lots(self, sym: str, side: str, px: Decimal) -> int:
        """The account's own working lots at a price."""
        return sum(o.left for o in self.orders.values() if (o.sym, o.side, o.px) == (sym, side, px))


def choose(what: str, listed: list[Instrument]) -> list[Instrument]:
    """The contracts that a name means: one symbol, or all open ones of a class, a region, or a class in a region.

    Raises WatchError, which says what there is.
    """
    name = what.upper()
    open_ones = sorted((one for one in listed if one.status != "delisted"), key=lambda one: (one.start, one.sym))
    found = [one for one in open_ones if name in (one.sym, one.gpu_class, one.region, f"{one.gpu_class}-{one.region}")]
    if not found:
        names = sorted({f"{one.gpu_class}-{one.region}" for one in open_ones})
        raise WatchError(f"nothing listed is called {what!r}; there are {', '.join(names) or 'no contracts'}")
    return [one for one in found if one.status != "closed"] or found


# --- The picture ------------------------------------------------------------------------------------------------------


def picture(scene: Scene) -> RenderableType:
    """The screen."""
    if len(scene.instruments) == 1 and scene.what.upper() == scene.instruments[0].sym:
        return _contract(scene)
    return _market(scene)


def _head(scene: Scene) -> Text:
    state = "" if scene.connected else "   [lost: connecting again]"
    return Text.assemble((f" {scene.what.upper()} ", "bold reverse"), f"  {_clock(time.time())} UTC", (state, "red"))


def _contract(scene: Scene) -> RenderableType:
    instrument = scene.instruments[0]
    book = scene.books.get(instrument.sym)
    facts = (
        f"{instrument.gpus_per_lot} GPUs a lot, tick {_px(instrument.tick)}, gate {_clock(instrument.gate / 1e6)} UTC"
    )
    parts: list[RenderableType] = [_head(scene), Text(f"{facts}, {instrument.status}", "dim")]
    parts.append(Columns([_ladder(scene, instrument.sym, book), _trades(scene)], padding=(0, 3)))
    if scene.account:
        parts.append(_orders(scene))
    return Group(*parts)


def _ladder(scene: Scene, sym: str, book: Book | None) -> Table:
    table = _table("own", "bid lots", "price", "ask lots", "own")
    if book is None or not book.ready:
        table.add_row("", "", "waiting for the book", "", "")
        return table
    for level in reversed(book.asks[:LADDER]):
        own = scene.own_lots(sym, "sell", level.px)
        table.add_row("", "", Text(_px(level.px), "red"), f"{level.qty:,}", Text(f"{own:,}" if own else "", "yellow"))
    if book.best_bid and book.best_ask:
        table.add_row("", "", Text(f"spread {_px(book.best_ask.px - book.best_bid.px)}", "dim"), "", "")
    for level in book.bids[:LADDER]:
        own = scene.own_lots(sym, "buy", level.px)
        table.add_row(Text(f"{own:,}" if own else "", "yellow"), f"{level.qty:,}", Text(_px(level.px), "green"), "", "")
    if not book.bids and not book.asks:
        table.add_row("", "", "empty", "", "")
    return table


def _trades(scene: Scene) -> Table:
    table = _table("time", "price", "lots")
    for trade in scene.trades:
        colour = "green" if trade.side == "buy" else "red"
        table.add_row(_clock(trade.ts / 1e6), Text(_px(trade.px), colour), f"{trade.qty:,}")
    if not scene.trades:
        table.add_row(DOT, "no trades yet", DOT)
    return table


def _orders(scene: Scene) -> RenderableType:
    shown = {one.sym for one in scene.instruments}
    orders = [order for order in scene.orders.values() if order.sym in shown]
    table = _table("order", "contract", "side", "price", "left", "of")
    for order in sorted(orders, key=lambda order: (order.sym, order.side, order.px)):
        table.add_row(str(order.oid), order.sym, order.side, _px(order.px), f"{order.left:,}", f"{order.qty:,}")
    return Group(Text(f"{len(orders)} orders of {scene.account}", "bold"), table)


def _market(scene: Scene) -> RenderableType:
    own = bool(scene.account)
    table = _table(
        "contract", "bid lots", "bid", "ask", "ask lots", "spread", "last", "traded", *(["own"] if own else [])
    )
    for one in scene.instruments:
        book, seen = scene.books.get(one.sym), scene.traded.get(one.sym, Traded())
        bid = book.best_bid if book and book.ready else None
        ask = book.best_ask if book and book.ready else None
        row: list[str | Text] = [
            one.sym, f"{bid.qty:,}" if bid else DOT, Text(_px(bid.px) if bid else DOT, "green"),
            Text(_px(ask.px) if ask else DOT, "red"), f"{ask.qty:,}" if ask else DOT,
            _px(ask.px - bid.px) if bid and ask else DOT, _px(seen.last.px) if seen.last else DOT, f"{seen.lots:,}",
        ]  # fmt: skip
        if own:
            row.append(f"{sum(1 for order in scene.orders.values() if order.sym == one.sym) or DOT}")
        table.add_row(*row)
    parts: list[RenderableType] = [_head(scene), table]
    if scene.left_out:
        parts.append(Text(f"and {scene.left_out:,} more: name a class and a region", "dim"))
    return Group(*parts)


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name in ("contract", "side", "time") else "right", no_wrap=True)
    return table


def _px(px: Decimal) -> str:
    return f"{px:,.4f}"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


# --- The connection ---------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def watching(url: str, what: str, key_file: Path | None = None) -> AsyncIterator[Scene]:
    """A scene that follows the market while inside. Raises WatchError, WellheadError, OSError."""
    client = Client.from_key_file(url, key_file, cod=False) if key_file else Client(url)
    events = client.events()
    async with client, asyncio.TaskGroup() as group:
        found = choose(what, await client.instruments(closed=True))
        scene = Scene(what, found[:MOST_BOOKS], left_out=len(found[MOST_BOOKS:]), account=client.account or "")
        shown = {one.sym for one in scene.instruments}

        async def follow_trades() -> None:
            async for trade in client.trades(*shown):
                scene.on_trade(trade)

        async def follow_listings() -> None:
            async for event in client.listings():
                scene.on_listing(event)

        async def follow_events() -> None:
            async for event in events:
                scene.on_event(event)

        tasks = [group.create_task(follow_trades()), group.create_task(follow_listings())]
        if key_file:
            tasks.append(group.create_task(follow_events()))
        for sym in shown:
            scene.books[sym] = await client.book(sym)
        tasks.append(group.create_task(_look_at(client, scene)))
        yield scene
        for task in tasks:
            task.cancel()


async def _look_at(client: Client, scene: Scene) -> None:
    while True:
        scene.connected = client.connected
        await asyncio.sleep(FRAME_S)


async def watch(
    url: str, what: str, key_file: Path | None, seconds: float | None, show: Callable[[RenderableType], None]
) -> None:
    """Show a picture several times a second, for ever or for some seconds."""
    ends, traded = None, dict[str, Traded]()
    while True:
        async with watching(url, what, key_file) as scene:
            scene.traded = traded  # also of what was seen before the hours changed
            if seconds is not None and ends is None:
                ends = asyncio.get_running_loop().time() + seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(ends):
                    while not scene.is_stale:
                        show(picture(scene))
                        await asyncio.sleep(FRAME_S)
            show(picture(scene))
            if not scene.is_stale:
                return
