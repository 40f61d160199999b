"""The index of an hour: the worked figures, each rule with its edge, and the fallbacks through the real engine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.catalogue import NS
from engine.types import Kind, Side
from settlement.index import (
    PARTITION_NS,
    PRINT,
    WINDOW_NS,
    Exclusion,
    Source,
    hour_index,
    is_outlier,
    owner_weights,
    partition_medians,
)
from settlement.service import Settlement
from tests.settlement.flow import CATALOGUE, START_NS, Venue, command, listing, open_account, order, transfer

GATE_NS = 10 * WINDOW_NS


def prints(*rows: tuple[int, int, int, int]) -> NDArray[Any]:
    """From (partition, price, lots, taker)."""
    made = np.zeros(len(rows), PRINT)
    for at, (partition, price, lots, taker) in enumerate(rows):
        made[at] = (1, at + 1, GATE_NS - WINDOW_NS + partition * PARTITION_NS, price, lots, taker, 99)
    return made


WORKED = prints(
    (0, 2600, 8, 1),
    (0, 2610, 16, 2),
    (1, 2590, 8, 3),
    (2, 2620, 24, 1),
    (2, 4100, 2, 9),
    (4, 2600, 12, 4),
    (4, 1000, 1, 8),
)


def test_the_worked_example() -> None:
    index = hour_index(WORKED, GATE_NS, None, 5)
    assert (index.price, index.source) == (2605, Source.PRINTS)
    assert (index.prints, index.owners, index.lots) == (5, 4, 68)
    none, out, cap = Exclusion.NONE, Exclusion.OUTLIER, Exclusion.OWNER_CAP
    assert index.exclusions.tolist() == [cap, none, none, cap, out, none, out]


def test_the_worked_medians_before_anything_is_dropped() -> None:
    partition = np.array([0, 0, 1, 2, 2, 4, 4])
    assert partition_medians(partition, WORKED["price"], WORKED["lots"].astype(np.int64)) == [2610, 2590, 2620, 2600]


def test_the_band_is_exact_at_its_edge() -> None:
    """Median 2600, MAD 10, floor 13: the band is 96.369, so 2696 stays and 2697 goes."""
    prices = [2600, 2610, 2590, 2620, 2600, 2580]
    for last, is_out in ((2696, False), (2697, True)):
        assert is_outlier(np.array([*prices, last])).tolist()[-1] is is_out
    wide = [2000, 2400, 2600, 2800, 3200]  # median 2600, MAD 200: the band is 1482.6
    assert is_outlier(np.array([*wide, 2600, 4082])).tolist()[-1] is False
    assert is_outlier(np.array([*wide, 2600, 4083])).tolist()[-1] is True


def test_an_owner_weighs_a_quarter_at_most() -> None:
    weights, capped = owner_weights(np.array([1, 1, 2, 3, 4]), np.array([60, 20, 10, 5, 5]))
    assert weights.tolist() == [18_750_000, 6_250_000, 10_000_000, 5_000_000, 5_000_000]
    assert capped.tolist() == [True, True, False, False, False]
    assert owner_weights(np.array([1, 2, 3, 4]), np.array([5, 5, 5, 5]))[1].any() == np.False_


def test_a_big_owner_does_not_move_the_median_of_a_partition_alone() -> None:
    many = prints((0, 2600, 5, 1), (0, 2601, 5, 2), (0, 2602, 5, 3), (0, 2603, 5, 4), (0, 2680, 100, 5))
    index = hour_index(many, GATE_NS, None, 5)
    assert index.price == 2680  # 30 of 50 after the cap: still more than half
    many = prints(*((0, 2600 + n, 9, n + 1) for n in range(4)), (0, 2680, 12, 5), (0, 2600, 1, 6))
    assert hour_index(many, GATE_NS, None, 5).price == 2602


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([(0, 2600, 9, 1), (0, 2600, 9, 2), (0, 2600, 9, 3), (0, 2600, 9, 4)], "four prints"),
        ([(0, 2600, 9, 1), (0, 2600, 9, 2)] * 3, "two owners"),
        ([(0, 2600, 3, 1), (0, 2600, 4, 2), (0, 2600, 4, 3)] + [(1, 2600, 4, 4)] * 2, "nineteen lots"),
        ([], "nothing"),
    ],
)
def test_a_thin_window_falls_back(rows: list[tuple[int, int, int, int]], why: str) -> None:
    thin = prints(*rows)
    by_hour = hour_index(thin, GATE_NS, 2500, 2700)
    by_reference = hour_index(thin, GATE_NS, None, 2700)
    assert (by_hour.price, by_hour.source) == (2500, Source.PREVIOUS_HOUR), why
    assert (by_reference.price, by_reference.source) == (2700, Source.REFERENCE)
    assert set(by_hour.exclusions.tolist()) <= {Exclusion.TOO_FEW}


def test_only_the_window_counts_and_nobody_trades_with_himself() -> None:
    rows = prints(*((0, 2600, 5, n) for n in range(1, 7)))
    rows["ts_ns"][0] -= 1
    assert hour_index(rows, GATE_NS, None, 1).prints == 5
    rows["ts_ns"][1] = GATE_NS
    assert hour_index(rows, GATE_NS, None, 1).source == Source.REFERENCE
    rows["ts_ns"] = GATE_NS - 1
    rows["maker"][2] = rows["taker"][2]
    index = hour_index(rows, GATE_NS, None, 1)
    assert (index.prints, index.exclusions.tolist().count(Exclusion.SELF_TRADE)) == (5, 1)


row = st.tuples(st.integers(0, 11), st.integers(0, 10**5), st.integers(1, 10**6), st.integers(1, 6))


@given(st.lists(row, max_size=40), st.randoms())
def test_the_order_of_prints_does_not_matter_and_the_index_lies_within_them(rows: list[Any], pick: Any) -> None:
    index = hour_index(prints(*rows), GATE_NS, None, 7)
    shuffled = list(rows)
    pick.shuffle(shuffled)
    again = hour_index(prints(*shuffled), GATE_NS, None, 7)
    assert (index.price, index.source, index.lots) == (again.price, again.source, again.lots)
    if index.source == Source.PRINTS:
        kept = [row[1] for row, why in zip(rows, index.exclusions, strict=True) if why in (0, Exclusion.OWNER_CAP)]
        assert min(kept) <= index.price <= max(kept)


def hour(instrument: int, number: int) -> NDArray[Any]:
    """The listing of the hour `number`, with its gate a window after the start of the venue's time."""
    start_s = START_NS // NS + 7200 + number * 3600
    return listing(instrument, "AB"[number], start_s=start_s, gate_ns=(start_s - 900) * NS)


@pytest.fixture
def market(venue: Venue) -> Venue:
    """Two hours of one market; provider 1, buyers 2 to 5."""
    venue.send(*(open_account(n) for n in range(1, 6)), hour(1, 0), hour(2, 1))
    venue.send(*(transfer(Kind.DEPOSIT, n, amount_micros=10**10) for n in range(1, 6)))
    venue.send(*(transfer(Kind.NOMINATE, 1, instrument=n, lots=90) for n in (1, 2)))
    return venue


def trade(venue: Venue, instrument: int, price: int, lots: int, buyer: int) -> None:
    venue.send(order(1, instrument, Side.SELL, price, lots))
    venue.send(order(buyer, instrument, Side.BUY, price, lots))


def test_the_index_of_an_hour_from_its_trades(market: Venue) -> None:
    trade(market, 1, 3000, 50, 2)  # long before the window
    market.now_ns = START_NS + 5000 * NS
    for price, buyer in ((2600, 2), (2602, 3), (2604, 4), (2606, 5), (2608, 2)):
        trade(market, 1, price, 5, buyer)
    market.send(command(Kind.CLOSE, instrument=1), command(Kind.CLOSE, instrument=2))
    first, second = market.settlement.books.indices.published()
    assert (first.price, first.source, first.prints, first.owners, first.lots) == (2604, Source.PRINTS, 5, 4, 25)
    assert (second.price, second.source) == (2604, Source.PREVIOUS_HOUR)
    assert market.settlement.books.indices.published(market.engine.applied_seq) == []
    why = {row[-1] for row in market.settlement.books.indices.exclusions(first.asset)}
    assert why == {Exclusion.OWNER_CAP}  # buyer 2 had ten of 25


def test_without_an_hour_before_the_reference_stands(market: Venue) -> None:
    market.send(command(Kind.CLOSE, instrument=1), command(Kind.CLOSE, instrument=2))
    published = market.settlement.books.indices.published()
    assert [(row.price, row.source) for row in published] == [(2600, Source.REFERENCE)] * 2
    assert [row.symbol for row in published] == ["A", "B"]


def test_a_restart_within_the_window_and_a_replay_give_the_same_index(market: Venue, tmp_path: Path) -> None:
    market.now_ns = START_NS + 5000 * NS
    for price, buyer in ((2600, 2), (2602, 3), (2604, 4)):
        trade(market, 1, price, 5, buyer)
    market.settlement.close()
    market.settlement = Settlement(market.directory, CATALOGUE)
    for price, buyer in ((2606, 5), (2650, 2), (4000, 3)):
        trade(market, 1, price, 5, buyer)
    market.send(command(Kind.CLOSE, instrument=1))
    log = market.recording()
    whole = Settlement(tmp_path / "again", CATALOGUE)
    whole.on_batch(log.commands, log.events)
    for books in (market.settlement.books, whole.books):
        (index,) = books.indices.published()
        assert (index.source, index.prints) == (Source.PRINTS, 5)
        assert [row[-1] for row in books.indices.exclusions(index.asset)][-1] == Exclusion.OUTLIER
    assert market.settlement.books.indices.published() == whole.books.indices.published()
    whole.close()
