"""Timers that cancel an account's orders unless they are set anew: what a client leaves behind if it falls silent.

The engine looks at no clock: the node sees when a timer falls due and says so with DEAD_MAN. An account's timers are a list.
"""

from engine.kernel import kernel
from engine.matching import BAD_FIELD, NONE, ORDER_NOT_FOUND, OVERLOADED, UNKNOWN_ACCOUNT, known_account, next_event
from engine.room import SHORT_OF_TIMERS, may_grow
from engine.state import NIL
from engine.sweeps import cancel_all
from engine.types import EventKind, Reason

DEAD_MAN = int(Reason.DEAD_MAN)
EV_DEAD_MAN_SET = int(EventKind.DEAD_MAN_SET)


@kernel
def _find_timer(s, account, tag):
    slot = s.controls[account].first_timer
    while slot != NIL and s.timers[slot].tag != tag:
        slot = s.timers[slot].next
    return slot


@kernel
def cancel_after(s, c):
    """CANCEL_AFTER. Returns the reason of a refusal, what is short, or NONE."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    if c.tag < 0 or (c.expire_ns != 0 and c.expire_ns <= c.ts_ns):
        return BAD_FIELD
    slot = _find_timer(s, c.account, c.tag)
    if c.expire_ns == 0:
        if slot != NIL:
            _remove_timer(s, slot)
    else:
        h = s.header[0]
        if slot == NIL:
            if s.controls[c.account].timers >= h.max_timers:
                return OVERLOADED
            if h.timers_free == NIL and h.timers_used >= len(s.timers):
                return -SHORT_OF_TIMERS if may_grow(s, SHORT_OF_TIMERS) else OVERLOADED
            slot = _take_timer(s, c.account, c.tag)
        s.timers[slot].expire_ns = c.expire_ns
    _timer_event(s, c, c.expire_ns, NONE)
    return NONE


@kernel
def _timer_event(s, c, expire_ns, reason):
    e = s.events[next_event(s, c, EV_DEAD_MAN_SET)]
    e.reason = reason
    e.account = c.account
    e.order_id = c.tag
    e.contra_order_id = expire_ns


@kernel
def _take_timer(s, account, tag):
    h = s.header[0]
    slot = h.timers_free
    if slot == NIL:
        slot = h.timers_used
        h.timers_used += 1
    else:
        h.timers_free = s.timers[slot].next
    timer = s.timers[slot]
    timer.account = account
    timer.tag = tag
    timer.next = s.controls[account].first_timer
    s.controls[account].first_timer = slot
    s.controls[account].timers += 1
    return slot


@kernel
def _remove_timer(s, slot):
    timer, h = s.timers[slot], s.header[0]
    account = s.controls[timer.account]
    if account.first_timer == slot:
        account.first_timer = timer.next
    else:
        before = account.first_timer
        while s.timers[before].next != slot:
            before = s.timers[before].next
        s.timers[before].next = timer.next
    account.timers -= 1
    timer.account = 0
    timer.tag = 0
    timer.expire_ns = 0
    timer.next = h.timers_free
    h.timers_free = slot


@kernel
def dead_man(s, c):
    """DEAD_MAN: a timer has run out. Returns the reason of a refusal, or NONE."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    slot = _find_timer(s, c.account, c.tag)
    if slot == NIL or s.timers[slot].expire_ns > c.ts_ns:
        return ORDER_NOT_FOUND
    _remove_timer(s, slot)
    _timer_event(s, c, 0, DEAD_MAN)
    cancel_all(s, c, c.account, c.tag, 0, DEAD_MAN)
    return NONE
