"""Public channels: chains without a break, books that equal the market, and who gets what."""

import random
from pathlib import Path
from typing import Any

import pytest

from engine.types import Kind
from gateway.config import GatewayConfig
from gateway.market_data import KEPT_MESSAGES, LINGER_S
from gateway.messages import Code, Format
from tests.gateway.node import NS, OTHER, SYMBOL, Bot, Node, market
from wellhead.book import L2, Book
from wellhead.wire import Codec

Trio = tuple[Node, Bot, Bot]


class Watcher:
    """A session that keeps a book the way a client does, from the bytes it is sent."""

    def __init__(self, node: Node, wire: Format, depth: int | str) -> None:
        self.bot = Bot(node, wire)
        self.codec = Codec("json" if wire is Format.JSON else "msgpack")
        self.book = Book(SYMBOL, depth)
        self.depth = depth
        request = self.codec.encode(
            {"op": "subscribe", "id": 1, "channels": [{"name": "l2", "symbols": [SYMBOL], "depth": depth}]}
        )
        node.gateway.receive(self.bot.session, request)
        self.follow()

    def follow(self) -> None:
        """Apply what came; the book itself checks the chain and the checksum."""
        sent, self.bot.transport.sent = self.bot.transport.sent, []
        for data in sent:
            if b"l2" in data:
                self.book.apply(self.codec.decode(data, L2))

    def levels(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        bids, asks = self.book.bids, self.book.asks
        return [(int(px * 1000), q) for px, q in bids], [(int(px * 1000), q) for px, q in asks]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("frame", [1, 7])
def test_local_books_equal_the_market(tmp_path: Path, seed: int, frame: int) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(rate_burst=10**6))
    rng = random.Random(seed)
    watchers = [Watcher(node, wire, depth) for wire in Format for depth in (10, 100, "all")]
    deepest = 0
    for round_number in range(60):
        for _ in range(rng.randrange(1, 8)):
            trade_at_random(rng, rng.choice((maker, taker)))
        node.run(frame)
        if round_number == 30:
            watchers.append(Watcher(node, Format.JSON, 10))  # one that comes late
        depth = node.gateway.projection.books[1]
        deepest = max(deepest, len(depth.bids.top(None)))
        for watcher in watchers:
            watcher.follow()
            count = None if watcher.depth == "all" else int(watcher.depth)
            assert watcher.levels() == (depth.bids.top(count), depth.asks.top(count))
            assert watcher.book.resyncs == 0
    assert deepest > 12  # or no level ever falls out of a depth of 10


def trade_at_random(rng: random.Random, bot: Bot) -> None:
    side = rng.choice(("buy", "sell"))
    px = f"2.{rng.randrange(500, 540) if side == 'buy' else rng.randrange(530, 570)}"
    roll = rng.random()
    if roll < 0.75:
        tif = {"tif": "ioc"} if roll > 0.7 else {}
        bot.send("order.place", sym=SYMBOL, side=side, qty=rng.randrange(1, 9), px=px, **tif)
    else:
        account = bot.session.identity.account if bot.session.identity else 0
        orders = list(bot.node.gateway.projection.accounts[account].orders)
        if orders and roll < 0.85:
            bot.send("order.cancel", oid=rng.choice(orders))
        elif orders:
            bot.send("order.amend", oid=rng.choice(orders), px=px, qty=rng.randrange(1, 9))


def test_a_book_sees_a_gap_and_a_wrong_checksum(trio: Trio) -> None:
    node, maker, _ = trio
    watcher = Watcher(node, Format.JSON, 10)
    maker.place("buy", 1, "2.4")
    watcher.bot.transport.sent.clear()  # lost
    maker.place("buy", 1, "2.4")
    with pytest.raises(Exception, match="follows"):
        watcher.follow()
    assert not watcher.book.ready
    good = L2(SYMBOL, "snapshot", 9, 0, 0, [("2.4", 1)], [], 123)
    with pytest.raises(Exception, match="checksum"):
        watcher.book.apply(good)


def test_l2_messages(trio: Trio) -> None:
    _, maker, taker = trio
    (snapshot,) = taker.subscribe("l2", symbols=[SYMBOL])
    assert (snapshot["ev"], snapshot["depth"], snapshot["b"], snapshot["crc"]) == ("snapshot", 10, [], 0)
    maker.place("sell", 5, "2.435")
    (delta,) = taker.take()
    assert (delta["prev"], delta["a"], delta["crc"]) == (snapshot["seq"], [["2.435", 5]], 1_660_844_440)
    taker.place("buy", 5, "2.435")
    (gone,) = [message for message in taker.pushes if message["ch"] == "l2"]
    assert (gone["prev"], gone["a"], gone["b"], gone["crc"]) == (delta["seq"], [["2.435", 0]], [], 0)


def test_one_message_a_batch_and_none_for_nothing(trio: Trio) -> None:
    node, maker, taker = trio
    taker.subscribe("l2", symbols=[SYMBOL])
    for n in range(5):
        maker.send("order.place", sym=SYMBOL, side="buy", qty=1, px=f"2.{n}")
    node.run()
    (delta,) = taker.take()
    assert [level[0] for level in delta["b"]] == ["2.4", "2.3", "2.2", "2.1", "2"]
    maker.send("order.place", sym=SYMBOL, side="buy", qty=1, px="2.5", cid="x")
    maker.send("order.cancel", cid="x")
    node.run()
    # The cancel had to wait for its order, so the two are in two batches.
    assert [message["b"] for message in taker.take()] == [[["2.5", 1]], [["2.5", 0]]]


def test_depth_of_a_book_is_replaced_not_doubled(trio: Trio) -> None:
    _, maker, taker = trio
    taker.subscribe("l2", symbols=[SYMBOL])
    (snapshot,) = taker.subscribe("l2", symbols=[SYMBOL], depth="all")
    assert snapshot["depth"] == "all"
    maker.place("buy", 1, "2.4")
    assert [message["depth"] for message in taker.take()] == ["all"]


def test_l1_moves_only_with_the_best(trio: Trio) -> None:
    _, maker, taker = trio
    (snapshot,) = taker.subscribe("l1", symbols=[SYMBOL])
    assert (snapshot["bid"], snapshot["ask"]) == (None, None)
    maker.place("buy", 1, "2.4")
    maker.place("buy", 1, "2.3")
    maker.place("sell", 2, "2.6")
    first, second = taker.take()
    assert (first["bid"], first["ask"]) == (["2.4", 1], None)
    assert (second["bid"], second["ask"], second["prev"]) == (["2.4", 1], ["2.6", 2], first["seq"])


def test_trades_and_their_snapshot(tmp_path: Path) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(recent_trades=2))
    (empty,) = taker.subscribe("trades", symbols=[SYMBOL])
    assert empty["t"] == []
    maker.place("sell", 1, "2.435")
    maker.place("sell", 5, "2.436")
    taker.place("buy", 3, "2.5")
    (both,) = [message for message in taker.pushes if message["ch"] == "trades"]
    assert [(trade["px"], trade["qty"], trade["side"]) for trade in both["t"]] == [
        ("2.435", 1, "buy"),
        ("2.436", 2, "buy"),
    ]
    assert (both["prev"], both["seq"]) == (0, both["t"][-1]["tid"])
    taker.place("buy", 1, "2.5")
    (third,) = [message for message in taker.pushes if message["ch"] == "trades"]
    assert third["prev"] == both["seq"]
    (snapshot,) = Bot(node).subscribe("trades", symbols=[SYMBOL])
    assert snapshot["t"] == [both["t"][1], third["t"][0]]
    assert snapshot["seq"] == third["seq"]


def test_ticker(trio: Trio) -> None:
    _, maker, taker = trio
    (snapshot,) = taker.subscribe("ticker", symbols=[SYMBOL])
    assert (snapshot["last"], snapshot["bid"], snapshot["ask"], snapshot["vol"]) == (None, None, None, 0)
    maker.place("sell", 5, "2.435")
    maker.place("buy", 5, "2.4")
    taker.take()
    taker.place("buy", 3, "2.435")
    (ticker,) = [message for message in taker.pushes if message["ch"] == "ticker"]
    assert (ticker["last"], ticker["bid"], ticker["ask"], ticker["vol"]) == ("2.435", "2.4", "2.435", 3)


def test_the_life_of_an_instrument_is_announced(trio: Trio) -> None:
    node, maker, _ = trio
    (listed,) = maker.subscribe("instruments")
    assert [instrument["sym"] for instrument in listed["list"]] == [SYMBOL]
    (status,) = maker.subscribe("status", symbols=[SYMBOL])
    assert status["status"] == "continuous"
    node.list(OTHER, 2)
    (other,) = maker.take()
    assert (other["ev"], other["list"][0]["sym"], other["prev"]) == ("listed", OTHER, listed["seq"])
    node.simple(Kind.CLOSE, instrument=1)
    closed = {message["ch"]: message for message in maker.take()}
    assert (closed["status"]["status"], closed["status"]["prev"]) == ("closed", status["seq"])
    assert closed["instruments"]["list"][0]["status"] == "closed"
    assert [instrument["sym"] for instrument in maker.good("instruments")["instruments"]] == [OTHER]
    assert [one["sym"] for one in maker.good("instruments", closed=True)["instruments"]] == [SYMBOL, OTHER]
    node.simple(Kind.DELIST, instrument=1)
    delisted = {message["ch"]: message for message in maker.take()}
    assert delisted["status"]["status"] == "delisted"
    assert delisted["instruments"]["list"][0]["status"] == "delisted"
    assert [instrument["sym"] for instrument in maker.good("instruments")["instruments"]] == [OTHER]
    assert maker.session.topics == set()


def test_the_next_hour_that_trades_comes_first(trio: Trio) -> None:
    """Whatever was listed first: a number is used again, and an hour that is past its gate is asked for."""
    node, maker, _ = trio
    for number, symbol in enumerate((OTHER, "L4-EUC-H26112214", "H100S-EUC-H26112215", "H100S-USE-H26112213"), 2):
        node.list(symbol, number)
    node.simple(Kind.CLOSE, instrument=5)
    trading = [SYMBOL, "L4-EUC-H26112214", "H100S-EUC-H26112215", OTHER]
    assert [one["sym"] for one in maker.good("instruments")["instruments"]] == trading
    assert [one["sym"] for one in maker.good("instruments", closed=True)["instruments"]] == [
        "H100S-USE-H26112213",
        *trading,
    ]
    (snapshot,) = maker.subscribe("instruments")
    assert [one["sym"] for one in snapshot["list"]] == ["H100S-USE-H26112213", *trading]
    assert [one["sym"] for one in maker.good("instruments", region="EUC")["instruments"]] == trading[1:]


def test_the_terms_of_an_instrument(trio: Trio) -> None:
    node, maker, _ = trio
    (shown,) = maker.good("instruments", **{"class": "H100S", "region": "USE"})["instruments"]
    assert (shown["class"], shown["region"], shown["tick"], shown["lot_tick"]) == ("H100S", "USE", "0.001", "0.008")
    assert (shown["gpus_per_lot"], shown["hours"], shown["max_px"], shown["taker_ppm"]) == (8, 1, "100", 500)
    assert shown["gate"] == node.gateway.projection.instruments[1].gate_ns // 1000
    assert maker.good("instruments", region="EUC")["instruments"] == []
    assert maker.bad("instruments", region="XXX")["field"] == "region"


def test_the_book_is_emptied_before_the_closing_is_told(trio: Trio) -> None:
    node, maker, _ = trio
    maker.place("buy", 1, "2.4")
    for channel in ("l2", "status"):
        maker.subscribe(channel, symbols=[SYMBOL])
    node.simple(Kind.CLOSE, instrument=1)
    assert [message["ch"] for message in maker.take()] == ["l2", "status"]


def test_a_selection_takes_in_what_is_listed_later(trio: Trio) -> None:
    node, _, taker = trio
    assert [push["sym"] for push in taker.subscribe("l2", symbols="*", depth=100)] == [SYMBOL]
    taker.subscribe("l1", **{"class": "L4"})
    taker.subscribe("trades", region="USE")
    node.list(OTHER, 2)
    joined = taker.take()
    assert {(push["ch"], push["sym"], push["ev"]) for push in joined} == {
        ("l2", OTHER, "snapshot"),
        ("l1", OTHER, "snapshot"),
    }
    taker.good("unsubscribe", channels=[{"name": "l2", "symbols": "*"}])
    node.list("L4-USE-H26112215", 3)
    assert {(push["ch"], push["sym"]) for push in taker.take()} == {
        ("l1", "L4-USE-H26112215"),
        ("trades", "L4-USE-H26112215"),
    }


@pytest.mark.parametrize(
    ("channel", "code", "field"),
    [
        ({"name": "l4", "symbols": "*"}, Code.BAD_CHANNEL, None),
        ({"name": "candles.2m", "symbols": "*"}, Code.BAD_CHANNEL, None),
        ({"name": "l2"}, Code.BAD_FIELD, "symbols"),
        ({"name": "l2", "symbols": ["nothing"]}, Code.UNKNOWN_SYMBOL, None),
        ({"name": "l2", "symbols": [SYMBOL], "class": "H100S"}, Code.BAD_FIELD, "symbols"),
        ({"name": "l2", "class": "nothing"}, Code.BAD_FIELD, "class"),
        ({"name": "l1", "symbols": "*", "depth": 10}, Code.BAD_FIELD, "depth"),
        ({"name": "l1", "symbols": "*", "resume_from": 1}, Code.BAD_FIELD, "resume_from"),
        ({"name": "l1", "symbols": "*", "from": {SYMBOL: 1}}, Code.BAD_FIELD, "from"),
        ({"name": "hb", "from": {SYMBOL: 1}}, Code.BAD_FIELD, "from"),
        ({"name": "hb", "symbols": "*"}, Code.BAD_FIELD, "symbols"),
        ({"name": "hb", "depth": 10}, Code.BAD_FIELD, "depth"),
        ({"name": "hb", "resume_from": 1}, Code.BAD_FIELD, "resume_from"),
    ],
)
def test_bad_channels_change_nothing(trio: Trio, channel: dict[str, Any], code: Code, field: str | None) -> None:
    _, maker, _ = trio
    good = {"name": "l1", "symbols": [SYMBOL]}
    error = maker.bad("subscribe", channels=[good, channel])
    assert (error["code"], error.get("field")) == (code, field)
    assert maker.session.topics == set()


def test_too_many_topics(tmp_path: Path) -> None:
    node, maker, _ = market(tmp_path, GatewayConfig(max_subscriptions=2))
    node.list(OTHER, 2)
    maker.subscribe("l1", symbols="*")
    assert maker.bad("subscribe", channels=[{"name": "l2", "symbols": [SYMBOL]}])["code"] == Code.TOO_LARGE
    maker.good("unsubscribe", channels=[{"name": "l1", "symbols": [OTHER, "gone"]}])
    assert maker.subscribe("l2", symbols=[SYMBOL])


def test_sessions_that_are_gone_get_nothing(trio: Trio) -> None:
    node, maker, taker = trio
    taker.subscribe("l2", symbols="*")
    taker.subscribe("instruments")
    node.gateway.disconnect(taker.session)
    maker.place("buy", 1, "2.4")
    node.list(OTHER, 2)
    assert taker.take() == []
    for _ in range(LINGER_S):
        assert node.gateway.market._topics[1]
        node.gateway.market.drop_idle()
    assert node.gateway.market._topics[1] == {}


def test_topics_that_are_held_again_are_not_dropped(trio: Trio) -> None:
    node, _, taker = trio
    taker.subscribe("l2", symbols="*")
    node.gateway.disconnect(taker.session)
    Bot(node).subscribe("l2", symbols="*")
    for _ in range(LINGER_S + 1):
        node.gateway.market.drop_idle()
    assert len(node.gateway.market._topics[1]) == 1


@pytest.mark.parametrize("wire", list(Format))
def test_a_subscriber_that_comes_back_gets_what_it_missed(trio: Trio, wire: Format) -> None:
    node, maker, _ = trio

    def watch(held: int | None) -> tuple[Bot, list[Any]]:
        bot = Bot(node, wire)
        channel = {"name": "l2", "symbols": [SYMBOL]} | ({} if held is None else {"from": {SYMBOL: held}})
        bot.good("subscribe", channels=[channel])
        return bot, bot.pushes

    bot, (snapshot,) = watch(None)
    maker.place("buy", 1, "2.4")
    (first,) = bot.take()
    node.gateway.disconnect(bot.session)  # the only one who held it
    maker.place("buy", 1, "2.5")
    maker.place("buy", 1, "2.6")
    bot, missed = watch(first["seq"])
    assert [message["ev"] for message in missed] == ["delta", "delta"]
    assert missed[0]["prev"] == first["seq"]
    assert missed[1]["prev"] == missed[0]["seq"]
    assert watch(missed[1]["seq"])[1] == []
    assert [message["ev"] for message in watch(snapshot["seq"])[1]] == ["delta"] * 3
    for unknown in (snapshot["seq"] - 1, 0, 10**9):
        assert [message["ev"] for message in watch(unknown)[1]] == ["snapshot"]
    for _ in range(KEPT_MESSAGES):
        maker.place("buy", 1, "2.4")
    assert [message["ev"] for message in watch(first["seq"])[1]] == ["snapshot"]  # too long ago


def test_one_encoding_serves_all(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway import market_data

    node, maker, _ = trio
    for _ in range(5):
        Bot(node).subscribe("l2", symbols=[SYMBOL])
    encoded = []
    real = market_data.encode
    monkeypatch.setattr(market_data, "encode", lambda message, wire: encoded.append(wire) or real(message, wire))
    maker.place("buy", 1, "2.4")
    assert encoded == [Format.JSON]


def test_market_time_is_the_logs(trio: Trio) -> None:
    node, maker, taker = trio
    taker.subscribe("l2", symbols=[SYMBOL])
    node.now_ns += 3 * NS
    maker.place("buy", 1, "2.4")
    assert taker.take()[0]["ts"] == node.now_ns // 1000


def test_readers_of_the_same_topics_are_told_the_same_and_others_their_own(trio: tuple[Node, Bot, Bot]) -> None:
    """They are told in one piece; whoever comes, goes or holds something else is not of them."""
    node, maker, _ = trio
    same, alike, more = Bot(node), Bot(node), Bot(node, Format.MSGPACK)
    for bot in (same, alike, more):
        bot.subscribe("l2", symbols=[SYMBOL])
        bot.subscribe("l1", symbols=[SYMBOL])
    more.subscribe("ticker", symbols=[SYMBOL])
    maker.place("buy", 3, "2.4")
    first, second, third = same.take(), alike.take(), more.take()
    assert [message["ch"] for message in first] == ["l2", "l1"] and first == second
    assert sorted(message["ch"] for message in third) == ["l1", "l2", "ticker"]
    alike.good("unsubscribe", channels=[{"name": "l1", "symbols": [SYMBOL]}])
    maker.place("buy", 3, "2.401")
    assert [message["ch"] for message in same.take()] == ["l2", "l1"]
    assert [message["ch"] for message in alike.take()] == ["l2"]
    assert {message["seq"] for message in more.take()} == {node.gateway.seq}
