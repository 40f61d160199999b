"""Compiled code says and does what the general path does, byte for byte, or declines."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.types import TRANSFER, EventKind, Flag, Kind, Reason
from gateway.config import GatewayConfig
from gateway.messages import Format
from tests.gateway.node import OTHER, SYMBOL, Bot, Node, market

Records = NDArray[np.void]


class Pair:
    """The same market twice: once as it is, once with nothing compiled on the way."""

    def __init__(self, path: Path, wire: Format, **limits: Any) -> None:
        self.asked = 0
        self.nodes: list[Node] = []
        self.bots: list[list[Bot]] = []
        for name in ("fast", "general"):
            (path / name).mkdir()
            config = GatewayConfig(compiled=name == "fast", private_ring_events=50, **limits)
            node, maker, taker = market(path / name, config)
            node.list(OTHER, 2)
            for key, account in (("second", "maker"), ("third", "taker")):
                node.create_key(key, account, **({"scopes": ("read", "trade", "quote")} if key == "second" else {}))
            bots = [maker, taker, Bot(node, wire), Bot(node, wire)]
            bots[2].logon("second")
            bots[3].logon("third")
            for bot in bots:
                channels = [{"name": "l2", "symbols": [SYMBOL], "depth": "all"}, {"name": "trades", "symbols": "*"}]
                bot.good("subscribe", channels=[*channels, {"name": "private"}, {"name": "l1", "symbols": [OTHER]}])
                bot.transport.sent.clear()
            self.nodes.append(node)
            self.bots.append(bots)

    def send(self, bot: int, payload: bytes) -> None:
        for node, bots in zip(self.nodes, self.bots, strict=True):
            node.gateway.receive(bots[bot].session, payload)

    def run(self, frame: int | None = None) -> None:
        for node in self.nodes:
            node.run(frame)

    def check(self) -> None:
        """The same commands, the same words to everybody, and the same knowledge afterwards."""
        fast, general = self.nodes
        assert [part.tobytes() for part in map(without_ref, fast.queue)] == [
            part.tobytes() for part in map(without_ref, general.queue)
        ]
        for ours, theirs in zip(*self.bots, strict=True):
            assert ours.transport.sent == theirs.transport.sent
            assert ours.session.pending == theirs.session.pending
            ours.transport.sent.clear()
            theirs.transport.sent.clear()
        assert fast.gateway.orders.pending == general.gateway.orders.pending

    def check_knowledge(self) -> None:
        """What is known of orders, positions, money and books."""
        fast, general = (node.gateway.tables.dump()["tables"] for node in self.nodes)
        for name in ("accounts", "orders", "positions", "instruments", "sides", "levels", "recent"):
            for column in fast[name].dtype.names:
                if column not in ("step", "moved", "first_aseq"):  # the general path has them elsewhere
                    assert np.array_equal(fast[name][column], general[name][column]), (name, column)


def without_ref(commands: Records) -> Records:
    commands = commands.copy()
    commands["ref"] = 0
    return commands


def encoded(request: dict[str, Any], wire: Format) -> bytes:
    return msgspec.json.encode(request) if wire is Format.JSON else msgspec.msgpack.encode(request)


STPS = ("expire_taker", "expire_maker", "expire_both", "decrement")
FAR_US = 1_795_000_500_000_000


def price(rng: random.Random, wire: Format) -> Any:
    ticks = rng.randrange(2_395, 2_412)
    micros = ticks * 1_000 if rng.random() < 0.95 else ticks * 1_000 + 1
    if wire is Format.MSGPACK:
        return micros
    return f"{micros / 1e6:.6f}"[: rng.choice((5, 5, 6, 8))]


def place(rng: random.Random, wire: Format, cids: list[str]) -> dict[str, Any]:
    request: dict[str, Any] = {"op": "order.place", "sym": SYMBOL if rng.random() < 0.9 else rng.choice((OTHER, "no"))}
    request |= {"side": rng.choice(("buy", "sell")), "qty": rng.choice((1, 2, 3, 50, 0, 10**6, 2_000_000)) or 5}
    if rng.random() < 0.9:
        request["px"] = price(rng, wire)
    optional = {
        "type": rng.choice(("limit", "market")), "tif": rng.choice(("gtg", "gtc", "ioc", "fok")), "post": "reject",
        "cod": rng.random() < 0.5, "tag": rng.randrange(1, 4), "group": rng.randrange(1, 4), "stp_group": rng.randrange(1, 3),
        "stp": rng.choice(STPS), "deadline": rng.choice((1, FAR_US, FAR_US)),
    }  # fmt: skip
    request |= {name: value for name, value in optional.items() if rng.random() < 0.15}
    if rng.random() < 0.8:
        cids.append(f"c{len(cids)}-{rng.randrange(100)}")
        request["cid"] = cids[-1] if rng.random() < 0.9 else rng.choice(cids)
    return request


def change(rng: random.Random, wire: Format, cids: list[str]) -> dict[str, Any]:
    request: dict[str, Any] = {"op": rng.choice(("order.amend", "order.cancel"))}
    if cids and rng.random() < 0.9:
        request["cid"] = rng.choice(cids[-12:])
    else:
        request["oid"] = rng.choice((1, 2**24 + 1, 2**25 + 2, 2**24 + 5))
    if request["op"] == "order.amend":
        request |= {"qty": rng.randrange(1, 9)} if rng.random() < 0.6 else {}
        request |= {"px": price(rng, wire)} if rng.random() < 0.6 else {}
        request |= {"deadline": rng.choice((1, FAR_US))} if rng.random() < 0.1 else {}
    return request


def special(rng: random.Random, wire: Format, cids: list[str]) -> dict[str, Any]:
    """An order with some of all the terms there are; or a plain one of a kind that they meet."""
    request = place(rng, wire, cids)
    some = {
        "tif": "gtd", "expire": FAR_US,
        "show": rng.randrange(1, 5), "min_qty": rng.randrange(1, 4), "reduce_only": True, "post": "slide",
    }  # fmt: skip
    request |= {name: value for name, value in some.items() if rng.random() < 0.2}
    if rng.random() < 0.3:
        request |= {"type": rng.choice(("stop", "stop_limit")), "stop": price(rng, wire), "trigger": "last"}
    return request


def control(rng: random.Random, wire: Format, cids: list[str]) -> dict[str, Any]:
    """What is not about one order."""
    match rng.randrange(8):
        case 0:
            return {"op": "cancel.mass", **rng.choice(({"tag": 1}, {"group": 2}, {"side": "buy"}, {"sym": SYMBOL}))}
        case 1:
            return {"op": "mmp.set", "group": rng.randrange(1, 3), "lots": 4, "fills": 2, "window_ms": 1_000}
        case 2:
            return {"op": "mmp.reset", "group": rng.randrange(1, 3)}
        case 3:
            return {"op": "cancel_after", "ms": rng.choice((0, 900_000)), "tag": rng.randrange(1, 4)}
        case 4 if cids:
            return {"op": "order.amend", "cid": rng.choice(cids[-12:]), "stop": price(rng, wire)}
    sides = {
        name: [[price(rng, wire), rng.randrange(4)] for _ in range(rng.randrange(4))]
        for name in "ba"
        if rng.random() < 0.8
    }
    return {"op": "quote.mass", "group": rng.randrange(1, 3), "quotes": [{"sym": SYMBOL, **sides}]}


def requests(rng: random.Random, wire: Format, count: int, specials: float = 0.0) -> Iterator[dict[str, Any]]:
    cids: list[str] = []
    for number in range(count):
        make = place if rng.random() < 0.65 else change
        if rng.random() < specials:
            make = special if rng.random() < 0.6 else control
        if rng.random() < 0.15:
            items = [rng.choice((place, place, change))(rng, wire, cids) for _ in range(rng.randrange(1, 12))]
            yield {"op": "order.batch", "id": number, "items": items}
        else:
            yield {**make(rng, wire, cids), "id": number}


@pytest.mark.parametrize("wire", Format)
@pytest.mark.parametrize("frame", [None, 3])
@pytest.mark.parametrize(("seed", "specials"), [(0, 0.0), (1, 0.0), (2, 0.5)])
def test_both_paths_trade_the_same(tmp_path: Path, wire: Format, frame: int | None, seed: int, specials: float) -> None:
    """Plain orders, and plain ones among all that there are beside them."""
    pair, rng = Pair(tmp_path, wire, max_pending_per_session=40, rate_burst=300), random.Random(seed)
    for request in requests(rng, wire, 400, specials):
        bot = rng.randrange(4)
        pair.send(bot, encoded(request, pair.bots[0][bot].wire))
        if rng.random() < 0.2:
            pair.run(frame)
            pair.check()
    pair.run(frame)
    pair.check()
    pair.check_knowledge()
    assert pair.nodes[0].gateway.tables.head["taken"] > 50 * (1 - specials)
    assert any(pair.nodes[0].gateway.tables.orders["special"]) == bool(specials)


REQUESTS = st.sampled_from(
    [
        {"op": "order.place", "id": 1, "sym": SYMBOL, "side": "buy", "qty": 3, "px": "2.4", "cid": "a", "tif": "gtc"},
        {"op": "order.place", "id": 1, "sym": SYMBOL, "side": "sell", "qty": 3, "type": "market", "cod": False},
        {
            "op": "order.place",
            "id": 1,
            "sym": SYMBOL,
            "side": "buy",
            "qty": 3,
            "px": "2.4",
            "tag": 7,
            "group": 2,
            "stp": "decrement",
            "stp_group": 5,
            "deadline": FAR_US,
        },
        {"op": "order.cancel", "id": 2, "cid": "known"},
        {"op": "order.amend", "id": 2, "cid": "known", "px": "2.399", "qty": 4, "deadline": FAR_US},
        {"op": "order.batch", "id": 4, "items": [{"op": "order.cancel", "cid": "known"}]},
    ]
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2**64 - 1), st.integers(120, 130), st.integers(2**53 - 1, 2**53 + 1),
    st.sampled_from(["", "buy", "sell", "a", "2.4", "2.40000000", "02.4", ".5", "5.", "1e3", "é", "x" * 37, '"', "\\", "\0"]),
    st.floats(allow_nan=False), st.sampled_from(STPS), st.text(max_size=8), st.lists(st.integers(0, 3), max_size=2),
)  # fmt: skip
NAMES = st.sampled_from(
    "op id sym side qty type px tif post cid cod oid items rl x tag group stp stp_group stp_grouq deadline".split()
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """A request in JSON, perhaps with a field changed, and written in one of the ways in which it may be, or cut."""
    request = dict(draw(REQUESTS))
    for _ in range(draw(st.integers(0, 2))):
        request[draw(NAMES)] = draw(VALUES)
    if draw(st.booleans()):
        request = dict(draw(st.permutations(list(request.items()))))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\n:\r")]))
    data = json.dumps(request, separators=separators, ensure_ascii=draw(st.booleans())).encode("utf-8", "replace")
    match draw(st.integers(0, 5)):
        case 0:
            at = draw(st.integers(0, len(data)))
            return data[:at] + draw(st.binary(max_size=2)) + data[at:]
        case 1:
            return data[: draw(st.integers(0, len(data)))]
        case 2:
            return data[:-1] + b',"qty":1}'
    return data


@pytest.fixture(scope="module")
def one_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"), Format.MSGPACK, rate_burst=10**6)


@given(texts())
def test_both_paths_read_the_same_json(one_pair: Pair, data: bytes) -> None:
    ask_both(one_pair, 0, data, b'{"op":"order.place","id":9,"sym":"%s","side":"buy","qty":3,"px":"2.3","cid":"known"}')


@st.composite
def packed(draw: st.DrawFn) -> bytes:
    request = dict(draw(REQUESTS))
    if "px" in request:
        request["px"] = draw(st.sampled_from([2_400_000, 2_400_001, 0, 2**63, 2**40]))
    for _ in range(draw(st.integers(0, 2))):
        request[draw(NAMES)] = draw(VALUES)
    data = msgspec.msgpack.encode(request)
    at = draw(st.integers(0, len(data)))
    return draw(st.sampled_from([data, data, data[:at], data[:at] + draw(st.binary(max_size=2)) + data[at + 1 :]]))


@given(packed())
def test_both_paths_read_the_same_messagepack(one_pair: Pair, data: bytes) -> None:
    known = {"op": "order.place", "id": 9, "sym": SYMBOL, "side": "buy", "qty": 3, "px": 2_300_000, "cid": "known"}
    ask_both(one_pair, 2, data, msgspec.msgpack.encode(known))


def ask_both(pair: Pair, bot: int, data: bytes, known: bytes) -> None:
    """Send it to both, where an order `known` works and is the only one. Each time it has another client id."""
    pair.asked += 1
    cid = b"%05d" % pair.asked
    pair.send(bot, known.replace(b"%s", SYMBOL.encode()).replace(b"known", cid))
    pair.run()
    pair.send(bot, data.replace(b"known", cid))
    pair.run()
    pair.send(bot, encoded({"op": "cancel.mass", "id": 5}, pair.bots[0][bot].wire))
    pair.run()
    pair.check()


def test_a_step_is_told_in_order_when_a_batch_spans_frames(tmp_path: Path) -> None:
    """Events are held in compiled code and in Python, and come behind the reply in their order."""
    pair = Pair(tmp_path, Format.JSON, rate_burst=10**6)
    items = [{"op": "order.place", "sym": SYMBOL, "side": "buy", "qty": 1, "px": f"2.{n}"} for n in range(100, 130)]
    pair.send(0, encoded({"op": "order.batch", "id": 1, "items": items}, Format.JSON))
    pair.send(0, encoded({"op": "order.batch", "id": 2, "items": items[:3]}, Format.JSON))
    pair.run(4)
    pair.check()


def test_an_error_with_a_text_of_its_own_leaves_the_other_texts(tmp_path: Path) -> None:
    """It is stored when it is first told, behind what all messages are made of."""
    pair = Pair(tmp_path, Format.MSGPACK)
    order = {"op": "order.place", "side": "buy", "qty": 1}
    for node in pair.nodes:
        node.now_ns += 3_600 * 10**9
    for bot, wire in enumerate((Format.JSON, Format.JSON, Format.MSGPACK, Format.MSGPACK)):
        px = "2.4" if wire is Format.JSON else 2_400_000
        for sym in (OTHER, SYMBOL):
            pair.send(bot, encoded({**order, "id": 1, "sym": sym, "px": px}, wire))
        pair.run()
        assert any(b"gate_passed" in data for data in pair.bots[0][bot].transport.sent)
        pair.check()
    for node in pair.nodes:
        node.now_ns -= 3_600 * 10**9
    for request in requests(random.Random(5), Format.MSGPACK, 50):
        pair.send(2, encoded(request, Format.MSGPACK))
    pair.run()
    pair.check()


def test_events_that_do_not_fit_are_a_fault(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Format.JSON)
    node = pair.nodes[0]
    pair.send(
        0, encoded({"op": "order.place", "id": 1, "sym": SYMBOL, "side": "buy", "qty": 1, "px": "2.4"}, Format.JSON)
    )
    node.run()
    commands, events = node.log[-1]
    events = events.copy()
    events["kind"], events["order_id"], events["reason"] = EventKind.CANCELED, 77, Reason.BY_REQUEST
    with pytest.raises(ValueError, match="do not fit"):
        node.gateway.on_batch(commands, events)


class ReadsIds:
    """An engine that reads the client ids of all orders, as where several gateways share one market."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def apply(self, commands: Records) -> Records:
        marked = commands.copy()
        marked["flags"][(marked["kind"] == Kind.NEW_ORDER) & marked["cl_ord_id"].any(axis=1)] |= int(Flag.EXTENDED)
        return self._engine.apply(marked)  # type: ignore[no-any-return]


@pytest.mark.parametrize("wire", Format)
def test_an_order_that_only_the_engine_knows_is_a_repeat(tmp_path: Path, wire: Format) -> None:
    pair = Pair(tmp_path, wire)
    for node in pair.nodes:
        node.engine = ReadsIds(node.engine)  # type: ignore[assignment]
    item = {"op": "order.place", "sym": SYMBOL, "side": "buy", "qty": 3, "px": 2_400_000, "cid": "a"}
    item |= {"px": "2.4"} if wire is Format.JSON else {}

    def ask() -> list[Any]:
        pair.send(2, encoded({**item, "id": 1}, wire))
        pair.send(2, encoded({"op": "order.batch", "id": 2, "items": [item | {"cid": "b"}]}, wire))
        pair.run()
        sent = [msgspec.json.decode(data) if wire is Format.JSON else msgspec.msgpack.decode(data)
                for data in pair.bots[0][2].transport.sent]  # fmt: skip
        pair.check()
        replies = {message["id"]: message for message in sent if "id" in message}
        return [replies[1], replies[2]["r"]["items"][0]]

    first = [answer["r"]["oid"] for answer in ask()]
    for node in pair.nodes:
        for word in range(5):  # the gateway finds them by these ids no more
            node.gateway.tables.orders[f"c{word}"] = 0
    assert [(answer["dup"], answer["r"]["oid"], answer["r"]["left"]) for answer in ask()] == [
        (True, oid, 3) for oid in first
    ]
    for node in pair.nodes:
        node.gateway.tables.orders["id"] = 0  # nor by any other
    assert [answer["err"]["name"] for answer in ask()] == ["OUTCOME_UNKNOWN"] * 2
    assert [row[2] for row in pair.nodes[0].engine.dump()["books"][1]["bids"][0][1]] == [3, 3]


def test_a_large_request_fills_no_outbox(tmp_path: Path) -> None:
    """What is queued for a reader is handed over before it is too much, in the middle of a read."""
    node, maker, _ = market(tmp_path, GatewayConfig(slow_soft_bytes=4_096, slow_hard_bytes=8_192))
    maker.transport.held_bytes = 10_000
    node.gateway.receive_many(maker.session, [b'{"op":"instruments","id":%d}' % n for n in range(200)])
    assert maker.transport.closed is not None
    assert len(maker.transport.sent) < 50


def test_a_batch_may_open_many_accounts(tmp_path: Path) -> None:
    """The room for their private events is made before the batch, which is when they are not there yet."""
    node = Node(tmp_path)
    count = 60
    commands = np.zeros(2 * count, TRANSFER)
    commands["account"] = np.arange(2, 2 * count + 2) // 2
    commands["kind"][::2], commands["kind"][1::2] = Kind.OPEN_ACCOUNT, Kind.DEPOSIT
    commands["amount_micros"][1::2] = 5
    commands["external_id"][:, 0] = commands["account"]
    node.gateway.tables._set("next_chunk", node.gateway.tables._arrays["next_chunk"][:4])
    for name in ("records", "values"):
        node.gateway.tables._set(name, node.gateway.tables._arrays[name][: 4 * 32])
    node.apply(commands)
    assert [node.gateway.streams.stream(account).aseq for account in range(1, count + 1)] == [2] * count
