"""wellhead cluster up | replica | gateway | books | archive | trim | forget | allocate | move | status | export."""

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import click
from rich.console import Console
from rich.table import Table

from engine.log import LogError
from engine.types import Reason

if TYPE_CHECKING:
    from wellhead.cluster.config import ClusterConfig

console = Console()
errors = Console(stderr=True)

config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
    help="The cluster's TOML file.",
)  # fmt: skip
name_option = click.option("--name", required=True, help="What this process is called; unlike all others.")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Log what happens.")


@click.group()
def cluster() -> None:
    """More than one machine: replicas and gateways over NATS JetStream."""
    if find_spec("nats") is None:
        _fail("this needs `pip install wellhead[cluster]`", 2)


def _fail(message: str, code: int = 1) -> NoReturn:
    errors.print(f"[bold red]wellhead:[/] {message}", highlight=False, soft_wrap=True)
    sys.exit(code)


class Runs(Protocol):
    """A replica or a gateway."""

    async def start(self) -> None: ...

    async def failed(self) -> None: ...

    async def stop(self) -> None: ...


def _read(path: Path, verbose: bool = False) -> "ClusterConfig":
    from wellhead.cluster.config import ConfigError, read_config  # noqa: PLC0415 - needs the extra
    from wellhead.logs import set_up  # noqa: PLC0415 - only here

    set_up(logging.INFO if verbose else logging.WARNING)
    try:
        return read_config(path)
    except ConfigError as error:
        _fail(str(error), 2)


def _run(job: Coroutine[Any, Any, None]) -> None:
    from nats.errors import Error as NatsError  # noqa: PLC0415 - optional

    runner: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    try:
        import uvloop  # noqa: PLC0415 - not on every platform

        runner = uvloop.run
    except ImportError:
        pass
    try:
        runner(job)
    except (LogError, NatsError, OSError, RuntimeError) as error:
        _fail(str(error) or repr(error))


def _stop_event() -> asyncio.Event:
    """Set by Ctrl-C and by SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _until_stopped(part: Runs, ready: str) -> None:
    stop = _stop_event()
    await part.start()
    console.print(ready.format(part=part), highlight=False, soft_wrap=True)
    stopping, failed = asyncio.create_task(stop.wait()), asyncio.create_task(part.failed())
    await asyncio.wait([stopping, failed], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    try:
        if failed.done():
            failed.result()
    finally:
        failed.cancel()
        await part.stop()


@cluster.command()
@config_option
@name_option
@verbose_option
def replica(config_path: Path, name: str, verbose: bool) -> None:
    """Run an engine replica. It keeps nothing on this machine."""
    config = _read(config_path, verbose)
    from wellhead.cluster.replica import Replica  # noqa: PLC0415 - after the engine

    _run(_until_stopped(Replica(config, name), "replica {part.name} joined at command {part.joined_seq}"))


@cluster.command()
@config_option
@name_option
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="For its snapshots.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="0: any free one.")
@click.option(
    "--archive", type=click.Path(path_type=Path, file_okay=False),
    help="An archive's directory, or a copy, to start from where the journal does not go back far enough.",
)  # fmt: skip
@verbose_option
def gateway(config_path: Path, name: str, data: Path, port: int, archive: Path | None, verbose: bool) -> None:
    """Run a gateway: clients connect to it as to a single node."""
    config = _read(config_path, verbose)

    async def serve() -> None:
        from wellhead.cluster.station import Station  # noqa: PLC0415 - after the engine

        station = Station(config, name, data, port, archive=archive)
        await _until_stopped(station, "gateway {part.name} listens on {part.server.url}")

    _run(serve())


@cluster.command()
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), default=Path("wellhead-data/cluster"),
    show_default=True, help="Where its parts keep what they keep.",
)  # fmt: skip
@click.option("--nodes", type=click.Choice(["1", "3", "5"]), default="3", show_default=True, help="NATS servers.")
@click.option("--replicas", type=click.IntRange(1, 5), default=2, show_default=True)
@click.option("--gateways", type=click.IntRange(1, 8), default=2, show_default=True)
@click.option("--port", type=click.IntRange(0, 65_000), default=8_765, show_default=True, help="Of the first gateway.")
@click.option("--market", "markets", multiple=True, metavar="CLASS-REGION", help="List only this market; repeat.")
@click.option("--hours", type=click.IntRange(0, 72), default=0, help="List so many hours ahead; 0: to the end of D+2.")
@click.option(
    "--paper", type=click.IntRange(0, 1_000_000_000), default=0, help="Paper trading: dollars for each new account."
)
def up(
    data: Path, nodes: str, replicas: int, gateways: int, port: int, markets: tuple[str, ...], hours: int, paper: int
) -> None:  # fmt: skip
    """Start a small cluster on this machine, for trying out. Kill any of its processes: it is started again."""
    from wellhead.compiled import warm_up  # noqa: PLC0415 - compiles

    with errors.status("loading the engine (compiled once for each version)"):
        warm_up()
    from wellhead.cluster.local import LocalCluster  # noqa: PLC0415 - after the engine

    async def serve() -> None:
        stop = _stop_event()
        options = {"markets": markets, "list_hours": hours, "paper_micros": paper * 1_000_000}
        local = LocalCluster(data, int(nodes), replicas, gateways, port, options, keeps_books=True)
        try:
            await local.up()
            for line in local.lines():
                console.print(line, highlight=False, soft_wrap=True)
            watching = asyncio.create_task(local.keep(lambda line: errors.print(line, highlight=False)))
            await stop.wait()
            watching.cancel()
        finally:
            local.stop()

    try:
        _run(serve())
    except TimeoutError:
        _fail(f"the cluster did not come up; see the logs in {data}")


@cluster.command()
@config_option
def status(config_path: Path) -> None:
    """Ask all replicas where they stand, and all servers how they sync; show how far each reader of the journal is.

    Exits with 1 when two replicas differ or one part is missing.
    """
    config = _read(config_path)

    async def ask() -> None:
        from engine.jetstream import check_servers  # noqa: PLC0415 - optional
        from wellhead.cluster.ask import ask_replicas, differences  # noqa: PLC0415 - optional

        found = await ask_replicas(config, b"hash")
        table = Table("replica", "command", "input", "journal", "entries written", "joined at", "state")
        for one in found:
            name = f"{one['name']} *" if one["writer"] == one["name"] else one["name"]
            places = (one[field] for field in ("seq", "in_seq", "journal_seq", "written", "joined_seq"))
            table.add_row(name, *map(str, places), one["state"][:16])
        console.print(table)
        wrong = differences(found) if found else ["no replica answers"]
        servers = config.nats.servers
        console.print(await _readers(config))
        answered = await check_servers(servers)
        console.print(f"servers that sync always: {', '.join(answered)}")
        if len(answered) < servers.copies:
            wrong.append(f"{len(answered)} of {servers.copies} servers answer")
        if wrong:
            _fail("; ".join(wrong))

    _run(ask())


async def _readers(config: "ClusterConfig") -> Table:
    """What each reader has of the journal, and what the journal has."""
    from engine.jetstream import ends_of  # noqa: PLC0415 - optional
    from wellhead.cluster.marks import marks_of  # noqa: PLC0415

    client = await config.nats.servers.connect("wellhead-marks")
    try:
        first, last = await ends_of(client, config.shard.journal)
        marks = await marks_of(client, config.shard)
    finally:
        await client.close()
    table = Table("reader", "name", "has the journal up to", "noted", title=f"journal: entries {first:,} to {last:,}")
    now_s = time.time()
    for mark in marks:
        waited_for = "" if mark.is_binding(now_s, config.absent_s) else ", not waited for"
        table.add_row(mark.kind, mark.name, f"{mark.journal_seq:,}", f"{now_s - mark.noted_s:,.0f} s ago{waited_for}")
    return table


@cluster.command()
@config_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="A new folder.")
def export(config_path: Path, out: Path) -> None:
    """Copy the journal's commands into a data directory of a single node, which replays, audits and settles them."""
    config = _read(config_path)

    async def copy() -> None:
        from wellhead.cluster.ask import export_log  # noqa: PLC0415 - optional

        last = await export_log(config, out)
        console.print(json.dumps({"commands": last, "data": str(out)}))

    if out.exists():
        _fail(f"{out} exists; it will not be overwritten")
    _run(copy())


@cluster.command()
@config_option
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="For statements and keys."
)
@click.option(
    "--ledger", default="sqlite", show_default=True, help="sqlite, or postgresql://... that all shards share."
)
@verbose_option
def books(config_path: Path, data: Path, ledger: str, verbose: bool) -> None:
    """Keep a shard's books: post its journal, settle its cycles, send the deliveries that are due."""
    config = _read(config_path, verbose)

    async def keep() -> None:
        from wellhead.cluster.books import Bookkeeper  # noqa: PLC0415 - optional

        await _until_stopped(
            Bookkeeper(config, data, ledger), "books of {part.name} go on behind entry {part.journal_seq}"
        )

    _run(keep())


@cluster.command("archive")
@config_option
@name_option
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="For the log.")
@verbose_option
def keep_archive(config_path: Path, name: str, data: Path, verbose: bool) -> None:
    """Keep a shard's commands in a log of files, and trim its streams. Books do that too: this is for a second copy."""
    config = _read(config_path, verbose)

    async def keep() -> None:
        from wellhead.cluster.archive import Archivist  # noqa: PLC0415 - optional

        part = Archivist(config, name, data)
        await _until_stopped(part, "archive {part.name} goes on behind entry {part.journal_seq}")

    _run(keep())


@cluster.command()
@config_option
def trim(config_path: Path) -> None:
    """Purge of the journal what nobody needs, now, and say what keeps the rest. Whoever keeps an archive does it by itself."""
    config = _read(config_path)

    async def once() -> None:
        from wellhead.cluster.trim import Trimmer  # noqa: PLC0415 - optional

        client = await config.nats.servers.connect("wellhead-trim")
        try:
            first, last, held_by = await Trimmer(config).trim(client)
        finally:
            await client.close()
        found = {"first_entry": first, "last_entry": last, "held_by": held_by.who, "at_entry": held_by.journal_seq}
        console.print(json.dumps(found), soft_wrap=True)

    _run(once())


@cluster.command()
@config_option
@click.argument("kind", type=click.Choice(["replica", "gateway", "books", "archive"]))
@click.argument("name")
def forget(config_path: Path, kind: str, name: str) -> None:
    """Wait no more with trimming for a reader that will not come back. KIND and NAME are as `status` shows them."""
    config = _read(config_path)

    async def drop() -> None:
        from wellhead.cluster.marks import forget  # noqa: PLC0415 - optional

        client = await config.nats.servers.connect("wellhead-forget")
        try:
            if not await forget(client, config.shard, kind, name):
                _fail(f"no {kind} {name} is noted")
        finally:
            await client.close()

    _run(drop())


@cluster.command()
@click.option(
    "--config", "paths", type=click.Path(path_type=Path, exists=True, dir_okay=False), multiple=True, required=True,
    help="A shard's TOML file; one for each shard.",
)  # fmt: skip
@verbose_option
def allocate(paths: tuple[Path, ...], verbose: bool) -> None:
    """Carry money between shards, as their journals say. Any number of these may run."""
    configs = [_read(path, verbose) for path in paths]

    async def carry() -> None:
        from wellhead.cluster.allocation import Allocator  # noqa: PLC0415 - optional

        await _until_stopped(Allocator(configs), "allocator of " + ", ".join(config.name for config in configs))

    _run(carry())


@cluster.command()
@config_option
@click.option("--to", "there", required=True, help="The other shard's name.")
@click.argument("account", type=int)
@click.argument("micros", type=click.IntRange(1))
def move(config_path: Path, there: str, account: int, micros: int) -> None:
    """Move MICROS (10^-6 dollars) of an ACCOUNT, by its number here, to another shard."""
    config = _read(config_path)

    async def begin() -> None:
        from wellhead.cluster.allocation import withdrawal  # noqa: PLC0415
        from wellhead.cluster.ask import execute  # noqa: PLC0415 - optional

        part = await execute(config, withdrawal(account, there, micros))
        if reason := int(part.events["reason"][0]):
            _fail(f"refused: {Reason(reason).name}")
        console.print(f"{micros} micros of account {account} left {config.name} for {there}")

    _run(begin())
