"""The configuration of rate limits."""

from __future__ import annotations

from attrs import field, frozen

from apigw.config.model import Config

UNMATCHED = "unmatched"
"""The ``endpoint`` of a limit for requests that match no route."""


@frozen
class RateLimit:
    """Either ``limit`` and ``window``, or ``concurrent``. Without ``hosts``, for all.

    ``scope``: user, ip, endpoint. ``algorithm``: auto, log, counter. ``on_store_failure``: local, open, closed.
    """

    endpoint: str
    limit: int | None = None
    window: float | None = None
    scope: str = field(kw_only=True)
    algorithm: str = "auto"
    on_store_failure: str = "local"
    concurrent: int | None = None
    hosts: tuple[str, ...] = ()

    @property
    def named(self) -> str:
        """What it limits, in words: its hosts and its endpoint."""
        return ",".join(self.hosts) + (" " if self.hosts and self.endpoint == UNMATCHED else "") + self.endpoint


@frozen
class LimitsSection:
    rate_limits: tuple[RateLimit, ...] = ()


def rate_limits_of(config: Config) -> tuple[RateLimit, ...]:
    return config.of(LimitsSection).rate_limits
