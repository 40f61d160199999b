"""Withdrawals that leave one by one, with the signatures of M of the N signers."""

from eth_utils.address import to_checksum_address

from settlement.flows import Route, Withdrawal
from settlement.outbox import Plan
from settlement.outcomes import Outcomes
from settlement.plans import VALIDITY_S, authorization, withdrawal_plan, withdrawal_purpose
from settlement.rates import Rates
from settlement.records import Records
from settlement.sending import Sending
from settlement.signer import Request, wire
from settlement.site import Site
from settlement.stablecoins import Token


class Singles:
    """Signs what waits, as far as the rates allow."""

    def __init__(self, records: Records, outcomes: Outcomes, sending: Sending, rates: Rates) -> None:
        self._records = records
        self._outcomes = outcomes
        self._sending = sending
        self._rates = rates

    def sign(self, site: Site) -> None:
        """Raises Refused, SignerError, ChainError, OutboxError."""
        for token in site.tokens:
            for row in self._records.flows.waiting(token.number):
                if row.route == Route.SINGLE and not self._outcomes.told(row.seq):
                    self._sign(site, token, row)

    def _sign(self, site: Site, token: Token, row: Withdrawal) -> None:
        purpose = withdrawal_purpose(row.seq)
        if not self._sending.may_sign(site.outbox, purpose):
            return
        if not self._rates.allow(token, row):
            self._sending.wait(purpose, "it is above the rate of withdrawals")
            return
        self._sending.put(site, site.outbox, self._signed(site, token, row), lambda: self._rates.note([row]))

    def _signed(self, site: Site, token: Token, row: Withdrawal) -> Plan:
        """A withdrawal with the signatures of its signers, each of whom asks the ledger itself."""
        deadline_s = self._records.now_s() + VALIDITY_S
        digest = authorization(token, row, deadline_s).digest(token.vault_domain)
        request = Request(withdrawal_purpose(row.seq), digest, (deadline_s,))
        signatures: dict[str, bytes] = {
            to_checksum_address(guard.address): wire(guard.sign(request)) for guard in site.signers
        }
        return withdrawal_plan(token, row, deadline_s, signatures)
