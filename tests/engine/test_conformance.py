"""The scenarios of other engines on ours and on its twin, and the player that says them in our commands."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from engine.types import MAX_POSITION_LOTS, MAX_PRICE_TICKS, MAX_QTY
from tests.both import MAKERS
from tests.engine.conformance import Verdict, run_case, run_file
from tests.engine.conformance.differences import DIFFERENCES, PAGE, page
from tests.engine.conformance.features import FEATURES, NOT_GATHERED
from tests.engine.conformance.suites import FORMAT, load, suite_files

Step = dict[str, Any]
CASES = {case["id"]: case for path in suite_files() for case in load(path)["cases"]}


@pytest.mark.parametrize("case_id", CASES)
@pytest.mark.parametrize("make", MAKERS)
def test_a_case_passes_or_is_listed(case_id: str, make: Any) -> None:
    result = run_case(CASES[case_id], make)
    if case_id in DIFFERENCES:
        assert result.verdict is not Verdict.PASS, "it passes now: take it off the list"
    else:
        assert result.verdict is Verdict.PASS, result.why


def test_each_case_is_there_once_and_the_list_names_only_those() -> None:
    assert len(CASES) == sum(len(load(path)["cases"]) for path in suite_files()) == 125
    assert CASES.keys() >= DIFFERENCES.keys()


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "write it with `python -m tests.engine.conformance --write-page`"


# The player itself


def new(number: int, side: str, qty: int, price: int | None = None, **more: Any) -> Step:
    kind = "market" if price is None else "limit"
    return {"op": "new", "id": number, "side": side, "type": kind, "qty": qty, "price": price, **more}


def expect(**what: Any) -> Step:
    return {"op": "expect", "asserted": True, **what}


def trade(maker: int, taker: int, price: int, qty: int) -> Step:
    return {"maker": maker, "taker": taker, "price": price, "qty": qty}


def play(*steps: Step, **case: Any) -> tuple[Verdict, str]:
    """The verdict on these steps; the same on the engine and on its twin."""
    first, second = (run_case({"id": "here", "steps": list(steps), **case}, make) for make in MAKERS)
    assert first == second
    return first.verdict, first.why


def passes(*steps: Step) -> None:
    assert play(*steps) == (Verdict.PASS, "")


TWO_ASKS = (new(1, "sell", 10, 100), new(2, "sell", 10, 100))


def test_reduce_keeps_priority_and_beyond_what_is_open_cancels() -> None:
    passes(
        *TWO_ASKS,
        {"op": "reduce", "id": 1, "by": 4},
        expect(queue_asks=[[1, 100, 6], [2, 100, 10]], cancelled_qty=4, volume=[0, 16], rejected=False),
        new(3, "buy", 2, 100),
        {"op": "reduce", "id": 1, "by": 5},
        expect(
            queue_asks=[[2, 100, 10]], cancelled_qty=4, order={"id": 1, "open": 0, "filled": 2, "state": "cancelled"}
        ),
        {"op": "reduce", "id": 1, "by": 1},
        expect(rejected=True, queue_asks=[[2, 100, 10]], cancelled_qty=0),
        {"op": "reduce", "id": 2, "by": 10},
        expect(asks=[], rejected=False, cancelled_qty=10),
    )


@pytest.mark.parametrize(("priority", "first"), [("lost", 2), ("kept_if_decrease", 1), ("unspecified", 1)])
def test_modify_says_the_open_quantity_and_what_becomes_of_priority(priority: str, first: int) -> None:
    rows = {1: [1, 100, 5], 2: [2, 100, 10]}
    passes(
        *TWO_ASKS,
        new(3, "buy", 3, 100),
        {"op": "modify", "id": 1, "price": 100, "qty": 5, "priority": priority},
        expect(queue_asks=[rows[first], rows[3 - first]], order={"id": 1, "open": 5, "filled": 3, "state": "accepted"}),
    )


def test_modify_to_more_and_to_nothing() -> None:
    passes(
        *TWO_ASKS,
        {"op": "modify", "id": 1, "price": 100, "qty": 11, "priority": "kept_if_decrease"},
        expect(queue_asks=[[2, 100, 10], [1, 100, 11]]),
        {"op": "modify", "id": 2, "price": 100, "qty": 0, "priority": "lost"},
        expect(queue_asks=[[1, 100, 11]], cancelled_qty=10, order={"id": 2, "state": "deleted"}),
    )


def test_mitigate_says_the_total() -> None:
    passes(
        *TWO_ASKS,
        new(3, "buy", 4, 100),
        {"op": "mitigate", "id": 1, "price": 100, "qty": 9},
        expect(queue_asks=[[1, 100, 5], [2, 100, 10]]),
        {"op": "mitigate", "id": 1, "price": 100, "qty": 4},
        expect(queue_asks=[[2, 100, 10]], rejected=False),
        {"op": "mitigate", "id": 2, "price": 100, "qty": 0},
        expect(asks=[], rejected=False),
    )


def test_replace_gives_a_new_id_and_may_change_side() -> None:
    passes(
        *TWO_ASKS,
        {"op": "replace", "id": 1, "new_id": 7, "price": 101, "qty": 3},
        expect(queue_asks=[[2, 100, 10], [7, 101, 3]], order=[{"id": 1, "state": "cancelled"}, {"id": 7, "open": 3}]),
        {"op": "replace", "id": 7, "new_id": 8, "price": 100, "qty": 4, "side": "buy"},
        expect(trades=[trade(2, 8, 100, 4)], bids=[], asks=[[100, 6]]),
        {"op": "replace", "id": 7, "new_id": 9, "price": 100, "qty": 4},
        expect(rejected=True, order_count=[0, 1]),
    )


def test_looks_at_every_part_of_the_book() -> None:
    passes(
        *TWO_ASKS,
        new(3, "sell", 5, 102),
        new(4, "buy", 7, 99),
        expect(bids=[[99, 7]], asks=[[100, 20], [102, 5]], queue_bids=[[4, 99, 7]], best_bid=99, best_ask=100),
        expect(order_count=[1, 3], volume=[7, 25], visible_volume=[7, 25], stop_count=[0, 0], stop_volume=[0, 0]),
        new(5, "buy", 12, 100, tif="IOC"),
        expect(trade_pairs_any_order=[trade(2, 5, 100, 2), trade(1, 5, 100, 10)], rejected=False, cancelled_qty=0),
        new(6, "buy", 50, tif="IOC"),
        expect(trades=[trade(2, 6, 100, 8), trade(3, 6, 102, 5)], cancelled_qty=37, best_ask=None),
    )


@pytest.mark.parametrize("rejected", [True, False])
def test_what_is_killed_at_once_may_be_called_refused_or_cancelled(rejected: bool) -> None:
    passes(
        *TWO_ASKS,
        new(3, "buy", 30, 100, tif="FOK"),
        expect(rejected=rejected, cancelled_qty=30, trades=[], order={"id": 3, "open": 30, "state": "cancelled"}),
        new(4, "buy", 5, 100, post_only=True),
        expect(rejected=rejected, cancelled_qty=0, trades=[], order={"id": 4, "open": 0, "state": "rejected"}),
    )


def test_accounts_of_the_case_are_kept_apart() -> None:
    passes(
        new(1, "sell", 10, 100, account="A"),
        {"op": "cancel", "id": 1, "account": "B"},
        expect(rejected=True, asks=[[100, 10]]),
        new(2, "buy", 4, 100, account="A"),
        expect(trades=[trade(1, 2, 100, 4)]),
        {"op": "cancel", "id": 1},
        expect(rejected=False, cancelled_qty=6),
    )


def test_numbers_too_large_for_a_book_are_brought_within_it() -> None:
    base, tick, lot = 4_000_000_000_000, 250, 3 * MAX_QTY
    passes(
        new(1, "sell", 2 * lot, base + tick),
        new(2, "buy", 3 * lot, base + tick * MAX_PRICE_TICKS - tick),
        expect(trades=[trade(1, 2, base + tick, 2 * lot)], bids=[[base + tick * MAX_PRICE_TICKS - tick, lot]]),
        new(3, "buy", lot, base),
        expect(best_bid=base + tick * MAX_PRICE_TICKS - tick, volume=[2 * lot, 0], order={"id": 3, "price": base}),
    )


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"trades": []}, "step 3: trades: [] is expected, there is [{'maker': 1"),
        ({"trades": [trade(1, 3, 100, 5)]}, "'qty': 4"),
        ({"trade_pairs_any_order": []}, "trade_pairs_any_order"),
        ({"rejected": True}, "rejected: True is expected, there is False"),
        ({"cancelled_qty": 1}, "there is 0"),
        ({"asks": [[100, 7]]}, "there is [[100, 6]]"),
        ({"queue_asks": [[2, 100, 6]]}, "there is [[1, 100, 6]]"),
        ({"best_bid": 99}, "there is None"),
        ({"best_ask": 99}, "there is 100"),
        ({"order_count": [1, 1]}, "there is [0, 1]"),
        ({"volume": [0, 7]}, "there is [0, 6]"),
        ({"order": {"id": 1, "open": 7}}, "'open': 6"),
        ({"order": {"id": 1, "filled": 3}}, "'filled': 4"),
        ({"order": {"id": 1, "price": 3}}, "'price': 100"),
        ({"order": {"id": 1, "state": "complete"}}, "'state': 'working'"),
        ({"order": {"id": 3, "open": 1, "state": "complete"}}, "'open': 0"),
        ({"order": {"id": 9, "open": 1}}, "there is None"),
        ({"bids": [[1, 1]], "asserted": False}, "as was seen there"),
    ],
)
def test_a_wrong_expectation_is_noticed(what: Step, why: str) -> None:
    verdict, found = play(new(1, "sell", 10, 100), new(3, "buy", 4, 100), expect(**what))
    assert verdict is Verdict.DIFFERS
    assert why in found


FEATURE_ORDERS = {
    "self-trade prevention": new(1, "buy", 5, 100, stp="cancel_taker"),
    "stop orders": new(1, "buy", 5, 100, stop_price=99) | {"type": "stop_limit"},
    "orders that show nothing": new(1, "buy", 5, 100, display_qty=0),
    "iceberg orders": new(1, "buy", 5, 100, display_qty=1),
    "minimum quantity": new(1, "buy", 5, 100, min_qty=2),
    "all-or-none": new(1, "buy", 5, 100, tif="AON"),
    "post-only that slides": new(1, "buy", 5, 100, post_only="slide"),
    "market with a collar": new(1, "buy", 5, slippage=3),
    "trailing stops": new(1, "buy", 5, 100, trail_distance=3) | {"type": "trailing_stop"},
    "one cancels the other": new(1, "buy", 5, 100, stop_limit_price=3) | {"type": "oco"},
}


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_feature_that_is_not_there_is_named(feature: Any) -> None:
    verdict, why = play(new(9, "sell", 5, 100), FEATURE_ORDERS[feature.name])
    if feature.fields is None:
        assert (verdict, why) == (Verdict.NOT_SUPPORTED, f"{feature.otherwise}: {feature.name}")
    else:
        assert verdict is Verdict.PASS, why


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([{"op": "explode"}], "the command explode"),
        ([new(1, "buy", 5, 100, tif="AON")], "all-or-none order that waits"),
        ([new(1, "buy", 5, 100, stp="cancel_oldest")], "self-trade prevention by cancel_oldest"),
        ([new(1, "buy", 5, 100, colour="red")], "new with colour"),
        ([new(1, "buy", 5, 100, tif="DAY")], "DAY: only GTC"),
        ([{"op": "new", "id": 1, "side": "buy", "type": "limit", "qty": 5}], "new without price"),
        ([new(1, "buy", 5, 100) | {"type": "pegged"}], "orders of type pegged"),
        ([new(1, "buy", 5, 100), new(1, "buy", 5, 100)], "an id given twice"),
        ([new(n, "buy", 5, price) for n, price in enumerate((1, 2, MAX_PRICE_TICKS + 2))], "prices further apart"),
        ([new(n, "buy", MAX_QTY, 1) for n in range(MAX_POSITION_LOTS // MAX_QTY)], "lots in all"),
        ([new(1, "buy", MAX_QTY + 1, 1), new(2, "buy", 1, 1)], "a quantity beyond"),
        ([expect(colour="red")], "the expectation colour"),
        ([new(1, "buy", 5, 100), expect(order={"id": 1, "colour": "red"})], "the expectation colour of an order"),
        ([new(1, "buy", 5, 100), expect(order={"id": 1, "state": "blue"})], "the state blue of an order"),
    ],
)
def test_what_cannot_be_said_or_seen_is_not_supported(steps: list[Step], why: str) -> None:
    verdict, found = play(*steps)
    assert verdict is Verdict.NOT_SUPPORTED
    assert why in found


def test_a_book_filled_without_matching() -> None:
    steps = [
        *(new(1, "buy", 5, 102), new(2, "buy", 5, 101), new(3, "sell", 7, 100)),
        expect(trades=[], queue_bids=[[1, 102, 5], [2, 101, 5]], asks=[[100, 7]]),
        {"op": "match"},
        expect(bids=[[101, 3]], asks=[], order={"id": 3, "state": "filled"}),
        new(4, "sell", 5, 101),
        expect(trades=[], asks=[[101, 5]]),
        {"op": "match"},
        expect(bids=[], asks=[[101, 2]], trades=[trade(4, 2, 101, 3)]),
    ]
    assert play(*steps, matching="manual") == (Verdict.PASS, "")
    market = new(5, "buy", 5)
    assert play(market, matching="manual") == (Verdict.NOT_SUPPORTED, NOT_GATHERED)


def stop(number: int, side: str, qty: int, stop_price: int, price: int | None = None, **more: Any) -> Step:
    return new(number, side, qty, price, stop_price=stop_price, **more) | {"type": "stop_limit" if price else "stop"}


def test_stops_wait_and_are_triggered() -> None:
    passes(
        *TWO_ASKS,
        stop(3, "buy", 4, 101),
        stop(4, "buy", 5, 100, price=100),
        expect(
            trades=[], stop_count=[2, 0], stop_volume=[9, 0], order={"id": 3, "state": "accepted", "stop_price": 101}
        ),
        {"op": "modify", "id": 4, "price": 100, "qty": 3, "priority": "kept_if_decrease"},
        new(5, "buy", 2, 100),
        expect(trades=[trade(1, 5, 100, 2), trade(1, 4, 100, 3)], stop_count=[1, 0], bids=[], asks=[[100, 15]]),
        new(6, "sell", 1, 101),
        new(7, "buy", 16, 101),
        expect(stop_count=[0, 0], cancelled_qty=4, order={"id": 3, "state": "cancelled", "open": 0}, asks=[]),
        stop(8, "sell", 1, 102),
        expect(stop_count=[0, 0], cancelled_qty=1),
        stop(9, "sell", 1, 90),
        {"op": "cancel", "id": 9},
        expect(stop_count=[0, 0], cancelled_qty=1, order={"id": 9, "state": "cancelled"}),
    )


def test_icebergs_show_a_part() -> None:
    passes(
        new(1, "sell", 10, 100, display_qty=3),
        new(2, "sell", 5, 100),
        expect(asks=[[100, 15]], volume=[0, 15], visible_volume=[0, 8]),
        new(3, "buy", 4, 100),
        expect(trades=[trade(1, 3, 100, 3), trade(2, 3, 100, 1)], queue_asks=[[2, 100, 4], [1, 100, 7]]),
        expect(visible_volume=[0, 7]),
        new(4, "buy", 2, 100, tif="IOC", display_qty=1),
        expect(trades=[trade(2, 4, 100, 2)]),
    )


@pytest.mark.parametrize(
    ("stp", "bids", "asks", "cancelled"),
    [
        ("cancel_taker", [], [[100, 15]], 4),
        ("cancel_maker", [], [[100, 1]], 10),
        ("cancel_both", [], [[100, 5]], 14),
        ("decrement", [], [[100, 11]], 0),
    ],
)
def test_self_trades_are_prevented(stp: str, bids: Any, asks: Any, cancelled: int) -> None:
    traded = [trade(2, 3, 100, 4)] if stp == "cancel_maker" else []
    steps = [
        new(1, "sell", 10, 100, account="A"),
        new(2, "sell", 5, 100, account="B"),
        new(3, "buy", 4, 100, account="A", stp=stp),
        expect(trades=traded, bids=bids, asks=asks, cancelled_qty=cancelled),
        expect(cancelled_qty=cancelled - 10 if cancelled >= 10 else cancelled),  # of the taker alone
    ]
    if stp in ("cancel_taker", "cancel_both"):
        steps.append(expect(rejected=True, order={"id": 3, "state": "rejected", "filled": 0}))
        steps.append(expect(rejected=False, order={"id": 3, "state": "cancelled", "open": 0}))
    passes(*steps)


def test_a_market_order_with_slippage_and_an_all_or_none_that_is_filled() -> None:
    passes(
        *TWO_ASKS,
        new(3, "sell", 5, 102),
        new(4, "sell", 5, 103),
        new(5, "buy", 40, slippage=2),
        expect(trades=[trade(1, 5, 100, 10), trade(2, 5, 100, 10), trade(3, 5, 102, 5)], cancelled_qty=15),
        new(6, "buy", 2, slippage=0),
        expect(trades=[trade(4, 6, 103, 2)]),
        new(7, "buy", 3, 103, tif="AON"),
        expect(trades=[trade(4, 7, 103, 3)], asks=[]),
        new(8, "buy", 7, 90),
        new(9, "sell", 7, slippage=0),
        expect(trades=[trade(8, 9, 90, 7)]),
        new(10, "sell", 7, slippage=5),
        expect(cancelled_qty=7, trades=[]),
    )


def test_files_from_elsewhere(tmp_path: Path) -> None:
    case = {"id": "one", "steps": [new(1, "buy", 5, 100), expect(bids=[[100, 5]])]}
    text = json.dumps({"format": FORMAT, "cases": [case]})
    plain, packed, other = tmp_path / "a.json", tmp_path / "b.json.gz", tmp_path / "c.json"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    other.write_text("[]")
    assert [result.verdict for result in run_file(plain)] == [Verdict.PASS]
    assert run_file(plain) == run_file(packed)
    with pytest.raises(ValueError, match=FORMAT):
        run_file(other)
