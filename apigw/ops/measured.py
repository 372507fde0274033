# Compiled: see docs/decisions/compiled.md
"""Metrics of what is there at a scrape: bytes of bodies, connections to services, and the ends of certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


class Bodies:
    """Bytes of bodies of clients' requests and of their answers, without those of tunnels."""

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "gateway_body_bytes", "Bytes of bodies, from clients (in) and to clients (out).", labels=["direction"]
        )
        family.add_metric(["in"], self.received)
        family.add_metric(["out"], self.sent)
        yield family


class Pools:
    """Connections to services, and requests that wait for one."""

    def __init__(self, count: Callable[[], Iterable[tuple[str, int, int]]]) -> None:
        """``count``: name of each service, its connections, and how many requests wait. Called in a thread."""
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        connections = GaugeMetricFamily(
            "gateway_upstream_connections", "Open connections to a service, but for tunnels.", labels=["service"]
        )
        waiting = GaugeMetricFamily(
            "gateway_upstream_waiting_requests", "Requests that wait for a connection.", labels=["service"]
        )
        for name, open_, wait in self._count():
            connections.add_metric([name], open_)
            waiting.add_metric([name], wait)
        yield connections
        yield waiting


class Certificates:
    """When the certificates of listeners end."""

    def __init__(self, ends: Callable[[], Mapping[str, float]]) -> None:
        """``ends``: Unix time by name. Called in a thread."""
        self._ends = ends

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "gateway_certificate_expires_seconds",
            "Unix time at which the certificate that is used for a name ends.",
            labels=["name"],
        )
        for name, end in self._ends().items():
            family.add_metric([name], end)
        yield family
