"""Room: pools that grow from one slot or are full, events that just fit, tables with as many collisions as there can be.

The door must stop in front of a command that may not have room, and nobody may see that it did.
"""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import engine.engine
from engine import invariants
from engine.engine import Engine
from engine.records import zeros
from engine.state import POOLS
from engine.types import (
    ANY_SIDE,
    COMMAND,
    EVENT,
    LISTING,
    MAX_POSITION_LOTS,
    MAX_QTY,
    TRANSFER,
    EventKind,
    Flag,
    Kind,
    Reason,
    Side,
    Status,
)
from tests.both import make_engine
from tests.pair import Pair
from tests.steps import TERMS, listing, random_steps
from tests.tables import command

RICH = (10**15,) * 4
SLACK = 512


class TightPair(Pair):
    """Before each command the room for events is one row, and it grows by as little as one; no row behind it is written."""

    def __init__(self, **limits: int) -> None:
        super().__init__(**limits)
        self.stops = 0

    def apply(self, row: NDArray[np.void]) -> None:
        rooms: list[tuple[NDArray[np.void], int]] = []

        def room(rows: int, _: str) -> NDArray[np.void]:
            rows = rows // 2 + max(1, rows // 16)  # it is asked for twice what there was
            whole = zeros(rows + SLACK, EVENT)
            rooms.append((whole, rows))
            return whole[:rows]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine.engine, "aligned", room)
            self.engine._events = room(0, "events")
            self.engine._bind()
            super().apply(row)
        for whole, rows in rooms:
            assert not whole[rows:].view(np.uint8).any(), "an event was written behind the room for events"
        self.stops += len(rooms) - 1


@pytest.fixture
def small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, pool in POOLS.items():
        monkeypatch.setitem(POOLS, name, pool._replace(first_size=1))


@pytest.mark.parametrize("seed", range(2))
def test_a_storm_in_the_least_room(seed: int, small_pools: None) -> None:
    pair = TightPair().open((0, 2, 4), RICH).play(random_steps(700 + seed, 200, wrecked=0.02))
    assert pair.refused_for_room == 0
    assert pair.stops > 1_000


@pytest.mark.parametrize("size", [1, 100])
def test_pools_that_grew_hold_what_others_do(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Pair().open((0, 2, 4), RICH).play(random_steps(800, 250)).log()
    usual, small = make_engine(), None
    with monkeypatch.context() as patch:
        for name, pool in POOLS.items():
            patch.setitem(POOLS, name, pool._replace(first_size=1))
        patch.setattr(engine.engine, "FIRST_EVENTS", 2)
        small = make_engine()
    got = b"".join(small.apply(log[at : at + size]).tobytes() for at in range(0, len(log), size))
    assert got == usual.apply(log).tobytes()
    assert small.state_hash() == usual.state_hash()
    assert small.to_bytes() == usual.to_bytes()


# Hash tables. A pool of eight slots has a table of sixteen, so that nearly every entry is displaced by another.


class Run(Pair):
    """Commands by their fields, each compared to the twin."""

    def do(self, kind: Kind, layout: np.dtype[np.void] = COMMAND, /, **fields: Any) -> Reason:
        """The reason of its refusal, or NONE."""
        row = command(kind, layout, **fields)
        row["seq"], row["ts_ns"] = self.twin.applied_seq + 1, self.now_ns
        self.apply(row.view(COMMAND))
        events = np.frombuffer(self.events[-1], EVENT)
        refused = events[events["kind"] == EventKind.REJECTED]
        return Reason(int(refused["reason"][0])) if len(refused) else Reason.NONE

    def resume(self) -> None:
        """Go on from what a snapshot would hold."""
        self.engine = Engine.from_bytes(self.engine.to_bytes(), self.engine.memory.limits)

    def buy(self, account: int, instrument: int = 1, **fields: Any) -> Reason:
        return self.do(Kind.NEW_ORDER, account=account, instrument=instrument, **{"qty": 1, "price": 10} | fields)


def test_positions_displace_each_other_and_are_found() -> None:
    run = Run(max_positions=16).open((0, 2, 4, 0), RICH[:2])
    for gone in (1, 4, 2, 2, 3, 1):
        for account in (1, 2):
            for book in (3, 1, 4, 2):
                assert run.buy(account, book) == Reason.NONE
        assert run.do(Kind.CLOSE, instrument=gone) == run.do(Kind.DELIST, instrument=gone) == Reason.NONE
        assert run.do(Kind.LIST, LISTING, **{"instrument": gone, "gate_ns": 10**9} | TERMS[0]) == Reason.NONE
    assert len(run.twin.positions) == 6


def test_protections_displace_each_other_and_are_found() -> None:
    run = Run(max_mmp_groups=8).open((0,), RICH)
    protection = {"qty": 5, "show_qty": 2, "expire_ns": 9}
    for _ in range(3):
        for group in range(1, 9):
            assert run.do(Kind.SET_MMP, account=1 + group % 3, group=group, **protection) == Reason.NONE
        assert run.do(Kind.SET_MMP, account=4, group=9, **protection) == Reason.OVERLOADED
        for group in (5, 1, 8, 2, 9):
            assert run.do(Kind.SET_MMP, account=1 + group % 3, group=group) == Reason.NONE  # 9 has none to remove
        for group in range(1, 9):
            expected = Reason.BAD_FIELD if group in (5, 1, 8, 2) else Reason.NONE
            assert run.do(Kind.RESET_MMP, account=1 + group % 3, group=group) == expected
        run.resume()


DAY_NS = 86_400_000_000_000


class Days(Run):
    """An account and a book that is open for days; orders with client order ids."""

    def __init__(self, **limits: int) -> None:
        super().__init__(**limits)
        self.do(Kind.OPEN_ACCOUNT, TRANSFER, account=1)
        self.do(Kind.DEPOSIT, TRANSFER, account=1, amount_micros=10**12)
        self.do(Kind.LIST, LISTING, **{"instrument": 1, "gate_ns": 9 * DAY_NS} | TERMS[0])

    def send(self, cid: int | list[int], qty: int = 1) -> EventKind:
        self.buy(1, qty=qty, cl_ord_id=cid, flags=Flag.EXTENDED)
        return EventKind(int(np.frombuffer(self.events[-1], EVENT)["kind"][0]))

    def forget(self) -> None:
        """Until no order works and each id may be used anew."""
        self.do(Kind.MASS_CANCEL, account=1, side=ANY_SIDE)
        self.now_ns += DAY_NS


def test_client_ids_displace_each_other_and_are_found() -> None:
    """A ring of eight in a table of sixteen, round and round; and an entry used anew leaves an empty place in the ring."""
    run = Days(max_client_ids=8)
    ids = random.Random(1).sample(range(1, 1 << 62), 60)
    for at, cid in enumerate(ids):
        assert run.send(cid) == EventKind.NEW
        for again in ids[max(0, at - 7) : at + 1]:
            assert run.send(again) == EventKind.DUPLICATE
    run.forget()
    for cid in (ids[-4], ids[-2]):
        assert run.send(cid, qty=2) == EventKind.NEW
    run.resume()
    for cid in range(100, 130):
        assert run.send(cid) == EventKind.NEW
        assert run.send(cid) == EventKind.DUPLICATE


def test_two_client_ids_of_one_hash_are_two() -> None:
    """Of a hundred thousand numbers some have the same 32 bits; these two have."""
    ids, run = same_hash(), Days()
    for outcome in (EventKind.NEW, EventKind.DUPLICATE):
        assert [run.send(cid) for cid in ids] == [outcome] * 2
    slots = run.engine.memory.arrays["client_ids"]["mixed"][:2].tolist()
    assert slots[0] == slots[1], "the hash is another by now, and this test shows nothing"
    run.forget()
    assert run.send(ids[1], qty=2) == EventKind.NEW, "behind the other in the table, which stays there"
    assert run.send(ids[1], qty=2) == EventKind.DUPLICATE
    assert [run.send(ids[0]) for _ in range(2)] == [EventKind.NEW, EventKind.DUPLICATE]


def same_hash() -> tuple[list[int], list[int]]:
    """Two ids that differ in a word and have the same hash for account 1; engine.client_ids._mixed in numpy."""
    first, second = np.uint64(0x9E3779B97F4A7C15 >> 1), np.uint64(0xC2B2AE3D27D4EB4F >> 1)

    def mix(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return (a * first + b * second) >> np.uint64(31) & np.uint64(0xFFFFFFFF)

    words = np.random.default_rng(1).integers(1, 1 << 63, 300_000, dtype=np.uint64)
    mixed = np.zeros_like(words)
    for word in (words, *[np.zeros_like(words)] * 4):
        mixed = mix(mixed, word) + (mixed << np.uint64(1))
    hashed = mix(np.ones_like(words), mixed)
    order = np.argsort(hashed, kind="stable")
    at = int(np.flatnonzero(np.diff(hashed[order]) == 0)[0])
    one, other = words[order[at : at + 2]].tolist()
    return [one, 0, 0, 0, 0], [other, 0, 0, 0, 0]


# Full pools: a refusal, whatever asks for the last slot, and nothing has changed.


def test_no_room_for_another_position() -> None:
    run = Run(max_positions=2).open((0, 0), (10**12,) * 3)
    assert run.refused_for_room == 2, "the nominations in the second book"
    extended = {"flags": Flag.EXTENDED, "tag": 1}
    assert run.buy(3, 1) == run.buy(3, 1, time_in_force=2) == run.buy(3, 2, **extended) == Reason.OVERLOADED
    assert run.do(Kind.QUOTE, account=3, instrument=1, price=5, qty=1, group=1) == Reason.OVERLOADED
    assert run.do(Kind.NOMINATE, TRANSFER, account=3, instrument=1, lots=1) == Reason.OVERLOADED
    assert run.buy(1, 1) == run.buy(2, 1, time_in_force=2) == Reason.OVERLOADED, "whether or not it would need one"


def test_no_room_for_another_order() -> None:
    run = Run(max_orders=2).open((0,), RICH)
    extended = {"flags": Flag.EXTENDED, "tag": 1}
    assert run.buy(1) == run.buy(2, **extended) == Reason.NONE
    assert run.buy(3) == run.buy(3, **extended) == Reason.OVERLOADED
    for order in list(run.twin.orders.values()):
        assert run.do(Kind.AMEND, account=order.account, order_id=order.order_id, price=9, qty=1) == Reason.OVERLOADED
    assert run.do(Kind.MASS_CANCEL, account=1, side=ANY_SIDE) == run.buy(3) == Reason.NONE


@pytest.mark.parametrize(("pool", "most"), [("max_leaves", 3), ("max_nodes", 6)])
def test_no_room_for_another_price(pool: str, most: int) -> None:
    run = Run(**{pool: most}).open((4, 4), RICH)
    far = [1 + 5_000 * at for at in range(most + 2)]
    answers = [run.buy(1, price=price) for price in far]
    assert answers[0] == Reason.NONE and answers[-1] == Reason.OVERLOADED
    assert run.buy(1, price=far[-1], flags=Flag.EXTENDED, tag=1) == Reason.OVERLOADED
    # What a closed book gives back serves another one.
    assert run.do(Kind.CLOSE, instrument=1) == run.buy(1, 2, flags=Flag.EXTENDED, tag=1) == run.buy(1, 2) == Reason.NONE


def test_no_room_for_another_holder() -> None:
    run = Run(max_shares=2).open((), RICH)
    for holder, answer in ((1, Reason.NONE), (2, Reason.NONE), (3, Reason.OVERLOADED)):
        assert run.do(Kind.ISSUE_SHARES, TRANSFER, account=4, contra_account=holder, lots=5) == answer
    move = {"account": 1, "contra_account": 3, "asset": 4}
    assert run.do(Kind.MOVE_SHARES, TRANSFER, lots=4, **move) == Reason.OVERLOADED
    assert run.do(Kind.MOVE_SHARES, TRANSFER, lots=5, **move) == Reason.NONE, "the first leaves a place"
    assert run.do(Kind.ISSUE_SHARES, TRANSFER, account=4, contra_account=2, lots=-5) == Reason.NONE
    assert run.do(Kind.ISSUE_SHARES, TRANSFER, account=4, contra_account=1, lots=1) == Reason.NONE


def test_no_room_for_another_timer() -> None:
    run = Run(max_timers=4).open((), RICH)
    for tag in (1, 2, 3, 4):
        assert run.do(Kind.CANCEL_AFTER, account=1, tag=tag, expire_ns=9) == Reason.NONE
    assert run.do(Kind.CANCEL_AFTER, account=2, tag=1, expire_ns=9) == Reason.OVERLOADED
    assert run.do(Kind.CANCEL_AFTER, account=1, tag=2, expire_ns=10) == Reason.NONE, "one that is there"
    for tag in (2, 1, 4, 3):  # from the middle of the account's list, its end, its beginning, and the last one
        assert run.do(Kind.CANCEL_AFTER, account=1, tag=tag, expire_ns=0) == Reason.NONE
        assert run.do(Kind.CANCEL_AFTER, account=2, tag=tag, expire_ns=9) == Reason.NONE


def test_lots_are_bounded_in_a_position() -> None:
    """Bids for lots that cost next to nothing reach the bound on a position."""
    run = Run(max_open_orders_per_account=2_000).open((1,), RICH)
    bids = np.concatenate(
        [command(Kind.NEW_ORDER, account=1, instrument=1, qty=MAX_QTY)] * (MAX_POSITION_LOTS // MAX_QTY)
    )
    bids["seq"] = np.arange(len(bids)) + run.twin.applied_seq + 1
    assert (run.apply_many(bids)["kind"] == EventKind.NEW).all()
    one = {"price": 0, "qty": 1}
    assert run.buy(1, **one) == Reason.POSITION_LIMIT
    assert run.buy(2, side=Side.SELL, price=0, qty=100) == Reason.NONE
    assert run.buy(1, **one) == Reason.POSITION_LIMIT, "what was bought counts as what is open did"
    assert run.twin.positions[1, 1].net == 100
    newest = {"account": 1, "order_id": max(run.twin.orders), "price": 0}
    assert run.do(Kind.AMEND, qty=2, **newest) == Reason.NONE
    assert run.buy(1, price=0, qty=MAX_QTY - 3) == Reason.NONE
    for qty, answer in ((3, Reason.NONE), (4, Reason.POSITION_LIMIT), (3, Reason.NONE)):
        assert run.do(Kind.AMEND, qty=qty, **newest) == answer
    assert run.buy(1, **one) == run.buy(1, tag=1, flags=Flag.EXTENDED, **one) == Reason.POSITION_LIMIT


def test_a_number_is_retired_after_its_last_generation() -> None:
    """So that no order id ever comes twice."""
    exchange = make_engine()

    def apply(*rows: NDArray[np.void]) -> NDArray[np.void]:
        batch = np.concatenate([row.view(COMMAND) for row in rows])
        batch["seq"] = np.arange(len(batch)) + exchange.applied_seq + 1
        return exchange.apply(batch).copy()

    apply(command(Kind.OPEN_ACCOUNT, TRANSFER, account=1))
    apply(command(Kind.DEPOSIT, TRANSFER, account=1, amount_micros=10**12), listing(1, 0, 0))
    last = (1 << 53) - (1 << 24)
    exchange.memory.arrays["orders"]["order_id"][0] = last - (1 << 24)
    bid = command(Kind.NEW_ORDER, account=1, instrument=1, price=5, qty=1)
    sweep = command(Kind.MASS_CANCEL, account=1, side=ANY_SIDE)
    events = apply(bid, sweep, bid, sweep, bid)
    ids = events["order_id"][events["kind"] == EventKind.NEW].tolist()
    assert ids == [last, (1 << 24) + 1, (2 << 24) + 1]
    invariants.check(exchange.memory)


def test_a_mass_cancel_larger_than_the_room_for_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """The door stops in front of a command whose events may not fit; Python makes room; nobody sees it."""
    monkeypatch.setattr(engine.engine, "FIRST_EVENTS", 1_024)
    pair = Pair(max_open_orders_per_account=1_000).open((0,), RICH)
    orders = [command(Kind.NEW_ORDER, account=1, instrument=1, price=i % 99, qty=1) for i in range(900)]
    sweep = command(Kind.MASS_CANCEL, account=1, side=ANY_SIDE)
    batch = np.concatenate([*orders, sweep, *orders, sweep])
    batch["seq"] = np.arange(len(batch)) + pair.twin.applied_seq + 1
    events = pair.apply_many(batch)
    assert Counter(events["kind"].tolist()) == {EventKind.NEW: 1_800, EventKind.CANCELED: 1_800}


def test_an_uncross_larger_than_the_room_for_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.engine, "FIRST_EVENTS", 64)
    run = Run().open((0,), RICH)
    assert run.do(Kind.SET_STATUS, instrument=1, qty=Status.PRE_OPEN) == Reason.NONE
    for side in (Side.BUY, Side.SELL):
        for _ in range(30):
            assert run.buy(1 + side, side=side) == Reason.NONE
    assert run.do(Kind.SET_STATUS, instrument=1, qty=Status.CONTINUOUS) == Reason.NONE
    assert Counter(np.frombuffer(run.events[-1], EVENT)["kind"].tolist())[EventKind.TRADE] == 30


class TightRun(TightPair, Run):
    """Single commands by their fields, each with no more room than the engine asks for."""


def test_the_most_events_that_orders_can_make() -> None:
    """Every lot trades and shows an iceberg anew; what is left of a taker is cancelled."""
    run = TightRun().open((0,), RICH)
    for _ in range(5):
        hidden = {"flags": Flag.EXTENDED, "show_qty": 1}
        assert run.buy(1, side=Side.SELL, qty=20, **hidden) == Reason.NONE
    assert run.buy(2, qty=101, time_in_force=2) == Reason.NONE
    kinds = Counter(np.frombuffer(run.events[-1], EVENT)["kind"].tolist())
    assert (kinds[EventKind.TRADE], kinds[EventKind.REFRESHED], kinds[EventKind.CANCELED]) == (100, 95, 1)
    assert run.buy(2, side=Side.SELL) == run.buy(1, qty=5, time_in_force=2) == Reason.NONE  # the same of plain ones
    assert len(np.frombuffer(run.events[-1], EVENT)) == 3


def test_the_most_events_that_an_auction_can_make() -> None:
    run = TightRun().open((0,), RICH)
    assert run.do(Kind.SET_STATUS, instrument=1, qty=Status.PRE_OPEN) == Reason.NONE
    for side in (Side.BUY, Side.SELL) * 3:
        assert run.buy(1 + side, side=side, qty=30, flags=Flag.EXTENDED, show_qty=1) == Reason.NONE
    assert run.do(Kind.SET_STATUS, instrument=1, qty=Status.CONTINUOUS) == Reason.NONE
    kinds = Counter(np.frombuffer(run.events[-1], EVENT)["kind"].tolist())
    assert (kinds[EventKind.TRADE], kinds[EventKind.REFRESHED]) == (90, 2 * 87)


def test_the_most_events_that_a_batch_can_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """The door counts ahead how many plain commands surely have room."""
    monkeypatch.setattr(engine.engine, "FIRST_EVENTS", 64)
    run = Run().open((0,), RICH)
    ask = command(Kind.NEW_ORDER, account=1, instrument=1, side=Side.SELL, price=10, qty=1)
    take = command(Kind.NEW_ORDER, account=2, instrument=1, price=10, qty=2, time_in_force=2)
    batch = np.concatenate([ask, take] * 100)
    batch["seq"] = np.arange(len(batch)) + run.twin.applied_seq + 1
    assert len(run.apply_many(batch)) == 400


def test_a_position_is_its_accounts_own_though_another_had_the_slot() -> None:
    run = Run().open((0, 2), RICH[:3])
    assert run.buy(1, 2) == run.do(Kind.CLOSE, instrument=2) == run.do(Kind.DELIST, instrument=2) == Reason.NONE
    assert run.do(Kind.LIST, LISTING, **{"instrument": 2, "gate_ns": 10**9} | TERMS[0]) == Reason.NONE
    for account in (3, 2, 1):
        assert run.buy(account, 2, qty=account) == Reason.NONE
    assert [run.twin.positions[account, 2].open_buy for account in (1, 2, 3)] == [1, 2, 3]
