"""Public channels beside books and trades: what they need of each batch, found once for all of them."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

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
        self, commands: NDArray[np.void], events: NDArray[np.void], trades: NDArray[np.void], seq: int
    ) -> None:
        """Follow a batch and its trades; `seq` is its last event, or the one before when it has none."""
        if not len(commands):
            return
        now_ns = np.maximum.accumulate(commands["ts_ns"])  # the log's time at each command
        trades_ns = now_ns[np.searchsorted(commands["seq"], trades["command_seq"])] if len(trades) else now_ns[:0]
        self.candles.on_batch(trades, trades_ns, int(now_ns[-1]), seq)
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
    """The events of one kind. Most batches have none: looking through the kinds as bytes is the quickest way to see it."""
    return pick(events, events["kind"] == kind) if kind in events["kind"].tobytes() else NO_EVENTS
