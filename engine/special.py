"""What the door does with every command that is not a plain order, cancel or amend.

A function answers with the reason of a refusal, with NONE, or with the negative number of the Stop of what is short: then
nothing has changed, and the door stops in front of the command.
"""

from engine import accounts, cash, controls, lifecycle, orders, protection, quotes, shares, sweeps, timers
from engine.auction import indicate
from engine.kernel import kernel
from engine.matching import NONE
from engine.types import Kind, Reason

NEW_ORDER, CANCEL, AMEND, MASS_CANCEL = int(Kind.NEW_ORDER), int(Kind.CANCEL), int(Kind.AMEND), int(Kind.MASS_CANCEL)
EXPIRE, QUOTE, CANCEL_AFTER, DEAD_MAN = int(Kind.EXPIRE), int(Kind.QUOTE), int(Kind.CANCEL_AFTER), int(Kind.DEAD_MAN)
SET_MMP, RESET_MMP = int(Kind.SET_MMP), int(Kind.RESET_MMP)
OPEN_ACCOUNT, DEPOSIT, WITHDRAW = int(Kind.OPEN_ACCOUNT), int(Kind.DEPOSIT), int(Kind.WITHDRAW)
NOMINATE, LIST, CLOSE, DELIVER = int(Kind.NOMINATE), int(Kind.LIST), int(Kind.CLOSE), int(Kind.DELIVER)
DELIST, CLOSE_CYCLE, TICK = int(Kind.DELIST), int(Kind.CLOSE_CYCLE), int(Kind.TICK)
LOCK, UNLOCK, SET_LIMITS = int(Kind.LOCK), int(Kind.UNLOCK), int(Kind.SET_LIMITS)
PAYOUT = int(Kind.PAYOUT)
SET_STATUS, SET_BAND, INDICATE = int(Kind.SET_STATUS), int(Kind.SET_BAND), int(Kind.INDICATE)
TRANSFER, LIEN, LIFT_LIEN, FREEZE = int(Kind.TRANSFER), int(Kind.LIEN), int(Kind.LIFT_LIEN), int(Kind.FREEZE)
ISSUE_SHARES, MOVE_SHARES = int(Kind.ISSUE_SHARES), int(Kind.MOVE_SHARES)
HALT_ALL, RESUME_ALL = int(Kind.HALT_ALL), int(Kind.RESUME_ALL)
UNKNOWN_KIND = int(Reason.UNKNOWN_KIND)


@kernel
def apply_order(s, c, now_ns):
    """A command about an account's orders."""
    orders.read_request(s, c, now_ns)
    if c.kind == NEW_ORDER:
        return orders.new_order(s, c)
    if c.kind == CANCEL:
        return orders.cancel(s, c)
    if c.kind == AMEND:
        return orders.amend(s, c)
    if c.kind == MASS_CANCEL:
        return sweeps.mass_cancel(s, c)
    if c.kind == EXPIRE:
        return orders.expire(s, c)
    if c.kind == QUOTE:
        return quotes.quote(s, c)
    if c.kind == CANCEL_AFTER:
        return timers.cancel_after(s, c)
    if c.kind == DEAD_MAN:
        return timers.dead_man(s, c)
    if c.kind == SET_MMP:
        return protection.set_mmp(s, c)
    if c.kind == RESET_MMP:
        return protection.reset_mmp(s, c)
    return UNKNOWN_KIND


@kernel
def apply_other(s, c, i, now_ns):
    """Any command but a plain order, cancel or amend. It is the i-th of the batch."""
    if c.kind < OPEN_ACCOUNT:
        return apply_order(s, c, now_ns)
    if c.kind < LIST:
        return _apply_to_account(s, c, i)
    if c.kind < TRANSFER:
        return _apply_to_instrument(s, c, i, now_ns)
    return _apply_cash(s, c, s.transfers[i])


@kernel
def _apply_to_account(s, c, i):
    if c.kind == OPEN_ACCOUNT:
        return accounts.open_account(s, c, s.transfers[i])
    if c.kind == DEPOSIT:
        return accounts.deposit(s, c, s.transfers[i])
    if c.kind == WITHDRAW:
        return accounts.withdraw(s, c, s.transfers[i])
    if c.kind == NOMINATE:
        return accounts.nominate(s, c, s.transfers[i])
    if c.kind == PAYOUT:
        return accounts.payout(s, c, s.transfers[i])
    if c.kind == LOCK:
        return controls.lock(s, c)
    if c.kind == UNLOCK:
        return controls.unlock(s, c)
    if c.kind == SET_LIMITS:
        return controls.set_limits(s, c)
    return UNKNOWN_KIND


@kernel
def _apply_to_instrument(s, c, i, now_ns):
    if c.kind == LIST:
        return lifecycle.list_instrument(s, c, s.listings[i])
    if c.kind == CLOSE:
        return lifecycle.close_instrument(s, c)
    if c.kind == DELIVER:
        return lifecycle.deliver(s, c, s.transfers[i])
    if c.kind == DELIST:
        return lifecycle.delist(s, c)
    if c.kind == CLOSE_CYCLE:
        return lifecycle.close_cycle(s, c)
    if c.kind == TICK:
        return NONE
    if c.kind == SET_STATUS:
        s.request[0].now_ns = now_ns
        return controls.set_status(s, c)
    if c.kind == SET_BAND:
        return controls.set_band(s, c, s.listings[i])
    if c.kind == INDICATE:
        return indicate(s, c)
    if c.kind == HALT_ALL:
        return controls.halt_all(s, c)
    if c.kind == RESUME_ALL:
        return controls.resume_all(s, c)
    return UNKNOWN_KIND


@kernel
def _apply_cash(s, c, t):
    if c.kind == TRANSFER:
        return cash.transfer(s, c, t)
    if c.kind == LIEN:
        return cash.take_lien(s, c, t)
    if c.kind == LIFT_LIEN:
        return cash.lift_lien(s, c, t)
    if c.kind == FREEZE:
        return cash.freeze(s, c, t)
    if c.kind == ISSUE_SHARES:
        return shares.issue(s, c, t)
    if c.kind == MOVE_SHARES:
        return shares.move(s, c, t)
    return UNKNOWN_KIND
