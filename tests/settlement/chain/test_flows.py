"""Money on its way to a chain and from it, in ledger, nets, statements and tables."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.types import COMMAND, TRANSFER, EventKind, Kind, Reason
from settlement.accounts import CUSTODY, STABLECOIN, VAULT, Role, token_asset, user_account
from settlement.flows import (
    Destination,
    Evidence,
    Route,
    WithdrawalState,
    deposit_command,
    payout_command,
    refund_command,
    withdraw_command,
)
from settlement.service import Settlement
from settlement.verify import verify
from tests.settlement.flow import CATALOGUE, Venue, command, cuts, open_account, transfer

ALICE = Destination(b"\xaa" * 20, b"\xab" * 20)
TX = b"\x17" * 32


def balance(venue: Venue, account: int, asset: int = STABLECOIN) -> int:
    return venue.settlement.books.ledger.balances().get((asset, account), 0)


@pytest.fixture
def funded(venue: Venue) -> Venue:
    """Account 1 with 100 dollars that came in stablecoin 1."""
    venue.send(open_account(1))
    venue.send(deposit_command(1, 1, 100_000_000, 100_000_000, Evidence(TX, 3)))
    return venue


def test_a_deposit_is_money_and_coins(funded: Venue) -> None:
    assert balance(funded, user_account(1)) == 100_000_000
    assert balance(funded, VAULT, token_asset(1)) == 100_000_000
    assert balance(funded, CUSTODY, token_asset(1)) == -100_000_000
    assert funded.settlement.books.flows.credit_of(1, Evidence(TX, 3)) == 2
    assert funded.settlement.books.flows.credit_of(1, Evidence(TX, 4)) is None
    assert verify(funded.settlement.books, funded.engine.dump()) == []


def test_a_withdrawal_is_set_aside_then_paid(funded: Venue) -> None:
    flows = funded.settlement.books.flows
    funded.send(withdraw_command(1, 1, 30_000_000, ALICE))
    assert balance(funded, user_account(1)) == 70_000_000
    assert balance(funded, user_account(1, Role.WITHDRAWING)) == 30_000_000
    assert balance(funded, VAULT, token_asset(1)) == 100_000_000
    (row,) = flows.waiting()
    assert (row.recipient, row.home, row.route) == (ALICE.recipient, ALICE.home, Route.SINGLE)
    assert verify(funded.settlement.books, funded.engine.dump()) == []
    funded.send(command(Kind.CLOSE_CYCLE))
    assert funded.settlement.books.batches.nets(1)[1].external_micros == 100_000_000
    funded.send(payout_command(row, TX))
    assert balance(funded, user_account(1, Role.WITHDRAWING)) == 0
    assert balance(funded, VAULT, token_asset(1)) == balance(funded, user_account(1)) == 70_000_000
    assert flows.withdrawal(row.seq).state == WithdrawalState.PAID
    funded.send(command(Kind.CLOSE_CYCLE))
    assert funded.settlement.books.batches.nets(2)[1].external_micros == -30_000_000
    assert verify(funded.settlement.books, funded.engine.dump()) == []


def test_a_refund_gives_back_what_was_set_aside(funded: Venue) -> None:
    funded.send(withdraw_command(1, 1, 30_000_000, ALICE))
    (row,) = funded.settlement.books.flows.waiting()
    funded.send(refund_command(row, TX))
    assert balance(funded, user_account(1)) == balance(funded, VAULT, token_asset(1)) == 100_000_000
    assert funded.settlement.books.flows.withdrawal(row.seq).state == WithdrawalState.REFUNDED
    funded.send(command(Kind.CLOSE_CYCLE))
    assert verify(funded.settlement.books, funded.engine.dump()) == []


def test_a_refused_withdrawal_is_kept_as_refused(funded: Venue) -> None:
    events = funded.send(withdraw_command(1, 1, 100_000_001, ALICE))
    assert events["kind"].tolist() == [EventKind.REJECTED]
    (row,) = funded.settlement.books.flows.withdrawals()
    assert row.state == WithdrawalState.REFUSED
    assert balance(funded, user_account(1)) == 100_000_000


def test_of_a_thousand_simultaneous_withdrawals_one_reaches_the_outbox(funded: Venue) -> None:
    funded.send(*(withdraw_command(1, 1, 100_000_000, ALICE) for _ in range(1_000)))
    assert len(funded.settlement.books.flows.waiting()) == 1
    assert balance(funded, user_account(1, Role.WITHDRAWING)) == 100_000_000
    assert verify(funded.settlement.books, funded.engine.dump()) == []


ADDRESSES = st.binary(min_size=20, max_size=20)


@given(ADDRESSES, ADDRESSES, st.sampled_from(Route), st.integers(0, 2**31 - 1))
def test_destinations_come_back(recipient: bytes, home: bytes, route: Route, cycle: int) -> None:
    destination = Destination(recipient, home, route, cycle)
    assert Destination.of(withdraw_command(1, 1, 5, destination).view(TRANSFER)[0]) == destination


@given(st.binary(max_size=40))
def test_only_addresses_of_twenty_bytes_are_packed(address: bytes) -> None:
    if len(address) != 20:
        with pytest.raises(ValueError, match="20 bytes"):
            Destination(address, b"\xab" * 20).pack()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_life_leaves_the_same_books_however_it_is_cut(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("life")
    venue, pick = Venue(directory / "venue"), random.Random(seed)
    venue.send(*(open_account(n) for n in (1, 2, 3)))
    for _ in range(40):
        live_one_step(venue, pick)
    venue.send(command(Kind.CLOSE_CYCLE))
    assert verify(venue.settlement.books, venue.engine.dump()) == []
    assert rebuilt(directory, venue, seed) == venue.settlement.books.ledger.digest()
    venue.settlement.close()


def live_one_step(venue: Venue, pick: random.Random) -> None:
    account, token, amount = pick.randint(1, 3), pick.randint(0, 2), pick.randint(1, 10**8)
    waiting = venue.settlement.books.flows.waiting()
    deed = pick.choice(["deposit", "deposit", "withdraw", "withdraw", "pay", "refund", "cycle"])
    if deed == "deposit":
        tx_hash = pick.randbytes(32)
        venue.send(deposit_command(account, token, amount, amount - amount // 100, Evidence(tx_hash, 0)))
    elif deed == "withdraw" and token:
        venue.send(withdraw_command(account, token, amount, ALICE))
    elif deed == "withdraw":
        venue.send(transfer(Kind.WITHDRAW, account, amount_micros=amount))
    elif deed == "cycle":
        venue.send(command(Kind.CLOSE_CYCLE))
    elif waiting:
        row = pick.choice(waiting)
        venue.send(payout_command(row, TX) if deed == "pay" else refund_command(row, TX))


def rebuilt(directory: Path, venue: Venue, seed: int) -> str:
    log, again = venue.recording(), Settlement(directory / "again", CATALOGUE)
    for first, last in cuts(len(log), seed, 5):
        again.on_batch(*log.cut(first, last))
    assert again.books.flows.withdrawals() == venue.settlement.books.flows.withdrawals()
    digest = again.books.ledger.digest()
    again.close()
    return digest


def test_commands_of_another_body_are_not_taken_for_transfers(funded: Venue) -> None:
    """An order's fields lie where a transfer has its asset: a refused one must not look like a withdrawal."""
    row = command(Kind.NEW_ORDER, account=1, instrument=9, order_id=2**62 + 5, price=7, qty=9)
    assert funded.send(row)["kind"].tolist() == [EventKind.REJECTED]
    assert funded.settlement.books.flows.withdrawals() == []


def test_what_was_never_set_aside_neither_leaves_nor_comes_back(funded: Venue) -> None:
    """A stray PAYOUT, or return, would take the books below zero, and stop them: the engine refuses it."""
    funded.send(withdraw_command(1, 1, 30_000_000, ALICE))
    (row,) = funded.settlement.books.flows.waiting()
    for stray in (payout_command, refund_command):
        (event,) = funded.send(stray(replace(row, amount_micros=30_000_001), TX))
        assert (event["kind"], event["reason"]) == (EventKind.REJECTED, Reason.INSUFFICIENT_FUNDS)
    funded.send(payout_command(row, TX))
    (event,) = funded.send(payout_command(row, TX))
    assert event["kind"] == EventKind.REJECTED
    assert verify(funded.settlement.books, funded.engine.dump()) == []


def test_a_deposit_that_was_credited_twice_is_named(funded: Venue) -> None:
    funded.send(deposit_command(1, 1, 100_000_000, 100_000_000, Evidence(TX, 3)))
    (found,) = verify(funded.settlement.books, funded.engine.dump())
    assert (found.what, found.seq) == ("deposit from a chain", 3)


def test_a_withdrawal_by_no_known_way_is_refused_and_not_noted(funded: Venue) -> None:
    (event,) = funded.send(transfer(Kind.WITHDRAW, 1, asset=1, lots=5, amount_micros=5, flags=7))
    assert event["reason"] == Reason.BAD_FIELD
    assert funded.settlement.books.flows.withdrawals() == []


def test_evidence_of_any_bytes_is_taken(funded: Venue) -> None:
    """What a command brings may name nothing; the books go on."""
    row = deposit_command(1, 1, 5, 5, Evidence(TX, 3)).view(TRANSFER)
    row["external_id"] = 2**64 - 1
    funded.send(row.view(COMMAND))
    assert balance(funded, user_account(1)) == 100_000_005
    funded.send(transfer(Kind.OPEN_ACCOUNT, 2, external_id=2**64 - 1))
    assert funded.settlement.books.registry.names()[2].startswith("\\xff")
