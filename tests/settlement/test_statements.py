"""Statements read as a member reads them: files only, with what the log says beside them."""

import csv
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.types import MONEY, EventKind, Side
from tests.settlement.flow import Venue, play

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
