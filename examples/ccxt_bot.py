"""A bot written for ccxt, which runs here because its exchange is made by another constructor: it bids a little below the
middle, moves its bid with the market, and says what it bought.

    python examples/ccxt_bot.py ws://127.0.0.1:8765 alice.key L4-EUC 10

Needs ccxt: pip install 'wellhead[ccxt]'. Amounts are GPU-hours, prices are per GPU-hour; all of `trade` is plain ccxt.
"""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import ccxt.async_support as ccxt

from wellhead.ccxt_exchange import wellhead

AWAY = 0.02  # of the middle


def connected(url: str, key_file: str) -> wellhead:
    """The one line that differs from another exchange's."""
    key = json.loads(Path(key_file).read_text(encoding="utf-8"))
    return wellhead({"apiKey": key["key"], "secret": key["private_key"], "options": {"url": url}})


async def middle(exchange: ccxt.Exchange, symbol: str) -> float:
    ticker = await exchange.fetch_ticker(symbol)
    if ticker["bid"] and ticker["ask"]:
        return (ticker["bid"] + ticker["ask"]) / 2
    return ticker["last"] or float(exchange.markets[symbol]["info"]["ref_px"])


async def trade(exchange: ccxt.Exchange, symbol: str) -> None:
    amount = exchange.markets[symbol]["limits"]["amount"]["min"]
    order = None
    while True:
        price = exchange.price_to_precision(symbol, await middle(exchange, symbol) * (1 - AWAY))
        try:
            if order is None or order["status"] != "open":
                order = await exchange.create_order(symbol, "limit", "buy", amount, price)
                print(f"bid {order['id']} for {amount} hours of {symbol} at {price}", flush=True)
            elif float(price) != order["price"]:
                order = await exchange.edit_order(order["id"], symbol, "limit", "buy", amount, price)
                print(f"moved to {price}", flush=True)
            await asyncio.sleep(0.2)
            order = await exchange.fetch_order(order["id"], symbol)
        except ccxt.InvalidOrder as error:  # filled while it was moved, or outside the price limits
            print(f"refused: {error}")
            order = None
            await asyncio.sleep(0.2)


async def main(url: str, key_file: str, market: str, seconds: str) -> None:
    exchange = connected(url, key_file)
    try:
        markets = await exchange.load_markets()
        symbol = min(name for name, one in markets.items() if name.startswith(market) and one["active"])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(seconds)):
                await trade(exchange, symbol)
        for order in await exchange.cancel_all_orders(symbol):
            print(f"bid {order['id']} is {order['status']}")
        for fill in await exchange.fetch_my_trades(symbol):
            print(f"bought {fill['amount']} hours at {fill['price']} for {fill['cost']}")
        print("free", (await exchange.fetch_balance())["USDC"]["free"])
    finally:
        await exchange.close()


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:5]))
