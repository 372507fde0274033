"""Pooled HTTP/1.1 for a program's own requests: an ``IAgent`` for treq."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import URI, ResponseDone, ResponseFailed
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers as HeadersObject
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IClientRequest, IResponse
from zope.interface import implementer

from apigw.wire.agent_response import Response
from apigw.wire.client_tls import SecureEndpoint
from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.errors import UpstreamError, UpstreamLost
from apigw.wire.headers import FIELD_VALUE, HOP_BY_HOP, TOKEN, Headers
from apigw.wire.http1.client import HTTP1Connection
from apigw.wire.interfaces import Connections, UpstreamConnection
from apigw.wire.pool import Pool, PoolSettings
from apigw.wire.reactor.connecting import ConnectingReactor


def endpoint_to(
    reactor: Any, host: str, port: int, timeout: float, tls: IOpenSSLClientConnectionCreator | None
) -> IStreamClientEndpoint:
    """The endpoint of one address. A name is resolved for each connection."""
    connecting = ConnectingReactor(reactor)
    endpoint: IStreamClientEndpoint
    if ":" in host:
        endpoint = TCP6ClientEndpoint(connecting, host, port, timeout=timeout)
    elif host.replace(".", "").isdigit():
        endpoint = TCP4ClientEndpoint(connecting, host, port, timeout=timeout)
    else:
        endpoint = HostnameEndpoint(connecting, host.encode("idna"), port, timeout=timeout)
    return SecureEndpoint(tls, endpoint) if tls is not None else endpoint


MakeEndpoint = Callable[[Any, str, int, float, "IOpenSSLClientConnectionCreator | None"], IStreamClientEndpoint]
"""Makes the endpoint of one address, as ``endpoint_to`` does."""
MakePool = Callable[[bytes, IStreamClientEndpoint, PoolSettings], Connections]
"""Makes the pool of one address, from its scheme, its endpoint and the settings."""


def http1_pool(deadlines: Deadlines, scheme: bytes, endpoint: IStreamClientEndpoint, settings: PoolSettings) -> Pool:
    return Pool(endpoint, partial(HTTP1Connection, deadlines), settings, deadlines)


TLSFor = Callable[[str], IOpenSSLClientConnectionCreator]
"""The TLS options for a host name, which verify it."""

MOST_POOLS = 256
"""Pools that are kept without a connection. Who calls may let clients say where to."""
_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_URI = re.compile(rb"[\x21-\x7e]+").fullmatch


@implementer(IAgent)
class Agent:
    """One pool for each scheme, host and port. ``timeout``: seconds to a response's head, and between two pieces.

    Without one, who asks has to bound the time of the whole.
    """

    def __init__(
        self,
        reactor: Any,
        deadlines: Deadlines,
        tls_for: TLSFor,
        settings: PoolSettings | None = None,
        timeout: float = NEVER,
        make_pool: MakePool | None = None,
        make_endpoint: MakeEndpoint = endpoint_to,
    ) -> None:
        """``make_pool`` makes the connections to one endpoint, by default those of HTTP/1.1."""
        self._make_endpoint = make_endpoint
        self._reactor = reactor
        self._deadlines = deadlines
        self._tls_for = tls_for
        self._settings = settings or PoolSettings()
        self._timeout = timeout
        self._make_pool = make_pool or partial(http1_pool, deadlines)
        self._pools: dict[tuple[bytes, bytes, int], Connections] = {}

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: HeadersObject | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send a request. Cancelling closes the connection.

        Fails with ``UpstreamError`` without a valid answer, and with ``ValueError`` for an invalid request.
        """
        if not TOKEN(method) or not _URI(uri):
            return fail(ValueError("The method or the URI holds what cannot be sent."))
        where = URI.fromBytes(uri)
        if where.scheme not in (b"http", b"https"):
            return fail(SchemeNotSupported(f"Unsupported scheme: {where.scheme!r}"))
        call = _Call(_asked(method, uri, where, headers or HeadersObject()), bodyProducer, self._timeout)
        try:
            call.begin_on(self._pool(where))
        except Exception:
            return fail()
        return call.answer

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _pool(self, where: URI) -> Connections:
        key = (where.scheme, where.host, where.port)
        if key not in self._pools:
            if len(self._pools) >= MOST_POOLS:
                pools = self._pools.items()
                self._pools = {key: pool for key, pool in pools if pool.connections or pool.waiting}
            host = where.host.decode("ascii")
            tls = self._tls_for(host) if where.scheme == b"https" else None
            endpoint = self._make_endpoint(self._reactor, host, where.port, self._settings.connect_timeout, tls)
            self._pools[key] = self._make_pool(where.scheme, endpoint, self._settings)
        return self._pools[key]


@implementer(IClientRequest)
@frozen
class _Asked:
    """What a response is an answer to, and what of it is sent."""

    method: bytes
    absoluteURI: bytes
    headers: HeadersObject
    target: bytes
    authority: bytes
    fields: Headers
    trailers: bool


def _asked(method: bytes, uri: bytes, where: URI, headers: HeadersObject) -> _Asked:
    """The framing, and what belongs to the connection, are not the caller's, whatever the caller's headers say."""
    authority = headers.getRawHeaders(b"host", [where.netloc])[0]
    fields: Headers = []
    for name, values in headers.getAllRawHeaders():
        lower = name.lower()
        if lower not in HOP_BY_HOP and lower not in (b"host", b"content-length"):
            fields += [(lower, value) for value in values]
    if not FIELD_VALUE(authority) or not all(TOKEN(name) and FIELD_VALUE(value) for name, value in fields):
        raise ValueError("A header holds what cannot be sent.")
    return _Asked(method, uri, headers, where.originForm, authority, fields, headers.hasHeader(b"te"))


class _Call:
    """One call on its way: the upstream connection's receiver, and the consumer of the request's body."""

    _connecting: Deferred[Any] | None = None
    _connection: UpstreamConnection | None = None
    _response: Response | None = None
    _producing = False
    _fresh = False

    def __init__(self, asked: _Asked, body: IBodyProducer | None, timeout: float) -> None:
        self._asked = asked
        self._body = body
        self._timeout = timeout
        self._pool: Connections
        self.answer: Deferred[IResponse] = Deferred(lambda _: self._abandon())

    def begin_on(self, pool: Connections) -> None:
        self._pool = pool
        connection = pool.take(careful=not self._is_repeatable())
        if connection is not None:
            self._begin(connection)
        else:
            self._connect()

    def _connect(self) -> None:
        self._fresh = True
        self._connecting = self._pool.connect()
        self._connecting.addCallbacks(self._begin, self._fail)

    def _begin(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._connection = connection
        asked, body = self._asked, self._body
        length = 0 if body is None else None if body.length is UNKNOWN_LENGTH else int(body.length)
        connection.send(
            asked.method,
            asked.target,
            asked.authority,
            asked.fields,
            length,
            False,
            self._timeout,
            self,
            asked.trailers,
        )
        if body is None:
            connection.finish()
        else:
            self._producing = True
            body.startProducing(self).addCallbacks(self._body_sent, self._body_failed)

    def _is_repeatable(self) -> bool:
        return self._asked.method in _REPEATABLE and self._body is None

    def _fail(self, failure: Failure) -> None:
        if not self.answer.called and not failure.check(CancelledError):
            self.answer.errback(failure)

    def _abandon(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        connection = self._connection
        self._let_go()
        if connection is not None:
            connection.abandon()

    def _let_go(self) -> None:
        """The connection is no longer ours."""
        self._connection = None
        if self._producing and self._body is not None:
            self._producing = False
            self._body.stopProducing()

    def _body_sent(self, _: object) -> None:
        self._producing = False
        if self._connection is not None:
            self._connection.finish()

    def _body_failed(self, failure: Failure) -> None:
        self._producing = False
        self._abandon()
        self._fail(failure)

    # IConsumer, for the body's producer.

    def write(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """A body producer is paused and resumed by itself."""

    def unregisterProducer(self) -> None: ...

    # wire.interfaces.Receiver

    def pause_body(self) -> None:
        if self._producing and self._body is not None:
            self._body.pauseProducing()

    def resume_body(self) -> None:
        if self._producing and self._body is not None:
            self._body.resumeProducing()

    def moved(self) -> int | None:
        return None  # there is no client

    def too_slow(self) -> None: ...

    def response_started(self, status: int, reason: bytes, headers: Headers) -> None:
        assert self._connection is not None
        self._response = Response(self._asked, status, reason, headers, self._connection, self._abandon)
        self.answer.callback(self._response)

    def response_whole(self, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        self._let_go()
        self._response = Response(self._asked, status, reason, headers, None, None)
        self.answer.callback(self._response)
        self._response.received(body)
        self._response.ended(Failure(ResponseDone()))

    def response_received(self, data: bytes) -> None:
        assert self._response is not None
        self._response.received(data)

    def response_paused(self) -> None: ...

    def response_trailers(self, trailers: Headers) -> None:
        assert self._response is not None
        self._response.trailers = trailers

    def response_finished(self) -> None:
        self._let_go()
        assert self._response is not None
        self._response.ended(Failure(ResponseDone()))

    def response_failed(self, error: UpstreamError) -> None:
        self._let_go()
        if self._response is not None:
            self._response.ended(Failure(ResponseFailed([Failure(error)])))
        elif isinstance(error, UpstreamLost) and error.silent and not self._fresh and self._is_repeatable():
            # The upstream had probably closed the connection for being idle (RFC 9110 §9.2.2).
            self._connect()
        elif not self.answer.called:
            self.answer.errback(Failure(error))
