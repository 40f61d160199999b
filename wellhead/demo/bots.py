"""The process in which all bots of the demo run: `python -m wellhead.demo.bots`.

It is told what to do in one line of JSON on its input, answers `ready` when everybody is logged on, begins when the next
line names the start of the market's clock, and ends when the input ends: so it cannot outlive the demo, however that dies.
"""

import asyncio
import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Self

from engine.catalogue import Catalogue
from wellhead.client import Client
from wellhead.demo.cast import CAST, Part, scope
from wellhead.demo.clock import DemoClock
from wellhead.demo.desk import Desk
from wellhead.demo.maker import Maker
from wellhead.demo.prices import PriceHistory, PricePath
from wellhead.demo.takers import Taker

READY = "ready"
END_CHECK_S = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What the bots must know."""

    url: str
    keys_dir: str
    markets: tuple[str, ...]
    seed: int
    first_day: str
    start_ns: int
    speed: int
    seconds: int

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        fields = json.loads(line)
        return cls(**{**fields, "markets": tuple(fields["markets"])})


async def run(plan: Plan, lines: asyncio.StreamReader) -> None:
    """Log everybody on, say so, wait for the start, and trade until cancelled."""
    catalogue, clock = Catalogue.load(), DemoClock(plan.start_ns, plan.speed, plan.seconds)
    path = PricePath(PriceHistory.load(), plan.start_ns, plan.first_day, plan.seed)
    async with contextlib.AsyncExitStack() as stack:
        work = []
        for part in CAST:
            client = Client.from_key_file(
                plan.url, Path(plan.keys_dir) / f"{part.name}.key", format="msgpack", cod=True, reconnect=False
            )
            events = client.events()
            await stack.enter_async_context(client)
            desk = Desk(client, catalogue, path, clock, Random(f"{plan.seed} {part.name}"))  # noqa: S311
            desk.start(events)
            stack.push_async_callback(desk.stop)
            work.append(_bot(part, desk, plan).run())
        print(READY, flush=True)
        clock.start(int(await lines.readline() or 0))
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)


def _bot(part: Part, desk: Desk, plan: Plan) -> Maker | Taker:
    if part.style is not None:
        return Maker(desk, part.style)
    assert part.habit is not None
    return part.habit(desk, scope(part, plan.markets), part.pause_ms / 1000, part.size)


async def main() -> None:
    """Run until the input ends."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    bots = asyncio.create_task(run(Plan.from_line((await lines.readline()).decode()), lines))
    ended = asyncio.create_task(_end_of(lines))
    await asyncio.wait([bots, ended], return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    bots.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await bots


async def _end_of(lines: asyncio.StreamReader) -> None:
    while not lines.at_eof():
        await asyncio.sleep(END_CHECK_S)


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())
