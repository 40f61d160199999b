"""Coins that are sent to a vault as to anybody."""

import pytest
from click.testing import CliRunner
from eth_utils.address import to_checksum_address

from settlement.abi import interface
from settlement.deposits import DepositState, account_ref
from settlement.embedded import Deployer
from settlement.flows import Evidence
from settlement.outbox import TxState
from settlement.signer import Guard, Refused, Request
from tests.settlement.chain.rig import DOLLAR, VENUE, Member, Rig
from wellhead.cli import main


def send(rig: Rig, member: Member, units: int) -> None:
    """From a wallet that knows nothing of us."""
    rig.mint(member, units)
    wallet = Deployer(rig.chain, member.signer)
    wallet.call(interface("TestDollar"), rig.token.address, "transfer", to_checksum_address(rig.token.vault), units)


@pytest.fixture
def at_home(rig: Rig) -> Rig:
    """Alice has said where she is at home."""
    alice = rig.members[0]
    rig.custody.deposits.set_home(alice.account, alice.address)
    return rig


def test_a_transfer_from_home_is_a_deposit_once(at_home: Rig) -> None:
    rig, alice = at_home, at_home.members[0]
    send(rig, alice, 100 * DOLLAR)
    send(rig, alice, 100 * DOLLAR)
    rig.run(3)
    rig.restart()
    rig.run(2)
    rows = rig.custody.deposits.rows()
    assert [(row.depositor, row.ref, row.units) for row in rows] == [
        (alice.address, account_ref(VENUE, alice.account), 100 * DOLLAR)
    ] * 2
    assert rig.cash(alice) == 200 * DOLLAR
    assert {entry.state for entry in rig.custody.sites[0].outbox.entries()} == {TxState.FINAL}
    rig.assert_agrees()


def test_a_deposits_own_transfer_is_no_second_one(at_home: Rig) -> None:
    rig, alice = at_home, at_home.members[0]
    rig.deposit(alice, 100 * DOLLAR)
    send(rig, alice, 5 * DOLLAR)
    rig.run(4)
    assert [row.units for row in rig.custody.records.transfers.rows()] == [5 * DOLLAR]
    assert rig.cash(alice) == 105 * DOLLAR
    rig.assert_agrees()


def test_a_strangers_transfer_waits_for_an_operator(at_home: Rig) -> None:
    rig, (alice, bob) = at_home, at_home.members
    send(rig, bob, 50 * DOLLAR)
    send(rig, alice, DOLLAR - 1)  # dust would cost more gas than it is worth
    rig.run(3)
    assert rig.custody.sites[0].outbox.entries() == []
    rig.assert_agrees()  # the vault has more than it answers for, which is no difference
    (row, dust) = rig.custody.records.transfers.rows()
    assert (row.sender, dust.units) == (bob.address, DOLLAR - 1)
    assert rig.custody.records.transfers.assign(1, Evidence(row.tx_hash, row.position), alice.account)
    rig.run(3)
    (deposit,) = rig.custody.deposits.rows()
    assert (deposit.state, deposit.depositor) == (DepositState.FINAL, alice.address)
    assert (rig.cash(alice), rig.cash(bob)) == (50 * DOLLAR, 0)
    rig.assert_agrees()


def test_a_transfer_that_nobody_saw_is_not_signed_for(at_home: Rig) -> None:
    rig, alice = at_home, at_home.members[0]
    send(rig, alice, 100 * DOLLAR)
    rig.run(3)
    (entry,) = rig.custody.sites[0].outbox.entries()
    guard: Guard = rig.keys().settler
    for purpose in ("transfer:1:17:0", "transfer:9:17:0", entry.purpose.replace("transfer:1", "transfer:2")):
        with pytest.raises(Refused, match="no reason"):
            guard.sign(Request(purpose, b"", ()))


def test_an_operator_sees_them_and_says_whose_they_are(tmp_path, at_home: Rig) -> None:  # type: ignore[no-untyped-def]
    rig, (alice, bob) = at_home, at_home.members
    send(rig, bob, 50 * DOLLAR)
    rig.run(2)
    (row,) = rig.custody.records.transfers.rows()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "settlement").symlink_to(rig.directory)

    def run(*arguments: object) -> str:
        return CliRunner().invoke(main, ["chain", *map(str, arguments), "--data", str(tmp_path / "data")]).output

    assert f"0x{row.tx_hash.hex()} log {row.position}: {50 * DOLLAR} units from {bob.text}" in run("show")
    assert "has not said" in run("credit", 1, "0x" + row.tx_hash.hex(), row.position, bob.account)
    assert "no transfer" in run("credit", 1, "0x" + "17" * 32, row.position, alice.account)
    assert "no hash" in run("credit", 1, "0xyz", row.position, alice.account)
    assert "becomes a deposit" in run("credit", 1, "0x" + row.tx_hash.hex(), row.position, alice.account)
    assert "nobody's home" not in run("show")
    rig.run(3)
    assert rig.cash(alice) == 50 * DOLLAR
