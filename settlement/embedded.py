"""A chain inside this process: the EVM of py-evm behind web3, with a test dollar and a vault, for demonstrations and tests.

The contracts are the ones that ship, and every transaction is signed, sent and looked for as on any chain; only nobody
else is on it, and it is gone with the process. Its keys are known to everybody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import rlp
from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.exceptions import BlockNotFound, TransactionFailed, ValidationError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError as EvmError
from web3.exceptions import ContractLogicError, Web3RPCError
from web3.providers.eth_tester import EthereumTesterProvider

from settlement.abi import Interface, interface
from settlement.chain import Chain, ChainError, Receipt, Sent
from settlement.outbox import hash_of
from settlement.signer import MemorySigner, Signer, Transaction
from settlement.stablecoins import Issuer, Limits, Network, Status, Token
from settlement.vault import GUARDIAN_ROLE, LOCKER_ROLE, ROOT_SETTER_ROLE, SETTLER_ROLE

FINALITY = 2
"""Blocks, on a chain where nothing is ever reorganised."""
DAY_S = 86_400
GAS, CALL_GAS = 12_000_000, 600_000
"""Of a deployment, and of anything else: to ask for an estimate costs more time here than to run it."""


class _Provider(EthereumTesterProvider):
    """Says what went wrong in the words of a node."""

    def make_request(self, method: Any, params: Any) -> Any:
        try:
            return super().make_request(method, params)
        except TransactionFailed as error:
            raise ContractLogicError(str(error)) from error
        except (ValidationError, EvmError, BlockNotFound) as error:
            raise Web3RPCError(str(error)) from error


class Embedded:
    """The chain. `mine` makes a block; each transaction makes one too."""

    def __init__(self) -> None:
        self.tester = EthereumTester(PyEVMBackend())
        self.secrets = [bytes(key) for key in _secrets(self.tester)]
        self.chain = Chain(_Provider(self.tester), FINALITY, MemorySigner(self.secrets[0]).address)

    def mine(self, blocks: int = 1) -> None:
        self.tester.mine_blocks(blocks)

    def advance(self, blocks: int, seconds: int) -> None:
        """Make blocks, the first so many seconds later."""
        if seconds:
            self.pass_time(seconds)
        self.mine(blocks)

    def pass_time(self, seconds: int) -> None:
        """Let the chain's clock run ahead."""
        now_s = self.chain.head().timestamp_s
        self.tester.time_travel(now_s + seconds)


def _secrets(tester: Any) -> list[Any]:
    return [key.to_bytes() for key in tester.backend.account_keys]


class Deployer:
    """Sends transactions of a key and waits for them: for setting up, never for settlement."""

    def __init__(self, chain: Chain, signer: Signer, wait: Callable[[], None] = lambda: None) -> None:
        """`wait` is called until a transaction is in a block."""
        self.chain = chain
        self._signer = signer
        self._wait = wait
        self._chain_id = chain.chain_id()

    @property
    def address(self) -> bytes:
        return self._signer.address

    def deploy(self, contract: Interface, *arguments: Any) -> bytes:
        """The address of a new contract. Raises ChainError."""
        nonce = self.chain.nonce(self.address)
        self._send(b"", contract.deployment(*arguments), GAS)
        return created(self.address, nonce)

    def call(self, contract: Interface, address: bytes, function: str, *arguments: Any) -> Receipt:
        """Raises ChainError when it is reverted."""
        return self._send(address, contract.call(function, *arguments), CALL_GAS)

    def _send(self, to: bytes, data: bytes, gas: int) -> Receipt:
        fees = self.chain.fees()
        transaction = Transaction(
            self._chain_id, self.chain.nonce(self.address), to, data, gas,
            2 * fees.base_wei + fees.priority_wei, fees.priority_wei,
        )  # fmt: skip
        raw = transaction.raw(self._signer.sign(transaction.digest))
        said, why = self.chain.send(raw)
        if said != Sent.TAKEN:
            raise ChainError(f"the chain did not take a transaction: {why}")
        while (receipt := self.chain.receipt(hash_of(raw))) is None:
            self._wait()
        if not receipt.ok:
            raise ChainError(f"transaction 0x{receipt.tx_hash.hex()} was reverted")
        return receipt


def created(sender: bytes, nonce: int) -> bytes:
    """The address that a deployment gets."""
    return bytes(keccak(rlp.encode([sender, nonce]))[12:])


@dataclass(frozen=True)
class Roles:
    """The keys of a vault, one a role."""

    admin: Signer
    settler: Signer
    root_setter: Signer
    locker: Signer
    guardian: Signer
    signers: tuple[Signer, ...]


def development_roles(secrets: list[bytes]) -> Roles:
    """From keys that everybody knows; the last three sign withdrawals, two of them at a time."""
    keys = [MemorySigner(secret) for secret in secrets]
    signers = tuple(sorted(keys[-3:], key=lambda key: key.address))
    admin, settler, root_setter, locker, guardian = keys[:5]
    return Roles(admin, settler, root_setter, locker, guardian, signers)


@dataclass(frozen=True, slots=True)
class Terms:
    """Of a new vault."""

    dispute_window_s: int = 2 * 3_600
    exit_window_s: int = 7 * DAY_S
    threshold: int = 2
    daily_limit_units: int = 10**18


def deploy_vault(deployer: Deployer, coin: bytes, roles: Roles, terms: Terms) -> bytes:
    """A vault with its roles given out; the deployer must be the admin."""
    vault = interface("Vault")
    signers = [to_checksum_address(signer.address) for signer in roles.signers]
    address = deployer.deploy(
        vault, to_checksum_address(coin), to_checksum_address(roles.admin.address), terms.dispute_window_s,
        terms.exit_window_s, signers, terms.threshold, terms.daily_limit_units,
    )  # fmt: skip
    for role, signer in (
        (SETTLER_ROLE, roles.settler),
        (ROOT_SETTER_ROLE, roles.root_setter),
        (LOCKER_ROLE, roles.locker),
        (GUARDIAN_ROLE, roles.guardian),
    ):
        deployer.call(vault, address, "grantRole", role, to_checksum_address(signer.address))
    return address


DEVELOPMENT_ISSUER = Issuer("nobody: test dollars are worth nothing", (Status(date(2025, 1, 1), "permitted"),))


def deploy_dollar(deployer: Deployer, network: Network, roles: Roles, terms: Terms, number: int = 1) -> Token:
    """A test dollar and its vault, as the registry has them."""
    coin = interface("TestDollar")
    name = f"Test Dollar {number}"
    address = deployer.deploy(coin, name, f"TUSD{number}")
    vault = deploy_vault(deployer, address, roles, terms)
    chain = deployer.chain
    return Token(
        number=number, symbol=f"TESTUSD{number}", network=network, address=address, vault=vault, decimals=6, name=name,
        version="2", code_hash=chain.code_hash(address), vault_code_hash=chain.code_hash(vault),
        issuer=DEVELOPMENT_ISSUER, limits=Limits(),
    )  # fmt: skip
