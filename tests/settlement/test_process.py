"""Settlement in a process of its own: the same books, the same errors, and nothing left behind when one of the two ends."""

import logging
import os
import select
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.types import COMMAND, EVENT, Kind, Side
from settlement import process
from settlement.database import FormatError
from settlement.ledger import LedgerError, LedgerGapError
from settlement.meter import MeterError, Refusal
from settlement.metering import CONFIG_NAME
from settlement.process import SettlementProcess
from settlement.service import DATABASE_NAME, Books
from tests.settlement.flow import (
    CATALOGUE,
    END_OF_TIME_NS,
    Venue,
    command,
    listing,
    open_account,
    order,
    play,
    transfer,
)

ENDS_MS = 20_000


def of(tmp_path: Path) -> SettlementProcess:
    return SettlementProcess(tmp_path / "apart", CATALOGUE)


def test_the_books_are_the_same(tmp_path: Path) -> None:
    venue = play(tmp_path / "here", 5, 60)
    recording = venue.recording()
    with of(tmp_path) as apart:
        for first in range(1, len(recording) + 1, 40):
            apart.on_batch(*recording.cut(first, min(first + 39, len(recording))))
        assert apart.applied_seq == len(recording) == venue.settlement.applied_seq
        assert apart.last_batch() == venue.settlement.last_batch()
        assert apart.cycle_began_ns() == venue.settlement.cycle_began_ns()
        with Books(tmp_path / "apart", CATALOGUE, read_only=True) as books:
            here = venue.settlement.books
            for table in ("balances", "transfers", "deliveries", "indices"):
                query = f"SELECT * FROM {table} ORDER BY 1, 2, 3"
                assert books.database.rows(query) == here.database.rows(query)
    venue.settlement.close()


def closed_hour(venue: Venue) -> None:
    venue.send(open_account(1), open_account(2), listing(1))
    venue.send(*(transfer(Kind.DEPOSIT, account, amount_micros=10**9) for account in (1, 2)))
    venue.send(transfer(Kind.NOMINATE, 1, instrument=1, lots=2), order(1, 1, Side.SELL, 2600, 2))
    venue.send(order(2, 1, Side.BUY, 2600, 2))
    venue.send(command(Kind.CLOSE, instrument=1))


def test_the_memory_between_them_grows_and_shrinks_with_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "KEPT_BYTES", 1 << 12)
    venue = play(tmp_path / "here", 5, 60)
    recording = venue.recording()
    cuts = [recording.cut(first, first + 39) for first in range(1, len(recording) - 200, 40)]
    rest = cuts[-1][0]["seq"][-1] + 1
    with of(tmp_path) as apart:
        apart.on_batch(*cuts[0])
        apart.on_batches(cuts[1:])
        apart.on_batch(*recording.cut(rest, rest))
        apart.on_batch(*recording.cut(rest + 1, len(recording)))
        with Books(tmp_path / "apart", CATALOGUE, read_only=True) as books:
            assert books.ledger.digest() == venue.settlement.books.ledger.digest()
    apart.close()  # once more does nothing
    venue.settlement.close()


def test_what_is_due_is_asked_for_once(venue: Venue, tmp_path: Path) -> None:
    closed_hour(venue)
    recording = venue.recording()
    with of(tmp_path) as apart:
        apart.on_batch(recording.commands, recording.events)
        due = apart.due(END_OF_TIME_NS)
        np.testing.assert_array_equal(due, venue.settlement.due(END_OF_TIME_NS))
        assert len(due)
        due["seq"] = 1  # the node writes into what it is given
        assert not len(apart.due(END_OF_TIME_NS))


def test_errors_and_what_was_logged_come_back(venue: Venue, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    closed_hour(venue)
    recording = venue.recording()
    with of(tmp_path) as apart:
        with pytest.raises(LedgerGapError, match="from 3 on, but only 0 is applied"):
            apart.on_batch(*recording.cut(3, 5))
        with pytest.raises(MeterError, match=r"^BAD_REPORT: ") as refused:
            apart.report(b"nonsense", END_OF_TIME_NS)
        assert refused.value.code is Refusal.BAD_REPORT
        apart.on_batch(recording.commands, recording.events)
        (tmp_path / "apart" / CONFIG_NAME).write_text("{")
        with caplog.at_level(logging.ERROR):
            assert not len(apart.due(END_OF_TIME_NS))
    assert "are held" in caplog.text


def test_books_that_do_not_open(tmp_path: Path) -> None:
    of(tmp_path).close()
    with sqlite3.connect(tmp_path / "apart" / DATABASE_NAME) as database:
        database.execute("PRAGMA user_version = 1")
    with pytest.raises(FormatError, match="the books have format 1"):
        of(tmp_path)


def test_a_process_that_is_gone_is_named(tmp_path: Path) -> None:
    with of(tmp_path) as apart:
        os.kill(apart.pid, signal.SIGKILL)
        for ask in (lambda: apart.on_batch(np.zeros(1, COMMAND), np.zeros(0, EVENT)), lambda: apart.due(0)):
            with pytest.raises(LedgerError, match="the process of the books has ended, with code -9"):
                ask()


def test_it_stays_when_its_group_is_told_to_stop(tmp_path: Path) -> None:
    with of(tmp_path) as apart:
        os.kill(apart.pid, signal.SIGTERM)
        assert apart.last_batch() is None


def test_it_ends_with_its_node(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from engine.catalogue import Catalogue\n"
        "from settlement.process import SettlementProcess\n"
        "print(SettlementProcess(Path(sys.argv[1]), Catalogue.load()).pid, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        books = os.pidfd_open(int(node.stdout.readline()))
        node.kill()
        try:
            poll = select.poll()
            poll.register(books, select.POLLIN)
            assert poll.poll(ENDS_MS)
        finally:
            os.close(books)
