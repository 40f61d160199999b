"""An account's own stream: orders, fills, positions, balances and deliveries in one numbered order.

`aseq` counts an account's events by one. The numbering is a function of the log alone: each command's events come in
the engine's order, then one `position` for each position whose lots or money it moved, then one `balance`. So a client
can resume from a number, also across a restart of the server.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from engine.types import STP_MASK, EventKind, Flag, OrdType, Reason, Side, TimeInForce
from gateway.fast import doors
from gateway.fast.tables import STP_GROUP_BITS
from gateway.memory import Tables
from gateway.messages import (
    AccountEvent,
    BalanceEvent,
    BalanceState,
    DeliveryEvent,
    Fill,
    Format,
    MmpEvent,
    MmpState,
    MoneyEvent,
    OrderEvent,
    OrderState,
    OrderStatus,
    PositionEvent,
    PositionState,
    PreventedEvent,
    PrivateEvent,
    PrivateSnapshot,
    SideName,
    StpName,
    TifName,
    TimerEvent,
    TimerState,
    TypeName,
    encode,
)
from gateway.projection import PPM, Projection
from gateway.rows import EventRow, MoneyRow, Step
from gateway.views import Account, Order, OrderRow

SIDE_NAMES: tuple[SideName, SideName] = ("buy", "sell")
TYPE_NAMES: dict[int, TypeName] = {
    OrdType.LIMIT: "limit",
    OrdType.MARKET: "market",
    OrdType.STOP: "stop",
    OrdType.STOP_LIMIT: "stop_limit",
}
TIF_NAMES: dict[int, TifName] = {
    TimeInForce.GTG: "gtg",
    TimeInForce.GTC: "gtc",
    TimeInForce.IOC: "ioc",
    TimeInForce.FOK: "fok",
    TimeInForce.GTD: "gtd",
}
STP_NAMES: dict[int, StpName] = {
    Flag.STP_EXPIRE_TAKER: "expire_taker",
    Flag.STP_EXPIRE_MAKER: "expire_maker",
    Flag.STP_EXPIRE_BOTH: "expire_both",
    Flag.STP_DECREMENT: "decrement",
}
PREVENTED_BY: dict[int, StpName] = {
    Reason.EXPIRE_TAKER: "expire_taker",
    Reason.EXPIRE_MAKER: "expire_maker",
    Reason.EXPIRE_BOTH: "expire_both",
    Reason.DECREMENT: "decrement",
}
EXECS: dict[int, Literal["new", "replaced", "canceled", "triggered", "refreshed"]] = {
    EventKind.NEW: "new",
    EventKind.REPLACED: "replaced",
    EventKind.CANCELED: "canceled",
    EventKind.TRIGGERED: "triggered",
    EventKind.REFRESHED: "refreshed",
}
MOVED: dict[int, Literal["transfer", "split", "lien", "lien_lifted"]] = {
    EventKind.TRANSFERRED: "transfer",
    EventKind.SPLIT_PAID: "split",
    EventKind.LIEN_TAKEN: "lien",
    EventKind.LIEN_LIFTED: "lien_lifted",
}
WHY = {
    Reason.BY_REQUEST: "by_request",
    Reason.UNFILLED: "unfilled",
    Reason.GATE_CLOSED: "gate_closed",
    Reason.MASS_CANCELED: "mass_canceled",
    Reason.EXPIRED: "expired",
    Reason.LOCKED_OUT: "locked",
    Reason.MMP: "mmp",
    Reason.DEAD_MAN: "dead_man",
    Reason.NOTHING_TO_REDUCE: "nothing_to_reduce",
    Reason.SELF_TRADE_PREVENTED: "self_trade_prevented",
}


MS = 1_000_000
"""Nanoseconds."""

_decode = msgspec.msgpack.Decoder(PrivateEvent).decode
KeptEvents = dict[tuple[int, int], PrivateEvent]
"""By account and aseq: the events that were made by Python. The tables have no values for them."""


class Stream:
    """The last events of an account. `aseq` is the number of the last one."""

    __slots__ = ("_account", "_kept", "_tables")

    def __init__(self, tables: Tables, account: int, kept: KeptEvents) -> None:
        self._tables, self._account, self._kept = tables, account, kept

    @property
    def aseq(self) -> int:
        return int(self._tables.accounts[self._account]["aseq"])

    def since(self, first: int) -> list[PrivateEvent] | None:
        """The events from number `first` on, None when some of them are gone, or never were."""
        encoded = self.encoded_since(first, Format.MSGPACK)
        return None if encoded is None else [_decode(data) for data in encoded]

    def encoded_since(self, first: int, wire: Format) -> list[bytes] | None:
        """The same as messages."""
        missing = self.aseq + 1 - first
        kept = self._tables.head["ring_events"]
        if missing < 0 or missing > min(kept, self.aseq):
            return None
        return [self._message(aseq, wire) for aseq in range(first, self.aseq + 1)]

    def _message(self, aseq: int, wire: Format) -> bytes:
        event = self._kept.get((self._account, aseq))
        if event is not None:
            return encode(event, wire)
        return self._tables.record(self._tables.do(doors.RECORD_AT, self._account, aseq), wire)


KEPT_BEFORE_A_LOOK = 16_384


class PrivateStreams:
    """The streams of all accounts. Follow a step event by event, then `finish` it and take what is `fresh`."""

    def __init__(self, projection: Projection) -> None:
        self.fresh: list[tuple[int, PrivateEvent]] = []  # of the present step: account, event
        self.first: dict[int, int] = {}  # of the present step: account -> its first aseq
        self._projection = projection
        self._tables = projection.tables
        self._kept: KeptEvents = {}
        self._kept_at_most = KEPT_BEFORE_A_LOOK
        self._follow: dict[int, Callable[[Any], None]] = {
            EventKind.NEW: self._order,
            EventKind.TRADE: self._trade,
            EventKind.CANCELED: self._order,
            EventKind.REPLACED: self._order,
            EventKind.TRIGGERED: self._order,
            EventKind.REFRESHED: self._order,
            EventKind.PREVENTED: self._prevented,
            EventKind.MMP_SET: self._mmp,
            EventKind.MMP_TRIGGERED: self._mmp,
            EventKind.MMP_RESET: self._mmp,
            EventKind.DEAD_MAN_SET: self._timer,
            EventKind.ACCOUNT_LOCKED: self._account,
            EventKind.ACCOUNT_UNLOCKED: self._account,
            EventKind.LIMITS_SET: self._account,
            EventKind.DEPOSITED: self._money,
            EventKind.WITHDRAWN: self._money,
            EventKind.NOMINATED: self._money,
            EventKind.BOND_RELEASED: self._money,
            EventKind.REBATE_PAID: self._money,
            EventKind.TRANSFERRED: self._moved,
            EventKind.SPLIT_PAID: self._moved,
            EventKind.LIEN_TAKEN: self._moved,
            EventKind.LIEN_LIFTED: self._moved,
            EventKind.DELIVERY_DUE: self._due,
            EventKind.DELIVERED: self._delivered,
        }

    def stream(self, account: int) -> Stream:
        """The account's stream."""
        return Stream(self._tables, account, self._kept)

    # --- Following the log --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Before the events of a command."""
        self.fresh.clear()
        self.first.clear()
        if len(self._kept) > self._kept_at_most:
            self._drop_old()

    def follow(self, event: EventRow | MoneyRow) -> None:
        """After the projection followed the event."""
        follow = self._follow.get(event.kind)
        if follow is not None:
            follow(event)

    def finish(self, step: Step) -> None:
        """After the events of a command: where it left positions and money."""
        if not step.events:
            return
        accounts = self._projection.accounts
        seq, ts_us = step.events[-1].seq, step.command.ts_ns // 1000
        for number, instrument in self._projection.moved_positions:
            position = position_state(self._projection, accounts[number], instrument)
            self._emit(number, PositionEvent(aseq=0, seq=seq, ts=ts_us, position=position))
        for number in self._projection.moved_money:
            self._emit(number, BalanceEvent(aseq=0, seq=seq, ts=ts_us, balances=balance_state(accounts[number])))

    def _emit(self, account: int, event: PrivateEvent) -> None:
        row = self._tables.do(doors.NEXT_RECORD, account)
        self._tables.records[row] = 0
        self._tables.values[row] = 0
        event.aseq = int(self._tables.accounts[account]["aseq"])
        self._kept[account, event.aseq] = event
        self.first.setdefault(account, event.aseq)
        self.fresh.append((account, event))

    def _drop_old(self) -> None:
        """Forget the events that nobody can ask for any more."""
        last = self._tables.accounts["aseq"].tolist()
        ring = self._tables.head["ring_events"]
        for key in [key for key in self._kept if key[1] <= last[key[0]] - ring]:
            del self._kept[key]
        self._kept_at_most = 2 * len(self._kept) + KEPT_BEFORE_A_LOOK

    def _order(self, event: EventRow) -> None:
        order = self._projection.orders[event.order_id].read()
        message = OrderEvent(
            aseq=0, seq=event.seq, ts=event.ts_ns // 1000, exec=EXECS[event.kind], oid=order.id, cid=order.cid or None,
            sym=self._tables.symbol_at(order.symbol), side=SIDE_NAMES[order.side], type=TYPE_NAMES[order.ord_type],
            px=order.price * order.tick_micros, qty=order.qty, left=order.leaves, cum=order.cum,
            tif=TIF_NAMES[order.time_in_force], post=order.post_only, st=order.status,
        )  # fmt: skip
        if event.kind == EventKind.CANCELED:
            message.why = WHY.get(Reason(event.reason), Reason(event.reason).name.lower())
        elif event.kind == EventKind.REPLACED:
            message.kept = event.reason == Reason.KEPT
        _add_terms(message, order)
        self._emit(order.account, message)

    def _prevented(self, event: EventRow) -> None:
        orders = self._projection.orders
        taker, maker = orders[event.order_id], orders[event.contra_order_id]
        self._emit(event.account, _prevented(event, taker, maker, event.leaves_qty, event.cum_qty))
        mirrored = _prevented(event, maker, taker, event.contra_leaves_qty, event.contra_cum_qty)
        mirrored.liq = "maker"
        self._emit(event.contra_account, mirrored)

    def _mmp(self, event: EventRow) -> None:
        message = MmpEvent(
            aseq=0, seq=event.seq, ts=event.ts_ns // 1000, what="reset", group=event.contra_account
        )  # fmt: skip
        if event.kind != EventKind.MMP_RESET:
            message.what, message.lots, message.fills = "set", event.qty, event.cum_qty
        if event.kind == EventKind.MMP_TRIGGERED:
            message.what, message.sym = "triggered", self._projection.instruments[event.instrument].symbol
            message.until = microseconds(event.contra_order_id) or UNSET
        elif event.kind == EventKind.MMP_SET:
            message.window_ms, message.freeze_ms = event.contra_order_id // MS, event.order_id // MS or UNSET
            if not event.qty and not event.cum_qty:
                message.what, message.lots, message.fills, message.window_ms = "off", UNSET, UNSET, UNSET
        self._emit(event.account, message)

    def _timer(self, event: EventRow) -> None:
        message = TimerEvent(aseq=0, seq=event.seq, ts=event.ts_ns // 1000, what="off", tag=event.order_id)
        if event.contra_order_id:
            message.what, message.at = "set", event.contra_order_id // 1000
        elif event.reason == Reason.DEAD_MAN:
            message.what = "fired"
        self._emit(event.account, message)

    def _account(self, event: EventRow) -> None:
        message = AccountEvent(aseq=0, seq=event.seq, ts=event.ts_ns // 1000, what="limits")
        if event.kind == EventKind.LIMITS_SET:
            message.qty, message.net, message.orders = event.qty, event.price, event.leaves_qty
        else:
            message.what = "locked" if event.kind == EventKind.ACCOUNT_LOCKED else "unlocked"
        self._emit(event.account, message)

    def _trade(self, event: EventRow) -> None:
        orders, instrument = self._projection.orders, self._projection.instruments[event.instrument]
        rebate = event.price * instrument.lot_tick_micros * event.qty * instrument.maker_rebate_ppm // PPM
        taker = _fill(event, orders[event.order_id], event.leaves_qty, event.cum_qty)
        taker.fee, taker.fee_due = event.fee_micros, event.fee_due_micros
        maker = _fill(event, orders[event.contra_order_id], event.contra_leaves_qty, event.contra_cum_qty)
        maker.liq, maker.fee = "maker", -rebate
        self._emit(event.account, taker)
        self._emit(event.contra_account, maker)

    def _money(self, event: MoneyRow) -> None:
        message = MoneyEvent(
            aseq=0, seq=event.seq, ts=event.ts_ns // 1000, what="deposit", amount=event.amount_micros
        )  # fmt: skip
        match event.kind:
            case EventKind.WITHDRAWN:
                message.what = "withdrawal"
            case EventKind.REBATE_PAID:
                message.what = "rebate"
            case EventKind.NOMINATED:
                message.what, message.lots = "nomination", event.lots
                message.sym = self._projection.instruments[event.instrument].symbol
            case EventKind.BOND_RELEASED:
                message.what = "bond_released"
                message.sym = self._projection.instruments[event.instrument].symbol
        self._emit(event.account, message)

    def _moved(self, event: MoneyRow) -> None:
        sides = [(event.account, event.amount_micros), (event.contra_account, event.contra_amount_micros)]
        for account, amount in sides[: 2 if event.contra_account else 1]:
            message = MoneyEvent(
                aseq=0, seq=event.seq, ts=event.ts_ns // 1000, what=MOVED[event.kind], amount=amount
            )  # fmt: skip
            self._emit(account, message)

    def _due(self, event: MoneyRow) -> None:
        self._emit(event.account, self._delivery(event, provider=event.lots < 0, what_is_due=True))

    def _delivered(self, event: MoneyRow) -> None:
        provider = self._delivery(event, provider=True, what_is_due=False)
        receiver = self._delivery(event, provider=False, what_is_due=False)
        receiver.amount = event.contra_amount_micros
        self._emit(event.account, provider)
        self._emit(event.contra_account, receiver)

    def _delivery(self, event: MoneyRow, provider: bool, what_is_due: bool) -> DeliveryEvent:
        return DeliveryEvent(
            aseq=0, seq=event.seq, ts=event.ts_ns // 1000, what="due" if what_is_due else "done",
            role="provider" if provider else "receiver", sym=self._projection.instruments[event.instrument].symbol,
            lots=abs(event.lots), amount=event.amount_micros, refund=event.refund_micros, damages=event.damages_micros,
        )  # fmt: skip

    # --- Snapshots ----------------------------------------------------------------------------------------------------

    def snapshot(self, number: int, seq: int, ts_us: int) -> PrivateSnapshot:
        """The account as it stands now."""
        account = self._projection.accounts[number]
        return PrivateSnapshot(
            aseq=self.stream(number).aseq, seq=seq, ts=ts_us, orders=open_orders(account),
            positions=positions(self._projection, account), balances=balance_state(account),
            mmp=protections(self._projection, number, ts_us), timers=timers(self._projection, number),
            locked=number in self._projection.locked,
        )  # fmt: skip

    def dump(self) -> list[tuple[int, PrivateEvent]]:
        """What `load` needs beside the tables: account and event."""
        self._drop_old()
        return [(account, event) for (account, _), event in self._kept.items()]

    def load(self, events: list[tuple[int, PrivateEvent]]) -> None:
        """Take over stored events, after the projection did."""
        for account, event in events:
            self._kept[account, event.aseq] = event


def _fill(event: EventRow, order: Order, leaves: int, cum: int) -> Fill:
    status: OrderStatus = "partial" if leaves else "filled"
    return Fill(
        aseq=0, seq=event.seq, ts=event.ts_ns // 1000, tid=event.seq, oid=order.id, cid=order.cid or None,
        sym=order.symbol, side=SIDE_NAMES[order.side], px=event.price * order.tick_micros, qty=event.qty, left=leaves,
        cum=cum, st=status, liq="taker", fee=0, fee_due=0,
    )  # fmt: skip


def _prevented(event: EventRow, order: Order, other: Order, leaves: int, cum: int) -> PreventedEvent:
    return PreventedEvent(
        aseq=0, seq=event.seq, ts=event.ts_ns // 1000, what=PREVENTED_BY[event.reason], liq="taker", oid=order.id,
        other=other.id, cid=order.cid or None, sym=order.symbol, side=SIDE_NAMES[order.side],
        px=event.price * order.tick_micros, qty=event.qty, left=leaves, cum=cum,
    )  # fmt: skip


def _add_terms(state: OrderEvent | OrderState, order: OrderRow) -> None:
    """What an order has beyond a plain one."""
    if order.stop_price:
        state.stop = order.stop_price * order.tick_micros
    if order.show:
        state.show = order.show
        if not order.done and not order.waiting:
            state.shown = order.shown
    state.min_qty, state.tag, state.group = order.min_qty or UNSET, order.tag or UNSET, order.group or UNSET
    state.expire = order.expire_ns // 1000 or UNSET
    flags = order.flags
    state.slide, state.reduce_only = bool(flags & Flag.SLIDE) or UNSET, bool(flags & Flag.REDUCE_ONLY) or UNSET
    state.stp = STP_NAMES.get(flags & STP_MASK, UNSET)
    state.stp_group = order.stp_group & ((1 << STP_GROUP_BITS) - 1) or UNSET
    if order.level:
        state.level = order.level - 1


def open_orders(account: Account, symbol: str | None = None) -> list[OrderState]:
    """The account's working orders, oldest first; those of one symbol if given."""
    return [order_state(order) for order in account.orders.values() if symbol is None or order.symbol == symbol]


def order_state(found: Order) -> OrderState:
    """An order as it is shown."""
    order = found.read()
    state = OrderState(
        oid=order.id, cid=order.cid or None, sym=found.symbol, side=SIDE_NAMES[order.side],
        type=TYPE_NAMES[order.ord_type], px=order.price * order.tick_micros, qty=order.qty, left=order.leaves,
        cum=order.cum, tif=TIF_NAMES[order.time_in_force], post=order.post_only, st=order.status,
        ts=order.ts_ns // 1000,
    )  # fmt: skip
    _add_terms(state, order)
    return state


def protections(projection: Projection, account: int, now_us: int) -> list[MmpState]:
    """The account's groups with market-maker protection."""
    found = []
    for (owner, group), one in sorted(projection.protections.items()):
        if owner == account:
            until = microseconds(one.until_ns)
            is_frozen = one.is_frozen and (not until or now_us < until)
            state = MmpState(group, one.window_ns // MS, one.lots, one.fills, is_frozen, one.freeze_ns // MS or UNSET)
            if is_frozen and until:
                state.until = until
            found.append(state)
    return found


def microseconds(until_ns: int) -> int:
    """A time up to which something holds, so that it holds no more at the microsecond that is told."""
    return -(-until_ns // 1000)


def timers(projection: Projection, account: int) -> list[TimerState]:
    """The account's dead man's switches."""
    return [
        TimerState(tag, due_ns // 1000)
        for (owner, tag), due_ns in sorted(projection.timers.items())
        if owner == account
    ]


def positions(projection: Projection, account: Account, symbol: str | None = None) -> list[PositionState]:
    """The account's positions that are not empty; that in one symbol if given."""
    states = [position_state(projection, account, instrument) for instrument in account.positions]
    return [state for state in states if _is_open(state) and (symbol is None or state.sym == symbol)]


def _is_open(state: PositionState) -> bool:
    return bool(state.net or state.capacity or state.open_buy or state.open_sell or state.escrow or state.bond)


def position_state(projection: Projection, account: Account, instrument: int) -> PositionState:
    """A position as it is shown."""
    position = account.positions[instrument]
    return PositionState(
        sym=projection.instruments[instrument].symbol, net=position.net, capacity=position.capacity,
        open_buy=position.open_buy, open_sell=position.open_sell, escrow=position.escrow, fees_due=position.fees_due,
        bond=position.bond,
    )  # fmt: skip


def balance_state(account: Account) -> BalanceState:
    """An account's money as it is shown."""
    return BalanceState(
        cash=account.cash, held=account.held, escrow=account.escrow, fees_due=account.fees_due, bond=account.bond,
        rebate=account.rebate, frozen=account.frozen,
    )  # fmt: skip


def side_number(name: SideName) -> int:
    """The engine's number of a side."""
    return Side.SELL if name == "sell" else Side.BUY
