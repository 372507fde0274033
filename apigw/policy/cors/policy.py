"""The policy of CORS."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.exchange import Route
from apigw.contract.policy import NOTHING, OwnRoute, Part, Policy, Prepared
from apigw.policy.cors.cors import AnswerPages, Preflight
from apigw.policy.cors.model import cors_of
from apigw.policy.cors.rules import RULES
from apigw.routing.pattern import Pattern
from apigw.routing.router import Router


class CorsPolicy(Policy):
    name = "cors"
    rules = RULES

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> Generator[None, None, Prepared]:
        for route in config.routes:
            if cors_of(route):
                return PreparedCors(config)
            yield
        return Prepared()


class PreparedCors(Prepared):
    """Answers preflights for every path of a route with ``cors``, also if another route serves OPTIONS there."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._preflight = Preflight()
        self._asked = Part(stages={"access": self._preflight})

    def part(self, route: RouteConfig) -> Part:
        serves_options = route.methods is None or "OPTIONS" in route.methods
        cors = cors_of(route)
        if cors is None:
            return self._asked if serves_options else NOTHING
        stages = self._asked.stages if serves_options else {}
        return Part(stages=stages, hooks=(AnswerPages(cors),))

    def own_routes(self) -> Iterator[OwnRoute]:
        seen: set[object] = set()
        for route in self._config.routes:
            if cors_of(route):
                shape = Pattern.parse(route.path).shape
                for host in route.hosts or ("",):
                    if (shape, host) not in seen:
                        seen.add((shape, host))
                        hosts = (host,) if host else ()
                        yield OwnRoute(route.path, frozenset({b"OPTIONS"}), self._asked, hosts)

    def routed(self, router: Router[Route]) -> None:
        self._preflight.router = router
