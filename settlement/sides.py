"""A cycle's entries by their owners: the sides of its transfers, in the order of the log within each account."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from settlement.accounts import ROLE_BITS
from settlement.fast.sides import ENTRY, MONEY_SLOTS, count_sides, place_sides
from settlement.moves import Moves

Column = NDArray[np.int64]


class Columns(NamedTuple):
    """What `place_sides` takes."""

    seq: Column
    leg: Column
    ts_ns: Column
    debit: Column
    credit: Column
    asset: Column
    amount: Column
    code: Column
    listing: Column


class Sides:
    """Everybody's entries. A balance is known by its slot: five pockets of money, then a place for each known asset."""

    def __init__(self, moves: Moves, ts_ns: Column, known: Column) -> None:
        """`known` are asset numbers, also those of listings; more are found where they are not all."""
        names = ("debit_account", "credit_account", "asset", "amount_micros", "code", "listing")
        columns = Columns(moves["seq"], moves["leg"], ts_ns, *(moves[name] for name in names))
        both = (columns.debit, columns.credit)
        counts = np.zeros(1 + max(int(column.max(initial=0)) >> ROLE_BITS for column in both), np.int64)
        count_sides(*both, columns.asset, counts)
        self._ends = np.cumsum(counts)
        self._entries = np.zeros(int(self._ends[-1]), ENTRY)
        self.known = np.unique(np.concatenate([known, [0]]))
        if place_sides(columns, self.known, self._ends - counts, self._entries) >= 0:
            self.known = np.unique(np.concatenate([self.known, columns.asset, columns.listing]))
            place_sides(columns, self.known, self._ends - counts, self._entries)

    @property
    def slots(self) -> int:
        return MONEY_SLOTS + len(self.known)

    def slot_of(self, pocket: int, asset: int) -> int:
        """Raises KeyError for an asset that is not known."""
        if pocket < MONEY_SLOTS:
            return pocket
        at = int(np.searchsorted(self.known, asset))
        if at == len(self.known) or self.known[at] != asset:
            raise KeyError(asset)
        return MONEY_SLOTS + at

    def owners(self) -> list[int]:
        """Who has entries, in order of number."""
        found: list[int] = np.flatnonzero(np.diff(self._ends, prepend=0)).tolist()
        return found

    def of(self, owner: int) -> NDArray[Any]:
        """The entries (ENTRY) of an account."""
        if owner >= len(self._ends):
            return self._entries[:0]
        return self._entries[(self._ends[owner - 1] if owner else 0) : self._ends[owner]]
