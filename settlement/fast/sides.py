"""From transfers in the order of the log to entries in the order of their owners: each transfer has two sides.

Left out are the sides of the world outside, and transfers within one balance of a statement (what an order holds is
still its owner's cash). A counting sort: how many entries each owner has, then each to its place.
"""

import numpy as np

from engine.kernel import door, inlined, kernel
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


@inlined
def owner_of(account):
    if FIRST_OUTSIDE <= account < FIRST_USER:
        return OUTSIDE
    return account >> ROLE_BITS


@inlined
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


@inlined
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
def count_sides(moves, counts):
    """How many entries each owner has from transfers (MOVE), into `counts`."""
    for row in range(len(moves)):
        m = moves[row]
        if not is_within(m.debit_account, m.credit_account, m.asset):
            for account in (m.debit_account, m.credit_account):
                owner = owner_of(account)
                if owner != OUTSIDE:
                    counts[owner] += 1


@inlined
def put_entry(e, m, account, ts_ns, asset_at, name_at):
    """One side of a transfer; the sign of its amount is the caller's."""
    e.seq, e.leg, e.ts_ns, e.listing, e.code = m.seq, m.leg, ts_ns, m.listing, m.code
    e.slot = MONEY_SLOTS + asset_at if m.asset != 0 else pocket_of(account)
    e.name = name_at


@door
def place_sides(moves, moments, known, nexts, entries):
    """Put every entry of transfers (MOVE) behind those of its owner; `nexts` is where each owner's next one goes.

    Returns the first transfer of an asset or a listing that is not known, -1 for none.
    """
    asset, listing, asset_at, listing_at, moment = np.int64(0), np.int64(0), find(known, 0), find(known, 0), 0
    for row in range(len(moves)):
        m = moves[row]
        while moment + 1 < len(moments) and moments[moment + 1].seq <= m.seq:
            moment += 1
        if is_within(m.debit_account, m.credit_account, m.asset):
            continue
        if m.asset != asset:
            asset, asset_at = m.asset, find(known, m.asset)
        if m.listing != listing:
            listing, listing_at = m.listing, find(known, m.listing)
        if asset_at < 0 or listing_at < 0:
            return row
        name_at = asset_at if asset != 0 else listing_at
        for side in range(2):
            account = m.credit_account if side else m.debit_account
            owner = owner_of(account)
            if owner != OUTSIDE:
                e = entries[nexts[owner]]
                put_entry(e, m, account, moments[moment].ts_ns, asset_at, name_at)
                e.amount = m.amount_micros if side else -m.amount_micros
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
