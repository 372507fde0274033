"""The metrics of authentication."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from apigw.policy.auth.series import RESULTS, AuthSeries


def test_the_questions_about_tokens() -> None:
    """Each provider of the configuration has its series, from 0 on; one that is taken away has none."""
    registry = CollectorRegistry()
    series = AuthSeries(registry)

    def counted(provider: str) -> list[float | None]:
        name = "gateway_introspections_total"
        return [registry.get_sample_value(name, {"provider": provider, "result": result}) for result in RESULTS]

    series.keep(["legacy"])
    series.introspected("legacy", "active")
    assert counted("legacy") == [1, 0, 0]
    series.keep(["other"])
    assert (counted("legacy"), counted("other")) == ([None, None, None], [0, 0, 0])
    series.introspected("legacy", "failed")  # asked before it was taken away
    series.keep(["other"])
    assert counted("legacy") == [None, None, None]
