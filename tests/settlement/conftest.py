from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.settlement.flow import Venue


@pytest.fixture
def venue(tmp_path: Path) -> Iterator[Venue]:
    """An exchange with its books in a directory of its own."""
    made = Venue(tmp_path / "books")
    yield made
    made.settlement.close()
