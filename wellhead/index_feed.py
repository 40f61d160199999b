"""Takes each hour's index from the books to the gateway's channel `index`, and to the calendar, which refers to it."""

from collections.abc import Sequence

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

    def of(self, jobs: Sequence[Job]) -> list[Published]:
        """Those that batches made, once they are in the books."""
        if not any(EventKind.CLOSED in events["kind"].tobytes() for _, events in jobs):
            return []
        return self._indices.published(int(jobs[0][0]["seq"][0]) - 1, only_listed=True)


def shown(indices: list[Published]) -> list[IndexValue]:
    """As the channel has them."""
    return [IndexValue(one.symbol, one.price, SOURCES[one.source], one.prints, one.owners, one.lots) for one in indices]
