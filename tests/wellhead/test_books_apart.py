"""A node and its books, which are a process of their own: what happens when that one dies."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.catalogue import Catalogue, pack_id
from engine.types import COMMAND, TRANSFER, Kind
from settlement.ledger import LedgerError
from settlement.process import SettlementProcess
from settlement.service import Settlement
from wellhead.audit import audit
from wellhead.config import Config
from wellhead.node import Node


def deposits(amounts: list[int]) -> NDArray[np.void]:
    rows = np.zeros(1 + len(amounts), TRANSFER)
    rows["account"], rows["kind"] = 1, Kind.DEPOSIT
    rows["kind"][0] = Kind.OPEN_ACCOUNT
    rows["amount_micros"][1:] = amounts
    rows["external_id"] = [pack_id(f"d{number}") for number in range(len(rows))]
    return rows.view(COMMAND)


def config_of(directory: Path, apart: bool = True) -> Config:
    return Config(directory, port=0, markets=("H100S-USE",), list_hours=2, books_process=apart)


async def test_a_node_ends_when_its_books_do_and_comes_back_with_all_that_was_logged(tmp_path: Path) -> None:
    node = Node(config_of(tmp_path), Catalogue.load())
    await node.start()
    await node.execute(deposits([1, 2, 3]))
    books = node.exchange.settlement
    assert isinstance(books, SettlementProcess)
    os.kill(books.pid, signal.SIGKILL)
    await node.failed()
    with pytest.raises(LedgerError, match="the process of the books has ended, with code -9"):
        await node.stop()

    again = Node(config_of(tmp_path), Catalogue.load())
    await again.start()
    await again.stop()
    assert not audit(tmp_path).differences


async def test_a_thread_will_do(tmp_path: Path) -> None:
    node = Node(config_of(tmp_path, apart=False), Catalogue.load())
    await node.start()
    await node.execute(deposits([5]))
    assert isinstance(node.exchange.settlement, Settlement)
    await node.stop()
    assert not audit(tmp_path).differences


async def test_books_that_fail_with_a_full_queue_do_not_keep_the_node_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The market waits for room that nobody makes any more."""
    config = replace(config_of(tmp_path, apart=False), settlement_queue_batches=1)
    node = Node(config, Catalogue.load())
    await node.start()
    may_fail = Event()

    def fail(*_: object) -> None:
        may_fail.wait(20)
        raise OSError("the disk failed")

    monkeypatch.setattr(node.exchange.settlement, "on_batch", fail)
    await node.execute(deposits([1]))
    doing = [asyncio.create_task(node.execute(deposits([1])[1:])) for _ in range(5)]
    while not node._book_jobs.full():
        await asyncio.sleep(0.01)
    may_fail.set()
    await node.failed()
    async with asyncio.timeout(20):
        with pytest.raises(OSError, match="the disk failed"):
            await node.stop()
    await asyncio.gather(*doing, return_exceptions=True)
