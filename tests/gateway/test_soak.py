"""The soak in short: the command itself takes minutes."""

from pathlib import Path

import pytest

from benchmarks.gateway_servers import SMALL, started
from tests.gateway.soak import Book, growth, soak


async def test_a_short_soak(tmp_path: Path) -> None:
    with started(SMALL, tmp_path, 40) as target:
        found, sizes = await soak(target, 40, 3, 150, 1)
    assert not found.wrong
    assert found.resumed and found.events > 100 and found.books > 100 and len(sizes) >= 3


def test_what_it_would_find() -> None:
    book = Book()
    snapshot = {"sym": "x", "ev": "snapshot", "seq": 5, "prev": 0, "b": [["1.5", 2]], "a": [], "crc": 1}
    assert book.take(snapshot) == "x: checksum at 5"
    assert book.take(snapshot | {"ev": "delta", "prev": 4, "seq": 6}) == "x: 4 follows 5"
    assert growth([100, 100, 100, 130]) == pytest.approx(0.3)
