"""What memory alone costs: cache lines read and written at random places of a block as large as an exchange's state.

A cancel of a random order touches its order, two neighbours in the queue, their level, the position and the account: six lines
that are known early enough to be fetched together. With many books it touches the book and its side too. In a state of that
size no command can cost less, whatever it does with them.
"""

import time
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

LINE_WORDS = 8
LINES_OF_A_COMMAND, LINES_OF_A_BOOK = 6, 2


@numba.njit
def _touch(words: NDArray[np.int64], picks: NDArray[np.int64]) -> int:
    total = 0
    for command in range(picks.shape[0]):
        for line in range(picks.shape[1]):
            at = picks[command, line] * LINE_WORDS
            total += words[at]
            words[at] = total
    return total


def lines_ns(state_bytes: int, touched: int, commands: int = 20_000, rounds: int = 5) -> float:
    """Nanoseconds for `touched` random lines of a block of so many bytes, the best of the rounds."""
    lines = max(touched, state_bytes // (8 * LINE_WORDS))
    words = np.ones(lines * LINE_WORDS, np.int64)
    rng: Any = np.random.default_rng(5)
    best = float("inf")
    for _ in range(rounds):
        picks = rng.integers(0, lines, (commands, touched))
        _touch(words, picks[:1])
        started = time.perf_counter()
        _touch(words, picks)
        best = min(best, time.perf_counter() - started)
    return best / commands * 1e9
