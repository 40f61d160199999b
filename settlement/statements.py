"""What a member downloads after a cycle: `statements/<cycle>/<account>.csv`, `.json`, and `batch.json` for all.

The balances: `cash` (what working orders hold included: a hold is no movement of money), `escrow`, `bond`, `frozen`
(under a lien), `lots` of each listing, and `shares` of each pool. Each has
an opening, every entry with its running balance, and a closing; the opening is the
closing of the cycle before. The house's statement is account 0.

The files are a pure function of the database, so `verify` renders them again and compares bytes. A cycle's directory
appears whole: it is written beside its place, forced to the disk, and renamed. Entries become text in compiled code
(`settlement/fast/text.py`), several accounts at a time.
"""

import csv
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import local
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from settlement.accounts import FIRST_OUTSIDE, FIRST_SHARES, FIRST_USER, ROLE_BITS, STABLECOIN, Role, money_text
from settlement.batches import Batch, Batches
from settlement.disk import Folder, folder, sync
from settlement.fast.sides import MONEY_SLOTS, clear
from settlement.fast.text import CODES, Form, write_lines
from settlement.ledger import MOVE, Balances, Code, Ledger
from settlement.moves import Cycle, read_cycle
from settlement.netting import Nets, Sums
from settlement.proofs import entry
from settlement.registry import Registry
from settlement.sides import Sides

COLUMNS = ("seq", "leg", "time", "balance", "unit", "symbol", "listing", "code", "amount", "running_balance")

POCKETS = ("cash", "escrow", "bond", "withdrawing", "frozen", "lots", "shares")
LOTS, SHARES = POCKETS.index("lots"), POCKETS.index("shares")
_CODE_TEXT = {int(code): code.name.lower() for code in Code}
_POCKET_OF_ROLE = np.zeros(FIRST_USER, np.int64)
_POCKET_OF_ROLE[[Role.ESCROW, Role.BOND, Role.WITHDRAWING, Role.FROZEN]] = 1, 2, 3, 4

KINDS = ("csv", "json")
PIECE_LINES = 20_000
"""Of a long statement so many at a time are text in memory."""
FORCE_BYTES = 1 << 28
"""The disk begins with what is written while the rest is made."""
MOST_WRITERS = 4

Key = tuple[int, int]
"""(pocket, asset): one balance of a statement; the asset is 0 for money, else that of the lots or the shares."""


@dataclass(slots=True)
class _Statement:
    """One account's balances in a cycle."""

    account: int
    opening: dict[Key, int] = field(default_factory=dict)
    closing: dict[Key, int] = field(default_factory=dict)


class Statements:
    """Renders and writes the statements of frozen batches."""

    def __init__(self, directory: Path, ledger: Ledger, registry: Registry, batches: Batches, stablecoin: str) -> None:
        self.directory = directory
        self._ledger = ledger
        self._registry = registry
        self._batches = batches
        self._stablecoin = stablecoin

    def write(self, batch: Batch, cycle: Cycle | None = None) -> Path:
        """Write a cycle's directory, unless it is there: then it was written whole, by an earlier attempt.

        `cycle` are its transfers where they are at hand; else they are read. Raises OSError, and ValueError where
        entries do not lead from an opening to its closing.
        """
        place = self.directory / str(batch.cycle)
        if place.exists():
            return place
        draft = self.directory / f".{batch.cycle}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        self._write_files(self._page(batch, cycle), draft)
        draft.rename(place)
        sync(self.directory)
        return place

    def _write_files(self, page: "_Page", draft: Path) -> None:
        with folder(draft) as opened:
            _write_all(page, opened)
            (draft / "batch.json").write_bytes(page.batch_json())
            opened.force()

    def render(self, batch: Batch) -> Iterator[tuple[str, bytes]]:
        """(file name, content) of a batch's files. Raises as `write`."""
        page = self._page(batch)
        for account in page.accounts():
            files = io.BytesIO(), io.BytesIO()
            page.write(account, *files)
            for kind, data in zip(KINDS, files, strict=True):
                yield f"{account}.{kind}", data.getvalue()
        yield "batch.json", page.batch_json()

    def _page(self, batch: Batch, cycle: Cycle | None = None) -> "_Page":
        if cycle is None:
            cycle = read_cycle(self._ledger, (batch.from_seq, batch.to_seq))
        balances = [self._batches.closing(cycle) for cycle in (batch.cycle - 1, batch.cycle)]
        symbols = self._registry.symbols()
        pools = np.unique(cycle.moves["asset"][cycle.moves["asset"] < 0])
        assets = [*symbols, *(asset for found in balances for asset, _ in found)]
        sides = Sides(cycle, np.concatenate([pools, np.unique(np.array(assets, np.int64))]))
        names = self._registry.names(batch.to_seq) | {0: "house"}
        proven = _Proven(self._batches, batch)
        return _Page(batch, sides, statements_of(*balances), _Names(self._stablecoin, names, symbols), proven)


def _write_all(page: "_Page", place: Folder) -> None:
    """Every account's files, the longest first so that none is left to be waited for."""

    def write(account: int) -> int:
        names = (place.path / f"{account}.{kind}" for kind in KINDS)
        with open(next(names), "wb") as csv_file, open(next(names), "wb") as json_file:
            page.write(account, csv_file, json_file)
            return csv_file.tell() + json_file.tell()

    accounts = sorted(page.accounts(), key=page.entries, reverse=True)
    with ThreadPoolExecutor(min(MOST_WRITERS, os.cpu_count() or 1)) as writers, ThreadPoolExecutor(1) as forcer:
        behind, forced = 0, forcer.submit(place.force)
        for size in writers.map(write, accounts):
            behind += size
            if behind >= FORCE_BYTES and forced.done():
                forced.result()
                behind, forced = 0, forcer.submit(place.force)
        forced.result()


def statements_of(opening: Balances, closing: Balances) -> dict[int, _Statement]:
    """The statements of everybody who had a balance."""
    found: dict[int, _Statement] = {}
    for balances, name in ((opening, "opening"), (closing, "closing")):
        for owner, key, amount in statement_balances(balances):
            of = getattr(found.setdefault(owner, _Statement(owner)), name)
            of[key] = of.get(key, 0) + amount
    return found


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


@dataclass(frozen=True, slots=True)
class _Names:
    """What things are called in a statement."""

    stablecoin: str
    accounts: Mapping[int, str]
    symbols: Mapping[int, str]

    def symbol(self, asset: int) -> str:
        """Of a listing, or of a pool's shares."""
        return symbol_of(self.symbols, asset)

    def unit(self, pocket: int) -> str:
        return POCKETS[pocket] if pocket >= LOTS else self.stablecoin


class _Proven:
    """The nets of a batch, and their proofs."""

    def __init__(self, batches: Batches, batch: Batch) -> None:
        self.nets = batches.nets(batch.cycle)
        self.members = batches.members(batch)
        self._batch = batch
        self._tree = batches.tree(batch)
        self._index = {account: at for at, account in enumerate(self.members)}

    def proof(self, account: int) -> dict[str, Any]:
        """What a third party needs to check an account's net against the root."""
        sums, index = self.nets.get(account, Sums(0, 0)), self._index[account]
        return {
            "account": account,
            "net": money_text(sums.net_micros),
            "external": money_text(sums.external_micros),
            "entry": entry(self._batch.cycle, account, *sums).hex(),
            "index": index,
            "leaves": self._tree.count,
            "partners": [partner.hex() for partner in self._tree.proof(index)],
        }


class _Room(local):
    """What a thread writes with."""

    def __init__(self, forms: list[Form], slots: int) -> None:
        self.outs = [np.empty(PIECE_LINES * form.line_bytes, np.uint8) for form in forms]
        self.sizes = np.zeros(len(forms), np.uint64)
        self.running = np.zeros(slots, np.int64)


class _Page:
    """The files of all accounts of a batch. Accounts may be written by several threads at a time."""

    def __init__(
        self, batch: Batch, sides: Sides, statements: dict[int, _Statement], names: _Names, proven: _Proven
    ) -> None:
        self.batch = batch
        self._sides = sides
        self._statements = statements
        self._names = names
        self._proven = proven
        self._forms = [_form(sides, names, is_json) for is_json in (False, True)]
        self._room = _Room(self._forms, sides.slots)

    def accounts(self) -> list[int]:
        """Who had a balance or an entry."""
        return sorted({*self._statements, *self._sides.owners()})

    def entries(self, account: int) -> int:
        """How many it has."""
        return len(self._sides.of(account))

    def write(self, account: int, csv_file: BinaryIO, json_file: BinaryIO) -> None:
        """Both files of an account. Raises ValueError where its entries do not lead from its opening to its closing."""
        statement = self._statements.get(account, _Statement(account))
        before, after = self._json_around(statement)
        csv_file.write(self._csv_rows(statement.opening, "opening", [COLUMNS]))
        json_file.write(before)
        self._write_entries(statement, csv_file, json_file)
        csv_file.write(self._csv_rows(statement.closing, "closing", []))
        json_file.write(after)

    def _csv_rows(self, balances: dict[Key, int], code: str, rows: list[tuple[str, ...]]) -> bytes:
        """An opening or a closing; their amounts are empty."""
        for row in self._balances(balances):
            head = ("", "", "", row["balance"], row["unit"], row["symbol"], row["listing"])
            rows.append((*head, code, "", row["amount"]))
        return _csv(rows)

    def _json_around(self, statement: _Statement) -> tuple[bytes, bytes]:
        """What stands before and behind the entries."""
        page = _json(
            {
                **self._head(),
                "account": statement.account,
                "name": self._names.accounts.get(statement.account, ""),
                "opening": self._balances(statement.opening),
                "entries": [],
                "closing": self._balances(statement.closing),
                "proof": self._proven.proof(statement.account),
            }
        )
        if not self.entries(statement.account):
            return page, b""
        before, after = page.split(_NO_ENTRIES)  # its line break stands in no text of the page
        return before + _NO_ENTRIES[:-1] + b"\n", b"\n ]" + after

    def _write_entries(self, statement: _Statement, csv_file: BinaryIO, json_file: BinaryIO) -> None:
        entries, room, slot_of = self._sides.of(statement.account), self._room, self._sides.slot_of
        for key, amount in statement.opening.items():
            room.running[slot_of(*key)] = amount
        (csv_out, json_out), (csv_form, json_form) = room.outs, self._forms
        for at in range(0, len(entries), PIECE_LINES):
            piece = entries[at : at + PIECE_LINES]
            write_lines(piece, at == 0, room.running, csv_out, csv_form, json_out, json_form, room.sizes)
            csv_file.write(csv_out[: room.sizes[0]].data)
            json_file.write(json_out[: room.sizes[1]].data)
        differs = any(room.running[slot_of(*key)] != amount for key, amount in statement.closing.items())
        for key in (*statement.opening, *statement.closing):
            differs |= key not in statement.closing and room.running[slot_of(*key)] != 0
            room.running[slot_of(*key)] = 0
        if clear(entries, room.running) or differs:
            raise ValueError(f"account {statement.account}: a closing balance is not the opening and the entries")

    def _balances(self, balances: dict[Key, int]) -> list[dict[str, str]]:
        return [
            {
                "balance": POCKETS[pocket],
                "unit": self._names.unit(pocket),
                "symbol": self._names.symbol(asset),
                "listing": str(asset) if asset > 0 else "",
                "amount": str(amount) if pocket >= LOTS else money_text(amount),
            }
            for (pocket, asset), amount in sorted(balances.items())
            if amount
        ]

    def _head(self) -> dict[str, Any]:
        batch = self.batch
        return {
            "cycle": batch.cycle,
            "from_seq": batch.from_seq,
            "to_seq": batch.to_seq,
            "stablecoin": self._names.stablecoin,
            "batch_id": batch.batch_id.hex(),
            "root": batch.root.hex(),
        }

    def batch_json(self) -> bytes:
        nets = Nets(self._proven.nets, self.batch.gross_micros)
        return _json(
            {
                **self._head(),
                "previous_batch_id": self.batch.previous_id.hex(),
                "leaves": self.batch.leaves,
                "gross": money_text(nets.gross_micros),
                "net_debits": money_text(nets.debits_micros),
                "saved_by_netting_ppm": nets.efficiency_ppm,
                "accounts": [self._proven.proof(account) for account in self._proven.members],
            }
        )


_NO_ENTRIES = b'\n "entries": []'
_BETWEEN_CSV = ["", ",", ",", ",", ",", ",", ",", ",", "\n", "", ""]
_BETWEEN_JSON = [
    '  {\n   "seq": ',
    ',\n   "leg": ',
    ',\n   "time": "',
    '",\n   "balance": "',
    '",\n   "listing": ',
    ',\n   "code": "',
    '",\n   "amount": "',
    '",\n   "running_balance": "',
    '"\n  }',
    '""',
    ",\n",
]
_CSV_UNIT, _CSV_SYMBOL = ",", ","
_JSON_UNIT, _JSON_SYMBOL = '",\n   "unit": "', '",\n   "symbol": "'


def _form(sides: Sides, names: _Names, is_json: bool) -> Form:
    """The words of a CSV line, or of a JSON object."""
    said = _in_json if is_json else _in_csv
    unit, symbol = (_JSON_UNIT, _JSON_SYMBOL) if is_json else (_CSV_UNIT, _CSV_SYMBOL)
    pockets = [*range(MONEY_SLOTS), *(LOTS if asset > 0 else SHARES for asset in sides.known.tolist())]
    return Form.of(
        _BETWEEN_JSON if is_json else _BETWEEN_CSV,
        [said(_CODE_TEXT.get(code, "")) for code in range(CODES)],
        [said(POCKETS[pocket]) + unit + said(names.unit(pocket)) + symbol for pocket in pockets],
        [said(names.symbol(asset)) for asset in sides.known.tolist()],
    )


def _in_csv(text: str) -> str:
    return _csv([(text, "")]).decode()[:-2]


def _in_json(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]


def _csv(rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def symbol_of(symbols: Mapping[int, str], asset: int) -> str:
    """A listing's symbol; `pool-7` for the shares of the pool that is account 7; nothing for money."""
    return symbols.get(asset, "") if asset >= 0 else f"pool-{FIRST_SHARES - asset}"


def time_text(ts_ns: int) -> str:
    """UTC with microseconds; what is finer is cut."""
    seconds, rest = divmod(ts_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
