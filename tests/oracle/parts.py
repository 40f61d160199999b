"""What the twin is made of: accounts, positions, orders, books. Plain ints, dicts and lists."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import neg
from types import SimpleNamespace
from typing import Any

from sortedcontainers import SortedDict

from engine.types import STP_MASK, Flag, OrdType, Reason, Side, Status, TimeInForce

MILLION = 1_000_000
KEPT_FLAGS = Flag.POST_ONLY | Flag.SLIDE | Flag.REDUCE_ONLY | STP_MASK
"""Of the flags of a command, those that the order keeps."""
GATHERING = (Status.PRE_OPEN, Status.AUCTION)


class Rejected(Exception):
    """A command failed a check. Raised before anything has changed."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


def need(condition: bool, reason: Reason) -> None:
    """A row of a table of checks."""
    if not condition:
        raise Rejected(reason)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass
class Account:
    cash: int = 0
    held: int = 0
    rebate: int = 0
    open_orders: int = 0
    frozen: int = 0  # under liens
    is_frozen: int = 0
    withdrawing: int = 0  # to a chain, set aside
    most_qty: int = 0  # of SET_LIMITS; 0: what holds for all
    most_net: int = 0
    most_orders: int = 0


@dataclass
class Position:
    net: int = 0
    capacity: int = 0
    open_buy: int = 0
    open_sell: int = 0
    escrow: int = 0
    fees_due: int = 0
    bond: int = 0

    def reducible(self, side: int) -> int:
        """The lots that an order of a side brings nearer to zero at the most."""
        return max(-self.net, 0) if side == Side.BUY else max(self.net, 0)


@dataclass
class Order:
    order_id: int
    account: int
    instrument: int
    side: int
    price: int
    qty: int
    leaves: int
    flags: int
    session: int
    ord_type: int = OrdType.LIMIT
    time_in_force: int = TimeInForce.GTG
    group: int = 0
    tag: int = 0
    stp_group: int = 0
    expire_ns: int = 0
    stop_price: int = 0
    show_qty: int = 0
    shown: int = 0  # of an iceberg in a book
    level: int = -1  # of a quote
    held: int = 0
    cum: int = 0
    waits: bool = False
    gone: bool = False

    @property
    def stp(self) -> int:
        return self.flags & STP_MASK

    @property
    def immediate(self) -> bool:
        """Whether what it does not trade at once is cancelled."""
        return self.ord_type in (OrdType.MARKET, OrdType.STOP) or self.time_in_force in (
            TimeInForce.IOC,
            TimeInForce.FOK,
        )

    @property
    def tradable(self) -> int:
        """What it trades at a time, in a book."""
        return self.shown if self.show_qty else self.leaves

    @property
    def special(self) -> tuple[int, ...]:
        fields = (self.flags, self.group, self.tag, self.stp_group)
        return (*fields, self.expire_ns, self.show_qty, self.shown, self.level)


def same_person(a: Order, b: Order) -> bool:
    return a.account == b.account or 0 != a.stp_group == b.stp_group


@dataclass
class Protection:
    """Market-maker protection of a group."""

    window_ns: int
    lots: int
    fills: int
    frozen: bool = False
    counted: list[tuple[int, int]] = field(default_factory=list)  # when, lots
    freeze_ns: int = 0
    until_ns: int = 0


@dataclass
class Remembered:
    """An accepted order under its client order id."""

    order_id: int
    then_ns: int
    body: tuple[int, ...]


Queue = OrderedDict[int, Order]


def _sides() -> list[Any]:
    """Bids, then asks: price to queue, each iterated from its best price."""
    return [SortedDict(neg), SortedDict()]


@dataclass
class Book:
    """An instrument: its terms, what rests in it, and what waits to."""

    terms: SimpleNamespace
    status: Status = Status.CONTINUOUS
    last_price: int = -1
    sides: list[Any] = field(default_factory=_sides)
    stops: tuple[list[Order], list[Order]] = field(default_factory=lambda: ([], []))  # as they would be triggered

    @property
    def gathers(self) -> bool:
        return self.status in GATHERING

    @property
    def low(self) -> int:
        return max(0, self.terms.reference_price - self._half_band()) if self.terms.band_ppm else 0

    @property
    def high(self) -> int:
        most = int(self.terms.max_price)
        return min(most, self.terms.reference_price + self._half_band()) if self.terms.band_ppm else most

    def _half_band(self) -> int:
        return int(self.terms.reference_price * self.terms.band_ppm // MILLION)

    def collar(self) -> tuple[int, int] | None:
        """The prices at which it may trade without an auction; None: all."""
        if self.terms.dynamic_ppm == 0 or self.last_price < 0:
            return None
        width = self.last_price * self.terms.dynamic_ppm // MILLION
        return self.last_price - width, self.last_price + width

    def hold(self, price: int, q: int) -> int:
        """What a buy order for `q` lots reserves."""
        if q == 0:
            return 0
        notional = self.notional(price, q)
        return notional + self.fee(notional) + q

    def notional(self, price: int, q: int) -> int:
        return price * int(self.terms.lot_tick_micros) * q

    def fee(self, notional: int) -> int:
        return ceil_div(notional * self.terms.taker_fee_ppm, MILLION)

    # Levels

    def best(self, side: int) -> int | None:
        return next(iter(self.sides[side]), None)

    @property
    def is_crossed(self) -> bool:
        bid, ask = self.best(Side.BUY), self.best(Side.SELL)
        return bid is not None and ask is not None and bid >= ask

    def crossed(self, side: int, price: int) -> Iterator[tuple[int, Queue]]:
        """The levels with which an order at this price would trade, best first."""
        for level, queue in self.sides[1 - side].items():
            if (level > price) if side == Side.BUY else (level < price):
                return
            yield level, queue

    def would_trade(self, side: int, price: int) -> bool:
        """Whether an order would take; nobody does while orders are gathered."""
        return not self.gathers and next(self.crossed(side, price), None) is not None

    def within_collar(self, price: int, collar: tuple[int, int] | None) -> bool:
        return collar is None or collar[0] <= price <= collar[1]

    def can_trade(self, order: Order, collar: tuple[int, int] | None) -> int:
        """What counts for FOK and `min_qty`."""
        total = 0
        for price, queue in self.crossed(order.side, order.price):
            if not self.within_collar(price, collar):
                break
            makers = list(queue.values())
            own = [i for i, maker in enumerate(makers) if order.stp and same_person(order, maker)]
            if own and order.stp != Flag.STP_EXPIRE_MAKER:
                return total + sum(maker.tradable for maker in makers[: own[0]])
            total += sum(maker.leaves for i, maker in enumerate(makers) if i not in own)
        return total

    def market_price(self, order: Order) -> int:
        """The limit that makes a market order a limit order."""
        best = self.best(1 - order.side)
        if best is None:
            return 0
        far = self.far(order.side, best)
        total, worst = 0, far
        for price, queue in self.crossed(order.side, far):
            worst = price
            total += sum(o.leaves for o in queue.values() if not (order.stp and same_person(order, o)))
            if total >= order.qty:
                break
        return worst

    def far(self, side: int, price: int) -> int:
        """The last price that a market order may trade at when the best is `price`, or a stop of that stop price."""
        width = price * self.terms.collar_ppm // MILLION if self.terms.collar_ppm else self.terms.max_price
        return int(min(self.high, price + width) if side == Side.BUY else max(self.low, price - width))

    def slide(self, side: int, price: int) -> int | None:
        """The price that an order gets which must not trade; None when there is none."""
        if not self.would_trade(side, price):
            return price
        best = self.best(1 - side)
        assert best is not None
        behind = best - 1 if side == Side.BUY else best + 1
        return behind if self.low <= behind <= self.high else None

    def add(self, order: Order) -> None:
        order.shown = min(order.show_qty, order.leaves)
        self.sides[order.side].setdefault(order.price, OrderedDict())[order.order_id] = order

    def remove(self, order: Order) -> None:
        order.shown = 0
        queue = self.sides[order.side][order.price]
        del queue[order.order_id]
        if not queue:
            del self.sides[order.side][order.price]

    def orders(self, side: int) -> list[Order]:
        """Best level first, oldest first in it."""
        return [order for queue in self.sides[side].values() for order in queue.values()]

    # Stops

    def wait(self, order: Order) -> None:
        """Behind those of its side that would be triggered at the same price."""
        sign = 1 if order.side == Side.BUY else -1
        self.stops[order.side].append(order)
        self.stops[order.side].sort(key=lambda stop: sign * stop.stop_price)

    def due_stop(self) -> Order | None:
        if self.last_price >= 0:
            for order in self.stops[Side.BUY][:1]:
                if self.last_price >= order.stop_price:
                    return order
            for order in self.stops[Side.SELL][:1]:
                if self.last_price <= order.stop_price:
                    return order
        return None
