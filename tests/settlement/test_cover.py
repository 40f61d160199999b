"""A provider delivers nothing: the house buys the lots in the market, and the receiver has them, at the defaulter's cost."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from engine.catalogue import NS, pack_id
from engine.types import TRANSFER, Flag, Kind, Side
from settlement.accounts import STABLECOIN, Role, user_account
from settlement.cover import NAME, Run
from settlement.meter import Writer
from settlement.service import Settlement
from settlement.tickets import Ticket
from settlement.verify import verify
from tests.settlement.flow import CATALOGUE, START_NS, Venue, command, cuts, listing, open_account, order, transfer
from tests.settlement.test_metered import DEADLINE_NS, KEY, hour

PROVIDER, RECEIVER, SELLER, HOUSE, OTHER = 1, 2, 3, 4, 5
PRICE = 2_600 * 8_000
NOTIONAL = 8 * PRICE
INDEX = 3_000
LATER_S = START_NS // NS + 7200 + 4 * 3600
KEY_3 = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"3")


def begin(venue: Venue, house_micros: int = 10**10, receivers: tuple[tuple[int, int], ...] = ((RECEIVER, 8),)) -> None:
    """Provider 1 sold eight lots and will report nothing; a later hour of the market trades."""
    names = {HOUSE: NAME}
    venue.send(*(open_account(account, names.get(account, "")) for account in range(1, 6)))
    venue.send(*(transfer(Kind.DEPOSIT, account, amount_micros=10**10) for account in (1, 2, 3, 5)))
    venue.send(transfer(Kind.DEPOSIT, HOUSE, amount_micros=house_micros), listing(1, reference_price=INDEX))
    later = {"start_s": LATER_S, "gate_ns": (LATER_S - 900) * NS}
    venue.send(listing(2, **later), listing(3, class_id=2, **later), listing(4, region_id=2, **later))
    venue.send(transfer(Kind.NOMINATE, PROVIDER, instrument=1, lots=8), order(PROVIDER, 1, Side.SELL, 2_600, 8))
    venue.send(*(order(account, 1, Side.BUY, 2_600, lots) for account, lots in receivers))
    venue.send(command(Kind.CLOSE, instrument=1))
    venue.settlement.books.metering.register(PROVIDER, KEY.public_key().public_bytes_raw())


def offer(venue: Venue, price: int, lots: int, instrument: int = 2) -> None:
    venue.send(transfer(Kind.NOMINATE, SELLER, instrument=instrument, lots=lots))
    venue.send(order(SELLER, instrument, Side.SELL, price, lots))


@pytest.fixture
def defaulted(venue: Venue) -> Venue:
    begin(venue)
    return venue


def cash(venue: Venue, account: int) -> int:
    return int(venue.engine.dump()["accounts"][account][0])


def settle(venue: Venue) -> list[int]:
    """All that settlement asks for, step by step; the kinds."""
    kinds = []
    while len(due := venue.deliver(DEADLINE_NS + 1)):
        kinds += due["kind"].tolist()
    assert verify(venue.settlement.books, venue.engine.dump()) == []
    return kinds


def with_fee(value: int) -> int:
    return value + -(-value * 500 // 10**6)


def test_what_was_not_delivered_is_bought_at_the_defaulters_cost(defaulted: Venue) -> None:
    offer(defaulted, 2_800, 20)
    before = {account: cash(defaulted, account) for account in (PROVIDER, RECEIVER, HOUSE)}
    kinds = [Kind.NEW_ORDER, Kind.DELIVER, Kind.TRANSFER, Kind.DELIST, Kind.TRANSFER]
    assert sorted(settle(defaulted)) == sorted(kinds)
    cost, penalty = with_fee(8 * 2_800 * 8_000), NOTIONAL * 15 // 100
    bond = INDEX * 8_000 * 8 // 4
    assert defaulted.engine.dump()["positions"][HOUSE, 2][0] == 8
    # The receiver has the lots for what it had agreed to pay, and the penalty; the house is where it was.
    assert cash(defaulted, RECEIVER) - before[RECEIVER] == penalty
    assert cash(defaulted, HOUSE) == before[HOUSE]
    assert cash(defaulted, PROVIDER) - before[PROVIDER] == bond - (cost - NOTIONAL) - penalty
    row = defaulted.settlement.books.database.one(
        "SELECT refund_micros, damages_micros, shortfall_micros FROM deliveries"
    )
    assert row == (NOTIONAL, cost - NOTIONAL + penalty, 0)


def test_cover_below_the_price_leaves_the_receiver_the_difference(defaulted: Venue) -> None:
    offer(defaulted, 2_500, 8)
    before = {account: cash(defaulted, account) for account in (RECEIVER, HOUSE)}
    settle(defaulted)
    cost = with_fee(8 * 2_500 * 8_000)
    assert cash(defaulted, RECEIVER) - before[RECEIVER] == NOTIONAL - cost + NOTIONAL * 15 // 100
    assert cash(defaulted, HOUSE) == before[HOUSE]


def test_lots_that_are_not_to_be_had_are_paid_for_at_the_index(defaulted: Venue) -> None:
    offer(defaulted, 2_800, 3)
    before = {account: cash(defaulted, account) for account in (RECEIVER, HOUSE)}
    settle(defaulted)
    cost = with_fee(3 * 2_800 * 8_000)
    charge = cost + 5 * INDEX * 8_000 - NOTIONAL + NOTIONAL * 15 // 100
    assert cash(defaulted, RECEIVER) - before[RECEIVER] == NOTIONAL + charge - cost
    assert cash(defaulted, HOUSE) == before[HOUSE]


@pytest.mark.parametrize("why", ["dear", "no funds", "no market", "no house"])
def test_without_cover_it_is_settled_in_cash_at_the_index(venue: Venue, why: str) -> None:
    begin(venue, house_micros=10**6 if why == "no funds" else 10**10)
    if why == "no house":
        venue.settlement.books.deliveries.covers.account = 0
    offer(venue, 3_751 if why == "dear" else 2_800, 8, instrument=3 if why == "no market" else 2)
    if why == "no market":
        venue.send(command(Kind.CLOSE, instrument=2))
    before = cash(venue, RECEIVER), cash(venue, HOUSE)
    settle(venue)
    charge = (INDEX * 8_000 * 8 - NOTIONAL) + NOTIONAL * 15 // 100
    bond = INDEX * 8_000 * 8 // 4
    assert cash(venue, RECEIVER) - before[0] == NOTIONAL + min(charge, bond)
    assert cash(venue, HOUSE) == before[1]


def test_a_bond_that_is_too_small_leaves_the_rest_with_the_house(defaulted: Venue) -> None:
    """The receiver never pays more than what it was given."""
    offer(defaulted, 3_750, 8)
    before = cash(defaulted, RECEIVER), cash(defaulted, HOUSE)
    settle(defaulted)
    cost, bond = with_fee(8 * 3_750 * 8_000), INDEX * 8_000 * 8 // 4
    assert cash(defaulted, RECEIVER) == before[0]
    assert cash(defaulted, HOUSE) - before[1] == NOTIONAL + bond - cost < 0


def closed_later(venue: Venue) -> None:
    venue.send(command(Kind.CLOSE, instrument=2))
    venue.settlement.books.metering.register(SELLER, KEY_3.public_key().public_bytes_raw())


def test_the_tickets_of_what_was_bought_are_the_receivers(venue: Venue) -> None:
    begin(venue, receivers=((RECEIVER, 3), (OTHER, 5)))
    offer(venue, 2_800, 20)
    settle(venue)
    venue.send(order(HOUSE, 2, Side.BUY, 2_800, 2))  # lots of its own come last
    closed_later(venue)
    tickets = {account: venue.settlement.tickets(account) for account in (RECEIVER, OTHER, HOUSE, SELLER)}
    said = {
        account: [(one.receiver, one.first_lot, one.lots) for one in map(content, signed)]
        for account, signed in tickets.items()
    }
    assert said == {
        RECEIVER: [(RECEIVER, 0, 3)],
        OTHER: [(OTHER, 3, 5)],
        HOUSE: [(HOUSE, 8, 2)],
        SELLER: [(RECEIVER, 0, 3), (OTHER, 3, 5), (HOUSE, 8, 2)],
    }


def content(signed: Any) -> Ticket:
    return msgspec.json.decode(signed.ticket, type=Ticket)


def test_what_the_house_is_given_back_goes_on_to_the_receivers(venue: Venue) -> None:
    begin(venue, receivers=((RECEIVER, 3), (OTHER, 5)))
    offer(venue, 2_800, 8)
    settle(venue)
    closed_later(venue)
    symbol = venue.settlement.books.registry.listing_of(venue.settlement.books.registry.listed_at(10**9)[2]).symbol
    venue.settlement.report(Writer(KEY_3, SELLER, symbol).report(hour(8, without=(3, 30))), (LATER_S + 3600) * NS)
    before = {account: cash(venue, account) for account in (RECEIVER, OTHER, HOUSE)}
    while len(venue.deliver((LATER_S + 3600) * NS)):
        pass
    gained = {account: cash(venue, account) - before[account] for account in before}
    refund, damages, _ = venue.settlement.books.database.rows(
        "SELECT refund_micros, damages_micros, 0 FROM deliveries WHERE provider = 3"
    )[0]
    back = refund + damages
    assert back > 8_000_000
    assert (gained[HOUSE], gained[RECEIVER] + gained[OTHER]) == (0, back)
    assert abs(gained[RECEIVER] * 5 - gained[OTHER] * 3) <= 8
    assert verify(venue.settlement.books, venue.engine.dump()) == []


def test_any_cut_of_the_log_and_any_restart_leads_to_the_same(venue: Venue, tmp_path: Path) -> None:
    begin(venue, receivers=((RECEIVER, 3), (OTHER, 5)))
    offer(venue, 2_800, 8)
    while True:
        # Killed with everything asked for and nothing in the log, then again and for good.
        venue.settlement.due(DEADLINE_NS + 1)
        venue.settlement.close()
        venue.settlement = Settlement(venue.directory, CATALOGUE)
        if not len(venue.deliver(DEADLINE_NS + 1)):
            break
    assert venue.engine.dump()["positions"][HOUSE, 2][0] == 8
    assert verify(venue.settlement.books, venue.engine.dump()) == []
    log, query = venue.recording(), "SELECT * FROM cover_payments ORDER BY seq"
    paid = venue.settlement.books.database.rows(query)
    assert len(paid) == 4
    assert all(row[-1] == 1 for row in paid)
    for seed in range(3):
        again = Settlement(tmp_path / f"again-{seed}", CATALOGUE)
        for first, last in cuts(len(log), seed, 4):
            again.on_batch(*log.cut(first, last))
        assert again.books.database.rows(query) == paid
        assert again.books.ledger.digest() == venue.settlement.books.ledger.digest()
        again.close()


def test_who_looks_like_the_house_is_not_taken_for_it(defaulted: Venue) -> None:
    """Ids that look like cover, of other accounts or about nothing, change nothing and stop nothing."""
    listing_1 = defaulted.settlement.books.registry.listed_at(10**9)[1]
    fake = dict(flags=Flag.EXTENDED, cl_ord_id=pack_id(f"cover {listing_1} 1 2"))
    offer(defaulted, 2_800, 20)
    defaulted.send(order(OTHER, 2, Side.BUY, 2_800, 1, **fake))
    for text in ("cover 9 1 1 1", "cover 3 1 2 3", "cover x", "cover 999999999999999999999999999999 1 1"):
        row = transfer(Kind.TRANSFER, OTHER, contra_account=HOUSE, amount_micros=5).view(TRANSFER)
        row["external_id"] = pack_id(text)
        defaulted.send(row)
    settle(defaulted)
    assert defaulted.engine.dump()["positions"][HOUSE, 2][0] == 8


LOTS = st.integers(1, 9)


@given(st.lists(st.tuples(st.integers(10, 13), LOTS), max_size=5), st.lists(LOTS, max_size=4))
def test_every_lot_has_one_owner(bought: list[tuple[int, int]], received: list[int]) -> None:
    from settlement.cover import Cover, Covers

    covers = Covers(None, None)  # type: ignore[arg-type]
    covers.account = HOUSE
    covers._covers = {(n, 1, who): Cover(n, 1, who, n, 7, lots, 0) for n, (who, lots) in enumerate(bought)}
    runs = covers.runs(7, [(20 + n, n, lots) for n, lots in enumerate(received)])
    for n, lots in enumerate(received):
        mine = [run for run in runs if run.provider == 20 + n]
        assert np.concatenate([np.arange(run.first_lot, run.first_lot + run.lots) for run in mine]).tolist() == [
            *range(n, n + lots)
        ]
    theirs = sum(run.lots for run in runs if run.member != HOUSE)
    assert theirs == min(sum(received), sum(lots for _, lots in bought))
    assert all(isinstance(run, Run) for run in runs)


def test_the_cover_money_is_where_the_ledger_says(defaulted: Venue) -> None:
    offer(defaulted, 2_800, 8)
    settle(defaulted)
    balances = defaulted.settlement.books.ledger.balances()
    assert balances[STABLECOIN, user_account(HOUSE, Role.AVAILABLE)] == cash(defaulted, HOUSE)
