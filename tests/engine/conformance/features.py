"""What a scenario may ask of an order beyond limit, market, IOC, FOK and post-only, and how we say it.

A feature has a function from the step (prices and quantities already in our units) to the fields of the NEW_ORDER
command, or none where we do not have it. What takes more than fields is in `player.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.types import Flag, OrdType
from tests.tables import extended

Step = dict[str, Any]
Fields = Callable[[Step], dict[str, int]]

NOT_OFFERED = "not offered"


class NotSupportedError(Exception):
    """The case asks for something that we do not have; the message names it."""


@dataclass(frozen=True)
class Feature:
    name: str
    asked: Callable[[Step], bool]
    fields: Fields | None = None  # None: we do not have it
    otherwise: str = NOT_OFFERED


def _type(*names: str) -> Callable[[Step], bool]:
    return lambda step: step["type"] in names


def _shows_less(step: Step) -> bool:
    """What shows the whole order is a plain order."""
    return step.get("display_qty") is not None and step["display_qty"] < step["qty"]


def _shows_nothing(step: Step) -> bool:
    return step.get("display_qty") == 0


def _show(step: Step) -> dict[str, int]:
    """What never rests shows nothing anyway."""
    rests = step["type"] in ("limit", "stop_limit") and step.get("tif", "GTC") not in ("IOC", "FOK")
    return {"show_qty": step["display_qty"]} if rests else {}


def _stop(step: Step) -> dict[str, int]:
    ord_type = OrdType.STOP if step["type"] == "stop" else OrdType.STOP_LIMIT
    return {"ord_type": ord_type, "stop_price": step["stop_price"]}


STP_FLAGS = {
    "cancel_taker": Flag.STP_EXPIRE_TAKER,
    "cancel_maker": Flag.STP_EXPIRE_MAKER,
    "cancel_both": Flag.STP_EXPIRE_BOTH,
    "decrement": Flag.STP_DECREMENT,
}


def _stp(step: Step) -> dict[str, int]:
    if step["stp"] not in STP_FLAGS:
        raise NotSupportedError(f"{NOT_OFFERED}: self-trade prevention by {step['stp']}")
    return {"flags": STP_FLAGS[step["stp"]]}


FEATURES = (
    Feature("self-trade prevention", lambda step: step.get("stp", "none") != "none", _stp),
    Feature("stop orders", _type("stop", "stop_limit"), _stop),
    Feature("orders that show nothing", _shows_nothing),
    Feature("iceberg orders", _shows_less, _show),
    Feature("minimum quantity", lambda step: bool(step.get("min_qty")), lambda step: {"min_qty": step["min_qty"]}),
    Feature("all-or-none", lambda step: step.get("tif") == "AON", lambda step: {}),
    Feature("post-only that slides", lambda step: step.get("post_only") == "slide", lambda step: {"flags": Flag.SLIDE}),
    Feature("market with a collar", lambda step: step.get("slippage") is not None, lambda step: {}),
    Feature("trailing stops", _type("trailing_stop", "trailing_stop_limit")),
    Feature("one cancels the other", _type("oco")),
)
AON_RESTS = f"{NOT_OFFERED}: an all-or-none order that waits in the book"
NOT_GATHERED = f"{NOT_OFFERED}: orders other than limit orders while matching is off"


def feature_fields(step: Step) -> dict[str, int]:
    """The fields that the features of a `new` step set; NotSupportedError names the first that we lack."""
    found: dict[str, int] = {}
    for feature in FEATURES:
        if feature.asked(step):
            if feature.fields is None:
                raise NotSupportedError(f"{feature.otherwise}: {feature.name}")
            more = feature.fields(step)
            found |= more | {"flags": found.get("flags", 0) | more.get("flags", 0)}
    return extended(found)
