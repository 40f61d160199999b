"""The smallest node there can be: stamps commands, applies them to the real engine, tells the gateway."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue, pack_id
from engine.engine import Engine
from engine.types import COMMAND, TRANSFER, Kind
from gateway.auth import KeyStore, sign
from gateway.config import GatewayConfig
from gateway.gateway import Gateway
from gateway.messages import Format
from gateway.session import Session
from tests.both import make_engine

NS = 1_000_000_000
START_NS = 1_795_000_000 * NS  # a day in November 2026
SYMBOL = "H100S-USE-H26112214"
OTHER = "L4-EUC-H26112215"
CATALOGUE = Catalogue.load()
CASH_MICROS = 1_000_000_000_000


class Node:
    """Commands wait in `queue`; `run` makes them durable, so to speak. With `auto` that happens on the event loop."""

    def __init__(self, path: Path, config: GatewayConfig | None = None, *, auto: bool = False, **limits: int) -> None:
        self.engine: Engine = make_engine(**limits)
        self.now_ns = START_NS
        self.wall_ns = START_NS
        self.keys = KeyStore(path / "keys.json")
        self.log: list[tuple[NDArray[np.void], NDArray[np.void]]] = []
        self.queue: list[NDArray[np.void]] = []
        self.private_keys: dict[str, str] = {}
        self.auto = auto
        self.config = config or GatewayConfig()
        self.gateway = self.make_gateway()

    def make_gateway(self) -> Gateway:
        return Gateway(
            self.config,
            CATALOGUE,
            self.keys,
            self.submit,
            lambda: self.now_ns,
            wall_ns=self.wall,
            challenge=lambda: "c" * 64,
        )

    def wall(self) -> int:
        return self.wall_ns

    def submit(self, commands: NDArray[np.void]) -> None:
        assert commands.dtype == COMMAND  # whatever body they have
        self.queue.append(commands.copy())
        if self.auto:
            asyncio.get_running_loop().call_soon(self.run)

    def run(self, frame: int | None = None) -> None:
        """Apply what waits, in one batch, or in batches of `frame` commands."""
        while self.queue:
            commands = np.frombuffer(bytearray(b"".join(part.tobytes() for part in self.queue)), COMMAND)
            self.queue.clear()
            size = frame or len(commands)
            for start in range(0, len(commands), size):
                self.apply(commands[start : start + size])

    def apply(self, commands: NDArray[np.void]) -> None:
        commands = np.ascontiguousarray(commands.view(COMMAND)).copy()
        self.now_ns += 1_000_000
        commands["seq"] = self.engine.applied_seq + 1 + np.arange(len(commands))
        commands["ts_ns"] = self.now_ns
        events = self.engine.apply(commands).copy()
        self.log.append((commands, events))
        self.gateway.on_batch(commands, events)

    def restart(self, snapshot: bytes | None = None, after: int = 0) -> None:
        """A new gateway from the log, or from a snapshot and the batches after it."""
        self.gateway = self.make_gateway()
        if snapshot is not None:
            self.gateway.restore(snapshot)
        for commands, events in self.log[after:]:
            self.gateway.on_batch(commands, events)
        self.gateway.open()

    # --- What others than the gateway send ----------------------------------------------------------------------------

    def list(self, symbol: str = SYMBOL, instrument: int = 1) -> None:
        contract = CATALOGUE.contract(symbol)
        listing = CATALOGUE.listing(contract, instrument, self.now_ns, contract.gpu_class.seed_price)
        listing["gate_ns"] = self.now_ns + 3_600 * NS
        self.apply(listing)

    def transfer(self, kind: Kind, account: int, **fields: int) -> None:
        command = np.zeros(1, TRANSFER)
        command["kind"], command["account"] = kind, account
        for name, value in fields.items():
            command[name] = value
        self.apply(command)

    def open_account(self, name: str) -> int:
        number = 1 + max(self.gateway.projection.accounts, default=0)
        command = np.zeros(1, TRANSFER)
        command["kind"], command["account"], command["external_id"] = Kind.OPEN_ACCOUNT, number, pack_id(name)
        self.apply(command)
        return number

    def simple(self, kind: Kind, **fields: int) -> None:
        command = np.zeros(1, COMMAND)
        command["kind"] = kind
        for name, value in fields.items():
            command[name] = value
        self.apply(command)

    def fund(self, account: int, cash: int = CASH_MICROS, lots: int = 1_000, instrument: int = 1) -> None:
        """Cash, and capacity to sell short with."""
        self.transfer(Kind.DEPOSIT, account, amount_micros=cash)
        if lots:
            self.transfer(Kind.NOMINATE, account, instrument=instrument, lots=lots)

    def create_key(self, key: str, account: str, **options: Any) -> str:
        """A key in the store; its private half."""
        private = self.keys.create(key, account, **options)
        assert private is not None
        self.private_keys[key] = private
        return private


def payloads(frames: bytes) -> list[bytes]:
    """What is in unmasked, whole frames."""
    found, at = [], 0
    while at < len(frames):
        size, start = frames[at + 1], at + 2
        if size > 125:
            start += 2 if size == 126 else 8
            size = int.from_bytes(frames[at + 2 : start], "big")
        found.append(frames[start : start + size])
        at = start + size
    assert at == len(frames)
    return found


class FakeTransport:
    """Keeps what was sent; pretends to hold as many bytes as it is told."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.held_bytes = 0

    def send_frames(self, frames: bytes) -> None:
        assert self.closed is None
        self.sent += payloads(frames)

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None
        self.closed = (code, reason)

    def buffered(self) -> int:
        return self.held_bytes


class Bot:
    """A session without a socket: what is sent is decoded to plain values."""

    def __init__(self, node: Node, wire: Format = Format.JSON, ip: str = "127.0.0.1") -> None:
        self.node, self.wire = node, wire
        self.transport = FakeTransport()
        self.ids = 0
        self.session: Session = node.gateway.connect(self.transport, wire, ip)
        self.hello = self.take()[0]

    def take(self) -> list[Any]:
        """All that has come since the last time."""
        sent, self.transport.sent = self.transport.sent, []
        decode: Callable[[bytes], Any] = json.loads if self.wire is Format.JSON else msgspec.msgpack.decode
        return [decode(data) for data in sent]

    def send(self, op: str, **fields: Any) -> int:
        """Send a request without letting the node run; its id."""
        self.ids += 1
        message = {"op": op, "id": self.ids, **fields}
        encode = msgspec.json.encode if self.wire is Format.JSON else msgspec.msgpack.encode
        self.node.gateway.receive(self.session, encode(message))
        return self.ids

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send a request, let the node run, and take the reply; pushes stay in `pushes`."""
        request_id = self.send(op, **fields)
        self.node.run()
        messages = self.take()
        self.pushes = [message for message in messages if "ch" in message]
        replies = [message for message in messages if message.get("id") == request_id and "ch" not in message]
        assert len(replies) == 1, messages
        return dict(replies[0])

    def good(self, op: str, **fields: Any) -> Any:
        """The result of a request that must succeed."""
        reply = self.ask(op, **fields)
        assert reply["ok"], reply
        return reply["r"]

    def bad(self, op: str, **fields: Any) -> Any:
        """The error of a request that must fail."""
        reply = self.ask(op, **fields)
        assert not reply["ok"], reply
        return reply["err"]

    def logon(self, key: str = "mm", **fields: Any) -> Any:
        ts = self.node.wall_ns // 1000
        sig = sign(self.node.private_keys[key], self.hello["challenge"], key, ts)
        return self.good("session.logon", key=key, ts=ts, sig=sig, **fields)

    def place(self, side: str, qty: int, px: str | int | None = None, **fields: Any) -> Any:
        price = {} if px is None else {"px": px}
        return self.good("order.place", **({"sym": SYMBOL, "side": side, "qty": qty} | price | fields))

    def subscribe(self, name: str, **fields: Any) -> list[Any]:
        """Join a channel; its snapshots."""
        self.good("subscribe", channels=[{"name": name, **fields}])
        return self.pushes


def market(path: Path, config: GatewayConfig | None = None, **limits: int) -> tuple[Node, Bot, Bot]:
    """A node with one book and two funded bots: `maker` may sell short, `taker` has only cash."""
    node = Node(path, config, **limits)
    node.list()
    bots = []
    for number, name in enumerate(("maker", "taker"), 1):
        node.create_key(name, name)
        node.open_account(name)
        node.fund(number, lots=1_000 if name == "maker" else 0)
        bot = Bot(node)
        bot.logon(name)
        bots.append(bot)
    return node, bots[0], bots[1]
