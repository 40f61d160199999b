"""The worker between the books and the chains. `step` looks once at everything and says which commands the log should get.

It is stopped by nothing but a difference it cannot explain, and then only what leaves: deposits go on being credited, and
trading knows nothing of it. A node that does not answer costs its own chain's turn and no other's. Whatever was decided
is in one of two databases before it has an effect: the ledger (from the log) or the outbox; so a process that is killed
anywhere goes on where it was.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import COMMAND
from settlement.abi import AbiError
from settlement.chain import CallRefused, Chain, ChainError
from settlement.defence import Defence
from settlement.deposits import DepositState
from settlement.epochs import Epochs
from settlement.outbox import OutboxError
from settlement.outcomes import Outcomes
from settlement.payouts import Payouts
from settlement.plans import withdrawal_purpose
from settlement.rates import Rates
from settlement.reconcile import EngineView, Facts, against_chain, against_engine
from settlement.records import Records
from settlement.sending import Sending
from settlement.service import STATEMENTS_NAME
from settlement.signer import Refused, SignerError
from settlement.singles import Singles
from settlement.site import Keys, Site
from settlement.stablecoins import Network, Stablecoins, Token, check

log = logging.getLogger(__name__)


class Custody:
    """All chains of one exchange. One thread uses it, beside the one that writes the books."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it joins
        self,
        directory: Path,
        coins: Stablecoins,
        chains: Mapping[str, Chain],
        keys: Mapping[str, Keys],
        venue: str,
        now_s: Callable[[], int],
    ) -> None:
        """Open the outbox in a settlement directory that has its books. Nothing is asked of a node yet."""
        self.records = records = Records(directory, coins, venue, now_s)
        self.halts, self.deposits, self.claims = records.halts, records.deposits, records.claims
        self.flows, self.roots = records.flows, records.roots
        self.sending, self.outcomes, rates = Sending(now_s), Outcomes(records), Rates(records.database, now_s)
        self.singles = Singles(records, self.outcomes, self.sending, rates)
        self.payouts = Payouts(records, self.sending, rates)
        self.defence = Defence(records, self.sending)
        self.epochs = Epochs(records, self.sending, directory / STATEMENTS_NAME)
        self.sites = [
            Site.of(
                network, chains[network.name], coins.on(network), keys[network.name], records.database, now_s
            )
            for network in coins.networks()
        ]  # fmt: skip
        self._view: EngineView | None = None
        self._reconciled: set[str] = set()

    def close(self) -> None:
        self.records.close()

    # The step

    def start(self) -> None:
        """Compare registry and chains, and the keys' nonces with the outbox. Raises RegistryError, ChainError."""
        for site in self.sites:
            self._start(site)

    def _start(self, site: Site) -> None:
        check(site.chain, site.tokens)
        for outbox in site.outboxes:
            try:
                outbox.check()
            except OutboxError as error:
                self.halts.add(str(error))
        self.epochs.catch_up()
        site.started = True

    def step(self, view: EngineView | None = None) -> NDArray[Any]:
        """Commands (COMMAND) for the log. Each is handed out once by this process, so the caller must log what it gets;
        ask only after the log was replayed to its end. `view` is the engine as it is after some command of late.
        """
        self._view = view or self._view
        commands = [np.zeros(0, COMMAND)]
        for site in self.sites:
            try:
                self._turn(site, commands)
            except (ChainError, CallRefused, AbiError) as error:
                log.warning("chain %s: %s", site.network.name, error)
            except (OutboxError, Refused, SignerError) as error:
                self.halts.add(str(error))
        return np.concatenate(commands)

    def _turn(self, site: Site, commands: list[NDArray[Any]]) -> None:
        """Commands are added as they are found: they count as handed out, whatever fails after that."""
        if not site.started:
            self._start(site)
        site.look()
        for token in site.tokens:
            self.deposits.scan(site.chain, token, site.final)
            self.claims.scan(site.chain, token, site.final)
            self.records.transfers.scan(site.chain, token, site.final)
        for outbox in site.outboxes:
            outbox.step(site.final)
        commands += self._credits(site)
        commands += self.outcomes.commands(site)
        self.epochs.watch(site)
        self.defence.watch(site)
        if any(self.claims.exited(token.number) for token in site.tokens):
            self.halts.add(f"the vault on {site.network.name} is winding down: members leave by themselves")
        if not self.halts.open():
            self._send(site, commands)
        self._reconcile(site)
        if site.differs:
            self.defence.lock(site)

    def _credits(self, site: Site) -> list[NDArray[Any]]:
        accounts, now_s = self.records.accounts(), self.records.now_s()
        return [self.deposits.due(token, accounts, now_s) for token in site.tokens]

    def _send(self, site: Site, commands: list[NDArray[Any]]) -> None:
        """Everything that may leave; the commands that ask for it to be set aside first."""
        commands += self.payouts.commands(site)
        self._credit_transfers(site)
        self.singles.sign(site)
        self.payouts.sign(site)
        self.epochs.send(site)
        for outbox in site.outboxes:
            outbox.send()

    def _credit_transfers(self, site: Site) -> None:
        """Make deposits of coins that came by a plain transfer."""
        transfers = self.records.transfers
        for token in site.tokens:
            for row in transfers.wanted(token):
                if self.sending.may_sign(site.outbox, row.purpose):
                    self.sending.put(site, site.outbox, transfers.plan(token, row))

    # What an operator asks

    def set_standing(self, account: int, token: int | None) -> None:
        """From now on pay an account's gain of each cycle to its home address in a token, or stop doing so."""
        self.payouts.standing.set(account, token)

    def waiting_for(self, seq: int) -> str:
        """Why a withdrawal has not been signed yet; empty when nothing keeps it back."""
        halted = self.halts.open()
        return halted[0].reason if halted else self.sending.why_not(withdrawal_purpose(seq))

    def settled_to(self, network: Network) -> int:
        """The last cycle whose payouts on a chain are all in the log."""
        return self.payouts.settled_to(network)

    # Does it all agree?

    def _reconcile(self, site: Site) -> None:
        """Once for each frozen cycle, and once after a start."""
        last = max((batch.cycle for batch in self.records.exported()), default=0)
        name = f"reconciled {site.network.name}"
        if last <= self.records.cursor(name, -1) and site.network.name in self._reconciled:
            return
        self.reconcile(site)
        self._reconciled.add(site.network.name)
        self.records.advance(name, last)

    def reconcile(self, site: Site) -> list[str]:
        """Engine, ledger and chain beside each other, now; what differs, which stops withdrawals."""
        records, found = self.records, []
        for token in site.tokens:
            found += against_chain(site.chain, token, records, self._facts(site, token), site.final)
        if self._view is not None and records.ledger.head().applied_seq >= self._view.seq:
            found += against_engine(records, self._view)
        site.differs = bool(found)
        for difference in found:
            self.halts.add(str(difference))
        return [str(difference) for difference in found]

    def _facts(self, site: Site, token: Token) -> Facts:
        deposits = self.deposits.rows("token = ? AND state >= ?", (token.number, DepositState.FINAL))
        return Facts(deposits, site.paid, self.claims.claimed(token.number), self.claims.exited(token.number))
