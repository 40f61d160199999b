"""The demo itself, in a short form: what its statements say is counted again from the trades."""

import json
import os
import re
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from engine.engine import Engine
from engine.invariants import check
from engine.log import FileLog
from engine.types import TRANSFER, EventKind, Kind
from settlement.database import Database
from settlement.service import OUTBOX_NAME
from tests.wellhead.recount import Recount
from wellhead import Client, demo
from wellhead.audit import audit
from wellhead.config import Config
from wellhead.demo.cast import CAST
from wellhead.demo.stage import DemoError, free_directory
from wellhead.node import Node

ROOT = Path(__file__).parents[2]
SECONDS = 8


def micros(text):
    return int(Decimal(text) * 1_000_000)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A directory in which a short demo has run to its end."""
    directory = tmp_path_factory.mktemp("demo") / "data"
    assert demo.run(directory, seconds=SECONDS, seed=7, plain=True) == 0
    return directory


@pytest.fixture(scope="module")
def recount(finished):
    """Everything again, from the log."""
    counted, engine = Recount(), Engine()
    with FileLog(Config(finished).log_dir) as log:
        for commands in log.read():
            counted.feed(commands, engine.apply(commands).copy())
    return counted


def statements(directory, name):
    """(cycle, content) of a statement file in every cycle in which there is one."""
    for path in sorted((Config(directory).settlement_dir / "statements").iterdir(), key=lambda path: int(path.name)):
        yield int(path.name), json.loads((path / name).read_text())


def test_hours_were_traded_delivered_and_settled(finished, recount):
    assert recount.fills > 50
    assert len(recount.closings) >= 1
    engine, kinds = Engine(), set()
    with FileLog(Config(finished).log_dir) as log:
        for commands in log.read():
            kinds |= set(engine.apply(commands)["kind"].tolist())
    assert kinds >= {
        *(EventKind.LISTED, EventKind.NOMINATED, EventKind.NEW, EventKind.TRADE, EventKind.REPLACED),
        *(EventKind.CLOSED, EventKind.DELIVERY_DUE, EventKind.DELIVERED, EventKind.DELISTED),
        *(EventKind.REBATE_PAID, EventKind.CYCLE_CLOSED),
    }


def test_it_settles_on_a_chain_inside_the_process_unless_told_otherwise(finished, recount):
    deposits = []
    with FileLog(Config(finished).log_dir) as log:
        for commands in log.read():
            deposits += commands[commands["kind"] == Kind.DEPOSIT].view(TRANSFER)["asset"].tolist()
    assert deposits == [1] * len(CAST)
    place = Config(finished).settlement_dir
    with Database(place / OUTBOX_NAME, read_only=True) as outbox:
        assert outbox.one("SELECT cycle FROM in_force") == (len(recount.closings),)
        (chain_id,) = outbox.one("SELECT DISTINCT chain_id FROM transactions")
    last = json.loads((place / "statements" / str(len(recount.closings)) / "1.json").read_text())
    assert [paper["chain_id"] for paper in last["vault"]] == [chain_id]


@pytest.mark.parametrize("account", range(len(CAST) + 1))
def test_closing_balances_are_those_of_the_trades(finished, recount, account):
    seen = 0
    for cycle, statement in statements(finished, f"{account}.json"):
        closing = recount.closings[cycle - 1]
        money = {"cash": 0, "escrow": 0, "bond": 0}
        lots = {}
        for row in statement["closing"]:
            if row["balance"] == "lots":
                lots[account, row["symbol"]] = int(row["amount"])
            else:
                money[row["balance"]] += micros(row["amount"])
        expected = {name: getattr(closing, name).get(account, 0) for name in money}
        assert money == expected, cycle
        assert lots == {key: net for key, net in closing.lots.items() if key[0] == account}, cycle
        seen += 1
    assert seen == len(recount.closings)


def test_nets_are_the_change_of_wealth_and_sum_to_zero(finished, recount):
    for cycle, batch in statements(finished, "batch.json"):
        for row in batch["accounts"]:
            account = row["account"]
            external = recount.externals[cycle - 1].get(account, 0)
            change = recount.wealth(cycle, account) - recount.wealth(cycle - 1, account)
            assert (micros(row["net"]), micros(row["external"])) == (change - external, external), (cycle, account)
        assert sum(micros(row["net"]) for row in batch["accounts"]) == 0
        assert any(micros(row["net"]) for row in batch["accounts"])


def test_the_audit_agrees_and_a_changed_statement_is_found(finished):
    assert audit(finished).differences == []
    path = Config(finished).settlement_dir / "statements" / "1" / "1.csv"
    before = path.read_bytes()
    try:
        path.write_bytes(before.replace(b"1", b"2", 1))
        assert "1.csv" in " ".join(audit(finished).differences)
    finally:
        path.write_bytes(before)


async def test_the_exchange_goes_on_in_real_time(finished):
    """`wellhead serve` on the demo's directory: a bot logs on with the key that the demo left, and trades."""
    node = Node(Config(finished, port=0, markets=("H100S-USE",), list_hours=2))
    await node.start()
    try:
        async with Client.from_key_file(node.server.url, finished / "keys" / "aurora-ai.key") as client:
            *_, last = await client.instruments("H100S", "USE")  # the gate of the first may be at any moment
            ack = await client.place(last.sym, "buy", 1, "1.000")
            assert ack.status == "new"
            assert (await client.balances()).held > 0
        check(node.exchange.engine.memory)
    finally:
        await node.stop()
    assert audit(finished).differences == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
async def test_stopped_at_any_time_it_leaves_an_exchange(tmp_path, sent):
    directory = tmp_path / "data"
    arguments = f"Path({str(directory)!r}), 60, chain={sent == signal.SIGINT}"
    program = f"import sys; from pathlib import Path; from wellhead import demo; sys.exit(demo.run({arguments}))"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(r"fills [1-9]", line):
            break
    process.send_signal(sent)
    rest = process.communicate(timeout=20)[0]
    if sent == signal.SIGINT:
        assert process.returncode == demo.INTERRUPTED
        assert f"wellhead serve --data {directory}" in rest.replace("\n", "")
        assert audit(directory).differences == []
    node = Node(Config(directory, port=0, list_hours=1, markets=("L4-USE",)))
    assert node.exchange.engine.memory.header["instruments_used"] > 1
    check(node.exchange.engine.memory)
    await node.start()
    await node.stop()
    assert audit(directory).differences == []


def test_a_directory_in_use_is_refused_and_one_with_an_exchange_left_alone(tmp_path, capsys):
    directory = tmp_path / "demo"
    assert free_directory(directory) == directory
    with FileLog(Config(directory).log_dir):
        with pytest.raises(DemoError, match="a node is running"):
            free_directory(directory)
        assert demo.run(directory, seconds=SECONDS) == demo.REFUSED
    assert "a node is running" in capsys.readouterr().out
    assert free_directory(directory) == tmp_path / "demo-2"
