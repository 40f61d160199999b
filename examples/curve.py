"""Draw the forward curve and the supply stack of a market, as one SVG that any browser shows.

    python examples/curve.py ws://127.0.0.1:8765 L4-EUC curve.svg

Above: bid, ask and their middle for each listed hour. Below: the supply stack of the nearest hour that is offered, all
offers from the cheapest up, and the bids against it: where the two steps would cross is where it last traded.
"""

import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from xml.sax.saxutils import escape

from wellhead import Instrument, Level, SyncClient

WIDTH, HEIGHT, EDGE = 960, 340, 64
BID, ASK, MIDDLE, INK = "#1a7f4b", "#c0392b", "#1f3a68", "#444"
Point = tuple[float, float]


class Chart:
    """A frame with axes that fit what is drawn in it."""

    def __init__(self, top: int, title: str, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self.top, self.parts = top, [f'<text x="{EDGE}" y="{top + 22}" font-weight="bold">{escape(title)}</text>']
        self.x_range, self.y_range = _wide(x_range), _wide(y_range)
        for step in range(5):
            value = self.y_range[0] + (self.y_range[1] - self.y_range[0]) * step / 4
            y = self.at(0, value)[1]
            self.parts.append(f'<path d="M{EDGE} {y:.1f}H{WIDTH - EDGE}" stroke="#ddd"/>')
            self.parts.append(f'<text x="{EDGE - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3f}</text>')

    def at(self, x: float, y: float) -> Point:
        """Where a value is on the page."""
        (left, right), (low, high) = self.x_range, self.y_range
        across = (x - left) / (right - left) * (WIDTH - 2 * EDGE)
        up = (y - low) / (high - low) * (HEIGHT - 2 * EDGE)
        return EDGE + across, self.top + HEIGHT - EDGE - up

    def line(self, points: list[Point], colour: str, name: str) -> None:
        """Points joined, with a name for who reads rather than sees."""
        if points:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
            self.parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"><title>{name}</title></polyline>'
            )

    def label(self, x: float, text: str) -> None:
        """A mark on the axis across."""
        place = self.at(x, self.y_range[0])
        self.parts.append(
            f'<text x="{place[0]:.1f}" y="{place[1] + 18:.1f}" text-anchor="middle">{escape(text)}</text>'
        )


def _wide(span: tuple[float, float]) -> tuple[float, float]:
    return span if span[1] > span[0] else (span[0] - 0.5, span[0] + 0.5)


def steps(levels: list[Level]) -> list[Point]:
    """A side of a book as a staircase: lots so far, price."""
    points, lots = [], 0
    for level in levels:
        points += [(lots, float(level.px)), (lots + level.qty, float(level.px))]
        lots += level.qty
    return points


def forward_curve(market: str, hours: list[tuple[Instrument, Decimal | None, Decimal | None]]) -> Chart:
    prices = [float(px) for _, bid, ask in hours for px in (bid, ask) if px is not None] or [0.0]
    starts = [one.start for one, _, _ in hours]
    chart = Chart(
        0, f"{market}: forward curve, dollars a GPU-hour", (min(starts), max(starts)), (min(prices), max(prices))
    )
    chart.line([(one.start, float(bid)) for one, bid, _ in hours if bid is not None], BID, "bid")
    chart.line([(one.start, float(ask)) for one, _, ask in hours if ask is not None], ASK, "ask")
    middles = [(one.start, float(bid + ask) / 2) for one, bid, ask in hours if bid is not None and ask is not None]
    chart.line(middles, MIDDLE, "middle")
    for one, _, _ in hours[:: max(1, len(hours) // 8)]:
        chart.label(one.start, datetime.fromtimestamp(one.start // 1_000_000, UTC).strftime("%d %b %H:%M"))
    return chart


def supply_stack(symbol: str, bids: list[Level], asks: list[Level]) -> Chart:
    demand, supply = steps(bids), steps(asks)
    lots = [x for x, _ in (*demand, *supply)] or [0.0]
    prices = [y for _, y in (*demand, *supply)] or [0.0]
    chart = Chart(HEIGHT, f"{symbol}: supply stack, lots", (0, max(lots)), (min(prices), max(prices)))
    chart.line(supply, ASK, "offers")
    chart.line(demand, BID, "bids")
    for part in range(5):
        chart.label(max(lots) * part / 4, f"{max(lots) * part / 4:,.0f}")
    return chart


def draw(charts: list[Chart]) -> str:
    body = "\n".join(part for chart in charts for part in chart.parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT * len(charts)}" role="img"'
    return f'{head} font-family="sans-serif" font-size="12" fill="{INK}">\n{body}\n</svg>\n'


def main(url: str, market: str, out: str) -> None:
    with SyncClient(url) as client:
        books = [(one, client.book(one.sym, "all")) for one in client.instruments(*market.split("-"))]
        hours = [
            (one, book.best_bid.px if book.best_bid else None, book.best_ask.px if book.best_ask else None)
            for one, book in books
        ]
        nearest, stack = next(((one, book) for one, book in books if book.best_ask), books[0])
        charts = [forward_curve(market, hours), supply_stack(nearest.sym, stack.bids, stack.asks)]
    Path(out).write_text(draw(charts), encoding="utf-8")
    print(f"{len(hours)} hours of {market} drawn in {out}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:4])
