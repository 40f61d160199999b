"""How fast an exchange is back, and what its snapshots cost the market.

    python -m benchmarks.recovery [--commands N] [--sizes N,N,...] [--directory DIR] [--json]

Replay stands beside the engine's own speed on the same commands, in turns and in the same run. A start is timed from an
opened directory to the open port, in this process, with compiled code loaded: without a snapshot, and with one of the
last command. For snapshots a node takes commands in one after the other; what it does on the loop is what the market
waits for, the rest is written behind it. Not measured: a cold page cache, clients that log on again, a book server.
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

from benchmarks.workload import START_NS, flow, market, resolve
from engine.catalogue import Catalogue
from engine.engine import Engine
from engine.log import FileLog, read_log
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
SNAPSHOT_EVERY = 5_000
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


async def snapshots(directory: Path, commands: Commands) -> dict[str, float]:
    """A node under commands, with snapshots: what the market waits for, and steps with and without one under way."""
    config = Config(
        directory / "snapshots", port=0, markets=("H100S-USE",), list_hours=1, snapshot_every_commands=SNAPSHOT_EVERY
    )
    node = node_of(config, START_NS)
    copied: list[float] = []
    written: list[tuple[float, float]] = []
    parts, write = node._snapshot_parts, node._write_snapshot

    def timed_parts() -> Any:
        begun = time.perf_counter()
        made = parts()
        copied.append(time.perf_counter() - begun)
        return made

    def timed_write(*made: Any) -> None:
        begun = time.perf_counter()
        write(*made)
        written.append((begun, time.perf_counter()))

    node._snapshot_parts, node._write_snapshot = timed_parts, timed_write  # type: ignore[assignment,method-assign]
    await node.start()
    steps = []
    for at in range(0, len(commands), STEP_COMMANDS):
        begun = time.perf_counter()
        await node.execute(commands[at : at + STEP_COMMANDS].copy())
        steps.append((begun, time.perf_counter()))
    while len(written) < len(copied):
        await asyncio.sleep(0.01)
    under_load = len(copied), list(written)
    await node.stop()
    during = [b - a for a, b in steps if any(a < end and b > begin for begin, end in under_load[1])]
    others = [b - a for a, b in steps if not any(a < end and b > begin for begin, end in under_load[1])]
    return {
        "snapshots": under_load[0],
        "market_waits_median_ms": MILLI * statistics.median(copied[: under_load[0]]),
        "market_waits_worst_ms": MILLI * max(copied[: under_load[0]]),
        "written_behind_median_ms": MILLI * statistics.median(end - begin for begin, end in under_load[1]),
        "step_median_ms": MILLI * statistics.median(others),
        "step_p99_ms": MILLI * float(np.quantile(others, 0.99)),
        "step_while_written_median_ms": MILLI * statistics.median(during or others),
        "step_while_written_p99_ms": MILLI * float(np.quantile(during or others, 0.99)),
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
    found = report["snapshots"]
    print(f"\n{found['snapshots']} snapshots under load, one every {SNAPSHOT_EVERY:,} commands")
    print(
        f"  the market waits {found['market_waits_median_ms']:.2f} ms (worst {found['market_waits_worst_ms']:.2f}),"
        f" {found['written_behind_median_ms']:.1f} ms are written behind it"
    )
    print(
        f"  a step of {STEP_COMMANDS} commands: median {found['step_median_ms']:.2f} ms, p99 {found['step_p99_ms']:.2f};"
        f" while one is written: median {found['step_while_written_median_ms']:.2f}, p99"
        f" {found['step_while_written_p99_ms']:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=200_000)
    parser.add_argument("--sizes", default="10000,50000,200000")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    commands = recorded(options.commands)
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
            "snapshots": asyncio.run(snapshots(directory, commands[: min(len(commands), 60_000)])),
        }  # fmt: skip
    if options.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
