"""What a scenario may ask of an order beyond limit, market, IOC, FOK and post-only, and how we say it.

To switch a feature on when the engine has it: give its line a function from the step (prices and quantities already in
our units) to the fields of the NEW_ORDER command. Only `expect.py` must also know, where the feature shows in the book.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Step = dict[str, Any]
Fields = Callable[[Step], dict[str, int]]

NOT_BUILT = "not built yet"
NOT_OFFERED = "not offered"


class NotSupportedError(Exception):
    """The case asks for something that we do not have; the message names it."""


@dataclass(frozen=True)
class Feature:
    name: str
    asked: Callable[[Step], bool]
    fields: Fields | None = None  # None: we do not have it
    otherwise: str = NOT_BUILT


def _type(*names: str) -> Callable[[Step], bool]:
    return lambda step: step["type"] in names


def _shows_less(step: Step) -> bool:
    """What shows the whole order is a plain order."""
    return step.get("display_qty") is not None and step["display_qty"] < step["qty"]


FEATURES = (
    Feature("self-trade prevention", lambda step: step.get("stp", "none") != "none"),
    Feature("stop orders", _type("stop", "stop_limit")),  # stop_price
    Feature("iceberg orders", _shows_less),  # show_qty = display_qty
    Feature("all-or-none and minimum quantity", lambda step: step.get("tif") == "AON" or bool(step.get("min_qty"))),
    Feature("post-only that slides", lambda step: step.get("post_only") == "slide"),
    Feature("market with a collar", lambda step: step.get("slippage") is not None),
    Feature("trailing stops", _type("trailing_stop", "trailing_stop_limit"), otherwise=NOT_OFFERED),
    Feature("one cancels the other", _type("oco"), otherwise=NOT_OFFERED),
)
MANUAL_MATCHING = f"{NOT_BUILT}: orders gathered while matching is off"


def feature_fields(step: Step) -> dict[str, int]:
    """The fields that the features of a `new` step set; NotSupportedError names the first that we lack."""
    found: dict[str, int] = {}
    for feature in FEATURES:
        if feature.asked(step):
            if feature.fields is None:
                raise NotSupportedError(f"{feature.otherwise}: {feature.name}")
            found |= feature.fields(step)
    return found
