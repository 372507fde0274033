"""The configuration of CORS."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Route


@frozen
class Cors:
    origins: tuple[str, ...]
    credentials: bool = False
    max_age: float = 600.0
    allow_headers: tuple[str, ...] | None = None
    """None allows all headers that a page asks for."""
    expose_headers: tuple[str, ...] = ()


@frozen
class CorsOfRoute:
    cors: Cors | None = None


def cors_of(route: Route) -> Cors | None:
    return route.of(CorsOfRoute).cors
