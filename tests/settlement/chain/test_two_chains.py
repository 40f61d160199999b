"""Stablecoins on two chains at once: a node and a chain in this process, each with its own vault, keys and asset."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from eth_utils.address import to_checksum_address

from settlement.abi import interface
from settlement.accounts import VAULT, token_asset
from settlement.chain import ChainError
from settlement.custody import Custody
from settlement.deposits import account_ref
from settlement.embedded import FINALITY as DEPTH
from settlement.embedded import Deployer, Embedded, Terms, development_roles
from settlement.signer import Guard, MemorySigner
from settlement.site import Keys
from settlement.stablecoins import Network, Stablecoins, Token
from tests.settlement.chain.anvil import SECRETS, Site
from tests.settlement.chain.rig import DOLLAR, VENUE, Member, Rig, deployed

TO = b"\x77" * 20


@dataclass
class Pair:
    """A rig whose custody works on two chains: token 1 is on the first, token 9 on the other."""

    rig: Rig
    other: Embedded
    there: Token

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.rig.step()
            self.rig.mine(DEPTH)
            self.other.mine(DEPTH)

    def pass_time(self, seconds: int) -> None:
        self.rig.pass_time(seconds)
        self.other.pass_time(seconds)

    def deposit_there(self, member: Member, units: int) -> None:
        """From somebody's wallet on the other chain, for a member who has said where he is at home."""
        payer, coin = Deployer(self.other.chain, MemorySigner(self.other.secrets[9])), interface("TestDollar")
        operator = Deployer(self.other.chain, MemorySigner(self.other.secrets[0]))
        operator.call(coin, self.there.address, "mint", to_checksum_address(payer.address), units)
        payer.call(coin, self.there.address, "approve", to_checksum_address(self.there.vault), units)
        self.rig.custody.deposits.set_home(member.account, member.address)
        payer.call(interface("Vault"), self.there.vault, "deposit", units, account_ref(VENUE, member.account))

    def coins_there(self, address: bytes) -> int:
        coin = interface("TestDollar")
        data = coin.call("balanceOf", to_checksum_address(address))
        return int(coin.result("balanceOf", self.other.chain.call(self.there.address, data)))


@pytest.fixture
def pair(site: Site, tmp_path: Path) -> Iterator[Pair]:
    site.again()
    rig, other = site.rig(tmp_path / "books"), Embedded()
    network = Network("elsewhere", other.chain.chain_id(), finality=DEPTH, confirmations=2)
    (coin,) = deployed(other.chain, network, other.secrets, 1, Terms()).tokens.values()
    there = replace(coin, number=9)
    rig.custody.close()
    rig.coins = Stablecoins({1: rig.token, 9: there})
    policy, keys = rig.policy(), {}
    for name, secrets in (("anvil", SECRETS), ("elsewhere", other.secrets)):
        roles = development_roles(secrets)
        signers = [Guard(signer, policy) for signer in roles.signers[:2]]
        keys[name] = Keys(Guard(roles.settler, policy), Guard(roles.root_setter, policy), signers)
    chains = {"anvil": rig.chain, "elsewhere": other.chain}
    rig.custody = Custody(rig.directory, rig.coins, chains, keys, VENUE, rig.now_s)
    yield Pair(rig, other, there)
    rig.close()


def test_each_is_an_asset_of_its_own_and_a_root_promises_each_vaults_share(pair: Pair) -> None:
    rig, (alice, bob) = pair.rig, pair.rig.members
    rig.deposit(alice, 300 * DOLLAR)
    pair.deposit_there(bob, 100 * DOLLAR)
    pair.run(2)
    assert (rig.cash(alice), rig.cash(bob)) == (300 * DOLLAR, 100 * DOLLAR)
    rig.withdraw(bob, 40 * DOLLAR, to=TO, token=pair.there)
    rig.withdraw(alice, 20 * DOLLAR, to=TO)
    pair.run(3)
    assert (rig.coins_of(TO), pair.coins_there(TO)) == (20 * DOLLAR, 40 * DOLLAR)
    balances = rig.venue.settlement.books.ledger.balances([VAULT])
    assert balances == {(token_asset(1), VAULT): 280 * DOLLAR, (token_asset(9), VAULT): 60 * DOLLAR}
    rig.close_cycle()
    pair.run(2)
    pair.pass_time(3 * 3_600)
    pair.run(3)
    papers = rig.custody.roots.papers(alice.address)
    assert [paper["chain_id"] for paper in papers] == [rig.network.chain_id, pair.there.network.chain_id]
    # 280 of 340 coins are here: of alice's 280 dollars this vault answers for 280 * 280 / 340, besides what it paid.
    own = [280 * DOLLAR * coins // (340 * DOLLAR) for coins in (280 * DOLLAR, 60 * DOLLAR)]
    assert [int(paper["exit_units"]) for paper in papers] == [own[0] + 20 * DOLLAR, own[1]]
    rig.assert_agrees()


def test_a_chain_that_does_not_answer_keeps_nobody_waiting_elsewhere(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, (alice, bob) = pair.rig, pair.rig.members
    rig.deposit(alice, 100 * DOLLAR)
    pair.deposit_there(bob, 100 * DOLLAR)
    with monkeypatch.context() as patch:
        patch.setattr(pair.other.chain, "head", silent)
        pair.run(2)
        rig.withdraw(alice, 30 * DOLLAR, to=TO)
        pair.run(3)
    assert (rig.coins_of(TO), rig.cash(bob)) == (30 * DOLLAR, 0)
    assert rig.custody.halts.open() == []
    pair.run(2)
    assert rig.cash(bob) == 100 * DOLLAR
    rig.assert_agrees()


def silent() -> None:
    raise ChainError("no answer")
