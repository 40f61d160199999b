"""What memory alone costs: cache lines read and written at random places of a block as large as an exchange's state.

A cancel of a random order touches its order, two neighbours in the queue, their level, the position and the account: six lines
that are known early enough to be fetched together. In a state of that size no command can cost less, whatever it does with them.
"""

import time
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

LINE_WORDS = 8
LINES_OF_A_COMMAND = 6


@numba.njit
def _touch(words: NDArray[np.int64], picks: NDArray[np.int64]) -> int:
    total = 0
    for command in range(picks.shape[0]):
        for line in range(picks.shape[1]):
            at = picks[command, line] * LINE_WORDS
            total += words[at]
            words[at] = total
    return total


def lines_ns(state_bytes: int, commands: int = 20_000, rounds: int = 5) -> float:
    """Nanoseconds for six random lines of a block of so many bytes, the best of the rounds."""
    lines = max(LINES_OF_A_COMMAND, state_bytes // (8 * LINE_WORDS))
    words = np.ones(lines * LINE_WORDS, np.int64)
    rng: Any = np.random.default_rng(5)
    best = float("inf")
    for _ in range(rounds):
        picks = rng.integers(0, lines, (commands, LINES_OF_A_COMMAND))
        _touch(words, picks[:1])
        started = time.perf_counter()
        _touch(words, picks)
        best = min(best, time.perf_counter() - started)
    return best / commands * 1e9
