"""A cycle's gains, pushed to those who asked for it: WITHDRAW commands first, then chunks of the vault's batch."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from settlement.accounts import STABLECOIN, Role, user_account
from settlement.database import Database
from settlement.flows import Destination, Route, Withdrawal, withdraw_command
from settlement.plans import chunk_plan, chunk_purpose
from settlement.rates import Rates
from settlement.records import Records
from settlement.sending import Sending
from settlement.site import Site
from settlement.stablecoins import TX_GAS, Network, Token
from settlement.vault import FRESH_CHUNK

SCHEMA = """
CREATE TABLE IF NOT EXISTS chunk_rows (
    seq INTEGER PRIMARY KEY,
    token INTEGER NOT NULL,
    cycle INTEGER NOT NULL,
    chunk INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS rows_of_chunk ON chunk_rows (token, cycle, chunk);
CREATE TABLE IF NOT EXISTS standing (
    account INTEGER PRIMARY KEY,
    token INTEGER NOT NULL
) STRICT
"""


class Standing:
    """Who is paid his gain of each cycle, and in which token."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.transaction():
            database.create(SCHEMA)

    def set(self, account: int, token: int | None) -> None:
        """From now on pay an account's gain of each cycle to its home address in a token, or stop doing so."""
        if token is None:
            self._database.execute("DELETE FROM standing WHERE account = ?", (account,))
        else:
            self._database.execute("INSERT OR REPLACE INTO standing VALUES (?, ?)", (account, token))

    def all(self) -> dict[int, int]:
        """account -> token."""
        return dict(self._database.rows("SELECT account, token FROM standing"))


def by_chunk(database: Database, rows: Sequence[Withdrawal]) -> dict[tuple[int, int], list[Withdrawal]]:
    """(cycle, chunk) -> those of some withdrawals that were signed in that chunk of the cycle's batch."""
    found: dict[tuple[int, int], list[Withdrawal]] = defaultdict(list)
    for row in rows:
        place = database.one("SELECT chunk FROM chunk_rows WHERE seq = ?", (row.seq,))
        if place is not None:
            found[row.cycle, place[0]].append(row)
    return found


def chunk_size(network: Network) -> int:
    """How many recipients fit into a transaction on a chain, even if none was ever paid before."""
    return max(1, min(FRESH_CHUNK, FRESH_CHUNK * network.max_gas // TX_GAS))


class Payouts:
    """Asks for the withdrawals of frozen cycles, and signs their chunks once all of a cycle's are in the log."""

    def __init__(self, records: Records, sending: Sending, rates: Rates) -> None:
        self._records = records
        self._sending = sending
        self._rates = rates
        self.standing = Standing(records.database)
        self._asked: set[tuple[int, int]] = set()  # (cycle, account)

    def settled_to(self, network: Network) -> int:
        """The last cycle whose withdrawals on a chain are all in the log."""
        return self._records.cursor(f"payouts {network.name}")

    def commands(self, site: Site) -> list[NDArray[Any]]:
        """WITHDRAW commands for the net creditors of cycles that are frozen, as far as they asked for it."""
        numbers, commands = [token.number for token in site.tokens], []
        settled_to, homes = self.settled_to(site.network), self._records.deposits.homes()
        for batch in self._records.exported():
            if batch.cycle <= settled_to:
                continue
            logged = {row.account for row in self._records.flows.withdrawals("cycle = ?", (batch.cycle,))}
            wanted = {
                account: pay for account, pay in self._creditors(batch.cycle, numbers).items() if account in homes
            }
            for account, (token, amount) in wanted.items():
                if account not in logged and (batch.cycle, account) not in self._asked:
                    self._asked.add((batch.cycle, account))
                    home = homes[account]
                    destination = Destination(home, home, Route.BATCH, batch.cycle)
                    commands.append(withdraw_command(account, token, amount, destination))
            if not wanted.keys() <= logged:
                break
            self._records.advance(f"payouts {site.network.name}", batch.cycle)
        return commands

    def _creditors(self, cycle: int, tokens: list[int]) -> dict[int, tuple[int, int]]:
        """account -> (token, amount): the cycle's gain, or what is left of it."""
        standing = self.standing.all()
        balances = self._records.ledger.balances([user_account(account) for account in standing])
        wanted = {}
        for account, sums in self._records.batches.nets(cycle).items():
            token = standing.get(account)
            if token not in tokens:
                continue
            amount = min(sums.net_micros, balances.get((STABLECOIN, user_account(account, Role.AVAILABLE)), 0))
            if amount >= self._records.coins.tokens[token].limits.min_withdrawal_micros:
                wanted[account] = (token, amount)
        return wanted

    # Chunks

    def sign(self, site: Site) -> None:
        """Raises Refused, SignerError, ChainError, OutboxError."""
        settled_to = self.settled_to(site.network)
        for token in site.tokens:
            rows = [
                row
                for row in self._records.flows.waiting(token.number)
                if row.route == Route.BATCH and row.cycle <= settled_to and row.seq not in site.paid
            ]
            placed = by_chunk(self._records.database, rows)
            for (cycle, chunk), members in placed.items():
                self._sign_chunk(site, token, members, cycle, chunk)
            known = {row.seq for members in placed.values() for row in members}
            fresh: dict[int, list[Withdrawal]] = defaultdict(list)
            for row in rows:
                if row.seq not in known and self._rates.allow(token, row):
                    fresh[row.cycle].append(row)
            for cycle, rows in fresh.items():
                first, size = self._next_chunk(token, cycle), chunk_size(site.network)
                for at in range(0, len(rows), size):
                    self._sign_chunk(site, token, rows[at : at + size], cycle, first + at // size)

    def _next_chunk(self, token: Token, cycle: int) -> int:
        query = "SELECT MAX(chunk) FROM chunk_rows WHERE token = ? AND cycle = ?"
        row = self._records.database.one(query, (token.number, cycle))
        return 0 if row is None or row[0] is None else int(row[0]) + 1

    def _sign_chunk(self, site: Site, token: Token, rows: Sequence[Withdrawal], cycle: int, chunk: int) -> None:
        if not self._sending.may_sign(site.outbox, chunk_purpose(token.number, cycle, chunk)):
            return
        plan = chunk_plan(token, rows, self._records.batches.get(cycle).batch_id, chunk)

        def also() -> None:
            self._rates.note(rows)
            places = [(row.seq, row.token, row.cycle, chunk) for row in rows]
            self._records.database.execute_many("INSERT OR IGNORE INTO chunk_rows VALUES (?, ?, ?, ?)", places)

        self._sending.put(site, site.outbox, plan, also)
