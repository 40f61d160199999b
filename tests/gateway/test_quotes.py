"""Mass quotes, market-maker protection, cancels by filter and dead man's switches, from the wire to the book."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Kind
from gateway.config import GatewayConfig
from gateway.messages import Code, Format
from tests.gateway.node import NS, OTHER, SYMBOL, Bot, Node, market

BIDS, ASKS = [["2.40", 5], ["2.39", 6], ["2.38", 7]], [["2.45", 5], ["2.46", 6]]


@pytest.fixture
def quoting(tmp_path: Path) -> tuple[Node, Bot, Bot]:
    return with_quoter(tmp_path)


def with_quoter(path: Path, config: GatewayConfig | None = None) -> tuple[Node, Bot, Bot]:
    """A node, a bot of the maker's that may quote and nothing else but read, and the taker."""
    node, _, taker = market(path, config)
    node.create_key("quoter", "maker", scopes=("read", "quote"))
    bot = Bot(node)
    bot.logon("quoter")
    return node, bot, taker


def ladder(sym: str = SYMBOL, **sides: Any) -> dict[str, Any]:
    return {"sym": sym, **sides}


def quote(bot: Bot, *ladders: dict[str, Any], group: int = 1, **fields: Any) -> list[Any]:
    """The results, by ladder."""
    return list(bot.good("quote.mass", group=group, quotes=list(ladders), **fields)["quotes"])


def acts(rows: list[Any]) -> list[str]:
    return [row["act"] for row in rows]


def book(node: Node, number: int = 1) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    depth = node.gateway.projection.books[number]
    return depth.bids.top(None), depth.asks.top(None)


def test_a_ladder_is_set_and_changed_level_by_level(quoting: tuple[Node, Bot, Bot]) -> None:
    node, bot, _ = quoting
    (first,) = quote(bot, ladder(b=BIDS, a=ASKS), post="reject")
    assert (acts(first["b"]), acts(first["a"])) == (["new"] * 3, ["new"] * 2)
    assert book(node) == ([(2400, 5), (2390, 6), (2380, 7)], [(2450, 5), (2460, 6)])
    ids = [row["oid"] for row in first["b"]]
    (second,) = quote(bot, ladder(b=[["2.40", 5], ["2.39", 4], ["2.37", 7]]))
    assert acts(second["b"]) == ["same", "replaced", "replaced"]
    assert [row.get("kept") for row in second["b"]] == [None, True, False]
    assert [row["oid"] for row in second["b"]] == ids
    assert second["a"] == []  # not named, so as it was
    (third,) = quote(bot, ladder(b=[["2.40", 5]], a=[["2.45", 0], ["2.46", 6]]))
    assert (acts(third["b"]), acts(third["a"])) == (["same", "canceled", "canceled"], ["canceled", "same"])
    assert book(node) == ([(2400, 5)], [(2460, 6)])
    (last,) = quote(bot, ladder(b=[], a=[]))
    assert (acts(last["b"]), acts(last["a"])) == (["canceled"], ["canceled"])
    assert book(node) == ([], [])
    assert quote(bot, ladder(b=[], a=[])) == [{"sym": SYMBOL, "b": [], "a": []}]


def test_an_unchanged_quote_keeps_its_place(quoting: tuple[Node, Bot, Bot]) -> None:
    node, bot, taker = quoting
    taker.place("buy", 2, "2.39")
    quote(bot, ladder(b=[["2.40", 5]]))
    taker.place("buy", 2, "2.40")
    quote(bot, ladder(b=[["2.40", 5], ["2.38", 1]]))
    watcher = Bot(node)
    snapshot = watcher.subscribe("l3", symbols=[SYMBOL])[0]
    assert [(px, lots) for _, px, lots in snapshot["b"]] == [("2.4", 5), ("2.4", 2), ("2.39", 2), ("2.38", 1)]


def test_groups_and_symbols_do_not_touch_each_other(quoting: tuple[Node, Bot, Bot]) -> None:
    node, bot, _ = quoting
    node.list(OTHER, 2)
    quote(bot, ladder(b=[["2.40", 5]]), ladder(OTHER, b=[["0.4", 3], ["0.3", 3]]), group=1)
    quote(bot, ladder(b=[["2.39", 5]]), group=2)
    quote(bot, ladder(OTHER, b=[["0.4", 3]]), group=1)
    assert (book(node)[0], book(node, 2)[0]) == ([(2400, 5), (2390, 5)], [(800, 3)])
    assert bot.good("cancel.mass", group=2)["canceled"] == 1
    assert bot.good("cancel.mass", group=1, sym=SYMBOL)["canceled"] == 1
    (shown,) = bot.good("orders.open")["orders"]
    assert (shown["sym"], shown["group"], shown["level"], shown["cid"]) == (OTHER, 1, 0, None)


def test_each_level_has_its_own_result(quoting: tuple[Node, Bot, Bot]) -> None:
    node, bot, taker = quoting
    taker.place("buy", 1, "2.44")
    found, unknown = quote(
        bot,
        ladder(b=[["2.40", 5], ["2.40001", 5], ["2", 10**7]], a=[["2.44", 1], ["2.45", 1]]),
        ladder("nothing", b=[["1", 1]], a=[]),
        post="reject",
    )
    assert [row.get("err", {}).get("code") for row in found["b"]] == [None, Code.BAD_PRICE, Code.BAD_QTY]
    assert [row.get("err", {}).get("code") for row in found["a"]] == [Code.POST_ONLY_WOULD_TAKE, None]
    assert unknown["b"][0]["err"]["code"] == Code.UNKNOWN_SYMBOL
    assert bot.session.pending == node.gateway.orders.pending == 0
    (late,) = quote(bot, ladder(b=[["2.41", 5]]), deadline=1)
    assert late["b"][0]["err"]["code"] == Code.DEADLINE_PASSED  # and the old one still stands
    assert acts(late["b"])[0] == "refused"
    assert (2400, 5) in book(node)[0]


@pytest.mark.parametrize(("first", "then"), [(2400, 2500), (2500, 2400)])
def test_a_ladder_that_moves_does_not_meet_itself(quoting: tuple[Node, Bot, Bot], first: int, then: int) -> None:
    node, bot, _ = quoting
    for middle in (first, then):
        sides = {
            "b": [[f"{(middle - away) / 1000}", 2] for away in (5, 10)],
            "a": [[f"{(middle + away) / 1000}", 2] for away in (5, 10)],
        }
        (result,) = quote(bot, ladder(**sides), post="reject")
        assert "refused" not in acts(result["b"]) + acts(result["a"])
    assert book(node) == ([(then - 5, 2), (then - 10, 2)], [(then + 5, 2), (then + 10, 2)])


def test_the_shape_of_a_mass_quote(quoting: tuple[Node, Bot, Bot]) -> None:
    _, bot, taker = quoting
    assert taker.bad("quote.mass", group=1, quotes=[ladder(b=[])])["code"] == Code.SCOPE_DENIED
    assert bot.bad("quote.mass", group=1, quotes=[])["code"] == Code.TOO_LARGE
    assert bot.bad("quote.mass", group=1, quotes=[ladder(b=[["2", 1]] * 1_001)])["code"] == Code.TOO_LARGE
    assert bot.bad("quote.mass", group=1, quotes=[ladder(), ladder()])["field"] == "quotes"
    assert bot.bad("quote.mass", group=1, quotes=[ladder(b=[["2", -1]])])["field"] == "quotes"
    assert bot.bad("quote.mass", group=1, quotes=[ladder(b=[["2", 1]])], stp="no")["field"] == "stp"
    (found,) = quote(bot, ladder(b=[["2", 2**60], ["2", 10**6 + 1], [2, 1]]))
    assert [row["err"]["name"] for row in found["b"]] == ["BAD_QTY", "BAD_QTY", "BAD_FIELD"]
    assert bot.bad("order.place", sym=SYMBOL, side="buy", qty=1, px="2")["code"] == Code.SCOPE_DENIED


def test_taking_quotes_back_is_never_rate_limited(tmp_path: Path) -> None:
    _, bot, _ = with_quoter(tmp_path, GatewayConfig(rate_per_s=1, rate_burst=8, rate_quotes_per_token=1))
    quote(bot, ladder(b=BIDS, a=ASKS))
    assert bot.bad("quote.mass", group=1, quotes=[ladder(b=BIDS, a=ASKS)])["code"] == Code.RATE_LIMIT
    assert acts(quote(bot, ladder(b=[["2.40", 0]], a=[]))[0]["b"]) == ["canceled"] * 3


@pytest.mark.parametrize("frame", [None, 1])
def test_the_reply_comes_before_all_it_caused(quoting: tuple[Node, Bot, Bot], frame: int | None) -> None:
    node, bot, _ = quoting
    bot.subscribe("private")
    request = bot.send("quote.mass", group=1, quotes=[ladder(b=BIDS, a=ASKS)])
    node.run(frame)
    messages = bot.take()
    assert messages[0]["id"] == request
    events = [message["aseq"] for message in messages[1:]]
    assert events == list(range(messages[0]["aseq"], messages[0]["aseq"] + len(events)))


def test_both_formats_quote_the_same(quoting: tuple[Node, Bot, Bot]) -> None:
    node, _, _ = quoting
    node.create_key("packed", "maker", scopes=("quote",))
    packed = Bot(node, Format.MSGPACK)
    packed.logon("packed")
    (result,) = quote(packed, ladder(b=[[2_400_000, 5], ["2.39", 5]], a=[[2_450_000, 5]]))
    assert [row.get("err", {}).get("field") for row in result["b"]] == [None, "px"]
    assert book(node) == ([(2400, 5)], [(2450, 5)])


def test_what_was_quoted_is_known_after_a_restart(quoting: tuple[Node, Bot, Bot]) -> None:
    node, bot, _ = quoting
    quote(bot, ladder(b=BIDS, a=ASKS))
    node.restart()
    again = Bot(node)
    again.logon("quoter")
    (result,) = quote(again, ladder(b=[["2.40", 5]], a=[]))
    assert (acts(result["b"]), acts(result["a"])) == (["same", "canceled", "canceled"], ["canceled"] * 2)
    assert book(node) == ([(2400, 5)], [])


def test_ladders_on_their_way_are_shortened_too(quoting: tuple[Node, Bot, Bot]) -> None:
    node, bot, _ = quoting
    bot.send("quote.mass", group=1, quotes=[ladder(b=BIDS)])
    bot.send("quote.mass", group=1, quotes=[ladder(b=[["2.41", 1]])])
    node.run()
    assert book(node) == ([(2410, 1)], [])


def test_levels_that_cannot_be_there_cost_the_engine_nothing(quoting: tuple[Node, Bot, Bot]) -> None:
    """They are free, so there may be as many as anybody likes to send."""
    node, bot, _ = quoting
    zeros = [["2", 0]] * 400
    for sides in ({"b": zeros, "a": zeros}, {"b": [*zeros, ["2", 1], *zeros]}):
        before = len(node.log)
        request = bot.send("quote.mass", group=1, quotes=[ladder(**sides)])
        commands = sum(len(part) for part in node.queue)
        assert commands == ("a" not in sides)
        node.run()
        (reply,) = [message for message in bot.take() if message["id"] == request]
        assert acts(reply["r"]["quotes"][0]["b"]).count("none") == len(sides["b"]) - commands
        assert len(node.log) - before == (commands > 0)
    assert acts(quote(bot, ladder(b=zeros))[0]["b"]) == ["none"] * 400 + ["canceled"]
    assert book(node) == ([], [])


def test_quotes_are_cancelled_with_the_session(quoting: tuple[Node, Bot, Bot]) -> None:
    node, bot, _ = quoting
    quote(bot, ladder(b=BIDS))
    node.gateway.disconnect(bot.session)
    node.wall_ns += 1
    node.gateway.poll()
    node.run()
    assert book(node) == ([], [])


LADDERS = st.lists(st.tuples(st.integers(2_380, 2_420), st.integers(0, 9)), max_size=4)


@pytest.fixture(scope="module")
def one_market(tmp_path_factory: pytest.TempPathFactory) -> tuple[Node, Bot]:
    node, bot, _ = with_quoter(tmp_path_factory.mktemp("quotes"), GatewayConfig(rate_burst=10**9))
    return node, bot


@given(st.lists(st.tuples(LADDERS | st.none(), LADDERS | st.none(), st.booleans()), max_size=6))
def test_what_stands_is_what_was_asked_for_last(one_market: tuple[Node, Bot], moves: list[Any]) -> None:
    """Nobody else is there, and the sides are far from each other, so nothing is refused."""
    node, bot = one_market
    group = len(node.log) + 1  # each time another one
    wanted: list[dict[int, tuple[int, int]]] = [{}, {}]
    for bids, asks, waits in moves:
        sides = {"b": bids, "a": None if asks is None else [(px + 100, lots) for px, lots in asks]}
        given = {
            name: [[f"{px / 1000}", lots] for px, lots in side] for name, side in sides.items() if side is not None
        }
        bot.send("quote.mass", group=group, quotes=[ladder(**given)], post="reject")
        for number, side in enumerate(sides.values()):
            if side is not None:
                wanted[number] = {level: rung for level, rung in enumerate(side) if rung[1]}
        if waits:
            node.run()
    node.run()
    orders = node.gateway.projection.accounts[1].orders.values()
    for number in (0, 1):
        stands = {one.level: (one.price, one.leaves) for one in orders if one.side == number}
        assert stands == wanted[number]
    bot.good("cancel.mass")
    bot.take()


# --- Protection -------------------------------------------------------------------------------------------------------


def test_protection_takes_a_group_off_the_market_between_two_fills(quoting: tuple[Node, Bot, Bot]) -> None:
    node, bot, taker = quoting
    bot.subscribe("private")
    assert bot.good("mmp.set", group=7, lots=6, fills=10, window_ms=1_000)["seq"] > 0
    (set_event,) = bot.pushes
    assert (set_event["what"], set_event["lots"], set_event["fills"], set_event["window_ms"]) == ("set", 6, 10, 1_000)
    quote(bot, ladder(a=[["2.45", 4], ["2.46", 4], ["2.47", 4]]), group=7)
    bot.take()
    assert taker.place("buy", 12, "2.47", tif="ioc")["cum"] == 8
    pushed = bot.take()
    triggered = next(event for event in pushed if event["ev"] == "mmp")
    assert (triggered["what"], triggered["lots"], triggered["fills"], triggered["sym"]) == ("triggered", 8, 2, SYMBOL)
    assert [event["why"] for event in pushed if event.get("exec") == "canceled"] == ["mmp"]
    (frozen,) = quote(bot, ladder(a=[["2.45", 4]]), group=7)
    assert frozen["a"][0]["err"]["code"] == Code.MMP_FROZEN
    assert bot.good("protections")["mmp"] == [{"group": 7, "window_ms": 1_000, "lots": 6, "fills": 10, "frozen": True}]
    node.restart()
    bot = Bot(node)
    bot.logon("quoter")
    snapshot = bot.subscribe("private")[0]
    assert snapshot["mmp"][0]["frozen"] is True
    bot.good("mmp.reset", group=7)
    assert bot.pushes[0]["what"] == "reset"
    assert acts(quote(bot, ladder(a=[["2.45", 4]]), group=7)[0]["a"])[0] == "new"
    bot.good("mmp.reset", group=7, off=True)
    assert bot.pushes[0]["what"] == "off"
    assert bot.good("protections")["mmp"] == []
    assert bot.bad("mmp.reset", group=8)["code"] == Code.BAD_FIELD


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("wire", Format)
def test_a_freeze_may_end_by_itself(tmp_path: Path, wire: Format, compiled: bool) -> None:
    """By the market's clock; and it is told when, in the event, in refusals of every shape, and to who asks."""
    node, _, taker = with_quoter(tmp_path, GatewayConfig(compiled=compiled))
    node.create_key("trader", "maker", scopes=("read", "trade", "quote"))
    bot = Bot(node, wire)
    bot.logon("trader")
    bot.subscribe("private")
    px: Any = "2.45" if wire is Format.JSON else 2_450_000
    order = {"sym": SYMBOL, "side": "sell", "qty": 1, "px": px, "group": 7}
    bot.good("mmp.set", group=7, lots=6, fills=10, window_ms=1_000, freeze_ms=5_000)
    assert (bot.pushes[0]["what"], bot.pushes[0]["freeze_ms"]) == ("set", 5_000)
    quote(bot, ladder(a=[[px, 8]]), group=7)
    bot.take()
    taker.place("buy", 6, "2.45")
    until = node.now_ns // 1_000 + 5_000_000
    assert [event["until"] for event in bot.take() if event["ev"] == "mmp"] == [until]
    (frozen,) = quote(bot, ladder(a=[[px, 4]]), group=7)
    refusals = [
        frozen["a"][0]["err"],
        bot.bad("order.place", **order),
        bot.good("order.batch", items=[{"op": "order.place", **order}])["items"][0]["err"],
    ]
    assert [(error["code"], error["until"]) for error in refusals] == [(Code.MMP_FROZEN, until)] * 3
    assert len({error["msg"] for error in refusals}) == 1
    (state,) = bot.good("protections")["mmp"]
    assert (state["frozen"], state["until"], state["freeze_ms"]) == (True, until, 5_000)
    snapshot = node.gateway.snapshot()
    node.restart(snapshot, len(node.log))
    bot = Bot(node, wire)
    bot.logon("trader")
    assert bot.subscribe("private")[0]["mmp"] == [state]
    node.now_ns = until * 1_000 - 1_000_000  # the command that is next is at this time
    assert bot.good("order.place", **order)["st"] == "new"
    (state,) = bot.good("protections")["mmp"]
    assert state["frozen"] is False and "until" not in state


def test_an_account_has_only_so_many_protected_groups(tmp_path: Path) -> None:
    """The engine has room for so many of all accounts; nobody takes it from the others, not even in one read."""
    node, bot, _ = with_quoter(tmp_path, GatewayConfig(max_mmp_groups=3))
    for group in (1, 2, 3, 4, 1):
        bot.send("mmp.set", group=group, lots=1, fills=1, window_ms=1)
    node.run()
    assert [message.get("err", {}).get("name") for message in bot.take()] == ["TOO_LARGE", None, None, None, None]
    bot.good("mmp.reset", group=2, off=True)
    bot.good("mmp.set", group=4, lots=1, fills=1, window_ms=1)
    assert [one["group"] for one in bot.good("protections")["mmp"]] == [1, 3, 4]


def test_orders_are_cancelled_by_tag(quoting: tuple[Node, Bot, Bot]) -> None:
    node, _, taker = quoting
    for number, tag in enumerate((None, 1, 1, 2)):
        taker.place("buy", 1, f"2.{number + 1}", **({} if tag is None else {"tag": tag}))
    taker.place("buy", 1, type="stop", stop="3", tag=1)
    assert taker.good("cancel.mass", tag=1)["canceled"] == 3
    assert taker.good("cancel.mass", tag=1, sym=SYMBOL)["canceled"] == 0
    assert [one.get("tag") for one in taker.good("orders.open")["orders"]] == [None, 2]
    assert node.gateway.orders.pending == 0


def test_a_lock_cancels_all_and_lets_nothing_in(quoting: tuple[Node, Bot, Bot]) -> None:
    node, _, taker = quoting
    taker.subscribe("private")
    taker.place("buy", 1, "2.1")
    assert taker.bad("cancel.mass", lock=True, sym=SYMBOL)["field"] == "lock"
    assert taker.good("cancel.mass", lock=True)["canceled"] == 1
    names = [(event["ev"], event.get("what") or event.get("why")) for event in taker.pushes]
    assert names[:2] == [("account", "locked"), ("order", "locked")]
    assert taker.bad("order.place", sym=SYMBOL, side="buy", qty=1, px="2.1")["code"] == Code.LOCKED
    assert taker.good("protections")["locked"] is True
    node.simple(Kind.UNLOCK, account=2)
    assert taker.take()[0]["what"] == "unlocked"
    assert taker.place("buy", 1, "2.1")["st"] == "new"


# --- Dead man's switch ------------------------------------------------------------------------------------------------


def test_a_switch_that_is_let_go_cancels(quoting: tuple[Node, Bot, Bot]) -> None:
    node, _, taker = quoting
    taker.subscribe("private")
    taker.place("buy", 1, "2.1", tag=5)
    taker.place("buy", 1, "2.2")
    before = node.now_ns
    at = taker.good("cancel_after", ms=5_000, tag=5)["at"]
    assert at == before // 1_000 + 5_000_000
    assert [(event["what"], event["tag"], event["at"]) for event in taker.pushes] == [("set", 5, at)]
    assert taker.good("cancel_after", ms=9_000, tag=5)["at"] > at  # held
    assert taker.good("protections")["timers"][0]["tag"] == 5
    node.now_ns += 10 * NS
    node.simple(Kind.DEAD_MAN, account=2, tag=5)  # as the node does when it falls due
    events = taker.take()
    assert (events[0]["ev"], events[0]["what"], events[0]["tag"]) == ("timer", "fired", 5)
    assert (events[1]["exec"], events[1]["why"], events[1]["tag"]) == ("canceled", "dead_man", 5)
    assert len(taker.good("orders.open")["orders"]) == 1
    taker.good("cancel_after", ms=1_000)
    assert taker.good("cancel_after", ms=0) == {"at": None}
    assert taker.pushes[0]["what"] == "off"
    assert taker.good("protections")["timers"] == []


def test_an_account_has_only_so_many_switches(quoting: tuple[Node, Bot, Bot]) -> None:
    _, _, taker = quoting
    for tag in range(1, 17):
        taker.good("cancel_after", ms=60_000, tag=tag)
    assert taker.bad("cancel_after", ms=60_000, tag=17)["code"] == Code.OVERLOADED
    taker.good("cancel_after", ms=0, tag=3)
    assert taker.good("cancel_after", ms=60_000, tag=17)["at"]


def test_a_switch_whose_answer_is_not_known_says_so(quoting: tuple[Node, Bot, Bot]) -> None:
    node, _, taker = quoting
    taker.send("cancel_after", ms=5_000)
    taker.send("quote.mass", group=1, quotes=[])
    node.gateway.close()
    errors = [message["err"]["code"] for message in taker.take()]
    assert errors == [Code.SCOPE_DENIED, Code.OUTCOME_UNKNOWN]
