"""A place in a shard's journal, from which a reader goes on without all that was before."""

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from engine.log import GENESIS, fsync_directory
from engine.sequencing import Journal

NAME = "journal.place"
_PLACE = struct.Struct("<qqq32sI")  # journal_seq, in_seq, seq, chain, crc of all before it


class Place(NamedTuple):
    """Behind one entry of the journal: the last message of the input that it covers, the last command, the chain."""

    journal_seq: int = 0
    in_seq: int = 0
    seq: int = 0
    chain: bytes = GENESIS

    @property
    def journal(self) -> Journal:
        """A journal that goes on there."""
        return Journal(self.in_seq, self.seq, self.chain)

    @classmethod
    def of(cls, journal_seq: int, journal: Journal) -> "Place":
        return cls(journal_seq, journal.in_seq, journal.seq, journal.chain)

    def pack(self) -> bytes:
        data = _PLACE.pack(*self, 0)[:-4]
        return data + struct.pack("<I", zlib.crc32(data))

    @classmethod
    def unpack(cls, data: bytes) -> "Place":
        """What begins `data`. Raises ValueError when that is no whole place."""
        data = data[: _PLACE.size]
        if len(data) != _PLACE.size or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise ValueError("these bytes are no place in a journal")
        return cls(*_PLACE.unpack(data)[:-1])

    def write(self, data_dir: Path) -> None:
        """Into a directory; durable when it returns."""
        draft = data_dir / f"{NAME}.draft"
        with draft.open("wb") as file:
            file.write(self.pack())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(data_dir / NAME)
        fsync_directory(data_dir)

    @classmethod
    def read(cls, data_dir: Path) -> "Place":
        """As it was written last; the beginning where there is none, or none that is whole."""
        try:
            return cls.unpack((data_dir / NAME).read_bytes())
        except (FileNotFoundError, ValueError):
            return cls()


PLACE_BYTES = _PLACE.size
