"""A cycle ends once, whenever the node was killed."""

from pathlib import Path

import numpy as np

from engine.catalogue import HOUR_S, NS, Catalogue, pack_id
from engine.types import COMMAND, TRANSFER, Kind
from wellhead.config import Config
from wellhead.exchange import Exchange
from wellhead.node import Node

CYCLE_NS = Catalogue.load().cycle_hours * HOUR_S * NS
BOUNDARY_NS = 1_795_000_000 * NS // CYCLE_NS * CYCLE_NS


def live(data_dir: Path, *life: tuple[int, Kind]) -> None:
    """Log commands of account 1 at these times, and stop without looking at the clock."""
    exchange = Exchange.open(Config(data_dir), Catalogue.load())
    try:
        exchange.recover()
        for ts_ns, kind in life:
            row = np.zeros(1, TRANSFER)
            row["kind"], row["seq"], row["ts_ns"] = kind, exchange.log.head_seq + 1, ts_ns
            if kind != Kind.CLOSE_CYCLE:
                row["account"], row["external_id"] = 1, pack_id(str(ts_ns))
            if kind == Kind.DEPOSIT:
                row["amount_micros"] = 1_000_000
            commands = row.view(COMMAND)
            exchange.log.append(commands)
            exchange.log.sync()
            exchange.settlement.on_batch(commands, exchange.engine.apply(commands))
    finally:
        exchange.close()


def ends_due(data_dir: Path, now_ns: int) -> int:
    """How many cycles a node that starts there ends at once."""
    node = Node(Config(data_dir), clock=lambda: now_ns)
    try:
        return int((node.calendar.due(now_ns)["kind"] == Kind.CLOSE_CYCLE).sum())
    finally:
        node.exchange.close()


def test_a_node_that_died_behind_the_boundary_ends_the_cycle_when_it_is_back(tmp_path: Path) -> None:
    live(tmp_path, (BOUNDARY_NS - 2, Kind.OPEN_ACCOUNT), (BOUNDARY_NS - 1, Kind.DEPOSIT))
    assert ends_due(tmp_path, BOUNDARY_NS - 1) == 0
    live(tmp_path, (BOUNDARY_NS + 1, Kind.DEPOSIT))
    assert ends_due(tmp_path, BOUNDARY_NS + 2) == 1


def test_a_cycle_that_ended_is_not_ended_again(tmp_path: Path) -> None:
    live(tmp_path, (BOUNDARY_NS - 2, Kind.OPEN_ACCOUNT), (BOUNDARY_NS - 1, Kind.DEPOSIT))
    live(tmp_path, (BOUNDARY_NS + 1, Kind.CLOSE_CYCLE), (BOUNDARY_NS + 2, Kind.DEPOSIT))
    assert ends_due(tmp_path, BOUNDARY_NS + 3) == 0
    assert ends_due(tmp_path, BOUNDARY_NS + CYCLE_NS) == 1


def test_a_node_without_money_has_no_cycle_to_end(tmp_path: Path) -> None:
    assert ends_due(tmp_path, BOUNDARY_NS) == 0
