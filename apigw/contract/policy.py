"""What a policy is: a folder under ``policy/`` that gives routes what they demand.

A ``Policy`` is made once in a process. ``prepare`` makes it ready for one configuration, and may be asked for each
route what it adds there. Nothing here is on a request's way: what is, are the stages and hooks that a part holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from attrs import frozen
from twisted.web.resource import IResource

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.contract.exchange import Hook, OnRefusal, Route, Stage
from apigw.routing.router import Router

POSITIONS = ("access", "before_auth", "auth", "after_auth", "limit", "after_limit")
"""Where stages stand, from first to last. Within a position they come in the order of the policies."""


@frozen(eq=False)
class Part:
    """What a policy adds to one route."""

    stages: Mapping[str, Stage] = {}
    """By their position, one of ``POSITIONS``."""
    hooks: tuple[Hook, ...] = ()
    on_refusal: tuple[OnRefusal, ...] = ()
    stripped: frozenset[bytes] = frozenset()
    """Names, in lower case, of fields of the request that do not reach the service."""


@frozen(eq=False)
class OwnRoute:
    """Requests that a policy answers by itself, where no route of the configuration takes them."""

    pattern: str
    methods: frozenset[bytes]
    part: Part


NOTHING = Part()


class Prepared:
    """A policy, ready for one configuration. Nothing of it can fail any more."""

    def part(self, route: RouteConfig) -> Part:
        """What it adds to a route."""
        return NOTHING

    def own_routes(self) -> Iterable[OwnRoute]:
        return ()

    def routed(self, router: Router[Route]) -> None:
        """Every route is compiled: this is where requests will find them."""

    def resources(self) -> Mapping[str, IResource]:
        """What it answers on the public listeners, by path. These are among ``config``'s reserved paths."""
        return {}

    def adopt(self, previous: Prepared | None) -> None:
        """This configuration is in force from now on, in place of ``previous``, which may be this one."""


class Policy:
    """Made by the program, once; ``name`` is that of its folder."""

    name: ClassVar[str]

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> Prepared:
        """Make it ready for ``config``, in any thread, opening nothing and changing nothing.

        ``previous`` is what it prepared last, or None, for what is the same in both; ``others`` is what the policies
        before it in the list have prepared. Raises ``ConfigError`` for what only shows now.
        """
        return Prepared()
