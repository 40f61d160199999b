"""Money, capacity and administration over the wire."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.types import COMMAND, TRANSFER, Kind
from gateway.auth import generate_key
from gateway.messages import Code, CoinAddress, Format, RequestError, bad_field
from tests.gateway.node import CASH_MICROS, OTHER, SYMBOL, Bot, Node

Trio = tuple[Node, Bot, Bot]


def bot_of(node: Node, account: str, *scopes: str, wire: Format = Format.JSON) -> Bot:
    key = f"{account}-{'-'.join(scopes)}-{wire.name}"
    node.create_key(key, account, scopes=scopes)
    bot = Bot(node, wire)
    bot.logon(key)
    return bot


# --- Money ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", list(Format))
def test_a_transfer_between_accounts_of_one_owner(trio: Trio, wire: Format) -> None:
    node, _, _ = trio
    node.open_account("maker:hedge")
    treasurer = bot_of(node, "maker", "withdraw", "read", wire=wire)
    amount: Any = "1000.5" if wire is Format.JSON else 1_000_500_000
    before = node.gateway.projection.account_by_name["maker"].cash
    done = treasurer.good("transfer", to="maker:hedge", amount=amount)
    assert done["seq"] == node.engine.applied_seq
    accounts = node.gateway.projection.account_by_name
    assert (accounts["maker"].cash, accounts["maker:hedge"].cash) == (before - 1_000_500_000, 1_000_500_000)


@pytest.mark.parametrize(
    ("to", "amount", "code", "field"),
    [
        ("taker", "1", Code.BAD_FIELD, "to"),  # somebody else
        ("maker", "1", Code.BAD_FIELD, "to"),  # itself
        ("nobody", "1", Code.BAD_FIELD, "to"),
        ("maker:hedge", "0", Code.BAD_AMOUNT, None),
        ("maker:hedge", "-1", Code.BAD_AMOUNT, None),
        ("maker:hedge", "1e3x", Code.BAD_FIELD, "amount"),
        ("maker:hedge", 1, Code.BAD_FIELD, "amount"),
        ("maker:hedge", "0.0000001", Code.BAD_FIELD, "amount"),
        ("maker:hedge", "999999999", Code.INSUFFICIENT_FUNDS, None),
    ],
)
def test_transfers_that_are_none(trio: Trio, to: str, amount: Any, code: Code, field: str | None) -> None:
    node, _, _ = trio
    node.open_account("maker:hedge")
    before = node.gateway.projection.account_by_name["maker"].cash
    error = bot_of(node, "maker", "withdraw").bad("transfer", to=to, amount=amount)
    assert (error["code"], error.get("field")) == (code, field)
    assert node.gateway.projection.account_by_name["maker"].cash == before


class TestDesk:
    """A desk with one coin that pays out to one address."""

    __test__ = False

    def addresses(self, account: int) -> list[CoinAddress]:
        return [CoinAddress(1, "USDC", "base", 8453, "0xV", "0xC", 6, f"0x{account:02x}")]

    def set_home(self, account: int, address: str) -> None:
        if address != "0xA":
            raise bad_field("home", "no address")

    def withdrawal(self, account: int, coin: int, amount_micros: int, to: str, claim: bool) -> NDArray[np.void]:
        if to != "0xA":
            raise bad_field("to", "no address")
        command = np.zeros(1, TRANSFER)
        command["kind"], command["account"], command["amount_micros"] = Kind.WITHDRAW, account, amount_micros
        return command.view(COMMAND)


def test_withdrawals_go_through_the_desk(trio: Trio) -> None:
    node, _, taker = trio
    treasurer = bot_of(node, "taker", "withdraw", "read")
    fields = {"coin": 1, "amount": "5", "to": "0xA"}
    assert treasurer.bad("withdraw", **fields)["code"] == Code.NOT_AVAILABLE
    assert treasurer.bad("deposit.address")["code"] == Code.NOT_AVAILABLE
    node.gateway.operations.desk = TestDesk()
    assert treasurer.good("deposit.address", home="0xA")["coins"][0]["ref"] == "0x02"
    assert treasurer.bad("deposit.address", home="0xB")["field"] == "home"
    reader = bot_of(node, "taker", "read")
    assert reader.good("deposit.address")["coins"][0]["ref"] == "0x02"
    assert reader.bad("deposit.address", home="0xA")["code"] == Code.SCOPE_DENIED
    assert treasurer.bad("withdraw", **{**fields, "to": "0xB"})["field"] == "to"
    treasurer.good("withdraw", **fields)
    assert node.gateway.projection.account_by_name["taker"].cash == CASH_MICROS - 5_000_000
    assert taker.bad("withdraw", **fields)["code"] == Code.SCOPE_DENIED


# --- Providers --------------------------------------------------------------------------------------------------------


def test_capacity_is_nominated_by_providers(trio: Trio) -> None:
    node, _, taker = trio
    assert taker.bad("capacity.nominate", sym=SYMBOL, lots=10)["code"] == Code.SCOPE_DENIED
    provider = bot_of(node, "taker", "provide", "read", "trade")
    provider.good("capacity.nominate", sym=SYMBOL, lots=10)
    (position,) = provider.good("positions")["positions"]
    assert position["capacity"] == 10
    assert provider.place("sell", 10, "2.6")
    assert provider.bad("capacity.nominate", sym=SYMBOL, lots=0)["code"] == Code.BAD_QTY
    assert provider.bad("capacity.nominate", sym=OTHER, lots=1)["code"] == Code.UNKNOWN_SYMBOL


class Office:
    """Keeps reports; refuses some."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, bytes]] = []

    def report(self, account: int, data: bytes, answer: Callable[[int | RequestError], None]) -> None:
        self.taken.append((account, data))
        answer(3 if data != b"bad" else bad_field("report", "BAD_REPORT"))


@pytest.mark.parametrize("wire", list(Format))
def test_reports_of_meters(trio: Trio, wire: Format) -> None:
    node, _, _ = trio
    provider = bot_of(node, "maker", "provide", wire=wire)

    def sent(data: bytes) -> Any:
        return base64.b64encode(data).decode() if wire is Format.JSON else data

    assert provider.bad("delivery.report", report=sent(b"x"))["code"] == Code.NOT_AVAILABLE
    office = node.gateway.operations.meters = Office()
    assert provider.good("delivery.report", report=sent(b"\0report")) == {"records": 3}
    assert office.taken == [(1, b"\0report")]
    assert provider.bad("delivery.report", report=sent(b"bad"))["field"] == "report"


# --- Administration ---------------------------------------------------------------------------------------------------


def test_accounts_as_an_administrator_sees_them(trio: Trio) -> None:
    node, maker, _ = trio
    maker.place("buy", 1, "2.4")
    admin = bot_of(node, "operator", "admin")
    rows = {row["name"]: row for row in admin.good("admin.accounts")["accounts"]}
    assert (rows["maker"]["orders"], rows["maker"]["sessions"], rows["taker"]["orders"]) == (1, 1, 0)
    assert maker.bad("admin.accounts")["code"] == Code.SCOPE_DENIED


def test_listing_an_hour(trio: Trio) -> None:
    node, maker, _ = trio
    admin = bot_of(node, "operator", "admin")
    admin.good("admin.list", sym=OTHER, ref_px="0.5")
    (listed,) = maker.good("instruments", **{"class": "L4"})["instruments"]
    assert (listed["sym"], listed["ref_px"]) == (OTHER, "0.5")
    assert admin.bad("admin.list", sym=OTHER)["code"] == Code.INSTRUMENT_EXISTS
    assert admin.bad("admin.list", sym="nothing")["field"] == "sym"
    assert admin.bad("admin.list", sym="L4-USE-H26112215", ref_px="0.00001")["code"] == Code.BAD_PRICE
    assert admin.bad("admin.list", sym="L4-EUC-H20010100")["code"] == Code.BAD_LISTING
    assert len(node.gateway.projection.instruments) == 2


def test_keys_are_made_and_taken_away(trio: Trio) -> None:
    node, _, _ = trio
    admin = bot_of(node, "operator", "admin")
    private, public = generate_key()
    (row,) = admin.good("admin.key", key="new", account="taker", public=public, scopes=["read"])["keys"]
    assert (row["account"], row["here"]) == ("taker", False)
    node.private_keys["new"] = private
    bot = Bot(node)
    bot.logon("new")
    assert {row["key"]: row["here"] for row in admin.good("admin.keys")["keys"]}["new"] is True
    for fields, field in (
        ({"key": "new"}, "key"),
        ({"key": "a b"}, "key"),
        ({"scopes": ["everything"]}, "key"),
        ({"public": "AAAA"}, "public"),
        ({"ips": ["nowhere"]}, "key"),
    ):
        good = {"key": "other", "account": "taker", "public": public, "scopes": ["read"]}
        assert admin.bad("admin.key", **(good | fields))["field"] == field
    admin.good("admin.revoke", key="new")
    node.wall_ns += 2_000_000_000
    node.gateway.poll()
    assert bot.transport.closed is not None
    assert admin.bad("admin.revoke", key="new")["field"] == "key"


def sent_kinds(node: Node) -> list[int]:
    return [int(kind) for commands, _ in node.log[-1:] for kind in commands["kind"]]


def test_what_an_administrator_sends_to_the_engine(trio: Trio) -> None:
    """Whether the engine does it is its own tests' affair; here it is asked for the right thing."""
    node, maker, _ = trio
    maker.place("buy", 1, "2.4")
    admin = bot_of(node, "operator", "admin")
    assert admin.bad("admin.lock", account="nobody", on=True)["field"] == "account"
    assert admin.bad("admin.status", sym=OTHER, status="halted")["code"] == Code.UNKNOWN_SYMBOL
    for op, fields, kinds in (
        ("admin.lock", {"account": "taker", "on": True}, [Kind.LOCK]),
        ("admin.lock", {"account": "taker", "on": False}, [Kind.UNLOCK]),
        ("admin.status", {"sym": SYMBOL, "status": "halted"}, [Kind.SET_STATUS]),
        ("admin.halt", {"on": True}, [Kind.HALT_ALL]),
        ("admin.halt", {"on": False}, [Kind.RESUME_ALL]),
        ("admin.band", {"sym": SYMBOL, "ref_px": "2.5", "band_ppm": 100_000}, [Kind.SET_BAND]),
        ("admin.limits", {"account": "taker", "qty": 5}, [Kind.SET_LIMITS]),
    ):
        admin.ask(op, **fields)
        assert sent_kinds(node) == kinds, op
    assert len(maker.good("orders.open")["orders"]) == 1  # the kill switch leaves orders in their places


def test_the_kill_switch_stops_everything_but_cancels(trio: Trio) -> None:
    node, maker, taker = trio
    maker.place("sell", 2, "2.4", cid="a")
    watcher = Bot(node)
    (snapshot,) = watcher.subscribe("status", symbols=[SYMBOL])
    admin = bot_of(node, "operator", "admin")
    assert admin.good("admin.halt", on=True)["seq"] > 0
    (change,) = watcher.take()
    assert (change["status"], change["halted"], change["prev"]) == ("continuous", True, snapshot["seq"])
    error = taker.bad("order.place", sym=SYMBOL, side="buy", qty=1, px="2.4")
    assert (error["name"], error["status"]) == ("MARKET_NOT_OPEN", "exchange_halted")
    assert maker.bad("order.amend", cid="a", qty=1)["name"] == "MARKET_NOT_OPEN"
    assert maker.good("order.cancel", cid="a")["st"] == "canceled"
    admin.good("admin.halt", on=False)
    assert "halted" not in watcher.take()[0]
    assert taker.place("buy", 1, "2.4")["st"] == "new"


def test_limits_and_bands_hold_from_then_on(trio: Trio) -> None:
    node, maker, taker = trio
    taker.subscribe("private")
    watcher = Bot(node)
    watcher.subscribe("instruments")
    admin = bot_of(node, "operator", "admin")
    admin.good("admin.limits", account="taker", qty=5, net=8, orders=2)
    limits = next(event for event in taker.take() if event["ev"] == "account")
    assert (limits["what"], limits["qty"], limits["net"], limits["orders"]) == ("limits", 5, 8, 2)
    assert taker.bad("order.place", sym=SYMBOL, side="buy", qty=6, px="2.4")["name"] == "BAD_QTY"
    assert admin.bad("admin.limits", account="nobody")["field"] == "account"
    admin.good("admin.band", sym=SYMBOL, ref_px="2.5", band_ppm=100_000, collar_ppm=20_000)
    (changed,) = watcher.take()
    terms = changed["list"][0]
    assert (changed["ev"], terms["low_px"], terms["high_px"], terms["collar_ppm"]) == (
        "changed",
        "2.25",
        "2.75",
        20_000,
    )
    assert maker.bad("order.place", sym=SYMBOL, side="buy", qty=1, px="2.76")["name"] == "BAD_PRICE"
    assert admin.bad("admin.band", sym=SYMBOL, ref_px="2.50001")["name"] == "BAD_PRICE"
    node.restart(node.gateway.snapshot(), len(node.log))
    assert Bot(node).good("instruments")["instruments"][0]["high_px"] == "2.75"


def test_what_an_administrator_does_is_logged(trio: Trio, caplog: pytest.LogCaptureFixture) -> None:
    node, _, _ = trio
    admin = bot_of(node, "operator", "admin")
    admin.ask("admin.halt", on=True)
    record = next(record for record in caplog.records if record.msg == "admin")
    assert (record.what, record.by) == ("halt", "operator-admin-JSON")  # type: ignore[attr-defined]
