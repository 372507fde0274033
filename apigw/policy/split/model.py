"""The configuration of splits."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Gateway, Route, Secret


@frozen
class SplitBy:
    """The name of a header, or of a cookie."""

    header: str | None = None
    cookie: str | None = None


@frozen
class SplitOfRoute:
    """``split``: services with their weights. ``split_by`` is None for each request by itself, or ``principal``."""

    split: tuple[tuple[str, int], ...] | None = None
    split_by: str | SplitBy | None = None


@frozen
class CookieSecretOfGateway:
    """The content of ``cookie_secret_file`` is in ``cookie_secret``: one secret a line."""

    cookie_secret: Secret | None = None


def split_of(route: Route) -> SplitOfRoute | None:
    held = route.of(SplitOfRoute)
    return None if held.split is None else held


def services_of(route: Route) -> tuple[str, ...]:
    """The services that may get the requests of a route; none if the gateway answers them."""
    split = split_of(route)
    if split is not None and split.split is not None:
        return tuple(name for name, _ in split.split)
    return () if route.service is None else (route.service,)


def secrets_of(gateway: Gateway) -> tuple[bytes, ...]:
    """Those that sign cookies: the first does, all are accepted."""
    held = gateway.of(CookieSecretOfGateway).cookie_secret
    return () if held is None else tuple(line for line in held.value.split() if line)
