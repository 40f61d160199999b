"""Cash between accounts, liens, frozen accounts, and pools whose payouts are split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine.shares
from engine.kernel import JIT
from engine.types import COMMAND, LISTING, MAX_HOLDERS, MAX_SHARES, MONEY, TRANSFER, EventKind, Kind, Reason
from tests.both import make_engine, make_twin
from tests.tables import check, command


def test_a_transfer_moves_cash() -> None:
    check("""
        open A
        open B
        deposit A 100
        transfer A B 60       -> transferred 60 A with B cash -60
        transfer A B 41       -> rejected INSUFFICIENT_FUNDS
        transfer A B 0        -> rejected BAD_AMOUNT
        transfer A B -5       -> rejected BAD_AMOUNT
        transfer A A 5        -> rejected BAD_FIELD
        raw kind 48 account 9 contra_account 1 amount_micros 1 -> rejected UNKNOWN_ACCOUNT
        raw kind 48 account 1 contra_account 0 amount_micros 1 -> rejected UNKNOWN_ACCOUNT
        expect A cash 40, B cash 60
    """)


def test_a_lien_keeps_cash_from_being_used_until_it_is_lifted_or_paid() -> None:
    check("""
        open A
        open B
        deposit A 100
        lien A 101            -> rejected INSUFFICIENT_FUNDS
        lien A 0              -> rejected BAD_AMOUNT
        lien A 70             -> lien 70 A cash -70
        withdraw A 31         -> rejected INSUFFICIENT_FUNDS
        transfer A B 31       -> rejected INSUFFICIENT_FUNDS
        expect A cash 30, A frozen 70
        lift A 71             -> rejected INSUFFICIENT_FUNDS
        lift A 0              -> rejected BAD_AMOUNT
        lift A 5 pay A        -> rejected BAD_FIELD
        lift A 20             -> lifted -20 A cash 20
        lift A 50 pay B       -> lifted -50 A with B contra_cash 50
        expect A cash 50, A frozen 0, B cash 50
        raw kind 50 account 1 contra_account 9 amount_micros 1 -> rejected UNKNOWN_ACCOUNT
    """)


def test_no_money_leaves_a_frozen_account() -> None:
    check("""
        open A
        open B
        deposit A 100
        deposit B 100
        freeze A              -> frozen 1 A
        withdraw A 1          -> rejected ACCOUNT_FROZEN
        transfer A B 1        -> rejected ACCOUNT_FROZEN
        transfer B A 1        -> transferred 1
        deposit A 5           -> deposited 5
        lien A 100            -> lien 100
        lift A 100            -> lifted -100
        raw kind 51 account 1 flags 2 -> rejected BAD_FIELD
        raw kind 51 account 9 -> rejected UNKNOWN_ACCOUNT
        thaw A                -> frozen 0 A
        withdraw A 106        -> withdrawn -106
    """)


def test_shares_are_made_moved_and_retired() -> None:
    check("""
        open P
        open A
        open B
        issue P A 7           -> shares 7 A with P
        move P A B 8          -> rejected INSUFFICIENT_SHARES
        move P B A 1          -> rejected INSUFFICIENT_SHARES
        move P A A 1          -> rejected BAD_FIELD
        move P A B 0          -> rejected BAD_QTY
        move P A B 3          -> shares -3 A with P, shares 3 B with P
        retire P B 4          -> rejected INSUFFICIENT_SHARES
        retire P B 3          -> shares -3 B
        issue P A 0           -> rejected BAD_QTY
        issue P A 1000000000  -> rejected BAD_QTY
        raw kind 52 account 1 contra_account 9 lots 1 -> rejected UNKNOWN_ACCOUNT
        raw kind 53 account 2 contra_account 3 asset 9 lots 1 -> rejected UNKNOWN_ACCOUNT
    """)


SOLD = """
    list Y fee 0 rebate 0 bond 0
    open A
    open B
    open C
    nominate P 1000 in Y
    {shares}
    sell P 1 @ 20058 in Y
    buy T 1 @ 20058 in Y
    close Y
"""


def test_a_payout_of_a_pool_is_split_by_largest_remainder() -> None:
    """The worked figure: 160,463,201 by 7 : 5 : 3."""
    sold = SOLD.format(shares="issue P A 7\nissue P C 3\nissue P B 5")
    check(sold + """
        deliver P T 1 refund 799 in Y ->
            delivered 1 P with T refund 799, split 74882827 P with A, split 53487734 P with B, split 32092640 P with C
        expect A cash 74882827, B cash 53487734, C cash 32092640
    """)  # fmt: skip


def test_what_falls_to_the_pool_itself_stays_and_the_lower_number_comes_first() -> None:
    sold = SOLD.format(shares="issue P P 1\nissue P A 1\nissue P B 1\nissue P C 1")
    check(
        sold
        + """
        deliver P T 1 refund 160463998 in Y -> delivered 1 P, split 1 P with A, split 1 P with B
        expect P cash 994800000000, C cash 0
    """
    )
    check(sold + """
        deliver P T 1 refund 160463995 in Y ->
            delivered 1 P, split 2 P with A, split 1 P with B, split 1 P with C
        expect P cash 994800000001
    """)  # fmt: skip


def test_damages_come_before_the_split_and_a_frozen_pool_keeps_its_pay() -> None:
    sold = SOLD.format(shares="issue P A 1")
    check(sold + "deliver P T 1 damages 160463990 in Y -> delivered 1 P, split 10 P with A")
    check(sold + "deliver P T 1 damages 160464000 in Y -> delivered 1 P\nexpect A cash 0")
    check(sold + "freeze P\ndeliver P T 1 in Y -> delivered 1 P\nexpect A cash 0")


shares = st.lists(st.one_of(st.integers(0, 9), st.integers(0, MAX_SHARES // 8)), min_size=1, max_size=8).filter(any)


@given(held=shares, amount=st.one_of(st.integers(1, 99), st.integers(1, 8 * 10**8)), lots=st.integers(1, 10**6))
def test_a_split_of_any_amount_is_the_twins(held: list[int], amount: int, lots: int) -> None:
    """Up to the largest payout there is: a million lots of the dearest contract."""
    price = {"lot_tick_micros": amount, "max_price": 1, "gate_ns": 100}

    rows = [command(Kind.OPEN_ACCOUNT, TRANSFER, account=number) for number in range(1, len(held) + 3)]
    rows += [command(Kind.DEPOSIT, TRANSFER, account=2, amount_micros=10**16)]
    rows += [command(Kind.LIST, LISTING, instrument=1, **price)]
    rows += [command(Kind.NOMINATE, TRANSFER, account=1, instrument=1, lots=lots)]
    rows += [
        command(Kind.ISSUE_SHARES, TRANSFER, account=1, contra_account=3 + at, lots=own)
        for at, own in enumerate(held)
        if own
    ]
    rows += [command(Kind.NEW_ORDER, account=1, instrument=1, side=1, price=1, qty=lots)]
    rows += [command(Kind.NEW_ORDER, account=2, instrument=1, side=0, price=1, qty=lots)]
    rows += [command(Kind.CLOSE, instrument=1)]
    rows += [command(Kind.DELIVER, TRANSFER, account=1, contra_account=2, instrument=1, lots=lots)]
    batch = np.concatenate([row.view(COMMAND) for row in rows])
    batch["seq"] = np.arange(len(batch)) + 1
    expected = make_twin().apply(batch)
    assert make_engine().apply(batch).tobytes() == expected.tobytes()
    paid = expected[expected["kind"] == EventKind.SPLIT_PAID].view(MONEY)
    assert paid["contra_amount_micros"].sum() == amount * lots


def test_a_pool_has_so_many_holders_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    most = MAX_HOLDERS
    if not JIT:  # where a constant may still be another, and a thousand holders take minutes
        monkeypatch.setattr(engine.shares, "MAX_HOLDERS", most := 20)
    exchange = make_engine(max_accounts=most + 5)
    rows = [command(Kind.OPEN_ACCOUNT, TRANSFER, account=number) for number in range(1, most + 4)]
    rows += [
        command(Kind.ISSUE_SHARES, TRANSFER, account=1, contra_account=number, lots=2) for number in range(2, most + 3)
    ]
    last = {"contra_account": most + 3, "asset": 1, "account": 2}
    rows += [command(Kind.MOVE_SHARES, TRANSFER, lots=lots, **last) for lots in (1, 2)]
    batch = np.concatenate([row.view(COMMAND) for row in rows])
    batch["seq"] = np.arange(len(batch)) + 1
    events = exchange.apply(batch)
    refused = events[events["kind"] == EventKind.REJECTED]
    assert refused["reason"].tolist() == [Reason.TOO_MANY_HOLDERS] * 2
    assert len(exchange.dump()["shares"][1]) == most
