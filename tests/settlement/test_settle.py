"""`wellhead settle`: what a scheduler and an auditor call."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.types import Kind, Side
from tests.settlement.flow import CATALOGUE, command, listing, open_account, order, transfer
from wellhead.audit import audit
from wellhead.cli import main
from wellhead.config import Config
from wellhead.exchange import Exchange
from wellhead.settle import EXIT_BUSY


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["settle", *map(str, arguments)])


def trade(data: Path, *commands: object) -> None:
    """What a node would have logged."""
    exchange = Exchange.open(Config(data), CATALOGUE)
    exchange.recover()
    for part in commands:
        exchange.log.append(part)
        exchange.log.sync()
        exchange.settlement.on_batch(part, exchange.engine.apply(part))
    exchange.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two members have traded; no cycle has ended."""
    place = tmp_path / "data"
    start = [*(open_account(n) for n in (1, 2)), listing(1)]
    money = [transfer(Kind.DEPOSIT, n, amount_micros=10**9) for n in (1, 2)]
    sale = [transfer(Kind.NOMINATE, 1, instrument=1, lots=9), order(1, 1, Side.SELL, 2600, 5)]
    orders = [order(2, 1, Side.BUY, 2600, 3)]
    for row in (*start, *money, *sale, *orders):
        row["ts_ns"] = 1_700_000_000 * 10**9
    trade(place, *start, *money, *sale, *orders)
    return place


def test_a_cycle_is_run_once_and_again_when_something_happened(data: Path) -> None:
    first = cli("run", "--data", data)
    assert first.exit_code == 0, first.output
    assert "cycle 1 is FROZEN" in first.output.replace("\n", " ")
    for _ in range(2):
        again = cli("run", "--data", data)
        assert (again.exit_code, again.output.splitlines()[-1]) == (0, "nothing to settle")
    trade(data, command(Kind.TICK, ts_ns=1_700_000_001 * 10**9))
    assert "cycle 2 is FROZEN" in cli("run", "--data", data).output.replace("\n", " ")
    assert audit(data).differences == []


def test_a_running_node_makes_it_come_again_later(data: Path) -> None:
    exchange = Exchange.open(Config(data), CATALOGUE)
    exchange.recover()
    assert cli("run", "--data", data).exit_code == EXIT_BUSY
    assert cli("prove", "--data", data, 1).exit_code == 2  # nothing is settled, but it can be looked at
    exchange.close()
    assert cli("run", "--data", data).exit_code == 0


def test_exported_statements_are_the_nodes_own(data: Path, tmp_path: Path) -> None:
    cli("run", "--data", data)
    assert cli("export", "--data", data, "--out", tmp_path / "out").exit_code == 0
    own, out = data / "settlement" / "statements" / "1", tmp_path / "out" / "1"
    files = {path.name: path.read_bytes() for path in own.iterdir()}
    assert files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert {"1.csv", "2.json", "batch.json"} <= files.keys()
    assert cli("export", "--data", data, "--out", tmp_path / "out", 1).exit_code == 0
    assert cli("export", "--data", data, "--out", tmp_path / "out", 2).exit_code == 2


def test_a_proof_goes_out_and_is_checked_without_the_directory(data: Path, tmp_path: Path) -> None:
    cli("run", "--data", data)
    made = cli("prove", "--data", data, 2)
    assert made.exit_code == 0, made.output
    proof = json.loads(made.output)
    assert proof["net_micros"] == -(3 * 2600 * 8000 + 3 * 2600 * 8000 // 2000)
    assert proof["liability"]["owed_micros"] == 10**9 + proof["net_micros"]
    path = tmp_path / "2.proof"
    path.write_text(made.output)
    good = cli("check", path, "--root", proof["root"], "--liability-root", proof["liability"]["root"])
    assert good.exit_code == 0
    assert "counted in a total of" in good.output.replace("\n", " ")
    for options in (("--root", "ab" * 32), ("--liability-root", "ab" * 32), ("--root", "nonsense")):
        assert cli("check", path, *options).exit_code == 1
    for change in ({"net_micros": 0}, {"liability": proof["liability"] | {"owed_micros": 1}}, {"leaves": "x"}):
        path.write_text(json.dumps(proof | change))
        assert cli("check", path).exit_code == 1


def test_wrong_use_is_told_apart(data: Path, tmp_path: Path) -> None:
    assert cli("run", "--data", tmp_path / "nothing").exit_code == 2
    assert cli("prove", "--data", tmp_path / "nothing", 1).exit_code == 2
    cli("run", "--data", data)
    assert cli("prove", "--data", data, 9).exit_code == 2
    assert cli("prove", "--data", data, 1, 5).exit_code == 2
    house = cli("prove", "--data", data, 0)
    assert "liability" not in json.loads(house.output)


def test_the_register_of_a_pool_is_kept_by_cycle(data: Path) -> None:
    shares = [transfer(Kind.ISSUE_SHARES, 1, contra_account=account, lots=7) for account in (1, 2)]
    trade(data, *shares)
    assert cli("run", "--data", data).exit_code == 0
    trade(data, transfer(Kind.ISSUE_SHARES, 1, contra_account=2, lots=-7))
    then, now = cli("shares", "--data", data, 1, 1), cli("shares", "--data", data, 1)
    assert "member-2" in then.output
    assert "member-2" not in now.output
    assert cli("shares", "--data", data, 9).exit_code == 2


def test_an_income_statement_is_a_page(data: Path, tmp_path: Path) -> None:
    cli("run", "--data", data)
    assert cli("income", "--data", data, 1, "--out", tmp_path / "1.html").exit_code == 0
    assert (tmp_path / "1.html").read_text().startswith("<!doctype html>")
    assert cli("income", "--data", data, 9, "--out", tmp_path / "9.html").exit_code == 2
