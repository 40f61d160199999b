"""One order out of many writers: whatever the network does to frames, each is taken once and in its sender's order."""

import random
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.engine import Engine
from engine.log import GENESIS
from engine.sequencing import (
    _ENTRY,
    _FRAME,
    MAX_FRAME_COMMANDS,
    MAX_SENDERS,
    MAX_VOID,
    Entry,
    Frame,
    FrameError,
    Journal,
    JournalError,
    Part,
    Sequencer,
    frames_of,
)
from engine.types import COMMAND, EVENT, TRANSFER, Kind
from wellhead.cluster.core import Core, DivergedError

NO_EVENTS = np.zeros(0, EVENT)


def marked(*tags: int) -> NDArray[np.void]:
    commands = np.zeros(len(tags), COMMAND)
    commands["kind"], commands["tag"] = Kind.TICK, tags
    return commands


def opening(number: int) -> NDArray[np.void]:
    """Commands that change the state, and one that is refused."""
    commands = np.zeros(3, TRANSFER)
    commands["kind"] = Kind.OPEN_ACCOUNT, Kind.DEPOSIT, Kind.WITHDRAW
    commands["account"], commands["amount_micros"] = number, 1_000 * number
    commands["account"][2] = 99
    return commands.view(COMMAND)


def test_a_frame_is_what_was_packed() -> None:
    frame = Frame.unpack(Frame("g1.abc", 7, marked(1, 2, 3)).pack())
    assert (frame.sender, frame.number, frame.commands["tag"].tolist()) == ("g1.abc", 7, [1, 2, 3])


@pytest.mark.parametrize("sender", ["", "x" * 25])
def test_a_name_out_of_bounds_is_refused(sender: str) -> None:
    with pytest.raises(FrameError, match="name"):
        Frame(sender, 1, marked(1)).pack()


def test_commands_out_of_bounds_are_refused_and_long_ones_are_cut() -> None:
    with pytest.raises(FrameError, match="commands"):
        Frame("a", 1, marked()).pack()
    frames = list(frames_of("a", 4, marked(*range(10_000))))
    assert [frame.number for frame in frames] == [5, 6, 7]
    assert np.concatenate([frame.commands["tag"] for frame in frames]).tolist() == list(range(10_000))


def resealed(data: bytes, at: int, change: bytes) -> bytes:
    """A packed frame with other bytes in its header, under a checksum that holds."""
    header, body = data[: _FRAME.size - 4], data[_FRAME.size :]
    header = header[:at] + change + header[at + len(change) :]
    return header + zlib.crc32(body, zlib.crc32(header)).to_bytes(4, "little") + body


def test_whole_frames_of_nonsense_are_refused() -> None:
    """Their checksum holds: somebody sent them so."""
    data = Frame("a", 1, marked(1, 2)).pack()
    assert Frame.unpack(resealed(data, 8, b"b")).sender == "b"
    for count in (0, 1, 3, MAX_FRAME_COMMANDS + 1):
        with pytest.raises(FrameError, match=f"speaks of {count} commands and has 384 bytes"):
            Frame.unpack(resealed(data, 4, count.to_bytes(4, "little")))
    with pytest.raises(FrameError, match="not ASCII"):
        Frame.unpack(resealed(data, 8, b"\xff"))


def test_a_message_that_was_looked_at_is_not_looked_at_again() -> None:
    sequencer = Sequencer()
    sequencer.take(5, 0, b"")
    for number in (5, 4):
        with pytest.raises(ValueError, match=f"message {number} of the stream after 5"):
            sequencer.take(number, 0, b"")


@given(st.binary(max_size=300), st.integers(0, 250), st.integers(1, 255))
def test_poison_is_passed_over(junk: bytes, place: int, change: int) -> None:
    sequencer = Sequencer()
    assert sequencer.take(1, 10, junk) is None
    whole = bytearray(Frame("a", 1, marked(1)).pack())
    whole[place % len(whole)] ^= change
    assert sequencer.take(2, 10, bytes(whole)) is None
    assert (sequencer.seq, sequencer.ts_ns, sequencer.passed_over) == (0, 0, 2)
    assert sequencer.take(3, 10, Frame("a", 1, marked(1)).pack()) is not None


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 12))
def test_what_is_lost_repeated_or_overtaken_is_taken_once_and_in_order(seed: int, senders: int, count: int) -> None:
    rng, sequencer, taken = random.Random(seed), Sequencer(), []
    frames = {f"s{n}": [Frame(f"s{n}", i, marked(i)).pack() for i in range(1, count + 1)] for n in range(senders)}
    in_seq = 0
    for _ in range(40 * count):
        sender = rng.choice(sorted(frames))
        done = sequencer.last_number(sender)
        # From the first that is not in, some of those behind it, in any order, some twice, some lost.
        batch = frames[sender][max(0, done - 1) : done + 4]
        rng.shuffle(batch)
        for data in batch[: rng.randint(0, len(batch))]:
            in_seq += rng.randint(1, 3)
            frame = sequencer.take(in_seq, rng.randint(0, 100), data)
            if frame is not None:
                taken.append((frame.sender, frame.number, *frame.commands[["seq", "ts_ns"]][0].tolist()))
    for sender in frames:
        assert [number for name, number, _, _ in taken if name == sender] == list(range(1, count + 1))
    assert [seq for *_, seq, _ in taken] == list(range(1, senders * count + 1))
    times = [ts_ns for *_, ts_ns in taken]
    assert times == sorted(times)


def test_two_under_one_name_compete_and_the_first_wins() -> None:
    sequencer = Sequencer()
    first, second = Frame("clock", 1, marked(1)).pack(), Frame("clock", 1, marked(2)).pack()
    assert sequencer.take(1, 5, first) is not None
    assert sequencer.take(2, 5, second) is None
    assert sequencer.last_number("clock") == 1


def test_the_sender_silent_longest_is_forgotten_first() -> None:
    sequencer = Sequencer()
    for number in range(MAX_SENDERS):
        assert sequencer.take(number + 1, 0, Frame(f"s{number}", 1, marked(1)).pack())
    assert sequencer.take(MAX_SENDERS + 1, 0, Frame("s0", 2, marked(1)).pack())
    assert sequencer.take(MAX_SENDERS + 2, 0, Frame("new", 1, marked(1)).pack())
    assert (sequencer.last_number("s0"), sequencer.last_number("s1"), sequencer.last_number("new")) == (2, 0, 1)


def test_a_sequencer_goes_on_where_it_was_stored() -> None:
    one = Sequencer()
    one.done(one.take(1, 7, Frame("a", 1, marked(1, 2)).pack()) or pytest.fail(), NO_EVENTS)
    other = Sequencer.from_bytes(one.to_bytes())
    for sequencer in (one, other):
        assert sequencer.take(2, 9, Frame("a", 1, marked(1)).pack()) is None
        sequencer.done(sequencer.take(3, 3, Frame("a", 2, marked(3)).pack()) or pytest.fail(), NO_EVENTS)
    assert one.to_bytes() == other.to_bytes()
    assert (one.seq, one.ts_ns, one.in_seq) == (3, 7, 3)
    with pytest.raises(ValueError, match="no state"):
        Sequencer.from_bytes(b"short")


# --- The journal ------------------------------------------------------------------------------------------------------


def feed(count: int = 6) -> list[bytes]:
    return [Frame("g1", number, opening(number)).pack() for number in range(1, count + 1)]


def cores(count: int) -> list[Core]:
    return [Core(Engine(), Sequencer()) for _ in range(count)]


def write(core: Core, name: str, journal: list[bytes], cut: int = 10**9) -> None:
    """Let a core write what is ahead of the journal, `cut` messages an entry."""
    while core.ahead:
        keep = list(core.ahead)
        for one in keep[cut:]:
            core.ahead.remove(one)
        entry = core.entry(name, 0)
        core.ahead.clear()
        core.ahead.extend(keep)
        journal.append(entry.pack())
        core.heard(len(journal), entry)
        core.settle()


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_however_entries_are_cut_the_chain_is_the_same(cut: int) -> None:
    one, other = cores(2)
    for core in (one, other):
        for at, data in enumerate(feed(), 1):
            core.apply(at, at * 10, data)
    journals: list[list[bytes]] = [[], []]
    write(one, "r1", journals[0], cut)
    write(other, "r2", journals[1])
    readers = [Journal(), Journal()]
    for reader, journal in zip(readers, journals, strict=True):
        for data in journal:
            reader.take(data)
    assert len(journals[1]) == 1 < len(journals[0])
    assert (readers[0].chain, readers[0].seq, readers[0].in_seq) == (readers[1].chain, 18, 6)
    assert one.engine.state_hash() == other.engine.state_hash()


def test_a_replica_behind_follows_the_entries_of_another() -> None:
    one, other = cores(2)
    journal: list[bytes] = []
    for at, data in enumerate(feed(), 1):
        one.apply(at, 0, data)
    write(one, "r1", journal, 2)
    for at, data in enumerate(journal, 1):
        other.heard(at, Entry.unpack(data))
    assert other.is_behind
    for at, data in enumerate(feed(), 1):
        other.apply(at, 0, data)
    assert other.settle() == 6
    assert not other.is_behind and not other.ahead and other.journal_seq == 3


def test_a_replica_that_differs_says_so() -> None:
    one, other = cores(2)
    journal: list[bytes] = []
    one.apply(1, 0, feed()[0])
    write(one, "r1", journal)
    other.engine.apply(np.zeros(0, COMMAND))
    other.apply(1, 0, Frame("g1", 1, opening(2)).pack())
    with pytest.raises(DivergedError, match="r1"):
        other.heard(1, Entry.unpack(journal[0]))
        other.settle()


def test_a_replica_that_joined_in_the_middle_of_an_entry_does_not_write_before_it_is_covered() -> None:
    one = cores(1)[0]
    journal: list[bytes] = []
    for at, data in enumerate(feed(), 1):
        if at == 4:
            engine = Engine.from_bytes(one.engine.to_bytes())
            joined = Core(engine, Sequencer.from_bytes(one.sequencer.to_bytes()))
        one.apply(at, 0, data)
    write(one, "r1", journal)
    for at, data in enumerate(feed()[3:], 4):
        joined.apply(at, 0, data)
    assert not joined.may_write
    joined.heard(1, Entry.unpack(journal[0]))
    joined.settle()
    assert joined.may_write and not joined.ahead
    assert joined.engine.state_hash() == one.engine.state_hash()


def entries() -> list[bytes]:
    core = cores(1)[0]
    for at, data in enumerate(feed(), 1):
        core.apply(at, 0, data)
    journal: list[bytes] = []
    write(core, "r1", journal, 2)
    return journal


@pytest.mark.parametrize("order", [(1, 0, 1, 2), (0, 2, 1, 2), (0, 0, 1, 2), (0, 1, 0, 2, 1)])
def test_an_entry_that_does_not_follow_is_void_for_readers_and_replicas_alike(order: tuple[int, ...]) -> None:
    journal, core, written = Journal(), cores(1)[0], entries()
    for at, data in enumerate(feed(), 1):
        core.apply(at, 0, data)
    taken = [journal.take(written[place]) for place in order]
    followed = [core.heard(at, Entry.unpack(written[place])) for at, place in enumerate(order, 1)]
    assert core.settle() == 6
    assert [entry is not None for entry in taken] == followed
    assert [place for place, follows in zip(order, followed, strict=True) if follows] == [0, 1, 2]
    assert journal.void == len(order) - 3
    assert (journal.in_seq, journal.chain) == (core.confirmed_in, core.sequencer.chain)
    assert core.journal_seq == len(order)


def test_a_journal_of_which_nothing_follows_any_more_is_refused() -> None:
    journal, core, stray = Journal(), cores(1)[0], entries()[1]
    for at in range(MAX_VOID):
        assert journal.take(stray) is None
        assert not core.heard(at, Entry.unpack(stray))
    with pytest.raises(JournalError, match="do not go on"):
        journal.take(stray)
    with pytest.raises(DivergedError, match="do not go on"):
        core.heard(MAX_VOID, Entry.unpack(stray))


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_in_the_journal_is_refused(place: int, change: int) -> None:
    data = bytearray(WRITTEN[0])
    data[place % len(data)] ^= change
    with pytest.raises(JournalError):
        Journal().take(bytes(data))


def test_whole_entries_of_nonsense_are_refused() -> None:
    whole, size = WRITTEN[0], _ENTRY.size

    def sealed(at: int, value: int) -> bytes:
        header = whole[:at] + value.to_bytes(4, "little") + whole[at + 4 : size - 4]
        return header + zlib.crc32(whole[size:], zlib.crc32(header)).to_bytes(4, "little") + whole[size:]

    for data, words in (
        (whole[: size - 1], f"{size - 1} bytes are no entry"),
        (sealed(4, 2), "of another version"),
        (sealed(48, 99), "sizes do not fit"),
    ):
        with pytest.raises(JournalError, match=f"behind message 0 of the input: .*{words}"):
            Journal().take(data)


def test_entries_with_other_numbers_are_refused() -> None:
    entry = Entry.unpack(WRITTEN[0])
    entry.parts[0].commands["seq"] += 1
    with pytest.raises(JournalError, match="commands do not follow number 0"):
        Journal().take(entry.pack())
    nothing = Part(1, "a", 1, marked(), NO_EVENTS)
    with pytest.raises(JournalError, match="commands do not follow number 0"):
        Journal().take(Entry("r1", 0, 1, [nothing], entry.chain).pack())


def test_an_entry_may_cover_messages_of_which_nothing_came() -> None:
    journal = Journal()
    entry = Entry("r1", 0, 7, [], GENESIS)
    assert entry.last_seq == 0
    assert journal.take(entry.pack()) is not None
    assert (journal.in_seq, journal.seq, journal.chain) == (7, 0, GENESIS)
    assert Entry.unpack(WRITTEN[-1]).last_seq == 18


def test_whole_entries_of_another_history_are_refused() -> None:
    entry = Entry.unpack(WRITTEN[0])
    part = entry.parts[0]
    part.commands["account"][0] = 5
    parts = [Part(part.in_seq, part.sender, part.number, part.commands, part.events), *entry.parts[1:]]
    forged = Entry(entry.writer, entry.after_in, entry.last_in, parts, entry.chain)
    with pytest.raises(JournalError, match="history"):
        Journal().take(forged.pack())


WRITTEN = entries()
