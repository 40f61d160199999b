"""The pages for operators are true: settings are the code's, the dashboard's metrics exist, every command is described."""

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway.metrics import Metrics
from tests.gateway.node import Node
from wellhead import configuration
from wellhead.cli import main
from wellhead.configuration import SECTIONS, settings

DOCS = Path(__file__).parents[2] / "docs"
README = (DOCS.parent / "README.md").read_text(encoding="utf-8")
DASHBOARD = json.loads(CliRunner().invoke(main, ["dashboard"]).output)
METRIC = re.compile(r"\b(?:wellhead|process|python)_[a-z_]+\b")


def test_the_configuration_page_is_what_the_code_says() -> None:
    written = configuration.PAGE.read_text(encoding="utf-8")
    assert written == configuration.page(), "run python -m wellhead.configuration"


def test_every_setting_has_words_and_is_on_the_page_once() -> None:
    for _, cls, _ in SECTIONS:
        rows = settings(cls)
        assert [row.name for row in rows if not row.words] == []
        names = [row.name for row in rows]
        fields = [name for name in cls.__dataclass_fields__ if name not in ("limits", "gateway")]
        assert names == fields


def queries() -> list[tuple[str, str]]:
    asked = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    variables = [
        ("variable", each["query"]["query"]) for each in DASHBOARD["templating"]["list"] if each["type"] == "query"
    ]
    return asked + variables


def test_every_metric_of_the_dashboard_exists(tmp_path: Path) -> None:
    found = {sample for family in Metrics(Node(tmp_path).gateway).registry.collect() for sample in names(family)}
    asked = [(title, name) for title, expr in queries() for name in METRIC.findall(expr)]
    assert len(asked) > 20
    assert [(title, name) for title, name in asked if name not in found] == []


def names(family) -> set[str]:
    return {sample.name for sample in family.samples} | {
        f"{family.name}_total" if family.type == "counter" else family.name
    }


def test_the_dashboard_can_be_imported() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) and all(place[2] + place[1] <= 24 for place in places)
    assert {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])} == {
        "${source}"
    }


def commands(group: click.Group, before: str = "wellhead") -> list[str]:
    """Every command with its group, as a person types it."""
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, f"{before} {name}")
        else:
            found.append(f"{before} {name}")
    return found


@pytest.mark.parametrize("command", commands(main))
def test_every_command_is_documented(command: str) -> None:
    """In the README's table: a group by its name with its commands behind it; and `--help` says what it does."""
    words = command.split()
    rows = [line for line in README.splitlines() if line.startswith(f"| `{' '.join(words[:2])}")]
    assert rows, f"{command} is not in the README's table"
    if len(words) > 2:
        assert any(re.search(rf"\b{re.escape(words[2])}\b", row.split("|")[1]) for row in rows), command
    found: click.Command = main
    for word in words[1:]:
        assert isinstance(found, click.Group)
        found = found.commands[word]
    assert found.help and found.help.strip()


PAGES = sorted([*DOCS.glob("*.md"), DOCS.parent / "README.md"])
TYPED = re.compile(r"`wellhead ([^`\n]+)`|^(?:\$ )?wellhead (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([\w./-]+\.(?:md|json|py))(?:#[\w-]+)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_page_names_a_command_or_file_that_is_not_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for typed, entered in TYPED.findall(text):
        first, *rest = re.split(r"[ ,]+", typed or entered)
        assert first in main.commands, f"{page.name}: wellhead {typed or entered}"
        found = main.commands[first]
        if isinstance(found, click.Group) and rest:
            assert rest[0] in found.commands, f"{page.name}: wellhead {typed or entered}"
    for target in LINK.findall(text):
        assert (page.parent / target).exists(), f"{page.name} leads to {target}"
