# Compiled: see docs/decisions/compiled.md
"""One exchange, and what takes part in it: the facts of a request and its answer, and the stages and hooks of a route.

A policy gives stages and hooks for a route (``policy.py``); ``proxy.pipeline`` walks through them.
"""

from __future__ import annotations

import re
from os import urandom
from typing import Any

from mypy_extensions import mypyc_attr
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from apigw.contract.peers import Peers
from apigw.contract.principal import Principal
from apigw.errors import GatewayError
from apigw.ops.metrics import RouteSeries
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.request import Request


@mypyc_attr(allow_interpreted_subclasses=True)
class Waiting:
    """What an exchange waits for. It ends in one call of ``Exchange.resume`` or ``Exchange.fail``, or is cancelled."""

    def cancel(self) -> None:
        """The exchange is over: call neither."""
        raise NotImplementedError


class Answer:
    """A whole answer that the gateway gives by itself, and no error."""

    def __init__(self, status: int, headers: Headers, body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Head:
    """The head of an answer, which hooks may change. ``own``: the answer is the gateway's and not the service's."""

    def __init__(self, status: int, headers: Headers, own: bool) -> None:
        self.status = status
        self.headers = headers
        self.own = own


DROPPED = frozenset({b"x-request-id"})
"""Fields of a service's answer that every exchange writes anew."""

_WELL_FORMED_ID = re.compile(rb"[\x21-\x7e]{1,128}").fullmatch

Outcome = Answer | Waiting | None
"""What a stage comes to: an answer, something to wait for, or ``None``: the exchange goes on."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Stage:
    """A part of a route's way to its service."""

    def run(self, exchange: Exchange) -> Outcome:
        """Do this stage's part. Raises ``GatewayError`` to refuse the request."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Hook:
    """Sees the head of every answer to a route's requests before it goes to the client."""

    def run(self, exchange: Exchange, head: Head) -> None:
        """Where it raises, the answer is not sent, but 500 without hooks."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class OnRefusal:
    """Is asked when a request is about to be refused, before anything has been answered."""

    def run(self, exchange: Exchange, error: GatewayError) -> Waiting | None:
        """Raises the ``GatewayError`` with which it is refused instead; so does ``Exchange.fail`` after a wait."""
        raise NotImplementedError


class Route:
    """What a request meets that matches ``pattern`` and ``methods`` (``None``: all). ``stages`` run in order."""

    def __init__(
        self,
        pattern: str,
        methods: tuple[str, ...] | None,
        service: str | None,
        series: RouteSeries,
        stages: tuple[Stage, ...],
        hooks: tuple[Hook, ...] = (),
        on_refusal: tuple[OnRefusal, ...] = (),
    ) -> None:
        self.pattern = pattern
        self.methods = methods
        self.service = service
        """The name of the service to which it leads; ``None`` where the gateway answers."""
        self.series = series
        self.stages = stages
        self.hooks = hooks
        self.on_refusal = on_refusal


class Relaying:
    """What moves the bytes of an exchange (``proxy.relay``)."""

    def abandon(self) -> None:
        """Let go of the service."""
        raise NotImplementedError

    def close(self) -> None:
        """The exchange is over: give back what is still held."""
        raise NotImplementedError


class Driver:
    """Drives exchanges (``proxy.pipeline``)."""

    def resume(self, exchange: Exchange, outcome: Outcome) -> None:
        """Go on with the next stage, unless ``outcome`` is an answer or something to wait for."""
        raise NotImplementedError

    def fail(self, exchange: Exchange, error: BaseException) -> None:
        """A stage has failed with ``error``: the route's ``on_refusal`` are asked, then it is answered."""
        raise NotImplementedError

    def refuse(self, exchange: Exchange, error: GatewayError) -> None:
        """Answer with ``error`` now, or cut short the answer that has begun."""
        raise NotImplementedError

    def client_failed(self, exchange: Exchange, error: Refused | ClientLost) -> None:
        """The client sent what is refused, or has left."""
        raise NotImplementedError

    def end(self, exchange: Exchange) -> None:
        """The answer is complete, or there will be none."""
        raise NotImplementedError


class _Identifiers:
    """Random ids of 32 hexadecimal digits, made many at once: so each costs a sixth."""

    def __init__(self) -> None:
        self._digits = b""
        self._at = 0

    def next(self) -> bytes:
        at = self._at
        if at == len(self._digits):
            self._digits = urandom(2048).hex().encode("ascii")
            at = 0
        self._at = end = at + 32
        return self._digits[at:end]


_identifiers = _Identifiers()


def new_request_id() -> bytes:
    return _identifiers.next()


def request_id(headers: Headers) -> bytes:
    """The client's ``X-Request-ID`` where it sent one that can be logged as it is, else a new one."""
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
    """The facts of one request and its answer. ``started_at`` is in the seconds of the reactor."""

    route: Route

    def __init__(self, driver: Driver, request: Request, peers: Peers, started_at: float) -> None:
        self.driver = driver
        self.request = request
        self.id = request_id(request.headers)
        self.peers = peers
        self.started_at = started_at
        self.principal: Principal | None = None
        """Who calls, once that is known."""
        self.added: Headers = []
        """Fields that any answer gets. A stage may add to them; the list is the exchange's own."""
        self.dropped = DROPPED
        """Names, in lower case, of fields of the service's answer that do not reach the client."""
        self.status = 0
        """Of the answer; 0 until there is one."""
        self.refusal: GatewayError | None = None
        """Why the answer is an error of the gateway's own."""
        self.at = 0
        """The index of the next stage."""
        self.asked = 0
        """How many of the route's ``on_refusal`` have been asked."""
        self.waiting: Waiting | None = None
        self.relay: Relaying | None = None
        """What moves the bytes, from when the request is forwarded, or its body is read."""
        self.hooks_failed = False
        """One of the route's hooks has raised: the answer is an error of the gateway's own, which no hook sees."""
        self.ended = False
        request.listener = self

    @property
    def client_address(self) -> str:
        """The client's, behind trusted proxies; ``unix:`` for the peer of a unix socket."""
        return self.peers.client_address(self.request).decode("ascii")

    # wire.request.Listener, until there is a relay.

    def body_received(self, data: bytes) -> None:
        """Nobody has asked for the body."""

    def body_finished(self) -> None: ...

    def client_failed(self, error: Refused | ClientLost) -> None:
        self.driver.client_failed(self, error)

    def resume(self, outcome: Outcome) -> None:
        """What the exchange waited for is there: go on with ``outcome``, as if the stage had returned it."""
        self.waiting = None
        self.driver.resume(self, outcome)

    def fail(self, error: BaseException) -> None:
        """What the exchange waited for has failed: end with ``error``, as if the stage had raised it."""
        self.waiting = None
        self.driver.fail(self, error)


class Awaited(Waiting):
    """A Deferred that fires with an outcome, as something to wait for. See ``wait_for``."""

    def __init__(self, exchange: Exchange, deferred: Deferred[Any]) -> None:
        self._exchange = exchange
        self._deferred = deferred
        self._returned = False
        self.fired = False
        self.outcome: Outcome = None
        self.error: BaseException | None = None
        deferred.addCallbacks(self._succeeded, self._failed)

    def returned(self) -> Awaited:
        """From now on, the exchange goes on when the Deferred fires."""
        self._returned = True
        return self

    def cancel(self) -> None:
        self._deferred.cancel()

    def _succeeded(self, outcome: Outcome) -> None:
        self.fired = True
        self.outcome = outcome
        if self._returned:
            self._exchange.resume(outcome)

    def _failed(self, failure: Failure) -> None:
        if self._returned and failure.check(CancelledError):
            return
        self.fired = True
        self.error = failure.value
        if self._returned:
            assert self.error is not None
            self._exchange.fail(self.error)


def wait_for(exchange: Exchange, deferred: Deferred[Any]) -> Outcome:
    """What a stage returns that waits for a Deferred; its outcome, or its error raised, where it has fired already."""
    awaited = Awaited(exchange, deferred)
    if not awaited.fired:
        return awaited.returned()
    if awaited.error is not None:
        raise awaited.error
    return awaited.outcome
