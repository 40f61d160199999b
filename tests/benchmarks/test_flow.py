"""Recorded flows against a slow replay of the same rows, written from the format's description alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.bare_book import BareBook
from benchmarks.engine import rows_for_bare, run_flow, seeded_flow
from engine.types import MAX_QTY
from wellhead.flow import FlowError, market_engine, read_flow, resolve, run, summary

ROOT = Path(__file__).parent.parent.parent
ADD, CANCEL, REDUCE, REPLACE, MARKET, IOC = range(6)
HIGHEST = 100_000
MOST, LEAST = (1 << 63) - 1, -1 << 63

Row = tuple[int, int, int, int, int]


class SlowBook:
    """Orders in a list, oldest first; the best of them is looked for each time."""

    def __init__(self, lowest: int, highest: int) -> None:
        self.lowest, self.highest = lowest, highest
        self.orders: list[list[int]] = []  # id, side, price, open quantity
        self.trades: list[tuple[int, int, int, int]] = []
        self.refused: list[int] = []

    def replay(self, rows: list[Row]) -> "SlowBook":
        for at, row in enumerate(rows):
            if not self.take(*row):
                self.refused.append(at)
        return self

    def take(self, op: int, flow_id: int, side: int, price: int, qty: int) -> bool:
        """Whether the row makes sense; then it is carried out."""
        order = next((order for order in self.orders if order[0] == flow_id), None)
        fits = self.lowest <= price <= self.highest
        if op in (ADD, MARKET, IOC):
            beyond = op == IOC and (price > self.highest if side == 0 else price < self.lowest)
            if order or not 1 <= qty <= MAX_QTY or not (fits or beyond or op == MARKET):
                return False
            self.trade(flow_id, side, None if op == MARKET else price, qty, rests=op == ADD)
            return True
        if order is None:
            return False
        if op == CANCEL or qty == 0:
            self.orders.remove(order)
            return True
        if op == REDUCE:
            if not 0 < qty <= order[3]:
                return False
            order[3] = qty
            return True
        if not fits or not 0 < qty <= MAX_QTY:
            return False
        self.orders.remove(order)
        self.trade(flow_id, order[1], price, qty, rests=True)
        return True

    def trade(self, taker: int, side: int, limit: int | None, qty: int, *, rests: bool) -> None:
        sign = 1 if side == 0 else -1
        while qty:
            others = [order for order in self.orders if order[1] != side]
            maker = min(others, key=lambda order: sign * order[2], default=None)  # the first of those that are equal
            if maker is None or (limit is not None and sign * maker[2] > sign * limit):
                break
            fill = min(qty, maker[3])
            qty -= fill
            maker[3] -= fill
            self.trades.append((maker[0], taker, maker[2], fill))
            if maker[3] == 0:
                self.orders.remove(maker)
        if qty and rests:
            assert limit is not None
            self.orders.append([taker, side, limit, qty])

    def hash(self) -> str:
        value = 1469598103934665603
        for trade in self.trades:
            for part in trade:
                value = ((value ^ part) * 1099511628211) % 2**64
        return f"{value:016x}"


def check(rows: list[Row], lowest: int = 0, batch: int = 7) -> SlowBook:
    flow = np.array(rows, "<i8").reshape(-1, 5)
    resolved = resolve(flow)
    slow = SlowBook(lowest, lowest + HIGHEST).replay(rows)
    report = summary(resolved, run(market_engine(), resolved.commands, batch))
    assert sorted(resolved.refused) == slow.refused, resolved.refused
    assert sum(report["rejected_for"].values()) == report["rejected"] == len(slow.refused)
    assert report["trades"] == len(slow.trades)
    assert report["qty"] == sum(qty for _, _, _, qty in slow.trades)
    assert report["notional"] == sum(price * qty for _, _, price, qty in slow.trades)
    assert report["hash"] == slow.hash()
    return slow


some_ids = st.one_of(st.integers(1, 9), st.sampled_from([0, -1, 1_001, 10**15, MOST, LEAST]))
some_prices = st.one_of(st.integers(48, 52), st.sampled_from([0, -1, -2, HIGHEST, HIGHEST + 1, MOST, LEAST]))
some_qty = st.one_of(st.integers(1, 9), st.sampled_from([0, -1, -2, MAX_QTY, MAX_QTY + 1, MOST, LEAST]))
some_rows = st.tuples(st.sampled_from([0, 0, 0, 1, 2, 3, 3, 4, 5]), some_ids, st.integers(0, 1), some_prices, some_qty)


def window(rows: list[Row]) -> int:
    """Where the book begins: at 0, unless orders that may rest are elsewhere and all fit into one."""
    prices = [row[3] for row in rows if row[0] in (ADD, REPLACE) and row[4] > 0] or [0]
    low, high = min(prices), max(prices)
    if (low >= 0 and high <= HIGHEST) or high - low > HIGHEST:
        return 0
    return max(low - (HIGHEST - high + low) // 2, LEAST)


@given(st.lists(some_rows, min_size=1, max_size=60))
@settings(max_examples=settings().max_examples // 4)  # a thousand accounts are made for each
@example([(0, 1, 0, 50, 10), (0, 2, 1, 50, 10), (0, 1, 0, 50, 5), (2, 1, 0, 0, 3)])  # an id once more, after its fills
@example([(0, 1, 0, 50, 5), (2, 1, 0, 0, -1), (3, 1, 0, -1, 5), (3, 1, 0, 50, -1), (2, 1, 0, 0, MOST)])
def test_whatever_the_rows_say_the_slow_replay_says_it_too(rows: list[Row]) -> None:
    check(rows, window(rows))


def test_a_lively_flow_and_its_slow_replay() -> None:
    rows = [tuple(row) for row in seeded_flow(3_000).tolist()]
    slow = check(rows, batch=256)
    assert len(slow.trades) > 150
    assert len(slow.refused) > 10


def test_a_row_that_makes_no_sense_changes_nothing() -> None:
    rows: list[Row] = [
        (0, 1, 0, 50, 10),
        (0, 1, 0, 51, 10),  # works already
        (4, 1, 1, 0, 10),  # so does it here
        (2, 1, 0, 0, 11),  # no reduction
        (2, 1, 0, 0, 10),  # that is what is open: it keeps its place
        (3, 2, 0, 50, 1),  # unknown
        (0, 3, 1, 50, 0),
        (0, 4, 1, HIGHEST + 60, 1),
        (5, 5, 1, HIGHEST + 1, 1),
        (5, 6, 1, -5, 1),  # as low as it likes
        (4, 7, 1, MOST, 1),  # a market order has no price
        (2, 1, 1, 99, 0),  # to nothing
        (1, 1, 0, 0, 0),  # gone
    ]
    slow = check(rows)
    assert slow.refused == [1, 2, 3, 5, 6, 7, 8, 12]
    assert slow.trades == [(1, 6, 50, 1), (1, 7, 50, 1)]
    assert resolve(np.array(rows, "<i8")).refused == {
        1: "REPEATED_ID", 2: "REPEATED_ID", 3: "BAD_QTY", 5: "ORDER_NOT_FOUND", 6: "BAD_QTY", 7: "BAD_PRICE",
        8: "BAD_PRICE", 12: "ORDER_NOT_FOUND",
    }  # fmt: skip


@pytest.mark.parametrize("lowest", [5_854_300, -70_000, MOST - 3, LEAST])
def test_prices_elsewhere_are_moved_into_the_book(lowest: int) -> None:
    """As in recorded markets, whose prices are in hundredths of a cent."""
    rows: list[Row] = [(0, 1, 1, lowest + 3, 4), (0, 2, 0, lowest + 1, 4), (5, 3, 0, MOST, 2), (5, 4, 1, LEAST, 9)]
    slow = check(rows, window(rows))
    assert slow.trades == [(1, 3, lowest + 3, 2), (2, 4, lowest + 1, 4)]


def test_what_an_account_can_pay_and_deliver_is_enough_for_large_orders() -> None:
    """Orders of the largest size, all of one account."""
    rows: list[Row] = [(0, 1_000 * at, 1, 60_000 + at, MAX_QTY) for at in range(1, 16)]
    rows += [(4, 20_001, 0, 0, MAX_QTY)]
    assert check(rows).trades == [(1_000, 20_001, 60_001, MAX_QTY)]


@pytest.mark.parametrize("size", [1, 39, 41, 79])
def test_a_file_that_ends_inside_a_row(tmp_path: Path, size: int) -> None:
    (tmp_path / "flow").write_bytes(bytes(size))
    with pytest.raises(FlowError, match=f"{size} bytes are no whole number of rows"):
        read_flow(tmp_path / "flow")


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(FlowError, match=words):
            read_flow(path)


@pytest.mark.parametrize(
    ("row", "words"), [((6, 1, 0, 1, 1), "op 6 and side 0"), ((-1, 1, 0, 1, 1), "op -1"), ((1, 1, 2, 1, 1), "side 2")]
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, row: Row, words: str) -> None:
    np.array([(0, 1, 0, 1, 1), row], "<i8").tofile(tmp_path / "flow")
    with pytest.raises(FlowError, match=f"row 1 has .*{words}"):
        read_flow(tmp_path / "flow")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--flow", "none"], "cannot be read"),
        (["--flow", "x", "--batch", "0"], "below 1"),
        (["--rounds", "-1"], "below 1"),
    ],
)
def test_the_command_says_what_was_wrong(tmp_path: Path, arguments: list[str], words: str) -> None:
    program = [sys.executable, "-m", "benchmarks.engine", *arguments]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


def test_the_yardstick_gets_only_what_it_can_run(tmp_path: Path) -> None:
    """It checks nothing: rows that were refused would break its queues, large ids its memory."""
    rows: list[Row] = [
        (0, 10**15, 1, 50, 9), (0, 10**15, 1, 51, 9), (0, -7, 1, 50, 4), (2, 10**15, 1, 0, 0), (0, 3, 0, 48, 5),
        (3, 3, 1, 49, 0), (4, 8, 0, 10**9, 3), (1, 99, 0, 0, 0),
    ]  # fmt: skip
    flow: NDArray[np.int64] = np.array(rows, "<i8")
    kept = rows_for_bare(flow, resolve(flow))
    book = BareBook(kept)
    assert book.trades[: book.run(3)][["price", "qty"]].tolist() == [(50, 3)]
    flow.tofile(tmp_path / "flow")
    report = run_flow(tmp_path / "flow", batch=2, rounds=1)
    assert report["trades"] == 1 and report["bare_commands_per_s"] > 0


@pytest.mark.parametrize("row", [(1, 1, 0, 0, 0), (4, 1, 0, 0, 5)])
def test_a_flow_in_which_nothing_happens(tmp_path: Path, row: Row) -> None:
    np.array([row], "<i8").tofile(tmp_path / "flow")
    report = run_flow(tmp_path / "flow", batch=4_096, rounds=1)
    assert (report["trades"], report["qty"], report["hash"]) == (0, 0, "14650fb0739d0383")
