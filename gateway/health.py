"""Whether clients should be sent here: what a load balancer asks before it does."""

from typing import Any

STALL_US = 5_000_000
"""What waits for the log so long will not be done soon."""


class Readiness:
    """Told now and then how far the log is; sees when nothing moves although something waits."""

    def __init__(self, stall_us: int = STALL_US) -> None:
        self.is_open = False
        self.is_stopping = False
        self._stall_us = stall_us
        self._batches = -1
        self._moved_us = 0
        self._stalled = False

    def look(self, now_us: int, batches: int, pending: int) -> None:
        """How many batches came back so far, and how many commands are on their way."""
        if batches != self._batches or not pending:
            self._batches, self._moved_us = batches, now_us
        self._stalled = now_us - self._moved_us > self._stall_us

    def why_not(self) -> str | None:
        """None when all is well."""
        if self.is_stopping:
            return "stopping"
        if not self.is_open:
            return "recovering"
        return "the log does not move" if self._stalled else None

    def page(self) -> dict[str, Any]:
        """What `/readyz` answers."""
        why = self.why_not()
        return {"ready": why is None} | ({} if why is None else {"why": why})
