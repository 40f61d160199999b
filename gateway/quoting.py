"""Mass quotes: ladders of a group become one command for each level that may have to change.

The engine finds a quote by account, symbol, group, side and the number of its level, and leaves alone what is already as it
shall be. What it cannot know is where a ladder has become shorter: so it is remembered here how many levels may be there,
counting those that are on their way, and those beyond the new end are taken back with the same message.
"""

from typing import Any, Literal, NamedTuple

from engine.types import MAX_QTY, EventKind, Kind, Reason, Side, TimeInForce
from gateway.commands import Command
from gateway.config import GatewayConfig
from gateway.messages import (
    Code,
    Error,
    Ladder,
    LadderResult,
    Level,
    MassQuote,
    MassQuoteResult,
    QuoteResult,
    RequestError,
    bad_field,
)
from gateway.order_entry import OrderEntry
from gateway.projection import Instrument, Projection
from gateway.rows import Step
from gateway.session import Ask, PartAsk, PartsAsk
from gateway.terms import flags_of, nanoseconds, stp_group, ticks

MOST_GROUPS = 10_000
"""Ladders of an account that are remembered; beyond, those that are on their way and in no book yet are forgotten."""


class Extent:
    """How many levels of a ladder may be there on each side, and its best bid, in ticks."""

    __slots__ = ("best_bid", "levels")

    def __init__(self) -> None:
        self.levels = [0, 0]
        self.best_bid = 0


class Wish(NamedTuple):
    """One level as it shall be. `lots` 0: none."""

    side: int
    level: int
    px: int | str
    lots: int


ACTS: dict[int, Literal["new", "same", "replaced", "canceled"]] = {
    EventKind.NEW: "new",
    EventKind.REPLACED: "replaced",
    EventKind.CANCELED: "canceled",
    EventKind.QUOTE_KEPT: "same",
}


class Quotes:
    """The handler of `quote.mass`."""

    def __init__(self, projection: Projection, orders: OrderEntry, config: GatewayConfig) -> None:
        self._projection = projection
        self._orders = orders
        self._config = config
        self._extents: dict[int, dict[tuple[int, int], Extent]] = {}  # account -> (instrument, group)

    def cost(self, request: MassQuote) -> int:
        """Tokens: one for each few levels; what only takes quotes back is free. Raises RequestError."""
        levels = [level for ladder in request.quotes for side in (ladder.b, ladder.a) for level in side or ()]
        if not request.quotes or len(levels) > self._config.max_quote_levels:
            raise RequestError(Code.TOO_LARGE, f"a mass quote has up to {self._config.max_quote_levels} levels")
        if len({ladder.sym for ladder in request.quotes}) < len(request.quotes):
            raise bad_field("quotes", "a symbol is there twice")
        if any(level[1] < 0 for level in levels):
            raise bad_field("quotes", "lots from 0 up")
        return -(-sum(level[1] > 0 for level in levels) // self._config.rate_quotes_per_token)

    def quote(self, ask: Ask, request: MassQuote) -> None:
        """Bring the quotes of a group to what is asked for."""
        answer = QuotesAsk(ask, request)
        for place, ladder in enumerate(request.quotes):
            instrument = self._projection.instrument_by_symbol.get(ladder.sym)
            if instrument is None:
                error = RequestError(Code.UNKNOWN_SYMBOL, f"{ladder.sym!r} is not listed").error
                for side in (Side.BUY, Side.SELL):
                    for _ in _side(ladder, side):
                        answer.part(place, side).fail(error)
            else:
                self._ladder(answer, place, instrument, ladder)
        answer.sent()

    def _ladder(self, answer: "QuotesAsk", place: int, instrument: Instrument, ladder: Ladder) -> None:
        extent = self._extent(answer.account, instrument.number, answer.request.group)
        wishes = {side: self._wishes(ladder, side, extent.levels[side]) for side in (Side.BUY, Side.SELL)}
        parts = {side: [answer.part(place, side) for _ in wishes[side]] for side in wishes}
        # The side that moves away from the other goes first, so that a ladder that moves does not meet itself.
        best_bid = _best(ladder.b, answer, instrument)
        order = (Side.SELL, Side.BUY) if best_bid > extent.best_bid else (Side.BUY, Side.SELL)
        extent.best_bid = best_bid
        for side in order:
            are_sent = True
            for wish, part in zip(wishes[side], parts[side], strict=True):
                try:
                    command = self._command(answer, instrument, wish)
                    self._orders.request(part, command, self._answer)
                except RequestError as refusal:
                    part.fail(refusal.error)
                    are_sent = False
            if _is_given(ladder, side):
                asked = len(_side(ladder, side))
                extent.levels[side] = asked if are_sent else max(asked, extent.levels[side])
        if not any(extent.levels):
            self._extents[answer.account].pop((instrument.number, answer.request.group), None)

    def _wishes(self, ladder: Ladder, side: Side, present: int) -> list[Wish]:
        """The levels of a side as they shall be; those beyond its end are not to be."""
        if not _is_given(ladder, side):
            return []
        levels = _side(ladder, side)
        asked = [Wish(side, number, px, lots) for number, (px, lots) in enumerate(levels)]
        return asked + [Wish(side, number, 0, 0) for number in range(len(levels), present)]

    def _command(self, answer: "QuotesAsk", instrument: Instrument, wish: Wish) -> Command:
        request, identity = answer.request, answer.session.identity
        if wish.lots > MAX_QTY:
            raise RequestError(Code.BAD_QTY, f"qty {wish.lots}: up to {MAX_QTY} lots")
        terms = answer.session.wire, instrument.tick_micros, instrument.max_price
        return Command(
            Kind.QUOTE,
            answer.account,
            instrument.number,
            side=wish.side,
            time_in_force=TimeInForce.GTG,
            flags=flags_of(request),
            price=ticks(wish.px, *terms) if wish.lots else 0,
            qty=wish.lots,
            session=identity.key.serial if identity is not None and identity.cod else 0,
            group=request.group,
            deadline_ns=nanoseconds(request.deadline),
            tag=wish.level,
            stp_group=stp_group(self._projection, answer.account, request.stp_group),
        )

    def _answer(self, step: Step, ask: Ask, aseq: int | None) -> None:
        event = step.events[0] if step.events else None
        if event is None or event.kind == EventKind.REJECTED:
            ask.fail(self._orders.refusal(step))
            return
        order = self._projection.orders.get(getattr(event, "order_id", 0))
        if order is None:
            ask.ok(QuoteResult("none"), aseq)
            return
        result = QuoteResult(ACTS[event.kind], order.id, order.leaves, order.cum, order.status)
        if event.kind == EventKind.REPLACED:
            result.kept = event.reason == Reason.KEPT
        ask.ok(result, aseq)

    def _extent(self, account: int, instrument: int, group: int) -> Extent:
        extents = self._extents.get(account)
        if extents is None or len(extents) >= MOST_GROUPS:
            extents = self._extents[account] = self._working(account)
        return extents.setdefault((instrument, group), Extent())

    def _working(self, account: int) -> dict[tuple[int, int], Extent]:
        """What is in the books, as after a restart."""
        found: dict[tuple[int, int], Extent] = {}
        for order in self._projection.accounts[account].orders.values():
            if order.level >= 0:
                extent = found.setdefault((order.instrument, order.group), Extent())
                extent.levels[order.side] = max(extent.levels[order.side], order.level + 1)
                if order.side == Side.BUY:
                    extent.best_bid = max(extent.best_bid, order.price)
        return found


def _is_given(ladder: Ladder, side: Side) -> bool:
    return (ladder.b if side == Side.BUY else ladder.a) is not None


def _side(ladder: Ladder, side: Side) -> list[Level]:
    return (ladder.b if side == Side.BUY else ladder.a) or []


def _best(bids: list[Level] | None, answer: "QuotesAsk", instrument: Instrument) -> int:
    """The best bid asked for, in ticks; 0 when there is none that can be read."""
    best = 0
    for px, lots in bids or ():
        try:
            price = ticks(px, answer.session.wire, instrument.tick_micros, instrument.max_price)
        except RequestError:
            continue
        best = max(best, price if lots else 0)
    return best


class QuotesAsk(PartsAsk):
    """A mass quote: answered when all its levels are."""

    __slots__ = ("_places", "request")

    def __init__(self, ask: Ask, request: MassQuote) -> None:
        super().__init__(ask)
        self.request = request
        self._places: list[tuple[int, Side]] = []

    def part(self, place: int, side: Side) -> PartAsk:
        """The part that answers a level."""
        self._places.append((place, side))
        return self.next_part()

    def result(self, results: list[Any]) -> MassQuoteResult:
        """The answers of all parts, each in the place of its level."""
        ladders = [LadderResult(ladder.sym, [], []) for ladder in self.request.quotes]
        for (place, side), found in zip(self._places, results, strict=True):
            row = QuoteResult("refused", err=found) if isinstance(found, Error) else found
            (ladders[place].b if side == Side.BUY else ladders[place].a).append(row)
        return MassQuoteResult(ladders)
