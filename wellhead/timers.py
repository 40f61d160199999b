"""What falls due by itself: orders good till a date, and timers that cancel an account's orders.

The engine looks at no clock, so the node does: here is what will fall due and when, and at its time the command that says
so. Nothing here is the truth; it is read out of the engine's tables at start, and what the log says since is added.
"""

import numpy as np
from numpy.typing import NDArray
from sortedcontainers import SortedSet

from engine.engine import Engine
from engine.state import HAS_TERMS
from engine.types import COMMAND, SLOT_BITS, EventKind, Kind, TimeInForce

GTD, DEAD_MAN_SET = int(TimeInForce.GTD), int(EventKind.DEAD_MAN_SET)
MAX_COMMANDS = 4_096
"""Due at once, in one batch; the rest is due the next time."""
NOTHING = np.zeros(0, COMMAND)
FORGET_FROM = 1_024
"""Orders remembered, from which on those that have ended are dropped whenever they may be the larger part."""

Expiry = tuple[int, int, int]
"""expire_ns, order_id, account"""


class Timers:
    """Follows the engine from batch to batch. Not before `due` says so is anything done, and then by the log."""

    def __init__(self, engine: Engine) -> None:
        """Read what the engine has now."""
        self._engine = engine
        self._expiries: SortedSet = SortedSet(self._working())
        self._forget_at = 2 * len(self._expiries) + FORGET_FROM
        rows = engine.memory.arrays["timers"][: int(engine.memory.header["timers_used"])]
        self._timers = {
            (int(row["account"]), int(row["tag"])): int(row["expire_ns"]) for row in rows if row["account"] != 0
        }
        self._timers_due: SortedSet = SortedSet((due_ns, *key) for key, due_ns in self._timers.items())

    def _working(self) -> list[Expiry]:
        """The working orders that are good till a date."""
        arrays, used = self._engine.memory.arrays, int(self._engine.memory.header["orders_used"])
        orders, terms = arrays["orders"][:used], arrays["terms"][:used]
        dated = (orders["flags"] & HAS_TERMS != 0) & (terms["time_in_force"] == GTD)
        slots = np.flatnonzero(dated & (orders["leaves_qty"] > 0))
        columns = (terms["expire_ns"][slots], orders["order_id"][slots], orders["account"][slots])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def on_batch(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        """Take in what a batch has set."""
        # Most batches have neither: looking through bytes is the quickest way to see it.
        if GTD in commands["time_in_force"].tobytes():
            dated = commands[(commands["kind"] == Kind.NEW_ORDER) & (commands["time_in_force"] == GTD)]
            self._add_orders(dated, events)
        if DEAD_MAN_SET in events["kind"].tobytes():
            for event in events[events["kind"] == DEAD_MAN_SET]:
                self._set_timer((int(event["account"]), int(event["order_id"])), int(event["contra_order_id"]))

    def _add_orders(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        accepted = events[events["kind"] == EventKind.NEW]
        places = np.searchsorted(accepted["command_seq"], commands["seq"])
        for command, place in zip(commands, places.tolist(), strict=True):
            if place < len(accepted) and accepted["command_seq"][place] == command["seq"]:
                order_id = int(accepted["order_id"][place])
                self._expiries.add((int(command["expire_ns"]), order_id, int(command["account"])))
        if len(self._expiries) > self._forget_at:
            self._expiries = SortedSet(self._working())
            self._forget_at = 2 * len(self._expiries) + FORGET_FROM

    def _set_timer(self, key: tuple[int, int], due_ns: int) -> None:
        before = self._timers.pop(key, None)
        if before is not None:
            self._timers_due.discard((before, *key))
        if due_ns:
            self._timers[key] = due_ns
            self._timers_due.add((due_ns, *key))

    def due(self, now_ns: int, at_most: int = MAX_COMMANDS) -> NDArray[np.void]:
        """The commands (COMMAND) for what is due, earliest first. The caller must have them applied before it asks again."""
        rows: list[tuple[int, int, int, int]] = []
        while self._timers_due and self._timers_due[0][0] <= now_ns and len(rows) < at_most:
            _, account, tag = self._timers_due.pop(0)
            del self._timers[account, tag]
            rows.append((Kind.DEAD_MAN, account, 0, tag))
        while self._expiries and self._expiries[0][0] <= now_ns and len(rows) < at_most:
            _, order_id, account = self._expiries.pop(0)
            if self._works(order_id):
                rows.append((Kind.EXPIRE, account, order_id, 0))
        if not rows:
            return NOTHING
        commands = np.zeros(len(rows), COMMAND)
        for place, (kind, account, order_id, tag) in enumerate(rows):
            row = commands[place]
            row["kind"], row["account"], row["order_id"], row["tag"] = kind, account, order_id, tag
        return commands

    def _works(self, order_id: int) -> bool:
        order = self._engine.memory.arrays["orders"][order_id & ((1 << SLOT_BITS) - 1)]
        return bool(order["order_id"] == order_id and order["leaves_qty"] > 0)
