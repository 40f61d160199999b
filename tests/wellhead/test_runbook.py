"""The runbook's procedures, done as they are written: every command is taken from the page, word for word."""

import asyncio
import json
import re
import shutil
import signal
import sqlite3
import tarfile
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.wellhead.process import ROOT, ServerProcess
from wellhead import Client, OrderAck
from wellhead.cli import main
from wellhead.types import WellheadError

PAGE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
SYMBOL_OF_THE_PAGE = "L4-EUC-H26112214"
EARLIER = Path(__file__).parent / "data" / "earlier_version.tar.xz"
"""
A data directory as an earlier version left it, whose books have another format: alice bought 3 of L4-EUC from bob at 0.45,
with a million paper dollars.
"""
SETTINGS = """markets = ["L4-EUC"]
list_hours = 2
paper_micros = 1_000_000_000_000
"""


class Operator:
    """Who types what the page says, in a directory."""

    def __init__(self, home: Path, clock: Path) -> None:
        self.home, self.clock = home, clock
        self.data = home / "data"
        self.backup = home / "backup"
        self.url = ""
        self.symbol = ""

    async def types(self, line: str, exit_code: int = 0, **others: str) -> str:
        """Run a line of the page, with this place's names for the page's, and `others`; what it printed."""
        assert line in PAGE
        names = {"DATA": str(self.data), "COPY": str(self.backup), SYMBOL_OF_THE_PAGE: self.symbol, **others}
        words = [names.get(word, word) for word in re.split(r"\s+|(?<=sym)=", line)[1:]]
        if "sym" in words:
            at = words.index("sym")
            words[at : at + 2] = [f"sym={words[at + 1]}"]
        if words[0] == "request":
            words += ["--url", self.url]
        elif words[0] == "status":
            words += ["--url", self.url.replace("ws", "http", 1)]
        result = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert result.exit_code == exit_code, (line, result.output, result.exception)
        return result.output

    def serve(self, data: Path) -> ServerProcess:
        """The page's way to start a node."""
        assert "wellhead serve --data DATA --config wellhead.toml --log-json" in PAGE
        return ServerProcess(data, "--config", str(self.home / "wellhead.toml"), "--log-json", clock=self.clock)

    def copy_of_a_running_node(self) -> None:
        """The log first, then the books as SQLite copies them, and all the rest."""
        shutil.copytree(self.data / "log", self.backup / "log")
        shutil.copytree(
            self.data, self.backup, dirs_exist_ok=True, ignore=shutil.ignore_patterns("log", "ledger.sqlite*")
        )
        books = "settlement/ledger.sqlite"
        with (
            closing(sqlite3.connect(self.data / books)) as there,
            closing(sqlite3.connect(self.backup / books)) as here,
        ):
            there.backup(here)


@pytest.fixture
def operator(tmp_path: Path, clock: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wellhead.toml").write_text(SETTINGS, encoding="utf-8")
    return Operator(tmp_path, clock)


async def test_the_procedures_of_the_runbook(operator: Operator) -> None:
    await operator.types("wellhead keys create operator --data DATA --scope read --scope admin --ip 127.0.0.1")
    await operator.types("wellhead keys create alice --data DATA --out alice-2.key", **{"alice-2.key": "alice.key"})
    await operator.types("wellhead serve --data DATA --config wellhead.toml --check")
    async with operator.serve(operator.data) as server:
        operator.url = server.url
        assert "ready" in await operator.types("wellhead status --data DATA")
        async with Client.from_key_file(server.url, "alice.key", cod=False) as alice:
            operator.symbol = min(await alice.instruments(), key=lambda one: one.start).sym
            await halts(operator, alice)
            await lists(operator, alice)
            await rotates(operator, alice)
        await operator.types("wellhead settle run --data DATA", exit_code=75)
        operator.copy_of_a_running_node()
        async with Client.from_key_file(server.url, "alice-2.key", cod=False) as alice:
            await order(alice, operator.symbol)
        server.process.send_signal(signal.SIGTERM)
        assert await server.process.wait() == 0
    await reconciles(operator)
    await loses_the_log(operator)
    await delists_a_market(operator)
    await restores(operator)


async def order(client: Client, symbol: str) -> OrderAck:
    return await client.place(symbol, "buy", 1, "0.1")


async def refused(client: Client, symbol: str) -> str:
    with pytest.raises(WellheadError) as error:
        await order(client, symbol)
    return error.value.name


async def halts(operator: Operator, alice: Client) -> None:
    """Everything, one contract, one account; and back."""
    first = await order(alice, operator.symbol)
    on = "wellhead request admin.halt on=true --key operator.key"
    await operator.types(on)
    assert await refused(alice, operator.symbol) == "MARKET_NOT_OPEN"
    assert [one.oid for one in await alice.orders()] == [first.oid]
    await operator.types(on, **{"on=true": "on=false"})
    one = "wellhead request admin.status sym=L4-EUC-H26112214 status=halted --key operator.key"
    await operator.types(one)
    assert await refused(alice, operator.symbol) == "MARKET_NOT_OPEN"
    await operator.types(one, **{"status=halted": "status=continuous"})
    await order(alice, operator.symbol)
    lock = "wellhead request admin.lock account=alice on=true --key operator.key"
    await operator.types(lock)
    assert await refused(alice, operator.symbol) == "LOCKED"
    assert await alice.orders() == []
    await operator.types(lock, **{"on=true": "on=false"})
    await order(alice, operator.symbol)


async def lists(operator: Operator, alice: Client) -> None:
    """An hour that the calendar does not list yet."""
    known = {one.sym for one in await alice.instruments()}
    head, hour = max(known).rsplit("H", 1)
    more = f"{head}H{datetime.strptime(hour, '%y%m%d%H') + timedelta(hours=3):%y%m%d%H}"
    line = "wellhead request admin.list sym=L4-EUC-H26112214 --key operator.key"
    await operator.types(line, **{SYMBOL_OF_THE_PAGE: more})
    assert {one.sym for one in await alice.instruments()} == {*known, more}


async def rotates(operator: Operator, alice: Client) -> None:
    """A second key, then the first is taken away."""
    await operator.types("wellhead keys create alice --data DATA --out alice-2.key")
    old, new = (json.loads(Path(name).read_text())["key"] for name in ("alice.key", "alice-2.key"))
    async with Client.from_key_file(operator.url, "alice-2.key", cod=False) as again:
        await order(alice, operator.symbol)
        await operator.types("wellhead keys revoke OLD --data DATA", OLD=old)
        listed = await operator.types("wellhead keys list --data DATA")
        assert new in listed and old not in listed
        with pytest.raises(WellheadError):
            while True:  # within a second
                await alice.orders()
                await asyncio.sleep(0.05)
        assert len(await again.orders()) == 2


async def reconciles(operator: Operator) -> None:
    """Log, engine and books agree, on the stopped node."""
    agreed = await operator.types("wellhead verify --data COPY", COPY=str(operator.data))
    assert "everything agrees" in agreed
    await operator.types("wellhead settle show --data DATA")


async def loses_the_log(operator: Operator) -> None:
    """The log's disk is gone, and the copy's log is older than the books: the order after the copy is lost."""
    shutil.rmtree(operator.data / "log")
    shutil.copytree(operator.backup / "log", operator.data / "log")
    shutil.copy(operator.backup / "limits.json", operator.data)
    check = "wellhead serve --data DATA --config wellhead.toml --check"
    await operator.types(check, exit_code=1)
    said = await operator.types("wellhead doctor DATA", exit_code=1)
    assert "the books are at seq" in said and "which were acknowledged" in said
    (seq,) = set(re.findall(r"--give-up-from (\d+)", said))
    await operator.types("wellhead doctor DATA --repair --give-up-from SEQ", SEQ=seq)
    await operator.types(check)


async def delists_a_market(operator: Operator) -> None:
    """One that is left out of `markets`: what is listed trades on, and no hour of it is added."""
    settings = operator.home / "wellhead.toml"
    settings.write_text(SETTINGS.replace("L4-EUC", "L4-USE").replace("= 2", "= 3"), encoding="utf-8")
    async with operator.serve(operator.data) as server:
        async with Client.from_key_file(server.url, "alice-2.key", cod=False) as alice:
            assert len(await alice.orders()) == 2  # as in the copy
            listed = [one.sym for one in await alice.instruments() if one.status == "continuous"]
            assert sorted(symbol.rsplit("-", 1)[0] for symbol in listed) == ["L4-EUC"] * 3 + ["L4-USE"] * 3
            await order(alice, operator.symbol)
        assert await server.interrupt() == 0
    settings.write_text(SETTINGS, encoding="utf-8")
    assert "everything agrees" in await operator.types("wellhead verify --data DATA")


async def restores(operator: Operator) -> None:
    """A copy of a running node whose log ends in half a frame, and whose books are lost."""
    newest = max((operator.backup / "log").glob("*"))
    with newest.open("ab") as file:
        file.write(b"half a frame")
    assert "a start would go through" in await operator.types("wellhead doctor DATA", DATA=str(operator.backup))
    for path in (operator.backup / "settlement").glob("ledger.sqlite*"):
        path.unlink()
    async with operator.serve(operator.backup) as server:
        async with Client.from_key_file(server.url, "alice-2.key", cod=False) as alice:
            assert len(await alice.orders()) == 2
        assert await server.interrupt() == 0
    assert "everything agrees" in await operator.types("wellhead verify --data DATA", DATA=str(operator.backup))


async def test_an_upgrade_over_what_an_earlier_version_left(operator: Operator) -> None:
    """The books are refused by name of their format and made again from the log; the old snapshot is in nobody's way."""
    with tarfile.open(EARLIER) as archive:
        archive.extractall(operator.home, filter="data")
    shutil.copytree(operator.data, operator.backup)
    assert "the books have format 4" in await operator.types("wellhead verify --data COPY", exit_code=1)
    await operator.types("wellhead doctor COPY --repair")
    await operator.types("wellhead keys create alice --data DATA --out alice-2.key", DATA=str(operator.backup))
    assert "wellhead serve --data COPY --port 0" in PAGE
    async with ServerProcess(operator.backup) as server:
        async with Client.from_key_file(server.url, "alice-2.key", cod=False) as alice:
            (fill,) = (await alice.request("fills"))["fills"]
            assert (fill["qty"], fill["px"], fill["side"]) == (3, "0.45", "buy")
            assert 999_990 < (await alice.balances()).cash < 1_000_010
        assert await server.interrupt() == 0
    assert "everything agrees" in await operator.types("wellhead verify --data COPY")
    check = "wellhead serve --data DATA --config wellhead.toml --check"
    assert "the books have format 4" in await operator.types(check, exit_code=1)
    await operator.types("wellhead doctor DATA --repair")
    await operator.types(check)


def test_every_command_of_the_runbook_is_done_here_or_elsewhere() -> None:
    """What the procedures above do not type has a test of its own; a new command has to be put in one of both."""
    elsewhere = {
        "chain show", "chain resume", "chain release", "meter register", "settle export", "settle prove", "settle check",
        "dashboard", "cluster ", "doctor DATA --repair --give-up-from SEQ",
    }  # fmt: skip
    source = Path(__file__).read_text(encoding="utf-8")
    typed = {a or b for a, b in re.findall(r"`wellhead ([^`\n]+)`|^wellhead (.+)$", PAGE, re.MULTILINE)}
    for line in typed:
        assert f"wellhead {line}" in source or any(line.startswith(one) for one in elsewhere), line
