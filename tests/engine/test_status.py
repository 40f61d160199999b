"""Instrument states, kill switches, locks."""

import pytest

from tests.tables import check


def test_each_status_and_what_it_takes() -> None:
    check("""
        sell A 5 @ 2600 as a1
        status X halted                  -> status halted was 1 by_request
        buy B 5 @ 2600                   -> rejected MARKET_NOT_OPEN
        amend a1 qty 4                   -> rejected MARKET_NOT_OPEN
        nominate A 5                     -> rejected MARKET_NOT_OPEN
        expect X asks 5 @ 2600, X halted
        cancel a1                        -> canceled 5
        status X cancel_only             -> status cancel_only was 5
        buy B 5 @ 2600                   -> rejected MARKET_NOT_OPEN
        status X cancel_only             -> rejected BAD_FIELD
        status X closed                  -> rejected BAD_FIELD
        status X none                    -> rejected BAD_FIELD
        raw kind 38 instrument 1 qty 7   -> rejected BAD_FIELD
        raw kind 38 instrument 2 qty 1   -> rejected UNKNOWN_SYMBOL
        status X continuous              -> status continuous was 6
        buy B 5 @ 2600                   -> new
        close X
        status X auction                 -> rejected MARKET_NOT_OPEN
    """)


@pytest.mark.parametrize("status", ["auction", "pre_open"])
def test_orders_are_gathered_without_matching(status: str) -> None:
    check(f"""
        status X {status}
        sell A 5 @ 2600 as a1            -> new
        buy B 3 @ 2605 as b1             -> new
        buy B 3 @ 2600 post              -> new @ 2600
        buy B 3 @ 2600 slide             -> new @ 2600
        buy B 3 market ioc               -> rejected BAD_TIF
        buy B 3 @ 2600 ioc               -> rejected BAD_TIF
        buy B 3 @ 2600 fok               -> rejected BAD_TIF
        buy B 3 @ 2600 min 1             -> rejected BAD_TIF
        amend a1 @ 2599                  -> replaced 5 lost
        expect X bids 3 @ 2605 3+3 @ 2600, X asks 5 @ 2599, X {status}
        nominate A 5
        close X                          -> canceled 3 b1 gate_closed, canceled 3, canceled 3, canceled 5 a1, closed,
                                            bond_released, bond_released
        expect A open_orders 0, B held 0
    """)


def test_before_the_open() -> None:
    check("""
        list Y from 50 gate 100
        clock 49
        buy A 5 @ 2600 in Y              -> rejected MARKET_NOT_OPEN
        status Y auction
        buy A 5 @ 2600 in Y              -> rejected MARKET_NOT_OPEN
        status Y pre_open
        buy A 5 @ 2600 in Y as a1        -> new
        status Y continuous              -> status continuous
        amend a1 qty 4                   -> rejected MARKET_NOT_OPEN
        clock 100
        status Y pre_open
        buy A 5 @ 2600 in Y              -> rejected MARKET_NOT_OPEN
    """)


def test_the_exchange_halts() -> None:
    check("""
        sell A 5 @ 2600 as a1
        status X auction
        halt                             -> halted
        halt                             -> halted
        buy B 5 @ 2600                   -> rejected MARKET_NOT_OPEN
        amend a1 qty 4                   -> rejected MARKET_NOT_OPEN
        nominate A 5                     -> rejected MARKET_NOT_OPEN
        quote B buy 5 @ 2600 group 1     -> rejected MARKET_NOT_OPEN
        status X continuous              -> rejected MARKET_NOT_OPEN
        status X pre_open                -> status pre_open
        withdraw B 5                     -> withdrawn
        cancel a1                        -> canceled 5
        resume                           -> resumed
        status X continuous              -> status continuous
        buy B 5 @ 2600                   -> new
    """)


def test_a_book_that_is_listed_in_a_halt_is_halted_too() -> None:
    check("""
        halt
        list Y                           -> listed
        buy A 5 @ 2600 in Y              -> rejected MARKET_NOT_OPEN
        quote A buy 5 @ 2600 group 1 in Y    -> rejected MARKET_NOT_OPEN
        resume
        buy A 5 @ 2600 in Y              -> new
    """)


def test_a_locked_account() -> None:
    check("""
        buy A 5 @ 2599
        sell A 5 @ 2600
        buy A 5 @ 2620 stop 2610
        buy B 5 @ 2599
        lock A                           -> locked A, canceled 5 @ 2599 locked_out A, canceled 5 @ 2620 A,
                                            canceled 5 @ 2600 A
        lock A                           -> locked A
        buy A 5 @ 2599                   -> rejected LOCKED
        quote A buy 5 @ 2599 group 1     -> rejected LOCKED
        quote A buy 0 @ 2599 group 1     -> kept 0
        nominate A 5                     -> rejected LOCKED
        withdraw A 5                     -> withdrawn
        expect A held 0, A open_orders 0
        unlock A                         -> unlocked A
        unlock A                         -> unlocked A
        buy A 5 @ 2599                   -> new
        raw kind 20 account 9            -> rejected UNKNOWN_ACCOUNT
        raw kind 21 account 9            -> rejected UNKNOWN_ACCOUNT
    """)
