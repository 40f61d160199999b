"""What a node does and what its data directory holds, read from outside: neither is disturbed, nothing is written."""

import contextlib
import fcntl
import os
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from engine.log import LogError, segment_paths, verify
from gateway.auth import KeyStore, KeyStoreError
from settlement.database import FormatError
from settlement.deposits import DepositState
from settlement.outbox import TxState
from settlement.service import OUTBOX_NAME, Books, has_books, ledger_of
from wellhead.additions import load_catalogue
from wellhead.config import Config

TIMEOUT_S = 5.0
METRICS = {
    "wellhead_commands_total": "commands since the start",
    "wellhead_trades_total": "trades since the start",
    "wellhead_messages_total": "messages since the start",
    "wellhead_topics": "topics held",
    "wellhead_buffered_bytes": "bytes not taken by clients",
    "process_resident_memory_bytes": "bytes of memory",
}
"""What of `/metrics` is worth a line; the rest is for Prometheus."""


class Fact(NamedTuple):
    """A line of the report: whose, what, how much; `is_bad` when somebody should look."""

    part: str
    name: str
    value: str
    is_bad: bool = False


def status(data_dir: Path, url: str, now_s: float | None = None) -> list[Fact]:
    """Everything about a node and its directory; either may be missing, and is then said to be."""
    config, now_s = Config(data_dir), time.time() if now_s is None else now_s
    is_open = is_locked(config.log_dir)
    facts = [*node_facts(url, is_open)]
    if not config.log_dir.is_dir():
        return [*facts, Fact("data", "directory", f"{data_dir} is not the data directory of an exchange", True)]
    head_seq, log = log_facts(config, is_open)
    return [*facts, *log, *snapshot_facts(config, head_seq, now_s), *books_facts(config, head_seq), *key_facts(config)]


def is_locked(log_dir: Path) -> bool:
    """Whether a node, or a tool that writes, has the log open."""
    try:
        handle = os.open(log_dir / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _get(url: str) -> tuple[int, bytes]:
    """The status and body of a page; 0 and the reason when nobody answers."""
    if not url.startswith(("http://", "https://")):
        return 0, b"the address is not http:// or https://"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:  # noqa: S310 - the scheme was looked at
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, ValueError) as error:
        return 0, str(error).encode()


def node_facts(url: str, is_open: bool) -> Iterator[Fact]:
    """What the node at an address says of itself."""
    code, body = _get(f"{url}/healthz")
    if code != 200:
        why = body.decode("utf-8", "replace").strip() if code == 0 else f"HTTP {code}"
        yield Fact("node", "answers", f"no: {url}: {why}", is_open)
        return
    health: dict[str, Any] = msgspec.json.decode(body)
    yield Fact("node", "answers", f"{url} is {health.pop('status')}")
    code, body = _get(f"{url}/readyz")
    yield Fact(
        "node", "ready", "yes" if code == 200 else msgspec.json.decode(body).get("why", f"HTTP {code}"), code != 200
    )
    for name, value in health.items():
        yield Fact("node", name.replace("_", " "), moment(value / 1e6) if name == "market_ts" else f"{value:,}")
    code, body = _get(f"{url}/metrics")
    if code != 200:
        yield Fact("node", "metrics", "not shown to this address (see `metrics_from`)")
        return
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if sample.name in METRICS:
                yield Fact("node", METRICS[sample.name], f"{int(sample.value):,}")


def log_facts(config: Config, is_open: bool) -> tuple[int, list[Fact]]:
    """The last seq, and the facts; only the last segment is read."""
    paths = segment_paths(config.log_dir)
    size = sum(path.stat().st_size for path in paths)
    facts = [
        Fact("log", "open for writing", "yes" if is_open else "no"),
        Fact("log", "size", f"{len(paths)} segments, {size:,} bytes"),
    ]
    try:
        report = verify(config.log_dir, from_seq=int(paths[-1].stem) if paths else 1)
    except LogError as error:
        return 0, [*facts, Fact("log", "readable", str(error), True)]
    facts.append(Fact("log", "last seq", f"{report.head_seq:,}, durable up to {report.durable_seq or 0:,}"))
    if report.damage is not None:
        facts.append(Fact("log", "damage", f"{report.damage}; `wellhead doctor` explains", True))
    if report.torn_bytes and not is_open:
        facts.append(Fact("log", "torn tail", f"{report.torn_bytes:,} bytes, never acknowledged; a start cuts them"))
    return report.head_seq, facts


def snapshot_facts(config: Config, head_seq: int, now_s: float) -> Iterator[Fact]:
    """The newest snapshot, by its name and time."""
    found = sorted(config.snapshot_dir.glob("*.snapshot"))
    if not found:
        yield Fact("snapshots", "newest", "none: a start replays the whole log")
        return
    seq, age_s = int(found[-1].stem), now_s - found[-1].stat().st_mtime
    yield Fact("snapshots", "newest", f"at seq {seq:,}, {age(age_s)} old, {found[-1].stat().st_size:,} bytes")
    yield Fact("snapshots", "behind it", f"{max(0, head_seq - seq):,} commands would be replayed")


def books_facts(config: Config, head_seq: int) -> Iterator[Fact]:
    """How far the books are, the newest cycle, what is to be delivered, and custody."""
    directory = config.settlement_dir
    if not has_books(directory):
        yield Fact("books", "there", "no")
        return
    try:
        with Books(directory, load_catalogue(config.data_dir), read_only=True) as books, books.database.reading():
            applied_seq, batches, open_deliveries = (
                books.ledger.head().applied_seq,
                books.batches.all(),
                books.deliveries.open(),
            )
    except (FormatError, OSError, sqlite3.Error) as error:
        yield Fact("books", "readable", str(error), True)
        return
    yield Fact("books", "where", ledger_of(directory).partition("://")[0])
    lag = head_seq - applied_seq
    yield Fact("books", "applied seq", f"{applied_seq:,}, {max(lag, 0):,} behind the log", lag < 0)
    if batches:
        last = batches[-1]
        yield Fact(
            "settlement", "newest cycle", f"{last.cycle}, {last.state.name.lower()}, ends with seq {last.to_seq:,}"
        )
        late = [str(batch.cycle) for batch in batches[:-1] if batch.state.name in ("OPEN", "NETTED", "FAILED")]
        if late:
            yield Fact("settlement", "not frozen", f"cycles {', '.join(late)}", True)
    else:
        yield Fact("settlement", "newest cycle", "none has ended yet")
    lots = sum(delivery.lots for _, delivery in open_deliveries)
    yield Fact("settlement", "to be delivered", f"{lots:,} lots in {len(open_deliveries):,} deliveries")
    yield from custody_facts(directory)


def custody_facts(directory: Path) -> Iterator[Fact]:
    """Halts and transactions under way, where the exchange keeps coins on chains."""
    path = directory / OUTBOX_NAME
    if not path.exists():
        yield Fact("custody", "on chain", "no")
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            halts = [str(row[0]) for row in database.execute("SELECT reason FROM halts WHERE cleared_s IS NULL")]
            final = (TxState.FINAL.value,)
            waiting = database.execute("SELECT COUNT(*) FROM transactions WHERE state < ?", final).fetchone()[0]
            held = database.execute(
                "SELECT COUNT(*) FROM deposits WHERE state = ?", (DepositState.HELD.value,)
            ).fetchone()[0]
    except sqlite3.Error as error:
        yield Fact("custody", "readable", str(error), True)
        return
    yield Fact("custody", "transactions under way", f"{waiting:,}")
    yield Fact("custody", "deposits held", f"{held:,}", held > 0)
    for reason in halts:
        yield Fact("custody", "halted", reason, True)
    if not halts:
        yield Fact("custody", "halted", "no")


def key_facts(config: Config) -> Iterator[Fact]:
    """How many keys there are."""
    try:
        keys = list(KeyStore(config.keys_path).keys())
    except (KeyStoreError, OSError) as error:
        yield Fact("keys", "readable", str(error), True)
        return
    yield Fact("keys", "known", f"{len(keys):,} of {len({key.account for key in keys}):,} accounts")


def age(seconds: float) -> str:
    """A span of time in its largest unit."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


def moment(seconds: float) -> str:
    """A time of the market, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds)) if seconds else "none yet"
