"""The gateway's mirror equals the engine, whatever happens, however it is batched, and from wherever it starts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.types import COMMAND, Flag, Status
from gateway.auth import KeyStore
from gateway.config import GatewayConfig
from gateway.gateway import Gateway
from gateway.projection import Projection
from tests.both import make_engine
from tests.gateway.node import CATALOGUE
from tests.pair import Pair
from tests.steps import Step, random_steps, steps

Records = NDArray[np.void]
FEWER = settings(max_examples=max(1, settings().max_examples // 5))  # each plays a long history several times
OPENING = ((0, 1, 2), (10**12, 10**12, 10**9, 10**8))


def gateway(**limits: int) -> Gateway:
    return Gateway(
        GatewayConfig(**limits), CATALOGUE, KeyStore(Path("/nonexistent/keys.json")), lambda _commands: None, lambda: 0,
        wall_ns=lambda: 0,
    )  # fmt: skip


def history(moves: Iterable[Step]) -> tuple[Records, dict[str, Any]]:
    """A log of commands, and the engine's state after it."""
    pair = Pair().open(*OPENING).play(moves)
    return pair.log(), pair.engine.dump()


def follow(target: Gateway, commands: Records, size: int, after: int = 0) -> Gateway:
    """Feed the gateway what a fresh engine says to the commands, in batches; those after the first `after`."""
    engine = make_engine()
    for start in range(0, len(commands), size):
        part = np.ascontiguousarray(commands[start : start + size]).view(COMMAND)
        events = engine.apply(part).copy()
        if start >= after:
            target.on_batch(part, events)
    return target


def compare(projection: Projection, dump: dict[str, Any]) -> None:
    """Every balance, position, order and level is the engine's."""
    accounts = {
        number: (
            account.cash, account.held, account.rebate, len(account.orders), account.frozen, int(account.is_frozen),
        )
        for number, account in projection.accounts.items()
    }  # fmt: skip
    assert accounts == dump["accounts"]
    positions = {
        (account.number, instrument): (p.net, p.capacity, p.open_buy, p.open_sell, p.escrow, p.fees_due, p.bond)
        for account in projection.accounts.values()
        for instrument, p in account.positions.items()
    }
    assert positions == dump["positions"]
    for account in projection.accounts.values():
        for total in ("escrow", "fees_due", "bond"):
            assert getattr(account, total) == sum(getattr(p, total) for p in account.positions.values())
    assert set(projection.instruments) == set(dump["books"])
    for number, book in dump["books"].items():
        compare_book(projection, number, book, dump["special"])
    compare_controls(projection, dump)


def compare_controls(projection: Projection, dump: dict[str, Any]) -> None:
    """What is special about orders, and what watches over accounts."""
    special = {
        order.id: (
            order.flags & ~(Flag.REQUEUE | Flag.EXTENDED), order.group, order.tag, order.stp_group, order.expire_ns, order.show,
            0 if order.waiting else order.shown, order.level,
        )
        for account in projection.accounts.values()
        for order in account.orders.values()
    }  # fmt: skip
    assert {oid: terms for oid, terms in special.items() if terms != (0, 0, 0, 0, 0, 0, 0, -1)} == dump["special"]
    assert projection.timers == dump["timers"]
    protections = {
        key: (one.window_ns, one.lots, one.fills, one.is_frozen) for key, one in projection.protections.items()
    }
    assert protections == {key: tuple(value[:4]) for key, value in dump["mmp"].items()}
    assert (projection.halted, sorted(projection.locked)) == (dump["halted"], list(dump["locked"]))
    for number, book in dump["books"].items():
        for orders in (orders for name in ("buy_stops", "sell_stops") for _, orders in book[name]):
            for order_id, account, leaves, _held, price, ord_type, tif in orders:
                order = projection.orders[order_id]
                assert (order.account, order.instrument, order.leaves, order.price) == (account, number, leaves, price)
                assert (order.ord_type, order.time_in_force, order.status) == (ord_type, tif, "waiting")
        for stop_price, orders in (level for name in ("buy_stops", "sell_stops") for level in book[name]):
            assert {projection.orders[order[0]].stop_price for order in orders} == {stop_price}


def compare_book(projection: Projection, number: int, book: dict[str, Any], special: dict[int, Any]) -> None:
    def shown(order_id: int, leaves: int) -> int:
        terms = special.get(order_id)
        return terms[6] if terms and terms[5] else leaves

    instrument, depth = projection.instruments[number], projection.books[number]
    assert instrument.last_price == book["last_price"]
    assert (instrument.status, instrument.closed) == (book["status"], book["status"] == Status.CLOSED)
    terms = instrument.terms
    bounds = (terms.reference_price, terms.low_price, terms.high_price, terms.collar_ppm, terms.dynamic_ppm)
    names = ("reference_price", "low_price", "high_price", "collar_ppm", "dynamic_ppm")
    assert bounds == tuple(book[name] for name in names)
    for side, levels in ((depth.bids, book["bids"]), (depth.asks, book["asks"])):
        assert side.top(None) == [
            (price, sum(shown(order[0], order[2]) for order in orders)) for price, orders in levels
        ]
        for price, orders in levels:
            for order_id, account, leaves, cum, _held in orders:
                order = projection.orders[order_id]
                assert (order.account, order.price, order.leaves, order.cum) == (account, price, leaves, cum)
                assert not order.done
                assert order == projection.accounts[account].orders[order_id]


def state(target: Gateway) -> bytes:
    return target.snapshot()


@pytest.mark.parametrize("seed", range(6))
def test_the_mirror_is_the_engine(seed: int) -> None:
    commands, dump = history(random_steps(seed, 600))
    compare(follow(gateway(), commands, 1).projection, dump)


@given(steps(80))
def test_the_mirror_is_the_engine_whatever_comes(moves: list[Step]) -> None:
    commands, dump = history(moves)
    compare(follow(gateway(), commands, 7).projection, dump)


@FEWER
@given(st.integers(0, 10**6), st.integers(2, 50))
def test_batches_do_not_matter(seed: int, size: int) -> None:
    commands, _ = history(random_steps(seed, 120))
    assert state(follow(gateway(), commands, size)) == state(follow(gateway(), commands, 1))


@FEWER
@given(st.integers(0, 10**6), st.integers(0, 140))
def test_a_snapshot_and_the_rest_is_the_whole(seed: int, after: int) -> None:
    commands, dump = history(random_steps(seed, 120))
    after = min(after, len(commands))
    early = follow(gateway(), commands[:after], 1)
    restored = gateway()
    restored.restore(early.snapshot())
    assert state(restored) == state(early)
    follow(restored, commands, 1, after)
    compare(restored.projection, dump)
    assert state(restored) == state(follow(gateway(), commands, 1))


def test_private_numbers_have_no_gap() -> None:
    commands, _ = history(random_steps(3, 400))
    target = follow(gateway(private_ring_events=100_000), commands, 5)
    for account in target.projection.accounts:
        ring = target.streams.stream(account).since(1)
        assert ring is not None
        assert [event.aseq for event in ring] == list(range(1, len(ring) + 1))
        assert [event.seq for event in ring] == sorted(event.seq for event in ring)


def test_old_orders_are_forgotten_and_working_ones_are_not() -> None:
    commands, dump = history(random_steps(4, 600))
    target = follow(gateway(max_remembered_orders=5), commands, 1)
    projection = target.projection
    done = [order for order in projection.orders.values() if order.done]
    assert len(done) <= 6  # five, and what the last command finished
    assert projection.forgotten_early > 0
    compare(projection, dump)


def test_a_published_book_is_never_crossed() -> None:
    """Unless its orders are only gathered, for an auction, or were and it is halted before."""
    commands, _ = history(random_steps(5, 600))
    target, engine, looked = gateway(), make_engine(), 0
    for start in range(len(commands)):
        part = np.ascontiguousarray(commands[start : start + 1]).view(COMMAND)
        target.on_batch(part, engine.apply(part).copy())
        for number, book in target.projection.books.items():
            bid, ask = book.bids.best(), book.asks.best()
            is_open = target.projection.instruments[number].status == Status.CONTINUOUS
            assert not is_open or bid is None or ask is None or bid[0] < ask[0]
            looked += is_open and bid is not None and ask is not None
    assert looked > 30


@pytest.mark.parametrize("compiled", [True, False])
def test_events_of_other_commands_are_refused(compiled: bool) -> None:
    commands, _ = history(random_steps(5, 5))
    events = make_engine().apply(commands).copy()
    with pytest.raises(ValueError, match="not in the batch"):
        gateway(compiled=compiled).on_batch(commands[:1], events)
