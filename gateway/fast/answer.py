"""Requests that compiled code took in: their replies, those of batches item by item, and what waited for an order.

What is written for a session is a piece of the send buffer. While a batch of the session is unanswered its private events
are pieces that are held; with the reply to its last batch they are queued behind it.
"""

from engine.kernel import inlined, kernel
from engine.pointers import clear
from engine.types import EventKind, Kind, Reason
from gateway.fast.compose import BATCH_FRAME, MASS_FRAME, REPLY_FRAME, message
from gateway.fast.moves import move
from gateway.fast.store import drop_pending, find_order, new_pending, status_of, unhash_pending
from gateway.fast.tables import ITEMS, MOST_OF_ANSWER
from gateway.fast.templates import ID, T_IN, T_OUT, Outcome
from gateway.fast.write import frame_start
from gateway.messages import Code

CANCEL, AMEND, QUOTE = int(Kind.CANCEL), int(Kind.AMEND), int(Kind.QUOTE)
REJECTED, NEW, REPLACED = int(EventKind.REJECTED), int(EventKind.NEW), int(EventKind.REPLACED)
DUPLICATE, OUTCOME_UNKNOWN, FORGOTTEN = int(EventKind.DUPLICATE), int(Code.OUTCOME_UNKNOWN), 3
KEPT_PLACE, INSUFFICIENT_FUNDS = int(Reason.KEPT), int(Reason.INSUFFICIENT_FUNDS)
ORDER_NOT_FOUND, OVERLOADED = int(Reason.ORDER_NOT_FOUND), int(Reason.OVERLOADED)
ORDER, ERROR, FUNDS, DONE = int(Outcome.ORDER), int(Outcome.ERROR), int(Outcome.FUNDS), int(Outcome.DONE)
FROZEN, MMP_FROZEN = int(Outcome.FROZEN), int(Reason.MMP_FROZEN)
ANSWERED, BY_PYTHON, ERROR_WANTED = 0, 1, 2
INTERNAL = int(Code.INTERNAL)


# --- The send buffer --------------------------------------------------------------------------------------------------


@inlined
def queue_piece(s, h, session_at, start, stop):
    at = h.pieces
    piece = s.pieces[at]
    piece.session = session_at
    piece.start = start
    piece.stop = stop
    piece.next = 0
    piece.held = 0
    h.pieces = at + 1


@kernel
def store_for_hold(s, h, session_at, start, stop):
    """Queue a private event, or hold it while a batch is unanswered. Row numbers in the chain are one too high."""
    queue_piece(s, h, session_at, frame_start(start, stop), stop)
    session = s.sessions[session_at]
    if session.holds == 0:
        return
    s.pieces[h.pieces - 1].held = 1
    if session.last_held:
        s.pieces[session.last_held - 1].next = h.pieces
    else:
        session.first_held = h.pieces
    session.last_held = h.pieces


@kernel
def release(s, h, session_at):
    """A batch is answered; behind the last one what was held is queued."""
    session = s.sessions[session_at]
    session.holds -= 1
    if session.holds > 0:
        return
    if session.parked:
        h.release = session_at  # Python holds some that are older
        return
    at = session.first_held
    while at:
        piece = s.pieces[at - 1]
        piece.held = 2
        queue_piece(s, h, session_at, piece.start, piece.stop)
        at = piece.next
    session.first_held = 0
    session.last_held = 0


@kernel
def gather(s):
    """Bring the pieces of each session together: `groups` of them in `gathered`; what is held still, in groups of its own."""
    h = s.head[0]
    h.groups = 0
    at = 0
    for held in range(2):
        first = h.groups
        for k in range(h.pieces):
            piece = s.pieces[k]
            if piece.held == held:
                session = s.sessions[piece.session]
                if session.bytes == 0:
                    session.group = h.groups
                    group = s.groups[h.groups]
                    group.session = piece.session
                    group.held = held
                    h.groups += 1
                session.bytes += piece.stop - piece.start
        for g in range(first, h.groups):
            group = s.groups[g]
            session = s.sessions[group.session]
            group.start = at
            group.stop = at
            at += session.bytes
            session.bytes = 0
            if held:
                session.first_held = 0
                session.last_held = 0
        for k in range(h.pieces):
            piece = s.pieces[k]
            if piece.held == held:
                group = s.groups[s.sessions[piece.session].group]
                size = piece.stop - piece.start
                move(s.gathered, group.stop, s.out, piece.start, size)
                group.stop += size
    h.pieces = 0
    h.out_used = 0
    return h.groups


# --- Replies ----------------------------------------------------------------------------------------------------------


@inlined
def reply(s, h, session_at, request, t_in):
    """Answer a request with s.result."""
    wire = s.sessions[session_at].wire
    s.holes[ID] = request
    s.holes[T_IN] = t_in
    s.holes[T_OUT] = h.t_out
    start = h.out_used
    h.out_used = message(s, REPLY_FRAME, start, 0, wire)
    queue_piece(s, h, session_at, frame_start(start, h.out_used), h.out_used)


@inlined
def reply_batch(s, h, batch_at):
    session_at = s.batches[batch_at].session
    start = h.out_used
    h.out_used = message(s, BATCH_FRAME, start, batch_at, s.sessions[session_at].wire)
    queue_piece(s, h, session_at, frame_start(start, h.out_used), h.out_used)
    s.sessions[session_at].pending -= 1
    release(s, h, session_at)


@inlined
def free_mass(s, h, mass_at):
    """A mass quote is answered, or there is nobody any more to be told."""
    mass = s.masses[mass_at]
    at = mass.first_batch
    while at:
        batch = s.batches[at - 1]
        following = batch.next
        batch.mass = 0
        batch.next = h.batches_free
        h.batches_free = at
        at = following
    mass.next = h.masses_free
    h.masses_free = mass_at + 1


@kernel
def finish_level(s, h, mass_at, is_there):
    """A level of a mass quote is decided; the last one sends the answer."""
    mass = s.masses[mass_at]
    mass.missing -= 1
    if mass.missing:
        return
    if is_there and mass.error:
        error_result(s, s.result[0], mass.error)
        reply(s, h, mass.session, mass.request, mass.t_in)
    elif is_there:
        start = h.out_used
        h.out_used = message(s, MASS_FRAME, start, mass_at, s.sessions[mass.session].wire)
        queue_piece(s, h, mass.session, frame_start(start, h.out_used), h.out_used)
    if is_there:
        s.sessions[mass.session].pending -= 1
        release(s, h, mass.session)
    free_mass(s, h, mass_at)


@kernel
def finish(s, h, asker):
    """Answer a request (a row of pendings or waits), or its part of a batch, with s.result."""
    is_there = s.sessions[asker.session].uid == asker.uid
    if is_there:
        s.sessions[asker.session].pending -= 1
    if asker.batch == 0:
        if is_there:
            reply(s, h, asker.session, asker.request, asker.t_in)
        return
    batch_at = asker.batch - 1
    batch = s.batches[batch_at]
    s.results[batch_at * ITEMS + asker.item] = s.result[0]
    if batch.mass:
        finish_level(s, h, batch.mass - 1, is_there)
        return
    batch.missing -= 1
    if batch.missing == 0:
        if batch.quotes:
            h.quotes = asker.batch
            batch.quotes = 0
        elif is_there:
            reply_batch(s, h, batch_at)
        batch.next = h.batches_free
        h.batches_free = batch_at + 1


# --- What came of a request -------------------------------------------------------------------------------------------


@kernel
def order_result(s, h, result, at, aseq):
    """Where an order stands."""
    order = s.orders[at]
    clear(s.result, 0)
    result.outcome = ORDER
    result.oid = order.id
    result.c0 = order.c0
    result.c1 = order.c1
    result.c2 = order.c2
    result.c3 = order.c3
    result.c4 = order.c4
    result.left = order.leaves
    result.cum = order.cum
    result.word = h.phrase_status + status_of(order)
    result.aseq = aseq


@kernel
def error_result(s, result, phrase):
    clear(s.result, 0)
    result.outcome = ERROR
    result.word = phrase


@kernel
def outcome_of(s, h, c, e, result):
    """What came of the command at hand. False when only Python knows how to say it."""
    order_id = c.order_id if c.order_id else e.order_id
    if e.kind != REJECTED:
        at = find_order(s, order_id)
        if e.kind == DUPLICATE and at == 0:
            error_result(s, result, h.phrase_own + FORGOTTEN)
            s.refused[OUTCOME_UNKNOWN] += 1
            return True
        account = s.accounts[c.account]
        order_result(s, h, result, at, account.first_aseq if account.step == h.step else 0)
        result.act = e.kind
        if e.kind == REPLACED:
            result.has_kept = 1
            result.kept = 1 if e.reason == KEPT_PLACE else 0
        return True
    if c.kind == CANCEL:
        at = find_order(s, c.order_id)
        if at and s.orders[at].done:
            order_result(s, h, result, at, 0)  # it finished while the cancel was on its way
            return True
    if e.reason == INSUFFICIENT_FUNDS:
        s.refused[e.reason] += 1
        clear(s.result, 0)
        result.outcome = FUNDS
        result.cum = s.accounts[c.account].cash
        return True
    if e.reason == MMP_FROZEN and e.contra_order_id:
        s.refused[e.reason] += 1
        clear(s.result, 0)
        result.outcome = FROZEN
        result.cum = (e.contra_order_id + 999) // 1000
        return True
    error_result(s, result, s.reasons[e.reason])
    if result.word == 0:
        return False
    s.refused[e.reason] += 1
    return True


@kernel
def answer_step(s, h):
    """Answer the request that waits for the command at hand; what Python has to do first, or ANSWERED."""
    c = s.commands[h.command_at]
    h.python = 0
    h.waiting = 0
    if c.ref <= 0:
        return ANSWERED
    row = c.ref & (len(s.pendings) - 1)
    pending = s.pendings[row]
    if pending.ref != c.ref or pending.kind != c.kind or pending.account != c.account:
        return ANSWERED
    h.python = pending.python | pending.extra
    has_events = h.event_end > h.event_at
    if pending.first_wait:
        h.waiting_order = 0
        if has_events and s.events[h.event_at].kind == NEW:
            h.waiting_order = find_order(s, s.events[h.event_at].order_id)
    if pending.python:
        h.waiting = pending.first_wait
        return BY_PYTHON
    if not has_events or not outcome_of(s, h, c, s.events[h.event_at], s.result[0]):
        if h.error_phrase == 0:
            return ERROR_WANTED
        s.refused[s.events[h.event_at].reason if has_events else INTERNAL] += 1
        error_result(s, s.result[0], h.error_phrase)
        h.error_phrase = 0
    h.waiting = pending.first_wait
    unhash_pending(s, row + 1)
    finish(s, h, pending)
    drop_pending(s, row + 1)
    return BY_PYTHON if pending.extra else ANSWERED


# --- Commands ---------------------------------------------------------------------------------------------------------


@kernel
def send(s, h, asker, kind, account):
    """A command for a request that compiled code answers: its row of `unsent`; the caller fills in the rest.

    There must be room: see `has_room` in accept.py.
    """
    at = new_pending(s)
    pending = s.pendings[at - 1]
    pending.kind = kind
    pending.account = account
    pending.session = asker.session
    pending.uid = asker.uid
    pending.request = asker.request
    pending.t_in = asker.t_in
    pending.batch = asker.batch
    pending.item = asker.item
    clear(s.unsent, h.unsent)
    command = s.unsent[h.unsent]
    command.kind = kind
    command.account = account
    command.ref = pending.ref
    h.unsent += 1
    return at


@inlined
def send_level(s, h, asker, account, instrument, group, side, level, price, qty):
    """A command for a level of a ladder. In `key`: the flags, the session's serial, the deadline, the self-trade group."""
    send(s, h, asker, QUOTE, account)
    command = s.unsent[h.unsent - 1]
    command.instrument = instrument
    command.group = group
    command.side = side
    command.tag = level
    command.price = price
    command.qty = qty
    command.flags = s.key[0]
    command.session = s.key[1]
    command.deadline_ns = s.key[2]
    command.stp_group = s.key[3]


@kernel
def send_quotes(s, session_at, account, instrument, group, count):
    """Commands for the levels in `wishes`, as a batch of their own; its number, 0 when there is no room for one."""
    h = s.head[0]
    at = h.batches_free
    if at:
        h.batches_free = s.batches[at - 1].next
    elif h.batches_used < len(s.batches):
        h.batches_used += 1
        at = h.batches_used
    else:
        return 0
    batch = s.batches[at - 1]
    batch.session = session_at
    batch.items = count
    batch.missing = count
    batch.quotes = 1
    session = s.sessions[session_at]
    session.pending += count
    clear(s.asker, 0)
    asker = s.asker[0]
    asker.session = session_at
    asker.uid = session.uid
    asker.batch = at
    for k in range(count):
        wish = s.wishes[k]
        asker.item = k
        send_level(s, h, asker, account, instrument, group, wish.side, wish.level, wish.price, wish.qty)
    return at


@inlined
def as_asker(s, wait):
    """Who waited, as a row of the kind that `finish` and `send` take."""
    asker = s.asker[0]
    asker.uid = wait.uid
    asker.request = wait.request
    asker.t_in = wait.t_in
    asker.session = wait.session
    asker.batch = wait.batch
    asker.item = wait.item
    return asker


@kernel
def refuse(s, h, asker, own_error, code):
    error_result(s, s.result[0], h.phrase_own + own_error)
    s.refused[code] += 1
    finish(s, h, asker)


@inlined
def attempt(s, h, wait, order_at):
    """A request that waited for its order, which is there now or was refused."""
    asker = as_asker(s, wait)
    if order_at == 0:
        refuse(s, h, asker, 0, ORDER_NOT_FOUND)
        return
    order = s.orders[order_at]
    if order.done:
        order_result(s, h, s.result[0], order_at, 0)
        if wait.kind == AMEND:
            s.result[0].outcome = DONE
            s.refused[ORDER_NOT_FOUND] += 1
        finish(s, h, asker)
        return
    if s.sessions[wait.session].uid == wait.uid and s.sessions[wait.session].pending > h.max_pending_per_session:
        refuse(s, h, asker, 1, OVERLOADED)
        return
    if h.pending >= h.max_pending:
        refuse(s, h, asker, 2, OVERLOADED)
        return
    send(s, h, asker, wait.kind, wait.account)
    command = s.unsent[h.unsent - 1]
    command.instrument = order.instrument
    command.order_id = order.id
    if wait.kind == AMEND:
        command.price = wait.price
        command.qty = wait.qty


@kernel
def attempt_waiting(s, h):
    """Do what waited for the order of the step at hand. False when there is no room for another command."""
    while h.waiting:
        if h.unsent >= len(s.unsent) or h.out_used + 65_536 > len(s.out) or h.release:
            return False
        at = h.waiting
        wait = s.waits[at - 1]
        h.waiting = wait.next
        attempt(s, h, wait, h.waiting_order)
        wait.next = h.waits_free
        h.waits_free = at
    return True


@inlined
def is_full(s, h):
    return h.out_used + MOST_OF_ANSWER > len(s.out) or h.pieces + 8 > len(s.pieces)


@kernel
def abandon(s, phrase):
    """Nobody knows how what is under way ends: say so to all whom compiled code would answer. 1 when a buffer is full."""
    h = s.head[0]
    for ref in range(h.ref - len(s.pendings) + 1, h.ref + 1):
        row = ref & (len(s.pendings) - 1)
        pending = s.pendings[row]
        if pending.ref == ref and ref > 0:
            if is_full(s, h):
                return 1
            if pending.batch and s.batches[pending.batch - 1].mass:
                s.masses[s.batches[pending.batch - 1].mass - 1].error = phrase
            error_result(s, s.result[0], phrase)
            if pending.python == 0:
                finish(s, h, pending)
                pending.python = 1
            while pending.first_wait:
                if is_full(s, h):
                    return 1
                wait = s.waits[pending.first_wait - 1]
                pending.first_wait = wait.next
                finish(s, h, as_asker(s, wait))
            drop_pending(s, row + 1)
    return 0
