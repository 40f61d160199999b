"""Whole messages with their frames: private events, replies, replies to batches.

Compiled on its own and called through its address. numba compiles what a function calls into it, once more at every level
of callers, and of all that the gateway compiles the writing of messages is the largest part.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic

from engine.kernel import FLAGS, JIT, cached_beside, inlined, kernel
from engine.types import EventKind
from gateway.fast.pointers import TABLES, tables_at
from gateway.fast.tables import ITEMS, MASS_LADDERS, VALUES
from gateway.fast.templates import ACT, ASEQ, CUM, ID, KEPT, LEFT, NUMBER, OID, T_IN, T_OUT, WORD, Hole, Outcome
from gateway.fast.write import HEADER, JSON, framed, put, put_amount, put_big, put_digits, put_end, put_literal

ORDER, ERROR, FUNDS, FROZEN = int(Outcome.ORDER), int(Outcome.ERROR), int(Outcome.FUNDS), int(Outcome.FROZEN)
# Numbers of numpy's: numba compiles a function anew for each plain constant that it is called with.
REPLY, REPLY_ERROR = np.int64(NUMBER["reply"]), np.int64(NUMBER["reply_error"])
DUPLICATE, AGAIN = int(EventKind.DUPLICATE), NUMBER["reply_dup"] - NUMBER["reply"]
ITEM, ITEM_ERROR = np.int64(NUMBER["item"]), np.int64(NUMBER["item_error"])
REPLY_FROZEN, ITEM_FROZEN = NUMBER["reply_frozen"], NUMBER["item_frozen"]
LEVEL_FROZEN = np.int64(NUMBER["level_frozen"])
BATCH_REPLY, ITEMS_HOLE, NO_HOLE = NUMBER["batch"], np.int64(Hole.ITEMS), np.int64(99)
MASS_REPLY, LADDER, NO_LEVEL = NUMBER["mass"], np.int64(NUMBER["ladder"]), np.int64(NUMBER["level_none"])
LEVEL, LEVEL_ERROR = np.int64(NUMBER["level_0"]), np.int64(NUMBER["level_error"])
NEW, QUOTE_KEPT, REPLACED = int(EventKind.NEW), int(EventKind.QUOTE_KEPT), int(EventKind.REPLACED)
COMMA = 0x2C
RECORD_MESSAGE, RECORD_FRAME, REPLY_FRAME, BATCH_FRAME, MASS_FRAME = range(5)


@kernel
def put_record(s, at, row, wire):
    """A private event as a message."""
    record = s.records[row]
    for k in range(VALUES):
        s.holes[k] = s.values[row, k]
    s.texts[0, 0] = record.c0
    s.texts[0, 1] = record.c1
    s.texts[0, 2] = record.c2
    s.texts[0, 3] = record.c3
    s.texts[0, 4] = record.c4
    for k in range(5):
        s.texts[1, k] = s.symbols[record.symbol, k]
    return put(s, at, record.template, wire, NO_HOLE)


@kernel
def put_phrase_text(s, at, number):
    """A phrase that is a string, without its quotes."""
    return put_literal(s, at, s.phrases[number, 0] + 1, s.phrases[number, 1] - 2)


@kernel
def compose(s, h, at, result):
    """The sentence of an error that has a number in it: into `scratch`; its length. s.out from `at` is used on the way."""
    start = at
    if result.outcome == FUNDS:
        at = put_phrase_text(s, at, h.phrase_funds)
        at = put_amount(s, at, result.cum)
        at = put_phrase_text(s, at, h.phrase_funds + 1)
    else:
        at = put_phrase_text(s, at, h.phrase_funds + 2)
        at = put_digits(s, at, result.oid)
        at = put_phrase_text(s, at, h.phrase_funds + 3)
        at = put_phrase_text(s, at, result.word)
    for k in range(at - start):
        s.scratch[k] = s.out[start + k]
    return at - start


@kernel
def put_result(s, h, at, result, order_template, error_template, wire):
    """A reply or an item; the holes of the request itself are filled in already."""
    s.holes[ASEQ] = result.aseq
    s.holes[OID] = result.oid
    s.holes[LEFT] = result.left
    s.holes[CUM] = result.cum
    s.holes[WORD] = result.word
    s.holes[KEPT] = result.kept
    if result.outcome == ORDER:
        s.texts[0, 0] = result.c0
        s.texts[0, 1] = result.c1
        s.texts[0, 2] = result.c2
        s.texts[0, 3] = result.c3
        s.texts[0, 4] = result.c4
        template = order_template + result.has_kept + (2 if result.aseq else 0)
        if result.act == DUPLICATE:
            template = order_template + AGAIN
        return put(s, at, template, wire, NO_HOLE)
    if result.outcome == FROZEN:
        s.holes[WORD] = h.phrase_frozen
        return put(s, at, REPLY_FROZEN if error_template == REPLY_ERROR else ITEM_FROZEN, wire, NO_HOLE)
    if result.outcome != ERROR:
        s.holes[WORD] = compose(s, h, at, result)
    return put(s, at, error_template + result.outcome - 1, wire, NO_HOLE)


@inlined
def put_list_head(s, at, count, wire):
    if wire == JSON:
        s.out[at] = 0x5B  # [
        return at + 1
    if count < 16:
        s.out[at] = 0x90 | count
        return at + 1
    s.out[at] = 0xDC
    return put_big(s, at + 1, count, 2)


@inlined
def put_list_end(s, at, wire):
    if wire != JSON:
        return at
    s.out[at] = 0x5D  # ]
    return at + 1


@kernel
def put_items(s, h, at, batch_at, wire):
    batch = s.batches[batch_at]
    at = put_list_head(s, at, batch.items, wire)
    for k in range(batch.items):
        if k and wire == JSON:
            s.out[at] = COMMA
            at += 1
        at = put_result(s, h, at, s.results[batch_at * ITEMS + k], ITEM, ITEM_ERROR, wire)
    return put_list_end(s, at, wire)


@kernel
def put_batch(s, h, at, batch_at, wire):
    batch = s.batches[batch_at]
    first_aseq = 0
    for k in range(batch.items):
        aseq = s.results[batch_at * ITEMS + k].aseq
        if aseq and (first_aseq == 0 or aseq < first_aseq):
            first_aseq = aseq
    s.holes[ID] = batch.request
    s.holes[T_IN] = batch.t_in
    s.holes[T_OUT] = h.t_out
    s.holes[ASEQ] = first_aseq
    template = BATCH_REPLY + (1 if first_aseq else 0)
    at = put(s, at, template, wire, ITEMS_HOLE)
    at = put_items(s, h, at, batch_at, wire)
    return put_end(s, at, template, wire)


# --- Mass quotes ------------------------------------------------------------------------------------------------------


@kernel
def put_level(s, h, at, result, wire):
    """What became of a level."""
    s.holes[WORD] = result.word
    if result.outcome == FROZEN:
        s.holes[WORD] = h.phrase_frozen
        s.holes[CUM] = result.cum
        return put(s, at, LEVEL_FROZEN, wire, NO_HOLE)
    if result.outcome != ORDER:
        if result.outcome != ERROR:
            s.holes[WORD] = compose(s, h, at, result)
        return put(s, at, LEVEL_ERROR + result.outcome - 1, wire, NO_HOLE)
    if result.oid == 0:
        return put(s, at, NO_LEVEL, wire, NO_HOLE)
    act = 0 if result.act == NEW else 1 if result.act == QUOTE_KEPT else 2 if result.act == REPLACED else 3
    s.holes[ACT] = h.phrase_act + act
    s.holes[OID] = result.oid
    s.holes[LEFT] = result.left
    s.holes[CUM] = result.cum
    s.holes[KEPT] = result.kept
    shown = result.has_kept | (2 if result.left else 0) | (4 if result.cum else 0)
    return put(s, at, LEVEL + shown, wire, NO_HOLE)


@kernel
def put_levels(s, h, at, batch_at, item, count, wire):
    """A side of a ladder: `count` results from an item of a batch on, and then in those that follow it."""
    at = put_list_head(s, at, count, wire)
    for k in range(count):
        if k and wire == JSON:
            s.out[at] = COMMA
            at += 1
        if item == ITEMS:
            batch_at = s.batches[batch_at - 1].next
            item = 0
        at = put_level(s, h, at, s.results[(batch_at - 1) * ITEMS + item], wire)
        item += 1
    return put_list_end(s, at, wire)


@kernel
def put_ladders(s, h, at, mass_at, wire):
    mass = s.masses[mass_at]
    at = put_list_head(s, at, mass.ladders, wire)
    row = 0
    batch_at = mass.first_batch
    for k in range(mass.ladders):
        if k and wire == JSON:
            s.out[at] = COMMA
            at += 1
        ladder = s.mass_ladders[mass_at * MASS_LADDERS + k]
        for word in range(5):
            s.texts[1, word] = s.symbols[ladder.symbol, word]
        at = put(s, at, LADDER, wire, ITEMS_HOLE)
        at = put_levels(s, h, at, batch_at, row % ITEMS, ladder.bids, wire)
        for _ in range((row % ITEMS + ladder.bids) // ITEMS):
            batch_at = s.batches[batch_at - 1].next
        row += ladder.bids
        # Behind the first list: the name of the second.
        between = s.ops[s.templates[LADDER, wire] + 2]
        at = put_literal(s, at, between.literal, between.size)
        at = put_levels(s, h, at, batch_at, row % ITEMS, ladder.asks, wire)
        for _ in range((row % ITEMS + ladder.asks) // ITEMS):
            batch_at = s.batches[batch_at - 1].next
        row += ladder.asks
        at = put_end(s, at, LADDER, wire)
    return put_list_end(s, at, wire)


@kernel
def put_mass(s, h, at, mass_at, wire):
    """The answer to a mass quote."""
    mass = s.masses[mass_at]
    rows = 0
    for k in range(mass.ladders):
        ladder = s.mass_ladders[mass_at * MASS_LADDERS + k]
        rows += ladder.bids + ladder.asks
    first_aseq = 0
    batch_at = mass.first_batch
    for row in range(rows):
        if row and row % ITEMS == 0:
            batch_at = s.batches[batch_at - 1].next
        aseq = s.results[(batch_at - 1) * ITEMS + row % ITEMS].aseq
        if aseq and (first_aseq == 0 or aseq < first_aseq):
            first_aseq = aseq
    s.holes[ID] = mass.request
    s.holes[T_IN] = mass.t_in
    s.holes[T_OUT] = h.t_out
    s.holes[ASEQ] = first_aseq
    template = MASS_REPLY + (1 if first_aseq else 0)
    at = put(s, at, template, wire, ITEMS_HOLE)
    at = put_ladders(s, h, at, mass_at, wire)
    return put_end(s, at, template, wire)


@kernel
def compose_message(s, what, start, subject, wire):
    """Write a message at s.out[start]; where it ends. `subject`: the row of a record, a batch or a mass quote.

    The reply to one request is in s.result, the request's own holes are filled in.
    """
    h = s.head[0]
    if what == RECORD_MESSAGE:
        return put_record(s, start, subject, wire)
    at = start + HEADER
    if what == RECORD_FRAME:
        at = put_record(s, at, subject, wire)
    elif what == REPLY_FRAME:
        at = put_result(s, h, at, s.result[0], REPLY, REPLY_ERROR, wire)
    elif what == BATCH_FRAME:
        at = put_batch(s, h, at, subject, wire)
    else:
        at = put_mass(s, h, at, subject, wire)
    return framed(s, start, at, wire)


def _entry(address, what, start, subject, wire):
    return compose_message(tables_at(address), what, start, subject, wire)


def composer() -> int:
    """The address of the compiled `compose_message`; it is compiled, or loaded, at the first call."""
    if not JIT:
        return 0
    if not _compiled:
        with cached_beside(__file__):
            _compiled.append(cfunc(types.int64(*[types.int64] * 5), **FLAGS, cache=True)(_entry))
    return int(_compiled[0].address)


_compiled: list[Any] = []


if JIT:

    @intrinsic
    def _jump(typingctx: Any, address: Any, s: Any, what: Any, start: Any, subject: Any, wire: Any) -> Any:
        """Call `_entry` at an address."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(64)
            kind = ir.FunctionType(word, [word] * 5)
            target = builder.inttoptr(args[0], kind.as_pointer())
            return builder.call(target, [builder.ptrtoint(args[1], word), *args[2:]])

        return types.int64(types.int64, TABLES, types.int64, types.int64, types.int64, types.int64), generate

    @kernel
    def message(s, what, start, subject, wire):
        """`compose_message`, through its address."""
        return _jump(s.head[0].composer, s, what, start, subject, wire)
else:
    message = compose_message
