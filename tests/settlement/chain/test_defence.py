"""An exchange that has the guardian's and the locker's key does on the chain what else waits for its operator."""

import pytest

from settlement.abi import interface
from settlement.chain import ChainError
from settlement.embedded import Deployer
from settlement.outbox import TxState
from settlement.roots import dispute_purpose
from settlement.signer import wire
from settlement.vault import ClaimTree, Leaf, Withdrawal
from tests.settlement.chain.anvil import FINALITY
from tests.settlement.chain.rig import DOLLAR, Rig


@pytest.fixture
def armed(rig: Rig) -> Rig:
    """With those keys, and 100 dollars of Alice's."""
    rig.armed = True
    rig.restart()
    rig.deposit(rig.members[0], 100 * DOLLAR)
    rig.run(2)
    return rig


def test_a_root_of_somebody_elses_is_disputed_at_once(armed: Rig) -> None:
    rig, thief = armed, armed.members[1]
    tree = ClaimTree(rig.token.vault_domain, 1, [Leaf(thief.text, 100 * DOLLAR, 100 * DOLLAR)])
    setter = Deployer(rig.chain, rig.roles.root_setter)
    setter.call(interface("Vault"), rig.token.vault, "propose_root", 1, 1, tree.root, 100 * DOLLAR, 100 * DOLLAR, 1)
    rig.run(3)
    assert rig.ask("pending_epoch") == 0
    (entry,) = rig.custody.sites[0].guardian.entries()  # type: ignore[union-attr]
    assert (entry.state, entry.purpose) == (TxState.FINAL, dispute_purpose(1, 1, tree.root))
    assert len(rig.custody.halts.open()) == 1
    rig.custody.halts.clear()


def test_the_guardian_does_not_dispute_a_root_of_ours(armed: Rig) -> None:
    rig = armed
    rig.close_cycle()
    rig.run(2)
    assert rig.ask("pending_epoch") == 1
    with pytest.raises(ValueError, match="is ours"):
        rig.custody.roots.plan(dispute_purpose(1, 1, rig.ask("pending_root")))
    assert rig.custody.sites[0].guardian.entries() == []  # type: ignore[union-attr]
    rig.assert_agrees()


def forged(rig: Rig, number: int) -> tuple[object, ...]:
    """A withdrawal of Bob's that is in no books, with two of the signers' signatures."""
    bob = rig.members[1].text
    wanted = Withdrawal(number.to_bytes(32, "big"), bob, bob, 20 * DOLLAR, rig.now_s() + 600)
    signatures = [wire(signer.sign(wanted.digest(rig.token.vault_domain))) for signer in rig.roles.signers[:2]]
    return (wanted.id, wanted.account, wanted.recipient, wanted.units, wanted.deadline_s, signatures)


def test_a_difference_locks_the_vault_and_deposits_go_on(armed: Rig) -> None:
    """Two of the signers' keys are stolen: what they paid is in no books."""
    rig, bob = armed, armed.members[1]
    thief = Deployer(rig.chain, bob.signer)
    arguments, another = (forged(rig, number) for number in (1, 2))
    thief.call(interface("Vault"), rig.token.vault, "withdraw", *arguments)
    rig.mine(FINALITY)
    rig.close_cycle()
    rig.run(3)
    assert rig.ask("locked")
    with pytest.raises(ChainError):
        thief.call(interface("Vault"), rig.token.vault, "withdraw", *another)
    rig.deposit(bob, 20 * DOLLAR)
    rig.run(2)
    assert rig.cash(bob) == 20 * DOLLAR
    entries = rig.custody.sites[0].locker.entries()  # type: ignore[union-attr]
    assert [(entry.target, entry.state) for entry in entries] == [
        (token.vault, TxState.FINAL) for token in rig.coins.tokens.values()
    ]
    rig.custody.halts.clear()
