"""Does everything agree? Ledger with engine, balances with transfers, batches with the ledger, statements with both.

Nothing here changes anything, and nothing is taken from what is being checked where it can be computed again. Each
difference names its place; an empty list is the proof.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from settlement.accounts import (
    CUSTODY,
    FEES,
    FIRST_SHARES,
    FIRST_USER,
    STABLECOIN,
    Role,
    place_text,
    shares_of,
    user_account,
)
from settlement.batches import Batch, BatchState
from settlement.delivery import Delivery, credited_ppm, sums_due
from settlement.flows import WithdrawalState
from settlement.ledger import Balances, Code, Difference, Ledger, changes_of
from settlement.liabilities import assets_micros
from settlement.meter import Meter
from settlement.metering import MeteringError
from settlement.netting import Sums
from settlement.proofs import NO_BATCH, ProofError, batch_hash
from settlement.service import OUTBOX_NAME, Books
from settlement.vault_part import built_roots, fault, split

Dump = dict[str, Any]
"""What `Engine.dump` returns."""


def verify(books: Books, engine_dump: Dump | None = None) -> list[Difference]:
    """Every difference found, in the order ledger, engine, deliveries, batches, statements. Empty when all is well.

    The books may be ahead of the dump: then they are compared as they were at its command. Without a dump only the
    books are checked.
    """
    found = books.ledger.verify()
    with books.database.reading():
        if engine_dump is not None:
            found += against_engine(books, engine_dump)
        found += _uncredited_deposits(books)
        found += _stuck_deliveries(books)
        found += check_meters(books)
        found += check_batches(books)
        found += check_statements(books)
    return found


def against_engine(books: Books, dump: Dump) -> list[Difference]:
    """The ledger beside the engine: cash, holds, escrow and bonds, lots, fees, custody, and conservation."""
    seq, applied = int(dump["applied_seq"]), books.ledger.head().applied_seq
    if applied < seq:
        return [Difference("applied commands", "ledger against engine", seq, applied)]
    balances = books.ledger.balances(at_seq=seq)
    found = _compare(
        "money of the engine and the ledger",
        _engine_money(dump),
        _without_withdrawing(balances),
        seq,
    )
    lots = {key: n for key, n in balances.items() if key[0] > STABLECOIN or key[0] < FIRST_SHARES}
    found += _compare("lots and shares", _engine_lots(books, dump), lots, seq)
    found += _withdrawing(books, balances, dump, seq)
    found += _compare_positions(books, dump, seq)
    found += _conservation(dump, seq)
    return found


def _engine_money(dump: Dump) -> Balances:
    """The ledger that the engine's state stands for."""
    money: Balances = defaultdict(int)
    for account, (cash, held, _, _, frozen, *_) in dump["accounts"].items():
        money[STABLECOIN, user_account(account, Role.AVAILABLE)] = cash
        money[STABLECOIN, user_account(account, Role.HELD)] = held
        money[STABLECOIN, user_account(account, Role.FROZEN)] = frozen
    for (account, _), (_, _, _, _, escrow, _, bond) in dump["positions"].items():
        money[STABLECOIN, user_account(account, Role.ESCROW)] += escrow
        money[STABLECOIN, user_account(account, Role.BOND)] += bond
    money[STABLECOIN, FEES] = dump["house_fees_micros"]
    money[STABLECOIN, CUSTODY] = dump["withdrawals_micros"] - dump["deposits_micros"]
    return money


def _without_withdrawing(balances: Balances) -> Balances:
    """The ledger's money as the engine sees it: what was set aside for a chain has left."""
    money: Balances = defaultdict(int)
    for (asset, account), amount in balances.items():
        if asset == STABLECOIN:
            away = account >= FIRST_USER and account & (FIRST_USER - 1) == Role.WITHDRAWING
            money[asset, CUSTODY if away else account] += amount
    return money


def _withdrawing(books: Books, balances: Balances, dump: Dump, seq: int) -> list[Difference]:
    """What is set aside, beside the withdrawals that were open after a command, and beside the engine's own count."""
    expected: Balances = defaultdict(int)
    for row in books.flows.withdrawals(
        "state <> ? AND seq <= ? AND (done_seq IS NULL OR done_seq > ?)", (WithdrawalState.REFUSED, seq, seq)
    ):
        expected[STABLECOIN, user_account(row.account, Role.WITHDRAWING)] += row.amount_micros
    have = {
        (asset, account): amount
        for (asset, account), amount in balances.items()
        if asset == STABLECOIN and account >= FIRST_USER and account & (FIRST_USER - 1) == Role.WITHDRAWING
    }
    counted = {(STABLECOIN, user_account(account, Role.WITHDRAWING)): n for account, n in dump["withdrawing"].items()}
    return _compare("withdrawing", expected, have, seq) + _compare("withdrawing, by the engine", counted, have, seq)


def _engine_lots(books: Books, dump: Dump) -> Balances:
    listed = books.registry.listed_at(dump["applied_seq"])
    lots = {
        (listed.get(instrument, 0), user_account(account)): position[0]
        for (account, instrument), position in dump["positions"].items()
    }
    for pool, held in dump["shares"].items():
        lots |= {(shares_of(pool), user_account(account)): shares for account, shares in held.items()}
        # Of a share that the pool holds itself it is both debtor and creditor.
        lots[shares_of(pool), user_account(pool)] = held.get(pool, 0) - sum(held.values())
    return lots


def _compare(what: str, expected: Balances, have: Balances, seq: int) -> list[Difference]:
    """What is expected against what is there, zeros and absences being equal."""
    return [
        Difference(what, place_text(*key), expected.get(key, 0), have.get(key, 0), seq)
        for key in sorted(expected.keys() | have.keys())
        if expected.get(key, 0) != have.get(key, 0)
    ]


def _compare_positions(books: Books, dump: Dump, seq: int) -> list[Difference]:
    """Escrow and bond of each position: the ledger's totals could be right and its listings wrong."""
    expected: Balances = {}
    listed = books.registry.listed_at(seq)
    for (account, instrument), (_, _, _, _, escrow, _, bond) in dump["positions"].items():
        asset = listed.get(instrument, -instrument)
        expected[asset, user_account(account, Role.ESCROW)] = escrow
        expected[asset, user_account(account, Role.BOND)] = bond
    return _compare("escrow and bond by listing", expected, _by_listing(books.ledger, seq), seq)


def _by_listing(ledger: Ledger, seq: int) -> Balances:
    """(listing, account) -> what members had in escrow and bond for it after a command."""
    found: Balances = defaultdict(int)
    for rows in ledger.transfers(1, seq):
        money = rows[rows["asset"] == STABLECOIN]
        money["asset"] = money["listing"]
        for listing, account, change in zip(*(column.tolist() for column in changes_of(money)), strict=True):
            if account >= FIRST_USER and account & (FIRST_USER - 1) in (Role.ESCROW, Role.BOND):
                found[listing, account] += change
    return found


def _conservation(dump: Dump, seq: int) -> list[Difference]:
    """The engine's own identity: everything members and house have is what came in and did not go out."""
    members = sum(cash + held + frozen for cash, held, _, _, frozen, *_ in dump["accounts"].values())
    positions = sum(row[4] + row[6] for row in dump["positions"].values())
    total = members + positions + dump["house_fees_micros"]
    external = dump["deposits_micros"] - dump["withdrawals_micros"]
    return [] if total == external else [Difference("conservation", "engine", external, total, seq)]


def _uncredited_deposits(books: Books) -> list[Difference]:
    """Each log of a chain is credited once: a second DEPOSIT for it is in the ledger and not among the credits."""
    credited = {row[0] for row in books.database.rows("SELECT seq FROM credits")}
    rows = books.ledger.external(1, books.ledger.head().applied_seq)
    rows = rows[(rows["code"] == Code.DEPOSIT) & (rows["asset"] < STABLECOIN)]
    return [
        Difference("deposit from a chain", f"token {-asset}", "credited once", f"{amount} once more", seq)
        for seq, asset, amount in rows[["seq", "asset", "amount_micros"]].tolist()
        if seq not in credited
    ]


def _stuck_deliveries(books: Books) -> list[Difference]:
    query = "SELECT asset, provider, receiver, lots, reason FROM deliveries WHERE reason <> 0 AND done_seq IS NULL"
    found = [
        Difference(
            "delivery refused by the engine",
            f"listing {asset} from {provider} to {receiver}",
            f"{lots} lots",
            f"reason {reason}",
        )
        for asset, provider, receiver, lots, reason in books.database.rows(query)
    ]
    query = "SELECT asset, unplanned_seq FROM closed_listings WHERE unplanned_seq IS NOT NULL AND delisted_seq IS NULL"
    for asset, seq in books.database.rows(query):
        found.append(Difference("delivery", f"listing {asset}", "as planned", "another one", seq))
    return found


def check_meters(books: Books) -> list[Difference]:
    """What metered deliveries paid, beside what the stored reports add up to."""
    found: list[Difference] = []
    query = (
        "SELECT asset, refund_micros, damages_micros + shortfall_micros, provider, receiver, first_lot, lots, share_micros,"
        " done_seq FROM deliveries WHERE done_seq IS NOT NULL ORDER BY asset, place"
    )
    meters: dict[tuple[int, int], Meter] = {}
    for asset, refund, damages, *row, seq in books.database.rows(query):
        delivery = Delivery(*row)
        if not books.metering.reports_path(asset, delivery.provider).exists():
            continue
        place = f"listing {asset} from {delivery.provider} to {delivery.receiver}"
        try:
            meter = meters.get((asset, delivery.provider)) or meter_of(books, asset, delivery.provider)
        except (MeteringError, LookupError) as error:
            found.append(Difference("meter reports", place, "whole", str(error), seq))
            continue
        meters[asset, delivery.provider] = meter
        listing = books.registry.listing_of(asset)
        cover = books.deliveries.covers.of((asset, delivery.provider, delivery.receiver))
        credited = credited_ppm(delivery, listing, meter)
        expected = sums_due(delivery, listing, books.indices.price_of(asset), credited, cover)
        # The shortfall also holds unpaid fees, so it is an upper bound of the damages that were not found.
        if refund != expected[0] or damages < expected[1]:
            found.append(Difference("delivery against the meter", place, expected, (refund, damages), seq))
    return found


def meter_of(books: Books, asset: int, provider: int) -> Meter:
    """A provider's meter as its stored reports lead, whoever asks. Raises MeteringError."""
    listing = books.registry.listing_of(asset)
    lots = books.database.one(
        "SELECT SUM(lots) FROM deliveries WHERE asset = ? AND provider = ?", (asset, provider)
    )  # fmt: skip
    assert lots is not None
    return books.metering.open(listing, provider, lots[0], books.catalogue.class_by_id[listing.class_id].watts_per_lot)


def check_batches(books: Books) -> list[Difference]:
    """Each batch again from the ledger's transfers: nets, root, id, chain and closing balances."""
    found: list[Difference] = []
    previous, last_seq, balances = NO_BATCH, 0, Balances()
    for number, batch in enumerate(books.batches.all(), 1):
        place = f"batch of cycle {batch.cycle}"
        if (batch.cycle, batch.from_seq) != (number, last_seq + 1):
            found.append(Difference("cycle", place, (number, last_seq + 1), (batch.cycle, batch.from_seq)))
        if batch.state < BatchState.FROZEN:
            found.append(Difference("state", place, BatchState.FROZEN.name, batch.state.name, batch.to_seq))
        else:
            found += [
                Difference(what, place, expected, have, batch.to_seq)
                for what, expected, have in _check_frozen(books, batch, previous)
                if expected != have
            ]
        balances = _add_changes(books, balances, batch)
        owed = sum(n for (asset, account), n in balances.items() if asset == STABLECOIN and account >= FIRST_USER)
        held = assets_micros(balances)
        if owed > held:
            found.append(Difference("liabilities", place, f"<= {held}", owed, batch.to_seq))
        found += _compare(f"{place}: closing", balances, books.batches.closing(batch.cycle), batch.to_seq)
        previous, last_seq = batch.batch_id, batch.to_seq
    return found


def _check_frozen(books: Books, batch: Batch, previous: bytes) -> Iterator[tuple[str, object, object]]:
    """(what, expected, found) of everything a frozen batch says."""
    nets, root = books.batches.recompute(batch, books.ledger)
    stored = books.batches.nets(batch.cycle)
    for account in sorted(nets.sums.keys() | stored.keys()):
        nothing = Sums(0, 0)
        yield f"net of account {account}", nets.sums.get(account, nothing), stored.get(account, nothing)
    yield "sum of nets", 0, sum(row.net_micros for row in nets.sums.values())
    yield "gross", nets.gross_micros, batch.gross_micros
    yield "leaves", len(books.batches.members(batch)), batch.leaves
    yield "root", root.hex(), batch.root.hex()
    yield "id of the batch before", previous.hex(), batch.previous_id.hex()
    try:
        expected = batch_hash(batch.cycle, (batch.from_seq, batch.to_seq), nets.gross_micros, root, previous).hex()
    except ProofError as error:
        expected = str(error)
    yield "batch id", expected, batch.batch_id.hex()


def _add_changes(books: Books, balances: Balances, batch: Batch) -> Balances:
    total = dict(balances)
    for rows in books.ledger.transfers(batch.from_seq, batch.to_seq):
        for asset, account, change in zip(*(column.tolist() for column in changes_of(rows)), strict=True):
            total[asset, account] = total.get((asset, account), 0) + change
    return total


def check_statements(books: Books) -> list[Difference]:
    """The files of every exported batch beside the same files rendered again, byte by byte."""
    found: list[Difference] = []
    for batch in books.batches.all():
        if batch.exported and batch.state >= BatchState.FROZEN:
            try:
                found += _check_files(books, batch, books.statements.directory / str(batch.cycle))
            except (ValueError, LookupError) as error:  # of books that were tampered with
                found.append(Difference("statement", str(batch.cycle), "can be rendered", repr(error), batch.to_seq))
    return found


def _check_files(books: Books, batch: Batch, directory: Path) -> Iterator[Difference]:
    roots = built_roots(directory.parent.with_name(OUTBOX_NAME), batch.cycle)
    present = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    for name, data in books.statements.render(batch):
        place = f"{directory.name}/{name}"
        if name not in present:
            yield Difference("statement", place, "a file", "none", batch.to_seq)
            continue
        present.discard(name)
        have, papers = split((directory / name).read_bytes())
        for reason in filter(None, (fault(paper, roots) for paper in papers)):
            yield Difference("statement", f"{place} vault", "a proof of a root of that cycle", reason, batch.to_seq)
        if have != data:
            line = _first_difference(data, have)
            yield Difference(
                "statement", f"{place} line {line}", "as rendered from the ledger", "other bytes", batch.to_seq
            )
    for name in sorted(present):
        yield Difference("statement", f"{directory.name}/{name}", "no such file", "a file", batch.to_seq)


def _first_difference(one: bytes, other: bytes) -> int:
    """The number of the first line in which two files differ."""
    lines = zip(one.split(b"\n"), other.split(b"\n"), strict=False)
    return next((number for number, (a, b) in enumerate(lines, 1) if a != b), one.count(b"\n") + 1)
