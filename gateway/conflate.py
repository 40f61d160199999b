"""What a reader that lags is sent instead of everything: for each channel and symbol one message that brings it up to date.

Levels are merged, of the best prices and the ticker the latest stays, trades are joined. The merged message's `prev` is
that of the first one in it, so the chain holds. Snapshots, and what cannot be merged, are kept as they are. Replies and
private events never come here.
"""

from typing import Any, Final

import msgspec

from gateway.messages import (
    L1,
    L2,
    L3,
    BatchesPush,
    Candles1h,
    Candles1m,
    Candles5m,
    CandlesPush,
    DeliveriesPush,
    Format,
    Heartbeat,
    IndexPush,
    InstrumentsPush,
    Level,
    Status,
    Ticker,
    Trades,
)

PublicPush = (
    L1 | L2 | L3 | Trades | Ticker | Candles1m | Candles5m | Candles1h | IndexPush | Status | InstrumentsPush
    | BatchesPush | DeliveriesPush | Heartbeat
)  # fmt: skip

# Prices stay as they travel: text in JSON, integers in MessagePack. So the plain encoders do, and nothing is converted.
_decoders: Final = {
    Format.JSON: msgspec.json.Decoder(PublicPush).decode,
    Format.MSGPACK: msgspec.msgpack.Decoder(PublicPush).decode,
}
_encoders: Final = {Format.JSON: msgspec.json.Encoder().encode, Format.MSGPACK: msgspec.msgpack.Encoder().encode}


class Conflation:
    """The messages that wait for one reader, merged as they come. `size` counts levels, orders, trades and the like."""

    def __init__(self, wire: Format) -> None:
        self.size = 0
        self._wire = wire
        self._waiting: dict[tuple[str, str], list[Any]] = {}

    def add(self, data: bytes) -> None:
        """An encoded public message, or a heartbeat."""
        message = _decoders[self._wire](data)
        key = (message.__struct_config__.tag, getattr(message, "sym", ""))
        waiting = self._waiting.setdefault(key, [])
        if key[0] == "hb":
            self._waiting[key] = self._waiting.pop(key)  # what it tells of must come before it
        elif message.ev == "snapshot":
            waiting.clear()
            self.size = sum(_size(one) for others in self._waiting.values() for one in others)
        if waiting and _merge(waiting[-1], message):
            self.size += _size(message)  # a little too much where levels met: it only has to be a bound
        else:
            waiting.append(message)
            self.size += _size(message)

    def take(self) -> list[bytes]:
        """All that waits, encoded; nothing waits afterwards."""
        encode = _encoders[self._wire]
        taken = [encode(message) for waiting in self._waiting.values() for message in waiting]
        self._waiting.clear()
        self.size = 0
        return taken


def _size(message: Any) -> int:
    if isinstance(message, L2 | L3):
        return 1 + len(message.b) + len(message.a)
    if isinstance(message, Trades):
        return 1 + len(message.t)
    return 1 + len(message.list) if isinstance(message, CandlesPush) else 1


def _merge(before: Any, later: Any) -> bool:
    """Put a later message into one that waits; False when it cannot be."""
    if isinstance(before, Heartbeat):
        before.last.update(later.last)
        before.ts, before.market_ts, before.aseq = later.ts, later.market_ts, later.aseq
        return True
    if before.ev == "snapshot":
        return False
    if isinstance(before, L1):
        before.bid, before.ask = later.bid, later.ask
    elif isinstance(before, Ticker):
        before.last, before.bid, before.ask, before.vol = later.last, later.bid, later.ask, later.vol
    elif isinstance(before, L2):
        if before.depth != later.depth:
            return False
        before.b, before.a = _levels(before.b, later.b), _levels(before.a, later.a)
        before.crc = later.crc
    elif isinstance(before, L3):
        before.b, before.a = before.b + later.b, before.a + later.a
        before.crc = later.crc
    elif isinstance(before, Trades):
        before.t = before.t + later.t
    elif isinstance(before, CandlesPush):
        before.list = list(
            ({item.start: item for item in before.list} | {item.start: item for item in later.list}).values()
        )
    else:
        return False
    before.seq, before.ts = later.seq, later.ts
    return True


def _levels(before: list[Level], later: list[Level]) -> list[Level]:
    return list((dict(before) | dict(later)).items())
