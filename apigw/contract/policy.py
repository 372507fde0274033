"""The contract of policies: features that a route may demand, each in a folder under ``policy/``.

A ``Policy`` is made once in a process, from a ``Context``. For each configuration, ``prepare`` returns a ``Prepared``,
whose ``part`` is called for each route. The stages and hooks of these parts process requests; nothing in this module
does. docs/explanation/policies.md has an example.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.web.iweb import IAgent
from twisted.web.resource import IResource

from apigw.config.model import Config
from apigw.config.model import Route as RouteConfig
from apigw.config.rules import Rules
from apigw.contract.bodies import BodyHook
from apigw.contract.choice import Choice, Chooser
from apigw.contract.exchange import Hook, OnLasting, OnRefusal, Route, Screen, Stage
from apigw.contract.machine import Machine
from apigw.contract.view_shared import Bodies
from apigw.ops.audit_log import Audit
from apigw.ops.metrics import Metrics
from apigw.ops.readiness import Check
from apigw.redis.link import RedisLink
from apigw.routing.router import Router
from apigw.shared.page import Page
from apigw.wire.deadlines import Deadlines
from apigw.wire.request import Request
from apigw.wire.web_request import WebRequest

POSITIONS = ("access", "before_auth", "auth", "after_auth", "limit", "after_limit")
"""The positions of stages, in the order in which they run. At one position, they run in the order of the policies."""

Fetch = Callable[[str], Awaitable[tuple[bytes, Mapping[str, str]]]]
"""Fetches a URL with GET. Returns the body of a 200 answer, and its headers by lower-case names. Raises otherwise."""


@frozen(eq=False)
class Context:
    """The parts of the program that a policy may use. None of them runs before the program has started.

    A policy keeps the parts that it uses, and not the context: that would keep the first configuration in memory.
    """

    reactor: Any
    now: Callable[[], float]
    """Unix time in seconds: for tokens, and times that clients get."""
    config: Config
    """The first configuration. Later ones are passed to ``Policy.prepare``."""
    deadlines: Deadlines
    metrics: Metrics
    agent: IAgent
    """For requests of the gateway's own, by treq."""
    fetch: Callable[[int], Fetch]
    """Makes a ``Fetch`` for documents of at most this many bytes."""
    bodies: Bodies
    """Reads whole bodies of requests."""
    client_address: Callable[[Request], bytes]
    """The client's, behind trusted proxies; ``unix:`` for a unix socket's peer. It may be asked once requests come."""
    set_guard: Callable[[Stage | None], object]
    """Has a stage run before each stage of every exchange, from now on; or none. At the first, ``Exchange.at`` is 0."""
    audit: Audit
    """Notes events for the audit log, where there is one."""
    may_write: Callable[[WebRequest], object]
    """Raises the refusal of a request on the admin listener that may change nothing."""
    redis: RedisLink | None
    """The link to Redis, if ``redis`` is configured. It is started before the policies, and stopped after them."""
    machine: Machine
    """The workers, for what operators ask a policy: its answer is to be that of all."""
    page: Page | None = None
    """The memory that the workers share, if there are several."""

    @property
    def seconds(self) -> Callable[[], float]:
        """The reactor's clock, in seconds, monotonic: for deadlines and durations."""
        seconds: Callable[[], float] = self.reactor.seconds
        return seconds


@frozen(eq=False)
class Part:
    """What a policy adds to one route."""

    stages: Mapping[str, Stage | tuple[Stage, ...]] = {}
    """A stage for each position, or several, by its name in ``POSITIONS``."""
    hooks: tuple[Hook, ...] = ()
    """Run for each answer, in the order of the policies."""
    on_refusal: tuple[OnRefusal, ...] = ()
    """Run when a request is refused, in the order of the policies."""
    screens: tuple[Screen, ...] = ()
    """What a stage of another policy asks before it does something costly for a caller who is not known."""
    on_lasting: tuple[OnLasting, ...] = ()
    """Run when an exchange becomes a tunnel or an event stream, or is a call of gRPC that has run for a minute."""
    stripped: frozenset[bytes] = frozenset()
    """Names, in lower case, of the client's fields that do not reach the service. Other spellings do not, either: they
    are compared with every byte that is neither a letter nor a digit as ``-``."""
    on_request_body: tuple[BodyHook, ...] = ()
    on_answer_body: tuple[BodyHook, ...] = ()
    """Get the pieces of bodies, in the order of the policies."""
    choosers: tuple[Chooser, ...] = ()
    """Are asked in their order before a service or target is chosen."""
    choice: Choice | None = None
    """For a route without a service: chooses it, after all stages. Stages that policies add to the route with that
    service, and not to the route without one, run after the choice: those at other positions, and of several at one
    position, those that are other objects."""
    answer: Stage | None = None
    """For a route without a service: it runs after all other stages, and must answer or refuse."""


@frozen(eq=False)
class OwnRoute:
    """A route of the policy itself, for requests that match no route of the configuration.

    ``part`` has the stages, one of which must answer.
    """

    pattern: str
    methods: frozenset[bytes]
    part: Part
    hosts: tuple[str, ...] = ()
    """As those of ``RouteConfig``; without any, for hosts that no route of a policy names."""


NOTHING = Part()


class Prepared:
    """What a policy has compiled from one configuration. The methods here add nothing; a policy overrides some.

    ``part``, ``unmatched``, ``own_routes`` and ``routed`` are called during the compilation, the others while the
    configuration is in use. All are called in the reactor's thread. No method may raise: ``Policy.prepare`` does all
    that can fail.
    """

    def part(self, route: RouteConfig) -> Part:
        """What the policy adds to a route of the configuration; ``NOTHING`` if the route does not demand it.

        A route that is written with several paths is as many routes, each with one ``path`` and the same ``name``.
        """
        return NOTHING

    def unmatched(self) -> Part:
        """What it adds to requests that match no route, before they are answered with 404 or 405.

        A stage at ``access`` runs for the own routes of all policies, too.
        """
        return NOTHING

    def admit(self, address: bytes, is_certain: bool) -> None:
        """A request for a resource on a public listener; ``address`` is the client's, as ``Peers`` finds it.

        Raises the ``GatewayError`` for a client that may get nothing. Not called for ``/health`` and ``/ready``.
        """

    def own_routes(self) -> Iterable[OwnRoute]:
        """Routes in addition to those of the configuration."""
        return ()

    def routed(self, router: Router[Route]) -> None:
        """All routes are compiled. ``router`` finds the route of a request."""

    def adopt(self, previous: Prepared | None) -> None:
        """From now on this configuration is in use, instead of ``previous`` (``None`` for the first one).

        Called after ``Policy.start``, and before the following methods. ``previous`` may be this object.
        """

    def resources(self) -> Mapping[str, IResource]:
        """Resources on the public listeners, by their paths. ``Policy.rules`` must reserve these paths."""
        return {}

    def admin_resources(self) -> Mapping[str, IResource]:
        """Resources on the admin listener, by their paths. They cannot replace the gateway's own resources."""
        return {}

    def checks(self) -> Mapping[str, Check]:
        """Readiness checks, by the names that ``/ready`` on the admin listener shows."""
        return {}

    def authorities(self) -> Sequence[str]:
        """PEM files with the authorities whose certificates of clients it takes. Handshakes take these on listeners
        that ask for certificates, and name no authorities themselves."""
        return ()

    def keep_series(self) -> None:
        """Create the metric series of this configuration, and remove all others of this policy.

        Called after ``adopt``, and again after each reload, because a refused configuration may have created series.
        """


class Policy:
    """A policy. The program makes each one once, in the order of ``policy.all.POLICIES``."""

    name: ClassVar[str]
    """The name of its folder."""
    rules: ClassVar[Rules] = Rules()
    """Its part of the configuration: keys, forms of values, checks across keys, and reserved paths."""

    def __init__(self, context: Context) -> None:
        """Must not open files or connections, start threads, or log: ``apigw check`` makes all policies, too.

        Raises ``ConfigError`` if the policy cannot be made for the first configuration.
        """

    @classmethod
    def share(cls, config: Config, page: Page) -> None:
        """Workers are about to be forked: have in the page what each of them would otherwise make for itself.

        Called in their master, once. Must not fail; what is not in the page, workers make.
        """

    def start(self) -> Deferred[None] | None:
        """The program starts. Called after the start of the context's parts and of earlier policies, before listening.

        The program does not wait for the Deferred, which must not fail. An exception ends the program.
        """

    def stop(self) -> Deferred[None] | None:
        """The program ends. Called when there are no more exchanges and later policies have stopped.

        The program waits for the Deferred. A failure is logged; other parts still stop.
        """

    def prepare(
        self, config: Config, previous: Any, others: Mapping[str, Prepared]
    ) -> Prepared | Generator[None, None, Prepared]:
        """Compile ``config``. Must not open anything or change state.

        Requests wait meanwhile, as for each ``Prepared.part``: one that may take more than a millisecond, as it looks
        at every route, is a generator that yields often, and returns what it has prepared.

        ``previous`` is the policy's ``Prepared`` that is in use, or ``None``; parts that did not change can be reused.
        ``others`` are those of the policies before it, by name. Raises ``ConfigError`` to refuse the configuration.
        """
        return Prepared()
