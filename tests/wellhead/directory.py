"""A data directory with a life in it, made without a server: log, books and snapshots of a recorded flow."""

from collections.abc import Sequence
from pathlib import Path

from engine.catalogue import Catalogue
from engine.snapshot import Snapshot
from tests.settlement.flow import START_NS, cuts, recorded
from wellhead.config import Config
from wellhead.exchange import Exchange


def fill(data_dir: Path, snapshots_at: Sequence[float] = (), steps: int = 60, slower: int = 1) -> int:
    """Put a recorded flow through an exchange in `data_dir`, in frames; snapshots at parts of the way. The last seq."""
    flow = recorded(1, steps)
    due = [int(part * len(flow)) for part in snapshots_at]
    exchange = Exchange.open(Config(data_dir), Catalogue.load())
    try:
        exchange.recover()
        for first, last in cuts(len(flow), seed=7):
            commands, _ = flow.cut(first, last)
            if not len(commands):
                continue
            commands = commands.copy()
            commands["ts_ns"] = START_NS + (commands["ts_ns"] - START_NS) * slower
            exchange.log.append(commands)
            exchange.log.sync()
            exchange.settlement.on_batch(commands, exchange.engine.apply(commands))
            if due and last >= due[0]:
                due.pop(0)
                sections = {"engine": exchange.engine.to_bytes()}
                Snapshot.write(exchange.config.snapshot_dir, last, exchange.log.chain, sections)
        return exchange.log.head_seq
    finally:
        exchange.close()
