"""Classes, regions and periods: what a symbol means, and the terms on which it is listed.

A symbol is `CLASS-REGION-PERIOD`, for example `H100S-USE-H26112214`: one lot of H100S in US East for the hour that
begins 2026-11-22 14:00 UTC. All of it is data (`catalogue.toml`); the engine sees only the LISTING record made here.
"""

import re
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.types import (
    ID_WORDS,
    LISTING,
    MAX_BAND_PPM,
    MAX_FEE_PPM,
    MAX_LOT_VALUE_MICROS,
    MAX_PRICE_TICKS,
    Kind,
)

HOUR_S = 3_600
NS = 1_000_000_000
ID_BYTES = ID_WORDS * 8
DEFAULT_PATH = Path(__file__).with_name("catalogue.toml")

_HOUR_SYMBOL = re.compile(r"([A-Z0-9]+)-([A-Z]+)-H(\d{8})")


class CatalogueError(ValueError):
    """The catalogue, or a symbol read against it, is wrong; the message says where."""


@dataclass(frozen=True, slots=True)
class GpuClass:
    """A row of `[[class]]`: hardware that is equal for delivery."""

    id: int
    name: str
    hardware: str
    gpus_per_lot: int
    tick_micros: int
    seed_price_micros: int
    watts_per_lot: int

    @property
    def seed_price(self) -> int:
        """The seed price in ticks."""
        return self.seed_price_micros // self.tick_micros


@dataclass(frozen=True, slots=True)
class Region:
    """A row of `[[region]]`: a place tied to one power market."""

    id: int
    name: str
    place: str
    zone: str


@dataclass(frozen=True, slots=True)
class Contract:
    """One hour of one class in one region."""

    gpu_class: GpuClass
    region: Region
    start_s: int

    @property
    def symbol(self) -> str:
        return f"{self.gpu_class.name}-{self.region.name}-{hour_text(self.start_s)}"


@dataclass(frozen=True)
class Bands:
    """How far prices may go, in ppm, 0 for as far as they like; and when that changes."""

    band_ppm: int = 0  # of the reference price, either way
    late_band_ppm: int = 0  # instead, in the last `late_hours` before the gate; 0: as before
    late_hours: int = 4
    collar_ppm: int = 0  # of a market order, from the best price
    dynamic_ppm: int = 0  # from the last trade; beyond, a call auction
    call_seconds: int = 120  # how long that lasts


@dataclass(frozen=True)
class Catalogue:
    """Everything `catalogue.toml` says, checked when it is read."""

    venue: str
    stablecoin: str
    taker_fee_ppm: int
    maker_rebate_ppm: int
    max_price_micros: int
    bond_ppm: int
    list_ahead_days: int
    gate_minutes: int
    cycle_hours: int
    classes: tuple[GpuClass, ...]
    regions: tuple[Region, ...]
    bands: Bands = Bands()

    @classmethod
    def load(cls, path: Path = DEFAULT_PATH) -> Self:
        """Read a catalogue. Raises CatalogueError where a row is missing, repeated or would not fit an int64."""
        try:
            rows = tomllib.loads(path.read_text(encoding="utf-8"))
            catalogue = cls._from_rows(rows)
        except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
            raise CatalogueError(f"{path.name}: {error!r}") from error
        catalogue._check()
        return catalogue

    @classmethod
    def _from_rows(cls, rows: dict[str, Any]) -> Self:
        fees, risk, calendar = rows["fees"], rows["risk"], rows["calendar"]
        return cls(
            venue=rows["venue"]["name"],
            stablecoin=rows["venue"]["stablecoin"],
            taker_fee_ppm=fees["taker_ppm"],
            maker_rebate_ppm=fees["maker_rebate_ppm"],
            max_price_micros=risk["max_price_micros"],
            bond_ppm=risk["bond_ppm"],
            list_ahead_days=calendar["list_ahead_days"],
            gate_minutes=calendar["gate_minutes"],
            cycle_hours=calendar["cycle_hours"],
            classes=tuple(GpuClass(**row) for row in rows["class"]),
            regions=tuple(Region(**row) for row in rows["region"]),
            bands=Bands(**rows.get("bands", {})),
        )

    def _check(self) -> None:
        for what, items in (("class", self.classes), ("region", self.regions)):
            for field in ("id", "name"):
                values = [getattr(item, field) for item in items]
                if len(set(values)) != len(values):
                    raise CatalogueError(f"two rows of [[{what}]] have the same {field}")
        if not 0 <= self.maker_rebate_ppm <= self.taker_fee_ppm <= MAX_FEE_PPM:
            raise CatalogueError(f"fees: need 0 <= maker_rebate_ppm <= taker_ppm <= {MAX_FEE_PPM}")
        bands = self.bands
        for ppm in (bands.band_ppm, bands.late_band_ppm, bands.collar_ppm, bands.dynamic_ppm):
            if not 0 <= ppm <= MAX_BAND_PPM:
                raise CatalogueError(f"bands: a width of {ppm} ppm is not from 0 to {MAX_BAND_PPM}")
        for row in self.classes:
            if row.tick_micros < 1 or row.gpus_per_lot < 1:
                raise CatalogueError(f"class {row.name}: a tick and a lot are not below one")
            if self.max_price_micros % row.tick_micros or row.seed_price_micros % row.tick_micros:
                raise CatalogueError(
                    f"class {row.name}: a price is not a whole number of ticks of {row.tick_micros} micros"
                )
            if self.max_price_micros // row.tick_micros > MAX_PRICE_TICKS:
                raise CatalogueError(f"class {row.name}: more than {MAX_PRICE_TICKS} ticks up to the highest price")
            if self.max_price_micros * row.gpus_per_lot > MAX_LOT_VALUE_MICROS:
                raise CatalogueError(f"class {row.name}: a lot may be worth {MAX_LOT_VALUE_MICROS} micros at the most")

    def add(self, path: Path) -> list[str]:
        """Add the classes and regions of a file, which has rows of these alone. Returns the names of what is new.

        Raises CatalogueError, also for a row that differs from the one of its name here; then nothing has changed.
        """
        try:
            rows = tomllib.loads(path.read_text(encoding="utf-8"))
            if unknown := sorted(rows.keys() - {"class", "region"}):
                raise CatalogueError(f"{path.name}: {unknown[0]} cannot be added, only [[class]] and [[region]]")
            classes = [GpuClass(**row) for row in rows.get("class", [])]
            regions = [Region(**row) for row in rows.get("region", [])]
        except (TypeError, AttributeError, tomllib.TOMLDecodeError) as error:
            raise CatalogueError(f"{path.name}: {error!r}") from error
        changed = [row.name for row in classes if self.class_by_name.get(row.name, row) != row]
        changed += [row.name for row in regions if self.region_by_name.get(row.name, row) != row]
        if changed:
            raise CatalogueError(f"{path.name}: {changed[0]} is there already, with other terms")
        new_classes = tuple(row for row in classes if row.name not in self.class_by_name)
        new_regions = tuple(row for row in regions if row.name not in self.region_by_name)
        grown = replace(self, classes=self.classes + new_classes, regions=self.regions + new_regions)
        grown._check()
        # Whoever has the catalogue has the new rows: it grows in place, and nothing that was read from it changes.
        self.__dict__.clear()
        self.__dict__.update(grown.__dict__)
        return [row.name for row in new_classes] + [row.name for row in new_regions]

    @cached_property
    def class_by_name(self) -> dict[str, GpuClass]:
        return {row.name: row for row in self.classes}

    @cached_property
    def region_by_name(self) -> dict[str, Region]:
        return {row.name: row for row in self.regions}

    @cached_property
    def class_by_id(self) -> dict[int, GpuClass]:
        return {row.id: row for row in self.classes}

    @cached_property
    def region_by_id(self) -> dict[int, Region]:
        return {row.id: row for row in self.regions}

    def contract(self, symbol: str) -> Contract:
        """The contract a symbol names. Raises CatalogueError when it names none."""
        match = _HOUR_SYMBOL.fullmatch(symbol)
        if not match or match[1] not in self.class_by_name or match[2] not in self.region_by_name:
            raise CatalogueError(f"{symbol!r} is not CLASS-REGION-Hyymmddhh of this catalogue")
        try:
            start = datetime.strptime(match[3], "%y%m%d%H").replace(tzinfo=UTC)
        except ValueError as error:
            raise CatalogueError(f"{symbol!r}: no such hour") from error
        return Contract(self.class_by_name[match[1]], self.region_by_name[match[2]], int(start.timestamp()))

    def listing(self, contract: Contract, instrument: int, open_ns: int, reference_price: int) -> NDArray[np.void]:
        """The LISTING command (an array of one) that opens a book for a contract.

        `reference_price` is in ticks; bonds, and later the price bands, are measured by it.
        """
        row = contract.gpu_class
        listing = np.zeros(1, LISTING)
        listing["kind"] = Kind.LIST
        listing["instrument"] = instrument
        listing["class_id"], listing["region_id"] = row.id, contract.region.id
        listing["gpus_per_lot"], listing["hours"] = row.gpus_per_lot, 1
        listing["start_s"] = contract.start_s
        listing["tick_micros"] = row.tick_micros
        listing["lot_tick_micros"] = row.tick_micros * row.gpus_per_lot
        listing["max_price"] = self.max_price_micros // row.tick_micros
        listing["reference_price"] = reference_price
        listing["open_ns"] = open_ns
        listing["gate_ns"] = (contract.start_s - self.gate_minutes * 60) * NS
        listing["taker_fee_ppm"], listing["maker_rebate_ppm"] = self.taker_fee_ppm, self.maker_rebate_ppm
        listing["bond_ppm"] = self.bond_ppm
        listing["band_ppm"] = self.bands.band_ppm
        listing["collar_ppm"], listing["dynamic_ppm"] = self.bands.collar_ppm, self.bands.dynamic_ppm
        listing["symbol"] = pack_id(contract.symbol)
        return listing


def hour_text(start_s: int) -> str:
    """The period of an hour: `Hyymmddhh`, UTC."""
    return datetime.fromtimestamp(start_s, UTC).strftime("H%y%m%d%H")


def pack_id(text: str) -> NDArray[np.uint64]:
    """ASCII text of at most 40 characters as five words. Raises ValueError for longer or other text."""
    data = text.encode("ascii")
    if len(data) > ID_BYTES:
        raise ValueError(f"{text!r} is longer than {ID_BYTES} bytes")
    return np.frombuffer(data.ljust(ID_BYTES, b"\0"), "<u8")


def unpack_id(words: NDArray[np.uint64]) -> str:
    """The text that `pack_id` packed; of other bytes their escapes, so that no reader of the log stops at them."""
    return np.asarray(words, "<u8").tobytes().rstrip(b"\0").decode("ascii", "backslashreplace")
