"""Deposits, withdrawals, batches and roots, from a member's wallet through the log and back to it."""

import pytest
from eth_utils.address import to_checksum_address

from engine.types import Kind
from settlement.abi import interface
from settlement.deposits import DepositState, account_ref
from settlement.embedded import Deployer
from settlement.flows import WithdrawalState
from settlement.typed_data import Authorization, Permit
from settlement.vault import FRESH_CHUNK, authorization_nonce
from tests.settlement.chain.rig import DOLLAR, VENUE, Member, Rig
from tests.settlement.flow import open_account, transfer


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


@pytest.mark.parametrize("way", ["permit", "authorization"])
def test_a_signature_is_enough_to_deposit(rig: Rig, way: str) -> None:
    """A permit (EIP-2612) its owner hands in, an authorization (EIP-3009) anyone does, here the operator."""
    alice, token, vault = rig.members[0], rig.token, to_checksum_address(rig.token.vault)
    rig.mint(alice, 100 * DOLLAR)
    rig.custody.deposits.set_home(alice.account, alice.address)
    until_s, ref = rig.now_s() + 600, account_ref(VENUE, alice.account)
    if way == "permit":
        v, r, s = signed(alice, Permit(alice.text, vault, 100 * DOLLAR, 0, until_s).digest(token.domain))
        arguments = ("deposit_with_permit", 100 * DOLLAR, ref, 100 * DOLLAR, until_s, v, r, s)
        Deployer(rig.chain, alice.signer).call(interface("Vault"), token.vault, *arguments)
    else:
        salt = b"\x05" * 32
        wanted = Authorization(alice.text, vault, 100 * DOLLAR, 0, until_s, authorization_nonce(ref, salt))
        v, r, s = signed(alice, wanted.digest(token.domain))
        arguments = ("deposit_with_authorization", alice.text, 100 * DOLLAR, ref, 0, until_s, salt, v, r, s)
        rig.operator.call(interface("Vault"), token.vault, *arguments)
    rig.step()
    assert rig.cash(alice) == 0
    rig.run(2)
    assert rig.cash(alice) == 100 * DOLLAR
    rig.assert_agrees()


def signed(member: Member, digest: bytes) -> tuple[int, bytes, bytes]:
    signature = member.signer.sign(digest)
    return 27 + signature.v, signature.r.to_bytes(32, "big"), signature.s.to_bytes(32, "big")


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


def test_more_creditors_than_fit_into_a_transaction_are_paid_in_chunks(rig: Rig) -> None:
    """None was ever paid before, which costs the most gas; one cannot be paid, and blocks nobody."""
    alice, count = rig.members[0], FRESH_CHUNK + 51
    rig.deposit(alice, 1_000 * DOLLAR)
    rig.run(2)
    crowd = {account: (0xC0DE_0000 + account).to_bytes(20, "big") for account in range(3, 3 + count)}
    rig.venue.send(*(open_account(account) for account in crowd))
    with rig.custody.records.database.transaction():
        for account, home in crowd.items():
            rig.custody.deposits.set_home(account, home)
            rig.custody.set_standing(account, 1)
    pay = [transfer(Kind.TRANSFER, 1, contra_account=account, amount_micros=DOLLAR) for account in crowd]
    rig.venue.send(*pay)
    blocked = to_checksum_address(crowd[7])
    rig.operator.call(interface("TestDollar"), rig.token.address, "blacklist", blocked)
    rig.close_cycle()
    rig.run(4)
    entries = [entry for entry in rig.custody.sites[0].outbox.entries() if entry.event == "ChunkSettled"]
    assert [entry.expected["count"] for entry in entries] == [FRESH_CHUNK, 51]
    assert all(entry.gas <= rig.network.max_gas for entry in entries)
    assert {rig.coins_of(home) for account, home in crowd.items() if account != 7} == {DOLLAR}
    assert (rig.coins_of(crowd[7]), rig.ask("owed", blocked), rig.ask("owed_units")) == (0, DOLLAR, DOLLAR)
    assert rig.custody.flows.waiting() == []
    rig.assert_agrees()
    rig.operator.call(interface("TestDollar"), rig.token.address, "unBlacklist", blocked)
    rig.operator.call(interface("Vault"), rig.token.vault, "collect_owed", blocked)
    rig.run(1)
    assert rig.coins_of(crowd[7]) == DOLLAR
    rig.assert_agrees()
