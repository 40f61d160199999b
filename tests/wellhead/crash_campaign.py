"""`python -m tests.wellhead.crash_campaign --kills 1000`: the real server, ended again and again under load.

Lives follow each other on one data directory. In each, clients trade until, at a random instant, something happens:

    kill      kill -9
    start     kill -9 while it starts and recovers
    snapshot  kill -9 while it writes a snapshot
    settle    the clock comes to a gate, a delivery or a cycle's end, and it is killed as the books follow
    leave     it is told to stop, and killed while it does
    stop      it stands still (SIGSTOP) with requests under way, and is killed
    pause     it stands still, goes on, and is killed a moment later
    full      the disk is full (a small tmpfs where one may be mounted, or a limit on the size of files), until it ends
    clock     its clock is set forward or back, by up to two hours, and it is killed a moment later

What was sent and not answered is sent again in the next life, under the same name. After some lives the directory is
retired: the server is asked in peace for working orders and fills, and stopped; then everything that was ever
acknowledged is looked for in the log (each order under its number and its client's name for it, once; each cancel; each
lot traded), what the server said is held against the log, and the directory is audited. A directory with anything wrong
is kept.

Most servers are forked from a process that has read all code (`forked.py`), so that a life takes a few tenths of a second;
a share of them is started from nothing.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from engine.catalogue import NS
from tests.wellhead.crash_disk import full, small_disk
from tests.wellhead.crash_load import ACCOUNTS, TASKS, Logged, Member, Promised, Told
from tests.wellhead.forked import ForkedServer, prepare
from tests.wellhead.process import ServerProcess
from tests.wellhead.set_clock import set_clock
from tests.wellhead.test_kill import OPTIONS, make_keys
from wellhead import Client, WellheadError
from wellhead.audit import audit

KINDS = {
    "kill": 42, "start": 16, "snapshot": 12, "settle": 8, "leave": 5, "stop": 5, "pause": 4, "full": 4, "clock": 4,
}  # fmt: skip
SNAPSHOTS_EVERY = (40, 400, 2_000_000)  # commands
BOOKS_APART = 0.2  # the share whose books are a process of their own, which dies after the server
COPIED = 0.2  # the share that copies its state for a snapshot, where others fork
LOAD_S = (0.005, 0.12)
START_S = 0.6  # within which a start is interrupted, more often early than late
LONGEST_JUMP_S = 7_200
BORDERS_S = (900, 3_600, 4 * 3_600)  # gates are on quarters of an hour, deliveries end on hours, cycles after four
ENDS_S = 10  # in which a server whose disk is full should have ended
SNAPSHOT_S = 0.4  # in which one should have been begun
UNEXPECTED = ("Traceback", "wellhead:", "passed over")


@dataclass
class Life:
    """One start and one end."""

    kind: str
    cold: bool
    log_bytes: int
    start_s: float | None = None  # to the open port
    ended_itself: bool = False
    in_snapshot: bool = False  # one was being written
    lost: int = 0
    promised: dict[str, Promised] = field(default_factory=lambda: {name: Promised() for name in ACCOUNTS})

    @property
    def acknowledged(self) -> int:
        return sum(map(len, self.promised.values()))


class Directory:
    """A data directory and its lives."""

    def __init__(self, place: Path, rng: random.Random, on_small_disk: bool) -> None:
        self.data_dir, self._rng, self._on_small_disk = place / "data", rng, on_small_disk
        self._clock, self._offset_ns = place / "clock", 0
        self._place = place
        self._members = [Member(name, key) for name, key in make_keys(self.data_dir, *ACCOUNTS).items()]
        self.lives: list[Life] = []
        self.wrong: list[str] = []

    async def life(self, kind: str, cold: bool) -> None:
        """One start, some load, one end."""
        life = Life(kind, cold, sum(path.stat().st_size for path in self.data_dir.glob("log/*.log")))
        self.lives.append(life)
        server = self._server(cold, SNAPSHOTS_EVERY[0] if kind == "snapshot" else self._rng.choice(SNAPSHOTS_EVERY))
        begun, begun_s = time.perf_counter(), time.time()
        await server.launch()
        try:
            if kind == "start":
                await asyncio.sleep(START_S * self._rng.random() ** 2)
            else:
                await server.listens()
                life.start_s = time.perf_counter() - begun
                await self._under_load(life, server)
        except (AssertionError, WellheadError) as error:
            self.wrong.append(f"life {len(self.lives)} ({kind}): {error}")
        finally:
            await server.__aexit__()
        life.ended_itself = server.process.returncode != -signal.SIGKILL
        life.in_snapshot = any(path.stat().st_mtime > begun_s for path in self.data_dir.glob("snapshots/*.new"))
        await self._listen(life, server)

    async def _under_load(self, life: Life, server: ServerProcess) -> None:
        async with contextlib.AsyncExitStack() as stack:
            tasks: list[asyncio.Task[None]] = []
            stack.push_async_callback(_end, tasks)
            for member in self._members:
                client = Client(server.url, key=member.name, private_key=member.private_key, reconnect=False)
                await client.__aenter__()
                stack.push_async_callback(_leave, client)
                promised = life.promised[member.name]
                await member.ask_again(client, promised)
                tasks += [
                    asyncio.create_task(member.trade(client, promised, random.Random(self._rng.random())))
                    for _ in range(TASKS)
                ]
            await asyncio.sleep(self._rng.uniform(*LOAD_S))
            await self._happen(life, server)
            if server.process.returncode is None:
                await server.kill()

    def _server(self, cold: bool, snapshot_every: int) -> ServerProcess:
        set_clock(self._clock, self._offset_ns)
        apart = "true" if self._rng.random() < BOOKS_APART else "false"
        forks = "false" if self._rng.random() < COPIED else "true"
        config = self._place / "wellhead.toml"
        config.write_text(
            f"snapshot_every_commands = {snapshot_every}\nfork_snapshots = {forks}\nbooks_process = {apart}\n"
        )
        options = (*OPTIONS, "--config", str(config))
        if cold:
            return ServerProcess(self.data_dir, *options, quiet=True, clock=self._clock)
        return ForkedServer(self.data_dir, *options, clock=self._clock)

    async def _happen(self, life: Life, server: ServerProcess) -> None:
        rng = self._rng
        match life.kind:
            case "snapshot":
                await self._snapshot_begins()
            case "settle":
                self._set_clock(self._next_ns(rng.choice(BORDERS_S)) - rng.randrange(NS // 50))
                await asyncio.sleep(rng.uniform(0, 0.3))
            case "leave":
                server.process.send_signal(signal.SIGINT)
                await asyncio.sleep(rng.uniform(0, 0.1))
            case "stop" | "pause":
                server.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(rng.uniform(0.01, 0.1))
                if life.kind == "pause":
                    server.process.send_signal(signal.SIGCONT)
                    await asyncio.sleep(rng.uniform(0.01, 0.2))
            case "clock":
                self._set_clock(self._now_ns() + rng.choice((1, -1)) * int(LONGEST_JUMP_S ** rng.random() * NS))
                await asyncio.sleep(rng.uniform(0.01, 0.3))
            case "full":
                no_room = full(self.data_dir, server.process.pid, rng, self._on_small_disk)
                with no_room, contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(server.process.wait(), ENDS_S)

    async def _snapshot_begins(self) -> None:
        """Wait for a snapshot's draft, and a moment."""
        until = time.perf_counter() + SNAPSHOT_S
        while time.perf_counter() < until and not any(self.data_dir.glob("snapshots/*.new")):
            await asyncio.sleep(0)
        await asyncio.sleep(self._rng.choice((0, self._rng.uniform(0, 0.005))))

    def _now_ns(self) -> int:
        return time.time_ns() + self._offset_ns

    def _next_ns(self, border_s: int) -> int:
        return (self._now_ns() // (border_s * NS) + 1) * border_s * NS

    def _set_clock(self, now_ns: int) -> None:
        self._offset_ns = now_ns - time.time_ns()
        set_clock(self._clock, self._offset_ns)

    async def _listen(self, life: Life, server: ServerProcess) -> None:
        """A server that was killed has nothing to complain of, and none ends by itself but on a full disk or when told."""
        assert server.process.stdout is not None
        said = (await server.process.stdout.read()).decode(errors="replace")
        if life.kind != "full" and any(word in said for word in UNEXPECTED):
            self.wrong.append(f"life {len(self.lives)} ({life.kind}) said: {said[-2_000:]}")
        elif life.ended_itself and life.kind not in ("full", "leave"):
            self.wrong.append(f"life {len(self.lives)} ({life.kind}) ended by itself: {server.process.returncode}")

    async def retire(self) -> None:
        """Start once more in peace, ask, stop cleanly, and look for everything that was promised."""
        told: dict[str, Told] = {}
        # Between two borders: at a gate orders would end after they were asked for.
        self._set_clock(self._next_ns(BORDERS_S[0]) + 30 * NS)
        try:
            async with self._server(False, SNAPSHOTS_EVERY[-1]) as server:
                for member in self._members:
                    async with Client(server.url, key=member.name, private_key=member.private_key) as client:
                        told[member.name] = await Told.ask(client)
                if await server.interrupt():
                    self.wrong.append("the last server did not stop cleanly")
            self.wrong += audit(self.data_dir).differences
            self._hold_against_the_log(told)
        except Exception as error:
            self.wrong.append(f"a directory cannot be read any more: {error!r}")

    def _hold_against_the_log(self, told: dict[str, Told]) -> None:
        log = Logged(self.data_dir / "log")
        self.wrong += log.doubled()
        for name, one in told.items():
            self.wrong += log.differs(name, one)
        for number, life in enumerate(self.lives, 1):
            lost = [what for promised in life.promised.values() for what in log.lost(promised)]
            life.lost = len(lost)
            self.wrong += [f"life {number} ({life.kind}): {what} is lost" for what in lost]


async def _leave(client: Client) -> None:
    with contextlib.suppress(Exception):
        await client.__aexit__(None, None, None)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Plan:
    """How many lives, of which kinds (in turn, or by their shares at random), and how many on one directory."""

    kills: int = 20
    seed: int = 1
    per_directory: int = 40
    cold: float = 0.03  # the share that is started from nothing
    kinds: tuple[str, ...] = ()


class Campaign:
    """Directories one after the other, on a small disk of their own and on the ordinary one in turn."""

    def __init__(self, plan: Plan, places: list[tuple[Path, bool]]) -> None:
        """`places` are directories to work in, and whether each is on a small disk."""
        self._plan, self._places, self._rng = plan, itertools.cycle(places), random.Random(plan.seed)
        self.lives: list[Life] = []
        self.wrong: list[str] = []

    async def run(self) -> None:
        """All lives."""
        began = time.perf_counter()
        while len(self.lives) < self._plan.kills:
            root, on_small_disk = next(self._places)
            place = Path(tempfile.mkdtemp(dir=root, prefix="lives-"))
            directory = Directory(place, self._rng, on_small_disk)
            await self._live(directory)
            if directory.wrong:
                _keep(place, directory.wrong)
            shutil.rmtree(place)
            self.wrong += directory.wrong
            passed_s = time.perf_counter() - began
            print(f"{len(self.lives):,} lives in {passed_s:,.0f} s, wrong: {len(self.wrong)}", flush=True)

    async def _live(self, directory: Directory) -> None:
        for _ in range(min(self._plan.per_directory, self._plan.kills - len(self.lives))):
            await directory.life(self._kind(), self._rng.random() < self._plan.cold)
            self.lives.append(directory.lives[-1])
            if directory.wrong:
                break
        await directory.retire()

    def _kind(self) -> str:
        if self._plan.kinds:
            return self._plan.kinds[len(self.lives) % len(self._plan.kinds)]
        return self._rng.choices(list(KINDS), list(KINDS.values()))[0]

    def report(self) -> None:
        """The tables."""
        print(f"\n{'':9}{'kills':>7}{'ended itself':>14}{'acknowledged':>14}{'recovered':>11}{'lost':>6}")
        for kind in [*KINDS, ""]:
            lives = [life for life in self.lives if kind in (life.kind, "")]
            ended, acknowledged = sum(life.ended_itself for life in lives), sum(life.acknowledged for life in lives)
            lost = sum(life.lost for life in lives)
            print(
                f"{kind or 'all':9}{len(lives) - ended:>7,}{ended:>14,}{acknowledged:>14,}{acknowledged - lost:>11,}{lost:>6,}"
            )
        inside, cold = sum(life.in_snapshot for life in self.lives), sum(life.cold for life in self.lives)
        print(
            f"{inside:,} were killed with a snapshot half written; {cold:,} were started from nothing, the rest forked"
        )
        self._report_starts()
        print(f"wrong: {self.wrong[:5] or 'nothing'}")

    def _report_starts(self) -> None:
        """From the fork to the open port."""
        starts = sorted((life.log_bytes, life.start_s) for life in self.lives if life.start_s and not life.cold)
        print("\nlog, KiB       starts   to the open port: median      p99")
        quarter = max(1, len(starts) // 4)
        for part in (starts[at : at + quarter] for at in range(0, quarter * 4, quarter)):
            times = sorted(seconds for _, seconds in part)
            if times:
                p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
                span = f"{part[0][0] >> 10:,} to {part[-1][0] >> 10:,}"
                print(f"{span:14}{len(part):>7,}{statistics.median(times):>25.2f} s{p99:>7.2f} s")


def _keep(place: Path, wrong: list[str]) -> None:
    kept = tempfile.mkdtemp(prefix="wellhead-crash-wrong-")
    shutil.copytree(place, kept, dirs_exist_ok=True)
    print(f"kept in {kept}:", *wrong[:5], sep="\n  ", flush=True)


async def run(plan: Plan) -> int:
    """A campaign; an exit code."""
    prepare()
    with small_disk() as disk, tempfile.TemporaryDirectory(prefix="wellhead-crash-") as ordinary:
        places = [(Path(ordinary), False)]
        if disk is not None:
            places.insert(0, (disk, True))
        campaign = Campaign(plan, places)
        await campaign.run()
    if not any(life.acknowledged for life in campaign.lives):
        campaign.wrong.append("nothing was ever acknowledged")
    print(f"full disks: {'a tmpfs, and' if len(places) > 1 else 'only'} a limit on the size of files")
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
    parser.add_argument("--per-directory", type=int, default=40, metavar="LIVES", help="after which one is retired")
    parser.add_argument("--cold", type=float, default=0.03, metavar="SHARE", help="of the lives: started from nothing")
    parser.add_argument("--kind", action="append", default=[], choices=KINDS, help="only this; repeat for more")
    given = parser.parse_args()
    plan = Plan(given.kills, given.seed, given.per_directory, given.cold, tuple(given.kind))
    return asyncio.run(run(plan))


if __name__ == "__main__":
    sys.exit(main())
