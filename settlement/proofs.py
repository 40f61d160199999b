"""Merkle trees over what each account gets, so that anyone can check an entry against one published hash.

All hashes are SHA-256; numbers are big-endian, eight bytes, signed; the tags are ASCII and end in a newline.

    entry  = cycle, account, net_micros, external_micros                   (32 bytes)
    leaf   = H("wellhead leaf 1\\n" + H(entry))
    parent = H("wellhead node 1\\n" + left + right)
    root   = H("wellhead root 1\\n" + number of leaves + top)

Leaves lie in order of account number. A level pairs its nodes from the left; a last node without a partner rises as
it is (never paired with itself: that would let one tree stand for two lists). A proof is the leaf's index and the
partners met on the way up, lowest first; where there was no partner the proof has nothing. The root commits to the
number of leaves, so an index cannot be read in a tree of another shape. A tree without leaves is refused.

    batch id = H("wellhead batch 1\\n" + cycle, from_seq, to_seq + gross_micros (16 bytes) + root + previous id)

where the previous id is that of the batch before, and 32 zero bytes for the first.
"""

import struct
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeVar

HASH_BYTES = 32
NO_BATCH = bytes(HASH_BYTES)

_LEAF = b"wellhead leaf 1\n"
_NODE = b"wellhead node 1\n"
_ROOT = b"wellhead root 1\n"
_BATCH = b"wellhead batch 1\n"


class ProofError(ValueError):
    """There is no such tree or proof."""


def entry(cycle: int, account: int, net_micros: int, external_micros: int) -> bytes:
    """The canonical bytes of what an account has in a cycle."""
    return struct.pack(">4q", cycle, account, net_micros, external_micros)


def leaf_hash(data: bytes) -> bytes:
    return sha256(_LEAF + sha256(data).digest()).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()


def _root(count: int, top: bytes) -> bytes:
    return sha256(_ROOT + struct.pack(">q", count) + top).digest()


T = TypeVar("T")
Parent = Callable[[T, T], T]


def levels_of(leaves: list[T], parent: Parent[T]) -> list[list[T]]:
    """All levels of a tree, the leaves first: pairs from the left, a last one without a partner rises as it is."""
    levels = [leaves]
    while len(level := levels[-1]) > 1:
        above = [parent(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        levels.append(above + level[-1:] if len(level) % 2 else above)
    return levels


def partners_of(levels: list[list[T]], index: int) -> list[T]:
    """The partners of a leaf on its way up. Raises ProofError when there is no such leaf."""
    if not 0 <= index < len(levels[0]):
        raise ProofError(f"no leaf {index} in a tree of {len(levels[0])}")
    partners = []
    for level in levels[:-1]:
        if index ^ 1 < len(level):
            partners.append(level[index ^ 1])
        index >>= 1
    return partners


def climb(node: T, place: tuple[int, int], partners: Sequence[T], parent: Parent[T]) -> T:
    """The top that a leaf at `place` (index, number of leaves) leads to. Raises ProofError for too many or few partners."""
    (index, width), left = place, list(partners)
    while width > 1:
        if index ^ 1 < width:
            if not left:
                raise ProofError("a partner is missing")
            partner = left.pop(0)
            node = parent(partner, node) if index & 1 else parent(node, partner)
        index, width = index >> 1, (width + 1) >> 1
    if left:
        raise ProofError("there are more partners than levels")
    return node


class Tree:
    """All levels of a tree: building hashes each node once, a proof reads one node a level."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        if not entries:
            raise ProofError("a tree needs at least one leaf")
        level = [leaf_hash(data) for data in entries]
        self.count = len(level)
        self._levels = levels_of(level, _node)
        self.root = _root(self.count, self._levels[-1][0])

    def proof(self, index: int) -> list[bytes]:
        """The partners of a leaf on its way up. Raises ProofError when there is no such leaf."""
        return partners_of(self._levels, index)


def is_included(data: bytes, index: int, count: int, partners: Sequence[bytes], root: bytes) -> bool:
    """Whether the tree with this root has `data` as its leaf `index`."""
    if not 0 <= index < count or root == NO_BATCH:
        return False
    try:
        return _root(count, climb(leaf_hash(data), (index, count), partners, _node)) == root
    except ProofError:
        return False


def batch_hash(cycle: int, seqs: tuple[int, int], gross_micros: int, root: bytes, previous: bytes) -> bytes:
    """The id of the batch of the commands `seqs` (first, last): a hash of its content, so the same content is the same batch.

    Raises ProofError for a root or a predecessor that is no hash, and for a root of zeros.
    """
    if len(root) != HASH_BYTES or len(previous) != HASH_BYTES or root == NO_BATCH:
        raise ProofError("a batch needs a root and a predecessor of 32 bytes, and the root may not be zero")
    head = struct.pack(">3q", cycle, *seqs) + gross_micros.to_bytes(16, "big")
    return sha256(_BATCH + head + root + previous).digest()
