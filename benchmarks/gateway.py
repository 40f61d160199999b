"""How fast the gateway is, beside what it could be at the most and what the plain library makes.

    python -m benchmarks.gateway [--brief] [--json] [--directory DIR]

Four servers, each in a process of its own: a raw TCP echo under uvloop (the limit), the echo of the websockets library's
`serve()`, the echo of our connection class, and a real node (decode, checks, log, engine with clearing, reply, market data
to one subscriber of `l2` and `trades`, execution reports to each trader), with and without forcing the log to the disk. The load
comes from this process. All send the same order messages: half of them trade, a quarter rests, a quarter cancels.

`ping`, `64 connections` and `window 64` are closed loops: the rate is what counts, a time is from a message's own sending.
`paced` sends on a schedule, at half the rate of `window 64`, and counts from the scheduled time, so a server that stalls
is charged for all that would have come meanwhile (no coordinated omission). Client and server share the machine: on few
cores the load generator's own work is in every figure, and it, not the server, is the limit of the two fastest echoes in
`window 64`. The schedule is kept by the same event loop that reads the answers, so a busy client adds to `paced`.

Needs hdrhistogram.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import uvloop
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from websockets.asyncio.server import ServerConnection, serve

from engine.catalogue import Catalogue, pack_id
from engine.types import COMMAND, TRANSFER, EventKind, Kind, OrdType, Side, TimeInForce
from gateway.auth import KeyStore, sign
from gateway.config import GatewayConfig
from gateway.connection import Connection
from wellhead.config import Config
from wellhead.node import Node

US, NS = 1_000_000, 1_000_000_000
CONNECTIONS, WINDOW, BATCH, SUBSCRIBERS = 64, 64, 100, 200
QUOTER = CONNECTIONS + 1
"""The bot that may send mass quotes; the one before it watches."""
MARKET = "H100S-USE"
LOTS = 1_000_000  # of the maker's orders
NO_LIMIT = 10**9
REPLY_STARTS = (b'{"id"', *(bytes([0x80 | fields]) + b"\xa2id" for fields in range(4, 9)))
FORMATS = {"json": msgspec.json, "msgpack": msgspec.msgpack}
TCP, PLAIN, OURS, MEMORY, DURABLE = "raw tcp echo", "serve() echo", "our echo", "orders, not durable", "orders, durable"


# --- Servers, in a process of their own -------------------------------------------------------------------------------


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


async def start_echo(kind: str) -> int:
    if kind == TCP:
        server: Any = await asyncio.get_running_loop().create_server(TcpEcho, "127.0.0.1", 0)
    elif kind == PLAIN:
        server = await serve(library_echo, "127.0.0.1", 0, compression=None)
    else:
        server = await serve(our_echo, "127.0.0.1", 0, compression=None, create_connection=Connection)
    return int(next(iter(server.sockets)).getsockname()[1])


async def start_node(directory: Path, durable: bool) -> tuple[int, dict[str, str], str]:
    """A node with a deep offer by one maker, and an account and a key for each connection."""
    store = KeyStore(directory / "keys.json")
    keys = {name: str(store.create(name, name)) for name in (f"bot{number}" for number in range(QUOTER))}
    keys[f"bot{QUOTER}"] = str(store.create(f"bot{QUOTER}", f"bot{QUOTER}", scopes=("read", "trade", "quote")))
    limits = GatewayConfig(rate_per_s=NO_LIMIT, rate_burst=NO_LIMIT, max_pending_per_session=NO_LIMIT)
    config = Config(directory, port=0, durable=durable, markets=(MARKET,), list_hours=3, gateway=limits)
    node = Node(config, Catalogue.load())
    await node.start()
    instrument = max(node.gateway.projection.instruments.values(), key=lambda listed: listed.gate_ns)
    setup = np.zeros(3 * (len(keys) + 1), TRANSFER)
    for at, name in enumerate(("maker", *keys)):
        rows = setup[3 * at : 3 * at + 3]
        rows["account"], rows["external_id"] = at + 1, pack_id(name)
        rows["kind"] = Kind.OPEN_ACCOUNT, Kind.DEPOSIT, Kind.NOMINATE
        rows["amount_micros"][1] = 10**9 * US
        rows["instrument"][2], rows["lots"][2] = instrument.number, LOTS if name == "maker" else 1
    await node.execute(setup.view(COMMAND))
    offer = np.zeros(1, COMMAND)
    offer["kind"], offer["account"], offer["instrument"] = Kind.NEW_ORDER, 1, instrument.number
    offer["side"], offer["ord_type"], offer["time_in_force"] = Side.SELL, OrdType.LIMIT, TimeInForce.GTC
    offer["price"], offer["qty"] = 2_000, LOTS
    events = await node.execute(offer)
    assert [event["kind"] for event in events] == [EventKind.NEW], events  # without it nothing would trade
    return node.server.port, keys, instrument.symbol


async def serving(kind: str, directory: Path) -> None:
    if kind in (MEMORY, DURABLE):
        port, keys, symbol = await start_node(directory, kind == DURABLE)
    else:
        port, keys, symbol = await start_echo(kind), {}, "H100S-USE-H26112214"
    print(json.dumps({"port": port, "keys": keys, "symbol": symbol}), flush=True)
    await asyncio.Event().wait()


# --- Load -------------------------------------------------------------------------------------------------------------


class Reply(msgspec.Struct):
    """What is looked at of an answer; an echo comes back without `ok`."""

    id: int | None = None
    ok: bool = True
    ch: str | None = None


class Peer(asyncio.Protocol):
    """A client that does as little as it can. Its mask is zero, which a server unmasks like any other."""

    def __init__(self, wire: str) -> None:
        self.decode = FORMATS[wire].Decoder(Reply).decode
        self.on_reply: Callable[[int], None] = lambda request: None
        self.rest, self.received, self.refused = b"", 0, 0
        self.skips_pushes = False  # look at replies only; an echo is no reply by its first bytes
        self.count_only, self.opened = False, asyncio.get_running_loop().create_future()
        self.pushed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        if not self.opened.done():
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self.rest = head
                return
            self.opened.set_result(None)
        at, end = 0, len(data)
        while end - at >= 2:
            length, start = data[at + 1] & 0x7F, at + 2
            if length == 126:
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            start += 4 if data[at + 1] & 0x80 else 0
            if start + length > end:
                break
            at = start + length
            self.message(data[start:at])
        self.rest = data[at:]

    def message(self, payload: bytes) -> None:
        self.received += 1
        if self.count_only or (self.skips_pushes and not payload.startswith(REPLY_STARTS)):
            return
        reply = self.decode(payload)
        if reply.ch is None and reply.id is not None:
            self.refused += not reply.ok
            self.on_reply(reply.id)
        elif not self.pushed.done():
            self.pushed.set_result(payload)


def frame(payload: bytes, wire: str) -> bytes:
    head, length = b"\x81" if wire == "json" else b"\x82", len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return head + (size if length < 65_536 else b"\xff" + length.to_bytes(8, "big")) + b"\0\0\0\0" + payload


class Target:
    """A server in its process, and connections to it."""

    def __init__(self, kind: str, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.kind, self.process, self.peers = kind, process, list[Peer]()
        self.told = json.loads(process.stdout.readline())
        self.is_node = bool(self.told["keys"])

    async def connect(self, wire: str, bot: int | None = None) -> Peer:
        """A connection, logged on as a bot when one is named and the server is a node."""
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(lambda: Peer(wire), "127.0.0.1", self.told["port"])
        self.peers.append(peer)
        if self.kind == TCP:
            peer.opened.set_result(None)
            return peer
        peer.transport.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: wellhead.v1."
            + wire.encode() + b"\r\n\r\n"
            if self.is_node
            else b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )  # fmt: skip
        await peer.opened
        if self.is_node and bot is not None:
            hello = FORMATS[wire].decode(await peer.pushed)
            key, ts = f"bot{bot}", hello["ts"]
            sig = sign(self.told["keys"][key], hello["challenge"], key, ts)
            await ask(peer, wire, {"op": "session.logon", "id": 1, "key": key, "ts": ts, "sig": sig})
        return peer

    def drop(self) -> None:
        for peer in self.peers:
            peer.transport.abort()
        self.peers.clear()

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def ask(peer: Peer, wire: str, request: dict[str, Any]) -> None:
    done = asyncio.get_running_loop().create_future()
    peer.on_reply = done.set_result
    peer.transport.write(frame(FORMATS[wire].encode(request), wire))
    await asyncio.wait_for(done, 30)
    assert not peer.refused, request


def requests(symbol: str, wire: str, tag: str) -> Iterator[dict[str, Any]]:
    """Orders without end: bid, take, cancel the bid, take."""
    low, high = ("1.000", "2.000") if wire == "json" else (1_000_000, 2_000_000)
    number = 0
    while True:
        cid = f"{tag}-{number:09}"
        yield {"op": "order.place", "sym": symbol, "side": "buy", "qty": 3, "px": low, "cid": cid}
        take = {"op": "order.place", "sym": symbol, "side": "buy", "qty": 1, "px": high, "tif": "ioc"}
        yield take | {"cid": cid + "t"}
        yield {"op": "order.cancel", "cid": cid}
        yield take | {"cid": cid + "u"}
        number += 1


def ladder(symbol: str, wire: str, number: int, levels: int) -> dict[str, Any]:
    """A mass quote of bids, of which every other level moves by a tick each time."""
    ticks = [500 - 2 * level + level * number % 2 for level in range(levels)]
    bids = [[f"0.{tick:03}" if wire == "json" else tick * 1_000, 1] for tick in ticks]
    return {"op": "quote.mass", "id": number, "group": 1, "quotes": [{"sym": symbol, "b": bids}]}


def frames(symbol: str, wire: str, tag: str, count: int, batch: int, quotes: bool = False) -> list[bytes]:
    source, encode = requests(symbol, wire, tag), FORMATS[wire].encode
    made = []
    for number in range(count):
        if quotes:
            message = ladder(symbol, wire, number, batch)
        elif batch == 1:
            message = {**next(source), "id": number}
        else:
            message = {"op": "order.batch", "id": number, "items": [next(source) for _ in range(batch)]}
        made.append(frame(encode(message), wire))
    return made


class Load:
    """Requests of one connection: a closed loop of `window`, or a schedule of `gap_ns`."""

    def __init__(self, peer: Peer, messages: list[bytes], times: HdrHistogram) -> None:
        self.peer, self.messages, self.times = peer, messages, times
        self.sent, self.answered, self.sent_ns = 0, 0, [0] * len(messages)
        self.windowed, self.due = False, 0
        self.done = asyncio.get_running_loop().create_future()
        peer.on_reply = self.answer

    def send(self, count: int) -> None:
        count = min(count, len(self.messages) - self.sent)
        now = time.perf_counter_ns()
        for at in range(self.sent, self.sent + count):
            self.sent_ns[at] = now
        self.peer.transport.write(b"".join(self.messages[self.sent : self.sent + count]))
        self.sent += count

    def answer(self, request: int) -> None:
        self.times.record_value(max(1, time.perf_counter_ns() - self.sent_ns[request]))
        self.answered += 1
        if self.answered == len(self.messages):
            self.done.set_result(None)
        elif self.windowed:
            self.due += 1
            if self.due == 1:  # all that one read frees is sent in one write
                asyncio.get_running_loop().call_soon(self.refill)

    def refill(self) -> None:
        due, self.due = self.due, 0
        if self.sent < len(self.messages):
            self.send(due)

    async def closed_loop(self, window: int) -> None:
        self.windowed = True
        self.send(window)
        await asyncio.wait_for(self.done, 120)

    async def paced(self, gap_ns: int) -> None:
        start = time.perf_counter_ns()
        while self.sent < len(self.messages):
            due = min(len(self.messages), (time.perf_counter_ns() - start) // gap_ns)
            if due > self.sent:
                for at in range(self.sent, due):
                    self.sent_ns[at] = start + at * gap_ns
                self.peer.transport.write(b"".join(self.messages[self.sent : due]))
                self.sent = due
            await asyncio.sleep(0)
        await asyncio.wait_for(self.done, 120)


async def measure(  # one row
    target: Target,
    wire: str,
    name: str,
    connections: int,
    window: int,
    count: int,
    batch: int = 1,
    gap_ns: int = 0,
    quotes: bool = False,
) -> dict[str, Any]:
    if target.is_node:
        watcher = await target.connect(wire, CONNECTIONS)
        channels = [{"name": name, "symbols": [target.told["symbol"]]} for name in ("l2", "trades")]
        await ask(watcher, wire, {"op": "subscribe", "id": 1, "channels": [*channels, {"name": "private"}]})
        watcher.count_only = True
    times = HdrHistogram(1, 60 * NS, 3)
    run = time.time_ns()
    loads = []
    for bot in range(connections):
        messages = frames(target.told["symbol"], wire, f"{run}-{bot}"[-20:], count // connections, batch, quotes)
        peer = await target.connect(wire, QUOTER if quotes else bot)
        if target.is_node:  # a trader reads its execution reports
            await ask(peer, wire, {"op": "subscribe", "id": 1, "channels": [{"name": "private"}]})
            peer.skips_pushes = True
        loads.append(Load(peer, messages, times))
    start = time.perf_counter_ns()
    await asyncio.gather(*[load.paced(gap_ns) if gap_ns else load.closed_loop(window) for load in loads])
    taken_s = (time.perf_counter_ns() - start) / NS
    refused = sum(load.peer.refused for load in loads)
    target.drop()
    spread = {f"p{at}_us": round(times.get_value_at_percentile(at) / 1e3, 1) for at in (50, 99, 99.9)}
    sent = sum(len(load.messages) for load in loads)
    row = {"server": target.kind, "wire": wire, "load": name, "messages": sent}
    return row | {"per_s": round(sent * batch / taken_s), **spread, "refused": refused}


async def fan_out(target: Target, wire: str, count: int) -> dict[str, Any]:
    """One trader, many readers of its book and trades: what reaches them, a second."""
    channels = [{"name": name, "symbols": [target.told["symbol"]]} for name in ("l1", "l2", "trades")]
    readers = [await target.connect(wire) for _ in range(SUBSCRIBERS)]
    for reader in readers:
        await ask(reader, wire, {"op": "subscribe", "id": 1, "channels": channels})
        reader.count_only, reader.received = True, 0
    load = Load(await target.connect(wire, 0), frames(target.told["symbol"], wire, f"f{time.time_ns()}", count, 1),
                HdrHistogram(1, 60 * NS, 3))  # fmt: skip
    start = time.perf_counter_ns()
    await load.closed_loop(WINDOW)
    taken_s = (time.perf_counter_ns() - start) / NS
    delivered = sum(reader.received for reader in readers)
    target.drop()
    return {
        "server": target.kind, "wire": wire, "subscribers": SUBSCRIBERS, "orders_per_s": round(count / taken_s),
        "deliveries_per_s": round(delivered / taken_s),
    }  # fmt: skip


async def idle_memory(target: Target, count: int) -> dict[str, Any]:
    """What a connection that is open and silent takes of the server's memory, the kernel's buffers aside."""
    await target.connect("json")
    before = target.resident_bytes()
    for _ in range(count):
        await target.connect("json")
    grown = target.resident_bytes() - before
    target.drop()
    return {"server": target.kind, "connections": count, "bytes_each": grown // count}


# --- The run ----------------------------------------------------------------------------------------------------------


@contextmanager
def started(kind: str, parent: Path) -> Iterator[Target]:
    directory = Path(tempfile.mkdtemp(dir=parent, prefix="wellhead-bench-"))
    command = [sys.executable, "-m", "benchmarks.gateway", "--serve", kind, "--directory", str(directory)]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        yield Target(kind, process)


async def run(parent: Path, scale: int) -> dict[str, Any]:
    """All measurements; `scale` is the number of requests of the slowest, ping."""
    result: dict[str, Any] = {"conditions": conditions(), "rates": [], "fan_out": [], "memory": []}
    for kind in (TCP, PLAIN, OURS, MEMORY, DURABLE):
        with started(kind, parent) as target:
            for wire in FORMATS if target.is_node else ("json",):
                rows = result["rates"]
                await measure(target, wire, "warm up", 1, WINDOW, 1_000)
                rows.append(await measure(target, wire, "ping", 1, 1, scale))
                rows.append(await measure(target, wire, "64 connections", CONNECTIONS, 1, 4 * scale))
                rows.append(await measure(target, wire, "window 64", 1, WINDOW, 4 * scale))
                gap_ns = 2 * NS // rows[-1]["per_s"]
                rows.append(await measure(target, wire, "paced", 1, 0, 2 * scale, gap_ns=gap_ns))
                if target.is_node:
                    batches = max(20, 4 * scale // BATCH)
                    rows.append(await measure(target, wire, "batches of 100", 1, 4, batches, batch=BATCH))
                    rows.append(await measure(target, wire, "quotes by 100", 1, 4, batches, batch=BATCH, quotes=True))
                    result["fan_out"].append(await fan_out(target, wire, scale))
            if kind != TCP:
                result["memory"].append(await idle_memory(target, 200))
    return result


def conditions() -> dict[str, Any]:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "websockets": version("websockets"),
        "uvloop": version("uvloop"),
    }


def show(result: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in result["conditions"].items()))
    print(
        f"\n{'server':<20} {'wire':<8} {'load':<15} {'orders/s':>10} {'p50 us':>9} {'p99 us':>9} {'p99.9 us':>9} refused"
    )
    for row in result["rates"]:
        times = " ".join(f"{row[name]:>9,.0f}" for name in ("p50_us", "p99_us", "p99.9_us"))
        print(f"{row['server']:<20} {row['wire']:<8} {row['load']:<15} {row['per_s']:>10,} {times} {row['refused']:>7}")
    for row in result["fan_out"]:
        print(
            f"fan-out, {row['server']}, {row['wire']}: {row['deliveries_per_s']:,} deliveries/s to {row['subscribers']}"
            f" subscribers at {row['orders_per_s']:,} orders/s"
        )
    for row in result["memory"]:
        print(f"idle connection, {row['server']}: {row['bytes_each']:,} bytes ({row['connections']} connections)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description="Measure the gateway.")
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="where the nodes write; the disk that is measured"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--brief", action="store_true", help="a short run, for a look")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serving(arguments.serve, arguments.directory))
        return
    result = uvloop.run(run(arguments.directory, 1_000 if arguments.brief else 10_000))
    print(json.dumps(result, indent=2)) if arguments.json else show(result)


if __name__ == "__main__":
    main()
