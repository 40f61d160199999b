"""Under which limits each part of a log was written: `limits.json` beside it.

Whether an order is refused for being one too many depends on the engine's limits, and an operator may change them between
two runs. So what a log leads to is only known together with them, and they are noted before the first command that
they are in force for. Whoever replays a log goes on under the limits of each part of it.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.engine import Engine
from engine.log import fsync_directory
from engine.state import Limits

NAME = "limits.json"


class Noted(msgspec.Struct, frozen=True):
    """From this command on."""

    from_seq: int
    limits: Limits


class LimitsHistory:
    """What is noted of a data directory."""

    def __init__(self, data_dir: Path, otherwise: Limits | None = None) -> None:
        """`otherwise` stands for what was written before anything was noted. Raises ValueError for a damaged file."""
        self._path = data_dir / NAME
        self._otherwise = otherwise or Limits()
        self._noted: list[Noted] = []
        if self._path.exists():
            try:
                self._noted = msgspec.json.decode(self._path.read_bytes(), type=list[Noted])
            except msgspec.DecodeError as error:
                raise ValueError(f"{self._path}: {error}") from error

    @property
    def newest(self) -> Limits:
        return self._noted[-1].limits if self._noted else self._otherwise

    def at(self, seq: int) -> Limits:
        """Those under which a command was written, or will be."""
        return next((noted.limits for noted in reversed(self._noted) if noted.from_seq <= seq), self._otherwise)

    def note(self, from_seq: int, limits: Limits) -> None:
        """From this command on, which is not in the log yet, these are in force. Durable when it returns."""
        # What was noted for later commands is about some that never were, or were cut off.
        kept = [noted for noted in self._noted if noted.from_seq < from_seq]
        before = kept[-1].limits if kept else None
        if before is None and from_seq > 1:
            kept = [Noted(1, self._otherwise)]
            before = self._otherwise
        if before != limits:
            kept.append(Noted(from_seq, limits))
        if kept == self._noted:
            return
        draft = self._path.with_suffix(".draft")
        with open(draft, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._path)
        fsync_directory(self._path.parent)
        self._noted = kept

    def lead(self, engine: Engine, batches: Iterable[NDArray[np.void]]) -> Iterator[NDArray[np.void]]:
        """The batches of a log, cut where limits change; before each the engine has those of its commands.

        Raises ValueError where the state exceeds them.
        """
        for commands in batches:
            rest, borders = commands, [noted.from_seq for noted in self._noted]
            while len(rest):
                first = int(rest["seq"][0])
                if engine.memory.limits != self.at(first):
                    engine.set_limits(self.at(first))
                cut = min((border - first for border in borders if border > first), default=len(rest))
                yield rest[:cut]
                rest = rest[cut:]
