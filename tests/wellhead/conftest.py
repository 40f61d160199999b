"""What tests of the whole exchange share."""

from pathlib import Path

import pytest

from tests.wellhead.set_clock import set_clock, until_morning_ns


@pytest.fixture
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that sets a server's clock to five past one in the morning: no gate, hour or cycle ends while a test runs."""
    path = tmp_path_factory.mktemp("clock") / "clock"
    set_clock(path, until_morning_ns())
    return path
