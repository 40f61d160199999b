"""A data directory as Parquet files, for notebooks: instruments, trades, books, candles, index and deliveries.

The log is replayed into a fresh engine, so what comes out is what happened, to the event; no node is needed, and one
that runs is not disturbed. Index and deliveries are the books' own. Types are those a notebook wants: prices and money
are decimals of six places (dollars), times are UTC timestamps, lots are integers, names are dictionaries. No file names
an account, so all of them may be given away, unless `accounts` asks for it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.catalogue import NS, Catalogue, unpack_id
from engine.dump import levels, listed
from engine.engine import Engine
from engine.log import LogError, read_log, verify
from engine.types import LISTING, EventKind, Side
from gateway.candles import INTERVALS, Candle, Series, minutes
from settlement.index import Source
from settlement.service import Books, has_books
from wellhead.additions import load_catalogue
from wellhead.config import Config
from wellhead.limits import LimitsHistory

MONEY = pa.decimal128(18, 6)
TIME = pa.timestamp("us", "UTC")
NAME = pa.dictionary(pa.int32(), pa.string())
MICROS_OF_A_DOLLAR = 1_000_000
ROWS = 1 << 16
"""Rows that are kept before they are written."""

MARKET = [("symbol", NAME), ("gpu_class", NAME), ("region", NAME), ("start", TIME)]
SCHEMAS = {
    "instruments": pa.schema(
        [
            *MARKET, ("hours", pa.int32()), ("gpus_per_lot", pa.int32()), ("tick", MONEY), ("lot_tick", MONEY),
            ("reference_price", MONEY), ("opens", TIME), ("gate", TIME), ("taker_fee_ppm", pa.int32()),
            ("maker_rebate_ppm", pa.int32()), ("listed", TIME),
        ]
    ),
    "trades": pa.schema(
        [
            *MARKET, ("trade_id", pa.int64()), ("time", TIME), ("price", MONEY), ("lots", pa.int64()), ("side", NAME),
            ("notional", MONEY), ("fee", MONEY),
        ]
    ),
    "books": pa.schema(
        [*MARKET, ("time", TIME), ("side", NAME), ("level", pa.int32()), ("price", MONEY), ("lots", pa.int64())]
    ),
    "candles": pa.schema(
        [
            *MARKET, ("interval", NAME), ("time", TIME), ("open", MONEY), ("high", MONEY), ("low", MONEY),
            ("close", MONEY), ("lots", pa.int64()), ("trades", pa.int64()),
        ]
    ),
    "index": pa.schema(
        [
            *MARKET, ("gate", TIME), ("price", MONEY), ("source", NAME), ("prints", pa.int64()), ("owners", pa.int64()),
            ("lots", pa.int64()),
        ]
    ),
    "deliveries": pa.schema(
        [
            *MARKET, ("lots", pa.int64()), ("paid", MONEY), ("refund", MONEY), ("damages", MONEY), ("shortfall", MONEY),
            ("is_done", pa.bool_()),
        ]
    ),
}  # fmt: skip
ACCOUNTS = {"trades": ("taker", "maker"), "deliveries": ("provider", "receiver")}
"""What `accounts` adds: account numbers, as in the books."""


class ExportError(Exception):
    """There is nothing to export, or it cannot be read."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to write. `depth` levels a side; a picture of the books every `book_every_s` of market time, 0: at the end."""

    accounts: bool = False
    depth: int = 50
    book_every_s: int = 0


def schema(name: str, accounts: bool) -> pa.Schema:
    """The columns of a file."""
    extra = [pa.field(column, pa.int32()) for column in ACCOUNTS.get(name, ())] if accounts else []
    return pa.schema([*SCHEMAS[name], *extra])


class Sheet:
    """A Parquet file that grows by rows; it has its name only when it is whole."""

    def __init__(self, out: Path, name: str, accounts: bool) -> None:
        self.path = out / f"{name}.parquet"
        self.rows = 0
        self._schema = schema(name, accounts)
        self._draft = self.path.with_suffix(".draft")
        self._writer = pq.ParquetWriter(self._draft, self._schema, compression="zstd")
        self._waiting: list[tuple[Any, ...]] = []

    def add(self, row: tuple[Any, ...]) -> None:
        """A row, in the order of the columns: money in micros, times in microseconds."""
        self._waiting.append(row)
        if len(self._waiting) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            columns = zip(*self._waiting, strict=True)
            arrays = [_column(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
            self._writer.write_table(pa.table(arrays, schema=self._schema))
            self.rows += len(self._waiting)
            self._waiting.clear()

    def close(self) -> None:
        """Write what waits, and give the file its name."""
        self._flush()
        self._writer.close()
        self._draft.rename(self.path)


def _column(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    if kind == MONEY:
        return money(np.array(values, "<i8"))
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode().cast(kind)
    return pa.array(values, kind)


def money(micros: NDArray[np.int64]) -> pa.Array:
    """Micros as decimals of dollars, by their words: no float, and no Python number for each."""
    words = np.empty((len(micros), 2), "<i8")
    words[:, 0], words[:, 1] = micros, micros >> 63
    return pa.Array.from_buffers(MONEY, len(micros), [None, pa.py_buffer(words)])


@dataclass(frozen=True, slots=True)
class Terms:
    """Of a listed instrument."""

    asset: int
    symbol: str
    gpu_class: str
    region: str
    start_s: int
    tick_micros: int
    lot_tick_micros: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The columns that every file begins with."""
        return self.symbol, self.gpu_class, self.region, self.start_s * MICROS_OF_A_DOLLAR


class Exporter:
    """Follows a log through a fresh engine and writes what it sees."""

    def __init__(self, catalogue: Catalogue, engine: Engine, out: Path, options: Options) -> None:
        self._catalogue, self._engine, self._options = catalogue, engine, options
        self.sheets = {name: Sheet(out, name, options.accounts) for name in SCHEMAS}
        self._terms: dict[int, Terms] = {}  # by instrument, as it is listed now
        self.by_asset: dict[int, Terms] = {}
        self._series: dict[int, tuple[Series, ...]] = {}
        self._next_book_ns = 0

    def follow(self, commands: NDArray[np.void]) -> None:
        """Apply commands, and write what came of them. In parts, where a picture of the books is due between."""
        for part in self._parts(commands):
            events = self._engine.apply(part)
            self._take(part, events)

    def _parts(self, commands: NDArray[np.void]) -> Iterator[NDArray[np.void]]:
        """Cut where a picture of the books is due, which is then taken of what was before."""
        step_ns = self._options.book_every_s * NS
        first = 0
        if step_ns:
            times = commands["ts_ns"]
            while first < len(commands):
                if self._next_book_ns == 0:
                    self._next_book_ns = int(times[first]) // step_ns * step_ns + step_ns
                last = int(np.searchsorted(times, self._next_book_ns))
                if last > first:
                    yield commands[first:last]
                if last < len(commands):
                    self.picture(self._next_book_ns)
                    self._next_book_ns = int(times[last]) // step_ns * step_ns + step_ns
                first = last
        else:
            yield commands

    def _take(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        watched = np.isin(events["kind"], (EventKind.LISTED, EventKind.DELISTED))
        first = 0
        for at in np.flatnonzero(watched).tolist():
            self._trades(events[first:at])
            if events["kind"][at] == EventKind.LISTED:
                place = int(events["command_seq"][at]) - int(commands["seq"][0])
                self._list(commands[place : place + 1].view(LISTING)[0], int(events["ts_ns"][at]))
            else:
                self._delist(int(events["instrument"][at]))
            first = at
        self._trades(events[first:])

    def _list(self, row: np.void, ts_ns: int) -> None:
        gpu_class, region = (
            self._catalogue.class_by_id[int(row["class_id"])],
            self._catalogue.region_by_id[int(row["region_id"])],
        )
        terms = Terms(
            int(row["seq"]), unpack_id(row["symbol"]), gpu_class.name, region.name, int(row["start_s"]),
            int(row["tick_micros"]), int(row["lot_tick_micros"]),
        )  # fmt: skip
        self._terms[int(row["instrument"])] = self.by_asset[terms.asset] = terms
        self._series[int(row["instrument"])] = tuple(Series(length_s, 1 << 30) for length_s, _ in INTERVALS.values())
        self.sheets["instruments"].add(
            (
                *terms.key, int(row["hours"]), int(row["gpus_per_lot"]), terms.tick_micros, terms.lot_tick_micros,
                int(row["reference_price"]) * terms.tick_micros, int(row["open_ns"]) // 1000, int(row["gate_ns"]) // 1000,
                int(row["taker_fee_ppm"]), int(row["maker_rebate_ppm"]), ts_ns // 1000,
            )
        )  # fmt: skip

    def _delist(self, instrument: int) -> None:
        self._candles(instrument)
        del self._terms[instrument]

    def _trades(self, events: NDArray[np.void]) -> None:
        trades = events[events["kind"] == EventKind.TRADE]
        sheet, accounts = self.sheets["trades"], self._options.accounts
        columns = "instrument seq ts_ns price qty side fee_micros account contra_account".split()
        for number, seq, ts_ns, price, lots, side, fee, taker, maker in trades[columns].tolist():
            terms = self._terms[number]
            row = (
                *terms.key, seq, ts_ns // 1000, price * terms.tick_micros, lots, Side(side).name.lower(),
                price * terms.lot_tick_micros * lots, fee,
            )  # fmt: skip
            sheet.add((*row, taker, maker) if accounts else row)
        for candles, numbers in minutes(trades, trades["ts_ns"]):
            for candle, number in zip(candles, numbers, strict=True):
                for series in self._series[number]:
                    series.add(candle)

    def _candles(self, instrument: int) -> None:
        """The candles of an instrument that trades no more."""
        terms, sheet = self._terms[instrument], self.sheets["candles"]
        for name, series in zip(INTERVALS, self._series.pop(instrument), strict=True):
            for candle in series.candles:
                sheet.add((*terms.key, name.partition(".")[2], *_candle(candle, terms.tick_micros)))

    def picture(self, ts_ns: int) -> None:
        """The levels of all books as they stand."""
        memory, sheet = self._engine.memory, self.sheets["books"]
        orders = memory.arrays["levels"]
        for number in listed(memory):
            terms = self._terms[number]
            for side in Side:
                for at, (price, level) in enumerate(levels(memory, 2 * number + side)):
                    if at >= self._options.depth:
                        break
                    lots = int(orders[level]["qty"])
                    sheet.add((*terms.key, ts_ns // 1000, _SIDE[side], at + 1, price * terms.tick_micros, lots))

    def finish(self) -> None:
        """What can be written only at the end."""
        self.picture(self._engine.now_ns)
        for instrument in list(self._terms):
            self._candles(instrument)


_SIDE = {Side.BUY: "bid", Side.SELL: "ask"}


def _candle(candle: Candle, tick: int) -> tuple[int, ...]:
    prices = (candle.open * tick, candle.high * tick, candle.low * tick, candle.close * tick)
    return candle.start_s * 1_000_000, *prices, candle.lots, candle.trades


def export(
    data_dir: Path, out: Path, options: Options, progress: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Write the files of a data directory into `out`; the rows of each. Raises ExportError."""
    config, catalogue = Config(data_dir), load_catalogue(data_dir)
    if not config.log_dir.is_dir():
        raise ExportError(f"{data_dir} is not the data directory of an exchange")
    try:
        out.mkdir(parents=True, exist_ok=True)
        history = LimitsHistory(config.data_dir)
        engine = Engine(history.at(1))
        exporter = Exporter(catalogue, engine, out, options)
        head_seq = verify(config.log_dir, from_seq=1 << 62).head_seq if progress else 0
        for commands in history.lead(engine, read_log(config.log_dir)):
            exporter.follow(commands)
            if progress:
                progress(int(commands["seq"][-1]), head_seq)
        exporter.finish()
        if has_books(config.settlement_dir):
            with Books(config.settlement_dir, catalogue, read_only=True) as books, books.database.reading():
                _index(books, exporter)
                _deliveries(books, exporter, options.accounts)
        for sheet in exporter.sheets.values():
            sheet.close()
    except (LogError, OSError, ValueError) as error:
        raise ExportError(str(error)) from error
    return {name: sheet.rows for name, sheet in exporter.sheets.items()}


def _index(books: Books, exporter: Exporter) -> None:
    gates = dict(books.database.rows("SELECT asset, gate_ns FROM listings"))
    for one in books.indices.published():
        terms = exporter.by_asset.get(one.asset)
        if terms is not None:
            exporter.sheets["index"].add(
                (
                    *terms.key, gates[one.asset] // 1000, one.price * terms.tick_micros, Source(one.source).name.lower(),
                    one.prints, one.owners, one.lots,
                )
            )  # fmt: skip


def _deliveries(books: Books, exporter: Exporter, accounts: bool) -> None:
    """One row for each provider and receiver of an hour. Sums that are not known yet are zero, and `is_done` false."""
    query = (
        "SELECT asset, lots, share_micros, COALESCE(refund_micros, 0), COALESCE(damages_micros, 0),"
        " COALESCE(shortfall_micros, 0), done_seq, provider, receiver FROM deliveries ORDER BY asset, place"
    )
    for asset, *sums, done_seq, provider, receiver in books.database.rows(query):
        terms = exporter.by_asset.get(asset)
        if terms is not None:
            row = (*terms.key, *sums, done_seq is not None)
            exporter.sheets["deliveries"].add((*row, provider, receiver) if accounts else row)
