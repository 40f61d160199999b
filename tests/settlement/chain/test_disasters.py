"""What has emptied other venues' wallets, tried on a chain."""

from dataclasses import replace

import pytest
from eth_utils.address import to_checksum_address

from engine.types import EventKind
from settlement.abi import interface
from settlement.chain import CallRefused, Chain, Sent
from settlement.database import Database
from settlement.deposits import NO_HOME, DepositState, account_of_ref, account_ref
from settlement.embedded import Deployer
from settlement.flows import Destination, Evidence, Route, WithdrawalState, withdraw_command
from settlement.outbox import OutboxError, TxState, hash_of
from settlement.outcomes import GIVE_UP_S
from settlement.plans import VALIDITY_S, authorization, withdrawal_purpose
from settlement.signer import Transaction, wire
from settlement.stablecoins import Haircut, Limits, RegistryError, Stablecoins
from tests.settlement.chain.anvil import FINALITY, Site
from tests.settlement.chain.rig import DOLLAR, VENUE, Rig

MALLORY = b"\x66" * 20
TO = b"\x77" * 20


@pytest.fixture
def funded(rig: Rig) -> Rig:
    """Alice has 100 dollars in the exchange."""
    rig.deposit(rig.members[0], 100 * DOLLAR)
    rig.run(2)
    assert rig.cash(rig.members[0]) == 100 * DOLLAR
    return rig


def outbox(rig: Rig):  # type: ignore[no-untyped-def]
    return rig.custody.sites[0].outbox


def change(rig: Rig, **changes: object) -> None:
    """Another registry from now on; custody starts again with it."""
    rig.token = replace(rig.token, **changes)  # type: ignore[arg-type]
    rig.coins = Stablecoins({**rig.coins.tokens, 1: rig.token})
    rig.restart()


# Sent twice


def test_a_restart_sends_the_identical_bytes(funded: Rig, site: Site) -> None:
    """Mt. Gox knew payments by a hash that could change, and sent them again."""
    site.node.automine(False)
    funded.withdraw(funded.members[0], 30 * DOLLAR, to=TO)
    seen: list[bytes] = []
    sending = Chain.send

    def send(chain: Chain, raw: bytes) -> tuple[Sent, str]:
        seen.append(raw)
        return sending(chain, raw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "send", send)
        for _ in range(4):
            funded.step()
            funded.restart()
    assert len(seen) >= 4
    assert len(set(seen)) == 1
    site.node.automine(True)
    funded.run(3)
    assert funded.coins_of(TO) == 30 * DOLLAR
    funded.assert_agrees()


def test_what_was_signed_is_on_the_disk_before_a_node_sees_it(funded: Rig) -> None:
    funded.withdraw(funded.members[0], 30 * DOLLAR, to=TO)
    stored: list[int] = []

    def send(chain: Chain, raw: bytes) -> tuple[Sent, str]:
        other = Database(funded.directory / "outbox.sqlite", read_only=True)
        stored.append(len(other.rows("SELECT raw FROM attempts WHERE raw = ?", (raw,))))
        return Sent.REFUSED, "the process is killed here"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "send", send)
        funded.step()
    assert stored == [1]
    funded.restart()
    funded.run(3)
    assert funded.coins_of(TO) == 30 * DOLLAR


def test_more_is_offered_for_the_same_nonce_and_call(funded: Rig, site: Site) -> None:
    site.node.automine(False)
    funded.withdraw(funded.members[0], 30 * DOLLAR, to=TO)
    funded.step()
    (entry,) = outbox(funded).under_way()
    (first,) = outbox(funded).attempts(entry)
    outbox(funded)._now_s = lambda: funded.now_s() + funded.network.bump_after_s + 1
    funded.step()
    first, second = outbox(funded).attempts(entry)
    assert second.max_fee_wei * 8 >= first.max_fee_wei * 9
    assert second.raw != first.raw
    site.node.automine(True)
    funded.run(3)
    (done,) = outbox(funded).of(entry.purpose)
    assert (done.nonce, done.data, done.state) == (entry.nonce, entry.data, TxState.FINAL)
    assert done.tx_hash in {first.tx_hash, second.tx_hash}
    assert funded.coins_of(TO) == 30 * DOLLAR
    funded.assert_agrees()


def test_of_a_thousand_withdrawals_of_everything_one_is_paid(funded: Rig) -> None:
    """Poloniex paid several."""
    asked = withdraw_command(1, 1, 100 * DOLLAR, Destination(TO, funded.members[0].address))
    events = funded.venue.send(*[asked] * 1_000)
    assert int((events["kind"] == EventKind.WITHDRAWN).sum()) == 1
    funded.run(3)
    assert funded.coins_of(TO) == 100 * DOLLAR
    assert funded.cash(funded.members[0]) == 0
    funded.assert_agrees()


def test_a_key_that_was_used_elsewhere_or_a_lost_outbox_stops_what_leaves(funded: Rig) -> None:
    funded.withdraw(funded.members[0], 30 * DOLLAR, to=TO)
    funded.run(3)
    spend_nonce(funded, funded.chain.nonce(funded.roles.settler.address))
    funded.restart()
    funded.withdraw(funded.members[0], 30 * DOLLAR, to=TO)
    funded.run(3)
    (halt,) = funded.custody.halts.open()
    assert "the key was used elsewhere, or the outbox is not the newest one" in halt.reason
    assert funded.coins_of(TO) == 30 * DOLLAR
    funded.deposit(funded.members[1], 50 * DOLLAR)  # trading and deposits go on
    funded.run(2)
    assert funded.cash(funded.members[1]) == 50 * DOLLAR
    funded.custody.halts.clear()


def spend_nonce(rig: Rig, nonce: int) -> bytes:
    """Whoever has the settler's key uses a nonce for something else."""
    transaction = Transaction(rig.network.chain_id, nonce, MALLORY, b"", 21_000, 50 * 10**9, 20 * 10**9)
    signed = transaction.raw(rig.roles.settler.sign(transaction.digest))
    assert rig.chain.send(signed)[0] == Sent.TAKEN
    return hash_of(signed)


def test_a_refund_needs_the_nonce_used_by_another_and_signatures_that_are_out_of_date(funded: Rig, site: Site) -> None:
    alice = funded.members[0]
    site.node.automine(False)
    funded.withdraw(alice, 30 * DOLLAR, to=TO)
    funded.step()
    (entry,) = outbox(funded).under_way()
    site.node.rpc("anvil_dropAllTransactions")
    by = spend_nonce(funded, entry.nonce)
    funded.mine(1 + FINALITY)
    for _ in range(3):
        funded.step()
    (row,) = funded.custody.flows.withdrawals()
    assert outbox(funded).of(entry.purpose)[0].state == TxState.REPLACED
    assert row.state == WithdrawalState.WITHDRAWING  # somebody may have kept the signed withdrawal
    funded.pass_time(VALIDITY_S + 60)
    funded.mine(FINALITY)
    funded.step()
    (row,) = funded.custody.flows.withdrawals()
    assert (row.state, row.tx_hash) == (WithdrawalState.REFUNDED, by)
    assert funded.cash(alice) == 100 * DOLLAR
    site.node.automine(True)
    funded.assert_agrees()


def test_a_withdrawal_that_somebody_else_handed_in_first_is_paid_once(funded: Rig, site: Site) -> None:
    alice = funded.members[0]
    site.node.automine(False)
    funded.withdraw(alice, 30 * DOLLAR, to=TO)
    funded.step()
    (entry,) = outbox(funded).under_way()
    site.node.rpc("anvil_dropAllTransactions")
    mallory = funded.members[1].signer
    stolen = Transaction(
        funded.network.chain_id, funded.chain.nonce(mallory.address), entry.target, entry.data, 400_000, 10**11, 10**10
    )
    funded.chain.send(stolen.raw(mallory.sign(stolen.digest)))
    funded.mine(1)
    site.node.automine(True)
    funded.run(4)
    (row,) = funded.custody.flows.withdrawals()
    assert outbox(funded).of(entry.purpose)[0].state == TxState.REVERTED
    assert row.state == WithdrawalState.PAID
    assert funded.coins_of(TO) == 30 * DOLLAR
    funded.assert_agrees()


def test_a_withdrawal_that_somebody_else_had_paid_while_ours_waits_differs_from_nothing(
    funded: Rig, site: Site
) -> None:
    site.node.automine(False)
    funded.withdraw(funded.members[0], 30 * DOLLAR, to=TO)
    funded.step()
    (entry,) = outbox(funded).under_way()
    mallory = funded.members[1].signer
    stolen = Transaction(
        funded.network.chain_id, funded.chain.nonce(mallory.address), entry.target, entry.data, 400_000, 10**11, 10**10
    )
    site.node.rpc("anvil_dropAllTransactions")
    funded.chain.send(stolen.raw(mallory.sign(stolen.digest)))
    funded.mine(1 + FINALITY)
    funded.restart()  # which compares everything once
    funded.step()
    site.node.rpc("anvil_dropAllTransactions")
    funded.pass_time(200)  # and more is offered for ours
    funded.step()
    assert len(outbox(funded).attempts(entry)) == 2
    assert funded.custody.halts.open() == []
    site.node.automine(True)
    funded.run(4)
    (row,) = funded.custody.flows.withdrawals()
    assert (row.state, row.tx_hash) == (WithdrawalState.PAID, hash_of(stolen.raw(mallory.sign(stolen.digest))))
    assert funded.coins_of(TO) == 30 * DOLLAR
    funded.assert_agrees()


# Undone


@pytest.mark.parametrize("depth", [FINALITY - 1, FINALITY])
def test_a_deposit_that_is_not_final_is_undone_without_a_trace(rig: Rig, site: Site, depth: int) -> None:
    alice = rig.members[0]
    rig.deposit(alice, 100 * DOLLAR)
    rig.mine(depth - 1)
    rig.step()
    (row,) = rig.custody.deposits.of_account(alice.account)
    assert row.state < DepositState.FINAL
    site.node.reorg(depth)
    rig.run(3)
    assert rig.custody.deposits.of_account(alice.account) == []
    assert rig.cash(alice) == 0
    rig.deposit(alice, 70 * DOLLAR)
    rig.run(2)
    assert rig.cash(alice) == 70 * DOLLAR
    rig.assert_agrees()


def test_a_deposit_undone_beyond_finality_stops_what_leaves(rig: Rig, site: Site) -> None:
    """One block deeper than the chain promised: credited already. It cannot be undone, but it is seen."""
    alice, bob = rig.members
    rig.deposit(bob, 100 * DOLLAR)
    rig.run(2)
    rig.deposit(alice, 100 * DOLLAR)
    rig.mine(FINALITY)
    rig.step()
    assert rig.cash(alice) == 100 * DOLLAR
    site.node.reorg(FINALITY + 1)
    rig.withdraw(alice, 90 * DOLLAR, to=TO)
    rig.close_cycle()
    rig.step()
    assert any("held by the vault" in halt.reason for halt in rig.custody.halts.open())
    rig.run(3)
    assert rig.coins_of(TO) in {0, 90 * DOLLAR}
    rig.custody.halts.clear()


def test_a_payment_undone_by_a_reorganisation_is_sent_again_and_arrives_once(funded: Rig, site: Site) -> None:
    funded.withdraw(funded.members[0], 30 * DOLLAR, to=TO)
    funded.step()
    assert funded.coins_of(TO) == 30 * DOLLAR
    site.node.reorg(1)
    site.node.rpc("anvil_dropAllTransactions")
    assert funded.coins_of(TO) == 0
    funded.run(4)
    assert funded.coins_of(TO) == 30 * DOLLAR
    (row,) = funded.custody.flows.withdrawals()
    assert row.state == WithdrawalState.PAID
    funded.assert_agrees()


# The wrong amount


def test_a_deposit_of_a_wrong_unit_waits_for_an_operator(rig: Rig) -> None:
    """Bithumb credited coins where it meant won: what is too large is nobody's until somebody has looked."""
    alice = rig.members[0]
    change(rig, limits=Limits(max_deposit_micros=1_000 * DOLLAR))
    rig.deposit(alice, 1_000 * DOLLAR + 1)
    rig.deposit(alice, 20 * DOLLAR)
    rig.run(2)
    assert rig.cash(alice) == 20 * DOLLAR
    held, credited = rig.custody.deposits.of_account(alice.account)
    assert (held.state, credited.state) == (DepositState.HELD, DepositState.FINAL)
    assert "outside the limits" in held.note
    rig.assert_agrees()
    change(rig, limits=Limits())
    rig.custody.deposits.release(1, held.evidence)
    rig.run(1)
    assert rig.cash(alice) == 1_020 * DOLLAR + 1
    rig.assert_agrees()


def test_a_registry_with_the_wrong_decimals_does_not_start(funded: Rig) -> None:
    with pytest.raises(RegistryError, match="decimals is 6 on the chain, not 18"):
        change(funded, decimals=18)
        funded.custody.start()


def test_a_mistyped_reference_is_nobodys_and_its_depositor_keeps_it(rig: Rig) -> None:
    alice, bob = rig.members
    ref = bytearray(account_ref(VENUE, alice.account))
    ref[-1] = bob.account
    assert account_of_ref(VENUE, bytes(ref)) is None
    rig.deposit(alice, 50 * DOLLAR, ref=bytes(ref))
    rig.deposit(bob, 20 * DOLLAR)
    rig.run(2)
    (held, _) = rig.custody.deposits.rows()
    assert (held.state, rig.cash(alice), rig.cash(bob)) == (DepositState.HELD, 0, 20 * DOLLAR)
    rig.close_cycle()
    rig.run(1)
    site = rig.custody.sites[0]
    root = rig.custody.roots.stored(1, 1, 1)
    assert rig.custody.roots.tree(site.tokens[0], root).leaf(alice.text).exit_units == 50 * DOLLAR
    rig.assert_agrees()


def test_a_deposit_does_not_wait_for_an_operator_because_the_books_are_behind(rig: Rig) -> None:
    alice = rig.members[0]
    rig.deposit(alice, 100 * DOLLAR)
    rig.mine(FINALITY)
    site = rig.custody.sites[0]
    site.look()
    rig.custody.deposits.scan(rig.chain, rig.token, site.final)
    due = rig.custody.deposits.due(rig.token, accounts=set(), now_s=rig.now_s())
    assert due["account"].tolist() == [alice.account]


def test_whoever_deposits_first_for_an_account_does_not_become_its_owner(rig: Rig) -> None:
    """Anyone can work out a ref. If the first depositor's address became the account's, he would leave with its money."""
    (alice, mallory), vault = rig.members, interface("Vault")
    rig.mint(mallory, 2 * DOLLAR)
    thief, ref = Deployer(rig.chain, mallory.signer), account_ref(VENUE, alice.account)
    thief.call(interface("TestDollar"), rig.token.address, "approve", to_checksum_address(rig.token.vault), 2 * DOLLAR)
    thief.call(vault, rig.token.vault, "deposit", 2 * DOLLAR, ref)
    rig.run(2)
    (row,) = rig.custody.deposits.rows()
    assert (row.state, row.note, rig.cash(alice)) == (DepositState.HELD, NO_HOME, 0)
    rig.deposit(alice, 100 * DOLLAR)
    rig.run(2)
    assert rig.cash(alice) == 102 * DOLLAR
    assert rig.custody.deposits.home(alice.account) == alice.address
    rig.close_cycle()
    rig.run(1)
    tree = rig.custody.roots.tree(rig.token, rig.custody.roots.stored(1, 1, 1))
    assert [(leaf.account, leaf.exit_units) for leaf in tree.leaves] == [(alice.text, 102 * DOLLAR)]
    rig.assert_agrees()


def test_a_coin_below_its_peg_is_worth_less_and_far_below_it_waits(rig: Rig) -> None:
    alice = rig.members[0]
    rig.custody.deposits.set_price(1, 950_000)
    rig.deposit(alice, 100 * DOLLAR)
    rig.run(2)
    assert rig.cash(alice) == 94 * DOLLAR
    rig.custody.deposits.set_price(1, Haircut().stop_below_ppm - 1)
    rig.deposit(alice, 100 * DOLLAR)
    rig.run(2)
    assert rig.cash(alice) == 94 * DOLLAR
    assert rig.custody.deposits.of_account(alice.account)[-1].note == "the stablecoin has lost its peg"
    rig.assert_agrees()


def test_a_deposit_is_credited_once_however_often_it_is_offered(funded: Rig) -> None:
    (deposit,) = funded.custody.deposits.rows()
    assert funded.custody.flows.credit_of(1, deposit.evidence) is not None
    for _ in range(3):
        funded.restart()
        assert len(funded.step()) == 0
    assert funded.cash(funded.members[0]) == 100 * DOLLAR
    assert funded.custody.flows.credit_of(1, Evidence(deposit.tx_hash, deposit.position + 1)) is None


# Elsewhere


def test_a_signature_is_worth_nothing_at_another_vault_or_chain(funded: Rig) -> None:
    """The domain has chain and vault, so what was signed for one is refused by the other."""
    rig = funded
    rig.deposit(rig.members[1], 100 * DOLLAR, token=rig.coins.tokens[2])
    rig.withdraw(rig.members[0], 30 * DOLLAR, to=TO)
    (row,) = rig.custody.flows.waiting()
    deadline_s = rig.now_s() + 600
    signed = authorization(rig.token, row, deadline_s)
    elsewhere = replace(rig.token.vault_domain, chain_id=1)
    assert signed.digest(elsewhere) != signed.digest(rig.token.vault_domain)
    signatures = [wire(signer.sign(signed.digest(rig.token.vault_domain))) for signer in rig.roles.signers[:2]]
    arguments = (signed.id, signed.account, signed.recipient, signed.units, deadline_s, signatures)
    data = interface("Vault").call("withdraw", *arguments)
    with pytest.raises(CallRefused):
        rig.chain.call(rig.coins.tokens[2].vault, data)
    rig.chain.call(rig.token.vault, data)  # where it belongs it would be paid


def test_a_paused_coin_waits_three_cycles_then_everything_arrives(funded: Rig) -> None:
    rig, alice = funded, funded.members[0]
    rig.custody.set_standing(alice.account, 1)
    rig.deposit(rig.members[1], 1_000 * DOLLAR)
    rig.run(2)
    coin = interface("TestDollar")
    rig.operator.call(coin, rig.token.address, "pause")
    rig.withdraw(alice, 30 * DOLLAR, to=TO)
    for _ in range(3):
        rig.close_cycle()
        rig.run(2)
    (row,) = rig.custody.flows.waiting()
    assert outbox(rig).entries() == []  # nothing was signed that could not be carried out
    assert "transfer failed" in rig.custody.waiting_for(row.seq)
    assert rig.custody.halts.open() == []
    rig.operator.call(coin, rig.token.address, "unpause")
    rig.custody.sending.retry_s = 0
    rig.restart()
    rig.run(3)
    assert rig.coins_of(TO) == 30 * DOLLAR
    rig.assert_agrees()


def test_coins_that_leave_the_vault_unseen_stop_withdrawals_and_not_deposits(funded: Rig) -> None:
    rig, alice = funded, funded.members[0]
    rig.withdraw(alice, 10 * DOLLAR, to=MALLORY)
    (row,) = rig.custody.flows.waiting()
    signed = authorization(rig.token, replace(row, recipient=MALLORY, seq=10**6), rig.now_s() + 600)
    signatures = [wire(signer.sign(signed.digest(rig.token.vault_domain))) for signer in rig.roles.signers[:2]]
    thief = Deployer(rig.chain, rig.members[1].signer)
    arguments = (signed.id, signed.account, signed.recipient, signed.units, signed.deadline_s, signatures)
    thief.call(interface("Vault"), rig.token.vault, "withdraw", *arguments)
    rig.run(3)
    rig.close_cycle()
    rig.run(2)
    assert [halt.reason for halt in rig.custody.halts.open()]
    before = rig.coins_of(TO)
    rig.withdraw(alice, 10 * DOLLAR, to=TO)
    rig.run(2)
    assert rig.coins_of(TO) == before
    rig.deposit(rig.members[1], 60 * DOLLAR)
    rig.run(2)
    assert rig.cash(rig.members[1]) == 60 * DOLLAR
    rig.custody.halts.clear()


def test_more_than_an_hour_allows_waits_for_the_next_hour(funded: Rig) -> None:
    rig, alice = funded, funded.members[0]
    change(rig, limits=Limits(account_hour_micros=50 * DOLLAR))
    rig.withdraw(alice, 40 * DOLLAR, to=TO)
    rig.withdraw(alice, 20 * DOLLAR, to=TO)
    rig.run(3)
    assert rig.coins_of(TO) == 40 * DOLLAR
    assert "rate" in rig.custody.waiting_for(rig.custody.flows.waiting()[0].seq)
    rig.pass_time(3_700)
    rig.run(3)
    assert rig.coins_of(TO) == 60 * DOLLAR
    rig.assert_agrees()


def test_a_recipient_that_the_coin_refuses_gets_its_money_back_in_the_end(funded: Rig) -> None:
    rig, alice = funded, funded.members[0]
    rig.operator.call(interface("TestDollar"), rig.token.address, "blacklist", to_checksum_address(TO))
    rig.withdraw(alice, 40 * DOLLAR, to=TO)
    rig.run(2)
    assert rig.cash(alice) == 60 * DOLLAR
    rig.pass_time(GIVE_UP_S + 60)
    rig.run(1)
    assert rig.cash(alice) == 100 * DOLLAR
    assert rig.coins_of(TO) == 0
    rig.assert_agrees()


def test_a_member_claims_with_a_proof_and_the_books_follow(funded: Rig) -> None:
    rig, alice = funded, funded.members[0]
    rig.withdraw(alice, 30 * DOLLAR, route=Route.CLAIM)
    rig.close_cycle()
    rig.run(3)
    rig.pass_time(3 * 3_600)
    rig.run(3)
    assert rig.ask("epoch") == 1
    root = rig.custody.roots.stored(1, 1, 1)
    tree = rig.custody.roots.tree(rig.token, root)
    leaf, proof = tree.leaf(alice.text), tree.proof(alice.text)
    assert (leaf.payable_units, leaf.exit_units) == (30 * DOLLAR, 100 * DOLLAR)
    wallet = Deployer(rig.chain, alice.signer)
    wallet.call(interface("Vault"), rig.token.vault, "claim", alice.text, leaf.payable_units, leaf.exit_units, proof)
    assert rig.coins_of(alice.address) == 30 * DOLLAR
    rig.run(2)
    (row,) = rig.custody.flows.withdrawals()
    assert row.state == WithdrawalState.PAID
    (paper,) = rig.custody.roots.papers(alice.address)
    assert (paper["epoch"], paper["exit_units"]) == (1, str(100 * DOLLAR))
    rig.assert_agrees()


def test_when_the_exchange_is_gone_a_member_leaves_with_everything(funded: Rig) -> None:
    rig, alice = funded, funded.members[0]
    rig.close_cycle()
    rig.run(3)
    rig.pass_time(3 * 3_600)
    rig.run(3)
    root = rig.custody.roots.stored(1, 1, 1)
    tree = rig.custody.roots.tree(rig.token, root)
    leaf, proof = tree.leaf(alice.text), tree.proof(alice.text)
    rig.pass_time(8 * 86_400)
    wallet = Deployer(rig.chain, alice.signer)
    arguments = (alice.text, leaf.payable_units, leaf.exit_units, proof, [])
    wallet.call(interface("Vault"), rig.token.vault, "force_exit", *arguments)
    assert rig.coins_of(alice.address) == 100 * DOLLAR
    rig.run(3)
    assert any("winding down" in halt.reason for halt in rig.custody.halts.open())
    assert rig.custody.reconcile(rig.custody.sites[0]) == []


def test_an_event_that_is_not_the_planned_one_is_not_taken_for_payment(funded: Rig) -> None:
    funded.withdraw(funded.members[0], 30 * DOLLAR, to=TO)
    funded.step()
    (entry,) = outbox(funded).of(withdrawal_purpose(funded.custody.flows.waiting()[0].seq))
    receipt = funded.chain.receipt(outbox(funded).attempts(entry)[0].tx_hash)
    assert receipt is not None
    outbox(funded)._require_planned(entry, receipt)
    for name, value in (("units", 1), ("recipient", to_checksum_address(MALLORY)), ("id", bytes(32))):
        with pytest.raises(OutboxError, match="without the event"):
            outbox(funded)._require_planned(replace(entry, expected={**entry.expected, name: value}), receipt)


def test_two_stablecoins_are_two_assets(rig: Rig) -> None:
    alice, bob = rig.members
    first, second = rig.coins.tokens[1], rig.coins.tokens[2]
    rig.deposit(alice, 100 * DOLLAR, token=first)
    rig.deposit(bob, 50 * DOLLAR, token=second)
    rig.run(2)
    rig.withdraw(bob, 20 * DOLLAR, to=TO, token=second)
    rig.run(3)
    assert (rig.coins_of(TO, first), rig.coins_of(TO, second)) == (0, 20 * DOLLAR)
    rig.withdraw(alice, 60 * DOLLAR, to=TO, token=second)  # more than that vault has
    rig.run(2)
    assert rig.coins_of(TO, second) == 20 * DOLLAR
    assert rig.custody.waiting_for(rig.custody.flows.waiting()[0].seq)
    rig.assert_agrees()
