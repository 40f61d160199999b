"""The slow, obvious twin of the engine: `docs/engine.md` in plain Python.

Everything is an ordinary int, dict or list, and a book is a SortedDict of price to queue, so that each rule can be read
beside the page it comes from. Nothing here is fast and nothing is shared with the compiled kernels but the record layouts.

`Exchange.apply` answers with the same EVENT array as `Engine.apply`, so the two are compared as bytes; `dump` has the
same form as `Engine.dump`; `check` asserts everything that must hold after every command.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import neg
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sortedcontainers import SortedDict

from engine.types import (
    ANY_SIDE,
    COMMAND,
    EVENT,
    LISTING,
    MAX_FEE_PPM,
    MAX_GENERATION,
    MAX_LOT_VALUE_MICROS,
    MAX_MONEY_MICROS,
    MAX_POSITION_LOTS,
    MAX_PRICE_TICKS,
    MAX_QTY,
    MONEY,
    SLOT_BITS,
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

MILLION = 1_000_000
TRANSFERS = {Kind.OPEN_ACCOUNT, Kind.DEPOSIT, Kind.WITHDRAW, Kind.NOMINATE, Kind.DELIVER}
MONEY_KINDS = {
    EventKind.ACCOUNT_OPENED,
    EventKind.DEPOSITED,
    EventKind.WITHDRAWN,
    EventKind.NOMINATED,
    EventKind.DELIVERY_DUE,
    EventKind.BOND_RELEASED,
    EventKind.DELIVERED,
    EventKind.REBATE_PAID,
    EventKind.CYCLE_CLOSED,
}


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


@dataclass
class Position:
    net: int = 0
    capacity: int = 0
    open_buy: int = 0
    open_sell: int = 0
    escrow: int = 0
    fees_due: int = 0
    bond: int = 0


@dataclass
class Order:
    order_id: int
    account: int
    instrument: int
    side: int
    price: int
    qty: int
    leaves: int
    held: int
    post_only: bool
    session: int
    cum: int = 0


Queue = OrderedDict[int, Order]


def _sides() -> list[Any]:
    """Bids, then asks: price to queue, each iterated from its best price."""
    return [SortedDict(neg), SortedDict()]


@dataclass
class Book:
    """An instrument: its terms and what rests in it."""

    terms: SimpleNamespace
    status: Status = Status.CONTINUOUS
    last_price: int = -1
    sides: list[Any] = field(default_factory=_sides)

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

    def is_open(self, ts_ns: int) -> bool:
        return bool(self.status == Status.CONTINUOUS and self.terms.open_ns <= ts_ns < self.terms.gate_ns)

    def crossed(self, side: int, price: int) -> Iterator[tuple[int, Queue]]:
        """The levels with which an order at this price would trade, best first."""
        for level, queue in self.sides[1 - side].items():
            if (level > price) if side == Side.BUY else (level < price):
                return
            yield level, queue

    def would_trade(self, side: int, price: int) -> bool:
        return next(self.crossed(side, price), None) is not None

    def offered(self, side: int, price: int) -> int:
        """The quantity on the other side within the price."""
        return sum(order.leaves for _, queue in self.crossed(side, price) for order in queue.values())

    def worst_price(self, side: int, qty: int) -> int:
        """The limit that makes a market order a limit order."""
        total, worst = 0, 0
        for price, queue in self.sides[1 - side].items():
            worst = price
            total += sum(order.leaves for order in queue.values())
            if total >= qty:
                break
        return worst

    def add(self, order: Order) -> None:
        self.sides[order.side].setdefault(order.price, OrderedDict())[order.order_id] = order

    def remove(self, order: Order) -> None:
        queue = self.sides[order.side][order.price]
        del queue[order.order_id]
        if not queue:
            del self.sides[order.side][order.price]

    def orders(self, side: int) -> list[Order]:
        """Best level first, oldest first in it."""
        return [order for queue in self.sides[side].values() for order in queue.values()]


class Exchange:
    """The whole exchange. The limits are those of `engine.state.Limits` that a rule mentions; its pools are unbounded."""

    def __init__(
        self, max_accounts: int = 64, max_instruments: int = 64, max_open_orders_per_account: int = 1_000
    ) -> None:
        self.max_accounts = max_accounts
        self.max_instruments = max_instruments
        self.max_open_orders_per_account = max_open_orders_per_account
        self.applied_seq = 0
        self.event_seq = 0
        self.now_ns = 0
        self.house = 0
        self.deposits = 0
        self.withdrawals = 0
        self.cycle = 0
        self.next_instrument = 1
        self.room = True  # in the engine's pools: the twin has none, a test that fills one says so here
        self.accounts: dict[int, Account] = {}
        self.positions: dict[tuple[int, int], Position] = {}  # by account and instrument, in the order they were made
        self.books: dict[int, Book] = {}
        self.orders: dict[int, Order] = {}  # the working ones, by order_id
        self.generations: list[int] = []  # by slot
        self.free_slots: list[int] = []  # the last freed is the last
        self.command = SimpleNamespace()
        self.events: list[bytes] = []
        self.rules: dict[int, Callable[[Any], None]] = {
            Kind.NEW_ORDER: self.new_order,
            Kind.CANCEL: self.cancel,
            Kind.AMEND: self.amend,
            Kind.MASS_CANCEL: self.mass_cancel,
            Kind.OPEN_ACCOUNT: self.open_account,
            Kind.DEPOSIT: self.deposit,
            Kind.WITHDRAW: self.withdraw,
            Kind.NOMINATE: self.nominate,
            Kind.LIST: self.list_instrument,
            Kind.CLOSE: self.close,
            Kind.DELIVER: self.deliver,
            Kind.DELIST: self.delist,
            Kind.CLOSE_CYCLE: self.close_cycle,
            Kind.TICK: lambda _: None,
        }

    # Commands in, events out

    def apply(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        """Apply commands in order. Raises ValueError when `seq` does not continue `applied_seq`."""
        self.events = []
        for i in range(len(commands)):
            self.apply_one(read(commands[i : i + 1]))
        return np.frombuffer(b"".join(self.events), EVENT)

    def apply_one(self, c: SimpleNamespace) -> None:
        if c.seq != self.applied_seq + 1:
            raise ValueError(f"seq {c.seq} does not follow {self.applied_seq}")
        self.command = c
        self.applied_seq = c.seq
        self.now_ns = max(self.now_ns, c.ts_ns)
        try:
            need(c.kind in self.rules, Reason.UNKNOWN_KIND)
            self.rules[c.kind](c)
        except Rejected as rejected:
            self.reject(c, rejected.reason)

    def reject(self, c: SimpleNamespace, reason: Reason) -> None:
        other_body = c.kind in TRANSFERS or c.kind == Kind.LIST
        no_order = other_body or c.kind in (Kind.NEW_ORDER, Kind.MASS_CANCEL)
        self.emit(
            EventKind.REJECTED,
            reason=reason,
            side=0 if other_body else c.side,
            instrument=c.instrument,
            account=c.account,
            order_id=0 if no_order else c.order_id,
        )

    def emit(self, kind: EventKind, **fields: int) -> None:
        """Append an event; what is not given is zero."""
        self.event_seq += 1
        fields |= {"seq": self.event_seq, "command_seq": self.command.seq, "ts_ns": self.command.ts_ns, "kind": kind}
        layout = MONEY if kind in MONEY_KINDS else EVENT
        names = layout.names or ()
        assert fields.keys() <= set(names), fields.keys() - set(names)
        self.events.append(np.array([tuple(fields.get(name, 0) for name in names)], layout).tobytes())

    # Orders

    def new_order(self, c: SimpleNamespace) -> None:
        account, book = self.account(c.account), self.book(c.instrument)
        need(book.is_open(c.ts_ns), Reason.MARKET_NOT_OPEN)
        known = c.side in list(Side) and c.ord_type in list(OrdType) and c.flags & ~Flag.POST_ONLY == 0
        need(known, Reason.BAD_FIELD)
        market, post_only = c.ord_type == OrdType.MARKET, bool(c.flags & Flag.POST_ONLY)
        rests = c.time_in_force in (TimeInForce.GTG, TimeInForce.GTC)
        need(c.time_in_force in list(TimeInForce), Reason.BAD_TIF)
        need(not (market and rests), Reason.BAD_TIF)
        need(not post_only or (rests and not market), Reason.BAD_TIF)
        need(1 <= c.qty <= MAX_QTY, Reason.BAD_QTY)
        need(c.price == 0 if market else 0 <= c.price <= book.terms.max_price, Reason.BAD_PRICE)
        need(account.open_orders < self.max_open_orders_per_account, Reason.TOO_MANY_OPEN_ORDERS)
        need(self.room, Reason.OVERLOADED)
        price = book.worst_price(c.side, c.qty) if market else c.price
        need(not (post_only and book.would_trade(c.side, price)), Reason.POST_ONLY_WOULD_TAKE)
        if c.time_in_force == TimeInForce.FOK:
            need(book.offered(c.side, price) >= c.qty, Reason.FOK_NOT_FILLABLE)
        self.check_risk(c.account, book, c.instrument, c.side, added=c.qty, hold=book.hold(price, c.qty))

        held = book.hold(price, c.qty) if c.side == Side.BUY else 0
        order_id = self.take_slot()
        order = Order(
            order_id,
            c.account,
            c.instrument,
            c.side,
            price,
            c.qty,
            leaves=c.qty,
            held=0,
            post_only=post_only,
            session=c.session,
        )
        self.reserve(order, held=held, lots=c.qty)
        account.open_orders += 1
        self.emit_order(EventKind.NEW, order, held_micros=held)
        self.match(order)
        if order.leaves and rests:
            self.rest(order)
        elif order.leaves:
            self.cancel_order(order, Reason.UNFILLED)

    def check_risk(self, account: int, book: Book, instrument: int, side: int, added: int, hold: int) -> None:
        """May the account have `added` more lots open, and, as a buyer, `hold` more micros reserved?"""
        position = self.positions.get((account, instrument), Position())
        if side == Side.BUY:
            need(position.net + position.open_buy + added <= MAX_POSITION_LOTS, Reason.POSITION_LIMIT)
            need(hold <= self.accounts[account].cash, Reason.INSUFFICIENT_FUNDS)
        else:
            need(position.net + position.capacity - position.open_sell >= added, Reason.INSUFFICIENT_CAPACITY)

    def cancel(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        self.cancel_order(self.working(c), Reason.BY_REQUEST)

    def amend(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        order = self.working(c)
        book = self.books[order.instrument]
        need(book.is_open(c.ts_ns), Reason.MARKET_NOT_OPEN)
        need(c.flags in (0, Flag.REQUEUE), Reason.BAD_FIELD)
        price = order.price if c.price == UNCHANGED else c.price
        qty = order.qty if c.qty == UNCHANGED else c.qty
        need(1 <= qty <= MAX_QTY, Reason.BAD_QTY)
        need(0 <= price <= book.terms.max_price, Reason.BAD_PRICE)
        if qty <= order.cum:
            self.cancel_order(order, Reason.BY_REQUEST)
            return
        leaves = qty - order.cum
        need(self.room, Reason.OVERLOADED)
        need(not (order.post_only and book.would_trade(order.side, price)), Reason.POST_ONLY_WOULD_TAKE)
        held = book.hold(price, leaves) - order.held if order.side == Side.BUY else 0
        self.check_risk(order.account, book, order.instrument, order.side, added=leaves - order.leaves, hold=held)

        kept = price == order.price and qty <= order.qty and c.flags != Flag.REQUEUE
        if not kept:
            self.unrest(order)
        self.reserve(order, held=held, lots=leaves - order.leaves)
        order.price, order.qty, order.leaves = price, qty, leaves
        self.emit_order(EventKind.REPLACED, order, held_micros=held, reason=Reason.KEPT if kept else Reason.LOST)
        if not kept:
            self.match(order)
            if order.leaves:
                self.rest(order)

    def mass_cancel(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        need(c.instrument == 0 or c.instrument in self.books, Reason.UNKNOWN_SYMBOL)
        need(c.side in (Side.BUY, Side.SELL, ANY_SIDE), Reason.BAD_FIELD)
        for account, instrument in reversed(list(self.positions)):
            if account != c.account or c.instrument not in (0, instrument):
                continue
            for side in Side:
                for order in self.books[instrument].orders(side):
                    fits = c.side in (ANY_SIDE, side) and c.session in (0, order.session)
                    if order.account == c.account and fits:
                        self.cancel_order(order, Reason.MASS_CANCELED)

    # An order's life

    def reserve(self, order: Order, held: int, lots: int) -> None:
        """Change what an order has open and, out of its account's cash, reserved."""
        account = self.accounts[order.account]
        account.cash -= held
        account.held += held
        order.held += held
        position = self.position(order.account, order.instrument)
        if order.side == Side.BUY:
            position.open_buy += lots
        else:
            position.open_sell += lots

    def rest(self, order: Order) -> None:
        self.books[order.instrument].add(order)
        self.orders[order.order_id] = order

    def unrest(self, order: Order) -> None:
        self.books[order.instrument].remove(order)
        del self.orders[order.order_id]

    def finish(self, order: Order) -> None:
        """An order has nothing left: it leaves the book if it rests in it, and frees its slot."""
        if order.order_id in self.orders:
            self.unrest(order)
        self.accounts[order.account].open_orders -= 1
        slot = order.order_id % (1 << SLOT_BITS)
        if self.generations[slot] < MAX_GENERATION:
            self.free_slots.append(slot)

    def take_slot(self) -> int:
        """The order_id of a new order."""
        if not self.free_slots:
            self.free_slots.append(len(self.generations))
            self.generations.append(0)
        slot = self.free_slots.pop()
        self.generations[slot] += 1
        return self.generations[slot] * (1 << SLOT_BITS) + slot

    def cancel_order(self, order: Order, reason: Reason) -> None:
        held = order.held
        self.emit_order(EventKind.CANCELED, order, held_micros=-held, reason=reason)
        self.reserve(order, held=-held, lots=-order.leaves)
        self.finish(order)

    def emit_order(self, kind: EventKind, order: Order, **fields: int) -> None:
        self.emit(
            kind,
            side=order.side,
            instrument=order.instrument,
            account=order.account,
            order_id=order.order_id,
            price=order.price,
            qty=order.qty,
            leaves_qty=order.leaves,
            cum_qty=order.cum,
            **fields,
        )

    def working(self, c: SimpleNamespace) -> Order:
        order = self.orders.get(c.order_id)
        if order is None or order.account != c.account:
            raise Rejected(Reason.ORDER_NOT_FOUND)
        return order

    # Trades

    def match(self, taker: Order) -> None:
        book = self.books[taker.instrument]
        while taker.leaves:
            best = next(book.crossed(taker.side, taker.price), None)
            if best is None:
                break
            price, queue = best
            maker = next(iter(queue.values()))
            self.trade(book, taker, maker, price, min(taker.leaves, maker.leaves))
            if maker.leaves == 0:
                self.finish(maker)
        if taker.leaves == 0:
            self.finish(taker)

    def trade(self, book: Book, taker: Order, maker: Order, price: int, qty: int) -> None:
        for order in (taker, maker):
            order.leaves -= qty
            order.cum += qty
        notional = book.notional(price, qty)
        fee = book.fee(notional)
        buyer, seller = (taker, maker) if taker.side == Side.BUY else (maker, taker)
        money = self.clear_buyer(book, buyer, price, qty, fee if buyer is taker else 0)
        money |= self.clear_seller(book, seller, price, qty, fee if seller is taker else 0)
        self.accounts[maker.account].rebate += notional * book.terms.maker_rebate_ppm // MILLION
        book.last_price = price
        self.emit(
            EventKind.TRADE,
            side=taker.side,
            instrument=taker.instrument,
            account=taker.account,
            contra_account=maker.account,
            order_id=taker.order_id,
            contra_order_id=maker.order_id,
            price=price,
            qty=qty,
            leaves_qty=taker.leaves,
            cum_qty=taker.cum,
            contra_leaves_qty=maker.leaves,
            contra_cum_qty=maker.cum,
            fee_micros=fee,
            **money,
        )

    def clear_buyer(self, book: Book, order: Order, price: int, qty: int, fee: int) -> dict[str, int]:
        """The buyer's leg; `fee` is zero for a maker."""
        account, position = self.accounts[order.account], self.position(order.account, order.instrument)
        held = order.held - book.hold(order.price, order.leaves)
        order.held -= held
        account.held -= held
        account.cash += held - book.notional(price, qty) - fee
        self.house += fee
        released = due_paid = 0
        short = max(-position.net, 0)
        if short:
            covered = min(qty, short)
            released = position.escrow * covered // short
            due_paid = position.fees_due * covered // short
            position.escrow -= released
            position.fees_due -= due_paid
            account.cash += released - due_paid
            self.house += due_paid
        position.net += qty
        position.open_buy -= qty
        return {"held_micros": held, "released_micros": released, "due_paid_micros": due_paid}

    def clear_seller(self, book: Book, order: Order, price: int, qty: int, fee: int) -> dict[str, int]:
        """The seller's leg; `fee` is zero for a maker."""
        account, position = self.accounts[order.account], self.position(order.account, order.instrument)
        closed = min(qty, max(position.net, 0))
        notional_closed = book.notional(price, closed)
        escrow = book.notional(price, qty) - notional_closed
        fee_cash = book.fee(notional_closed) if fee else 0
        fee_due = fee - fee_cash
        position.escrow += escrow
        position.fees_due += fee_due
        account.cash += notional_closed - fee_cash
        self.house += fee_cash
        position.net -= qty
        position.open_sell -= qty
        return {"escrow_micros": escrow, "fee_due_micros": fee_due}

    # Accounts and money

    def open_account(self, c: SimpleNamespace) -> None:
        next_account = len(self.accounts) + 1
        need(not 1 <= c.account < next_account, Reason.ACCOUNT_EXISTS)
        need(c.account == next_account, Reason.UNKNOWN_ACCOUNT)
        need(c.account <= self.max_accounts, Reason.OVERLOADED)
        self.accounts[c.account] = Account()
        self.emit(EventKind.ACCOUNT_OPENED, account=c.account)

    def deposit(self, c: SimpleNamespace) -> None:
        account, amount = self.account(c.account), c.amount_micros
        need(amount >= 1 and self.deposits + amount <= MAX_MONEY_MICROS, Reason.BAD_AMOUNT)
        account.cash += amount
        self.deposits += amount
        self.emit(EventKind.DEPOSITED, account=c.account, amount_micros=amount)

    def withdraw(self, c: SimpleNamespace) -> None:
        account, amount = self.account(c.account), c.amount_micros
        need(amount >= 1, Reason.BAD_AMOUNT)
        need(amount <= account.cash, Reason.INSUFFICIENT_FUNDS)
        account.cash -= amount
        self.withdrawals += amount
        self.emit(EventKind.WITHDRAWN, account=c.account, amount_micros=-amount)

    def nominate(self, c: SimpleNamespace) -> None:
        account, book = self.account(c.account), self.book(c.instrument)
        need(book.is_open(c.ts_ns), Reason.MARKET_NOT_OPEN)
        need(1 <= c.lots <= MAX_QTY, Reason.BAD_QTY)
        capacity = self.positions.get((c.account, c.instrument), Position()).capacity
        need(capacity + c.lots <= MAX_POSITION_LOTS, Reason.POSITION_LIMIT)
        need(self.room, Reason.OVERLOADED)
        bond = ceil_div(book.notional(book.terms.reference_price, c.lots) * book.terms.bond_ppm, MILLION)
        need(bond <= account.cash, Reason.INSUFFICIENT_FUNDS)
        position = self.position(c.account, c.instrument)
        position.capacity += c.lots
        position.bond += bond
        account.cash -= bond
        self.emit(
            EventKind.NOMINATED,
            account=c.account,
            instrument=c.instrument,
            lots=c.lots,
            amount_micros=-bond,
            bond_micros=bond,
        )

    def close_cycle(self, c: SimpleNamespace) -> None:
        for number in sorted(self.accounts):
            account = self.accounts[number]
            paid = min(account.rebate, self.house)
            if paid:
                account.rebate -= paid
                account.cash += paid
                self.house -= paid
                self.emit(EventKind.REBATE_PAID, account=number, amount_micros=paid, fees_micros=-paid)
        self.cycle += 1
        self.emit(EventKind.CYCLE_CLOSED, lots=self.cycle)

    # The life of an instrument

    def list_instrument(self, c: SimpleNamespace) -> None:
        need(c.instrument not in self.books, Reason.INSTRUMENT_EXISTS)
        good = (
            1 <= c.instrument <= min(self.next_instrument, self.max_instruments)
            and c.lot_tick_micros >= 1
            and 1 <= c.max_price <= MAX_PRICE_TICKS
            and c.max_price * c.lot_tick_micros <= MAX_LOT_VALUE_MICROS
            and 0 <= c.maker_rebate_ppm <= c.taker_fee_ppm <= MAX_FEE_PPM
            and 0 <= c.bond_ppm <= MILLION
            and 0 <= c.reference_price <= c.max_price
            and c.open_ns < c.gate_ns
            and c.ts_ns < c.gate_ns
        )
        need(good, Reason.BAD_LISTING)
        self.books[c.instrument] = Book(terms=c)
        self.next_instrument = max(self.next_instrument, c.instrument + 1)
        self.emit(EventKind.LISTED, instrument=c.instrument)

    def close(self, c: SimpleNamespace) -> None:
        book = self.book(c.instrument)
        need(book.status == Status.CONTINUOUS, Reason.MARKET_NOT_OPEN)
        for side in Side:
            for order in book.orders(side):
                self.cancel_order(order, Reason.GATE_CLOSED)
        book.status = Status.CLOSED
        self.emit(EventKind.CLOSED, instrument=c.instrument)
        for account, instrument in reversed(list(self.positions)):
            if instrument == c.instrument:
                self.close_position(account, instrument)

    def close_position(self, account: int, instrument: int) -> None:
        position, who = self.position(account, instrument), {"account": account, "instrument": instrument}
        bond = position.bond
        if position.net >= 0 and bond:
            position.bond = 0
            self.accounts[account].cash += bond
            self.emit(EventKind.BOND_RELEASED, **who, amount_micros=bond, bond_micros=-bond)
        if position.net != 0:
            stands = {"escrow_micros": position.escrow, "fees_due_micros": position.fees_due}
            self.emit(EventKind.DELIVERY_DUE, **who, lots=position.net, **stands)

    def deliver(self, c: SimpleNamespace) -> None:
        provider_cash, receiver_cash = self.account(c.account), self.account(c.contra_account)
        need(self.book(c.instrument).status == Status.CLOSED, Reason.NOT_CLOSED)
        provider = self.positions.get((c.account, c.instrument), Position())
        receiver = self.positions.get((c.contra_account, c.instrument), Position())
        need(1 <= c.lots <= -provider.net and c.lots <= receiver.net, Reason.BAD_DELIVERY)
        share = provider.escrow * c.lots // -provider.net
        due = provider.fees_due * c.lots // -provider.net
        need(0 <= c.refund_micros <= share and 0 <= c.damages_micros <= MAX_MONEY_MICROS, Reason.BAD_AMOUNT)

        # What the provider is paid goes first to the fees it owes, then to damages; its bond covers what is missing.
        pay = share - c.refund_micros
        f1 = min(due, pay)
        f2 = min(due - f1, provider.bond)
        d1 = min(c.damages_micros, pay - f1)
        d2 = min(c.damages_micros - d1, provider.bond - f2)
        provider.net += c.lots
        receiver.net -= c.lots
        bond_back = provider.bond - f2 - d2 if provider.net == 0 else 0
        provider.escrow -= share
        provider.fees_due -= due
        provider.bond -= f2 + d2 + bond_back
        paid, returned = pay - f1 - d1 + bond_back, c.refund_micros + d1 + d2
        provider_cash.cash += paid
        receiver_cash.cash += returned
        self.house += f1 + f2
        self.emit(
            EventKind.DELIVERED,
            instrument=c.instrument,
            account=c.account,
            contra_account=c.contra_account,
            lots=c.lots,
            amount_micros=paid,
            contra_amount_micros=returned,
            escrow_micros=-share,
            bond_micros=-(f2 + d2 + bond_back),
            fees_micros=f1 + f2,
            fees_due_micros=-due,
            refund_micros=c.refund_micros,
            damages_micros=d1 + d2,
            shortfall_micros=due - f1 - f2 + c.damages_micros - d1 - d2,
        )

    def delist(self, c: SimpleNamespace) -> None:
        need(self.book(c.instrument).status == Status.CLOSED, Reason.NOT_CLOSED)
        gone = [key for key in self.positions if key[1] == c.instrument]
        need(all(self.positions[key].net == 0 for key in gone), Reason.NOT_FLAT)
        for key in gone:
            del self.positions[key]
        del self.books[c.instrument]
        self.emit(EventKind.DELISTED, instrument=c.instrument)

    # Finding things

    def account(self, number: int) -> Account:
        need(number in self.accounts, Reason.UNKNOWN_ACCOUNT)
        return self.accounts[number]

    def book(self, number: int) -> Book:
        need(number in self.books, Reason.UNKNOWN_SYMBOL)
        return self.books[number]

    def position(self, account: int, instrument: int) -> Position:
        """The position, made if there is none: only for an accepted command."""
        return self.positions.setdefault((account, instrument), Position())

    # Looking at it

    def dump(self) -> dict[str, Any]:
        """Everything that can be seen, in the form of `Engine.dump`."""
        return {
            "applied_seq": self.applied_seq,
            "event_seq": self.event_seq,
            "now_ns": self.now_ns,
            "house_fees_micros": self.house,
            "deposits_micros": self.deposits,
            "withdrawals_micros": self.withdrawals,
            "cycle": self.cycle,
            "accounts": {n: (a.cash, a.held, a.rebate, a.open_orders) for n, a in self.accounts.items()},
            "positions": {key: tuple(vars(position).values()) for key, position in self.positions.items()},
            "books": {number: dump_book(book) for number, book in self.books.items()},
        }

    def check(self) -> None:
        """Assert what must hold after every command."""
        try:
            self.check_money()
            self.check_positions()
            self.check_orders()
            for number, book in self.books.items():
                check_book(number, book)
        except AssertionError:
            print(self.dump())
            raise

    def check_money(self) -> None:
        accounts, positions = self.accounts.values(), self.positions.values()
        total = sum(a.cash + a.held for a in accounts) + sum(p.escrow + p.bond for p in positions) + self.house
        assert total == self.deposits - self.withdrawals, "conservation"
        assert min(self.house, self.deposits, self.withdrawals) >= 0
        assert self.deposits <= MAX_MONEY_MICROS
        assert list(self.accounts) == list(range(1, len(self.accounts) + 1))
        for number, account in self.accounts.items():
            assert min(vars(account).values()) >= 0, (number, account)
            assert account.open_orders <= self.max_open_orders_per_account, (number, account)

    def check_positions(self) -> None:
        nets: Counter[int] = Counter()
        for (number, instrument), p in self.positions.items():
            where = (number, instrument, p)
            assert number in self.accounts and instrument in self.books, where
            book = self.books[instrument]
            assert min(p.capacity, p.open_buy, p.open_sell, p.escrow, p.fees_due, p.bond) >= 0, where
            assert p.fees_due <= p.escrow, where
            assert p.net < 0 or p.escrow == 0, where
            assert p.net + p.open_buy <= MAX_POSITION_LOTS and p.capacity <= MAX_POSITION_LOTS, where
            assert -p.net <= p.capacity, where
            if book.status == Status.CONTINUOUS:
                assert p.net + p.capacity >= p.open_sell, where
            elif p.net >= 0:
                assert p.bond == 0, where
            for side, expected in ((Side.BUY, p.open_buy), (Side.SELL, p.open_sell)):
                assert expected == sum(o.leaves for o in book.orders(side) if o.account == number), where
            nets[instrument] += p.net
        assert not any(nets.values()), nets

    def check_orders(self) -> None:
        resting = [order for book in self.books.values() for side in Side for order in book.orders(side)]
        assert {order.order_id for order in resting} == self.orders.keys()
        assert len(resting) == len(self.orders)
        slots = [order_id % (1 << SLOT_BITS) for order_id in self.orders]
        assert not set(slots) & set(self.free_slots) and len(set(slots)) == len(slots)
        held: Counter[int] = Counter()
        count: Counter[int] = Counter()
        for order in resting:
            assert order.leaves >= 1 and order.leaves + order.cum == order.qty <= MAX_QTY, order
            book = self.books[order.instrument]
            expected = book.hold(order.price, order.leaves) if order.side == Side.BUY else 0
            assert order.held == expected, order
            held[order.account] += order.held
            count[order.account] += 1
        for number, account in self.accounts.items():
            assert (account.held, account.open_orders) == (held[number], count[number]), (number, account)


def check_book(number: int, book: Book) -> None:
    bids, asks = book.sides
    if bids and asks:
        assert bids.keys()[0] < asks.keys()[0], f"book {number} is crossed or locked"
    for levels in book.sides:
        for price, queue in levels.items():
            assert queue and 0 <= price <= book.terms.max_price, (number, price)
            assert all(order.price == price for order in queue.values()), (number, price)
    if book.status == Status.CLOSED:
        assert not bids and not asks, f"book {number} is closed but not empty"


def dump_book(book: Book) -> dict[str, Any]:
    bids, asks = (
        [
            (price, [(o.order_id, o.account, o.leaves, o.cum, o.held) for o in queue.values()])
            for price, queue in side.items()
        ]
        for side in book.sides
    )
    return {"status": int(book.status), "last_price": book.last_price, "bids": bids, "asks": asks}


def read(command: NDArray[np.void]) -> SimpleNamespace:
    """An array of one command as plain ints under the names of its body."""
    kind = int(command["kind"][0])
    layout = TRANSFER if kind in TRANSFERS else LISTING if kind == Kind.LIST else COMMAND
    record = np.ascontiguousarray(command).view(layout)[0]
    return SimpleNamespace(**dict(zip(layout.names or (), record.item(), strict=True)))
