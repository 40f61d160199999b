"""Are there known holes in what is installed? `python -m tests.dependencies`

Asks with pip-audit. Without a network (or an index that has no advisories) it says so and exits with 0, so that it can
stand in any pipeline; holes that were found make it exit with 1. IGNORED lists those that do not concern us, with why.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

IGNORED: dict[str, str] = {}
"""Advisory -> why it does not concern this project."""
MACHINES = {"pip", "setuptools"}
"""Brought by the Python that makes the environment: neither ours to choose nor loaded by a node."""
LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it."""

    exit_code: int
    words: str


def judge(return_code: int, output: str, errors: str) -> Verdict:
    """From what pip-audit said to a verdict."""
    try:
        dependencies = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {return_code}"
        return Verdict(0, f"not audited: {reason}")
    holes = [
        f"{package['name']} {package['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'nothing yet'}"
        for package in dependencies
        for hole in package.get("vulns", [])
        if package["name"] not in MACHINES and hole["id"] not in IGNORED
    ]
    if holes:
        return Verdict(1, "\n".join(holes))
    looked_at = sum("skip_reason" not in package for package in dependencies)
    if not looked_at:
        return Verdict(0, "not audited: the index has no advisories")
    return Verdict(0, f"{looked_at} packages, no known holes")


def audit() -> Verdict:
    """Ask for everything that is installed beside this interpreter."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Verdict(0, f"not audited: {error}")
    return judge(done.returncode, done.stdout, done.stderr)


if __name__ == "__main__":
    verdict = audit()
    print(verdict.words)
    sys.exit(verdict.exit_code)
