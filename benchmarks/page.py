"""What the market page costs a browser: 200 books that change while somebody looks, on a slowed-down processor.

    python -m benchmarks.page [--books 200] [--updates 1000] [--slow 4] [--seconds 4] [--rounds 7]

A real exchange (tests/page/venue.py) with its bots in a process of its own, at a lower priority, as it cannot have a machine
of its own; headless Chromium shows an empty page, one with nothing but a number that changes, the list of all books, the map
and one contract, in turns, each time in a new page. The processor of each is throttled by Chromium itself
(Emulation.setCPUThrottlingRate). Frames are counted in two ways. Dropped: each 1/60 s that passes without one, as the page's
own requestAnimationFrame sees it. Late: what Chromium's compositor itself reports as DroppedFrame, which is more: also a frame
whose numbers came too late for the screen and are seen in the next. The empty page and the number are the machine's own
share: what matters is the difference, within a round.

On a machine with other work that difference is mostly the other work: whoever has something to do is interrupted. So a
dropped frame is called the page's own when its main thread used more processor time, the throttling's included, than a frame
has, between that frame and the one before; on a crowded processor that time is longer, too. And the same page is traced
unthrottled: the processor time of each task of its main thread, times the slowness, against the 16.7 ms of a frame. A task
beyond that drops a frame on any machine; one below it drops none by itself.
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

    dropped: float
    own: float
    late: float
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


TICK = "() => { setInterval(() => { document.body.textContent = performance.now().toFixed(3) }, 50) }"
BASES = {"empty page": "() => {}", "one number, 20/s": TICK}
VIEWS = {
    "list of all books": "#as-list",
    "map of an hour": "#as-map",
    "a contract": "#map a.cell",
}
SETTLE_MS = 3_000
TASK, MAIN_THREAD = "ThreadControllerImpl::RunTask", "CrRendererMain"
FRAME_TASK = "ScheduledActionSendBeginMainFrame"
FRAMES, DROPPED = "disabled-by-default-devtools.timeline.frame", "DroppedFrame"


def visit(browser: Any, url: str, name: str, options: argparse.Namespace) -> Row:
    """A new page, throttled, at the view with this name."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")
    page.add_init_script(f"({COUNT_MESSAGES})()")
    if name in BASES:
        page.goto("about:blank")
        page.evaluate(BASES[name])
    else:
        look(page, url, VIEWS[name], options.books)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": options.slow})
    page.wait_for_timeout(SETTLE_MS)
    counted = count(browser, page, devtools, options.seconds)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    tasks_ms = sorted(ms * options.slow for ms in tasks(browser, page, options.seconds))
    page.close()
    over = sum(ms > FRAME_MS for ms in tasks_ms) / options.seconds
    costs = (tasks_ms[len(tasks_ms) * 99 // 100], tasks_ms[-1], over)
    return Row(*(*counted, *costs))


def look(page: Any, url: str, click: str, books: int) -> None:
    """Open the market page and go to a view; the list has to have all its books."""
    page.goto(url)
    page.wait_for_selector("#map a.cell b:not(:text('·'))")
    page.click(click)
    if click == "#as-list":
        page.wait_for_function("n => document.querySelectorAll('#list tbody tr').length >= n", arg=books)


def tasks(browser: Any, page: Any, seconds: float) -> list[float]:
    """Processor time, ms, of each task of the main thread that did something; a page's one frame is one task."""
    browser.start_tracing(page=page, categories=["toplevel"])
    page.wait_for_timeout(seconds * 1000)
    timed = main_tasks(json.loads(browser.stop_tracing())["traceEvents"])
    return [one["tdur"] / 1000 for one in timed] or [0.0]


def main_tasks(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks of the page's main thread, in order; of its threads of that name the one that does most."""
    main = {(one["pid"], one["tid"]) for one in events if one.get("args", {}).get("name") == MAIN_THREAD}
    timed: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for one in events:
        place = (one["pid"], one["tid"])
        if one["name"] == TASK and "tdur" in one and place in main:
            timed.setdefault(place, []).append(one)
    busiest: list[dict[str, Any]] = []
    for tasks_of_one in timed.values():
        busiest = max(busiest, tasks_of_one, key=len)
    return sorted(busiest, key=lambda one: float(one["ts"]))


def own_drops(timed: list[dict[str, Any]]) -> int:
    """Frames that passed while the page's main thread used more processor time than a frame has."""
    starts = [at for at, one in enumerate(timed) if one["args"].get("src_func") == FRAME_TASK]
    found = 0
    for first, following in pairwise(starts):
        missed = round((timed[following]["ts"] - timed[first]["ts"]) / 1000 / FRAME_MS) - 1
        used_ms = sum(one["tdur"] for one in timed[first:following]) / 1000
        found += max(0, missed) if used_ms > FRAME_MS else 0
    return found


def count(browser: Any, page: Any, devtools: Any, seconds: float) -> tuple[float, ...]:
    """Frames dropped, and what the main thread did: the fields of Row, up to `updates`."""
    page.evaluate("() => { window.received = { messages: 0, tickers: 0 } }")
    browser.start_tracing(page=page, categories=["-*", FRAMES, "toplevel"])
    before = metrics(devtools)
    times, longest_ms = page.evaluate(COUNT_FRAMES, seconds * 1000)
    after = metrics(devtools)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    late = sum(one["name"] == DROPPED for one in events) / seconds
    gaps = [later - earlier for earlier, later in pairwise(times)]
    dropped = sum(max(0, round(gap / FRAME_MS) - 1) for gap in gaps)
    busy, script, style, layout = (1000 * (after[name] - before[name]) / seconds for name in SPENT)
    updates = page.evaluate("() => received.tickers") / seconds
    p99_ms = sorted(gaps)[len(gaps) * 99 // 100]
    return (
        dropped / seconds,
        own_drops(main_tasks(events)) / seconds,
        late,
        p99_ms,
        busy,
        script,
        style,
        layout,
        longest_ms,
        updates,
    )


def metrics(devtools: Any) -> dict[str, float]:
    found = devtools.send("Performance.getMetrics")["metrics"]
    return {row["name"]: row["value"] for row in found}


def measure(browser: Any, url: str, options: argparse.Namespace) -> None:
    """All views in turns, and their medians."""
    rows: dict[str, list[Row]] = {name: [] for name in (*BASES, *VIEWS)}
    for _ in range(options.rounds):
        for name, found in rows.items():
            found.append(visit(browser, url, name, options))
    print(f"medians of {options.rounds} rounds of {options.seconds:g} s, processor {options.slow} times slower")
    frames = [[name, *frame_cells(found, rows["empty page"])] for name, found in rows.items()]
    show(
        ["frames", "dropped/s", "less empty", "its own/s", "late/s", "less empty", "gap p99 ms", "longest task ms"],
        frames,
    )
    work = [[name, *work_cells(found)] for name, found in rows.items()]
    show(
        ["main thread", "updates/s", "busy ms/s", "script", "style", "layout", "task p99 ms", "most ms", "over/s"], work
    )


def frame_cells(found: list[Row], empty: list[Row]) -> list[str]:
    """What became of the frames of a view, and how much of it the empty page of the same round did not have."""
    middle = medians(found)
    dropped, late = (
        statistics.median(getattr(row, name) - getattr(base, name) for row, base in zip(found, empty, strict=True))
        for name in ("dropped", "late")
    )
    own = statistics.mean(row.own for row in found)  # the median of what is rare would always be none
    cells = [f"{middle.dropped:.2f}", f"{dropped:+.2f}", f"{own:.2f}", f"{middle.late:.2f}", f"{late:+.2f}"]
    return [*cells, f"{middle.p99_ms:.1f}", f"{middle.longest_ms:.0f}"]


def work_cells(found: list[Row]) -> list[str]:
    middle = medians(found)
    spent = [f"{value:.0f}" for value in (middle.updates, middle.busy, middle.script, middle.style, middle.layout)]
    return [*spent, f"{middle.task_p99_ms:.1f}", f"{middle.task_most_ms:.1f}", f"{middle.over:.2f}"]


def medians(found: list[Row]) -> Row:
    return Row(*(statistics.median(getattr(row, field.name) for row in found) for field in fields(Row)))


def show(heads: list[str], rows: list[list[str]]) -> None:
    print()
    for first, *others in [heads, *rows]:
        print(
            f"{first:<20}"
            + "".join(f"{cell:>{max(10, len(head) + 2)}}" for head, cell in zip(heads[1:], others, strict=True))
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
            Path(directory),
            "--markets",
            str(markets),
            "--hours",
            str(hours),
            "--updates",
            str(options.updates),
            "--nice",
            "10",
        ) as place:
            measure(browser, place.url, options)
        browser.close()


if __name__ == "__main__":
    main()
