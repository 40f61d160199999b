"""What must hold is seen not to hold: each kind of damage to a good state, one field at a time, is found by name."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from engine.engine import Engine
from engine.invariants import InvariantError, check
from engine.state import GATHERS, ICEBERG, LOCKED, NIL, NO_KEY, ONE_ORDER, QUOTED, WAITING, Memory
from engine.types import Status
from tests.both import LIMITS
from tests.tables import Table

SCENE = """
    list Y
    list Z
    buy A 5 @ 2600 as plain
    buy B 4 @ 2600
    buy A 3 @ 2500
    sell C 9 @ 2700 show 4 as iceberg
    sell C 2 @ 2650 reduce as none       -> rejected RISK_LIMIT
    sell D 2 @ 2710
    buy D 2 @ 2690
    buy A 2 @ 2800 stop 2750 as stop
    sell C 1 @ 2690
    quote B buy 1 @ 2400 group 3 as quote
    quote B buy 1 @ 2401 group 3 level 1
    quote B sell 1 @ 2900 group 3
    mmp B group 3 lots 50 fills 5 window 99
    cancel_after A tag 1 till 900
    cancel_after A tag 2 till 900
    issue D A 7
    issue D B 3
    buy A 1 @ 2300 cid 9
    cancel plain
    buy A 5 @ 2600
    buy A 1 @ 2200 as dead
    cancel dead
    close Z
"""


@cache
def scene() -> bytes:
    table = Table(Engine(LIMITS))
    table.run(SCENE)
    return table.exchange.to_bytes()


def damaged(change: Callable[[Memory], None]) -> str:
    """What is found after a change."""
    memory = Engine.from_bytes(scene(), LIMITS).memory
    check(memory)
    change(memory)
    with pytest.raises(InvariantError) as found:
        check(memory)
    return str(found.value)


def flagged(memory: Memory, flag: int) -> int:
    """The slot of a working order that has a flag; of one without any for 0."""
    orders = memory.arrays["orders"]
    fits = orders["flags"] & flag != 0 if flag else orders["flags"] == 0
    return int(np.flatnonzero((orders["leaves_qty"] > 0) & fits)[0])


def put(name: str, slot: int | Callable[[Memory], int], **fields: Any) -> Callable[[Memory], None]:
    """Set, or with a tuple add to, fields of a record."""

    def change(memory: Memory) -> None:
        row = memory.arrays[name][slot(memory) if callable(slot) else slot]
        for field, value in fields.items():
            row[field] = row[field] + value[0] if isinstance(value, tuple) else value

    return change


def order_with(flag: int) -> Callable[[Memory], int]:
    return lambda memory: flagged(memory, flag)


def dead_order(memory: Memory) -> int:
    used = int(memory.header["orders_used"])
    return int(np.flatnonzero(memory.arrays["orders"]["leaves_qty"][:used] == 0)[0])


def level_of(memory: Memory) -> int:
    return int(memory.arrays["orders"]["level"][flagged(memory, 0)])


def leaf_of(memory: Memory) -> int:
    return level_of(memory) // 64


def node_of(memory: Memory) -> int:
    return int(memory.arrays["leaf_nodes"][leaf_of(memory)])


def in_array(name: str, slot: Callable[[Memory], int], change: Callable[[int], int]) -> Callable[[Memory], None]:
    def do(memory: Memory) -> None:
        array = memory.arrays[name]
        array[slot(memory)] = change(int(array[slot(memory)]))

    return do


def short_position(memory: Memory) -> int:
    return int(np.flatnonzero(memory.arrays["positions"]["net_lots"] < 0)[0])


def long_position(memory: Memory) -> int:
    return int(np.flatnonzero(memory.arrays["positions"]["net_lots"] > 0)[0])


def closed_book(memory: Memory) -> int:
    return int(np.flatnonzero(memory.arrays["books"]["status"] == Status.CLOSED)[0])


def first_share(memory: Memory) -> int:
    return int(memory.arrays["accounts"]["first_share"].max())


CASES: dict[str, tuple[Callable[[Memory], None], str]] = {
    "a queue's tail": (put("levels", level_of, tail=NIL), "the tail is not the youngest"),
    "a level's head": (put("levels", level_of, head=NIL), "bit .* is wrong"),
    "a level's lots": (put("levels", level_of, qty=(1,)), "level .* lots, orders"),
    "a link back": (put("orders", order_with(0), prev=77), "not linked back"),
    "an order's price": (put("orders", order_with(0), price=(1,)), "at the wrong price"),
    "an order's side": (put("orders", order_with(0), side_index=5), "on the wrong side"),
    "an order's level": (put("orders", order_with(0), level=(1,)), "does not know its level"),
    "an order's id": (put("orders", order_with(0), order_id=(1,)), "its id has another slot"),
    "an order's fills": (put("orders", order_with(0), cum_qty=-1), "leaves"),
    "an order's position": (put("orders", order_with(0), position=(1,)), "another's position"),
    "an order's hold": (put("orders", order_with(0), held_micros=(1,)), "reserves .*, not"),
    "an order that waits in a book": (put("orders", order_with(0), flags=WAITING), "waits in a book"),
    "a leaf's bits": (in_array("leaves", leaf_of, lambda word: word ^ 1), "bit 0 is wrong"),
    "a node's bits": (in_array("nodes", node_of, lambda word: word ^ 1), "bit 0 is wrong"),
    "a leaf's node": (in_array("leaf_nodes", leaf_of, lambda node: node + 1), "its node is not"),
    "the best key": (put("sides", 2, best_key=(1,)), "best is not"),
    "the best level": (put("sides", 2, best_level=(1,)), "the best level is not"),
    "a best of nothing": (put("sides", 4, best_key=3), "empty, but has a best key"),
    "no best": (put("sides", 2, best_key=NO_KEY), "best is not"),
    "a stop that is due": (put("books", 1, last_price=2_790), "a stop on side 0 is due"),
    "a closed book": (put("books", 1, status=Status.CLOSED), "closed, but has orders"),
    "the stops' number": (put("triggers", 2, orders=(1,)), "counts .* stops, has"),
    "the number of orders": (put("header", 0, open_orders=(1,)), "counts .* open orders, has"),
    "an order in no queue": (put("orders", dead_order, leaves_qty=1), "are alive in no queue"),
    "a position's open lots": (put("positions", long_position, open_buy_lots=(1,)), "open_buy_lots"),
    "a bond below zero": (put("positions", long_position, bond_micros=-1), "bond_micros -1"),
    "fees beyond the escrow": (put("positions", short_position, fees_due_micros=10**12), "more fees due than escrow"),
    "an escrow without a short": (put("positions", long_position, escrow_micros=1), "an escrow without a short"),
    "too large a position": (put("positions", long_position, net_lots=2_000_000_000), "net 2000000000"),
    "more to sell than there is": (
        put("positions", short_position, capacity_lots=0),
        "may sell more than it can deliver",
    ),
    "the number of positions": (put("header", 0, positions_live=(1,)), "counts .* positions, has"),
    "nets that do not cancel out": (put("positions", long_position, net_lots=(1,)), "the nets sum to 1"),
    "cash below zero": (put("accounts", 1, cash_micros=-1), "cash_micros -1"),
    "what is held": (put("accounts", 1, held_micros=(1,)), "held .*, orders"),
    "an account's orders": (put("accounts", 1, open_orders=(1,)), "counts .* open orders"),
    "money from nowhere": (put("accounts", 1, cash_micros=(1,)), "deposits less withdrawals"),
    "fees below zero": (put("header", 0, house_fees_micros=(-(10**9),), deposits_micros=(-(10**9),)), "house fees"),
    "holders out of order": (put("shares", first_share, holder=63), "out of order"),
    "no shares": (put("shares", first_share, lots=0), "has 0 shares"),
    "too many shares": (put("shares", first_share, lots=1_000_000_001), "shares"),
    "a holder of nothing": (put("accounts", 4, first_share=NIL), "holders of shares are in no pool"),
    "a free slot never used": (put("header", 0, orders_free=3_000), "was never used"),
    "a locked account's order": (put("accounts", 1, special=(LOCKED,)), "works for a locked account"),
    "reduces, and does not": (put("orders", order_with(QUOTED), flags=(8,)), "flags"),
    "special without terms": (put("orders", order_with(0), flags=ICEBERG), "without terms"),
    "a group": (put("terms", order_with(QUOTED), group=0), "group 0"),
    "what an iceberg shows at a time": (put("terms", order_with(ICEBERG), show_qty=0), "shows 0"),
    "a quote's level": (put("terms", order_with(QUOTED), quote_level=NIL), ": -1"),
    "what an iceberg shows": (put("terms", order_with(ICEBERG), shown_qty=5), "shows 5"),
    "an iceberg that shows nothing": (put("terms", order_with(ICEBERG), shown_qty=0), "shows 0"),
    "the number of special orders": (put("header", 0, special_orders=(1,)), "counts .* special orders"),
    "a book's special orders": (put("books", 2, special=(ONE_ORDER,)), "counts 1 special orders"),
    "the halt": (put("header", 0, halted=1), "does not know of the halt"),
    "a book's status": (put("books", 2, status=Status.AUCTION), "does not know of its status"),
    "lots that wait": (put("triggers", 2, lots=(1,)), "lots wait"),
    "refreshes": (put("triggers", 3, refreshes=(1,)), "refreshes, not"),
    "a quote of another": (put("terms", order_with(QUOTED), prev_quote=77), "not linked back"),
    "the number of quotes": (put("positions", 1, quotes=(1,)), "counts .* quotes"),
    "a timer of another": (put("timers", 0, account=2), "of another account"),
    "two timers of a tag": (put("timers", 0, tag=2), "timers of the tags"),
    "the number of timers": (put("controls", 1, timers=(1,)), "timers of the tags"),
    "timers in no list": (put("controls", 1, timers=0, first_timer=NIL), "timers are in no account's list"),
    "a group at its limit": (put("groups", 0, fills=5), "at its limit"),
    "a table with a hole": (lambda memory: memory.arrays["index"].fill(NIL), "the table holds other slots"),
}


@pytest.mark.parametrize("name", CASES)
def test_damage_is_found(name: str) -> None:
    change, words = CASES[name]
    found = damaged(change)
    assert re.search(words, found), found


def test_a_crossed_book_is_found() -> None:
    table = Table(Engine(LIMITS))
    table.run("""
        status X auction
        buy A 1 @ 2600
        sell B 1 @ 2600
    """)
    check(table.exchange.memory)
    book = table.exchange.memory.arrays["books"][1]
    book["status"], book["special"] = Status.CONTINUOUS, book["special"] & ~GATHERS
    with pytest.raises(InvariantError, match="bid 2600 and offer 2600"):
        check(table.exchange.memory)
