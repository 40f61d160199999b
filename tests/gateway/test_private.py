"""The private stream: numbered, complete, resumable."""

from pathlib import Path
from typing import Any

import pytest

from engine.types import Kind
from gateway.config import GatewayConfig
from gateway.messages import Code, Format
from tests.gateway.node import CASH_MICROS, SYMBOL, Bot, Node, market

Trio = tuple[Node, Bot, Bot]


def events(messages: list[Any]) -> list[tuple[str, ...]]:
    """The private events, each by its kind and what it says."""
    names = {"order": "exec", "fill": "liq", "money": "what", "delivery": "what"}
    private = [message for message in messages if message.get("ch") == "private"]
    return [(event["ev"], event[names[event["ev"]]]) if event["ev"] in names else (event["ev"],) for event in private]


def test_the_life_of_an_order(trio: Trio) -> None:
    _, maker, taker = trio
    maker.subscribe("private")
    maker.place("sell", 5, "2.435", cid="a")
    assert events(maker.pushes) == [("order", "new")]  # a sell holds no money
    taker.place("buy", 3, "2.5")
    assert events(maker.take()) == [("fill", "maker"), ("position",), ("balance",)]
    maker.good("order.amend", cid="a", px="2.436")
    assert events(maker.pushes) == [("order", "replaced")]
    assert maker.pushes[0]["kept"] is False
    maker.good("order.cancel", cid="a")
    assert events(maker.pushes) == [("order", "canceled")]
    assert (maker.pushes[0]["why"], maker.pushes[0]["st"], maker.pushes[0]["cid"]) == ("by_request", "canceled", "a")


def test_a_fill_carries_its_fee_and_its_client_id(trio: Trio) -> None:
    _, maker, taker = trio
    maker.subscribe("private")
    taker.subscribe("private")
    maker.place("sell", 8, "2.6", cid="m")
    taker.place("buy", 8, "2.6", cid="t")
    # The worked example of the fees: 8 lots of 8 GPUs at 2.60 are 166.40.
    taken = next(message for message in taker.pushes if message.get("ev") == "fill")
    made = next(message for message in maker.take() if message.get("ev") == "fill")
    assert (taken["fee"], taken["liq"], taken["cid"]) == ("0.0832", "taker", "t")
    assert (made["fee"], made["liq"], made["cid"]) == ("-0.03328", "maker", "m")
    assert taken["tid"] == made["tid"]
    balance = next(message for message in taker.pushes if message.get("ev") == "balance")["balances"]
    assert balance["cash"] == f"{CASH_MICROS / 1e6 - 166.4 - 0.0832:.4f}"


def test_what_others_do_with_the_money(trio: Trio) -> None:
    node, maker, _ = trio
    maker.subscribe("private")
    node.transfer(Kind.DEPOSIT, 1, amount_micros=5_000_000)
    deposit, balance = maker.take()
    assert (deposit["what"], deposit["amount"]) == ("deposit", "5")
    assert balance["ev"] == "balance"
    node.transfer(Kind.WITHDRAW, 1, amount_micros=5_000_000)
    assert maker.take()[0]["amount"] == "-5"
    node.transfer(Kind.NOMINATE, 1, instrument=1, lots=10)
    nomination, position, _ = maker.take()
    assert (nomination["what"], nomination["lots"], nomination["sym"]) == ("nomination", 10, SYMBOL)
    assert position["position"]["capacity"] == 1_010


def test_delivery_from_gate_to_payout(trio: Trio) -> None:
    node, maker, taker = trio
    maker.subscribe("private")
    taker.subscribe("private")
    maker.place("sell", 8, "2.6")
    taker.place("buy", 8, "2.6")
    taker.place("buy", 1, "2.5")
    maker.take(), taker.take()
    node.simple(Kind.CLOSE, instrument=1)
    due = next(message for message in maker.take() if message["ev"] == "delivery")
    assert (due["what"], due["role"], due["lots"], due["amount"]) == ("due", "provider", 8, "0")
    closing = taker.take()
    assert events(closing) == [("order", "canceled"), ("delivery", "due"), ("balance",)]
    assert (closing[0]["why"], closing[1]["role"]) == ("gate_closed", "receiver")
    node.transfer(Kind.DELIVER, 1, contra_account=2, instrument=1, lots=8, refund_micros=5_200_000)
    done = next(message for message in maker.take() if message["ev"] == "delivery")
    assert (done["what"], done["role"], done["refund"], done["damages"]) == ("done", "provider", "5.2", "0")
    received = taker.take()
    assert events(received) == [("delivery", "done"), ("position",), ("balance",)]
    assert (received[0]["amount"], received[1]["position"]["net"]) == ("5.2", 0)
    node.simple(Kind.CLOSE_CYCLE)
    rebate = maker.take()[0]
    assert (rebate["what"], rebate["amount"]) == ("rebate", "0.03328")


def test_a_seller_that_did_not_sell_gets_its_bond_back(trio: Trio) -> None:
    node, maker, _ = trio
    maker.subscribe("private")
    node.simple(Kind.CLOSE, instrument=1)
    assert events(maker.take()) == [("money", "bond_released"), ("position",), ("balance",)]


def test_the_snapshot_is_the_state(trio: Trio) -> None:
    _, maker, taker = trio
    maker.place("sell", 5, "2.435", cid="a")
    taker.place("buy", 3, "2.5")
    (snapshot,) = maker.subscribe("private")
    assert snapshot["ev"] == "snapshot"
    assert snapshot["orders"] == maker.good("orders.open")["orders"]
    assert snapshot["positions"] == maker.good("positions")["positions"]
    balances = maker.good("balances")
    assert (snapshot["balances"], snapshot["aseq"]) == (balances["balances"], balances["aseq"])


def test_resume_gives_exactly_what_was_missed(trio: Trio) -> None:
    node, maker, taker = trio
    maker.subscribe("private")
    maker.place("sell", 5, "2.435", cid="a")
    last = maker.pushes[-1]["aseq"]
    taker.place("buy", 3, "2.5")
    live = [message for message in maker.take() if message.get("ch") == "private"]
    other = Bot(node)
    node.create_key("second", "maker")
    assert other.logon("second", resume_from=last + 1)["resumed"] is True
    assert other.pushes == live
    reply = maker.ask("subscribe", channels=[{"name": "private", "resume_from": last + 2}])
    assert reply["r"]["resumed"] is True
    assert maker.pushes == live[1:]
    assert maker.good("subscribe", channels=[{"name": "private", "resume_from": live[-1]["aseq"] + 1}])["resumed"]
    assert maker.pushes == []


@pytest.mark.parametrize("from_snapshot", [False, True])
def test_resume_across_a_restart(trio: Trio, from_snapshot: bool) -> None:
    node, maker, taker = trio
    maker.subscribe("private")
    maker.place("sell", 5, "2.435", cid="a")
    last = maker.pushes[-1]["aseq"]
    snapshot, after = node.gateway.snapshot(), len(node.log)
    taker.place("buy", 3, "2.5")
    live = maker.take()
    node.restart(snapshot if from_snapshot else None, after if from_snapshot else 0)
    other = Bot(node)
    assert other.logon("maker", resume_from=last + 1)["resumed"] is True
    assert other.pushes == live


def test_what_is_gone_is_replaced_by_a_snapshot(tmp_path: Path) -> None:
    _, maker, _ = market(tmp_path, GatewayConfig(private_ring_events=4))
    for _ in range(5):
        maker.place("sell", 1, "2.5")
    for start in (1, 999):
        reply = maker.ask("subscribe", channels=[{"name": "private", "resume_from": start}])
        assert reply["r"]["resumed"] is False
        assert [message["ev"] for message in maker.pushes] == ["snapshot"]
    assert maker.bad("subscribe", channels=[{"name": "private", "resume_from": 0}])["code"] == Code.BAD_FIELD


def test_all_sessions_of_an_account_see_it_in_their_format(trio: Trio) -> None:
    node, maker, _ = trio
    node.create_key("second", "maker")
    other = Bot(node, Format.MSGPACK)
    other.logon("second")
    maker.subscribe("private")
    other.subscribe("private")
    maker.place("buy", 1, "2.4")
    ours = [message for message in maker.pushes if message["ch"] == "private"]
    theirs = other.take()
    assert [message["aseq"] for message in ours] == [message["aseq"] for message in theirs]
    assert (ours[0]["px"], theirs[0]["px"]) == ("2.4", 2_400_000)
    other.good("unsubscribe", channels=[{"name": "private"}])
    maker.place("buy", 1, "2.4")
    assert other.take() == []


def test_nobody_sees_the_events_of_others(trio: Trio) -> None:
    _, maker, taker = trio
    taker.subscribe("private")
    maker.place("buy", 1, "2.4")
    assert taker.take() == []
