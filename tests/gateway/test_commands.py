"""Packed commands are COMMAND records, byte for byte."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.catalogue import pack_id
from engine.types import COMMAND
from gateway.commands import Command, records

BYTE, INT, LONG = st.integers(0, 255), st.integers(0, 2**31 - 1), st.integers(-(2**63), 2**63 - 1)


@given(
    st.builds(
        Command,
        **dict.fromkeys(("kind", "side", "ord_type", "time_in_force"), BYTE),
        **dict.fromkeys(("account", "instrument", "flags", "session", "group", "stp_group"), INT),
        **dict.fromkeys(("order_id", "price", "qty", "stop_price", "show_qty", "min_qty"), LONG),
        **dict.fromkeys(("expire_ns", "deadline_ns", "tag"), LONG),
        cl_ord_id=st.text("abc-_.:019", max_size=36),
    ),
    LONG,
)
def test_packed_is_what_numpy_would_write(command: Command, ref: int) -> None:
    expected = np.zeros(2, COMMAND)
    for name, value in command._asdict().items():
        expected[name] = pack_id(value) if isinstance(value, str) else value
    expected["ref"] = ref
    made = records([command.pack(ref)] * 2)
    assert made.tobytes() == expected.tobytes()
    made["seq"] = 1  # the node stamps it in place
