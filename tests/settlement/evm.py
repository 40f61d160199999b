"""A chain in this process, for tests of contracts: pyrevm, one transaction after the other, with a clock one can set."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from pyrevm import EVM, BlockEnv, CfgEnv, Env

from settlement.abi import Decoded, Interface, revert_reason

START_S = 1_800_000_000
CHAIN_ID = 31_337
_OUTPUT = re.compile(r"output: 0x([0-9a-f]*)")
_NOBODY = "0x" + "00" * 19 + "01"


class Reverted(Exception):
    """A transaction was reverted; the text is its reason."""


@dataclass(frozen=True)
class Receipt:
    """What a transaction did: its return value and the events of the contract that was called."""

    value: Any
    events: list[Decoded]

    def event(self, name: str) -> dict[str, Any]:
        """The values of the only event of this name."""
        (found,) = [dict(event.values) for event in self.events if event.name == name]
        return found


class Chain:
    """An EVM with a clock. What it says about gas holds for a first transaction only: what is warm stays warm."""

    def __init__(self, chain_id: int = CHAIN_ID) -> None:
        self.chain_id = chain_id
        self.now_s = START_S
        self.evm = EVM(Env(cfg=CfgEnv(chain_id=chain_id)), spec_id="CANCUN")

    def pass_s(self, seconds: int) -> None:
        self.now_s += seconds

    def deploy(self, contract: Interface, *arguments: Any, sender: LocalAccount) -> "Deployed":
        """Raises Reverted."""
        self._block()
        with _reasons():
            address = self.evm.deploy(sender.address, contract.deployment(*arguments))
        return Deployed(self, contract, str(to_checksum_address(address)))

    def send(self, sender: str, to: str, data: bytes, gas: int | None = None) -> bytes:
        """Raises Reverted."""
        self._block()
        with _reasons():
            return bytes(self.evm.message_call(sender, to, data, gas=gas))

    def look(self, to: str, data: bytes) -> bytes:
        self._block()
        with _reasons():
            return bytes(self.evm.message_call(_NOBODY, to, data, is_static=True))

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Everything inside is undone at the end, the clock too."""
        now_s, before = self.now_s, self.evm.snapshot()
        try:
            yield
        finally:
            self.evm.revert(before)
            self.now_s = now_s

    def _block(self) -> None:
        self.evm.set_block_env(BlockEnv(number=1, timestamp=self.now_s, gas_limit=2**63))
        self.evm.reset_transient_storage()


class Deployed:
    """A contract on the chain, called by the names of its ABI."""

    def __init__(self, chain: Chain, contract: Interface, address: str) -> None:
        self.chain = chain
        self.contract = contract
        self.address = address

    def send(self, sender: LocalAccount, function: str, *arguments: Any, gas: int | None = None) -> Receipt:
        """A transaction. Raises Reverted."""
        returned = self.chain.send(sender.address, self.address, self.contract.call(function, *arguments), gas)
        value = self.contract.result(function, returned) if returned else None
        logs = [log for log in self.chain.evm.result.logs if to_checksum_address(log.address) == self.address]
        decoded = [self.contract.event(*log.data) for log in logs]
        return Receipt(value, [event for event in decoded if event])

    def read(self, function: str, *arguments: Any) -> Any:
        return self.contract.result(function, self.chain.look(self.address, self.contract.call(function, *arguments)))


def person(number: int) -> LocalAccount:
    """A key with its address: always the same for a number."""
    return Account.from_key((0xACC0 << 16 | number).to_bytes(32, "big"))


def sign(key: LocalAccount, digest: bytes) -> tuple[int, bytes, bytes]:
    """(v, r, s) of a digest."""
    signed = key.unsafe_sign_hash(digest)
    return signed.v, signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big")


def signature(key: LocalAccount, digest: bytes) -> bytes:
    """r + s + v: 65 bytes."""
    return bytes(key.unsafe_sign_hash(digest).signature)


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        output = _OUTPUT.search(str(error))
        raise Reverted(revert_reason(bytes.fromhex(output[1])) if output else str(error)) from None
