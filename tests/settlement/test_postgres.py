"""The whole books in PostgreSQL: what a node keeps in a file otherwise, from the same log."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.types import Kind
from settlement.database import FormatError
from settlement.ledger import FencedError, LedgerError
from settlement.postgres import PostgresDatabase, translated
from settlement.service import LEDGER_NAME, SQLITE, Books, Settlement, ledger_of
from settlement.verify import verify
from tests.settlement.flow import CATALOGUE, command, cuts, listing, open_account, recorded
from tests.settlement.test_batches import content, result
from tests.settlement.test_settle import trade
from wellhead.audit import audit
from wellhead.cli import main
from wellhead.config import Config
from wellhead.exchange import Exchange


def test_the_books_are_the_same_as_in_a_file(tmp_path: Path, place: str) -> None:
    log = recorded(2, 40)
    embedded = Settlement(tmp_path / "file", CATALOGUE)
    embedded.on_batch(log.commands, log.events)
    server = Settlement(tmp_path / "server", CATALOGUE, place)
    for first, last in cuts(len(log), 3, largest=60):
        server.on_batch(*log.cut(first, last))
    assert server.books.ledger.digest() == embedded.books.ledger.digest()
    assert server.books.batches.all() == embedded.books.batches.all()
    assert content(tmp_path / "server") == content(tmp_path / "file")
    middle = len(log) // 2
    assert server.books.ledger.balances(at_seq=middle) == embedded.books.ledger.balances(at_seq=middle)
    assert verify(server.books) == verify(embedded.books) == []
    expected = result(embedded)
    server.close()
    # Opened again, it is found where it was, and is as it was.
    again = Settlement(tmp_path / "server", CATALOGUE)
    assert isinstance(again.books.database, PostgresDatabase)
    assert result(again) == expected
    again.close()
    embedded.close()


def test_a_node_that_was_replaced_writes_nothing_more(tmp_path: Path, place: str) -> None:
    log = recorded(2, 40)
    old = Settlement(tmp_path / "one", CATALOGUE, place)
    old.on_batch(*log.cut(1, 20))
    new = Settlement(tmp_path / "two", CATALOGUE, place)
    with pytest.raises(FencedError, match="epoch 2, this one has 1"):
        old.on_batch(*log.cut(21, 30))
    assert new.books.ledger.head().applied_seq == 20
    new.on_batch(*log.cut(21, 40))
    assert old.books.ledger.head().applied_seq == 40
    assert verify(new.books) == []
    old.close()
    new.close()


def test_an_exchange_keeps_them_there_and_settles_from_there(tmp_path: Path, place: str) -> None:
    data = tmp_path / "data"
    Exchange.open(Config(data, ledger=place), CATALOGUE).close()
    trade(data, *(open_account(n) for n in (1, 2)), listing(1), command(Kind.TICK))
    assert not (data / "settlement" / "ledger.sqlite").exists()
    assert (data / "settlement" / LEDGER_NAME).stat().st_mode & 0o077 == 0
    done = CliRunner().invoke(main, ["settle", "run", "--data", str(data)])
    assert done.exit_code == 0, done.output
    assert "cycle 1 is FROZEN" in done.output.replace("\n", " ")
    assert audit(data).differences == []
    with Books(data / "settlement", CATALOGUE, read_only=True) as books, pytest.raises(Exception, match="read-only"):
        books.database.execute("DELETE FROM transfers")


def test_where_the_books_are_is_remembered_until_told_otherwise(tmp_path: Path, place: str) -> None:
    assert ledger_of(tmp_path) == SQLITE
    Settlement(tmp_path, CATALOGUE, place).close()
    assert ledger_of(tmp_path) == place
    Settlement(tmp_path, CATALOGUE, SQLITE).close()
    assert ledger_of(tmp_path) == SQLITE


def test_no_server_and_another_format_are_told(tmp_path: Path, place: str) -> None:
    with pytest.raises(LedgerError, match="no PostgreSQL"):
        Settlement(tmp_path, CATALOGUE, "postgresql://127.0.0.1:1/none")
    Settlement(tmp_path, CATALOGUE, place).close()
    database = PostgresDatabase(place)
    database.execute("UPDATE format SET number = 1")
    database.close()
    with pytest.raises(FormatError, match="format 1"):
        Settlement(tmp_path, CATALOGUE, place)


def test_a_statement_is_translated() -> None:
    assert translated("SELECT a FROM b WHERE c = ? AND d = :name") == b"SELECT a FROM b WHERE c = %s AND d = %(name)s"
    assert translated("INSERT OR IGNORE INTO a VALUES (?)") == b"INSERT INTO a VALUES (%s) ON CONFLICT DO NOTHING"
    assert translated("SELECT x''") == b"SELECT ''::bytea"
    assert translated("SELECT 7 % 4") == b"SELECT 7 % 4"
    assert translated("SELECT 7 % ?") == b"SELECT 7 %% %s"
