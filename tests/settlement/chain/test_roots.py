"""Roots on their way into force, while cycles go on ending."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from settlement import vault_part
from settlement.abi import interface
from settlement.chain import CallRefused, Chain, ChainError
from settlement.embedded import Deployer
from settlement.flows import Route, refund_command
from settlement.outbox import TxState
from settlement.vault import ClaimTree, Leaf
from settlement.verify import verify
from tests.settlement.chain.anvil import FINALITY, SECRETS
from tests.settlement.chain.rig import DOLLAR, Rig

WINDOW_S = 3 * 3_600
SCRIPT = Path(__file__).parents[3] / "examples" / "claim_exit.py"


@pytest.fixture
def funded(rig: Rig) -> Rig:
    """Alice has 100 dollars in the exchange."""
    rig.deposit(rig.members[0], 100 * DOLLAR)
    rig.run(2)
    return rig


@pytest.mark.parametrize("between", ["nothing", "a deposit"])
def test_a_cycle_that_ends_while_a_root_is_on_its_way_has_the_next_one(funded: Rig, between: str) -> None:
    """The vault has the proposal but the final blocks do not, so it looks as if nothing had been proposed."""
    rig = funded
    rig.close_cycle()
    rig.step()
    assert rig.ask("pending_epoch") == 1
    if between == "a deposit":
        rig.deposit(rig.members[1], 50 * DOLLAR)
    rig.close_cycle()
    rig.step()
    rig.run(2)
    rig.pass_time(WINDOW_S)
    rig.run(2)
    assert (rig.ask("epoch"), rig.ask("root_cycle")) == (1, 1)
    rig.run(2)
    rig.pass_time(WINDOW_S)
    rig.run(2)
    assert (rig.ask("epoch"), rig.ask("root_cycle")) == (2, 2)
    rig.run(1)
    assert {entry.state for entry in rig.custody.sites[0].root_outbox.entries()} == {TxState.FINAL}
    rig.assert_agrees()


def in_force(rig: Rig) -> None:
    """A cycle ends, and its root is put into force."""
    rig.close_cycle()
    rig.run(2)
    rig.pass_time(WINDOW_S)
    rig.run(3)


def test_whoever_puts_a_root_into_force_its_papers_are_the_ones_to_have(funded: Rig) -> None:
    rig, alice = funded, funded.members[0]
    rig.close_cycle()
    rig.run(2)
    assert rig.custody.roots.papers(alice.address) == []
    rig.pass_time(WINDOW_S)
    stranger = Deployer(rig.chain, rig.members[1].signer)
    stranger.call(interface("Vault"), rig.token.vault, "finalize_root", 1, rig.ask("pending_root"))
    rig.run(3)
    (paper,) = rig.custody.roots.papers(alice.address)
    assert (paper["epoch"], paper["root"]) == (1, "0x" + rig.ask("root").hex())
    in_force(rig)
    assert rig.ask("epoch") == 2
    rig.assert_agrees()


def test_a_root_of_somebody_elses_stops_what_leaves(funded: Rig) -> None:
    """The root setter's key is stolen: with the thief's root in force, his leaf would claim everything."""
    rig, thief = funded, funded.members[1]
    rig.custody.sending.retry_s = 0
    setter = Deployer(rig.chain, rig.roles.root_setter)
    tree = ClaimTree(rig.token.vault_domain, 1, [Leaf(thief.text, 100 * DOLLAR, 100 * DOLLAR)])
    setter.call(interface("Vault"), rig.token.vault, "propose_root", 1, 1, tree.root, 100 * DOLLAR, 100 * DOLLAR, 1)
    rig.close_cycle()
    rig.run(2)
    assert ["a pending root that is not ours" in halt.reason for halt in rig.custody.halts.open()] == [True]
    guardian = Deployer(rig.chain, rig.roles.guardian)
    guardian.call(interface("Vault"), rig.token.vault, "dispute", 1)
    rig.run(1)
    rig.custody.halts.clear()
    rig.run(2)
    rig.pass_time(WINDOW_S)
    rig.run(3)
    assert (rig.ask("epoch"), rig.ask("root_cycle")) == (1, 1)
    rig.assert_agrees()


def test_a_disputed_root_is_not_proposed_again_but_the_next_cycles_is(funded: Rig) -> None:
    rig = funded
    rig.close_cycle()
    rig.run(2)
    Deployer(rig.chain, rig.roles.guardian).call(interface("Vault"), rig.token.vault, "dispute", 1)
    rig.pass_time(WINDOW_S)
    rig.run(2)
    assert (rig.ask("epoch"), rig.ask("pending_epoch")) == (0, 0)
    in_force(rig)
    assert (rig.ask("epoch"), rig.ask("root_cycle")) == (1, 2)
    rig.assert_agrees()


def test_a_claim_that_was_given_back_stays_in_the_roots_and_a_claim_of_it_is_told(funded: Rig) -> None:
    """Its owner may claim by the root before. A root without it would be a total that fell, which anyone may dispute."""
    rig, alice, vault = funded, funded.members[0], interface("Vault")
    rig.withdraw(alice, 30 * DOLLAR, route=Route.CLAIM)
    in_force(rig)
    (row,) = rig.custody.flows.waiting()
    rig.venue.send(refund_command(row, bytes(32)))
    rig.close_cycle()
    rig.run(2)
    before, now = (rig.custody.roots.tree(rig.token, rig.custody.roots.stored(1, n, n)) for n in (1, 2))
    assert now.leaf(alice.text) == before.leaf(alice.text) == Leaf(alice.text, 30 * DOLLAR, 100 * DOLLAR)
    anyone = Deployer(rig.chain, rig.members[1].signer)
    leaves = [(tree.leaf(alice.text), tree.proof(alice.text)) for tree in (before, now)]
    arguments = [value for leaf, proof in leaves for value in (leaf.payable_units, leaf.exit_units, proof)]
    with pytest.raises(ChainError, match="reverted"):
        anyone.call(vault, rig.token.vault, "dispute_leaf", alice.text, *arguments)
    rig.pass_time(WINDOW_S)
    rig.run(3)
    assert rig.ask("epoch") == 2
    rig.assert_agrees()
    leaf, proof = leaves[1][0], now.proof(alice.text)
    anyone.call(vault, rig.token.vault, "claim", alice.text, leaf.payable_units, leaf.exit_units, proof)
    rig.run(2)
    (difference,) = rig.custody.reconcile(rig.custody.sites[0])
    assert f"claimed by {alice.text}" in difference
    assert "<= 0, found 30000000" in difference
    rig.custody.halts.clear()


def test_statements_have_what_leaving_needs_before_a_root_is_proposed(funded: Rig) -> None:
    rig, alice = funded, funded.members[0]
    rig.close_cycle()
    path = rig.directory / "statements" / "1" / f"{alice.account}.json"
    written = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "gas", refusing)
        rig.step()
    assert rig.ask("pending_epoch") == 0
    statement = json.loads(path.read_bytes())
    (paper,) = statement.pop("vault")
    assert statement == json.loads(written)
    assert (paper["account"], paper["exit_units"]) == (alice.text, str(100 * DOLLAR))
    rig.custody.sending.retry_s = 0
    rig.restart()
    rig.run(1)
    rig.pass_time(WINDOW_S)
    rig.run(3)
    assert paper == json.loads(path.read_bytes())["vault"][0] == rig.custody.roots.papers(alice.address)[0]
    arguments = [paper["account"], int(paper["payable_units"]), int(paper["exit_units"])]
    rig.pass_time(8 * 86_400)
    proof = [bytes.fromhex(one[2:]) for one in paper["proof"]]
    Deployer(rig.chain, alice.signer).call(interface("Vault"), rig.token.vault, "force_exit", *arguments, proof, [])
    assert rig.coins_of(alice.address) == 100 * DOLLAR


def test_with_the_statement_and_the_script_alone_a_member_claims_and_leaves(funded: Rig, tmp_path: Path) -> None:
    rig, alice = funded, funded.members[0]
    rig.withdraw(alice, 30 * DOLLAR, route=Route.CLAIM)
    in_force(rig)
    (tmp_path / "claim_exit.py").write_bytes(SCRIPT.read_bytes())
    (tmp_path / "statement.json").write_bytes((rig.directory / "statements/1" / f"{alice.account}.json").read_bytes())
    (tmp_path / "gas.key").write_text(SECRETS[-1].hex())

    def run(action: str) -> str:
        command = [sys.executable, "-I", "claim_exit.py", rig.network.url, "statement.json", action, "--key", "gas.key"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    assert f"claim paid {30 * DOLLAR} units to {alice.text}" in run("claim")
    rig.pass_time(8 * 86_400)
    assert f"exit paid {70 * DOLLAR} units to {alice.text}" in run("exit")
    assert rig.coins_of(alice.address) == 100 * DOLLAR


def refusing(*_: object) -> int:
    raise CallRefused("not now")


def test_a_forged_paper_is_found_and_a_lost_statement_gets_its_papers_back(funded: Rig) -> None:
    rig, alice = funded, funded.members[0]
    in_force(rig)
    books, place = rig.venue.settlement.books, rig.directory / "statements" / "1"
    path = place / f"{alice.account}.json"
    written = path.read_bytes()
    path.write_bytes(written.replace(b'"exit_units": "1', b'"exit_units": "2'))
    (found,) = verify(books, rig.venue.engine.dump())
    assert "it leads to the root" in str(found)
    other = ClaimTree(rig.token.vault_domain, 1, [Leaf(alice.text, 0, 999 * DOLLAR)])
    path.write_bytes(vault_part.join(written, [other.paper(alice.text)]))
    (found,) = verify(books, rig.venue.engine.dump())
    assert "there was no such root" in str(found)
    path.write_bytes(vault_part.split(written)[0])
    rig.restart()
    rig.run(1)
    assert path.read_bytes() == written
    rig.assert_agrees()


def test_a_node_that_fails_in_the_middle_of_a_turn_loses_no_command(funded: Rig) -> None:
    """The credit was handed out; what fails after it must not keep it from the log."""
    rig, (alice, bob) = funded, funded.members
    rig.deposit(bob, 50 * DOLLAR)
    rig.mine(FINALITY)
    rig.withdraw(alice, 10 * DOLLAR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "gas", failing)
        rig.step()
    assert rig.cash(bob) == 50 * DOLLAR
    rig.run(3)
    assert rig.coins_of(alice.address) == 10 * DOLLAR
    rig.assert_agrees()


def failing(*_: object) -> int:
    raise ChainError("the node is gone")
