"""The node: one loop that turns what arrives into log frames, and durable frames into answers.

    submit -> pending -> [log frame, fdatasync] -> engine -> gateway (answers, market data) -> books (own process)

One frame is on its way at a time; what arrives while the disk works makes the next one, so the busier it is, the larger
the frames: group commit. An answer leaves only after its command is durable. The books run behind in a process of
their own, in log order, through a bounded queue: when it is full, the market waits.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import NS, Catalogue, pack_id, unpack_id
from engine.records import copied, joined
from engine.snapshot import SnapshotError
from engine.types import COMMAND, EVENT, LISTING, TRANSFER, EventKind, Kind
from gateway.auth import KeyStore
from gateway.gateway import Gateway
from gateway.history import History
from gateway.server import Server
from gateway.tls import Tls
from settlement.indices import Published
from settlement.process import SettlementProcess
from settlement.service import Books, Settlement
from wellhead.additions import Additions, load_catalogue
from wellhead.calendar import Calendar, ReferencePrice
from wellhead.clock import Clock, real_clock
from wellhead.config import Config
from wellhead.exchange import Exchange, Progress
from wellhead.index_feed import REMEMBERED_S, IndexFeed, shown
from wellhead.papers import News, PaperRoom
from wellhead.services import MetersOffice
from wellhead.snapshots import Copied, Forked, Underway
from wellhead.timers import Timers

log = logging.getLogger(__name__)


Observer = Callable[[NDArray[np.void], NDArray[np.void]], None]
"""Called with each batch of commands and events that was applied, on the loop's thread; it must neither keep nor change them."""


MAX_JOINED_BATCHES = 512
SETTLED_KINDS = frozenset((EventKind.CLOSED, EventKind.DELIVERED, EventKind.CYCLE_CLOSED))


class BookJob(NamedTuple):
    """A batch for the books, and the snapshot to write behind it."""

    commands: NDArray[np.void]
    events: NDArray[np.void]
    snapshot: Underway | None


@dataclass
class Waiting:
    """An `execute` that waits: how many of its commands are still under way, and the events of those that are not."""

    remaining: int
    done: asyncio.Future[NDArray[np.void]]
    parts: list[NDArray[np.void]] = field(default_factory=list)


def check_listings(commands: NDArray[np.void]) -> None:
    """Raises ValueError for a listing whose tick is none, or does not make its lot's tick.

    The engine reckons with the lot's tick alone; everybody else shows prices by the other.
    """
    listings = commands[commands["kind"] == Kind.LIST].view(LISTING)
    for row in listings:
        tick, lot_tick = int(row["tick_micros"]), int(row["lot_tick_micros"])
        if tick < 1 or lot_tick != tick * int(row["gpus_per_lot"]) * int(row["hours"]):
            raise ValueError(f"listing of {unpack_id(row['symbol'])}: tick_micros {tick}, lot_tick_micros {lot_tick}")


class Node:
    """An exchange that runs. Make it, `await start()`, and `await stop()`; `await failed()` to learn of a failure."""

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue | None = None,
        clock: Clock = real_clock,
        reference_price: ReferencePrice = lambda contract: None,
        progress: Progress | None = None,
    ) -> None:
        """Open the data directory and recover. Blocks; raises LogError, LogDamaged, RecoveryError."""
        self.config = config
        self.catalogue = catalogue or load_catalogue(config.data_dir)
        self._additions = Additions(self.catalogue, config.data_dir)
        self._clock = clock
        books = SettlementProcess if config.books_process else Settlement
        self.exchange = Exchange.open(config, self.catalogue, books)
        self.papers = PaperRoom(config.settlement_dir, self.catalogue)
        self.gateway = Gateway(
            config.gateway, self.catalogue, KeyStore(config.keys_path), self.submit, self.now_ns, papers=self.papers,
            history=History(config.gateway.history_rows, config.data_dir / "history"),
        )  # fmt: skip
        try:
            self.replayed = self.exchange.recover(self.gateway, progress)
        except BaseException:
            self.exchange.close()
            raise
        self.calendar = Calendar(
            self.exchange.engine, self.catalogue, config.markets, config.list_hours, reference_price,
            cycle_ns=self.exchange.settlement.cycle_began_ns(),
        )  # fmt: skip
        self._meters = self.gateway.operations.meters = MetersOffice(self.exchange.settlement, self.now_ns)
        self.books = Books(config.settlement_dir, self.catalogue, read_only=True)  # to look at; another one writes them
        self._index_feed = IndexFeed(self.books.indices)
        self.gateway.channels.indices.publish(shown(self._index_feed.standing()))
        self.calendar.know(self._index_feed.since(self.now_ns() // NS - REMEMBERED_S))
        tls = Tls(config.tls_cert, config.tls_key) if config.tls_cert and config.tls_key else None
        self.server = Server(self.gateway, config.host, config.port, tls)
        self.timers = Timers(self.exchange.engine)
        self.observers: list[Observer] = [self.timers.on_batch]
        self._pending: deque[NDArray[np.void]] = deque()
        self._waiting: dict[int, Waiting] = {}
        self._last_ref = 0
        self._snapshot_seq = self.exchange.engine.applied_seq
        self._underway: Underway | None = None
        self._finishing: asyncio.Future[None] | None = None  # the one that is under way, once the books are as far
        self._sync_thread = ThreadPoolExecutor(1, "log-sync")
        self._books_thread = ThreadPoolExecutor(1, "books")
        self._snapshot_thread = ThreadPoolExecutor(1, "snapshot")
        self._office_thread = ThreadPoolExecutor(1, "office")
        self._news = News(self.books, self.catalogue)

    def now_ns(self) -> int:
        """The market's time: the clock, but never before what the log already says."""
        return max(self._clock(), self.exchange.engine.now_ns)

    async def start(self) -> None:
        """List what is due, open the port, and run."""
        self._loop = asyncio.get_running_loop()
        self._idle: asyncio.Future[None] | None = None  # what the committer waits for when nothing is pending
        self._closing, self._draining = asyncio.Event(), asyncio.Event()
        self._book_jobs: asyncio.Queue[BookJob | None] = asyncio.Queue(self.config.settlement_queue_batches)
        self._committer = asyncio.create_task(self._commit(), name="commit")
        self._bookkeeper = asyncio.create_task(self._keep_books(), name="books")
        await self._look_at_time()
        self._timekeeper = asyncio.create_task(self._keep_time(), name="time")
        await self.server.start()

    async def stop(self) -> None:
        """Tell the clients, finish what was taken in, store a snapshot, and let go of the directory.

        Raises what ended the node, if it had failed.
        """
        self.gateway.shutdown()
        self._closing.set()
        await asyncio.wait([self._timekeeper])
        self._draining.set()
        self._wake()
        await asyncio.wait([self._committer, self._bookkeeper])
        if self._finishing is not None:
            await asyncio.wait([self._finishing])
        await self.server.stop()
        try:
            for task in (self._committer, self._bookkeeper, self._timekeeper):
                task.result()
            self._copied().finish()
        finally:
            self._sync_thread.shutdown()
            self._books_thread.shutdown()
            self._snapshot_thread.shutdown()
            if self._underway is not None:
                self._underway.abandon()
            self._office_thread.shutdown()
            self.books.close()
            self.papers.close()
            await self._meters.close()
            self.exchange.close()

    async def failed(self) -> None:
        """Wait for a failure, and return; `stop` raises it."""
        await asyncio.wait([self._committer, self._bookkeeper, self._timekeeper], return_when=asyncio.FIRST_COMPLETED)

    def submit(self, commands: NDArray[np.void]) -> None:
        """Take commands in, in order. The node owns the array from now on. On the loop's thread."""
        self._pending.append(commands)
        self._wake()

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def execute(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        """Submit commands and return their events (EVENT) once they are durable and applied.

        Raises ValueError for a listing whose terms contradict each other; then nothing is submitted.
        """
        if not len(commands):
            return np.zeros(0, EVENT)
        check_listings(commands)
        commands = copied(commands).view(COMMAND)  # whatever body they have
        self._last_ref -= 1  # negative, so that a gateway's numbers are never met
        commands["ref"] = self._last_ref
        waiting = Waiting(len(commands), asyncio.get_running_loop().create_future())
        self._waiting[self._last_ref] = waiting
        self.submit(commands)
        return await waiting.done

    async def _commit(self) -> None:
        try:
            while self._pending or not self._draining.is_set():
                if not self._pending:
                    # A bare future: an asyncio.Event asks the system for the process's number each time it is waited for.
                    self._idle = self._loop.create_future()
                    await self._idle
                commands = self._take()
                if len(commands):
                    await self._step(commands)
        except BaseException as error:
            for waiting in self._waiting.values():
                waiting.done.set_exception(error)
            raise
        finally:
            await self._book_jobs.put(None)

    def _take(self) -> NDArray[np.void]:
        """What is pending, up to a frame's worth, in one array that is stamped with the time.

        Before it comes what is due by then: no order trades after its date because nobody looked at the clock.
        """
        now_ns = self.now_ns()
        due = self.timers.due(now_ns, self.config.max_frame_commands)
        taken, count = [due] if len(due) else [], len(due)
        while self._pending and count < self.config.max_frame_commands:
            part = self._pending.popleft()
            room = self.config.max_frame_commands - count
            if len(part) > room:
                self._pending.appendleft(part[room:])
                part = part[:room]
            taken.append(part)
            count += len(part)
        commands = taken[0] if len(taken) == 1 else joined(taken, COMMAND)
        commands["ts_ns"] = now_ns
        return commands

    async def _step(self, commands: NDArray[np.void]) -> None:
        exchange = self.exchange
        exchange.log.append(commands)
        if self.config.durable:
            await self._loop.run_in_executor(self._sync_thread, exchange.log.sync)
        else:
            exchange.log.sync()
        events = copied(exchange.engine.apply(commands))
        self.gateway.on_batch(commands, events)
        self._answer(commands, events)
        for observe in self.observers:
            observe(commands, events)
        if self.config.paper_micros:
            self._give_paper(commands, events)
        is_due = exchange.engine.applied_seq - self._snapshot_seq >= self.config.snapshot_every_commands
        snapshot = self._begin_snapshot() if is_due and self._underway is None else None
        job = BookJob(commands, events, snapshot)
        if self._book_jobs.full():
            await self._book_jobs.put(job)
        else:
            self._book_jobs.put_nowait(job)

    def _answer(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        if not self._waiting:
            return
        for ref in np.unique(commands["ref"][commands["ref"] < 0]).tolist():
            waiting = self._waiting[ref]
            seqs = commands["seq"][commands["ref"] == ref]
            waiting.parts.append(events[np.isin(events["command_seq"], seqs)])
            waiting.remaining -= len(seqs)
            if waiting.remaining == 0:
                del self._waiting[ref]
                if not waiting.done.done():
                    waiting.done.set_result(joined(waiting.parts, EVENT))

    def _give_paper(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        # Only to those that a log-on opened (a gateway's refs are above zero), so that the operator's own stay his affair.
        opened = commands[(commands["kind"] == Kind.OPEN_ACCOUNT) & (commands["ref"] > 0)]
        opened = opened[np.isin(opened["seq"], events["command_seq"][events["kind"] == EventKind.ACCOUNT_OPENED])]
        if len(opened):
            deposits = np.zeros(len(opened), TRANSFER)
            deposits["kind"], deposits["account"] = Kind.DEPOSIT, opened["account"]
            deposits["amount_micros"] = self.config.paper_micros
            deposits["external_id"] = pack_id("paper")
            self.submit(deposits.view(COMMAND))

    async def _keep_books(self) -> None:
        try:
            await self._book()
        except Exception:
            # The market may wait for room in the queue, and could not end: what it still has for the books is in the log.
            self._dropping = asyncio.create_task(self._drop_jobs(), name="drop")
            raise

    async def _drop_jobs(self) -> None:
        while not self._committer.done():
            await self._book_jobs.get()

    async def _book(self) -> None:
        loop = asyncio.get_running_loop()
        open_ended = True
        await self._tell_news()
        while open_ended and (job := await self._book_jobs.get()):
            # One transaction for all batches that wait: the further behind the books, the cheaper each batch.
            await asyncio.sleep(self.config.books_pause_ms / 1000)
            jobs = [job]
            while not jobs[-1].snapshot and len(jobs) < MAX_JOINED_BATCHES and not self._book_jobs.empty():
                following = self._book_jobs.get_nowait()
                if following is None:
                    open_ended = False
                    break
                jobs.append(following)
            indices = await loop.run_in_executor(self._books_thread, self._post, jobs)
            if (snapshot := jobs[-1].snapshot) is not None:
                # Behind its batch: the books are now as far. They do not wait until it is written.
                self._finishing = loop.run_in_executor(self._snapshot_thread, self._finish_snapshot, snapshot)
            self.gateway.channels.indices.publish(shown(indices))
            self.calendar.know(indices)
            if not all(SETTLED_KINDS.isdisjoint(job.events["kind"].tobytes()) for job in jobs):
                await self._tell_news()

    async def _tell_news(self) -> None:
        """What is new in the books goes to the channels `batches` and `deliveries`."""
        batches, deliveries = await asyncio.get_running_loop().run_in_executor(self._books_thread, self._news.read)
        self.gateway.tell_settled(self.exchange.settlement.applied_seq, batches, deliveries)

    def _post(self, jobs: list[BookJob]) -> list[Published]:
        """Take batches into the books; the indices that they made."""
        self.exchange.settlement.on_batches([(job.commands, job.events) for job in jobs])
        return self._index_feed.of([(job.commands, job.events) for job in jobs])

    async def _keep_time(self) -> None:
        while not self._closing.is_set():
            await self._look_at_time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self.config.poll_ms / 1000)

    async def _look_at_time(self) -> None:
        now_ns = self.now_ns()
        if self._additions.look():
            self.calendar.look_again()
        await self.execute(self.timers.due(now_ns))
        await self.execute(self.calendar.due(now_ns))
        due = asyncio.get_running_loop().run_in_executor(self._office_thread, self.exchange.settlement.due, now_ns)
        await self.execute(await due)

    # --- Snapshots of the state between two batches: the log's head is then what the engine has applied -----------------

    def _begin_snapshot(self) -> Underway:
        self._snapshot_seq = self.exchange.engine.applied_seq
        self._underway = self._forked() if self.config.fork_snapshots else self._copied()
        return self._underway

    def _forked(self) -> Underway:
        exchange = self.exchange
        self.gateway.catch_up()
        try:
            return Forked(
                self.config.snapshot_dir, exchange.engine.applied_seq, exchange.log.chain,
                lambda: {"engine": exchange.engine.to_bytes(), "gateway": self.gateway.snapshot()},
            )  # fmt: skip
        except OSError as error:
            log.warning("no process for a snapshot: %s; the market waits while its state is copied", error)
            return self._copied()

    def _copied(self) -> Underway:
        exchange = self.exchange
        engine, gateway = exchange.engine.to_bytes(), self.gateway.capture()
        return Copied(
            self.config.snapshot_dir, exchange.engine.applied_seq, exchange.log.chain,
            lambda: {"engine": engine, "gateway": gateway()},
        )  # fmt: skip

    def _finish_snapshot(self, snapshot: Underway) -> None:
        """One that fails costs the next start time, and nothing else."""
        try:
            snapshot.finish()
        except (SnapshotError, OSError):
            log.exception("a snapshot failed; the next one is tried after as many commands")
        finally:
            self._underway = None
