"""Seeded order flow, for benchmarks and tests: the same seed gives the same bytes.

`market` makes the commands that set an exchange up, `flow` those that trade in it. An order's id is known only once it is
accepted, so the cancels and amends of a flow are open: in `order_id` they have a random number, and `resolve`, which
runs the flow through an exchange, puts there the id of a working order, and its owner.

    setup = market(seed=1, accounts=50, instruments=20)
    commands = resolve(engine, np.concatenate([setup, flow(seed=1, count=100_000, accounts=50, instruments=20)]))

What is modelled: a mid that walks by single ticks in each book, orders mostly within 20 ticks of it and smaller the more
there are of them, one in twelve crossing the spread; the shares of SHARES; a few books much busier than the rest. What is
not: bursts, makers that quote both sides, and times of day.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import NS, Catalogue, Contract
from engine.types import (
    COMMAND,
    TRANSFER,
    UNCHANGED,
    EventKind,
    Flag,
    Kind,
    OrdType,
    Side,
    TimeInForce,
)

Commands = NDArray[np.void]

START_S = 1_795_356_000  # 2026-11-22 14:00 UTC: the first hour listed begins a day later
START_NS = START_S * NS
STEP_NS = 1_000  # between two commands
CASH_MICROS = 10_000_000_000_000
LOTS = 100_000
SHARES = {"limit": 0.50, "cancel": 0.33, "amend": 0.09, "ioc": 0.03, "market": 0.03, "post_only": 0.02}
CROSSING = 0.085
MID_MOVES = 0.02


class Exchange(Protocol):
    """The engine, or its twin."""

    applied_seq: int

    def apply(self, commands: Commands) -> Commands: ...


def market(seed: int, accounts: int, instruments: int, first_seq: int = 1) -> Commands:
    """Open and fund the accounts, list the instruments, and certify each account for lots in each."""
    rng = np.random.default_rng(seed)
    opened = np.zeros(accounts, TRANSFER)
    opened["kind"], opened["account"] = Kind.OPEN_ACCOUNT, np.arange(1, accounts + 1)
    funded = opened.copy()
    funded["kind"], funded["amount_micros"] = Kind.DEPOSIT, rng.integers(CASH_MICROS // 2, CASH_MICROS, accounts)
    nominated = np.zeros(accounts * instruments, TRANSFER)
    nominated["kind"], nominated["lots"] = Kind.NOMINATE, LOTS
    nominated["account"] = np.repeat(np.arange(1, accounts + 1), instruments)
    nominated["instrument"] = np.tile(np.arange(1, instruments + 1), accounts)
    parts = [opened, funded, listings(instruments), nominated]
    return stamp(np.concatenate([part.view(COMMAND) for part in parts]), first_seq, START_NS)


def listings(instruments: int) -> Commands:
    """The first hours of tomorrow for every class and region, without a bond so that accounts can nominate freely."""
    catalogue = Catalogue.load()
    kinds = [(gpu_class, region) for region in catalogue.regions for gpu_class in catalogue.classes]
    rows = []
    for i in range(instruments):
        gpu_class, region = kinds[i % len(kinds)]
        contract = Contract(gpu_class, region, START_S + 86_400 + 3_600 * (i // len(kinds)))
        rows.append(catalogue.listing(contract, i + 1, START_NS, gpu_class.seed_price))
    listed = np.concatenate(rows)
    listed["bond_ppm"] = 0
    return listed


def flow(seed: int, count: int, accounts: int, instruments: int, first_seq: int = 1) -> Commands:
    """Random order flow around a moving mid, for a `market` of the same size. Cancels and amends are open: `resolve` them."""
    rng = np.random.default_rng([seed, 1])
    what = rng.choice(len(SHARES), count, p=list(SHARES.values()))
    is_what = {name: what == i for i, name in enumerate(SHARES)}
    commands = np.zeros(count, COMMAND)
    commands["kind"] = np.where(is_what["cancel"], Kind.CANCEL, np.where(is_what["amend"], Kind.AMEND, Kind.NEW_ORDER))
    commands["account"] = rng.integers(1, accounts + 1, count)
    # Squared, so that a few books are much busier than the rest.
    commands["instrument"] = 1 + (rng.random(count) ** 2 * instruments).astype(np.int64)
    commands["side"] = rng.integers(Side.BUY, Side.SELL + 1, count)
    commands["qty"] = 1 + rng.geometric(0.1, count) % 1_000
    commands["price"] = _prices(rng, commands, instruments)
    commands["flags"][is_what["post_only"]] = Flag.POST_ONLY
    commands["time_in_force"][is_what["ioc"] | is_what["market"]] = TimeInForce.IOC
    commands["ord_type"][is_what["market"]] = OrdType.MARKET
    commands["price"][is_what["market"]] = 0
    by_id = is_what["cancel"] | is_what["amend"]
    commands["order_id"][by_id] = rng.integers(0, 1 << 52, int(by_id.sum()))
    # Half of the amends take something off the quantity and keep their place; the other half move the price.
    keep = is_what["amend"] & (rng.random(count) < 0.5)
    commands["price"][keep] = UNCHANGED
    return stamp(commands, first_seq, START_NS)


def _prices(rng: np.random.Generator, commands: Commands, instruments: int) -> NDArray[np.int64]:
    """Mostly a few ticks behind the mid of their book, some beyond it; the mids walk."""
    count = len(commands)
    seeds = listings(instruments)["reference_price"]
    steps = np.where(rng.random(count) < MID_MOVES, rng.choice([-1, 1], count), 0)
    mid = seeds[commands["instrument"] - 1] + np.cumsum(steps)
    behind = np.where(rng.random(count) < CROSSING, -rng.integers(0, 4, count), rng.integers(1, 21, count))
    prices: NDArray[np.int64] = np.where(commands["side"] == Side.BUY, mid - behind, mid + behind).astype(np.int64)
    return np.maximum(prices, 1)


def stamp(commands: Commands, first_seq: int, start_ns: int, step_ns: int = STEP_NS) -> Commands:
    """Give the commands their place in the log and their time. In place; returns them."""
    commands["seq"] = np.arange(first_seq, first_seq + len(commands))
    commands["ts_ns"] = start_ns + step_ns * commands["seq"]
    return commands


def resolve(exchange: Any, commands: Commands, batch: int = 1) -> Commands:
    """Run commands through an exchange, and return them with the open cancels and amends resolved.

    Each goes to a working order, in a book of the flow's own choosing. With `batch` above 1 that order may have gone since, as it
    may for a real sender. While no order works they stay as they are, and are refused.
    """
    resolved = commands.copy()
    working = Working()
    for start in range(0, len(resolved), batch):
        part = resolved[start : start + batch]
        for i in np.flatnonzero((part["kind"] == Kind.CANCEL) | (part["kind"] == Kind.AMEND)):
            working.aim(part[i : i + 1])
        working.see(exchange.apply(part))
    return resolved


class Working:
    """The working orders, as the events tell, in an order that lets a random one be picked at once."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.place: dict[int, int] = {}
        self.order: dict[int, tuple[int, int]] = {}  # account, total quantity

    def aim(self, command: Commands) -> None:
        """Point an open cancel or amend at a working order."""
        if not self.ids:
            return
        order_id = self.ids[int(command["order_id"][0]) % len(self.ids)]
        command["order_id"] = order_id
        command["account"], total = self.order[order_id]
        if command["kind"][0] == Kind.AMEND and command["price"][0] == UNCHANGED:
            command["qty"] = max(1, total - int(command["qty"][0]) % 3)

    def see(self, events: Commands) -> None:
        for event in events:
            kind, order_id = event["kind"], int(event["order_id"])
            if kind in (EventKind.NEW, EventKind.REPLACED):
                self.add(order_id, int(event["account"]), int(event["qty"]))
            elif kind == EventKind.CANCELED:
                self.drop(order_id)
            elif kind == EventKind.TRADE:
                if event["leaves_qty"] == 0:
                    self.drop(order_id)
                if event["contra_leaves_qty"] == 0:
                    self.drop(int(event["contra_order_id"]))

    def add(self, order_id: int, account: int, total: int) -> None:
        if order_id not in self.place:
            self.place[order_id] = len(self.ids)
            self.ids.append(order_id)
        self.order[order_id] = account, total

    def drop(self, order_id: int) -> None:
        # The last takes the place of the one that goes.
        place, last = self.place.pop(order_id), self.ids.pop()
        del self.order[order_id]
        if last != order_id:
            self.ids[place] = last
            self.place[last] = place
