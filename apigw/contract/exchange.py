# Compiled: see docs/decisions/compiled.md
"""An exchange (one request and its answer), and the stages and hooks of a route that process it.

Policies provide stages and hooks for a route (``policy.py``). ``proxy.pipeline`` runs them, in the reactor's thread.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Sequence, Set
from os import urandom
from typing import Any, Final

from mypy_extensions import i64, mypyc_attr

from apigw.contract.peers import Peers
from apigw.contract.principal import Principal
from apigw.contract.trace import Trace
from apigw.errors import GatewayError
from apigw.ops.series import RouteSeries
from apigw.wire.deadlines import NEVER
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Header, Headers, first
from apigw.wire.request import Request


@mypyc_attr(allow_interpreted_subclasses=True)
class Waiting:
    """A wait of an exchange, such as for a reply of Redis.

    It ends either by exactly one call of ``Exchange.resume`` or ``Exchange.fail``, or by ``cancel``.
    """

    def cancel(self) -> None:
        """The exchange is over: call neither ``resume`` nor ``fail``. Must not raise."""
        raise NotImplementedError


class Answer:
    """A complete answer of the gateway itself that is not an error, such as that to a CORS preflight.

    ``headers`` include ``Content-Length`` if there is a ``body``.
    """

    def __init__(self, status: int, headers: Headers, body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Head:
    """The head of an answer. Hooks may assign a new list to ``headers``.

    ``own``: whether the answer is the gateway's, and not the service's.
    """

    def __init__(self, status: int, headers: Headers, own: bool) -> None:
        self.status = status
        self.headers = headers
        self.own = own


DROPPED: Final = frozenset({b"x-request-id"})
"""Fields of a service's answer that are removed, because the gateway adds its own."""

NOTHING: frozenset[bytes] = frozenset()

_WELL_FORMED_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}").fullmatch

_SECURE: Final = frozenset({b"https", b"wss"})
"""Values of ``X-Forwarded-Proto``."""

Outcome = Answer | Waiting | None
"""The result of a stage: ``None`` to go on with the next stage, an answer, or a wait."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Stage:
    """One step in the processing of a request. One object serves all requests of its routes."""

    def run(self, exchange: Exchange) -> Outcome:
        """Process the request; see ``Outcome``.

        Raises ``GatewayError`` to refuse the request. Any other exception is logged, and answered with 500.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Hook:
    """Gets the head of every answer to a route's requests, errors included, before it is sent to the client."""

    def run(self, exchange: Exchange, head: Head) -> None:
        """Inspect ``head``, or change it. It cannot wait. If it raises, the answer is a 500 that no hook gets."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class OnRefusal:
    """Runs when a request is about to be refused, before anything is sent. Limits use it to count a 401."""

    def run(self, exchange: Exchange, error: GatewayError) -> Waiting | None:
        """Return ``None`` to leave the refusal as it is, or a wait.

        Raises a ``GatewayError`` to replace ``error``; after a wait, ``Exchange.fail`` replaces it.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Screen:
    """Runs before costly work for an unknown caller, such as the verification of a signature."""

    def run(self, exchange: Exchange) -> None:
        """Raises the ``GatewayError`` of a request that would be refused anyway. Must not count it."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class OnLasting:
    """Runs when an exchange becomes a tunnel or an event stream, or is a call of gRPC that has run for a minute: it may
    last for days."""

    def run(self, exchange: Exchange) -> None:
        """To end the exchange later, call ``exchange.driver.refuse``; no effect once it has ``ended``."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class AtEnd:
    """Frees a resource that a stage has taken for an exchange. The stage adds it to ``Exchange.at_end``."""

    def run(self, exchange: Exchange) -> None:
        """The exchange is over, however it ended. Called once; must not fail."""
        raise NotImplementedError


class Route:
    """A compiled route: how requests are processed that match ``pattern`` and ``methods`` (``None``: all methods).

    ``stages`` run in their order, and ``hooks`` for each answer. ``series`` are the route's metrics. ``name`` is for
    logs; it is empty for a route that is not in the configuration. ``logged``: whether its exchanges have a line there.
    ``chosen``: whether a ``Choice`` has led to it, and so to its service. ``on_request_body`` and ``on_answer_body``
    are ``contract.bodies.BodyHook``, ``choosers`` are ``contract.choice.Chooser``.
    """

    def __init__(
        self,
        pattern: str,
        methods: tuple[str, ...] | None,
        service: str | None,
        series: RouteSeries,
        stages: tuple[Stage, ...],
        hooks: tuple[Hook, ...] = (),
        on_refusal: tuple[OnRefusal, ...] = (),
        screens: tuple[Screen, ...] = (),
        on_lasting: tuple[OnLasting, ...] = (),
        name: str = "",
        logged: bool = True,
        chosen: bool = False,
        on_request_body: tuple[Any, ...] = (),
        on_answer_body: tuple[Any, ...] = (),
        choosers: tuple[Any, ...] = (),
    ) -> None:
        self.pattern = pattern
        self.name = name
        self.methods = methods
        self.service = service
        """The name of the service that gets the requests; ``None`` if the gateway answers them. Of one that is chosen
        for each exchange, the names of all."""
        self.series = series
        self.stages = stages
        self.hooks = hooks
        self.on_refusal = on_refusal
        self.screens = screens
        self.on_lasting = on_lasting
        self.logged = logged
        self.chosen = chosen
        self.on_request_body = on_request_body
        self.on_answer_body = on_answer_body
        self.choosers = choosers


class Call:
    """A gRPC call. ``deadline`` is its client's, in seconds of the reactor, or ``NEVER``; ``status`` is the
    ``grpc-status`` of its answer, None while there is none.
    """

    def __init__(self) -> None:
        self.deadline = NEVER
        self.status: int | None = None


class Relaying:
    """The relay of an exchange's bytes, as the exchange sees it (``proxy.relay``)."""

    def abandon(self) -> None:
        """Cancel the request to the service."""
        raise NotImplementedError

    def close(self) -> None:
        """The exchange is over: release the buffered body, and the circuit's permit if it has one."""
        raise NotImplementedError


class Seen:
    """What a policy that a user wrote sees of an exchange (``contract.view``). ``next`` is that of another one."""

    next: Seen | None


class Driver:
    """Runs exchanges (``proxy.pipeline``). Calls for an exchange that has ended have no effect."""

    def resume(self, exchange: Exchange, outcome: Outcome) -> None:
        """Send ``outcome`` if it is an answer, wait if it is a wait, else run the next stage."""
        raise NotImplementedError

    def fail(self, exchange: Exchange, error: BaseException) -> None:
        """A stage has failed with ``error``. The route's ``on_refusal`` run, then the request is refused.

        An error that is not a ``GatewayError`` is logged, and answered with 500.
        """
        raise NotImplementedError

    def refuse(self, exchange: Exchange, error: GatewayError) -> None:
        """Answer with ``error`` now. If an answer has begun, cut the connection or reset the stream."""
        raise NotImplementedError

    def client_failed(self, exchange: Exchange, error: Refused | ClientLost) -> None:
        """The client's body is refused (``Refused``), or the client has left (``ClientLost``)."""
        raise NotImplementedError

    def end(self, exchange: Exchange) -> None:
        """The exchange is over, with or without an answer. Accounts for it, once."""
        raise NotImplementedError


class _Identifiers:
    """Random ids of 32 hexadecimal digits. 128 are made at once, which takes a sixth of the time for each."""

    def __init__(self) -> None:
        self._bytes = self._digits = self._latest = b""
        self._at: i64 = 0

    def next(self) -> bytes:
        at = self._at
        if at == len(self._digits):
            self._bytes = urandom(2048)
            self._digits = self._bytes.hex().encode("ascii")
            at = 0
        self._at = end = at + 32
        self._latest = digits = self._digits[at:end]
        return digits

    def bytes_of(self, digits: bytes) -> bytes:
        if digits is self._latest:  # a quarter of the time of finding them from the digits
            end = self._at >> 1
            return self._bytes[end - 16 : end]
        return unhexlify(digits)


_identifiers = _Identifiers()


def new_request_id() -> bytes:
    """A random id of 32 hexadecimal digits."""
    return _identifiers.next()


def bytes_of(digits: bytes) -> bytes:
    """The bytes of an id in hexadecimal digits."""
    return _identifiers.bytes_of(digits)


def request_id(headers: Headers) -> bytes:
    """The client's ``X-Request-ID`` if it sent exactly one, of 1 to 128 visible ASCII characters; else a new id."""
    found = None
    for name, value in headers:
        if name == b"x-request-id":
            if found is not None:
                return new_request_id()
            found = value
    if found is not None and _WELL_FORMED_ID(found):
        return found
    return new_request_id()


class Exchange:
    """One request and its answer: what is known of them, and how far they have been processed.

    ``started_at`` is in seconds of the reactor. Stages and hooks may read all attributes. They may set ``principal``,
    ``target``, ``authority``, ``sent``, ``withheld``, ``added``, ``dropped`` and ``at_end``; the others are the
    pipeline's.
    """

    route: Route

    def __init__(self, driver: Driver, request: Request, peers: Peers, started_at: float) -> None:
        self.driver = driver
        self.request = request
        self.id = request_id(request.headers)
        self.peers = peers
        self.started_at = started_at
        self.principal: Principal | None = None
        """The authenticated caller; ``None`` before authentication, and for an anonymous caller."""
        self.target = request.uri
        """Path and query that the service gets. Who writes them calls ``wire.target.check_target``."""
        self.authority = b""
        """The ``Host`` that the service gets. Empty: its address, or the client's with ``preserve_host``."""
        self.sent: Sequence[Header] = ()
        """Fields that the service gets, after all others. Who writes them sees to it that they are valid."""
        self.withheld: Set[bytes] = NOTHING
        """Names, in lower case, of fields that the service does not get, from the client or the gateway; but for
        ``sent``. What is known when the route is compiled is ``Part.stripped``, which costs nothing."""
        self.added: Headers = []
        """Fields that every answer gets, errors included."""
        self.dropped = DROPPED
        """Names, in lower case, of fields that are removed from the service's answer."""
        self.trace_id = b""
        self.trace: Trace | None = None
        """Its trace, if that is recorded. With ``tracing``, others have its ``trace_id`` only, in 32 digits."""
        self.status = 0
        """Status of the answer; 0 until there is one, 499 if the client left before it."""
        self.call: Call | None = None
        """Set from when a request with a body is known to be a gRPC call."""
        self.refusal: GatewayError | None = None
        """The error with which the gateway answers, or cut the answer short; ``None`` if there is none."""
        self.at = 0
        """The index of the next stage."""
        self.asked = 0
        """How many of the route's ``on_refusal`` have run."""
        self.waiting: Waiting | None = None
        self.relay: Relaying | None = None
        """The relay, from when the body is buffered or the request is forwarded."""
        self.hooks_failed = False
        """A hook of the route has raised: the answer is an error of the gateway's own, which no hook gets."""
        self.at_end: tuple[AtEnd, ...] = ()
        """Called when the exchange is over."""
        self.view: Seen | None = None
        """The first view of a policy that a user wrote, if one is kept."""
        self.lap_at = 0.0
        self.lap_stage = -1
        """When the last stage that times itself has ended, and the index of the stage after it."""
        self.ended = False
        self.ended_at = 0.0
        """When it ended, in seconds of the reactor, from then on."""
        request.listener = self

    @property
    def headers(self) -> Headers:
        """The request's fields, for who goes by what they say: of those that are ``withheld`` from the service, what
        it gets instead (``sent``). So nobody takes a client's word for that of an external check."""
        withheld, fields = self.withheld, self.request.headers
        if not withheld:
            return fields
        kept = [field for field in fields if field[0] not in withheld]
        return kept + [field for field in self.sent if field[0] in withheld]

    @property
    def is_https(self) -> bool:
        """Whether the client's request came over TLS: to the gateway, or to a trusted proxy, which says so."""
        request, peers = self.request, self.peers
        if request.stream.secure:
            return True
        if not peers.some or not peers.trusts(request.stream.peer):
            return False
        proto = first(request.headers, b"x-forwarded-proto")
        return proto is not None and proto.partition(b",")[0].strip().lower() in _SECURE

    @property
    def client_address(self) -> str:
        """The client's, behind trusted proxies; ``unix:`` for the peer of a unix socket."""
        return self.peers.client_address(self.request).decode("ascii")

    # wire.request.Listener, until there is a relay.

    def body_received(self, data: bytes) -> None:
        """Never called: the body is not read before there is a relay."""

    def body_finished(self) -> None: ...

    def client_failed(self, error: Refused | ClientLost) -> None:
        self.driver.client_failed(self, error)

    def resume(self, outcome: Outcome) -> None:
        """The wait is over: go on with ``outcome``, as if the stage had returned it."""
        self.waiting = None
        self.driver.resume(self, outcome)

    def fail(self, error: BaseException) -> None:
        """The wait has failed: go on as if the stage had raised ``error``."""
        self.waiting = None
        self.driver.fail(self, error)
