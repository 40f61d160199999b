"""kill -9 of the real server in the middle of order flow: what it acknowledged is there when it comes back."""

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from engine.catalogue import Catalogue
from engine.engine import Engine
from engine.invariants import check
from engine.log import FileLog
from gateway.auth import KeyStore
from tests.wellhead.process import ServerProcess
from wellhead import Client, WellheadError
from wellhead.audit import audit
from wellhead.config import Config
from wellhead.exchange import Exchange

OPTIONS = ("--market", "H100S-USE", "--market", "L4-EUC", "--hours", "3", "--paper", "1000000")


def make_keys(data_dir: Path, *accounts: str) -> dict[str, str]:
    """A key for each account, of the same name; account -> private key."""
    data_dir.mkdir(parents=True, exist_ok=True)
    store = KeyStore(data_dir / "keys.json")
    return {account: str(store.create(account, account)) for account in accounts}


async def place_until_killed(
    client: Client, symbols: list[str], acknowledged: dict[int, str], rng: random.Random
) -> None:
    """Bids that rest, some taken back. What is noted is only what was answered."""
    with contextlib.suppress(WellheadError, asyncio.CancelledError):
        while True:
            ack = await client.place(rng.choice(symbols), "buy", qty=rng.randint(1, 3), px=f"0.{rng.randint(100, 400)}")
            acknowledged[ack.oid] = ack.cid or ""
            if rng.random() < 0.3:
                # Forgotten first: of a cancel under way when the server dies nobody can say how it ended.
                oid = rng.choice(list(acknowledged))
                del acknowledged[oid]
                await client.cancel(oid)


async def trade_and_kill(
    data_dir: Path, clock: Path, keys: dict[str, str], seconds: float, rng: random.Random
) -> dict[str, dict[int, str]]:
    """One life of the server; account -> its acknowledged working orders."""
    acknowledged: dict[str, dict[int, str]] = {account: {} for account in keys}
    async with ServerProcess(data_dir, *OPTIONS, clock=clock) as server, contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(server.url, key=account, private_key=private))
            for account, private in keys.items()
        ]
        symbols = [instrument.sym for instrument in await clients[0].instruments()]
        tasks = [
            asyncio.create_task(place_until_killed(client, symbols, orders, random.Random(rng.random())))
            for client, orders in zip(clients, acknowledged.values(), strict=True)
            for _ in range(4)
        ]
        await asyncio.sleep(seconds)
        await server.kill()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return acknowledged


@pytest.mark.parametrize("seed", [1, 2])
async def test_everything_acknowledged_survives_a_kill(tmp_path: Path, clock: Path, seed: int) -> None:
    rng = random.Random(seed)
    keys = make_keys(tmp_path, "ann", "bob", "cyd")
    expected: dict[str, dict[int, str]] = {account: {} for account in keys}
    for _ in range(2):
        for account, orders in (await trade_and_kill(tmp_path, clock, keys, 0.5 + rng.random(), rng)).items():
            expected[account] |= orders
    assert sum(map(len, expected.values())) > 20, "the flow was too thin to prove anything"

    async with ServerProcess(tmp_path, *OPTIONS, clock=clock) as server:
        for account, private in keys.items():
            async with Client(server.url, key=account, private_key=private) as client:
                working = {order.oid: order.cid for order in await client.orders()}
                missing = {oid: cid for oid, cid in expected[account].items() if working.get(oid) != cid}
                assert not missing, f"{account} lost {missing}"
        assert await server.interrupt() == 0

    assert audit(tmp_path).differences == []


async def test_the_state_after_a_kill_is_that_of_a_clean_replay(tmp_path: Path, clock: Path) -> None:
    keys = make_keys(tmp_path, "ann", "bob")
    await trade_and_kill(tmp_path, clock, keys, 0.7, random.Random(3))

    exchange = Exchange.open(Config(tmp_path), Catalogue.load())
    exchange.recover()
    recovered = exchange.engine
    check(recovered.memory)
    exchange.close()

    clean = Engine()
    with FileLog(tmp_path / "log") as log:
        for commands in log.read():
            for at in range(len(commands)):
                clean.apply(commands[at : at + 1])
    assert clean.applied_seq == recovered.applied_seq > 20
    assert clean.state_hash() == recovered.state_hash()
