"""Through gateways that are processes of their own a member reads what the books say, wherever the books are."""

import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from engine.catalogue import Catalogue, Contract
from engine.types import COMMAND, EventKind, Kind
from gateway.auth import KeyStore, sign
from tests.cluster.local import config_for, running
from tests.wellhead.test_papers import Line
from wellhead.cluster.ask import execute
from wellhead.cluster.books import Bookkeeper
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.replica import Chores, Replica
from wellhead.cluster.station import Station
from wellhead.settle import check

CATALOGUE = Catalogue.load()
NS, HOUR_S = 1_000_000_000, 3_600
LOTS = 3
SCOPES = ("read", "trade", "provide")


@contextlib.asynccontextmanager
async def session(station: Station, name: str, private: str) -> AsyncIterator[Line]:
    """A member at a gateway."""
    async with connect(station.server.url) as socket:
        hello = json.loads(await socket.recv())
        line = Line(socket)
        await line.good(
            "session.logon", key=name, ts=hello["ts"], sig=sign(private, hello["challenge"], name, hello["ts"])
        )
        yield line


async def trade(replica: Replica, maker: Line, taker: Line) -> str:
    """Trade an hour that is over already, and whose gate comes when it is traded; its symbol."""
    start_s = int(time.time()) // HOUR_S * HOUR_S - 2 * HOUR_S
    contract = Contract(CATALOGUE.classes[0], CATALOGUE.regions[0], start_s)
    listing = CATALOGUE.listing(contract, 1, (start_s - 40 * HOUR_S) * NS, 2_000)
    listing["gate_ns"] = time.time_ns() + HOUR_S * NS
    listed = await execute(replica.config, listing.view(COMMAND))
    assert listed.events["kind"][0] == EventKind.LISTED, listed.events["reason"]
    symbol = contract.symbol
    await maker.good("capacity.nominate", sym=symbol, lots=10)
    await maker.good("order.place", sym=symbol, side="sell", px="2", qty=LOTS)
    await taker.good("order.place", sym=symbol, side="buy", px="2", qty=LOTS)
    await send(replica.config, Kind.CLOSE, instrument=1)
    return symbol


async def send(config: ClusterConfig, kind: Kind, **fields: int) -> None:
    command = np.zeros(1, COMMAND)
    command["kind"] = kind
    for name, value in fields.items():
        command[name] = value
    await execute(config, command)


async def papers(line: Line) -> dict[str, Any]:
    """All that a member can ask of the books."""
    statements = (await line.good("statements"))["statements"]
    cycle = statements[0]["cycle"]
    found = {"statements": statements, "proof": await line.good("proof")}
    return found | {kind: await line.good("statement", cycle=cycle, format=kind) for kind in ("csv", "json")}


async def test_papers_and_news_are_those_of_the_books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it comes, at another gateway that starts when all is over, and when the books are away."""
    # Gate and cycle's end come when we say.
    monkeypatch.setattr(Chores, "due", lambda chores, now_ns: np.zeros(0, COMMAND))
    store = KeyStore(tmp_path / "keys.json")
    keys = {name: store.create(name, name, scopes=SCOPES) or "" for name in ("maker", "taker")}
    async with running(tmp_path, 1) as nats:
        config = config_for(nats, tmp_path, poll_ms=20)
        replica, one, two = Replica(config, "r1"), *(Station(config, n, tmp_path / n) for n in ("g1", "g2"))
        books = Bookkeeper(config, tmp_path / "books")
        for part in (replica, one, books):
            await part.start()
        channels = [{"name": "batches"}, {"name": "deliveries"}]
        async with session(one, "maker", keys["maker"]) as maker, session(one, "taker", keys["taker"]) as taker:
            assert (await taker.good("statements"))["statements"] == []
            await taker.good("subscribe", channels=channels)
            symbol = await trade(replica, maker, taker)
            told = await taker.push("deliveries", lambda rows: any(row["done"] == LOTS for row in rows))
            await send(config, Kind.CLOSE_CYCLE)
            frozen = await taker.push("batches", bool)
            found = await papers(taker)
            check_papers(books, symbol, told["list"][-1], frozen["list"][-1], found)
            refused = await taker.ask("statement", cycle=99)
            assert (refused["ok"], refused["err"]["field"]) == (False, "cycle")
            refused = await maker.ask("delivery.report", report="nonsense")
            assert (refused["ok"], refused["err"]["field"]) == (False, "report")
            await two.start()
            async with session(two, "taker", keys["taker"]) as late:
                await late.good("subscribe", channels=[*channels, {"name": "index", "symbols": "*"}])
                assert (await late.push("batches", bool))["list"] == frozen["list"]
                assert (await late.push("deliveries", bool))["list"] == told["list"]
                assert await papers(late) == found
                await books.stop()
                refused = await late.ask("proof")
                assert refused["err"]["name"] == "NOT_AVAILABLE" and "books are down" in refused["err"]["msg"]
        for part in (one, two, replica):
            await part.stop()


def check_papers(books: Bookkeeper, symbol: str, delivery: Any, batch: Any, found: dict[str, Any]) -> None:
    """They are the books' own, to the byte."""
    newest = books.settlement.last_batch()
    assert newest is not None
    assert (delivery["sym"], delivery["lots"], delivery["providers"]) == (symbol, LOTS, 1)
    assert (batch["cycle"], batch["root"], batch["id"]) == (newest.cycle, newest.root.hex(), newest.batch_id.hex())
    assert [row["cycle"] for row in found["statements"]] == [newest.cycle]
    assert len(check(found["proof"]["file"].encode(), batch["root"], batch["owed_root"])) == 2
    folder = books.settlement.books.statements.directory / str(newest.cycle)
    for kind in ("csv", "json"):
        assert found[kind]["data"] == (folder / f"2.{kind}").read_text()
