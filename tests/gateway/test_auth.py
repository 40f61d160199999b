"""Keys: who is let in, and what is never written down."""

import json
import stat
from pathlib import Path

import pytest

from gateway import auth
from gateway.auth import Key, KeyStore, KeyStoreError, generate_key, sign, verify


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.json")


def test_a_signature_is_over_challenge_key_and_time(store: KeyStore) -> None:
    private = store.create("mm7", "alice")
    assert private is not None
    key = store.get("mm7")
    assert key is not None
    signature = sign(private, "abc", "mm7", 17)
    assert verify(key, "abc", 17, signature)
    assert not verify(key, "abd", 17, signature)
    assert not verify(key, "abc", 18, signature)
    assert not verify(key, "abc", 17, sign(generate_key()[0], "abc", "mm7", 17))
    assert not verify(key, "abc", 17, "not base64!")
    assert not verify(key, "abc", 17, "")


def test_a_known_signature() -> None:
    """RFC 8032's first secret key; Ed25519 is deterministic, so another implementation must give the same."""
    secret = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
    assert auth.public_key(secret) == "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    signature = sign(secret, "c" * 8, "k", 1)
    key = Key("k", 1, "a", auth.public_key(secret), ("read",))
    assert verify(key, "c" * 8, 1, signature)


def test_the_store_keeps_no_private_key(store: KeyStore, tmp_path: Path) -> None:
    private = store.create("mm7", "alice")
    assert private is not None
    assert private not in store.path.read_text()
    path = tmp_path / "own.json"
    assert store.create("mm8", "alice", private_path=path) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key_id, secret = auth.read_private_key(path)
    assert key_id == "mm8"
    assert secret not in store.path.read_text()
    with pytest.raises(FileExistsError):
        auth.write_private_key(path, "x", "y", secret)


def test_a_client_may_keep_its_private_key_to_itself(store: KeyStore) -> None:
    private, public = generate_key()
    assert store.create("own", "alice", public=public) is None
    key = store.get("own")
    assert key is not None
    assert verify(key, "c", 1, sign(private, "c", "own", 1))


def test_serials_are_never_used_again(store: KeyStore) -> None:
    store.create("a", "x")
    store.create("b", "x")
    store.revoke("b")
    store.create("c", "x")
    assert [(key.id, key.serial) for key in store.keys()] == [("a", 1), ("c", 3)]  # noqa: SIM118
    assert [key.id for key in KeyStore(store.path).keys()] == ["a", "c"]  # noqa: SIM118


def test_changes_of_the_file_are_seen(store: KeyStore) -> None:
    other = KeyStore(store.path)
    store.create("a", "x")
    assert other.get("a") is not None
    store.revoke("a")
    assert other.get("a") is None
    assert not other.reload()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"key_id": "a b"}, "key id"),
        ({"key_id": "x" * 41}, "key id"),
        ({"account": ""}, "account"),
        ({"scopes": ("trade", "fly")}, "scopes"),
        ({"scopes": ()}, "scopes"),
        ({"ips": ("300.1.1.1",)}, "ip"),
        ({"public": "AAAA"}, "32 bytes"),
        ({"public": "?"}, "base64"),
    ],
)
def test_bad_keys_change_nothing(store: KeyStore, fields: dict[str, object], why: str) -> None:
    arguments = {"key_id": "a", "account": "x", **fields}
    with pytest.raises(ValueError, match=why):
        store.create(**arguments)  # type: ignore[arg-type]
    assert store.keys() == []
    assert not store.path.exists()


def test_unknown_and_double_ids(store: KeyStore) -> None:
    store.create("a", "x")
    with pytest.raises(KeyStoreError, match="already"):
        store.create("a", "y")
    with pytest.raises(KeyStoreError, match="no key"):
        store.revoke("b")


def test_a_damaged_file_is_named(store: KeyStore) -> None:
    store.path.write_text(json.dumps({"keys": [{"id": "a"}], "next_serial": 1}))
    with pytest.raises(KeyStoreError, match=r"keys\.json"):
        store.reload()


def test_addresses() -> None:
    key = Key("k", 1, "a", "", ("read",), ("10.0.0.0/8", "::1"))
    assert key.allows_ip("10.2.3.4")
    assert key.allows_ip("::1")
    assert not key.allows_ip("11.0.0.1")
    assert not key.allows_ip("")
