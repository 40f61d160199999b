"""What the demo shows: a screen of 100 by 30, and lines where there is no terminal."""

import io

from rich.console import Console

from engine.catalogue import NS
from wellhead.demo.display import BookRow, Lines, View, change_text, screen
from wellhead.demo.tape import usd

ROWS = [
    BookRow(f"H100S-APN-H261122{hour}", 2_861_000, 2_874_000, None, 12_345, -742_371 if hour == 14 else 0)
    for hour in range(10, 22)
]


def a_view(**changes):
    log = [(1_795_000_000 * NS, f"line {number}") for number in range(9)]
    view = View(1_795_000_000 * NS, "2025-11-06", 12_345, 30_000, 720, rows=ROWS, log=log, log_count=9)
    view.hours = [("H26112214", "delivering"), ("H26112215", "gate in 3 min"), ("H26112216", "open")]
    for name, value in changes.items():
        setattr(view, name, value)
    return view


def drawn(view):
    out = io.StringIO()
    Console(file=out, width=100, height=30).print(screen(view), height=30, end="")
    return out.getvalue().splitlines()


def test_the_screen_fits_100_by_30_and_shows_everything():
    lines = drawn(a_view(orders=1_234_567, fills=98_765, notional_micros=1_234_567_890_123))
    assert len(lines) == 30
    assert max(map(len, lines)) == 100
    text = "\n".join(lines)
    for shown in (
        *(row.symbol for row in ROWS),
        *("2.8610", "2.8740", "-74.2%", "1,234,567", "98,765", "2025-11-06", "12 of 30 s"),
        *("delivering", "gate in 3 min", "line 8", "line 0"),
    ):
        assert shown in text, shown


def test_an_empty_market_has_a_screen_too():
    assert len(drawn(View(0, "2025-11-06", 0, 30_000, 720))) == 30


def test_lines_tell_each_thing_once_and_figures_once_a_second():
    told = []
    lines = Lines(told.append)
    log = [(0, "one"), (0, "two")]
    lines.show(a_view(elapsed_ms=0, log=log, log_count=2))
    lines.show(a_view(elapsed_ms=400, log=[*log, (0, "three")], log_count=3))
    lines.show(a_view(elapsed_ms=1_050, log=[(0, "three"), (0, "four")], log_count=4))
    events = [text.split()[-1] for text in told if text.split()[-1] in ("one", "two", "three", "four")]
    assert events == ["one", "two", "three", "four"]
    assert len(told) - len(events) == 2


def test_amounts_as_text():
    assert usd(1_234_567_890_000) == "1,234,567.89"
    assert usd(-9_999) == "-0.00"
    assert usd(2_861_000, 4) == "2.8610"
    assert usd(1_999_999, 0) == "1"
    assert change_text(-742_371) == "-74.2%"
    assert change_text(999) == "+0.1%"
