"""The Parquet file says what the CSV statements say, to the digit."""

import csv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from settlement.batches import Batch
from settlement.statements import time_text
from tests.settlement.flow import Venue, play
from wellhead.cli import main

pq = pytest.importorskip("pyarrow.parquet", reason="install wellhead[data]")
from settlement.parquet import write_parquet  # noqa: E402 - after the skip


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Venue]:
    made = play(tmp_path_factory.mktemp("data") / "settlement", 5, 60)
    yield made
    made.settlement.close()


def from_csv(directory: Path) -> list[tuple[Any, ...]]:
    rows = []
    for path in directory.glob("*.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                texts = [row[name] for name in ("seq", "leg", "time", "balance", "unit", "symbol", "listing", "code")]
                amount = Decimal(row["amount"]) if row["amount"] else None
                rows.append((path.stem, *texts, amount, Decimal(row["running_balance"])))
    return rows


def from_parquet(path: Path) -> list[tuple[Any, ...]]:
    table = pq.read_table(path)
    table = table.set_column(3, "time", table.column("time").cast("int64"))
    rows = []
    for values in zip(*(column.to_pylist() for column in table.columns), strict=True):
        account, seq, leg, ts_ns, *names, amount, running = values
        texts = ["" if value is None else str(value) for value in (seq, leg)]
        balance, unit, symbol, listing, code = ["" if value is None else str(value) for value in names]
        time = "" if ts_ns is None else time_text(ts_ns)
        rows.append((str(account), *texts, time, balance, unit, symbol, listing, code, amount, running))
    return rows


def batches(venue: Venue) -> list[Batch]:
    return venue.settlement.books.batches.all()


def test_the_same_rows_as_the_csv_files(venue: Venue, tmp_path: Path) -> None:
    assert len(batches(venue)) > 3
    for batch in batches(venue):
        path = tmp_path / f"{batch.cycle}.parquet"
        count = write_parquet(venue.settlement.books, batch, path)
        rows = from_parquet(path)
        assert len(rows) == count
        expected = from_csv(venue.directory / "statements" / str(batch.cycle))
        assert sorted(map(_plain, rows)) == sorted(map(_plain, expected))
        assert pq.read_schema(path).metadata[b"root"].decode() == batch.root.hex()


def _plain(row: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(value.normalize()) if isinstance(value, Decimal) else str(value) for value in row)


def test_the_command_line_writes_it(venue: Venue, tmp_path: Path) -> None:
    arguments = ["settle", "export", "--parquet", "--data", str(venue.directory.parent), "--out", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    newest = batches(venue)[-1].cycle
    assert (tmp_path / f"{newest}.parquet").exists()


def test_books_that_do_not_add_up_make_no_file(venue: Venue, tmp_path: Path) -> None:
    batch = batches(venue)[-2]
    database = venue.settlement.books.database
    database.execute("UPDATE closing_balances SET amount = amount + 1 WHERE cycle = ? AND account = 16", (batch.cycle,))
    with pytest.raises(ValueError, match="opening and the entries"):
        write_parquet(venue.settlement.books, batch, tmp_path / "bad.parquet")
    assert list(tmp_path.iterdir()) == []
