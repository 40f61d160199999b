"""Money that comes from a chain or goes to one, as the log tells it: three commands, and the two tables made from them.

    DEPOSIT   asset: the stablecoin's number, lots: micro-units of it received, amount: dollars credited,
              external_id: hash of the transaction (32 bytes), place of the log within it
    WITHDRAW  asset, lots: micro-units to be sent, external_id: recipient and home (20 bytes each), flags: route,
              contra_account: the cycle whose batch pays it
    PAYOUT    the withdrawal has left for good: asset, lots, amount, external_id: hash, sequence of its WITHDRAW

A DEPOSIT with `refund_micros` gives a withdrawal back; its external_id has the hash of what used the nonce instead, and
the sequence of the WITHDRAW. Asset 0 is money without a chain: such a withdrawal leaves at once.

The tables are a function of the log as the ledger is: removed, they come back. What was signed is not among them
(`settlement/outbox.py`).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import COMMAND, TRANSFER, EventKind, Kind
from settlement.database import Database

ADDRESS_BYTES = 20
HASH_BYTES = 32
_EVIDENCE = struct.Struct("<32sq")

SCHEMA = """
CREATE TABLE IF NOT EXISTS withdrawals (
    seq INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    token INTEGER NOT NULL,
    amount_micros INTEGER NOT NULL,
    quantity_micros INTEGER NOT NULL,
    recipient BLOB NOT NULL,
    home BLOB NOT NULL,
    route INTEGER NOT NULL,
    cycle INTEGER NOT NULL,
    ts_ns INTEGER NOT NULL,
    state INTEGER NOT NULL,
    done_seq INTEGER,
    tx_hash BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS open_withdrawals ON withdrawals (state, seq);
CREATE INDEX IF NOT EXISTS cycle_withdrawals ON withdrawals (cycle, token) WHERE cycle > 0;
CREATE TABLE IF NOT EXISTS credits (
    token INTEGER NOT NULL,
    tx_hash BLOB NOT NULL,
    position INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    account INTEGER NOT NULL,
    amount_micros INTEGER NOT NULL,
    quantity_micros INTEGER NOT NULL,
    PRIMARY KEY (token, tx_hash, position)
) STRICT, WITHOUT ROWID
"""


class Route(IntEnum):
    """How a withdrawal leaves the vault."""

    SINGLE = 0  # by itself, with signatures of the exchange
    BATCH = 1  # pushed with a cycle's batch
    CLAIM = 2  # fetched by its owner with a proof, from the next root on


class WithdrawalState(IntEnum):
    WITHDRAWING = 0
    PAID = 1
    REFUNDED = 2
    REFUSED = 3  # by the engine; nothing was debited


class Destination(NamedTuple):
    """Where a withdrawal goes. `home` is the address whose money it is: the vault counts it as paid to that one, and the
    leaf of that one in a root has all that its member owns. `cycle` is the one whose batch pays it, 0 for none.
    """

    recipient: bytes
    home: bytes
    route: Route = Route.SINGLE
    cycle: int = 0

    def pack(self) -> NDArray[np.uint64]:
        """The addresses as the words of an external_id. Raises ValueError when one has not 20 bytes."""
        for address in (self.recipient, self.home):
            if len(address) != ADDRESS_BYTES:
                raise ValueError(f"an address has {ADDRESS_BYTES} bytes, not {len(address)}")
        return np.frombuffer(self.recipient + self.home, "<u8")

    @classmethod
    def of(cls, asked: Any) -> "Destination":
        """Of a WITHDRAW command (TRANSFER)."""
        data = asked["external_id"].tobytes()
        route, cycle = Route(int(asked["flags"])), int(asked["contra_account"])
        return cls(data[:ADDRESS_BYTES], data[ADDRESS_BYTES:], route, cycle)


class Evidence(NamedTuple):
    """A transaction, and a number within what it proves: a log's place, or the sequence of a withdrawal."""

    tx_hash: bytes
    number: int

    def pack(self) -> NDArray[np.uint64]:
        """As the words of an external_id. Raises ValueError when the hash has not 32 bytes."""
        if len(self.tx_hash) != HASH_BYTES:
            raise ValueError(f"a transaction's hash has {HASH_BYTES} bytes, not {len(self.tx_hash)}")
        return np.frombuffer(_EVIDENCE.pack(*self), "<u8")

    @classmethod
    def unpack(cls, words: NDArray[np.uint64]) -> "Evidence":
        return cls(*_EVIDENCE.unpack(words.tobytes()))


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A row of `withdrawals`: who gets what. `seq` is its name everywhere, also on the chain."""

    seq: int
    account: int
    token: int
    amount_micros: int
    quantity_micros: int
    recipient: bytes
    home: bytes
    route: Route
    cycle: int
    ts_ns: int
    state: WithdrawalState
    done_seq: int | None
    tx_hash: bytes | None


def bodies(commands: NDArray[Any], events: NDArray[Any]) -> NDArray[Any]:
    """For each event its command, with the TRANSFER body. Sequences in a batch have no gaps."""
    if not len(events):
        return np.zeros(0, TRANSFER)
    found: NDArray[Any] = commands[events["command_seq"] - commands["seq"][0]].view(TRANSFER)
    return found


def transfer(kind: Kind, account: int, external_id: NDArray[np.uint64], **fields: int) -> NDArray[Any]:
    """One command (COMMAND) with a TRANSFER body."""
    row = np.zeros(1, TRANSFER)
    row["kind"], row["account"], row["external_id"] = kind, account, external_id
    for name, value in fields.items():
        row[name] = value
    return row.view(COMMAND)


def withdraw_command(account: int, token: int, amount_micros: int, destination: Destination) -> NDArray[Any]:
    """At par: a dollar owed is a unit of the stablecoin, whatever that is worth elsewhere."""
    return transfer(
        Kind.WITHDRAW,
        account,
        destination.pack(),
        asset=token,
        lots=amount_micros,
        amount_micros=amount_micros,
        flags=destination.route,
        contra_account=destination.cycle,
    )


def payout_command(row: Withdrawal, tx_hash: bytes) -> NDArray[Any]:
    """The withdrawal is final on the chain."""
    return transfer(
        Kind.PAYOUT,
        row.account,
        Evidence(tx_hash, row.seq).pack(),
        asset=row.token,
        lots=row.quantity_micros,
        amount_micros=row.amount_micros,
    )


def refund_command(row: Withdrawal, tx_hash: bytes) -> NDArray[Any]:
    """The withdrawal cannot be paid any more; `tx_hash` is what used its nonce."""
    return transfer(
        Kind.DEPOSIT,
        row.account,
        Evidence(tx_hash, row.seq).pack(),
        asset=row.token,
        amount_micros=row.amount_micros,
        refund_micros=row.amount_micros,
    )


def deposit_command(
    account: int, token: int, quantity_micros: int, amount_micros: int, evidence: Evidence
) -> NDArray[Any]:
    """A deposit is final on the chain."""
    return transfer(
        Kind.DEPOSIT, account, evidence.pack(), asset=token, lots=quantity_micros, amount_micros=amount_micros
    )


class Flows:
    """The two tables, in the ledger's database; they move in its transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)

    def on_batch(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        """Take in a batch, in the caller's transaction."""
        kinds = (EventKind.DEPOSITED, EventKind.WITHDRAWN, EventKind.PAID_OUT, EventKind.REJECTED)
        events = events[np.isin(events["kind"], kinds)]
        asked = bodies(commands, events)
        for at in np.flatnonzero(asked["asset"] > 0).tolist():
            self._take(asked[at], EventKind(int(events["kind"][at])))

    def _take(self, asked: Any, kind: EventKind) -> None:
        command = Kind(int(asked["kind"]))
        if kind == EventKind.DEPOSITED and asked["refund_micros"] > 0:
            self._finish(asked, WithdrawalState.REFUNDED)
        elif kind == EventKind.DEPOSITED:
            self._credit(asked)
        elif kind == EventKind.PAID_OUT:
            self._finish(asked, WithdrawalState.PAID)
        elif command == Kind.WITHDRAW and asked["flags"] <= max(Route):  # beyond, it was refused
            refused = kind == EventKind.REJECTED
            self._open(asked, WithdrawalState.REFUSED if refused else WithdrawalState.WITHDRAWING)

    def _open(self, asked: Any, state: WithdrawalState) -> None:
        destination = Destination.of(asked)
        self._database.execute(
            "INSERT INTO withdrawals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
            (
                *(int(asked[name]) for name in ("seq", "account", "asset", "amount_micros", "lots")),
                *destination,
                int(asked["ts_ns"]),
                state,
            ),
        )

    def _finish(self, asked: Any, state: WithdrawalState) -> None:
        evidence = Evidence.unpack(asked["external_id"])
        self._database.execute(
            "UPDATE withdrawals SET state = ?, done_seq = ?, tx_hash = ? WHERE seq = ? AND state = ?",
            (state, int(asked["seq"]), evidence.tx_hash, evidence.number, WithdrawalState.WITHDRAWING),
        )

    def _credit(self, asked: Any) -> None:
        # A second credit for the same log would be money from nowhere: the balances then show it, and verify and
        # reconciliation name it. The books themselves must go on following the engine.
        self._database.execute(
            "INSERT OR IGNORE INTO credits VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                int(asked["asset"]),
                *Evidence.unpack(asked["external_id"]),
                *(int(asked[name]) for name in ("seq", "account", "amount_micros", "lots")),
            ),
        )

    def withdrawals(self, condition: str = "TRUE", values: tuple[Any, ...] = ()) -> list[Withdrawal]:
        """The rows that fit an SQL condition, in order of sequence."""
        query = f"SELECT * FROM withdrawals WHERE {condition} ORDER BY seq"  # noqa: S608 - conditions are ours
        return [_withdrawal(row) for row in self._database.rows(query, values)]

    def withdrawal(self, seq: int) -> Withdrawal:
        """Raises KeyError for a sequence that was no withdrawal to a chain."""
        found = self.withdrawals("seq = ?", (seq,))
        if not found:
            raise KeyError(seq)
        return found[0]

    def waiting(self, token: int | None = None) -> list[Withdrawal]:
        """Debited and not yet final."""
        rows = self.withdrawals("state = ?", (WithdrawalState.WITHDRAWING,))
        return [row for row in rows if token in (None, row.token)]

    def credit_of(self, token: int, evidence: Evidence) -> int | None:
        """The sequence of the DEPOSIT that credited a log, None when none did."""
        query = "SELECT seq FROM credits WHERE token = ? AND tx_hash = ? AND position = ?"
        row = self._database.one(query, (token, *evidence))
        return None if row is None else int(row[0])


def _withdrawal(row: tuple[Any, ...]) -> Withdrawal:
    seq, account, token, amount, quantity, recipient, home, route, cycle, ts_ns, state, done_seq, tx_hash = row
    return Withdrawal(
        seq, account, token, amount, quantity, recipient, home, Route(route), cycle, ts_ns, WithdrawalState(state),
        done_seq, tx_hash,
    )  # fmt: skip
