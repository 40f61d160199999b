"""Coins that came to a vault by a plain transfer, which says nothing of whom they are for.

The vault holds them as surplus. When their sender is the home address of an account, the settler makes them a deposit of
that account (`credit_transfer`), and from there on they are one: credited when its event is final, in a root, leaving with
an exit. Of others an operator says whose they are. Only final blocks are read, and the vault credits each transfer once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eth_utils.address import to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

from settlement.abi import interface
from settlement.chain import Chain, Receipt
from settlement.database import Database
from settlement.deposits import Deposits, account_ref
from settlement.flows import ADDRESS_BYTES, Evidence
from settlement.outbox import Plan
from settlement.stablecoins import Token

_ID = b"wellhead transfer 1\n"

SCHEMA = """
CREATE TABLE IF NOT EXISTS transfers (
    token INTEGER NOT NULL,
    tx_hash BLOB NOT NULL,
    position INTEGER NOT NULL,
    block_number INTEGER NOT NULL,
    sender BLOB NOT NULL,
    units TEXT NOT NULL,
    account INTEGER,
    PRIMARY KEY (token, tx_hash, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transfers_to (
    token INTEGER PRIMARY KEY,
    block_number INTEGER NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class PlainTransfer:
    """A row. `account` is whose an operator says it is."""

    token: int
    tx_hash: bytes
    position: int
    block_number: int
    sender: bytes
    units: int
    account: int | None

    @property
    def id(self) -> bytes:
        """Under which the vault credits it once."""
        return keccak(_ID + self.tx_hash + self.position.to_bytes(8, "big"))

    @property
    def purpose(self) -> str:
        return f"transfer:{self.token}:{int.from_bytes(self.tx_hash, 'big')}:{self.position}"


class Transfers:
    """The plain transfers to all vaults of an exchange, in the outbox's database."""

    def __init__(self, database: Database, deposits: Deposits, venue: str) -> None:
        self._database = database
        self._deposits = deposits
        self._venue = venue

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)

    def scan(self, chain: Chain, token: Token, final: int) -> None:
        """Read the blocks that have become final since the last time."""
        row = self._database.one("SELECT block_number FROM transfers_to WHERE token = ?", (token.number,))
        first = token.network.first_block if row is None else row[0] + 1
        if first > final:
            return
        topics = [interface("TestDollar").topic("Transfer"), None, bytes(32 - ADDRESS_BYTES) + token.vault]
        found = [
            (token.number, receipt.tx_hash, position, receipt.block_number, sender, str(units))
            for receipt in chain.receipts_with([token.address], topics, first, final)
            for position, sender, units in plain_transfers(token, receipt)
        ]
        with self._database.transaction():
            self._database.execute_many("INSERT OR IGNORE INTO transfers VALUES (?, ?, ?, ?, ?, ?, NULL)", found)
            self._database.execute("INSERT OR REPLACE INTO transfers_to VALUES (?, ?)", (token.number, final))

    def rows(self, token: int | None = None) -> list[PlainTransfer]:
        """In order of their blocks."""
        query = "SELECT * FROM transfers ORDER BY token, block_number, tx_hash, position"
        found = [_transfer(row) for row in self._database.rows(query)]
        return [row for row in found if token in (None, row.token)]

    def assign(self, token: int, evidence: Evidence, account: int) -> bool:
        """An operator says whose it is. False when there is no such transfer."""
        self._database.execute(
            "UPDATE transfers SET account = ? WHERE token = ? AND tx_hash = ? AND position = ?",
            (account, token, *evidence),
        )
        return any((row.tx_hash, row.position) == evidence for row in self.rows(token))

    def owner(self, row: PlainTransfer) -> int | None:
        """Whose it is: as an operator said, or the first account that is at home at its sender's."""
        if row.account is not None:
            return row.account if self._deposits.home(row.account) else None
        return min((account for account, home in self._deposits.homes().items() if home == row.sender), default=None)

    def wanted(self, token: Token) -> Iterator[PlainTransfer]:
        """Those that can become deposits: of a known owner, and not below the smallest deposit, which costs more gas than
        whoever sends dust pays.
        """
        for row in self.rows(token.number):
            if token.to_micros(row.units) >= token.limits.min_deposit_micros and self.owner(row) is not None:
                yield row

    def plan(self, token: Token, row: PlainTransfer) -> Plan:
        """The call that makes a transfer a deposit of its owner's. Raises ValueError when nobody owns it."""
        account = self.owner(row)
        home = None if account is None else self._deposits.home(account)
        if account is None or home is None:
            raise ValueError(f"{row.purpose} is nobody's")
        depositor, ref = to_checksum_address(home), account_ref(self._venue, account)
        data = interface("Vault").call("credit_transfer", row.id, depositor, row.units, ref)
        expected = {"depositor": depositor, "ref": ref, "units": row.units}
        return Plan(row.purpose, token.network.chain_id, token.vault, data, "Deposited", expected)

    def plan_again(self, token: Token, purpose: str) -> Plan:
        """The same from its purpose: for the policy. Raises ValueError."""
        found = [row for row in self.rows(token.number) if row.purpose == purpose]
        if not found:
            raise ValueError(f"{purpose} was not seen on the chain")
        return self.plan(token, found[0])


def plain_transfers(token: Token, receipt: Receipt) -> Iterator[tuple[int, bytes, int]]:
    """(position, sender, units) of a transaction's transfers to the vault that no deposit accounts for: a deposit's own
    transfer comes right before its event.
    """
    coin, vault = interface("TestDollar"), interface("Vault")
    unexplained: list[tuple[int, bytes, int]] = []
    for log in receipt.logs:
        if log.address == token.address:
            said = coin.event(log.topics, log.data)
            if (
                said is not None
                and said.name == "Transfer"
                and said.values["receiver"] == to_checksum_address(token.vault)
            ):
                unexplained.append(
                    (log.position, to_canonical_address(said.values["sender"]), int(said.values["value"]))
                )
        elif log.address == token.vault and unexplained:
            said = vault.event(log.topics, log.data)
            if said is not None and said.name == "Deposited":
                unexplained.pop()
    yield from unexplained


def _transfer(row: tuple[Any, ...]) -> PlainTransfer:
    token, tx_hash, position, block_number, sender, units, account = row
    return PlainTransfer(token, tx_hash, position, block_number, sender, int(units), account)
