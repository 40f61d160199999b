"""The twin's instruments: listing, bands, status, gate, delivery."""

from types import SimpleNamespace

from engine.types import (
    MAX_BAND_PPM,
    MAX_FEE_PPM,
    MAX_LOT_VALUE_MICROS,
    MAX_MONEY_MICROS,
    MAX_PRICE_TICKS,
    EventKind,
    Reason,
    Side,
    Status,
)
from tests.oracle.accounts import Accounts
from tests.oracle.cash import Cash
from tests.oracle.parts import MILLION, Book, need
from tests.oracle.trading import auction_price

TO_BE_SET = (Status.CONTINUOUS, Status.PRE_OPEN, Status.AUCTION, Status.HALTED, Status.CANCEL_ONLY)


class Instruments(Accounts, Cash):
    """Upon the orders in their books."""

    def list_instrument(self, c: SimpleNamespace) -> None:
        need(c.instrument not in self.books, Reason.INSTRUMENT_EXISTS)
        good = (
            1 <= c.instrument <= min(self.next_instrument, self.max_instruments)
            and c.lot_tick_micros >= 1
            and 1 <= c.max_price <= MAX_PRICE_TICKS
            and c.max_price * c.lot_tick_micros <= MAX_LOT_VALUE_MICROS
            and 0 <= c.maker_rebate_ppm <= c.taker_fee_ppm <= MAX_FEE_PPM
            and 0 <= c.bond_ppm <= MILLION
            and bands_are_sound(c, c.max_price)
            and c.open_ns < c.gate_ns
            and c.ts_ns < c.gate_ns
        )
        need(good, Reason.BAD_LISTING)
        self.books[c.instrument] = Book(terms=c)
        self.next_instrument = max(self.next_instrument, c.instrument + 1)
        self.emit(EventKind.LISTED, instrument=c.instrument)

    def close(self, c: SimpleNamespace) -> None:
        book = self.book(c.instrument)
        need(book.status != Status.CLOSED, Reason.MARKET_NOT_OPEN)
        for side in Side:
            for order in self.working_in(c.instrument, side):
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
        provider = self.position_seen(c.account, c.instrument)
        receiver = self.position_seen(c.contra_account, c.instrument)
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
        if c.account in self.shares and not provider_cash.is_frozen and pay - f1 - d1 > 0:
            self.split(c.account, pay - f1 - d1)

    def delist(self, c: SimpleNamespace) -> None:
        need(self.book(c.instrument).status == Status.CLOSED, Reason.NOT_CLOSED)
        gone = [key for key in self.positions if key[1] == c.instrument]
        need(all(self.positions[key].net == 0 for key in gone), Reason.NOT_FLAT)
        for key in gone:
            del self.positions[key]
        del self.books[c.instrument]
        self.emit(EventKind.DELISTED, instrument=c.instrument)

    # While it trades

    def set_band(self, c: SimpleNamespace) -> None:
        book = self.book(c.instrument)
        need(book.status != Status.CLOSED, Reason.MARKET_NOT_OPEN)
        need(bands_are_sound(c, book.terms.max_price), Reason.BAD_LISTING)
        for name in ("reference_price", "band_ppm", "collar_ppm", "dynamic_ppm"):
            setattr(book.terms, name, getattr(c, name))
        self.emit(
            EventKind.BAND_SET,
            instrument=c.instrument,
            price=c.reference_price,
            qty=book.low,
            leaves_qty=book.high,
            cum_qty=c.collar_ppm,
            contra_leaves_qty=c.dynamic_ppm,
        )

    def set_status(self, c: SimpleNamespace) -> None:
        book = self.book(c.instrument)
        need(book.status != Status.CLOSED, Reason.MARKET_NOT_OPEN)
        need(c.qty in TO_BE_SET and c.qty != book.status, Reason.BAD_FIELD)
        need(not (self.halted and c.qty == Status.CONTINUOUS), Reason.MARKET_NOT_OPEN)
        if c.qty == Status.CONTINUOUS:
            self.uncross(c.instrument)
        self.change_status(c.instrument, Status(c.qty), Reason.BY_REQUEST)
        self.collar = book.collar()
        self.trigger_stops(c.instrument)

    def indicate(self, c: SimpleNamespace) -> None:
        book = self.book(c.instrument)
        need(book.gathers, Reason.MARKET_NOT_OPEN)
        price, volume, surplus = auction_price(book) if book.is_crossed else (0, 0, 0)
        self.emit_auction_price(c.instrument, price, volume, surplus, Reason.INDICATIVE)

    def halt_all(self, c: SimpleNamespace) -> None:
        self.halted = True
        self.emit(EventKind.EXCHANGE_HALTED)

    def resume_all(self, c: SimpleNamespace) -> None:
        self.halted = False
        self.emit(EventKind.EXCHANGE_RESUMED)


def bands_are_sound(c: SimpleNamespace, max_price: int) -> bool:
    widths = (c.band_ppm, c.collar_ppm, c.dynamic_ppm)
    return 0 <= c.reference_price <= max_price and all(0 <= width <= MAX_BAND_PPM for width in widths)
