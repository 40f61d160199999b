"""`python -m tests.cluster.campaign`: a real cluster under load loses servers, replicas, gateways, books and lines.

Three NATS servers, replicas, gateways and books as processes. Clients place orders through all gateways, each again with
the same cid until it is answered. Faults happen one after the other; each time the longest while without any answer is
noted. All the while the books trim the journal, so that whoever comes back joins behind what is gone, which a witness has read.
In the end a checker (tests/cluster/history.py) goes through what the witness has, and the books' directory is audited as
that of a single node. Between servers, and from all parts to them, there are proxies that can be cut.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from engine.jetstream import Reader, end, ends_of, join, patiently
from engine.sequencing import Entry, Journal
from gateway.auth import KeyStore
from tests.cluster.history import History, Told, problems
from tests.cluster.lines import Line
from tests.cluster.local import HOURS, last_hour
from wellhead import Client, WellheadError
from wellhead.audit import audit
from wellhead.cluster.ask import ask_replicas, differences
from wellhead.cluster.config import ClusterConfig, write_config
from wellhead.cluster.local import LocalCluster, Process
from wellhead.cluster.marks import Marker
from wellhead.cluster.servers import LocalServers
from wellhead.compiled import warm_up
from wellhead.types import Rejected

ACCOUNTS = ("ann", "bob", "cyd")
SCOPES = ("read", "trade", "provide")
TASKS = 3  # of each account
REQUEST_S = 4.0
SETTLE_S = 90.0


OPTIONS = {
    "markets": ("H100S-USE",), "list_hours": HOURS, "paper_micros": 10**15, "name": "USE", "restart_grace_ms": 3_000,
    "snapshot_every_commands": 200, "keep_entries": 20, "trim_every_s": 1, "mark_every_ms": 500,
}  # fmt: skip
"""Snapshots and trimming come often: a campaign is short."""


class CutCluster(LocalCluster):
    """A cluster on this machine with a line for each two that speak."""

    def __init__(self, directory: Path, replicas: int, gateways: int) -> None:
        nats = LocalServers(directory, 3)
        self.lines_of: dict[tuple[str, str], Line] = {}
        self.own_configs: dict[str, Path] = {}
        super().__init__(directory, 3, replicas, gateways, options=OPTIONS, nats=nats, keeps_books=True)

    def config_of(self, name: str) -> Path:
        return self.directory / f"{name}.toml"

    async def up(self) -> None:
        for one in range(3):
            for other in range(3):
                if one != other:
                    line = await self._line(f"n{one}", f"n{other}", self.nats.cluster_ports[other])
                    self.nats.routes[one, other] = f"nats://127.0.0.1:{line.port}"
        for process in self.processes:
            lines = [await self._line(process.name, f"n{n}", port) for n, port in enumerate(self.nats.ports)]
            urls = tuple(f"nats://127.0.0.1:{line.port}" for line in lines)
            write_config(self.config_of(process.name), self._through(urls))
        await super().up()

    def _through(self, urls: tuple[str, ...]) -> ClusterConfig:
        return msgspec.structs.replace(self.config, nats=msgspec.structs.replace(self.config.nats, urls=urls))

    async def _line(self, one: str, other: str, target: int) -> Line:
        line = self.lines_of[one, other] = Line(target)
        await line.open()
        return line

    def around(self, name: str, *, only_servers: bool = False) -> list[Line]:
        """The lines from and to somebody; of a server, with `only_servers`, those to other servers."""
        found = [(pair, line) for pair, line in self.lines_of.items() if name in pair]
        return [line for pair, line in found if not only_servers or all(end.startswith("n") for end in pair)]

    def stop(self) -> None:
        super().stop()
        for line in self.lines_of.values():
            line.close()


class Witness:
    """Reads the journal from its first entry on. Nothing is trimmed that it has not read."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self.journal, self.entries = Journal(), list[Entry]()
        self._seq = 0

    async def start(self) -> None:
        shard = self._config.shard
        self._client = await join(self._config.nats.servers, shard, "witness")
        marker = Marker(self._client, shard, "archive", "witness", lambda: (self._seq, -1))
        await patiently(marker.note)
        self._reader = Reader(self._client, shard.journal)
        await self._reader.start()
        self._tasks = [asyncio.create_task(job) for job in (self._read(), marker.run(500))]

    async def _read(self) -> None:
        while True:
            for message in await self._reader.read():
                if (entry := self.journal.take(message.data)) is not None:
                    self.entries.append(entry)
                self._seq = message.seq

    async def stop(self) -> tuple[int, int]:
        """The entries that the journal still has: the first and the last."""
        await end(self._tasks)
        await self._reader.stop()
        ends = await ends_of(self._client, self._config.shard.journal)
        await self._client.close()
        return ends


class Campaign:
    """A cluster, its load, its faults."""

    def __init__(self, directory: Path, seed: int, replicas: int = 2) -> None:
        warm_up()  # once, not by each process
        self.cluster = CutCluster(directory, replicas, 2)
        self.rng = random.Random(seed)
        self.history = History()
        self.pauses: dict[str, list[float]] = {}
        self.faults: dict[str, Callable[[], Awaitable[None]]] = {
            "replica that writes: kill -9": self.kill_writer,
            "server that leads the journal: kill -9": self.kill_leader,
            "gateway: kill -9": self.kill_gateway,
            "replica that writes: SIGSTOP": self.stop_writer,
            "another server: kill -9": self.kill_follower,
            "replica that writes: cut off": self.cut_writer,
            "leading server: cut off from the others": self.cut_leader,
            "gateway: cut off": self.cut_gateway,
            "books: kill -9": self.kill_books,
            "everything: kill -9": self.kill_all,
        }
        store = KeyStore(directory / "keys.json")
        self.keys = {
            (account, place): store.create(f"{account}.{place}", account, scopes=SCOPES) or ""
            for account in ACCOUNTS
            for place in (0, 1)
        }

    # --- Load ---------------------------------------------------------------------------------------------------------

    async def load(self, clients: dict[tuple[str, int], Client], account: str, task: int, symbol: str) -> None:
        """Orders one after the other, each sent until it is answered, at this gateway or at that."""
        rng, at, number = random.Random(f"{account}{task}"), task % 2, 0
        while True:
            number += 1
            at = at if number % 20 else task % 2  # after a fault, home again some time
            side = rng.choice(("buy", "sell"))
            order: dict[str, Any] = {"sym": symbol, "side": side, "qty": rng.randint(1, 3)}
            order |= {"px": f"2.{rng.randint(300, 320)}", "cid": f"{account}-{task}-{number}"}
            sent_at = time.monotonic()
            while True:
                try:
                    ack = await clients[account, at].place(**order)
                    self.history.told.append(Told(account, order["cid"], ack.oid, sent_at, time.monotonic()))
                    break
                except Rejected:
                    self.history.refused += 1
                    break
                except WellheadError:
                    at = 1 - at

    # --- Faults -------------------------------------------------------------------------------------------------------

    async def writer(self) -> Process:
        """The replica that wrote the last entry."""
        found = await ask_replicas(self.cluster.config)
        names = [one["name"] for one in found if one["writer"] == one["name"]]
        return next((one for one in self.cluster.replicas if one.name in names), self.cluster.replicas[0])

    async def leader(self) -> int:
        """The server that leads the journal."""
        client = await self.cluster.nats.servers.connect("campaign")
        try:
            info = await client.jetstream().stream_info(self.cluster.config.shard.journal)
            return int((info.cluster.leader or "n0")[1:]) if info.cluster else 0
        finally:
            await client.close()

    async def again(self, process: Process) -> None:
        process.signal(signal.SIGKILL)
        await asyncio.sleep(self.rng.uniform(0.5, 1.5))
        process.start()

    async def kill_writer(self) -> None:
        await self.again(await self.writer())

    async def kill_gateway(self) -> None:
        await self.again(self.rng.choice(self.cluster.gateways))

    async def kill_books(self) -> None:
        await self.again(self.cluster.books[0])

    async def stop_writer(self) -> None:
        process = await self.writer()
        process.signal(signal.SIGSTOP)
        await asyncio.sleep(3)
        process.signal(signal.SIGCONT)

    async def restart_server(self, number: int) -> None:
        self.cluster.nats.signal(number, signal.SIGKILL)
        await asyncio.sleep(self.rng.uniform(1, 3))
        self.cluster.nats.start(number)

    async def kill_leader(self) -> None:
        await self.restart_server(await self.leader())

    async def kill_follower(self) -> None:
        leader = await self.leader()
        await self.restart_server(self.rng.choice([number for number in range(3) if number != leader]))

    async def cut(self, lines: list[Line], seconds: float) -> None:
        for line in lines:
            line.cut()
        await asyncio.sleep(seconds)
        for line in lines:
            line.mend()

    async def cut_writer(self) -> None:
        await self.cut(self.cluster.around((await self.writer()).name), 4)

    async def cut_gateway(self) -> None:
        await self.cut(self.cluster.around(self.rng.choice(self.cluster.gateways).name), 4)

    async def cut_leader(self) -> None:
        await self.cut(self.cluster.around(f"n{await self.leader()}", only_servers=True), 8)

    async def kill_all(self) -> None:
        for number in range(3):
            self.cluster.nats.signal(number, signal.SIGKILL)
        for process in self.cluster.processes:
            process.signal(signal.SIGKILL)
        for number in range(3):
            self.cluster.nats.start(number)
        await self.cluster.nats.ready()
        for process in self.cluster.processes:
            process.start()
        for process in self.cluster.processes:
            await process.ready()

    # --- The campaign -------------------------------------------------------------------------------------------------

    async def run(self, faults: list[str], calm_s: float) -> list[str]:
        """Cause faults under load, each when all are back; what is wrong in the end."""
        await self.cluster.up()
        witness = Witness(self.cluster.config)
        await witness.start()
        async with contextlib.AsyncExitStack() as stack:
            clients = {}
            for (account, place), private in self.keys.items():
                client = Client(
                    self.cluster.urls[place], key=f"{account}.{place}", private_key=private, timeout_s=REQUEST_S
                )
                clients[account, place] = await stack.enter_async_context(client)
            symbol = await last_hour(clients["ann", 0])
            for account in ACCOUNTS:  # capacity, so that they can sell too
                await clients[account, 0].request("capacity.nominate", sym=symbol, lots=100_000)
            tasks = [
                asyncio.create_task(self.load(clients, account, task, symbol))
                for account in ACCOUNTS
                for task in range(TASKS)
            ]
            await asyncio.sleep(calm_s)
            for name in faults:
                began = time.monotonic()
                await self.faults[name]()
                await self.answered(tasks)
                await asyncio.sleep(calm_s)
                await asyncio.gather(*(process.ready() for process in self.cluster.processes))
                pause = self.history.longest_gap(began, time.monotonic())
                self.pauses.setdefault(name, []).append(pause)
                print(f"{name}: longest while without an answer {pause:.2f} s", flush=True)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return await self.check(witness)

    async def answered(self, tasks: list["asyncio.Task[None]"]) -> None:
        """Wait until answers come again. Raises TimeoutError, and what ended a task."""
        before = len(self.history.told) + self.history.refused
        async with asyncio.timeout(SETTLE_S):
            while len(self.history.told) + self.history.refused < before + 2 * len(tasks):
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.05)

    async def check(self, witness: Witness) -> list[str]:
        """Wait until all replicas stand at the same place, and hold everything against the journal."""
        config, found = self.cluster.config, list[dict[str, Any]]()
        async with asyncio.timeout(SETTLE_S):
            while len(found) < len(self.cluster.replicas) or not at_one_place(found):
                found = await ask_replicas(config, b"hash")
            confirmed_in = found[0]["confirmed_in"]
            while witness.journal.in_seq < confirmed_in:
                await asyncio.sleep(0.05)
        first, last = await witness.stop()
        # The clock goes on: what came after they were asked is not in their hashes.
        entries = [entry for entry in witness.entries if entry.last_in <= confirmed_in]
        count = sum(len(part.commands) for entry in entries for part in entry.parts)
        print(
            f"{len(self.history.told):,} orders acknowledged, {self.history.refused:,} refused; the journal had",
            end=" ",
        )
        print(f"{count:,} commands in {len(entries):,} entries; {len(found)} replicas, state {found[0]['state'][:16]}")
        print(f"of {last:,} entries the journal has those from {first:,} on")
        wrong = differences(found) + problems(self.history, entries, [one["state"] for one in found])
        return wrong + await asyncio.to_thread(self.audit_books)

    def audit_books(self) -> list[str]:
        """What `wellhead verify` says of the books' directory: log, engine, ledger and statements agree."""
        self.cluster.books[0].stop()
        report = audit(self.cluster.directory / "books")
        print("books:", "; ".join(" ".join(line.split()) for line in report.lines))
        return report.differences

    def report(self) -> None:
        """A line for each kind of fault."""
        for name, pauses in self.pauses.items():
            middle = statistics.median(pauses)
            print(f"{name}: {len(pauses)} times, pause median {middle:.2f} s, longest {max(pauses):.2f} s")


def at_one_place(found: list[dict[str, Any]]) -> bool:
    """Whether all replicas have applied the same, and nothing that is not in the journal."""
    return (
        len({(one["in_seq"], one["confirmed_in"]) for one in found}) == 1
        and found[0]["in_seq"] == found[0]["confirmed_in"]
    )


async def run(rounds: int, seed: int, directory: Path, names: list[str] | None = None) -> int:
    """A campaign; an exit code. With the names of some faults it has shorter calms."""
    campaign = Campaign(directory, seed, replicas=2 if names else 3)
    try:
        wrong = await campaign.run((names or list(campaign.faults)) * rounds, 0.3 if names else 2.0)
    finally:
        campaign.cluster.stop()
    campaign.report()
    print(f"wrong: {wrong[:5] or 'nothing'}")
    return int(bool(wrong) or not campaign.history.told)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.cluster.campaign", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault happens")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wellhead-cluster-") as folder:
        return asyncio.run(run(options.rounds, options.seed, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
