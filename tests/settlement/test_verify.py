"""One wrong number anywhere is found, and the place is named."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.types import Kind
from settlement.service import Books
from settlement.verify import verify
from tests.settlement.change_books import change_books
from tests.settlement.flow import CATALOGUE, Flow, Venue, command, play


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Venue]:
    """A life in its middle: open books, a cycle behind it."""
    venue = Venue(tmp_path / "books")
    flow = Flow(venue, 4)
    flow.start()
    for _ in range(25):
        flow.step()
    venue.send(command(Kind.CLOSE_CYCLE))
    flow.step()
    yield venue
    venue.settlement.close()


@pytest.mark.parametrize("seed", range(10, 16))
def test_a_whole_life_verifies(tmp_path: Path, seed: int) -> None:
    venue = play(tmp_path, seed, 40)
    dump = venue.engine.dump()
    assert verify(venue.settlement.books, dump) == []
    assert dump["positions"] == {}
    venue.settlement.close()
    with Books(tmp_path, CATALOGUE, read_only=True) as books:
        assert verify(books, dump) == []


def test_books_ahead_of_the_engine_are_compared_at_its_command(played: Venue) -> None:
    dump = played.engine.dump()
    played.send(command(Kind.CLOSE_CYCLE))
    assert verify(played.settlement.books, dump) == []


def test_books_behind_the_engine_are_reported(played: Venue) -> None:
    dump = played.engine.dump() | {"applied_seq": played.engine.applied_seq + 3}
    assert [difference.what for difference in verify(played.settlement.books, dump)] == ["applied commands"]


def changed(dump: dict[str, Any], part: str, at: int, by: int = 1) -> dict[str, Any]:
    other = copy.deepcopy(dump)
    key = next(key for key, row in other[part].items() if row[at])
    row = list(other[part][key])
    row[at] += by
    other[part][key] = tuple(row)
    return other


@pytest.mark.parametrize(
    ("part", "at", "place"),
    [
        ("accounts", 0, ".available asset 0"),
        ("accounts", 1, ".held asset 0"),
        ("positions", 0, ".available asset"),
        ("positions", 4, ".escrow asset 0"),
        ("positions", 6, ".bond asset 0"),
    ],
)
def test_an_engine_that_differs_by_one_is_found(played: Venue, part: str, at: int, place: str) -> None:
    found = verify(played.settlement.books, changed(played.engine.dump(), part, at))
    assert any(place in difference.place and difference.seq == played.engine.applied_seq for difference in found)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("house_fees_micros", "house.fees"),
        ("deposits_micros", "house.custody"),
        ("withdrawals_micros", "house.custody"),
    ],
)
def test_house_and_custody_are_compared(played: Venue, name: str, place: str) -> None:
    dump = played.engine.dump()
    dump[name] += 1
    found = verify(played.settlement.books, dump)
    assert any(place in difference.place for difference in found)
    assert any(difference.what == "conservation" for difference in found)


@pytest.mark.parametrize(
    ("tamper", "what"),
    [
        ("UPDATE balances SET amount = amount + 1 WHERE account = 16 AND asset = 0", "balance against its transfers"),
        (
            "UPDATE transfers SET listing = 1 WHERE code = 10 AND seq = (SELECT MIN(seq) FROM transfers WHERE code = 10)",
            "escrow and bond by listing",
        ),
        (
            "UPDATE transfers SET code = 1 WHERE code = 7 AND seq = (SELECT MIN(seq) FROM transfers WHERE code = 7)",
            "gross",
        ),
        ("UPDATE batch_nets SET net_micros = net_micros + 1 WHERE account = 2", "net of account 2"),
        ("UPDATE batches SET root = zeroblob(32) WHERE cycle = 1", "root"),
        ("UPDATE batches SET batch_id = zeroblob(32) WHERE cycle = 1", "batch id"),
        ("UPDATE batches SET gross_micros = gross_micros + 1 WHERE cycle = 1", "gross"),
        ("UPDATE batches SET state = 0 WHERE cycle = 1", "state"),
        ("UPDATE batches SET from_seq = 2 WHERE cycle = 1", "cycle"),
        (
            "UPDATE closing_balances SET amount = amount + 1 WHERE account = 16 AND asset = 0",
            "batch of cycle 1: closing",
        ),
        (
            "UPDATE transfers SET debit_account = 0 WHERE code = 1 AND seq = (SELECT MIN(seq) FROM transfers WHERE code = 1)",
            "liabilities",
        ),
        ("UPDATE members SET opened_seq = 1000000 WHERE account = 6", "leaves"),
        ("DELETE FROM moments", "statement"),
    ],
)
def test_books_that_were_changed_are_found(played: Venue, tamper: str, what: str) -> None:
    change_books(played.settlement.books.database, tamper)
    found = verify(played.settlement.books, played.engine.dump())
    assert what in [difference.what for difference in found], [str(difference) for difference in found]


@pytest.mark.parametrize("name", ["1.csv", "2.json", "batch.json"])
def test_a_statement_that_was_changed_is_found(played: Venue, name: str) -> None:
    file = played.directory / "statements" / "1" / name
    data = file.read_bytes()
    at = data.rindex(b"7") if b"7" in data else len(data) // 2
    file.write_bytes(data[:at] + b"8" + data[at + 1 :])
    (found,) = verify(played.settlement.books, played.engine.dump())
    assert found.place == f"1/{name} line {data[:at].count(bytes([10])) + 1}"
    file.unlink()
    (found,) = verify(played.settlement.books, played.engine.dump())
    assert (found.place, found.found) == (f"1/{name}", "none")


def test_a_statement_that_nobody_wrote_is_found(played: Venue) -> None:
    (played.directory / "statements" / "1" / "99.csv").write_text("x")
    (found,) = verify(played.settlement.books, played.engine.dump())
    assert (found.place, found.found) == ("1/99.csv", "a file")
