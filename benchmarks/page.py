"""What the market page costs a browser: 200 books that change while somebody looks, on a slowed-down processor.

    python -m benchmarks.page [--books 200] [--updates 1000] [--slow 4] [--seconds 10]

A real exchange (tests/page/venue.py) with its bots in a process of its own, headless Chromium showing the list of all
its books. The processor of the page is throttled by Chromium itself (Emulation.setCPUThrottlingRate). A frame counts as
dropped for each 1/60 s that passes without one, as the page's own requestAnimationFrame sees it. Beside it stand an
empty page of the same browser, throttled in the same way, in the same run: the machine's own share.
"""

import argparse
import os
import platform
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.page.chromium import chromium
from tests.page.conftest import venue

FRAME_MS = 1000 / 60
COUNT_FRAMES = """ms => new Promise(done => {
  const times = [];
  const step = now => {
    times.push(now);
    if (now - times[0] < ms) requestAnimationFrame(step);
    else done(times);
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


def frames(page: Any, slow: int, seconds: int) -> dict[str, float]:
    """Frames drawn, dropped and how long they took, with the processor `slow` times slower."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": slow})
    devtools.send("Performance.enable")
    before = metrics(devtools)
    times = page.evaluate(COUNT_FRAMES, seconds * 1000)
    after = metrics(devtools)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    gaps = [later - earlier for earlier, later in pairwise(times)]
    dropped = sum(max(0, round(gap / FRAME_MS) - 1) for gap in gaps)
    return {
        "frames": len(gaps),
        "dropped": dropped,
        "share": dropped / (len(gaps) + dropped),
        "median_ms": statistics.median(gaps),
        "p99_ms": sorted(gaps)[len(gaps) * 99 // 100],
        "busy": (after["TaskDuration"] - before["TaskDuration"]) / seconds,
        "script": (after["ScriptDuration"] - before["ScriptDuration"]) / seconds,
    }


def metrics(devtools: Any) -> dict[str, float]:
    found = devtools.send("Performance.getMetrics")["metrics"]
    return {row["name"]: row["value"] for row in found}


def show(name: str, row: dict[str, float]) -> None:
    print(
        f"{name:<34}{row['frames']:>7.0f}{row['dropped']:>9.0f}{row['share']:>8.1%}{row['median_ms']:>10.1f}"
        f"{row['p99_ms']:>9.1f}{row['busy']:>8.0%}{row['script']:>8.0%}"
    )


def measure(browser: Any, url: str, options: argparse.Namespace) -> None:
    """All rows, and what arrived meanwhile."""
    empty = browser.new_page()
    empty.goto("about:blank")
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.add_init_script(f"({COUNT_MESSAGES})()")
    page.goto(url)
    page.click("#as-list")
    page.wait_for_function("wanted => document.querySelectorAll('#list tbody tr').length >= wanted", arg=options.books)
    books = page.locator("#list tbody tr").count()
    print(f"{'':<34}{'frames':>7}{'dropped':>9}{'':>8}{'median ms':>10}{'p99 ms':>9}{'busy':>8}{'script':>8}")
    for slow in (1, options.slow):
        empty.bring_to_front()
        show(f"empty page, {slow}x slower", frames(empty, slow, options.seconds))
        page.bring_to_front()
        for view, name in (("#as-list", f"list of {books} books"), ("#as-map", "map of an hour's books")):
            page.click(view)
            page.evaluate("() => { received.messages = received.tickers = 0 }")
            show(f"{name}, {slow}x slower", frames(page, slow, options.seconds))
            got = page.evaluate("() => received.tickers") / options.seconds
            print(f"    {got:,.0f} changes of prices a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=200)
    parser.add_argument("--updates", type=int, default=1_000, help="orders amended a second")
    parser.add_argument("--slow", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    found = chromium()
    hours = 6
    markets = -(-options.books // hours)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as directory:
        browser = playwright.chromium.launch(
            executable_path=found.program, env=found.environment, args=["--no-sandbox", "--disable-dev-shm-usage"]
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
