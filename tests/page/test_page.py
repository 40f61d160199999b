"""The market page in a real browser, against a real exchange: look, log on, trade, settle, check a proof."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.page.chromium import axe
from tests.page.conftest import SHOTS, Place
from wellhead.settle import open_books, proof_of

GUEST_ACCOUNT = 2
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
VIEWS = {"overview": "", "contract": "#/book", "settlement": "#/settlement", "account": "#/account"}
SMALLEST_PX = """Math.min(...[...document.querySelectorAll("td, dd, button")].filter(one => one.offsetParent)
    .map(one => parseFloat(getComputedStyle(one).fontSize)))"""
READY = {
    "overview": "#map a.cell b:not(:text('·'))",
    "contract": "#ladder-bids tr:first-child button:not(:empty)",
    "settlement": "#batches tbody tr",
    "account": "#account-locked",
}


def changes(page: Any, selector: str) -> None:
    """Wait until the text of an element is another one."""
    before = page.inner_text(selector)
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).innerText !== before", arg=[selector, before]
    )


def count(page: Any, selector: str, wanted: int) -> None:
    """Wait until so many elements are there."""
    page.wait_for_function(
        "([selector, wanted]) => document.querySelectorAll(selector).length === wanted", arg=[selector, wanted]
    )


def test_the_market_moves_while_one_looks(visit: Any) -> None:
    page = visit()
    page.wait_for_selector(READY["overview"])
    assert page.locator("#map tbody th").all_inner_texts() != []
    assert page.locator("#hours-strip label").count() == 3
    changes(page, "#figure-volume")
    page.wait_for_selector("#curve-chart canvas")
    page.wait_for_selector("#tape tbody tr")
    page.click("#as-list")
    assert page.locator("#list tbody tr").count() == 12
    page.select_option("#list-class", "L4")
    count(page, "#list tbody tr", 3)
    changes(page, "#list tbody")


def test_a_cell_leads_to_its_book(visit: Any) -> None:
    page = visit()
    symbol = page.get_attribute("#map a.cell", "href").rsplit("/")[-1]
    page.click("#map a.cell")
    page.wait_for_selector(READY["contract"])
    assert page.inner_text("#contract-title") == symbol
    assert symbol in page.title()
    assert page.inner_text("#contract-state") == "Open"
    changes(page, "#ladder")
    for chart in ("#candle-chart canvas", "#depth-chart canvas"):
        page.wait_for_selector(chart)
    page.click("[data-candles='5m']")
    page.wait_for_selector("#candle-chart canvas")
    bids = [float(text) for text in page.locator("#ladder-bids button:not(:empty)").all_inner_texts()]
    asks = [float(text) for text in page.locator("#ladder-asks button:not(:empty)").all_inner_texts()]
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks, reverse=True)
    assert bids[0] < asks[-1]


def test_log_on_place_amend_cancel_trade_and_see_the_fill(visit: Any, logon: Any) -> None:
    page = visit("#/book")
    page.wait_for_selector(READY["contract"])
    logon(page)
    cash = page.inner_text("#ticket-cash")
    page.fill("[name=px]", "0.105")
    page.fill("[name=qty]", "3")
    page.click("#ticket-send:has-text('Buy 3 at 0.105')")
    page.wait_for_selector("#ticket-answer:has-text('3 in the book')")
    count(page, "#orders tbody tr", 1)
    page.click("#orders button:has-text('Amend')")
    page.get_by_label("New total, fills included").fill("2")
    page.click("#orders button:has-text('Save')")
    page.wait_for_selector("#toasts p:has-text('amended, its place kept')")
    page.wait_for_selector("#orders tbody td:nth-child(4):has-text('2')")
    page.click("#orders button:has-text('Cancel')")
    count(page, "#orders tbody tr", 0)

    page.select_option("[name=type]", "market")
    page.fill("[name=qty]", "2")
    page.click("#ticket-send:has-text('Buy 2 at the market')")
    page.wait_for_selector("#ticket-answer:has-text('Bought 2.')")
    page.wait_for_selector("#toasts p:has-text('Bought 2')")
    page.click("#tab-fills")
    page.wait_for_selector("#fills tbody tr td:has-text('taker')")
    page.click("#tab-positions")
    page.wait_for_selector("#positions tbody tr td.up:has-text('2')")
    assert page.inner_text("#ticket-cash") != cash
    page.goto(page.url.split("#")[0] + "#/account")
    page.wait_for_selector("#balances dd:has-text('$')")


def send(page: Any, answer: str, **fields: str) -> None:
    """Fill in the order form, send it, and wait for the answer."""
    for name, value in fields.items():
        field = page.locator(f"#ticket [name={name}]")
        if field.evaluate("one => one.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    page.click("#ticket-send")
    page.wait_for_selector(f"#ticket-answer:has-text('{answer}')")


def test_orders_of_every_kind_are_placed_and_told(visit: Any, logon: Any) -> None:
    page = visit("#/book")
    page.wait_for_selector(READY["contract"])
    logon(page)
    last = float(page.inner_text("#contract-last"))
    digits = len(page.inner_text("#contract-last").split(".")[1])
    high, low = f"{last * 1.15:.{digits}f}", f"{last * 0.9:.{digits}f}"
    page.click("#ticket-more summary")
    send(page, "4 in the book", px=low, qty="4", show="1")
    page.wait_for_selector("#orders td:has-text('shows 1')")
    send(page, "4 in the book", px=low, show="", post="slide")
    page.wait_for_selector("#orders td:has-text('slides')")
    send(page, "4 in the book", post="", tif="gtd")
    page.wait_for_selector("#orders td:has-text('until')")
    send(page, f"2 waiting for the stop at {high}", qty="2", type="stop_limit", stop=high, px=high, tif="gtg")
    page.wait_for_selector(f"#orders td:has-text('waits for {high}')")
    send(page, f"2 waiting for the stop at {high}", type="stop")
    count(page, "#orders tbody tr", 5)
    page.locator("#orders tr", has_text="waits for").last.get_by_text("Amend").click()
    higher = f"{last * 1.2:.{digits}f}"
    page.get_by_label("New stop").fill(higher)
    page.click("#orders button:has-text('Save')")
    page.wait_for_selector(f"#orders td:has-text('waits for {higher}')")
    page.check("[name=reduce_only]")
    page.select_option("[name=type]", "limit")
    send(page, "larger than", px=low, qty="1000")
    page.fill("[name=show]", "1001")
    page.click("#ticket-send")
    page.wait_for_selector("#ticket-answer:has-text('Visible lots')")
    page.click("#cancel-all")
    count(page, "#orders tbody tr", 0)
    page.click("#tab-done")
    page.wait_for_selector("#done td:has-text('canceled: mass canceled')")


def test_the_past_is_there_after_the_next_log_on(visit: Any, logon: Any) -> None:
    page = visit("#/book")
    page.wait_for_selector(READY["contract"])
    logon(page)
    page.select_option("[name=type]", "market")
    send(page, "Bought 1", qty="1")
    page.select_option("[name=type]", "limit")
    send(page, "1 in the book", px="0.1")
    page.click("#orders button:has-text('Cancel')")
    page.click("#tab-fills")
    page.wait_for_selector("#fills tbody tr")
    fills = page.locator("#fills tbody").inner_text()
    page.click("#tab-done")
    page.wait_for_selector("#done tbody tr:first-child td:has-text('canceled: by request')")
    done = page.locator("#done tbody").inner_text()
    page.reload()
    page.wait_for_selector("#link[data-state=open]")
    logon(page)
    page.click("#tab-fills")
    page.wait_for_selector("#fills tbody tr")
    assert page.locator("#fills tbody").inner_text() == fills
    page.click("#tab-done")
    page.wait_for_selector("#done tbody tr")
    assert page.locator("#done tbody").inner_text() == done
    assert page.locator("#done tbody tr").count() > 1


def test_auctions_and_halts_are_seen(visit: Any, logon: Any, operate: Any) -> None:
    page = visit("#/book")
    page.wait_for_selector(READY["contract"])
    logon(page)
    # Somewhat above the best offer, which moves on.
    symbol, price = page.inner_text("#contract-title"), f"{float(page.inner_text('#contract-ask')) * 1.02:.3f}"
    operate(page, "admin.status", sym=symbol, status="auction")
    page.wait_for_selector("#contract-state:text('Auction')")
    page.wait_for_selector("#contract-notice:has-text('orders are gathered')")
    page.wait_for_selector("#contract-auction:text('nothing')")
    send(page, "3 in the book", px=price, qty="3")
    page.wait_for_selector("#contract-auction:has-text('3 at ')")
    page.wait_for_selector("#ladder-spread:has-text('auction, 3 lots')")
    page.screenshot(path=SHOTS / "auction.png")
    overview = visit()
    overview.wait_for_selector("#map a.cell small:text('Auction')")
    operate(page, "admin.status", sym=symbol, status="continuous")
    page.wait_for_selector("#contract-state:text('Open')")
    page.wait_for_selector("#toasts p:has-text('the auction traded 3 lots')")
    page.wait_for_selector("#toasts p:has-text('Bought 3')")
    for status, name in (("halted", "Halted"), ("cancel_only", "Only cancels are taken")):
        operate(page, "admin.status", sym=symbol, status=status)
        page.wait_for_selector(f"#ticket-send:disabled:has-text('{name}')")
    operate(page, "admin.status", sym=symbol, status="continuous")
    page.wait_for_selector("#ticket-send:enabled")
    operate(page, "admin.halt", on=True)
    page.wait_for_selector("#contract-notice:has-text('The whole exchange is halted')")
    overview.wait_for_selector("#map a.cell small:text('Exchange halted')")
    operate(page, "admin.halt", on=False)
    page.wait_for_selector("#contract-state:text('Open')")


def test_a_key_is_remembered_only_when_asked_and_can_be_forgotten(visit: Any, logon: Any) -> None:
    page = visit("#/account")
    logon(page)
    page.click("#logon")
    page.click("#logon:text('Log on')")
    assert not page.is_visible("#remembered")
    page.check("#key-remember")
    page.keyboard.press("Escape")
    logon(page)
    page.reload()
    page.wait_for_selector("#link[data-state=open]")
    page.click("#logon")
    page.click("#remembered button:has-text('Log on as guest')")
    page.wait_for_selector("#logon:has-text('Log off guest')")
    kept = """async () => {
        const [one] = await (await import("/keys.js")).rememberedKeys();
        const given = await crypto.subtle.exportKey("pkcs8", one.privateKey).catch(error => error.name);
        return [Object.keys(one).sort().join(), one.privateKey.extractable, given];
    }"""
    assert page.evaluate(kept) == ["account,cod,key,privateKey", False, "InvalidAccessError"]
    page.click("#logon")
    page.click("#logon:text('Log on')")
    page.get_by_label("Forget the key").click()
    page.wait_for_selector("#remembered", state="hidden")
    page.reload()
    page.wait_for_selector("#link[data-state=open]")
    page.click("#logon")
    assert page.evaluate("async () => (await (await import('/keys.js')).rememberedKeys()).length") == 0
    assert not page.is_visible("#remembered")


def test_what_is_refused_is_said(visit: Any, logon: Any) -> None:
    page = visit("#/book")
    page.wait_for_selector(READY["contract"])
    page.click("#ticket-send:has-text('Log on to trade')")
    page.wait_for_selector("#logon-dialog[open]")
    page.fill("#key-text", "nonsense")
    page.click("#logon-form button.main")
    page.wait_for_selector("#logon-answer:has-text('does not say')")
    page.keyboard.press("Escape")
    logon(page)
    for px, qty, words in [
        ("x", "1", "a number"),
        ("0.00005", "1", "in steps of"),
        ("1", "1.5", "whole number"),
        ("101", "1", "at the most"),
    ]:
        page.fill("[name=px]", px)
        page.fill("[name=qty]", qty)
        page.click("#ticket-send")
        page.wait_for_selector(f"#ticket-answer:has-text('{words}')")
    page.fill("[name=px]", "99")
    page.fill("[name=qty]", "1000000")
    page.click("#ticket-send")
    page.wait_for_selector("#ticket-answer:has-text('INSUFFICIENT_FUNDS')")


def test_a_lost_connection_comes_back_with_the_account(visit: Any, logon: Any) -> None:
    sockets: list[Any] = []
    page = visit("#/book", relay=lambda *ends: sockets.append(ends))
    page.wait_for_selector(READY["contract"])
    logon(page)
    page.fill("[name=px]", "0.1")
    page.click("#ticket-send:has-text('Buy 1')")
    count(page, "#orders tbody tr", 1)
    for end in sockets[0]:
        end.close(code=1001)
    page.wait_for_selector("#link:not([data-state=open])")
    page.wait_for_selector("#link[data-state=open]")
    changes(page, "#ladder")
    assert page.inner_text("#logon") == "Log off guest"
    page.click("#cancel-all")
    page.wait_for_selector("#toasts p:has-text('1 cancelled')")
    count(page, "#orders tbody tr", 0)


def test_a_key_that_logs_on_elsewhere_ends_the_session_here(visit: Any, logon: Any) -> None:
    page, other = visit("#/book"), visit("#/book")
    logon(page)
    logon(other)
    page.wait_for_selector("#toasts p:has-text('elsewhere')")
    page.wait_for_selector("#logon:text('Log on')")
    page.wait_for_selector("#link[data-state=open]")
    assert other.inner_text("#logon") == "Log off guest"
    other.click("#logon")
    other.wait_for_selector("#logon:text('Log on')")


@pytest.fixture(scope="module")
def proof(place: Place) -> Any:
    with open_books(place.data) as books:
        return proof_of(books, 1, GUEST_ACCOUNT)


def check(page: Any, text: str) -> tuple[bool, str]:
    """What the page says of a proof."""
    page.evaluate("document.querySelector('#proof-result').replaceChildren()")
    page.fill("#proof-text", text)
    page.click("#proof-form button.main")
    page.wait_for_selector(".verdict")
    return page.get_attribute(".verdict", "data-ok") == "true", page.inner_text("#proof-result")


def test_a_proof_checks_and_a_tampered_one_does_not(visit: Any, proof: Any) -> None:
    page = visit("#/settlement")
    page.wait_for_selector("#chain-note:has-text('the chain holds')")
    good, said = check(page, json.dumps(proof, indent=1))
    assert good, said
    assert said.count("that the exchange published") == 2
    tampered: list[dict[str, Any]] = [
        {**proof, "net_micros": proof["net_micros"] + 1},
        {**proof, "external_micros": 0},
        {**proof, "account": 1},
        {**proof, "partners": proof["partners"][::-1]},
        {**proof, "partners": proof["partners"][:-1]},
        {**proof, "leaves": proof["leaves"] + 1},
        {**proof, "root": "ab" * 32},
        {**proof, "liability": {**proof["liability"], "owed_micros": proof["liability"]["owed_micros"] + 1}},
        {**proof, "liability": {**proof["liability"], "total_micros": proof["liability"]["total_micros"] - 1}},
    ]
    for one in tampered:
        good, said = check(page, json.dumps(one))
        assert not good, said
    for text in ("", "{}", "null", "7", "[1]", '{"proof": 1}', '{"cycle": 1}', "not JSON"):
        assert not check(page, text)[0]


def test_a_statement_is_downloaded_and_its_proof_checked(visit: Any, logon: Any, place: Place) -> None:
    page = visit("#/account")
    logon(page)
    page.click("#tab-statements")
    statements = place.data / "settlement" / "statements" / "1"
    for form in ("csv", "json"):
        with page.expect_download() as download:
            page.get_by_label(f"Statement of cycle 1 as {form}").click()
        assert download.value.suggested_filename == f"guest-1.{form}"
        content = download.value.path().read_bytes()
        assert content == (statements / f"{GUEST_ACCOUNT}.{form}").read_bytes()
    page.get_by_label("Check the proof of cycle 1").click()
    page.wait_for_selector(".verdict[data-ok=true]")
    assert check(page, content.decode())[0]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_rules_of_accessibility_hold(visit: Any, logon: Any, theme: str) -> None:
    page = visit(theme=theme)
    page.evaluate(axe())
    run = """rules => axe.run(document, { runOnly: rules })
        .then(found => found.violations.map(rule => [rule.id, rule.nodes.map(node => node.html)]))"""

    def violations() -> Any:
        return page.evaluate(run, RULES)

    for name, address in VIEWS.items():
        page.evaluate("address => { location.hash = address }", address or "#/")
        page.wait_for_selector(READY[name])
        assert violations() == [], name
    page.evaluate("location.hash = '#/'")
    page.click("#as-list")
    page.wait_for_selector("#list tbody tr")
    assert violations() == []
    page.click("#logon")
    assert violations() == []
    page.keyboard.press("Escape")
    logon(page)
    page.evaluate("location.hash = '#/book'")
    page.wait_for_selector(READY["contract"])
    assert violations() == []


@pytest.mark.parametrize("size", [(390, 844), (1440, 900), (3840, 2160)], ids=["phone", "desk", "4k"])
def test_every_view_fits_its_screen(visit: Any, size: tuple[int, int]) -> None:
    page = visit(size=size, theme="dark" if size[0] == 1440 else "light")
    for name, address in VIEWS.items():
        page.evaluate("address => { location.hash = address }", address or "#/")
        page.wait_for_selector(READY[name])
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], name
        smallest = page.evaluate(SMALLEST_PX)
        assert smallest >= 10, name
        if name == "contract":
            page.wait_for_selector("#depth-chart canvas")
        page.screenshot(path=SHOTS / f"{name}-{size[0]}.png", full_page=size[0] < 1000)


def test_the_keyboard_is_enough(visit: Any) -> None:
    page = visit("#/book")
    page.wait_for_selector(READY["contract"])
    focused = "document.activeElement.id || document.activeElement.className"
    page.keyboard.press("s")
    assert page.evaluate(focused) == "" or page.evaluate("document.activeElement.name") == "px"
    assert page.is_checked("#side-sell")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("b")
    assert page.is_checked("#side-buy")
    page.focus("#ladder-bids tr:first-child button")
    page.keyboard.press("Enter")
    assert re.fullmatch(r"\d+\.\d+", page.input_value("[name=px]"))
    assert page.is_checked("#side-sell")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    symbol = page.inner_text("#contract-title")
    page.keyboard.type("L4-USE")
    page.keyboard.press("Enter")
    page.wait_for_function("symbol => document.querySelector('#contract-title').innerText !== symbol", arg=symbol)
    assert page.inner_text("#contract-title").startswith("L4-USE")
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "skip"


def test_colours_can_be_chosen_and_are_kept(visit: Any) -> None:
    page = visit(theme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    page.click("#theme")
    assert page.inner_text("#theme") == "Dark"
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark


def tab_to(page: Any, what: str) -> None:
    """Press Tab until the element that is focused is `what`, a selector."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("what => document.activeElement.matches(what)", what):
            return
    raise AssertionError(f"Tab never comes to {what}")


def test_an_order_needs_no_pointer(visit: Any, place: Place) -> None:
    page = visit("#/book")
    page.wait_for_selector(READY["contract"])
    tab_to(page, "#logon")
    page.keyboard.press("Enter")
    tab_to(page, "#key-text")
    page.keyboard.insert_text(place.key.read_text(encoding="utf-8"))
    tab_to(page, "#logon-form button.main")
    page.keyboard.press("Enter")
    page.wait_for_selector("#logon:has-text('Log off guest')")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("b")
    tab_to(page, "[name=px]")
    page.keyboard.type("0.12")
    tab_to(page, "[name=qty]")
    page.keyboard.press("Control+a")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ticket-answer:has-text('2 in the book')")
    tab_to(page, "#tab-orders")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-positions"
    page.keyboard.press("ArrowLeft")
    tab_to(page, "#orders button[aria-label^=Amend]")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.ariaLabel") == "New price"
    page.keyboard.press("Control+a")
    page.keyboard.type("0.13")
    page.keyboard.press("Enter")
    page.wait_for_selector("#orders td:nth-child(3):has-text('0.130')")
    page.wait_for_function("() => document.activeElement.ariaLabel?.startsWith('Amend')")
    tab_to(page, "#orders button[aria-label^=Cancel]")
    page.keyboard.press("Enter")
    count(page, "#orders tbody tr", 0)


@pytest.mark.parametrize("arrives", [True, False])
def test_an_order_whose_answer_is_lost_is_found_again(visit: Any, logon: Any, arrives: bool) -> None:
    def relay(route: Any, server: Any) -> None:
        lost: list[int] = []

        def cut() -> None:
            server.close()
            route.close(code=1001)

        def up(message: Any) -> None:
            if '"op":"order.place"' in message:
                lost.append(json.loads(message)["id"])
                if not arrives:
                    cut()
                    return
            server.send(message)

        def down(message: Any) -> None:
            if lost and json.loads(message).get("id") in lost:
                cut()
            else:
                route.send(message)

        route.on_message(up)
        server.on_message(down)

    page = visit("#/book", relay=relay)
    page.wait_for_selector(READY["contract"])
    logon(page)
    page.fill("[name=px]", "0.115")
    page.click("#ticket-send")
    page.wait_for_selector("#ticket-answer:has-text('the connection was lost before the answer')")
    said = "The order got through" if arrives else "The order did not get through"
    page.wait_for_selector(f"#toasts p:has-text('{said}')")
    page.wait_for_selector("#link[data-state=open]")
    count(page, "#orders tbody tr", 1 if arrives else 0)
    if arrives:
        page.click("#cancel-all")
        count(page, "#orders tbody tr", 0)


def test_without_a_connection_the_page_says_so_and_takes_no_order(visit: Any, logon: Any) -> None:
    ends: list[Any] = []

    def relay(route: Any, server: Any) -> None:
        if ends:
            server.close()
            route.close(code=1013)
        ends.append((route, server))

    page = visit("#/book", relay=relay)
    page.wait_for_selector(READY["contract"])
    logon(page)
    for end in ends[0]:
        end.close(code=1001)
    page.wait_for_selector("#link[data-state=closed]:has-text('no connection')")
    page.fill("[name=px]", "0.1")
    page.click("#ticket-send")
    page.wait_for_selector("#ticket-answer:has-text('there is no connection')")
    assert page.is_visible("#ladder-bids button:not(:empty)"), "what was known stays to be read"


def test_a_proof_is_checked_from_a_file(visit: Any, proof: Any, tmp_path: Path) -> None:
    page = visit("#/settlement")
    page.wait_for_selector("#batches tbody tr")
    (tmp_path / "good.json").write_text(json.dumps(proof), encoding="utf-8")
    (tmp_path / "wrong.json").write_text(json.dumps({**proof, "account": 1}), encoding="utf-8")
    page.set_input_files("#proof-file", tmp_path / "good.json")
    page.wait_for_selector(".verdict[data-ok=true]")
    assert page.locator(".steps [aria-label=fails]").count() == 0
    page.set_input_files("#proof-file", tmp_path / "wrong.json")
    page.wait_for_selector(".verdict[data-ok=false]")
    assert page.locator(".steps li.down [aria-label=fails]").count() > 0, "the step that fails is marked"


def test_a_phone_is_enough(visit: Any, logon: Any) -> None:
    page = visit("#/book", size=(390, 844), theme="dark")
    page.wait_for_selector(READY["contract"])
    logon(page)
    page.fill("[name=px]", "0.125")
    page.click("#ticket-send")
    page.wait_for_selector("#ticket-answer:has-text('1 in the book')")
    page.click("#orders button:has-text('Cancel')")
    count(page, "#orders tbody tr", 0)
    touched = "button, select, .button, nav a, input:not(.hidden, [type=radio])"
    small = page.evaluate(
        """touched => [...document.querySelectorAll(touched)]
        .filter(one => one.checkVisibility() && !one.closest(".check"))
        .map(one => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
        .filter(([_, box]) => box.height < 24 || box.width < 24)
        .map(([html]) => html)""",
        touched,
    )
    assert small == [], "a finger finds them"
    chosen = page.evaluate("""() => {
        const box = document.querySelector("#contract-hours label:has(:checked)").getBoundingClientRect();
        return box.left >= 0 && box.right <= innerWidth;
    }""")
    assert chosen, "the chosen hour is in sight"


def test_a_large_screen_is_used(visit: Any) -> None:
    page = visit("#/book", size=(3840, 2160))
    page.wait_for_selector(READY["contract"])
    rem_px = page.evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)")
    assert rem_px >= 20, "the type grows with the screen"
    assert page.evaluate("document.querySelector('main').clientWidth") > 3_000
    assert page.evaluate("document.querySelector('.area-trades').getBoundingClientRect().top") < 2_160, "the floor fits"
