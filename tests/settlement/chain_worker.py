"""A process to be killed: an exchange with custody that works through an agenda. `chain_campaign.py` starts it.

chain_worker.py DIRECTORY careful|naive. It says `ready` before it recovers, so that it may be killed in that
too, and `done` when all is paid and final.

The naive way is how it is often done: what was sent is remembered in memory, a payment is known by its transaction, and
a start signs anew whatever the ledger still has as unpaid.
"""

import pickle
import secrets
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import NS, Catalogue
from engine.types import Kind, Side
from settlement import plans
from settlement.chain import Chain
from settlement.embedded import development_roles
from settlement.flows import Destination, Route, withdraw_command
from settlement.service import OUTBOX_NAME
from settlement.stablecoins import Stablecoins
from tests.settlement.chain.anvil import SECRETS
from tests.settlement.flow import command, listing, order, transfer
from wellhead.chainfile import KeySet, make_custody
from wellhead.config import Config
from wellhead.custody import engine_view
from wellhead.exchange import Exchange

VENUE = "campaign"
PAUSE_S = 0.02
CYCLE_S = 3.0


@dataclass(frozen=True)
class Task:
    """What the campaign has prepared: the registry, and what members ask for, in order."""

    coins: Stablecoins
    agenda: list[tuple[Any, ...]]
    """("withdraw", account, micros, recipient), ("claim", account, micros) or ("cycle", seller, buyer)"""
    homes: dict[int, bytes]


class Worker:
    """The exchange of a directory."""

    def __init__(self, directory: Path, task: Task, naive: bool) -> None:
        self.task, self.naive, self.ended_s = task, naive, time.monotonic()
        config = Config(directory)
        self.exchange = Exchange.open(config, Catalogue.load())
        self.exchange.recover()
        if naive:
            forget(config.settlement_dir / OUTBOX_NAME)
            life = secrets.token_bytes(32)  # a payment is known by what this life calls it
            plans.withdrawal_id = lambda seq: sha256(life + seq.to_bytes(8, "big")).digest()
        network = task.coins.networks()[0]
        roles = development_roles(SECRETS)
        keys = {network.name: KeySet(roles.settler, roles.root_setter, roles.signers[:2])}
        chains = {network.name: Chain.at(network.url)}
        self.custody = make_custody(config.settlement_dir, task.coins, chains, keys, VENUE, lambda: int(time.time()))
        self.custody.sending.retry_s = 2
        if naive:
            self.custody.reconcile = lambda site: []  # type: ignore[method-assign]
        for account, home in task.homes.items():
            self.custody.deposits.set_home(account, home)
            self.custody.set_standing(account, 1)
        # An item of the agenda carries its number as `session`, so the log itself says how far it was.
        self.next = max((int(part["session"].max()) for part in self.exchange.log.read()), default=0)

    def log(self, commands: NDArray[Any]) -> NDArray[Any]:
        """The step of a batch, as the node does it."""
        exchange = self.exchange
        commands["ts_ns"] = max(time.time_ns(), exchange.engine.now_ns)
        exchange.log.append(commands)
        exchange.log.sync()
        events = exchange.engine.apply(commands).copy()
        exchange.settlement.on_batch(commands, events)
        return events

    def turn(self) -> bool:
        """One look, and perhaps an item of the agenda; whether there is more to do."""
        commands = self.custody.step(engine_view(self.exchange.engine))
        if len(commands):
            self.log(commands)
        if self.next < len(self.task.agenda):
            self.ask(self.task.agenda[self.next])
            return True
        waiting, site = self.custody.flows.waiting(), self.custody.sites[0]
        busy = self.behind() or any(outbox.under_way() for outbox in site.outboxes)
        if not busy and {row.route for row in waiting} == {Route.CLAIM}:
            self.end_cycle()
        return bool(waiting) or busy

    def behind(self) -> bool:
        """Whether the last cycle's root is still to be put into force."""
        cycles = self.custody.records.exported()
        root = self.custody.roots.in_force(1)
        return bool(cycles) and (root is None or root.cycle < cycles[-1].cycle)

    def end_cycle(self) -> None:
        """A claim pays what its root says less all that was paid since: the rest of it is in the next root."""
        if time.monotonic() - self.ended_s > CYCLE_S:
            self.ended_s = time.monotonic()
            self.log(command(Kind.CLOSE_CYCLE))

    def ask(self, item: tuple[Any, ...]) -> None:
        kind, account, *rest = item
        if kind == "withdraw":
            amount, recipient = rest
            if self.cash(account) < amount:
                return  # its deposit is not final yet
            asked = withdraw_command(account, 1, amount, Destination(recipient, self.task.homes[account]))
        elif kind == "claim":
            home = self.task.homes[account]
            if self.cash(account) < rest[0]:
                return
            asked = withdraw_command(account, 1, rest[0], Destination(home, home, Route.CLAIM))
        else:
            if min(self.cash(account), self.cash(rest[0])) < 100_000_000:
                return
            asked = self.trade(account, rest[0])
        asked["session"] = self.next + 1
        self.log(asked)
        self.next += 1

    def trade(self, seller: int, buyer: int) -> NDArray[Any]:
        """A contract from its listing to its delivery, and the end of the cycle: all in one frame, once."""
        number, now_ns = 1, time.time_ns()
        return np.concatenate([
            listing(number, f"H100S-USE-{self.next}", gate_ns=now_ns + 3_600 * NS, open_ns=0, start_s=now_ns // NS + 7_200),
            transfer(Kind.NOMINATE, seller, instrument=number, lots=1),
            order(seller, number, Side.SELL, 1_000 + self.next, 1),
            order(buyer, number, Side.BUY, 1_000 + self.next, 1),
            command(Kind.CLOSE, instrument=number),
            transfer(Kind.DELIVER, seller, contra_account=buyer, instrument=number, lots=1),
            command(Kind.DELIST, instrument=number),
            command(Kind.CLOSE_CYCLE),
        ])  # fmt: skip

    def cash(self, account: int) -> int:
        return int(self.exchange.engine.memory.arrays["accounts"]["cash_micros"][account])


def forget(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def main(directory: Path, naive: bool) -> None:
    task = pickle.loads((directory / "task").read_bytes())
    print("ready", flush=True)
    worker = Worker(directory / "data", task, naive)
    while worker.turn() or worker.custody.halts.open():
        for halt in worker.custody.halts.open():
            print("halt", halt.reason, flush=True)
            return
        time.sleep(PAUSE_S)
    site = worker.custody.sites[0]
    differences = worker.custody.reconcile(site)
    print("halt" if differences else "done", *differences, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "naive")
