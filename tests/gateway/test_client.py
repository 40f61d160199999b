"""The client library against the real thing: gateway, engine and websocket on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import wellhead
from engine.types import Kind
from gateway.server import Server
from tests.gateway.node import CASH_MICROS, OTHER, SYMBOL, Node
from tests.gateway.test_server import serving
from wellhead import (
    AmendOrder,
    CancelOrder,
    Client,
    Disconnected,
    Fill,
    LogonRefused,
    NewOrder,
    OrderAck,
    OrderEvent,
    OutcomeUnknown,
    Rejected,
    SessionReplaced,
    Snapshot,
)
from wellhead.feed import Feed
from wellhead.types import WellheadError
from wellhead.wire import Codec, price_micros

try:
    import uvloop
except ImportError:  # on Windows
    uvloop = None  # type: ignore[assignment]

FORMATS = pytest.mark.parametrize("wire", ["json", "msgpack"])
D = Decimal


@asynccontextmanager
async def exchange(path: Path, **limits: Any) -> AsyncIterator[tuple[Node, Server]]:
    """A served node with two funded accounts, `maker` and `taker`, and a key of the same name for each."""
    async with serving(path, **limits) as (node, server):
        for number, name in enumerate(("maker", "taker"), 1):
            node.create_key(name, name)
            node.open_account(name)
            node.fund(number, lots=1_000 if name == "maker" else 0)
        yield node, server


def client(node: Node, server: Server, name: str, **options: Any) -> Client:
    return Client(server.url, key=name, private_key=node.private_keys[name], **options)


async def next_of(feed: Feed[Any], kind: type) -> Any:
    """The next event of a kind."""
    async with asyncio.timeout(20):
        while not isinstance(event := await anext(feed), kind):
            pass
    return event


@FORMATS
async def test_a_trade_from_both_sides(tmp_path: Path, wire: Any) -> None:
    async with (
        exchange(tmp_path) as (node, server),
        client(node, server, "maker", format=wire) as maker,
        client(node, server, "taker") as taker,
    ):
        assert (maker.account, maker.scopes) == ("maker", ["read", "trade"])
        events = maker.events()
        book = await taker.book(SYMBOL)
        assert (book.best_bid, book.best_ask) == (None, None)
        changed = asyncio.create_task(book.changed())
        resting = await maker.place(SYMBOL, "sell", qty=5, px="2.435", cid="mine")
        assert (resting.status, resting.left, resting.cid) == ("new", 5, "mine")
        await changed
        assert book.best_ask == (D("2.435"), 5)
        taken = await taker.place(SYMBOL, "buy", 3, D("2.50"), tif="ioc")
        assert (taken.status, taken.filled, taken.left) == ("filled", 3, 0)
        order = await next_of(events, OrderEvent)
        assert (order.what, order.px, order.aseq) == ("new", D("2.435"), resting.aseq)
        fill = await next_of(events, Fill)
        assert (fill.px, fill.qty, fill.left, fill.liquidity, fill.cid) == (D("2.435"), 3, 2, "maker", "mine")
        assert fill.fee == D("-0.011688")
        (working,) = await maker.orders()
        assert (working.left, working.filled, working.status, working.px) == (2, 3, "partial", D("2.435"))
        (position,) = await maker.positions()
        assert (position.net, position.escrow) == (-3, D("58.44"))
        assert (await taker.balances()).cash == D(CASH_MICROS).scaleb(-6) - D("58.44") - D("0.02922")


@FORMATS
async def test_orders_of_all_kinds(tmp_path: Path, wire: Any) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker", format=wire) as maker:
        placed = await maker.place(SYMBOL, "buy", 5, "2.4", tif="gtc", post_only=True)
        (order,) = await maker.orders(SYMBOL)
        assert (order.tif, order.post_only, order.cid) == ("gtc", True, placed.cid)
        amended = await maker.amend(placed.oid, qty=3)
        assert (amended.kept, amended.left) == (True, 3)
        assert (await maker.amend(cid=placed.cid, px="2.41")).kept is False
        assert (await maker.cancel(placed.oid)).status == "canceled"
        assert (await maker.cancel(placed.oid)).status == "canceled"
        market = await maker.place(SYMBOL, "sell", 1)
        assert (market.status, market.filled) == ("canceled", 0)
        results = await maker.batch(
            [
                NewOrder(SYMBOL, "buy", 1, "2.4", cid="a"),
                NewOrder(SYMBOL, "buy", 1, "2.40001"),
                AmendOrder(cid="a", qty=2),
                CancelOrder(cid="b"),
            ]
        )
        assert [type(result) for result in results] == [OrderAck, Rejected, OrderAck, Rejected]
        assert [result.name for result in results if isinstance(result, Rejected)] == ["BAD_PRICE", "ORDER_NOT_FOUND"]
        await maker.place(SYMBOL, "sell", 1, "2.6")
        assert await maker.cancel_all(SYMBOL, "buy") == 1
        assert await maker.cancel_all() == 1


async def test_refusals_carry_code_name_and_message(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "taker") as taker:
        with pytest.raises(Rejected, match="INSUFFICIENT_CAPACITY") as caught:
            await taker.place(SYMBOL, "sell", 1, "2.4")
        assert (caught.value.code, caught.value.final) == (2120, True)
        node.simple(Kind.CLOSE, instrument=1)
        with pytest.raises(Rejected) as caught:
            await taker.place(SYMBOL, "buy", 1, "2.4")
        assert caught.value.details == {"status": "closed"}
        with pytest.raises(Rejected, match="UNKNOWN_SYMBOL"):
            await taker.book("nothing")
        assert taker._books == {}


@pytest.mark.parametrize("wrong", [2.4, True, None, b"2"])
def test_prices_are_exact_or_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="price"):
        price_micros(wrong)


@pytest.mark.parametrize("wrong", ["", "two", "NaN", "Infinity", "0.0000001", "1e30"])
def test_prices_that_are_none(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"price|decimal"):
        price_micros(wrong)


def test_prices_go_out_exactly() -> None:
    for px in ("2.435", D("2.4350"), D("2435E-3")):
        assert price_micros(px) == 2_435_000
        assert Codec("json").price(px) == "2.435000"
        assert Codec("msgpack").price(px) == 2_435_000
    assert price_micros(3) == 3_000_000
    with pytest.raises(TypeError, match="quantity"):
        Codec("json").place(NewOrder(SYMBOL, "buy", 1.0, "2"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="oid or by cid"):
        Codec("json").cancel(CancelOrder())


@FORMATS
async def test_public_data_without_a_key(tmp_path: Path, wire: Any) -> None:
    async with (
        exchange(tmp_path) as (node, server),
        Client(server.url, format=wire) as watcher,
        client(node, server, "maker") as maker,
    ):
        (instrument,) = await watcher.instruments(gpu_class="H100S")
        assert (instrument.sym, instrument.tick, instrument.gpu_class) == (SYMBOL, D("0.001"), "H100S")
        listings = watcher.listings()
        assert (await anext(listings)).what == "snapshot"
        trades = await watcher.trades().ready()
        with pytest.raises(Rejected, match="NOT_LOGGED_ON"):
            await watcher.balances()
        node.list(OTHER, 2)
        listed = await anext(listings)
        assert (listed.what, listed.instruments[0].sym) == ("listed", OTHER)
        await maker.place(SYMBOL, "sell", 2, "2.5")
        await maker.place(SYMBOL, "buy", 2, "2.5")
        async with asyncio.timeout(20):
            trade = await anext(trades)
        assert (trade.sym, trade.px, trade.qty, trade.side) == (SYMBOL, D("2.5"), 2, "buy")
        trades.close()
        with pytest.raises(StopAsyncIteration):
            await anext(trades)


async def drop_connection(node: Node, name: str) -> None:
    """Cut the wire, as a fault of the network would."""
    session = node.gateway.logons.by_key[name]
    session._transport._connection.transport.abort()  # type: ignore[attr-defined]
    while session in node.gateway.sessions:
        await asyncio.sleep(0)


@FORMATS
async def test_a_lost_connection_loses_nothing(tmp_path: Path, wire: Any) -> None:
    async with (
        exchange(tmp_path) as (node, server),
        client(node, server, "maker", format=wire, cod=True, grace_ms=20_000) as maker,
        client(node, server, "taker") as taker,
    ):
        events, trades = maker.events(), await maker.trades(SYMBOL).ready()
        book = await maker.book(SYMBOL, depth="all")
        await maker.place(SYMBOL, "sell", 5, "2.5", cid="a")
        await taker.place(SYMBOL, "buy", 1, "2.5")
        assert (await anext(trades)).qty == 1
        await drop_connection(node, "maker")
        await taker.place(SYMBOL, "buy", 2, "2.5")  # while the maker is away
        async with asyncio.timeout(20):
            again = await maker.place(SYMBOL, "sell", 5, "2.5", cid="a")
            assert (again.dup, again.left) == (True, 5)
            assert (await anext(trades)).qty == 2
            await book.wait_ready()
        assert book.best_ask == (D("2.5"), 2)
        assert maker.reconnects >= 1
        seen = [await next_of(events, Fill) for _ in range(2)]
        assert [(fill.qty, fill.left) for fill in seen] == [(1, 4), (2, 2)]
        (order,) = await maker.orders()
        assert order.left == 2


async def test_requests_under_way_are_sent_again_once(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        node.auto = False
        placing = asyncio.create_task(maker.place(SYMBOL, "sell", 5, "2.5"))
        canceling = asyncio.create_task(maker.cancel_all())
        while sum(len(part) for part in node.queue) < 2:
            await asyncio.sleep(0)
        await drop_connection(node, "maker")
        with pytest.raises(OutcomeUnknown) as caught:
            await canceling
        assert not caught.value.final
        node.auto = True
        node.run()
        assert (await placing).status == "new"
        placed = [commands for commands, _ in node.log if (commands["kind"] == Kind.NEW_ORDER).any()]
        assert len(placed) == 1


async def test_the_events_begin_with_a_snapshot_when_asked_for_in_time(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server):
        maker = client(node, server, "maker")
        events = maker.events()
        async with maker:
            first = await anext(events)
            assert isinstance(first, Snapshot)
            assert first.balances == await maker.balances()
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_a_snapshot_when_too_much_was_missed(tmp_path: Path) -> None:
    async with exchange(tmp_path, private_ring_events=2) as (node, server), client(node, server, "maker") as maker:
        events = maker.events()
        node.auto = False
        await drop_connection(node, "maker")
        for _ in range(3):
            node.transfer(Kind.DEPOSIT, 1, amount_micros=1)
        snapshot = await next_of(events, Snapshot)
        assert snapshot.balances.cash == D(node.gateway.projection.accounts[1].cash).scaleb(-6)


async def test_a_book_that_lost_step_is_fetched_again(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        book = await maker.book(SYMBOL)
        await maker.place(SYMBOL, "buy", 1, "2.3")
        async with asyncio.timeout(20):
            while book.best_bid is None:  # the answer comes before what is told to everybody
                await book.changed()
            book.seq -= 1  # as if a message had been lost
            await maker.place(SYMBOL, "buy", 1, "2.4")
            while not book.resyncs:
                await asyncio.sleep(0)
            await book.wait_ready()
        assert book.resyncs == 1
        assert [level.px for level in book.bids] == [D("2.4"), D("2.3")]
        await maker.drop_book(SYMBOL)
        assert not any(session.topics for session in node.gateway.sessions)


async def test_the_same_key_twice_does_not_fight(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as older:
        events = older.events()
        async with client(node, server, "maker") as newer:
            with pytest.raises(SessionReplaced):
                await next_of(events, Fill)
            with pytest.raises(SessionReplaced):
                await older.balances()
            assert await newer.balances()


async def test_logon_refusals_and_no_server(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (_, server):
        secret, _public = wellhead.generate_key()
        with pytest.raises(LogonRefused, match="BAD_SIGNATURE"):
            async with Client(server.url, key="maker", private_key=secret):
                pass
        url = server.url
    with pytest.raises(Disconnected):
        async with Client(url):
            pass
    with pytest.raises(ValueError, match="together"):
        Client(url, key="maker")
    with pytest.raises(ValueError, match="format"):
        Client(url, format="xml")  # type: ignore[arg-type]


async def test_a_key_file_is_enough(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server):
        path = tmp_path / "own.key"
        node.keys.create("filed", "maker", private_path=path)
        async with Client.from_key_file(server.url, path) as maker:
            assert maker.account == "maker"


@pytest.mark.skipif(uvloop is None, reason="there is no uvloop here")
def test_the_same_under_uvloop(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_a_lost_connection_loses_nothing(tmp_path, "msgpack"))


async def test_logout(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker", cod=True, grace_ms=60_000) as maker:
        await maker.place(SYMBOL, "buy", 1, "2.4")
        assert await maker.logout() == 1
        with pytest.raises(Disconnected, match="closed"):
            await maker.balances()


async def test_a_restart_of_the_server_is_survived(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        events = maker.events()
        book = await maker.book(SYMBOL)
        await maker.place(SYMBOL, "buy", 1, "2.4", cid="a")
        port = server.port
        await server.stop()
        node.restart()
        node.gateway._stopping = False
        second = Server(node.gateway, port=port)
        await second.start()
        try:
            async with asyncio.timeout(20):
                assert (await maker.place(SYMBOL, "buy", 1, "2.4", cid="a")).dup
                await maker.place(SYMBOL, "buy", 1, "2.5")
                while book.best_bid is None or book.best_bid.px != D("2.5"):
                    await book.changed()
            seen = [await next_of(events, OrderEvent) for _ in range(2)]
            assert [event.px for event in seen] == [D("2.4"), D("2.5")]
        finally:
            await second.stop()


async def test_a_time_out_says_whether_it_was_sent(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker", timeout_s=0.2) as maker:
        node.auto = False
        with pytest.raises(OutcomeUnknown, match="in time"):
            await maker.place(SYMBOL, "buy", 1, "2.4")
        maker._ready.clear()
        with pytest.raises(Disconnected, match="not sent"):
            await maker.place(SYMBOL, "buy", 1, "2.4")


async def test_a_feed_that_nobody_empties_ends_with_an_error() -> None:
    feed: Feed[int] = Feed(2)
    for item in range(3):
        feed.put(item)
    assert [await anext(feed), await anext(feed)] == [0, 1]
    with pytest.raises(WellheadError, match="FEED_OVERRUN"):
        await anext(feed)


# --- Terms, quotes, protection ----------------------------------------------------------------------------------------


@FORMATS
async def test_orders_with_terms(tmp_path: Path, wire: Any) -> None:
    async with (
        exchange(tmp_path) as (node, server),
        client(node, server, "maker", format=wire) as maker,
        client(node, server, "taker") as taker,
    ):
        events = maker.events()
        expire = node.now_ns // 1_000 + 60_000_000
        await maker.place(
            SYMBOL, "sell", 9, "2.5", show=4, tif="gtd", expire=expire, stp="expire_maker", tag=2, group=7
        )
        stop = await maker.place(SYMBOL, "sell", 2, "2.38", stop="2.4", reduce_only=False, cid="guard")
        assert stop.status == "waiting"
        assert (await maker.amend(cid="guard", stop=D("2.39"), deadline=expire)).status == "waiting"
        iceberg, guard = await maker.orders()
        assert (iceberg.show, iceberg.shown, iceberg.expire, iceberg.stp) == (4, 4, expire, "expire_maker")
        assert (guard.type, guard.stop, guard.px) == ("stop_limit", D("2.39"), D("2.38"))
        assert (await maker.place(SYMBOL, "buy", 1, "2.6", slide=True)).status == "new"
        assert (await maker.place(SYMBOL, "buy", 3, "2.5", tif="ioc", stp="expire_maker")).status == "canceled"
        assert (await next_of(events, wellhead.PreventedEvent)).qty == 3
        with pytest.raises(Rejected, match="RISK_LIMIT"):
            await taker.place(SYMBOL, "sell", 1, "2.6", reduce_only=True)
        with pytest.raises(Rejected, match="DEADLINE_PASSED"):
            await taker.place(SYMBOL, "buy", 1, "2.1", deadline=1)
        with pytest.raises(Rejected, match="FOK_NOT_FILLABLE"):
            await taker.place(SYMBOL, "buy", 1, "2.1", min_qty=1)
        with pytest.raises(ValueError, match="not both"):
            await taker.place(SYMBOL, "buy", 1, "2.1", slide=True, post_only=True)
        assert await maker.cancel_all(tag=2) == 0
        results = await maker.batch(
            [NewOrder(SYMBOL, "sell", 1, stop="2.2", tag=5), NewOrder(SYMBOL, "buy", 1, "2.1", tag=5)]
        )
        assert [getattr(one, "status", None) for one in results] == ["waiting", "new"]
        assert await maker.cancel_all(tag=5) == 2


@FORMATS
async def test_quotes_and_what_watches_over_them(tmp_path: Path, wire: Any) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "taker") as taker:
        node.create_key("quoter", "maker", scopes=("read", "quote"))
        async with client(node, server, "quoter", format=wire, cod=True) as quoter:
            events = quoter.events()
            await quoter.set_mmp(7, lots=5, fills=5, window_ms=1_000)
            assert (await next_of(events, wellhead.MmpEvent)).what == "set"
            ladder = wellhead.Ladder(SYMBOL, bids=[("2.40", 5), (D("2.39"), 5)], asks=[("2.45", 5), ("2.46", 5)])
            (ack,) = await quoter.quote(7, [ladder], post_only=True)
            assert [one.act for one in ack.bids + ack.asks] == ["new"] * 4
            (ack,) = await quoter.quote(7, [ladder], post_only=True)
            assert [one.act for one in ack.bids + ack.asks] == ["same"] * 4
            (ack,) = await quoter.quote(
                7, [wellhead.Ladder(SYMBOL, bids=[("2.45", 5), ("2.40001", 1)])], post_only=True
            )
            assert [one.error.name if one.error else None for one in ack.bids] == ["POST_ONLY_WOULD_TAKE", "BAD_PRICE"]
            await taker.place(SYMBOL, "buy", 10, "2.46", tif="ioc")
            assert (await next_of(events, wellhead.MmpEvent)).what == "triggered"
            assert await quoter.orders() == []
            (ack,) = await quoter.quote(7, [ladder])
            assert ack.bids[0].error is not None and ack.bids[0].error.name == "MMP_FROZEN"
            assert (await quoter.protections()).mmp[0].frozen
            await quoter.reset_mmp(7)
            (ack,) = await quoter.quote(7, [ladder])
            assert {one.act for one in ack.bids} == {"new"}
            at = await quoter.cancel_after(60_000)
            assert at is not None and (await quoter.protections()).timers == [wellhead.Timer(0, at)]
            assert await quoter.cancel_after(0) is None
            await quoter.reset_mmp(7, off=True)
            assert (await quoter.protections()).mmp == []
            assert await quoter.cancel_all(group=7) == 4
            with pytest.raises(Rejected, match="SCOPE_DENIED"):
                await quoter.place(SYMBOL, "buy", 1, "2.1")
            with pytest.raises(Rejected, match="SCOPE_DENIED"):
                await taker.quote(1, [ladder])


async def test_an_event_of_a_kind_that_is_not_known_here_is_counted(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        events = maker.events()
        aseq = maker._aseq or 0
        message = {"ch": "private", "ev": "later", "aseq": aseq + 1, "seq": 1, "ts": 1}
        data = maker._codec.encode(message)
        maker._on_private(data, maker._codec.decode(data, wellhead.wire.Message))
        assert maker._aseq == aseq + 1
        events.close()
