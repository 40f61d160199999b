"""What `wellhead doctor` says of a directory: what is damaged, saved and lost, and what to type. What it foresees of a start
is what a start does; looking changes nothing, and a repair saves what can be saved.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

import wellhead.examine
from engine.log import FileLog, LogError, segment_paths
from engine.snapshot import Snapshot
from gateway.auth import KeyStore, KeyStoreError
from tests.wellhead.directory import fill
from wellhead.additions import load_catalogue
from wellhead.cli import main
from wellhead.config import Config
from wellhead.doctor import repair
from wellhead.examine import DoctorError, Finding, examine
from wellhead.exchange import Exchange, RecoveryError

STEPS = 20
SEGMENT_BYTES = 10_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with four segments, snapshots in the third and the last, and books. Not to be changed."""
    path = tmp_path_factory.mktemp("whole") / "data"
    given = FileLog.__init__.__kwdefaults__
    before = given["segment_bytes"]
    given["segment_bytes"] = SEGMENT_BYTES
    try:
        fill(path, [0.5, 0.9], STEPS)
    finally:
        given["segment_bytes"] = before
    KeyStore(path / "keys.json").create("ann", "ann")
    assert len(segment_paths(path / "log")) == 4
    yield path


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    path = tmp_path / "data"
    shutil.copytree(whole, path)
    return path


def content(directory: Path) -> dict[str, str]:
    """Every file but SQLite's shared memory, by its hash."""
    paths = [path for path in directory.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal"))]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def recovers(data_dir: Path) -> int:
    """Start, and say how far it is; raises what a start would."""
    catalogue = load_catalogue(data_dir)
    KeyStore(data_dir / "keys.json")
    exchange = Exchange.open(Config(data_dir), catalogue)
    try:
        exchange.recover()
        assert exchange.settlement.applied_seq == exchange.engine.applied_seq
        return exchange.engine.applied_seq
    finally:
        exchange.close()


def starts(data_dir: Path) -> bool:
    try:
        recovers(data_dir)
    except (LogError, RecoveryError, KeyStoreError, ValueError):
        return False
    return True


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def segment(data: Path, number: int) -> Path:
    return segment_paths(data / "log")[number]


def snapshots(data: Path) -> list[Path]:
    return sorted((data / "snapshots").glob("*.snapshot"))


def ledger(data: Path) -> Path:
    """The database alone: what had not reached it yet is in it."""
    import sqlite3

    path = data / "settlement" / "ledger.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


def spoil(path: Path) -> None:
    """A hole in the middle third."""
    third = path.stat().st_size // 3
    with path.open("r+b") as file:
        file.seek(third)
        file.write(b"\xaa" * third)


def only_snapshots_are_ahead(data: Path) -> None:
    """The log and its mark are those of a backup, the books are lost."""
    older = segment_paths(data / "log")[2:]
    for path in (*older, data / "log" / "mark", *(data / "settlement").glob("ledger.sqlite*")):
        path.unlink()
    with FileLog(data / "log"):  # a mark of its own
        pass


def of_another_log(data: Path) -> None:
    path = snapshots(data)[-1]
    Snapshot.write(path.parent, int(path.stem), bytes(32), Snapshot.load(path).sections)


class Damage(NamedTuple):
    """What is done, and words of the first finding: what it is, what is saved, what is lost, what to type."""

    do: Callable[[Path], object]
    says: tuple[str, str, str, str]


LAST, SECOND = "00000000000000000136.log", "00000000000000000048.log"
GIVE_UP = "--repair --give-up-from"
DAMAGES = {
    "half a frame": Damage(
        lambda data: segment(data, -1).open("ab").write(b"half a frame"),
        ("12 bytes at the end of the log, after seq 178", "up to seq 178", "nothing: a write that had not finished", "--repair"),
    ),
    "a bit in an old segment": Damage(
        lambda data: flip(segment(data, 1), 3_000),
        (f"{SECOND} is damaged at byte", "the snapshot at seq 166", "cannot be proven", f"cp -a BACKUP/log/{SECOND} "),
    ),
    "the same without snapshots": Damage(
        lambda data: (flip(segment(data, 1), 3_000), shutil.rmtree(data / "snapshots")),
        (f"{SECOND} is damaged at byte", "behind the damage", "to 178, which were acknowledged", GIVE_UP),
    ),
    "a bit in the last frame": Damage(
        lambda data: flip(segment(data, -1), segment(data, -1).stat().st_size - 5),
        (f"{LAST} is damaged at byte", "commands up to seq 168", "from seq 169 to 178", f"{GIVE_UP} 169"),
    ),
    "a bit in a segment's header": Damage(
        lambda data: flip(segment(data, 1), 20),
        ("the segment header is not whole", "seq 87 to 178", "from seq 48 to 178", f"cp -a BACKUP/log/{SECOND} "),
    ),
    "no first segment": Damage(
        lambda data: segment(data, 0).unlink(),
        ("missing before", "no command by itself; behind the damage 131 more", "from seq 1 to 178", f"{GIVE_UP} 1"),
    ),
    "a missing segment": Damage(
        lambda data: segment(data, 1).unlink(),
        (f"{SECOND} is damaged at byte 0, seq 48: missing", "92 more", "from seq 48 to 178", f"cp -a BACKUP/log/{SECOND} "),
    ),
    "no last segment": Damage(
        lambda data: segment(data, -1).unlink(),
        ("ends with seq 135, where the log was durable up to seq 178:", "seq 135", "from seq 136 to 178", "BACKUP/log/*.log "),
    ),
    "an empty last segment": Damage(
        lambda data: segment(data, -1).write_bytes(b""),
        (f"{LAST} is damaged at byte 0, seq 136", "up to seq 135", "from seq 136 to 178", f"{GIVE_UP} 136"),
    ),
    "no segments": Damage(
        lambda data: [path.unlink() for path in segment_paths(data / "log")],
        ("missing, and the log was durable up to seq 178", "no command", "from seq 1 to 178", f"{GIVE_UP} 1"),
    ),
    "no log": Damage(
        lambda data: shutil.rmtree(data / "log"),
        ("log is missing, and there are books", "to look at", "every command", "cp -a BACKUP/log BACKUP/limits.json "),
    ),
    "no mark": Damage(
        lambda data: (data / "log" / "mark").unlink(),
        ("mark is missing", "up to seq 178", "how far the log was durable", "wellhead verify"),
    ),
    "a bit in the mark": Damage(
        lambda data: flip(data / "log" / "mark", 20),
        ("mark cannot be read", "up to seq 178", "how far the log was durable", "wellhead verify"),
    ),
    "a bit in the newest snapshot": Damage(
        lambda data: flip(snapshots(data)[-1], 1_000),
        ("section 'engine' at byte 168 is not whole", "the log is the truth", "nothing", "--repair"),
    ),
    "empty snapshots": Damage(
        lambda data: [path.write_bytes(b"") for path in snapshots(data)],
        ("the header is not whole", "the log is the truth", "nothing", "--repair"),
    ),
    "a snapshot of another log": Damage(
        of_another_log, ("belongs to another log", "the log is the truth", "nothing", "--repair")
    ),
    "snapshots ahead of log and books": Damage(
        only_snapshots_are_ahead,
        ("of seq 166, the log ends at 86", "up to seq 86", "from seq 87 to 166", f"{GIVE_UP} 87"),
    ),
    "no database": Damage(
        lambda data: ledger(data).write_bytes(b"no database" * 100),
        ("ledger.sqlite is damaged: file is not a database", "made again from it", "nothing", "--repair"),
    ),
    "half a database": Damage(
        lambda data: os.truncate(ledger(data), ledger(data).stat().st_size // 2),
        ("ledger.sqlite is damaged", "made again from it", "nothing", "--repair"),
    ),
    "a hole in the database": Damage(
        lambda data: spoil(ledger(data)), ("ledger.sqlite is damaged", "made again from it", "nothing", "--repair")
    ),
    "a hole in the outbox": Damage(
        lambda data: spoil(Path(shutil.copy(ledger(data), data / "settlement" / "outbox.sqlite"))),
        ("outbox.sqlite is damaged", "on the chains", "what was signed for chains", "BACKUP/settlement/outbox.sqlite"),
    ),
    "limits that cannot be read": Damage(
        lambda data: (data / "limits.json").write_bytes(b"{"),
        ("limits.json: Expected `array`", "log, books and snapshots", "under which limits", "cp -a BACKUP/limits.json "),
    ),
    "no limits": Damage(
        lambda data: (data / "limits.json").unlink(),
        ("limits.json is missing", "if [limits] was never changed", "refused for limits of then", "cp -a BACKUP/limits.json "),
    ),
    "keys that cannot be read": Damage(
        lambda data: (data / "keys.json").write_bytes(b"{"),
        ("keys.json: Expecting", "log, books and snapshots", "the public halves", "cp -a BACKUP/keys.json "),
    ),
    "an empty key of the exchange": Damage(
        lambda data: (data / "settlement" / "exchange.key").write_bytes(b""),
        ("exchange.key: ", "log, books and snapshots", "delivery tickets", "cp -a BACKUP/settlement/exchange.key "),
    ),
    "a wrong catalogue": Damage(
        lambda data: (data / "catalogue.toml").write_text("x = ["),
        ("catalogue.toml: ", "log, books and snapshots", "classes and regions", "cp -a BACKUP/catalogue.toml "),
    ),
}  # fmt: skip


def test_nothing_is_wrong(data: Path) -> None:
    before = content(data)
    found = examine(data)
    assert found.findings == [] and found.would_start
    assert [line.split()[0] for line in found.lines] == ["log", "books", "snapshot"]
    assert "last seq 178, durable up to 178" in found.lines[0]
    assert content(data) == before


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_said_of_a_damage_and_that_a_start_does_what_was_foreseen(data: Path, name: str) -> None:
    DAMAGES[name].do(data)
    before = content(data)
    found = examine(data)
    first = found.findings[0]
    what, saved, lost, command = DAMAGES[name].says
    assert what in first.what and saved in first.saved and lost in first.lost
    assert command in f"{first.command}\n{first.otherwise}"
    assert content(data) == before, "looking changed something"
    if name != "a hole in the outbox":  # which only a start with chains reads
        assert found.would_start == starts(data)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_repair_leads_to_a_start_or_changes_nothing(data: Path, name: str) -> None:
    DAMAGES[name].do(data)
    before, found = content(data), examine(data)
    loses = min((finding.loses for finding in found.findings if finding.loses), default=0)
    try:
        done = repair(found, loses or None)
    except DoctorError:
        assert name == "a hole in the outbox" and content(data) == before
        return
    if not done:
        assert content(data) == before and all(not finding.aside for finding in found.findings)
        return
    assert examine(data).would_start
    assert recovers(data) == (loses - 1 if loses else 178)


def stopping(data: Path) -> Finding:
    (finding,) = [finding for finding in examine(data).findings if finding.stops]
    return finding


def test_a_damaged_middle_needs_the_very_seq_to_be_given_up(data: Path) -> None:
    flip(segment(data, -1), segment(data, -1).stat().st_size // 2)
    before, found, finding = content(data), examine(data), stopping(data)
    for wrong in (None, finding.loses - 1, finding.loses + 1):
        with pytest.raises(DoctorError):
            repair(found, wrong)
    assert content(data) == before
    repair(found, finding.loses)
    assert recovers(data) == finding.loses - 1
    assert examine(data).findings == []
    # What was there is there still.
    (aside,) = (data / "damaged").iterdir()
    kept = set(content(aside).values())
    assert {digest for path, digest in before.items() if "/log/" in path and path.endswith(".log")} <= kept


def test_a_log_that_lost_its_end_and_its_mark_is_behind_its_books(data: Path) -> None:
    segment(data, -1).unlink()
    (data / "log" / "mark").unlink()
    finding = stopping(data)
    assert "the books are at seq 178, the log ends at 135" in finding.what and "from seq 136 to 178" in finding.lost
    repair(examine(data), 136)
    assert recovers(data) == 135


def test_the_exchanges_copy_mends_it(whole: Path, data: Path) -> None:
    """What is to be typed, typed."""
    segment(data, -1).write_bytes(b"")
    command = stopping(data).command.replace("BACKUP", str(whole)).partition(" && ")[0]
    assert os.system(command) == 0
    assert examine(data).findings == [] and recovers(data) == 178


def test_an_open_directory_is_not_repaired(data: Path) -> None:
    with FileLog(data / "log"):
        found = examine(data)
        assert "a node has it open" in found.lines[0]
        with pytest.raises(DoctorError, match="stop it first"):
            repair(found)


def test_coins_on_a_chain_are_not_taken_back(data: Path) -> None:
    (data / "settlement" / "outbox.sqlite").touch()
    segment(data, -1).unlink()
    with pytest.raises(DoctorError, match="backup"):
        repair(examine(data), 136)
    assert not (data / "damaged").exists()


@pytest.mark.parametrize("place", ["log", "log/mark", "settlement/ledger.sqlite", "snapshots", "keys.json"])
def test_what_may_not_be_read_is_not_called_damaged(data: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    denied, real = data / place, os.access
    monkeypatch.setattr(wellhead.examine.os, "access", lambda path, mode: path != denied and real(path, mode))
    (finding,) = examine(data).findings
    assert finding.what.startswith(f"{denied} cannot be read and written by ") and finding.lost == "nothing"
    assert finding.command.startswith("chmod -R u+rwX") and not finding.aside and finding.stops


def test_what_root_left_behind_is_given_back(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        found = real(path, **options)
        return os.stat_result((*found[:4], 12_345, *found[5:])) if path.name == "mark" else found

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Path, "stat", stat)
    found = examine(data)
    assert found.would_start and "mark belongs to 12345" in found.findings[0].what
    assert found.findings[0].command.startswith("chown -R ")


def test_the_command(data: Path, tmp_path: Path) -> None:
    def doctor(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["doctor", *arguments])
        return result.exit_code, result.output

    assert doctor(str(data)) == (0, doctor(str(data))[1]) and "nothing is wrong" in doctor(str(data))[1]
    code, said = doctor(str(data), "--repair")
    assert code == 0 and "there was nothing that --repair can do" in said
    segment(data, -1).unlink()
    code, said = doctor(str(data))
    assert code == 1 and f"wellhead doctor {data} --repair --give-up-from 136" in said
    code, said = doctor(str(data), "--repair")
    assert code == 1 and "acknowledged" in said
    code, said = doctor(str(data), "--repair", "--give-up-from", "136")
    assert code == 0 and "the log ends with seq 135 now" in said and "nothing is wrong" in said
    assert doctor(str(tmp_path))[0] == 1


@pytest.mark.parametrize(
    ("place", "words"),
    [("settlement/ledger.sqlite", "not a database"), ("settlement/exchange.key", "exchange.key"), ("keys.json", "keys.json")],
)  # fmt: skip
def test_a_start_that_is_refused_names_the_doctor(data: Path, place: str, words: str) -> None:
    ledger(data)
    (data / place).write_bytes(b"spoilt" * 200)
    result = CliRunner().invoke(main, ["serve", "--data", str(data), "--port", "0"])
    assert result.exit_code == 1 and words in result.output and f"wellhead doctor {data}" in result.output


def test_an_archive_has_only_a_log_and_nothing_is_wrong_with_that(data: Path) -> None:
    for path in (data / "snapshots", data / "settlement"):
        shutil.rmtree(path)
    for name in ("limits.json", "keys.json"):
        (data / name).unlink()
    assert examine(data).findings == []
