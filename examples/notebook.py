"""Trade without asyncio, as in a notebook: each call waits for its answer, and the book follows the market meanwhile.

python examples/notebook.py ws://127.0.0.1:8765 alice.key
"""

import sys

from wellhead import Rejected, SyncClient


def main(url: str, key_file: str) -> None:
    with SyncClient.from_key_file(url, key_file) as exchange:
        print(exchange)
        hour = exchange.instruments()[0]
        book = exchange.book(hour.sym)
        news = exchange.updates("l1", hour.sym, wait_s=5)
        next(news)  # how it stands
        bid = exchange.place(hour.sym, "buy", qty=2, px=10 * hour.tick)
        next(news)  # the bid is in the book
        print(book)
        print(exchange.amend(bid.oid, qty=1).left, "lot left")
        try:
            exchange.place(hour.sym, "buy", qty=1, px=hour.tick / 2)
        except Rejected as refusal:
            print(refusal.name)
        exchange.cancel_all()
        order = exchange.past_orders(hour.sym)[0]
        print(f"order {order.oid} is {order.status}, {order.why}; {exchange.balances().cash} free")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:3])
