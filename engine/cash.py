"""Cash between accounts, liens and frozen accounts. Rules: docs/engine.md."""

from engine.accounts import ACCOUNT_FROZEN, BAD_AMOUNT, money_event
from engine.kernel import kernel
from engine.matching import BAD_FIELD, INSUFFICIENT_FUNDS, NONE, UNKNOWN_ACCOUNT, known_account
from engine.types import EventKind

EV_TRANSFERRED, EV_LIEN_TAKEN = int(EventKind.TRANSFERRED), int(EventKind.LIEN_TAKEN)
EV_LIEN_LIFTED, EV_FROZEN = int(EventKind.LIEN_LIFTED), int(EventKind.FROZEN)


@kernel
def transfer(s, c, t):
    """TRANSFER: cash from one account to another. Returns the reason of a refusal, or NONE. So do the functions below."""
    if not known_account(s, c.account) or not known_account(s, t.contra_account):
        return UNKNOWN_ACCOUNT
    if c.account == t.contra_account:
        return BAD_FIELD
    payer = s.accounts[c.account]
    if payer.is_frozen != 0:
        return ACCOUNT_FROZEN
    if t.amount_micros < 1:
        return BAD_AMOUNT
    if t.amount_micros > payer.cash_micros:
        return INSUFFICIENT_FUNDS
    payer.cash_micros -= t.amount_micros
    s.accounts[t.contra_account].cash_micros += t.amount_micros
    e = s.money[money_event(s, c, EV_TRANSFERRED, c.account, 0)]
    e.contra_account = t.contra_account
    e.amount_micros = -t.amount_micros
    e.contra_amount_micros = t.amount_micros
    return NONE


@kernel
def take_lien(s, c, t):
    """LIEN: cash that stays the account's own, but that nobody can use."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    if t.amount_micros < 1:
        return BAD_AMOUNT
    account = s.accounts[c.account]
    if t.amount_micros > account.cash_micros:
        return INSUFFICIENT_FUNDS
    account.cash_micros -= t.amount_micros
    account.frozen_micros += t.amount_micros
    e = s.money[money_event(s, c, EV_LIEN_TAKEN, c.account, 0)]
    e.amount_micros = -t.amount_micros
    e.frozen_micros = t.amount_micros
    return NONE


@kernel
def lift_lien(s, c, t):
    """LIFT_LIEN: back to the account, or to the one it was for."""
    if not known_account(s, c.account) or (t.contra_account != 0 and not known_account(s, t.contra_account)):
        return UNKNOWN_ACCOUNT
    if c.account == t.contra_account:
        return BAD_FIELD
    if t.amount_micros < 1:
        return BAD_AMOUNT
    account = s.accounts[c.account]
    if t.amount_micros > account.frozen_micros:
        return INSUFFICIENT_FUNDS
    account.frozen_micros -= t.amount_micros
    e = s.money[money_event(s, c, EV_LIEN_LIFTED, c.account, 0)]
    e.frozen_micros = -t.amount_micros
    if t.contra_account == 0:
        account.cash_micros += t.amount_micros
        e.amount_micros = t.amount_micros
    else:
        s.accounts[t.contra_account].cash_micros += t.amount_micros
        e.contra_account = t.contra_account
        e.contra_amount_micros = t.amount_micros
    return NONE


@kernel
def freeze(s, c, t):
    """FREEZE: from now on no money may leave the account, or it may again."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    if c.flags > 1:
        return BAD_FIELD
    s.accounts[c.account].is_frozen = c.flags
    e = s.money[money_event(s, c, EV_FROZEN, c.account, 0)]
    e.lots = c.flags
    return NONE
