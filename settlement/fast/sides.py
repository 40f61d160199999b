"""From transfers in the order of the log to entries in the order of their owners: each transfer has two sides.

Left out are the sides of the world outside, and transfers within one balance of a statement (what an order holds is
still its owner's cash). A counting sort: how many entries each owner has, then each to its place.
"""

import numpy as np

from engine.kernel import door, kernel
from settlement.accounts import FIRST_OUTSIDE, FIRST_USER, ROLE_BITS, Role

ENTRY = np.dtype(
    [
        ("seq", "<i8"),
        ("ts_ns", "<i8"),
        ("amount", "<i8"),  # signed
        ("listing", "<i8"),
        ("leg", "<i4"),
        ("slot", "<i4"),  # of the balance: see `slot_of`
        ("name", "<i4"),  # the place of its asset, or else of its listing, among the known
        ("code", "<i4"),
    ]
)
"""One side of a transfer, as its owner's statement shows it."""

CASH, MONEY_SLOTS = 0, 5
"""Slots below are of the stablecoin, by pocket; above them each known asset has one."""
ESCROW, BOND, WITHDRAWING, FROZEN = int(Role.ESCROW), int(Role.BOND), int(Role.WITHDRAWING), int(Role.FROZEN)
OUTSIDE, UNKNOWN = -1, -1


@kernel
def owner_of(account):
    if FIRST_OUTSIDE <= account < FIRST_USER:
        return OUTSIDE
    return account >> ROLE_BITS


@kernel
def pocket_of(account):
    """Where its money stands in a statement: the order of `statements.POCKETS`."""
    if account < FIRST_USER:
        return CASH
    role = account & (FIRST_USER - 1)
    if role == ESCROW:
        return 1
    if role == BOND:
        return 2
    if role == WITHDRAWING:
        return 3
    if role == FROZEN:
        return 4
    return CASH


@kernel
def is_within(debit, credit, asset):
    """Whether a transfer stays within one balance, or outside."""
    if owner_of(debit) != owner_of(credit):
        return False
    return asset != 0 or pocket_of(debit) == pocket_of(credit)


@kernel
def find(known, number):
    """The place of a number among the known ones, which are sorted."""
    low, high = 0, len(known)
    while low < high:
        middle = (low + high) >> 1
        if known[middle] < number:
            low = middle + 1
        else:
            high = middle
    return low if low < len(known) and known[low] == number else UNKNOWN


@door
def count_sides(debit, credit, asset, counts):
    """How many entries each owner has, into `counts`."""
    for row in range(len(debit)):
        if not is_within(debit[row], credit[row], asset[row]):
            for account in (debit[row], credit[row]):
                owner = owner_of(account)
                if owner != OUTSIDE:
                    counts[owner] += 1


@kernel
def put_entry(entries, place, at, row, columns):
    """Entry number `place` is of transfer `row`; `at`: places of its asset and its name among the known."""
    e = entries[place]
    e.seq, e.leg, e.ts_ns = columns.seq[row], columns.leg[row], columns.ts_ns[row]
    e.listing, e.code = columns.listing[row], columns.code[row]
    e.slot = MONEY_SLOTS + at[0]
    e.name = at[1]


@door
def place_sides(columns, known, nexts, entries):
    """Put every entry behind those of its owner; `nexts` is where each owner's next one goes.

    Returns the first transfer of an asset or a listing that is not known, -1 for none.
    """
    asset, listing, asset_at, listing_at = np.int64(0), np.int64(0), find(known, 0), find(known, 0)
    for row in range(len(columns.debit)):
        debit, credit = columns.debit[row], columns.credit[row]
        if is_within(debit, credit, columns.asset[row]):
            continue
        if columns.asset[row] != asset:
            asset = columns.asset[row]
            asset_at = find(known, asset)
        if columns.listing[row] != listing:
            listing = columns.listing[row]
            listing_at = find(known, listing)
        if asset_at < 0 or listing_at < 0:
            return row
        at = (asset_at, asset_at if asset != 0 else listing_at)
        for side in range(2):
            account = credit if side else debit
            owner = owner_of(account)
            if owner != OUTSIDE:
                put_entry(entries, nexts[owner], at, row, columns)
                e = entries[nexts[owner]]
                e.amount = columns.amount[row] if side else -columns.amount[row]
                if asset == 0:
                    e.slot = pocket_of(account)
                nexts[owner] += 1
    return -1


@door
def clear(entries, running):
    """Set the balances that entries have moved to zero again; how many were not."""
    found = 0
    for number in range(len(entries)):
        slot = entries[number].slot
        found += running[slot] != 0
        running[slot] = 0
    return found
