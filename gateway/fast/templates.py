"""Messages as templates: what the general encoder writes of a message, with holes where its values go.

A template is made by encoding a message whose values are marks, and cutting the bytes at the marks. So names, order, tags,
and what is left out come from the structs in gateway/messages.py and from msgspec, and nothing about a message is said twice.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np

from engine.types import Reason
from gateway.decimals import to_text
from gateway.fast.tables import OP
from gateway.messages import (
    BalanceEvent,
    BalanceState,
    BatchResult,
    Code,
    Error,
    Fill,
    Format,
    ItemResult,
    LadderResult,
    MassQuoteResult,
    OrderEvent,
    OrderResult,
    OrderStatus,
    PositionEvent,
    PositionState,
    QuoteResult,
    Reply,
    SideName,
    StpName,
    encode,
)

WIRES = (Format.JSON, Format.MSGPACK)


class Hole(IntEnum):
    """What a hole takes. The value is in `holes`, at the hole's number."""

    END = 0
    INT = 1
    MONEY = 2
    TEXT = 3  # the row of `texts`
    CID = 4  # the same; null when it is empty
    PHRASE = 5  # the number of a phrase: a value that is encoded beforehand
    BOOL = 6
    SCRATCH = 7  # text in `scratch`; the value is its length
    ITEMS = 8  # a list that is written by others


class Mark(NamedTuple):
    """How a hole looks in the encoded message."""

    kind: Hole
    number: int

    @property
    def value(self) -> Any:
        """What stands in the message for the encoder to write."""
        base = 7_000_000_000_000_000
        if self.kind == Hole.INT:
            return base + self.number
        if self.kind == Hole.MONEY:
            return 2 * base + self.number + 1
        text = f"~{self.kind}{self.number:02}~"
        return [text] if self.kind == Hole.ITEMS else text

    def encoded(self, wire: Format) -> bytes:
        """How the encoder writes it."""
        value = to_text(self.value) if self.kind == Hole.MONEY and wire is Format.JSON else self.value
        return msgspec.json.encode(value) if wire is Format.JSON else msgspec.msgpack.encode(value)


class Marks:
    """The holes of a template, in the order in which they were asked for; each takes the next number."""

    def __init__(self) -> None:
        self.made: list[Mark] = []

    def __call__(self, kind: Hole, number: int | None = None) -> Any:
        mark = Mark(kind, len(self.made) if number is None else number)
        self.made.append(mark)
        return mark.value


def cut(message: Any, marks: Marks, wire: Format) -> list[tuple[bytes, Hole, int]]:
    """The message as pieces: literal bytes, and the hole behind them; the last piece has none."""
    data = encode(message, wire)
    found = []
    for mark in marks.made:
        text = mark.encoded(wire)
        assert data.count(text) == 1, (mark, data)
        found.append((data.index(text), len(text), mark))
    pieces, at = [], 0
    for start, size, mark in sorted(found, key=lambda one: one[0]):
        pieces.append((data[at:start], mark.kind, mark.number))
        at = start + size
    return [*pieces, (data[at:], Hole.END, 0)]


# --- The messages -----------------------------------------------------------------------------------------------------

INT, MONEY, TEXT, CID = Hole.INT, Hole.MONEY, Hole.TEXT, Hole.CID
PHRASE, BOOL, SCRATCH = Hole.PHRASE, Hole.BOOL, Hole.SCRATCH
CID_TEXT, SYMBOL_TEXT = 0, 1  # rows of `texts`


def _order_event(mark: Marks, exec_: Any, **more: Any) -> OrderEvent:
    return OrderEvent(
        aseq=mark(INT), seq=mark(INT), ts=mark(INT), exec=exec_, oid=mark(INT), px=mark(MONEY), qty=mark(INT),
        left=mark(INT), cum=mark(INT), side=mark(PHRASE), type=mark(PHRASE), tif=mark(PHRASE), post=mark(BOOL),
        st=mark(PHRASE), **{name: mark(kind) for name, kind in more.items()}, cid=mark(CID, CID_TEXT),
        sym=mark(TEXT, SYMBOL_TEXT),
    )  # fmt: skip


GROUP, LEVEL, TAG, STP, STP_GROUP = 14, 15, 15, 16, 17  # holes; of a quote the level stands where others have a tag


class Term(IntEnum):
    """What an order may have beyond a plain one, a bit each: every set of them has templates of its own."""

    STP = 1
    STP_GROUP = 2
    GROUP = 4
    TAG = 8


ORDER_TERMS, QUOTE_TERMS = range(1, 16), range(1, 4)
"""Sets of terms other than none. A quote has its group in any case, and no tag."""


def _quote_event(mark: Marks, exec_: Any, terms: int = 0, **more: Any) -> OrderEvent:
    event = _labelled_event(mark, exec_, terms, **more)
    event.group, event.level = mark(INT, GROUP), mark(INT, LEVEL)
    return event


def _labelled_event(mark: Marks, exec_: Any, terms: int, **more: Any) -> OrderEvent:
    event = _order_event(mark, exec_, **more)
    if terms & Term.STP:
        event.stp = mark(PHRASE, STP)
    if terms & Term.STP_GROUP:
        event.stp_group = mark(INT, STP_GROUP)
    if terms & Term.GROUP:
        event.group = mark(INT, GROUP)
    if terms & Term.TAG:
        event.tag = mark(INT, TAG)
    return event


def _fill(mark: Marks) -> Fill:
    return Fill(
        aseq=mark(INT), seq=mark(INT), ts=mark(INT), tid=mark(INT), oid=mark(INT), px=mark(MONEY), qty=mark(INT),
        left=mark(INT), cum=mark(INT), side=mark(PHRASE), st=mark(PHRASE), liq=mark(PHRASE), fee=mark(MONEY),
        fee_due=mark(MONEY), cid=mark(CID, CID_TEXT), sym=mark(TEXT, SYMBOL_TEXT),
    )  # fmt: skip


def _position(mark: Marks) -> PositionEvent:
    head = {name: mark(INT) for name in ("aseq", "seq", "ts")}
    state = PositionState(
        net=mark(INT), capacity=mark(INT), open_buy=mark(INT), open_sell=mark(INT), escrow=mark(MONEY),
        fees_due=mark(MONEY), bond=mark(MONEY), sym=mark(TEXT, SYMBOL_TEXT),
    )  # fmt: skip
    return PositionEvent(**head, position=state)


def _balance(mark: Marks) -> BalanceEvent:
    head = {name: mark(INT) for name in ("aseq", "seq", "ts")}
    return BalanceEvent(**head, balances=BalanceState(*[mark(MONEY) for _ in BalanceState.__struct_fields__]))


# What a request came to. Numbers of the holes: id, t_in, t_out, aseq, oid, left, cum, st or error, kept.
ID, T_IN, T_OUT, ASEQ, OID, LEFT, CUM, WORD, KEPT, ACT = range(10)


def _result(mark: Marks, kept: bool) -> OrderResult:
    result = OrderResult(mark(INT, OID), mark(CID, CID_TEXT), mark(PHRASE, WORD), mark(INT, LEFT), mark(INT, CUM))
    if kept:
        result.kept = mark(BOOL, KEPT)
    return result


def _ok(mark: Marks, aseq: bool, r: Any, dup: bool = False) -> Reply:
    times = mark(INT, ID), True, mark(INT, T_IN), mark(INT, T_OUT)
    return Reply(*times, mark(INT, ASEQ) if aseq else None, dup, r=r)


def _item(mark: Marks, aseq: bool, kept: bool) -> ItemResult:
    return ItemResult(True, mark(INT, ASEQ) if aseq else None, r=_result(mark, kept))


def _error(mark: Marks, code: Code) -> Error:
    return Error(code, code.name, True, mark(SCRATCH, WORD))


class Shown(IntEnum):
    """What a level's result says beyond what all say, a bit each."""

    KEPT = 1
    LEFT = 2
    CUM = 4


def _level(mark: Marks, shown: int) -> QuoteResult:
    result = QuoteResult(mark(PHRASE, ACT), mark(INT, OID), st=mark(PHRASE, WORD))
    if shown & Shown.KEPT:
        result.kept = mark(BOOL, KEPT)
    if shown & Shown.LEFT:
        result.left = mark(INT, LEFT)
    if shown & Shown.CUM:
        result.cum = mark(INT, CUM)
    return result


def _ladder(mark: Marks) -> LadderResult:
    return LadderResult(mark(TEXT, SYMBOL_TEXT), mark(Hole.ITEMS, OID), mark(Hole.ITEMS, WORD))


def _frozen(mark: Marks) -> Error:
    return Error(Code.MMP_FROZEN, Code.MMP_FROZEN.name, True, mark(PHRASE, WORD), until=mark(INT, CUM))


class Outcome(IntEnum):
    """What a request came to, and how that is said."""

    ORDER = 0  # where the order stands
    ERROR = 1  # a phrase
    FUNDS = 2  # INSUFFICIENT_FUNDS, with what is free
    DONE = 3  # ORDER_NOT_FOUND, with what became of the order
    FROZEN = 4  # MMP_FROZEN, with the time until which it is


MESSAGES: dict[str, Any] = {
    "kept_by_python": lambda mark: None,
    "order_new": lambda mark: _order_event(mark, "new"),
    "order_canceled": lambda mark: _order_event(mark, "canceled", why=PHRASE),
    "order_replaced": lambda mark: _order_event(mark, "replaced", kept=BOOL),
    # In the same order, of quotes.
    "quote_new": lambda mark: _quote_event(mark, "new"),
    "quote_canceled": lambda mark: _quote_event(mark, "canceled", why=PHRASE),
    "quote_replaced": lambda mark: _quote_event(mark, "replaced", kept=BOOL),
    "fill": _fill,
    "position": _position,
    "balance": _balance,
    # In the order of 2 * has_aseq + has_kept.
    "reply": lambda mark: _ok(mark, False, _result(mark, False)),
    "reply_kept": lambda mark: _ok(mark, False, _result(mark, True)),
    "reply_aseq": lambda mark: _ok(mark, True, _result(mark, False)),
    "reply_aseq_kept": lambda mark: _ok(mark, True, _result(mark, True)),
    "reply_dup": lambda mark: _ok(mark, False, _result(mark, False), dup=True),
    "item": lambda mark: _item(mark, False, False),
    "item_kept": lambda mark: _item(mark, False, True),
    "item_aseq": lambda mark: _item(mark, True, False),
    "item_aseq_kept": lambda mark: _item(mark, True, True),
    "item_dup": lambda mark: ItemResult(True, dup=True, r=_result(mark, False)),
    # In the order of Outcome.
    "reply_error": lambda mark: _refused(mark, mark(PHRASE, WORD)),
    "reply_funds": lambda mark: _refused(mark, _error(mark, Code.INSUFFICIENT_FUNDS)),
    "reply_done": lambda mark: _refused(mark, _error(mark, Code.ORDER_NOT_FOUND)),
    "item_error": lambda mark: ItemResult(False, err=mark(PHRASE, WORD)),
    "item_funds": lambda mark: ItemResult(False, err=_error(mark, Code.INSUFFICIENT_FUNDS)),
    "item_done": lambda mark: ItemResult(False, err=_error(mark, Code.ORDER_NOT_FOUND)),
    # The items stand where a list of them would, so the head ends and the tail begins there.
    "batch": lambda mark: _ok(mark, False, BatchResult(mark(Hole.ITEMS, WORD))),
    "batch_aseq": lambda mark: _ok(mark, True, BatchResult(mark(Hole.ITEMS, WORD))),
}


def _refused(mark: Marks, err: Any) -> Reply:
    return Reply(mark(INT, ID), False, mark(INT, T_IN), mark(INT, T_OUT), err=err)


def _add_labelled(name: str, make: Callable[..., Any], sets: Iterable[int]) -> None:
    """In the order of the sets, and in each as above."""
    for terms in sets:
        for exec_, more in (("new", {}), ("canceled", {"why": PHRASE}), ("replaced", {"kept": BOOL})):
            MESSAGES[f"{name}_{exec_}_{terms}"] = partial(make, exec_=exec_, terms=terms, **more)


# Behind the others: stored private events have the numbers of their templates.
_add_labelled("order", _labelled_event, ORDER_TERMS)
_add_labelled("quote", _quote_event, QUOTE_TERMS)
MESSAGES |= {
    "mass": lambda mark: _ok(mark, False, MassQuoteResult(mark(Hole.ITEMS, WORD))),
    "mass_aseq": lambda mark: _ok(mark, True, MassQuoteResult(mark(Hole.ITEMS, WORD))),
    "ladder": _ladder,
    "level_none": lambda mark: QuoteResult("none"),
    # In the order of Outcome, from ERROR on.
    "level_error": lambda mark: QuoteResult("refused", err=mark(PHRASE, WORD)),
    "level_funds": lambda mark: QuoteResult("refused", err=_error(mark, Code.INSUFFICIENT_FUNDS)),
    "level_frozen": lambda mark: QuoteResult("refused", err=_frozen(mark)),
    "reply_frozen": lambda mark: _refused(mark, _frozen(mark)),
    "item_frozen": lambda mark: ItemResult(False, err=_frozen(mark)),
    # In the order of what is shown.
    **{f"level_{shown}": partial(_level, shown=shown) for shown in range(8)},
}
NUMBER = {name: number for number, name in enumerate(MESSAGES)}


# --- Phrases ----------------------------------------------------------------------------------------------------------

SIDES: tuple[SideName, ...] = ("buy", "sell")
TYPES, TIFS = ("limit", "market"), ("gtg", "gtc", "ioc", "fok")
STATUSES: tuple[OrderStatus, ...] = ("new", "partial", "filled", "canceled", "waiting")
WHYS = {Reason.BY_REQUEST: "by_request", Reason.UNFILLED: "unfilled"}
"""Why an order was cancelled; other reasons are for the general path."""
LIQUIDITY = ("taker", "maker")
STPS: tuple[StpName, ...] = ("expire_taker", "expire_maker", "expire_both", "decrement")
"""In the order of the engine's modes, from 1."""
ACTS = ("new", "same", "replaced", "canceled")
"""Of a level of a mass quote."""
SENTENCES = ("not enough free cash; ", " is free", "order ", " is ")
"""Around the numbers in the errors FUNDS and DONE."""


class Phrases:
    """Values that are encoded beforehand, by number."""

    def __init__(self, errors: dict[Reason, Error], own: list[Error]) -> None:
        self.values: list[Any] = [""]
        self.side = self._add(SIDES)
        self.type = self._add(TYPES)
        self.tif = self._add(TIFS)
        self.status = self._add(STATUSES)
        self.why = self._add(tuple(WHYS.values()))
        self.liquidity = self._add(LIQUIDITY)
        self.own = self._add(own)
        self.funds = self._add(SENTENCES)
        self.stp = self._add(STPS)
        self.act = self._add(ACTS)
        self.frozen = self._add([errors[Reason.MMP_FROZEN].msg if Reason.MMP_FROZEN in errors else ""])
        self.error = {reason: self._add([error]) for reason, error in errors.items()}

    def _add(self, values: Any) -> int:
        self.values += values
        return len(self.values) - len(values)


def compiled(phrases: Phrases) -> dict[str, Any]:
    """The tables `ops`, `templates`, `literals` and `phrases`. A template's first op is at templates[number, wire]."""
    literals = bytearray()
    ops: list[tuple[int, int, int, int]] = []
    starts: list[list[int]] = []
    for make in MESSAGES.values():
        marks = Marks()
        message = make(marks)
        starts.append([])
        for wire in WIRES:
            starts[-1].append(len(ops))
            for literal, kind, number in cut(message, marks, wire):
                ops.append((len(literals), len(literal), int(kind), number))
                literals += literal
    places: list[list[int]] = []
    for value in phrases.values:
        places.append([])
        for wire in WIRES:
            data = encode(value, wire)
            places[-1] += [len(literals), len(data)]
            literals += data
    return {
        "ops": np.array(ops, OP),
        "templates": np.array(starts, "<i8"),
        "literals": np.frombuffer(bytes(literals) + bytes(16), "u1").copy(),
        "phrases": np.array(places, "<i8"),
    }
