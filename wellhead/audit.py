"""The proof behind `wellhead verify`: replay the whole log into a fresh engine, and hold everything else against it."""

from dataclasses import dataclass
from pathlib import Path

from engine.engine import Engine
from engine.invariants import InvariantError, check
from engine.log import FileLog, LogDamaged, LogError
from engine.snapshot import Snapshot
from settlement.database import FormatError
from settlement.rebuild import Rebuild
from settlement.service import Books, has_books
from settlement.verify import verify
from wellhead.additions import load_catalogue
from wellhead.config import Config
from wellhead.limits import LimitsHistory


class AuditError(Exception):
    """There is nothing to audit, or it cannot be read."""


@dataclass
class AuditReport:
    """What was checked, and every difference with its place."""

    lines: list[str]
    differences: list[str]


def audit(data_dir: Path) -> AuditReport:
    """Audit a data directory that no node has open. Changes nothing but the log's torn tail. Raises AuditError."""
    config, catalogue = Config(data_dir), load_catalogue(data_dir)
    if not config.log_dir.is_dir():
        raise AuditError(f"{data_dir} is not the data directory of an exchange")
    if not has_books(config.settlement_dir):
        raise AuditError(f"{data_dir} has no books to hold the log against: a start makes them from the log")
    report = AuditReport([], [])
    try:
        with FileLog(config.log_dir) as log, Books(config.settlement_dir, catalogue, read_only=True) as books:
            report.lines.append(f"log         {log.head_seq:,} commands, chain {log.chain.hex()[:16]}")
            rebuild = Rebuild(books.ledger)
            engine = _replay(log, config, report, rebuild)
            report.differences += [str(difference) for difference in rebuild.found]
    except FormatError as error:
        raise AuditError(str(error)) from error
    except ValueError as error:
        raise AuditError(str(error)) from error
    except LogDamaged as error:
        return AuditReport(report.lines, [str(error)])
    except LogError as error:
        raise AuditError(str(error)) from error
    try:
        check(engine.memory)
        report.lines.append(f"engine      invariants hold, state {engine.state_hash()[:16]}")
    except InvariantError as error:
        report.differences.append(f"engine: {error}")
    with Books(config.settlement_dir, catalogue, read_only=True) as books:
        report.differences += [str(difference) for difference in verify(books, engine.dump())]
        batches = books.batches.all()
        report.lines.append(f"books       {books.ledger.head().applied_seq:,} commands, {len(batches)} batches")
    return report


def _replay(log: FileLog, config: Config, report: AuditReport, rebuild: Rebuild) -> Engine:
    """From the beginning, not from a snapshot: snapshots are among what is to be proven."""
    history = LimitsHistory(config.data_dir)
    engine = Engine(history.at(1))
    snapshot = Snapshot.latest(config.snapshot_dir, max_seq=log.head_seq).snapshot
    for commands in history.lead(engine, log.read()):
        first = int(commands["seq"][0])
        cut = 0
        if snapshot and first <= snapshot.applied_seq <= commands["seq"][-1]:
            cut = snapshot.applied_seq - first + 1
            rebuild.on_batch(commands[:cut], engine.apply(commands[:cut]))
            _compare(engine, snapshot, report)
        rebuild.on_batch(commands[cut:], engine.apply(commands[cut:]))
    return engine


def _compare(engine: Engine, snapshot: Snapshot, report: AuditReport) -> None:
    # It may have been written by a run with other limits, which are in it, before any command under them.
    same = Engine.from_bytes(snapshot.sections["engine"], engine.memory.limits).to_bytes() == engine.to_bytes()
    if same:
        report.lines.append(f"snapshot    at {snapshot.applied_seq:,} is what the log leads to")
    else:
        report.differences.append(f"snapshot at seq {snapshot.applied_seq}: not the state that the log leads to")
