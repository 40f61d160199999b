"""Sessions without a socket: log-on, rights, limits, going away and coming back."""

from copy import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Kind
from gateway.auth import sign
from gateway.config import GatewayConfig
from gateway.messages import Code, Format
from gateway.rates import Bucket
from tests.gateway.node import SYMBOL, Bot, Node, market

Trio = tuple[Node, Bot, Bot]
ORDER = {"sym": SYMBOL, "side": "buy", "qty": 1, "px": "2.4"}
MS = 1_000_000


def later(node: Node, ms: int) -> None:
    node.wall_ns += ms * MS
    node.gateway.poll()
    node.run()


# --- Log-on -----------------------------------------------------------------------------------------------------------


def test_the_server_speaks_first(trio: Trio) -> None:
    node, _, _ = trio
    hello = Bot(node).hello
    assert (hello["ch"], hello["proto"], hello["venue"]) == ("hello", "wellhead.v1", "Wellhead")
    assert hello["ts"] == node.wall_ns // 1000
    assert hello["limits"]["batch_items"] == 100


def test_the_challenge_is_new_each_time(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.gateway._challenge = iter("abcdef").__next__
    assert Bot(node).hello["challenge"] != Bot(node).hello["challenge"]


def test_a_logon_opens_the_account_of_its_name(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.create_key("k1", "alice")
    node.create_key("k2", "alice")
    node.create_key("k3", "bob")
    result = Bot(node).logon("k1")
    assert (result["account"], result["scopes"], result["aseq"]) == ("alice", ["read", "trade"], 0)
    Bot(node).logon("k2")
    Bot(node).logon("k3")
    assert {name: account.number for name, account in node.gateway.projection.account_by_name.items()} == {
        "alice": 1,
        "bob": 2,
    }


def logon_fields(node: Node, bot: Bot, key: str, **changes: Any) -> dict[str, Any]:
    ts = changes.pop("ts", node.wall_ns // 1000)
    signature = sign(node.private_keys[key], bot.hello["challenge"], key, ts)
    return {"key": key, "ts": ts, "sig": signature, **changes}


def test_accounts_that_open_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    node = Node(tmp_path)
    bots = []
    for name in ("a", "b", "c", "a2"):
        node.create_key(name, name[0])
        bot = Bot(node)
        bot.send("session.logon", **logon_fields(node, bot, name))
        bots.append(bot)
    node.run()
    assert [bot.take()[0]["r"]["account"] for bot in bots] == ["a", "b", "c", "a"]
    assert sorted(node.gateway.projection.accounts) == [1, 2, 3]


def test_an_account_number_that_is_taken_is_tried_again(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.create_key("a", "alice")
    bot = Bot(node)
    bot.send("session.logon", **logon_fields(node, bot, "a"))
    node.transfer(Kind.OPEN_ACCOUNT, 1, external_id=0)  # somebody else was faster
    node.run()
    assert bot.take()[0]["ok"]
    assert node.gateway.projection.account_by_name["alice"].number == 2


def test_wrong_logons(trio: Trio) -> None:
    node, _, _ = trio
    node.create_key("far", "far", ips=("10.0.0.0/8",))
    for change in ({"sig": "AAAA"}, {"sig": "?"}, {"key": "nobody"}, {"key": "taker"}):
        bot = Bot(node)
        error = bot.bad("session.logon", **{**logon_fields(node, bot, "maker"), **change})
        assert error["code"] == Code.BAD_SIGNATURE
        assert bot.transport.closed == (4003, "bad log-on")
    bot = Bot(node)
    assert bot.bad("session.logon", **logon_fields(node, bot, "far"))["code"] == Code.BAD_SIGNATURE
    near = Bot(node, ip="10.1.2.3")
    assert near.logon("far")["account"] == "far"


def test_a_signature_of_another_connection_is_worth_nothing(trio: Trio) -> None:
    node, _, _ = trio
    bot = Bot(node)
    fields = logon_fields(node, bot, "maker")
    bot.session.challenge = "another"
    assert bot.bad("session.logon", **fields)["code"] == Code.BAD_SIGNATURE


@pytest.mark.parametrize("off_us", [-5_000_001, 5_000_001])
def test_a_wrong_clock_is_told_the_time_and_may_try_again(trio: Trio, off_us: int) -> None:
    node, _, _ = trio
    bot = Bot(node)
    now_us = node.wall_ns // 1000
    error = bot.bad("session.logon", **logon_fields(node, bot, "maker", ts=now_us + off_us))
    assert (error["code"], error["now"]) == (Code.TIME_OUT_OF_WINDOW, now_us)
    assert bot.transport.closed is None
    limit = 5_000_000 if off_us > 0 else -5_000_000
    bot.good("session.logon", **logon_fields(node, bot, "maker", ts=now_us + limit))


def test_one_logon_a_session(trio: Trio) -> None:
    node, maker, _ = trio
    assert maker.bad("session.logon", **logon_fields(node, maker, "maker"))["field"] == "op"


def test_a_key_store_that_cannot_be_read(trio: Trio) -> None:
    node, maker, _ = trio
    node.keys.path.write_text("{")
    bot = Bot(node)
    assert bot.bad("session.logon", **logon_fields(node, bot, "taker"))["code"] == Code.INTERNAL
    later(node, 2_000)
    assert maker.good("balances")  # nobody is thrown out for it


# --- Rights -----------------------------------------------------------------------------------------------------------


def test_what_needs_a_logon(trio: Trio) -> None:
    node, _, _ = trio
    bot = Bot(node)
    for op, fields in (
        ("order.place", ORDER),
        ("order.cancel", {"oid": 1}),
        ("order.amend", {"oid": 1, "qty": 1}),
        ("order.batch", {"items": [{"op": "order.cancel", "oid": 1}]}),
        ("cancel.mass", {}),
        ("orders.open", {}),
        ("positions", {}),
        ("balances", {}),
        ("session.logout", {}),
        ("subscribe", {"channels": [{"name": "private"}]}),
    ):
        assert bot.bad(op, **fields)["code"] == Code.NOT_LOGGED_ON, op
    assert bot.subscribe("l2", symbols=[SYMBOL])
    assert bot.good("instruments")["instruments"]


def test_public_data_can_be_closed_too(tmp_path: Path) -> None:
    node = Node(tmp_path, GatewayConfig(public_market_data=False))
    node.list()
    assert Bot(node).bad("subscribe", channels=[{"name": "l2", "symbols": "*"}])["code"] == Code.NOT_LOGGED_ON


def test_scopes(trio: Trio) -> None:
    node, _, _ = trio
    node.create_key("reader", "taker", scopes=("read",))
    node.create_key("trader", "taker", scopes=("trade",))
    reader, trader = Bot(node), Bot(node)
    reader.logon("reader")
    trader.logon("trader")
    assert reader.good("balances")
    assert reader.bad("order.place", **ORDER)["code"] == Code.SCOPE_DENIED
    assert trader.good("order.place", **ORDER)
    assert trader.bad("balances")["code"] == Code.SCOPE_DENIED
    assert trader.bad("subscribe", channels=[{"name": "private"}])["code"] == Code.SCOPE_DENIED


def test_a_revoked_key_is_out(trio: Trio) -> None:
    node, maker, taker = trio
    node.keys.revoke("maker")
    later(node, 2_000)
    assert maker.transport.closed == (4003, "the key was revoked or changed")
    assert taker.good("balances")


# --- Going and coming back --------------------------------------------------------------------------------------------


def cod_bot(node: Node, **fields: Any) -> Bot:
    bot = Bot(node)
    bot.logon("maker", cod=True, **fields)
    return bot


def open_cids(node: Node, account: int = 1) -> list[str]:
    return [order.cid for order in node.gateway.projection.accounts[account].orders.values()]


def test_orders_go_with_the_session_that_asked_for_it(trio: Trio) -> None:
    node, _, _ = trio
    bot = cod_bot(node)
    bot.good("order.place", **ORDER, cid="covered")
    bot.good("order.place", **ORDER, cid="stays", cod=False)
    bot.send("order.place", **ORDER, cid="on-its-way")
    node.gateway.disconnect(bot.session)
    later(node, 1)
    assert open_cids(node) == ["stays"]


def test_without_it_orders_stay(trio: Trio) -> None:
    node, maker, _ = trio
    maker.good("order.place", **ORDER, cid="a")
    node.gateway.disconnect(maker.session)
    later(node, 100_000)
    assert open_cids(node) == ["a"]


def test_quoting_keys_have_it_by_default(trio: Trio) -> None:
    node, _, _ = trio
    node.create_key("quoter", "maker", scopes=("trade", "quote"))
    assert Bot(node).logon("quoter")["cod"] is True
    assert Bot(node).logon("maker")["cod"] is False
    bot = Bot(node)
    assert bot.bad("session.logon", **logon_fields(node, bot, "quoter", cod=False))["code"] == Code.COD_REQUIRED
    assert bot.logon("quoter", cod=True)["cod"] is True  # the connection is still there


def test_grace_waits_for_a_reconnect(trio: Trio) -> None:
    node, _, _ = trio
    bot = cod_bot(node, grace_ms=2_000)
    bot.good("order.place", **ORDER, cid="a")
    node.gateway.disconnect(bot.session)
    later(node, 1_900)
    assert open_cids(node) == ["a"]
    back = cod_bot(node, grace_ms=2_000)
    later(node, 10_000)
    assert open_cids(node) == ["a"]
    node.gateway.disconnect(back.session)
    later(node, 2_000)
    assert open_cids(node) == []


def test_grace_has_a_limit(trio: Trio) -> None:
    node, _, _ = trio
    bot = Bot(node)
    assert bot.logon("maker", cod=True, grace_ms=10**9)["grace_ms"] == 60_000


def test_after_a_restart_covered_orders_wait_for_their_session(trio: Trio) -> None:
    node, _, _ = trio
    bot = cod_bot(node)
    bot.good("order.place", **ORDER, cid="covered")
    bot.good("order.place", **ORDER, cid="stays", cod=False)
    node.restart()
    later(node, 9_000)
    assert open_cids(node) == ["covered", "stays"]
    later(node, 1_000)
    assert open_cids(node) == ["stays"]


def test_after_a_restart_a_session_that_comes_back_keeps_them(trio: Trio) -> None:
    node, _, _ = trio
    cod_bot(node).good("order.place", **ORDER, cid="covered")
    node.restart()
    cod_bot(node)
    later(node, 60_000)
    assert open_cids(node) == ["covered"]


def test_a_newer_session_of_the_key_replaces_the_older(trio: Trio) -> None:
    node, maker, _ = trio
    bot = cod_bot(node)
    assert maker.transport.closed == (4009, "replaced by a newer session of this key")
    bot.good("order.place", **ORDER, cid="a")
    node.gateway.disconnect(maker.session)
    later(node, 10_000)
    assert open_cids(node) == ["a"]


def test_logout_cancels_at_once_or_keeps(trio: Trio) -> None:
    node, _, _ = trio
    bot = cod_bot(node, grace_ms=50_000)
    bot.good("order.place", **ORDER)
    assert bot.good("session.logout")["canceled"] == 1
    assert bot.transport.closed == (1000, "logged out")
    node.gateway.disconnect(bot.session)
    assert open_cids(node) == []
    bot = cod_bot(node)
    bot.good("order.place", **ORDER, cid="a")
    assert bot.good("session.logout", keep=True)["canceled"] == 0
    node.gateway.disconnect(bot.session)
    later(node, 100_000)
    assert open_cids(node) == ["a"]


def test_a_connection_that_does_nothing_is_closed(trio: Trio) -> None:
    node, maker, _ = trio
    idle, watcher = Bot(node), Bot(node)
    watcher.subscribe("l1", symbols=[SYMBOL])
    later(node, 10_001)
    assert idle.transport.closed == (4001, "no log-on and no subscription in time")
    assert watcher.transport.closed is None
    assert maker.transport.closed is None


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_rate_limit(tmp_path: Path) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(rate_per_s=10, rate_burst=3, rate_abuse_errors=2))
    for _ in range(3):
        maker.good("balances")
    error = maker.bad("balances")
    assert (error["code"], error["retry_us"]) == (Code.RATE_LIMIT, 100_000)
    assert taker.good("balances")  # a bucket for each account
    assert maker.good("cancel.mass") == {"canceled": 0}  # cancels always pass
    items = [{"op": "order.cancel", "cid": "x"}] * 9
    assert maker.good("order.batch", items=items)
    node.wall_ns += 100 * MS
    assert maker.good("balances")
    assert maker.bad("order.batch", items=[*items, {"op": "order.place", **ORDER}])["code"] == Code.RATE_LIMIT
    maker.bad("balances")
    assert maker.transport.closed == (4029, "rate abuse")


def test_the_rate_state_is_shown_when_asked_for(tmp_path: Path) -> None:
    node, maker, _ = market(tmp_path, GatewayConfig(rate_per_s=10, rate_burst=3))

    def ask(op: str, **fields: Any) -> Any:
        maker.send(op, rl=1, **fields)
        node.run()
        return next(message for message in maker.take() if "id" in message)

    assert ask("balances")["rl"] == {"left": 2, "burst": 3, "per_s": 10}
    assert ask("order.place", **ORDER)["rl"]["left"] == 1
    assert ask("order.cancel", oid=1)["rl"]["left"] == 1
    assert ask("order.batch", items=[{"op": "order.place", **ORDER}])["rl"]["left"] == 0
    refused = ask("positions")
    assert (refused["err"]["code"], refused["rl"]["left"]) == (Code.RATE_LIMIT, 0)
    node.wall_ns += 250 * MS
    assert ask("cancel.mass")["rl"]["left"] == 2
    assert "rl" not in maker.ask("balances")
    assert maker.bad("order.batch", items=[{"op": "order.cancel", "oid": 1, "rl": 1}])["field"] == "id"
    assert maker.bad("balances", rl=2)["field"] == "rl"


def test_fills_give_tokens_back(tmp_path: Path) -> None:
    _, maker, taker = market(tmp_path, GatewayConfig(rate_per_s=1, rate_burst=3))
    for _ in range(3):
        maker.place("sell", 1, "2.5")
    assert maker.bad("balances")["code"] == Code.RATE_LIMIT
    taker.place("buy", 2, "2.5")
    assert maker.good("balances") and maker.good("balances")
    assert maker.bad("balances")["code"] == Code.RATE_LIMIT
    assert taker.good("balances")  # one taken, two given: never more than there is room for
    for _ in range(2):
        taker.good("balances")
    assert taker.bad("balances")["code"] == Code.RATE_LIMIT


@given(st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(1, 5)), max_size=50))
def test_a_bucket_never_gives_more_than_it_earned(asks: list[tuple[int, int]]) -> None:
    bucket, now_us, taken = Bucket(7, 5, 0), 0, 0
    for wait_us, tokens in asks:
        now_us += wait_us
        retry_us = bucket.take(tokens, now_us)
        if retry_us == 0:
            taken += tokens
        else:
            assert copy(bucket).take(tokens, now_us + retry_us - 1) > 0
            assert copy(bucket).take(tokens, now_us + retry_us) == 0
        assert taken * 1_000_000 <= 5_000_000 + 7 * now_us


def test_a_slow_reader_is_told_and_dropped(trio: Trio) -> None:
    node, maker, taker = trio
    for bot in (maker, taker):
        bot.subscribe("l2", symbols=[SYMBOL])
    maker.transport.held_bytes = 4_194_304
    taker.good("order.place", **ORDER)
    assert maker.transport.closed == (4008, "slow consumer")
    assert maker.take()[-1]["ch"] == "slow"
    assert taker.transport.closed is None
    node.gateway.disconnect(maker.session)
    taker.good("order.place", **ORDER)


def test_a_reader_that_stays_slow(trio: Trio) -> None:
    node, maker, taker = trio
    maker.transport.held_bytes = taker.transport.held_bytes = 1_048_576
    later(node, 0)
    later(node, 1_500)
    taker.transport.held_bytes = 0
    later(node, 1_000)
    assert maker.transport.closed == (4008, "slow consumer")
    assert taker.transport.closed is None


def test_heartbeats_carry_the_ends_of_the_chains(trio: Trio) -> None:
    node, maker, _ = trio
    maker.subscribe("hb")
    maker.subscribe("l2", symbols=[SYMBOL])
    maker.subscribe("private")
    maker.good("order.place", **ORDER)
    last = next(message for message in maker.pushes if message["ch"] == "l2")["seq"]
    later(node, 1_000)
    (heartbeat,) = maker.take()
    assert heartbeat["ch"] == "hb"
    assert heartbeat["last"] == {f"l2:{SYMBOL}": last}
    assert heartbeat["aseq"] == node.gateway.streams.stream(1).aseq
    later(node, 1_000)
    assert maker.take()[0]["last"] == {}
    maker.good("unsubscribe", channels=[{"name": "hb"}])
    later(node, 1_000)
    assert maker.take() == []


def test_a_fault_is_answered_and_not_spread(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    node, maker, _ = trio

    def fail(*_arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setitem(node.gateway._handlers, type(_request("balances")), fail)
    assert maker.bad("balances")["code"] == Code.INTERNAL
    assert maker.good("positions")


def _request(op: str) -> Any:
    from gateway.messages import decode

    return decode(f'{{"op":"{op}","id":1}}'.encode(), Format.JSON)


def test_bad_messages_are_answered_without_an_id(trio: Trio) -> None:
    node, maker, _ = trio
    node.gateway.receive(maker.session, b"\xff{")
    (reply,) = maker.take()
    assert (reply["id"], reply["ok"], reply["err"]["name"]) == (None, False, "BAD_MESSAGE")
    assert maker.good("balances")


def test_times_of_a_reply(trio: Trio) -> None:
    node, maker, _ = trio
    request = maker.send("order.place", **ORDER)
    node.wall_ns += 3_000_000
    node.run()
    reply = maker.take()[0]
    assert reply["id"] == request
    assert reply["t_out"] - reply["t_in"] == 3_000
