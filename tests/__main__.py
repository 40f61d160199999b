"""`python -m tests`: everything that must pass, in the order in which it fails fastest. CI runs this and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "pytest"]
TOGETHER = ["-n", "2", "--dist", "loadfile"]
"""Two files at a time: what CI's machine has cores for."""
WARM_UP = "from engine.engine import warm_up; warm_up()"

STEPS: list[tuple[str, list[str], dict[str, str]]] = [
    ("lint", [PYTHON, "-m", "ruff", "check", "."], {}),
    ("format", [PYTHON, "-m", "ruff", "format", "--check", "."], {}),
    ("types", [PYTHON, "-m", "mypy"], {}),
    # Compiled once here, and not by two processes at the same time within some test's time limit.
    ("kernels with bounds checks", [PYTHON, "-c", WARM_UP], {"NUMBA_BOUNDSCHECK": "1"}),
    ("kernels", [PYTHON, "-c", WARM_UP], {}),
    # Bounds checks first: a kernel that reads beside an array must not pass for a logic error, or go unnoticed.
    ("engine with bounds checks", [*PYTEST, *TOGETHER, "tests/engine"], {"NUMBA_BOUNDSCHECK": "1"}),
    ("tests", [*PYTEST, *TOGETHER, "--ignore=tests/page"], {}),
    # The browser's driver keeps an event loop of its own, beside which no other test with one can run.
    ("market page", [*PYTEST, "tests/page"], {}),
]


def main() -> int:
    """Run the steps until one fails; its exit code."""
    for name, command, environment in STEPS:
        print(f"\n== {name}", flush=True)
        result = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False)
        if result.returncode:
            print(f"== {name} failed", flush=True)
            return result.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
