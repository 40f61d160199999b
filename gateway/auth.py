"""Keys: who may log on, as whom, and to do what.

The exchange keeps public keys only, in one JSON file; a private key is written once, to its owner's own file. A stolen
key store cannot trade. A log-on signs the server's challenge, so nothing that was overheard can be used again.
"""

import base64
import binascii
import ipaddress
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.messages import PROTO

SCOPES = ("read", "trade", "quote", "withdraw", "provide", "admin")
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,40}", re.ASCII)


class KeyStoreError(ValueError):
    """The key store, a key file or a request to change them is wrong."""


@dataclass(frozen=True, slots=True)
class Key:
    """A row of the key store. `serial` numbers the keys from 1 and is never reused: it marks the key's orders."""

    id: str
    serial: int
    account: str
    public_key: str  # base64 of 32 bytes
    scopes: tuple[str, ...]
    ips: tuple[str, ...] = ()  # addresses or networks; none: from anywhere

    def allows_ip(self, ip: str) -> bool:
        """Whether a log-on may come from this address."""
        if not self.ips:
            return True
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return False
        return any(address in ipaddress.ip_network(network, strict=False) for network in self.ips)


def generate_key() -> tuple[str, str]:
    """A new Ed25519 pair (private, public), each base64 of 32 bytes."""
    private = Ed25519PrivateKey.generate()
    return _text(private.private_bytes_raw()), _text(private.public_key().public_bytes_raw())


def public_key(private_key: str) -> str:
    """The public half of a private key. Raises KeyStoreError when it is none."""
    return _text(_private(private_key).public_key().public_bytes_raw())


def sign(private_key: str, challenge: str, key_id: str, ts_us: int) -> str:
    """The `sig` of a log-on. Raises KeyStoreError when the private key is none."""
    return _text(_private(private_key).sign(_signed_text(challenge, key_id, ts_us)))


def verify(key: Key, challenge: str, ts_us: int, signature: str) -> bool:
    """Whether the signature is the key's over this challenge and time."""
    try:
        public = Ed25519PublicKey.from_public_bytes(_bytes(key.public_key))
        public.verify(_bytes(signature), _signed_text(challenge, key.id, ts_us))
    except (InvalidSignature, KeyStoreError, ValueError):
        return False
    return True


def write_private_key(path: Path, key_id: str, account: str, private_key: str) -> None:
    """Write a client's key file, readable by its owner only. Raises FileExistsError rather than overwrite one."""
    data = json.dumps({"key": key_id, "account": account, "private_key": private_key}, indent=2) + "\n"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(data)


def read_private_key(path: Path) -> tuple[str, str]:
    """The key id and the private key of a client's key file. Raises KeyStoreError when it is not one."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return str(fields["key"]), str(fields["private_key"])
    except (KeyError, TypeError, ValueError) as error:
        raise KeyStoreError(f"{path}: not a key file ({error!r})") from error


class KeyStore:
    """The public keys in a JSON file. Read again whenever the file changes; written whole, then renamed into place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = 0  # how often the file was read
        self._keys: dict[str, Key] = {}
        self._next_serial = 1
        self._stamp: tuple[int, int, int] | None = None
        self.reload()

    def get(self, key_id: str) -> Key | None:
        """The key with this id, None when there is none (any more)."""
        self.reload()
        return self._keys.get(key_id)

    def keys(self) -> list[Key]:
        """All keys, in the order they were made."""
        self.reload()
        return sorted(self._keys.values(), key=lambda key: key.serial)

    def create(  # noqa: PLR0913
        self,
        key_id: str,
        account: str,
        *,
        scopes: tuple[str, ...] = ("read", "trade"),
        ips: tuple[str, ...] = (),
        public: str | None = None,
        private_path: Path | None = None,
    ) -> str | None:
        """Add a key. With `public` the client made the pair and keeps the private half; otherwise it is made here and
        returned, or written to `private_path`. Raises KeyStoreError for a bad name, scope, address or an id in use.
        """
        self.reload()
        if key_id in self._keys:
            raise KeyStoreError(f"there is a key {key_id!r} already")
        private = None
        if public is None:
            private, public = generate_key()
        key = _checked(Key(key_id, self._next_serial, account, public, tuple(scopes), tuple(ips)))
        if private is not None and private_path is not None:
            write_private_key(private_path, key_id, account, private)
            private = None
        self._write({**self._keys, key_id: key}, self._next_serial + 1)
        return private

    def revoke(self, key_id: str) -> None:
        """Remove a key; its sessions are closed. Raises KeyStoreError when there is none."""
        self.reload()
        if key_id not in self._keys:
            raise KeyStoreError(f"there is no key {key_id!r}")
        self._write({name: key for name, key in self._keys.items() if name != key_id}, self._next_serial)

    def reload(self) -> bool:
        """Read the file if it changed; whether it did. Raises KeyStoreError when it cannot be read."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return False
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            keys = [_key(row) for row in content["keys"]]
            self._next_serial = int(content["next_serial"])
        except (KeyError, TypeError, ValueError) as error:
            raise KeyStoreError(f"{self.path}: {error}") from error
        self._keys = {key.id: key for key in keys}
        self._stamp = stamp
        self.version += 1
        return True

    def _write(self, keys: dict[str, Key], next_serial: int) -> None:
        content = {"next_serial": next_serial, "keys": [asdict(key) for key in keys.values()]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(self.path)  # the rename comes last: a reader sees the old file or the new one
        self.reload()


def _key(row: dict[str, Any]) -> Key:
    return _checked(Key(**{**row, "scopes": tuple(row["scopes"]), "ips": tuple(row["ips"])}))


def _checked(key: Key) -> Key:
    for what, name in (("key id", key.id), ("account", key.account)):
        if not _NAME.fullmatch(name):
            raise KeyStoreError(f"{what} {name!r}: 1 to 40 of letters, digits and . _ : -")
    if not key.scopes or not set(key.scopes) <= set(SCOPES):
        raise KeyStoreError(f"scopes {list(key.scopes)}: one or more of {', '.join(SCOPES)}")
    for network in key.ips:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise KeyStoreError(f"ip {network!r}: {error}") from error
    Ed25519PublicKey.from_public_bytes(_bytes(key.public_key))
    return key


def _signed_text(challenge: str, key_id: str, ts_us: int) -> bytes:
    return f"{PROTO}\n{challenge}\n{key_id}\n{ts_us}".encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyStoreError(f"not base64: {error}") from error


def _private(text: str) -> Ed25519PrivateKey:
    try:
        return Ed25519PrivateKey.from_private_bytes(_bytes(text))
    except ValueError as error:
        raise KeyStoreError(f"not an Ed25519 private key: {error}") from error
