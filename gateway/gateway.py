"""The gateway: sessions on one side, commands and events on the other. No socket and no thread.

Order of things for each command of a batch: the projection follows its events, the request that waits for it is
answered, its private events are queued, then the requests that waited for its order go out. Public channels follow at
the end of the batch. So a reply always comes before the private events it caused, on the connection that asked.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.types import EventKind, Reason
from gateway import private
from gateway.auth import KeyStore
from gateway.channels import Channels, ChannelsState
from gateway.config import GatewayConfig
from gateway.controls import Controls
from gateway.fast import doors
from gateway.fast.accept import Take
from gateway.fast.follow import Stage, Stop
from gateway.frames import Frames
from gateway.health import Readiness
from gateway.history import History, HistoryState
from gateway.logon import Logons
from gateway.market_data import MarketData, MarketState, Topic
from gateway.memory import Tables
from gateway.messages import (
    PROTO,
    SETTLED_CHANNELS,
    SYMBOL_CHANNELS,
    Amend,
    Balances,
    BalancesResult,
    Batch,
    BatchState,
    Cancel,
    CancelAfter,
    Channel,
    Close,
    Code,
    DeliveryState,
    Fills,
    Format,
    Heartbeat,
    Hello,
    Instruments,
    InstrumentsResult,
    Logon,
    LogonResult,
    Logout,
    MassCancel,
    MassCancelResult,
    MassQuote,
    MmpReset,
    MmpSet,
    OpenOrders,
    OpenOrdersResult,
    OrdersHistory,
    Place,
    Positions,
    PositionsResult,
    PrivateEvent,
    Proof,
    Protections,
    ProtectionsResult,
    Reply,
    RequestError,
    Shutdown,
    Statement,
    Statements,
    Subscribe,
    SubscribeResult,
    Unsubscribe,
    bad_field,
    decode,
    encode,
)
from gateway.metrics import Counts
from gateway.operations import SCOPE_OF, Operations
from gateway.order_entry import OWN_ERRORS, PLAIN_ERRORS, OrderEntry, internal
from gateway.private import PrivateStreams
from gateway.projection import Projection, ProjectionState
from gateway.publisher import Publisher
from gateway.quoting import Quotes
from gateway.rates import Bucket, Rates
from gateway.rows import Step, command_row, event_rows
from gateway.session import Ask, BatchAsk, Identity, Session, Transport
from gateway.settled import NoPapers, Papers, Question, Settled

log = logging.getLogger(__name__)


class GatewayState(Struct):
    """A gateway as it is stored."""

    seq: int
    market_ns: int
    projection: ProjectionState
    streams: list[tuple[int, PrivateEvent]]
    market: MarketState
    channels: ChannelsState | None = None
    history: HistoryState | None = None


class Gateway:
    """Everything between the wire and the log.

    `submit(commands)` hands an array of COMMAND to the node; the node calls `on_batch(commands, events)` for every
    durable batch in log order, including those it replays at start-up. `now_ns()` is the market's clock, `wall_ns()`
    the real one; they differ only where time runs accelerated. All calls are made on one thread.
    """

    def __init__(  # noqa: PLR0913
        self,
        config: GatewayConfig,
        catalogue: Catalogue,
        keys: KeyStore,
        submit: Callable[[NDArray[np.void]], None],
        now_ns: Callable[[], int],
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        challenge: Callable[[], str] = secrets.token_hex,
        papers: Papers | None = None,
        history: History | None = None,
    ) -> None:
        self.config = config
        self.settled = Settled(config.recent_settled)
        # The first ref is the time, so that a command of an earlier run can hardly have the same.
        self.tables = Tables(config, PLAIN_ERRORS, OWN_ERRORS, first_ref=wall_ns())
        self.projection = Projection(self.tables)
        self.streams = PrivateStreams(self.projection)
        self.market = MarketData(self.projection, catalogue, config.max_subscriptions)
        self.channels = Channels(self.market, self.projection, config)
        self.publisher = Publisher(self.market, self.channels, config.publish_us, self.wall_us, self._flush)
        self.orders = OrderEntry(self.projection, config, submit)
        self.quotes = Quotes(self.projection, self.orders, config)
        self.controls = Controls(self.projection, self.orders, config, now_ns)
        self.logons = Logons(config, keys, self.projection, self.orders, self._welcome)
        self.history = history or History(config.history_rows)
        self.operations = Operations(self.projection, self.orders, keys, catalogue, now_ns, lambda: self.logons.by_key)
        self.rates = Rates(config, self.tables)
        self.counts = Counts()
        self.readiness = Readiness()
        self.sessions: set[Session] = set()
        self.seq = 0  # the last event applied
        self._now_ns, self._wall_ns = now_ns, wall_ns
        self._challenge = challenge
        self._papers = papers or NoPapers()
        self._dirty: set[Session] = set()
        self._by_row: dict[int, Session] = {}  # by the session's row in the tables
        self._waiting: list[tuple[Ask, Amend | Cancel]] = []  # for the order of the step at hand
        self._market_ns = 0
        self._next_heartbeat_us = 0
        self._stopping = False
        self._handlers = self._all_handlers()

    def _all_handlers(self) -> dict[type, Callable[[Ask, Any], None]]:
        return {
            Logon: self.logons.logon,
            Logout: self._logout,
            Place: self.orders.place,
            Amend: self.orders.amend,
            Cancel: self.orders.cancel,
            Batch: self._batch,
            MassCancel: self.orders.mass_cancel,
            MassQuote: self.quotes.quote,
            CancelAfter: self.controls.cancel_after,
            MmpSet: self.controls.mmp_set,
            MmpReset: self.controls.mmp_reset,
            Protections: self._protections,
            OpenOrders: self._open_orders,
            OrdersHistory: lambda ask, request: ask.ok(self.history.past_orders(ask.account, request)),
            Fills: lambda ask, request: ask.ok(self.history.past_fills(ask.account, request)),
            Positions: self._positions,
            Balances: self._balances,
            Instruments: self._instruments,
            Statements: self._paper,
            Statement: self._paper,
            Proof: self._paper,
            Subscribe: self._subscribe,
            Unsubscribe: self._unsubscribe,
            **self.operations.handlers,
        }

    def wall_us(self) -> int:
        """The real time in microseconds."""
        return self._wall_ns() // 1000

    def market_us(self) -> int:
        """The market's time in microseconds."""
        return self._now_ns() // 1000

    # --- Connections --------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """The log is replayed and clients may come: orders of sessions that a restart cut off wait for them."""
        self.logons.park_all(self.wall_us())
        self.readiness.is_open = True

    def connect(self, transport: Transport, wire: Format, ip: str) -> Session:
        """A new connection; it is greeted with `hello`."""
        session = Session(
            transport, wire, ip, self._challenge(), self.config, self.wall_us, self._dirty, self.counts, self.tables
        )
        self.sessions.add(session)
        self._by_row[session.row] = session
        limits = {
            "message_bytes": self.config.max_message_bytes,
            "batch_items": self.config.max_batch_items,
            "rate_per_s": self.config.rate_per_s,
            "rate_burst": self.config.rate_burst,
            "pending": self.config.max_pending_per_session,
            "topics": self.config.max_subscriptions,
            "grace_ms": self.config.max_grace_ms,
            "quote_levels": self.config.max_quote_levels,
        }
        hello = Hello(PROTO, self.config.venue, self.wall_us(), self.market_us(), session.challenge, limits)
        session.push(encode(hello, wire))
        self._flush()
        return session

    def disconnect(self, session: Session) -> None:
        """A connection is gone."""
        self.sessions.discard(session)
        self.market.drop(session)
        self.settled.drop(session)
        if not self._stopping:
            self.logons.left(session)
        self._by_row.pop(session.row, None)
        session.leave()
        self._dirty.discard(session)

    def receive(self, session: Session, data: bytes) -> None:
        """A message came in."""
        self.receive_many(session, (data,))

    def receive_many(self, session: Session, messages: Iterable[bytes]) -> None:
        """Messages came in; their commands go to the node as one array."""
        for data in messages:
            if session.closed:
                break
            t_in = self.wall_us()
            if not self._take(session, data, t_in):
                self.counts.messages += 1
                self._request(session, data, t_in)
        self.flush()

    def receive_some(self, session: Session, messages: Iterable[bytes]) -> None:
        """Messages for the general way; `flush` must follow."""
        for data in messages:
            if session.closed:
                break
            self.counts.messages += 1
            self._request(session, data, self.wall_us())

    def _take(self, session: Session, data: bytes, t_in: int) -> bool:
        return self.config.compiled and self._take_compiled(session, data, t_in)

    def _take_compiled(self, session: Session, data: bytes, t_in: int) -> bool:
        """Let compiled code take a message in; False when it declines."""
        self.tables.head["t_in"] = t_in
        taken = self.tables.take_message(session.row, data)
        if taken == Take.FULL:
            self.orders.flush()
            taken = self.tables.take_message(session.row, data)
        return taken == Take.TAKEN

    def flush(self) -> None:
        """Hand commands to the node, and replies to the connections."""
        self.orders.flush()
        self._flush()

    def _request(self, session: Session, data: bytes, t_in: int) -> None:
        try:
            request = decode(data, session.wire)
        except RequestError as refusal:
            self._refuse(session, self._charged(session, refusal, t_in), refusal.id, t_in)
            return
        try:
            account = self._admit(session, request, t_in)
        except RequestError as refusal:
            self._refuse(session, refusal, request.id, t_in, rate=bool(request.rl))
            return
        if isinstance(request, Batch):
            ask: Ask = BatchAsk(session, request.id, t_in, account, len(request.items))
        else:
            ask = Ask(session, request.id, t_in, account)
        if request.rl:
            ask.bucket = self._bucket(session, t_in)
        try:
            self._handlers[type(request)](ask, request)
        except RequestError as refusal:
            ask.fail(refusal.error)
            if refusal.error.code == Code.BAD_SIGNATURE:
                session.close(Close.BAD_LOGON, "bad log-on")
        except Exception:
            log.exception("a request failed")
            ask.fail(internal("a fault of the server; it is logged"))

    def _charged(self, session: Session, refusal: RequestError, now_us: int) -> RequestError:
        """What cannot be read costs as much as a request; without a token that is the answer."""
        try:
            self.rates.charge(self._bucket(session, now_us), 1, now_us)
        except RequestError as limit:
            return limit
        return refusal

    def _refuse(
        self, session: Session, refusal: RequestError, request_id: int | None, t_in: int, rate: bool = False
    ) -> None:
        reply = Reply(request_id, False, t_in, self.wall_us(), err=refusal.error)
        if rate:
            reply.rl = self._bucket(session, t_in).state(t_in)
        session.push(encode(reply, session.wire))
        self.counts.errors[refusal.error.name] += 1
        if refusal.error.code == Code.RATE_LIMIT:
            session.rate_errors += 1
            if session.rate_errors > self.config.rate_abuse_errors:
                session.close(Close.RATE_ABUSE, "rate abuse")

    def _admit(self, session: Session, request: Any, now_us: int) -> int:
        """The account in whose name the request is made, 0 for none. Raises RequestError."""
        if self._stopping:
            raise RequestError(Code.SHUTTING_DOWN, "the exchange stops")
        account, cost = 0, 1
        match request:
            case Place() | Amend():
                account = session.require("trade")
            case Cancel() | MassCancel():
                account, cost = session.require("trade", "quote"), 0
            case MassQuote():
                account, cost = session.require("quote"), self.quotes.cost(request)
            case CancelAfter() | MmpSet() | MmpReset():
                account = session.require("trade", "quote")
            case Batch():
                account, cost = session.require("trade"), self._batch_cost(request)
            case (
                OpenOrders()
                | OrdersHistory()
                | Fills()
                | Positions()
                | Balances()
                | Protections()
                | Statements()
                | Statement()
                | Proof()
            ):
                account = session.require("read")
            case Logon() | Logout():
                cost = 0
            case _ if (scope := SCOPE_OF.get(type(request))) is not None:
                account = session.require(scope)
            case _ if session.identity is None and not self.config.public_market_data:
                raise RequestError(Code.NOT_LOGGED_ON, "log on first")
            case Instruments():
                cost = self.config.rate_heavy_tokens
            case Subscribe() | Unsubscribe():
                cost = 1 + self.rates.cost_of(request.channels)
        self.rates.charge(self._bucket(session, now_us), cost, now_us)
        return account

    def _batch_cost(self, request: Batch) -> int:
        if not 1 <= len(request.items) <= self.config.max_batch_items:
            raise RequestError(Code.TOO_LARGE, f"a batch has 1 to {self.config.max_batch_items} items")
        if any(item.id is not None or item.rl for item in request.items):
            raise bad_field("id", "an item of a batch has neither id nor rl")
        return sum(not isinstance(item, Cancel) for item in request.items)

    def _bucket(self, session: Session, now_us: int) -> Bucket:
        if session.identity is None:
            return session.bucket
        return self.rates.bucket(session.identity.account, now_us)

    # --- Requests -----------------------------------------------------------------------------------------------------

    def _welcome(self, ask: Ask, request: Logon, identity: Identity) -> None:
        stream = self.streams.stream(identity.account)
        resume = request.resume_from
        resumed: bool | UnsetType = UNSET
        replay: list[bytes] = []
        if resume is not None and "read" in identity.key.scopes:
            resumed, replay = self._private(ask.session, identity.account, resume)
        ask.ok(
            LogonResult(
                identity.key.account, list(identity.key.scopes), identity.cod, identity.grace_ms, stream.aseq, resumed
            )
        )
        for data in replay:
            ask.session.push_private(data)

    def _logout(self, ask: Ask, request: Logout) -> None:
        session, identity = ask.session, ask.session.identity
        if identity is None:
            raise RequestError(Code.NOT_LOGGED_ON, "not logged on")
        self.logons.logout(session)
        if identity.cod and not request.keep:
            ask.account = identity.account
            self.orders.cancel_session(identity.account, identity.key.serial, ClosingAsk(ask))
        else:
            ClosingAsk(ask).ok(MassCancelResult(0))

    def _batch(self, ask: Ask, request: Batch) -> None:
        assert isinstance(ask, BatchAsk)
        self.orders.batch(ask, request)

    def _open_orders(self, ask: Ask, request: OpenOrders) -> None:
        account = self.projection.accounts[ask.account]
        orders = private.open_orders(account, request.sym)
        ask.ok(OpenOrdersResult(self.streams.stream(ask.account).aseq, orders))

    def _positions(self, ask: Ask, request: Positions) -> None:
        account = self.projection.accounts[ask.account]
        positions = private.positions(self.projection, account, request.sym)
        ask.ok(PositionsResult(self.streams.stream(ask.account).aseq, positions))

    def _balances(self, ask: Ask, _request: Balances) -> None:
        balances = private.balance_state(self.projection.accounts[ask.account])
        ask.ok(BalancesResult(self.streams.stream(ask.account).aseq, balances))

    def _protections(self, ask: Ask, _request: Protections) -> None:
        ask.ok(
            ProtectionsResult(
                self.streams.stream(ask.account).aseq,
                private.protections(self.projection, ask.account, self.market_us()),
                private.timers(self.projection, ask.account),
                ask.account in self.projection.locked,
            )
        )

    def _instruments(self, ask: Ask, request: Instruments) -> None:
        ask.ok(InstrumentsResult(self.market.instruments(request.cls, request.region, request.closed)))

    def _paper(self, ask: Ask, request: Question) -> None:
        def answer(found: Any | RequestError) -> None:
            if isinstance(found, RequestError):
                ask.fail(found.error)
            else:
                ask.ok(found)
            self._flush()

        self._papers.ask(ask.account, request, answer)

    def _subscribe(self, ask: Ask, request: Subscribe) -> None:
        session = ask.session
        self.publisher.publish()  # so that a snapshot is what the messages so far lead to
        self._check_channels(session, request.channels)
        self.market.check(session, [channel for channel in request.channels if channel.name in SYMBOL_CHANNELS])
        topics: list[Topic] = []
        others: list[bytes] = []
        replay: list[bytes] = []
        resumed: bool | UnsetType = UNSET
        for channel in request.channels:
            match channel.name:
                case "private":
                    account = session.require("read")
                    resumed, replay = self._private(session, account, channel.resume_from)
                case "instruments":
                    self.market.instrument_watchers.add(session)
                    others.append(encode(self.market.instruments_snapshot(self.market_us()), session.wire))
                case "batches" | "deliveries":
                    self.settled.watchers[channel.name].add(session)
                    others.append(encode(self.settled.snapshot(channel.name, self.market_us()), session.wire))
                case "hb":
                    session.heartbeat = True
                case _:
                    topics += self.market.subscribe(session, channel)
        ask.ok(SubscribeResult(len(topics), resumed))
        for data in self._missed(session, request.channels, topics):
            session.push_public(data)
        for data in others:
            session.push_public(data)
        for data in replay:
            session.push_private(data)

    def _missed(self, session: Session, channels: list[Channel], topics: list[Topic]) -> Iterator[bytes]:
        """What a subscriber lacks of each topic: what came since it was here, or a snapshot."""
        held = {(channel.name, symbol): seq for channel in channels for symbol, seq in (channel.held or {}).items()}
        for topic in topics:
            seq = held.get((topic.key[0], topic.book.instrument.symbol))
            missed = topic.since(seq, session.wire) if seq is not None else None
            yield from [encode(topic.snapshot(), session.wire)] if missed is None else missed

    def _unsubscribe(self, ask: Ask, request: Unsubscribe) -> None:
        session = ask.session
        self._check_channels(session, request.channels)
        self.market.check_names([channel for channel in request.channels if channel.name in SYMBOL_CHANNELS])
        before = len(session.topics)
        for channel in request.channels:
            match channel.name:
                case "private":
                    session.require("read")
                    self.tables.leave_private(session.row)
                case "instruments":
                    self.market.instrument_watchers.discard(session)
                case "batches" | "deliveries":
                    self.settled.watchers[channel.name].discard(session)
                case "hb":
                    session.heartbeat = False
                case _:
                    self.market.unsubscribe(session, channel)
        ask.ok(SubscribeResult(before - len(session.topics)))

    def _check_channels(self, session: Session, channels: list[Channel]) -> None:
        """Raises RequestError where there are too many, or one other than those of symbols is not as it must be."""
        if len(channels) > self.config.max_channels:
            raise RequestError(Code.TOO_LARGE, f"a request has {self.config.max_channels} channels at the most")
        seen: set[str] = set()
        for channel in channels:
            if channel.name in SYMBOL_CHANNELS:
                continue
            if channel.name in seen:
                raise bad_field("channels", f"{channel.name} is there twice")
            seen.add(channel.name)
            if channel.name not in ("private", "instruments", "hb", *SETTLED_CHANNELS):
                raise RequestError(Code.BAD_CHANNEL, f"there is no channel {channel.name!r}")
            if channel.symbols is not None or channel.cls is not None or channel.region is not None:
                raise bad_field("symbols", f"{channel.name} is not by symbol")
            if channel.depth is not None:
                raise bad_field("depth", f"{channel.name} has no depth")
            if channel.name == "private":
                session.require("read")
            elif channel.resume_from is not None:
                raise bad_field("resume_from", "only `private` is resumed by number")
            if channel.held is not None:
                raise bad_field("from", f"{channel.name} is not by symbol")

    def _private(self, session: Session, account: int, resume_from: int | None) -> tuple[bool | UnsetType, list[bytes]]:
        """Join the private stream: whether it was resumed, and what to send after the reply."""
        self.tables.join_private(session.row)
        stream = self.streams.stream(account)
        missed = stream.encoded_since(resume_from, session.wire) if resume_from is not None else None
        if missed is not None:
            return True, missed
        snapshot = self.streams.snapshot(account, self.seq, self._market_ns // 1000)
        return (UNSET if resume_from is None else False), [encode(snapshot, session.wire)]

    # --- The log ------------------------------------------------------------------------------------------------------

    def on_batch(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        """Follow a durable batch: update what is known, answer, send."""
        check_causes(commands, events)
        self.counts.batches += 1
        self.counts.commands += len(commands)
        self.counts.events += len(events)
        kinds = events["kind"].tobytes()
        trades = kinds.count(EventKind.TRADE)
        self.publisher.begin(commands, events, kinds)
        self._follow(commands, events)
        if len(events):
            self.seq = events["seq"].item(-1)
        if len(commands):
            self._market_ns = commands["ts_ns"].item(-1)
        self.counts.trades += trades
        self.flush()  # what traders wait for, first
        if trades:
            self.rates.give_back(events)
        self.history.on_batch(commands, events)
        self.publisher.follow(self.seq)

    def _follow(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        if self.config.compiled:
            self._follow_compiled(commands, events)
            return
        for at in range(len(commands)):
            one = commands[at : at + 1]
            caused = events[events["command_seq"] == one["seq"][0]]
            self.tables.begin_batch(one, caused, self.wall_us())
            head = self.tables.head
            head["step"], head["event_end"] = one["seq"][0], len(caused)
            self._go_on(one, caused, self._general(self._step(one, caused)))

    def _follow_compiled(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        """Let compiled code follow the batch, and do where it stops what it cannot."""
        self.tables.begin_batch(commands, events, self.wall_us())
        self._go_on(commands, events, None)

    def _go_on(self, commands: NDArray[np.void], events: NDArray[np.void], step: Step | None) -> None:
        """Follow the rest of the batch; `step` is the one at hand, when it is a general one that has been followed."""
        tables, head = self.tables, self.tables.head
        while (stop := tables.do(doors.FOLLOW)) != Stop.END:
            if stop == Stop.BROKEN:
                raise ValueError(f"the events of command {head['step']} do not fit what is known")
            self._drain()
            if stop == Stop.FULL:
                self.orders.flush()
            elif stop == Stop.RELEASE:
                self._release(head["release"])
            elif stop == Stop.QUOTES:
                self.quotes.take_results(head["quotes"])
            elif stop == Stop.GENERAL:
                step = self._general(self._step(commands, events))
            else:
                if stop in (Stop.ANSWER, Stop.ERROR) and not head["general"]:
                    step = self._step(commands, events)
                self._do_part(Stop(stop), step)
        self._drain()

    def _step(self, commands: NDArray[np.void], events: NDArray[np.void]) -> Step:
        """The step at hand."""
        head = self.tables.head
        at = min(head["command_at"], len(commands) - 1)
        caused = event_rows(events[head["event_at"] : head["event_end"]])
        return Step(commands, at, command_row(commands, at), caused)

    def _general(self, step: Step) -> Step:
        """Follow the events of a step that has something special."""
        projection, streams = self.projection, self.streams
        projection.begin(step)
        streams.begin()
        for event in step.events:
            projection.apply(step, event)
            streams.follow(event)
            self.market.collect(event)
        streams.finish(step)
        projection.seal(step, streams.first)
        self.tables.head["general"], self.tables.head["stage"] = 1, Stage.ANSWER
        return step

    def _do_part(self, stop: Stop, step: Step | None) -> None:
        """What Python has to do for a step, where compiled code stands before that."""
        head = self.tables.head
        match stop:
            case Stop.ANSWER if step is not None:
                account = self.tables.accounts[step.command.account]
                first = {step.command.account: int(account["first_aseq"])} if account["step"] == head["step"] else {}
                self._waiting = self.orders.resolve(step, first)
            case Stop.ERROR if step is not None:
                head["error_phrase"] = self.tables.phrase(self.orders.refusal(step))
            case Stop.TELL:
                for number, message in self.streams.fresh:
                    self._tell(number, message)
                head["stage"] = Stage.ATTEMPT
            case Stop.ATTEMPT:
                waiting, self._waiting = self._waiting, []
                for ask, request in waiting:
                    self.orders.attempt(ask, request)

    def _release(self, row: int) -> None:
        """A batch is answered that some of its session's events waited for."""
        self.tables.head["release"] = 0
        if row in self._by_row:
            self._by_row[row].release_kept()

    def _drain(self) -> None:
        """Queue what compiled code wrote for the sessions."""
        tables = self.tables
        for place in range(tables.do(doors.GATHER) if tables.head["pieces"] else 0):
            row, start, stop, held = tables.groups[place].tolist()
            session, data = self._by_row.get(row), Frames(tables.gathered_view[start:stop])
            if session is not None and held:
                session.keep(data)
            elif session is not None:
                session.push(data)

    def _tell(self, account: int, message: PrivateEvent) -> None:
        encoded: dict[Format, bytes] = {}
        for row in self.tables.holders(account):
            session = self._by_row[row]
            data = encoded.get(session.wire)
            if data is None:
                data = encoded[session.wire] = encode(message, session.wire)
            session.push_private(data)

    # --- Time ---------------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """What time brings: cancels on disconnect, log-on timeouts, heartbeats. Call it several times a second."""
        now_us = self.wall_us()
        self.publisher.publish()  # a heartbeat tells how far each topic is
        self.logons.cancel_due(now_us)
        self.readiness.look(now_us, self.counts.batches, self.orders.pending)
        if self.channels.candles.wants_tick(self._now_ns()):
            self.orders.tick()
        if now_us >= self._next_heartbeat_us:
            self._next_heartbeat_us = now_us + self.config.heartbeat_ms * 1000
            self.logons.close_revoked()
            self.market.drop_idle()
            self._look_at_sessions(now_us)
        self.orders.flush()
        self._flush()

    def _look_at_sessions(self, now_us: int) -> None:
        timeout_us = self.config.logon_timeout_ms * 1000
        for session in list(self.sessions):
            if session.closed:
                continue
            listens = (
                bool(session.topics) or session in self.market.instrument_watchers or self.settled.watches(session)
            )
            idle = session.identity is None and not listens
            if idle and not session.logging_on and now_us - session.born_us > timeout_us:
                session.close(Close.LOGON_TIMEOUT, "no log-on and no subscription in time")
            elif session.heartbeat:
                self._heartbeat(session, now_us)
            if not session.closed:
                session.check_slow()

    def _heartbeat(self, session: Session, now_us: int) -> None:
        last = {topic.name: topic.seq for topic in session.topics if topic.seq > session.heard_seq}
        session.heard_seq = self.seq
        heartbeat = Heartbeat(now_us, self.market_us(), last)
        if session.private and session.identity is not None:
            heartbeat.aseq = self.streams.stream(session.identity.account).aseq
        session.push_public(encode(heartbeat, session.wire))

    def tell_settled(self, seq: int, batches: list[BatchState], deliveries: list[DeliveryState]) -> None:
        """What is new in the books, as of the log's command `seq`."""
        self.settled.tell(seq, self.market_us(), batches, deliveries)
        self._flush()

    def _flush(self) -> None:
        while self._dirty:
            self._dirty.pop().flush()

    # --- Stopping, storing --------------------------------------------------------------------------------------------

    def shutdown(self, msg: str = "the exchange stops") -> None:
        """Tell everybody, once, and take no more requests. Those under way are still answered."""
        if self._stopping:
            return
        self._stopping = self.readiness.is_stopping = True
        self.tables.head["stopping"] = 1
        self.publisher.publish()
        for session in self.sessions:
            session.push(encode(Shutdown(self.wall_us(), msg), session.wire))
        self._flush()

    def close(self) -> None:
        """Close all sessions. What was under way is answered with OUTCOME_UNKNOWN."""
        self._stopping = True
        self.tables.head["stopping"] = 1
        self.orders.abandon(self._drain)
        for session in list(self.sessions):
            session.close(Close.SHUTDOWN, "shutdown")

    def count(self) -> Counts:
        """What was counted, what compiled code counted too."""
        head, refused = self.tables.head, self.tables.refused
        self.counts.messages += head["taken"]
        head["taken"] = 0
        for code in np.flatnonzero(refused).tolist():
            self.counts.errors[Code(code).name if code in list(Code) else Reason(code).name] += int(refused[code])
            refused[code] = 0
        return self.counts

    def health(self) -> dict[str, int | str]:
        """What `/health` shows."""
        return {
            "status": "stopping" if self._stopping else "ok",
            "sessions": len(self.sessions),
            "logged_on": len(self.logons.by_key),
            "pending": self.orders.pending,
            "seq": self.seq,
            "market_ts": self._market_ns // 1000,
            "accounts": len(self.projection.accounts),
            "instruments": len(self.projection.instruments),
            "forgotten_early": self.projection.forgotten_early,
        }

    def snapshot(self) -> bytes:
        """The projections, to start from instead of the log's beginning. Sessions are not in it."""
        return self.capture()()

    def catch_up(self) -> None:
        """Take into the state what waits outside of it: `snapshot` then neither sends nor writes anything but its bytes."""
        self.publisher.publish()
        self.history.take_in()

    def capture(self) -> Callable[[], bytes]:
        """The same in two steps: the state is copied now, and the call that makes its bytes may be made on any thread. That
        one also forces the history's files to the disk, for which the market must not wait.
        """
        self.catch_up()
        seq, market_ns, projection = self.seq, self._market_ns, self.projection.capture()
        parts = (self.streams, self.market, self.channels, self.history)
        others = [msgspec.Raw(msgspec.msgpack.encode(part.dump())) for part in parts]

        def stored() -> bytes:
            self.history.sync()
            return msgspec.msgpack.encode(GatewayState(seq, market_ns, projection(), *others))  # type: ignore[arg-type]

        return stored

    def restore(self, data: bytes) -> None:
        """Take over a snapshot, before the first batch. Raises msgspec.DecodeError when it is none."""
        state = msgspec.msgpack.decode(data, type=GatewayState)
        self.seq, self._market_ns = state.seq, state.market_ns
        self.projection.load(state.projection)
        self.streams.load(state.streams)
        self.market.load(state.market)
        if state.channels is not None:
            self.channels.load(state.channels)
        if state.history is not None:
            self.history.load(state.history)


def check_causes(commands: NDArray[np.void], events: NDArray[np.void]) -> None:
    """Raises ValueError unless each event belongs to a command of the batch. The numbers of both only rise."""
    if not len(events):
        return
    seqs, causes = commands["seq"], events["command_seq"]
    for at in (0, -1):
        if not len(seqs) or not seqs.item(0) <= causes.item(at) <= seqs.item(-1):
            raise ValueError(f"event {events['seq'][at]} belongs to command {causes[at]}, which is not in the batch")


class SessionTaker:
    """Takes a session's frames in compiled code; what that declines goes the general way, in its place."""

    def __init__(self, gateway: Gateway, session: Session) -> None:
        self._gateway = gateway
        self._session = session
        self._tables = gateway.tables

    def begin(self, data: bytes | bytearray) -> bool:
        """Copy a read to where compiled code reads."""
        size, tables = len(data), self._tables
        if size > len(tables.inbox) or self._session.closed:
            return False
        tables.inbox_view[:size] = data
        tables.head["t_in"] = self._gateway.wall_us()
        return True

    def take(self, at: int, end: int) -> int:
        """Take in what can be; where the first frame stands that was not."""
        return self._tables.do(doors.TAKE_FRAMES, self._session.row, at, end)

    def receive(self, messages: list[bytes]) -> None:
        """Messages that compiled code declined."""
        self._gateway.receive_some(self._session, messages)

    def done(self) -> None:
        """Commands and replies go out."""
        self._gateway.flush()


class ClosingAsk(Ask):
    """A log-out: once it is answered the connection closes."""

    __slots__ = ()

    def __init__(self, inner: Ask) -> None:
        super().__init__(inner.session, inner.request_id, inner.t_in, inner.account)
        inner.session.pending -= 1  # one request, not two

    def _send(self, reply: Reply) -> None:
        super()._send(reply)
        self.session.close(Close.NORMAL, "logged out")
