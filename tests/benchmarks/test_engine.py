"""The engine's benchmark: engine and yardstick make the same trades of a flow, and the command runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bare_book import BareBook
from benchmarks.engine import seeded_flow
from wellhead.flow import FlowError, market_engine, read_flow, resolve, run, summary

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("batch", [1, 7, 4_096])
def test_engine_and_yardstick_make_the_same_trades(batch: int) -> None:
    rows = seeded_flow(6_000)
    resolved = resolve(rows)
    events = run(market_engine(), resolved.commands, batch)
    book = BareBook(rows)
    bare = book.trades[: book.run(batch)]
    trades = events[events["kind"] == 3]
    assert len(trades) > 300
    for ours, theirs in (("contra_order_id", "maker"), ("order_id", "taker")):
        assert [resolved.ids[order_id] for order_id in trades[ours].tolist()] == bare[theirs].tolist()
    assert trades["price"].tolist() == bare["price"].tolist()
    assert trades["qty"].tolist() == bare["qty"].tolist()


def test_a_recorded_flow_by_hand(tmp_path: Path) -> None:
    rows = [
        [0, 1, 1, 30_001, 10],  # a sell of 10
        [0, 2, 1, 30_001, 5],  # behind it
        [2, 1, 1, 30_001, 4],  # the first keeps its place
        [5, 3, 0, 30_001, 6],  # takes 4 of the first and 2 of the second
        [3, 2, 1, 30_000, 7],  # the second is now 7 at a better price
        [4, 4, 0, 0, 9],  # takes the 7; nothing else is there
        [1, 2, 1, 0, 0],  # gone already
    ]
    path = tmp_path / "flow"
    np.array(rows, "<i8").tofile(path)
    printed = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", "--flow", str(path), "--json", "--rounds", "1"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    report = json.loads(printed.stdout)
    expected = [(1, 3, 30_001, 4), (2, 3, 30_001, 2), (2, 4, 30_000, 7)]
    hashed = 1469598103934665603
    for value in (value for trade in expected for value in trade):
        hashed = ((hashed ^ value) * 1099511628211) % 2**64
    assert report["trades"] == 3
    assert report["qty"] == 13
    assert report["notional"] == 6 * 30_001 + 7 * 30_000
    assert report["hash"] == f"{hashed:016x}"
    assert report["rejected"] == 1
    assert report["commands_per_s"] > 0


@pytest.mark.parametrize("rows", [[], [[6, 1, 0, 1, 1]], [[0, 1, 2, 1, 1]]])
def test_what_is_no_flow_is_refused(tmp_path: Path, rows: list[list[int]]) -> None:
    path = tmp_path / "flow"
    np.array(rows, "<i8").tofile(path)
    with pytest.raises(FlowError, match="flow"):
        summary(resolve(read_flow(path)), np.zeros(0))


def test_the_report_has_every_part() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", "--brief", "--json"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    report = json.loads(printed.stdout)
    assert [row["batch"] for row in report["throughput"]] == [1, 16, 256, 1_024, 4_096]
    assert report["memory"]["bytes_per_resting_order"] >= 64
    assert {"conditions", "latency", "scaling", "peers"} <= set(report)
