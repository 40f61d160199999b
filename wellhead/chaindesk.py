"""What `wellhead chain` does, as functions: an operator looks at custody, and decides what it cannot decide by itself.

Safe beside a running node: the outbox is a file that several processes may have open, and the worker looks at it anew
each turn.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eth_utils.address import to_checksum_address

from engine.catalogue import Catalogue
from settlement.deposits import DepositState
from settlement.flows import Evidence, WithdrawalState
from settlement.ledger import LedgerError
from settlement.payouts import Standing
from settlement.records import Records
from settlement.service import OUTBOX_NAME
from settlement.stablecoins import Stablecoins
from wellhead.config import Config


class DeskError(Exception):
    """It could not be done; the message says why."""


class Desk:
    """The files of custody in a data directory."""

    def __init__(self, data_dir: Path) -> None:
        directory = Config(data_dir).settlement_dir
        if not (directory / OUTBOX_NAME).exists():
            raise DeskError(f"{data_dir} has never had anything on a chain")
        self._records = Records(directory, Stablecoins(), Catalogue.load().venue, lambda: int(time.time()))
        self._flows, self._deposits, self._halts = self._records.flows, self._records.deposits, self._records.halts

    def lines(self) -> Iterator[str]:
        """How things stand."""
        for halt in self._halts.open():
            yield f"STOPPED     {halt.reason}"
        for state in DepositState:
            rows = self._deposits.rows("state = ?", (state,))
            if rows:
                yield f"deposits    {len(rows)} {state.name}"
        for row in self._deposits.rows("state = ?", (DepositState.HELD,)):
            yield f"held        token {row.token} transaction 0x{row.tx_hash.hex()} log {row.position}: {row.note}"
        for sent in self._records.transfers.rows():
            if self._records.transfers.owner(sent) is None:
                yield (
                    f"transfer    token {sent.token} transaction 0x{sent.tx_hash.hex()} log {sent.position}: {sent.units} units"
                    f" from {to_checksum_address(sent.sender)}, who is nobody's home address"
                )
        for kind in WithdrawalState:
            found = self._flows.withdrawals("state = ?", (kind,))
            if found:
                yield f"withdrawals {len(found)} {kind.name}, {sum(row.amount_micros for row in found)} micros"

    def resume(self) -> int:
        """An operator has looked at what stopped withdrawals; how many reasons there were."""
        return self._halts.clear()

    def release(self, token: int, tx_hash: str, position: int) -> None:
        """Have a held deposit looked at again. Raises DeskError."""
        wanted = parse_hash(tx_hash)
        held = self._deposits.rows("state = ? AND token = ?", (DepositState.HELD, token))
        for row in held:
            if (row.tx_hash, row.position) == (wanted, position):
                self._deposits.release(token, row.evidence)
                return
        raise DeskError(f"no deposit of token {token} is held under {tx_hash}, log {position}")

    def assign(self, token: int, tx_hash: str, position: int, account: int) -> None:
        """Say whose a plain transfer to a vault is. Raises DeskError."""
        if self._deposits.home(account) is None:
            raise DeskError(f"account {account} has not said which address is its own")
        if not self._records.transfers.assign(token, Evidence(parse_hash(tx_hash), position), account):
            raise DeskError(f"no transfer of token {token} is under {tx_hash}, log {position}")

    def set_price(self, token: int, price_ppm: int) -> None:
        """What a unit of a stablecoin trades at, for the haircut of deposits from now on."""
        self._deposits.set_price(token, price_ppm)

    def set_standing(self, account: int, token: int) -> None:
        """Pay an account's gain of each cycle to its home address from now on; token 0: no more."""
        Standing(self._records.database).set(account, token or None)

    def close(self) -> None:
        self._records.close()


def parse_hash(text: str) -> bytes:
    """Raises DeskError for what is no hash of a transaction."""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise DeskError(f"{text!r} is no hash of a transaction") from error


@contextmanager
def desk(data_dir: Path) -> Iterator[Desk]:
    """Raises DeskError."""
    try:
        opened = Desk(data_dir)
    except LedgerError as error:
        raise DeskError(str(error)) from error
    try:
        yield opened
    finally:
        opened.close()
