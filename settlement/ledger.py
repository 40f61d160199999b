"""The ledger: double entry, one record per transfer, so that an unbalanced ledger cannot be written.

A transfer takes `amount_micros` of an asset from the debit account to the credit account (lots, when the asset is
lots). All transfers of one command share its log sequence and are numbered by `leg`; they are written in one
transaction with the balances and with `applied_seq`. So the ledger is a pure function of the log: applying a command
twice does nothing, leaving one out is refused, and a ledger that was deleted comes back with the same digest.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from settlement.accounts import FIRST_OUTSIDE, FIRST_USER, ROLE_BITS, STABLECOIN, place_text
from settlement.database import Database

MOVE = np.dtype(
    [
        ("seq", "<i8"),  # of the command in the log
        ("leg", "<i8"),  # from 0, without gaps, within the command
        ("debit_account", "<i8"),
        ("credit_account", "<i8"),
        ("asset", "<i8"),
        ("amount_micros", "<i8"),  # above zero
        ("code", "<i8"),
        ("listing", "<i8"),  # the listing it was about, 0 for none: escrow and bonds belong to one
    ]
)
"""A row of the ledger: one transfer."""

MOMENT = np.dtype([("seq", "<i8"), ("ts_ns", "<i8")])
"""From this command on, the transfers happened at `ts_ns`."""


class Code(IntEnum):
    """Why a transfer was made."""

    DEPOSIT = 1
    WITHDRAWAL = 2
    HOLD = 3  # a buy order reserves
    RELEASE = 4  # and gives back what it does not need
    TRADE = 5  # price of lots bought
    TRADE_LOTS = 6
    TAKER_FEE = 7
    ESCROW_RELEASE = 8  # a short position was bought back
    DUE_FEE = 9  # taker fee of a short sale, paid when it is bought back or delivered
    BOND = 10
    BOND_RELEASE = 11
    DELIVERY_PAY = 12
    DELIVERY_REFUND = 13
    DELIVERY_DAMAGES = 14
    DELIVERY_LOTS = 15
    REBATE = 16
    SET_ASIDE = 17  # for a withdrawal that goes to a chain
    RETURNED = 18  # it could not be paid
    TRANSFER = 19
    LIEN = 20  # cash becomes frozen
    LIEN_LIFTED = 21  # and cash again, the account's own or another's
    SHARES = 22  # of a pool, made, moved or retired
    INCOME_SPLIT = 23  # of a pool's payout


class LedgerError(RuntimeError):
    """The ledger refused; nothing was written."""


class FencedError(LedgerError):
    """Another writer has claimed the ledger since; this one may not write any more."""


class LedgerGapError(LedgerError):
    """Commands are missing between what was applied and what was offered."""


@dataclass(frozen=True, slots=True)
class Posting:
    """The transfers of all commands up to `last_seq`."""

    transfers: NDArray[Any]  # MOVE, in order of seq and leg
    moments: NDArray[Any]  # MOMENT
    last_seq: int


@dataclass(frozen=True, slots=True)
class Head:
    applied_seq: int
    transfers: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Two things that should be equal and are not, and where."""

    what: str
    place: str
    expected: object
    found: object
    seq: int = 0  # 0: not known

    def __str__(self) -> str:
        at = f" at seq {self.seq}" if self.seq else ""
        return f"{self.what}: {self.place}{at}: expected {self.expected}, found {self.found}"


Balances = dict[tuple[int, int], int]
"""(asset, account) -> amount, without the zeros."""


class Ledger(Protocol):
    """What any backend offers."""

    file: Path | None
    """The SQLite file that the tables are in, if they are in one."""

    def create(self) -> None:
        """Make the tables where they are missing."""

    def claim(self) -> int:
        """Become the one writer; the epoch of that. A writer that claimed before is refused from then on."""

    def apply(self, posting: Posting, previous_seq: int) -> int:
        """Write what comes after `applied_seq`, all or nothing; returns the number of transfers written.

        `previous_seq` is the command before the posting's first. Raises LedgerGapError when it lies after
        `applied_seq`, FencedError when another writer has claimed the ledger since.
        """

    def take_gross(self) -> int:
        """What went from one owner to another since this was last asked, deposits and withdrawals apart."""

    def balances(self, accounts: Sequence[int] | None = None, at_seq: int | None = None) -> Balances:
        """Now, or as they were after the command `at_seq`."""

    def head(self) -> Head: ...

    def transfers(self, from_seq: int, to_seq: int) -> Iterator[NDArray[Any]]:
        """The MOVE rows of the commands `from_seq` to `to_seq`, both included, in order, in pieces."""

    def external(self, from_seq: int, to_seq: int) -> NDArray[Any]:
        """The MOVE rows of deposits and withdrawals among them."""

    def moments(self, from_seq: int, to_seq: int) -> NDArray[Any]:
        """The MOMENT rows that hold for some of the commands `from_seq` to `to_seq`, in order."""

    def digest(self) -> str:
        """A hash over every transfer and balance."""

    def verify(self) -> list[Difference]:
        """Where balances are not the sums of transfers, or a rule is broken; empty when all is well."""


SCHEMA = """
CREATE TABLE IF NOT EXISTS balances (
    asset INTEGER NOT NULL,
    account INTEGER NOT NULL,
    amount INTEGER NOT NULL CHECK (amount >= 0 OR asset <> 0 OR account BETWEEN 8 AND 15),
    PRIMARY KEY (asset, account)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moments (
    seq INTEGER PRIMARY KEY,
    ts_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    applied_seq INTEGER NOT NULL,
    transfers INTEGER NOT NULL,
    ts_ns INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    gross_micros INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO head VALUES (1, 0, 0, -1, 0, 0)
"""
"""What any backend has, beside its transfers."""

COLUMNS = len(MOVE.names or ())
PAGE_ROWS = 256
PAGES_AT_ONCE = 200
PAGES = f"""
CREATE TABLE IF NOT EXISTS pages (
    number INTEGER PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    has_external INTEGER NOT NULL,
    rows TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS page_of ON pages (first_seq);
CREATE INDEX IF NOT EXISTS external_pages ON pages (first_seq) WHERE has_external = 1;
CREATE VIEW IF NOT EXISTS transfers AS
SELECT {", ".join(f"json_extract(value, '$[{at}]') AS {name}" for at, name in enumerate(MOVE.names or ()))}
FROM pages, json_each('[' || rows || ']')
"""  # noqa: S608 - names of ours
"""The transfers of a SQLite file: page n has those from n * PAGE_ROWS on, each as a JSON array. A row of a table for each
costs five times as much, three times what the market takes for the order that it comes from. The view is for whoever
looks at them; it reads all pages.
"""

ROWS_PER_STATEMENT = 1_000
"""What a statement costs is shared by its rows; SQLite takes 32,766 values in one."""

# The last page that begins before the first command may have some of it.
_PAGES_OF = """
SELECT rows FROM pages WHERE
number >= COALESCE((SELECT number FROM pages WHERE first_seq < :from ORDER BY first_seq DESC, number DESC LIMIT 1), 0)
AND number <= (SELECT number FROM pages WHERE first_seq <= :to ORDER BY first_seq DESC, number DESC LIMIT 1)
ORDER BY number
"""
_EXTERNAL_PAGES_OF = """
SELECT rows FROM pages WHERE has_external = 1 AND first_seq <= :to AND first_seq >=
COALESCE((SELECT first_seq FROM pages WHERE first_seq < :from ORDER BY first_seq DESC LIMIT 1), :from)
ORDER BY number
"""
_MOVED = "CREATE TEMP TABLE IF NOT EXISTS moved (asset INTEGER, account INTEGER, change INTEGER)"
# The checks see the balance as it will be; of a plain upsert of changes they would see the change.
_MOVE_BALANCES = """
INSERT INTO balances
SELECT moved.asset, moved.account, COALESCE(balances.amount, 0) + change FROM moved
LEFT JOIN balances ON balances.asset = moved.asset AND balances.account = moved.account WHERE true
ON CONFLICT (asset, account) DO UPDATE SET amount = excluded.amount
"""
_REFUSED = """
SELECT moved.asset, moved.account, change FROM moved
LEFT JOIN balances ON balances.asset = moved.asset AND balances.account = moved.account
WHERE moved.asset = 0 AND moved.account NOT BETWEEN 8 AND 15 AND COALESCE(balances.amount, 0) + change < 0
ORDER BY moved.account LIMIT 1
"""


class SqliteLedger:
    """The embedded backend."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.file = database.path
        self._epoch: int | None = None

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)
        self._database.create(PAGES)

    def claim(self) -> int:
        with self._database.transaction():
            self._database.execute("UPDATE head SET epoch = epoch + 1")
            row = self._database.one("SELECT epoch FROM head")
        assert row is not None
        self._epoch = int(row[0])
        return self._epoch

    def execute(self, statement: str) -> None:
        """Any statement: for maintenance, and for tests that tamper."""
        self._database.execute(statement)

    def head(self) -> Head:
        row = self._database.one("SELECT applied_seq, transfers FROM head")
        assert row is not None
        return Head(*row)

    def apply(self, posting: Posting, previous_seq: int) -> int:
        with self._database.transaction():
            row = self._database.one("SELECT applied_seq, ts_ns, epoch, transfers FROM head")
            assert row is not None
            applied, ts_ns, epoch, number = row
            if epoch != self._epoch:
                raise FencedError(f"the ledger belongs to the writer of epoch {epoch}, this one has {self._epoch}")
            if previous_seq > applied:
                raise LedgerGapError(f"offered commands from {previous_seq + 1} on, but only {applied} is applied")
            if posting.last_seq <= applied:
                return 0
            rows = posting.transfers[np.searchsorted(posting.transfers["seq"], applied, "right") :]
            self._insert(rows, number)
            self._move_balances(rows)
            moments = new_moments(posting.moments[posting.moments["seq"] > applied], ts_ns)
            self._database.execute_many("INSERT INTO moments VALUES (?, ?)", moments.tolist())
            self._database.execute(
                "UPDATE head SET applied_seq = ?, transfers = transfers + ?, ts_ns = ?, gross_micros = gross_micros + ?",
                (posting.last_seq, len(rows), int(moments["ts_ns"][-1]) if len(moments) else ts_ns, gross_of(rows)),
            )
        return len(rows)

    def take_gross(self) -> int:
        row = self._database.one("SELECT gross_micros FROM head")
        assert row is not None
        self._database.execute("UPDATE head SET gross_micros = 0")
        return int(row[0])

    def _insert(self, rows: NDArray[Any], number: int) -> None:
        """The rows from transfer `number` on: into the last page while it has room, then into new ones."""
        if not len(rows):
            return
        check_transfers(rows)
        text, ends = text_of(rows)
        first_page, filled = divmod(number, PAGE_ROWS)
        starts = np.arange(-filled, len(rows), PAGE_ROWS)
        starts[0] = 0
        external = np.logical_or.reduceat(is_external(rows), starts).tolist()
        stops = np.append(starts[1:], len(rows)) - 1
        texts = [text[start:stop] for start, stop in zip([0, *ends[stops[:-1]]], ends[stops] - 1, strict=True)]
        pages = range(first_page, first_page + len(starts))
        made = list(zip(pages, rows["seq"][starts].tolist(), external, texts, strict=True))
        if filled:
            page, _, has_external, more = made.pop(0)
            self._database.execute(
                "UPDATE pages SET rows = rows || ',' || ?, has_external = has_external OR ? WHERE number = ?",
                (more, has_external, page),
            )
        self._database.execute_many("INSERT INTO pages VALUES (?, ?, ?, ?)", made)

    def _insert_many(self, table: str, rows: NDArray[np.int64]) -> None:
        """Many rows to a statement, and the rest one by one."""
        columns, whole = rows.shape[1], len(rows) - len(rows) % ROWS_PER_STATEMENT
        row = f"({', '.join('?' * columns)})"
        joined = rows[:whole].reshape(-1, columns * ROWS_PER_STATEMENT)
        insert = f"INSERT INTO {table} VALUES {row}"  # noqa: S608 - a name of ours, and question marks
        self._database.execute_many(insert + f", {row}" * (ROWS_PER_STATEMENT - 1), joined.tolist())
        self._database.execute_many(insert, rows[whole:].tolist())

    def _move_balances(self, rows: NDArray[Any]) -> None:
        self._database.execute(_MOVED)
        self._database.execute("DELETE FROM moved")
        self._insert_many("moved", np.stack(changes_of(rows), 1))
        try:
            self._database.execute(_MOVE_BALANCES)
        except sqlite3.IntegrityError as error:
            raise LedgerError(self._refusal()) from error

    def _refusal(self) -> str:
        """Which change was refused."""
        found = self._database.one(_REFUSED)
        if found is None:
            return "a balance was refused"
        asset, account, change = found
        return f"{place_text(asset, account)} would fall below zero by a change of {change}"

    def balances(self, accounts: Sequence[int] | None = None, at_seq: int | None = None) -> Balances:
        if at_seq is None or at_seq >= self.head().applied_seq:
            found = {
                (asset, account): amount
                for asset, account, amount in self._database.rows("SELECT * FROM balances WHERE amount <> 0")
            }
        else:
            found = self._balances_at(at_seq)
        if accounts is None:
            return found
        wanted = set(accounts)
        return {key: amount for key, amount in found.items() if key[1] in wanted}

    def _balances_at(self, seq: int) -> Balances:
        total: Balances = {}
        for rows in self.transfers(1, seq):
            for asset, account, change in zip(*(column.tolist() for column in changes_of(rows)), strict=True):
                total[asset, account] = total.get((asset, account), 0) + change
        return {key: amount for key, amount in total.items() if amount}

    def transfers(self, from_seq: int, to_seq: int) -> Iterator[NDArray[Any]]:
        for pages in self._database.chunks(_PAGES_OF, {"from": from_seq, "to": to_seq}, PAGES_AT_ONCE):
            rows = rows_of(",".join(page[0] for page in pages))
            if len(rows := rows[(rows["seq"] >= from_seq) & (rows["seq"] <= to_seq)]):
                yield rows

    def external(self, from_seq: int, to_seq: int) -> NDArray[Any]:
        pages = self._database.rows(_EXTERNAL_PAGES_OF, {"from": from_seq, "to": to_seq})
        rows = rows_of(",".join(page[0] for page in pages))
        return rows[is_external(rows) & (rows["seq"] >= from_seq) & (rows["seq"] <= to_seq)]

    def moments(self, from_seq: int, to_seq: int) -> NDArray[Any]:
        query = (
            "SELECT seq, ts_ns FROM moments WHERE seq <= :to AND seq >="
            " COALESCE((SELECT MAX(seq) FROM moments WHERE seq <= :from), :from) ORDER BY seq"
        )
        return np.array(self._database.rows(query, {"from": from_seq, "to": to_seq}), MOMENT)

    def digest(self) -> str:
        with self._database.reading():
            return digest_of(self)

    def verify(self) -> list[Difference]:
        with self._database.reading():
            return Audit(self).run()


def check_transfers(rows: NDArray[Any]) -> None:
    """Raises LedgerError for a row that no ledger may have."""
    from settlement.fast.pages import first_unfit  # noqa: PLC0415 - compiled code takes longer to load than all the rest

    if (at := first_unfit(_numbers(rows))) >= 0:
        raise LedgerError(f"a transfer of command {rows['seq'][at]} fails the checks: {rows[at]}")


def text_of(rows: NDArray[Any]) -> tuple[str, NDArray[np.int64]]:
    """Transfers (MOVE) as JSON arrays, a comma behind each, and where each ends."""
    from settlement.fast.pages import ROW_BYTES, write_rows  # noqa: PLC0415 - as above

    out, ends = np.empty(len(rows) * ROW_BYTES, np.uint8), np.empty(len(rows), np.int64)
    write_rows(_numbers(rows), out, ends)
    return str(out[: ends[-1]].data, "ascii"), ends


def rows_of(text: str) -> NDArray[Any]:
    """And back. Raises LedgerError where there is anything else."""
    from settlement.fast.pages import read_rows  # noqa: PLC0415 - as above

    numbers = np.empty(text.count("[") * COLUMNS, "<i8")
    if text and read_rows(np.frombuffer(text.encode(), np.uint8), numbers) != len(numbers):
        raise LedgerError("a page of transfers is damaged")
    return numbers.view(MOVE)


def _numbers(rows: NDArray[Any]) -> NDArray[np.int64]:
    return np.ascontiguousarray(rows).view("<i8").reshape(len(rows), COLUMNS)


def is_external(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Which transfers (MOVE) are deposits and withdrawals."""
    found: NDArray[np.bool_] = (rows["code"] == Code.DEPOSIT) | (rows["code"] == Code.WITHDRAWAL)
    return found


def gross_of(rows: NDArray[Any]) -> int:
    """The value of the transfers of money between two owners, exact however many there are."""
    between = (rows["debit_account"] >> ROLE_BITS) != (rows["credit_account"] >> ROLE_BITS)
    between &= (rows["asset"] == STABLECOIN) & ~is_external(rows)
    amounts = rows["amount_micros"][between]
    return (int((amounts >> 32).sum()) << 32) + int((amounts & 0xFFFF_FFFF).sum())


def new_moments(moments: NDArray[Any], ts_ns: int) -> NDArray[Any]:
    """A row only where the time is another one than before (at first `ts_ns`), however the commands were cut."""
    before = np.concatenate([np.asarray([ts_ns], "<i8"), moments["ts_ns"][:-1]])[: len(moments)]
    changed: NDArray[Any] = moments[moments["ts_ns"] != before]
    return changed


def digest_of(ledger: Ledger) -> str:
    """The hash over everything: the same for the same log, whatever the backend. One state must be read throughout."""
    head = ledger.head()
    state = hashlib.sha256(f"{head.applied_seq} {head.transfers}\n".encode())
    for rows in ledger.transfers(0, head.applied_seq):
        state.update(rows.tobytes())
    state.update(ledger.moments(0, head.applied_seq).tobytes())
    for (asset, account), amount in sorted(ledger.balances().items()):
        state.update(f"{asset} {account} {amount}\n".encode())
    return state.hexdigest()


def changes_of(rows: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(assets, accounts, changes): what each balance moves by in all, in order of asset and account.

    A sum may wrap on the way and comes out right, because a balance fits in an int64.
    """
    from settlement.fast.changes import FREE, add_changes  # noqa: PLC0415 - as above

    sums = np.empty((2 * len(rows), 3), np.int64)
    places = np.full(1 << (4 * len(rows) | 1).bit_length(), FREE)
    sums = sums[: add_changes(_numbers(rows), places, sums)]
    assets, accounts, changes = sums[np.lexsort((sums[:, 1], sums[:, 0]))].T
    return assets, accounts, changes


def group_starts(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a new combination begins in sorted columns."""
    if not len(columns[0]):
        return np.zeros(0, np.int64)
    new = np.zeros(len(columns[0]), bool)
    new[0] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new)


class Audit:
    """One pass over all transfers: rules of the rows, no money below zero at any prefix, balances equal the sums."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.found: list[Difference] = []
        self.sums: Balances = {}
        self.count = 0
        self.last = (0, -1)  # seq and leg of the row before

    def run(self) -> list[Difference]:
        head = self.ledger.head()
        for rows in self.ledger.transfers(-(2**63), 2**63 - 1):
            self.count += len(rows)
            self.check_order(rows)
            self.check_prefixes(rows)
        if self.count != head.transfers:
            self.found.append(Difference("number of transfers", "head", head.transfers, self.count))
        if self.last[0] > head.applied_seq:
            self.found.append(Difference("last transfer", "head", f"<= {head.applied_seq}", self.last[0]))
        self.check_balances()
        return self.found

    def check_order(self, rows: NDArray[Any]) -> None:
        """Legs count from zero in each command: a row taken out or put in shows."""
        seq = np.concatenate([[self.last[0]], rows["seq"]])
        leg = np.concatenate([[self.last[1]], rows["leg"]])
        expected = np.where(seq[1:] == seq[:-1], leg[:-1] + 1, 0)
        for at in np.flatnonzero(leg[1:] != expected).tolist():
            row = rows[at]
            self.found.append(Difference("leg", "transfers", int(expected[at]), int(row["leg"]), int(row["seq"])))
        self.last = (int(rows["seq"][-1]), int(rows["leg"][-1]))

    def check_prefixes(self, rows: NDArray[Any]) -> None:
        """Running balances of each account, with those before this piece carried in `sums`."""
        assets = np.repeat(rows["asset"], 2)
        accounts = np.stack([rows["debit_account"], rows["credit_account"]], 1).ravel()
        amounts = np.stack([-rows["amount_micros"], rows["amount_micros"]], 1).ravel()
        order = np.lexsort((accounts, assets))  # stable: within an account the rows stay in order
        assets, accounts, amounts = assets[order], accounts[order], amounts[order]
        starts = group_starts(assets, accounts)
        keys = list(zip(assets[starts].tolist(), accounts[starts].tolist(), strict=True))
        before = np.array([self.sums.get(key, 0) for key in keys], np.int64)
        total = np.cumsum(amounts)
        group = np.searchsorted(starts, np.arange(len(amounts)), "right") - 1
        running = total - (total[starts] - amounts[starts] - before)[group]
        below = (running < 0) & (assets == STABLECOIN) & ((accounts >= FIRST_USER) | (accounts < FIRST_OUTSIDE))
        for at in np.flatnonzero(below).tolist():
            seq = int(rows["seq"][order[at] // 2])
            place = place_text(STABLECOIN, int(accounts[at]))
            self.found.append(Difference("money below zero", place, ">= 0", int(running[at]), seq))
        ends = np.append(starts[1:], len(amounts)) - 1
        self.sums.update(zip(keys, running[ends].tolist(), strict=True))

    def check_balances(self) -> None:
        found = self.ledger.balances()
        for key in sorted(found.keys() | self.sums.keys()):
            asset, account = key
            expected, have = self.sums.get(key, 0), found.get(key, 0)
            if expected != have:
                place = place_text(asset, account)
                self.found.append(Difference("balance against its transfers", place, expected, have))
        for asset in {key[0] for key in found}:
            total = sum(amount for key, amount in found.items() if key[0] == asset)
            if total:
                self.found.append(Difference("sum of an asset's balances", f"asset {asset}", 0, total))
