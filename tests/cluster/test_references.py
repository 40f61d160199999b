"""The index of an hour, which the books make, is what the replicas measure the same hour of later days by."""

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest

from engine.catalogue import HOUR_S, NS, Catalogue, Contract
from engine.types import COMMAND, EventKind, Kind
from settlement.index import Source
from tests.cluster.local import config_for, running, until
from tests.tables import command
from tests.wellhead.test_index_used import have_traded, trades
from wellhead.calendar import Calendar
from wellhead.cluster.ask import execute
from wellhead.cluster.books import Bookkeeper
from wellhead.cluster.replica import References, Replica
from wellhead.index_feed import DAY_S, Reference

CATALOGUE = Catalogue.load()
MINUTE_NS = 60 * NS
OLD, NEW = 2_000, 3_000
TODAY, TOMORROW = 1, 2


def hour(number: int, start_s: int, gate_ns: int) -> np.ndarray:
    contract = Contract(CATALOGUE.classes[0], CATALOGUE.regions[0], start_s)
    listing = CATALOGUE.listing(contract, number, (start_s - 80 * HOUR_S) * NS, OLD)
    listing["gate_ns"] = gate_ns
    return listing.view(COMMAND)


def reference_of(replica: Replica, number: int) -> int:
    return int(replica.core.engine.memory.arrays["contracts"]["reference_price"][number])


async def test_an_index_reaches_the_replicas_also_one_that_starts_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Calendar, "_listings", lambda calendar, now_ns: np.zeros(0, COMMAND))  # the hours are ours
    start_s = int(time.time()) // HOUR_S * HOUR_S - 2 * HOUR_S
    async with running(tmp_path, 1) as nats:
        config = config_for(nats, tmp_path, poll_ms=20)
        first, late, books = Replica(config, "r1"), Replica(config, "r2"), Bookkeeper(config, tmp_path / "books")
        started = contextlib.AsyncExitStack()
        async with started:
            for part in (first, books):
                await part.start()
                started.push_async_callback(part.stop)
            later_ns = time.time_ns() + DAY_S * NS
            listings = [
                hour(TODAY, start_s, time.time_ns() + 30 * MINUTE_NS),
                hour(TOMORROW, start_s + DAY_S, later_ns),
            ]
            listed = await execute(config, np.concatenate(listings))
            assert set(listed.events["kind"]) == {EventKind.LISTED}, listed.events["reason"]
            assert have_traded((await execute(config, trades(TODAY, NEW))).events)
            await execute(config, command(Kind.CLOSE, instrument=TODAY))
            await until(lambda: reference_of(first, TOMORROW) == NEW)
            assert reference_of(first, TODAY) == OLD
            await late.start()
            started.push_async_callback(late.stop)
            await until(lambda: bool(late.references.all))
            assert late.references.all == first.references.all


def test_only_what_is_new_is_given_to_the_listed_hours() -> None:
    known = References()
    one, two = (Reference(1, 1, start_s, NEW, Source.PRINTS) for start_s in (0, HOUR_S))
    assert known.hear([one])
    assert not known.hear([one])
    assert known.hear([one, two])
    assert (known.all, known.fresh) == ([one, two], [two])
