"""What orders do: acceptance, priority, matching, time in force, cancelling and amending."""

import pytest

from engine.types import MAX_QTY, SLOT_BITS
from tests.tables import check

FIRST = 1 << SLOT_BITS  # the order_id of the first order ever


def test_an_order_rests_then_trades_then_is_gone() -> None:
    check(f"""
        sell A 5 @ 2601 as a1       -> new 5 @ 2601 A order_id {FIRST} held 0
        expect X asks 5 @ 2601, X bids none, X last none, A open_orders 1, A open_sell 5
        buy  B 3 @ 2601 ioc ->
            new 3 order_id {FIRST + 1}, trade 3 @ 2601 B with A side 0, A leaves 2 cum 3, B leaves 0
        expect X asks 2 @ 2601, X last 2601, A open_orders 1, A open_sell 2, B open_orders 0, A net -3, B net 3
        buy  B 2 @ 2601             -> new 2, trade 2 with A, A leaves 0 cum 5
        cancel a1                   -> rejected ORDER_NOT_FOUND
        expect X asks none, X bids none, A open_orders 0, A open_sell 0
    """)


def test_price_comes_before_time_and_time_before_size() -> None:
    check("""
        sell A 5 @ 2602 as late
        sell B 1 @ 2601 as b1
        sell C 9 @ 2601 as c1
        sell B 2 @ 2600 as b2
        expect X asks 2 @ 2600 1+9 @ 2601 5 @ 2602
        buy  D 8 @ 2601 ->
            new, trade 2 @ 2600 with B, trade 1 @ 2601 with B, trade 5 @ 2601 with C, C leaves 4 cum 5
        expect X asks 4 @ 2601 5 @ 2602
    """)
    check("""
        buy  A 5 @ 2600
        buy  B 1 @ 2601
        buy  C 9 @ 2601
        sell D 8 @ 2600      -> new, trade 1 @ 2601 with B side 1, trade 7 @ 2601 with C, C leaves 2
        expect X bids 2 @ 2601 5 @ 2600
    """)


def test_what_is_left_of_a_limit_order_rests_at_its_own_price() -> None:
    check("""
        sell A 5 @ 2600
        buy  B 8 @ 2650      -> new 8 @ 2650, trade 5 @ 2600, B leaves 3 cum 5
        expect X bids 3 @ 2650, X asks none
        sell A 1 @ 2600      -> new, trade 1 @ 2650 with B
    """)


def test_ioc_cancels_what_is_left() -> None:
    check("""
        sell A 5 @ 2600
        buy  B 8 @ 2600 ioc  -> new 8, trade 5, canceled 3 @ 2600 qty 8 cum 5 unfilled
        buy  B 8 @ 2600 ioc  -> new 8, canceled 8 cum 0 unfilled
        sell B 2 @ 2600 ioc  -> new 2 held 0, canceled 2 unfilled held 0
        expect B open_orders 0, B held 0, B open_buy 0
    """)


def test_fok_is_all_or_nothing() -> None:
    check("""
        sell A 5 @ 2600
        sell A 5 @ 2601
        buy  B 6 @ 2600 fok  -> rejected FOK_NOT_FILLABLE
        buy  B 11 @ 2601 fok -> rejected FOK_NOT_FILLABLE
        expect B cash 994800000000, X asks 5 @ 2600 5 @ 2601
        buy  B 6 @ 2601 fok  -> new, trade 5 @ 2600, trade 1 @ 2601
        buy  B 4 @ 9999 fok  -> new, trade 4 @ 2601
        buy  B 1 @ 9999 fok  -> rejected FOK_NOT_FILLABLE
    """)


def test_a_market_order_is_priced_at_the_worst_level_it_needs() -> None:
    check("""
        sell A 5 @ 2600
        sell A 5 @ 2700
        buy  B 5 market ioc  -> new 5 @ 2600, trade 5 @ 2600
        buy  B 9 market ioc  -> new 9 @ 2700, trade 5 @ 2700, canceled 4 @ 2700 unfilled
        buy  B 1 market ioc  -> new 1 @ 0 held 1, canceled 1 @ 0 unfilled held -1
        buy  A 3 @ 2500
        sell B 4 market fok  -> rejected FOK_NOT_FILLABLE
        sell B 4 market ioc  -> new 4 @ 2500, trade 3 @ 2500, canceled 1 unfilled
        sell B 4 market ioc  -> new 4 @ 0, canceled 4 unfilled
    """)


def test_post_only_never_takes() -> None:
    check("""
        sell A 5 @ 2600
        buy  B 5 @ 2600 post       -> rejected POST_ONLY_WOULD_TAKE
        buy  B 5 @ 2599 post as b1 -> new
        sell A 5 @ 2599 post       -> rejected POST_ONLY_WOULD_TAKE
        amend b1 @ 2600            -> rejected POST_ONLY_WOULD_TAKE
        amend b1 @ 2598            -> replaced 5 @ 2598 lost
        amend b1 qty 9             -> replaced 9 lost
        expect X bids 9 @ 2598
    """)


def test_an_account_may_trade_with_itself() -> None:
    check("""
        sell A 5 @ 2600
        buy  A 3 @ 2600            -> new, trade 3 @ 2600 A with A
        expect A net 0, A open_sell 2, A open_buy 0, A open_orders 1, A escrow 0
    """)


def test_levels_far_apart_are_found_one_after_the_other() -> None:
    """Prices are found through three words of 64 bits; each step here is in another one."""
    check("""
        sell A 1 @ 5
        sell A 1 @ 60
        sell A 1 @ 70
        sell A 1 @ 5000
        sell A 1 @ 90000 as a1
        sell A 1 @ 99999 as a2
        cancel a1                        # alone in its word, and not the best
        buy B 5 @ 89999 fok              -> rejected FOK_NOT_FILLABLE
        buy B 5 market fok               -> new @ 99999, trade 1 @ 5, trade 1 @ 60, trade 1 @ 70, trade 1 @ 5000, trade 1 @ 99999
        expect X asks none
    """)


def test_a_first_order_that_does_not_rest() -> None:
    """The account has no position in the book yet."""
    check("""
        list Y
        nominate A 5 in Y
        open B
        sell A 5 @ 2600 in Y
        buy B 1 @ 2600 in Y ioc          -> rejected INSUFFICIENT_FUNDS
        sell B 1 @ 2600 in Y ioc         -> rejected INSUFFICIENT_CAPACITY
        deposit B 1000000000
        buy B 1 @ 2600 in Y ioc          -> new, trade 1
        expect B net 1 in Y
    """)


def test_pages_of_a_closed_book_serve_another() -> None:
    check("""
        list Y
        list Z
        buy A 1 @ 5 in Y
        buy A 1 @ 70 in Y
        buy A 1 @ 90000 in Y
        close Y
        buy A 2 @ 90001 in Z
        buy A 2 @ 71 in Z
        buy A 2 @ 4 in Z
        expect Z bids 2 @ 90001 2 @ 71 2 @ 4
        sell A 1 @ 5 in Z                -> rejected INSUFFICIENT_CAPACITY
    """)


def test_prices_reach_from_zero_to_the_highest() -> None:
    check("""
        buy  A 1 @ 0               -> new @ 0 held 1
        sell A 1 @ 100000          -> new @ 100000
        buy  A 1 @ 100001          -> rejected BAD_PRICE
        buy  A 1 @ -1              -> rejected BAD_PRICE
        sell B 1 @ 0               -> new, trade 1 @ 0 fee 0 escrow 0 held 1
        buy  B 1 @ 100000          -> new, trade 1 @ 100000 fee 400000
    """)


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("kind 1 account 9 instrument 9", "UNKNOWN_ACCOUNT"),
        ("kind 1 account 0 instrument 1", "UNKNOWN_ACCOUNT"),
        ("kind 1 account -1 instrument 1", "UNKNOWN_ACCOUNT"),
        ("kind 1 account 1 instrument 9 side 9", "UNKNOWN_SYMBOL"),
        ("kind 1 account 1 instrument 0", "UNKNOWN_SYMBOL"),
        ("kind 1 account 1 instrument -1", "UNKNOWN_SYMBOL"),
        ("kind 1 account 1 instrument 1 side 2 time_in_force 9", "BAD_FIELD"),
        ("kind 1 account 1 instrument 1 ord_type 4", "BAD_FIELD"),
        ("kind 1 account 1 instrument 1 flags 2", "BAD_FIELD"),
        ("kind 1 account 1 instrument 1 flags 2147483649", "BAD_FIELD"),
        ("kind 1 account 1 instrument 1 time_in_force 5", "BAD_TIF"),
        ("kind 1 account 1 instrument 1 ord_type 1 time_in_force 0 qty 1", "BAD_TIF"),
        ("kind 1 account 1 instrument 1 ord_type 1 time_in_force 1 qty 1", "BAD_TIF"),
        ("kind 1 account 1 instrument 1 flags 1 time_in_force 2 qty 1", "BAD_TIF"),
        ("kind 1 account 1 instrument 1 flags 1 time_in_force 3 qty 1", "BAD_TIF"),
        ("kind 1 account 1 instrument 1 flags 1 ord_type 1 time_in_force 2 qty 1", "BAD_TIF"),
        ("kind 1 account 1 instrument 1 qty 0 price -5", "BAD_QTY"),
        ("kind 1 account 1 instrument 1 qty -1", "BAD_QTY"),
        (f"kind 1 account 1 instrument 1 qty {MAX_QTY + 1}", "BAD_QTY"),
        (f"kind 1 account 1 instrument 1 qty {1 << 32 | 1}", "BAD_QTY"),
        (f"kind 1 account 1 instrument 1 qty 1 price {1 << 32}", "BAD_PRICE"),
        ("kind 1 account 1 instrument 1 qty 1 price 100001", "BAD_PRICE"),
        ("kind 1 account 1 instrument 1 ord_type 1 time_in_force 2 qty 1 price 1", "BAD_PRICE"),
        ("kind 1 account 1 instrument 1 qty 1000000 price 100000", "INSUFFICIENT_FUNDS"),
        ("kind 1 account 1 instrument 1 side 1 qty 1000000 price 100000", "INSUFFICIENT_CAPACITY"),
        ("kind 2 account 9 order_id 16777216", "UNKNOWN_ACCOUNT"),
        ("kind 2 account 1 order_id 16777217", "ORDER_NOT_FOUND"),
        ("kind 2 account 1 order_id 0", "ORDER_NOT_FOUND"),
        (f"kind 2 account 1 order_id {-1 << 63}", "ORDER_NOT_FOUND"),
        (f"kind 2 account 1 order_id {(1 << 63) - 1}", "ORDER_NOT_FOUND"),
        ("kind 2 account 2 order_id 16777216", "ORDER_NOT_FOUND"),
        ("kind 3 account 9 order_id 16777216", "UNKNOWN_ACCOUNT"),
        ("kind 3 account 2 order_id 16777216 qty 0", "ORDER_NOT_FOUND"),
        ("kind 3 account 1 order_id 16777216 flags 1 qty 0", "BAD_FIELD"),
        ("kind 3 account 1 order_id 16777216 flags 3 qty 0", "BAD_FIELD"),
        ("kind 3 account 1 order_id 16777216 qty 0 price -1", "BAD_QTY"),
        ("kind 3 account 1 order_id 16777216 qty -2 price -1", "BAD_QTY"),
        (f"kind 3 account 1 order_id 16777216 qty {MAX_QTY + 1} price -1", "BAD_QTY"),
        ("kind 3 account 1 order_id 16777216 qty -1 price -2", "BAD_PRICE"),
        ("kind 3 account 1 order_id 16777216 qty -1 price 100001", "BAD_PRICE"),
        ("kind 4 account 9", "UNKNOWN_ACCOUNT"),
        ("kind 4 account 1 instrument 9 side 9", "UNKNOWN_SYMBOL"),
        ("kind 4 account 1 instrument -1", "UNKNOWN_SYMBOL"),
        ("kind 4 account 1 side 2", "BAD_FIELD"),
        ("kind 0", "UNKNOWN_KIND"),
        ("kind 99 order_id 7", "UNKNOWN_KIND"),
        ("kind 255", "UNKNOWN_KIND"),
    ],
)
def test_bad_commands_are_named_and_change_nothing(order: str, reason: str) -> None:
    check(f"""
        buy A 5 @ 2600 as a1
        tick
        mass_cancel B
        raw {order}  -> rejected {reason}
        expect X bids 5 @ 2600, X asks none, A held 104052005, A open_orders 1, A open_buy 5
    """)


def test_a_reject_repeats_what_was_asked() -> None:
    check("""
        raw kind 2 account 3 instrument 7 side 9 order_id 77  -> rejected account 3 instrument 7 side 9 order_id 77
        raw kind 1 account 3 instrument 7 side 9 order_id 77  -> rejected account 3 instrument 7 side 9 order_id 0
        raw kind 4 account 3 instrument 7 side 9 order_id 77  -> rejected account 3 instrument 7 side 9 order_id 0
        raw kind 17 account 3 instrument 7 side 9 lots 4      -> rejected account 3 instrument 7 side 0 order_id 0
        raw kind 32 instrument 7 side 9 start_s 4             -> rejected account 0 instrument 7 side 0 order_id 0
        raw kind 99 account 3 instrument 7 side 9 order_id 77 -> rejected account 3 instrument 7 side 9 order_id 77
    """)


def test_the_number_of_open_orders_is_limited() -> None:
    check(
        """
        buy A 1 @ 2600 as a1
        buy A 1 @ 2600
        buy A 1 @ 2600      -> rejected TOO_MANY_OPEN_ORDERS
        buy A 1 @ 2600 ioc  -> rejected TOO_MANY_OPEN_ORDERS
        buy B 1 @ 2600
        cancel a1
        buy A 1 @ 2600
    """,
        max_open_orders_per_account=2,
    )


def test_trading_hours_are_checked_to_the_nanosecond() -> None:
    check("""
        list Y from 100 gate 200
        clock 99
        buy A 1 @ 5 in Y     -> rejected MARKET_NOT_OPEN
        nominate A 1 in Y    -> rejected MARKET_NOT_OPEN
        clock 100
        buy A 1 @ 5 in Y as a1
        clock 199
        amend a1 @ 6         -> replaced
        clock 200
        buy A 1 @ 5 in Y     -> rejected MARKET_NOT_OPEN
        amend a1 @ 7         -> rejected MARKET_NOT_OPEN
        cancel a1            -> canceled by_request
    """)


def test_cancel_gives_back_what_was_reserved() -> None:
    check("""
        buy  A 5 @ 2601 as a1 -> new held 104092025
        expect A held 104092025
        sell B 2 @ 2601
        cancel a1 by B        -> rejected ORDER_NOT_FOUND
        cancel a1             -> canceled a1 3 @ 2601 qty 5 cum 2 by_request held -62455215
        cancel a1             -> rejected ORDER_NOT_FOUND
        expect A held 0, A open_buy 0, X bids none
    """)


def test_a_freed_slot_is_used_again_under_another_number() -> None:
    check(f"""
        buy A 1 @ 1 as a1     -> new order_id {FIRST}
        buy A 1 @ 1 as a2     -> new order_id {FIRST + 1}
        buy A 1 @ 1 as a3     -> new order_id {FIRST + 2}
        cancel a1
        cancel a3
        buy A 1 @ 1           -> new order_id {2 * FIRST + 2}
        buy A 1 @ 1 ioc       -> new order_id {2 * FIRST}, canceled
        buy A 1 @ 1           -> new order_id {3 * FIRST}
        buy A 1 @ 1           -> new order_id {FIRST + 3}
        cancel a1             -> rejected ORDER_NOT_FOUND
    """)


def test_slots_are_freed_maker_by_maker_and_the_taker_last() -> None:
    check(f"""
        sell A 1 @ 5          -> new order_id {FIRST}
        sell A 1 @ 5          -> new order_id {FIRST + 1}
        buy  B 2 @ 5          -> new order_id {FIRST + 2}, trade, trade
        buy  B 1 @ 5          -> new order_id {2 * FIRST + 2}
        buy  B 1 @ 5          -> new order_id {2 * FIRST + 1}
        buy  B 1 @ 5          -> new order_id {2 * FIRST}
    """)


def test_only_a_smaller_quantity_keeps_the_place() -> None:
    check("""
        sell A 5 @ 2600 as a1
        sell B 5 @ 2600 as b1
        amend a1 qty 4         -> replaced a1 4 @ 2600 qty 4 cum 0 kept
        amend a1               -> replaced 4 kept
        expect X asks 4+5 @ 2600
        amend a1 qty 6         -> replaced 6 lost
        expect X asks 5+6 @ 2600
        amend b1 @ 2601        -> replaced 5 @ 2601 lost
        amend b1 @ 2600        -> replaced 5 @ 2600 lost
        expect X asks 6+5 @ 2600
    """)


def test_a_place_may_be_given_up() -> None:
    check("""
        sell A 5 @ 2600 as a1
        sell B 5 @ 2600 as b1
        amend a1 requeue       -> replaced a1 5 @ 2600 lost held 0
        expect X asks 5+5 @ 2600
        buy  C 1 @ 2600        -> new, trade 1 with B
        amend b1 qty 3 requeue -> replaced b1 2 qty 3 cum 1 lost
        expect X asks 5+2 @ 2600
        amend b1 qty 1 requeue -> canceled b1 2 by_request
    """)


def test_an_amended_order_counts_its_fills() -> None:
    check("""
        buy  A 5 @ 2600 as a1
        sell B 2 @ 2600
        amend a1 qty 4         -> replaced 2 qty 4 cum 2 kept
        amend a1 qty 9         -> replaced 7 qty 9 cum 2 lost
        amend a1 qty 2         -> canceled 7 @ 2600 qty 9 cum 2 by_request
        expect A held 0, A open_orders 0
        buy  A 5 @ 2600 as a2
        sell B 2 @ 2600
        amend a2 qty 1 @ 2700  -> canceled 3 @ 2600 qty 5 cum 2 by_request
    """)


def test_an_amended_order_may_trade_as_taker() -> None:
    check("""
        sell A 5 @ 2605 as a1
        buy  B 3 @ 2600 as b1
        amend b1 @ 2605        -> replaced b1 3 @ 2605 lost, trade 3 @ 2605 B with A side 0
        amend a1 @ 2500 qty 8  -> replaced 5 qty 8 cum 3 lost
        buy  B 4 @ 2400 as b2
        amend b2 @ 2500 qty 9  -> replaced 9 lost, trade 5 @ 2500 B with A, B leaves 4
        expect X bids 4 @ 2500, X asks none
    """)


def test_amending_needs_funds_and_capacity() -> None:
    check("""
        open P
        deposit P 100_000_000
        buy  P 4 @ 2600 as p1          -> new held 83241604
        amend p1 qty 5                 -> rejected INSUFFICIENT_FUNDS
        amend p1 @ 3100                -> replaced held 16008000 lost
        expect P cash 750396, P held 99249604
        amend p1 @ 2600                -> replaced held -16008000 lost
        sell A 900 @ 9000 as a1
        amend a1 qty 1001              -> rejected INSUFFICIENT_CAPACITY
        amend a1 qty 1000              -> replaced lost
    """)


def test_a_mass_cancel_takes_books_newest_first_then_buys_then_sells() -> None:
    check("""
        list Y
        nominate A 10 in Y
        buy  A 1 @ 10 as b1
        buy  A 2 @ 11 as b2
        buy  A 3 @ 11 session 7 as b3
        sell A 4 @ 20 as s1
        sell A 5 @ 19 session 7 as s2
        buy  A 6 @ 5 in Y as y1
        sell A 7 @ 6 in Y as y2
        buy  B 9 @ 11
        mass_cancel A buy in X session 7  -> canceled b3 3 mass_canceled
        mass_cancel A session 9           -> nothing
        mass_cancel A sell in X           -> canceled s2 5, canceled s1 4
        mass_cancel A                     -> canceled y1 6, canceled y2 7, canceled b2 2, canceled b1 1
        expect X bids 9 @ 11, A open_orders 0, A held 0
        mass_cancel A                     -> nothing
    """)


def test_risk_bounds_hold_for_positions() -> None:
    check("""
        open P
        nominate A 5
        buy  P 1 @ 0                   -> rejected INSUFFICIENT_FUNDS
        sell P 1 @ 5                   -> rejected INSUFFICIENT_CAPACITY
        deposit P 1
        buy  P 1 @ 0                   -> new held 1
        sell A 1005 @ 5
        sell A 1 @ 5                   -> rejected INSUFFICIENT_CAPACITY
    """)
