"""Cash between shards: out of one by its journal, into another by the same words, once.

Each shard clears by itself, so an account's money is where it was put. To *move* it, a WITHDRAW goes into the shard that
has it, with `to:SHARD` as its external id; whatever the engine there makes of it is in the journal. An allocator reads
all journals, and for each move that left it sends a DEPOSIT into the other shard, as a frame of the sender `move:HOME`,
whose number is which move from there it is. So the number says whether it arrived: frames are taken once and in order, an
allocator that dies loses nothing, and two at a time do no harm. A DEPOSIT that is refused is given back the same way, by
`back:SHARD`.

An account is the same in two shards if it has the same name; the allocator opens it where it is not known yet.

Whoever trims a journal puts what is known of it up to there on the shard's shelf, and an allocator begins with that.
"""

import asyncio
import contextlib
import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from nats.aio.client import Client
from numpy.typing import NDArray

from engine.catalogue import pack_id, unpack_id
from engine.jetstream import Publisher, Reader, Shard, TrimmedError, end
from engine.sequencing import Entry, Frame
from engine.types import COMMAND, MONEY, TRANSFER, EventKind, Kind
from wellhead.cluster import shelf
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.place import PLACE_BYTES, Place
from wellhead.cluster.tasks import first_failure

TO, MOVE, BACK = "to:", "move:", "back:"
AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Move:
    """Money that left a shard for another."""

    name: str  # of the account
    amount_micros: int
    seq: int  # of its WITHDRAW


@dataclass
class Cash:
    """What one shard's journal says about accounts and moves."""

    shard: str
    accounts: dict[str, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    left: dict[str, list[Move]] = field(default_factory=lambda: defaultdict(list))
    """Moves by where they go, in order."""
    arrived: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    """Of the moves from a shard, in order, whether they were taken in or refused."""
    returned: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How many of the refused ones of a shard were given back here."""

    def take(self, entry: Entry) -> None:
        """Follow an entry."""
        for part in entry.parts:
            if part.sender.startswith(MOVE):
                taken = bool(part.events["kind"][0] == EventKind.DEPOSITED)
                self.arrived[part.sender.removeprefix(MOVE)].append(taken)
            elif part.sender.startswith(BACK):
                self.returned[part.sender.removeprefix(BACK)] += 1
            kinds = np.isin(part.events["kind"], (EventKind.ACCOUNT_OPENED, EventKind.WITHDRAWN))
            for event in part.events[kinds].view(MONEY):
                command = part.commands[part.commands["seq"] == event["command_seq"]].view(TRANSFER)[0]
                self._follow(event, command)

    def to_bytes(self) -> bytes:
        """All of it but the shard's name."""
        return msgspec.msgpack.encode((self.names, self.left, self.arrived, self.returned))

    def load(self, data: bytes) -> None:
        """Become what `to_bytes` was called on. Raises msgspec.DecodeError."""
        names, left, arrived, returned = msgspec.msgpack.decode(data, type=Stored)
        self.names, self.accounts = names, {}
        for number in sorted(names):
            self.accounts.setdefault(names[number], number)
        self.left, self.arrived = defaultdict(list, left), defaultdict(list, arrived)
        self.returned = defaultdict(int, returned)

    def _follow(self, event: Any, command: Any) -> None:
        account, words = int(event["account"]), unpack_id(command["external_id"])
        if event["kind"] == EventKind.ACCOUNT_OPENED:
            self.accounts.setdefault(words, account)
            self.names[account] = words
        elif words.startswith(TO) and command["asset"] == 0:
            move = Move(self.names[account], -int(event["amount_micros"]), int(command["seq"]))
            self.left[words.removeprefix(TO)].append(move)


Stored = tuple[dict[int, str], dict[str, list[Move]], dict[str, list[bool]], dict[str, int]]
"""A Cash as it is on the shelf."""


async def read_cash(client: Client, shard: Shard) -> tuple[Place, Cash]:
    """What the shelf says of the journal's beginning, and where that ends: the very beginning where nothing was trimmed."""
    cash, data = Cash(shard.name), await shelf.newest_cash(client, shard)
    if data is None:
        return Place(), cash
    cash.load(data[PLACE_BYTES:])
    return Place.unpack(data), cash


def in_transit(shards: dict[str, Cash]) -> int:
    """Micro-dollars that left one of these shards for another and are in none."""
    total = 0
    for home in shards.values():
        for there, moves in home.left.items():
            answers = shards[there].arrived[home.shard] if there in shards else []
            refused = [move for move, taken in zip(moves, answers, strict=False) if not taken]
            waiting = [*moves[len(answers) :], *refused[home.returned[there] :]]
            total += sum(move.amount_micros for move in waiting)
    return total


def withdrawal(account: int, to: str, amount_micros: int) -> NDArray[np.void]:
    """The command (COMMAND) that begins a move."""
    return _transfer(Kind.WITHDRAW, account, TO + to, amount_micros)


def _transfer(kind: Kind, account: int, external_id: str, amount_micros: int = 0) -> NDArray[np.void]:
    row = np.zeros(1, TRANSFER)
    row["kind"], row["account"], row["amount_micros"] = kind, account, amount_micros
    row["external_id"] = pack_id(external_id)
    return row.view(COMMAND)


class Allocator:
    """Carries moves between shards. Any number of them may run."""

    def __init__(self, configs: list[ClusterConfig]) -> None:
        """One configuration for each shard, all on the same servers. Raises ValueError when two have one name."""
        self.shards = {config.name: Cash(config.name) for config in configs}
        if len(self.shards) != len(configs):
            raise ValueError("two shards have the same name")
        self._configs = {config.name: config for config in configs}
        self._opener = f"open.{secrets.token_hex(5)}"  # of a life: an account's number is a guess, and may be taken
        self._opened: dict[str, int] = defaultdict(int)
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read all journals from what is on the shelf on, and carry."""
        first = next(iter(self._configs.values()))
        self._client: Client = await first.nats.servers.connect("allocator")
        self._publisher = Publisher(self._client)
        await self._publisher.start()
        self._tasks = [asyncio.create_task(self._follow(name)) for name in self.shards]
        self._tasks += [
            asyncio.create_task(self._carry(self.shards[home], self.shards[there]))
            for home in self.shards
            for there in self.shards
            if home != there
        ]

    async def failed(self) -> None:
        """Wait for a failure, and raise it."""
        await first_failure(self._tasks)

    async def stop(self) -> None:
        """Leave; what is on its way is carried on by the next one."""
        await end(self._tasks)
        await self._publisher.stop()
        await self._client.close()

    async def _follow(self, name: str) -> None:
        while True:
            with contextlib.suppress(TrimmedError):  # it was too slow, and finds the rest on the shelf
                await self._read(name)

    async def _read(self, name: str) -> None:
        """Follow a journal, for ever. Raises TrimmedError."""
        shard, cash = self._configs[name].shard, self.shards[name]
        place, known = await read_cash(self._client, shard)
        cash.load(known.to_bytes())
        journal, reader = place.journal, Reader(self._client, shard.journal, place.journal_seq)
        await reader.start()
        try:
            while True:
                for message in await reader.read():
                    if (entry := journal.take(message.data)) is not None:
                        cash.take(entry)
                self._changed.set()
                await asyncio.sleep(0)
        finally:
            await reader.stop()

    async def _carry(self, home: Cash, there: Cash) -> None:
        """What left `home` for `there`, one after the other, and back again what was refused."""
        while True:
            moves, answers = home.left[there.shard], there.arrived[home.shard]
            refused = [move for move, taken in zip(moves, answers, strict=False) if not taken]
            if home.returned[there.shard] < len(refused):
                number = home.returned[there.shard] + 1
                await self._send(home, f"{BACK}{there.shard}", number, refused[number - 1])
            elif len(answers) < len(moves):
                await self._send(there, f"{MOVE}{home.shard}", len(answers) + 1, moves[len(answers)])
            else:
                await self._something(None)

    async def _send(self, to: Cash, sender: str, number: int, move: Move) -> None:
        """One step towards a deposit: the account first, if it is not there."""
        account = to.accounts.get(move.name)
        if account is None:
            self._opened[to.shard] += 1
            command = _transfer(Kind.OPEN_ACCOUNT, max(to.names, default=0) + 1, move.name)
            frame = Frame(self._opener, self._opened[to.shard], command)
        else:
            frame = Frame(sender, number, _transfer(Kind.DEPOSIT, account, f"{sender}.{number}", move.amount_micros))
        future = await self._publisher.send(self._configs[to.shard].shard.input_subject, frame.pack())
        await asyncio.wait([future], timeout=AGAIN_S)
        await self._something(AGAIN_S)

    async def _something(self, seconds: float | None) -> None:
        """Wait until a journal has moved, or for so long."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
