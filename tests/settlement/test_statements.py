"""Statements read as a member reads them: files only, with what the log says beside them."""

import csv
import io
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import MONEY, EventKind, Side
from settlement import moves, statements
from settlement.accounts import money_text
from settlement.fast.sides import ENTRY
from settlement.fast.text import CODES, Form, write_lines
from settlement.ledger import Code, Posting
from settlement.statements import time_text
from tests.settlement.flow import Venue, play
from tests.settlement.slow_statements import slowly

CHECK = Path(__file__).with_name("check_inclusion.py")
Key = tuple[str, str]


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Venue]:
    made = play(tmp_path_factory.mktemp("books"), 2, 60)
    yield made
    made.settlement.close()


def cycles(venue: Venue) -> list[Path]:
    directories = sorted((venue.directory / "statements").iterdir(), key=lambda path: int(path.name))
    assert [path.name for path in directories] == [str(n + 1) for n in range(len(directories))]
    assert len(directories) > 3
    return directories


def key_of(row: dict[str, str]) -> Key:
    """Which balance a row is of."""
    return row["balance"], row["symbol"] + row["listing"] if row["balance"] in ("lots", "shares") else ""


def read_csv(path: Path) -> tuple[dict[Key, Decimal], list[dict[str, str]], dict[Key, Decimal]]:
    """(opening, entries, closing); balances by name and listing, zeros left out."""
    opening, entries, closing = {}, [], {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key = key_of(row)
            if row["code"] == "opening":
                opening[key] = Decimal(row["running_balance"])
            elif row["code"] == "closing":
                closing[key] = Decimal(row["running_balance"])
            else:
                entries.append(row)
    return opening, entries, closing


def test_opening_and_entries_make_the_closing_and_the_next_opening(venue: Venue) -> None:
    before: dict[str, dict[Key, Decimal]] = {}
    for directory in cycles(venue):
        after = {}
        for path in directory.glob("*.csv"):
            opening, entries, closing = read_csv(path)
            assert opening == before.get(path.name, {})
            running = defaultdict(Decimal, opening)
            for row in entries:
                key = key_of(row)
                running[key] += Decimal(row["amount"])
                assert running[key] == Decimal(row["running_balance"])
                assert running[key] >= 0 or row["unit"] in ("lots", "shares")
            assert {key: amount for key, amount in running.items() if amount} == closing
            after[path.name] = closing
        assert before.keys() - after.keys() == {name for name in before if not before[name]} - after.keys()
        before = after
    dump = venue.engine.dump()
    for account, (cash, held, *_) in dump["accounts"].items():
        total = before.get(f"{account}.csv", {}).get(("cash", ""), Decimal(0))
        assert int(total * 10**6) == cash + held
    assert any(key[0] == "shares" for balances in before.values() for key in balances)


def test_csv_and_json_say_the_same(venue: Venue) -> None:
    for directory in cycles(venue):
        batch = json.loads((directory / "batch.json").read_bytes())
        for path in directory.glob("[0-9]*.json"):
            page = json.loads(path.read_bytes())
            opening, entries, closing = read_csv(path.with_suffix(".csv"))
            assert [{name: str(value) for name, value in row.items()} for row in page["entries"]] == entries
            for name, balances in (("opening", opening), ("closing", closing)):
                said = {key_of(row): Decimal(row["amount"]) for row in page[name]}
                assert said == balances
            assert (page["batch_id"], page["root"]) == (batch["batch_id"], batch["root"])
            assert page["proof"] in batch["accounts"]
            account = page["account"]
            assert page["name"] == (f"member-{account}" if account else "house")


def expected_nets(venue: Venue, batch: dict[str, Any]) -> dict[int, int]:
    """Each member's net, from trades, deliveries and rebates, one at a time."""
    log = venue.recording()
    ticks = {}
    nets: dict[int, int] = defaultdict(int)
    for event in log.events:
        if event["kind"] == EventKind.LISTED:
            ticks[int(event["instrument"])] = 8000
        if not batch["from_seq"] <= event["command_seq"] <= batch["to_seq"]:
            continue
        taker, maker, money = int(event["account"]), int(event["contra_account"]), event[None].view(MONEY)[0]
        if event["kind"] == EventKind.TRADE:
            value = int(event["price"]) * int(event["qty"]) * ticks[int(event["instrument"])]
            buyer, seller = (taker, maker) if event["side"] == Side.BUY else (maker, taker)
            fee, due = int(event["fee_micros"] - event["fee_due_micros"]), int(event["due_paid_micros"])
            nets[seller] += value
            nets[buyer] -= value + due
            nets[taker] -= fee
            nets[0] += fee + due
        elif event["kind"] == EventKind.DELIVERED:
            nets[taker] += int(money["amount_micros"] + money["escrow_micros"] + money["bond_micros"])
            nets[maker] += int(money["contra_amount_micros"])
            nets[0] += int(money["fees_micros"])
        elif event["kind"] == EventKind.REBATE_PAID:
            nets[taker] += int(money["amount_micros"])
            nets[0] += int(money["fees_micros"])
        elif event["kind"] in (EventKind.TRANSFERRED, EventKind.SPLIT_PAID):
            nets[taker] += int(money["amount_micros"])
            nets[maker] += int(money["contra_amount_micros"])
        elif event["kind"] == EventKind.LIEN_LIFTED and maker:
            nets[taker] += int(money["frozen_micros"])
            nets[maker] += int(money["contra_amount_micros"])
    return nets


def test_nets_are_those_of_the_trades(venue: Venue) -> None:
    for directory in cycles(venue):
        batch = json.loads((directory / "batch.json").read_bytes())
        nets = expected_nets(venue, batch)
        said = {row["account"]: int(Decimal(row["net"]) * 10**6) for row in batch["accounts"]}
        assert said == {account: nets.get(account, 0) for account in said}
        assert sum(said.values()) == 0
        assert Decimal(batch["net_debits"]) == sum(
            -Decimal(row["net"]) for row in batch["accounts"] if row["net"] < "0"
        )


def inclusion(path: Path, root: str, check: Path = CHECK) -> int:
    return subprocess.run(
        [sys.executable, "-I", str(check), str(path), root], capture_output=True, check=False
    ).returncode


def test_the_lines_in_the_documentation_do_what_they_say(venue: Venue, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "settlement.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    check = tmp_path / "check.py"
    check.write_text(lines)
    assert len(lines.splitlines()) <= 20
    directory = cycles(venue)[1]
    root = json.loads((directory / "batch.json").read_bytes())["root"]
    assert inclusion(directory / "3.json", root, check) == 0
    assert inclusion(directory / "3.json", root[::-1], check) != 0


def test_a_stranger_can_check_a_statement_against_the_root(venue: Venue, tmp_path: Path) -> None:
    directory = cycles(venue)[1]
    root = json.loads((directory / "batch.json").read_bytes())["root"]
    other = json.loads((directory.parent / "1" / "batch.json").read_bytes())["root"]
    for account in (0, 3, 4):
        assert inclusion(directory / f"{account}.json", root) == 0
    assert inclusion(directory / "3.json", other) != 0
    page = json.loads((directory / "3.json").read_bytes())
    for name, value in (("net", "999.000000"), ("index", 4), ("leaves", 6)):
        forged = tmp_path / "forged.json"
        forged.write_text(json.dumps(page | {"proof": page["proof"] | {name: value}}))
        assert inclusion(forged, root) != 0


def test_the_files_are_those_of_the_slow_twin(venue: Venue) -> None:
    """To the byte: what is written, what is rendered to be compared, and both in the smallest pieces."""
    books = venue.settlement.books
    for batch in books.batches.all():
        expected = slowly(books, batch)
        directory = venue.directory / "statements" / str(batch.cycle)
        written = {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "batch.json"}
        assert written == expected
        rendered = dict(books.statements.render(batch))
        assert rendered.pop("batch.json") == (directory / "batch.json").read_bytes()
        assert rendered == expected
        with patch.object(statements, "PIECE_LINES", 1):
            assert dict(books.statements.render(batch)).items() >= expected.items()


def test_what_was_kept_is_what_the_ledger_has(venue: Venue, tmp_path: Path) -> None:
    """After a start in the middle of a cycle its transfers are read back."""
    books, batch = venue.settlement.books, venue.settlement.books.batches.get(2)
    kept = moves.Kept(tmp_path, batch.from_seq - 1)
    whole = moves.read_cycle(books.ledger, (batch.from_seq, batch.to_seq))
    for row in whole.moves.reshape(-1, 1):
        kept.add(Posting(row, whole.moments[:0], int(row["seq"][0])))
    kept.add(Posting(whole.moves[:0], whole.moments, batch.to_seq))
    again = kept.take(batch.from_seq, batch.to_seq)
    assert again is not None
    assert all((one == other).all() for one, other in zip(again, whole, strict=True))
    assert kept.take(batch.from_seq, batch.to_seq) is None
    kept.add(Posting(whole.moves, whole.moments, 10**6))
    assert kept.take(batch.to_seq + 2, 10**6) is None
    kept.close()
    assert (again.moves == whole.moves).all()


NUMBERS = st.integers(-(10**18), 10**18)


@given(st.lists(st.tuples(NUMBERS, st.integers(0, 2**62), st.sampled_from([0, 1, 5])), max_size=9), st.booleans())
def test_numbers_and_times_are_written_as_python_writes_them(rows: list[tuple[int, int, int]], is_first: bool) -> None:
    entries = np.zeros(len(rows), ENTRY)
    for entry, (amount, ts_ns, slot) in zip(entries, rows, strict=True):
        entry["amount"], entry["ts_ns"], entry["slot"], entry["seq"] = amount, ts_ns, slot, ts_ns // 2
    forms = [Form.of([*words, "i\n", "", "j\n"], ["code"] * CODES, ["money", "money", "", "", "", "lots"], ["name"])
             for words in ("abcdefgh", "ABCDEFGH")]  # fmt: skip
    outs = [np.zeros(form.line_bytes * (len(rows) + 1), np.uint8) for form in forms]
    running, sizes = np.zeros(6, np.int64), np.zeros(2, np.uint64)
    write_lines(entries, is_first, running, outs[0], forms[0], outs[1], forms[1], sizes)
    for out, size, words in zip(outs, sizes.tolist(), ("abcdefgh", "ABCDEFGH"), strict=True):
        lines = list(said(rows, *words))
        text = "j\n".join(lines)
        assert out[:size].tobytes().decode() == (text if is_first or not lines else "j\n" + text)
        assert size <= len(out)


def said(
    rows: list[tuple[int, int, int]], a: str, b: str, c: str, d: str, e: str, f: str, g: str, h: str
) -> Iterator[str]:
    sums = defaultdict[int, int](int)
    for amount, ts_ns, slot in rows:
        sums[slot] = (sums[slot] + amount + 2**63) % 2**64 - 2**63
        texts = [str(n) if slot == 5 else money_text(n) for n in (amount, sums[slot])]
        word = "lots" if slot == 5 else "money"
        yield f"{a}{ts_ns // 2}{b}0{c}{time_text(ts_ns)}{d}{word}name{e}{f}code{g}{texts[0]}{h}{texts[1]}i\n"


def test_an_entry_that_is_missing_shows(venue: Venue) -> None:
    books, batch = venue.settlement.books, venue.settlement.books.batches.get(2)
    moved, moments = moves.read_cycle(books.ledger, (batch.from_seq, batch.to_seq))
    money = np.flatnonzero((moved["asset"] == 0) & (moved["code"] == Code.TRADE))[0]
    page = books.statements._page(batch, moves.Cycle(np.delete(moved, money), moments))
    with pytest.raises(ValueError, match="not the opening and the entries"):
        for account in page.accounts():
            page.write(account, io.BytesIO(), io.BytesIO())
