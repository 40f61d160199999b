"""Order entry: what is accepted, what is refused and why, and that nothing is done twice."""

from pathlib import Path
from typing import Any

import pytest

from engine.types import Kind
from gateway.auth import sign
from gateway.config import GatewayConfig
from gateway.messages import Code, Format
from tests.gateway.node import NS, OTHER, SYMBOL, Bot, Node, market

Trio = tuple[Node, Bot, Bot]


def order(side: str = "buy", qty: int = 1, px: Any = "2.4", **fields: Any) -> dict[str, Any]:
    return {"sym": SYMBOL, "side": side, "qty": qty} | ({} if px is None else {"px": px}) | fields


def test_an_order_rests_and_is_filled(trio: Trio) -> None:
    _, maker, taker = trio
    resting = maker.place("sell", 5, "2.435", cid="a")
    assert (resting["st"], resting["left"], resting["cum"], resting["cid"]) == ("new", 5, 0, "a")
    taken = taker.place("buy", 3, "2.5")
    assert (taken["st"], taken["left"], taken["cum"], taken["cid"]) == ("filled", 0, 3, None)
    (shown,) = maker.good("orders.open")["orders"]
    assert (shown["left"], shown["cum"], shown["st"], shown["px"]) == (2, 3, "partial", "2.435")
    assert taker.good("orders.open")["orders"] == []
    assert maker.good("orders.open", sym="nothing")["orders"] == []


def test_market_orders(trio: Trio) -> None:
    _, maker, taker = trio
    maker.place("sell", 5, "2.435")
    taken = taker.place("buy", 7, type="market")
    assert (taken["st"], taken["left"], taken["cum"]) == ("canceled", 0, 5)
    (position,) = taker.good("positions")["positions"]
    assert (position["net"], position["open_buy"]) == (5, 0)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        (order(sym="H100S-USE-H99010100"), Code.UNKNOWN_SYMBOL, None),
        (order(px="2.4355"), Code.BAD_PRICE, None),
        (order(px="2.43500001"), Code.BAD_PRICE, None),
        (order(px="-0.001"), Code.BAD_PRICE, None),
        (order(px="100.001"), Code.BAD_PRICE, None),
        (order(px="two"), Code.BAD_FIELD, "px"),
        (order(px=2), Code.BAD_FIELD, "px"),
        (order(px=None), Code.BAD_FIELD, "px"),
        (order(type="market"), Code.BAD_FIELD, "px"),
        (order(qty=0), Code.BAD_QTY, None),
        (order(qty=1_000_001), Code.BAD_QTY, None),
        (order(qty=-(2**70)), Code.BAD_QTY, None),
        (order(px=None, type="market", tif="gtc"), Code.BAD_TIF, None),
        (order(post="reject", tif="ioc"), Code.BAD_TIF, None),
        (order(px=None, type="market", post="reject"), Code.BAD_TIF, None),
        (order(tif="fok"), Code.FOK_NOT_FILLABLE, None),
        (order(post="reject", px="3"), Code.POST_ONLY_WOULD_TAKE, None),
        (order(px="90", qty=1_000_000), Code.INSUFFICIENT_FUNDS, None),
        (order("sell"), Code.INSUFFICIENT_CAPACITY, None),
        (order(display=4), Code.BAD_FIELD, "display"),
    ],
)
def test_refused_orders_say_why_and_change_nothing(
    trio: Trio, fields: dict[str, Any], code: Code, field: str | None
) -> None:
    node, maker, taker = trio
    maker.place("sell", 5, "2.5")
    before = taker.good("balances"), node.engine.event_seq
    error = taker.bad("order.place", **fields)
    assert (error["code"], error["name"], error.get("field"), error["final"]) == (code, code.name, field, True)
    assert error["msg"]
    assert taker.good("balances") == before[0]
    assert node.engine.event_seq - before[1] <= 1  # at the most the refusal itself


def test_a_market_that_is_not_open_says_where_it_stands(trio: Trio) -> None:
    node, _, taker = trio
    node.list(OTHER, 2)
    contract = {"sym": OTHER}
    node.now_ns += 2 * 3_600 * NS
    error = taker.bad("order.place", **order(**contract))
    assert (error["code"], error["status"]) == (Code.MARKET_NOT_OPEN, "gate_passed")
    node.simple(Kind.CLOSE, instrument=2)
    error = taker.bad("order.place", **order(**contract))
    assert (error["code"], error["status"]) == (Code.MARKET_NOT_OPEN, "closed")


def test_limits_of_the_engine_are_passed_on(tmp_path: Path) -> None:
    node, maker, _ = market(tmp_path, max_open_orders_per_account=1_001)
    for _ in range(1_000):
        maker.send("order.place", **order(qty=1_000_000, px="0"))
    node.run()
    maker.take()
    assert maker.bad("order.place", **order(px="0"))["code"] == Code.POSITION_LIMIT
    maker.place("sell", 1, "2.5")
    assert maker.bad("order.place", **order(px="0"))["code"] == Code.TOO_MANY_OPEN_ORDERS


def test_no_room_for_another_account(tmp_path: Path) -> None:
    node, _, _ = market(tmp_path, max_accounts=2)
    node.create_key("third", "third")
    bot = Bot(node)
    ts = node.wall_ns // 1000
    signature = sign(node.private_keys["third"], bot.hello["challenge"], "third", ts)
    assert bot.bad("session.logon", key="third", ts=ts, sig=signature)["code"] == Code.OVERLOADED


# --- Client ids -------------------------------------------------------------------------------------------------------


def test_the_same_order_again_is_answered_and_not_executed(trio: Trio) -> None:
    node, maker, taker = trio
    first = maker.ask("order.place", **order("sell", 5, "2.435", cid="a"))
    taker.place("buy", 5, "2.435")
    again = maker.ask("order.place", **order("sell", 5, "2.435", cid="a"))
    assert again["r"] == first["r"]
    assert (again["dup"], again["aseq"]) == (True, first["aseq"])
    assert maker.good("orders.open")["orders"] == []
    node.restart()
    other = Bot(node)
    other.logon("maker")
    assert other.ask("order.place", **order("sell", 5, "2.435", cid="a"))["dup"]


def test_another_order_under_the_same_id_is_refused(trio: Trio) -> None:
    _, maker, taker = trio
    maker.place("buy", 5, "2.4", cid="a")
    for change in ({"px": "2.41"}, {"qty": 6}, {"side": "sell"}, {"tif": "gtc"}, {"post": "reject"}):
        error = maker.bad("order.place", **{**order(qty=5, cid="a"), **change})
        assert error["code"] == Code.CID_REUSED_DIFFERENT
    assert taker.place("buy", 6, "2.4", cid="a")["st"] == "new"  # each account has its own


def test_an_order_sent_twice_before_the_answer_is_executed_once(trio: Trio) -> None:
    node, maker, _ = trio
    first = maker.send("order.place", **order(cid="a"))
    second = maker.send("order.place", **order(cid="a"))
    third = maker.send("order.place", **order(cid="a", qty=2))
    node.run()
    replies = {message["id"]: message for message in maker.take()}
    assert replies[third]["err"]["code"] == Code.CID_REUSED_DIFFERENT
    assert replies[first]["r"] == replies[second]["r"]
    assert "dup" not in replies[first]
    assert replies[second]["dup"]
    assert len(maker.good("orders.open")["orders"]) == 1


def test_a_refused_order_frees_its_id(trio: Trio) -> None:
    _, maker, _ = trio
    assert maker.bad("order.place", **order(cid="a", tif="fok"))["code"] == Code.FOK_NOT_FILLABLE
    assert maker.place("buy", 2, "2.4", cid="a")["st"] == "new"


def test_an_id_is_remembered_for_a_day_after_its_order(trio: Trio) -> None:
    node, maker, _ = trio
    node.list(OTHER, 2)
    maker.place("buy", 1, "2.4", cid="done")
    maker.good("order.cancel", cid="done")
    maker.place("buy", 1, "2.4", cid="working")
    node.now_ns += 23 * 3_600 * NS
    node.simple(Kind.TICK)
    assert maker.ask("order.place", **order(cid="done"))["dup"]
    node.now_ns += 2 * 3_600 * NS
    node.simple(Kind.TICK)
    assert maker.bad("order.cancel", cid="done")["code"] == Code.ORDER_NOT_FOUND
    assert maker.ask("order.place", **order(cid="working"))["dup"]


def test_an_id_of_a_book_that_is_gone_is_still_known(trio: Trio) -> None:
    node, maker, _ = trio
    maker.place("buy", 1, "2.4", cid="a")
    node.simple(Kind.CLOSE, instrument=1)
    node.simple(Kind.DELIST, instrument=1)
    assert maker.ask("order.place", **order(cid="a"))["dup"]
    assert maker.bad("order.place", **order(cid="b"))["code"] == Code.UNKNOWN_SYMBOL
    assert maker.good("order.cancel", cid="a")["st"] == "canceled"


# --- Amend and cancel -------------------------------------------------------------------------------------------------


def test_amend_keeps_its_place_only_for_less_at_the_same_price(trio: Trio) -> None:
    _, maker, taker = trio
    oid = maker.place("sell", 5, "2.435", cid="a")["oid"]
    less = maker.good("order.amend", oid=oid, qty=4)
    assert (less["kept"], less["left"], less["oid"]) == (True, 4, oid)
    dearer = maker.good("order.amend", cid="a", px="2.5")
    assert (dearer["kept"], dearer["left"]) == (False, 4)
    taker.place("buy", 3, "2.5")
    assert maker.good("order.amend", oid=oid, qty=3)["st"] == "canceled"  # all of it was filled


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"cid": "a"}, Code.BAD_FIELD, "px"),
        ({"px": "2"}, Code.BAD_FIELD, "oid"),
        ({"cid": "a", "oid": 1, "px": "2"}, Code.BAD_FIELD, "oid"),
        ({"cid": "unknown", "px": "2"}, Code.ORDER_NOT_FOUND, None),
        ({"oid": 12345, "px": "2"}, Code.ORDER_NOT_FOUND, None),
        ({"cid": "done", "px": "2"}, Code.ORDER_NOT_FOUND, None),
        ({"cid": "a", "px": "2.0001"}, Code.BAD_PRICE, None),
        ({"cid": "a", "qty": 0}, Code.BAD_QTY, None),
        ({"cid": "a", "qty": 1_000_000, "px": "100"}, Code.INSUFFICIENT_FUNDS, None),
        ({"cid": "a", "side": "buy", "px": "2"}, Code.BAD_FIELD, "side"),
    ],
)
def test_refused_amends(trio: Trio, fields: dict[str, Any], code: Code, field: str | None) -> None:
    _, maker, _ = trio
    maker.place("buy", 5, "2.4", cid="a")
    maker.place("buy", 5, "2.4", cid="done")
    maker.good("order.cancel", cid="done")
    error = maker.bad("order.amend", **fields)
    assert (error["code"], error.get("field")) == (code, field)


def test_nobody_touches_the_orders_of_others(trio: Trio) -> None:
    _, maker, taker = trio
    oid = maker.place("buy", 5, "2.4")["oid"]
    assert taker.bad("order.cancel", oid=oid)["code"] == Code.ORDER_NOT_FOUND
    assert taker.bad("order.amend", oid=oid, qty=1)["code"] == Code.ORDER_NOT_FOUND


def test_cancel_answers_the_final_state_however_it_came(trio: Trio) -> None:
    node, maker, taker = trio
    oid = maker.place("sell", 5, "2.435")["oid"]
    # The fill is on its way when the cancel is sent: the engine refuses the cancel, the client hears "filled".
    taker.send("order.place", **order("buy", 5, "2.435"))
    assert maker.good("order.cancel", oid=oid)["st"] == "filled"
    assert maker.good("order.cancel", oid=oid)["st"] == "filled"
    assert maker.bad("order.cancel", oid=999)["code"] == Code.ORDER_NOT_FOUND
    assert node.gateway.orders.pending == 0


def test_a_cancel_may_overtake_the_answer_to_its_order(trio: Trio) -> None:
    node, maker, _ = trio
    placed = maker.send("order.place", **order(cid="a"))
    amended = maker.send("order.amend", cid="a", qty=3)
    canceled = maker.send("order.cancel", cid="a")
    node.run()
    replies = [message for message in maker.take() if "id" in message]
    assert [reply["id"] for reply in replies] == [placed, amended, canceled]
    assert [reply["r"]["st"] for reply in replies] == ["new", "new", "canceled"]


def test_a_cancel_of_a_refused_order_finds_nothing(trio: Trio) -> None:
    node, maker, _ = trio
    maker.send("order.place", **order(cid="a", tif="fok"))
    canceled = maker.send("order.cancel", cid="a")
    node.run()
    reply = next(message for message in maker.take() if message.get("id") == canceled)
    assert reply["err"]["code"] == Code.ORDER_NOT_FOUND


def test_mass_cancel(trio: Trio) -> None:
    node, maker, _ = trio
    node.list(OTHER, 2)
    for side, px in (("buy", "2.4"), ("buy", "2.3"), ("sell", "2.6")):
        maker.place(side, 1, px)
    maker.place("buy", 1, "0.4", sym=OTHER)
    assert maker.good("cancel.mass", sym=SYMBOL, side="buy")["canceled"] == 2
    assert maker.good("cancel.mass", sym=OTHER)["canceled"] == 1
    assert maker.good("cancel.mass")["canceled"] == 1
    assert maker.good("cancel.mass")["canceled"] == 0
    assert maker.bad("cancel.mass", sym="nothing")["code"] == Code.UNKNOWN_SYMBOL


# --- Batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_done_in_order_and_answered_once(trio: Trio) -> None:
    node, maker, _ = trio
    items = [
        {"op": "order.place", **order("buy", 3, "2.4", cid="a")},
        {"op": "order.place", **order("buy", 3, "2.4001")},
        {"op": "order.amend", "cid": "a", "qty": 2},
        {"op": "order.cancel", "cid": "nothing"},
        {"op": "order.cancel", "cid": "a"},
    ]
    results = maker.good("order.batch", items=items)["items"]
    assert [result["ok"] for result in results] == [True, False, True, False, True]
    assert results[1]["err"]["code"] == Code.BAD_PRICE
    assert results[2]["r"]["kept"]
    assert results[4]["r"]["st"] == "canceled"
    assert maker.good("order.batch", items=[{"op": "order.cancel", "cid": "no"}])["items"][0]["ok"] is False
    assert node.gateway.orders.pending == maker.session.pending == 0


def test_the_limits_of_a_batch(trio: Trio) -> None:
    _, maker, _ = trio
    item = {"op": "order.cancel", "cid": "a"}
    assert maker.bad("order.batch", items=[item] * 101)["code"] == Code.TOO_LARGE
    assert maker.bad("order.batch", items=[])["code"] == Code.TOO_LARGE
    assert maker.bad("order.batch", items=[{"id": 3, **item}])["field"] == "id"
    assert len(maker.good("order.batch", items=[item] * 100)["items"]) == 100


@pytest.mark.parametrize("frame", [None, 1])
def test_the_reply_to_a_batch_comes_before_all_it_caused(trio: Trio, frame: int | None) -> None:
    node, maker, _ = trio
    maker.subscribe("private")
    items = [{"op": "order.place", **order("buy", 1, f"2.{n}")} for n in range(100, 110)]
    batch = maker.send("order.batch", items=items)
    single = maker.send("order.place", **order("buy", 1, "2.2"))
    node.run(frame)
    messages = maker.take()
    assert messages[0]["id"] == batch
    firsts = {message["id"]: message["aseq"] for message in messages if "id" in message}
    seen = [message["aseq"] for message in messages if message.get("ch") == "private"]
    assert seen == list(range(firsts[batch], firsts[batch] + len(seen)))
    place_of_single = next(index for index, message in enumerate(messages) if message.get("id") == single)
    caused = next(i for i, message in enumerate(messages) if message.get("aseq") == firsts[single] and "ch" in message)
    assert place_of_single < caused
    assert messages[0]["r"]["items"][0]["aseq"] == firsts[batch]


# --- Formats and limits -----------------------------------------------------------------------------------------------


def test_both_formats_trade_the_same(trio: Trio) -> None:
    node, maker, _ = trio
    packed = Bot(node, Format.MSGPACK)
    node.create_key("packed", "taker")
    packed.logon("packed")
    maker.place("sell", 5, "2.435")
    assert packed.place("buy", 2, 2_435_000)["cum"] == 2
    assert packed.bad("order.place", **order(px="2.435"))["field"] == "px"
    assert packed.bad("order.place", **order(px=2_435_001))["code"] == Code.BAD_PRICE
    assert packed.bad("order.place", **order(px=-(2**63)))["code"] == Code.BAD_PRICE
    balances = packed.good("balances")["balances"]
    assert balances["cash"] == node.gateway.projection.account_by_name["taker"].cash


def test_too_much_on_the_way(tmp_path: Path) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(max_pending_per_session=3, max_pending=5))
    for _ in range(4):
        maker.send("order.place", **order())
    assert [message["err"]["code"] for message in maker.take()] == [Code.OVERLOADED]
    for _ in range(3):
        taker.send("order.place", **order())
    assert [message["err"]["code"] for message in taker.take()] == [Code.OVERLOADED]
    node.run()
    assert [message["ok"] for message in maker.take()] == [True] * 3
    assert maker.place("buy", 1, "2.4")["st"] == "new"


def test_commands_of_others_answer_nobody(trio: Trio) -> None:
    """A ref that happens to be ours, in a command that is not."""
    node, maker, _ = trio
    maker.send("order.place", **order())
    ref = int(node.queue[0]["ref"][0])
    node.transfer(Kind.DEPOSIT, 1, amount_micros=5, ref=ref)
    assert [message for message in maker.take() if "id" in message] == []
    node.run()
    assert [message["ok"] for message in maker.take()] == [True]


def test_a_node_that_stops_leaves_the_outcome_open(trio: Trio) -> None:
    node, maker, _ = trio
    maker.send("order.place", **order(cid="a"))
    maker.send("order.cancel", cid="a")
    node.gateway.shutdown()
    assert maker.take()[-1]["ch"] == "shutdown"
    maker.send("balances")
    assert maker.take()[-1]["err"]["code"] == Code.SHUTTING_DOWN
    node.gateway.close()
    errors = [message["err"] for message in maker.take()]
    assert [error["code"] for error in errors] == [Code.OUTCOME_UNKNOWN] * 2
    assert not errors[0]["final"]
    assert maker.transport.closed == (1001, "shutdown")
