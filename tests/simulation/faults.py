"""Known faults, planted into the running code, never into its source: does the simulation find each, and how soon?

Each is a function that gives the patches to apply while the exchange lives; the checks afterwards run without them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

import engine.log
import gateway.history
import settlement.service
from engine.engine import Engine
from engine.log import FileLog
from engine.snapshot import Snapshot
from engine.types import EventKind
from gateway.gateway import Gateway
from gateway.history import History
from gateway.private import PrivateStreams, Stream
from settlement.database import Database
from settlement.ledger import Code
from settlement.service import DATABASE_NAME, OUTBOX_NAME, Settlement
from tests.simulation.disk import Disk
from tests.simulation.world import CHAIN_EVERY, World, folder
from wellhead.exchange import Exchange
from wellhead.node import Node

Patches = AbstractContextManager[Any]
Plant = Callable[[], Patches]
FAULTS: dict[str, Plant] = {}
ON_CHAIN: set[str] = set()


def fault(name: str, on_chain: bool = False) -> Callable[[Plant], Plant]:
    """Enter a fault under a name; `on_chain` is looked for in the seeds with a chain only."""

    def enter(plant: Plant) -> Plant:
        FAULTS[name] = plant
        if on_chain:
            ON_CHAIN.add(name)
        return plant

    return enter


def after(owner: type, method: str, then: Callable[..., Any]) -> Patches:
    """Let a method be followed by `then(self, result)`, whose result is the method's."""
    real = getattr(owner, method)

    def faulty(self: Any, *args: Any, **named: Any) -> Any:
        return then(self, real(self, *args, **named))

    return patch.object(owner, method, faulty)


# --- The log ----------------------------------------------------------------------------------------------------------


@fault("the log is not forced to the disk")
def skip_the_sync() -> Patches:
    return patch.object(FileLog, "_fdatasync", lambda self, fd: None)


@fault("the mark is written before the log is forced")
def mark_first() -> Patches:
    real = FileLog._flush

    def flush(self: FileLog) -> None:
        if self._head.seq != self._durable_seq:
            self._write_mark(self._head)
        real(self)

    return patch.object(FileLog, "_flush", flush)


@fault("new names are not forced to the disk")
def skip_the_directory() -> Patches:
    return patch.object(engine.log, "fsync_directory", lambda directory: None)


@fault("a torn tail is not cut")
def leave_the_tail() -> Patches:
    return patch.object(Disk, "ftruncate", lambda self, fd, length: None)


# --- Databases and history --------------------------------------------------------------------------------------------


def force_less(how: str, names: tuple[str, ...]) -> Patches:
    def loosen(self: Database, _: None) -> None:
        if self.path is not None and self.path.name in names:
            self.execute(f"PRAGMA synchronous = {how}")

    return after(Database, "__init__", loosen)


@fault("the books' file is not forced")
def skip_the_books_sync() -> Patches:
    return force_less("OFF", (DATABASE_NAME,))


@fault("what is signed for a chain is forced only now and then", on_chain=True)
def sync_the_outbox_late() -> Patches:
    return force_less("OFF", (OUTBOX_NAME,))


@fault("history is not forced before a snapshot that counts on it")
def skip_the_history_sync() -> Patches:
    return patch.object(History, "sync", lambda self: None)


@fault("the names of history's files are not forced")
def skip_the_history_names() -> Patches:
    return patch.object(gateway.history, "fsync_directory", lambda directory: None)


# --- The order of a step ----------------------------------------------------------------------------------------------


def step_in_another_order(*, append_first: bool) -> Patches:
    real = Node._step

    async def step(self: Node, commands: Any) -> None:
        log, apply = self.exchange.log, self.exchange.engine.apply
        if append_first:
            log.append(commands)
        else:
            commands["seq"] = range(log.head_seq + 1, log.head_seq + 1 + len(commands))
        events = apply(commands).copy()
        self.gateway.on_batch(commands, events)
        with (
            patch.object(self.gateway, "on_batch"),
            patch.object(self.exchange.engine, "apply", lambda _: events),
            patch.object(log, "append", log.append if not append_first else lambda _: 0),
        ):
            await real(self, commands)

    return patch.object(Node, "_step", step)


@fault("answers leave before the log is forced")
def acknowledge_before_the_sync() -> Patches:
    return step_in_another_order(append_first=True)


@fault("answers leave before the log is written")
def acknowledge_before_the_append() -> Patches:
    return step_in_another_order(append_first=False)


# --- Recovery ---------------------------------------------------------------------------------------------------------


@fault("recovery leaves out the last frame")
def drop_the_last() -> Patches:
    def without_last(_: FileLog, parts: Iterator[Any]) -> Iterator[Any]:
        found = list(parts)
        return iter([*found[:-1], found[-1][:-1]] if found else [])

    return after(FileLog, "read", without_last)


@fault("recovery gives the gateway the last command twice")
def repeat_the_last() -> Patches:
    real = Exchange.recover

    def recover(self: Exchange, follower: Any = None, progress: Any = None) -> int:
        last: list[Any] = []
        if follower is not None:
            tell = follower.on_batch
            with patch.object(follower, "on_batch", lambda *batch: (last.append(_copies(batch)), tell(*batch))):
                count = real(self, follower, progress)
            if last:
                commands, events = last[-1]
                tell(commands[-1:], events[events["command_seq"] == commands["seq"][-1]])
            return count
        return real(self, follower, progress)

    return patch.object(Exchange, "recover", recover)


def _copies(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part.copy() for part in batch)


@fault("the client ids are forgotten at a restart")
def forget_the_cids() -> Patches:
    return after(Gateway, "open", lambda self, _: self.tables._arrays["cid_hash"].fill(0))


@fault("a snapshot of the gateway misses a batch")
def stale_snapshot() -> Patches:
    real = Node._step

    async def step(self: Node, commands: Any) -> None:
        before = self.gateway.snapshot()
        with patch.object(self.gateway, "capture", lambda: lambda: before):
            await real(self, commands)

    return patch.object(Node, "_step", step)


@fault("a snapshot of the engine misses a command")
def snapshot_of_another_seq() -> Patches:
    real = Node._step

    async def step(self: Node, commands: Any) -> None:
        before = self.exchange.engine.to_bytes()
        with patch.object(self.exchange.engine, "to_bytes", lambda: before):
            await real(self, commands)

    return patch.object(Node, "_step", step)


@fault("a snapshot is taken that is ahead of the books")
def snapshot_ahead_of_the_books() -> Patches:
    real_latest, real_begin = Snapshot.latest, Node._begin_snapshot

    def begin(self: Node) -> Any:
        made = real_begin(self)
        made.finish()
        return made

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Snapshot, "latest", lambda directory, max_seq=None: real_latest(directory)))
    stack.enter_context(patch.object(Node, "_begin_snapshot", begin))
    return stack


# --- The engine and the books -----------------------------------------------------------------------------------------


@fault("a cancelled order gives back a micro too much")
def wrong_release() -> Patches:
    def too_much(self: Engine, events: Any) -> Any:
        for event in events[events["kind"] == EventKind.CANCELED]:
            self.memory.arrays["accounts"]["cash_micros"][event["account"]] += 1
        return events

    return after(Engine, "apply", too_much)


def change_postings(code: Code, change: int) -> Patches:
    real = settlement.service.post

    def post(*args: Any) -> Any:
        posting = real(*args)
        rows = posting.transfers["code"] == code
        posting.transfers["amount_micros"][rows & (posting.transfers["amount_micros"] > 1)] += change
        return posting

    return patch.object(settlement.service, "post", post)


@fault("the books release a micro too little of a hold")
def wrong_release_in_the_books() -> Patches:
    return change_postings(Code.RELEASE, -1)


@fault("the books take a micro too little of a fee")
def wrong_fee_in_the_books() -> Patches:
    return change_postings(Code.TAKER_FEE, -1)


@fault("the books take in their last commands twice")
def books_apply_twice() -> Patches:
    def fall_back(self: Settlement, _: None) -> None:
        self._applied_seq = max(0, self._applied_seq - 20)

    return after(Settlement, "__init__", fall_back)


@fault("the books miss a batch")
def books_miss_a_batch() -> Patches:
    real, calls = Settlement._apply, [0]

    def apply(self: Settlement, commands: Any, events: Any) -> None:
        calls[0] += 1
        real(self, commands, events[:0] if calls[0] % 7 == 0 else events)

    return patch.object(Settlement, "_apply", apply)


# --- The gateway ------------------------------------------------------------------------------------------------------


@fault("an order that is on its way may be sent again")
def forget_what_is_pending() -> Patches:
    real = Gateway.receive_many

    def receive(self: Gateway, *args: Any) -> None:
        first, pendings = self.tables._arrays["pending_hash"], self.tables._arrays["pendings"]
        before = first.copy()
        first.fill(0)
        real(self, *args)
        # Whoever ends is looked for in its chain, so the new ones are put before the old ones.
        for bucket in np.flatnonzero(before).tolist():
            at = int(first[bucket])
            while at and pendings[at - 1]["next_cid"]:
                at = int(pendings[at - 1]["next_cid"])
            if at:
                pendings[at - 1]["next_cid"] = before[bucket]
            else:
                first[bucket] = before[bucket]

    return patch.object(Gateway, "receive_many", receive)


@fault("a private event is not sent")
def lose_a_private_event() -> Patches:
    real, calls = Gateway._tell, [0]

    def tell(self: Gateway, account: int, message: Any) -> None:
        calls[0] += 1
        if calls[0] % 50:
            real(self, account, message)

    return patch.object(Gateway, "_tell", tell)


@fault("a private event is not numbered")
def swallow_a_private_event() -> Patches:
    real, calls = PrivateStreams._emit, [0]

    def emit(self: PrivateStreams, account: int, event: Any) -> None:
        calls[0] += 1
        if calls[0] % 50:
            real(self, account, event)

    return patch.object(PrivateStreams, "_emit", emit)


@fault("a resumed stream begins one event late")
def resume_late() -> Patches:
    return after(Stream, "encoded_since", lambda self, missed: missed[1:] if missed else missed)


@fault("a resumed stream begins one event early")
def resume_early() -> Patches:
    real = Stream.encoded_since
    return patch.object(Stream, "encoded_since", lambda self, first, wire: real(self, max(1, first - 1), wire))


# --- The hunt ---------------------------------------------------------------------------------------------------------


def seeds_to_catch(name: str, seeds: int, actions: int) -> tuple[int, int, str]:
    """How many seeds it takes, which one shows it, and what was seen; zeros where none of them does."""
    every, seen = CHAIN_EVERY if name in ON_CHAIN else 1, "not found"
    for tried in range(1, seeds + 1):
        with folder() as path:
            problems = World(tried * every, actions, path, FAULTS[name]).run()
        if problems and any(word in problems[0] for word in BROKEN):
            seen = f"the plant itself fails: {problems[0]}"
        elif problems:
            return tried, tried * every, problems[0]
    return 0, 0, seen


BROKEN = ("AttributeError", "TypeError", "NameError", "INTERNAL")
"""What a fault says that no longer fits the code. It would be found, and prove nothing. (Torn pages may say it too.)"""


def hunt(seeds: int, actions: int, jobs: int = 1) -> int:
    """Plant every fault; an exit code."""
    begun, needed = time.perf_counter(), []
    look = partial(seeds_to_catch, seeds=seeds, actions=actions)
    with ProcessPoolExecutor(jobs) as pool:
        for name, (tried, seed, problem) in zip(FAULTS, pool.map(look, FAULTS), strict=True):
            needed += [tried] if tried else []
            print(f"{tried or '-':>3}  {name}{f' (seed {seed})' if seed else ''}\n     {problem[:150]}", flush=True)
    print(
        f"caught {len(needed)} of {len(FAULTS)} planted faults; seeds needed: {sorted(needed)};"
        f" {time.perf_counter() - begun:.0f} s"
    )
    return int(len(needed) < len(FAULTS))
