"""What happens instead of a trade with oneself."""

from tests.tables import check


def test_without_a_mode_one_trades_with_oneself() -> None:
    check("""
        sell A 5 @ 2600 stp_taker
        buy A 3 @ 2600                   -> new, trade 3 with A
        raw kind 1 account 1 instrument 1 qty 1 price 1 flags 80     -> rejected BAD_FIELD
        raw kind 1 account 1 instrument 1 qty 1 price 1 flags 112    -> rejected BAD_FIELD
    """)


def test_the_taker_expires() -> None:
    check("""
        sell B 2 @ 2600
        sell A 5 @ 2600 as a1
        buy A 3 @ 2600 stp_taker as a2   -> new 3, trade 2 with B,
                                            prevented 1 @ 2600 A expire_taker leaves 1 cum 2 contra_leaves 5 contra_cum 0,
                                            canceled 1 a2 self_trade_prevented qty 3 cum 2
        expect X asks 5 @ 2600, A held 0, A net 2
    """)


def test_the_maker_expires() -> None:
    check("""
        sell A 5 @ 2600 as a1
        sell B 2 @ 2600
        sell A 5 @ 2601 as a2
        buy A 3 @ 2601 stp_maker         -> new 3, prevented 3 expire_maker with A, canceled 5 a1 self_trade_prevented,
                                            trade 2 with B, prevented 1 @ 2601, canceled 5 a2 self_trade_prevented
        expect X asks none, X bids 1 @ 2601
    """)


def test_both_expire() -> None:
    check("""
        sell A 5 @ 2600 as a1
        sell B 2 @ 2600
        buy A 3 @ 2600 stp_both as a2    -> new 3, prevented 3 expire_both, canceled 5 a1 self_trade_prevented,
                                            canceled 3 self_trade_prevented
        expect X asks 2 @ 2600, X bids none, A open_orders 0, A held 0, A open_sell 0, A open_buy 0
    """)


def test_both_shrink() -> None:
    check("""
        sell A 5 @ 2600 as a1
        sell B 2 @ 2600
        buy A 3 @ 2600 stp_decrement as a2   -> new 3 held 62431203,
                                            prevented 3 decrement leaves 0 cum 0 contra_leaves 2 held -62431203,
                                            canceled 0 self_trade_prevented qty 0
        expect X asks 2+2 @ 2600, A held 0, A open_orders 1, A open_sell 2, A open_buy 0
        amend a1 qty 3                       -> replaced 3 lost
        buy A 7 @ 2600 stp_decrement as a3   -> new 7, trade 2 with B, prevented 3 leaves 2 cum 2 contra_leaves 0,
                                            canceled 0 a1 self_trade_prevented cum 0 held 0
        expect X asks none, X bids 2 @ 2600, A open_orders 1, A open_buy 2
        amend a3 qty 4                       -> replaced 2 kept cum 2
    """)
    check("""
        buy A 3 @ 2600 as a1
        sell A 3 @ 2600 stp_decrement        -> new 3, prevented 3 held -62431203 leaves 0 contra_leaves 0,
                                            canceled 0 a1 held 0, canceled 0
        expect X bids none, A held 0
    """)


def test_orders_of_one_group_are_of_one_person() -> None:
    check("""
        sell A 5 @ 2600 stp_group 7
        sell C 5 @ 2600 stp_group -7
        buy B 1 @ 2600 stp_taker stp_group 7 ioc     -> new, prevented 1 with A, canceled 1
        buy B 1 @ 2600 stp_taker stp_group 8 ioc     -> new, trade 1 with A
        buy B 1 @ 2600 stp_taker ioc                 -> new, trade 1 with A
        buy B 9 @ 2600 stp_taker stp_group -7 ioc    -> new, trade 3 with A, prevented 5 with C, canceled 6
    """)


def test_two_accounts_of_one_person_shrink() -> None:
    """Each by what is its own: the hold is the buyer's, what is open falls for both, whoever took."""
    check("""
        sell A 5 @ 2600 stp_group 7 as a1
        buy B 3 @ 2600 stp_decrement stp_group 7     -> new 3 held 62431203, prevented 3 B with A held -62431203 contra_leaves 2,
                                                        canceled 0
        expect A open_sell 2, A open_orders 1, B open_buy 0, B held 0, A net 0, A cash 994800000000, B cash 994800000000
        cancel a1
        buy A 5 @ 2600 stp_group 7 as a2             -> new 5 held 104052005
        sell B 3 @ 2600 stp_decrement stp_group 7    -> new 3, prevented 3 B with A held -62431203 contra_leaves 2, canceled 0
        expect A open_buy 2, A held 41620802, B open_sell 0, B open_orders 0
        mass_cancel A                                -> canceled 2 a2 held -41620802
    """)


def test_a_stop_takes_with_its_mode_when_it_is_triggered() -> None:
    check("""
        sell A 5 @ 2610 as a1
        sell B 2 @ 2611
        buy A 4 @ 2620 stop 2605 stp_maker
        sell B 1 @ 2605
        buy C 1 @ 2605                       -> new, trade 1, triggered 4, prevented 4 expire_maker, canceled 5 a1, trade 2 @ 2611
        expect X bids 2 @ 2620
    """)


def test_a_minimum_is_not_met_by_oneself() -> None:
    check("""
        sell B 2 @ 2600
        sell A 9 @ 2600
        sell B 2 @ 2600 show 1
        buy A 9 @ 2600 min 5 stp_maker       -> rejected FOK_NOT_FILLABLE
        buy A 9 @ 2600 min 3 stp_both        -> rejected FOK_NOT_FILLABLE
        buy A 9 @ 2600 min 4 stp_maker       -> new 9, trade 2, prevented 7, canceled 9, trade 1, refreshed 1, trade 1
        expect X bids 5 @ 2600
    """)


def test_what_counts_for_a_fok() -> None:
    check("""
        sell B 2 @ 2600
        sell A 5 @ 2600
        sell B 2 @ 2600
        sell B 2 @ 2601
        buy A 3 @ 2601 fok stp_taker         -> rejected FOK_NOT_FILLABLE
        buy A 3 @ 2601 fok stp_both          -> rejected FOK_NOT_FILLABLE
        buy A 3 @ 2601 fok stp_decrement     -> rejected FOK_NOT_FILLABLE
        buy A 7 @ 2601 fok stp_maker         -> rejected FOK_NOT_FILLABLE
        buy A 3 @ 2601 min 3 stp_decrement   -> rejected FOK_NOT_FILLABLE
        buy A 2 @ 2601 fok stp_both          -> new, trade 2
        buy A 4 @ 2601 fok stp_maker         -> new, prevented 4, canceled 5, trade 2, trade 2
    """)
    check("""
        sell B 9 @ 2600 show 2               # refreshed behind A's order
        sell A 5 @ 2600
        buy A 3 @ 2600 fok stp_taker         -> rejected FOK_NOT_FILLABLE
        buy A 2 @ 2600 fok stp_taker         -> new, trade 2, refreshed 2
    """)


def test_a_market_order_looks_past_its_own() -> None:
    check("""
        sell A 5 @ 2600
        sell B 5 @ 2601
        buy A 5 market ioc                   -> new 5 @ 2600, trade 5 with A
        sell A 5 @ 2600
        buy A 5 market ioc stp_maker         -> new 5 @ 2601, prevented 5, canceled 5, trade 5 with B
    """)


def test_an_amend_takes_with_the_mode_of_its_order() -> None:
    check("""
        sell A 5 @ 2600 as a1
        buy A 3 @ 2599 stp_taker as a2
        amend a2 @ 2600                      -> replaced 3 lost, prevented 3, canceled 3 a2 self_trade_prevented
    """)
