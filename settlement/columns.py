"""A cycle's statements of everybody as columns: by account, then by balance, then in the order of the log.

For large cycles: ten million entries without a Python object for any of them. Each entry is one number (which balance,
then where in the log, then debit or credit), so that putting them in order is one sort of integers.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from settlement.accounts import FIRST_OUTSIDE, FIRST_USER, ROLE_BITS
from settlement.ledger import Balances, group_starts
from settlement.moves import Moves
from settlement.statements import POCKETS, balances_of, place_of

Column = NDArray[Any]


class Lines(NamedTuple):
    """Opening balances, entries and closing balances, each balance behind the one before."""

    account: Column
    pocket: Column
    asset: Column
    move: Column  # the row in the transfers, -1 for an opening, as many as there are for a closing
    amount: Column  # 0 for an opening and a closing
    running: Column


def lines_of(moves: Moves, opening: Balances, closing: Balances) -> Lines:
    """Raises ValueError where an opening balance and the entries do not make the closing."""
    first, last = balances_of(opening), balances_of(closing)
    keys = _Keys(moves["asset"], first, last)
    count = len(moves["seq"])
    place = _places(moves, keys)
    order = _in_order(*place, keys, (first, last), count)
    return _run(order, moves["amount_micros"], keys, (first, last))


class _Keys:
    """Numbers for balances: (account, pocket, asset) as one integer that sorts like the three."""

    def __init__(self, assets: Column, *balances: dict[tuple[int, int, int], int]) -> None:
        named = [asset for found in balances for _, _, asset in found]
        self.assets = np.unique(np.concatenate([np.unique(assets), np.array([0, *named], "<i8")]))

    def of(self, account: Column, pocket: Column, asset: Column) -> Column:
        key: Column = (account * len(POCKETS) + pocket) * len(self.assets) + np.searchsorted(self.assets, asset)
        return key

    def of_balances(self, balances: dict[tuple[int, int, int], int]) -> Column:
        rows = np.array(list(balances), "<i8").reshape(-1, 3)
        return self.of(*rows.T)

    def split(self, key: Column) -> tuple[Column, Column, Column]:
        account_pocket, asset = np.divmod(key, len(self.assets))
        return account_pocket // len(POCKETS), account_pocket % len(POCKETS), self.assets[asset]


def _places(moves: Moves, keys: _Keys) -> tuple[Column, Column]:
    """(key, row * 2 + side) of every entry: two for each transfer that leaves a balance, but none of the world's."""
    sides = []
    for name in ("debit_account", "credit_account"):
        account = moves[name]
        owner = account >> ROLE_BITS
        outside = (account >= FIRST_OUTSIDE) & (account < FIRST_USER)
        sides.append((keys.of(owner, place_of(account, moves["asset"]), moves["asset"]), outside))
    (debit, debit_outside), (credit, credit_outside) = sides
    leaves = debit != credit
    debits, credits = np.flatnonzero(leaves & ~debit_outside), np.flatnonzero(leaves & ~credit_outside)
    return np.concatenate([debit[debits], credit[credits]]), np.concatenate([2 * debits, 2 * credits + 1])


class _Order(NamedTuple):
    key: Column
    row: Column  # -1 for an opening
    is_credit: Column


def _in_order(
    key: Column, place: Column, keys: _Keys, balances: tuple[dict[Any, int], dict[Any, int]], count: int
) -> _Order:
    """Everything in the order of the statements: an opening first, a closing last in its balance."""
    first, last = (keys.of_balances(found) for found in balances)
    key = np.concatenate([first, key, last])
    place = np.concatenate([np.zeros(len(first), "<i8"), place + 2, np.full(len(last), 2 * count + 2)])
    bits = int(2 * count + 3).bit_length()
    if len(key) and int(key.max()).bit_length() + bits < 63:
        both = np.sort(key << bits | place)
        key, place = both >> bits, both & ((1 << bits) - 1)
    else:
        order = np.lexsort((place, key))
        key, place = key[order], place[order]
    return _Order(key, (place >> 1) - 1, (place & 1).astype(bool))


def _run(order: _Order, amounts: Column, keys: _Keys, balances: tuple[dict[Any, int], dict[Any, int]]) -> Lines:
    """Running balances: what was there at the opening and all entries since, balance by balance."""
    count = len(amounts)
    is_opening, is_closing = order.row < 0, order.row == count
    is_entry = ~(is_opening | is_closing)
    amount = np.zeros(len(order.row), "<i8")
    taken = amounts[order.row[is_entry]]
    amount[is_entry] = np.where(order.is_credit[is_entry], taken, -taken)
    change = amount.copy()
    change[is_opening] = _amounts(balances[0], keys)
    starts = group_starts(order.key)
    total = np.cumsum(change)
    before = (total - change)[starts]
    running = total - np.repeat(before, np.diff(np.append(starts, len(total))))
    ends = np.append(starts[1:], len(total))[: len(starts)] - 1
    gone = ends[~is_closing[ends]]  # balances that the cycle brought to zero have no closing row
    if (running[is_closing] != _amounts(balances[1], keys)).any() or running[gone].any():
        raise ValueError("a closing balance is not the opening and the entries")
    return Lines(*keys.split(order.key), order.row, amount, running)


def _amounts(balances: dict[tuple[int, int, int], int], keys: _Keys) -> Column:
    """In order of their keys."""
    amounts = np.array(list(balances.values()), "<i8")
    return amounts[np.argsort(keys.of_balances(balances))] if balances else amounts
