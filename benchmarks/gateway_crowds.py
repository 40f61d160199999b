"""Many connections at once: what reaches subscribers, what a storm of reconnects takes, what an open connection costs."""

import asyncio
import json
import time
from typing import Any

import msgspec
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

from benchmarks.gateway_client import Peer, Target, ask, frame
from benchmarks.gateway_servers import ACCOUNTS, QUOTER

NS = 1_000_000_000
BURST = 16
"""Messages that `broadcast()` sends to all in a row, before the event loop gets its turn."""
LEVELS = 3
QUIET_S = 0.3


# --- Fan-out ----------------------------------------------------------------------------------------------------------


async def readers_of(target: Target, wire: str, count: int, channels: list[dict[str, Any]]) -> list[Peer]:
    """Connections that only count what comes."""
    readers = []
    for _ in range(count):
        reader = await target.connect(wire)
        if channels:
            await ask(reader, {"op": "subscribe", "id": 1, "channels": channels})
        readers.append(reader)
    await asyncio.sleep(QUIET_S)
    for reader in readers:
        reader.count_only, reader.received = True, 0
    return readers


async def until_quiet(readers: list[Peer]) -> int:
    """Wait until something has come, and then nothing for a while; when the last message came, in nanoseconds."""
    before, last_ns = 0, time.perf_counter_ns()
    while (now := sum(reader.received for reader in readers)) != before or not now:
        before, last_ns = now, time.perf_counter_ns()
        await asyncio.sleep(QUIET_S)
    return last_ns


def ladders(symbols: list[str], wire: str, number: int) -> dict[str, Any]:
    """A mass quote that moves the best bids of all symbols by a tick each time."""
    ticks = [500 - 2 * level + number % 2 for level in range(LEVELS)]
    bids = [[f"0.{tick:03}" if wire == "json" else tick * 1_000, 1 + number % 7] for tick in ticks]
    return {"op": "quote.mass", "id": number, "group": 1, "quotes": [{"sym": one, "b": bids} for one in symbols]}


async def fan_out(target: Target, wire: str, subscribers: int, seconds: float) -> dict[str, Any]:
    """One market maker quotes all books, many readers hold best prices and depths of all: what reaches them, a second."""
    channels = [{"name": name, "symbols": target.symbols} for name in ("l1", "l2")]
    readers = await readers_of(target, wire, subscribers, channels)
    maker = await target.connect(wire, f"bot{QUOTER}")
    start, cpu_s, sent = time.perf_counter_ns(), target.cpu_s(), 0
    while time.perf_counter_ns() - start < seconds * NS:
        await ask(maker, ladders(target.symbols, wire, sent))
        sent += 1
    taken_s = (await until_quiet(readers) - start) / NS
    used_s = target.cpu_s() - cpu_s
    quotes = sent * LEVELS * len(target.symbols)
    return counted(target, wire, readers, taken_s, used_s) | {"quotes_per_s": round(quotes / taken_s)}


async def broadcast_out(target: Target, subscribers: int, seconds: float, size: int) -> dict[str, Any]:
    """The same number of readers of the library's `broadcast()`, of messages as large as ours were."""
    readers = await readers_of(target, "json", subscribers, [])
    speaker = await target.connect("json")
    start, cpu_s = time.perf_counter_ns(), target.cpu_s()
    bursts = max(1, round(seconds * 200_000 / subscribers / BURST))
    wish = {"bursts": bursts, "burst": BURST, "bytes": size}
    speaker.transport.write(frame(json.dumps(wish).encode(), "json"))
    taken_s = (await until_quiet(readers) - start) / NS
    assert all(reader.received == bursts * BURST for reader in readers)
    return counted(target, "json", readers, taken_s, target.cpu_s() - cpu_s)


def counted(target: Target, wire: str, readers: list[Peer], taken_s: float, used_s: float) -> dict[str, Any]:
    delivered = sum(reader.received for reader in readers)
    row = {
        "server": target.kind, "wire": wire, "subscribers": len(readers), "deliveries_per_s": round(delivered / taken_s),
        "server_cpu_us_each": round(used_s * 1e6 / max(delivered, 1), 3),
        "fewest": min(reader.received for reader in readers), "most": max(reader.received for reader in readers),
    }  # fmt: skip
    target.drop()
    return row


# --- Reconnects -------------------------------------------------------------------------------------------------------


class Pushed(msgspec.Struct):
    """What is looked at of a private event."""

    aseq: int = 0
    ev: str = ""


class Follower:
    """A client that holds a private stream over several connections, and counts what is missing or came twice."""

    def __init__(self, target: Target, number: int, times: HdrHistogram) -> None:
        self.target, self.key, self.times = target, f"reader{number}", times
        self.peer: Peer | None = None
        self.aseq = -1  # of the last event; -1: no snapshot yet
        self.missing = self.doubled = self.snapshots = self.tries = 0

    def take(self, payload: bytes) -> None:
        """An event, or a snapshot."""
        event = msgspec.json.decode(payload, type=Pushed)
        if event.ev == "snapshot":
            self.snapshots += 1
        elif event.aseq > self.aseq + 1:
            self.missing += event.aseq - self.aseq - 1
        elif event.aseq <= self.aseq:
            self.doubled += 1
        self.aseq = event.aseq

    async def come(self, start_ns: int) -> None:
        """Connect until it is logged on and the stream goes on where it ended."""
        while True:
            self.tries += 1
            try:
                self.peer = await self.target.connect("json")
                self.peer.on_push = self.take
                await self._log_on(self.peer)
            except (OSError, TimeoutError):
                continue
            self.times.record_value(max(1, time.perf_counter_ns() - start_ns))
            return

    async def _log_on(self, peer: Peer) -> None:
        if self.aseq >= 0:
            await self.target.log_on(peer, self.key, resume_from=self.aseq + 1)
            return
        await self.target.log_on(peer, self.key)
        await ask(peer, {"op": "subscribe", "id": 1, "channels": [{"name": "private"}]})


async def trade(target: Target, stop: asyncio.Event, gap_s: float) -> None:
    """Each account sends an order now and then, so that its stream goes on while readers are away."""
    traders = [await target.connect("json", f"bot{number}") for number in range(ACCOUNTS)]
    number, run = 0, time.time_ns()
    while not stop.is_set():
        order = {"op": "order.place", "sym": target.symbols[0], "side": "buy", "qty": 1, "px": "2.000", "tif": "ioc"}
        await ask(traders[number % ACCOUNTS], {**order, "id": number, "cid": f"{run}-{number}"})
        number += 1
        await asyncio.sleep(gap_s)


async def storm(target: Target, clients: int, rounds: int) -> dict[str, Any]:
    """All connections are cut at once, and all come back at once, several times."""
    times = HdrHistogram(1, 600 * NS, 3)
    stop = asyncio.Event()
    followers = [Follower(target, number, HdrHistogram(1, 600 * NS, 3)) for number in range(clients)]
    first_ns = time.perf_counter_ns()
    await asyncio.gather(*[follower.come(first_ns) for follower in followers])
    trading = asyncio.create_task(trade(target, stop, 0.01))
    taken, cpu_s = [], 0.0
    for _ in range(rounds):
        await asyncio.sleep(0.5)
        start, before_s = time.perf_counter_ns(), target.cpu_s()
        for follower in followers:
            follower.times = times
            if follower.peer is not None:
                follower.peer.transport.abort()
        await asyncio.gather(*[follower.come(start) for follower in followers])
        taken.append((time.perf_counter_ns() - start) / NS)
        cpu_s += target.cpu_s() - before_s
    stop.set()
    await trading
    await asyncio.sleep(0.5)
    ends = [{one.aseq for one in followers[at::ACCOUNTS]} for at in range(ACCOUNTS)]
    behind = sum(len(end) > 1 for end in ends)
    target.drop()
    return {
        "server": target.kind, "clients": clients, "rounds": rounds, "all_up_s": round(sorted(taken)[rounds // 2], 3),
        **{f"p{at}_ms": round(times.get_value_at_percentile(at) / 1e6) for at in (50, 99)},
        "server_cpu_us_each": round(cpu_s * 1e6 / rounds / clients), "events": sum(max(end) for end in ends if end),
        "missing": sum(one.missing for one in followers), "doubled": sum(one.doubled for one in followers),
        "accounts_behind": behind, "snapshots": sum(one.snapshots - 1 for one in followers),
        "tries": sum(one.tries for one in followers) - clients * (rounds + 1),
    }  # fmt: skip


# --- Memory -----------------------------------------------------------------------------------------------------------


async def memory(target: Target, count: int) -> dict[str, Any]:
    """What a connection takes of the server's memory, the kernel's buffers aside: open, and logged on with two streams."""
    warm = [await target.connect("json") for _ in range(count // 4)]
    before = target.resident_bytes()
    for _ in range(count):
        await target.connect("json")
    row = {"server": target.kind, "connections": count, "idle_bytes_each": (target.resident_bytes() - before) // count}
    if target.is_node:
        before = target.resident_bytes()
        for number, peer in enumerate(target.peers[len(warm) :]):
            await target.log_on(peer, f"reader{number}")
            channels = [{"name": "l2", "symbols": target.symbols[:1]}, {"name": "private"}]
            await ask(peer, {"op": "subscribe", "id": 1, "channels": channels})
        row["logged_on_bytes_more"] = (target.resident_bytes() - before) // count
    target.drop()
    return row
