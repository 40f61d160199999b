"""Hours are listed when there is room, and only with terms that make sense."""

from dataclasses import replace

import numpy as np
import pytest

from engine.catalogue import Catalogue, CatalogueError
from engine.engine import Engine
from engine.state import Limits
from engine.types import COMMAND, LISTING, EventKind, Kind
from wellhead.calendar import Calendar
from wellhead.node import check_listings

NS = 1_000_000_000
NOW_NS = 1_795_000_000 * NS
CATALOGUE = Catalogue.load()


def apply(engine: Engine, commands: np.ndarray, now_ns: int) -> list[int]:
    commands = np.ascontiguousarray(commands).view(COMMAND)
    commands["seq"] = engine.applied_seq + 1 + np.arange(len(commands))
    commands["ts_ns"] = now_ns
    return [int(kind) for kind in engine.apply(commands)["kind"]] if len(commands) else []


def test_hours_without_room_are_listed_as_soon_as_there_is_some() -> None:
    engine = Engine(Limits(max_instruments=2))
    calendar = Calendar(engine, CATALOGUE, ("H100S-USE",), list_hours=4)
    assert apply(engine, calendar.due(NOW_NS), NOW_NS) == [EventKind.LISTED] * 2
    assert not len(calendar.due(NOW_NS + NS))
    later_ns = int(engine.memory.arrays["books"]["gate_ns"][1])
    assert EventKind.CLOSED in apply(engine, calendar.due(later_ns), later_ns)
    gone = np.zeros(1, COMMAND)
    gone["kind"], gone["instrument"] = Kind.DELIST, 1
    apply(engine, gone, later_ns)
    due = calendar.due(later_ns + NS)
    assert apply(engine, due, later_ns + NS) == [EventKind.LISTED]
    (listing,) = due.view(LISTING)
    assert listing["start_s"] > engine.memory.arrays["contracts"]["start_s"][2]


def test_listings_that_contradict_themselves_are_not_submitted() -> None:
    good = CATALOGUE.listing(CATALOGUE.contract("H100S-USE-H26112214"), 1, NOW_NS, 2_650)
    check_listings(good.view(COMMAND))
    for field, value in (("tick_micros", 0), ("tick_micros", 7), ("hours", 2), ("gpus_per_lot", 1)):
        bad = good.copy()
        bad[field] = value
        with pytest.raises(ValueError, match="H100S-USE-H26112214"):
            check_listings(bad.view(COMMAND))


@pytest.mark.parametrize("change", [{"tick_micros": 0}, {"gpus_per_lot": 0}])
def test_a_catalogue_without_a_tick_is_refused(change: dict[str, int]) -> None:
    classes = (replace(CATALOGUE.classes[0], **change), *CATALOGUE.classes[1:])
    with pytest.raises(CatalogueError, match="not below one"):
        replace(CATALOGUE, classes=classes)._check()
