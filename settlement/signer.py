"""Keys: who signs, and what they are willing to sign.

A `Signer` signs 32 bytes with a secp256k1 key, wherever that lies: in memory (development only), in an encrypted
keystore file, in a PKCS#11 token. It is never handed bytes from outside: a `Guard` stands before it, which has its
`Policy` work out again, from the ledger's own row, what may be signed, and refuses when the bytes asked for are others.
What is shown and what is signed are then the same, whoever has got at the process that asks.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import rlp
from eth_account import Account
from eth_keys.datatypes import PublicKey, Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak

ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""Of the group. A signature's s lies in its lower half: with the upper one there would be two for every message."""
SECP256K1 = bytes.fromhex("06052b8104000a")
"""The curve's object identifier, as PKCS#11 names it."""
TYPE_2 = b"\x02"


class SignerError(RuntimeError):
    """The key cannot be used."""


class Refused(RuntimeError):
    """The policy does not allow to sign this; the message says what differs."""


class Signer(Protocol):
    """A key."""

    @property
    def address(self) -> bytes: ...

    def sign(self, digest: bytes) -> Signature:
        """Raises SignerError."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A call as it is signed (EIP-1559). No value is ever sent along."""

    chain_id: int
    nonce: int
    to: bytes
    data: bytes
    gas: int
    max_fee_wei: int
    priority_wei: int

    def _fields(self) -> list[Any]:
        return [self.chain_id, self.nonce, self.priority_wei, self.max_fee_wei, self.gas, self.to, 0, self.data, []]

    @property
    def digest(self) -> bytes:
        """What is signed."""
        return keccak(TYPE_2 + rlp.encode(self._fields()))

    def raw(self, signature: Signature) -> bytes:
        """What a node takes."""
        return bytes(TYPE_2 + rlp.encode([*self._fields(), signature.v, signature.r, signature.s]))


def wire(signature: Signature) -> bytes:
    """The 65 bytes that contracts take: r, s, and v as 27 or 28."""
    return bytes(signature.to_bytes()[:64] + bytes([27 + signature.v]))


# Signers


class MemorySigner:
    """A key in memory, for development and tests."""

    def __init__(self, secret: bytes) -> None:
        self._key = Account.from_key(secret)._key_obj

    @property
    def address(self) -> bytes:
        return bytes(self._key.public_key.to_canonical_address())

    def sign(self, digest: bytes) -> Signature:
        signature: Signature = self._key.sign_msg_hash(digest)
        return signature


class KeystoreSigner(MemorySigner):
    """A key in an encrypted file (Web3 Secret Storage, version 3). It is decrypted once, when it is opened."""

    def __init__(self, path: Path, password: str) -> None:
        """Raises SignerError."""
        try:
            super().__init__(bytes(Account.decrypt(json.loads(path.read_text(encoding="utf-8")), password)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SignerError(f"{path}: {error}") from error


def make_keystore(path: Path, password: str, secret: bytes | None = None, rounds: int | None = None) -> bytes:
    """Write a new key to a new file that only its owner may read; returns its address. Raises FileExistsError."""
    account = Account.from_key(secret) if secret else Account.create()
    content = Account.encrypt(account.key, password, kdf="scrypt", iterations=rounds)
    with open(path, "x", encoding="utf-8", opener=_private) as file:
        json.dump(content, file)
    return bytes(account._key_obj.public_key.to_canonical_address())


def _private(path: str, flags: int) -> int:
    import os  # noqa: PLC0415 - only here

    return os.open(path, flags, 0o600)


class TokenSigner:
    """A key in a PKCS#11 token (a hardware module, or SoftHSM), which never leaves it. Needs python-pkcs11."""

    def __init__(self, library: str, token: str, label: str, pin: str) -> None:
        """Log on and look up the key pair with this label. Raises SignerError."""
        try:
            import pkcs11  # noqa: PLC0415 - an optional package
        except ImportError as error:
            raise SignerError(f"{error}: install wellhead[hsm]") from error
        self._pkcs11: Any = pkcs11
        try:
            self._session = pkcs11.lib(library).get_token(token_label=token).open(user_pin=pin)
            kind, classes = pkcs11.KeyType.EC, pkcs11.ObjectClass
            self._key: Any = self._session.get_key(key_type=kind, object_class=classes.PRIVATE_KEY, label=label)
            public = self._session.get_key(key_type=kind, object_class=classes.PUBLIC_KEY, label=label)
            point = bytes(public[pkcs11.Attribute.EC_POINT])
        except (pkcs11.PKCS11Error, RuntimeError) as error:
            raise SignerError(f"key {label} in token {token}: {type(error).__name__} {error}") from error
        # An octet string around an uncompressed point.
        self._public = PublicKey(point[-64:])

    @property
    def address(self) -> bytes:
        return self._public.to_canonical_address()

    def sign(self, digest: bytes) -> Signature:
        try:
            raw = bytes(self._key.sign(digest, mechanism=self._pkcs11.Mechanism.ECDSA))
        except self._pkcs11.PKCS11Error as error:
            raise SignerError(f"the token did not sign: {type(error).__name__}") from error
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        return self._recoverable(digest, r, min(s, ORDER - s))

    def _recoverable(self, digest: bytes, r: int, s: int) -> Signature:
        """A token says r and s, a chain wants to know which of two points it was."""
        for parity in (0, 1):
            signature = Signature(vrs=(parity, r, s))
            try:
                if signature.recover_public_key_from_msg_hash(digest) == self._public:
                    return signature
            except BadSignature:
                continue
        raise SignerError("the token's signature is not its key's")

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Policies

Content = Transaction | bytes
"""What is to be signed: a transaction, or a digest of EIP-712."""


@dataclass(frozen=True, slots=True)
class Request:
    """`purpose` names the row that is the reason (`settlement/plans.py`); `facts` are what the row cannot know."""

    purpose: str
    content: Content
    facts: tuple[Any, ...] = ()

    @property
    def digest(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.digest


class Policy(Protocol):
    """What may be signed."""

    def check(self, request: Request) -> bytes:
        """The digest to sign, worked out from the policy's own sources. Raises Refused."""


class Guard:
    """A signer behind a policy: the only way to a key."""

    def __init__(self, signer: Signer, policy: Policy) -> None:
        self._signer = signer
        self._policy = policy

    @property
    def address(self) -> bytes:
        return self._signer.address

    def sign(self, request: Request) -> Signature:
        """Raises Refused, SignerError."""
        digest = self._policy.check(request)
        if digest != request.digest:
            raise Refused(f"{request.purpose}: asked to sign {request.digest.hex()}, the ledger says {digest.hex()}")
        return self._signer.sign(digest)
