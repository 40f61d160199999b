"""One root after the other, from a cycle's end into force: built, told to its members, proposed, finalized.

A vault has one pending root at most, and anyone may put it into force when its window is over. So nothing here goes by
what was sent: which epoch comes next, what is pending and what is in force is asked of the vault, at a final block.
"""

import logging
from pathlib import Path

from eth_utils.address import to_checksum_address

from settlement import vault_part
from settlement.batches import Batch
from settlement.records import Records
from settlement.roots import finalize_purpose, propose_purpose
from settlement.sending import Sending
from settlement.site import Site
from settlement.stablecoins import Token

log = logging.getLogger(__name__)


class Epochs:
    """Builds roots from the books and brings them to the vaults."""

    def __init__(self, records: Records, sending: Sending, statements: Path) -> None:
        """`statements` is where the cycles' statements are."""
        self._records = records
        self._roots = records.roots
        self._sending = sending
        self._statements = statements

    def catch_up(self) -> None:
        """Statements that were written again have the papers they had: of what is in force, and what may be."""
        for cycle in self._roots.newest_cycles():
            self._tell(cycle)

    def watch(self, site: Site) -> None:
        """Note what is in force, and stop what leaves when that is none of ours. Raises ChainError."""
        for token in site.tokens:
            epoch, vault = site.ask(token, "epoch"), to_checksum_address(token.vault)
            if epoch and epoch != self._roots.epoch_in_force(token.number):
                cycle, digest = site.ask(token, "root_cycle"), site.ask(token, "root")
                if not self._roots.is_ours(token.number, epoch, cycle, digest):
                    self._records.halts.add(f"vault {vault} has a root in force that is not ours: 0x{digest.hex()}")
                self._roots.note_in_force(token.number, epoch, cycle)

    def send(self, site: Site) -> None:
        """Propose the newest cycle's root; put what is pending into force when its window is over.

        Raises ChainError, Refused, SignerError, OutboxError.
        """
        batches = self._records.exported()
        for token in site.tokens if batches else []:
            pending, cycle, _ = site.ask(token, "pending")[:3]
            if self._under_way(site, token):
                continue  # final blocks are behind it: they do not have the vault's next epoch yet
            if not pending:
                self._propose(site, token, batches[-1])
            elif site.final_s >= site.ask(token, "finalizable_at"):
                purpose = finalize_purpose(token.number, pending, cycle)
                if self._sending.may_sign(site.root_outbox, purpose):
                    self._sending.put(site, site.root_outbox, self._roots.plan(purpose))

    def _under_way(self, site: Site, token: Token) -> bool:
        return any(entry.target == token.vault for entry in site.root_outbox.under_way())

    def _propose(self, site: Site, token: Token, batch: Batch) -> None:
        """A root that was proposed and is not pending was disputed, and is not proposed again: the next cycle's is."""
        epoch = site.ask(token, "epoch") + 1
        purpose = propose_purpose(token.number, epoch, batch.cycle)
        if batch.cycle <= site.ask(token, "root_cycle") or not self._sending.may_sign(site.root_outbox, purpose):
            return
        if self._roots.build(token, epoch, batch):
            self._tell(batch.cycle)
            self._sending.put(site, site.root_outbox, self._roots.plan(purpose))

    def _tell(self, cycle: int) -> None:
        """Put the papers of a cycle's roots into its statements."""
        directory = self._statements / str(cycle)
        if directory.is_dir():
            vault_part.write(directory, self._roots.papers_of(cycle))
