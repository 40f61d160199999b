"""Streams on one real NATS server: what goes wrong on the way to it, and what is done about it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from engine import jetstream
from engine.jetstream import (
    LostError,
    Publisher,
    PublishError,
    Reader,
    Servers,
    Shard,
    TrimmedError,
    UnsafeServerError,
    check_servers,
    head_of,
    join,
    make_streams,
    marks_bucket,
    patiently,
    place_of,
    snapshot_bucket,
)
from tests.cluster.local import until
from wellhead.cluster.servers import LocalServers


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    local = LocalServers(tmp_path_factory.mktemp("nats"), 1)
    try:
        asyncio.run(local.up())
        yield local.servers
    finally:
        local.stop()


class Streams:
    """A shard of its own, whose journal is written and read."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.shard = client, Shard(name)
        self.publisher = Publisher(client)
        self.readers: list[Reader] = []

    async def store(self, *texts: str) -> list[int]:
        """Their places in the stream."""
        subject = self.shard.journal_subject
        return await asyncio.gather(*[await self.publisher.send(subject, text.encode()) for text in texts])

    async def reader(self, after: int = 0) -> Reader:
        reader = Reader(self.client, self.shard.journal, after)
        self.readers.append(reader)
        await reader.start()
        return reader


async def texts(reader: Reader, count: int, most: int = 4_096) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        found += [stored.data.decode() for stored in await reader.read(most)]
    return found


async def with_streams(servers: Servers, name: str, do: Callable[[Streams], Awaitable[None]]) -> None:
    client = await join(servers, Shard(name), "test")
    streams = Streams(client, name)
    await streams.publisher.start()
    try:
        await do(streams)
    finally:
        for reader in streams.readers:
            await reader.stop()
        await streams.publisher.stop()
        await client.close()


async def test_servers_are_asked_by_name(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await check_servers(servers) == ["n0"]
    monkeypatch.setattr(jetstream, "CHECK_S", 0.5)
    three = Servers(servers.urls, servers.user, servers.password, servers.system_user, servers.system_password, 3)
    with pytest.raises(UnsafeServerError, match="of at least 3 servers with JetStream only these answered: n0"):
        await check_servers(three)
    # Who is no user of the system account is answered by nobody.
    plain = Servers(servers.urls, servers.user, servers.password, servers.user, servers.password, 1)
    with pytest.raises(UnsafeServerError, match="only these answered: none"):
        await check_servers(plain)
    monkeypatch.setattr(jetstream, "CHECK_S", 0)
    with pytest.raises(UnsafeServerError, match="only these answered: none"):
        await check_servers(servers)


async def test_servers_that_are_not_there_or_refuse_us_are_an_error(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "PATIENCE_S", 0.5)
    with pytest.raises(OSError, match=r"no connection to nats://127.0.0.1:1 .*Connect call failed"):
        await Servers(("nats://127.0.0.1:1",)).connect("nobody")
    with pytest.raises(OSError, match=r"no connection to 127.0.0.1:1 in"):
        await Servers(("nats://user:secret@127.0.0.1:1",)).connect("nobody")
    with pytest.raises(OSError, match=r"no connection to .*Authorization Violation"):
        await Servers(servers.urls, servers.user, "wrong").connect("nobody")


async def test_a_shard_is_made_once(servers: Servers) -> None:
    async def do(streams: Streams) -> None:
        await make_streams(streams.client, streams.shard, 1)
        assert await head_of(streams.client, streams.shard.input) == 0
        assert await streams.store("one") == [1]
        await make_streams(streams.client, streams.shard, 1)
        assert await head_of(streams.client, streams.shard.journal) == 1
        bucket = await snapshot_bucket(streams.client, streams.shard)
        await bucket.put("picture", b"of it")
        assert (await bucket.get("picture")).data == b"of it"
        await (await marks_bucket(streams.client, streams.shard)).put("reader", b"1")
        shard = streams.shard
        assert (shard.input_subject, shard.books_subject, shard.news_subject) == (
            "wh.ONCE.input", "wh.ONCE.books", "wh.ONCE.news",
        )  # fmt: skip

    await with_streams(servers, "ONCE", do)


async def test_messages_are_read_in_parts_and_may_be_put_back(servers: Servers) -> None:
    async def do(streams: Streams) -> None:
        await streams.store(*"abcde")
        reader = await streams.reader(after=1)
        first = await reader.read(2)
        assert (first[0].seq, first[0].data) == (2, b"b")
        reader.unread(first)
        assert reader.waits
        assert await texts(reader, 4, most=1) == [*"bcde"]
        assert reader.after == 5 and not reader.waits
        heard = reader._heard
        await until(lambda: reader._heard > heard)  # the server says that it is there, and nothing else
        unstarted = Reader(streams.client, streams.shard.journal)
        await unstarted.stop()

    await with_streams(servers, "PARTS", do)


async def test_a_stream_that_is_not_there_yet_is_waited_for(servers: Servers) -> None:
    async def do(streams: Streams) -> None:
        later = Streams(streams.client, "LATER")
        reader = await later.reader()
        reading = asyncio.create_task(texts(reader, 1))
        await until(lambda: reader._round > 1)  # it has tried, and again
        await make_streams(later.client, later.shard, 1)
        later.publisher = streams.publisher
        await later.store("at last")
        assert await reading == ["at last"]
        await reader.stop()

    await with_streams(servers, "NOW", do)


async def test_a_consumer_that_is_gone_is_made_anew(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a server's death: nothing comes any more, not even that there is nothing."""
    monkeypatch.setattr(jetstream, "SILENCE_S", 0.8)

    async def do(streams: Streams) -> None:
        await streams.store("a", "b")
        reader = await streams.reader()
        assert await texts(reader, 2) == ["a", "b"]
        stream = streams.client.jetstream()
        for consumer in await stream.consumers_info(streams.shard.journal):
            await stream.delete_consumer(streams.shard.journal, consumer.name)
        await streams.store("c")
        assert await texts(reader, 1) == ["c"]

    await with_streams(servers, "GONE", do)


async def test_what_was_lost_on_the_way_is_read_all_the_same(servers: Servers) -> None:
    """Messages that a connection dropped: the numbers show it, and each is read once."""

    async def do(streams: Streams) -> None:
        reader = await streams.reader()
        await streams.store("a")
        assert await texts(reader, 1) == ["a"]
        taken, real = [], reader._take

        async def forgetful(of_round: int, message: Msg) -> None:
            taken.append(message)
            if len(taken) not in (2, 3):
                await real(of_round, message)

        monkeypatched = reader._subscription._cb
        reader._subscription._cb = lambda message: forgetful(monkeypatched.args[0], message)
        await streams.store(*"bcdefg")
        assert await texts(reader, 6) == [*"bcdefg"]
        assert reader._round > 1
        before = reader.after
        await real(reader._round - 1, taken[0])  # one that comes late, to a consumer that is no more
        assert reader.after == before and not reader.waits

    await with_streams(servers, "DROPPED", do)


async def test_a_server_that_asks_whether_all_came_is_answered(servers: Servers) -> None:
    """Flow control: beyond some megabytes it sends no more until it hears of us."""

    async def do(streams: Streams) -> None:
        reader = await streams.reader()
        large = "x" * 1_000_000
        for _ in range(40):
            await streams.store(large)
        assert await texts(reader, 40) == [large] * 40

    await with_streams(servers, "LARGE", do)


async def test_a_stream_that_is_trimmed_under_a_slow_reader_is_an_error(servers: Servers) -> None:
    """The server goes on with the first message that is left, and numbers it as if nothing had been before it."""

    async def do(streams: Streams) -> None:
        await streams.store("a")
        reader, may_go_on = await streams.reader(), asyncio.Event()
        assert await texts(reader, 1) == ["a"]
        real = reader._subscription._cb

        async def slow(message: Msg) -> None:
            await may_go_on.wait()
            await real(message)

        reader._subscription._cb = slow
        for _ in range(40):
            await streams.store("x" * 1_000_000)
        await streams.store("last")
        await streams.client.jetstream().purge_stream(streams.shard.journal, seq=42)
        may_go_on.set()
        with pytest.raises(TrimmedError, match="begins with message 42"):
            while "last" not in await texts(reader, 1, 1):
                pass

    await with_streams(servers, "UNDER", do)


async def test_a_stream_that_begins_too_late_or_ends_too_early(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "LOST_S", 0.3)

    async def do(streams: Streams) -> None:
        await streams.store(*"abcde")
        await streams.client.jetstream().purge_stream(streams.shard.journal, seq=4)
        with pytest.raises(TrimmedError, match="begins with message 4, 2 is needed"):
            await (await streams.reader(after=1)).read()
        assert await texts(await streams.reader(after=3), 2) == ["d", "e"]
        with pytest.raises(LostError, match="ends with message 5; 9 was read of it"):
            await (await streams.reader(after=9)).read()
        # A leader that comes to know of the rest in time has lost nothing.
        monkeypatch.setattr(jetstream, "LOST_S", 60)
        early = await streams.reader(after=6)
        await until(lambda: early._short_since is not None)
        await streams.store("f", "g")
        assert await texts(early, 1) == ["g"]
        await until(lambda: early._short_since is None)

    await with_streams(servers, "SHORT", do)


async def test_what_is_not_stored_is_an_error_and_what_is_unknown_stays_so(servers: Servers) -> None:
    async def do(streams: Streams) -> None:
        publisher = streams.publisher
        assert await streams.store("a", "b") == [1, 2]
        with pytest.raises(PublishError, match="no server speaks for the stream") as unheard:
            await (await publisher.send("wh.NOWHERE.journal", b""))
        assert unheard.value.code == 0
        with pytest.raises(PublishError, match="wrong last sequence: 2") as refused:
            await (await publisher.send(streams.shard.journal_subject, b"late", 1))
        assert refused.value.code == jetstream.WRONG_LAST_SEQUENCE
        assert await (stored := await publisher.send(streams.shard.journal_subject, b"c", 2)) == 3
        assert (place_of(stored), place_of(None)) == (3, None)

        future = await publisher.send(streams.shard.journal_subject, b"d")
        assert place_of(future) is None
        publisher.forget()
        assert future.cancelled() and place_of(future) is None
        await until_stored(streams, 4)  # it was stored all the same; its answer is for nobody
        assert await streams.store("e") == [5]
        await streams.client.close()
        with pytest.raises(PublishError, match="no connection"):
            await (await publisher.send(streams.shard.journal_subject, b"f"))

    await with_streams(servers, "REFUSED", do)


async def until_stored(streams: Streams, last: int) -> None:
    async with asyncio.timeout(20):
        while await head_of(streams.client, streams.shard.journal) < last:
            await asyncio.sleep(0.01)


async def test_a_publisher_that_never_began_can_stop(servers: Servers) -> None:
    client = await servers.connect("test")
    await Publisher(client).stop()
    await client.close()


async def test_servers_without_a_leader_are_asked_again_and_not_for_ever() -> None:
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise TimeoutError
        return "there"

    assert await patiently(ask) == "there"

    async def never() -> None:
        raise OSError("nobody")

    with pytest.raises(OSError, match="nobody"):
        await patiently(never, limit_s=0.3)

    async def missing() -> None:
        nonlocal asked
        asked = 0
        raise NotFoundError

    with pytest.raises(NotFoundError):  # that is an answer
        await patiently(missing)
    assert asked == 0


def test_errors_of_the_connection_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="engine.jetstream"):
        asyncio.run(jetstream._note(OSError("cut")))
    assert "cut" in caplog.text
