"""What has a name: the accounts that were opened and the contracts that were listed, by their numbers.

An instrument's number is free again after DELIST, so a listing is known by the log sequence of its LIST command: that
is its asset number in the ledger. `resolve` says, for each event, which listing its instrument stood for at that
moment.
"""

from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import NS, unpack_id
from engine.types import LISTING, TRANSFER, EventKind
from settlement.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS members (
    account INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    opened_seq INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS listings (
    asset INTEGER PRIMARY KEY,
    instrument INTEGER NOT NULL,
    symbol TEXT NOT NULL,
    lot_tick_micros INTEGER NOT NULL,
    minutes INTEGER NOT NULL,
    class_id INTEGER NOT NULL,
    region_id INTEGER NOT NULL,
    start_s INTEGER NOT NULL,
    gate_ns INTEGER NOT NULL,
    reference_price INTEGER NOT NULL,
    delisted_seq INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS listed ON listings (instrument) WHERE delisted_seq IS NULL
"""


@dataclass(frozen=True, slots=True)
class Listing:
    """A contract from LIST to DELIST."""

    asset: int  # the log sequence of its LIST command
    instrument: int
    symbol: str
    lot_tick_micros: int
    minutes: int  # of delivery
    class_id: int
    region_id: int
    start_s: int  # of delivery
    gate_ns: int
    reference_price: int

    @property
    def end_ns(self) -> int:
        """The end of delivery."""
        return (self.start_s + self.minutes * 60) * NS


class Terms(NamedTuple):
    """Of each event: the listing its instrument stood for, and the listing's lot tick. Zeros where there is none."""

    asset: NDArray[np.int64]
    lot_tick_micros: NDArray[np.int64]


class Registry:
    """Names and numbers, in memory and in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listed: dict[int, Listing] = {}
        self._asset = np.zeros(1, np.int64)
        self._lot_tick = np.zeros(1, np.int64)

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)

    def load(self) -> None:
        """Read the open listings from the database."""
        rows = self._database.rows("SELECT * FROM listings WHERE delisted_seq IS NULL")
        self._listed = {row[1]: Listing(*row[:-1]) for row in rows}
        self._asset[:] = self._lot_tick[:] = 0
        for listing in self._listed.values():
            self._set(listing.instrument, listing.asset, listing.lot_tick_micros)

    def on_batch(self, commands: NDArray[Any], events: NDArray[Any]) -> Terms:
        """Take in what was opened, listed and delisted; return each event's terms."""
        if not len(events):
            return Terms(np.zeros(0, np.int64), np.zeros(0, np.int64))
        kind, instrument = events["kind"], events["instrument"]
        self._grow(int(instrument.max()))
        # A rejected command may name any number.
        known = np.where(instrument > 0, instrument, 0)
        terms = Terms(self._asset[known], self._lot_tick[known])
        for at in np.flatnonzero(kind == EventKind.LISTED).tolist():
            listing = _read_listing(_command_of(commands, events[at]))
            self._list(listing)
            later = np.flatnonzero(instrument[at:] == listing.instrument) + at
            terms.asset[later] = listing.asset
            terms.lot_tick_micros[later] = listing.lot_tick_micros
        self._delist(events[kind == EventKind.DELISTED], terms.asset[kind == EventKind.DELISTED])
        self._open_accounts(commands, events[kind == EventKind.ACCOUNT_OPENED])
        return terms

    def _list(self, listing: Listing) -> None:
        self._listed[listing.instrument] = listing
        self._set(listing.instrument, listing.asset, listing.lot_tick_micros)
        self._database.execute("INSERT INTO listings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", astuple(listing))

    def _delist(self, events: NDArray[Any], assets: NDArray[np.int64]) -> None:
        for event, asset in zip(events, assets.tolist(), strict=True):
            instrument = int(event["instrument"])
            self._database.execute(
                "UPDATE listings SET delisted_seq = ? WHERE asset = ?", (int(event["command_seq"]), asset)
            )
            # The number may have been listed again in this very batch.
            if self._listed[instrument].asset == asset:
                del self._listed[instrument]
                self._set(instrument, 0, 0)

    def _open_accounts(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        for event in events:
            command = _command_of(commands, event).view(TRANSFER)[0]
            row = (int(event["account"]), unpack_id(command["external_id"]), int(event["command_seq"]))
            self._database.execute("INSERT INTO members VALUES (?, ?, ?)", row)

    def _set(self, instrument: int, asset: int, lot_tick_micros: int) -> None:
        self._grow(instrument)
        self._asset[instrument] = asset
        self._lot_tick[instrument] = lot_tick_micros

    def _grow(self, instrument: int) -> None:
        missing = instrument + 1 - len(self._asset)
        if missing > 0:
            more = np.zeros(max(missing, len(self._asset)), np.int64)
            self._asset = np.concatenate([self._asset, more])
            self._lot_tick = np.concatenate([self._lot_tick, more])

    def listed(self) -> list[Listing]:
        """What is listed now. Any thread."""
        return list(self._listed.values())

    def names(self, at_seq: int | None = None) -> dict[int, str]:
        """Account numbers and names, of those opened up to a command."""
        limit = 2**63 - 1 if at_seq is None else at_seq
        return dict(
            self._database.rows("SELECT account, name FROM members WHERE opened_seq <= ? ORDER BY account", (limit,))
        )

    def listing_of(self, asset: int) -> Listing:
        """A listing, also one that is gone. Raises KeyError for a number that never was one."""
        row = self._database.one("SELECT * FROM listings WHERE asset = ?", (asset,))
        if row is None:
            raise KeyError(asset)
        return Listing(*row[:-1])

    def listed_at(self, seq: int) -> dict[int, int]:
        """Instrument -> asset of what was listed after a command."""
        query = "SELECT instrument, asset FROM listings WHERE asset <= ? AND (delisted_seq IS NULL OR delisted_seq > ?)"
        return dict(self._database.rows(query, (seq, seq)))

    def symbols(self) -> dict[int, str]:
        """Asset numbers and symbols of every listing there ever was."""
        return dict(self._database.rows("SELECT asset, symbol FROM listings"))


def _command_of(commands: NDArray[Any], event: Any) -> NDArray[Any]:
    """The command of an event, as an array of one. Sequences in a batch have no gaps."""
    at = int(event["command_seq"]) - int(commands["seq"][0])
    return commands[at : at + 1]


def _read_listing(command: NDArray[Any]) -> Listing:
    row = command.view(LISTING)[0]
    hours = int(row["hours"])
    return Listing(
        asset=int(row["seq"]),
        instrument=int(row["instrument"]),
        symbol=unpack_id(row["symbol"]),
        lot_tick_micros=int(row["lot_tick_micros"]),
        minutes=hours * 60,
        class_id=int(row["class_id"]),
        region_id=int(row["region_id"]),
        start_s=int(row["start_s"]),
        gate_ns=int(row["gate_ns"]),
        reference_price=int(row["reference_price"]),
    )
