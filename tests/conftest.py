"""How long random tests search: HYPOTHESIS_PROFILE=ci (the default: short, the same each time) or campaign (long, new).

And how much memory they keep: an exchange that a test has made goes with its cycles, for which Python looks the less often
the more objects there are, and of its tables it knows nothing.
"""

import gc
import os
from pathlib import Path

from hypothesis import HealthCheck, settings

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, suppress_health_check=SLOW_IS_FINE)
settings.register_profile("campaign", max_examples=5_000, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

LEFT_BYTES = 512 << 20
"""By so much tests may grow before what they left is looked for."""
STATM = Path("/proc/self/statm")


def resident() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if STATM.exists() else 0


looked_at = [resident()]


def pytest_runtest_logfinish() -> None:
    """After each test."""
    if resident() > looked_at[0] + LEFT_BYTES:
        gc.collect()
        looked_at[0] = resident()
