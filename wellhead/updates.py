"""The market data that the client library hands on as it comes: best prices, tickers, candles, indices, statuses."""

from decimal import Decimal
from typing import Literal

from msgspec import Struct, field

from wellhead.types import InstrumentStatus


class Update(Struct, kw_only=True):
    """A message of a public channel about one symbol. `seq` is the engine's, `ts` the market's microseconds."""

    sym: str
    seq: int
    ts: int


class BestPrices(Update, kw_only=True):
    """Channel `l1`: the best bid and ask with their lots, None where there is none."""

    bid: tuple[Decimal, int] | None
    ask: tuple[Decimal, int] | None


class Ticker(Update, kw_only=True):
    """Channel `ticker`. `vol` is in lots since the listing."""

    last: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    vol: int


class Candle(Struct):
    """Open, high, low and close, None when nothing was traded so far; `vol` lots in `n` trades."""

    start: int
    o: Decimal | None
    h: Decimal | None
    l: Decimal | None  # noqa: E741 - what candles call it everywhere
    c: Decimal | None
    vol: int
    n: int
    closed: bool


class Candles(Update, kw_only=True):
    """Channels `candles.1m`, `candles.5m` and `candles.1h`: the candles that changed; the first message brings the past."""

    candles: list[Candle] = field(name="list")


class Index(Update, kw_only=True):
    """Channel `index`: what an hour was worth, from its gate on."""

    px: Decimal | None = None
    source: Literal["prints", "previous_hour", "reference"] | None = None


class StatusUpdate(Update, kw_only=True):
    """Channel `status`. `what`: `snapshot`, `change`, or, in an auction, what it would trade now (`indication`) and what it has
    traded (`auction`): `qty` lots at `px` with a `surplus` of bids. `halted`: the whole exchange is.
    """

    what: Literal["snapshot", "change", "indication", "auction"] = field(name="ev")
    status: InstrumentStatus
    halted: bool = False
    why: Literal["by_request", "collar"] | None = None
    px: Decimal | None = None
    qty: int | None = None
    surplus: int | None = None


AnyUpdate = BestPrices | Ticker | Candles | Index | StatusUpdate
UPDATES: dict[str, type[Update]] = {
    "l1": BestPrices,
    "ticker": Ticker,
    "candles.1m": Candles,
    "candles.5m": Candles,
    "candles.1h": Candles,
    "index": Index,
    "status": StatusUpdate,
}
"""What each channel brings."""
ChannelName = Literal["l1", "ticker", "candles.1m", "candles.5m", "candles.1h", "index", "status"]
