"""A client with nothing of ours: the protocol page, a websocket and a signature. A place to start from in any language.

python examples/own_client.py ws://127.0.0.1:8765 alice.key

It logs on, follows a book with its checksums and the account's private stream, places, amends and cancels; then its
connection is cut with an order on the way, and it goes on behind the last event that it has.
"""

import asyncio
import base64
import itertools
import json
import sys
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

Message = dict[str, Any]


class Refused(Exception):
    """The exchange refused a request; the error as it came."""


class Book:
    """A book by price in millionths, from snapshot and deltas."""

    def __init__(self) -> None:
        self.seq = 0
        self.sides: dict[str, dict[int, int]] = {"b": {}, "a": {}}

    def take(self, message: Message) -> bool:
        """Follow a message; False when one is missing, and the channel has to be subscribed again."""
        if message["ev"] == "snapshot":
            self.sides = {"b": {}, "a": {}}
        elif message["prev"] != self.seq:
            return False
        self.seq = message["seq"]
        for name, side in self.sides.items():
            for price, lots in message[name]:
                side[int(Decimal(price) * 10**6)] = lots
            self.sides[name] = {price: lots for price, lots in side.items() if lots}
        if self.checksum() != message["crc"]:
            raise ValueError(f"the book of {message['sym']} is not what the exchange has")
        return True

    def checksum(self) -> int:
        """Of the ten best levels of each side."""
        bids = sorted(self.sides["b"].items(), reverse=True)[:10]
        offers = sorted(self.sides["a"].items())[:10]
        return zlib.crc32("".join(f"{price}:{lots};" for price, lots in bids + offers).encode())


class Client:
    """One account, over as many connections as it takes."""

    def __init__(self, url: str, key_file: Path) -> None:
        file = json.loads(key_file.read_text())
        self.url, self.key = url, file["key"]
        self.private_key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(file["private_key"]))
        self.ids = itertools.count(1)
        self.answers: dict[int, asyncio.Future[Message]] = {}
        self.books: dict[str, Book] = {}
        self.orders: dict[str, Message] = {}  # by cid, as the private stream tells
        self.aseq = 0  # of the last private event
        self.news = asyncio.Condition()

    async def open(self) -> Message:
        """Connect and log on; the private stream goes on behind the last event, or begins with a snapshot."""
        self.socket = await connect(self.url)
        hello = json.loads(await self.socket.recv())
        text = "\n".join((hello["proto"], hello["challenge"], self.key, str(hello["ts"])))
        signature = base64.b64encode(self.private_key.sign(text.encode())).decode()
        self.reader = asyncio.create_task(self.read())
        resume = {"resume_from": self.aseq + 1} if self.aseq else {}
        logged_on = await self.ask("session.logon", key=self.key, ts=hello["ts"], sig=signature, **resume)
        if not resume:
            await self.ask("subscribe", channels=[{"name": "private"}])
        return logged_on

    async def ask(self, op: str, **fields: Any) -> Message:
        """A request and its result. Raises Refused, and ConnectionClosed when nobody knows the outcome."""
        number = await self.send(op, **fields)
        reply = await self.answers[number]
        del self.answers[number]
        if not reply["ok"]:
            raise Refused(reply["err"])
        return dict(reply.get("r") or {})

    async def send(self, op: str, **fields: Any) -> int:
        """Send a request and do not wait; its id."""
        number = next(self.ids)
        self.answers[number] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"op": op, "id": number, **fields}))
        return number

    async def read(self) -> None:
        """What comes: replies have an `id`, pushes a `ch`."""
        try:
            async for data in self.socket:
                message = json.loads(data)
                if "ch" not in message:
                    self.answers[message["id"]].set_result(message)
                    continue
                async with self.news:
                    await self.push(message)
                    self.news.notify_all()
        except ConnectionClosed:
            pass
        for answer in self.answers.values():
            if not answer.done():
                answer.cancel()
        self.answers.clear()

    async def push(self, message: Message) -> None:
        """Channels that nobody asked for, and events of kinds that are not known, are nothing."""
        if message["ch"] == "l2":
            if not self.books.setdefault(message["sym"], Book()).take(message):
                await self.send("subscribe", channels=[{"name": "l2", "symbols": [message["sym"]]}])
        elif message["ch"] == "private":
            snapshot = message["ev"] == "snapshot"
            if not snapshot and message["aseq"] != self.aseq + 1:
                raise ValueError(f"private event {message['aseq']} came behind {self.aseq}")
            self.aseq = message["aseq"]
            for order in message["orders"] if snapshot else [message]:
                if order.get("cid"):
                    self.orders.setdefault(order["cid"], {}).update(order)

    async def until(self, holds: Any) -> None:
        """Wait until what is known makes it true."""
        async with self.news:
            await asyncio.wait_for(self.news.wait_for(holds), 30)


async def main(url: str, key_file: str) -> None:
    client = Client(url, Path(key_file))
    logged_on = await client.open()
    print(f"logged on as {logged_on['account']} with {', '.join(logged_on['scopes'])}")
    symbol = (await client.ask("instruments"))["instruments"][0]["sym"]
    await client.ask("subscribe", channels=[{"name": "l2", "symbols": [symbol]}])
    await client.until(lambda: symbol in client.books)
    book = client.books[symbol]

    await client.ask("order.place", sym=symbol, side="buy", qty=3, px="0.500", cid="own-1")
    await client.until(lambda: book.sides["b"].get(500_000, 0) >= 3)
    print(f"order own-1 is {client.orders['own-1']['st']}, the book has it, checksum {book.checksum()}")
    amended = await client.ask("order.amend", cid="own-1", px="0.501", qty=2)
    await client.until(lambda: book.sides["b"].get(501_000, 0) >= 2)
    print(
        f"amended to {amended['left']} lots, place {'kept' if amended['kept'] else 'lost'}, checksum {book.checksum()}"
    )

    await client.send("order.place", sym=symbol, side="buy", qty=1, px="0.400", cid="own-2")
    client.socket.transport.abort()  # and no reply was read
    await client.reader
    logged_on = await client.open()
    print(f"back at event {client.aseq}, {'resumed' if logged_on['resumed'] else 'with a snapshot'}")
    if "own-2" not in client.orders:  # the cut may have come first: the same cid is executed once at the most
        await client.ask("order.place", sym=symbol, side="buy", qty=1, px="0.400", cid="own-2")
    await client.until(lambda: "own-2" in client.orders)
    print(f"order own-2 is {client.orders['own-2']['st']}")

    for cid in ("own-1", "own-2"):
        await client.ask("order.cancel", cid=cid)
        await client.until(lambda cid=cid: client.orders[cid]["st"] == "canceled")
        print(f"order {cid} is {client.orders[cid]['st']}")
    await client.ask("session.logout")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:3]))
