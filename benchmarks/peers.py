"""Order books from package indexes, on the beginning of a flow: what others reach on the same machine in the same run.

They match one book and clear nothing. Each gets the adds, cancels, market and IOC orders it knows how to take; what it does not
know (amends) it is spared. A peer that is not installed is named, not skipped in silence:

    pip install lightmatchingengine order-matching polars pandera
    npm install --prefix DIRECTORY nodejs-order-book        and then WELLHEAD_NODE_PEERS=DIRECTORY
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ADD, CANCEL, MARKET, IOC = 0, 1, 4, 5
SIDES = ("buy", "sell")
Result = tuple[int, int, float]
"""Commands done, trades, seconds."""


def lightmatchingengine(rows: NDArray[np.int64]) -> Result:
    """A C++ book behind Python (PyPI): adds and cancels."""
    from lightmatchingengine.lightmatchingengine import LightMatchingEngine

    engine, orders, trades, done = LightMatchingEngine(), {}, 0, 0
    started = time.perf_counter()
    for op, flow_id, side, price, qty in rows.tolist():
        if op == ADD:
            orders[flow_id], filled = engine.add_order("A", price, qty, side + 1)
            trades += len(filled)
        elif op == CANCEL and flow_id in orders:
            with contextlib.suppress(AssertionError):  # how it refuses an order that was filled meanwhile
                engine.cancel_order(orders[flow_id].order_id, "A")
        else:
            continue
        done += 1
    return done, trades, time.perf_counter() - started


def order_matching(rows: NDArray[np.int64]) -> Result:
    """A Python book for simulations (PyPI): limit and market orders, one matching step each."""
    from loguru import logger
    from order_matching.enums import Side
    from order_matching.matching_engine import MatchingEngine
    from order_matching.order import LimitOrder, MarketOrder
    from order_matching.orders import Orders

    logger.disable("order_matching")
    rows = rows[:1_000]  # its cost grows with the book
    engine, trades, done, now = MatchingEngine(seed=1), 0, 0, datetime(2026, 1, 1)
    started = time.perf_counter()
    for op, flow_id, side, price, qty in rows.tolist():
        common = {
            "side": Side.SELL if side else Side.BUY,
            "size": float(qty),
            "timestamp": now,
            "order_id": str(flow_id),
            "trader_id": "x",
        }
        if op == ADD:
            order: Any = LimitOrder(price=float(price), **common)
        elif op == MARKET:
            order = MarketOrder(**common)
        else:
            continue
        engine.place(Orders([order]))
        trades += len(engine.match(timestamp=now).trades)
        now += timedelta(microseconds=1)
        done += 1
    return done, trades, time.perf_counter() - started


_NODE = """
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
const { OrderBook } = createRequire(process.argv[2] + '/')('nodejs-order-book');
const words = new BigInt64Array(readFileSync(process.argv[3]).buffer.slice(0));
const rows = [];
for (let at = 0; at < words.length; at += 5) rows.push(Array.from(words.slice(at, at + 5), Number));
const book = new OrderBook(), sides = ['buy', 'sell'];
let done = 0, trades = 0;
const count = (result) => { done += 1; trades += result.done.length + (result.partial ? 1 : 0) > 1 ? 1 : 0; };
const started = process.hrtime.bigint();
for (const [op, id, side, price, size] of rows) {
  if (op === 0) count(book.limit({ id: String(id), side: sides[side], size, price }));
  else if (op === 1) { book.cancel(String(id)); done += 1; }
  else if (op === 4) count(book.market({ side: sides[side], size }));
  else if (op === 5) count(book.limit({ id: String(id), side: sides[side], size, price, timeInForce: 'IOC' }));
}
console.log(JSON.stringify([done, trades, Number(process.hrtime.bigint() - started) / 1e9]));
"""


def nodejs_order_book(rows: NDArray[np.int64]) -> Result:
    """A JavaScript book (npm): limit, market and IOC orders, cancels. `trades`: orders that traded."""
    home, node = os.environ.get("WELLHEAD_NODE_PEERS"), shutil.which("node")
    if not home or not node or not (Path(home) / "node_modules" / "nodejs-order-book").is_dir():
        raise ImportError("nodejs-order-book")
    with tempfile.TemporaryDirectory() as folder:
        script, flow = Path(folder) / "peer.mjs", Path(folder) / "flow"
        script.write_text(_NODE, encoding="utf-8")
        flow.write_bytes(np.ascontiguousarray(rows).tobytes())
        command = [node, str(script), str(Path(home).resolve()), str(flow)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    done, trades, seconds = json.loads(answer)
    return done, trades, seconds


PEERS: dict[str, tuple[Callable[[NDArray[np.int64]], Result], str]] = {
    "lightmatchingengine": (lightmatchingengine, "PyPI"),
    "order-matching": (order_matching, "PyPI"),
    "nodejs-order-book": (nodejs_order_book, "npm"),
}


def peers(rows: NDArray[np.int64], commands: int = 20_000) -> list[dict[str, Any]]:
    """Each peer's speed on the first commands of a flow, or that it is not installed."""
    results: list[dict[str, Any]] = []
    for name, (run, registry) in PEERS.items():
        result: dict[str, Any] = {"peer": name, "from": registry}
        try:
            done, trades, seconds = run(rows[:commands])
        except ImportError:
            results.append(result | {"installed": False})
            continue
        speed = {"mcommands_per_s": done / seconds / 1e6, "commands": done, "trades": trades}
        results.append(result | {"installed": True} | speed)
    return results
