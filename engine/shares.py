"""Pools: who holds how many shares of an account, and how its payouts are split. Rules: docs/engine.md."""

from engine.accounts import BAD_QTY, money_event
from engine.kernel import inlined, kernel, quotient
from engine.matching import BAD_FIELD, NONE, OVERLOADED, UNKNOWN_ACCOUNT, known_account
from engine.state import NIL
from engine.types import MAX_HOLDERS, MAX_SHARES, EventKind, Reason

INSUFFICIENT_SHARES, TOO_MANY_HOLDERS = int(Reason.INSUFFICIENT_SHARES), int(Reason.TOO_MANY_HOLDERS)
EV_SHARES_CHANGED, EV_SPLIT_PAID = int(EventKind.SHARES_CHANGED), int(EventKind.SPLIT_PAID)


@inlined
def has_share(s):
    """Whether there is room for one more holder."""
    return s.header[0].shares_free != NIL or s.header[0].shares_used < len(s.shares)


@kernel
def _find(s, pool, holder):
    """The holder's record in the pool, or NIL."""
    place = s.accounts[pool].first_share
    while place != NIL and s.shares[place].holder != holder:
        place = s.shares[place].next
    return place


@kernel
def _total(s, pool):
    """(shares, holders) of a pool."""
    shares, holders = 0, 0
    place = s.accounts[pool].first_share
    while place != NIL:
        shares += s.shares[place].lots
        holders += 1
        place = s.shares[place].next
    return shares, holders


@kernel
def _add(s, c, pool, holder, lots):
    """Change what a holder has; a holder stands in the pool as long as it has any, in order of account number."""
    before = NIL
    place = s.accounts[pool].first_share
    while place != NIL and s.shares[place].holder < holder:
        before = place
        place = s.shares[place].next
    if place == NIL or s.shares[place].holder != holder:
        place = _insert(s, pool, before, place, holder)
    s.shares[place].lots += lots
    if s.shares[place].lots == 0:
        _link(s, pool, before, s.shares[place].next)
        s.shares[place].holder = 0
        s.shares[place].next = s.header[0].shares_free
        s.header[0].shares_free = place
    e = s.money[money_event(s, c, EV_SHARES_CHANGED, holder, 0)]
    e.contra_account = pool
    e.lots = lots


@inlined
def _link(s, pool, before, place):
    if before == NIL:
        s.accounts[pool].first_share = place
    else:
        s.shares[before].next = place


@kernel
def _insert(s, pool, before, after, holder):
    h = s.header[0]
    place = h.shares_free
    if place == NIL:
        place = h.shares_used
        h.shares_used += 1
    else:
        h.shares_free = s.shares[place].next
    _link(s, pool, before, place)
    s.shares[place].holder = holder
    s.shares[place].next = after
    return place


@kernel
def issue(s, c, t):
    """ISSUE_SHARES: make shares of a pool, or retire them. Returns the reason of a refusal, or NONE."""
    if not known_account(s, c.account) or not known_account(s, t.contra_account):
        return UNKNOWN_ACCOUNT
    if t.lots == 0 or not -MAX_SHARES <= t.lots <= MAX_SHARES:
        return BAD_QTY
    shares, holders = _total(s, c.account)
    place = _find(s, c.account, t.contra_account)
    have = 0 if place == NIL else s.shares[place].lots
    if have + t.lots < 0:
        return INSUFFICIENT_SHARES
    if shares + t.lots > MAX_SHARES:
        return BAD_QTY
    if place == NIL and holders >= MAX_HOLDERS:
        return TOO_MANY_HOLDERS
    if place == NIL and not has_share(s):
        return OVERLOADED
    _add(s, c, c.account, t.contra_account, t.lots)
    return NONE


@kernel
def move(s, c, t):
    """MOVE_SHARES: from one holder to another."""
    if not known_account(s, c.account) or not known_account(s, t.contra_account) or not known_account(s, t.asset):
        return UNKNOWN_ACCOUNT
    if c.account == t.contra_account:
        return BAD_FIELD
    if not 1 <= t.lots <= MAX_SHARES:
        return BAD_QTY
    giver = _find(s, t.asset, c.account)
    if giver == NIL or s.shares[giver].lots < t.lots:
        return INSUFFICIENT_SHARES
    if _find(s, t.asset, t.contra_account) == NIL and s.shares[giver].lots > t.lots:
        if _total(s, t.asset)[1] >= MAX_HOLDERS:
            return TOO_MANY_HOLDERS
        if not has_share(s):
            return OVERLOADED
    _add(s, c, t.asset, c.account, -t.lots)
    _add(s, c, t.asset, t.contra_account, t.lots)
    return NONE


@kernel
def split(s, c, pool, amount):
    """Pay `amount` of a pool's cash out to its holders, by largest remainder, the lower account number first.

    What falls to the pool itself as a holder stays where it is.
    """
    total = _total(s, pool)[0]
    each = quotient(amount, total)
    rest = amount - each * total
    left = rest  # after the whole parts, one micro each to the largest remainders
    place = s.accounts[pool].first_share
    while place != NIL:
        left -= quotient(rest * s.shares[place].lots, total)
        place = s.shares[place].next
    place = s.accounts[pool].first_share
    while place != NIL:
        share = s.shares[place]
        part = quotient(rest * share.lots, total)
        part += each * share.lots + (1 if _rank(s, pool, place, rest, total) < left else 0)
        if part > 0 and share.holder != pool:
            _pay(s, c, pool, share, part)
        place = share.next


@kernel
def _rank(s, pool, own, rest, total):
    """How many holders come before one when the remainders are given out."""
    remainder = rest * s.shares[own].lots % total
    rank = 0
    is_before = True
    place = s.accounts[pool].first_share
    while place != NIL:
        if place == own:
            is_before = False
        else:
            other = rest * s.shares[place].lots % total
            if other > remainder or (other == remainder and is_before):
                rank += 1
        place = s.shares[place].next
    return rank


@inlined
def _pay(s, c, pool, share, amount):
    s.accounts[pool].cash_micros -= amount
    s.accounts[share.holder].cash_micros += amount
    e = s.money[money_event(s, c, EV_SPLIT_PAID, pool, 0)]
    e.contra_account = share.holder
    e.lots = share.lots
    e.amount_micros = -amount
    e.contra_amount_micros = amount
