"""The cluster's campaign in short, and its checker against histories that are wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.catalogue import Catalogue, Contract, pack_id
from engine.engine import Engine
from engine.sequencing import Entry, Frame, Part, Sequencer
from engine.types import COMMAND, TRANSFER, Flag, Kind
from tests.cluster.campaign import run
from tests.cluster.history import History, Told, problems
from wellhead.cluster.core import Core

FAULTS = ["replica that writes: kill -9", "server that leads the journal: kill -9"]


async def test_a_short_campaign_finds_nothing_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = await run(1, 1, tmp_path, FAULTS)
    said = capsys.readouterr().out
    assert code == 0, said
    assert "wrong: nothing" in said


def market() -> Core:
    """An account with money, and a contract."""
    core, catalogue = Core(Engine(), Sequencer()), Catalogue.load()
    start_s = 1_900_000_800 // 3600 * 3600
    contract = Contract(catalogue.classes[0], catalogue.regions[0], start_s)
    listing = catalogue.listing(contract, 1, (start_s - 7_200) * 10**9, 2_000).view(COMMAND)
    account = np.zeros(2, TRANSFER)
    account["kind"], account["account"] = (Kind.OPEN_ACCOUNT, Kind.DEPOSIT), 1
    account["external_id"][0] = pack_id("ann")
    account["amount_micros"][1] = 10**12
    commands = np.concatenate([account.view(COMMAND), listing])
    core.apply(1, (start_s - 7_200) * 10**9, Frame("g1", 1, commands).pack())
    return core


def order(core: Core, number: int, cid: str, at: int) -> int:
    """Place an order; its id."""
    command = np.zeros(1, COMMAND)
    command["kind"], command["account"], command["instrument"] = Kind.NEW_ORDER, 1, 1
    command["price"], command["qty"], command["flags"] = 2_000, 1, Flag.EXTENDED
    command["cl_ord_id"] = pack_id(cid)
    part = core.apply(at, core.sequencer.ts_ns, Frame("g1", number, command).pack())
    assert part is not None
    return int(part.events["order_id"][0])


def played() -> tuple[History, list[Entry], str]:
    """Two orders, one after the other, and what the journal has."""
    core = market()
    first, second = order(core, 2, "a", 2), order(core, 3, "b", 3)
    told = [Told("ann", "a", first, 1.0, 2.0), Told("ann", "b", second, 3.0, 4.0)]
    return History(told), [core.entry("r1", 0)], core.engine.state_hash()


def test_the_checker_is_content_with_a_right_history() -> None:
    history, entries, state = played()
    assert problems(history, entries, [state, state]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cid": "lost"}, "was told of lost"),
        ({"oid": 5}, "was told of a"),
        ({"sent_at": 5.0, "told_at": 6.0}, "stands before it"),
        ({"cid": "b"}, "told twice"),
    ],
)
def test_the_checker_sees_a_wrong_history(change: dict[str, str | int | float], words: str) -> None:
    history, entries, state = played()
    history.told[0] = replace(history.told[0], **change)  # type: ignore[arg-type]
    assert any(words in problem for problem in problems(history, entries, [state]))


def test_the_checker_sees_a_wrong_journal_and_a_wrong_replica() -> None:
    history, entries, state = played()
    assert problems(history, entries, ["other"]) == ["replica 0 has another state"]
    part: Part = entries[0].parts[-1]
    part.events["order_id"] += 1
    assert any("says something else" in problem for problem in problems(history, entries, [state]))
