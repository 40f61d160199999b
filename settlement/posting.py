"""From events to transfers, for every kind of event in docs/engine.md. A pure function over arrays.

Each rule below is a line: take `amount` from one pocket, put it in another. So money is conserved by construction.
Within an event the lines are ordered such that no pocket of a member is below zero after any of them: first what
comes in, then what goes out.

Orders and trades, nearly all events of a market, are posted by compiled code (`settlement/fast/posting.py`).

Not posted, because no asset moves: capacity, the fees a short seller owes (`fees_due`), rebates that only accrue.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import MONEY, EventKind
from settlement.accounts import CUSTODY, FEES, FIRST_SHARES, ROLE_BITS, STABLECOIN, VAULT, Role
from settlement.flows import bodies
from settlement.ledger import MOMENT, MOVE, Code, Posting
from settlement.registry import Terms

Column = NDArray[np.int64]


class PostingError(ValueError):
    """An event's amounts do not fit the rules; the message names its command."""


def post(commands: NDArray[Any], events: NDArray[Any], terms: Terms) -> Posting:
    """The transfers of a batch, in order. Lines of zero make no row.

    Raises PostingError when an amount is negative: the events are not those of an engine that follows the rules.
    """
    sheet, kind = _Sheet(commands, events, terms), np.ascontiguousarray(events["kind"])
    present = np.bincount(kind, minlength=MOST_KINDS)
    if present[PLAIN_KINDS].any():
        sheet.post_plain()
    for kinds, rule in _RULES:
        if present[kinds].any():
            sheet.begin(np.flatnonzero(np.isin(kind, kinds)))
            rule(sheet)
    return sheet.posting()


class _Sheet:
    """Collects lines; each line is one transfer for every event of the kind at hand."""

    def __init__(self, commands: NDArray[Any], events: NDArray[Any], terms: Terms) -> None:
        self.commands = commands
        self.events = events
        self.terms = terms
        self.parts: list[NDArray[np.int64]] = []

    def post_plain(self) -> None:
        """All lines of orders and trades."""
        from settlement.fast import posting  # noqa: PLC0415 - compiled code takes longer to load than all the rest

        table = np.empty((len(self.events) * posting.MOST_LINES, 8), np.int64)
        count = posting.post_plain(self.events, *self.terms, table)
        if count < 0:
            raise _below_zero(table[-1 - count, 6], table[-1 - count, 5], table[-1 - count, 0])
        self.parts.append(table[:count])

    def begin(self, rows: NDArray[np.int64]) -> None:
        """Turn to the events in `rows`."""
        self.rows = rows
        self.of = self.events[rows]
        self.money = self.of.view(MONEY)
        self.user = self.of["account"].astype(np.int64) << ROLE_BITS
        self.contra = self.of["contra_account"].astype(np.int64) << ROLE_BITS
        self.listing = self.terms.asset[rows]

    def move(self, code: Code, debit: Column, credit: Column, amount: Column, asset: Column | None = None) -> None:
        """Add a line, of money where no asset is given. A transfer within one pocket changes nothing and is left out."""
        if (amount < 0).any():
            worst = int(np.argmin(amount))
            raise _below_zero(code, amount[worst], self.of["command_seq"][worst])
        keep = np.flatnonzero((amount > 0) & (debit != credit))
        part = np.empty((len(keep), 8), np.int64)
        part[:, 0] = self.of["command_seq"][keep]
        part[:, 1] = self.rows[keep]
        part[:, 2] = debit[keep]
        part[:, 3] = credit[keep]
        part[:, 4] = STABLECOIN if asset is None else asset[keep]
        part[:, 5] = amount[keep]
        part[:, 6] = code
        part[:, 7] = self.listing[keep]
        self.parts.append(part)

    def asked(self) -> NDArray[Any]:
        """The events' commands (TRANSFER)."""
        return bodies(self.commands, self.of)

    def house(self, account: int) -> Column:
        return np.full(len(self.rows), account, np.int64)

    def posting(self) -> Posting:
        """All lines in the order of their events, legs numbered within each command."""
        from settlement.fast.posting import number_legs  # noqa: PLC0415 - as above

        last_seq = int(self.commands["seq"][-1])
        if not self.parts:
            return Posting(np.zeros(0, MOVE), np.zeros(0, MOMENT), last_seq)
        table = self.parts[0]
        if len(self.parts) > 1:
            # A stable order: the lines of an event are of one rule, and stay as they are.
            table = np.concatenate(self.parts)
            table = table[np.argsort(table[:, 1], kind="stable")]
        moments = _moments(table[:, 0], self.events["ts_ns"][table[:, 1]])
        number_legs(table)
        return Posting(table.view(MOVE).reshape(-1), moments, last_seq)


def _below_zero(code: Any, amount: Any, seq: Any) -> PostingError:
    return PostingError(f"{Code(code).name} of {int(amount)} micros in the event of command {int(seq)}")


def _moments(seqs: NDArray[np.int64], ts_ns: NDArray[np.int64]) -> NDArray[Any]:
    """When the commands that moved something happened; one row for each run of equal times."""
    new = np.ones(len(ts_ns), bool)
    new[1:] = ts_ns[1:] != ts_ns[:-1]
    moments = np.zeros(int(new.sum()), MOMENT)
    moments["seq"], moments["ts_ns"] = seqs[new], ts_ns[new]
    return moments


def _deposits(sheet: _Sheet) -> None:
    """From outside, or back from a withdrawal that could not be paid."""
    asked, amount = sheet.asked(), sheet.money["amount_micros"]
    is_refund, available = asked["refund_micros"] > 0, sheet.user | Role.AVAILABLE
    sheet.move(Code.DEPOSIT, sheet.house(CUSTODY), available, np.where(is_refund, 0, amount))
    sheet.move(Code.RETURNED, sheet.user | Role.WITHDRAWING, available, np.where(is_refund, amount, 0))
    received = np.where((asked["asset"] > 0) & ~is_refund, asked["lots"], 0)
    sheet.move(Code.DEPOSIT, sheet.house(CUSTODY), sheet.house(VAULT), received, token_assets(asked))


def _withdrawals(sheet: _Sheet) -> None:
    """To a chain in two steps: set aside now, out of the books when it has left for good."""
    to_chain, amount = sheet.asked()["asset"] > 0, -sheet.money["amount_micros"]
    available = sheet.user | Role.AVAILABLE
    sheet.move(Code.WITHDRAWAL, available, sheet.house(CUSTODY), np.where(to_chain, 0, amount))
    sheet.move(Code.SET_ASIDE, available, sheet.user | Role.WITHDRAWING, np.where(to_chain, amount, 0))


def _payouts(sheet: _Sheet) -> None:
    asked = sheet.asked()
    sheet.move(Code.WITHDRAWAL, sheet.user | Role.WITHDRAWING, sheet.house(CUSTODY), asked["amount_micros"])
    sheet.move(Code.WITHDRAWAL, sheet.house(VAULT), sheet.house(CUSTODY), asked["lots"], token_assets(asked))


def token_assets(asked: NDArray[Any]) -> Column:
    """The assets of the stablecoins that commands (TRANSFER) name, as `token_asset` has them."""
    return -asked["asset"].astype(np.int64)


def _nominations(sheet: _Sheet) -> None:
    sheet.move(Code.BOND, sheet.user | Role.AVAILABLE, sheet.user | Role.BOND, sheet.money["bond_micros"])


def _bonds_released(sheet: _Sheet) -> None:
    sheet.move(Code.BOND_RELEASE, sheet.user | Role.BOND, sheet.user | Role.AVAILABLE, -sheet.money["bond_micros"])


def _deliveries(sheet: _Sheet) -> None:
    """Escrow to receiver and provider, freed bond to the provider, then fees and damages from the provider's cash."""
    money, user = sheet.money, sheet.user
    available, receiver = user | Role.AVAILABLE, sheet.contra | Role.AVAILABLE
    refund, share = money["refund_micros"], -money["escrow_micros"]
    sheet.move(Code.DELIVERY_REFUND, user | Role.ESCROW, receiver, refund)
    sheet.move(Code.DELIVERY_PAY, user | Role.ESCROW, available, share - refund)
    sheet.move(Code.BOND_RELEASE, user | Role.BOND, available, -money["bond_micros"])
    sheet.move(Code.DUE_FEE, available, sheet.house(FEES), money["fees_micros"])
    sheet.move(Code.DELIVERY_DAMAGES, available, receiver, money["damages_micros"])
    sheet.move(Code.DELIVERY_LOTS, receiver, available, money["lots"], sheet.listing)


def _rebates(sheet: _Sheet) -> None:
    sheet.move(Code.REBATE, sheet.house(FEES), sheet.user | Role.AVAILABLE, sheet.money["amount_micros"])


def _transfers(sheet: _Sheet) -> None:
    amount = sheet.money["contra_amount_micros"]
    sheet.move(Code.TRANSFER, sheet.user | Role.AVAILABLE, sheet.contra | Role.AVAILABLE, amount)


def _liens(sheet: _Sheet) -> None:
    """Taken, or lifted: in favour of the account itself where no other is named."""
    change, available = sheet.money["frozen_micros"], sheet.user | Role.AVAILABLE
    payee = np.where(sheet.contra > 0, sheet.contra | Role.AVAILABLE, available)
    sheet.move(Code.LIEN, available, sheet.user | Role.FROZEN, np.maximum(change, 0))
    sheet.move(Code.LIEN_LIFTED, sheet.user | Role.FROZEN, payee, np.maximum(-change, 0))


def _shares(sheet: _Sheet) -> None:
    """The pool owes its holders; what it holds itself moves nothing."""
    holder, pool, lots = sheet.user | Role.AVAILABLE, sheet.contra | Role.AVAILABLE, sheet.money["lots"]
    asset = FIRST_SHARES - sheet.of["contra_account"].astype(np.int64)
    sheet.move(Code.SHARES, pool, holder, np.maximum(lots, 0), asset=asset)
    sheet.move(Code.SHARES, holder, pool, np.maximum(-lots, 0), asset=asset)


def _splits(sheet: _Sheet) -> None:
    amount = sheet.money["contra_amount_micros"]
    sheet.move(Code.INCOME_SPLIT, sheet.user | Role.AVAILABLE, sheet.contra | Role.AVAILABLE, amount)


MOST_KINDS = 256
PLAIN_KINDS = [EventKind.NEW, EventKind.REPLACED, EventKind.CANCELED, EventKind.TRADE]
_RULES: list[tuple[list[EventKind], Callable[[_Sheet], None]]] = [
    ([EventKind.DEPOSITED], _deposits),
    ([EventKind.WITHDRAWN], _withdrawals),
    ([EventKind.PAID_OUT], _payouts),
    ([EventKind.NOMINATED], _nominations),
    ([EventKind.BOND_RELEASED], _bonds_released),
    ([EventKind.DELIVERED], _deliveries),
    ([EventKind.REBATE_PAID], _rebates),
    ([EventKind.TRANSFERRED], _transfers),
    ([EventKind.LIEN_TAKEN, EventKind.LIEN_LIFTED], _liens),
    ([EventKind.SHARES_CHANGED], _shares),
    ([EventKind.SPLIT_PAID], _splits),
]
