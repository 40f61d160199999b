"""What must hold after a run, whatever happened in it. The log decides: it is read by code that no fault has touched."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine import invariants
from engine.catalogue import Catalogue, unpack_id
from engine.engine import Engine
from engine.log import read_log
from engine.state import Limits
from engine.types import EventKind, Kind
from gateway.auth import KeyStore
from gateway.config import GatewayConfig
from gateway.gateway import Gateway
from gateway.messages import Fills, Format, OrdersHistory, PastFill, PastOrder, encode
from tests.both import make_twin
from tests.simulation.clients import Client
from wellhead.audit import audit

if TYPE_CHECKING:
    from tests.simulation.world import World

Past = tuple[list[PastFill], list[PastOrder]]
"""An account's fills and finished orders, newest first."""
EVERYTHING = GatewayConfig(private_ring_events=10**9, remember_ns=1 << 62)


def check(world: "World") -> None:
    """Complain to the world about all that is wrong."""
    parts = list(read_log(world.config.log_dir))
    commands = np.concatenate(parts)
    engine = Engine()
    gateway = Gateway(EVERYTHING, Catalogue.load(), KeyStore(world.config.keys_path), lambda _: None, lambda: 0)
    events = engine.apply(commands).copy()
    gateway.on_batch(commands, events)
    invariants.check(engine.memory)
    if engine.to_bytes() != world.final:
        world.complain("the engine at the end is not what the log leads to")
    _check_twin(world, engine, commands, events)
    for difference in audit(world.config.data_dir).differences:
        world.complain(f"audit: {difference}")
    if world.money is not None:
        world.money.check(commands, events, world.signed)
    _check_past(world, gateway)
    executed = _executed(commands, events)
    for client in world.clients:
        _check_client(world, client, gateway, executed)


def _check_twin(world: "World", engine: Engine, commands: NDArray[Any], events: NDArray[Any]) -> None:
    limits = Limits()
    twin = make_twin(
        max_accounts=limits.max_accounts,
        max_instruments=limits.max_instruments,
        max_open_orders_per_account=limits.max_open_orders_per_account,
    )
    if twin.apply(commands).tobytes() != events.tobytes():
        world.complain("the twin says other events than the engine")
    twin.check()
    seen = twin.dump()
    for part, value in engine.dump().items():
        if part != "books" and seen[part] != value:
            world.complain(f"{part} of the engine: {value}, of the twin: {seen[part]}")


def past_of(gateway: Gateway, account: int) -> Past:
    """All that a gateway has."""
    return _pages(gateway.history.past_fills, Fills, account), _pages(
        gateway.history.past_orders, OrdersHistory, account
    )


def _pages(ask: Callable[[int, Any], Any], request: type, account: int) -> list[Any]:
    found: list[Any] = []
    before: int | None = None
    while True:
        page = ask(account, request(before=before, limit=100))
        rows, before = msgspec.structs.astuple(page)
        found += rows
        if before is None:
            return found


def _check_past(world: "World", gateway: Gateway) -> None:
    """What was told last is what the log leads to, as far as there was room: then the newest."""
    room = world.config.gateway.history_rows
    for place, ring in enumerate((gateway.history.fills, gateway.history.orders)):
        for account, told in world.past.items():
            true = past_of(gateway, account)[place]
            if told[place] != true[: len(told[place])]:
                world.complain(f"account {account} was told another past than the log has")
            elif ring.count <= room and len(told[place]) < len(true):
                world.complain(f"account {account} was told {len(told[place])} of {len(true)} rows of its past")


def _executed(commands: NDArray[Any], events: NDArray[Any]) -> Counter[tuple[int, str]]:
    """How often each account's cid became an order."""
    accepted = events["command_seq"][events["kind"] == EventKind.NEW]
    placed = commands[np.isin(commands["seq"], accepted) & (commands["kind"] == Kind.NEW_ORDER)]
    return Counter((int(one["account"]), unpack_id(one["cl_ord_id"])) for one in placed)


def _check_client(world: "World", client: Client, gateway: Gateway, executed: Counter[tuple[int, str]]) -> None:
    name = world.accounts[client.number]
    account = gateway.projection.account_by_name[name].number
    stream = {event.aseq: event for event in gateway.streams.stream(account).since(1) or []}
    history = {aseq: msgspec.json.decode(encode(event, Format.JSON)) for aseq, event in stream.items()}
    for cid, sent in client.memory.orders.items():
        times = executed[account, cid]
        if times > 1:
            world.complain(f"{client.key}: {cid} was executed {times} times")
        elif sent.oid and not times:
            world.complain(f"{client.key}: {cid} was acknowledged as order {sent.oid} and is not in the log")
        elif times and not sent.oid and sent.sends and not sent.in_doubt:
            world.complain(f"{client.key}: {cid} was refused, and executed")
    for ack in client.memory.acks:
        event = history.get(ack.aseq)
        if event is None or ack.oid not in (0, event.get("oid", 0)):
            world.complain(f"{client.key}: {ack} was acknowledged, the log has {event}")
    for aseq, told in client.memory.events.items():
        event = stream.get(aseq)
        true = None if event is None else _as_told(event, client.format)
        if told != true:
            world.complain(f"{client.key}: was told {told}, the log has {true}")


def _as_told(event: Any, wire: Format) -> Any:
    decode: Any = msgspec.msgpack.decode if wire is Format.MSGPACK else msgspec.json.decode
    return decode(encode(event, wire))
