"""The policy that changes requests and answers: path, host, headers."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.exchange import Hook, Stage
from apigw.contract.policy import NOTHING, Part, Policy, Prepared
from apigw.contract.principal import IDENTITY
from apigw.policy.transform.fields import fields_of
from apigw.policy.transform.model import transform_of
from apigw.policy.transform.rules import RULES
from apigw.policy.transform.stage import PREFIX, Path, Rewritten, ToClient, ToService, WithoutPrefix
from apigw.policy.transform.syntax import of_caller
from apigw.policy.transform.template import Template, compiled
from apigw.routing.configured import keeps_of
from apigw.routing.pattern import Pattern

OURS = IDENTITY | {b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"}
"""Fields that the gateway itself adds to requests, and rules may remove or replace."""


class TransformPolicy(Policy):
    name = "transform"
    rules = RULES

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> Generator[None, None, Prepared]:
        """Find the fields that say who calls: on every route they are taken from clients, who could forge them."""
        of_callers: set[bytes] = set()
        for route in config.routes:
            for name, value in transform_of(route).request_headers.written:
                if of_caller(value):
                    of_callers.add(name.lower().encode("ascii"))
            yield
        return PreparedTransform(frozenset(of_callers), config.gateway.max_header_size)


class PreparedTransform(Prepared):
    """``of_callers`` are names of fields, in lower case; ``most`` bytes may be taken from an exchange into fields."""

    def __init__(self, of_callers: frozenset[bytes], most: int) -> None:
        self._of_callers = of_callers
        self._most = most
        self._otherwise = Part(stripped=of_callers) if of_callers else NOTHING

    def part(self, route: RouteConfig) -> Part:
        holds = transform_of(route)
        stripped = self._of_callers | holds.request_headers.gone
        stages: dict[str, Stage] = {}
        hooks: tuple[Hook, ...] = ()
        pattern = Pattern.parse(route.path)
        if route.service is not None:
            path = _path(route, pattern)
            if path is not None:
                stripped |= {PREFIX}
            host = None if holds.rewrite is None else _template(holds.rewrite.host, pattern)
            fields = fields_of(holds.request_headers.written, pattern, self._most)
            withheld, dropped = OURS & holds.request_headers.gone, holds.response_headers.gone
            if path is not None or host is not None or fields or withheld or dropped:
                stages["after_limit"] = ToService(path, host, fields, withheld, dropped)
        if holds.response_headers.written or holds.response_headers.gone:
            fields = fields_of(holds.response_headers.written, pattern, self._most)
            hooks = (ToClient(fields, holds.response_headers.gone),)
        if not stages and not hooks and stripped == self._of_callers:
            return self._otherwise
        return Part(stages=stages, hooks=hooks, stripped=stripped)


def _path(route: RouteConfig, pattern: Pattern) -> Path | None:
    rewrite = transform_of(route).rewrite
    if rewrite is not None and rewrite.path is not None:
        return Rewritten(compiled(rewrite.path, pattern, encoded=True), "?" in rewrite.path, keeps_of(route))
    prefix = (route.strip_prefix or "").strip("/")
    return WithoutPrefix(prefix.count("/") + 1) if prefix else None


def _template(text: str | None, pattern: Pattern) -> Template | None:
    return None if text is None else compiled(text, pattern)
