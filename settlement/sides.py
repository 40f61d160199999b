"""A cycle's entries by their owners: the sides of its transfers, in the order of the log within each account."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from settlement.accounts import ROLE_BITS
from settlement.fast.sides import ENTRY, MONEY_SLOTS, count_sides, place_sides
from settlement.moves import Cycle

Column = NDArray[np.int64]


class Sides:
    """Everybody's entries. A balance is known by its slot: five pockets of money, then a place for each known asset."""

    def __init__(self, cycle: Cycle, known: Column) -> None:
        """`known` are asset numbers, also those of listings; more are found where they are not all."""
        moves, moments = cycle
        if len(moves) and not len(moments):
            raise ValueError("transfers without a moment")
        most = max((int(moves[name].max(initial=0)) for name in ("debit_account", "credit_account")), default=0)
        counts = np.zeros(1 + (most >> ROLE_BITS), np.int64)
        count_sides(moves, counts)
        self._ends = np.cumsum(counts)
        self._entries = np.zeros(int(self._ends[-1]), ENTRY)
        self.known = np.unique(np.concatenate([known, [0]]))
        if place_sides(moves, moments, self.known, self._ends - counts, self._entries) >= 0:
            self.known = np.unique(np.concatenate([self.known, moves["asset"], moves["listing"]]))
            place_sides(moves, moments, self.known, self._ends - counts, self._entries)

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
