"""`python -m tests.coverage`: how much of engine/ its own tests reach, branches included, with the kernels as plain Python.

Runs the engine's tests without the JIT under coverage, prints what is not reached, and fails below LEAST per cent.
With `--brief` it leaves out the log's tests and the random storms, and so reaches less; LEAST_BRIEF then.
What only compiled code needs (linking, addresses) cannot be reached this way.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEAST, LEAST_BRIEF = 95, 90
ONLY_COMPILED = ["engine/linking.py", "engine/pointers.py"]
OF_THE_LOG = ["engine/log.py", "engine/jetstream.py", "engine/sequencing.py", "engine/snapshot.py"]
SLOW = ["tests/engine/test_log.py", "tests/engine/test_twin.py", "tests/engine/test_snapshot.py"]


def main() -> int:
    """Run and report; 0 when enough is reached."""
    brief = "--brief" in sys.argv[1:]
    omit = ",".join(ONLY_COMPILED + OF_THE_LOG * brief)
    # Other processes would not be seen; and a thousand holders take minutes.
    tests = ["tests/engine", "-k", "not another_process and not so_many_holders"]
    tests += [f"--ignore={name}" for name in SLOW * brief]
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "COVERAGE_FILE": str(ROOT / ".coverage")}
    coverage = [sys.executable, "-m", "coverage"]
    run = [*coverage, "run", "--branch", "--source=engine", f"--omit={omit}", "-m", "pytest", "-q", *tests]
    least = f"--fail-under={LEAST_BRIEF if brief else LEAST}"
    report = [*coverage, "report", "--show-missing", "--skip-covered", f"--omit={omit}", least]
    for step in (run, report):
        result = subprocess.run(step, cwd=ROOT, env=environment, check=False)
        if result.returncode:
            return result.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
