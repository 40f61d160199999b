"""The wire: every message of the protocol as a msgspec struct, the error codes, and the two encodings of them.

JSON and MessagePack carry the same structs. The one difference is money: a field annotated `Money` is a decimal string
in JSON and an integer of 10^-6 in MessagePack. The gateway builds each message with integers; `encode` makes the
text. Times are microseconds since the epoch.
"""

import re
import typing
from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from engine.types import MAX_BAND_PPM, MAX_MMP_FILLS, MAX_MMP_WINDOW_NS, MAX_POSITION_LOTS, MAX_QTY
from gateway.decimals import price_text

PROTO: Final = "wellhead.v1"


class Format(StrEnum):
    """The encodings, by the name of their websocket subprotocol."""

    JSON = "wellhead.v1.json"
    MSGPACK = "wellhead.v1.msgpack"


class Code(IntEnum):
    """Error codes. Those the engine gives are its Reason of the same number."""

    BAD_MESSAGE = 1001
    UNKNOWN_OP = 1002
    BAD_FIELD = 1003
    TOO_LARGE = 1004
    BAD_CHANNEL = 1005
    NOT_LOGGED_ON = 1101
    BAD_SIGNATURE = 1102
    TIME_OUT_OF_WINDOW = 1103
    SCOPE_DENIED = 1104
    UNKNOWN_SYMBOL = 2101
    MARKET_NOT_OPEN = 2102
    POST_ONLY_WOULD_TAKE = 2103
    BAD_PRICE = 2104
    BAD_QTY = 2105
    CID_REUSED_DIFFERENT = 2106
    LOCKED = 2107
    POSITION_LIMIT = 2108
    BAD_TIF = 2109
    TOO_MANY_OPEN_ORDERS = 2110
    ORDER_NOT_FOUND = 2111
    AMEND_NOT_ALLOWED = 2112
    FOK_NOT_FILLABLE = 2113
    RISK_LIMIT = 2114
    INSUFFICIENT_FUNDS = 2115
    MMP_FROZEN = 2116
    COD_REQUIRED = 2117
    DEADLINE_PASSED = 2119
    INSUFFICIENT_CAPACITY = 2120
    UNKNOWN_ACCOUNT = 2201
    INSTRUMENT_EXISTS = 2203
    BAD_AMOUNT = 2206
    BAD_LISTING = 2208
    ACCOUNT_FROZEN = 2209
    RATE_LIMIT = 3001
    OVERLOADED = 3002
    SHUTTING_DOWN = 3003
    NOT_AVAILABLE = 3004
    OUTCOME_UNKNOWN = 5001
    INTERNAL = 5002


class Close(IntEnum):
    """Close codes of the websocket, beside those of RFC 6455."""

    NORMAL = 1000
    SHUTDOWN = 1001
    LOGON_TIMEOUT = 4001
    BAD_LOGON = 4003
    SLOW_CONSUMER = 4008
    REPLACED = 4009
    RATE_ABUSE = 4029
    HEARTBEAT_LOST = 4030


class _Money:
    """Marks a field as money for `encode` and for the documentation."""


Money = Annotated[int | str, _Money]
Level = tuple[Money, int]
QueuedOrder = tuple[int, Money, int]
"""An order's id, its price and its open lots."""
MAX_ID: Final = 2**53
RequestId = Annotated[int, Meta(ge=0, le=MAX_ID)]
Cid = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,36}\Z")]
OrderId = Annotated[int, Meta(ge=0, le=MAX_ID)]
SideName = Literal["buy", "sell"]
TimeUs = Annotated[int, Meta(ge=1, le=MAX_ID)]
"""Microseconds since the epoch, by the market's clock."""
Lots = Annotated[int, Meta(ge=1, le=MAX_QTY)]
Tag = Annotated[int, Meta(ge=1, le=MAX_ID)]
Group = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Ppm = Annotated[int, Meta(ge=0, le=MAX_BAND_PPM)]
StpGroup = Annotated[int, Meta(ge=1, le=127)]
TypeName = Literal["limit", "market", "stop", "stop_limit"]
TifName = Literal["gtg", "gtc", "ioc", "fok", "gtd"]
PostName = Literal["reject", "slide"]
StpName = Literal["expire_taker", "expire_maker", "expire_both", "decrement"]
OrderStatus = Literal["waiting", "new", "partial", "filled", "canceled"]
InstrumentStatus = Literal["continuous", "pre_open", "auction", "halted", "cancel_only", "closed", "delisted"]
DepthName = Literal[10, 100, "all"]
IndexSource = Literal["prints", "previous_hour", "reference"]


# --- Requests ---------------------------------------------------------------------------------------------------------


class Request(Struct, tag_field="op", forbid_unknown_fields=True, kw_only=True):
    """What a client sends. `id` is its own number for the request, and comes back in the reply."""

    id: RequestId | None = None
    rl: Literal[0, 1] = 0  # 1: the reply shows the rate state


class Logon(Request, kw_only=True, tag="session.logon"):
    """Prove a key: `sig` is base64 Ed25519 over `wellhead.v1\\n<challenge>\\n<key>\\n<ts>`."""

    key: Annotated[str, Meta(max_length=64)]
    ts: int
    sig: Annotated[str, Meta(max_length=128)]
    cod: bool | None = None  # cancel on disconnect; the default is true for keys with the scope `quote`
    grace_ms: Annotated[int, Meta(ge=0)] = 0  # how long a disconnected session's orders wait for it
    resume_from: Annotated[int, Meta(ge=1)] | None = None  # subscribe to `private` from this aseq on


class Logout(Request, kw_only=True, tag="session.logout"):
    """End the session. Unless `keep`, a session with cancel on disconnect has its orders cancelled at once."""

    keep: bool = False


class Place(Request, kw_only=True, tag="order.place"):
    """A new order. `px` is the price per GPU-hour; market and stop orders have none."""

    sym: str
    side: SideName
    qty: int
    type: TypeName = "limit"
    px: Money | None = None
    tif: TifName | None = None  # the default is gtg for a limit order, ioc for a market order
    post: PostName | None = None  # rather than trade at once: refuse it, or go one tick behind the other side
    cid: Cid | None = None
    cod: bool = True  # false: not cancelled with the session
    stop: Money | None = None  # of stop and stop_limit: what the trigger has to reach
    trigger: Literal["last"] | None = None  # of stop and stop_limit: the book's last trade
    expire: TimeUs | None = None  # of a gtd order: when it ends
    deadline: TimeUs | None = None  # refused when the exchange takes it in later
    show: Lots | None = None  # iceberg: no more of it is visible at a time
    min_qty: Lots | None = None  # refused unless so many lots can trade at once
    reduce_only: bool = False  # only brings the position nearer to zero
    stp: StpName | None = None  # instead of a trade with an order of one's own
    stp_group: StpGroup | None = None  # orders of the owner's other accounts with this number are one's own, too
    tag: Tag | None = None  # for cancel.mass and cancel_after
    group: Group | None = None  # for market-maker protection and cancel.mass


class Amend(Request, kw_only=True, tag="order.amend"):
    """Change price or total quantity (fills included) of an order named by `oid` or `cid`, or the trigger of a stop."""

    oid: OrderId | None = None
    cid: Cid | None = None
    px: Money | None = None
    qty: int | None = None
    stop: Money | None = None  # of a stop that still waits
    deadline: TimeUs | None = None  # refused when the exchange takes it in later


class Cancel(Request, kw_only=True, tag="order.cancel"):
    """Cancel an order named by `oid` or `cid`. For an order that is finished already the answer is its final state."""

    oid: OrderId | None = None
    cid: Cid | None = None


class Batch(Request, kw_only=True, tag="order.batch"):
    """Up to 100 orders, amends and cancels, done in order; each has its own result."""

    items: list[Place | Amend | Cancel]


class MassCancel(Request, kw_only=True, tag="cancel.mass"):
    """Cancel all orders of the account, or those that fit everything that is given."""

    sym: str | None = None
    side: SideName | None = None
    tag: Tag | None = None
    group: Group | None = None
    lock: bool = False  # all of them, and no new ones until an administrator unlocks the account


class Ladder(Struct, forbid_unknown_fields=True, kw_only=True):
    """The quotes of a group in one symbol, best first. A side that is given replaces what was quoted on it: levels beyond its
    end, and those with 0 lots, are cancelled; one that is the same keeps its place. A side that is left out stays.
    """

    sym: str
    b: list[Level] | None = None
    a: list[Level] | None = None


class MassQuote(Request, kw_only=True, tag="quote.mass"):
    """Bring the quotes of a group to these ladders. Each level has its own result."""

    group: Group
    quotes: list[Ladder]
    post: PostName | None = None
    stp: StpName | None = None
    stp_group: StpGroup | None = None
    deadline: TimeUs | None = None  # levels that are taken in later are refused, those with 0 lots are not


class CancelAfter(Request, kw_only=True, tag="cancel_after"):
    """Dead man's switch: cancel the account's orders (those with a tag) in `ms` unless this is sent again. 0: never."""

    ms: Annotated[int, Meta(ge=0, le=86_400_000)]
    tag: Tag | None = None


class MmpSet(Request, kw_only=True, tag="mmp.set"):
    """Protect a group: when so many lots, or in so many fills, were traded with it in a window, its orders are cancelled
    and new ones refused for `freeze_ms` by the market's clock, or until `mmp.reset`.
    """

    group: Group
    lots: Annotated[int, Meta(ge=1, le=MAX_POSITION_LOTS)]
    fills: Annotated[int, Meta(ge=1, le=MAX_MMP_FILLS)]
    window_ms: Annotated[int, Meta(ge=1, le=MAX_MMP_WINDOW_NS // 1_000_000)]
    freeze_ms: Annotated[int, Meta(ge=0, le=MAX_MMP_WINDOW_NS // 1_000_000)] = 0  # 0: until mmp.reset


class MmpReset(Request, kw_only=True, tag="mmp.reset"):
    """Take orders of a group again; with `off` it is protected no more."""

    group: Group
    off: bool = False


class Protections(Request, kw_only=True, tag="protections"):
    """The account's groups with market-maker protection, and its dead man's switches."""


class OpenOrders(Request, kw_only=True, tag="orders.open"):
    """The account's working orders."""

    sym: str | None = None


class OrdersHistory(Request, kw_only=True, tag="orders.history"):
    """The account's finished orders, newest first."""

    sym: str | None = None
    before: Annotated[int, Meta(ge=1)] | None = None  # the `next` of the page before
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class Fills(Request, kw_only=True, tag="fills"):
    """The account's fills, newest first."""

    sym: str | None = None
    before: Annotated[int, Meta(ge=1)] | None = None  # the `next` of the page before
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class Positions(Request, kw_only=True, tag="positions"):
    """The account's positions."""

    sym: str | None = None


class Balances(Request, kw_only=True, tag="balances"):
    """The account's money."""


class Instruments(Request, kw_only=True, tag="instruments"):
    """What can be traded, the next hour first; with `closed` also what is past its gate, until it is delisted."""

    cls: str | None = msgspec.field(default=None, name="class")
    region: str | None = None
    closed: bool = False


class Statements(Request, kw_only=True, tag="statements"):
    """The settled cycles, newest first, and what each came to for the account."""


class Statement(Request, kw_only=True, tag="statement"):
    """The account's statement of a cycle, the very file, from byte `offset` on; `format` as in the downloads."""

    cycle: Annotated[int, Meta(ge=1)]
    format: Literal["csv", "json"] = "csv"
    offset: Annotated[int, Meta(ge=0)] = 0


class Proof(Request, kw_only=True, tag="proof"):
    """That the account's net is under a cycle's root, the newest cycle's if none is named, and what it owns counted."""

    cycle: Annotated[int, Meta(ge=1)] | None = None


class Channel(Struct, forbid_unknown_fields=True, kw_only=True):
    """One channel and the symbols it is wanted for: a list, a class, a region, both, or "*"."""

    name: str
    symbols: list[str] | Literal["*"] | None = None
    cls: str | None = msgspec.field(default=None, name="class")
    region: str | None = None
    depth: DepthName | None = None  # of l2; 10 when not given
    resume_from: Annotated[int, Meta(ge=1)] | None = None  # of private: the next aseq wanted
    held: dict[str, int] | None = msgspec.field(default=None, name="from")  # symbol -> `seq` of the last message held


class Subscribe(Request, kw_only=True, tag="subscribe"):
    """Ask for channels. The reply comes first, then each channel's snapshot, then its changes."""

    channels: list[Channel]


class Unsubscribe(Request, kw_only=True, tag="unsubscribe"):
    """Leave channels; one that is not held is no error."""

    channels: list[Channel]


class Transfer(Request, kw_only=True, tag="transfer"):
    """Move cash to another account of the same owner: `alice` and `alice:hedge` are alice's."""

    to: str
    amount: Money


class Withdraw(Request, kw_only=True, tag="withdraw"):
    """Pay out to an address on a chain. `claim`: it is not sent, but can be claimed from the vault with a proof."""

    coin: int
    amount: Money
    to: Annotated[str, Meta(max_length=100)]
    claim: bool = False


class DepositAddress(Request, kw_only=True, tag="deposit.address"):
    """Where deposits go, for each stablecoin that is taken. `home` says, once and for good, which address is the account's
    own: what it is owed is proven to that one, and nothing is credited before. It needs the scope `withdraw`.
    """

    home: Annotated[str, Meta(max_length=100)] = ""


class Nominate(Request, kw_only=True, tag="capacity.nominate"):
    """Certify lots for an hour, against a bond: so many may be sold short."""

    sym: str
    lots: int


class DeliveryReport(Request, kw_only=True, tag="delivery.report"):
    """A meter's signed minute records, as `wellhead meter run` makes them; base64 in JSON."""

    report: bytes


class AdminAccounts(Request, kw_only=True, tag="admin.accounts"):
    """All accounts."""


class AdminLock(Request, kw_only=True, tag="admin.lock"):
    """Lock an account (its orders are cancelled, new ones refused), or unlock it."""

    account: str
    on: bool


class AdminStatus(Request, kw_only=True, tag="admin.status"):
    """Where an instrument stands: halt it, let it trade again."""

    sym: str
    status: Literal["continuous", "pre_open", "auction", "halted", "cancel_only"]


class AdminHalt(Request, kw_only=True, tag="admin.halt"):
    """The kill switch: nothing trades and nothing but cancels is taken, on the whole exchange; or the end of that."""

    on: bool


class AdminList(Request, kw_only=True, tag="admin.list"):
    """List an hour of the catalogue, with a reference price of one's own if given."""

    sym: str
    ref_px: Money | None = None


class AdminBand(Request, kw_only=True, tag="admin.band"):
    """New price limits of an instrument, in ppm of the reference price: of all orders, of market orders from the best price,
    and of trades from the last one before an auction is called; 0: none.
    """

    sym: str
    ref_px: Money
    band_ppm: Ppm = 0
    collar_ppm: Ppm = 0
    dynamic_ppm: Ppm = 0


class AdminLimits(Request, kw_only=True, tag="admin.limits"):
    """Limits of an account: lots in an order, lots of a position with its open orders, open orders; 0: those of all."""

    account: str
    qty: Annotated[int, Meta(ge=0, le=MAX_QTY)] = 0
    net: Annotated[int, Meta(ge=0, le=MAX_POSITION_LOTS)] = 0
    orders: Annotated[int, Meta(ge=0)] = 0


class AdminKeys(Request, kw_only=True, tag="admin.keys"):
    """All keys."""


class AdminKey(Request, kw_only=True, tag="admin.key"):
    """Add a key. Its owner makes the pair; `public` is base64 of the 32 bytes of the public half."""

    key: str
    account: str
    public: str
    scopes: list[str]
    ips: list[str] = []


class AdminRevoke(Request, kw_only=True, tag="admin.revoke"):
    """Take a key away; its sessions are closed within a second."""

    key: str


REQUESTS: Final[tuple[type[Request], ...]] = (
    Logon, Logout, Place, Amend, Cancel, Batch, MassCancel, MassQuote, CancelAfter, MmpSet, MmpReset, Protections,
    OpenOrders, OrdersHistory, Fills, Positions, Balances, Instruments, Statements, Statement, Proof, Subscribe, Unsubscribe,
    Transfer, Withdraw, DepositAddress, Nominate, DeliveryReport, AdminAccounts, AdminLock, AdminStatus,
    AdminHalt, AdminList, AdminBand, AdminLimits, AdminKeys, AdminKey, AdminRevoke,
)  # fmt: skip
AnyRequest = (
    Logon | Logout | Place | Amend | Cancel | Batch | MassCancel | MassQuote | CancelAfter | MmpSet | MmpReset | Protections
    | OpenOrders | OrdersHistory | Fills
    | Positions | Balances | Instruments | Statements | Statement | Proof | Subscribe | Unsubscribe
    | Transfer | Withdraw | DepositAddress | Nominate | DeliveryReport | AdminAccounts | AdminLock
    | AdminStatus | AdminHalt | AdminList | AdminBand | AdminLimits | AdminKeys | AdminKey | AdminRevoke
)  # fmt: skip


# --- Replies ----------------------------------------------------------------------------------------------------------


class Error(Struct, omit_defaults=True):
    """Why not. `final`: the engine has not accepted the request and never will."""

    code: int
    name: str
    final: bool
    msg: str
    field: str | None = None  # BAD_FIELD: which one
    now: int | None = None  # TIME_OUT_OF_WINDOW: the server's clock
    status: str | None = None  # MARKET_NOT_OPEN: the instrument's
    retry_us: int | None = None  # RATE_LIMIT: when there will be a token
    until: int | None = None  # MMP_FROZEN: when the group is frozen no more; not given: with `mmp.reset`


class RateState(Struct):
    """What is in the account's bucket: tokens left, at the most, and gained a second."""

    left: int
    burst: int
    per_s: int


class Reply(Struct, omit_defaults=True):
    """The answer to the request with this `id`. `aseq` numbers the first private event that the request caused."""

    id: int | None
    ok: bool
    t_in: int  # when the request was read, and
    t_out: int  # when the reply was written, by the server's clock
    aseq: int | None = None
    dup: bool = False  # the result of an earlier request with the same cid
    r: Any = None
    err: Error | None = None
    rl: RateState | None = None  # when the request had `rl`


class LogonResult(Struct):
    account: str
    scopes: list[str]
    cod: bool
    grace_ms: int
    aseq: int  # the last private event so far
    resumed: bool | UnsetType = UNSET  # whether `resume_from` could be served without a gap


class OrderResult(Struct):
    """Where the order stood when the request was done."""

    oid: int
    cid: str | None
    st: OrderStatus
    left: int
    cum: int
    kept: bool | UnsetType = UNSET  # of an amend: priority was kept


class ItemResult(Struct, omit_defaults=True):
    """The result of one item of a batch."""

    ok: bool
    aseq: int | None = None
    dup: bool = False
    r: OrderResult | None = None
    err: Error | None = None


class BatchResult(Struct):
    items: list[ItemResult]


class MassCancelResult(Struct):
    canceled: int


class QuoteResult(Struct, omit_defaults=True):
    """What became of one level. `act`: it is `new`, the `same` as before, `replaced`, `canceled`, or there was `none`."""

    act: Literal["new", "same", "replaced", "canceled", "none", "refused"]
    oid: int | None = None
    left: int = 0
    cum: int = 0
    st: OrderStatus | None = None
    kept: bool | None = None  # of a replaced one: it kept its place
    err: Error | None = None  # of a refused one


class LadderResult(Struct):
    """The levels in the order in which they were sent; then those that were quoted beyond their end."""

    sym: str
    b: list[QuoteResult]
    a: list[QuoteResult]


class MassQuoteResult(Struct):
    quotes: list[LadderResult]


class CancelAfterResult(Struct):
    at: int | None  # when, by the market's clock; null: never


class MmpState(Struct):
    """The protection of a group. `frozen`: it was triggered, and `until` or `mmp.reset` is waited for."""

    group: int
    window_ms: int
    lots: int
    fills: int
    frozen: bool
    freeze_ms: int | UnsetType = UNSET  # how long a freeze lasts, where it ends by itself
    until: int | UnsetType = UNSET  # when this one does


class TimerState(Struct):
    """A dead man's switch: the orders with the tag (0: all) are cancelled at `at`."""

    tag: int
    at: int


class ProtectionsResult(Struct):
    aseq: int
    mmp: list[MmpState]
    timers: list[TimerState]
    locked: bool


class OrderState(Struct, gc=False):
    """A working order."""

    oid: int
    cid: str | None
    sym: str
    side: SideName
    type: TypeName
    px: Money
    qty: int
    left: int
    cum: int
    tif: TifName
    post: bool
    st: OrderStatus
    ts: int  # when it was accepted
    stop: Money | UnsetType = UNSET  # of a stop: what its trigger has to reach
    show: int | UnsetType = UNSET  # of an iceberg: what is visible at the most
    shown: int | UnsetType = UNSET  # of an iceberg in the book: what is visible
    min_qty: int | UnsetType = UNSET
    expire: int | UnsetType = UNSET  # of gtd: when it ends
    slide: bool | UnsetType = UNSET  # true: `post` was `slide`
    reduce_only: bool | UnsetType = UNSET
    stp: StpName | UnsetType = UNSET
    stp_group: int | UnsetType = UNSET
    tag: int | UnsetType = UNSET
    group: int | UnsetType = UNSET
    level: int | UnsetType = UNSET  # of a quote: its place in the ladder, from 0


class PositionState(Struct, gc=False):
    """What an account has in one instrument. `net` > 0: will receive lots; < 0: must deliver them."""

    sym: str
    net: int
    capacity: int  # certified lots that may be sold short
    open_buy: int
    open_sell: int
    escrow: Money  # proceeds of lots sold short, paid out after delivery
    fees_due: Money  # fees on them
    bond: Money


class BalanceState(Struct, gc=False):
    """An account's money: `cash` is free, `held` reserved by buy orders; the rest is over all positions."""

    cash: Money
    held: Money
    escrow: Money
    fees_due: Money
    bond: Money
    rebate: Money  # accrued, paid when the settlement cycle closes
    frozen: Money  # under liens


class OpenOrdersResult(Struct):
    aseq: int  # the state is as of this private event
    orders: list[OrderState]


class PastOrder(Struct, gc=False):
    """A finished order. `seq` is the engine's event that ended it; `ts` when it was accepted, `done` when it ended."""

    seq: int
    oid: int
    cid: str | None
    sym: str
    side: SideName
    type: TypeName
    px: Money
    qty: int
    cum: int
    tif: TifName
    post: bool
    st: OrderStatus
    why: str | None
    ts: int
    done: int
    stop: Money | UnsetType = UNSET  # of a stop
    show: int | UnsetType = UNSET  # of an iceberg: what was visible at the most
    expire: int | UnsetType = UNSET  # of gtd: when it would have ended
    slide: bool | UnsetType = UNSET  # true: `post` was `slide`
    reduce_only: bool | UnsetType = UNSET


class OrdersHistoryResult(Struct):
    """`next` is where the following page begins; null: there is no more."""

    orders: list[PastOrder]
    next: int | None


class PastFill(Struct, gc=False):
    """A fill, as in the private stream. `tid` is the trade's number, the engine's sequence of it."""

    tid: int
    ts: int
    oid: int
    cid: str | None
    sym: str
    side: SideName
    px: Money
    qty: int
    left: int
    cum: int
    liq: Literal["taker", "maker"]
    fee: Money
    fee_due: Money


class FillsResult(Struct):
    """`next` is where the following page begins; null: there is no more."""

    fills: list[PastFill]
    next: int | None


class PositionsResult(Struct):
    aseq: int
    positions: list[PositionState]


class BalancesResult(Struct):
    aseq: int
    balances: BalanceState


class InstrumentState(Struct):
    """A contract: its terms, for the life of the book, and where it stands."""

    sym: str
    cls: str = msgspec.field(name="class")
    region: str
    gpus_per_lot: int
    hours: int
    start: int  # of delivery
    tick: Money  # price step, per GPU-hour
    lot_tick: Money  # what a tick is worth for one lot
    max_px: Money
    ref_px: Money
    opens: int
    gate: int  # last trade strictly before
    taker_ppm: int
    rebate_ppm: int
    bond_ppm: int
    status: InstrumentStatus
    low_px: Money  # of an order, at the least
    high_px: Money  # and at the most
    collar_ppm: int  # how far from the best price a market order trades, of that price; 0: no limit
    dynamic_ppm: int  # how far from the last trade it may trade before an auction is called; 0: no limit


class InstrumentsResult(Struct):
    instruments: list[InstrumentState]


class StatementState(Struct):
    """A settled cycle, for an account. `net` is what all trades, fees and deliveries came to."""

    cycle: int
    ts: int  # when it ended, by the market's clock
    from_seq: int
    to_seq: int
    net: Money
    external: Money  # deposits less withdrawals
    root: str


class StatementsResult(Struct):
    statements: list[StatementState]


class StatementPart(Struct):
    """A piece of a statement's file. The next one begins at `offset` plus the bytes of `data`; `size` is the whole."""

    cycle: int
    format: Literal["csv", "json"]
    offset: int
    size: int
    data: str


class ProofResult(Struct):
    """The file that `wellhead settle prove` prints, as text: its sums may pass 2^53."""

    cycle: int
    file: str


class DoneResult(Struct):
    """It is in the log, as the command `seq`."""

    seq: int


class CoinAddress(Struct):
    """Where an account's deposits of a stablecoin go: call `deposit(units, ref)` of the vault."""

    coin: int
    symbol: str
    chain: str
    chain_id: int
    vault: str
    contract: str  # the coin's
    decimals: int
    ref: str


class DepositAddressResult(Struct):
    coins: list[CoinAddress]


class ReportResult(Struct):
    """How many minute records were taken."""

    records: int


class AccountRow(Struct):
    """An account as an administrator sees it."""

    account: int
    name: str
    cash: Money
    held: Money
    orders: int  # that work
    sessions: int


class AccountsResult(Struct):
    accounts: list[AccountRow]


class KeyRow(Struct):
    """A key as an administrator sees it."""

    key: str
    account: str
    scopes: list[str]
    ips: list[str]
    here: bool  # it is logged on


class KeysResult(Struct):
    keys: list[KeyRow]


class SubscribeResult(Struct):
    topics: int  # channel and symbol pairs that this request added or renewed
    resumed: bool | UnsetType = UNSET  # of private: whether `resume_from` could be served without a gap


# --- Pushes -----------------------------------------------------------------------------------------------------------


class Hello(Struct, tag_field="ch", tag="hello"):
    """The first message of a connection."""

    proto: str
    venue: str
    ts: int  # the server's clock
    market_ts: int  # the market's clock: the same, unless time runs accelerated
    challenge: str
    limits: dict[str, int]


class Heartbeat(Struct, tag_field="ch", tag="hb"):
    """Once a second: `last` has the last `seq` of each held channel that moved since the heartbeat before."""

    ts: int
    market_ts: int
    last: dict[str, int]
    aseq: int | UnsetType = UNSET


class Shutdown(Struct, tag_field="ch", tag="shutdown"):
    ts: int
    msg: str


class Slow(Struct, tag_field="ch", tag="slow"):
    """The last words to a reader that does not keep up."""

    ts: int
    buffered: int


class L1(Struct, tag_field="ch", tag="l1"):
    """Best bid and ask; null when there is none."""

    sym: str
    ev: Literal["snapshot", "update"]
    seq: int
    prev: int
    ts: int
    bid: Level | None
    ask: Level | None


class L2(Struct, tag_field="ch", tag="l2"):
    """Levels, best first in a snapshot. In a delta a level replaces what was at its price; quantity 0 removes it."""

    sym: str
    ev: Literal["snapshot", "delta"]
    depth: DepthName
    seq: int
    prev: int
    ts: int
    b: list[Level]
    a: list[Level]
    crc: int  # of the ten best levels of each side, after this message


class L3(Struct, tag_field="ch", tag="l3"):
    """Orders: in a snapshot all of them, best level first, each level in the order of its queue. In a delta quantity 0
    removes an order, one that is known keeps its place, and one that is not goes to the end of the queue at its price.
    """

    sym: str
    ev: Literal["snapshot", "delta"]
    seq: int
    prev: int
    ts: int
    b: list[QueuedOrder]
    a: list[QueuedOrder]
    crc: int  # of the queues of the ten best levels of each side, after this message


class TradeItem(Struct, gc=False):
    tid: int  # the trade's number: the engine's sequence of it
    px: Money
    qty: int
    side: SideName  # the taker's
    ts: int


class Trades(Struct, tag_field="ch", tag="trades"):
    """Trades, oldest first. `seq` is the last one's number."""

    sym: str
    ev: Literal["snapshot", "trades"]
    seq: int
    prev: int
    ts: int
    t: list[TradeItem]


class Ticker(Struct, tag_field="ch", tag="ticker"):
    """Last price, best prices and lots traded since the listing."""

    sym: str
    ev: Literal["snapshot", "update"]
    seq: int
    prev: int
    ts: int
    last: Money | None
    bid: Money | None
    ask: Money | None
    vol: int


class CandleItem(Struct, gc=False):
    """`closed`: it is over and will not change. Prices are null when nothing was traded so far."""

    start: int
    o: Money | None
    h: Money | None
    l: Money | None  # noqa: E741 - what candles call it everywhere
    c: Money | None
    vol: int  # lots
    n: int  # trades
    closed: bool


class CandlesPush(Struct):
    """Candles, oldest first: in a snapshot the last ones and the open one, then each that has changed or is over."""

    sym: str
    ev: Literal["snapshot", "update"]
    seq: int
    prev: int
    ts: int
    list: list[CandleItem]


class Candles1m(CandlesPush, tag_field="ch", tag="candles.1m"):
    """Of a minute."""


class Candles5m(CandlesPush, tag_field="ch", tag="candles.5m"):
    """Of five minutes."""


class Candles1h(CandlesPush, tag_field="ch", tag="candles.1h"):
    """Of an hour."""


class IndexPush(Struct, tag_field="ch", tag="index", omit_defaults=True):
    """The index of an hour, made at its gate; without `px` there is none yet. `source` says where it came from."""

    sym: str
    ev: Literal["snapshot", "update"]
    seq: int
    prev: int
    ts: int  # the gate
    px: Money | None = None
    source: IndexSource | None = None
    prints: int = 0  # trades that counted
    owners: int = 0  # of those trades
    lots: int = 0


class Status(Struct, tag_field="ch", tag="status"):
    """Where an instrument stands. `auction`: what a call auction would trade now (`indication`) or has traded (`auction`)."""

    sym: str
    ev: Literal["snapshot", "change", "indication", "auction"]
    seq: int
    prev: int
    ts: int
    status: InstrumentStatus
    halted: bool | UnsetType = UNSET  # true: the whole exchange is halted
    why: Literal["by_request", "collar"] | UnsetType = UNSET  # of a change
    px: Money | UnsetType | None = UNSET  # of indication and auction; null: nothing would trade
    qty: int | UnsetType = UNSET  # of indication and auction: lots that trade
    surplus: int | UnsetType = UNSET  # of indication and auction: bids less offers at that price


class InstrumentsPush(Struct, tag_field="ch", tag="instruments"):
    """Everything listed, then each listing, change of status or price limits, closing and delisting; the instrument as it
    now is.
    """

    ev: Literal["snapshot", "listed", "changed", "closed", "delisted"]
    seq: int
    prev: int
    ts: int
    list: list[InstrumentState]


class BatchState(Struct):
    """A settlement batch with a final root. Hashes are hex; `id` is the hash of its content and of `prev_id`."""

    cycle: int
    ts: int  # when the cycle ended, by the market's clock
    from_seq: int  # of the commands it settles
    to_seq: int
    state: str  # frozen; submitted, confirmed, final, failed where a chain follows
    gross: Money
    net: Money  # what the payers pay in all
    leaves: int
    root: str
    prev_id: str
    id: str
    owed: Money  # to all members, at the cycle's end
    assets: Money  # held against it
    owed_root: str  # of the liabilities


class BatchesPush(Struct, tag_field="ch", tag="batches"):
    """The newest batches, then each that is frozen or moves on. `seq` is the log's: the last command in the books."""

    ev: Literal["snapshot", "frozen"]
    seq: int
    prev: int
    ts: int
    list: list[BatchState]


class DeliveryState(Struct):
    """What becomes of the lots of a contract whose gate has closed, all providers and receivers together."""

    sym: str
    start: int  # of delivery
    lots: int  # to be delivered
    done: int  # settled so far
    providers: int
    receivers: int
    paid: Money  # by the receivers, at the match
    refund: Money  # of it back to them, for what was not delivered
    damages: Money  # damages and penalties, to the receivers
    shortfall: Money  # of damages, that nobody had
    index: Money  # of the hour
    index_from: IndexSource


class DeliveriesPush(Struct, tag_field="ch", tag="deliveries"):
    """The newest deliveries, then those that begin or move on. `seq` as in `batches`."""

    ev: Literal["snapshot", "update"]
    seq: int
    prev: int
    ts: int
    list: list[DeliveryState]


# --- Private ----------------------------------------------------------------------------------------------------------


class Private(Struct, tag_field="ev", kw_only=True):
    """An account's event. `aseq` counts them by one; `seq` is the engine event that caused it."""

    ch: Literal["private"] = "private"
    aseq: int
    seq: int
    ts: int


class PrivateSnapshot(Private, kw_only=True, tag="snapshot"):
    """The account as it stands after `aseq`."""

    orders: list[OrderState]
    positions: list[PositionState]
    balances: BalanceState
    mmp: list[MmpState] = []
    timers: list[TimerState] = []
    locked: bool = False


class OrderEvent(Private, kw_only=True, tag="order"):
    """An order changed other than by a fill. `exec` says what happened, `st` where it stands."""

    exec: Literal["new", "replaced", "canceled", "triggered", "refreshed"]
    why: str | UnsetType = UNSET  # of canceled
    kept: bool | UnsetType = UNSET  # of replaced
    oid: int
    cid: str | None
    sym: str
    side: SideName
    type: TypeName
    px: Money
    qty: int
    left: int
    cum: int
    tif: TifName
    post: bool
    st: OrderStatus
    stop: Money | UnsetType = UNSET  # of a stop: what its trigger has to reach
    show: int | UnsetType = UNSET  # of an iceberg: what is visible at the most
    shown: int | UnsetType = UNSET  # of an iceberg in the book: what is visible
    min_qty: int | UnsetType = UNSET
    expire: int | UnsetType = UNSET  # of gtd: when it ends
    slide: bool | UnsetType = UNSET  # true: `post` was `slide`
    reduce_only: bool | UnsetType = UNSET
    stp: StpName | UnsetType = UNSET
    stp_group: int | UnsetType = UNSET
    tag: int | UnsetType = UNSET
    group: int | UnsetType = UNSET
    level: int | UnsetType = UNSET  # of a quote: its place in the ladder, from 0


class Fill(Private, kw_only=True, tag="fill"):
    """A trade of the account. `fee` is signed: what the taker pays, or, negative, what the maker's rebate accrues."""

    tid: int
    oid: int
    cid: str | None
    sym: str
    side: SideName
    px: Money
    qty: int
    left: int
    cum: int
    st: OrderStatus
    liq: Literal["taker", "maker"]
    fee: Money
    fee_due: Money  # the part of the fee that is paid out of the delivery's pay


class PositionEvent(Private, kw_only=True, tag="position"):
    """A position after a command changed its lots, escrow, fees due or bond."""

    position: PositionState


class BalanceEvent(Private, kw_only=True, tag="balance"):
    """The account's money after a command changed it."""

    balances: BalanceState


class MoneyEvent(Private, kw_only=True, tag="money"):
    """A movement of cash other than a trade or a delivery."""

    what: Literal[
        "deposit", "withdrawal", "nomination", "bond_released", "rebate", "transfer", "split", "lien", "lien_lifted"
    ]  # fmt: skip
    amount: Money  # change of cash
    sym: str | UnsetType = UNSET  # of nomination and bond_released
    lots: int | UnsetType = UNSET  # of nomination: capacity gained


class DeliveryEvent(Private, kw_only=True, tag="delivery"):
    """What the account must deliver or will receive (`due`, at the gate), and how it went (`done`)."""

    what: Literal["due", "done"]
    role: Literal["provider", "receiver"]
    sym: str
    lots: int
    amount: Money  # change of cash
    refund: Money  # escrow returned to the receiver
    damages: Money  # paid by the provider to the receiver


class PreventedEvent(Private, kw_only=True, tag="prevented"):
    """A trade with oneself that did not happen, of `qty` lots at `px`. Each of the two orders has one; what is done instead
    to an order (`what`) follows, but for `decrement`: both have that many lots less already.
    """

    what: StpName
    liq: Literal["taker", "maker"]
    oid: int
    other: int  # the other order
    cid: str | None
    sym: str
    side: SideName
    px: Money
    qty: int
    left: int
    cum: int


class MmpEvent(Private, kw_only=True, tag="mmp"):
    """Market-maker protection of a group was `set`, `off`, `triggered` or `reset`. `lots` and `fills` are the limits, or, of
    triggered, what was traded in the window.
    """

    what: Literal["set", "off", "triggered", "reset"]
    group: int
    window_ms: int | UnsetType = UNSET  # of set
    lots: int | UnsetType = UNSET
    fills: int | UnsetType = UNSET
    sym: str | UnsetType = UNSET  # of triggered: where the last of the trades was
    freeze_ms: int | UnsetType = UNSET  # of set: how long a freeze lasts, where it ends by itself
    until: int | UnsetType = UNSET  # of triggered: when this one ends by itself


class TimerEvent(Private, kw_only=True, tag="timer"):
    """A dead man's switch was `set`, taken `off`, or has `fired`: the cancels follow."""

    what: Literal["set", "off", "fired"]
    tag: int  # 0: of all orders
    at: int | UnsetType = UNSET  # of set: when it will fire


class AccountEvent(Private, kw_only=True, tag="account"):
    """The account was `locked` (the cancels follow) or `unlocked`, or has other `limits`; 0: those of all."""

    what: Literal["locked", "unlocked", "limits"]
    qty: int | UnsetType = UNSET  # of limits: lots in an order
    net: int | UnsetType = UNSET  # of limits: lots of a position, with its open orders
    orders: int | UnsetType = UNSET  # of limits: open orders


PrivateEvent = (
    OrderEvent | Fill | PositionEvent | BalanceEvent | MoneyEvent | DeliveryEvent | PreventedEvent | MmpEvent | TimerEvent
    | AccountEvent
)  # fmt: skip
PRIVATE_EVENTS: Final = (
    PrivateSnapshot, OrderEvent, Fill, PositionEvent, BalanceEvent, MoneyEvent, DeliveryEvent, PreventedEvent, MmpEvent,
    TimerEvent, AccountEvent,
)  # fmt: skip
PUSHES: Final = (
    Hello, Heartbeat, Shutdown, Slow, L1, L2, L3, Trades, Ticker, Candles1m, Candles5m, Candles1h, IndexPush, Status,
    InstrumentsPush, BatchesPush, DeliveriesPush,
)  # fmt: skip
SYMBOL_CHANNELS: Final = (
    "l1", "l2", "l3", "trades", "ticker", "candles.1m", "candles.5m", "candles.1h", "index", "status",
)  # fmt: skip
SETTLED_CHANNELS: Final = ("batches", "deliveries")
CHANNELS: Final = (*SYMBOL_CHANNELS, *SETTLED_CHANNELS, "instruments", "private", "hb")


# --- Encoding ---------------------------------------------------------------------------------------------------------


def _texter(annotation: Any) -> Callable[[Any], Any] | None:
    """What turns a value of this type into its JSON form; None when there is no money in it."""
    if typing.get_origin(annotation) is Annotated:
        return price_text if _Money in annotation.__metadata__ else _texter(annotation.__origin__)
    arguments = typing.get_args(annotation)
    inner = [_texter(argument) for argument in arguments]
    origin = typing.get_origin(annotation)
    if annotation is Any or (isinstance(annotation, type) and issubclass(annotation, Struct)):
        return with_text
    if not any(inner):
        return None
    if origin is list and (each := inner[0]):
        return lambda values: [each(value) for value in values]
    if annotation == Level:
        return lambda level: (price_text(level[0]), level[1])
    if annotation == QueuedOrder:
        return lambda order: (order[0], price_text(order[1]), order[2])
    (only,) = [function for function in inner if function]  # a union: the rest is None or UNSET
    return lambda value: value if value is None or value is UNSET else only(value)


def _find_money_fields(cls: Any) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    if not issubclass(cls, Struct):
        return ()
    hints = typing.get_type_hints(cls, include_extras=True)
    found = [(name, _texter(hints[name])) for name in cls.__struct_fields__]
    return tuple((name, function) for name, function in found if function)


_money_fields: dict[type, tuple[tuple[str, Callable[[Any], Any]], ...]] = {}


def with_text(message: Any) -> Any:
    """The message with each amount of money as text; the original is left as it is."""
    cls = type(message)
    fields = _money_fields.get(cls)
    if fields is None:
        fields = _money_fields[cls] = _find_money_fields(cls)
    if not fields:
        return message
    message = message.__copy__()
    for name, function in fields:
        setattr(message, name, function(getattr(message, name)))
    return message


_to_json = msgspec.json.Encoder().encode
_to_msgpack = msgspec.msgpack.Encoder().encode


def encode(message: Any, wire: Format) -> bytes:
    """A reply or push as it travels."""
    return _to_json(with_text(message)) if wire is Format.JSON else _to_msgpack(message)


class _Head(Struct):
    op: Any = None
    id: Any = None


_decoders: Final = {
    Format.JSON: msgspec.json.Decoder(AnyRequest).decode,
    Format.MSGPACK: msgspec.msgpack.Decoder(AnyRequest).decode,
}
_head_decoders: Final = {
    Format.JSON: msgspec.json.Decoder(_Head).decode,
    Format.MSGPACK: msgspec.msgpack.Decoder(_Head).decode,
}
_PATH_FIELD = re.compile(r"at `\$(?:\.channels|\.items|\.quotes)?(?:\[\d+\])?\.?(\w*)")
_QUOTED_FIELD = re.compile(r"field `(\w+)`")


LONGEST_WORDS: Final = 400
"""Of an error's `msg`."""


class RequestError(Exception):
    """A request is refused. `id` is None when the message did not show one."""

    def __init__(self, code: Code, msg: str, **details: Any) -> None:
        super().__init__(msg)
        if len(msg) > LONGEST_WORDS:  # what was sent is not sent back whole
            msg = f"{msg[:LONGEST_WORDS]}..."
        self.error = Error(code, code.name, code is not Code.OUTCOME_UNKNOWN, msg, **details)
        self.id: int | None = None


def bad_field(field: str, msg: str) -> RequestError:
    return RequestError(Code.BAD_FIELD, msg, field=field)


def decode(data: bytes, wire: Format) -> Any:
    """The request in a message. Raises RequestError, which says what is wrong with it and carries its id."""
    try:
        request = _decoders[wire](data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as failure:
        raise _refusal(data, wire, failure) from failure
    if request.id is None:
        raise bad_field("id", "a request needs an id: an integer from 0 to 2^53")
    return request


def _refusal(data: bytes, wire: Format, failure: Exception) -> RequestError:
    if not isinstance(failure, msgspec.ValidationError):
        return RequestError(Code.BAD_MESSAGE, f"not {wire.name.lower()}: {failure}")
    try:
        head = _head_decoders[wire](data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return RequestError(Code.BAD_MESSAGE, f"not an object: {failure}")
    refusal = _invalid(head.op, str(failure))
    if type(head.id) is int and 0 <= head.id <= MAX_ID:
        refusal.id = head.id
    return refusal


def _invalid(op: Any, msg: str) -> RequestError:
    if not isinstance(op, str) or op not in OPS:
        return RequestError(Code.UNKNOWN_OP, f"unknown op {op!r}")
    found = _QUOTED_FIELD.search(msg) or _PATH_FIELD.search(msg)
    return bad_field(found[1] if found and found[1] else "?", msg)


OPS: Final[frozenset[str]] = frozenset(str(cls.__struct_config__.tag) for cls in REQUESTS)
