"""How fast the gateway is, beside what it could be at the most and what the plain library makes.

    python -m benchmarks.gateway [--brief] [--json] [--directory DIR] [--only PART]

Each server runs in a process of its own: a raw TCP echo under uvloop (the limit), the echo of the websockets library's
`serve()`, the echo of our connection class, and a real node (decode, checks, log, engine with clearing, reply, market data
to one subscriber of `l2` and `trades`, execution reports to each trader), with and without forcing the log to the disk. The load
comes from this process. All send the same order messages: half of them trade, a quarter rests, a quarter cancels.

No percentile leaves out what a stall kept from being sent (coordinated omission). `paced` and `paced 64` (one connection, and
64) send on a schedule, at half the rate of `64 connections`, and a time counts from when the message was due: `times` says
`scheduled`. The others are closed loops, which send only when an answer is there: each time that is longer than the usual
one (the row's median) counts with those that requests due meanwhile would have had, as HdrHistogram corrects it: `corrected`.
`raw p99 us` is without that. A time is of a request: of a whole batch where there is one.

Client and server share the machine: on few cores the load generator's own work is in every figure, and it, not the server,
is the limit of the two fastest echoes in `window 64`. The schedule is kept by the same event loop that reads the answers, so
a busy client adds to `paced`. The processor time of the server's process for each order (`cpu us`) depends least on who else
uses the machine; beside it are that of the books, which follow in a process of their own and may lag, and that of the load
itself (`load us`), which finds the answers in what it reads in compiled code.

Fan-out: a market maker moves the best levels of all books, all readers hold `l1` and `l2` of all; messages are counted where
they arrive, beside the library's `broadcast()` of messages of the same size to as many. Storm: readers of private streams are
all cut at once and come back at once, while their accounts trade; every stream must go on without a gap or a repeat.

Needs hdrhistogram.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from numpy.typing import NDArray

from benchmarks.gateway_client import FORMATS, Peer, Target, ask, frame
from benchmarks.gateway_crowds import broadcast_out, fan_out, memory, storm
from benchmarks.gateway_servers import ACCOUNTS, BROADCAST, DURABLE, MEMORY, OURS, PLAIN, QUOTER, TCP, started

NS = 1_000_000_000
CONNECTIONS, WINDOW, BATCH = ACCOUNTS, 64, 100
DEEP_WINDOW = 1_024
"""A client that does not wait: what a server makes of as much as it can get."""
CROWDS = (200, 1_000)
MESSAGE_BYTES = 180
"""Of a message to all: what `l1` and `l2` of a moved level come to."""
PARTS = ("rates", "fan_out", "storm", "memory")


# --- Load -------------------------------------------------------------------------------------------------------------


def requests(symbol: str, wire: str, tag: str) -> Iterator[dict[str, Any]]:
    """Orders without end: bid, take, cancel the bid, take."""
    low, high = ("1.000", "2.000") if wire == "json" else (1_000_000, 2_000_000)
    number = 0
    while True:
        cid = f"{tag}-{number:09}"
        yield {"op": "order.place", "sym": symbol, "side": "buy", "qty": 3, "px": low, "cid": cid}
        take = {"op": "order.place", "sym": symbol, "side": "buy", "qty": 1, "px": high, "tif": "ioc"}
        yield take | {"cid": cid + "t"}
        yield {"op": "order.cancel", "cid": cid}
        yield take | {"cid": cid + "u"}
        number += 1


def ladder(symbol: str, wire: str, number: int, levels: int) -> dict[str, Any]:
    """A mass quote of bids, of which every other level moves by a tick each time."""
    ticks = [500 - 2 * level + level * number % 2 for level in range(levels)]
    bids = [[f"0.{tick:03}" if wire == "json" else tick * 1_000, 1] for tick in ticks]
    return {"op": "quote.mass", "id": number, "group": 1, "quotes": [{"sym": symbol, "b": bids}]}


def frames(symbol: str, wire: str, tag: str, count: int, batch: int, quotes: bool = False) -> list[bytes]:
    source, encode = requests(symbol, wire, tag), FORMATS[wire].encode
    made = []
    for number in range(count):
        if quotes:
            message = ladder(symbol, wire, number, batch)
        elif batch == 1:
            message = {**next(source), "id": number}
        else:
            message = {"op": "order.batch", "id": number, "items": [next(source) for _ in range(batch)]}
        made.append(frame(encode(message), wire))
    return made


class Load:
    """Requests of one connection: a closed loop of `window`, or some of a schedule."""

    def __init__(self, peer: Peer, messages: list[bytes]) -> None:
        self.peer, self.messages = peer, messages
        self.sent, self.answered = 0, 0
        self.sent_ns, self.times_ns = np.zeros((2, len(messages)), np.int64)
        self.windowed = False
        self.done = asyncio.get_running_loop().create_future()
        peer.on_replies = self.answer

    def send(self, count: int) -> None:
        count = min(count, len(self.messages) - self.sent)
        self.sent_ns[self.sent : self.sent + count] = time.perf_counter_ns()
        self.peer.transport.write(b"".join(self.messages[self.sent : self.sent + count]))
        self.sent += count

    def answer(self, requests: NDArray[np.int64]) -> None:
        """These are answered; each of them is answered once."""
        self.times_ns[requests] = time.perf_counter_ns() - self.sent_ns[requests]
        self.answered += len(requests)
        if self.answered == len(self.messages):
            self.done.set_result(None)
        elif self.windowed:  # all that one read frees is sent in one write
            self.send(len(requests))

    async def closed_loop(self, window: int) -> None:
        self.windowed = True
        self.send(window)
        await asyncio.wait_for(self.done, 120)

    def send_due(self, due_ns: int) -> None:
        """Send the next one, which was due then; the event loop joins what is written in one turn."""
        self.sent_ns[self.sent] = due_ns
        self.peer.transport.write(self.messages[self.sent])
        self.sent += 1


async def paced(loads: list[Load], gap_ns: int) -> None:
    """Send all on one schedule, a request each `gap_ns`, by the connections in turn."""
    total, start = sum(len(load.messages) for load in loads), time.perf_counter_ns()
    sent = 0
    while sent < total:
        due = min(total, (time.perf_counter_ns() - start) // gap_ns)
        for number in range(sent, due):
            loads[number % len(loads)].send_due(start + number * gap_ns)
        sent = max(sent, due)
        await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.gather(*[load.done for load in loads]), 120)


def histogram(times_ns: list[int], expected_ns: int) -> HdrHistogram:
    """Times, with those that a closed loop did not measure while it waited longer than `expected_ns`; 0: just the times."""
    times = HdrHistogram(1, 60 * NS, 3)
    for one in times_ns:
        if expected_ns:
            times.record_corrected_value(max(1, one), expected_ns)
        else:
            times.record_value(max(1, one))
    return times


def spread(loads: list[Load], scheduled: bool) -> dict[str, Any]:
    """Percentiles of the times of all connections, in microseconds."""
    times_ns: list[int] = np.concatenate([load.times_ns for load in loads]).tolist()
    usual_ns = sorted(times_ns)[len(times_ns) // 2]
    times = histogram(times_ns, 0 if scheduled else max(1, usual_ns))
    found = {f"p{at}_us": round(times.get_value_at_percentile(at) / 1e3, 1) for at in (50, 99, 99.9)}
    raw = found["p99_us"] if scheduled else round(histogram(times_ns, 0).get_value_at_percentile(99) / 1e3, 1)
    return {"times": "scheduled" if scheduled else "corrected", **found, "raw_p99_us": raw}


async def measure(  # one row
    target: Target,
    wire: str,
    name: str,
    connections: int,
    window: int,
    count: int,
    batch: int = 1,
    gap_ns: int = 0,
    quotes: bool = False,
) -> dict[str, Any]:
    if target.is_node:
        watcher = await target.connect(wire, f"bot{CONNECTIONS}")
        channels = [{"name": name, "symbols": target.symbols[:1]} for name in ("l2", "trades")]
        await ask(watcher, {"op": "subscribe", "id": 1, "channels": [*channels, {"name": "private"}]})
        watcher.count_only = True
    run = time.time_ns()
    loads = []
    for bot in range(connections):
        messages = frames(target.symbols[0], wire, f"{run}-{bot}"[-20:], count // connections, batch, quotes)
        peer = await target.connect(wire, f"bot{QUOTER if quotes else bot}")
        if target.is_node:  # a trader reads its execution reports
            await ask(peer, {"op": "subscribe", "id": 1, "channels": [{"name": "private"}]})
        loads.append(Load(peer, messages))
    start, cpu_s, books_s = time.perf_counter_ns(), target.cpu_s(), target.books_cpu_s()
    own_s = time.process_time()
    if gap_ns:
        await paced(loads, gap_ns)
    else:
        await asyncio.gather(*[load.closed_loop(window) for load in loads])
    taken_s = (time.perf_counter_ns() - start) / NS
    used_s, booked_s, own_s = target.cpu_s() - cpu_s, target.books_cpu_s() - books_s, time.process_time() - own_s
    refused = sum(load.peer.refused for load in loads)
    target.drop()
    sent = sum(len(load.messages) for load in loads)
    row = {"server": target.kind, "wire": wire, "load": name, "messages": sent}
    row["cpu_us"] = round(used_s * 1e6 / sent / batch, 1)
    row["books_us"] = round(booked_s * 1e6 / sent / batch, 1)
    row["load_us"] = round(own_s * 1e6 / sent / batch, 1)
    return row | {"per_s": round(sent * batch / taken_s), **spread(loads, bool(gap_ns)), "refused": refused}


# --- The run ----------------------------------------------------------------------------------------------------------


async def rates(parent: Path, scale: int, kind: str) -> list[dict[str, Any]]:
    """What a server does with orders; `scale` is the number of requests of the slowest, ping."""
    rows = []
    with started(kind, parent) as target:
        for wire in FORMATS if target.is_node else ("json",):
            await measure(target, wire, "warm up", 1, WINDOW, 1_000)
            rows.append(await measure(target, wire, "ping", 1, 1, scale))
            rows.append(await measure(target, wire, "64 connections", CONNECTIONS, 1, 4 * scale))
            gap_ns = 2 * NS // rows[-1]["per_s"]
            for name, connections in (("paced", 1), ("paced 64", CONNECTIONS)):
                rows.append(await measure(target, wire, name, connections, 0, 2 * scale, gap_ns=gap_ns))
            for window in (WINDOW, DEEP_WINDOW):
                rows.append(await measure(target, wire, f"window {window:,}", 1, window, 16 * scale))
            if target.is_node:
                batches = max(100, 16 * scale // BATCH)
                rows.append(await measure(target, wire, "batches of 100", 1, 4, batches, batch=BATCH))
                rows.append(await measure(target, wire, "quotes by 100", 1, 4, batches, batch=BATCH, quotes=True))
    return rows


async def run(parent: Path, scale: int, parts: tuple[str, ...]) -> dict[str, Any]:
    """The parts that are asked for."""
    result: dict[str, Any] = {"conditions": conditions(parent, scale), **{part: [] for part in PARTS}}
    seconds = scale / 2_000
    if "rates" in parts:
        for kind in (TCP, PLAIN, OURS, MEMORY, DURABLE):
            result["rates"] += await rates(parent, scale, kind)
    if "fan_out" in parts:
        for kind in (BROADCAST, MEMORY):
            with started(kind, parent) as target:
                for subscribers in CROWDS:
                    if kind == BROADCAST:
                        result["fan_out"].append(await broadcast_out(target, subscribers, seconds, MESSAGE_BYTES))
                        continue
                    for wire in FORMATS:
                        result["fan_out"].append(await fan_out(target, wire, subscribers, seconds))
    if "storm" in parts:
        for clients in CROWDS:
            with started(MEMORY, parent, clients) as target:
                result["storm"].append(await storm(target, clients, 3))
    if "memory" in parts:
        for kind in (PLAIN, OURS, MEMORY):
            with started(kind, parent, CROWDS[-1]) as target:
                result["memory"].append(await memory(target, CROWDS[-1]))
    result["conditions"]["load at the end"] = round(os.getloadavg()[0], 2)
    return result


def conditions(parent: Path, scale: int) -> dict[str, Any]:
    """What a figure depends on beside the code; times and rates are from this machine at this load."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    packages = ("websockets", "uvloop", "msgspec", "numba", "numpy")
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "disk": file_system(parent),
        "load from": "one process on the same machine",
        "scale": scale,
    }


def file_system(directory: Path) -> str:
    """The kind of file system that the logs are written to."""
    here = directory.resolve()
    rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return max((row[1], row[2]) for row in rows if here.is_relative_to(row[1]))[1]


def show(result: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in result["conditions"].items()))
    if result["rates"]:
        head = f"{'orders/s':>10} {'cpu us':>7} {'books us':>8} {'load us':>7} times     "
        head += f"{'p50 us':>9} {'p99 us':>9} {'p99.9 us':>9} {'raw p99 us':>10} refused"
        print(f"\n{'server':<20} {'wire':<8} {'load':<15} {head}")
    for row in result["rates"]:
        times = " ".join(f"{row[name]:>9,.0f}" for name in ("p50_us", "p99_us", "p99.9_us"))
        times = f"{row['times']} {times} {row['raw_p99_us']:>10,.0f}"
        print(
            f"{row['server']:<20} {row['wire']:<8} {row['load']:<15} {row['per_s']:>10,} {row['cpu_us']:>7}"
            f" {row['books_us']:>8} {row['load_us']:>7} {times} {row['refused']:>7}"
        )
    for row in result["fan_out"]:
        quotes = f" at {row['quotes_per_s']:,} quotes/s" if "quotes_per_s" in row else ""
        print(
            f"fan-out, {row['server']}, {row['wire']}: {row['deliveries_per_s']:,} messages/s to {row['subscribers']:,}"
            f" readers{quotes}, {row['server_cpu_us_each']} us of the server's processor each;"
            f" a reader got {row['fewest']:,} to {row['most']:,}"
        )
    for row in result["storm"]:
        print(
            f"storm, {row['server']}: {row['clients']:,} come back in {row['all_up_s']} s (p50 {row['p50_ms']} ms, p99"
            f" {row['p99_ms']} ms), {row['server_cpu_us_each']:,} us of the server's processor each, {row['tries']} tries"
            f" more; of {row['events']:,} events {row['missing']} missing, {row['doubled']} doubled,"
            f" {row['accounts_behind']} accounts behind, {row['snapshots']} snapshots instead"
        )
    for row in result["memory"]:
        more = (
            f", logged on with two streams {row['logged_on_bytes_more']:,} more"
            if "logged_on_bytes_more" in row
            else ""
        )
        print(f"memory, {row['server']}: {row['idle_bytes_each']:,} bytes a connection{more} ({row['connections']:,})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description="Measure the gateway.")
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="where the nodes write; the disk that is measured"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--brief", action="store_true", help="a short run, for a look")
    parser.add_argument("--only", choices=PARTS, help="one part of it")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    parts = (arguments.only,) if arguments.only else PARTS
    result = uvloop.run(run(arguments.directory, 1_000 if arguments.brief else 10_000, parts))
    print(json.dumps(result, indent=2)) if arguments.json else show(result)


if __name__ == "__main__":
    main()
