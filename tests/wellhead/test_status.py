"""`wellhead status` beside a running node, without one, and of a directory that needs somebody to look."""

import json
from pathlib import Path

from click.testing import CliRunner

from engine.log import segment_paths
from tests.wellhead.directory import fill
from tests.wellhead.process import ServerProcess
from wellhead.cli import main
from wellhead.status import age, status

NOWHERE = "http://127.0.0.1:1"


def values(facts) -> dict[tuple[str, str], str]:
    return {(fact.part, fact.name): fact.value for fact in facts}


async def test_a_running_node(tmp_path: Path, clock: Path) -> None:
    async with ServerProcess(tmp_path, "--market", "L4-USE", "--hours", "2", clock=clock) as server:
        facts = status(tmp_path, server.url.replace("ws", "http"))
        seen = values(facts)
        assert seen["node", "ready"] == "yes"
        assert seen["node", "instruments"] == "2"
        assert seen["log", "open for writing"] == "yes"
        assert int(seen["node", "commands since the start"]) >= 2
        assert not [fact for fact in facts if fact.is_bad]


def test_a_directory_without_a_node(tmp_path: Path) -> None:
    last = fill(tmp_path, [0.5], 20)
    facts = status(tmp_path, NOWHERE)
    seen = values(facts)
    assert seen["node", "answers"].startswith("no")
    assert seen["log", "last seq"] == f"{last:,}, durable up to {last:,}"
    assert seen["books", "applied seq"] == f"{last:,}, 0 behind the log"
    assert "at seq" in seen["snapshots", "newest"]
    assert seen["custody", "on chain"] == "no"
    assert not [fact for fact in facts if fact.is_bad]


def test_damage_is_bad(tmp_path: Path) -> None:
    fill(tmp_path, (), 20)
    segment = segment_paths(tmp_path / "log")[-1]
    segment.write_bytes(segment.read_bytes()[:-10])
    result = CliRunner().invoke(main, ["status", "--data", str(tmp_path), "--url", NOWHERE, "--json"])
    assert result.exit_code == 1
    assert next(fact["name"] for fact in json.loads(result.stdout) if fact["is_bad"]) == "damage"


def test_no_directory(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["status", "--data", str(tmp_path), "--url", NOWHERE])
    assert result.exit_code == 1 and "is not the data directory" in " ".join(result.output.split())


def test_spans_of_time() -> None:
    assert [age(seconds) for seconds in (1, 150, 7300, 200_000)] == ["1 seconds", "2 minutes", "2 hours", "2 days"]
