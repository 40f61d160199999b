"""`python -m tests.engine.conformance [FILE...]`: each case passes, differs (and where), or is not supported (and why)."""

import argparse
from collections import Counter
from pathlib import Path

from tests.both import make_engine, make_twin
from tests.engine.conformance.differences import PAGE, page
from tests.engine.conformance.suites import Verdict, run_file, suite_files


def main() -> int:
    """Print the results; 1 when a case differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.engine.conformance", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="files in the form lob-conformance-1 (.json or .json.gz)")
    parser.add_argument("--twin", action="store_true", help="run on the slow twin instead of the engine")
    parser.add_argument("--write-page", action="store_true", help="write docs/conformance.md and stop")
    asked = parser.parse_args()
    if asked.write_page:
        PAGE.write_text(page())
        return 0
    counts: Counter[Verdict] = Counter()
    for path in asked.files or suite_files():
        print(f"== {path.name}")
        results = run_file(path, make_twin if asked.twin else make_engine)
        for result in results:
            print(f"{result.verdict.value:14}{result.case_id}" + (f"  ({result.why})" if result.why else ""))
        found = Counter(result.verdict for result in results)
        print(summary(found))
        counts += found
    print(f"== all: {summary(counts)}")
    return 1 if counts[Verdict.DIFFERS] else 0


def summary(counts: Counter[Verdict]) -> str:
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict)


if __name__ == "__main__":
    raise SystemExit(main())
