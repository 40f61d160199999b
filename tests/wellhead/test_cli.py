"""The command line, as a person uses it: what it prints, what it refuses, and that every command is in the README."""

import asyncio
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.wellhead.process import ServerProcess
from wellhead import demo
from wellhead.cli import main

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"`wellhead {command}" in README
    assert run(command, "--help").exit_code == 0


@pytest.mark.parametrize(
    ("options", "chain", "node"),
    [
        ([], True, None),
        (["--no-chain"], False, None),
        (["--node", "http://127.0.0.1:8545"], True, "http://127.0.0.1:8545"),
    ],
)
def test_a_demo_settles_on_a_chain_unless_told_otherwise(
    options: list[str], chain: bool, node: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: dict[str, object] = {}
    monkeypatch.setattr(demo, "run", lambda **options: wanted.update(options) or 0)
    assert run("demo", *options).exit_code == 0
    assert (wanted["chain"], wanted["node_url"]) == (chain, node)


def test_a_node_for_a_demo_without_a_chain_is_refused() -> None:
    refused = run("demo", "--no-chain", "--node", "http://127.0.0.1:8545")
    assert refused.exit_code == 2
    assert "--no-chain" in refused.output


def test_keys_are_made_shown_and_revoked(tmp_path: Path) -> None:
    key_file = tmp_path / "alice.key"
    assert run("keys", "create", "alice", "--data", tmp_path, "--out", key_file, "--id", "a1").exit_code == 0
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert "a1" in run("keys", "list", "--data", tmp_path).output
    again = run("keys", "create", "alice", "--data", tmp_path, "--out", key_file)
    assert again.exit_code == 1 and "will not be overwritten" in again.output
    assert run("keys", "revoke", "a1", "--data", tmp_path).exit_code == 0
    assert "a1" not in run("keys", "list", "--data", tmp_path).output
    assert run("keys", "revoke", "a1", "--data", tmp_path).exit_code == 1
    wrong = run("keys", "list", "--data", tmp_path / "elsewhere")
    assert wrong.exit_code == 1 and "there is no directory" in wrong.output


def test_what_is_said_of_a_key_is_one_line(tmp_path: Path) -> None:
    """However narrow the terminal: scripts read it."""
    out = tmp_path / ("long" * 20)
    result = run("keys", "create", "alice", "--data", tmp_path, "--out", out, "--id", "a1")
    assert result.output == f"key a1 of account alice may read, trade; its private half is in {out}\n"


def test_a_market_that_is_not_in_the_catalogue_is_refused(tmp_path: Path) -> None:
    result = run("serve", "--data", tmp_path, "--market", "H100S-MARS")
    assert result.exit_code == 2
    assert "H100S-MARS" in result.output


def test_a_flow_is_replayed(tmp_path: Path) -> None:
    flow = tmp_path / "flow"
    np.array([[0, 1, 1, 2_600, 8], [5, 2, 0, 2_600, 3]], "<i8").tofile(flow)
    result = run("replay", flow)
    assert result.exit_code == 0, result.output
    assert "trades  1" in result.output
    flow.write_bytes(b"nonsense")
    assert run("replay", flow).exit_code == 2


def test_what_is_no_exchange_is_not_verified(tmp_path: Path) -> None:
    result = run("verify", "--data", tmp_path)
    assert result.exit_code == 1
    assert "is not the data directory of an exchange" in result.output


async def test_verify_names_the_place(tmp_path: Path) -> None:
    await serve_once(tmp_path)
    assert "everything agrees" in run("verify", "--data", tmp_path).output
    segment = next((tmp_path / "log").glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[300] ^= 1
    segment.write_bytes(data)
    result = run("verify", "--data", tmp_path)
    assert result.exit_code == 1
    assert segment.name in result.output and "damaged at byte" in result.output


async def serve_once(data_dir: Path) -> None:
    async with ServerProcess(data_dir, "--market", "L4-USE", "--hours", "1") as server:
        assert await server.interrupt() == 0


def test_books_of_another_version_are_refused_with_a_reason(tmp_path: Path) -> None:
    asyncio.run(serve_once(tmp_path))
    with sqlite3.connect(tmp_path / "settlement" / "ledger.sqlite") as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    for command in ("verify", "serve"):
        result = run(command, "--data", tmp_path)
        assert result.exit_code == 1
        assert "ledger.sqlite" in result.output
