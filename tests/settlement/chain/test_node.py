"""Custody beside a running node: what members may ask of it, the file it starts from, and the demo's own chain."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from eth_utils.address import to_checksum_address

from engine.catalogue import NS, Catalogue, pack_id
from engine.types import COMMAND, TRANSFER, Kind
from settlement.abi import interface
from settlement.deposits import account_ref
from settlement.embedded import Deployer, development_roles
from settlement.flows import WithdrawalState
from settlement.signer import MemorySigner, SignerError, make_keystore
from settlement.stablecoins import RegistryError
from tests.settlement.chain.anvil import FINALITY, SECRETS, Site
from wellhead.audit import audit
from wellhead.chainfile import ChainFile
from wellhead.clock import accelerated_clock
from wellhead.config import Config
from wellhead.custody import Custodian, MoneyDesk, MoneyError, withdraw
from wellhead.demo.treasury import Treasury
from wellhead.node import Node

START_NS = 1_795_000_000 * NS
DOLLAR = 1_000_000
TO = to_checksum_address(b"\x77" * 20)


def opened_accounts(count: int) -> np.ndarray:
    rows = np.zeros(count, TRANSFER)
    rows["kind"], rows["account"] = Kind.OPEN_ACCOUNT, np.arange(count) + 1
    for number in range(count):
        rows["external_id"][number] = pack_id(f"member-{number}")
    return rows.view(COMMAND)


def chain_file(site: Site, directory: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> Path:
    """The file of `serve --chain` for the contracts of a site, with keys of both kinds."""
    token, roles = site.coins.tokens[1], development_roles(SECRETS)
    secrets = {MemorySigner(secret).address: secret for secret in SECRETS}
    (directory / "settler.json").unlink(missing_ok=True)
    make_keystore(directory / "settler.json", "a password", secrets[roles.settler.address], rounds=2)
    monkeypatch.setenv("SETTLER_PASSWORD", "a password")
    for name, signer in (("ROOTS", roles.root_setter), ("ONE", roles.signers[0]), ("TWO", roles.signers[1])):
        monkeypatch.setenv(name, secrets[signer.address].hex())
    text = f"""
    [[issuer]]
    name = "nobody"
    status = [ {{ since = 2025-01-01, status = "permitted" }} ]
    [[chain]]
    name = "anvil"
    chain_id = {token.network.chain_id}
    url = "{site.node.url}"
    [[token]]
    number = 1
    symbol = "TUSD"
    chain = "anvil"
    issuer = "nobody"
    address = "{to_checksum_address(token.address)}"
    vault = "{to_checksum_address(token.vault)}"
    decimals = 6
    name = "{token.name}"
    version = "2"
    code_hash = "0x{token.code_hash.hex()}"
    vault_code_hash = "0x{token.vault_code_hash.hex()}"
    [keys.anvil]
    settler = {{ keystore = "settler.json", password_env = "SETTLER_PASSWORD" }}
    root_setter = {{ secret_env = "ROOTS" }}
    signers = [ {{ secret_env = "ONE" }}, {{ secret_env = "TWO" }} ]
    """
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = directory / "chain.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("books", ["in a file", "in PostgreSQL"])
async def test_a_member_deposits_and_withdraws_through_a_running_node(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, books: str
) -> None:
    site.again()
    ledger = request.getfixturevalue("place") if books == "in PostgreSQL" else ""
    catalogue = Catalogue.load()
    config = Config(tmp_path / "data", port=0, markets=("H100S-USE",), list_hours=1, ledger=ledger, books_pause_ms=0)
    file = ChainFile.load(chain_file(site, tmp_path, monkeypatch))
    node = Node(config, catalogue, accelerated_clock(START_NS, 1))
    await node.start()
    custodian = Custodian(
        node, lambda place: file.custody(place, catalogue.venue, lambda: site.node.chain.head().timestamp_s), 0.05
    )
    try:
        await custodian.start()
        await node.execute(opened_accounts(1))
        wallet = MemorySigner(SECRETS[5])
        desk = MoneyDesk(config.settlement_dir, file.coins, catalogue.venue)
        (place,) = desk.addresses(1)
        assert place.ref == "0x" + account_ref(catalogue.venue, 1).hex()
        with pytest.raises(MoneyError) as refused:
            desk.withdrawal(1, 1, DOLLAR, TO)
        assert refused.value.code == "NO_HOME"
        deposit(site, wallet, place.vault, place.ref)
        await steps(site, custodian, 3)
        assert int(node.exchange.engine.memory.arrays["accounts"]["cash_micros"][1]) == 0
        desk.set_home(1, to_checksum_address(wallet.address))
        for wrong in (TO, "nobody", place.vault, to_checksum_address(bytes(20))):
            with pytest.raises(MoneyError, match=r"cannot be changed|not an address|own address"):
                desk.set_home(1, wrong)
        await steps(site, custodian, 1)
        assert int(node.exchange.engine.memory.arrays["accounts"]["cash_micros"][1]) == 100 * DOLLAR
        for command_of, code in wrong_withdrawals(desk, place.vault):
            with pytest.raises(MoneyError) as refused:
                command_of()
            assert refused.value.code == code
        with pytest.raises(MoneyError) as refused:
            await withdraw(node, desk.withdrawal(1, 1, 101 * DOLLAR, TO))
        assert refused.value.code == "INSUFFICIENT_FUNDS"
        seq = await withdraw(node, desk.withdrawal(1, 1, 30 * DOLLAR, TO))
        await steps(site, custodian, 4)
        (row,) = [row for row in desk.withdrawals(1) if row.state != WithdrawalState.REFUSED]
        assert (row.seq, row.state) == (seq, WithdrawalState.PAID)
        assert custodian.custody.halts.open() == []
    finally:
        await custodian.stop()
        await node.stop()
    assert audit(config.data_dir).differences == []


def deposit(site: Site, wallet: MemorySigner, vault: str, ref: str) -> None:
    coin, token = interface("TestDollar"), site.coins.tokens[1]
    owner = Deployer(site.node.chain, MemorySigner(SECRETS[0]))
    member = Deployer(site.node.chain, wallet)
    owner.call(coin, token.address, "mint", to_checksum_address(wallet.address), 100 * DOLLAR)
    member.call(coin, token.address, "approve", vault, 100 * DOLLAR)
    member.call(interface("Vault"), token.vault, "deposit", 100 * DOLLAR, bytes.fromhex(ref[2:]))


async def steps(site: Site, custodian: Custodian, count: int) -> None:
    for _ in range(count):
        await custodian.step()
        await books_follow(custodian._node)
        site.node.mine(FINALITY)


async def books_follow(node: Node) -> None:
    """The books run behind the market; wait until they have what it has."""
    while node.exchange.settlement.applied_seq < node.exchange.engine.applied_seq:
        await asyncio.sleep(0.001)


def wrong_withdrawals(desk: MoneyDesk, vault: str):  # type: ignore[no-untyped-def]
    yield lambda: desk.withdrawal(1, 2, DOLLAR, TO), "NOT_A_TOKEN"
    yield lambda: desk.withdrawal(1, 1, DOLLAR - 1, TO), "BAD_AMOUNT"
    yield lambda: desk.withdrawal(1, 1, 10**15, TO), "BAD_AMOUNT"
    yield lambda: desk.withdrawal(1, 1, DOLLAR, TO.lower().replace("7", "a")), "BAD_ADDRESS"
    yield lambda: desk.withdrawal(1, 1, DOLLAR, "nobody"), "BAD_ADDRESS"
    yield lambda: desk.withdrawal(1, 1, DOLLAR, vault), "BAD_ADDRESS"
    yield lambda: desk.withdrawal(1, 1, DOLLAR, to_checksum_address(bytes(20))), "BAD_ADDRESS"
    yield lambda: desk.withdrawal(1, 1, DOLLAR, TO, by_claim=True), "BAD_ADDRESS"


def test_a_chain_file_without_its_keys_is_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = chain_file(site, tmp_path, monkeypatch, **{"keys.anvil": "keys.other"})
    with pytest.raises(RegistryError, match="has no keys"):
        ChainFile.load(path)
    assert ChainFile.load(chain_file(site, tmp_path, monkeypatch)).keys["anvil"].guardian is None
    stops = 'guardian = { secret_env = "ONE" }\nlocker = { secret_env = "TWO" }\nsigners ='
    keys = ChainFile.load(chain_file(site, tmp_path, monkeypatch, **{"signers =": stops})).keys["anvil"]
    assert (keys.guardian, keys.locker) != (None, None)
    path = chain_file(site, tmp_path, monkeypatch, **{'secret_env = "ONE"': 'secret_env = "NOT_SET"'})
    with pytest.raises(SignerError, match="NOT_SET is not set"):
        ChainFile.load(path)
    path = chain_file(site, tmp_path, monkeypatch)
    monkeypatch.setenv("SETTLER_PASSWORD", "another")
    with pytest.raises(SignerError, match="settler"):
        ChainFile.load(path)


@pytest.mark.parametrize(("where", "pause_ms"), [("in-process EVM (py-evm)", 1_500), ("a node", 40)])
async def test_a_market_settles_on_a_chain(
    where: str, pause_ms: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """What the demo does: deposits by authorization, cycles, the last one's root in force, everything compared. However late
    the books are, it does not take more steps.
    """
    monkeypatch.setattr("wellhead.demo.treasury.MAX_STEPS", 20)
    url = None if where.startswith("in-process") else request.getfixturevalue("site").node.url
    config = Config(tmp_path / "data", port=0, markets=("H100S-USE",), list_hours=1, books_pause_ms=pause_ms)
    node = Node(config, clock=accelerated_clock(START_NS, 1))  # within one cycle, but for the two that are ended here
    await node.start()
    treasury = Treasury(node, node.catalogue, url)
    try:
        await node.execute(opened_accounts(2))
        await treasury.open([20_000_000 * DOLLAR, 5 * DOLLAR])
        end = np.zeros(1, COMMAND)
        end["kind"] = Kind.CLOSE_CYCLE
        await node.execute(end)
        await node.execute(end)
        await treasury.settle()
    finally:
        await treasury.close()
        await node.stop()
    assert treasury.lines[0].startswith(url or where)
    assert "of cycle 2" in treasury.lines[-2]
    assert "engine == ledger == chain: ok" in treasury.lines[-1]
    assert "20,000,005.00 USD" in treasury.lines[-1]
    assert audit(config.data_dir).differences == []
