"""The settings of a route, where its service or the gateway has the default.

Used by ``apigw routes`` and by the compiled snapshot.
"""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import UNSET, Config, Route, Service


@frozen
class Effective:
    """The settings of a route: ``timeout``, and ``stream_timeout`` in its place for streams, in seconds;
    ``max_body_size`` in bytes, ``None`` for no limit."""

    service: Service
    timeout: float
    stream_timeout: float
    max_body_size: int | None
    buffer_body: int


def effective(config: Config, route: Route, service: Service) -> Effective:
    """The settings of ``route``, whose service is ``service``."""
    gateway = config.gateway
    return Effective(
        service=service,
        timeout=route.timeout or service.timeout or gateway.request_timeout,
        stream_timeout=route.timeout or service.timeout or gateway.stream_idle_timeout,
        max_body_size=gateway.max_body_size if route.max_body_size == UNSET else route.max_body_size,
        buffer_body=route.buffer_body,
    )
