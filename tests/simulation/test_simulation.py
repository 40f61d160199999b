"""The simulation in short: some seeds, the same seed twice, and every planted fault found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import simulate

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the disk looks at open files in /proc")


@pytest.mark.parametrize("seed", range(1, 6))
def test_whatever_happens_nothing_is_lost_and_nothing_happens_twice(seed: int) -> None:
    outcome = simulate(seed, 200)
    assert outcome.problems == [], f"replay it: python -m tests.simulation --seed {seed} --actions 200"
    assert outcome.actions == 200


def test_a_seed_is_replayed_exactly() -> None:
    first, second, other = simulate(7, 100), simulate(7, 100), simulate(8, 100)
    assert first == second
    assert first.digest != other.digest


@pytest.mark.skipif("CAMPAIGN" not in os.environ, reason="a campaign's test: takes more than a minute")
def test_every_planted_fault_is_found() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--faults", "--seeds", "40"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
