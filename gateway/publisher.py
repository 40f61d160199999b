"""When public messages go out: at once after a quiet moment, and in a rush of batches once an interval for all of them.

A reader of a book cannot look at it more often than that, and a trader's answer must not wait for what is told to everybody:
at once means when the loop has written the answers, which it does after what it runs now.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.records import joined
from engine.types import COMMAND, EVENT, EventKind
from gateway.channels import Channels, of_kind
from gateway.market_data import MarketData

MAY_WAIT = bytes(
    (
        EventKind.NEW, EventKind.TRADE, EventKind.CANCELED, EventKind.REPLACED, EventKind.REJECTED, EventKind.DEPOSITED,
        EventKind.TRIGGERED, EventKind.PREVENTED, EventKind.REFRESHED, EventKind.QUOTE_KEPT, EventKind.DUPLICATE,
    )
)  # fmt: skip
"""Whatever else happens to an instrument is told in its place between the others, so nothing waits around it."""

Records = NDArray[np.void]
Later = Callable[[float, Callable[[], None]], object]
"""Calls a function after so many seconds, on the thread of all the others: an event loop's `call_later`."""


class Publisher:
    """Batches that are followed but not published. With no `later` each is published at once.

    `interval_us` is the shortest time from one publication to the next; `flush` hands the messages to the connections.
    """

    def __init__(
        self,
        market: MarketData,
        channels: Channels,
        interval_us: int,
        wall_us: Callable[[], int],
        flush: Callable[[], None],
    ) -> None:
        self.later: Later | None = None
        self._market, self._channels = market, channels
        self._interval_us, self._wall_us, self._flush = interval_us, wall_us, flush
        self._waiting: list[tuple[Records, Records]] = []  # commands and events of batches
        self._may_wait = True  # what the batch at hand brings
        self._now_ns, self._seq = 0, 0
        self._last_us = 0
        self._called = False

    def begin(self, commands: Records, events: Records, kinds: bytes) -> None:
        """Before a batch is followed; `kinds` are those of its events. The arrays are kept, so they must not change."""
        self._may_wait = not kinds.translate(None, MAY_WAIT)
        if not self._may_wait:
            self.publish()
            self._market.begin(of_kind(events, EventKind.TRADE))
        self._waiting.append((commands, events))

    def follow(self, seq: int) -> None:
        """After the batch was followed; `seq` is the last event so far."""
        self._seq = seq
        wait_us = min(self._last_us + self._interval_us - self._wall_us(), self._interval_us)  # a clock may be set back
        if self.later is None or not self._may_wait:
            self.publish()
        elif not self._called:
            self._called = True
            self.later(max(wait_us, 0) / 1e6, self._publish_late)

    def _publish_late(self) -> None:
        self._called = False
        self.publish()

    def publish(self) -> None:
        """Send what waits, to the end."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        commands, events = waiting[0]
        if len(waiting) > 1:
            commands = joined([part for part, _ in waiting], COMMAND)
            events = joined([part for _, part in waiting], EVENT)
        trades = of_kind(events, EventKind.TRADE)
        trades_ns = self._times_of(commands, trades)
        self._market.begin(trades)
        self._channels.on_batch(events, trades, trades_ns, self._now_ns, self._seq)
        self._market.publish()
        self._last_us = self._wall_us()
        self._flush()

    def _times_of(self, commands: Records, trades: Records) -> list[int]:
        """The log's time at each trade. It goes on to what it is after the last command."""
        if not len(commands):
            return []
        stamps = commands["ts_ns"]
        data = stamps.tobytes()
        if data == data[:8] * len(stamps):  # as those of a frame are
            self._now_ns = max(self._now_ns, stamps.item(0))
            return [self._now_ns] * len(trades)
        times_ns = np.maximum.accumulate(np.maximum(stamps, self._now_ns))
        self._now_ns = int(times_ns[-1])
        found: list[int] = times_ns[np.searchsorted(commands["seq"], trades["command_seq"])].tolist()
        return found
