"""The crash campaign in short."""

from pathlib import Path

import pytest

from tests.wellhead.crash_campaign import run


async def test_a_short_campaign_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(2, 1, tmp_path) == 0, capsys.readouterr().out
    assert "2 kills -9" in capsys.readouterr().out
