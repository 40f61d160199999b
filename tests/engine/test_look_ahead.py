"""Fetching memory early changes nothing: a large book in batches, where the engine looks ahead, and a command at a time."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine import Churn
from engine.engine import LARGE_ORDERS


class OneByOne(Churn):
    """The same commands, each in a call of its own: there is nothing ahead to look at."""

    def _send(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        commands["seq"] = np.arange(self.engine.applied_seq + 1, self.engine.applied_seq + 1 + len(commands))
        parts = [self.engine.apply(commands[at : at + 1]).copy() for at in range(len(commands))]
        return np.concatenate(parts)


def test_a_large_book_is_the_same_with_and_without() -> None:
    states = []
    for churn in (Churn(books=3), OneByOne(books=3)):
        churn.fill(LARGE_ORDERS + 500)
        for _ in range(3):
            churn.round()
        assert churn.engine.memory.header["orders_used"] > LARGE_ORDERS
        states.append(churn.engine.state_hash())
    assert states[0] == states[1]
