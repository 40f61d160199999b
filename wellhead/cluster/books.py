"""The books of a shard in a process of their own, and one ledger over all shards.

A bookkeeper reads the journal, posts what it says, sends the commands that the books ask for (deliveries that are due),
and answers the gateways' questions (wellhead/cluster/office.py). It keeps an archive too, so its directory is that of a
single node: log, books, statements. What the archive has and the books have not, because they are new or were lost, is
made from there.

In PostgreSQL each shard has a schema of its own in one database, because numbers of accounts and commands are a shard's own; the
views of the schema `wellhead` put them side by side under the accounts' names. The ledger's epoch fences a bookkeeper
that was replaced (settlement/postgres.py).
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.jetstream import Publisher, end
from engine.sequencing import Part
from engine.types import EventKind
from settlement.service import SQLITE, Settlement
from wellhead.additions import load_catalogue
from wellhead.cluster.archive import Archivist, replay
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.office import Office
from wellhead.cluster.sender import Sender

POLL_S = 0.2
SETTLED_KINDS = frozenset((EventKind.CLOSED, EventKind.DELIVERED, EventKind.DELISTED, EventKind.CYCLE_CLOSED))
"""Behind these there is news."""


class Bookkeeper(Archivist):
    """The books of one shard. `await start()`, and `await stop()`; `await failed()` to learn why it cannot go on."""

    KIND = "books"

    def __init__(
        self, config: ClusterConfig, data_dir: Path, ledger: str = SQLITE, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """`ledger` is `sqlite` or the address of a PostgreSQL database that all shards share. Raises LogError."""
        super().__init__(config, config.name, data_dir)
        self._clock = clock
        place = ledger if ledger == SQLITE else schema_of(ledger, config.name)
        catalogue, directory = load_catalogue(data_dir), data_dir / "settlement"
        self.settlement = Settlement(directory, catalogue, place)
        self._sender_name = f"books.{secrets.token_hex(5)}"
        self._sender: Sender | None = None
        self._market_ns = 0
        self._office = Office(self.settlement, directory, catalogue, self._sender_name, self.now_ns)

    def now_ns(self) -> int:
        """The market's time: the clock, but never before what the journal already says."""
        return max(self._clock(), self._market_ns)

    async def start(self) -> None:
        """Bring the books to the end of archive and journal, then go on. Raises LogError, nats.errors.Error."""
        await self._in_thread(self._catch_up)
        await super().start()
        self._publisher = Publisher(self._client)
        await self._publisher.start()
        sender = self._sender = Sender(self._publisher, self.config.shard.input_subject, self._sender_name)
        self._tasks += [asyncio.create_task(job) for job in (sender.run(), self._ask(sender))]
        await self._office.open(self._client, self.config.shard)
        await self._office.tell(await self._in_thread(self._office.read_news))

    def _catch_up(self) -> None:
        if self.settlement.applied_seq < self.journal.seq:
            for commands, events in replay(self._data_dir, self.settlement.applied_seq):
                self.settlement.on_batch(commands, events)

    async def stop(self) -> None:
        """Leave; the books stand where they are."""
        await end(self._tasks)
        await self._publisher.stop()
        await self._office.close()
        await super().stop()
        self.settlement.close()

    def _take_in(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        super()._take_in(commands, events)
        self.settlement.on_batch(commands, events)
        self._market_ns = int(commands["ts_ns"][-1])

    async def _done(self, parts: list[Part]) -> None:
        if self._sender is None:
            return
        for part in parts:
            if part.sender == self._sender_name:
                self._sender.confirmed(part.number)
        self._sender.covered(self.journal.in_seq)
        if not all(SETTLED_KINDS.isdisjoint(part.events["kind"].tobytes()) for part in parts):
            await self._office.tell(await self._in_thread(self._office.read_news))

    async def _ask(self, sender: Sender) -> None:
        """Send what the books ask for."""
        while True:
            due: NDArray[np.void] = await self._in_thread(self.settlement.due, self.now_ns())
            if len(due):
                sender.submit(due)
            await asyncio.sleep(POLL_S)


def schema_of(database: str, shard: str) -> str:
    """The address of a shard's own schema in the database, which is made where it is missing."""
    import psycopg  # noqa: PLC0415 - optional
    from psycopg import conninfo, sql  # noqa: PLC0415

    name = f"shard_{shard.lower().replace('-', '_')}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(name)))
    return conninfo.make_conninfo(database, options=f"-csearch_path={name}")


def make_overview(database: str, shards: list[str]) -> None:
    """Views over the books of all shards: `wellhead.balances (shard, account, name, pocket, asset, amount)` in micro-units.

    `pocket` is the role of settlement/accounts.py; the house and the world outside have no name.
    """
    import psycopg  # noqa: PLC0415 - optional
    from psycopg import sql  # noqa: PLC0415

    one = sql.SQL(
        "SELECT {shard}::text AS shard, b.account / 16 AS account, m.name, b.account % 16 AS pocket, b.asset, b.amount"
        " FROM {schema}.balances b LEFT JOIN {schema}.members m ON m.account = b.account / 16"
    )
    names = {shard: sql.Identifier(f"shard_{shard.lower().replace('-', '_')}") for shard in shards}
    parts = [one.format(shard=sql.Literal(shard), schema=name) for shard, name in names.items()]
    with psycopg.connect(database) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS wellhead")
        connection.execute(sql.SQL("CREATE OR REPLACE VIEW wellhead.balances AS ") + sql.SQL(" UNION ALL ").join(parts))
