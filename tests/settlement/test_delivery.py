from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.catalogue import NS
from engine.types import COMMAND, MONEY, TRANSFER, EventKind, Kind, Side
from settlement.delivery import Delivery, plan
from settlement.service import Settlement
from settlement.verify import verify
from tests.settlement.flow import CATALOGUE, START_NS, Venue, command, listing, open_account, order, transfer

HOUR_END_NS = START_NS + (7200 + 3600) * NS


def due_events(*rows: tuple[int, int, int]) -> NDArray[Any]:
    """DELIVERY_DUE from (account, lots, escrow)."""
    events = np.zeros(len(rows), MONEY)
    events["kind"] = EventKind.DELIVERY_DUE
    for at, (account, lots, escrow) in enumerate(rows):
        events["account"][at], events["lots"][at], events["escrow_micros"][at] = account, lots, escrow
    return events


def asked(commands: NDArray[Any]) -> list[tuple[int, ...]]:
    """(kind, instrument, provider, receiver, lots) of commands that were handed out."""
    names = ["kind", "instrument", "account", "contra_account", "lots"]
    return [tuple(row) for row in commands.view(TRANSFER)[names].tolist()]


@pytest.fixture
def closed(venue: Venue) -> Venue:
    """Instrument 1 past its gate: 1 is short 3 lots and 2 is short 5, 3 and 4 are long 4 each."""
    venue.send(*(open_account(account) for account in (1, 2, 3, 4)))
    venue.send(*(transfer(Kind.DEPOSIT, account, amount_micros=10**9) for account in (1, 2, 3, 4)))
    venue.send(listing(1), *(transfer(Kind.NOMINATE, n, instrument=1, lots=9) for n in (1, 2)))
    venue.send(order(1, 1, Side.SELL, 2600, 3), order(2, 1, Side.SELL, 2600, 5))
    venue.send(order(3, 1, Side.BUY, 2600, 4), order(4, 1, Side.BUY, 2600, 4))
    venue.send(command(Kind.CLOSE, instrument=1))
    return venue


PLAN = [(Kind.DELIVER, 1, 1, 3, 2), (Kind.DELIVER, 1, 1, 4, 1), (Kind.DELIVER, 1, 2, 3, 2), (Kind.DELIVER, 1, 2, 4, 3)]
DELIST = (Kind.DELIST, 1, 0, 0, 0)


def test_a_plan_is_in_order_of_account_whatever_the_order_of_the_list() -> None:
    events = due_events((4, 4, 0), (2, -5, 500), (3, 4, 0), (1, -3, 300))
    expected = [
        Delivery(1, 3, 0, 2, 200),
        Delivery(1, 4, 2, 1, 100),
        Delivery(2, 3, 0, 2, 200),
        Delivery(2, 4, 2, 3, 300),
    ]
    assert plan(events) == plan(events[::-1].copy()) == expected


def test_nothing_is_due_before_the_hour_has_ended(closed: Venue) -> None:
    assert len(closed.settlement.due(HOUR_END_NS - 1)) == 0
    due = closed.settlement.due(HOUR_END_NS)
    assert asked(due) == PLAN
    assert due.dtype == COMMAND


def test_each_command_is_handed_out_once_and_delist_follows_the_deliveries(closed: Venue) -> None:
    due = closed.settlement.due(HOUR_END_NS)
    assert len(closed.settlement.due(HOUR_END_NS)) == 0
    closed.send(due[:3])
    assert len(closed.settlement.due(HOUR_END_NS)) == 0
    closed.send(due[3:])
    assert asked(closed.deliver()) == [DELIST]
    assert len(closed.settlement.due(HOUR_END_NS)) == 0
    assert closed.engine.dump()["books"] == {}
    assert verify(closed.settlement.books, closed.engine.dump()) == []


def test_an_hour_that_nobody_traded_is_delisted_after_its_end(venue: Venue) -> None:
    venue.send(listing(1), command(Kind.CLOSE, instrument=1))
    assert len(venue.settlement.due(HOUR_END_NS - 1)) == 0
    assert asked(venue.deliver(HOUR_END_NS)) == [DELIST]


@pytest.mark.parametrize("made", [0, 1, 3, 4])
def test_a_restart_offers_what_the_log_does_not_have(closed: Venue, made: int) -> None:
    due = closed.settlement.due(HOUR_END_NS)
    if made:
        closed.send(due[:made])
    closed.settlement.close()
    closed.settlement = Settlement(closed.directory, CATALOGUE)
    assert asked(closed.settlement.due(HOUR_END_NS)) == (PLAN[made:] or [DELIST])


def test_a_replay_with_deliveries_in_it_offers_nothing_again(closed: Venue, tmp_path: Path) -> None:
    closed.deliver()
    log = closed.recording()
    fresh = Settlement(tmp_path / "fresh", CATALOGUE)
    fresh.on_batch(log.commands, log.events)
    fresh.on_batch(log.commands, log.events)
    assert asked(fresh.due(HOUR_END_NS)) == [DELIST]
    fresh.close()


def test_a_refused_delivery_is_shown_and_not_offered_again(closed: Venue) -> None:
    due = closed.settlement.due(HOUR_END_NS)
    good = due.copy()
    due.view(TRANSFER)["instrument"][1] = 9
    closed.send(due)  # the engine refuses the second: nothing of the plan was refused, an order is just missing
    assert verify(closed.settlement.books, closed.engine.dump()) == []
    closed.engine.apply(_refusal(closed, good[1:2]))
    closed.settlement.on_batch(closed.commands[-1], closed.events[-1])
    assert len(closed.settlement.due(HOUR_END_NS)) == 0
    what = [difference.what for difference in verify(closed.settlement.books)]
    assert what == ["delivery refused by the engine"]
    closed.settlement.close()
    closed.settlement = Settlement(closed.directory, CATALOGUE)
    assert len(closed.settlement.due(HOUR_END_NS)) == 0


def _refusal(venue: Venue, planned: NDArray[Any]) -> NDArray[Any]:
    """A planned delivery as the log would have it, with the answer of an engine that does not take it."""
    row = planned.copy()
    row["seq"], row["ts_ns"] = venue.engine.applied_seq + 1, venue.now_ns
    events = np.zeros(1, MONEY)
    events["command_seq"], events["kind"], events["reason"] = row["seq"], EventKind.REJECTED, 2207
    events["instrument"], events["account"], events["ts_ns"] = 1, row["account"], venue.now_ns
    venue.commands.append(row)
    venue.events.append(events.view(np.dtype(venue.events[-1].dtype)))
    return row


def test_a_delivery_made_otherwise_than_planned_stops_the_plan(closed: Venue) -> None:
    closed.send(transfer(Kind.DELIVER, 1, contra_account=4, instrument=1, lots=3))
    assert len(closed.settlement.due(HOUR_END_NS)) == 0
    found = verify(closed.settlement.books, closed.engine.dump())
    assert [(difference.what, difference.found) for difference in found] == [("delivery", "another one")]


def test_a_number_that_is_listed_again_is_another_listing(closed: Venue) -> None:
    closed.deliver()
    closed.deliver()
    closed.send(listing(1, "H100S-USE-LATER"), transfer(Kind.NOMINATE, 1, instrument=1, lots=9))
    closed.send(order(1, 1, Side.SELL, 2600, 1), order(3, 1, Side.BUY, 2600, 1))
    books = closed.settlement.books
    assert sorted(books.registry.symbols().values()) == ["H100S-USE-1", "H100S-USE-LATER"]
    assert len({asset for asset, _ in books.ledger.balances() if asset}) == 1
    assert verify(books, closed.engine.dump()) == []


def test_a_number_that_is_listed_again_within_one_batch(closed: Venue, tmp_path: Path) -> None:
    closed.deliver()
    closed.deliver()
    closed.send(listing(1), command(Kind.CLOSE, instrument=1), command(Kind.DELIST, instrument=1), listing(1))
    closed.send(transfer(Kind.NOMINATE, 1, instrument=1, lots=9))
    closed.send(order(1, 1, Side.SELL, 2600, 1), order(3, 1, Side.BUY, 2600, 1))
    log = closed.recording()
    fresh = Settlement(tmp_path / "fresh", CATALOGUE)
    fresh.on_batch(log.commands, log.events)
    assert fresh.books.ledger.digest() == closed.settlement.books.ledger.digest()
    assert verify(fresh.books, closed.engine.dump()) == []
    fresh.close()
