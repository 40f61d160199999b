"""A node of a chain. The only file that speaks to one (web3.py); everything else works on the values below.

Every read that decides something names its block: `finalized` says up to where a chain can be believed, by the node's
own tag or by depth. A transaction is known by its hash only until it is final, a log by its place within its
transaction, never by its number in the block: both of the others change in a reorganisation.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from requests.exceptions import RequestException
from web3 import HTTPProvider, Web3
from web3.exceptions import (
    BadFunctionCallOutput,
    BlockNotFound,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)
from web3.providers import BaseProvider

TIMEOUT_S = 10
LOGS_SPAN = 2_000
"""Blocks asked for at once: what public nodes allow."""
CALLS_AT_ONCE = 100
PRIORITY_FEE_WEI = 1_000_000_000
"""Where a node suggests none."""


class ChainError(RuntimeError):
    """The node cannot be reached or gave no sensible answer. Nothing is known: try again later."""


class CallRefused(RuntimeError):
    """A contract refused a call; the message is its reason."""


@dataclass(frozen=True, slots=True)
class Block:
    number: int
    hash: bytes
    timestamp_s: int


@dataclass(frozen=True, slots=True)
class Log:
    """What a contract said. `position` counts the logs of its transaction."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    position: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transaction in a block. When `ok` is false it was reverted, and used its nonce all the same."""

    tx_hash: bytes
    block_number: int
    block_hash: bytes
    ok: bool
    gas_used: int
    logs: tuple[Log, ...]


@dataclass(frozen=True, slots=True)
class Fees:
    """Wei for a unit of gas."""

    base_wei: int
    priority_wei: int


class Sent(Enum):
    """What the node said to raw bytes. None of it is proof of anything; receipts are."""

    TAKEN = "taken"  # or known already
    NONCE_USED = "nonce used"
    UNDERPRICED = "underpriced"
    REFUSED = "refused"


class Chain:
    """One node. Every method raises ChainError when it does not answer."""

    def __init__(self, provider: BaseProvider, finality: int | None = None, caller: bytes | None = None) -> None:
        """`finality` is the depth in blocks from which a block is final; None takes the node's own word for it. `caller`
        is who asks, on a chain where asking must be paid for.
        """
        self._web3 = Web3(provider)
        # It asks for the chain's id before each call, and takes the blocks of some chains for faulty.
        self._web3.middleware_onion.remove("validation")
        self._caller = caller
        self._finality = finality

    @classmethod
    def at(cls, url: str, finality: int | None = None) -> "Chain":
        """The node at an HTTP address."""
        return cls(HTTPProvider(url, request_kwargs={"timeout": TIMEOUT_S}), finality)

    def chain_id(self) -> int:
        with _answered():
            return int(self._web3.eth.chain_id)

    def head(self) -> Block:
        """The newest block."""
        with _answered():
            return _block(self._web3.eth.get_block("latest"))

    def finalized(self) -> Block:
        """The newest block that no reorganisation can take back."""
        if self._finality is None:
            with _answered():
                return _block(self._web3.eth.get_block("finalized"))
        return self.block(max(0, self.head().number - self._finality))

    def block(self, number: int) -> Block:
        """Of the chain as it is now."""
        with _answered():
            return _block(self._web3.eth.get_block(number))

    def nonce(self, address: bytes, at: int | None = None) -> int:
        """How many transactions of an address are in blocks, up to block `at` or the newest."""
        with _answered():
            return int(self._web3.eth.get_transaction_count(_text(address), "latest" if at is None else at))

    def balance(self, address: bytes) -> int:
        """Wei, for gas."""
        with _answered():
            return int(self._web3.eth.get_balance(_text(address)))

    def fees(self) -> Fees:
        """What the next block will ask for, and what the node would add."""
        with _answered():
            base = self._web3.eth.get_block("latest").get("baseFeePerGas", 0)
            try:
                priority = int(self._web3.eth.max_priority_fee)
            except Web3Exception:
                priority = PRIORITY_FEE_WEI
            return Fees(int(base), priority)

    def code_hash(self, address: bytes) -> bytes:
        """keccak256 of the code at an address."""
        return keccak(self.code(address))

    def code(self, address: bytes) -> bytes:
        with _answered():
            return bytes(self._web3.eth.get_code(_text(address)))

    def call(self, address: bytes, data: bytes, at: int | None = None, sender: bytes | None = None) -> bytes:
        """What a call returns, in the state after block `at` or the newest. Raises CallRefused when it is reverted."""
        with _answered():
            return bytes(self._web3.eth.call(self._request(address, data, sender), "latest" if at is None else at))

    def calls(self, address: bytes, datas: Sequence[bytes], at: int) -> list[bytes]:
        """What many calls of one contract return, in the state after block `at`: CALLS_AT_ONCE in a request, where the
        provider can. Raises CallRefused.
        """
        if not isinstance(self._web3.provider, HTTPProvider):
            return [self.call(address, data, at) for data in datas]
        found: list[bytes] = []
        for start in range(0, len(datas), CALLS_AT_ONCE):
            with _answered(), self._web3.batch_requests() as batch:
                for data in datas[start : start + CALLS_AT_ONCE]:
                    batch.add(self._web3.eth.call(self._request(address, data), at))
                answers: Any = batch.execute()
                found += [bytes(answer) for answer in answers]
        return found

    def _request(self, address: bytes, data: bytes, sender: bytes | None = None) -> Any:
        request: Any = {"to": _text(address), "data": HexBytes(data)}
        caller = sender or self._caller
        return request | {"from": _text(caller)} if caller else request

    def gas(self, sender: bytes, address: bytes, data: bytes) -> int:
        """What a call would use. Raises CallRefused when it would be reverted."""
        with _answered():
            return int(
                self._web3.eth.estimate_gas({"from": _text(sender), "to": _text(address), "data": HexBytes(data)})
            )

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        """Of a transaction that is in a block of the chain as it is now."""
        with _answered():
            try:
                found = self._web3.eth.get_transaction_receipt(HexBytes(tx_hash))
            except TransactionNotFound:
                return None
        return None if found is None or found["blockHash"] is None else _receipt(found)

    def receipts_with(
        self, addresses: Sequence[bytes], topics: Sequence[bytes | None], first: int, last: int
    ) -> list[Receipt]:
        """Of the transactions in blocks `first` to `last` in which one of the addresses logged these topics, in order;
        None stands for any.
        """
        hashes: dict[bytes, None] = {}
        for start in range(first, last + 1, LOGS_SPAN):
            with _answered():
                logs = self._web3.eth.get_logs(
                    {
                        "address": [_text(address) for address in addresses],
                        "topics": [None if topic is None else "0x" + topic.hex() for topic in topics],
                        "fromBlock": start,
                        "toBlock": min(last, start + LOGS_SPAN - 1),
                    }
                )
            hashes |= dict.fromkeys(bytes(log["transactionHash"]) for log in logs)
        # One may be gone again by now; it is then found in its new block the next time.
        receipts = (self.receipt(tx_hash) for tx_hash in hashes)
        return [receipt for receipt in receipts if receipt is not None]

    def send(self, raw: bytes) -> tuple[Sent, str]:
        """Hand in a signed transaction; the same bytes may be handed in any number of times."""
        try:
            with _answered():
                self._web3.eth.send_raw_transaction(HexBytes(raw))
        except (CallRefused, ChainError) as error:
            if isinstance(error.__cause__, RequestException | OSError):
                raise
            return _understand(str(error)), str(error)
        return Sent.TAKEN, ""

    def mine(self, blocks: int = 1, seconds: int = 0) -> None:
        """Have a development node make blocks, the first so many seconds later. Raises ChainError where it is no such node."""
        with _answered():
            for method, parameters in [("evm_increaseTime", [seconds])] * bool(seconds) + [("evm_mine", [])] * blocks:
                answer = self._web3.provider.make_request(method, parameters)  # type: ignore[arg-type]
                if "error" in answer:
                    raise ChainError(f"{method}: {answer['error']}")

    def user_of_nonce(self, sender: bytes, nonce: int, last: int) -> tuple[bytes, int] | None:
        """The hash of the transaction with which an address used a nonce, and its block, not after block `last`."""
        if self.nonce(sender, last) <= nonce:
            return None
        low, high = 0, last  # in (low, high] the count passes the nonce
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.nonce(sender, middle) > nonce else (middle, high)
        with _answered():
            block = self._web3.eth.get_block(high, full_transactions=True)
        for transaction in block["transactions"]:
            assert not isinstance(transaction, HexBytes)
            if transaction["from"] == _text(sender) and transaction["nonce"] == nonce:
                return bytes(transaction["hash"]), high
        return None


@contextlib.contextmanager
def _answered() -> Any:
    """Turns what web3 and the network raise into ChainError and CallRefused."""
    try:
        yield
    except ContractLogicError as error:
        raise CallRefused(str(error.message or error)) from error
    except BadFunctionCallOutput as error:
        raise CallRefused("no contract answers there") from error
    except BlockNotFound as error:
        raise ChainError(f"the node does not know the block: {error}") from error
    except Web3RPCError as error:
        raise ChainError(str(error.message or error)) from error
    except (Web3Exception, RequestException, OSError, ValueError) as error:
        raise ChainError(str(error) or type(error).__name__) from error


def _understand(message: str) -> Sent:
    """Nodes have no codes for this; these are the words of geth, reth, nethermind, erigon and anvil."""
    text = message.lower()
    if "already known" in text or "already imported" in text or "known transaction" in text:
        return Sent.TAKEN
    if "nonce too low" in text or "oldnonce" in text or "invalid transaction nonce" in text:
        return Sent.NONCE_USED
    if "underpriced" in text or "fee too low" in text or "max fee per gas less than" in text:
        return Sent.UNDERPRICED
    return Sent.REFUSED


def _text(address: bytes) -> Any:
    return to_checksum_address(address)


def _block(found: Any) -> Block:
    return Block(int(found["number"]), bytes(found["hash"]), int(found["timestamp"]))


def _receipt(found: Any) -> Receipt:
    logs = tuple(
        Log(
            bytes.fromhex(log["address"][2:]), tuple(bytes(topic) for topic in log["topics"]), bytes(HexBytes(log["data"])), at
        )
        for at, log in enumerate(sorted(found["logs"], key=lambda log: int(log["logIndex"])))
    )  # fmt: skip
    return Receipt(
        bytes(found["transactionHash"]),
        int(found["blockNumber"]),
        bytes(found["blockHash"]),
        int(found["status"]) == 1,
        int(found["gasUsed"]),
        logs,
    )
