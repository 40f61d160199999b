"""A connection as the gateway sees it: who it is, what it may do, what waits to be sent. No socket and no clock.

Whatever is queued leaves in `flush`, in the order it was queued. The reply to a batch must come before the private
events that its items cause, so private events wait while a batch of the same session is unanswered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.auth import Key
from gateway.config import GatewayConfig
from gateway.conflate import Conflation
from gateway.frames import Frames, framed
from gateway.logs import logger
from gateway.market_data import Topic
from gateway.memory import Tables
from gateway.messages import (
    BatchResult,
    Close,
    Code,
    Error,
    Format,
    ItemResult,
    Reply,
    RequestError,
    Slow,
    encode,
)
from gateway.metrics import Counts
from gateway.rates import Bucket

log = logger(__name__)


class Transport(Protocol):
    """What a session needs of its connection. All calls return at once."""

    def send_frames(self, frames: bytes) -> None:
        """Write messages, which are framed."""

    def close(self, code: int, reason: str) -> None:
        """Start to close, after what was written."""

    def buffered(self) -> int:
        """Bytes written and not yet taken by the operating system."""


@dataclass(slots=True)
class Identity:
    """Who logged on."""

    key: Key
    account: int
    cod: bool
    grace_ms: int


class Session:
    """One connection. The gateway's other parts push into it; `flush` hands everything to the transport."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        transport: Transport,
        wire: Format,
        ip: str,
        challenge: str,
        config: GatewayConfig,
        wall_us: Callable[[], int],
        dirty: "set[Session]",
        counts: Counts,
        tables: Tables,
    ) -> None:
        self._tables = tables
        self.row = tables.open_session(wire)  # what compiled code knows of it; 0 when the connection is gone
        self.wire = wire
        self.ip = ip
        self.challenge = challenge
        self._identity: Identity | None = None
        self.logging_on = False
        self.topics: set[Topic] = set()
        self.heartbeat = False
        self.heard_seq = 0  # the engine's sequence at the last heartbeat
        self.closed = False
        self.born_us = wall_us()
        self.bucket = Bucket(config.rate_per_s, config.rate_burst, self.born_us)  # until it logs on
        self.rate_errors = 0
        self.slow_since_us: int | None = None
        self.conflation: Conflation | None = None  # of a reader that lags
        self._transport = transport
        self._config = config
        self.wall_us = wall_us
        self.counts = counts
        self._dirty = dirty
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._held: list[bytes] = []

    # --- What compiled code shares ------------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity | None:
        """Who logged on."""
        return self._identity

    @identity.setter
    def identity(self, identity: Identity) -> None:
        self._identity = identity
        row = self._tables.sessions[self.row]
        scopes = identity.key.scopes
        row["account"], row["can_trade"], row["can_quote"] = identity.account, "trade" in scopes, "quote" in scopes
        row["serial"] = identity.key.serial if identity.cod else 0

    @property
    def pending(self) -> int:
        """Requests that are not answered."""
        return int(self._tables.sessions[self.row]["pending"])

    @pending.setter
    def pending(self, count: int) -> None:
        self._tables.sessions[self.row]["pending"] = count

    @property
    def private(self) -> bool:
        """Whether it holds its account's private stream."""
        return bool(self._tables.sessions[self.row]["private"])

    def leave(self) -> None:
        """The connection is gone: nothing that is still under way may reach its row any more."""
        self._tables.close_session(self.row)
        self.row = 0
        self.closed = True

    # --- Sending ------------------------------------------------------------------------------------------------------

    def push(self, data: bytes) -> None:
        """Queue an encoded message, framed or not."""
        if not self.closed:
            if type(data) is not Frames:
                data = framed(data, self.wire)
            self._outbox.append(data)
            self._dirty.add(self)
            self._outbox_bytes += len(data)
            if self._outbox_bytes >= self._config.slow_soft_bytes:
                self.flush()  # where a reader that does not keep up is found out

    def push_public(self, data: bytes, frame: Frames | None = None) -> None:
        """Queue an encoded public message, which `frame` has framed; for a reader that lags it waits, merged with others."""
        if self.conflation is None:
            self.push(frame or data)
        elif not self.closed:
            self.conflation.add(data)
            if self.conflation.size > self._config.conflate_items:
                self._drop_slow(self._transport.buffered())

    def push_all(self, messages: list[bytes], frames: Frames) -> None:
        """Queue encoded public messages, which `frames` has framed."""
        if self.conflation is None:
            self.push(frames)
        else:
            for data in messages:
                self.push_public(data)

    def writable(self) -> None:
        """The transport has room again: the reader gets what it has missed, and everything from here on."""
        if self.conflation is not None and not self.closed:
            conflation, self.conflation = self.conflation, None
            for data in conflation.take():
                self.push(data)
            self.flush()

    def push_private(self, data: bytes) -> None:
        """Queue an encoded private event, behind the reply of an unanswered batch."""
        if self._tables.sessions[self.row]["holds"]:
            self.keep(data)
        else:
            self.push(data)

    def keep(self, data: bytes) -> None:
        """Hold what is to come behind the reply of an unanswered batch."""
        self._held.append(data)
        self._tables.sessions[self.row]["parked"] = 1

    def hold(self) -> None:
        """Private events wait from here on until `release`."""
        self._tables.sessions[self.row]["holds"] += 1

    def release(self) -> None:
        """End one `hold`; after the last the events that waited are queued."""
        row = self._tables.sessions[self.row]
        row["holds"] -= 1
        if row["holds"] == 0:
            self.release_kept()

    def release_kept(self) -> None:
        """Queue what was held."""
        self._tables.sessions[self.row]["parked"] = 0
        kept, self._held = self._held, []
        for data in kept:
            self.push(data)

    def flush(self) -> None:
        """Hand what is queued to the transport, and drop a reader that does not keep up."""
        if self.closed:
            return
        self._send_outbox()
        self.check_slow()

    def _send_outbox(self) -> None:
        outbox, self._outbox = self._outbox, []
        self._outbox_bytes = 0
        if outbox:
            self._transport.send_frames(b"".join(outbox))

    def check_slow(self) -> None:
        """Close when the transport holds too much, or much for too long."""
        config, buffered = self._config, self._transport.buffered()
        if buffered >= config.conflate_bytes and self.conflation is None:
            self.conflation = Conflation(self.wire)
        if buffered < config.slow_soft_bytes:
            self.slow_since_us = None
            return
        now_us = self.wall_us()
        if self.slow_since_us is None:
            self.slow_since_us = now_us
        if buffered >= config.slow_hard_bytes or now_us - self.slow_since_us >= config.slow_soft_ms * 1000:
            self._drop_slow(buffered)

    def _drop_slow(self, buffered: int) -> None:
        self._transport.send_frames(framed(encode(Slow(self.wall_us(), buffered), self.wire), self.wire))
        self.close(Close.SLOW_CONSUMER, "slow consumer")

    def close(self, code: Close, reason: str) -> None:
        """Send what is queued and close. Nothing can be queued any more."""
        if self.closed:
            return
        self._send_outbox()
        self.closed = True
        self.counts.closes[int(code)] += 1
        if code not in (Close.NORMAL, Close.SHUTDOWN):
            log.info("closed", code=int(code), why=reason, ip=self.ip, key=self.identity and self.identity.key.id)
        self._tables.sessions[self.row]["closed"] = 1
        self._transport.close(int(code), reason)

    def buffered(self) -> int:
        """Bytes that the client has not taken."""
        return self._transport.buffered()

    # --- Rights -------------------------------------------------------------------------------------------------------

    def require(self, *scopes: str) -> int:
        """The account, if the session is logged on with one of these scopes. Raises RequestError."""
        if self.identity is None:
            raise RequestError(Code.NOT_LOGGED_ON, "log on first")
        if not set(scopes) & set(self.identity.key.scopes):
            wanted = " or ".join(map(repr, scopes))
            raise RequestError(Code.SCOPE_DENIED, f"the key {self.identity.key.id!r} has no scope {wanted}")
        return self.identity.account


class Ask:
    """A request that must be answered once. `account` is whose private events its reply numbers."""

    __slots__ = ("account", "bucket", "request_id", "session", "t_in")

    def __init__(self, session: Session, request_id: int | None, t_in: int, account: int = 0) -> None:
        self.session, self.request_id, self.t_in, self.account = session, request_id, t_in, account
        self.bucket: Bucket | None = None  # whose state the reply is to show
        session.pending += 1

    def ok(self, r: Any, aseq: int | None = None, dup: bool = False) -> None:
        """Done."""
        self._send(Reply(self.request_id, True, self.t_in, self.session.wall_us(), aseq, dup, r))

    def fail(self, error: Error) -> None:
        """Refused."""
        self.session.counts.errors[error.name] += 1
        self._send(Reply(self.request_id, False, self.t_in, self.session.wall_us(), err=error))

    def _send(self, reply: Reply) -> None:
        self.session.pending -= 1
        if self.bucket is not None:
            reply.rl = self.bucket.state(reply.t_out)
        self.session.push(encode(reply, self.session.wire))


class BatchAsk(Ask):
    """A batch: answered when all its items are."""

    __slots__ = ("_missing", "_results")

    def __init__(self, session: Session, request_id: int | None, t_in: int, account: int, items: int) -> None:
        super().__init__(session, request_id, t_in, account)
        self._missing = items
        self._results: list[ItemResult | None] = [None] * items
        session.hold()

    def item(self, index: int) -> "ItemAsk":
        """The part that answers one item."""
        return ItemAsk(self, index)

    def done(self, index: int, result: ItemResult) -> None:
        """Take the result of an item; the last one sends the reply."""
        self._results[index] = result
        self._missing -= 1
        if self._missing == 0:
            results = [result for result in self._results if result is not None]
            firsts = [result.aseq for result in results if result.aseq is not None and not result.dup]
            self.ok(BatchResult(results), min(firsts, default=None))
            self.session.release()


class ItemAsk(Ask):
    """One item of a batch."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: BatchAsk, index: int) -> None:
        super().__init__(batch.session, None, batch.t_in, batch.account)
        self._batch, self._index = batch, index

    def ok(self, r: Any, aseq: int | None = None, dup: bool = False) -> None:
        self._done(ItemResult(True, aseq, dup, r))

    def fail(self, error: Error) -> None:
        self.session.counts.errors[error.name] += 1
        self._done(ItemResult(False, err=error))

    def _done(self, result: ItemResult) -> None:
        self.session.pending -= 1
        self._batch.done(self._index, result)
