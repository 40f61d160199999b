"""Takes each hour's index from the books to the gateway's channel `index`, and to the calendar, which refers to it."""

from collections.abc import Sequence

from msgspec import Struct

from engine.catalogue import HOUR_S
from engine.types import EventKind
from gateway.indices import IndexValue
from gateway.messages import IndexSource
from settlement.index import Source
from settlement.indices import Indices, Published
from settlement.service import Job

SOURCES: dict[Source, IndexSource] = {
    Source.PRINTS: "prints",
    Source.PREVIOUS_HOUR: "previous_hour",
    Source.REFERENCE: "reference",
}
DAY_S = 24 * HOUR_S
REMEMBERED_S = 7 * DAY_S
"""An index that is older says nothing about today."""


class Reference(Struct, frozen=True, array_like=True):
    """What later hours need of an index; the price is in ticks."""

    class_id: int
    region_id: int
    start_s: int
    price: int
    source: Source


class IndexFeed:
    """Reads the books. On one thread, except before a node has started."""

    def __init__(self, indices: Indices) -> None:
        self._indices = indices

    def standing(self) -> list[Published]:
        """All of what is closed and not gone, to begin with."""
        return self._indices.published(only_listed=True)

    def since(self, start_s: int) -> list[Published]:
        """Those of all hours from one on, gone or not."""
        return self._indices.published(from_s=start_s)

    def references(self, start_s: int) -> list[Reference]:
        """Of each market's hours of the day the newest index that trades made, of the hours from one on."""
        newest: dict[tuple[int, int, int], Reference] = {}
        for one in sorted(self.since(start_s), key=lambda one: one.start_s):
            if one.source == Source.PRINTS:
                market = (one.class_id, one.region_id)
                newest[*market, one.start_s % DAY_S] = Reference(*market, one.start_s, one.price, one.source)
        return list(newest.values())

    def of(self, jobs: Sequence[Job]) -> list[Published]:
        """Those that batches made, once they are in the books."""
        if not any(EventKind.CLOSED in events["kind"].tobytes() for _, events in jobs):
            return []
        return self._indices.published(int(jobs[0][0]["seq"][0]) - 1, only_listed=True)


def shown(indices: list[Published]) -> list[IndexValue]:
    """As the channel has them."""
    return [IndexValue(one.symbol, one.price, SOURCES[one.source], one.prints, one.owners, one.lots) for one in indices]
