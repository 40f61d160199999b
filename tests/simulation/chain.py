"""A chain under the simulation's seed: the contracts that ship, on a real EVM, behind a node that is slow, lies and forgets.

It stands where `settlement.chain.Chain` does. Blocks come late or without what was sent; transactions are lost, come twice,
or are handed in by a stranger; up to the last final block everything may be taken back; a request may go unanswered, also
after it was carried out; and the exchange may die at each.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import rlp
from eth_account import Account
from eth_utils.address import to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

from settlement.abi import interface
from settlement.chain import Block, CallRefused, ChainError, Fees, Log, Receipt, Sent
from settlement.embedded import DEVELOPMENT_ISSUER, Roles, development_roles
from settlement.signer import TYPE_2
from settlement.stablecoins import Limits, Network, Stablecoins, Token
from settlement.vault import GUARDIAN_ROLE, LOCKER_ROLE, ROOT_SETTER_ROLE, SETTLER_ROLE
from tests.settlement.evm import Chain as Machine
from tests.settlement.evm import Reverted
from tests.simulation.disk import Disk

CHAIN_ID = 31_337
FINALITY = 4
KEPT_STATES = 64  # of blocks, before the last final one
DISPUTE_WINDOW_S, EXIT_WINDOW_S = 1, 7 * 86_400
SECRETS = [(0x51E1 + number).to_bytes(32, "big") for number in range(12)]
WALLET_UNITS = 10**13
GWEI = 10**9
BASE_WEI = (GWEI, 60 * GWEI)
SPARE_GAS = 300_000
LIMITS = Limits(account_hour_micros=10**15, account_day_micros=10**16)  # nothing waits an hour
STRANGER = to_checksum_address(b"\x5a" * 20)
# Chances: of a block to leave a transaction out or to come again as another one, and so on.
LEFT_OUT, LOST, EVICTED, RETURNED, REPEATED, STOLEN = 0.2, 0.05, 0.02, 0.6, 0.05, 0.03
UNANSWERED, MOVES_ON, REORGANISED = 0.01, 0.02, 0.15


@dataclass(frozen=True, slots=True)
class Handed:
    """A transaction as it was handed in."""

    hash: bytes
    sender: bytes
    nonce: int
    to: bytes
    data: bytes
    gas: int
    max_fee_wei: int
    priority_wei: int


@dataclass
class Mined:
    """A block, what was in it, and how many transactions of each sender the chain has with it."""

    number: int
    hash: bytes
    timestamp_s: int
    transactions: list[Handed]
    nonces: dict[bytes, int]
    receipts: list[Receipt] = field(default_factory=list)

    @property
    def header(self) -> Block:
        return Block(self.number, self.hash, self.timestamp_s)


def decoded(raw: bytes) -> Handed:
    """A signed transaction's bytes."""
    _, nonce, priority, ceiling, gas, to, _, data, *_ = rlp.decode(raw[1:])
    sender = to_canonical_address(Account.recover_transaction(raw))
    numbers = (int.from_bytes(part, "big") for part in (nonce, gas, ceiling, priority))
    nonce, gas, ceiling, priority = numbers
    return Handed(keccak(raw), sender, nonce, bytes(to), bytes(data), gas, ceiling, priority)


class SimChain:
    """The chain and its one node. `tick` is what happens there by itself."""

    def __init__(self, seed: int, disk: Disk, now_s: Callable[[], int]) -> None:
        self.rng = random.Random(f"{seed} chain")
        self.disk, self.now_s = disk, now_s
        self.calm = False  # nothing goes wrong any more
        self.reorgs = 0
        self.heard: dict[bytes, Handed] = {}
        self.final = 0
        self._pool: dict[tuple[bytes, int], Handed] = {}
        self._base_wei = GWEI
        self._machine = Machine(CHAIN_ID)
        self._machine.now_s = now_s()
        self._known: dict[tuple[bytes, bytes, bytes], bytes | CallRefused] = {}
        self.roles: Roles = development_roles(SECRETS)
        self.coins = self._deploy()
        self.blocks = [Mined(0, keccak(f"{seed}".encode()), now_s(), [], {})]
        self._at, self._snapshots = 0, [self._machine.evm.snapshot()]

    # --- The contracts ------------------------------------------------------------------------------------------------

    def _deploy(self) -> Stablecoins:
        machine, roles, admin = self._machine, self.roles, Account.from_key(SECRETS[0])
        coin = machine.deploy(interface("TestDollar"), "Test Dollar", "TUSD", sender=admin)
        signers = [to_checksum_address(signer.address) for signer in roles.signers]
        vault = machine.deploy(
            interface("Vault"), coin.address, admin.address, DISPUTE_WINDOW_S, EXIT_WINDOW_S, signers, 2, 10**18,
            sender=admin,
        )  # fmt: skip
        for role, signer in (
            (SETTLER_ROLE, roles.settler), (ROOT_SETTER_ROLE, roles.root_setter), (LOCKER_ROLE, roles.locker),
            (GUARDIAN_ROLE, roles.guardian),
        ):  # fmt: skip
            vault.send(admin, "grantRole", role, to_checksum_address(signer.address))
        for secret in SECRETS[5:]:
            wallet = Account.from_key(secret)
            coin.send(admin, "mint", wallet.address, WALLET_UNITS)
            coin.send(wallet, "approve", vault.address, WALLET_UNITS)
        network = Network("simulated", CHAIN_ID, finality=FINALITY, confirmations=2, bump_after_s=2)
        addresses = to_canonical_address(coin.address), to_canonical_address(vault.address)
        code, vault_code = (keccak(self._machine.evm.get_code(to_checksum_address(address))) for address in addresses)
        token = Token(
            1, "TUSD", network, *addresses, 6, "Test Dollar", "2", code, vault_code, DEVELOPMENT_ISSUER, limits=LIMITS
        )  # fmt: skip
        return Stablecoins({1: token})

    # --- What happens by itself ---------------------------------------------------------------------------------------

    def tick(self) -> None:
        """A block comes, or some are taken back and others come."""
        if not self.calm and self.rng.random() < REORGANISED:
            self.reorganise(self.rng.randint(1, FINALITY))
        else:
            self.mine()

    def mine(self) -> None:
        """One block."""
        parent, rng = self.blocks[-1], self.rng
        self._meddle()
        low, high = BASE_WEI
        factor = 875 if self.calm else rng.randint(875, 1_125)
        self._base_wei = min(max(self._base_wei * factor // 1_000, low), high)
        timestamp_s = max(parent.timestamp_s, self.now_s())
        name = sha256(parent.hash + rng.randbytes(8)).digest()
        nonces = dict(parent.nonces)
        block = Mined(parent.number + 1, name, timestamp_s, self._chosen(nonces), nonces)
        self._stand_after(parent.number)
        self.blocks.append(block)
        self._stand_after(block.number)
        self._pool = {key: one for key, one in self._pool.items() if key[1] >= nonces.get(key[0], 0)}
        if block.number - FINALITY > self.final:
            self.final = block.number - FINALITY
            if self.final > KEPT_STATES:
                self._machine.evm.commit()  # the state before those that are kept

    def _chosen(self, nonces: dict[bytes, int]) -> list[Handed]:
        chosen = []
        for sender in sorted({sender for sender, _ in self._pool}):
            while one := self._pool.get((sender, nonces.get(sender, 0))):
                if one.max_fee_wei < self._base_wei or (not self.calm and self.rng.random() < LEFT_OUT):
                    break
                chosen.append(one)
                nonces[sender] = one.nonce + 1
        return chosen

    def _meddle(self) -> None:
        """The network forgets what waits, brings back what was replaced, and lets a stranger copy a withdrawal."""
        if self.calm:
            return
        rng, nonces = self.rng, self.blocks[-1].nonces
        self._pool = {key: one for key, one in self._pool.items() if rng.random() > EVICTED}
        if self.heard and rng.random() < REPEATED:
            one = rng.choice(list(self.heard.values()))
            if one.nonce >= nonces.get(one.sender, 0):
                self._pool[one.sender, one.nonce] = one
        if rng.random() < STOLEN:
            selector = interface("Vault").call("withdraw", bytes(32), STRANGER, STRANGER, 1, 1, [])[:4]
            copied = [one.data for one in self.heard.values() if one.data[:4] == selector]
            if copied:
                sender, vault = to_canonical_address(STRANGER), self.coins.tokens[1].vault
                nonce, data = nonces.get(sender, 0), rng.choice(copied)
                self._pool[sender, nonce] = Handed(
                    sha256(rng.randbytes(8)).digest(), sender, nonce, vault, data, 600_000, BASE_WEI[1], 1
                )

    def reorganise(self, depth: int) -> None:
        """Blocks that are not final are taken back, and as many or more come instead."""
        head = self.blocks[-1].number
        depth = min(depth, head - self.final)
        if not depth:
            self.mine()
            return
        self.reorgs += 1
        self._stand_after(head - depth)
        taken = [one for block in self.blocks[head - depth + 1 :] for one in block.transactions]
        del self.blocks[head - depth + 1 :]
        for one in taken:
            if self.rng.random() < RETURNED:
                self._pool.setdefault((one.sender, one.nonce), one)
        for _ in range(depth + self.rng.randint(0, 1)):
            self.mine()

    # --- The state after any block ------------------------------------------------------------------------------------

    def _stand_after(self, number: int) -> None:
        """Back by the machine's snapshots, forth by doing blocks again."""
        evm = self._machine.evm
        if number < max(0, self.final - KEPT_STATES):
            raise ChainError(f"the node has no state of block {number} any more")
        if number < self._at:
            evm.revert(self._snapshots[number])
            # Each snapshot counts as a call within a call, of which there may be a thousand: those above are no more.
            for _ in range(self._at - number):
                evm.commit()
            del self._snapshots[number:]
            self._snapshots.append(evm.snapshot())
            self._at = number
        while self._at < number:
            block = self.blocks[self._at + 1]
            self._machine.now_s = block.timestamp_s
            block.receipts = [self._carried_out(block, one) for one in block.transactions]
            self._snapshots.append(evm.snapshot())
            self._at += 1

    def _carried_out(self, block: Mined, one: Handed) -> Receipt:
        sender, to = to_checksum_address(one.sender), to_checksum_address(one.to)
        try:
            self._machine.send(sender, to, one.data, gas=one.gas)
        except Reverted:
            return Receipt(one.hash, block.number, block.hash, False, one.gas, ())
        result = self._machine.evm.result
        logs = tuple(
            Log(
                to_canonical_address(log.address),
                tuple(_bytes(topic) for topic in log.data[0]),
                _bytes(log.data[1]),
                at,
            )
            for at, log in enumerate(result.logs)
        )
        return Receipt(one.hash, block.number, block.hash, True, int(result.gas_used), logs)

    def look(self, address: bytes, data: bytes, number: int, sender: bytes | None = None) -> bytes:
        """What a call returns after a block, without a node between. Raises CallRefused."""
        key = (self.blocks[number].hash, address + (sender or b""), data)
        if key not in self._known:
            self._stand_after(number)
            self._machine.now_s = self.blocks[number].timestamp_s
            try:
                self._known[key] = self._machine.look(to_checksum_address(address), data)
            except Reverted as error:
                self._known[key] = CallRefused(str(error))
        found = self._known[key]
        if isinstance(found, CallRefused):
            raise found
        return found

    def tried(self, sender: bytes, address: bytes, data: bytes) -> int:
        """What a transaction would need as the chain is now. Raises CallRefused."""
        self._stand_after(self.blocks[-1].number)
        with self._machine.undone():
            try:
                self._machine.send(to_checksum_address(sender), to_checksum_address(address), data)
            except Reverted as error:
                raise CallRefused(str(error)) from None
            # A part of a call's gas stays behind with the caller, and the vault asks for what a transfer may need.
            return int(self._machine.evm.result.gas_used) + SPARE_GAS

    def receipts(self, final: bool = False) -> list[Receipt]:
        """Of all transactions in the chain, or in its final blocks."""
        blocks = self.blocks[: self.final + 1] if final else self.blocks
        return [receipt for block in blocks for receipt in block.receipts]

    def take(self, raw: bytes) -> tuple[Sent, str]:
        """What a node does with bytes that are handed in."""
        one = self.heard.get(keccak(raw)) or decoded(raw)
        assert raw[:1] == TYPE_2
        if one.nonce < self.blocks[-1].nonces.get(one.sender, 0):
            return Sent.NONCE_USED, "nonce too low"
        there = self._pool.get((one.sender, one.nonce))
        if there == one:
            return Sent.TAKEN, ""
        if there is not None and 10 * one.max_fee_wei < 11 * there.max_fee_wei:
            return Sent.UNDERPRICED, "replacement transaction underpriced"
        if one.max_fee_wei < self._base_wei:
            return Sent.UNDERPRICED, "max fee per gas less than block base fee"
        self.heard[one.hash] = one
        if self.calm or self.rng.random() >= LOST:
            self._pool[one.sender, one.nonce] = one
        return Sent.TAKEN, ""

    # --- settlement.chain.Chain ---------------------------------------------------------------------------------------

    def _asked(self) -> None:
        """A request is on its way. Raises ChainError where it does not arrive, Killed where the exchange dies of it."""
        self.disk.moment("node")
        if self.calm:
            return
        if self.rng.random() < UNANSWERED:
            raise ChainError("the node does not answer")
        if self.rng.random() < MOVES_ON:
            self.tick()

    def chain_id(self) -> int:
        self._asked()
        return CHAIN_ID

    def head(self) -> Block:
        self._asked()
        return self.blocks[-1].header

    def finalized(self) -> Block:
        self._asked()
        return self.blocks[self.final].header

    def block(self, number: int) -> Block:
        self._asked()
        return self._block(number).header

    def _block(self, number: int) -> Mined:
        if number >= len(self.blocks):
            raise ChainError(f"the node does not know the block {number}")
        return self.blocks[number]

    def nonce(self, address: bytes, at: int | None = None) -> int:
        self._asked()
        return self._block(self.blocks[-1].number if at is None else at).nonces.get(address, 0)

    def balance(self, address: bytes) -> int:
        self._asked()
        return 10**21

    def fees(self) -> Fees:
        self._asked()
        return Fees(self._base_wei, GWEI)

    def code_hash(self, address: bytes) -> bytes:
        return bytes(keccak(self.code(address)))

    def code(self, address: bytes) -> bytes:
        self._asked()
        return bytes(self._machine.evm.get_code(to_checksum_address(address)))

    def call(self, address: bytes, data: bytes, at: int | None = None, sender: bytes | None = None) -> bytes:
        self._asked()
        return self.look(address, data, self._block(self.blocks[-1].number if at is None else at).number, sender)

    def calls(self, address: bytes, datas: Sequence[bytes], at: int) -> list[bytes]:
        return [self.call(address, data, at) for data in datas]

    def gas(self, sender: bytes, address: bytes, data: bytes) -> int:
        self._asked()
        return self.tried(sender, address, data)

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        self._asked()
        return next((one for one in self.receipts() if one.tx_hash == tx_hash), None)

    def receipts_with(
        self, addresses: Sequence[bytes], topics: Sequence[bytes | None], first: int, last: int
    ) -> list[Receipt]:
        self._asked()

        def fits(log: Log) -> bool:
            pairs = zip(topics, log.topics, strict=False)
            return log.address in addresses and all(wanted in (None, said) for wanted, said in pairs)

        blocks = self.blocks[first : last + 1]
        return [one for block in blocks for one in block.receipts if any(fits(log) for log in one.logs)]

    def send(self, raw: bytes) -> tuple[Sent, str]:
        self._asked()
        answer = self.take(raw)
        self.disk.moment("broadcast")
        self._asked()  # and may be lost on its way back
        return answer

    def user_of_nonce(self, sender: bytes, nonce: int, last: int) -> tuple[bytes, int] | None:
        self._asked()
        for block in self.blocks[: last + 1]:
            for one in block.transactions:
                if (one.sender, one.nonce) == (sender, nonce):
                    return one.hash, block.number
        return None


def _bytes(data: Any) -> bytes:
    return bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else bytes(data)
