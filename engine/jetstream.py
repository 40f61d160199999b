"""The log's streams on NATS JetStream: what must be true of the servers, reading in order, publishing in order.

A shard of the market has two streams, each on three servers: the *input*, into which gateways and others send frames,
and the *journal*, into which replicas write what came of them, each entry under `Nats-Expected-Last-Sequence`, so that of
several who write the same one only the first is stored (engine/sequencing.py says what is in them). A bucket of the
object store beside them holds snapshots.

JetStream acknowledges a message before it is on a disk, unless its servers run with `sync_interval: always`. So every
server of the cluster is asked, and one without it is refused, as is one that does not answer.

The client library mends a connection but not what a server forgets when it dies: a consumer, an acknowledgement. So
`Reader` numbers what it got and makes its consumer anew where one is missing, and `Publisher` leaves it to its caller
to send again: that is safe by what is in the messages, not by their arrival.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    KeyValueConfig,
    ObjectStoreConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import BucketNotFoundError, NotFoundError
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from engine.log import LogError

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

HEARTBEAT_S = 0.5
SILENCE_S = 2.0
"""A consumer that was not heard of for so long is made anew."""
CHECK_S = 3.0
LOST_S = 15.0
"""A new leader may take a while until it knows all that is in a stream; beyond, the rest is lost."""
REQUEST_S = 3.0
PATIENCE_S = 45.0
PING_S = 1
CANCEL_AGAIN_S = 0.1
EXPECTED_LAST = "Nats-Expected-Last-Sequence"
WRONG_LAST_SEQUENCE = 10071


class UnsafeServerError(LogError):
    """A server does not force messages to its disk before it acknowledges them, or cannot be asked."""


async def end(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel tasks until they are done. What they raised is dropped.

    Once is not enough: nats-py drops a cancellation that meets it while it flushes (`Client._flush_pending`), and so does
    `asyncio.wait_for` before Python 3.12 where the answer comes at the same time.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        done, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()


class LostError(LogError):
    """The stream ends before what was read of it: its servers lost messages that were there."""


class TrimmedError(LogError):
    """The stream does not go back as far as the reader needs."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the servers are, who we are there, and how many copies a stream has."""

    urls: tuple[str, ...]
    user: str = ""
    password: str = ""
    system_user: str = ""
    """A user of the system account, who may ask every server how it is configured."""
    system_password: str = ""
    copies: int = 3

    async def connect(self, name: str, *, system: bool = False) -> Client:
        """A connection that mends itself. Raises nats.errors.Error, and OSError when no server lets us in for PATIENCE_S."""
        client = Client()
        connecting = asyncio.create_task(client.connect(
            list(self.urls), name=name, user=self.system_user if system else self.user or None,
            password=self.system_password if system else self.password or None, max_reconnect_attempts=-1,
            reconnect_time_wait=1, connect_timeout=2, ping_interval=PING_S, max_outstanding_pings=2,
            error_cb=_note,
        ))  # fmt: skip
        try:
            # Whoever may reconnect for ever tries for ever at first, too.
            await asyncio.wait([connecting], timeout=PATIENCE_S)
        finally:
            if not connecting.done():
                await end([connecting])
                await client.close()
        if connecting.cancelled():
            where = ", ".join(url.rpartition("@")[2] for url in self.urls)  # there may be a password before it
            raise OSError(f"no connection to {where} in {PATIENCE_S:g} s: {client.last_error}")
        connecting.result()
        return client


async def _note(error: Exception) -> None:
    log.info("nats: %r", error)


class Shard(NamedTuple):
    """The names of a shard's streams."""

    name: str

    @property
    def input(self) -> str:
        return f"WH_{self.name}_INPUT"

    @property
    def input_subject(self) -> str:
        return f"wh.{self.name}.input"

    @property
    def journal(self) -> str:
        return f"WH_{self.name}_JOURNAL"

    @property
    def journal_subject(self) -> str:
        return f"wh.{self.name}.journal"

    @property
    def snapshots(self) -> str:
        return f"WH_{self.name}_SNAPSHOTS"

    @property
    def marks(self) -> str:
        return f"WH_{self.name}_MARKS"

    @property
    def books_subject(self) -> str:
        return f"wh.{self.name}.books"

    @property
    def news_subject(self) -> str:
        return f"wh.{self.name}.news"


async def check_servers(servers: Servers) -> list[str]:
    """Ask every server of the cluster whether it syncs always; the names of those that answer.

    Raises UnsafeServerError for one that does not, and when those that answer are no majority of a stream's copies: one
    that is down must not keep a replica from coming back, for the streams go on without it too.
    """
    client = await servers.connect("wellhead-check", system=True)
    try:
        found = await _ask_all(client, "$SYS.REQ.SERVER.PING.JSZ", servers.copies)
    finally:
        await client.close()
    for name, answer in found.items():
        if not answer.get("config", {}).get("sync_always"):
            raise UnsafeServerError(
                f"the server {name} acknowledges what is not on its disk: set `sync_interval: always` in its jetstream block"
            )
    if len(found) <= servers.copies // 2:
        names = ", ".join(sorted(found)) or "none"
        raise UnsafeServerError(f"of at least {servers.copies} servers with JetStream only these answered: {names}")
    return sorted(found)


async def _ask_all(client: Client, subject: str, enough: int) -> dict[str, Any]:
    """The answers of all servers with JetStream by name; it waits until enough came and then a little for more."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, b'{"config":true}', reply=inbox)
    found: dict[str, Any] = {}
    until = time.monotonic() + CHECK_S
    while (left := until - time.monotonic()) > 0:
        try:
            message = await subscription.next_msg(left)
        except NatsError:
            break
        answer = json.loads(message.data or b"{}")
        if "data" in answer and not answer["data"].get("disabled"):
            found[answer["server"]["name"]] = answer["data"]
        if len(found) >= enough:
            until = min(until, time.monotonic() + 0.25)
    return found


async def patiently(ask: Callable[[], Awaitable[Answer]], limit_s: float = PATIENCE_S) -> Answer:
    """Ask the servers until they answer: while they have no leader they do not. Raises what the last try raised."""
    until = time.monotonic() + limit_s
    while True:
        try:
            return await ask()
        except NotFoundError:
            raise
        except (NatsError, OSError, TimeoutError):
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.2)


async def make_streams(client: Client, shard: Shard, copies: int) -> None:
    """Make a shard's streams and its buckets, where they are not there yet. May be repeated."""
    stream = client.jetstream(timeout=REQUEST_S)
    for name, subject in ((shard.input, shard.input_subject), (shard.journal, shard.journal_subject)):
        config = StreamConfig(
            name=name, subjects=[subject], retention=RetentionPolicy.LIMITS, storage=StorageType.FILE,
            discard=DiscardPolicy.NEW, num_replicas=copies, max_consumers=-1, max_msgs=-1, max_bytes=-1, max_age=0,
            deny_delete=True, allow_direct=True,
        )  # fmt: skip
        with contextlib.suppress(NotFoundError):
            await stream.stream_info(name)
            continue
        await stream.add_stream(config)
    try:
        await stream.object_store(shard.snapshots)
    except (BucketNotFoundError, NotFoundError):
        await stream.create_object_store(
            shard.snapshots, ObjectStoreConfig(bucket=shard.snapshots, replicas=copies, storage=StorageType.FILE)
        )
    try:
        await stream.key_value(shard.marks)
    except (BucketNotFoundError, NotFoundError):
        await stream.create_key_value(KeyValueConfig(shard.marks, replicas=copies, storage=StorageType.FILE))


async def join(servers: Servers, shard: Shard, name: str) -> Client:
    """Check the servers, connect to them, and see to it that the shard's streams are there.

    Raises UnsafeServerError, nats.errors.Error, OSError.
    """
    await check_servers(servers)
    client = await servers.connect(name)
    await patiently(lambda: make_streams(client, shard, servers.copies))
    return client


async def snapshot_bucket(client: Client, shard: Shard) -> ObjectStore:
    """Where a shard's snapshots are."""
    return await patiently(lambda: client.jetstream(timeout=REQUEST_S).object_store(shard.snapshots))


async def marks_bucket(client: Client, shard: Shard) -> KeyValue:
    """Where a shard's readers say how far they are. Raises nats.errors.Error."""
    return await client.jetstream(timeout=REQUEST_S).key_value(shard.marks)


async def ends_of(client: Client, stream: str) -> tuple[int, int]:
    """The sequences of a stream's first and last message; of an empty one, the first is the one above the last."""
    info = await patiently(lambda: client.jetstream(timeout=REQUEST_S).stream_info(stream))
    return max(int(info.state.first_seq), 1), int(info.state.last_seq)


async def head_of(client: Client, stream: str) -> int:
    """The sequence of a stream's last message, 0 when it has none."""
    return (await ends_of(client, stream))[1]


class Stored(NamedTuple):
    """A message of a stream: its place, when the stream's leader stored it, and how many were behind it then."""

    seq: int
    stored_ns: int
    data: bytes
    behind: int


class Reader:
    """A stream's messages in order, each once, from `after` + 1 on, whatever becomes of servers and connections."""

    def __init__(self, client: Client, stream: str, after: int = 0) -> None:
        self.after = after  # the last one that was handed out or waits to be
        self._client = client
        self._stream = stream
        self._arrived = asyncio.Event()
        self._waiting: list[Stored] = []
        self._consumed = 0  # of this consumer
        self._hole_at = 0  # a message before which some are missing, and were looked for
        self._round = 0
        self._heard = 0.0
        self._broken = True
        self._checked = False  # whether the stream was seen to begin where it must
        self._short_since: float | None = None  # when the stream was first seen to end before `after`
        self._failure: Exception | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._subscription: Any = None

    async def start(self) -> None:
        """Begin to read, and go on until `stop`."""
        self._watcher = asyncio.create_task(self._watch(), name=f"read {self._stream}")

    async def stop(self) -> None:
        """Let go. What was not read is dropped."""
        if self._watcher is not None:
            await end([self._watcher])
        await self._drop()

    async def read(self, most: int = 4_096) -> list[Stored]:
        """What has arrived, at least one message and at most so many. Raises TrimmedError, LostError."""
        while self._failure is not None or not self._checked or not self._waiting:
            if self._failure is not None:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()
        found, self._waiting = self._waiting[:most], self._waiting[most:]
        return found

    def unread(self, found: list[Stored]) -> None:
        """Put back what `read` gave, to be read again."""
        self._waiting[:0] = found

    @property
    def waits(self) -> bool:
        """Whether messages have arrived that were not read."""
        return bool(self._waiting)

    async def _watch(self) -> None:
        while True:
            if self._broken or time.monotonic() - self._heard > SILENCE_S:
                try:
                    await self._begin()
                except (TrimmedError, LostError) as error:
                    self._failure = error
                    self._arrived.set()
                    return
                except (NatsError, OSError, TimeoutError) as error:
                    log.info("cannot read %s yet: %r", self._stream, error)
            await asyncio.sleep(HEARTBEAT_S / 2)

    async def _begin(self) -> None:
        """A consumer of our own, from the next message on."""
        await self._drop()
        self._round += 1
        self._consumed, self._broken, self._checked, self._heard = 0, True, False, time.monotonic()
        after = self.after
        inbox = self._client.new_inbox()
        stream = self._client.jetstream(timeout=REQUEST_S)
        self._subscription = await self._client.subscribe(inbox, cb=partial(self._take, self._round))
        self._broken = False
        try:
            await stream.add_consumer(self._stream, _consumer(inbox, after))
            info = await stream.stream_info(self._stream)
        except BaseException:
            self._broken = True
            raise
        if info.state.first_seq > after + 1:
            raise TrimmedError(f"{self._stream} begins with message {info.state.first_seq}, {after + 1} is needed")
        self._look_at_end(info.state.last_seq, after)
        self._checked = True
        self._arrived.set()

    def _look_at_end(self, last_seq: int, after: int) -> None:
        """Raises LostError when the stream has ended before what was read of it for a while."""
        if last_seq >= after:
            self._short_since = None
            return
        self._broken = True  # look again
        self._short_since = self._short_since or time.monotonic()
        if time.monotonic() - self._short_since > LOST_S:
            raise LostError(f"{self._stream} ends with message {last_seq}; {after} was read of it")

    async def _drop(self) -> None:
        self._round += 1
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(NatsError, OSError):
                await subscription.unsubscribe()

    async def _take(self, of_round: int, message: Msg) -> None:
        if of_round != self._round:
            return
        self._heard = time.monotonic()
        if message.headers is not None and "Status" in message.headers:
            if message.reply:  # flow control: the server waits for an answer before it sends more
                await self._client.publish(message.reply)
            return
        tokens = message.reply.split(".")
        stream_seq, consumer_seq, stored_ns, behind = (int(token) for token in tokens[-4:])
        if consumer_seq != self._consumed + 1 or stream_seq <= self.after:
            self._broken = True  # some were lost on the way
            self._round += 1
            return
        if stream_seq not in (self.after + 1, self._hole_at):
            self._broken, self._hole_at = True, stream_seq  # the stream may have been trimmed under the consumer
            self._round += 1
            return
        self._consumed, self.after = consumer_seq, stream_seq
        self._waiting.append(Stored(stream_seq, stored_ns, message.data, behind))
        self._arrived.set()


def _consumer(inbox: str, after: int) -> ConsumerConfig:
    return ConsumerConfig(
        deliver_subject=inbox, deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1,
        ack_policy=AckPolicy.NONE, flow_control=True, idle_heartbeat=HEARTBEAT_S, mem_storage=True, num_replicas=1,
        inactive_threshold=30.0,
    )  # fmt: skip


class PublishError(LogError):
    """A message was not stored. `code` is the server's error code, 0 when no server spoke for the stream."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


class Publisher:
    """Messages to streams, in the order of the calls, many under way at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._count = 0
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._subscription: Any = None

    async def start(self) -> None:
        """Be ready to hear acknowledgements."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._acknowledged)

    async def stop(self) -> None:
        """What is under way stays unknown."""
        if self._subscription is not None:
            with contextlib.suppress(NatsError, OSError):
                await self._subscription.unsubscribe()
        self.forget()

    def forget(self) -> None:
        """Wait no more for what is under way."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.cancel()

    async def send(self, subject: str, data: bytes, expected_last: int | None = None) -> "asyncio.Future[int]":
        """Send; the future is the message's place in its stream, or PublishError. It may never be done.

        Nothing is sent while there is no connection: it would arrive when nobody knows any more what it was for.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        if not self._client.is_connected:
            future.set_exception(PublishError(0, "there is no connection"))
            return future
        self._count += 1
        token = f"{self._inbox}.{self._count}"
        self._waiting[token] = future
        headers = None if expected_last is None else {EXPECTED_LAST: str(expected_last)}
        await self._client.publish(subject, data, reply=token, headers=headers)
        return future

    async def _acknowledged(self, message: Msg) -> None:
        future = self._waiting.pop(message.subject, None)
        if future is None or future.done():
            return
        if message.headers is not None and message.headers.get("Status") == "503":
            future.set_exception(PublishError(0, "no server speaks for the stream"))
            return
        answer = json.loads(message.data)
        if "error" in answer:
            error = answer["error"]
            future.set_exception(PublishError(error.get("err_code", 0), error.get("description", "not stored")))
        else:
            future.set_result(int(answer["seq"]))


def place_of(future: "asyncio.Future[int] | None") -> int | None:
    """Where a message that was sent stands in its stream, None while no server has said so."""
    if future is None or not future.done() or future.cancelled() or future.exception() is not None:
        return None
    return future.result()


def _seen(future: "asyncio.Future[int]") -> None:
    """Look at the exception, so that nobody has to."""
    if not future.cancelled():
        future.exception()
