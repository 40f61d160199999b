"""Deposits, from the vault's event to a DEPOSIT command in the log.

    SEEN -> PENDING -> FINAL -> credited by the log | HELD for an operator

However the money came (deposit, permit, authorization), the vault says `Deposited`. A row is known by chain, transaction
and the log's place in the transaction: a block's number for the log changes in a reorganisation. Rows that are not final
are made anew by every scan, so what a reorganisation took is gone and what it moved has its new block. Only final rows
are credited, in the vault's own order; the credit is in the log with the same key, so it happens once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import numpy as np
from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak
from numpy.typing import NDArray

from engine.types import COMMAND
from settlement.abi import interface
from settlement.chain import Chain, Receipt
from settlement.database import Database
from settlement.flows import Evidence, Flows, deposit_command
from settlement.stablecoins import MILLION, Token

_REF = b"wellhead account 1\n"
_REF_DIGEST_BYTES = 24
NO_HOME = "its account has not said which address is its own"

SCHEMA = """
CREATE TABLE IF NOT EXISTS deposits (
    token INTEGER NOT NULL,
    tx_hash BLOB NOT NULL,
    position INTEGER NOT NULL,
    place INTEGER NOT NULL,
    block_number INTEGER NOT NULL,
    depositor BLOB NOT NULL,
    ref BLOB NOT NULL,
    units TEXT NOT NULL,
    state INTEGER NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (token, tx_hash, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deposits_in_order ON deposits (token, place);
CREATE TABLE IF NOT EXISTS scanned (
    token INTEGER PRIMARY KEY,
    block_number INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS homes (
    account INTEGER PRIMARY KEY,
    address BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS pegs (
    token INTEGER PRIMARY KEY,
    price_ppm INTEGER NOT NULL
) STRICT
"""


class DepositState(IntEnum):
    SEEN = 0
    PENDING = 1  # some blocks deep: unlikely to go, not to be relied on
    FINAL = 2
    HELD = 3  # final, and not credited: the note says why


@dataclass(frozen=True, slots=True)
class Deposit:
    """A row. `place` is the vault's own count of deposits."""

    token: int
    tx_hash: bytes
    position: int
    place: int
    block_number: int
    depositor: bytes
    ref: bytes
    units: int
    state: DepositState
    note: str = ""

    @property
    def evidence(self) -> Evidence:
        return Evidence(self.tx_hash, self.position)


def account_ref(venue: str, account: int) -> bytes:
    """What a depositor hands to the vault so that the money is the account's. Most of it is a checksum: a mistyped ref
    is nobody's, never somebody else's.
    """
    number = account.to_bytes(8, "big")
    return keccak(_REF + venue.encode() + number)[:_REF_DIGEST_BYTES] + number


def account_of_ref(venue: str, ref: bytes) -> int | None:
    """The account that a ref names, None when it names none."""
    account = int.from_bytes(ref[_REF_DIGEST_BYTES:], "big")
    return account if account and account_ref(venue, account) == ref else None


class Deposits:
    """The deposits of all tokens of one exchange, in the outbox's database."""

    def __init__(self, database: Database, flows: Flows, venue: str) -> None:
        self._database = database
        self._flows = flows
        self._venue = venue
        self._handed_out: set[tuple[int, Evidence]] = set()

    def create(self) -> None:
        """Make the tables where they are missing."""
        with self._database.transaction():
            self._database.create(SCHEMA)

    # Scanning

    def scan(self, chain: Chain, token: Token, final: int) -> None:
        """Read the vault's deposits from the last final block that was read up to the newest block."""
        head = chain.head().number
        row = self._database.one("SELECT block_number FROM scanned WHERE token = ?", (token.number,))
        first = token.network.first_block if row is None else row[0] + 1
        vault = interface("Vault")
        receipts = chain.receipts_with([token.vault], [vault.topic("Deposited")], first, max(head, first))
        found = [deposit for receipt in receipts for deposit in self._read(token, receipt, head, final)]
        with self._database.transaction():
            self._database.execute(
                "DELETE FROM deposits WHERE token = ? AND state < ?", (token.number, DepositState.FINAL)
            )
            self._database.execute_many(
                "INSERT OR IGNORE INTO deposits VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        row.token, row.tx_hash, row.position, row.place, row.block_number, row.depositor, row.ref,
                        str(row.units), row.state, row.note,
                    )
                    for row in found
                ],
            )  # fmt: skip
            self._database.execute(
                "INSERT INTO scanned VALUES (?, ?) ON CONFLICT (token) DO UPDATE"
                " SET block_number = max(block_number, excluded.block_number)",
                (token.number, final),
            )

    def _read(self, token: Token, receipt: Receipt, head: int, final: int) -> Sequence[Deposit]:
        rows = []
        for log in receipt.logs:
            said = interface("Vault").event(log.topics, log.data) if log.address == token.vault else None
            if said is None or said.name != "Deposited":
                continue
            if receipt.block_number <= final:
                state = DepositState.FINAL
            elif head - receipt.block_number + 1 >= token.network.confirmations:
                state = DepositState.PENDING
            else:
                state = DepositState.SEEN
            values = said.values
            rows.append(
                Deposit(
                    token.number, receipt.tx_hash, log.position, values["index"], receipt.block_number,
                    to_canonical_address(values["depositor"]), bytes(values["ref"]), values["units"], state,
                )
            )  # fmt: skip
        return rows

    # Crediting

    def due(self, token: Token, accounts: set[int], now_s: int) -> NDArray[Any]:
        """DEPOSIT commands for what is final and was never credited, in the vault's order. Each is handed out once by
        this process; ask only after the log was replayed to its end. What cannot be credited becomes HELD.
        """
        commands = [np.zeros(0, COMMAND)]
        for deposit in self.rows("token = ? AND state = ?", (token.number, DepositState.FINAL)):
            key = (token.number, deposit.evidence)
            if key in self._handed_out or self._flows.credit_of(*key) is not None:
                continue
            account = account_of_ref(self._venue, deposit.ref)
            quantity = token.to_micros(deposit.units)
            # Who has said which address is his own has an account, though the books may not have got to its opening.
            known = account is not None and (account in accounts or self.home(account) is not None)
            amount, why = self._judge(token, account if known else None, quantity, now_s)
            if amount is None or account is None:
                self.hold(deposit, why)
                continue
            self._handed_out.add(key)
            commands.append(deposit_command(account, token.number, quantity, amount, deposit.evidence))
        return np.concatenate(commands)

    def _judge(self, token: Token, account: int | None, quantity: int, now_s: int) -> tuple[int | None, str]:
        """(dollars to credit, '') or (None, why not)."""
        if account is None:
            return None, "its ref names no account here"
        if self.home(account) is None:
            return None, NO_HOME
        if not token.issuer.takes_deposits_on(datetime.fromtimestamp(now_s, UTC).date()):
            return None, f"its issuer {token.issuer.name} is not one whose stablecoins are taken"
        if not token.limits.min_deposit_micros <= quantity <= token.limits.max_deposit_micros:
            return None, f"{quantity} micros is outside the limits of a deposit"
        amount = token.haircut.credit(quantity, self.price_ppm(token.number))
        if not amount:
            return None, "the stablecoin has lost its peg"
        return amount, ""

    def hold(self, deposit: Deposit, why: str) -> None:
        """Set a deposit aside; its depositor still finds it in the vault's roots."""
        self._database.execute(
            "UPDATE deposits SET state = ?, note = ? WHERE token = ? AND tx_hash = ? AND position = ?",
            (DepositState.HELD, why, deposit.token, *deposit.evidence),
        )

    def release(self, token: int, evidence: Evidence) -> None:
        """Look at a held deposit again: an operator has dealt with the reason."""
        self._database.execute(
            "UPDATE deposits SET state = ?, note = '' WHERE token = ? AND tx_hash = ? AND position = ? AND state = ?",
            (DepositState.FINAL, token, *evidence, DepositState.HELD),
        )

    def rows(self, condition: str = "TRUE", values: tuple[Any, ...] = ()) -> list[Deposit]:
        """The deposits that fit an SQL condition, in the vault's order."""
        query = f"SELECT * FROM deposits WHERE {condition} ORDER BY token, place"  # noqa: S608 - conditions are ours
        return [_deposit(row) for row in self._database.rows(query, values)]

    def of_account(self, account: int) -> list[Deposit]:
        """For the account's owner to see."""
        return self.rows("ref = ?", (account_ref(self._venue, account),))

    # What belongs to deposits

    def home(self, account: int) -> bytes | None:
        """The address that is an account's own. It never changes, because roots name it."""
        row = self._database.one("SELECT address FROM homes WHERE account = ?", (account,))
        return None if row is None else bytes(row[0])

    def homes(self) -> dict[int, bytes]:
        return dict(self._database.rows("SELECT account, address FROM homes"))

    def set_home(self, account: int, address: bytes) -> None:
        """On its owner's word only: anyone may deposit for an account, and whoever did so first would else be the one who
        leaves with its money. Deposits that waited for it are looked at again. Raises ValueError when it has another one.
        """
        with self._database.transaction():
            self._database.execute("INSERT OR IGNORE INTO homes VALUES (?, ?)", (account, address))
            if self.home(account) != address:
                raise ValueError(f"account {account} has an address, which cannot be changed")
            self._database.execute(
                "UPDATE deposits SET state = ?, note = '' WHERE ref = ? AND state = ? AND note = ?",
                (DepositState.FINAL, account_ref(self._venue, account), DepositState.HELD, NO_HOME),
            )

    def price_ppm(self, token: int) -> int:
        """Of a unit in ppm of a dollar, as the operator last said; a dollar if never."""
        row = self._database.one("SELECT price_ppm FROM pegs WHERE token = ?", (token,))
        return MILLION if row is None else int(row[0])

    def set_price(self, token: int, price_ppm: int) -> None:
        """For the deposits that are credited from now on."""
        self._database.execute(
            "INSERT INTO pegs VALUES (?, ?) ON CONFLICT (token) DO UPDATE SET price_ppm = excluded.price_ppm",
            (token, price_ppm),
        )


def _deposit(row: tuple[Any, ...]) -> Deposit:
    token, tx_hash, position, place, block_number, depositor, ref, units, state, note = row
    return Deposit(token, tx_hash, position, place, block_number, depositor, ref, int(units), DepositState(state), note)
