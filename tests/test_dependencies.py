"""The audit of dependencies: what it makes of an answer, and of none."""

import json

import pytest

from tests import dependencies
from tests.dependencies import Verdict, judge

CLEAN = {"name": "a", "version": "1", "vulns": []}
HOLE = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
SKIPPED = {"name": "wellhead", "skip_reason": "not on the index"}


def test_a_clean_answer() -> None:
    assert judge(0, json.dumps({"dependencies": [CLEAN, SKIPPED]}), "") == Verdict(0, "1 packages, no known holes")


def test_an_index_without_advisories() -> None:
    assert judge(0, json.dumps({"dependencies": [SKIPPED]}), "").words == "not audited: the index has no advisories"


def test_a_hole_is_named_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps({"dependencies": [CLEAN, HOLE]})
    assert judge(1, answer, "") == Verdict(1, "b 2: PYSEC-1, fixed in 2.1")
    monkeypatch.setitem(dependencies.IGNORED, "PYSEC-1", "we do not call it")
    assert judge(1, answer, "").exit_code == 0


def test_what_the_machine_brought_is_its_owners_concern() -> None:
    assert judge(1, json.dumps({"dependencies": [CLEAN, {**HOLE, "name": "pip"}]}), "").exit_code == 0


@pytest.mark.parametrize("output", ["", "<html>", "{}", "[]"])
def test_without_a_network_it_says_so_and_passes(output: str) -> None:
    verdict = judge(1, output, "Traceback\nConnectionError: no route")
    assert verdict == Verdict(0, "not audited: ConnectionError: no route")
    assert judge(2, output, "").words == "not audited: exit code 2"


def test_a_command_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies.sys, "executable", "/nonexistent/python")
    assert dependencies.audit().exit_code == 0
    assert "not audited" in dependencies.audit().words
