"""Public channels beside books and trades: what they need of each batch, found once for all of them."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine.records import copied
from engine.types import EVENT, EventKind
from gateway.candles import Candles, CandlesState
from gateway.config import GatewayConfig
from gateway.history import pick
from gateway.indices import Indices
from gateway.market_data import MarketData
from gateway.projection import Projection
from gateway.queues import QueueBooks

NO_EVENTS = np.zeros(0, EVENT)


class ChannelsState(Struct):
    """What is stored of them."""

    candles: CandlesState


class Channels:
    """Candles, `l3` and `index`. They add themselves to the market data's topics; `on_batch` comes before its `publish`."""

    def __init__(self, market: MarketData, projection: Projection, config: GatewayConfig) -> None:
        self.candles = Candles(market, config.recent_candles)
        self.queues = QueueBooks(market, projection)
        self.indices = Indices(market, projection)

    def on_batch(
        self, events: NDArray[np.void], trades: NDArray[np.void], trades_ns: list[int], now_ns: int, seq: int
    ) -> None:
        """Follow the events of batches, their trades, and the log's time at each and now; `seq` is the last event so far."""
        self.candles.on_batch(trades, trades_ns, now_ns, seq)
        self.queues.on_batch(events)
        for number in of_kind(events, EventKind.DELISTED)["instrument"].tolist():
            self.candles.drop(number)
            self.indices.drop(number)

    def dump(self) -> ChannelsState:
        """Everything that `load` needs."""
        return ChannelsState(self.candles.dump())

    def load(self, state: ChannelsState) -> None:
        """Take over a stored state."""
        self.candles.load(state.candles)


def of_kind(events: NDArray[np.void], kind: EventKind) -> NDArray[np.void]:
    """The events of one kind. Most batches have none, or one: their bytes are the quickest way to see it."""
    kinds = events["kind"].tobytes()
    at = kinds.find(kind)
    if at < 0:
        return NO_EVENTS
    if at == kinds.rfind(kind):
        return copied(events[at : at + 1])
    # As a plain number: numpy takes five times as long to compare with a member of an enumeration.
    return pick(events, events["kind"] == int(kind))
