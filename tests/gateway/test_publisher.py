"""In a rush, batches are published together, and nobody can tell but by the count of messages."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.types import Kind
from gateway.config import GatewayConfig
from tests.gateway.node import OTHER, SYMBOL, Bot, Node, market

CHANNELS = [
    {"name": name, "symbols": [SYMBOL, OTHER]} for name in ("l1", "l2", "l3", "trades", "ticker", "candles.1m")
] + [{"name": "instruments"}]


class Alarm:
    """Stands for an event loop: keeps what is to be called later."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, delay_s: float, call: Callable[[], None]) -> None:
        if delay_s:
            self.calls.append((delay_s, call))
        else:
            call()

    def ring(self) -> None:
        calls, self.calls = self.calls, []
        for _, call in calls:
            call()


def watched(path: Path, interval_us: int = 1_000) -> tuple[Node, Bot, Bot, Bot, Alarm]:
    node, maker, taker = market(path, GatewayConfig(publish_us=interval_us))
    node.list(OTHER, 2)
    node.fund(1, instrument=2)
    watcher, alarm = Bot(node), Alarm()
    watcher.good("subscribe", channels=CHANNELS)
    node.gateway.publisher.later = alarm
    node.wall_ns += 10_000_000
    return node, maker, taker, watcher, alarm


def changed(watcher: Bot, channel: str, symbol: str = SYMBOL) -> list[Any]:
    return [message for message in watcher.take() if message["ch"] == channel and message["sym"] == symbol]


def test_a_rush_is_one_message_and_its_answers_are_not_late(tmp_path: Path) -> None:
    node, maker, _, watcher, alarm = watched(tmp_path)
    maker.place("sell", 1, "2.400")
    assert len(changed(watcher, "l2")) == 1  # after a quiet moment at once
    for n in range(5):
        maker.place("sell", 1, f"2.40{n}")  # each answered
    assert changed(watcher, "l2") == []
    assert len(alarm.calls) == 1
    assert 0 < alarm.calls[0][0] <= 0.001
    alarm.ring()
    (message,) = changed(watcher, "l2")
    assert [qty for _, qty in message["a"]] == [2, 1, 1, 1, 1]
    node.wall_ns += 1_000_000
    maker.place("sell", 1, "2.400")
    assert len(changed(watcher, "l2")) == 1


def test_trades_of_a_rush_are_all_told(tmp_path: Path) -> None:
    _, maker, taker, watcher, alarm = watched(tmp_path)
    maker.place("sell", 100, "2.400")
    watcher.take()
    for qty in (1, 2, 3):
        taker.place("buy", qty, "2.400")
    alarm.ring()
    (message,) = changed(watcher, "trades")
    assert [trade["qty"] for trade in message["t"]] == [1, 2, 3]


def test_who_subscribes_in_a_rush_gets_what_is_true_and_then_what_changes(tmp_path: Path) -> None:
    node, maker, _, watcher, alarm = watched(tmp_path)
    maker.place("sell", 1, "2.400")
    maker.place("sell", 1, "2.401")
    late = Bot(node)
    late.good("subscribe", channels=[{"name": "l2", "symbols": [SYMBOL]}, {"name": "l3", "symbols": [SYMBOL]}])
    snapshots = {push["ch"]: push for push in late.pushes}
    before = [message["seq"] for message in changed(watcher, "l2")]
    assert snapshots["l2"]["seq"] == before[-1]
    alarm.ring()
    assert late.take() == []
    node.wall_ns += 1_000_000
    maker.place("sell", 2, "2.402")
    (change,) = [message for message in late.take() if message["ch"] == "l2"]
    assert change["prev"] == snapshots["l2"]["seq"]


def test_what_happens_to_an_instrument_is_told_in_its_place(tmp_path: Path) -> None:
    node, maker, taker, watcher, _ = watched(tmp_path)
    maker.place("sell", 9, "2.400")
    watcher.take()
    taker.place("buy", 4, "2.400")
    node.simple(Kind.CLOSE, instrument=1)
    told = [message["ch"] for message in watcher.take()]
    assert told.index("trades") < told.index("instruments")


@pytest.mark.parametrize("seed", range(4))
def test_a_rush_ends_where_single_batches_end(tmp_path: Path, seed: int) -> None:
    """Every topic's messages lead to the same state, whenever they go out."""
    states = []
    for name, interval_us in (("single", 0), ("rush", 1_000)):
        (tmp_path / name).mkdir()
        rng = random.Random(seed)
        node, maker, taker, watcher, alarm = watched(tmp_path / name, interval_us)
        for _ in range(120):
            node.wall_ns += rng.choice((0, 10_000, 100_000))
            bot, side = rng.choice(((maker, "sell"), (taker, "buy")))
            bot.ask("order.place", sym=SYMBOL, side=side, qty=rng.randrange(1, 9), px=f"2.4{rng.randrange(8)}")
            if rng.random() < 0.1:
                alarm.ring()
        alarm.ring()
        books: dict[str, Any] = {}
        for message in watcher.take():
            if message["ch"] == "l2" and message["sym"] == SYMBOL:
                for side in ("b", "a"):
                    books.setdefault(side, {}).update({px: qty for px, qty in message[side]})
                books["crc"] = message["crc"]
            elif message["ch"] == "trades":
                books.setdefault("trades", []).extend(message["t"])
            elif message["ch"] == "l3" and message["sym"] == SYMBOL:
                books["l3"] = message["crc"]
        books["b"], books["a"] = ({px: qty for px, qty in books[side].items() if qty} for side in ("b", "a"))
        states.append(books)
    assert states[0] == states[1]
    assert states[0]["trades"]
