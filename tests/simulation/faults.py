"""Known faults, planted into the running code, never into its source: does the simulation find each, and how soon?

Each is a function that gives the patches to apply while the exchange lives; the checks afterwards run without them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import engine.log
import settlement.service
from engine.engine import Engine
from engine.log import FileLog
from engine.snapshot import Snapshot
from engine.types import EventKind
from gateway.gateway import Gateway
from gateway.order_entry import OrderEntry
from gateway.private import PrivateStreams, Stream
from settlement.ledger import Code
from settlement.service import Settlement
from tests.simulation.disk import Disk
from tests.simulation.world import World, folder
from wellhead.exchange import Exchange
from wellhead.node import Node

Patches = AbstractContextManager[Any]
Plant = Callable[[], Patches]
FAULTS: dict[str, Plant] = {}


def fault(name: str) -> Callable[[Plant], Plant]:
    """Enter a fault under a name."""

    def enter(plant: Plant) -> Plant:
        FAULTS[name] = plant
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
    return after(Gateway, "open", lambda self, _: self.projection.order_by_cid.clear())


@fault("a snapshot of the gateway misses a batch")
def stale_snapshot() -> Patches:
    real = Node._step

    async def step(self: Node, commands: Any) -> None:
        before = self.gateway.snapshot()
        with patch.object(self.gateway, "snapshot", lambda: before):
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
    real_latest, real_parts = Snapshot.latest, Node._snapshot_parts

    def parts(self: Node) -> Any:
        made = real_parts(self)
        self.exchange.write_snapshot(*made)
        return made

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Snapshot, "latest", lambda directory, max_seq=None: real_latest(directory)))
    stack.enter_context(patch.object(Node, "_snapshot_parts", parts))
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
    real = OrderEntry.place

    def place(self: OrderEntry, ask: Any, request: Any) -> None:
        with patch.object(self, "_pending_cids", {}):
            real(self, ask, request)
        if request.cid is not None:
            self._pending_cids[ask.account, request.cid] = next(reversed(self._pending.values()))

    return patch.object(OrderEntry, "place", place)


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
    return after(Stream, "since", lambda self, missed: missed[1:] if missed else missed)


@fault("a resumed stream begins one event early")
def resume_early() -> Patches:
    real = Stream.since
    return patch.object(Stream, "since", lambda self, first: real(self, max(1, first - 1)))


# --- The hunt ---------------------------------------------------------------------------------------------------------


def seeds_to_catch(plant: Plant, seeds: int, actions: int) -> tuple[int, str]:
    """How many seeds it takes, and what was seen; 0 where none of them shows it."""
    for seed in range(1, seeds + 1):
        with folder() as path:
            problems = World(seed, actions, path, plant).run()
        if problems:
            return seed, problems[0]
    return 0, "not found"


def hunt(seeds: int, actions: int) -> int:
    """Plant every fault; an exit code."""
    begun, found = time.perf_counter(), {}
    for name, plant in FAULTS.items():
        found[name], problem = seeds_to_catch(plant, seeds, actions)
        print(f"{found[name] or '-':>3}  {name}\n     {problem[:150]}", flush=True)
    caught = [count for count in found.values() if count]
    print(
        f"caught {len(caught)} of {len(found)} planted faults; seeds needed: {sorted(caught)};"
        f" {time.perf_counter() - begun:.0f} s"
    )
    return int(len(caught) < len(found))
