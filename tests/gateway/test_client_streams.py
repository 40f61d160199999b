"""The client's further streams, its book of queues and its synchronous face, against a served exchange."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from tests.gateway.node import SYMBOL
from tests.gateway.test_client import FORMATS, client, exchange
from wellhead import Disconnected, Fill, Ladder, Rejected, SyncClient
from wellhead.queue_book import L3, QueueBook
from wellhead.types import BookOutOfSync

D = Decimal


@FORMATS
async def test_tickers_and_best_prices_follow_the_market(tmp_path: Path, wire: str) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker", format=wire) as maker:
        tickers = await maker.updates("ticker", SYMBOL).ready()
        best = await maker.updates("l1").ready()
        assert (await anext(tickers)).last is None
        await maker.place(SYMBOL, "sell", 5, "2.6")
        while (update := await anext(best)).ask is None:
            pass
        assert update.ask == (D("2.6"), 5)
        async with client(node, server, "taker", format=wire) as taker:
            await taker.place(SYMBOL, "buy", 2, "2.6")
        while (ticker := await anext(tickers)).last is None:
            pass
        assert (ticker.last, ticker.vol, ticker.sym) == (D("2.6"), 2, SYMBOL)


@FORMATS
async def test_a_second_reader_begins_with_how_things_stand(tmp_path: Path, wire: str) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker", format=wire) as maker:
        first = await maker.updates("candles.1m", SYMBOL).ready()
        second = await maker.updates("candles.1m", SYMBOL).ready()
        assert (await anext(first)).sym == (await anext(second)).sym == SYMBOL


async def test_a_channel_that_is_none_is_refused_before_it_is_asked_for(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        with pytest.raises(ValueError, match="one of l1"):
            maker.updates("l9")  # type: ignore[arg-type]


@FORMATS
async def test_the_book_of_queues_knows_who_is_ahead(tmp_path: Path, wire: str) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker", format=wire) as maker:
        first = await maker.place(SYMBOL, "sell", 5, "2.6")
        book = await maker.queue_book(SYMBOL)
        second = await maker.place(SYMBOL, "sell", 7, "2.6")
        while len(book.asks) < 2:
            await book.changed()
        assert book.ahead_of(second.oid) == 5 and book.ahead_of(first.oid) == 0
        await maker.amend(first.oid, qty=9)  # larger: to the end of the queue
        while book.ahead_of(second.oid):
            await book.changed()
        assert [order.oid for order in book.asks] == [second.oid, first.oid] and book.resyncs == 0
        await maker.cancel(second.oid)
        while len(book.asks) > 1:
            await book.changed()
        assert book.ahead_of(second.oid) is None and book.bids == []


def test_a_book_of_queues_that_differs_says_so() -> None:
    book = QueueBook("A")
    book.apply(L3("A", "snapshot", 1, 0, 0, [(7, "2.5", 3)], [], _crc("7:2500000:3;")))
    with pytest.raises(BookOutOfSync, match="checksum"):
        book.apply(L3("A", "delta", 2, 1, 0, [(7, "2.5", 2)], [], 0))
    assert not book.ready and book.resyncs == 1
    book.apply(L3("A", "snapshot", 3, 0, 0, [], [], 0))
    with pytest.raises(BookOutOfSync, match="the book is at 3"):
        book.apply(L3("A", "delta", 5, 4, 0, [], [], 0))


def _crc(text: str) -> int:
    from zlib import crc32

    return crc32(text.encode())


async def test_a_notebook_trades_without_asyncio(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        await maker.place(SYMBOL, "sell", 5, "2.6")

        def notebook() -> tuple:
            keys = {"key": "taker", "private_key": node.private_keys["taker"]}
            with SyncClient(server.url, **keys) as taker:
                events, book = taker.events(wait_s=5), taker.book(SYMBOL)
                best = book.best_ask
                ack = taker.place(SYMBOL, "buy", 2, "2.6")
                fill = next(event for event in events if isinstance(event, Fill))
                with pytest.raises(Rejected, match="UNKNOWN_SYMBOL"):
                    taker.place("NOWHERE", "buy", 1, "1")
                assert next(taker.updates("ticker", SYMBOL)).last == D("2.6")
                assert list(taker.trades(SYMBOL, wait_s=0.05)) == []
                return best, ack.status, fill.qty, taker.positions()[0].net, taker.instruments()[0].sym, taker.orders()

        best, status, qty, net, sym, orders = await asyncio.to_thread(notebook)
    assert (best.px, best.qty, status, qty, net, sym, orders) == (D("2.6"), 5, "filled", 2, 2, SYMBOL, [])


async def test_a_notebook_shows_what_it_has(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        await maker.place(SYMBOL, "sell", 5, "2.6")

        def notebook() -> list[str]:
            taker = SyncClient(server.url, key="taker", private_key=node.private_keys["taker"])
            shown = [repr(taker), repr(taker.book(SYMBOL))]
            taker.close()
            with pytest.raises(Disconnected, match="closed"):
                taker.orders()
            return [*shown, repr(taker)]

        assert await asyncio.to_thread(notebook) == [
            f"<SyncClient {server.url} taker, connected>",
            f"<Book {SYMBOL}: bid none, ask 5 at 2.6>",
            f"<SyncClient {server.url} taker, closed>",
        ]


async def test_a_notebook_quotes_and_is_watched_over(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server):
        node.create_key("quoter", "maker", scopes=("read", "trade", "quote"))

        def notebook() -> tuple:
            with SyncClient(server.url, key="quoter", private_key=node.private_keys["quoter"]) as quoter:
                quoter.set_mmp(3, lots=5, fills=5, window_ms=1_000)
                (ack,) = quoter.quote(3, [Ladder(SYMBOL, bids=[("2.4", 1)], asks=[])], post_only=True)
                quoter.place(SYMBOL, "buy", 1, "2.3", show=1, tag=4, cod=False)
                stop = quoter.place(SYMBOL, "sell", 1, stop="2.2")
                moved = quoter.amend(stop.oid, stop="2.1")
                at = quoter.cancel_after(60_000)
                found = quoter.protections()
                quoter.reset_mmp(3, off=True)
                canceled = quoter.cancel_all(tag=4), quoter.cancel_all(group=3), quoter.cancel_all()
                return ack.bids[0].act, moved.status, found.mmp[0].lots, found.timers[0].at == at, canceled

        assert await asyncio.to_thread(notebook) == ("new", "waiting", 5, True, (1, 1, 1))


async def test_a_key_that_is_refused_leaves_no_thread(tmp_path: Path) -> None:
    import threading

    async with exchange(tmp_path) as (node, server):
        with pytest.raises(Exception, match="BAD_SIGNATURE"):
            await asyncio.to_thread(SyncClient, server.url, key="maker", private_key=node.private_keys["taker"])
    assert not [thread for thread in threading.enumerate() if thread.name == "wellhead-client"]
