"""What falls due by itself: expiries, timers, calls and late bands, before and after a restart."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.catalogue import HOUR_S, NS, Bands, Catalogue, Contract
from engine.engine import Engine
from engine.types import COMMAND, LISTING, TRANSFER, EventKind, Flag, Kind, Side, Status, TimeInForce
from tests.tables import command
from wellhead.calendar import Calendar
from wellhead.config import Config
from wellhead.node import Node
from wellhead.timers import Timers

START_NS = 1_795_356_000 * NS


class Market:
    """An engine with three accounts and a book, its timers, and a clock that the test moves."""

    def __init__(self, bands: Bands | None = None) -> None:
        self.engine = Engine()
        self.timers = Timers(self.engine)
        self.now_ns = START_NS
        self.catalogue = replace(Catalogue.load(), bands=bands or Bands())
        self.calendar = Calendar(self.engine, self.catalogue, ("H100S-USE",), list_hours=3)
        for account in (1, 2, 3):
            self.apply(command(Kind.OPEN_ACCOUNT, TRANSFER, account=account))
            self.apply(command(Kind.DEPOSIT, TRANSFER, account=account, amount_micros=10**12))
        self.run_calendar()
        self.apply(command(Kind.NOMINATE, TRANSFER, account=2, instrument=1, lots=100))

    def apply(self, rows: NDArray[np.void]) -> NDArray[np.void]:
        rows = rows.view(COMMAND)
        rows["seq"] = np.arange(len(rows)) + self.engine.applied_seq + 1
        rows["ts_ns"] = self.now_ns
        events = self.engine.apply(rows).copy()
        self.timers.on_batch(rows, events)
        return events

    def run_calendar(self) -> NDArray[np.void]:
        due = self.calendar.due(self.now_ns)
        return self.apply(due) if len(due) else due

    def order(self, **fields: int) -> int:
        """Place an order of account 1; its id."""
        standard = {"account": 1, "instrument": 1, "price": 2_650, "qty": 1}
        events = self.apply(command(Kind.NEW_ORDER, **standard | fields))
        assert events["kind"][0] == EventKind.NEW
        return int(events["order_id"][0])

    def dated(self, seconds: int) -> int:
        fields = {"time_in_force": TimeInForce.GTD, "flags": Flag.EXTENDED, "expire_ns": self.now_ns + seconds * NS}
        return self.order(**fields)

    def cancel_after(self, seconds: int, tag: int = 0) -> None:
        due_ns = self.now_ns + seconds * NS if seconds else 0
        self.apply(command(Kind.CANCEL_AFTER, account=1, tag=tag, expire_ns=due_ns))

    def restart(self) -> None:
        """From what a snapshot would hold."""
        self.engine = Engine.from_bytes(self.engine.to_bytes())
        self.timers = Timers(self.engine)

    def pass_time(self, seconds: int) -> list[tuple[int, int, int]]:
        """Let time pass, and apply what is due: (kind, order id, tag) of each command."""
        self.now_ns += seconds * NS
        due = self.timers.due(self.now_ns)
        said = [(int(row["kind"]), int(row["order_id"]), int(row["tag"])) for row in due]
        if len(due):
            events = self.apply(due)
            assert EventKind.REJECTED not in events["kind"]
        return said


@pytest.fixture(params=[False, True], ids=["running", "restarted"])
def markets(request: pytest.FixtureRequest) -> Iterator[tuple[Market, bool]]:
    yield Market(), request.param


def test_orders_end_at_their_date_earliest_first(markets: tuple[Market, bool]) -> None:
    market, restarted = markets
    late, soon, gone = market.dated(30), market.dated(10), market.dated(10)
    market.order()
    market.apply(command(Kind.CANCEL, account=1, order_id=gone))
    if restarted:
        market.restart()
    assert market.pass_time(9) == []
    assert market.pass_time(1) == [(Kind.EXPIRE, soon, 0)]
    assert market.pass_time(60) == [(Kind.EXPIRE, late, 0)]
    assert market.pass_time(60) == []


def test_a_timer_cancels_unless_it_is_set_anew(markets: tuple[Market, bool]) -> None:
    market, restarted = markets
    market.order()
    market.cancel_after(10)
    market.cancel_after(20, tag=7)
    market.cancel_after(5, tag=8)
    market.cancel_after(0, tag=8)
    if restarted:
        market.restart()
    assert market.pass_time(9) == []
    market.cancel_after(10)
    assert market.pass_time(9) == []
    assert market.pass_time(1) == [(Kind.DEAD_MAN, 0, 0)]
    assert market.engine.dump()["accounts"][1][3] == 0
    assert market.pass_time(1) == [(Kind.DEAD_MAN, 0, 7)]
    assert market.pass_time(100) == []


def test_orders_that_ended_are_not_kept_for_ever() -> None:
    market = Market()
    for _ in range(1_100):
        order_id = market.dated(1_000)
        market.apply(command(Kind.CANCEL, account=1, order_id=order_id))
    assert len(market.timers._expiries) < 200


def trade(market: Market, price: int) -> None:
    market.apply(command(Kind.NEW_ORDER, account=2, instrument=1, side=Side.SELL, price=price, qty=1))
    market.order(price=price)


def test_a_call_ends_after_its_time() -> None:
    market = Market(Bands(dynamic_ppm=100_000, call_seconds=30))
    trade(market, 2_650)
    trade(market, 4_000)  # beyond a tenth: the book pauses
    assert market.engine.dump()["books"][1]["status"] == Status.AUCTION
    market.run_calendar()
    market.now_ns += 29 * NS
    market.run_calendar()
    assert market.engine.dump()["books"][1]["status"] == Status.AUCTION
    market.now_ns += NS
    market.run_calendar()
    book = market.engine.dump()["books"][1]
    assert (book["status"], book["last_price"]) == (Status.CONTINUOUS, 4_000)


def test_a_call_says_once_a_second_what_it_would_trade() -> None:
    market = Market(Bands(dynamic_ppm=100_000, call_seconds=30))
    trade(market, 2_650)
    assert len(market.calendar.due(market.now_ns)) == 0
    trade(market, 4_000)
    told = []
    for _ in range(9):
        told += [(event["kind"], event["price"], event["qty"]) for event in market.run_calendar()]
        market.now_ns += NS // 4
    assert told == [(EventKind.AUCTION_PRICE, 4_000, 1)] * 3


def test_bands_widen_before_the_gate() -> None:
    market = Market(Bands(band_ppm=300_000, late_band_ppm=1_000_000, late_hours=1))
    reference = int(market.engine.dump()["books"][3]["reference_price"])
    high = market.engine.dump()["books"][3]["high_price"]
    assert high == reference + reference * 3 // 10
    market.run_calendar()
    assert market.engine.dump()["books"][3]["high_price"] == high
    gate_ns = int(market.engine.memory.arrays["books"][3]["gate_ns"])
    market.now_ns = gate_ns - HOUR_S * NS
    market.run_calendar()
    assert market.engine.dump()["books"][3]["high_price"] == 2 * reference
    assert Kind.SET_BAND not in market.calendar.due(market.now_ns)["kind"]


def test_a_gate_closes_a_book_in_any_status() -> None:
    market = Market()
    market.apply(command(Kind.SET_STATUS, instrument=1, qty=Status.HALTED))
    market.now_ns = int(market.engine.memory.arrays["books"][1]["gate_ns"])
    market.run_calendar()
    assert market.engine.dump()["books"][1]["status"] == Status.CLOSED


def test_a_catalogue_says_how_far_prices_may_go() -> None:
    catalogue = replace(Catalogue.load(), bands=Bands(band_ppm=1, collar_ppm=2, dynamic_ppm=3))
    contract = Contract(catalogue.classes[0], catalogue.regions[0], START_NS // NS)
    row = catalogue.listing(contract, 1, 0, 2_650).view(LISTING)[0]
    assert (row["band_ppm"], row["collar_ppm"], row["dynamic_ppm"]) == (1, 2, 3)


async def test_no_order_trades_after_its_date_because_nobody_looked_at_the_clock(tmp_path: Path) -> None:
    """The node looks at the time now and then; a command that comes in between finds done what was due before it."""
    now_ns = START_NS
    node = Node(Config(tmp_path, port=0, markets=("H100S-USE",), list_hours=1, poll_ms=60_000), clock=lambda: now_ns)
    await node.start()
    try:

        async def execute(*rows: NDArray[np.void]) -> list[EventKind]:
            events = await node.execute(np.concatenate([row.view(COMMAND) for row in rows]))
            return [EventKind(int(kind)) for kind in events["kind"]]

        for account in (1, 2):
            who = {"account": account}
            money = command(Kind.DEPOSIT, TRANSFER, amount_micros=10**12, **who)
            await execute(command(Kind.OPEN_ACCOUNT, TRANSFER, **who), money)
        dated = {"time_in_force": TimeInForce.GTD, "flags": Flag.EXTENDED, "expire_ns": START_NS + NS}
        bid = command(Kind.NEW_ORDER, account=1, instrument=1, price=2_650, qty=1, **dated)
        timer = command(Kind.CANCEL_AFTER, account=1, tag=7, expire_ns=START_NS + NS)
        other = command(Kind.NEW_ORDER, account=1, instrument=1, price=2_640, qty=1, tag=7, flags=Flag.EXTENDED)
        sale = command(Kind.NEW_ORDER, account=2, instrument=1, side=Side.SELL, price=2_600, qty=1)
        await execute(command(Kind.NOMINATE, TRANSFER, account=2, instrument=1, lots=9), bid, other, timer)
        now_ns = START_NS + NS - 1
        assert await execute(sale) == [EventKind.NEW, EventKind.TRADE]
        await execute(bid)
        now_ns = START_NS + NS
        assert await execute(sale) == [EventKind.NEW]
        assert node.exchange.engine.dump()["accounts"][1][3] == 0, "open orders"
    finally:
        await node.stop()
