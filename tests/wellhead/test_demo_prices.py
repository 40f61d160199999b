"""The price history that comes with the demo, and the path through it."""

import csv
from importlib import resources
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalogue import HOUR_S, NS, Catalogue
from wellhead.demo.cast import CAST, REGIONS, markets, scope
from wellhead.demo.clock import SHORTEST_S, DemoClock
from wellhead.demo.prices import PREMIUM_PPM, WALK_LIMIT_PPM, PriceHistory, PricePath

HISTORY = PriceHistory.load()
START_S = 1_763_900_000 // HOUR_S * HOUR_S
START_NS = (START_S + 20 * 60) * NS
FIRST_DAY = "2025-09-25"


def test_known_prices():
    assert HISTORY.spot_micros("H100S-APN", "2025-11-05") == 11_131_841
    assert HISTORY.spot_micros("H100S-APN", "2025-11-06") == 2_867_890
    assert HISTORY.spot_micros("H100S-USE", "2026-07-30") == 4_540_105
    assert HISTORY.spot_micros("L4-USC", "2023-05-08") == 212_050
    assert HISTORY.ondemand_micros("A100S-USE", "2026-07-30") == 5_707_732
    assert HISTORY.ondemand_micros("H100S-EUC", "2025-01-01") == 13_053_919


def test_no_price_before_the_first_one():
    with pytest.raises(ValueError, match="no price before 2023-05-08"):
        HISTORY.spot_micros("L4-USC", "2023-05-07")
    with pytest.raises(KeyError):
        HISTORY.spot_micros("B200S-USC", "2026-01-01")


def test_the_readme_counts_what_is_there():
    folder = resources.files("wellhead.demo").joinpath("data")
    rows = list(csv.DictReader(folder.joinpath("gpu_prices.csv").read_text().splitlines()))
    changes = sum(len(dates) - 1 for dates, _ in HISTORY.spot.values())
    falls = [new * 1000 // old - 1000 for _, micros in HISTORY.spot.values() for old, new in pairwise(micros)]
    readme = folder.joinpath("README.md").read_text()
    assert f"{len(rows)} rows, {len(HISTORY.markets)} markets, {changes} changes" in readme
    assert min(falls) == -744
    assert "Apache License 2.0" in readme
    assert "Cyclenerd/google-cloud-pricing-cost-calculator" in readme


def test_every_market_is_one_of_the_catalogue():
    catalogue = Catalogue.load()
    for market in HISTORY.markets:
        gpu_class, _, region = market.partition("-")
        assert gpu_class in catalogue.class_by_name
        assert region in catalogue.region_by_name


@given(
    market=st.sampled_from(HISTORY.markets),
    seed=st.integers(0, 2**32),
    minutes=st.integers(0, 24 * 60),
    ahead=st.integers(1, 6),
)
def test_a_path_stays_near_the_list_price(market, seed, minutes, ahead):
    path = PricePath(HISTORY, START_NS, FIRST_DAY, seed)
    now_ns = START_NS + minutes * 60 * NS
    price = path.micros(market, START_S + ahead * HOUR_S, now_ns)
    listed = HISTORY.spot_micros(market, path.day(now_ns))
    assert abs(price - listed) * 1_000_000 <= listed * (WALK_LIMIT_PPM + PREMIUM_PPM) + 1_000_000


def test_a_path_is_a_function_of_its_seed():
    times = [START_NS + minutes * 60 * NS for minutes in range(0, 300, 7)]

    def prices(seed, order):
        path = PricePath(HISTORY, START_NS, FIRST_DAY, seed)
        return {now_ns: path.micros("H100S-USE", START_S + HOUR_S, now_ns) for now_ns in order}

    assert prices(1, times) == prices(1, times[::-1])
    assert prices(1, times) != prices(2, times)


def test_each_hour_is_the_next_day_of_changes_and_the_last_one_lasts():
    path = PricePath(HISTORY, START_NS, FIRST_DAY, 1)
    days = [path.day(START_NS + hours * HOUR_S * NS) for hours in range(40)]
    assert days[:3] == [FIRST_DAY, "2025-11-06", "2026-01-22"]
    assert path.day(START_NS + 39 * 60 * NS) == FIRST_DAY
    assert path.day(START_NS + 40 * 60 * NS) == "2025-11-06"
    assert days[-1] == days[20] == HISTORY.change_days[-1]
    assert path.change_ppm("H100S-APN", START_NS + HOUR_S * NS) == -742_371
    with pytest.raises(ValueError, match="no price changed"):
        PricePath(HISTORY, START_NS, "2030-01-01", 1)


def test_ticks_are_whole_and_markets_without_history_have_none():
    catalogue, path = Catalogue.load(), PricePath(HISTORY, START_NS, FIRST_DAY, 1)
    contract = catalogue.contract("L4-USE-H26112214")
    micros = path.micros("L4-USE", contract.start_s, START_NS)
    assert abs(path.ticks(contract, START_NS) * 500 - micros) <= 250
    assert path.ticks(catalogue.contract("B200S-USE-H26112214"), START_NS) is None


@given(now_s=st.integers(1_700_000_000, 2_000_000_000), seconds=st.integers(1, 3_600))
def test_the_clock_ends_before_now_and_leaves_time_for_an_hour(now_s, seconds):
    clock = DemoClock.before(now_s * NS, seconds)
    assert clock() == clock.start_ns  # it stands until it is started
    assert clock.start_ns // NS % HOUR_S == 20 * 60
    assert clock.start_ns + SHORTEST_S * NS <= clock.end_ns <= now_s * NS


def test_a_stopped_clock_stands():
    clock = DemoClock.before(1_763_900_000 * NS, 30)
    clock.start(0)  # long ago
    assert clock() == clock.end_ns
    clock.stop()
    assert clock() == clock.end_ns


@pytest.mark.parametrize("count", [1, 3, 12, 36])
def test_everybody_has_something_to_trade(count):
    chosen = markets(count)
    assert len(set(chosen)) == count
    assert set(chosen) <= set(HISTORY.markets)
    for part in CAST:
        found = scope(part, chosen)
        assert found
        assert set(found) <= set(chosen)


def test_no_more_markets_than_there_are():
    with pytest.raises(ValueError, match="from 1 to 36"):
        markets(3 * len(REGIONS) + 1)
