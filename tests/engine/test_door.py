"""What the door takes: commands in any array that holds them, in sequence; and nothing compiled twice."""

import numpy as np
import pytest

from engine.engine import Engine, apply_on, warm_up
from engine.kernel import JIT
from engine.types import COMMAND, EVENT, TRANSFER, EventKind, Kind


def accounts(count: int) -> np.ndarray:
    opened = np.zeros(count, TRANSFER)
    opened["seq"] = opened["account"] = np.arange(1, count + 1)
    opened["kind"] = Kind.OPEN_ACCOUNT
    return opened


def read_only(commands: np.ndarray) -> np.ndarray:
    return np.frombuffer(commands.tobytes(), COMMAND)


def strided(commands: np.ndarray) -> np.ndarray:
    twice = np.zeros(2 * len(commands), COMMAND)
    twice[::2] = commands.view(COMMAND)
    return twice[::2]


def unaligned(commands: np.ndarray) -> np.ndarray:
    return np.frombuffer(bytearray(b"\0" + commands.tobytes()), COMMAND, offset=1)


@pytest.mark.parametrize("shape", [lambda c: c, lambda c: c.view(COMMAND), read_only, strided, unaligned])
def test_an_array_of_commands_of_any_kind_is_taken(shape):
    engine = Engine()
    events = engine.apply(shape(accounts(5)))
    assert events.dtype == EVENT and (events["kind"] == EventKind.ACCOUNT_OPENED).all() and len(events) == 5


def test_no_other_array_makes_the_engine_compile_again():
    for shape in (read_only, strided):
        Engine().apply(shape(accounts(3)))
    assert not JIT or len(apply_on.overloads) == 1


def test_records_of_another_size_are_refused():
    with pytest.raises(ValueError, match="192 bytes"):
        Engine().apply(np.zeros(1, EVENT))


@pytest.mark.parametrize("numbers", [[2], [0], [1, 3], [1, 2, 2], [2, 3], [3, 2, 1]])
def test_commands_out_of_sequence_change_nothing(numbers):
    engine, untouched = Engine(), Engine().state_hash()
    commands = accounts(len(numbers))
    commands["seq"] = numbers
    with pytest.raises(ValueError, match="do not follow command 0"):
        engine.apply(commands)
    assert engine.state_hash() == untouched


def test_no_commands_are_no_events():
    assert len(Engine().apply(np.zeros(0, COMMAND))) == 0


def test_warming_up_says_whether_it_compiled():
    assert warm_up() == (JIT and bool(apply_on.stats.cache_misses))
