"""The twin's accounts: money, locks, limits, protections, timers."""

from types import SimpleNamespace

from engine.types import (
    LAST_ROUTE,
    MAX_MMP_FILLS,
    MAX_MMP_WINDOW_NS,
    MAX_MONEY_MICROS,
    MAX_POSITION_LOTS,
    MAX_QTY,
    EventKind,
    Reason,
)
from tests.oracle.orders import Orders
from tests.oracle.parts import MILLION, Account, Protection, ceil_div, need


class Accounts(Orders):
    """Beside the orders of accounts."""

    def open_account(self, c: SimpleNamespace) -> None:
        next_account = len(self.accounts) + 1
        need(not 1 <= c.account < next_account, Reason.ACCOUNT_EXISTS)
        need(c.account == next_account, Reason.UNKNOWN_ACCOUNT)
        need(c.account <= self.max_accounts, Reason.OVERLOADED)
        self.accounts[c.account] = Account()
        self.emit(EventKind.ACCOUNT_OPENED, account=c.account)

    def deposit(self, c: SimpleNamespace) -> None:
        account, amount = self.with_coins(c), c.amount_micros
        need(amount >= 1 and self.deposits + amount <= MAX_MONEY_MICROS, Reason.BAD_AMOUNT)
        if c.refund_micros:
            need(c.asset > 0 and c.refund_micros == amount, Reason.BAD_AMOUNT)
            need(amount <= account.withdrawing, Reason.INSUFFICIENT_FUNDS)
            account.withdrawing -= amount
        account.cash += amount
        self.deposits += amount
        self.emit(EventKind.DEPOSITED, account=c.account, amount_micros=amount)

    def with_coins(self, c: SimpleNamespace) -> Account:
        account = self.account(c.account)
        need(c.asset >= 0, Reason.BAD_FIELD)
        need(c.asset == 0 or c.lots >= 0, Reason.BAD_QTY)
        return account

    def withdraw(self, c: SimpleNamespace) -> None:
        account, amount = self.with_coins(c), c.amount_micros
        need(c.asset == 0 or c.flags <= LAST_ROUTE, Reason.BAD_FIELD)
        need(amount >= 1, Reason.BAD_AMOUNT)
        need(not account.is_frozen, Reason.ACCOUNT_FROZEN)
        need(amount <= account.cash, Reason.INSUFFICIENT_FUNDS)
        account.cash -= amount
        account.withdrawing += amount if c.asset else 0
        self.withdrawals += amount
        self.emit(EventKind.WITHDRAWN, account=c.account, amount_micros=-amount)

    def payout(self, c: SimpleNamespace) -> None:
        account = self.with_coins(c)
        need(c.asset > 0, Reason.BAD_FIELD)
        need(c.amount_micros >= 1, Reason.BAD_AMOUNT)
        need(c.amount_micros <= account.withdrawing, Reason.INSUFFICIENT_FUNDS)
        account.withdrawing -= c.amount_micros
        self.emit(EventKind.PAID_OUT, account=c.account)

    def nominate(self, c: SimpleNamespace) -> None:
        account, book = self.account(c.account), self.book(c.instrument)
        need(c.account not in self.locked, Reason.LOCKED)
        need(self.takes_orders(book, c.ts_ns), Reason.MARKET_NOT_OPEN)
        need(1 <= c.lots <= MAX_QTY, Reason.BAD_QTY)
        capacity = self.position_seen(c.account, c.instrument).capacity
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

    # Locks and limits

    def lock(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        self.locked.add(c.account)
        self.emit(EventKind.ACCOUNT_LOCKED, account=c.account)
        self.cancel_all(c.account, Reason.LOCKED_OUT)

    def unlock(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        self.locked.discard(c.account)
        self.emit(EventKind.ACCOUNT_UNLOCKED, account=c.account)

    def set_limits(self, c: SimpleNamespace) -> None:
        account = self.account(c.account)
        need(0 <= c.qty <= MAX_QTY and 0 <= c.price <= MAX_POSITION_LOTS, Reason.BAD_FIELD)
        need(0 <= c.tag <= self.max_open_orders_per_account, Reason.BAD_FIELD)
        account.most_qty, account.most_net, account.most_orders = c.qty, c.price, c.tag
        self.emit(EventKind.LIMITS_SET, account=c.account, qty=c.qty, price=c.price, leaves_qty=c.tag)

    # Market-maker protection

    def set_mmp(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        key, off = (c.account, c.group), c.qty == c.show_qty == 0
        sound = 1 <= c.qty <= MAX_POSITION_LOTS and 1 <= c.show_qty <= MAX_MMP_FILLS
        need(c.group >= 1 and (off or (sound and 1 <= c.expire_ns <= MAX_MMP_WINDOW_NS)), Reason.BAD_FIELD)
        need(0 <= c.deadline_ns <= MAX_MMP_WINDOW_NS, Reason.BAD_FIELD)
        old = self.protections.get(key)
        if off:
            self.protections.pop(key, None)
        else:
            need(old is not None or (self.room and len(self.protections) < self.max_mmp_groups), Reason.OVERLOADED)
            frozen, until_ns = (old.frozen, old.until_ns) if old is not None else (False, 0)
            self.protections[key] = Protection(c.expire_ns, c.qty, c.show_qty, frozen, [], c.deadline_ns, until_ns)
        self.emit(
            EventKind.MMP_SET,
            account=c.account,
            contra_account=c.group,
            contra_order_id=0 if off else c.expire_ns,
            order_id=0 if off else c.deadline_ns,
            qty=c.qty,
            cum_qty=c.show_qty,
        )

    def reset_mmp(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        protection = self.protections.get((c.account, c.group))
        need(protection is not None, Reason.BAD_FIELD)
        assert protection is not None
        protection.frozen, protection.until_ns, protection.counted = False, 0, []
        self.emit(EventKind.MMP_RESET, account=c.account, contra_account=c.group)

    # Timers

    def cancel_after(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        need(c.tag >= 0 and (c.expire_ns == 0 or c.expire_ns > c.ts_ns), Reason.BAD_FIELD)
        key = (c.account, c.tag)
        if c.expire_ns == 0:
            self.timers.pop(key, None)
        else:
            count = sum(account == c.account for account, _ in self.timers)
            need(key in self.timers or (self.room and count < self.max_timers_per_account), Reason.OVERLOADED)
            self.timers[key] = c.expire_ns
        self.emit(EventKind.DEAD_MAN_SET, account=c.account, order_id=c.tag, contra_order_id=c.expire_ns)

    def dead_man(self, c: SimpleNamespace) -> None:
        self.account(c.account)
        need(self.timers.get((c.account, c.tag), c.ts_ns + 1) <= c.ts_ns, Reason.ORDER_NOT_FOUND)
        del self.timers[c.account, c.tag]
        self.emit(EventKind.DEAD_MAN_SET, account=c.account, order_id=c.tag, reason=Reason.DEAD_MAN)
        self.cancel_all(c.account, Reason.DEAD_MAN, tag=c.tag)
