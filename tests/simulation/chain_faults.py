"""Faults of custody, planted as those in faults.py: each has emptied somebody's wallet, or would."""

import contextlib
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from unittest.mock import patch

from numpy.typing import NDArray

from settlement import plans
from settlement.chain import Chain
from settlement.custody import Custody
from settlement.deposits import Deposits
from settlement.outbox import Attempt, Entry, Outbox, Plan, TxState
from settlement.outcomes import Outcomes
from settlement.payouts import Payouts
from settlement.plans import withdrawal_purpose
from settlement.sending import Sending
from settlement.site import Site
from settlement.stablecoins import Token
from tests.simulation.faults import Patches, after, fault


def plant() -> None:
    """Importing this file enters its faults; a call says that it is meant."""


@fault("the newest block is believed", on_chain=True)
def believe_the_head() -> Patches:
    def look(self: Site) -> None:
        head = self.chain.head()
        self.final, self.final_s = head.number, head.timestamp_s

    return patch.object(Site, "look", look)


@fault("deposits are credited before they are final", on_chain=True)
def credit_early() -> Patches:
    real = Deposits.scan

    def scan(self: Deposits, chain: Chain, token: Token, _: int) -> None:
        real(self, chain, token, chain.head().number)

    return patch.object(Deposits, "scan", scan)


@fault("the scan for deposits goes on behind the newest block", on_chain=True)
def scan_on_from_the_head() -> Patches:
    real = Deposits.scan

    def scan(self: Deposits, chain: Chain, token: Token, final: int) -> None:
        real(self, chain, token, final)
        self._database.execute("UPDATE scanned SET block_number = ?", (chain.head().number,))

    return patch.object(Deposits, "scan", scan)


@fault("a deposit is credited again after a restart", on_chain=True)
def forget_credits() -> Patches:
    real = Deposits.due

    def due(self: Deposits, *args: Any) -> NDArray[Any]:
        with patch.object(self._flows, "credit_of", lambda *_: None):
            return real(self, *args)

    return patch.object(Deposits, "due", due)


@fault("a deposit is credited again before the books have it", on_chain=True)
def forget_what_was_handed_out() -> Patches:
    real = Deposits.due

    def due(self: Deposits, *args: Any) -> NDArray[Any]:
        self._handed_out.clear()
        return real(self, *args)

    return patch.object(Deposits, "due", due)


@fault("a transaction is sent before the outbox has it", on_chain=True)
def send_before_it_is_stored() -> Patches:
    def send(self: Outbox, attempt: Attempt) -> Attempt:
        self._chain.send(attempt.raw)
        return attempt

    return after(Outbox, "_sign", send)


def forget_the_outbox(custody: Custody, _: None) -> None:
    for table in ("attempts", "transactions", "senders"):
        custody.records.database.execute(f"DELETE FROM {table}")


@fault("a restart forgets what was signed", on_chain=True)
def forget_what_was_signed() -> Patches:
    return after(Custody, "__init__", forget_the_outbox)


@fault("a payment has another name after a restart", on_chain=True)
def name_payments_anew() -> Patches:
    lives = [0]

    def begin(custody: Custody, _: None) -> None:
        lives[0] += 1
        forget_the_outbox(custody, None)

    stack = contextlib.ExitStack()
    stack.enter_context(after(Custody, "__init__", begin))
    name: Callable[[int], bytes] = lambda seq: sha256(f"{lives[0]} {seq}".encode()).digest()  # noqa: E731
    stack.enter_context(patch.object(plans, "withdrawal_id", name))
    return stack


@fault("what is under way is signed again with a new nonce", on_chain=True)
def sign_twice() -> Patches:
    real = Outbox.put

    def put(self: Outbox, plan: Plan, *args: Any) -> Entry:
        with patch.object(self, "of", lambda _: []):
            return real(self, plan, *args)

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Outbox, "put", put))
    stack.enter_context(patch.object(Sending, "may_sign", lambda *_: True))
    return stack


@fault("a payment is posted when it is in a block", on_chain=True)
def post_early() -> Patches:
    real = Outbox.step
    return patch.object(Outbox, "step", lambda self, _: real(self, self._chain.head().number))


@fault("what a reorganisation took is not sent again", on_chain=True)
def forget_what_was_taken_back() -> Patches:
    real = Outbox._offer_again

    def offer(self: Outbox, entry: Entry) -> None:
        if entry.state != TxState.MINED:
            real(self, entry)

    return patch.object(Outbox, "_offer_again", offer)


@fault("a withdrawal is given back while it may still be paid", on_chain=True)
def give_back_early() -> Patches:
    def proof(_: Outcomes, site: Site, row: Any) -> bytes | None:
        entries = site.outbox.of(withdrawal_purpose(row.seq))
        return bytes(32) if entries and entries[-1].state == TxState.SENT else None

    return patch.object(Outcomes, "_proof_of_failure", proof)


@fault("a cycle's gains are paid again after a restart", on_chain=True)
def pay_gains_again() -> Patches:
    real = Payouts.commands

    def commands(self: Payouts, site: Site) -> list[NDArray[Any]]:
        with (
            patch.object(self._records.flows, "withdrawals", lambda *_: []),
            patch.object(self, "settled_to", lambda _: 0),
        ):
            return real(self, site)

    return patch.object(Payouts, "commands", commands)
