"""The benchmark of recovery comes to figures, and what it replays is all there."""

from pathlib import Path

import pytest

from benchmarks.recovery import STEP_COMMANDS, STEPS_BETWEEN, full_books, recorded, replay, snapshots, starts


async def test_it_measures_replay_and_starts(tmp_path: Path) -> None:
    commands = recorded(2_000)
    rates = replay(tmp_path, commands)
    assert min(rates.values()) > 0
    (row,) = await starts(tmp_path, commands, [2_000])
    assert row["replayed"] == 2_000


@pytest.mark.parametrize("forked", [True, False])
async def test_it_measures_what_a_snapshot_makes_the_market_wait(tmp_path: Path, forked: bool) -> None:
    found = await snapshots(tmp_path, *full_books((STEPS_BETWEEN + 20) * STEP_COMMANDS, 1_000), forked)
    assert found["snapshots"] == 1
    assert found["held_worst_ms"] >= found["held_median_ms"] > 0
