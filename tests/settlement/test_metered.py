"""Metered delivery through the real engine: what a report is worth in money, deadlines, restarts, tickets, the inbox."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from engine.catalogue import NS
from engine.types import TRANSFER, Kind, Side
from settlement.inbox import LOOK_EVERY_NS
from settlement.meter import MeterError, Refusal, Sample, Writer
from settlement.performance import PPM
from settlement.service import Settlement
from settlement.tickets import SignedTicket, TicketError, check_ticket
from settlement.verify import verify
from tests.settlement.flow import CATALOGUE, START_NS, Venue, command, listing, open_account, order, transfer

START_S = START_NS // NS + 7200
END_NS = (START_S + 3600) * NS
DEADLINE_NS = END_NS + 900 * NS
SYMBOL = "H100S-USE-1"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ENERGY_MJ = 10_200 * 60 * 700
INDEX = 2750


def minute(lot: int, number: int, performance_ppm: int = PPM) -> Sample:
    return Sample(lot, number, True, performance_ppm, ENERGY_MJ, PPM)


def hour(lots: int, slow: int = 0, without: tuple[int, int] = (0, 0)) -> list[Sample]:
    """Every minute of every lot; the lot `slow` at 90 %; of another lot so many minutes are missing from the middle."""
    lot_down, down = without
    return [
        minute(lot, number, 900_000 if slow and lot == slow else PPM)
        for lot in range(lots)
        for number in range(60)
        if not (lot == lot_down and 10 <= number < 10 + down)
    ]


def closed_hour(venue: Venue, receivers: tuple[tuple[int, int], ...] = ((2, 8),), reference: int = INDEX) -> None:
    """Provider 1 sold lots at 2600; its meter is registered."""
    venue.send(*(open_account(account) for account in (1, 2, 3)), listing(1, reference_price=reference))
    venue.send(*(transfer(Kind.DEPOSIT, account, amount_micros=10**9) for account in (1, 2, 3)))
    lots = sum(part for _, part in receivers)
    venue.send(transfer(Kind.NOMINATE, 1, instrument=1, lots=lots), order(1, 1, Side.SELL, 2600, lots))
    venue.send(*(order(account, 1, Side.BUY, 2600, part) for account, part in receivers))
    venue.send(command(Kind.CLOSE, instrument=1))
    venue.settlement.books.metering.register(1, KEY.public_key().public_bytes_raw())


@pytest.fixture
def closed(venue: Venue) -> Venue:
    closed_hour(venue)
    return venue


def asked(commands: NDArray[Any]) -> list[tuple[int, ...]]:
    """(receiver, lots, refund, damages) of the DELIVER commands among some."""
    rows = commands.view(TRANSFER)[commands["kind"] == Kind.DELIVER]
    return [tuple(row) for row in rows[["contra_account", "lots", "refund_micros", "damages_micros"]].tolist()]


def cash(venue: Venue, account: int) -> int:
    return int(venue.engine.dump()["accounts"][account][0])


WORKED = [
    (hour(8, slow=7, without=(3, 9)), (5_200_000, 736_800)),
    (hour(8), (0, 0)),
    (hour(8, without=(0, 2)), (693_334, 0)),
    (hour(8, without=(0, 3)), (1_040_000, 80_800)),
]


@pytest.mark.parametrize(("samples", "sums"), WORKED)
def test_the_worked_figures(closed: Venue, samples: list[Sample], sums: tuple[int, int]) -> None:
    before = cash(closed, 1), cash(closed, 2)
    fee = closed.engine.dump()["positions"][1, 1][5]
    assert closed.settlement.report(Writer(KEY, 1, SYMBOL).report(samples), END_NS) == len(samples)
    assert asked(closed.deliver(END_NS)) == [(2, 8, *sums)]
    bond = 2750 * 8000 * 8 // 4
    assert cash(closed, 1) - before[0] == 166_400_000 - sum(sums) - fee + bond
    assert cash(closed, 2) - before[1] == sum(sums)
    closed.deliver()
    closed.send(command(Kind.CLOSE_CYCLE))
    assert verify(closed.settlement.books, closed.engine.dump()) == []


def test_a_chain_that_is_not_at_its_end_waits_for_the_deadline(closed: Venue) -> None:
    data = Writer(KEY, 1, SYMBOL).report([row for row in hour(8) if row.lot or row.minute < 57])
    closed.settlement.report(data, END_NS)
    assert len(closed.settlement.due(DEADLINE_NS)) == 0
    assert asked(closed.settlement.due(DEADLINE_NS + 1)) == [(2, 8, 1_040_000, 80_800)]


def test_nothing_credited_is_a_default_and_the_bond_pays_what_it_can(venue: Venue) -> None:
    closed_hour(venue, reference=3100)
    before = cash(venue, 2)
    due = venue.deliver(DEADLINE_NS + 1)
    assert asked(due) == [(2, 8, 166_400_000, 56_960_000)]
    bond = 3100 * 8000 * 8 // 4
    fee = 0  # the provider was the maker
    taken = min(56_960_000, bond - fee)
    assert cash(venue, 2) - before == 166_400_000 + taken
    row = venue.settlement.books.database.one("SELECT refund_micros, damages_micros, shortfall_micros FROM deliveries")
    assert row == (166_400_000, taken, 56_960_000 - taken)
    venue.deliver()
    assert verify(venue.settlement.books, venue.engine.dump()) == []


def test_each_receiver_is_served_by_the_lots_on_its_ticket(venue: Venue) -> None:
    closed_hour(venue, receivers=((2, 3), (3, 5)))
    venue.settlement.report(Writer(KEY, 1, SYMBOL).report(hour(8, without=(3, 30))), END_NS)
    (served, hurt) = asked(venue.settlement.due(END_NS))
    assert served == (2, 3, 0, 0)
    notional = 2600 * 8000 * 5
    assert hurt[:3] == (3, 5, notional // 10)
    assert hurt[3] == 150 * 8000 * 5 // 10 + notional * 95 // 1000 // 10


def test_a_provider_without_a_meter_performs_fully(venue: Venue) -> None:
    closed_hour(venue)
    venue.settlement.books.metering.config_path.unlink()
    assert asked(venue.settlement.due(END_NS)) == [(2, 8, 0, 0)]
    assert_refused(venue, Writer(KEY, 1, SYMBOL).report([minute(0, 0)]), END_NS, Refusal.NOT_DUE)


def assert_refused(venue: Venue, data: bytes, now_ns: int, code: Refusal, account: int | None = None) -> None:
    with pytest.raises(MeterError) as caught:
        venue.settlement.report(data, now_ns, account)
    assert caught.value.code == code


def test_reports_that_are_not_taken(closed: Venue) -> None:
    agent = Writer(KEY, 1, SYMBOL)
    good = agent.report([minute(0, 0)])
    assert_refused(closed, good, DEADLINE_NS + 1, Refusal.LATE)
    assert_refused(closed, good, START_S * NS, Refusal.NOT_YET)
    assert_refused(closed, good, END_NS, Refusal.NOT_DUE, account=2)
    assert_refused(closed, Writer(KEY, 2, SYMBOL).report([minute(0, 0)]), END_NS, Refusal.NOT_DUE)
    assert_refused(closed, Writer(KEY, 1, "OTHER").report([minute(0, 0)]), END_NS, Refusal.NOT_DUE)
    assert_refused(closed, Writer(KEY, 1, SYMBOL).report([minute(8, 0)]), END_NS, Refusal.WRONG_LOT)
    closed.settlement.report(good, END_NS, account=1)
    assert_refused(closed, good, END_NS, Refusal.REPLAYED)
    closed.deliver(DEADLINE_NS + 1)
    assert_refused(closed, agent.report([minute(0, 1)]), END_NS, Refusal.NOT_DUE)


def reopen(venue: Venue) -> None:
    venue.settlement.close()
    venue.settlement = Settlement(venue.directory, CATALOGUE)


def test_a_restart_keeps_the_chains(closed: Venue) -> None:
    agent, samples = Writer(KEY, 1, SYMBOL), hour(8)
    first = agent.report(samples[:100])
    closed.settlement.report(first, END_NS)
    reopen(closed)
    assert_refused(closed, first, END_NS, Refusal.REPLAYED)
    closed.settlement.report(agent.report(samples[100:]), END_NS)
    reopen(closed)
    assert asked(closed.settlement.due(END_NS)) == [(2, 8, 0, 0)]


def reports_path(venue: Venue) -> Path:
    asset = venue.settlement.books.deliveries.open()[0][0]
    return venue.settlement.books.metering.reports_path(asset, 1)


@pytest.mark.parametrize("torn", [1, 3, 4, 100])
def test_a_torn_report_is_as_if_it_had_not_come(closed: Venue, torn: int) -> None:
    agent = Writer(KEY, 1, SYMBOL)
    first, second = agent.report(hour(8)[:60]), agent.report(hour(8)[60:])
    closed.settlement.report(first, END_NS)
    path = reports_path(closed)
    path.write_bytes(path.read_bytes() + (len(second).to_bytes(4, "little") + second)[:torn])
    reopen(closed)
    closed.settlement.report(second, END_NS)
    reopen(closed)
    assert asked(closed.settlement.due(END_NS)) == [(2, 8, 0, 0)]


def test_damaged_evidence_holds_the_listing_and_shows(closed: Venue) -> None:
    closed.settlement.report(Writer(KEY, 1, SYMBOL).report(hour(8)), END_NS)
    path = reports_path(closed)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    reopen(closed)
    assert len(closed.settlement.due(END_NS)) == 0


def test_evidence_changed_after_payment_is_found(closed: Venue) -> None:
    closed.settlement.report(Writer(KEY, 1, SYMBOL).report(hour(8, without=(3, 9))), END_NS)
    path = reports_path(closed)
    closed.deliver(END_NS)
    assert verify(closed.settlement.books, closed.engine.dump()) == []
    data = Writer(KEY, 1, SYMBOL).report(hour(8))
    path.write_bytes(len(data).to_bytes(4, "little") + data)
    found = verify(closed.settlement.books, closed.engine.dump())
    assert [row.what for row in found] == ["delivery against the meter"]


def test_both_sides_have_the_same_signed_ticket(venue: Venue) -> None:
    closed_hour(venue, receivers=((2, 3), (3, 5)))
    mine, second, third = (venue.settlement.tickets(account) for account in (1, 2, 3))
    assert mine == [*second, *third]
    (signed,) = third
    ticket = check_ticket(signed, venue.settlement.public_key)
    assert (ticket.provider, ticket.receiver, ticket.first_lot, ticket.lots) == (1, 3, 3, 5)
    assert (ticket.symbol, ticket.start_s, ticket.end_s) == (SYMBOL, START_S, START_S + 3600)
    forged = SignedTicket(signed.ticket.replace('"lots":5', '"lots":6'), signed.signature)
    for bad, key in ((forged, venue.settlement.public_key), (signed, KEY.public_key().public_bytes_raw())):
        with pytest.raises(TicketError):
            check_ticket(bad, key)
    reopen(venue)
    assert venue.settlement.tickets(3) == third
    venue.deliver(DEADLINE_NS + 1)
    assert venue.settlement.tickets(3) == third
    venue.deliver(DEADLINE_NS + 1)
    assert venue.settlement.tickets(3) == []
    assert (venue.directory / "exchange.key").stat().st_mode & 0o077 == 0


def test_reports_through_the_inbox(closed: Venue) -> None:
    inbox, agent = closed.directory / "inbox", Writer(KEY, 1, SYMBOL)
    first = agent.report(hour(8)[:60])
    (inbox / "a.report").write_bytes(first)
    (inbox / "b.report").write_bytes(agent.report(hour(8)[60:]))
    (inbox / "c.report").write_bytes(b"nonsense")
    (inbox / "d.report").write_bytes(first)
    assert asked(closed.settlement.due(END_NS)) == [(2, 8, 0, 0)]
    assert sorted(path.name for path in inbox.iterdir()) == ["refused"]
    assert (inbox / "refused" / "c.txt").read_text().startswith("BAD_REPORT")
    (inbox / "e.report").write_bytes(b"later")
    closed.settlement.due(END_NS + LOOK_EVERY_NS - 1)
    assert (inbox / "e.report").exists()
    closed.settlement.due(END_NS + LOOK_EVERY_NS)
    assert not (inbox / "e.report").exists()


def test_the_deadline_is_the_operators(closed: Venue) -> None:
    path = closed.settlement.books.metering.config_path
    config = msgspec.json.decode(path.read_bytes())
    path.unlink()
    path.write_bytes(msgspec.json.encode(config | {"deadline_s": 60}))
    assert len(closed.settlement.due(END_NS + 60 * NS)) == 0
    assert len(asked(closed.settlement.due(END_NS + 60 * NS + 1))) == 1


def test_a_key_is_checked_when_it_is_registered(closed: Venue) -> None:
    metering = closed.settlement.books.metering
    with pytest.raises(ValueError, match="key of 31 bytes"):
        metering.register(1, bytes(31))
    with pytest.raises(ValueError, match="account 0"):
        metering.register(0, bytes(32))
    metering.register(1, bytes(np.arange(32, dtype=np.uint8)))
    assert len(metering.keys_of(1)) == 2
    assert metering.keys_of(2) == ()
