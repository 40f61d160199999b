"""What the books have for the wire: batches and deliveries for the public channels, and an account's papers on request.

News is read on the thread that books, between two transactions. Papers are read on a thread of their own,
from the statements' files and through a second connection that only reads: whoever downloads a year of statements
keeps neither the market nor the books waiting.
"""

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engine.catalogue import Catalogue
from gateway.messages import (
    BatchState,
    Code,
    DeliveryState,
    IndexSource,
    Proof,
    ProofResult,
    RequestError,
    Statement,
    StatementPart,
    Statements,
    StatementsResult,
    StatementState,
)
from gateway.settled import Answer, Question, no_such_cycle
from settlement.batches import Batch
from settlement.batches import BatchState as Stage
from settlement.index import Source
from settlement.liabilities import SumTree, assets_micros, owed_to_members
from settlement.netting import Nets
from settlement.service import Books
from wellhead.settle import SettleError, proof_of

log = logging.getLogger(__name__)

RECENT_BATCHES = 42  # a week of them, read at the start
RECENT_DELIVERIES = 500
PART_BYTES = 65_536
INDEX_FROM: dict[int, IndexSource] = {
    Source.PRINTS: "prints",
    Source.PREVIOUS_HOUR: "previous_hour",
    Source.REFERENCE: "reference",
}


class News:
    """Reads what is new in the books. On one thread."""

    def __init__(self, books: Books, catalogue: Catalogue) -> None:
        self._books = books
        self._catalogue = catalogue
        self._told_cycle = 0

    def read(self) -> tuple[list[BatchState], list[DeliveryState]]:
        """The batches that were frozen since the last time, and the newest deliveries."""
        frozen = [batch for batch in self._books.batches.all() if batch.state >= Stage.FROZEN]
        fresh = [batch for batch in frozen if batch.cycle > self._told_cycle][-RECENT_BATCHES:]
        if fresh:
            self._told_cycle = fresh[-1].cycle
        return [self._batch(batch) for batch in fresh], self._deliveries()

    def _batch(self, batch: Batch) -> BatchState:
        batches = self._books.batches
        closing = batches.closing(batch.cycle)
        owed = owed_to_members(closing, batches.members(batch))
        tree = SumTree(batch.cycle, owed) if owed else None
        return BatchState(
            batch.cycle, batch.closed_ns // 1000, batch.from_seq, batch.to_seq, batch.state.name.lower(),
            batch.gross_micros, Nets(batches.nets(batch.cycle), batch.gross_micros).debits_micros, batch.leaves,
            batch.root.hex(), batch.previous_id.hex(), batch.batch_id.hex(), tree.total_micros if tree else 0,
            assets_micros(closing), tree.root.hex() if tree else "",
        )  # fmt: skip

    def _deliveries(self) -> list[DeliveryState]:
        query = (
            "SELECT symbol, listings.start_s, SUM(deliveries.lots),"
            " SUM(CASE WHEN done_seq IS NULL THEN 0 ELSE deliveries.lots END), COUNT(DISTINCT provider),"
            " COUNT(DISTINCT receiver), SUM(share_micros), COALESCE(SUM(refund_micros), 0),"
            " COALESCE(SUM(damages_micros), 0), COALESCE(SUM(shortfall_micros), 0), listings.class_id, indices.price,"
            " indices.source FROM deliveries JOIN listings USING (asset) JOIN indices USING (asset)"
            " GROUP BY asset, symbol, listings.start_s, listings.class_id, indices.price, indices.source"
            " ORDER BY asset DESC LIMIT ?"
        )
        found = []
        for symbol, start_s, *figures, class_id, price, source in self._books.database.rows(
            query, (RECENT_DELIVERIES,)
        ):
            lots, done, providers, receivers, paid, refund, damages, shortfall = figures
            index = price * self._catalogue.class_by_id[class_id].tick_micros
            found.append(
                DeliveryState(
                    symbol, start_s * 1_000_000, lots, done, providers, receivers, paid, refund, damages, shortfall,
                    index, INDEX_FROM[source],
                )
            )  # fmt: skip
        return found[::-1]


class PaperRoom:
    """Answers questions about an account's papers. Open it on the event loop; `close` waits for what is being read."""

    def __init__(self, directory: Path, catalogue: Catalogue) -> None:
        """`directory` is that of the books."""
        self._directory = directory
        self._catalogue = catalogue
        self._thread = ThreadPoolExecutor(1, "papers")
        self._books: Books | None = None

    def ask(self, account: int, question: Question, answer: Answer) -> None:
        """Look something up and call `answer` with it, later, on the loop's thread."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            found = self._read(account, question)
            loop.call_soon_threadsafe(answer, found)

        self._thread.submit(read)

    def close(self) -> None:
        """Let go of the books."""
        self._thread.shutdown()
        if self._books is not None:
            self._books.close()

    def _read(self, account: int, question: Question) -> Any | RequestError:
        try:
            if self._books is None:
                self._books = Books(self._directory, self._catalogue, read_only=True)
            with self._books.database.reading():
                return self._look_up(self._books, account, question)
        except SettleError:
            return no_such_cycle(None if isinstance(question, Statements) else question.cycle)
        except Exception:
            log.exception("papers could not be read")
            return RequestError(Code.INTERNAL, "a fault of the server; it is logged")

    def _look_up(self, books: Books, account: int, question: Question) -> Any | RequestError:
        match question:
            case Statement():
                return self._part(account, question)
            case Proof():
                proof = proof_of(books, question.cycle, account)
                return ProofResult(proof["cycle"], json.dumps(proof, indent=1))
            case Statements():
                return StatementsResult(statements(books, account))

    def _part(self, account: int, question: Statement) -> StatementPart | RequestError:
        path = self._directory / "statements" / str(question.cycle) / f"{account}.{question.format}"
        try:
            size = path.stat().st_size
            with open(path, "rb") as file:
                file.seek(question.offset)
                data = file.read(PART_BYTES)
        except FileNotFoundError:
            return no_such_cycle(question.cycle)
        return StatementPart(question.cycle, question.format, question.offset, size, data.decode("ascii"))


def statements(books: Books, account: int) -> list[StatementState]:
    """The cycles in which an account was a member, newest first."""
    found = []
    for batch in reversed([batch for batch in books.batches.all() if batch.state >= Stage.FROZEN]):
        if account not in books.batches.members(batch):
            break  # it was opened later
        sums = books.batches.nets(batch.cycle).get(account)
        net, external = (sums.net_micros, sums.external_micros) if sums else (0, 0)
        found.append(
            StatementState(
                batch.cycle, batch.closed_ns // 1000, batch.from_seq, batch.to_seq, net, external, batch.root.hex()
            )
        )
    return found
