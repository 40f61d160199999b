"""How anything goes out: signed once for a purpose, and only when the chain would carry it out now.

What the chain would refuse (a paused coin, a blocked recipient, too little in the vault) waits unsigned, and is tried
again after a while.
"""

import logging
from collections.abc import Callable

from settlement.chain import CallRefused
from settlement.outbox import Outbox, Plan, TxState
from settlement.site import Site

log = logging.getLogger(__name__)

RETRY_S = 300
"""After a call that was refused or reverted."""
GAS_MARGIN_PERCENT = 130


class Sending:
    """Shared by all that is sent, so that one place says what waits and why."""

    def __init__(self, now_s: Callable[[], int]) -> None:
        self._now_s = now_s
        self._waits: dict[str, tuple[int, str]] = {}  # purpose -> (not before, why)
        self.retry_s = RETRY_S

    def may_sign(self, outbox: Outbox, purpose: str) -> bool:
        """Nothing under way or done for it, and not too soon after a refusal."""
        entries = outbox.of(purpose)
        if self._waits.get(purpose, (0, ""))[0] > self._now_s():
            return False
        if not entries:
            return True
        last = entries[-1]
        if last.state == TxState.REPLACED and purpose.startswith("withdrawal:"):
            return False  # it is given back when its signatures are out of date
        return last.state in {TxState.REVERTED, TxState.REPLACED} and self._now_s() - last.made_s >= self.retry_s

    def wait(self, purpose: str, why: str) -> None:
        """Leave it alone for a while."""
        if self.why_not(purpose) != why:
            log.warning("%s waits: %s", purpose, why)
        self._waits[purpose] = (self._now_s() + self.retry_s, why)

    def why_not(self, purpose: str) -> str:
        """For what something waits; empty when for nothing."""
        return self._waits.get(purpose, (0, ""))[1]

    def put(self, site: Site, outbox: Outbox, plan: Plan, also: Callable[[], None] = lambda: None) -> None:
        """Sign a plan that the chain would carry out now, and store it; `also` writes in the same transaction."""
        try:
            gas = site.chain.gas(outbox.sender, plan.target, plan.data) * GAS_MARGIN_PERCENT // 100
        except CallRefused as error:
            self.wait(plan.purpose, str(error))
            return
        self._waits.pop(plan.purpose, None)
        outbox.put(plan, min(gas, site.network.max_gas), also)
