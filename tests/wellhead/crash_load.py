"""What clients do while a server is killed under them, and what they were told: the promises that a log must keep."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from engine.catalogue import unpack_id
from engine.engine import Engine
from engine.log import read_log
from engine.types import EventKind
from wellhead import Client, Rejected, WellheadError

ACCOUNTS = ("ann", "bob", "cyd")
SELLER = "ann"
TASKS = 4  # of each account
LOTS = 50  # of capacity at a time


@dataclass
class Promised:
    """What one account was told in one life: order -> its cid, order -> how much of it had traded, cancelled orders."""

    placed: dict[int, str] = field(default_factory=dict)
    filled: dict[int, int] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.placed) + len(self.cancelled)


@dataclass
class Member:
    """An account through all lives of a directory. `doubtful` are orders that were sent and never answered: cid -> order."""

    name: str
    private_key: str
    doubtful: dict[str, dict[str, Any]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def trade(self, client: Client, promised: Promised, rng: random.Random) -> None:
        """Orders that rest or trade, some taken back, until cancelled. Noted is only what was answered."""
        symbols: list[str] = []
        while True:
            try:
                symbols = symbols or [instrument.sym for instrument in await client.instruments()]
                if self.name == SELLER and rng.random() < 0.05:
                    await client.request("capacity.nominate", sym=rng.choice(symbols), lots=LOTS)
                side = "sell" if self.name == SELLER and rng.random() < 0.8 else "buy"
                order = {"sym": rng.choice(symbols), "side": side, "qty": rng.randint(1, 3)}
                order["px"] = f"0.{rng.randint(100, 300) + 50 * (side == 'sell')}"
                await self._place(client, f"{self.name}-{next(self._numbers)}", order, promised)
                await self._cancel_one(client, promised, rng)
            except WellheadError:  # a gate has passed, or the exchange is gone
                symbols = []
                await asyncio.sleep(0.02)

    async def _place(self, client: Client, cid: str, order: dict[str, Any], promised: Promised) -> None:
        self.doubtful[cid] = order
        try:
            ack = await client.place(**order, cid=cid)
        except Rejected:
            del self.doubtful[cid]
            raise
        promised.placed[ack.oid], promised.filled[ack.oid] = cid, ack.filled
        del self.doubtful[cid]

    async def _cancel_one(self, client: Client, promised: Promised, rng: random.Random) -> None:
        working = [oid for oid in list(promised.placed)[-50:] if oid not in promised.cancelled]
        if working and rng.random() < 0.3:
            ack = await client.cancel(rng.choice(working))
            if ack.status == "canceled":
                promised.cancelled.add(ack.oid)

    async def ask_again(self, client: Client, promised: Promised) -> None:
        """Send what was never answered once more, as a client does that wants to know."""
        for cid, order in list(self.doubtful.items()):
            with contextlib.suppress(Rejected):
                await self._place(client, cid, order, promised)


@dataclass
class Told:
    """What an exchange in peace says of one account."""

    working: set[int]
    fills: Counter[int]  # lots of each order

    @classmethod
    async def ask(cls, client: Client) -> Self:
        fills: Counter[int] = Counter()
        before: dict[str, Any] = {}
        while True:
            page = await client.request("fills", limit=1_000, **before)
            for fill in page["fills"]:
                fills[fill["oid"]] += fill["qty"]
            if page["next"] is None:
                break
            before = {"before": page["next"]}
        return cls({order.oid for order in await client.orders()}, fills)


class Logged:
    """What the log says, by the engine alone: every order's cid and account, what traded, what ended."""

    def __init__(self, log_dir: Path) -> None:
        self.cids: dict[int, str] = {}
        self.times: Counter[tuple[int, str]] = Counter()  # how many orders each account's cid became
        self.traded: Counter[int] = Counter()
        self.cancelled: set[int] = set()
        engine = Engine()
        for commands in read_log(log_dir):
            self._take(commands, engine.apply(commands))
        orders = engine.memory.arrays["orders"][: engine.memory.header["orders_used"]]
        self.working = set(orders["order_id"][orders["leaves_qty"] > 0].tolist())

    def _take(self, commands: Any, events: Any) -> None:
        placed = events[events["kind"] == EventKind.NEW]
        rows = commands[np.searchsorted(commands["seq"], placed["command_seq"])]
        for oid, account, command in zip(placed["order_id"].tolist(), placed["account"].tolist(), rows, strict=True):
            self.cids[oid] = unpack_id(command["cl_ord_id"])
            self.times[account, self.cids[oid]] += 1
        self.cancelled |= set(events["order_id"][events["kind"] == EventKind.CANCELED].tolist())
        trades = events[events["kind"] == EventKind.TRADE]
        for side in ("order_id", "contra_order_id"):
            for oid, qty in zip(trades[side].tolist(), trades["qty"].tolist(), strict=True):
                self.traded[oid] += qty

    def lost(self, promised: Promised) -> list[str]:
        """What is not in the log of what was promised."""
        lost = [f"order {oid} ({cid})" for oid, cid in promised.placed.items() if self.cids.get(oid) != cid]
        lost += [f"the cancel of order {oid}" for oid in promised.cancelled - self.cancelled]
        traded = promised.filled.items()
        return lost + [f"{qty} lots of order {oid}" for oid, qty in traded if self.traded[oid] < qty]

    def doubled(self) -> list[str]:
        """What happened more than once."""
        return [f"{cid} of account {who} is {count} orders" for (who, cid), count in self.times.items() if count > 1]

    def differs(self, name: str, told: Told) -> list[str]:
        """What an exchange said of an account, against the log."""
        own = {oid for oid, cid in self.cids.items() if cid.startswith(f"{name}-")}
        fills = {oid: self.traded[oid] for oid in own if self.traded[oid]}
        said = []
        if told.working != own & self.working:
            said.append(f"{name}'s working orders: {sorted(told.working ^ (own & self.working))[:5]} differ")
        if dict(told.fills) != fills:
            said.append(f"{name}'s fills: {sorted(set(told.fills.items()) ^ set(fills.items()))[:5]} differ")
        return said
