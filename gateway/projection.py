"""What the gateway knows: accounts, instruments, orders and depth, mirrored from commands and their events.

The engine decides; this only follows. Each method of `Projection.apply` is the rule of docs/engine.md for one kind of
event, read backwards: from the event's fields to the balances after it. Everything here is a function of the log
alone, so a restart that replays the log, or restores `dump()` and replays the rest, ends in the same state.
"""

from collections.abc import Callable
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine.types import (
    LISTING,
    STP_MASK,
    TRANSFER,
    UNCHANGED,
    EventKind,
    Flag,
    Kind,
    OrdType,
    Reason,
    Side,
    Status,
    TimeInForce,
)
from gateway.commands import Command
from gateway.fast import doors
from gateway.fast.tables import ORDER
from gateway.fast.templates import SIDES
from gateway.memory import Tables
from gateway.messages import Code, RequestError, TradeItem
from gateway.rows import CommandRow, EventRow, MoneyRow, Step, text_at
from gateway.views import Account, AllOrders, Depth, Order, Position, Row, column

PPM = 1_000_000
CID_COLUMNS = ("c0", "c1", "c2", "c3", "c4")
LISTED_TERMS = frozenset(LISTING.names or ()) - {"symbol"}
PLAIN_FLAGS = Flag.POST_ONLY | Flag.REQUEUE | STP_MASK | Flag.EXTENDED
PLAIN_TEXT = frozenset(map(chr, range(0x20, 0x7F))) - set('"\\')


class Instrument(Row):
    """A listed contract. Prices in ticks; `tick_micros` is a tick per GPU-hour, `lot_tick_micros` per lot."""

    __slots__ = ("symbol", "terms")
    closed = column("instruments", "closed")
    status = column("instruments", "status")
    listed_seq = column("instruments", "listed_seq")  # events: of its listing,
    status_seq = column("instruments", "status_seq")  # of its last change of status,
    trade_seq = column("instruments", "trade_seq")  # and of its last trade
    last_price = column("instruments", "last_price")
    volume_lots = column("instruments", "volume_lots")

    def __init__(self, tables: Tables, terms: "Terms") -> None:
        super().__init__(tables, terms.number)
        self.terms = terms
        self.symbol = terms.symbol

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terms, name)

    def recent_trades(self) -> list[TradeItem]:
        """The last trades, oldest first."""
        kept, ever = self._tables.head["recent_trades"], int(self._tables.instruments[self.row]["recent"])
        places = [self.row * kept + number % kept for number in range(max(0, ever - kept), ever)]
        rows = self._tables.recent[places].tolist()
        return [TradeItem(tid, px, qty, SIDES[side], ts) for tid, px, qty, side, ts in rows]


class Terms(Struct):
    """What an instrument was listed with."""

    number: int
    symbol: str
    class_id: int
    region_id: int
    gpus_per_lot: int
    hours: int
    start_s: int
    tick_micros: int
    lot_tick_micros: int
    max_price: int
    reference_price: int
    open_ns: int
    gate_ns: int
    taker_fee_ppm: int
    maker_rebate_ppm: int
    bond_ppm: int
    band_ppm: int = 0
    collar_ppm: int = 0
    dynamic_ppm: int = 0

    @property
    def low_price(self) -> int:
        """The lowest price of an order."""
        return max(0, self.reference_price - self._width) if self.band_ppm else 0

    @property
    def high_price(self) -> int:
        """The highest."""
        return min(self.max_price, self.reference_price + self._width) if self.band_ppm else self.max_price

    @property
    def _width(self) -> int:
        return self.reference_price * self.band_ppm // PPM


class Protection(Struct):
    """Market-maker protection of a group: so many lots or fills in the window freeze it. All 0: none was set."""

    window_ns: int
    lots: int
    fills: int
    is_frozen: bool = False
    freeze_ns: int = 0
    until_ns: int = 0  # when it is frozen no more; 0: with a reset


class ProjectionState(Struct):
    """A projection as it is stored."""

    names: list[tuple[int, str]]  # of accounts
    instruments: list[Terms]
    head: dict[str, int]
    tables: dict[str, tuple[list[tuple[str, str]], bytes]]  # each table's columns, and its rows
    protections: list[tuple[int, int, Protection]] = []  # account, group
    timers: list[tuple[int, int, int]] = []  # account, tag, when
    locked: list[int] = []
    halted: bool = False


def order_body(command: Command) -> tuple[int, ...]:
    """What must be the same for a repeated cid to be the same order: `Order.body`, of a command."""
    return (
        command.instrument, command.side, command.ord_type, command.time_in_force, command.flags & ~Flag.EXTENDED,
        command.price, command.qty, command.stop_price, command.show_qty, command.min_qty, command.expire_ns, command.tag,
        command.group, command.stp_group,
    )  # fmt: skip


def owner(name: str) -> str:
    """Whose account it is: `alice` and `alice:hedge` are alice's."""
    return name.partition(":")[0]


class Projection:
    """All accounts, instruments, orders and books, as of the last event applied."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.accounts: dict[int, Account] = {}
        self.account_by_name: dict[str, Account] = {}
        self.first_of_owner: dict[str, int] = {}  # the lowest number of an owner's accounts
        self.instruments: dict[int, Instrument] = {}
        self.instrument_by_symbol: dict[str, Instrument] = {}
        self.orders = AllOrders(tables)
        self.books: dict[int, Depth] = {}
        self.moved_money: dict[int, None] = {}  # accounts whose money changed in this step, in order
        self.moved_positions: dict[tuple[int, int], None] = {}  # (account, instrument), likewise
        self.retired: list[Instrument] = []  # delisted in this step
        self.protections: dict[tuple[int, int], Protection] = {}  # (account, group)
        self.timers: dict[tuple[int, int], int] = {}  # (account, tag) -> when its orders are cancelled, ns
        self.locked: set[int] = set()
        self.halted = False
        self._apply: dict[int, Callable[..., None]] = {
            EventKind.NEW: self._new,
            EventKind.TRADE: self._trade,
            EventKind.CANCELED: self._canceled,
            EventKind.REPLACED: self._replaced,
            EventKind.TRIGGERED: self._triggered,
            EventKind.PREVENTED: self._prevented,
            EventKind.REFRESHED: self._refreshed,
            EventKind.QUOTE_KEPT: self._quote_kept,
            EventKind.MMP_SET: self._protected,
            EventKind.MMP_TRIGGERED: self._froze,
            EventKind.MMP_RESET: self._thawed,
            EventKind.DEAD_MAN_SET: self._timed,
            EventKind.ACCOUNT_LOCKED: lambda _step, event: self.locked.add(event.account),
            EventKind.ACCOUNT_UNLOCKED: lambda _step, event: self.locked.discard(event.account),
            EventKind.STATUS_CHANGED: self._status_changed,
            EventKind.AUCTION_PRICE: self._told,
            EventKind.BAND_SET: self._band_set,
            EventKind.EXCHANGE_HALTED: self._exchange_halted,
            EventKind.EXCHANGE_RESUMED: self._exchange_halted,
            EventKind.ACCOUNT_OPENED: self._account_opened,
            EventKind.DEPOSITED: self._cash_moved,
            EventKind.WITHDRAWN: self._cash_moved,
            EventKind.NOMINATED: self._nominated,
            EventKind.BOND_RELEASED: self._bond_released,
            EventKind.DELIVERED: self._delivered,
            EventKind.REBATE_PAID: self._rebate_paid,
            EventKind.TRANSFERRED: self._paid,
            EventKind.SPLIT_PAID: self._paid,
            EventKind.FROZEN: self._frozen,
            EventKind.LIEN_TAKEN: self._lien_moved,
            EventKind.LIEN_LIFTED: self._lien_moved,
            EventKind.LISTED: self._listed,
            EventKind.CLOSED: self._closed,
            EventKind.DELISTED: self._delisted,
        }

    # --- Following the log --------------------------------------------------------------------------------------------

    def begin(self, step: Step) -> None:
        """Before the events of a command: what it moves is collected from here on."""
        self.moved_money.clear()
        self.moved_positions.clear()
        self.retired.clear()
        self.tables.do(doors.FORGET, step.command.ts_ns)

    def apply(self, step: Step, event: EventRow | MoneyRow) -> None:
        """Follow one event of a step."""
        follow = self._apply.get(event.kind)
        if follow is not None:
            follow(step, event)

    def seal(self, step: Step, first_aseq: dict[int, int]) -> None:
        """After the events of a command: keep what a new order's sender is told, to tell it again."""
        event = step.events[0] if step.events else None
        if isinstance(event, EventRow) and event.kind == EventKind.NEW:
            order = self.orders[event.order_id]
            order.ack = (order.status, order.leaves, order.cum, first_aseq.get(order.account, 0))

    def _new(self, step: Step, event: EventRow) -> None:
        command, instrument = step.command, self.instruments[event.instrument]
        account = self.accounts[event.account]
        row = self.tables.do(doors.NEW_ORDER_ROW)
        values = {
            "id": event.order_id, "account": event.account, "instrument": event.instrument,
            "symbol": self.tables.symbol_number(instrument.symbol), "tick_micros": instrument.tick_micros,
            "side": event.side, "ord_type": command.ord_type, "time_in_force": command.time_in_force,
            "flags": command.flags, "session": command.session, "ts_ns": event.ts_ns, "price": event.price,
            "qty": event.qty, "leaves": event.leaves_qty, "queued_seq": event.seq, "body_price": command.price,
            "body_qty": command.qty, "waiting": event.reason == Reason.WAITING, "show": event.contra_leaves_qty,
            "shown": min(event.contra_leaves_qty, event.leaves_qty), **_terms(command),
        }  # fmt: skip
        cid = ""
        if command.kind == Kind.NEW_ORDER:
            cid = text_at(step.commands, step.at, "cl_ord_id")
            values |= zip(CID_COLUMNS, step.commands["cl_ord_id"][step.at].view("<i8").tolist(), strict=True)
        values["special"] = _is_special(command, event, cid)
        self.tables.orders[row] = tuple(map(values.get, ORDER.names or (), repeat(0)))
        self.tables.do(doors.ENTER_ORDER, row)
        order = Order(self.tables, row)
        self._hold(account, event.held_micros)
        self._open_lots(account, order, order.leaves)
        self._enter_book(event, order)

    def _trade(self, _step: Step, event: EventRow) -> None:
        taker, maker = self.orders[event.order_id], self.orders[event.contra_order_id]
        instrument = self.instruments[event.instrument]
        notional = event.price * instrument.lot_tick_micros * event.qty
        buyer, seller = (taker, maker) if event.side == Side.BUY else (maker, taker)
        self._bought(event, buyer, notional, event.fee_micros if buyer is taker else 0)
        self._sold(event, seller, notional, event.fee_micros if seller is taker else 0)
        if event.reason != Reason.AUCTION:  # in one nobody takes
            self.accounts[maker.account].rebate += notional * instrument.maker_rebate_ppm // PPM
        self.moved_money[maker.account] = None
        took = event.reason != Reason.AUCTION
        self._filled(event, taker, event.leaves_qty, event.cum_qty, took)
        self._filled(event, maker, event.contra_leaves_qty, event.contra_cum_qty, False)
        instrument.last_price = event.price
        instrument.volume_lots += event.qty
        instrument.trade_seq = event.seq

    def _bought(self, event: EventRow, order: Order, notional: int, fee: int) -> None:
        account = self.accounts[order.account]
        position = self._position(order.account, order.instrument)
        account.held -= event.held_micros
        account.cash += event.held_micros - notional - fee + event.released_micros - event.due_paid_micros
        self._owe(account, position, -event.released_micros, -event.due_paid_micros)
        position.net += event.qty
        position.open_buy -= event.qty
        self.moved_money[order.account] = None

    def _sold(self, event: EventRow, order: Order, notional: int, fee: int) -> None:
        account = self.accounts[order.account]
        position = self._position(order.account, order.instrument)
        account.cash += notional - event.escrow_micros - (fee - event.fee_due_micros)
        self._owe(account, position, event.escrow_micros, event.fee_due_micros)
        position.net -= event.qty
        position.open_sell -= event.qty
        self.moved_money[order.account] = None

    def _filled(self, event: EventRow, order: Order, leaves: int, cum: int, took: bool) -> None:
        before = order.public_lots
        order.leaves, order.cum = leaves, cum
        self._show_less(order, event.qty, took)
        self.moved_positions[order.account, order.instrument] = None
        self._depth_add(event, order.side, order.price, order.public_lots - before)
        if leaves == 0:
            self._finish(order, event.ts_ns)

    def _show_less(self, order: Order, qty: int, took: bool) -> None:
        """An iceberg lost some lots: of what it shows, or, as a taker, of all it has. Its leaves are what is left already."""
        if order.show:
            order.shown = min(order.show, order.leaves) if took else order.shown - qty

    def _canceled(self, _step: Step, event: EventRow) -> None:
        order = self.orders[event.order_id]
        account = self.accounts[order.account]
        self._hold(account, event.held_micros)
        self._open_lots(account, order, -event.leaves_qty)
        self._leave_book(event, order)
        order.qty, order.leaves, order.cum, order.waiting = event.qty, 0, event.cum_qty, 0
        self._finish(order, event.ts_ns)
        if order.cum == order.qty:
            self.tables.orders[order.row]["done"] = 2

    def _replaced(self, step: Step, event: EventRow) -> None:
        command, order = step.command, self.orders[event.order_id]
        account = self.accounts[order.account]
        self._hold(account, event.held_micros)
        self._open_lots(account, order, event.leaves_qty - order.leaves)
        self._leave_book(event, order)
        is_kept = event.reason == Reason.KEPT
        order.price, order.qty, order.leaves = event.price, event.qty, event.leaves_qty
        order.shown = min(order.shown if is_kept else order.show, order.leaves)
        self._enter_book(event, order)
        if not is_kept:
            order.queued_seq = event.seq
        if command.kind == Kind.QUOTE:
            self._take_over(order, command)
        elif command.flags & Flag.EXTENDED and command.stop_price not in (0, UNCHANGED):
            order.stop_price = command.stop_price

    def _quote_kept(self, step: Step, event: EventRow) -> None:
        if event.order_id:
            self._take_over(self.orders[event.order_id], step.command)

    def _take_over(self, order: Order, command: CommandRow) -> None:
        """A quote belongs to whoever sent it last."""
        order.session, order.flags, order.stp_group = command.session, command.flags, command.stp_group
        if command.flags & ~PLAIN_FLAGS:
            order.special = 1

    def _triggered(self, _step: Step, event: EventRow) -> None:
        order = self.orders[event.order_id]
        order.waiting, order.queued_seq = 0, event.seq
        order.show = event.contra_leaves_qty
        order.shown = min(order.show, order.leaves)
        self._enter_book(event, order)

    def _refreshed(self, _step: Step, event: EventRow) -> None:
        order = self.orders[event.order_id]
        self._leave_book(event, order)
        order.shown, order.queued_seq = event.qty, event.seq
        self._enter_book(event, order)

    def _prevented(self, _step: Step, event: EventRow) -> None:
        if event.reason != Reason.DECREMENT:
            return  # what is done instead has events of its own
        taker, maker = self.orders[event.order_id], self.orders[event.contra_order_id]
        buyer = taker if event.side == Side.BUY else maker
        self._hold(self.accounts[buyer.account], event.held_micros)
        for order, leaves in ((taker, event.leaves_qty), (maker, event.contra_leaves_qty)):
            before = order.public_lots
            self._open_lots(self.accounts[order.account], order, -event.qty)
            order.qty -= event.qty
            order.leaves = leaves
            self._show_less(order, event.qty, order is taker)
            self._depth_add(event, order.side, order.price, order.public_lots - before)

    def _protected(self, _step: Step, event: EventRow) -> None:
        key = event.account, event.contra_account
        if not event.qty and not event.cum_qty:
            self.protections.pop(key, None)
            return
        before = self.protections.get(key)
        is_frozen, until_ns = (before.is_frozen, before.until_ns) if before is not None else (False, 0)
        terms = event.contra_order_id, event.qty, event.cum_qty
        self.protections[key] = Protection(*terms, is_frozen, event.order_id, until_ns)

    def _froze(self, _step: Step, event: EventRow) -> None:
        protection = self.protections[event.account, event.contra_account]
        protection.is_frozen, protection.until_ns = True, event.contra_order_id

    def _thawed(self, _step: Step, event: EventRow) -> None:
        protection = self.protections[event.account, event.contra_account]
        protection.is_frozen, protection.until_ns = False, 0

    def _timed(self, _step: Step, event: EventRow) -> None:
        self.timers.pop((event.account, event.order_id), None)
        if event.contra_order_id:
            self.timers[event.account, event.order_id] = event.contra_order_id

    def _account_opened(self, step: Step, event: MoneyRow) -> None:
        self._enter(event.account, text_at(step.commands.view(TRANSFER), step.at, "external_id"))

    def _enter(self, number: int, name: str) -> None:
        self.tables.need_account(number)
        account = self.accounts[number] = Account(self.tables, number, name)
        self.account_by_name.setdefault(name, account)
        self.tables.accounts[number]["owner"] = self.first_of_owner.setdefault(owner(name), number)

    def _cash_moved(self, _step: Step, event: MoneyRow) -> None:
        self.accounts[event.account].cash += event.amount_micros
        self.moved_money[event.account] = None

    def _nominated(self, step: Step, event: MoneyRow) -> None:
        self._position(event.account, event.instrument).capacity += event.lots
        self._bond_released(step, event)

    def _bond_released(self, _step: Step, event: MoneyRow) -> None:
        self._cash_moved(_step, event)
        self._bond(event, event.bond_micros)

    def _delivered(self, _step: Step, event: MoneyRow) -> None:
        provider, receiver = self.accounts[event.account], self.accounts[event.contra_account]
        provider.cash += event.amount_micros
        receiver.cash += event.contra_amount_micros
        due = self._position(event.account, event.instrument)
        due.net += event.lots
        self._owe(provider, due, event.escrow_micros, event.fees_due_micros)
        self._bond(event, event.bond_micros)
        self._position(event.contra_account, event.instrument).net -= event.lots
        for account in (event.account, event.contra_account):
            self.moved_money[account] = None
            self.moved_positions[account, event.instrument] = None

    def _rebate_paid(self, step: Step, event: MoneyRow) -> None:
        self.accounts[event.account].rebate -= event.amount_micros
        self._cash_moved(step, event)

    def _paid(self, step: Step, event: MoneyRow) -> None:
        self._cash_moved(step, event)
        self.accounts[event.contra_account].cash += event.contra_amount_micros
        self.moved_money[event.contra_account] = None

    def _frozen(self, _step: Step, event: MoneyRow) -> None:
        self.accounts[event.account].is_frozen = bool(event.lots)

    def _lien_moved(self, step: Step, event: MoneyRow) -> None:
        self.accounts[event.account].frozen += event.frozen_micros
        if event.contra_account:
            self._paid(step, event)
        else:
            self._cash_moved(step, event)

    def _listed(self, step: Step, event: EventRow) -> None:
        row = step.commands.view(LISTING)[step.at]
        terms = {name: int(row[name]) for name in Terms.__struct_fields__ if name in LISTED_TERMS}
        symbol = text_at(step.commands.view(LISTING), step.at, "symbol")
        self._list(msgspec.convert({**terms, "number": event.instrument, "symbol": symbol}, Terms))
        found = self.tables.instruments[event.instrument]
        found["listed_seq"] = found["status_seq"] = found["book_seq"] = event.seq
        found["book_ts_ns"], found["last_price"], found["status"] = event.ts_ns, -1, Status.CONTINUOUS

    def _list(self, terms: Terms) -> None:
        number, tables = terms.number, self.tables
        tables.need_instrument(number)
        found = tables.instruments[number]
        kept = found["dirty"], found["traded"]  # whether it stands in the lists of what is to be published
        tables.instruments[number] = 0
        found["dirty"], found["traded"] = kept
        for name in ("tick_micros", "lot_tick_micros", "max_price", "maker_rebate_ppm"):
            found[name] = getattr(terms, name)
        found["symbol"] = tables.symbol_number(terms.symbol)
        tables.do(doors.ENTER_SYMBOL, number)
        instrument = Instrument(tables, terms)
        self.instruments[number] = self.instrument_by_symbol[terms.symbol] = instrument
        self.books[number] = Depth(tables, number)

    def _closed(self, _step: Step, event: EventRow) -> None:
        instrument = self.instruments[event.instrument]
        instrument.closed, instrument.status, instrument.status_seq = True, Status.CLOSED, event.seq

    def _status_changed(self, _step: Step, event: EventRow) -> None:
        instrument = self.instruments[event.instrument]
        instrument.status, instrument.status_seq = event.qty, event.seq

    def _told(self, _step: Step, event: EventRow) -> None:
        self.instruments[event.instrument].status_seq = event.seq

    def _band_set(self, step: Step, event: EventRow) -> None:
        terms, row = self.instruments[event.instrument].terms, step.commands.view(LISTING)[step.at]
        for name in ("reference_price", "band_ppm", "collar_ppm", "dynamic_ppm"):
            setattr(terms, name, int(row[name]))

    def _exchange_halted(self, _step: Step, event: EventRow) -> None:
        self.halted = event.kind == EventKind.EXCHANGE_HALTED
        for instrument in self.instruments.values():
            instrument.status_seq = event.seq

    def _delisted(self, _step: Step, event: EventRow) -> None:
        instrument = self.instruments.pop(event.instrument)
        instrument.status_seq = event.seq
        self.retired.append(instrument)
        if self.instrument_by_symbol.get(instrument.symbol) is instrument:
            del self.instrument_by_symbol[instrument.symbol]
        del self.books[event.instrument]
        self.tables.do(doors.DROP_SYMBOL, event.instrument)
        self.tables.do(doors.DROP_POSITIONS, event.instrument)
        for side in (0, 1):
            self.tables.do(doors.FREE_LEVELS, 2 * event.instrument + side)

    # --- The small moves ----------------------------------------------------------------------------------------------

    def _position(self, account: int, instrument: int) -> Position:
        return Position(self.tables, self.tables.do(doors.POSITION_OF, account, instrument))

    def _hold(self, account: Account, micros: int) -> None:
        if micros:
            account.held += micros
            account.cash -= micros
            self.moved_money[account.number] = None

    def _open_lots(self, account: Account, order: Order, lots: int) -> None:
        position = self._position(account.number, order.instrument)
        if order.side == Side.BUY:
            position.open_buy += lots
        else:
            position.open_sell += lots

    def _owe(self, account: Account, position: Position, escrow: int, fees_due: int) -> None:
        position.escrow += escrow
        account.escrow += escrow
        position.fees_due += fees_due
        account.fees_due += fees_due

    def _bond(self, event: MoneyRow, bond: int) -> None:
        self._position(event.account, event.instrument).bond += bond
        self.accounts[event.account].bond += bond
        self.moved_positions[event.account, event.instrument] = None

    def _depth_add(self, event: EventRow, side: int, price: int, lots: int) -> None:
        if lots:
            self.books[event.instrument].add(side, price, lots, event.seq, event.ts_ns)

    def _enter_book(self, event: EventRow, order: Order) -> None:
        self._depth_add(event, order.side, order.price, order.public_lots)

    def _leave_book(self, event: EventRow, order: Order) -> None:
        self._depth_add(event, order.side, order.price, -order.public_lots)

    def _finish(self, order: Order, ts_ns: int) -> None:
        self.tables.do(doors.FINISH_ORDER, order.row, ts_ns)

    # --- Questions ----------------------------------------------------------------------------------------------------

    def symbol(self, symbol: str) -> Instrument:
        """The instrument with this symbol. Raises RequestError(UNKNOWN_SYMBOL)."""
        found = self.instrument_by_symbol.get(symbol)
        if found is None:
            raise RequestError(Code.UNKNOWN_SYMBOL, f"{symbol!r} is not listed")
        return found

    def order_by_cid(self, account: int, cid: str) -> Order | None:
        """The account's order with this client id, working or remembered."""
        row = self.tables.find(doors.FIND_CID, cid, account)
        return Order(self.tables, row) if row else None

    def moved(self) -> list[int]:
        """The instruments whose books changed or that traded since the last `settle`, by number."""
        head, tables = self.tables.head, self.tables
        numbers = {*tables.dirty[: head["dirty"]].tolist(), *tables.trades[: head["trades"]].tolist()}
        return sorted(number for number in numbers if number in self.instruments)

    def settle(self) -> None:
        """What changed has been published."""
        head, tables = self.tables.head, self.tables
        tables.instruments["dirty"][tables.dirty[: head["dirty"]]] = 0
        tables.instruments["traded"][tables.trades[: head["trades"]]] = 0
        head["dirty"] = head["trades"] = head["changed"] = 0

    @property
    def forgotten_early(self) -> int:
        """Finished orders that had to go before their time."""
        return self.tables.head["forgotten_early"]

    def open_sessions(self) -> set[tuple[int, int]]:
        """The (account, session) of all working orders that a session covers."""
        return {
            (account.number, order.session)
            for account in self.accounts.values()
            for order in account.orders.values()
            if order.session
        }

    # --- Storing ------------------------------------------------------------------------------------------------------

    def capture(self) -> Callable[[], ProjectionState]:
        """A copy of everything that `load` needs, and how to make the stored form of it, on any thread."""
        names = [(account.number, account.name) for account in self.accounts.values()]
        terms = [msgspec.structs.replace(instrument.terms) for instrument in self.instruments.values()]
        copied = self.tables.dump()
        others = (
            [(*key, msgspec.structs.replace(one)) for key, one in self.protections.items()],
            [(*key, due_ns) for key, due_ns in self.timers.items()],
            sorted(self.locked),
            self.halted,
        )
        return lambda: ProjectionState(
            names,
            terms,
            copied["head"],
            {name: (_columns(rows), rows.tobytes()) for name, rows in copied["tables"].items()},
            *others,
        )

    def load(self, state: ProjectionState) -> None:
        """Take over a stored state; this projection must be empty."""
        tables = {name: _stored(columns, data) for name, (columns, data) in state.tables.items()}
        for name, rows in tables.items():
            tables[name] = self.tables.fitted(name, rows)
        self.tables.load(state.head, tables)
        for number, name in state.names:
            self._enter(number, name)
        for terms in state.instruments:
            rows = self.tables.instruments[terms.number].copy()
            self._list(terms)
            rows["next_symbol"] = self.tables.instruments[terms.number]["next_symbol"]
            self.tables.instruments[terms.number] = rows
        self.protections = {(account, group): one for account, group, one in state.protections}
        self.timers = {(account, tag): due_ns for account, tag, due_ns in state.timers}
        self.locked, self.halted = set(state.locked), state.halted


def _terms(command: CommandRow) -> dict[str, int]:
    """What an order was asked for beyond a plain one; a quote's tag is the number of its level."""
    if command.kind == Kind.QUOTE:
        return {"group": command.group, "stp_group": command.stp_group, "level": command.tag + 1}
    if not command.flags & Flag.EXTENDED:
        return {"group": command.group}
    return {
        "group": command.group, "stp_group": command.stp_group, "tag": command.tag, "expire_ns": command.expire_ns,
        "stop_price": command.stop_price, "body_stop": command.stop_price, "body_show": command.show_qty,
        "min_qty": command.min_qty,
    }  # fmt: skip


def _is_special(command: CommandRow, event: EventRow, cid: str) -> bool:
    """Whether compiled code is to leave the order alone."""
    known = command.ord_type <= OrdType.MARKET and command.time_in_force <= TimeInForce.FOK
    if command.kind == Kind.NEW_ORDER and command.flags & Flag.EXTENDED:
        known = known and not (command.show_qty or command.min_qty)
    plain = known and not command.flags & ~PLAIN_FLAGS and not event.contra_leaves_qty and event.reason == Reason.NONE
    return not plain or not PLAIN_TEXT.issuperset(cid)


def _columns(rows: NDArray[np.void]) -> list[tuple[str, str]]:
    """Names and types; one column without a name for a table of numbers."""
    if rows.dtype.names is None:
        return [("", f"{rows.dtype.str}:{int(np.prod(rows.shape[1:]))}")]
    return [(name, rows.dtype[name].str) for name in rows.dtype.names]


def _stored(columns: list[tuple[str, str]], data: bytes) -> NDArray[np.void]:
    if columns[0][0]:
        return np.frombuffer(data, np.dtype([(name, kind) for name, kind in columns]))
    kind, _, width = columns[0][1].partition(":")
    return np.frombuffer(data, kind).reshape(-1, int(width))
