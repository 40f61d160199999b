"""The lives of one exchange under one seed: started, used, killed at any moment, started again, until all is quiet."""

import asyncio
import contextlib
import ctypes
import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import engine.log
import engine.snapshot
import gateway.history
import gateway.memory
import gateway.pages
import gateway.server
import settlement.database
import wellhead.custody
import wellhead.exchange
import wellhead.node
import wellhead.papers
import wellhead.services
from engine.catalogue import Catalogue
from engine.log import LogDamaged, LogError
from engine.types import TRANSFER, Kind
from gateway.auth import KeyStore
from gateway.config import GatewayConfig
from gateway.fast.templates import Phrases
from gateway.gateway import Gateway
from gateway.messages import Format
from gateway.session import Session
from gateway.static import StaticFiles
from settlement.ledger import SqliteLedger
from tests.simulation.books_disk import Files, Module
from tests.simulation.checks import Past, check, past_of
from tests.simulation.clients import Client, Wire
from tests.simulation.disk import Disk, Killed
from tests.simulation.loop import NS, Inline, SimLoop
from tests.simulation.money import Money, quiet_logs
from wellhead.config import Config
from wellhead.exchange import RecoveryError
from wellhead.node import Node

START_NS = 1_795_000_000 * NS  # a day in November 2026
CATALOGUE = Catalogue.load()
ACCOUNTS = ("ann", "ann:hedge", "bob", "cyd", "ann")
"""One for each client; the last shares the account of the first."""
CHAIN_EVERY = 3  # seeds: in the others money comes from nowhere
PAUSE_S = 0.004  # between what one client does and what it does next, on average
SEGMENT_BYTES = 40_000
MEMORY = Path("/dev/shm")
M_MMAP_THRESHOLD, MAPPED_BYTES = -3, 1 << 18


@cache
def pages() -> StaticFiles:
    """The pages that nobody looks at, read and compressed once for all lives."""
    return StaticFiles()


@cache
def quick_starts() -> None:
    """Take tables of many megabytes from the system each time anew: it gives pages of zeros, and only as they are used.

    malloc would keep what a life has freed, and fill it with zeros for the next one. What cannot be set stays slower.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
        np._core.multiarray._set_madvise_hugepage(False)


class Listener:
    """What `serve` gives a server; nobody connects through it."""

    class Socket:
        def getsockname(self) -> tuple[str, int]:
            return "sim", 1

    sockets = (Socket(),)

    def close(self) -> None: ...

    async def wait_closed(self) -> None: ...


async def serve(*_: Any, **__: Any) -> Listener:
    """Instead of that of websockets."""
    return Listener()


class World:
    """Everything outside the exchange, and the exchange. `run` is a whole simulation."""

    def __init__(
        self,
        seed: int,
        actions: int,
        folder: Path,
        plant: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        """`plant` gives a fault to live with (faults.py)."""
        self.seed, self._wanted, self._plant = seed, actions, plant
        chained = seed % CHAIN_EVERY == 0
        self.rng = random.Random(f"{seed} world")
        self.config = Config(
            folder, markets=("H100S-USE",), list_hours=2, paper_micros=0 if chained else 10**12, poll_ms=500,
            snapshot_every_commands=self.rng.choice((15, 60, 300)), fork_snapshots=False,  # a fork has a disk of its own
            books_pause_ms=self.rng.choice((0, 10, 80)),
            books_process=False,  # nothing of it is out of the world
            settlement_queue_batches=self.rng.choice((2, 16, 256)),
            max_frame_commands=self.rng.choice((3, 100, 16_384)),
            gateway=GatewayConfig(
                history_rows=self.rng.choice((40, 2_000)),
                private_ring_events=self.rng.choice((50, 4_096)), conflate_bytes=4_000, slow_soft_bytes=16_000,
                slow_hard_bytes=64_000, logon_failures_per_ip=10**6, logon_failures_per_key=10**6,
            ),
        )  # fmt: skip
        self.disk = Disk(
            (self.config.log_dir, self.config.snapshot_dir), (self.config.data_dir / "history",),
            random.Random(f"{seed} disk"),
        )  # fmt: skip
        self.accounts = ACCOUNTS
        store = KeyStore(self.config.keys_path)
        scopes = ("read", "trade", "withdraw", "provide")
        self.clients = [
            Client(self, number, f"k{number}", str(store.create(f"k{number}", name, scopes=scopes)))
            for number, name in enumerate(ACCOUNTS)
        ]
        self.problems: list[str] = []
        self.actions = 0  # of clients
        self.steps = 0  # events of the world's schedule
        self.lives = self.kills = 0
        self.node: Node | None = None
        self.final = b""  # the engine when the last life ended
        self.past: dict[int, Past] = {}  # what each account was told of its history then
        self.signed: set[bytes] = set()  # by the outbox: hashes
        self._skew_ns = 0
        self._now_ns = START_NS
        self._loop: SimLoop | None = None
        self._connections = 0
        self.money = Money(self) if chained else None

    # --- What clients use ---------------------------------------------------------------------------------------------

    def clock(self) -> int:
        return self._skew_ns + (self._loop.now_ns if self._loop else self._now_ns)

    def later(self, seconds: float, what: Callable[..., Any], *args: Any) -> None:
        if self._loop is not None:
            self._loop.call_later(seconds, what, *args)

    def symbols(self) -> list[str]:
        assert self.node is not None
        return [one.symbol for one in self.node.gateway.projection.instruments.values()]

    def connect(self, wire: Wire, wire_format: Format) -> Session:
        assert self.node is not None
        self._connections += 1
        number = self._connections
        return self.node.gateway.connect(wire, wire_format, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")

    def disconnect(self, session: Session) -> None:
        if self.node is not None and not self.disk.dead:
            self.node.gateway.disconnect(session)

    def receive(self, session: Session, data: bytes) -> None:
        if self.node is not None and not self.disk.dead:
            self.node.gateway.receive(session, data)

    def complain(self, problem: str) -> None:
        self.problems.append(problem)

    def digest(self) -> str:
        """Stands for everything that was heard and decided: equal for equal runs."""
        heard = [(client.memory.events, client.memory.acks, client.memory.orders) for client in self.clients]
        chain = [] if self.money is None else [block.hash for block in self.money.chain.blocks]
        return sha256(repr((heard, chain, self.disk.moments, self.problems)).encode() + self.final).hexdigest()[:16]

    # --- Lives --------------------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Live until the actions are done, then once more in peace; what was wrong, nothing if all is well."""
        with self._installed():
            try:
                while self.actions < self._wanted and not self.problems:
                    self._life(in_peace=False)
                if not self.problems:
                    self._life(in_peace=True)
            except (LogDamaged, LogError, RecoveryError) as error:
                self.complain(f"it does not start again: {error}")
            except Exception as error:  # whatever the exchange did not expect is a finding
                self.complain(f"it failed: {type(error).__name__}: {error}")
        if not self.problems:
            try:
                check(self)
            except Exception as error:
                self.complain(f"{type(error).__name__}: {error}")
        return self.problems

    @contextlib.contextmanager
    def _installed(self) -> Iterator[None]:
        """The world in place of the real one."""
        gateways = partial(Gateway, wall_ns=self.clock, challenge=lambda: "c" * 64)
        logs = partial(wellhead.exchange.FileLog, segment_bytes=SEGMENT_BYTES)
        quick_starts()
        files = Files(self.disk)
        with contextlib.ExitStack() as stack:
            stack.callback(files.unregister)
            stack.enter_context(quiet_logs())
            for target, name, value in (
                (engine.log, "os", self.disk), (engine.snapshot, "os", self.disk), (gateway.history, "os", self.disk),
                (settlement.database, "sqlite3", Module(files)),
                (sys, "excepthook", lambda *_: None),  # where SQLite has no way to hand on that the exchange has died
                (wellhead.exchange, "FileLog", logs), (wellhead.exchange, "ThreadPoolExecutor", Inline),
                (wellhead.node, "Gateway", gateways),
                (wellhead.node, "ThreadPoolExecutor", Inline), (wellhead.papers, "ThreadPoolExecutor", Inline),
                (wellhead.custody, "ThreadPoolExecutor", Inline), (wellhead.custody.log, "exception", self._unexpected),
                (wellhead.services, "ThreadPoolExecutor", Inline), (gateway.server, "serve", serve),
                (gateway.pages, "StaticFiles", pages), (gateway.memory, "compiled", _remembered(gateway.memory.compiled)),
                (SqliteLedger, "apply", _interruptible(SqliteLedger.apply, self.disk)),
                # Sets of sessions are walked in the order of their hashes, which must not be their addresses.
                (Session, "__hash__", lambda session: int(session.ip.replace(".", ""))),
            ):  # fmt: skip
                stack.enter_context(patch.object(target, name, value))
            stack.enter_context(self._plant())
            yield

    def _life(self, in_peace: bool) -> None:
        self.lives += 1
        self.disk.start()
        how = "stop"
        if not in_peace:
            how = self.rng.choices(("kill", "cut", "stop", "full", "failing"), (5, 5, 1, 1, 1))[0]
        ahead = self.disk.moments + int(self.rng.expovariate(1 / 400)) + 1
        if how in ("kill", "cut"):
            self.disk.dies_at = ahead
            self.disk.dies_in = self.rng.choice(
                (
                    "",
                    "write",
                    "sync",
                    "page",
                    "page sync",
                    "send",
                    "job",
                    *("node", "broadcast") * (self.money is not None),
                )
            )
        elif how == "full":
            self.disk.full_at = ahead
        elif how == "failing":
            self.disk.fails_at = ahead
        self._loop = SimLoop(self._now_ns, random.Random(f"{self.seed} loop {self.lives}"), self.disk)
        try:
            self._loop.run_until_complete(self._live(in_peace))
        except Killed:
            pass
        except LogError:
            if how not in ("full", "failing"):
                raise
        except OSError:
            if how != "full":
                raise
        except sqlite3.OperationalError:
            if how not in ("full", "failing"):
                raise
        finally:
            self.kills += how in ("kill", "cut")
            self._bury()
        if how == "cut":
            self.disk.cut_power()
        self._now_ns += self.rng.randrange(60 * NS)

    async def _live(self, in_peace: bool) -> None:
        node = self.node = Node(self.config, CATALOGUE, self.clock)
        await node.start()
        if self.money is not None:
            await self.money.start(node, in_peace)
        failed = asyncio.ensure_future(node.failed())
        over = asyncio.ensure_future(self._settle() if in_peace else self._trade())
        await asyncio.wait([failed, over], return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            over.cancel()
        else:
            over.result()
        for client in self.clients:
            client.hang_up()
        if self.money is not None:
            self.signed = self.money.signed()
            await self.money.stop()
        await node.stop()
        if in_peace:
            self.final = node.exchange.engine.to_bytes()
            # Not before: orders of connections that are gone are cancelled until the end.
            self.past = {number: past_of(node.gateway, number) for number in node.gateway.projection.accounts}

    async def _trade(self) -> None:
        """Until the actions are done, or long enough for a clean stop."""
        lasts = self.actions + self.rng.randrange(20, 300)
        while self.actions < min(self._wanted, lasts):
            await asyncio.sleep(self.rng.expovariate(len(self.clients) / PAUSE_S))
            self.actions += 1
            self.rng.choice(self.clients).act()
            if self.rng.random() < 0.02:
                self._happen()

    def _happen(self) -> None:
        """What only the world does: time jumps, hours pass, an operator moves money."""
        if self.rng.random() < 0.6:
            self._skew_ns += self.rng.choice((-3 * NS, 60 * NS, 1_200 * NS, 1_800 * NS))
            return
        assert self.node is not None
        command = np.zeros(1, TRANSFER)
        if self.money is not None:
            command["kind"] = Kind.CLOSE_CYCLE
            self.node.submit(command.view(wellhead.node.COMMAND))
            return
        command["kind"] = self.rng.choice((Kind.DEPOSIT, Kind.WITHDRAW))
        command["account"], command["amount_micros"] = self.rng.randint(1, 4), self.rng.randint(1, 10**9)
        self.node.submit(command.view(wellhead.node.COMMAND))

    async def _settle(self) -> None:
        """Until nobody is in doubt about anything."""
        for _ in range(2_000):
            await asyncio.sleep(PAUSE_S)
            if all([client.finish() for client in self.clients]) and self._is_quiet():
                return
        self.complain("not all that was asked is answered in the end")

    def _is_quiet(self) -> bool:
        """Whether all money is where it should be; until then time runs faster."""
        if self.money is None or self.money.is_quiet():
            return True
        self._skew_ns += NS // 20
        return False

    def _unexpected(self, *_: Any) -> None:
        """Custody goes on after whatever it did not expect; here it is a finding."""
        error, troubled = sys.exception(), self.disk.full_at or self.disk.fails_at
        if not isinstance(error, LogError | OSError) and not (troubled and isinstance(error, sqlite3.OperationalError)):
            # Those end the node too.
            self.complain(f"custody: {sys.exception()!r}")

    def _bury(self) -> None:
        """What is left of a life."""
        loop, node = self._loop, self.node
        assert loop is not None
        self._now_ns = loop.now_ns
        self.steps += loop.steps
        self._loop = self.node = None
        self.disk.dead = True
        for client in self.clients:
            client.lost()
        if node is not None:
            while hasattr(node, "_book_jobs") and not node._book_jobs.empty():
                node._book_jobs.get_nowait()
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                task.get_coro().close()  # type: ignore[union-attr]
        if self.money is not None:
            self.money.bury()
        if node is not None:
            with contextlib.suppress(Killed):
                node.exchange.close()
        self.disk.release()
        loop.close()


def _interruptible(apply: Callable[..., int], disk: Disk) -> Callable[..., int]:
    def interrupted(*args: Any) -> int:
        written = apply(*args)
        disk.moment()  # inside the books' transaction
        return written

    return interrupted


_ANSWERS: dict[str, Any] = {}


def _remembered(compiled: Callable[[Phrases], Any]) -> Callable[[Phrases], Any]:
    """What is compiled from the phrases, which are the same in every life."""

    def known(phrases: Phrases) -> Any:
        if not _ANSWERS:
            _ANSWERS.update(compiled(phrases))
        return _ANSWERS

    return known


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A directory for one world, in memory where there is a place for that."""
    path = Path(tempfile.mkdtemp(prefix="wellhead-sim-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
