"""The part of a statement under `vault`: what its owner needs to claim, or to leave without the exchange.

A cycle's statements are written when it ends. Its roots, one a vault, are worked out later, when the vault can take the
next one. Then this part is put at the end of each statement, before the root is proposed: whoever is in a root has his
proof before it can come into force, and in time to dispute it. The rest of the file stays as it was, to the byte.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from eth_utils.address import to_checksum_address

from settlement.database import Database
from settlement.vault import Leaf, leaf_hash, root_of, vault_domain

_MARK = b',\n "vault": '  # only a name of the outermost object has one blank before it
_END = b"\n}\n"

Paper = dict[str, Any]


def split(data: bytes) -> tuple[bytes, list[Paper]]:
    """(the statement as it was written, its papers). Raises ValueError when the part is no JSON."""
    base, mark, part = data.partition(_MARK)
    return (base + _END, json.loads(part.removesuffix(_END))) if mark else (data, [])


def join(data: bytes, papers: Sequence[Paper]) -> bytes:
    """The statement with these papers, instead of those that it has."""
    base, _ = split(data)
    if not papers:
        return base
    part = msgspec.json.format(msgspec.json.encode({"vault": papers}), indent=1)
    return base.removesuffix(_END) + b"," + part[1:] + b"\n"


def write(directory: Path, papers: Mapping[int, Sequence[Paper]]) -> None:
    """Put the papers of each account into its statement of the cycle whose directory it is; each file changes whole. Who
    had no balance and no entry has no statement, and nothing to claim.
    """
    for account, own in papers.items():
        path = directory / f"{account}.json"
        if not path.exists():
            continue
        before = path.read_bytes()
        after = join(before, own)
        if after != before:
            _replace(path, after)


def read(directory: Path) -> dict[int, list[Paper]]:
    """The papers in the statements of a cycle, by account."""
    found = {path.stem: split(path.read_bytes())[1] for path in directory.glob("*.json")}
    return {int(name): papers for name, papers in found.items() if papers}


def _replace(path: Path, data: bytes) -> None:
    draft = path.parent.with_name(f".{path.parent.name}.{path.name}")
    with open(draft, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def built_roots(outbox: Path, cycle: int) -> set[str]:
    """The roots that were worked out for a cycle, in hex: those that its papers may lead to."""
    if not outbox.exists():
        return set()
    with Database(outbox, read_only=True) as database:
        rows = database.rows("SELECT root FROM roots WHERE cycle = ?", (cycle,))
    return {f"0x{row[0].hex()}" for row in rows}


def fault(paper: Paper, roots: Collection[str]) -> str:
    """Why a paper proves nothing; empty when its leaf and proof lead to its root, and that is one of these."""
    try:
        domain = vault_domain(paper["chain_id"], to_checksum_address(paper["vault"]))
        leaf = Leaf(paper["account"], int(paper["payable_units"]), int(paper["exit_units"]))
        root = root_of(leaf_hash(domain, paper["epoch"], leaf), [bytes.fromhex(one[2:]) for one in paper["proof"]])
    except (KeyError, TypeError, ValueError) as error:
        return repr(error)
    if f"0x{root.hex()}" != paper.get("root"):
        return f"it leads to the root 0x{root.hex()}"
    return "" if paper["root"] in roots else "there was no such root"
