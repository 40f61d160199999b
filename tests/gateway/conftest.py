"""A market with two funded bots, for most tests of the gateway."""

from pathlib import Path

import pytest

from tests.gateway.node import Bot, Node, market


@pytest.fixture
def trio(tmp_path: Path) -> tuple[Node, Bot, Bot]:
    """A node with one book, a maker that may sell short and a taker with cash."""
    return market(tmp_path)
