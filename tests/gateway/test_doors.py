"""Who may come in, without a socket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import GatewayConfig
from gateway.doors import Doors, LogonThrottle, origin_allowed, source
from gateway.health import Readiness
from gateway.messages import RequestError

S = 1_000_000


@pytest.mark.parametrize(
    ("origin", "origins", "allowed"),
    [
        (None, (), True),
        ("http://exchange.example", (), True),
        ("https://exchange.example:9000", (), True),
        ("https://evil.example", (), False),
        ("https://exchange.example.evil.example", (), False),
        ("https://evil.example", ("https://evil.example",), True),
        ("https://evil.example", ("*",), True),
        ("null", (), False),
        ("http://[", (), False),
    ],
)
def test_origins(origin: str | None, origins: tuple[str, ...], allowed: bool) -> None:
    assert origin_allowed(origin, "exchange.example:8765", origins) is allowed
    assert origin_allowed("https://exchange.example", None, origins) is ("*" in origins)


@pytest.mark.parametrize(
    ("ip", "place"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
    ],
)
def test_an_ipv6_customer_is_one_source(ip: str, place: str) -> None:
    assert source(ip) == place


def test_connections_in_all_and_from_one_address() -> None:
    doors = Doors(GatewayConfig(max_connections=5, max_connections_per_ip=1))
    assert doors.enter("192.0.2.1")
    assert not doors.is_full("192.0.2.1")
    assert doors.enter("192.0.2.1")
    assert doors.is_full("192.0.2.1")  # it will be told so
    assert not doors.enter("192.0.2.1")  # this one will not
    assert doors.enter("192.0.2.2")
    assert not doors.is_full("192.0.2.2")
    assert doors.enter("192.0.2.3")
    assert not doors.enter("192.0.2.4")
    for ip in ("192.0.2.1",) * 3 + ("192.0.2.2", "192.0.2.3", "192.0.2.4"):
        doors.leave(ip)
    assert doors.open == 0
    assert not doors._by_ip


def refused(throttle: LogonThrottle, ip: str, key: str, now_us: int) -> int:
    """How long to wait, 0 when the log-on is looked at."""
    try:
        throttle.check(ip, key, now_us)
    except RequestError as error:
        return error.error.retry_us or -1
    return 0


def test_failures_from_an_address_are_too_many_after_a_while() -> None:
    throttle = LogonThrottle(GatewayConfig(logon_failures_per_ip=3, logon_failure_s=10))
    for _ in range(3):
        assert not refused(throttle, "192.0.2.1", "k", 0)
        throttle.failed("192.0.2.1", "k", 0)
    assert refused(throttle, "192.0.2.1", "k", 0) == 10 * S
    assert refused(throttle, "192.0.2.1", "another", 4 * S) == 6 * S
    assert not refused(throttle, "192.0.2.2", "k", 0)
    assert not refused(throttle, "192.0.2.1", "k", 10 * S)
    assert not refused(throttle, "192.0.2.1", "k", 10 * S)  # looking is not failing


def test_a_keys_own_limit_does_not_lock_its_owner_out() -> None:
    throttle = LogonThrottle(GatewayConfig(logon_failures_per_ip=100, logon_failures_per_key=2))
    throttle.succeeded("192.0.2.9", "k")
    for host in range(4):
        throttle.failed(f"192.0.2.{host}", "k", 0)
    assert refused(throttle, "192.0.2.100", "k", 0)
    assert not refused(throttle, "192.0.2.9", "k", 0)
    throttle.failed("192.0.2.9", "k", 0)  # who fails is trusted no longer
    assert refused(throttle, "192.0.2.9", "k", 0)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.booleans()), max_size=200))
def test_what_is_remembered_has_a_limit(tries: list[tuple[int, int, bool]]) -> None:
    throttle = LogonThrottle(GatewayConfig(throttle_entries=5))
    for ip, key, good in tries:
        if good:
            throttle.succeeded(f"192.0.2.{ip}", str(key))
        else:
            throttle.failed(f"192.0.2.{ip}", str(key), 0)
    assert max(len(throttle._by_ip), len(throttle._by_key), len(throttle._trusted)) <= 5


def test_readiness() -> None:
    readiness = Readiness()
    assert readiness.page() == {"ready": False, "why": "recovering"}
    readiness.is_open = True
    readiness.look(0, 10, 0)
    assert readiness.page() == {"ready": True}
    readiness.look(1 * S, 10, 3)
    readiness.look(6 * S, 10, 3)
    assert readiness.why_not() == "the log does not move"
    readiness.look(7 * S, 11, 3)
    assert readiness.why_not() is None
    readiness.look(60 * S, 11, 0)  # nothing waits, so nothing has to move
    assert readiness.why_not() is None
    readiness.is_stopping = True
    assert readiness.why_not() == "stopping"
