"""The client library: trade, watch books, follow your account, and never mind the connection.

    async with Client("ws://127.0.0.1:8765", key="mm7", private_key=secret) as client:
        book = await client.book("H100S-USE-H26112214")
        ack = await client.place("H100S-USE-H26112214", "buy", qty=12, px="2.435", tif="ioc")
        async for event in client.events():
            match event:
                case Fill(sym=sym, px=px, qty=qty): ...

A lost connection is made again with growing pauses; then the client logs on, subscribes and resumes its private events
where they stopped. Requests that were under way are sent again, which is safe: orders carry a `cid` that the server
remembers. Only a `cancel_all` is not repeated, because it could hit newer orders: it raises OutcomeUnknown.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from types import TracebackType
from typing import Any, Literal, Self, Unpack, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from gateway.auth import generate_key, public_key, read_private_key, sign
from gateway.messages import Close, Code
from wellhead.account import AccountRequests
from wellhead.book import L2, Book
from wellhead.feed import Feed
from wellhead.queue_book import L3, QueueBook
from wellhead.types import (
    AmendOrder,
    AnyEvent,
    Balance,
    BookOutOfSync,
    CancelOrder,
    Disconnected,
    Instrument,
    InstrumentEvent,
    Ladder,
    LadderAck,
    LogonRefused,
    Marks,
    NewOrder,
    Order,
    OrderAck,
    OrderStatus,
    OutcomeUnknown,
    Position,
    Price,
    Protections,
    QuoteAck,
    Rejected,
    SessionReplaced,
    Side,
    Snapshot,
    Terms,
    TimeInForce,
    Trade,
    WellheadError,
)
from wellhead.updates import UPDATES, ChannelName
from wellhead.wire import Codec, FormatName, Message, QuoteMarks, WireError

__all__ = ["Client", "generate_key", "public_key"]

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
MAX_CHANNEL_SYMBOLS = 500  # in one message, to stay below the server's limit
ALL = "*"


class _Hello(Struct):
    challenge: str
    ts: int


class _LogonResult(Struct):
    account: str
    scopes: list[str]
    aseq: int
    resumed: bool | UnsetType = UNSET


class _Orders(Struct):
    orders: list[Order]


class _Positions(Struct):
    positions: list[Position]


class _Balances(Struct):
    balances: Balance


class _Instruments(Struct):
    instruments: list[Instrument]


class _Canceled(Struct):
    canceled: int


class _Item(Struct):
    ok: bool
    aseq: int | None = None
    dup: bool = False
    r: OrderAck | None = None
    err: WireError | None = None


class _Items(Struct):
    items: list[_Item]


class _Quote(Struct):
    act: Literal["new", "same", "replaced", "canceled", "none", "refused"]
    oid: int | None = None
    left: int = 0
    cum: int = 0
    st: OrderStatus | None = None
    kept: bool | None = None
    err: WireError | None = None


class _Ladder(Struct):
    sym: str
    b: list[_Quote]
    a: list[_Quote]


class _Quotes(Struct):
    quotes: list[_Ladder]


class _CancelAfter(Struct):
    at: int | None


class _Unknown(Struct):
    """A private event of a kind that is not known here."""

    aseq: int


EVENTS = frozenset(event.__struct_config__.tag for event in get_args(AnyEvent))


class _Trades(Struct):
    sym: str
    ev: str
    seq: int
    t: list[Trade]


@dataclass(slots=True)
class _Call:
    """A request that waits for its reply."""

    data: bytes
    reply: "asyncio.Future[Message]"
    repeat: bool  # may be sent again on a new connection
    sent: bool = False


class Client(AccountRequests):
    """A connection to the exchange that mends itself. Use it as an async context manager.

    Without a key it has public market data only. `format` is "json" or "msgpack". `cod` asks for cancel on disconnect,
    `grace_ms` for how long the orders wait for a reconnect. `timeout_s` is how long a request may take, reconnects
    included. `ssl` is for a `wss://` exchange whose certificate is not publicly trusted:
    `ssl.create_default_context(cafile="cert.pem")`. Every method raises a WellheadError with `code`, `name` and `message`;
    prices are str, Decimal or int.
    """

    def __init__(  # noqa: PLR0913
        self,
        url: str,
        *,
        key: str | None = None,
        private_key: str | None = None,
        format: FormatName = "json",
        cod: bool | None = None,
        grace_ms: int = 0,
        timeout_s: float = 10.0,
        reconnect: bool = True,
        feed_limit: int = 100_000,
        ssl: SSLContext | None = None,
    ) -> None:
        if (key is None) != (private_key is None):
            raise ValueError("key and private_key go together")
        self.url = url
        self.account: str | None = None
        self.scopes: list[str] = []
        self.reconnects = 0
        self._key, self._private_key = key, private_key
        self._codec = Codec(format)
        self._cod, self._grace_ms = cod, grace_ms
        self._timeout_s = timeout_s
        self._reconnect = reconnect
        self._feed_limit = feed_limit
        self._tls: dict[str, Any] = {} if ssl is None else {"ssl": ssl}
        self._ids = itertools.count(1)
        self._cid_prefix = secrets.token_hex(6)
        self._cids = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        self._socket: ClientConnection | None = None
        self._ready = asyncio.Event()
        self._ended: WellheadError | None = None
        self._runner: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._channels: dict[str, dict[str, dict[str, Any]]] = {}  # channel -> symbol -> its fields
        self._books: dict[str, Book] = {}
        self._trade_feeds: dict[str, set[Feed[Trade]]] = {}
        self._last_tid: dict[str, int] = {}
        self._trade_snapshots: dict[str, list[asyncio.Future[list[Trade]]]] = {}
        self._queue_books: dict[str, QueueBook] = {}
        self._update_feeds: dict[str, dict[str, set[Feed[Any]]]] = {}  # channel -> symbol -> its readers
        self._listing_feeds: set[Feed[InstrumentEvent]] = set()
        self._event_feeds: set[Feed[AnyEvent]] = set()
        self._aseq: int | None = None  # of the last private event
        self._handlers: dict[str, Callable[[bytes, Message], None]] = {
            "l2": self._on_l2,
            "trades": self._on_trades,
            "instruments": self._on_instruments,
            "private": self._on_private,
            "l3": self._on_l3,
            **dict.fromkeys(UPDATES, self._on_update),
        }

    @classmethod
    def from_key_file(cls, url: str, path: str | Path, **options: Any) -> Self:
        """A client with the key that `wellhead keys` wrote to a file."""
        key, private_key = read_private_key(Path(path))
        return cls(url, key=key, private_key=private_key, **options)

    # --- Life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._runner = asyncio.create_task(self._run(first))
        try:
            await first
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close for good. With cancel on disconnect the server cancels the orders when the grace has passed."""
        self._end(Disconnected(0, "CLOSED", "the client is closed"))
        if self._socket is not None:
            await self._socket.close()
        for task in (*self._tasks, *([self._runner] if self._runner else [])):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, WellheadError):
                await task

    async def logout(self, *, keep: bool = False) -> int:
        """End the session; returns how many orders were cancelled with it. `keep` leaves them working."""
        self._reconnect = False
        result = await self._ask({"op": "session.logout", "keep": keep}, _Canceled, repeat=False)
        await self.close()
        return int(result.canceled)

    @property
    def connected(self) -> bool:
        """Whether requests can go out now."""
        return self._ready.is_set()

    # --- Orders -------------------------------------------------------------------------------------------------------

    async def place(  # noqa: PLR0913
        self,
        sym: str,
        side: Side,
        qty: int,
        px: Price | None = None,
        *,
        tif: TimeInForce | None = None,
        post_only: bool = False,
        cid: str | None = None,
        cod: bool = True,
        **terms: Unpack[Terms],
    ) -> OrderAck:
        """Send an order and wait for what became of it. Without `px` it is a market order, with `stop` a stop (a stop-limit
        order if there is a `px`). The other `terms` are those of NewOrder. Raises Rejected.
        """
        order = NewOrder(sym, side, qty, px, tif, post_only, cid or self._new_cid(), cod, **terms)
        return await self._order(self._codec.place(order))

    async def amend(  # noqa: PLR0913
        self,
        oid: int | None = None,
        *,
        cid: str | None = None,
        px: Price | None = None,
        qty: int | None = None,
        stop: Price | None = None,
        deadline: int | None = None,
    ) -> OrderAck:
        """Change the price or the total quantity (fills included), or the trigger of a stop. `kept` says whether it kept its
        place.
        """
        return await self._order(self._codec.amend(AmendOrder(oid, cid, px, qty, stop, deadline)))

    async def cancel(self, oid: int | None = None, *, cid: str | None = None) -> OrderAck:
        """Cancel an order. One that is finished already is no error: the answer is its final state."""
        return await self._order(self._codec.cancel(CancelOrder(oid, cid)))

    async def cancel_all(
        self,
        sym: str | None = None,
        side: Side | None = None,
        *,
        tag: int | None = None,
        group: int | None = None,
        lock: bool = False,
    ) -> int:
        """Cancel all orders of the account, or those that fit all that is given; returns how many. `lock` refuses new ones
        until an administrator unlocks the account.
        """
        given = {"sym": sym, "side": side, "tag": tag, "group": group, "lock": lock or None}
        fields = {name: value for name, value in given.items() if value is not None}
        return int((await self._ask({"op": "cancel.mass", **fields}, _Canceled, repeat=False)).canceled)

    async def quote(self, group: int, ladders: Sequence[Ladder], **marks: Unpack[Marks]) -> list[LadderAck]:
        """Bring the quotes of a group to these ladders: what is the same keeps its place, what is quoted beyond is cancelled.
        `marks` are `post_only`, `slide`, `stp`, `stp_group` and `deadline`. Needs a key with the scope `quote`.
        """
        # Sent again it would come to the same, but it could undo what a newer one said.
        fields = self._codec.quote(group, ladders, QuoteMarks(**marks))
        _, result = await self._call(fields, _Quotes, repeat=False)
        return [LadderAck(one.sym, list(map(_quoted, one.b)), list(map(_quoted, one.a))) for one in result.quotes]

    async def cancel_after(self, ms: int, *, tag: int | None = None) -> int | None:
        """Have the account's orders, or those with a tag, cancelled in `ms` unless this is called again before; 0: never.
        Returns when, in the market's microseconds.
        """
        fields = {"op": "cancel_after", "ms": ms} | ({} if tag is None else {"tag": tag})
        at: int | None = (await self._ask(fields, _CancelAfter)).at
        return at

    async def set_mmp(self, group: int, *, lots: int, fills: int, window_ms: int, freeze_ms: int = 0) -> None:
        """Protect a group: when its resting orders traded so many lots or fills in the window, all of them are cancelled and
        new ones refused for `freeze_ms`, or until `reset_mmp`. At most 64 fills and an hour.
        """
        fields: dict[str, Any] = {"op": "mmp.set", "group": group, "lots": lots, "fills": fills, "window_ms": window_ms}
        if freeze_ms:
            fields["freeze_ms"] = freeze_ms
        await self._ask(fields, Any)

    async def reset_mmp(self, group: int, *, off: bool = False) -> None:
        """Take the group's orders again; with `off` protect it no more."""
        await self._ask({"op": "mmp.reset", "group": group, "off": off}, Any)

    async def protections(self) -> Protections:
        """Market-maker protection and dead man's switches as they stand."""
        result: Protections = await self._ask({"op": "protections"}, Protections)
        return result

    async def batch(self, items: Sequence[NewOrder | AmendOrder | CancelOrder]) -> list[OrderAck | WellheadError]:
        """Many at once, done in order. Each has its own result; a refused one is a Rejected in the list."""
        encoded = [self._item(item) for item in items]
        message, result = await self._call({"op": "order.batch", "items": encoded}, _Items, repeat=True)
        return [_ack(item.r, message, item) if item.r else _rejected(item.err) for item in result.items]

    def _item(self, item: NewOrder | AmendOrder | CancelOrder) -> dict[str, Any]:
        if isinstance(item, NewOrder):
            return {"cid": self._new_cid(), **self._codec.place(item)}
        return self._codec.amend(item) if isinstance(item, AmendOrder) else self._codec.cancel(item)

    async def _order(self, fields: dict[str, Any]) -> OrderAck:
        message, result = await self._call(fields, OrderAck, repeat=True)
        return _ack(result, message, message)

    def _new_cid(self) -> str:
        return f"{self._cid_prefix}-{next(self._cids)}"

    # --- Questions ----------------------------------------------------------------------------------------------------

    async def orders(self, sym: str | None = None) -> list[Order]:
        """The account's working orders."""
        fields = {"op": "orders.open"} | ({} if sym is None else {"sym": sym})
        return list((await self._ask(fields, _Orders)).orders)

    async def positions(self, sym: str | None = None) -> list[Position]:
        """The account's positions."""
        fields = {"op": "positions"} | ({} if sym is None else {"sym": sym})
        return list((await self._ask(fields, _Positions)).positions)

    async def balances(self) -> Balance:
        """The account's money."""
        result: Balance = (await self._ask({"op": "balances"}, _Balances)).balances
        return result

    async def instruments(
        self, gpu_class: str | None = None, region: str | None = None, *, closed: bool = False
    ) -> list[Instrument]:
        """What can be traded, all or of a class and region, the next hour first; with `closed` also what is past its gate,
        until it is delisted.
        """
        fields = {"op": "instruments", "class": gpu_class, "region": region, "closed": closed or None}
        fields = {name: value for name, value in fields.items() if value is not None}
        return list((await self._ask(fields, _Instruments)).instruments)

    async def request(self, op: str, *, repeat: bool = False, **fields: Any) -> dict[str, Any]:
        """Any request of docs/messages.md, for what has no method of its own; the result as plain values, as they came:
        `await client.request("admin.halt", on=True)`. Only with `repeat` it is sent again when the connection
        was lost before the answer; without, that raises OutcomeUnknown.
        """
        result: dict[str, Any] = await self._ask({"op": op, **fields}, dict[str, Any], repeat=repeat)
        return result

    # --- Streams ------------------------------------------------------------------------------------------------------

    async def book(self, sym: str, depth: Literal[10, 100, "all"] = 10) -> Book:
        """A local book that follows the market, ready to read. One symbol has one book; a new depth renews it."""
        book = self._books.get(sym)
        if book is None or book.depth != depth:
            book = self._books[sym] = Book(sym, depth)
            try:
                await self._subscribe("l2", sym, depth=depth)
            except WellheadError:
                del self._books[sym]
                raise
        return await book.wait_ready()

    async def drop_book(self, sym: str) -> None:
        """Stop following a book."""
        if self._books.pop(sym, None) is not None:
            await self._unsubscribe("l2", sym)

    async def queue_book(self, sym: str) -> QueueBook:
        """A local book with every order in its place (channel `l3`), ready to read."""
        book = self._queue_books.get(sym)
        if book is None:
            book = self._queue_books[sym] = QueueBook(sym)
            try:
                await self._subscribe("l3", sym)
            except WellheadError:
                del self._queue_books[sym]
                raise
        return await book.wait_ready()

    def updates(self, channel: ChannelName, *syms: str) -> Feed[Any]:
        """What a channel brings (wellhead/updates.py), of some symbols or of all: `async for ticker in client.updates("ticker",
        sym)`. The first of each symbol is how it stands; they begin when the first is asked for, or with `ready()`.
        """
        if channel not in UPDATES:
            raise ValueError(f"channel {channel!r}: one of {', '.join(UPDATES)}")

        async def start() -> None:
            readers = self._update_feeds.setdefault(channel, {})
            for sym in syms or (ALL,):
                readers.setdefault(sym, set()).add(feed)
                # Also where the channel is held already: a new reader, too, begins with how things stand.
                self._channels.get(channel, {}).pop(sym, None)
                await self._subscribe(channel, sym)

        def stop(feed: Feed[Any]) -> None:
            for readers in self._update_feeds.get(channel, {}).values():
                readers.discard(feed)

        feed: Feed[Any] = Feed(self._feed_limit, start, stop)
        return feed

    def trades(self, *syms: str) -> Feed[Trade]:
        """Public trades, of some symbols or of all: `async for trade in client.trades(sym)`. They begin when the first is
        asked for, or with `await client.trades(sym).ready()`.
        """

        async def start() -> None:
            for sym in syms or (ALL,):
                self._trade_feeds.setdefault(sym, set()).add(feed)
                await self._subscribe("trades", sym)

        def stop(feed: Feed[Trade]) -> None:
            for feeds in self._trade_feeds.values():
                feeds.discard(feed)

        feed: Feed[Trade] = Feed(self._feed_limit, start, stop)
        return feed

    async def recent_trades(self, sym: str) -> list[Trade]:
        """The last public trades of a symbol, oldest first: those of the snapshot that a subscription begins with."""
        waiting: asyncio.Future[list[Trade]] = asyncio.get_running_loop().create_future()
        self._trade_snapshots.setdefault(sym, []).append(waiting)
        await self._ask({"op": "subscribe", "channels": [_channel("trades", [sym], {})]}, Any)
        self._channels.setdefault("trades", {}).setdefault(sym, {})
        async with asyncio.timeout(self._timeout_s):
            return await waiting

    def listings(self) -> Feed[InstrumentEvent]:
        """All instruments now, then each listing, closing and delisting."""

        async def start() -> None:
            self._listing_feeds.add(feed)
            await self._subscribe("instruments", "")

        feed: Feed[InstrumentEvent] = Feed(self._feed_limit, start, self._listing_feeds.discard)
        return feed

    def events(self) -> Feed[AnyEvent]:
        """The account's private events from now on, none missing. Made before the client is entered, it begins with a
        Snapshot; another Snapshot comes only when the server could not make up for a lost connection.
        """
        feed: Feed[AnyEvent] = Feed(self._feed_limit, None, self._event_feeds.discard)
        if self._ended is not None:
            feed.end(self._ended)
        self._event_feeds.add(feed)
        return feed

    # --- Requests -----------------------------------------------------------------------------------------------------

    async def _ask(self, fields: dict[str, Any], kind: Any, *, repeat: bool = True) -> Any:
        return (await self._call(fields, kind, repeat=repeat))[1]

    async def _call(self, fields: dict[str, Any], kind: Any, *, repeat: bool) -> tuple[Message, Any]:
        if self._ended is not None:
            raise self._ended
        request_id = next(self._ids)
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        call = _Call(self._codec.encode({**fields, "id": request_id}), reply, repeat)
        self._calls[request_id] = call
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._ready.is_set():
                    await self._send(call)
                message = await reply
        except TimeoutError:
            raise self._timed_out(call) from None
        finally:
            self._calls.pop(request_id, None)
        if not message.ok:
            raise _rejected(message.err)
        return message, self._codec.decode(message.r or b"", kind)

    def _timed_out(self, call: _Call) -> WellheadError:
        if call.sent:
            return _unknown("no answer in time")
        return Disconnected(0, "DISCONNECTED", "no connection in time; the request was not sent")

    async def _send(self, call: _Call) -> None:
        """Send a call. When the connection breaks here, what breaks it decides what becomes of the call."""
        call.sent = True
        if self._socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(call.data, text=self._codec.is_text)

    # --- Subscriptions ------------------------------------------------------------------------------------------------

    async def _subscribe(self, name: str, sym: str, **fields: Any) -> None:
        held = self._channels.setdefault(name, {})
        if held.get(sym) == fields and sym in held:
            return
        before = held.get(sym)
        held[sym] = fields
        try:
            await self._ask({"op": "subscribe", "channels": [_channel(name, [sym], fields)]}, Any)
        except WellheadError:
            held.pop(sym, None)
            if before is not None:
                held[sym] = before
            raise

    async def _unsubscribe(self, name: str, sym: str) -> None:
        if self._channels.get(name, {}).pop(sym, None) is not None:
            await self._ask({"op": "unsubscribe", "channels": [_channel(name, [sym], {})]}, Any)

    def _later(self, work: Any) -> None:
        """Do something without waiting for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- The connection -----------------------------------------------------------------------------------------------

    async def _run(self, first: "asyncio.Future[None]") -> None:
        """Connect, and again, until closed or told not to."""
        pause_s = FIRST_PAUSE_S
        while self._ended is None:
            error: WellheadError
            try:
                await self._connection(first)
                pause_s = FIRST_PAUSE_S
                error = self._why_closed()
            except WellheadError as refusal:
                error = refusal
            except (OSError, InvalidHandshake, InvalidURI, ConnectionClosed, msgspec.DecodeError) as failure:
                error = Disconnected(0, "DISCONNECTED", f"{self.url}: {failure!r}")
            self._disconnected()
            given_up = isinstance(error, LogonRefused | SessionReplaced) or not self._reconnect
            if not first.done():
                first.set_exception(error)
                self._end(error)
            elif given_up:
                self._end(error)
            elif self._ended is None:
                self.reconnects += 1
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    async def _connection(self, first: "asyncio.Future[None]") -> None:
        """One connection: greet, log on, subscribe, repeat what was under way, then read until it ends."""
        async with connect(
            self.url,
            subprotocols=[Subprotocol(self._codec.format)],
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            open_timeout=self._timeout_s,
            **self._tls,
        ) as socket:
            self._socket = socket
            hello: _Hello = self._codec.decode(await socket.recv(decode=False), _Hello)
            reader = asyncio.create_task(self._read(socket))
            try:
                await self._greet(hello)
                self._ready.set()
                for call in list(self._calls.values()):
                    await self._send(call)
                if not first.done():
                    first.set_result(None)
                await reader
            finally:
                reader.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reader

    async def _greet(self, hello: _Hello) -> None:
        if self._key is not None and self._private_key is not None:
            await self._log_on(hello, self._key, self._private_key)
        books: list[Book | QueueBook] = [*self._books.values(), *self._queue_books.values()]
        for book in books:
            book.ready = False
        channels: list[dict[str, Any]] = []
        for name, held in self._channels.items():
            for sym, fields in held.items():
                channels.append(_channel(name, [sym], fields))
        for start in range(0, len(channels), MAX_CHANNEL_SYMBOLS):
            part = channels[start : start + MAX_CHANNEL_SYMBOLS]
            try:
                await self._ask_now({"op": "subscribe", "channels": part})
            except Rejected:
                await self._subscribe_one_by_one(part)

    async def _subscribe_one_by_one(self, channels: list[dict[str, Any]]) -> None:
        """Some symbol is not listed any more: keep the others."""
        for channel in channels:
            try:
                await self._ask_now({"op": "subscribe", "channels": [channel]})
            except Rejected as refusal:
                log.info("not subscribed again: %s", refusal)

    async def _log_on(self, hello: _Hello, key: str, private_key: str) -> None:
        # The server's own time is signed, so that a client with a wrong clock can log on; the challenge is what is fresh.
        fields: dict[str, Any] = {"op": "session.logon", "key": key, "ts": hello.ts, "grace_ms": self._grace_ms}
        fields["sig"] = sign(private_key, hello.challenge, key, hello.ts)
        if self._cod is not None:
            fields["cod"] = self._cod
        try:
            message = await self._ask_now(fields)
        except Rejected as refusal:
            # Only a wrong key is hopeless; a server that stops, say, may be asked again.
            kind = LogonRefused if refusal.code == Code.BAD_SIGNATURE else Disconnected
            raise kind(refusal.code, refusal.name, refusal.message, **refusal.details) from refusal
        result: _LogonResult = self._codec.decode(message.r or b"", _LogonResult)
        self.account, self.scopes = result.account, result.scopes
        if "read" in result.scopes:
            await self._subscribe_private()

    async def _subscribe_private(self) -> None:
        channel: dict[str, Any] = {"name": "private"}
        if self._aseq is not None:
            channel["resume_from"] = self._aseq + 1
        await self._ask_now({"op": "subscribe", "channels": [channel]})

    async def _ask_now(self, fields: dict[str, Any]) -> Message:
        """A request of the connection itself: it is not repeated on another one."""
        request_id = next(self._ids)
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        call = _Call(self._codec.encode({**fields, "id": request_id}), reply, repeat=False)
        self._calls[request_id] = call
        try:
            await self._send(call)
            async with asyncio.timeout(self._timeout_s):
                message = await reply
        finally:
            self._calls.pop(request_id, None)
        if not message.ok:
            raise _rejected(message.err)
        return message

    async def _read(self, socket: ClientConnection) -> None:
        """Pass on what comes, until the connection ends; then fail the calls that cannot wait for the next one."""
        try:
            while True:
                data = await socket.recv(decode=False)
                message = self._codec.decode(data, Message)
                if message.ch is None:
                    self._on_reply(message)
                else:
                    handler = self._handlers.get(message.ch)
                    if handler is not None:
                        handler(data, message)
        except ConnectionClosed:
            pass
        finally:
            self._ready.clear()
            self._fail_calls(lambda call: call.sent and not call.repeat)

    def _why_closed(self) -> WellheadError:
        code, reason = (self._socket.close_code, self._socket.close_reason) if self._socket else (None, None)
        if code == Close.REPLACED:
            return SessionReplaced(code, "REPLACED", reason or "replaced")
        if code == Close.BAD_LOGON:
            return LogonRefused(code, "BAD_LOGON", reason or "bad log-on")
        return Disconnected(code or 0, "DISCONNECTED", reason or "the connection was lost")

    def _disconnected(self) -> None:
        self._ready.clear()
        self._socket = None
        books: list[Book | QueueBook] = [*self._books.values(), *self._queue_books.values()]
        for book in books:
            book.ready = False
        self._fail_calls(lambda call: call.sent and not call.repeat)

    def _fail_calls(self, which: Callable[[_Call], bool]) -> None:
        for call in list(self._calls.values()):
            if not call.reply.done() and which(call):
                error: WellheadError = Disconnected(0, "DISCONNECTED", "the connection was lost")
                if call.sent:
                    error = _unknown("the connection was lost before the answer")
                call.reply.set_exception(error)

    def _end(self, error: WellheadError) -> None:
        """Closed for good: everybody who waits is told."""
        if self._ended is not None:
            return
        self._ended = error
        self._fail_calls(lambda _call: True)
        quiet = error if not isinstance(error, Disconnected) or error.name != "CLOSED" else None
        feeds: set[Feed[Any]] = {*self._listing_feeds, *self._event_feeds}
        for trade_feeds in self._trade_feeds.values():
            feeds |= trade_feeds
        feeds |= {feed for readers in self._update_feeds.values() for held in readers.values() for feed in held}
        for feed in feeds:
            feed.end(quiet)

    # --- What comes ---------------------------------------------------------------------------------------------------

    def _on_reply(self, message: Message) -> None:
        call = self._calls.get(message.id or 0)
        if call is not None and not call.reply.done():
            call.reply.set_result(message)

    def _on_l2(self, data: bytes, message: Message) -> None:
        book = self._books.get(message.sym or "")
        if book is None:
            return
        update: L2 = self._codec.decode(data, L2)
        try:
            book.apply(update)
        except BookOutOfSync as error:
            log.warning("%s", error)
            self._later(self._resubscribe_book(book))

    def _on_l3(self, data: bytes, message: Message) -> None:
        book = self._queue_books.get(message.sym or "")
        if book is None:
            return
        try:
            book.apply(self._codec.decode(data, L3))
        except BookOutOfSync as error:
            log.warning("%s", error)
            self._later(self._resubscribe("l3", book.sym))

    async def _resubscribe(self, channel: str, sym: str) -> None:
        with contextlib.suppress(WellheadError, TimeoutError):
            await self._ask({"op": "subscribe", "channels": [_channel(channel, [sym], {})]}, Any)

    def _on_update(self, data: bytes, message: Message) -> None:
        channel = message.ch or ""
        readers = self._update_feeds.get(channel, {})
        update = self._codec.decode(data, UPDATES[channel])
        for feed in readers.get(update.sym, set()) | readers.get(ALL, set()):
            feed.put(update)

    async def _resubscribe_book(self, book: Book) -> None:
        channel = _channel("l2", [book.sym], {"depth": book.depth})
        with contextlib.suppress(WellheadError, TimeoutError):
            await self._ask({"op": "subscribe", "channels": [channel]}, Any)

    def _on_trades(self, data: bytes, _message: Message) -> None:
        update: _Trades = self._codec.decode(data, _Trades)
        for trade in update.t:
            trade.sym = update.sym
        if update.ev == "snapshot":
            for waiting in self._trade_snapshots.pop(update.sym, []):
                if not waiting.done():
                    waiting.set_result(list(update.t))
        last = self._last_tid.get(update.sym)
        self._last_tid[update.sym] = max(last or 0, update.seq)
        if last is None and update.ev == "snapshot":
            return  # trades from before anybody asked
        feeds = self._trade_feeds.get(update.sym, set()) | self._trade_feeds.get(ALL, set())
        for trade in update.t:
            if last is None or trade.tid > last:
                for feed in feeds:
                    feed.put(trade)

    def _on_instruments(self, data: bytes, _message: Message) -> None:
        event: InstrumentEvent = self._codec.decode(data, InstrumentEvent)
        for feed in self._listing_feeds:
            feed.put(event)

    def _on_private(self, data: bytes, message: Message) -> None:
        event: Any = self._codec.decode(data, AnyEvent if message.ev in EVENTS else _Unknown)
        if not isinstance(event, Snapshot):
            if self._aseq is None or event.aseq <= self._aseq:
                return  # known already, from before a snapshot
            if event.aseq != self._aseq + 1:
                self._later(self._subscribe_private())
                return
        self._aseq = event.aseq
        if isinstance(event, _Unknown):
            return  # a newer server's: it counts, and nobody here knows it
        for feed in list(self._event_feeds):
            feed.put(event)


def _quoted(row: _Quote) -> QuoteAck:
    error = _rejected(row.err) if row.err is not None else None
    return QuoteAck(
        act=row.act, oid=row.oid, left=row.left, filled=row.cum, status=row.st, kept=row.kept, error=error
    )  # fmt: skip


def _channel(name: str, syms: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    if name == "instruments":
        return {"name": name}
    return {"name": name, "symbols": ALL if syms == [ALL] else syms, **fields}


def _unknown(message: str) -> OutcomeUnknown:
    return OutcomeUnknown(Code.OUTCOME_UNKNOWN, Code.OUTCOME_UNKNOWN.name, message, final=False)


def _ack(result: OrderAck, message: Message, item: Message | _Item) -> OrderAck:
    result.aseq, result.dup = item.aseq, item.dup
    result.t_in, result.t_out = message.t_in, message.t_out
    return result


def _rejected(error: WireError | None) -> WellheadError:
    if error is None:
        return Rejected(0, "NO_REASON", "refused without a reason")
    if error.code == Code.OUTCOME_UNKNOWN:
        return OutcomeUnknown(error.code, error.name, error.msg, final=False)
    given = {name: getattr(error, name) for name in ("field", "now", "status", "retry_us", "until")}
    details = {name: value for name, value in given.items() if value is not None}
    return Rejected(error.code, error.name, error.msg, final=error.final, **details)
