"""What an attacker does, against the real server. docs/threat-model.md says which threat each test stands for."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway.auth import SCOPES, sign
from gateway.messages import OPS, Close, Code
from tests.gateway.node import SYMBOL, Bot, Node, market
from tests.gateway.raw import HANDSHAKE, RawClient, frame
from tests.gateway.test_server import ask, serving

ORDER = {"sym": SYMBOL, "side": "buy", "qty": 1, "px": "2.4"}


async def still_serves(port: int) -> None:
    """Another client gets its answer."""
    async with connect(f"ws://127.0.0.1:{port}") as socket:
        await socket.recv()
        assert (await ask(socket, op="instruments"))["ok"]


# --- Identity ---------------------------------------------------------------------------------------------------------


async def test_a_log_on_that_was_overheard_is_worth_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, server):
        private = node.create_key("k", "alice")
        async with connect(server.url) as owner:
            hello = json.loads(await owner.recv())
            fields = {"key": "k", "ts": hello["ts"], "sig": sign(private, hello["challenge"], "k", hello["ts"])}
            node.gateway._challenge = iter(("another", "one more")).__next__  # as it is in life, but not in this test
            assert (await ask(owner, op="session.logon", **fields))["ok"]
            assert (await ask(owner, op="session.logon", **fields))["err"]["field"] == "op"
            async with connect(server.url) as thief:
                await thief.recv()
                assert (await ask(thief, op="session.logon", **fields))["err"]["code"] == Code.BAD_SIGNATURE
            assert (await ask(owner, op="balances"))["ok"]  # nobody is thrown out by a log-on that fails


def test_a_stolen_key_works_only_where_and_for_what_it_was_made(tmp_path: Path) -> None:
    node, _, _ = market(tmp_path)
    node.create_key("viewer", "taker", scopes=("read",), ips=("192.0.2.0/24",))
    thief = Bot(node, ip="198.51.100.7")
    ts = node.wall_ns // 1000
    sig = sign(node.private_keys["viewer"], thief.hello["challenge"], "viewer", ts)
    assert thief.bad("session.logon", key="viewer", ts=ts, sig=sig)["code"] == Code.BAD_SIGNATURE
    inside = Bot(node, ip="192.0.2.9")
    inside.logon("viewer")
    assert inside.good("balances")
    assert inside.bad("order.place", **ORDER)["code"] == Code.SCOPE_DENIED
    node.keys.revoke("viewer")
    node.wall_ns += 2_000_000_000
    node.gateway.poll()
    assert inside.transport.closed == (Close.BAD_LOGON, "the key was revoked or changed")


def test_what_the_refusal_of_a_log_on_gives_away(tmp_path: Path) -> None:
    """A key that does not exist, a wrong signature and a wrong address look the same."""
    node, _, _ = market(tmp_path)
    node.create_key("far", "far", ips=("192.0.2.0/24",))
    errors = []
    for key, signer in (("nobody", "maker"), ("maker", "taker"), ("far", "far")):
        bot = Bot(node)
        ts = node.wall_ns // 1000
        sig = sign(node.private_keys[signer], bot.hello["challenge"], key, ts)
        errors.append(bot.bad("session.logon", key=key, ts=ts, sig=sig))
    assert errors[0] == errors[1] == errors[2]


# --- Rights -----------------------------------------------------------------------------------------------------------

FIELDS: dict[str, dict[str, Any]] = {
    "order.place": ORDER,
    "order.amend": {"oid": 1, "qty": 1},
    "order.cancel": {"oid": 1},
    "order.batch": {"items": [{"op": "order.cancel", "oid": 1}]},
    "subscribe": {"channels": [{"name": "private"}]},
    "unsubscribe": {"channels": [{"name": "private"}]},
    "transfer": {"to": "x", "amount": "1"},
    "withdraw": {"coin": 1, "amount": "1", "to": "x"},
    "capacity.nominate": {"sym": "x", "lots": 1},
    "delivery.report": {"report": ""},
    "admin.lock": {"account": "x", "on": True},
    "admin.status": {"sym": "x", "status": "halted"},
    "admin.halt": {"on": False},
    "admin.list": {"sym": "x"},
    "admin.band": {"sym": "x", "ref_px": "1"},
    "admin.limits": {"account": "x"},
    "quote.mass": {"group": 1, "quotes": [{"sym": "x", "b": []}]},
    "cancel_after": {"ms": 0},
    "mmp.set": {"group": 1, "lots": 1, "fills": 1, "window_ms": 1},
    "mmp.reset": {"group": 1},
    "admin.key": {"key": "x", "account": "x", "public": "", "scopes": ["admin"]},
    "admin.revoke": {"key": "x"},
}
PUBLIC = {"session.logon", "session.logout", "instruments"}
NEEDS = {op: "trade" for op in ("order.place", "order.amend", "order.batch")} | {"quote.mass": "quote"}
NEEDS |= {op: "trade quote" for op in ("order.cancel", "cancel.mass", "cancel_after", "mmp.set", "mmp.reset")}
NEEDS |= {
    op: "read"
    for op in (
        "orders.open",
        "orders.history",
        "fills",
        "positions",
        "balances",
        "subscribe",
        "unsubscribe",
        "deposit.address",
        "protections",
    )
}
NEEDS |= {"transfer": "withdraw", "withdraw": "withdraw", "capacity.nominate": "provide", "delivery.report": "provide"}
NEEDS |= {op: "admin" for op in OPS if op.startswith("admin.")}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_is_what_it_says_and_no_more(tmp_path: Path, scope: str) -> None:
    node, _, _ = market(tmp_path)
    node.create_key("one", "taker", scopes=(scope,))
    bot = Bot(node)
    bot.logon("one")
    for op, needed in NEEDS.items():
        reply = bot.ask(op, **FIELDS.get(op, {}))
        denied = reply.get("err", {}).get("code") == Code.SCOPE_DENIED
        assert denied == (scope not in needed.split()), op


def test_no_op_is_open_to_everybody_by_mistake(tmp_path: Path) -> None:
    node, _, _ = market(tmp_path)
    bot = Bot(node)
    for op in sorted(OPS - PUBLIC):
        reply = bot.ask(op, **FIELDS.get(op, {}))
        assert reply["err"]["code"] in (Code.NOT_LOGGED_ON, Code.BAD_FIELD), op


def test_orders_of_others_do_not_exist(tmp_path: Path) -> None:
    _, maker, taker = market(tmp_path)
    order = maker.place("sell", 1, "2.6", cid="mine")["oid"]
    for op, fields in (("order.cancel", {}), ("order.amend", {"qty": 2})):
        assert taker.bad(op, oid=order, **fields)["code"] == Code.ORDER_NOT_FOUND
        assert taker.bad(op, cid="mine", **fields)["code"] == Code.ORDER_NOT_FOUND
    assert taker.good("orders.open")["orders"] == []
    assert taker.good("cancel.mass")["canceled"] == 0
    assert maker.good("orders.open")["orders"][0]["left"] == 1


# --- Messages ---------------------------------------------------------------------------------------------------------

DEEP = b"[" * 60_000
EVIL_MESSAGES = {
    "deep lists": DEEP,
    "deep objects": b'{"a":' * 10_000,
    "deep in a field": b'{"op":"order.place","id":1,"sym":' + DEEP,
    "deep and closed": b"[" * 30_000 + b"]" * 30_000,
    "a very long number": b'{"op":"balances","id":' + b"9" * 60_000 + b"}",
    "an exponent": b'{"op":"order.place","id":1,"sym":"x","side":"buy","qty":1e999999999}',
    "a very long string": b'{"op":"' + b"x" * 60_000 + b'","id":1}',
    "a very long key": b'{"op":"session.logon","id":1,"ts":1,"sig":"","key":"' + b"k" * 60_000 + b'"}',
    "many fields": b'{"op":"balances","id":1,' + b",".join(b'"%d":0' % n for n in range(5_000)) + b"}",
    "the same field": b'{"op":"balances",' + b'"id":1,' * 5_000 + b'"id":2}',
    "half a surrogate": b'{"op":"\\ud800","id":1}',
    "a NUL": b'{"op":"balances\\u0000","id":1}',
    "NaN": b'{"op":"balances","id":NaN}',
    "not an object": b'"balances"',
    "nothing": b"",
}


@pytest.mark.parametrize("name", EVIL_MESSAGES)
def test_messages_made_to_hurt(tmp_path: Path, name: str) -> None:
    node, maker, _ = market(tmp_path)
    node.gateway.receive(maker.session, EVIL_MESSAGES[name])
    node.run()
    for reply in maker.take():
        assert len(json.dumps(reply)) < 1_000  # and nothing is thrown back at a third
        assert not reply["ok"] or name == "the same field"
    assert maker.good("balances")


async def test_messages_above_the_limit_however_they_come(tmp_path: Path) -> None:
    async with serving(tmp_path, max_message_bytes=1_000) as (_, server):
        for data in (
            frame(b"x" * 1_001),
            frame(b"x", length=2**40),
            frame(b"x", length=2**63 - 1),
            frame(b"x" * 900, fin=False) + frame(b"x" * 900, 0, fin=False),
        ):
            client = await RawClient.connect(server.port)
            client.writer.write(data)
            assert await client.close_code() == 1009
        await still_serves(server.port)


async def test_frames_that_nobody_agreed_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, server):
        for data, code in (
            (frame(b"x" * 100, rsv=4), 1002),  # compressed, although it was not agreed
            (frame(b"{}", 3), 1002),
            (b"\x81\x02{}", 1002),  # not masked
            (frame(b"{}", 0), 1002),  # goes on with nothing
            (frame(b"x" * 126, 9), 1002),
            (frame(b"\xff\xfe"), 1007),
        ):
            client = await RawClient.connect(server.port, b"Sec-WebSocket-Extensions: permessage-deflate")
            client.writer.write(data)
            assert await client.close_code() == code
        await still_serves(server.port)


# --- Exhaustion -------------------------------------------------------------------------------------------------------


async def test_a_slow_loris_in_its_request(tmp_path: Path) -> None:
    async with serving(tmp_path, handshake_timeout_ms=200) as (_, server):
        lorises = [await RawClient.connect(server.port, shake=False) for _ in range(20)]
        for loris in lorises:
            loris.writer.write(HANDSHAKE[:40])
        await asyncio.gather(*(loris.gone() for loris in lorises))
        while server.doors.open:
            await asyncio.sleep(0)
        await still_serves(server.port)


async def test_a_request_of_endless_headers(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, server):
        client = await RawClient.connect(server.port, shake=False)
        client.writer.write(HANDSHAKE + b"".join(b"X-%d: y\r\n" % n for n in range(1_000)))
        assert b" 101 " not in await client.gone()
        long = await RawClient.connect(server.port, shake=False)
        long.writer.write(HANDSHAKE + b"X: " + b"y" * 100_000)
        assert b" 101 " not in await long.gone()
        await still_serves(server.port)


async def test_a_slow_loris_in_a_frame(tmp_path: Path) -> None:
    async with serving(tmp_path, logon_timeout_ms=0, heartbeat_ms=50) as (_, server):
        loris = await RawClient.connect(server.port)
        loris.writer.write(frame(b"x" * 1_000)[:20])
        assert await loris.close_code() == Close.LOGON_TIMEOUT


async def test_one_that_subscribed_and_stands_in_a_frame_answers_no_ping(tmp_path: Path) -> None:
    limits = {"ping_interval_ms": 100, "ping_timeout_ms": 100, "logon_timeout_ms": 60_000}
    async with serving(tmp_path, **limits) as (_, server):
        loris = await RawClient.connect(server.port)
        request = {"op": "subscribe", "id": 1, "channels": [{"name": "l1", "symbols": "*"}]}
        loris.writer.write(frame(json.dumps(request).encode()) + frame(b"x" * 1_000)[:20])
        assert await loris.close_code() == Close.HEARTBEAT_LOST


async def test_half_a_connection_is_none(tmp_path: Path) -> None:
    """A client that ends its side is gone: its orders go with it."""
    async with serving(tmp_path) as (node, server):
        node.create_key("k", "alice", scopes=("trade", "read"))
        client = await RawClient.connect(server.port)
        (session,) = node.gateway.sessions
        client.writer.write_eof()
        await client.gone()
        while session in node.gateway.sessions:
            await asyncio.sleep(0)
        await still_serves(server.port)


async def test_a_storm_of_subscriptions_is_slowed_and_others_are_served(tmp_path: Path) -> None:
    async with serving(tmp_path, rate_per_s=100, rate_burst=200) as (_, server), connect(server.url) as attacker:
        await attacker.recv()
        channels = [{"name": name, "symbols": "*"} for name in ("l1", "l2", "l3", "trades", "ticker")]
        refused = 0
        for _ in range(20):
            reply = await ask(attacker, op="subscribe", channels=channels)
            refused += not reply["ok"] and reply["err"]["code"] == Code.RATE_LIMIT
        assert refused >= 15
        await still_serves(server.port)


def test_one_request_cannot_ask_for_everything_many_times(tmp_path: Path) -> None:
    node, _, taker = market(tmp_path)
    many = [{"name": "l1", "symbols": "*"}] * 101
    assert taker.bad("subscribe", channels=many)["code"] == Code.TOO_LARGE
    assert taker.bad("subscribe", channels=[{"name": "instruments"}] * 2)["field"] == "channels"
    node.wall_ns += 2_000_000_000
    assert taker.good("subscribe", channels=many[:100])["topics"] == 100
    assert len(taker.session.topics) == 1
    assert taker.ask("balances", rl=1)["rl"]["left"] < 4_000 - 2_000


async def test_a_flood_of_what_cannot_be_read_ends(tmp_path: Path) -> None:
    async with serving(tmp_path, rate_per_s=1, rate_burst=50, rate_abuse_errors=100) as (_, server):
        client = await RawClient.connect(server.port)
        client.writer.write(frame(b"{") * 500)
        assert await client.close_code() == Close.RATE_ABUSE
        await still_serves(server.port)


async def test_many_sessions_of_one_key_are_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, server):
        private = node.create_key("k", "alice")
        sockets = []
        for _ in range(10):
            socket = await connect(server.url)
            hello = json.loads(await socket.recv())
            sig = sign(private, hello["challenge"], "k", hello["ts"])
            assert (await ask(socket, op="session.logon", key="k", ts=hello["ts"], sig=sig))["ok"]
            sockets.append(socket)
        while len(node.gateway.sessions) > 1:
            await asyncio.sleep(0)
        assert (await ask(sockets[-1], op="balances"))["ok"]
        assert len(node.gateway.logons.by_key) == 1
        for socket in sockets:
            await socket.close()


def test_the_key_store_holds_nothing_to_steal(tmp_path: Path) -> None:
    node = Node(tmp_path)
    private = node.create_key("k", "alice")
    assert private not in node.keys.path.read_text()
    assert node.keys.path.stat().st_mode & 0o077 == 0
