"""Settlement in a process of its own: its processor time is not the market's, and whoever asks waits, nobody else.

    the node's threads -- two lines -- this module as a program -- settlement/service.py

One line is for batches, in the order of the log; the other, for reports and what is due, does not wait for them. A
request is a pickled (name, arguments), its answer (value or exception, what was logged meanwhile). The records of a
batch lie in memory that both processes see, so they are copied once. The process ends with its lines: when the node is
gone, in the middle of a transaction if need be, which the database then takes back. The next node claims the ledger for
itself, so that a straggler is fenced off.
"""

import contextlib
import logging
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.types import COMMAND, EVENT
from settlement.batches import Batch
from settlement.ledger import LedgerError
from settlement.service import Job, Settlement

NICENESS = 5
"""The books lag behind the market rather than the market behind the books."""
END_TIMEOUT_S = 30
NO_HANDLE = -1
KEPT_BYTES = 1 << 25
"""Of the memory for batches. What books that were behind needed beyond is given back."""


class Bookkeeping(Protocol):
    """What a node needs of the books: `Settlement`, here or in another process."""

    @property
    def applied_seq(self) -> int: ...

    def on_batch(self, commands: NDArray[Any], events: NDArray[Any]) -> None: ...

    def on_batches(self, jobs: Sequence[Job]) -> None: ...

    def due(self, now_ns: int) -> NDArray[Any]: ...

    def report(self, data: bytes, now_ns: int, account: int | None = None) -> int: ...

    def last_batch(self) -> Batch | None: ...

    def cycle_began_ns(self) -> int | None: ...

    def close(self) -> None: ...


# --- On the node's side -----------------------------------------------------------------------------------------------


class Line:
    """Requests to the process and their answers, one at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        self.theirs = theirs
        self._lock = Lock()

    def ask(self, name: str, *arguments: Any) -> Any:
        """The answer. Raises what the other side raised, and EOFError or OSError when it is gone."""
        with self._lock:
            self._connection.send((name, arguments))
            answer, error, records = self._connection.recv()
        for record in records:
            if (logger := logging.getLogger(record.name)).isEnabledFor(record.levelno):
                logger.handle(record)
        if error is not None:
            raise error
        return answer

    def close(self) -> None:
        self._connection.close()


class Tray:
    """Memory of both processes in which the records of one request lie. Where there is no such file it is one on the disk."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self.handle = os.memfd_create("wellhead-books", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self.handle = os.dup(file.fileno())
        self._resize(KEPT_BYTES)

    def _resize(self, size: int) -> None:
        os.ftruncate(self.handle, size)
        self._memory = mmap.mmap(self.handle, size)

    def put(self, parts: Sequence[NDArray[Any]]) -> None:
        """Lay records here, one part behind the other."""
        size = sum(part.nbytes for part in parts)
        if size > len(self._memory):
            self._resize(size)
        place, at = np.frombuffer(self._memory, np.uint8), 0
        for part in parts:
            place[at : at + part.nbytes] = np.frombuffer(np.ascontiguousarray(part), np.uint8)
            at += part.nbytes

    def clear(self) -> None:
        """The other side has read them."""
        if len(self._memory) > KEPT_BYTES:
            self._resize(KEPT_BYTES)

    def close(self) -> None:
        """A second call does nothing: the number may be another file's by then."""
        handle, self.handle = self.handle, NO_HANDLE
        if handle != NO_HANDLE:
            os.close(handle)


class SettlementProcess:
    """A `Settlement` of another process. `on_batch` on one thread, `due` and `report` on others."""

    def __init__(self, directory: Path, catalogue: Catalogue, ledger: str = "") -> None:
        """As `Settlement`, and it raises the same."""
        self._books, self._office, self._tray = Line(), Line(), Tray()
        handles = [*(line.theirs.fileno() for line in (self._books, self._office)), self._tray.handle]
        command = [sys.executable, "-P", "-m", __name__, *map(str, handles)]
        modules = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=handles,
            env={**os.environ, "PYTHONPATH": modules},
            start_new_session=True,  # Ctrl-C is for the node
        )
        for line in (self._books, self._office):
            line.theirs.close()
        self._applied_seq = 0
        try:
            # Not on the command line: the ledger's address may have a password in it.
            self._applied_seq = self._ask(self._books, "open", directory, catalogue, ledger)
        except BaseException:
            self._end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def applied_seq(self) -> int:
        """The last command in the books, durable."""
        return self._applied_seq

    def on_batch(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        """As `Settlement.on_batch`: when it returns, the batch is durable in the books."""
        self.on_batches([(commands, events)])

    def on_batches(self, jobs: Sequence[Job]) -> None:
        """As `Settlement.on_batches`."""
        parts = [[job[side] for job in jobs] for side in range(2)]
        self._tray.put([*parts[0], *parts[1]])
        self._applied_seq = self._ask(self._books, "on_batch", *(sum(map(len, side)) for side in parts))
        self._tray.clear()

    def due(self, now_ns: int) -> NDArray[Any]:
        """As `Settlement.due`."""
        return np.frombuffer(bytearray(self._ask(self._office, "due", now_ns)), COMMAND)

    def report(self, data: bytes, now_ns: int, account: int | None = None) -> int:
        """As `Settlement.report`."""
        return int(self._ask(self._office, "report", data, now_ns, account))

    def last_batch(self) -> Batch | None:
        """As `Settlement.last_batch`."""
        batch: Batch | None = self._ask(self._books, "last_batch")
        return batch

    def cycle_began_ns(self) -> int | None:
        """As `Settlement.cycle_began_ns`."""
        began_ns: int | None = self._ask(self._books, "cycle_began_ns")
        return began_ns

    def close(self) -> None:
        """Let the process finish what it does, and end. A second call does nothing."""
        try:
            if self._process.returncode is None:
                with contextlib.suppress(LedgerError):
                    self._ask(self._books, "close")
        finally:
            self._end()

    def _ask(self, line: Line, name: str, *arguments: Any) -> Any:
        try:
            return line.ask(name, *arguments)
        except (EOFError, ConnectionError) as error:
            code = self._process.wait(END_TIMEOUT_S)
            raise LedgerError(f"the process of the books has ended, with code {code}") from error

    def _end(self) -> None:
        """Without its lines it ends by itself."""
        for line in (self._books, self._office):
            line.close()
        self._tray.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- The process ------------------------------------------------------------------------------------------------------


class Room:
    """The books, and who answers for them: a request names one of the public methods."""

    def __init__(self, tray: int) -> None:
        """`tray`: the handle of the node's `Tray`."""
        self._tray = tray
        self._memory = mmap.mmap(tray, 0, access=mmap.ACCESS_READ)
        self._records: SimpleQueue[logging.LogRecord] = SimpleQueue()
        logging.getLogger().handlers[:] = [QueueHandler(self._records)]
        self._settlement: Settlement | None = None

    def open(self, directory: Path, catalogue: Catalogue, ledger: str) -> int:
        self._settlement = Settlement(directory, catalogue, ledger)
        return self._settlement.applied_seq

    def on_batch(self, commands: int, events: int) -> int:
        """So many of each lie in the tray."""
        border = commands * COMMAND.itemsize
        if border + events * EVENT.itemsize > len(self._memory):
            self._memory = mmap.mmap(self._tray, 0, access=mmap.ACCESS_READ)
        seen = memoryview(self._memory)
        self._opened().on_batch(
            np.frombuffer(seen, COMMAND, commands), np.frombuffer(seen, EVENT, events, border if events else 0)
        )
        seen.release()  # raises where somebody keeps records that will not be the same
        return self._opened().applied_seq

    def last_batch(self) -> Batch | None:
        return self._opened().last_batch()

    def cycle_began_ns(self) -> int | None:
        return self._opened().cycle_began_ns()

    def due(self, now_ns: int) -> bytes:
        return self._opened().due(now_ns).tobytes()

    def report(self, data: bytes, now_ns: int, account: int | None) -> int:
        return self._opened().report(data, now_ns, account)

    def close(self) -> None:
        if self._settlement is not None:
            self._settlement.close()

    def _opened(self) -> Settlement:
        if self._settlement is None:
            raise LedgerError("the books are not open")
        return self._settlement

    def serve(self, line: Connection) -> None:
        """Answer until the other side is gone, and then end the process, whatever it is doing."""
        try:
            while True:
                name, arguments = line.recv()
                line.send_bytes(self._answer(getattr(self, name), arguments))
        except (EOFError, OSError):
            os._exit(0)

    def _answer(self, ask: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
        answer, failure = None, None
        try:
            answer = ask(*arguments)
        except Exception as error:
            failure = _sendable(error)
        records = [self._records.get() for _ in range(self._records.qsize())]
        return pickle.dumps((answer, failure, records))


def _sendable(error: Exception) -> Exception:
    """The error, or its words where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return LedgerError(repr(error))
    return error


def main(handles: list[int]) -> None:
    """Serve a node's two lines, with the tray behind them."""
    # Who stops a service may tell all its processes; this one ends with its node.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICENESS)
    room = Room(handles.pop())
    books, office = (Connection(handle) for handle in handles)
    Thread(target=room.serve, args=(office,), daemon=True).start()
    room.serve(books)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]])
