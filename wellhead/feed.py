"""An async iterator that the connection fills and a bot empties, with a bound between them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, Self, TypeVar

from wellhead.types import WellheadError

T = TypeVar("T")


class Feed(AsyncIterator[T], Generic[T]):
    """Items in the order they came. Iterating raises the error that ended the feed; a reader that falls behind by more
    than `limit` items gets FEED_OVERRUN rather than a hole.
    """

    def __init__(
        self,
        limit: int,
        start: Callable[[], Awaitable[None]] | None = None,
        stop: Callable[["Feed[T]"], None] | None = None,
    ) -> None:
        self._items: deque[T] = deque()
        self._limit = limit
        self._start = start
        self._stop = stop
        self._error: WellheadError | None = None
        self._done = False
        self._news = asyncio.Event()

    def put(self, item: T) -> None:
        """Add an item."""
        if self._done:
            return
        if len(self._items) >= self._limit:
            self.end(WellheadError(0, "FEED_OVERRUN", f"the reader is more than {self._limit} items behind"))
            return
        self._items.append(item)
        self._news.set()

    def end(self, error: WellheadError | None = None) -> None:
        """No more items: iteration stops after those that are there, with the error if there is one."""
        self._done, self._error = True, self._error or error
        self._news.set()

    def close(self) -> None:
        """The reader wants no more."""
        self.end()
        self._items.clear()
        if self._stop is not None:
            self._stop(self)

    async def ready(self) -> Self:
        """Subscribe now, rather than when the first item is asked for; returns the feed itself."""
        if self._start is not None:
            start, self._start = self._start, None
            await start()
        return self

    async def __anext__(self) -> T:
        await self.ready()
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._done:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._items.popleft()
