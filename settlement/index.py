"""The index of an hour: what the market said it was worth, in the last sixty minutes before the gate. Pure, integers.

From the prints of that window, in this order:

1. A trade of an account with itself says nothing and is left out.
2. Outliers go: |p - median| > 5 * 1.4826 * max(MAD, 0.5 % of the median). Median and MAD are over prints, each counting
   once; of an even number the mean of the middle two.
3. What is left must be at least 5 prints of 3 owners with 20 lots, else there is no index from prints. The owner of a
   print is the taker: who chose its moment and its price.
4. No owner weighs more than a quarter: where an owner has more than a quarter of the lots, all of its prints are scaled
   down to that. (A quarter of the lots before any scaling, so that three owners can have an index.)
5. In each of twelve partitions of five minutes the median by weight: the lowest price with half of the weight at or
   below it. The index is the mean of the partitions that are not empty, rounded down to a tick.

Otherwise the fallbacks: the index of the hour before in the same market, if that one came from prints; else the
reference price of the listing.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW_NS = 3_600 * 10**9
PARTITIONS = 12
PARTITION_NS = WINDOW_NS // PARTITIONS
OUTLIER_E5 = 741_300
"""5 * 1.4826, times 10^5."""
MAD_FLOOR_PERMILLE = 5
"""Of the median."""
MIN_PRINTS = 5
MIN_OWNERS = 3
MIN_LOTS = 20
OWNER_SHARE = 4
"""One part in so many is the most that an owner can weigh."""
WEIGHT_UNIT = 1_000_000

PRINT = np.dtype(
    [
        ("asset", "<i8"),  # the listing
        ("seq", "<i8"),  # the engine's number of the TRADE event
        ("ts_ns", "<i8"),
        ("price", "<i4"),
        ("lots", "<i4"),
        ("taker", "<i4"),
        ("maker", "<i4"),
    ]
)
"""A trade, as far as the index cares."""


class Source(IntEnum):
    """Where an index came from, in the order in which they are tried."""

    PRINTS = 0
    PREVIOUS_HOUR = 1
    REFERENCE = 2


class Exclusion(IntEnum):
    """Why a print did not count, or not in full."""

    NONE = 0
    SELF_TRADE = 1
    OUTLIER = 2
    OWNER_CAP = 3  # scaled down with its owner
    TOO_FEW = 4  # the window as a whole was too thin


@dataclass(frozen=True, slots=True)
class Index:
    """An hour's index, and what it rests on."""

    price: int  # ticks
    source: Source
    prints: int  # that were left after the outliers
    owners: int
    lots: int
    exclusions: NDArray[np.int64]  # an Exclusion for each print of the window


def hour_index(prints: NDArray[Any], gate_ns: int, previous: int | None, reference: int) -> Index:
    """The index from the prints (PRINT) of a listing, in any order; those outside the window are not looked at.

    `previous` is the index of the hour before, None where it had none from prints.
    """
    prints = prints[(prints["ts_ns"] >= gate_ns - WINDOW_NS) & (prints["ts_ns"] < gate_ns)]
    excluded = np.where(prints["taker"] == prints["maker"], Exclusion.SELF_TRADE, Exclusion.NONE).astype(np.int64)
    candidates = np.flatnonzero(excluded == Exclusion.NONE)
    excluded[candidates[is_outlier(prints["price"][candidates])]] = Exclusion.OUTLIER
    kept = np.flatnonzero(excluded == Exclusion.NONE)
    owners, lots = len(np.unique(prints["taker"][kept])), int(prints["lots"][kept].sum())
    if len(kept) < MIN_PRINTS or owners < MIN_OWNERS or lots < MIN_LOTS:
        excluded[kept] = Exclusion.TOO_FEW
        price, source = (reference, Source.REFERENCE) if previous is None else (previous, Source.PREVIOUS_HOUR)
        return Index(price, source, len(kept), owners, lots, excluded)
    left = prints[kept]
    weights, capped = owner_weights(left["taker"], left["lots"])
    excluded[kept[capped]] = Exclusion.OWNER_CAP
    partition = (left["ts_ns"] - (gate_ns - WINDOW_NS)) // PARTITION_NS
    medians = partition_medians(partition, left["price"], weights)
    return Index(sum(medians) // len(medians), Source.PRINTS, len(kept), owners, lots, excluded)


def is_outlier(prices: NDArray[Any]) -> NDArray[np.bool_]:
    """Which prices lie too far from the median. Exact: doubled and doubled again instead of halved."""
    if not len(prices):
        return np.zeros(0, bool)
    prices = prices.astype(np.int64)
    median_2 = _doubled_median(prices)
    distance_2 = np.abs(2 * prices - median_2)
    mad_4 = _doubled_median(distance_2)
    scale_e3 = max(1_000 * mad_4, 2 * MAD_FLOOR_PERMILLE * median_2)  # of 4 * max(MAD, floor)
    far: NDArray[np.bool_] = 2 * distance_2 * 10**8 > OUTLIER_E5 * scale_e3
    return far


def _doubled_median(values: NDArray[np.int64]) -> int:
    ordered = np.sort(values)
    return int(ordered[(len(ordered) - 1) // 2]) + int(ordered[len(ordered) // 2])


def owner_weights(owners: NDArray[Any], lots: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(weights in millionths of a lot, whether scaled down): an owner's prints sum to a quarter of all at the most."""
    _, which = np.unique(owners, return_inverse=True)
    of_owner = np.zeros(int(which.max()) + 1, np.int64)
    np.add.at(of_owner, which, lots.astype(np.int64))
    total = int(of_owner.sum())
    capped: NDArray[np.bool_] = (of_owner * OWNER_SHARE > total)[which]
    scale = [min(WEIGHT_UNIT, WEIGHT_UNIT * total // (OWNER_SHARE * own)) for own in of_owner.tolist()]
    return lots.astype(np.int64) * np.array(scale, np.int64)[which], capped


def partition_medians(partition: NDArray[Any], prices: NDArray[Any], weights: NDArray[np.int64]) -> list[int]:
    """The median by weight of each partition that is not empty, in their order."""
    medians = []
    for number in np.unique(partition):
        mine = np.flatnonzero(partition == number)
        mine = mine[np.argsort(prices[mine], kind="stable")]
        reached = np.cumsum(weights[mine])
        medians.append(int(prices[mine[np.searchsorted(2 * reached, reached[-1], "left")]]))
    return medians
