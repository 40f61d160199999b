"""The campaign in a short form, and that what it looks for can be found."""

from collections.abc import Callable

import pytest

from settlement import plans
from settlement.service import OUTBOX_NAME
from tests.settlement.chain.anvil import NoAnvil, binary
from tests.settlement.chain.rig import DOLLAR, Rig
from tests.settlement.chain_campaign import run_seed
from tests.settlement.chain_worker import forget

TO = b"\x77" * 20


def test_killed_and_reorganised_every_unit_arrives_once() -> None:
    try:
        binary()
    except NoAnvil as error:
        pytest.skip(str(error))
    outcome = run_seed(11, kills=2, naive=False, withdrawals=4, cycles=1)
    assert outcome.differences == []
    assert outcome.reorgs > 0
    assert outcome.payments >= 4


def test_the_naive_way_pays_twice_and_the_count_sees_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between sending and finality, what it sent is forgotten, and a payment has a new name each time."""
    rig.deposit(rig.members[0], 100 * DOLLAR)
    rig.run(2)
    rig.withdraw(rig.members[0], 30 * DOLLAR, to=TO)
    for _ in range(5):  # a node that is slow to answer is asked again the next time
        rig.step()
        if rig.coins_of(TO):
            break
    assert rig.coins_of(TO) == 30 * DOLLAR
    rig.custody.close()
    forget(rig.directory / OUTBOX_NAME)
    name: Callable[[int], bytes] = lambda seq: (seq + 10**6).to_bytes(32, "big")  # noqa: E731
    monkeypatch.setattr(plans, "withdrawal_id", name)
    rig.custody = rig.make_custody()
    rig.run(3)
    assert rig.coins_of(TO) == 60 * DOLLAR
    assert rig.custody.reconcile(rig.custody.sites[0]) != []
    rig.custody.halts.clear()
