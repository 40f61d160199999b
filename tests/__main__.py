"""`python -m tests`: everything that must pass, in the order in which it fails fastest. CI runs this and nothing else.

The steps of a stage run two at a time, which is what CI's machine has cores for; a stage begins when the one before has passed.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "pytest"]
TOGETHER = ["-n", "2", "--dist", "loadfile"]
BOUNDSCHECK = {"NUMBA_BOUNDSCHECK": "1"}
LEAN = {"MALLOC_MMAP_THRESHOLD_": "1000000"}
"""glibc: large blocks go back to the machine when they are freed. Without it a process of tests grows to 6 GB."""


class Step(NamedTuple):
    """A command, and what it adds to the environment."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = MappingProxyType({})


def warm_up(module: str) -> list[str]:
    """Compile the kernels here, and not in several processes at the same time within some test's time limit."""
    return [PYTHON, "-c", f"from {module} import warm_up; warm_up()"]


STAGES = [
    [
        Step("lint", [PYTHON, "-m", "ruff", "check", "."]),
        Step("format", [PYTHON, "-m", "ruff", "format", "--check", "."]),
        Step("kernels with bounds checks", warm_up("engine.engine"), BOUNDSCHECK),
        Step("types", [PYTHON, "-m", "mypy"]),
        Step("known holes in what is installed", [PYTHON, "-m", "tests.dependencies"]),
        Step("kernels", warm_up("wellhead.compiled")),
        Step("coverage of the engine, as plain Python", [PYTHON, "-m", "tests.coverage", "--brief"]),
    ],
    # Bounds checks first: a kernel that reads beside an array must not pass for a logic error, or go unnoticed.
    [Step("engine with bounds checks", [*PYTEST, *TOGETHER, "tests/engine"], BOUNDSCHECK)],
    [Step("tests", [*PYTEST, *TOGETHER, "--ignore=tests/page", "--ignore=tests/cluster"])],
    # Two clusters that look for free ports at the same time may meet on one.
    [Step("cluster", [*PYTEST, "tests/cluster"])],
    # The browser's driver keeps an event loop of its own, beside which no other test with one can run.
    [Step("market page", [*PYTEST, "tests/page"])],
]


def run(step: Step, alone: bool) -> int:
    """Run a step; its exit code. What it prints comes at once when it is alone, else at its end."""
    if alone:
        print(f"\n== {step.name}", flush=True)
    done = subprocess.run(
        step.command, cwd=ROOT, env={**os.environ, **LEAN, **step.environment}, check=False, text=True,
        stdout=None if alone else subprocess.PIPE, stderr=None if alone else subprocess.STDOUT,
    )  # fmt: skip
    if not alone:
        print(f"\n== {step.name}\n{done.stdout}", end="", flush=True)
    if done.returncode:
        print(f"== {step.name} failed", flush=True)
    return done.returncode


def main() -> int:
    """Run the stages until a step of one fails; its exit code."""
    for stage in STAGES:
        with ThreadPoolExecutor(2) as pool:
            codes = list(pool.map(run, stage, [len(stage) == 1] * len(stage)))
        if any(codes):
            return max(codes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
