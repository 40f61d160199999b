"""What members fetched from a vault themselves: claims, and exits when the exchange was gone. Final blocks only."""

from eth_utils.address import to_canonical_address

from settlement.abi import interface
from settlement.chain import Chain
from settlement.database import Database
from settlement.stablecoins import Token

SCHEMA = """
CREATE TABLE IF NOT EXISTS fetched (
    token INTEGER NOT NULL,
    tx_hash BLOB NOT NULL,
    position INTEGER NOT NULL,
    event TEXT NOT NULL,
    address BLOB NOT NULL,
    units TEXT NOT NULL,
    block_number INTEGER NOT NULL,
    PRIMARY KEY (token, tx_hash, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fetched_to (
    token INTEGER PRIMARY KEY,
    block_number INTEGER NOT NULL
) STRICT
"""


class Claims:
    """The events Claimed and Exited, by address."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._database.create(SCHEMA)

    def scan(self, chain: Chain, token: Token, final: int) -> None:
        """Read the blocks that have become final since the last time."""
        row = self._database.one("SELECT block_number FROM fetched_to WHERE token = ?", (token.number,))
        first = token.network.first_block if row is None else row[0] + 1
        if first > final:
            return
        vault, found = interface("Vault"), []
        for event in ("Claimed", "Exited"):
            for receipt in chain.receipts_with([token.vault], [vault.topic(event)], first, final):
                for log in receipt.logs:
                    said = vault.event(log.topics, log.data) if log.address == token.vault else None
                    if said is not None and said.name == event:
                        owner, units = to_canonical_address(said.values["account"]), str(said.values["units"])
                        found.append(
                            (token.number, receipt.tx_hash, log.position, event, owner, units, receipt.block_number)
                        )
        with self._database.transaction():
            self._database.execute_many("INSERT OR IGNORE INTO fetched VALUES (?, ?, ?, ?, ?, ?, ?)", found)
            self._database.execute("INSERT OR REPLACE INTO fetched_to VALUES (?, ?)", (token.number, final))

    def claimed(self, token: int) -> dict[bytes, int]:
        """Units by address, over all time."""
        return self._sums(token, "Claimed")

    def exited(self, token: int) -> dict[bytes, int]:
        """Units by address; empty as long as the exchange is there."""
        return self._sums(token, "Exited")

    def _sums(self, token: int, event: str) -> dict[bytes, int]:
        sums: dict[bytes, int] = {}
        query = "SELECT address, units FROM fetched WHERE token = ? AND event = ?"
        for address, units in self._database.rows(query, (token, event)):
            sums[address] = sums.get(address, 0) + int(units)
        return sums

    def last_hash(self, token: int, address: bytes) -> bytes:
        """Of the address's last claim. Raises KeyError when it never claimed."""
        row = self._database.one(
            "SELECT tx_hash FROM fetched WHERE token = ? AND address = ? AND event = 'Claimed'"
            " ORDER BY block_number DESC, position DESC LIMIT 1",
            (token, address),
        )
        if row is None:
            raise KeyError(address)
        return bytes(row[0])
