"""`python -m tests.wellhead.crash_campaign --kills 1000`: the real server, ended again and again under load.

One data directory, many lives. In each, clients place and cancel until, at a random instant, something happens:

    kill     kill -9
    stop     it stands still (SIGSTOP) with requests under way, and is killed
    pause    it stands still, goes on, and is killed a moment later
    full     the disk is full (a small tmpfs where one may be mounted, and a limit on the size of files), until it ends
    clock    its clock is set forward or back, by up to two hours, and it is killed a moment later

In the end everything that was ever acknowledged is looked for in the log: each order under its number and its client's
name for it, once; each cancel. The directory is audited, start-up is shown against the log's size, and replay beside the
engine's own speed.
"""

import argparse
import asyncio
import contextlib
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.catalogue import unpack_id
from engine.engine import Engine
from engine.log import read_log
from engine.types import EventKind
from tests.wellhead.process import ServerProcess
from tests.wellhead.set_clock import CLOCK_FILE, set_clock
from tests.wellhead.test_kill import OPTIONS, make_keys
from wellhead import Client, WellheadError
from wellhead.audit import audit

ACCOUNTS = ("ann", "bob", "cyd")
TASKS = 4  # of each account
KINDS = {"kill": 50, "stop": 15, "pause": 10, "full": 10, "clock": 15}
DISK_MIB = 1_024
LONGEST_JUMP_S = 7_200
ENDS_S = 10  # in which a server whose disk is full should have ended
NS = 1_000_000_000


@dataclass
class Promised:
    """What one account was told in one kind of life: order -> its cid, and the orders that were cancelled."""

    placed: dict[int, str] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)


@dataclass
class Life:
    """One start and one end."""

    kind: str
    log_bytes: int
    start_s: float = 0.0
    ended_itself: bool = False
    promised: dict[str, Promised] = field(default_factory=lambda: {name: Promised() for name in ACCOUNTS})

    @property
    def acknowledged(self) -> int:
        return sum(len(one.placed) + len(one.cancelled) for one in self.promised.values())


async def trade(client: Client, promised: Promised, rng: random.Random) -> None:
    """Bids that rest, some taken back, until cancelled. What is noted is only what was answered."""
    symbols: list[str] = []
    while True:
        try:
            symbols = symbols or [instrument.sym for instrument in await client.instruments()]
            price = f"0.{rng.randint(100, 400)}"
            ack = await client.place(rng.choice(symbols), "buy", qty=rng.randint(1, 3), px=price)
            promised.placed[ack.oid] = ack.cid or ""
            working = [oid for oid in list(promised.placed)[-50:] if oid not in promised.cancelled]
            if working and rng.random() < 0.3:
                oid = rng.choice(working)
                await client.cancel(oid)
                promised.cancelled.add(oid)
        except WellheadError:  # a gate has passed, or the exchange is gone
            symbols = []
            await asyncio.sleep(0.02)


@dataclass
class Campaign:
    """A directory's lives."""

    data_dir: Path
    rng: random.Random
    small_disk: bool = False  # whether the directory is on one of its own
    lives: list[Life] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: Counter[int] = field(default_factory=Counter)  # by life
    _offset_ns: int = 0

    @property
    def clock_file(self) -> Path:
        return self.data_dir / "clock"

    async def life(self, keys: dict[str, str], kind: str) -> None:
        """One start, some load, one end."""
        life = Life(kind, sum(path.stat().st_size for path in self.data_dir.glob("log/*.log")))
        self.lives.append(life)
        begun = time.perf_counter()
        async with self._server() as server, contextlib.AsyncExitStack() as stack:
            life.start_s = time.perf_counter() - begun
            clients = [Client(server.url, key=name, private_key=private) for name, private in keys.items()]
            for client in clients:
                await client.__aenter__()
                stack.push_async_callback(_leave, client)
            tasks = [
                asyncio.create_task(trade(client, life.promised[name], random.Random(self.rng.random())))
                for client, name in zip(clients, keys, strict=True)
                for _ in range(TASKS)
            ]
            await asyncio.sleep(self.rng.uniform(0.05, 1.0))
            await self._happen(life, server)
            if server.process.returncode is None:
                await server.kill()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _server(self) -> ServerProcess:
        set_clock(self.clock_file, self._offset_ns)
        os.environ[CLOCK_FILE] = str(self.clock_file)
        return ServerProcess(self.data_dir, *OPTIONS, module="tests.wellhead.set_clock")

    async def _happen(self, life: Life, server: ServerProcess) -> None:
        match life.kind:
            case "stop" | "pause":
                server.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(self.rng.uniform(0.01, 0.3))
                if life.kind == "pause":
                    server.process.send_signal(signal.SIGCONT)
                    await asyncio.sleep(self.rng.uniform(0.05, 0.3))
            case "clock":
                self._offset_ns += self.rng.choice((1, -1)) * int(LONGEST_JUMP_S ** self.rng.random() * NS)
                set_clock(self.clock_file, self._offset_ns)
                await asyncio.sleep(self.rng.uniform(0.05, 0.5))
            case "full":
                no_room = full(self.data_dir, server.process.pid, self.rng, self.small_disk)
                with no_room, contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(server.process.wait(), ENDS_S)
                    life.ended_itself = True

    async def finish(self) -> None:
        """Start once more in peace, stop cleanly, and look for everything that was promised."""
        async with self._server() as server:
            if await server.interrupt():
                self.wrong.append("the last server did not stop cleanly")
        self.wrong += audit(self.data_dir).differences
        cids, times, cancelled = self._in_the_log()
        self.wrong += [
            f"{cid} of account {account} is {count} orders" for (account, cid), count in times.items() if count > 1
        ]
        for number, life in enumerate(self.lives):
            for promised in life.promised.values():
                lost = [oid for oid, cid in promised.placed.items() if cids.get(oid) != cid]
                lost += promised.cancelled - cancelled
                self.lost[number] += len(lost)
                self.wrong += [f"life {number} ({life.kind}): order {oid} or its cancel is lost" for oid in lost]

    def _in_the_log(self) -> tuple[dict[int, str], Counter[tuple[int, str]], set[int]]:
        """Order -> cid; how many orders each account's cid became; the orders that were cancelled."""
        cids: dict[int, str] = {}
        times: Counter[tuple[int, str]] = Counter()
        cancelled: set[int] = set()
        engine = Engine()
        for commands in read_log(self.data_dir / "log"):
            events = engine.apply(commands)
            placed = events[events["kind"] == EventKind.NEW]
            rows = commands[np.searchsorted(commands["seq"], placed["command_seq"])]
            for oid, account, name in zip(placed["order_id"].tolist(), placed["account"].tolist(), rows, strict=True):
                cids[oid] = unpack_id(name["cl_ord_id"])
                times[account, cids[oid]] += 1
            cancelled |= set(events["order_id"][events["kind"] == EventKind.CANCELED].tolist())
        return cids, times, cancelled

    def report(self) -> None:
        """The table."""
        print(f"{'':8} {'lives':>6} {'acknowledged':>13} {'recovered':>10} {'lost':>5} {'start, median':>14}")
        for kind in [*KINDS, ""]:
            numbers = [at for at, life in enumerate(self.lives) if kind in (life.kind, "")]
            if not numbers:
                continue
            acknowledged = sum(self.lives[at].acknowledged for at in numbers)
            lost = sum(self.lost[at] for at in numbers)
            start_s = statistics.median(self.lives[at].start_s for at in numbers)
            print(
                f"{kind or 'all':8} {len(numbers):>6,} {acknowledged:>13,} {acknowledged - lost:>10,} {lost:>5,}"
                f" {start_s:>12.2f} s"
            )
        ended = [life.ended_itself for life in self.lives if life.kind == "full"]
        if ended:
            where = "a tmpfs and a limit on files" if self.small_disk else "a limit on files"
            print(
                f"full disk ({where}): {sum(ended)} of {len(ended)} ended by themselves with an error, the others were killed"
            )
        print(f"wrong: {self.wrong[:5] or 'nothing'}")
        quarter = max(1, len(self.lives) // 4)
        for part in range(0, len(self.lives), quarter):
            some = self.lives[part : part + quarter]
            size, seconds = (
                statistics.median(one.log_bytes for one in some),
                statistics.median(one.start_s for one in some),
            )
            print(
                f"start to open port, lives {part + 1} on: median {seconds:.2f} s with a log of {size / 1024:,.0f} KiB"
            )
        print(replay_speed(self.data_dir))


async def _leave(client: Client) -> None:
    with contextlib.suppress(Exception):
        await client.__aexit__(None, None, None)


@contextlib.contextmanager
def full(data_dir: Path, pid: int, rng: random.Random, small_disk: bool) -> Iterator[None]:
    """No room any more: nothing left of the file system, or files that may not grow."""
    room = rng.randrange(16_384)
    if not small_disk or rng.random() < 0.5:
        newest = max(data_dir.glob("log/*.log"), key=lambda path: path.name)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (newest.stat().st_size + room, resource.RLIM_INFINITY))
        yield
        return
    ballast = data_dir / "ballast"
    try:
        with open(ballast, "wb") as file:
            fill(file.fileno(), data_dir, room)
        yield
    finally:
        ballast.unlink()


def fill(descriptor: int, directory: Path, room: int) -> None:
    """Take all that is free but `room` bytes, in smaller and smaller pieces: the server takes of it at the same time."""
    taken, piece = 0, 1 << 22
    while piece >= room // 2 + 1:
        state = os.statvfs(directory)
        if state.f_bavail * state.f_frsize - room < piece:
            piece //= 2
            continue
        try:
            os.posix_fallocate(descriptor, taken, piece)
            taken += piece
        except OSError:
            piece //= 2


@contextlib.contextmanager
def small_disk() -> Iterator[tuple[Path, bool]]:
    """A directory on a file system of its own where this user may mount one, else anywhere."""
    with tempfile.TemporaryDirectory(prefix="wellhead-crash-") as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", name]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            mounted = False
        try:
            yield Path(name), mounted
        finally:
            if mounted:
                subprocess.run(["umount", name], check=False)


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


async def run(kills: int, seed: int, data_dir: Path, mounted: bool = False, kinds: tuple[str, ...] = ()) -> int:
    """A campaign of so many lives, of these kinds in turn or of all at random; an exit code."""
    rng = random.Random(seed)
    campaign, keys = Campaign(data_dir, rng, mounted), make_keys(data_dir, *ACCOUNTS)
    for number in range(kills):
        kind = kinds[number % len(kinds)] if kinds else rng.choices(list(KINDS), list(KINDS.values()))[0]
        await campaign.life(keys, kind)
        if number % 50 == 0:
            print(f"{number + 1} of {kills} lives", flush=True)
    await campaign.finish()
    campaign.report()
    return int(bool(campaign.wrong))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m tests.wellhead.crash_campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=20, help="lives")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with small_disk() as (folder, mounted):
        return asyncio.run(run(options.kills, options.seed, folder, mounted))


if __name__ == "__main__":
    sys.exit(main())
