"""The ccxt exchange, checked with the validators that ccxt tests its own exchanges with, against a served node."""

import asyncio
from pathlib import Path
from typing import Any

import ccxt.async_support as ccxt
import pytest
from ccxt.test.exchange.base.test_balance import test_balance as check_balance
from ccxt.test.exchange.base.test_market import test_market as check_market
from ccxt.test.exchange.base.test_ohlcv import test_ohlcv as check_ohlcv
from ccxt.test.exchange.base.test_order import test_order as check_order
from ccxt.test.exchange.base.test_order_book import test_order_book as check_order_book
from ccxt.test.exchange.base.test_ticker import test_ticker as check_ticker
from ccxt.test.exchange.base.test_trade import test_trade as check_trade

from engine.types import Kind
from tests.gateway.node import SYMBOL
from tests.gateway.test_client import client, exchange
from wellhead.ccxt_exchange import wellhead

MARKET = f"{SYMBOL}/USDC"
HOURS = 8  # GPU-hours in a lot


def bot(node: Any, server: Any, name: str) -> wellhead:
    return wellhead({"apiKey": name, "secret": node.private_keys[name], "options": {"url": server.url}})


async def test_the_market_data_is_of_ccxts_form(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        venue = wellhead({"options": {"url": server.url}})  # no key: public data
        try:
            await maker.place(SYMBOL, "sell", 5, "2.6")
            await maker.place(SYMBOL, "buy", 3, "2.59")
            async with client(node, server, "taker") as taker:
                await taker.place(SYMBOL, "buy", 2, "2.6")
            markets = await venue.load_markets()
            # A step of eight is eight GPU-hours here; the validator takes it for eight decimal places.
            check_market(venue, {"precision": True}, "fetchMarkets", markets[MARKET])
            assert venue.amount_to_precision(MARKET, 20) == "16"
            book = await venue.fetch_order_book(MARKET)
            check_order_book(venue, {}, "fetchOrderBook", book, MARKET)
            assert (book["bids"], book["asks"]) == ([[2.59, 3.0 * HOURS]], [[2.6, 3.0 * HOURS]])
            ticker = await venue.fetch_ticker(MARKET)
            check_ticker(venue, {}, "fetchTicker", ticker, MARKET)
            assert (ticker["last"], ticker["bid"], ticker["baseVolume"]) == (2.6, 2.59, 2 * HOURS)
            (trade,) = await venue.fetch_trades(MARKET)
            check_trade(venue, {}, "fetchTrades", trade, MARKET, venue.milliseconds() + 10**12, True)
            assert (trade["price"], trade["amount"], trade["cost"]) == (2.6, 2 * HOURS, 2.6 * 2 * HOURS)
            candles = await venue.fetch_ohlcv(MARKET, "1m")
            check_ohlcv(venue, {}, "fetchOHLCV", candles[-1], MARKET, venue.milliseconds())
            assert candles[-1][1:] == [2.6, 2.6, 2.6, 2.6, 2 * HOURS]
            node.simple(Kind.CLOSE, instrument=1)
            markets = await venue.load_markets(
                True
            )  # an hour past its gate is known, what was done in it can be asked for
            assert [(name, one["active"]) for name, one in markets.items()] == [(MARKET, False)]
        finally:
            await venue.close()


async def test_a_bot_places_amends_cancels_and_sees_its_fills(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        await maker.place(SYMBOL, "sell", 5, "2.6")
        venue = bot(node, server, "taker")
        try:
            check_balance(venue, {}, "fetchBalance", await venue.fetch_balance())
            order = await venue.create_order(MARKET, "limit", "buy", 2 * HOURS, 2.5, {"clientOrderId": "one"})
            check_order(venue, {}, "createOrder", order, MARKET, venue.milliseconds())
            assert (order["status"], order["remaining"], order["clientOrderId"]) == ("open", 2 * HOURS, "one")
            (resting,) = await venue.fetch_open_orders(MARKET)
            check_order(venue, {}, "fetchOpenOrders", resting, MARKET, venue.milliseconds())
            fills = asyncio.create_task(venue.watch_my_trades(MARKET))
            await asyncio.sleep(0)
            amended = await venue.edit_order(order["id"], MARKET, "limit", "buy", 3 * HOURS, 2.6)
            assert (amended["id"], amended["status"], amended["filled"]) == (order["id"], "closed", 3 * HOURS)
            (fill,) = await asyncio.wait_for(fills, 20)
            check_trade(venue, {}, "watchMyTrades", fill, MARKET, venue.milliseconds(), False)
            assert (fill["price"], fill["amount"], fill["takerOrMaker"]) == (2.6, 3 * HOURS, "taker")
            done = await venue.fetch_order(order["id"], MARKET)
            check_order(venue, {}, "fetchOrder", done, MARKET, venue.milliseconds())
            assert (done["status"], done["average"], done["cost"]) == ("closed", 2.6, 62.4)
            await venue.create_order(MARKET, "limit", "buy", HOURS, 2.4)
            (canceled,) = await venue.cancel_all_orders(MARKET)
            assert canceled["status"] == "canceled" and await venue.fetch_open_orders() == []
        finally:
            await venue.close()


async def test_stops_and_what_else_ccxt_knows(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        venue = bot(node, server, "taker")
        try:
            await maker.place(SYMBOL, "sell", 5, "2.6")
            await venue.create_order(MARKET, "limit", "buy", HOURS, 2.6)  # a lot to protect, and a last price
            stop = await venue.create_order(
                MARKET, "limit", "sell", HOURS, 2.4, {"triggerPrice": 2.5, "reduceOnly": True, "tag": 3}
            )
            check_order(venue, {}, "createOrder", stop, MARKET, venue.milliseconds())
            assert (stop["status"], stop["triggerPrice"]) == ("open", 2.5)
            (waiting,) = await venue.fetch_open_orders(MARKET)
            check_order(venue, {}, "fetchOpenOrders", waiting, MARKET, venue.milliseconds())
            assert (waiting["type"], waiting["triggerPrice"], waiting["reduceOnly"]) == ("limit", 2.5, True)
            await venue.edit_order(stop["id"], MARKET, "limit", "sell", params={"triggerPrice": 2.45})
            (waiting,) = await venue.fetch_open_orders(MARKET)
            assert waiting["triggerPrice"] == 2.45
            market = await venue.create_order(MARKET, "market", "buy", HOURS, None, {"stopPrice": 2.7})
            assert (market["status"], market["type"]) == ("open", "market")
            with pytest.raises(ccxt.OrderImmediatelyFillable):
                await venue.create_order(MARKET, "limit", "buy", HOURS, 2.6, {"timeInForce": "PO"})
            with pytest.raises(ccxt.InvalidOrder):
                await venue.create_order(MARKET, "limit", "sell", 9 * HOURS, 2.6, {"reduceOnly": True})
            dated = {"timeInForce": "GTD", "expireTime": node.now_ns // 10**6 + 60_000}
            order = await venue.create_order(MARKET, "limit", "buy", HOURS, 2.3, dated)
            found = next(one for one in await venue.fetch_open_orders(MARKET) if one["id"] == order["id"])
            assert found["timeInForce"] == "GTD"
            assert (await venue.cancel_all_orders_after(60_000))["triggerTime"] > 0
            assert (await venue.cancel_all_orders_after(0))["triggerTime"] is None
        finally:
            await venue.close()


async def test_what_is_past_is_known_to_a_bot_that_comes_later(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        async with client(node, server, "taker") as taker:
            await maker.place(SYMBOL, "sell", 2, "2.5")
            await maker.place(SYMBOL, "sell", 5, "2.6")
            filled = await taker.place(SYMBOL, "buy", 3, "2.7")
            canceled = await taker.place(SYMBOL, "buy", 1, "2.4")
            await taker.cancel(canceled.oid)
            working = await taker.place(SYMBOL, "buy", 1, "2.3")
        venue = bot(node, server, "taker")
        try:
            first, second = await venue.fetch_my_trades(MARKET)
            check_trade(venue, {}, "fetchMyTrades", first, MARKET, venue.milliseconds(), False)
            assert (first["price"], first["amount"], second["price"]) == (2.5, 2 * HOURS, 2.6)
            assert await venue.fetch_my_trades(MARKET, second["timestamp"] + 1) == []
            (closed,) = await venue.fetch_closed_orders(MARKET)
            check_order(venue, {}, "fetchClosedOrders", closed, MARKET, venue.milliseconds())
            assert (closed["id"], closed["cost"]) == (str(filled.oid), (2 * 2.5 + 2.6) * HOURS)
            assert [order["id"] for order in await venue.fetch_canceled_orders()] == [str(canceled.oid)]
            orders = await venue.fetch_orders(MARKET)
            assert {order["id"] for order in orders} == {str(one.oid) for one in (filled, canceled, working)}
            assert (await venue.fetch_order(str(canceled.oid), MARKET))["status"] == "canceled"
            candles = await venue.watch_ohlcv(MARKET, "1h")
            check_ohlcv(venue, {}, "watchOHLCV", candles[-1], MARKET, venue.milliseconds())
            with pytest.raises(ccxt.BadRequest):
                await venue.watch_ohlcv(MARKET, "1w")
        finally:
            await venue.close()


async def test_the_book_is_watched(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server), client(node, server, "maker") as maker:
        venue = bot(node, server, "taker")
        try:
            assert (await venue.watch_order_book(MARKET))["asks"] == []
            change = asyncio.create_task(venue.watch_order_book(MARKET))
            await asyncio.sleep(0)
            await maker.place(SYMBOL, "sell", 5, "2.6")
            book = await asyncio.wait_for(change, 20)
            check_order_book(venue, {}, "watchOrderBook", book, MARKET)
            assert book["asks"] == [[2.6, 5.0 * HOURS]]
        finally:
            await venue.close()


async def test_errors_are_ccxts(tmp_path: Path) -> None:
    async with exchange(tmp_path) as (node, server):
        venue = bot(node, server, "taker")
        try:
            await venue.load_markets()
            refused = [
                (ccxt.InvalidOrder, MARKET, "limit", 3, 2.5),  # not whole lots
                (ccxt.InsufficientFunds, MARKET, "limit", 900_000 * HOURS, 2.5),
                (ccxt.BadSymbol, "NOWHERE/USDC", "limit", HOURS, 2.5),
                (ccxt.ArgumentsRequired, MARKET, "limit", HOURS, None),
            ]
            for error, symbol, kind, amount, price in refused:
                with pytest.raises(error):
                    await venue.create_order(symbol, kind, "buy", amount, price)
            with pytest.raises(ccxt.OrderNotFound):
                await venue.cancel_order("999")
            with pytest.raises(ccxt.OrderNotFound):
                await venue.fetch_order("999", MARKET)
        finally:
            await venue.close()
        stranger = wellhead({"apiKey": "maker", "secret": node.private_keys["taker"], "options": {"url": server.url}})
        try:
            with pytest.raises(ccxt.AuthenticationError):
                await stranger.fetch_balance()
        finally:
            await stranger.close()
