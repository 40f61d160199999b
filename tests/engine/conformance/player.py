"""A scenario's commands, said in ours to anything with `apply(commands)`, `dump()` and `applied_seq`.

Each case has a book and accounts of its own. An order without an account belongs to one for its side, so that nobody
trades with itself unless the case says so. Everyone has money and certified capacity for all that the case asks, and
fees are real.

| theirs | ours |
|---|---|
| new | NEW_ORDER; a market order is IOC unless FOK, because ours never rest |
| cancel | CANCEL |
| reduce | AMEND to the total less `by` |
| modify | AMEND to what is filled plus `qty`; REQUEUE when the source says that priority is lost in every case |
| mitigate | AMEND to `qty`, a total as ours is |
| replace | CANCEL, then NEW_ORDER with what the old one was and the new one says |
| match | SET_STATUS to CONTINUOUS, which is an auction, and back to PRE_OPEN, where a book is filled without matching |
| slippage | the book gets a collar of that width for the order |
| AON | FOK; what would wait in the book for all of it at once is not offered |

An amend to a total of nothing is a CANCEL: AMEND takes no quantity of 0.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import (
    COMMAND,
    LISTING,
    MAX_BAND_PPM,
    MAX_MONEY_MICROS,
    MAX_POSITION_LOTS,
    MAX_PRICE_TICKS,
    MAX_QTY,
    TRANSFER,
    UNCHANGED,
    EventKind,
    Flag,
    Kind,
    OrdType,
    Reason,
    Side,
    Status,
    TimeInForce,
)
from tests.engine.conformance.features import AON_RESTS, NOT_GATHERED, NotSupportedError, Step, feature_fields
from tests.engine.conformance.units import Units
from tests.tables import SPECIAL_PARTS, command

BOOK = 1
TERMS = {
    "lot_tick_micros": 1,
    "max_price": MAX_PRICE_TICKS,
    "gate_ns": 1_000,
    "taker_fee_ppm": 500,
    "maker_rebate_ppm": 200,
}
NOW_NS = 1
MILLION = 1_000_000
SHOWN = SPECIAL_PARTS.index("shown")
NEVER_GIVEN = 1 << 52
"""An order id that no engine reaches in a scenario."""
SIDES = {"buy": Side.BUY, "sell": Side.SELL}
TIMES = {"GTC": TimeInForce.GTC, "IOC": TimeInForce.IOC, "FOK": TimeInForce.FOK, "AON": TimeInForce.FOK}
KILLED = {Reason.FOK_NOT_FILLABLE, Reason.POST_ONLY_WOULD_TAKE, Reason.SELF_TRADE_PREVENTED}
"""Some refuse these orders, some take and cancel them in one go. The same comes of it, so both names are right."""
WORDS = {
    "new": set(
        "id side type qty price stop_price tif post_only display_qty min_qty account stp slippage trail_distance "
        "trail_step stop_limit_price".split()
    ),
    "cancel": {"id", "account"},
    "reduce": {"id", "by", "account"},
    "modify": {"id", "price", "qty", "priority", "account"},
    "mitigate": {"id", "price", "qty", "priority", "account"},
    "replace": {"id", "new_id", "price", "qty", "side", "account"},
    "match": set(),
}


class Said(dict[str, Any]):
    """A command of a case, in our units. What it does not say but should is not supported."""

    def __missing__(self, word: str) -> Any:
        raise NotSupportedError(f"{self.get('op')} without {word}")


@dataclass
class Order:
    """An order as the events tell it, in our units."""

    asked: Step
    account: int
    order_id: int = NEVER_GIVEN
    price: int = 0
    stop_price: int = 0
    total: int = 0
    leaves: int = 0
    filled: int = 0
    cancelled: int = 0
    state: str = "rejected"  # until a NEW says otherwise


@dataclass
class Outcome:
    """What the last command of the case brought about, in our units."""

    trades: list[tuple[Any, Any, int, int]] = field(default_factory=list)  # maker, taker, price, qty
    refused: Reason | None = None
    cancelled: int = 0
    cancelled_of_others: int = 0  # of that, by a new order that would have traded with its own


class Player:
    """One case on one exchange. The exchange must be new."""

    def __init__(self, exchange: Any, case: dict[str, Any]) -> None:
        commands = [step for step in case["steps"] if step["op"] != "expect"]
        self.exchange = exchange
        self.units = Units.of(commands)
        self.orders: dict[Any, Order] = {}  # by the case's ids
        self.names: dict[int, Any] = {}  # from our order ids to the case's
        self.accounts: dict[str, int] = {}
        self.outcome = Outcome()
        self.verbs = {
            "new": self.new,
            "cancel": self.cancel,
            "reduce": self.reduce,
            "modify": self.modify,
            "mitigate": self.mitigate,
            "replace": self.replace,
            "match": self.match,
        }
        self.gathers = case.get("matching", "on") not in ("on", "auto", "continuous")
        self.open_market(commands)
        if self.gathers:
            self.set_status(Status.PRE_OPEN)

    def open_market(self, commands: list[Step]) -> None:
        """The book, and an account with all it may need for everyone in the case."""
        self.send(command(Kind.LIST, LISTING, instrument=BOOK, **TERMS))
        for step in commands:
            self.accounts.setdefault(account_name(step), len(self.accounts) + 1)
        lots = sum(max(step.get("qty") or 0, 0) for step in map(self.units.ours, commands))
        if lots + MAX_QTY > MAX_POSITION_LOTS:
            raise NotSupportedError(f"more than {MAX_POSITION_LOTS} lots in all")
        for number in self.accounts.values():
            self.send(command(Kind.OPEN_ACCOUNT, TRANSFER, account=number))
            cash = MAX_MONEY_MICROS // len(self.accounts)
            self.send(command(Kind.DEPOSIT, TRANSFER, account=number, amount_micros=cash))
            for _ in range(lots // MAX_QTY + 1):
                self.send(command(Kind.NOMINATE, TRANSFER, account=number, instrument=BOOK, lots=MAX_QTY))
        assert self.outcome.refused is None, f"the scenario cannot be set up: {self.outcome.refused}"

    def do(self, step: Step) -> None:
        """A command of the case. NotSupportedError when we cannot say it."""
        self.outcome = Outcome()
        said = Said({word: value for word, value in step.items() if value is not None})
        op = said["op"]
        if op not in self.verbs:
            raise NotSupportedError(f"the command {op}")
        if strange := said.keys() - WORDS[op] - {"op", "note"}:
            raise NotSupportedError(f"{op} with {', '.join(sorted(strange))}")
        self.verbs[op](Said(self.units.ours(said)))

    # The verbs

    def new(self, step: Step) -> None:
        extra = feature_fields(step)
        known = self.orders.get(step["id"])
        if known and known.state == "working":
            raise NotSupportedError("an id given twice: ids are the gateway's, the engine gives its own")
        market = step["type"] == "market"
        if not market and step["type"] != "limit" and "ord_type" not in extra:
            raise NotSupportedError(f"orders of type {step['type']}")
        time_in_force = known_word(TIMES, step.get("tif", "GTC"))
        if market and time_in_force == TimeInForce.GTC:
            time_in_force = TimeInForce.IOC
        order = Order(step, self.accounts[account_name(step)], total=step["qty"])
        order.price = 0 if market or step["type"] == "stop" else step["price"]
        order.stop_price = step.get("stop_price") or 0
        if self.gathers and (time_in_force != TimeInForce.GTC or step["type"] != "limit"):
            raise NotSupportedError(NOT_GATHERED)
        fields = {
            "account": order.account,
            "instrument": BOOK,
            "side": known_word(SIDES, step["side"]),
            "ord_type": OrdType.MARKET if market else OrdType.LIMIT,
            "time_in_force": time_in_force,
            "flags": Flag.POST_ONLY if step.get("post_only") is True else 0,
            "price": order.price,
            "qty": step["qty"],
        }
        self.orders[step["id"]] = order
        if step.get("slippage") is not None:
            self.set_collar(fields["side"], step["slippage"])
        flags = fields["flags"] | extra.get("flags", 0)
        self.send(command(Kind.NEW_ORDER, **fields | extra | {"flags": flags}), step["id"])
        if step.get("tif") == "AON" and self.outcome.refused == Reason.FOK_NOT_FILLABLE:
            raise NotSupportedError(AON_RESTS)
        if self.outcome.refused in KILLED and order.state == "rejected":
            order.state = "killed"
            order.cancelled = self.outcome.cancelled = step["qty"]

    def match(self, _: Step) -> None:
        if self.gathers:
            self.set_status(Status.CONTINUOUS)
            self.set_status(Status.PRE_OPEN)

    def set_status(self, status: Status) -> None:
        self.send(command(Kind.SET_STATUS, instrument=BOOK, qty=status))

    def set_collar(self, side: int, slippage: int) -> None:
        """Let market orders trade so far from the best price of the other side."""
        others = self.exchange.dump()["books"][BOOK]["asks" if side == Side.BUY else "bids"]
        best = others[0][0] if others else 1
        collar_ppm = max(1, -(-slippage * MILLION // max(best, 1)))
        if collar_ppm <= MAX_BAND_PPM:
            self.send(command(Kind.SET_BAND, LISTING, instrument=BOOK, collar_ppm=collar_ppm))

    def cancel(self, step: Step) -> None:
        self.send(command(Kind.CANCEL, **self.target(step)))

    def reduce(self, step: Step) -> None:
        order = self.orders.get(step["id"])
        leaves = order.leaves if order else 0
        self.amend(step, (order.total if order else 0) - step["by"])
        if order and order.leaves > 0 and self.outcome.refused is None:
            self.outcome.cancelled = leaves - order.leaves

    def modify(self, step: Step) -> None:
        order = self.orders.get(step["id"])
        flags = Flag.REQUEUE if step.get("priority") == "lost" else 0
        self.amend(step, (order.filled if order else 0) + step["qty"], price=step["price"], flags=flags)

    def mitigate(self, step: Step) -> None:
        flags = Flag.REQUEUE if step.get("priority") == "lost" else 0
        self.amend(step, step["qty"], price=step["price"], flags=flags)

    def replace(self, step: Step) -> None:
        """A replaced order keeps its type, time in force and features."""
        old = self.orders.get(step["id"])
        self.cancel(step)
        if old and self.outcome.refused is None:
            said = {word: step[word] for word in ("op", "price", "qty", "side", "account") if word in step}
            self.new(Said(old.asked | said | {"id": step["new_id"]}))

    def amend(self, step: Step, total: int, **fields: int) -> None:
        if total <= 0:
            self.cancel(step)
        else:
            self.send(command(Kind.AMEND, **self.target(step), **{"price": UNCHANGED, "qty": total} | fields))

    def target(self, step: Step) -> dict[str, int]:
        """The order that a step is about, and who asks: its owner unless the step says. One that never was is not found."""
        order = self.orders.get(step["id"])
        asks = self.accounts[account_name(step)] if order is None or "account" in step else order.account
        return {"account": asks, "order_id": order.order_id if order else NEVER_GIVEN}

    # What comes of it

    def send(self, row: NDArray[np.void], name: Any = None) -> None:
        """Apply a command; `name` is the case's id of the order that it makes."""
        row["seq"], row["ts_ns"] = self.exchange.applied_seq + 1, NOW_NS
        for event in self.exchange.apply(row.view(COMMAND)).copy():
            kind = int(event["kind"])
            if kind == EventKind.NEW and name is not None:
                self.names[int(event["order_id"])] = name
                self.orders[name].order_id = int(event["order_id"])
            if kind == EventKind.REJECTED:
                self.outcome.refused = Reason(int(event["reason"]))
            elif kind == EventKind.TRADE:
                self.trade(event)
            elif kind == EventKind.PREVENTED:
                self.shrink(event)
            elif kind in (EventKind.NEW, EventKind.REPLACED, EventKind.CANCELED, EventKind.TRIGGERED):
                self.change(event, kind)
                self.note_self_trade(event, name)

    def shrink(self, event: Any) -> None:
        """What is left of two orders that did not trade with each other."""
        for prefix in ("", "contra_"):
            order = self.orders[self.names[int(event[prefix + "order_id"])]]
            leaves = int(event[prefix + "leaves_qty"])
            order.total, order.leaves = order.total + leaves - order.leaves, leaves

    def note_self_trade(self, event: Any, name: Any) -> None:
        """A new order that ends before it traded, because it would have traded with itself."""
        if int(event["reason"]) != Reason.SELF_TRADE_PREVENTED:
            return
        order = self.orders[self.names[int(event["order_id"])]]
        if order is not self.orders.get(name):
            self.outcome.cancelled_of_others += int(event["leaves_qty"])
        elif not order.filled:
            self.outcome.refused = Reason.SELF_TRADE_PREVENTED
            order.state = "killed"

    def trade(self, event: Any) -> None:
        taker, maker = int(event["order_id"]), int(event["contra_order_id"])
        self.outcome.trades.append(
            (self.names.get(maker), self.names.get(taker), int(event["price"]), int(event["qty"]))
        )
        for order_id, prefix in ((taker, ""), (maker, "contra_")):
            order = self.orders[self.names[order_id]]
            order.leaves, order.filled = int(event[prefix + "leaves_qty"]), int(event[prefix + "cum_qty"])
            if order.leaves == 0:
                order.state = "filled"

    def change(self, event: Any, kind: int) -> None:
        order = self.orders[self.names[int(event["order_id"])]]
        order.price, order.total = int(event["price"]), int(event["qty"])
        if kind == EventKind.CANCELED:
            order.leaves, order.cancelled, order.state = 0, int(event["leaves_qty"]), "cancelled"
            self.outcome.cancelled += int(event["leaves_qty"])
        else:
            order.leaves, order.state = int(event["leaves_qty"]), "working"

    def stops(self) -> tuple[list[tuple[Any, int, int]], list[tuple[Any, int, int]]]:
        """Buys and sells that wait, in the order in which they would be triggered: as `queues`."""
        book, units = self.exchange.dump()["books"][BOOK], self.units
        buys, sells = (
            [
                (self.names.get(order_id), units.price(price), units.qty(leaves))
                for _, queue in book[side]
                for order_id, _, leaves, _, price, *_ in queue
            ]
            for side in ("buy_stops", "sell_stops")
        )
        return buys, sells

    def shown(self) -> list[int]:
        """What each side shows, in their numbers."""
        dump = self.exchange.dump()
        special = {order_id: row[SHOWN] for order_id, row in dump["special"].items() if row[SHOWN]}
        return [
            sum(self.units.qty(special.get(row[0], row[2])) for _, queue in dump["books"][BOOK][side] for row in queue)
            for side in ("bids", "asks")
        ]

    def queues(self) -> tuple[list[tuple[Any, int, int]], list[tuple[Any, int, int]]]:
        """Bids and asks, best first: (the case's id, price, leaves) in their numbers."""
        book, units = self.exchange.dump()["books"][BOOK], self.units
        bids, asks = (
            [
                (self.names.get(order_id), units.price(price), units.qty(leaves))
                for price, queue in book[side]
                for order_id, _, leaves, *_ in queue
            ]
            for side in ("bids", "asks")
        )
        return bids, asks


def known_word(table: dict[str, Any], word: str) -> Any:
    if word not in table:
        raise NotSupportedError(f"{word}: only {', '.join(table)} are known")
    return table[word]


def account_name(step: Step) -> str:
    return step.get("account") or f"for every {step.get('side', 'buy')}"
