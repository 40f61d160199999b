"""Commands as they are made here: named tuples, packed into COMMAND records when they are sent.

Filling a structured array field by field costs ten times as much.
"""

from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import COMMAND

_RECORD = Struct("<qqiiBBBBIiiqqqqqqqqqq40si28x")
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
    group: int = 0
    stop_price: int = 0  # from here on: read only with Flag.EXTENDED where they say so in engine/types.py
    show_qty: int = 0
    min_qty: int = 0
    expire_ns: int = 0
    deadline_ns: int = 0
    tag: int = 0
    stp_group: int = 0

    def pack(self, ref: int) -> bytes:
        """The record's bytes."""
        return _RECORD.pack(
            0, 0, self.session, self.group, self.kind, self.side, self.ord_type, self.time_in_force, self.flags, self.account,
            self.instrument, self.order_id, self.price, self.qty, ref, self.stop_price, self.show_qty, self.min_qty,
            self.expire_ns, self.deadline_ns, self.tag, self.cl_ord_id.encode("ascii"), self.stp_group,
        )  # fmt: skip


def records(packed: Iterable[bytes]) -> NDArray[np.void]:
    """Packed records as one array that may be written to."""
    return np.frombuffer(bytearray(b"".join(packed)), COMMAND)
