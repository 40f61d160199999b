"""How fast the engine is, clearing on, beside books that only match.

    python -m benchmarks.engine [--json] [--brief] [--flow FILE] [--batch N]

With --flow it runs one recorded flow and prints what it came to; the format is in wellhead/flow.py. Without, it makes a seeded
flow and measures: throughput by batch size beside a bare numba book that only matches (in turns, in the same run: the
ratio is the figure; both in the thread's own time, so that another process's turn is not ours), latency of a call, cost
against resting orders and against books, memory, start-up, and the peers that are installed (benchmarks/peers.py).

Not measured here: the log, the network, and anything that Python does with an event. Order ids are resolved beforehand, as
clients that read their acknowledgements would have them.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.bare_book import BareBook
from benchmarks.memory_limit import LINES_OF_A_BOOK, LINES_OF_A_COMMAND, lines_ns
from benchmarks.peers import peers
from engine.engine import Engine
from engine.records import zeros
from engine.state import Limits
from engine.types import COMMAND, LISTING, TRANSFER, EventKind, Kind
from wellhead.flow import (
    ADD,
    CANCEL,
    IOC,
    REDUCE,
    REPLACE,
    FlowError,
    Resolved,
    market_engine,
    read_flow,
    resolve,
    run,
    summary,
)

BATCHES = (1, 16, 256, 1_024, 4_096)
LATENCY_BATCHES = (1, 256)
RESTING = (1_000, 10_000, 100_000, 1_000_000)
BOOKS = (1, 100, 10_000)
ROUND_COMMANDS = 1_024
FLAT_WITHIN = 1.5
"""How much more a command may cost than in the smallest shape, beside what memory alone costs."""
ACCOUNTS = 1_000
ACCOUNTS_OF_A_BOOK = 10


def conditions() -> dict[str, Any]:
    """What the figures depend on."""
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "numba": numba.__version__,
        "threads_used": 1,
    }


def timed_engine(commands: NDArray[np.void], batch: int) -> float:
    """Seconds of this thread's own time for the commands on a fresh engine."""
    engine = market_engine()
    started = time.thread_time()
    for at in range(0, len(commands), batch):
        engine.apply(commands[at : at + batch])
    return time.thread_time() - started


def timed_bare(rows: NDArray[np.int64], batch: int) -> float:
    """Seconds of this thread's own time for the same flow on a fresh yardstick."""
    book = BareBook(rows)
    started = time.thread_time()
    book.run(batch)
    return time.thread_time() - started


def throughput(rows: NDArray[np.int64], resolved: Resolved, rounds: int) -> list[dict[str, Any]]:
    """Commands a second by batch size, engine and yardstick in turns; `ratio` is the median of the pairs."""
    results = []
    for batch in BATCHES:
        count = len(rows) if batch >= 256 else min(len(rows), 50_000)
        pairs = [
            (timed_engine(resolved.commands[:count], batch), timed_bare(rows[:count], batch)) for _ in range(rounds)
        ]
        engine_s, bare_s = (statistics.median(column) for column in zip(*pairs, strict=True))
        results.append(
            {
                "batch": batch,
                "engine_mcommands_per_s": count / engine_s / 1e6,
                "bare_mcommands_per_s": count / bare_s / 1e6,
                "ratio": statistics.median(bare / engine for engine, bare in pairs),
                "best_engine_mcommands_per_s": count / min(engine for engine, _ in pairs) / 1e6,
                "best_bare_mcommands_per_s": count / min(bare for _, bare in pairs) / 1e6,
            }
        )
    return results


def latency(resolved: Resolved) -> list[dict[str, Any]]:
    """Percentiles of the time of one call, in ns, and the same for each command of it."""
    results = []
    for batch in LATENCY_BATCHES:
        engine, commands = market_engine(), resolved.commands[: 50_000 * min(batch, 4)]
        times = []
        for at in range(0, len(commands) - batch + 1, batch):
            part = commands[at : at + batch]
            started = time.perf_counter_ns()
            engine.apply(part)
            times.append(time.perf_counter_ns() - started)
        p50, p99, p999 = np.percentile(times, [50, 99, 99.9])
        call = {"p50": p50, "p99": p99, "p99.9": p999, "max": max(times)}
        results.append(
            {
                "batch": batch,
                "ns_per_call": {name: int(value) for name, value in call.items()},
                "ns_per_command_p50": p50 / batch,
            }
        )
    return results


class Churn:
    """Books with resting bids, in which orders are added and random ones cancelled; no trades."""

    def __init__(self, books: int, seed: int = 1) -> None:
        self.engine = Engine(Limits(max_open_orders_per_account=1_000_000))
        self.rng = np.random.default_rng(seed)
        self.books = books
        self.live = np.zeros((0, 2), np.int64)  # order_id, account
        self._set_up()

    def _send(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        commands["seq"] = np.arange(self.engine.applied_seq + 1, self.engine.applied_seq + 1 + len(commands))
        return self.engine.apply(commands)

    def _set_up(self) -> None:
        accounts = np.zeros(ACCOUNTS, TRANSFER)
        accounts["account"] = np.arange(1, ACCOUNTS + 1)
        for kind in (Kind.OPEN_ACCOUNT, Kind.DEPOSIT):
            accounts["kind"], accounts["amount_micros"] = kind, 900_000_000_000_000
            self._send(accounts)
        listings = np.zeros(self.books, LISTING)
        listings["kind"], listings["instrument"] = Kind.LIST, np.arange(1, self.books + 1)
        listings["lot_tick_micros"], listings["max_price"], listings["gate_ns"] = 8_000, 100_000, 1 << 60
        listings["taker_fee_ppm"], listings["maker_rebate_ppm"] = 500, 200
        self._send(listings)

    def _adds(self, count: int) -> NDArray[np.void]:
        commands = zeros(count, COMMAND)
        commands["kind"] = Kind.NEW_ORDER
        commands["instrument"] = self.rng.integers(1, self.books + 1, count)
        # A handful of makers quote each book.
        maker = self.rng.integers(0, ACCOUNTS_OF_A_BOOK, count)
        commands["account"] = 1 + (commands["instrument"] * 7 + maker) % ACCOUNTS
        commands["price"] = 2_600 - self.rng.integers(0, 50, count)
        commands["qty"] = self.rng.integers(1, 100, count)
        return commands

    def _note(self, events: NDArray[np.void]) -> None:
        new = events[events["kind"] == EventKind.NEW]
        if len(new) + (events["kind"] == EventKind.CANCELED).sum() != len(events):
            raise RuntimeError("an order of the benchmark was refused")
        self.live = np.concatenate([self.live, np.stack([new["order_id"], new["account"]], axis=1).astype(np.int64)])

    def fill(self, resting: int) -> None:
        """Add until so many orders rest."""
        while len(self.live) < resting:
            self._note(self._send(self._adds(min(65_536, resting - len(self.live)))))

    def round(self) -> NDArray[np.void]:
        """Adds and cancels of random resting orders in equal parts, so the book keeps its size; the commands, applied."""
        half = ROUND_COMMANDS // 2
        picked = self.rng.choice(len(self.live), half, replace=False)
        commands = zeros(ROUND_COMMANDS, COMMAND)
        commands[0::2] = self._adds(half)
        cancels = commands[1::2]
        cancels["kind"], cancels["order_id"], cancels["account"] = (
            Kind.CANCEL,
            self.live[picked, 0],
            self.live[picked, 1],
        )
        self.live = np.delete(self.live, picked, axis=0)
        self._note(self._send(commands))
        return commands


def churned(books: int, resting: int) -> Churn:
    """Books with so many orders, the same each time."""
    churn = Churn(books)
    churn.fill(resting)
    return churn


def timed_rounds(engine: Engine, rounds: list[NDArray[np.void]]) -> list[float]:
    """Seconds of this thread's own time for each."""
    times = []
    for commands in rounds:
        started = time.thread_time()
        engine.apply(commands)
        times.append(time.thread_time() - started)
    return times


def scaling(shapes: list[tuple[int, int]], rounds: int) -> list[dict[str, Any]]:
    """Cost of a command (median of rounds of 1,024, half adds, half cancels) for (books, resting orders)."""
    results = []
    for books, resting in shapes:
        recorder = churned(books, resting)
        # On another engine and one after the other: what the recorder does between two rounds would empty the caches.
        recorded = [recorder.round() for _ in range(rounds)]
        churn = churned(books, resting)
        cost = statistics.median(timed_rounds(churn.engine, recorded)) / ROUND_COMMANDS
        lines = LINES_OF_A_COMMAND + (LINES_OF_A_BOOK if books > 1 else 0)
        used = sum(part.nbytes for _, part in churn.engine.memory.used_parts())
        held = sum(array.nbytes for array in churn.engine.memory.arrays.values())
        results.append(
            {
                "books": books,
                "resting": resting,
                "ns_per_command": cost * 1e9,
                "lines": lines,
                "lines_ns": lines_ns(used, lines),
                "state_mb": used / 1e6,
                "allocated_mb": held / 1e6,
            }
        )
    for row in results:
        row["limit_ns"] = FLAT_WITHIN * results[0]["ns_per_command"] + row["lines_ns"]
    return results


def memory() -> dict[str, Any]:
    """Bytes of state by what they are for."""
    empty = sum(part.nbytes for _, part in Churn(1).engine.memory.used_parts())
    full = sum(part.nbytes for _, part in churned(1, 100_000).engine.memory.used_parts())
    listed = sum(part.nbytes for _, part in Churn(1_001).engine.memory.used_parts())
    return {"bytes_per_resting_order": (full - empty) / 100_000, "bytes_per_listed_book": (listed - empty) / 1_000}


def start_up() -> dict[str, float]:
    """Seconds from a new process to the first command applied, with the machine code in the cache and without."""
    program = "from engine.engine import warm_up; warm_up()"
    with tempfile.TemporaryDirectory() as empty:
        times = {}
        for name, cache in (("cold_s", {"WELLHEAD_CACHE": empty}), ("warm_s", {})):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], env={**os.environ, **cache}, check=True)
            times[name] = time.perf_counter() - started
    return times


def run_flow(path: Path, batch: int, rounds: int) -> dict[str, Any]:
    """A recorded flow: what it came to, and its speed, best and median of the rounds, beside the yardstick's."""
    rows = read_flow(path)
    resolved = resolve(rows)
    events = run(market_engine(), resolved.commands, batch)
    result = summary(resolved, events)
    bare_rows = rows_for_bare(rows, resolved)
    times, bare_times = [], []
    try:
        timed_bare(bare_rows[:1], batch)  # compiles it
        for _ in range(rounds):
            times.append(timed_engine(resolved.commands, batch))
            bare_times.append(timed_bare(bare_rows, batch))
    except ValueError as error:  # the yardstick has a window of prices
        result["bare_not_run"] = str(error)
        times += [timed_engine(resolved.commands, batch) for _ in range(rounds - len(times))]
    pairs = zip(times, bare_times, strict=False)
    return result | {
        "batch": batch,
        "commands_per_s": len(rows) / min(times),
        "median_commands_per_s": len(rows) / statistics.median(times),
        "clearing": True,
        "conditions": conditions(),
        "bare_commands_per_s": len(rows) / min(bare_times) if bare_times else None,
        "ratio": statistics.median(bare / engine for engine, bare in pairs) if bare_times else None,
    }


def rows_for_bare(rows: NDArray[np.int64], resolved: Resolved) -> NDArray[np.int64]:
    """The rows of a flow that the yardstick, which checks nothing, can run: without those refused, ids from 1 on."""
    kept = np.delete(rows, list(resolved.refused), axis=0)
    kept[np.isin(kept[:, 0], (REDUCE, REPLACE)) & (kept[:, 4] == 0), 0] = CANCEL
    kept[~np.isin(kept[:, 0], (ADD, REPLACE, IOC)), 3] = 0
    kept[:, 1] = 1 + np.unique(kept[:, 1], return_inverse=True)[1]
    return kept


def seeded_flow(commands: int) -> NDArray[np.int64]:
    """About half adds, a third cancels of random orders, a tenth changes, some market and IOC orders.

    Some cancels and changes are of orders that were filled meanwhile.
    """
    rng = np.random.default_rng(11)
    rows = np.zeros((commands, 5), np.int64)
    kinds, sides, qty = rng.random(commands), rng.integers(0, 2, commands), rng.integers(1, 101, commands)
    middle = 30_000 + np.cumsum(np.where(rng.random(commands) < 0.02, rng.choice([-1, 1], commands), 0))
    near, far, crosses = rng.integers(0, 4, commands), rng.integers(1, 21, commands), rng.random(commands) < 0.085
    sign = 1 - 2 * sides
    price = middle + np.where(crosses, sign * near, -sign * far)
    pick = rng.random(commands)
    live: list[int] = []
    for at in range(commands):
        op = 0
        if live and kinds[at] >= 0.43:
            op = 1 if kinds[at] < 0.83 else (2 + (pick[at] < 0.5) if kinds[at] < 0.95 else 4 + (pick[at] < 0.5))
        flow_id = at + 1
        if op in (1, 2, 3):
            place = int(pick[at] * len(live))
            flow_id = live[place]
            if op == 1:
                live[place] = live[-1]
                live.pop()
        elif op == 0:
            live.append(flow_id)
        rows[at] = op, flow_id, sides[at], 0 if op in (1, 4) else price[at], 1 if op == 2 else qty[at]
    return rows


def measure(brief: bool) -> dict[str, Any]:
    """Everything."""
    rows = seeded_flow(30_000 if brief else 200_000)
    # A refusal changes nothing, so the flow without them is the same: no command for an order that is gone.
    rows = np.delete(rows, list(resolve(rows).refused), axis=0)
    resolved = resolve(rows)
    shapes = (
        [(1, 1_000), (100, 10_000)]
        if brief
        else [(1, n) for n in RESTING] + [(n, 100_000) for n in BOOKS] + [(10_000, 1_000_000)]
    )
    return {
        "conditions": conditions(),
        "flow": summary(resolved, run(market_engine(), resolved.commands, 4_096)),
        "throughput": throughput(rows, resolved, 3 if brief else 7),
        "latency": latency(resolved),
        "scaling": scaling(shapes, 5 if brief else 40),
        "memory": memory(),
        "peers": peers(rows),
        "start_up": {} if brief else start_up(),
    }


def show(report: dict[str, Any]) -> None:
    """The report as lines."""
    print("conditions:", ", ".join(f"{name} {value}" for name, value in report["conditions"].items()))
    print("flow:", report["flow"])
    print("\nthroughput, M commands/s (medians; the engine clears, bare only matches; ratio: median of the pairs)")
    for row in report["throughput"]:
        speeds = f"engine {row['engine_mcommands_per_s']:7.3f}  bare {row['bare_mcommands_per_s']:7.3f}"
        print(f"  batch {row['batch']:>5}  {speeds}  ratio {row['ratio']:.2f}")
    print("\nlatency of a call, ns")
    for row in report["latency"]:
        print(f"  batch {row['batch']:>5}  {row['ns_per_call']}  {row['ns_per_command_p50']:.0f} ns a command at p50")
    print("\ncost of a command, ns: adds and cancels of random resting orders")
    print(
        f"  limit: {FLAT_WITHIN} times the first, and the lines it touches at random in a memory as large as the state"
    )
    for row in report["scaling"]:
        room = f"state {row['state_mb']:.1f} MB, allocated {row['allocated_mb']:.1f} MB"
        limit = f"limit {row['limit_ns']:6.1f}, of it {row['lines']} lines {row['lines_ns']:5.1f}"
        print(f"  books {row['books']:>6}  resting {row['resting']:>9,}  {row['ns_per_command']:7.1f}  {limit}  {room}")
    print("\nmemory:", report["memory"])
    print("\npeers, which match and do not clear")
    for row in report["peers"]:
        figure = (
            f"{row['mcommands_per_s']:.3f} M commands/s ({row['commands']:,})" if row["installed"] else "not installed"
        )
        print(f"  {row['peer']:>20}  {figure}")
    print("start-up:", report["start_up"])
    print("not measured: log, network, and what Python does with an event")


def at_least_one(text: str) -> int:
    """A number of an option that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flow", type=Path)
    parser.add_argument("--batch", type=at_least_one, default=4_096, help="commands a call, for --flow")
    parser.add_argument("--rounds", type=at_least_one, default=5)
    parser.add_argument("--brief", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.flow:
        try:
            report = run_flow(arguments.flow, arguments.batch, arguments.rounds)
        except FlowError as error:
            parser.error(str(error))
        print(
            json.dumps(report)
            if arguments.json
            else "\n".join(f"{name:>22}  {value}" for name, value in report.items())
        )
        return
    report = measure(arguments.brief)
    if arguments.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
