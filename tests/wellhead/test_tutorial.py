"""The tutorial does what it says: its blocks, in their order, against a real server."""

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.wellhead.process import ROOT, ServerProcess

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- run: ([\w.]+) -->\n```(?:python)?\n(.*?)```", PAGE, re.DOTALL))
SERVE = re.search(r"^wellhead serve --data venue (.+)$", PAGE, re.MULTILINE)


async def run(directory: Path, url: str, *arguments: str) -> str:
    """A block, its addresses replaced by those of the test's server."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, (arguments, out.decode(), err.decode())
    return out.decode()


async def script(directory: Path, url: str, name: str) -> str:
    return await run(directory, url, "-c", BLOCKS[name].replace("ws://127.0.0.1:8765", url))


async def commands(directory: Path, url: str, name: str) -> str:
    """The lines of a block, with the url of the test's server where a command asks a node."""
    printed = ""
    for line in BLOCKS[name].strip().splitlines():
        program, *words = line.split()
        assert program == "wellhead"
        target = ""
        if ">" in words:
            *words, _, target = words
        if words[0] == "watch":
            words += ["--url", url]
        elif words[0] == "status":
            words += ["--url", url.replace("ws", "http")]
        out = await run(directory, url, "-m", "wellhead.cli", *words)
        if target:
            (directory / target).write_text(out, encoding="utf-8")
        printed += out
    return printed


async def test_from_nothing_to_a_statement(tmp_path: Path, clock: Path) -> None:
    assert SERVE is not None
    async with ServerProcess(tmp_path / "venue", *SERVE[1].split(), clock=clock) as server:
        printed = await commands(tmp_path, server.url, "keys")
        assert "may read, trade, provide" in printed
        assert "bid is new ask is new" in await script(tmp_path, server.url, "quote.py")
        assert "L4-EUC-H" in await commands(tmp_path, server.url, "look")
        printed = await script(tmp_path, server.url, "take.py")
        assert "bought 3" in printed and "net 3" in printed
        assert await server.interrupt() == 0
    printed = await commands(tmp_path, server.url, "settle")
    assert "everything agrees" in printed and "FROZEN" in printed
    assert (tmp_path / "statements" / "1" / "1.csv").exists()
    printed = await commands(tmp_path, server.url, "export")
    assert re.search(r"\b1 rows in parquet/trades.parquet", printed)
