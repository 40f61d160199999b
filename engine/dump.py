"""The state as plain Python values: for tests, audit, and parts that start from a snapshot."""

from collections.abc import Iterator
from typing import Any

from engine.catalogue import unpack_id
from engine.state import FAN, HAS_TERMS, KEY_MASK, LIMITED, LOCKED, NIL, Memory
from engine.types import MAX_MMP_FILLS, STP_MASK, Flag, Status

PLAIN = (0, 0, 0, 0, 0, 0, 0, -1)
"""What `special` does not show: flags, group, tag, stp_group, expire_ns, show_qty, shown, level of a plain order."""
OF_COMMAND = int(Flag.POST_ONLY | Flag.SLIDE | Flag.REDUCE_ONLY | STP_MASK)

OrderRow = tuple[int, int, int, int, int]
"""order_id, account, leaves_qty, cum_qty, held_micros"""
Queue = list[tuple[int, list[OrderRow]]]
"""(price, orders oldest first) of a side, best price first"""


def dump(memory: Memory) -> dict[str, Any]:
    """Everything that has a meaning outside the engine; two engines with equal dumps behave the same but for slot numbers."""
    arrays, header = memory.arrays, memory.header
    names = "applied_seq event_seq now_ns house_fees_micros deposits_micros withdrawals_micros cycle"
    result: dict[str, Any] = {name: int(header[name]) for name in names.split()}
    accounts = arrays["accounts"][: header["accounts_used"]]
    result["accounts"] = {
        number: tuple(int(row[field]) for field in ACCOUNT_FIELDS) for number, row in enumerate(accounts) if number > 0
    }
    result["withdrawing"] = {
        number: int(row["withdrawing_micros"]) for number, row in enumerate(accounts) if row["withdrawing_micros"]
    }
    result["positions"] = {
        (int(row["account"]), int(row["instrument"])): tuple(int(row[field]) for field in POSITION_FIELDS)
        for row in arrays["positions"][: header["positions_used"]]
        if row["account"] != 0
    }
    result["shares"] = {number: held for number in result["accounts"] if (held := holders(memory, number))}
    result["books"] = {number: _book(memory, number) for number in listed(memory)}
    result["halted"] = bool(header["halted"])
    result["locked"] = [n for n, row in enumerate(accounts) if row["special"] & LOCKED]
    result["limits"] = {
        n: tuple(int(arrays["controls"][n][field]) for field in ("max_qty", "max_lots", "max_orders"))
        for n, row in enumerate(accounts)
        if row["special"] & LIMITED
    }
    result["special"] = {
        int(arrays["orders"][slot]["order_id"]): _special(memory, slot) for slot in _special_slots(memory)
    }
    return result | _tables(memory)


def _tables(memory: Memory) -> dict[str, Any]:
    arrays, header = memory.arrays, memory.header
    timers = arrays["timers"][: header["timers_used"]]
    groups = arrays["groups"][: header["groups_used"]]
    ids = arrays["client_ids"][: header["client_ids_used"]]
    return {
        "timers": {(int(row["account"]), int(row["tag"])): int(row["expire_ns"]) for row in timers if row["account"]},
        "mmp": {
            (int(row["account"]), int(row["group"])): _protection(memory, slot)
            for slot, row in enumerate(groups)
            if row["account"]
        },
        "client_ids": {
            (int(row["account"]), tuple(arrays["client_words"][slot].tolist())): (
                int(row["order_id"]),
                int(row["ts_ns"]),
            )
            for slot, row in enumerate(ids)
            if row["account"]
        },
    }


def _protection(memory: Memory, slot: int) -> tuple[Any, ...]:
    row = memory.arrays["groups"][slot]
    places = [(int(row["first_fill"]) + i) % MAX_MMP_FILLS for i in range(int(row["fills"]))]
    fills = [memory.arrays["fills"][MAX_MMP_FILLS * slot + place] for place in places]
    counted = [(int(fill["ts_ns"]), int(fill["qty"])) for fill in fills]
    terms = (int(row[name]) for name in ("window_ns", "max_lots", "max_fills"))
    return *terms, bool(row["frozen"]), counted, int(row["freeze_ns"]), int(row["until_ns"])


def _special_slots(memory: Memory) -> list[int]:
    """The slots of working orders that are more than a plain order."""
    orders = memory.arrays["orders"][: memory.header["orders_used"]]
    working = [slot for slot, order in enumerate(orders) if order["leaves_qty"] > 0]
    return [slot for slot in working if _special(memory, slot) != PLAIN]


def _special(memory: Memory, slot: int) -> tuple[int, ...]:
    flags = int(memory.arrays["orders"][slot]["flags"])
    if not flags & HAS_TERMS:
        return (flags & OF_COMMAND, *PLAIN[1:])
    terms = memory.arrays["terms"][slot]
    names = ("group", "tag", "stp_group", "expire_ns", "show_qty", "shown_qty", "quote_level")
    return (flags & OF_COMMAND, *(int(terms[name]) for name in names))


def holders(memory: Memory, pool: int) -> dict[int, int]:
    """Account -> its shares of a pool, by account number."""
    found, place = {}, int(memory.arrays["accounts"][pool]["first_share"])
    while place != NIL:
        row = memory.arrays["shares"][place]
        found[int(row["holder"])] = int(row["lots"])
        place = int(row["next"])
    return found


ACCOUNT_FIELDS = ("cash_micros", "held_micros", "rebate_micros", "open_orders", "frozen_micros", "is_frozen")
POSITION_FIELDS = (
    "net_lots",
    "capacity_lots",
    "open_buy_lots",
    "open_sell_lots",
    "escrow_micros",
    "fees_due_micros",
    "bond_micros",
)


def listed(memory: Memory) -> list[int]:
    """The instrument numbers in use, in order."""
    books = memory.arrays["books"][: memory.header["instruments_used"]]
    return [number for number, book in enumerate(books) if book["status"] != Status.NONE]


def account_names(memory: Memory) -> dict[int, str]:
    """Account number -> the name it was opened with."""
    names = memory.arrays["names"][: memory.header["accounts_used"]]
    return {number: unpack_id(name) for number, name in enumerate(names) if number > 0}


def _book(memory: Memory, instrument: int) -> dict[str, Any]:
    book, contract = memory.arrays["books"][instrument], memory.arrays["contracts"][instrument]
    return {
        "status": int(book["status"]),
        "last_price": int(book["last_price"]),
        "bids": side_queue(memory, 2 * instrument),
        "asks": side_queue(memory, 2 * instrument + 1),
        "reference_price": int(contract["reference_price"]),
        "low_price": int(book["low_price"]),
        "high_price": int(book["high_price"]),
        "collar_ppm": int(contract["collar_ppm"]),
        "dynamic_ppm": int(contract["dynamic_ppm"]),
        "buy_stops": _stops(memory, 2 * instrument),
        "sell_stops": _stops(memory, 2 * instrument + 1),
    }


def _stops(memory: Memory, side_index: int) -> list[Any]:
    """(stop price, orders oldest first) of the stops of a side, first due first."""
    found = []
    for stop_price, level in stop_levels(memory, side_index):
        rows = []
        for slot in queue(memory, level):
            order, terms = memory.arrays["orders"][slot], memory.arrays["terms"][slot]
            row = [order[name] for name in ("order_id", "account", "leaves_qty", "held_micros", "price")]
            rows.append(tuple(int(value) for value in (*row, terms["ord_type"], terms["time_in_force"])))
        found.append((stop_price, rows))
    return found


def side_queue(memory: Memory, side_index: int) -> Queue:
    """All working orders of one side of a book."""
    names = ("order_id", "account", "leaves_qty", "cum_qty", "held_micros")
    found: Queue = []
    for price, level in levels(memory, side_index):
        orders = [memory.arrays["orders"][slot] for slot in queue(memory, level)]
        found.append((price, [tuple(int(order[name]) for name in names) for order in orders]))  # type: ignore[misc]
    return found


def queue(memory: Memory, level: int) -> Iterator[int]:
    """The slots of a level's orders, oldest first."""
    slot = int(memory.arrays["levels"][level]["head"])
    while slot != NIL:
        yield slot
        slot = int(memory.arrays["orders"][slot]["next"])


def levels(memory: Memory, side_index: int) -> Iterator[tuple[int, int]]:
    """(price, level) of a side's levels that have orders, best first, by walking the trie."""
    for key, level in _levels(memory, int(memory.arrays["sides"][side_index]["root"])):
        yield price_at(side_index, key), level


def stop_levels(memory: Memory, side_index: int) -> Iterator[tuple[int, int]]:
    """(stop price, level) of a side's stops, first due first."""
    for key, level in _levels(memory, int(memory.arrays["triggers"][side_index]["root"])):
        yield price_at(side_index ^ 1, key), level


def _levels(memory: Memory, root: int) -> Iterator[tuple[int, int]]:
    arrays = memory.arrays
    if root == NIL:
        return
    for high in bits(arrays["nodes"][root]):
        mid = int(arrays["children"][root, high])
        for middle in bits(arrays["nodes"][mid]):
            leaf = int(arrays["children"][mid, middle])
            for low in bits(arrays["leaves"][leaf]):
                yield (high << 12) | (middle << 6) | low, leaf * FAN + low


def price_at(side_index: int, key: int) -> int:
    """The price of a key of a side, and the key of a price: what book.key_of does in kernels."""
    return key if side_index & 1 else key ^ KEY_MASK


def bits(word: Any) -> list[int]:
    """The numbers of the set bits of a word, lowest first."""
    return [n for n in range(FAN) if int(word) >> n & 1]
