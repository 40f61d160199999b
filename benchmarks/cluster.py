"""What a cluster takes in, and how long it pauses when it loses a part, beside what its servers take in alone.

    python -m benchmarks.cluster [--seconds S] [--json]

For 1 and 3 NATS servers, all of them, two replicas and this sender on this machine: frames of commands, sent and read back
from the journal as a gateway does it, in turns with messages of the same size that are only published (and acknowledged)
under the same window, to a stream of the same kind. Then the replica that writes is killed under load, and the
server that leads the journal; the pause is the longest while without an entry of the journal. Not measured: websockets (see
benchmarks/gateway.py; a client's order costs its gateway more than what is measured here), networks, and disks that
are slower than this one. With more parts than cores the parts take turns: on machines of their own they would not.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nats.aio.client import Client
from numpy.typing import NDArray

from engine.catalogue import Catalogue, Contract
from engine.jetstream import Publisher, Reader, Shard, head_of, make_streams
from engine.sequencing import Frame, Journal
from engine.types import COMMAND, TRANSFER, Kind, TimeInForce
from wellhead.cluster.ask import ask_replicas
from wellhead.cluster.local import LocalCluster, Process
from wellhead.cluster.replica import Replica
from wellhead.cluster.sender import Sender
from wellhead.cluster.station import Station
from wellhead.compiled import warm_up

SHAPES = ((1, 1), (1, 64), (16, 16), (256, 16))
"""Commands in a frame, frames under way."""
ROUNDS = 3
ACCOUNTS = 64
NUMBER_OF_CONTRACT = 1
NS = 1_000_000_000


def beginning() -> NDArray[np.void]:
    """Accounts with money and capacity, and a contract to trade."""
    catalogue = Catalogue.load()
    gate_s = (time.time_ns() // NS // 3600 + 24) * 3600
    contract = Contract(catalogue.classes[0], catalogue.regions[0], gate_s)
    listing = catalogue.listing(contract, NUMBER_OF_CONTRACT, time.time_ns(), 2_000).view(COMMAND)
    rows = np.zeros(3 * ACCOUNTS, TRANSFER)
    rows["account"] = np.tile(np.arange(1, ACCOUNTS + 1), 3)
    rows["kind"] = np.repeat((Kind.OPEN_ACCOUNT, Kind.DEPOSIT, Kind.NOMINATE), ACCOUNTS)
    rows["amount_micros"][ACCOUNTS:] = 10**13
    nominations = rows[2 * ACCOUNTS :]
    nominations["amount_micros"], nominations["lots"] = 0, 1_000_000
    moneyed = rows.view(COMMAND)
    moneyed["instrument"][2 * ACCOUNTS :] = NUMBER_OF_CONTRACT
    return np.concatenate([moneyed[: 2 * ACCOUNTS], listing, moneyed[2 * ACCOUNTS :]])


def orders(count: int) -> NDArray[np.void]:
    """Limit orders near one price, of both sides; about half trade at once, the rest is good for nothing else."""
    rng = np.random.default_rng(1)
    commands = np.zeros(count, COMMAND)
    commands["kind"], commands["instrument"] = Kind.NEW_ORDER, NUMBER_OF_CONTRACT
    commands["account"] = rng.integers(1, ACCOUNTS + 1, count)
    commands["side"] = rng.integers(0, 2, count)
    commands["price"] = rng.integers(1_990, 2_011, count)
    commands["qty"] = rng.integers(1, 10, count)
    commands["time_in_force"] = np.where(rng.random(count) < 0.5, TimeInForce.IOC, TimeInForce.GTG)
    return commands


@dataclass
class Probe:
    """A sender and a reader of the journal, as a gateway has them."""

    client: Client
    shard: Shard

    async def start(self, name: str, window: int) -> None:
        self.publisher, self.journal = Publisher(self.client), Journal()
        self.sender = Sender(self.publisher, self.shard.input_subject, name, window)
        self.name, self.confirmed, self.heard_at = name, 0, [time.perf_counter()]
        self.reader = Reader(self.client, self.shard.journal)
        self.arrived = asyncio.Event()
        await self.publisher.start()
        await self.reader.start()
        head, at = await head_of(self.client, self.shard.journal), 0
        while at < head:
            for message in await self.reader.read():
                self.journal.take(message.data)
                at = message.seq
        self.tasks = [asyncio.create_task(self.sender.run()), asyncio.create_task(self._listen())]

    async def _listen(self) -> None:
        while True:
            for message in await self.reader.read():
                entry = self.journal.take(message.data)
                if entry is None:
                    continue
                self.heard_at.append(time.perf_counter())
                for part in entry.parts:
                    if part.sender == self.name:
                        self.confirmed = part.number
                        self.sender.confirmed(part.number)
                self.sender.covered(entry.last_in)
            self.arrived.set()
            await asyncio.sleep(0)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.reader.stop()
        await self.publisher.stop()

    async def until(self, number: int) -> None:
        while self.confirmed < number:
            self.arrived.clear()
            await self.arrived.wait()


async def through(client: Client, shard: Shard, commands: int, window: int, seconds: float, round_: int) -> float:
    """Commands a second that come back in the journal."""
    probe = Probe(client, shard)
    await probe.start(f"b{commands}.{window}.{round_}", window)
    pool = orders(commands * 64)
    sent, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        # As many as the window and a few more, so that the sender has one ready: each a frame of its own.
        if sent - probe.confirmed <= window:
            at = sent % 64 * commands
            await _frame(probe, pool[at : at + commands])
            sent += 1
        else:
            probe.arrived.clear()
            await probe.arrived.wait()
    await probe.until(sent)
    rate = sent * commands / (time.perf_counter() - began)
    await probe.stop()
    return rate


async def _frame(probe: Probe, commands: NDArray[np.void]) -> None:
    probe.sender.submit(commands)
    await asyncio.sleep(0)


async def bare(client: Client, stream: Shard, commands: int, window: int, seconds: float) -> float:
    """The same, only published and acknowledged."""
    publisher, data = Publisher(client), Frame("bare", 1, orders(commands)).pack()
    await publisher.start()
    under_way: list[asyncio.Future[int]] = []
    sent, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        if len(under_way) == window:
            await under_way.pop(0)
        under_way.append(await publisher.send(stream.journal_subject, data))
        sent += 1
    await asyncio.gather(*under_way)
    rate = sent * commands / (time.perf_counter() - began)
    await publisher.stop()
    return rate


async def pause(client: Client, shard: Shard, seconds: float, name: str, fault: Callable[[], Awaitable[None]]) -> float:
    """The longest while without an entry when something is lost under load."""
    probe = Probe(client, shard)
    await probe.start(name, 16)
    pool, sent = orders(16 * 64), 0
    await _frame(probe, pool[:16])
    await probe.until(sent := 1)
    probe.heard_at, done = [time.perf_counter()], asyncio.create_task(_after(0.5, fault))
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or not done.done() or probe.heard_at[-1] < until - 1:
        if sent - probe.confirmed <= 16:
            await _frame(probe, pool[sent % 64 * 16 : sent % 64 * 16 + 16])
            sent += 1
        else:
            probe.arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(probe.arrived.wait(), 0.5)
    await probe.until(sent)
    await done
    longest = float(max(np.diff(probe.heard_at)))
    await probe.stop()
    return longest


async def _after(seconds: float, fault: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await fault()


async def writer(cluster: LocalCluster) -> Process:
    """The replica that wrote last."""
    names = [one["name"] for one in await ask_replicas(cluster.config) if one["writer"] == one["name"]]
    return next((one for one in cluster.replicas if one.name in names), cluster.replicas[0])


async def measure(nodes: int, seconds: float) -> dict[str, Any]:
    """All figures for so many servers."""
    with tempfile.TemporaryDirectory(prefix="wellhead-bench-") as folder:
        options = {"markets": ("H100S-USE",), "list_hours": 1, "poll_ms": 3_600_000}
        cluster = LocalCluster(Path(folder), nodes, 2, 0, options=options)
        try:
            await cluster.up()
            client = await cluster.nats.servers.connect("benchmark")
            shard, alone = cluster.config.shard, Shard("BARE")
            await make_streams(client, alone, cluster.config.nats.copies)
            probe = Probe(client, shard)
            await probe.start("first", 16)
            probe.sender.submit(beginning())
            await probe.until(1)
            await probe.stop()
            rates = await _rates(client, shard, alone, seconds)
            follows = await _follow(cluster, client, Path(folder))
            pauses = await _pauses(cluster, client, seconds)
            await client.close()
        finally:
            cluster.stop()
    return {"servers": nodes, "rates": rates, "pauses": pauses} | follows


async def _rates(client: Client, shard: Shard, alone: Shard, seconds: float) -> list[dict[str, Any]]:
    rows = []
    for commands, window in SHAPES:
        found: dict[str, list[float]] = {"cluster": [], "bare": []}
        for round_ in range(ROUNDS):
            found["bare"].append(await bare(client, alone, commands, window, seconds))
            found["cluster"].append(await through(client, shard, commands, window, seconds, round_))
        rows.append({"commands": commands, "window": window} | {k: statistics.median(v) for k, v in found.items()})
    return rows


async def _follow(cluster: LocalCluster, client: Client, folder: Path) -> dict[str, float]:
    """How fast a gateway reads all that was done so far, how fast a replica does, and what a command takes on a disk."""
    station, replica = Station(cluster.config, "g", folder / "g"), Replica(cluster.config, "late")
    began = time.perf_counter()
    await station.start()
    gateway_s = time.perf_counter() - began
    commands = station.journal.seq
    began = time.perf_counter()
    await replica.start()
    while replica.core.sequencer.seq < commands:
        await asyncio.sleep(0.01)
    replica_s = time.perf_counter() - began
    await replica.stop()
    await station.stop()
    info = await client.jetstream().stream_info(cluster.config.shard.journal)
    return {
        "gateway_follows": commands / gateway_s,
        "replica_follows": commands / replica_s,
        "journal_bytes": info.state.bytes / commands,
    }


async def _pauses(cluster: LocalCluster, client: Client, seconds: float) -> dict[str, float]:
    async def kill_writer() -> None:
        process = await writer(cluster)
        process.signal(signal.SIGKILL)
        process.start()

    async def kill_leader() -> None:
        info = await client.jetstream().stream_info(cluster.config.shard.journal)
        number = int((info.cluster.leader or "n0")[1:]) if info.cluster else 0
        cluster.nats.signal(number, signal.SIGKILL)
        await asyncio.sleep(1)
        cluster.nats.start(number)

    shard = cluster.config.shard
    calm = await pause(client, shard, seconds, "p0", lambda: asyncio.sleep(0))
    found = {"nothing": calm, "replica that writes": await pause(client, shard, seconds, "p1", kill_writer)}
    await asyncio.gather(*(process.ready() for process in cluster.replicas))
    found["server that leads"] = await pause(client, shard, seconds, "p2", kill_leader)
    return found


def report(result: dict[str, Any]) -> None:
    """For people."""
    print(f"\n{result['servers']} servers, sync_interval always, 2 replicas")
    print(f"{'commands a frame':>17} {'window':>7} {'commands/s':>12} {'only published/s':>17} {'share':>6}")
    for row in result["rates"]:
        share = row["cluster"] / row["bare"]
        print(f"{row['commands']:>17} {row['window']:>7} {row['cluster']:>12,.0f} {row['bare']:>17,.0f} {share:>6.2f}")
    print(f"catching up with the journal: a gateway {result['gateway_follows']:,.0f} commands/s", end=", ")
    print(
        f"a replica with the input {result['replica_follows']:,.0f}; {result['journal_bytes']:.0f} bytes a command",
        end="",
    )
    print(" in one copy of the journal")
    for name, seconds in result["pauses"].items():
        print(f"longest while without an entry, lost: {name}: {seconds * 1000:,.0f} ms", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warm_up()  # once, not by each process
    load = os.getloadavg()[0]
    conditions = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": load,
    }
    if options.json:
        results = [asyncio.run(measure(nodes, options.seconds)) for nodes in (1, 3)]
        print(json.dumps({"conditions": conditions, "results": results}))
        return
    print(", ".join(f"{name} {value}" for name, value in conditions.items()), flush=True)
    for nodes in (1, 3):
        report(asyncio.run(measure(nodes, options.seconds)))


if __name__ == "__main__":
    main()
