"""The file log: what goes in comes out, a torn tail is cut, anything else is refused by name."""

import errno
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

import engine.log
from engine.log import (
    GENESIS,
    MAX_FRAME_COMMANDS,
    READ_COMMANDS,
    Beyond,
    FileLog,
    LogDamaged,
    LogError,
    LogLocked,
    beyond,
    chain_at,
    copy_before,
    log_lock,
    read_log,
    verify,
)
from engine.types import COMMAND, LISTING

SEGMENT_HEADER_BYTES = 128
FRAME_HEADER_BYTES = 64
RECORD_BYTES = 192
ROOT = Path(__file__).parents[2]


def batch(count: int, seed: int = 0) -> NDArray[np.void]:
    raw = np.random.default_rng(seed).integers(0, 256, count * RECORD_BYTES, dtype=np.uint8)
    return raw.view(COMMAND)


def frame_bytes(count: int) -> int:
    return FRAME_HEADER_BYTES + count * RECORD_BYTES


def write_log(directory: Path, counts: list[int], *, segment_bytes: int = 1 << 20) -> bytes:
    """A log of frames with these counts, each made durable; all its commands."""
    with FileLog(directory, segment_bytes=segment_bytes) as log:
        for seed, count in enumerate(counts):
            log.append(batch(count, seed))
            log.sync()
        return contents(log)


def contents(log: FileLog, from_seq: int = 1) -> bytes:
    return b"".join(part.tobytes() for part in log.read(from_seq))


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def flip(path: Path, offset: int, bit: int = 0) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1 << bit
    path.write_bytes(raw)


def refused(directory: Path) -> LogDamaged:
    """The damage that opening finds; verifying must find the same, and neither may change a byte."""
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(LogDamaged) as caught:
        FileLog(directory)
    report = verify(directory)
    assert not report.ok
    assert str(report.damage) == str(caught.value)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    return caught.value


class NaiveFrame(NamedTuple):
    offset: int
    first_seq: int
    payload: bytes
    chain: bytes


def naive_frames(path: Path) -> list[NaiveFrame]:
    """The format read a second time, from its description alone."""
    raw = path.read_bytes()
    frames = []
    offset = SEGMENT_HEADER_BYTES
    while offset < len(raw):
        magic, count, first_seq, _, payload_crc = struct.unpack_from("<4sIqQI", raw, offset)
        chain = raw[offset + 28 : offset + 60]
        payload = raw[offset + 64 : offset + 64 + count * RECORD_BYTES]
        assert magic == b"WHF1"
        assert payload_crc == zlib.crc32(payload)
        assert struct.unpack_from("<I", raw, offset + 60)[0] == zlib.crc32(raw[offset : offset + 60])
        frames.append(NaiveFrame(offset, first_seq, payload, chain))
        offset += frame_bytes(count)
    return frames


class TestAppendAndRead:
    def test_seq_is_assigned_without_gaps_into_the_callers_array(self, tmp_path: Path) -> None:
        with FileLog(tmp_path) as log:
            first, second = batch(3), batch(2)
            assert log.append(first) == 3
            assert log.append(second) == 5
            assert [*first["seq"], *second["seq"]] == [1, 2, 3, 4, 5]
            assert contents(log) == first.tobytes() + second.tobytes()

    def test_head_and_durable(self, tmp_path: Path) -> None:
        with FileLog(tmp_path) as log:
            assert (log.head_seq, log.durable_seq, log.chain) == (0, 0, GENESIS)
            log.append(batch(3))
            assert (log.head_seq, log.durable_seq) == (3, 0)
            assert log.sync() == log.durable_seq == 3
            assert log.append(batch(0)) == log.head_seq == 3

    @pytest.mark.parametrize("segment_bytes", [1, 2_000, 1 << 20])
    def test_read_from_every_seq(self, tmp_path: Path, segment_bytes: int) -> None:
        whole = write_log(tmp_path, [1, 4, 2, 9, 1, 3], segment_bytes=segment_bytes)
        with FileLog(tmp_path, segment_bytes=segment_bytes) as log:
            assert len(whole) == 20 * RECORD_BYTES
            for seq in range(1, 22):
                assert contents(log, seq) == whole[(seq - 1) * RECORD_BYTES :]

    @pytest.mark.parametrize("seq", [-1, 0, 7])
    def test_read_from_outside_is_an_error(self, tmp_path: Path, seq: int) -> None:
        with FileLog(tmp_path) as log:
            log.append(batch(5))
            with pytest.raises(ValueError, match="the log holds 1 to 5"):
                log.read(seq)

    def test_small_frames_are_joined_and_large_ones_kept(self, tmp_path: Path) -> None:
        with FileLog(tmp_path, durable=False) as log:
            for _ in range(READ_COMMANDS + 10):
                log.append(batch(1))
            log.append(batch(3 * READ_COMMANDS))
            assert [len(part) for part in log.read()] == [READ_COMMANDS, 3 * READ_COMMANDS + 10]

    def test_what_is_read_belongs_to_the_caller(self, tmp_path: Path) -> None:
        with FileLog(tmp_path) as log:
            log.append(batch(2))
            (part,) = log.read()
            assert part.flags.writeable
            assert part.flags.aligned
            part["seq"] = 0
            assert [*next(log.read())["seq"]] == [1, 2]

    def test_read_ends_at_the_head_of_its_call(self, tmp_path: Path) -> None:
        with FileLog(tmp_path) as log:
            log.append(batch(2))
            reading = log.read()
            log.append(batch(2))
            assert sum(len(part) for part in reading) == 2

    def test_read_notices_what_rotted_after_opening(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 2, 2])
        with FileLog(tmp_path) as log:
            flip(segments(tmp_path)[0], SEGMENT_HEADER_BYTES + frame_bytes(2) + 100)
            with pytest.raises(LogDamaged) as caught:
                contents(log)
        assert (caught.value.seq, caught.value.offset) == (3, SEGMENT_HEADER_BYTES + frame_bytes(2))

    def test_read_notices_a_frame_left_out_after_opening(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 2, 2])
        with FileLog(tmp_path) as log:
            (path,) = segments(tmp_path)
            raw = path.read_bytes()
            middle = SEGMENT_HEADER_BYTES + frame_bytes(2)
            path.write_bytes(raw[:middle] + raw[middle + frame_bytes(2) :])
            with pytest.raises(LogDamaged) as caught:
                contents(log)
        assert (caught.value.seq, caught.value.offset) == (3, middle)

    @pytest.mark.parametrize(
        ("commands", "message"),
        [
            (np.zeros(2, LISTING), "contiguous array of COMMAND"),
            (np.zeros((2, 2), COMMAND), "2 dimensions"),
            (np.zeros(4, COMMAND)[::2], "contiguous array of COMMAND"),
            (np.zeros(MAX_FRAME_COMMANDS + 1, COMMAND), f"the most is {MAX_FRAME_COMMANDS}"),
        ],
    )
    def test_bad_arrays_change_nothing(self, tmp_path: Path, commands: NDArray[np.void], message: str) -> None:
        with FileLog(tmp_path) as log:
            with pytest.raises(ValueError, match=message):
                log.append(commands)
            assert log.head_seq == 0
            assert log.append(batch(1)) == 1

    def test_a_closed_log_takes_nothing(self, tmp_path: Path) -> None:
        log = FileLog(tmp_path)
        log.close()
        log.close()
        with pytest.raises(LogError, match="closed"):
            log.append(batch(1))
        with pytest.raises(LogError, match="closed"):
            log.sync()


class TestFormat:
    def test_the_chain_is_what_the_description_says(self, tmp_path: Path) -> None:
        whole = write_log(tmp_path, [1, 4, 2, 9], segment_bytes=1_500)
        chain, payloads = GENESIS, b""
        with FileLog(tmp_path) as log:
            for path in segments(tmp_path):
                assert path.read_bytes()[40:72] == chain
                for frame in naive_frames(path):
                    assert frame.first_seq == len(payloads) // RECORD_BYTES + 1
                    fields = path.read_bytes()[frame.offset : frame.offset + 28]
                    chain = sha256(chain + fields + frame.payload).digest()
                    assert frame.chain == chain
                    payloads += frame.payload
                    assert log.chain_at(len(payloads) // RECORD_BYTES) == chain
            assert log.chain == chain
        assert payloads == whole

    def test_chain_at_wants_the_end_of_a_frame(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 3], segment_bytes=1)
        with FileLog(tmp_path) as log:
            assert log.chain_at(0) == GENESIS
            for seq in (-1, 1, 3, 4, 6):
                with pytest.raises(ValueError, match=f"seq {seq}$"):
                    log.chain_at(seq)
            for seq in (0, 2, 5):
                assert chain_at(tmp_path, seq) == log.chain_at(seq)
        for seq in (-1, 1, 3, 4):
            with pytest.raises(ValueError, match=f"seq {seq}$"):
                chain_at(tmp_path, seq)

    def test_segments_rotate_at_their_size_and_are_named_by_their_first_seq(self, tmp_path: Path) -> None:
        size = SEGMENT_HEADER_BYTES + 2 * frame_bytes(3)
        write_log(tmp_path, [3] * 5, segment_bytes=size)
        assert [int(path.stem) for path in segments(tmp_path)] == [1, 7, 13]
        assert [path.stat().st_size for path in segments(tmp_path)] == [size, size, size - frame_bytes(3)]

    def test_another_version_is_named(self, tmp_path: Path) -> None:
        write_log(tmp_path, [1])
        (path,) = segments(tmp_path)
        raw = bytearray(path.read_bytes())
        raw[8] = 2
        raw[124:128] = struct.pack("<I", zlib.crc32(raw[:124]))
        path.write_bytes(raw)
        with pytest.raises(LogError, match="version 2"):
            FileLog(tmp_path)


class LogMachine(RuleBasedStateMachine):
    """Against a list of frames: append, sync, reopen, lose the process, lose the power, read from anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[bytes] = []
        self.durable_frames = 0
        self.durable_end = (0, 0)  # segments, bytes in the last
        self.seed = 0
        self.images = 0

    @initialize(segment_bytes=st.sampled_from([1, 1_000, 5_000, 1 << 20]))
    def start(self, segment_bytes: int) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="wellhead-log-"))
        self.segment_bytes = segment_bytes
        self.open(self.base / "log")

    def open(self, directory: Path) -> None:
        self.directory = directory
        self.log = FileLog(directory, segment_bytes=self.segment_bytes)
        self.note_durable()

    def note_durable(self) -> None:
        self.durable_frames = len(self.frames)
        self.durable_end = self.end()

    def end(self) -> tuple[int, int]:
        paths = segments(self.directory)
        return len(paths), paths[-1].stat().st_size

    def commands(self) -> int:
        return sum(len(frame) for frame in self.frames) // RECORD_BYTES

    @rule(count=st.integers(0, 12))
    def append(self, count: int) -> None:
        self.seed += 1
        commands = batch(count, self.seed)
        before = len(segments(self.directory))
        assert self.log.append(commands) == self.commands() + count
        if len(segments(self.directory)) > before:
            # A new segment begins only after the old one is durable.
            self.durable_frames = len(self.frames)
            self.durable_end = (before + 1, SEGMENT_HEADER_BYTES)
        if count:
            self.frames.append(commands.tobytes())

    @rule()
    def sync(self) -> None:
        assert self.log.sync() == self.commands()
        self.note_durable()

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.open(self.directory)

    def image(self) -> Path:
        """What the disk shows to the next process: everything, synced or not."""
        self.images += 1
        target = self.base / f"image{self.images}"
        shutil.copytree(self.directory, target)
        self.log.close()
        return target

    @rule()
    def lose_the_process(self) -> None:
        self.open(self.image())

    @precondition(lambda self: self.durable_frames < len(self.frames))
    @rule(data=st.data())
    def lose_the_power(self, data: st.DataObject) -> None:
        """Of what was not synced some first part remains, perhaps followed by zeros."""
        path = segments(image := self.image())[-1]
        kept = data.draw(st.integers(self.durable_end[1], path.stat().st_size))
        zeros = data.draw(st.sampled_from([0, 1, 64, 4_096]))
        os.truncate(path, kept)
        os.truncate(path, kept + zeros)
        self.frames = self.survivors(path)
        self.open(image)
        assert self.log.recovered.ok

    def survivors(self, path: Path) -> list[bytes]:
        """The durable frames, and those behind them that are in the file to the last byte."""
        raw, frames = path.read_bytes(), self.frames[: self.durable_frames]
        offset = self.durable_end[1]
        for frame in self.frames[self.durable_frames :]:
            if raw[offset + FRAME_HEADER_BYTES : offset + FRAME_HEADER_BYTES + len(frame)] != frame:
                break
            offset += FRAME_HEADER_BYTES + len(frame)
            frames.append(frame)
        return frames

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        seq = data.draw(st.integers(1, self.commands() + 1))
        assert contents(self.log, seq) == b"".join(self.frames)[(seq - 1) * RECORD_BYTES :]

    @invariant()
    def heads_agree(self) -> None:
        if not hasattr(self, "log"):
            return
        durable = sum(len(frame) for frame in self.frames[: self.durable_frames]) // RECORD_BYTES
        assert (self.log.head_seq, self.log.durable_seq) == (self.commands(), durable)
        report = verify(self.directory)
        assert report.ok
        assert (report.head_seq, report.frames, report.chain) == (self.commands(), len(self.frames), self.log.chain)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
            shutil.rmtree(self.base)


LogMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestModel = LogMachine.TestCase


@pytest.fixture
def crashed(tmp_path: Path) -> Callable[[], Path]:
    """Makes copies of a log whose process died: frames of 2 and 1 commands durable, then one of 3 that was not yet."""
    source = tmp_path / "source"
    with FileLog(source) as log:
        for count in (2, 1):
            log.append(batch(count, count))
            log.sync()
        log.append(batch(3, 3))
        image = tmp_path / "image"
        shutil.copytree(source, image)

    def copy() -> Path:
        target = tmp_path / "copy"
        shutil.rmtree(target, ignore_errors=True)
        return shutil.copytree(image, target)

    return copy


LAST_FRAME = SEGMENT_HEADER_BYTES + frame_bytes(2) + frame_bytes(1)
"""Where the last frame of `crashed` begins; it holds seq 4 to 6."""


class TestTornTail:
    def test_cut_at_every_byte(self, crashed: Callable[[], Path]) -> None:
        for kept in range(frame_bytes(3)):
            directory = crashed()
            os.truncate(segments(directory)[0], LAST_FRAME + kept)
            with FileLog(directory, durable=False) as log:
                assert (log.head_seq, log.recovered.torn_bytes) == (3, kept)
                assert segments(directory)[0].stat().st_size == LAST_FRAME
                assert log.append(batch(1)) == 4
            assert verify(directory).head_seq == 4

    @pytest.mark.parametrize(
        "tail",
        [bytes(1), bytes(64), bytes(4_096), bytes(3 << 20), b"WHF1", b"WHF1" * 5_000, batch(40).tobytes()],
        ids=["zero", "zeros", "page", "megabytes", "magic", "magics", "garbage"],
    )
    @pytest.mark.parametrize("kept", [0, 70, frame_bytes(3)])
    def test_zeros_or_garbage_after_it(self, crashed: Callable[[], Path], tail: bytes, kept: int) -> None:
        """As a file system leaves behind when it had the size on disk before the bytes."""
        directory = crashed()
        (path,) = segments(directory)
        path.write_bytes(path.read_bytes()[: LAST_FRAME + kept] + tail)
        with FileLog(directory) as log:
            assert log.head_seq == (6 if kept == frame_bytes(3) else 3)
            assert log.recovered.ok

    def test_zeros_in_its_place(self, crashed: Callable[[], Path]) -> None:
        for start in range(LAST_FRAME, LAST_FRAME + frame_bytes(3), 32):
            directory = crashed()
            (path,) = segments(directory)
            raw = path.read_bytes()
            path.write_bytes(raw[:start] + bytes(len(raw) - start))
            with FileLog(directory, durable=False) as log:
                assert log.head_seq == 3

    def test_a_frame_of_another_log_does_not_count(self, crashed: Callable[[], Path], tmp_path: Path) -> None:
        write_log(tmp_path / "other", [2, 1, 3])
        stranger = segments(tmp_path / "other")[0].read_bytes()[LAST_FRAME:]
        directory = crashed()
        (path,) = segments(directory)
        path.write_bytes(path.read_bytes()[:LAST_FRAME] + stranger)
        with FileLog(directory) as log:
            assert log.head_seq == 3

    def test_the_whole_log_may_be_torn(self, tmp_path: Path) -> None:
        with FileLog(tmp_path / "log") as log:
            log.append(batch(3))
            shutil.copytree(tmp_path / "log", tmp_path / "image")
        os.truncate(segments(tmp_path / "image")[0], SEGMENT_HEADER_BYTES + 10)
        with FileLog(tmp_path / "image") as log:
            assert (log.head_seq, log.chain) == (0, GENESIS)
            assert log.append(batch(1)) == 1

    def test_a_segment_that_was_being_made(self, tmp_path: Path) -> None:
        whole = write_log(tmp_path, [2, 2])
        (tmp_path / f"{5:020d}.new").write_bytes(bytes(50))
        with FileLog(tmp_path, segment_bytes=1) as log:
            assert contents(log) == whole
            assert log.append(batch(1)) == 5
        assert verify(tmp_path).ok

    def test_what_was_not_known_durable_is_written_again(
        self, crashed: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a failed fdatasync the kernel may hold a clean page that is not on the disk."""
        written = bytearray()
        pwrite = os.pwrite

        def spy(fd: int, data: bytes, offset: int) -> int:
            if offset >= SEGMENT_HEADER_BYTES:
                assert offset == LAST_FRAME + len(written)
                written.extend(data)
            return pwrite(fd, data, offset)

        directory = crashed()
        monkeypatch.setattr(os, "pwrite", spy)
        FileLog(directory).close()
        assert bytes(written) == segments(directory)[0].read_bytes()[LAST_FRAME:]


class TestMark:
    """The last frame, whole or not: the mark knows whether it was acknowledged."""

    def test_a_flip_in_an_acknowledged_last_frame_is_damage(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1])
        (path,) = segments(tmp_path)
        last = SEGMENT_HEADER_BYTES + frame_bytes(2)
        for offset in range(last, last + frame_bytes(1)):
            flip(path, offset)
            damage = refused(tmp_path)
            assert (damage.path, damage.offset, damage.seq) == (path, last, 3)
            assert "durable up to seq 3" in damage.reason
            flip(path, offset)
        assert verify(tmp_path).ok

    def test_an_acknowledged_tail_cut_at_every_byte_is_damage(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1])
        (path,) = segments(tmp_path)
        for size in reversed(range(SEGMENT_HEADER_BYTES + frame_bytes(2), path.stat().st_size)):
            os.truncate(path, size)
            assert refused(tmp_path).seq == 3

    def test_the_last_segment_missing(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1, 4], segment_bytes=1)
        segments(tmp_path)[-1].unlink()
        assert (refused(tmp_path).seq, refused(tmp_path).path) == (4, segments(tmp_path)[-1])

    def test_every_segment_missing(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1])
        segments(tmp_path)[0].unlink()
        assert "durable up to seq 3" in refused(tmp_path).reason

    def test_the_last_frame_replaced_by_a_whole_one(self, tmp_path: Path) -> None:
        """Same length, same place, a chain that holds: only the mark remembers the other."""
        with FileLog(tmp_path / "log") as log:
            log.append(batch(2))
            log.sync()
            shutil.copytree(tmp_path / "log", tmp_path / "fork")
            log.append(batch(1, seed=1))
        with FileLog(tmp_path / "fork") as fork:
            fork.append(batch(1, seed=2))
        shutil.copy(segments(tmp_path / "fork")[0], tmp_path / "log")
        assert "not the frame that was made durable" in refused(tmp_path / "log").reason

    def test_the_mark_of_another_log(self, tmp_path: Path) -> None:
        write_log(tmp_path / "log", [2])
        write_log(tmp_path / "other", [2])
        shutil.copy(tmp_path / "other" / "mark", tmp_path / "log")
        assert "another log" in refused(tmp_path / "log").reason

    def test_without_a_readable_mark_the_content_decides(self, tmp_path: Path) -> None:
        for offset in range(64):
            write_log(tmp_path / "log", [2, 1])
            flip(tmp_path / "log" / "mark", offset, bit=3)
            flip(segments(tmp_path / "log")[0], SEGMENT_HEADER_BYTES + frame_bytes(2) + 100)
            with FileLog(tmp_path / "log") as log:
                assert log.head_seq == 2
                assert "judged by its content alone" in log.recovered.warnings[0]
            shutil.rmtree(tmp_path / "log")

    def test_no_mark_is_no_damage(self, tmp_path: Path) -> None:
        whole = write_log(tmp_path, [2, 1], segment_bytes=1)
        (tmp_path / "mark").unlink()
        with FileLog(tmp_path) as log:
            assert contents(log) == whole


class TestDamagedMiddle:
    def test_a_flip_at_every_byte_of_a_middle_frame(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 2, 1])
        (tmp_path / "mark").unlink()  # the content alone must do
        (path,) = segments(tmp_path)
        middle = SEGMENT_HEADER_BYTES + frame_bytes(2)
        for offset in range(middle, middle + frame_bytes(2)):
            flip(path, offset, bit=offset % 8)
            damage = refused(tmp_path)
            assert (damage.path, damage.offset, damage.seq) == (path, middle, 3)
            assert f"{path} is damaged at byte {middle}, seq 3" in str(damage)
            flip(path, offset, bit=offset % 8)
        assert verify(tmp_path).ok

    def test_a_flip_at_every_byte_of_a_segment_header(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1, 4], segment_bytes=1)
        for path, seq in zip(segments(tmp_path), (1, 3, 4), strict=True):
            for offset in range(SEGMENT_HEADER_BYTES):
                flip(path, offset, bit=offset % 8)
                damage = refused(tmp_path)
                assert (damage.path, damage.offset, damage.seq) == (path, 0, seq)
                flip(path, offset, bit=offset % 8)

    def test_the_last_frame_of_a_segment_before_the_last(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1, 4], segment_bytes=1)
        path = segments(tmp_path)[1]
        flip(path, SEGMENT_HEADER_BYTES + 200)
        damage = refused(tmp_path)
        assert (damage.path, damage.offset, damage.seq) == (path, SEGMENT_HEADER_BYTES, 3)

    def test_a_middle_segment_cut_at_every_byte(self, tmp_path: Path) -> None:
        write_log(tmp_path, [1, 1, 1, 1], segment_bytes=SEGMENT_HEADER_BYTES + 2 * frame_bytes(1))
        path = segments(tmp_path)[0]
        for size in reversed(range(path.stat().st_size)):
            os.truncate(path, size)
            damage = refused(tmp_path)
            whole = max(0, size - SEGMENT_HEADER_BYTES) // frame_bytes(1)
            place = 0 if size < SEGMENT_HEADER_BYTES else SEGMENT_HEADER_BYTES + whole * frame_bytes(1)
            assert (damage.path, damage.offset, damage.seq) == (path, place, whole + 1)

    @pytest.mark.parametrize("gone", [0, 1])
    def test_a_missing_segment(self, tmp_path: Path, gone: int) -> None:
        write_log(tmp_path, [2, 1, 4], segment_bytes=1)
        path = segments(tmp_path)[gone]
        path.unlink()
        damage = refused(tmp_path)
        assert (damage.path, damage.offset, damage.seq) == (path, 0, (1, 3)[gone])

    def test_swapped_segments(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 2, 2], segment_bytes=1)
        _, second, third = segments(tmp_path)
        second_bytes = second.read_bytes()
        second.write_bytes(third.read_bytes())
        third.write_bytes(second_bytes)
        damage = refused(tmp_path)
        assert (damage.path, damage.offset, damage.seq) == (second, 0, 3)

    def test_a_segment_of_another_log(self, tmp_path: Path) -> None:
        write_log(tmp_path / "log", [2, 2, 2], segment_bytes=1)
        write_log(tmp_path / "other", [2, 2, 2], segment_bytes=1)
        shutil.copy(segments(tmp_path / "other")[1], tmp_path / "log")
        damage = refused(tmp_path / "log")
        assert (damage.path, damage.reason) == (segments(tmp_path / "log")[1], "the segment is of another log")

    @pytest.mark.parametrize("twin", [0, 1, 2])
    def test_a_duplicated_frame(self, tmp_path: Path, twin: int) -> None:
        write_log(tmp_path, [2, 2, 2])
        (path,) = segments(tmp_path)
        raw = path.read_bytes()
        start, end = (SEGMENT_HEADER_BYTES + (twin + more) * frame_bytes(2) for more in (0, 1))
        path.write_bytes(raw[:end] + raw[start:end] + raw[end:])
        damage = refused(tmp_path)
        assert (damage.offset, damage.seq) == (end, 2 * twin + 3)
        assert "out of place" in damage.reason

    def test_a_frame_left_out(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 2, 2])
        (path,) = segments(tmp_path)
        raw = path.read_bytes()
        start = SEGMENT_HEADER_BYTES + frame_bytes(2)
        path.write_bytes(raw[:start] + raw[start + frame_bytes(2) :])
        damage = refused(tmp_path)
        assert (damage.offset, damage.seq) == (start, 3)

    def test_bytes_left_out_or_put_in(self, tmp_path: Path) -> None:
        """The frames behind stand at odd offsets then, and are found all the same."""
        write_log(tmp_path, [2, 2, 2])
        (tmp_path / "mark").unlink()
        (path,) = segments(tmp_path)
        raw = path.read_bytes()
        middle = SEGMENT_HEADER_BYTES + frame_bytes(2)
        for changed in (raw[: middle + 9] + raw[middle + 12 :], raw[: middle + 9] + b"\0" + raw[middle + 9 :]):
            path.write_bytes(changed)
            damage = refused(tmp_path)
            assert (damage.offset, damage.seq) == (middle, 3)

    def test_a_rewritten_history(self, tmp_path: Path) -> None:
        """A changed command under checksums made anew: the chain hashes behind it do not follow."""
        write_log(tmp_path, [2, 2, 2])
        (path,) = segments(tmp_path)
        raw = bytearray(path.read_bytes())
        start = SEGMENT_HEADER_BYTES
        raw[start + FRAME_HEADER_BYTES + 100] ^= 1
        payload = bytes(raw[start + FRAME_HEADER_BYTES : start + frame_bytes(2)])
        raw[start + 24 : start + 28] = struct.pack("<I", zlib.crc32(payload))
        for chain in (
            bytes(raw[start + 28 : start + 60]),
            sha256(GENESIS + raw[start : start + 28] + payload).digest(),
        ):
            raw[start + 28 : start + 60] = chain
            raw[start + 60 : start + 64] = struct.pack("<I", zlib.crc32(raw[start : start + 60]))
            path.write_bytes(raw)
            assert "not of this history" in refused(tmp_path).reason

    def test_anything_after_the_frames_of_a_segment_before_the_last(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1], segment_bytes=1)
        path = segments(tmp_path)[0]
        path.write_bytes(path.read_bytes() + bytes(10))
        damage = refused(tmp_path)
        assert (damage.path, damage.offset, damage.seq) == (path, SEGMENT_HEADER_BYTES + frame_bytes(2), 3)

    def test_a_segment_that_continues_another_history(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1], segment_bytes=1)
        path = segments(tmp_path)[1]
        raw = bytearray(path.read_bytes())
        raw[40] ^= 1
        raw[124:128] = struct.pack("<I", zlib.crc32(raw[:124]))
        path.write_bytes(raw)
        damage = refused(tmp_path)
        assert (damage.path, damage.offset, damage.seq) == (path, 0, 3)
        assert "another history" in damage.reason

    def test_a_segment_under_another_name(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1], segment_bytes=1)
        path = segments(tmp_path)[1].rename(tmp_path / f"{9:020d}.log")
        damage = refused(tmp_path)
        assert (damage.path, damage.offset, damage.seq) == (path, 0, 9)

    @pytest.mark.parametrize("shift", range(6))
    def test_the_frame_behind_is_found_where_two_reads_meet(self, tmp_path: Path, shift: int) -> None:
        """The search reads a mebibyte at a time; the magic may lie across the border."""
        write_log(tmp_path, [1, 1])
        (tmp_path / "mark").unlink()
        (path,) = segments(tmp_path)
        raw = path.read_bytes()
        second = SEGMENT_HEADER_BYTES + frame_bytes(1)
        padding = bytes((1 << 20) - 4 + shift - frame_bytes(1))
        path.write_bytes(raw[: SEGMENT_HEADER_BYTES + 100] + b"!" + raw[SEGMENT_HEADER_BYTES + 101 : second])
        with path.open("ab") as file:
            file.write(padding + raw[second:])
        damage = refused(tmp_path)
        assert (damage.offset, damage.seq) == (SEGMENT_HEADER_BYTES, 1)

    def test_verify_from_takes_earlier_segments_on_trust(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1, 4], segment_bytes=1)
        flip(segments(tmp_path)[0], SEGMENT_HEADER_BYTES + 200)
        assert refused(tmp_path).seq == 1
        report = verify(tmp_path, from_seq=3)
        assert (report.ok, report.frames, report.head_seq) == (True, 2, 7)
        with FileLog(tmp_path, verify_from=3) as log:
            assert len(contents(log, 3)) == 5 * RECORD_BYTES
            with pytest.raises(LogDamaged):
                contents(log)


class TestVerify:
    def test_a_live_log_and_a_frame_under_way(self, tmp_path: Path) -> None:
        with FileLog(tmp_path) as log:
            log.append(batch(2))
            with segments(tmp_path)[0].open("ab") as file:
                file.write(b"WHF1 and no more")
            report = verify(tmp_path)
            assert (report.ok, report.head_seq, report.torn_bytes) == (True, 2, 16)
            assert segments(tmp_path)[0].stat().st_size == report.end + 16

    def test_beside_a_writer(self, tmp_path: Path) -> None:
        """Whatever moment it meets, it finds a first part of the log, and never less than was durable before.

        It may be one frame ahead of `head_seq`, which moves after the write.
        """
        seen = []
        with FileLog(tmp_path, segment_bytes=20_000) as log:

            def write() -> None:
                for seed in range(200):
                    log.append(batch(seed % 20 + 1, seed))
                    log.sync()

            writer = threading.Thread(target=write)
            writer.start()
            while writer.is_alive():
                seen.append((log.durable_seq, verify(tmp_path)))
            writer.join()
            assert log.durable_seq == log.head_seq == sum(seed % 20 + 1 for seed in range(200))
            for durable_seq, report in seen:
                assert report.ok, report.damage
                assert durable_seq <= report.head_seq <= log.head_seq
                assert report.chain == log.chain_at(report.head_seq)

    def test_a_log_that_moves_on_while_it_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The mark is read first: one newer than the list of segments would look like a lost tail."""
        listed = engine.log._segments

        def list_and_move_on(directory: Path) -> Any:
            found = listed(directory)
            log.append(batch(1))
            log.sync()
            return found

        with FileLog(tmp_path, segment_bytes=1) as log:
            log.append(batch(2))
            log.sync()
            monkeypatch.setattr(engine.log, "_segments", list_and_move_on)
            report = verify(tmp_path)
            assert (report.ok, report.head_seq, log.durable_seq) == (True, 2, 3)

    def test_no_such_directory(self, tmp_path: Path) -> None:
        with pytest.raises(LogError, match="not a directory"):
            verify(tmp_path / "none")
        assert not (tmp_path / "none").exists()

    def test_an_empty_directory(self, tmp_path: Path) -> None:
        report = verify(tmp_path)
        assert (report.ok, report.segments, report.head_seq) == (True, 0, 0)
        assert not [*tmp_path.iterdir()]


class TestReadLog:
    """As `wellhead` tools read it: without a lock, and whatever is still good of a damaged one."""

    def test_from_every_seq(self, tmp_path: Path) -> None:
        whole = write_log(tmp_path, [2, 1, 4], segment_bytes=1)
        for from_seq in range(1, 9):
            got = b"".join(part.tobytes() for part in read_log(tmp_path, from_seq))
            assert got == whole[(from_seq - 1) * RECORD_BYTES :]
        assert [*read_log(tmp_path, 99)] == []

    def test_damage_is_named_before_anything_is_read(self, tmp_path: Path) -> None:
        write_log(tmp_path, [2, 1])
        flip(segments(tmp_path)[0], SEGMENT_HEADER_BYTES + 200)
        with pytest.raises(LogDamaged):
            read_log(tmp_path)
        with pytest.raises(LogError, match="not a directory"):
            read_log(tmp_path / "none")

    def test_what_is_beyond_a_damage_is_counted(self, tmp_path: Path) -> None:
        whole = write_log(
            tmp_path / "log", [2, 1, 4, 3, 2], segment_bytes=SEGMENT_HEADER_BYTES + frame_bytes(2) + frame_bytes(3)
        )
        paths = segments(tmp_path / "log")
        assert [int(path.stem) for path in paths] == [1, 4, 8]
        flip(paths[0], SEGMENT_HEADER_BYTES + 200)
        assert beyond(refused(tmp_path / "log")) == Beyond(frames=4, commands=10, first_seq=3, last_seq=12)
        flip(paths[1], 50)  # a header that is not whole: nothing in it can be trusted
        damage = LogDamaged(paths[0], SEGMENT_HEADER_BYTES, 1, "as before")
        assert beyond(damage) == Beyond(frames=3, commands=6, first_seq=3, last_seq=12)
        assert beyond(LogDamaged(paths[2], SEGMENT_HEADER_BYTES, 8, "")) == Beyond(1, 2, 11, 12)
        assert beyond(LogDamaged(paths[2], paths[2].stat().st_size, 13, "")) == Beyond(0, 0, 0, 0)
        assert len(whole) == 12 * RECORD_BYTES

    def test_what_is_before_a_damage_can_be_kept(self, tmp_path: Path) -> None:
        whole = write_log(
            tmp_path / "log", [2, 1, 4, 3, 2], segment_bytes=SEGMENT_HEADER_BYTES + frame_bytes(2) + frame_bytes(3)
        )
        flip(segments(tmp_path / "log")[1], SEGMENT_HEADER_BYTES + 200)
        damage = refused(tmp_path / "log")
        report = copy_before(damage, tmp_path / "out")
        assert (report.ok, report.head_seq, report.segments) == (True, 3, 1)  # of the second nothing is whole
        assert contents(FileLog(tmp_path / "out")) == whole[: 3 * RECORD_BYTES]
        with pytest.raises(FileExistsError):
            copy_before(damage, tmp_path / "out")
        flip(segments(tmp_path / "log")[1], SEGMENT_HEADER_BYTES + 200)
        later = LogDamaged(segments(tmp_path / "log")[2], SEGMENT_HEADER_BYTES + frame_bytes(3), 11, "")
        assert copy_before(later, tmp_path / "more").head_seq == 10

    def test_a_file_that_becomes_shorter_while_it_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_log(tmp_path, [2])
        (path,) = segments(tmp_path)
        size, pread = path.stat().st_size, os.pread

        def shrinking(fd: int, count: int, offset: int) -> bytes:
            if offset >= SEGMENT_HEADER_BYTES:
                os.truncate(path, SEGMENT_HEADER_BYTES + 10)
            return pread(fd, count, offset)

        with FileLog(tmp_path) as log, monkeypatch.context() as patch:
            patch.setattr(os, "pread", shrinking)
            with pytest.raises(LogDamaged, match="no whole frame where one was written"):
                list(log.read())
            os.truncate(path, size)
            assert verify(tmp_path).torn_bytes == size - SEGMENT_HEADER_BYTES


class TestOneWriter:
    def test_a_second_is_refused_until_the_first_closes(self, tmp_path: Path) -> None:
        with FileLog(tmp_path), pytest.raises(LogLocked, match="open for writing elsewhere"):
            FileLog(tmp_path)
        FileLog(tmp_path).close()

    def test_a_refused_opening_holds_no_lock_and_no_file(self, tmp_path: Path) -> None:
        write_log(tmp_path, [1, 1])
        before = len(os.listdir("/proc/self/fd"))
        flip(segments(tmp_path)[0], SEGMENT_HEADER_BYTES + 70)
        for _ in range(2):
            with pytest.raises(LogDamaged):
                FileLog(tmp_path)
        flip(segments(tmp_path)[0], SEGMENT_HEADER_BYTES + 70)
        FileLog(tmp_path).close()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(LogError, match="cannot open the log"):
            FileLog(tmp_path / "file" / "log")

    def test_the_lock_may_be_taken_before_the_log_is_opened(self, tmp_path: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with log_lock(tmp_path / "new") as lock:
            for refused_one in (lambda: FileLog(tmp_path / "new"), lambda: log_lock(tmp_path / "new").__enter__()):
                with pytest.raises(LogLocked):
                    refused_one()
            with FileLog(tmp_path / "new", lock=lock) as log:
                assert log.append(batch(1)) == 1
            with pytest.raises(LogLocked):  # the log is closed, the lock is still ours
                FileLog(tmp_path / "new")
        FileLog(tmp_path / "new").close()
        assert len(os.listdir("/proc/self/fd")) == before
        (tmp_path / "file").touch()
        with pytest.raises(LogError, match="cannot open the log"), log_lock(tmp_path / "file" / "log"):
            pass

    def test_a_lock_that_cannot_be_had(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a file system that has none. No file stays open."""
        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr("fcntl.flock", failing(errno.ENOLCK))
            with pytest.raises(LogError, match="cannot open the log") as refusal:
                FileLog(tmp_path)
        assert not isinstance(refusal.value, LogLocked)
        assert len(os.listdir("/proc/self/fd")) == before
        FileLog(tmp_path).close()

    def test_a_first_segment_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = len(os.listdir("/proc/self/fd"))
        write = os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, raw: write(fd, raw[:100]))
            with pytest.raises(LogError, match="segment header cut short"):
                FileLog(tmp_path)
        assert len(os.listdir("/proc/self/fd")) == before
        with FileLog(tmp_path) as log:
            assert log.append(batch(1)) == 1

    def test_a_torn_tail_that_cannot_be_cut(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_log(tmp_path, [2])
        with segments(tmp_path)[0].open("ab") as file:
            file.write(b"torn")
        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", failing(errno.EIO))
            with pytest.raises(LogError, match="cannot open the log"):
                FileLog(tmp_path)
        assert len(os.listdir("/proc/self/fd")) == before
        with FileLog(tmp_path) as log:
            assert (log.head_seq, log.recovered.torn_bytes) == (2, 4)


class TestSyncBesideAppend:
    def test_durable_moves_only_to_what_was_written_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started, release = threading.Event(), threading.Event()
        fdatasync = os.fdatasync

        def slow(fd: int) -> None:
            started.set()
            assert release.wait(30)
            fdatasync(fd)

        with FileLog(tmp_path) as log:
            log.append(batch(2))
            monkeypatch.setattr(os, "fdatasync", slow)
            syncing = threading.Thread(target=log.sync)
            syncing.start()
            assert started.wait(30)
            log.append(batch(3))
            assert (log.head_seq, log.durable_seq) == (5, 0)
            release.set()
            syncing.join()
            assert (log.head_seq, log.durable_seq) == (5, 2)
            assert log.sync() == 5

    def test_a_new_segment_waits_for_the_sync(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The sync holds the old file; it must not be closed, or be another, under it."""
        started, release = threading.Event(), threading.Event()
        fdatasync, synced = os.fdatasync, []

        def slow(fd: int) -> None:
            started.set()
            assert release.wait(30)
            synced.append(os.readlink(f"/proc/self/fd/{fd}"))
            fdatasync(fd)

        with FileLog(tmp_path, segment_bytes=1) as log:
            log.append(batch(2))
            first = str(segments(tmp_path)[0])
            monkeypatch.setattr(os, "fdatasync", slow)
            threads = [threading.Thread(target=log.sync), threading.Thread(target=log.append, args=(batch(3),))]
            threads[0].start()
            assert started.wait(30)
            threads[1].start()
            release.set()
            for thread in threads:
                thread.join()
            assert synced == [first]
            assert (log.head_seq, log.durable_seq) == (5, 2)
        assert verify(tmp_path).ok


class TestFailure:
    def test_a_failed_sync_poisons(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        log = FileLog(tmp_path)
        log.append(batch(2))
        log.sync()
        log.append(batch(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing(errno.EIO))
            with pytest.raises(LogError, match="forcing the log to the disk"):
                log.sync()
        for attempt in (log.sync, lambda: log.append(batch(1))):
            with pytest.raises(LogError, match="takes nothing more"):
                attempt()
        assert (log.head_seq, log.durable_seq) == (3, 2)
        log.close()
        with FileLog(tmp_path) as again:
            assert (again.head_seq, again.durable_seq) == (3, 3)

    @pytest.mark.parametrize("function", ["fsync", "fdatasync", "rename"])
    def test_a_failed_rotation_poisons(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
        log = FileLog(tmp_path, segment_bytes=1)
        log.append(batch(2))
        with monkeypatch.context() as patch:
            patch.setattr(os, function, failing(errno.EIO))
            with pytest.raises(LogError, match="failed"):
                log.append(batch(1))
        with pytest.raises(LogError, match="takes nothing more"):
            log.append(batch(1))
        log.close()
        with FileLog(tmp_path, segment_bytes=1) as again:
            assert again.head_seq == 2
            assert again.append(batch(1)) == 3
        assert verify(tmp_path).ok

    @pytest.mark.parametrize("truncates", [True, False])
    @pytest.mark.parametrize("written", [0, 1, 64, 200, frame_bytes(3) - 1])
    def test_a_short_write_leaves_no_half_frame(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, truncates: bool
    ) -> None:
        log = FileLog(tmp_path)
        log.append(batch(2))
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", lambda fd, parts: os.write(fd, b"".join(parts)[:written]))
            if not truncates:
                patch.setattr(os, "ftruncate", failing(errno.EIO))
            with pytest.raises(LogError, match=f"only {written} of"):
                log.append(batch(3))
        with pytest.raises(LogError, match="takes nothing more"):
            log.append(batch(1))
        half = 0 if truncates else written
        assert segments(tmp_path)[0].stat().st_size == SEGMENT_HEADER_BYTES + frame_bytes(2) + half
        log.close()
        with FileLog(tmp_path) as again:
            assert (again.head_seq, again.recovered.torn_bytes) == (2, half)
            assert again.append(batch(1)) == 3

    def test_no_space_left(self, tmp_path: Path) -> None:
        """The real thing: the kernel writes up to the limit and no further."""
        program = """
import resource, sys
import numpy as np
from engine.log import FileLog, LogError
from engine.types import COMMAND
log = FileLog(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    while True:
        log.append(np.zeros(3, COMMAND))
        print(log.sync())
except LogError as error:
    print(error)
log.close()
"""
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        *acknowledged, error = done.stdout.splitlines()
        frames = (10_000 - SEGMENT_HEADER_BYTES) // frame_bytes(3)
        assert acknowledged == [str(3 * (at + 1)) for at in range(frames)]
        assert "writing a frame" in error
        with FileLog(tmp_path) as log:
            assert (log.head_seq, log.recovered.torn_bytes) == (3 * frames, 0)

    def test_without_durability_nothing_is_forced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, failing(errno.EIO))
        with FileLog(tmp_path, durable=False, segment_bytes=1) as log:
            log.append(batch(2))
            log.append(batch(1))
            assert log.sync() == 3
        monkeypatch.undo()
        assert (tmp_path / "mark").read_bytes() == b""  # it would promise what nobody forced
        with FileLog(tmp_path) as log:
            assert log.head_seq == 3


class TestOrderOfForcing:
    """What must be on the disk before what: nothing here can be seen without a power cut, so the calls are recorded."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
        recorded = []
        fsync, fdatasync, rename = os.fsync, os.fdatasync, os.rename

        def force(name: str, call: Callable[[int], None], fd: int) -> None:
            recorded.append((name, Path(os.readlink(f"/proc/self/fd/{fd}")).name))
            call(fd)

        monkeypatch.setattr(os, "fsync", partial(force, "fsync", fsync))
        monkeypatch.setattr(os, "fdatasync", partial(force, "fdatasync", fdatasync))

        def record_rename(source: Path, target: Path) -> None:
            recorded.append(("rename", Path(target).name))
            rename(source, target)

        monkeypatch.setattr(os, "rename", record_rename)
        return recorded

    def test_a_new_segment(self, tmp_path: Path, calls: list[tuple[str, str]]) -> None:
        with FileLog(tmp_path / "log", segment_bytes=1) as log:
            log.append(batch(2))
            calls.clear()
            log.append(batch(1))
            assert calls == [
                ("fdatasync", f"{1:020d}.log"),
                ("fsync", f"{3:020d}.new"),
                ("rename", f"{3:020d}.log"),
                ("fsync", "log"),
            ]

    def test_close_leaves_an_exact_mark(self, tmp_path: Path, calls: list[tuple[str, str]]) -> None:
        log = FileLog(tmp_path)
        log.append(batch(2))
        calls.clear()
        log.close()
        assert calls == [("fdatasync", f"{1:020d}.log"), ("fdatasync", "mark")]

    def test_segments_written_without_durability(self, tmp_path: Path, calls: list[tuple[str, str]]) -> None:
        """Opened with it later, those after the mark are forced before anything is promised about them."""
        write_log(tmp_path, [2])
        with FileLog(tmp_path, durable=False, segment_bytes=1) as log:
            for _ in range(3):
                log.append(batch(1))
        calls.clear()
        FileLog(tmp_path).close()
        forced = [name for call, name in calls if call == "fdatasync" and name != "mark"]
        assert forced == [f"{seq:020d}.log" for seq in (3, 4, 5)]


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


KILLED = """
import sys
import numpy as np
from engine.log import FileLog
from engine.types import COMMAND
log = FileLog(sys.argv[1], segment_bytes=20_000)
rng = np.random.default_rng(log.head_seq)
while True:
    commands = np.zeros(rng.integers(1, 30), COMMAND)
    commands["price"] = np.arange(log.head_seq + 1, log.head_seq + 1 + len(commands)) * 7
    log.append(commands)
    print(log.sync(), flush=True)
"""


def test_kill_nine_loses_nothing_acknowledged(tmp_path: Path) -> None:
    head_seq = 0
    for lines in (1, 40, 150):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process:
            acknowledged = [process.stdout.readline() for _ in range(lines)]
            process.kill()
            acknowledged += process.stdout.readlines()
        if not acknowledged[-1].endswith(b"\n"):
            acknowledged.pop()
        with FileLog(tmp_path) as log:
            assert log.head_seq >= int(acknowledged[-1]) > head_seq
            assert log.recovered.durable_seq is not None
            assert log.recovered.durable_seq >= int(acknowledged[-1])
            head_seq = log.head_seq
            commands = np.concatenate([*log.read()])
        assert np.array_equal(commands["seq"], np.arange(1, head_seq + 1))
        assert np.array_equal(commands["price"], commands["seq"] * 7)
