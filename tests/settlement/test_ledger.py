"""One set of tests for both backends, SQLite and a real PostgreSQL server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from settlement.accounts import CUSTODY, STABLECOIN, Role, user_account
from settlement.database import Database
from settlement.ledger import (
    MOMENT,
    MOVE,
    PAGE_ROWS,
    Code,
    FencedError,
    LedgerError,
    LedgerGapError,
    Posting,
    SqliteLedger,
    changes_of,
    rows_of,
    text_of,
)
from settlement.postgres import PostgresLedger
from tests.settlement.change_books import change_books

A, B, ESCROW_A = user_account(1), user_account(2), user_account(1, Role.ESCROW)
LOTS = 77


def posting(last_seq: int, *rows: tuple[int, int, int, int, int]) -> Posting:
    """Rows are (seq, debit, credit, asset, amount); times are ten times the sequence, in thirds."""
    moves = np.zeros(len(rows), MOVE)
    for at, (seq, debit, credit, asset, amount) in enumerate(rows):
        leg = sum(row[0] == seq for row in rows[:at])
        moves[at] = (seq, leg, debit, credit, asset, amount, Code.TRADE, 0)
    moments = np.zeros(len(rows), MOMENT)
    moments["seq"], moments["ts_ns"] = moves["seq"], moves["seq"] // 3 * 10
    keep = np.ones(len(rows), bool)
    keep[1:] = moments["ts_ns"][1:] != moments["ts_ns"][:-1]
    return Posting(moves, moments[keep], last_seq)


AnyLedger = SqliteLedger | PostgresLedger


class Backend:
    """Opens ledgers: new ones, and more writers on the newest."""

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self._place = place
        self._numbers = count(1)
        self._newest = 0

    @contextmanager
    def new(self) -> Iterator[AnyLedger]:
        self._newest = next(self._numbers)
        if self.name == "postgres":
            with PostgresLedger(self._place) as admin:
                admin.execute(f"DROP SCHEMA IF EXISTS l{self._newest} CASCADE")
                admin.execute(f"CREATE SCHEMA l{self._newest}")
        with self.writer() as made:
            yield made

    @contextmanager
    def writer(self) -> Iterator[AnyLedger]:
        """One more writer, that has claimed the newest ledger."""
        if self.name == "postgres":
            with PostgresLedger(f"{self._place} options='-c search_path=l{self._newest}'") as made:
                made.create()
                made.claim()
                yield made
        else:
            with Database(Path(self._place) / f"{self._newest}.sqlite") as database:
                embedded = SqliteLedger(database)
                embedded.create()
                embedded.claim()
                yield embedded


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "postgres":
        return Backend("postgres", request.getfixturevalue("postgres"))
    return Backend("sqlite", str(tmp_path))


@pytest.fixture
def ledger(backend: Backend) -> Iterator[AnyLedger]:
    with backend.new() as made:
        yield made


def test_balances_follow_the_transfers(ledger: AnyLedger) -> None:
    rows = [(1, CUSTODY, A, STABLECOIN, 100), (2, A, ESCROW_A, STABLECOIN, 30), (4, A, B, LOTS, 5)]
    assert ledger.apply(posting(5, *rows), 0) == 3
    expected = {(0, CUSTODY): -100, (0, A): 70, (0, ESCROW_A): 30, (LOTS, A): -5, (LOTS, B): 5}
    assert ledger.balances() == expected
    assert ledger.balances([A]) == {(0, A): 70, (LOTS, A): -5}
    assert ledger.balances(at_seq=1) == {(0, CUSTODY): -100, (0, A): 100}
    assert ledger.balances(at_seq=3) == {(0, CUSTODY): -100, (0, A): 70, (0, ESCROW_A): 30}
    assert ledger.balances(at_seq=0) == {}
    assert (ledger.head().applied_seq, ledger.head().transfers) == (5, 3)
    assert ledger.verify() == []


def test_what_was_applied_changes_nothing(ledger: AnyLedger) -> None:
    first = posting(3, (1, CUSTODY, A, 0, 100), (3, A, B, 0, 1))
    ledger.apply(first, 0)
    digest = ledger.digest()
    assert ledger.apply(first, 0) == 0
    assert ledger.apply(posting(2, (1, CUSTODY, A, 0, 100)), 0) == 0
    assert ledger.digest() == digest
    assert ledger.apply(posting(4, (1, CUSTODY, A, 0, 100), (3, A, B, 0, 1), (4, A, B, 0, 2)), 0) == 1
    assert ledger.balances([B]) == {(0, B): 3}


def test_a_gap_is_refused(ledger: AnyLedger) -> None:
    ledger.apply(posting(3, (1, CUSTODY, A, 0, 100)), 0)
    digest = ledger.digest()
    with pytest.raises(LedgerGapError, match="from 5 on, but only 3"):
        ledger.apply(posting(6, (5, A, B, 0, 1)), 4)
    assert ledger.digest() == digest


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((2, A, B, 0, 101), "account 1.available asset 0 would fall below zero"),
        ((2, B, A, 0, 1), "account 2.available asset 0 would fall below zero"),
        ((2, A, A, 0, 1), "(?i)check"),
        ((2, A, B, 0, 0), "(?i)check"),
        ((2, A, B, 0, -1), "(?i)check"),
    ],
)
def test_a_bad_transfer_is_refused_with_all_of_its_batch(
    ledger: AnyLedger, row: tuple[int, int, int, int, int], message: str
) -> None:
    ledger.apply(posting(1, (1, CUSTODY, A, 0, 100)), 0)
    digest = ledger.digest()
    with pytest.raises(LedgerError, match=message):
        ledger.apply(posting(3, (2, A, B, LOTS, 9), row), 1)
    assert ledger.digest() == digest
    assert ledger.balances([B]) == {}


def test_the_refusal_names_the_account_that_falls_below(ledger: AnyLedger) -> None:
    """Also when others of the batch have moved already, and nearly to zero."""
    members = [user_account(number) for number in range(1, 60)]
    ledger.apply(posting(1, *((1, CUSTODY, member, 0, 100) for member in members)), 0)
    digest = ledger.digest()
    rows = [(2, member, CUSTODY, 0, 101 if member == members[40] else 90) for member in members]
    with pytest.raises(LedgerError, match=r"account 41\.available asset 0 would fall below zero"):
        ledger.apply(posting(2, *rows), 1)
    assert ledger.digest() == digest


def test_money_may_not_be_negative_even_for_a_moment_inside_a_batch(ledger: AnyLedger) -> None:
    """The balance at the end of the batch is fine, so only the audit sees it."""
    ledger.apply(posting(4, (1, CUSTODY, A, 0, 10), (2, B, A, 0, 7), (4, A, B, 0, 9)), 0)
    assert [(d.what, d.place, d.seq, d.found) for d in ledger.verify()] == [
        ("money below zero", "account 2.available asset 0", 2, -7),
    ]


moves = st.tuples(st.sampled_from([A, B, ESCROW_A]), st.sampled_from([A, B, ESCROW_A]), st.integers(1, 1000)).filter(
    lambda move: move[0] != move[1]
)


def many(first_seq: int, transfers: int, legs: int = 5) -> Posting:
    """Deposits to a thousand members, then transfers between them, several to a command."""
    pick = np.random.default_rng(transfers)
    rows = np.zeros(transfers, MOVE)
    rows["seq"], rows["leg"] = first_seq + np.arange(transfers) // legs, np.arange(transfers) % legs
    members = (1 + np.arange(1_000)) << 4
    rows["debit_account"][:1_000], rows["credit_account"][:1_000] = CUSTODY, members
    rows["amount_micros"][:1_000] = 10**12
    payer, step = pick.integers(0, 1_000, transfers - 1_000), pick.integers(1, 1_000, transfers - 1_000)
    rows["debit_account"][1_000:], rows["credit_account"][1_000:] = members[payer], members[(payer + step) % 1_000]
    rows["amount_micros"][1_000:] = pick.integers(1, 10**6, transfers - 1_000)
    rows["code"] = Code.TRADE
    moments = np.zeros(transfers // legs, MOMENT)
    moments["seq"] = np.unique(rows["seq"])
    moments["ts_ns"] = moments["seq"] // 100 * 100
    return Posting(rows, moments, int(rows["seq"][-1]))


def test_a_million_transfers_rebuilt_are_the_same_to_the_byte(backend: Backend) -> None:
    whole = many(1, 1_000_000)
    with backend.new() as ledger:
        ledger.apply(whole, 0)
        digest = ledger.digest()
        assert ledger.head().transfers == 1_000_000
    with backend.new() as ledger:
        previous = 0
        for last in (1, 60_000, 60_001, 200_000):
            rows = whole.transfers[(whole.transfers["seq"] > previous) & (whole.transfers["seq"] <= last)]
            ledger.apply(Posting(rows, whole.moments[whole.moments["seq"] <= last], last), previous)
            previous = last
        assert ledger.digest() == digest
        assert ledger.verify() == []


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(moves, max_size=30), st.lists(st.integers(1, 30)))
def test_the_digest_does_not_depend_on_the_batches(
    backend: Backend, made: list[tuple[int, int, int]], cuts: list[int]
) -> None:
    rows = [(1, CUSTODY, account, STABLECOIN, 10**6) for account in (A, B, ESCROW_A)]
    rows += [(2 + at // 2, debit, credit, STABLECOIN, amount) for at, (debit, credit, amount) in enumerate(made)]
    last = rows[-1][0]
    digests = set()
    for bounds in ([last], sorted({last, *(cut for cut in cuts if cut < last)})):
        with backend.new() as ledger:
            previous = 0
            for bound in bounds:
                ledger.apply(posting(bound, *(row for row in rows if previous < row[0] <= bound)), previous)
                previous = bound
            assert ledger.verify() == []
            assert sum(ledger.balances().values()) == 0
            digests.add(ledger.digest())
    assert len(digests) == 1


@given(st.lists(st.tuples(moves, st.integers(0, 2)), max_size=30))
def test_changes_are_the_sums_of_a_dictionary(made: list[tuple[tuple[int, int, int], int]]) -> None:
    rows = posting(1, *((1, debit, credit, asset, amount) for (debit, credit, amount), asset in made)).transfers
    expected: dict[tuple[int, int], int] = {}
    for (debit, credit, amount), asset in made:
        expected[asset, debit] = expected.get((asset, debit), 0) - amount
        expected[asset, credit] = expected.get((asset, credit), 0) + amount
    assets, accounts, changes = (column.tolist() for column in changes_of(rows))
    assert dict(zip(zip(assets, accounts, strict=True), changes, strict=True)) == expected


@pytest.mark.parametrize(
    ("tamper", "what"),
    [
        ("UPDATE balances SET amount = amount + 1 WHERE account = 16", "balance against its transfers"),
        ("UPDATE transfers SET amount_micros = 31 WHERE seq = 2", "balance against its transfers"),
        ("UPDATE transfers SET credit_account = 32 WHERE seq = 2", "balance against its transfers"),
        ("UPDATE transfers SET leg = 1 WHERE seq = 2", "leg"),
        ("DELETE FROM transfers WHERE seq = 3", "number of transfers"),
        ("UPDATE head SET applied_seq = 2", "last transfer"),
        ("DELETE FROM balances WHERE account = 16", "sum of an asset's balances"),
    ],
)
def test_tampering_is_seen(ledger: AnyLedger, tamper: str, what: str) -> None:
    ledger.apply(posting(3, (1, CUSTODY, A, 0, 100), (2, A, ESCROW_A, 0, 30), (3, A, ESCROW_A, 0, 1)), 0)
    digest = ledger.digest()
    assert ledger.verify() == []
    change_books(ledger._database, tamper)
    assert what in [difference.what for difference in ledger.verify()]
    assert ledger.digest() != digest


def test_a_stale_writer_is_fenced_off(backend: Backend) -> None:
    with backend.new() as old:
        old.apply(posting(1, (1, CUSTODY, A, 0, 100)), 0)
        with backend.writer() as new:
            with pytest.raises(FencedError, match="epoch 2, this one has 1"):
                old.apply(posting(2, (2, A, B, 0, 100)), 1)
            with pytest.raises(FencedError):  # also when it has nothing new to say
                old.apply(posting(1, (1, CUSTODY, A, 0, 100)), 0)
            new.apply(posting(2, (2, A, B, 0, 1)), 1)
            assert old.balances() == new.balances() == {(0, CUSTODY): -100, (0, A): 99, (0, B): 1}
        assert old.claim() == 3
        old.apply(posting(3, (3, A, B, 0, 1)), 2)


def test_of_many_writers_at_once_one_posting_wins(backend: Backend) -> None:
    """Each takes the whole balance: with the same sequence, whoever comes first."""
    barrier, results = Barrier(6), []

    def withdraw() -> None:
        with backend.writer() as mine:
            barrier.wait()
            try:
                results.append(mine.apply(posting(2, (2, A, B, 0, 100)), 1))
            except FencedError:
                results.append(-1)

    with backend.new() as ledger:
        ledger.apply(posting(1, (1, CUSTODY, A, 0, 100)), 0)
        threads = [Thread(target=withdraw) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [-1] * 5 + [1]
        assert ledger.balances() == {(0, CUSTODY): -100, (0, B): 100}
        assert ledger.verify() == []


def test_both_backends_have_one_digest(tmp_path: Path, postgres: str) -> None:
    digests = set()
    for backend in (Backend("sqlite", str(tmp_path)), Backend("postgres", postgres)):
        with backend.new() as ledger:
            ledger.apply(posting(6, (1, CUSTODY, A, 0, 100), (3, A, B, LOTS, 2), (6, A, ESCROW_A, 0, 7)), 0)
            ledger.apply(many(7, 5_000), 6)
            digests.add(ledger.digest())
            assert ledger.verify() == []
    assert len(digests) == 1


NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(0, 63).map(lambda bits: 2**bits - 1), st.integers(0, 99)
)


@given(st.lists(st.tuples(*[NUMBERS] * 8), min_size=1, max_size=20))
def test_transfers_as_text_are_json_and_come_back(made: list[tuple[int, ...]]) -> None:
    rows = np.array(made, MOVE)
    text, ends = text_of(rows)
    assert [tuple(row) for row in json.loads(f"[{text[:-1]}]")] == made
    assert [text[end - 2 : end] for end in ends.tolist()] == ["],"] * len(made)
    assert (rows_of(text) == rows).all()


def test_pages_are_the_same_however_the_transfers_came(tmp_path: Path) -> None:
    """Each but the last is full; whoever looks at the file sees rows; any stretch of them can be read."""
    whole, found = many(1, 2_000), []
    for cut in (400, 100, 33, 7):
        backend = Backend("sqlite", str(tmp_path))
        with backend.new() as ledger:
            assert isinstance(ledger, SqliteLedger)
            for first in range(0, 400, cut):
                rows = whole.transfers[(whole.transfers["seq"] > first) & (whole.transfers["seq"] <= first + cut)]
                ledger.apply(Posting(rows, whole.moments[:0], int(rows["seq"][-1])), first)
            found.append(ledger._database.rows("SELECT * FROM pages ORDER BY number"))
            seen = ledger._database.rows("SELECT * FROM transfers ORDER BY seq, leg")
            assert seen == whole.transfers.tolist()
        (tmp_path / "1.sqlite").unlink()
    assert all(pages == found[0] for pages in found)
    sizes = [text.count("[") for _, _, _, text in found[0]]
    assert sizes == [PAGE_ROWS] * (2_000 // PAGE_ROWS) + [2_000 % PAGE_ROWS]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40), st.data())
def test_any_stretch_is_read(backend: Backend, made: list[tuple[int, bool]], data: st.DataObject) -> None:
    """Commands may have more transfers than a page, or none."""
    seqs = np.repeat(np.arange(1, len(made) + 1), [legs * 150 for legs, _ in made])
    rows = np.zeros(len(seqs), MOVE)
    rows["seq"], rows["leg"] = seqs, np.arange(len(seqs)) - np.searchsorted(seqs, seqs)
    rows["debit_account"], rows["credit_account"], rows["amount_micros"] = CUSTODY, A, 1
    rows["code"] = np.where(np.array([is_deposit for _, is_deposit in made])[seqs - 1], Code.DEPOSIT, Code.TRADE)
    first, last = data.draw(st.integers(-1, 42)), data.draw(st.integers(-1, 42))
    with backend.new() as ledger:
        ledger.apply(Posting(rows, np.zeros(0, MOMENT), len(made)), 0)
        stretch = rows[(seqs >= first) & (seqs <= last)]
        assert (np.concatenate([rows[:0], *ledger.transfers(first, last)]) == stretch).all()
        external = ledger.external(first, last)
        assert len(external) == (stretch["code"] == Code.DEPOSIT).sum()
        assert (external == stretch[stretch["code"] == Code.DEPOSIT]).all()


def test_a_damaged_page_is_told(tmp_path: Path) -> None:
    with Backend("sqlite", str(tmp_path)).new() as ledger:
        ledger.apply(posting(1, (1, CUSTODY, A, 0, 100)), 0)
        ledger.execute("UPDATE pages SET rows = replace(rows, '[', '[[')")
        with pytest.raises(LedgerError, match="damaged"):
            ledger.digest()


def test_the_file_is_durable_and_strict(tmp_path: Path) -> None:
    with Database(tmp_path / "ledger.sqlite") as database:
        assert database.one("PRAGMA journal_mode") == ("wal",)
        assert database.one("PRAGMA synchronous") == (2,)
        SqliteLedger(database).create()
        strict = dict(
            database.rows("SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
        )
        assert [name for name, flag in strict.items() if not flag and not name.startswith("sqlite_")] == []
