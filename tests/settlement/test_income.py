"""A provider's income statement against the worked figures and the ledger."""

import re
from xml.etree import ElementTree

from engine.types import Kind
from settlement.accounts import money_text
from settlement.income import bars, income, render
from settlement.meter import Writer
from settlement.performance import PPM
from tests.settlement.flow import Venue, command
from tests.settlement.test_metered import DEADLINE_NS, END_NS, ENERGY_MJ, KEY, SYMBOL, closed_hour, hour

REBATE = 33_280  # the provider was the maker: not from a delivery


def settled(venue: Venue, now_ns: int) -> None:
    venue.deliver(now_ns)
    venue.deliver(now_ns)
    venue.send(command(Kind.CLOSE_CYCLE))


def test_the_worked_figures_on_a_page(venue: Venue) -> None:
    closed_hour(venue, receivers=((2, 3), (3, 5)))
    venue.settlement.report(Writer(KEY, 1, SYMBOL).report(hour(8)), END_NS)
    settled(venue, END_NS)
    books, batch = venue.settlement.books, venue.settlement.last_batch()
    assert batch
    (line,) = income(books, batch, 1)
    assert (line.lots, line.lot_minutes, line.credited_ppm) == (8, 480, 480 * PPM)
    assert line.energy_mj == 480 * ENERGY_MJ
    assert (line.notional_micros, line.refund_micros, line.damages_micros) == (166_400_000, 0, 0)
    assert line.delivered_ppm == PPM
    assert line.pay_micros + REBATE == books.batches.nets(batch.cycle)[1].net_micros
    page = render(books, batch, 1)
    assert "166.400000 USDC from 1 contracts" in page
    assert "100.000 %" in page
    assert "57.120" in page  # kWh: eight lots for an hour at 70 % of 10.2 kW
    assert not re.search(r"https?://|<script|src=", page)


def test_a_default_shows_what_was_lost(venue: Venue) -> None:
    closed_hour(venue, reference=3100)
    settled(venue, DEADLINE_NS + 1)
    books, batch = venue.settlement.books, venue.settlement.last_batch()
    assert batch
    (line,) = income(books, batch, 1)
    assert (line.credited_ppm, line.delivered_ppm, line.refund_micros) == (0, 0, 166_400_000)
    assert line.damages_micros + line.shortfall_micros == 56_960_000
    assert line.pay_micros == -line.damages_micros
    assert line.pay_micros + REBATE == books.batches.nets(batch.cycle)[1].net_micros
    page = render(books, batch, 1)
    assert 'class="loss"' in page
    assert money_text(line.pay_micros) in page
    assert income(books, batch, 2) == []
    assert "0.000000 USDC from 0 contracts" in render(books, batch, 2)


def test_charts_are_whole_and_escaped() -> None:
    chart = ElementTree.fromstring(bars([("<a&b>", 50, "half"), ("b", -100, "all"), ("c", 0, "none")]))
    assert [rect.get("width") for rect in chart.iter("rect")] == ["210", "420", "0"]
    assert next(chart.iter("text")).text == "<a&b>"
    assert bars([]).startswith("<svg")
