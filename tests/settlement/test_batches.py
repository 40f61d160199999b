"""A cycle becomes one batch, once, wherever the process dies."""

import os
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.types import Kind, Side
from settlement import statements
from settlement.batches import Batch, BatchError, BatchState
from settlement.database import Database
from settlement.disk import Folder
from settlement.ledger import LedgerGapError
from settlement.service import Settlement
from settlement.verify import verify
from tests.settlement.flow import CATALOGUE, Recording, Venue, command, listing, open_account, order, recorded, transfer


def content(directory: Path) -> dict[str, bytes]:
    root = directory / "statements"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def result(settlement: Settlement) -> tuple[str, list[Batch]]:
    return settlement.books.ledger.digest(), settlement.books.batches.all()


@pytest.fixture
def small(tmp_path: Path) -> Recording:
    """A short life with two cycles, so that a crash at each single statement can be tried."""
    venue = Venue(tmp_path / "original")
    venue.send(*(open_account(account) for account in (1, 2)), listing(1))
    venue.send(*(transfer(Kind.DEPOSIT, account, amount_micros=10**9) for account in (1, 2)))
    venue.send(transfer(Kind.NOMINATE, 1, instrument=1, lots=9), order(1, 1, Side.SELL, 2600, 5))
    venue.send(order(2, 1, Side.BUY, 2600, 3), command(Kind.CLOSE_CYCLE), order(2, 1, Side.BUY, 2600, 1))
    venue.send(command(Kind.CLOSE, instrument=1))
    venue.deliver()
    venue.send(command(Kind.CLOSE_CYCLE), command(Kind.TICK))
    assert verify(venue.settlement.books, venue.engine.dump()) == []
    venue.settlement.close()
    return venue.recording()


def test_batches_are_frozen_chained_and_cover_the_log(tmp_path: Path) -> None:
    log = recorded(3, 60)
    settlement = Settlement(tmp_path, CATALOGUE)
    settlement.on_batch(log.commands, log.events)
    batches = settlement.books.batches.all()
    assert [batch.cycle for batch in batches] == list(range(1, len(batches) + 1))
    assert batches[0].from_seq == 1
    assert batches[0].previous_id == bytes(32)
    for before, after in pairwise(batches):
        assert after.from_seq == before.to_seq + 1
        assert after.previous_id == before.batch_id
    assert batches[-1].to_seq == len(log)
    assert {batch.state for batch in batches} == {BatchState.FROZEN}
    assert settlement.last_batch() == batches[-1]
    settlement.close()


def test_a_frozen_batch_run_again_is_the_same(tmp_path: Path, small: Recording) -> None:
    settlement = Settlement(tmp_path / "books", CATALOGUE)
    settlement.on_batch(small.commands, small.events)
    batch = settlement.books.batches.get(1)
    assert settlement.books.batches.advance(1, settlement.books.ledger) == batch
    assert settlement.books.batches.recompute(batch, settlement.books.ledger)[1] == batch.root
    with pytest.raises(BatchError, match="no batch of cycle 3"):
        settlement.books.batches.get(3)
    settlement.close()


def test_one_command_at_a_time_or_all_at_once(tmp_path: Path, small: Recording) -> None:
    results, files = [], []
    for step in (1, 2, 5, len(small)):
        directory = tmp_path / str(step)
        settlement = Settlement(directory, CATALOGUE)
        for first in range(1, len(small) + 1, step):
            settlement.on_batch(*small.cut(first, min(first + step - 1, len(small))))
        results.append(result(settlement))
        files.append(content(directory))
        settlement.close()
    assert all(each == results[0] for each in results)
    assert all(each == files[0] for each in files)


def test_what_was_applied_is_left_out_and_a_gap_is_refused(tmp_path: Path, small: Recording) -> None:
    settlement = Settlement(tmp_path / "books", CATALOGUE)
    with pytest.raises(LedgerGapError, match="from 2 on, but only 0"):
        settlement.on_batch(*small.cut(2, 5))
    assert settlement.applied_seq == 0
    settlement.on_batch(*small.cut(1, 7))
    before = result(settlement)
    for first, last in ((1, 7), (1, 3), (7, 7)):
        settlement.on_batch(*small.cut(first, last))
    assert result(settlement) == before
    with pytest.raises(LedgerGapError, match="from 9 on, but only 7"):
        settlement.on_batch(*small.cut(9, 10))
    settlement.on_batch(small.commands, small.events)
    again = result(settlement)
    settlement.on_batch(small.commands, small.events)
    assert result(settlement) == again
    assert settlement.applied_seq == len(small)
    settlement.close()


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        ("UPDATE cycle_sums SET net_micros = net_micros + 1 WHERE account = 2", "cycle 1: account 2: .* by the ledger"),
        ("UPDATE cycle_sums SET external_micros = external_micros - 1 WHERE account = 1", "cycle 1: account 1"),
        ("INSERT INTO cycle_sums VALUES (7, 1, 0)", "cycle 1: account 7"),
        ("UPDATE cycle_gross SET gross_micros = gross_micros + 1", "cycle 1: gross"),
    ],
)
def test_computations_that_differ_freeze_nothing(tmp_path: Path, small: Recording, tamper: str, message: str) -> None:
    settlement = Settlement(tmp_path / "books", CATALOGUE)
    end = next(at for at, kind in enumerate(small.commands["kind"].tolist(), 1) if kind == Kind.CLOSE_CYCLE)
    settlement.on_batch(*small.cut(1, end - 1))
    settlement.books.database.execute(tamper)
    with pytest.raises(BatchError, match=message):
        settlement.on_batch(*small.cut(end, end))
    assert settlement.books.batches.get(1).state == BatchState.NETTED
    assert content(tmp_path / "books") == {}
    assert "state" in [difference.what for difference in verify(settlement.books)]
    settlement.close()
    with pytest.raises(BatchError, match=message):
        Settlement(tmp_path / "books", CATALOGUE)


class Killed(BaseException):
    """The process ends here."""


class Bomb:
    """Kills at the n-th call of anything that writes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left = -1
        for name in ("execute", "execute_many"):
            patch.setattr(Database, name, self.around(getattr(Database, name)))
        patch.setattr(os, "fsync", self.around(os.fsync))
        patch.setattr(Path, "rename", self.around(Path.rename))
        patch.setattr(Folder, "force", self.around(Folder.force))
        patch.setattr(statements, "sync", self.around(statements.sync))
        for name in ("_write_entries", "_csv_rows"):
            patch.setattr(statements._Page, name, self.around(getattr(statements._Page, name)))

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise Killed
            return call(*arguments)

        return counted


def test_killed_before_each_single_write_it_ends_the_same(tmp_path: Path, small: Recording) -> None:
    with closing(Settlement(tmp_path / "whole", CATALOGUE)) as whole:
        whole.on_batch(small.commands, small.events)
        expected = result(whole), content(tmp_path / "whole")
    deaths = 0
    with pytest.MonkeyPatch.context() as patch:
        bomb = Bomb(patch)
        while True:
            directory = tmp_path / f"books-{deaths}"
            settlement = Settlement(directory, CATALOGUE)
            bomb.left = deaths + 1
            try:
                settlement.on_batch(small.commands, small.events)
            except Killed:
                deaths += 1
            else:
                break
            finally:
                bomb.left = -1
                settlement.close()
            revived = Settlement(directory, CATALOGUE)
            revived.on_batch(small.commands, small.events)
            assert (result(revived), content(directory)) == expected, f"killed before write {deaths}"
            revived.close()
    assert deaths > 60


def test_a_failed_batch_leaves_the_books_usable(tmp_path: Path, small: Recording) -> None:
    """What is kept in memory goes back with the transaction."""
    settlement = Settlement(tmp_path / "books", CATALOGUE)
    with pytest.MonkeyPatch.context() as patch:
        bomb = Bomb(patch)
        bomb.left = 12
        with pytest.raises(Killed):
            settlement.on_batch(*small.cut(1, 9))
        bomb.left = -1
    settlement.on_batch(small.commands, small.events)
    assert settlement.applied_seq == len(small)
    assert verify(settlement.books) == []
    settlement.close()
