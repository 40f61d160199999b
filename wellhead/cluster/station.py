"""A gateway in a process of its own: clients on one side, the input and the journal on the other.

It answers a client when the journal has what came of its command, never before: that is what all replicas have agreed
on. The commands of other gateways go through it too, because books and accounts are everybody's; their senders' numbers
are wiped out first, so that no gateway takes another's command for its own.

Gateways tell each other whom they serve. So a key that logs on elsewhere replaces its older session here, and what the
sessions of a gateway that died left in the books is cancelled by those that live, as after a restart of a single node.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from nats.aio.client import Client
from nats.aio.msg import Msg
from numpy.typing import NDArray

from engine.catalogue import Catalogue, pack_id
from engine.jetstream import Publisher, Reader, Stored, end, ends_of, head_of, join, patiently
from engine.log import LogError
from engine.records import joined
from engine.sequencing import Entry, Journal
from engine.snapshot import Snapshot
from engine.types import COMMAND, EVENT, TRANSFER, EventKind, Flag, Kind
from gateway.auth import KeyStore
from gateway.config import GatewayConfig
from gateway.gateway import Gateway
from gateway.history import History
from gateway.memory import warm_up
from gateway.messages import Close
from gateway.server import Server
from wellhead.cluster.archive import replay
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.marks import Marker
from wellhead.cluster.office import Books, Told
from wellhead.cluster.place import Place
from wellhead.cluster.sender import Sender
from wellhead.cluster.tasks import first_failure

log = logging.getLogger(__name__)

PRESENCE_S = 1.0
LOOK_S = 0.1
GONE_S = 3.0
"""A gateway that was not heard of for so long is gone."""
EXTENDED_FIELDS = ("stop_price", "show_qty", "min_qty", "expire_ns", "deadline_ns", "tag", "stp_group")


def mark_ids(commands: NDArray[np.void]) -> None:
    """Have the engine read the client's ids: one that is sent through two gateways at once is known to neither."""
    orders = (commands["kind"] == Kind.NEW_ORDER) & commands["cl_ord_id"].any(axis=1)
    commands["flags"][orders] |= int(Flag.EXTENDED)


def unmark_ids(commands: NDArray[np.void]) -> NDArray[np.void]:
    """The commands as gateways make them, who remember orders by what was asked for: without the mark, where it is ours."""
    marked = (commands["kind"] == Kind.NEW_ORDER) & (commands["flags"] & int(Flag.EXTENDED) != 0)
    for field in EXTENDED_FIELDS:
        marked &= commands[field] == 0
    commands["flags"][marked] &= ~np.uint32(Flag.EXTENDED)
    return commands


class Station:
    """One gateway. `await start()`, and `await stop()`; `await failed()` to learn why it cannot go on."""

    def __init__(  # noqa: PLR0913
        self,
        config: ClusterConfig,
        name: str,
        data_dir: Path,
        port: int = 0,
        *,
        catalogue: Catalogue | None = None,
        clock: Callable[[], int] = time.time_ns,
        gateway: GatewayConfig | None = None,
        archive: Path | None = None,
    ) -> None:
        """`archive`: where to read what the journal no longer has, if it must (wellhead/cluster/archive.py)."""
        self.config, self.name, self.shard = config, name, config.shard
        self._data_dir, self._archive = data_dir, archive
        self._clock = clock
        self._market_ns = 0
        self._books = Books(config.shard, self._hear_news)
        self._news: Told | None = None  # not shown yet
        gateway_config = gateway or GatewayConfig(restart_grace_ms=config.restart_grace_ms)
        self.gateway = Gateway(
            gateway_config, catalogue or Catalogue.load(), KeyStore(config.keys), self._submit, self.now_ns,
            papers=self._books, history=History(gateway_config.history_rows, data_dir / "history"),
        )  # fmt: skip
        self.gateway.operations.meters = self._books
        warm_up()  # now, and not while servers wait to hear of us: at its first time it takes half a minute
        self.server = Server(self.gateway, config.host, port)
        self.journal = Journal()
        self.journal_seq = 0
        self._pictured = Place()  # of our newest snapshot
        self._others: dict[str, tuple[float, list[tuple[int, int, int]]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        # A name for each life: what an earlier one sent may still arrive, and must not pass for ours.
        self.sender_name = f"{name[:12]}.{secrets.token_hex(5)}"

    def now_ns(self) -> int:
        """The market's time: the clock, but never before what the journal already says."""
        return max(self._clock(), self._market_ns)

    async def start(self) -> None:
        """Read the journal to its end, then open the port. Raises LogError, nats.errors.Error, OSError."""
        self._client: Client = await join(self.config.nats.servers, self.shard, f"gateway {self.name}")
        self._restore()
        marker = Marker(self._client, self.shard, "gateway", self.name, lambda: (self._pictured.journal_seq, -1))
        await patiently(marker.note)  # nothing behind it goes from now on
        await self._fill_gap()
        publisher = self._publisher = Publisher(self._client)
        self._reader = Reader(self._client, self.shard.journal, self.journal_seq)
        self.sender = Sender(publisher, self.shard.input_subject, self.sender_name, self.config.window)
        await publisher.start()
        await self._reader.start()
        head = await head_of(self._client, self.shard.journal)
        if self.journal_seq > head:
            raise LogError(f"{self._data_dir} has a snapshot at entry {self.journal_seq}; the journal ends with {head}")
        while self.journal_seq < head:
            self._take(await self._reader.read())
        await self._client.subscribe(f"wh.{self.shard.name}.presence", cb=self._heard)
        await asyncio.sleep(2 * PRESENCE_S if self._leaves_sessions() else 0)  # hear who serves whom, before we judge
        self._look_at_others()
        await self._books.open(self._client)
        await self.server.start()
        marking = marker.run(self.config.mark_every_ms)
        jobs = (self._follow(), self.sender.run(), self._tell(), self._books.look(), marking)
        self._tasks = [asyncio.create_task(job) for job in jobs]

    async def _fill_gap(self) -> None:
        """Where the journal begins behind us, read the archive first. Raises LogError."""
        first, _ = await ends_of(self._client, self.shard.journal)
        if first <= self.journal_seq + 1:
            return
        place = Place() if self._archive is None else Place.read(self._archive)
        if self._archive is None or place.journal_seq + 1 < first:
            raise LogError(
                f"the journal begins with entry {first} and {self._data_dir} ends with {self.journal_seq}:"
                " give the gateway an archive that has what is between (--archive)"
            )
        for commands, events in replay(self._archive, self.journal.seq):
            commands["ref"] = 0  # whoever waited for an answer does no longer
            self.gateway.on_batch(unmark_ids(commands), events)
            self._market_ns = int(commands["ts_ns"][-1])
            await asyncio.sleep(0)
        self.journal, self.journal_seq = place.journal, place.journal_seq
        self._store()

    async def failed(self) -> None:
        """Wait for a failure, and raise it."""
        await first_failure(self._tasks)

    async def stop(self) -> None:
        """Tell the clients, and leave."""
        self.gateway.shutdown()
        await end(self._tasks)
        await self.server.stop()
        await self._reader.stop()
        await self._publisher.stop()
        await self._client.close()
        self._store()

    # --- The market ---------------------------------------------------------------------------------------------------

    def _submit(self, commands: NDArray[np.void]) -> None:
        mark_ids(commands)
        self.sender.submit(commands)

    async def _follow(self) -> None:
        while True:
            self._take(await self._reader.read())
            if self.journal.seq - self._pictured.seq >= self.config.snapshot_every_commands:
                self._store()
            await asyncio.sleep(0)

    def _take(self, messages: list[Stored]) -> None:
        for message in messages:
            entry = self.journal.take(message.data)
            self.journal_seq = message.seq
            if entry is None:
                continue
            if entry.parts:
                self._apply(entry)
            for part in entry.parts:
                if part.sender == self.sender_name:
                    self.sender.confirmed(part.number)
            self.sender.covered(entry.last_in)
        self._show_news()

    def _apply(self, entry: Entry) -> None:
        for part in entry.parts:
            if part.sender == self.sender_name:
                self._give_paper(part.commands, part.events)
            else:
                part.commands["ref"] = 0
        commands = unmark_ids(joined([part.commands for part in entry.parts], COMMAND))
        events = joined([part.events for part in entry.parts], EVENT)
        self._market_ns = int(commands["ts_ns"][-1])
        self.gateway.on_batch(commands, events)

    def _hear_news(self, told: Told) -> None:
        self._news = told
        self._show_news()

    def _show_news(self) -> None:
        """What the books say, once we have read as far as they."""
        if (news := self._news) is not None and self.journal.seq >= news.seq:
            self._news = None
            self.gateway.channels.indices.publish(news.indices)
            self.gateway.tell_settled(news.seq, news.batches, news.deliveries)

    def _give_paper(self, commands: NDArray[np.void], events: NDArray[np.void]) -> None:
        if not self.config.paper_micros:
            return
        opened = commands[(commands["kind"] == Kind.OPEN_ACCOUNT) & (commands["ref"] > 0)]
        opened = opened[np.isin(opened["seq"], events["command_seq"][events["kind"] == EventKind.ACCOUNT_OPENED])]
        if len(opened):
            deposits = np.zeros(len(opened), TRANSFER)
            deposits["kind"], deposits["account"] = Kind.DEPOSIT, opened["account"]
            deposits["amount_micros"] = self.config.paper_micros
            deposits["external_id"] = pack_id("paper")
            self.sender.submit(deposits.view(COMMAND))

    # --- The other gateways -------------------------------------------------------------------------------------------

    def _sessions(self) -> list[tuple[int, int, int]]:
        """Who is logged on here: account, serial number of the key, since when."""
        held = self.gateway.logons.by_key.values()
        return [(one.identity.account, one.identity.key.serial, one.born_us) for one in held if one.identity]

    def _leaves_sessions(self) -> bool:
        return bool(self.gateway.projection.open_sessions())

    async def _tell(self) -> None:
        """Tell the others whom we serve, at once when it changes, and look at what they told."""
        told: list[tuple[int, int, int]] = []
        told_at = 0.0
        while True:
            sessions = self._sessions()
            if sessions != told or time.monotonic() - told_at > PRESENCE_S:
                told, told_at = sessions, time.monotonic()
                if self._client.is_connected:
                    note = json.dumps({"name": self.sender_name, "sessions": sessions}).encode()
                    await self._client.publish(f"wh.{self.shard.name}.presence", note)
                    self._look_at_others()
            await asyncio.sleep(LOOK_S)

    async def _heard(self, message: Msg) -> None:
        note = json.loads(message.data)
        if note["name"] != self.sender_name:
            self._others[note["name"]] = time.monotonic(), [tuple(one) for one in note["sessions"]]
            self._close_replaced()

    def _close_replaced(self) -> None:
        newest = {(account, serial): since for _, (_, held) in self._others.items() for account, serial, since in held}
        for session in list(self.gateway.logons.by_key.values()):
            identity = session.identity
            if identity is not None and newest.get((identity.account, identity.key.serial), 0) > session.born_us:
                self.gateway.logons.logout(session)  # its orders are the other session's now
                session.close(Close.REPLACED, "replaced by a newer session of this key, at another gateway")

    def _look_at_others(self) -> None:
        now = time.monotonic()
        self._others = {name: (at, held) for name, (at, held) in self._others.items() if now - at < GONE_S}
        elsewhere = {(account, serial) for _, held in self._others.values() for account, serial, _ in held}
        self.gateway.logons.follow(elsewhere, self.gateway.wall_us())

    # --- Storing ------------------------------------------------------------------------------------------------------

    def _store(self) -> None:
        """Store what the gateway knows, so that its next start reads the journal from there."""
        place = Place.of(self.journal_seq, self.journal)
        folder = self._data_dir / "snapshots"
        sections = {"gateway": self.gateway.snapshot(), "place": place.pack()}
        Snapshot.write(folder, place.seq, place.chain, sections)
        Snapshot.prune(folder)
        self._pictured = place

    def _restore(self) -> None:
        found = Snapshot.latest(self._data_dir / "snapshots").snapshot
        if found is None:
            return
        place = self._pictured = Place.unpack(found.sections["place"])
        self.gateway.restore(found.sections["gateway"])
        self.journal, self.journal_seq = place.journal, place.journal_seq
