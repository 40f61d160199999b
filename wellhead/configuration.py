"""The reference of every setting, from the dataclasses themselves; `python -m wellhead.configuration` writes the page.

Name, type and default are what the code has; the words are the comment beside the field, and a heading above a group
of fields in the source is a heading here. A field without words fails the test. The words of the engine's limits are
here: a comment changed in engine/state.py would make every kernel be compiled again.
"""

import argparse
import dataclasses
import inspect
import re
import sys
import typing
from pathlib import Path
from typing import Any, NamedTuple

from engine.state import Limits
from gateway.config import GatewayConfig
from wellhead.config import Config
from wellhead.settings import TABLES

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

Every setting of a node, made from the code by `python -m wellhead.configuration`. A node takes them from a TOML file,
`wellhead serve --config wellhead.toml`; an option given on the command line wins over the file. A name that does not exist,
or a value of another type, is refused with its place. Paths are relative to the file. How to run a node is in
[operating.md](operating.md) and [runbook.md](runbook.md).

```toml
host = "0.0.0.0"
markets = ["H100S-USE", "H100S-EUC"]

[gateway]
rate_per_s = 5_000

[limits]
max_accounts = 100_000
```
"""
SECTIONS = (
    ("At the top of the file", Config, "One node: where it is, what it lists, how it writes."),
    ("[gateway]", GatewayConfig, "What a bot can run into; `hello.limits` tells it those that matter to it."),
    (
        "[limits]",
        Limits,
        "How large the engine's tables may grow. A full one is a reject, `OVERLOADED`, never a crash.",
    ),
)
LIMITS = {
    "max_accounts": "accounts ever opened",
    "max_instruments": "contracts listed at a time",
    "max_orders": "working orders",
    "max_positions": "accounts times contracts in which they have something",
    "max_leaves": "blocks of 64 price levels with orders, of all books",
    "max_nodes": "inner nodes of the price tries above them",
    "max_shares": "pools times holders",
    "max_open_orders_per_account": "working orders of one account, where it has no limit of its own",
    "max_quotes_per_book": "quoted levels of an account in a contract",
    "max_timers_per_account": "dead-man timers of one account",
    "max_timers": "orders and timers that wait for a time",
    "max_mmp_groups": "groups under market-maker protection",
    "max_client_ids": "client order ids that are remembered",
}
_FIELD = re.compile(r"^    (\w+): [^#]*?(?:  # (.*))?$")
_GROUP = re.compile(r"^    # (\w[\w ]*)(?:, .*)?$")


class Setting(NamedTuple):
    """A row of the page."""

    group: str
    name: str
    kind: str
    default: str
    words: str


def settings(cls: type[Any]) -> list[Setting]:
    """The fields of a dataclass in the order of the source, but for the tables inside of it."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in TABLES}
    found, group = [], ""
    for line in inspect.getsource(cls).splitlines():
        if heading := _GROUP.match(line):
            group = heading[1]
        elif (row := _FIELD.match(line)) and row[1] in fields:
            field = fields[row[1]]
            words = (row[2] or LIMITS.get(field.name, "")).replace("|", "\\|")
            found.append(Setting(group, field.name, _kind(hints[field.name]), _default(field), words))
    return found


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        return "list of text"
    options = [option for option in typing.get_args(hint) or (hint,) if option is not type(None)]
    names = {int: "integer", str: "text", bool: "true or false", Path: "path"}
    return " or ".join(names.get(option, str(option)) for option in options)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return ""
    value = field.default
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int):
        return f"`{value:_}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{list(value)}`".replace("'", '"')


def page() -> str:
    """What docs/configuration.md must contain."""
    parts = [HEAD]
    for title, cls, words in SECTIONS:
        parts.append(f"## {title}\n\n{words}\n")
        rows, group = settings(cls), None
        for row in rows:
            if row.group != group:
                group = row.group
                parts.append(
                    (f"### {group}\n\n" if group else "") + "| setting | type | default | |\n|---|---|---|---|"
                )
            parts.append(f"| `{row.name}` | {row.kind} | {row.default} | {row.words} |")
            if row is rows[-1] or rows[rows.index(row) + 1].group != group:
                parts[-1] += "\n"
    return "\n".join(parts)


def main() -> None:
    """Write the page, or say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; end with 1 when the page is not up to date"
    )
    check = parser.parse_args().check
    is_stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page()
    if is_stale:
        print(f"{PAGE.name}: {'not up to date' if check else 'written'}")
        if not check:
            PAGE.write_text(page(), encoding="utf-8")
    sys.exit(1 if check and is_stale else 0)


if __name__ == "__main__":
    main()
