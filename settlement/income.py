"""A provider's income statement for a cycle: one HTML page that needs nothing else, with bar charts as SVG.

Of each contract whose delivery was settled in the cycle: hours sold and delivered, availability, energy, pay, refund,
damages, fees. Availability and energy are the meter's; a provider without one performed fully by rule, and the page
says so. Only sums of whole micro-dollars are added; percentages are of whole lot-minutes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from settlement.accounts import Role, money_text, user_account
from settlement.batches import Batch
from settlement.ledger import Code
from settlement.meter import read_report
from settlement.metering import read_reports
from settlement.performance import PPM
from settlement.registry import Listing
from settlement.service import Books
from settlement.verify import meter_of

MJ_PER_WH = 3_600_000
BAR_WIDTH, BAR_HEIGHT, LABEL_WIDTH = 420, 18, 210

COLUMNS = (
    "contract", "lots", "lot-minutes sold", "credited", "delivered", "energy kWh", "sold for", "refunded", "damages",
    "not found", "fees", "pay",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One contract of a provider, all its receivers together."""

    symbol: str
    lots: int
    lot_minutes: int
    credited_ppm: int  # millionths of a lot-minute
    is_metered: bool
    energy_mj: int
    notional_micros: int
    refund_micros: int
    damages_micros: int  # paid, penalties included
    shortfall_micros: int
    fees_micros: int

    @property
    def pay_micros(self) -> int:
        """What the contract brought; below zero when the bond had to pay."""
        return self.notional_micros - self.refund_micros - self.damages_micros - self.fees_micros

    @property
    def delivered_ppm(self) -> int:
        return self.credited_ppm // self.lot_minutes

    def cells(self) -> list[str]:
        energy = f"{self.energy_mj // MJ_PER_WH / 1000:,.3f}" if self.is_metered else "no reports"
        credited = f"{self.credited_ppm // PPM:,}"
        money = [self.notional_micros, self.refund_micros, self.damages_micros, self.shortfall_micros, self.fees_micros]
        texts = [money_text(amount) for amount in (*money, self.pay_micros)]
        return [
            self.symbol,
            str(self.lots),
            f"{self.lot_minutes:,}",
            credited,
            _percent(self.delivered_ppm),
            energy,
            *texts,
        ]


def income(books: Books, batch: Batch, provider: int) -> list[Line]:
    """The contracts of a provider that were settled in a cycle, in order of listing."""
    query = (
        "SELECT asset, SUM(lots), SUM(share_micros), SUM(refund_micros), SUM(damages_micros), SUM(shortfall_micros)"
        " FROM deliveries WHERE provider = ? AND done_seq BETWEEN ? AND ? GROUP BY asset ORDER BY asset"
    )
    rows = books.database.rows(query, (provider, batch.from_seq, batch.to_seq))
    fees = _fees(books, batch, provider) if rows else {}
    return [
        _line(books, batch, provider, books.registry.listing_of(asset), *sums, fees.get(asset, 0))
        for asset, *sums in rows
    ]


def _fees(books: Books, batch: Batch, provider: int) -> dict[int, int]:
    """By listing: what a provider paid in a cycle of the fees for what it had sold short."""
    found: Counter[int] = Counter()
    for rows in books.ledger.transfers(batch.from_seq, batch.to_seq):
        paid = rows[(rows["code"] == Code.DUE_FEE) & (rows["debit_account"] == user_account(provider, Role.AVAILABLE))]
        for listing, amount in paid[["listing", "amount_micros"]].tolist():
            found[listing] += amount
    return found


def _line(books: Books, batch: Batch, provider: int, listing: Listing, lots: int, *sums: int) -> Line:
    notional, refund, damages, shortfall, fees = sums
    reports = read_reports(books.metering.reports_path(listing.asset, provider))
    credited, energy = lots * listing.minutes * PPM, 0
    if reports:
        credited = meter_of(books, listing.asset, provider).credited_ppm(0, lots)
        energy = int(np.concatenate([read_report(data)["energy_mj"] for data in reports]).sum())
    elif refund == notional > 0:  # all of it refunded: metered, and nothing was ever reported
        credited = 0
    minutes = lots * listing.minutes
    metered = (credited, bool(reports), energy)
    return Line(listing.symbol, lots, minutes, *metered, notional, refund, damages, shortfall, fees)


def render(books: Books, batch: Batch, provider: int) -> str:
    """The page. Raises KeyError for an account that does not exist."""
    name, lines = books.registry.names()[provider], income(books, batch, provider)
    title = f"Income of {escape(name)}, cycle {batch.cycle}"
    total = sum(line.pay_micros for line in lines)
    body = [
        f"<h1>{title}</h1>",
        f"<p>Account {provider}; commands {batch.from_seq} to {batch.to_seq}; batch {batch.batch_id.hex()}.</p>",
        f"<p class=total>{money_text(total)} {escape(books.catalogue.stablecoin)} from {len(lines)} contracts</p>",
    ]
    if lines:
        body += [
            _table(lines),
            "<h2>Pay</h2>",
            bars([(row.symbol, row.pay_micros, money_text(row.pay_micros)) for row in lines]),
        ]
        shares = [(row.symbol, row.delivered_ppm, _percent(row.delivered_ppm)) for row in lines]
        body += ["<h2>Delivered</h2>", bars(shares)]
    return _PAGE.format(title=title, body="\n".join(body))


def _table(lines: Sequence[Line]) -> str:
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    rows = ["".join(f"<td>{escape(cell)}</td>" for cell in line.cells()) for line in lines]
    return f"<table><tr>{head}</tr>\n" + "\n".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def bars(rows: Sequence[tuple[str, int, str]]) -> str:
    """A bar chart of (label, value, text); what is below zero is drawn in another colour. Widths are whole pixels."""
    largest = max((abs(value) for _, value, _ in rows), default=0) or 1
    parts = []
    for at, (label, value, text) in enumerate(rows):
        top, width = at * (BAR_HEIGHT + 6), abs(value) * BAR_WIDTH // largest
        kind = "loss" if value < 0 else "gain"
        parts.append(
            f'<text x="0" y="{top + 14}">{escape(label)}</text>'
            f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{top}" width="{width}" height="{BAR_HEIGHT}"/>'
            f'<text x="{LABEL_WIDTH + width + 6}" y="{top + 14}">{escape(text)}</text>'
        )
    height = len(rows) * (BAR_HEIGHT + 6)
    return f'<svg role="img" width="{LABEL_WIDTH + BAR_WIDTH + 180}" height="{height}">{"".join(parts)}</svg>'


def _percent(ppm: int) -> str:
    return f"{ppm // 10_000}.{ppm % 10_000 // 10:03} %"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 76em; color: #1b1f24; background: #fff }}
table {{ border-collapse: collapse }} th, td {{ padding: .2em .7em; text-align: right; border-bottom: 1px solid #d5dae0 }}
th:first-child, td:first-child {{ text-align: left }} .total {{ font-size: 1.4em }}
svg text {{ font: 12px system-ui, sans-serif }} .gain {{ fill: #2f6f9f }} .loss {{ fill: #b0413e }}
</style></head><body>
{body}
</body></html>
"""
