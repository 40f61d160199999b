"""The state as plain Python values: for tests, audit, and parts that start from a snapshot."""

from collections.abc import Iterator
from typing import Any

from engine.catalogue import unpack_id
from engine.state import FAN, KEY_MASK, NIL, Memory
from engine.types import Status

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
    result["positions"] = {
        (int(row["account"]), int(row["instrument"])): tuple(int(row[field]) for field in POSITION_FIELDS)
        for row in arrays["positions"][: header["positions_used"]]
        if row["account"] != 0
    }
    result["shares"] = {number: held for number in result["accounts"] if (held := holders(memory, number))}
    result["books"] = {number: _book(memory, number) for number in listed(memory)}
    return result


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
    book = memory.arrays["books"][instrument]
    return {
        "status": int(book["status"]),
        "last_price": int(book["last_price"]),
        "bids": side_queue(memory, 2 * instrument),
        "asks": side_queue(memory, 2 * instrument + 1),
    }


def side_queue(memory: Memory, side_index: int) -> Queue:
    """All working orders of one side of a book."""
    orders = memory.arrays["orders"]
    queue: Queue = []
    for price, level in levels(memory, side_index):
        rows = []
        slot = int(memory.arrays["levels"][level]["head"])
        while slot != NIL:
            order = orders[slot]
            rows.append(
                (
                    int(order["order_id"]),
                    int(order["account"]),
                    int(order["leaves_qty"]),
                    int(order["cum_qty"]),
                    int(order["held_micros"]),
                )
            )
            slot = int(order["next"])
        queue.append((price, rows))
    return queue


def levels(memory: Memory, side_index: int) -> Iterator[tuple[int, int]]:
    """(price, level) of a side's levels that have orders, best first, by walking the trie."""
    arrays = memory.arrays
    root = int(arrays["sides"][side_index]["root"])
    if root == NIL:
        return
    for high in bits(arrays["nodes"][root]):
        mid = int(arrays["children"][root, high])
        for middle in bits(arrays["nodes"][mid]):
            leaf = int(arrays["children"][mid, middle])
            for low in bits(arrays["leaves"][leaf]):
                key = (high << 12) | (middle << 6) | low
                yield price_at(side_index, key), leaf * FAN + low


def price_at(side_index: int, key: int) -> int:
    """The price of a key of a side, and the key of a price: what book.key_of does in kernels."""
    return key if side_index & 1 else key ^ KEY_MASK


def bits(word: Any) -> list[int]:
    """The numbers of the set bits of a word, lowest first."""
    return [n for n in range(FAN) if int(word) >> n & 1]
