"""What is wrong with a data directory, in words: where, what a start would do, what can be saved, and how.

Looks without touching. `repair` does what loses nothing: it cuts a write that never finished, and sets aside snapshots
that are not whole. A log that is damaged where commands were acknowledged is a loss that only an operator can accept:
`repair` then wants to be told the very seq from which commands are given up, so that nobody does it unawares. Nothing
is ever deleted: what is replaced moves to `damaged/` in the same directory.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.log import FileLog, LogDamaged, LogError, Report, beyond, copy_before, fsync_directory, verify
from engine.snapshot import Snapshot, SnapshotDamaged
from gateway.auth import KeyStore, KeyStoreError
from settlement.database import FormatError
from settlement.service import DATABASE_NAME, OUTBOX_NAME, SQLITE, STATEMENTS_NAME, Books, has_books, ledger_of
from wellhead.additions import load_catalogue
from wellhead.config import Config
from wellhead.status import is_locked

ASIDE = "damaged"


class DoctorError(Exception):
    """A repair that is not possible or not allowed; the message says why. Nothing was changed."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. `loses` is the first seq that a repair would give up, 0 when none."""

    what: str
    means: str
    start: str  # what a start would do
    remedy: str
    stops: bool = True  # a start would refuse
    loses: int = 0
    aside: tuple[Path, ...] = ()  # what a repair moves away


@dataclass
class Diagnosis:
    """What was looked at, and what was found."""

    data_dir: Path
    lines: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    log: Report | None = None

    @property
    def would_start(self) -> bool:
        """Whether a start would go through."""
        return not any(finding.stops for finding in self.findings)


def examine(data_dir: Path) -> Diagnosis:
    """Look at everything in a data directory; changes nothing. Raises DoctorError where there is no log."""
    config, found = Config(data_dir), Diagnosis(data_dir)
    if not config.log_dir.is_dir():
        raise DoctorError(f"{data_dir} is not the data directory of an exchange: it has no log/")
    if is_locked(config.log_dir):
        found.lines.append("a node has it open; what follows is as of now, and nothing can be repaired")
    try:
        found.log = report = verify(config.log_dir)
    except LogError as error:
        found.findings.append(
            Finding(str(error), "the log cannot be read", "refuse", "look at the disk and the file's owner")
        )
        return found
    found.lines.append(
        f"log        {report.commands:,} commands in {report.frames:,} frames and {report.segments} segments,"
        f" last seq {report.head_seq:,}, durable up to {report.durable_seq or 0:,}"
    )
    found.findings += [*_log(report, config), *_snapshots(config, report, found), *_books(config, report, found)]
    found.findings += _keys(config)
    return found


def _log(report: Report, config: Config) -> Iterator[Finding]:
    for warning in report.warnings:
        yield Finding(
            warning, "the file that says how far the log was durable is not whole", "go on, and write it anew",
            "none is needed; look at the disk", stops=False,
        )  # fmt: skip
    if report.damage is not None:
        yield _damage(report.damage)
    elif report.torn_bytes and not is_locked(config.log_dir):
        yield Finding(
            f"{report.torn_bytes:,} bytes at the end of the log, after seq {report.head_seq:,}, are no whole frame",
            "a write that had not finished when the node ended; nobody had an answer to it",
            "cut them and go on: nothing acknowledged is lost", "start the node, or --repair", stops=False,
        )  # fmt: skip


def _damage(damage: LogDamaged) -> Finding:
    after = beyond(damage)
    means = f"commands up to seq {damage.seq - 1:,} are whole; from {damage.seq:,} on the history cannot be followed"
    if after.frames:
        means += (
            f". Behind it {after.commands:,} commands (seq {after.first_seq:,} to {after.last_seq:,}) are whole, but what"
            " is before them is missing"
        )
    remedy = (
        f"put {damage.path.name} back from a copy (backup, replica) and look again; only where there is none, give up what"
        f" is lost: --repair --give-up-from {damage.seq}"
    )
    return Finding(str(damage), means, "refuse, and change nothing", remedy, loses=damage.seq)


def _snapshots(config: Config, report: Report, found: Diagnosis) -> Iterator[Finding]:
    newest = 0
    for path in sorted(config.snapshot_dir.glob("*.snapshot"), reverse=True):
        try:
            snapshot = Snapshot.load(path)
        except (SnapshotDamaged, OSError) as error:
            yield Finding(
                str(error), "a snapshot only saves time: the log is the truth",
                "pass it over for an older one, or replay the whole log", "none is needed; --repair sets it aside",
                stops=False, aside=(path,),
            )  # fmt: skip
            continue
        if not newest:
            newest = snapshot.applied_seq
            found.lines.append(f"snapshot   at seq {newest:,}, {max(report.head_seq - newest, 0):,} commands to replay")
        if snapshot.applied_seq > report.head_seq:
            yield Finding(
                f"{path} is of seq {snapshot.applied_seq:,}, the log ends at {report.head_seq:,}",
                "the snapshot knows commands that the log has not", "refuse, unless the books are not so far either",
                "put the log's end back from a copy; else --repair sets the snapshot aside", aside=(path,),
            )  # fmt: skip
    drafts = [*config.snapshot_dir.glob("*.new"), *config.log_dir.glob("*.new")]
    if drafts and not is_locked(config.log_dir):
        yield Finding(
            f"{len(drafts)} drafts were left by a crash", "files that were not finished", "write over them",
            "none is needed", stops=False,
        )  # fmt: skip
    if not newest:
        found.lines.append("snapshot   none: a start replays the whole log")


def _books(config: Config, report: Report, found: Diagnosis) -> Iterator[Finding]:
    directory = config.settlement_dir
    if not has_books(directory):
        found.lines.append("books      none: a start makes them from the log")
        return
    try:
        with Books(directory, load_catalogue(config.data_dir), read_only=True) as books:
            applied_seq = books.ledger.head().applied_seq
    except FormatError as error:
        yield Finding(
            str(error), "the books were written by another version", "refuse",
            "--repair sets them aside; they are made again from the log", aside=_book_files(directory),
        )  # fmt: skip
        return
    except Exception as error:  # whatever a damaged database can raise
        yield Finding(
            f"the books cannot be read: {error!r}", "the database is damaged, or its server does not answer", "refuse",
            "the books are made from the log: --repair sets the files aside, the next start makes them again",
            aside=_book_files(directory),
        )  # fmt: skip
        return
    behind = report.head_seq - applied_seq
    found.lines.append(f"books      at seq {applied_seq:,}, {max(behind, 0):,} behind the log")
    if behind < 0 and report.damage is None:
        yield Finding(
            f"the books are at seq {applied_seq:,}, the log ends at {report.head_seq:,}",
            "the log has lost commands that were acknowledged", "refuse",
            "put the log's end back from a copy; only where there is none, give up what is lost:"
            f" --repair --give-up-from {report.head_seq + 1}", loses=report.head_seq + 1, aside=_book_files(directory),
        )  # fmt: skip


def _book_files(directory: Path) -> tuple[Path, ...]:
    """The database with what is made from it; none when it is on a server."""
    if ledger_of(directory) != SQLITE:
        return ()
    return (*sorted(directory.glob(f"{DATABASE_NAME}*")), *directory.glob(STATEMENTS_NAME))


def _keys(config: Config) -> Iterator[Finding]:
    try:
        if config.keys_path.exists():
            KeyStore(config.keys_path)
    except (KeyStoreError, OSError) as error:
        yield Finding(
            f"{config.keys_path}: {error}", "nobody could log on", "refuse", "put the file back, or make the keys anew"
        )


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
        except (LogError, FileExistsError) as error:
            raise DoctorError(str(error)) from error
        if kept.damage is not None or kept.head_seq != loses - 1:
            raise DoctorError(f"what is left in {fresh} is not whole: {kept.damage or kept.head_seq}")
        done.append(aside.move(config.log_dir))
        fresh.rename(config.log_dir)
        fsync_directory(config.data_dir)
        done.append(f"the log ends with seq {kept.head_seq:,} now")
    later = [path for path in config.snapshot_dir.glob("*.snapshot") if int(path.stem) >= loses]
    return done + [aside.move(path) for path in (*later, *_book_files(config.settlement_dir))]


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
