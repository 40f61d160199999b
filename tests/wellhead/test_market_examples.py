"""The larger examples, each a process of its own, in one market with a clock that the test sets."""

import asyncio
import contextlib
import os
import signal
import sys
import xml.etree.ElementTree as ET
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.catalogue import NS
from gateway.auth import KeyStore
from tests.wellhead.process import ROOT
from wellhead import Client
from wellhead.config import Config
from wellhead.node import Node

START_NS = 1_795_000_000 * NS
HOUR_NS = 3_600 * NS
MARKET = "L4-EUC"
WAIT_S = 60


class Script:
    """An example that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process, self.printed = process, ""

    async def until(self, text: str) -> None:
        """Read what it prints up to a line with this text."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while line := (await self.process.stdout.readline()).decode():
                    self.printed += line
                    if text in line:
                        return
        raise AssertionError(f"{text!r} was never printed:\n{self.printed}")

    async def end(self, interrupt: bool = False) -> str:
        """Let it end, by Ctrl-C if asked; all it printed."""
        if interrupt:
            self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(WAIT_S):
            self.printed += (await self.process.stdout.read()).decode()
            assert await self.process.wait() == 0, self.printed
        return self.printed


@asynccontextmanager
async def script(name: str, *arguments: object, cwd: Path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "examples" / name), *map(str, arguments), cwd=cwd, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield Script(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Market:
    """A node with three hours of one market, and the keys of a maker, a provider and a taker."""

    def __init__(self, directory: Path) -> None:
        self.now_ns, self.directory = START_NS, directory
        config = Config(directory / "data", port=0, markets=(MARKET,), list_hours=3, paper_micros=10**10, poll_ms=20)
        self.node = Node(config, clock=lambda: self.now_ns)
        store = KeyStore(config.keys_path)
        for name in ("maker", "provider", "taker"):
            scopes = ("read", "trade", *{"provider": ["provide"], "maker": ["quote"]}.get(name, []))
            store.create(name, name, scopes=scopes, private_path=directory / f"{name}.key")

    @property
    def url(self) -> str:
        return self.node.server.url


@pytest.fixture
async def market(tmp_path: Path):
    found = Market(tmp_path)
    await found.node.start()
    try:
        yield found
    finally:
        await found.node.stop()


async def test_a_maker_quotes_the_whole_region_and_takes_its_quotes_back(market: Market, tmp_path: Path) -> None:
    async with (
        script("market_maker.py", market.url, "maker.key", MARKET, cwd=tmp_path) as maker,
        Client.from_key_file(market.url, tmp_path / "taker.key") as taker,
    ):
        await maker.until(f"9 quotes in 3 hours of {MARKET}")
        symbols = [one.sym for one in await taker.instruments()]
        books = [await taker.book(symbol) for symbol in symbols]
        assert [[level.qty for level in book.bids] for book in books] == [[2, 2, 2]] * 3
        # Somebody sells to it: what it bought it offers again, and bids less.
        top = books[0].bids[0].px
        await give_capacity(market.node, "taker", symbols[0], 5)
        await taker.place(symbols[0], "sell", qty=2, px=top, tif="ioc")
        await maker.until(f"bought 2 of {symbols[0]} at {top}")
        async with asyncio.timeout(WAIT_S):
            while not (books[0].asks and len(books[0].bids) == 3 and books[0].bids[0].px < top):
                await books[0].changed()
        assert (books[0].asks[0].qty, len(books[0].asks)) == (2, 1)
        async with script("curve.py", market.url, MARKET, "curve.svg", cwd=tmp_path) as curve:
            assert f"3 hours of {MARKET} drawn" in await curve.end()
        assert "10 quotes taken back after 1 fills" in await maker.end(interrupt=True)
        assert not any([book.bids or book.asks for book in [await taker.book(symbol, 100) for symbol in symbols]])
    drawn = ET.parse(tmp_path / "curve.svg").getroot()
    lines = {line[0].text: line.get("points") for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")}
    assert {"bid", "ask", "middle", "offers", "bids"} >= set(lines) >= {"bid", "ask", "offers", "bids"}
    assert len(lines["bid"].split()) == 3


async def give_capacity(node: Node, name: str, symbol: str, lots: int) -> None:
    from tests.wellhead.test_watch import give_capacity as give

    await give(node, name, symbol, lots)


async def test_a_provider_sells_delivers_and_is_paid_and_a_recorder_has_it(market: Market, tmp_path: Path) -> None:
    async with Client.from_key_file(market.url, tmp_path / "taker.key") as taker:
        symbol = (await taker.instruments())[0].sym
        async with (
            script("recorder.py", market.url, "recording", MARKET, cwd=tmp_path) as recorder,
            script("provider.py", market.url, "provider.key", symbol, 10, "0.8", cwd=tmp_path) as provider,
        ):
            await recorder.until("recording 3 hours")
            await provider.until("is new")
            assert f"10 lots of {symbol} nominated" in provider.printed
            trades = await taker.trades(symbol).ready()
            ack = await taker.place(symbol, "buy", qty=4, px="0.8", tif="ioc")
            assert ack.filled == 4
            await anext(trades)
            await provider.until("sold 4 at 0.8")
            await recorder.until("the first trade: 4 of")
            recorded = await recorder.end(interrupt=True)
            market.now_ns += HOUR_NS
            await provider.until(f"4 lots are to be delivered in {symbol}")
            market.now_ns += 2 * HOUR_NS
            printed = await provider.end()
    assert "4 lots delivered: 4.325 of pay and bond" in printed and "damages 0" in printed
    assert "escrow 0" in printed and "bond 0" in printed
    found = pq.read_table(tmp_path / "recording" / "trades.parquet")
    assert found.schema.field("price").type == pa.decimal128(18, 6)
    (row,) = found.to_pylist()
    assert (row["symbol"], row["price"], row["lots"], row["side"]) == (symbol, Decimal("0.8"), 4, "buy")
    assert len(pq.read_table(tmp_path / "recording" / "prices.parquet")) >= 3
    assert "1 trades" in recorded
