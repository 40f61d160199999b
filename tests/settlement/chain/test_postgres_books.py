"""Custody of an exchange whose books are in PostgreSQL: the same, with the outbox still a file on its own machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.types import EventKind
from settlement.flows import Route, WithdrawalState
from settlement.reconcile import EngineView
from settlement.service import DATABASE_NAME, OUTBOX_NAME
from tests.settlement.chain.anvil import Site
from tests.settlement.chain.rig import DOLLAR, Rig
from wellhead.custody import engine_view

TO = b"\x77" * 20


@pytest.fixture
def rig(site: Site, tmp_path: Path, place: str) -> Iterator[Rig]:
    site.again()
    made = site.rig(tmp_path / "books", place)
    yield made
    made.close()


def test_everything_that_custody_does_follows_them(rig: Rig) -> None:
    """Deposits, a withdrawal, a claim, a cycle's gain in a chunk, a root in force, a start, and three things that agree."""
    alice, bob = rig.members
    for member in (alice, bob):
        rig.deposit(member, 1_000 * DOLLAR)
        rig.custody.set_standing(member.account, 1)
    rig.run(2)
    rig.trade(seller=alice, buyer=bob)
    rig.withdraw(bob, 30 * DOLLAR, to=TO)
    rig.withdraw(bob, 20 * DOLLAR, route=Route.CLAIM)
    rig.close_cycle()
    rig.run(2)
    rig.restart()
    rig.run(2)
    rig.pass_time(3 * 3_600)
    rig.run(3)
    assert rig.coins_of(TO) == 30 * DOLLAR
    assert rig.coins_of(alice.address) == rig.venue.settlement.books.batches.nets(1)[alice.account].net_micros > 0
    (paper,) = rig.custody.roots.papers(bob.address)
    assert (rig.ask("epoch"), paper["payable_units"]) == (1, str(20 * DOLLAR))
    states = [row.state for row in rig.custody.flows.withdrawals()]
    assert states.count(WithdrawalState.PAID) == 2
    rig.assert_agrees()
    assert not (rig.directory / DATABASE_NAME).exists()
    assert (rig.directory / OUTBOX_NAME).exists()


def test_a_difference_with_the_engine_is_found_there_too(rig: Rig) -> None:
    alice = rig.members[0]
    rig.deposit(alice, 100 * DOLLAR)
    rig.run(2)
    before = engine_view(rig.venue.engine)
    assert rig.withdraw(alice, 10 * DOLLAR)["kind"].tolist() == [EventKind.WITHDRAWN]
    rig.custody.step(before)  # the engine as it was: the books are ahead of it and are counted back
    assert rig.custody.halts.open() == []
    wrong = EngineView(before.seq, before.free_micros + 1, before.locked_micros, before.custody_micros)
    rig.custody._view = wrong
    assert any("cash of the engine" in found for found in rig.custody.reconcile(rig.custody.sites[0]))
    rig.custody.halts.clear()
