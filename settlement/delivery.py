"""Deliveries: from the list the engine makes at the gate to DELIVER and DELIST commands after the hour.

At the gate the receivers are assigned to the providers, once, and the plan is stored. When the hour has ended each
delivery is offered as a command, once in the life of the process; it counts as made when its event comes back through
the log. Since the plan and what became of it live in the database, a restart offers exactly what the log does not
have.

For now every provider performs fully: there is no meter yet.
"""

from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import COMMAND, MONEY, TRANSFER, EventKind, Kind
from settlement.database import Database
from settlement.performance import PPM, assign, performance, shares
from settlement.registry import Listing, Registry, Terms

SCHEMA = """
CREATE TABLE IF NOT EXISTS closed_listings (
    asset INTEGER PRIMARY KEY,
    instrument INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    unplanned_seq INTEGER,
    delisted_seq INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS deliveries (
    asset INTEGER NOT NULL,
    place INTEGER NOT NULL,
    provider INTEGER NOT NULL,
    receiver INTEGER NOT NULL,
    lots INTEGER NOT NULL CHECK (lots > 0),
    refund_micros INTEGER NOT NULL,
    damages_micros INTEGER NOT NULL,
    done_seq INTEGER,
    reason INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (asset, provider, receiver)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_open ON deliveries (asset, place) WHERE done_seq IS NULL
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One provider's lots to one receiver, and what is not paid for them."""

    provider: int
    receiver: int
    lots: int
    refund_micros: int
    damages_micros: int


@dataclass(slots=True)
class _Closed:
    """A listing past its gate."""

    asset: int
    instrument: int
    end_ns: int
    offered: bool = False  # its deliveries were handed out
    delist_offered: bool = False
    stuck: bool = False  # the plan cannot be carried out: the engine refused a part, or somebody delivered otherwise
    pending: dict[tuple[int, int], Delivery] = field(default_factory=dict)


class Deliveries:
    """The plan of every closed listing. `on_batch` and `due` may be called from two threads."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._registry = registry
        self._lock = Lock()
        self._closed: dict[int, _Closed] = {}  # by asset

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)

    def load(self) -> None:
        """Read the open plans from the database; what was offered and never came back will be offered again."""
        query = "SELECT asset, instrument, end_ns, unplanned_seq FROM closed_listings WHERE delisted_seq IS NULL"
        closed = {
            asset: _Closed(asset, instrument, end_ns, stuck=unplanned_seq is not None)
            for asset, instrument, end_ns, unplanned_seq in self._database.rows(query)
        }
        query = (
            "SELECT asset, reason, provider, receiver, lots, refund_micros, damages_micros"
            " FROM deliveries WHERE done_seq IS NULL ORDER BY asset, place"
        )
        for asset, reason, *row in self._database.rows(query):
            if asset in closed:
                delivery = Delivery(*row)
                closed[asset].pending[delivery.provider, delivery.receiver] = delivery
                closed[asset].stuck |= reason != 0
        with self._lock:
            self._closed = closed

    def on_batch(self, commands: NDArray[Any], events: NDArray[Any], terms: Terms) -> None:
        """Take in gates that closed, deliveries made, refused, and listings gone. In the caller's transaction."""
        kind = events["kind"]
        watched = np.isin(kind, _WATCHED)
        asked = commands["kind"][events["command_seq"] - commands["seq"][0]]
        watched |= (kind == EventKind.REJECTED) & (asked == Kind.DELIVER)
        if not watched.any():
            return
        money = events.view(MONEY)
        with self._lock:
            for at in np.flatnonzero(watched).tolist():
                if kind[at] == EventKind.CLOSED:
                    self._close(money, at, int(terms.asset[at]))
                elif kind[at] == EventKind.DELIVERED:
                    self._delivered(money[at], int(terms.asset[at]))
                elif kind[at] == EventKind.DELISTED:
                    self._delisted(int(terms.asset[at]), int(events["command_seq"][at]))
                else:
                    self._rejected(commands, events[at], int(terms.asset[at]))

    def due(self, now_ns: int) -> NDArray[Any]:
        """The commands (COMMAND) whose time has come: deliveries of ended hours, then DELIST of what is delivered."""
        with self._lock:
            ready = [closed for closed in self._closed.values() if closed.end_ns <= now_ns and not closed.stuck]
            commands = [self._offer(closed) for closed in ready]
        return np.concatenate([np.zeros(0, COMMAND), *commands])

    def open(self) -> list[tuple[int, Delivery]]:
        """(listing's asset, delivery) of everything planned and not yet made."""
        with self._lock:
            return [(closed.asset, item) for closed in self._closed.values() for item in closed.pending.values()]

    def _offer(self, closed: _Closed) -> NDArray[Any]:
        if closed.pending and not closed.offered:
            closed.offered = True
            return _deliver_commands(closed)
        if not closed.pending and not closed.delist_offered:
            closed.delist_offered = True
            command = np.zeros(1, COMMAND)
            command["kind"], command["instrument"] = Kind.DELIST, closed.instrument
            return command
        return np.zeros(0, COMMAND)

    def _close(self, money: NDArray[Any], at: int, asset: int) -> None:
        """Plan a listing: the engine's list follows the CLOSED event, under the same command."""
        listing = self._registry.listing_of(asset)
        last = int(np.searchsorted(money["command_seq"], money["command_seq"][at], "right"))
        due = money[at:last]
        due = due[due["kind"] == EventKind.DELIVERY_DUE]
        closed = _Closed(asset, listing.instrument, listing.end_ns)
        for delivery in plan(due, listing):
            closed.pending[delivery.provider, delivery.receiver] = delivery
        self._closed[asset] = closed
        self._database.execute(
            "INSERT INTO closed_listings VALUES (?, ?, ?, NULL, NULL)", (asset, closed.instrument, closed.end_ns)
        )
        rows = [
            (asset, place, item.provider, item.receiver, item.lots, item.refund_micros, item.damages_micros)
            for place, item in enumerate(closed.pending.values())
        ]
        self._database.execute_many("INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, NULL, 0)", rows)

    def _delivered(self, event: Any, asset: int) -> None:
        provider, receiver, seq = int(event["account"]), int(event["contra_account"]), int(event["command_seq"])
        closed = self._closed[asset]
        planned = closed.pending.get((provider, receiver))
        if planned is None or planned.lots != event["lots"]:
            closed.stuck = True
            self._database.execute("UPDATE closed_listings SET unplanned_seq = ? WHERE asset = ?", (seq, asset))
            return
        del closed.pending[provider, receiver]
        self._database.execute(
            "UPDATE deliveries SET done_seq = ? WHERE asset = ? AND provider = ? AND receiver = ?",
            (seq, asset, provider, receiver),
        )

    def _delisted(self, asset: int, seq: int) -> None:
        del self._closed[asset]
        self._database.execute("UPDATE closed_listings SET delisted_seq = ? WHERE asset = ?", (seq, asset))

    def _rejected(self, commands: NDArray[Any], event: Any, asset: int) -> None:
        """A planned delivery that the engine refused is not offered again; `verify` shows it with the reason."""
        at = int(event["command_seq"]) - int(commands["seq"][0])
        command = commands[at : at + 1].view(TRANSFER)[0]
        closed = self._closed.get(asset)
        asked = Delivery(*(int(command[name]) for name in _DELIVERY_FIELDS))
        if closed is None or closed.pending.get((asked.provider, asked.receiver)) != asked:
            return
        closed.stuck = True
        self._database.execute(
            "UPDATE deliveries SET reason = ? WHERE asset = ? AND provider = ? AND receiver = ?",
            (int(event["reason"]), asset, asked.provider, asked.receiver),
        )


_WATCHED = [EventKind.CLOSED, EventKind.DELIVERED, EventKind.DELISTED]
_DELIVERY_FIELDS = ("account", "contra_account", "lots", "refund_micros", "damages_micros")


def plan(due: NDArray[Any], listing: Listing) -> list[Delivery]:
    """The deliveries of one listing from its DELIVERY_DUE events (MONEY). Lowest account numbers first."""
    due = due[np.argsort(due["account"], kind="stable")]
    short, long = due[due["lots"] < 0], due[due["lots"] > 0]
    lots_short = (-short["lots"]).tolist()
    pairs = assign(lots_short, long["lots"].tolist())
    deliveries = []
    for provider, group in groupby(pairs, key=itemgetter(0)):
        mine = list(group)
        escrow = int(short["escrow_micros"][provider])
        for (_, receiver, lots), share in zip(mine, shares(escrow, [pair[2] for pair in mine]), strict=True):
            outcome = performance(share, lots, listing.minutes, lots * listing.minutes * PPM, share)
            deliveries.append(
                Delivery(
                    int(short["account"][provider]),
                    int(long["account"][receiver]),
                    lots,
                    outcome.refund_micros,
                    outcome.damages_micros + outcome.penalty_micros,
                )
            )
    return deliveries


def _deliver_commands(closed: _Closed) -> NDArray[Any]:
    commands = np.zeros(len(closed.pending), TRANSFER)
    commands["kind"], commands["instrument"] = Kind.DELIVER, closed.instrument
    for at, delivery in enumerate(closed.pending.values()):
        commands["account"][at] = delivery.provider
        commands["contra_account"][at] = delivery.receiver
        commands["lots"][at] = delivery.lots
        commands["refund_micros"][at] = delivery.refund_micros
        commands["damages_micros"][at] = delivery.damages_micros
    return commands.view(COMMAND)
