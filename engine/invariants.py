"""What must hold after every command, as code. Run after every command in tests, on every recovery, and by the audit.

`check` reads the arrays themselves, links and bits included, so it also finds damage that no query would show yet. It is
slow and obvious: linear in the state, in plain Python.
"""

from collections import Counter
from typing import Any

from engine.dump import levels, listed, price_at, stop_levels
from engine.must import InvariantError, must
from engine.special_invariants import check_special
from engine.state import NIL, NO_KEY, WAITING, Memory
from engine.types import MAX_POSITION_LOTS, MAX_SHARES, Side, Status

MILLION = 1_000_000
__all__ = ["InvariantError", "check"]


def check(memory: Memory) -> None:
    """Raise InvariantError where the state contradicts itself."""
    totals = _Totals()
    for instrument in listed(memory):
        for side in Side:
            _check_side(memory, "sides", 2 * instrument + side, totals)
            _check_side(memory, "triggers", 2 * instrument + side, totals)
        _check_book(memory, instrument)
    _check_orders(memory, totals)
    _check_positions(memory, totals)
    _check_accounts(memory, totals)
    _check_conservation(memory)
    _check_shares(memory)
    _check_free_lists(memory)
    check_special(memory)


class _Totals:
    """What the books say each account and position should have."""

    def __init__(self) -> None:
        self.slots: set[int] = set()
        self.held: Counter[int] = Counter()
        self.open_orders: Counter[int] = Counter()
        self.lots: Counter[tuple[int, int]] = Counter()  # (position, side) -> open lots


def _check_side(memory: Memory, kind: str, side_index: int, totals: _Totals) -> None:
    """Of a book (kind "sides"), or of its stops ("triggers"), whose levels are stop prices."""
    arrays = memory.arrays
    side, is_book = arrays[kind][side_index], kind == "sides"
    orders_seen, best = 0, None
    _check_bits(memory, int(side["root"]), side_index)
    for price, level_number in levels(memory, side_index) if is_book else stop_levels(memory, side_index):
        best = best if best is not None else (price, level_number)
        level = arrays["levels"][level_number]
        qty, slot, before = 0, int(level["head"]), NIL
        must(slot != NIL, "side {} price {}: a bit is set for an empty level", side_index, price)
        while slot != NIL:
            order = arrays["orders"][slot]
            at_price = order["price"] if is_book else arrays["terms"][slot]["stop_price"]
            must(at_price == price, "order in slot {}: at the wrong price", slot)
            must(bool(order["flags"] & WAITING) != is_book, "order in slot {}: waits in a book, or the reverse", slot)
            _check_order(memory, slot, order, side_index, level_number, before, totals)
            qty += int(order["leaves_qty"])
            orders_seen += 1
            before, slot = slot, int(order["next"])
        must(level["tail"] == before, "side {} price {}: the tail is not the youngest order", side_index, price)
        must(level["qty"] == qty, "side {} price {}: level {} lots, orders {}", side_index, price, level["qty"], qty)
    must(is_book or side["orders"] == orders_seen, "side {}: counts {} stops, has {}", side_index, side, orders_seen)
    if best is None:
        must(side["best_key"] == NO_KEY, "side {}: empty, but has a best key", side_index)
    else:
        best_key = price_at(side_index if is_book else side_index ^ 1, best[0])
        must(side["best_key"] == best_key, "side {}: best is not {}", side_index, best[0])
        must(side["best_level"] == best[1], "side {}: the best level is not where the trie has it", side_index)


def _check_bits(memory: Memory, root: int, side_index: int) -> None:
    arrays = memory.arrays
    if root == NIL:
        return
    for high, mid in enumerate(arrays["children"][root].tolist()):
        is_set = bool(int(arrays["nodes"][root]) >> high & 1)
        must(is_set == (mid != NIL and arrays["nodes"][mid] != 0), "side {}: root bit {} is wrong", side_index, high)
        if mid == NIL:
            continue
        for middle, leaf in enumerate(arrays["children"][mid].tolist()):
            is_set = bool(int(arrays["nodes"][mid]) >> middle & 1)
            must(
                is_set == (leaf != NIL and arrays["leaves"][leaf] != 0),
                "side {}: node bit {} is wrong",
                side_index,
                middle,
            )
            if leaf != NIL:
                must(arrays["leaf_nodes"][leaf] == mid, "leaf {}: its node is not {}", leaf, mid)
                _check_leaf(memory, leaf)


def _check_leaf(memory: Memory, leaf: int) -> None:
    heads = memory.arrays["levels"]["head"][64 * leaf : 64 * leaf + 64].tolist()
    for low, head in enumerate(heads):
        is_set = bool(int(memory.arrays["leaves"][leaf]) >> low & 1)
        must(is_set == (head != NIL), "leaf {}: bit {} is wrong", leaf, low)


def _check_order(  # noqa: PLR0913, PLR0917 - all that the walk has at hand
    memory: Memory, slot: int, order: Any, side_index: int, level: int, before: int, totals: _Totals
) -> None:
    where = f"order {int(order['order_id'])} in slot {slot}"
    must(slot not in totals.slots, "{}: in two queues", where)
    totals.slots.add(slot)
    must(order["prev"] == before, "{}: not linked back", where)
    must(order["side_index"] == side_index, "{}: on the wrong side", where)
    must(order["level"] == level, "{}: does not know its level", where)
    must(order["order_id"] & 0xFFFFFF == slot, "{}: its id has another slot", where)
    must(order["leaves_qty"] > 0 and order["cum_qty"] >= 0, "{}: leaves {}", where, order["leaves_qty"])
    account = int(order["account"])
    position = memory.arrays["positions"][order["position"]]
    must(position["account"] == account and position["instrument"] == side_index >> 1, "{}: another's position", where)
    is_buy = side_index & 1 == Side.BUY
    expected = hold_micros(memory, side_index >> 1, int(order["price"]), int(order["leaves_qty"])) if is_buy else 0
    must(order["held_micros"] == expected, "{}: reserves {}, not {}", where, order["held_micros"], expected)
    totals.held[account] += int(order["held_micros"])
    totals.open_orders[account] += 1
    totals.lots[int(order["position"]), side_index & 1] += int(order["leaves_qty"])


def hold_micros(memory: Memory, instrument: int, price: int, qty: int) -> int:
    """What a buy order must reserve, in unbounded integers."""
    book = memory.arrays["books"][instrument]
    notional = price * int(book["lot_tick_micros"]) * qty
    return notional - (-notional * int(book["taker_fee_ppm"]) // MILLION) + qty


def _check_book(memory: Memory, instrument: int) -> None:
    book = memory.arrays["books"][instrument]
    bid, ask = (int(memory.arrays["sides"][2 * instrument + side]["best_key"]) for side in Side)
    if book["status"] == Status.CONTINUOUS and NO_KEY not in (bid, ask):
        best_bid = price_at(Side.BUY, bid)
        must(best_bid < ask, "instrument {}: bid {} and offer {}", instrument, best_bid, ask)
    if book["status"] == Status.CONTINUOUS and book["last_price"] != NIL:
        for side in Side:
            due = memory.arrays["triggers"][2 * instrument + side]["best_key"]
            last = price_at(side ^ 1, int(book["last_price"]))
            must(due > last, "instrument {}: a stop on side {} is due", instrument, side)
    if book["status"] == Status.CLOSED:
        stops = [memory.arrays["triggers"][2 * instrument + side]["orders"] for side in Side]
        must(bid == ask == NO_KEY and not any(stops), "instrument {}: closed, but has orders", instrument)


def _check_orders(memory: Memory, totals: _Totals) -> None:
    used = memory.arrays["orders"][: memory.header["orders_used"]]
    alive = set((used["leaves_qty"] > 0).nonzero()[0].tolist())
    must(alive == totals.slots, "orders {} are alive in no queue, or the reverse", alive ^ totals.slots)
    must(
        memory.header["open_orders"] == len(alive),
        "counts {} open orders, has {}",
        memory.header["open_orders"],
        len(alive),
    )


def _check_positions(memory: Memory, totals: _Totals) -> None:
    nets: Counter[int] = Counter()
    live = 0
    books = memory.arrays["books"]
    for slot, row in enumerate(memory.arrays["positions"][: memory.header["positions_used"]]):
        if row["account"] == 0:
            continue
        live += 1
        where = f"position of account {int(row['account'])} in instrument {int(row['instrument'])}"
        net, capacity = int(row["net_lots"]), int(row["capacity_lots"])
        nets[int(row["instrument"])] += net
        for side, field in ((Side.BUY, "open_buy_lots"), (Side.SELL, "open_sell_lots")):
            must(
                row[field] == totals.lots[slot, side],
                "{}: {} {}, not {}",
                where,
                field,
                row[field],
                totals.lots[slot, side],
            )
        for field in ("escrow_micros", "fees_due_micros", "bond_micros", "capacity_lots"):
            must(row[field] >= 0, "{}: {} {}", where, field, row[field])
        must(row["fees_due_micros"] <= row["escrow_micros"], "{}: more fees due than escrow", where)
        must(net < 0 or row["escrow_micros"] == 0, "{}: an escrow without a short", where)
        must(-MAX_POSITION_LOTS <= net <= MAX_POSITION_LOTS, "{}: net {}", where, net)
        if books[row["instrument"]]["status"] != Status.CLOSED:
            must(net + capacity >= row["open_sell_lots"], "{}: may sell more than it can deliver", where)
    must(memory.header["positions_live"] == live, "counts {} positions, has {}", memory.header["positions_live"], live)
    for instrument, net in nets.items():
        must(net == 0, "instrument {}: the nets sum to {}", instrument, net)


def _check_accounts(memory: Memory, totals: _Totals) -> None:
    for number, row in enumerate(memory.arrays["accounts"][: memory.header["accounts_used"]]):
        for field in ("cash_micros", "held_micros", "rebate_micros", "frozen_micros", "withdrawing_micros"):
            must(row[field] >= 0, "account {}: {} {}", number, field, row[field])
        must(
            row["held_micros"] == totals.held[number],
            "account {}: held {}, orders {}",
            number,
            row["held_micros"],
            totals.held[number],
        )
        must(
            row["open_orders"] == totals.open_orders[number],
            "account {}: counts {} open orders",
            number,
            row["open_orders"],
        )


def _check_conservation(memory: Memory) -> None:
    header = memory.header
    accounts = memory.arrays["accounts"][: header["accounts_used"]]
    positions = memory.arrays["positions"][: header["positions_used"]]
    fields = [
        (accounts, "cash_micros"),
        (accounts, "held_micros"),
        (accounts, "frozen_micros"),
        (positions, "escrow_micros"),
        (positions, "bond_micros"),
    ]
    inside = sum(sum(rows[field].tolist()) for rows, field in fields) + int(header["house_fees_micros"])
    outside = int(header["deposits_micros"]) - int(header["withdrawals_micros"])
    must(inside == outside, "the exchange holds {} micros, deposits less withdrawals are {}", inside, outside)
    must(header["house_fees_micros"] >= 0, "house fees {}", header["house_fees_micros"])


def _check_shares(memory: Memory) -> None:
    shares, seen = memory.arrays["shares"], 0
    for pool, first in enumerate(memory.arrays["accounts"]["first_share"][: memory.header["accounts_used"]].tolist()):
        place, before, total = first, 0, 0
        while place != NIL:
            holder, lots = int(shares[place]["holder"]), int(shares[place]["lots"])
            must(before < holder < memory.header["accounts_used"], "pool {}: holder {} out of order", pool, holder)
            must(lots > 0, "pool {}: holder {} has {} shares", pool, holder, lots)
            before, total, seen, place = holder, total + lots, seen + 1, int(shares[place]["next"])
        must(total <= MAX_SHARES, "pool {}: {} shares", pool, total)
    used = shares[: memory.header["shares_used"]]
    must((used["holder"] > 0).sum() == seen, "{} holders of shares are in no pool", (used["holder"] > 0).sum() - seen)


def _check_free_lists(memory: Memory) -> None:
    arrays, header = memory.arrays, memory.header
    links = {
        "orders": arrays["orders"]["next"],
        "positions": arrays["positions"]["next_of_account"],
        "leaves": arrays["leaf_nodes"],
        "nodes": arrays["children"][:, 0],
        "shares": arrays["shares"]["next"],
        "groups": arrays["groups"]["group"],
        "timers": arrays["timers"]["next"],
    }
    for pool, link in links.items():
        slot, seen = int(header[f"{pool}_free"]), 0
        while slot != NIL:
            must(0 <= slot < header[f"{pool}_used"], "{}: free slot {} was never used", pool, slot)
            seen += 1
            must(seen <= header[f"{pool}_used"], "{}: the free list runs in a circle", pool)
            slot = int(link[slot])
