"""Mass quotes in compiled code: the same as the general path, byte for byte, or declined."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Kind
from gateway.config import GatewayConfig
from gateway.fast.tables import LADDER_LEVELS, MASS_LADDERS, MASS_LEVELS, MASS_ROWS
from gateway.gateway import SessionTaker
from gateway.messages import Code, Format
from gateway.session import Session
from tests.gateway.node import OTHER, SYMBOL, Bot, Node, market
from tests.gateway.raw import frame
from tests.gateway.test_fast import FAR_US, STPS, Pair, encoded, price

QUOTER, TAKER = 2, 3
GROUPS = (1, 2)


def levels(rng: random.Random, wire: Format, most: int) -> list[list[Any]]:
    return [[price(rng, wire), rng.choice((0, 0, 1, 2, 3, 2_000_000))] for _ in range(rng.randrange(most + 1))]


def sound(rng: random.Random, wire: Format, middle: int, most: int, away: int) -> list[list[Any]]:
    """Levels that nothing is wrong with, best first."""
    ticks = [middle + away * (1 + level) for level in range(rng.randrange(most + 1))]
    return [[one * 1_000 if wire is Format.MSGPACK else f"{one / 1000}", rng.choice((0, 1, 5))] for one in ticks]


def mass_quote(rng: random.Random, wire: Format, most: int = 5) -> dict[str, Any]:
    """Quotes of one or two symbols, and what goes with them."""
    quotes = []
    for sym in rng.sample((SYMBOL, OTHER, SYMBOL), rng.randrange(1, 3)) if rng.random() < 0.9 else ("no",):
        middle, any_levels = rng.randrange(2_395, 2_412), rng.random() < 0.1
        sides = {
            name: levels(rng, wire, most) if any_levels else sound(rng, wire, middle, most, away)
            for name, away in (("b", -1), ("a", 1))
            if rng.random() < 0.8
        }
        quotes.append({"sym": sym, **sides})
    request = {"op": "quote.mass", "group": rng.choice(GROUPS), "quotes": quotes}
    terms = {
        "post": rng.choice(("reject", "reject", "slide")),
        "stp": rng.choice(STPS),
        "stp_group": 1,
        "deadline": FAR_US,
    }
    return request | {name: value for name, value in terms.items() if rng.random() < 0.2}


def what_may_be_there(node: Node) -> dict[tuple[int, ...], bytes]:
    tables = node.gateway.tables
    rows = range(1, int(tables.head["extents_used"]) + 1)
    return {
        tuple(
            int(tables.extents[row][name]) for name in ("account", "instrument", "group", "best_bid")
        ): tables.extent_levels[row].tobytes()
        for row in rows
        if tables.extents[row]["account"]
    }


def check(pair: Pair) -> None:
    pair.check()
    fast, general = map(what_may_be_there, pair.nodes)
    assert fast == general


def taken(pair: Pair) -> int:
    """How many messages compiled code took in."""
    return int(pair.nodes[0].gateway.tables.head["taken"])


@pytest.mark.parametrize("wire", Format)
@pytest.mark.parametrize("frame", [None, 3])
def test_both_paths_quote_the_same(tmp_path: Path, wire: Format, frame: int | None) -> None:
    """Ladders that move, shrink and are traded with, groups that freeze, orders and other requests in between."""
    pair, rng = Pair(tmp_path, wire, rate_burst=10**6), random.Random(7)
    before, quotes = taken(pair), 0
    for number in range(400):
        if rng.random() < 0.75:
            pair.send(QUOTER, encoded(mass_quote(rng, wire) | {"id": number}, wire))
            quotes += 1
        else:
            pair.send(TAKER, encoded(other_request(rng, wire, number), wire))
        if rng.random() < 0.3:
            pair.run(frame)
            check(pair)
    pair.run(frame)
    check(pair)
    pair.check_knowledge()
    assert taken(pair) - before > quotes / 2


def other_request(rng: random.Random, wire: Format, number: int) -> dict[str, Any]:
    if rng.random() < 0.1:
        return {"op": "mmp.set", "id": number, "group": 1, "lots": 4, "fills": 2, "window_ms": 1_000} | rng.choice(
            ({}, {"freeze_ms": 4})
        )
    if rng.random() < 0.1:
        return {"op": "mmp.reset", "id": number, "group": 1}
    order = {"op": "order.place", "id": number, "sym": SYMBOL, "qty": 3, "tif": "ioc", "px": price(rng, wire)}
    return {**order, "side": rng.choice(("buy", "sell"))}


@pytest.mark.parametrize("wire", Format)
def test_a_quote_of_many_levels_of_many_symbols(tmp_path: Path, wire: Format) -> None:
    """Over several batches of results, a side that ends where a batch does among them."""
    pair = Pair(tmp_path, wire, rate_burst=10**6)
    for counts in ((100, 100, 150, 0), (99, 1, 0, 100), (200, 130, 70, 100), (3, 0, 1, 180)):
        sides: list[Any] = [
            [[(1_000 + k) * 1_000 + 10**6 * (at & 1), 1] for k in range(count)] for at, count in enumerate(counts)
        ]
        if wire is Format.JSON:
            sides = [[[f"{px / 10**6:.3f}", lots] for px, lots in side] for side in sides]
        quotes = [{"sym": SYMBOL, "b": sides[0], "a": sides[1]}, {"a": sides[3], "sym": OTHER, "b": sides[2]}]
        before = taken(pair)
        pair.send(QUOTER, encoded({"op": "quote.mass", "id": 1, "group": 5, "quotes": quotes}, wire))
        pair.run()
        assert taken(pair) - before == 1
        check(pair)


@pytest.mark.parametrize("wire", Format)
def test_a_read_of_orders_and_quotes_is_taken_in_its_order(tmp_path: Path, wire: Format) -> None:
    """Frames as they stand in the receive buffer, short and long ones, those among them that are declined."""
    pair, rng = Pair(tmp_path, wire, rate_burst=10**6), random.Random(3)
    order = {
        "op": "order.place",
        "sym": SYMBOL,
        "side": "buy",
        "qty": 1,
        "px": "2.0" if wire is Format.JSON else 2_000_000,
    }
    for _ in range(3):
        messages = [encoded((mass_quote(rng, wire, 12) if at % 3 else order) | {"id": at}, wire) for at in range(30)]
        take_read(pair, 0, b"".join(masked(data, wire) for data in messages))
        pair.nodes[1].gateway.receive_many(pair.bots[1][QUOTER].session, messages)
        pair.run()
        check(pair)


def masked(payload: bytes, wire: Format) -> bytes:
    framed = frame(payload, 1 if wire is Format.JSON else 2)
    start, mask = len(framed) - len(payload), bytes((1, 2, 3, 0x83))
    return framed[: start - 4] + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))


def take_read(pair: Pair, number: int, data: bytes) -> None:
    """As a connection does it."""
    taker = SessionTaker(pair.nodes[number].gateway, pair.bots[number][QUOTER].session)
    assert taker.begin(data)
    at = 0
    while (at := taker.take(at, len(data))) < len(data):
        size, body = data[at + 1] & 0x7F, at + 6
        if size == 126:
            size, body = int.from_bytes(data[at + 2 : at + 4], "big"), at + 8
        mask, at = data[body - 4 : body], body + size
        taker.receive([bytes(byte ^ mask[k & 3] for k, byte in enumerate(data[body:at]))])
    taker.done()


QUOTE = {
    "op": "quote.mass", "id": 1, "group": 3, "post": "reject", "stp": "decrement", "stp_group": 2, "deadline": FAR_US,
    "quotes": [{"sym": SYMBOL, "b": [["2.4", 5], ["2.399", 1]], "a": [["2.41", 2]]}, {"sym": OTHER, "b": [], "a": [["2", 0]]}],
}  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2**64 - 1), st.integers(0, 3), st.sampled_from([SYMBOL, OTHER, "2.4", "02.4", "x"]),
    st.floats(allow_nan=False), st.sampled_from(STPS), st.text(max_size=8), st.lists(st.integers(0, 3), max_size=3),
    st.just([["2.4", 3]]), st.just([["2.4", 0]]), st.just([["2.4", 3, 1]]), st.just([[2_400_000, 3]]), st.just({"sym": OTHER}),
)  # fmt: skip
NAMES = st.sampled_from("op id group post stp stp_group deadline quotes rl qty px sym cod tag items x".split())


@st.composite
def quote_requests(draw: st.DrawFn, money: Callable[[str], Any]) -> dict[str, Any]:
    """A mass quote, perhaps with something changed somewhere in it."""
    request = msgspec.json.decode(msgspec.json.encode(QUOTE))
    for ladder in request["quotes"]:
        for side in ("b", "a"):
            ladder[side] = [[money(px), lots] for px, lots in ladder[side]]
    ladder = request["quotes"][draw(st.integers(0, 1))]
    for _ in range(draw(st.integers(0, 2))):
        match draw(st.integers(0, 4)):
            case 0:
                request[draw(NAMES)] = draw(VALUES)
            case 1:
                request.pop(draw(st.sampled_from(sorted(request))))
            case 2:
                ladder[draw(st.sampled_from(["sym", "b", "a", "c"]))] = draw(VALUES)
            case 3 if isinstance(ladder.get("b"), list):
                ladder["b"].append(draw(VALUES))
            case 4 if isinstance(ladder.get("a"), list) and ladder["a"]:
                ladder["a"][0] = draw(st.lists(VALUES, max_size=3))
    return dict(draw(st.permutations(list(request.items()))))


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    request = draw(quote_requests(str))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\n:\r")]))
    data = json.dumps(request, separators=separators, ensure_ascii=draw(st.booleans())).encode("utf-8", "replace")
    at = draw(st.integers(0, len(data)))
    match draw(st.integers(0, 6)):
        case 0:
            return data[:at] + draw(st.binary(max_size=2)) + data[at:]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + data[at + 1 :]
        case 3:
            return data[:-1] + b',"group":1}'
    return data


@st.composite
def packed(draw: st.DrawFn) -> bytes:
    data = msgspec.msgpack.encode(draw(quote_requests(lambda text: round(float(text) * 10**6))))
    at = draw(st.integers(0, len(data)))
    return draw(st.sampled_from([data, data, data[:at], data[:at] + draw(st.binary(max_size=2)) + data[at + 1 :]]))


@pytest.fixture(scope="module")
def one_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    pair = Pair(tmp_path_factory.mktemp("quotes"), Format.MSGPACK, rate_burst=10**6)
    for node, bots in zip(pair.nodes, pair.bots, strict=True):
        node.create_key("text", "maker", scopes=("quote",))
        bots.append(Bot(node))
        bots[-1].logon("text")
    return pair


@given(texts())
def test_both_paths_read_the_same_json(one_pair: Pair, data: bytes) -> None:
    ask_both(one_pair, len(one_pair.bots[0]) - 1, data)


@given(packed())
def test_both_paths_read_the_same_messagepack(one_pair: Pair, data: bytes) -> None:
    ask_both(one_pair, QUOTER, data)


def ask_both(pair: Pair, bot: int, data: bytes) -> None:
    """Send it twice, with nothing quoted and over what it quoted."""
    for _ in range(2):
        pair.send(bot, data)
        pair.run()
        check(pair)
    for group in (1, 3):
        quotes = [{"sym": sym, "b": [], "a": []} for sym in (SYMBOL, OTHER)]
        request = {"op": "quote.mass", "id": 5, "group": group, "quotes": quotes}
        pair.send(bot, encoded(request, pair.bots[0][bot].wire))
    pair.run()
    check(pair)


def test_the_usual_mass_quote_is_taken(one_pair: Pair) -> None:
    """The test of the texts would hold if nothing was."""
    before = taken(one_pair)
    ask_both(one_pair, len(one_pair.bots[0]) - 1, msgspec.json.encode(QUOTE))
    assert taken(one_pair) - before >= 3  # what is there already costs a command too, but takes back nothing


# --- Limits -----------------------------------------------------------------------------------------------------------


def quoting(path: Path, **limits: Any) -> tuple[Pair, Callable[..., None]]:
    pair = Pair(path, Format.JSON, **({"rate_burst": 10**6} | limits))

    def quote(*ladders: dict[str, Any], group: int = 1) -> None:
        pair.send(QUOTER, encoded({"op": "quote.mass", "id": 1, "group": group, "quotes": list(ladders)}, Format.JSON))

    return pair, quote


def ladder(lots: int, count: int = 1, sym: str = SYMBOL) -> dict[str, Any]:
    return {"sym": sym, "b": [[f"{(2_000 - k) / 1000}", lots] for k in range(count)]}


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"max_quote_levels": 5}, "TOO_LARGE"),
        ({"max_pending_per_session": 20}, "OVERLOADED"),
        ({"max_pending": 25}, "OVERLOADED"),
        ({"rate_quotes_per_token": 2, "rate_burst": 120, "rate_per_s": 1}, "RATE_LIMIT"),
    ],
)
def test_limits_are_the_same(tmp_path: Path, limits: dict[str, int], error: str) -> None:
    pair, quote = quoting(tmp_path, **limits)
    before, sent = taken(pair), b""
    for count in (1, 5, 6, 8, 9, 0, 3) * 5:
        quote(ladder(2, count))
        sent += b"".join(pair.bots[0][QUOTER].transport.sent)
        if count in (6, 0):
            pair.run()
            check(pair)
    pair.run()
    check(pair)
    assert error.encode() in sent and taken(pair) > before


def test_more_under_way_than_there_is_room_for(tmp_path: Path) -> None:
    """Neither the rows of quotes under way nor those of their results run over; what has no room goes the general way."""
    pair, quote = quoting(tmp_path, max_pending_per_session=10**6)
    for number in range(MASS_ROWS + 20):
        quote(ladder(1 + number % 3, 3))
    for _ in range(2):
        quote(*[ladder(1, 480, sym) for sym in (SYMBOL, OTHER)], group=2)
        pair.run()
        check(pair)


@pytest.mark.parametrize("count", [LADDER_LEVELS, LADDER_LEVELS + 1])
def test_a_side_has_only_so_many_levels(tmp_path: Path, count: int) -> None:
    pair, quote = quoting(tmp_path, max_quote_levels=5_000, max_message_bytes=10**6)
    quote(
        ladder(0, count - 1) if count > LADDER_LEVELS else {"sym": SYMBOL, "b": [["2", 0]] * (count - 1) + [["2", 1]]}
    )
    quote({"sym": SYMBOL, "b": [["2", 0]] * count})
    pair.run()
    sent = msgspec.json.decode(pair.bots[0][QUOTER].transport.sent[0])
    assert sent["ok"]
    replies = [msgspec.json.decode(data) for data in pair.bots[0][QUOTER].transport.sent if b'"id":1' in data]
    assert replies[-1]["ok"] if count == LADDER_LEVELS else replies[-1]["err"]["code"] == Code.TOO_LARGE
    check(pair)
    quote(ladder(1, 2))
    pair.run()
    check(pair)
    assert MASS_LEVELS < LADDER_LEVELS and MASS_LADDERS < MASS_LEVELS


def test_a_ladder_that_moves_down_does_not_meet_itself_after_its_offers_alone_moved(tmp_path: Path) -> None:
    """Which side goes first depends on where the bids were, whatever was sent of the offers since."""
    pair, quote = quoting(tmp_path)
    quote({"sym": SYMBOL, "b": [["2.400", 2]], "a": [["2.402", 2]]})
    quote({"sym": SYMBOL, "a": [["2.403", 2]]})
    quote({"sym": SYMBOL, "b": [["2.397", 2]], "a": [["2.399", 2]]})
    pair.run()
    for node in pair.nodes:
        depth = node.gateway.projection.books[1]
        assert (depth.bids.top(None), depth.asks.top(None)) == ([(2397, 2)], [(2399, 2)])
    check(pair)


# --- Ends -------------------------------------------------------------------------------------------------------------


def test_nobody_is_answered_who_is_gone(tmp_path: Path) -> None:
    pair, quote = quoting(tmp_path)
    quote(ladder(1, 150))
    for node, bots in zip(pair.nodes, pair.bots, strict=True):
        node.gateway.disconnect(bots[QUOTER].session)
    pair.run()
    for bots in pair.bots:
        assert not any(b'"id":1' in data for data in bots[QUOTER].transport.sent)
    pair.check_knowledge()
    tables = pair.nodes[0].gateway.tables
    assert tables.head["masses_free"] == 1 and not tables.sessions["holds"].any()


def test_what_is_under_way_when_the_exchange_stops_is_answered_once(tmp_path: Path) -> None:
    pair, quote = quoting(tmp_path)
    quote(ladder(1, 150))
    quote(ladder(2, 150))
    for node in pair.nodes:
        node.gateway.close()
    for bots in pair.bots:
        errors = [msgspec.json.decode(data)["err"]["code"] for data in bots[QUOTER].transport.sent]
        assert errors == [Code.OUTCOME_UNKNOWN] * 2
    check(pair)


def test_an_account_with_many_ladders_forgets_those_on_their_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.memory.MOST_EXTENTS", 30)
    pair, quote = quoting(tmp_path)
    for group in range(1, 80):
        quote(ladder(1, 2), group=group)
        if group % 7 == 0:
            pair.run()
            check(pair)
    pair.run()
    for group in range(1, 80):
        quote(ladder(0, 0), group=group)
    pair.run()
    check(pair)
    assert all(node.gateway.projection.books[1].bids.top(None) == [] for node in pair.nodes)


def test_what_was_quoted_is_known_after_a_restart(tmp_path: Path) -> None:
    node, _, _ = market(tmp_path, GatewayConfig(rate_burst=10**6))
    node.create_key("quoter", "maker", scopes=("read", "quote"))
    bot = Bot(node)
    bot.logon("quoter")
    bids = [[f"{(2_000 - k) / 1000}", 1] for k in range(120)]
    bot.good("quote.mass", group=1, quotes=[{"sym": SYMBOL, "b": bids}])
    node.restart()
    bot = Bot(node)
    bot.logon("quoter")
    taken_before = int(node.gateway.tables.head["taken"])
    (found,) = bot.good("quote.mass", group=1, quotes=[{"sym": SYMBOL, "b": bids[:100]}])["quotes"]
    assert [row["act"] for row in found["b"]] == ["same"] * 100 + ["canceled"] * 20
    assert node.gateway.tables.head["taken"] == taken_before + 1


def test_more_is_under_way_at_the_end_than_one_buffer_holds(tmp_path: Path) -> None:
    """All who wait are told, and nothing is written beyond the buffer."""
    node, maker, _ = market(
        tmp_path, GatewayConfig(rate_burst=10**9, max_pending_per_session=10**6, slow_hard_bytes=10**9)
    )
    order = b'{"op":"order.place","id":%d,"sym":"' + SYMBOL.encode() + b'","side":"buy","qty":1,"px":"2.0"}'
    for number in range(30_000):
        node.gateway.receive(maker.session, order % number)
    out = len(node.gateway.tables.out)
    node.gateway.close()
    assert sum(map(len, maker.transport.sent)) > out
    assert [msgspec.json.decode(data)["id"] for data in maker.transport.sent] == list(range(30_000))


def test_a_session_that_may_only_quote_places_no_order(tmp_path: Path) -> None:
    node, _, _ = market(tmp_path)
    node.create_key("quoter", "maker", scopes=("quote",))
    bot = Bot(node)
    bot.logon("quoter")
    session: Session = bot.session
    assert (
        node.gateway.tables.sessions[session.row]["can_quote"]
        and not node.gateway.tables.sessions[session.row]["can_trade"]
    )
    assert bot.bad("order.place", sym=SYMBOL, side="buy", qty=1, px="2")["code"] == Code.SCOPE_DENIED
    node.simple(Kind.LOCK, account=1)
    (found,) = bot.good("quote.mass", group=1, quotes=[ladder(1)])["quotes"]
    assert found["b"][0]["err"]["code"] == Code.LOCKED


def test_there_is_room_for_more_ladders_than_at_first(tmp_path: Path) -> None:
    pair, quote = quoting(tmp_path)
    before = taken(pair)
    first = len(pair.nodes[0].gateway.tables.extents)
    for group in range(1, first + 50):
        quote({"sym": SYMBOL, "b": [["2.0", group % 2]], "a": [["2.5", 1]]}, group=group)
        if group % 100 == 0:
            pair.run()
    pair.run()
    check(pair)
    assert len(pair.nodes[0].gateway.tables.extents) > first
    assert taken(pair) - before > first


def test_a_number_that_is_listed_again_has_no_ladders(tmp_path: Path) -> None:
    """Nor is anything kept of the ladders of hours that are gone."""
    pair, quote = quoting(tmp_path)
    quote(ladder(1, 5), ladder(1, 2, OTHER))
    pair.run()
    for node in pair.nodes:
        node.simple(Kind.CLOSE, instrument=1)
        node.simple(Kind.DELIST, instrument=1)
        node.list(SYMBOL, 1)
    check(pair)
    assert [key[1] for key in what_may_be_there(pair.nodes[0])] == [2]
    quote(ladder(1, 1))
    pair.run()
    (reply,) = [data for data in pair.bots[0][QUOTER].transport.sent if b'"id":1' in data]
    assert len(msgspec.json.decode(reply)["r"]["quotes"][0]["b"]) == 1
    check(pair)
