"""The demo in the terminal: a live screen of 100 by 30, or a line a second where there is no terminal.

Pure: a `View` of numbers goes in, something that rich can print comes out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich import box
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engine.catalogue import NS
from wellhead.demo.tape import usd

SIDE_WIDTH = 35
HEAD_LINES, BOOK_LINES = 3, 16
NOTHING = "·"


@dataclass(slots=True)
class BookRow:
    """The nearest open hour of a market. Prices in micros, None where there is none."""

    symbol: str
    bid_micros: int | None
    ask_micros: int | None
    last_micros: int | None
    volume_lots: int
    change_ppm: int | None  # of the list price against the day before


@dataclass(slots=True)
class View:
    """Everything a screen shows, at one moment."""

    market_ns: int
    day: str  # of the price history
    elapsed_ms: int
    total_ms: int
    speed: int
    orders: int = 0
    orders_per_s: int = 0
    fills: int = 0
    fills_per_s: int = 0
    lots: int = 0
    notional_micros: int = 0
    delivered_lots: int = 0
    batches: int = 0
    books_open: int = 0
    bots: int = 0
    hours: list[tuple[str, str]] = field(default_factory=list)  # hour and what it does
    rows: list[BookRow] = field(default_factory=list)
    log: list[tuple[int, str]] = field(default_factory=list)  # the last lines, market time and text
    log_count: int = 0  # of all lines there ever were
    page: str = ""  # where a browser can look on


def screen(view: View) -> RenderableType:
    """The live screen."""
    layout = Layout()
    layout.split_column(
        Layout(_head(view), size=HEAD_LINES),
        Layout(name="body", size=BOOK_LINES),
        Layout(_log(view), minimum_size=4),
    )
    layout["body"].split_row(Layout(_books(view)), Layout(_figures(view), size=SIDE_WIDTH))
    return layout


class Lines:
    """The plain display: a line of figures a second, and each thing that happened."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._told = 0  # lines of the log
        self._next_ms = 0
        self._told_page = False

    def show(self, view: View) -> None:
        """Write what is new in a view."""
        for ts_ns, text in view.log[max(0, len(view.log) - (view.log_count - self._told)) :]:
            self._write(f"       {_clock(ts_ns)}  {text}")
        self._told = view.log_count
        if view.page and not self._told_page:
            self._told_page = True
            self._write(f"the market page is {view.page}")
        if view.elapsed_ms >= self._next_ms:
            self._next_ms = view.elapsed_ms // 1000 * 1000 + 1000
            self._write(line(view))


def line(view: View) -> str:
    """The figures of a view in one line."""
    return (
        f"{view.elapsed_ms // 1000:>4} s {_clock(view.market_ns)}  {view.books_open} books"
        f"  orders {view.orders:,} ({view.orders_per_s:,}/s)  fills {view.fills:,} ({view.fills_per_s:,}/s)"
        f"  delivered {view.delivered_lots:,} lots"
    )


def _clock(ts_ns: int) -> str:
    return datetime.fromtimestamp(ts_ns // NS, UTC).strftime("%d %b %H:%M")


def _head(view: View) -> RenderableType:
    moment = datetime.fromtimestamp(view.market_ns // NS, UTC).strftime("%Y-%m-%d %H:%M")
    title = Text.assemble(
        (" WELLHEAD ", "bold black on bright_green"),
        ("  market time ", "dim"),
        (f"{moment} UTC", "bold"),
        (f"  x{view.speed}", "dim"),
        ("   list prices of ", "dim"),
        (view.day, "bold"),
        (f"   {view.elapsed_ms // 1000} of {view.total_ms // 1000} s", "dim"),
    )
    bar = ProgressBar(total=view.total_ms, completed=min(view.elapsed_ms, view.total_ms), complete_style="bright_green")
    return Group(title, bar)


def _books(view: View) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), show_edge=False)
    table.add_column("nearest open hour", no_wrap=True)
    for name in ("bid", "ask", "last", "lots", "list"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in view.rows:
        table.add_row(
            row.symbol,
            Text(_price(row.bid_micros), "green"),
            Text(_price(row.ask_micros), "red"),
            _price(row.last_micros),
            f"{row.volume_lots:,}",
            _change(row.change_ppm),
        )
    return table


def _price(micros: int | None) -> str:
    return NOTHING if micros is None else usd(micros, 4)


def _change(ppm: int | None) -> Text:
    if not ppm:
        return Text(NOTHING, "dim")
    return Text(change_text(ppm), "green" if ppm > 0 else "red")


def change_text(ppm: int) -> str:
    """A relative change in percent, to a tenth."""
    tenths = (abs(ppm) + 500) // 1000
    return f"{'-' if ppm < 0 else '+'}{tenths // 10}.{tenths % 10}%"


def _figures(view: View) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    for name, value in (
        ("orders a second", f"{view.orders_per_s:,}"),
        ("fills a second", f"{view.fills_per_s:,}"),
        ("orders", f"{view.orders:,}"),
        ("fills", f"{view.fills:,}"),
        ("lots", f"{view.lots:,}"),
        ("traded USD", usd(view.notional_micros, 0)),
        ("lots delivered", f"{view.delivered_lots:,}"),
        ("batches frozen", f"{view.batches:,}"),
    ):
        table.add_row(name, value)
    hours = Table.grid(expand=True, padding=(0, 1))
    hours.add_column(no_wrap=True)
    hours.add_column(justify="right", no_wrap=True)
    for hour, state in view.hours[:6]:
        style = "green" if state.startswith("open") else "yellow" if state.startswith("gate") else "cyan"
        hours.add_row(hour, Text(state, style))
    title = f"{view.books_open} books, {view.bots} bots"
    return Panel(Group(table, hours), title=title, border_style="dim", padding=(0, 0))


def _log(view: View) -> RenderableType:
    text = Text(no_wrap=True, overflow="ellipsis")
    for ts_ns, message in reversed(view.log):
        text.append(f"{_clock(ts_ns)[-5:]}  ", "dim")
        text.append(f"{message}\n")
    subtitle = f"in a browser: {view.page}" if view.page else None
    return Panel(text, title="what happens", subtitle=subtitle, border_style="dim", padding=(0, 1))
