"""The command line: wellhead serve | demo | keys | settle | meter | replay | verify."""

import asyncio
import contextlib
import gc
import json
import logging
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from engine.catalogue import Catalogue, CatalogueError
from engine.log import LogError, LogLocked
from gateway.auth import SCOPES, KeyStore, KeyStoreError
from wellhead.additions import load_catalogue
from wellhead.cluster.cli import cluster
from wellhead.config import Config

if TYPE_CHECKING:
    from wellhead.chaindesk import Desk
    from wellhead.custody import Custodian
    from wellhead.examine import Finding
    from wellhead.node import Node

MICROS = 1_000_000
DEFAULT_DATA = Path("wellhead-data")
console = Console()
errors = Console(stderr=True)

data_option = click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_DATA, show_default=True,
    help="Where the exchange keeps everything.",
)  # fmt: skip


PEM = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wellhead")
def main() -> None:
    """A spot exchange for compute: GPU-hours matched, cleared, delivered and settled."""


def _fail(message: str, code: int = 1) -> NoReturn:
    errors.print(f"[bold red]wellhead:[/] {message}", highlight=False, soft_wrap=True)
    sys.exit(code)


def _compile_kernels() -> None:
    """Load the engine, saying so when it has to be compiled first."""
    started = time.monotonic()
    with errors.status("loading the engine (it is compiled once for each version, which takes about a minute)"):
        from wellhead.compiled import warm_up  # noqa: PLC0415 - the import itself takes part of the time

        compiled = warm_up()
    if compiled:
        errors.print(f"engine compiled in {time.monotonic() - started:.0f} s; next time it is loaded", style="dim")


@main.command()
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_DATA / "demo", show_default=True
)
@click.option("--seconds", type=click.IntRange(6, 3_600), default=30, show_default=True, help="How long it trades.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same bots.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Websocket port; 0 takes a free one.")
@click.option("--plain", is_flag=True, help="Lines instead of a live screen.")
@click.option(
    "--node", "node_url", metavar="URL", help="Settle on this development node (anvil), not inside this process."
)
@click.option(
    "--chain/--no-chain", "chained", default=True, help="Settle on a chain, or only book deposits.  [default: chain]"
)
def demo(data: Path, seconds: int, seed: int, port: int, plain: bool, node_url: str | None, chained: bool) -> None:
    """Run a whole market on this machine: makers and takers on real prices, delivery, settlement, proof."""
    if node_url is not None and not chained:
        raise click.UsageError("--node names a chain, and --no-chain goes without one")
    _compile_kernels()
    from wellhead import demo as demonstration  # noqa: PLC0415 - after the engine

    sys.exit(
        demonstration.run(
            data_dir=data,
            seconds=seconds,
            seed=seed,
            port=port,
            plain=plain,
            chain=chained,
            node_url=node_url,
        )
    )


@main.command()
@data_option
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65_535), default=8_765, show_default=True)
@click.option(
    "--market", "markets", multiple=True, metavar="CLASS-REGION", help="List only this market; repeat for more."
)
@click.option("--hours", type=click.IntRange(0, 72), default=0, help="List so many hours ahead; 0: to the end of D+2.")
@click.option(
    "--paper", type=click.IntRange(0, 1_000_000_000), default=0, help="Paper trading: dollars for each new account."
)
@click.option(
    "--ledger",
    metavar="URL",
    default="",
    help="Where the books are: sqlite, or postgresql://...; else where they were last.",
)
@click.option(
    "--no-fsync", is_flag=True, help="Do not force the log to the disk. Loses acknowledged orders in a power cut."
)
@click.option("--tls-cert", type=PEM, help="Certificate chain (PEM); with --tls-key the port speaks TLS.")
@click.option("--tls-key", type=PEM, help="Its private key (PEM).")
@click.option(
    "--chain", type=PEM, help="A TOML file of stablecoins, chains and keys: deposits and withdrawals on chain."
)
@click.option("--origin", "origins", multiple=True, help="Pages of this origin may connect; repeat for more. *: any.")
@click.option("--config", "settings", type=PEM, help="A TOML file with any setting; options given here win.")
@click.option("--check", is_flag=True, help="Look whether it could start, say what is wrong, and exit.")
@click.option("--log-json", is_flag=True, help="Log as one JSON object a line.")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens.")
def serve(
    data: Path, markets: tuple[str, ...], paper: int, no_fsync: bool, hours: int,
    origins: tuple[str, ...], settings: Path | None, check: bool, log_json: bool, verbose: bool, **others: Any
) -> None:  # fmt: skip
    """Run the exchange in real time."""
    from wellhead.logs import set_up  # noqa: PLC0415 - only here
    from wellhead.settings import SettingsError, configure  # noqa: PLC0415 - only here

    set_up(logging.INFO if verbose else logging.WARNING, as_json=log_json)
    options = {
        **others, "data_dir": data, "markets": markets, "list_hours": hours, "paper_micros": paper * MICROS,
        "durable": not no_fsync, "origins": origins,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if _is_given(name)}
    try:
        config = configure(settings, options, given)
    except (SettingsError, OSError) as error:
        _fail(str(error), 2)
    if check:
        _check(config)
        return
    _compile_kernels()
    from wellhead.exchange import RecoveryError  # noqa: PLC0415 - after the engine

    try:
        _run(_serve(config, load_catalogue(config.data_dir)))
    except (LogLocked, OSError) as error:
        _fail(str(error))
    except (LogError, RecoveryError, CatalogueError, KeyStoreError) as error:
        _fail(f"{error}\nwhat that means and what can be done: wellhead doctor {shlex.quote(str(config.data_dir))}")


OPTION_OF = {"data_dir": "data", "list_hours": "hours", "paper_micros": "paper", "durable": "no_fsync"}


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(OPTION_OF.get(name, name))
    return source not in (click.core.ParameterSource.DEFAULT, None)


def _check(config: Config) -> None:
    from wellhead.preflight import problems  # noqa: PLC0415 - only here

    found = problems(config)
    for problem in found:
        errors.print(f"[red]{problem}[/]", highlight=False, soft_wrap=True)
    if found:
        _fail(f"{len(found)} problems")
    console.print(f"ready to serve {config.data_dir} on {config.host}:{config.port}", highlight=False, soft_wrap=True)


def _run(main_task: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform

        uvloop.run(main_task)
    except ImportError:
        asyncio.run(main_task)


async def _serve(config: Config, catalogue: Catalogue) -> None:
    from wellhead.node import Node  # noqa: PLC0415 - after the engine

    started = time.monotonic()
    node = Node(config, catalogue, progress=_report_replay)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await node.start()
    custodian = await _custody(node, config, catalogue)
    console.print(
        f"[bold]{catalogue.venue}[/] listens on [bold]{node.server.url}[/]   page {node.server.page_url}"
        f"   data {config.data_dir}   {node.replayed} commands replayed   ready in {time.monotonic() - started:.2f} s",
        highlight=False,
        soft_wrap=True,
    )
    # What lives as long as the node need not be looked at again by every collection.
    gc.collect()
    gc.freeze()
    for warning in node.exchange.warnings:
        errors.print(warning, style="yellow")
    stopping, failed = asyncio.create_task(stop.wait()), asyncio.create_task(node.failed())
    await asyncio.wait([stopping, failed], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    failed.cancel()
    if custodian is not None:
        await custodian.stop()
    await node.stop()
    console.print("stopped; everything acknowledged is on the disk")


async def _custody(node: "Node", config: Config, catalogue: Catalogue) -> "Custodian | None":
    """The custody of a node whose configuration names a chain file; the node is stopped when it cannot begin."""
    if config.chain is None:
        return None
    from settlement.signer import SignerError  # noqa: PLC0415 - web3 takes a second to import
    from settlement.stablecoins import RegistryError  # noqa: PLC0415
    from wellhead.chainfile import ChainFile  # noqa: PLC0415
    from wellhead.custody import Custodian, MoneyDesk  # noqa: PLC0415
    from wellhead.services import ChainDesk  # noqa: PLC0415

    try:
        file = ChainFile.load(config.chain)
        custodian = Custodian(node, lambda place: file.custody(place, catalogue.venue, lambda: int(time.time())))
        await custodian.start()
    except (RegistryError, SignerError, OSError) as error:
        await node.stop()
        _fail(str(error))
    custodian.keep()
    node.gateway.operations.desk = ChainDesk(MoneyDesk(config.settlement_dir, file.coins, catalogue.venue))
    return custodian


def _report_replay(done: int, total: int) -> None:
    if sys.stderr.isatty():
        errors.print(f"replaying the log: {done:,} of {total:,} commands", end="\r")


@main.group()
def keys() -> None:
    """Who may log on."""


@keys.command("create")
@data_option
@click.argument("account")
@click.option("--id", "key_id", default="", help="The name of the key; made up if not given.")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(SCOPES), default=("read", "trade"), show_default=True
)
@click.option("--ip", "ips", multiple=True, help="Only from this address or network; repeat for more.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The key file; ACCOUNT.key if not given.")
def create_key(
    data: Path, account: str, key_id: str, scopes: tuple[str, ...], ips: tuple[str, ...], out: Path | None
) -> None:
    """Make a key for ACCOUNT. The private half is written to the key file, and nowhere else."""
    out = out or Path(f"{account}.key")
    key_id = key_id or f"{account}-{secrets.token_hex(4)}"
    try:
        data.mkdir(parents=True, exist_ok=True)
        KeyStore(data / "keys.json").create(key_id, account, scopes=scopes, ips=ips, private_path=out)
    except FileExistsError:
        _fail(f"{out} exists; it will not be overwritten")
    except (KeyStoreError, OSError) as error:
        _fail(str(error))
    said = f"key {key_id} of account {account} may {', '.join(scopes)}; its private half is in {out}"
    console.print(said, highlight=False, soft_wrap=True, markup=False)


@keys.command("list")
@data_option
def list_keys(data: Path) -> None:
    """Show the keys."""
    if not data.is_dir():
        _fail(f"there is no directory {data}")
    table = Table("key", "account", "scopes", "from")
    for key in KeyStore(data / "keys.json").keys():  # noqa: SIM118 - not a dict
        table.add_row(key.id, key.account, " ".join(key.scopes), " ".join(key.ips) or "anywhere")
    console.print(table)


@keys.command("revoke")
@data_option
@click.argument("key_id")
def revoke_key(data: Path, key_id: str) -> None:
    """Take a key away; its sessions are closed."""
    try:
        KeyStore(data / "keys.json").revoke(key_id)
    except KeyStoreError as error:
        _fail(str(error))
    console.print(f"key {key_id} is revoked")


@main.group()
def settle() -> None:
    """Settlement batches: run, show, export, prove, check. For cron: 0 done, 1 failed, 2 used wrongly, 75 busy."""


@settle.command("show")
@data_option
@click.argument("cycle", type=int, required=False)
def show_batches(data: Path, cycle: int | None) -> None:
    """Show the batches, or the nets of one CYCLE. Safe beside a running node."""
    from settlement.service import Books, has_books  # noqa: PLC0415 - only here

    directory = Config(data).settlement_dir
    if not has_books(directory):
        _fail(f"{directory} holds no books")
    with Books(directory, load_catalogue(data), read_only=True) as books:
        batches = books.batches.all()
        if cycle is None:
            table = Table("cycle", "commands", "state", "batch id", "root")
            for batch in batches:
                span = f"{batch.from_seq}-{batch.to_seq}"
                table.add_row(
                    str(batch.cycle), span, batch.state.name, batch.batch_id.hex()[:16], batch.root.hex()[:16]
                )
        elif cycle not in {batch.cycle for batch in batches}:
            _fail(f"there is no cycle {cycle}")
        else:
            names = books.registry.names()
            table = Table("account", "name", "net USD", title=f"cycle {cycle}")
            for account, sums in sorted(books.batches.nets(cycle).items()):
                table.add_row(str(account), names.get(account, "house"), f"{sums.net_micros / MICROS:,.6f}")
        console.print(table)


cycle_argument = click.argument("cycle", type=click.IntRange(1), required=False)


@settle.command("run")
@data_option
def settle_run(data: Path) -> None:
    """End the cycle now and settle it, when no node has the directory open. Exits with 75 when one has: try later."""
    _compile_kernels()
    from wellhead.settle import SettleError, run  # noqa: PLC0415 - after the engine

    try:
        report = run(data, _report_replay)
    except SettleError as error:
        _fail(str(error), error.exit_code)
    if report.batch is None or not report.is_new:
        console.print("nothing to settle")
    else:
        console.print(f"cycle {report.batch.cycle} is {report.batch.state.name}, root {report.batch.root.hex()}")


@settle.command("export")
@data_option
@cycle_argument
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--parquet", is_flag=True, help="One Parquet file for all accounts, instead of CSV and JSON for each.")
@click.option("--camt", is_flag=True, help="ISO 20022 camt.053 for each account, instead of CSV and JSON.")
def settle_export(data: Path, cycle: int | None, out: Path, parquet: bool, camt: bool) -> None:
    """Write the statements of a CYCLE (the newest, if not given) under OUT."""
    from wellhead.settle import SettleError, export, export_camt, export_parquet  # noqa: PLC0415 - only here

    if parquet and camt:
        _fail("--parquet or --camt, not both", 2)
    try:
        place = (export_parquet if parquet else export_camt if camt else export)(data, cycle, out)
        console.print(str(place), highlight=False, soft_wrap=True)
    except (SettleError, OSError) as error:
        _fail(str(error), getattr(error, "exit_code", 1))


@settle.command("income")
@data_option
@click.argument("account", type=click.IntRange(1))
@cycle_argument
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
def settle_income(data: Path, account: int, cycle: int | None, out: Path) -> None:
    """Write the income statement of the provider ACCOUNT in a CYCLE, one HTML page, to OUT."""
    from wellhead.settle import SettleError, export_income  # noqa: PLC0415 - only here

    try:
        console.print(str(export_income(data, cycle, account, out)), highlight=False, soft_wrap=True)
    except (SettleError, OSError) as error:
        _fail(str(error), getattr(error, "exit_code", 1))


@settle.command("shares")
@data_option
@click.argument("pool", type=click.IntRange(1))
@cycle_argument
def settle_shares(data: Path, pool: int, cycle: int | None) -> None:
    """Show who else holds shares of the account POOL, now or at the end of a CYCLE. Safe beside a running node."""
    from wellhead.settle import SettleError, open_books, register_of  # noqa: PLC0415 - only here

    try:
        with open_books(data) as books:
            names = books.registry.names()
            table = Table("account", "name", "shares")
            for account, lots in register_of(books, pool, cycle).items():
                table.add_row(str(account), names.get(account, ""), f"{lots:,}")
    except SettleError as error:
        _fail(str(error), error.exit_code)
    console.print(table)


@settle.command("prove")
@data_option
@click.argument("account", type=click.IntRange(0))
@cycle_argument
def settle_prove(data: Path, account: int, cycle: int | None) -> None:
    """Print the proof of ACCOUNT's net in a CYCLE, and that what it is owed is counted in the exchange's liabilities."""
    from wellhead.settle import SettleError, open_books, proof_of  # noqa: PLC0415 - only here

    try:
        with open_books(data) as books:
            click.echo(json.dumps(proof_of(books, cycle, account), indent=1))
    except SettleError as error:
        _fail(str(error), error.exit_code)


@settle.command("check")
@click.argument("proof", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--root", help="The batch's published root; without it, the file's own.")
@click.option("--liability-root", help="The published root of the liabilities; without it, the file's own.")
def settle_check(proof: Path, root: str | None, liability_root: str | None) -> None:
    """Check a PROOF that `prove` wrote. Needs no data directory."""
    from wellhead.settle import SettleError, check  # noqa: PLC0415 - only here

    try:
        for line in check(proof.read_bytes(), root, liability_root):
            console.print(line, highlight=False, soft_wrap=True)
    except SettleError as error:
        _fail(str(error), error.exit_code)


@main.group()
def chain() -> None:
    """Custody on a chain: look, and decide what it cannot decide by itself. Safe beside a running node."""


@chain.command("show")
@data_option
def chain_show(data: Path) -> None:
    """Show what stopped withdrawals, held deposits, and how many of each state there are."""
    with _desk(data) as desk:
        for line in desk.lines():
            console.print(line, highlight=False, soft_wrap=True, markup=False)


@chain.command("resume")
@data_option
def chain_resume(data: Path) -> None:
    """Let withdrawals go on: what stopped them was looked at."""
    with _desk(data) as desk:
        console.print(f"{desk.resume()} reasons are dealt with; the next look finds those that are not")


@chain.command("release")
@data_option
@click.argument("token", type=click.IntRange(1))
@click.argument("transaction")
@click.argument("position", type=click.IntRange(0))
def chain_release(data: Path, token: int, transaction: str, position: int) -> None:
    """Have a held deposit (as `show` names it) looked at again."""
    with _desk(data) as desk:
        desk.release(token, transaction, position)
    console.print("it is looked at again")


@chain.command("credit")
@data_option
@click.argument("token", type=click.IntRange(1))
@click.argument("transaction")
@click.argument("position", type=click.IntRange(0))
@click.argument("account", type=click.IntRange(1))
def chain_credit(data: Path, token: int, transaction: str, position: int, account: int) -> None:
    """Say that coins sent to a vault by a plain transfer (as `show` names it) are ACCOUNT's."""
    with _desk(data) as desk:
        desk.assign(token, transaction, position, account)
    console.print(f"it becomes a deposit of account {account}")


@chain.command("price")
@data_option
@click.argument("token", type=click.IntRange(1))
@click.argument("price_ppm", type=click.IntRange(0, 2_000_000))
def chain_price(data: Path, token: int, price_ppm: int) -> None:
    """Say what a unit of TOKEN trades at, in millionths of a dollar: its deposits are credited by that."""
    with _desk(data) as desk:
        desk.set_price(token, price_ppm)
    console.print(f"token {token} is at {price_ppm} ppm of a dollar")


@chain.command("payout")
@data_option
@click.argument("account", type=click.IntRange(1))
@click.argument("token", type=click.IntRange(0))
def chain_payout(data: Path, account: int, token: int) -> None:
    """Pay ACCOUNT's gain of each cycle to its address in TOKEN from now on; token 0: no more."""
    with _desk(data) as desk:
        desk.set_standing(account, token)
    console.print(f"account {account} is paid " + (f"in token {token} after each cycle" if token else "when it asks"))


@chain.command("paper")
@data_option
@click.option("--chain", "chain_file", type=PEM, required=True, help="The file that `serve --chain` has.")
@click.argument("account", type=click.IntRange(1))
def chain_paper(data: Path, chain_file: Path, account: int) -> None:
    """Print what ACCOUNT's owner needs to claim or leave without the exchange, for examples/claim_exit.py."""
    from settlement.stablecoins import RegistryError, Stablecoins  # noqa: PLC0415 - only here
    from wellhead.custody import MoneyDesk  # noqa: PLC0415

    with _desk(data):
        try:
            papers = MoneyDesk(Config(data).settlement_dir, Stablecoins.load(chain_file), Catalogue.load().venue)
        except (RegistryError, OSError) as error:
            _fail(str(error), 2)
        click.echo(json.dumps({"account": account, "vault": papers.papers(account)}, indent=1))


@contextlib.contextmanager
def _desk(data: Path) -> "Iterator[Desk]":
    from wellhead.chaindesk import DeskError, desk  # noqa: PLC0415 - only here

    try:
        with desk(data) as opened:
            yield opened
    except (DeskError, ValueError) as error:
        _fail(str(error), 2)


@main.group()
def meter() -> None:
    """Metered delivery: keys of meters, and the agent that reports."""


@meter.command("key")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
def meter_key(out: Path) -> None:
    """Make a meter key in the file OUT and print its public half, for `wellhead meter register`."""
    from wellhead.meter import make_key  # noqa: PLC0415 - only here

    try:
        console.print(make_key(out).hex(), highlight=False, soft_wrap=True)
    except OSError as error:
        _fail(f"{out}: {error.strerror}")


@meter.command("register")
@data_option
@click.argument("account", type=click.IntRange(1))
@click.argument("public_key")
def meter_register(data: Path, account: int, public_key: str) -> None:
    """From now on pay ACCOUNT (its number) by what the meter with PUBLIC_KEY reports. Safe beside a running node."""
    from settlement.metering import Metering, MeteringError  # noqa: PLC0415 - only here

    try:
        Metering(Config(data).settlement_dir).register(account, bytes.fromhex(public_key))
    except (ValueError, MeteringError) as error:
        _fail(str(error), 2)
    console.print(f"account {account} is metered")


@meter.command("run")
@data_option
@click.option("--key", "key_path", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True)
@click.option("--account", type=click.IntRange(1), required=True, help="The provider's account number.")
@click.option("--symbol", required=True, help="The contract that is delivered.")
@click.option("--lots", type=click.IntRange(1), required=True)
@click.option("--trace", type=click.Path(path_type=Path, dir_okay=False), help="Play this recorded trace: no GPU here.")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="Write a trace of what is measured.")
@click.option("--reference-gflops", type=click.IntRange(1), default=600_000, help="Of one GPU, in the challenge.")
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="The agent's own copies of reports.")
def meter_run(
    data: Path, key_path: Path, account: int, symbol: str, lots: int, trace: Path | None, record: Path | None,
    reference_gflops: int, state: Path | None,
) -> None:  # fmt: skip
    """Measure the lots of one contract minute by minute, and report them to the exchange's inbox."""
    from engine.catalogue import CatalogueError  # noqa: PLC0415 - only here
    from settlement.inbox import INBOX_NAME  # noqa: PLC0415 - only here
    from wellhead.meter import Agent, AgentError, Gpus, Sampler, Trace, read_key  # noqa: PLC0415 - only here

    try:
        contract = Catalogue.load().contract(symbol)
        sampler: Sampler = Trace(trace) if trace else Gpus(contract, lots, reference_gflops)
        key = read_key(key_path)
    except (AgentError, CatalogueError) as error:
        hint = "" if trace else " (play a recorded hour with --trace)"
        _fail(f"{error}{hint}", 2)
    source = f"the recorded trace {trace}, not a GPU" if trace else "NVML"
    console.print(f"measures with {source}", soft_wrap=True)
    place = state or Path(f"meter-{account}-{symbol}")
    agent = Agent(key, account, contract, lots, sampler, place, Config(data).settlement_dir / INBOX_NAME, record)
    for minute, seen in agent.run():
        console.print(f"minute {minute}: {seen} of {lots} lots reported", highlight=False)


@main.command()
@data_option
@click.option("--url", default="http://127.0.0.1:8765", show_default=True, help="Where the node answers.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for a monitor.")
def status(data: Path, url: str, as_json: bool) -> None:
    """Show what a node does and what its directory holds. Disturbs neither; exits with 1 when somebody should look."""
    from wellhead.status import status as look  # noqa: PLC0415 - only here

    facts = look(data, url)
    if as_json:
        click.echo(json.dumps([fact._asdict() for fact in facts], indent=1))
    else:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for before, fact in zip([None, *facts], facts, strict=False):
            part = "" if before is not None and before.part == fact.part else fact.part
            table.add_row(f"[bold]{part}[/]", fact.name, fact.value, style="red" if fact.is_bad else "")
        console.print(table)
    if any(fact.is_bad for fact in facts):
        sys.exit(1)


@main.command()
def dashboard() -> None:
    """Print the Grafana dashboard of a node's metrics: `wellhead dashboard > grafana.json`, to be imported as it is."""
    click.echo((Path(__file__).parent / "grafana.json").read_text(encoding="utf-8"), nl=False)


@main.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--repair", is_flag=True, help="Do what is offered. Nothing is deleted; it moves to DATA/damaged.")
@click.option(
    "--give-up-from",
    type=click.IntRange(1),
    metavar="SEQ",
    help="Accept the loss of acknowledged commands from SEQ on.",
)
def doctor(data: Path, repair: bool, give_up_from: int | None) -> None:
    """Explain what is wrong with the directory DATA: where, what a start would do, what can be saved."""
    from wellhead.doctor import repair as mend  # noqa: PLC0415 - only here
    from wellhead.examine import DoctorError, examine  # noqa: PLC0415 - only here

    try:
        found = examine(data)
        if repair or give_up_from is not None:
            for line in mend(found, give_up_from) or ["there was nothing that --repair can do"]:
                console.print(line, highlight=False, soft_wrap=True)
            found = examine(data)
    except DoctorError as error:
        _fail(str(error))
    for line in found.lines:
        console.print(line, highlight=False, soft_wrap=True)
    for finding in found.findings:
        _show(finding)
    if not found.would_start:
        _fail("a start would be refused")
    console.print("[green]a start would go through[/]" if found.findings else "[green]nothing is wrong[/]")


def _show(finding: "Finding") -> None:
    colour = "red" if finding.stops else "yellow"
    console.print(f"\n[bold {colour}]{escape(finding.what)}[/]", highlight=False, soft_wrap=True)
    rows = {
        "is saved": finding.saved, "is lost": finding.lost, "a start would": finding.start, "do": finding.advice,
        "type": finding.command, "or else type": finding.otherwise,
    }  # fmt: skip
    for name, text in rows.items():
        if text:
            console.print(f"  {name:<15} {text}", highlight=False, soft_wrap=True, markup=False)


@main.command()
@click.argument("op")
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--url", default="ws://127.0.0.1:8765", show_default=True)
@click.option("--key", "key_file", type=PEM, help="A key file; without it only what is public can be asked.")
def request(op: str, fields: tuple[str, ...], url: str, key_file: Path | None) -> None:
    """Send one request of the protocol and print its result as JSON. A VALUE that is JSON is taken as such, else as text.

    For example: wellhead request admin.halt on=true --key operator.key
    """
    from wellhead.client import Client  # noqa: PLC0415 - only here
    from wellhead.types import WellheadError  # noqa: PLC0415 - only here

    values = dict(_field(each) for each in fields)

    async def ask() -> dict[str, Any]:
        client = (
            Client.from_key_file(url, key_file, cod=False, reconnect=False)
            if key_file
            else Client(url, reconnect=False)
        )
        async with client:
            return await client.request(op, **values)

    try:
        click.echo(json.dumps(asyncio.run(ask()), indent=1))
    except (WellheadError, OSError) as error:
        _fail(str(error))


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        _fail(f"{text!r} is not FIELD=VALUE", 2)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@main.command()
@click.argument("what", metavar="SYMBOL|CLASS|REGION|CLASS-REGION")
@click.option("--url", default="ws://127.0.0.1:8765", show_default=True)
@click.option("--key", "key_file", type=PEM, help="A key file: shows the account's own orders too.")
@click.option("--seconds", type=click.FloatRange(min=0), help="Stop after so long; without it, at Ctrl-C.")
def watch(what: str, url: str, key_file: Path | None, seconds: float | None) -> None:
    """Watch a market in the terminal: a contract's ladder and trades, or the hours of a class, a region, or both."""
    from rich.live import Live  # noqa: PLC0415 - only here

    from wellhead.types import WellheadError  # noqa: PLC0415 - only here
    from wellhead.watch import WatchError  # noqa: PLC0415 - only here
    from wellhead.watch import watch as look  # noqa: PLC0415 - only here

    try:
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            asyncio.run(
                look(url, what, key_file, seconds, lambda image: live.update(image, refresh=console.is_terminal))
            )
    except KeyboardInterrupt:
        return
    except BaseExceptionGroup as group:
        known = group.subgroup((WatchError, WellheadError, OSError))
        if known is None:
            raise
        _fail(str(_first(known)))
    except (WatchError, WellheadError, OSError) as error:
        _fail(str(error))


def _first(group: BaseException) -> BaseException:
    return _first(group.exceptions[0]) if isinstance(group, BaseExceptionGroup) else group


@main.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--accounts", is_flag=True, help="Name the accounts in trades and deliveries; else the files may be given away."
)
@click.option(
    "--depth", type=click.IntRange(1), default=50, show_default=True, help="Levels of a side in books.parquet."
)
@click.option(
    "--book-every", type=click.IntRange(0), default=0, metavar="SECONDS",
    help="Write the books so often, in market time; without it, as they are at the end.",
)  # fmt: skip
def export(data: Path, out: Path, accounts: bool, depth: int, book_every: int) -> None:
    """Write trades, books, candles, index and deliveries of the directory DATA to OUT as Parquet. Needs no node."""
    _compile_kernels()
    try:
        from wellhead.export import ExportError, Options  # noqa: PLC0415 - needs an optional package
        from wellhead.export import export as write  # noqa: PLC0415 - needs an optional package
    except ImportError as error:
        _fail(f"{error}: install wellhead[data]", 2)
    try:
        rows = write(data, out, Options(accounts, depth, book_every), _report_replay)
    except ExportError as error:
        _fail(str(error))
    for name, count in rows.items():
        console.print(f"{count:>12,} rows in {out / name}.parquet", highlight=False, soft_wrap=True)


@main.command()
@data_option
def verify(data: Path) -> None:
    """Prove that log, engine, ledger, batches and statements agree. Exits with 1, naming the place, when they do not."""
    _compile_kernels()
    from wellhead.audit import AuditError, audit  # noqa: PLC0415 - after the engine

    try:
        report = audit(data)
    except AuditError as error:
        _fail(str(error))
    for line in report.lines:
        console.print(line, highlight=False, soft_wrap=True)
    for difference in report.differences:
        errors.print(f"[red]{difference}[/]", highlight=False, soft_wrap=True)
    if report.differences:
        _fail(f"{len(report.differences)} differences")
    console.print("[green]everything agrees[/]")


@main.command()
@click.argument("flow", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--batch", type=click.IntRange(1), default=4_096, show_default=True, help="Commands in one call.")
def replay(flow: Path, batch: int) -> None:
    """Run a recorded order FLOW (int64 rows op, id, side, price, qty) through the engine, clearing on."""
    _compile_kernels()
    from wellhead.flow import FlowError, market_engine, read_flow, resolve, run, summary  # noqa: PLC0415 - after the engine

    try:
        rows = read_flow(flow)
    except FlowError as error:
        _fail(str(error), 2)
    with Progress(console=errors, transient=True) as progress:
        task = progress.add_task("resolving order ids", total=len(rows))
        resolved = resolve(rows, lambda done: progress.update(task, completed=done))
    engine = market_engine()
    started = time.perf_counter()
    events = run(engine, resolved.commands, batch)
    seconds = time.perf_counter() - started
    for name, value in {**summary(resolved, events), "state": engine.state_hash()}.items():
        console.print(f"{name:>12}  {value}", highlight=False)
    console.print(
        f"{'speed':>12}  {len(rows) / seconds / 1e6:.2f} M commands/s in batches of {batch}, clearing on",
        highlight=False,
    )


main.add_command(cluster)

if __name__ == "__main__":
    main()
