"""`wellhead watch` against a real node: the ladder, the trades and the own orders are those of the market."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from engine.catalogue import NS
from engine.types import TRANSFER, Kind
from gateway.auth import KeyStore
from wellhead import Client
from wellhead.cli import main
from wellhead.clock import accelerated_clock
from wellhead.config import Config
from wellhead.node import Node
from wellhead.types import Instrument, InstrumentStatus
from wellhead.watch import Scene, WatchError, choose, picture, watching

START_NS = 1_795_000_000 * NS
"""Half an hour before a gate."""


def text(scene: Scene) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(picture(scene))
    return console.file.getvalue()


@asynccontextmanager
async def market(directory: Path) -> AsyncIterator[tuple[Node, Client, str]]:
    """A node with two accounts; the maker has capacity in the first hour and is logged on."""
    config = Config(
        directory / "data", port=0, markets=("L4-USE", "H100S-EUC"), list_hours=2, paper_micros=10**12, poll_ms=20
    )
    node = Node(config, clock=accelerated_clock(START_NS, 1))
    for name in ("maker", "taker"):
        KeyStore(config.keys_path).create(name, name, private_path=directory / f"{name}.key")
    await node.start()
    try:
        async with Client.from_key_file(node.server.url, directory / "maker.key") as maker:
            symbol = (await maker.instruments("L4", "USE"))[0].sym
            await give_capacity(node, "maker", symbol, 50)
            yield node, maker, symbol
    finally:
        await node.stop()


async def give_capacity(node: Node, name: str, symbol: str, lots: int) -> None:
    """What an operator does when a provider was certified."""
    known = node.gateway.projection
    command = np.zeros(1, TRANSFER)
    command["kind"], command["lots"] = Kind.NOMINATE, lots
    command["account"], command["instrument"] = known.account_by_name[name].number, known.symbol(symbol).number
    await node.execute(command)


async def until(condition, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_contract_with_own_orders(tmp_path: Path) -> None:
    async with market(tmp_path) as (node, maker, symbol):
        await maker.place(symbol, "sell", qty=7, px="0.9")
        async with watching(node.server.url, symbol.lower(), tmp_path / "maker.key") as scene:
            await until(lambda: scene.books[symbol].asks and scene.orders)
            assert scene.own_lots(symbol, "sell", Decimal("0.9")) == 7
            assert "1 orders of maker" in text(scene) and "0.9000" in text(scene)
            async with Client.from_key_file(node.server.url, tmp_path / "taker.key") as taker:
                await taker.place(symbol, "buy", qty=3, px="0.9", tif="ioc")
            await until(lambda: scene.trades and scene.own_lots(symbol, "sell", Decimal("0.9")) == 4)
            shown = text(scene)
            assert "no trades yet" not in shown and "4" in shown


async def test_a_market_has_a_line_for_each_hour(tmp_path: Path) -> None:
    async with market(tmp_path) as (node, maker, symbol):
        await maker.place(symbol, "buy", qty=5, px="0.5")
        for what, lines in (("L4-USE", 2), ("euc", 2), ("H100S", 2)):
            async with watching(node.server.url, what) as scene:
                shown = text(scene)
                assert sum("-H" in line for line in shown.splitlines()) == lines
                assert ("0.5000" in shown) == (what == "L4-USE")


async def test_hours_come_and_go_while_one_looks(tmp_path: Path) -> None:
    async with market(tmp_path) as (node, _, _):
        KeyStore(node.config.keys_path).create(
            "operator", "operator", scopes=("read", "admin"), private_path=tmp_path / "operator.key"
        )
        async with (
            watching(node.server.url, "L4-USE") as scene,
            Client.from_key_file(node.server.url, tmp_path / "operator.key") as operator,
        ):
            await until(lambda: scene.listed)
            assert not scene.is_stale
            last = scene.instruments[-1]
            hour = datetime.fromtimestamp(last.start / 1e6, UTC) + timedelta(hours=2)
            await operator.request("admin.list", sym=f"L4-USE-H{hour:%y%m%d%H}")
            await until(lambda: scene.is_stale)
        async with watching(node.server.url, "L4-USE") as scene:
            assert len(scene.instruments) == 3


def test_what_is_closed_is_left_out_unless_it_is_named() -> None:
    def contract(sym: str, status: InstrumentStatus) -> Instrument:
        money = dict.fromkeys(("tick", "lot_tick", "max_px", "ref_px"), Decimal(1))
        times = dict.fromkeys(
            ("gpus_per_lot", "hours", "start", "opens", "gate", "taker_ppm", "rebate_ppm", "bond_ppm"), 1
        )
        return Instrument(sym=sym, gpu_class="L4", region="USE", status=status, **money, **times)  # type: ignore[arg-type]

    over, trading = contract("L4-USE-H26112213", "closed"), contract("L4-USE-H26112214", "continuous")
    assert choose("L4", [over, trading]) == [trading]
    assert choose(over.sym, [over, trading]) == [over]
    assert choose("L4", [over]) == [over]


async def test_the_command_ends_and_refuses(tmp_path: Path) -> None:

    async with market(tmp_path) as (node, _, symbol):
        run = lambda *words: asyncio.to_thread(CliRunner().invoke, main, ["watch", *words, "--url", node.server.url])  # noqa: E731
        result = await run(symbol, "--seconds", "0.5")
        assert result.exit_code == 0 and "GPUs a lot" in result.output
        result = await run("MARS", "--seconds", "0.5")
        assert result.exit_code == 1 and "H100S-EUC, L4-USE" in result.output


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(WatchError, match="no contracts"):
        choose("X", list[Instrument]())


async def test_any_request_from_the_command_line(tmp_path: Path) -> None:
    async with market(tmp_path) as (node, _, symbol):
        url, key = ["--url", node.server.url], ["--key", str(tmp_path / "taker.key")]
        run = lambda *words: asyncio.to_thread(CliRunner().invoke, main, ["request", *words])  # noqa: E731
        result = await run("instruments", "class=L4", *url)
        assert result.exit_code == 0 and symbol in result.output
        result = await run("orders.open", *url, *key)
        assert json.loads(result.output)["orders"] == []
        result = await run("admin.halt", "on=true", *url, *key)
        assert result.exit_code == 1 and "SCOPE" in result.output.upper()
        assert (await run("instruments", "nonsense", *url)).exit_code == 2
