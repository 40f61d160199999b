"""The generated reference: up to date, whole, and without a reference that leads nowhere."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import reference
from gateway.messages import PRIVATE_EVENTS, PUSHES, REQUESTS
from gateway.reference import DOCS, Examples, asyncapi, files

PAGE = (DOCS / "protocol.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(files()), ids=lambda path: path.name)
def test_the_file_is_what_the_structs_say(path) -> None:
    assert path.read_text(encoding="utf-8") == files()[path], "run python -m gateway.reference"


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ('-> {"op":"cancel.mass"', "cancel.mass"),
        ('<- {"ch":"ticker"', "ticker"),
        ('<- {"ev":"fill"', "private fill"),
    ],
)
def test_a_message_without_an_example_is_named(line: str, missing: str) -> None:
    without = "\n".join(each for each in PAGE.splitlines() if not each.startswith(line))
    assert missing in Examples(without).missing()
    assert not Examples(PAGE).missing()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi(Examples(PAGE))
    targets = set(references(document))
    assert len(targets) > 2 * len(REQUESTS)
    for target in targets:
        found = document
        for step in target.removeprefix("#/").split("/"):
            found = found[step]


def test_every_op_and_every_push_is_an_operation_with_an_example() -> None:
    document = asyncapi(Examples(PAGE))
    assert len(document["operations"]) == len(REQUESTS) + len(PUSHES) + len(PRIVATE_EVENTS)
    for operation in document["operations"].values():
        name = operation["messages"][0]["$ref"].split("/")[-1]
        message = document["components"]["messages"][name]
        assert message["examples"][0]["payload"] and message["payload"]


def test_money_is_text_or_a_scaled_integer_and_nothing_else_is() -> None:
    document = asyncapi(Examples(PAGE))
    assert json.dumps(document).count(reference.SCHEMAS + "Money") > 30
    assert document["components"]["schemas"]["Fill"]["properties"]["fee"] == {"$ref": reference.SCHEMAS + "Money"}
    assert document["components"]["schemas"]["Fill"]["properties"]["qty"]["type"] == "integer"
