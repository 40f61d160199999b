"""What the market page costs a browser: 200 books that change while somebody looks, on a slowed-down processor.

    python -m benchmarks.page [--books 200] [--updates 1000] [--slow 4] [--seconds 4] [--rounds 7]

A real exchange (tests/page/venue.py) with its bots in a process of its own; headless Chromium shows an empty page, the list
of all books, the map and one contract, in turns, each time in a new page. The processor of each is throttled by Chromium
itself (Emulation.setCPUThrottlingRate). A frame counts as dropped for each 1/60 s that passes without one, as the page's own
requestAnimationFrame sees it. The empty page is the machine's own share: what matters is the difference, within a round.

On a machine with other work that difference is mostly the other work: whoever has something to do is interrupted. So the
same page is traced, too, unthrottled: the processor time of each task of its main thread, times the slowness, against the
16.7 ms that a frame has. A task beyond that drops a frame on any machine; one below it drops none by itself.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.page.chromium import chromium
from tests.page.conftest import venue

FRAME_MS = 1000 / 60
SPENT = ("TaskDuration", "ScriptDuration", "RecalcStyleDuration", "LayoutDuration")
COUNT_FRAMES = """ms => new Promise(done => {
  const times = [];
  let longest_ms = 0;
  const look = list => { longest_ms = Math.max(longest_ms, ...list.getEntries().map(one => one.duration)) };
  const long = new PerformanceObserver(look);
  long.observe({ type: "longtask" });
  const step = now => {
    times.push(now);
    if (now - times[0] < ms) return requestAnimationFrame(step);
    long.disconnect();
    done([times, longest_ms]);
  };
  requestAnimationFrame(step);
})"""
COUNT_MESSAGES = """() => {
  window.received = { messages: 0, tickers: 0 };
  const Plain = window.WebSocket;
  window.WebSocket = class extends Plain {
    constructor(...all) {
      super(...all);
      this.addEventListener("message", event => {
        received.messages += 1;
        if (event.data.startsWith('{"ch":"ticker"')) received.tickers += 1;
      });
    }
  };
}"""


@dataclass(frozen=True)
class Row:
    """What was counted in a page for some seconds; times in ms a second of the main thread."""

    share: float
    p99_ms: float
    busy: float
    script: float
    style: float
    layout: float
    longest_ms: float
    updates: float
    task_p99_ms: float
    task_most_ms: float
    over: float


VIEWS = {
    "empty page": None,
    "list of all books": "#as-list",
    "map of an hour": "#as-map",
    "a contract": "#map a.cell",
}
SETTLE_MS = 3_000
TASK, MAIN_THREAD = "ThreadControllerImpl::RunTask", "CrRendererMain"


def visit(browser: Any, url: str, name: str, options: argparse.Namespace) -> Row:
    """A new page, throttled, at the view with this name."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")
    page.add_init_script(f"({COUNT_MESSAGES})()")
    click = VIEWS[name]
    page.goto("about:blank" if click is None else url)
    if click is not None:
        page.wait_for_selector("#map a.cell b:not(:text('·'))")
        page.click(click)
    if click == "#as-list":
        wanted = "wanted => document.querySelectorAll('#list tbody tr').length >= wanted"
        page.wait_for_function(wanted, arg=options.books)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": options.slow})
    page.wait_for_timeout(SETTLE_MS)
    counted = count(page, devtools, options.seconds)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    tasks_ms = sorted(ms * options.slow for ms in tasks(browser, page, options.seconds))
    page.close()
    over = sum(ms > FRAME_MS for ms in tasks_ms) / options.seconds
    costs = (tasks_ms[len(tasks_ms) * 99 // 100], tasks_ms[-1], over)
    return Row(*(*counted, *costs))


def tasks(browser: Any, page: Any, seconds: float) -> list[float]:
    """Processor time, ms, of each task of the main thread that did something; a page's one frame is one task."""
    browser.start_tracing(page=page, categories=["toplevel"])
    page.wait_for_timeout(seconds * 1000)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    main = {(one["pid"], one["tid"]) for one in events if one.get("args", {}).get("name") == MAIN_THREAD}
    timed = [one for one in events if one["name"] == TASK and (one["pid"], one["tid"]) in main]
    return [one["tdur"] / 1000 for one in timed if "tdur" in one] or [0.0]


def count(page: Any, devtools: Any, seconds: float) -> tuple[float, ...]:
    """Frames dropped, and what the main thread did: the fields of Row, up to `updates`."""
    page.evaluate("() => { window.received = { messages: 0, tickers: 0 } }")
    before = metrics(devtools)
    times, longest_ms = page.evaluate(COUNT_FRAMES, seconds * 1000)
    after = metrics(devtools)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    dropped = sum(max(0, round(gap / FRAME_MS) - 1) for gap in gaps)
    busy, script, style, layout = (1000 * (after[name] - before[name]) / seconds for name in SPENT)
    updates = page.evaluate("() => received.tickers") / seconds
    p99_ms = sorted(gaps)[len(gaps) * 99 // 100]
    return dropped / (len(gaps) + dropped), p99_ms, busy, script, style, layout, longest_ms, updates


def metrics(devtools: Any) -> dict[str, float]:
    found = devtools.send("Performance.getMetrics")["metrics"]
    return {row["name"]: row["value"] for row in found}


def measure(browser: Any, url: str, options: argparse.Namespace) -> None:
    """All views in turns, and their medians."""
    rows: dict[str, list[Row]] = {name: [] for name in VIEWS}
    for _ in range(options.rounds):
        for name, found in rows.items():
            found.append(visit(browser, url, name, options))
    print(f"medians of {options.rounds} rounds of {options.seconds:g} s, processor {options.slow} times slower")
    print(f"{'':<49}{'longest':>9}  {'main thread, ms a second':^31}{'':<10}{'its tasks, processor time':>29}")
    print(f"{'':<20}{'dropped':>9}{'less empty':>12}{'p99 ms':>8}{'task ms':>9}", end="")
    print(
        f"{'busy':>10}{'script':>7}{'style':>7}{'layout':>7}{'updates/s':>12}{'p99 ms':>10}{'most ms':>9}{'over/s':>8}"
    )
    for name, found in rows.items():
        extra = statistics.median(row.share - empty.share for row, empty in zip(found, rows["empty page"], strict=True))
        middle = Row(*(statistics.median(getattr(row, field.name) for row in found) for field in fields(Row)))
        print(
            f"{name:<20}{middle.share:>9.1%}{extra:>+12.1%}{middle.p99_ms:>8.1f}{middle.longest_ms:>9.0f}"
            f"{middle.busy:>10.0f}{middle.script:>7.0f}{middle.style:>7.0f}{middle.layout:>7.0f}{middle.updates:>12,.0f}"
            f"{middle.task_p99_ms:>10.1f}{middle.task_most_ms:>9.1f}{middle.over:>8.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=200)
    parser.add_argument("--updates", type=int, default=1_000, help="orders amended a second")
    parser.add_argument("--slow", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    found = chromium()
    hours = 6
    markets = -(-options.books // hours)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as directory:
        browser = playwright.chromium.launch(
            executable_path=found.program, env={**found.environment}, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        load = os.getloadavg()[0]
        print(
            f"Chromium {browser.version}, headless, software rendering; {platform.machine()}, {os.cpu_count()} processors"
        )
        print(
            f"shared with the exchange and its bots; load {load:.1f} at the start; {options.updates} amends/s asked for"
        )
        with venue(
            Path(directory), "--markets", str(markets), "--hours", str(hours), "--updates", str(options.updates)
        ) as place:
            measure(browser, place.url, options)
        browser.close()


if __name__ == "__main__":
    main()
