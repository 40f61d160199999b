"""Recorded order flows: other engines' format in, our commands out.

A flow file is little-endian int64 rows [op, id, side, price, qty] for one book: op 0 adds a limit order, 1 cancels, 2
reduces the open quantity to qty (keeps priority), 3 replaces (same id; new price and open quantity; loses priority, may
cross), 4 is a market order, 5 an IOC limit order; side 0 buys, 1 sells. Prices are ticks.

What a row does not need is not read: the side of a cancel, reduce or replace (the order has one), the price of a cancel,
reduce or market order. To reduce or replace to nothing is to cancel. A row that makes no sense is refused, counted, and
changes nothing: an order under the id of one that still works, an unknown id, a quantity below one or beyond what an
order may have, a reduce to more than is open, a price out of the book. An IOC order may name any price on its far side.

A book has prices from 0 to its highest. A flow whose prices lie elsewhere is moved into it, as a whole, where they are
close enough to each other; what is printed of it has the flow's own prices.

The flow names orders by its own ids, and the engine by the ids it gives, so `resolve` runs the flow once, a command at a
time, to learn them; the resolved commands can then be applied in any batches, as a gateway's clients would have sent them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.engine import Engine
from engine.records import zeros
from engine.types import (
    COMMAND,
    EVENT,
    MAX_QTY,
    TRANSFER,
    UNCHANGED,
    EventKind,
    Flag,
    Kind,
    OrdType,
    Reason,
    TimeInForce,
)

ROW_FIELDS = 5
ADD, CANCEL, REDUCE, REPLACE, MARKET, IOC = range(6)
ACCOUNTS = 1_000
"""The orders belong to this many funded accounts, by id modulo: clearing then has real work."""
CASH_MICROS = 900_000_000_000_000
NOMINATIONS = 20
"""So many times MAX_QTY lots each account can deliver."""
_SYMBOL = "H100S-USE-H26112214"
_REFERENCE_PRICE = 2_650

_FOLLOWED = "kind order_id contra_order_id leaves_qty cum_qty contra_leaves_qty contra_cum_qty reason".split()
_LEAST = -1 << 63
_HASH_START, _HASH_FACTOR, _WORD = 1469598103934665603, 1099511628211, (1 << 64) - 1


class FlowError(ValueError):
    """A file is not a flow, and where."""


@dataclass(slots=True)
class Resolved:
    """A flow as commands. `ids` maps our order ids to the flow's; `refused` are the rows that come to nothing, and why.

    A price of the flow is ours plus `lowest_price`.
    """

    commands: NDArray[np.void]
    lowest_price: int = 0
    ids: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Working:
    """A working order as the flow's later rows need it."""

    order_id: int
    leaves: int
    cum: int = 0


def read_flow(path: Path) -> NDArray[np.int64]:
    """The rows of a flow file, (n, 5) int64. Raises FlowError, naming the first bad row where there is one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FlowError(f"{path} cannot be read: {error.strerror}") from error
    if not data or len(data) % (8 * ROW_FIELDS):
        raise FlowError(f"{path}: {len(data)} bytes are no whole number of rows of five 64-bit integers")
    rows = np.frombuffer(data, "<i8").reshape(-1, ROW_FIELDS)
    bad = np.flatnonzero((rows[:, 0] < ADD) | (rows[:, 0] > IOC) | (rows[:, 2] < 0) | (rows[:, 2] > 1))
    if len(bad):
        raise FlowError(f"{path}: row {bad[0]} has op {rows[bad[0], 0]} and side {rows[bad[0], 2]}")
    return rows


def market_engine() -> Engine:
    """An engine with one listed hour and a thousand accounts that can pay and deliver."""
    engine, catalogue = Engine(), Catalogue.load()
    _apply(engine, _for_each_account(Kind.OPEN_ACCOUNT))
    _apply(engine, _for_each_account(Kind.DEPOSIT, amount_micros=CASH_MICROS))
    listing = catalogue.listing(catalogue.contract(_SYMBOL), 1, 0, _REFERENCE_PRICE)
    listing["bond_ppm"] = 0  # so much capacity would tie up all of the cash
    _apply(engine, listing)
    for _ in range(NOMINATIONS):
        _apply(engine, _for_each_account(Kind.NOMINATE, instrument=1, lots=MAX_QTY))
    return engine


def _for_each_account(kind: Kind, **fields: int) -> NDArray[np.void]:
    commands = np.zeros(ACCOUNTS, TRANSFER)
    commands["kind"] = kind
    commands["account"] = np.arange(1, ACCOUNTS + 1)
    for name, value in fields.items():
        commands[name] = value
    return commands


def _apply(engine: Engine, commands: NDArray[np.void]) -> NDArray[np.void]:
    commands["seq"] = np.arange(engine.applied_seq + 1, engine.applied_seq + 1 + len(commands))
    events = engine.apply(commands)
    if (events["kind"] == EventKind.REJECTED).any():
        raise FlowError("the set-up was refused")
    return events


def resolve(rows: NDArray[np.int64], progress: Callable[[int], None] = lambda done: None) -> Resolved:
    """Turn a flow's rows into commands that continue `market_engine()`."""
    engine = market_engine()
    highest = int(engine.memory.arrays["books"]["max_price"][1])
    lowest_price = _lowest_price(rows, highest)
    resolved = Resolved(_draft(rows, engine.applied_seq + 1, lowest_price, highest), lowest_price)
    commands, working = resolved.commands, dict[int, _Working]()
    for at, (op, flow_id, _, _, qty) in enumerate(rows.tolist()):
        command, order = commands[at : at + 1], working.get(flow_id)
        if op in (CANCEL, REDUCE, REPLACE):
            if order is not None:
                _aim(command, order, op, qty)
        elif order is not None:
            command["qty"] = 0
            resolved.refused[at] = "REPEATED_ID"
        _follow(resolved, working, at, flow_id, engine.apply(command))
        if at % 10_000 == 0:
            progress(at)
    return resolved


def _aim(command: NDArray[np.void], order: _Working, op: int, qty: int) -> None:
    """Point a command at a working order. The engine's quantity is the new total, fills included."""
    command["order_id"] = order.order_id
    if op != CANCEL and qty == 0:
        command["kind"] = Kind.CANCEL
    elif op == REDUCE:
        # What is no reduction would lose its place.
        command["price"], command["qty"] = UNCHANGED, order.cum + qty if 0 < qty <= order.leaves else MAX_QTY + 1
    elif op == REPLACE:
        command["qty"] = order.cum + qty if 0 < qty <= MAX_QTY else MAX_QTY + 1


def _follow(resolved: Resolved, working: dict[int, _Working], at: int, flow_id: int, events: NDArray[np.void]) -> None:
    """Keep the working orders of the flow as the events of its row at `at` leave them."""
    for kind, order_id, contra_id, leaves, cum, contra_leaves, contra_cum, reason in events[_FOLLOWED].tolist():
        if kind == EventKind.NEW:
            resolved.ids[order_id] = flow_id
            working[flow_id] = _Working(order_id, leaves)
        elif kind == EventKind.TRADE:
            _set(working, flow_id, leaves, cum)
            _set(working, resolved.ids[contra_id], contra_leaves, contra_cum)
        elif kind == EventKind.REPLACED:
            _set(working, flow_id, leaves, cum)
        elif kind == EventKind.CANCELED:
            del working[flow_id]
        elif kind == EventKind.REJECTED:
            resolved.refused.setdefault(at, Reason(reason).name)


def _set(working: dict[int, _Working], flow_id: int, leaves: int, cum: int) -> None:
    if leaves:
        working[flow_id].leaves, working[flow_id].cum = leaves, cum
    else:
        del working[flow_id]


def _lowest_price(rows: NDArray[np.int64], highest: int) -> int:
    """The price of the flow that is the book's 0: 0, or what brings all orders that may rest within the book."""
    op, _, _, price, qty = rows.T
    prices = price[((op == ADD) | (op == REPLACE)) & (qty > 0)].tolist()
    low, high = min(prices, default=0), max(prices, default=0)
    if (low >= 0 and high <= highest) or high - low > highest:
        return 0
    return max(low - (highest - (high - low)) // 2, _LEAST)  # in the middle


def _draft(rows: NDArray[np.int64], first_seq: int, lowest_price: int, highest: int) -> NDArray[np.void]:
    """Everything that needs no order id of ours."""
    op, flow_id, side, _, qty = rows.T
    commands = zeros(len(rows), COMMAND)
    commands["seq"] = np.arange(first_seq, first_seq + len(rows))
    commands["account"] = 1 + flow_id % ACCOUNTS
    kinds = np.array([Kind.NEW_ORDER, Kind.CANCEL, Kind.AMEND, Kind.AMEND, Kind.NEW_ORDER, Kind.NEW_ORDER])
    commands["kind"] = kinds[op]
    is_new = commands["kind"] == Kind.NEW_ORDER
    commands["instrument"] = is_new
    commands["side"] = np.where(is_new, side, 0)
    is_priced = (op == ADD) | (op == REPLACE) | (op == IOC)
    commands["price"] = np.where(is_priced, _prices(rows, lowest_price, highest), 0)
    commands["qty"] = np.where(op == CANCEL, 0, qty)
    commands["ord_type"] = np.where(op == MARKET, OrdType.MARKET, OrdType.LIMIT)
    commands["time_in_force"] = np.where(op >= MARKET, TimeInForce.IOC, TimeInForce.GTG)
    commands["flags"] = np.where(op == REPLACE, Flag.REQUEUE, 0)
    return commands


def _prices(rows: NDArray[np.int64], lowest_price: int, highest: int) -> NDArray[np.int64]:
    """The flow's prices as ours; one out of the book becomes highest + 1, which is refused."""
    op, _, side, price, _ = rows.T
    # Compared before it is moved: the difference may not fit.
    above, below = price > lowest_price + highest, price < lowest_price
    ours = np.where(above | below, highest + 1, price - lowest_price)
    # No order beyond the book is there to trade with, so an IOC order may as well stop at its edge.
    ours[(op == IOC) & (side == 0) & above] = highest
    ours[(op == IOC) & (side == 1) & below] = 0
    return ours


def run(engine: Engine, commands: NDArray[np.void], batch: int) -> NDArray[np.void]:
    """Apply resolved commands in batches; all events."""
    parts = [engine.apply(commands[at : at + batch]).copy() for at in range(0, len(commands), batch)]
    return np.concatenate([np.zeros(0, EVENT), *parts])


def summary(resolved: Resolved, events: NDArray[np.void]) -> dict[str, Any]:
    """What a flow came to: trades, quantity, notional (price times quantity, in ticks and lots) and the trade hash."""
    trades = events[events["kind"] == EventKind.TRADE]
    hashed, quantity, notional = _HASH_START, 0, 0
    columns = (trades["contra_order_id"], trades["order_id"], trades["price"], trades["qty"])
    for maker, taker, ours, qty in zip(*(column.tolist() for column in columns), strict=True):
        price = ours + resolved.lowest_price
        for value in (resolved.ids[maker], resolved.ids[taker], price, qty):
            hashed = ((hashed ^ value) * _HASH_FACTOR) & _WORD
        quantity += qty
        notional += price * qty
    return {
        "commands": len(resolved.commands),
        "rejected": len(resolved.refused),
        "rejected_for": dict(sorted(Counter(resolved.refused.values()).items())),
        "trades": len(trades),
        "qty": quantity,
        "notional": notional,
        "hash": f"{hashed:016x}",
    }
