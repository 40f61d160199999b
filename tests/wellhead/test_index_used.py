"""The index of an hour is what the same hour of the next days is measured by: bands, bonds, auctions; and damages."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from engine.catalogue import HOUR_S, NS, Bands, Catalogue
from engine.engine import Engine
from engine.types import COMMAND, LISTING, TRANSFER, EventKind, Kind, Reason, Side, Status
from settlement.index import Source
from settlement.indices import Published
from tests.tables import command
from tests.wellhead.test_channels import SetClock, next_of, subscribe
from wellhead.calendar import Calendar
from wellhead.config import Config
from wellhead.index_feed import DAY_S, REMEMBERED_S
from wellhead.node import Node

START_S = 1_795_356_000
BANDS = Bands(band_ppm=300_000, late_band_ppm=1_000_000)
CATALOGUE = replace(Catalogue.load(), bands=BANDS)


def apply(engine: Engine, rows: np.ndarray, now_ns: int) -> np.ndarray:
    rows = np.ascontiguousarray(rows).view(COMMAND)
    rows["seq"], rows["ts_ns"] = engine.applied_seq + 1 + np.arange(len(rows)), now_ns
    return engine.apply(rows).copy()


def made(calendar: Calendar, engine: Engine, now_ns: int) -> list[tuple[int, int, int]]:
    """(instrument, reference, band) of each SET_BAND that is due, applied."""
    due = calendar.due(now_ns)
    bands = due[due["kind"] == Kind.SET_BAND].view(LISTING)
    assert EventKind.REJECTED not in apply(engine, due, now_ns)["kind"]
    return [(int(row["instrument"]), int(row["reference_price"]), int(row["band_ppm"])) for row in bands]


def index(start_s: int, price: int, source: Source = Source.PRINTS) -> Published:
    contract = CATALOGUE.contract("H100S-USE-H26112214")
    assert contract is not None
    return Published(1, "", contract.gpu_class.id, contract.region.id, start_s, price, source, 9, 3, 90)


@pytest.fixture
def market() -> tuple[Engine, Calendar]:
    engine = Engine()
    calendar = Calendar(engine, CATALOGUE, ("H100S-USE", "A100S-USE"))
    for _ in ("listed", "the bands of those that are late already"):
        apply(engine, calendar.due(START_S * NS), START_S * NS)
    return engine, calendar


def books_at(engine: Engine, hour_s: int) -> list[int]:
    """The instruments of H100S-USE that begin at this second of a day, the earliest first."""
    used = int(engine.memory.header["instruments_used"])
    contracts = engine.memory.arrays["contracts"][:used]
    of = index(0, 0)
    mine = (contracts["class_id"] == of.class_id) & (contracts["region_id"] == of.region_id)
    mine &= (contracts["start_s"] % DAY_S == hour_s) & (engine.memory.arrays["books"]["status"][:used] != Status.NONE)
    return sorted(np.flatnonzero(mine).tolist(), key=lambda number: int(contracts["start_s"][number]))


def test_the_same_hour_of_later_days_refers_to_it(market: tuple[Engine, Calendar]) -> None:
    engine, calendar = market
    hour_s = START_S + 6 * HOUR_S
    today, *later = books_at(engine, hour_s % DAY_S)
    assert len(later) == 2
    calendar.know([index(hour_s, 3_000)])
    assert made(calendar, engine, START_S * NS) == [(number, 3_000, 300_000) for number in later]
    assert made(calendar, engine, START_S * NS) == []
    assert engine.dump()["books"][today]["reference_price"] != 3_000
    assert [engine.dump()["books"][later[0]][name] for name in ("low_price", "high_price")] == [2_100, 3_900]


def test_an_index_that_no_trades_made_changes_nothing(market: tuple[Engine, Calendar]) -> None:
    engine, calendar = market
    calendar.know([index(START_S, 3_000, source) for source in (Source.REFERENCE, Source.PREVIOUS_HOUR)])
    assert made(calendar, engine, START_S * NS) == []


def test_the_newest_day_speaks_and_an_old_one_does_not(market: tuple[Engine, Calendar]) -> None:
    engine, calendar = market
    hour_s = START_S + 6 * HOUR_S
    _, tomorrow, then = books_at(engine, hour_s % DAY_S)
    calendar.know([index(hour_s + DAY_S, 3_100), index(hour_s, 3_000)])
    assert made(calendar, engine, START_S * NS) == [(then, 3_100, 300_000)]
    calendar.know([index(hour_s - REMEMBERED_S - DAY_S, 9_000)])
    assert made(calendar, engine, START_S * NS) == []
    assert engine.dump()["books"][tomorrow]["reference_price"] not in (3_100, 9_000)


def test_a_reference_from_outside_goes_before(market: tuple[Engine, Calendar]) -> None:
    engine, _ = market
    calendar = Calendar(engine, CATALOGUE, ("H100S-USE",), reference_price=lambda contract: 2_222)
    calendar.know([index(START_S + 6 * HOUR_S, 3_000)])
    assert made(calendar, engine, START_S * NS) == []


def test_a_late_band_keeps_the_new_reference_and_the_reference_the_late_band(market: tuple[Engine, Calendar]) -> None:
    engine, calendar = market
    hour_s = START_S + 6 * HOUR_S
    _, tomorrow, _ = books_at(engine, hour_s % DAY_S)
    late_ns = int(engine.memory.arrays["books"]["gate_ns"][tomorrow]) - HOUR_S * NS
    for number in range(1, int(engine.memory.header["instruments_used"])):
        if number != tomorrow:
            apply(engine, command(Kind.CLOSE, instrument=number), late_ns)
    calendar.know([index(hour_s, 3_000)])
    assert (tomorrow, 3_000, 300_000) in made(calendar, engine, late_ns)
    assert made(calendar, engine, late_ns) == [(tomorrow, 3_000, 1_000_000)]
    calendar.know([index(hour_s, 3_050)])
    assert (tomorrow, 3_050, 1_000_000) in made(calendar, engine, late_ns)


def test_a_new_hour_is_listed_at_the_index_of_its_hour_of_the_day() -> None:
    engine = Engine()
    calendar = Calendar(engine, CATALOGUE, ("H100S-USE",))
    morning, evening = START_S + 3 * HOUR_S, START_S + 9 * HOUR_S
    calendar.know([index(morning - DAY_S, 2_000), index(evening - DAY_S, 3_000)])
    apply(engine, calendar.due(START_S * NS), START_S * NS)
    books = engine.dump()["books"]
    for hour_s, price in ((morning, 2_000), (evening, 3_000), (START_S + 5 * HOUR_S, 3_000)):
        assert {books[number]["reference_price"] for number in books_at(engine, hour_s % DAY_S)} == {price}


def trades(instrument: int, price: int) -> np.ndarray:
    """Three takers buy thirty lots: enough for an index."""
    rows = [command(Kind.OPEN_ACCOUNT, TRANSFER, account=n) for n in range(1, 5)]
    rows += [command(Kind.DEPOSIT, TRANSFER, account=n, amount_micros=10**12) for n in range(1, 5)]
    rows.append(command(Kind.NOMINATE, TRANSFER, account=4, instrument=instrument, lots=100))
    offer = {"account": 4, "instrument": instrument, "side": Side.SELL, "price": price, "qty": 30}
    rows.append(command(Kind.NEW_ORDER, **offer))
    rows += [
        command(Kind.NEW_ORDER, account=n, instrument=instrument, side=Side.BUY, price=price, qty=5)
        for n in (1, 2, 3, 1, 2, 3)
    ]
    return np.concatenate([row.view(COMMAND) for row in rows])


def have_traded(events: np.ndarray) -> bool:
    """Whether these are the events of `trades`."""
    return np.count_nonzero(events["kind"] == EventKind.TRADE) == 6


async def refused_beyond(node: Node, instrument: int, price: int) -> bool:
    row = command(Kind.NEW_ORDER, account=1, instrument=instrument, side=Side.BUY, price=price, qty=1)
    (event, *_) = await node.execute(row.view(COMMAND))
    return bool(event["kind"] == EventKind.REJECTED and event["reason"] == Reason.BAD_PRICE)


async def test_the_node_takes_it_from_the_gate_to_the_bands(tmp_path: Path) -> None:
    """The whole way: trades, gate, index, the channel, and a command in the log; also for the hours listed after a restart."""
    clock = SetClock()
    options: dict[str, Any] = {"port": 0, "durable": False, "markets": ("H100S-USE",), "poll_ms": 5}
    node = Node(Config(tmp_path, **options), CATALOGUE, clock)
    await node.start()
    try:
        terms = sorted(node.gateway.projection.instruments.values(), key=lambda one: one.gate_ns)
        first = terms[0]
        tomorrow = next(one for one in terms if one.gate_ns == first.gate_ns + DAY_S * NS)
        clock.now_ns = first.gate_ns - HOUR_S * NS // 2
        assert have_traded(await node.execute(trades(first.number, 3_000)))
        async with connect(node.server.url) as socket:
            await subscribe(socket, name="index", symbols=[first.symbol])
            clock.now_ns = first.gate_ns
            update = await next_of(socket, "index")
            assert (update["source"], float(update["px"])) == ("prints", 3.0), json.dumps(update)
        while node.exchange.engine.dump()["books"][tomorrow.number]["reference_price"] != 3_000:
            await node.execute(command(Kind.TICK).view(COMMAND))
        assert await refused_beyond(node, tomorrow.number, 3_901)
        assert not await refused_beyond(node, tomorrow.number, 3_900)
    finally:
        await node.stop()
    clock.now_ns += DAY_S * NS
    node = Node(Config(tmp_path, **options), CATALOGUE, clock)
    await node.start()
    try:
        listed = [one for one in node.gateway.projection.instruments.values() if one.gate_ns > clock.now_ns]
        later = next(one for one in listed if one.gate_ns == first.gate_ns + 3 * DAY_S * NS)
        assert later.reference_price == 3_000
    finally:
        await node.stop()
