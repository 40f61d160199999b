"""Proof of liabilities: what the exchange owes its members in all, with a proof for each that it is counted in.

A Merkle tree whose nodes carry sums. Hashes are SHA-256, numbers big-endian; an amount has 16 bytes, other numbers 8.

    leaf   = H("wellhead owed 1\\n" + cycle, account + amount)
    parent = H("wellhead sums 1\\n" + sum of left + left + sum of right + right)     its sum: that of both
    root   = H("wellhead total 1\\n" + number of leaves + total + top)

A parent commits to the sums of *both* its children. A tree whose parents commit only to their own sum can be built such
that members' proofs all check while the total is too low: each sees a sibling of another sum (the Maxwell attack). For
the same reason a checker takes no sum below zero and none above MAX_AMOUNT: an amount below zero would hide a debt.

Leaves are all members in order of account number, with what they own in money: available, held, escrow, bond,
withdrawing and frozen together. Whoever checks a proof learns the sums of its siblings, hence of some strangers.
"""

import struct
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from settlement.accounts import CUSTODY, HOUSE, STABLECOIN, HouseRole, owner_of
from settlement.ledger import Balances
from settlement.proofs import ProofError, climb, levels_of, partners_of

MAX_AMOUNT = 10**18
"""Micro-dollars: everything ever deposited, at the most."""

_LEAF = b"wellhead owed 1\n"
_NODE = b"wellhead sums 1\n"
_ROOT = b"wellhead total 1\n"


class Node(NamedTuple):
    """A hash, and the sum of all leaves below it."""

    digest: bytes
    amount_micros: int


def _number(amount: int) -> bytes:
    if not 0 <= amount <= MAX_AMOUNT:
        raise ProofError(f"an amount of {amount} micros cannot be owed")
    return amount.to_bytes(16, "big")


def leaf(cycle: int, account: int, amount_micros: int) -> Node:
    """Raises ProofError for an amount out of range."""
    data = struct.pack(">2q", cycle, account) + _number(amount_micros)
    return Node(sha256(_LEAF + data).digest(), amount_micros)


def _parent(left: Node, right: Node) -> Node:
    total = left.amount_micros + right.amount_micros
    _number(total)
    data = _number(left.amount_micros) + left.digest + _number(right.amount_micros) + right.digest
    return Node(sha256(_NODE + data).digest(), total)


def _root(count: int, top: Node) -> bytes:
    return sha256(_ROOT + struct.pack(">q", count) + _number(top.amount_micros) + top.digest).digest()


class SumTree:
    """The tree of a cycle's end."""

    def __init__(self, cycle: int, owed: Mapping[int, int]) -> None:
        """`owed` is account -> micros. Raises ProofError when there is nobody, or an amount is out of range."""
        if not owed:
            raise ProofError("a tree needs at least one leaf")
        self.accounts = sorted(owed)
        self.owed = owed
        self.count = len(self.accounts)
        self._levels = levels_of([leaf(cycle, account, owed[account]) for account in self.accounts], _parent)
        (top,) = self._levels[-1]
        self.total_micros = top.amount_micros
        self.root = _root(self.count, top)

    def proof(self, index: int) -> list[Node]:
        """The partners of a leaf on its way up. Raises ProofError when there is no such leaf."""
        return partners_of(self._levels, index)


def is_counted(own: Node, place: tuple[int, int], partners: Sequence[Node], total_micros: int, root: bytes) -> bool:
    """Whether a leaf, at `place` (index, number of leaves), is part of this total under this root."""
    index, width = place
    if not 0 <= index < width:
        return False
    try:
        top = climb(own, place, partners, _parent)
        return top.amount_micros == total_micros and _root(width, top) == root
    except ProofError:
        return False


def owed_to_members(balances: Balances, members: Sequence[int]) -> dict[int, int]:
    """What each member has in money; zero for those who have nothing."""
    owed = {account: 0 for account in members if account != HOUSE}
    for (asset, account), amount in balances.items():
        if asset == STABLECOIN and owner_of(account) != HOUSE:
            owed[owner_of(account)] += amount
    return owed


def assets_micros(balances: Balances) -> int:
    """What the exchange holds against it: custody, and what is on its way."""
    return -sum(balances.get((STABLECOIN, account), 0) for account in (CUSTODY, HouseRole.IN_TRANSIT))
