"""The engine and its slow twin get the same commands: every event's bytes and, at the end, every balance must be the same."""

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.workload import flow, market, resolve, stamp
from engine import invariants
from engine.types import (
    ANY_SIDE,
    COMMAND,
    EVENT,
    TRANSFER,
    EventKind,
    Kind,
    Reason,
)
from tests.both import make_engine, make_twin
from tests.pair import Pair, run_in_batches, shrink
from tests.steps import TERMS, Step, listing, random_steps, steps
from tests.tables import command

ROOT = Path(__file__).parents[2]
CAMPAIGN = os.environ.get("HYPOTHESIS_PROFILE") == "campaign"
STORMS, STORM_STEPS = (400, 4_000) if CAMPAIGN else (6, 1_000)
CASH = (0, 50, 10**6, 10**9, 10**12, 10**15)

RICH = (10**15,) * 4


@given(
    terms=st.tuples(*[st.integers(0, len(TERMS) - 1)] * 2),
    cash=st.tuples(*[st.sampled_from(CASH)] * 4),
    steps=steps(40),
)
def test_the_engine_does_what_its_twin_does(terms: tuple[int, ...], cash: tuple[int, ...], steps: list[Step]) -> None:
    Pair().open(terms, cash).play(steps)


@given(term=st.integers(0, len(TERMS) - 1), steps=steps(40))
@settings(max_examples=settings().max_examples // 2)
def test_and_so_in_one_busy_book(term: int, steps: list[Step]) -> None:
    Pair().open((term,), RICH).play(steps)


def storm_setting(seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rng = random.Random(-seed)
    terms = tuple(rng.randrange(len(TERMS)) for _ in range(3))
    return terms, tuple(rng.choice(CASH[2:]) for _ in range(4))


@cache
def storm(seed: int, count: int = STORM_STEPS, **limits: int) -> Pair:
    """Play a seed's steps. What differs is reported for the fewest of the steps that still differ."""
    terms, cash = storm_setting(seed)
    all_steps = list(random_steps(seed, count))

    def failure(some: list[Step]) -> AssertionError | None:
        try:
            Pair(**limits).open(terms, cash).play(some)
        except AssertionError as error:
            return error
        return None

    pair = Pair(**limits).open(terms, cash)
    try:
        return pair.play(all_steps)
    except AssertionError:
        fewest = shrink(all_steps, failure)
        raise AssertionError(f"seed {seed}, {len(fewest)} steps are enough: {fewest}") from failure(fewest)


@pytest.mark.parametrize("seed", range(STORMS))
def test_a_storm(seed: int) -> None:
    assert storm(seed).refused_for_room == 0


def test_storms_reach_everything() -> None:
    """What the comparison is worth: each kind of event and nearly every reason has come up, trades and deliveries often."""
    events = np.frombuffer(b"".join(b"".join(storm(seed).events) for seed in range(6)), EVENT)
    kinds, reasons = Counter(events["kind"].tolist()), Counter(events["reason"].tolist())
    elsewhere = {
        Reason.OVERLOADED,
        Reason.TOO_MANY_OPEN_ORDERS,
        Reason.POSITION_LIMIT,
        Reason.BAD_LISTING,
        Reason.TOO_MANY_HOLDERS,
        Reason.NOTHING_TO_REDUCE,
        Reason.MMP_FROZEN,
    }  # in the tests below, and tables
    assert set(EventKind) - kinds.keys() == set()
    assert set(Reason) - reasons.keys() <= elsewhere
    assert kinds[EventKind.TRADE] > 400
    assert kinds[EventKind.DELIVERED] > 30


@pytest.mark.parametrize("pool", ["max_orders", "max_positions", "max_leaves", "max_nodes", "max_shares"])
def test_a_full_pool_refuses_and_changes_nothing(pool: str) -> None:
    limits = {"max_leaves": 64, "max_open_orders_per_account": 5, pool: 3 if pool == "max_shares" else 6}
    assert sum(storm(100 + seed, count=400, **limits).refused_for_room for seed in range(3)), "the pool never filled"


def repeat(rows: list[NDArray[np.void]], pair: Pair) -> NDArray[np.void]:
    """Commands in order, numbered to follow those that the pair has seen."""
    return stamp(np.concatenate([row.view(COMMAND) for row in rows]), pair.twin.applied_seq + 1, 0, step_ns=1)


def test_positions_outlive_those_of_a_delisted_book() -> None:
    """Positions are found by hashing: when a book's are dropped, those that had been displaced by them must still be found."""
    pair = Pair()
    opened = [command(Kind.OPEN_ACCOUNT, TRANSFER, account=i) for i in range(1, 61)]
    funded = [command(Kind.DEPOSIT, TRANSFER, account=i, amount_micros=10**12) for i in range(1, 61)]
    pair.apply_many(repeat(opened + funded + [listing(i, i, now_ns=0) for i in range(1, 13)], pair))
    rng = random.Random(4)
    for number in [*range(1, 13), 5, 1, 12]:
        bids = [(account, book) for account in range(1, 61) for book in range(1, 13)]
        orders = [command(Kind.NEW_ORDER, account=a, instrument=b, qty=1) for a, b in rng.sample(bids, 400)]
        gone = [command(kind, instrument=number) for kind in (Kind.CLOSE, Kind.DELIST)]
        pair.apply_many(repeat([*orders, *gone, listing(number, number, now_ns=0)], pair))
    assert len(pair.twin.positions) > 400


def test_pools_grow() -> None:
    """More accounts, instruments, positions, orders and prices than any pool begins with."""
    limits = {"max_accounts": 1_200, "max_instruments": 300}
    rows = [command(Kind.OPEN_ACCOUNT, TRANSFER, account=i) for i in range(1, 1_202)]
    rows += [command(Kind.DEPOSIT, TRANSFER, account=i, amount_micros=10**12) for i in range(1, 1_201)]
    rows += [listing(i, i % 4, now_ns=0) for i in range(1, 302)]
    for i in range(6_000):
        fields = {"account": 1 + i % 1_200, "instrument": 1 + i * 7 % 300, "price": 1 + i % 11, "qty": 1 + i % 5}
        rows.append(command(Kind.NEW_ORDER, **fields))
    pair = Pair(**limits)
    log = repeat(rows, pair)
    kinds = Counter(pair.apply_many(log)["kind"].tolist())
    assert kinds[EventKind.REJECTED] == 2, "one account and one instrument are too many"
    assert len(pair.twin.orders) == 6_000
    pair.apply_many(repeat([command(Kind.MASS_CANCEL, account=i, side=ANY_SIDE) for i in range(1, 1_201)], pair))
    assert not pair.twin.orders
    assert run_in_batches(log, 1, **limits) == run_in_batches(log, len(log), **limits)


@pytest.fixture(scope="module")
def workload() -> NDArray[np.void]:
    """A realistic flow, resolved by the twin."""
    setup = market(seed=5, accounts=20, instruments=14)
    commands = np.concatenate([setup, flow(seed=5, count=6_000, accounts=20, instruments=14)])
    return resolve(make_twin(), stamp(commands, 1, int(setup["ts_ns"][0])))


def test_the_workload_is_lively(workload: NDArray[np.void]) -> None:
    events = make_engine().apply(workload)
    kinds = Counter(events["kind"].tolist())
    assert kinds[EventKind.TRADE] > 600
    assert kinds[EventKind.CANCELED] > 500
    assert kinds[EventKind.REPLACED] > 200
    assert kinds[EventKind.REJECTED] < 200


def test_the_workload_is_the_same_each_time(workload: NDArray[np.void]) -> None:
    setup = market(seed=5, accounts=20, instruments=14)
    again = np.concatenate([setup, flow(seed=5, count=6_000, accounts=20, instruments=14)])
    by_engine = resolve(make_engine(), stamp(again, 1, int(setup["ts_ns"][0])))
    assert by_engine.tobytes() == workload.tobytes()
    assert flow(6, 100, 20, 14).tobytes() != flow(5, 100, 20, 14).tobytes()


def test_a_long_workload_is_the_same_for_both(workload: NDArray[np.void]) -> None:
    """Long enough for pools to grow; in batches, with the invariants after each."""
    engine, twin = make_engine(), make_twin()
    for part in np.array_split(workload, 40):
        assert engine.apply(part).tobytes() == twin.apply(part).tobytes()
        twin.check()
        invariants.check(engine.memory)
    assert engine.dump() == twin.dump()


# The same in any batches, any process, compiled or not


def logs(workload: NDArray[np.void]) -> list[NDArray[np.void]]:
    return [workload, *(storm(seed).log() for seed in range(3))]


def test_batches_make_no_difference(workload: NDArray[np.void]) -> None:
    for log in logs(workload):
        whole = run_in_batches(log, len(log))
        for size in (1, 7, 256):
            assert run_in_batches(log, size) == whole


OTHER_PROCESS = """
import sys, hashlib, numpy as np
from engine.types import COMMAND
from tests.pair import run_in_batches
events, state = run_in_batches(np.fromfile(sys.argv[1], COMMAND), 64)
print(hashlib.sha256(events).hexdigest(), state)
"""


@pytest.mark.parametrize("switch", ["NUMBA_DISABLE_JIT", "PYTHONHASHSEED", "NUMBA_BOUNDSCHECK"])
def test_another_process_gives_the_same(tmp_path: Path, switch: str) -> None:
    """Another process; there without compiling, so that each index and each number is checked by Python itself; and
    compiled with checks of every index, which takes long the first time."""
    if switch == "NUMBA_BOUNDSCHECK" and not CAMPAIGN:
        pytest.skip("a campaign's test: compiling takes half a minute")
    log = storm(0).log()
    path = tmp_path / "log"
    log.tofile(path)
    environment = os.environ | {switch: "1"}
    command = [sys.executable, "-c", OTHER_PROCESS, str(path)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    events, state = run_in_batches(log, 256)
    assert run.stdout.split() == [hashlib.sha256(events).hexdigest(), state]
