"""`python -m tests`: everything that must pass, in the order in which it fails fastest. CI runs this and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable

STEPS: list[tuple[str, list[str], dict[str, str]]] = [
    ("lint", [PYTHON, "-m", "ruff", "check", "."], {}),
    ("format", [PYTHON, "-m", "ruff", "format", "--check", "."], {}),
    ("types", [PYTHON, "-m", "mypy"], {}),
    # Bounds checks first: a kernel that reads beside an array must not pass for a logic error, or go unnoticed.
    ("engine with bounds checks", [PYTHON, "-m", "pytest", "tests/engine"], {"NUMBA_BOUNDSCHECK": "1"}),
    ("tests", [PYTHON, "-m", "pytest"], {}),
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
