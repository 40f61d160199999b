"""Reference prices: the real history of GPU prices, and the path on which a demo walks through it.

Prices are integer micro-dollars per GPU-hour. The list prices of a cloud change about once a month, all places on
the same day, so the demo does not follow the calendar: each market hour is the next day on which prices changed.
Between those days a small seeded walk moves each market; a contract keeps a small premium of its own.
"""

import csv
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from random import Random
from typing import Self

from engine.catalogue import HOUR_S, NS, Contract

PPM = 1_000_000
WALK_STEP_NS = 2 * 60 * NS
"""The walk moves every two market minutes."""
WALK_PPM = 2_500
"""The most it moves in one step,"""
WALK_LIMIT_PPM = 40_000
"""and the farthest it strays from the list price."""
PREMIUM_PPM = 15_000
"""The most that one hour is dearer or cheaper than its neighbours."""


@dataclass(frozen=True)
class PriceHistory:
    """Spot and on-demand prices by market (CLASS-REGION): parallel tuples of ISO dates and micros, oldest first."""

    spot: dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
    ondemand: dict[str, tuple[tuple[str, ...], tuple[int, ...]]]

    @classmethod
    def load(cls) -> Self:
        """The history that comes with the package."""
        spot: dict[str, list[tuple[str, int]]] = {}
        ondemand: dict[str, list[tuple[str, int]]] = {}
        text = resources.files("wellhead.demo").joinpath("data", "gpu_prices.csv").read_text(encoding="utf-8")
        for row in csv.DictReader(text.splitlines()):
            market = f"{row['class']}-{row['region']}"
            for prices, micros in ((spot, row["spot_micros"]), (ondemand, row["ondemand_micros"])):
                points = prices.setdefault(market, [])
                if micros and (not points or points[-1][1] != int(micros)):
                    points.append((row["date"], int(micros)))
        return cls(_columns(spot), _columns(ondemand))

    @property
    def markets(self) -> tuple[str, ...]:
        """Every CLASS-REGION there is a spot price for."""
        return tuple(self.spot)

    def spot_micros(self, market: str, date: str) -> int:
        """The spot price that held on a day. Raises KeyError for an unknown market, ValueError before its first price."""
        return _at(self.spot[market], market, date)

    def ondemand_micros(self, market: str, date: str) -> int:
        """The on-demand price that held on a day. Raises as `spot_micros` does."""
        return _at(self.ondemand[market], market, date)

    @cached_property
    def change_days(self) -> tuple[str, ...]:
        """The days on which at least a quarter of the markets had a new spot price."""
        days: dict[str, int] = {}
        for dates, _ in self.spot.values():
            for date in dates[1:]:
                days[date] = days.get(date, 0) + 1
        return tuple(sorted(date for date, count in days.items() if 4 * count >= len(self.spot)))


def _columns(prices: dict[str, list[tuple[str, int]]]) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    return {
        market: (tuple(date for date, _ in points), tuple(micros for _, micros in points))
        for market, points in prices.items()
        if points
    }


def _at(prices: tuple[tuple[str, ...], tuple[int, ...]], market: str, date: str) -> int:
    dates, micros = prices
    index = bisect_right(dates, date) - 1
    if index < 0:
        raise ValueError(f"{market}: no price before {dates[0]}, asked for {date}")
    return micros[index]


class PricePath:
    """The reference price of every contract at every moment of a demo. A function of its arguments and the seed alone."""

    def __init__(self, history: PriceHistory, start_ns: int, first_day: str, seed: int) -> None:
        """`start_ns` is the market time at which `first_day` of the history begins; it lasts to the end of the hour.

        Raises ValueError when no price changed on or after `first_day`.
        """
        self._history = history
        self._start_ns = start_ns
        self._first_hour = start_ns // NS // HOUR_S
        self._days = tuple(day for day in history.change_days if day >= first_day)
        if not self._days:
            raise ValueError(f"no price changed on or after {first_day}")
        self._seed = seed
        self._walks: dict[str, tuple[Random, list[int]]] = {}
        self._premiums: dict[tuple[str, int], int] = {}

    def day(self, now_ns: int) -> str:
        """The day of the history that the market is in; after the last one it stays there."""
        index = now_ns // NS // HOUR_S - self._first_hour
        return self._days[min(max(index, 0), len(self._days) - 1)]

    def change_ppm(self, market: str, now_ns: int) -> int:
        """How the list price of a market's day differs from that of the day before in the history."""
        day = self.day(now_ns)
        before = [earlier for earlier in self._history.change_days if earlier < day]
        if not before or before[-1] < self._history.spot[market][0][0]:
            return 0
        old = self._history.spot_micros(market, before[-1])
        return (self._history.spot_micros(market, day) - old) * PPM // old

    def micros(self, market: str, start_s: int, now_ns: int) -> int:
        """The reference price of a market's hour (its `start_s`), at least 1."""
        listed = self._history.spot_micros(market, self.day(now_ns))
        ppm = PPM + self._walk_ppm(market, now_ns) + self._premium_ppm(market, start_s)
        return max(1, listed * ppm // PPM)

    def ticks(self, contract: Contract, now_ns: int) -> int | None:
        """The same in ticks, to the nearest; None for a market without history."""
        market = f"{contract.gpu_class.name}-{contract.region.name}"
        if market not in self._history.spot:
            return None
        tick_micros = contract.gpu_class.tick_micros
        return max(1, (self.micros(market, contract.start_s, now_ns) + tick_micros // 2) // tick_micros)

    def _walk_ppm(self, market: str, now_ns: int) -> int:
        step = max(0, now_ns - self._start_ns) // WALK_STEP_NS
        random, walk = self._walks.setdefault(market, (Random(f"{self._seed} {market}"), [0]))  # noqa: S311
        while len(walk) <= step:
            # A little pull back to the list price, so that the walk never leaves it far behind.
            moved = walk[-1] - walk[-1] // 40 + random.randint(-WALK_PPM, WALK_PPM)
            walk.append(min(max(moved, -WALK_LIMIT_PPM), WALK_LIMIT_PPM))
        return walk[step]

    def _premium_ppm(self, market: str, start_s: int) -> int:
        premium = self._premiums.get((market, start_s))
        if premium is None:
            premium = Random(f"{self._seed} {market} {start_s}").randint(-PREMIUM_PPM, PREMIUM_PPM)  # noqa: S311
            self._premiums[market, start_s] = premium
        return premium
