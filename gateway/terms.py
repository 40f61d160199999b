"""What a request about orders says, in the engine's numbers: types, times in force, flags, prices, times.

Fields that only Flag.EXTENDED brings are read by the engine from further cache lines, so the flag is set only where one of
them is used.
"""

from engine.types import Flag, TimeInForce
from gateway.decimals import InexactError, from_text, to_text
from gateway.fast.tables import LAST_OWNER, STP_GROUP_BITS
from gateway.messages import Amend, Code, Format, MassQuote, Place, RequestError, bad_field
from gateway.private import STP_NAMES, TIF_NAMES, TYPE_NAMES
from gateway.projection import Projection, owner

TYPE_NUMBERS = {name: number for number, name in TYPE_NAMES.items()}
TIF_NUMBERS = {name: number for number, name in TIF_NAMES.items()}
STP_FLAGS = {name: flag for flag, name in STP_NAMES.items()}
POST_FLAGS = {"reject": Flag.POST_ONLY, "slide": Flag.SLIDE}
IMMEDIATE = (TimeInForce.IOC, TimeInForce.FOK)
US = 1_000
"""Nanoseconds."""
EXTENDED_FIELDS = ("stop", "show", "min_qty", "expire", "deadline", "tag", "stp_group")


def check_place(request: Place) -> int:
    """The time in force of an order whose fields fit each other. Raises RequestError."""
    is_market, is_stop = request.type == "market", request.type in ("stop", "stop_limit")
    tif = TIF_NUMBERS[request.tif or ("ioc" if is_market else "gtg")]
    if (is_market and tif not in IMMEDIATE) or (request.post and (tif in IMMEDIATE or request.type != "limit")):
        raise RequestError(
            Code.BAD_TIF, "a market order is ioc or fok, a post-only order a limit order gtg, gtc or gtd"
        )
    if (request.expire is None) == (tif == TimeInForce.GTD):
        raise bad_field("expire", "a gtd order says when it ends, no other does")
    has_price = request.type in ("limit", "stop_limit")
    if has_price != (request.px is not None):
        raise bad_field("px", f"a {request.type} order has {'a' if has_price else 'no'} price")
    if is_stop != (request.stop is not None):
        raise bad_field("stop", f"a {request.type} order has {'a trigger' if is_stop else 'none'}")
    if request.trigger is not None and not is_stop:
        raise bad_field("trigger", f"a {request.type} order has none")
    return tif


def flags_of(request: Place | MassQuote) -> int:
    """The flags of an order or a quote."""
    flags = POST_FLAGS[request.post] if request.post is not None else 0
    if request.stp is not None:
        flags |= STP_FLAGS[request.stp]
    if isinstance(request, Place):
        flags |= Flag.REDUCE_ONLY if request.reduce_only else 0
        if any(getattr(request, name) is not None for name in EXTENDED_FIELDS):
            flags |= Flag.EXTENDED
    return int(flags)


def nanoseconds(time_us: int | None) -> int:
    """A time of a request as the engine takes it: 0 for none."""
    return 0 if time_us is None else time_us * US


def stp_group(projection: Projection, account: int, number: int | None) -> int:
    """The engine's self-trade group for an owner's own number of one. The same number of another owner is another group:
    nobody can have the orders of others cancelled.
    """
    if number is None:
        return 0
    name = projection.accounts[account].name
    first = projection.first_of_owner[owner(name)]
    if first > LAST_OWNER:
        raise RequestError(Code.NOT_AVAILABLE, "no more owners can have groups of accounts")
    return first << STP_GROUP_BITS | number


def ticks(px: int | str, wire: Format, tick_micros: int, max_price: int, field: str = "px") -> int:
    """A price of a request in ticks. Raises RequestError."""
    if wire is Format.JSON:
        if not isinstance(px, str):
            raise bad_field(field, "in JSON a price is a decimal string")
        try:
            px = from_text(px)
        except InexactError as error:
            raise RequestError(Code.BAD_PRICE, str(error)) from error
        except ValueError as error:
            raise bad_field(field, str(error)) from error
    elif not isinstance(px, int):
        raise bad_field(field, "in MessagePack a price is an integer of 10^-6")
    found, rest = divmod(px, tick_micros)
    if rest:
        raise RequestError(Code.BAD_PRICE, f"{to_text(px)} is not a multiple of the tick, {to_text(tick_micros)}")
    if not 0 <= found <= max_price:
        raise RequestError(Code.BAD_PRICE, f"{to_text(px)} is not from 0 to {to_text(max_price * tick_micros)}")
    return found


def amended_flags(request: Amend) -> int:
    """The flags of an amend."""
    return int(Flag.EXTENDED) if request.stop is not None or request.deadline is not None else 0
