"""Signatures and trees against published values and other people's code; artefacts against their sources."""

import json
import re
from importlib.metadata import version

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from settlement.abi import CONTRACTS, AbiError, interface, revert_reason, selector, signature
from settlement.typed_data import RECEIVE, TRANSFER, Authorization, Domain, Permit, struct_hash
from settlement.vault import ClaimTree, Leaf, Withdrawal, leaf_hash, parent_hash, root_of, vault_domain
from tests.settlement.contracts.build import SHIPPED, artefact, as_json, compile_source
from tests.settlement.evm import person
from tests.settlement.vaults import ALICE, BOB, CAROL, SIGNERS, Stage

VAULT = vault_domain(1, "0x" + "5a" * 20)
TOKEN = Domain("USD Coin", "2", 1, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48")


# EIP-712


def test_the_mail_of_eip_712() -> None:
    """The specification's example: a mail from a cow, signed with the hash of the word cow."""
    domain = Domain("Ether Mail", "1", 1, "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC")
    assert domain.separator.hex() == "f2cee375fa42b42143804025fc449deafd50cc031ca257e0b194a650a912090f"
    kind = "Person(string name,address wallet)"
    people = [
        struct_hash(kind, ["bytes32", "address"], [keccak(text=name), wallet])
        for name, wallet in [
            ("Cow", "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"),
            ("Bob", "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"),
        ]
    ]
    assert people[0].hex() == "fc71e5fa27ff56c350aa531bc129ebdf613b772b6604664f5d8dbe21b85eb0c8"
    assert people[1].hex() == "cd54f074a4af31b4411ff6a60c9719dbd559c221c8ac3492d9d872b041d703d1"
    mail = struct_hash(
        f"Mail(Person from,Person to,string contents){kind}", ["bytes32"] * 3, [*people, keccak(text="Hello, Bob!")]
    )
    assert mail.hex() == "c52c0ee5d84264471806290a3f2c4cecfc5490626bf912d01f240d7a274b371e"
    digest = domain.digest(mail)
    assert digest.hex() == "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2"
    signed = Account.from_key(keccak(text="cow")).unsafe_sign_hash(digest)
    assert signed.v == 28
    assert f"{signed.r:064x}" == "4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d"
    assert f"{signed.s:064x}" == "07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b91562"


def test_the_domain_of_the_dollar_everyone_uses() -> None:
    """What USDC on the Ethereum main net returns from DOMAIN_SEPARATOR()."""
    assert TOKEN.separator.hex() == "06c37168a7db5138defc7866392bb87a741f9b3d104deb5094588ce041cae335"


def test_type_hashes_of_the_specifications() -> None:
    token = interface("TestDollar")
    assert keccak(text=RECEIVE).hex() == "d099cc98ef71107a616c4f0f941f04c322d8e254fe26b3c6668db87aae413de8"
    assert keccak(text=TRANSFER).hex() == "7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267"
    stage = Stage()
    assert {
        name: stage.token.read(name).hex()
        for name in sorted(entry["name"] for entry in token.abi if "TYPEHASH" in entry.get("name", ""))
    } == {
        "CANCEL_AUTHORIZATION_TYPEHASH": "158b0a9edf7a828aad02f63cd515c68ef2f50ba807396f6d12842833a1597429",
        "PERMIT_TYPEHASH": "6e71edae12b1b97f4d1f60370fef10105fa2faae0126114a169c64845d6126c9",
        "RECEIVE_WITH_AUTHORIZATION_TYPEHASH": keccak(text=RECEIVE).hex(),
        "TRANSFER_WITH_AUTHORIZATION_TYPEHASH": keccak(text=TRANSFER).hex(),
    }


def typed(domain: Domain, kind: str, fields: dict[str, str], message: dict[str, object]) -> bytes:
    """The digest that eth-account makes of the same message, from its description as JSON wallets get it."""
    signable = encode_typed_data(
        {
            "name": domain.name,
            "version": domain.version,
            "chainId": domain.chain_id,
            "verifyingContract": domain.contract,
        },
        {kind: [{"name": name, "type": of} for name, of in fields.items()]},
        message,
    )
    return keccak(b"\x19" + signable.version + signable.header + signable.body)


units = st.integers(0, 2**256 - 1)
words = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20).map(lambda data: "0x" + data.hex())


@given(words, addresses, addresses, units, units)
def test_a_withdrawal_is_signed_as_wallets_sign_it(
    id: bytes, account: str, recipient: str, amount: int, deadline: int
) -> None:
    fields = {"id": "bytes32", "account": "address", "recipient": "address", "units": "uint256", "deadline": "uint256"}
    message = dict(zip(fields, (id, account, recipient, amount, deadline), strict=True))
    assert Withdrawal(id, account, recipient, amount, deadline).digest(VAULT) == typed(
        VAULT, "Withdrawal", fields, message
    )


@given(addresses, addresses, units, units, units)
def test_a_permit_is_signed_as_wallets_sign_it(owner: str, spender: str, value: int, nonce: int, deadline: int) -> None:
    fields = {"owner": "address", "spender": "address", "value": "uint256", "nonce": "uint256", "deadline": "uint256"}
    message = dict(zip(fields, (owner, spender, value, nonce, deadline), strict=True))
    assert Permit(owner, spender, value, nonce, deadline).digest(TOKEN) == typed(TOKEN, "Permit", fields, message)


@given(addresses, addresses, units, units, units, words)
def test_an_authorization_is_signed_as_wallets_sign_it(
    payer: str, payee: str, value: int, after: int, before: int, nonce: bytes
) -> None:
    fields = {"from": "address", "to": "address", "value": "uint256"}
    fields |= {"validAfter": "uint256", "validBefore": "uint256", "nonce": "bytes32"}
    values = (payer, payee, value, after, before, nonce)
    message = dict(zip(fields, values, strict=True))
    for kind in (RECEIVE, TRANSFER):
        ours = Authorization(*values).digest(TOKEN, kind)
        assert ours == typed(TOKEN, kind.partition("(")[0], fields, message)


# Trees


def test_the_tree_of_openzeppelins_manual() -> None:
    """@openzeppelin/merkle-tree: two leaves (address, uint256), hashed twice, pairs sorted."""
    values = [("0x" + "11" * 20, 5 * 10**18), ("0x" + "22" * 20, 25 * 10**17)]
    one, other = (keccak(keccak(encode(["address", "uint256"], value))) for value in values)
    root = "d4dee0beab2d53f2cc83e567171bd2820e49898130a22622b10ead383e90bd77"
    assert parent_hash(one, other).hex() == parent_hash(other, one).hex() == root


def test_a_leaf_written_out() -> None:
    stated = VAULT.separator + (3).to_bytes(32, "big") + bytes(12) + bytes.fromhex(ALICE.address[2:])
    stated += (5).to_bytes(32, "big") + (8).to_bytes(32, "big")
    assert leaf_hash(VAULT, 3, Leaf(ALICE.address, 5, 8)) == keccak(keccak(stated))


def test_a_tree_of_three_written_out() -> None:
    tree = ClaimTree(VAULT, 1, [Leaf(key.address, 1, 2) for key in (ALICE, BOB, CAROL)])
    first, second, third = (leaf_hash(VAULT, 1, leaf) for leaf in tree.leaves)
    assert tree.root == parent_hash(parent_hash(first, second), third)
    assert tree.proof(tree.leaves[2].account) == [parent_hash(first, second)]
    assert tree.proof(tree.leaves[0].account) == [second, third]


@given(st.integers(1, 40), st.integers(1, 5))
def test_every_leaf_proves_itself_and_nothing_else(count: int, epoch: int) -> None:
    leaves = [Leaf(f"0x{number + 1:040x}", number, 2 * number) for number in range(count)]
    tree = ClaimTree(VAULT, epoch, leaves)
    for leaf in leaves:
        proof = tree.proof(leaf.account)
        assert root_of(leaf_hash(VAULT, epoch, leaf), proof) == tree.root
        more = Leaf(leaf.account, leaf.payable_units, leaf.exit_units + 1)
        assert root_of(leaf_hash(VAULT, epoch, more), proof) != tree.root
        assert root_of(leaf_hash(VAULT, epoch + 1, leaf), proof) != tree.root


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13])
def test_the_contract_agrees_with_our_trees(count: int) -> None:
    stage = Stage()
    stage.deposit(ALICE, 1000)
    crowd = [(person(300 + number), number + 1, 2 * number + 1) for number in range(count)]
    tree = stage.publish(crowd)
    assert [stage.claim(tree, key) for key, *_ in crowd] == [units for _, units, _ in crowd]


# Replay


def test_a_signature_is_worth_nothing_on_another_chain_or_vault() -> None:
    from tests.settlement.evm import Chain, Reverted

    here, there = Stage(), Stage(chain=Chain(chain_id=1))
    assert here.vault.address == there.vault.address
    for stage in (here, there):
        stage.deposit(ALICE, 100)
    wanted = here.withdrawal(40)
    signed = [key.unsafe_sign_hash(wanted.digest(here.domain)).signature for key in SIGNERS[:2]]
    values = (wanted.id, wanted.account, wanted.recipient, wanted.units, wanted.deadline_s, signed)
    other_vault = here.deploy_vault()
    for vault in (there.vault, other_vault):
        with pytest.raises(Reverted, match=r"not a signer|not in order"):
            vault.send(CAROL, "withdraw", *values)
    here.vault.send(CAROL, "withdraw", *values)


def test_a_proof_is_worth_nothing_on_another_chain() -> None:
    from tests.settlement.evm import Chain, Reverted

    here, there = Stage(), Stage(chain=Chain(chain_id=1))
    for stage in (here, there):
        stage.deposit(ALICE, 100)
    tree = here.tree([(ALICE, 10, 100)])
    there.propose(tree)
    there.chain.pass_s(10**5)
    there.vault.send(BOB, "finalize_root", 1, tree.root)
    with pytest.raises(Reverted, match="not in the last root"):
        there.claim(tree, ALICE)


# Artefacts


@pytest.mark.parametrize("name", SHIPPED)
def test_an_artefact_is_what_its_source_compiles_to(name: str) -> None:
    shipped = (CONTRACTS / f"{name}.json").read_text(encoding="utf-8")
    assert shipped == as_json(artefact(CONTRACTS / f"{name}.vy"))
    assert json.loads(shipped)["contract"] == name


def test_what_is_taken_from_snekmate_is_named_with_its_licence() -> None:
    note = (CONTRACTS / "README.md").read_text(encoding="utf-8")
    for name in SHIPPED:
        source = (CONTRACTS / f"{name}.vy").read_text(encoding="utf-8")
        taken = {".".join(found) for found in re.findall(r"^from (snekmate\.\w+) import (\w+)", source, re.MULTILINE)}
        assert taken == {
            module
            for module, where in re.findall(r"^\| `(snekmate[\w.]+)` \|.*\| ([\w, ]+) \|$", note, re.MULTILINE)
            if name in where.split(", ")
        }
        assert "@license GNU Affero General Public License, version 3 only" in source
    assert f"snekmate=={version('snekmate')}" in note
    assert f"vyper=={version('vyper')}" in note
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in (CONTRACTS / "LICENSE").read_text(encoding="utf-8")


def test_the_vault_fits_where_contracts_have_to_fit() -> None:
    """EIP-170 and EIP-3860."""
    stage = Stage()
    assert len(stage.chain.evm.get_code(stage.vault.address) or b"") <= 24_576
    assert len(interface("Vault").bytecode) <= 49_152


def test_the_vault_cannot_be_made_to_run_code_of_others() -> None:
    """No delegatecall, no callcode, no selfdestruct, no create; and all its raw calls go to the token."""
    source = CONTRACTS / "Vault.vy"
    words = set(compile_source(source)["asm"].split())
    assert {"CALL", "STATICCALL"} <= words
    assert not {"DELEGATECALL", "CALLCODE", "SELFDESTRUCT", "CREATE", "CREATE2"} & words
    callees = re.findall(r"raw_call\(\s*(\w+)", source.read_text(encoding="utf-8"))
    assert len(callees) == 4
    assert set(callees) == {"token"}


def test_the_page_has_every_function_and_event_as_they_are() -> None:
    page = (CONTRACTS.parents[1] / "docs" / "vault.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^    ([A-Z]\w+)\(([^()]*)\)$", page, re.MULTILINE))
    for entry in interface("Vault").abi:
        if entry["type"] == "function":
            assert re.search(rf"\b{entry['name']}\b", page), entry["name"]
        elif entry["type"] == "event" and entry["name"] in stated:
            fields = [(field["name"], "indexed " * field["indexed"] + field["type"]) for field in entry["inputs"]]
            assert stated[entry["name"]] == ", ".join(f"{name}: {kind}" for name, kind in fields)
        elif entry["type"] == "event":
            assert re.search(rf"\b{entry['name']}\b", page), entry["name"]
    assert {"Deposited", "ChunkSettled", "RootProposed", "Exited"} < stated.keys()


# The codec


def test_calls_are_what_the_abi_says() -> None:
    vault = interface("Vault")
    entry = next(entry for entry in vault.abi if entry.get("name") == "settle_batch")
    assert signature(entry) == "settle_batch(bytes32,uint256,uint256,address[],uint256[])"
    assert vault.call("settle_batch", bytes(32), 1, 0, [], [])[:4] == selector(entry)
    assert interface("TestDollar").call("transfer", ALICE.address, 1)[:4].hex() == "a9059cbb"
    assert interface("TestDollar").topic("Transfer").hex().startswith("ddf252ad1be2c89b")
    assert (
        interface("TestDollar")
        .call("receiveWithAuthorization", ALICE.address, BOB.address, 1, 2, 3, bytes(32), 27, bytes(32), bytes(32))[:4]
        .hex()
        == "ef55bec6"
    )


def test_what_does_not_fit_is_refused() -> None:
    vault = interface("Vault")
    for function, arguments in (
        ("nothing", ()),
        ("deposit", (1,)),
        ("deposit", (-1, bytes(32))),
        ("deposit", (1, bytes(33))),
    ):
        with pytest.raises(AbiError):
            vault.call(function, *arguments)
    with pytest.raises(AbiError):
        vault.topic("Nothing")
    with pytest.raises(AbiError):
        vault.result("epoch", b"short")
    topic = vault.topic("Collected")
    for topics, data in (([topic], bytes(32)), ([topic, bytes(32)], b"short")):
        with pytest.raises(AbiError):
            vault.event(topics, data)
    assert vault.event([bytes(32)], b"") is None
    assert vault.event([], b"") is None


def test_reasons_of_a_revert() -> None:
    assert revert_reason(bytes.fromhex("08c379a0") + encode(["string"], ["vault: locked"])) == "vault: locked"
    assert revert_reason(bytes.fromhex("4e487b71") + (17).to_bytes(32, "big")) == "panic 17"
    assert revert_reason(b"\1\2") == "0x0102"
    assert revert_reason(bytes.fromhex("08c379a0") + b"\1") == "0x08c379a001"
    assert revert_reason(b"") == ""
