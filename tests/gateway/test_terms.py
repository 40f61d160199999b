"""What an order may ask for beyond a price and a quantity, from the wire to the private stream and the public book."""

from pathlib import Path
from typing import Any

import pytest

from engine.types import Kind
from gateway.messages import Code, Format
from tests.gateway.node import NS, SYMBOL, Bot, Node

Trio = tuple[Node, Bot, Bot]


def order(side: str = "buy", qty: int = 1, px: str | None = "2.4", **fields: Any) -> dict[str, Any]:
    made = {"sym": SYMBOL, "side": side, "qty": qty, "px": px, **fields}
    return {name: value for name, value in made.items() if value is not None}


def later(node: Node, seconds: int = 60) -> int:
    """A time in microseconds."""
    return node.now_ns // 1_000 + seconds * 1_000_000


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        (order(type="stop"), Code.BAD_FIELD, "px"),
        (order(type="stop", px=None), Code.BAD_FIELD, "stop"),
        (order(type="stop_limit"), Code.BAD_FIELD, "stop"),
        (order(type="stop_limit", px=None, stop="2.5"), Code.BAD_FIELD, "px"),
        (order(stop="2.5"), Code.BAD_FIELD, "stop"),
        (order(trigger="last"), Code.BAD_FIELD, "trigger"),
        (order(type="stop_limit", stop="2.50001"), Code.BAD_PRICE, None),
        (order(type="stop_limit", stop="0"), Code.BAD_PRICE, None),
        (order(type="stop_limit", stop="200"), Code.BAD_PRICE, None),
        (order(type="stop_limit", stop="2.5", post="reject"), Code.BAD_TIF, None),
        (order(type="stop_limit", stop="2.5", min_qty=1), Code.BAD_TIF, None),
        (order(tif="gtd"), Code.BAD_FIELD, "expire"),
        (order(expire=10**15), Code.BAD_FIELD, "expire"),
        (order(tif="gtd", expire=1), Code.BAD_TIF, None),
        (order(post="slide", tif="fok"), Code.BAD_TIF, None),
        (order(show=1, tif="ioc", qty=2), Code.BAD_TIF, None),
        (order(show=2), Code.BAD_QTY, None),
        (order(min_qty=2), Code.BAD_QTY, None),
        (order(min_qty=1), Code.FOK_NOT_FILLABLE, None),
        (order(px="2.5", qty=9, min_qty=6, tif="ioc"), Code.FOK_NOT_FILLABLE, None),
        (order(deadline=1), Code.DEADLINE_PASSED, None),
        (order(reduce_only=True), Code.RISK_LIMIT, None),
    ],
)
def test_terms_that_do_not_fit_are_refused(trio: Trio, fields: dict[str, Any], code: Code, field: str | None) -> None:
    node, maker, taker = trio
    maker.place("sell", 5, "2.5")
    before = taker.good("balances")
    error = taker.bad("order.place", **fields)
    assert (error["code"], error["name"], error.get("field"), error["final"]) == (code, code.name, field, True)
    assert taker.good("balances") == before
    assert taker.good("orders.open")["orders"] == []
    assert node.gateway.orders.pending == 0


@pytest.mark.parametrize("wire", Format)
def test_a_stop_waits_in_no_book_until_the_last_trade_reaches_it(trio: Trio, wire: Format) -> None:
    node, maker, taker = trio
    node.create_key("stopper", "maker")
    stopper = Bot(node, wire)
    stopper.logon("stopper")
    px = (lambda text: text) if wire is Format.JSON else (lambda text: int(float(text) * 10**6))
    stopper.subscribe("private")
    watcher = Bot(node)
    watcher.subscribe("l2", symbols=[SYMBOL])
    fields = {"type": "stop_limit", "stop": px("2.4"), "trigger": "last", "cid": "guard", "tag": 3}
    placed = stopper.place("sell", 4, px("2.38"), **fields)
    assert (placed["st"], placed["left"]) == ("waiting", 4)
    event = stopper.pushes[0]
    assert (event["exec"], event["st"], event["type"], event["stop"], event["tag"]) == (
        "new", "waiting", "stop_limit", px("2.4"), 3,
    )  # fmt: skip
    assert watcher.take() == []  # nobody sees it
    assert stopper.good("order.amend", cid="guard", stop=px("2.39"))["kept"] is False
    (shown,) = stopper.good("orders.open")["orders"]
    assert (shown["st"], shown["stop"], shown["px"]) == ("waiting", px("2.39"), px("2.38"))
    stopper.take()
    taker.place("buy", 1, "2.39")
    maker.place("sell", 1, "2.39")
    events = [event for event in stopper.take() if event["ev"] == "order" and event["oid"] == placed["oid"]]
    assert [(event["exec"], event["st"]) for event in events] == [("triggered", "new")]
    book = watcher.take()[-1]
    assert book["a"] == [["2.38", 4]]
    assert stopper.good("order.cancel", cid="guard")["st"] == "canceled"
    (past, *_) = stopper.good("orders.history")["orders"]
    assert (past["type"], past["stop"], past["why"]) == ("stop_limit", px("2.39"), "by_request")


def test_a_plain_stop_trades_what_it_can_and_is_over(trio: Trio) -> None:
    _, maker, taker = trio
    taker.subscribe("private")
    maker.place("sell", 2, "2.5")
    stop = taker.place("buy", 5, type="stop", stop="2.5")
    assert stop["st"] == "waiting"
    assert taker.bad("order.amend", oid=stop["oid"], px="2.6")["code"] == Code.AMEND_NOT_ALLOWED
    taker.place("buy", 1, "2.5")
    events = [event for event in taker.pushes if event.get("oid") == stop["oid"]]
    assert [event.get("exec", event["ev"]) for event in events] == ["triggered", "fill", "canceled"]
    assert events[-1]["why"] == "unfilled"


def test_an_order_good_till_a_date_says_so_and_ends(trio: Trio) -> None:
    node, maker, _ = trio
    maker.subscribe("private")
    expire = later(node)
    placed = maker.place("sell", 5, "2.435", tif="gtd", expire=expire, cid="a")
    again = maker.ask("order.place", **order("sell", 5, "2.435", tif="gtd", expire=expire, cid="a"))
    assert (again["dup"], again["r"]["oid"]) == (True, placed["oid"])
    other = order("sell", 5, "2.435", tif="gtd", expire=expire + 1, cid="a")
    assert maker.bad("order.place", **other)["code"] == Code.CID_REUSED_DIFFERENT
    assert maker.good("orders.open")["orders"][0]["expire"] == expire
    node.now_ns += 61 * NS
    node.simple(Kind.EXPIRE, account=1, order_id=placed["oid"])  # as the node does when it falls due
    assert [(event["exec"], event["why"]) for event in maker.take() if event["ev"] == "order"] == [
        ("canceled", "expired")
    ]


def test_a_deadline_may_differ_when_an_order_is_sent_again(trio: Trio) -> None:
    node, maker, _ = trio
    first = maker.place("sell", 5, "2.435", cid="a", deadline=later(node))
    for change in ({}, {"deadline": later(node, 90)}):
        again = maker.ask("order.place", **order("sell", 5, "2.435", cid="a", **change))
        assert (again["ok"], again.get("dup"), again["r"]["oid"]) == (True, True, first["oid"])
    assert maker.bad("order.amend", cid="a", qty=4, deadline=1)["code"] == Code.DEADLINE_PASSED
    assert maker.good("order.amend", cid="a", qty=4, deadline=later(node))["kept"]


def test_the_engine_knows_a_repeat_that_the_gateway_has_forgotten(trio: Trio) -> None:
    node, maker, _ = trio
    fields = order("sell", 5, "2.435", cid="a", tag=1)
    placed = maker.good("order.place", **fields)
    tables = node.gateway.tables
    for word in range(5):  # the gateway finds it by this id no more
        tables.orders[node.gateway.projection.orders[placed["oid"]].row][f"c{word}"] = 0
    again = maker.ask("order.place", **fields)
    assert (again["dup"], again["r"]["oid"], again["r"]["left"]) == (True, placed["oid"], 5)
    assert maker.bad("order.place", **{**fields, "qty": 6})["code"] == Code.CID_REUSED_DIFFERENT
    assert len(maker.good("orders.open")["orders"]) == 1


def test_an_iceberg_shows_a_part_and_the_next_at_the_end_of_the_queue(trio: Trio) -> None:
    node, maker, taker = trio
    maker.subscribe("private")
    watcher = Bot(node)
    watcher.subscribe("l2", symbols=[SYMBOL])
    watcher.subscribe("l3", symbols=[SYMBOL])
    iceberg = maker.place("sell", 10, "2.5", show=4)
    other = maker.place("sell", 1, "2.5")
    by_channel = {push["ch"]: push for push in watcher.take()}
    assert by_channel["l2"]["a"] == [["2.5", 5]]
    assert by_channel["l3"]["a"] == [[other["oid"], "2.5", 1]]
    maker.take()
    taker.place("buy", 4, "2.5")
    pushes = [push for push in maker.take() if push["ev"] == "order"]
    assert [(push["exec"], push["left"], push["show"], push["shown"]) for push in pushes] == [("refreshed", 6, 4, 4)]
    assert [push["a"] for push in watcher.take() if push["ch"] == "l3"] == [
        [[iceberg["oid"], "2.5", 0], [iceberg["oid"], "2.5", 4]]
    ]
    taker.place("buy", 2, "2.5")  # the other is first now
    fills = [push for push in maker.take() if push["ev"] == "fill"]
    assert [(fill["oid"], fill["qty"]) for fill in fills] == [(other["oid"], 1), (iceberg["oid"], 1)]
    (shown,) = maker.good("orders.open")["orders"]
    assert (shown["left"], shown["shown"]) == (5, 3)
    fresh = Bot(node)
    assert fresh.subscribe("l3", symbols=[SYMBOL])[0]["a"] == [[iceberg["oid"], "2.5", 3]]


def test_an_order_that_slides_gets_a_price_behind_the_other_side(trio: Trio) -> None:
    _, maker, taker = trio
    maker.place("sell", 5, "2.435")
    taker.place("buy", 3, "2.5", post="slide")
    (shown,) = taker.good("orders.open")["orders"]
    assert (shown["px"], shown["left"], shown["st"], shown["slide"], shown["post"]) == ("2.434", 3, "new", True, False)


def test_a_market_order_stops_at_the_collar(trio: Trio) -> None:
    node, maker, taker = trio
    node.create_key("op", "maker", scopes=("admin",))
    admin = Bot(node)
    admin.logon("op")
    admin.good("admin.band", sym=SYMBOL, ref_px="2.65", collar_ppm=20_000)
    for px in ("2.5", "2.55", "2.56"):
        maker.place("sell", 1, px)
    taken = taker.place("buy", 3, type="market")
    assert (taken["st"], taken["cum"]) == ("canceled", 2)  # 2.55 is two per cent of the best price away


def test_a_reduce_only_order_never_turns_a_position(trio: Trio) -> None:
    _, maker, taker = trio
    maker.place("sell", 5, "2.5")
    taker.place("buy", 5, "2.5")
    assert taker.bad("order.place", **order("sell", 6, "2.6", reduce_only=True))["code"] == Code.RISK_LIMIT
    assert taker.place("sell", 5, "2.6", reduce_only=True)["st"] == "new"
    assert taker.good("orders.open")["orders"][0]["reduce_only"] is True


@pytest.mark.parametrize(
    ("mode", "taken", "left"),
    [
        ("expire_taker", "canceled", [5]),
        ("expire_maker", "new", [3]),
        ("expire_both", "canceled", []),
        ("decrement", "canceled", [2]),
    ],
)
def test_nobody_trades_with_himself_who_does_not_want_to(trio: Trio, mode: str, taken: str, left: list[int]) -> None:
    node, maker, taker = trio
    maker.subscribe("private")
    watcher = Bot(node)
    watcher.subscribe("l2", symbols=[SYMBOL])
    watcher.subscribe("l3", symbols=[SYMBOL])
    resting = maker.place("sell", 5, "2.435")
    maker.take()
    answer = maker.place("buy", 3, "2.5", stp=mode, cid="taker")
    assert (answer["st"], answer["cum"]) == (taken, 0)
    prevented = [push for push in maker.pushes if push["ev"] == "prevented"]
    assert [(one["what"], one["liq"], one["qty"], one["px"]) for one in prevented] == [
        (mode, "taker", 3, "2.435"), (mode, "maker", 3, "2.435"),
    ]  # fmt: skip
    assert (prevented[0]["other"], prevented[1]["oid"]) == (resting["oid"], resting["oid"])
    reasons = {push["why"] for push in maker.pushes if push["ev"] == "order" and push["exec"] == "canceled"}
    assert reasons <= {"self_trade_prevented"}
    working = maker.good("orders.open")["orders"]
    assert [one["left"] for one in working] == left
    depth = node.gateway.projection.books[1]
    assert sum(lots for side in (depth.bids, depth.asks) for _, lots in side.top(None)) == sum(left)
    past = [one for one in maker.good("orders.history")["orders"] if one["cid"] == "taker"]
    assert [one["st"] for one in past] == ([] if taken == "new" else ["canceled"])
    assert taker.good("positions")["positions"] == maker.good("positions")["positions"][1:] == []


def test_a_self_trade_group_is_of_one_owner_only(trio: Trio) -> None:
    """Nobody can have the orders of others cancelled by naming their number."""
    node, maker, taker = trio
    node.open_account("maker:hedge")
    node.fund(3, lots=0)
    node.create_key("hedge", "maker:hedge")
    hedge = Bot(node)
    hedge.logon("hedge")
    hedge.subscribe("private")
    maker.place("sell", 2, "2.5", stp_group=1, cid="own")
    assert maker.good("orders.open")["orders"][0]["stp_group"] == 1
    assert hedge.place("buy", 2, "2.5", tif="ioc", stp="expire_taker", stp_group=1)["cum"] == 0
    assert hedge.place("buy", 1, "2.5", tif="ioc", stp="expire_maker", stp_group=2)["cum"] == 1
    assert taker.place("buy", 1, "2.5", tif="ioc", stp="expire_maker", stp_group=1)["cum"] == 1
    assert maker.good("order.cancel", cid="own")["st"] == "filled"


def test_terms_are_the_same_after_a_restart(trio: Trio, tmp_path: Path) -> None:
    node, maker, _ = trio
    maker.place("sell", 9, "2.5", show=4, tag=2, group=7, stp="decrement", stp_group=3, tif="gtd", expire=later(node))
    maker.place("sell", 9, "2.4", type="stop_limit", stop="2.41", reduce_only=False, cid="s")
    before = maker.good("orders.open")["orders"]
    for snapshot in (None, node.gateway.snapshot()):
        node.restart(snapshot, len(node.log) if snapshot else 0)
        again = Bot(node)
        again.logon("maker")
        assert again.good("orders.open")["orders"] == before
        book = again.subscribe("l3", symbols=[SYMBOL])[0]
        assert [(px, lots) for _, px, lots in book["a"]] == [("2.5", 4)]
