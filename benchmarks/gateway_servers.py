"""The servers that benchmarks/gateway.py measures, each in a process of its own.

A raw TCP echo, the echo of the websockets library's `serve()`, the echo of our connection class, a server that sends to all
with the library's `broadcast()`, and a real node.
"""

import argparse
import asyncio
import gc
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.gateway_client import Target
from engine.catalogue import Catalogue, pack_id
from engine.types import COMMAND, TRANSFER, EventKind, Kind, OrdType, Side, TimeInForce
from gateway.auth import Key, generate_key
from gateway.config import GatewayConfig
from gateway.connection import Connection
from wellhead.config import Config
from wellhead.node import Node

US = 1_000_000
ACCOUNTS = 64
QUOTER = ACCOUNTS + 1
"""The bot that may send mass quotes; the one before it watches."""
MARKET = "H100S-USE"
HOURS = 24
LOTS = 1_000_000  # of the maker's orders
NO_LIMIT = 10**9
TCP, PLAIN, OURS, BROADCAST = "raw tcp echo", "serve() echo", "our echo", "broadcast()"
MEMORY, DURABLE, SMALL = "orders, not durable", "orders, durable", "orders, little remembered"
NODES = (MEMORY, DURABLE, SMALL)
FULL_SOON = {"max_remembered_orders": 5_000, "private_ring_events": 512, "history_rows": 5_000}
"""So little of the past is kept that all of it has its full size soon, and what grows then is a leak."""
HELD_BYTES = 1 << 20
"""What `broadcast()` may leave in a connection's buffer before the next burst; it waits for nobody by itself."""


class TcpEcho(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def library_echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def our_echo(connection: ServerConnection) -> None:
    assert isinstance(connection, Connection)
    connection.attach(lambda messages: connection.send_messages(messages, text=False))
    await connection.wait_closed()


def broadcaster() -> Any:
    """A handler that sends, when a client says how many and how large, messages to all others, in bursts."""
    open_connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        open_connections.add(connection)
        try:
            async for message in connection:
                wish = json.loads(message)
                readers, payload = open_connections - {connection}, b"x" * wish["bytes"]
                for _ in range(wish["bursts"]):
                    for _ in range(wish["burst"]):
                        broadcast(readers, payload)
                    while any(one.transport.get_write_buffer_size() > HELD_BYTES for one in readers):
                        await asyncio.sleep(0)
                    await asyncio.sleep(0)
        finally:
            open_connections.discard(connection)

    return handle


async def start_echo(kind: str) -> int:
    if kind == TCP:
        server: Any = await asyncio.get_running_loop().create_server(TcpEcho, "127.0.0.1", 0)
    elif kind == OURS:
        server = await serve(
            our_echo, "127.0.0.1", 0, compression=None, ping_interval=None, create_connection=Connection
        )
    else:
        handler = broadcaster() if kind == BROADCAST else library_echo
        server = await serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=2_048)
    return int(next(iter(server.sockets)).getsockname()[1])


async def start_node(directory: Path, kind: str, readers: int) -> tuple[int, dict[str, str], list[str]]:
    """A node with a deep offer by one maker, an account and a key for each connection, and keys that only read."""
    keys = write_keys(directory, readers)
    names = [f"bot{number}" for number in range(QUOTER + 1)]
    limits = GatewayConfig(
        rate_per_s=NO_LIMIT, rate_burst=NO_LIMIT, max_pending_per_session=NO_LIMIT, max_connections_per_ip=10_000,
        ping_interval_ms=NO_LIMIT,
    )  # fmt: skip
    if kind == SMALL:
        limits = replace(limits, ping_interval_ms=15_000, **FULL_SOON)
    config = Config(directory, port=0, durable=kind == DURABLE, markets=(MARKET,), list_hours=HOURS + 1, gateway=limits)
    node = Node(config, Catalogue.load())
    await node.start()
    listed = sorted(node.gateway.projection.instruments.values(), key=lambda one: one.gate_ns)
    await fund(node, ["maker", *names], listed[-1].number)
    gc.collect()
    gc.freeze()  # as `wellhead serve` does
    # The first is left out: its gate may come while somebody measures, and what is sent to it then is refused.
    return node.server.port, keys, [one.symbol for one in reversed(listed[1:])]


def write_keys(directory: Path, readers: int) -> dict[str, str]:
    """A key store with a key for each bot and reader, written as a whole: made one by one, each would be a write to the disk."""
    private, rows = {}, []
    accounts = {f"bot{number}": f"bot{number}" for number in range(QUOTER + 1)}
    accounts |= {f"reader{number}": f"bot{number % ACCOUNTS}" for number in range(readers)}
    for serial, (name, account) in enumerate(accounts.items(), 1):
        private[name], public = generate_key()
        scopes = (
            ("read",) if name.startswith("reader") else ("read", "trade", "quote")[: 3 if name == f"bot{QUOTER}" else 2]
        )
        rows.append(asdict(Key(name, serial, account, public, scopes)))
    store = {"next_serial": len(rows) + 1, "keys": rows}
    (directory / "keys.json").write_text(json.dumps(store), encoding="utf-8")
    return private


async def fund(node: Node, names: list[str], instrument: int) -> None:
    """Accounts with money, and a large offer of the first one's in an instrument."""
    setup = np.zeros(3 * len(names), TRANSFER)
    for at, name in enumerate(names):
        rows = setup[3 * at : 3 * at + 3]
        rows["account"], rows["external_id"] = at + 1, pack_id(name)
        rows["kind"] = Kind.OPEN_ACCOUNT, Kind.DEPOSIT, Kind.NOMINATE
        rows["amount_micros"][1] = 10**9 * US
        rows["instrument"][2], rows["lots"][2] = instrument, LOTS if at == 0 else 1
    await node.execute(setup.view(COMMAND))
    offer = np.zeros(1, COMMAND)
    offer["kind"], offer["account"], offer["instrument"] = Kind.NEW_ORDER, 1, instrument
    offer["side"], offer["ord_type"], offer["time_in_force"] = Side.SELL, OrdType.LIMIT, TimeInForce.GTC
    offer["price"], offer["qty"] = 2_000, LOTS
    events = await node.execute(offer)
    assert [event["kind"] for event in events] == [EventKind.NEW], events  # without it nothing would trade


async def serving(kind: str, directory: Path, readers: int) -> None:
    logging.disable(logging.ERROR)  # clients leave without a word
    if kind in NODES:
        port, keys, symbols = await start_node(directory, kind, readers)
    else:
        port, keys, symbols = await start_echo(kind), {}, ["H100S-USE-H26112214"]
    print(json.dumps({"port": port, "keys": keys, "symbols": symbols}), flush=True)
    await asyncio.Event().wait()


@contextmanager
def started(kind: str, parent: Path, readers: int = 0) -> Iterator[Target]:
    """A server in a process of its own, with a directory under `parent`."""
    directory = Path(tempfile.mkdtemp(dir=parent, prefix="wellhead-bench-"))
    command = [sys.executable, "-m", "benchmarks.gateway_servers", kind, str(directory), str(readers)]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        yield Target(kind, process)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("directory", type=Path)
    parser.add_argument("readers", type=int)
    arguments = parser.parse_args()
    uvloop.run(serving(arguments.kind, arguments.directory, arguments.readers))
