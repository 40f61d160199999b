"""`python -m tests.wellhead.crash_campaign --kills 100`: the real server, killed again and again under load.

One data directory, many lives. In each, clients place and cancel; at a random instant the process gets kill -9, sometimes
after it stood still (SIGSTOP) with requests under way, and the next start is timed. In the end everything that was ever
acknowledged is looked for, the directory is audited, and the log is replayed beside the engine's own speed.
"""

import argparse
import asyncio
import random
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.engine import Engine
from engine.log import read_log
from tests.wellhead.process import ServerProcess
from tests.wellhead.test_kill import OPTIONS, make_keys, place_until_killed
from wellhead import Client
from wellhead.audit import audit

ACCOUNTS = ("ann", "bob", "cyd")
TASKS = 4  # of each account


@dataclass
class Campaign:
    """What was promised, and what it cost to come back."""

    data_dir: Path
    rng: random.Random
    promised: dict[str, dict[int, str]] = field(default_factory=lambda: {name: {} for name in ACCOUNTS})
    starts: list[tuple[int, float]] = field(default_factory=list)  # bytes of log, seconds to the open port
    stopped: int = 0
    lost: list[str] = field(default_factory=list)

    async def life(self, keys: dict[str, str]) -> None:
        """One start, some load, one kill."""
        log_bytes = sum(path.stat().st_size for path in self.data_dir.glob("log/*.log"))
        begun = time.perf_counter()
        async with ServerProcess(self.data_dir, *OPTIONS) as server:
            self.starts.append((log_bytes, time.perf_counter() - begun))
            clients = [Client(server.url, key=name, private_key=private) for name, private in keys.items()]
            for client in clients:
                await client.__aenter__()
            symbols = [instrument.sym for instrument in await clients[0].instruments()]
            tasks = [
                asyncio.create_task(
                    place_until_killed(client, symbols, self.promised[name], random.Random(self.rng.random()))
                )
                for client, name in zip(clients, keys, strict=True)
                for _ in range(TASKS)
            ]
            await asyncio.sleep(self.rng.uniform(0.05, 1.5))
            if self.rng.random() < 0.3:
                self.stopped += 1
                server.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(self.rng.uniform(0.01, 0.3))
            await server.kill()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(client.__aexit__(None, None, None) for client in clients), return_exceptions=True)

    async def count(self, keys: dict[str, str]) -> int:
        """Look for every order that was acknowledged and not taken back; how many are there."""
        found = 0
        async with ServerProcess(self.data_dir, *OPTIONS) as server:
            for name, private in keys.items():
                async with Client(server.url, key=name, private_key=private) as client:
                    working = {order.oid: order.cid for order in await client.orders()}
                missing = [oid for oid, cid in self.promised[name].items() if working.get(oid) != cid]
                self.lost += [f"{name}: order {oid}" for oid in missing]
                found += len(self.promised[name]) - len(missing)
            if await server.interrupt():
                self.lost.append("the last server did not stop cleanly")
        self.lost += audit(self.data_dir).differences
        return found

    def report(self, found: int) -> None:
        promised = sum(map(len, self.promised.values()))
        print(f"{len(self.starts)} kills -9 under load, {self.stopped} of them of a process that stood still")
        print(f"acknowledged and working {promised:,}, recovered {found:,}, wrong: {self.lost[:5] or 'nothing'}")
        for name, half in (
            ("the first half", self.starts[: (len(self.starts) + 1) // 2]),
            ("the second half", self.starts[len(self.starts) // 2 :]),
        ):
            size, seconds = (statistics.median(column) for column in zip(*half, strict=True))
            print(f"start to open port, {name}: median {seconds:.2f} s with a log of {size / 1024:,.0f} KiB")
        print(replay_speed(self.data_dir))


def replay_speed(data_dir: Path) -> str:
    """Reading the log and applying it, beside the engine alone on the same commands."""
    begun, replayed = time.perf_counter(), Engine()
    for commands in read_log(data_dir / "log"):
        replayed.apply(commands)
    replay_s = time.perf_counter() - begun
    commands, engine = np.concatenate(list(read_log(data_dir / "log"))), Engine()
    begun = time.perf_counter()
    engine.apply(commands)
    apply_s = time.perf_counter() - begun
    count = len(commands)
    return (
        f"replay of {count:,} commands: {count / replay_s:,.0f}/s with reading and checking,"
        f" {count / apply_s:,.0f}/s for the engine alone"
    )


async def run(kills: int, seed: int, data_dir: Path) -> int:
    """A campaign; an exit code."""
    campaign, keys = Campaign(data_dir, random.Random(seed)), make_keys(data_dir, *ACCOUNTS)
    for kill in range(kills):
        await campaign.life(keys)
        if kill % 100 == 0:
            print(f"{kill + 1} of {kills} kills", flush=True)
    campaign.report(await campaign.count(keys))
    return int(bool(campaign.lost))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.wellhead.crash_campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wellhead-crash-") as folder:
        return asyncio.run(run(options.kills, options.seed, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
