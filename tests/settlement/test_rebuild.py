"""The ledger is a function of the log: what is not what the log leads to is found, row by row, also where all sums agree."""

from pathlib import Path

import pytest

from settlement.ledger import Difference
from settlement.rebuild import Rebuild
from settlement.service import Settlement
from tests.settlement.change_books import change_books
from tests.settlement.flow import CATALOGUE, Recording, cuts, recorded


@pytest.fixture
def books(tmp_path: Path) -> Settlement:
    settlement = Settlement(tmp_path / "books", CATALOGUE)
    log = recorded()
    settlement.on_batch(log.commands, log.events)
    return settlement


def differences(settlement: Settlement, log: Recording, seed: int = 1) -> list[Difference]:
    rebuild = Rebuild(settlement.books.ledger)
    for first, last in cuts(len(log), seed, 50):
        rebuild.on_batch(*log.cut(first, last))
    rebuild.close()
    return rebuild.found


@pytest.mark.parametrize("seed", range(3))
def test_a_ledger_is_what_its_log_leads_to(books: Settlement, seed: int) -> None:
    assert differences(books, recorded(), seed) == []
    books.close()


CHANGES = {
    "another reason": "UPDATE transfers SET code = 19 WHERE seq = {seq} AND leg = 0",
    "another listing": "UPDATE transfers SET listing = listing + 1 WHERE seq = {seq} AND leg = 0",
    "a row too many": "INSERT INTO transfers SELECT seq, 99, credit_account, debit_account, asset, amount_micros, code,"
    " listing FROM transfers WHERE seq = {seq} AND leg = 0",
    "a row too few": "DELETE FROM transfers WHERE seq = {seq}",
    "another time": "UPDATE moments SET ts_ns = ts_ns + 1 WHERE seq = (SELECT MAX(seq) FROM moments WHERE seq <= {seq})",
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_other_row_is_found(books: Settlement, change: str) -> None:
    (seq,) = books.books.database.one("SELECT MAX(seq) FROM transfers WHERE code = 5") or (0,)
    change_books(books.books.database, CHANGES[change].format(seq=seq))
    found = differences(books, recorded())
    assert found
    assert found[0].seq <= seq
    assert "transfer against the log" in str(found[0])
    books.close()


def test_books_that_are_behind_are_compared_as_far_as_they_are(tmp_path: Path) -> None:
    log = recorded()
    settlement = Settlement(tmp_path / "books", CATALOGUE)
    settlement.on_batch(*log.cut(1, len(log) // 2))
    assert differences(settlement, log) == []
    settlement.close()
