"""The reference of the protocol, made from the structs of messages.py: docs/messages.md to read, docs/asyncapi.json for tools.

    python -m gateway.reference [--check]

writes both, or says whether they are what the structs say. The texts are the docstrings and the comments beside the fields;
the examples are the lines of docs/protocol.md, which tests send to a server. A message without an example is an error.
"""

import argparse
import ast
import inspect
import json
import re
import sys
import typing
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from gateway import messages
from gateway.messages import CHANNELS, PRIVATE_EVENTS, PROTO, PUSHES, REQUESTS, Code, Format, Reply, decode

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCHEMAS = "#/components/schemas/"
MONEY = {
    "description": "Money or a price: a decimal string in JSON; in MessagePack an integer of 10^-6.",
    "oneOf": [{"type": "string", "pattern": r"^-?\d+(\.\d{1,6})?$"}, {"type": "integer"}],
}
RESULTS: dict[str, type[Struct]] = {
    "session.logon": messages.LogonResult,
    "session.logout": messages.MassCancelResult,
    "order.place": messages.OrderResult,
    "order.amend": messages.OrderResult,
    "order.cancel": messages.OrderResult,
    "order.batch": messages.BatchResult,
    "cancel.mass": messages.MassCancelResult,
    "quote.mass": messages.MassQuoteResult,
    "cancel_after": messages.CancelAfterResult,
    "mmp.set": messages.DoneResult,
    "mmp.reset": messages.DoneResult,
    "protections": messages.ProtectionsResult,
    "orders.open": messages.OpenOrdersResult,
    "orders.history": messages.OrdersHistoryResult,
    "fills": messages.FillsResult,
    "positions": messages.PositionsResult,
    "balances": messages.BalancesResult,
    "instruments": messages.InstrumentsResult,
    "statements": messages.StatementsResult,
    "statement": messages.StatementPart,
    "proof": messages.ProofResult,
    "transfer": messages.DoneResult,
    "withdraw": messages.DoneResult,
    "deposit.address": messages.DepositAddressResult,
    "capacity.nominate": messages.DoneResult,
    "delivery.report": messages.ReportResult,
    "admin.accounts": messages.AccountsResult,
    "admin.lock": messages.DoneResult,
    "admin.status": messages.DoneResult,
    "admin.halt": messages.DoneResult,
    "admin.list": messages.DoneResult,
    "admin.band": messages.DoneResult,
    "admin.limits": messages.DoneResult,
    "admin.keys": messages.KeysResult,
    "admin.key": messages.KeysResult,
    "admin.revoke": messages.KeysResult,
    "subscribe": messages.SubscribeResult,
    "unsubscribe": messages.SubscribeResult,
}
"""What `r` of the reply to each op is."""


class MissingExample(Exception):
    """A message of the protocol has no example on the page."""


def tag(cls: type[Struct]) -> str:
    """The op, channel or private event that a struct is."""
    return str(cls.__struct_config__.tag)


@cache
def _comments() -> dict[tuple[str, str], str]:
    # Of each struct's fields, by class and field: the comment behind it.
    source = inspect.getsource(messages)
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    _, mark, comment = lines[(field.end_lineno or field.lineno) - 1].partition("  # ")
                    if mark and not comment.startswith("noqa"):
                        found[node.name, field.target.id] = comment.strip()
    return found


def comment_of(cls: type[Struct], field: str) -> str:
    """What the source says beside a field; an inherited one's is with the class that has it."""
    return next((_comments()[c.__name__, field] for c in cls.__mro__ if (c.__name__, field) in _comments()), "")


# --- Examples ---------------------------------------------------------------------------------------------------------


class Examples:
    """The lines of the page, by what they are: requests by op, replies by op, pushes by channel or private event."""

    def __init__(self, page: str) -> None:
        lines = [line for line in page.splitlines() if line.startswith(("-> ", "<- "))]
        sent = [line[3:] for line in lines if line.startswith("-> ")]
        self.requests = {json.loads(line)["op"]: line for line in reversed(sent)}
        ops = {decode(line.encode(), Format.JSON).id: json.loads(line)["op"] for line in sent}
        self.replies: dict[str, str] = {}
        self.pushes: dict[str, str] = {}
        for line in reversed([line[3:] for line in lines if line.startswith("<- ")]):
            message = json.loads(line)
            if "id" not in message:
                self.pushes[_push_key(message)] = line
            elif message["ok"] and message["id"] in ops:
                self.replies[ops[message["id"]]] = line

    def missing(self) -> list[str]:
        """The messages without an example."""
        wanted = [(tag(cls), self.requests) for cls in REQUESTS] + [(op, self.replies) for op in RESULTS]
        wanted += [(tag(cls), self.pushes) for cls in PUSHES]
        wanted += [("private " + tag(cls), self.pushes) for cls in PRIVATE_EVENTS]
        return [name for name, examples in wanted if name not in examples]


def _push_key(message: dict[str, Any]) -> str:
    return f"private {message['ev']}" if message["ch"] == "private" else str(message["ch"])


# --- AsyncAPI ---------------------------------------------------------------------------------------------------------


def asyncapi(examples: Examples) -> dict[str, Any]:
    """The AsyncAPI 3 document: one channel, an operation for each op, and one for each push."""
    structs = [*REQUESTS, Reply, *RESULTS.values(), *PUSHES, *PRIVATE_EVENTS]
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(structs)), ref_template=SCHEMAS + "{name}")
    for name, schema in schemas.items():
        _describe(getattr(messages, name, None), schema)
    found: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for cls in REQUESTS:
        op = tag(cls)
        found[op] = _message(op, cls, examples.requests[op])
        found[op + ".reply"] = _reply(op, examples.replies[op])
        reply = {
            "channel": _ref("channels", "exchange"),
            "messages": [_ref("channels", "exchange", "messages", op + ".reply")],
        }
        operations[op] = _operation("receive", op) | {"reply": reply}
    pushes: list[tuple[str, type[Struct]]] = [(tag(push), push) for push in PUSHES]
    pushes += [(f"private {tag(event)}", event) for event in PRIVATE_EVENTS]
    for key, push in pushes:
        name = key.replace(" ", ".") if " " in key else f"push.{key}"  # an op may have the name of a channel
        found[name] = _message(name, push, examples.pushes[key])
        operations[name] = _operation("send", name)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Wellhead",
            "version": PROTO,
            "description": "A spot exchange for GPU-hours. The rules are in protocol.md; error codes: "
            + ", ".join(f"{code.value} {code.name}" for code in Code),
        },
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "localhost:8765", "protocol": "ws", "pathname": "/v1"}},
        "channels": {"exchange": {"address": "/v1", "messages": {n: _ref("components", "messages", n) for n in found}}},
        "operations": operations,
        "components": {"messages": found, "schemas": _with_money(schemas) | {"Money": MONEY}},
    }


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}


def _operation(action: str, name: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": _ref("channels", "exchange"),
        "messages": [_ref("channels", "exchange", "messages", name)],
    }


def _message(name: str, cls: type[Struct], example: str) -> dict[str, Any]:
    return {
        "name": name,
        "summary": text_of(cls),
        "payload": {"$ref": SCHEMAS + cls.__name__},
        "examples": [{"name": name, "payload": json.loads(example)}],
    }


def _reply(op: str, example: str) -> dict[str, Any]:
    result = {"type": "object", "properties": {"r": {"$ref": SCHEMAS + RESULTS[op].__name__}}}
    return {
        "name": op + ".reply",
        "summary": f"The answer to {op}; `err` instead of `r` when it is refused.",
        "payload": {"allOf": [{"$ref": SCHEMAS + "Reply"}, result]},
        "examples": [{"name": op + ".reply", "payload": json.loads(example)}],
    }


def _describe(cls: type[Struct] | None, schema: dict[str, Any]) -> None:
    if cls is None:
        return
    for name, wire_name in zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True):
        if text := comment_of(cls, name):
            schema["properties"][wire_name] = {"description": text} | schema["properties"][wire_name]


def _with_money(schema: Any) -> Any:
    # No other field takes both numbers and text.
    if isinstance(schema, list):
        return [_with_money(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kinds = [each.get("type") for each in schema.get("anyOf", [])]
    if sorted(kind for kind in kinds if kind in ("integer", "string")) == ["integer", "string"]:
        others = [each for each in schema["anyOf"] if each.get("type") not in ("integer", "string")]
        money = {"$ref": SCHEMAS + "Money"}
        rest = {name: value for name, value in schema.items() if name != "anyOf"}
        return rest | ({"anyOf": [money, *others]} if others else money)
    # AsyncAPI has no such discriminator; the constant tag of each struct says the same.
    return {name: _with_money(value) for name, value in schema.items() if name != "discriminator"}


# --- The page ---------------------------------------------------------------------------------------------------------


def text_of(cls: type[Struct]) -> str:
    """The docstring on one line, or nothing where a struct has none of its own."""
    own = cls.__dict__.get("__doc__") or ""
    return "" if own.startswith(cls.__name__ + "(") else " ".join(own.split())


def page(examples: Examples) -> str:
    """The reference as Markdown: every message with its fields and an example."""
    parts = [
        "# Messages\n",
        "Every message of the [protocol](protocol.md), made from `gateway/messages.py` by `python -m gateway.reference`;\n"
        "for tools the same is in [asyncapi.json](asyncapi.json). Types are JSON's; *money* is a decimal string, and in\n"
        "MessagePack an integer of 10^-6.\n",
        "## Requests and their results\n",
        "Each request has `op`, `id` and, if wanted, `rl`. The reply has the fields of *Reply*, with the result in `r`.\n",
        *_section("Reply", Reply, None),
    ]
    for cls in REQUESTS:
        op = tag(cls)
        parts += _section(op, cls, examples.requests[op], skip=("id", "rl"))
        parts += [
            f"Result: {text_of(RESULTS[op])}".rstrip(": ") + ":\n",
            _fields(RESULTS[op]),
            _example(examples.replies[op]),
        ]
    parts.append(f"## Pushes\n\nThe channels are {', '.join(f'`{name}`' for name in CHANNELS)}.\n")
    for push in PUSHES:
        parts += _section(tag(push), push, examples.pushes[tag(push)])
    parts.append("## Private events\n\nOf the channel `private`; each has `aseq`, `seq` and `ts`.\n")
    for event in PRIVATE_EVENTS:
        parts += _section(tag(event), event, examples.pushes[f"private {tag(event)}"], skip=("ch", "aseq", "seq", "ts"))
    parts.append("## Parts\n")
    for part in _parts():
        parts += _section(part.__name__, part, None)
    return "\n".join(filter(None, parts))


def _section(title: str, cls: type[Struct], example: str | None, skip: Iterable[str] = ()) -> list[str]:
    return [f"### {title}\n", text_of(cls) + "\n" if text_of(cls) else "", _fields(cls, skip), _example(example)]


def _example(line: str | None) -> str:
    return f"```json\n{line}\n```\n" if line else ""


def _fields(cls: type[Struct], skip: Iterable[str] = ()) -> str:
    hints = typing.get_type_hints(cls, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(cls):
        if field.name not in skip:
            optional = "" if field.required else " (optional)"
            rows.append(
                f"| `{field.encode_name}` | {type_name(hints[field.name])}{optional} | {comment_of(cls, field.name)} |"
            )
    return "| field | type | |\n|---|---|---|\n" + "\n".join(rows) + "\n" if rows else ""


def type_name(hint: Any) -> str:
    """A type in the words of JSON."""
    if hint == messages.Money:
        return "*money*"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return " \\| ".join(f"`{json.dumps(each)}`" for each in arguments)
    if origin in (list, tuple, dict):
        inner = ", ".join(type_name(each) for each in arguments)
        return {list: f"list of {inner}", tuple: f"[{inner}]", dict: "object"}[origin]
    if arguments:
        return " or ".join(
            type_name(each) for each in arguments if each is not type(UNSET) and each is not msgspec.UnsetType
        )
    if isinstance(hint, type) and issubclass(hint, Struct):
        name = hint.__name__
        return f"[{name}](#{name.lower()})" if hint in _parts() else f"`{tag(hint)}`"
    return {int: "integer", str: "string", bool: "boolean", type(None): "null"}.get(hint, "any")


@cache
def _parts() -> tuple[type[Struct], ...]:
    # The structs inside of messages, in the order of the source.
    whole: set[type[Struct]] = {*REQUESTS, Reply, *RESULTS.values(), *PUSHES, *PRIVATE_EVENTS}
    inside = [cls for cls in vars(messages).values() if isinstance(cls, type) and issubclass(cls, Struct)]
    bases = {base for cls in whole for base in cls.__mro__[1:]}
    return tuple(
        dict.fromkeys(
            cls
            for cls in inside
            if cls not in whole and cls not in bases and not cls.__name__.startswith("_") and cls is not Struct
        )
    )


# --- Files ------------------------------------------------------------------------------------------------------------


def files() -> dict[Path, str]:
    """What the two files must contain. Raises MissingExample."""
    examples = Examples((DOCS / "protocol.md").read_text(encoding="utf-8"))
    if missing := examples.missing():
        raise MissingExample(f"docs/protocol.md has no example of: {', '.join(missing)}")
    return {
        DOCS / "messages.md": re.sub(r"\n{3,}", "\n\n", page(examples)),
        DOCS / "asyncapi.json": json.dumps(asyncapi(examples), indent=1) + "\n",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a file is not up to date")
    check = parser.parse_args().check
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.name}: {'not up to date' if check else 'written'}")
        if not check:
            path.write_text(files()[path], encoding="utf-8")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
