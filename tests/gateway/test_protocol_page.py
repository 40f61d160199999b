"""docs/protocol.md against gateway/messages.py: nothing missing, nothing invented, every example valid."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest

from gateway.config import GatewayConfig
from gateway.messages import (
    CHANNELS,
    OPS,
    PRIVATE_EVENTS,
    PUSHES,
    Close,
    Code,
    Error,
    Format,
    Reply,
    decode,
)
from gateway.reference import RESULTS
from tests.gateway.test_depth import VECTORS

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
LINES = [line for line in PAGE.splitlines() if line.startswith(("-> ", "<- "))]
SENT = [line[3:] for line in LINES if line.startswith("-> ")]
RECEIVED = [line[3:] for line in LINES if line.startswith("<- ")]


def test_every_op_has_an_example_that_the_server_takes() -> None:
    shown = {decode(line.encode(), Format.JSON).__struct_config__.tag for line in SENT}
    assert shown == OPS == set(RESULTS)


def known(value: Any, shape: Any) -> Any:
    """The value as the shape, every field of the example being one of the shape's."""
    built = msgspec.convert(value, shape)
    assert msgspec.to_builtins(built).keys() >= value.keys(), value
    return built


def test_every_reply_is_what_its_op_answers() -> None:
    ops = {decode(line.encode(), Format.JSON).id: json.loads(line)["op"] for line in SENT}
    for line in RECEIVED:
        message = json.loads(line)
        if "id" not in message:
            continue
        known(message, Reply)
        if message["ok"]:
            known(message["r"], RESULTS[ops[message["id"]]])
        else:
            assert Code(known(message["err"], Error).code).name == message["err"]["name"]


def test_every_push_has_an_example() -> None:
    shapes = {cls.__struct_config__.tag: cls for cls in PUSHES} | {
        cls.__struct_config__.tag: cls for cls in PRIVATE_EVENTS
    }
    shown = set()
    for line in RECEIVED:
        message = json.loads(line)
        if "ch" in message:
            tag = message["ev"] if message["ch"] == "private" else message["ch"]
            known(message, shapes[tag])
            shown.add(tag)
    assert shown == set(shapes)


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_channel_is_explained(channel: str) -> None:
    assert f"| `{channel}` |" in PAGE


def test_every_error_code_is_on_the_page_and_no_other() -> None:
    table = re.findall(r"^\| (\d{4}) \| ([A-Z_]+) \|[^|]*\|$", PAGE, re.M)
    assert [(int(number), name) for number, name in table] == [(int(code), code.name) for code in Code]


@pytest.mark.parametrize("code", Close)
def test_every_close_code_is_on_the_page(code: Close) -> None:
    assert re.search(rf"^\| {int(code)} \| {code.name}\b", PAGE, re.M)


def test_the_examples_of_l3_have_true_checksums() -> None:
    book: dict[str, dict[int, tuple[int, int]]] = {"b": {}, "a": {}}
    shown = [json.loads(line) for line in RECEIVED if '"ch":"l3"' in line]
    for message in shown:
        for name, side in book.items():
            for order, px, lots in message[name]:
                side[order] = int(Decimal(px) * 10**6), lots
        text = "".join(f"{o}:{px}:{lots};" for side in book.values() for o, (px, lots) in side.items() if lots)
        assert crc32(text.encode()) == message["crc"]
    assert len(shown) == 2


def test_the_vectors_and_limits_are_true() -> None:
    for _, _, text, crc in VECTORS:
        assert f"| `{text}` | {crc} |" in PAGE or (text == "" and "(empty) | 0 |" in PAGE)
    config = GatewayConfig()
    assert f"1 to {config.max_batch_items} places" in PAGE
    assert (config.slow_soft_bytes, config.slow_hard_bytes) == (2**20, 2**22)
    assert f"wait {config.restart_grace_ms // 1000} s for their session" in PAGE
    assert f"the last {config.recent_trades} in the snapshot" in PAGE
