"""Many connections for a long time: nothing missing, nothing doubled, books that agree, memory that stays flat.

    python -m tests.gateway.soak [--minutes 10] [--connections 1000] [--orders-per-s 100] [--directory DIR]

A node in a process of its own, which remembers little, so that what it keeps has its full size soon. Every connection holds
the private stream of an account and the book of a symbol. Accounts trade all the time; again and again some of the
connections are cut and come back, resuming both. Checked with every message, over all connections of a reader:

- private events are numbered by one, and event n of an account is the same bytes wherever it is read;
- each message of a book follows the one before, and the book that it leads to has the message's checksum.

And at the end: every reader has every event, and balances that are asked for are those that the stream ended with. The
resident memory of the node is printed as it goes; more than `GROWTH` of it in the second half of the time is a failure.
"""

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gateway_client import Peer, Target, ask
from benchmarks.gateway_servers import ACCOUNTS, SMALL, started

GROWTH = 0.10
CUT = 0.02
"""Of all connections, each second."""
LEVELS = 10
KEPT_EVENTS = 2_000


@dataclass
class Found:
    """What was seen, and what was wrong."""

    orders: int = 0
    events: int = 0
    books: int = 0
    resumed: int = 0
    snapshots: int = 0
    wrong: list[str] = field(default_factory=list)
    sums: list[dict[int, int]] = field(default_factory=lambda: [{} for _ in range(ACCOUNTS)])
    """Of each account: event -> the checksum of its bytes."""

    def fault(self, what: str) -> None:
        if len(self.wrong) < 20:
            self.wrong.append(what)


def micros(price: str) -> int:
    whole, _, rest = price.partition(".")
    return int(whole) * 1_000_000 + int(rest.ljust(6, "0") or 0)


class Book:
    """A book from its messages alone."""

    def __init__(self) -> None:
        self.seq = 0
        self.sides: tuple[dict[int, int], dict[int, int]] = {}, {}

    def take(self, message: dict[str, Any]) -> str | None:
        """What is wrong with a message, None for nothing."""
        is_snapshot = message["ev"] == "snapshot"
        if is_snapshot:
            self.sides = {}, {}
        elif message["prev"] != self.seq:
            return f"{message['sym']}: {message['prev']} follows {self.seq}"
        self.seq = message["seq"]
        for side, levels in zip(self.sides, (message["b"], message["a"]), strict=True):
            for price, lots in levels:
                if lots:
                    side[micros(price)] = lots
                else:
                    side.pop(micros(price), None)
        bids = sorted(self.sides[0].items(), reverse=True)[:LEVELS]
        text = "".join(f"{price}:{lots};" for price, lots in [*bids, *sorted(self.sides[1].items())[:LEVELS]])
        return None if zlib.crc32(text.encode()) == message["crc"] else f"{message['sym']}: checksum at {self.seq}"


class Reader:
    """A client over several connections."""

    def __init__(self, target: Target, number: int, found: Found) -> None:
        self.target, self.number, self.found = target, number, found
        self.account, self.symbol = number % ACCOUNTS, target.symbols[number % len(target.symbols)]
        self.book, self.aseq, self.balances = Book(), -1, dict[str, str]()
        self.peer: Peer | None = None

    def message(self, payload: bytes) -> None:
        """A push of the account's stream or of the book."""
        message = json.loads(payload)
        if message["ch"] == "l2":
            self.found.books += 1
            if (wrong := self.book.take(message)) is not None:
                self.found.fault(f"reader {self.number}, {wrong}")
        elif message["ch"] == "private":
            self.private(message, payload)

    def private(self, message: dict[str, Any], payload: bytes) -> None:
        found, aseq = self.found, message["aseq"]
        if message["ev"] == "snapshot":
            found.snapshots += self.aseq >= 0
        else:
            found.events += 1
            if aseq != self.aseq + 1:
                found.fault(f"reader {self.number}: event {aseq} follows {self.aseq}")
            sums, crc = found.sums[self.account], zlib.crc32(payload)
            if sums.setdefault(aseq, crc) != crc:
                found.fault(f"account {self.account}: event {aseq} is not the same for all")
            if len(sums) > KEPT_EVENTS:
                del sums[next(iter(sums))]
        self.aseq = aseq
        self.balances = message.get("balances", self.balances)

    async def come(self) -> None:
        """Connect, and go on where the last connection ended."""
        peer = self.peer = await self.target.connect("json")
        channel: dict[str, Any] = {"name": "l2", "symbols": [self.symbol]}
        if self.aseq < 0:
            peer.on_push = self.message
            await self.target.log_on(peer, f"reader{self.number}")
            channels = [channel, {"name": "private"}]
        else:
            peer.on_push = self.message
            await self.target.log_on(peer, f"reader{self.number}", resume_from=self.aseq + 1)
            channels = [channel | {"from": {self.symbol: self.book.seq}}]
            self.found.resumed += 1
        await ask(peer, {"op": "subscribe", "id": 2, "channels": channels})


# --- The load ---------------------------------------------------------------------------------------------------------


def order(target: Target, rng: random.Random, cid: str) -> dict[str, Any]:
    """A bid somewhere, or, in the one book that has an offer, a purchase."""
    if rng.random() < 0.3:
        return {
            "op": "order.place",
            "sym": target.symbols[0],
            "side": "buy",
            "qty": 1,
            "px": "2.000",
            "tif": "ioc",
            "cid": cid,
        }
    price = f"0.{rng.randrange(100, 130)}"
    return {
        "op": "order.place",
        "sym": rng.choice(target.symbols),
        "side": "buy",
        "qty": rng.randrange(1, 9),
        "px": price,
        "cid": cid,
    }


async def trade(target: Target, number: int, found: Found, gap_s: float, stop: asyncio.Event) -> None:
    """One account's orders: some are placed, and those that rest are cancelled after a while."""
    peer, rng, resting = await target.connect("json", f"bot{number}"), random.Random(number), list[str]()
    await asyncio.sleep(rng.random() * gap_s)
    while not stop.is_set():
        found.orders += 1
        cid = f"{time.time_ns()}"
        if len(resting) > 5:
            request = {"op": "order.cancel", "cid": resting.pop(0)}
        else:
            request = order(target, rng, cid)
            resting += [cid] if "tif" not in request else []
        await ask(peer, {**request, "id": found.orders})
        await asyncio.sleep(gap_s * 2 * rng.random())


async def cut(readers: list[Reader], stop: asyncio.Event) -> None:
    """Cut some connections each second; they come back at once."""
    rng = random.Random(1)
    while not stop.is_set():
        some = rng.sample(readers, max(1, int(CUT * len(readers))))
        for reader in some:
            if reader.peer is not None:
                reader.peer.on_push = None  # what is read but not handed over yet is lost
                reader.peer.transport.abort()
        await asyncio.gather(*[reader.come() for reader in some])
        await asyncio.sleep(1)


# --- The run ----------------------------------------------------------------------------------------------------------


async def watch(target: Target, found: Found, seconds: float, every_s: float, sizes: list[int]) -> None:
    """Say how it goes."""
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        await asyncio.sleep(min(every_s, seconds - passed))
        sizes.append(target.resident_bytes())
        print(
            f"{time.monotonic() - start:7.0f} s  {sizes[-1] / 2**20:7.1f} MiB  {found.orders:,} orders  {found.events:,}"
            f" private events  {found.books:,} books checked  {found.resumed:,} resumed  {len(found.wrong)} wrong",
            flush=True,
        )


async def settle(readers: list[Reader], found: Found) -> None:
    """Nothing is on its way any more: everybody must know everything."""
    for reader in readers:
        assert reader.peer is not None
        answers: list[dict[str, Any]] = []
        reader.peer.on_answer = answers.append
        await ask(reader.peer, {"op": "balances", "id": 3})
        result = answers[-1]["r"]
        if result["aseq"] != reader.aseq:
            found.fault(f"reader {reader.number}: {reader.aseq} of {result['aseq']} events")
        elif reader.balances and result["balances"] != reader.balances:
            found.fault(f"reader {reader.number}: balances are not those of the stream")


async def soak(
    target: Target, connections: int, seconds: float, orders_per_s: float, every_s: float
) -> tuple[Found, list[int]]:
    """Run the whole; what was found, and the node's memory over time."""
    found, stop, sizes = Found(), asyncio.Event(), list[int]()
    readers = [Reader(target, number, found) for number in range(connections)]
    for reader in readers:
        await reader.come()
    traders = min(ACCOUNTS, connections)
    tasks = [asyncio.create_task(trade(target, one, found, traders / orders_per_s, stop)) for one in range(traders)]
    tasks.append(asyncio.create_task(cut(readers, stop)))
    await watch(target, found, seconds, every_s, sizes)
    stop.set()
    await asyncio.gather(*tasks)
    await settle(readers, found)
    return found, sizes


def growth(sizes: list[int]) -> float:
    """How much of the memory at half time came later."""
    middle = sizes[len(sizes) // 2]
    return max(sizes[len(sizes) // 2 :]) / middle - 1


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gateway.soak", description="Many connections for a long time."
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--orders-per-s", type=float, default=100)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    seconds = 60 * arguments.minutes
    with started(SMALL, arguments.directory, arguments.connections) as target:
        run = soak(target, arguments.connections, seconds, arguments.orders_per_s, max(1.0, seconds / 20))
        found, sizes = asyncio.run(run)
    print("\n".join(found.wrong) or "nothing missing, nothing doubled, all books agree")
    print(
        f"memory grew by {growth(sizes):.1%} in the second half; {found.snapshots} streams began anew with a snapshot"
    )
    sys.exit(bool(found.wrong) or growth(sizes) > GROWTH)


if __name__ == "__main__":
    main()
