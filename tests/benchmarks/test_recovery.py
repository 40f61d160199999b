"""The benchmark of recovery comes to figures, and what it replays is all there."""

from pathlib import Path

from benchmarks.recovery import SNAPSHOT_EVERY, recorded, replay, snapshots, starts


async def test_it_measures_replay_starts_and_snapshots(tmp_path: Path) -> None:
    commands = recorded(SNAPSHOT_EVERY)
    rates = replay(tmp_path, commands[:2_000])
    assert min(rates.values()) > 0
    (row,) = await starts(tmp_path, commands, [2_000])
    assert row["replayed"] == 2_000
    found = await snapshots(tmp_path, commands)
    assert found["snapshots"] == 1
    assert found["market_waits_worst_ms"] >= found["market_waits_median_ms"] > 0
