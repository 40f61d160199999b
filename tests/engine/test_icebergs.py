"""Orders that show less than they have."""

from tests.tables import check


def test_it_shows_a_part_and_goes_to_the_end_when_that_is_used_up() -> None:
    check("""
        sell A 9 @ 2600 show 4 as a1     -> new 9 shows 4
        sell B 5 @ 2600
        expect a1 shown 4, X asks 9+5 @ 2600
        buy C 3 @ 2600                   -> new, trade 3 with A contra_leaves 6
        expect a1 shown 1
        buy C 2 @ 2600                   -> new, trade 1 with A contra_leaves 5, refreshed 4 @ 2600 A a1 leaves 5 cum 4,
            trade 1 with B
        expect X asks 4+5 @ 2600, a1 shown 4
        buy C 9 @ 2600                   -> new, trade 4 with B, trade 4 with A contra_leaves 1, refreshed 1 leaves 1,
            trade 1 with A
        expect X asks none, A open_orders 0
    """)


def test_alone_on_its_level_it_trades_again_at_once() -> None:
    check("""
        sell A 5 @ 2600 show 2
        buy B 5 @ 2600 fok               -> new, trade 2, refreshed 2, trade 2, refreshed 1, trade 1
    """)


def test_as_a_taker_it_trades_with_all_it_has() -> None:
    check("""
        sell A 5 @ 2600
        buy B 9 @ 2600 show 2 as b1      -> new 9 shows 2, trade 5
        expect b1 shown 2, X bids 4 @ 2600
        buy B 9 @ 2500 show 9            -> new 9 shows 0
    """)


def test_amends() -> None:
    check("""
        sell A 9 @ 2600 show 4 as a1
        sell B 1 @ 2600
        buy C 1 @ 2600
        amend a1 qty 8                   -> replaced 7 kept shows 4
        expect a1 shown 3, X asks 7+1 @ 2600
        amend a1 qty 3                   -> replaced 2 kept shows 4
        expect a1 shown 2
        cancel a1                        -> canceled 2 contra_leaves 2
        sell A 9 @ 2600 show 4 as a2
        buy C 3 @ 2600
        amend a2 requeue                 -> replaced 7 lost shows 4
        expect a2 shown 4
        amend a2 qty 12                  -> replaced 10 lost
        expect a2 shown 4
        cancel a2                        -> canceled 10 contra_leaves 4
    """)


def test_what_cannot_be_shown() -> None:
    check("""
        buy A 5 @ 2600 show 6            -> rejected BAD_QTY
        buy A 5 @ 2600 show -1           -> rejected BAD_QTY
        buy A 5 @ 2600 show 1 ioc        -> rejected BAD_TIF
        buy A 5 market ioc show 1        -> rejected BAD_TIF
        buy A 5 stop 2600 show 1         -> rejected BAD_TIF
        buy A 5 @ 2610 stop 2600 show 1  -> new 5 waiting shows 1
        buy A 5 @ 2600 show 1 post       -> new 5 shows 1
    """)


def test_hidden_quantity_counts() -> None:
    check("""
        sell A 9 @ 2600 show 1
        sell A 9 @ 2601
        buy B 9 market ioc               -> new 9 @ 2600, trade 1, refreshed 1, trade 1, refreshed 1, trade 1, refreshed 1,
            trade 1, refreshed 1, trade 1, refreshed 1, trade 1, refreshed 1, trade 1, refreshed 1, trade 1, refreshed 1, trade 1
        expect A open_sell 9
    """)
    check("""
        sell A 9 @ 2600 show 4 as a1
        buy A 5 @ 2600 stp_decrement     -> new 5, prevented 4 leaves 1 contra_leaves 5, refreshed 4 a1 leaves 5,
                                            prevented 1 leaves 0 contra_leaves 4, canceled 0
        expect a1 shown 3, X asks 4 @ 2600
        buy A 5 @ 2600 stp_both          -> new 5, prevented 3, canceled 4 a1 contra_leaves 3, canceled 5
    """)
