"""What `wellhead export` writes, against the events it comes from, and that notebooks read it with the right types."""

from collections import Counter
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from engine.catalogue import Catalogue
from engine.engine import Engine
from engine.log import read_log
from engine.types import EventKind
from settlement.service import Books
from tests.settlement.flow import START_NS, recorded
from tests.wellhead.directory import fill
from wellhead.cli import main
from wellhead.config import Config
from wellhead.export import SCHEMAS, ExportError, Options, export

STEPS = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    fill(directory, (), STEPS)
    return directory


@pytest.fixture(scope="module")
def out(data: Path) -> Path:
    export(data, data / "out", Options(accounts=True))
    return data / "out"


def rows(out: Path, name: str) -> list[dict]:
    return pq.read_table(out / f"{name}.parquet").to_pylist()


def test_every_file_has_its_columns_and_types(data: Path, out: Path) -> None:
    for name, schema in SCHEMAS.items():
        found = pq.read_schema(out / f"{name}.parquet")
        assert found.names[: len(schema.names)] == schema.names
        for column, kind in zip(schema.names, schema.types, strict=True):
            assert found.field(column).type == kind, column
    assert pq.read_schema(out / "trades.parquet").names[-2:] == ["taker", "maker"]


def test_trades_are_those_of_the_log(out: Path) -> None:
    events = recorded(1, STEPS).events
    trades = events[events["kind"] == EventKind.TRADE]
    found = rows(out, "trades")
    assert len(found) == len(trades) > 50
    for row, event in zip(found, trades, strict=True):
        assert row["trade_id"] == event["seq"]
        assert row["price"] == Decimal(int(event["price"])) / 1000  # a tick of a thousandth
        assert row["notional"] == Decimal(int(event["price"]) * 8_000 * int(event["qty"])) / 1_000_000
        assert (row["lots"], row["taker"], row["maker"]) == (event["qty"], event["account"], event["contra_account"])
        assert row["side"] == ("sell" if event["side"] else "buy")
        assert int(row["time"].timestamp() * 1000) == event["ts_ns"] // 1_000_000


def test_candles_are_the_trades(out: Path) -> None:
    trades, candles = rows(out, "trades"), rows(out, "candles")
    for interval, seconds in (("1m", 60), ("5m", 300), ("1h", 3600)):
        lots: Counter = Counter()
        for row in trades:
            lots[row["symbol"], int(row["time"].timestamp()) // seconds * seconds] += row["lots"]
        found: Counter = Counter()
        for row in candles:
            if row["interval"] == interval:
                found[row["symbol"], int(row["time"].timestamp())] += row["lots"]
                assert row["low"] <= min(row["open"], row["close"]) <= max(row["open"], row["close"]) <= row["high"]
        assert found == lots


def test_index_and_deliveries_are_the_books(data: Path, out: Path) -> None:
    with Books(Config(data).settlement_dir, Catalogue.load(), read_only=True) as books:
        published = books.indices.published()
        deliveries = books.database.rows("SELECT SUM(lots), COUNT(*) FROM deliveries")
    assert [row["price"] for row in rows(out, "index")] == [Decimal(one.price) / 1000 for one in published]
    found = rows(out, "deliveries")
    assert [(sum(row["lots"] for row in found), len(found))] == deliveries
    assert found and all(row["is_done"] for row in found)


def test_pictures_of_the_books_are_the_orders_then(tmp_path: Path) -> None:
    fill(tmp_path, (), STEPS, slower=1000)
    export(tmp_path, tmp_path / "out", Options(book_every_s=10, depth=1000))
    found = rows(tmp_path / "out", "books")
    times = sorted({row["time"] for row in found})
    assert len(times) > 3
    time = times[-1]
    engine, at_ns = Engine(), int(time.timestamp()) * 1_000_000_000
    for commands in read_log(tmp_path / "log"):
        engine.apply(commands[commands["ts_ns"] < at_ns])
    wanted: Counter = Counter()
    for book in engine.dump()["books"].values():
        for side, name in (("bids", "bid"), ("asks", "ask")):
            for price, orders in book[side]:
                wanted[name, Decimal(price) / 1000] += sum(order[2] for order in orders)
    seen: Counter = Counter()
    for row in found:
        if row["time"] == time:
            seen[row["side"], row["price"]] += row["lots"]
    assert seen == wanted
    assert seen and at_ns > START_NS


def test_without_accounts_nobody_is_named(data: Path, tmp_path: Path) -> None:
    export(data, tmp_path, Options())
    for name, schema in SCHEMAS.items():
        assert pq.read_schema(tmp_path / f"{name}.parquet").names == schema.names


def test_polars_reads_it(out: Path) -> None:
    trades = pl.read_parquet(out / "trades.parquet")
    assert trades.schema["price"] == pl.Decimal(18, 6)
    assert trades.schema["time"] == pl.Datetime("us", "UTC")
    assert trades.schema["lots"] == pl.Int64
    total = sum((row["notional"] for row in rows(out, "trades")), Decimal(0))
    assert trades["notional"].sum() == total


def test_pandas_reads_it(out: Path) -> None:
    trades = pd.read_parquet(out / "trades.parquet")
    assert isinstance(trades["price"].iloc[0], Decimal)
    assert str(trades["time"].dtype) == "datetime64[us, UTC]"
    assert trades["symbol"].dtype == "category"
    arrow = pd.read_parquet(out / "trades.parquet", dtype_backend="pyarrow")
    assert arrow["price"].dtype.pyarrow_dtype == pa.decimal128(18, 6)


def test_duckdb_reads_it(out: Path) -> None:
    with duckdb.connect() as database:
        kinds = {name: database.sql(f"SELECT * FROM '{out}/{name}.parquet'").types for name in SCHEMAS}
        columns = dict(zip(SCHEMAS["trades"].names, map(str, kinds["trades"]), strict=False))
        assert (columns["price"], columns["lots"], columns["symbol"]) == ("DECIMAL(18,6)", "BIGINT", "VARCHAR")
        assert columns["time"] == "TIMESTAMP WITH TIME ZONE"
        assert not {str(kind) for found in kinds.values() for kind in found} & {"BLOB", "DOUBLE", "FLOAT", "HUGEINT"}
        database.execute("SET TimeZone = 'UTC'")
        total, first = database.sql(
            f"SELECT sum(notional), min(epoch_us(time)) FROM '{out}/trades.parquet'"
        ).fetchall()[0]
        joined = database.sql(
            f"SELECT count(*) FROM '{out}/trades.parquet' WHERE symbol IN (SELECT symbol FROM '{out}/deliveries.parquet')"
        ).fetchall()[0][0]
    trades = rows(out, "trades")
    assert total == sum(row["notional"] for row in trades)
    assert first == min(int(row["time"].timestamp()) * 1_000_000 + row["time"].microsecond for row in trades)
    delivered = {row["symbol"] for row in rows(out, "deliveries")}
    assert joined == sum(row["symbol"] in delivered for row in trades) > 0


def test_the_command(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["export", str(data), str(tmp_path / "new" / "place")])
    assert result.exit_code == 0, result.output
    assert "trades.parquet" in "".join(result.output.split())
    assert not list((tmp_path / "new").rglob("*.draft"))
    (tmp_path / "none").mkdir()
    assert CliRunner().invoke(main, ["export", str(tmp_path / "none"), str(tmp_path / "x")]).exit_code == 1
    with pytest.raises(ExportError):
        export(tmp_path / "none", tmp_path / "x", Options())
