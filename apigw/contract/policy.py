"""What a policy is: a folder under ``policy/`` that gives routes what they demand.

A ``Policy`` is made once in a process, from a ``Context``. ``prepare`` makes it ready for one configuration, and may be
asked for each route what it adds there. Nothing here is on a request's way: what is, are the stages and hooks that a
part holds. docs/explanation/policies.md shows how one is built.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.config.rules import Rules
from apigw.contract.exchange import Hook, OnLasting, OnRefusal, Route, Screen, Stage
from apigw.ops.metrics import Metrics
from apigw.ops.readiness import Check
from apigw.redis.link import RedisLink
from apigw.routing.router import Router
from apigw.wire.deadlines import Deadlines
from apigw.wire.request import Request

POSITIONS = ("access", "before_auth", "auth", "after_auth", "limit", "after_limit")
"""Where stages stand, from first to last. Within a position they come in the order of the policies."""

Fetch = Callable[[str], Awaitable[tuple[bytes, Mapping[str, str]]]]
"""GET a URL: the body of a 200 answer and its headers, by lower-case names. Raises for every other outcome."""


@frozen(eq=False)
class Context:
    """What a policy may use of the program. Nothing of it runs before the program has started.

    A policy keeps what it uses, and not the whole: the first configuration may be large, and ends with its reload.
    """

    reactor: Any
    now: Callable[[], float]
    """Unix time in seconds: for tokens, and what clients are told."""
    config: Config
    """The first configuration. What holds at any moment is what ``Policy.prepare`` was given last."""
    deadlines: Deadlines
    metrics: Metrics
    fetch: Callable[[int], Fetch]
    """Makes what fetches documents of at most so many bytes."""
    client_address: Callable[[Request], bytes]
    """The client's, behind trusted proxies; empty for the peer of a unix socket. It may be asked once requests come."""
    redis: RedisLink | None
    """Where ``redis`` is configured. The program starts it before the policies, and stops it after them."""

    @property
    def seconds(self) -> Callable[[], float]:
        """The reactor's clock, which is monotonic: for deadlines and durations."""
        seconds: Callable[[], float] = self.reactor.seconds
        return seconds


@frozen(eq=False)
class Part:
    """What a policy adds to one route."""

    stages: Mapping[str, Stage] = {}
    """By their position, one of ``POSITIONS``."""
    hooks: tuple[Hook, ...] = ()
    on_refusal: tuple[OnRefusal, ...] = ()
    screens: tuple[Screen, ...] = ()
    """What a stage of another policy asks before it does something dear for a caller who is not known."""
    on_lasting: tuple[OnLasting, ...] = ()
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
    """A policy, ready for one configuration. What is here is what one does that has nothing to add.

    All but ``part``, ``own_routes`` and ``routed``, which belong to its compilation, is called in the reactor's thread
    while the configuration is in force. Nothing may raise: all that can fail was done by ``Policy.prepare``.
    """

    def part(self, route: RouteConfig) -> Part:
        """What it adds to a route of the configuration."""
        return NOTHING

    def own_routes(self) -> Iterable[OwnRoute]:
        """What it answers by itself, in addition to the routes."""
        return ()

    def routed(self, router: Router[Route]) -> None:
        """Every route is compiled: this is where requests will find them."""

    def adopt(self, previous: Prepared | None) -> None:
        """This configuration is in force from now on, in place of ``previous``, which may be this one.

        The policy has been started. Called before anything that follows here.
        """

    def resources(self) -> Mapping[str, IResource]:
        """What it answers on the public listeners, by path: the paths that its ``rules`` reserve."""
        return {}

    def admin_resources(self) -> Mapping[str, IResource]:
        """What operators are shown on the admin listener, by path. The gateway's own paths there are not replaced."""
        return {}

    def checks(self) -> Mapping[str, Check]:
        """What must hold for the gateway to be ready, by the name under which ``/ready`` tells operators of it."""
        return {}

    def keep_series(self) -> None:
        """Make the metrics have the series of this configuration, and drop those of others.

        Called with ``adopt``, and again when a reload has ended, since a configuration that was refused may have made
        some.
        """


class Policy:
    """Made by the program, once, in the order of ``policy.all.POLICIES``."""

    name: ClassVar[str]
    """That of its folder."""
    rules: ClassVar[Rules] = Rules()
    """What a configuration may say to it: its keys, their forms, its checks, the paths that it reserves."""

    def __init__(self, context: Context) -> None:
        """Open nothing, start no thread and log nothing: ``apigw check`` makes every policy, and starts none.

        Raises ``ConfigError`` for a first configuration that it cannot be made for.
        """

    def start(self) -> Deferred[None] | None:
        """The program starts: after what is in the context and the policies before this one, before it listens.

        Nothing waits for the Deferred, which must not fail. What is raised ends the program.
        """

    def stop(self) -> Deferred[None] | None:
        """The program ends: no exchange is left, and the policies after this one have stopped.

        The program waits for the Deferred. A failure is logged, and hinders no other part.
        """

    def prepare(self, config: Config, previous: Any, others: Mapping[str, Prepared]) -> Prepared:
        """Make it ready for ``config``, in any thread, opening nothing and changing nothing.

        ``previous`` is what it prepared last, or None, for what is the same in both; ``others`` is what the policies
        before it in the list have prepared. Raises ``ConfigError`` for what only shows now.
        """
        return Prepared()
