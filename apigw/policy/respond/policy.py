"""The policy of routes with a fixed answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.policy import NOTHING, Part, Policy, Prepared
from apigw.policy.respond.model import BODILESS, respond_of
from apigw.policy.respond.rules import RULES
from apigw.policy.respond.stage import Responded
from apigw.policy.transform.fields import fields_of
from apigw.routing.pattern import Pattern
from apigw.wire.headers import Headers


class RespondPolicy(Policy):
    name = "respond"
    rules = RULES

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> PreparedRespond:
        return PreparedRespond(config.gateway.max_header_size)


class PreparedRespond(Prepared):
    """``most`` bytes may be taken from an exchange into fields."""

    def __init__(self, most: int) -> None:
        self._most = most

    def part(self, route: RouteConfig) -> Part:
        respond = respond_of(route)
        if respond is None:
            return NOTHING
        body = respond.body.encode()
        headers: Headers = []
        if respond.status not in BODILESS:
            headers = [(b"content-length", b"%d" % len(body))]
            if body:
                headers.insert(0, (b"content-type", respond.content_type.encode()))
        fields = fields_of(respond.headers, Pattern.parse(route.path), self._most)
        return Part(answer=Responded(respond.status, headers, body, fields))
