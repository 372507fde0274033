"""The policy of redirects: of routes, and of plain requests to https."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import NOTHING, Part, Policy, Prepared
from apigw.policy.redirect.location import Location
from apigw.policy.redirect.model import Redirect, https_port, redirect_of
from apigw.policy.redirect.rules import RULES
from apigw.policy.redirect.stage import Redirected, ToHttps
from apigw.policy.transform.template import of_parts
from apigw.routing.pattern import Pattern


class RedirectPolicy(Policy):
    name = "redirect"
    rules = RULES

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedRedirect:
        return PreparedRedirect(https_port(config))


class PreparedRedirect(Prepared):
    def __init__(self, port: int | None) -> None:
        """``port`` is that of https, if plain requests are redirected there."""
        https = None if port is None else ToHttps(b"" if port == 443 else b":%d" % port)
        self._always = NOTHING if https is None else Part(stages={"access": https})

    def part(self, route: RouteConfig) -> Part:
        redirect = redirect_of(route)
        if redirect is None:
            return self._always
        return Part(stages=self._always.stages, answer=_redirected(redirect, Pattern.parse(route.path)))

    def unmatched(self) -> Part:
        return self._always


def _redirected(redirect: Redirect, pattern: Pattern) -> Redirected:
    location = Location.parse(redirect.to)
    return Redirected(
        redirect.status,
        location.scheme.encode(),
        of_parts(location.authority, pattern, encoded=True),
        of_parts(location.path or ("",), pattern, encoded=True),
        location.fragment.encode(),
        not location.has_query,
    )
