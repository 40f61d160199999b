"""Ladders of quotes, market-maker protection, timers that cancel, mass cancels by what an order is for."""

import pytest

from tests.tables import check


def test_a_quote_is_kept_changed_or_replaced() -> None:
    check("""
        quote A buy 5 @ 2600 group 1 level 2 as a1     -> new 5 @ 2600 A
        buy B 5 @ 2600
        quote A buy 5 @ 2600 group 1 level 2           -> kept 5 a1 @ 2600 qty 5
        quote A buy 3 @ 2600 group 1 level 2           -> replaced 3 a1 kept
        expect X bids 3+5 @ 2600, a1 level 2, a1 tag 0, a1 group 1
        sell C 1 @ 2600                                -> new, trade 1 with A
        quote A buy 2 @ 2600 group 1 level 2           -> kept 2 a1 qty 3 cum 1
        quote A buy 3 @ 2600 group 1 level 2           -> replaced 3 a1 lost qty 4 cum 1
        expect X bids 5+3 @ 2600
        quote A buy 3 @ 2601 group 1 level 2           -> replaced 3 @ 2601 a1 lost
        quote A buy 0 @ 7 group 1 level 2              -> canceled 3 a1 by_request
        quote A buy 0 @ 7 group 1 level 2              -> kept 0 order_id 0
        quote A buy 3 @ 2601 group 1 level 2           -> new 3
    """)


def test_what_tells_quotes_apart() -> None:
    check("""
        list Y
        nominate A 9 in Y
        quote A buy 1 @ 2600 group 1                   -> new
        quote A sell 1 @ 2700 group 1                  -> new
        quote A buy 2 @ 2600 group 2                   -> new
        quote A buy 3 @ 2600 group 1 level 1           -> new
        quote A buy 4 @ 2600 group 1 in Y              -> new
        quote B buy 5 @ 2600 group 1                   -> new
        expect X bids 1+2+3+5 @ 2600, X asks 1 @ 2700
        mass_cancel A group 1                          -> canceled 4, canceled 1 @ 2600, canceled 3, canceled 1 @ 2700
        expect X bids 2+5 @ 2600
    """)


def test_a_filled_or_cancelled_quote_is_gone() -> None:
    check("""
        quote A buy 5 @ 2600 group 1 as a1
        sell B 5 @ 2600                                -> new, trade 5
        quote A buy 5 @ 2600 group 1 as a2             -> new 5
        cancel a2                                      -> canceled 5
        quote A buy 5 @ 2600 group 1 as a3             -> new 5
        amend a3 qty 4                                 -> replaced 4 kept
        quote A buy 4 @ 2600 group 1                   -> kept 4 a3
    """)


def test_a_quote_takes() -> None:
    check("""
        sell B 5 @ 2601
        quote A buy 5 @ 2600 group 1 as a1
        quote A buy 7 @ 2601 group 1                   -> replaced 7 lost, trade 5
        expect X bids 2 @ 2601
        sell B 5 @ 2602
        quote A buy 7 @ 2602 group 1 post              -> rejected POST_ONLY_WOULD_TAKE
        quote A buy 7 @ 2602 group 1 slide             -> replaced 7 @ 2601 lost
        quote A buy 7 @ 2602 group 1 level 1 post      -> rejected POST_ONLY_WOULD_TAKE
        quote A buy 7 @ 2602 group 1 level 1 slide     -> new 7 @ 2601
        quote A buy 7 @ 2601 group 1 post              -> kept 7 a1
        amend a1 @ 2602                                -> rejected POST_ONLY_WOULD_TAKE
    """)


def test_a_quote_belongs_to_the_session_that_sent_it_last() -> None:
    check("""
        quote A buy 5 @ 2600 group 1 session 3
        quote A buy 5 @ 2600 group 1 session 4         -> kept
        mass_cancel A session 3                        -> nothing
        quote A buy 0 @ 2600 group 1 level 65536 session 3   -> rejected BAD_FIELD
        mass_cancel A session 4                        -> canceled 5
    """)


@pytest.mark.parametrize(
    ("quote", "reason"),
    [
        ("buy 5 @ 2600", "BAD_FIELD"),
        ("buy 5 @ 2600 group -1", "BAD_FIELD"),
        ("buy 5 @ 2600 group 1 level -1", "BAD_FIELD"),
        ("buy 5 @ 2600 group 1 market", "BAD_FIELD"),
        ("buy 5 @ 2600 group 1 post slide", "BAD_FIELD"),
        ("buy 5 @ 2600 group 1 reduce", "BAD_FIELD"),
        ("buy 5 @ 2600 group 1 ioc", "BAD_TIF"),
        ("buy 5 @ 2600 group 1 gtd till 99", "BAD_TIF"),
        ("buy -1 @ 2600 group 1", "BAD_QTY"),
        ("buy 1000001 @ 2600 group 1", "BAD_QTY"),
        ("buy 1000000 @ 2600 group 9", "BAD_QTY"),
        ("buy 5 @ -1 group 1", "BAD_PRICE"),
        ("buy 5 @ -1 group 9", "BAD_PRICE"),
        ("buy 5 @ 2600 group 1 deadline 99", "DEADLINE_PASSED"),
        ("buy 900000 @ 2600 group 1", "INSUFFICIENT_FUNDS"),
        ("sell 5000 @ 2600 group 1", "INSUFFICIENT_CAPACITY"),
    ],
)
def test_bad_quotes_change_nothing(quote: str, reason: str) -> None:
    check(f"""
        clock 100
        quote A buy 2 @ 2600 group 9 as a1
        sell B 1 @ 2600
        quote A {quote}                                -> rejected {reason}
        raw kind 6 account 1 instrument 9 group 1      -> rejected UNKNOWN_SYMBOL
        expect X bids 1 @ 2600
    """)


def test_an_account_has_so_many_quotes_in_a_book() -> None:
    check(
        """
        list Y
        quote A buy 1 @ 2600 group 1
        quote A buy 1 @ 2600 group 1 level 1
        quote A buy 1 @ 2600 group 1 level 2           -> rejected TOO_MANY_OPEN_ORDERS
        buy A 1 @ 2600                                 -> new
        quote A buy 1 @ 2600 group 1 in Y              -> new
        quote A buy 0 @ 0 group 1                      -> canceled
        quote A buy 1 @ 2600 group 1 level 2           -> new
        """,
        max_quotes_per_book=2,
    )


def test_an_accounts_limit_is_about_what_a_quote_has_open() -> None:
    """A quote that was filled in part is filled up again: what it traded before is no part of its size."""
    check("""
        limits A size 5
        quote A buy 6 @ 2600 group 1                   -> rejected BAD_QTY
        quote A buy 5 @ 2600 group 1 as a1
        sell B 3 @ 2600                                -> new, trade 3
        quote A buy 6 @ 2600 group 1                   -> rejected BAD_QTY
        quote A buy 5 @ 2600 group 1                   -> replaced 5 a1 lost qty 8 cum 3
        sell B 4 @ 2600                                -> new, trade 4
        quote A buy 5 @ 2601 group 1                   -> replaced 5 @ 2601 a1 lost qty 12 cum 7
        amend a1 qty 13                                -> rejected BAD_QTY
        amend a1 qty 11                                -> replaced 4 kept
        amend a1 qty 12                                -> replaced 5 lost
        buy A 5 @ 2600 as a2
        sell B 6 @ 2600                                -> new, trade 5 @ 2601, trade 1 @ 2600
        amend a2 qty 6                                 -> rejected BAD_QTY      # of an order, all that it ever asked
        quote A buy 1 @ 2600 group 1                   -> new
    """)
    check("""
        quote A buy 1000000 @ 1 group 1 as a1
        sell B 900 @ 1
        quote A buy 1000000 @ 1 group 1                -> rejected BAD_QTY      # a total has a bound of its own
        quote A buy 999100 @ 1 group 1                 -> kept 999100 qty 1000000
        limits A size 999990
        quote A buy 999100 @ 2 group 1                 -> replaced 999100
    """)


def test_protection_after_so_many_fills() -> None:
    check("""
        mmp A group 1 lots 100 fills 2 window 10       -> mmp_set 100 group 1 fills 2 window 10
        list Y
        quote A buy 5 @ 2600 group 1 as a1
        quote A buy 5 @ 2599 group 1 level 1
        quote A buy 7 @ 2600 group 1 in Y
        buy A 9 @ 2598 group 2
        buy A 9 @ 2620 stop 2610 group 1
        sell B 1 @ 2600                                -> new, trade 1
        sell B 9 @ 2598                                -> new 9, trade 4 @ 2600, mmp_triggered 5 group 1 fills 2 A instrument 1,
                                                          canceled 7 @ 2600 mmp, canceled 5 @ 2599 mmp, canceled 9 @ 2620 mmp,
                                                          trade 5 @ 2598
        quote A buy 5 @ 2600 group 1                   -> rejected MMP_FROZEN
        buy A 5 @ 2600 group 1                         -> rejected MMP_FROZEN
        quote A buy 0 @ 2600 group 1                   -> kept 0
        buy A 5 @ 2600 group 2                         -> new
        reset A group 1                                -> mmp_reset 1
        reset A group 2                                -> rejected BAD_FIELD
        quote A buy 5 @ 2600 group 1                   -> new
    """)


def test_a_group_may_be_frozen_for_a_time() -> None:
    check("""
        mmp A group 1 lots 2 fills 5 window 10 freeze 30  -> mmp_set 2 freeze 30
        clock 100
        quote A buy 5 @ 2600 group 1
        sell B 2 @ 2600                                -> new, trade 2, mmp_triggered 2 until 130, canceled 3
        clock 129
        quote A buy 5 @ 2600 group 1                   -> rejected MMP_FROZEN until 130
        buy A 5 @ 2600 group 1                         -> rejected MMP_FROZEN until 130
        mmp A group 1 lots 3 fills 5 window 10         -> mmp_set 3 freeze 0
        buy A 5 @ 2600 group 1                         -> rejected MMP_FROZEN until 130
        clock 130
        buy A 5 @ 2600 group 1                         -> new
        sell B 3 @ 2600                                -> new, trade 3, mmp_triggered 3 until 0, canceled 2
        clock 100000
        buy A 5 @ 2600 group 1                         -> rejected MMP_FROZEN until 0
        mmp A group 1 lots 1 fills 5 window 10 freeze 9
        reset A group 1
        quote A buy 5 @ 2600 group 1
        sell B 2 @ 2600                                -> new, trade 2, mmp_triggered 2 until 100009, canceled 3
        reset A group 1                                -> mmp_reset 1
        buy A 5 @ 2600 group 1                         -> new
    """)


def test_protection_comes_after_the_maker_is_settled() -> None:
    """An iceberg shows anew before protection cancels it, and a maker that is done stays done."""
    check(
        """
        mmp A group 1 lots 100 fills 1 window 10
        sell A 9 @ 2600 show 2 group 1 as a1
        sell A 1 @ 2601 group 1
        buy B 4 @ 2600                                 -> new, trade 2 a1 with A, refreshed 2 a1, mmp_triggered 2 fills 1,
                                                          canceled 7 a1 mmp contra_leaves 2, canceled 1 @ 2601 mmp
        expect X asks none, X bids 2 @ 2600, A open_orders 0, A open_sell 0
        reset A group 1
        sell A 2 @ 2600 group 1 as a2                  -> new, trade 2
        sell A 2 @ 2610 group 1 as a3
        buy B 2 @ 2610                                 -> new, trade 2, mmp_triggered 2 fills 1
        expect A open_orders 0
    """.replace("trade 2 a1 with A", "trade 2 with A")
    )


def test_protection_after_so_many_lots_in_a_window_that_rolls() -> None:
    check("""
        mmp A group 1 lots 5 fills 64 window 10
        buy A 50 @ 2600 group 1 as a1
        clock 100
        sell B 2 @ 2600                                -> new, trade 2
        clock 105
        sell B 2 @ 2600                                -> new, trade 2
        clock 110
        sell B 2 @ 2600                                -> new, trade 2            # 2 of them are as old as the window
        clock 114
        sell B 1 @ 2600                                -> new, trade 1, mmp_triggered 5 fills 3, canceled 43 a1 mmp
        reset A group 1
        buy A 50 @ 2600 group 1
        clock 113
        sell B 4 @ 2600                                -> new, trade 4            # the clock does not go back
        sell B 1 @ 2600                                -> new, trade 1, mmp_triggered 5 fills 2, canceled 45
        mmp A group 1 lots 5 fills 5 window 9          -> mmp_set 5
        buy A 50 @ 2600 group 1                        -> rejected MMP_FROZEN
        mmp A group 1                                  -> mmp_set 0
        buy A 50 @ 2600 group 1                        -> new
    """)


def test_what_protection_does_not_count() -> None:
    check("""
        mmp A group 1 lots 1 fills 1 window 10
        sell B 1 @ 2600
        buy A 1 @ 2600 group 1                         -> new, trade 1            # as a taker
        sell B 1 @ 2600
        buy A 5 @ 2590 group 2
        sell B 1 @ 2590                                -> new, trade 1            # of another group
        status X auction
        buy A 2 @ 2600 group 1 as a1
        status X continuous                            -> auction 1, trade 1, status
        expect X bids 1 @ 2600 4 @ 2590
        sell B 1 @ 2600                                -> new, trade 1, mmp_triggered 1 fills 1
    """)


@pytest.mark.parametrize(
    "mmp",
    [
        *("group 0 lots 1 fills 1 window 1", "group -1 lots 1 fills 1 window 1", "group 1 lots 1 fills 0 window 1"),
        *("group 1 lots 0 fills 1 window 1", "group 1 lots 1 fills 65 window 1", "group 1 lots 1 fills 1 window 0"),
        *("group 1 lots 1 fills 1 window 3600000000001", "group 1 lots 1000000001 fills 1 window 1"),
        *("group 1 lots 1 fills 1 window 1 freeze -1", "group 1 lots 1 fills 1 window 1 freeze 3600000000001"),
    ],
)
def test_bad_protections(mmp: str) -> None:
    check(f"""
        mmp A {mmp}                                    -> rejected BAD_FIELD
        raw kind 9 account 9 group 1                   -> rejected UNKNOWN_ACCOUNT
        raw kind 10 account 9 group 1                  -> rejected UNKNOWN_ACCOUNT
    """)


def test_there_are_so_many_protections() -> None:
    check(
        """
        mmp A group 1 lots 1 fills 1 window 1
        mmp A group 2 lots 1 fills 1 window 1          -> rejected OVERLOADED
        mmp A group 1 lots 2 fills 1 window 1          -> mmp_set 2
        mmp A group 1                                  -> mmp_set 0
        mmp A group 1                                  -> mmp_set 0            # it had none
        mmp A group 2 lots 1 fills 1 window 1          -> mmp_set 1
        """,
        max_mmp_groups=1,
    )


def test_a_timer_cancels_what_has_its_tag() -> None:
    check("""
        clock 100
        buy A 1 @ 2600 tag 7
        buy A 2 @ 2599 as a2
        quote A buy 3 @ 2598 group 1 level 7
        cancel_after A tag 7 till 100                  -> rejected BAD_FIELD
        cancel_after A tag 7 till 150                  -> dead_man_set 150 order_id 7
        cancel_after A tag 7 till 200                  -> dead_man_set 200
        clock 199
        dead_man A tag 7                               -> rejected ORDER_NOT_FOUND
        dead_man A                                     -> rejected ORDER_NOT_FOUND
        clock 200
        dead_man B tag 7                               -> rejected ORDER_NOT_FOUND
        dead_man A tag 7                               -> dead_man_set 0 order_id 7 dead_man, canceled 1 dead_man
        dead_man A tag 7                               -> rejected ORDER_NOT_FOUND
        cancel_after A till 300                        -> dead_man_set 300 order_id 0
        cancel_after A                                 -> dead_man_set 0
        cancel_after A                                 -> dead_man_set 0
        cancel_after A till 300
        clock 300
        dead_man A                                     -> dead_man_set 0, canceled 2 a2 dead_man, canceled 3
        cancel_after A tag -1 till 900                 -> rejected BAD_FIELD
        raw kind 7 account 9                           -> rejected UNKNOWN_ACCOUNT
        raw kind 8 account 9                           -> rejected UNKNOWN_ACCOUNT
    """)


def test_an_account_has_so_many_timers() -> None:
    check(
        """
        cancel_after A tag 1 till 99
        cancel_after A tag 2 till 99
        cancel_after A tag 3 till 99                   -> rejected OVERLOADED
        cancel_after A tag 2 till 98                   -> dead_man_set 98
        cancel_after A tag 3                           -> dead_man_set 0
        cancel_after B tag 3 till 99                   -> dead_man_set 99
        cancel_after A tag 1                           -> dead_man_set 0
        cancel_after A tag 3 till 99                   -> dead_man_set 99
        """,
        max_timers_per_account=2,
    )


def test_a_mass_cancel_by_tag_and_group() -> None:
    check("""
        buy A 1 @ 2600 tag 7 group 1
        buy A 2 @ 2600 tag 7
        buy A 3 @ 2600 tag 8 group 1
        buy A 4 @ 2600
        mass_cancel A tag 7 group 1                    -> canceled 1
        mass_cancel A tag 9                            -> nothing
        mass_cancel A group 1                          -> canceled 3
        mass_cancel A tag 7                            -> canceled 2
        expect X bids 4 @ 2600
    """)
