"""Proof of liabilities: everybody is counted in, and the known ways to cheat with sum trees fail."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.liabilities import MAX_AMOUNT, Node, SumTree, assets_micros, is_counted, leaf, owed_to_members
from settlement.proofs import ProofError
from settlement.service import Settlement
from tests.settlement.flow import CATALOGUE, recorded
from wellhead.settle import proof_of

PROJECT = Path(__file__).parents[2]
OWED = {account: account * 1_000 for account in range(1, 12)}


@given(st.dictionaries(st.integers(1, 10**6), st.integers(0, 10**12), min_size=1, max_size=20))
def test_everybody_is_counted_in_and_only_at_his_place(owed: dict[int, int]) -> None:
    tree = SumTree(3, owed)
    assert tree.total_micros == sum(owed.values())
    for index, account in enumerate(tree.accounts):
        own, proof = leaf(3, account, owed[account]), tree.proof(index)
        assert is_counted(own, (index, tree.count), proof, tree.total_micros, tree.root)
        assert not is_counted(own, (index + 1, tree.count), proof, tree.total_micros, tree.root)
        assert not is_counted(own, (index, tree.count + 1), proof, tree.total_micros, tree.root)
        assert not is_counted(own, (index, tree.count), proof, tree.total_micros - 1, tree.root)
        assert not is_counted(
            leaf(3, account, owed[account] + 1), (index, tree.count), proof, tree.total_micros, tree.root
        )
        assert not is_counted(leaf(4, account, owed[account]), (index, tree.count), proof, tree.total_micros, tree.root)


def test_a_sibling_cannot_be_shown_with_another_sum() -> None:
    """The Maxwell attack: each of two members is shown a sibling of zero, and the parent claims only the larger."""
    tree = SumTree(1, {1: 70, 2: 100})
    own = leaf(1, 1, 70)
    (sibling,) = tree.proof(0)
    for amount in (0, 30, 99, 101):
        shown = [Node(sibling.digest, amount)]
        assert not is_counted(own, (0, 2), shown, 70 + amount, tree.root)
        assert not is_counted(own, (0, 2), shown, tree.total_micros, tree.root)


def test_a_debt_cannot_be_hidden_behind_an_amount_below_zero() -> None:
    for amount in (-1, MAX_AMOUNT + 1):
        with pytest.raises(ProofError):
            leaf(1, 1, amount)
        with pytest.raises(ProofError):
            SumTree(1, {1: 5, 2: amount})
        tree = SumTree(1, {1: 5, 2: 7})
        assert not is_counted(leaf(1, 1, 5), (0, 2), [Node(tree.proof(0)[0].digest, amount)], 5 + amount, tree.root)
    with pytest.raises(ProofError):
        SumTree(1, {1: MAX_AMOUNT, 2: 1})
    with pytest.raises(ProofError):
        SumTree(1, {})


def test_a_tree_of_three_by_hand() -> None:
    def number(amount: int, size: int = 16) -> bytes:
        return amount.to_bytes(size, "big")

    def node(left: tuple[int, bytes], right: tuple[int, bytes]) -> bytes:
        return sha256(b"wellhead sums 1\n" + number(left[0]) + left[1] + number(right[0]) + right[1]).digest()

    a, b, c = (
        (n, sha256(b"wellhead owed 1\n" + number(9, 8) + number(at, 8) + number(n)).digest())
        for at, n in ((1, 10), (2, 20), (5, 40))
    )
    top = node((30, node(a, b)), c)
    assert (
        SumTree(9, {5: 40, 1: 10, 2: 20}).root
        == sha256(b"wellhead total 1\n" + number(3, 8) + number(70) + top).digest()
    )


@given(st.integers(0, 10), st.integers(0, 10**4), st.integers(1, 255))
def test_no_byte_of_a_proof_may_change(index: int, at: int, flip: int) -> None:
    tree = SumTree(1, OWED)
    proof = tree.proof(index)
    which, at = at % len(proof), at % 32
    digest = bytearray(proof[which].digest)
    digest[at] ^= flip
    proof[which] = Node(bytes(digest), proof[which].amount_micros)
    account = tree.accounts[index]
    assert not is_counted(leaf(1, account, OWED[account]), (index, 11), proof, tree.total_micros, tree.root)
    assert not is_counted(leaf(1, account, OWED[account]), (index, 11), proof[:-1], tree.total_micros, tree.root)


def test_twenty_lines_without_us_agree_on_a_real_cycle(tmp_path: Path) -> None:
    log = recorded(1, 60)
    settlement = Settlement(tmp_path / "books", CATALOGUE)
    settlement.on_batch(log.commands, log.events)
    books, batch = settlement.books, settlement.last_batch()
    assert batch
    closing = books.batches.closing(batch.cycle)
    owed = owed_to_members(closing, books.batches.members(batch))
    assert 0 < sum(owed.values()) <= assets_micros(closing)
    proof = proof_of(books, batch.cycle, 2)
    root, total = proof["liability"]["root"], proof["liability"]["total_micros"]
    assert total == sum(owed.values())
    assert proof["liability"]["owed_micros"] == owed[2] > 0
    path, script = tmp_path / "proof.json", PROJECT / "tests" / "settlement" / "check_liability.py"
    for change, code in ((0, 0), (1, 1)):
        proof["liability"]["owed_micros"] += change
        path.write_text(json.dumps(proof))
        done = subprocess.run([sys.executable, "-I", str(script), str(path), str(total), root], check=False)
        assert done.returncode == code
    settlement.close()
