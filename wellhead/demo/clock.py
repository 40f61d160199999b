"""The demo's market clock: it stands until it is started, runs fast, and stops at its end."""

import time

from engine.catalogue import HOUR_S, NS

SPEED = 720
"""A market hour in five seconds."""
FIRST_MINUTE_S = 20 * 60
"""The market opens twenty minutes past an hour: time to trade before the first gate."""
SHORTEST_S = 110 * 60
"""Market time in which an hour opens, trades, closes, is delivered and settled."""


class DemoClock:
    """Market time in nanoseconds. All processes of a machine that start it with the same number read the same."""

    def __init__(self, start_ns: int, speed: int, seconds: int) -> None:
        self.start_ns = start_ns
        self.speed = speed
        self.end_ns = start_ns + seconds * NS * speed
        self._begun_ns: int | None = None

    @classmethod
    def before(cls, now_ns: int, seconds: int) -> "DemoClock":
        """A clock that will not pass `now_ns`, so that the exchange can go on in real time afterwards."""
        speed = max(SPEED, -(-SHORTEST_S // seconds))
        latest_s = now_ns // NS - seconds * speed - FIRST_MINUTE_S
        return cls((latest_s // HOUR_S * HOUR_S + FIRST_MINUTE_S) * NS, speed, seconds)

    def start(self, begun_ns: int) -> None:
        """`begun_ns`: the machine's monotonic clock at the start of the market."""
        self._begun_ns = begun_ns

    def stop(self) -> None:
        """Stand still from now on."""
        self.end_ns = self()

    def elapsed_ms(self) -> int:
        """Real milliseconds since the start, 0 before it."""
        return 0 if self._begun_ns is None else (time.monotonic_ns() - self._begun_ns) // 1_000_000

    def __call__(self) -> int:
        if self._begun_ns is None:
            return self.start_ns
        return min(self.start_ns + (time.monotonic_ns() - self._begun_ns) * self.speed, self.end_ns)
