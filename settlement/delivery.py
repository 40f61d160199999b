"""Deliveries: from the list the engine makes at the gate to DELIVER and DELIST commands after the hour.

At the gate the receivers are assigned to the providers, once, and the plan is stored; each provider's lots are
numbered, and each receiver has a run of them. When the hour has ended a provider's deliveries are offered as commands,
once in the life of the process; they count as made when their events come back through the log. Since the plan and
what became of it live in the database, a restart offers exactly what the log does not have.

What a delivery pays: a provider without a meter performed fully. One with a meter is paid by its reports
(`metering.py`), as soon as all its chains have reached the end of the hour, at the latest when the deadline has passed;
a minute that was not reported counts as down. The sums are those of `performance.py` at the hour's index. Nothing
credited at all is a default: the escrow goes back whole, and the charge is the cost of cover above the price, and 15 %
of the notional. Cover is what the house bought (`cover.py`), or else it is paid out in cash at the index. The engine
takes damages from pay, then from the bond of the provider in this contract; what neither has is the `shortfall_micros`
of the delivery, stored and shown.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter, itemgetter
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import NS, Catalogue
from engine.types import COMMAND, MONEY, TRANSFER, EventKind, Kind
from settlement.cover import Cover, Covers, Run
from settlement.database import Database
from settlement.indices import Indices
from settlement.meter import Meter, MeterError, Refusal, read_report, symbol_of
from settlement.metering import Metering, MeteringError
from settlement.performance import PPM, assign, default_charge, performance, shares
from settlement.registry import Listing, Registry, Terms
from settlement.tickets import Ticket

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS closed_listings (
    asset INTEGER PRIMARY KEY,
    unplanned_seq INTEGER,
    delisted_seq INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS deliveries (
    asset INTEGER NOT NULL,
    place INTEGER NOT NULL,
    provider INTEGER NOT NULL,
    receiver INTEGER NOT NULL,
    first_lot INTEGER NOT NULL,
    lots INTEGER NOT NULL CHECK (lots > 0),
    share_micros INTEGER NOT NULL,
    refund_micros INTEGER,
    damages_micros INTEGER,
    shortfall_micros INTEGER,
    done_seq INTEGER,
    reason INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (asset, provider, receiver)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_open ON deliveries (asset, place) WHERE done_seq IS NULL
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One provider's lots to one receiver, and the part of the escrow that was paid for them."""

    provider: int
    receiver: int
    first_lot: int
    lots: int
    share_micros: int


Pair = tuple[int, int]
"""Provider and receiver: one delivery of a listing."""


@dataclass(slots=True)
class _Closed:
    """A listing past its gate."""

    listing: Listing
    index_price: int
    offered: set[int] = field(default_factory=set)  # providers whose deliveries were handed out
    delist_offered: bool = False
    stuck: bool = False  # the plan cannot be carried out: the engine refused a part, or somebody delivered otherwise
    planned: dict[Pair, Delivery] = field(default_factory=dict)
    made: set[Pair] = field(default_factory=set)
    meters: dict[int, Meter] = field(default_factory=dict)  # those looked at so far

    def of(self, provider: int) -> list[Delivery]:
        return [item for item in self.planned.values() if item.provider == provider]

    def pending(self) -> list[Delivery]:
        """What is not made yet, in the order of the plan."""
        return [item for pair, item in self.planned.items() if pair not in self.made]


class Deliveries:
    """The plan of every closed listing. `on_batch` on one thread; `due`, `report` and `tickets` may be on another."""

    def __init__(
        self, database: Database, registry: Registry, indices: Indices, metering: Metering, catalogue: Catalogue
    ) -> None:
        self._database = database
        self._registry = registry
        self._indices = indices
        self._metering = metering
        self._catalogue = catalogue
        self.covers = Covers(database, registry)
        self._lock = Lock()
        self._closed: dict[int, _Closed] = {}  # by asset

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)
        self.covers.create()

    def load(self) -> None:
        """Read the open plans from the database; what was offered and never came back will be offered again."""
        query = "SELECT asset, unplanned_seq FROM closed_listings WHERE delisted_seq IS NULL"
        closed = {
            asset: _Closed(
                self._registry.listing_of(asset), self._indices.price_of(asset), stuck=unplanned_seq is not None
            )
            for asset, unplanned_seq in self._database.rows(query)
        }
        query = (
            "SELECT asset, reason, done_seq, provider, receiver, first_lot, lots, share_micros"
            " FROM deliveries JOIN closed_listings USING (asset) WHERE delisted_seq IS NULL ORDER BY asset, place"
        )
        for asset, reason, done_seq, *row in self._database.rows(query):
            delivery = Delivery(*row)
            pair = (delivery.provider, delivery.receiver)
            closed[asset].planned[pair] = delivery
            if done_seq is not None:
                closed[asset].made.add(pair)
            closed[asset].stuck |= reason != 0
        with self._lock:
            self._closed = closed
            self.covers.load()

    def on_batch(self, commands: NDArray[Any], events: NDArray[Any], terms: Terms) -> None:
        """Take in gates that closed, deliveries made, refused, and listings gone. In the caller's transaction."""
        kind = events["kind"]
        watched = np.isin(kind, _WATCHED)
        asked = commands["kind"][events["command_seq"] - commands["seq"][0]]
        watched |= (kind == EventKind.REJECTED) & (asked == Kind.DELIVER)
        money = events.view(MONEY)
        with self._lock:
            self.covers.take_orders(commands, events, terms)
            for at in np.flatnonzero(watched).tolist():
                if kind[at] == EventKind.CLOSED:
                    self._close(money, at, int(terms.asset[at]))
                elif kind[at] == EventKind.DELIVERED:
                    self._delivered(money[at], int(terms.asset[at]))
                elif kind[at] == EventKind.DELISTED:
                    self._delisted(int(terms.asset[at]), int(events["command_seq"][at]))
                else:
                    self._rejected(commands, events[at], int(terms.asset[at]))
            self.covers.take_transfers(commands, events)

    def report(self, data: bytes, now_ns: int, account: int | None = None) -> int:
        """Take a meter's report, durable when this returns; how many records it had.

        With `account` only a report of that provider is taken. All or nothing; raises MeterError.
        """
        records = read_report(data)
        provider, symbol = int(records["account"][0]), symbol_of(records)
        if account is not None and account != provider:
            raise MeterError(Refusal.NOT_DUE, f"a report of account {provider} from account {account}")
        with self._lock:
            closed = self._due_from(provider, symbol)
            meter = self._meter(closed, provider)
            if meter is None:
                raise MeterError(Refusal.NOT_METERED, f"account {provider} has no meter key")
            links = meter.check(data, now_ns)
            if now_ns > self._deadline_ns(closed):
                raise MeterError(Refusal.LATE, f"{symbol} had to be reported within {self._metering.deadline_s} s")
            self._metering.store(closed.listing.asset, provider, data)
            meter.take(data, links)
        return len(records)

    def _due_from(self, provider: int, symbol: str) -> _Closed:
        for closed in self._closed.values():
            settled = closed.offered | {made[0] for made in closed.made}
            if closed.listing.symbol == symbol and closed.of(provider) and provider not in settled:
                return closed
        raise MeterError(Refusal.NOT_DUE, f"account {provider} has nothing to deliver in {symbol}")

    def due(self, now_ns: int) -> NDArray[Any]:
        """The commands (COMMAND) whose time has come: deliveries of ended hours, then DELIST of what is delivered."""
        with self._lock:
            ready = [closed for closed in self._closed.values() if closed.listing.end_ns <= now_ns and not closed.stuck]
            commands = [part for closed in ready for part in self._offer(closed, now_ns)]
            commands += self.covers.due()
        return np.concatenate([np.zeros(0, COMMAND), *commands])

    def open(self) -> list[tuple[int, Delivery]]:
        """(listing's asset, delivery) of everything planned and not yet made."""
        with self._lock:
            return [(asset, item) for asset, closed in self._closed.items() for item in closed.pending()]

    def tickets(self, account: int, venue: str) -> list[Ticket]:
        """What an account delivers or receives in listings that are not gone yet, made or not."""
        with self._lock:
            return [
                _ticket(closed.listing, run, venue)
                for closed in self._closed.values()
                for run in self._runs(closed)
                if account in (run.provider, run.member)
            ]

    def _runs(self, closed: _Closed) -> list[Run]:
        """Who uses which lots, in the order of the plan; of what the house receives, those whom it has it for."""
        house = self.covers.account
        own = [(item.provider, item.first_lot, item.lots) for item in closed.planned.values() if item.receiver == house]
        others = [
            Run(item.provider, item.first_lot, item.lots, item.receiver)
            for item in closed.planned.values()
            if item.receiver != house
        ]
        return [*others, *self.covers.runs(closed.listing.asset, own)]

    def _offer(self, closed: _Closed, now_ns: int) -> Iterator[NDArray[Any]]:
        pending = closed.pending()
        for provider, items in groupby(pending, key=attrgetter("provider")):
            if provider in closed.offered:
                continue
            try:
                meter = self._meter(closed, provider)
            except MeteringError as error:
                # Damaged evidence is for the operator to look at; the market goes on.
                log.error("deliveries of listing %d are held: %s", closed.listing.asset, error)
                closed.stuck = True
                return
            if meter is None or meter.is_complete or now_ns > self._deadline_ns(closed):
                mine = list(items)
                orders, undecided = self._cover(closed, mine, meter, now_ns)
                yield from orders
                if not undecided:
                    closed.offered.add(provider)
                    yield from self._deliver(closed, mine, meter)
        if not pending and not closed.delist_offered:
            closed.delist_offered = True
            command = np.zeros(1, COMMAND)
            command["kind"], command["instrument"] = Kind.DELIST, closed.listing.instrument
            yield command

    def _cover(
        self, closed: _Closed, items: list[Delivery], meter: Meter | None, now_ns: int
    ) -> tuple[list[NDArray[Any]], bool]:
        """Orders for what a provider has not delivered at all, and whether the outcome of some is still awaited."""
        orders, keys = [], []
        for item in items:
            if credited_ppm(item, closed.listing, meter) == 0:
                keys.append((closed.listing.asset, item.provider, item.receiver))
                if not self.covers.is_undecided(keys[-1]):
                    order = self.covers.order(keys[-1], closed.listing, item.lots, closed.index_price, now_ns)
                    orders += [] if order is None else [order]
        return orders, any(self.covers.is_undecided(key) for key in keys)

    def _deliver(self, closed: _Closed, items: list[Delivery], meter: Meter | None) -> Iterator[NDArray[Any]]:
        """The DELIVER commands of a provider; behind one that was covered what its receiver pays for that."""
        for item in items:
            key = (closed.listing.asset, item.provider, item.receiver)
            yield _deliver_command(closed, item, meter, self.covers.of(key))
            payment = self.covers.first_payment(key, item.share_micros, item.lots)
            if payment is not None:
                yield payment

    def _deadline_ns(self, closed: _Closed) -> int:
        return closed.listing.end_ns + self._metering.deadline_s * NS

    def _meter(self, closed: _Closed, provider: int) -> Meter | None:
        """The meter of a provider, from its stored reports when it is met first; None when it is not metered."""
        if not self._metering.keys_of(provider):
            return None
        if provider not in closed.meters:
            lots = sum(item.lots for item in closed.of(provider))
            closed.meters[provider] = self._metering.open(closed.listing, provider, lots, self._watts(closed))
        return closed.meters[provider]

    def _watts(self, closed: _Closed) -> int:
        return self._catalogue.class_by_id[closed.listing.class_id].watts_per_lot

    def _close(self, money: NDArray[Any], at: int, asset: int) -> None:
        """Plan a listing: the engine's list follows the CLOSED event, under the same command."""
        listing = self._registry.listing_of(asset)
        last = int(np.searchsorted(money["command_seq"], money["command_seq"][at], "right"))
        due = money[at:last]
        due = due[due["kind"] == EventKind.DELIVERY_DUE]
        closed = _Closed(listing, self._indices.price_of(asset))
        for delivery in plan(due):
            closed.planned[delivery.provider, delivery.receiver] = delivery
        self._closed[asset] = closed
        self._database.execute("INSERT INTO closed_listings VALUES (?, NULL, NULL)", (asset,))
        rows = [
            (asset, place, item.provider, item.receiver, item.first_lot, item.lots, item.share_micros)
            for place, item in enumerate(closed.planned.values())
        ]
        self._database.execute_many(
            "INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, NULL, 0)", rows
        )

    def _delivered(self, event: Any, asset: int) -> None:
        provider, receiver, seq = int(event["account"]), int(event["contra_account"]), int(event["command_seq"])
        closed, pair = self._closed[asset], (provider, receiver)
        planned = closed.planned.get(pair)
        if planned is None or pair in closed.made or planned.lots != event["lots"]:
            closed.stuck = True
            self._database.execute("UPDATE closed_listings SET unplanned_seq = ? WHERE asset = ?", (seq, asset))
            return
        closed.made.add(pair)
        sums = [int(event[name]) for name in ("refund_micros", "damages_micros", "shortfall_micros")]
        self._database.execute(
            "UPDATE deliveries SET refund_micros = ?, damages_micros = ?, shortfall_micros = ?, done_seq = ?"
            " WHERE asset = ? AND provider = ? AND receiver = ?",
            (*sums, seq, asset, provider, receiver),
        )
        refund, damages, _ = sums
        self.covers.delivered((asset, provider, receiver), planned.share_micros, planned.lots, damages)
        if receiver == self.covers.account:
            runs = [run for run in self._runs(closed) if run.provider == provider and self._is_of_house(closed, run)]
            self.covers.given_back(asset, runs, refund + damages)

    def _is_of_house(self, closed: _Closed, run: Run) -> bool:
        item = closed.planned.get((run.provider, self.covers.account))
        return item is not None and item.first_lot <= run.first_lot < item.first_lot + item.lots

    def _delisted(self, asset: int, seq: int) -> None:
        del self._closed[asset]
        self._database.execute("UPDATE closed_listings SET delisted_seq = ? WHERE asset = ?", (seq, asset))

    def _rejected(self, commands: NDArray[Any], event: Any, asset: int) -> None:
        """A planned delivery that the engine refused is not offered again; `verify` shows it with the reason."""
        at = int(event["command_seq"]) - int(commands["seq"][0])
        command = commands[at : at + 1].view(TRANSFER)[0]
        closed = self._closed.get(asset)
        pair = (int(command["account"]), int(command["contra_account"]))
        planned = closed.planned.get(pair) if closed else None
        if closed is None or planned is None or pair in closed.made or planned.lots != command["lots"]:
            return
        closed.stuck = True
        self._database.execute(
            "UPDATE deliveries SET reason = ? WHERE asset = ? AND provider = ? AND receiver = ?",
            (int(event["reason"]), asset, *pair),
        )


_WATCHED = [EventKind.CLOSED, EventKind.DELIVERED, EventKind.DELISTED]


def plan(due: NDArray[Any]) -> list[Delivery]:
    """The deliveries of one listing from its DELIVERY_DUE events (MONEY). Lowest account numbers first."""
    due = due[np.argsort(due["account"], kind="stable")]
    short, long = due[due["lots"] < 0], due[due["lots"] > 0]
    pairs = assign((-short["lots"]).tolist(), long["lots"].tolist())
    deliveries = []
    for at, group in groupby(pairs, key=itemgetter(0)):
        mine = list(group)
        provider, escrow = int(short["account"][at]), int(short["escrow_micros"][at])
        first_lot = 0
        for (_, receiver, lots), share in zip(mine, shares(escrow, [pair[2] for pair in mine]), strict=True):
            deliveries.append(Delivery(provider, int(long["account"][receiver]), first_lot, lots, share))
            first_lot += lots
    return deliveries


def sums_due(
    delivery: Delivery, listing: Listing, index_price: int, credited_ppm: int, cover: Cover | None = None
) -> tuple[int, int]:
    """(refund, damages with penalty) of a delivery that was credited so many millionths of a lot-minute.

    `cover` is what was bought in its place; of the lots that are not among it the index is the price.
    """
    at_index = index_price * listing.lot_tick_micros * delivery.lots
    if credited_ppm == 0:
        cost = at_index
        if cover is not None:
            cost = cover.cost_micros + index_price * listing.lot_tick_micros * (delivery.lots - cover.lots)
        return delivery.share_micros, sum(default_charge(delivery.share_micros, cost))
    outcome = performance(delivery.share_micros, delivery.lots, listing.minutes, credited_ppm, at_index)
    return outcome.refund_micros, outcome.damages_micros + outcome.penalty_micros


def credited_ppm(delivery: Delivery, listing: Listing, meter: Meter | None) -> int:
    """Millionths of lot-minutes that count: all of them where there is no meter."""
    if meter is None:
        return delivery.lots * listing.minutes * PPM
    return meter.credited_ppm(delivery.first_lot, delivery.lots)


def _deliver_command(closed: _Closed, delivery: Delivery, meter: Meter | None, cover: Cover | None) -> NDArray[Any]:
    command = np.zeros(1, TRANSFER)
    command["kind"], command["instrument"] = Kind.DELIVER, closed.listing.instrument
    credited = credited_ppm(delivery, closed.listing, meter)
    refund, damages = sums_due(delivery, closed.listing, closed.index_price, credited, cover)
    command["account"], command["contra_account"] = delivery.provider, delivery.receiver
    command["lots"], command["refund_micros"], command["damages_micros"] = delivery.lots, refund, damages
    return command.view(COMMAND)


def _ticket(listing: Listing, run: Run, venue: str) -> Ticket:
    return Ticket(
        venue=venue,
        listing=listing.asset,
        symbol=listing.symbol,
        start_s=listing.start_s,
        end_s=listing.end_ns // NS,
        provider=run.provider,
        receiver=run.member,
        first_lot=run.first_lot,
        lots=run.lots,
    )
