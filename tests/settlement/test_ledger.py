from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.accounts import CUSTODY, STABLECOIN, Role, user_account
from settlement.database import Database
from settlement.ledger import MOMENT, MOVE, Code, LedgerError, LedgerGapError, Posting, SqliteLedger, changes_of

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


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    with Database(tmp_path / "ledger.sqlite") as database:
        made = SqliteLedger(database)
        made.create()
        yield made


def test_balances_follow_the_transfers(ledger: SqliteLedger) -> None:
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


def test_what_was_applied_changes_nothing(ledger: SqliteLedger) -> None:
    first = posting(3, (1, CUSTODY, A, 0, 100), (3, A, B, 0, 1))
    ledger.apply(first, 0)
    digest = ledger.digest()
    assert ledger.apply(first, 0) == 0
    assert ledger.apply(posting(2, (1, CUSTODY, A, 0, 100)), 0) == 0
    assert ledger.digest() == digest
    assert ledger.apply(posting(4, (1, CUSTODY, A, 0, 100), (3, A, B, 0, 1), (4, A, B, 0, 2)), 0) == 1
    assert ledger.balances([B]) == {(0, B): 3}


def test_a_gap_is_refused(ledger: SqliteLedger) -> None:
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
        ((2, A, A, 0, 1), "CHECK"),
        ((2, A, B, 0, 0), "CHECK"),
        ((2, A, B, 0, -1), "CHECK"),
    ],
)
def test_a_bad_transfer_is_refused_with_all_of_its_batch(
    ledger: SqliteLedger, row: tuple[int, int, int, int, int], message: str
) -> None:
    ledger.apply(posting(1, (1, CUSTODY, A, 0, 100)), 0)
    digest = ledger.digest()
    with pytest.raises(LedgerError, match=message):
        ledger.apply(posting(3, (2, A, B, LOTS, 9), row), 1)
    assert ledger.digest() == digest
    assert ledger.balances([B]) == {}


def test_money_may_not_be_negative_even_for_a_moment_inside_a_batch(ledger: SqliteLedger) -> None:
    """The balance at the end of the batch is fine, so only the audit sees it."""
    ledger.apply(posting(4, (1, CUSTODY, A, 0, 10), (2, B, A, 0, 7), (4, A, B, 0, 9)), 0)
    assert [(d.what, d.place, d.seq, d.found) for d in ledger.verify()] == [
        ("money below zero", "account 2.available asset 0", 2, -7),
    ]


moves = st.tuples(st.sampled_from([A, B, ESCROW_A]), st.sampled_from([A, B, ESCROW_A]), st.integers(1, 1000)).filter(
    lambda move: move[0] != move[1]
)


@given(st.lists(moves, max_size=30), st.lists(st.integers(1, 30)))
def test_the_digest_does_not_depend_on_the_batches(made: list[tuple[int, int, int]], cuts: list[int]) -> None:
    rows = [(1, CUSTODY, account, STABLECOIN, 10**6) for account in (A, B, ESCROW_A)]
    rows += [(2 + at // 2, debit, credit, STABLECOIN, amount) for at, (debit, credit, amount) in enumerate(made)]
    last = rows[-1][0]
    digests = set()
    for bounds in ([last], sorted({last, *(cut for cut in cuts if cut < last)})):
        with Database(Path(":memory:")) as database:
            ledger = SqliteLedger(database)
            ledger.create()
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
def test_tampering_is_seen(tmp_path: Path, tamper: str, what: str) -> None:
    with Database(tmp_path / "ledger.sqlite") as database:
        ledger = SqliteLedger(database)
        ledger.create()
        ledger.apply(posting(3, (1, CUSTODY, A, 0, 100), (2, A, ESCROW_A, 0, 30), (3, A, ESCROW_A, 0, 1)), 0)
        digest = ledger.digest()
        assert ledger.verify() == []
        database.execute(tamper)
        assert what in [difference.what for difference in ledger.verify()]
        assert ledger.digest() != digest


def test_the_file_is_durable_and_strict(tmp_path: Path) -> None:
    with Database(tmp_path / "ledger.sqlite") as database:
        assert database.one("PRAGMA journal_mode") == ("wal",)
        assert database.one("PRAGMA synchronous") == (2,)
        SqliteLedger(database).create()
        strict = dict(database.rows("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'"))
        assert [name for name, flag in strict.items() if not flag and not name.startswith("sqlite_")] == []
