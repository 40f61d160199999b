"""What a scenario expects, compared with what there is. All in the scenario's numbers."""

from collections.abc import Callable
from typing import Any

from tests.engine.conformance.features import NotSupportedError, Step
from tests.engine.conformance.player import KILLED, Order, Player

Rows = list[tuple[Any, int, int]]

STATES = {
    "working": "accepted open working new active resting partial partially_filled pending untriggered triggered".split(),
    "filled": "complete completed filled executed".split(),
    "cancelled": "cancelled canceled expired deleted removed".split(),
    "rejected": ["rejected"],
    "killed": "cancelled canceled expired deleted removed rejected".split(),
}
"""Our states, and what others call them."""
KNOWN_STATES = {word for words in STATES.values() for word in words}
NOT_COMPARED = {"op", "asserted", "reason", "note"}
"""A reason is in the source's words."""


def difference(player: Player, step: Step) -> str | None:
    """The first thing that is not as the step expects; None when all is. NotSupportedError for what we cannot look at."""
    for what, expected in step.items():
        if what in NOT_COMPARED:
            continue
        if what not in LOOKS:
            raise NotSupportedError(f"the expectation {what}")
        found = LOOKS[what](player, expected)
        if found != expected:
            origin = "" if step.get("asserted", True) else ", as was seen there,"
            return f"{what}: {_short(expected)}{origin} is expected, there is {_short(found)}"
    return None


def events_and_book_agree(player: Player) -> str | None:
    """The orders that the events left working are the orders in the book, with the same price and leaves."""
    units = player.units
    working = {
        (name, units.price(order.price), units.qty(order.leaves))
        for name, order in player.orders.items()
        if order.state == "working"
    }
    bids, asks = player.queues()
    stops = [row for rows in player.stops() for row in rows]
    if working != set(bids + asks + stops) or len(working) != len(bids + asks + stops):
        return f"the events left {sorted(working)}, in the book are {bids} and {asks}, {stops} wait"
    return None


def _short(value: Any, longest: int = 300) -> str:
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def _trades(player: Player, _: Any) -> list[dict[str, Any]]:
    units = player.units
    return [
        {"maker": maker, "taker": taker, "price": units.price(price), "qty": units.qty(qty)}
        for maker, taker, price, qty in player.outcome.trades
    ]


def _trades_any_order(player: Player, expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was expected, when it is the same apart from the order."""
    found = _trades(player, None)
    return expected if sorted(found, key=_sorted_items) == sorted(expected, key=_sorted_items) else found


def _sorted_items(trade: dict[str, Any]) -> str:
    return repr(sorted(trade.items()))


def _rejected(player: Player, expected: bool) -> bool:
    refused = player.outcome.refused
    return expected if refused in KILLED else refused is not None


def _cancelled(player: Player, expected: int) -> int:
    """Of an order that was killed at once, all or, to those that refuse it, nothing; with or without makers it ended."""
    if player.outcome.refused in KILLED and expected == 0:
        return 0
    cancelled, others = player.outcome.cancelled, player.outcome.cancelled_of_others
    found = {player.units.qty(cancelled), player.units.qty(cancelled - others)}
    return expected if expected in found else player.units.qty(cancelled)


def _depth(side: int) -> Callable[[Player, Any], list[list[int]]]:
    def look(player: Player, _: Any) -> list[list[int]]:
        levels: dict[int, int] = {}
        for _name, price, qty in player.queues()[side]:
            levels[price] = levels.get(price, 0) + qty
        return [[price, qty] for price, qty in levels.items()]

    return look


def _queue(side: int) -> Callable[[Player, Any], list[list[Any]]]:
    return lambda player, _: [list(row) for row in player.queues()[side]]


def _best(side: int) -> Callable[[Player, Any], int | None]:
    return lambda player, _: next((price for _name, price, _qty in player.queues()[side]), None)


def _totals(of: Callable[[Rows], int], stops: bool = False) -> Callable[[Player, Any], list[int]]:
    return lambda player, _: [of(rows) for rows in (player.stops() if stops else player.queues())]


def _shown(player: Player, _: Any) -> list[int]:
    return player.shown()


def _volume(rows: Rows) -> int:
    return sum(qty for _, _, qty in rows)


def _order(player: Player, expected: Any) -> Any:
    """As much of an order, or of each of several, as is expected."""
    if isinstance(expected, list):
        return [_order(player, one) for one in expected]
    order = player.orders.get(expected["id"])
    if order is None:
        return None
    found = {what: _part(player, order, what, word) for what, word in expected.items()}
    ended = found.get("state") == expected.get("state") and order.state in ("cancelled", "killed")
    if ended and expected.get("open") == player.units.qty(order.cancelled):
        found["open"] = expected["open"]  # to some, what was cancelled stays written on the order
    return found


def _part(player: Player, order: Order, what: str, expected: Any) -> Any:
    units = player.units
    if what == "id":
        return expected
    if what == "open":
        return units.qty(order.leaves)
    if what == "filled":
        return units.qty(order.filled)
    if what == "price":
        return units.price(order.price)
    if what == "stop_price":
        return units.price(order.stop_price)
    if what != "state":
        raise NotSupportedError(f"the expectation {what} of an order")
    if expected not in KNOWN_STATES:
        raise NotSupportedError(f"the state {expected} of an order")
    return expected if expected in STATES[order.state] else order.state  # in their word when it means the same


LOOKS: dict[str, Callable[[Player, Any], Any]] = {
    "trades": _trades,
    "trade_pairs_any_order": _trades_any_order,
    "rejected": _rejected,
    "cancelled_qty": _cancelled,
    "bids": _depth(0),
    "asks": _depth(1),
    "queue_bids": _queue(0),
    "queue_asks": _queue(1),
    "best_bid": _best(0),
    "best_ask": _best(1),
    "order_count": _totals(len),
    "volume": _totals(_volume),
    "visible_volume": _shown,
    "stop_count": _totals(len, stops=True),
    "stop_volume": _totals(_volume, stops=True),
    "order": _order,
}
