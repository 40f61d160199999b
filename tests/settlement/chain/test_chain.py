"""What the adapter asks of a node, and what it makes of the answers."""

import pytest
from eth_utils.address import to_checksum_address

from settlement.abi import interface
from settlement.chain import CALLS_AT_ONCE, CallRefused, Chain, ChainError
from settlement.embedded import Embedded
from tests.settlement.chain.anvil import SECRETS, Site
from tests.settlement.chain.rig import DOLLAR, Rig


def test_many_calls_in_one_request_are_answered_like_single_ones(rig: Rig) -> None:
    rig.mint(rig.members[0], 7 * DOLLAR)
    coin, block = interface("TestDollar"), rig.chain.head().number
    owners = [member.text for member in rig.members] + [to_checksum_address(secret[-20:]) for secret in SECRETS]
    datas = [coin.call("balanceOf", owner) for owner in owners * (CALLS_AT_ONCE // len(owners) + 1)]
    assert len(datas) > CALLS_AT_ONCE
    answers = rig.chain.calls(rig.token.address, datas, block)
    assert answers == [rig.chain.call(rig.token.address, data, block) for data in datas]
    assert {coin.result("balanceOf", answer) for answer in answers} == {0, 7 * DOLLAR}
    assert rig.chain.calls(rig.token.address, [], block) == []
    with pytest.raises(CallRefused, match="no such deposit"):
        rig.chain.calls(rig.token.vault, [interface("Vault").call("deposits", at) for at in (0, 1)], block)


def test_a_chain_in_the_process_is_asked_one_by_one() -> None:
    chain = Embedded().chain
    assert chain.calls(b"\x11" * 20, [b"", b""], 0) == [b"", b""]


def test_a_node_that_is_not_there_is_no_answer(site: Site) -> None:
    gone = Chain.at("http://127.0.0.1:1")
    for ask in (gone.head, gone.finalized, lambda: gone.calls(b"\x11" * 20, [b""], 0), lambda: gone.send(b"\x02")):
        with pytest.raises(ChainError):
            ask()
    with pytest.raises(ChainError, match="the block"):
        site.node.chain.block(10**9)


def test_who_used_a_nonce_is_found_in_the_blocks(rig: Rig) -> None:
    operator = rig.operator.address
    first = rig.chain.nonce(operator)
    hashes = []
    for member in (*rig.members, *rig.members):
        rig.mint(member, DOLLAR)
        hashes.append(rig.chain.head().hash)
    last = rig.chain.head().number
    found = [rig.chain.user_of_nonce(operator, nonce, last) for nonce in range(first, first + 4)]
    assert [rig.chain.block(user[1]).hash for user in found if user] == hashes
    assert rig.chain.user_of_nonce(operator, first + 4, last) is None
