"""`python -m tests.coverage`: how much of engine/ its own tests reach, branches included, with the kernels as plain Python.

Runs the engine's tests without the JIT under coverage, then those of the compiled door with it, prints what is not reached
(nothing, as it should be), and fails below LEAST per cent. With `--brief` it leaves out the storms of random commands and
the scenarios of other engines: the rest must reach everything without them. What only compiled code needs (linking,
addresses, machine words) cannot be reached this way; pyproject.toml names the few lines.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEAST = 99
"""Less than all, so that a few lines may come in with their test elsewhere."""
ONLY_COMPILED = "engine/linking.py,engine/pointers.py"
TESTS = [
    "tests/engine",
    # Streams are of the engine, what runs on them is not.
    "tests/cluster/test_sequencing.py",
    "tests/cluster/test_jetstream.py",
    "tests/cluster/test_cluster.py::test_a_server_that_does_not_sync_always_is_refused",
]
STORMS = ["tests/engine/test_twin.py", "tests/engine/test_conformance.py"]
OF_THE_DOOR = ["tests/engine/test_door.py"]
LIMIT_S = 1_800
"""For one test: as plain Python under coverage a storm takes minutes on a busy machine."""


def main() -> int:
    """Run and report; 0 when everything is reached."""
    brief = "--brief" in sys.argv[1:]
    coverage = [sys.executable, "-m", "coverage"]
    run = [*coverage, "run", "--branch", "--source=engine", f"--omit={ONLY_COMPILED}"]
    pytest = ["-m", "pytest", "-q", "-o", f"timeout={LIMIT_S}", "-p", "no:cacheprovider"]
    # Another process would not be seen.
    chosen = [*TESTS, "-k", "not another_process", *(f"--ignore={name}" for name in STORMS * brief)]
    report = ["report", "--show-missing", "--skip-covered", f"--omit={ONLY_COMPILED}", f"--fail-under={LEAST}"]
    environment = os.environ | {"COVERAGE_FILE": str(ROOT / ".coverage")}
    steps = [
        ([*run, *pytest, *chosen], {"NUMBA_DISABLE_JIT": "1"}),
        ([*run, "--append", *pytest, *OF_THE_DOOR], {"NUMBA_DISABLE_JIT": "0"}),
        ([*coverage, *report], {}),
    ]
    for command, more in steps:
        result = subprocess.run(command, cwd=ROOT, env=environment | more, check=False)
        if result.returncode:
            return result.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
