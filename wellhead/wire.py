"""How the client library reads and writes the wire in either format. Money goes in and out as exact decimals."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from gateway.messages import Format
from wellhead.types import AmendOrder, CancelOrder, Ladder, NewOrder, Price, SelfTrade, scaled

T = TypeVar("T")
FormatName = Literal["json", "msgpack"]


class WireError(Struct):
    """The error of a reply."""

    code: int
    name: str
    final: bool
    msg: str
    field: str | None = None
    now: int | None = None
    status: str | None = None
    retry_us: int | None = None
    until: int | None = None


class Message(Struct):
    """Any message of the server, as far as it must be understood to pass it on."""

    id: int | None = None
    ok: bool = False
    t_in: int = 0
    t_out: int = 0
    aseq: int | None = None
    dup: bool = False
    r: msgspec.Raw = msgspec.Raw()  # not `Raw | None`: msgspec then takes null only
    err: WireError | None = None
    ch: str | None = None
    ev: str | None = None
    sym: str | None = None


class Codec:
    """One of the two formats."""

    def __init__(self, name: FormatName) -> None:
        if name not in ("json", "msgpack"):
            raise ValueError(f'format {name!r}: "json" or "msgpack"')
        self.format = Format[name.upper()]
        self.is_text = self.format is Format.JSON
        self._module: Any = msgspec.json if self.is_text else msgspec.msgpack
        self._decoders: dict[Any, Any] = {}
        self.encode = self._module.Encoder().encode

    def decode(self, data: bytes | msgspec.Raw, kind: type[T] | Any) -> Any:
        """A message or a part of one as the type given; money is Decimal."""
        decoder = self._decoders.get(kind)
        if decoder is None:
            decoder = self._decoders[kind] = self._module.Decoder(kind)
        value = decoder.decode(data)
        return value if self.is_text else scaled(value)

    def price(self, px: Price) -> str | int:
        """A price for the wire. Raises TypeError for a float, ValueError for what is no exact price."""
        micros = price_micros(px)
        return format(Decimal(micros).scaleb(-6), "f") if self.is_text else micros

    def place(self, order: NewOrder) -> dict[str, Any]:
        """The fields of an `order.place`."""
        fields: dict[str, Any] = {"op": "order.place", "sym": order.sym, "side": order.side, "qty": whole(order.qty)}
        if order.px is not None:
            fields["px"] = self.price(order.px)
        if order.stop is not None:
            fields["type"] = "stop" if order.px is None else "stop_limit"
            fields["stop"] = self.price(order.stop)
        elif order.px is None:
            fields["type"] = "market"
        if not order.cod:
            fields["cod"] = False
        if order.reduce_only:
            fields["reduce_only"] = True
        return fields | self._marks(order) | _given(order, "tif", "cid", "expire", "show", "min_qty", "tag", "group")

    def _marks(self, order: "NewOrder | QuoteMarks") -> dict[str, Any]:
        """What orders and quotes have in common."""
        if order.post_only and order.slide:
            raise ValueError("post_only or slide, not both")
        post = {"post": "reject" if order.post_only else "slide"} if order.post_only or order.slide else {}
        return post | _given(order, "deadline", "stp", "stp_group")

    def quote(self, group: int, ladders: Sequence[Ladder], marks: "QuoteMarks") -> dict[str, Any]:
        """The fields of a `quote.mass`."""
        quotes = []
        for ladder in ladders:
            sides = {"b": ladder.bids, "a": ladder.asks}
            given = {
                name: [[self.price(px), whole(qty)] for px, qty in side]
                for name, side in sides.items()
                if side is not None
            }
            quotes.append({"sym": ladder.sym, **given})
        return {"op": "quote.mass", "group": group, "quotes": quotes, **self._marks(marks)}

    def amend(self, change: AmendOrder) -> dict[str, Any]:
        """The fields of an `order.amend`."""
        fields = {"op": "order.amend", **_named(change)}
        if change.px is not None:
            fields["px"] = self.price(change.px)
        if change.qty is not None:
            fields["qty"] = whole(change.qty)
        if change.stop is not None:
            fields["stop"] = self.price(change.stop)
        return fields | _given(change, "deadline")

    def cancel(self, cancel: CancelOrder) -> dict[str, Any]:
        """The fields of an `order.cancel`."""
        return {"op": "order.cancel", **_named(cancel)}


class QuoteMarks(Struct, frozen=True):
    """What is the same for all quotes of a message."""

    post_only: bool = False
    slide: bool = False
    stp: SelfTrade | None = None
    stp_group: int | None = None
    deadline: int | None = None


def _given(request: Struct, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(request, name)) is not None}


def _named(request: AmendOrder | CancelOrder) -> dict[str, Any]:
    if (request.oid is None) == (request.cid is None):
        raise ValueError("name the order by oid or by cid")
    return {"oid": request.oid} if request.oid is not None else {"cid": request.cid}


def price_micros(px: Price) -> int:
    """A price in 10^-6 dollars. Raises TypeError for a float, ValueError for what is no exact price."""
    if isinstance(px, bool) or not isinstance(px, str | Decimal | int):
        raise TypeError(f"a price is a str, Decimal or int, not {type(px).__name__}: floats are not exact")
    try:
        number = Decimal(px)
    except InvalidOperation as error:
        raise ValueError(f"{px!r} is not a decimal number") from error
    if not number.is_finite() or number.adjusted() > 12:
        raise ValueError(f"{px!r} is not a price")
    if number.as_tuple().exponent < -6 and number != number.quantize(Decimal("0.000001")):  # type: ignore[operator]
        raise ValueError(f"{px!r} has more than six decimals")
    return int(number.scaleb(6))


def whole(qty: int) -> int:
    """A quantity. Raises TypeError unless it is an int."""
    if isinstance(qty, bool) or not isinstance(qty, int):
        raise TypeError(f"a quantity is an int of lots, not {type(qty).__name__}")
    return qty
