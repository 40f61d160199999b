"""What the passing of time asks for: hours to list, gates to close, cycles to end.

Pure: reads the engine's tables, the time and the indices it is given, and answers with commands for the log. Beside
the indices nothing is remembered but when the cycle at hand began, which the books know, so a restart needs no care: what
is still due is due.

An hour's index is the reference price of the same hour of the days that follow, in the same market: what bands, auctions
without a trade before them and bonds are measured by.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import HOUR_S, NS, Catalogue, Contract
from engine.engine import Engine
from engine.types import COMMAND, LISTING, Kind, Status
from settlement.index import Source
from settlement.indices import Published
from wellhead.index_feed import DAY_S, REMEMBERED_S, Reference

ReferencePrice = Callable[[Contract], int | None]
"""A reference in ticks from outside the exchange, or None where there is none."""


class Calendar:
    """Commands that are due, for the markets it was told to keep."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        engine: Engine,
        catalogue: Catalogue,
        markets: tuple[str, ...] = (),
        list_hours: int = 0,
        reference_price: ReferencePrice = lambda contract: None,
        cycle_ns: int | None = None,
    ) -> None:
        """`markets` are CLASS-REGION pairs, all of the catalogue when empty; `cycle_ns` is when the cycle at hand began, the
        engine's time when None. Raises KeyError for an unknown market.
        """
        self._engine = engine
        self._catalogue = catalogue
        self._names = markets
        self._markets = _pairs(catalogue, markets)
        self._list_hours = list_hours
        self._reference_price = reference_price
        self._cycle_ns = catalogue.cycle_hours * HOUR_S * NS
        began_ns = engine.now_ns if cycle_ns is None else cycle_ns
        self._last_cycle = began_ns // self._cycle_ns if engine.applied_seq else None
        self._listed_until_s = 0
        self._calls_end: dict[int, int] = {}
        self._next_indication_ns = 0
        self._indices: dict[tuple[int, int, int], int] = {}  # by class, region and first second
        self._fresh: list[Published | Reference] = []

    def know(self, indices: Iterable[Published | Reference]) -> None:
        """Take in the indices of hours, in the order of their gates. Those that no trades made say nothing new."""
        found = [index for index in indices if index.source == Source.PRINTS]
        self.remember(found)
        self._fresh += found

    def remember(self, indices: Iterable[Published | Reference]) -> None:
        """The same for indices that the hours which are listed refer to already."""
        for index in indices:
            self._indices[index.class_id, index.region_id, index.start_s] = index.price

    def look_again(self) -> None:
        """The catalogue has grown: where all markets are kept, the new ones are too."""
        self._markets = _pairs(self._catalogue, self._names)
        self._listed_until_s = 0

    def due(self, now_ns: int) -> NDArray[np.void]:
        """The commands (COMMAND) that time asks for now: gates first, then calls and bands, new hours, the cycle's end.

        The caller must have them applied before it asks again.
        """
        references, late = self._references(now_ns), self._late_bands(now_ns)
        parts = [
            self._gates(now_ns),
            self._indications(now_ns),
            self._calls(now_ns),
            references,
            # Both have all terms of a book: what has its reference changed is widened the next time.
            late[~np.isin(late["instrument"], references["instrument"])],
            self._listings(now_ns),
            self._cycle_end(now_ns),
        ]
        due = [part for part in parts if len(part)]
        return np.concatenate(due) if due else np.zeros(0, COMMAND)

    def _gates(self, now_ns: int) -> NDArray[np.void]:
        arrays, used = self._engine.memory.arrays, int(self._engine.memory.header["instruments_used"])
        books = arrays["books"][:used]
        passed = np.flatnonzero(_is_open(books) & (books["gate_ns"] <= now_ns))
        commands = np.zeros(len(passed), COMMAND)
        commands["kind"] = Kind.CLOSE
        commands["instrument"] = passed
        return commands

    def _calls(self, now_ns: int) -> NDArray[np.void]:
        """End call auctions after their time, whoever began them. One found after a restart is given it once more."""
        books = self._books()
        in_call = np.flatnonzero((books["status"] == Status.AUCTION) & (books["gate_ns"] > now_ns)).tolist()
        length_ns = self._catalogue.bands.call_seconds * NS
        self._calls_end = {number: self._calls_end.get(number, now_ns + length_ns) for number in in_call}
        over = [number for number, end_ns in self._calls_end.items() if end_ns <= now_ns]
        commands = np.zeros(0 if self._engine.memory.header["halted"] else len(over), COMMAND)
        commands["kind"], commands["qty"] = Kind.SET_STATUS, Status.CONTINUOUS
        commands["instrument"] = over[: len(commands)]
        return commands

    def _indications(self, now_ns: int) -> NDArray[np.void]:
        """Once a second, for those who watch: what each book in a call would trade if it ended now."""
        if now_ns < self._next_indication_ns:
            return np.zeros(0, COMMAND)
        books = self._books()
        in_call = np.flatnonzero((books["status"] == Status.AUCTION) & (books["gate_ns"] > now_ns))
        if len(in_call):
            self._next_indication_ns = now_ns + NS
        commands = np.zeros(len(in_call), COMMAND)
        commands["kind"], commands["instrument"] = Kind.INDICATE, in_call
        return commands

    def _references(self, now_ns: int) -> NDArray[np.void]:
        """Give the hours that a new index speaks for its price, where no other reference is given from outside."""
        fresh, self._fresh = self._fresh, []
        old_s = now_ns // NS - REMEMBERED_S
        if fresh:
            self._indices = {key: price for key, price in self._indices.items() if key[2] >= old_s}
        prices: dict[int, int] = {}
        for index in fresh:
            if index.start_s >= old_s:
                prices |= dict.fromkeys(self._spoken_for(index, now_ns), index.price)
        contracts = self._engine.memory.arrays["contracts"]
        changed = {n: price for n, price in prices.items() if contracts["reference_price"][n] != price}
        return self._set_bands(list(changed), reference_price=list(changed.values()))

    def _spoken_for(self, index: Published | Reference, now_ns: int) -> list[int]:
        """The open books of the same hour on a later day, unless the index of a later day speaks for them already."""
        books, market = self._books(), (index.class_id, index.region_id)
        contracts = self._engine.memory.arrays["contracts"][: len(books)]
        hours = [start_s for *key, start_s in self._indices if tuple(key) == market]
        if any(start_s > index.start_s and (start_s - index.start_s) % DAY_S == 0 for start_s in hours):
            return []
        same = (contracts["class_id"] == index.class_id) & (contracts["region_id"] == index.region_id)
        same &= (contracts["start_s"] > index.start_s) & ((contracts["start_s"] - index.start_s) % DAY_S == 0)
        numbers = np.flatnonzero(same & _is_open(books) & (books["gate_ns"] > now_ns)).tolist()
        return [number for number in numbers if self._reference_price(self._contract(contracts[number])) is None]

    def _contract(self, row: np.void) -> Contract:
        catalogue = self._catalogue
        gpu_class, region = catalogue.class_by_id[int(row["class_id"])], catalogue.region_by_id[int(row["region_id"])]
        return Contract(gpu_class, region, int(row["start_s"]))

    def _set_bands(self, numbers: list[int], **terms: int | list[int]) -> NDArray[np.void]:
        """SET_BAND commands that change some of the books' terms and leave the others."""
        contracts = self._engine.memory.arrays["contracts"][np.array(numbers, np.int64)]
        commands = np.zeros(len(numbers), LISTING)
        commands["kind"], commands["instrument"] = Kind.SET_BAND, numbers
        for field in ("reference_price", "band_ppm", "collar_ppm", "dynamic_ppm"):
            commands[field] = terms.get(field, contracts[field])
        return commands.view(COMMAND)

    def _late_bands(self, now_ns: int) -> NDArray[np.void]:
        """Widen the bands of the books whose gate is near."""
        bands, books = self._catalogue.bands, self._books()
        if bands.late_band_ppm == 0:
            return np.zeros(0, COMMAND)
        contracts = self._engine.memory.arrays["contracts"][: len(books)]
        late = _is_open(books) & (books["gate_ns"] - bands.late_hours * HOUR_S * NS <= now_ns)
        narrow = (contracts["band_ppm"] != bands.late_band_ppm) & (contracts["band_ppm"] == bands.band_ppm)
        numbers = np.flatnonzero(late & narrow & (books["gate_ns"] > now_ns))
        return self._set_bands(numbers.tolist(), band_ppm=bands.late_band_ppm)

    def _books(self) -> NDArray[np.void]:
        memory = self._engine.memory
        return memory.arrays["books"][: int(memory.header["instruments_used"])]

    def _listings(self, now_ns: int) -> NDArray[np.void]:
        until_s = self._horizon_s(now_ns)
        if until_s == self._listed_until_s:
            return np.zeros(0, COMMAND)
        wanted = self._wanted(now_ns, until_s)
        numbers = self._free_numbers(len(wanted))
        if len(numbers) == len(wanted):  # otherwise the rest is listed as soon as there is room
            self._listed_until_s = until_s
        listings = [
            self._catalogue.listing(contract, number, now_ns, self._reference(contract))
            for contract, number in zip(wanted, numbers, strict=False)
        ]
        return np.concatenate([np.zeros(0, LISTING), *listings]).view(COMMAND)

    def _horizon_s(self, now_ns: int) -> int:
        """The first hour that is not to be listed yet."""
        if self._list_hours:
            # The hour whose gate is next, and those behind it.
            gate_s = self._catalogue.gate_minutes * 60
            return (now_ns // NS + gate_s) // HOUR_S * HOUR_S + (1 + self._list_hours) * HOUR_S
        midnight = datetime.fromtimestamp(now_ns // NS, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return int((midnight + timedelta(days=1 + self._catalogue.list_ahead_days)).timestamp())

    def _wanted(self, now_ns: int, until_s: int) -> list[Contract]:
        listed = self._listed()
        gate_s = self._catalogue.gate_minutes * 60
        first_s = (now_ns // NS + gate_s) // HOUR_S * HOUR_S + HOUR_S
        contracts = []
        for start_s in range(first_s, until_s, HOUR_S):
            for gpu_class, region in self._markets:
                if (gpu_class.id, region.id, start_s) not in listed:
                    contracts.append(Contract(gpu_class, region, start_s))
        return contracts

    def _listed(self) -> set[tuple[int, int, int]]:
        arrays, used = self._engine.memory.arrays, int(self._engine.memory.header["instruments_used"])
        contracts = arrays["contracts"][:used][arrays["books"]["status"][:used] != Status.NONE]
        return set(
            zip(
                contracts["class_id"].tolist(),
                contracts["region_id"].tolist(),
                contracts["start_s"].tolist(),
                strict=True,
            )
        )

    def _free_numbers(self, count: int) -> list[int]:
        """The lowest free instrument numbers, as many as asked for or as the limit allows."""
        memory = self._engine.memory
        used = int(memory.header["instruments_used"])
        free = np.flatnonzero(memory.arrays["books"]["status"][1:used] == Status.NONE) + 1
        fresh = range(used, min(used + count, memory.limits.max_instruments + 1))
        return [*free.tolist(), *fresh][:count]

    def _reference(self, contract: Contract) -> int:
        """From outside; else the newest index of the same hour of the day, or of any hour; else the last price of the same
        market in any hour; else the catalogue's seed.
        """
        price = self._reference_price(contract)
        if price is None:
            price = self._index_price(contract)
        if price is None:
            price = self._last_price(contract)
        return contract.gpu_class.seed_price if price is None else price

    def _index_price(self, contract: Contract) -> int | None:
        market = (contract.gpu_class.id, contract.region.id)
        hours = [start_s for *key, start_s in self._indices if tuple(key) == market]
        same = [start_s for start_s in hours if (start_s - contract.start_s) % DAY_S == 0]
        return self._indices[*market, max(same or hours)] if hours else None

    def _last_price(self, contract: Contract) -> int | None:
        arrays, used = self._engine.memory.arrays, int(self._engine.memory.header["instruments_used"])
        contracts, books = arrays["contracts"][:used], arrays["books"][:used]
        same = (contracts["class_id"] == contract.gpu_class.id) & (contracts["region_id"] == contract.region.id)
        traded = np.flatnonzero(same & (books["last_price"] >= 0))
        if not len(traded):
            return None
        nearest = traded[np.abs(contracts["start_s"][traded] - contract.start_s).argmin()]
        return int(books["last_price"][nearest])

    def _cycle_end(self, now_ns: int) -> NDArray[np.void]:
        cycle = now_ns // self._cycle_ns
        ends = self._last_cycle is not None and cycle > self._last_cycle
        self._last_cycle = cycle
        commands = np.zeros(int(ends), COMMAND)
        commands["kind"] = Kind.CLOSE_CYCLE
        return commands


def _is_open(books: NDArray[np.void]) -> NDArray[np.bool_]:
    """Of each book, whether it is listed and has not met its gate."""
    open_: NDArray[np.bool_] = (books["status"] != Status.NONE) & (books["status"] != Status.CLOSED)
    return open_


def _pairs(catalogue: Catalogue, markets: tuple[str, ...]) -> list[tuple]:  # type: ignore[type-arg]
    if not markets:
        return [(gpu_class, region) for gpu_class in catalogue.classes for region in catalogue.regions]
    pairs = []
    for market in markets:
        class_name, _, region_name = market.partition("-")
        pairs.append((catalogue.class_by_name[class_name], catalogue.region_by_name[region_name]))
    return pairs
