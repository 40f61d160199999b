"""Fetching memory early changes nothing: a large book in batches, where the engine looks ahead, and a command at a time."""

import numpy as np
import pytest
from numpy.typing import NDArray

import engine.engine
from benchmarks.engine import Churn
from engine.engine import LARGE_ORDERS
from engine.kernel import JIT
from engine.types import COMMAND, Kind


class OneByOne(Churn):
    """The same commands, each in a call of its own: there is nothing ahead to look at."""

    def _send(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        commands["seq"] = np.arange(self.engine.applied_seq + 1, self.engine.applied_seq + 1 + len(commands))
        parts = [self.engine.apply(commands[at : at + 1]).copy() for at in range(len(commands))]
        return np.concatenate(parts)


def unknown(count: int) -> NDArray[np.void]:
    """Cancels of orders in slots that there are not, and orders in such books: they are looked for ahead all the same."""
    commands = np.zeros(count, COMMAND)
    commands["kind"], commands["account"] = Kind.CANCEL, 1
    commands["order_id"] = np.arange(count) * 977_777 + (1 << 24)
    commands["kind"][1::2], commands["qty"], commands["price"] = Kind.NEW_ORDER, 1, 1 << 62
    commands["instrument"][1::4], commands["instrument"][3::4], commands["side"][::3] = 1 << 30, -1 << 31, 255
    return commands


def test_a_large_book_is_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    large = LARGE_ORDERS
    if not JIT:  # where a constant may still be another, and thousands of orders take long
        monkeypatch.setattr(engine.engine, "LARGE_ORDERS", large := 50)
    states = []
    for churn in (Churn(books=3), OneByOne(books=3)):
        churn.fill(large + 500)
        for _ in range(3 if JIT else 1):
            churn.round()
        churn._send(unknown(40))
        assert churn.engine.memory.header["orders_used"] > large
        states.append(churn.engine.state_hash())
    assert states[0] == states[1]
