"""Readers that lag: merged messages leave them where everything would have."""

import asyncio
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway.config import GatewayConfig
from gateway.conflate import Conflation
from gateway.messages import L1, Format, TradeItem, Trades, encode
from tests.gateway.node import SYMBOL, Bot, Node, market
from tests.gateway.test_market_data import Watcher, trade_at_random
from tests.gateway.test_queues import Follower, queues_of_engine
from tests.gateway.test_server import ask, serving

Trio = tuple[Node, Bot, Bot]
LAGGING = 262_144
CHANNELS = ("l1", "l2", "l3", "trades", "ticker", "candles.1m", "hb")


def lag(bot: Bot) -> None:
    """The reader's transport is full enough for messages to be merged."""
    bot.transport.held_bytes = LAGGING
    bot.session.check_slow()


def catch_up(bot: Bot) -> None:
    bot.transport.held_bytes = 0
    bot.session.writable()


@pytest.mark.parametrize("wire", list(Format))
@pytest.mark.parametrize("seed", range(2))
def test_books_of_a_reader_that_lags_now_and_then(tmp_path: Path, wire: Format, seed: int) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(rate_burst=10**6))
    rng = random.Random(seed)
    watchers = [Watcher(node, wire, depth) for depth in (10, "all")]
    queues = Follower(node)
    merged = 0
    for _ in range(40):
        bots = [watcher.bot for watcher in watchers] + [queues.bot]
        for bot in bots:
            lag(bot)
        for _ in range(rng.randrange(1, 8)):
            for _ in range(rng.randrange(1, 6)):
                trade_at_random(rng, rng.choice((maker, taker)))
            node.run()
            merged += 1
        assert all(not bot.transport.sent for bot in bots)
        for bot in bots:
            catch_up(bot)
            assert len(bot.transport.sent) <= 1
        for watcher in watchers:
            watcher.follow()  # checks the chain and the checksum
            depth = node.gateway.projection.books[1]
            assert watcher.levels() == (depth.bids.top(None), depth.asks.top(None)) or watcher.depth == 10
            assert watcher.book.resyncs == 0
        queues.follow()
        assert {name: queues.levels(name) for name in "ba"} == queues_of_engine(node)
    assert merged > 80


def test_what_is_merged_and_in_what_order(trio: Trio) -> None:
    node, maker, taker = trio
    watcher, plain = Bot(node), Bot(node)
    for bot in (watcher, plain):
        for channel in CHANNELS:
            bot.good("subscribe", channels=[{"name": channel} | ({} if channel == "hb" else {"symbols": [SYMBOL]})])
    lag(watcher)
    for px in ("2.5", "2.4", "2.3"):
        maker.place("sell", 2, px)
        taker.place("buy", 1, px)
        node.wall_ns += 1_000_000_000
        node.gateway.poll()
    assert watcher.take() == []
    assert watcher.good("instruments")["instruments"]  # replies do not wait
    catch_up(watcher)
    merged, full = watcher.take(), plain.take()
    assert sorted(message["ch"] for message in merged) == sorted(CHANNELS)
    assert merged[-1]["ch"] == "hb"
    for message in merged:
        chain = [other for other in full if other["ch"] == message["ch"]]
        assert len(chain) >= 3
        if message["ch"] == "hb":
            assert message["ts"] == chain[-1]["ts"]
            continue
        assert (message["prev"], message["seq"]) == (chain[0]["prev"], chain[-1]["seq"])
        if message["ch"] in ("l1", "ticker"):
            assert {**message, "prev": 0} == {**chain[-1], "prev": 0}
        elif message["ch"] == "trades":
            assert message["t"] == [trade for other in chain for trade in other["t"]]
        elif message["ch"] == "candles.1m":
            assert message["list"] == chain[-1]["list"]
    maker.place("sell", 2, "2.9")
    assert watcher.take()  # and from here on everything again


def test_a_snapshot_while_lagging_is_not_merged(trio: Trio) -> None:
    node, maker, _ = trio
    watcher = Bot(node)
    lag(watcher)
    assert watcher.good("subscribe", channels=[{"name": "l2", "symbols": [SYMBOL]}]) == {"topics": 1}
    maker.place("buy", 1, "2.4")
    maker.place("buy", 1, "2.4")
    catch_up(watcher)
    snapshot, delta = watcher.take()
    assert (snapshot["ev"], delta["ev"], delta["prev"]) == ("snapshot", "delta", snapshot["seq"])
    assert delta["b"] == [["2.4", 2]]


def test_private_events_never_wait(trio: Trio) -> None:
    _, maker, _ = trio
    maker.subscribe("private")
    lag(maker)
    maker.place("buy", 1, "2.4")
    assert "order" in [message["ev"] for message in maker.pushes]


def test_too_much_that_waits_is_the_end(tmp_path: Path) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(conflate_items=10))
    watcher = Bot(node)
    watcher.subscribe("trades", symbols=[SYMBOL])
    lag(watcher)
    maker.place("sell", 100, "2.5")
    for _ in range(6):
        taker.place("buy", 1, "2.5")
    assert watcher.transport.closed == (4008, "slow consumer")
    assert watcher.take()[-1]["ch"] == "slow"


@pytest.mark.parametrize("wire", list(Format))
def test_sizes_are_counted_and_forgotten(wire: Format) -> None:
    waiting = Conflation(wire)
    trades = [TradeItem(tid, 2_500_000, 1, "buy", 0) for tid in range(3)]
    for ev in ("trades", "trades", "snapshot"):
        waiting.add(encode(Trades(SYMBOL, ev, 2, 1, 0, trades), wire))  # type: ignore[arg-type]
    assert waiting.size == 4
    waiting.add(encode(L1(SYMBOL, "update", 2, 1, 0, None, (2_500_000, 1)), wire))
    assert (waiting.size, len(waiting.take()), waiting.size, waiting.take()) == (5, 2, 0, [])


async def test_a_real_reader_that_stops_and_goes_on(tmp_path: Path) -> None:
    limits = {"conflate_bytes": 20_000, "send_buffer_bytes": 4_096, "rate_burst": 10**6, "slow_soft_bytes": 10**6}
    async with (
        serving(tmp_path, **limits) as (node, server),
        connect(server.url, max_queue=1) as stalled,
    ):
        await ask(stalled, op="subscribe", channels=[{"name": "l1", "symbols": [SYMBOL]}])
        (session,) = node.gateway.sessions
        stalled.transport.pause_reading()
        seq = next(iter(session.topics)).seq
        while session.conflation is None:
            _push(session, seq)
            seq += 1
            await asyncio.sleep(0)
        for _ in range(1_000):
            _push(session, seq)
            seq += 1
        held = session.buffered()
        assert held < 40_000
        stalled.transport.resume_reading()
        chain: list[Any] = []
        async with asyncio.timeout(30):
            while not chain or chain[-1].seq < seq:
                message = _decode(await stalled.recv())
                chain += [message] if message is not None else []
        assert all(later.prev == earlier.seq for earlier, later in pairwise(chain))
        assert session.conflation is None


def _push(session: Any, seq: int) -> None:
    session.push_public(encode(L1(SYMBOL + "x" * 500, "update", seq + 1, seq, 0, None, None), Format.JSON))
    session.flush()


def _decode(data: Any) -> L1 | None:
    import msgspec

    return msgspec.json.decode(data, type=L1) if '"update"' in data else None
