"""The worker between the books and the chains. `step` looks once at everything and says which commands the log should get.

It is stopped by nothing but a difference it cannot explain, and then only what leaves: deposits go on being credited, and
trading knows nothing of it. A node that does not answer costs its own chain's turn and no other's. Whatever was decided
is in one of two files before it has an effect: the ledger (from the log) or the outbox; so a process that is killed
anywhere goes on where it was.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from eth_utils.address import to_checksum_address
from numpy.typing import NDArray

from engine.types import COMMAND
from settlement.abi import interface
from settlement.accounts import STABLECOIN, Role, user_account
from settlement.batches import Batch, Batches, BatchState
from settlement.chain import CallRefused, Chain, ChainError
from settlement.claims import Claims
from settlement.database import Database
from settlement.deposits import Deposits, DepositState
from settlement.flows import (
    Destination,
    Flows,
    Route,
    Withdrawal,
    WithdrawalState,
    payout_command,
    refund_command,
    withdraw_command,
)
from settlement.halts import Halts
from settlement.ledger import SqliteLedger
from settlement.outbox import Entry, Outbox, OutboxError, Plan, Sender, TxState, matches
from settlement.plans import (
    VALIDITY_S,
    authorization,
    chunk_plan,
    chunk_purpose,
    withdrawal_plan,
    withdrawal_purpose,
)
from settlement.reconcile import EngineView, Facts, against_chain, against_engine
from settlement.roots import Roots, finalize_purpose, propose_purpose
from settlement.signer import Guard, Refused, Request, SignerError, wire
from settlement.stablecoins import Network, Stablecoins, Token, check
from settlement.vault import MAX_CHUNK

log = logging.getLogger(__name__)

OUTBOX_NAME = "outbox.sqlite"
RETRY_S = 300
"""After a call that was refused or reverted."""
GIVE_UP_S = 7 * 86_400
"""When a withdrawal that was never paid, and cannot be any more, is given back."""
GAS_MARGIN_PERCENT = 130

SCHEMA = """
CREATE TABLE IF NOT EXISTS spends (
    seq INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    token INTEGER NOT NULL,
    amount_micros INTEGER NOT NULL,
    at_s INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS spends_by_time ON spends (token, at_s);
CREATE TABLE IF NOT EXISTS chunk_rows (
    seq INTEGER PRIMARY KEY,
    token INTEGER NOT NULL,
    cycle INTEGER NOT NULL,
    chunk INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS rows_of_chunk ON chunk_rows (token, cycle, chunk);
CREATE TABLE IF NOT EXISTS noticed (
    seq INTEGER PRIMARY KEY,
    at_s INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS standing (
    account INTEGER PRIMARY KEY,
    token INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS cursors (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Keys:
    """Who signs on a chain: what is sent, what roots are proposed, and the M withdrawals' signers."""

    settler: Guard
    root_setter: Guard
    signers: Sequence[Guard]


@dataclass
class Site:
    """A chain with what is needed to work on it."""

    network: Network
    chain: Chain
    tokens: list[Token]
    outbox: Outbox
    root_outbox: Outbox
    signers: Sequence[Guard]
    started: bool = False
    final: int = 0
    final_s: int = 0
    paid: dict[int, bytes] = field(default_factory=dict)  # waiting withdrawals that are final on the chain


class Custody:
    """All chains of one exchange. One thread uses it, beside the one that writes the books."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it joins
        self,
        directory: Path,
        coins: Stablecoins,
        chains: Mapping[str, Chain],
        keys: Mapping[str, Keys],
        venue: str,
        now_s: Callable[[], int],
    ) -> None:
        """Open the outbox in a settlement directory that has its books. Nothing is asked of a node yet."""
        self.coins = coins
        self._venue, self._now_s = venue, now_s
        self._ledger = Database(directory / "ledger.sqlite", read_only=True)
        self.database = Database(directory / OUTBOX_NAME)
        with self.database.transaction():
            self.database.create(SCHEMA)
        self.flows, self._batches = Flows(self._ledger), Batches(self._ledger)
        self.halts = Halts(self.database, now_s)
        self.deposits = Deposits(self.database, self.flows, venue)
        self.deposits.create()
        self.claims = Claims(self.database)
        self.roots = Roots(self.database, self._ledger, self.deposits, coins)
        self.roots.create()
        self.sites = [self._site(network, chains[network.name], keys[network.name]) for network in coins.networks()]
        self._handed_out: set[int] = set()
        self._asked: set[tuple[int, int]] = set()  # (cycle, account) of payouts asked for
        self._waits: dict[str, tuple[int, str]] = {}  # purpose -> (not before, why)
        self._view: EngineView | None = None
        self._reconciled: set[str] = set()
        self.retry_s = RETRY_S

    def _site(self, network: Network, chain: Chain, keys: Keys) -> Site:
        vault = interface("Vault")
        settler, root_setter = (
            Outbox(self.database, Sender(chain, network, guard, vault), self._now_s)
            for guard in (keys.settler, keys.root_setter)
        )
        return Site(network, chain, self.coins.on(network), settler, root_setter, keys.signers)

    def close(self) -> None:
        self._ledger.close()
        self.database.close()

    # The step

    def start(self) -> None:
        """Compare registry and chains, and the keys' nonces with the outbox. Raises RegistryError, ChainError."""
        for site in self.sites:
            self._start(site)

    def _start(self, site: Site) -> None:
        check(site.chain, site.tokens)
        for outbox in (site.outbox, site.root_outbox):
            try:
                outbox.check()
            except OutboxError as error:
                self.halts.add(str(error))
        site.started = True

    def step(self, view: EngineView | None = None) -> NDArray[Any]:
        """Commands (COMMAND) for the log. Each is handed out once by this process, so the caller must log what it gets;
        ask only after the log was replayed to its end. `view` is the engine as it is after some command of late.
        """
        self._view = view or self._view
        commands = [np.zeros(0, COMMAND)]
        for site in self.sites:
            try:
                commands += self._turn(site)
            except ChainError as error:
                log.warning("chain %s: %s", site.network.name, error)
            except (OutboxError, Refused, SignerError) as error:
                self.halts.add(str(error))
        return np.concatenate(commands)

    def _turn(self, site: Site) -> list[NDArray[Any]]:
        if not site.started:
            self._start(site)
        final = site.chain.finalized()
        site.final, site.final_s = final.number, final.timestamp_s
        for token in site.tokens:
            self.deposits.scan(site.chain, token, site.final)
            self.claims.scan(site.chain, token, site.final)
        for outbox in (site.outbox, site.root_outbox):
            outbox.step(site.final)
        commands = self._credits(site) + self._outcomes(site)
        if any(self.claims.exited(token.number) for token in site.tokens):
            self.halts.add(f"the vault on {site.network.name} is winding down: members leave by themselves")
        if not self.halts.open():
            commands += self._payouts(site)
            self._send_singles(site)
            self._send_chunks(site)
            self._send_roots(site)
            for outbox in (site.outbox, site.root_outbox):
                outbox.send()
        self._reconcile(site)
        return commands

    # What comes in

    def _credits(self, site: Site) -> list[NDArray[Any]]:
        accounts = {row[0] for row in self._ledger.rows("SELECT account FROM members")}
        return [self.deposits.due(token, accounts, self._now_s()) for token in site.tokens]

    # What became of what was sent

    def _outcomes(self, site: Site) -> list[NDArray[Any]]:
        """PAYOUT for what is final, a refund for what cannot be paid any more."""
        commands, site.paid = [], {}
        for token in site.tokens:
            waiting = self.flows.waiting(token.number)
            site.paid |= self._paid_by_claims(token)
            for row in waiting:
                if row.route != Route.CLAIM and (tx_hash := self._paid_by_us(site, token, row)):
                    site.paid[row.seq] = tx_hash
                command = self._outcome(site, token, row)
                if command is not None and row.seq not in self._handed_out:
                    self._handed_out.add(row.seq)
                    commands.append(command)
        return commands

    def _outcome(self, site: Site, token: Token, row: Withdrawal) -> NDArray[Any] | None:
        if row.seq in site.paid:
            return payout_command(row, site.paid[row.seq])
        if row.route != Route.SINGLE:
            return None
        proof = self._proof_of_failure(site, row)
        return None if proof is None else refund_command(row, proof)

    def _entries(self, site: Site, row: Withdrawal) -> list[Entry]:
        if row.route == Route.SINGLE:
            return site.outbox.of(withdrawal_purpose(row.seq))
        chunk = self.database.one("SELECT chunk FROM chunk_rows WHERE seq = ?", (row.seq,))
        return site.outbox.of(chunk_purpose(row.token, row.cycle, chunk[0])) if chunk else []

    def _paid_by_us(self, site: Site, token: Token, row: Withdrawal) -> bytes | None:
        """The hash of the final transaction that paid it. A withdrawal may have been handed in by somebody else."""
        entries = self._entries(site, row)
        if not entries or entries[-1].state < TxState.FINAL:
            return None
        if entries[-1].state == TxState.FINAL:
            return entries[-1].tx_hash
        return self._paid_by_another(site, token, entries[-1]) if row.route == Route.SINGLE else None

    def _paid_by_another(self, site: Site, token: Token, entry: Entry) -> bytes | None:
        vault, withdrawal = interface("Vault"), entry.expected["id"]
        data = site.chain.call(token.vault, vault.call("withdrawal_done", withdrawal), site.final)
        if not vault.result("withdrawal_done", data):
            return None
        topics = [vault.topic("Withdrawn"), withdrawal]
        for receipt in site.chain.receipts_with([token.vault], topics, site.network.first_block, site.final):
            if any(matches(vault, "Withdrawn", entry.expected, said) for said in receipt.logs):
                return receipt.tx_hash
        raise OutboxError(f"{entry.purpose}: the vault has paid it otherwise than planned")

    def _paid_by_claims(self, token: Token) -> dict[int, bytes]:
        """Withdrawals that their owners have fetched: by address, oldest first, as far as what was claimed goes."""
        paid = {}
        rows = self.flows.withdrawals(
            "token = ? AND route = ? AND state <= ?", (token.number, Route.CLAIM, WithdrawalState.PAID)
        )
        left = defaultdict(int, self.claims.claimed(token.number))
        for row in rows:
            left[row.home] -= token.to_units(row.quantity_micros)
            if left[row.home] >= 0 and row.state == WithdrawalState.WITHDRAWING:
                paid[row.seq] = self.claims.last_hash(token.number, row.home)
        return paid

    def _proof_of_failure(self, site: Site, row: Withdrawal) -> bytes | None:
        """What shows that a withdrawal can never be paid: every nonce it had is used up without it, and the signatures
        that anybody could have copied from the network are out of date, as seen in final blocks.
        """
        entries = self._entries(site, row)
        given_up = self._now_s() - self._noticed_s(row.seq) > GIVE_UP_S
        if not entries:
            return bytes(32) if given_up else None
        dead = all(
            entry.state in {TxState.REVERTED, TxState.REPLACED} and entry.facts[0] < site.final_s for entry in entries
        )
        if not dead or not (given_up or entries[-1].state == TxState.REPLACED):
            return None
        return entries[-1].tx_hash

    def _noticed_s(self, seq: int) -> int:
        """When this file first heard of a withdrawal. The log has the market's time, which need not be the world's."""
        self.database.execute("INSERT OR IGNORE INTO noticed VALUES (?, ?)", (seq, self._now_s()))
        row = self.database.one("SELECT at_s FROM noticed WHERE seq = ?", (seq,))
        assert row is not None
        return int(row[0])

    # What goes out

    def set_standing(self, account: int, token: int | None) -> None:
        """From now on pay an account's gain of each cycle to its home address in a token, or stop doing so."""
        if token is None:
            self.database.execute("DELETE FROM standing WHERE account = ?", (account,))
        else:
            self.database.execute("INSERT OR REPLACE INTO standing VALUES (?, ?)", (account, token))

    def _payouts(self, site: Site) -> list[NDArray[Any]]:
        """WITHDRAW commands for the net creditors of cycles that are frozen, as far as they asked for it."""
        numbers = [token.number for token in site.tokens]
        cursor, commands = self._cursor(f"payouts {site.network.name}"), []
        for batch in self._frozen():
            if batch.cycle <= cursor:
                continue
            asked = {row.account for row in self.flows.withdrawals("cycle = ?", (batch.cycle,))}
            wanted = self._creditors(batch.cycle, numbers)
            for account, (token, amount) in wanted.items():
                home = self.deposits.home(account)
                if account not in asked and home and (batch.cycle, account) not in self._asked:
                    self._asked.add((batch.cycle, account))
                    destination = Destination(home, home, Route.BATCH, batch.cycle)
                    commands.append(withdraw_command(account, token, amount, destination))
            if all(account in asked or self.deposits.home(account) is None for account in wanted):
                self._advance(f"payouts {site.network.name}", batch.cycle)
            else:
                break
        return commands

    def _creditors(self, cycle: int, tokens: list[int]) -> dict[int, tuple[int, int]]:
        """account -> (token, amount): the cycle's gain, or what is left of it."""
        standing = dict(self.database.rows("SELECT account, token FROM standing"))
        balances = SqliteLedger(self._ledger).balances([user_account(account) for account in standing])
        wanted = {}
        for account, sums in self._batches.nets(cycle).items():
            token = standing.get(account)
            if token not in tokens:
                continue
            amount = min(sums.net_micros, balances.get((STABLECOIN, user_account(account, Role.AVAILABLE)), 0))
            if amount >= self.coins.tokens[token].limits.min_withdrawal_micros:
                wanted[account] = (token, amount)
        return wanted

    def _send_singles(self, site: Site) -> None:
        for token in site.tokens:
            for row in self.flows.waiting(token.number):
                purpose = withdrawal_purpose(row.seq)
                if (
                    row.route == Route.SINGLE
                    and row.seq not in self._handed_out
                    and self._may_sign(site.outbox, purpose)
                ):
                    if not self._within_rates(token, row):
                        self._wait(purpose, "it is above the rate of withdrawals")
                        continue
                    self._put(site, site.outbox, self._signed(site, token, row), [row])

    def _signed(self, site: Site, token: Token, row: Withdrawal) -> Plan:
        """A withdrawal with the signatures of its signers, each of whom asks the ledger itself."""
        deadline_s = self._now_s() + VALIDITY_S
        digest = authorization(token, row, deadline_s).digest(token.vault_domain)
        request = Request(withdrawal_purpose(row.seq), digest, (deadline_s,))
        signatures: dict[str, bytes] = {
            to_checksum_address(guard.address): wire(guard.sign(request)) for guard in site.signers
        }
        return withdrawal_plan(token, row, deadline_s, signatures)

    def _send_chunks(self, site: Site) -> None:
        complete = self._cursor(f"payouts {site.network.name}")
        for token in site.tokens:
            rows = [
                row for row in self.flows.waiting(token.number) if row.route == Route.BATCH and row.cycle <= complete
            ]
            by_chunk: dict[tuple[int, int], list[Withdrawal]] = defaultdict(list)
            fresh: dict[int, list[Withdrawal]] = defaultdict(list)
            for row in rows:
                place = self.database.one("SELECT chunk FROM chunk_rows WHERE seq = ?", (row.seq,))
                if place:
                    by_chunk[row.cycle, place[0]].append(row)
                elif self._within_rates(token, row):
                    fresh[row.cycle].append(row)
            for (cycle, chunk), members in by_chunk.items():
                self._send_chunk(site, token, members, cycle, chunk)
            for cycle, members in fresh.items():
                last = self.database.one(
                    "SELECT MAX(chunk) FROM chunk_rows WHERE token = ? AND cycle = ?", (token.number, cycle)
                )
                first = 0 if last is None or last[0] is None else last[0] + 1
                for at in range(0, len(members), MAX_CHUNK):
                    self._send_chunk(site, token, members[at : at + MAX_CHUNK], cycle, first + at // MAX_CHUNK)

    def _send_chunk(self, site: Site, token: Token, rows: list[Withdrawal], cycle: int, chunk: int) -> None:
        purpose = chunk_purpose(token.number, cycle, chunk)
        if any(row.seq in self._handed_out for row in rows) or not self._may_sign(site.outbox, purpose):
            return
        plan = chunk_plan(token, rows, self._batches.get(cycle).batch_id, chunk)
        self._put(site, site.outbox, plan, rows, chunk)

    def _send_roots(self, site: Site) -> None:
        """Propose the newest cycle's root; put it into force when its window is over."""
        frozen = self._frozen()
        for token in site.tokens if frozen else []:
            epoch, pending, in_force = (
                self._ask(site, token, name) for name in ("epoch", "pending_epoch", "root_cycle")
            )
            if pending:
                cycle = self._cycle_of(token, pending)
                if cycle and site.final_s >= self._ask(site, token, "finalizable_at"):
                    self._send_root(site, finalize_purpose(token.number, pending, cycle))
            elif frozen[-1].cycle > in_force:
                cycle = frozen[-1].cycle
                purpose = propose_purpose(token.number, epoch + 1, cycle)
                if not site.root_outbox.of(purpose) and self.roots.build(token, epoch + 1, frozen[-1]):
                    self._send_root(site, purpose)

    def _frozen(self) -> list[Batch]:
        return [batch for batch in self._batches.all() if batch.state >= BatchState.FROZEN]

    def _ask(self, site: Site, token: Token, function: str) -> int:
        """A number of the vault's, as it finally is."""
        vault = interface("Vault")
        return int(vault.result(function, site.chain.call(token.vault, vault.call(function), site.final)))

    def _cycle_of(self, token: Token, epoch: int) -> int | None:
        row = self.database.one("SELECT MAX(cycle) FROM roots WHERE token = ? AND epoch = ?", (token.number, epoch))
        return row[0] if row else None

    def _send_root(self, site: Site, purpose: str) -> None:
        under_way = [entry for entry in site.root_outbox.under_way() if entry.purpose != purpose]
        done = any(entry.state == TxState.FINAL for entry in site.root_outbox.of(purpose))
        if not under_way and not done and self._may_sign(site.root_outbox, purpose):
            self._put(site, site.root_outbox, self.roots.plan(purpose), [])

    # How anything goes out

    def _may_sign(self, outbox: Outbox, purpose: str) -> bool:
        """Nothing under way or done for it, and not too soon after a refusal."""
        entries = outbox.of(purpose)
        if self._waits.get(purpose, (0, ""))[0] > self._now_s():
            return False
        if not entries:
            return True
        last = entries[-1]
        if last.state == TxState.REPLACED and purpose.startswith("withdrawal:"):
            return False  # it is given back when its signatures are out of date
        return last.state in {TxState.REVERTED, TxState.REPLACED} and self._now_s() - last.made_s >= self.retry_s

    def _wait(self, purpose: str, why: str) -> None:
        if self._waits.get(purpose, (0, ""))[1] != why:
            log.warning("%s waits: %s", purpose, why)
        self._waits[purpose] = (self._now_s() + self.retry_s, why)

    def _put(
        self, site: Site, outbox: Outbox, plan: Plan, rows: Sequence[Withdrawal], chunk: int | None = None
    ) -> None:
        """Sign a plan that the chain would carry out now. One that it refuses (a paused coin, say) waits, unsigned."""
        try:
            gas = site.chain.gas(outbox.sender, plan.target, plan.data) * GAS_MARGIN_PERCENT // 100
        except CallRefused as error:
            self._wait(plan.purpose, str(error))
            return
        self._waits.pop(plan.purpose, None)

        def also() -> None:
            now_s = self._now_s()
            spends = [(row.seq, row.account, row.token, row.amount_micros, now_s) for row in rows]
            self.database.execute_many("INSERT OR IGNORE INTO spends VALUES (?, ?, ?, ?, ?)", spends)
            if chunk is not None:
                places = [(row.seq, row.token, row.cycle, chunk) for row in rows]
                self.database.execute_many("INSERT OR IGNORE INTO chunk_rows VALUES (?, ?, ?, ?)", places)

        outbox.put(plan, min(gas, site.network.max_gas), also)

    def _within_rates(self, token: Token, row: Withdrawal) -> bool:
        """Whether the limits of the hour and the day leave room; what was signed once has had its room."""
        if self.database.one("SELECT 1 FROM spends WHERE seq = ?", (row.seq,)):
            return True
        limits, now_s = token.limits, self._now_s()
        spent = "SELECT COALESCE(SUM(amount_micros), 0) FROM spends WHERE token = ? AND at_s > ?"
        for span_s, of_account, of_venue in (
            (3_600, limits.account_hour_micros, limits.venue_hour_micros),
            (86_400, limits.account_day_micros, limits.venue_day_micros),
        ):
            key = (token.number, now_s - span_s)
            venue = self.database.one(spent, key)
            account = self.database.one(f"{spent} AND account = ?", (*key, row.account))
            assert venue is not None and account is not None
            if venue[0] + row.amount_micros > of_venue or account[0] + row.amount_micros > of_account:
                return False
        return True

    def waiting_for(self, seq: int) -> str:
        """Why a withdrawal has not been signed yet; empty when nothing keeps it back."""
        halted = self.halts.open()
        return halted[0].reason if halted else self._waits.get(withdrawal_purpose(seq), (0, ""))[1]

    def settled_to(self, network: Network) -> int:
        """The last cycle whose payouts on a chain are all in the log."""
        return self._cursor(f"payouts {network.name}")

    def root_text(self, token: Token) -> str:
        """The last root that was built for a vault, for people."""
        row = self.database.one(
            "SELECT root, epoch FROM roots WHERE token = ? ORDER BY epoch DESC, cycle DESC LIMIT 1", (token.number,)
        )
        return f"0x{row[0].hex()[:16]} (epoch {row[1]})" if row else "none"

    # Does it all agree?

    def _reconcile(self, site: Site) -> None:
        """Once for each frozen cycle, and once after a start."""
        last = max((batch.cycle for batch in self._frozen()), default=0)
        name = f"reconciled {site.network.name}"
        if last <= self._cursor(name, -1) and site.network.name in self._reconciled:
            return
        self.reconcile(site)
        self._reconciled.add(site.network.name)
        self._advance(name, last)

    def reconcile(self, site: Site) -> list[str]:
        """Engine, ledger and chain beside each other, now; what differs, which stops withdrawals."""
        found = []
        for token in site.tokens:
            found += against_chain(site.chain, token, self._ledger, self._facts(site, token), site.final)
        if self._view is not None and self._applied_seq() >= self._view.seq:
            found += against_engine(self._ledger, self._view)
        for difference in found:
            self.halts.add(str(difference))
        return [str(difference) for difference in found]

    def _applied_seq(self) -> int:
        return SqliteLedger(self._ledger).head().applied_seq

    def _facts(self, site: Site, token: Token) -> Facts:
        deposits = self.deposits.rows("token = ? AND state >= ?", (token.number, DepositState.FINAL))
        return Facts(deposits, site.paid, self.claims.claimed(token.number), self.claims.exited(token.number))

    def _cursor(self, name: str, default: int = 0) -> int:
        row = self.database.one("SELECT value FROM cursors WHERE name = ?", (name,))
        return default if row is None else int(row[0])

    def _advance(self, name: str, value: int) -> None:
        self.database.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (name, value))
