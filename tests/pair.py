"""The engine and its twin side by side: the same commands, and whatever differs is an error."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import invariants
from engine.types import COMMAND, EVENT, EventKind, Reason
from tests.both import make_engine, make_twin
from tests.step import Step
from tests.steps import command_for, describe, opening
from tests.tables import as_dict

Command = NDArray[np.void]
DUMP_EVERY = 16


class Pair:
    """Applies each command to both, and compares every event's bytes and, now and then, everything else."""

    def __init__(self, **limits: int) -> None:
        self.engine = make_engine(**limits)
        self.twin = make_twin(**limits)
        self.now_ns = 0
        self.commands: list[Command] = []
        self.events: list[bytes] = []
        self.refused_for_room = 0

    def play(self, steps: Iterable[Step]) -> "Pair":
        """Take the steps one by one."""
        for step in steps:
            self.now_ns += step.wait_ns
            self.apply(command_for(step, self.twin, self.now_ns))
        self.compare_dumps()
        return self

    def open(self, terms: tuple[int, ...], cash: tuple[int, ...]) -> "Pair":
        """Set both up (see `opening`)."""
        for row in opening(terms, cash):
            row["seq"] = self.twin.applied_seq + 1
            self.apply(row.view(COMMAND))
        return self

    def apply(self, row: Command) -> None:
        self.commands.append(row.copy())
        got = self.engine.apply(row).copy()
        # The twin has no pools. When one of the engine's is full it is told so, and must come to the same refusal.
        self.twin.room = not (got["reason"] == Reason.OVERLOADED).any()
        self.refused_for_room += not self.twin.room
        expected = self.twin.apply(row)
        self.events.append(expected.tobytes())
        if got.tobytes() != expected.tobytes():
            raise AssertionError(self.report(got, expected))
        self.twin.check()
        invariants.check(self.engine.memory)
        if len(self.commands) % DUMP_EVERY == 0:
            self.compare_dumps()

    def apply_many(self, commands: Command) -> NDArray[np.void]:
        """Apply a batch to both; the events and the dumps are compared once, at its end."""
        got, expected = self.engine.apply(commands).copy(), self.twin.apply(commands)
        self.commands.append(commands.copy())
        self.events.append(expected.tobytes())
        assert len(got) == len(expected), (len(got), len(expected))
        for at in np.flatnonzero(got != expected)[:1]:
            raise AssertionError(self.report(got[at : at + 1], expected[at : at + 1]))
        self.twin.check()
        invariants.check(self.engine.memory)
        self.compare_dumps()
        return got

    def compare_dumps(self) -> None:
        got, expected = self.engine.dump(), self.twin.dump()
        for part, value in expected.items():
            assert got[part] == value, self.history() + f"\n{part} of the engine: {got[part]}\nof the twin: {value}"
        assert got.keys() == expected.keys()

    def history(self) -> str:
        rows = self.log()[-60:]
        return "\n".join(describe(rows[i : i + 1]) for i in range(len(rows)))

    def report(self, got: Command, expected: Command) -> str:
        lines = [self.history()]
        for who, events in (("engine", got), ("twin", expected)):
            lines += [f"the {who} says:"] + [in_words(events[i : i + 1]) for i in range(len(events))]
        return "\n".join(lines)

    def log(self) -> Command:
        """All commands so far, as one array."""
        return np.concatenate(self.commands)


def in_words(event: Command) -> str:
    fields = as_dict(event)
    kind, reason = EventKind(fields.pop("kind")), Reason(fields.pop("reason"))
    return f"  {kind.name} {reason.name}" + "".join(f" {k}={v}" for k, v in fields.items() if v)


def run_in_batches(commands: Command, size: int, **limits: int) -> tuple[bytes, str]:
    """What a fresh engine answers to the commands in batches of a size: the events' bytes and the final state's hash."""
    engine = make_engine(**limits)
    parts = [engine.apply(commands[i : i + size]).tobytes() for i in range(0, len(commands), size)]
    assert sum(map(len, parts)) % EVENT.itemsize == 0
    return b"".join(parts), engine.state_hash()


def shrink(steps: list[Step], fails: Callable[[list[Step]], Any]) -> list[Step]:
    """The fewest of the steps that still fail, found by leaving out ever smaller stretches."""
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            if fails(fewer):
                steps = fewer
            else:
                start += size
        size //= 2
    return steps
