"""What has ruined other venues, tried here."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.types import EventKind, Kind, Side
from settlement.accounts import FEES, STABLECOIN, user_account
from settlement.ledger import Code
from settlement.service import Settlement
from settlement.verify import verify
from tests.settlement.flow import CATALOGUE, Venue, command, listing, open_account, order, transfer

MONEY_MICROS = 123_456_789


@pytest.mark.parametrize("batch", [1, 7, 1_000])
def test_of_a_thousand_withdrawals_of_the_whole_balance_one_wins(venue: Venue, batch: int) -> None:
    venue.send(open_account(1), open_account(2))
    venue.send(*(transfer(Kind.DEPOSIT, n, amount_micros=MONEY_MICROS) for n in (1, 2)))
    asked = [transfer(Kind.WITHDRAW, 1, amount_micros=MONEY_MICROS) for _ in range(1_000)]
    events = np.concatenate([venue.send(*asked[at : at + batch]) for at in range(0, 1_000, batch)])
    assert (events["kind"] == EventKind.WITHDRAWN).sum() == 1
    assert (events["kind"] == EventKind.REJECTED).sum() == 999
    balances = venue.settlement.books.ledger.balances()
    assert (STABLECOIN, user_account(1)) not in balances
    assert balances[STABLECOIN, user_account(2)] == MONEY_MICROS
    assert verify(venue.settlement.books, venue.engine.dump()) == []


def test_rounding_over_a_hundred_thousand_tiny_operations(tmp_path: Path) -> None:
    """Each fee of a fraction of a micro rounds up, each rebate down: nothing appears, and the house is never short."""
    venue = Venue(tmp_path / "books")
    venue.send(open_account(1), open_account(2), listing(1, lot_tick_micros=7, max_price=9, reference_price=3))
    venue.send(*(transfer(Kind.DEPOSIT, n, amount_micros=10**8) for n in (1, 2)))
    venue.send(transfer(Kind.NOMINATE, 1, instrument=1, lots=60_000))
    sell, buy = order(1, 1, Side.SELL, 3, 1), order(2, 1, Side.BUY, 3, 1)
    pair = np.concatenate([sell, buy])
    for _ in range(10):
        venue.send(*([pair] * 5_000))
    venue.send(command(Kind.CLOSE_CYCLE), command(Kind.CLOSE, instrument=1))
    while len(venue.deliver()):
        pass
    venue.send(command(Kind.CLOSE_CYCLE))
    balances = venue.settlement.books.ledger.balances()
    trades = 50_000
    assert balances[STABLECOIN, user_account(1)] == 10**8 + trades * 21
    assert balances[STABLECOIN, user_account(2)] == 10**8 - trades * 22  # a fee of 0.0105 micros, each time a whole one
    assert balances[STABLECOIN, FEES] == trades
    codes = np.concatenate(
        [rows["code"] for rows in venue.settlement.books.ledger.transfers(1, venue.engine.applied_seq)]
    )
    assert (codes == Code.TRADE).sum() == trades
    assert (codes == Code.REBATE).sum() == 0  # 0.0042 micros each, rounded down each time
    assert verify(venue.settlement.books, venue.engine.dump()) == []
    venue.settlement.close()


def test_a_log_offered_from_an_older_point_pays_nothing_twice(venue: Venue, tmp_path: Path) -> None:
    """A deposit, a trade and a withdrawal replayed in every overlap have one effect."""
    venue.send(open_account(1), open_account(2), listing(1))
    venue.send(*(transfer(Kind.DEPOSIT, n, amount_micros=10**9) for n in (1, 2)))
    venue.send(transfer(Kind.NOMINATE, 1, instrument=1, lots=3), order(1, 1, Side.SELL, 2600, 3))
    venue.send(order(2, 1, Side.BUY, 2600, 3), transfer(Kind.WITHDRAW, 2, amount_micros=10**8))
    log = venue.recording()
    with closing(Settlement(tmp_path / "again", CATALOGUE)) as again:
        for last in range(1, len(log) + 1):
            for first in range(1, last + 1):
                again.on_batch(*log.cut(first, last))
        assert again.books.ledger.digest() == venue.settlement.books.ledger.digest()
