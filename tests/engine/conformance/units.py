"""A scenario's prices and quantities in ticks and lots.

They are taken as they are. Only where they are too large for a book of ours are they moved and divided by what they
have in common; matching does not notice, because it only compares prices and only adds quantities.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd

from engine.types import MAX_PRICE_TICKS, MAX_QTY
from tests.engine.conformance.features import NotSupportedError, Step

PRICES = ("price", "stop_price", "stop_limit_price")
DISTANCES = ("slippage", "trail_distance", "trail_step")  # between two prices
QUANTITIES = ("qty", "by", "display_qty", "min_qty")


@dataclass(frozen=True)
class Units:
    """theirs = base + ours * tick; their quantity = ours * lot."""

    base: int = 0
    tick: int = 1
    lot: int = 1

    @classmethod
    def of(cls, commands: Sequence[Step]) -> "Units":
        """Units in which every number of a case fits; NotSupportedError when there are none."""
        base, tick = _scale(_values(commands, PRICES), _values(commands, DISTANCES))
        quantities = _values(commands, QUANTITIES)
        lot = 1
        if max(quantities, default=0) > MAX_QTY:
            lot = gcd(*quantities)
            if max(quantities) // lot > MAX_QTY:
                raise NotSupportedError(f"a quantity beyond {MAX_QTY}")
        return cls(base, tick, lot)

    def ours(self, step: Step) -> Step:
        """A step with its prices in ticks and its quantities in lots."""
        step = dict(step)
        for names, base, size in ((PRICES, self.base, self.tick), (DISTANCES, 0, self.tick), (QUANTITIES, 0, self.lot)):
            for name in names:
                if step.get(name) is not None:
                    step[name] = (step[name] - base) // size
        return step

    def price(self, ticks: int) -> int:
        return self.base + ticks * self.tick

    def qty(self, lots: int) -> int:
        return lots * self.lot


def _values(steps: Iterable[Step], names: Iterable[str]) -> list[int]:
    names = tuple(names)
    return [step[name] for step in steps for name in names if step.get(name) is not None]


def _scale(prices: list[int], distances: list[int]) -> tuple[int, int]:
    """The base and the tick that bring prices within a book."""
    if max(prices, default=0) <= MAX_PRICE_TICKS:
        return 0, 1
    lowest = min(prices)
    tick = gcd(*(price - lowest for price in prices), *distances) or 1
    if (max(prices) - lowest) // tick >= MAX_PRICE_TICKS:
        raise NotSupportedError(f"prices further apart than {MAX_PRICE_TICKS} ticks")
    return lowest - tick, tick  # the lowest is 1, as a price of 0 means none to some
