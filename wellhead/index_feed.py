"""Takes each hour's index from the books to the gateway's channel `index`."""

from typing import Any

from numpy.typing import NDArray

from engine.types import EventKind
from gateway.indices import IndexValue
from gateway.messages import IndexSource
from settlement.index import Source
from settlement.service import Settlement

SOURCES: dict[Source, IndexSource] = {
    Source.PRINTS: "prints",
    Source.PREVIOUS_HOUR: "previous_hour",
    Source.REFERENCE: "reference",
}


class IndexFeed:
    """Reads the books. On the thread that writes them, except for the first call."""

    def __init__(self, settlement: Settlement) -> None:
        self._settlement = settlement

    def standing(self) -> list[IndexValue]:
        """All of what is closed and not gone, to begin with."""
        return self._after(0)

    def of(self, commands: NDArray[Any], events: NDArray[Any]) -> list[IndexValue]:
        """Those that a batch made, once it is in the books."""
        if not (events["kind"] == EventKind.CLOSED).any():
            return []
        return self._after(int(commands["seq"][0]) - 1)

    def _after(self, seq: int) -> list[IndexValue]:
        found = self._settlement.books.indices.published(seq, only_listed=True)
        return [
            IndexValue(one.symbol, one.price, SOURCES[one.source], one.prints, one.owners, one.lots) for one in found
        ]
