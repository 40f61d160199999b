"""Laws of money over many small or large operations: nothing is made, lost, or depends on the order."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Kind, Side
from settlement.netting import Payments, gross, net
from settlement.performance import largest_remainder
from settlement.verify import verify
from tests.settlement.flow import Venue, command, listing, open_account, order, transfer

TINY = 100_000


def test_the_worked_netting() -> None:
    """A pays B 166.4, B pays C 120, C pays A 90, A pays C 20: 396.4 in all becomes 96.4."""
    a, b, c = 1, 2, 3
    paid = [(a, b, 166_400_000), (b, c, 120_000_000), (c, a, 90_000_000), (a, c, 20_000_000)]
    payments = Payments(*(np.array(column, np.int64) for column in zip(*paid, strict=True)))
    accounts, nets = net(payments)
    assert dict(zip(accounts.tolist(), nets.tolist(), strict=True)) == {a: -96_400_000, b: 46_400_000, c: 50_000_000}
    assert gross(payments) == 396_400_000


rows = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 10**15)), min_size=1, max_size=40)


@given(rows, st.randoms(use_true_random=False), st.integers(1, 10**6))
def test_nets_do_not_change_when_payments_are_shuffled_or_split(
    paid: list[tuple[int, int, int]], pick: object, part: int
) -> None:
    def nets(some: list[tuple[int, int, int]]) -> dict[int, int]:
        columns = Payments(*(np.array(column, np.int64) for column in zip(*some, strict=True)))
        return {n: value for n, value in zip(*(c.tolist() for c in net(columns)), strict=True) if value}

    shuffled = list(paid)
    pick.shuffle(shuffled)  # type: ignore[attr-defined]
    split = [piece for a, b, amount in paid for piece in ((a, b, amount - amount // part), (a, b, amount // part))]
    assert nets(paid) == nets(shuffled) == nets(split)
    assert sum(nets(paid).values()) == 0


def test_a_hundred_thousand_tiny_trades_round_to_nobodys_loss(tmp_path: Path) -> None:
    """A fee of a fraction of a micro-dollar rounds up each time, a rebate down: the house is never short, all adds up."""
    venue = Venue(tmp_path)
    venue.send(*(open_account(n) for n in (1, 2)), listing(1, lot_tick_micros=1, max_price=3_000))
    venue.send(*(transfer(Kind.DEPOSIT, n, amount_micros=10**12) for n in (1, 2)))
    # The certified lots are sold and bought back a lot at a time, at the price of one micro-dollar.
    venue.send(transfer(Kind.NOMINATE, 1, instrument=1, lots=TINY))
    maker = order(1, 1, Side.SELL, 1, TINY)
    takers = np.repeat(order(2, 1, Side.BUY, 1, 1), TINY)
    venue.send(maker)
    for part in np.array_split(takers, 10):
        venue.send(part)
    dump = venue.engine.dump()
    assert dump["house_fees_micros"] == TINY
    assert dump["accounts"][2][0] == 10**12 - 2 * TINY
    venue.send(command(Kind.CLOSE_CYCLE))
    assert venue.engine.dump()["house_fees_micros"] == TINY  # a rebate of less than a micro-dollar is none
    assert verify(venue.settlement.books, venue.engine.dump()) == []
    venue.settlement.close()


def test_a_hundred_thousand_splits_of_less_than_there_are_shares_leave_nothing_behind() -> None:
    total = [0, 0, 0]
    for amount in range(TINY):
        parts = largest_remainder(amount % 7, [7, 5, 3])
        total = [have + part for have, part in zip(total, parts, strict=True)]
    assert sum(total) == sum(amount % 7 for amount in range(TINY))


@pytest.mark.parametrize("batch", [1_000, 77])
def test_a_thousand_transfers_of_the_whole_balance_move_it_once(venue: Venue, batch: int) -> None:
    venue.send(*(open_account(n) for n in (1, 2)), transfer(Kind.DEPOSIT, 1, amount_micros=10**9))
    asked = [transfer(Kind.TRANSFER, 1, contra_account=2, amount_micros=10**9) for _ in range(1_000)]
    for at in range(0, 1_000, batch):
        venue.send(*asked[at : at + batch])
    rows = venue.engine.dump()["accounts"]
    assert (rows[1][0], rows[2][0]) == (0, 10**9)
    assert verify(venue.settlement.books, venue.engine.dump()) == []
