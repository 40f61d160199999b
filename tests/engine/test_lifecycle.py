"""Accounts, money, nominations, and the life of an instrument from its listing to the day its number is free again."""

import pytest

from engine.types import (
    MAX_FEE_PPM,
    MAX_LOT_VALUE_MICROS,
    MAX_MONEY_MICROS,
    MAX_POSITION_LOTS,
    MAX_PRICE_TICKS,
    MAX_QTY,
)
from tests.tables import TERMS, check


def test_accounts_are_opened_in_order() -> None:
    check(
        """
        open A                   -> opened 1
        raw kind 16 account 1    -> rejected ACCOUNT_EXISTS
        raw kind 16 account 0    -> rejected UNKNOWN_ACCOUNT
        raw kind 16 account -7   -> rejected UNKNOWN_ACCOUNT
        raw kind 16 account 3    -> rejected UNKNOWN_ACCOUNT
        raw kind 16 account 2147483647 -> rejected UNKNOWN_ACCOUNT
        open B                   -> opened 2
        open C                   -> rejected OVERLOADED
    """,
        max_accounts=2,
    )


def test_deposits_and_withdrawals() -> None:
    check(f"""
        open A
        deposit A 0               -> rejected BAD_AMOUNT
        deposit A -5              -> rejected BAD_AMOUNT
        deposit A {-1 << 63}      -> rejected BAD_AMOUNT
        deposit A 700             -> deposited 700 A
        withdraw A 0              -> rejected BAD_AMOUNT
        withdraw A -1             -> rejected BAD_AMOUNT
        withdraw A 701            -> rejected INSUFFICIENT_FUNDS
        withdraw A {(1 << 63) - 1} -> rejected INSUFFICIENT_FUNDS
        withdraw A 200            -> withdrawn -200 A
        expect A cash 500
        raw kind 17 account 2 amount_micros 5 -> rejected UNKNOWN_ACCOUNT
        raw kind 18 account 0 amount_micros 5 -> rejected UNKNOWN_ACCOUNT
        raw kind 24 account 2 amount_micros 5 -> rejected UNKNOWN_ACCOUNT
        deposit A {(1 << 63) - 1} -> rejected BAD_AMOUNT
        deposit A {MAX_MONEY_MICROS - 699} -> rejected BAD_AMOUNT
        deposit A {MAX_MONEY_MICROS - 700} -> deposited
        deposit A 1               -> rejected BAD_AMOUNT
        withdraw A 500
        deposit A 1               -> rejected BAD_AMOUNT   # what was ever deposited counts, withdrawn or not
    """)


def test_what_goes_to_a_chain_is_set_aside_until_it_has_left_or_comes_back() -> None:
    """A payout or a return of what no withdrawal set aside is refused: the books have nowhere to take it from."""
    check("""
        open A
        deposit A 700
        raw kind 24 account 1 asset 1 amount_micros 1 -> rejected INSUFFICIENT_FUNDS
        raw kind 17 account 1 asset 1 amount_micros 1 refund_micros 1 -> rejected INSUFFICIENT_FUNDS
        withdraw A 100                                -> withdrawn -100 A
        raw kind 24 account 1 asset 1 amount_micros 1 -> rejected INSUFFICIENT_FUNDS
        raw kind 18 account 1 asset 1 amount_micros 200 -> withdrawn -200 A
        raw kind 24 account 1 asset 1 amount_micros 0 -> rejected BAD_AMOUNT
        raw kind 24 account 1 amount_micros 5         -> rejected BAD_FIELD
        raw kind 24 account 1 asset -1 amount_micros 5 -> rejected BAD_FIELD
        raw kind 24 account 1 asset 1 lots -1 amount_micros 5 -> rejected BAD_QTY
        raw kind 24 account 1 asset 1 amount_micros 201 -> rejected INSUFFICIENT_FUNDS
        raw kind 24 account 1 asset 1 lots 150 amount_micros 150 -> paid_out 0 A
        raw kind 24 account 1 asset 1 amount_micros 51 -> rejected INSUFFICIENT_FUNDS
        raw kind 17 account 1 asset 1 amount_micros 51 refund_micros 51 -> rejected INSUFFICIENT_FUNDS
        raw kind 17 account 1 asset 1 amount_micros 50 refund_micros 49 -> rejected BAD_AMOUNT
        raw kind 17 account 1 amount_micros 50 refund_micros 50 -> rejected BAD_AMOUNT
        raw kind 17 account 1 asset 1 amount_micros 50 refund_micros 50 -> deposited 50 A
        raw kind 24 account 1 asset 1 amount_micros 1 -> rejected INSUFFICIENT_FUNDS
        expect A cash 450
        raw kind 17 account 1 asset -1 amount_micros 5 -> rejected BAD_FIELD
        raw kind 17 account 1 asset 1 lots -1 amount_micros 5 -> rejected BAD_QTY
        raw kind 18 account 1 asset -1 amount_micros 5 -> rejected BAD_FIELD
        raw kind 18 account 1 asset 1 lots -1 amount_micros 5 -> rejected BAD_QTY
        raw kind 18 account 1 asset 1 flags 3 amount_micros 5 -> rejected BAD_FIELD
    """)


def test_a_nomination_takes_its_bond_rounded_up() -> None:
    check("""
        list Y unit 1 bond 250000 ref 3 max 10
        open A
        deposit A 4
        nominate A 0 in Y         -> rejected BAD_QTY
        nominate A -1 in Y        -> rejected BAD_QTY
        nominate A 1000001 in Y   -> rejected BAD_QTY
        nominate A 6 in Y         -> rejected INSUFFICIENT_FUNDS
        nominate A 3 in Y         -> nominated 3 A cash -3 bond 3
        nominate A 1 in Y         -> nominated 1 cash -1 bond 1
        expect A cash 0, A bond 4 in Y, A capacity 4 in Y
        nominate A 1 in Y         -> rejected INSUFFICIENT_FUNDS
        raw kind 19 account 1 instrument 9 lots 1 -> rejected UNKNOWN_SYMBOL
        raw kind 19 account 9 instrument 9 lots 1 -> rejected UNKNOWN_ACCOUNT
    """)


def test_capacity_has_an_upper_bound() -> None:
    most = MAX_POSITION_LOTS // MAX_QTY
    lines = "\n".join([f"nominate A {MAX_QTY} in Y"] * most)
    check(f"""
        list Y bond 0
        open A
        {lines}
        nominate A 1 in Y   -> rejected POSITION_LIMIT
        expect A capacity {MAX_POSITION_LOTS} in Y
    """)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (
            "lot_tick_micros",
            [1, MAX_LOT_VALUE_MICROS // 100_000],
            [0, -1, MAX_LOT_VALUE_MICROS // 100_000 + 1, 1 << 62],
        ),
        ("max_price", [2_600, 100_000], [0, -1, 100_001, 1 << 62, 2_599]),
        ("reference_price", [0, 1, 100_000], [-1, 100_001]),
        ("taker_fee_ppm", [200, MAX_FEE_PPM], [-1, 199, MAX_FEE_PPM + 1]),
        ("maker_rebate_ppm", [0, 500], [-1, 501]),
        ("bond_ppm", [0, 1_000_000], [-1, 1_000_001]),
        ("open_ns", [-5, 999_999], [1_000_000, 1_000_001]),
        ("gate_ns", [2], [1, 0, -9]),
        ("instrument", [2], [0, -1, 3, 4, 1 << 30]),
    ],
)
def test_listings_are_checked(field: str, good: list[int], bad: list[int]) -> None:
    def terms(value: int) -> str:
        return " ".join(f"{name} {number}" for name, number in ({"instrument": 2} | TERMS | {field: value}).items())

    for value in bad:
        check(f"raw kind 32 {terms(value)} -> rejected BAD_LISTING")
    for value in good:
        check(f"raw kind 32 {terms(value)} -> listed 2")


def test_the_most_that_a_price_can_be() -> None:
    check(f"list Y unit 1 max {MAX_PRICE_TICKS}  -> listed")
    check(f"list Y unit 1 max {MAX_PRICE_TICKS + 1} -> rejected BAD_LISTING")


def test_instruments_are_limited_and_listed_once() -> None:
    check(
        """
        list X   -> rejected INSTRUMENT_EXISTS
        list Y   -> listed
        list Z   -> rejected BAD_LISTING
        close Y
        list Y   -> rejected INSTRUMENT_EXISTS
        delist Y
        list Y   -> listed
        expect Y last none
    """,
        max_instruments=2,
    )


def test_the_gate_cancels_all_orders_and_lists_what_is_to_be_delivered() -> None:
    check("""
        list Y bond 250000 ref 1000
        open P
        deposit P 100_000_000
        nominate P 20 in Y
        expect P bond 40_000_000 in Y
        nominate A 1 in Y
        buy  B 1 @ 900 in Y
        buy  B 2 @ 901 in Y
        sell P 5 @ 1000 in Y as p1
        sell P 4 @ 999 in Y as p2
        buy  C 6 @ 1000 in Y     -> new, trade 4 @ 999, trade 2 @ 1000
        close Y ->
            canceled 2 B gate_closed, canceled 1 B gate_closed, canceled 3 p1 @ 1000 gate_closed, closed 2,
            due 6 C escrow 0 fees_due 0, bond_released 2000000 A bond -2000000, due -6 P escrow 47968000 fees_due 0
        expect Y closed, Y bids none, Y asks none, P bond 40_000_000 in Y, A bond 0 in Y, A capacity 1 in Y
        close Y                  -> rejected MARKET_NOT_OPEN
        buy  C 1 @ 1000 in Y     -> rejected MARKET_NOT_OPEN
        nominate C 1 in Y        -> rejected MARKET_NOT_OPEN
        delist Y                 -> rejected NOT_FLAT
        deliver P C 6 in Y       -> delivered 6 cash 87968000 contra_cash 0 escrow -47968000 bond -40000000
        delist Y                 -> delisted 2
        expect Y free, P net 0 in Y, P capacity 0 in Y
        raw kind 35 instrument 2 -> rejected UNKNOWN_SYMBOL
        raw kind 33 instrument 2 -> rejected UNKNOWN_SYMBOL
        list Y                   -> listed 2
        sell P 1 @ 5 in Y        -> rejected INSUFFICIENT_CAPACITY
    """)


def test_a_provider_that_ends_long_gets_its_bond_and_a_delivery() -> None:
    check("""
        open A
        deposit A 1_000_000_000
        nominate A 4
        buy A 3 @ 2600
        sell B 3 @ 2600
        close X   -> closed, due -3 B, bond_released 20800000 A, due 3 A
    """)


def test_who_may_deliver_what_and_when() -> None:
    check("""
        buy  B 3 @ 2600
        sell A 5 @ 2600
        buy  C 2 @ 2600
        deliver A B 1               -> rejected NOT_CLOSED
        delist X                    -> rejected NOT_CLOSED
        close X
        deliver A B 0               -> rejected BAD_DELIVERY
        deliver A B -1              -> rejected BAD_DELIVERY
        deliver A B 4               -> rejected BAD_DELIVERY
        deliver B A 1               -> rejected BAD_DELIVERY
        deliver A A 1               -> rejected BAD_DELIVERY
        deliver B C 1               -> rejected BAD_DELIVERY
        deliver A B 9223372036854775807 -> rejected BAD_DELIVERY
        open D
        deliver D B 1               -> rejected BAD_DELIVERY
        deliver A D 1               -> rejected BAD_DELIVERY
        deliver A B 1 refund -1     -> rejected BAD_AMOUNT
        deliver A B 1 refund 20800001 -> rejected BAD_AMOUNT
        deliver A B 1 damages -1    -> rejected BAD_AMOUNT
        deliver A B 1 damages 1000000000000000001 -> rejected BAD_AMOUNT
        raw kind 34 account 9 contra_account 2 instrument 1 lots 1 -> rejected UNKNOWN_ACCOUNT
        raw kind 34 account 2 contra_account 0 instrument 1 lots 1 -> rejected UNKNOWN_ACCOUNT
        raw kind 34 account 2 contra_account 1 instrument 7 lots 1 -> rejected UNKNOWN_SYMBOL
        deliver A B 3               -> delivered 3 A with B
        deliver A B 1               -> rejected BAD_DELIVERY
        deliver A C 1 refund 20800000 -> delivered 1 contra_cash 20800000
        deliver A C 1 damages 1000000000000000000 -> delivered 1 damages 5220787520 shortfall 999999994779212480
        delist X
    """)


def test_fees_come_before_damages_and_pay_before_bond() -> None:
    terms = "list Y unit 1000 fee 10000 rebate 0 bond 100000 ref 100"
    sale = """
        open P
        deposit P 100_000
        nominate P 10 in Y
        buy  B 10 @ 100 in Y
        sell P 10 @ 100 in Y    -> new, trade fee 10000 fee_due 10000 escrow 1000000
        close Y
        expect P cash 0, P bond 100000 in Y
    """
    check(f"""
        {terms}
        {sale}
        deliver P B 10 in Y ->
            delivered cash 1090000 contra_cash 0 fees 10000 fees_due -10000 bond -100000 shortfall 0
        expect house 10000, P cash 1090000, P bond 0 in Y
    """)
    check(f"""
        {terms}
        {sale}
        deliver P B 10 refund 995000 damages 50000 in Y ->
            delivered cash 45000 contra_cash 1045000 fees 10000 bond -100000 refund 995000 damages 50000 shortfall 0
        expect P cash 45000, house 10000
    """)
    check(f"""
        {terms}
        {sale}
        deliver P B 10 refund 1000000 damages 200000 in Y ->
            delivered cash 0 contra_cash 1090000 fees 10000 damages 90000 bond -100000 shortfall 110000
        expect P cash 0, P bond 0 in Y, house 10000
    """)
    check(f"""
        {terms}
        {sale}
        deliver P B 3 refund 100000 damages 197000 in Y ->
            delivered cash 0 contra_cash 297000 fees 3000 escrow -300000 fees_due -3000 bond 0 shortfall 0
        deliver P B 3 refund 300000 damages 10000 in Y ->
            delivered cash 0 contra_cash 310000 fees 3000 bond -13000 damages 10000
        expect P bond 87000 in Y, P escrow 400000 in Y, P fees_due 4000 in Y
        deliver P B 4 in Y                               -> delivered cash 483000 fees 4000 bond -87000
    """)


def test_a_bond_that_is_short_of_the_fees_pays_them_first() -> None:
    check("""
        list Y unit 1000 fee 10000 rebate 0 bond 1000 ref 100
        open P
        deposit P 1_000
        nominate P 10 in Y
        buy  B 10 @ 100 in Y
        sell P 10 @ 100 in Y
        close Y
        deliver P B 10 refund 1000000 damages 7 in Y ->
            delivered cash 0 contra_cash 1000000 fees 1000 fees_due -10000 bond -1000 damages 0 shortfall 9007
        expect P fees_due 0 in Y, house 1000
    """)


def test_delivery_in_parts_rounds_down_and_ends_whole() -> None:
    check("""
        list Y unit 1 fee 10000 rebate 0 bond 0 ref 0 max 10
        nominate A 9 in Y
        buy  B 1 @ 5 in Y
        buy  B 2 @ 3 in Y
        sell A 3 @ 3 in Y
        close Y
        deliver A B 1 in Y -> delivered cash 3 escrow -3 fees 0 fees_due 0
        deliver A B 1 in Y -> delivered cash 3 escrow -4 fees 1 fees_due -1
        deliver A B 1 in Y -> delivered cash 3 escrow -4 fees 1 fees_due -1
        delist Y
    """)


def test_the_clock_never_falls() -> None:
    check("""
        list Y from 0 gate 500
        clock 499
        tick                 -> nothing
        buy A 1 @ 1 in Y     -> new
        clock 500
        buy A 1 @ 1 in Y     -> rejected MARKET_NOT_OPEN
        list Z gate 500      -> rejected BAD_LISTING
        list Z gate 501      -> listed
    """)
