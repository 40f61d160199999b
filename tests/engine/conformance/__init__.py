"""Order-book scenarios of other engines, run on ours.

    python -m tests.engine.conformance              the suites that lie here
    python -m tests.engine.conformance FILE...      any other file in the form lob-conformance-1, plain or gzipped

- `suites.py` reads files and runs their cases: `run_file(path)` gives a Result for each
- `player.py` says a case's commands in ours
- `expect.py` compares what a case expects with what there is
- `features.py` lists what a case may ask that takes more than a plain order, and whether we have it
- `differences.py` lists the cases that do not pass, and why, and writes docs/conformance.md
"""

from tests.engine.conformance.suites import Result, Verdict, run_case, run_file

__all__ = ["Result", "Verdict", "run_case", "run_file"]
