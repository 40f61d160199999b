"""camt.053 documents: valid against the schema of ISO 20022, and adding up as a bank's software adds them up."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from settlement.camt import NAMESPACE, CamtStatements, cents
from tests.settlement.flow import Venue, play
from wellhead.cli import main

etree = pytest.importorskip("lxml.etree", reason="install wellhead[test]")
SCHEMA = Path(__file__).with_name("schemas") / "camt.053.001.08.xsd"
C = {"c": NAMESPACE}


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Venue]:
    made = play(tmp_path_factory.mktemp("data") / "settlement", 5, 60)
    yield made
    made.settlement.close()


@pytest.fixture(scope="module")
def documents(venue: Venue) -> dict[tuple[int, int], Any]:
    """(cycle, account) -> parsed document, of all of them."""
    books, found = venue.settlement.books, {}
    for batch in books.batches.all():
        statements = CamtStatements(books, batch)
        for account in statements.accounts():
            found[batch.cycle, account] = etree.fromstring(statements.render(account))
    return found


def signed(element: Any) -> Decimal:
    amount = Decimal(element.findtext("c:Amt", namespaces=C))
    return amount if element.findtext("c:CdtDbtInd", namespaces=C) == "CRDT" else -amount


def balance(statement: Any, code: str) -> Decimal:
    (found,) = statement.xpath(f"c:Bal[c:Tp/c:CdOrPrtry/c:Cd='{code}']", namespaces=C)
    return signed(found)


def test_every_document_is_valid(documents: dict[tuple[int, int], Any]) -> None:
    schema = etree.XMLSchema(etree.parse(str(SCHEMA)))
    assert len(documents) > 20
    for key, document in documents.items():
        assert schema.validate(document), (key, schema.error_log)
    broken = etree.fromstring(etree.tostring(documents[1, 1]).replace(b"CRDT", b"XXXX"))
    assert not schema.validate(broken)


def test_opening_and_entries_make_the_closing_and_the_next_opening(documents: dict[tuple[int, int], Any]) -> None:
    closings: dict[tuple[int, str], Decimal] = {}
    roundings = 0
    for (cycle, _), document in documents.items():
        for statement in document.iterfind(".//c:Stmt", C):
            owner = statement.findtext("c:Acct/c:Id/c:Othr/c:Id", namespaces=C)
            entries = statement.findall("c:Ntry", C)
            assert balance(statement, "OPBD") + sum(map(signed, entries)) == balance(statement, "CLBD")
            assert balance(statement, "OPBD") == closings.get((cycle - 1, owner), 0)
            closings[cycle, owner] = balance(statement, "CLBD")
            roundings += bool(statement.xpath("c:Ntry[c:BkTxCd/c:Prtry/c:Cd='rounding']", namespaces=C))
    assert roundings > 10


def test_the_closing_is_the_engines_cash(venue: Venue, documents: dict[tuple[int, int], Any]) -> None:
    last = max(cycle for cycle, _ in documents)
    for account, (cash, held, *_) in venue.engine.dump()["accounts"].items():
        if (last, account) in documents:
            statements = documents[last, account].findall(".//c:Stmt", C)
            (own,) = [s for s in statements if s.findtext("c:Id", namespaces=C) == f"{last}-{account}.cash"]
            assert balance(own, "CLBD") * 100 == cents(cash + held)


@given(st.integers(-(10**18), 10**18))
def test_cents_are_the_nearest(micros: int) -> None:
    assert abs(cents(micros) * 10_000 - micros) <= 5_000
    assert cents(-micros) == -cents(micros)


def test_the_command_line_writes_them(venue: Venue, documents: dict[tuple[int, int], Any], tmp_path: Path) -> None:
    arguments = ["settle", "export", "--camt", "--data", str(venue.directory.parent), "--out", str(tmp_path), "2"]
    for _ in range(2):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
    written = {path.name for path in (tmp_path / "2-camt").iterdir()}
    assert written == {f"{account}.xml" for cycle, account in documents if cycle == 2}
