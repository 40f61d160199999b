"""How fast an exchange is back, and what its snapshots cost the market.

    python -m benchmarks.recovery [--commands N] [--sizes N,N,...] [--directory DIR] [--json]

Replay stands beside the engine's own speed on the same commands, in turns and in the same run. A start is timed from an
opened directory to the open port, in this process, with compiled code loaded: without a snapshot, and with one of the
last command. For snapshots a node takes commands in one after the other; what it does on the loop is what the market
waits for. Not measured: a cold page cache, clients that log on again, a book server.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.workload import START_NS, flow, market, resolve, stamp
from engine.catalogue import Catalogue
from engine.engine import Engine
from engine.log import FileLog, read_log
from engine.types import COMMAND, Kind, Side
from gateway.auth import KeyStore
from gateway.config import GatewayConfig
from gateway.gateway import Gateway
from wellhead.config import Config
from wellhead.exchange import Exchange
from wellhead.node import Node

ACCOUNTS, INSTRUMENTS = 50, 20
FRAME_COMMANDS = 256
ROUNDS = 3
STEP_COMMANDS = 50
STEPS_BETWEEN = 400
"""From one snapshot to the next, at the least."""
PAUSE_S = 0.001
SNAPSHOT_COMMANDS = 150_000
FAR_TICKS = 40
"""Prices below those at which `flow` trades."""
MILLI = 1_000

Commands = NDArray[np.void]


def recorded(count: int) -> Commands:
    """A market, and order flow in it."""
    setup = market(1, ACCOUNTS, INSTRUMENTS)
    trading = flow(1, count, ACCOUNTS, INSTRUMENTS, first_seq=len(setup) + 1)
    return resolve(Engine(), np.concatenate([setup, trading]), batch=FRAME_COMMANDS)


def write_log(config: Config, commands: Commands) -> None:
    """Put commands into a new directory's log, and nothing else."""
    with FileLog(config.log_dir, durable=False) as log:
        for at in range(0, len(commands), FRAME_COMMANDS):
            log.append(commands[at : at + FRAME_COMMANDS].copy())
        log.sync()


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


# --- Replay -----------------------------------------------------------------------------------------------------------


def replay(directory: Path, commands: Commands) -> dict[str, int]:
    """Commands a second, medians of rounds in turns."""
    config = Config(directory / "replay", durable=False)
    write_log(config, commands)
    frames = [commands[at : at + FRAME_COMMANDS].copy() for at in range(0, len(commands), FRAME_COMMANDS)]

    def engine_alone() -> None:
        engine = Engine()
        for frame in frames:
            engine.apply(frame)

    def log_alone() -> None:
        for _ in read_log(config.log_dir):
            pass

    def log_and_engine() -> None:
        engine = Engine()
        for part in read_log(config.log_dir):
            engine.apply(part)

    ways: dict[str, Callable[[], None]] = {
        "the engine alone": engine_alone,
        "the log read and checked": log_alone,
        "log and engine": log_and_engine,
        "everything, the books anew": partial(recover, config, books_anew=True),
        "everything, the books as they were": partial(recover, config, books_anew=False),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            taken[name].append(seconds(way))
    return {name: int(len(commands) / statistics.median(times)) for name, times in taken.items()}


def recover(config: Config, books_anew: bool) -> None:
    """Log, engine, books and gateway, from the log's beginning."""
    if books_anew:
        shutil.rmtree(config.settlement_dir, ignore_errors=True)
    catalogue = Catalogue.load()
    exchange = Exchange.open(config, catalogue)
    keys = KeyStore(config.keys_path)
    gateway = Gateway(GatewayConfig(), catalogue, keys, lambda _: None, lambda: START_NS)
    exchange.recover(gateway)
    exchange.close()


# --- Starts -----------------------------------------------------------------------------------------------------------


def node_of(config: Config, first_ns: int) -> Node:
    begun_ns = time.monotonic_ns()
    return Node(config, Catalogue.load(), clock=lambda: first_ns + time.monotonic_ns() - begun_ns)


async def start(config: Config, first_ns: int) -> tuple[float, int]:
    """Seconds from the directory to the open port, and commands replayed; a clean stop then writes a snapshot."""
    begun = time.perf_counter()
    node = node_of(config, first_ns)
    await node.start()
    taken = time.perf_counter() - begun
    await node.stop()
    return taken, node.replayed


async def starts(directory: Path, commands: Commands, sizes: list[int]) -> list[dict[str, Any]]:
    """For logs of these sizes: as after a crash without any snapshot but with its books, and as after a clean stop."""
    rows = []
    for size in sizes:
        part = commands[:size]
        config = Config(directory / f"start-{size}", port=0, markets=("H100S-USE",), list_hours=1, durable=False)
        write_log(config, part)
        recover(config, books_anew=True)
        log_bytes = sum(path.stat().st_size for path in config.log_dir.glob("*.log"))
        last_ns = int(part["ts_ns"][-1])
        crashed, replayed = await start(config, last_ns)
        clean = [await start(config, last_ns) for _ in range(ROUNDS)]
        rows.append(
            {
                "commands": size, "log_bytes": log_bytes, "replayed": replayed, "without_snapshot_s": crashed,
                "with_snapshot_s": statistics.median(taken for taken, _ in clean),
            }
        )  # fmt: skip
    return rows


# --- Snapshots --------------------------------------------------------------------------------------------------------


def full_books(count: int, resting: int) -> tuple[Commands, Commands]:
    """A market in whose books so many orders rest far from where it trades; and order flow in it."""
    setup = market(1, ACCOUNTS, INSTRUMENTS)
    far = stamp(np.zeros(resting, COMMAND), len(setup) + 1, START_NS)
    rows = np.arange(resting)
    far["kind"], far["side"], far["qty"], far["price"] = Kind.NEW_ORDER, Side.BUY, 1, 1 + rows % FAR_TICKS
    far["account"], far["instrument"] = 1 + rows % ACCOUNTS, 1 + rows // ACCOUNTS % INSTRUMENTS
    begun = np.concatenate([setup, far])
    trading = flow(1, count, ACCOUNTS, INSTRUMENTS, first_seq=len(begun) + 1)
    return begun, resolve(Engine(), np.concatenate([begun, trading]), batch=FRAME_COMMANDS)[len(begun) :]


class Standstill:
    """How long a loop was not there for anybody: the longest lateness of a call every millisecond, by spans of time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.late: list[tuple[float, float]] = []
        self._due = 0.0
        self._next()

    def _next(self) -> None:
        self._due = time.perf_counter() + 1 / MILLI
        self._handle = self._loop.call_later(1 / MILLI, self._look)

    def _look(self) -> None:
        now = time.perf_counter()
        self.late.append((self._due, now - self._due))
        self._next()

    def stop(self) -> None:
        self._handle.cancel()

    def during(self, spans: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
        """Seconds late, in these spans and outside of them."""
        inside = [any(begin <= due + late and due <= end for begin, end in spans) for due, late in self.late]
        each = list(zip(inside, self.late, strict=True))
        return [late for within, (_, late) in each if within], [late for within, (_, late) in each if not within]


class Snapshots:
    """The snapshots of a node: when they were begun and had their names, and what beginning them took."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._begin, self._finish = node._begin_snapshot, node._finish_snapshot
        node._begin_snapshot, node._finish_snapshot = self.begin, self.finish  # type: ignore[method-assign]
        self.held: list[float] = []
        self.busy: list[float] = []
        self.spans: list[tuple[float, float]] = []

    def begin(self) -> Any:
        begun, busy_before = time.perf_counter(), time.thread_time()
        made = self._begin()
        self.held.append(time.perf_counter() - begun)
        self.busy.append(time.thread_time() - busy_before)
        self.spans.append((begun, float("inf")))
        return made

    def finish(self, snapshot: Any) -> None:
        self._finish(snapshot)
        self.spans[-1] = self.spans[-1][0], time.perf_counter()

    def ask_for_one(self) -> None:
        """With the next step."""
        self._node._snapshot_seq = -self._node.config.snapshot_every_commands


async def full_node(directory: Path, full: Commands, forked: bool) -> Node:
    config = Config(
        directory / f"snapshots-{forked}", port=0, markets=("H100S-USE",), list_hours=1, fork_snapshots=forked
    )
    node = node_of(config, START_NS)
    await node.start()
    for at in range(0, len(full), FRAME_COMMANDS):
        await node.execute(full[at : at + FRAME_COMMANDS].copy())
    return node


async def snapshots(directory: Path, full: Commands, trading: Commands, forked: bool) -> dict[str, float]:
    """A node with full books under commands, with snapshots and without: what the market waits for."""
    node = await full_node(directory, full, forked)
    taken, standstill = Snapshots(node), Standstill()
    steps: list[tuple[float, float]] = []
    parts = (trading[at : at + STEP_COMMANDS].copy() for at in range(0, len(trading), STEP_COMMANDS))
    for number, part in enumerate(parts):
        if (1 + len(taken.spans)) * STEPS_BETWEEN <= number and node._underway is None:
            taken.ask_for_one()
        begun = time.perf_counter()
        await node.execute(part)
        steps.append((begun, time.perf_counter()))
        await asyncio.sleep(PAUSE_S)
    standstill.stop()
    while node._underway is not None:
        await asyncio.sleep(PAUSE_S)
    sizes = [path.stat().st_size for path in node.config.snapshot_dir.glob("*.snapshot")]
    counts = {
        "snapshots": len(taken.spans), "bytes": max(sizes),
        "open_orders": int(node.exchange.engine.memory.header["open_orders"]),
    }  # fmt: skip
    await node.stop()
    return counts | held_by(taken, standstill, steps)


def held_by(taken: Snapshots, standstill: Standstill, steps: list[tuple[float, float]]) -> dict[str, float]:
    """Milliseconds."""
    inside, outside = standstill.during(taken.spans)
    is_during = [any(a < end and b > start for start, end in taken.spans) for a, b in steps]
    during = [b - a for (a, b), yes in zip(steps, is_during, strict=True) if yes]
    others = [b - a for (a, b), yes in zip(steps, is_during, strict=True) if not yes]
    found = {
        "busy_median": statistics.median(taken.busy), "busy_worst": max(taken.busy),
        "held_median": statistics.median(taken.held), "held_worst": max(taken.held),
        "written_median": statistics.median(end - start for start, end in taken.spans),
        "loop_worst": max(inside), "loop_worst_else": max(outside),
        "loop_p99": float(np.quantile(inside, 0.99)), "loop_p99_else": float(np.quantile(outside, 0.99)),
        "step_median": statistics.median(during), "step_median_else": statistics.median(others),
        "step_p99": float(np.quantile(during, 0.99)), "step_p99_else": float(np.quantile(others, 0.99)),
    }  # fmt: skip
    return {f"{name}_ms": MILLI * value for name, value in found.items()}


SNAPSHOT_ROWS = {
    "busy_median_ms": "processor time of the market for it, median",
    "busy_worst_ms": "  worst",
    "held_median_ms": "so long the market is held for it, median",
    "held_worst_ms": "  worst",
    "written_median_ms": "until it has its name, median",
    "loop_worst_ms": "the loop stands still meanwhile, worst",
    "loop_worst_else_ms": "  at other times",
    "loop_p99_ms": "  meanwhile, p99",
    "loop_p99_else_ms": "  at other times",
    "step_median_ms": f"a step of {STEP_COMMANDS} commands meanwhile, median",
    "step_median_else_ms": "  at other times",
    "step_p99_ms": "  meanwhile, p99",
    "step_p99_else_ms": "  at other times",
}


# --- The command ------------------------------------------------------------------------------------------------------


def show(report: dict[str, Any]) -> None:
    print("conditions:", ", ".join(f"{name} {value}" for name, value in report["conditions"].items()))
    rates = report["replay"]
    engine = rates["the engine alone"]
    print("\nreplay                                commands/s   of the engine's own")
    for name, rate in rates.items():
        print(f"  {name:36}{rate:>10,}   {100 * rate / engine:>5.1f} %")
    print("\nstart to open port     log        without a snapshot (replayed)        with one")
    for row in report["starts"]:
        print(
            f"  {row['commands']:>10,} commands {row['log_bytes'] / 2**20:>6.1f} MiB   {row['without_snapshot_s']:>6.2f} s"
            f" ({row['replayed']:,}){row['with_snapshot_s']:>20.2f} s"
        )
    first = report["snapshots"]["forked"]
    print(
        f"\nsnapshots of {first['bytes'] >> 20} MiB under load, {first['open_orders']:,} orders rest,"
        f" {first['snapshots']} of each kind, in milliseconds"
    )
    print(f"  {'':44}{'a fork writes it':>18}{'the state is copied':>22}")
    for name, words in SNAPSHOT_ROWS.items():
        forked, copied = (report["snapshots"][way][name] for way in ("forked", "copied"))
        print(f"  {words:44}{forked:>18.2f}{copied:>22.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=200_000)
    parser.add_argument("--sizes", default="10000,50000,200000")
    parser.add_argument("--resting", type=int, default=100_000, help="orders in the books when snapshots are taken")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    commands = recorded(options.commands)
    books = full_books(SNAPSHOT_COMMANDS, options.resting)
    sizes = [min(int(size), len(commands)) for size in options.sizes.split(",")]
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="wellhead-recovery-") as name:
        directory = Path(name)
        report: dict[str, Any] = {
            "conditions": {
                "commands": len(commands), "frame": FRAME_COMMANDS, "python": platform.python_version(),
                "cores": os.cpu_count(), "load": f"{os.getloadavg()[0]:.1f}",
            },
            "replay": replay(directory, commands),
            "starts": asyncio.run(starts(directory, commands, sizes)),
            "snapshots": {
                name: asyncio.run(snapshots(directory, *books, forked=name == "forked")) for name in ("forked", "copied")
            },
        }  # fmt: skip
    if options.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
