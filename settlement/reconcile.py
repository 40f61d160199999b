"""Engine = ledger = chain, at one block. What cannot be explained stops withdrawals; it never stops trading.

For each vault, in the token's smallest units, with everything read at the same final block:

    held by the vault = coins in the books
                      + deposits that are final and not yet credited + what rounding to micro-units left over
                      - payments that are final and not yet posted
                      + owed to recipients who could not be paid - claimed in part - taken along by exits

and for each address, what the vault says was ever paid to it. The parts on the right have each a row to point at.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from eth_utils.address import to_canonical_address, to_checksum_address
from numpy.typing import NDArray

from settlement.abi import interface
from settlement.accounts import CUSTODY, FIRST_USER, STABLECOIN, VAULT, Role, token_asset
from settlement.chain import Chain
from settlement.database import Database
from settlement.deposits import Deposit
from settlement.flows import Evidence, Route, Withdrawal, WithdrawalState
from settlement.ledger import Balances, Difference, changes_of
from settlement.plans import units_of
from settlement.records import Records
from settlement.stablecoins import Token


@dataclass(frozen=True, slots=True)
class EngineView:
    """What the engine had after a command: money by account number (cash and held together, and escrow and bonds)."""

    seq: int
    free_micros: NDArray[np.int64]
    locked_micros: NDArray[np.int64]
    custody_micros: int  # deposits minus withdrawals


@dataclass
class Facts:
    """What the outbox's file knows of a vault at a block."""

    deposits: list[Deposit] = field(default_factory=list)  # final ones
    paid: Mapping[int, bytes] = field(
        default_factory=dict
    )  # withdrawals final on the chain, posted or not: seq -> hash
    claimed: Mapping[bytes, int] = field(default_factory=dict)  # units by address
    exited: Mapping[bytes, int] = field(default_factory=dict)


def against_chain(chain: Chain, token: Token, records: Records, facts: Facts, block: int) -> list[Difference]:
    """Differences between the books and a vault."""
    flows = records.flows
    with records.books.reading():
        coins = records.ledger.balances([VAULT]).get((token_asset(token.number), VAULT), 0)
        waiting = flows.waiting(token.number)
        done = flows.withdrawals("token = ? AND state = ?", (token.number, WithdrawalState.PAID))
        credited = {deposit.evidence: _credited(records.books, token, deposit.evidence) for deposit in facts.deposits}
    vault = _Vault(chain, token, block)
    unposted = [row for row in waiting if row.seq in facts.paid]
    by_claim = [row for row in [*done, *unposted] if row.route == Route.CLAIM]
    in_part = sum(facts.claimed.values()) - units_of(token, by_claim)
    expected = (
        token.to_units(coins)
        + sum(deposit.units - (credited[deposit.evidence] or 0) for deposit in facts.deposits)
        - units_of(token, unposted)
        + vault.number("owed_units")
        - in_part
        - sum(facts.exited.values())
    )
    deposited = vault.number("deposited_units")
    held = deposited - vault.number("released_units")
    logged = sum(deposit.units for deposit in facts.deposits)
    balance = vault.coins()
    place = f"{token.symbol} on {token.network.name} at block {block}"
    found = [Difference("held by the vault", place, expected, held)] if held != expected else []
    if deposited != logged:
        found.append(Difference("deposits by the vault's count", place, logged, deposited))
    if balance < held:
        found.append(Difference("coins of the vault", place, f">= {held}", balance))
    found += _claims(token, [*done, *waiting], facts, place)
    return found + _addresses(vault, token, [*done, *unposted], facts, place)


def _credited(ledger: Database, token: Token, evidence: Evidence) -> int | None:
    query = "SELECT quantity_micros FROM credits WHERE token = ? AND tx_hash = ? AND position = ?"
    row = ledger.one(query, (token.number, *evidence))
    return None if row is None else token.to_units(row[0])


def _claims(token: Token, rows: list[Withdrawal], facts: Facts, place: str) -> list[Difference]:
    """Claims for which no withdrawal was set aside: by a root that was not ours, or of money that was given back."""
    asked: dict[bytes, int] = defaultdict(int)
    for row in rows:
        if row.route == Route.CLAIM:
            asked[row.home] += units_of(token, [row])
    return [
        Difference(f"claimed by {to_checksum_address(address)}", place, f"<= {asked[address]}", units)
        for address, units in sorted(facts.claimed.items())
        if units > asked[address]
    ]


def _addresses(vault: "_Vault", token: Token, paid: list[Withdrawal], facts: Facts, place: str) -> list[Difference]:
    """What each address was ever paid, by the books and by the vault."""
    expected: dict[bytes, int] = defaultdict(int)
    for row in paid:
        if row.route != Route.CLAIM:
            expected[row.home] += units_of(token, [row])
    for units in (facts.claimed, facts.exited):
        for address, amount in units.items():
            expected[address] += amount
    owners = [to_checksum_address(address) for address in sorted(expected)]
    return [
        Difference(f"paid to {owner}", place, expected[to_canonical_address(owner)], said)
        for owner, said in zip(owners, vault.numbers("paid", owners), strict=True)
        if said != expected[to_canonical_address(owner)]
    ]


class _Vault:
    """A vault as it was after a block."""

    def __init__(self, chain: Chain, token: Token, block: int) -> None:
        self._chain, self._token, self._block = chain, token, block

    def number(self, function: str, *arguments: object) -> int:
        vault = interface("Vault")
        return int(
            vault.result(function, self._chain.call(self._token.vault, vault.call(function, *arguments), self._block))
        )

    def numbers(self, function: str, arguments: Sequence[object]) -> list[int]:
        """Of one function for many arguments."""
        vault = interface("Vault")
        datas = [vault.call(function, argument) for argument in arguments]
        return [int(vault.result(function, data)) for data in self._chain.calls(self._token.vault, datas, self._block)]

    def coins(self) -> int:
        coin = interface("TestDollar")  # every ERC-20 answers this
        data = coin.call("balanceOf", to_checksum_address(self._token.vault))
        return int(coin.result("balanceOf", self._chain.call(self._token.address, data, self._block)))


def against_engine(records: Records, view: EngineView) -> list[Difference]:
    """Differences between the engine's money and the ledger's after the same command. The ledger must have got that far."""
    balances = _balances_at(records, view.seq)
    free, locked = np.zeros_like(view.free_micros), np.zeros_like(view.locked_micros)
    custody = 0
    for (asset, account), amount in balances.items():
        if asset != STABLECOIN:
            continue
        owner, role = account >> 4, account & (FIRST_USER - 1)
        if account == CUSTODY or (owner and role == Role.WITHDRAWING):
            custody -= amount
        elif owner:
            (free if role in (Role.AVAILABLE, Role.HELD) else locked)[owner] += amount
    found = []
    for what, ours, theirs in (("cash", free, view.free_micros), ("escrow and bond", locked, view.locked_micros)):
        for owner in np.flatnonzero(ours != theirs).tolist():
            found.append(
                Difference(f"{what} of the engine", f"account {owner}", int(theirs[owner]), int(ours[owner]), view.seq)
            )
    if custody != view.custody_micros:
        found.append(Difference("custody of the engine", "ledger", view.custody_micros, custody, view.seq))
    return found


def _balances_at(records: Records, seq: int) -> Balances:
    """From now backwards, because the engine's view is of a moment ago."""
    with records.books.reading():
        balances = records.ledger.balances()
        for rows in records.ledger.transfers(seq + 1, records.ledger.head().applied_seq):
            for asset, account, change in zip(*(column.tolist() for column in changes_of(rows)), strict=True):
                balances[asset, account] = balances.get((asset, account), 0) - change
    return balances
