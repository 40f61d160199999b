"""What an order may ask besides price and quantity at entry: time, quantity, price bands, limits of its account."""

import pytest

from tests.tables import check


def test_a_command_that_came_too_late_is_refused() -> None:
    check("""
        clock 100
        buy A 5 @ 2600 deadline 100 as a1   -> new
        buy A 5 @ 2600 deadline 99          -> rejected DEADLINE_PASSED
        buy A 5 @ 2600 deadline -1          -> rejected DEADLINE_PASSED
        amend a1 qty 4 deadline 99          -> rejected DEADLINE_PASSED
        amend a1 qty 4 deadline 100         -> replaced 4 kept
        cancel a1                           -> canceled 4
    """)


def test_fields_behind_the_flag_are_not_read_without_it() -> None:
    check("""
        clock 100
        raw kind 1 account 1 instrument 1 qty 1 deadline_ns 1     -> rejected UNKNOWN_ACCOUNT
        buy A 1 @ 5
        raw kind 1 account 1 instrument 1 qty 1 deadline_ns 1 min_qty 7 show_qty -1 stop_price 9 expire_ns 3 tag -1 -> new 1
        raw kind 1 account 1 instrument 1 qty 1 deadline_ns 1 flags 256     -> rejected DEADLINE_PASSED
        raw kind 1 account 1 instrument 1 qty 1 group -1                    -> rejected BAD_FIELD
        raw kind 1 account 1 instrument 1 qty 1 tag -1 flags 256            -> rejected BAD_FIELD
    """)


def test_good_till_a_date() -> None:
    check("""
        clock 100
        buy A 5 @ 2600 gtd till 100             -> rejected BAD_TIF
        buy A 5 @ 2600 gtd                      -> rejected BAD_TIF
        buy A 5 @ 2600 till 101                 -> rejected BAD_TIF
        buy A 5 @ 2600 gtd till 200 as a1       -> new
        buy A 5 @ 2600 as a2
        expect a1 expire_ns 200
        clock 199
        expire a1                               -> rejected ORDER_NOT_FOUND
        clock 200
        expire a1 by B                          -> rejected ORDER_NOT_FOUND
        expire a2                               -> rejected ORDER_NOT_FOUND
        sell B 2 @ 2600                         -> new, trade 2 with A
        expire a1                               -> canceled 3 A a1 expired cum 2
        expire a1                               -> rejected ORDER_NOT_FOUND
        expect X bids 5 @ 2600
    """)


@pytest.mark.parametrize("status", ["auction", "pre_open", "halted", "cancel_only"])
def test_dates_and_timers_come_in_every_status(status: str) -> None:
    check(f"""
        buy A 5 @ 2600 gtd till 200 as a1
        buy A 4 @ 2700 stop 2650 gtd till 200 as a2
        buy A 3 @ 2600 tag 7
        cancel_after A tag 7 till 200
        status X {status}
        halt
        clock 200
        expire a1                               -> canceled 5 expired
        expire a2                               -> canceled 4 expired
        dead_man A tag 7                        -> dead_man_set 0, canceled 3 dead_man
        expect X bids none, X buy_stops none, A held 0, A open_orders 0
    """)


def test_a_minimum_quantity_is_asked_at_entry_only() -> None:
    check("""
        sell A 3 @ 2600
        sell A 3 @ 2601
        buy B 9 @ 2600 min 4             -> rejected FOK_NOT_FILLABLE
        buy B 9 @ 2600 min 3 ioc         -> new 9, trade 3, canceled 6 unfilled
        buy B 9 @ 2601 min 3 as b1       -> new 9, trade 3
        expect X bids 6 @ 2601
        buy B 9 @ 2601 min 10            -> rejected BAD_QTY
        buy B 9 @ 2601 min -1            -> rejected BAD_QTY
        buy B 9 @ 2601 min 1 post        -> rejected BAD_TIF
        buy B 9 @ 2601 min 1 fok         -> rejected BAD_TIF
        sell A 4 market ioc min 4        -> new 4, trade 4 @ 2601
        sell A 4 market ioc min 3        -> rejected FOK_NOT_FILLABLE
    """)


def test_amends_of_special_orders_are_checked_as_those_of_plain_ones() -> None:
    check("""
        buy A 5 @ 2600 tag 7 as a1
        sell B 3 @ 2600
        amend a1 qty 6 @ 90000           -> replaced 3 lost
        amend a1 qty 900000              -> rejected INSUFFICIENT_FUNDS
        amend a1 qty 3                   -> canceled 3 a1 by_request cum 3
        amend a1 qty 6                   -> rejected ORDER_NOT_FOUND
    """)


def test_an_order_that_slides() -> None:
    check("""
        sell A 5 @ 2600
        buy B 5 @ 2600 slide as b1       -> new 5 @ 2599
        buy B 5 @ 2598 slide             -> new 5 @ 2598
        sell A 2 @ 2500 slide            -> new 2 @ 2600
        amend b1 @ 2700 qty 4            -> replaced 4 @ 2599 kept
        amend b1 @ 2597                  -> replaced 4 @ 2597 lost
        amend b1 @ 2700                  -> replaced 4 @ 2599 lost
        buy B 5 @ 2600 slide post        -> rejected BAD_FIELD
        buy B 5 @ 2600 slide ioc         -> rejected BAD_TIF
        sell C 1 @ 0 as c1 in X          -> new, trade 1 @ 2599
        expect X asks 5+2 @ 2600
    """)


def test_there_may_be_no_price_to_slide_to() -> None:
    check("""
        sell A 5 @ 0
        buy B 5 @ 9 slide                -> rejected POST_ONLY_WOULD_TAKE
        list Y max 10 ref 5
        buy B 5 @ 10 in Y
        nominate A 9 in Y
        sell A 5 @ 3 slide in Y          -> rejected POST_ONLY_WOULD_TAKE
    """)


def test_a_market_order_trades_within_its_collar() -> None:
    check("""
        list Y collar 10000
        nominate A 9 in Y
        sell A 2 @ 2600 in Y
        sell A 2 @ 2626 in Y
        sell A 2 @ 2627 in Y
        buy B 5 market ioc in Y          -> new 5 @ 2626, trade 2 @ 2600, trade 2 @ 2626, canceled 1 unfilled
        buy B 3 market fok in Y          -> rejected FOK_NOT_FILLABLE
        buy B 1 market fok in Y          -> new 1 @ 2627, trade 1
        buy B 5 @ 2000 in Y
        buy B 5 @ 1980 in Y
        buy B 5 @ 1979 in Y
        sell A 15 market ioc in Y        -> rejected INSUFFICIENT_CAPACITY
        nominate A 20 in Y
        sell A 15 market ioc in Y        -> new 15 @ 1980, trade 5, trade 5, canceled 5 unfilled
    """)


def test_prices_stay_in_their_band() -> None:
    check("""
        list Y ref 100 band 300000 max 1000
        nominate A 99 in Y
        buy B 1 @ 69 in Y                -> rejected BAD_PRICE
        buy B 1 @ 70 in Y as b1          -> new
        sell A 1 @ 131 in Y              -> rejected BAD_PRICE
        sell A 1 @ 130 in Y              -> new
        amend b1 @ 69                    -> rejected BAD_PRICE
        bands Y ref 100 band 100000      -> bands 100 low 90 high 110
        amend b1 qty 2                   -> replaced 2 lost
        amend b1 @ 71                    -> rejected BAD_PRICE
        amend b1 @ 90                    -> replaced 2 @ 90
        buy B 1 market ioc in Y          -> new 1 @ 110, canceled 1 unfilled      # the offer is outside
        sell A 1 @ 91 slide in Y         -> new 1 @ 91
        sell A 1 @ 90 slide in Y         -> new 1 @ 91
        bands Y ref 1001                 -> rejected BAD_LISTING
        bands Y ref 100 band 10000001    -> rejected BAD_LISTING
        bands Y ref 100 collar -1        -> rejected BAD_LISTING
        bands Y ref 100                  -> bands 100 low 0 high 1000
        buy B 1 @ 1000 in Y ioc          -> new, trade 1 @ 91
    """)
    check("""
        list Y ref 900 band 10000000 max 1000 collar 7 dynamic 9   -> listed
        bands Y ref 3 band 10000000 collar 7 dynamic 9             -> bands 3 low 0 high 33 cum_qty 7 contra_leaves 9
        raw kind 39 instrument 3                                   -> rejected UNKNOWN_SYMBOL
        close Y
        bands Y                                                    -> rejected MARKET_NOT_OPEN
        list Z band 10000001                                       -> rejected BAD_LISTING
    """)


def test_a_bond_follows_the_new_reference() -> None:
    check("""
        list Y ref 100 bond 250000 unit 8000
        nominate A 10 in Y               -> nominated 10 bond 2000000
        bands Y ref 200
        nominate A 10 in Y               -> nominated 10 bond 4000000
    """)


def test_limits_of_an_account() -> None:
    check("""
        limits A size 5 net 8 orders 2   -> limits 5 @ 8 leaves 2
        buy A 6 @ 2600                   -> rejected BAD_QTY
        buy A 5 @ 2600 as a1
        buy A 4 @ 2600                   -> rejected POSITION_LIMIT
        buy A 3 @ 2600 as a2
        buy A 1 @ 2600                   -> rejected TOO_MANY_OPEN_ORDERS
        amend a1 qty 6                   -> rejected BAD_QTY
        amend a2 qty 4                   -> rejected POSITION_LIMIT
        limits A size 1 net 1 orders 1   -> limits 1
        amend a1 qty 4                   -> replaced 4 kept
        amend a1 @ 2601                  -> replaced 4 lost
        limits A                         -> limits 0
        amend a1 qty 40                  -> replaced 40
    """)
    check("""
        limits A net 8
        sell A 8 @ 2600                  -> new
        sell A 1 @ 2600                  -> rejected POSITION_LIMIT
        buy B 8 @ 2600
        sell A 1 @ 2600                  -> rejected POSITION_LIMIT
        expect A net -8
    """)


@pytest.mark.parametrize("limits", ["size 1000001", "size -1", "net 1000000001", "net -1", "orders 1001", "orders -1"])
def test_limits_that_are_none(limits: str) -> None:
    check(f"""
        tick
        lock A
        limits A {limits}                -> rejected BAD_FIELD
        raw kind 22 account 9            -> rejected UNKNOWN_ACCOUNT
    """)
