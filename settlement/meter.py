"""What a meter says of each lot and minute, and what of it is believed. Pure: no clock, no file.

A MINUTE record (112 bytes, little-endian) is one minute of one lot. The records of a lot form a chain: each carries
the hash of the one before, the first a hash of what the chain is about, so none can be changed, left out, reordered or
taken from another chain without it showing. A report is any number of records of one provider and contract:

    "wellhead meter 1" (16 bytes) | Ed25519 signature of all else (64 bytes) | records

    hash of a record = SHA-256(its 112 bytes)
    before the first = SHA-256("wellhead chain 1" | account, lot (8 bytes each) | symbol (40 bytes, NUL padded))

A minute without a record counts as down. Minutes may be left out, but never added later: a chain only goes forward. A
record that says what cannot be is kept as evidence and credited nothing.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Any, NamedTuple, Self

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from engine.catalogue import NS, pack_id, unpack_id
from engine.types import ID_WORDS
from settlement.performance import FULL_FROM_PPM, NOTHING_BELOW_PPM, PPM

MAGIC = b"wellhead meter 1"
CHAIN = b"wellhead chain 1"
SIGNATURE_BYTES = 64
HEAD_BYTES = len(MAGIC) + SIGNATURE_BYTES

MINUTE = np.dtype(
    [
        ("symbol", "<u8", (ID_WORDS,)),
        ("account", "<i4"),  # the provider
        ("lot", "<i4"),  # of the provider's lots in this contract, from 0
        ("minute", "<i4"),  # of delivery, from 0
        ("place", "<i4"),  # in the lot's chain, from 0, without gaps
        ("up", "<i4"),  # 1, or 0 for down
        ("performance_ppm", "<i4"),  # against the class's reference
        ("utilisation_ppm", "<i4"),  # mean over the minute
        ("reserved", "<i4"),  # 0
        ("energy_mj", "<i8"),  # drawn in the minute, millijoules
        ("previous", "u1", (32,)),  # hash of the record before
    ]
)
assert MINUTE.itemsize == 112

MAX_RECORDS = 20_000
"""In one report: 2.2 MB."""
MAX_PERFORMANCE_PPM = 2_000_000
MINUTE_S = 60
CLOCK_TOLERANCE_NS = 5 * NS
"""A minute may be reported so much before the exchange's clock says that it is over."""
ENERGY_MOST_PPM = 1_100_000
"""Of what the class draws for a lot: more than this cannot be."""
ENERGY_IDLE_PPM = 50_000
"""Of the same: a lot that is up draws at least this."""
ENERGY_LOADED_PPM = 250_000
"""And so much more at full utilisation, in proportion."""


class Refusal(IntEnum):
    """Why a report was not taken."""

    BAD_REPORT = 1
    NOT_METERED = 2  # the provider has no meter key
    BAD_SIGNATURE = 3
    NOT_DUE = 4  # the provider has nothing to deliver in this contract, or it is settled
    WRONG_LOT = 5
    WRONG_MINUTE = 6
    NOT_YET = 7
    LATE = 8
    REPLAYED = 9  # the record is in the chain already
    BROKEN_CHAIN = 10
    BAD_VALUE = 11


class MeterError(ValueError):
    """The report was refused and changed nothing."""

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self._message = message

    def __reduce__(self) -> tuple[type[Self], tuple[Refusal, str]]:
        """So that it can be pickled: an exception's default is to be made of its text alone."""
        return type(self), (self.code, self._message)


class Fault(IntEnum):
    """Why a minute that claims to be up is not believed."""

    NONE = 0
    TOO_MUCH_ENERGY = 1
    TOO_LITTLE_ENERGY = 2


class Sample(NamedTuple):
    """What a meter saw of one lot in one minute."""

    lot: int
    minute: int
    up: bool
    performance_ppm: int
    energy_mj: int
    utilisation_ppm: int


@dataclass(frozen=True, slots=True)
class Duty:
    """What one provider has to deliver in one contract."""

    account: int
    symbol: str
    lots: int
    minutes: int
    start_s: int
    watts_per_lot: int


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a lot's chain."""

    place: int  # of the next record
    digest: bytes
    minute: int  # of the last record, -1 for none


def chain_start(account: int, symbol: str, lot: int) -> Link:
    """The link before a lot's first record."""
    data = CHAIN + struct.pack("<2q", account, lot) + pack_id(symbol).tobytes()
    return Link(0, sha256(data).digest(), -1)


def read_report(data: bytes) -> NDArray[Any]:
    """The MINUTE records of a report, its signature not yet looked at. Raises MeterError (BAD_REPORT)."""
    size = len(data) - HEAD_BYTES
    if size <= 0 or size % MINUTE.itemsize or data[: len(MAGIC)] != MAGIC:
        raise MeterError(Refusal.BAD_REPORT, f"{len(data)} bytes are no report")
    records = np.frombuffer(data, MINUTE, offset=HEAD_BYTES)
    if len(records) > MAX_RECORDS:
        raise MeterError(Refusal.BAD_REPORT, f"{len(records)} records, at most {MAX_RECORDS} fit a report")
    for name in ("symbol", "account"):
        if (records[name] != records[name][0]).any():
            raise MeterError(Refusal.BAD_REPORT, f"records of more than one {name}")
    return records


def symbol_of(records: NDArray[Any]) -> str:
    """The contract that a report is about. Raises MeterError (BAD_REPORT) for bytes that are no text."""
    try:
        return unpack_id(records["symbol"][0])
    except UnicodeDecodeError as error:
        raise MeterError(Refusal.BAD_REPORT, "the symbol is not ASCII") from error


def check_signature(data: bytes, public_keys: Sequence[bytes]) -> None:
    """Raises MeterError (BAD_SIGNATURE) unless the holder of one of the keys signed the report."""
    signature = data[len(MAGIC) : HEAD_BYTES]
    for key in public_keys:
        try:
            return Ed25519PublicKey.from_public_bytes(key).verify(signature, MAGIC + data[HEAD_BYTES:])
        except InvalidSignature:
            continue
    raise MeterError(Refusal.BAD_SIGNATURE, "not signed by a meter key of the provider")


class Writer:
    """The meter's side: makes signed reports of the lots of one provider in one contract."""

    def __init__(self, key: Ed25519PrivateKey, account: int, symbol: str) -> None:
        self._key = key
        self._account = account
        self._symbol = symbol
        self._links: dict[int, Link] = {}

    def report(self, samples: Sequence[Sample]) -> bytes:
        """The next report. Within a lot the minutes must rise."""
        records = np.zeros(len(samples), MINUTE)
        records["symbol"], records["account"] = pack_id(self._symbol), self._account
        for at, sample in enumerate(samples):
            link = self._links.get(sample.lot) or chain_start(self._account, self._symbol, sample.lot)
            for name, value in sample._asdict().items():
                records[name][at] = value
            records["place"][at] = link.place
            records["previous"][at] = np.frombuffer(link.digest, np.uint8)
            self._links[sample.lot] = Link(link.place + 1, sha256(records[at].tobytes()).digest(), sample.minute)
        body = records.tobytes()
        return MAGIC + self._key.sign(MAGIC + body) + body

    def resume(self, reports: Sequence[bytes]) -> None:
        """Continue the chains of reports that an earlier run made, in their order."""
        for data in reports:
            for row in read_report(data):
                self._links[int(row["lot"])] = Link(
                    int(row["place"]) + 1, sha256(row.tobytes()).digest(), int(row["minute"])
                )


class Meter:
    """The exchange's side: the chains of one provider's lots in one contract, and the credit they add up to."""

    def __init__(self, public_keys: Sequence[bytes], duty: Duty) -> None:
        self._public_keys = public_keys
        self._duty = duty
        self._links: dict[int, Link] = {}
        self.reported = np.zeros((duty.lots, duty.minutes), bool)
        self.credit_ppm = np.zeros((duty.lots, duty.minutes), np.int64)
        """Millionths of each lot's minute: 0 where nothing was reported."""
        self.faults = np.zeros((duty.lots, duty.minutes), np.int64)
        """A Fault where a record was not believed."""

    @property
    def is_complete(self) -> bool:
        """Every chain has reached its end: no later record can change the credit."""
        return len(self._links) == len(self.reported) and all(
            link.minute == self.reported.shape[1] - 1 for link in self._links.values()
        )

    def check(self, data: bytes, now_ns: int | None) -> dict[int, Link]:
        """The ends of the chains after this report. Changes nothing; raises MeterError.

        Without a time nothing is too early: for reports that were taken once.
        """
        records = read_report(data)
        check_signature(data, self._public_keys)
        if int(records["account"][0]) != self._duty.account or symbol_of(records) != self._duty.symbol:
            raise MeterError(Refusal.BROKEN_CHAIN, "records of another provider or contract")
        self._check_values(records, now_ns)
        links: dict[int, Link] = {}
        for row in records:
            lot = int(row["lot"])
            link = links.get(lot) or self._links.get(lot) or chain_start(self._duty.account, self._duty.symbol, lot)
            links[lot] = _follow(link, row)
        return links

    def take(self, data: bytes, links: dict[int, Link]) -> None:
        """Count a report in, with what `check` said of it."""
        records = read_report(data)
        lot, minute = records["lot"], records["minute"]
        faults = find_faults(records, self._duty.watts_per_lot)
        self._links |= links
        self.reported[lot, minute] = True
        self.faults[lot, minute] = faults
        believed = (records["up"] == 1) & (faults == Fault.NONE)
        self.credit_ppm[lot, minute] = np.where(believed, credits_ppm(records["performance_ppm"]), 0)

    def credited_ppm(self, first_lot: int, lots: int) -> int:
        """Millionths of lot-minutes credited to some of the lots: M of the contract, times 10^6."""
        return int(self.credit_ppm[first_lot : first_lot + lots].sum())

    def _check_values(self, records: NDArray[Any], now_ns: int | None) -> None:
        lots, minutes = self.reported.shape
        _require(records, Refusal.WRONG_LOT, "lot", 0, lots - 1)
        _require(records, Refusal.WRONG_MINUTE, "minute", 0, minutes - 1)
        _require(records, Refusal.BAD_VALUE, "up", 0, 1)
        _require(records, Refusal.BAD_VALUE, "performance_ppm", 0, MAX_PERFORMANCE_PPM)
        _require(records, Refusal.BAD_VALUE, "utilisation_ppm", 0, PPM)
        _require(records, Refusal.BAD_VALUE, "reserved", 0, 0)
        _require(records, Refusal.BAD_VALUE, "energy_mj", 0, 2**48)
        last = int(records["minute"].max())
        over_ns = (self._duty.start_s + (last + 1) * MINUTE_S) * NS
        if now_ns is not None and over_ns > now_ns + CLOCK_TOLERANCE_NS:
            raise MeterError(Refusal.NOT_YET, f"minute {last} is not over")


def _require(records: NDArray[Any], code: Refusal, name: str, least: int, most: int) -> None:
    column = records[name]
    wrong = (column < least) | (column > most)
    if wrong.any():
        raise MeterError(code, f"{name} {column[np.argmax(wrong)]} is not within {least} and {most}")


def _follow(link: Link, row: Any) -> Link:
    """The link after a record. Raises MeterError where it does not continue the chain."""
    lot, place, minute = int(row["lot"]), int(row["place"]), int(row["minute"])
    if place < link.place:
        raise MeterError(Refusal.REPLAYED, f"record {place} of lot {lot} was reported before")
    if place != link.place or row["previous"].tobytes() != link.digest:
        raise MeterError(Refusal.BROKEN_CHAIN, f"record {place} of lot {lot} does not follow record {link.place - 1}")
    if minute <= link.minute:
        raise MeterError(Refusal.BROKEN_CHAIN, f"lot {lot}: minute {minute} after minute {link.minute}")
    return Link(place + 1, sha256(row.tobytes()).digest(), minute)


def credits_ppm(performance_ppm: NDArray[Any]) -> NDArray[np.int64]:
    """`performance.credit_ppm` of a column."""
    column = performance_ppm.astype(np.int64)
    return np.where(column >= FULL_FROM_PPM, PPM, np.where(column >= NOTHING_BELOW_PPM, column, 0))


def find_faults(records: NDArray[Any], watts_per_lot: int) -> NDArray[np.int64]:
    """A Fault for each record that claims to be up with an energy that the hardware cannot have drawn."""
    full_mj = watts_per_lot * MINUTE_S * 1_000
    energy, up = records["energy_mj"], records["up"] == 1
    load_ppm = ENERGY_IDLE_PPM + records["utilisation_ppm"].astype(np.int64) * ENERGY_LOADED_PPM // PPM
    faults = np.zeros(len(records), np.int64)
    faults[up & (energy < full_mj * load_ppm // PPM)] = Fault.TOO_LITTLE_ENERGY
    faults[up & (energy > full_mj * ENERGY_MOST_PPM // PPM)] = Fault.TOO_MUCH_ENERGY
    return faults
