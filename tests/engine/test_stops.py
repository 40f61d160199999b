"""Orders that wait for the last price."""

from tests.tables import check

# The last trade is at 2600.
TRADED = """
        sell M 1 @ 2600
        buy N 1 @ 2600
"""


def test_a_stop_waits_and_then_takes_what_there_is() -> None:
    check(
        TRADED
        + """
        buy A 5 stop 2610 as a1          -> new 5 @ 100000 waiting held 4002000005
        expect X bids none, X buy_stops 5 @ 2610, A open_orders 1, A open_buy 5
        sell B 2 @ 2610
        sell B 2 @ 2611
        buy C 1 @ 2609
        buy C 1 @ 2610                   -> new, trade 1 @ 2610, triggered 5 @ 100000 a1, trade 1 @ 2610, trade 2 @ 2611,
                                            canceled 2 a1 unfilled cum 3
        expect X buy_stops none, A open_orders 0, A held 0, X last 2611
    """
    )


def test_a_stop_limit_rests_at_its_price() -> None:
    check(
        TRADED
        + """
        sell A 5 @ 2595 stop 2598 as a1  -> new 5 @ 2595 waiting
        buy B 2 @ 2598
        buy B 1 @ 2594
        sell C 1 @ 2598                  -> new, trade 1, triggered 5 @ 2595 a1, trade 1 @ 2598
        expect X asks 4 @ 2595, X sell_stops none
        amend a1 qty 3                   -> replaced 2 kept
    """
    )


def test_a_stop_that_is_due_at_once() -> None:
    check(
        TRADED
        + """
        sell B 2 @ 2600
        buy A 5 @ 2600 stop 2600         -> new waiting, triggered 5, trade 2
        expect X bids 3 @ 2600
        sell A 2 @ 2601 stop 2700        -> new waiting, triggered 2
        expect X asks 2 @ 2601
    """
    )
    check("""
        buy A 5 @ 2600 stop 1            -> new waiting      # nothing was traded yet
        sell A 5 @ 2600 stop 3000        -> new waiting
        expect X buy_stops 5 @ 1, X sell_stops 5 @ 3000
        sell B 1 @ 2700
        buy C 1 @ 2700                   -> new, trade 1, triggered 5 @ 2600, triggered 5 @ 2600, trade 5
    """)


def test_the_order_of_those_that_are_due() -> None:
    check(
        TRADED
        + """
        buy A 1 @ 2605 stop 2603 as a1
        buy A 1 @ 2605 stop 2602 as a2
        buy A 1 @ 2605 stop 2603 as a3
        buy A 1 @ 2606 stop 2604 as a4
        sell A 1 @ 2650 stop 2599 as a5
        sell A 1 @ 2650 stop 2598 as a6
        sell B 1 @ 2603
        sell B 3 @ 2605
        buy C 1 @ 2603                   -> new, trade 1, triggered a2, trade 1 @ 2605, triggered a1, trade 1, triggered a3,
                                            trade 1, triggered a4
        expect X bids 1 @ 2606
        sell C 1 @ 0                     -> new, trade 1 @ 2606
        sell A 1 @ 2650 stop 2599 as a7
        buy D 1 @ 2598
        sell C 1 @ 2598                  -> new, trade 1, triggered a5, triggered a7, triggered a6
        expect X asks 1+1+1 @ 2650
    """
    )


def test_a_stop_becomes_an_iceberg() -> None:
    check(
        TRADED
        + """
        buy A 9 @ 2620 stop 2610 show 4 as a1   -> new 9 waiting shows 4
        expect a1 shown 0
        sell B 3 @ 2610
        buy C 1 @ 2610                   -> new, trade 1, triggered 9 a1 shows 4, trade 2 with B
        expect X bids 7 @ 2620, a1 shown 4
    """
    )


def test_a_stop_that_reduces_finds_nothing_to_reduce() -> None:
    """With something to trade with, and in the middle of it."""
    check("""
        sell B 9 @ 2601
        buy A 9 @ 2601                   # A is long 9
        sell A 5 @ 2500 stop 2599 reduce as a1
        sell A 4 @ 2500 stop 2599 reduce as a2
        sell A 9 @ 2599                  # before them
        buy C 1 @ 2598
        buy D 9 @ 2599                   -> new, trade 9 with A, triggered a1, canceled 5 a1 nothing_to_reduce,
                                            triggered a2, canceled 4 a2 nothing_to_reduce
        expect A net 0, X bids 1 @ 2598
    """)
    check("""
        sell B 9 @ 2601
        buy A 9 @ 2601
        sell A 9 @ 2500 stop 2599 reduce as a1
        sell A 6 @ 2599
        buy C 5 @ 2598
        buy D 6 @ 2599                   -> new, trade 6 with A, triggered a1, trade 3 with C leaves 6,
                                            canceled 6 a1 nothing_to_reduce cum 3
        expect A net 0, X bids 2 @ 2598
    """)


def test_buys_that_are_due_come_before_sells() -> None:
    """Both wait as long as nothing was traded; and the first one's trades decide whether the next is due at all."""
    check("""
        sell A 1 @ 2600 stop 3000 as a1
        buy A 1 @ 2500 stop 1 as a2
        sell B 1 @ 2700
        buy C 1 @ 2700                   -> new, trade 1, triggered a2, triggered a1
        expect X bids 1 @ 2500, X asks 1 @ 2600
    """)
    check("""
        status X auction
        sell A 2 @ 2600 stop 2650 as a1
        buy B 2 @ 2800 stop 2650 as b1
        sell C 1 @ 2650
        buy D 1 @ 2650
        sell C 2 @ 2700
        status X continuous              -> auction 1 @ 2650, trade 1 @ 2650, status, triggered b1, trade 2 @ 2700
        expect X sell_stops 2 @ 2650
    """)


def test_a_cascade() -> None:
    check(
        TRADED
        + """
        buy B 1 @ 2599
        buy B 1 @ 2598
        buy B 1 @ 2597
        sell A 1 stop 2599 as a1
        sell A 1 stop 2598 as a2
        sell A 1 stop 2596 as a3
        sell C 1 @ 2599                  -> new, trade 1 @ 2599, triggered a1 @ 0, trade 1 @ 2598, triggered a2, trade 1 @ 2597
        expect X sell_stops 1 @ 2596
    """
    )


def test_the_limit_of_a_stop_keeps_to_collar_and_band() -> None:
    check("""
        list Y collar 10000 ref 2600 band 100000
        buy A 1 stop 2600 in Y           -> new @ 2626 waiting
        buy A 1 stop 2850 in Y           -> new @ 2860
        nominate A 9 in Y
        sell A 1 stop 2600 in Y as a1    -> new @ 2574
        sell A 1 stop 2345 in Y          -> new @ 2340
        sell A 1 @ 2339 stop 2345 in Y   -> rejected BAD_PRICE
        amend a1 @ 2500                  -> rejected AMEND_NOT_ALLOWED
        amend a1 stop 2500               -> replaced 1 @ 2475 lost
        bands Y collar 1200              # 3.12 ticks of 2600 are 3
        buy A 1 stop 2600 in Y           -> new @ 2603 waiting
        sell A 1 stop 2600 in Y          -> new @ 2597 waiting
    """)


def test_bad_stops() -> None:
    check("""
        buy A 5 @ 2600 stop 0            -> rejected BAD_PRICE
        buy A 5 stop 100001              -> rejected BAD_PRICE
        raw kind 1 account 1 instrument 1 qty 1 ord_type 2                       -> rejected BAD_PRICE
        raw kind 1 account 1 instrument 1 qty 1 price 5 stop_price 5 flags 256   -> rejected BAD_PRICE
        raw kind 1 account 1 instrument 1 qty 1 price 5 stop_price 5 ord_type 2 flags 256   -> rejected BAD_PRICE
        buy A 5 @ 2600 stop 2600 post    -> rejected BAD_TIF
        buy A 5 @ 2600 stop 2600 slide   -> rejected BAD_TIF
        buy A 5 @ 2600 stop 2600 min 2   -> rejected BAD_TIF
        buy A 5 @ 2600 as a1
        amend a1 stop 2600               -> rejected AMEND_NOT_ALLOWED
    """)


def test_what_is_not_traded_at_once_by_its_time_in_force() -> None:
    check(
        TRADED
        + """
        sell B 2 @ 2605
        buy A 3 @ 2605 stop 2605 fok as a1
        buy A 1 @ 2605 stop 2605 fok as a2
        buy A 3 @ 2605 stop 2605 ioc as a3
        buy C 1 @ 2605                   -> new, trade 1, triggered a1, canceled 3 a1 unfilled, triggered a2, trade 1,
                                            triggered a3, canceled 3 a3 unfilled
    """
    )


def test_cancels_and_amends_reach_what_waits() -> None:
    check(
        TRADED
        + """
        buy A 5 @ 2620 stop 2610 as a1
        buy A 5 @ 2620 stop 2610 gtd till 50 as a2
        buy A 5 @ 2500
        sell A 5 @ 2590 stop 2590 tag 7 as a3
        amend a1 qty 4                   -> replaced 4 kept
        amend a1 requeue                 -> replaced 4 lost
        expect X buy_stops 5+4 @ 2610
        amend a1 @ 2621                  -> replaced 4 @ 2621 lost
        amend a1 stop 2609               -> replaced 4 lost
        amend a1 stop 100001             -> rejected BAD_PRICE
        amend a1 stop -2                 -> rejected BAD_PRICE
        expect X buy_stops 4 @ 2609 5 @ 2610
        mass_cancel A tag 7              -> canceled 5 a3 mass_canceled
        clock 50
        expire a2                        -> canceled 5 expired
        mass_cancel A                    -> canceled 5 @ 2500, canceled 4 a1
        buy A 5 @ 2620 stop 2610
        buy B 5 @ 2500
        close X                          -> canceled 5 @ 2500, canceled 5 @ 2620 gate_closed, closed, bond_released,
                                            bond_released, bond_released, due, due
    """
    )


def test_an_amend_may_trigger() -> None:
    check(
        TRADED
        + """
        sell B 1 @ 2600
        buy A 5 @ 2620 stop 2610 as a1
        amend a1 stop 2600 qty 4         -> replaced 4 lost, triggered 4 a1, trade 1
        expect X bids 3 @ 2620
    """
    )


def test_stops_wait_while_orders_are_gathered() -> None:
    check(
        TRADED
        + """
        sell A 5 stop 2600 in X as a0    -> new, triggered 5, canceled 5
        status X auction
        buy A 5 @ 2620 stop 2600 as a1   -> new waiting
        sell B 2 @ 2610
        buy C 2 @ 2610
        status X continuous              -> auction 2 @ 2610, trade 2 @ 2610 auction, status continuous, triggered 5 a1
        expect X bids 5 @ 2620
    """
    )


def test_reduce_only_brings_a_position_nearer_to_zero() -> None:
    check(
        TRADED
        + """
        sell A 1 @ 2600 reduce           -> rejected RISK_LIMIT
        buy A 1 @ 2600 reduce            -> rejected RISK_LIMIT
        sell B 9 @ 2601
        buy A 9 @ 2601                   -> new, trade 9
        sell A 5 @ 2610 as a1
        sell A 5 @ 2620 reduce           -> rejected RISK_LIMIT
        sell A 4 @ 2620 reduce as a2     -> new
        buy A 4 @ 2500 reduce            -> rejected RISK_LIMIT
        amend a2 qty 5                   -> rejected RISK_LIMIT
        amend a1 qty 4                   -> replaced
        amend a2 qty 5                   -> replaced 5 lost
        sell A 7 @ 2609 as a3            # more than there is: the account may go short
        buy C 7 @ 2609                   -> new, trade 7
        buy C 9 @ 2620                   -> new, trade 4 @ 2610, canceled 5 a2 nothing_to_reduce
        expect A net -2
        buy A 2 @ 2600 reduce as a4
        mass_cancel C
        sell C 9 @ 2600                  -> new, trade 2 with A
        expect A net 0
    """
    )
    check("""
        sell B 9 @ 2601
        buy A 9 @ 2601                   -> new, trade 9
        sell A 5 @ 2620 reduce as a1
        sell A 7 @ 2610 as a2
        buy C 7 @ 2610                   -> new, trade 7 with A
        buy C 9 @ 2620                   -> new, trade 2 with A contra_leaves 3, canceled 3 a1 nothing_to_reduce
        expect X asks none, A net 0
    """)
    check(
        """
        sell B 9 @ 2601
        buy A 9 @ 2601                   -> new, trade 9
        sell A 9 stop 2600 reduce as a1
        sell A 4 @ 2600                  # it may trade before the stop
        buy C 4 @ 2600                   -> new, trade 4 with A, triggered 9 a1, canceled 9 unfilled
    """
    )


def test_what_is_open_to_reduce_counts_on_the_short_side_too() -> None:
    check("""
        buy B 5 @ 2600
        sell A 5 @ 2600                  # A is short
        sell A 1 @ 2700 reduce           -> rejected RISK_LIMIT
        buy A 6 @ 2590 reduce            -> rejected RISK_LIMIT
        buy A 2 @ 2590 as a1
        buy A 1 @ 2700 stop 2650 as a2   # what waits is open, too
        buy A 3 @ 2590 reduce            -> rejected RISK_LIMIT
        buy A 2 @ 2590 reduce as a3      -> new
        buy A 1 @ 2590 reduce            -> rejected RISK_LIMIT
        amend a3 qty 3                   -> rejected RISK_LIMIT
        cancel a1
        amend a3 qty 4                   -> replaced 4 lost
        sell C 9 @ 2590                  -> new, trade 4 with A
        expect A net -1
        buy A 1 @ 2600 reduce            -> rejected RISK_LIMIT
        cancel a2
        buy A 1 @ 2600 reduce ioc        -> new, trade 1 with C
        buy A 1 @ 2600 reduce            -> rejected RISK_LIMIT
    """)


def test_unknown_things() -> None:
    check("""
        buy A 5 @ 2600 gtd till 9 as a1
        raw kind 3 account 9 order_id 1          -> rejected UNKNOWN_ACCOUNT
        raw kind 5 account 9 order_id 1          -> rejected UNKNOWN_ACCOUNT
        raw kind 2 account 9 order_id 1          -> rejected UNKNOWN_ACCOUNT
        raw kind 6 account 9 instrument 1 group 1    -> rejected UNKNOWN_ACCOUNT
        amend a1 by B                            -> rejected ORDER_NOT_FOUND
        raw kind 49 account 9 amount_micros 1    -> rejected UNKNOWN_ACCOUNT
        amend a1 post                            -> rejected BAD_FIELD
        raw kind 22 account 9                    -> rejected UNKNOWN_ACCOUNT
        raw kind 15 account 1                    -> rejected UNKNOWN_KIND
        raw kind 23 account 1                    -> rejected UNKNOWN_KIND
        raw kind 43 account 1                    -> rejected UNKNOWN_KIND
        raw kind 11 account 1                    -> rejected UNKNOWN_KIND
    """)


def test_an_order_that_reduces_is_cut_to_what_there_is() -> None:
    check("""
        sell B 4 @ 2600
        buy A 4 @ 2600                           # A is long
        sell A 4 @ 2700 reduce as a1
        sell A 3 @ 2650 as a2
        buy C 3 @ 2650                           -> new, trade 3
        buy C 4 @ 2700 fok                       -> new, trade 1 with A, canceled 3 a1 nothing_to_reduce, canceled 3 unfilled
    """)
    check("""
        sell B 4 @ 2600
        buy A 4 @ 2600
        sell A 3 @ 2600 stop 2500 as a1
        sell A 1 @ 2600 reduce stop 2500 as a2
        sell A 4 @ 2590 as a3
        buy C 4 @ 2590
        buy C 1 @ 2500
        buy C 3 @ 2600 group 1
        sell D 3 @ 2600                          -> new, trade 3
        buy C 3 @ 2605
        sell D 1 @ 2605
        expect A net 0, X sell_stops 3+1 @ 2500
        sell D 2 @ 2605
        sell D 1 @ 2500                          -> new, trade 1 @ 2500, triggered a1, triggered a2
        buy C 5 @ 2600                           -> new, trade 3 with A, canceled 1 a2 nothing_to_reduce
    """)
