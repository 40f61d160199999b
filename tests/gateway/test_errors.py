"""Every error code and every close code: how it is come by. A code without a way to it is an error of this test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.types import MAX_QTY, Kind
from gateway.config import GatewayConfig
from gateway.messages import Close, Code
from tests.gateway.node import CASH_MICROS, SYMBOL, Bot, Node, market
from tests.gateway.test_session import logon_fields

Way = Callable[[Node, Bot, Bot], dict[str, Any]]
ORDER = {"sym": SYMBOL, "side": "buy", "qty": 1, "px": "2.4"}
CONFIG = GatewayConfig(max_pending_per_session=3, max_batch_items=2)
LIMITS = {"max_open_orders_per_account": 4}


def place(bot: Bot, **changes: Any) -> dict[str, Any]:
    return dict(bot.bad("order.place", **(ORDER | changes)))


def raw(bot: Bot, data: bytes) -> dict[str, Any]:
    bot.node.gateway.receive(bot.session, data)
    return dict(bot.take()[-1]["err"])


def stranger(node: Node, **changes: Any) -> dict[str, Any]:
    bot = Bot(node)
    return dict(bot.bad("session.logon", **(logon_fields(node, bot, "maker") | changes)))


def key_of(node: Node, account: str, *scopes: str) -> Bot:
    name = f"{account}.{'.'.join(scopes)}"
    node.create_key(name, account, scopes=scopes)
    bot = Bot(node)
    bot.logon(name)
    return bot


def quoter_without_cod(node: Node) -> dict[str, Any]:
    node.create_key("quoter", "maker", scopes=("quote",))
    bot = Bot(node)
    return dict(bot.bad("session.logon", **logon_fields(node, bot, "quoter", cod=False)))


def closed(node: Node, maker: Bot) -> dict[str, Any]:
    node.simple(Kind.CLOSE, instrument=1)
    return place(maker)


def reused(maker: Bot) -> dict[str, Any]:
    maker.good("order.place", **ORDER, cid="c")
    return place(maker, cid="c", qty=2)


def crossing(maker: Bot, taker: Bot, **changes: Any) -> dict[str, Any]:
    maker.place("sell", 1, "2.5")
    return place(taker, px="2.5", qty=5, **changes)


def many_orders(maker: Bot) -> dict[str, Any]:
    for _ in range(4):
        maker.good("order.place", **ORDER)
    return place(maker)


def many_pending(maker: Bot) -> dict[str, Any]:
    for _ in range(6):
        maker.send("order.place", **ORDER)
    maker.node.run()
    return dict(next(message["err"] for message in maker.take() if not message.get("ok", True)))


def no_tokens(maker: Bot) -> dict[str, Any]:
    while (reply := maker.ask("instruments"))["ok"]:
        pass
    return dict(reply["err"])


def stopping(node: Node, maker: Bot) -> dict[str, Any]:
    node.gateway.shutdown()
    return place(maker)


def cut_off(node: Node, maker: Bot) -> dict[str, Any]:
    maker.send("order.place", **ORDER)
    node.gateway.close()
    return dict(maker.take()[0]["err"])


def fault(node: Node, maker: Bot) -> dict[str, Any]:
    def fail(*_arguments: object) -> None:
        raise RuntimeError

    from gateway.messages import Balances

    node.gateway._handlers[Balances] = fail
    return dict(maker.bad("balances"))


def frozen(node: Node) -> dict[str, Any]:
    node.transfer(Kind.FREEZE, 2, flags=1)
    node.open_account("taker:b")
    return dict(key_of(node, "taker", "withdraw").bad("transfer", to="taker:b", amount="1"))


def locked(maker: Bot) -> dict[str, Any]:
    maker.good("cancel.mass", lock=True)
    return place(maker)


def no_stop(maker: Bot) -> dict[str, Any]:
    maker.good("order.place", **ORDER, cid="a")
    return dict(maker.bad("order.amend", cid="a", stop="2.5"))


def group_frozen(maker: Bot, taker: Bot) -> dict[str, Any]:
    maker.good("mmp.set", group=3, lots=1, fills=1, window_ms=1_000)
    maker.place("sell", 5, "2.5", group=3)
    taker.place("buy", 1, "2.5")
    return place(maker, group=3)


def beyond_the_limit(node: Node, taker: Bot) -> dict[str, Any]:
    node.simple(Kind.SET_LIMITS, account=2, price=3)  # lots net
    return place(taker, qty=4)


WAYS: dict[Code, Way] = {
    Code.BAD_MESSAGE: lambda node, maker, taker: raw(maker, b"{"),
    Code.UNKNOWN_OP: lambda node, maker, taker: maker.bad("order.lose"),
    Code.BAD_FIELD: lambda node, maker, taker: maker.bad("balances", more=1),
    Code.TOO_LARGE: lambda node, maker, taker: maker.bad("order.batch", items=[{"op": "order.cancel", "oid": 1}] * 3),
    Code.BAD_CHANNEL: lambda node, maker, taker: maker.bad("subscribe", channels=[{"name": "l4", "symbols": "*"}]),
    Code.NOT_LOGGED_ON: lambda node, maker, taker: Bot(node).bad("balances"),
    Code.BAD_SIGNATURE: lambda node, maker, taker: stranger(node, sig="AAAA"),
    Code.TIME_OUT_OF_WINDOW: lambda node, maker, taker: stranger(node, ts=1),
    Code.SCOPE_DENIED: lambda node, maker, taker: maker.bad("admin.keys"),
    Code.UNKNOWN_SYMBOL: lambda node, maker, taker: place(maker, sym="nothing"),
    Code.MARKET_NOT_OPEN: lambda node, maker, taker: closed(node, maker),
    Code.POST_ONLY_WOULD_TAKE: lambda node, maker, taker: crossing(maker, taker, post="reject"),
    Code.BAD_PRICE: lambda node, maker, taker: place(maker, px="2.40001"),
    Code.BAD_QTY: lambda node, maker, taker: place(maker, qty=MAX_QTY + 1),
    Code.CID_REUSED_DIFFERENT: lambda node, maker, taker: reused(maker),
    Code.LOCKED: lambda node, maker, taker: locked(maker),
    Code.POSITION_LIMIT: lambda node, maker, taker: beyond_the_limit(node, taker),
    Code.BAD_TIF: lambda node, maker, taker: place(maker, tif="ioc", post="reject"),
    Code.TOO_MANY_OPEN_ORDERS: lambda node, maker, taker: many_orders(maker),
    Code.ORDER_NOT_FOUND: lambda node, maker, taker: maker.bad("order.cancel", oid=999),
    Code.AMEND_NOT_ALLOWED: lambda node, maker, taker: no_stop(maker),
    Code.RISK_LIMIT: lambda node, maker, taker: place(maker, reduce_only=True),
    Code.MMP_FROZEN: lambda node, maker, taker: group_frozen(maker, taker),
    Code.DEADLINE_PASSED: lambda node, maker, taker: place(maker, deadline=1),
    Code.FOK_NOT_FILLABLE: lambda node, maker, taker: crossing(maker, taker, tif="fok"),
    Code.INSUFFICIENT_FUNDS: lambda node, maker, taker: place(taker, px="100", qty=CASH_MICROS // 800_000_000 + 1),
    Code.COD_REQUIRED: lambda node, maker, taker: quoter_without_cod(node),
    Code.INSUFFICIENT_CAPACITY: lambda node, maker, taker: place(taker, side="sell"),
    Code.UNKNOWN_ACCOUNT: lambda node, maker, taker: key_of(node, "op", "admin").bad(
        "admin.lock", account="nobody", on=True
    ),
    Code.INSTRUMENT_EXISTS: lambda node, maker, taker: key_of(node, "op", "admin").bad("admin.list", sym=SYMBOL),
    Code.BAD_AMOUNT: lambda node, maker, taker: key_of(node, "maker", "withdraw").bad(
        "withdraw", coin=1, amount="0", to="x"
    ),
    Code.BAD_LISTING: lambda node, maker, taker: key_of(node, "op", "admin").bad("admin.list", sym="L4-EUC-H20010100"),
    Code.ACCOUNT_FROZEN: lambda node, maker, taker: frozen(node),
    Code.RATE_LIMIT: lambda node, maker, taker: no_tokens(maker),
    Code.OVERLOADED: lambda node, maker, taker: many_pending(maker),
    Code.SHUTTING_DOWN: lambda node, maker, taker: stopping(node, maker),
    Code.NOT_AVAILABLE: lambda node, maker, taker: taker.bad("deposit.address"),
    Code.OUTCOME_UNKNOWN: lambda node, maker, taker: cut_off(node, maker),
    Code.INTERNAL: lambda node, maker, taker: fault(node, maker),
}


@pytest.mark.parametrize("code", WAYS, ids=lambda code: code.name)
def test_a_way_to_every_error(tmp_path: Path, code: Code) -> None:
    node, maker, taker = market(tmp_path, CONFIG, **LIMITS)
    error = WAYS[code](node, maker, taker)
    assert error["code"] == code
    assert error["msg"]
    assert error["final"] is (code != Code.OUTCOME_UNKNOWN)
    assert error.get("name", code.name) == code.name


SHOWN_ELSEWHERE: set[Code] = set()
"""Codes whose ways are in the tests of the feature they belong to."""


def test_every_error_code_has_a_way() -> None:
    assert set(Code) == set(WAYS) | SHOWN_ELSEWHERE


def closes_of(path: Path) -> str:
    return "".join(source.read_text() for source in sorted(path.parent.glob("test_*.py")))


@pytest.mark.parametrize("code", Close, ids=lambda code: code.name)
def test_every_close_code_is_met_by_a_test(code: Close) -> None:
    """By its number or its name, in an assertion about how a connection ended."""
    text = closes_of(Path(__file__))
    ways = (f"({int(code)}, ", f"== {int(code)}", f"== Close.{code.name}", f"(Close.{code.name}, ")
    assert any(way in text for way in ways)
