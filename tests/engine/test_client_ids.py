"""A client order id that is sent again is answered, not carried out."""

import pytest

from tests.tables import check

DAY_NS = 86_400_000_000_000


def test_the_same_again_is_answered_with_the_first() -> None:
    check("""
        buy A 5 @ 2600 cid 7 as a1           -> new 5
        buy A 5 @ 2600 cid 7                 -> duplicate 5 a1 @ 2600 qty 5
        buy A 5 @ 2600 cid 7 session 9 deadline 1   -> duplicate 5 a1
        sell B 2 @ 2600
        buy A 5 @ 2600 cid 7                 -> duplicate 3 a1 cum 2
        cancel a1
        buy A 5 @ 2600 cid 7                 -> duplicate 0 a1 cum 0
        lock A
        status X halted
        buy A 5 @ 2600 cid 7                 -> duplicate 0 a1
        buy B 5 @ 2600 cid 7                 -> rejected MARKET_NOT_OPEN
        close X
        delist X                             -> rejected NOT_FLAT
        buy A 5 @ 2600 cid 7                 -> duplicate 0 a1
        buy A 5 @ 2600 cid 8                 -> rejected LOCKED
    """)


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        ("sell A 5 @ 2600", "new, trade 5"),
        ("buy A 4 @ 2600", "new"),
        ("buy A 5 @ 2601", "new"),
        ("buy A 5 @ 2600 gtc", "new"),
        ("buy A 5 @ 2600 ioc", "new, canceled"),
        ("buy A 5 @ 2600 post", "new"),
        ("buy A 5 @ 2600 tag 1", "new"),
        ("buy A 5 @ 2600 group 1", "new"),
        ("buy A 5 @ 2600 show 1", "new"),
        ("buy A 5 @ 2600 min 1", "rejected FOK_NOT_FILLABLE"),
        ("buy A 5 @ 2600 stop 1", "new"),
        ("buy A 5 @ 2600 stp_group 1", "new"),
        ("buy A 5 @ 2600 gtd till 99", "new"),
        ("buy A 5 @ 2600 in Y", "new"),
    ],
)
def test_another_order_under_the_same_id_is_refused(other: str, outcome: str) -> None:
    check(f"""
        list Y
        buy A 5 @ 2600 cid 7                 -> new
        {other} cid 7                        -> rejected CID_REUSED_DIFFERENT
        {other} cid 8                        -> {outcome}
    """)


@pytest.mark.parametrize(
    ("is_now", "was"),
    [("till 98", "till 99"), ("stop 98000", "stop 99000"), ("show 3", "show 2"), ("tag 4", "tag 3"), ("group 5", "group 4"),
     ("stp_group 6", "stp_group 7"), ("@ 2601", "@ 2600"), ("buy A 6", "buy A 5"), ("gtc", "gtd till 99")],
)  # fmt: skip
def test_each_field_alone_makes_another_order(is_now: str, was: str) -> None:
    order = "buy A 5 @ 2600 stop 99000 gtd till 99 show 2 tag 3 group 4 stp_group 7 cid 7"
    check(f"""
        {order}                              -> new 5 waiting
        {order}                              -> duplicate 5
        {order.replace(was, is_now)}         -> rejected CID_REUSED_DIFFERENT
    """)


def test_a_refused_order_is_not_remembered() -> None:
    check("""
        buy A 5000000 @ 2600 cid 7           -> rejected BAD_QTY
        buy A 5 @ 2600 cid 7                 -> new
        buy A 5000000 @ 2600 cid 7           -> rejected CID_REUSED_DIFFERENT
        raw kind 1 account 1 instrument 1 qty 5 price 2600 cl_ord_id 7     -> new       # without EXTENDED it is not read
    """)


def test_how_long_an_id_is_remembered() -> None:
    check(f"""
        list Y gate {3 * DAY_NS}
        clock 10
        buy A 5 @ 2600 cid 7 in Y as a1
        buy A 5 @ 2600 cid 8 in Y as a2
        clock {DAY_NS + 9}
        cancel a1
        buy A 5 @ 2600 cid 7 in Y            -> duplicate 0 a1
        clock {DAY_NS + 10}
        buy A 5 @ 2600 cid 8 in Y            -> duplicate 5 a2
        buy A 6 @ 2600 cid 7 in Y as a3      -> new
        buy A 6 @ 2600 cid 7 in Y            -> duplicate 6 a3
        cancel a2
        buy A 6 @ 2600 cid 8 in Y            -> new
    """)


def test_the_oldest_ids_are_forgotten() -> None:
    check(
        """
        buy A 1 @ 2600 cid 1 as a1
        buy A 1 @ 2600 cid 2 as a2
        buy A 1 @ 2600 cid 1                 -> duplicate a1
        buy A 1 @ 2600 cid 3
        buy A 1 @ 2600 cid 2                 -> duplicate a2
        buy A 1 @ 2600 cid 1 as a3           -> new
        buy A 1 @ 2600 cid 2                 -> new
        buy A 1 @ 2600 cid 1                 -> duplicate a3
        """,
        max_client_ids=2,
    )
