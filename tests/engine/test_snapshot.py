"""Snapshot files: what goes in comes out, and nothing that changed since is ever believed."""

import errno
import os
import resource
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.snapshot import MAX_SECTIONS, Snapshot, SnapshotDamaged, SnapshotError

CHAIN = bytes(range(32))
SECTIONS = {"engine": b"books and balances" * 3, "gateway": b"", "settlement": b"\0\1\2"}
ROOT = Path(__file__).parents[2]


def write(directory: Path, *seqs: int) -> list[Path]:
    return [Snapshot.write(directory, seq, CHAIN, SECTIONS | {"seq": b"%d" % seq}) for seq in seqs]


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1 << offset % 8
    path.write_bytes(raw)


@given(
    applied_seq=st.integers(0, 2**63 - 1),
    chain=st.binary(min_size=32, max_size=32),
    sections=st.dictionaries(st.text("abc_é", min_size=1, max_size=16), st.binary(max_size=200), max_size=5),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, applied_seq: int, chain: bytes, sections: dict[str, bytes]
) -> None:
    directory = tmp_path_factory.mktemp("snapshots")
    path = Snapshot.write(directory, applied_seq, chain, sections)
    assert Snapshot.load(path) == Snapshot(applied_seq, chain, sections)
    assert list(Snapshot.load(path).sections) == list(sections)
    assert [*directory.iterdir()] == [path]


def test_sections_may_be_arrays(tmp_path: Path) -> None:
    array = np.arange(12).reshape(3, 4)
    path = Snapshot.write(tmp_path, 1, CHAIN, {"array": array.data, "more": bytearray(b"x")})
    assert Snapshot.load(path).sections == {"array": array.tobytes(), "more": b"x"}


def test_the_newest_is_taken(tmp_path: Path) -> None:
    write(tmp_path, 7, 100, 20)
    latest = Snapshot.latest(tmp_path)
    assert latest.snapshot is not None
    assert (latest.snapshot.applied_seq, latest.snapshot.sections["seq"], latest.warnings) == (100, b"100", [])


@pytest.mark.parametrize(("max_seq", "found"), [(100, 100), (99, 20), (7, 7), (6, None)])
def test_the_newest_up_to_a_seq(tmp_path: Path, max_seq: int, found: int | None) -> None:
    write(tmp_path, 7, 100, 20)
    snapshot = Snapshot.latest(tmp_path, max_seq).snapshot
    assert (snapshot and snapshot.applied_seq) == found


def test_no_snapshots(tmp_path: Path) -> None:
    assert Snapshot.latest(tmp_path) == (None, [])
    assert Snapshot.latest(tmp_path / "none") == (None, [])
    assert not (tmp_path / "none").exists()


def test_a_flip_at_every_byte_falls_back_with_a_warning(tmp_path: Path) -> None:
    _, path = write(tmp_path, 1, 2)
    for offset in range(path.stat().st_size):
        flip(path, offset)
        with pytest.raises(SnapshotDamaged) as caught:
            Snapshot.load(path)
        assert caught.value.path == path
        snapshot, warnings = Snapshot.latest(tmp_path)
        assert snapshot is not None
        assert snapshot.applied_seq == 1
        assert warnings == [f"snapshot passed over: {caught.value}"]
        flip(path, offset)
    assert Snapshot.latest(tmp_path).warnings == []


def test_torn_at_every_byte_falls_back(tmp_path: Path) -> None:
    _, path = write(tmp_path, 1, 2)
    for size in reversed(range(path.stat().st_size)):
        os.truncate(path, size)
        snapshot, warnings = Snapshot.latest(tmp_path)
        assert snapshot is not None
        assert (snapshot.applied_seq, len(warnings)) == (1, 1)


def test_zeros_or_more_behind_it(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 1)
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SnapshotDamaged, match="bytes follow"):
        Snapshot.load(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert Snapshot.latest(tmp_path).snapshot is None


def test_a_snapshot_under_another_name(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 1)
    newer = path.rename(tmp_path / f"{9:020d}.snapshot")
    with pytest.raises(SnapshotDamaged, match="its name says otherwise"):
        Snapshot.load(newer)


def test_a_snapshot_of_another_version_is_named(tmp_path: Path) -> None:
    """Its seal holds: it is whole, and cannot be read all the same."""
    (path,) = write(tmp_path, 1)
    raw = path.read_bytes()
    head = len(raw) - sum(map(len, SECTIONS.values())) - len(b"1") - 32
    changed = raw[:8] + b"\x02\0\0\0" + raw[12:head]
    path.write_bytes(changed + sha256(changed).digest() + raw[head + 32 :])
    with pytest.raises(SnapshotDamaged, match="version 2 cannot be read, only 1"):
        Snapshot.load(path)


def test_when_all_are_damaged_none_is_taken(tmp_path: Path) -> None:
    for path in write(tmp_path, 1, 2, 3):
        flip(path, path.stat().st_size - 1)
    snapshot, warnings = Snapshot.latest(tmp_path)
    assert snapshot is None
    assert [f"{seq:020d}" in warning for seq, warning in zip((3, 2, 1), warnings, strict=True)] == [True] * 3


def test_one_of_the_same_seq_is_replaced(tmp_path: Path) -> None:
    Snapshot.write(tmp_path, 5, CHAIN, {"engine": b"old and longer"})
    path = Snapshot.write(tmp_path, 5, CHAIN, {"engine": b"new"})
    assert Snapshot.load(path).sections == {"engine": b"new"}


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    paths = write(tmp_path, 1, 2, 3, 4)
    assert sorted(Snapshot.prune(tmp_path, keep=2)) == paths[:2]
    assert sorted(tmp_path.iterdir()) == paths[2:]
    assert Snapshot.prune(tmp_path) == []


def test_a_damaged_one_does_not_drive_out_a_good_one(tmp_path: Path) -> None:
    paths = write(tmp_path, 1, 2, 3, 4)
    for path in paths[1], paths[3]:
        flip(path, 100)
    assert Snapshot.prune(tmp_path, keep=2) == []
    assert Snapshot.prune(tmp_path, keep=1) == [paths[1], paths[0]]
    snapshot = Snapshot.latest(tmp_path).snapshot
    assert snapshot is not None
    assert snapshot.applied_seq == 3


def test_prune_removes_drafts_and_nothing_foreign(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / f"{2:020d}.new").write_bytes(b"half")
    (tmp_path / "notes.txt").touch()
    assert [path.suffix for path in Snapshot.prune(tmp_path)] == [".new"]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".snapshot", ".txt"]


def test_prune_must_keep_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Snapshot.prune(tmp_path, keep=0)


@pytest.mark.parametrize(
    ("applied_seq", "chain", "sections"),
    [
        (-1, CHAIN, {}),
        (1, CHAIN[1:], {}),
        (1, CHAIN, {"": b""}),
        (1, CHAIN, {"x" * 33: b""}),
        (1, CHAIN, {"a\0b": b""}),
        (1, CHAIN, {f"{at}": b"" for at in range(MAX_SECTIONS + 1)}),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, applied_seq: int, chain: bytes, sections: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=r"snapshot|section"):
        Snapshot.write(tmp_path, applied_seq, chain, sections)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("function", ["fsync", "rename"])
def test_a_failed_write_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "no")

    (path,) = write(tmp_path, 1)
    before = path.read_bytes()
    monkeypatch.setattr(os, function, fail)
    with pytest.raises(SnapshotError, match="cannot write"):
        Snapshot.write(tmp_path, 1, CHAIN, {"engine": b"other"})
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == before


def test_the_order_of_forcing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes before the name, the name before the return."""
    calls = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(fd: int) -> None:
        calls.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        fsync(fd)

    def record_rename(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    write(tmp_path / "snapshots", 1)
    assert calls == [f"fsync {1:020d}.new", "rename", "fsync snapshots"]


def test_no_space_left(tmp_path: Path) -> None:
    program = f"""
import resource, sys
from engine.snapshot import Snapshot, SnapshotError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, {resource.RLIM_INFINITY}))
Snapshot.write(sys.argv[1], 1, bytes(32), {{"engine": bytes(5_000)}})
try:
    Snapshot.write(sys.argv[1], 2, bytes(32), {{"engine": bytes(50_000)}})
except SnapshotError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [f"{1:020d}.snapshot"]
    assert Snapshot.latest(tmp_path).warnings == []
