"""What the client library gives its users: typed results and events. Prices and money are Decimal, in dollars.

Times are microseconds since the epoch, quantities lots. The fields are those of docs/protocol.md; a few that are short
on the wire have their whole name here (`st` is `status`, `cum` is `filled`).
"""

from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct, field

Side = Literal["buy", "sell"]
OrderType = Literal["limit", "market"]
TimeInForce = Literal["gtg", "gtc", "ioc", "fok"]
OrderStatus = Literal["new", "partial", "filled", "canceled"]
Price = str | Decimal | int
"""A price as the library takes it. Never a float: 0.1 is not a tenth."""


class WellheadError(Exception):
    """Something was refused or failed. `code` and `name` are those of the protocol; `final`: it has not happened and
    never will. `details` has what else the server said (`field`, `status`, `retry_us`, `now`).
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
    status: Literal["continuous", "closed", "delisted"]


class InstrumentEvent(Struct):
    """`snapshot`: all that is listed; else one instrument that was listed, closed or delisted."""

    what: Literal["snapshot", "listed", "closed", "delisted"] = field(name="ev")
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


class Snapshot(Event, kw_only=True, tag="snapshot"):
    """The whole account: the first event, and again when a reconnect could not make up for what was missed."""

    orders: list[Order]
    positions: list[Position]
    balances: Balance


class OrderEvent(Event, kw_only=True, tag="order"):
    """An order was accepted, replaced or cancelled."""

    what: Literal["new", "replaced", "canceled"] = field(name="exec")
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


AnyEvent = Snapshot | OrderEvent | Fill | PositionEvent | BalanceEvent | MoneyEvent | DeliveryEvent


class NewOrder(Struct, frozen=True):
    """An order for `Client.batch`. Without a price it is a market order."""

    sym: str
    side: Side
    qty: int
    px: Price | None = None
    tif: TimeInForce | None = None
    post_only: bool = False
    cid: str | None = None
    cod: bool = True


class AmendOrder(Struct, frozen=True):
    """An amend for `Client.batch`: name the order by `oid` or `cid`."""

    oid: int | None = None
    cid: str | None = None
    px: Price | None = None
    qty: int | None = None


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
