"""An exchange as a process of its own for whoever looks at the page: books that move, a settled cycle, a guest.

    python -m tests.page.venue DIRECTORY [--markets 4] [--hours 3] [--updates 40] [--nice 0]

The real node on real websockets. Its clock is the real one, set ahead to the next day's morning, whatever the time is here:
the first hour of a cycle has just begun and no gate is near. First it leaps from hour to hour, so that
a cycle with trades of the guest is settled; then it goes on at its own pace, and bots quote and trade. One line of JSON
says where everything is. It ends when its input does.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import NS, Catalogue
from engine.types import COMMAND, TRANSFER, EventKind, Kind
from gateway.auth import KeyStore
from settlement.batches import BatchState
from tests.wellhead.set_clock import until_morning_ns
from wellhead import AmendOrder, Client, NewOrder
from wellhead.config import Config
from wellhead.demo.cast import markets
from wellhead.node import Node
from wellhead.types import Order, Side, WellheadError

MAKER, GUEST, TAKER, OPERATOR = "maker", "guest", "taker", "operator"
HOUR_NS = 3_600 * NS
PAPER_MICROS = 50_000_000_000_000
SETTLED_S = 120
LEVELS = 8
CAPACITY_LOTS = 2_000
BATCH_ITEMS = 90
ROUNDS_PER_S = 20
TRADES_PER_ROUND = 0.25
SIDES: tuple[Side, Side] = ("buy", "sell")


class Venue:
    """Open it, `prepare`, and let it `run`."""

    def __init__(self, directory: Path, market_count: int, hours: int, updates_per_s: int) -> None:
        self.directory = directory
        self.ahead_ns = until_morning_ns()
        self.updates_per_s = updates_per_s
        self.chance = random.Random(7)
        self.touch: list[Order] = []
        self.ticks: dict[str, Decimal] = {}
        config = Config(
            directory / "data", port=0, markets=markets(market_count), list_hours=hours, paper_micros=PAPER_MICROS,
            poll_ms=10, durable=False,
        )  # fmt: skip
        self.node = Node(config, Catalogue.load(), clock=lambda: time.time_ns() + self.ahead_ns)

    async def prepare(self) -> None:
        """Accounts, capacity, and one hour that is traded, delivered and settled."""
        await self.node.start()
        for name in (MAKER, GUEST, TAKER):
            KeyStore(self.node.config.keys_path).create(name, name, private_path=self.key(name))
        KeyStore(self.node.config.keys_path).create(
            OPERATOR, OPERATOR, scopes=("read", "admin"), private_path=self.key(OPERATOR)
        )
        self.maker, self.guest, self.taker = [
            Client.from_key_file(self.node.server.url, self.key(name)) for name in (MAKER, GUEST, TAKER)
        ]
        for client in (self.maker, self.guest, self.taker):
            await client.__aenter__()
        await self._nominate()
        await self._quote(1)
        first = min(await self.maker.instruments(), key=lambda one: one.start)
        await self.guest.place(first.sym, "buy", 3, tif="ioc")
        await self.guest.close()
        await self._settle()
        await self._nominate()
        await self._quote(LEVELS)

    def key(self, name: str) -> Path:
        return self.directory / f"{name}.key"

    async def _settle(self) -> None:
        """Leap to a gate, over the hour, and to the end of the cycle; then the books follow, and freeze it."""
        async with asyncio.timeout(SETTLED_S):
            for kind in (EventKind.CLOSED, EventKind.DELIVERED, EventKind.CYCLE_CLOSED):
                await self._leap(kind)
            while not any(batch.state >= BatchState.FROZEN for batch in self.node.books.batches.all()):
                await asyncio.sleep(0.01)

    async def _leap(self, kind: EventKind) -> None:
        """By an hour, and wait until this has come of it."""
        came = asyncio.Event()

        def look(_commands: NDArray[np.void], events: NDArray[np.void]) -> None:
            if (events["kind"] == kind).any():
                came.set()

        self.node.observers.append(look)
        self.ahead_ns += HOUR_NS
        await came.wait()
        self.node.observers.remove(look)

    async def _nominate(self) -> None:
        """Maker and taker may sell in every open hour."""
        pairs = [(account, number) for number in sorted(self.node.gateway.projection.instruments) for account in (1, 3)]
        commands = np.zeros(len(pairs), TRANSFER)
        commands["kind"], commands["lots"] = Kind.NOMINATE, CAPACITY_LOTS
        commands["account"], commands["instrument"] = np.array(pairs).T
        await self.node.execute(commands.view(COMMAND))

    async def _quote(self, levels: int) -> None:
        """A ladder on both sides of every open book."""
        items: list[NewOrder] = []
        for one in await self.maker.instruments():
            if one.status != "continuous":
                continue
            tick = int(one.tick * 1_000_000)
            middle = int(one.ref_px * 1_000_000) // tick
            for level in range(1, levels + 1):
                for side, ticks in zip(SIDES, (middle - 2 * level, middle + 2 * level), strict=True):
                    px = Decimal(ticks * tick) / 1_000_000
                    items.append(NewOrder(one.sym, side, self.chance.randint(2, 30), px))
        for start in range(0, len(items), BATCH_ITEMS):
            await self.maker.batch(items[start : start + BATCH_ITEMS])

    async def run(self) -> None:
        """Amend orders and trade, so many times a second, until cancelled."""
        orders = await self._working()
        full = len(orders)
        while True:
            begun_s = time.monotonic()
            await self.maker.batch([self._changed(order) for order in self._some(orders)])
            if self.chance.random() < TRADES_PER_ROUND:
                one, side = self.chance.choice(orders), self.chance.choice(SIDES)
                with suppress(WellheadError):  # a test may have halted it
                    await self.taker.place(one.sym, side, 1, tif="ioc")
                if len(await self.maker.orders()) < full * 3 // 4:
                    await self.maker.cancel_all()
                    await self._quote(LEVELS)
                    orders = await self._working()
            await asyncio.sleep(max(0.0, 1 / ROUNDS_PER_S - (time.monotonic() - begun_s)))

    async def _working(self) -> list[Order]:
        """The maker's orders as they were quoted, and who is at the touch."""
        self.ticks = {one.sym: one.tick for one in await self.maker.instruments()}
        orders = await self.maker.orders()
        best: dict[tuple[str, Side], Order] = {}
        for order in orders:
            key, sign = (order.sym, order.side), -1 if order.side == "buy" else 1
            if key not in best or sign * order.px < sign * best[key].px:
                best[key] = order
        self.touch = list(best.values())
        return orders

    def _some(self, orders: list[Order]) -> list[Order]:
        """Half from anywhere in the books, half from the touch."""
        count = min(max(2, self.updates_per_s // ROUNDS_PER_S), BATCH_ITEMS)
        return self.chance.choices(orders, k=count // 2) + self.chance.choices(self.touch, k=count - count // 2)

    def _changed(self, order: Order) -> AmendOrder:
        """Another size; at the touch another price too, a tick nearer or as it was quoted."""
        qty = self.chance.randint(2, 40)
        if order not in self.touch:
            return AmendOrder(order.oid, qty=qty)
        step = self.ticks[order.sym] * self.chance.randint(0, 1) * (1 if order.side == "buy" else -1)
        return AmendOrder(order.oid, px=order.px + step, qty=qty)


async def main(options: argparse.Namespace) -> None:
    venue = Venue(options.directory, options.markets, options.hours, options.updates)
    await venue.prepare()
    told = {"url": venue.node.server.page_url, "key": str(venue.key(GUEST)), "data": str(venue.node.config.data_dir)}
    print(json.dumps(told), flush=True)
    bots = asyncio.create_task(venue.run())
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.wait([bots, ended], return_when=asyncio.FIRST_COMPLETED)
    if bots.done():
        bots.result()
    bots.cancel()
    await venue.node.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--markets", type=int, default=4)
    parser.add_argument("--hours", type=int, default=3)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--nice", type=int, default=0, help="how much lower its priority is")
    options = parser.parse_args()
    os.nice(options.nice)
    asyncio.run(main(options))
