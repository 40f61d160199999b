"""The gateway's benchmark: its percentiles show a stall, however the requests are sent."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.gateway import Load, conditions, histogram, paced, spread

MS = 1_000_000


class Answers:
    """The far end of a connection: it answers at once."""

    transport: Any
    refused = 0

    def __init__(self) -> None:
        self.transport = self
        self.on_reply: Any = None
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)
        asyncio.get_running_loop().call_soon(self.on_reply, len(self.written) - 1)


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
    starts = sorted(due for load in loads for due in load.sent_ns)
    assert {after - before for before, after in pairwise(starts)} == {100_000}
    assert [peer.written for peer in peers] == [[b"0", b"1", b"2", b"3", b"4"]] * 2


async def test_a_row_says_how_its_times_were_measured() -> None:
    load = Load(Answers(), [b""] * 1_000)  # type: ignore[arg-type]
    load.times_ns = [MS] * 999 + [500 * MS]
    closed, scheduled = spread([load], False), spread([load], True)
    assert closed["times"] == "corrected" and closed["p99_us"] > 100 * closed["raw_p99_us"] / 2
    assert scheduled["times"] == "scheduled" and scheduled["p99_us"] == scheduled["raw_p99_us"] == closed["raw_p99_us"]


def test_the_conditions_say_what_the_disk_is(tmp_path: Path) -> None:
    found = conditions(tmp_path, 10)
    kinds = {line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    assert found["disk"] in kinds and found["cores"] >= 1
