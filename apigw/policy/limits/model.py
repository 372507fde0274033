"""The configuration of rate limits."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Config


@frozen
class RateLimit:
    """``scope``: user, ip, endpoint. ``algorithm``: auto, log, counter. ``on_store_failure``: local, open, closed."""

    endpoint: str
    limit: int
    window: float
    scope: str
    algorithm: str = "auto"
    on_store_failure: str = "local"


@frozen
class LimitsSection:
    rate_limits: tuple[RateLimit, ...] = ()


def rate_limits_of(config: Config) -> tuple[RateLimit, ...]:
    return config.of(LimitsSection).rate_limits
