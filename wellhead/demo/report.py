"""What a demo came to, and how it is told at the end."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from engine.catalogue import NS, Catalogue
from settlement.service import Books
from wellhead.audit import AuditReport
from wellhead.config import Config
from wellhead.demo.cast import CAST
from wellhead.demo.tape import Tape, Volume, usd


@dataclass(frozen=True, slots=True)
class Member:
    """An account at the end. `net_micros` is the sum of its nets over all batches, deposits apart."""

    number: int
    name: str
    what: str
    fills: int
    bought_lots: int
    sold_lots: int
    net_micros: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """A frozen batch."""

    cycle: int
    batch_id: str
    root: str
    gross_micros: int
    saved_ppm: int  # of the gross, by netting


@dataclass(slots=True)
class Summary:
    """Everything the end of a demo says. Not `settled` after Ctrl-C: then nothing was proven either."""

    data_dir: Path
    settled: bool
    elapsed_ms: int
    market_from_ns: int
    market_to_ns: int
    orders: int
    rejected: int
    fills: int
    delivered_lots: int
    fees_micros: int  # kept by the house, rebates paid
    state_hash: str
    volumes: dict[str, Volume] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    batches: list[Frozen] = field(default_factory=list)
    proof: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    chain: list[str] = field(default_factory=list)  # what it did on a chain, in words

    @property
    def ok(self) -> bool:
        return not self.differences

    def add_books(self, tape: Tape, catalogue: Catalogue) -> None:
        """Read batches and nets from the books of the stopped node."""
        what = {part.name: part.what for part in CAST}
        with Books(Config(self.data_dir).settlement_dir, catalogue, read_only=True) as books:
            nets: dict[int, int] = {}
            for batch in books.batches.all():
                result, _ = books.batches.recompute(batch, books.ledger)
                self.batches.append(
                    Frozen(
                        batch.cycle, batch.batch_id.hex(), batch.root.hex(), result.gross_micros, result.efficiency_ppm
                    )
                )
                for account, sums in books.batches.nets(batch.cycle).items():
                    nets[account] = nets.get(account, 0) + sums.net_micros
            for number, name in {**books.registry.names(), 0: "house"}.items():
                did = tape.activity(number)
                about = what.get(name, "the exchange's fees")
                self.members.append(
                    Member(number, name, about, did.fills, did.bought_lots, did.sold_lots, nets.get(number, 0))
                )
        self.members.sort(key=lambda member: (member.number == 0, member.number))

    def add_proof(self, report: AuditReport) -> None:
        """Take over what the audit found."""
        self.proof, self.differences = report.lines, report.differences


def tell(summary: Summary, console: Console) -> None:
    """Print the summary of a demo that came to its end."""
    span_min = (summary.market_to_ns - summary.market_from_ns) // (60 * NS)
    until = datetime.fromtimestamp(summary.market_to_ns // NS, UTC).strftime("%Y-%m-%d %H:%M UTC")
    console.print()
    _say(
        console,
        f"[bold]{summary.fills:,} fills[/] of {summary.orders:,} orders in {summary.elapsed_ms // 1000} s:"
        f" {span_min // 60} h {span_min % 60} min of market time, until {until};"
        f" {summary.delivered_lots:,} lots delivered",
    )
    console.print(_volumes(summary))
    console.print(_members(summary))
    for batch in summary.batches:
        _say(
            console,
            f"batch {batch.cycle}  id {batch.batch_id[:16]}  root {batch.root[:16]}"
            f"  gross {usd(batch.gross_micros)} USD, netting saved {batch.saved_ppm // 10_000} %",
        )
    for at, line in enumerate(summary.chain):
        _say(console, f"{'            ' if at else 'chain       '}{line}")
    _say(console, f"statements  {Config(summary.data_dir).settlement_dir / 'statements'}")
    for line in summary.proof:
        _say(console, line)
    _say(console, f"state       {summary.state_hash}")
    for difference in summary.differences:
        console.print(difference, style="red", highlight=False, markup=False, soft_wrap=True)
    if summary.ok:
        _say(console, "[bold green]ledger == engine: ok[/]  log, engine, ledger, batches and statements agree")
    else:
        _say(console, f"[bold red]ledger == engine: NO[/]  {len(summary.differences)} differences")
    _try_next(summary, console)


def tell_interrupted(summary: Summary, console: Console) -> None:
    """Print what is left after Ctrl-C."""
    _say(
        console,
        f"stopped after {summary.elapsed_ms // 1000} s with {summary.fills:,} fills of {summary.orders:,} orders;"
        " everything acknowledged is on the disk, and the exchange can go on from here",
    )
    _try_next(summary, console)


def _try_next(summary: Summary, console: Console) -> None:
    _say(console, f"next        wellhead verify --data {summary.data_dir}")
    _say(console, f"            wellhead serve --data {summary.data_dir}")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _volumes(summary: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_footer=True)
    total = Volume()
    for volume in summary.volumes.values():
        total.fills += volume.fills
        total.lots += volume.lots
        total.gpu_hours += volume.gpu_hours
        total.notional_micros += volume.notional_micros
    table.add_column("class", "all")
    for name, foot in (
        ("fills", f"{total.fills:,}"),
        ("lots", f"{total.lots:,}"),
        ("GPU-hours", f"{total.gpu_hours:,}"),
        ("USD", usd(total.notional_micros)),
    ):
        table.add_column(name, foot, justify="right")
    for gpu_class, volume in sorted(summary.volumes.items()):
        table.add_row(
            gpu_class,
            f"{volume.fills:,}",
            f"{volume.lots:,}",
            f"{volume.gpu_hours:,}",
            usd(volume.notional_micros),
        )
    return table


def _members(summary: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("account")
    table.add_column("", style="dim")
    for name in ("fills", "lots bought", "sold", "net USD"):
        table.add_column(name, justify="right")
    for member in summary.members:
        traded = [f"{value:,}" for value in (member.fills, member.bought_lots, member.sold_lots)]
        table.add_row(member.name, member.what, *(traded if member.number else ("", "", "")), usd(member.net_micros))
    return table
