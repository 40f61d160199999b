"""The ledger worked out again from the log, beside the one that is there: row by row, and when each row happened."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from settlement.database import Database
from settlement.ledger import MOVE, Difference, Ledger
from settlement.moves import times_of
from settlement.posting import PostingError, post
from settlement.registry import Registry

MOST_FOUND = 10
"""Of a ledger that is another one altogether the first differences say enough."""


class Rebuild:
    """Follows the log from its first command on; `found` is where the ledger differs from what it leads to."""

    def __init__(self, ledger: Ledger) -> None:
        self.found: list[Difference] = []
        self._ledger = ledger
        self._applied_seq = ledger.head().applied_seq
        self._names = Database(Path(":memory:"))
        self._registry = Registry(self._names)
        self._registry.create()

    def on_batch(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        """Compare what these commands moved. What the ledger has not applied yet is left out."""
        if not len(commands) or len(self.found) >= MOST_FOUND:
            return
        terms = self._registry.on_batch(commands, events)
        first, last = int(commands["seq"][0]), int(commands["seq"][-1])
        try:
            posting = post(commands, events, terms)
        except PostingError as error:
            self.found.append(Difference("posting", "log", "transfers", str(error), first))
            return
        expected = posting.transfers[posting.transfers["seq"] <= self._applied_seq]
        have = np.concatenate([np.zeros(0, MOVE), *self._ledger.transfers(first, last)])
        times = [
            times_of(moments, rows["seq"])
            for moments, rows in ((posting.moments, expected), (self._ledger.moments(first, last), have))
        ]
        rows = [
            list(zip(of.tolist(), at.tolist(), strict=True)) for of, at in zip((expected, have), times, strict=True)
        ]
        if rows[0] != rows[1]:
            self._report(*rows)

    def _report(self, expected: list[Any], have: list[Any]) -> None:
        at = next((n for n, pair in enumerate(zip(expected, have, strict=False)) if pair[0] != pair[1]), None)
        at = min(len(expected), len(have)) if at is None else at
        one, other = (rows[at] if at < len(rows) else "none" for rows in (expected, have))
        seq = min(rows[at][0][0] for rows in (expected, have) if at < len(rows))
        self.found.append(Difference("transfer against the log", "ledger", one, other, seq))

    def close(self) -> None:
        self._names.close()
