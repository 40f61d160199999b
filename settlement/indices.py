"""The index of each hour, worked out when its gate closes and kept with every print that did not count.

A pure function of the log: the prints of open windows are stored with `applied_seq`, a block for each batch, so that a
restart in the middle of a window loses none.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import EventKind
from settlement.database import Database
from settlement.index import PRINT, WINDOW_NS, Exclusion, Index, Source, hour_index
from settlement.registry import Listing, Registry, Terms

SCHEMA = """
CREATE TABLE IF NOT EXISTS prints (
    seq INTEGER PRIMARY KEY,
    until_ns INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS indices (
    asset INTEGER PRIMARY KEY,
    closed_seq INTEGER NOT NULL,
    class_id INTEGER NOT NULL,
    region_id INTEGER NOT NULL,
    start_s INTEGER NOT NULL,
    price INTEGER NOT NULL,
    source INTEGER NOT NULL,
    prints INTEGER NOT NULL,
    owners INTEGER NOT NULL,
    lots INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS indices_market ON indices (class_id, region_id, start_s);
CREATE TABLE IF NOT EXISTS index_exclusions (
    asset INTEGER NOT NULL,
    event_seq INTEGER NOT NULL,
    price INTEGER NOT NULL,
    lots INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    PRIMARY KEY (asset, event_seq)
) STRICT, WITHOUT ROWID
"""

KEEP_NS = 24 * WINDOW_NS
"""Blocks of prints go so long after the last gate they are for; by then it has closed."""


@dataclass(frozen=True, slots=True)
class Published:
    """The index of one hour, as the `index` channel shows it. The price is in ticks."""

    asset: int
    symbol: str
    class_id: int
    region_id: int
    start_s: int
    price: int
    source: Source
    prints: int
    owners: int
    lots: int


class Indices:
    """Collects prints, and makes an index at each gate. Belongs to the thread that writes the books."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._registry = registry
        self._blocks: list[NDArray[Any]] = []
        self._gate_ns: dict[int, int] = {}  # by asset, of listings met so far

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)

    def load(self) -> None:
        """Read the prints of windows that are still open from the database."""
        self._gate_ns = {}
        blocks = [np.frombuffer(row[0], PRINT) for row in self._database.rows("SELECT data FROM prints ORDER BY seq")]
        closed = [row[0] for row in self._database.rows("SELECT asset FROM indices")]
        self._blocks = [block[~np.isin(block["asset"], closed)] for block in blocks]

    def on_batch(self, events: NDArray[Any], terms: Terms) -> None:
        """Take in the trades of a batch and close the windows of its gates. In the caller's transaction."""
        gates = np.flatnonzero(events["kind"] == EventKind.CLOSED).tolist()
        self._collect(events, terms)
        for at in gates:
            self._close(self._registry.listing_of(int(terms.asset[at])), int(events["command_seq"][at]))
        if gates:
            self._database.execute("DELETE FROM prints WHERE until_ns < ?", (int(events["ts_ns"][-1]) - KEEP_NS,))

    def _collect(self, events: NDArray[Any], terms: Terms) -> None:
        rows = np.flatnonzero(events["kind"] == EventKind.TRADE)
        if not len(rows):
            return
        assets, which = np.unique(terms.asset[rows], return_inverse=True)
        gates = np.array([self._gate(asset) for asset in assets.tolist()])[which]
        keep = events["ts_ns"][rows] >= gates - WINDOW_NS
        rows = rows[keep]
        if not len(rows):
            return
        block = np.zeros(len(rows), PRINT)
        block["asset"] = terms.asset[rows]
        for name, source in _PRINT_FIELDS:
            block[name] = events[source][rows]
        self._blocks.append(block)
        until_ns = int(gates[keep].max())
        self._database.execute("INSERT INTO prints VALUES (?, ?, ?)", (int(block["seq"][0]), until_ns, block.tobytes()))

    def _gate(self, asset: int) -> int:
        if asset not in self._gate_ns:
            self._gate_ns[asset] = self._registry.listing_of(asset).gate_ns
        return self._gate_ns[asset]

    def _close(self, listing: Listing, seq: int) -> None:
        prints = np.concatenate(
            [np.zeros(0, PRINT), *(block[block["asset"] == listing.asset] for block in self._blocks)]
        )
        left = (block[block["asset"] != listing.asset] for block in self._blocks)
        self._blocks = [block for block in left if len(block)]
        self._gate_ns.pop(listing.asset, None)
        index = hour_index(prints, listing.gate_ns, self._previous(listing), listing.reference_price)
        self._store(listing, seq, index, prints)

    def _previous(self, listing: Listing) -> int | None:
        row = self._database.one(
            "SELECT price FROM indices WHERE class_id = ? AND region_id = ? AND start_s = ? AND source = ?",
            (listing.class_id, listing.region_id, listing.start_s - listing.minutes * 60, Source.PRINTS),
        )
        return None if row is None else int(row[0])

    def _store(self, listing: Listing, seq: int, index: Index, prints: NDArray[Any]) -> None:
        found = (index.price, index.source, index.prints, index.owners, index.lots)
        market = (listing.class_id, listing.region_id, listing.start_s)
        self._database.execute(
            "INSERT INTO indices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (listing.asset, seq, *market, *found)
        )
        window = prints[(prints["ts_ns"] >= listing.gate_ns - WINDOW_NS) & (prints["ts_ns"] < listing.gate_ns)]
        out = np.flatnonzero(index.exclusions != Exclusion.NONE)
        columns = [window[name][out].tolist() for name in ("seq", "price", "lots", "taker")]
        reasons = index.exclusions[out].tolist()
        self._database.execute_many(
            "INSERT INTO index_exclusions VALUES (?, ?, ?, ?, ?, ?)",
            [(listing.asset, *row) for row in zip(*columns, reasons, strict=True)],
        )

    def price_of(self, asset: int) -> int:
        """The index of a closed listing, in ticks. Raises KeyError when its gate has not closed."""
        row = self._database.one("SELECT price FROM indices WHERE asset = ?", (asset,))
        if row is None:
            raise KeyError(asset)
        return int(row[0])

    def published(self, after_seq: int = 0, only_listed: bool = False, from_s: int = 0) -> list[Published]:
        """The indices of the gates that closed after a command, in their order.

        `only_listed`: of what is not gone; `from_s`: of the hours that begin then or later.
        """
        rows = self._database.rows(
            "SELECT asset, symbol, indices.class_id, indices.region_id, indices.start_s, price, source, prints, owners, lots"
            " FROM indices JOIN listings USING (asset)"
            " WHERE closed_seq > ? AND (? = 0 OR delisted_seq IS NULL) AND indices.start_s >= ? ORDER BY closed_seq",
            (after_seq, int(only_listed), from_s),
        )
        return [
            Published(asset, symbol, class_id, region_id, start_s, price, Source(source), prints, owners, lots)
            for asset, symbol, class_id, region_id, start_s, price, source, prints, owners, lots in rows
        ]

    def exclusions(self, asset: int) -> list[tuple[int, int, int, int, Exclusion]]:
        """(event seq, price, lots, owner, why) of each print that did not count, or not in full."""
        query = "SELECT event_seq, price, lots, owner, reason FROM index_exclusions WHERE asset = ? ORDER BY event_seq"
        return [(*row[:4], Exclusion(row[4])) for row in self._database.rows(query, (asset,))]


_PRINT_FIELDS = (
    ("seq", "seq"),
    ("ts_ns", "ts_ns"),
    ("price", "price"),
    ("lots", "qty"),
    ("taker", "account"),
    ("maker", "contra_account"),
)
