"""Everything the engine knows, as a NamedTuple of preallocated arrays.

An order is one cache line. Orders wait in queues (doubly linked, oldest first), a queue is a LEVEL, 64 neighbouring
levels are a leaf, and leaves hang in a trie of 64-way nodes, one trie for each side of a book:

    side.root -> node (4,096 ticks a child) -> node (64 ticks a child) -> leaf -> LEVEL

Both tries are ordered by *key*, so that the best price is always the lowest: key = price for offers, and price with all
18 bits flipped for bids. Nodes and leaves are made when a price is first used, so an empty book costs one BOOK and two
SIDEs. Links are slot numbers, NIL where there is none.

Every pool has a high-water mark (`*_used`) and a list of slots to use again (`*_free`, linked through the slots, last freed
first). What a slot number will be depends only on the commands, never on how large an array happens to be.
"""

import hashlib
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from engine.kernel import JIT, Records
from engine.records import zeros
from engine.types import COMMAND, EVENT, HEAD, ID_WORDS, LISTING, MAX_MMP_FILLS, MONEY, SLOT_BITS, TRANSFER

FORMAT = 3
"""Of `Memory.to_bytes`: raised with every change of what is remembered."""
NIL = -1
KEY_BITS = 18
KEY_MASK = (1 << KEY_BITS) - 1
NO_KEY = 1 << KEY_BITS
"""The best key of an empty side: beyond every price, so that no limit reaches it."""
FAN = 64
HEADER = np.dtype(
    [
        (name, "<i8")
        for name in (
            "applied_seq now_ns event_seq cycle house_fees_micros deposits_micros withdrawals_micros open_orders "
            "accounts_used instruments_used orders_used orders_free leaves_used leaves_free nodes_used nodes_free "
            "positions_used positions_free positions_live max_open_orders shares_used shares_free halted max_quotes "
            "max_timers max_client_ids client_ids_used next_client_id groups_used groups_free timers_used timers_free "
            "special_orders"
        ).split()
    ]
)
"""Counters: one record. `accounts_used` and `instruments_used` count number 0, which nobody has."""

ACCOUNT = np.dtype(
    [
        ("cash_micros", "<i8"),
        ("held_micros", "<i8"),
        ("rebate_micros", "<i8"),
        ("open_orders", "<i4"),
        ("first_position", "<i4"),
        ("last_position", "<i4"),  # where it traded last: its next order is most often in the same book
        ("special", "<i4"),  # bits: LOCKED, LIMITED. Not zero: its orders take the way of special ones
        ("frozen_micros", "<i8"),  # under a lien
        ("is_frozen", "<i4"),
        ("first_share", "<i4"),  # of those held in this account as a pool
        ("withdrawing_micros", "<i8"),  # withdrawn to a chain, and neither paid out nor given back yet
    ]
)

SHARE = np.dtype([("lots", "<i8"), ("holder", "<i4"), ("next", "<i4")])
"""What one account holds of a pool. `next`: another holder of that pool; in a free slot, the next free slot."""

POSITION = np.dtype(
    [
        ("escrow_micros", "<i8"),
        ("fees_due_micros", "<i8"),
        ("bond_micros", "<i8"),
        ("account", "<i4"),
        ("instrument", "<i4"),
        ("net_lots", "<i4"),
        ("capacity_lots", "<i4"),
        ("open_buy_lots", "<i4"),
        ("open_sell_lots", "<i4"),
        ("next_of_account", "<i4"),  # the one made before it; in a free slot, the next free slot
        ("next_of_instrument", "<i4"),
        ("first_quote", "<i4"),
        ("quotes", "<i4"),
    ]
)

BOOK = np.dtype(
    [
        ("lot_tick_micros", "<i8"),
        ("open_ns", "<i8"),
        ("gate_ns", "<i8"),
        ("taker_fee_ppm", "<i4"),
        ("maker_rebate_ppm", "<i4"),
        ("max_price", "<i4"),
        ("last_price", "<i4"),
        ("status", "<i4"),
        ("first_position", "<i4"),
        (
            "special",
            "<i4",
        ),  # bits below ONE_ORDER, and ONE_ORDER for each special order. Not zero: the way of special ones
        ("collar_ppm", "<i4"),
        ("low_price", "<i4"),  # an order's price lies between these
        ("high_price", "<i4"),
    ]
)

SIDE = np.dtype([("best_key", "<i4"), ("best_level", "<i4"), ("root", "<i4"), ("reserved", "<i4")])
"""Side 0 (bids) of instrument i is sides[2*i], side 1 (offers) sides[2*i + 1]."""

ORDER = np.dtype(
    [
        ("order_id", "<i8"),
        ("held_micros", "<i8"),
        ("account", "<i4"),
        ("position", "<i4"),
        ("side_index", "<i4"),  # 2 * instrument + side
        ("level", "<i4"),
        ("next", "<i4"),  # younger order of the level; in a free slot, the next free slot
        ("prev", "<i4"),
        ("price", "<i4"),
        ("leaves_qty", "<i4"),  # zero in a free slot
        ("cum_qty", "<i4"),
        ("session", "<i4"),
        ("flags", "<u4"),
        ("reserved", "<i4"),
    ]
)

LOCKED, LIMITED = 1, 2
"""Bits of ACCOUNT.special: locked; with limits of its own."""
GATHERS, HALTED, DYNAMIC, ONE_ORDER = 1, 2, 4, 16
"""Of BOOK.special: not continuous; the exchange is halted; has a dynamic collar; and what each special order in it counts."""
HAS_TERMS, ICEBERG, GROUPED, WAITING, QUOTED, REDUCES = 0x800, 0x1000, 0x2000, 0x4000, 0x8000, 0x10000
"""Bits of ORDER.flags beside those of the command. From ICEBERG on they make a special order of a working one: a trade with it,
or its end, is more than that of a plain one."""
FIRST_SPECIAL = ICEBERG

TERMS = np.dtype(
    [
        ("expire_ns", "<i8"),
        ("tag", "<i8"),
        ("stop_price", "<i4"),
        ("show_qty", "<i4"),
        ("shown_qty", "<i4"),  # of an iceberg in a book, else 0
        ("group", "<i4"),
        ("stp_group", "<i4"),
        ("quote_level", "<i4"),  # NIL: no quote
        ("next_quote", "<i4"),  # of the position
        ("prev_quote", "<i4"),
        ("ord_type", "<i4"),
        ("time_in_force", "<i4"),
        ("reserved", "<i8"),
    ]
)
"""What an order has besides: one for each slot of `orders`, written and read only where its flags have HAS_TERMS."""

TRIGGER = np.dtype(
    [
        ("lots", "<i8"),
        ("refreshes", "<i8"),
        ("best_key", "<i4"),
        ("best_level", "<i4"),
        ("root", "<i4"),
        ("orders", "<i4"),
    ]
)
"""The stops of one side of a book, in a trie of its own by stop price. `lots`: what waits in it. `refreshes`: how often the
icebergs of that side, in the book or waiting, can yet show anew: a bound on trades."""

GROUP = np.dtype(
    [
        ("window_ns", "<i8"),
        ("lots", "<i8"),  # counted
        ("account", "<i4"),  # 0 in a free slot
        ("group", "<i4"),  # in a free slot, the next free slot
        ("max_lots", "<i4"),
        ("max_fills", "<i4"),
        ("frozen", "<i4"),
        ("fills", "<i4"),  # counted
        ("first_fill", "<i4"),  # place of the oldest in its ring
        ("pad", "<i4"),
        ("freeze_ns", "<i8"),  # how long it stays frozen; 0: until RESET_MMP
        ("until_ns", "<i8"),  # when it is frozen no more; 0: not known
    ]
)
"""A market maker's protection. Its counted trades are a ring of MAX_MMP_FILLS rows of `fills`."""

FILL = np.dtype([("ts_ns", "<i8"), ("qty", "<i8")])

TIMER = np.dtype([("tag", "<i8"), ("expire_ns", "<i8"), ("next", "<i4"), ("account", "<i4")])
"""`next`: of the account; in a free slot, the next free slot. `account` is 0 in a free slot."""

CONTROL = np.dtype([(name, "<i4") for name in ("first_timer", "timers", "max_qty", "max_lots", "max_orders", "pad")])
"""What an account has besides money and positions: its timers, and limits of its own, 0 for none."""

CLIENT_ID = np.dtype(
    [
        ("order_id", "<i8"),
        ("ts_ns", "<i8"),
        ("expire_ns", "<i8"),
        ("tag", "<i8"),
        ("account", "<i4"),  # 0: forgotten
        ("instrument", "<i4"),
        ("price", "<i4"),
        ("qty", "<i4"),
        ("stop_price", "<i4"),
        ("show_qty", "<i4"),
        ("min_qty", "<i4"),
        ("group", "<i4"),
        ("stp_group", "<i4"),
        ("flags", "<u4"),
        ("side", "u1"),
        ("ord_type", "u1"),
        ("time_in_force", "u1"),
        ("pad", "u1"),
        ("reserved", "<i4", (3,)),
        ("mixed", "<i8"),  # a hash of account and words
    ]
)
"""An accepted order under the id its sender gave it (`client_words`), and what it asked for."""

REQUEST = np.dtype(
    [
        (name, "<i8")
        for name in (
            "now_ns stop_price show_qty min_qty expire_ns deadline_ns tag group stp_group quote_level flags "
            "collar_low collar_high"
        ).split()
    ]
)
"""The special command at hand as the rules read it: one record, nothing that is remembered."""

BATCH = np.dtype([("count", "<i8"), ("done", "<i8"), ("first_event_seq", "<i8"), ("stop", "<i8"), ("grown", "<i8")])
"""How far the batch at hand has come; see engine.Stop. Not part of what the engine remembers."""

LEVEL = np.dtype([("head", "<i4"), ("tail", "<i4"), ("qty", "<i8")])

assert (
    ORDER.itemsize == ACCOUNT.itemsize == POSITION.itemsize == BOOK.itemsize == TERMS.itemsize == GROUP.itemsize == 64
)
assert CLIENT_ID.itemsize == 96


@dataclass(frozen=True, slots=True)
class Limits:
    """How large the pools may grow. A full pool is a reject (OVERLOADED), never a crash."""

    max_accounts: int = 100_000
    max_instruments: int = 20_000
    max_orders: int = 4_000_000
    max_positions: int = 2_000_000
    max_leaves: int = 400_000
    max_nodes: int = 200_000
    max_shares: int = 1_000_000
    max_open_orders_per_account: int = 100_000
    max_quotes_per_book: int = 200
    max_timers_per_account: int = 16
    max_timers: int = 100_000
    max_mmp_groups: int = 10_000
    max_client_ids: int = 1_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be at least 1")
        if self.max_orders > 1 << SLOT_BITS:
            raise ValueError(
                f"max_orders is {1 << SLOT_BITS} at the most: an order id has {SLOT_BITS} bits for the slot"
            )


class State(NamedTuple):
    """The arrays, in the order in which the compiled door receives their addresses.

    `batch` and what follows to `money` is the batch at hand (its commands under their four layouts, the room for its events
    under their two) and not part of what the engine remembers, nor is `request`. The INDEXES follow from what they index.
    """

    batch: Any
    heads: Any
    commands: Any
    transfers: Any
    listings: Any
    events: Any
    money: Any
    header: Any
    accounts: Any
    positions: Any
    index: Any
    books: Any
    contracts: Any
    sides: Any
    nodes: Any
    children: Any
    leaves: Any
    leaf_nodes: Any
    levels: Any
    orders: Any
    terms: Any
    triggers: Any
    names: Any
    shares: Any
    request: Any
    groups: Any
    fills: Any
    group_index: Any
    controls: Any
    timers: Any
    client_ids: Any
    client_words: Any
    client_id_index: Any


SHAPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "batch": (BATCH, ()),
    "heads": (HEAD, ()),
    "commands": (COMMAND, ()),
    "transfers": (TRANSFER, ()),
    "listings": (LISTING, ()),
    "events": (EVENT, ()),
    "money": (MONEY, ()),
    "header": (HEADER, ()),
    "accounts": (ACCOUNT, ()),
    "positions": (POSITION, ()),
    "index": (np.dtype("<i4"), ()),
    "books": (BOOK, ()),
    "contracts": (LISTING, ()),
    "sides": (SIDE, ()),
    "nodes": (np.dtype("<u8"), ()),  # which children have orders below them
    "children": (np.dtype("<i4"), (FAN,)),
    "leaves": (np.dtype("<u8"), ()),  # which levels have orders
    "leaf_nodes": (np.dtype("<i4"), ()),  # the node above
    "levels": (LEVEL, ()),
    "orders": (ORDER, ()),
    "terms": (TERMS, ()),
    "triggers": (TRIGGER, ()),
    "names": (np.dtype("<u8"), (ID_WORDS,)),
    "shares": (SHARE, ()),
    "request": (REQUEST, ()),
    "groups": (GROUP, ()),
    "fills": (FILL, ()),
    "group_index": (np.dtype("<i4"), ()),
    "controls": (CONTROL, ()),
    "timers": (TIMER, ()),
    "client_ids": (CLIENT_ID, ()),
    "client_words": (np.dtype("<u8"), (ID_WORDS,)),
    "client_id_index": (np.dtype("<i4"), ()),
}
"""The item type of each array and the dimensions behind its first."""


class Pool(NamedTuple):
    """Arrays that grow together. `arrays` maps each to the number of its rows per slot."""

    arrays: dict[str, int]
    used: str
    limit: str
    first_size: int


POOLS = {
    "accounts": Pool({"accounts": 1, "names": 1, "controls": 1}, "accounts_used", "max_accounts", 1_024),
    "instruments": Pool(
        {"books": 1, "contracts": 1, "sides": 2, "triggers": 2}, "instruments_used", "max_instruments", 256
    ),
    "positions": Pool({"positions": 1}, "positions_used", "max_positions", 1_024),
    "orders": Pool({"orders": 1, "terms": 1}, "orders_used", "max_orders", 4_096),
    "leaves": Pool({"leaves": 1, "leaf_nodes": 1, "levels": FAN}, "leaves_used", "max_leaves", 256),
    "nodes": Pool({"nodes": 1, "children": 1}, "nodes_used", "max_nodes", 256),
    "shares": Pool({"shares": 1}, "shares_used", "max_shares", 256),
    "groups": Pool({"groups": 1, "fills": MAX_MMP_FILLS}, "groups_used", "max_mmp_groups", 16),
    "timers": Pool({"timers": 1}, "timers_used", "max_timers", 64),
    "client_ids": Pool({"client_ids": 1, "client_words": 1}, "client_ids_used", "max_client_ids", 1_024),
}
INDEXES = {"positions": "index", "groups": "group_index", "client_ids": "client_id_index"}
"""Hash tables over pools, at most half full. They follow from what they index, and are made anew when it grows."""

_FRESH: dict[str, dict[str, int]] = {
    "accounts": {"first_position": NIL, "last_position": NIL, "first_share": NIL},
    "controls": {"first_timer": NIL},
    "positions": {"next_of_account": NIL, "next_of_instrument": NIL, "first_quote": NIL},
    "books": {"first_position": NIL, "last_price": NIL},
    "sides": {"best_key": NO_KEY, "best_level": NIL, "root": NIL},
    "triggers": {"best_key": NO_KEY, "best_level": NIL, "root": NIL},
    "orders": {"next": NIL, "prev": NIL, "level": NIL},
    "levels": {"head": NIL, "tail": NIL},
}
"""What a field holds before it is first used, where that is not zero."""


def aligned(rows: int, name: str) -> NDArray[Any]:
    """A zeroed array for `State.name`, its first byte on a cache line, so that a 64-byte record is one line."""
    return zeros(rows, *SHAPES[name])


class Memory:
    """Owns the arrays of a State: allocates them, grows them, hashes them, writes and reads them as bytes."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.arrays = {name: aligned(0, name) for name in SHAPES}
        for name in ("header", "batch", "request"):
            self.arrays[name] = aligned(1, name)
        for reused in ("orders", "leaves", "nodes", "positions", "shares", "groups", "timers"):
            self.header[f"{reused}_free"] = NIL
        self.header["accounts_used"] = self.header["instruments_used"] = 1
        self._take_limits()
        for name, pool in POOLS.items():
            self.resize(name, min(pool.first_size, self.limit(name)))

    @property
    def header(self) -> np.void:
        return self.arrays["header"][0]  # type: ignore[no-any-return]

    def limit(self, pool: str) -> int:
        """The largest number of slots of a pool. Accounts and instruments have an unused slot 0 besides."""
        return int(getattr(self.limits, POOLS[pool].limit)) + (pool in ("accounts", "instruments"))

    def size(self, pool: str) -> int:
        """The slots a pool has now."""
        name, rows = next(iter(POOLS[pool].arrays.items()))
        return len(self.arrays[name]) // rows

    def grow(self, pool: str) -> bool:
        """Double a pool, within its limit. False when it is already as large as it may be."""
        size = self.size(pool)
        if size >= self.limit(pool):
            return False
        self.resize(pool, min(2 * size, self.limit(pool)))
        return True

    def resize(self, pool: str, slots: int) -> None:
        """Give a pool this many slots, at least as many as it has; links are slot numbers, so all stay true."""
        for name, rows in POOLS[pool].arrays.items():
            old, new = self.arrays[name], aligned(slots * rows, name)
            new[: len(old)] = old
            _make_fresh(name, new, len(old))
            self.arrays[name] = new
        if pool in INDEXES:
            index = aligned(1 << max(4, (2 * slots - 1).bit_length()), INDEXES[pool])
            index[:] = NIL
            self.arrays[INDEXES[pool]] = index  # the caller fills it again: engine.Engine._reindex

    def state(self) -> State:
        """The arrays as kernels take them: as they are, or as `Records` where the JIT is off."""
        return State(**(self.arrays if JIT else {name: Records(array) for name, array in self.arrays.items()}))

    def used_parts(self) -> list[tuple[str, NDArray[Any]]]:
        """What the engine remembers: of each array the part below the high-water mark."""
        parts = [("header", self.arrays["header"])]
        for pool in POOLS.values():
            used = int(self.header[pool.used])
            parts += [(name, self.arrays[name][: used * rows]) for name, rows in pool.arrays.items()]
        return parts

    def hash(self) -> str:
        """SHA-256 over everything remembered. The same commands give the same hash, in any batches, on any machine."""
        digest = hashlib.sha256()
        for name, part in self.used_parts():
            digest.update(f"{name}:{len(part)};".encode())
            digest.update(part.tobytes())
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """The state as bytes: FORMAT, then each part with its length in rows before it."""
        return FORMAT.to_bytes(8, "little") + b"".join(
            len(part).to_bytes(8, "little") + part.tobytes() for _, part in self.used_parts()
        )

    @classmethod
    def from_bytes(cls, data: bytes, limits: Limits) -> Self:
        """The inverse of `to_bytes`. Raises ValueError when the bytes are not a state, or exceed the limits."""
        memory = cls(limits)
        view, offset = memoryview(data), 8
        if view[:8] != FORMAT.to_bytes(8, "little"):
            raise ValueError(f"state bytes do not begin with the format {FORMAT}")
        names = ["header"] + [name for pool in POOLS.values() for name in pool.arrays]
        loaded: dict[str, NDArray[Any]] = {}
        for name in names:
            dtype, tail = SHAPES[name]
            rows = int.from_bytes(view[offset : offset + 8], "little")
            count = rows * int(np.prod(tail, dtype=np.int64))
            if offset + 8 + count * dtype.itemsize > len(view):
                raise ValueError(f"state bytes end inside {name}")
            loaded[name] = np.frombuffer(view, dtype, count, offset + 8).reshape(rows, *tail)
            offset += 8 + count * dtype.itemsize
        if offset != len(view):
            raise ValueError(f"{len(view) - offset} bytes too many behind the state")
        memory._take(loaded)
        return memory

    def _take(self, loaded: dict[str, NDArray[Any]]) -> None:
        for name, pool in POOLS.items():
            slots = max(len(loaded[array]) // rows for array, rows in pool.arrays.items())
            if slots > self.limit(name):
                raise ValueError(f"the state has {slots} {name}, the limit {pool.limit} is {self.limit(name)}")
            while self.size(name) < slots:
                self.grow(name)
        for name, part in loaded.items():
            self.arrays[name][: len(part)] = part
        self._take_limits()

    def _take_limits(self) -> None:
        self.header["max_open_orders"] = self.limits.max_open_orders_per_account
        self.header["max_quotes"] = self.limits.max_quotes_per_book
        self.header["max_timers"] = self.limits.max_timers_per_account
        self.header["max_client_ids"] = self.limits.max_client_ids


def _make_fresh(name: str, array: NDArray[Any], start: int) -> None:
    for field, value in _FRESH.get(name, {}).items():
        array[field][start:] = value
    if name == "children":
        array[start:] = NIL
    if name == "orders":
        # The first id of a slot is one generation above this.
        array["order_id"][start:] = np.arange(start, len(array))
