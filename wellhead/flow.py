"""Recorded order flows: other engines' format in, our commands out.

A flow file is little-endian int64 rows [op, id, side, price, qty] for one book: op 0 adds a limit order, 1 cancels, 2
reduces the open quantity to qty (keeps priority), 3 replaces (same id; new price and open quantity; loses priority, may
cross), 4 is a market order, 5 an IOC limit order; side 0 buys, 1 sells. Prices are ticks.

The flow names orders by its own ids, and the engine by the ids it gives, so `resolve` runs the flow once, a command at a
time, to learn them; the resolved commands can then be applied in any batches, as a gateway's clients would have sent them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.engine import Engine
from engine.records import zeros
from engine.types import COMMAND, EVENT, MAX_QTY, TRANSFER, UNCHANGED, EventKind, Flag, Kind, OrdType, TimeInForce

ROW_FIELDS = 5
ADD, CANCEL, REDUCE, REPLACE, MARKET, IOC = range(6)
ACCOUNTS = 1_000
"""The orders belong to this many funded accounts, by id modulo: clearing then has real work."""
CASH_MICROS = 900_000_000_000_000
CAPACITY_LOTS = MAX_QTY
_SYMBOL = "H100S-USE-H26112214"
_REFERENCE_PRICE = 2_650

_HASH_START, _HASH_FACTOR, _WORD = 1469598103934665603, 1099511628211, (1 << 64) - 1


class FlowError(ValueError):
    """A file is not a flow, and where."""


@dataclass(slots=True)
class Resolved:
    """A flow as commands. `ids` maps our order ids to the flow's; `refused` are the rows that come to nothing."""

    commands: NDArray[np.void]
    ids: dict[int, int] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)


def read_flow(path: Path) -> NDArray[np.int64]:
    """The rows of a flow file, (n, 5) int64. Raises FlowError naming the first bad row."""
    data = path.read_bytes()
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
    _apply(engine, catalogue.listing(catalogue.contract(_SYMBOL), 1, 0, _REFERENCE_PRICE))
    _apply(engine, _for_each_account(Kind.NOMINATE, instrument=1, lots=CAPACITY_LOTS))
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
    commands = _draft(rows, engine.applied_seq + 1)
    resolved = Resolved(commands)
    ours: dict[int, int] = {}  # the flow's id -> our order id
    filled: dict[int, int] = {}  # the flow's id -> cum_qty
    for at, (op, flow_id, _, _, qty) in enumerate(rows.tolist()):
        if op in (CANCEL, REDUCE, REPLACE):
            commands["order_id"][at] = ours.get(flow_id, 0)
        if op in (REDUCE, REPLACE):
            # Ours is the new total, fills included.
            commands["qty"][at] = qty + filled.get(flow_id, 0)
        for event in engine.apply(commands[at : at + 1]):
            if event["kind"] == EventKind.NEW:
                ours[flow_id] = int(event["order_id"])
                resolved.ids[int(event["order_id"])] = flow_id
            elif event["kind"] == EventKind.TRADE:
                filled[flow_id] = int(event["cum_qty"])
                filled[resolved.ids[int(event["contra_order_id"])]] = int(event["contra_cum_qty"])
            elif event["kind"] == EventKind.REJECTED:
                resolved.refused.append(at)
        if at % 10_000 == 0:
            progress(at)
    return resolved


def _draft(rows: NDArray[np.int64], first_seq: int) -> NDArray[np.void]:
    """Everything that needs no order id of ours."""
    op, flow_id, side, price, qty = rows.T
    commands = zeros(len(rows), COMMAND)
    commands["seq"] = np.arange(first_seq, first_seq + len(rows))
    commands["account"] = 1 + flow_id % ACCOUNTS
    kinds = np.array([Kind.NEW_ORDER, Kind.CANCEL, Kind.AMEND, Kind.AMEND, Kind.NEW_ORDER, Kind.NEW_ORDER])
    commands["kind"] = kinds[op]
    is_new = commands["kind"] == Kind.NEW_ORDER
    commands["instrument"] = is_new
    commands["side"] = np.where(is_new, side, 0)
    commands["price"] = np.select([op == MARKET, op == CANCEL, op == REDUCE], [0, 0, UNCHANGED], price)
    commands["qty"] = np.where(op == CANCEL, 0, qty)
    commands["ord_type"] = np.where(op == MARKET, OrdType.MARKET, OrdType.LIMIT)
    commands["time_in_force"] = np.where(op >= MARKET, TimeInForce.IOC, TimeInForce.GTG)
    commands["flags"] = np.where(op == REPLACE, Flag.REQUEUE, 0)
    return commands


def run(engine: Engine, commands: NDArray[np.void], batch: int) -> NDArray[np.void]:
    """Apply resolved commands in batches; all events."""
    parts = [engine.apply(commands[at : at + batch]).copy() for at in range(0, len(commands), batch)]
    return np.concatenate([np.zeros(0, EVENT), *parts])


def summary(resolved: Resolved, events: NDArray[np.void]) -> dict[str, Any]:
    """What a flow came to: trades, quantity, notional (price times quantity, in ticks and lots) and the trade hash."""
    trades = events[events["kind"] == EventKind.TRADE]
    hashed = _HASH_START
    columns = (trades["contra_order_id"], trades["order_id"], trades["price"], trades["qty"])
    for maker, taker, price, qty in zip(*(column.tolist() for column in columns), strict=True):
        for value in (resolved.ids[maker], resolved.ids[taker], price, qty):
            hashed = ((hashed ^ value) * _HASH_FACTOR) & _WORD
    qty, price = trades["qty"].astype(np.int64), trades["price"].astype(np.int64)
    return {
        "commands": len(resolved.commands),
        "rejected": len(resolved.refused),
        "trades": len(trades),
        "qty": int(qty.sum()),
        "notional": int((qty * price).sum()),
        "hash": f"{hashed:016x}",
    }
