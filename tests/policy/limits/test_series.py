"""What operators see of limits."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from support.limits import limit

from apigw.policy.limits.series import Kept, LimitSeries


def test_zero_is_there_before_the_first_violation() -> None:
    """``rate()`` sees it, because the series began at zero."""
    registry = CollectorRegistry()
    LimitSeries(registry).retain(Kept.of([limit(endpoint="/a", scope="user")]))
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
    old, kept, raised = limit(endpoint="/old"), limit(endpoint="/kept"), limit(9, endpoint="/kept")
    series.retain(Kept.of([old, kept, limit(endpoint="/kept", scope="user")]))
    series.violated(old)
    series.violated(kept)
    series.retain(Kept.of([raised]))
    assert (series.violations(old), series.violations(raised)) == (0, 1)
    series.violated(raised)
    assert series.violations(raised) == 2
    labels = [dict(zip(("endpoint", "kind", "scope"), each.series, strict=True)) for each in (old, raised)]
    found = [registry.get_sample_value("gateway_rate_limit_violations_total", each) for each in labels]
    assert found == [None, 2]


def test_a_dry_run_is_told_apart() -> None:
    """What would have been refused is counted in a family of its own."""
    registry = CollectorRegistry()
    series = LimitSeries(registry)
    dry = limit(endpoint="/a", dry_run=True)
    series.retain(Kept.of([dry, limit(endpoint="/a", scope="user")]))
    series.violated(dry)
    labels = {"endpoint": "/a", "kind": "rate", "scope": "ip"}
    assert registry.get_sample_value("gateway_rate_limit_dry_run_violations_total", labels) == 1
    assert registry.get_sample_value("gateway_rate_limit_violations_total", labels) is None
    assert series.violations(dry) == 1


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
