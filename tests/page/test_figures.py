"""What the page shows is what the exchange says: its numbers beside the channels' own, read without the page."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from functools import partial
from typing import Any

TRIES = 40
PIXELS = """([box, below]) => {
  const canvas = document.querySelector(`${box} canvas`);
  const { width, height } = canvas;
  const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const probe = document.body.appendChild(document.createElement("i"));
  const colour = name => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color.match(/\\d+/g).map(Number);
  };
  const wanted = ["up", "down", "up-wash", "down-wash", "line", "text"].map(name => [name, colour(name)]);
  probe.remove();
  const from = Math.floor(height * below);
  const { data } = copy.getImageData(0, from, width, height - from);
  const found = {};
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] < 128) continue;
    const near = wanted.find(([, one]) => one.every((value, place) => Math.abs(data[at + place] - value) < 12));
    if (near) found[near[0]] = (found[near[0]] ?? 0) + 1;
  }
  return found;
}"""
"""How many pixels of a chart have which of the page's colours, below a height from 0 to 1."""


def agree(shown: Callable[[], Any], said: Callable[[], Any]) -> None:
    """Both are the same at some moment: the market moves between the two looks."""
    pairs = []
    for _ in range(TRIES):
        pairs.append((shown(), said()))
        if pairs[-1][0] == pairs[-1][1]:
            return
    raise AssertionError(f"the page never shows what the exchange says: {pairs[-1]}")


def moment(us: int) -> str:
    """Mon 23 Nov 08:48"""
    at = datetime.fromtimestamp(us // 1_000_000, UTC)
    return f"{at:%a} {at.day} {at:%b %H:%M}"


def dollars(value: str) -> str:
    return f"{Decimal(value).quantize(Decimal('0.01'), ROUND_DOWN):,}"


def delivery_row(one: dict[str, Any]) -> list[str]:
    """What the table of deliveries says of it."""
    state = "settled" if one["done"] >= one["lots"] else f"{one['done']} settled" if one["done"] else "due"
    index = f"{Decimal(one['index']):.3f}" if Decimal(one["index"]) * 1_000 % 1 == 0 else one["index"]
    lots = [f"{one['lots']:,}", str(one["providers"]), str(one["receivers"])]
    money = [dollars(one[name]) for name in ("paid", "refund", "damages")]
    mark = "" if one["index_from"] == "prints" else "*"
    return [one["sym"], moment(one["start"]), state, *lots, *money, index + mark]


def test_deliveries_and_indices_are_those_of_the_channel(visit: Any, pushed: Any) -> None:
    def said() -> list[dict[str, Any]]:
        (push,) = pushed(1, "deliveries")
        return sorted(push["list"], key=lambda one: (-one["start"], one["sym"]))

    def shown() -> list[list[str]]:
        return [row.locator("td").all_inner_texts() for row in page.locator("#deliveries tbody tr").all()]

    assert any(one["lots"] for one in said()), "an hour was traded"
    page = visit("#/settlement")
    page.wait_for_selector("#deliveries tbody tr")
    agree(shown, lambda: [delivery_row(one) for one in said()])
    deliveries = said()
    lots = sum(one["done"] for one in deliveries)
    assert page.inner_text("#deliveries-note").startswith(f"{lots:,} lots settled in {len(deliveries)} contracts")

    page.evaluate("location.hash = '#/book'")
    page.wait_for_selector("#contract-index:not(:text('·'))")
    market = page.inner_text("#contract-title").rsplit("-", 1)[0]
    newest = next(one for one in deliveries if one["sym"].startswith(f"{market}-"))
    assert page.inner_text("#contract-index-name") == f"Index of {moment(newest['start'])[-5:]}"
    assert Decimal(page.inner_text("#contract-index")) == Decimal(newest["index"])


def test_candles_and_volume_are_those_of_the_channel(visit: Any, pushed: Any) -> None:
    page = visit("#/book")
    page.wait_for_selector("#candle-chart canvas")
    symbol = page.inner_text("#contract-title")
    digits = len(page.inner_text("#contract-last").split(".")[1])

    def last_candle(length: str) -> str:
        (push,) = pushed(1, f"candles.{length}", symbols=[symbol])
        last = [candle for candle in push["list"] if candle.get("c") is not None][-1]
        prices = " ".join(f"{name.upper()} {Decimal(last[name]):.{digits}f}" for name in "ohlc")
        return f"{moment(last['start'])} {prices} lots {last['vol']}"

    def note() -> str:
        return " ".join(page.inner_text("#candle-chart .chart-note").split())

    agree(note, lambda: last_candle("1m"))
    found = page.evaluate(PIXELS, ["#candle-chart", 0])
    assert found.get("up", 0) + found.get("down", 0) > 0, "bodies and wicks"
    found = page.evaluate(PIXELS, ["#candle-chart", 0.7])
    assert found.get("up-wash", 0) + found.get("down-wash", 0) > 0, "volume, at the foot"
    for length in ("5m", "1h"):
        page.click(f"[data-candles='{length}']")
        page.wait_for_selector("#candle-chart canvas")
        agree(note, partial(last_candle, length))


def test_the_forward_curve_is_that_of_the_tickers(visit: Any, pushed: Any) -> None:
    page = visit()
    page.wait_for_selector("#curve-chart canvas")
    page.click("details:has(#curve-table) summary")
    for gpu_class in ("H100S", "L4"):
        page.select_option("#curve-class", gpu_class)
        page.wait_for_selector(f"#curve-table a[href*='/{gpu_class}-USE-']")
        page.wait_for_selector(f"#tape-market:text('{gpu_class} USE')")
        links = page.locator("#curve-table a").all()
        symbols = [link.get_attribute("href").rsplit("/")[-1] for link in links]
        assert len(symbols) == 3
        assert all(symbol.startswith(f"{gpu_class}-USE-") for symbol in symbols)

        def shown() -> list[list[Decimal]]:
            rows = page.evaluate("[...document.querySelectorAll('#curve-table tbody tr')].map(row => row.innerText)")
            return [[Decimal(cell) for cell in row.split("\t")[1:4]] for row in rows if "·" not in row]

        def said(symbols: list[str] = symbols) -> list[list[Decimal]]:
            found = {push["sym"]: push for push in pushed(3, "ticker", symbols=symbols)}
            return [[Decimal(found[symbol][name]) for name in ("bid", "ask", "last")] for symbol in symbols]

        page.wait_for_function("() => !document.querySelector('#curve-table tbody').innerText.includes('·')")
        agree(shown, said)
        page.wait_for_selector("#curve-chart canvas")
        found = page.evaluate(PIXELS, ["#curve-chart", 0])
        assert min(found.get(name, 0) for name in ("up", "down", "text")) > 0, "bids, asks and last prices"
        assert page.evaluate(PIXELS, ["#curve-chart", 0.6]).get("line", 0) > 0, "volume, at the foot"
        label = page.get_attribute("#curve-chart", "aria-label")
        assert label.startswith(f"Forward curve of {gpu_class} USE: 3 hours, from ")


def test_the_ladder_is_drawn_to_scale_and_keeps_its_room(visit: Any, logon: Any) -> None:
    page = visit("#/book")
    page.wait_for_selector("#ladder-bids tr:first-child button:not(:empty)")
    boxes = page.evaluate("""() => [...document.querySelectorAll("#ladder tr:not([hidden]):has(button:not(:empty))")].map(row => {
      const [outer, inner] = [row, row.querySelector(".wash")].map(one => one.getBoundingClientRect());
      return [Number(row.cells[2].innerText), inner.width / outer.width, inner.height / outer.height];
    })""")
    most = max(total for total, _, _ in boxes)
    for total, width, height in boxes:
        assert abs(width - total / most) < 0.02
        assert height == 1
    logon(page)
    bids = page.locator("#ladder-bids button:not(:empty)").count()
    page.fill("[name=px]", "0.105")
    page.click("#ticket-send")
    page.wait_for_selector("#ticket-answer:has-text('in the book')")
    page.wait_for_function(
        "bids => document.querySelectorAll('#ladder-bids button:not(:empty)').length > bids", arg=bids
    )
    height = "document.querySelector('#candle-chart').clientHeight"
    with_order = page.evaluate(height)
    page.click("#cancel-all")
    page.wait_for_selector("#toasts p:has-text('1 cancelled')")
    page.wait_for_function("() => !document.querySelector('#ladder-bids [data-own]')")
    assert page.evaluate(height) >= with_order
