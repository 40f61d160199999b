"""Record a market: every trade and every change of the best prices, in two Parquet files, until Ctrl-C or for some seconds.

    python examples/recorder.py ws://127.0.0.1:8765 recording L4-EUC 60

Needs no key, and pyarrow: pip install 'wellhead[data]'. Prices are decimals, times UTC. What an exchange's owner has at hand
more completely is `wellhead export`.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wellhead import Client, Trade

PRICE, TIME = pa.decimal128(18, 6), pa.timestamp("us", "UTC")
TRADES = pa.schema(
    [("symbol", pa.string()), ("trade_id", pa.int64()), ("time", TIME), ("price", PRICE), ("lots", pa.int64()),
     ("side", pa.string())]
)  # fmt: skip
PRICES = pa.schema(
    [("symbol", pa.string()), ("seq", pa.int64()), ("time", TIME), ("bid", PRICE), ("bid_lots", pa.int64()), ("ask", PRICE),
     ("ask_lots", pa.int64())]
)  # fmt: skip
ROWS = 10_000


class Tape:
    """A Parquet file that grows; whole once it is closed."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema, self.rows, self.count = schema, [], 0
        self.writer = pq.ParquetWriter(path, schema, compression="zstd")

    def add(self, *row: object) -> None:
        self.rows.append(dict(zip(self.schema.names, row, strict=True)))
        self.count += 1
        if len(self.rows) >= ROWS:
            self.flush()

    def flush(self) -> None:
        self.writer.write_table(pa.Table.from_pylist(self.rows, self.schema))
        self.rows.clear()

    def close(self) -> None:
        self.flush()
        self.writer.close()


async def record_trades(trades: AsyncIterable[Trade], tape: Tape) -> None:
    async for trade in trades:
        tape.add(trade.sym, trade.tid, trade.ts, trade.px, trade.qty, trade.side)
        if tape.count == 1:
            print(f"the first trade: {trade.qty} of {trade.sym} at {trade.px}", flush=True)


async def record_prices(updates: AsyncIterable[Any], tape: Tape) -> None:
    async for best in updates:
        bid, ask = best.bid or (None, None), best.ask or (None, None)
        tape.add(best.sym, best.seq, best.ts, *bid, *ask)


async def main(url: str, out: str, market: str, seconds: str = "") -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    trades, prices = Tape(folder / "trades.parquet", TRADES), Tape(folder / "prices.parquet", PRICES)
    try:
        async with Client(url) as client:
            symbols = [one.sym for one in await client.instruments(*market.split("-"))]
            told_trades, told_prices = client.trades(*symbols), client.updates("l1", *symbols)
            await told_trades.ready()
            await told_prices.ready()
            print(f"recording {len(symbols)} hours of {market}", flush=True)
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(float(seconds) if seconds else None), asyncio.TaskGroup() as group:
                    group.create_task(record_trades(told_trades, trades))
                    group.create_task(record_prices(told_prices, prices))
    finally:
        trades.close()
        prices.close()
    print(f"{trades.count} trades and {prices.count} prices in {out}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:5]))
