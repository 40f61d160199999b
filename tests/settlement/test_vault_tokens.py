"""The vault with tokens that misbehave: its books stay true, and one bad payment never stops another."""

from collections.abc import Iterator

import pytest
from pyrevm import AccountInfo

from settlement.abi import interface
from tests.settlement.contracts.build import compiled
from tests.settlement.evm import Reverted
from tests.settlement.vaults import ALICE, BOB, CAROL, REF, SETTLER, STRANGER, Stage, batch_id

MOODS = {name: 1 << at for at, name in enumerate("fee refuse revert lie overcharge eat_gas call_back odd".split())}
NOBODY = "0x" + "00" * 20


@pytest.fixture(scope="module")
def hostile_stage() -> Stage:
    return Stage(compiled("Hostile"))


@pytest.fixture
def stage(hostile_stage: Stage) -> Iterator[Stage]:
    """Alice has deposited 10,000."""
    with hostile_stage.chain.undone():
        hostile_stage.deposit(ALICE, 10_000)
        yield hostile_stage


def be(stage: Stage, mood: str, only_to: str = NOBODY) -> None:
    stage.token.send(STRANGER, "be", MOODS[mood], only_to)


def test_a_token_that_returns_nothing_works() -> None:
    stage = Stage(compiled("Silent"))
    stage.deposit(ALICE, 100)
    stage.settle([(BOB, 30)])
    tree = stage.publish([(ALICE, 10, 70), (BOB, 30, 30)])
    assert stage.claim(tree, ALICE) == 10
    stage.withdraw(stage.withdrawal(5))
    stage.open_exit()
    assert stage.exit(tree, ALICE) == 55
    assert (stage.balance(ALICE), stage.balance(BOB), stage.balance(stage.vault)) == (65, 35, 0)


def test_a_silent_token_that_cannot_pay_makes_a_debt() -> None:
    stage = Stage(compiled("Silent"))
    stage.deposit(ALICE, 100)
    stage.token.send(STRANGER, "mint", BOB.address, 2**256 - 1)  # one more and Bob's balance would overflow
    settled = stage.settle([(BOB, 30), (CAROL, 30)]).event("ChunkSettled")
    assert (settled["paid_units"], settled["owed_units"]) == (30, 30)


def test_a_fee_on_transfer_is_not_credited(stage: Stage) -> None:
    be(stage, "fee")
    stage.fund(BOB, 1000)
    assert stage.vault.send(BOB, "deposit", 1000, REF).event("Deposited")["units"] == 990
    assert stage.vault.read("held_units") == stage.balance(stage.vault) == 10_990


@pytest.mark.parametrize("mood", ["refuse", "revert", "lie", "odd", "eat_gas"])
def test_a_deposit_that_the_token_does_not_confirm_is_refused(stage: Stage, mood: str) -> None:
    be(stage, mood)
    stage.fund(BOB, 1000)
    with pytest.raises(Reverted):
        stage.vault.send(BOB, "deposit", 1000, REF, gas=5_000_000)
    assert stage.vault.read("held_units") == stage.balance(stage.vault) == 10_000


@pytest.mark.parametrize("mood", ["refuse", "revert", "eat_gas"])
def test_one_payment_that_fails_does_not_stop_the_others(stage: Stage, mood: str) -> None:
    be(stage, mood, BOB.address)
    arguments = (batch_id(1), 1, 0, [BOB.address, CAROL.address], [30, 20])
    settled = stage.vault.send(SETTLER, "settle_batch", *arguments, gas=1_500_000).event("ChunkSettled")
    assert (settled["paid_units"], settled["owed_units"]) == (20, 30)
    assert (stage.balance(CAROL), stage.vault.read("owed", BOB.address)) == (20, 30)


@pytest.mark.parametrize("mood", ["lie", "overcharge", "odd"])
def test_a_token_that_takes_more_than_it_says_stops_the_chunk(stage: Stage, mood: str) -> None:
    """It would be paid and owed as well, or paid with another's money."""
    be(stage, mood, BOB.address)
    with pytest.raises(Reverted, match="balance below what is held"):
        stage.settle([(BOB, 30), (CAROL, 20)])
    assert stage.balance(stage.vault) == 10_000


@pytest.mark.parametrize("mood", ["refuse", "revert", "lie", "overcharge", "odd", "eat_gas"])
def test_a_withdrawal_that_does_not_go_as_asked_does_not_go(stage: Stage, mood: str) -> None:
    be(stage, mood)
    with pytest.raises(Reverted, match=r"transfer failed|balance below"):
        stage.withdraw(stage.withdrawal(30))
    assert stage.balance(stage.vault) == 10_000


CALLS = [
    ("collect_owed", (CAROL.address,)),
    ("deposit", (1, REF)),
    ("settle_batch", (batch_id(9), 9, 0, [CAROL.address], [1])),
    ("claim", (ALICE.address, 10, 10_000, [])),
    ("force_exit", (ALICE.address, 10, 10_000, [], [])),
    ("finalize_root", (2, b"\1" * 32)),
    ("held_units", ()),
]


@pytest.mark.parametrize(("function", "arguments"), CALLS, ids=[name for name, _ in CALLS])
def test_a_token_that_calls_back_gets_nowhere(stage: Stage, function: str, arguments: tuple[object, ...]) -> None:
    """Not into what it interrupted and not into anything else: the views are shut too, so that nobody reads half a change."""
    tree = stage.publish([(ALICE, 10, 9_900)])
    stage.token.send(STRANGER, "remember", stage.vault.address, interface("Vault").call(function, *arguments))
    be(stage, "call_back")
    assert stage.claim(tree, ALICE) == 10
    stage.settle([(BOB, 30)])
    stage.withdraw(stage.withdrawal(5))
    stage.deposit(CAROL, 7)
    stage.open_exit()
    assert stage.exit(tree, ALICE) == 9_900 - 10 - 5
    assert stage.token.read("called_back")
    assert not stage.token.read("call_back_worked")
    assert stage.vault.read("held_units") == stage.balance(stage.vault) == 10_000 + 7 - 30 - 9_900


def test_a_token_whose_code_is_gone_is_refused(stage: Stage) -> None:
    """A call of an address without code succeeds and moves nothing."""
    tree = stage.publish([(ALICE, 10, 10_000)])
    stage.fund(BOB, 5)
    stage.chain.evm.insert_account_info(stage.token.address, AccountInfo(code=b""))
    for act in (
        lambda: stage.vault.send(BOB, "deposit", 5, REF),
        lambda: stage.settle([(BOB, 30)]),
        lambda: stage.withdraw(stage.withdrawal(5)),
        lambda: stage.claim(tree, ALICE),
    ):
        with pytest.raises(Reverted, match="no token there"):
            act()
