"""Digests that are signed for a contract: EIP-712, with the structs of EIP-2612 (permit) and EIP-3009 (authorization).

    digest = keccak(0x1901 + domain separator + keccak(type hash + encoded fields))

A domain names the contract and the chain, so what was signed for one is worth nothing at another.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eth_abi.abi import encode
from eth_utils.crypto import keccak

_DOMAIN = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_PERMIT = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
_AUTHORIZED = "(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
RECEIVE = "ReceiveWithAuthorization" + _AUTHORIZED
TRANSFER = "TransferWithAuthorization" + _AUTHORIZED


@dataclass(frozen=True)
class Domain:
    """Who will check a signature: a contract on a chain."""

    name: str
    version: str
    chain_id: int
    contract: str

    @cached_property
    def separator(self) -> bytes:
        hashed = [keccak(text=self.name), keccak(text=self.version)]
        types = ["bytes32", "bytes32", "uint256", "address"]
        return struct_hash(_DOMAIN, types, [*hashed, self.chain_id, self.contract])

    def digest(self, content: bytes) -> bytes:
        """What is signed for a struct with this hash."""
        return keccak(b"\x19\x01" + self.separator + content)


@dataclass(frozen=True)
class Permit:
    """Leave for the spender to take `units` from the owner, under EIP-2612; to the deadline's second."""

    owner: str
    spender: str
    units: int
    nonce: int
    deadline_s: int

    def digest(self, token: Domain) -> bytes:
        types = ["address", "address", "uint256", "uint256", "uint256"]
        values = [self.owner, self.spender, self.units, self.nonce, self.deadline_s]
        return token.digest(struct_hash(_PERMIT, types, values))


@dataclass(frozen=True)
class Authorization:
    """A transfer that somebody else may hand in, under EIP-3009. Times are in seconds since 1970, both excluded."""

    payer: str
    payee: str
    units: int
    valid_after_s: int
    valid_before_s: int
    nonce: bytes

    def digest(self, token: Domain, kind: str = RECEIVE) -> bytes:
        types = ["address", "address", "uint256", "uint256", "uint256", "bytes32"]
        values = [self.payer, self.payee, self.units, self.valid_after_s, self.valid_before_s, self.nonce]
        return token.digest(struct_hash(kind, types, values))


def struct_hash(kind: str, types: list[str], values: list[Any]) -> bytes:
    """Hash of a struct whose fields all have a fixed size (hash strings before)."""
    return keccak(keccak(text=kind) + encode(types, values))
