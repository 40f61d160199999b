"""The client for notebooks and scripts that do not want to know of asyncio: the same calls, which wait for their answers.

The connection lives in a thread of its own, so it is kept alive, mended and followed while the notebook thinks.

    with SyncClient("ws://localhost:8765") as exchange:
        print(exchange.book("H100S-USE-H26112214").best_bid)
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

from wellhead.book import Book
from wellhead.client import Client
from wellhead.feed import Feed
from wellhead.queue_book import QueueBook
from wellhead.types import (
    AmendOrder,
    AnyEvent,
    Balance,
    CancelOrder,
    CoinAddress,
    Disconnected,
    Instrument,
    InstrumentEvent,
    Ladder,
    LadderAck,
    Marks,
    NewOrder,
    Order,
    OrderAck,
    PastFill,
    PastOrder,
    Position,
    Price,
    Protections,
    Side,
    Statement,
    Terms,
    TimeInForce,
    Trade,
    WellheadError,
)
from wellhead.updates import ChannelName

T = TypeVar("T")


class SyncClient:
    """A connection to the exchange. Takes what `Client` takes; use it as a context manager, or call `close` at the end.

    Every method raises a WellheadError with `code`, `name` and `message`. The streams are iterators that end after
    `wait_s` seconds without an item, never when it is None.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wellhead-client", daemon=True)
        self._thread.start()
        self._client = self._wait(_make(url, options))
        try:
            self._wait(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise

    @classmethod
    def from_key_file(cls, url: str, path: str | Path, **options: Any) -> Self:
        """A client with the key that `wellhead keys` wrote to a file."""
        return cls(url, key_file=path, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close for good. May be called twice."""
        if self._thread.is_alive():
            self._wait(self._client.close())
            self._stop()

    def logout(self, *, keep: bool = False) -> int:
        """End the session and close; how many orders that cancelled. See `Client.logout`."""
        canceled = self._wait(self._client.logout(keep=keep))
        self._stop()
        return canceled

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __repr__(self) -> str:
        state = "closed" if self._loop.is_closed() else "connected" if self._client.connected else "connecting"
        return f"<SyncClient {self._client.url} {self._client.account or 'without a key'}, {state}>"

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise Disconnected(0, "DISCONNECTED", "the client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # --- Orders -------------------------------------------------------------------------------------------------------

    def place(  # noqa: PLR0913
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
        """A new order; without a price a market order, with `stop` a stop. The `terms` are those of NewOrder."""
        placing = self._client.place(sym, side, qty, px, tif=tif, post_only=post_only, cid=cid, cod=cod, **terms)
        return self._wait(placing)

    def amend(  # noqa: PLR0913
        self,
        oid: int | None = None,
        *,
        cid: str | None = None,
        px: Price | None = None,
        qty: int | None = None,
        stop: Price | None = None,
        deadline: int | None = None,
    ) -> OrderAck:
        """Change price or total quantity, or the trigger of a stop."""
        return self._wait(self._client.amend(oid, cid=cid, px=px, qty=qty, stop=stop, deadline=deadline))

    def cancel(self, oid: int | None = None, *, cid: str | None = None) -> OrderAck:
        """Cancel an order; of a finished one the answer is its final state."""
        return self._wait(self._client.cancel(oid, cid=cid))

    def cancel_all(
        self,
        sym: str | None = None,
        side: Side | None = None,
        *,
        tag: int | None = None,
        group: int | None = None,
        lock: bool = False,
    ) -> int:
        """Cancel the account's orders that fit; returns how many there were."""
        return self._wait(self._client.cancel_all(sym, side, tag=tag, group=group, lock=lock))

    def quote(self, group: int, ladders: Sequence[Ladder], **marks: Unpack[Marks]) -> list[LadderAck]:
        """Bring the quotes of a group to these ladders; see `Client.quote`."""
        return self._wait(self._client.quote(group, ladders, **marks))

    def cancel_after(self, ms: int, *, tag: int | None = None) -> int | None:
        """Have the account's orders cancelled in `ms` unless this is called again before; 0: never."""
        return self._wait(self._client.cancel_after(ms, tag=tag))

    def set_mmp(self, group: int, *, lots: int, fills: int, window_ms: int, freeze_ms: int = 0) -> None:
        """Protect a group of orders; see `Client.set_mmp`."""
        setting = self._client.set_mmp(group, lots=lots, fills=fills, window_ms=window_ms, freeze_ms=freeze_ms)
        self._wait(setting)

    def reset_mmp(self, group: int, *, off: bool = False) -> None:
        """Take the group's orders again; with `off` protect it no more."""
        self._wait(self._client.reset_mmp(group, off=off))

    def protections(self) -> Protections:
        """Market-maker protection and dead man's switches as they stand."""
        return self._wait(self._client.protections())

    def batch(self, items: Sequence[NewOrder | AmendOrder | CancelOrder]) -> list[OrderAck | WellheadError]:
        """Up to 100 requests in order, each with its own result."""
        return self._wait(self._client.batch(items))

    # --- The account and the market -----------------------------------------------------------------------------------

    def orders(self, sym: str | None = None) -> list[Order]:
        """The working orders."""
        return self._wait(self._client.orders(sym))

    def positions(self, sym: str | None = None) -> list[Position]:
        """The positions."""
        return self._wait(self._client.positions(sym))

    def balances(self) -> Balance:
        """The account's money."""
        return self._wait(self._client.balances())

    def past_orders(self, sym: str | None = None, *, limit: int | None = 100) -> list[PastOrder]:
        """Finished orders, newest first; None: all."""
        return self._wait(self._client.past_orders(sym, limit=limit))

    def fills(self, sym: str | None = None, *, limit: int | None = 100) -> list[PastFill]:
        """Fills, newest first; None: all."""
        return self._wait(self._client.fills(sym, limit=limit))

    def statements(self) -> list[Statement]:
        """The settled cycles, newest first, and what each came to for the account."""
        return self._wait(self._client.statements())

    def statement(self, cycle: int, format: Literal["csv", "json"] = "csv") -> str:
        """The account's statement of a cycle, the whole file."""
        return self._wait(self._client.statement(cycle, format))

    def proof(self, cycle: int | None = None) -> str:
        """The proof that the account's net is under a cycle's root."""
        return self._wait(self._client.proof(cycle))

    def deposit_addresses(self, home: str | None = None) -> list[CoinAddress]:
        """Where deposits go; see `Client.deposit_addresses`."""
        return self._wait(self._client.deposit_addresses(home))

    def withdraw(self, coin: int, amount: Price, to: str, *, claim: bool = False) -> int:
        """Pay out to an address; see `Client.withdraw`."""
        return self._wait(self._client.withdraw(coin, amount, to, claim=claim))

    def transfer(self, to: str, amount: Price) -> int:
        """Move cash to another account of the same owner."""
        return self._wait(self._client.transfer(to, amount))

    def nominate(self, sym: str, lots: int) -> int:
        """Certify so many more lots for an hour, against a bond."""
        return self._wait(self._client.nominate(sym, lots))

    def report_delivery(self, report: bytes) -> int:
        """Hand in a meter's signed records; how many were taken."""
        return self._wait(self._client.report_delivery(report))

    def request(self, op: str, *, repeat: bool = False, **fields: Any) -> dict[str, Any]:
        """Any request of the protocol; see `Client.request`."""
        return self._wait(self._client.request(op, repeat=repeat, **fields))

    def recent_trades(self, sym: str) -> list[Trade]:
        """The last public trades of a symbol, oldest first."""
        return self._wait(self._client.recent_trades(sym))

    def instruments(
        self, gpu_class: str | None = None, region: str | None = None, *, closed: bool = False
    ) -> list[Instrument]:
        """What can be traded, the next hour first; with `closed` also what is past its gate."""
        return self._wait(self._client.instruments(gpu_class, region, closed=closed))

    def book(self, sym: str, depth: Literal[10, 100, "all"] = 10) -> Book:
        """A local book, which goes on following the market in the background."""
        return self._wait(self._client.book(sym, depth))

    def drop_book(self, sym: str) -> None:
        """Stop following a book."""
        self._wait(self._client.drop_book(sym))

    def queue_book(self, sym: str) -> QueueBook:
        """A local book with every order in its place."""
        return self._wait(self._client.queue_book(sym))

    def listings(self, wait_s: float | None = None) -> Iterator[InstrumentEvent]:
        """All instruments now, then each listing, closing and delisting."""
        return self._items(self._wait(_made(self._client.listings)), wait_s)

    def trades(self, *syms: str, wait_s: float | None = None) -> Iterator[Trade]:
        """Public trades as they happen."""
        return self._items(self._wait(_made(self._client.trades, *syms)), wait_s)

    def updates(self, channel: ChannelName, *syms: str, wait_s: float | None = None) -> Iterator[Any]:
        """What a channel brings; see `Client.updates`."""
        return self._items(self._wait(_made(self._client.updates, channel, *syms)), wait_s)

    def events(self, wait_s: float | None = None) -> Iterator[AnyEvent]:
        """The account's private events from now on."""
        return self._items(self._wait(_made(self._client.events)), wait_s)

    def _items(self, feed: Feed[T], wait_s: float | None) -> Iterator[T]:
        # Subscribed before the first item is asked for, so that nothing in between is missed.
        self._wait(feed.ready())
        return self._take(feed, wait_s)

    def _take(self, feed: Feed[T], wait_s: float | None) -> Iterator[T]:
        try:
            while True:
                try:
                    yield self._wait(_next(feed, wait_s))
                except (TimeoutError, StopAsyncIteration):
                    return
        finally:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(feed.close)


async def _make(url: str, options: dict[str, Any]) -> Client:
    # On the loop, which the client's events and futures belong to.
    if "key_file" in options:
        return Client.from_key_file(url, options.pop("key_file"), **options)
    return Client(url, **options)


async def _made(method: Any, *arguments: Any) -> Any:
    return method(*arguments)


async def _next(feed: Feed[T], wait_s: float | None) -> T:
    async with asyncio.timeout(wait_s):
        return await anext(feed)
