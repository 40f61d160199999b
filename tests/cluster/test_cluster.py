"""Replicas and gateways over three real NATS servers."""

import asyncio
import contextlib
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from nats.aio.msg import Msg

from engine import jetstream
from engine.catalogue import pack_id
from engine.engine import Engine
from engine.jetstream import (
    LostError,
    Publisher,
    PublishError,
    Reader,
    Shard,
    Stored,
    TrimmedError,
    UnsafeServerError,
    check_servers,
    end,
    head_of,
    make_streams,
)
from engine.log import read_log
from engine.types import COMMAND, TRANSFER, EventKind, Kind
from tests.cluster.local import config_for, last_hour, make_keys, running, until
from wellhead import Client
from wellhead.cluster import servers, shelf
from wellhead.cluster.ask import ask_replicas, differences, execute, export_log
from wellhead.cluster.config import ClusterConfig, ConfigError, read_config, write_config
from wellhead.cluster.replica import Chores, Replica
from wellhead.cluster.servers import LocalServers, free_port
from wellhead.cluster.station import Station


async def test_a_task_ends_that_drops_a_cancellation() -> None:
    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):  # as nats-py does where it flushes
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(stubborn()) for _ in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_a_server_that_does_not_sync_always_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, 1, sync="2m") as nats:
        with pytest.raises(UnsafeServerError, match=r"n0.*sync_interval: always"):
            await check_servers(nats.servers)
        config = config_for(nats, tmp_path)
        for part in (Replica(config, "r1"), Station(config, "g1", tmp_path / "g1")):
            with pytest.raises(UnsafeServerError, match="n0"):
                await part.start()


async def test_a_server_that_cannot_have_its_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PROBE_S", 0.5)
    nats = LocalServers(tmp_path, 1)
    with (
        socket.create_server(("127.0.0.1", nats.ports[0])),
        pytest.raises(RuntimeError, match=r"n0 ended(?s:.*)in use"),
    ):
        await nats.up()


def test_ports_are_none_that_a_connection_may_take_meanwhile() -> None:
    """Thousands of connections leave the ports of a server that is down to it."""
    ports = [free_port() for _ in range(100)]
    assert len({*ports}) == 100
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert max(ports) < taken.getsockname()[1]


def test_a_configuration_is_read_as_it_was_written_and_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    config = config_for(LocalServers(tmp_path), tmp_path, name="USE-1", list_hours=3)
    write_config(path, config)
    assert read_config(path) == config
    assert path.stat().st_mode & 0o077 == 0
    path.write_text(path.read_text().replace("window", "windows"))
    with pytest.raises(ConfigError, match="windows"):
        read_config(path)
    path.write_text('name = "A.B"\n[nats]\nurls = ["nats://127.0.0.1:1"]\n')
    with pytest.raises(ConfigError, match="letters"):
        read_config(path)


async def test_streams_are_read_in_order_and_written_under_the_expected_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server is lost on the way, with the reader's consumer on it or not."""
    monkeypatch.setattr(jetstream, "LOST_S", 0.5)
    async with running(tmp_path) as nats:
        config = config_for(nats, tmp_path)
        replica = Replica(config, "r1")  # makes the streams
        await replica.start()
        await replica.stop()
        shard, client = Shard("OTHER"), await nats.servers.connect("test")
        await make_streams(client, shard, 3)
        publisher, reader = Publisher(client), Reader(client, shard.journal)
        await publisher.start()
        await reader.start()
        stored = [await publisher.send(shard.journal_subject, b"%d" % number, number) for number in range(50)]
        assert await asyncio.gather(*stored) == list(range(1, 51))
        with pytest.raises(PublishError, match="wrong last sequence") as refused:
            await (await publisher.send(shard.journal_subject, b"late", 49))
        assert refused.value.code == 10071
        nats.signal(1, signal.SIGKILL)
        number, found = 50, []
        while number < 100:
            try:
                future = await publisher.send(shard.journal_subject, b"%d" % number, number)
                assert await asyncio.wait_for(future, 3) == number + 1
                number += 1
            except (PublishError, TimeoutError):
                number = await head_of(client, shard.journal)  # it may have been stored, and the answer lost
        while len(found) < 100:
            found += await reader.read()
        assert [int(message.data) for message in found] == list(range(100))
        times = [message.stored_ns for message in found]
        assert times == sorted(times)
        await client.jetstream().purge_stream(shard.journal, seq=20)
        late = Reader(client, shard.journal, 5)
        await late.start()
        with pytest.raises(TrimmedError, match="begins with message 20"):
            await late.read()
        beyond = Reader(client, shard.journal, 200)
        await beyond.start()
        with pytest.raises(LostError, match="ends with message 100; 200 was read"):
            await beyond.read()
        await client.close()


async def start(*parts: Replica | Station) -> None:
    for part in parts:
        await part.start()


async def trade(ann: Client, bob: Client, elsewhere: Client) -> tuple[str, int]:
    """Orders through both gateways; a symbol, and the id of the order `first`."""
    symbol = await last_hour(ann)
    ack = await ann.place(symbol, "buy", qty=5, px="2.4", cid="first")
    assert ack.status == "new"
    both = await asyncio.gather(*(client.place(symbol, "buy", qty=1, px="2.3") for client in (ann, bob) * 20))
    assert len({order.oid for order in both}) == 40

    # Sent through both gateways at once, before either can know of the other: executed once.
    clients = (ann, elsewhere)
    twins = await asyncio.gather(*(one.place(symbol, "buy", qty=2, px="2.1", cid="twin") for one in clients))
    assert twins[0].oid == twins[1].oid
    assert [order.cid for order in await ann.orders()].count("twin") == 1
    return symbol, ack.oid


async def replace_writer(config: ClusterConfig, replicas: list[Replica], client: Client, symbol: str) -> list[Replica]:
    """The writer leaves, the other one goes on, a third one joins from a snapshot; the two that are left."""
    writer, other = sorted(replicas, key=lambda replica: not replica.is_writer)
    await writer.stop()
    assert (await client.place(symbol, "buy", qty=1, px="2.2")).status == "new"
    await until(lambda: other.is_writer)
    await shelf.store(other._client, config, shelf.Picture.of(other.core))
    assert (await client.place(symbol, "buy", qty=1, px="2.2")).status == "new"
    third = Replica(config, "r3")
    await third.start()
    assert 0 < third.joined_seq < other.core.sequencer.seq and third.warnings == []
    await until(lambda: third.core.sequencer.seq == other.core.sequencer.seq)
    assert third.core.engine.state_hash() == other.core.engine.state_hash()
    return [other, third]


async def test_a_replica_writes_on_when_an_entry_of_its_own_took_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends an entry again, longer, before it has heard of the first one, which is the one that the servers store."""
    may_hear, may_know = asyncio.Event(), asyncio.Event()
    read, acknowledged = Reader.read, Publisher._acknowledged

    async def late(reader: Reader, most: int = 4_096) -> list[Stored]:
        found = await read(reader, most)
        if reader._stream.endswith("JOURNAL"):
            await may_hear.wait()
        return found

    async def later(publisher: Publisher, message: Msg) -> None:
        if publisher is replica._publisher:
            await may_know.wait()
        await acknowledged(publisher, message)

    monkeypatch.setattr(Reader, "read", late)
    monkeypatch.setattr(Publisher, "_acknowledged", later)
    monkeypatch.setattr(Chores, "due", lambda chores, now_ns: np.zeros(0, COMMAND))  # nothing else comes and helps
    async with running(tmp_path, 1) as nats:
        config = config_for(nats, tmp_path)
        replica = Replica(config, "r1")
        await replica.start()
        asking = []
        for number in (1, 2):
            asking.append(asyncio.create_task(execute(config, opening(number))))
            await until(lambda number=number: len(replica.core.ahead) >= number)
            replica._land()
            replica._wake.set()
            await until(lambda: replica._sent == len(replica.core.ahead))
        may_hear.set()
        await until(lambda: replica.core.journal_seq > 0)
        await asyncio.sleep(config.patience_ms / 1000)
        may_know.set()
        kinds = [int(part.events["kind"][0]) for part in await asyncio.gather(*asking)]
        assert kinds == [EventKind.ACCOUNT_OPENED] * 2
        await replica.stop()


def opening(number: int) -> np.ndarray:
    """An OPEN_ACCOUNT (COMMAND)."""
    row = np.zeros(1, TRANSFER)
    row["kind"], row["account"], row["external_id"] = Kind.OPEN_ACCOUNT, number, pack_id(f"a{number}")
    return row.view(COMMAND)


@pytest.mark.usefixtures("standing_calendar")
async def test_an_exchange_of_replicas_and_gateways(tmp_path: Path) -> None:
    """Two of each: a market through both gateways, a writer that leaves, one that joins, one state in the end."""
    keys = make_keys(tmp_path, "ann", "bob", "ann.2")
    async with running(tmp_path) as nats:
        config = config_for(nats, tmp_path, restart_grace_ms=500)
        replicas = [Replica(config, name) for name in ("r1", "r2")]
        gateways = [Station(config, name, tmp_path / name) for name in ("g1", "g2")]
        await start(*replicas, *gateways)
        urls = [gateway.server.url for gateway in gateways]
        async with (
            Client(urls[0], key="ann", private_key=keys["ann"]) as ann,
            Client(urls[1], key="bob", private_key=keys["bob"]) as bob,
            Client(urls[1], key="ann.2", private_key=keys["ann.2"]) as elsewhere,
        ):
            symbol, first = await trade(ann, bob, elsewhere)
            left = await replace_writer(config, replicas, bob, symbol)
            # What came through a gateway that is gone is known at the other one: the same cid is the same order.
            await gateways[0].stop()
            repeated = await elsewhere.place(symbol, "buy", qty=5, px="2.4", cid="first")
            assert repeated.dup and repeated.oid == first
        found = await ask_replicas(config, b"hash")
        assert [one["name"] for one in found] == [replica.name for replica in left]
        assert differences(found) == []
        assert differences([found[0], {**found[1], "state": "other"}]) != []

        # The journal is a log like any other: a fresh engine makes the same state of it.
        last = await export_log(config, tmp_path / "copy")
        engine = Engine()
        for commands in read_log(tmp_path / "copy" / "log"):
            engine.apply(commands)
        assert last == engine.applied_seq == found[0]["seq"]
        assert engine.state_hash() == found[0]["state"]
        for part in (gateways[1], *left):
            await part.stop()
        await come_back_without_one_server(config, nats, found[0]["state"])


async def come_back_without_one_server(config: ClusterConfig, nats: LocalServers, state: str) -> None:
    """A replica starts while a server is down: the streams go on without it, too. Without two it says so."""
    nats.signal(2, signal.SIGKILL)
    replica = Replica(config, "r4")
    await replica.start()
    await until(lambda: replica.core.engine.state_hash() == state)
    await replica.stop()
    assert await check_servers(nats.servers) == ["n0", "n1"]
    nats.signal(1, signal.SIGKILL)
    with pytest.raises(UnsafeServerError, match="only these answered: n0"):
        await check_servers(nats.servers)


async def test_a_session_that_nobody_holds_is_cancelled_and_one_that_moved_is_not(tmp_path: Path) -> None:
    keys = make_keys(tmp_path, "ann", "bob")
    async with running(tmp_path, 1) as nats:
        config = config_for(nats, tmp_path, restart_grace_ms=300)
        replica, one = Replica(config, "r1"), Station(config, "g1", tmp_path / "g1")
        for part in (replica, one):
            await part.start()
        clients = [
            Client(one.server.url, key=name, private_key=key, cod=True, grace_ms=20_000) for name, key in keys.items()
        ]
        for client in clients:
            await client.__aenter__()
            await client.place(await last_hour(client), "buy", qty=1, px="2.3")
        two = Station(config, "g2", tmp_path / "g2")
        await two.start()
        accounts = two.gateway.projection.accounts
        names = {account.name: number for number, account in accounts.items()}
        # Ann moves to the other gateway: her session at the first is replaced, her orders stay.
        async with Client(two.server.url, key="ann", private_key=keys["ann"], cod=True, grace_ms=20_000):
            await until(lambda: "ann" not in one.gateway.logons.by_key)
            # The first gateway dies: nobody holds Bob's session any more.
            await one.stop()
            await until(lambda: not accounts[names["bob"]].orders)
            assert len(accounts[names["ann"]].orders) == 1
        for client in clients:
            await client.__aexit__(None, None, None)
        assert np.count_nonzero(replica.core.engine.memory.arrays["orders"]["leaves_qty"] > 0) == 1
        await two.stop()
        await replica.stop()
