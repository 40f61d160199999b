"""What settlement says, as clients see it: the channels `batches` and `deliveries`, and questions about papers."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import GatewayConfig
from gateway.messages import (
    BatchState,
    DeliveryState,
    Statement,
    StatementPart,
)
from gateway.settled import Answer, Question
from tests.gateway.node import Bot, Node, market

GATE_US = 1_795_356_000_000_000


def batch(cycle: int, state: str = "frozen") -> BatchState:
    return BatchState(
        cycle, 1, cycle * 10 - 9, cycle * 10, state, 5_000_000, 1_000_000, 3, "aa" * 32, "bb" * 32, "cc" * 32, 7, 7, ""
    )


def delivery(symbol: str, done: int) -> DeliveryState:
    return DeliveryState(symbol, GATE_US, 9, done, 1, 2, 190_800_000, 0, 0, 0, 2_650_000, "prints")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_snapshot_and_then_what_is_new_in_a_chain(node: Node) -> None:
    node.gateway.tell_settled(10, [batch(1)], [delivery("A", 0)])
    bot = Bot(node)
    bot.good("subscribe", channels=[{"name": "batches"}, {"name": "deliveries"}])
    first, second = bot.pushes
    assert (first["ch"], first["ev"], first["seq"], first["prev"]) == ("batches", "snapshot", 10, 0)
    assert (first["list"][0]["gross"], first["list"][0]["id"]) == ("5", "cc" * 32)
    assert (second["ch"], second["ev"], second["list"][0]["paid"]) == ("deliveries", "snapshot", "190.8")
    node.gateway.tell_settled(20, [batch(2)], [delivery("A", 9), delivery("B", 0)])
    frozen, update = bot.take()
    assert (frozen["ev"], frozen["seq"], frozen["prev"]) == ("frozen", 20, 10)
    assert [row["cycle"] for row in frozen["list"]] == [2]
    assert [(row["sym"], row["done"]) for row in update["list"]] == [("A", 9), ("B", 0)]


def test_what_is_known_is_not_sent_again(node: Node) -> None:
    bot = Bot(node)
    bot.good("subscribe", channels=[{"name": "batches"}, {"name": "deliveries"}])
    node.gateway.tell_settled(10, [batch(1)], [delivery("A", 0)])
    assert len(bot.take()) == 2
    node.gateway.tell_settled(11, [batch(1)], [delivery("A", 0)])
    assert bot.take() == []
    node.gateway.tell_settled(12, [batch(1, "final")], [])
    (moved,) = bot.take()
    assert (moved["list"][0]["state"], moved["prev"]) == ("final", 10)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    node = Node(tmp_path, GatewayConfig(recent_settled=2))
    node.gateway.tell_settled(9, [batch(cycle) for cycle in (1, 2, 3)], [delivery(name, 0) for name in "ABC"])
    bot = Bot(node)
    bot.good("subscribe", channels=[{"name": "batches"}, {"name": "deliveries"}])
    batches, deliveries = bot.pushes
    assert [row["cycle"] for row in batches["list"]] == [2, 3]
    assert [row["sym"] for row in deliveries["list"]] == ["B", "C"]


def test_leaving_and_being_gone_end_it(node: Node) -> None:
    bot, other = Bot(node), Bot(node)
    for one in (bot, other):
        one.good("subscribe", channels=[{"name": "batches"}])
    bot.good("unsubscribe", channels=[{"name": "batches"}, {"name": "deliveries"}])
    node.gateway.disconnect(other.session)
    node.gateway.tell_settled(10, [batch(1)], [])
    assert bot.take() == []
    assert not node.gateway.settled.watches(other.session)


@pytest.mark.parametrize("fields", [{"symbols": "*"}, {"depth": 10}, {"resume_from": 1}, {"class": "H100S"}])
def test_they_are_not_by_symbol(node: Node, fields: dict[str, Any]) -> None:
    assert Bot(node).bad("subscribe", channels=[{"name": "batches", **fields}])["name"] == "BAD_FIELD"


class Shelf:
    """Papers that are found later, when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Question]] = []
        self.answers: list[Answer] = []

    def ask(self, account: int, question: Question, answer: Answer) -> None:
        self.asked.append((account, question))
        self.answers.append(answer)


def test_a_paper_is_answered_when_it_is_found(tmp_path: Path) -> None:
    node, _, bot = market(tmp_path)
    shelf = node.gateway._papers = Shelf()
    bot.send("statement", cycle=3, format="json", offset=7)
    assert bot.take() == []
    ((account, question),) = shelf.asked
    assert account == 2
    assert isinstance(question, Statement)
    assert (question.cycle, question.format, question.offset) == (3, "json", 7)
    shelf.answers[0](StatementPart(3, "json", 7, 8, "}"))
    (reply,) = bot.take()
    assert (reply["ok"], reply["r"]["data"]) == (True, "}")


def test_where_nothing_is_settled_there_is_nothing_to_read(tmp_path: Path) -> None:
    _, _, bot = market(tmp_path)
    assert bot.good("statements") == {"statements": []}
    assert bot.bad("proof")["field"] == "cycle"
    assert bot.bad("statement", cycle=2)["field"] == "cycle"
    assert bot.bad("statement", cycle=0)["name"] == "BAD_FIELD"


def test_papers_need_a_log_on(node: Node) -> None:
    bot = Bot(node)
    for op, fields in (("statements", {}), ("statement", {"cycle": 1}), ("proof", {})):
        assert bot.bad(op, **fields)["name"] == "NOT_LOGGED_ON"
