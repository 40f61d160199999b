"""What was signed and what became of it: the part of settlement that cannot be made again from the log.

    SIGNED -> SENT -> MINED -> FINAL | REVERTED | REPLACED

That somebody is to be paid is a row of the ledger, written in the transaction that debits him (`settlement/flows.py`).
This file keeps how: a transaction is signed once; its nonce, bytes and hash are on the disk before a node sees them; a
start sends the same bytes again, however far the last run got. To offer more for it, it is signed again with the same
nonce and the same call, so at most one of the attempts can ever be in the chain. What happened is read from blocks
that are final: FINAL when one of the attempts succeeded there and said what was planned, REPLACED when the nonce was
used by something else, with the hash of that as the proof.

MINED is a remark: a reorganisation takes it back, and the bytes are sent again.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from eth_utils.crypto import keccak

from settlement.abi import Interface
from settlement.chain import Chain, Fees, Receipt, Sent
from settlement.database import Database
from settlement.signer import Guard, Request, Transaction
from settlement.stablecoins import Network

log = logging.getLogger(__name__)

BUMP_PERMILLE = 1_125
"""Nodes replace a transaction only for an eighth more than it offered."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS senders (
    chain_id INTEGER NOT NULL,
    address BLOB NOT NULL,
    first_nonce INTEGER NOT NULL,
    PRIMARY KEY (chain_id, address)
) STRICT;
CREATE TABLE IF NOT EXISTS transactions (
    id INTEGER PRIMARY KEY,
    purpose TEXT NOT NULL,
    chain_id INTEGER NOT NULL,
    sender BLOB NOT NULL,
    nonce INTEGER NOT NULL,
    target BLOB NOT NULL,
    data BLOB NOT NULL,
    gas INTEGER NOT NULL,
    event TEXT NOT NULL,
    expected TEXT NOT NULL,
    facts TEXT NOT NULL,
    made_s INTEGER NOT NULL,
    state INTEGER NOT NULL,
    block_number INTEGER,
    tx_hash BLOB,
    UNIQUE (chain_id, sender, nonce)
) STRICT;
CREATE INDEX IF NOT EXISTS transactions_of_purpose ON transactions (purpose);
CREATE INDEX IF NOT EXISTS transactions_under_way ON transactions (chain_id, sender, nonce) WHERE state < 10;
CREATE TABLE IF NOT EXISTS attempts (
    tx_hash BLOB PRIMARY KEY,
    transaction_id INTEGER NOT NULL REFERENCES transactions (id),
    raw BLOB NOT NULL,
    max_fee_wei INTEGER NOT NULL,
    priority_wei INTEGER NOT NULL,
    made_s INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS attempts_of_transaction ON attempts (transaction_id)
"""


class TxState(IntEnum):
    SIGNED = 0
    SENT = 1
    MINED = 2
    FINAL = 10
    REVERTED = 11  # it used its nonce and did nothing
    REPLACED = 12  # its nonce was used by something else, `tx_hash`


class OutboxError(RuntimeError):
    """What the chain says does not fit what was signed here. Nobody may be paid until somebody has looked."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A call to be made, and the event that proves it: `expected` holds some of its values, all of which must be equal."""

    purpose: str
    chain_id: int
    target: bytes
    data: bytes
    event: str
    expected: Mapping[str, Any]
    facts: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of `transactions`."""

    id: int
    purpose: str
    chain_id: int
    sender: bytes
    nonce: int
    target: bytes
    data: bytes
    gas: int
    event: str
    expected: Mapping[str, Any]
    facts: tuple[Any, ...]
    made_s: int
    state: TxState
    block_number: int | None
    tx_hash: bytes | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signing of a transaction."""

    tx_hash: bytes
    raw: bytes
    max_fee_wei: int
    priority_wei: int
    made_s: int


@dataclass(frozen=True, slots=True)
class Sender:
    """A key, the node through which it sends, and the contract it speaks to."""

    chain: Chain
    network: Network
    guard: Guard
    contract: Interface


class Outbox:
    """The transactions of one sender on one chain. One thread uses it."""

    def __init__(self, database: Database, sender: Sender, now_s: Callable[[], int]) -> None:
        self._database = database
        self._chain, self._network = sender.chain, sender.network
        self._guard, self._contract = sender.guard, sender.contract
        self._now_s = now_s
        with database.transaction():
            database.create(SCHEMA)

    @property
    def sender(self) -> bytes:
        return self._guard.address

    # What is there

    def entries(self, condition: str = "TRUE", values: tuple[Any, ...] = ()) -> list[Entry]:
        """This sender's rows that fit an SQL condition, in order of nonce."""
        query = f"SELECT * FROM transactions WHERE chain_id = ? AND sender = ? AND {condition} ORDER BY nonce"  # noqa: S608 - conditions are ours
        return [_entry(row) for row in self._database.rows(query, (self._network.chain_id, self.sender, *values))]

    def of(self, purpose: str) -> list[Entry]:
        """All that was ever signed for a purpose, oldest first; at most the last is under way."""
        return self.entries("purpose = ?", (purpose,))

    def under_way(self) -> list[Entry]:
        """Not final in any way."""
        return self.entries("state < ?", (TxState.FINAL,))

    def attempts(self, entry: Entry) -> list[Attempt]:
        """Oldest first."""
        query = "SELECT tx_hash, raw, max_fee_wei, priority_wei, made_s FROM attempts WHERE transaction_id = ? ORDER BY rowid"
        return [Attempt(*row) for row in self._database.rows(query, (entry.id,))]

    # Signing

    def put(self, plan: Plan, gas: int, also: Callable[[], None] = lambda: None) -> Entry:
        """Sign a plan and store it; `step` sends it. `also` writes in the same transaction. Raises Refused, SignerError,
        and OutboxError when something is under way for the same purpose.
        """
        if plan.chain_id != self._network.chain_id:
            raise OutboxError(
                f"{plan.purpose} is for chain {plan.chain_id}, this sender is on {self._network.chain_id}"
            )
        if any(entry.state < TxState.FINAL for entry in self.of(plan.purpose)):
            raise OutboxError(f"{plan.purpose} is under way already")
        fees = self._offer(self._chain.fees())
        first = self._first_nonce()
        with self._database.transaction():
            last = self._database.one(
                "SELECT MAX(nonce) FROM transactions WHERE chain_id = ? AND sender = ?",
                (self._network.chain_id, self.sender),
            )
            nonce = first if last is None or last[0] is None else last[0] + 1
            self._database.execute(
                "INSERT INTO transactions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
                (
                    plan.purpose, plan.chain_id, self.sender, nonce, plan.target, plan.data, gas, plan.event,
                    _pack(dict(plan.expected)), _pack(list(plan.facts)), self._now_s(), TxState.SIGNED,
                ),
            )  # fmt: skip
            (entry,) = self.entries("nonce = ?", (nonce,))
            self._sign(entry, fees)
            also()
        return entry

    def _sign(self, entry: Entry, fees: Fees) -> Attempt:
        """One more attempt, stored. In the caller's transaction."""
        transaction = Transaction(
            entry.chain_id, entry.nonce, entry.target, entry.data, entry.gas, fees.base_wei, fees.priority_wei
        )
        signature = self._guard.sign(Request(entry.purpose, transaction, entry.facts))
        raw = transaction.raw(signature)
        attempt = Attempt(hash_of(raw), raw, transaction.max_fee_wei, transaction.priority_wei, self._now_s())
        self._database.execute(
            "INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?, ?, ?)",
            (attempt.tx_hash, entry.id, raw, attempt.max_fee_wei, attempt.priority_wei, attempt.made_s),
        )
        return attempt

    def _offer(self, fees: Fees) -> Fees:
        """Room for the base fee to double; never above the limit. `base_wei` of the answer is the maximum in all."""
        ceiling = min(2 * fees.base_wei + fees.priority_wei, self._network.max_fee_wei)
        return Fees(ceiling, min(fees.priority_wei, ceiling))

    def _first_nonce(self) -> int:
        """Where this sender's own count began: what the chain said before the first transaction was signed here."""
        key = (self._network.chain_id, self.sender)
        row = self._database.one("SELECT first_nonce FROM senders WHERE chain_id = ? AND address = ?", key)
        if row is None:
            row = (self._chain.nonce(self.sender),)
            self._database.execute("INSERT INTO senders VALUES (?, ?, ?)", (*key, row[0]))
        return int(row[0])

    # Following

    def check(self) -> None:
        """Has the key been used elsewhere, or was this file lost or put back? Raises OutboxError."""
        known = self.entries()
        following = known[-1].nonce + 1 if known else self._first_nonce()
        used = self._chain.nonce(self.sender)
        if used > following:
            raise OutboxError(
                f"0x{self.sender.hex()} has used {used} nonces on chain {self._network.chain_id}, only those below"
                f" {following} are known here: the key was used elsewhere, or the outbox is not the newest one"
            )

    def step(self, final: int) -> list[Entry]:
        """Look at everything under way, send what is not in a block; returns what has become final. Blocks up to `final`
        are: the caller's, so that all it reads is of one moment.

        Raises OutboxError when a final event is not the planned one.
        """
        final_nonce = self._chain.nonce(self.sender, final)
        finished = []
        for entry in self.under_way():
            receipt = self._receipt(entry)
            if receipt is not None and receipt.block_number <= final:
                finished.append(self._finish(entry, receipt))
            elif receipt is not None:
                self._mark(entry, TxState.MINED, receipt.block_number, receipt.tx_hash)
            elif entry.nonce < final_nonce:
                replaced = self._replaced(entry, final)
                finished += [replaced] if replaced else []
            else:
                self._offer_again(entry)
        return finished

    def send(self) -> None:
        """Send what was signed and never sent."""
        for entry in self.entries("state = ?", (TxState.SIGNED,)):
            self._offer_again(entry)

    def _receipt(self, entry: Entry) -> Receipt | None:
        found = (self._chain.receipt(attempt.tx_hash) for attempt in self.attempts(entry))
        return next((receipt for receipt in found if receipt is not None), None)

    def _finish(self, entry: Entry, receipt: Receipt) -> Entry:
        if receipt.ok:
            self._require_planned(entry, receipt)
        state = TxState.FINAL if receipt.ok else TxState.REVERTED
        self._mark(entry, state, receipt.block_number, receipt.tx_hash)
        return self.entries("nonce = ?", (entry.nonce,))[0]

    def _require_planned(self, entry: Entry, receipt: Receipt) -> None:
        if not any(matches(self._contract, entry.event, entry.expected, log) for log in receipt.logs
                   if log.address == entry.target):  # fmt: skip
            raise OutboxError(
                f"{entry.purpose}: transaction 0x{receipt.tx_hash.hex()} succeeded without the event that was planned,"
                f" {entry.event} {entry.expected}"
            )

    def _replaced(self, entry: Entry, final: int) -> Entry | None:
        """The nonce is used up in final blocks, and by none of ours: by what? Nothing is decided without the answer."""
        found = self._chain.user_of_nonce(self.sender, entry.nonce, final)
        if found is None or found[0] in {attempt.tx_hash for attempt in self.attempts(entry)}:
            return None
        self._mark(entry, TxState.REPLACED, found[1], found[0])
        return self.entries("nonce = ?", (entry.nonce,))[0]

    def _offer_again(self, entry: Entry) -> None:
        """Send the newest attempt; when it has waited too long, first make one that offers more."""
        if entry.state == TxState.MINED:  # a reorganisation took its block back
            self._mark(entry, TxState.SENT, None, None)
        attempt = self.attempts(entry)[-1]
        if self._now_s() - attempt.made_s >= self._network.bump_after_s:
            attempt = self._bump(entry, attempt)
        said, why = self._chain.send(attempt.raw)
        if said == Sent.UNDERPRICED:
            said, why = self._chain.send(self._bump(entry, attempt).raw)
        if said == Sent.TAKEN:
            if entry.state == TxState.SIGNED:
                self._mark(entry, TxState.SENT, None, None)
        elif said != Sent.NONCE_USED:  # which the receipts will explain
            log.warning("%s: the node does not take it: %s", entry.purpose, why)

    def _bump(self, entry: Entry, attempt: Attempt) -> Attempt:
        """A new attempt for the same nonce and call, for an eighth more or what the chain asks for now."""
        now = self._offer(self._chain.fees())
        ceiling = max(now.base_wei, raised(attempt.max_fee_wei))
        if ceiling > self._network.max_fee_wei:
            return attempt
        priority = min(max(now.priority_wei, raised(attempt.priority_wei)), ceiling)
        with self._database.transaction():
            return self._sign(entry, Fees(ceiling, priority))

    def _mark(self, entry: Entry, state: TxState, block_number: int | None, tx_hash: bytes | None) -> None:
        if (entry.state, entry.block_number, entry.tx_hash) != (state, block_number, tx_hash):
            self._database.execute(
                "UPDATE transactions SET state = ?, block_number = ?, tx_hash = ? WHERE id = ?",
                (state, block_number, tx_hash, entry.id),
            )


def raised(wei: int) -> int:
    """An eighth more, rounded up."""
    return -(-wei * BUMP_PERMILLE // 1_000)


def hash_of(raw: bytes) -> bytes:
    """Under which a chain knows a transaction."""
    return keccak(raw)


def matches(contract: Interface, event: str, expected: Mapping[str, Any], said: Any) -> bool:
    """Whether a log is this event with these values."""
    decoded = contract.event(said.topics, said.data)
    return (
        decoded is not None
        and decoded.name == event
        and all(name in decoded.values and decoded.values[name] == value for name, value in expected.items())
    )


def _pack(value: Any) -> str:
    return json.dumps(value, default=lambda data: {"hex": data.hex()})


def _unpack(text: str) -> Any:
    return json.loads(text, object_hook=lambda found: bytes.fromhex(found["hex"]) if found.keys() == {"hex"} else found)


def _entry(row: tuple[Any, ...]) -> Entry:
    values = list(row)
    values[9], values[10], values[12] = _unpack(row[9]), _tuple(_unpack(row[10])), TxState(row[12])
    return Entry(*values)


def _tuple(value: Any) -> Any:
    return tuple(_tuple(part) for part in value) if isinstance(value, list) else value
