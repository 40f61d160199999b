"""Depth by price, and its checksum."""

from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import GatewayConfig
from gateway.depth import checksum
from gateway.memory import Tables
from gateway.order_entry import OWN_ERRORS, PLAIN_ERRORS
from gateway.views import Depth

VECTORS: list[tuple[Any, Any, str, int]] = [
    # bids, asks (price in micros, lots), the text, its CRC-32: also in docs/protocol.md
    ([], [], "", 0),
    ([(2_435_000, 12)], [], "2435000:12;", 1_265_954_867),
    ([(2_435_000, 12), (2_434_000, 5)], [(2_436_000, 7)], "2435000:12;2434000:5;2436000:7;", 57_856_449),
]


def empty(number: int = 1) -> Depth:
    tables = Tables(GatewayConfig(), PLAIN_ERRORS, OWN_ERRORS, first_ref=1)
    tables.need_instrument(number)
    return Depth(tables, number)


@pytest.mark.parametrize(("bids", "asks", "text", "crc"), VECTORS)
def test_checksum_vectors(bids: list[tuple[int, int]], asks: list[tuple[int, int]], text: str, crc: int) -> None:
    assert crc32(text.encode()) == crc
    assert checksum(bids, asks) == crc


def test_only_ten_levels_count() -> None:
    bids = [(100 - i, 1) for i in range(12)]
    asks = [(200 + i, 1) for i in range(12)]
    assert checksum(bids, asks) == checksum(bids[:10], asks[:10]) != checksum(bids[:9], asks)


CHANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5), st.booleans()), max_size=120)


@given(CHANGES, st.integers(0, 1), st.none() | st.integers(1, 5))
def test_a_side_is_a_sorted_sum(changes: list[tuple[int, int, bool]], number: int, count: int | None) -> None:
    depth, expected = empty(), dict[int, int]()
    side = (depth.bids, depth.asks)[number]
    for price, lots, takes in changes:
        change = -min(lots, expected.get(price, 0)) if takes else lots
        depth.add(number, price, change, 1, 1)
        expected[price] = expected.get(price, 0) + change
    levels = sorted(((p, q) for p, q in expected.items() if q), reverse=side.descending)
    assert side.top(count) == (levels if count is None else levels[:count])
    assert side.best() == (levels[0] if levels else None)
    assert side.changed >= {price for price, lots in levels}


def test_less_than_nothing_is_a_fault() -> None:
    depth = empty()
    depth.add(0, 5, 3, 1, 1)
    with pytest.raises(ValueError, match="do not fit"):
        depth.add(0, 5, -4, 2, 2)
    with pytest.raises(ValueError, match="do not fit"):
        depth.add(0, 6, -1, 3, 3)


def test_the_checksum_follows_the_book() -> None:
    depth = empty()
    depth.add(0, 2_435, 12, 1, 1)
    assert depth.checksum(1_000) == VECTORS[1][3]
    depth.add(1, 2_436, 7, 2, 2)
    depth.add(0, 2_434, 5, 3, 3)
    assert depth.checksum(1_000) == VECTORS[2][3]
