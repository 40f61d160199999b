"""The checker: what clients were told, held against what the journal says and what a fresh engine makes of it.

Every acknowledged order was executed once, under the number that was acknowledged. Whatever was acknowledged before
another order was sent stands before it in the one order (so the history is linearizable: an acknowledged order takes
effect between its request and its answer, at the place that the journal gives it). And the journal's events are those
of an engine that never saw the cluster, whose state has the hash of every replica.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import unpack_id
from engine.engine import Engine
from engine.invariants import check
from engine.sequencing import Entry
from engine.types import TRANSFER, EventKind, Kind

Executed = dict[tuple[str, str], list[tuple[int, int]]]
"""Account and cid -> number of the command and id of each order that was accepted."""


@dataclass(frozen=True, slots=True)
class Told:
    """An order that was acknowledged: by whom and when it was sent, first and last, and what was said."""

    account: str
    cid: str
    oid: int
    sent_at: float
    told_at: float


@dataclass
class History:
    """What clients were told, in the order of their answers."""

    told: list[Told] = field(default_factory=list)
    refused: int = 0

    def longest_gap(self, since: float, until: float) -> float:
        """Seconds without any answer."""
        times = sorted({since, until, *(one.told_at for one in self.told if since <= one.told_at <= until)})
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


def problems(history: History, entries: list[Entry], hashes: list[str]) -> list[str]:
    """A sentence for each thing that is wrong."""
    engine = Engine()
    names: dict[int, str] = {}
    executed: Executed = {}
    wrong: list[str] = []
    for entry in entries:
        for part in entry.parts:
            events = engine.apply(part.commands)
            if events.tobytes() != part.events.tobytes():
                wrong.append(f"message {part.in_seq}: an engine of its own says something else than the journal")
            _note(part.commands, part.events, names, executed)
    check(engine.memory)
    wrong += [f"{key} was executed {len(found)} times" for key, found in executed.items() if len(found) > 1]
    wrong += _broken_promises(history, executed)
    wrong += _out_of_order(history, executed)
    own = engine.state_hash()
    wrong += [f"replica {number} has another state" for number, state in enumerate(hashes) if state != own]
    twice = [key for key, count in Counter((one.account, one.cid) for one in history.told).items() if count > 1]
    return wrong + [f"{key} was told twice" for key in twice]


def _note(commands: NDArray[np.void], events: NDArray[np.void], names: dict[int, str], executed: Executed) -> None:
    """Take in which orders were executed, by account and cid."""
    seqs = commands["seq"]
    for event in events[np.isin(events["kind"], (EventKind.ACCOUNT_OPENED, EventKind.NEW))]:
        command = commands[int(np.searchsorted(seqs, event["command_seq"]))]
        if event["kind"] == EventKind.ACCOUNT_OPENED:
            names[int(event["account"])] = unpack_id(command.view(TRANSFER)["external_id"])
        elif command["kind"] == Kind.NEW_ORDER:
            key = names[int(event["account"])], unpack_id(command["cl_ord_id"])
            executed.setdefault(key, []).append((int(command["seq"]), int(event["order_id"])))


def _broken_promises(history: History, executed: Executed) -> list[str]:
    wrong = []
    for one in history.told:
        found = executed.get((one.account, one.cid), [])
        if [oid for _, oid in found] != [one.oid]:
            wrong.append(f"{one.account} was told of {one.cid} as {one.oid}; the journal has {found}")
    return wrong


def _out_of_order(history: History, executed: Executed) -> list[str]:
    """Orders sent after another's answer that stand before it."""
    moments = []
    for one in history.told:
        found = executed.get((one.account, one.cid))
        if found:
            moments += [(one.sent_at, 0, found[0][0], one), (one.told_at, 1, found[0][0], one)]
    wrong, highest = [], (0, "")
    for _, is_answer, seq, one in sorted(moments, key=lambda moment: moment[:2]):
        if is_answer:
            highest = max(highest, (seq, one.cid))
        elif seq < highest[0]:
            wrong.append(f"{one.cid} was sent after {highest[1]} was answered and stands before it")
    return wrong
