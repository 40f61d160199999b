"""Every kind of event as transfers, with figures by hand, and against the real engine over whole lives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.engine import Engine
from engine.state import Limits
from engine.types import EVENT, EventKind, Kind, Side
from settlement.accounts import account_text
from settlement.ledger import Code
from settlement.posting import _RULES, PLAIN_KINDS, PostingError, post
from settlement.registry import Terms
from settlement.service import Settlement
from settlement.verify import against_engine
from tests.settlement.flow import CATALOGUE, Venue, command, listing, open_account, order, recorded, transfer

Row = tuple[str, str, str, int]


def rows_of(venue: Venue, seq: int) -> list[Row]:
    """(code, from, to, amount) of a command; lots are marked by their code."""
    rows = next(iter(venue.settlement.books.ledger.transfers(seq, seq)), np.zeros(0, EVENT))
    if not len(rows):
        return []
    columns = zip(
        *(rows[name].tolist() for name in ("code", "debit_account", "credit_account", "amount_micros")), strict=True
    )
    return [
        (Code(code).name, account_text(debit), account_text(credit), amount) for code, debit, credit, amount in columns
    ]


def last_rows(venue: Venue) -> list[Row]:
    return rows_of(venue, venue.engine.applied_seq)


@pytest.fixture
def market(venue: Venue) -> Venue:
    """Provider 1 with 20 lots certified, buyers 2 and 3; instrument 1 at the terms of the worked example."""
    venue.send(*(open_account(account) for account in (1, 2, 3)))
    venue.send(*(transfer(Kind.DEPOSIT, account, amount_micros=10**9) for account in (1, 2, 3)))
    venue.send(listing(1))
    venue.send(transfer(Kind.NOMINATE, 1, instrument=1, lots=10))
    return venue


def test_deposit_withdrawal_and_bond(market: Venue) -> None:
    assert last_rows(market) == [("BOND", "1.available", "1.bond", 52_000_000)]
    market.send(transfer(Kind.DEPOSIT, 2, amount_micros=5))
    assert last_rows(market) == [("DEPOSIT", "house.custody", "2.available", 5)]
    market.send(transfer(Kind.WITHDRAW, 2, amount_micros=7))
    assert last_rows(market) == [("WITHDRAWAL", "2.available", "house.custody", 7)]


def test_an_order_holds_and_gives_back(market: Venue) -> None:
    events = market.send(order(2, 1, Side.BUY, 2600, 8))
    held = 166_400_000 + 83_200 + 8
    assert last_rows(market) == [("HOLD", "2.available", "2.held", held)]
    order_id = int(events["order_id"][0])
    market.send(command(Kind.AMEND, account=2, order_id=order_id, price=-1, qty=4))
    assert last_rows(market) == [("RELEASE", "2.held", "2.available", held // 2)]
    market.send(command(Kind.CANCEL, account=2, order_id=order_id))
    assert last_rows(market) == [("RELEASE", "2.held", "2.available", held // 2)]


def test_a_sale_of_lots_not_owned_goes_to_escrow_and_a_buying_taker_pays_the_fee(market: Venue) -> None:
    market.send(order(1, 1, Side.SELL, 2600, 8))
    assert last_rows(market) == []
    market.send(order(2, 1, Side.BUY, 2610, 8))
    held = 2610 * 64_000 + 83_520 + 8
    assert last_rows(market) == [
        ("HOLD", "2.available", "2.held", held),
        ("TRADE", "2.held", "1.escrow", 166_400_000),
        ("TAKER_FEE", "2.held", "house.fees", 83_200),
        ("RELEASE", "2.held", "2.available", held - 166_400_000 - 83_200),
        ("TRADE_LOTS", "1.available", "2.available", 8),
    ]


def test_an_owner_that_sells_as_taker_pays_from_what_it_gets_and_the_short_part_owes_the_fee(market: Venue) -> None:
    market.send(order(1, 1, Side.SELL, 2600, 2), order(2, 1, Side.BUY, 2600, 2))
    market.send(transfer(Kind.NOMINATE, 2, instrument=1, lots=5), order(3, 1, Side.BUY, 2600, 4))
    # Two of the four lots close what 2 has, two open a short: its fee of 20,800 on those is owed, not paid.
    market.send(order(2, 1, Side.SELL, 2600, 4))
    assert last_rows(market) == [
        ("TRADE", "3.held", "2.available", 41_600_000),
        ("TRADE", "3.held", "2.escrow", 41_600_000),
        ("RELEASE", "3.held", "3.available", 41_600 + 4),
        ("TAKER_FEE", "2.available", "house.fees", 20_800),
        ("TRADE_LOTS", "2.available", "3.available", 4),
    ]
    # Bought back at a lower price: half of escrow and of the owed fee are released.
    market.send(order(1, 1, Side.SELL, 2500, 1), order(2, 1, Side.BUY, 2500, 1))
    assert last_rows(market)[1:] == [
        ("TRADE", "2.held", "1.escrow", 20_000_000),
        ("TAKER_FEE", "2.held", "house.fees", 10_000),
        ("RELEASE", "2.held", "2.available", 1),
        ("DUE_FEE", "2.escrow", "house.fees", 10_400),
        ("ESCROW_RELEASE", "2.escrow", "2.available", 20_789_600),
        ("TRADE_LOTS", "1.available", "2.available", 1),
    ]


def test_an_account_that_trades_with_itself_moves_no_lots(market: Venue) -> None:
    market.send(order(1, 1, Side.SELL, 2600, 1), order(1, 1, Side.BUY, 2600, 1))
    assert "TRADE_LOTS" not in [row[0] for row in last_rows(market)]
    assert against_engine(market.settlement.books, market.engine.dump()) == []


def test_gate_delivery_and_rebate(market: Venue) -> None:
    market.send(order(2, 1, Side.BUY, 2600, 8))
    market.send(order(1, 1, Side.SELL, 2600, 8))
    market.send(transfer(Kind.NOMINATE, 3, instrument=1, lots=1))
    market.send(command(Kind.CLOSE, instrument=1))
    assert last_rows(market) == [("BOND_RELEASE", "3.bond", "3.available", 5_200_000)]
    fields = dict(contra_account=2, instrument=1, lots=8, refund_micros=5_200_000, damages_micros=736_800)
    market.send(transfer(Kind.DELIVER, 1, **fields))
    assert last_rows(market) == [
        ("DELIVERY_REFUND", "1.escrow", "2.available", 5_200_000),
        ("DELIVERY_PAY", "1.escrow", "1.available", 161_200_000),
        ("BOND_RELEASE", "1.bond", "1.available", 52_000_000),
        ("DUE_FEE", "1.available", "house.fees", 83_200),
        ("DELIVERY_DAMAGES", "1.available", "2.available", 736_800),
        ("DELIVERY_LOTS", "2.available", "1.available", 8),
    ]
    market.send(command(Kind.CLOSE_CYCLE))
    assert last_rows(market) == [("REBATE", "house.fees", "2.available", 33_280)]
    assert against_engine(market.settlement.books, market.engine.dump()) == []


def test_refused_commands_and_ticks_move_nothing(market: Venue) -> None:
    for refused in (transfer(Kind.WITHDRAW, 1, amount_micros=10**12), order(2, 9, Side.BUY, 1, 1), command(Kind.TICK)):
        market.send(refused)
        assert last_rows(market) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_the_ledger_equals_the_engine_after_every_command(tmp_path: Path, seed: int) -> None:
    log = recorded(seed, 25)
    engine = Engine(Limits(max_accounts=64, max_instruments=64))
    settlement = Settlement(tmp_path, CATALOGUE)
    for seq in range(1, len(log) + 1):
        commands, _ = log.cut(seq, seq)
        settlement.on_batch(commands, engine.apply(commands))
        assert against_engine(settlement.books, engine.dump()) == []
    assert settlement.books.ledger.verify() == []
    settlement.close()


def test_a_recorded_life_has_every_kind_of_event_that_is_posted() -> None:
    """What the tests above rest on: a flow that never delivers or pays a rebate would prove little."""
    kinds = {int(kind) for seed in (1, 2) for kind in recorded(seed, 60).events["kind"]}
    assert kinds >= {*map(int, PLAIN_KINDS), *(int(kind) for rule_kinds, _ in _RULES for kind in rule_kinds)}


def test_an_amount_below_zero_is_refused_with_its_command() -> None:
    events: Any = np.zeros(1, EVENT)
    events["kind"], events["command_seq"], events["account"], events["qty"] = EventKind.TRADE, 9, 1, 1
    events["price"], events["contra_account"], events["held_micros"] = 5, 2, 4
    terms = Terms(np.ones(1, np.int64), np.ones(1, np.int64))
    with pytest.raises(PostingError, match="RELEASE of -1 micros in the event of command 9"):
        post(command(Kind.NEW_ORDER, seq=9), events, terms)
