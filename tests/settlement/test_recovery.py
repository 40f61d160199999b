"""Rebuilt from the log it is the same to the byte; killed by the kernel it goes on."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from settlement.service import Settlement
from settlement.verify import verify
from tests.settlement.flow import CATALOGUE, cuts, recorded
from tests.settlement.test_batches import content, result

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_deleted_books_come_back_the_same_however_the_log_is_cut(tmp_path: Path, seed: int) -> None:
    log = recorded(seed, 60)
    results, files = [], []
    for name, bounds in (("whole", [(1, len(log))]), ("cut", list(cuts(len(log), seed)))):
        settlement = Settlement(tmp_path / name, CATALOGUE)
        for first, last in bounds:
            settlement.on_batch(*log.cut(first, last))
        assert verify(settlement.books) == []
        results.append(result(settlement))
        files.append(content(tmp_path / name))
        settlement.close()
    assert results[0] == results[1]
    assert files[0] == files[1]


def test_killed_again_and_again_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    log = recorded(2, 60)
    np.save(tmp_path / "log.commands.npy", log.commands)
    np.save(tmp_path / "log.events.npy", log.events)
    whole = Settlement(tmp_path / "whole", CATALOGUE)
    whole.on_batch(log.commands, log.events)
    pick, books, durable, kills = random.Random(7), tmp_path / "books", 0, 0
    while durable < len(log):
        arguments = [sys.executable, "-m", "tests.settlement.apply_log", str(tmp_path / "log"), str(books), str(kills)]
        with subprocess.Popen(arguments, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            started = int(process.stdout.readline().split()[1])
            # A batch whose line was not read may be durable too, a line that was read may not be lost.
            assert started >= durable
            durable = started
            for _ in range(pick.randint(1, 60)):
                line = process.stdout.readline()
                durable = int(line.split()[1]) if line else len(log)
            if durable < len(log):
                process.kill()
                kills += 1
    assert kills > 2
    killed = Settlement(books, CATALOGUE)
    assert result(killed) == result(whole)
    assert content(books) == content(tmp_path / "whole")
    assert verify(killed.books) == []
    killed.close()
    whole.close()
