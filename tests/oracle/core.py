"""The twin's state, commands in and events out, and finding things."""

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import COMMAND, EVENT, LISTING, MONEY, TRANSFER, EventKind, Kind, Reason, Status
from tests.oracle.parts import Account, Book, Order, Position, Protection, Rejected, Remembered, need

TRANSFERS = {Kind.OPEN_ACCOUNT, Kind.DEPOSIT, Kind.WITHDRAW, Kind.NOMINATE, Kind.PAYOUT, Kind.DELIVER}
TRANSFERS |= {Kind.TRANSFER, Kind.LIEN, Kind.LIFT_LIEN, Kind.FREEZE, Kind.ISSUE_SHARES, Kind.MOVE_SHARES}
LISTINGS = {Kind.LIST, Kind.SET_BAND}
MONEY_KINDS = {
    EventKind.ACCOUNT_OPENED,
    EventKind.DEPOSITED,
    EventKind.WITHDRAWN,
    EventKind.NOMINATED,
    EventKind.PAID_OUT,
    EventKind.DELIVERY_DUE,
    EventKind.BOND_RELEASED,
    EventKind.DELIVERED,
    EventKind.REBATE_PAID,
    EventKind.CYCLE_CLOSED,
    EventKind.TRANSFERRED,
    EventKind.LIEN_TAKEN,
    EventKind.LIEN_LIFTED,
    EventKind.FROZEN,
    EventKind.SHARES_CHANGED,
    EventKind.SPLIT_PAID,
}


class Core:
    """The limits are those of `engine.state.Limits` that a rule mentions; its pools are unbounded."""

    def __init__(
        self,
        max_accounts: int = 64,
        max_instruments: int = 64,
        max_open_orders_per_account: int = 1_000,
        max_quotes_per_book: int = 200,
        max_timers_per_account: int = 16,
        max_mmp_groups: int = 10_000,
        max_client_ids: int = 1_000_000,
    ) -> None:
        self.max_accounts = max_accounts
        self.max_instruments = max_instruments
        self.max_open_orders_per_account = max_open_orders_per_account
        self.max_quotes_per_book = max_quotes_per_book
        self.max_timers_per_account = max_timers_per_account
        self.max_mmp_groups = max_mmp_groups
        self.applied_seq = 0
        self.event_seq = 0
        self.now_ns = 0
        self.house = 0
        self.deposits = 0
        self.withdrawals = 0
        self.cycle = 0
        self.next_instrument = 1
        self.halted = False
        self.room = True  # in the engine's pools: the twin has none, a test that fills one says so here
        self.accounts: dict[int, Account] = {}
        self.shares: dict[int, dict[int, int]] = {}  # by pool, by holder
        self.positions: dict[tuple[int, int], Position] = {}  # by account and instrument, in the order they were made
        self.books: dict[int, Book] = {}
        self.orders: dict[int, Order] = {}  # the working ones, by order_id
        self.quotes: dict[tuple[int, ...], Order] = {}  # of those, by account, instrument, group, side and level
        self.locked: set[int] = set()
        self.timers: dict[tuple[int, int], int] = {}  # by account and tag
        self.protections: dict[tuple[int, int], Protection] = {}  # by account and group
        self.client_ids: dict[tuple[int, tuple[int, ...]], Remembered] = {}
        self.remembered: deque[tuple[tuple[int, tuple[int, ...]], Remembered]] = deque(maxlen=max_client_ids)
        self.generations: list[int] = []  # by slot
        self.free_slots: list[int] = []  # the last freed is the last
        self.command = SimpleNamespace()
        self.collar: tuple[int, int] | None = None  # of the command at hand
        self.events: list[bytes] = []
        self.rules: dict[int, Callable[[Any], None]] = {}

    def apply(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        """Apply commands in order. Raises ValueError when `seq` does not continue `applied_seq`."""
        self.events = []
        for i in range(len(commands)):
            self.apply_one(read(commands[i : i + 1]))
        return np.frombuffer(b"".join(self.events), EVENT)

    def apply_one(self, c: SimpleNamespace) -> None:
        if c.seq != self.applied_seq + 1:
            raise ValueError(f"seq {c.seq} does not follow {self.applied_seq}")
        self.command = c
        self.applied_seq = c.seq
        self.now_ns = max(self.now_ns, c.ts_ns)
        try:
            need(c.kind in self.rules, Reason.UNKNOWN_KIND)
            self.rules[c.kind](c)
        except Rejected as rejected:
            self.reject(c, rejected.reason)

    def reject(self, c: SimpleNamespace, reason: Reason) -> None:
        other_body = c.kind in TRANSFERS | LISTINGS
        no_order = other_body or c.kind in (Kind.NEW_ORDER, Kind.QUOTE, Kind.MASS_CANCEL)
        until_ns = self.protections[c.account, c.group].until_ns if reason == Reason.MMP_FROZEN else 0
        self.emit(
            EventKind.REJECTED,
            reason=reason,
            side=0 if other_body else c.side,
            instrument=c.instrument,
            account=c.account,
            order_id=0 if no_order else c.order_id,
            contra_order_id=until_ns,
        )

    def emit(self, kind: EventKind, **fields: int) -> None:
        """Append an event; what is not given is zero."""
        self.event_seq += 1
        fields |= {"seq": self.event_seq, "command_seq": self.command.seq, "ts_ns": self.command.ts_ns, "kind": kind}
        layout = MONEY if kind in MONEY_KINDS else EVENT
        names = layout.names or ()
        assert fields.keys() <= set(names), fields.keys() - set(names)
        self.events.append(np.array([tuple(fields.get(name, 0) for name in names)], layout).tobytes())

    def emit_order(self, kind: EventKind, order: Order, **fields: int) -> None:
        self.emit(
            kind,
            side=order.side,
            instrument=order.instrument,
            account=order.account,
            order_id=order.order_id,
            **{"price": order.price, "qty": order.qty, "leaves_qty": order.leaves, "cum_qty": order.cum} | fields,
        )

    # Finding things

    def account(self, number: int) -> Account:
        need(number in self.accounts, Reason.UNKNOWN_ACCOUNT)
        return self.accounts[number]

    def book(self, number: int) -> Book:
        need(number in self.books, Reason.UNKNOWN_SYMBOL)
        return self.books[number]

    def position(self, account: int, instrument: int) -> Position:
        """The position, made if there is none: only for an accepted command."""
        return self.positions.setdefault((account, instrument), Position())

    def position_seen(self, account: int, instrument: int) -> Position:
        """The position, or one of nothing."""
        return self.positions.get((account, instrument), Position())

    def working(self, c: SimpleNamespace) -> Order:
        order = self.orders.get(c.order_id)
        if order is None or order.account != c.account:
            raise Rejected(Reason.ORDER_NOT_FOUND)
        return order

    def takes_orders(self, book: Book, ts_ns: int) -> bool:
        if self.halted or ts_ns >= book.terms.gate_ns:
            return False
        if book.status == Status.PRE_OPEN:
            return True
        return book.status in (Status.CONTINUOUS, Status.AUCTION) and bool(book.terms.open_ns <= ts_ns)


def read(command: NDArray[np.void]) -> SimpleNamespace:
    """An array of one command as plain ints under the names of its body."""
    kind = int(command["kind"][0])
    layout = TRANSFER if kind in TRANSFERS else LISTING if kind in LISTINGS else COMMAND
    record = np.ascontiguousarray(command).view(layout)[0]
    return SimpleNamespace(**dict(zip(layout.names or (), record.item(), strict=True)))
