from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.proofs import NO_BATCH, ProofError, Tree, batch_hash, entry, is_included, leaf_hash

ENTRIES = [entry(3, account, 10**12 - account, -account) for account in range(13)]


@pytest.mark.parametrize("count", range(1, 14))
def test_every_leaf_is_proven_and_only_at_its_place(count: int) -> None:
    tree = Tree(ENTRIES[:count])
    for index in range(count):
        proof = tree.proof(index)
        assert is_included(ENTRIES[index], index, count, proof, tree.root)
        others = [
            (i, n) for i in range(-1, count + 1) for n in (count - 1, count, count + 1) if (i, n) != (index, count)
        ]
        assert not any(is_included(ENTRIES[index], i, n, proof, tree.root) for i, n in others)


def test_a_tree_of_three_by_hand() -> None:
    def node(left: bytes, right: bytes) -> bytes:
        return sha256(b"wellhead node 1\n" + left + right).digest()

    a, b, c = (sha256(b"wellhead leaf 1\n" + sha256(data).digest()).digest() for data in ENTRIES[:3])
    root = sha256(b"wellhead root 1\n" + (3).to_bytes(8, "big") + node(node(a, b), c)).digest()
    assert Tree(ENTRIES[:3]).root == root
    assert Tree(ENTRIES[:3]).proof(2) == [node(a, b)]
    assert entry(1, 2, -3, 4) == b"".join(n.to_bytes(8, "big", signed=True) for n in (1, 2, -3, 4))


@given(st.integers(0, 12), st.integers(0, 4 * 32 - 1), st.integers(1, 255))
def test_no_byte_of_a_proof_may_change(index: int, at: int, flip: int) -> None:
    tree = Tree(ENTRIES)
    proof = b"".join(tree.proof(index))
    at %= len(proof)
    forged = proof[:at] + bytes([proof[at] ^ flip]) + proof[at + 1 :]
    partners = [forged[i : i + 32] for i in range(0, len(forged), 32)]
    assert not is_included(ENTRIES[index], index, 13, partners, tree.root)


@given(st.integers(0, 12), st.integers(0, 31), st.integers(1, 255))
def test_no_byte_of_an_entry_may_change(index: int, at: int, flip: int) -> None:
    tree = Tree(ENTRIES)
    data = bytearray(ENTRIES[index])
    data[at] ^= flip
    assert not is_included(bytes(data), index, 13, tree.proof(index), tree.root)


def test_proofs_of_another_length_are_refused() -> None:
    tree = Tree(ENTRIES)
    proof = tree.proof(4)
    assert not is_included(ENTRIES[4], 4, 13, proof[:-1], tree.root)
    assert not is_included(ENTRIES[4], 4, 13, [*proof, proof[0]], tree.root)


def test_an_inner_node_is_no_leaf() -> None:
    """Without tags the two children of a node, 64 bytes, could pass as an entry of a smaller tree."""
    tree = Tree(ENTRIES[:2])
    pair = leaf_hash(ENTRIES[0]) + leaf_hash(ENTRIES[1])
    assert Tree([pair]).root != tree.root
    assert not is_included(pair, 0, 1, [], tree.root)


def test_the_last_leaf_twice_is_another_tree() -> None:
    assert Tree(ENTRIES[:3]).root != Tree([*ENTRIES[:3], ENTRIES[2]]).root


def test_a_tree_needs_leaves_and_a_proof_a_leaf() -> None:
    with pytest.raises(ProofError, match="at least one leaf"):
        Tree([])
    for index in (-1, 13):
        with pytest.raises(ProofError, match="no leaf"):
            Tree(ENTRIES).proof(index)
    assert not is_included(ENTRIES[0], 0, 1, [], NO_BATCH)


def test_a_batch_id_depends_on_all_of_its_content() -> None:
    root = Tree(ENTRIES).root
    other = Tree(ENTRIES[:2]).root
    ids = {
        batch_hash(1, (1, 9), 5, root, NO_BATCH),
        batch_hash(2, (1, 9), 5, root, NO_BATCH),
        batch_hash(1, (2, 9), 5, root, NO_BATCH),
        batch_hash(1, (1, 8), 5, root, NO_BATCH),
        batch_hash(1, (1, 9), 6, root, NO_BATCH),
        batch_hash(1, (1, 9), 5, other, NO_BATCH),
        batch_hash(1, (1, 9), 5, root, root),
    }
    assert len(ids) == 7
    assert batch_hash(1, (1, 9), 5, root, NO_BATCH) in ids


@pytest.mark.parametrize("root", [NO_BATCH, b"", b"short"])
def test_a_zero_root_is_refused(root: bytes) -> None:
    with pytest.raises(ProofError, match="root"):
        batch_hash(1, (1, 9), 5, root, NO_BATCH)
