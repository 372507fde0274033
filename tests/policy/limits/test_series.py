"""What operators see of limits."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from support.limits import limit

from apigw.policy.limits.series import LimitSeries


def test_zero_is_there_before_the_first_violation() -> None:
    """``rate()`` sees it, because the series began at zero."""
    registry = CollectorRegistry()
    LimitSeries(registry).retain({("/a", "rate", "user")})
    assert (
        registry.get_sample_value(
            "gateway_rate_limit_violations_total", {"endpoint": "/a", "kind": "rate", "scope": "user"}
        )
        == 0
    )


def test_a_reload_keeps_the_counts_of_what_it_keeps() -> None:
    """Limits that are gone leave the scrape."""
    registry = CollectorRegistry()
    series = LimitSeries(registry)
    series.retain({("/old", "rate", "ip"), ("/kept", "rate", "ip"), ("/kept", "rate", "user")})
    series.violated(limit(endpoint="/old"))
    series.violated(limit(endpoint="/kept"))
    series.retain({("/kept", "rate", "ip")})
    assert series.violations() == {("/kept", "rate", "ip"): 1}
    series.violated(limit(endpoint="/kept"))
    assert series.violations() == {("/kept", "rate", "ip"): 2}


def test_the_store_shows_how_it_is() -> None:
    """Up until it is known not to be; what was decided without it is counted."""
    registry = CollectorRegistry()
    series = LimitSeries(registry)
    assert registry.get_sample_value("gateway_rate_limit_store_up") == 1
    series.store_up(False)
    series.fallback()
    assert registry.get_sample_value("gateway_rate_limit_store_up") == 0
    assert series.fallbacks() == 1
    series.store_up(True)
    assert registry.get_sample_value("gateway_rate_limit_store_up") == 1
