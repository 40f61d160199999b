"""Candles of one minute, five minutes and an hour, from the trades in the log and the log's own time.

A candle is over when the log's time passes its end, so all gateways and a replay agree on what was in it: the clock may
be past the end while a trade from before it is still on its way to the disk. Where nobody trades, nothing in the log
would say that time went on; `wants_tick` then asks for a TICK command. Candles without a trade are not kept. They are
made when they are shown: flat, at the close before them.

While nobody looks, trades wait and are taken in together: that costs a twentieth of taking them in batch by batch.
"""

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine.catalogue import NS
from engine.records import joined
from engine.types import EVENT
from gateway.market_data import Book, MarketData, Topic
from gateway.messages import CandleItem, Candles1h, Candles1m, Candles5m, CandlesPush

MINUTE_S = 60
INTERVALS: dict[str, tuple[int, type[CandlesPush]]] = {
    "candles.1m": (60, Candles1m),
    "candles.5m": (300, Candles5m),
    "candles.1h": (3_600, Candles1h),
}
LENGTHS_S = tuple(length for length, _ in INTERVALS.values())
WAITING_TRADES = 4_096
"""At the most, before they are taken in."""


class Candle(Struct, array_like=True, gc=False):
    """A candle with trades. Prices in ticks."""

    start_s: int
    open: int
    high: int
    low: int
    close: int
    lots: int
    trades: int

    def add(self, later: "Candle") -> None:
        """Take in trades that came after."""
        self.high, self.low = max(self.high, later.high), min(self.low, later.low)
        self.close = later.close
        self.lots += later.lots
        self.trades += later.trades


class Series:
    """The candles of one instrument and length; the last one may still be open."""

    __slots__ = ("candles", "length_s")

    def __init__(self, length_s: int, keep: int) -> None:
        self.length_s = length_s
        self.candles: deque[Candle] = deque(maxlen=keep)

    def add(self, minute: Candle) -> None:
        """Trades of one minute, which is not before any that was added."""
        start_s = minute.start_s // self.length_s * self.length_s
        if self.candles and self.candles[-1].start_s == start_s:
            self.candles[-1].add(minute)
        else:
            self.candles.append(msgspec.structs.replace(minute, start_s=start_s))

    def between(self, first_s: int, last_s: int) -> Iterator[Candle | None]:
        """One for each start from `first_s` to `last_s`; without a trade flat, or None when there was none before."""
        before: Candle | None = None
        kept = deque(self.candles)
        for start_s in range(first_s, last_s + 1, self.length_s):
            while kept and kept[0].start_s < start_s:
                before = kept.popleft()
            if kept and kept[0].start_s == start_s:
                yield kept[0]
            elif before is not None:
                yield Candle(start_s, before.close, before.close, before.close, before.close, 0, 0)
            else:
                yield None


class CandlesTopic(Topic):
    """The chain of one instrument and length. Its messages are sent by `Candles`, at trades and at boundaries.

    `open_s` is the start of the first candle that was not sent as closed. The last of all is that of the gate.
    """

    def __init__(self, channel: str, book: Book, series: Series, candles: "Candles") -> None:
        super().__init__(channel, book)
        self._series = series
        self._candles = candles
        self._message = INTERVALS[channel][1]
        self._length_s = series.length_s
        self._last_s = (book.instrument.gate_ns - 1) // NS // series.length_s * series.length_s
        self.seq = candles.seq
        self.open_s = min(candles.minute_s // series.length_s * series.length_s, self._last_s + series.length_s)

    def snapshot(self) -> CandlesPush:
        """The last candles, and the open one."""
        to_s = min(self.open_s, self._last_s)
        known_s = self._series.candles[0].start_s if self._series.candles else to_s
        return self._push("snapshot", min(known_s, to_s), to_s, self.seq, 0)

    def update(self) -> None:
        return None

    def traded(self, seq: int) -> CandlesPush:
        """The open candle has changed."""
        return self._push("update", self.open_s, self.open_s, *self._advance(seq))

    def roll(self, minute_s: int, seq: int) -> CandlesPush | None:
        """Time has come to this minute: the candles that are over by now, None when there is none."""
        first_s, to_s = self.open_s, min(minute_s // self._length_s * self._length_s - self._length_s, self._last_s)
        if to_s < first_s:
            return None
        self.open_s = to_s + self._length_s
        return self._push("update", first_s, to_s, *self._advance(seq))

    def _push(self, ev: Literal["snapshot", "update"], first_s: int, to_s: int, seq: int, prev: int) -> CandlesPush:
        first_s = max(first_s, to_s - (self._candles.keep - 1) * self._length_s)
        starts = range(first_s, to_s + 1, self._length_s)
        tick, symbol = self.book.instrument.tick_micros, self.book.instrument.symbol
        shown = [
            _item(start_s, candle, tick, closed=start_s < self.open_s)
            for start_s, candle in zip(starts, self._series.between(first_s, to_s), strict=True)
        ]
        return self._message(symbol, ev, seq, prev, self._candles.ts_us, shown)


class CandlesState(Struct):
    """Candles as they are stored."""

    minute_s: int
    seq: int
    ts_us: int
    series: list[tuple[int, list[list[Candle]]]]


class Candles:
    """All candles. `on_batch` before the batch's other public messages go out."""

    def __init__(self, market: MarketData, keep: int) -> None:
        self.keep = keep
        self.minute_s = 0  # the log's time, in whole minutes
        self.seq = 0
        self.ts_us = 0
        self._market = market
        self._series: dict[int, tuple[Series, ...]] = {}
        self._topics: set[CandlesTopic] = set()
        self._asked_s = 0
        self._now_ns = 0
        self._waiting: list[NDArray[np.void]] = []  # trades (EVENT) that are in no candle yet
        self._waiting_ns: list[int] = []  # and the log's time at each
        for place, channel in enumerate(INTERVALS):
            market.makers[channel] = partial(self._make, channel, place)

    def _make(self, channel: str, place: int, book: Book) -> CandlesTopic:
        self._take_in()
        topic = CandlesTopic(channel, book, self._of(book.instrument.number)[place], self)
        self._topics.add(topic)
        return topic

    def _of(self, instrument: int) -> tuple[Series, ...]:
        found = self._series.get(instrument)
        if found is None:
            found = self._series[instrument] = tuple(Series(length_s, self.keep) for length_s in LENGTHS_S)
        return found

    # --- Following the log --------------------------------------------------------------------------------------------

    def on_batch(self, trades: NDArray[np.void], trades_ns: list[int], now_ns: int, seq: int) -> None:
        """Follow trades (EVENT), the log's time at each and now. `seq` is the last event so far. The trades are kept."""
        self.seq, self._now_ns = seq, max(self._now_ns, now_ns)
        self.ts_us = self._now_ns // 1000
        if len(trades):
            self._waiting.append(trades)
            self._waiting_ns += trades_ns
        if self._topics or len(self._waiting_ns) >= WAITING_TRADES:
            self._take_in()

    def _take_in(self) -> None:
        if self._waiting:
            trades, trades_ns = joined(self._waiting, EVENT), np.array(self._waiting_ns)
            self._waiting, self._waiting_ns = [], []
            for candles, numbers in minutes(trades, np.maximum(trades_ns, self.minute_s * NS)):
                self._pass(candles[0].start_s)
                for candle, number in zip(candles, numbers, strict=True):
                    for series in self._of(number):
                        series.add(candle)
                self._tell(numbers)
        self._pass(self._now_ns // NS // MINUTE_S * MINUTE_S)

    def drop(self, instrument: int) -> None:
        """Forget an instrument that is delisted: its number may come again."""
        self._take_in()
        self._series.pop(instrument, None)

    def _pass(self, minute_s: int) -> None:
        """Time has come to this minute."""
        if minute_s <= self.minute_s:
            return
        self.minute_s = minute_s
        for topic in list(self._topics):
            if self._market.topic(topic.book.instrument.number, topic.key[0]) is not topic:
                self._topics.discard(topic)  # nobody holds it any more
            elif (message := topic.roll(minute_s, self.seq)) is not None:
                topic.send(message)

    def _tell(self, instruments: list[int]) -> None:
        for number in instruments:
            for channel in INTERVALS:
                topic = self._market.topic(number, channel)
                if isinstance(topic, CandlesTopic):
                    topic.send(topic.traded(self.seq))

    def wants_tick(self, now_ns: int) -> bool:
        """Whether a minute is over that the log does not know of, and somebody looks at candles. Says so once a minute."""
        minute_s = now_ns // NS // MINUTE_S * MINUTE_S
        if minute_s <= max(self.minute_s, self._asked_s) or not self._topics:
            return False
        self._asked_s = minute_s
        return True

    # --- Storing ------------------------------------------------------------------------------------------------------

    def dump(self) -> CandlesState:
        """Everything that `load` needs."""
        self._take_in()
        kept = [(number, [list(one.candles) for one in series]) for number, series in sorted(self._series.items())]
        return CandlesState(self.minute_s, self.seq, self.ts_us, kept)

    def load(self, state: CandlesState) -> None:
        """Take over stored candles."""
        self.minute_s, self.seq, self.ts_us = state.minute_s, state.seq, state.ts_us
        self._now_ns = state.ts_us * 1000
        for number, kept in state.series:
            for series, candles in zip(self._of(number), kept, strict=True):
                series.candles.extend(candles)


def minutes(trades: NDArray[np.void], trades_ns: NDArray[np.int64]) -> Iterator[tuple[list[Candle], list[int]]]:
    """The trades (EVENT, in log order) by minute: for each instrument its candle and its number."""
    starts_s = trades_ns // (MINUTE_S * NS) * MINUTE_S
    for start_s in sorted(set(starts_s.tolist())):
        part = trades[starts_s == start_s]
        part = part[np.argsort(part["instrument"], kind="stable")]
        numbers, first, count = np.unique(part["instrument"], return_index=True, return_counts=True)
        price, lots = part["price"], part["qty"].astype(np.int64)
        columns = (
            price[first], np.maximum.reduceat(price, first), np.minimum.reduceat(price, first),
            price[first + count - 1], np.add.reduceat(lots, first), count,
        )  # fmt: skip
        rows = zip(*(column.tolist() for column in columns), strict=True)
        yield [Candle(start_s, *row) for row in rows], numbers.tolist()


def _item(start_s: int, candle: Candle | None, tick: int, closed: bool) -> CandleItem:
    start_us = start_s * 1_000_000
    if candle is None:
        return CandleItem(start_us, None, None, None, None, 0, 0, closed)
    return CandleItem(
        start_us, candle.open * tick, candle.high * tick, candle.low * tick, candle.close * tick, candle.lots,
        candle.trades, closed,
    )  # fmt: skip
