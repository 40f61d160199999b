"""The worked figures of the contract, and what must hold for any other."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.performance import PPM, assign, credit_ppm, default_charge, largest_remainder, performance, shares

LOT_TICK = 8_000  # a tick of 1000 micros, eight GPUs, one hour


def notional(price: int, lots: int = 8) -> int:
    return price * LOT_TICK * lots


def deliver(credited_lot_minutes: int, index: int = 2_750) -> tuple[int, int, int, int]:
    outcome = performance(notional(2_600), 8, 60, credited_lot_minutes * PPM, notional(index))
    return outcome.base_micros, outcome.damages_micros, outcome.penalty_micros, outcome.refund_micros


def test_nine_minutes_down_and_a_lot_at_ninety_percent() -> None:
    credit = sum(credit_ppm(f) for f in [PPM] * (7 * 60 - 9) + [0] * 9 + [900_000] * 60)
    outcome = performance(notional(2_600), 8, 60, credit, notional(2_750))
    assert credit == 465 * PPM
    assert (outcome.base_micros, outcome.refund_micros) == (161_200_000, 5_200_000)
    assert (outcome.damages_micros, outcome.penalty_micros) == (300_000, 436_800)
    assert (outcome.provider_micros, outcome.receiver_micros) == (160_463_200, 5_936_800)


@pytest.mark.parametrize(
    ("down", "expected"),
    [
        (0, (166_400_000, 0, 0, 0)),
        (2, (165_706_666, 0, 0, 693_334)),
        (3, (165_360_000, 60_000, 20_800, 1_040_000)),
    ],
)
def test_minutes_down(down: int, expected: tuple[int, int, int, int]) -> None:
    assert deliver(480 - down) == expected


def test_a_cheaper_index_owes_no_damages() -> None:
    assert deliver(477, index=2_500)[1:3] == (0, 20_800)


def test_nothing_delivered_pays_for_cover() -> None:
    assert default_charge(notional(2_600), notional(3_100)) == (32_000_000, 24_960_000)
    assert default_charge(notional(2_600), notional(2_000)) == (0, 24_960_000)
    assert default_charge(1, 1) == (0, 1)


@pytest.mark.parametrize(
    ("share", "credit"),
    [(0, 0), (799_999, 0), (800_000, 800_000), (949_999, 949_999), (950_000, PPM), (1_200_000, PPM)],
)
def test_credit_by_performance(share: int, credit: int) -> None:
    assert credit_ppm(share) == credit


@pytest.mark.parametrize(("lots", "minutes", "credit"), [(0, 60, 0), (1, 0, 0), (1, 60, -1), (1, 60, 60 * PPM + 1)])
def test_impossible_credit_is_refused(lots: int, minutes: int, credit: int) -> None:
    with pytest.raises(ValueError, match="credited"):
        performance(100, lots, minutes, credit, 100)


@given(st.integers(0, 10**15), st.integers(1, 10**6), st.integers(0, PPM), st.integers(0, 10**15))
def test_base_and_refund_are_the_notional_and_more_delivery_never_pays_less(
    value: int, lots: int, share_ppm: int, index: int
) -> None:
    credit = lots * 60 * share_ppm
    outcome = performance(value, lots, 60, credit, index)
    better = performance(value, lots, 60, min(credit + PPM, lots * 60 * PPM), index)
    assert outcome.base_micros + outcome.refund_micros == value
    assert outcome.provider_micros + outcome.receiver_micros == value
    assert min(outcome.base_micros, outcome.refund_micros, outcome.damages_micros, outcome.penalty_micros) >= 0
    assert better.base_micros >= outcome.base_micros
    assert better.damages_micros <= outcome.damages_micros
    assert better.penalty_micros <= outcome.penalty_micros


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (100, [1, 1, 1], [34, 33, 33]),
        (160_463_200, [375_000, 375_000, 250_000], [60_173_700, 60_173_700, 40_115_800]),
        (160_463_201, [7, 5, 3], [74_882_827, 53_487_734, 32_092_640]),
        (1, [1, 1, 1, 1], [1, 0, 0, 0]),
        (10, [6, 6, 6, 2], [3, 3, 3, 1]),
        (0, [5, 0], [0, 0]),
    ],
)
def test_largest_remainder(total: int, weights: list[int], parts: list[int]) -> None:
    assert largest_remainder(total, weights) == parts


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**12), min_size=1, max_size=20).filter(any))
def test_a_split_is_whole_and_within_one_of_the_exact_share(total: int, weights: list[int]) -> None:
    parts = largest_remainder(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert total * weight // sum(weights) <= part <= -(-total * weight // sum(weights))


@pytest.mark.parametrize(("total", "weights"), [(1, []), (1, [0, 0]), (1, [-1, 2]), (-1, [1])])
def test_a_split_that_makes_no_sense_is_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot split"):
        largest_remainder(total, weights)


def test_receivers_are_spread_over_providers_in_proportion() -> None:
    assert assign([3, 5], [4, 4]) == [(0, 0, 2), (0, 1, 1), (1, 0, 2), (1, 1, 3)]
    assert assign([], []) == []


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_everybody_delivers_and_receives_exactly_what_was_traded(shorts: list[int], data: st.DataObject) -> None:
    cuts = data.draw(st.sets(st.integers(1, sum(shorts))))
    bounds = sorted({0, sum(shorts), *cuts})
    longs = [after - before for before, after in pairwise(bounds)]
    pairs = assign(shorts, longs)
    assert [sum(lots for p, _, lots in pairs if p == provider) for provider in range(len(shorts))] == shorts
    assert [sum(lots for _, r, lots in pairs if r == receiver) for receiver in range(len(longs))] == longs
    assert all(lots > 0 for *_, lots in pairs)
    assert len({pair[:2] for pair in pairs}) == len(pairs)


def test_sides_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="3 lots to deliver and 2"):
        assign([3], [2])


@given(st.integers(0, 8 * 10**17), st.lists(st.integers(1, 10**6), min_size=1, max_size=12))
def test_shares_use_up_the_escrow(escrow: int, lots: list[int]) -> None:
    split = shares(escrow, lots)
    assert sum(split) == escrow
    assert min(split) >= 0
