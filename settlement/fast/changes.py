"""What transfers change each balance by, added up in a table of hashes: sorting them by balance takes ten times as long."""

import numpy as np

from engine.kernel import door, inlined, mix

FREE = np.int64(-1)


@inlined
def place_of(places, sums, asset, account):
    """Where in `places` a balance is, or where it would be."""
    at = mix(asset, account) & (len(places) - 1)
    while places[at] != FREE and (sums[places[at], 0] != asset or sums[places[at], 1] != account):
        at = (at + 1) & (len(places) - 1)
    return at


@door
def add_changes(rows, places, sums):
    """Add transfers (as MOVE) up into `sums`, (asset, account, change) each, in the order in which they are met.

    `places`: all FREE, a power of two, and more than there are balances. Returns the number of sums.
    """
    count = 0
    for number in range(len(rows)):
        asset, amount = rows[number, 4], rows[number, 5]
        for side in range(2):
            account = rows[number, 3] if side else rows[number, 2]
            at = place_of(places, sums, asset, account)
            if places[at] == FREE:
                places[at] = count
                sums[count, 0], sums[count, 1], sums[count, 2] = asset, account, 0
                count += 1
            sums[places[at], 2] += amount if side else -amount
    return count
