from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import EVENT, EventKind
from settlement.batches import Batches
from settlement.netting import Nets, Payments, Sums, audited_nets, gross, ledger_nets, net, payments_of
from settlement.registry import Terms
from settlement.service import Settlement
from tests.settlement.flow import CATALOGUE, recorded

Row = tuple[int, int, int]


def payments(rows: list[Row]) -> Payments:
    return Payments(*np.array(rows, np.int64).reshape(-1, 3).T)


def nets(rows: list[Row]) -> dict[int, int]:
    accounts, amounts = net(payments(rows))
    return {account: amount for account, amount in zip(accounts.tolist(), amounts.tolist(), strict=True) if amount}


def test_the_worked_example() -> None:
    a, b, c = 1, 2, 3
    rows = [(a, b, 166_400_000), (b, c, 120_000_000), (c, a, 90_000_000), (a, c, 20_000_000)]
    assert nets(rows) == {a: -96_400_000, b: 46_400_000, c: 50_000_000}
    result = Nets({account: Sums(amount, 0) for account, amount in nets(rows).items()}, gross(payments(rows)))
    assert (result.gross_micros, result.debits_micros) == (396_400_000, 96_400_000)
    assert result.efficiency_ppm == 756_811


def test_nothing_nets_to_nothing() -> None:
    assert nets([]) == {}
    assert gross(payments([])) == 0
    assert Nets({}, 0).efficiency_ppm == 0


rows_of_payments = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 10**18)), max_size=40)


@given(rows_of_payments, st.randoms(use_true_random=False))
def test_nets_sum_to_zero_and_order_does_not_matter(rows: list[Row], random: Any) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    # Whole numbers: what a member owes may exceed what an int64 holds here, but never in a book that has custody of it.
    rows = [(payer, payee, amount // 100) for payer, payee, amount in rows]
    shuffled = [(payer, payee, amount // 100) for payer, payee, amount in shuffled]
    assert sum(nets(rows).values()) == 0
    assert nets(shuffled) == nets(rows)
    assert gross(payments(shuffled)) == gross(payments(rows)) == sum(amount for a, b, amount in rows if a != b)


@given(rows_of_payments, st.data())
def test_splitting_a_payment_does_not_matter(rows: list[Row], data: st.DataObject) -> None:
    rows = [(payer, payee, amount // 100) for payer, payee, amount in rows]
    split = []
    for payer, payee, amount in rows:
        part = data.draw(st.integers(0, amount))
        split += [(payer, payee, part), (payer, payee, amount - part)]
    assert nets(split) == nets(rows)
    assert gross(payments(split)) == gross(payments(rows))


def test_the_gross_value_may_exceed_what_an_int64_holds() -> None:
    assert gross(payments([(1, 2, 2**62), (2, 1, 2**62), (1, 2, 2**62)])) == 3 * 2**62


def test_trades_split_and_permuted_net_alike() -> None:
    """A trade of five lots, and the same as three and two in the other order."""

    def trades(*rows: tuple[int, int, int, int]) -> dict[int, int]:
        events = np.zeros(len(rows), EVENT)
        events["kind"] = EventKind.TRADE
        for at, (buyer, seller, price, qty) in enumerate(rows):
            events[["account", "contra_account", "price", "qty"]][at] = (buyer, seller, price, qty)
        paid = payments_of(events, Terms(np.ones(len(rows), np.int64), np.full(len(rows), 8000)))
        return nets(list(zip(*(column.tolist() for column in paid), strict=True)))

    whole = trades((1, 2, 2600, 5), (3, 1, 2500, 4))
    assert whole == {1: -2600 * 40_000 + 2500 * 32_000, 2: 2600 * 40_000, 3: -2500 * 32_000}
    assert trades((3, 1, 2500, 4), (1, 2, 2600, 2), (1, 2, 2600, 3)) == whole


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ledger_and_events_agree_and_explain_the_change_of_balances(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = recorded(seed, 60)
    by_events: list[Nets] = []
    open_batch = Batches.open

    def spy(self: Batches, closed: Any, sums: Any, ledger: Any) -> None:
        rows = sums._database.rows("SELECT account, net_micros, external_micros FROM cycle_sums")
        (total,) = sums._database.one("SELECT gross_micros FROM cycle_gross")
        by_events.append(Nets({row[0]: Sums(*row[1:]) for row in rows if any(row[1:])}, total))
        open_batch(self, closed, sums, ledger)

    monkeypatch.setattr(Batches, "open", spy)
    settlement = Settlement(tmp_path, CATALOGUE)
    settlement.on_batch(log.commands, log.events)
    books, before = settlement.books, dict.fromkeys(range(10), 0)
    for batch, events in zip(books.batches.all(), by_events, strict=True):
        nets = audited_nets(books.ledger, (batch.from_seq, batch.to_seq))
        assert nets == events
        assert ledger_nets(books.database, books.ledger, batch.cycle, (batch.from_seq, batch.to_seq)) == nets.sums
        assert batch.gross_micros == nets.gross_micros
        assert sum(row.net_micros for row in nets.sums.values()) == 0
        after = dict.fromkeys(range(10), 0)
        for (asset, account), amount in books.ledger.balances(at_seq=batch.to_seq).items():
            if asset == 0 and not 8 <= account < 16:
                after[account >> 4] += amount
        for account in range(7):
            assert after[account] - before[account] == sum(nets.sums.get(account, Sums(0, 0)))
        before = after
    assert len(by_events) > 2
    settlement.close()
