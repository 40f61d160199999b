"""A log is replayed under the limits that each of its commands was written under."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.snapshot import Snapshot
from engine.state import Limits
from engine.types import EventKind, Kind, Side
from tests.settlement.flow import START_NS, listing, open_account, order, transfer
from wellhead.audit import audit
from wellhead.config import Config
from wellhead.exchange import Exchange, RecoveryError
from wellhead.limits import NAME, LimitsHistory

CATALOGUE = Catalogue.load()
FEW = Limits(max_open_orders_per_account=2)
MORE = replace(FEW, max_open_orders_per_account=3)


def begin() -> list[NDArray[np.void]]:
    return [open_account(1), transfer(Kind.DEPOSIT, 1, amount_micros=10**12), listing(1)]


def buys(count: int) -> list[NDArray[np.void]]:
    return [order(1, 1, Side.BUY, 2_600, 1) for _ in range(count)]


def live(data: Path, limits: Limits, commands: list[NDArray[np.void]], snapshot: bool = False) -> list[int]:
    """A run under some limits, a command a frame; the kinds of its events. It ends like a killed one."""
    exchange, kinds = Exchange.open(Config(data, limits=limits), CATALOGUE), []
    try:
        exchange.recover()
        for row in commands:
            row["ts_ns"] = START_NS
            exchange.log.append(row)
            exchange.log.sync()
            events = exchange.engine.apply(row).copy()
            exchange.settlement.on_batch(row, events)
            kinds += events["kind"].tolist()
        if snapshot:
            sections = {"engine": exchange.engine.to_bytes()}
            Snapshot.write(exchange.config.snapshot_dir, exchange.log.head_seq, exchange.log.chain, sections)
    finally:
        exchange.close()
    return kinds


def replayed(data: Path, limits: Limits) -> dict[str, Any]:
    exchange = Exchange.open(Config(data, limits=limits), CATALOGUE)
    try:
        exchange.recover()
        return exchange.engine.dump()
    finally:
        exchange.close()


def test_an_audit_knows_the_limits_that_the_log_was_written_under(tmp_path: Path) -> None:
    kinds = live(tmp_path, FEW, [*begin(), *buys(3)], snapshot=True)
    assert kinds[-3:] == [EventKind.NEW, EventKind.NEW, EventKind.REJECTED]
    assert audit(tmp_path).differences == []
    (tmp_path / NAME).unlink()
    assert "snapshot at seq 6" in audit(tmp_path).differences[0]


@pytest.mark.parametrize("snapshot", [False, True])
def test_limits_that_were_changed_between_runs_hold_from_there_on(tmp_path: Path, snapshot: bool) -> None:
    assert live(tmp_path, FEW, [*begin(), *buys(3)], snapshot)[-1] == EventKind.REJECTED
    assert live(tmp_path, MORE, buys(2))[-2:] == [EventKind.NEW, EventKind.REJECTED]
    assert live(tmp_path, FEW, buys(1)) == [EventKind.REJECTED]
    assert audit(tmp_path).differences == []
    # What was accepted while more were allowed is still there, whatever is allowed now.
    assert replayed(tmp_path, MORE) == replayed(tmp_path, FEW)
    live(tmp_path, MORE, [], snapshot=True)
    assert audit(tmp_path).differences == []


def test_a_batch_that_crosses_a_change_is_cut_there(tmp_path: Path) -> None:
    live(tmp_path, FEW, begin())
    history = LimitsHistory(tmp_path)
    history.note(4, MORE)
    history.note(6, FEW)
    log = np.concatenate([*begin(), *buys(4)])
    log["seq"] = 1 + np.arange(len(log))
    exchange = Exchange.open(Config(tmp_path, limits=FEW), CATALOGUE)
    parts = [(len(part), history.at(int(part["seq"][0]))) for part in history.lead(exchange.engine, [log])]
    exchange.close()
    assert parts == [(3, FEW), (2, MORE), (2, FEW)]


def test_what_was_noted_for_commands_that_never_were_is_dropped(tmp_path: Path) -> None:
    history = LimitsHistory(tmp_path)
    history.note(1, FEW)
    history.note(9, MORE)
    history.note(5, FEW)
    assert LimitsHistory(tmp_path).at(9) == FEW
    history.note(5, MORE)
    assert [LimitsHistory(tmp_path).at(seq) for seq in (1, 4, 5, 9)] == [FEW, FEW, MORE, MORE]


def test_limits_below_what_is_there_are_refused(tmp_path: Path) -> None:
    live(tmp_path, Limits(), [open_account(1), open_account(2), open_account(3)])
    exchange = Exchange.open(Config(tmp_path, limits=Limits(max_accounts=2)), CATALOGUE)
    with pytest.raises(RecoveryError, match="too small"):
        exchange.recover()
    exchange.close()
    assert audit(tmp_path).differences == []


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    live(tmp_path, FEW, begin())
    (tmp_path / NAME).write_text("[{")
    with pytest.raises(RecoveryError, match=NAME):
        Exchange.open(Config(tmp_path, limits=FEW), CATALOGUE)
