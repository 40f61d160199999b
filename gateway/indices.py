"""The channel `index`: what an hour was worth, from its gate on. The books work it out; the node hands it in."""

from typing import Literal, NamedTuple

from gateway.market_data import Book, MarketData, Topic
from gateway.messages import IndexPush, IndexSource
from gateway.projection import Projection


class IndexValue(NamedTuple):
    """The index of a closed hour. The price is in ticks."""

    symbol: str
    price: int
    source: IndexSource
    prints: int
    owners: int
    lots: int


class IndexTopic(Topic):
    """One instrument: nothing until its gate, one value after."""

    def __init__(self, book: Book, indices: "Indices") -> None:
        super().__init__("index", book)
        self._indices = indices
        known = book.instrument.number in indices.values
        self.seq = book.instrument.status_seq if known else book.instrument.listed_seq

    def snapshot(self) -> IndexPush:
        return self._message("snapshot", self.seq, 0)

    def update(self) -> None:
        return None

    def published(self) -> IndexPush:
        """The value has come. Its `seq` is that of the gate."""
        return self._message("update", *self._advance(self.book.instrument.status_seq))

    def _message(self, ev: Literal["snapshot", "update"], seq: int, prev: int) -> IndexPush:
        instrument, value = self.book.instrument, self._indices.values.get(self.book.instrument.number)
        if value is None:
            return IndexPush(instrument.symbol, ev, seq, prev, instrument.gate_ns // 1000)
        return IndexPush(
            instrument.symbol, ev, seq, prev, instrument.gate_ns // 1000, value.price * instrument.tick_micros,
            value.source, value.prints, value.owners, value.lots,
        )  # fmt: skip


class Indices:
    """The indices of instruments that are closed and not delisted."""

    def __init__(self, market: MarketData, projection: Projection) -> None:
        self.values: dict[int, IndexValue] = {}
        self._market = market
        self._projection = projection
        market.makers["index"] = lambda book: IndexTopic(book, self)

    def publish(self, values: list[IndexValue]) -> None:
        """Take in what the books found. Those that are known already, or of what is delisted, change nothing."""
        for value in values:
            instrument = self._projection.instrument_by_symbol.get(value.symbol)
            if instrument is None or not instrument.closed or instrument.number in self.values:
                continue
            self.values[instrument.number] = value
            topic = self._market.topic(instrument.number, "index")
            if isinstance(topic, IndexTopic):
                topic.send(topic.published())

    def drop(self, instrument: int) -> None:
        """Forget an instrument that is delisted."""
        self.values.pop(instrument, None)
