"""Keep a ladder of bids in one market for a while, and say what is bought.

    python examples/ladder.py ws://127.0.0.1:8765 alice.key L4-EUC 10

Each rung is one order; the ladder moves with the best offer, and rungs that would not change keep their place in the queue.
"""

import asyncio
import contextlib
import sys
from decimal import Decimal

from wellhead import AmendOrder, Client, Fill, NewOrder, OrderAck

RUNGS = 4
STEP = Decimal("0.005")
FAR = Decimal("0.100")  # where the ladder hangs while nobody offers


async def tell_fills(client: Client) -> None:
    async for event in client.events():
        if isinstance(event, Fill):
            print(f"bought {event.qty} of {event.sym} at {event.px}")


async def quote(client: Client, symbol: str) -> None:
    book = await client.book(symbol)
    rungs: list[OrderAck] = []
    top_before = Decimal(0)
    while True:
        top = book.asks[0].px - STEP if book.asks else FAR
        prices = [top - STEP * rung for rung in range(RUNGS)]
        if not rungs:
            items = [NewOrder(symbol, "buy", qty=1, px=price) for price in prices]
            rungs = [ack for ack in await client.batch(items) if isinstance(ack, OrderAck)]
            print(f"{len(rungs)} bids for {symbol} from {top} down")
        elif top != top_before:
            await client.batch([AmendOrder(ack.oid, px=price) for ack, price in zip(rungs, prices, strict=False)])
        top_before = top
        await asyncio.sleep(0.5)


async def main(url: str, key_file: str, market: str, seconds: str) -> None:
    async with Client.from_key_file(url, key_file) as client:
        gpu_class, region = market.split("-")
        symbol = (await client.instruments(gpu_class, region))[0].sym
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(seconds)):
                await asyncio.gather(tell_fills(client), quote(client, symbol))
        print(f"{await client.cancel_all()} bids taken back")


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:5]))
