"""What paying a member costs in gas, beside a plain transfer of the same token.

    python -m benchmarks.vault [--json]

Gas is counted by py-evm in receipts of whole transactions, calldata included; it does not depend on the machine. The
token is the test dollar, which behaves as USDC does but is no proxy: USDC itself costs about 7,000 more a call, in a
plain transfer as in a pushed one. Fresh means an address that never held the token, and that the vault never paid.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from eth_tester import EthereumTester, PyEVMBackend
from eth_utils.address import to_canonical_address

from settlement.abi import Interface, interface
from settlement.vault import (
    FRESH_CHUNK,
    GUARDIAN_ROLE,
    MAX_CHUNK,
    ROOT_SETTER_ROLE,
    SETTLER_ROLE,
    ClaimTree,
    Leaf,
    Withdrawal,
    vault_domain,
)

TRANSACTION_CAP = 16_777_216
"""Gas that one transaction may use (EIP-7825)."""
CHUNKS = (1, 10, FRESH_CHUNK, MAX_CHUNK)
MEMBERS = 1_000
"""Leaves in the tree that is claimed from."""
WINDOWS_S = (3_600, 86_400)
_GAS_LIMIT = 40_000_000


@dataclass(frozen=True)
class Cost:
    """Gas of one transaction, and of each member it pays."""

    action: str
    members: int
    gas: int
    gas_per_member: int
    of_plain_transfer_percent: int


class Measure:
    """A chain with a vault, and the gas of what is sent to it."""

    def __init__(self) -> None:
        genesis = PyEVMBackend.generate_genesis_params({"gas_limit": 100_000_000})
        self.tester = EthereumTester(PyEVMBackend(genesis_parameters=genesis))
        people = self.tester.get_accounts()
        self.admin, self.settler, self.setter, self.guardian, self.member = people[:5]
        self.keys = {key.public_key.to_checksum_address(): key for key in self.tester.backend.account_keys}
        self.signers = sorted(people[5:8], key=to_canonical_address)
        self.token_code, self.vault_code = interface("TestDollar"), interface("Vault")
        self.token = self.deploy(self.token_code, "Test Dollar", "TUSD")
        self.vault = self.deploy(self.vault_code, self.token, self.admin, *WINDOWS_S, self.signers, 2, 2**90)
        for role, holder in (
            (SETTLER_ROLE, self.settler),
            (ROOT_SETTER_ROLE, self.setter),
            (GUARDIAN_ROLE, self.guardian),
        ):
            self.call(self.admin, "grantRole", role, holder)
        self.domain = vault_domain(int(self.tester.backend.chain.chain_id), self.vault)
        self.made = 0

    def deploy(self, contract: Interface, *arguments: Any) -> str:
        sent = self.tester.send_transaction(
            {"from": self.admin, "gas": _GAS_LIMIT, "data": "0x" + contract.deployment(*arguments).hex()}
        )
        return str(self.tester.get_transaction_receipt(sent)["contract_address"])

    def call(self, sender: str, function: str, *arguments: Any) -> int:
        return self.send(sender, self.vault, self.vault_code.call(function, *arguments))

    def on_token(self, sender: str, function: str, *arguments: Any) -> int:
        return self.send(sender, self.token, self.token_code.call(function, *arguments))

    def send(self, sender: str, to: str, data: bytes) -> int:
        """The gas that a transaction used. A refused one raises."""
        sent = self.tester.send_transaction({"from": sender, "to": to, "gas": _GAS_LIMIT, "data": "0x" + data.hex()})
        receipt = self.tester.get_transaction_receipt(sent)
        if receipt["status"] != 1:
            raise RuntimeError("a transaction of the benchmark failed")
        return int(receipt["gas_used"])

    def fresh(self, count: int) -> list[str]:
        """Addresses that nobody used before."""
        self.made += count
        return [f"0x{(0xF00D << 128) + self.made - at:040x}" for at in range(count)]

    def wait(self, seconds: int) -> None:
        self.tester.time_travel(self.tester.get_block_by_number("pending")["timestamp"] + seconds)

    def publish(self, leaves: Sequence[Leaf]) -> tuple[ClaimTree, int]:
        """(the tree, gas of proposing and finalizing its root)."""
        tree = ClaimTree(self.domain, 1, leaves)
        gas = self.call(self.setter, "propose_root", 1, 1, tree.root, tree.payable_units, tree.liability_units, 2)
        self.wait(WINDOWS_S[0])
        return tree, gas + self.call(self.guardian, "finalize_root", 1, tree.root)


def costs() -> list[Cost]:
    """Measures everything once: gas is the same each time."""
    at = Measure()
    found: list[tuple[str, int, int]] = []
    at.on_token(at.admin, "mint", at.member, 10**15)
    (friend,) = at.fresh(1)
    found.append(("plain transfer, fresh", 1, at.on_token(at.member, "transfer", friend, 10**6)))
    found.append(("plain transfer, repeat", 1, at.on_token(at.member, "transfer", friend, 10**6)))
    at.on_token(at.member, "approve", at.vault, 2**256 - 1)
    at.call(at.member, "deposit", 10**12, bytes(32))
    found.append(("deposit, repeat", 1, at.call(at.member, "deposit", 10**12, b"\1" * 32)))
    cycle = 0
    for size in CHUNKS:
        crowd = at.fresh(size)
        for kind in ("fresh", "repeat"):
            cycle += 1
            push = (cycle.to_bytes(32, "big"), cycle, 0, crowd, [10**6] * size)
            found.append((f"push, {kind}", size, at.call(at.settler, "settle_batch", *push)))
    found += owed_costs(at) + leaf_costs(at)
    plain = {
        kind: next(gas for name, _, gas in found if name == f"plain transfer, {kind}") for kind in ("fresh", "repeat")
    }
    return [
        Cost(
            name, members, gas, gas // members, 100 * gas // members // plain["repeat" if "repeat" in name else "fresh"]
        )
        for name, members, gas in found
    ]


def owed_costs(at: Measure) -> list[tuple[str, int, int]]:
    """A push that fails, collecting it later, and a withdrawal with two signatures."""
    (blocked, away) = at.fresh(2)
    at.on_token(at.admin, "blacklist", blocked)
    found = [("push that fails", 1, at.call(at.settler, "settle_batch", b"\7" * 32, 99, 0, [blocked], [10**6]))]
    at.on_token(at.admin, "unBlacklist", blocked)
    found.append(("collect_owed, fresh", 1, at.call(at.guardian, "collect_owed", blocked)))
    wanted = Withdrawal(b"\1" * 32, at.member, away, 10**6, 2**40)
    signatures = [at.keys[signer].sign_msg_hash(wanted.digest(at.domain)) for signer in at.signers[:2]]
    raw = [made.to_bytes()[:64] + bytes([27 + made.v]) for made in signatures]
    values = (wanted.id, wanted.account, wanted.recipient, wanted.units, wanted.deadline_s, raw)
    return [*found, ("withdraw 2 of 3, fresh", 1, at.call(at.guardian, "withdraw", *values))]


def leaf_costs(at: Measure) -> list[tuple[str, int, int]]:
    """A root, a claim and an exit from it."""
    crowd = at.fresh(MEMBERS)
    tree, gas = at.publish([Leaf(account, 10**6, 3 * 10**6) for account in crowd])
    found = [("root, proposed and finalized", MEMBERS, gas)]
    for name, function, more in (("claim", "claim", ()), ("exit", "force_exit", ((),))):
        if function == "force_exit":
            at.wait(WINDOWS_S[1])
        leaf = tree.leaf(crowd[0 if function == "claim" else 1])
        values = (leaf.account, leaf.payable_units, leaf.exit_units, tree.proof(leaf.account), *more)
        found.append((f"{name} of {MEMBERS:,}, fresh", 1, at.call(at.guardian, function, *values)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    found = costs()
    if parser.parse_args().json:
        print(json.dumps([asdict(cost) for cost in found]))
        return
    print(
        f"py-evm {version('py-evm')}, {interface('Vault').artefact['compiler']}, {interface('Vault').artefact['evm_version']}"
    )
    print(f"{'':30} {'members':>8} {'gas':>12} {'gas/member':>11} {'of plain transfer':>18}")
    for cost in found:
        percent = f"{cost.of_plain_transfer_percent} %"
        print(f"{cost.action:30} {cost.members:>8,} {cost.gas:>12,} {cost.gas_per_member:>11,} {percent:>18}")
    for cost in found:
        if cost.members in (FRESH_CHUNK, MAX_CHUNK):
            share = 100 * cost.gas // TRANSACTION_CAP
            print(f"{cost.action} of {cost.members}: {share} % of the {TRANSACTION_CAP:,} gas one transaction may use")


if __name__ == "__main__":
    main()
