"""Rows of the tables as objects: what the general path reads and writes. They hold nothing but where their row is."""

from collections import namedtuple
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engine.types import Flag
from gateway.depth import CHECKSUM_LEVELS, checksum
from gateway.fast import doors
from gateway.fast.tables import ORDER
from gateway.fast.templates import STATUSES
from gateway.memory import Tables
from gateway.messages import OrderStatus

BODY = (
    "instrument", "side", "ord_type", "time_in_force", "flags", "body_price", "body_qty", "body_stop", "body_show", "min_qty",
    "expire_ns", "tag", "group", "stp_group",
)  # fmt: skip


class Row:
    """A row of a table; two views of one row are equal."""

    __slots__ = ("_tables", "row")

    def __init__(self, tables: Tables, row: int) -> None:
        self._tables = tables
        self.row = row

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.row == self.row and other._tables is self._tables

    def __hash__(self) -> int:
        return self.row


class column:
    """A field of the row."""

    def __init__(self, table: str, name: str) -> None:
        self._table, self._name = table, name

    def __get__(self, row: Row, _owner: type) -> int:
        return int(getattr(row._tables, self._table)[row.row][self._name])

    def __set__(self, row: Row, value: int) -> None:
        getattr(row._tables, self._table)[row.row][self._name] = value


_Columns: Any = namedtuple("_Columns", " ".join(ORDER.names or ()))  # type: ignore[misc]


class OrderRow(_Columns):
    """A copy of an order's row: plain integers, read together. `symbol` is the number of one."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> int: ...

    @property
    def cid(self) -> str:
        words = b"".join(
            word.to_bytes(8, "little", signed=True) for word in (self.c0, self.c1, self.c2, self.c3, self.c4)
        )
        return words.rstrip(b"\0").decode("ascii", "replace")

    @property
    def status(self) -> OrderStatus:
        if self.done:
            return "filled" if self.cum == self.qty and self.done == 1 else "canceled"
        if self.waiting:
            return "waiting"
        return "partial" if self.cum else "new"

    @property
    def post_only(self) -> bool:
        return bool(self.flags & Flag.POST_ONLY)


class Order(Row):
    """An order, working or finished. Prices in ticks."""

    __slots__ = ()
    id = column("orders", "id")
    account = column("orders", "account")
    instrument = column("orders", "instrument")
    tick_micros = column("orders", "tick_micros")
    side = column("orders", "side")
    ord_type = column("orders", "ord_type")
    time_in_force = column("orders", "time_in_force")
    flags = column("orders", "flags")
    session = column("orders", "session")
    ts_ns = column("orders", "ts_ns")
    price = column("orders", "price")
    qty = column("orders", "qty")
    leaves = column("orders", "leaves")
    cum = column("orders", "cum")
    finished_ns = column("orders", "finished_ns")
    queued_seq = column("orders", "queued_seq")
    special = column("orders", "special")
    show = column("orders", "show")
    shown = column("orders", "shown")
    stop_price = column("orders", "stop_price")
    min_qty = column("orders", "min_qty")
    expire_ns = column("orders", "expire_ns")
    tag = column("orders", "tag")
    group = column("orders", "group")
    stp_group = column("orders", "stp_group")
    waiting = column("orders", "waiting")

    @property
    def level(self) -> int:
        """Of a quote, its number in the ladder; -1 of any other order."""
        return int(self._tables.orders[self.row]["level"]) - 1

    @property
    def public_lots(self) -> int:
        """What the book shows of it."""
        row = self._tables.orders[self.row]
        return 0 if row["waiting"] else int(row["shown"] if row["show"] else row["leaves"])

    @property
    def symbol(self) -> str:
        return self._tables.symbol_at(int(self._tables.orders[self.row]["symbol"]))

    @property
    def cid(self) -> str:
        return self.read().cid

    @property
    def done(self) -> bool:
        return bool(self._tables.orders[self.row]["done"])

    @property
    def body(self) -> tuple[int, ...]:
        """What was asked, to tell a repeated cid from a reused one."""
        row = self._tables.orders[self.row]
        return tuple(int(row[name]) & ~Flag.EXTENDED if name == "flags" else int(row[name]) for name in BODY)

    @property
    def ack(self) -> tuple[OrderStatus, int, int, int] | None:
        """Status, leaves, cum and aseq when its command was done."""
        row = self._tables.orders[self.row]
        if not row["has_ack"]:
            return None
        return STATUSES[row["ack_status"]], int(row["ack_left"]), int(row["ack_cum"]), int(row["ack_aseq"])

    @ack.setter
    def ack(self, value: tuple[OrderStatus, int, int, int]) -> None:
        row = self._tables.orders[self.row]
        row["has_ack"], row["ack_status"] = 1, STATUSES.index(value[0])
        row["ack_left"], row["ack_cum"], row["ack_aseq"] = value[1:]

    @property
    def status(self) -> OrderStatus:
        return self.read().status

    def read(self) -> OrderRow:
        """All of it as it is now: many times faster than field by field."""
        return OrderRow._make(self._tables.orders[self.row].item())


class Position(Row):
    """What an account has in an instrument, in lots and micros."""

    __slots__ = ()
    instrument = column("positions", "instrument")
    net = column("positions", "net")
    capacity = column("positions", "capacity")
    open_buy = column("positions", "open_buy")
    open_sell = column("positions", "open_sell")
    escrow = column("positions", "escrow")
    fees_due = column("positions", "fees_due")
    bond = column("positions", "bond")


class Positions(Mapping[int, Position]):
    """An account's positions by instrument, in the order in which they were made."""

    def __init__(self, tables: Tables, account: int) -> None:
        self._tables, self._account = tables, account

    def __getitem__(self, instrument: int) -> Position:
        row = self._tables.do(doors.FIND_POSITION, self._account, instrument)
        if not row:
            raise KeyError(instrument)
        return Position(self._tables, row)

    def __iter__(self) -> Iterator[int]:
        row = int(self._tables.accounts[self._account]["first_position"])
        while row:
            position = self._tables.positions[row]
            yield int(position["instrument"])
            row = int(position["next_of_account"])

    def __len__(self) -> int:
        return sum(1 for _ in self)


class OwnOrders(Mapping[int, Order]):
    """An account's working orders by id, oldest first."""

    def __init__(self, tables: Tables, account: int) -> None:
        self._tables, self._account = tables, account

    def __getitem__(self, order_id: int) -> Order:
        row = self._tables.do(doors.FIND_ORDER, order_id)
        found = self._tables.orders[row]
        if not row or found["account"] != self._account or found["done"]:
            raise KeyError(order_id)
        return Order(self._tables, row)

    def __iter__(self) -> Iterator[int]:
        row = int(self._tables.accounts[self._account]["first_order"])
        while row:
            order = self._tables.orders[row]
            yield int(order["id"])
            row = int(order["next_of_account"])

    def __len__(self) -> int:
        return int(self._tables.accounts[self._account]["orders"])


class AllOrders(Mapping[int, Order]):
    """Every order that is remembered, by id."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def __getitem__(self, order_id: int) -> Order:
        row = self._tables.do(doors.FIND_ORDER, order_id)
        if not row:
            raise KeyError(order_id)
        return Order(self._tables, row)

    def __iter__(self) -> Iterator[int]:
        ids = self._tables.orders["id"]
        return iter(ids[ids != 0].tolist())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Account(Row):
    """An account's money in micros, its positions by instrument, its working orders by id. Its row is its number."""

    __slots__ = ("name", "orders", "positions")
    cash = column("accounts", "cash")
    held = column("accounts", "held")
    escrow = column("accounts", "escrow")
    fees_due = column("accounts", "fees_due")
    bond = column("accounts", "bond")
    rebate = column("accounts", "rebate")
    frozen = column("accounts", "frozen")  # under liens
    is_frozen = column("accounts", "is_frozen")  # no money may leave it

    def __init__(self, tables: Tables, number: int, name: str) -> None:
        super().__init__(tables, number)
        self.name = name
        self.positions = Positions(tables, number)
        self.orders = OwnOrders(tables, number)

    @property
    def number(self) -> int:
        return self.row


class DepthSide:
    """One side of a book, in ticks and lots."""

    __slots__ = ("_number", "_tables", "side")

    def __init__(self, tables: Tables, number: int, side: int) -> None:
        self._tables, self._number, self.side = tables, number, side

    @property
    def descending(self) -> bool:
        """Bids: the best price is the highest."""
        return self.side == 0

    @property
    def changed(self) -> set[int]:
        """The prices that changed since books were last published."""
        changes = self._tables.changed[: self._tables.head["changed"]]
        mine = (changes["instrument"] == self._number) & (changes["side"] == self.side)
        return set(changes["price"][mine].tolist())

    @property
    def lots(self) -> dict[int, int]:
        """The open lots at each price."""
        return dict(self.top(None))

    def top(self, count: int | None) -> list[tuple[int, int]]:
        """The best `count` levels (all for None) as (price, lots), best first."""
        side = self._tables.sides[2 * self._number + self.side]
        at, levels = int(side["at"]), int(side["count"])
        first = 0 if count is None else max(0, levels - count)
        found: list[tuple[int, int]] = self._tables.levels[at + first : at + levels].tolist()
        found.reverse()
        return found

    def best(self) -> tuple[int, int] | None:
        """The best level, None when the side is empty."""
        top = self.top(1)
        return top[0] if top else None


class Depth:
    """Both sides of an instrument's book."""

    __slots__ = ("_checksum", "_checksum_seq", "_near", "_near_seq", "_number", "_tables", "asks", "bids")

    def __init__(self, tables: Tables, number: int) -> None:
        self._tables, self._number = tables, number
        self.bids = DepthSide(tables, number, 0)
        self.asks = DepthSide(tables, number, 1)
        self._checksum, self._checksum_seq = 0, -1
        self._near: tuple[list[tuple[int, int]], list[tuple[int, int]]] = [], []
        self._near_seq = -1

    @property
    def seq(self) -> int:
        """The last event that changed either side."""
        return int(self._tables.instruments[self._number]["book_seq"])

    @property
    def ts_ns(self) -> int:
        """When that was."""
        return int(self._tables.instruments[self._number]["book_ts_ns"])

    def side(self, side: int) -> DepthSide:
        """The bids for Side.BUY, else the asks."""
        return self.asks if side else self.bids

    def add(self, side: int, price: int, lots: int, seq: int, ts_ns: int) -> None:
        """Change the open lots at a price."""
        if not self._tables.do(doors.DEPTH_ADD, self._number, side, price, lots, seq, ts_ns):
            raise ValueError(f"{lots} lots at {price}: the events do not fit the book")

    def near(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The best levels of bids and offers, as far as a checksum goes; read once for each change. Not to be changed."""
        seq = self.seq
        if self._near_seq != seq:
            self._near, self._near_seq = (self.bids.top(CHECKSUM_LEVELS), self.asks.top(CHECKSUM_LEVELS)), seq
        return self._near

    def checksum(self, tick_micros: int) -> int:
        """The CRC-32 of the top levels, as the protocol defines it; computed once for each change."""
        seq = self.seq
        if self._checksum_seq != seq:
            bids, asks = self.near()
            self._checksum = checksum([(p * tick_micros, q) for p, q in bids], [(p * tick_micros, q) for p, q in asks])
            self._checksum_seq = seq
        return self._checksum
