"""Mass quotes: ladders of a group become one command for each level that may have to change.

The engine finds a quote by account, symbol, group, side and the number of its level, and leaves alone what is already as it
shall be. What it cannot know is where a ladder has become shorter: so it is remembered which levels may be there, those on
their way too (fast/extents.py). Those beyond the new end are taken back with the same message, and to take back what cannot
be there is no command.

Compiled code (fast/quote.py) does the same for the usual message; here is what it declines, and what it is held against.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from engine.types import MAX_QTY, EventKind, Reason, Side
from gateway.config import GatewayConfig
from gateway.decimals import to_text
from gateway.fast import doors
from gateway.fast.tables import ITEMS, LADDER_LEVELS
from gateway.fast.templates import STATUSES, Outcome
from gateway.memory import Tables
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

ACTS: dict[int, Literal["new", "same", "replaced", "canceled"]] = {
    EventKind.NEW: "new",
    EventKind.REPLACED: "replaced",
    EventKind.CANCELED: "canceled",
    EventKind.QUOTE_KEPT: "same",
}
SIDES = (Side.BUY, Side.SELL)
SIDE_BYTES = LADDER_LEVELS // 8
Wish = tuple[int, int, int, int]
"""Side, number of the level, price in ticks, lots: 0 for none."""


class Extent:
    """What may be there of a ladder: a row of the tables, which see."""

    __slots__ = ("_row", "_tables")

    def __init__(self, tables: Tables, row: int) -> None:
        self._tables, self._row = tables, row

    @property
    def levels(self) -> tuple[int, int]:
        """Of each side, a bit for each level."""
        bits = self._tables.extent_levels[self._row].astype("<u4").tobytes()
        return int.from_bytes(bits[:SIDE_BYTES], "little"), int.from_bytes(bits[SIDE_BYTES:], "little")

    @levels.setter
    def levels(self, sides: tuple[int, int]) -> None:
        bits = b"".join(side.to_bytes(SIDE_BYTES, "little") for side in sides)
        self._tables.extent_levels[self._row] = np.frombuffer(bits, "<u4")

    @property
    def best_bid(self) -> int:
        """In ticks."""
        return int(self._tables.extents[self._row]["best_bid"])

    @best_bid.setter
    def best_bid(self, price: int) -> None:
        self._tables.extents[self._row]["best_bid"] = price

    def add(self, side: int, level: int) -> None:
        """A level may be there."""
        bids, asks = self.levels
        self.levels = (bids | 1 << level, asks) if side == Side.BUY else (bids, asks | 1 << level)

    def free_if_empty(self) -> None:
        """Forget it when nothing of it can be there."""
        if not any(self.levels):
            self._tables.do(doors.FREE_EXTENT, self._row)


@dataclass(slots=True)
class SidePlan:
    """A side of a ladder as it shall be: the results of its levels, and which of them the engine has to be asked for."""

    rows: list[QuoteResult] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)
    asked: list[QuoteResult] = field(default_factory=list)  # the rows of the wishes
    levels: int = 0  # that may be there afterwards
    is_given: bool = False

    def refuse(self, error: Error) -> None:
        """The next level cannot even be asked for."""
        self.rows.append(QuoteResult("refused", err=error))

    def ask(self, side: int, level: int, price: int, lots: int) -> None:
        """The next level is the engine's to decide."""
        self.rows.append(QuoteResult("refused"))
        self.asked.append(self.rows[-1])
        self.wishes.append((side, level, price, lots))
        self.levels = self.levels | 1 << level if lots else self.levels & ~(1 << level)


@dataclass(slots=True)
class Plan:
    """What is to be done about a ladder; without an instrument there is none of that name."""

    sym: str
    instrument: Instrument | None
    sides: tuple[SidePlan, SidePlan]
    extent: Extent | None = None


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
        self._under_way: dict[int, tuple[QuotesAsk, list[QuoteResult]]] = {}  # by the number of a batch
        orders.abandoned.append(self._abandon)

    def cost(self, request: MassQuote) -> int:
        """Tokens: one for each few levels; what only takes quotes back is free. Raises RequestError."""
        levels = [level for ladder in request.quotes for side in (ladder.b, ladder.a) for level in side or ()]
        if not request.quotes or len(levels) > self._config.max_quote_levels:
            raise RequestError(Code.TOO_LARGE, f"a mass quote has up to {self._config.max_quote_levels} levels")
        if len({ladder.sym for ladder in request.quotes}) < len(request.quotes):
            raise bad_field("quotes", "a symbol is there twice")
        if any(len(side or ()) > LADDER_LEVELS for ladder in request.quotes for side in (ladder.b, ladder.a)):
            raise RequestError(Code.TOO_LARGE, f"a side of a ladder has up to {LADDER_LEVELS} levels")
        if any(level[1] < 0 for level in levels):
            raise bad_field("quotes", "lots from 0 up")
        return -(-sum(level[1] > 0 for level in levels) // self._config.rate_quotes_per_token)

    def quote(self, ask: Ask, request: MassQuote) -> None:
        """Bring the quotes of a group to what is asked for. Raises RequestError."""
        self._tables.need_extents(ask.account, len(request.quotes))
        plans = [self._plan(ask, request.group, ladder) for ladder in request.quotes]
        self._check_room(ask, sum(len(side.wishes) for plan in plans for side in plan.sides))
        serial = ask.session.identity.key.serial if ask.session.identity and ask.session.identity.cod else 0
        group = stp_group(self._projection, ask.account, request.stp_group)
        terms = flags_of(request), serial, nanoseconds(request.deadline), group
        answer = QuotesAsk(ask, [LadderResult(plan.sym, plan.sides[0].rows, plan.sides[1].rows) for plan in plans])
        for plan in plans:
            self._send(answer, plan, request.group, terms)
        answer.done([])

    # --- What is to be done -------------------------------------------------------------------------------------------

    def _plan(self, ask: Ask, group: int, ladder: Ladder) -> Plan:
        instrument = self._projection.instrument_by_symbol.get(ladder.sym)
        if instrument is None:
            error = RequestError(Code.UNKNOWN_SYMBOL, f"{ladder.sym!r} is not listed").error
            plans = SidePlan(), SidePlan()
            for side in SIDES:
                for _ in _levels(ladder, side) or ():
                    plans[side].refuse(error)
            return Plan(ladder.sym, None, plans)
        extent = Extent(self._tables, self._tables.do(doors.EXTENT_OF, ask.account, instrument.number, group))
        present = extent.levels
        bids, asks = (_side(ask, instrument, side, _levels(ladder, side), present[side]) for side in SIDES)
        return Plan(ladder.sym, instrument, (bids, asks), extent)

    def _check_room(self, ask: Ask, commands: int) -> None:
        pending = self._orders.pending + commands
        if ask.session.pending + commands > self._config.max_pending_per_session:
            raise RequestError(Code.OVERLOADED, SESSION_IS_FULL.msg)
        if pending > self._config.max_pending or 2 * pending > len(self._tables.pendings):
            raise RequestError(Code.OVERLOADED, EXCHANGE_IS_FULL.msg)

    # --- Sending ------------------------------------------------------------------------------------------------------

    def _send(self, answer: QuotesAsk, plan: Plan, group: int, terms: tuple[int, ...]) -> None:
        """The side that moves away from the other goes first, so that a ladder that moves does not meet itself."""
        if plan.instrument is None or plan.extent is None:
            return
        bids, asks = plan.sides
        best_bid = max((price for _, _, price, lots in bids.wishes if lots), default=0)
        order = (1, 0) if best_bid > plan.extent.best_bid else (0, 1)
        if bids.is_given:
            plan.extent.best_bid = best_bid
        plan.extent.levels = bids.levels, asks.levels
        wishes = [wish for side in order for wish in plan.sides[side].wishes]
        rows = [row for side in order for row in plan.sides[side].asked]
        for start in range(0, len(wishes), ITEMS):
            part, asked = wishes[start : start + ITEMS], rows[start : start + ITEMS]
            self._orders.make_room(len(part))
            self._tables.wishes[: len(part)] = part
            self._tables.key[:4] = terms
            arguments = answer.session.row, answer.account, plan.instrument.number, group, len(part)
            batch = self._tables.do(doors.SEND_QUOTES, *arguments)
            if batch:
                answer.missing += 1
                self._under_way[batch] = answer, asked
                continue
            for row, (side, level, _, _) in zip(asked, part, strict=True):
                row.err = EXCHANGE_IS_FULL
                plan.extent.add(side, level)  # as it was, whatever that is
        plan.extent.free_if_empty()

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
                row.st = STATUSES[word - self._tables.head["phrase_status"]]
                row.kept = bool(kept) if has_kept else None
        elif outcome == Outcome.FUNDS:
            row.err = error_of(Reason.INSUFFICIENT_FUNDS)
            row.err.msg += f"; {to_text(cum)} is free"
        elif outcome == Outcome.FROZEN:
            row.err = error_of(Reason.MMP_FROZEN)
            row.err.until = cum
        else:
            row.err = self._tables.error_at(word)

    def _abandon(self, error: Error) -> None:
        self._tables.head["quotes"] = 0
        asks = dict.fromkeys(answer for answer, _ in self._under_way.values())
        self._under_way.clear()
        for answer in asks:
            answer.abandon(error)


def _levels(ladder: Ladder, side: Side) -> list[Level] | None:
    return ladder.b if side == Side.BUY else ladder.a


def _side(ask: Ask, instrument: Instrument, side: Side, levels: list[Level] | None, present: int) -> SidePlan:
    """A side that is not given stays; of one that is given, the levels beyond its end are not to be."""
    plan = SidePlan(levels=present)
    if levels is None:
        return plan
    plan.is_given = True
    wire, tick, highest = ask.session.wire, instrument.tick_micros, instrument.max_price
    for number, (px, lots) in enumerate(levels):
        if lots == 0 and not present >> number & 1:
            plan.rows.append(QuoteResult("none"))
        elif lots > MAX_QTY:
            plan.refuse(RequestError(Code.BAD_QTY, f"qty {lots}: up to {MAX_QTY} lots").error)
        else:
            try:
                plan.ask(side, number, ticks(px, wire, tick, highest) if lots else 0, lots)
            except RequestError as refusal:
                plan.refuse(refusal.error)
    for number in range(len(levels), present.bit_length()):
        if present >> number & 1:
            plan.ask(side, number, 0, 0)
    return plan
