"""Whose money moves at a trade. In book Z a tick is 1,000 micros, so that a price is also the notional in thousands; fee
1 %, rebate 0.5 %."""

from tests.tables import check

Z = "list Z unit 1000 fee 10000 rebate 5000 bond 0 ref 0"


def test_a_buying_taker_pays_notional_and_fee_and_gets_the_rest_back() -> None:
    check(f"""
        {Z}
        open B
        deposit B 1_000_000
        nominate A 10 in Z
        sell A 2 @ 100 in Z
        buy  B 3 @ 110 in Z ->
            new 3 held 333303, trade 2 @ 100 held 222202 fee 2000 fee_due 0 escrow 200000 released 0
        expect B cash 686_899, B held 111_101, B net 2 in Z, B open_buy 1 in Z
        expect house 2000, A rebate 1000, B rebate 0
        expect A net -2 in Z, A escrow 200_000 in Z, A fees_due 0 in Z
    """)


def test_a_buying_maker_pays_no_fee() -> None:
    check(f"""
        {Z}
        open B
        deposit B 1_000_000
        nominate A 10 in Z
        buy  B 2 @ 100 in Z   -> new held 202002
        sell A 1 @ 90 in Z    -> new, trade 1 @ 100 held 101001 fee 1000 fee_due 1000 escrow 100000
        expect B cash 798_999 , B held 101_001, B rebate 500, house 0
        expect A escrow 100_000 in Z, A fees_due 1000 in Z, A cash 994_800_000_000
    """)


def test_a_seller_of_what_it_has_is_paid_at_once() -> None:
    check(f"""
        {Z}
        nominate A 10 in Z
        open B
        deposit B 1_000_000
        sell A 5 @ 100 in Z
        buy  B 5 @ 100 in Z        -> new, trade
        expect B cash 495_000, house 5000
        buy  C 2 @ 120 in Z
        sell B 2 @ 120 in Z        -> new, trade 2 @ 120 fee 2400 fee_due 0 escrow 0
        expect B cash 732_600, B net 3 in Z, house 7400
        sell B 2 @ 130 in Z        # as maker it pays nothing
        buy  C 2 @ 130 in Z        -> new, trade 2 @ 130 fee 2600 escrow 0
        expect B cash 992_600, B net 1 in Z, B rebate 1300, house 10000
    """)


def test_a_sale_through_zero_is_split_in_cash_and_escrow() -> None:
    check(f"""
        {Z}
        nominate A 10 in Z
        open B
        deposit B 1_000_000
        nominate B 10 in Z
        sell A 2 @ 100 in Z
        buy  B 2 @ 100 in Z
        buy  C 5 @ 101 in Z
        expect B cash 798_000, house 2000
        sell B 5 @ 101 in Z   -> new, trade 5 @ 101 fee 5050 fee_due 3030 escrow 303000
        expect B cash 997_980, B net -3 in Z, B escrow 303_000 in Z, B fees_due 3030 in Z, house 4020
    """)


def test_covering_releases_escrow_and_pays_fees_in_proportion() -> None:
    check(f"""
        {Z}
        open B
        deposit B 1_000_000
        nominate B 10 in Z
        buy  C 3 @ 101 in Z
        sell B 3 @ 101 in Z    -> new, trade fee 3030 fee_due 3030 escrow 303000
        sell A 1 @ 10 in X
        nominate A 10 in Z
        sell A 9 @ 50 in Z
        buy  B 1 @ 50 in Z     -> new, trade 1 @ 50 fee 500 released 101000 due_paid 1010 escrow 50000
        expect B cash 1_049_490, B net -2 in Z, B escrow 202_000 in Z, B fees_due 2020 in Z, house 1510
        buy  B 3 @ 50 in Z     -> new, trade 3 @ 50 fee 1500 released 202000 due_paid 2020
        expect B cash 1_097_970 , B net 1 in Z, B escrow 0 in Z, B fees_due 0 in Z, house 5030
    """)


def test_splits_round_down_until_the_last_lot_takes_the_rest() -> None:
    check("""
        list Z unit 1 fee 10000 rebate 10000 bond 0 ref 0 max 1000
        nominate A 10 in Z
        nominate B 10 in Z
        buy  C 1 @ 5 in Z
        buy  C 2 @ 3 in Z
        sell B 3 @ 3 in Z     -> new, trade 1 @ 5 fee 1 fee_due 1 escrow 5, trade 2 @ 3 fee 1 fee_due 1 escrow 6
        sell A 9 @ 1 in Z
        buy  B 1 @ 1 in Z     -> new, trade fee 1 released 3 due_paid 0
        buy  B 1 @ 1 in Z     -> new, trade fee 1 released 4 due_paid 1
        buy  B 1 @ 1 in Z     -> new, trade fee 1 released 4 due_paid 1
        expect B escrow 0 in Z, B fees_due 0 in Z, house 5, C rebate 0
    """)


def test_every_fill_rounds_its_fee_up_and_the_hold_covers_it() -> None:
    check("""
        list Z unit 1 fee 500 rebate 0 bond 0 ref 0 max 1000
        open B
        deposit B 307
        nominate A 10 in Z
        sell A 1 @ 101 in Z
        sell A 1 @ 101 in Z
        sell A 1 @ 101 in Z
        buy  B 3 @ 101 in Z   -> new held 307, trade fee 1 held 102, trade fee 1 held 102, trade fee 1 held 103
        expect B cash 1, B held 0, house 3
    """)


def test_a_trade_with_oneself_clears_the_buyers_leg_first() -> None:
    check(f"""
        {Z}
        open B
        deposit B 1_000_000
        nominate B 10 in Z
        buy  C 2 @ 100 in Z
        sell B 2 @ 100 in Z   -> new, trade fee 2000 fee_due 2000 escrow 200000
        sell B 1 @ 120 in Z
        buy  B 1 @ 120 in Z ->
            new held 121201,
            trade 1 B with B fee 1200 held 121201 released 100000 due_paid 1000 escrow 120000 fee_due 0
        expect B net -2 in Z, B escrow 220_000 in Z, B fees_due 1000 in Z, B cash 977_800, B rebate 600, house 2200
    """)


def test_a_maker_with_a_long_position_sells_it_to_itself_for_cash() -> None:
    check(f"""
        {Z}
        open B
        deposit B 1_000_000
        nominate A 10 in Z
        sell A 2 @ 100 in Z
        buy  B 2 @ 100 in Z
        buy  B 1 @ 90 in Z
        sell B 1 @ 90 in Z    -> new, trade 1 @ 90 B with B side 1 fee 900 fee_due 0 escrow 0
        expect B net 2 in Z, B cash 797_100, B held 0, house 2900, B rebate 450
    """)


def test_rebates_are_paid_when_the_cycle_closes_and_only_out_of_fees() -> None:
    check(f"""
        {Z}
        nominate A 10 in Z
        nominate C 10 in Z
        buy  B 2 @ 100 in Z
        sell A 2 @ 100 in Z       # the fee of a short sale is due later: the house has nothing
        expect house 0, B rebate 1000, A fees_due 2000 in Z
        cycle                     -> cycle 1
        expect B rebate 1000
        sell C 1 @ 20 in Z
        buy  A 1 @ 20 in Z        -> new, trade fee 200 released 100000 due_paid 1000
        expect house 1200, C rebate 100
        cycle                     -> rebate 100 C fees -100, rebate 1000 B fees -1000, cycle 2
        expect house 100, B rebate 0, C rebate 0
        cycle                     -> cycle 3
    """)


def test_what_the_house_cannot_pay_stays_accrued() -> None:
    check("""
        list Z unit 1000 fee 10000 rebate 10000 bond 0 ref 0
        nominate A 10 in Z
        buy  C 1 @ 100 in Z
        sell A 1 @ 100 in Z
        buy  B 1 @ 100 in Z
        sell A 1 @ 100 in Z
        expect house 0, B rebate 1000, C rebate 1000
        sell A 1 @ 150 in Z
        buy  B 1 @ 150 in Z
        expect house 1500, A rebate 1500
        cycle                     -> rebate 1500 A, cycle 1
        expect house 0, B rebate 1000, C rebate 1000, A rebate 0
        sell A 1 @ 150 in Z
        buy  C 1 @ 150 in Z       -> new, trade
        cycle                     -> rebate 1500 A, cycle 2
    """)
