"""A vault on a chain in this process, with everyone who has a part in it."""

from collections.abc import Sequence

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_canonical_address

from settlement.abi import Interface, interface
from settlement.typed_data import Domain
from settlement.vault import (
    GUARDIAN_ROLE,
    LOCKER_ROLE,
    ROOT_SETTER_ROLE,
    SETTLER_ROLE,
    ClaimTree,
    Leaf,
    Withdrawal,
    vault_domain,
)
from tests.settlement.evm import Chain, Deployed, Receipt, person, signature

DISPUTE_S = 6 * 3600
EXIT_S = 7 * 86_400
DAILY_LIMIT = 10**13
DOLLAR = 10**6
REF = b"member 7".ljust(32, b"\0")

ADMIN, SETTLER, ROOT_SETTER, LOCKER, GUARDIAN, STRANGER = (person(number) for number in range(6))
SIGNERS = sorted((person(number) for number in range(10, 13)), key=lambda key: to_canonical_address(key.address))
ALICE, BOB, CAROL = (person(number) for number in range(20, 23))
ROLES = {SETTLER_ROLE: SETTLER, ROOT_SETTER_ROLE: ROOT_SETTER, LOCKER_ROLE: LOCKER, GUARDIAN_ROLE: GUARDIAN}


class Stage:
    """A deployed vault and its token."""

    def __init__(self, token: Interface | None = None, chain: Chain | None = None) -> None:
        self.chain = chain or Chain()
        if token is None:
            self.token = self.chain.deploy(interface("TestDollar"), "Test Dollar", "TUSD", sender=ADMIN)
        else:
            self.token = self.chain.deploy(token, sender=ADMIN)
        self.vault = self.deploy_vault()
        self.domain = vault_domain(self.chain.chain_id, self.vault.address)

    def deploy_vault(self) -> Deployed:
        signers = [key.address for key in SIGNERS]
        arguments = (self.token.address, ADMIN.address, DISPUTE_S, EXIT_S, signers, 2, DAILY_LIMIT)
        vault = self.chain.deploy(interface("Vault"), *arguments, sender=ADMIN)
        for role, key in ROLES.items():
            vault.send(ADMIN, "grantRole", role, key.address)
        return vault

    @property
    def token_domain(self) -> Domain:
        return Domain("Test Dollar", "2", self.chain.chain_id, self.token.address)

    def fund(self, key: LocalAccount, units: int) -> None:
        """Gives somebody tokens, and the vault leave to take them."""
        self.token.send(ADMIN, "mint", key.address, units)
        self.token.send(key, "approve", self.vault.address, units)

    def deposit(self, key: LocalAccount, units: int) -> int:
        self.fund(key, units)
        return int(self.vault.send(key, "deposit", units, REF).value)

    def balance(self, key: LocalAccount | Deployed) -> int:
        return int(self.token.read("balanceOf", key.address))

    def settle(self, payments: Sequence[tuple[LocalAccount, int]], cycle: int = 1, chunk: int = 0) -> Receipt:
        recipients, amounts = [key.address for key, _ in payments], [units for _, units in payments]
        return self.vault.send(SETTLER, "settle_batch", batch_id(cycle), cycle, chunk, recipients, amounts)

    def withdrawal(self, units: int, number: int = 1) -> Withdrawal:
        """Alice's, to Bob's address, for an hour."""
        return Withdrawal(number.to_bytes(32, "big"), ALICE.address, BOB.address, units, self.chain.now_s + 3600)

    def withdraw(self, wanted: Withdrawal, signers: Sequence[LocalAccount] = SIGNERS[:2]) -> Receipt:
        signatures = [signature(key, wanted.digest(self.domain)) for key in signers]
        values = (wanted.id, wanted.account, wanted.recipient, wanted.units, wanted.deadline_s)
        return self.vault.send(STRANGER, "withdraw", *values, signatures)

    def tree(self, leaves: Sequence[tuple[LocalAccount, int, int]], epoch: int | None = None) -> ClaimTree:
        """Leaves (who, payable, exit) of the next epoch."""
        epoch = int(self.vault.read("epoch")) + 1 if epoch is None else epoch
        return ClaimTree(self.domain, epoch, [Leaf(key.address, *units) for key, *units in leaves])

    def propose(self, tree: ClaimTree, epoch: int | None = None, cycle: int | None = None) -> Receipt:
        epoch = int(self.vault.read("epoch")) + 1 if epoch is None else epoch
        covered = self.vault.read("deposit_count")
        sums = (tree.payable_units, tree.liability_units, covered)
        return self.vault.send(ROOT_SETTER, "propose_root", epoch, epoch if cycle is None else cycle, tree.root, *sums)

    def publish(self, leaves: Sequence[tuple[LocalAccount, int, int]]) -> ClaimTree:
        """Proposes a root, waits, and puts it into force."""
        tree = self.tree(leaves)
        self.propose(tree)
        self.chain.pass_s(DISPUTE_S)
        self.vault.send(STRANGER, "finalize_root", self.vault.read("pending_epoch"), tree.root)
        return tree

    def claim(self, tree: ClaimTree, key: LocalAccount, sender: LocalAccount = STRANGER) -> int:
        return int(self.vault.send(sender, "claim", *_leaf(tree, key)).value)

    def exit(self, tree: ClaimTree | None, key: LocalAccount, deposits: Sequence[int] = ()) -> int:
        """An exit by a leaf or, without a tree, without one."""
        leaf = _leaf(tree, key) if tree else (key.address, 0, 0, [])
        return int(self.vault.send(STRANGER, "force_exit", *leaf, deposits).value)

    def open_exit(self) -> None:
        self.chain.now_s = max(self.chain.now_s, int(self.vault.read("exit_opens_at")))


def _leaf(tree: ClaimTree, key: LocalAccount) -> tuple[str, int, int, list[bytes]]:
    leaf = tree.leaf(key.address)
    return leaf.account, leaf.payable_units, leaf.exit_units, tree.proof(key.address)


def batch_id(cycle: int) -> bytes:
    return cycle.to_bytes(32, "little")
