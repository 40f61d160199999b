"""What happened so far, counted from the batches of commands and events that the node applies.

Everything is taken from the records alone, so the figures are those of the log and not of the bots.
"""

import json
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue, hour_text, unpack_id
from engine.types import EVENT, LISTING, MONEY, EventKind, Kind, Side

ORDER_KINDS = (Kind.NEW_ORDER, Kind.CANCEL, Kind.AMEND, Kind.MASS_CANCEL)
LOG_LINES = 200


@dataclass(slots=True)
class Listed:
    """A listed contract, as far as the tape needs it."""

    symbol: str
    gpu_class: str
    market: str
    start_s: int
    gpus_per_lot: int
    tick_micros: int
    lot_tick_micros: int
    gate_ns: int
    volume_lots: int = 0


@dataclass(slots=True)
class Volume:
    """What was traded of a class."""

    fills: int = 0
    lots: int = 0
    gpu_hours: int = 0
    notional_micros: int = 0


@dataclass(slots=True)
class Activity:
    """What an account traded, in lots, and the fees it was charged as a taker."""

    fills: int = 0
    bought_lots: int = 0
    sold_lots: int = 0
    fees_micros: int = 0


@dataclass
class Tape:
    """Call `observe` with every batch; read the rest at any time. One thread."""

    catalogue: Catalogue
    statements_dir: Path
    orders: int = 0
    rejected: int = 0
    fills: int = 0
    delivered_lots: int = 0
    listed: dict[int, Listed] = field(default_factory=dict)
    new_listings: list[int] = field(default_factory=list)  # whoever nominates capacity takes them from here
    volumes: dict[str, Volume] = field(default_factory=dict)
    accounts: dict[int, Activity] = field(default_factory=dict)
    log: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    log_count: int = 0
    frozen: list[tuple[int, str, str]] = field(default_factory=list)  # cycle, batch id, root
    _closed_cycles: list[int] = field(default_factory=list)

    def observe(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        """Take in a batch as it was applied."""
        self.orders += int(np.isin(commands["kind"], ORDER_KINDS).sum())
        kinds = events["kind"]
        self.rejected += int((kinds == EventKind.REJECTED).sum())
        if (commands["kind"] == Kind.LIST).any():
            self._list(commands, events[kinds == EventKind.LISTED])
        trades = events[kinds == EventKind.TRADE]
        if len(trades):
            self._trade(trades)
        if (kinds > EventKind.REPLACED).any():
            self._lifecycle(events)

    def say(self, ts_ns: int, text: str) -> None:
        """Add a line to the log of what happened."""
        self.log.append((ts_ns, text))
        self.log_count += 1

    def look_for_batches(self, now_ns: int) -> None:
        """Report each closed cycle once its statements, which come last, are on the disk."""
        while self._closed_cycles:
            cycle = self._closed_cycles[0]
            path = self.statements_dir / str(cycle) / "batch.json"
            if not path.exists():
                return
            batch = json.loads(path.read_text(encoding="utf-8"))
            self.frozen.append((cycle, batch["batch_id"], batch["root"]))
            self.say(now_ns, f"batch of cycle {cycle} frozen, root {batch['root'][:16]}")
            self._closed_cycles.pop(0)

    def _list(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        listings = commands[np.isin(commands["seq"], events["command_seq"])].view(LISTING)
        for row in listings:
            symbol, gpu_class = unpack_id(row["symbol"]), self.catalogue.class_by_id[int(row["class_id"])].name
            self.listed[int(row["instrument"])] = Listed(
                symbol,
                gpu_class,
                symbol.rpartition("-")[0],
                int(row["start_s"]),
                int(row["gpus_per_lot"]),
                int(row["tick_micros"]),
                int(row["lot_tick_micros"]),
                int(row["gate_ns"]),
            )
            self.new_listings.append(int(row["instrument"]))
        for start_s, books in sorted(Counter(listings["start_s"].tolist()).items()):
            self.say(int(listings["ts_ns"][0]), f"{hour_text(start_s)} listed: {books} books open")

    def _trade(self, trades: NDArray[np.void]) -> None:
        self.fills += len(trades)
        names = ("instrument", "account", "contra_account", "side", "price", "qty", "fee_micros")
        for number, taker, maker, side, price, qty, fee in zip(*(trades[name].tolist() for name in names), strict=True):
            listed = self.listed[number]
            listed.volume_lots += qty
            volume = self.volumes.setdefault(listed.gpu_class, Volume())
            volume.fills += 1
            volume.lots += qty
            volume.gpu_hours += qty * listed.gpus_per_lot
            volume.notional_micros += price * qty * listed.lot_tick_micros
            buyer, seller = (taker, maker) if side == Side.BUY else (maker, taker)
            self.activity(buyer).bought_lots += qty
            self.activity(seller).sold_lots += qty
            for account in {taker, maker}:
                self.activity(account).fills += 1
            self.activity(taker).fees_micros += fee

    def activity(self, account: int) -> Activity:
        """What an account did."""
        return self.accounts.setdefault(account, Activity())

    def _lifecycle(self, events: NDArray[np.void]) -> None:
        money, now_ns = events.view(MONEY), int(events["ts_ns"][-1])
        kinds = events["kind"]
        self._closed(events[kinds == EventKind.CLOSED], money[kinds == EventKind.DELIVERY_DUE], now_ns)
        self._delivered(money[kinds == EventKind.DELIVERED], now_ns)
        for number in events["instrument"][kinds == EventKind.DELISTED].tolist():
            self.listed.pop(number, None)
        for cycle in money["lots"][kinds == EventKind.CYCLE_CLOSED].tolist():
            self.say(now_ns, f"settlement cycle {cycle} ended")
            self._closed_cycles.append(cycle)

    def _closed(self, closed: NDArray[np.void], due: NDArray[np.void], now_ns: int) -> None:
        if not len(closed):
            return
        hours: Counter[int] = Counter(self.listed[number].start_s for number in closed["instrument"].tolist())
        lots: Counter[int] = Counter()
        for number, net in zip(due["instrument"].tolist(), due["lots"].tolist(), strict=True):
            lots[self.listed[number].start_s] += max(net, 0)
        for start_s, books in sorted(hours.items()):
            self.say(now_ns, f"{hour_text(start_s)} gate: {books} books closed, {lots[start_s]:,} lots to deliver")

    def _delivered(self, delivered: NDArray[np.void], now_ns: int) -> None:
        lots: Counter[int] = Counter()
        paid: Counter[int] = Counter()
        columns = (delivered[name].tolist() for name in ("instrument", "lots", "amount_micros"))
        for number, count, amount in zip(*columns, strict=True):
            start_s = self.listed[number].start_s
            lots[start_s] += count
            paid[start_s] += amount
        self.delivered_lots += sum(lots.values())
        for start_s, count in sorted(lots.items()):
            self.say(
                now_ns, f"{hour_text(start_s)} delivered: {count:,} lots, {usd(paid[start_s])} paid to the providers"
            )


def usd(micros: int, places: int = 2) -> str:
    """Micro-dollars as text: `1,234.50`, cut (not rounded) after `places` digits."""
    whole, rest = divmod(abs(micros), 1_000_000)
    text = f"{whole:,}" + (f".{rest:06d}"[: places + 1] if places else "")
    return f"-{text}" if micros < 0 else text


assert EVENT.itemsize == MONEY.itemsize  # `_lifecycle` reads one array under both names
