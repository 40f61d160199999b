"""Who may come in: connections in all and from one address, pages of which sites, and how often a log-on may fail."""

import ipaddress
from collections import Counter, OrderedDict
from urllib.parse import urlsplit

from gateway.config import GatewayConfig
from gateway.messages import Code, RequestError
from gateway.rates import Bucket


class Doors:
    """Counts open connections by address. A network address stands for all of an IPv6 customer's."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._by_ip: Counter[str] = Counter()
        self.open = 0

    def enter(self, ip: str) -> bool:
        """A connection came; False: drop it without a word. `leave` must follow either way."""
        place = source(ip)
        self._by_ip[place] += 1
        self.open += 1
        # Those a little above the limit are told why; a flood is not worth the answers.
        return self.open <= self._config.max_connections and not self.is_full(ip, slack=2)

    def leave(self, ip: str) -> None:
        """A connection is gone."""
        place = source(ip)
        self.open -= 1
        self._by_ip[place] -= 1
        if not self._by_ip[place]:
            del self._by_ip[place]

    def is_full(self, ip: str, slack: int = 1) -> bool:
        """Whether an address has more connections than it may, times `slack`."""
        return self._by_ip[source(ip)] > self._config.max_connections_per_ip * slack


def source(ip: str) -> str:
    """Whom to count an address for: an IPv4 address for itself, an IPv6 address for its /64, which one customer owns."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return ip
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def origin_allowed(origin: str | None, host: str | None, origins: tuple[str, ...]) -> bool:
    """Whether a page of this origin may connect. Programs send none; our own pages come from the host they connect to."""
    if origin is None or "*" in origins or origin in origins:
        return True
    try:
        page, own = urlsplit(origin).hostname, urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return page is not None and page == own


class LogonThrottle:
    """How often log-ons fail, by address and by key. Where it is too often, not even a right one is looked at for a while.

    A key's own limit does not hold for addresses from which it logged on before: nobody can lock its owner out by
    failing in its name.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._by_ip: OrderedDict[str, Bucket] = OrderedDict()
        self._by_key: OrderedDict[str, Bucket] = OrderedDict()
        self._trusted: OrderedDict[tuple[str, str], None] = OrderedDict()

    def check(self, ip: str, key_id: str, now_us: int) -> None:
        """Raises RequestError(RATE_LIMIT) when there were too many failures. Takes nothing from those who do not fail."""
        place = source(ip)
        wait_us = self._wait_us(self._by_ip.get(place), now_us)
        if (key_id, place) not in self._trusted:
            wait_us = max(wait_us, self._wait_us(self._by_key.get(key_id), now_us))
        if wait_us:
            raise RequestError(Code.RATE_LIMIT, "too many log-ons have failed", retry_us=wait_us)

    def failed(self, ip: str, key_id: str, now_us: int) -> None:
        """A signature was wrong, or the key, or its address."""
        config = self._config
        place = source(ip)
        self._bucket(self._by_ip, place, config.logon_failures_per_ip, now_us).take(1, now_us)
        self._bucket(self._by_key, key_id, config.logon_failures_per_key, now_us).take(1, now_us)
        self._trusted.pop((key_id, place), None)

    def succeeded(self, ip: str, key_id: str) -> None:
        """A log-on was right."""
        self._trusted[key_id, source(ip)] = None
        while len(self._trusted) > self._config.throttle_entries:
            self._trusted.popitem(last=False)

    def _wait_us(self, bucket: Bucket | None, now_us: int) -> int:
        if bucket is None or (wait_us := bucket.take(1, now_us)) == 0:
            if bucket is not None:
                bucket.give(1)
            return 0
        return wait_us

    def _bucket(self, buckets: OrderedDict[str, Bucket], name: str, failures: int, now_us: int) -> Bucket:
        """Starts full, and earns a failure back in as long as the configuration says."""
        bucket = buckets.get(name)
        if bucket is None:
            bucket = buckets[name] = Bucket(1, failures, now_us, every_s=self._config.logon_failure_s)
        buckets.move_to_end(name)
        while len(buckets) > self._config.throttle_entries:
            buckets.popitem(last=False)
        return bucket
