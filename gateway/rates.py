"""How much an account may ask: a bucket of tokens for each, which time fills, and fills too."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from engine.types import EventKind
from gateway.config import GatewayConfig
from gateway.fast import doors
from gateway.memory import Tables
from gateway.messages import Channel, Code, RateState, RequestError

US = 1_000_000


class Bucket:
    """A token bucket in integers: `rate` tokens every `every_s` seconds, `burst` at the most."""

    __slots__ = ("_at_us", "_burst", "_level", "_rate", "_unit")

    def __init__(self, rate: int, burst: int, now_us: int, every_s: int = 1) -> None:
        self._rate, self._burst = rate, burst
        self._unit = every_s * US  # a token in parts, so that a microsecond adds `rate` of them
        self._level = burst * self._unit
        self._at_us = now_us

    def take(self, tokens: int, now_us: int) -> int:
        """Take tokens and return 0; when there are too few take none and return the microseconds to wait."""
        self._earn(now_us)
        missing = tokens * self._unit - self._level
        if missing > 0:
            return -(-missing // self._rate)
        self._level -= tokens * self._unit
        return 0

    def give(self, tokens: int) -> None:
        """Put tokens back, as far as there is room."""
        self._level = min(self._burst * self._unit, self._level + tokens * self._unit)

    def state(self, now_us: int) -> RateState:
        """What is in it."""
        self._earn(now_us)
        return RateState(max(0, self._level // self._unit), self._burst, self._rate)

    def _earn(self, now_us: int) -> None:
        earned = max(0, now_us - self._at_us) * self._rate
        self._level = min(self._burst * self._unit, self._level + earned)
        self._at_us = max(self._at_us, now_us)


class AccountBucket(Bucket):
    """A bucket that compiled code takes from too: its level and time are a row of the tables."""

    __slots__ = ("_account", "_tables")

    def __init__(self, tables: Tables, account: int, config: GatewayConfig, now_us: int) -> None:
        self._tables, self._account = tables, account
        if tables.live[account]["has_bucket"]:
            self._rate, self._burst, self._unit = config.rate_per_s, config.rate_burst, US
            return
        tables.live[account]["has_bucket"] = 1
        super().__init__(config.rate_per_s, config.rate_burst, now_us)

    @property
    def _level(self) -> int:
        return int(self._tables.live[self._account]["bucket_level"])

    @_level.setter
    def _level(self, value: int) -> None:
        self._tables.live[self._account]["bucket_level"] = value

    @property
    def _at_us(self) -> int:
        return int(self._tables.live[self._account]["bucket_at_us"])

    @_at_us.setter
    def _at_us(self, value: int) -> None:
        self._tables.live[self._account]["bucket_at_us"] = value


class Rates:
    """The buckets of all accounts."""

    def __init__(self, config: GatewayConfig, tables: Tables) -> None:
        self._config = config
        self._tables = tables

    def fresh(self, now_us: int) -> Bucket:
        """A bucket of nobody yet: a session has one until it logs on."""
        return Bucket(self._config.rate_per_s, self._config.rate_burst, now_us)

    def bucket(self, account: int, now_us: int) -> Bucket:
        """The account's bucket; all of its sessions share it."""
        return AccountBucket(self._tables, account, self._config, now_us)

    def charge(self, bucket: Bucket, tokens: int, now_us: int) -> None:
        """Take tokens. Raises RequestError(RATE_LIMIT) when there are too few, and then takes none.

        No request costs more than a full bucket has.
        """
        if tokens and (wait_us := bucket.take(min(tokens, self._config.rate_burst), now_us)):
            msg = f"more than {self._config.rate_per_s} requests a second"
            raise RequestError(Code.RATE_LIMIT, msg, retry_us=wait_us)

    def cost_of(self, channels: list[Channel]) -> int:
        """What it costs to join or leave channels: a wide one means a look at every instrument, and its snapshots."""
        heavy, per_token = self._config.rate_heavy_tokens, self._config.rate_topics_per_token
        return sum(
            1 + len(channel.symbols) // per_token if isinstance(channel.symbols, list) else heavy
            for channel in channels
            if channel.name not in ("private", "hb")
        )

    def give_back(self, events: NDArray[np.void]) -> None:
        """Both sides of each trade of the batch at hand have tokens back: who trades may go on."""
        if not self._config.rate_fill_tokens:
            return
        if self._config.compiled:
            self._tables.do(doors.GIVE_BACK, self._config.rate_fill_tokens)
            return
        trades = events[events["kind"] == EventKind.TRADE]
        full, back = self._config.rate_burst * US, self._config.rate_fill_tokens * US
        for account, fills in Counter(trades["account"].tolist() + trades["contra_account"].tolist()).items():
            row = self._tables.live[account]
            if row["has_bucket"]:
                row["bucket_level"] = min(full, int(row["bucket_level"]) + fills * back)
