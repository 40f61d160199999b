"""The journal is trimmed up to what nobody needs any more, and whoever comes later has all that was in it."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from engine.engine import Engine
from engine.jetstream import Stored, ends_of, head_of
from engine.log import FileLog, LogError, read_log
from engine.types import COMMAND
from tests.cluster.local import config_for, last_hour, make_keys, running, until
from wellhead import Client
from wellhead.audit import audit
from wellhead.cluster import shelf
from wellhead.cluster.archive import Archive, Archivist, replay
from wellhead.cluster.books import Bookkeeper
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.marks import Mark, forget, marks_of, note
from wellhead.cluster.place import NAME, Place
from wellhead.cluster.replica import Replica
from wellhead.cluster.station import Station
from wellhead.cluster.trim import Trimmed, Trimmer

Part = Replica | Station | Archivist


class Exchange:
    """Two replicas, a gateway, books, one client."""

    def __init__(self, config: ClusterConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.replicas = [Replica(config, name) for name in ("r1", "r2")]
        self.gateway = Station(config, "g1", folder / "g1")
        self.books = Bookkeeper(config, folder / "books")
        self.placed, self.symbol = 0, ""

    async def start(self) -> None:
        for part in (*self.replicas, self.gateway, self.books):
            await part.start()
        self.nats = await self.config.nats.servers.connect("test")

    async def place(self, client: Client, count: int) -> None:
        """Orders, one after the other, so that each has an entry."""
        self.symbol = self.symbol or await last_hour(client)
        for _ in range(count):
            self.placed += 1
            await client.place(self.symbol, "buy", qty=1, px="2.3", cid=f"c{self.placed}")

    async def picture(self) -> None:
        """A snapshot of the first replica and the gateway's; wait until it is behind them."""
        one = self.replicas[0]
        head = await head_of(self.nats, self.config.shard.journal)
        await until(lambda: one.core.journal_seq >= head and self.gateway.journal_seq >= head)
        await shelf.store(one._client, self.config, shelf.Picture.of(one.core))
        self.gateway._store()

    async def trim(self, held_by: str, above: int = 0) -> Trimmed:
        """Look until this is what holds it, behind an entry: marks come a moment later than what they are about."""
        async with asyncio.timeout(20):
            while True:
                found = await Trimmer(self.config).trim(self.nats)
                if found.held_by.who == held_by and found.held_by.journal_seq >= above:
                    return found
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        for part in (self.gateway, *self.replicas):
            await part.stop()
        await self.nats.close()


@pytest.mark.usefixtures("standing_calendar")
async def test_nothing_goes_that_books_or_a_replica_need_and_whoever_comes_later_has_it_all(tmp_path: Path) -> None:
    keys = make_keys(tmp_path, "ann")
    async with running(tmp_path, 1) as nats:
        config = config_for(nats, tmp_path, keep_entries=1, trim_every_s=0, mark_every_ms=50)
        exchange = Exchange(config, tmp_path)
        await exchange.start()
        async with Client(exchange.gateway.server.url, key="ann", private_key=keys["ann"]) as ann:
            await exchange.place(ann, 10)
            assert (await exchange.trim("0 of 2 snapshots")).first_seq == 1
            await hold_by_books(exchange, ann)
            await hold_by_a_replica(exchange, ann)
            for _ in range(2):
                await exchange.place(ann, 3)
                await exchange.picture()
            trimmed = await exchange.trim("the older snapshot", above=exchange.placed - 10)
            assert trimmed.first_seq == trimmed.held_by.journal_seq + 1 < trimmed.last_seq
            await join_late(exchange, ann)
            await hold_the_input(exchange, ann)
        await exchange.books.stop()
        await exchange.stop()
    check_the_archive(exchange)


async def hold_by_books(exchange: Exchange, ann: Client) -> None:
    """Books that are down hold what they have not posted, and go on where they stopped."""
    await exchange.books.stop()
    stopped_at = exchange.books.journal_seq
    for _ in range(2):
        await exchange.place(ann, 5)
        await exchange.picture()
    trimmed = await exchange.trim("books USE")
    assert trimmed.first_seq == stopped_at + 1 < trimmed.last_seq
    assert (await exchange.trim("books USE")).first_seq == stopped_at + 1  # nor the second time
    exchange.books = Bookkeeper(exchange.config, exchange.folder / "books")
    await exchange.books.start()


async def hold_by_a_replica(exchange: Exchange, ann: Client) -> None:
    """A replica that does not hear of the journal holds it, and hears of it all in the end."""
    slow, may_hear = exchange.replicas[1], asyncio.Event()
    read: Callable[[int], Awaitable[list[Stored]]] = slow._journal.read

    async def later(most: int = 4_096) -> list[Stored]:
        await may_hear.wait()
        return await read(most)

    slow._journal.read = later  # type: ignore[method-assign]
    await exchange.place(ann, 1)
    for _ in range(2):
        await exchange.place(ann, 4)
        await exchange.picture()
    trimmed = await exchange.trim("replica r2", above=slow.core.journal_seq)
    assert trimmed.first_seq == slow.core.journal_seq + 1 < trimmed.last_seq - 5
    may_hear.set()
    await until(lambda: slow.core.journal_seq >= trimmed.last_seq)


async def join_late(exchange: Exchange, ann: Client) -> None:
    """A replica, and a gateway that has nothing and finds a part of it in the archive only."""
    third, first = Replica(exchange.config, "r3"), exchange.replicas[0]
    await third.start()
    assert third.warnings == [] and third.joined_seq > 0
    await until(lambda: third.core.sequencer.seq == first.core.sequencer.seq)
    assert third.core.engine.state_hash() == first.core.engine.state_hash()
    await third.stop()

    folder, archive = exchange.folder / "g2", exchange.folder / "books"
    with pytest.raises(LogError, match=r"the journal begins with entry .* give the gateway an archive"):
        await Station(exchange.config, "g2", folder).start()
    second = Station(exchange.config, "g2", folder, archive=archive)
    await second.start()
    key = Path(exchange.config.keys).parent
    private = make_keys(key, "ann.2")["ann.2"]
    async with Client(second.server.url, key="ann.2", private_key=private) as elsewhere:
        again = await elsewhere.place(exchange.symbol, "buy", qty=1, px="2.3", cid="c1")
        assert again.dup
        assert len(await elsewhere.orders()) == exchange.placed
        for op in ("orders.history", "fills"):
            assert await elsewhere.request(op) == await ann.request(op)
    await second.stop()


async def hold_the_input(exchange: Exchange, ann: Client) -> None:
    """A replica that is behind holds the input too, when others store snapshots."""
    nats, shard = exchange.nats, exchange.config.shard
    first, _ = await ends_of(nats, shard.input)
    await note(nats, shard, Mark("replica", "slow", 1, first + 1, int(time.time())))
    for _ in range(2):
        await exchange.place(ann, 3)
        await exchange.picture()
    assert (await ends_of(nats, shard.input))[0] == first + 2
    assert await forget(nats, shard, "replica", "slow")
    await exchange.replicas[1]._marker.note()
    await exchange.picture()
    assert (await ends_of(nats, shard.input))[0] > first + 2


def check_the_archive(exchange: Exchange) -> None:
    """It is a node's directory; new books are made of its log alone."""
    folder, copy = exchange.folder / "books", exchange.folder / "copy"
    report = audit(folder)
    assert report.differences == []
    assert report.lines[0].startswith(f"log         {exchange.books.settlement.applied_seq:,} commands")
    engine = Engine()
    for commands in read_log(folder / "log"):
        engine.apply(commands)
    assert engine.state_hash() == exchange.replicas[0].core.engine.state_hash()
    copy.mkdir()
    shutil.copytree(folder / "log", copy / "log")
    shutil.copy(folder / NAME, copy / NAME)
    made, kept = Bookkeeper(exchange.config, copy), Bookkeeper(exchange.config, folder)
    made._catch_up()
    assert made.settlement.books.ledger.digest() == kept.settlement.books.ledger.digest()
    for keeper in (made, kept):
        keeper._archive.close()
        keeper.settlement.close()


def commands(first: int, last: int) -> np.ndarray:
    rows = np.zeros(last - first + 1, COMMAND)
    rows["seq"] = np.arange(first, last + 1)
    return rows


def test_an_archive_takes_each_command_once_and_none_too_early(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.add(commands(1, 5))
    archive.add(commands(3, 7))  # as after a kill between the log and the place
    with pytest.raises(LogError, match="command 9 does not follow the archive's 7"):
        archive.add(commands(9, 9))
    archive.note(Place(4, 40, 7, bytes(32)), at_once=True)
    archive.close()
    again = Archive(tmp_path)
    assert again.place == Place(4, 40, 7, bytes(32))
    assert [int(seq) for part in read_log(tmp_path / "log") for seq in part["seq"]] == list(range(1, 8))
    again.close()


def test_a_place_that_is_not_whole_is_none_and_one_without_its_log_is_an_error(tmp_path: Path) -> None:
    Place(4, 40, 7, bytes(32)).write(tmp_path)
    archive = Archive(tmp_path)  # the log is gone altogether: from the beginning
    assert archive.place == Place()
    archive.add(commands(1, 3))
    archive.close()
    with pytest.raises(LogError, match="ends at 3; 7 was in it"):
        Archive(tmp_path)
    data = bytearray((tmp_path / NAME).read_bytes())
    data[9] ^= 1
    (tmp_path / NAME).write_bytes(data)
    assert Place.read(tmp_path) == Place()
    assert list(replay(tmp_path, 0)) == []
    with FileLog(tmp_path / "log") as log:
        assert log.head_seq == 3


async def test_who_is_waited_for(tmp_path: Path) -> None:
    """Archives for ever, others while they are heard of; so many archives as the configuration says."""
    async with running(tmp_path, 1) as nats:
        config = config_for(nats, tmp_path, archives=2, absent_s=100)
        replica = Replica(config, "r1")  # makes the streams
        await replica.start()
        await replica.stop()
        client, shard, now = await nats.servers.connect("test"), config.shard, [1_000.0]
        trimmer = Trimmer(config, lambda: now[0])
        assert await forget(client, shard, "replica", "r1")
        assert not await forget(client, shard, "replica", "r1")
        for mark in (Mark("archive", "a 1", 7, -1, 0), Mark("books", "b", 9, -1, 0), Mark("replica", "r", 3, 3, 950)):
            await note(client, shard, mark)
        assert {mark.name for mark in await marks_of(client, shard)} == {"a 1", "b", "r"}
        reaches = {reach.who: reach.journal_seq for reach in await trimmer._reaches(client)}
        assert reaches == {"archive a 1": 7, "books b": 9, "replica r": 3, "0 of 2 snapshots": 0}
        now[0] = 1_100.0
        assert await forget(client, shard, "books", "b")
        reaches = {reach.who: reach.journal_seq for reach in await trimmer._reaches(client)}
        assert reaches == {"archive a 1": 7, "1 of 2 archives": 0, "0 of 2 snapshots": 0}
        await client.close()
