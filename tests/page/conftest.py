"""A live exchange and a real browser, once for all tests of the page; each test has a page of its own.

They end with this directory's tests: while playwright runs, no other event loop can.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.page.chromium import NoBrowser, chromium

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "page"
DESKTOP = (1440, 900)
SUBPROTOCOL = Subprotocol("wellhead.v1.json")


@dataclass(frozen=True)
class Place:
    """Where the exchange is: the page, the guest's key file, the data directory."""

    url: str
    key: Path
    data: Path

    @property
    def operator_key(self) -> Path:
        """The key file of who may halt and list."""
        return self.key.with_name("operator.key")


@contextmanager
def venue(directory: Path, *options: str) -> Iterator[Place]:
    """The process of `tests.page.venue`."""
    command = [sys.executable, "-m", "tests.page.venue", str(directory), *options]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    try:
        told = json.loads(process.stdout.readline() or "{}")
        yield Place(told["url"], Path(told["key"]), Path(told["data"]))
    finally:
        process.communicate("\n", timeout=60)


@pytest.fixture(scope="package")
def place(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A running exchange; not without a browser to look at it."""
    with venue(tmp_path_factory.mktemp("venue")) as found:
        yield found


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium, started. Where there is none and none can be had, the tests are skipped, but not in CI."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    try:
        found = chromium()
    except NoBrowser as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=found.program, env=found.environment, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


Open = Callable[..., Any]
Relay = Callable[[Any, Any], Any]
"""Stands between the page and the exchange: it is given both ends of each websocket."""


@pytest.fixture
def visit(browser: Any, place: Place, request: pytest.FixtureRequest) -> Iterator[Open]:
    """`visit("#/settlement", size=(390, 844), theme="dark")` opens the page. Screenshots are kept; errors fail the test."""
    contexts: list[Any] = []
    errors: list[str] = []

    def visit(
        address: str = "", size: tuple[int, int] = DESKTOP, theme: str = "light", relay: Relay | None = None
    ) -> Any:
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, locale="en-US", accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: errors.extend(complaint(message, relay is not None)))
        page.on("pageerror", lambda error: errors.append(str(error)))
        if relay is not None:
            page.route_web_socket("**/v1", lambda route: relay(route, route.connect_to_server()))
        page.goto(place.url + address)
        page.wait_for_selector("#link[data-state=open]")
        return page

    yield visit
    SHOTS.mkdir(parents=True, exist_ok=True)
    for number, context in enumerate(contexts):
        name = request.node.name.removeprefix("test_").replace("[", "-").replace("]", "")
        context.pages[0].screenshot(path=SHOTS / f"{name}-{number}.png")
        context.close()
    print(f"screenshots are in {SHOTS}")
    assert errors == []


@pytest.fixture
def pushed(place: Place) -> Callable[..., list[Any]]:
    """`pushed(2, "ticker", symbols=[...])`: the first messages of a channel, without the page."""

    def pushed(count: int, name: str, **fields: Any) -> list[Any]:
        found: list[Any] = []
        with connect(f"{place.url.replace('http', 'ws', 1)}v1", subprotocols=[SUBPROTOCOL]) as socket:
            socket.send(json.dumps({"op": "subscribe", "id": 1, "channels": [{"name": name, **fields}]}))
            while len(found) < count:
                message = json.loads(socket.recv(timeout=20))
                if message.get("ch") == name:
                    found.append(message)
        return found

    return pushed


@pytest.fixture
def logon(place: Place) -> Callable[[Any], None]:
    """Log a page on as the guest, with the key file."""

    def logon(page: Any) -> None:
        page.click("#logon")
        page.set_input_files("#key-file", place.key)
        page.wait_for_function("() => document.querySelector('#key-text').value.includes('private_key')")
        page.click("#logon-form button.main")
        page.wait_for_selector("#logon:has-text('Log off guest')")
        page.wait_for_selector("#ticket-cash:not(:text('·'))", state="attached")

    return logon


def complaint(message: Any, is_cut: bool) -> list[str]:
    """What a message in the console complains of; that a connection fails is no fault where the test cuts it."""
    if message.type not in ("error", "warning") or (is_cut and message.text.startswith("WebSocket connection to")):
        return []
    return [message.text]


ASK = """async ([key, op, fields]) => {
    const { readKey } = await import("/keys.js");
    const { Session } = await import("/session.js");
    const { Wire } = await import("/wire.js");
    if (!window.operator) {
        const wire = new Wire(`ws://${location.host}/v1`);
        window.operator = new Session(wire);
        wire.connect();
        await new Promise(done => wire.addEventListener("state", event => event.detail === "open" && done()));
        await window.operator.logon(await readKey(key), false);
    }
    return window.operator.wire.request(op, fields);
}"""


@pytest.fixture
def operate(place: Place) -> Callable[..., Any]:
    """`operate(page, "admin.halt", on=True)`: a request of the operator's, sent by the page's own modules."""

    def operate(page: Any, op: str, **fields: Any) -> Any:
        return page.evaluate(ASK, [place.operator_key.read_text(encoding="utf-8"), op, fields])

    return operate
