"""Requests of every kind, at random: what is told in public and in private is what the engine has."""

import random
from pathlib import Path
from typing import Any

import pytest

from engine.types import Kind, Status
from gateway.config import GatewayConfig
from gateway.messages import Format
from tests.gateway.node import NS, SYMBOL, Bot, Node, market
from tests.gateway.test_fast import encoded, requests
from tests.gateway.test_queues import Follower, queues_of_engine


class Own:
    """An account's working orders, kept by nothing but its private stream."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self.kinds: set[str] = set()
        (snapshot,) = bot.subscribe("private")
        self.aseq = snapshot["aseq"]
        self.orders = {order["oid"]: order for order in snapshot["orders"]}

    def follow(self, messages: list[Any]) -> None:
        for message in messages:
            if message.get("ch") == "private":
                self.aseq += 1
                assert message["aseq"] == self.aseq
                self.apply(message)

    def apply(self, event: dict[str, Any]) -> None:
        self.kinds.add(event.get("exec", event["ev"]))
        if event["ev"] == "order":
            self.orders[event["oid"]] = event
        elif event["ev"] == "fill":
            order = self.orders[event["oid"]]
            if "shown" in order:
                order["shown"] -= event["qty"]
            order |= {name: event[name] for name in ("left", "cum", "st")}
        elif event["ev"] == "prevented" and event["what"] == "decrement":
            order = self.orders[event["oid"]]
            order |= {"left": event["left"], "qty": order["qty"] - event["qty"]}
        self.orders = {oid: order for oid, order in self.orders.items() if order["st"] not in ("filled", "canceled")}

    def check(self) -> None:
        """Against what the server says when it is asked."""
        names = (
            "px",
            "qty",
            "left",
            "cum",
            "st",
            "stop",
            "tag",
            "group",
            "level",
            "stp",
            "show",
            "expire",
            "tif",
            "sym",
        )
        asked = self.bot.good("orders.open")["orders"]
        assert {order["oid"]: [order.get(name) for name in names] for order in asked} == {
            oid: [order.get(name) for name in names] for oid, order in self.orders.items()
        }


def passing_time(node: Node, rng: random.Random) -> None:
    """What the node would write to the log by itself, and what an operator would."""
    node.now_ns += rng.choice((0, 1, 100)) * NS
    dump = node.engine.dump()
    for (account, tag), due_ns in dump["timers"].items():
        if due_ns <= node.now_ns:
            node.simple(Kind.DEAD_MAN, account=account, tag=tag)
    for order_id, terms in dump["special"].items():
        if 0 < terms[4] <= node.now_ns:
            node.simple(Kind.EXPIRE, account=owner_of(node, order_id), order_id=order_id)
    book = dump["books"][1]
    if book["status"] != Status.CONTINUOUS:
        node.simple(Kind.SET_STATUS, instrument=1, qty=Status.CONTINUOUS)
    elif rng.random() < 0.1:
        node.simple(Kind.SET_STATUS, instrument=1, qty=rng.choice((Status.AUCTION, Status.HALTED)))


def owner_of(node: Node, order_id: int) -> int:
    return node.gateway.projection.orders[order_id].account


@pytest.mark.parametrize(("seed", "frame"), [(1, 3), (2, 1), (6, None)])
def test_whoever_follows_the_streams_knows_it_all(tmp_path: Path, seed: int, frame: int | None) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(rate_burst=10**6))
    node.create_key("quoter", "maker", scopes=("read", "trade", "quote"))
    quoter = Bot(node)
    quoter.logon("quoter")
    bots, rng = [maker, taker, quoter], random.Random(seed)
    for bot in bots:
        bot.good("mmp.set", group=1, lots=9, fills=3, window_ms=1_000)
    follower, owns = Follower(node), [Own(bot) for bot in bots]
    for request in requests(rng, Format.JSON, 600, specials=0.7):
        node.gateway.receive(rng.choice(bots).session, encoded(request, Format.JSON))
        if rng.random() < 0.3:
            node.run(frame)
            if rng.random() < 0.3:
                passing_time(node, rng)
            follower.follow()
            assert {name: follower.levels(name) for name in "ba"} == queues_of_engine(node)
            for own in owns:
                own.follow(own.bot.take())
    node.run(frame)
    for own in owns:
        own.follow(own.bot.take())
        own.check()
    seen = set().union(*(own.kinds for own in owns))
    assert seen >= {"new", "canceled", "replaced", "triggered", "refreshed", "fill", "mmp", "timer"}
    fresh = Follower(node)
    assert {name: fresh.levels(name) for name in "ba"} == queues_of_engine(node)
    levels = Bot(node).subscribe("l2", symbols=[SYMBOL], depth="all")[0]
    for name in "ba":
        assert [lots for _, lots in levels[name]] == [sum(lots for _, lots in queue) for _, queue in fresh.levels(name)]
