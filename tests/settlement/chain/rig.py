"""An exchange with custody on a chain, and members who use the vault as anybody would."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eth_utils.address import to_checksum_address
from numpy.typing import NDArray

from engine.types import Kind, Side
from settlement.abi import interface
from settlement.chain import Chain, Receipt
from settlement.custody import Custody
from settlement.deposits import account_ref
from settlement.embedded import FINALITY, Deployer, Embedded, Terms, deploy_dollar, development_roles
from settlement.flows import Destination, Route, withdraw_command
from settlement.outbox import Plan
from settlement.plans import LedgerPolicy
from settlement.service import open_books
from settlement.signer import Guard, MemorySigner, Policy, Signer
from settlement.site import Keys
from settlement.stablecoins import Network, Stablecoins, Token
from settlement.verify import verify
from tests.settlement.flow import CATALOGUE, Venue, command, listing, open_account, order, transfer

DOLLAR = 1_000_000
VENUE = CATALOGUE.venue


@dataclass
class Member:
    """Somebody with an account and an address of his own."""

    account: int
    signer: Signer

    @property
    def address(self) -> bytes:
        return self.signer.address

    @property
    def text(self) -> str:
        return str(to_checksum_address(self.address))


class Rig:
    """The exchange: engine, books, custody. `step` lets custody look, and logs what it asks for."""

    armed = False  # with the keys that stop things on the chain
    mine: Callable[[int], None]
    pass_time: Callable[[int], None]

    def __init__(
        self, directory: Path, chain: Chain, coins: Stablecoins, secrets: list[bytes], ledger: str = ""
    ) -> None:
        self.directory, self.chain, self.coins = directory, chain, coins
        self.token = coins.tokens[1]
        self.network = self.token.network
        self.roles = development_roles(secrets)
        self.operator = Deployer(chain, self.roles.admin)
        self.venue = Venue(directory, ledger=ledger)
        self.members = [Member(number + 1, MemorySigner(secret)) for number, secret in enumerate(secrets[5:7])]
        self.venue.send(*(open_account(member.account) for member in self.members))
        self.custody = self.make_custody()

    def now_s(self) -> int:
        return self.chain.head().timestamp_s

    def policy(self) -> Policy:
        ledger, _ = open_books(self.directory, read_only=True)
        return LedgerPolicy(ledger, self.coins, self.now_s, self.plan_again)

    def plan_again(self, purpose: str) -> Plan:
        return self.custody.records.plan_again(purpose)

    def keys(self) -> Keys:
        policy, roles = self.policy(), self.roles
        signers = [Guard(signer, policy) for signer in roles.signers[:2]]
        keys = Keys(Guard(roles.settler, policy), Guard(roles.root_setter, policy), signers)
        return (
            replace(keys, guardian=Guard(roles.guardian, policy), locker=Guard(roles.locker, policy))
            if self.armed
            else keys
        )

    def make_custody(self) -> Custody:
        chains, keys = {self.network.name: self.chain}, {self.network.name: self.keys()}
        return Custody(self.directory, self.coins, chains, keys, VENUE, self.now_s)

    def restart(self) -> None:
        """Custody ends and begins again on the same files."""
        self.custody.close()
        self.custody = self.make_custody()

    def step(self) -> NDArray[Any]:
        """One look at everything."""
        commands = self.custody.step()
        if len(commands):
            self.venue.send(commands)
        return commands

    def run(self, steps: int) -> None:
        """Steps, each with as many blocks after it as make everything final."""
        for _ in range(steps):
            self.step()
            self.mine(FINALITY)

    def close(self) -> None:
        self.custody.close()
        self.venue.settlement.close()

    # What members do

    def mint(self, member: Member, units: int, token: Token | None = None) -> None:
        token = token or self.token
        self.operator.call(interface("TestDollar"), token.address, "mint", member.text, units)

    def deposit(self, member: Member, units: int, ref: bytes | None = None, token: Token | None = None) -> Receipt:
        """Mint, approve and deposit; the member has said where he is at home."""
        self.custody.deposits.set_home(member.account, member.address)
        token = token or self.token
        self.mint(member, units, token)
        wallet = Deployer(self.chain, member.signer)
        wallet.call(interface("TestDollar"), token.address, "approve", to_checksum_address(token.vault), units)
        ref = account_ref(VENUE, member.account) if ref is None else ref
        return wallet.call(interface("Vault"), token.vault, "deposit", units, ref)

    def withdraw(
        self,
        member: Member,
        micros: int,
        to: bytes | None = None,
        route: Route = Route.SINGLE,
        token: Token | None = None,
    ) -> NDArray[Any]:
        destination = Destination(to or member.address, member.address, route)
        return self.venue.send(withdraw_command(member.account, (token or self.token).number, micros, destination))

    def trade(self, seller: Member, buyer: Member) -> None:
        """Ten lots change hands, and are delivered."""
        self.venue.send(listing(1))
        self.venue.send(transfer(Kind.NOMINATE, seller.account, instrument=1, lots=10))
        self.venue.send(order(seller.account, 1, Side.SELL, 2600, 10), order(buyer.account, 1, Side.BUY, 2600, 10))
        self.venue.send(command(Kind.CLOSE, instrument=1))
        while len(self.venue.deliver()):
            pass

    def close_cycle(self) -> None:
        self.venue.send(command(Kind.CLOSE_CYCLE))

    # What there is to see

    def ask(self, function: str, *arguments: Any) -> Any:
        vault = interface("Vault")
        return vault.result(function, self.chain.call(self.token.vault, vault.call(function, *arguments)))

    def coins_of(self, address: bytes, token: Token | None = None) -> int:
        token, coin = token or self.token, interface("TestDollar")
        data = coin.call("balanceOf", to_checksum_address(address))
        return int(coin.result("balanceOf", self.chain.call(token.address, data)))

    def cash(self, member: Member) -> int:
        return int(self.venue.engine.dump()["accounts"][member.account][0])

    def assert_agrees(self) -> None:
        """Engine, ledger and chain say the same, and nothing stopped anything."""
        assert [halt.reason for halt in self.custody.halts.open()] == []
        assert verify(self.venue.settlement.books, self.venue.engine.dump()) == []
        for site in self.custody.sites:
            assert self.custody.reconcile(site) == []


def deployed(chain: Chain, network: Network, secrets: list[bytes], tokens: int, terms: Terms) -> Stablecoins:
    """Test dollars and their vaults on a new chain."""
    roles = development_roles(secrets)
    operator = Deployer(chain, roles.admin)
    coins = [deploy_dollar(operator, network, roles, terms, number + 1) for number in range(tokens)]
    return Stablecoins({token.number: token for token in coins})


def embedded_rig(directory: Path) -> Rig:
    """A rig on a chain in this process."""
    embedded = Embedded()
    network = Network("embedded", embedded.chain.chain_id(), finality=FINALITY, confirmations=2)
    coins = deployed(embedded.chain, network, embedded.secrets, 1, Terms())
    rig = Rig(directory, embedded.chain, coins, embedded.secrets)
    rig.mine, rig.pass_time = embedded.mine, embedded.pass_time
    return rig
