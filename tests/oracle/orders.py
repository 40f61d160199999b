"""The twin's commands on orders: new, cancel, expire, amend, mass cancel, quote."""

from dataclasses import dataclass
from types import SimpleNamespace

from engine.types import (
    ANY_SIDE,
    CLIENT_ID_LIFE_NS,
    MAX_POSITION_LOTS,
    MAX_QTY,
    MAX_QUOTE_LEVEL,
    STP_MASK,
    UNCHANGED,
    EventKind,
    Flag,
    OrdType,
    Reason,
    Side,
    TimeInForce,
)
from tests.oracle.parts import KEPT_FLAGS, Book, Order, Position, Rejected, Remembered, need
from tests.oracle.trading import Trading, quote_key

STOPS = (OrdType.STOP, OrdType.STOP_LIMIT)
RESTING = (TimeInForce.GTG, TimeInForce.GTC, TimeInForce.GTD)
NEW_ORDER_FLAGS = KEPT_FLAGS | Flag.EXTENDED
QUOTE_FLAGS = Flag.POST_ONLY | Flag.SLIDE | STP_MASK | Flag.EXTENDED
EXTENSION = ("stop_price", "show_qty", "min_qty", "expire_ns", "deadline_ns", "tag", "stp_group")
NO_ID = (0,) * 5
BODY = (
    *("instrument", "side", "ord_type", "time_in_force", "flags", "group", "price", "qty"),
    *("stop_price", "show_qty", "min_qty", "expire_ns", "tag", "stp_group"),
)
"""What makes two commands with one client order id the same."""


@dataclass
class Change:
    """What an order is to become. `total` counts what was filled."""

    price: int
    total: int
    flags: int
    stop_price: int = 0
    requeue: bool = False


class Orders(Trading):
    """Upon what an order does by itself."""

    body_fields = BODY

    def new_order(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        plain_unless_extended(c)
        key = (c.account, c.cl_ord_id)
        if c.cl_ord_id != NO_ID and self.repeats(c, key):
            return
        book = self.book(c.instrument)
        need(c.deadline_ns == 0 or c.ts_ns <= c.deadline_ns, Reason.DEADLINE_PASSED)
        need(c.account not in self.locked, Reason.LOCKED)
        need(self.takes_orders(book, c.ts_ns), Reason.MARKET_NOT_OPEN)
        need(c.side in list(Side) and c.ord_type in list(OrdType) and c.group >= 0 and c.tag >= 0, Reason.BAD_FIELD)
        need(known_flags(c.flags, NEW_ORDER_FLAGS), Reason.BAD_FIELD)
        need(not self.is_frozen(c), Reason.MMP_FROZEN)
        need(time_in_force_fits(c, book), Reason.BAD_TIF)
        order = self.enter(c, book)
        if c.cl_ord_id != NO_ID:
            self.remember(key, Remembered(order.order_id, self.now_ns, body(c)))
        self.set_off(order)

    def is_frozen(self, c: SimpleNamespace) -> bool:
        protection = self.protections.get((c.account, c.group))
        if c.group == 0 or protection is None or not protection.frozen:
            return False
        return protection.until_ns == 0 or self.now_ns < protection.until_ns

    def enter(self, c: SimpleNamespace, book: Book, level: int = -1) -> Order:
        """The checks from that of the quantity on, and NEW. The order is then neither in a book nor matched."""
        account = self.accounts[c.account]
        need(1 <= c.qty <= (account.most_qty or MAX_QTY), Reason.BAD_QTY)
        need(0 <= c.min_qty <= c.qty and 0 <= c.show_qty <= c.qty, Reason.BAD_QTY)
        need(prices_fit(c, book), Reason.BAD_PRICE)
        most_orders = min(account.most_orders or MAX_QTY, self.max_open_orders_per_account)
        need(account.open_orders < most_orders, Reason.TOO_MANY_OPEN_ORDERS)
        need(
            level < 0 or self.quotes_in(c.account, c.instrument) < self.max_quotes_per_book, Reason.TOO_MANY_OPEN_ORDERS
        )
        need(self.room, Reason.OVERLOADED)
        order = order_of(c, level)
        self.collar = book.collar()
        self.set_price(order, book, order.price)
        if c.time_in_force == TimeInForce.FOK and order.ord_type not in STOPS:
            need(book.can_trade(order, self.collar) >= order.qty, Reason.FOK_NOT_FILLABLE)
        if c.min_qty:
            need(book.can_trade(order, self.collar) >= c.min_qty, Reason.FOK_NOT_FILLABLE)
        held = book.hold(order.price, order.qty) if order.side == Side.BUY else 0
        self.check_risk(order, order.qty, held)

        order.order_id = self.take_slot()
        self.reserve(order, held=held, lots=order.qty)
        account.open_orders += 1
        if level >= 0:
            self.quotes[quote_key(order)] = order
        reason = Reason.WAITING if order.ord_type in STOPS else Reason.NONE
        self.emit_order(EventKind.NEW, order, held_micros=held, reason=reason, contra_leaves_qty=order.show_qty)
        return order

    def set_price(self, order: Order, book: Book, price: int) -> None:
        """The price that an order gets which asks for this one."""
        order.price = price
        if order.ord_type == OrdType.MARKET:
            order.price = book.market_price(order)
        elif order.ord_type == OrdType.STOP:
            order.price = book.far(order.side, order.stop_price)
        else:
            order.price = price_without_taking(order.flags, book, order.side, price)

    def set_off(self, order: Order) -> None:
        """Match a new order, or let it rest or wait."""
        book = self.books[order.instrument]
        if order.ord_type in STOPS:
            self.wait(order)
        elif book.gathers:
            self.rest(order)
        else:
            self.take(order)
        self.trigger_stops(order.instrument)

    def quotes_in(self, account: int, instrument: int) -> int:
        return sum(key[:2] == (account, instrument) for key in self.quotes)

    def check_risk(self, order: Order, added: int, hold: int) -> None:
        """May the order's account have `added` more lots open, and, as a buyer, `hold` more micros reserved?"""
        position = self.position_seen(order.account, order.instrument)
        account = self.accounts[order.account]
        most = account.most_net or MAX_POSITION_LOTS
        if order.side == Side.BUY:
            if added > 0:
                need(self.reduces(order, position, added, position.open_buy), Reason.RISK_LIMIT)
                need(position.net + position.open_buy + added <= most, Reason.POSITION_LIMIT)
            need(hold <= account.cash, Reason.INSUFFICIENT_FUNDS)
        else:
            if added > 0:
                need(self.reduces(order, position, added, position.open_sell), Reason.RISK_LIMIT)
                need(position.net - position.open_sell - added >= -most, Reason.POSITION_LIMIT)
            need(position.net + position.capacity - position.open_sell >= added, Reason.INSUFFICIENT_CAPACITY)

    def reduces(self, order: Order, position: Position, added: int, open_lots: int) -> bool:
        return not order.flags & Flag.REDUCE_ONLY or added <= position.reducible(order.side) - open_lots

    # Client order ids

    def repeats(self, c: SimpleNamespace, key: tuple[int, tuple[int, ...]]) -> bool:
        """Answer what was sent before. False when it is new."""
        first = self.client_ids.get(key)
        if first is None:
            return False
        working = self.orders.get(first.order_id)
        if working is None and self.now_ns - first.then_ns >= CLIENT_ID_LIFE_NS:
            return False
        need(first.body == body(c), Reason.CID_REUSED_DIFFERENT)
        self.emit(
            EventKind.DUPLICATE,
            side=c.side,
            instrument=c.instrument,
            account=c.account,
            order_id=first.order_id,
            price=c.price,
            qty=c.qty,
            leaves_qty=working.leaves if working else 0,
            cum_qty=working.cum if working else 0,
        )
        return True

    def remember(self, key: tuple[int, tuple[int, ...]], entry: Remembered) -> None:
        if len(self.remembered) == self.remembered.maxlen:
            old_key, old = self.remembered[0]
            if self.client_ids.get(old_key) is old:
                del self.client_ids[old_key]
        self.remembered.append((key, entry))
        self.client_ids[key] = entry

    # Cancels

    def cancel(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        self.cancel_order(self.working(c), Reason.BY_REQUEST)

    def expire(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        order = self.working(c)
        need(0 < order.expire_ns <= c.ts_ns, Reason.ORDER_NOT_FOUND)
        self.cancel_order(order, Reason.EXPIRED)

    def mass_cancel(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        need(c.instrument == 0 or c.instrument in self.books, Reason.UNKNOWN_SYMBOL)
        need(c.side in (Side.BUY, Side.SELL, ANY_SIDE), Reason.BAD_FIELD)
        narrowed = {"instrument": c.instrument, "side": c.side, "session": c.session, "tag": c.tag, "group": c.group}
        self.cancel_all(c.account, Reason.MASS_CANCELED, **narrowed)

    # Changes

    def amend(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        plain_unless_extended(c)
        order = self.working(c)
        book = self.books[order.instrument]
        need(c.deadline_ns == 0 or c.ts_ns <= c.deadline_ns, Reason.DEADLINE_PASSED)
        need(self.takes_orders(book, c.ts_ns), Reason.MARKET_NOT_OPEN)
        need(c.flags & ~(Flag.REQUEUE | Flag.EXTENDED) == 0, Reason.BAD_FIELD)
        price = order.price if c.price == UNCHANGED else c.price
        total = order.qty if c.qty == UNCHANGED else c.qty
        stop_price = order.stop_price if c.stop_price in (0, UNCHANGED) else c.stop_price
        if not order.waits:
            need(c.stop_price in (0, UNCHANGED), Reason.AMEND_NOT_ALLOWED)
        elif order.ord_type == OrdType.STOP:
            need(price == order.price, Reason.AMEND_NOT_ALLOWED)
        self.check_terms(order, book, price, total)
        need(not order.waits or 1 <= stop_price <= book.terms.max_price, Reason.BAD_PRICE)
        change = Change(price, total, order.flags, stop_price, requeue=bool(c.flags & Flag.REQUEUE))
        self.replace(order, book, change)

    def check_terms(self, order: Order, book: Book, price: int, total: int) -> None:
        """The checks of an amend's quantity and price."""
        most = self.accounts[order.account].most_qty or MAX_QTY
        need(1 <= total <= MAX_QTY, Reason.BAD_QTY)
        limited = total - order.cum if order.level >= 0 else total
        need(total <= order.qty or limited <= most, Reason.BAD_QTY)
        need(price == order.price or book.low <= price <= book.high, Reason.BAD_PRICE)

    def replace(self, order: Order, book: Book, change: Change) -> None:
        """The rest of an amend's checks, and what it does."""
        if change.total <= order.cum:
            self.cancel_order(order, Reason.BY_REQUEST)
            return
        leaves = change.total - order.cum
        need(self.room, Reason.OVERLOADED)
        price = change.price
        if order.waits and order.ord_type == OrdType.STOP:
            if change.stop_price != order.stop_price:
                price = book.far(order.side, change.stop_price)
        elif not order.waits:
            price = price_without_taking(change.flags, book, order.side, price)
        held = book.hold(price, leaves) - order.held if order.side == Side.BUY else 0
        self.check_risk(order, leaves - order.leaves, held)

        same = price == order.price and change.stop_price == order.stop_price
        kept = same and change.total <= order.qty and not change.requeue
        self.collar = book.collar()
        waits = order.waits
        if not kept:
            self.unrest(order)
        self.reserve(order, held=held, lots=leaves - order.leaves)
        order.price, order.qty, order.leaves = price, change.total, leaves
        order.stop_price, order.flags = change.stop_price, change.flags
        order.shown = min(order.shown, leaves)
        reason = Reason.KEPT if kept else Reason.LOST
        self.emit_order(EventKind.REPLACED, order, held_micros=held, reason=reason, contra_leaves_qty=order.show_qty)
        if not kept:
            if waits:
                self.wait(order)
            elif book.gathers:
                self.rest(order)
            else:
                self.take(order)
        self.trigger_stops(order.instrument)

    # Quotes

    def quote(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        book = self.book(c.instrument)
        known = c.side in list(Side) and c.group >= 1 and 0 <= c.tag <= MAX_QUOTE_LEVEL and c.ord_type == OrdType.LIMIT
        need(known and known_flags(c.flags, QUOTE_FLAGS), Reason.BAD_FIELD)
        need(c.time_in_force in (TimeInForce.GTG, TimeInForce.GTC), Reason.BAD_TIF)
        need(c.qty >= 0, Reason.BAD_QTY)
        level = c.tag
        found = self.quotes.get((c.account, c.instrument, c.group, c.side, level))
        if c.qty == 0:
            if found:
                self.cancel_order(found, Reason.BY_REQUEST)
            else:
                self.emit(EventKind.QUOTE_KEPT, side=c.side, instrument=c.instrument, account=c.account)
            return
        need(c.deadline_ns == 0 or c.ts_ns <= c.deadline_ns, Reason.DEADLINE_PASSED)
        need(c.account not in self.locked, Reason.LOCKED)
        need(self.takes_orders(book, c.ts_ns), Reason.MARKET_NOT_OPEN)
        need(not self.is_frozen(c), Reason.MMP_FROZEN)
        if found is None:
            c.stop_price = c.show_qty = c.min_qty = c.expire_ns = c.tag = 0
            self.set_off(self.enter(c, book, level))
        else:
            self.requote(c, book, found)

    def requote(self, c: SimpleNamespace, book: Book, order: Order) -> None:
        total = order.cum + c.qty
        self.check_terms(order, book, c.price, total)
        flags = c.flags & KEPT_FLAGS
        before = order.session, order.stp_group
        order.session, order.stp_group = c.session, c.stp_group
        if c.price == order.price and c.qty == order.leaves:
            order.flags = flags
            self.emit_order(EventKind.QUOTE_KEPT, order)
            return
        try:
            self.replace(order, book, Change(c.price, total, flags))
        except Rejected:
            order.session, order.stp_group = before
            raise


def plain_unless_extended(c: SimpleNamespace) -> None:
    """What a command without EXTENDED holds beyond its head and its first fields is not read."""
    extended = c.flags & Flag.EXTENDED
    c.cl_ord_id = tuple(map(int, c.cl_ord_id)) if extended else NO_ID
    if not extended:
        for name in EXTENSION:
            setattr(c, name, 0)


def known_flags(flags: int, allowed: int) -> bool:
    both = Flag.POST_ONLY | Flag.SLIDE
    return flags & ~allowed == 0 and flags & both != both and flags & STP_MASK <= Flag.STP_DECREMENT


def time_in_force_fits(c: SimpleNamespace, book: Book) -> bool:
    limit, market = c.ord_type == OrdType.LIMIT, c.ord_type == OrdType.MARKET
    rests, never_takes = c.time_in_force in RESTING, c.flags & (Flag.POST_ONLY | Flag.SLIDE) != 0
    return (
        c.time_in_force in list(TimeInForce)
        and (c.expire_ns > c.ts_ns if c.time_in_force == TimeInForce.GTD else c.expire_ns == 0)
        and not (market and rests)
        and not (never_takes and not (limit and rests))
        and not (c.show_qty and not (c.ord_type in (OrdType.LIMIT, OrdType.STOP_LIMIT) and rests))
        and not (c.min_qty and (c.ord_type in STOPS or c.time_in_force == TimeInForce.FOK or never_takes))
        and not (book.gathers and (market or (limit and (not rests or c.min_qty != 0))))
    )


def prices_fit(c: SimpleNamespace, book: Book) -> bool:
    priced = c.ord_type in (OrdType.LIMIT, OrdType.STOP_LIMIT)
    stop_fits = 1 <= c.stop_price <= book.terms.max_price if c.ord_type in STOPS else c.stop_price == 0
    return bool((book.low <= c.price <= book.high if priced else c.price == 0) and stop_fits)


def price_without_taking(flags: int, book: Book, side: int, price: int) -> int:
    """The price of an order that may have to be POST_ONLY, or to slide."""
    if flags & Flag.POST_ONLY:
        need(not book.would_trade(side, price), Reason.POST_ONLY_WOULD_TAKE)
    if flags & Flag.SLIDE:
        behind = book.slide(side, price)
        need(behind is not None, Reason.POST_ONLY_WOULD_TAKE)
        assert behind is not None
        return behind
    return price


def order_of(c: SimpleNamespace, level: int) -> Order:
    """What a command asks for, without a number."""
    return Order(
        order_id=0,
        account=c.account,
        instrument=c.instrument,
        side=c.side,
        price=c.price,
        qty=c.qty,
        leaves=c.qty,
        flags=c.flags & KEPT_FLAGS,
        session=c.session,
        ord_type=c.ord_type,
        time_in_force=c.time_in_force,
        group=c.group,
        tag=c.tag,
        stp_group=c.stp_group,
        expire_ns=c.expire_ns,
        stop_price=c.stop_price,
        show_qty=c.show_qty if c.show_qty < c.qty else 0,
        level=level,
    )


def body(c: SimpleNamespace) -> tuple[int, ...]:
    return tuple(int(getattr(c, name)) for name in BODY)
