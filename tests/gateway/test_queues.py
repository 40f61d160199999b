"""The channel `l3`: whoever follows it has the market's queues, order by order."""

import random
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from engine.types import Kind
from gateway.config import GatewayConfig
from tests.gateway.node import OTHER, SYMBOL, Bot, Node, market
from tests.gateway.test_market_data import trade_at_random

Trio = tuple[Node, Bot, Bot]


class Follower:
    """Queues kept by nothing but what the protocol says."""

    def __init__(self, node: Node) -> None:
        self.bot = Bot(node)
        self.sides: dict[str, dict[int, tuple[int, int]]] = {"b": {}, "a": {}}  # order -> price, lots; in queue order
        self.seq = 0
        self.deltas = 0
        self.apply(self.bot.subscribe("l3", symbols=[SYMBOL])[0])

    def follow(self) -> None:
        for message in self.bot.take():
            assert message["prev"] == self.seq
            self.deltas += 1
            self.apply(message)

    def apply(self, message: dict[str, Any]) -> None:
        for name, side in self.sides.items():
            for order, px, lots in message[name]:
                price = int(px.replace(".", "").ljust(4, "0")) if "." in px else int(px) * 1000
                if lots == 0:
                    del side[order]
                elif order in side:
                    assert side[order][0] == price
                    side[order] = price, lots
                else:
                    side[order] = price, lots
        self.seq = message["seq"]
        assert crc32(self.text().encode()) == message["crc"]

    def levels(self, name: str) -> list[tuple[int, list[tuple[int, int]]]]:
        found: dict[int, list[tuple[int, int]]] = {}
        for order, (price, lots) in self.sides[name].items():
            found.setdefault(price, []).append((order, lots))
        return sorted(found.items(), reverse=name == "b")

    def text(self) -> str:
        parts = []
        for name in "ba":
            for price, queue in self.levels(name)[:10]:
                parts += [f"{order}:{price * 1000}:{lots};" for order, lots in queue]
        return "".join(parts)


def queues_of_engine(node: Node) -> dict[str, list[tuple[int, list[tuple[int, int]]]]]:
    """What the engine itself has, from its own dump."""
    dump = node.engine.dump()
    book, special = dump["books"][1], dump["special"]

    def shown(order: int, leaves: int) -> int:
        terms = special.get(order)
        return int(terms[6]) if terms and terms[5] else leaves  # of an iceberg

    return {
        name: [(price, [(row[0], shown(row[0], row[2])) for row in rows]) for price, rows in book[side]]
        for name, side in (("b", "bids"), ("a", "asks"))
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("frame", [1, 7])
def test_followers_have_the_engines_queues(tmp_path: Path, seed: int, frame: int) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(rate_burst=10**6))
    rng = random.Random(seed)
    followers = [Follower(node)]
    for round_number in range(60):
        for _ in range(rng.randrange(1, 8)):
            trade_at_random(rng, rng.choice((maker, taker)))
        node.run(frame)
        if round_number in (20, 40):
            followers.append(Follower(node))
        for follower in followers:
            follower.follow()
            assert {name: follower.levels(name) for name in "ba"} == queues_of_engine(node)
    assert followers[0].deltas > 30


def test_places_in_the_queue(trio: Trio) -> None:
    node, maker, taker = trio
    follower = Follower(node)
    first, second, third = (maker.place("buy", qty, "2.4")["oid"] for qty in (5, 6, 7))
    maker.good("order.amend", oid=first, qty=3)  # keeps its place
    maker.good("order.amend", oid=second, qty=9)  # does not
    taker.good("order.place", sym=SYMBOL, side="buy", qty=1, px="2.3")
    follower.follow()
    assert follower.levels("b")[0] == (2_400, [(first, 3), (third, 7), (second, 9)])
    maker.good("order.cancel", oid=third)
    follower.follow()
    assert follower.levels("b")[0] == (2_400, [(first, 3), (second, 9)])


def test_orders_that_come_and_go_in_one_batch_are_not_told(trio: Trio) -> None:
    node, maker, taker = trio
    maker.place("sell", 5, "2.5")
    follower = Follower(node)
    for _ in range(2):
        taker.send("order.place", sym=SYMBOL, side="buy", qty=1, px="2.5")
    node.run()
    (delta,) = follower.bot.take()
    assert (delta["b"], [lots for _, _, lots in delta["a"]]) == ([], [3])


def test_who_comes_later_and_who_comes_again(trio: Trio) -> None:
    node, maker, _ = trio
    maker.place("buy", 1, "2.4")
    follower = Follower(node)
    follower.bot.good("unsubscribe", channels=[{"name": "l3", "symbols": "*"}])
    maker.place("buy", 2, "2.4")
    follower.bot.take()
    again = Follower(node)
    assert [lots for _, lots in again.levels("b")[0][1]] == [1, 2]
    maker.place("buy", 3, "2.4")
    again.follow()
    assert [lots for _, lots in again.levels("b")[0][1]] == [1, 2, 3]


def test_a_book_that_is_listed_later(trio: Trio) -> None:
    node, maker, _ = trio
    watcher = Bot(node)
    assert [push["sym"] for push in watcher.subscribe("l3", symbols="*")] == [SYMBOL]
    node.list(OTHER, 2)
    (snapshot,) = watcher.take()
    assert (snapshot["sym"], snapshot["ev"], snapshot["b"]) == (OTHER, "snapshot", [])
    maker.good("order.place", sym=OTHER, side="buy", qty=1, px="0.3")
    (delta,) = watcher.take()
    assert (delta["sym"], delta["prev"], len(delta["b"])) == (OTHER, snapshot["seq"], 1)
    node.simple(Kind.CLOSE, instrument=2)
    (gone,) = watcher.take()
    assert [lots for _, _, lots in gone["b"]] == [0]


def test_after_a_restart_the_queues_are_the_same(trio: Trio) -> None:
    node, maker, _ = trio
    orders = [maker.place("buy", qty, "2.4")["oid"] for qty in (5, 6, 7)]
    maker.good("order.amend", oid=orders[0], qty=9)
    before = Follower(node).sides
    snapshot = node.gateway.snapshot()
    for state, after in ((None, 0), (snapshot, len(node.log))):
        node.restart(state, after)
        assert list(Follower(node).sides["b"].items()) == list(before["b"].items())
