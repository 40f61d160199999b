"""Calls, results and events of a compiled contract as bytes, from the artefact that ships. No node and no I/O but one file.

An artefact is JSON: `abi`, `bytecode` (what a deployment sends, without the constructor's arguments), `compiler`,
`evm_version`, `source_sha256` and `integrity` (the compiler's hash of the source and every module it imports).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

CONTRACTS = Path(__file__).with_name("contracts")

_ERROR = keccak(text="Error(string)")[:4]
_PANIC = keccak(text="Panic(uint256)")[:4]


class AbiError(ValueError):
    """The contract has no such function or event, or the values do not fit it."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One event: its name and its values by the names they have in the contract."""

    name: str
    values: Mapping[str, Any]


class Interface:
    """What a contract understands and says."""

    def __init__(self, artefact: Mapping[str, Any]) -> None:
        self.artefact = artefact
        self.bytecode = bytes.fromhex(artefact["bytecode"].removeprefix("0x"))
        entries: list[dict[str, Any]] = artefact["abi"]
        self.abi = entries
        self._functions: dict[str, dict[str, Any]] = {
            entry["name"]: entry for entry in entries if entry["type"] == "function"
        }
        self._events = {_topic(entry): entry for entry in entries if entry["type"] == "event"}
        constructors = [entry["inputs"] for entry in entries if entry["type"] == "constructor"]
        self._construction: list[dict[str, Any]] = constructors[0] if constructors else []

    def deployment(self, *arguments: Any) -> bytes:
        """The data of the transaction that deploys the contract. Raises AbiError."""
        return self.bytecode + _encode(self._construction, arguments, "constructor")

    def call(self, function: str, *arguments: Any) -> bytes:
        """The data of a call. Raises AbiError."""
        entry = self._function(function)
        return selector(entry) + _encode(entry["inputs"], arguments, function)

    def result(self, function: str, data: bytes) -> Any:
        """What a function returned: its value, or a tuple of several. Raises AbiError."""
        entry = self._function(function)
        values = _decode(entry["outputs"], data, function)
        return values[0] if len(values) == 1 else values

    def event(self, topics: Sequence[bytes], data: bytes) -> Decoded | None:
        """The event in a log, or nothing when it is none of this contract's. Raises AbiError when its bytes do not fit."""
        entry = self._events.get(bytes(topics[0])) if topics else None
        if entry is None:
            return None
        indexed = [field for field in entry["inputs"] if field["indexed"]]
        plain = [field for field in entry["inputs"] if not field["indexed"]]
        if len(indexed) != len(topics) - 1:
            raise AbiError(f"{entry['name']} has {len(indexed)} indexed values, the log {len(topics) - 1}")
        words = b"".join(bytes(topic) for topic in topics[1:])
        found = dict(zip([field["name"] for field in indexed], _decode(indexed, words, entry["name"]), strict=True))
        rest = dict(zip([field["name"] for field in plain], _decode(plain, data, entry["name"]), strict=True))
        return Decoded(entry["name"], {field["name"]: (found | rest)[field["name"]] for field in entry["inputs"]})

    def topic(self, event: str) -> bytes:
        """The first topic of an event's logs. Raises AbiError."""
        for topic, entry in self._events.items():
            if entry["name"] == event:
                return topic
        raise AbiError(f"no event {event}")

    def _function(self, name: str) -> dict[str, Any]:
        if name not in self._functions:
            raise AbiError(f"no function {name}")
        return self._functions[name]


@cache
def interface(contract: str) -> Interface:
    """The artefact `contracts/<contract>.json`. Raises OSError when there is none."""
    return Interface(json.loads((CONTRACTS / f"{contract}.json").read_text(encoding="utf-8")))


def selector(entry: Mapping[str, Any]) -> bytes:
    """The four bytes by which a call names its function."""
    return keccak(text=signature(entry))[:4]


def signature(entry: Mapping[str, Any]) -> str:
    """A function or event as the ABI writes it: `transfer(address,uint256)`."""
    return f"{entry['name']}({','.join(_type(field) for field in entry['inputs'])})"


def revert_reason(data: bytes) -> str:
    """Why a call was reverted, from what it returned."""
    if data[:4] == _ERROR:
        try:
            return str(decode(["string"], data[4:])[0])
        except DecodingError:
            return "0x" + data.hex()
    if data[:4] == _PANIC:
        return f"panic {int.from_bytes(data[4:], 'big')}"
    return "0x" + data.hex() if data else ""


def _topic(entry: Mapping[str, Any]) -> bytes:
    return keccak(text=signature(entry))


def _type(field: Mapping[str, Any]) -> str:
    if not field["type"].startswith("tuple"):
        return str(field["type"])
    return f"({','.join(_type(part) for part in field['components'])}){field['type'][5:]}"


def _encode(fields: Sequence[Mapping[str, Any]], values: Sequence[Any], name: str) -> bytes:
    if len(fields) != len(values):
        raise AbiError(f"{name} takes {len(fields)} values, not {len(values)}")
    try:
        return encode([_type(field) for field in fields], values)
    except EncodingError as error:
        raise AbiError(f"{name}: {error}") from error


def _decode(fields: Sequence[Mapping[str, Any]], data: bytes, name: str) -> tuple[Any, ...]:
    try:
        values = decode([_type(field) for field in fields], data)
    except DecodingError as error:
        raise AbiError(f"{name}: {error}") from error
    return tuple(_readable(field["type"], value) for field, value in zip(fields, values, strict=True))


def _readable(kind: str, value: Any) -> Any:
    """Addresses as people and nodes write them, with their checksum."""
    if kind == "address":
        return str(to_checksum_address(value))
    if kind == "address[]":
        return tuple(str(to_checksum_address(one)) for one in value)
    return value
