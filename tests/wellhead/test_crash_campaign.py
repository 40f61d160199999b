"""The crash campaign in short."""

import pytest

from tests.wellhead.crash_campaign import KINDS, Plan, run


async def test_a_short_campaign_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ("kill", "start", "full", "settle", "snapshot", "leave", "clock", "kill")
    assert set(kinds) <= set(KINDS)
    assert await run(Plan(kills=len(kinds), seed=1, cold=0.1, kinds=kinds)) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "wrong: nothing" in said
