"""What each account gains or pays in a cycle, computed twice by ways that share no code.

A cycle is a stretch of the log, `from_seq` to `to_seq`, that ends with its CLOSE_CYCLE command. The net of an account
is the exact change of its money (cash, holds, escrow and bond together), deposits and withdrawals apart; the house
takes part as account 0.

1. `ledger_nets` takes the difference of the ledger's balances at both ends, less what came from outside; `audited_nets`
   sums all its transfers again, for `verify`.
2. `CycleSums` adds up payments read straight from the events, batch by batch, and knows neither posting nor ledger.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import MONEY, EventKind, Side
from settlement.accounts import FIRST_OUTSIDE, FIRST_USER, HOUSE, ROLE_BITS, STABLECOIN
from settlement.database import Database
from settlement.flows import bodies
from settlement.ledger import Ledger, changes_of, gross_of, group_starts, is_external
from settlement.registry import Terms


class Sums(NamedTuple):
    """Of one account in one cycle."""

    net_micros: int
    external_micros: int  # deposits minus withdrawals


@dataclass(frozen=True, slots=True)
class Nets:
    """A cycle's result. Accounts with two zeros may be missing."""

    sums: Mapping[int, Sums]
    gross_micros: int  # of all payments between two owners

    @property
    def debits_micros(self) -> int:
        """What has to be paid in, in all: as much as is paid out."""
        return sum(-row.net_micros for row in self.sums.values() if row.net_micros < 0)

    @property
    def efficiency_ppm(self) -> int:
        """The share of the gross value that netting made needless."""
        return (self.gross_micros - self.debits_micros) * 1_000_000 // self.gross_micros if self.gross_micros else 0


class Payments(NamedTuple):
    """Who pays whom, by account number; three columns of equal length."""

    payer: NDArray[np.int64]
    payee: NDArray[np.int64]
    amount_micros: NDArray[np.int64]


def net(payments: Payments) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(accounts, nets): received minus paid, of everyone who takes part, in order of number.

    A sum may wrap on the way; it comes out right as long as every net fits in an int64.
    """
    accounts = np.concatenate([payments.payer, payments.payee])
    amounts = np.concatenate([-payments.amount_micros, payments.amount_micros])
    order = np.argsort(accounts, kind="stable")
    accounts, amounts = accounts[order], amounts[order]
    starts = group_starts(accounts)
    return accounts[starts], np.add.reduceat(amounts, starts) if len(starts) else amounts


def gross(payments: Payments) -> int:
    """The value of all payments between two different accounts, exact however many there are."""
    amounts = payments.amount_micros[payments.payer != payments.payee]
    return (int((amounts >> 32).sum()) << 32) + int((amounts & 0xFFFF_FFFF).sum())


def payments_of(events: NDArray[Any], terms: Terms) -> Payments:
    """Every payment between owners in a batch of events, zeros included."""
    parts = [_trade_payments(events, terms), _money_payments(events)]
    return Payments(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _trade_payments(events: NDArray[Any], terms: Terms) -> Payments:
    is_trade = np.flatnonzero(events["kind"] == EventKind.TRADE)
    trades = events.take(is_trade)  # whole records: an index would go through them field by field
    taker, maker = trades["account"].astype(np.int64), trades["contra_account"].astype(np.int64)
    value = trades["qty"].astype(np.int64) * trades["price"] * terms.lot_tick_micros[is_trade]
    taker_buys = trades["side"] == Side.BUY
    buyer, seller = np.where(taker_buys, [taker, maker], [maker, taker])
    house = np.full(len(trades), HOUSE, np.int64)
    fee_now = trades["fee_micros"] - trades["fee_due_micros"]
    return Payments(
        np.concatenate([buyer, taker, buyer]),
        np.concatenate([seller, house, house]),
        np.concatenate([value, fee_now, trades["due_paid_micros"]]),
    )


def _money_payments(events: NDArray[Any]) -> Payments:
    """Deliveries, from the changes of the three sides; rebates; and what goes from one account to another."""
    delivered = events[events["kind"] == EventKind.DELIVERED].view(MONEY)
    rebates = events[events["kind"] == EventKind.REBATE_PAID].view(MONEY)
    moved = events[np.isin(events["kind"], _BETWEEN_ACCOUNTS)].view(MONEY)
    moved = moved[moved["contra_account"] != HOUSE]
    provider, house = delivered["account"].astype(np.int64), np.full(len(delivered), HOUSE, np.int64)
    paid = delivered["amount_micros"] + delivered["escrow_micros"] + delivered["bond_micros"]
    to_receiver = delivered["contra_amount_micros"]
    return Payments(
        np.concatenate([provider, provider, np.full(len(rebates), HOUSE, np.int64), moved["account"]]),
        np.concatenate([delivered["contra_account"], house, rebates["account"], moved["contra_account"]]),
        np.concatenate([to_receiver, -paid - to_receiver, rebates["amount_micros"], moved["contra_amount_micros"]]),
    )


_BETWEEN_ACCOUNTS = [EventKind.TRANSFERRED, EventKind.SPLIT_PAID, EventKind.LIEN_LIFTED]


def _inflow(commands: NDArray[Any], events: NDArray[Any]) -> Payments:
    """Deposits minus withdrawals, the world paying. What is set aside for a chain counts when it has left."""
    kinds = (EventKind.DEPOSITED, EventKind.WITHDRAWN, EventKind.PAID_OUT)
    flows = events[np.isin(events["kind"], kinds)].view(MONEY)
    asked = bodies(commands, flows)
    to_chain = asked["asset"] > 0
    amount = np.select(
        [
            flows["kind"] == EventKind.PAID_OUT,
            (flows["kind"] == EventKind.WITHDRAWN) & to_chain,
            asked["refund_micros"] > 0,
        ],
        [-asked["amount_micros"], 0, 0],
        flows["amount_micros"],
    )
    return Payments(np.full(len(flows), -1), flows["account"].astype(np.int64), amount)


SCHEMA = """
CREATE TABLE IF NOT EXISTS cycle_sums (
    account INTEGER PRIMARY KEY,
    net_micros INTEGER NOT NULL,
    external_micros INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS cycle_gross (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    gross_micros INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO cycle_gross VALUES (1, 0)
"""


class CycleSums:
    """The running sums of the cycle at hand, from events alone. Kept in the database, moved with `applied_seq`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)

    def add(self, commands: NDArray[Any], events: NDArray[Any], terms: Terms) -> None:
        """Add a batch, in the caller's transaction."""
        payments = payments_of(events, terms)
        accounts, nets = net(payments)
        self._upsert(accounts, nets, np.zeros_like(nets))
        self._database.execute("UPDATE cycle_gross SET gross_micros = gross_micros + ?", (gross(payments),))
        inflow = _inflow(commands, events)
        if len(inflow.amount_micros):
            accounts, external = net(inflow)
            members = accounts > HOUSE
            self._upsert(accounts[members], np.zeros(int(members.sum()), np.int64), external[members])

    def _upsert(self, accounts: NDArray[np.int64], nets: NDArray[np.int64], external: NDArray[np.int64]) -> None:
        self._database.execute_many(
            "INSERT INTO cycle_sums VALUES (?, ?, ?) ON CONFLICT (account) DO UPDATE SET"
            " net_micros = cycle_sums.net_micros + excluded.net_micros,"
            " external_micros = cycle_sums.external_micros + excluded.external_micros",
            zip(accounts.tolist(), nets.tolist(), external.tolist(), strict=True),
        )

    def take(self) -> Nets:
        """The sums of the cycle that ends here; the next one begins with nothing."""
        rows = self._database.rows("SELECT account, net_micros, external_micros FROM cycle_sums ORDER BY account")
        total = self._database.one("SELECT gross_micros FROM cycle_gross")
        assert total is not None
        self._database.execute("DELETE FROM cycle_sums")
        self._database.execute("UPDATE cycle_gross SET gross_micros = 0")
        return Nets({account: Sums(net, external) for account, net, external in rows if net or external}, total[0])


# Owner is account >> 4; 8 to 15 are the world outside (custody).
_BALANCE_CHANGES = """
SELECT owner, SUM(change) FROM (
    SELECT account >> 4 AS owner, amount AS change FROM closing_balances
    WHERE cycle = :cycle AND asset = 0 AND account NOT BETWEEN 8 AND 15
    UNION ALL
    SELECT account >> 4, -amount FROM closing_balances
    WHERE cycle = :cycle - 1 AND asset = 0 AND account NOT BETWEEN 8 AND 15
) AS moved GROUP BY owner
"""


def ledger_nets(database: Database, ledger: Ledger, cycle: int, seqs: tuple[int, int]) -> dict[int, Sums]:
    """The nets of a cycle, the commands `seqs`, whose closing balances are stored: from those and the ones before."""
    changes = dict(database.rows(_BALANCE_CHANGES, {"cycle": cycle}))
    external: Counter[int] = Counter()
    _add_changes(external, ledger.external(*seqs))
    return _sums({owner: changes.get(owner, 0) - external.get(owner, 0) for owner in changes | external}, external)


def audited_nets(ledger: Ledger, seqs: tuple[int, int]) -> Nets:
    """The result of the commands `seqs` from every one of the ledger's transfers."""
    nets, external, total = Counter[int](), Counter[int](), 0
    for rows in ledger.transfers(*seqs):
        from_outside = is_external(rows)
        _add_changes(nets, rows[~from_outside])
        _add_changes(external, rows[from_outside])
        total += gross_of(rows)
    return Nets(_sums(nets, external), total)


def _add_changes(found: Counter[int], rows: NDArray[Any]) -> None:
    """Add what transfers change the money of each owner by."""
    _, accounts, changes = changes_of(rows[rows["asset"] == STABLECOIN])
    for account, change in zip(accounts.tolist(), changes.tolist(), strict=True):
        if not FIRST_OUTSIDE <= account < FIRST_USER:
            found[account >> ROLE_BITS] += change


def _sums(nets: Mapping[int, int], external: Mapping[int, int]) -> dict[int, Sums]:
    owners = sorted(nets.keys() | external.keys())
    found = {owner: Sums(nets.get(owner, 0), external.get(owner, 0)) for owner in owners}
    return {owner: sums for owner, sums in found.items() if any(sums)}
