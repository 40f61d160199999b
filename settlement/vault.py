"""The vault's protocol without a node: what is signed for it, its leaves and proofs, batches in chunks.

`docs/vault.md` has the contract's side. Calls and events are bytes of `interface("Vault")` in `settlement/abi.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import encode
from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak

from settlement.proofs import HASH_BYTES, ProofError
from settlement.typed_data import Domain, struct_hash

MAX_CHUNK = 400
"""Recipients that one call of settle_batch takes at most."""
FRESH_CHUNK = 250
"""So many fit below the gas that one transaction may use even when none was ever paid before (benchmarks/vault.py)."""
MAX_UNITS = 2**96 - 1
MAX_PROOF = 64

ADMIN_ROLE = bytes(HASH_BYTES)
SETTLER_ROLE = keccak(text="SETTLER_ROLE")
ROOT_SETTER_ROLE = keccak(text="ROOT_SETTER_ROLE")
LOCKER_ROLE = keccak(text="LOCKER_ROLE")
GUARDIAN_ROLE = keccak(text="GUARDIAN_ROLE")

_WITHDRAWAL = "Withdrawal(bytes32 id,address account,address recipient,uint256 units,uint256 deadline)"


class VaultError(ValueError):
    """The vault would refuse this."""


def vault_domain(chain_id: int, vault: str) -> Domain:
    """What signatures and leaves are bound to."""
    return Domain("Wellhead Vault", "1", chain_id, vault)


def checked_units(units: int) -> int:
    """Raises VaultError for an amount that the vault takes for out of range."""
    if not 0 <= units <= MAX_UNITS:
        raise VaultError(f"an amount of {units} units is out of range")
    return units


def authorization_nonce(ref: bytes, salt: bytes) -> bytes:
    """The nonce of an authorization to deposit for `ref`: it commits to the ref, and the salt makes it new."""
    return keccak(encode(["bytes32", "bytes32"], [ref, salt]))


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Money of `account` that goes to `recipient` when M of N signers have signed; valid to the deadline's second."""

    id: bytes
    account: str
    recipient: str
    units: int
    deadline_s: int

    def digest(self, vault: Domain) -> bytes:
        types = ["bytes32", "address", "address", "uint256", "uint256"]
        values = [self.id, self.account, self.recipient, self.units, self.deadline_s]
        return vault.digest(struct_hash(_WITHDRAWAL, types, values))


def in_order(signatures: Mapping[str, bytes]) -> list[bytes]:
    """Signatures by signer's address, as withdraw() wants them: in rising order of the addresses."""
    return [signatures[signer] for signer in sorted(signatures, key=to_canonical_address)]


# Batches


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one call of settle_batch pays."""

    recipients: tuple[str, ...]
    amounts: tuple[int, ...]

    @property
    def content(self) -> bytes:
        """What ChunkSettled says was paid."""
        return keccak(encode(["address[]", "uint256[]"], [self.recipients, self.amounts]))

    @property
    def units(self) -> int:
        return sum(self.amounts)


def chunks(payments: Sequence[tuple[str, int]], size: int = FRESH_CHUNK) -> Iterator[Chunk]:
    """Payments (recipient, units) in calls of at most `size`, in their order. Raises VaultError for one that cannot be."""
    if not 1 <= size <= MAX_CHUNK:
        raise VaultError(f"a chunk has 1 to {MAX_CHUNK} recipients, not {size}")
    for recipient, units in payments:
        if units == 0 or not any(to_canonical_address(recipient)):
            raise VaultError(f"nothing to pay, or nobody: {units} units to {recipient}")
        checked_units(units)
    for at in range(0, len(payments), size):
        recipients, amounts = zip(*payments[at : at + size], strict=True)
        yield Chunk(recipients, amounts)


# Leaves


@dataclass(frozen=True, slots=True)
class Leaf:
    """What an address was ever paid and may claim now (payable), and that with all it owns (exit)."""

    account: str
    payable_units: int
    exit_units: int


def leaf_hash(vault: Domain, epoch: int, leaf: Leaf) -> bytes:
    """Hashed twice, so that no node of the tree can pass for a leaf. Raises VaultError."""
    if checked_units(leaf.payable_units) > checked_units(leaf.exit_units):
        raise VaultError(f"{leaf.account} may claim {leaf.payable_units} units and owns {leaf.exit_units}")
    types = ["bytes32", "uint256", "address", "uint256", "uint256"]
    values = [vault.separator, epoch, leaf.account, leaf.payable_units, leaf.exit_units]
    return keccak(keccak(encode(types, values)))


def parent_hash(one: bytes, other: bytes) -> bytes:
    return keccak(min(one, other) + max(one, other))


class ClaimTree:
    """The leaves of an epoch, one an address, in order of the addresses; its root, its sums, and proofs.

    Raises ProofError for no leaves, an address twice or an epoch that is none, VaultError for amounts.
    """

    def __init__(self, vault: Domain, epoch: int, leaves: Sequence[Leaf]) -> None:
        if not leaves or epoch < 1:
            raise ProofError("a tree needs an epoch from 1 on and at least one leaf")
        self._vault, self._epoch = vault, epoch
        self.leaves = sorted(leaves, key=lambda leaf: to_canonical_address(leaf.account))
        self._place = {to_canonical_address(leaf.account): at for at, leaf in enumerate(self.leaves)}
        if len(self._place) != len(leaves):
            raise ProofError("an address has two leaves")
        self.payable_units = checked_units(sum(leaf.payable_units for leaf in leaves))
        self.liability_units = checked_units(sum(leaf.exit_units for leaf in leaves))
        level = [leaf_hash(vault, epoch, leaf) for leaf in self.leaves]
        self._levels = [level]
        while len(level) > 1:
            above = [parent_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
            level = above + level[len(level) // 2 * 2 :]
            self._levels.append(level)
        self.root = level[0]

    def leaf(self, account: str) -> Leaf:
        """Raises ProofError when the address has none."""
        return self.leaves[self._index(account)]

    def proof(self, account: str) -> list[bytes]:
        """The partners of the address's leaf on its way up. Raises ProofError when it has none."""
        index, partners = self._index(account), []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                partners.append(level[index ^ 1])
            index >>= 1
        return partners

    def paper(self, account: str) -> dict[str, Any]:
        """What the address needs to claim and to exit, as its statement has it. Raises ProofError when it has no leaf.

        Amounts are text: not everybody's JSON has numbers above 2**53.
        """
        leaf = self.leaf(account)
        return {
            "chain_id": self._vault.chain_id,
            "vault": self._vault.contract,
            "epoch": self._epoch,
            "root": "0x" + self.root.hex(),
            "account": leaf.account,
            "payable_units": str(leaf.payable_units),
            "exit_units": str(leaf.exit_units),
            "proof": ["0x" + partner.hex() for partner in self.proof(account)],
        }

    def _index(self, account: str) -> int:
        place = self._place.get(to_canonical_address(account))
        if place is None:
            raise ProofError(f"{account} has no leaf")
        return place


def root_of(leaf: bytes, partners: Sequence[bytes]) -> bytes:
    """The root that a leaf's hash and its proof lead to."""
    for partner in partners:
        leaf = parent_hash(leaf, partner)
    return leaf
