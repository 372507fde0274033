"""The configuration of redirects."""

from __future__ import annotations

from attrs import frozen

from apigw.config.model import Config, Route

STATUSES = (301, 302, 303, 307, 308)


@frozen
class Redirect:
    to: str
    status: int = 302


@frozen
class RedirectOfRoute:
    redirect: Redirect | None = None


@frozen
class HttpsRedirect:
    port: int = 443


@frozen
class RedirectOfGateway:
    https_redirect: bool | HttpsRedirect = False


def redirect_of(route: Route) -> Redirect | None:
    return route.of(RedirectOfRoute).redirect


def https_port(config: Config) -> int | None:
    """The port to which plain requests are redirected; None if they are served."""
    held = config.gateway.of(RedirectOfGateway).https_redirect
    if isinstance(held, HttpsRedirect):
        return held.port
    return HttpsRedirect().port if held else None
