"""Public channels: who holds which topic, snapshots, and what to send when a batch of events has been applied.

A topic is a channel of one symbol (and of one depth, for `l2`). Its messages form a chain: `seq` is the engine's
sequence of the last event in a message, `prev` that of the message before. Books are published once a batch at
most, after whole commands only, so a published book is never crossed. A message is encoded once for all subscribers
of a format.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.types import EVENT, EventKind, Reason
from engine.types import Status as EngineStatus
from gateway.depth import CHECKSUM_LEVELS
from gateway.fast import doors
from gateway.frames import Frames, framed
from gateway.messages import (
    L1,
    L2,
    SYMBOL_CHANNELS,
    Channel,
    Code,
    DepthName,
    Format,
    InstrumentsPush,
    InstrumentState,
    InstrumentStatus,
    Level,
    RequestError,
    Status,
    Ticker,
    TradeItem,
    Trades,
    bad_field,
    encode,
)
from gateway.private import SIDE_NAMES
from gateway.projection import Instrument, Projection
from gateway.rows import EventRow, MoneyRow
from gateway.views import Depth, DepthSide

DEPTHS: tuple[DepthName, ...] = (10, 100, "all")
DEFAULT_DEPTH: DepthName = 10
KEPT_MESSAGES = 64
"""Of each topic, for those who lost their connection for a moment."""
LINGER_S = 10
"""A topic goes on so long when nobody holds it."""
STATUS_NAMES: dict[int, InstrumentStatus] = {
    EngineStatus.CONTINUOUS: "continuous",
    EngineStatus.CLOSED: "closed",
    EngineStatus.PRE_OPEN: "pre_open",
    EngineStatus.AUCTION: "auction",
    EngineStatus.HALTED: "halted",
    EngineStatus.CANCEL_ONLY: "cancel_only",
}
NO_EVENTS = np.zeros(0, EVENT)
TopicKey = tuple[str, DepthName | None]


class Subscriber(Protocol):
    """What market data needs of a session."""

    wire: Format
    topics: "set[Topic]"

    def push_public(self, data: bytes, frame: Frames | None = None) -> None:
        """Queue an encoded message, which `frame` has framed."""

    def push_all(self, messages: list[bytes], frames: Frames) -> None:
        """Queue several at once, which `frames` has framed."""


def fan_out(message: Any, subscribers: Collection[Subscriber]) -> None:
    """Send one message to many, encoded and framed once for each format."""
    deliver({wire: encode(message, wire) for wire in {one.wire for one in subscribers}}, subscribers)


def deliver(encoded: dict[Format, bytes], subscribers: Collection[Subscriber]) -> None:
    """Send a message, in the formats of the subscribers at the least."""
    frames = {wire: framed(data, wire) for wire, data in encoded.items()}
    for subscriber in subscribers:
        subscriber.push_public(encoded[subscriber.wire], frames[subscriber.wire])


class Bundles:
    """What a publication sends, by the subscribers of its topics: whoever holds the same topics as others is handed what
    these have to say as one piece, joined once for all of them.
    """

    def __init__(self) -> None:
        self._by_crowd: dict[frozenset[Subscriber], tuple[frozenset[Subscriber], list[dict[Format, bytes]]]] = {}

    def add(self, topic: "Topic", encoded: dict[Format, bytes]) -> None:
        """A message to all who hold a topic."""
        if topic.crowd is None:
            topic.crowd = frozenset(topic.members)
        # Equal sets become one object, so that they are found equal at a glance from then on.
        topic.crowd, messages = self._by_crowd.setdefault(topic.crowd, (topic.crowd, []))
        messages.append(encoded)

    def deliver(self) -> None:
        """Hand everything over."""
        for crowd, messages in self._by_crowd.values():
            joined: dict[Format, tuple[list[bytes], Frames]] = {}
            for subscriber in crowd:
                wire = subscriber.wire
                if wire not in joined:
                    parts = [encoded[wire] for encoded in messages]
                    joined[wire] = parts, Frames(b"".join([framed(data, wire) for data in parts]))
                subscriber.push_all(*joined[wire])
        self._by_crowd.clear()


class Book:
    """What a topic shows: an instrument, its depth and its last trades."""

    def __init__(self, instrument: Instrument, depth: Depth) -> None:
        self.instrument = instrument
        self.depth = depth
        self.fresh: list[TradeItem] = []  # trades that are not published yet

    @property
    def recent(self) -> list[TradeItem]:
        """The last trades, oldest first."""
        return self.instrument.recent_trades()


class Topic:
    """One chain of messages and its holders. `seq` is that of the last message."""

    def __init__(self, channel: str, book: Book, depth: DepthName | None = None) -> None:
        self.name = f"{channel}:{book.instrument.symbol}"
        self.key: TopicKey = (channel, depth)
        self.book = book
        self.members: set[Subscriber] = set()
        self.crowd: frozenset[Subscriber] | None = None  # the members once more, None where they have changed
        self.seq = book.depth.seq
        self.wires: set[Format] = set()  # of those who hold it or held it
        self._sent: deque[tuple[int, dict[Format, bytes]]] = deque(maxlen=KEPT_MESSAGES)

    def snapshot(self) -> Any:
        """The state after the last message."""
        raise NotImplementedError

    def update(self) -> Any | None:
        """The next message, None when nothing that this topic shows has changed."""
        raise NotImplementedError

    def send(self, message: Any) -> None:
        """The next message, to all who hold the topic, and kept for those who come again."""
        deliver(self.keep(message), self.members)

    def keep(self, message: Any) -> dict[Format, bytes]:
        """The next message, encoded and kept for those who come again."""
        encoded = {wire: encode(message, wire) for wire in self.wires}
        self._sent.append((message.prev, encoded))
        return encoded

    def join(self, subscriber: Subscriber) -> None:
        """Somebody holds the topic."""
        self.members.add(subscriber)
        self.wires.add(subscriber.wire)
        self.crowd = None
        subscriber.topics.add(self)

    def part(self, subscriber: Subscriber) -> None:
        """Somebody holds it no more."""
        self.members.discard(subscriber)
        self.crowd = None
        subscriber.topics.discard(self)

    def since(self, seq: int, wire: Format) -> list[bytes] | None:
        """The messages after the one with this `seq`, None when some of them are not kept."""
        if seq == self.seq:
            return []
        first = next((place for place, (prev, _) in enumerate(self._sent) if prev == seq), None)
        if first is None:
            return None
        missed = [encoded.get(wire) for _, encoded in islice(self._sent, first, None)]
        return None if None in missed else [data for data in missed if data is not None]

    def _advance(self, seq: int) -> tuple[int, int]:
        prev, self.seq = self.seq, seq
        return seq, prev


class L1Topic(Topic):
    """Best bid and ask."""

    def __init__(self, book: Book) -> None:
        super().__init__("l1", book)
        self._shown = self._best()

    def _best(self) -> tuple[Level | None, Level | None]:
        tick, depth = self.book.instrument.tick_micros, self.book.depth
        return _level(depth.bids.best(), tick), _level(depth.asks.best(), tick)

    def _message(self, ev: Literal["snapshot", "update"], seq: int, prev: int) -> L1:
        bid, ask = self._shown
        return L1(self.book.instrument.symbol, ev, seq, prev, self.book.depth.ts_ns // 1000, bid, ask)

    def snapshot(self) -> L1:
        return self._message("snapshot", self.seq, 0)

    def update(self) -> L1 | None:
        best = self._best()
        if best == self._shown:
            return None
        self._shown = best
        return self._message("update", *self._advance(self.book.depth.seq))


class L2Topic(Topic):
    """Levels, down to a depth. A level that falls out of it is sent as removed, one that enters it as new."""

    def __init__(self, book: Book, depth: DepthName) -> None:
        super().__init__("l2", book, depth)
        self._depth: DepthName = depth
        self._count = None if depth == "all" else depth
        self._shown = (dict(book.depth.bids.top(self._count)), dict(book.depth.asks.top(self._count)))

    def snapshot(self) -> L2:
        tick, depth = self.book.instrument.tick_micros, self.book.depth
        bids, asks = depth.bids.top(self._count), depth.asks.top(self._count)
        return L2(
            self.book.instrument.symbol, "snapshot", self._depth, self.seq, 0, depth.ts_ns // 1000,
            [(p * tick, q) for p, q in bids], [(p * tick, q) for p, q in asks], depth.checksum(tick),
        )  # fmt: skip

    def update(self) -> L2 | None:
        tick, depth = self.book.instrument.tick_micros, self.book.depth
        bids, asks = self._changes(0, depth.bids), self._changes(1, depth.asks)
        if not bids and not asks:
            return None
        seq, prev = self._advance(depth.seq)
        return L2(
            self.book.instrument.symbol, "delta", self._depth, seq, prev, depth.ts_ns // 1000,
            [(p * tick, q) for p, q in bids], [(p * tick, q) for p, q in asks], depth.checksum(tick),
        )  # fmt: skip

    def _changes(self, index: int, side: DepthSide) -> list[tuple[int, int]]:
        """The levels to send, best first; what is shown afterwards is up to date."""
        shown = self._shown[index]
        if self._count is None:
            changed = side.changed
            lots_at = side.lots if changed else {}
            changes = {price: lots_at.get(price, 0) for price in changed}
            changes = {price: lots for price, lots in changes.items() if shown.get(price, 0) != lots}
        else:
            is_near = self._count == CHECKSUM_LEVELS
            now = dict(self.book.depth.near()[index] if is_near else side.top(self._count))
            if now == shown:
                return []
            changes = {price: lots for price, lots in now.items() if shown.get(price) != lots}
            changes |= {price: 0 for price in shown if price not in now}
        for price, lots in changes.items():
            if lots:
                shown[price] = lots
            else:
                del shown[price]
        return sorted(changes.items(), reverse=side.descending)


class TradesTopic(Topic):
    """Trades as they happen; the last few in the snapshot."""

    def __init__(self, book: Book) -> None:
        super().__init__("trades", book)
        self.seq = book.instrument.trade_seq

    def snapshot(self) -> Trades:
        shown = [trade for trade in self.book.recent if trade.tid <= self.seq]
        ts_us = shown[-1].ts if shown else self.book.depth.ts_ns // 1000
        return Trades(self.book.instrument.symbol, "snapshot", self.seq, 0, ts_us, shown)

    def update(self) -> Trades | None:
        # The rest has been published in the middle of the batch.
        fresh = [trade for trade in self.book.fresh if trade.tid > self.seq]
        if not fresh:
            return None
        seq, prev = self._advance(fresh[-1].tid)
        return Trades(self.book.instrument.symbol, "trades", seq, prev, fresh[-1].ts, fresh)


class TickerTopic(Topic):
    """Last price, best prices, volume."""

    def __init__(self, book: Book) -> None:
        super().__init__("ticker", book)
        self.seq = max(book.depth.seq, book.instrument.trade_seq)
        self._shown = self._now()

    def _now(self) -> tuple[int | None, int | None, int | None, int]:
        instrument, tick = self.book.instrument, self.book.instrument.tick_micros
        bid, ask = self.book.depth.bids.best(), self.book.depth.asks.best()
        last = instrument.last_price * tick if instrument.last_price >= 0 else None
        return last, bid and bid[0] * tick, ask and ask[0] * tick, instrument.volume_lots

    def _message(self, ev: Literal["snapshot", "update"], seq: int, prev: int) -> Ticker:
        return Ticker(self.book.instrument.symbol, ev, seq, prev, self.book.depth.ts_ns // 1000, *self._shown)

    def snapshot(self) -> Ticker:
        return self._message("snapshot", self.seq, 0)

    def update(self) -> Ticker | None:
        now = self._now()
        if now == self._shown:
            return None
        self._shown = now
        return self._message("update", *self._advance(max(self.book.depth.seq, self.book.instrument.trade_seq)))


StatusEvent = Literal["snapshot", "change", "indication", "auction"]


class StatusTopic(Topic):
    """Where the instrument stands. Changes are sent by MarketData itself, when they happen."""

    def __init__(self, book: Book, projection: Projection) -> None:
        super().__init__("status", book)
        self.seq = book.instrument.status_seq
        self._projection = projection

    def message(self, ev: StatusEvent, ts_us: int, status: InstrumentStatus) -> Status:
        """A snapshot, or the change that has just happened."""
        seq, prev = (self.seq, 0) if ev == "snapshot" else self._advance(self.book.instrument.status_seq)
        message = Status(self.book.instrument.symbol, ev, seq, prev, ts_us, status)
        if self._projection.halted:
            message.halted = True
        return message

    def snapshot(self) -> Status:
        return self.message("snapshot", self.book.depth.ts_ns // 1000, status_of(self.book.instrument))

    def update(self) -> None:
        return None


class Selection(NamedTuple):
    """A standing wish: a channel for all symbols of a class and region (None: any), also those listed later."""

    channel: str
    depth: DepthName | None
    class_id: int | None
    region_id: int | None

    def wants(self, instrument: Instrument) -> bool:
        return self.class_id in (None, instrument.class_id) and self.region_id in (None, instrument.region_id)


class MarketState(Struct):
    """What of market data is stored; the rest follows from the projection."""

    instruments_seq: int


class MarketData:
    """All topics. `collect` each event, then `publish` at the end of the batch."""

    def __init__(self, projection: Projection, catalogue: Catalogue, max_topics: int) -> None:
        self.instruments_seq = 0
        self.instrument_watchers: set[Subscriber] = set()
        self._projection = projection
        self._catalogue = catalogue
        self._max_topics = max_topics
        self._books: dict[int, Book] = {}
        self._topics: dict[int, dict[TopicKey, Topic]] = {}
        self._trades = NO_EVENTS  # of the batch at hand
        self._by_instrument: dict[int, list[tuple[int, ...]]] | None = None  # the same, once they are looked at
        self._selections: dict[Subscriber, set[Selection]] = {}
        self._idle: dict[Topic, int] = {}  # held by nobody -> seconds to go
        self.makers: dict[str, Callable[[Book], Topic]] = {  # of channels without a depth; others may add theirs
            "l1": L1Topic,
            "trades": TradesTopic,
            "ticker": TickerTopic,
            "status": lambda book: StatusTopic(book, projection),
        }

        self._followers: dict[int, Callable[[EventRow], None]] = {
            EventKind.TRADE: self._trade,
            EventKind.LISTED: self._listed,
            EventKind.CLOSED: self._closed,
            EventKind.DELISTED: self._delisted,
            EventKind.STATUS_CHANGED: self._moved,
            EventKind.AUCTION_PRICE: self._auction,
            EventKind.BAND_SET: lambda event: self._announce("changed", event, self._book(event.instrument).instrument),
            EventKind.EXCHANGE_HALTED: self._halted,
            EventKind.EXCHANGE_RESUMED: self._halted,
        }

    # --- Following the log --------------------------------------------------------------------------------------------

    def collect(self, event: EventRow | MoneyRow) -> None:
        """After the projection followed the event."""
        if not isinstance(event, EventRow):
            return
        if (follow := self._followers.get(event.kind)) is not None:
            follow(event)

    def publish(self) -> None:
        """Send what changed in each book since the last time. Only after whole commands."""
        self._publish(self._projection.moved())
        self._projection.settle()
        self._trades, self._by_instrument = NO_EVENTS, None

    def _publish(self, numbers: Iterable[int]) -> None:
        bundles = Bundles()
        for number in numbers:
            if number in self._topics:
                self._collect(number, bundles)
        bundles.deliver()

    def _collect(self, number: int, bundles: Bundles) -> None:
        book = self._book(number)
        topics = self._topics.get(number, {})
        if ("trades", None) in topics and len(self._trades):
            book.fresh = self._fresh(book.instrument)
        for topic in topics.values():
            message = topic.update()
            if message is not None:
                bundles.add(topic, topic.keep(message))
        book.fresh.clear()

    def begin(self, trades: NDArray[np.void]) -> None:
        """Before a batch is followed: the trades (EVENT) it brings."""
        self._trades, self._by_instrument = trades, None

    def _fresh(self, instrument: Instrument) -> list[TradeItem]:
        """The batch's trades of an instrument."""
        if self._by_instrument is None:
            self._by_instrument = by_instrument(self._trades)
        tick, listed_seq = instrument.tick_micros, instrument.listed_seq  # the number may have been another's before
        return [
            TradeItem(seq, price * tick, qty, SIDE_NAMES[side], ts_ns // 1000)
            for seq, price, qty, side, ts_ns in self._by_instrument.get(instrument.number, ())
            if seq > listed_seq
        ]

    def _trade(self, event: EventRow) -> None:
        tables = self._projection.tables
        tables.do(doors.RECORD_TRADE, event.instrument, event.seq, event.price, event.qty, event.side, event.ts_ns)

    def _listed(self, event: EventRow) -> None:
        instrument = self._book(event.instrument).instrument
        self._announce("listed", event, instrument)
        for subscriber, selections in self._selections.items():
            for selection in selections:
                if selection.wants(instrument) and len(subscriber.topics) < self._max_topics:
                    topic = self._join(subscriber, instrument, selection.channel, selection.depth)
                    subscriber.push_public(encode(topic.snapshot(), subscriber.wire))

    def _closed(self, event: EventRow) -> None:
        self._publish((event.instrument,))
        self._change_status(event, self._book(event.instrument).instrument, "closed")

    def _delisted(self, event: EventRow) -> None:
        instrument = self._projection.retired[-1]
        self._change_status(event, instrument, "delisted")
        for topic in self._topics.pop(event.instrument, {}).values():
            for member in topic.members:
                member.topics.discard(topic)
        self._books.pop(event.instrument, None)

    def _moved(self, event: EventRow) -> None:
        instrument = self._book(event.instrument).instrument
        if instrument.status == EngineStatus.CONTINUOUS:
            self._publish((event.instrument,))  # it is no longer crossed
        if (topic := self._status_topic(event.instrument)) is not None:
            message = topic.message("change", event.ts_ns // 1000, status_of(instrument))
            message.why = "collar" if event.reason == Reason.COLLAR else "by_request"
            topic.send(message)
        self._announce("changed", event, instrument)

    def _auction(self, event: EventRow) -> None:
        if (topic := self._status_topic(event.instrument)) is None:
            return
        instrument = topic.book.instrument
        ev: StatusEvent = "indication" if event.reason == Reason.INDICATIVE else "auction"
        message = topic.message(ev, event.ts_ns // 1000, status_of(instrument))
        message.px = event.price * instrument.tick_micros if event.qty else None
        message.qty, message.surplus = event.qty, event.leaves_qty
        topic.send(message)

    def _halted(self, event: EventRow) -> None:
        for number, instrument in self._projection.instruments.items():
            if (topic := self._status_topic(number)) is not None:
                topic.send(topic.message("change", event.ts_ns // 1000, status_of(instrument)))

    def _status_topic(self, number: int) -> StatusTopic | None:
        topic = self._topics.get(number, {}).get(("status", None))
        return topic if isinstance(topic, StatusTopic) else None

    def _change_status(self, event: EventRow, instrument: Instrument, status: Literal["closed", "delisted"]) -> None:
        if (topic := self._status_topic(event.instrument)) is not None:
            topic.send(topic.message("change", event.ts_ns // 1000, status))
        self._announce(status, event, instrument)

    def _announce(
        self, ev: Literal["listed", "changed", "closed", "delisted"], event: EventRow, instrument: Instrument
    ) -> None:
        prev, self.instruments_seq = self.instruments_seq, event.seq
        if self.instrument_watchers:
            state = self.instrument_state(instrument)
            if ev == "delisted":
                state.status = "delisted"
            message = InstrumentsPush(ev, event.seq, prev, event.ts_ns // 1000, [state])
            fan_out(message, self.instrument_watchers)

    def _book(self, number: int) -> Book:
        found = self._books.get(number)
        if found is None:
            projection = self._projection
            found = self._books[number] = Book(projection.instruments[number], projection.books[number])
        return found

    # --- Subscriptions ------------------------------------------------------------------------------------------------

    def check(self, subscriber: Subscriber, channels: list[Channel]) -> None:
        """Raises RequestError unless all of these channels can be joined."""
        wanted = 0
        for channel in channels:
            self._depth_of(channel)
            wanted += len(self._selected(channel)[1])
        if len(subscriber.topics) + wanted > self._max_topics:
            raise RequestError(Code.TOO_LARGE, f"a session may hold {self._max_topics} topics")

    def subscribe(self, subscriber: Subscriber, channel: Channel) -> list[Topic]:
        """Join the topics of a checked channel. Their snapshots are the caller's to send, after its reply."""
        depth = self._depth_of(channel)
        selection, instruments = self._selected(channel)
        if selection is not None:
            self._selections.setdefault(subscriber, set()).add(selection)
        return [self._join(subscriber, instrument, channel.name, depth) for instrument in instruments]

    def check_names(self, channels: list[Channel]) -> None:
        """Raises RequestError unless these channels can be left: a symbol may be one that is delisted."""
        for channel in channels:
            self._selected(channel, also_unknown=True)

    def unsubscribe(self, subscriber: Subscriber, channel: Channel) -> None:
        """Leave the topics of a checked channel."""
        selection, instruments = self._selected(channel, also_unknown=True)
        if selection is not None:
            held = self._selections.get(subscriber, set())
            held -= {selection._replace(depth=depth) for depth in (None, *DEPTHS)}
        for instrument in instruments:
            self._leave(subscriber, instrument, channel.name)

    def drop(self, subscriber: Subscriber) -> None:
        """Forget a session that is gone."""
        for topic in list(subscriber.topics):
            self._part(subscriber, topic)
        self.instrument_watchers.discard(subscriber)
        self._selections.pop(subscriber, None)

    def _depth_of(self, channel: Channel) -> DepthName | None:
        if channel.name == "l2":
            return channel.depth or DEFAULT_DEPTH
        if channel.depth is not None:
            raise bad_field("depth", f"{channel.name} has no depth")
        return None

    def _selected(self, channel: Channel, also_unknown: bool = False) -> tuple[Selection | None, list[Instrument]]:
        if channel.name not in SYMBOL_CHANNELS:
            raise RequestError(Code.BAD_CHANNEL, f"there is no channel {channel.name!r}")
        if channel.resume_from is not None:
            raise bad_field("resume_from", "only `private` is resumed by number; other channels have `from`")
        if channel.held is not None and not isinstance(channel.symbols, list):
            raise bad_field("from", "it goes with a list of symbols")
        projection = self._projection
        if isinstance(channel.symbols, list):
            if channel.cls is not None or channel.region is not None:
                raise bad_field("symbols", "symbols, or a class and a region, not both")
            symbols = list(dict.fromkeys(channel.symbols))
            if also_unknown:
                symbols = [symbol for symbol in symbols if symbol in projection.instrument_by_symbol]
            return None, [projection.symbol(symbol) for symbol in symbols]
        if channel.symbols is None and channel.cls is None and channel.region is None:
            raise bad_field("symbols", 'which? a list of symbols, "*", or a class or region')
        class_id, region_id = self.class_id(channel.cls), self.region_id(channel.region)
        depth = channel.depth or DEFAULT_DEPTH if channel.name == "l2" else None
        selection = Selection(channel.name, depth, class_id, region_id)
        return selection, [found for found in projection.instruments.values() if selection.wants(found)]

    def class_id(self, name: str | None) -> int | None:
        """The id of a class; None for None. Raises RequestError."""
        if name is None:
            return None
        row = self._catalogue.class_by_name.get(name)
        if row is None:
            raise bad_field("class", f"there is no class {name!r}")
        return row.id

    def region_id(self, name: str | None) -> int | None:
        """The id of a region; None for None. Raises RequestError."""
        if name is None:
            return None
        row = self._catalogue.region_by_name.get(name)
        if row is None:
            raise bad_field("region", f"there is no region {name!r}")
        return row.id

    def _join(self, subscriber: Subscriber, instrument: Instrument, channel: str, depth: DepthName | None) -> Topic:
        self._leave(subscriber, instrument, channel)  # another depth of the same book is replaced
        topics = self._topics.setdefault(instrument.number, {})
        topic = topics.get((channel, depth))
        if topic is None:
            topic = topics[channel, depth] = self._topic(self._book(instrument.number), channel, depth)
        topic.join(subscriber)
        return topic

    def _topic(self, book: Book, channel: str, depth: DepthName | None) -> Topic:
        if channel == "l2":
            return L2Topic(book, depth or DEFAULT_DEPTH)
        return self.makers[channel](book)

    def topic_count(self) -> int:
        """How many topics somebody holds."""
        return sum(map(len, list(self._topics.values())))

    def topic(self, number: int, channel: str) -> Topic | None:
        """The topic of an instrument and a channel without a depth, None while nobody holds it."""
        return self._topics.get(number, {}).get((channel, None))

    def _leave(self, subscriber: Subscriber, instrument: Instrument, channel: str) -> None:
        topics = self._topics.get(instrument.number, {})
        for topic in [topics[channel, depth] for depth in (None, *DEPTHS) if (channel, depth) in topics]:
            self._part(subscriber, topic)

    def _part(self, subscriber: Subscriber, topic: Topic) -> None:
        topic.part(subscriber)
        if not topic.members:
            self._idle[topic] = LINGER_S

    def drop_idle(self) -> None:
        """Once a second: forget the topics that nobody has held for a while."""
        for topic, seconds in list(self._idle.items()):
            self._idle[topic] = seconds - 1
            if topic.members or seconds <= 1:
                del self._idle[topic]
            topics = self._topics.get(topic.book.instrument.number, {})
            if not topic.members and seconds <= 1 and topics.get(topic.key) is topic:
                del topics[topic.key]

    # --- Instruments --------------------------------------------------------------------------------------------------

    def instruments(
        self, cls: str | None = None, region: str | None = None, closed: bool = True
    ) -> list[InstrumentState]:
        """What is listed, all or of a class and region, by hour, class and region; `closed`: also what is past its gate."""
        wanted = Selection("", None, self.class_id(cls), self.region_id(region))
        listed = [
            one for one in self._projection.instruments.values() if wanted.wants(one) and (closed or not one.closed)
        ]
        return [self.instrument_state(one) for one in sorted(listed, key=_by_hour)]

    def instruments_snapshot(self, ts_us: int) -> InstrumentsPush:
        """The first message of the channel `instruments`."""
        return InstrumentsPush("snapshot", self.instruments_seq, 0, ts_us, self.instruments())

    def instrument_state(self, instrument: Instrument) -> InstrumentState:
        """An instrument as it is shown."""
        gpu_class = self._catalogue.class_by_id.get(instrument.class_id)
        region = self._catalogue.region_by_id.get(instrument.region_id)
        tick = instrument.tick_micros
        return InstrumentState(
            sym=instrument.symbol, cls=gpu_class.name if gpu_class else str(instrument.class_id),
            region=region.name if region else str(instrument.region_id), gpus_per_lot=instrument.gpus_per_lot,
            hours=instrument.hours, start=instrument.start_s * 1_000_000, tick=tick,
            lot_tick=instrument.lot_tick_micros, max_px=instrument.max_price * tick,
            ref_px=instrument.reference_price * tick, opens=instrument.open_ns // 1000,
            gate=instrument.gate_ns // 1000, taker_ppm=instrument.taker_fee_ppm,
            rebate_ppm=instrument.maker_rebate_ppm, bond_ppm=instrument.bond_ppm, status=status_of(instrument),
            low_px=instrument.low_price * tick, high_px=instrument.high_price * tick, collar_ppm=instrument.collar_ppm,
            dynamic_ppm=instrument.dynamic_ppm,
        )  # fmt: skip

    # --- Storing ------------------------------------------------------------------------------------------------------

    def dump(self) -> MarketState:
        """Everything that `load` needs."""
        return MarketState(self.instruments_seq)

    def load(self, state: MarketState) -> None:
        """Take over a stored state, after the projection did."""
        self.instruments_seq = state.instruments_seq


def by_instrument(trades: NDArray[np.void]) -> dict[int, list[tuple[int, ...]]]:
    """Of each trade (EVENT) its seq, price, qty, side and ts_ns, by instrument."""
    found: dict[int, list[tuple[int, ...]]] = {}
    rows = zip(*[trades[name].tolist() for name in ("seq", "price", "qty", "side", "ts_ns")], strict=True)
    for number, row in zip(trades["instrument"].tolist(), rows, strict=True):
        found.setdefault(number, []).append(row)
    return found


def _by_hour(instrument: Instrument) -> tuple[int, int, int, int]:
    return instrument.start_s, instrument.class_id, instrument.region_id, instrument.number


def status_of(instrument: Instrument) -> InstrumentStatus:
    """The name of where an instrument stands."""
    return "closed" if instrument.closed else STATUS_NAMES.get(instrument.status, "continuous")


def _level(best: tuple[int, int] | None, tick: int) -> Level | None:
    return (best[0] * tick, best[1]) if best else None
