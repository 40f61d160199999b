"""Rest a bid, look at the book, take it back.

python examples/first_order.py ws://127.0.0.1:8765 alice.key
"""

import asyncio
import sys

from wellhead import Client


async def main(url: str, key_file: str) -> None:
    async with Client.from_key_file(url, key_file) as client:
        symbol = (await client.instruments())[0].sym
        ack = await client.place(symbol, "buy", qty=2, px="0.500")
        print(f"order {ack.oid} for {symbol} is {ack.status}")
        book = await client.book(symbol)
        print("bids", [(str(level.px), level.qty) for level in book.bids])
        print("cash", (await client.balances()).cash)
        ack = await client.cancel(ack.oid)
        print(f"order {ack.oid} is {ack.status}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:3]))
