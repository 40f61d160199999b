"""The examples and the README's bot run against the real server."""

import asyncio
import re
import runpy
import sys
from pathlib import Path

import pytest

from gateway.auth import write_private_key
from tests.wellhead.process import ROOT, ServerProcess
from tests.wellhead.set_clock import HOUR_NS, advance_clock
from tests.wellhead.test_kill import make_keys
from wellhead import Client

README = (ROOT / "README.md").read_text(encoding="utf-8")
README_BOT = re.search(r"```python\n(.*?)```\s+```\n(.*?)```", README, re.DOTALL)
README_SESSION = dict(re.findall(r"^\$ wellhead (.+)\n(.+)$", README, re.MULTILINE))


async def run_script(*arguments: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("first_order.py", (), ["is new", "('0.5', 2)", "is canceled"]),
        (
            "own_client.py",
            (),
            [
                "logged on as alice with read, trade",
                "order own-1 is new, the book has it",
                "amended to 2 lots, place lost",
                ", resumed",
                "order own-2 is new",
                "order own-1 is canceled",
                "order own-2 is canceled",
            ],
        ),
        ("ladder.py", ("L4-EUC", "1.5"), ["4 bids for L4-EUC", "4 bids taken back"]),
        (
            "notebook.py",
            (),
            ["alice, connected>", "bid 2 at 0.005, ask none", "1 lot left", "BAD_PRICE", "is canceled"],
        ),
        ("ccxt_bot.py", ("L4-EUC", "1.5"), ["hours of L4-EUC", "at 0.441", "is canceled", "free 1000.0"]),
    ],
)
async def test_an_example_runs(
    tmp_path: Path, clock: Path, script: str, arguments: tuple[str, ...], expected: list[str]
) -> None:
    keys = make_keys(tmp_path, "alice")
    write_private_key(tmp_path / "alice.key", "alice", "alice", keys["alice"])
    options = ("--market", "L4-EUC", "--hours", "2", "--paper", "1000")
    async with ServerProcess(tmp_path, *options, clock=clock) as server:
        await an_hour_passes(server.url, clock)
        printed = await run_script(str(ROOT / "examples" / script), server.url, "alice.key", *arguments, cwd=tmp_path)
    for text in expected:
        assert text in printed, printed


async def an_hour_passes(url: str, clock: Path) -> None:
    """The gate of the first hour is behind us, as on any exchange that was not started just now: the hour is still listed."""
    async with Client(url) as client:
        listings = client.listings()
        advance_clock(clock, HOUR_NS)
        async for event in listings:
            if any(one.status == "closed" for one in event.instruments):
                return


async def test_the_session_of_the_readme_is_as_it_says(tmp_path: Path, clock: Path) -> None:
    """Serve, make a key, run the bot: each as it is written, with the output that is shown but for numbers."""
    assert README_BOT is not None and len(README_SESSION) == 2
    (serve, served), (create, created) = README_SESSION.items()
    data = tmp_path / "wellhead-data"
    async with ServerProcess(data, *serve.removeprefix("serve ").split(), clock=clock) as server:
        assert shape(server.said.replace(str(data), data.name)) == shape(served)
        printed = await run_script("-m", "wellhead.cli", *create.split(), cwd=tmp_path)
        assert shape(printed) == shape(created)
        await an_hour_passes(server.url, clock)
        bot = README_BOT[1].replace("ws://127.0.0.1:8765", server.url)
        assert server.url in bot and len(list(filter(None, bot.splitlines()))) == 10
        printed = await run_script("-c", bot, cwd=tmp_path)
    assert shape(printed) == shape(README_BOT[2])


def shape(printed: str) -> str:
    """What is printed, without numbers, names of keys and orders, and the breaks of lines."""
    return re.sub(r"alice-[0-9a-f]{8}|[0-9a-f]{12}-1|[\d,.]*\d", "#", " ".join(printed.split()))


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_that_is_not_told_enough_says_how_it_is_used(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().err + str(end.value.code)
    assert f"{script.name} " in said
