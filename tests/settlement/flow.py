"""A random but seeded life of an exchange: the real engine, the real settlement, and what it asks for put in the log."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import NS, Catalogue, pack_id
from engine.engine import Engine
from engine.state import Limits
from engine.types import COMMAND, EVENT, LISTING, TRANSFER, EventKind, Kind, OrdType, Side, TimeInForce
from settlement.flows import Destination, payout_command, refund_command, withdraw_command
from settlement.service import Settlement

START_NS = 1_700_000_000 * NS
END_OF_TIME_NS = 2**62
CATALOGUE = Catalogue.load()
MEMBERS = 6


def command(kind: int, layout: Any = COMMAND, **fields: Any) -> NDArray[Any]:
    """One command, without its place in the log."""
    row = np.zeros(1, layout)
    row["kind"] = kind
    for name, value in fields.items():
        row[name] = value
    return row.view(COMMAND)


def open_account(account: int, name: str = "") -> NDArray[Any]:
    return command(Kind.OPEN_ACCOUNT, TRANSFER, account=account, external_id=pack_id(name or f"member-{account}"))


def listing(instrument: int, symbol: str = "", **fields: Any) -> NDArray[Any]:
    """A contract with tick 1000 micros and eight GPUs a lot, open to trade for all the time there is."""
    terms: dict[str, Any] = dict(
        class_id=1, region_id=1, gpus_per_lot=8, hours=1, start_s=START_NS // NS + 7200, tick_micros=1000
    )
    terms |= dict(lot_tick_micros=8000, max_price=100_000, reference_price=2600, gate_ns=START_NS + 6300 * NS)
    terms |= dict(taker_fee_ppm=500, maker_rebate_ppm=200, bond_ppm=250_000)
    terms |= dict(symbol=pack_id(symbol or f"H100S-USE-{instrument}"), instrument=instrument) | fields
    return command(Kind.LIST, LISTING, **terms)


def transfer(kind: Kind, account: int, **fields: int) -> NDArray[Any]:
    return command(kind, TRANSFER, account=account, **fields)


def order(account: int, instrument: int, side: Side, price: int, qty: int, **fields: int) -> NDArray[Any]:
    return command(Kind.NEW_ORDER, account=account, instrument=instrument, side=side, price=price, qty=qty, **fields)


@dataclass(frozen=True)
class Recording:
    """A log and what the engine said to it."""

    commands: NDArray[Any]
    events: NDArray[Any]

    def cut(self, first: int, last: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The commands with sequences `first` to `last`, and their events."""
        seqs = self.events["command_seq"]
        return self.commands[first - 1 : last], self.events[(seqs >= first) & (seqs <= last)]

    def __len__(self) -> int:
        return len(self.commands)


@dataclass
class Venue:
    """An engine with settlement behind it, and a record of all that went through."""

    directory: Path
    engine: Engine = field(default_factory=lambda: Engine(Limits(max_accounts=512, max_instruments=64)))
    commands: list[NDArray[Any]] = field(default_factory=list)
    events: list[NDArray[Any]] = field(default_factory=list)
    now_ns: int = START_NS
    ledger: str = ""

    def __post_init__(self) -> None:
        self.settlement = Settlement(self.directory, CATALOGUE, self.ledger)

    def send(self, *commands: NDArray[Any]) -> NDArray[Any]:
        """Log, apply and settle commands as one batch; returns the events."""
        self.now_ns += 1_000_000
        batch = np.concatenate(commands)
        batch["seq"] = np.arange(len(batch)) + self.engine.applied_seq + 1
        batch["ts_ns"] = self.now_ns
        events = self.engine.apply(batch).copy()
        self.commands.append(batch)
        self.events.append(events)
        self.settlement.on_batch(batch, events)
        return events

    def deliver(self, now_ns: int = END_OF_TIME_NS) -> NDArray[Any]:
        """Do what settlement asks for; returns what that was."""
        due = self.settlement.due(now_ns)
        if len(due):
            self.send(due)
        return due

    def recording(self) -> Recording:
        return Recording(np.concatenate(self.commands), np.concatenate([np.zeros(0, EVENT), *self.events]))


class Flow:
    """Draws commands that make sense most of the time."""

    def __init__(self, venue: Venue, seed: int) -> None:
        self.venue = venue
        self.random = random.Random(seed)
        self.orders: list[tuple[int, int]] = []  # account, order_id
        self.open: list[int] = []
        self.closed: list[int] = []

    def start(self) -> None:
        self.venue.send(*(open_account(n) for n in range(1, MEMBERS + 1)))
        # Member 6 has no money: much of what it asks for is refused.
        self.venue.send(*(transfer(Kind.DEPOSIT, n, amount_micros=5 * 10**9 * n) for n in range(1, MEMBERS)))
        # Provider 1 is a pool; member 4 owes member 5 something.
        self.venue.send(*(transfer(Kind.ISSUE_SHARES, 1, contra_account=n, lots=n) for n in (1, 2, 3)))
        self.venue.send(transfer(Kind.LIEN, 4, amount_micros=10**6))
        self.venue.send(transfer(Kind.LIFT_LIEN, 4, contra_account=5, amount_micros=10**5))
        for instrument in (1, 2):
            self.list(instrument)

    def list(self, instrument: int) -> None:
        nominations = [transfer(Kind.NOMINATE, n, instrument=instrument, lots=20 + n) for n in (1, 2, 3)]
        self.venue.send(listing(instrument), *nominations)
        self.open.append(instrument)

    def step(self) -> None:
        """One batch, and whatever follows from it."""
        events = self.venue.send(*(self.draw() for _ in range(self.random.randint(1, 12))))
        new = events[events["kind"] == EventKind.NEW]
        self.orders += zip(new["account"].tolist(), new["order_id"].tolist(), strict=True)
        chance = self.random.random()
        if chance < 0.04 and len(self.open) > 1:
            self.close(self.random.choice(self.open))
        elif chance < 0.1 and self.closed:
            self.venue.deliver()
            self.collect_delisted()
        elif chance < 0.14:
            self.venue.send(command(Kind.CLOSE_CYCLE))
        elif chance < 0.2 and len(self.open) < 3:
            taken = {*self.open, *self.closed}
            self.list(next(number for number in range(1, 10) if number not in taken))
        elif chance < 0.26:
            self.settle_withdrawals()

    def settle_withdrawals(self) -> None:
        """What is on its way to the chain arrives, or comes back."""
        waiting = self.venue.settlement.books.flows.waiting()
        if waiting:
            settle = [refund_command, payout_command, payout_command]
            self.venue.send(*(settle[row.seq % 3](row, b"\x17" * 32) for row in waiting))

    def close(self, instrument: int) -> None:
        self.venue.send(command(Kind.CLOSE, instrument=instrument))
        self.open.remove(instrument)
        self.closed.append(instrument)

    def collect_delisted(self) -> None:
        for events in self.venue.events[-1:]:
            for gone in events["instrument"][events["kind"] == EventKind.DELISTED].tolist():
                self.closed.remove(gone)

    def draw(self) -> NDArray[Any]:
        pick = self.random
        account, chance = pick.randint(1, MEMBERS), pick.random()
        if chance < 0.7:
            return self.draw_order(account)
        if chance < 0.8 and self.orders:
            owner, order_id = pick.choice(self.orders[-60:])
            if chance < 0.75:
                return command(Kind.CANCEL, account=owner, order_id=order_id)
            return command(
                Kind.AMEND, account=owner, order_id=order_id, price=pick.randint(2580, 2620), qty=pick.randint(1, 9)
            )
        if chance < 0.83:
            return command(Kind.MASS_CANCEL, account=account, side=pick.choice([0, 1, 255]))
        if chance < 0.88:
            return transfer(Kind.DEPOSIT, account, amount_micros=pick.randint(0, 10**7))
        if chance < 0.93:
            amount = pick.randint(0, 10**8)
            if amount % 2:
                return withdraw_command(account, 1, amount, Destination(b"\xaa" * 20, b"\xab" * 20))
            return transfer(Kind.WITHDRAW, account, amount_micros=amount)
        if chance < 0.955:
            return self.draw_cash(account)
        if chance < 0.98:
            return transfer(Kind.NOMINATE, account, instrument=pick.choice([*self.open, 9]), lots=pick.randint(0, 5))
        return command(pick.choice([Kind.TICK, 99]))

    def draw_cash(self, account: int) -> NDArray[Any]:
        """Cash that moves or is frozen, and shares of provider 1."""
        pick, other = self.random, self.random.randint(0, MEMBERS)
        kind = pick.choice([Kind.TRANSFER, Kind.LIEN, Kind.LIFT_LIEN, Kind.FREEZE, Kind.ISSUE_SHARES, Kind.MOVE_SHARES])
        if kind == Kind.FREEZE:
            return transfer(kind, account, flags=pick.choice([0, 0, 1]))
        if kind == Kind.ISSUE_SHARES:
            return transfer(kind, 1, contra_account=account, lots=pick.randint(-3, 9))
        if kind == Kind.MOVE_SHARES:
            return transfer(kind, account, contra_account=other, asset=1, lots=pick.randint(1, 4))
        largest = 10**3 if kind == Kind.LIFT_LIEN else 10**6
        return transfer(kind, account, contra_account=other, amount_micros=pick.randint(1, largest))

    def draw_order(self, account: int) -> NDArray[Any]:
        pick = self.random
        fields = dict(time_in_force=pick.choice([0, 0, 0, *TimeInForce]), flags=pick.choice([0, 0, 0, 0, 1]))
        price = pick.randint(2590, 2610)
        if pick.random() < 0.1:
            fields |= dict(ord_type=OrdType.MARKET, time_in_force=TimeInForce.IOC, flags=0)
            price = 0
        instrument = pick.choice([*self.open, *self.closed[:1]])
        side = pick.choice([Side.BUY, Side.SELL])
        if side == Side.SELL and pick.random() < 0.6:
            account = pick.randint(1, 3)
        return order(account, instrument, side, price, pick.randint(1, 6), **fields)


def play(directory: Path, seed: int, steps: int) -> Venue:
    """Run a flow; at the end everything is closed, delivered and settled."""
    venue = Venue(directory)
    flow = Flow(venue, seed)
    flow.start()
    for _ in range(steps):
        flow.step()
    for instrument in list(flow.open):
        flow.close(instrument)
    while len(venue.deliver()):
        pass
    venue.send(command(Kind.CLOSE_CYCLE))
    return venue


@cache
def recorded(seed: int = 1, steps: int = 60) -> Recording:
    """The log of a flow, made once."""
    with TemporaryDirectory() as directory:
        venue = play(Path(directory), seed, steps)
        venue.settlement.close()
        return venue.recording()


def cuts(length: int, seed: int, largest: int = 30) -> Iterator[tuple[int, int]]:
    """(first, last) sequences of batches of random sizes that cover a log."""
    pick, first = random.Random(seed), 1
    while first <= length:
        last = min(length, first + pick.randint(0, largest))
        yield first, last
        first = last + 1
