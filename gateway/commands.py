"""Commands as they are made here: named tuples, packed into COMMAND records when they are sent.

Filling a structured array field by field costs ten times as much.
"""

from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import COMMAND

_RECORD = Struct("<qqiiBBBBIiiqqqq48x40s32x")
assert _RECORD.size == COMMAND.itemsize


class Command(NamedTuple):
    """The fields of a COMMAND that the gateway sets; the log adds `seq` and `ts_ns`."""

    kind: int
    account: int
    instrument: int = 0
    order_id: int = 0
    side: int = 0
    ord_type: int = 0
    time_in_force: int = 0
    flags: int = 0
    price: int = 0
    qty: int = 0
    session: int = 0
    cl_ord_id: str = ""

    def pack(self, ref: int) -> bytes:
        """The record's bytes."""
        return _RECORD.pack(
            0, 0, self.session, 0, self.kind, self.side, self.ord_type, self.time_in_force, self.flags, self.account,
            self.instrument, self.order_id, self.price, self.qty, ref, self.cl_ord_id.encode("ascii"),
        )  # fmt: skip


def records(packed: Iterable[bytes]) -> NDArray[np.void]:
    """Packed records as one array that may be written to."""
    return np.frombuffer(bytearray(b"".join(packed)), COMMAND)
