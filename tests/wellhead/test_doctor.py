"""What `wellhead doctor` says of a directory, that looking changes nothing, and that a repair saves what can be saved."""

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.catalogue import Catalogue
from engine.log import FileLog, segment_paths, verify
from tests.wellhead.directory import fill
from wellhead.cli import main
from wellhead.config import Config
from wellhead.doctor import DoctorError, examine, repair
from wellhead.exchange import Exchange

STEPS = 20


def content(directory: Path) -> dict[str, str]:
    """Every file but SQLite's shared memory, by its hash."""
    paths = [path for path in directory.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal"))]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def recovers(data_dir: Path) -> int:
    """Start, and say how far it is; raises what a start would."""
    exchange = Exchange.open(Config(data_dir), Catalogue.load())
    try:
        exchange.recover()
        assert exchange.settlement.applied_seq == exchange.engine.applied_seq
        return exchange.engine.applied_seq
    finally:
        exchange.close()


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_nothing_is_wrong(tmp_path: Path) -> None:
    last = fill(tmp_path, [0.5, 0.9], STEPS)
    before = content(tmp_path)
    found = examine(tmp_path)
    assert found.findings == [] and found.would_start
    assert f"last seq {last:,}" in found.lines[0]
    assert content(tmp_path) == before


def test_a_torn_tail_is_told_and_cut(tmp_path: Path) -> None:
    last = fill(tmp_path, (), STEPS)
    segment = segment_paths(tmp_path / "log")[-1]
    with segment.open("ab") as file:
        file.write(b"half a frame")
    before = content(tmp_path)
    found = examine(tmp_path)
    assert found.would_start and "12 bytes" in found.findings[0].what
    assert content(tmp_path) == before
    assert repair(found) == ["cut 12 bytes that were never acknowledged"]
    assert examine(tmp_path).findings == [] and recovers(tmp_path) == last


def test_a_damaged_middle_needs_the_very_seq_to_be_given_up(tmp_path: Path) -> None:
    last = fill(tmp_path, [0.2, 0.9], STEPS)
    segment = segment_paths(tmp_path / "log")[-1]
    flip(segment, segment.stat().st_size // 2)
    before = content(tmp_path)
    found = examine(tmp_path)
    (finding,) = [finding for finding in found.findings if finding.loses]
    assert not found.would_start
    assert 0 < finding.loses <= last and f"to {last:,}) are whole" in finding.means
    for wrong in (None, finding.loses - 1, finding.loses + 1):
        with pytest.raises(DoctorError):
            repair(found, wrong)
    assert content(tmp_path) == before
    repair(found, finding.loses)
    assert recovers(tmp_path) == finding.loses - 1
    assert examine(tmp_path).findings == []
    # What was there is there still.
    (aside,) = (tmp_path / "damaged").iterdir()
    kept = set(content(aside).values())
    assert {digest for path, digest in before.items() if "/log/" in path and path.endswith(".log")} <= kept


def test_the_first_frame_is_damaged_and_everything_is_given_up(tmp_path: Path) -> None:
    fill(tmp_path, (), STEPS)
    flip(segment_paths(tmp_path / "log")[0], 200)
    repair(examine(tmp_path), 1)
    assert recovers(tmp_path) == 0


def test_a_log_that_lost_its_end_and_its_mark_is_behind_its_books(tmp_path: Path) -> None:
    fill(tmp_path, (), STEPS)
    segment = segment_paths(tmp_path / "log")[-1]
    with FileLog(tmp_path / "log") as log:
        part = log.read(1)
        first = next(part)
    assert len(first) > 1
    segment.write_bytes(segment.read_bytes()[: segment.stat().st_size * 2 // 3])
    (tmp_path / "log" / "mark").unlink()
    found = examine(tmp_path)
    report = verify(tmp_path / "log")
    assert not found.would_start
    assert any("the books are at seq" in finding.what for finding in found.findings)
    repair(found, report.head_seq + 1)
    assert recovers(tmp_path) == report.head_seq


def test_a_lost_mark_end_is_damage_and_is_cut_at_what_is_there(tmp_path: Path) -> None:
    fill(tmp_path, (), STEPS)
    segment = segment_paths(tmp_path / "log")[-1]
    segment.write_bytes(segment.read_bytes()[:-100])
    found = examine(tmp_path)
    (finding,) = [finding for finding in found.findings if finding.loses]
    assert "durable up to" in finding.what
    repair(found, finding.loses)
    assert recovers(tmp_path) == finding.loses - 1


def test_a_damaged_snapshot_and_damaged_books_are_set_aside(tmp_path: Path) -> None:
    last = fill(tmp_path, [0.5, 0.9], STEPS)
    newest = sorted((tmp_path / "snapshots").glob("*.snapshot"))[-1]
    flip(newest, newest.stat().st_size - 1)
    (tmp_path / "settlement" / "ledger.sqlite").write_bytes(b"no database" * 100)
    for tail in (tmp_path / "settlement").glob("ledger.sqlite-*"):
        tail.unlink()
    found = examine(tmp_path)
    assert len(found.findings) == 2 and not found.would_start
    done = repair(found)
    assert any(newest.name in line for line in done) and any("ledger.sqlite" in line for line in done)
    assert recovers(tmp_path) == last


def test_an_open_directory_is_not_repaired(tmp_path: Path) -> None:
    fill(tmp_path, (), STEPS)
    with FileLog(tmp_path / "log"):
        found = examine(tmp_path)
        assert "a node has it open" in found.lines[0]
        with pytest.raises(DoctorError, match="stop it first"):
            repair(found)


def test_coins_on_a_chain_are_not_taken_back(tmp_path: Path) -> None:
    fill(tmp_path, (), STEPS)
    (tmp_path / "settlement" / "outbox.sqlite").touch()
    flip(segment_paths(tmp_path / "log")[0], 200)
    with pytest.raises(DoctorError, match="backup"):
        repair(examine(tmp_path), 1)
    assert not (tmp_path / "damaged").exists()


def test_the_command(tmp_path: Path) -> None:
    fill(tmp_path, (), STEPS)
    result = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert result.exit_code == 0 and "nothing is wrong" in result.output
    flip(segment_paths(tmp_path / "log")[0], 200)
    result = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert result.exit_code == 1 and "--give-up-from 1" in result.output
    result = CliRunner().invoke(main, ["doctor", str(tmp_path), "--repair"])
    assert result.exit_code == 1 and "acknowledged" in result.output
    assert CliRunner().invoke(main, ["doctor", str(tmp_path), "--repair", "--give-up-from", "1"]).exit_code == 0
    assert CliRunner().invoke(main, ["doctor", str(tmp_path / "log")]).exit_code == 1
