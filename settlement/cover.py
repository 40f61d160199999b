"""Cover: when a provider delivers nothing, the house buys the lots for the receiver in the next hour of the market.

It does so where there is an account named `house.cover`, which the operator opens and funds; the market knows it as any
other. In this order, each step a command in the log:

1. NEW_ORDER of that account: an IOC for the lots in the next hour that still trades, at most PREMIUM_PPM above the index.
2. DELIVER, with the escrow back to the receiver and the charge by what cover cost: of lots that were not to be had, the index.
3. TRANSFER from receiver to house: what the receiver had paid for the lots that it gets now, at most their cost. In the same
   frame as the DELIVER that gave it back.
4. TRANSFER of what they cost beyond that, as far as damages for it were found. The penalty stays the receiver's.
5. The tickets of the hour that was bought name the receiver in the place of the house, and what the house is given back in that
   hour goes on to it.

An order is known by its `cl_ord_id`, a transfer by its `external_id`; both name the delivery. So all of this is a function of
the log, and what a crash left undone is due again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import pack_id, unpack_id
from engine.types import COMMAND, TRANSFER, EventKind, Flag, Kind, OrdType, Side, TimeInForce
from settlement.database import Database
from settlement.performance import PPM, largest_remainder
from settlement.registry import Listing, Registry, Terms

NAME = "house.cover"
PREMIUM_PPM = 250_000
_WORD = "cover"
MOST_DIGITS = 18

SCHEMA = """
CREATE TABLE IF NOT EXISTS covers (
    asset INTEGER NOT NULL,
    provider INTEGER NOT NULL,
    receiver INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    bought INTEGER NOT NULL,
    lots INTEGER NOT NULL,
    cost_micros INTEGER NOT NULL,
    PRIMARY KEY (asset, provider, receiver)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cover_payments (
    step INTEGER NOT NULL,
    asset INTEGER NOT NULL,
    provider INTEGER NOT NULL,
    member INTEGER NOT NULL,
    amount_micros INTEGER NOT NULL,
    seq INTEGER,
    is_paid INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (step, asset, provider, member)
) STRICT, WITHOUT ROWID
"""


class Step(IntEnum):
    """Why money goes between the house and a member."""

    PRICE = 3  # from the member: what it had paid
    EXCESS = 4  # from the member: what cover cost beyond that
    PASSED_ON = 5  # to the member: what the house was given back for it


Key = tuple[int, int, int]
"""Listing, provider and receiver: a delivery."""


class Due(NamedTuple):
    """A payment, as its transfer names it."""

    step: Step
    asset: int
    provider: int
    member: int


@dataclass(frozen=True, slots=True)
class Cover:
    """What was bought for a delivery that was not made. `lots` may be fewer, or none."""

    asset: int
    provider: int
    receiver: int
    seq: int  # of the order
    bought: int  # the listing that it was bought in
    lots: int
    cost_micros: int  # with the fee

    def price_part(self, share_micros: int, lots: int) -> int:
        """Of what the receiver had paid for all its lots, what it pays for those that it gets."""
        return min(self.cost_micros, share_micros * self.lots // lots)


class Run(NamedTuple):
    """Some of a provider's lots, and whose they are."""

    provider: int
    first_lot: int
    lots: int
    member: int


class Covers:
    """What was bought, and who has to pay whom for it. The caller's lock guards it."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._registry = registry
        self.account = 0
        """Of the house, 0 where there is none."""
        self._covers: dict[Key, Cover] = {}
        self._payments: dict[Due, int] = {}  # not made yet
        self._asked: set[Key | Due] = set()

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)

    def load(self) -> None:
        """Read everything from the database; what was asked for and never came back will be asked for again."""
        self._find_account()
        covers = [Cover(*row) for row in self._database.rows("SELECT * FROM covers ORDER BY seq")]
        self._covers = {(one.asset, one.provider, one.receiver): one for one in covers}
        query = "SELECT step, asset, provider, member, amount_micros FROM cover_payments WHERE seq IS NULL"
        self._payments = {Due(Step(row[0]), *row[1:4]): row[4] for row in self._database.rows(query)}
        self._asked = set()

    def _find_account(self) -> None:
        row = self._database.one("SELECT MIN(account) FROM members WHERE name = ?", (NAME,))
        self.account = int(row[0]) if row and row[0] else 0

    def of(self, key: Key) -> Cover | None:
        """What was bought for a delivery, None where nobody tried."""
        return self._covers.get(key)

    # --- What follows from the log ---------------------------------------------------------------------------------

    def take_orders(self, commands: NDArray[Any], events: NDArray[Any], terms: Terms) -> None:
        """Take in what was bought. In the caller's transaction, before the deliveries of the batch: those follow from it."""
        if (events["kind"] == EventKind.ACCOUNT_OPENED).any():
            self._find_account()
        if not self.account:
            return
        orders = (commands["kind"] == Kind.NEW_ORDER) & (commands["account"] == self.account)
        orders &= commands["flags"] & Flag.EXTENDED != 0
        for at in np.flatnonzero(orders).tolist():
            numbers = _numbers(commands["cl_ord_id"][at])
            if len(numbers) == len(("asset", "provider", "receiver")) and tuple(numbers) not in self._covers:
                self._bought((numbers[0], numbers[1], numbers[2]), commands[at], events, terms)

    def take_transfers(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        """Take in what was paid: behind the deliveries that it was for."""
        if not self._payments:
            return
        for at in np.flatnonzero(commands["kind"] == Kind.TRANSFER).tolist():
            row = commands[at : at + 1].view(TRANSFER)[0]
            numbers = _numbers(row["external_id"])
            if self.account in (row["account"], row["contra_account"]) and len(numbers) == len(Due._fields):
                self._paid((numbers[0], numbers[1], numbers[2], numbers[3]), row, events)

    def _bought(self, key: Key, order: Any, events: NDArray[Any], terms: Terms) -> None:
        mine = events["command_seq"] == order["seq"]
        mine &= (events["kind"] == EventKind.TRADE) & (events["account"] == self.account)
        trades, ticks = events[mine], terms.lot_tick_micros[mine]
        values = trades["price"].astype(np.int64) * ticks * trades["qty"] + trades["fee_micros"]
        bought = int(terms.asset[mine][0]) if len(trades) else 0
        cover = Cover(*key, int(order["seq"]), bought, int(trades["qty"].sum()), int(values.sum()))
        self._covers[key] = cover
        self._database.execute(
            "INSERT INTO covers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, cover.seq, cover.bought, cover.lots, cover.cost_micros),
        )

    def _paid(self, numbers: tuple[int, int, int, int], row: Any, events: NDArray[Any]) -> None:
        due = next((due for due in self._payments if due == numbers), None)
        if due is None or self._payments[due] != row["amount_micros"]:
            return
        del self._payments[due]
        done = (events["command_seq"] == row["seq"]) & (events["kind"] == EventKind.TRANSFERRED)
        self._database.execute(
            "UPDATE cover_payments SET seq = ?, is_paid = ? WHERE step = ? AND asset = ? AND provider = ? AND member = ?",
            (int(row["seq"]), int(done.any()), *due),
        )

    def delivered(self, key: Key, share_micros: int, lots: int, damages_micros: int) -> None:
        """A delivery was made, as far as it was: its receiver pays for what was bought for it."""
        cover = self._covers.get(key)
        if cover is None or not cover.lots:
            return
        price = cover.price_part(share_micros, lots)
        self._owe(Due(Step.PRICE, *key), price)
        self._owe(Due(Step.EXCESS, *key), min(cover.cost_micros - price, damages_micros))

    def given_back(self, asset: int, runs: Sequence[Run], amount_micros: int) -> None:
        """The house was given money for lots that it has for others: their part is theirs."""
        parts = largest_remainder(amount_micros, [run.lots for run in runs]) if amount_micros else []
        for run, part in zip(runs, parts, strict=False):
            if run.member != self.account:
                self._owe(Due(Step.PASSED_ON, asset, run.provider, run.member), part)

    def _owe(self, due: Due, amount_micros: int) -> None:
        if amount_micros:
            self._payments[due] = amount_micros
            self._database.execute("INSERT INTO cover_payments VALUES (?, ?, ?, ?, ?, NULL, 0)", (*due, amount_micros))

    # --- What is due -------------------------------------------------------------------------------------------------

    def is_undecided(self, key: Key) -> bool:
        """An order for it is on its way."""
        return key in self._asked and key not in self._covers

    def order(self, key: Key, listing: Listing, lots: int, index_price: int, now_ns: int) -> NDArray[Any] | None:
        """The order for a delivery that was not made; None where there is no house account, or no hour to buy."""
        if not self.account or self.account in key[1:] or key in self._covers:
            return None
        later = [one for one in self._registry.listed() if one.gate_ns > now_ns and _same_market(one, listing)]
        if not later:
            return None
        self._asked.add(key)
        command = np.zeros(1, COMMAND)
        for name, value in {
            "kind": Kind.NEW_ORDER, "account": self.account, "side": Side.BUY, "ord_type": OrdType.LIMIT,
            "instrument": min(later, key=lambda one: one.start_s).instrument, "time_in_force": TimeInForce.IOC,
            "flags": Flag.EXTENDED, "qty": lots, "price": index_price * (PPM + PREMIUM_PPM) // PPM,
            "cl_ord_id": pack_id(" ".join(map(str, (_WORD, *key)))),
        }.items():  # fmt: skip
            command[name] = value
        return command

    def first_payment(self, key: Key, share_micros: int, lots: int) -> NDArray[Any] | None:
        """What goes behind the DELIVER of a delivery that was covered, before anybody can use what that gives back."""
        cover = self._covers.get(key)
        if cover is None or not cover.lots:
            return None
        due = Due(Step.PRICE, *key)
        self._asked.add(due)
        return self._transfer(due, cover.price_part(share_micros, lots))

    def due(self) -> Iterator[NDArray[Any]]:
        """Payments that were not asked for yet."""
        for due, amount in list(self._payments.items()):
            if due not in self._asked:
                self._asked.add(due)
                yield self._transfer(due, amount)

    def _transfer(self, due: Due, amount_micros: int) -> NDArray[Any]:
        ends = (self.account, due.member)
        payer, payee = ends if due.step == Step.PASSED_ON else ends[::-1]
        command = np.zeros(1, TRANSFER)
        command["kind"], command["account"], command["contra_account"] = Kind.TRANSFER, payer, payee
        command["amount_micros"] = amount_micros
        command["external_id"] = pack_id(" ".join(map(str, (_WORD, *map(int, due)))))
        return command.view(COMMAND)

    def runs(self, asset: int, deliveries: Sequence[tuple[int, int, int]]) -> list[Run]:
        """Whose the lots are that the house receives in a listing: `deliveries` are (provider, first lot, lots), in order.

        They are handed out in the order in which they were bought. What is left is the house's own.
        """
        bought = [[one.receiver, one.lots] for one in sorted(self._covers.values(), key=_by_seq) if one.bought == asset]
        found = []
        for provider, first_lot, lots in deliveries:
            at, end = first_lot, first_lot + lots
            while at < end:
                bought = [one for one in bought if one[1]]
                owner = bought[0] if bought else [self.account, end - at]
                part = min(owner[1], end - at)
                owner[1] -= part
                found.append(Run(provider, at, part, owner[0]))
                at += part
        return found


def _by_seq(cover: Cover) -> int:
    return cover.seq


def _same_market(one: Listing, other: Listing) -> bool:
    market = (one.class_id, one.region_id, one.minutes) == (other.class_id, other.region_id, other.minutes)
    return market and one.start_s > other.start_s


def _numbers(words: NDArray[np.uint64]) -> list[int]:
    """Those behind the word, of an id of ours; none of another."""
    word, *numbers = unpack_id(words).split(" ")
    ours = word == _WORD and all(number.isdigit() and len(number) <= MOST_DIGITS for number in numbers)
    return [int(number) for number in numbers] if ours else []
