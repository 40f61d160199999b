"""What must hold of special orders and of the tables beside the books; see engine/invariants.py, which runs it."""

from collections import Counter

import numpy as np

from engine.must import must
from engine.state import (
    FIRST_SPECIAL,
    GATHERS,
    GROUPED,
    HALTED,
    HAS_TERMS,
    ICEBERG,
    INDEXES,
    LOCKED,
    NIL,
    ONE_ORDER,
    QUOTED,
    REDUCES,
    WAITING,
    Memory,
)
from engine.types import Flag, Status


def check_special(memory: Memory) -> None:
    """Raise InvariantError where special orders, quotes, timers, protections or client order ids contradict themselves."""
    working = _working(memory)
    _check_flags(memory, working)
    _check_icebergs(memory, working)
    _check_books(memory, working)
    _check_quotes(memory, working)
    _check_timers(memory)
    _check_groups(memory)
    _check_indexes(memory)


def _working(memory: Memory) -> list[int]:
    orders = memory.arrays["orders"][: memory.header["orders_used"]]
    return np.flatnonzero(orders["leaves_qty"] > 0).tolist()


def _check_flags(memory: Memory, working: list[int]) -> None:
    for slot in working:
        order, terms = memory.arrays["orders"][slot], memory.arrays["terms"][slot]
        flags = int(order["flags"])
        account = memory.arrays["accounts"][order["account"]]
        must(not account["special"] & LOCKED, "slot {}: works for a locked account", slot)
        must(bool(flags & REDUCES) == bool(flags & Flag.REDUCE_ONLY), "slot {}: flags {:#x}", slot, flags)
        if flags & (ICEBERG | GROUPED | WAITING | QUOTED):
            must(flags & HAS_TERMS, "slot {}: flags {:#x} without terms", slot, flags)
        if flags & HAS_TERMS:
            must(bool(flags & GROUPED) == (terms["group"] != 0), "slot {}: group {}", slot, terms["group"])
            must(bool(flags & ICEBERG) == (terms["show_qty"] != 0), "slot {}: shows {}", slot, terms["show_qty"])
            must(bool(flags & QUOTED) == (terms["quote_level"] != NIL), "slot {}: {}", slot, terms["quote_level"])


def _check_icebergs(memory: Memory, working: list[int]) -> None:
    for slot in working:
        order, terms = memory.arrays["orders"][slot], memory.arrays["terms"][slot]
        if int(order["flags"]) & ICEBERG:
            most = 0 if int(order["flags"]) & WAITING else min(int(terms["show_qty"]), int(order["leaves_qty"]))
            least = 0 if int(order["flags"]) & WAITING else 1
            must(least <= terms["shown_qty"] <= most, "slot {}: shows {}", slot, terms["shown_qty"])


def _check_books(memory: Memory, working: list[int]) -> None:
    """The counters of special orders, waiting lots and refreshes are the sums over the orders."""
    arrays, header = memory.arrays, memory.header
    special: Counter[int] = Counter()
    lots: Counter[int] = Counter()
    refreshes: Counter[int] = Counter()
    for slot in working:
        order, terms = arrays["orders"][slot], arrays["terms"][slot]
        side_index, flags = int(order["side_index"]), int(order["flags"])
        special[side_index >> 1] += flags >= FIRST_SPECIAL
        if flags & WAITING:
            lots[side_index] += int(order["leaves_qty"])
        if flags & ICEBERG:
            hidden = int(order["leaves_qty"]) - int(terms["shown_qty"])
            refreshes[side_index] += -(-hidden // int(terms["show_qty"]))
    must(header["special_orders"] == special.total(), "counts {} special orders", header["special_orders"])
    for number in range(1, int(header["instruments_used"])):
        book = arrays["books"][number]
        if book["status"] == Status.NONE:
            continue
        counted = int(book["special"]) // ONE_ORDER
        must(counted == special[number], "instrument {}: counts {} special orders", number, counted)
        halted, gathers = bool(book["special"] & HALTED), bool(book["special"] & GATHERS)
        must(halted == bool(header["halted"]), "instrument {}: does not know of the halt", number)
        if book["status"] != Status.CLOSED:
            closed = book["status"] != Status.CONTINUOUS
            must(gathers == closed, "instrument {}: does not know of its status {}", number, book["status"])
        for side_index in (2 * number, 2 * number + 1):
            trigger = arrays["triggers"][side_index]
            must(trigger["lots"] == lots[side_index], "side {}: {} lots wait", side_index, trigger["lots"])
            seen = int(trigger["refreshes"])
            must(
                seen == refreshes[side_index], "side {}: {} refreshes, not {}", side_index, seen, refreshes[side_index]
            )


def _check_quotes(memory: Memory, working: list[int]) -> None:
    arrays = memory.arrays
    quoted = {slot for slot in working if int(arrays["orders"][slot]["flags"]) & QUOTED}
    listed: set[int] = set()
    keys = set()
    for place, position in enumerate(arrays["positions"][: memory.header["positions_used"]]):
        before, slot, count = NIL, int(position["first_quote"]), 0
        while slot != NIL:
            order, terms = arrays["orders"][slot], arrays["terms"][slot]
            must(slot in quoted and order["position"] == place, "slot {}: a quote of another position", slot)
            must(terms["prev_quote"] == before, "slot {}: the quotes are not linked back", slot)
            key = (place, int(terms["group"]), int(order["side_index"]), int(terms["quote_level"]))
            must(key not in keys, "slot {}: the quote {} stands twice", slot, key)
            keys.add(key)
            listed.add(slot)
            count += 1
            before, slot = slot, int(terms["next_quote"])
        must(position["quotes"] == count, "position {}: counts {} quotes", place, position["quotes"])
    must(listed == quoted, "quotes {} are in no list", quoted - listed)


def _check_timers(memory: Memory) -> None:
    arrays, header = memory.arrays, memory.header
    live = int((arrays["timers"]["account"][: header["timers_used"]] != 0).sum())
    for number, account in enumerate(arrays["controls"][: header["accounts_used"]]):
        slot, tags = int(account["first_timer"]), []
        while slot != NIL:
            timer = arrays["timers"][slot]
            must(timer["account"] == number, "timer {}: of another account", slot)
            tags.append(int(timer["tag"]))
            slot = int(timer["next"])
        must(len(tags) == len(set(tags)) == account["timers"], "account {}: timers of the tags {}", number, tags)
        live -= len(tags)
    must(live == 0, "{} timers are in no account's list", live)


def _check_groups(memory: Memory) -> None:
    for slot, row in enumerate(memory.arrays["groups"][: memory.header["groups_used"]]):
        if row["account"]:
            must(row["fills"] < row["max_fills"] and row["lots"] < row["max_lots"], "group {}: at its limit", slot)


def _check_indexes(memory: Memory) -> None:
    """Each live slot is in its table, once, and nothing else is; that it is found there, tests show."""
    for pool, index in INDEXES.items():
        rows = memory.arrays[pool][: memory.header[f"{pool}_used"]]
        live = np.flatnonzero(rows["account"] != 0).tolist()
        entered = sorted(memory.arrays[index][memory.arrays[index] != NIL].tolist())
        must(entered == live, "{}: the table holds other slots than are live", pool)
