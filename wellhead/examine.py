"""What is wrong with a data directory, in words: what is damaged, what is whole all the same, what is lost, and what to type.

Looks without touching. What a start would do is said as the start does it: from the newest snapshot that the books have
reached, reading only the log behind it.
"""

import contextlib
import os
import pwd
import shlex
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.catalogue import Catalogue, CatalogueError
from engine.log import Beyond, LogDamaged, LogError, Report, beyond, chain_at, segment_paths, verify
from engine.snapshot import Snapshot, SnapshotDamaged
from gateway.auth import KeyStore, KeyStoreError
from settlement.database import FormatError
from settlement.service import DATABASE_NAME, OUTBOX_NAME, SQLITE, STATEMENTS_NAME, Books, has_books, ledger_of
from settlement.tickets import KEY_NAME, Signer
from wellhead.additions import FILE_NAME, load_catalogue
from wellhead.config import Config
from wellhead.limits import NAME as LIMITS_NAME
from wellhead.limits import LimitsHistory
from wellhead.status import is_locked

NOTHING = "nothing"


class DoctorError(Exception):
    """A look or a repair that is not possible or not allowed; the message says why. Nothing was changed."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be, and where. `loses` is the first seq that a repair would give up, 0 when none."""

    what: str
    saved: str  # what is whole all the same, or can be made again
    lost: str
    start: str  # what a start would do
    advice: str
    command: str = ""  # what to type for it
    otherwise: str = ""  # what to type where that cannot be done
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
    """Look at everything in a data directory; changes nothing. Raises DoctorError where there is none."""
    return _Look(data_dir).found


class _Look:
    """One look; the result is in `found`."""

    def __init__(self, data_dir: Path) -> None:
        self._config, self.found = Config(data_dir), Diagnosis(data_dir)
        place = shlex.quote(str(data_dir))
        self._again = f"wellhead doctor {place}"
        self._repair = f"{self._again} --repair"
        self._is_open = False
        try:
            if not self._access():
                self._look()
        except PermissionError as error:
            self._note(self._denied([Path(error.filename or data_dir)]))

    def _note(self, *findings: Finding) -> None:
        self.found.findings += findings

    def _say(self, what: str, text: str) -> None:
        self.found.lines.append(f"{what:<11}{text}")

    def _look(self) -> None:
        config = self._config
        if not config.log_dir.is_dir():
            self._no_log()
            return
        self._is_open = is_locked(config.log_dir)
        if self._is_open:
            self._say("open", "a node has it open; what follows is as of now, and nothing can be repaired")
        try:
            self.found.log = report = verify(config.log_dir)
        except LogError as error:
            self._note(_unreadable(error))
            return
        self._catalogue()
        self._after = beyond(report.damage) if report.damage else Beyond(0, 0, 0, 0)
        # As far as any trace of the log goes: what is further on the disk is ahead of it.
        self._whole_seq = report.damage.seq - 1 if report.damage else report.head_seq
        self._end_seq = max(self._whole_seq, self._after.last_seq, report.durable_seq or 0)
        self._how_far(report)
        self._books_seq = self._books()
        self._usable = self._snapshots(report)
        self._log(report)
        self._limits()
        self._keys()
        self._outbox()

    # --- Who may ------------------------------------------------------------------------------------------------------

    def _access(self) -> bool:
        """Whether there is something that this user, or the directory's owner, may not read or write."""
        places = [*self._places()]
        denied = [path for path in places if not os.access(path, _needs(path))]
        if denied:
            self._note(self._denied(denied))
            return True
        owner = self._config.data_dir.stat().st_uid
        others = [path for path in places if path.stat().st_uid != owner]
        if others and os.geteuid() == 0:
            self._note(_strange(others, self._config.data_dir))
        return False

    def _places(self) -> Iterator[Path]:
        config = self._config
        yield config.data_dir
        for path in (config.log_dir, config.snapshot_dir, config.settlement_dir, config.data_dir / "history"):
            if path.exists():
                yield path
                if os.access(path, os.R_OK | os.X_OK):
                    yield from (each for each in sorted(path.iterdir()) if each.is_file())
        yield from (path for path in (config.keys_path, config.data_dir / LIMITS_NAME) if path.exists())

    def _denied(self, paths: list[Path]) -> Finding:
        stat = paths[0].stat() if os.access(paths[0].parent, os.X_OK) else paths[0].parent.stat()
        more = f", nor {len(paths) - 1} more" if len(paths) > 1 else ""
        place, me, owner = shlex.quote(str(self._config.data_dir)), _user(os.geteuid()), _user(stat.st_uid)
        if me == owner:
            advice, command = "give its owner what was taken away", f"chmod -R u+rwX {place} && {self._again}"
        else:
            advice, command = (
                f"look as {owner}; or, if {me} is to run the node, give it all",
                f"sudo -u {owner} {self._again}",
            )
        return Finding(
            f"{paths[0]} cannot be read and written by {me}{more}: it belongs to {owner}, mode {stat.st_mode & 0o777:03o}",
            "what may not be read was not looked at, and nothing else is known to be damaged", NOTHING, f"be refused to {me}",
            advice, command, "" if me == owner else f"sudo chown -R {me} {place}",
        )  # fmt: skip

    # --- The log ------------------------------------------------------------------------------------------------------

    def _no_log(self) -> None:
        config = self._config
        if not has_books(config.settlement_dir) and not any(config.snapshot_dir.glob("*.snapshot")):
            raise DoctorError(f"{config.data_dir} is not the data directory of an exchange: it has no log/")
        self._note(
            Finding(
                f"{config.log_dir} is missing, and there are books or snapshots of it",
                "the state as books and snapshots have it, to look at: nothing can go on from them without the log",
                "every command, unless a copy of the log has it", "refuse",
                "put the log back from the newest copy, with limits.json; only where there is none, begin with nothing",
                f"cp -a BACKUP/log BACKUP/{LIMITS_NAME} {shlex.quote(str(config.data_dir))}/ && {self._again}",
                f"{self._repair} --give-up-from 1", loses=1,
            )
        )  # fmt: skip

    def _how_far(self, report: Report) -> None:
        segments, durable = len(segment_paths(self._config.log_dir)), report.durable_seq
        self._say(
            "log",
            f"{segments} segments, {'whole up to' if report.damage else 'last'} seq {self._whole_seq:,},"
            f" {'how far durable is not known' if durable is None else f'durable up to {durable:,}'}",
        )

    def _log(self, report: Report) -> None:
        self._mark(report)
        if report.damage is not None:
            self._note(self._damage(report.damage, report))
        elif report.torn_bytes and not self._is_open:
            self._note(
                Finding(
                    f"{report.torn_bytes:,} bytes at the end of the log, after seq {report.head_seq:,}, are no whole frame",
                    f"every command that was acknowledged, up to seq {report.head_seq:,}",
                    f"{NOTHING}: a write that had not finished when the node ended, to which nobody had an answer",
                    "cut them and go on", "start the node; or cut them now", self._repair, stops=False,
                )
            )  # fmt: skip

    def _mark(self, report: Report) -> None:
        path = self._config.log_dir / "mark"
        missing = [f"{path} is missing"] if report.commands and not path.exists() else []
        for words in (*report.warnings, *missing):
            self._note(
                Finding(
                    words, f"every command up to seq {self._whole_seq:,}",
                    "the knowledge of how far the log was durable: had its end been cut off, only books and snapshots could tell",
                    "go on, and write it anew", "compare the last seq with what members were told; look at the disk",
                    f"wellhead verify --data {shlex.quote(str(self._config.data_dir))}", stops=False,
                )
            )  # fmt: skip

    def _damage(self, damage: LogDamaged, report: Report) -> Finding:
        name, back = damage.path.name, shlex.quote(str(self._config.log_dir))
        what, which = str(damage), f"put {name} back"
        if damage.path.exists() and 0 < damage.offset == damage.path.stat().st_size:
            what = (
                f"{damage.path} ends with seq {damage.seq - 1:,}, where the log was durable up to seq {self._end_seq:,}:"
                " its end is missing, or the segment behind it"
            )
            name, which = "*.log", "put the segments back"
        copy = f"cp -a BACKUP/log/{name} {back}/ && {self._again}"
        if self._usable:
            return Finding(
                what, f"the state: the snapshot at seq {self._usable:,} and the log behind it lead to it",
                f"the way there: from seq {damage.seq:,} on the history cannot be proven, exported or replayed",
                f"go on from the snapshot at seq {self._usable:,}, and not notice",
                f"{which} from a copy (backup, replica, archive). Until then keep snapshots/ and settlement/: they cannot be"
                " made again", copy, stops=False,
            )  # fmt: skip
        return Finding(
            what, self._saved(damage), self._lost(damage), "refuse, and change nothing",
            f"{which} from a copy that goes as far (backup, replica, archive: all have the same bytes); only where there is"
            " none, give up what is lost, and tell the members",
            copy, f"{self._repair} --give-up-from {damage.seq}", loses=damage.seq,
        )  # fmt: skip

    def _saved(self, damage: LogDamaged) -> str:
        whole = f"commands up to seq {damage.seq - 1:,}" if damage.seq > 1 else "no command by itself"
        after = self._after
        if not after.frames:
            return whole
        return (
            f"{whole}; behind the damage {after.commands:,} more (seq {after.first_seq:,} to {after.last_seq:,}) are whole,"
            " which count again once what is before them is back"
        )

    def _lost(self, damage: LogDamaged) -> str:
        until = f" to {self._end_seq:,}" if self._end_seq >= damage.seq else " on"
        return f"without a copy: the commands from seq {damage.seq:,}{until}, which were acknowledged"

    # --- Snapshots ----------------------------------------------------------------------------------------------------

    def _snapshots(self, report: Report) -> int:
        """Note what is wrong with them; the seq of the one that a start would go on from, 0 when none."""
        config, usable, newest = self._config, 0, 0
        for path in sorted(config.snapshot_dir.glob("*.snapshot"), reverse=True):
            try:
                snapshot = Snapshot.load(path)
            except SnapshotDamaged as error:
                self._note(self._spoilt(path, str(error)))
                continue
            newest = newest or snapshot.applied_seq
            if snapshot.applied_seq > self._end_seq:
                self._note(self._ahead(path, snapshot.applied_seq))
            elif self._is_of_another_log(snapshot, report):
                self._note(self._spoilt(path, f"{path} belongs to another log", stops=True))
            elif not usable and snapshot.applied_seq <= self._books_seq:
                usable = snapshot.applied_seq
        drafts = [*config.snapshot_dir.glob("*.new"), *config.log_dir.glob("*.new")]
        if drafts and not self._is_open:
            self._note(
                Finding(
                    f"{len(drafts)} drafts were left by a crash: {', '.join(sorted(path.name for path in drafts))}",
                    "everything: a draft is a file that was not finished", NOTHING, "write over them", "start the node",
                    stops=False,
                )
            )  # fmt: skip
        behind = max(self._end_seq - newest, 0)
        self._say(
            "snapshot", f"at seq {newest:,}, {behind:,} commands to replay" if newest else "none: a start replays all"
        )
        if usable and report.damage and verify(config.log_dir, usable + 1).damage is not None:
            return 0
        return usable

    def _is_of_another_log(self, snapshot: Snapshot, report: Report) -> bool:
        if report.damage is not None and snapshot.applied_seq >= report.damage.seq:
            return False  # cannot be told
        try:
            return chain_at(self._config.log_dir, snapshot.applied_seq) != snapshot.chain
        except LogError:
            return False  # cannot be told either
        except ValueError:
            return True

    def _spoilt(self, path: Path, what: str, stops: bool = False) -> Finding:
        return Finding(
            what, "everything: a snapshot only saves time, the log is the truth", NOTHING,
            "refuse" if stops else "pass it over for an older one, or replay the whole log",
            "set it aside" if stops else "none is needed; it can be set aside", self._repair, stops=stops, aside=(path,),
        )  # fmt: skip

    def _ahead(self, path: Path, seq: int) -> Finding:
        return Finding(
            f"{path} is of seq {seq:,}, the log ends at {self._end_seq:,}",
            f"commands up to seq {self._end_seq:,}",
            f"without a copy of the log: the commands from seq {self._end_seq + 1:,} to {seq:,}, which were acknowledged",
            "refuse, if the books are as far; else go on without them, and not notice",
            "put the log's end back from a copy; only where there is none, give up what is lost, and tell the members",
            f"cp -a BACKUP/log/. {shlex.quote(str(self._config.log_dir))}/ && {self._again}",
            f"{self._repair} --give-up-from {self._end_seq + 1}",
            stops=False, loses=self._end_seq + 1, aside=(path,),
        )  # fmt: skip

    # --- The books ----------------------------------------------------------------------------------------------------

    def _books(self) -> int:
        """Note what is wrong with them; how far they are, 0 when they cannot be read."""
        directory = self._config.settlement_dir
        path = directory / DATABASE_NAME
        on_file = ledger_of(directory) == SQLITE
        if not has_books(directory) or (on_file and path.exists() and not path.stat().st_size):
            self._say("books", "none: a start makes them from the log")
            return 0
        try:
            if on_file:
                check_database(path)
            with Books(directory, self._catalogue_or_ours(), read_only=True) as books:
                applied_seq = books.ledger.head().applied_seq
        except FormatError as error:
            self._note(self._anew(str(error)))
        except sqlite3.Error as error:
            self._note(self._anew(f"{path} is damaged: {error}"))
        except Exception as error:  # whatever a server's driver can raise
            self._note(self._no_books(error, on_file))
        else:
            self._say("books", f"at seq {applied_seq:,}, {max(self._end_seq - applied_seq, 0):,} behind the log")
            if applied_seq > self._end_seq:
                self._note(self._books_ahead(applied_seq))
            return applied_seq
        self._say("books", "cannot be read")
        return 0

    def _anew(self, what: str) -> Finding:
        return Finding(
            what, "everything, if the log is whole: the books and statements are made again from it", NOTHING, "refuse",
            "set them aside; the next start makes them again, which takes as long as replaying the whole log",
            self._repair, aside=book_files(self._config.settlement_dir),
        )  # fmt: skip

    def _no_books(self, error: Exception, on_file: bool) -> Finding:
        what = f"the books cannot be opened: {error!r}"
        if on_file:
            return Finding(
                what, "what is in the database", NOTHING, "refuse", "see to what the message names", self._again
            )
        return Finding(
            what,
            "what is on the server",
            NOTHING,
            "refuse",
            "see to the server of the books, and look again",
            self._again,
        )

    def _books_ahead(self, applied_seq: int) -> Finding:
        return Finding(
            f"the books are at seq {applied_seq:,}, the log ends at {self._end_seq:,}",
            f"commands up to seq {self._end_seq:,}",
            f"without a copy of the log: the commands from seq {self._end_seq + 1:,} to {applied_seq:,}, which were"
            " acknowledged", "refuse",
            "put the log's end back from a copy; only where there is none, give up what is lost, and tell the members",
            f"cp -a BACKUP/log/. {shlex.quote(str(self._config.log_dir))}/ && {self._again}",
            f"{self._repair} --give-up-from {self._end_seq + 1}",
            loses=self._end_seq + 1, aside=book_files(self._config.settlement_dir),
        )  # fmt: skip

    # --- The rest -----------------------------------------------------------------------------------------------------

    def _catalogue_or_ours(self) -> Catalogue:
        try:
            return load_catalogue(self._config.data_dir)
        except (CatalogueError, OSError, UnicodeDecodeError):
            return Catalogue.load()

    def _catalogue(self) -> None:
        try:
            load_catalogue(self._config.data_dir)
        except (CatalogueError, OSError, UnicodeDecodeError) as error:
            path = self._config.data_dir / FILE_NAME
            self._note(_file(path, str(error), "the classes and regions that were added", "put right what it names"))

    def _limits(self) -> None:
        path = self._config.data_dir / LIMITS_NAME
        try:
            LimitsHistory(self._config.data_dir)
        except (ValueError, OSError) as error:
            self._note(
                _file(
                    path, str(error), "under which limits the log was written",
                    "put it back from a copy; only if [limits] was never changed since the first start, set it aside",
                )
            )  # fmt: skip
            return
        # Only a node writes snapshots here, and it notes its limits first; an archive of a cluster has neither.
        if any(self._config.snapshot_dir.glob("*.snapshot")) and not path.exists():
            self._note(
                Finding(
                    f"{path} is missing", "everything, if [limits] was never changed since the first start",
                    "else, without a copy: which orders were refused for limits of then",
                    "replay the log under the limits of the configuration", "put it back from a copy",
                    f"cp -a BACKUP/{LIMITS_NAME} {shlex.quote(str(self._config.data_dir))}/ && {self._again}", stops=False,
                )
            )  # fmt: skip

    def _keys(self) -> None:
        config = self._config
        try:
            if config.keys_path.exists():
                KeyStore(config.keys_path)
        except KeyStoreError as error:
            self._note(
                _file(
                    config.keys_path, str(error), "the public halves of the keys that may log on",
                    "put it back from a copy; else set it aside and make each key anew with wellhead keys create",
                )
            )  # fmt: skip
        path = config.settlement_dir / KEY_NAME
        try:
            if path.exists():
                Signer(path)
        except ValueError as error:
            self._note(
                _file(
                    path, str(error), "the key that signs delivery tickets",
                    "put it back from a copy; else set it aside: a start makes another, which does not speak for older tickets",
                    "settlement/",
                )
            )  # fmt: skip

    def _outbox(self) -> None:
        path = self._config.settlement_dir / OUTBOX_NAME
        try:
            if path.exists() and path.stat().st_size:
                check_database(path)
        except sqlite3.Error as error:
            place = shlex.quote(str(path))
            self._note(
                Finding(
                    f"{path} is damaged: {error}", "everything that is in the log and on the chains",
                    "without a copy: what was signed for chains and is under way, which is not made from the log",
                    "fail, or sign what was signed already", "put it back from the newest copy before any start",
                    f"cp -a BACKUP/settlement/{OUTBOX_NAME} {place} && {self._again}",
                )
            )  # fmt: skip


def check_database(path: Path) -> None:
    """Read all of a SQLite file. Raises sqlite3.Error for what is not as SQLite wrote it."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        said = [str(row[0]) for row in database.execute("PRAGMA quick_check(1)")]
    if said != ["ok"]:
        raise sqlite3.DatabaseError("; ".join(said[0].splitlines()))


def book_files(directory: Path) -> tuple[Path, ...]:
    """The database with what is made from it; none when it is on a server."""
    if ledger_of(directory) != SQLITE:
        return ()
    return (*sorted(directory.glob(f"{DATABASE_NAME}*")), *directory.glob(STATEMENTS_NAME))


def _unreadable(error: LogError) -> Finding:
    return Finding(
        str(error), "what is in the files", NOTHING, "refuse",
        "see to what the message names: another version wrote the log, or the disk does not give it back",
    )  # fmt: skip


def _file(path: Path, error: str, holds: str, advice: str, folder: str = "") -> Finding:
    """A small file of which there is one, and that nothing else can be made from."""
    place, back = shlex.quote(str(path)), f"{folder}{path.name}"
    return Finding(
        error if str(path) in error or path.name in error else f"{path}: {error}",
        "log, books and snapshots", f"without a copy: {holds}", "refuse", advice, f"cp -a BACKUP/{back} {place}",
        f"mv {place} {place}.damaged",
    )  # fmt: skip


def _strange(others: list[Path], data_dir: Path) -> Finding:
    owner, place = _user(data_dir.stat().st_uid), shlex.quote(str(data_dir))
    more = f", and so do {len(others) - 1} more" if len(others) > 1 else ""
    return Finding(
        f"{others[0]} belongs to {_user(others[0].stat().st_uid)}{more}, the directory to {owner}", "everything", NOTHING,
        f"be refused to {owner}, if that may not write it", "give it back", f"chown -R {owner} {place}", stops=False,
    )  # fmt: skip


def _needs(path: Path) -> int:
    return os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
