"""What can be done about a damaged data directory, of what `examine` found.

`repair` does what loses nothing: it cuts a write that never finished, and sets aside what can be made again. A log that is
damaged where commands were acknowledged is a loss that only an operator can accept: `repair` then wants to be told the
very seq from which commands are given up, so that nobody does it unawares. Nothing is ever deleted: what is replaced
moves to `damaged/` in the same directory.
"""

import os
import time
from pathlib import Path

from engine.log import FileLog, LogError, copy_before, fsync_directory
from settlement.service import OUTBOX_NAME, SQLITE, ledger_of
from wellhead.config import Config
from wellhead.examine import Diagnosis, DoctorError, book_files
from wellhead.status import is_locked

ASIDE = "damaged"


def repair(found: Diagnosis, give_up_from: int | None = None) -> list[str]:
    """Do what the findings offer; what was done, in words. Raises DoctorError before anything is changed.

    `give_up_from` is needed where acknowledged commands are lost, and must be the first of them.
    """
    config = Config(found.data_dir)
    loses = min((finding.loses for finding in found.findings if finding.loses), default=0)
    if is_locked(config.log_dir):
        raise DoctorError("a node has the directory open: stop it first")
    if loses and give_up_from is None:
        raise DoctorError(f"commands that were acknowledged are lost from seq {loses} on: see --give-up-from")
    if give_up_from is not None and give_up_from != loses:
        raise DoctorError(
            f"--give-up-from {give_up_from}: " + (f"the loss begins at {loses}" if loses else "nothing is lost")
        )
    if loses:
        _check_is_ours_to_cut(config)
    aside = Aside(found.data_dir)
    done = _give_up(config, found, loses, aside) if loses else []
    done += [aside.move(path) for finding in found.findings for path in finding.aside if path.exists()]
    if not loses and found.log is not None and found.log.torn_bytes:
        with FileLog(config.log_dir) as log:
            done.append(f"cut {log.recovered.torn_bytes:,} bytes that were never acknowledged")
    return done


def _check_is_ours_to_cut(config: Config) -> None:
    """What left for a chain or sits on a server does not go back with the log."""
    if ledger_of(config.settlement_dir) != SQLITE:
        raise DoctorError(
            "the books are on a server, ahead of what would be left of the log: restore both from a backup"
        )
    if (config.settlement_dir / OUTBOX_NAME).exists():
        raise DoctorError(
            "coins are on chains, where nothing can be taken back: restore the log from a backup, see the runbook"
        )


def _give_up(config: Config, found: Diagnosis, loses: int, aside: "Aside") -> list[str]:
    """Shorten the log to what is before a loss, and set aside what knows more."""
    done = []
    report = found.log
    if report is not None and report.damage is not None:
        fresh = config.log_dir.with_name("log.shortened")
        try:
            kept = copy_before(report.damage, fresh)
            with FileLog(fresh):  # leaves a mark: so far it is durable
                pass
        except (LogError, FileExistsError) as error:
            raise DoctorError(str(error)) from error
        _give_to(fresh, config.log_dir.stat())
        if kept.damage is not None or kept.head_seq != loses - 1:
            raise DoctorError(f"what is left in {fresh} is not whole: {kept.damage or kept.head_seq}")
        done.append(aside.move(config.log_dir))
        fresh.rename(config.log_dir)
        fsync_directory(config.data_dir)
        done.append(f"the log ends with seq {kept.head_seq:,} now")
    if report is None:
        with FileLog(config.log_dir):
            done.append("a log was begun, with nothing in it")
        _give_to(config.log_dir, config.data_dir.stat())
    later = [path for path in config.snapshot_dir.glob("*.snapshot") if int(path.stem) >= loses]
    return done + [aside.move(path) for path in (*later, *book_files(config.settlement_dir))]


def _give_to(directory: Path, owner: os.stat_result) -> None:
    """What root makes here is not for root: the node's user goes on with it."""
    if os.geteuid() == 0:
        for path in (directory, *directory.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)


class Aside:
    """The place where what is replaced goes: `damaged/<time>` in the data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._place = data_dir / ASIDE / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())

    def move(self, path: Path) -> str:
        """Move a file or directory there; what was done."""
        target = self._place / path.relative_to(self._data_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, target)
        fsync_directory(target.parent)
        return f"moved {path.relative_to(self._data_dir)} to {target.relative_to(self._data_dir)}"
