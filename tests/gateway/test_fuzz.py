"""Sessions without I/O under anything that a client may send: whatever comes, the promises of the protocol hold."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import GatewayConfig
from gateway.messages import CHANNELS, OPS
from tests.gateway.node import OTHER, SYMBOL, Bot, Node, market

FEW = settings(max_examples=40, deadline=None)
WORDS = st.sampled_from(
    [*f"buy sell {SYMBOL} {OTHER} 2.5 2.4 2.45 0 -1 limit market gtg ioc a b * l1 l2 ü".split(), ""],
)
VALUES = st.one_of(
    WORDS, st.integers(-3, 2**53), st.booleans(), st.none(), st.sampled_from([1, 2, 7, 10**30, 1.5]),
    st.lists(WORDS, max_size=3), st.dictionaries(WORDS, st.integers(0, 9), max_size=2),
)  # fmt: skip
NAMES = st.sampled_from(
    "sym side qty px type tif post cid oid rl limit before channels items to amount lots on account status key more".split()
)
CHANNEL = st.fixed_dictionaries(
    {"name": st.sampled_from([*CHANNELS, "l9"])},
    optional={
        "symbols": st.sampled_from([[SYMBOL], "*", [SYMBOL, OTHER], [], "x"]), "depth": st.sampled_from([10, "all", 7]),
        "class": st.sampled_from(["H100S", "?"]), "from": st.just({SYMBOL: 3}), "resume_from": st.integers(0, 9),
    },
)  # fmt: skip
ORDER = st.fixed_dictionaries(
    {
        "op": st.just("order.place"), "sym": st.just(SYMBOL), "side": st.sampled_from(["buy", "sell"]),
        "qty": st.integers(1, 5), "px": st.sampled_from(["2.4", "2.45", "2.5"]),
    },
    optional={"tif": st.sampled_from(["gtg", "ioc", "fok"]), "post": st.just("reject"), "cid": st.sampled_from("abc")},
)  # fmt: skip
CANCEL = st.fixed_dictionaries({"op": st.sampled_from(["order.cancel"]), "cid": st.sampled_from("abc")})
AMEND = st.fixed_dictionaries({"op": st.just("order.amend"), "cid": st.sampled_from("abc"), "qty": st.integers(1, 9)})
LIKELY = st.one_of(
    ORDER, CANCEL, AMEND,
    st.fixed_dictionaries({"op": st.just("order.batch"), "items": st.lists(ORDER | CANCEL | AMEND, max_size=4)}),
    st.fixed_dictionaries({"op": st.sampled_from(["subscribe", "unsubscribe"]), "channels": st.lists(CHANNEL, max_size=3)}),
)  # fmt: skip
WILD = st.builds(
    lambda op, fields: {"op": op, **fields},
    st.sampled_from(sorted(OPS - {"session.logout"})),
    st.dictionaries(NAMES, VALUES, max_size=5),
)
REQUESTS = st.one_of(LIKELY, LIKELY, WILD)


class Promises:
    """What a client may rely on, checked as messages come."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self.asked: set[int] = set()
        self.aseq: int | None = None
        self.caused: set[int] = set()  # first private events that replies have announced
        self.chains: dict[tuple[str, str], int] = {}

    def ask(self, request: dict[str, Any]) -> None:
        self.asked.add(self.bot.send(request["op"], **{name: value for name, value in request.items() if name != "op"}))

    def look(self) -> None:
        for message in self.bot.take():
            if "ch" in message:
                self.push(message)
            else:
                self.asked.remove(message["id"])  # each once, and none that was not asked
                assert message["ok"] == ("err" not in message)
                assert message["t_in"] <= message["t_out"]
                if "aseq" in message and self.aseq is not None and not message.get("dup"):
                    assert message["aseq"] > self.aseq, "the reply comes before the events that it caused"

    def push(self, message: dict[str, Any]) -> None:
        if message["ch"] == "private":
            if message["ev"] != "snapshot" and self.aseq is not None:
                assert message["aseq"] == self.aseq + 1
            self.aseq = message["aseq"]
        elif "sym" in message:
            key = (message["ch"], message["sym"])
            if message["ev"] != "snapshot" and message["prev"]:
                assert self.chains.get(key, message["prev"]) == message["prev"]
            self.chains[key] = message["seq"]


@FEW
@given(st.lists(st.tuples(st.integers(0, 1), REQUESTS, st.booleans()), max_size=30))
def test_any_requests_keep_the_promises(moves: list[tuple[int, dict[str, Any], bool]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        node, maker, taker = market(Path(directory), GatewayConfig(rate_burst=10**6))
        sides = [Promises(maker), Promises(taker)]
        for bot in (maker, taker):
            bot.subscribe("private")
        for which, request, runs in moves:
            sides[which].ask(request)
            if runs:
                settle(node, sides)
        settle(node, sides)
        assert not sides[0].asked
        assert not sides[1].asked
        assert "INTERNAL" not in node.gateway.counts.errors
        assert maker.transport.closed is taker.transport.closed is None


def settle(node: Node, sides: list[Promises]) -> None:
    node.run()
    node.gateway.poll()
    node.run()
    for side in sides:
        side.look()


@FEW
@given(st.lists(st.one_of(st.binary(max_size=60), REQUESTS.map(lambda request: json.dumps({"id": 1, **request}).encode()),
    REQUESTS.map(lambda request: json.dumps({"id": 1, **request}).encode()[:-7])), max_size=20))  # fmt: skip
def test_any_bytes_leave_the_session_as_it_was(messages: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        node, maker, _ = market(Path(directory), GatewayConfig(rate_burst=10**6))
        for data in messages:
            node.gateway.receive(maker.session, data)
            node.run()
        maker.take()
        assert maker.good("balances")
        assert maker.session.pending == 0
        assert "INTERNAL" not in node.gateway.counts.errors


@pytest.mark.parametrize("op", sorted(OPS))
def test_an_op_without_fields_is_answered(tmp_path: Path, op: str) -> None:
    _, maker, _ = market(tmp_path)
    reply = maker.ask(op)
    assert reply["ok"] or reply["err"]["name"] != "INTERNAL"
