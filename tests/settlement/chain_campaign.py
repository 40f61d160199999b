"""Kill the worker at random instants, reorganise the chain up to its finality, then count every unit.

    python -m tests.settlement.chain_campaign --seeds 8 [--first 1] [--kills 8] [--naive]

An anvil without mining of its own; blocks, reorganisations (1 block deep up to the last one that is not final) and
kill -9 come at random instants while deposits are credited, withdrawals and cycles' payouts are paid, roots are put into
force, and members claim with the proofs in their statements. In the end each address must have on the chain what the log
says, to the unit, the last cycle's root must be in force, and engine, ledger and vault must agree. `--naive` signs
anew on restart, to show that the campaign can fail. Exit code 0 when every seed was exact, or with --naive one was not.
"""

import argparse
import pickle
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eth_utils.address import to_checksum_address

from engine.catalogue import Catalogue
from engine.engine import Engine
from engine.log import FileLog
from engine.types import TRANSFER, EventKind, Kind
from settlement import vault_part
from settlement.abi import interface
from settlement.chain import CallRefused
from settlement.deposits import account_ref
from settlement.embedded import Terms
from settlement.flows import Destination, bodies
from settlement.service import Books
from settlement.signer import MemorySigner, Transaction
from settlement.stablecoins import Stablecoins
from settlement.verify import verify
from tests.settlement.chain.anvil import SECRETS, Anvil, anvil, network_of
from tests.settlement.chain.rig import deployed
from tests.settlement.chain_worker import VENUE, Task
from tests.settlement.flow import open_account
from wellhead.config import Config
from wellhead.exchange import Exchange

ROOT = Path(__file__).parents[2]
EPOCH_BLOCKS = 2
FINALITY = 2 * EPOCH_BLOCKS
MEMBERS = 3
DEPOSIT_UNITS = 1_000_000_000
DEPOSIT_NONCES = 2  # an approval and a deposit
DISPUTE_WINDOW_S = 2
CLAIM_CHANCE = 0.2
LONGEST_LIFE_S = 1.5
READY_TIMEOUT_S, DONE_TIMEOUT_S = 120, 180


@dataclass
class Outcome:
    """Of one seed."""

    seed: int
    kills: int = 0
    reorgs: int = 0
    blocks: int = 0
    payments: int = 0
    differences: list[str] = field(default_factory=list)


class Weather(threading.Thread):
    """Blocks and reorganisations at random instants, and members who hand in their deposits until they are final, and claim."""

    def __init__(
        self, node: Anvil, seed: int, deposits: list[bytes], claim: Callable[[], None], reorg_chance: float
    ) -> None:
        super().__init__(daemon=True)
        self.node, self.pick, self.deposits, self.claim = node, random.Random(seed), deposits, claim
        self.reorg_chance = reorg_chance
        self.calm, self.over = threading.Event(), threading.Event()
        self.reorgs = self.blocks = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                for raw in self.deposits:
                    self.node.chain.send(raw)
                if self.pick.random() < CLAIM_CHANCE:
                    self.claim()
                self.node.mine()
                self.blocks += 1
                if not self.calm.is_set() and self.pick.random() < self.reorg_chance:
                    self.node.reorg(self.pick.randint(1, FINALITY))
                    self.reorgs += 1
                time.sleep(self.pick.uniform(0.01, 0.12))
        except BaseException as error:
            self.failure = error


class Campaign:
    """One seed in a directory of its own."""

    def __init__(self, directory: Path, node: Anvil, seed: int, withdrawals: int, cycles: int) -> None:
        self.directory, self.node, self.seed = directory, node, seed
        self.pick = random.Random(seed)
        network = network_of(node, bump_after_s=2)
        self.coins: Stablecoins = deployed(node.chain, network, SECRETS, 1, Terms(dispute_window_s=DISPUTE_WINDOW_S))
        self.token = self.coins.tokens[1]
        self.members = [MemorySigner(secret) for secret in SECRETS[5 : 5 + MEMBERS]]
        self.homes = {number: member.address for number, member in enumerate(self.members, 1)}
        self.agenda = self.make_agenda(withdrawals, cycles)

    def make_agenda(self, withdrawals: int, cycles: int) -> list[tuple[Any, ...]]:
        items: list[tuple[Any, ...]] = []
        for number in range(withdrawals):
            amount = self.pick.randint(1_000_000, 40_000_000)
            items.append(("withdraw", self.pick.randint(1, MEMBERS), amount, (0xA000 + number).to_bytes(20, "big")))
        for number in range(cycles):
            claim = ("claim", self.pick.randint(1, MEMBERS), self.pick.randint(1_000_000, 40_000_000))
            items.insert(self.pick.randint(0, len(items)), claim)
            cycle = ("cycle", *self.pick.sample(range(1, MEMBERS + 1), 2))
            # The last one ends everything, so that there is a root with all claims.
            items.insert(self.pick.randint(0, len(items)) if number else len(items), cycle)
        last = max((at for at, item in enumerate(items) if item[0] == "cycle"), default=None)
        return items if last is None else [*items[:last], *items[last + 1 :], items[last]]

    def prepare(self) -> list[bytes]:
        """Accounts, the worker's task, coins for everybody; returns the members' deposits, signed and not yet sent."""
        exchange = Exchange.open(Config(self.directory / "data"), Catalogue.load())
        for account in self.homes:
            opened = open_account(account)
            exchange.log.append(opened)
            exchange.log.sync()
            exchange.settlement.on_batch(opened, exchange.engine.apply(opened).copy())
        exchange.close()
        (self.directory / "task").write_bytes(pickle.dumps(Task(self.coins, self.agenda, self.homes)))
        coin, vault = interface("TestDollar"), interface("Vault")
        raws = []
        for account, member in enumerate(self.members, 1):
            admin = MemorySigner(SECRETS[0])
            mint = coin.call("mint", to_checksum_address(member.address), DEPOSIT_UNITS)
            self.node.chain.send(self.signed(admin, self.token.address, mint, self.node.chain.nonce(admin.address)))
            self.node.mine()
            approve = coin.call("approve", to_checksum_address(self.token.vault), DEPOSIT_UNITS)
            deposit = vault.call("deposit", DEPOSIT_UNITS, account_ref(VENUE, account))
            raws += [
                self.signed(member, self.token.address, approve, 0),
                self.signed(member, self.token.vault, deposit, 1),
            ]
        self.node.mine(FINALITY)
        return raws

    def claim(self) -> None:
        """Each member hands in the newest proof in his statements that pays something, as the vault is now."""
        places = sorted(
            (self.directory / "data" / "settlement" / "statements").glob("[0-9]*"), key=lambda path: int(path.name)
        )
        for member, path in [(at, place / f"{at + 1}.json") for place in places[-2:] for at in range(MEMBERS)]:
            for paper in vault_part.split(path.read_bytes())[1] if path.exists() else []:
                self._claim(self.members[member], paper)

    def _claim(self, member: MemorySigner, paper: dict[str, Any]) -> None:
        amounts = (int(paper["payable_units"]), int(paper["exit_units"]))
        proof = [bytes.fromhex(partner[2:]) for partner in paper["proof"]]
        data, chain = interface("Vault").call("claim", paper["account"], *amounts, proof), self.node.chain
        try:
            chain.call(self.token.vault, data)
        except CallRefused:
            return
        nonce = chain.nonce(member.address)
        if nonce >= DEPOSIT_NONCES:
            chain.send(self.signed(member, self.token.vault, data, nonce))

    def signed(self, signer: MemorySigner, to: bytes, data: bytes, nonce: int) -> bytes:
        chain_id = self.token.network.chain_id
        transaction = Transaction(chain_id, nonce, to, data, 500_000, 20_000_000_000, 1_000_000_000)
        return transaction.raw(signer.sign(transaction.digest))

    def live(self, mode: str, life_s: float | None) -> bool:
        """One life of the worker: killed after so many seconds, or to its end. Whether it came to its end."""
        arguments = [sys.executable, "-m", "tests.settlement.chain_worker", str(self.directory), mode]
        with open(self.directory / "worker.log", "a", encoding="utf-8") as errors:
            process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        said = lines_of(process)
        try:
            if said.get(timeout=READY_TIMEOUT_S) != "ready":
                raise RuntimeError(f"the worker failed: {self.said()}")
            try:
                line = said.get(timeout=DONE_TIMEOUT_S if life_s is None else life_s)
            except queue.Empty:
                if life_s is None:
                    raise RuntimeError(f"not done in {DONE_TIMEOUT_S} s: {self.said()}") from None
                return False
            if line != "done":
                raise RuntimeError(line or self.said())
            return True
        finally:
            process.kill()
            process.wait()

    def said(self) -> str:
        """The end of what the worker said to its operator."""
        return (self.directory / "worker.log").read_text(encoding="utf-8")[-2000:]

    def count(self) -> tuple[int, list[str]]:
        """(payments, differences): the chain beside the log."""
        expected, found = self.by_log(), []
        coin = interface("TestDollar")
        for address, units in sorted(expected.items()):
            data = coin.call("balanceOf", to_checksum_address(address))
            have = coin.result("balanceOf", self.node.chain.call(self.token.address, data))
            if have != units:
                found.append(f"{to_checksum_address(address)}: {units} by the log, {have} on the chain")
        config = Config(self.directory / "data")
        engine = Engine(config.limits)
        with FileLog(config.log_dir) as log:
            for commands in log.read():
                engine.apply(commands)
        with Books(config.settlement_dir, Catalogue.load(), read_only=True) as books:
            found += [str(difference) for difference in verify(books, engine.dump())]
            last = max((batch.cycle for batch in books.batches.all()), default=0)
        vault = interface("Vault")
        cycle = vault.result("root_cycle", self.node.chain.call(self.token.vault, vault.call("root_cycle")))
        if cycle != last:
            found.append(f"the root in force is of cycle {cycle}, not {last}")
        return len(expected), found

    def by_log(self) -> dict[bytes, int]:
        """What each address should have: accepted withdrawals less refunds, from the log and a fresh engine alone."""
        config, expected = Config(self.directory / "data"), {home: 0 for home in self.homes.values()}
        engine, rows = Engine(config.limits), {}
        with FileLog(config.log_dir) as log:
            for commands in log.read():
                events = engine.apply(commands).copy()
                asked = bodies(commands, events)
                for event, row in zip(events, asked, strict=True):
                    if event["kind"] == EventKind.WITHDRAWN and row["asset"]:
                        rows[int(row["seq"])] = (Destination.of(row).recipient, int(row["lots"]))
                    elif event["kind"] == EventKind.DEPOSITED and row["refund_micros"]:
                        del rows[int(row["external_id"][4])]
        for recipient, units in rows.values():
            expected[recipient] = expected.get(recipient, 0) + units
        credited = {account: 0 for account in self.homes}
        with FileLog(config.log_dir) as log:
            for commands in log.read():
                deposits = commands[commands["kind"] == Kind.DEPOSIT].view(TRANSFER)
                for row in deposits[deposits["refund_micros"] == 0]:
                    credited[int(row["account"])] += int(row["amount_micros"])
        if set(credited.values()) != {DEPOSIT_UNITS}:
            raise RuntimeError(f"deposits by the log: {credited}")
        return expected


def lines_of(process: "subprocess.Popen[str]") -> "queue.Queue[str]":
    """The lines a process prints, as they come; an empty one when it ends."""
    said: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.put(line.strip())
        said.put("")

    threading.Thread(target=read, daemon=True).start()
    return said


def run_seed(seed: int, kills: int, naive: bool, withdrawals: int = 16, cycles: int = 4) -> Outcome:
    """One campaign from an empty chain to the count."""
    outcome, pick = Outcome(seed), random.Random(seed + 1_000)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        node = stack.enter_context(anvil(epoch_blocks=EPOCH_BLOCKS))
        campaign = Campaign(directory, node, seed, withdrawals, cycles)
        node.automine(False)
        weather = Weather(node, seed, campaign.prepare(), campaign.claim, 0.2)
        weather.start()
        try:
            mode = "naive" if naive else "careful"
            while outcome.kills < kills and not campaign.live(mode, pick.uniform(0.05, LONGEST_LIFE_S)):
                outcome.kills += 1
            weather.calm.set()
            campaign.live(mode, None)
        except RuntimeError as error:
            outcome.differences.append(str(error))
        finally:
            weather.over.set()
            weather.join()
        node.mine(FINALITY)
        if weather.failure is not None:
            raise weather.failure
        outcome.reorgs, outcome.blocks = weather.reorgs, weather.blocks
        if not outcome.differences:
            outcome.payments, outcome.differences = campaign.count()
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--naive", action="store_true")
    options = parser.parse_args()
    wrong = 0
    for seed in range(options.first, options.first + options.seeds):
        # A batch's chunk the vault itself refuses a second time; a single withdrawal only under its old name.
        cycles = 0 if options.naive else 4
        outcome = run_seed(seed, options.kills, options.naive, cycles=cycles)
        wrong += bool(outcome.differences)
        print(
            f"seed {seed}: {outcome.kills} kills, {outcome.reorgs} reorgs in {outcome.blocks} blocks,"
            f" {outcome.payments} addresses: {'exact' if not outcome.differences else 'WRONG'}",
            flush=True,
        )
        for difference in outcome.differences:
            print("   ", difference, flush=True)
    return int(wrong == 0 if options.naive else wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
