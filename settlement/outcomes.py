"""What became of the withdrawals, as commands for the log: PAYOUT for what is final, a refund for what never can be.

A withdrawal may have been paid by the transaction that was signed for it, by somebody else who handed in its
signatures, or by its owner's own claim. All of it is read from final blocks.
"""

from collections import defaultdict
from typing import Any

from numpy.typing import NDArray

from settlement.abi import interface
from settlement.flows import Route, Withdrawal, WithdrawalState, payout_command, refund_command
from settlement.outbox import Entry, OutboxError, TxState, matches
from settlement.payouts import by_chunk
from settlement.plans import chunk_purpose, withdrawal_purpose
from settlement.records import Records
from settlement.site import Site
from settlement.stablecoins import Token

GIVE_UP_S = 7 * 86_400
"""When a withdrawal that was never paid, and cannot be any more, is given back."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS noticed (
    seq INTEGER PRIMARY KEY,
    at_s INTEGER NOT NULL
) STRICT
"""


class Outcomes:
    """Looks at what waits, and says of each once what became of it."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._told: set[int] = set()
        with records.database.transaction():
            records.database.create(SCHEMA)

    def told(self, seq: int) -> bool:
        """Whether the command that ends a withdrawal was handed out: the log has it, or will in a moment."""
        return seq in self._told

    def commands(self, site: Site) -> list[NDArray[Any]]:
        """The commands that are due, each handed out once; notes in `site.paid` what is final, posted or not."""
        commands, site.paid = [], {}
        for token in site.tokens:
            site.paid |= self._paid_by_claims(token)
            site.paid |= self._paid_by_chunks(site, token)
            for row in self._records.flows.waiting(token.number):
                if row.route == Route.SINGLE and (tx_hash := self._paid_alone(site, token, row)):
                    site.paid[row.seq] = tx_hash
                command = self._outcome(site, row)
                if command is not None and row.seq not in self._told:
                    self._told.add(row.seq)
                    commands.append(command)
        return commands

    def _outcome(self, site: Site, row: Withdrawal) -> NDArray[Any] | None:
        if row.seq in site.paid:
            # While ours is under way it may have to be signed anew, which is done only for what is still to be paid.
            ours = site.outbox.of(withdrawal_purpose(row.seq))
            return payout_command(row, site.paid[row.seq]) if not ours or ours[-1].state >= TxState.FINAL else None
        if row.route != Route.SINGLE:
            # A chunk is paid or tried again. A claim is never given back: a root has it, and totals in roots never fall.
            return None
        proof = self._proof_of_failure(site, row)
        return None if proof is None else refund_command(row, proof)

    def _paid_alone(self, site: Site, token: Token, row: Withdrawal) -> bytes | None:
        """The hash of the final transaction that paid it. A withdrawal may have been handed in by somebody else, and be
        paid while ours still waits for a block.
        """
        entries = site.outbox.of(withdrawal_purpose(row.seq))
        if not entries:
            return None
        if entries[-1].state == TxState.FINAL:
            return entries[-1].tx_hash
        return self._paid_by_another(site, token, entries[-1])

    def _paid_by_chunks(self, site: Site, token: Token) -> dict[int, bytes]:
        """The rows of the chunks that are final. A chunk that was reverted is signed again."""
        paid: dict[int, bytes] = {}
        rows = [row for row in self._records.flows.waiting(token.number) if row.route == Route.BATCH]
        for (cycle, chunk), members in by_chunk(self._records.database, rows).items():
            done = [entry for entry in site.outbox.of(chunk_purpose(token.number, cycle, chunk)) if entry.tx_hash]
            if done and done[-1].state == TxState.FINAL:
                paid |= dict.fromkeys((row.seq for row in members), done[-1].tx_hash or b"")
        return paid

    def _paid_by_another(self, site: Site, token: Token, entry: Entry) -> bytes | None:
        vault, withdrawal = interface("Vault"), entry.expected["id"]
        if not site.ask(token, "withdrawal_done", withdrawal):
            return None
        topics = [vault.topic("Withdrawn"), withdrawal]
        for receipt in site.chain.receipts_with([token.vault], topics, site.network.first_block, site.final):
            if any(matches(vault, "Withdrawn", entry.expected, said) for said in receipt.logs):
                return receipt.tx_hash
        raise OutboxError(f"{entry.purpose}: the vault has paid it otherwise than planned")

    def _paid_by_claims(self, token: Token) -> dict[int, bytes]:
        """Withdrawals that their owners have fetched: by address, oldest first, as far as what was claimed goes."""
        paid, claims = {}, self._records.claims
        rows = self._records.flows.withdrawals(
            "token = ? AND route = ? AND state <= ?", (token.number, Route.CLAIM, WithdrawalState.PAID)
        )
        left = defaultdict(int, claims.claimed(token.number))
        for row in rows:
            left[row.home] -= token.to_units(row.quantity_micros)
            if left[row.home] >= 0 and row.state == WithdrawalState.WITHDRAWING:
                paid[row.seq] = claims.last_hash(token.number, row.home)
        return paid

    def _proof_of_failure(self, site: Site, row: Withdrawal) -> bytes | None:
        """What shows that a withdrawal can never be paid: every nonce it had is used up without it, and the signatures
        that anybody could have copied from the network are out of date, as seen in final blocks.
        """
        entries = site.outbox.of(withdrawal_purpose(row.seq))
        given_up = self._records.now_s() - self._noticed_s(row.seq) > GIVE_UP_S
        if not entries:
            return bytes(32) if given_up else None
        dead = all(
            entry.state in {TxState.REVERTED, TxState.REPLACED} and entry.facts[0] < site.final_s for entry in entries
        )
        if not dead or not (given_up or entries[-1].state == TxState.REPLACED):
            return None
        return entries[-1].tx_hash

    def _noticed_s(self, seq: int) -> int:
        """When this file first heard of a withdrawal. The log has the market's time, which need not be the world's."""
        database = self._records.database
        database.execute("INSERT OR IGNORE INTO noticed VALUES (?, ?)", (seq, self._records.now_s()))
        row = database.one("SELECT at_s FROM noticed WHERE seq = ?", (seq,))
        assert row is not None
        return int(row[0])
