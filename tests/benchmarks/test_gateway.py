"""The gateway's benchmark: its percentiles show a stall, however the requests are sent."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gateway import Load, conditions, histogram, paced, spread
from benchmarks.gateway_client import FORMATS, Reply, frame
from benchmarks.gateway_replies import find_replies

MS = 1_000_000


class Answers:
    """The far end of a connection: it answers at once."""

    transport: Any
    refused = 0

    def __init__(self) -> None:
        self.transport = self
        self.on_replies: Any = None
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)
        asyncio.get_running_loop().call_soon(self.on_replies, np.array([len(self.written) - 1]))


def test_a_stall_of_a_closed_loop_counts_for_all_that_it_kept_from_being_sent() -> None:
    times = [MS] * 990 + [100 * MS]
    assert histogram(times, 0).get_value_at_percentile(99) < 2 * MS
    corrected = histogram(times, MS)
    assert corrected.get_value_at_percentile(99) > 80 * MS
    assert corrected.get_total_count() == 990 + 100


async def test_a_schedule_is_kept_by_all_connections_in_turn_and_counts_from_when_a_request_was_due() -> None:
    peers = [Answers(), Answers()]
    loads = [Load(peer, [b"%d" % number for number in range(5)]) for peer in peers]  # type: ignore[arg-type]
    await paced(loads, 100_000)
    assert [load.answered for load in loads] == [5, 5]
    starts = sorted(due for load in loads for due in load.sent_ns.tolist())
    assert {after - before for before, after in pairwise(starts)} == {100_000}
    assert [peer.written for peer in peers] == [[b"0", b"1", b"2", b"3", b"4"]] * 2


async def test_a_row_says_how_its_times_were_measured() -> None:
    load = Load(Answers(), [b""] * 1_000)  # type: ignore[arg-type]
    load.times_ns[:] = [MS] * 999 + [500 * MS]
    closed, scheduled = spread([load], False), spread([load], True)
    assert closed["times"] == "corrected" and closed["p99_us"] > 100 * closed["raw_p99_us"] / 2
    assert scheduled["times"] == "scheduled" and scheduled["p99_us"] == scheduled["raw_p99_us"] == closed["raw_p99_us"]


def test_the_conditions_say_what_the_disk_is(tmp_path: Path) -> None:
    found = conditions(tmp_path, 10)
    kinds = {line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    assert found["disk"] in kinds and found["cores"] >= 1


NUMBERS = st.integers(0, 2**63 - 1)
MESSAGES = st.lists(
    st.one_of(
        st.builds(lambda number, more: {"id": number, "ok": True, **more}, NUMBERS, st.just({"oid": 7})),
        st.builds(lambda number: {"id": number, "ok": False, "error": {"code": 1}}, NUMBERS),
        st.builds(lambda text: {"ch": "private", "text": text, "id": 5}, st.text(max_size=200)),
        st.just({}),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), MESSAGES, st.integers(0, 300), st.integers(1, 40))
def test_the_compiled_reader_finds_the_answers_that_are_there(
    wire: str, messages: list[dict[str, Any]], cut: int, room: int
) -> None:
    payloads = [FORMATS[wire].encode(message) for message in messages]
    stream = b"".join(frame(payload, wire) for payload in payloads)
    stream, lost = (stream[: len(stream) - cut], cut) if cut < len(stream) else (stream, 0)
    ids, found, at, refused, left = np.zeros(room, np.int64), list[int](), 0, 0, True
    while left:
        count, bad, at = find_replies(np.frombuffer(stream, np.uint8), at, ids)
        found += ids[:count].tolist()
        refused += bad
        left = count == room
    whole, end = [], 0
    for message, payload in zip(messages, payloads, strict=True):
        end += len(frame(payload, wire))
        if end <= len(stream):
            whole.append(message)
    answers = [msgspec.convert(message, Reply) for message in whole if "id" in message and "ch" not in message]
    assert found == [one.id for one in answers]
    assert refused == sum(not one.ok for one in answers)
    assert at + lost >= sum(len(frame(FORMATS[wire].encode(one), wire)) for one in whole)
    assert stream[at:] == b"" or len(whole) < len(messages)


@pytest.mark.parametrize("number", [0, 7, 123_456])
def test_an_echo_is_known_by_the_number_at_its_end(number: int) -> None:
    echo = frame(msgspec.json.encode({"op": "order.place", "cid": "x" * 150, "id": number}), "json")
    ids = np.zeros(4, np.int64)
    assert find_replies(np.frombuffer(echo + echo[:-1], np.uint8), 0, ids) == (1, 0, len(echo))
    assert ids[0] == number
