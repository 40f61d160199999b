"""What tests of the cluster share."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from wellhead.calendar import Calendar


@pytest.fixture
def standing_calendar(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the calendar it stays as late as it was when the test began: no gate comes between two looks at one state.

    The servers' clocks stamp the commands, and they cannot be set.
    """
    due, began_ns = Calendar.due, time.time_ns()

    def due_at_the_beginning(calendar: Calendar, now_ns: int) -> NDArray[np.void]:
        return due(calendar, min(now_ns, began_ns))

    monkeypatch.setattr(Calendar, "due", due_at_the_beginning)
