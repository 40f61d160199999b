"""The files of a cycle, entry by entry in plain Python: the twin of what `settlement/statements.py` has compiled."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from settlement.accounts import FIRST_OUTSIDE, FIRST_USER, ROLE_BITS, Role, money_text
from settlement.batches import Batch
from settlement.ledger import Code
from settlement.netting import Sums
from settlement.proofs import entry
from settlement.service import Books
from settlement.statements import COLUMNS, POCKETS, symbol_of, time_text

ROLES = {Role.ESCROW: "escrow", Role.BOND: "bond", Role.WITHDRAWING: "withdrawing", Role.FROZEN: "frozen"}


def place(account: int, asset: int) -> tuple[int, str, int] | None:
    """(owner, pocket, asset) as statements have it; None for the world outside."""
    if FIRST_OUTSIDE <= account < FIRST_USER:
        return None
    owner, role = account >> ROLE_BITS, account & (FIRST_USER - 1)
    if asset:
        return owner, "lots" if asset > 0 else "shares", asset
    return owner, ROLES.get(Role(role), "cash") if owner else "cash", 0


class Slow:
    def __init__(self, books: Books, batch: Batch) -> None:
        self.books, self.batch = books, batch
        self.symbols, self.names = books.registry.symbols(), books.registry.names(batch.to_seq) | {0: "house"}
        self.balances = [self.of_cycle(batch.cycle - 1), self.of_cycle(batch.cycle)]
        self.entries: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
        moments = books.ledger.moments(batch.from_seq, batch.to_seq).tolist()
        for rows in books.ledger.transfers(batch.from_seq, batch.to_seq):
            for seq, leg, debit, credit, asset, amount, code, listing in rows.tolist():
                sides = place(debit, asset), place(credit, asset)
                if sides[0] == sides[1]:
                    continue
                ts_ns = max(moment for moment in moments if moment[0] <= seq)[1]
                for side, change in zip(sides, (-amount, amount), strict=True):
                    if side:
                        self.entries[side[0]].append((seq, leg, ts_ns, side[1], asset, listing, code, change))

    def of_cycle(self, cycle: int) -> dict[int, dict[tuple[int, int], int]]:
        found: dict[int, dict[tuple[int, int], int]] = defaultdict(lambda: defaultdict(int))
        for (asset, account), amount in self.books.batches.closing(cycle).items():
            if side := place(account, asset):
                found[side[0]][POCKETS.index(side[1]), asset] += amount
        return found

    def text(self, pocket: str, amount: int) -> str:
        return str(amount) if pocket in ("lots", "shares") else money_text(amount)

    def unit(self, pocket: str) -> str:
        return pocket if pocket in ("lots", "shares") else self.books.catalogue.stablecoin

    def listed(self, which: int, account: int) -> list[dict[str, str]]:
        rows = []
        for (number, asset), amount in sorted(self.balances[which].get(account, {}).items()):
            pocket = POCKETS[number]
            row = {"balance": pocket, "unit": self.unit(pocket), "symbol": symbol_of(self.symbols, asset)}
            row |= {"listing": str(asset) if asset > 0 else "", "amount": self.text(pocket, amount)}
            rows += [row] if amount else []
        return rows

    def lines(self, account: int) -> Iterator[dict[str, Any]]:
        running: dict[tuple[str, int], int] = defaultdict(int)
        for (number, asset), amount in self.balances[0].get(account, {}).items():
            running[POCKETS[number], asset] = amount
        for seq, leg, ts_ns, pocket, asset, listing, code, change in self.entries.get(account, []):
            running[pocket, asset] += change
            texts = (self.text(pocket, change), self.text(pocket, running[pocket, asset]))
            about = (
                self.unit(pocket),
                symbol_of(self.symbols, asset or listing),
                listing or "",
                Code(code).name.lower(),
            )
            yield dict(zip(COLUMNS, (seq, leg, time_text(ts_ns), pocket, *about, *texts), strict=True))

    def as_csv(self, account: int) -> bytes:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for which, code in enumerate(("opening", "closing")):
            if which:
                writer.writerows(line.values() for line in self.lines(account))
            for row in self.listed(which, account):
                writer.writerow(("", "", "", *list(row.values())[:4], code, "", row["amount"]))
        return out.getvalue().encode()

    def head(self) -> dict[str, Any]:
        batch = self.batch
        seqs = {"cycle": batch.cycle, "from_seq": batch.from_seq, "to_seq": batch.to_seq}
        about = {"batch_id": batch.batch_id.hex(), "root": batch.root.hex()}
        return seqs | {"stablecoin": self.books.catalogue.stablecoin} | about

    def proof(self, account: int) -> dict[str, Any]:
        batches = self.books.batches
        tree, sums = batches.tree(self.batch), batches.nets(self.batch.cycle).get(account, Sums(0, 0))
        index = batches.members(self.batch).index(account)
        said = {"account": account, "net": money_text(sums.net_micros), "external": money_text(sums.external_micros)}
        said |= {"entry": entry(self.batch.cycle, account, *sums).hex(), "index": index, "leaves": tree.count}
        return said | {"partners": [partner.hex() for partner in tree.proof(index)]}

    def as_json(self, account: int) -> bytes:
        page = self.head() | {"account": account, "name": self.names.get(account, "")}
        page |= {"opening": self.listed(0, account), "entries": list(self.lines(account))}
        return pretty(page | {"closing": self.listed(1, account), "proof": self.proof(account)})


def pretty(page: dict[str, Any]) -> bytes:
    return json.dumps(page, indent=1, ensure_ascii=False).encode() + b"\n"


def slowly(books: Books, batch: Batch) -> dict[str, bytes]:
    """The files of every account, by name."""
    slow, found = Slow(books, batch), {}
    for account in sorted({*slow.balances[0], *slow.balances[1], *slow.entries}):
        found[f"{account}.csv"], found[f"{account}.json"] = slow.as_csv(account), slow.as_json(account)
    return found
