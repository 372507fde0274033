"""What holds for a route once every default that is another setting has been looked up.

``apigw routes`` and the compiled snapshot both ask here.
"""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import UNSET, Config, Route, Service


@frozen
class Effective:
    """What holds for a route. ``max_body_size`` is ``None`` for no limit."""

    service: Service
    timeout: float
    max_body_size: int | None
    buffer_body: int


def effective(config: Config, route: Route, service: Service) -> Effective:
    """``service`` is the one that the route names."""
    gateway = config.gateway
    return Effective(
        service=service,
        timeout=route.timeout or service.timeout or gateway.request_timeout,
        max_body_size=gateway.max_body_size if route.max_body_size == UNSET else route.max_body_size,
        buffer_body=route.buffer_body,
    )
