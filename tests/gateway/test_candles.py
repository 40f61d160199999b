"""Candles: what is in them, when they are over, and that a restart changes nothing."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.types import Kind
from gateway.candles import INTERVALS, MINUTE_S, Series, minutes
from gateway.config import GatewayConfig
from tests.gateway.node import NS, SYMBOL, Bot, Node, market

Trio = tuple[Node, Bot, Bot]
MINUTE_NS = MINUTE_S * NS


def to_minute(node: Node, minute: int) -> None:
    """The market's clock goes to a minute after the hour in which the test began, and the gateway looks at it."""
    hour_ns = node.now_ns // (60 * MINUTE_NS) * 60 * MINUTE_NS
    node.now_ns = hour_ns + minute * MINUTE_NS
    node.gateway.poll()
    node.run()


def trade(maker: Bot, taker: Bot, px: str, qty: int = 1) -> None:
    maker.place("sell", qty, px)
    taker.place("buy", qty, px)


def candles(bot: Bot, channel: str = "candles.1m") -> list[dict[str, Any]]:
    """The candles of all that was pushed."""
    return [item for push in bot.take() if push.get("ch") == channel for item in push["list"]]


def body(item: dict[str, Any]) -> tuple[Any, ...]:
    return (*(item[name] for name in "ohlc"), item["vol"], item["n"], item["closed"])


def test_a_candle_of_a_minute(trio: Trio) -> None:
    node, maker, taker = trio
    watcher = Bot(node)
    (snapshot,) = watcher.subscribe("candles.1m", symbols=[SYMBOL])
    assert [body(item) for item in snapshot["list"]] == [(None, None, None, None, 0, 0, False)]
    to_minute(node, 31)
    watcher.take()
    for px, qty in (("2.5", 1), ("2.7", 2), ("2.4", 3), ("2.6", 4)):
        trade(maker, taker, px, qty)
    assert body(candles(watcher)[-1]) == ("2.5", "2.7", "2.4", "2.6", 10, 4, False)
    to_minute(node, 32)
    (push,) = watcher.take()
    assert [body(item) for item in push["list"]] == [("2.5", "2.7", "2.4", "2.6", 10, 4, True)]
    assert push["ts"] >= push["list"][0]["start"] + 60_000_000


def test_minutes_without_a_trade_are_closed_too(trio: Trio) -> None:
    node, maker, taker = trio
    watcher = Bot(node)
    watcher.subscribe("candles.1m", symbols=[SYMBOL])
    to_minute(node, 31)
    watcher.take()
    to_minute(node, 32)
    assert [body(item) for item in candles(watcher)] == [(None, None, None, None, 0, 0, True)]
    trade(maker, taker, "2.5")
    candles(watcher)
    to_minute(node, 35)  # two minutes in which nobody looked at the clock
    flat = ("2.5", "2.5", "2.5", "2.5", 0, 0, True)
    assert [body(item) for item in candles(watcher)] == [("2.5", "2.5", "2.5", "2.5", 1, 1, True), flat, flat]


def test_the_log_ends_a_candle_not_the_clock(trio: Trio) -> None:
    node, maker, taker = trio
    watcher = Bot(node)
    watcher.subscribe("candles.1m", symbols=[SYMBOL])
    to_minute(node, 31)
    watcher.take()
    node.now_ns += 59 * NS
    maker.place("sell", 1, "2.5")
    taker.send("order.place", sym=SYMBOL, side="buy", qty=1, px="2.5")
    (waiting,) = node.queue  # is stamped below, and is still on its way when the minute is over
    node.queue.clear()
    late_ns = node.now_ns
    node.now_ns = late_ns + 2 * NS
    node.gateway.poll()
    assert candles(watcher) == []  # a TICK is on its way, behind the order
    tick_queue, node.queue = node.queue, [waiting]
    node.now_ns = late_ns - 1_000_000
    node.run()
    node.queue = tick_queue
    node.now_ns = late_ns + 2 * NS
    node.run()
    open_one, closed_one = candles(watcher)
    assert (body(open_one)[4:], body(closed_one)[4:]) == ((1, 1, False), (1, 1, True))


def test_nobody_looks_and_no_tick_is_sent(trio: Trio) -> None:
    node, _, _ = trio
    node.now_ns += 5 * MINUTE_NS
    node.gateway.poll()
    assert node.queue == []
    Bot(node).subscribe("candles.5m", symbols=[SYMBOL])
    node.now_ns += MINUTE_NS
    node.gateway.poll()
    node.gateway.poll()
    assert [int(commands["kind"][0]) for commands in node.queue] == [Kind.TICK]


def test_longer_candles_and_chains(trio: Trio) -> None:
    node, maker, taker = trio
    watcher = Bot(node)
    last = {}
    for channel in INTERVALS:
        (snapshot,) = watcher.subscribe(channel, symbols=[SYMBOL])
        last[channel] = snapshot["seq"]
    closed: dict[str, list[Any]] = {channel: [] for channel in INTERVALS}
    to_minute(node, 29)
    for minute in range(30, 61):
        to_minute(node, minute)
        if minute % 3 == 0 and minute < 45:
            trade(maker, taker, f"2.{minute}")
        for push in watcher.take():
            assert push["prev"] == last[push["ch"]]
            last[push["ch"]] = push["seq"]
            closed[push["ch"]] += [item for item in push["list"] if item["closed"]]
    in_5m = [body(item)[:6] for item in closed["candles.5m"] if item["n"]]
    assert in_5m == [
        ("2.3", "2.33", "2.3", "2.33", 2, 2),
        ("2.36", "2.39", "2.36", "2.39", 2, 2),
        ("2.42", "2.42", "2.42", "2.42", 1, 1),
    ]
    (hour,) = closed["candles.1h"]
    assert body(hour) == ("2.3", "2.42", "2.3", "2.42", 5, 5, True)
    starts = [item["start"] for item in closed["candles.1m"]]
    assert {after - before for before, after in pairwise(starts)} == {60_000_000}


def test_the_gate_ends_the_last_candle(trio: Trio) -> None:
    node, _, _ = trio
    watcher = Bot(node)
    watcher.subscribe("candles.1m", symbols=[SYMBOL])
    gate_ns = node.gateway.projection.instruments[1].gate_ns
    node.now_ns = gate_ns + 10 * MINUTE_NS
    node.gateway.poll()
    node.run()
    last = candles(watcher)[-1]
    assert last["closed"]
    assert last["start"] * 1000 < gate_ns <= last["start"] * 1000 + MINUTE_NS
    node.now_ns += 10 * MINUTE_NS
    node.gateway.poll()
    node.run()
    assert candles(watcher) == []
    (snapshot,) = Bot(node).subscribe("candles.1m", symbols=[SYMBOL])
    assert snapshot["list"][-1] == last


@pytest.mark.parametrize("keep", [3, 120])
def test_a_restart_changes_nothing(tmp_path: Path, keep: int) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(recent_candles=keep))
    for minute in range(30, 40):
        to_minute(node, minute)
        trade(maker, taker, f"2.{minute}")
    shown = [Bot(node).subscribe(channel, symbols=[SYMBOL]) for channel in INTERVALS]
    assert len(shown[0][0]["list"]) == min(keep, 10)
    snapshot = node.gateway.snapshot()
    node.restart()
    assert [Bot(node).subscribe(channel, symbols=[SYMBOL]) for channel in INTERVALS] == shown
    node.restart(snapshot, after=len(node.log))
    assert [Bot(node).subscribe(channel, symbols=[SYMBOL]) for channel in INTERVALS] == shown


@pytest.mark.parametrize("at_most", [1, 3, 4_096])
def test_candles_are_the_same_whoever_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_most: int) -> None:
    """Trades that wait while nobody looks are in the candles of their time once somebody does."""
    monkeypatch.setattr("gateway.candles.WAITING_TRADES", at_most)
    shown = []
    for name in ("watched", "alone"):
        (tmp_path / name).mkdir()
        node, maker, taker = market(tmp_path / name)
        if name == "watched":
            for channel in INTERVALS:
                Bot(node).subscribe(channel, symbols=[SYMBOL])
        for minute in (31, 32, 32, 35, 37, 42):
            to_minute(node, minute)
            node.simple(Kind.TICK)
            trade(maker, taker, f"2.{minute}", minute)
            trade(maker, taker, "2.1")
        snapshots = [Bot(node).subscribe(channel, symbols=[SYMBOL])[0] for channel in INTERVALS]
        shown.append([[body(item) for item in snapshot["list"]] for snapshot in snapshots])
        stored = node.gateway.channels.dump()
    assert shown[0] == shown[1]
    assert [candle.trades for candle in stored.candles.series[0][1][2]] == [12]


def test_a_number_that_comes_again_has_no_past(trio: Trio) -> None:
    node, maker, taker = trio
    trade(maker, taker, "2.5")
    taker.place("sell", 1, "2.5")
    maker.place("buy", 1, "2.5")  # nobody has a position
    node.simple(Kind.CLOSE, instrument=1)
    node.simple(Kind.DELIST, instrument=1)
    node.list()
    (snapshot,) = Bot(node).subscribe("candles.1h", symbols=[SYMBOL])
    assert [item["vol"] for item in snapshot["list"]] == [0]


TRADES = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 2), st.integers(1, 50), st.integers(1, 9)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(TRADES, st.integers(1, 9))
def test_candles_are_the_trades_of_their_time(rows: list[tuple[int, int, int, int]], cut: int) -> None:
    """However the trades are cut into batches, a candle is the trades from its start to its end."""
    import numpy as np

    from engine.types import EVENT

    rows = sorted(rows, key=lambda row: row[0])
    trades = np.zeros(len(rows), EVENT)
    for at, (second, instrument, price, lots) in enumerate(rows):
        trades["ts_ns"][at], trades["instrument"][at] = (1_800_000_000 + second) * NS, instrument
        trades["price"][at], trades["qty"][at] = price, lots
    series = {(number, length): Series(length, 100) for number in (1, 2) for length in (60, 300)}
    for start in range(0, len(trades), cut):
        part = trades[start : start + cut]
        for made, numbers in minutes(part, part["ts_ns"]):
            for candle, number in zip(made, numbers, strict=True):
                for length in (60, 300):
                    series[number, length].add(candle)
    for (number, length), one in series.items():
        mine = [row for row in rows if row[1] == number]
        assert sum(candle.trades for candle in one.candles) == len(mine)
        for candle in one.candles:
            inside = [row for row in mine if candle.start_s <= 1_800_000_000 + row[0] < candle.start_s + length]
            prices = [row[2] for row in inside]
            assert (candle.open, candle.close) == (prices[0], prices[-1])
            assert (candle.high, candle.low, candle.trades) == (max(prices), min(prices), len(prices))
            assert candle.lots == sum(row[3] for row in inside)
