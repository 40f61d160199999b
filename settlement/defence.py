"""What custody does on a chain when something is wrong there: void a root that is not ours, lock a vault that differs.

Both only stop things, so neither waits for an operator, and the keys for it can do nothing else. Both are optional; without
them what leaves is stopped here, and the operator is told.
"""

from eth_utils.address import to_checksum_address

from settlement.outbox import Outbox, Plan
from settlement.plans import lock_plan, lock_purpose
from settlement.records import Records
from settlement.roots import dispute_purpose
from settlement.sending import Sending
from settlement.site import Site


class Defence:
    """With the guardian's and the locker's key of a site, where it has them."""

    def __init__(self, records: Records, sending: Sending) -> None:
        self._records = records
        self._sending = sending

    def watch(self, site: Site) -> None:
        """A pending root that was not built here stops what leaves, and is disputed. Raises ChainError, Refused, SignerError."""
        for token in site.tokens:
            epoch, cycle, digest = site.ask(token, "pending")[:3]
            if not epoch or self._records.roots.is_ours(token.number, epoch, cycle, digest):
                continue
            self._records.halts.add(
                f"vault {to_checksum_address(token.vault)} has a pending root that is not ours, to be disputed:"
                f" 0x{digest.hex()}"
            )
            purpose = dispute_purpose(token.number, epoch, digest)
            if site.guardian is not None and self._sending.may_sign(site.guardian, purpose):
                self._act(site, site.guardian, self._records.roots.plan(purpose))

    def lock(self, site: Site) -> None:
        """Engine, ledger and chain differ. Raises ChainError, Refused, SignerError."""
        if site.locker is None or site.locker.under_way():
            return
        for token in site.tokens:
            if not site.ask(token, "locked"):
                self._act(site, site.locker, lock_plan(token, lock_purpose(token.number, site.final)))

    def _act(self, site: Site, outbox: Outbox, plan: Plan) -> None:
        self._sending.put(site, outbox, plan)
        outbox.send()
