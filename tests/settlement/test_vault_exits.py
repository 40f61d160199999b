"""The vault's roots, claims and exits, and what stops may and may not do to them."""

from collections.abc import Iterator

import pytest

from settlement.proofs import ProofError
from settlement.vault import MAX_UNITS, ClaimTree, Leaf, VaultError
from tests.settlement.evm import START_S, Reverted, person
from tests.settlement.vaults import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    DISPUTE_S,
    EXIT_S,
    GUARDIAN,
    LOCKER,
    ROOT_SETTER,
    SETTLER,
    STRANGER,
    Stage,
)

NOBODY = "0x" + "00" * 20


@pytest.fixture(scope="module")
def one_stage() -> Stage:
    return Stage()


@pytest.fixture
def stage(one_stage: Stage) -> Iterator[Stage]:
    """Alice and Bob have deposited 100 each."""
    with one_stage.chain.undone():
        one_stage.deposit(ALICE, 100)
        one_stage.deposit(BOB, 100)
        yield one_stage


def refused(reason: str):
    return pytest.raises(Reverted, match=f"^{reason}$")


def finalize(stage: Stage, tree: ClaimTree, epoch: int = 1) -> None:
    stage.vault.send(STRANGER, "finalize_root", epoch, tree.root)


# Roots


def test_a_root_comes_into_force_after_its_window(stage: Stage) -> None:
    tree = stage.tree([(ALICE, 10, 100), (BOB, 0, 90)])
    event = stage.propose(tree, cycle=8).event("RootProposed")
    assert event == {
        "epoch": 1,
        "cycle": 8,
        "root": tree.root,
        "payable_units": 10,
        "liability_units": 190,
        "covered_deposits": 2,
    }
    assert stage.vault.read("finalizable_at") == START_S + DISPUTE_S
    stage.chain.pass_s(DISPUTE_S - 1)
    with refused("vault: still in dispute"):
        finalize(stage, tree)
    assert stage.vault.read("epoch") == 0
    stage.chain.pass_s(1)
    finalize(stage, tree)
    names = ["epoch", "root", "root_cycle", "payable_units", "liability_units", "covered_deposits", "finalized_at"]
    values = [1, tree.root, 8, 10, 190, 2, stage.chain.now_s]
    assert [stage.vault.read(name) for name in names] == values
    assert stage.vault.read("pending_epoch") == 0
    with refused("vault: not pending"):
        finalize(stage, tree)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"epoch": 1}, "vault: epoch out of order"),
        ({"epoch": 3}, "vault: epoch out of order"),
        ({"cycle": 5}, "vault: cycle out of order"),
        ({"root": bytes(32)}, "vault: root of zeros"),
        ({"payable": 9}, "vault: total fell"),
        ({"payable": 191}, "vault: more payable than owned"),
        ({"liability": 201}, "vault: more owned than deposited"),
        ({"covered": 1}, "vault: deposits out of order"),
        ({"covered": 4}, "vault: deposits out of order"),
    ],
)
def test_a_root_that_cannot_be_true_is_refused(stage: Stage, changed: dict[str, object], reason: str) -> None:
    tree = stage.tree([(ALICE, 10, 100), (BOB, 0, 90)])
    stage.propose(tree, cycle=5)
    stage.chain.pass_s(DISPUTE_S)
    finalize(stage, tree)
    stage.deposit(CAROL, 5)
    good = {"epoch": 2, "cycle": 6, "root": b"\1" * 32, "payable": 10, "liability": 190, "covered": 2}
    with refused(reason):
        stage.vault.send(ROOT_SETTER, "propose_root", *(good | changed).values())
    stage.vault.send(ROOT_SETTER, "propose_root", *good.values())
    assert stage.vault.read("pending")[:3] == (2, 6, b"\1" * 32)


def test_what_is_owned_is_bounded_by_the_deposits_it_covers(stage: Stage) -> None:
    with refused("vault: more owned than deposited"):
        stage.vault.send(ROOT_SETTER, "propose_root", 1, 1, b"\1" * 32, 0, 101, 1)
    with refused("vault: more owned than deposited"):
        stage.vault.send(ROOT_SETTER, "propose_root", 1, 1, b"\1" * 32, 0, 1, 0)
    stage.vault.send(ROOT_SETTER, "propose_root", 1, 1, b"\1" * 32, 0, 100, 1)


def test_before_the_first_root_nothing_is_proven(stage: Stage) -> None:
    """Nomad's bridge took the zero of an empty entry for a proven root, and with it any message."""
    stage.open_exit()
    for proof in ([], [bytes(32)], [b"\1" * 32] * 64):
        for function, more in (("claim", ()), ("force_exit", ([],))):
            with refused("vault: not in the last root"):
                stage.vault.send(STRANGER, function, ALICE.address, 1, 1, proof, *more)
    with pytest.raises(Reverted):
        stage.vault.send(STRANGER, "claim", ALICE.address, 1, 1, [bytes(32)] * 65)
    for epoch in (0, 1):
        with refused("vault: not pending"):
            stage.vault.send(STRANGER, "finalize_root", epoch, bytes(32))


def test_a_pending_root_is_not_replaced_but_disputed(stage: Stage) -> None:
    bad, good = stage.tree([(ALICE, 100, 100)]), stage.tree([(ALICE, 0, 100)])
    stage.propose(bad)
    with refused("vault: a root is pending"):
        stage.propose(good)
    stage.chain.pass_s(DISPUTE_S)
    with refused("vault: not pending"):
        stage.vault.send(GUARDIAN, "dispute", 2)
    assert stage.vault.send(GUARDIAN, "dispute", 1).event("RootDisputed") == {"epoch": 1, "root": bad.root}
    with refused("vault: not pending"):
        finalize(stage, bad)
    with refused("vault: not pending"):
        stage.vault.read("finalizable_at")
    stage.propose(good)
    with refused("vault: not pending"):
        finalize(stage, bad)
    with refused("vault: still in dispute"):
        finalize(stage, good)
    with refused("vault: not pending"):
        stage.vault.send(GUARDIAN, "dispute", 0)


def proof_of(tree: ClaimTree, account: str) -> tuple[int, int, list[bytes]]:
    leaf = tree.leaf(account)
    return leaf.payable_units, leaf.exit_units, tree.proof(account)


def test_anyone_disputes_a_total_that_fell(stage: Stage) -> None:
    last = stage.publish([(ALICE, 10, 100), (BOB, 0, 100)])
    wrong = stage.tree([(ALICE, 9, 100), (BOB, 5, 100)])
    stage.propose(wrong)
    bob = (BOB.address, *proof_of(last, BOB.address), *proof_of(wrong, BOB.address))
    with refused("vault: nothing fell"):
        stage.vault.send(STRANGER, "dispute_leaf", *bob)
    with refused("vault: not in the last root"):
        made_up = (BOB.address, 6, 100, proof_of(last, BOB.address)[2], *proof_of(wrong, BOB.address))
        stage.vault.send(STRANGER, "dispute_leaf", *made_up)
    with refused("vault: not in the pending root"):
        made_up = (ALICE.address, *proof_of(last, ALICE.address), 8, 100, proof_of(wrong, ALICE.address)[2])
        stage.vault.send(STRANGER, "dispute_leaf", *made_up)
    alice = (ALICE.address, *proof_of(last, ALICE.address), *proof_of(wrong, ALICE.address))
    stage.vault.send(STRANGER, "dispute_leaf", *alice)
    assert stage.vault.read("pending_epoch") == 0
    with refused("vault: not pending"):
        stage.vault.send(STRANGER, "dispute_leaf", *alice)


def test_anyone_disputes_a_leaf_that_may_claim_more_than_it_owns(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("settlement.vault.checked_units", lambda units: 0)  # a tree that our own code refuses
    wrong = ClaimTree(stage.domain, 1, [Leaf(ALICE.address, 101, 100), Leaf(BOB.address, 0, 1)])
    stage.vault.send(ROOT_SETTER, "propose_root", 1, 1, wrong.root, 101, 101, 2)
    stage.vault.send(STRANGER, "dispute_leaf", ALICE.address, 0, 0, [], *proof_of(wrong, ALICE.address))
    stage.vault.send(ROOT_SETTER, "propose_root", 1, 1, wrong.root, 101, 101, 2)
    stage.chain.pass_s(DISPUTE_S)
    finalize(stage, wrong)
    with refused("vault: more payable than owned"):
        stage.claim(wrong, ALICE)


# Claims


def test_a_claim_pays_what_is_left_to_the_leafs_owner(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 10, 100), (BOB, 0, 100)])
    assert stage.claim(tree, ALICE, sender=STRANGER) == 10
    assert (stage.balance(ALICE), stage.balance(STRANGER)) == (10, 0)
    for key in (ALICE, BOB):
        with refused("vault: nothing to claim"):
            stage.claim(tree, key)
    later = stage.publish([(ALICE, 25, 100), (BOB, 0, 100)])
    with refused("vault: not in the last root"):
        stage.claim(tree, ALICE)
    assert stage.claim(later, ALICE) == 15


def test_what_was_pushed_or_withdrawn_is_not_claimed_again(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 50, 100), (BOB, 0, 100)])
    stage.settle([(ALICE, 30)])
    stage.withdraw(stage.withdrawal(15))
    assert stage.claim(tree, ALICE) == 5
    assert stage.vault.read("paid", ALICE.address) == 50


def test_what_is_owed_is_not_claimed_again(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 50, 100), (BOB, 0, 100)])
    stage.token.send(ADMIN, "blacklist", ALICE.address)
    stage.settle([(ALICE, 50)])
    stage.token.send(ADMIN, "unBlacklist", ALICE.address)
    with refused("vault: nothing to claim"):
        stage.claim(tree, ALICE)
    stage.vault.send(STRANGER, "collect_owed", ALICE.address)
    assert stage.balance(ALICE) == 50


def test_a_proof_is_good_for_its_leaf_only(stage: Stage) -> None:
    crowd = [(person(100 + number), number, number) for number in range(11)]
    tree = stage.publish(crowd)
    account, payable, whole, proof = (crowd[7][0].address, 7, 7, tree.proof(crowd[7][0].address))
    for wrong in (
        (CAROL.address, payable, whole, proof),
        (account, payable + 1, whole + 1, proof),
        (account, payable, whole + 1, proof),
        (account, payable, whole, proof[:-1]),
        (account, payable, whole, [*proof, proof[0]]),
        (account, payable, whole, []),
    ):
        with refused("vault: not in the last root"):
            stage.vault.send(STRANGER, "claim", *wrong)
    for amounts in ((MAX_UNITS + 1, MAX_UNITS + 1), (2**255, 2**255), (7, MAX_UNITS + 1)):
        with refused("vault: amount out of range"):
            stage.vault.send(STRANGER, "claim", account, *amounts, proof)
    with refused("vault: no account"):
        stage.vault.send(STRANGER, "claim", NOBODY, payable, whole, proof)
    assert [stage.claim(tree, key) for key, payable, _ in crowd if payable] == list(range(1, 11))


def test_a_claim_that_cannot_be_paid_can_be_made_again(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 50, 100)])
    stage.token.send(ADMIN, "blacklist", ALICE.address)
    with refused("vault: transfer failed"):
        stage.claim(tree, ALICE)
    stage.token.send(ADMIN, "unBlacklist", ALICE.address)
    assert stage.claim(tree, ALICE) == 50


# Exits


def test_an_exit_opens_when_no_root_came_for_the_window(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 10, 70), (BOB, 0, 130)])
    opens = stage.chain.now_s + EXIT_S
    assert stage.vault.read("exit_opens_at") == opens
    stage.chain.now_s = opens - 1
    assert not stage.vault.read("exit_open")
    with refused("vault: exit not open"):
        stage.exit(tree, ALICE)
    stage.chain.pass_s(1)
    assert stage.vault.read("exit_open")
    assert (stage.exit(tree, ALICE), stage.exit(tree, BOB)) == (70, 130)
    assert (stage.balance(ALICE), stage.balance(BOB), stage.balance(stage.vault)) == (70, 130, 0)
    with refused("vault: nothing to exit with"):
        stage.exit(tree, ALICE)


def test_an_exit_pays_what_was_not_paid_in_whatever_way(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 10, 100), (BOB, 0, 100)])
    stage.claim(tree, ALICE)
    stage.settle([(ALICE, 20), (BOB, 5)])
    stage.withdraw(stage.withdrawal(30))
    stage.open_exit()
    assert (stage.exit(tree, ALICE), stage.exit(tree, BOB)) == (40, 95)
    assert stage.balance(stage.vault) == 0


def test_the_first_exit_winds_the_vault_down(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 10, 100), (BOB, 20, 100)])
    pending = stage.tree([(ALICE, 30, 200)])
    stage.open_exit()
    stage.propose(pending)
    stage.exit(tree, ALICE)
    assert stage.vault.read("winding_down")
    stage.fund(CAROL, 5)
    stage.chain.pass_s(DISPUTE_S)
    for act in (
        lambda: stage.vault.send(CAROL, "deposit", 5, b"\1" * 32),
        lambda: stage.settle([(BOB, 1)]),
        lambda: stage.withdraw(stage.withdrawal(1)),
        lambda: finalize(stage, pending, 2),
        lambda: stage.propose(pending),
        lambda: stage.vault.send(SETTLER, "credit_transfer", b"\1" * 32, CAROL.address, 1, b"\1" * 32),
    ):
        with refused("vault: winding down"):
            act()
    stage.vault.send(GUARDIAN, "pause")
    stage.vault.send(LOCKER, "lock")
    assert stage.claim(tree, BOB) == 20
    assert stage.exit(tree, BOB) == 80


def test_an_exchange_that_comes_back_in_time_goes_on(stage: Stage) -> None:
    stage.publish([(ALICE, 0, 100), (BOB, 0, 100)])
    stage.open_exit()
    tree = stage.publish([(ALICE, 0, 150), (BOB, 0, 50)])
    with refused("vault: exit not open"):
        stage.exit(tree, ALICE)


def test_deposits_that_no_root_knows_go_back_to_who_made_them(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 0, 60), (BOB, 0, 140)])
    mine, others = stage.deposit(ALICE, 7), stage.deposit(CAROL, 9)
    stage.open_exit()
    for index, reason in ((0, "deposit not open"), (4, "deposit not open"), (others, "another's deposit")):
        with refused(f"vault: {reason}"):
            stage.exit(tree, ALICE, [index])
    with refused("vault: deposit recovered"):
        stage.exit(tree, ALICE, [mine, mine])
    assert stage.exit(tree, ALICE, [mine]) == 67
    with refused("vault: deposit recovered"):
        stage.exit(tree, ALICE, [mine])
    assert stage.exit(None, CAROL, [others]) == 9
    assert stage.exit(tree, BOB) == 140
    assert stage.balance(stage.vault) == 0


def test_before_any_root_every_deposit_goes_back(stage: Stage) -> None:
    stage.open_exit()
    with refused("vault: not in the last root"):
        stage.vault.send(STRANGER, "force_exit", ALICE.address, 0, 1, [], [0])
    assert stage.exit(None, ALICE, [0]) == 100
    assert stage.exit(None, BOB, [1]) == 100


def test_what_was_paid_since_the_deposit_is_taken_off(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 0, 60), (BOB, 0, 140)])
    index = stage.deposit(ALICE, 50)
    stage.settle([(ALICE, 80)])
    stage.open_exit()
    with refused("vault: nothing to exit with"):
        stage.exit(None, ALICE, [index])
    assert stage.exit(tree, ALICE, [index]) == 30
    assert stage.exit(tree, BOB) == 140


def test_an_exit_in_two_steps_pays_the_same(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 0, 60), (BOB, 0, 140)])
    index = stage.deposit(ALICE, 50)
    stage.open_exit()
    assert stage.exit(None, ALICE, [index]) == 50
    with refused("vault: nothing to exit with"):
        stage.exit(None, ALICE)
    assert stage.exit(tree, ALICE) == 60
    with refused("vault: nothing to exit with"):
        stage.exit(tree, ALICE)


def test_a_vault_that_holds_too_little_pays_what_it_has(stage: Stage) -> None:
    """Bob was paid gains that no root knows; who comes last finds less, and gets the rest when there is more."""
    tree = stage.publish([(ALICE, 0, 100), (BOB, 0, 100)])
    stage.settle([(BOB, 150)])
    stage.open_exit()
    assert stage.exit(tree, ALICE) == 50
    with refused("vault: nothing left"):
        stage.exit(tree, ALICE)
    with refused("vault: nothing to exit with"):
        stage.exit(tree, BOB)


def test_an_exit_never_takes_what_is_owed_to_others(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 0, 100), (BOB, 0, 100)])
    stage.token.send(ADMIN, "blacklist", BOB.address)
    stage.settle([(BOB, 150)])
    stage.open_exit()
    assert stage.exit(tree, ALICE) == 50
    stage.token.send(ADMIN, "unBlacklist", BOB.address)
    stage.vault.send(STRANGER, "collect_owed", BOB.address)
    assert stage.balance(BOB) == 150


# Stops


def test_a_pause_stops_what_it_should(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 10, 100), (BOB, 0, 100)])
    following = stage.tree([(ALICE, 10, 100), (BOB, 0, 100)])
    stage.fund(CAROL, 5)
    stage.vault.send(GUARDIAN, "pause")
    assert stage.vault.read("paused")
    for act in (
        lambda: stage.vault.send(CAROL, "deposit", 5, b"\1" * 32),
        lambda: stage.vault.send(SETTLER, "credit_transfer", b"\1" * 32, CAROL.address, 1, b"\1" * 32),
        lambda: stage.settle([(BOB, 1)]),
        lambda: stage.withdraw(stage.withdrawal(1)),
        lambda: stage.claim(tree, ALICE),
        lambda: stage.propose(following),
        lambda: finalize(stage, following, 2),
        lambda: stage.vault.send(GUARDIAN, "pause"),
    ):
        with refused("pausable: contract is paused"):
            act()
    stage.vault.send(ADMIN, "unpause")
    with refused("pausable: contract is not paused"):
        stage.vault.send(ADMIN, "unpause")
    assert stage.claim(tree, ALICE) == 10


def test_a_lock_stops_what_leaves_and_nothing_else(stage: Stage) -> None:
    tree = stage.publish([(ALICE, 10, 100), (BOB, 0, 100)])
    following = stage.tree([(ALICE, 10, 100), (BOB, 0, 100)])
    stage.vault.send(LOCKER, "lock")
    for act in (
        lambda: stage.settle([(BOB, 1)]),
        lambda: stage.withdraw(stage.withdrawal(1)),
        lambda: stage.claim(tree, ALICE),
        lambda: finalize(stage, following, 2),
        lambda: stage.vault.send(LOCKER, "lock"),
    ):
        with refused("vault: locked"):
            act()
    stage.deposit(CAROL, 5)
    stage.propose(following)
    stage.vault.send(GUARDIAN, "dispute", 2)
    stage.vault.send(ADMIN, "unlock")
    with refused("vault: not locked"):
        stage.vault.send(ADMIN, "unlock")
    stage.settle([(BOB, 1)])


def test_what_is_owed_is_collected_whatever_is_stopped(stage: Stage) -> None:
    stage.token.send(ADMIN, "blacklist", BOB.address)
    stage.settle([(BOB, 30)])
    stage.token.send(ADMIN, "unBlacklist", BOB.address)
    stage.vault.send(GUARDIAN, "pause")
    stage.vault.send(LOCKER, "lock")
    stage.vault.send(STRANGER, "collect_owed", BOB.address)
    assert stage.balance(BOB) == 30


@pytest.mark.parametrize("stop", ["pause", "lock"])
def test_no_stop_delays_an_exit(stage: Stage, stop: str) -> None:
    tree = stage.publish([(ALICE, 10, 100), (BOB, 0, 100)])
    opens = stage.vault.read("exit_opens_at")
    following = stage.tree([(ALICE, 10, 100), (BOB, 0, 100)])
    stage.propose(following)
    stage.chain.pass_s(DISPUTE_S)
    stage.vault.send(GUARDIAN if stop == "pause" else LOCKER, stop)
    stage.chain.now_s = opens
    with pytest.raises(Reverted, match=r"paused|locked"):
        finalize(stage, following, 2)
    assert stage.exit(tree, ALICE) == 100


@pytest.mark.parametrize("stop", ["pause", "lock"])
def test_after_a_stop_a_root_waits_for_a_whole_window_in_which_all_works(stage: Stage, stop: str) -> None:
    """Else one could stop the vault for ever and open it for the moment it takes to finalize a root."""
    tree = stage.tree([(ALICE, 10, 100), (BOB, 0, 100)])
    stage.propose(tree)
    stage.chain.pass_s(DISPUTE_S - 1)
    stage.vault.send(GUARDIAN if stop == "pause" else LOCKER, stop)
    stage.chain.pass_s(60)
    stage.vault.send(ADMIN, f"un{stop}")
    assert stage.vault.read("finalizable_at") == stage.chain.now_s + DISPUTE_S
    stage.chain.pass_s(DISPUTE_S - 1)
    with refused("vault: still in dispute"):
        finalize(stage, tree)
    stage.chain.pass_s(1)
    finalize(stage, tree)


# Trees without a chain


def test_a_tree_refuses_what_the_vault_would(stage: Stage) -> None:
    for leaves in (
        [(ALICE, 2, 1)],
        [(ALICE, -1, 1)],
        [(ALICE, 0, MAX_UNITS + 1)],
        [(ALICE, 0, MAX_UNITS), (BOB, 0, 1)],
    ):
        with pytest.raises(VaultError):
            stage.tree(leaves)
    for leaves, epoch in (([], 1), ([(ALICE, 0, 1)], 0), ([(ALICE, 0, 1), (ALICE, 0, 2)], 1)):
        with pytest.raises(ProofError):
            stage.tree(leaves, epoch)
    with pytest.raises(ProofError):
        stage.tree([(ALICE, 0, 1)]).proof(BOB.address)


def test_a_tree_does_not_depend_on_the_order_of_its_leaves(stage: Stage) -> None:
    leaves = [(person(number), number, number) for number in range(9)]
    assert stage.tree(leaves).root == stage.tree(leaves[::-1]).root
