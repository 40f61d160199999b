"""Keys in memory, in a keystore, in a PKCS#11 token; and the policy before them."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.flows import Destination, Route, payout_command, withdraw_command
from settlement.outbox import hash_of
from settlement.plans import LedgerPolicy, authorization, withdrawal_plan
from settlement.signer import (
    ORDER,
    SECP256K1,
    Guard,
    KeystoreSigner,
    MemorySigner,
    Refused,
    Request,
    Signer,
    SignerError,
    TokenSigner,
    Transaction,
    make_keystore,
    wire,
)
from tests.settlement.chain.rig import DOLLAR, Rig

SECRET = b"\x42" * 32
PIN = "1234"


@settings(max_examples=20)
@given(st.integers(0, 2**63), st.binary(max_size=200), st.integers(21_000, 2**24), st.integers(1, 2**40))
def test_a_transaction_is_the_one_a_library_would_make(nonce: int, data: bytes, gas: int, fee: int) -> None:
    signer = MemorySigner(SECRET)
    ours = Transaction(31337, nonce, b"\x11" * 20, data, gas, fee, fee // 2)
    raw = ours.raw(signer.sign(ours.digest))
    fields = dict(chainId=31337, nonce=nonce, to=b"\x11" * 20, data=data, gas=gas, maxFeePerGas=fee, value=0, type=2)
    theirs = Account.sign_transaction({**fields, "maxPriorityFeePerGas": fee // 2}, SECRET)
    assert raw == bytes(theirs.raw_transaction)
    assert hash_of(raw) == bytes(theirs.hash)


def test_a_keystore_is_encrypted_private_and_needs_its_password(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    address = make_keystore(path, "open sesame", SECRET, rounds=2)
    assert address == MemorySigner(SECRET).address
    assert path.stat().st_mode & 0o077 == 0
    assert SECRET.hex() not in path.read_text()
    assert json.loads(path.read_text())["version"] == 3
    assert KeystoreSigner(path, "open sesame").sign(b"\x01" * 32) == MemorySigner(SECRET).sign(b"\x01" * 32)
    with pytest.raises(SignerError, match=r"key\.json"):
        KeystoreSigner(path, "open says me")
    with pytest.raises(FileExistsError):
        make_keystore(path, "another")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenSigner]:
    """A key pair in a SoftHSM token. The library reads its configuration once in a process."""
    tmp_path, monkeypatch = tmp_path_factory.mktemp("hsm"), pytest.MonkeyPatch()
    library = next((path for path in map(Path, LIBRARIES) if path.exists()), None)
    if library is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM is not installed here (Debian: softhsm2)")
    pkcs11 = pytest.importorskip("pkcs11")
    (tmp_path / "tokens").mkdir()
    config = tmp_path / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(config))
    command = ["softhsm2-util", "--init-token", "--free", "--label", "wellhead", "--pin", PIN, "--so-pin", PIN]
    subprocess.run(command, check=True, capture_output=True, env=dict(os.environ))
    with pkcs11.lib(str(library)).get_token(token_label="wellhead").open(rw=True, user_pin=PIN) as session:
        curve = {pkcs11.Attribute.EC_PARAMS: SECP256K1}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        parameters.generate_keypair(store=True, label="settler")
    with TokenSigner(str(library), "wellhead", "settler", PIN) as signer:
        yield signer
    monkeypatch.undo()


LIBRARIES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so")


def test_a_key_in_a_token_signs_what_a_chain_accepts(token: TokenSigner) -> None:
    for number in range(8):  # of both parities, and with s in either half
        digest = number.to_bytes(32, "big")
        signature = token.sign(digest)
        assert signature.s <= ORDER // 2
        assert signature.recover_public_key_from_msg_hash(digest).to_canonical_address() == token.address
        assert wire(signature)[64] in {27, 28}
    transaction = Transaction(1, 0, b"\x11" * 20, b"data", 50_000, 9, 1)
    raw = transaction.raw(token.sign(transaction.digest))
    assert bytes.fromhex(Account.recover_transaction(raw)[2:]) == token.address


def test_a_token_with_a_wrong_pin_or_label_is_refused(token: TokenSigner) -> None:
    library = next(path for path in LIBRARIES if Path(path).exists())
    with pytest.raises(SignerError, match="nobody"):
        TokenSigner(library, "wellhead", "nobody", PIN)


class Recorder(MemorySigner):
    """Remembers what it was made to sign."""

    def __init__(self) -> None:
        super().__init__(SECRET)
        self.signed: list[bytes] = []

    def sign(self, digest: bytes):  # type: ignore[no-untyped-def]
        self.signed.append(digest)
        return super().sign(digest)


@pytest.fixture
def asked(rig: Rig) -> tuple[Rig, LedgerPolicy, Recorder]:
    """A member with a withdrawal of 30 dollars waiting, and a key behind a policy."""
    alice = rig.members[0]
    rig.deposit(alice, 100 * DOLLAR)
    rig.run(2)
    rig.withdraw(alice, 30 * DOLLAR, to=b"\x77" * 20)
    policy = rig.policy()
    assert isinstance(policy, LedgerPolicy)
    return rig, policy, Recorder()


def request_of(rig: Rig, **changes: object) -> Request:
    """The honest request for the waiting withdrawal, or one in which the row was shown with something else."""
    (row,) = rig.custody.flows.waiting()
    shown = replace(row, **changes)  # type: ignore[arg-type]
    deadline_s = rig.now_s() + 60
    digest = authorization(rig.token, shown, deadline_s).digest(rig.token.vault_domain)
    return Request(f"withdrawal:{row.seq}", digest, (deadline_s,))


def test_what_the_ledger_says_is_signed(asked: tuple[Rig, LedgerPolicy, Recorder]) -> None:
    rig, policy, key = asked
    request = request_of(rig)
    Guard(key, policy).sign(request)
    assert key.signed == [request.digest]


@pytest.mark.parametrize(
    "change",
    [{"recipient": b"\x66" * 20}, {"quantity_micros": 30 * DOLLAR + 1}, {"home": b"\x66" * 20}, {"seq": 1}],
    ids=str,
)
def test_bytes_other_than_the_ledgers_are_not_signed(
    asked: tuple[Rig, LedgerPolicy, Recorder], change: dict[str, object]
) -> None:
    rig, policy, key = asked
    with pytest.raises(Refused, match="asked to sign"):
        Guard(key, policy).sign(request_of(rig, **change))
    assert key.signed == []


def test_a_transaction_is_worked_out_again_too(asked: tuple[Rig, LedgerPolicy, Recorder]) -> None:
    rig, policy, key = asked
    (row,) = rig.custody.flows.waiting()
    plan = withdrawal_plan(rig.token, row, rig.now_s() + 60, {"0x" + "11" * 20: b"\x01" * 65})
    honest = Transaction(plan.chain_id, 0, plan.target, plan.data, 300_000, 10**10, 10**9)
    guard = Guard(key, policy)
    guard.sign(Request(plan.purpose, honest, plan.facts))
    for dishonest in (
        replace(honest, data=plan.data[:-1] + b"\x01"),
        replace(honest, to=b"\x66" * 20),
        replace(honest, chain_id=plan.chain_id + 1),
        replace(honest, max_fee_wei=10**15),
        replace(honest, gas=2**30),
    ):
        with pytest.raises(Refused):
            guard.sign(Request(plan.purpose, dishonest, plan.facts))
    assert len(key.signed) == 1


def test_nothing_is_signed_without_a_reason_in_the_ledger(asked: tuple[Rig, LedgerPolicy, Recorder]) -> None:
    rig, policy, key = asked
    guard, (row,) = Guard(key, policy), rig.custody.flows.waiting()
    honest = request_of(rig)
    for purpose in ("withdrawal:1", "withdrawal:999999", "withdrawal:x", "chunk:1:1:0", "propose:1:1:1", "gift:1"):
        with pytest.raises(Refused):
            guard.sign(Request(purpose, honest.content, honest.facts))
    with pytest.raises(Refused, match="deadline"):
        guard.sign(Request(honest.purpose, honest.content, (rig.now_s() + 10**6,)))
    rig.venue.send(payout_command(row, b"\x01" * 32))
    with pytest.raises(Refused, match="PAID"):
        guard.sign(honest)
    assert key.signed == []


def test_a_payout_of_a_batch_is_not_signed_as_a_single_one(asked: tuple[Rig, LedgerPolicy, Recorder]) -> None:
    rig, policy, key = asked
    destination = Destination(b"\x77" * 20, b"\x77" * 20, Route.BATCH, 1)
    rig.venue.send(withdraw_command(1, 1, DOLLAR, destination))
    row = rig.custody.flows.waiting()[-1]
    digest = authorization(rig.token, row, rig.now_s() + 60).digest(rig.token.vault_domain)
    with pytest.raises(Refused, match="BATCH"):
        Guard(key, policy).sign(Request(f"withdrawal:{row.seq}", digest, (rig.now_s() + 60,)))


def test_signers_have_addresses(tmp_path: Path) -> None:
    signer: Signer = MemorySigner(SECRET)
    assert signer.address == bytes.fromhex(Account.from_key(SECRET).address[2:])
