"""What a member downloads after a cycle: `statements/<cycle>/<account>.csv`, `.json`, and `batch.json` for all.

The balances: `cash` (what working orders hold included: a hold is no movement of money), `escrow`, `bond`, `frozen`
(under a lien), `lots` of each listing, and `shares` of each pool. Each has
an opening, every entry with its running balance, and a closing; the opening is the
closing of the cycle before. The house's statement is account 0.

The files are a pure function of the database, so `verify` renders them again and compares bytes. A cycle's directory
appears whole: it is written beside its place and renamed.
"""

import csv
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from settlement.accounts import FIRST_OUTSIDE, FIRST_SHARES, FIRST_USER, ROLE_BITS, STABLECOIN, Role, money_text
from settlement.batches import Batch, Batches
from settlement.ledger import MOVE, Balances, Code, Ledger
from settlement.netting import Nets, Sums
from settlement.proofs import Tree, entry
from settlement.registry import Registry

COLUMNS = ("seq", "leg", "time", "balance", "unit", "symbol", "listing", "code", "amount", "running_balance")

POCKETS = ("cash", "escrow", "bond", "withdrawing", "frozen", "lots", "shares")
LOTS, SHARES = POCKETS.index("lots"), POCKETS.index("shares")
_CODE_TEXT = {int(code): code.name.lower() for code in Code}
_POCKET_OF_ROLE = np.zeros(FIRST_USER, np.int64)
_POCKET_OF_ROLE[[Role.ESCROW, Role.BOND, Role.WITHDRAWING, Role.FROZEN]] = 1, 2, 3, 4

Key = tuple[int, int]
"""(pocket, asset): one balance of a statement; the asset is 0 for money, else that of the lots or the shares."""


@dataclass(slots=True)
class _Statement:
    """One account's balances and entries in a cycle."""

    account: int
    opening: dict[Key, int] = field(default_factory=dict)
    closing: dict[Key, int] = field(default_factory=dict)
    entries: NDArray[Any] | None = None


class Statements:
    """Renders and writes the statements of frozen batches."""

    def __init__(self, directory: Path, ledger: Ledger, registry: Registry, batches: Batches, stablecoin: str) -> None:
        self.directory = directory
        self._ledger = ledger
        self._registry = registry
        self._batches = batches
        self._stablecoin = stablecoin

    def write(self, batch: Batch) -> Path:
        """Write a cycle's directory, unless it is there: then it was written whole, by an earlier attempt."""
        place = self.directory / str(batch.cycle)
        if place.exists():
            return place
        draft = self.directory / f".{batch.cycle}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, data in self.render(batch):
            with open(draft / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync_directory(draft)
        draft.rename(place)
        _sync_directory(self.directory)
        return place

    def render(self, batch: Batch) -> Iterator[tuple[str, bytes]]:
        """(file name, content) of a batch's files."""
        page = _Page(self._registry, self._ledger, batch, self._stablecoin)
        tree, sums = self._batches.tree(batch), self._batches.nets(batch.cycle)
        accounts = self._batches.members(batch)
        index = {account: at for at, account in enumerate(accounts)}
        for statement in self._collect(batch):
            account = statement.account
            proof = _proof(batch, tree, index[account], account, sums.get(account, Sums(0, 0)))
            lines = page.lines(statement)
            yield f"{account}.csv", page.as_csv(statement, lines)
            yield f"{account}.json", page.as_json(statement, lines, proof)
        proofs = [_proof(batch, tree, at, account, sums.get(account, Sums(0, 0))) for account, at in index.items()]
        yield "batch.json", page.batch_json(Nets(sums, batch.gross_micros), proofs)

    def _collect(self, batch: Batch) -> Iterator[_Statement]:
        """The statements of everybody who had a balance or an entry, by account number."""
        statements: dict[int, _Statement] = {}
        for cycle, name in ((batch.cycle - 1, "opening"), (batch.cycle, "closing")):
            for owner, key, amount in statement_balances(self._batches.closing(cycle)):
                balances = getattr(statements.setdefault(owner, _Statement(owner)), name)
                balances[key] = balances.get(key, 0) + amount
        parts = [entries_of(rows) for rows in self._ledger.transfers(batch.from_seq, batch.to_seq)]
        entries = np.concatenate([np.zeros(0, _ENTRY), *parts])
        entries = entries[np.argsort(entries["owner"], kind="stable")]
        owners, starts = np.unique(entries["owner"], return_index=True)
        for owner, own in zip(owners.tolist(), np.split(entries, starts)[1:], strict=True):
            statements.setdefault(owner, _Statement(owner)).entries = own
        return (statements[owner] for owner in sorted(statements))


_ENTRY = np.dtype([("owner", "<i8"), ("pocket", "<i8"), ("amount", "<i8"), ("move", MOVE)])


def entries_of(rows: NDArray[Any]) -> NDArray[Any]:
    """Two entries of each transfer, taken out and put in, without those that stay within one balance or lie outside."""
    entries = np.zeros((len(rows), 2), _ENTRY)
    for at, side in enumerate(("debit_account", "credit_account")):
        account = rows[side]
        outside = (account >= FIRST_OUTSIDE) & (account < FIRST_USER)
        entries["owner"][:, at] = np.where(outside, -1, account >> ROLE_BITS)
        entries["pocket"][:, at] = place_of(account, rows["asset"])
        entries["amount"][:, at] = rows["amount_micros"] * (1 if at else -1)
        entries["move"][:, at] = rows
    owner, pocket = entries["owner"], entries["pocket"]
    within = (owner[:, 0] == owner[:, 1]) & (pocket[:, 0] == pocket[:, 1])
    flat = entries[~within].reshape(-1)
    inside: NDArray[Any] = flat[flat["owner"] >= 0]
    return inside


def place_of(account: NDArray[Any], asset: NDArray[Any]) -> NDArray[Any]:
    """In which pocket of a statement what an account has of an asset stands."""
    pocket = np.where(account >= FIRST_USER, _POCKET_OF_ROLE[account & (FIRST_USER - 1)], 0)
    return np.where(asset == STABLECOIN, pocket, np.where(asset > STABLECOIN, LOTS, SHARES))


def statement_balances(balances: Balances) -> Iterator[tuple[int, Key, int]]:
    """(owner, key, amount) of every balance that is not the world's."""
    for (asset, account), amount in balances.items():
        if FIRST_OUTSIDE <= account < FIRST_USER:
            continue
        owner, pocket = account >> ROLE_BITS, int(_POCKET_OF_ROLE[account & (FIRST_USER - 1)])
        if asset != STABLECOIN:
            yield owner, (LOTS if asset > STABLECOIN else SHARES, asset), amount
        else:
            yield owner, (pocket if owner else 0, 0), amount


def balances_of(balances: Balances) -> dict[tuple[int, int, int], int]:
    """(owner, pocket, asset) -> amount, as statements show it."""
    found: dict[tuple[int, int, int], int] = {}
    for owner, key, amount in statement_balances(balances):
        found[owner, *key] = found.get((owner, *key), 0) + amount
    return found


class _Page:
    """What all statements of a batch share, and how they are written."""

    def __init__(self, registry: Registry, ledger: Ledger, batch: Batch, stablecoin: str) -> None:
        self.batch = batch
        self.stablecoin = stablecoin
        self.names = registry.names(batch.to_seq) | {0: "house"}
        self.symbols = registry.symbols()
        self.moments = ledger.moments(batch.from_seq, batch.to_seq)
        # Commands of one batch of the log share their time: far fewer texts than entries.
        self.times = np.array([time_text(ts_ns) for ts_ns in self.moments["ts_ns"].tolist()], object)

    def lines(self, statement: _Statement) -> list[tuple[Any, ...]]:
        """The rows of COLUMNS for every entry, in order."""
        if statement.entries is None:
            return []
        running = dict(statement.opening)
        moves = statement.entries["move"]
        at = np.searchsorted(self.moments["seq"], moves["seq"], "right") - 1
        times = self.times[at].tolist()
        pockets, amounts = statement.entries["pocket"].tolist(), statement.entries["amount"].tolist()
        columns = (moves[name].tolist() for name in ("seq", "leg", "asset", "listing", "code"))
        lines: list[tuple[Any, ...]] = []
        for seq, leg, asset, listing, code, time, pocket, amount in zip(*columns, times, pockets, amounts, strict=True):
            running[pocket, asset] = running.get((pocket, asset), 0) + amount
            texts = (self.amount(pocket, amount), self.amount(pocket, running[pocket, asset]))
            about = (self.symbol(asset or listing), listing or "", _CODE_TEXT[code])
            lines.append((seq, leg, time, POCKETS[pocket], self.unit(pocket), *about, *texts))
        return lines

    def symbol(self, asset: int) -> str:
        """Of a listing, or of a pool's shares."""
        return symbol_of(self.symbols, asset)

    def unit(self, pocket: int) -> str:
        return POCKETS[pocket] if pocket >= LOTS else self.stablecoin

    def amount(self, pocket: int, amount: int) -> str:
        return str(amount) if pocket >= LOTS else money_text(amount)

    def balances(self, balances: dict[Key, int]) -> list[dict[str, str]]:
        return [
            {
                "balance": POCKETS[pocket],
                "unit": self.unit(pocket),
                "symbol": self.symbol(asset),
                "listing": str(asset) if asset > 0 else "",
                "amount": self.amount(pocket, amount),
            }
            for (pocket, asset), amount in sorted(balances.items())
            if amount
        ]

    def as_csv(self, statement: _Statement, lines: list[tuple[Any, ...]]) -> bytes:
        """Opening rows, entries, closing rows; amounts of the first and last are empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for code, balances in (("opening", statement.opening), ("", {}), ("closing", statement.closing)):
            if not code:
                writer.writerows(lines)
            for row in self.balances(balances):
                head = ("", "", "", row["balance"], row["unit"], row["symbol"], row["listing"])
                writer.writerow((*head, code, "", row["amount"]))
        return text.getvalue().encode()

    def as_json(self, statement: _Statement, lines: list[tuple[Any, ...]], proof: dict[str, Any]) -> bytes:
        return _json(
            {
                **self.head(),
                "account": statement.account,
                "name": self.names.get(statement.account, ""),
                "opening": self.balances(statement.opening),
                "entries": [dict(zip(COLUMNS, line, strict=True)) for line in lines],
                "closing": self.balances(statement.closing),
                "proof": proof,
            }
        )

    def head(self) -> dict[str, Any]:
        batch = self.batch
        return {
            "cycle": batch.cycle,
            "from_seq": batch.from_seq,
            "to_seq": batch.to_seq,
            "stablecoin": self.stablecoin,
            "batch_id": batch.batch_id.hex(),
            "root": batch.root.hex(),
        }

    def batch_json(self, nets: Nets, proofs: list[dict[str, Any]]) -> bytes:
        return _json(
            {
                **self.head(),
                "previous_batch_id": self.batch.previous_id.hex(),
                "leaves": self.batch.leaves,
                "gross": money_text(nets.gross_micros),
                "net_debits": money_text(nets.debits_micros),
                "saved_by_netting_ppm": nets.efficiency_ppm,
                "accounts": proofs,
            }
        )


def _proof(batch: Batch, tree: Tree, index: int, account: int, sums: Sums) -> dict[str, Any]:
    """What a third party needs to check an account's net against the root."""
    return {
        "account": account,
        "net": money_text(sums.net_micros),
        "external": money_text(sums.external_micros),
        "entry": entry(batch.cycle, account, *sums).hex(),
        "index": index,
        "leaves": tree.count,
        "partners": [partner.hex() for partner in tree.proof(index)],
    }


def symbol_of(symbols: Mapping[int, str], asset: int) -> str:
    """A listing's symbol; `pool-7` for the shares of the pool that is account 7; nothing for money."""
    return symbols.get(asset, "") if asset >= 0 else f"pool-{FIRST_SHARES - asset}"


def time_text(ts_ns: int) -> str:
    """UTC with microseconds; what is finer is cut."""
    seconds, rest = divmod(ts_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
