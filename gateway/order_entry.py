"""Requests about orders become commands, and the events of those commands become replies.

A command carries a `ref` of ours; when it comes back from the log the request that waits under that ref is answered. An
order's `cid` is remembered while the order works and for a day after, so an order sent twice is executed once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import pack_id
from engine.records import copied
from engine.types import ANY_SIDE, COMMAND, MAX_QTY, UNCHANGED, EventKind, Flag, Kind, Reason
from engine.types import Status as EngineStatus
from gateway.commands import Command
from gateway.config import GatewayConfig
from gateway.decimals import to_text
from gateway.fast import doors
from gateway.messages import (
    Amend,
    Batch,
    Cancel,
    Code,
    Error,
    MassCancel,
    MassCancelResult,
    OrderResult,
    Place,
    RequestError,
    bad_field,
)
from gateway.private import microseconds, side_number
from gateway.projection import Projection, order_body
from gateway.rows import CommandRow, Step
from gateway.session import Ask, BatchAsk, Session
from gateway.terms import TYPE_NUMBERS, amended_flags, check_place, flags_of, nanoseconds, stp_group, ticks
from gateway.views import BODY, Order

MAX_PX_MICROS = 10**15

WORDS = {
    Reason.BAD_FIELD: "the fields do not fit each other, or a time has passed",
    Reason.UNKNOWN_SYMBOL: "the instrument is not listed",
    Reason.MARKET_NOT_OPEN: "the instrument does not trade now",
    Reason.CID_REUSED_DIFFERENT: "the cid named another order",
    Reason.LOCKED: "the account is locked: nothing but cancels",
    Reason.AMEND_NOT_ALLOWED: "this of the order cannot be changed: a trigger only while it waits, a stop has no price",
    Reason.RISK_LIMIT: "a reduce-only order is not larger than what there is to reduce",
    Reason.MMP_FROZEN: "market-maker protection was triggered; the group is frozen until mmp.reset, or `until` if it is told",
    Reason.DEADLINE_PASSED: "it came after its deadline",
    Reason.POST_ONLY_WOULD_TAKE: "the order is post-only and would trade at once",
    Reason.BAD_PRICE: "the price is outside the limits of the instrument",
    Reason.BAD_QTY: "the quantity is outside the limits",
    Reason.POSITION_LIMIT: "the position would pass the limit",
    Reason.BAD_TIF: "this time in force does not fit the order's type and terms, or what is taken at present",
    Reason.TOO_MANY_OPEN_ORDERS: "the account has as many working orders as it may",
    Reason.ORDER_NOT_FOUND: "the account has no such working order",
    Reason.FOK_NOT_FILLABLE: "the other side does not offer the quantity within the price",
    Reason.INSUFFICIENT_FUNDS: "not enough free cash",
    Reason.INSUFFICIENT_CAPACITY: "not enough lots: net position and capacity less working sell orders",
    Reason.UNKNOWN_ACCOUNT: "there is no such account",
    Reason.BAD_AMOUNT: "the amount is not one that can be moved",
    Reason.BAD_LISTING: "the engine does not take these terms: the hour has passed, or there is no room",
    Reason.ACCOUNT_FROZEN: "no money may leave the account",
    Reason.UNKNOWN_KIND: "the engine does not do that",
    Reason.OVERLOADED: "the exchange has no room left for it",
}


@dataclass(slots=True)
class Pending:
    """A command on its way. `waiting` are requests about an order that is not accepted yet."""

    kind: Kind
    asks: list[Ask]
    account: int
    cid: str = ""
    body: tuple[int, ...] = ()
    waiting: list[tuple[Ask, Amend | Cancel]] = field(default_factory=list)
    on_done: Callable[[Step], None] | None = None
    is_answered: bool = False  # compiled code answers the request itself
    answer: "Callable[[Step, Ask, int | None], None] | None" = None  # instead of an order's answer


class OrderEntry:
    """All requests under way. `submit` takes commands to the node, in order."""

    def __init__(
        self,
        projection: Projection,
        config: GatewayConfig,
        submit: Callable[[NDArray[np.void]], None],
    ) -> None:
        self._projection = projection
        self._config = config
        self._submit = submit
        self._tables = projection.tables
        self._pending: dict[int, Pending] = {}
        self.abandoned: list[Callable[[Error], None]] = []  # told too when nobody knows how what is under way ends

    @property
    def pending(self) -> int:
        """Commands on their way."""
        return self._tables.head["pending"]

    # --- Requests -----------------------------------------------------------------------------------------------------

    def place(self, ask: Ask, request: Place) -> None:
        """A new order. Raises RequestError."""
        command = self._place_command(ask, request)
        body = order_body(command)
        if request.cid is not None and self._repeats(ask, request.cid, body):
            return
        pending = Pending(Kind.NEW_ORDER, [ask], ask.account, request.cid or "", body)
        self._send(command, pending, ask.session)

    def amend(self, ask: Ask, request: Amend) -> None:
        """Another price or quantity. Raises RequestError."""
        if request.px is None and request.qty is None and request.stop is None:
            raise bad_field("px", "an amend changes px, qty or stop")
        if request.qty is not None and not 1 <= request.qty <= MAX_QTY:
            raise RequestError(Code.BAD_QTY, f"qty {request.qty}: from 1 to {MAX_QTY} lots")
        order = self._find(ask, request)
        if order is None:
            return
        if order.done:
            raise RequestError(Code.ORDER_NOT_FOUND, f"order {order.id} is {order.status}")
        instrument, wire = self._projection.instruments[order.instrument], ask.session.wire
        terms = instrument.tick_micros, instrument.max_price
        command = Command(
            Kind.AMEND,
            ask.account,
            order.instrument,
            order.id,
            price=UNCHANGED if request.px is None else ticks(request.px, wire, *terms),
            qty=UNCHANGED if request.qty is None else request.qty,
            flags=amended_flags(request),
            stop_price=UNCHANGED if request.stop is None else ticks(request.stop, wire, *terms, "stop"),
            deadline_ns=nanoseconds(request.deadline),
        )
        self._send(command, Pending(Kind.AMEND, [ask], ask.account), ask.session)

    def cancel(self, ask: Ask, request: Cancel) -> None:
        """Cancel; a finished order answers with its final state. Raises RequestError."""
        order = self._find(ask, request)
        if order is None:
            return
        if order.done:
            ask.ok(order_result(order))
            return
        command = Command(Kind.CANCEL, ask.account, order.instrument, order.id)
        self._send(command, Pending(Kind.CANCEL, [ask], ask.account), ask.session)

    def batch(self, ask: BatchAsk, request: Batch) -> None:
        """Each item in order, each with its own result."""
        for index, item in enumerate(request.items):
            self.attempt(ask.item(index), item)

    def attempt(self, ask: Ask, request: Place | Amend | Cancel) -> None:
        """A request whose refusal is its answer."""
        try:
            if isinstance(request, Place):
                self.place(ask, request)
            elif isinstance(request, Amend):
                self.amend(ask, request)
            else:
                self.cancel(ask, request)
        except RequestError as refusal:
            ask.fail(refusal.error)

    def mass_cancel(self, ask: Ask, request: MassCancel) -> None:
        """Cancel all orders of the account that fit. Raises RequestError."""
        filters = (request.sym, request.side, request.tag, request.group)
        if request.lock:
            if any(one is not None for one in filters):
                raise bad_field("lock", "it goes with the cancel of all orders")
            self._send(Command(Kind.LOCK, ask.account), Pending(Kind.LOCK, [ask], ask.account), ask.session)
            return
        instrument = self._projection.symbol(request.sym).number if request.sym is not None else 0
        side = ANY_SIDE if request.side is None else side_number(request.side)
        command = Command(
            Kind.MASS_CANCEL, ask.account, instrument, side=side, tag=request.tag or 0, group=request.group or 0
        )
        self._send(command, Pending(Kind.MASS_CANCEL, [ask], ask.account), ask.session)

    def cancel_session(self, account: int, serial: int, ask: Ask | None = None) -> None:
        """Cancel what a session left behind; `ask` is told how many."""
        command = Command(Kind.MASS_CANCEL, account, side=ANY_SIDE, session=serial)
        self._send(command, Pending(Kind.MASS_CANCEL, [ask] if ask else [], account), None)

    def command(self, record: NDArray[np.void], on_done: Callable[[Step], None]) -> None:
        """Send any one command, and call `on_done` with its step."""
        kind, account = Kind(int(record["kind"][0])), int(record["account"][0])
        record["ref"] = self._register(Pending(kind, [], account, on_done=on_done))
        self._queue(record.tobytes())

    def record(self, ask: Ask, record: NDArray[np.void], answer: Callable[[Step, Ask, int | None], None]) -> None:
        """As `request`, of a command with any body."""
        kind, account = Kind(int(record["kind"][0])), int(record["account"][0])
        record["ref"] = self._register(Pending(kind, [ask], account, answer=answer))
        self._queue(record.tobytes())

    def request(self, ask: Ask, command: Command, answer: Callable[[Step, Ask, int | None], None]) -> None:
        """Send a command of a client's; `answer` gets its step, and the first private event that it caused. Raises
        RequestError when too much is on its way.
        """
        kind = Kind(command.kind)
        self._send(command, Pending(kind, [ask], command.account, answer=answer), ask.session)

    def tick(self) -> None:
        """Put the time into the log."""
        self._queue(Command(Kind.TICK, 0).pack(0))

    # --- On the way ---------------------------------------------------------------------------------------------------

    def _send(self, command: Command, pending: Pending, session: Session | None) -> None:
        if session is not None:  # commands of our own always pass
            if session.pending > self._config.max_pending_per_session:
                raise RequestError(Code.OVERLOADED, "too many requests of this session are unanswered")
            if self.pending >= self._config.max_pending:
                raise RequestError(Code.OVERLOADED, "too many requests are on their way")
        self._queue(command.pack(self._register(pending, command)))

    def _queue(self, record: bytes) -> None:
        """Put a command behind those that wait to be sent, whoever made them."""
        head, unsent = self._tables.head, self._tables.unsent
        if head["unsent"] == len(unsent):
            self.flush()
        unsent[head["unsent"]] = np.frombuffer(record, COMMAND)[0]
        head["unsent"] += 1

    def make_room(self, commands: int) -> None:
        """Have so many commands fit behind those that wait to be sent."""
        if self._tables.head["unsent"] + commands > len(self._tables.unsent):
            self.flush()

    def _register(self, pending: Pending, command: Command | None = None) -> int:
        tables = self._tables
        at = tables.do(doors.NEW_PENDING)
        if not at:
            raise RequestError(Code.OVERLOADED, "too many commands are on their way")
        row = tables.pendings[at - 1]
        row["kind"], row["account"], row["python"] = pending.kind, pending.account, 1
        if pending.cid and command is not None:
            row["instrument"] = command.instrument
            for number, word in enumerate(pack_id(pending.cid).view("<i8").tolist()):
                row[f"c{number}"] = word
            tables.do(doors.HASH_PENDING, at)
        ref = int(row["ref"])
        self._pending[ref] = pending
        return ref

    def flush(self) -> None:
        """Hand what was collected to the node, in one array."""
        count = self._tables.head["unsent"]
        if count:
            self._tables.head["unsent"] = 0
            self._submit(copied(self._tables.unsent[:count]))

    def _on_its_way(self, account: int, cid: str) -> Pending | None:
        """The account's order with this cid that is on its way, whoever answers it; what waits is for Python from now on."""
        at = self._tables.find(doors.FIND_PENDING, cid, account)
        if not at:
            return None
        row = self._tables.pendings[at - 1]
        row["extra"] = 1
        found = self._pending.get(int(row["ref"]))
        if found is None:
            names = ("instrument", "side", "ord_type", "time_in_force", "flags", "price", "qty")
            terms = {name: int(row[name]) for name in ("flags", "tag", "group", "stp_group")}
            terms["flags"] &= ~Flag.EXTENDED
            body = (*(int(row[name]) for name in names), *NO_TERMS)
            body = tuple(terms.get(name, value) for name, value in zip(BODY, body, strict=True))
            found = self._pending[int(row["ref"])] = Pending(Kind.NEW_ORDER, [], account, cid, body, is_answered=True)
        return found

    def resolve(self, step: Step, first_aseq: dict[int, int]) -> list[tuple[Ask, Amend | Cancel]]:
        """Answer the request that waits for this command; returns the requests that waited for its order, which the
        caller passes to `attempt` once the private events of this step are queued.
        """
        command = step.command
        pending = self._pending.pop(command.ref, None)
        if pending is None:
            return []
        if not pending.is_answered:
            row = command.ref & (len(self._tables.pendings) - 1)
            self._tables.do(doors.DROP_PENDING, row + 1)
        if pending.on_done is not None:
            pending.on_done(step)
        aseq = first_aseq.get(pending.account)
        for index, ask in enumerate(pending.asks):
            if pending.answer is not None:
                pending.answer(step, ask, aseq if ask.account == pending.account else None)
            else:
                self._answer(step, ask, aseq, dup=pending.is_answered or index > 0)
        return pending.waiting

    def refusal(self, step: Step) -> Error:
        """Why a command was refused."""
        if not step.events:
            return internal("the engine said nothing")
        return self._error(step, Reason(step.events[0].reason))

    def _answer(self, step: Step, ask: Ask, aseq: int | None, dup: bool) -> None:
        event = step.events[0] if step.events else None
        is_refused = event is not None and event.kind == EventKind.REJECTED
        if step.command.kind in (Kind.MASS_CANCEL, Kind.LOCK) and not is_refused:
            ask.ok(MassCancelResult(sum(one.kind == EventKind.CANCELED for one in step.events)), aseq)
            return
        if event is None:
            ask.fail(internal("the engine said nothing"))
            return
        if event.kind == EventKind.REJECTED:
            self._refuse(step, ask, Reason(event.reason))
            return
        order = self._projection.orders.get(step.command.order_id or getattr(event, "order_id", 0))
        if order is None:
            ask.fail(FORGOTTEN)
            return
        result = order_result(order)
        if event.kind == EventKind.REPLACED:
            result.kept = event.reason == Reason.KEPT
        ask.ok(result, aseq, dup or event.kind == EventKind.DUPLICATE)

    def _refuse(self, step: Step, ask: Ask, reason: Reason) -> None:
        order = self._projection.orders.get(step.command.order_id)
        if step.command.kind == Kind.CANCEL and order is not None and order.done:
            ask.ok(order_result(order))  # it finished while the cancel was on its way
        else:
            ask.fail(self._error(step, reason))

    def _error(self, step: Step, reason: Reason) -> Error:
        command, error = step.command, error_of(reason)
        if reason == Reason.MARKET_NOT_OPEN:
            error.status = self._status(command)
        elif reason == Reason.INSUFFICIENT_FUNDS:
            error.msg += f"; {to_text(self._projection.accounts[command.account].cash)} is free"
        elif reason == Reason.MMP_FROZEN:
            error.until = microseconds(int(getattr(step.events[0], "contra_order_id", 0))) or None
        return error

    def _status(self, command: CommandRow) -> str:
        order = self._projection.orders.get(command.order_id)
        number = order.instrument if order else command.instrument
        instrument = self._projection.instruments.get(number)
        if instrument is None:
            return "delisted"
        if instrument.closed:
            return "closed"
        if self._projection.halted:
            return "exchange_halted"
        if instrument.status in (EngineStatus.HALTED, EngineStatus.CANCEL_ONLY):
            return EngineStatus(instrument.status).name.lower()
        return "not_open_yet" if command.ts_ns < instrument.open_ns else "gate_passed"

    def abandon(self, drain: Callable[[], None]) -> None:
        """Tell all who wait that nobody knows how it ends. For a node that stops. `drain` queues what was written."""
        error = RequestError(Code.OUTCOME_UNKNOWN, "the exchange stops; send it again with the same cid").error
        while self._tables.do(doors.ABANDON, self._tables.phrase(error)):
            drain()
        drain()
        for tell in self.abandoned:
            tell(error)
        pending, self._pending = self._pending, {}
        for one in pending.values():
            for ask in (*one.asks, *(ask for ask, _ in one.waiting)):
                ask.fail(error)

    # --- Which order --------------------------------------------------------------------------------------------------

    def _find(self, ask: Ask, request: Amend | Cancel) -> Order | None:
        """The order a request names. None when it is on its way: the request then waits for it."""
        if (request.oid is None) == (request.cid is None):
            raise bad_field("oid", "name the order by oid or by cid")
        if request.cid is not None:
            pending = self._on_its_way(ask.account, request.cid)
            if pending is not None:
                pending.waiting.append((ask, request))
                return None
            order = self._projection.order_by_cid(ask.account, request.cid)
        else:
            order = self._projection.orders.get(request.oid or 0)
        if order is None or order.account != ask.account:
            raise RequestError(Code.ORDER_NOT_FOUND, "the account has no such order")
        return order

    def _repeats(self, ask: Ask, cid: str, body: tuple[int, ...]) -> bool:
        """Whether the cid is known; then the request is answered, now or with the first one."""
        pending = self._on_its_way(ask.account, cid)
        order = self._projection.order_by_cid(ask.account, cid)
        known = pending.body if pending is not None else order.body if order is not None else None
        if known is None:
            return False
        if known != body:
            raise RequestError(Code.CID_REUSED_DIFFERENT, f"cid {cid!r} named another order")
        if pending is not None:
            pending.asks.append(ask)
        elif order is not None and order.ack is not None:
            status, left, cum, aseq = order.ack
            ask.ok(OrderResult(order.id, order.cid, status, left, cum), aseq or None, dup=True)
        return True

    def _place_command(self, ask: Ask, request: Place) -> Command:
        number, tick, highest = self._market(ask, request)
        tif, wire = check_place(request), ask.session.wire
        if not 1 <= request.qty <= MAX_QTY:
            raise RequestError(Code.BAD_QTY, f"qty {request.qty}: from 1 to {MAX_QTY} lots")
        identity = ask.session.identity
        covered = identity is not None and identity.cod and request.cod
        return Command(
            Kind.NEW_ORDER,
            ask.account,
            number,
            side=side_number(request.side),
            ord_type=TYPE_NUMBERS[request.type],
            time_in_force=tif,
            flags=flags_of(request),
            price=0 if request.px is None else ticks(request.px, wire, tick, highest),
            qty=request.qty,
            session=identity.key.serial if identity is not None and covered else 0,
            cl_ord_id=request.cid or "",
            group=request.group or 0,
            stop_price=0 if request.stop is None else ticks(request.stop, wire, tick, highest, "stop"),
            show_qty=request.show or 0,
            min_qty=request.min_qty or 0,
            expire_ns=nanoseconds(request.expire),
            deadline_ns=nanoseconds(request.deadline),
            tag=request.tag or 0,
            stp_group=stp_group(self._projection, ask.account, request.stp_group),
        )

    def _market(self, ask: Ask, request: Place) -> tuple[int, int, int]:
        """Number, tick and highest price of the instrument. A repeated order may be of one that is delisted."""
        if request.cid is not None:
            known = self._projection.order_by_cid(ask.account, request.cid)
            if known is not None and known.symbol == request.sym:
                return known.instrument, known.tick_micros, MAX_PX_MICROS
        instrument = self._projection.symbol(request.sym)
        return instrument.number, instrument.tick_micros, instrument.max_price


NO_TERMS = (0,) * (len(BODY) - 7)
"""The end of a plain order's body."""
DETAILED = {Reason.MARKET_NOT_OPEN, Reason.INSUFFICIENT_FUNDS}
"""Reasons whose errors say more than the reason."""
NO_SUCH_ORDER = RequestError(Code.ORDER_NOT_FOUND, "the account has no such order").error
SESSION_IS_FULL = RequestError(Code.OVERLOADED, "too many requests of this session are unanswered").error
EXCHANGE_IS_FULL = RequestError(Code.OVERLOADED, "too many requests are on their way").error
FORGOTTEN = RequestError(
    Code.OUTCOME_UNKNOWN,
    "the cid is of an order that was accepted before and is forgotten: look for it in orders.history",
).error
OWN_ERRORS = [NO_SUCH_ORDER, SESSION_IS_FULL, EXCHANGE_IS_FULL, FORGOTTEN]


def error_of(reason: Reason) -> Error:
    """The error for a reason of the engine, without details."""
    return Error(int(reason), reason.name, True, WORDS.get(reason, reason.name.lower().replace("_", " ")))


PLAIN_ERRORS = {reason: error_of(reason) for reason in Reason if reason > 1_000 and reason not in DETAILED}


def internal(msg: str) -> Error:
    """The error for what should not happen."""
    return Error(Code.INTERNAL, Code.INTERNAL.name, True, msg)


def order_result(order: Order) -> OrderResult:
    """Where an order stands."""
    now = order.read()
    return OrderResult(now.id, now.cid or None, now.status, now.leaves, now.cum)
