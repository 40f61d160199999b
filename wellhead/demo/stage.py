"""The demo from beginning to end: a node with a fast clock, members with money and capacity, bots, a screen, a proof.

Order of events: the node opens and lists while the clock stands; accounts, deposits, capacity and keys follow; the bots
log on; then the clock starts. At the end the clock stops first, so that nothing closes behind the bots' backs; the
bots' orders are cancelled by their disconnect; the cycle is closed; the node stops; the audit reads what it left.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import HOUR_S, NS, Catalogue, hour_text, pack_id
from engine.log import FileLog, LogLocked
from engine.types import COMMAND, TRANSFER, EventKind, Kind, Reason
from gateway.auth import KeyStore
from settlement.service import STATEMENTS_NAME
from wellhead.audit import audit
from wellhead.config import Config
from wellhead.demo.bots import Plan
from wellhead.demo.cast import CAST, markets
from wellhead.demo.clock import DemoClock
from wellhead.demo.crew import Crew
from wellhead.demo.display import BookRow, View, change_text
from wellhead.demo.prices import PriceHistory, PricePath
from wellhead.demo.report import Summary
from wellhead.demo.tape import Listed, Tape
from wellhead.node import Node

if TYPE_CHECKING:
    from wellhead.demo.treasury import Treasury

FIRST_DAY = "2025-09-25"
"""Of the price history; the next day has the great fall of H100 prices."""
LOOK_S = 0.1
RATE_WINDOW_MS = 1_000
DUE_TIMEOUT_S = 10
SHOWN_LOG_LINES = 9
GUEST = "guest"
"""Whoever looks on may trade too: a key for the market page, with paper money from its first log-on on."""
GUEST_MICROS = 1_000_000 * 1_000_000


class DemoError(Exception):
    """The demo cannot run here, or a part of it failed; the message says what and where."""


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen."""

    data_dir: Path
    seconds: int = 30
    seed: int = 1
    port: int = 0
    market_count: int = 12
    list_hours: int = 4
    durable: bool = True
    chain: bool = True  # deposits and gains on a chain, instead of deposits out of nothing
    node_url: str | None = None  # of a development node; None: a chain in this process


Show = Callable[[View], None]


async def run_demo(options: Options, show: Show, stop: asyncio.Event) -> Summary:
    """Run a demo in a directory without an exchange, until its time is over or `stop` is set.

    Raises DemoError, CrewError, OSError, and whatever makes the node fail.
    """
    demo = Demo(options)
    async with demo.opened():
        await demo.trade(show, stop)
        summary = await demo.close(settle=not stop.is_set())
    if summary.settled:
        summary.add_books(demo.tape, demo.catalogue)
        summary.add_proof(await asyncio.to_thread(audit, options.data_dir))
        _compare_hashes(summary)
    return summary


def free_directory(wanted: Path) -> Path:
    """The directory itself, or the first of DIR-2, DIR-3 ... without an exchange. Raises DemoError when a node runs there."""
    number, path = 1, wanted
    while (log_dir := Config(path).log_dir).exists():
        try:
            FileLog(log_dir).close()
        except LogLocked as error:
            raise DemoError(f"a node is running on {path}; give the demo another directory with --data") from error
        number += 1
        path = wanted.with_name(f"{wanted.name}-{number}")
    return path


class Demo:
    """One run. Use `opened`, in it `trade`, then `close`."""

    def __init__(self, options: Options) -> None:
        """Opens the directory; raises as Node does."""
        self.options = options
        self.catalogue = Catalogue.load()
        self.markets = markets(options.market_count)
        self.clock = DemoClock.before(time.time_ns(), options.seconds)
        self.path = PricePath(PriceHistory.load(), self.clock.start_ns, FIRST_DAY, options.seed)
        config = Config(
            options.data_dir,
            port=options.port,
            durable=options.durable,
            markets=self.markets,
            list_hours=options.list_hours,
            paper_micros=GUEST_MICROS,
        )
        self.tape = Tape(self.catalogue, config.settlement_dir / STATEMENTS_NAME)
        self.node = Node(config, self.catalogue, self.clock, lambda contract: self.path.ticks(contract, self.clock()))
        self.node.observers.append(self._observe)
        self._crew: Crew | None = None
        self._listed = asyncio.Event()
        self._rates: deque[tuple[int, int, int]] = deque([(0, 0, 0)])
        self._day = FIRST_DAY
        self._tasks: list[asyncio.Task[None]] = []
        self._treasury: Treasury | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The node runs, everybody has money, capacity and a connection, and the market's clock has started."""
        await self.node.start()
        try:
            self._tasks = [asyncio.create_task(self.node.failed())]
            await self._open_accounts()
            if self.options.chain:
                await self._open_treasury()
            await self._nominate()
            self._tasks.append(asyncio.create_task(self._keep_nominating()))
            self._crew = await Crew.hire(self._plan(), self.options.data_dir / "bots.log")
            begun_ns = time.monotonic_ns()
            self.clock.start(begun_ns)
            await self._crew.begin(begun_ns)
            yield
        finally:
            self.clock.stop()
            if self._crew is not None:
                await self._crew.stop()
            for task in self._tasks:
                task.cancel()
            if self._treasury is not None:
                await self._treasury.close()
            await self.node.stop()

    async def trade(self, show: Show, stop: asyncio.Event) -> None:
        """Watch the market until its time is over or `stop` is set. Raises when node or bots fail."""
        assert self._crew is not None
        while not stop.is_set() and self.clock.elapsed_ms() < self.options.seconds * 1000:
            self._check()
            self._tell_news()
            show(self.view())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)
        show(self.view())

    async def close(self, settle: bool) -> Summary:
        """Stop time and bots; with `settle`, close the cycle. The summary still lacks books and proof."""
        elapsed_ms = self.clock.elapsed_ms()
        self.clock.stop()
        if self._crew is not None:
            await self._crew.stop()
        if settle:
            await self._nothing_due()
            await self._execute(Kind.CLOSE_CYCLE)
            if self._treasury is not None:
                await self._treasury.settle()
        engine, tape = self.node.exchange.engine, self.tape
        return Summary(
            self.options.data_dir,
            settle,
            elapsed_ms,
            self.clock.start_ns,
            self.node.now_ns(),
            tape.orders,
            tape.rejected,
            tape.fills,
            tape.delivered_lots,
            int(engine.memory.header["house_fees_micros"]),
            engine.state_hash(),
            tape.volumes,
            chain=self._treasury.lines if self._treasury else [],
        )

    def _check(self) -> None:
        """Raises what a part failed with."""
        assert self._crew is not None
        self._crew.check()
        for task in self._tasks:
            if task.done():
                task.result()
                raise DemoError("the node ended")  # `stop` raises why

    def _observe(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        self.tape.observe(commands, events)
        if self.tape.new_listings:
            self._listed.set()

    # --- Setting up ---------------------------------------------------------------------------------------------------

    async def _open_accounts(self) -> None:
        keys = KeyStore(self.node.config.keys_path)
        accounts, deposits = np.zeros(len(CAST), TRANSFER), np.zeros(len(CAST), TRANSFER)
        accounts["kind"], deposits["kind"] = Kind.OPEN_ACCOUNT, Kind.DEPOSIT
        for at, part in enumerate(CAST):
            accounts["account"][at] = deposits["account"][at] = at + 1
            accounts["external_id"][at] = pack_id(part.name)
            deposits["amount_micros"][at] = part.deposit_micros
            deposits["external_id"][at] = pack_id(f"demo-deposit-{at + 1}")
        await self._execute_all(accounts if self.options.chain else np.concatenate([accounts, deposits]))
        directory = self._keys_dir()
        directory.mkdir(mode=0o700, exist_ok=True)
        for part in CAST:
            keys.create(part.name, part.name, private_path=directory / f"{part.name}.key")
        keys.create(GUEST, GUEST, private_path=directory / f"{GUEST}.key")

    async def _open_treasury(self) -> None:
        from wellhead.demo.treasury import Treasury  # noqa: PLC0415 - web3 takes seconds to import

        self._treasury = Treasury(self.node, self.catalogue, self.options.node_url)
        await self._treasury.open([part.deposit_micros for part in CAST])
        self.tape.say(self.node.now_ns(), f"settles on: {self._treasury.lines[0]}")

    def _keys_dir(self) -> Path:
        return self.options.data_dir / "keys"

    async def _keep_nominating(self) -> None:
        while True:
            await self._listed.wait()
            await self._nominate()

    async def _nominate(self) -> None:
        """Certify the providers' capacity in every contract that is new."""
        self._listed.clear()
        numbers, self.tape.new_listings = self.tape.new_listings, []
        rows = [
            (at + 1, number, part.capacity_gpus // self.tape.listed[number].gpus_per_lot)
            for at, part in enumerate(CAST)
            for number in numbers
            if part.capacity_gpus
        ]
        commands = np.zeros(len(rows), TRANSFER)
        commands["kind"] = Kind.NOMINATE
        if rows:
            commands["account"], commands["instrument"], commands["lots"] = np.array(rows).T
        await self._execute_all(commands)

    async def _execute_all(self, commands: NDArray[np.void]) -> None:
        """Execute commands none of which may be refused."""
        events = await self.node.execute(commands.view(COMMAND))
        refused = events[events["kind"] == EventKind.REJECTED]
        if len(refused):
            reason = Reason(int(refused["reason"][0]))
            raise DemoError(f"the exchange refused {len(refused)} of its operator's commands: {reason.name}")

    async def _execute(self, kind: Kind) -> None:
        command = np.zeros(1, TRANSFER)
        command["kind"] = kind
        await self._execute_all(command)

    async def _nothing_due(self) -> None:
        """Wait until the orders of the bots, who are gone, are cancelled, and every hour that has ended is delivered."""
        now_s, memory = self.node.now_ns() // NS, self.node.exchange.engine.memory
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DUE_TIMEOUT_S):
                while memory.header["open_orders"] or any(
                    listed.start_s + HOUR_S <= now_s for listed in self.tape.listed.values()
                ):
                    await asyncio.sleep(LOOK_S / 4)

    def _plan(self) -> Plan:
        options = self.options
        return Plan(
            self.node.server.url,
            str(self._keys_dir()),
            self.markets,
            options.seed,
            FIRST_DAY,
            self.clock.start_ns,
            self.clock.speed,
            options.seconds,
        )

    # --- Looking on ---------------------------------------------------------------------------------------------------

    @property
    def page(self) -> str:
        """Where a browser can look on, and the key it can log on with."""
        return f"{self.node.server.page_url}  log on with {self._keys_dir() / GUEST}.key"

    def _tell_news(self) -> None:
        """Batches that were frozen, and a new day of the price history."""
        now_ns = self.node.now_ns()
        self.tape.look_for_batches(now_ns)
        day = self.path.day(now_ns)
        if day != self._day:
            self._day = day
            changes = {market: self.path.change_ppm(market, now_ns) for market in self.markets}
            market = max(changes, key=lambda market: abs(changes[market]))
            change = change_text(changes[market])
            self.tape.say(
                now_ns, f"list prices of {day}: {sum(map(bool, changes.values()))} changed, {market} {change}"
            )

    def view(self) -> View:
        """What the screen shows now."""
        tape, now_ns, elapsed_ms = self.tape, self.node.now_ns(), self.clock.elapsed_ms()
        orders_per_s, fills_per_s = self._rates_at(elapsed_ms)
        return View(
            now_ns,
            self.path.day(now_ns),
            elapsed_ms,
            self.options.seconds * 1000,
            self.clock.speed,
            tape.orders,
            orders_per_s,
            tape.fills,
            fills_per_s,
            sum(volume.lots for volume in tape.volumes.values()),
            sum(volume.notional_micros for volume in tape.volumes.values()),
            tape.delivered_lots,
            len(tape.frozen),
            sum(listed.gate_ns > now_ns for listed in tape.listed.values()),
            len(CAST),
            self._hours(now_ns),
            self._rows(now_ns),
            list(tape.log)[-SHOWN_LOG_LINES:],
            tape.log_count,
            self.page,
        )

    def _rates_at(self, elapsed_ms: int) -> tuple[int, int]:
        """Orders and fills a second, over about the last one."""
        rates = self._rates
        rates.append((elapsed_ms, self.tape.orders, self.tape.fills))
        while len(rates) > 2 and rates[1][0] <= elapsed_ms - RATE_WINDOW_MS:
            rates.popleft()
        then_ms, orders, fills = rates[0]
        span_ms = max(1, elapsed_ms - then_ms)
        return (self.tape.orders - orders) * 1000 // span_ms, (self.tape.fills - fills) * 1000 // span_ms

    def _hours(self, now_ns: int) -> list[tuple[str, str]]:
        gates = {listed.start_s: listed.gate_ns for listed in self.tape.listed.values()}
        return [(hour_text(start_s), _state(start_s, gates[start_s], now_ns)) for start_s in sorted(gates)]

    def _rows(self, now_ns: int) -> list[BookRow]:
        nearest: dict[str, tuple[int, Listed]] = {}
        for number, listed in self.tape.listed.items():
            if listed.gate_ns > now_ns:
                found = nearest.get(listed.market)
                if found is None or listed.start_s < found[1].start_s:
                    nearest[listed.market] = (number, listed)
        return [self._row(*nearest[market], now_ns) for market in self.markets if market in nearest]

    def _row(self, number: int, listed: Listed, now_ns: int) -> BookRow:
        projection = self.node.gateway.projection
        instrument, depth = projection.instruments[number], projection.books.get(number)
        best = [depth.side(side).best() if depth else None for side in (0, 1)]
        bid, ask = (level[0] * listed.tick_micros if level else None for level in best)
        last = instrument.last_price * listed.tick_micros if instrument.last_price >= 0 else None
        change_ppm = self.path.change_ppm(listed.market, now_ns)
        return BookRow(listed.symbol, bid, ask, last, listed.volume_lots, change_ppm)


def _state(start_s: int, gate_ns: int, now_ns: int) -> str:
    if now_ns < gate_ns:
        minutes = (gate_ns - now_ns) // (60 * NS)
        return f"gate in {minutes} min" if minutes < 30 else "open"
    if now_ns < start_s * NS:
        return "closed"
    return "delivering" if now_ns < (start_s + HOUR_S) * NS else "delivered"


def _compare_hashes(summary: Summary) -> None:
    """The audit replayed the log from its beginning: that must lead to the state the node ended in."""
    if not any(summary.state_hash[:16] in line for line in summary.proof):
        summary.differences.append(f"replay: the log does not lead to the node's state {summary.state_hash[:16]}")
