"""Log, engine and books on one directory, without a clock or a socket: opening, recovery, and the step of a batch.

Order of a step: the log first, durable, then the engine, then whoever follows. Order of recovery: the newest snapshot
that is not ahead of the books, then every command of the log behind it, through the same step.
"""

import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.engine import Engine
from engine.log import FileLog, log_lock
from engine.records import copied
from engine.snapshot import Snapshot
from engine.state import Limits
from settlement.database import FormatError
from settlement.ledger import LedgerError
from settlement.process import Bookkeeping
from settlement.service import Settlement
from wellhead.config import Config
from wellhead.limits import LimitsHistory

OpenBooks = Callable[[Path, Catalogue, str], Bookkeeping]
"""Opens the books of a directory, here or in a process of their own: (directory, catalogue, ledger's address)."""
Progress = Callable[[int, int], None]
"""Called with (commands replayed, commands to replay)."""


class RecoveryError(Exception):
    """The parts on the disk contradict each other; the message says which and where."""


class Follower(Protocol):
    """A part that follows the log through batches, and can be stored and restored beside the engine's state."""

    def on_batch(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None: ...

    def snapshot(self) -> bytes: ...

    def restore(self, data: bytes) -> None: ...


@dataclass
class Exchange:
    """The state of one data directory, open for writing. One thread uses it, except where a method says otherwise."""

    config: Config
    catalogue: Catalogue
    log: FileLog
    engine: Engine
    settlement: Bookkeeping
    limits: LimitsHistory
    snapshot: Snapshot | None
    warnings: list[str]

    @classmethod
    def open(cls, config: Config, catalogue: Catalogue, books: OpenBooks = Settlement) -> Self:
        """Open or make a data directory; `recover` must follow. Raises LogError, LogDamaged, RecoveryError."""
        config.data_dir.mkdir(parents=True, exist_ok=True)
        # Before the books: whoever opens them takes them away from a node that writes them.
        with log_lock(config.log_dir) as lock:
            return cls._open(config, catalogue, lock, books)

    @classmethod
    def _open(cls, config: Config, catalogue: Catalogue, lock: int, books: OpenBooks) -> Self:
        with ExitStack() as opened:
            settlement = _settlement(config, catalogue, books)
            opened.callback(settlement.close)
            # A snapshot ahead of the books would leave them without the events between.
            latest = Snapshot.latest(config.snapshot_dir, max_seq=settlement.applied_seq)
            snapshot = latest.snapshot
            first = snapshot.applied_seq + 1 if snapshot else 1
            log = FileLog(config.log_dir, durable=config.durable, verify_from=first, lock=lock)
            opened.callback(log.close)
            _check_agreement(log, settlement, snapshot)
            limits = _limits(config)
            under = limits.at(first - 1)
            engine = Engine.from_bytes(snapshot.sections["engine"], under) if snapshot else Engine(under)
            opened.pop_all()
        return cls(config, catalogue, log, engine, settlement, limits, snapshot, latest.warnings)

    def recover(self, follower: Follower | None = None, progress: Progress | None = None) -> int:
        """Bring engine, books and follower to the end of the log; how many commands were replayed.

        Each under the limits that it was written under; from now on those of the configuration are in force. Raises
        RecoveryError where the state exceeds them.
        """
        if self.snapshot and follower:
            follower.restore(self.snapshot.sections["gateway"])
        first, head = self.engine.applied_seq + 1, self.log.head_seq
        with ThreadPoolExecutor(1, "books") as books:
            booked: Future[None] | None = None
            for commands in self.limits.lead(self.engine, self.log.read(first)):
                events = copied(self.engine.apply(commands))
                if booked:
                    booked.result()
                booked = books.submit(self.settlement.on_batch, commands, events)  # while the follower follows
                if follower:
                    follower.on_batch(commands, events)
                if progress:
                    progress(self.engine.applied_seq - first + 1, head - first + 1)
            if booked:
                booked.result()
        self._turn_to(self.config.limits)
        self.snapshot = None  # its bytes are not needed any more
        return head - first + 1

    def _turn_to(self, limits: Limits) -> None:
        if self.engine.memory.limits != limits:
            try:
                self.engine.set_limits(limits)
            except ValueError as error:
                raise RecoveryError(f"the configured limits are too small: {error}") from error
        self.limits.note(self.log.head_seq + 1, limits)

    def close(self) -> None:
        """Let go of the directory. Everything acknowledged is on the disk already."""
        try:
            self.log.close()
        finally:
            self.settlement.close()


def _settlement(config: Config, catalogue: Catalogue, books: OpenBooks) -> Bookkeeping:
    try:
        return books(config.settlement_dir, catalogue, config.ledger)
    except (FormatError, LedgerError, ImportError, ValueError) as error:
        raise RecoveryError(str(error)) from error
    except sqlite3.Error as error:
        raise RecoveryError(f"the books in {config.settlement_dir} cannot be opened: {error}") from error


def _limits(config: Config) -> LimitsHistory:
    try:
        return LimitsHistory(config.data_dir, config.limits)
    except ValueError as error:
        raise RecoveryError(str(error)) from error


def _check_agreement(log: FileLog, settlement: Bookkeeping, snapshot: Snapshot | None) -> None:
    if settlement.applied_seq > log.head_seq:
        raise RecoveryError(
            f"the books are at seq {settlement.applied_seq}, the log ends at {log.head_seq}: it lost commands"
        )
    if snapshot and log.chain_at(snapshot.applied_seq) != snapshot.chain:
        raise RecoveryError(f"the snapshot at seq {snapshot.applied_seq} belongs to another log")
