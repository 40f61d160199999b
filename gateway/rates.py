"""How much an account may ask: a bucket of tokens for each, which time fills, and fills too."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gateway.config import GatewayConfig
from gateway.messages import Code, RateState, RequestError

US = 1_000_000


class Bucket:
    """A token bucket in integers: `rate` tokens a second, `burst` at the most."""

    __slots__ = ("_at_us", "_burst", "_level", "_rate")

    def __init__(self, rate: int, burst: int, now_us: int) -> None:
        self._rate, self._burst = rate, burst
        self._level = burst * US  # tokens times 10^6, so that a microsecond adds `rate`
        self._at_us = now_us

    def take(self, tokens: int, now_us: int) -> int:
        """Take tokens and return 0; when there are too few take none and return the microseconds to wait."""
        self._earn(now_us)
        missing = tokens * US - self._level
        if missing > 0:
            return -(-missing // self._rate)
        self._level -= tokens * US
        return 0

    def give(self, tokens: int) -> None:
        """Put tokens back, as far as there is room."""
        self._level = min(self._burst * US, self._level + tokens * US)

    def state(self, now_us: int) -> RateState:
        """What is in it."""
        self._earn(now_us)
        return RateState(self._level // US, self._burst, self._rate)

    def _earn(self, now_us: int) -> None:
        earned = max(0, now_us - self._at_us) * self._rate
        self._level = min(self._burst * US, self._level + earned)
        self._at_us = max(self._at_us, now_us)


class Rates:
    """The buckets of all accounts."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._buckets: dict[int, Bucket] = {}

    def fresh(self, now_us: int) -> Bucket:
        """A bucket of nobody yet: a session has one until it logs on."""
        return Bucket(self._config.rate_per_s, self._config.rate_burst, now_us)

    def bucket(self, account: int, now_us: int) -> Bucket:
        """The account's bucket; all of its sessions share it."""
        found = self._buckets.get(account)
        if found is None:
            found = self._buckets[account] = self.fresh(now_us)
        return found

    def charge(self, bucket: Bucket, tokens: int, now_us: int) -> None:
        """Take tokens. Raises RequestError(RATE_LIMIT) when there are too few, and then takes none."""
        if tokens and (wait_us := bucket.take(tokens, now_us)):
            msg = f"more than {self._config.rate_per_s} requests a second"
            raise RequestError(Code.RATE_LIMIT, msg, retry_us=wait_us)

    def give_back(self, trades: NDArray[np.void]) -> None:
        """Both sides of each trade (EVENT) have tokens back: who trades may go on."""
        if not len(trades) or not self._config.rate_fill_tokens:
            return
        for account, fills in _count(np.concatenate((trades["account"], trades["contra_account"]))):
            bucket = self._buckets.get(account)
            if bucket is not None:
                bucket.give(fills * self._config.rate_fill_tokens)


def _count(accounts: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    found, counts = np.unique(accounts, return_counts=True)
    return zip(found.tolist(), counts.tolist(), strict=True)
