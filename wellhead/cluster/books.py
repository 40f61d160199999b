"""The books of a shard in a process of their own, and one ledger over all shards.

A bookkeeper reads the journal, posts what it says, and sends the commands that the books ask for (deliveries that are due).
In PostgreSQL each shard has a schema of its own in one database, because numbers of accounts and commands are a shard's own; the
views of the schema `wellhead` put them side by side under the accounts' names. The ledger's epoch fences a bookkeeper
that was replaced (settlement/postgres.py).
"""

import asyncio
import secrets
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.jetstream import Publisher, Reader, end, head_of, join
from engine.log import LogError
from engine.records import joined
from engine.sequencing import Entry, Journal
from engine.types import COMMAND, EVENT
from settlement.service import SQLITE, Settlement
from wellhead.additions import load_catalogue
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.sender import Sender

POLL_S = 0.2
_PLACE = struct.Struct("<qqq32s")  # journal_seq, in_seq, seq, chain
_PLACE_NAME = "journal.place"


class Bookkeeper:
    """The books of one shard. `await start()`, and `await stop()`; `await failed()` to learn why it cannot go on."""

    def __init__(
        self, config: ClusterConfig, data_dir: Path, ledger: str = SQLITE, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """`ledger` is `sqlite` or the address of a PostgreSQL database that all shards share."""
        self.config, self.name = config, f"books of {config.name}"
        self._data_dir, self._clock = data_dir, clock
        self._thread = ThreadPoolExecutor(1, "books")
        place = ledger if ledger == SQLITE else schema_of(ledger, config.name)
        data_dir.mkdir(parents=True, exist_ok=True)
        self.settlement = Settlement(data_dir / "settlement", load_catalogue(data_dir), place)
        self._sender_name = f"books.{secrets.token_hex(5)}"
        self._market_ns = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._restore()

    def _restore(self) -> None:
        """Where to read on: only as far as the books are is the place of any use."""
        self.journal, self.journal_seq = Journal(), 0
        path = self._data_dir / _PLACE_NAME
        if path.exists() and path.stat().st_size == _PLACE.size:
            journal_seq, in_seq, seq, chain = _PLACE.unpack(path.read_bytes())
            if seq <= self.settlement.applied_seq:
                self.journal, self.journal_seq = Journal(in_seq, seq, chain), journal_seq

    async def start(self) -> None:
        """Read the journal to its end, then go on. Raises LogError, nats.errors.Error."""
        self._client = await join(self.config.nats.servers, self.config.shard, self.name)
        self._publisher = Publisher(self._client)
        self._sender = Sender(self._publisher, self.config.shard.input_subject, self._sender_name)
        self._reader = Reader(self._client, self.config.shard.journal, self.journal_seq)
        await self._publisher.start()
        await self._reader.start()
        head = await head_of(self._client, self.config.shard.journal)
        if self.journal_seq > head:
            raise LogError(f"{self._data_dir} is at entry {self.journal_seq}; the journal ends with {head}")
        while self.journal_seq < head:
            await self._post()
        self._tasks = [asyncio.create_task(job) for job in (self._follow(), self._sender.run(), self._ask())]

    async def failed(self) -> None:
        """Wait for a failure, and raise it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Leave; the books stand where they are."""
        await end(self._tasks)
        await self._reader.stop()
        await self._publisher.stop()
        await self._client.close()
        self._thread.shutdown()
        journal = self.journal
        place = _PLACE.pack(self.journal_seq, journal.in_seq, journal.seq, journal.chain)
        (self._data_dir / _PLACE_NAME).write_bytes(place)
        self.settlement.close()

    async def _follow(self) -> None:
        while True:
            await self._post()

    async def _post(self) -> None:
        """Post what has arrived, in one transaction."""
        messages = await self._reader.read()
        entries: list[Entry] = []
        for message in messages:
            if (entry := self.journal.take(message.data)) is not None:
                entries.append(entry)
        parts = [part for entry in entries for part in entry.parts]
        if parts:
            commands = joined([part.commands for part in parts], COMMAND)
            events = joined([part.events for part in parts], EVENT)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self.settlement.on_batch, commands, events)
            self._market_ns = int(commands["ts_ns"][-1])
        self.journal_seq = messages[-1].seq
        for part in parts:
            if part.sender == self._sender_name:
                self._sender.confirmed(part.number)
        self._sender.covered(self.journal.in_seq)

    async def _ask(self) -> None:
        """Send what the books ask for."""
        loop = asyncio.get_running_loop()
        while True:
            now_ns = max(self._clock(), self._market_ns)
            due: NDArray[np.void] = await loop.run_in_executor(self._thread, self.settlement.due, now_ns)
            if len(due):
                self._sender.submit(due)
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
