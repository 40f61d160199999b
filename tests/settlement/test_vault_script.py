"""The script with which members leave on their own, on a real node."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from settlement.abi import interface
from settlement.vault import ROOT_SETTER_ROLE, SETTLER_ROLE, ClaimTree, Leaf, vault_domain
from tests.settlement.chain.anvil import Anvil, NoAnvil, anvil
from tests.settlement.vaults import ADMIN, ALICE, BOB, CAROL, DISPUTE_S, EXIT_S, REF, ROOT_SETTER, SETTLER, SIGNERS

SCRIPT = Path(__file__).parents[2] / "examples" / "claim_exit.py"
TOKEN, VAULT = interface("TestDollar"), interface("Vault")


class Place:
    """A vault on a node, with deposits of Alice and Bob in a root, and one of Alice's that came after it."""

    def __init__(self, node: Anvil, directory: Path) -> None:
        self.node, self.directory = node, directory
        self.token = self.deploy(TOKEN.deployment("Test Dollar", "TUSD"))
        signers = [key.address for key in SIGNERS]
        arguments = (self.token, ADMIN.address, DISPUTE_S, EXIT_S, signers, 2, 10**12)
        self.vault = self.deploy(VAULT.deployment(*arguments))
        self.send(ADMIN.address, "grantRole", SETTLER_ROLE, SETTLER.address)
        self.send(ADMIN.address, "grantRole", ROOT_SETTER_ROLE, ROOT_SETTER.address)
        for key in (ALICE, BOB):
            self.deposit(key.address, 100)
        domain = vault_domain(int(node.rpc("eth_chainId"), 16), self.vault)
        leaves = [Leaf(ALICE.address, 30, 90), Leaf(BOB.address, 0, 80), Leaf(CAROL.address, 0, 30)]
        self.tree = ClaimTree(domain, 1, leaves)
        self.send(ROOT_SETTER.address, "propose_root", 1, 1, self.tree.root, 30, 200, 2)
        self.pass_s(DISPUTE_S)
        self.send(BOB.address, "finalize_root", 1, self.tree.root)
        self.deposit(ALICE.address, 7)
        self.key = directory / "gas.key"
        self.key.write_text(CAROL.key.hex())
        node.rpc("anvil_setBalance", CAROL.address, hex(10**18))

    def deploy(self, data: bytes) -> str:
        return str(self.transact(ADMIN.address, None, data)["contractAddress"])

    def transact(self, sender: str, to: str | None, data: bytes) -> dict[str, Any]:
        """The receipt of a transaction from any address, whoever has its key."""
        self.node.rpc("anvil_impersonateAccount", sender)
        self.node.rpc("anvil_setBalance", sender, hex(10**20))
        wanted = {"from": sender, "data": "0x" + data.hex()} | ({"to": to} if to else {})
        receipt: dict[str, Any] = self.node.rpc("eth_sendTransactionSync", wanted)
        assert int(receipt["status"], 16) == 1
        return receipt

    def send(self, sender: str, function: str, *arguments: object) -> None:
        self.transact(sender, self.vault, VAULT.call(function, *arguments))

    def deposit(self, sender: str, units: int) -> None:
        self.transact(ADMIN.address, self.token, TOKEN.call("mint", sender, units))
        self.transact(sender, self.token, TOKEN.call("approve", self.vault, units))
        self.send(sender, "deposit", units, REF)

    def pass_s(self, seconds: int) -> None:
        self.node.pass_time(seconds)

    def balance(self, account: str) -> int:
        data = "0x" + TOKEN.call("balanceOf", account).hex()
        return int(self.node.rpc("eth_call", {"to": self.token, "data": data}, "latest"), 16)

    def statement(self, account: str, **changed: object) -> str:
        path = self.directory / "statement.json"
        path.write_text(json.dumps({"account": 7, "vault": [self.tree.paper(account) | changed]}))
        return str(path)

    def run(self, *arguments: str, fails: bool = False) -> str:
        """The script as members have it: alone in a directory, with nothing of ours to import."""
        alone = self.directory / "claim_exit.py"
        alone.write_bytes(SCRIPT.read_bytes())
        command = [sys.executable, "-I", str(alone), self.node.url, *arguments]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def one_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    try:
        with anvil() as node:
            yield Place(node, tmp_path_factory.mktemp("member"))
    except NoAnvil as error:
        pytest.skip(str(error))


@pytest.fixture
def place(one_place: Place) -> Iterator[Place]:
    before = one_place.node.rpc("evm_snapshot")
    yield one_place
    one_place.node.rpc("evm_revert", before)


def test_a_member_sees_what_is_his(place: Place) -> None:
    seen = place.run(place.statement(ALICE.address))
    assert "claim     30 units now" in seen
    assert "exit      97 units, opens 20" in seen
    assert "deposit   2 of 7 units is in no root yet" in seen


def test_a_claim_and_then_an_exit_when_the_exchange_is_gone(place: Place) -> None:
    key = ("--key", str(place.key))
    assert "claim paid 30 units" in place.run(place.statement(ALICE.address), "claim", *key)
    assert "nothing to claim" in place.run(place.statement(ALICE.address), "claim", *key, fails=True)
    assert "exit not open" in place.run(place.statement(ALICE.address), "exit", *key, fails=True)
    place.pass_s(EXIT_S)
    assert "97" not in place.run(place.statement(ALICE.address))
    assert "exit paid 67 units" in place.run(place.statement(ALICE.address), "exit", *key)
    assert "exit      0 units, open" in place.run(place.statement(ALICE.address))
    assert "nothing to exit with" in place.run(place.statement(ALICE.address), "exit", *key, fails=True)
    assert "exit paid 80 units" in place.run(place.statement(BOB.address), "exit", *key)
    assert (place.balance(ALICE.address), place.balance(BOB.address), place.balance(place.vault)) == (97, 80, 30)


def test_an_exit_without_any_statement_takes_the_deposits_no_root_knows(place: Place) -> None:
    place.pass_s(EXIT_S)
    who = ("--vault", place.vault, "--account", ALICE.address, "--key", str(place.key))
    assert "exit paid 7 units" in place.run("exit", *who)


def test_a_wallet_can_send_what_is_printed(place: Place) -> None:
    to, data = place.run(place.statement(ALICE.address), "claim", "--print").split("\n")[:2]
    place.transact(BOB.address, to.split()[1], bytes.fromhex(data.split()[1][2:]))
    assert place.balance(ALICE.address) == 30


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exit_units": "91"}, "does not fit the vault's root"),
        ({"epoch": 2}, "the vault is at epoch 1, the statement at 2"),
        ({"chain_id": 1}, "is for chain 1"),
        ({"vault": ALICE.address}, "no vault at"),
    ],
)
def test_a_statement_that_does_not_fit_is_told_so(place: Place, changed: dict[str, object], reason: str) -> None:
    assert reason in place.run(place.statement(ALICE.address, **changed), fails=True)
