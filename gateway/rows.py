"""Records as named tuples: plain Python integers, which per-record code reads many times faster than numpy scalars."""

from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import COMMAND, EVENT, MONEY, EventKind

_COMMAND_FIELDS = [
    "seq", "ts_ns", "ref", "kind", "side", "ord_type", "time_in_force", "flags",
    "account", "instrument", "order_id", "price", "qty", "session", "group", "stop_price", "show_qty", "min_qty", "expire_ns",
    "tag", "stp_group",
]  # fmt: skip


class CommandRow(NamedTuple):
    """What the gateway reads of a command."""

    seq: int
    ts_ns: int
    ref: int
    kind: int
    side: int
    ord_type: int
    time_in_force: int
    flags: int
    account: int
    instrument: int
    order_id: int
    price: int
    qty: int
    session: int
    group: int
    stop_price: int
    show_qty: int
    min_qty: int
    expire_ns: int
    tag: int
    stp_group: int


class EventRow(NamedTuple):
    """An EVENT."""

    seq: int
    command_seq: int
    ts_ns: int
    kind: int
    side: int
    reason: int
    instrument: int
    account: int
    contra_account: int
    order_id: int
    contra_order_id: int
    price: int
    qty: int
    leaves_qty: int
    cum_qty: int
    contra_leaves_qty: int
    contra_cum_qty: int
    held_micros: int
    fee_micros: int
    fee_due_micros: int
    escrow_micros: int
    released_micros: int
    due_paid_micros: int


class MoneyRow(NamedTuple):
    """A MONEY event."""

    seq: int
    command_seq: int
    ts_ns: int
    kind: int
    side: int
    reason: int
    instrument: int
    account: int
    contra_account: int
    lots: int
    amount_micros: int
    contra_amount_micros: int
    escrow_micros: int
    bond_micros: int
    fees_micros: int
    fees_due_micros: int
    refund_micros: int
    damages_micros: int
    shortfall_micros: int
    frozen_micros: int


assert EventRow._fields == EVENT.names and MoneyRow._fields == MONEY.names

MONEY_KINDS = frozenset(
    {
        EventKind.ACCOUNT_OPENED,
        EventKind.DEPOSITED,
        EventKind.WITHDRAWN,
        EventKind.NOMINATED,
        EventKind.PAID_OUT,
        EventKind.DELIVERY_DUE,
        EventKind.BOND_RELEASED,
        EventKind.DELIVERED,
        EventKind.REBATE_PAID,
        EventKind.CYCLE_CLOSED,
        EventKind.TRANSFERRED,
        EventKind.LIEN_TAKEN,
        EventKind.LIEN_LIFTED,
        EventKind.FROZEN,
        EventKind.SHARES_CHANGED,
        EventKind.SPLIT_PAID,
    }
)


class Step(NamedTuple):
    """A command with all the events it caused. `commands[at]` is its whole record."""

    commands: NDArray[np.void]
    at: int
    command: CommandRow
    events: list[EventRow | MoneyRow]


_pick = itemgetter(*map(list(COMMAND.names or ()).index, _COMMAND_FIELDS))


def command_row(commands: NDArray[np.void], at: int) -> CommandRow:
    """A command as a named tuple."""
    return CommandRow._make(_pick(commands[at].item()))


# A table to look up: np.isin costs seven times as much on the few events of a batch.
_IS_MONEY = np.zeros(256, np.bool_)
_IS_MONEY[list(MONEY_KINDS)] = True


def event_rows(events: NDArray[np.void]) -> list[EventRow | MoneyRow]:
    """The events as named tuples, each of the body its kind has."""
    rows: list[EventRow | MoneyRow] = [EventRow._make(fields) for fields in events.tolist()]
    if MONEY_KINDS.isdisjoint(row.kind for row in rows):
        return rows
    money = np.flatnonzero(_IS_MONEY[events["kind"]])
    if len(money):
        for index, fields in zip(money.tolist(), events[money].view(MONEY).tolist(), strict=True):
            rows[index] = MoneyRow._make(fields)
    return rows


def text_at(commands: NDArray[np.void], index: int, field: str) -> str:
    """The packed text (`cl_ord_id`, `external_id` or `symbol`) of one record."""
    return bytes(commands[field][index].tobytes()).rstrip(b"\0").decode("ascii", "replace")
