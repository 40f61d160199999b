"""Who trades in the demo: names, money, capacity and habits. Both sides read it: the one that opens the accounts and
the one that runs the bots.
"""

from dataclasses import dataclass

from wellhead.demo.maker import Style
from wellhead.demo.takers import (
    Momentum,
    PatientBuyer,
    Rebalancer,
    Reseller,
    SteadyBuyer,
    Taker,
    ThriftyBuyer,
)

MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """A member: a maker has a `style`, a taker a `habit`. `capacity_gpus` is certified in every hour listed."""

    name: str
    what: str
    deposit_micros: int
    style: Style | None = None
    capacity_gpus: int = 0
    habit: type[Taker] | None = None
    pause_ms: int = 0
    size: int = 0
    classes: tuple[str, ...] = ()  # that it trades; none: all
    places: tuple[int, ...] = ()  # positions in the list of the demo's regions; none: all


CAST = (
    Part("northfjord", "provider and maker", 20_000_000 * MICROS, Style(3_000, 2_500, 0, 6), capacity_gpus=1_600),
    Part("prairie-grid", "provider and maker", 20_000_000 * MICROS, Style(4_000, 2_000, 500, 8), 2_400),
    Part("spreadworks", "maker, resells", 20_000_000 * MICROS, Style(2_000, 3_000, 0, 4)),
    Part("hourglass", "maker, resells", 20_000_000 * MICROS, Style(2_400, 2_000, 0, 5)),
    Part("aurora-ai", "buys every hour", 10_000_000 * MICROS, None, 0, SteadyBuyer, 40, 2, ("H100S", "A100S")),
    Part("pixelmill", "buys every hour", 5_000_000 * MICROS, None, 0, SteadyBuyer, 50, 2, ("L4",)),
    Part("nomad-batch", "buys the cheapest", 5_000_000 * MICROS, None, 0, ThriftyBuyer, 60, 2, ("A100S",)),
    Part("slowbid", "rests bids", 5_000_000 * MICROS, None, 0, PatientBuyer, 40, 2, ("H100S", "L4")),
    Part("tidewatch", "follows the trend", 10_000_000 * MICROS, None, 0, Momentum, 60, 2, ("H100S",)),
    Part("flip-labs", "resells in time", 10_000_000 * MICROS, None, 0, Reseller, 60, 2, (), (0, 1)),
    Part("kepler-lab", "changes its plans", 5_000_000 * MICROS, None, 0, Rebalancer, 50, 2, (), (1, 2)),
)

CLASSES = ("H100S", "A100S", "L4")
REGIONS = ("USE", "USC", "EUC", "APN", "UKI", "USW", "APS", "CAN", "EUN", "UST", "LAM", "MEA")


def markets(count: int) -> tuple[str, ...]:
    """The first `count` markets: every class in a region before the next region. Raises ValueError for more than there are."""
    every = [f"{gpu_class}-{region}" for region in REGIONS for gpu_class in CLASSES]
    if not 1 <= count <= len(every):
        raise ValueError(f"{count} markets: from 1 to {len(every)}")
    return tuple(every[:count])


def scope(part: Part, traded: tuple[str, ...]) -> tuple[str, ...]:
    """The markets a part trades, out of those of the demo; all of them where nothing would be left."""
    regions = list(dict.fromkeys(market.partition("-")[2] for market in traded))
    wanted = {region for at, region in enumerate(regions) if not part.places or at in part.places}
    classes = set(part.classes) or set(CLASSES)
    found = tuple(
        market for market in traded if market.partition("-")[0] in classes and market.partition("-")[2] in wanted
    )
    return found or traded
