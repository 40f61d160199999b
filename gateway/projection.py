"""What the gateway knows: accounts, instruments, orders and depth, mirrored from commands and their events.

The engine decides; this only follows. Each method of `Projection.apply` is the rule of docs/engine.md for one kind of
event, read backwards: from the event's fields to the balances after it. Everything here is a function of the log
alone, so a restart that replays the log, or restores `dump()` and replays the rest, ends in the same state.
"""

from collections import deque
from collections.abc import Callable

import msgspec
from msgspec import Struct

from engine.types import LISTING, TRANSFER, EventKind, Flag, Reason, Side
from gateway.commands import Command
from gateway.depth import Depth
from gateway.messages import Code, OrderStatus, RequestError
from gateway.rows import CommandRow, EventRow, MoneyRow, Step, text_at

PPM = 1_000_000
LISTED_TERMS = frozenset(LISTING.names or ()) - {"symbol"}


class Instrument(Struct):
    """A listed contract. Prices in ticks; `tick_micros` is a tick per GPU-hour, `lot_tick_micros` per lot."""

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
    closed: bool = False
    listed_seq: int = 0  # events: of its listing,
    status_seq: int = 0  # of its last change of status,
    trade_seq: int = 0  # and of its last trade
    last_price: int = -1
    volume_lots: int = 0


class Order(Struct, gc=False):
    """An order, working or finished. Prices in ticks."""

    id: int
    account: int
    instrument: int
    symbol: str
    tick_micros: int
    side: int
    ord_type: int
    time_in_force: int
    flags: int
    session: int
    cid: str
    ts_ns: int
    price: int
    qty: int
    leaves: int
    cum: int = 0
    done: bool = False
    finished_ns: int = 0
    body: tuple[int, ...] = ()  # what was asked, to tell a repeated cid from a reused one
    ack: tuple[OrderStatus, int, int, int] | None = None  # status, leaves, cum and aseq when its command was done
    queued_seq: int = 0  # the event with which it went to the end of its queue

    @property
    def status(self) -> OrderStatus:
        if self.done:
            return "filled" if self.cum == self.qty else "canceled"
        return "partial" if self.cum else "new"

    @property
    def post_only(self) -> bool:
        return bool(self.flags & Flag.POST_ONLY)


class Position(Struct, gc=False):
    """What an account has in an instrument, in lots and micros."""

    net: int = 0
    capacity: int = 0
    open_buy: int = 0
    open_sell: int = 0
    escrow: int = 0
    fees_due: int = 0
    bond: int = 0


class Account(Struct):
    """An account's money in micros, its positions by instrument, its working orders by id."""

    number: int
    name: str
    cash: int = 0
    held: int = 0
    escrow: int = 0
    fees_due: int = 0
    bond: int = 0
    rebate: int = 0
    frozen: int = 0  # under liens
    is_frozen: bool = False  # no money may leave it
    positions: dict[int, Position] = msgspec.field(default_factory=dict)
    orders: dict[int, Order] = msgspec.field(default_factory=dict)


class ProjectionState(Struct):
    """A projection as it is stored."""

    accounts: list[Account]
    instruments: list[Instrument]
    finished: list[Order]
    books: list[tuple[int, int, int]]  # instrument, seq and ts_ns of its depth


def order_body(command: CommandRow | Command) -> tuple[int, ...]:
    """What must be the same for a repeated cid to be the same order."""
    return (
        command.instrument, command.side, command.ord_type, command.time_in_force, command.flags, command.price,
        command.qty,
    )  # fmt: skip


class Projection:
    """All accounts, instruments, orders and books, as of the last event applied."""

    def __init__(self, remember_ns: int, max_remembered: int) -> None:
        self.accounts: dict[int, Account] = {}
        self.account_by_name: dict[str, Account] = {}
        self.instruments: dict[int, Instrument] = {}
        self.instrument_by_symbol: dict[str, Instrument] = {}
        self.orders: dict[int, Order] = {}
        self.order_by_cid: dict[tuple[int, str], Order] = {}
        self.books: dict[int, Depth] = {}
        self.dirty_books: set[int] = set()
        self.moved_money: dict[int, None] = {}  # accounts whose money changed in this step, in order
        self.moved_positions: dict[tuple[int, int], None] = {}  # (account, instrument), likewise
        self.retired: list[Instrument] = []  # delisted in this step
        self.forgotten_early = 0
        self._finished: deque[Order] = deque()
        self._remember_ns = remember_ns
        self._max_remembered = max_remembered
        self._apply: dict[int, Callable[..., None]] = {
            EventKind.NEW: self._new,
            EventKind.TRADE: self._trade,
            EventKind.CANCELED: self._canceled,
            EventKind.REPLACED: self._replaced,
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
        if self._finished:
            self._forget(step.command.ts_ns)

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
        order = Order(
            id=event.order_id, account=event.account, instrument=event.instrument, symbol=instrument.symbol,
            tick_micros=instrument.tick_micros, side=event.side, ord_type=command.ord_type,
            time_in_force=command.time_in_force, flags=command.flags, session=command.session,
            cid=text_at(step.commands, step.at, "cl_ord_id"), ts_ns=event.ts_ns, price=event.price, qty=event.qty,
            leaves=event.leaves_qty, body=order_body(command), queued_seq=event.seq,
        )  # fmt: skip
        self.orders[order.id] = account.orders[order.id] = order
        if order.cid:
            self.order_by_cid[order.account, order.cid] = order
        self._hold(account, event.held_micros)
        self._open_lots(account, order, order.leaves)
        self._depth_add(event, order.side, order.price, order.leaves)

    def _trade(self, _step: Step, event: EventRow) -> None:
        taker, maker = self.orders[event.order_id], self.orders[event.contra_order_id]
        instrument = self.instruments[event.instrument]
        notional = event.price * instrument.lot_tick_micros * event.qty
        buyer, seller = (taker, maker) if event.side == Side.BUY else (maker, taker)
        self._bought(event, buyer, notional, event.fee_micros if buyer is taker else 0)
        self._sold(event, seller, notional, event.fee_micros if seller is taker else 0)
        self.accounts[maker.account].rebate += notional * instrument.maker_rebate_ppm // PPM
        self.moved_money[maker.account] = None
        self._filled(event, taker, event.leaves_qty, event.cum_qty)
        self._filled(event, maker, event.contra_leaves_qty, event.contra_cum_qty)
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

    def _filled(self, event: EventRow, order: Order, leaves: int, cum: int) -> None:
        order.leaves, order.cum = leaves, cum
        self.moved_positions[order.account, order.instrument] = None
        self._depth_add(event, order.side, order.price, -event.qty)
        if leaves == 0:
            self._finish(order, event.ts_ns)

    def _canceled(self, _step: Step, event: EventRow) -> None:
        order = self.orders[event.order_id]
        account = self.accounts[order.account]
        self._hold(account, event.held_micros)
        self._open_lots(account, order, -event.leaves_qty)
        self._depth_add(event, order.side, order.price, -event.leaves_qty)
        order.qty, order.leaves, order.cum = event.qty, 0, event.cum_qty
        self._finish(order, event.ts_ns)

    def _replaced(self, _step: Step, event: EventRow) -> None:
        order = self.orders[event.order_id]
        account = self.accounts[order.account]
        self._hold(account, event.held_micros)
        self._open_lots(account, order, event.leaves_qty - order.leaves)
        self._depth_add(event, order.side, order.price, -order.leaves)
        self._depth_add(event, order.side, event.price, event.leaves_qty)
        order.price, order.qty, order.leaves = event.price, event.qty, event.leaves_qty
        if event.reason != Reason.KEPT:
            order.queued_seq = event.seq

    def _account_opened(self, step: Step, event: MoneyRow) -> None:
        account = Account(event.account, text_at(step.commands.view(TRANSFER), step.at, "external_id"))
        self.accounts[account.number] = account
        self.account_by_name.setdefault(account.name, account)

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
        terms = {name: int(row[name]) for name in Instrument.__struct_fields__ if name in LISTED_TERMS}
        symbol = text_at(step.commands.view(LISTING), step.at, "symbol")
        numbers = {"number": event.instrument, "listed_seq": event.seq, "status_seq": event.seq}
        instrument = msgspec.convert({**terms, **numbers, "symbol": symbol}, Instrument)
        self.instruments[instrument.number] = self.instrument_by_symbol[symbol] = instrument
        book = self.books[instrument.number] = Depth()
        book.seq, book.ts_ns = event.seq, event.ts_ns

    def _closed(self, _step: Step, event: EventRow) -> None:
        instrument = self.instruments[event.instrument]
        instrument.closed, instrument.status_seq = True, event.seq

    def _delisted(self, _step: Step, event: EventRow) -> None:
        instrument = self.instruments.pop(event.instrument)
        instrument.status_seq = event.seq
        self.retired.append(instrument)
        if self.instrument_by_symbol.get(instrument.symbol) is instrument:
            del self.instrument_by_symbol[instrument.symbol]
        del self.books[event.instrument]
        self.dirty_books.discard(event.instrument)
        for account in self.accounts.values():
            account.positions.pop(event.instrument, None)

    # --- The small moves ----------------------------------------------------------------------------------------------

    def _position(self, account: int, instrument: int) -> Position:
        positions = self.accounts[account].positions
        found = positions.get(instrument)
        if found is None:
            found = positions[instrument] = Position()
        return found

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
        book = self.books[event.instrument]
        book.side(side).add(price, lots)
        book.seq, book.ts_ns = event.seq, event.ts_ns
        self.dirty_books.add(event.instrument)

    def _finish(self, order: Order, ts_ns: int) -> None:
        order.done, order.finished_ns = True, ts_ns
        del self.accounts[order.account].orders[order.id]
        self._finished.append(order)

    def _forget(self, now_ns: int) -> None:
        """Drop finished orders that nobody has to remember any more."""
        oldest = now_ns - self._remember_ns
        while self._finished and (self._finished[0].finished_ns < oldest or len(self._finished) > self._max_remembered):
            order = self._finished.popleft()
            self.forgotten_early += order.finished_ns >= oldest
            self.orders.pop(order.id, None)
            if self.order_by_cid.get((order.account, order.cid)) is order:
                del self.order_by_cid[order.account, order.cid]

    # --- Questions ----------------------------------------------------------------------------------------------------

    def symbol(self, symbol: str) -> Instrument:
        """The instrument with this symbol. Raises RequestError(UNKNOWN_SYMBOL)."""
        found = self.instrument_by_symbol.get(symbol)
        if found is None:
            raise RequestError(Code.UNKNOWN_SYMBOL, f"{symbol!r} is not listed")
        return found

    def open_sessions(self) -> set[tuple[int, int]]:
        """The (account, session) of all working orders that a session covers."""
        return {
            (account.number, order.session)
            for account in self.accounts.values()
            for order in account.orders.values()
            if order.session
        }

    # --- Storing ------------------------------------------------------------------------------------------------------

    def dump(self) -> ProjectionState:
        """Everything that `load` needs. Depth is not stored: it is the sum of the working orders."""
        return ProjectionState(
            accounts=list(self.accounts.values()),
            instruments=list(self.instruments.values()),
            finished=list(self._finished),
            books=[(number, book.seq, book.ts_ns) for number, book in self.books.items()],
        )

    def load(self, state: ProjectionState) -> None:
        """Take over a stored state; this projection must be empty."""
        for account in state.accounts:
            self.accounts[account.number] = account
            self.account_by_name.setdefault(account.name, account)
        for instrument in state.instruments:
            self.instruments[instrument.number] = self.instrument_by_symbol[instrument.symbol] = instrument
            self.books[instrument.number] = Depth()
        self._finished.extend(state.finished)
        for order in state.finished:
            self._remember(order)
        for account in state.accounts:
            for order in account.orders.values():
                self._remember(order)
                self.books[order.instrument].side(order.side).add(order.price, order.leaves)
        for number, seq, ts_ns in state.books:
            book = self.books[number]
            book.seq, book.ts_ns = seq, ts_ns
            book.settle()

    def _remember(self, order: Order) -> None:
        self.orders[order.id] = order
        if order.cid:
            self.order_by_cid[order.account, order.cid] = order
