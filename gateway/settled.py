"""What settlement has to say: batches and deliveries to everybody, statements and proofs to their owner.

The gateway does not know settlement. Whoever runs both tells it what is new (`tell`), and answers questions about an
account's papers, which lie on the disk, on a thread of its own (`Papers`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from gateway.market_data import Subscriber, fan_out
from gateway.messages import (
    BatchesPush,
    BatchState,
    DeliveriesPush,
    DeliveryState,
    Proof,
    RequestError,
    Statement,
    Statements,
    StatementsResult,
    bad_field,
)

Question = Statements | Statement | Proof
Answer = Callable[[Any | RequestError], None]
"""Takes a result, or why there is none. Called once, on the gateway's thread."""


class Papers(Protocol):
    """Where an account's papers are kept."""

    def ask(self, account: int, question: Question, answer: Answer) -> None:
        """Look something up, without waiting, and call `answer` when it is found."""


class NoPapers:
    """Where nothing is settled: no cycles, and nothing to read."""

    def ask(self, account: int, question: Question, answer: Answer) -> None:
        """Answer at once."""
        if isinstance(question, Statements):
            answer(StatementsResult([]))
        else:
            answer(no_such_cycle(question.cycle))


def no_such_cycle(cycle: int | None) -> RequestError:
    """The refusal of a question about a cycle in which the account has nothing."""
    return bad_field("cycle", "no cycle is settled yet" if cycle is None else f"nothing of cycle {cycle} is here")


class Settled:
    """The channels `batches` and `deliveries`: the newest of each, and who listens."""

    def __init__(self, keep: int) -> None:
        """`keep`: batches, and deliveries, in a snapshot."""
        self.watchers: dict[str, set[Subscriber]] = {"batches": set(), "deliveries": set()}
        self._keep = keep
        self._batches: dict[int, BatchState] = {}  # by cycle
        self._deliveries: dict[str, DeliveryState] = {}  # by symbol, oldest first
        self._seq = {"batches": 0, "deliveries": 0}

    def tell(self, seq: int, ts_us: int, batches: Sequence[BatchState], deliveries: Sequence[DeliveryState]) -> None:
        """What is new in the books as of the log's command `seq`; what is known already is not sent again."""
        fresh_batches = [batch for batch in batches if self._batches.get(batch.cycle) != batch]
        fresh_deliveries = [item for item in deliveries if self._deliveries.get(item.sym) != item]
        self._batches |= {batch.cycle: batch for batch in fresh_batches}
        self._deliveries |= {item.sym: item for item in fresh_deliveries}
        _cut(self._batches, self._keep)
        _cut(self._deliveries, self._keep)
        if fresh_batches:
            prev, self._seq["batches"] = self._seq["batches"], seq
            fan_out(BatchesPush("frozen", seq, prev, ts_us, fresh_batches), self.watchers["batches"])
        if fresh_deliveries:
            prev, self._seq["deliveries"] = self._seq["deliveries"], seq
            fan_out(DeliveriesPush("update", seq, prev, ts_us, fresh_deliveries), self.watchers["deliveries"])

    def snapshot(self, channel: str, ts_us: int) -> BatchesPush | DeliveriesPush:
        """The first message of a channel."""
        if channel == "batches":
            return BatchesPush("snapshot", self._seq[channel], 0, ts_us, list(self._batches.values()))
        return DeliveriesPush("snapshot", self._seq[channel], 0, ts_us, list(self._deliveries.values()))

    def drop(self, subscriber: Subscriber) -> None:
        """A connection is gone."""
        for watchers in self.watchers.values():
            watchers.discard(subscriber)

    def watches(self, subscriber: Subscriber) -> bool:
        """Whether a connection listens to any of it."""
        return any(subscriber in watchers for watchers in self.watchers.values())


def _cut(entries: dict[Any, Any], keep: int) -> None:
    """Forget the oldest."""
    oldest: Iterable[Any] = list(entries)[: max(0, len(entries) - keep)]
    for key in oldest:
        del entries[key]
