"""What the client library gives its users: typed results and events. Prices and money are Decimal, in dollars.

Times are microseconds since the epoch, quantities lots. The fields are those of docs/protocol.md; a few that are short
on the wire have their whole name here (`st` is `status`, `cum` is `filled`).
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec
from msgspec import Struct, field

Side = Literal["buy", "sell"]
OrderType = Literal["limit", "market", "stop", "stop_limit"]
TimeInForce = Literal["gtg", "gtc", "ioc", "fok", "gtd"]
SelfTrade = Literal["expire_taker", "expire_maker", "expire_both", "decrement"]
OrderStatus = Literal["waiting", "new", "partial", "filled", "canceled"]
InstrumentStatus = Literal["continuous", "pre_open", "auction", "halted", "cancel_only", "closed", "delisted"]
Price = str | Decimal | int
"""A price as the library takes it. Never a float: 0.1 is not a tenth."""


class WellheadError(Exception):
    """Something was refused or failed. `code` and `name` are those of the protocol; `final`: it has not happened and
    never will. `details` has what else the server said (`field`, `status`, `retry_us`, `until`, `now`).
    """

    def __init__(self, code: int, name: str, message: str, *, final: bool = True, **details: Any) -> None:
        super().__init__(f"{name} ({code}): {message}")
        self.code, self.name, self.message, self.final, self.details = code, name, message, final, details


class Rejected(WellheadError):
    """The server refused a request."""


class LogonRefused(WellheadError):
    """The server did not take the key, or takes it no more."""


class SessionReplaced(WellheadError):
    """The same key logged on elsewhere; this client stays closed."""


class Disconnected(WellheadError):
    """There is no connection. With `final` the request was never sent."""


class OutcomeUnknown(WellheadError):
    """The request was sent and the answer did not come: it may or may not have happened."""


class BookOutOfSync(WellheadError):
    """A local book does not match the server's. The client subscribes again by itself."""


class Level(NamedTuple):
    """A price level of a book."""

    px: Decimal
    qty: int


class OrderAck(Struct, kw_only=True):
    """Where an order stood when the request was done."""

    oid: int
    cid: str | None
    status: OrderStatus = field(name="st")
    left: int
    filled: int = field(name="cum")
    kept: bool | None = None  # of an amend: it kept its place in the queue
    dup: bool = False  # the answer to an earlier request with this cid
    aseq: int | None = None  # the first private event it caused
    t_in: int = 0
    t_out: int = 0


class Order(Struct):
    """A working order."""

    oid: int
    cid: str | None
    sym: str
    side: Side
    type: OrderType
    px: Decimal
    qty: int
    left: int
    filled: int = field(name="cum")
    tif: TimeInForce
    post_only: bool = field(name="post")
    status: OrderStatus = field(name="st")
    ts: int
    stop: Decimal | None = None  # of a stop: its trigger
    show: int | None = None  # of an iceberg: what is visible at the most
    shown: int | None = None  # of an iceberg in the book: what is visible
    min_qty: int | None = None
    expire: int | None = None  # of gtd, microseconds
    slide: bool = False
    reduce_only: bool = False
    stp: SelfTrade | None = None
    stp_group: int | None = None
    tag: int | None = None
    group: int | None = None
    level: int | None = None  # of a quote: its place in the ladder, from 0


class PastOrder(Struct, kw_only=True):
    """A finished order. `seq` is the event that ended it, `ts` when it was accepted, `done` when it ended."""

    seq: int
    oid: int
    cid: str | None
    sym: str
    side: Side
    type: OrderType
    px: Decimal
    qty: int
    filled: int = field(name="cum")
    tif: TimeInForce
    post_only: bool = field(name="post")
    status: OrderStatus = field(name="st")
    why: str | None
    ts: int
    done: int
    stop: Decimal | None = None
    show: int | None = None
    expire: int | None = None
    slide: bool = False
    reduce_only: bool = False


class PastFill(Struct, kw_only=True):
    """A fill, as in the private events. A positive `fee` is paid, a negative one is a rebate that accrues."""

    tid: int
    ts: int
    oid: int
    cid: str | None
    sym: str
    side: Side
    px: Decimal
    qty: int
    left: int
    filled: int = field(name="cum")
    liquidity: Literal["taker", "maker"] = field(name="liq")
    fee: Decimal
    fee_due: Decimal


class Statement(Struct):
    """A settled cycle, for an account. `net` is what trades, fees and deliveries came to."""

    cycle: int
    ts: int
    from_seq: int
    to_seq: int
    net: Decimal
    external: Decimal
    root: str


class CoinAddress(Struct):
    """Where an account's deposits of a stablecoin go: call `deposit(units, ref)` of the vault."""

    coin: int
    symbol: str
    chain: str
    chain_id: int
    vault: str
    contract: str
    decimals: int
    ref: str


class Position(Struct):
    """What the account has in one instrument. `net` > 0: will receive lots; < 0: must deliver them."""

    sym: str
    net: int
    capacity: int
    open_buy: int
    open_sell: int
    escrow: Decimal
    fees_due: Decimal
    bond: Decimal


class Balance(Struct):
    """The account's money: `cash` is free, `held` reserved by buy orders."""

    cash: Decimal
    held: Decimal
    escrow: Decimal
    fees_due: Decimal
    bond: Decimal
    rebate: Decimal
    frozen: Decimal


class Instrument(Struct):
    """A contract and its terms."""

    sym: str
    gpu_class: str = field(name="class")
    region: str
    gpus_per_lot: int
    hours: int
    start: int
    tick: Decimal
    lot_tick: Decimal
    max_px: Decimal
    ref_px: Decimal
    opens: int
    gate: int
    taker_ppm: int
    rebate_ppm: int
    bond_ppm: int
    status: InstrumentStatus
    low_px: Decimal = Decimal(0)  # of an order, at the least
    high_px: Decimal | None = None  # and at the most
    collar_ppm: int = 0  # how far from the best price a market order trades; 0: no limit
    dynamic_ppm: int = 0  # how far from the last trade it may trade before an auction is called; 0: no limit


class InstrumentEvent(Struct):
    """`snapshot`: all that is listed; else one instrument that was listed, changed, closed or delisted."""

    what: Literal["snapshot", "listed", "changed", "closed", "delisted"] = field(name="ev")
    ts: int
    instruments: list[Instrument] = field(name="list")


class Trade(Struct, kw_only=True):
    """A public trade; `side` is the taker's."""

    sym: str = ""
    tid: int
    px: Decimal
    qty: int
    side: Side
    ts: int


class Event(Struct, tag_field="ev", kw_only=True):
    """A private event. `aseq` counts the account's events by one."""

    aseq: int
    seq: int
    ts: int


class Protection(Struct):
    """Market-maker protection of a group. `frozen`: it was triggered and waits for `until`, or for `Client.reset_mmp`."""

    group: int
    window_ms: int
    lots: int
    fills: int
    frozen: bool
    freeze_ms: int = 0  # how long a freeze lasts; 0: until it is reset
    until: int | None = None  # when this one ends by itself, microseconds


class Timer(Struct):
    """A dead man's switch: the orders with the tag (0: all) are cancelled at `at`, microseconds."""

    tag: int
    at: int


class Protections(Struct):
    """What watches over the account's orders."""

    mmp: list[Protection]
    timers: list[Timer]
    locked: bool


class Snapshot(Event, kw_only=True, tag="snapshot"):
    """The whole account: the first event, and again when a reconnect could not make up for what was missed."""

    orders: list[Order]
    positions: list[Position]
    balances: Balance
    mmp: list[Protection] = []
    timers: list[Timer] = []
    locked: bool = False


class OrderEvent(Event, kw_only=True, tag="order"):
    """An order was accepted, replaced or cancelled; a stop was triggered; an iceberg shows its next lots."""

    what: Literal["new", "replaced", "canceled", "triggered", "refreshed"] = field(name="exec")
    why: str | None = None
    kept: bool | None = None
    oid: int
    cid: str | None
    sym: str
    side: Side
    type: OrderType
    px: Decimal
    qty: int
    left: int
    filled: int = field(name="cum")
    tif: TimeInForce
    post_only: bool = field(name="post")
    status: OrderStatus = field(name="st")
    stop: Decimal | None = None  # of a stop: its trigger
    show: int | None = None  # of an iceberg: what is visible at the most
    shown: int | None = None  # of an iceberg in the book: what is visible
    min_qty: int | None = None
    expire: int | None = None  # of gtd, microseconds
    slide: bool = False
    reduce_only: bool = False
    stp: SelfTrade | None = None
    stp_group: int | None = None
    tag: int | None = None
    group: int | None = None
    level: int | None = None  # of a quote: its place in the ladder, from 0


class Fill(Event, kw_only=True, tag="fill"):
    """A trade of the account. A positive `fee` is paid, a negative one is a rebate that accrues."""

    tid: int
    oid: int
    cid: str | None
    sym: str
    side: Side
    px: Decimal
    qty: int
    left: int
    filled: int = field(name="cum")
    status: OrderStatus = field(name="st")
    liquidity: Literal["taker", "maker"] = field(name="liq")
    fee: Decimal
    fee_due: Decimal


class PositionEvent(Event, kw_only=True, tag="position"):
    """A position changed."""

    position: Position


class BalanceEvent(Event, kw_only=True, tag="balance"):
    """The account's money changed."""

    balances: Balance


class MoneyEvent(Event, kw_only=True, tag="money"):
    """A movement of cash that is no trade and no delivery."""

    what: Literal[
        "deposit", "withdrawal", "nomination", "bond_released", "rebate", "transfer", "split", "lien", "lien_lifted"
    ]  # fmt: skip
    amount: Decimal
    sym: str | None = None
    lots: int | None = None


class DeliveryEvent(Event, kw_only=True, tag="delivery"):
    """What is to be delivered (`due`), and how it went (`done`)."""

    what: Literal["due", "done"]
    role: Literal["provider", "receiver"]
    sym: str
    lots: int
    amount: Decimal
    refund: Decimal
    damages: Decimal


class PreventedEvent(Event, kw_only=True, tag="prevented"):
    """A trade with oneself that did not happen; each of the two orders has one. What `what` does to them follows, but of
    `decrement` it is done.
    """

    what: SelfTrade
    liquidity: Literal["taker", "maker"] = field(name="liq")
    oid: int
    other: int
    cid: str | None
    sym: str
    side: Side
    px: Decimal
    qty: int
    left: int
    filled: int = field(name="cum")


class MmpEvent(Event, kw_only=True, tag="mmp"):
    """Market-maker protection of a group was set, switched off, triggered (its orders are cancelled) or reset."""

    what: Literal["set", "off", "triggered", "reset"]
    group: int
    window_ms: int | None = None
    lots: int | None = None
    fills: int | None = None
    sym: str | None = None
    freeze_ms: int | None = None  # of set: how long a freeze lasts, where it ends by itself
    until: int | None = None  # of triggered: when this one ends by itself, microseconds


class TimerEvent(Event, kw_only=True, tag="timer"):
    """A dead man's switch was set, switched off, or has fired; `tag` 0: of all orders."""

    what: Literal["set", "off", "fired"]
    tag: int
    at: int | None = None


class AccountEvent(Event, kw_only=True, tag="account"):
    """The account was locked or unlocked, or has other limits; 0: those of all."""

    what: Literal["locked", "unlocked", "limits"]
    qty: int | None = None
    net: int | None = None
    orders: int | None = None


AnyEvent = (
    Snapshot | OrderEvent | Fill | PositionEvent | BalanceEvent | MoneyEvent | DeliveryEvent | PreventedEvent | MmpEvent
    | TimerEvent | AccountEvent
)  # fmt: skip


class NewOrder(Struct, frozen=True):
    """An order for `Client.batch`. Without a price it is a market order, with `stop` a stop or a stop-limit order."""

    sym: str
    side: Side
    qty: int
    px: Price | None = None
    tif: TimeInForce | None = None
    post_only: bool = False
    cid: str | None = None
    cod: bool = True
    stop: Price | None = None  # wait until the last trade reaches this price
    expire: int | None = None  # of a gtd order, microseconds by the market's clock
    deadline: int | None = None  # refuse it when it is taken in later, likewise
    show: int | None = None  # iceberg: so many lots are visible at a time
    min_qty: int | None = None  # refuse it unless so many lots trade at once
    slide: bool = False  # rather than trade at once, one tick behind the other side
    reduce_only: bool = False
    stp: SelfTrade | None = None  # instead of a trade with an order of one's own
    stp_group: int | None = None  # orders of the owner's other accounts with this number are one's own, too
    tag: int | None = None  # for cancel_all and cancel_after
    group: int | None = None  # for market-maker protection


class AmendOrder(Struct, frozen=True):
    """An amend for `Client.batch`: name the order by `oid` or `cid`."""

    oid: int | None = None
    cid: str | None = None
    px: Price | None = None
    qty: int | None = None
    stop: Price | None = None
    deadline: int | None = None


class Terms(TypedDict, total=False):
    """What `Client.place` takes beyond a plain order: see NewOrder."""

    stop: Price | None
    expire: int | None
    deadline: int | None
    show: int | None
    min_qty: int | None
    slide: bool
    reduce_only: bool
    stp: SelfTrade | None
    stp_group: int | None
    tag: int | None
    group: int | None


class Marks(TypedDict, total=False):
    """What `Client.quote` takes for all quotes."""

    post_only: bool
    slide: bool
    stp: SelfTrade | None
    stp_group: int | None
    deadline: int | None


Rung = tuple[Price, int]
"""A level of a ladder: price and lots."""


class Ladder(Struct, frozen=True):
    """Quotes in one symbol for `Client.quote`, best first. A side that is given is the whole side; None leaves it as it is."""

    sym: str
    bids: Sequence[Rung] | None = None
    asks: Sequence[Rung] | None = None


class QuoteAck(Struct, kw_only=True):
    """What became of one level: it is `new`, the `same` as before (and has kept its place), `replaced`, `canceled`, there was
    `none`, or it is `refused`: `error` says why, and what was quoted there before is still there.
    """

    act: Literal["new", "same", "replaced", "canceled", "none", "refused"]
    oid: int | None = None
    left: int = 0
    filled: int = field(name="cum", default=0)
    status: OrderStatus | None = field(name="st", default=None)
    kept: bool | None = None
    error: WellheadError | None = None


class LadderAck(Struct):
    """The levels of a ladder in the order in which they were given; then those that were quoted beyond their end."""

    sym: str
    bids: list[QuoteAck]
    asks: list[QuoteAck]


class CancelOrder(Struct, frozen=True):
    """A cancel for `Client.batch`: name the order by `oid` or `cid`."""

    oid: int | None = None
    cid: str | None = None


def scaled(value: Any) -> Any:
    """A value as MessagePack brought it, with its money (whole 10^-6) turned into dollars, in place."""
    if isinstance(value, Decimal):
        return value.scaleb(-6)
    if isinstance(value, list | tuple):
        return type(value)(scaled(item) for item in value)
    if isinstance(value, Struct):
        for name in value.__struct_fields__:
            content = getattr(value, name)
            if isinstance(content, Decimal | list | tuple | Struct):
                msgspec.structs.force_setattr(value, name, scaled(content))
    return value
