"""What the gateway counts, for Prometheus. Counting is adding to an integer; everything else is read when it is asked for."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from gateway.gateway import Gateway

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counts:
    """What happened since the start."""

    __slots__ = ("batches", "closes", "commands", "errors", "events", "logons", "messages", "trades")

    def __init__(self) -> None:
        self.messages = 0
        self.batches = 0
        self.commands = 0
        self.events = 0
        self.trades = 0
        self.errors: Counter[str] = Counter()  # by name
        self.closes: Counter[int] = Counter()  # by close code
        self.logons: Counter[str] = Counter()  # accepted, or the name of the error


class GatewayCollector(Collector):
    """Reads a gateway when Prometheus asks."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    def collect(self) -> Iterable[Metric]:
        """All of it, with the prefix `wellhead_`."""
        gateway, counts = self._gateway, self._gateway.count()
        yield _counter("messages", "messages received", counts.messages)
        yield _counter("batches", "durable batches followed", counts.batches)
        yield _counter("commands", "commands in them", counts.commands)
        yield _counter("events", "events in them", counts.events)
        yield _counter("trades", "trades in them", counts.trades)
        yield _labelled("errors", "requests refused", "name", counts.errors)
        yield _labelled("closes", "connections that the server closed", "code", counts.closes)
        yield _labelled("logons", "log-ons by outcome", "outcome", counts.logons)
        yield _gauge("sessions", "websocket sessions", len(gateway.sessions))
        yield _gauge("logged_on", "sessions that are logged on", len(gateway.logons.by_key))
        yield _gauge("topics", "channel and symbol pairs that somebody holds", gateway.market.topic_count())
        yield _gauge("pending", "commands on their way", gateway.orders.pending)
        yield _gauge("sequence", "the last event applied", gateway.seq)
        yield _gauge("accounts", "accounts", len(gateway.projection.accounts))
        yield _gauge("instruments", "instruments listed", len(gateway.projection.instruments))
        buffered = sum(session.buffered() for session in list(gateway.sessions))
        yield _gauge("buffered_bytes", "bytes that clients have not taken", buffered)


def _counter(name: str, words: str, value: int) -> Metric:
    return CounterMetricFamily(f"wellhead_{name}", words, value)


def _gauge(name: str, words: str, value: int) -> Metric:
    return GaugeMetricFamily(f"wellhead_{name}", words, value)


def _labelled(name: str, words: str, label: str, values: Counter[str] | Counter[int]) -> Metric:
    family = CounterMetricFamily(f"wellhead_{name}", words, labels=[label])
    for value, count in list(values.items()):
        family.add_metric([str(value)], count)
    return family


class Metrics:
    """A registry of its own, so that several exchanges in one process do not mix. Others may register collectors too."""

    def __init__(self, gateway: "Gateway") -> None:
        self.registry = CollectorRegistry()
        self.registry.register(GatewayCollector(gateway))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def page(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self.registry)
