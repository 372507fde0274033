"""The policy of splits: several services for one route."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from random import random
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.choice import Choice
from apigw.contract.policy import NOTHING, Context, Part, Policy, Prepared
from apigw.policy.split.choice import AtRandom, ByCookie, ByHeader, ByPrincipal, Random
from apigw.policy.split.cookie import Cookie
from apigw.policy.split.model import SplitBy, secrets_of, split_of
from apigw.policy.split.rules import RULES
from apigw.policy.split.series import SplitSeries


class SplitPolicy(Policy):
    name = "split"
    rules = RULES

    def __init__(self, context: Context) -> None:
        self._series = SplitSeries(context.metrics.registry)

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> Generator[None, None, Prepared]:
        kept: set[tuple[str, str]] = set()
        for route in config.routes:
            held = split_of(route)
            if held is not None:
                kept.update((route.name, service) for service, _ in held.split or ())
            yield
        return PreparedSplit(secrets_of(config.gateway), self._series, kept)


class PreparedSplit(Prepared):
    """``secrets`` sign cookies. ``kept`` are routes and services, by their names."""

    def __init__(
        self, secrets: tuple[bytes, ...], series: SplitSeries, kept: set[tuple[str, str]], random: Random = random
    ) -> None:
        self._secrets = secrets
        self._series = series
        self._kept = kept
        self._random = random

    def part(self, route: RouteConfig) -> Part:
        # With a service it is one of those to choose from.
        held = split_of(route) if route.service is None else None
        if held is None or held.split is None:
            return NOTHING
        return Part(choice=self._choice(route.name, held.split, held.split_by))

    def keep_series(self) -> None:
        self._series.retain(self._kept)

    def _choice(self, route: str, weights: tuple[tuple[str, int], ...], by: str | SplitBy | None) -> Choice:
        count = [self._series.of(route, service).inc for service, _ in weights]

        def chosen(number: int) -> None:
            count[number]()

        if by is None:
            return AtRandom(weights, self._random, chosen)
        if isinstance(by, str):
            return ByPrincipal(weights, self._random, chosen)
        if by.cookie is not None:
            cookie = Cookie(by.cookie.encode("ascii"), self._secrets)
            return ByCookie(weights, self._random, chosen, cookie)
        assert by.header is not None
        return ByHeader(weights, self._random, chosen, by.header.lower().encode("ascii"))
