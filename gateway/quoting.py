"""Mass quotes: ladders of a group become one command for each level that may have to change.

The engine finds a quote by account, symbol, group, side and the number of its level, and leaves alone what is already as it
shall be. What it cannot know is where a ladder has become shorter: so it is remembered here how many levels may be there,
counting those that are on their way, and those beyond the new end are taken back with the same message.
"""

from dataclasses import dataclass, field
from typing import Literal

from engine.types import MAX_QTY, EventKind, Reason, Side
from gateway.config import GatewayConfig
from gateway.decimals import to_text
from gateway.fast import doors
from gateway.fast.tables import ITEMS
from gateway.fast.templates import STATUSES, Outcome
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
from gateway.order_entry import EXCHANGE_IS_FULL, SESSION_IS_FULL, OrderEntry, error_of
from gateway.projection import Instrument, Projection
from gateway.session import Ask
from gateway.terms import flags_of, nanoseconds, stp_group, ticks

MOST_GROUPS = 10_000
"""Ladders of an account that are remembered; beyond, those that are on their way and in no book yet are forgotten."""
ACTS: dict[int, Literal["new", "same", "replaced", "canceled"]] = {
    EventKind.NEW: "new",
    EventKind.REPLACED: "replaced",
    EventKind.CANCELED: "canceled",
    EventKind.QUOTE_KEPT: "same",
}
SIDES = (Side.BUY, Side.SELL)
Wish = tuple[int, int, int, int]
"""Side, number of the level, price in ticks, lots: 0 for none."""


class Extent:
    """How many levels of a ladder may be there on each side, and its best bid, in ticks."""

    __slots__ = ("best_bid", "levels")

    def __init__(self) -> None:
        self.levels = [0, 0]
        self.best_bid = 0


@dataclass(slots=True)
class SidePlan:
    """A side of a ladder as it shall be: an error for each level that cannot even be asked for."""

    wishes: list[Wish] = field(default_factory=list)
    errors: list[Error | None] = field(default_factory=list)  # of each level, None for those in `wishes`
    levels: int = 0  # that may be there afterwards


@dataclass(slots=True)
class Plan:
    """What is to be done about a ladder; without an instrument there is none of that name."""

    instrument: Instrument | None
    sides: tuple[SidePlan, SidePlan]
    extent: Extent = field(default_factory=Extent)


class QuotesAsk(Ask):
    """A mass quote: answered when all its levels are, before the private events that they cause.

    It takes the place of `ask`, which must not be answered.
    """

    __slots__ = ("_firsts", "missing", "results")

    def __init__(self, ask: Ask, results: list[LadderResult]) -> None:
        super().__init__(ask.session, ask.request_id, ask.t_in, ask.account)
        self.bucket = ask.bucket
        self.session.pending -= 1  # one request, not two
        self.results = results
        self.missing = 1  # all sent
        self._firsts: list[int] = []
        self.session.hold()

    def done(self, aseqs: list[int]) -> None:
        """A part is done, and its private events begin with the smallest of these numbers that is not 0."""
        self._firsts += filter(None, aseqs)
        self.missing -= 1
        if self.missing == 0:
            self.ok(MassQuoteResult(self.results), min(self._firsts, default=None))
            self.session.release()

    def abandon(self, error: Error) -> None:
        """Nobody knows how it ends."""
        self.fail(error)
        self.session.release()


class Quotes:
    """The handler of `quote.mass`. Its commands are answered level by level in compiled code, and together here."""

    def __init__(self, projection: Projection, orders: OrderEntry, config: GatewayConfig) -> None:
        self._projection = projection
        self._orders = orders
        self._config = config
        self._tables = projection.tables
        self._extents: dict[int, dict[tuple[int, int], Extent]] = {}  # account -> (instrument, group)
        self._under_way: dict[int, tuple[QuotesAsk, list[QuoteResult]]] = {}  # by the number of a batch
        orders.abandoned.append(self._abandon)

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
        """Bring the quotes of a group to what is asked for. Raises RequestError."""
        plans = [self._plan(ask, request.group, ladder) for ladder in request.quotes]
        self._check_room(ask, sum(len(side.wishes) for plan in plans for side in plan.sides))
        serial = ask.session.identity.key.serial if ask.session.identity and ask.session.identity.cod else 0
        group = stp_group(self._projection, ask.account, request.stp_group)
        terms = flags_of(request), serial, nanoseconds(request.deadline), group
        names = [ladder.sym for ladder in request.quotes]
        results = [LadderResult(sym, *map(_refused, plan.sides)) for sym, plan in zip(names, plans, strict=True)]
        answer = QuotesAsk(ask, results)
        for plan, result in zip(plans, results, strict=True):
            if plan.instrument is not None:
                self._send(answer, plan, request.group, terms, result)
                self._note(ask.account, (plan.instrument.number, request.group), plan)
        answer.done([])

    # --- What is to be done -------------------------------------------------------------------------------------------

    def _plan(self, ask: Ask, group: int, ladder: Ladder) -> Plan:
        instrument = self._projection.instrument_by_symbol.get(ladder.sym)
        if instrument is None:
            error = RequestError(Code.UNKNOWN_SYMBOL, f"{ladder.sym!r} is not listed").error
            bids, asks = (SidePlan(errors=[error] * len(_side(ladder, side))) for side in SIDES)
            return Plan(None, (bids, asks))
        extent = self._extent(ask.account, instrument.number, group)
        bids, asks = (self._side(ask, instrument, ladder, side, extent.levels[side]) for side in SIDES)
        return Plan(instrument, (bids, asks), extent)

    def _side(self, ask: Ask, instrument: Instrument, ladder: Ladder, side: Side, present: int) -> SidePlan:
        """A side that is not given stays; of one that is given, the levels beyond its end are not to be."""
        plan = SidePlan(levels=present)
        if not _is_given(ladder, side):
            return plan
        levels, wire = _side(ladder, side), ask.session.wire
        tick, highest = instrument.tick_micros, instrument.max_price
        for number, (px, lots) in enumerate(levels):
            try:
                if lots > MAX_QTY:
                    raise RequestError(Code.BAD_QTY, f"qty {lots}: up to {MAX_QTY} lots")
                plan.wishes.append((side, number, ticks(px, wire, tick, highest) if lots else 0, lots))
                plan.errors.append(None)
            except RequestError as refusal:
                plan.errors.append(refusal.error)
        plan.wishes += [(side, number, 0, 0) for number in range(len(levels), present)]
        plan.errors += [None] * (present - len(levels))
        # What is refused here may stand beyond the new end still.
        plan.levels = len(levels) if all(error is None for error in plan.errors) else max(len(levels), present)
        return plan

    def _check_room(self, ask: Ask, commands: int) -> None:
        pending = self._orders.pending + commands
        if ask.session.pending + commands > self._config.max_pending_per_session:
            raise RequestError(Code.OVERLOADED, SESSION_IS_FULL.msg)
        if pending > self._config.max_pending or 2 * pending > len(self._tables.pendings):
            raise RequestError(Code.OVERLOADED, EXCHANGE_IS_FULL.msg)

    # --- Sending ------------------------------------------------------------------------------------------------------

    def _send(self, answer: QuotesAsk, plan: Plan, group: int, terms: tuple[int, ...], result: LadderResult) -> None:
        """The side that moves away from the other goes first, so that a ladder that moves does not meet itself."""
        assert plan.instrument is not None
        best_bid = max((price for _, _, price, lots in plan.sides[0].wishes if lots), default=0)
        order = (1, 0) if best_bid > plan.extent.best_bid else (0, 1)
        plan.extent.best_bid = best_bid
        wishes = [wish for side in order for wish in plan.sides[side].wishes]
        rows = [row for side in order for row in (result.b, result.a)[side] if row.err is None]
        for start in range(0, len(wishes), ITEMS):
            part = wishes[start : start + ITEMS]
            self._orders.make_room(len(part))
            self._tables.wishes[: len(part)] = part
            self._tables.key[:4] = terms
            arguments = answer.session.row, answer.account, plan.instrument.number, group, len(part)
            batch = self._tables.do(doors.SEND_QUOTES, *arguments)
            if batch:
                answer.missing += 1
                self._under_way[batch] = answer, rows[start : start + ITEMS]
            else:
                for row in rows[start : start + ITEMS]:
                    row.err = EXCHANGE_IS_FULL

    def _note(self, account: int, key: tuple[int, int], plan: Plan) -> None:
        plan.extent.levels = [side.levels for side in plan.sides]
        if not any(plan.extent.levels):
            self._extents[account].pop(key, None)

    # --- Answers ------------------------------------------------------------------------------------------------------

    def take_results(self, batch: int) -> None:
        """All levels of a batch are done; what became of them is in the tables."""
        self._tables.head["quotes"] = 0
        answer, rows = self._under_way.pop(batch)
        start = (batch - 1) * ITEMS
        found = self._tables.results[start : start + len(rows)]
        columns = [
            found[name].tolist()
            for name in ("outcome", "act", "oid", "left", "cum", "word", "has_kept", "kept", "aseq")
        ]
        for row, *values in zip(rows, *columns, strict=True):
            self._fill(row, *values)
        answer.done(columns[-1])

    def _fill(  # noqa: PLR0913, PLR0917
        self, row: QuoteResult, outcome: int, act: int, oid: int, left: int, cum: int, word: int,
        has_kept: int, kept: int, _aseq: int,
    ) -> None:  # fmt: skip
        if outcome == Outcome.ORDER:
            row.act = ACTS[act] if oid else "none"
            if oid:
                row.oid, row.left, row.cum = oid, left, cum
                row.st = STATUSES[word - int(self._tables.head["phrase_status"])]
                row.kept = bool(kept) if has_kept else None
        elif outcome == Outcome.FUNDS:
            row.err = error_of(Reason.INSUFFICIENT_FUNDS)
            row.err.msg += f"; {to_text(cum)} is free"
        else:
            row.err = self._tables.error_at(word)

    def _abandon(self, error: Error) -> None:
        self._tables.head["quotes"] = 0
        asks = dict.fromkeys(answer for answer, _ in self._under_way.values())
        self._under_way.clear()
        for answer in asks:
            answer.abandon(error)

    # --- What is there ------------------------------------------------------------------------------------------------

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


def _refused(side: SidePlan) -> list[QuoteResult]:
    """The results of a side's levels before the engine has said anything."""
    return [QuoteResult("refused", err=error) for error in side.errors]
