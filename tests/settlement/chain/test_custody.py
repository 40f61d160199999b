"""Deposits, withdrawals, batches and roots, from a member's wallet through the log and back to it."""

from settlement.deposits import DepositState
from settlement.flows import WithdrawalState
from tests.settlement.chain.rig import DOLLAR, Rig


def test_a_deposit_is_seen_pending_final_and_credited_once(rig: Rig) -> None:
    alice = rig.members[0]
    receipt = rig.deposit(alice, 100 * DOLLAR)
    states = []
    for _ in range(4):
        rig.step()
        (row,) = rig.custody.deposits.of_account(alice.account)
        states.append((row.state, rig.cash(alice)))
        rig.mine(1)
    assert states == [
        (DepositState.SEEN, 0),
        (DepositState.PENDING, 0),
        (DepositState.FINAL, 100 * DOLLAR),
        (DepositState.FINAL, 100 * DOLLAR),
    ]
    assert row.tx_hash == receipt.tx_hash
    rig.restart()
    rig.run(1)
    assert rig.cash(alice) == 100 * DOLLAR
    rig.assert_agrees()


def test_a_withdrawal_is_set_aside_paid_and_final(rig: Rig) -> None:
    alice = rig.members[0]
    rig.deposit(alice, 100 * DOLLAR)
    rig.run(2)
    rig.withdraw(alice, 30 * DOLLAR, to=b"\x77" * 20)
    assert rig.cash(alice) == 70 * DOLLAR
    rig.run(3)
    (row,) = rig.custody.flows.withdrawals()
    assert row.state == WithdrawalState.PAID
    assert rig.coins_of(b"\x77" * 20) == 30 * DOLLAR
    assert rig.ask("paid", alice.text) == 30 * DOLLAR
    rig.assert_agrees()


def test_a_cycles_gains_are_pushed_in_one_chunk_and_a_root_is_put_into_force(rig: Rig) -> None:
    alice, bob = rig.members
    for member in (alice, bob):
        rig.deposit(member, 1_000 * DOLLAR)
        rig.custody.set_standing(member.account, 1)
    rig.run(2)
    rig.trade(seller=alice, buyer=bob)
    rig.close_cycle()
    gain = rig.venue.settlement.books.batches.nets(1)[alice.account].net_micros
    rig.run(4)
    (row,) = rig.custody.flows.withdrawals()
    assert (row.account, row.state, row.cycle) == (alice.account, WithdrawalState.PAID, 1)
    assert rig.coins_of(alice.address) == rig.ask("paid", alice.text) == gain > 0
    assert rig.ask("is_settled", 1, 0)
    assert rig.ask("pending_epoch") == 1
    rig.pass_time(3 * 3_600)
    rig.run(2)
    assert (rig.ask("epoch"), rig.ask("root_cycle"), rig.ask("pending_epoch")) == (1, 1, 0)
    rig.assert_agrees()
