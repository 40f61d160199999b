"""Auctions: the price, who trades, what it costs; and the collar that calls one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.types import COMMAND, LISTING, TRANSFER, EventKind, Kind, Side, Status
from tests.both import MAKERS
from tests.tables import check, command


@pytest.mark.parametrize(
    ("orders", "price"),
    [
        # the most is traded
        ("buy 5 2605, buy 5 2603, sell 5 2601, sell 5 2603", "auction 10 @ 2603 surplus 0"),
        # at several prices: the smaller surplus
        ("buy 5 2605, buy 2 2602, sell 5 2600", "auction 5 @ 2603 surplus 0"),
        ("buy 5 2605, sell 5 2600, sell 3 2604", "auction 5 @ 2600 surplus 0"),
        # then the nearest to the reference of 2600
        ("buy 5 2610, sell 5 2605", "auction 5 @ 2605"),
        ("buy 5 2590, sell 5 2580", "auction 5 @ 2590"),
        ("buy 5 2610, sell 5 2590", "auction 5 @ 2600"),
        # as many bids left over as offers a tick higher
        ("buy 5 2601, buy 2 2600, sell 5 2600, sell 2 2601", "auction 5 @ 2600 surplus 2"),
        ("buy 5 2590, buy 2 2589, sell 5 2589, sell 2 2590", "auction 5 @ 2590 surplus -2"),
        ("buy 7 2600, sell 5 2600", "auction 5 @ 2600 surplus 2"),
        ("buy 5 2600, sell 7 2600", "auction 5 @ 2600 surplus -2"),
        ("buy 5 2610 show 1, sell 7 2610 show 2", "auction 5 @ 2610 surplus -2"),
    ],
)
def test_the_price(orders: str, price: str) -> None:
    lines = [order.split() for order in orders.split(", ")]
    rows = [f"{side} {'A' if side == 'buy' else 'B'} {qty} @ {at} {' '.join(rest)}" for side, qty, at, *rest in lines]
    check("\n".join(["status X auction", *rows, f"indicate X -> {price} indicative"]))


def test_nearest_to_the_last_price_once_there_is_one() -> None:
    check("""
        sell A 1 @ 2604
        buy B 1 @ 2604
        status X auction
        buy A 5 @ 2610
        sell B 5 @ 2590
        indicate X                       -> auction 5 @ 2604 indicative
    """)


def test_an_uncross() -> None:
    check("""
        status X pre_open
        buy A 3 @ 2610 as a1             -> new held 62671323
        buy B 4 @ 2605 as b1
        buy B 4 @ 2605 as b2
        sell C 2 @ 2590 as c1
        sell D 4 @ 2600
        indicate X                       -> auction 6 @ 2600 surplus 5 indicative
        status X continuous              -> auction 6 @ 2600 surplus 5 auction,
                                            trade 2 @ 2600 a1 auction with C fee 0 held 41780882 escrow 41600000,
                                            trade 1 a1 with D leaves 0 held 20890441,
                                            trade 3 b1 with D leaves 1 contra_leaves 0,
                                            status continuous was 3
        expect X bids 1+4 @ 2605, X asks none, X last 2600, house 0, C rebate 0, A held 0, C fees_due 0
    """)


def test_the_oldest_of_a_price_trades_first_on_both_sides() -> None:
    check("""
        status X auction
        sell A 1 @ 2600
        sell B 2 @ 2600
        buy C 2 @ 2600 as c1
        buy D 2 @ 2600 as d1
        status X continuous              -> auction 3, trade 1 c1 with A, trade 1 c1 with B, trade 1 d1 with B, status
        expect X bids 1 @ 2600
    """)


def test_nothing_to_uncross() -> None:
    check("""
        status X auction
        buy A 3 @ 2599
        sell B 3 @ 2600
        indicate X                       -> auction 0 @ 0 surplus 0 indicative
        status X halted
        indicate X                       -> rejected MARKET_NOT_OPEN
        raw kind 40 instrument 9         -> rejected UNKNOWN_SYMBOL
        status X continuous              -> status continuous
    """)


def test_icebergs_in_an_auction() -> None:
    check("""
        status X auction
        buy A 6 @ 2600 show 2 as a1
        buy B 3 @ 2600 as b1
        sell C 7 @ 2600 show 4 as c1
        status X continuous              -> auction 7 surplus 2, trade 2 a1, refreshed 2 a1, trade 2 b1 contra_leaves 3,
                                            refreshed 3 c1,
                                            trade 1 b1, trade 2 a1, refreshed 2 a1, status
        expect X bids 2 @ 2600, a1 shown 2, X asks none
    """)


def test_a_halted_book_is_uncrossed_when_it_goes_on() -> None:
    check("""
        status X auction
        buy A 1 @ 2600
        sell A 1 @ 2600 stp_both         # nobody takes: self-trades are not prevented
        status X halted
        expect X bids 1 @ 2600, X asks 1 @ 2600
        status X continuous              -> auction 1, trade 1 A with A, status
    """)


def test_what_may_not_open_is_cancelled_and_the_rest_uncrossed_again() -> None:
    check("""
        buy A 4 @ 2600
        sell B 4 @ 2600
        status X auction
        sell A 4 @ 2500 reduce as a1
        sell A 4 @ 2490 as a2
        buy B 6 @ 2600
        sell C 1 @ 2595
        status X continuous              -> auction 6 @ 2594 surplus -2, trade 4 @ 2594 with A, canceled 4 a1 nothing_to_reduce,
                                            auction 1 @ 2595 surplus 1, trade 1 @ 2595 with C, status
        expect X bids 1 @ 2600
    """)


def test_buyers_that_may_only_reduce() -> None:
    check("""
        sell A 4 @ 2600
        buy B 4 @ 2600
        status X auction
        buy A 4 @ 2610 reduce as a1
        buy A 3 @ 2611 as a2             # it trades before
        sell C 6 @ 2600
        status X continuous              -> auction 6 @ 2600 surplus 1, trade 3 a2 with C, trade 1 a1 with C,
                                            canceled 3 a1 nothing_to_reduce, status
        expect A net 0, X asks 2 @ 2600
    """)


def test_the_collar_calls_an_auction() -> None:
    check("""
        list Y dynamic 10000
        nominate A 100 in Y
        nominate B 100 in Y
        sell A 1 @ 2600 in Y
        sell A 1 @ 5000 in Y
        buy B 2 @ 5000 in Y              -> new, trade 1 @ 2600, trade 1 @ 5000       # there was no price before
        bands Y dynamic 10000
        sell A 1 @ 5050 in Y
        sell A 1 @ 5051 in Y
        buy B 3 @ 6000 in Y as b1        -> new 3, trade 1 @ 5050, status auction was 1 collar
        expect Y bids 2 @ 6000, Y asks 1 @ 5051, Y auction, b1 leaves 2
        buy C 1 @ 5051 in Y              -> new
        status Y continuous              -> auction 1 @ 5052, trade 1 @ 5052 b1, status continuous was 4
        sell A 9 @ 5051 in Y             -> new 9, status auction collar
        status Y continuous              -> auction 2 @ 5051, trade 1 b1, trade 1 with A, status
    """)


def test_the_collar_and_what_does_not_rest() -> None:
    check("""
        list Y dynamic 10000
        nominate A 100 in Y
        sell A 1 @ 2600 in Y
        buy B 1 @ 2600 in Y
        sell A 1 @ 2626 in Y
        sell A 1 @ 2627 in Y
        buy B 2 @ 2700 fok in Y          -> rejected FOK_NOT_FILLABLE
        buy B 2 @ 2700 min 2 in Y        -> rejected FOK_NOT_FILLABLE
        expect Y continuous
        buy B 2 market ioc in Y          -> new 2 @ 2627, trade 1 @ 2626, canceled 1 unfilled, status auction collar
        status Y continuous              -> status
        buy B 1 @ 2700 stop 2600 in Y    -> new waiting, triggered, trade 1 @ 2627
        bands Y
        buy B 1 @ 1000 in Y
        sell A 1 @ 1000 in Y             -> new, trade 1 @ 1000
    """)


def test_a_cascade_ends_at_the_collar() -> None:
    check("""
        list Y dynamic 10000
        nominate A 100 in Y
        sell A 1 @ 2600 in Y
        buy B 1 @ 2600 in Y
        sell A 1 @ 2620 in Y
        sell A 1 @ 2627 in Y
        buy B 1 @ 3000 stop 2610 in Y as b1
        buy B 1 @ 3000 stop 2611 in Y as b2
        buy C 1 @ 2620 in Y              -> new, trade 1 @ 2620, triggered b1, status auction collar
        expect Y buy_stops 1 @ 2611, Y bids 1 @ 3000
        status Y continuous              -> auction 1 @ 2627, trade 1 b1, status, triggered b2
    """)


TOP = 12
ORDERS = st.lists(st.tuples(st.sampled_from(Side), st.integers(0, TOP), st.integers(1, 3)), max_size=9)


def by_trying_all(orders: list[tuple[Side, int, int]], near: int) -> tuple[int, int, int]:
    """Price, volume and surplus, found by looking at every price."""
    bids, asks = ([(price, qty) for side, price, qty in orders if side == wanted] for wanted in Side)
    if not bids or not asks or max(bids)[0] < min(asks)[0]:
        return 0, 0, 0

    def at(price: int) -> tuple[int, int]:
        demand = sum(qty for limit, qty in bids if limit >= price)
        supply = sum(qty for limit, qty in asks if limit <= price)
        return min(demand, supply), demand - supply

    prices = range(min(asks)[0], max(bids)[0] + 1)
    best = min(prices, key=lambda price: (-at(price)[0], abs(at(price)[1]), abs(price - near), price))
    return best, *at(best)


@given(orders=ORDERS, near=st.integers(0, TOP), traded=st.booleans())
def test_the_price_is_the_best_of_all(orders: list[tuple[Side, int, int]], near: int, traded: bool) -> None:
    """And when the book goes on that much is traded at it, and nothing that crosses is left."""
    who = [command(Kind.OPEN_ACCOUNT, TRANSFER, account=n) for n in (1, 2)]
    who += [command(Kind.DEPOSIT, TRANSFER, account=n, amount_micros=10**9) for n in (1, 2)]
    terms = {"lot_tick_micros": 1, "max_price": TOP, "gate_ns": 9, "reference_price": TOP - near if traded else near}
    setup = [*who, command(Kind.LIST, LISTING, instrument=1, **terms)]
    setup += [command(Kind.NOMINATE, TRANSFER, account=n, instrument=1, lots=99) for n in (1, 2)]
    if traded:
        for side in Side:
            setup.append(command(Kind.NEW_ORDER, account=1, instrument=1, side=side, price=near, qty=1))
    setup.append(command(Kind.SET_STATUS, instrument=1, qty=Status.AUCTION))
    for number, (side, price, qty) in enumerate(orders):
        account = 1 + number % 2
        setup.append(command(Kind.NEW_ORDER, account=account, instrument=1, side=side, price=price, qty=qty))
    expected = by_trying_all(orders, near)
    for make in MAKERS:
        exchange = make()
        play(exchange, setup)
        indicated = play(exchange, [command(Kind.INDICATE, instrument=1)])[0]
        assert (indicated["price"], indicated["qty"], indicated["leaves_qty"]) == expected
        events = play(exchange, [command(Kind.SET_STATUS, instrument=1, qty=Status.CONTINUOUS)])
        trades = events[events["kind"] == EventKind.TRADE]
        assert trades["qty"].sum() == expected[1] and set(trades["price"].tolist()) <= {expected[0]}
        book = exchange.dump()["books"][1]
        assert not book["bids"] or not book["asks"] or book["bids"][0][0] < book["asks"][0][0]


def play(exchange: Any, rows: list[NDArray[np.void]]) -> NDArray[np.void]:
    for number, row in enumerate(rows, exchange.applied_seq + 1):
        row["seq"] = number
    rows = [row.view(COMMAND) for row in rows]
    events: NDArray[np.void] = exchange.apply(np.concatenate(rows)).copy()
    assert EventKind.REJECTED not in events["kind"]
    return events
