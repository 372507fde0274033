"""The metric of networks."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


def refused_addresses(registry: CollectorRegistry) -> Counter:
    return Counter("gateway_addresses_refused", "Requests that allow or deny refused.", registry=registry)
