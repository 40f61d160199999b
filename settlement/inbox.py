"""Reports as files: a meter leaves `<name>.report` in the inbox, and finds it gone, or under `refused/` with the reason.

For a meter on the same machine, or behind any file transfer. A file must appear whole: write it under another name and
rename it. Files are taken in order of name.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from settlement.meter import HEAD_BYTES, MAX_RECORDS, MINUTE, MeterError, Refusal

INBOX_NAME = "inbox"
REFUSED_NAME = "refused"
SUFFIX = ".report"
LOOK_EVERY_NS = 1_000_000_000
MAX_FILES = 256
"""Taken at a time, so that a full inbox does not hold up the market."""
MAX_BYTES = HEAD_BYTES + MAX_RECORDS * MINUTE.itemsize

Report = Callable[[bytes, int], int]
"""(report, now_ns) -> records taken; raises MeterError."""


class Inbox:
    """One directory, looked at now and then."""

    def __init__(self, directory: Path, report: Report) -> None:
        self._directory = directory
        self._report = report
        self._looked_ns = -LOOK_EVERY_NS

    def take(self, now_ns: int) -> int:
        """Hand on the reports that have arrived; returns how many were taken. At most once in LOOK_EVERY_NS."""
        if 0 <= now_ns - self._looked_ns < LOOK_EVERY_NS:
            return 0
        self._looked_ns = now_ns
        taken = 0
        for path in sorted(self._directory.glob(f"*{SUFFIX}"))[:MAX_FILES]:
            taken += self._take(path, now_ns)
        return taken

    def _take(self, path: Path, now_ns: int) -> bool:
        try:
            if path.stat().st_size > MAX_BYTES:
                raise MeterError(Refusal.BAD_REPORT, f"larger than {MAX_BYTES} bytes")
            self._report(path.read_bytes(), now_ns)
        except MeterError as error:
            # A report that was taken and whose file survived a crash is met again: then it has done its work.
            if error.code != Refusal.REPLAYED:
                refused = self._directory / REFUSED_NAME
                refused.mkdir(exist_ok=True)
                (refused / f"{path.stem}.txt").write_text(f"{error}\n")
                path.rename(refused / path.name)
                return False
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return True
