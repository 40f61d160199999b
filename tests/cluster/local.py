"""Real servers and real parts for tests, in this process or beside it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from engine.jetstream import Servers
from gateway.auth import KeyStore
from wellhead import Client
from wellhead.cluster.config import ClusterConfig, NatsConfig
from wellhead.cluster.servers import LocalServers

MARKET = "H100S-USE"
HOURS = 2


@contextlib.asynccontextmanager
async def running(directory: Path, count: int = 3, **options: Any) -> AsyncIterator[LocalServers]:
    """Servers that are up."""
    nats = LocalServers(directory, count, **options)
    try:
        await nats.up()
        yield nats
    finally:
        nats.stop()


def config_for(nats: LocalServers, directory: Path, **options: Any) -> ClusterConfig:
    servers = nats.servers
    where = NatsConfig(**{field: getattr(servers, field) for field in Servers.__slots__})
    defaults = {"name": "USE", "markets": (MARKET,), "list_hours": HOURS, "paper_micros": 10**12}
    return ClusterConfig(nats=where, keys=directory / "keys.json", **{**defaults, **options})


def make_keys(directory: Path, *names: str) -> dict[str, str]:
    """Keys by their names; what stands before a dot is the account's name."""
    store = KeyStore(directory / "keys.json")
    return {name: store.create(name, name.partition(".")[0]) or "" for name in names}


async def last_hour(client: Client) -> str:
    """The symbol of the last hour there is, whose gate is an hour away at least: servers stamp commands with the machine's
    time, and the gate of the first one may come at any moment. Waits until the hours are listed, a moment after the start.
    """
    starts: dict[str, int] = {}
    async for event in client.listings():
        starts |= {one.sym: one.start for one in event.instruments if one.status == "continuous"}
        if len(starts) >= HOURS:
            break
    return max(starts, key=lambda symbol: starts[symbol])


async def until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what other tasks of this process do. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.01)
