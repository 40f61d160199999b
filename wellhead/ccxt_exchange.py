"""Wellhead as a ccxt exchange, so that a bot written for ccxt runs here with another constructor.

    from wellhead.ccxt_exchange import wellhead
    exchange = wellhead({"apiKey": "mm7", "secret": PRIVATE_KEY, "options": {"url": "ws://localhost:8765"}})

A contract is a spot market `H100S-USE-H26112214/USDC` whose base is the GPU-hour: prices are per GPU-hour, amounts are GPU-hours,
whole lots of them (`precision.amount`), so cost is price times amount as everywhere. Needs ccxt (`pip install wellhead[ccxt]`).
Fills and finished orders are known as far back as the server keeps them.
"""

import asyncio
import contextlib
from decimal import Decimal
from typing import Any, ClassVar

import ccxt.async_support as ccxt  # type: ignore[import-untyped]
from ccxt.base.decimal_to_precision import TICK_SIZE  # type: ignore[import-untyped]
from ccxt.base.types import Int, Num, OrderSide, OrderType, Str  # type: ignore[import-untyped]

from wellhead.account import PAGE
from wellhead.client import Client
from wellhead.types import Disconnected, Fill, LogonRefused, OrderAck, OrderEvent, OutcomeUnknown, WellheadError

QUOTE = "USDC"
OWN_TERMS = ("show", "min_qty", "deadline", "slide", "stp", "stp_group", "tag", "group", "cod", "expire")
SECRET_KEYS = ("apiKey", "secret")
TIMES = {"gtg": "GTC", "gtc": "GTC", "gtd": "GTD", "ioc": "IOC", "fok": "FOK"}
"""ccxt does not know gates; here they end what it calls good till cancelled."""
TYPES = {"limit": "limit", "market": "market", "stop": "market", "stop_limit": "limit"}
"""In ccxt a stop is an order of these types with a `triggerPrice`."""
STATUS = {"waiting": "open", "new": "open", "partial": "open", "filled": "closed", "canceled": "canceled"}
ERRORS: dict[str, type[ccxt.BaseError]] = {
    "INSUFFICIENT_FUNDS": ccxt.InsufficientFunds,
    "INSUFFICIENT_CAPACITY": ccxt.InsufficientFunds,
    "ORDER_NOT_FOUND": ccxt.OrderNotFound,
    "UNKNOWN_SYMBOL": ccxt.BadSymbol,
    "BAD_PRICE": ccxt.InvalidOrder,
    "BAD_QTY": ccxt.InvalidOrder,
    "BAD_TIF": ccxt.InvalidOrder,
    "RISK_LIMIT": ccxt.InvalidOrder,
    "AMEND_NOT_ALLOWED": ccxt.InvalidOrder,
    "DEADLINE_PASSED": ccxt.InvalidOrder,
    "MMP_FROZEN": ccxt.OperationRejected,
    "LOCKED": ccxt.AccountSuspended,
    "POST_ONLY_WOULD_TAKE": ccxt.OrderImmediatelyFillable,
    "FOK_NOT_FILLABLE": ccxt.OrderNotFillable,
    "CID_REUSED_DIFFERENT": ccxt.DuplicateOrderId,
    "MARKET_NOT_OPEN": ccxt.MarketClosed,
    "RATE_LIMIT": ccxt.RateLimitExceeded,
    "SCOPE_DENIED": ccxt.PermissionDenied,
    "BAD_SIGNATURE": ccxt.AuthenticationError,
    "NOT_LOGGED_ON": ccxt.AuthenticationError,
    "BAD_FIELD": ccxt.BadRequest,
    "OVERLOADED": ccxt.ExchangeNotAvailable,
    "SHUTTING_DOWN": ccxt.ExchangeNotAvailable,
}


def as_ccxt(error: WellheadError) -> ccxt.BaseError:
    """The same error in ccxt's words."""
    if isinstance(error, OutcomeUnknown):
        return ccxt.RequestTimeout(str(error))
    if isinstance(error, Disconnected):
        return ccxt.NetworkError(str(error))
    if isinstance(error, LogonRefused):
        return ccxt.AuthenticationError(str(error))
    return ERRORS.get(error.name, ccxt.ExchangeError)(str(error))


@contextlib.contextmanager
def _errors() -> Any:
    try:
        yield
    except WellheadError as error:
        raise as_ccxt(error) from error


class wellhead(ccxt.Exchange):
    """See the module's text. `options`: `url`, and whatever else `wellhead.Client` takes."""

    timeframes_of_channels: ClassVar = {"1m": "candles.1m", "5m": "candles.5m", "1h": "candles.1h"}

    def describe(self) -> Any:
        has = (
            "fetchMarkets fetchOrderBook fetchTicker fetchTrades fetchOHLCV fetchBalance createOrder editOrder cancelOrder "
            "cancelAllOrders fetchOpenOrders fetchOrder fetchOrders fetchClosedOrders fetchCanceledOrders fetchMyTrades "
            "createTriggerOrder createStopOrder createStopLimitOrder createStopMarketOrder createPostOnlyOrder "
            "createReduceOnlyOrder cancelAllOrdersAfter "
            "watchOrderBook watchTicker watchTrades watchOHLCV watchOrders watchMyTrades"
        )
        ours = {
            "id": "wellhead",
            "name": "Wellhead",
            "pro": True,
            "rateLimit": 1,
            "has": {"spot": True, "margin": False, "swap": False, "future": False, "option": False}
            | dict.fromkeys(has.split(), True),
            "timeframes": {name: name for name in self.timeframes_of_channels},
            "precisionMode": TICK_SIZE,
            "requiredCredentials": dict.fromkeys(SECRET_KEYS, True),
            "options": {"url": "ws://localhost:8765"},
        }
        return self.deep_extend(super().describe(), ours)

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        super().__init__(config or {})
        self._client: Client | None = None
        self._follower: asyncio.Task[None] | None = None
        self._known: dict[str, dict[str, Any]] = {}  # order id -> the order in ccxt's form
        self._fills: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._feeds: dict[tuple[str, str], Any] = {}
        self._seen: set[str] = set()  # books that were handed out already

    # --- The connection -----------------------------------------------------------------------------------------------

    async def connection(self) -> Client:
        """The client beneath, connected."""
        if self._client is None:
            options = dict(self.options)
            wanted = {
                name: options[name]
                for name in ("url", "format", "cod", "grace_ms", "timeout_s", "ssl")
                if name in options
            }
            if self.apiKey:
                wanted |= {"key": self.apiKey, "private_key": self.secret}
            client = Client(**wanted)
            events = client.events() if self.apiKey else None
            with _errors():
                await client.__aenter__()
            self._client = client
            if events is not None:
                self._follower = asyncio.create_task(self._follow(events))
        return self._client

    async def close(self, clean_instance_data: bool = False) -> None:
        """Close the connection."""
        if self._follower is not None:
            self._follower.cancel()
        if self._client is not None:
            await self._client.close()
        self._client = self._follower = None
        await super().close(clean_instance_data)

    async def _follow(self, events: Any) -> None:
        async for event in events:
            if isinstance(event, OrderEvent):
                self._note_order(event)
            elif isinstance(event, Fill):
                self._note_fill(event)
            async with self._news:
                self._news.notify_all()

    # --- Markets ------------------------------------------------------------------------------------------------------

    async def fetch_markets(self, params: Any = None) -> list[dict[str, Any]]:
        with _errors():
            listed = await (await self.connection()).instruments(closed=True)
        return [self._market(instrument) for instrument in listed]

    def _market(self, instrument: Any) -> dict[str, Any]:
        hours = instrument.gpus_per_lot * instrument.hours
        return self.safe_market_structure(
            {
                "id": instrument.sym,
                "symbol": f"{instrument.sym}/{QUOTE}",
                "base": instrument.sym,
                "quote": QUOTE,
                "baseId": instrument.sym,
                "quoteId": QUOTE,
                "type": "spot",
                "spot": True,
                "margin": False,
                "swap": False,
                "future": False,
                "option": False,
                "contract": False,
                "active": instrument.status == "continuous",
                "taker": instrument.taker_ppm / 1e6,
                "maker": -instrument.rebate_ppm / 1e6,
                "precision": {"price": float(instrument.tick), "amount": float(hours)},
                "limits": {
                    "amount": {"min": float(hours), "max": float(1_000_000 * hours)},
                    "price": {"min": 0.0, "max": float(instrument.max_px)},
                },
                "created": instrument.opens // 1_000,
                "info": {name: _plain(getattr(instrument, name)) for name in instrument.__struct_fields__},
            }
        )

    def _hours(self, market: Any) -> int:
        return int(market["precision"]["amount"])

    # --- Public -------------------------------------------------------------------------------------------------------

    async def fetch_order_book(self, symbol: str, limit: Int = None, params: Any = None) -> Any:
        """The book as it stands; it is followed from then on, so the next call costs no request."""
        await self.load_markets()
        market = self.market(symbol)
        with _errors():
            book = await (await self.connection()).book(market["id"], self._depth(limit))
        return self._order_book(market, book, limit)

    async def watch_order_book(self, symbol: str, limit: Int = None, params: Any = None) -> Any:
        """The book at once at first, then after its next change."""
        await self.load_markets()
        market = self.market(symbol)
        with _errors():
            book = await (await self.connection()).book(market["id"], self._depth(limit))
            if symbol in self._seen:
                await book.changed()
        self._seen.add(symbol)
        return self._order_book(market, book, limit)

    def _depth(self, limit: Int) -> Any:
        return 10 if limit is not None and limit <= 10 else 100 if limit is None or limit <= 100 else "all"

    def _order_book(self, market: Any, book: Any, limit: Int) -> dict[str, Any]:
        hours, ts = self._hours(market), book.ts // 1_000
        return {
            "symbol": market["symbol"],
            "bids": [[float(level.px), float(level.qty * hours)] for level in book.bids[:limit]],
            "asks": [[float(level.px), float(level.qty * hours)] for level in book.asks[:limit]],
            "timestamp": ts,
            "datetime": self.iso8601(ts),
            "nonce": book.seq,
        }

    async def fetch_ticker(self, symbol: str, params: Any = None) -> Any:
        return self._ticker(await self._first("ticker", symbol), self.market(symbol))

    async def watch_ticker(self, symbol: str, params: Any = None) -> Any:
        """The ticker at once at first, then each change."""
        await self.load_markets()
        return self._ticker(await self._next("ticker", self.market(symbol)), self.market(symbol))

    def _ticker(self, update: Any, market: Any) -> Any:
        ticker = {
            "symbol": market["symbol"],
            "timestamp": update.ts // 1_000,
            "datetime": self.iso8601(update.ts // 1_000),
            "bid": _text(update.bid),
            "ask": _text(update.ask),
            "last": _text(update.last),
            "close": _text(update.last),
            "baseVolume": str(update.vol * self._hours(market)),
            "info": {"seq": update.seq},
        }
        return self.safe_ticker(ticker, market)

    async def fetch_ohlcv(
        self, symbol: str, timeframe: str = "1m", since: Int = None, limit: Int = None, params: Any = None
    ) -> Any:
        if timeframe not in self.timeframes_of_channels:
            raise ccxt.BadRequest(f"timeframe {timeframe}: one of {', '.join(self.timeframes_of_channels)}")
        update = await self._first(self.timeframes_of_channels[timeframe], symbol)
        return self.filter_by_since_limit(self._candles(update, self.market(symbol)), since, limit, 0)

    async def watch_ohlcv(
        self, symbol: str, timeframe: str = "1m", since: Int = None, limit: Int = None, params: Any = None
    ) -> Any:
        """The candles at once at first, then those that change."""
        await self.load_markets()
        if timeframe not in self.timeframes_of_channels:
            raise ccxt.BadRequest(f"timeframe {timeframe}: one of {', '.join(self.timeframes_of_channels)}")
        market = self.market(symbol)
        while True:
            update = await self._next(self.timeframes_of_channels[timeframe], market)
            if candles := self.filter_by_since_limit(self._candles(update, market), since, limit, 0):
                return candles

    def _candles(self, update: Any, market: Any) -> list[list[float]]:
        hours = self._hours(market)
        return [
            [candle.start // 1_000, *map(float, (candle.o, candle.h, candle.l, candle.c)), float(candle.vol * hours)]
            for candle in update.candles
            if candle.o is not None
        ]

    async def fetch_trades(self, symbol: str, since: Int = None, limit: Int = None, params: Any = None) -> Any:
        await self.load_markets()
        market = self.market(symbol)
        with _errors():
            trades = await (await self.connection()).recent_trades(market["id"])
        return self.filter_by_since_limit([self._trade(trade, market) for trade in trades], since, limit)

    async def watch_trades(self, symbol: str, since: Int = None, limit: Int = None, params: Any = None) -> Any:
        """The next trades."""
        await self.load_markets()
        market = self.market(symbol)
        return [self._trade(await self._next("trades", market), market)]

    def _trade(self, trade: Any, market: Any) -> Any:
        return self.safe_trade(
            {
                "id": str(trade.tid),
                "order": None,  # nobody is named in public trades
                "type": None,
                "takerOrMaker": "taker",
                "symbol": market["symbol"],
                "timestamp": trade.ts // 1_000,
                "datetime": self.iso8601(trade.ts // 1_000),
                "side": trade.side,
                "price": _text(trade.px),
                "amount": str(trade.qty * self._hours(market)),
                "info": {"tid": trade.tid},
            },
            market,
        )

    async def _first(self, channel: Any, symbol: str) -> Any:
        await self.load_markets()
        client = await self.connection()
        with _errors():
            feed = client.updates(channel, self.market(symbol)["id"])
            try:
                return await anext(feed)
            finally:
                feed.close()

    async def _next(self, channel: Any, market: Any) -> Any:
        client = await self.connection()
        key = (channel, market["id"])
        with _errors():
            if key not in self._feeds:
                made = client.trades if channel == "trades" else None
                self._feeds[key] = made(market["id"]) if made else client.updates(channel, market["id"])
            return await anext(self._feeds[key])

    # --- Private ------------------------------------------------------------------------------------------------------

    async def fetch_balance(self, params: Any = None) -> Any:
        with _errors():
            money = await (await self.connection()).balances()
        info = {name: str(getattr(money, name)) for name in money.__struct_fields__}
        return self.safe_balance({"info": info, QUOTE: {"free": _text(money.cash), "used": _text(money.held)}})

    async def create_order(
        self, symbol: str, type: OrderType, side: OrderSide, amount: float, price: Num = None, params: Any = None
    ) -> Any:
        """`params`: `clientOrderId`, `timeInForce` (GTC, IOC, FOK, PO, GTG, GTD with `expireTime` in ms), `postOnly`,
        `triggerPrice` or `stopPrice`, `reduceOnly`, and by their own names what else `Client.place` takes (`show`, `min_qty`,
        `deadline`, `slide`, `stp`, `stp_group`, `tag`, `group`, `cod`). Lots stay lots there. Without a price a market order.
        """
        await self.load_markets()
        market, wishes = self.market(symbol), params or {}
        if type == "limit" and price is None:
            raise ccxt.ArgumentsRequired("a limit order needs a price")
        tif = str(wishes.get("timeInForce", "")).lower()
        terms = {name: wishes[name] for name in OWN_TERMS if name in wishes}
        if (trigger := _trigger(wishes)) is not None:
            terms["stop"] = self._price(market, trigger)
        if wishes.get("reduceOnly"):
            terms["reduce_only"] = True
        if "expireTime" in wishes:
            terms["expire"] = int(wishes["expireTime"]) * 1_000
        with _errors():
            ack = await (await self.connection()).place(
                market["id"],
                side,
                self._lots(market, amount),
                None if type == "market" else self._price(market, price),
                tif=None if tif in ("", "po") else tif,  # type: ignore[arg-type]
                post_only=bool(wishes.get("postOnly")) or tif == "po",
                cid=wishes.get("clientOrderId"),
                **terms,
            )
        made = self._acknowledged(ack, market, type, side, amount, None if type == "market" else price)
        return made if trigger is None else made | {"triggerPrice": float(trigger), "stopPrice": float(trigger)}

    async def edit_order(
        self,
        id: str,
        symbol: str,
        type: OrderType,
        side: OrderSide,
        amount: Num = None,
        price: Num = None,
        params: Any = None,
    ) -> Any:
        """Price and total amount, or `triggerPrice`, in place; the order keeps its id."""
        await self.load_markets()
        market = self.market(symbol)
        lots = None if amount is None else self._lots(market, amount)
        with _errors():
            px = None if price is None else self._price(market, price)
            trigger = _trigger(params or {})
            stop = None if trigger is None else self._price(market, trigger)
            ack = await (await self.connection()).amend(int(id), px=px, qty=lots, stop=stop)
        return self._acknowledged(ack, market, type, side, amount, price)

    async def cancel_order(self, id: str, symbol: Str = None, params: Any = None) -> Any:
        with _errors():
            ack = await (await self.connection()).cancel(int(id))
        return self._acknowledged(ack, None, None, None, None, None)

    async def cancel_all_orders(self, symbol: Str = None, params: Any = None) -> Any:
        open_orders = await self.fetch_open_orders(symbol)
        with _errors():
            await (await self.connection()).cancel_all(None if symbol is None else self.market(symbol)["id"])
        return [order | {"status": "canceled"} for order in open_orders]

    async def cancel_all_orders_after(self, timeout: Int, params: Any = None) -> Any:
        """Dead man's switch: all orders are cancelled in `timeout` ms unless this is called again before; 0 ends it."""
        with _errors():
            at = await (await self.connection()).cancel_after(int(timeout or 0))
        return {"triggerTime": None if at is None else at // 1_000, "info": {"at": at}}

    async def fetch_open_orders(
        self, symbol: Str = None, since: Int = None, limit: Int = None, params: Any = None
    ) -> Any:
        await self.load_markets()
        with _errors():
            orders = await (await self.connection()).orders(None if symbol is None else self.market(symbol)["id"])
        return self.filter_by_since_limit([self._order(order) for order in orders], since, limit)

    async def fetch_order(self, id: str, symbol: Str = None, params: Any = None) -> Any:
        for order in await self.fetch_open_orders(symbol):
            if order["id"] == str(id):
                return order
        if str(id) in self._known:
            return self.safe_order(self._known[str(id)])
        for order in await self._past_orders(symbol, None):
            if order["id"] == str(id):
                return order
        raise ccxt.OrderNotFound(f"order {id} is not open, and not among those that the server remembers")

    async def fetch_closed_orders(
        self, symbol: Str = None, since: Int = None, limit: Int = None, params: Any = None
    ) -> Any:
        """Filled orders."""
        orders = [order for order in await self._past_orders(symbol, since, limit) if order["status"] == "closed"]
        return self.filter_by_since_limit(orders, since, limit)

    async def fetch_canceled_orders(
        self, symbol: Str = None, since: Int = None, limit: Int = None, params: Any = None
    ) -> Any:
        orders = [order for order in await self._past_orders(symbol, since, limit) if order["status"] == "canceled"]
        return self.filter_by_since_limit(orders, since, limit)

    async def fetch_orders(self, symbol: Str = None, since: Int = None, limit: Int = None, params: Any = None) -> Any:
        """Open and finished orders."""
        orders = {order["id"]: order for order in await self.fetch_open_orders(symbol)}
        orders |= {order["id"]: order for order in await self._past_orders(symbol, since, limit)}
        return self.filter_by_since_limit(self.sort_by(list(orders.values()), "timestamp"), since, limit)

    async def _past_orders(self, symbol: Str, since: Int, limit: Int = None) -> list[Any]:
        """Finished orders, oldest first; those of markets that are gone are left out, ccxt has no names for them."""
        fills = await self._past_fills(symbol, since, limit)
        with _errors():
            past = await (await self.connection()).past_orders(self._name(symbol), limit=_rows(since, limit))
        cost: dict[int, Decimal] = {}
        filled: dict[int, int] = {}
        for fill in fills:
            cost[fill.oid] = cost.get(fill.oid, Decimal(0)) + fill.px * fill.qty
            filled[fill.oid] = filled.get(fill.oid, 0) + fill.qty
        orders = []
        for order in reversed(past):
            if (name := f"{order.sym}/{QUOTE}") in self.markets:
                market = self.market(name)
                is_whole = filled.get(order.oid, 0) == order.filled
                spent = str(cost.get(order.oid, Decimal(0)) * self._hours(market)) if is_whole else None
                fields = self._fields(order, order.ts // 1_000, spent, order.qty - order.filled)
                orders.append(self.safe_order(fields | {"lastUpdateTimestamp": order.done // 1_000}, market))
        return orders

    async def _past_fills(self, symbol: Str, since: Int, limit: Int) -> list[Any]:
        """Fills, oldest first, of the markets that are there."""
        await self.load_markets()
        with _errors():
            fills = await (await self.connection()).fills(self._name(symbol), limit=_rows(since, limit))
        return [fill for fill in reversed(fills) if f"{fill.sym}/{QUOTE}" in self.markets]

    def _name(self, symbol: Str) -> str | None:
        return None if symbol is None else str(self.market(symbol)["id"])

    async def fetch_my_trades(
        self, symbol: Str = None, since: Int = None, limit: Int = None, params: Any = None
    ) -> Any:
        fills = await self._past_fills(symbol, since, limit)
        trades = [self._own_trade(fill, self.market(f"{fill.sym}/{QUOTE}")) for fill in fills]
        return self.filter_by_symbol_since_limit(trades, symbol, since, limit)

    async def watch_orders(self, symbol: Str = None, since: Int = None, limit: Int = None, params: Any = None) -> Any:
        """The orders known, after the next change of one."""
        await self._change()
        orders = [self.safe_order(order) for order in self._known.values()]
        return self.filter_by_symbol_since_limit(orders, symbol, since, limit)

    async def watch_my_trades(
        self, symbol: Str = None, since: Int = None, limit: Int = None, params: Any = None
    ) -> Any:
        """The account's fills, after the next one."""
        before = len(self._fills)
        while len(self._fills) == before:
            await self._change()
        return self.filter_by_symbol_since_limit(self._fills[before:], symbol, since, limit)

    async def _change(self) -> None:
        await self.load_markets()
        await self.connection()
        async with self._news:
            await self._news.wait()

    # --- Orders in ccxt's form ----------------------------------------------------------------------------------------

    def _lots(self, market: Any, amount: Any) -> int:
        lots, rest = divmod(Decimal(str(amount)), self._hours(market))
        if rest or lots < 1:
            raise ccxt.InvalidOrder(f"amount {amount}: whole lots of {self._hours(market)} GPU-hours")
        return int(lots)

    def _price(self, market: Any, price: Any) -> str:
        return str(self.price_to_precision(market["symbol"], price))

    def _order(self, order: Any) -> Any:
        cost = self._known.get(str(order.oid), {}).get("cost")
        return self.safe_order(self._fields(order, order.ts // 1_000, cost), self.market(f"{order.sym}/{QUOTE}"))

    def _fields(self, order: Any, timestamp: int, cost: str | None, left: int | None = None) -> dict[str, Any]:
        # Of a working order, of the event that says how one changed, or of a finished one.
        symbol = f"{order.sym}/{QUOTE}"
        hours = self._hours(self.market(symbol))
        return {
            "id": str(order.oid),
            "clientOrderId": order.cid,
            "symbol": symbol,
            "timestamp": timestamp,
            "datetime": self.iso8601(timestamp),
            "type": TYPES[order.type],
            "side": order.side,
            "price": _text(order.px),
            "triggerPrice": _text(order.stop),
            "reduceOnly": order.reduce_only,
            "amount": str(order.qty * hours),
            "filled": str(order.filled * hours),
            "remaining": str((order.left if left is None else left) * hours),
            "cost": cost,
            "timeInForce": TIMES[order.tif],
            "postOnly": order.post_only,
            "status": STATUS[order.status],
            "fee": None,
            "trades": [],
            "info": {"oid": order.oid},
        }

    def _acknowledged(self, ack: OrderAck, market: Any, type: Any, side: Any, amount: Any, price: Any) -> Any:
        known = self._known.get(str(ack.oid), {})
        symbol = market["symbol"] if market else known.get("symbol")
        hours = self._hours(self.market(symbol)) if symbol else 1
        ts = ack.t_out // 1_000
        plain = {
            "id": str(ack.oid),
            "clientOrderId": ack.cid,
            "symbol": symbol,
            "timestamp": ts,
            "datetime": self.iso8601(ts),
            "type": type or known.get("type"),
            "side": side or known.get("side"),
            "price": _text(price) or known.get("price"),
            "amount": str((ack.filled + ack.left) * hours)
            if ack.status != "canceled"
            else _text(amount) or known.get("amount"),
            "filled": str(ack.filled * hours),
            "status": STATUS[ack.status],
            "fee": None,
            "trades": [],
            "info": {"oid": ack.oid, "dup": ack.dup, "kept": ack.kept},
        }
        return self.safe_order(plain, market)

    def _note_order(self, event: OrderEvent) -> None:
        if f"{event.sym}/{QUOTE}" in (self.markets or {}):
            known = self._known.get(str(event.oid), {})
            timestamp = known.get("timestamp", event.ts // 1_000)
            self._known[str(event.oid)] = self._fields(event, timestamp, known.get("cost", "0"))

    def _note_fill(self, fill: Fill) -> None:
        symbol = f"{fill.sym}/{QUOTE}"
        if symbol not in (self.markets or {}):
            return
        market = self.markets[symbol]
        hours = self._hours(market)
        self._fills.append(self._own_trade(fill, market))
        if order := self._known.get(str(fill.oid)):
            order["cost"] = _text(Decimal(order["cost"] or "0") + fill.px * fill.qty * hours)
            order["filled"], order["remaining"] = str(fill.filled * hours), str(fill.left * hours)
            order["status"] = STATUS[fill.status]

    def _own_trade(self, fill: Any, market: Any) -> Any:
        trade = {
            "id": str(fill.tid),
            "order": str(fill.oid),
            "type": None,
            "symbol": market["symbol"],
            "timestamp": fill.ts // 1_000,
            "datetime": self.iso8601(fill.ts // 1_000),
            "side": fill.side,
            "takerOrMaker": fill.liquidity,
            "price": _text(fill.px),
            "amount": str(fill.qty * self._hours(market)),
            "fee": {"cost": _text(fill.fee), "currency": QUOTE},
            "info": {"tid": fill.tid, "oid": fill.oid},
        }
        return self.safe_trade(trade, market)


def _rows(since: Int, limit: Int) -> int | None:
    """How many rows of the past to ask for: all when a time is named, else a page of the server's, or as many as wanted."""
    return None if since is not None else max(PAGE, limit or 0)


def _trigger(wishes: dict[str, Any]) -> Any:
    return wishes.get("triggerPrice", wishes.get("stopPrice"))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
