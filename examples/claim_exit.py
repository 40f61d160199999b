"""Take your money out of the vault with nothing but your statement, a node and this file: no help from the exchange.

    pip install eth-account
    python claim_exit.py NODE_URL statement.json                    what you may claim, when you may exit, what that pays
    python claim_exit.py NODE_URL statement.json claim --key FILE   claim what is payable
    python claim_exit.py NODE_URL statement.json exit --key FILE    leave with all you own, when the exit is open

The statement is that of the last cycle whose root is in force: the part of it under "vault", or a list of them, one a
stablecoin. Without any statement, `--vault ADDRESS --account ADDRESS` in its place exits with deposits that no root knows.
FILE holds the private key, in hex, that pays for the gas; any will do, since the vault pays the account of the statement
and nobody else. With --print instead of --key the call is shown for a wallet to send.
"""

import argparse
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from eth_hash.auto import keccak

SHOWN_DEPOSITS = 64  # what one exit takes along
POLL_S = 1


class Node:
    """The few calls of a node that are needed."""

    def __init__(self, url: str) -> None:
        self.url = url

    def rpc(self, method: str, *params: Any) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            found = json.load(answer)
        if "error" in found:
            sys.exit(f"the node refused {method}: {found['error'].get('message', found['error'])}")
        return found["result"]

    def number(self, method: str, *params: Any) -> int:
        return int(self.rpc(method, *params), 16)


class Vault:
    """The vault's functions, encoded by hand: numbers and addresses are words of 32 bytes."""

    def __init__(self, node: Node, address: str) -> None:
        self.node = node
        self.address = address

    def read(self, signature: str, *values: int | str) -> list[int]:
        data = "0x" + (selector(signature) + words(*values)).hex()
        found = bytes.fromhex(self.node.rpc("eth_call", {"to": self.address, "data": data}, "latest")[2:])
        if not found:
            sys.exit(f"there is no vault at {self.address} on this chain")
        return [int.from_bytes(found[at : at + 32], "big") for at in range(0, len(found), 32)]

    def send(self, data: bytes, key: str) -> Any:
        """Signs and sends a call, waits for its receipt. The estimate fails, and says why, when the vault would refuse."""
        call = {"to": self.address, "data": "0x" + data.hex()}
        gas = self.node.number("eth_estimateGas", call)
        from eth_account import Account  # noqa: PLC0415 - slow to load, and only needed here

        account = Account.from_key(key)
        base = int(self.node.rpc("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
        tip = self.node.number("eth_maxPriorityFeePerGas")
        transaction = {
            "chainId": self.node.number("eth_chainId"),
            "nonce": self.node.number("eth_getTransactionCount", account.address, "pending"),
            "to": bytes.fromhex(self.address[2:]),
            "data": call["data"],
            "gas": gas * 5 // 4,
            "maxFeePerGas": 2 * base + tip,
            "maxPriorityFeePerGas": tip,
        }
        signed = account.sign_transaction(transaction)
        sent = self.node.rpc("eth_sendRawTransaction", "0x" + bytes(signed.raw_transaction).hex())
        print(f"sent {sent}")
        while not (receipt := self.node.rpc("eth_getTransactionReceipt", sent)):
            time.sleep(POLL_S)
        return receipt


def selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


def words(*values: int | str) -> bytes:
    return b"".join(
        bytes.fromhex(value[2:]).rjust(32, b"\0") if isinstance(value, str) else value.to_bytes(32, "big")
        for value in values
    )


def array(values: list[Any]) -> bytes:
    return words(len(values), *values)


def root_of(domain: int, paper: dict[str, Any]) -> int:
    """The root that the paper's leaf and proof lead to, as the vault works it out."""
    leaf = words(domain, paper["epoch"], paper["account"], int(paper["payable_units"]), int(paper["exit_units"]))
    node = keccak(keccak(leaf))
    for partner in paper["proof"]:
        other = bytes.fromhex(partner[2:])
        node = keccak(min(node, other) + max(node, other))
    return int.from_bytes(node, "big")


def open_deposits(vault: Vault, account: str) -> list[tuple[int, int]]:
    """Numbers and units of the account's deposits that are in no root and in none of its exits."""
    first, last = vault.read("covered_deposits()")[0], vault.read("deposit_count()")[0]
    found = []
    for index in range(first, last):
        depositor, units = vault.read("deposits(uint256)", index)
        if depositor == int(account, 16) and not vault.read("deposit_recovered(uint256)", index)[0]:
            found.append((index, units))
    return found[:SHOWN_DEPOSITS]


def check(vault: Vault, paper: dict[str, Any]) -> None:
    """Ends with the reason when the vault will not take this statement."""
    if vault.node.number("eth_chainId") != paper["chain_id"]:
        sys.exit(f"this statement is for chain {paper['chain_id']}, the node is on another")
    if not paper["proof"] and not int(paper["exit_units"]):
        return
    if vault.read("epoch()")[0] != paper["epoch"]:
        sys.exit(
            f"the vault is at epoch {vault.read('epoch()')[0]}, the statement at {paper['epoch']}: take that one's"
        )
    if root_of(vault.read("DOMAIN_SEPARATOR()")[0], paper) != vault.read("root()")[0]:
        sys.exit("the statement does not fit the vault's root: it is not genuine, or this is not its vault")


def show(vault: Vault, paper: dict[str, Any]) -> None:
    account, payable, whole = paper["account"], int(paper["payable_units"]), int(paper["exit_units"])
    paid = vault.read("paid(address)", account)[0]
    deposits = open_deposits(vault, account)
    whole += vault.read("recovered_units(address)", account)[0] + sum(units for _, units in deposits)
    opens, is_open = vault.read("exit_opens_at()")[0], vault.read("exit_open()")[0]
    print(f"account   {account}")
    print(f"paid      {paid} units so far")
    print(f"claim     {max(0, payable - paid)} units now")
    print(f"exit      {max(0, whole - paid)} units, ", end="")
    print(
        "open"
        if is_open
        else f"opens {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(opens))} unless a root comes first"
    )
    print(f"owed      {vault.read('owed(address)', account)[0]} units that a push could not pay")
    for index, units in deposits:
        print(f"deposit   {index} of {units} units is in no root yet")


def claim_data(vault: Vault, paper: dict[str, Any]) -> bytes:
    head = words(paper["account"], int(paper["payable_units"]), int(paper["exit_units"]), 4 * 32)
    return selector("claim(address,uint256,uint256,bytes32[])") + head + array(paper["proof"])


def exit_data(vault: Vault, paper: dict[str, Any]) -> bytes:
    proof = array(paper["proof"])
    indexes = array([index for index, _ in open_deposits(vault, paper["account"])])
    amounts = (int(paper["payable_units"]), int(paper["exit_units"]))
    head = words(paper["account"], *amounts, 5 * 32, 5 * 32 + len(proof))
    return selector("force_exit(address,uint256,uint256,bytes32[],uint256[])") + head + proof + indexes


def papers(options: argparse.Namespace, node: Node) -> list[dict[str, Any]]:
    """What the statement says of each vault, or, without a statement, nothing but who asks."""
    if options.vault:
        nothing = {"payable_units": "0", "exit_units": "0", "proof": [], "epoch": 0}
        return [{"chain_id": node.number("eth_chainId"), "vault": options.vault, "account": options.account, **nothing}]
    if not options.statement:
        sys.exit("name a statement, or --vault and --account")
    found = json.loads(Path(options.statement).read_text(encoding="utf-8"))
    if isinstance(found, dict) and not isinstance(found.get("vault"), str):
        found = found.get("vault") or sys.exit("this statement has no part for a vault")
    return found if isinstance(found, list) else [found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("node")
    parser.add_argument("statement", nargs="?")
    parser.add_argument("action", nargs="?", choices=["show", "claim", "exit"], default="show")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--print", action="store_true")
    parser.add_argument("--vault")
    parser.add_argument("--account")
    options = parser.parse_args()
    if options.vault and options.statement in ("show", "claim", "exit"):
        options.action, options.statement = options.statement, None
    node = Node(options.node)
    for paper in papers(options, node):
        vault = Vault(node, paper["vault"])
        check(vault, paper)
        if options.action == "show":
            show(vault, paper)
            continue
        data = (claim_data if options.action == "claim" else exit_data)(vault, paper)
        if options.print:
            print(f"to   {vault.address}\ndata 0x{data.hex()}")
            continue
        if not options.key:
            sys.exit("--key FILE or --print")
        account = paper["account"]
        before = vault.read("paid(address)", account)[0]
        receipt = vault.send(data, options.key.read_text(encoding="utf-8").strip())
        if int(receipt["status"], 16) != 1:
            sys.exit("the vault refused the call")
        print(f"{options.action} paid {vault.read('paid(address)', account)[0] - before} units to {account}")


if __name__ == "__main__":
    main()
