"""Call auctions and halts, as the channels tell them."""

from typing import Any

import pytest

from engine.types import Kind, Status
from gateway.messages import Code
from tests.gateway.node import SYMBOL, Bot, Node

Trio = tuple[Node, Bot, Bot]


def watch(node: Node, *channels: str) -> Bot:
    bot = Bot(node)
    for channel in channels:
        bot.subscribe(channel, symbols=[SYMBOL])
    return bot


def told(bot: Bot) -> list[tuple[Any, ...]]:
    return [
        (push["ev"], push["status"], push.get("px"), push.get("qty")) for push in bot.take() if push["ch"] == "status"
    ]


def test_an_auction_gathers_indicates_and_trades_at_one_price(trio: Trio) -> None:
    node, maker, taker = trio
    watcher, books = watch(node, "status"), watch(node, "l2", "trades")
    taker.subscribe("private")
    node.simple(Kind.SET_STATUS, instrument=1, qty=Status.AUCTION)
    maker.place("sell", 5, "2.4", post="reject")  # nobody takes, so it is content
    maker.place("sell", 5, "2.45")
    taker.place("buy", 7, "2.5", show=2)
    assert taker.bad("order.place", sym=SYMBOL, side="buy", qty=1, type="market")["code"] == Code.BAD_TIF
    shown = [push for push in books.take() if push["ch"] == "l2"][-1]
    assert shown["b"] == [["2.5", 2]]  # above the offers: they are only gathered
    node.simple(Kind.INDICATE, instrument=1)
    node.simple(Kind.SET_STATUS, instrument=1, qty=Status.CONTINUOUS)
    assert told(watcher) == [
        ("change", "auction", None, None), ("indication", "auction", "2.5", 7), ("auction", "auction", "2.5", 7),
        ("change", "continuous", None, None),
    ]  # fmt: skip
    messages = taker.take()
    assert {(fill["px"], fill["fee"]) for fill in messages if fill["ev"] == "fill"} == {("2.5", "0")}
    pushes = books.take()
    assert sum(trade["qty"] for push in pushes if push["ch"] == "trades" for trade in push["t"]) == 7
    snapshot = Bot(node).subscribe("l2", symbols=[SYMBOL])[0]
    assert (snapshot["b"], snapshot["a"]) == ([], [["2.45", 3]])


def test_an_indication_of_a_book_that_would_not_trade(trio: Trio) -> None:
    node, maker, _ = trio
    node.simple(Kind.SET_STATUS, instrument=1, qty=Status.PRE_OPEN)
    watcher = watch(node, "status")
    maker.place("sell", 5, "2.4")
    node.simple(Kind.INDICATE, instrument=1)
    assert told(watcher) == [("indication", "pre_open", None, 0)]


def test_a_trade_too_far_from_the_last_calls_an_auction(trio: Trio) -> None:
    node, maker, taker = trio
    node.create_key("op", "maker", scopes=("admin",))
    admin = Bot(node)
    admin.logon("op")
    admin.good("admin.band", sym=SYMBOL, ref_px="2.5", dynamic_ppm=20_000)
    watcher = Bot(node)
    (snapshot,) = watcher.subscribe("status", symbols=[SYMBOL])
    for px in ("2.5", "2.54", "2.6"):
        maker.place("sell", 1, px)
    taker.place("buy", 1, "2.5")
    taken = taker.place("buy", 3, "2.6")
    assert (taken["st"], taken["cum"], taken["left"]) == ("partial", 1, 2)
    (change,) = watcher.take()
    assert (change["status"], change["why"], change["prev"]) == ("auction", "collar", snapshot["seq"])
    node.restart(node.gateway.snapshot(), len(node.log))
    again = Bot(node).subscribe("status", symbols=[SYMBOL])[0]
    assert (again["status"], again["seq"]) == ("auction", change["seq"])


@pytest.mark.parametrize("status", [Status.HALTED, Status.CANCEL_ONLY])
def test_a_book_that_is_halted_takes_nothing_but_cancels(trio: Trio, status: Status) -> None:
    node, maker, taker = trio
    watcher = Bot(node)
    watcher.subscribe("instruments")
    maker.place("sell", 5, "2.4", cid="a")
    node.simple(Kind.SET_STATUS, instrument=1, qty=status)
    assert [(push["ev"], push["list"][0]["status"]) for push in watcher.take()] == [("changed", status.name.lower())]
    error = taker.bad("order.place", sym=SYMBOL, side="buy", qty=1, px="2.4")
    assert (error["code"], error["status"]) == (Code.MARKET_NOT_OPEN, status.name.lower())
    assert maker.good("order.cancel", cid="a")["st"] == "canceled"
