"""An order's life in the twin: what it reserves, where it rests, with whom it trades, how the money moves."""

from engine.types import (
    ANY_SIDE,
    MAX_GENERATION,
    SLOT_BITS,
    EventKind,
    Flag,
    Reason,
    Side,
    Status,
    TimeInForce,
)
from tests.oracle.core import Core
from tests.oracle.parts import MILLION, Book, Order, same_person

PREVENTIONS = {
    Flag.STP_EXPIRE_TAKER: Reason.EXPIRE_TAKER,
    Flag.STP_EXPIRE_MAKER: Reason.EXPIRE_MAKER,
    Flag.STP_EXPIRE_BOTH: Reason.EXPIRE_BOTH,
    Flag.STP_DECREMENT: Reason.DECREMENT,
}
WIDEST = 2**31
"""Beyond what fits the 32 bits of an event's quantity."""


class Trading(Core):
    """Below the commands on orders."""

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

    def wait(self, order: Order) -> None:
        self.books[order.instrument].wait(order)
        self.orders[order.order_id] = order
        order.waits = True

    def unrest(self, order: Order) -> None:
        """Take a working order from where it rests or waits."""
        book = self.books[order.instrument]
        if order.waits:
            book.stops[order.side].remove(order)
            order.waits = False
        else:
            book.remove(order)
        del self.orders[order.order_id]

    def finish(self, order: Order) -> None:
        """An order has nothing left: it leaves the book if it rests in it, and frees its slot."""
        if order.order_id in self.orders:
            self.unrest(order)
        order.gone = True
        self.quotes.pop(quote_key(order), None)
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
        self.emit_order(EventKind.CANCELED, order, held_micros=-held, reason=reason, contra_leaves_qty=order.shown)
        self.reserve(order, held=-held, lots=-order.leaves)
        self.finish(order)

    def cancel_all(
        self,
        account: int,
        reason: Reason,
        instrument: int = 0,
        side: int = ANY_SIDE,
        session: int = 0,
        tag: int = 0,
        group: int = 0,
    ) -> None:
        """The working orders of an account that fit; 0 and ANY_SIDE fit all."""
        for number, made_in in reversed(list(self.positions)):
            if number != account or instrument not in (0, made_in):
                continue
            for one_side in Side:
                if side not in (ANY_SIDE, one_side):
                    continue
                for order in self.working_in(made_in, one_side):
                    fits = session in (0, order.session) and tag in (0, order.tag) and group in (0, order.group)
                    if order.account == account and fits:
                        self.cancel_order(order, reason)

    def working_in(self, instrument: int, side: int) -> list[Order]:
        """All of one side: the book, then what waits."""
        book = self.books[instrument]
        return book.orders(side) + book.stops[side]

    # Matching

    def take(self, order: Order) -> None:
        """Match an order as taker, and let what remains rest or go."""
        book = self.books[order.instrument]
        stopped = self.match(book, order)
        if order.gone:
            pass
        elif order.leaves == 0:
            self.finish(order)
        elif order.immediate:
            self.cancel_order(order, Reason.UNFILLED)
        else:
            self.rest(order)
        if stopped:
            self.change_status(order.instrument, Status.AUCTION, Reason.COLLAR)

    def match(self, book: Book, taker: Order) -> bool:
        """True when the dynamic collar ended it."""
        while taker.leaves and not taker.gone:
            best = next(book.crossed(taker.side, taker.price), None)
            if best is None:
                return False
            price, queue = best
            maker = next(iter(queue.values()))
            if not book.within_collar(price, self.collar):
                return True
            if self.may_trade(taker) == 0:
                self.cancel_order(taker, Reason.NOTHING_TO_REDUCE)
            elif taker.stp and same_person(taker, maker):
                self.prevent(book, taker, maker, price)
            elif self.may_trade(maker) == 0:
                self.cancel_order(maker, Reason.NOTHING_TO_REDUCE)
            else:
                qty = min(taker.leaves, maker.tradable, self.may_trade(taker), self.may_trade(maker))
                self.trade(book, taker, maker, price, qty)
                self.done_or_refreshed(maker)
                self.protect(maker, qty)
        return False

    def may_trade(self, order: Order) -> int:
        """Its leaves, or less when it is reduce-only."""
        if not order.flags & Flag.REDUCE_ONLY:
            return order.leaves
        return min(order.leaves, self.position(order.account, order.instrument).reducible(order.side))

    def done_or_refreshed(self, order: Order) -> None:
        """A resting order after a trade."""
        if order.leaves == 0:
            self.finish(order)
        elif order.tradable == 0:
            order.shown = min(order.show_qty, order.leaves)
            self.books[order.instrument].sides[order.side][order.price].move_to_end(order.order_id)
            self.emit_order(EventKind.REFRESHED, order, qty=order.shown)

    def prevent(self, book: Book, taker: Order, maker: Order, price: int) -> None:
        """What happens instead of a self-trade."""
        qty = min(taker.leaves, maker.tradable)
        held = self.decrement(book, (taker, maker), qty) if taker.stp == Flag.STP_DECREMENT else 0
        self.emit_order(
            EventKind.PREVENTED,
            taker,
            price=price,
            qty=qty,
            contra_account=maker.account,
            contra_order_id=maker.order_id,
            contra_leaves_qty=maker.leaves,
            contra_cum_qty=maker.cum,
            held_micros=held,
            reason=PREVENTIONS[Flag(taker.stp)],
        )
        if taker.stp == Flag.STP_DECREMENT:
            if maker.leaves:
                self.done_or_refreshed(maker)
            else:
                self.cancel_order(maker, Reason.SELF_TRADE_PREVENTED)
            if taker.leaves == 0:
                self.cancel_order(taker, Reason.SELF_TRADE_PREVENTED)
            return
        if taker.stp != Flag.STP_EXPIRE_TAKER:
            self.cancel_order(maker, Reason.SELF_TRADE_PREVENTED)
        if taker.stp != Flag.STP_EXPIRE_MAKER:
            self.cancel_order(taker, Reason.SELF_TRADE_PREVENTED)

    def decrement(self, book: Book, orders: tuple[Order, Order], qty: int) -> int:
        """Both shrink; the change of what the buyer's reserves."""
        changed = 0
        for order in orders:
            order.leaves -= qty
            order.qty -= qty
            order.shown -= qty if order.shown else 0
            held = book.hold(order.price, order.leaves) - order.held if order.side == Side.BUY else 0
            self.reserve(order, held=held, lots=-qty)
            changed += held
        return changed

    def protect(self, maker: Order, qty: int) -> None:
        """Count a trade of a maker for its group's protection, which may cancel what else the group has."""
        protection = self.protections.get((maker.account, maker.group))
        if maker.group == 0 or protection is None:
            return
        kept = [(then, lots) for then, lots in protection.counted if self.now_ns - then < protection.window_ns]
        protection.counted = [*kept, (self.now_ns, qty)]
        lots, fills = sum(lots for _, lots in protection.counted), len(protection.counted)
        if lots >= protection.lots or fills >= protection.fills:
            protection.counted, protection.frozen = [], True
            protection.until_ns = self.now_ns + protection.freeze_ns if protection.freeze_ns else 0
            self.emit(
                EventKind.MMP_TRIGGERED,
                instrument=maker.instrument,
                account=maker.account,
                contra_account=maker.group,
                contra_order_id=protection.until_ns,
                qty=lots,
                cum_qty=fills,
            )
            self.cancel_all(maker.account, Reason.MMP, group=maker.group)

    def trigger_stops(self, instrument: int) -> None:
        """As long as one is due: it becomes a limit order and is matched to the end."""
        book = self.books[instrument]
        while book.status == Status.CONTINUOUS and (order := book.due_stop()):
            self.unrest(order)
            self.emit_order(EventKind.TRIGGERED, order, contra_leaves_qty=order.show_qty)
            if order.time_in_force == TimeInForce.FOK and book.can_trade(order, self.collar) < order.leaves:
                self.cancel_order(order, Reason.UNFILLED)
            else:
                self.take(order)

    def change_status(self, instrument: int, status: Status, reason: Reason) -> None:
        book = self.books[instrument]
        self.emit(EventKind.STATUS_CHANGED, instrument=instrument, qty=status, cum_qty=book.status, reason=reason)
        book.status = status

    # Auctions

    def uncross(self, instrument: int) -> None:
        book = self.books[instrument]
        while book.is_crossed:
            price, volume, surplus = auction_price(book)
            self.emit_auction_price(instrument, price, volume, surplus, Reason.AUCTION)
            while buyer_and_seller := heads(book, price):
                self.auction_step(book, *buyer_and_seller, price)

    def auction_step(self, book: Book, buyer: Order, seller: Order, price: int) -> None:
        for order in (buyer, seller):
            if self.may_trade(order) == 0:
                self.cancel_order(order, Reason.NOTHING_TO_REDUCE)
                return
        qty = min(buyer.tradable, seller.tradable, self.may_trade(buyer), self.may_trade(seller))
        self.trade(book, buyer, seller, price, qty, auction=True)
        self.done_or_refreshed(buyer)
        self.done_or_refreshed(seller)

    def emit_auction_price(self, instrument: int, price: int, volume: int, surplus: int, reason: Reason) -> None:
        cut = {"qty": min(volume, WIDEST - 1), "leaves_qty": max(-WIDEST, min(surplus, WIDEST - 1))}
        self.emit(EventKind.AUCTION_PRICE, instrument=instrument, price=price, reason=reason, **cut)

    # Clearing

    def trade(self, book: Book, taker: Order, maker: Order, price: int, qty: int, auction: bool = False) -> None:
        """A trade; in an auction the buyer is called the taker, and nobody pays for it."""
        for order in (taker, maker):
            order.leaves -= qty
            order.cum += qty
            order.shown -= qty if order.shown else 0
        notional = book.notional(price, qty)
        fee = 0 if auction else book.fee(notional)
        buyer, seller = (taker, maker) if taker.side == Side.BUY else (maker, taker)
        money = self.clear_buyer(book, buyer, price, qty, fee if buyer is taker else 0)
        money |= self.clear_seller(book, seller, price, qty, fee if seller is taker else 0)
        if not auction:
            self.accounts[maker.account].rebate += notional * book.terms.maker_rebate_ppm // MILLION
        book.last_price = price
        self.emit_order(
            EventKind.TRADE,
            taker,
            reason=Reason.AUCTION if auction else Reason.NONE,
            contra_account=maker.account,
            contra_order_id=maker.order_id,
            price=price,
            qty=qty,
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


def quote_key(order: Order) -> tuple[int, ...]:
    return order.account, order.instrument, order.group, order.side, order.level


def heads(book: Book, price: int) -> tuple[Order, Order] | None:
    """The oldest orders of the best levels, when both reach the price."""
    bid, ask = book.best(Side.BUY), book.best(Side.SELL)
    if bid is None or ask is None or bid < price or ask > price:
        return None
    return next(iter(book.sides[Side.BUY][bid].values())), next(iter(book.sides[Side.SELL][ask].values()))


def auction_price(book: Book) -> tuple[int, int, int]:
    """Price, volume and surplus of a crossed book."""
    lowest, highest = book.best(Side.SELL), book.best(Side.BUY)
    assert lowest is not None and highest is not None
    target = book.last_price if book.last_price >= 0 else int(book.terms.reference_price)
    # Between neighbouring levels nothing changes: the nearest to the target is at an end, or the target itself.
    levels = [price for side in book.sides for price in side]
    candidates = {target} | {price + by for price in levels for by in (-1, 0, 1)}
    totals = [[(price, sum(o.leaves for o in queue.values())) for price, queue in side.items()] for side in book.sides]

    def at(price: int) -> tuple[int, int]:
        bids = sum(qty for level, qty in totals[Side.BUY] if level >= price)
        asks = sum(qty for level, qty in totals[Side.SELL] if level <= price)
        return min(bids, asks), bids - asks

    def rank(price: int) -> tuple[int, int, int]:
        volume, surplus = at(price)
        return -volume, abs(surplus), abs(price - target)

    best = min((price for price in candidates if lowest <= price <= highest), key=rank)
    return best, *at(best)
