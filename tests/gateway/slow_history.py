"""What an account did, the obvious way: a dictionary for each row, and lists that nobody cuts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import unpack_id
from engine.types import LISTING, EventKind, Flag, Kind, OrdType

PPM = 1_000_000
Row = dict[str, Any]


class SlowHistory:
    """Fills and finished orders of everybody, oldest first."""

    def __init__(self) -> None:
        self.fills: list[Row] = []
        self.orders: list[Row] = []
        self._open: dict[int, Row] = {}  # orders that work, by id
        self._terms: dict[int, Row] = {}  # by instrument

    def on_batch(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        by_seq = {int(row["seq"]): row for row in commands}
        for event in events:
            self._take(event, commands.view(LISTING), by_seq[int(event["command_seq"])])

    def _take(self, event: Any, listings: NDArray[np.void], command: Any) -> None:
        match event["kind"]:
            case EventKind.LISTED:
                (listing,) = listings[listings["seq"] == event["command_seq"]]
                self._terms[int(event["instrument"])] = {
                    "symbol": unpack_id(listing["symbol"]), "tick_micros": int(listing["tick_micros"]),
                    "lot_tick_micros": int(listing["lot_tick_micros"]), "rebate_ppm": int(listing["maker_rebate_ppm"]),
                }  # fmt: skip
            case EventKind.NEW:
                is_order = command["kind"] == Kind.NEW_ORDER
                has_more = is_order and command["flags"] & Flag.EXTENDED
                stop = is_order and command["ord_type"] in (OrdType.STOP, OrdType.STOP_LIMIT)
                self._open[int(event["order_id"])] = {
                    "ts_ns": event["ts_ns"], "account": event["account"], "instrument": int(event["instrument"]),
                    "side": event["side"], "price": event["price"], "type": command["ord_type"],
                    "tif": command["time_in_force"], "post": command["flags"] & 1, "cid": unpack_id(command["cl_ord_id"]),
                    "stop_price": command["stop_price"] if stop else 0,
                    "flags": command["flags"] & (Flag.SLIDE | Flag.REDUCE_ONLY),
                    "show": command["show_qty"] if has_more else 0,
                    "expire_ns": command["expire_ns"] if has_more else 0,
                }  # fmt: skip
            case EventKind.REPLACED:
                order = self._open[int(event["order_id"])]
                order["price"] = event["price"]
                if command["kind"] == Kind.AMEND and command["flags"] & Flag.EXTENDED and command["stop_price"] > 0:
                    order["stop_price"] = command["stop_price"]
            case EventKind.TRADE:
                self._trade(event)
            case EventKind.CANCELED:
                self._over(event, int(event["order_id"]), event["cum_qty"], event["qty"], event["reason"])

    def _trade(self, event: Any) -> None:
        terms = self._terms[int(event["instrument"])]
        value = int(event["price"]) * terms["lot_tick_micros"] * int(event["qty"])
        fees = (event["fee_micros"], -(value * terms["rebate_ppm"] // PPM))
        for is_maker, contra in enumerate(("", "contra_")):
            order_id = int(event[f"{contra}order_id"])
            order = self._open[order_id]
            self.fills.append(
                {
                    "seq": event["seq"], "ts_ns": event["ts_ns"], "order_id": order_id, "account": order["account"],
                    "price": event["price"], "qty": event["qty"], "left": event[f"{contra}leaves_qty"],
                    "cum": event[f"{contra}cum_qty"], "side": order["side"], "flag": is_maker, "tif": order["tif"],
                    "post": order["post"], "tick_micros": terms["tick_micros"], "symbol": terms["symbol"],
                    "cid": order["cid"], "fee_micros": fees[is_maker],
                    "fee_due_micros": 0 if is_maker else event["fee_due_micros"],
                }
            )  # fmt: skip
            if event[f"{contra}leaves_qty"] == 0:
                self._over(event, order_id, event[f"{contra}cum_qty"], event[f"{contra}cum_qty"], 0)

    def _over(self, event: Any, order_id: int, cum: int, qty: int, reason: int) -> None:
        order = self._open.pop(order_id)
        terms = self._terms[order["instrument"]]
        self.orders.append(
            {
                "seq": event["seq"], "ts_ns": order["ts_ns"], "order_id": order_id, "account": order["account"],
                "price": order["price"], "qty": qty, "left": 0, "cum": cum, "side": order["side"], "flag": order["type"],
                "tif": order["tif"], "post": order["post"], "tick_micros": terms["tick_micros"],
                "symbol": terms["symbol"], "cid": order["cid"], "done_ns": event["ts_ns"], "reason": reason,
                "stop_price": order["stop_price"], "flags": order["flags"], "show": order["show"],
                "expire_ns": order["expire_ns"],
            }
        )  # fmt: skip
