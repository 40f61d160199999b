"""Which providers are metered, and the reports that were taken: the evidence, kept as it was signed.

    meters.json                                  {"deadline_s": 900, "meters": {"7": ["<public key, hex>", ...]}}
    meter/<listing>/<provider>.reports           each report as 4 bytes of length (little-endian) and its bytes

A provider with a key here is paid by what its meter says; any other performs fully. The file is looked at again when it
has changed. Reports are not in the log: what they led to is, as DELIVER commands. Anyone with the public key can check
the evidence again: `wellhead verify` does.
"""

import os
import struct
from pathlib import Path

import msgspec

from settlement.meter import Duty, Meter, MeterError
from settlement.registry import Listing

CONFIG_NAME = "meters.json"
REPORTS_NAME = "meter"
DEADLINE_S = 900
KEY_BYTES = 32


class MeteringError(RuntimeError):
    """A file of the metering is damaged; the message names it."""


class MeteringConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The content of `meters.json`."""

    deadline_s: int = DEADLINE_S
    """After the end of delivery; minutes that are not reported by then count as down."""
    meters: dict[int, list[str]] = {}
    """Account number -> public Ed25519 keys, hex. Any of them signs; one is added to change it."""


class Metering:
    """The files of one settlement directory. The caller sees to it that one thread uses it at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: tuple[int, int] | None = None
        self._config = MeteringConfig()
        self._keys: dict[int, tuple[bytes, ...]] = {}

    @property
    def config_path(self) -> Path:
        return self._directory / CONFIG_NAME

    @property
    def deadline_s(self) -> int:
        self._look()
        return self._config.deadline_s

    def keys_of(self, account: int) -> tuple[bytes, ...]:
        """The public keys of a provider's meters; none: it is not metered. Raises MeteringError."""
        self._look()
        return self._keys.get(account, ())

    def register(self, account: int, public_key: bytes) -> None:
        """From now on this provider is metered. Raises ValueError for what is no key."""
        if account < 1 or len(public_key) != KEY_BYTES:
            raise ValueError(f"account {account} with a key of {len(public_key)} bytes; a public key has {KEY_BYTES}")
        self._look()
        keys = dict.fromkeys([*self._config.meters.get(account, []), public_key.hex()])
        meters = {**self._config.meters, account: list(keys)}
        data = msgspec.json.format(msgspec.json.encode(MeteringConfig(self._config.deadline_s, meters)), indent=1)
        draft = self.config_path.with_suffix(".draft")
        self._directory.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data + b"\n")
        draft.rename(self.config_path)

    def _look(self) -> None:
        try:
            status = self.config_path.stat()
        except FileNotFoundError:
            self._seen, self._config, self._keys = None, MeteringConfig(), {}
            return
        seen = (status.st_mtime_ns, status.st_ino)
        if seen == self._seen:
            return
        try:
            config = msgspec.json.decode(self.config_path.read_bytes(), type=MeteringConfig)
            keys = {account: tuple(map(bytes.fromhex, texts)) for account, texts in config.meters.items()}
        except (msgspec.DecodeError, ValueError) as error:
            raise MeteringError(f"{self.config_path}: {error}") from error
        if config.deadline_s < 0 or any(len(key) != KEY_BYTES for row in keys.values() for key in row):
            raise MeteringError(f"{self.config_path}: a deadline is not below zero, a key has {KEY_BYTES} bytes")
        self._seen, self._config, self._keys = seen, config, keys

    def reports_path(self, asset: int, account: int) -> Path:
        return self._directory / REPORTS_NAME / str(asset) / f"{account}.reports"

    def open(self, listing: Listing, account: int, lots: int, watts_per_lot: int) -> Meter:
        """A meter as far as its stored reports lead. Raises MeteringError when these do not check."""
        duty = Duty(account, listing.symbol, lots, listing.minutes, listing.start_s, watts_per_lot)
        meter = Meter(self.keys_of(account), duty)
        path = self.reports_path(listing.asset, account)
        try:
            for data in read_reports(path):
                meter.take(data, meter.check(data, None))
        except MeterError as error:
            raise MeteringError(f"{path}: {error}") from error
        return meter

    def store(self, asset: int, account: int, data: bytes) -> None:
        """Append a report, durable when this returns."""
        path = self.reports_path(asset, account)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = whole_bytes(path)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.truncate(handle, whole)  # what a crash left behind the last whole report
            os.pwrite(handle, struct.pack("<I", len(data)) + data, whole)
            os.fsync(handle)
        finally:
            os.close(handle)


def read_reports(path: Path) -> list[bytes]:
    """The whole reports of a file, in their order; a torn last one was never acknowledged and is left out."""
    return [data for data, _ in _frames(path)]


def whole_bytes(path: Path) -> int:
    """Where the last whole report of a file ends."""
    return max((end for _, end in _frames(path)), default=0)


def _frames(path: Path) -> list[tuple[bytes, int]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    frames, at = [], 0
    while at + 4 <= len(content):
        end = at + 4 + int(struct.unpack_from("<I", content, at)[0])
        if end > len(content):
            break
        frames.append((content[at + 4 : end], end))
        at = end
    return frames
