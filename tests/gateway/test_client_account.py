"""What the client asks about its account's past, its money and its capacity, against a served exchange."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.node import SYMBOL
from tests.gateway.test_client import FORMATS, client, exchange
from tests.gateway.test_operations import TestDesk
from wellhead import Client, Rejected, SyncClient

D = Decimal
SCOPES = ("read", "trade", "withdraw", "provide")


@FORMATS
async def test_the_past_is_read_page_by_page(tmp_path: Path, wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wellhead.account.PAGE", 3)
    async with (
        exchange(tmp_path) as (node, server),
        client(node, server, "maker", format=wire) as maker,
        client(node, server, "taker", format=wire) as taker,
    ):
        ack = await maker.place(SYMBOL, "sell", 20, "2.6", show=4)
        for _ in range(8):
            await taker.place(SYMBOL, "buy", 1, "2.6", cid=None)
        await maker.cancel(ack.oid)
        fills = await maker.fills(SYMBOL, limit=None)
        assert [(fill.oid, fill.qty, fill.left, fill.filled) for fill in fills] == [
            (ack.oid, 1, 20 - filled, filled) for filled in range(8, 0, -1)
        ]
        assert (fills[0].px, fills[0].liquidity, fills[0].fee < 0) == (D("2.6"), "maker", True)
        assert len(await maker.fills(limit=5)) == 5
        assert await maker.fills("nothing") == []
        (past,) = await maker.past_orders()
        assert (past.oid, past.status, past.why, past.filled, past.show) == (ack.oid, "canceled", "by_request", 8, 4)
        assert [order.status for order in await taker.past_orders(limit=None)] == ["filled"] * 8


@FORMATS
async def test_money_and_capacity(tmp_path: Path, wire: Any) -> None:
    async with exchange(tmp_path) as (node, server):
        node.open_account("taker:hedge")
        node.gateway.operations.desk = TestDesk()
        node.create_key("treasurer", "taker", scopes=SCOPES)
        async with client(node, server, "treasurer", format=wire) as treasurer:
            before = (await treasurer.balances()).cash
            seq = await treasurer.transfer("taker:hedge", "12.5")
            assert await treasurer.nominate(SYMBOL, 2) > seq
            (position,) = await treasurer.positions(SYMBOL)
            assert (position.capacity, position.bond > 0) == (2, True)
            with pytest.raises(Rejected, match="BAD_FIELD"):
                await treasurer.withdraw(1, "5", "0xB")
            await treasurer.withdraw(1, "5", "0xA")
            assert before - (await treasurer.balances()).cash == D("17.5") + position.bond
            (coin,) = await treasurer.deposit_addresses("0xA")
            assert coin.ref == "0x02"
            with pytest.raises(Rejected, match="NOT_AVAILABLE"):
                await treasurer.report_delivery(b"records")
            with pytest.raises(Rejected, match="BAD_FIELD"):
                await treasurer.transfer("nobody", 1)


async def test_a_notebook_has_all_that_the_client_has(tmp_path: Path) -> None:
    public = {name for name in dir(Client) if not name.startswith("_") and callable(getattr(Client, name))}
    assert public <= set(dir(SyncClient))
    async with exchange(tmp_path) as (node, server):
        node.create_key("treasurer", "maker", scopes=SCOPES)

        def notebook() -> tuple[Any, ...]:
            with SyncClient(server.url, key="treasurer", private_key=node.private_keys["treasurer"]) as exchange:
                exchange.nominate(SYMBOL, 1)
                exchange.place(SYMBOL, "sell", 1, "2.6")
                exchange.cancel_all()
                refused = []
                assert exchange.statements() == []
                for ask in (
                    lambda: exchange.withdraw(1, 1, "x"), lambda: exchange.transfer("taker", 1),
                    exchange.proof, lambda: exchange.statement(1), exchange.deposit_addresses,
                    lambda: exchange.report_delivery(b""),
                ):  # fmt: skip
                    with pytest.raises(Rejected) as refusal:
                        ask()
                    refused.append(refusal.value.name)
                past = exchange.past_orders()[0].status, exchange.fills(), exchange.recent_trades(SYMBOL)
                listed = next(exchange.listings(wait_s=5)).instruments[0].sym
                exchange.book(SYMBOL)
                exchange.drop_book(SYMBOL)
                held = exchange.request("balances")["balances"]["held"]
                exchange.place(SYMBOL, "sell", 1, "2.6")
                return past, listed, held, refused, exchange.logout()

        past, listed, held, refused, canceled = await asyncio.to_thread(notebook)
    assert (past, listed, held, canceled) == (("canceled", [], []), SYMBOL, "0", 0)
    assert set(refused) <= {"NOT_AVAILABLE", "BAD_FIELD"}
