"""Snapshots of a running node: what is in them is the state at their seq, and the fork that writes them holds nothing."""

import asyncio
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

import wellhead.snapshots
from engine.catalogue import Catalogue
from engine.engine import Engine
from engine.log import read_log
from engine.snapshot import Snapshot, SnapshotError
from gateway.auth import KeyStore
from gateway.config import GatewayConfig
from gateway.gateway import Gateway
from tests.settlement.flow import recorded
from wellhead.config import Config
from wellhead.node import Node
from wellhead.snapshots import Forked

CHAIN = bytes(32)
EVERY = 40
CATALOGUE = Catalogue.load()


def replayed(directory: Path, last_seq: int) -> tuple[bytes, bytes]:
    """Engine and gateway after a command, by the log alone."""
    engine, keys = Engine(), KeyStore(directory / "keys.json")
    gateway = Gateway(GatewayConfig(), CATALOGUE, keys, lambda _: None, time.time_ns)
    for commands in read_log(directory / "log"):
        part = commands[commands["seq"] <= last_seq]
        if len(part):
            gateway.on_batch(part, engine.apply(part).copy())
    return engine.to_bytes(), gateway.snapshot()


async def trade(node: Node, commands: NDArray[np.void]) -> None:
    """Commands of a recorded flow, a few at a time, without waiting for any snapshot."""
    for at in range(0, len(commands), 7):
        await node.execute(commands[at : at + 7].copy())


@pytest.mark.parametrize("forked", [True, False])
async def test_a_snapshot_under_load_is_the_state_at_its_seq(
    tmp_path: Path, forked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, Snapshot] = {}
    prune = Snapshot.prune

    def keep(directory: Path) -> list[Path]:
        seen.update((one.applied_seq, one) for one in map(Snapshot.load, Path(directory).glob("*.snapshot")))
        return prune(directory)

    monkeypatch.setattr(Snapshot, "prune", keep)
    config = Config(
        tmp_path, port=0, markets=("L4-EUC",), list_hours=1, snapshot_every_commands=EVERY, fork_snapshots=forked,
        books_process=False,
    )  # fmt: skip
    node = Node(config, CATALOGUE)
    await node.start()
    flow = recorded(1, 200)
    await trade(node, flow.commands)
    await node.stop()
    assert len(seen) > 2, "too few to prove anything"
    for seq, snapshot in seen.items():
        engine, gateway = replayed(tmp_path, seq)
        assert snapshot.sections["engine"] == engine, f"at {seq}"
        assert snapshot.sections["gateway"] == gateway, f"at {seq}"


def reached(tmp_path: Path) -> tuple[Path, int]:
    """A pipe by name, to wait until a fork is where its sections are made; and its reading end."""
    path = tmp_path / "reached"
    os.mkfifo(path)
    return path, os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def hang(path: Path) -> dict[str, bytes]:
    path.write_bytes(b"!")
    while True:
        signal.pause()


def test_a_fork_keeps_neither_lock_nor_port_nor_connection(tmp_path: Path) -> None:
    path, reading = reached(tmp_path)
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    client = socket.create_connection(address)
    accepted, _ = listener.accept()
    snapshot = Forked(tmp_path / "snapshots", 1, CHAIN, lambda: hang(path))
    assert select.select([reading], [], [], 60)[0]
    for descriptor in (accepted, listener):
        descriptor.close()
    os.close(lock)

    assert client.recv(1) == b""  # closed on the other side
    client.close()
    again = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(address)
        free.listen()
    os.close(again)
    os.close(reading)
    snapshot.abandon()
    assert not list((tmp_path / "snapshots").glob("*"))


def test_a_fork_is_not_ended_by_what_ends_the_node(tmp_path: Path) -> None:
    path, reading = reached(tmp_path)
    go_on = tmp_path / "go on"
    os.mkfifo(go_on)

    def slowly() -> dict[str, bytes]:
        path.write_bytes(b"!")
        return {"part": go_on.read_bytes()}

    snapshot = Forked(tmp_path / "snapshots", 7, CHAIN, slowly)
    assert select.select([reading], [], [], 60)[0]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(snapshot._pid, number)
    go_on.write_bytes(b"state")
    snapshot.finish()
    os.close(reading)
    assert Snapshot.latest(tmp_path / "snapshots").snapshot == Snapshot(7, CHAIN, {"part": b"state"})


NODE = """
import sys, os
from pathlib import Path
from threading import Event
from tests.wellhead.test_snapshots import CHAIN, hang
from wellhead.snapshots import Forked
print(Forked(Path(sys.argv[1]), 1, CHAIN, lambda: hang(Path(sys.argv[2])))._pid, flush=True)
os.read(0, 1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for what others have not")
def test_a_fork_ends_with_its_node(tmp_path: Path) -> None:
    path, reading = reached(tmp_path)
    command = [sys.executable, "-c", NODE, str(tmp_path / "snapshots"), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        fork = os.pidfd_open(int(node.stdout.readline()))
        assert select.select([reading], [], [], 60)[0]
        node.kill()
        assert select.select([fork], [], [], 60)[0], "it lives on"
    os.close(fork)
    os.close(reading)


def test_what_goes_wrong_in_a_fork_is_said(tmp_path: Path) -> None:
    def fail() -> dict[str, bytes]:
        raise RuntimeError("no such state")

    with pytest.raises(SnapshotError, match="seq 3: no such state"):
        Forked(tmp_path, 3, CHAIN, fail).finish()
    with pytest.raises(SnapshotError, match="seq 4: the process that wrote it has ended"):
        Forked(tmp_path, 4, CHAIN, lambda: os._exit(9)).finish()
    assert not list(tmp_path.glob("*"))


async def test_a_failed_snapshot_does_not_end_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wait = Forked._wait
    monkeypatch.setattr(Forked, "_wait", lambda self: wait(self).replace(wellhead.snapshots.WRITTEN, b"no room"))
    snapshot = await a_short_life(tmp_path)
    assert "a snapshot failed" in caplog.text and "no room" in caplog.text
    assert snapshot is not None, "that of the stop"


async def test_without_a_process_to_be_had_the_state_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(wellhead.snapshots, "_fork", refuse)
    assert await a_short_life(tmp_path) is not None
    assert "no process for a snapshot: no more processes" in caplog.text
    assert len(list((tmp_path / "snapshots").glob("*.snapshot"))) > 1


async def a_short_life(directory: Path) -> Snapshot | None:
    """Of a node that is due a snapshot now and then; the newest one in the end."""
    config = Config(
        directory, port=0, markets=("L4-EUC",), list_hours=1, snapshot_every_commands=EVERY, books_process=False
    )
    node = Node(config, CATALOGUE)
    await node.start()
    await trade(node, recorded(1, 20).commands)
    await node.stop()
    return Snapshot.latest(config.snapshot_dir).snapshot


async def test_neither_market_nor_books_wait_until_a_snapshot_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, finish = Event(), Forked.finish

    def finish_late(self: Forked) -> None:
        may_end.wait()
        finish(self)

    monkeypatch.setattr(Forked, "finish", finish_late)
    config = Config(
        tmp_path, port=0, markets=("L4-EUC",), list_hours=1, snapshot_every_commands=EVERY, books_process=False,
        books_pause_ms=0, settlement_queue_batches=2,
    )  # fmt: skip
    node = Node(config, CATALOGUE)
    await node.start()
    commands = recorded(1, 200).commands
    await trade(node, commands)
    while node.exchange.settlement.applied_seq < node.exchange.engine.applied_seq:
        await asyncio.sleep(0.001)
    assert not list((tmp_path / "snapshots").glob("*.snapshot"))
    may_end.set()
    await node.stop()
    assert len(list((tmp_path / "snapshots").glob("*.snapshot"))) == 2
