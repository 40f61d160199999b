"""The crash campaign in short."""

from pathlib import Path

import pytest

from tests.wellhead.crash_campaign import run


async def test_a_short_campaign_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(2, 1, tmp_path, kinds=("clock", "full")) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "1 of 1 ended by themselves with an error" in said
    assert "wrong: nothing" in said
