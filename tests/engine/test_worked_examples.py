"""The worked examples of the market design, in its own figures.

8 lots of 8 GPUs for an hour at 2,600 ticks of 0.001 USD: 166,400,000 micros; taker fee 5 bps, maker rebate 2 bps, bond
25 % of the reference notional.
"""

import pytest

from tests.tables import TERMS, check

TICK_MICROS, GPUS_PER_LOT, HOURS = 1_000, 8, 1


def test_the_terms_are_those_of_the_examples() -> None:
    assert TERMS["lot_tick_micros"] == TICK_MICROS * GPUS_PER_LOT * HOURS
    assert (TERMS["taker_fee_ppm"], TERMS["maker_rebate_ppm"], TERMS["bond_ppm"]) == (500, 200, 250_000)


@pytest.mark.parametrize(
    ("price", "lots", "notional", "fee", "rebate"),
    [(2_600, 8, 166_400_000, 83_200, 33_280), (2_613, 3, 62_712_000, 31_356, 12_542)],
)
def test_notional_fee_and_rebate(price: int, lots: int, notional: int, fee: int, rebate: int) -> None:
    check(f"""
        open B
        deposit B 1_000_000_000
        sell A {lots} @ {price}
        buy  B {lots} @ {price} ->
            new held {notional + fee + lots}, trade fee {fee} escrow {notional} held {notional + fee + lots}
        expect B cash {1_000_000_000 - notional - fee}, B held 0, A rebate {rebate}, house {fee}
        cycle                    -> rebate {rebate} A fees -{rebate}, cycle 1
        expect house {fee - rebate}, A rebate 0
    """)


def test_hold_is_limit_times_quantity_the_fee_and_a_micro_for_each_lot() -> None:
    check("""
        open B
        deposit B 166_483_207
        buy B 8 @ 2600 -> rejected INSUFFICIENT_FUNDS
        deposit B 1
        buy B 8 @ 2600 -> new held 166483208
        expect B cash 0, B held 166_483_208
    """)


def test_full_performance() -> None:
    """Nomination, sale, gate, delivery and cycle: the provider ends with the price, the house with fee less rebate."""
    check("""
        open P
        open B
        deposit P 41_600_000
        deposit B 166_483_208
        nominate P 8             -> nominated 8 cash -41600000 bond 41600000
        sell P 8 @ 2600
        buy  B 8 @ 2600          -> new, trade 8 @ 2600 fee 83200 fee_due 0 escrow 166400000
        expect P cash 0, P bond 41_600_000, P escrow 166_400_000, B cash 8, B net 8, P net -8
        close X                  -> closed, due 8 B, due -8 P escrow 166400000 fees_due 0
        deliver P B 8            -> delivered 8 P with B cash 208000000 contra_cash 0 escrow -166400000 bond -41600000
        expect P cash 208_000_000, B cash 8, P net 0, B net 0, P escrow 0, P bond 0
        cycle                    -> rebate 33280 P, cycle 1
        delist X
        expect P cash 208_033_280, house 49_920
    """)


def test_full_performance_of_a_provider_that_took() -> None:
    """The fee of a short sale is deferred, so that escrow stays whole, and taken at payout."""
    check("""
        open P
        open B
        deposit P 41_600_000
        deposit B 166_483_208
        nominate P 8
        buy  B 8 @ 2600          -> new held 166483208
        sell P 8 @ 2600          -> new, trade 8 @ 2600 fee 83200 fee_due 83200 escrow 166400000 held 166483208
        expect P escrow 166_400_000, P fees_due 83_200, P cash 0, B cash 83_208, house 0
        cycle                    -> cycle 1      # nothing collected, so no rebate can be paid
        close X                  -> closed, due 8 B, due -8 P fees_due 83200
        deliver P B 8            -> delivered cash 207916800 fees 83200 fees_due -83200 shortfall 0
        cycle                    -> rebate 33280 B, cycle 2
        expect house 49_920, P cash 207_916_800, B cash 116_488
    """)


@pytest.mark.parametrize(
    ("credited", "base", "refund", "damages"),
    [
        (465, 161_200_000, 5_200_000, 300_000 + 436_800),
        (480, 166_400_000, 0, 0),
        (478, 165_706_666, 693_334, 0),
        (477, 165_360_000, 1_040_000, 60_000 + 20_800),
    ],
)
def test_partial_performance(credited: int, base: int, refund: int, damages: int) -> None:
    """What settlement works out from the meter is what the engine pays: 480 lot-minutes were sold, `credited` delivered."""
    assert base == 166_400_000 * credited // 480 and base + refund == 166_400_000
    net, back = base - damages, refund + damages
    check(f"""
        open P
        deposit P 41_600_000
        nominate P 8
        sell P 8 @ 2600
        buy  B 8 @ 2600
        close X
        deliver P B 8 refund {refund} damages {damages} ->
            delivered cash {net + 41_600_000} contra_cash {back} shortfall 0
        expect P cash {net + 41_600_000}
    """)
    if credited == 465:
        assert (net, back) == (160_463_200, 5_936_800)


def test_nothing_delivered() -> None:
    """Cover at 3,100 costs the defaulter 32,000,000 and 15 % of the notional; the bond has 41,600,000 of it."""
    charge = 32_000_000 + 24_960_000
    assert charge == 56_960_000
    check(f"""
        open P
        deposit P 41_600_000
        nominate P 8
        sell P 8 @ 2600
        buy  B 8 @ 2600
        close X
        deliver P B 8 refund 166400000 damages {charge} ->
            delivered cash 0 contra_cash 208000000 damages 41600000 shortfall 15360000
        expect P cash 0, P bond 0
    """)
