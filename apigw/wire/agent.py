"""Pooled HTTP/1.1 for a program's own calls: an ``IAgent``, for treq to sit on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IProtocol, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import URI, ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers as HeadersObject
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import UpstreamError
from apigw.wire.headers import Header, Headers, first
from apigw.wire.pool import Pool, PoolSettings
from apigw.wire.transport import EagerReactor
from apigw.wire.upstream_connection import UpstreamConnection


def request_head(method: bytes, uri: bytes, headers: list[Header]) -> bytes:
    """The bytes of a request up to its body. The pairs must be valid, and frame the body."""
    out = [method, b" ", uri, b" HTTP/1.1\r\n"]
    for name, value in headers:
        out += (name, b": ", value, b"\r\n")
    out.append(b"\r\n")
    return b"".join(out)


def endpoint_to(
    reactor: Any, host: str, port: int, timeout: float, tls: IOpenSSLClientConnectionCreator | None
) -> IStreamClientEndpoint:
    """The endpoint of one address. A name is resolved anew for each connection."""
    eager = EagerReactor(reactor)
    endpoint: IStreamClientEndpoint
    if ":" in host:
        endpoint = TCP6ClientEndpoint(eager, host, port, timeout=timeout)
    elif host.replace(".", "").isdigit():
        endpoint = TCP4ClientEndpoint(eager, host, port, timeout=timeout)
    else:
        endpoint = HostnameEndpoint(eager, host.encode("idna"), port, timeout=timeout)
    return wrapClientTLS(tls, endpoint) if tls is not None else endpoint


TLSFor = Callable[[str], IOpenSSLClientConnectionCreator]
"""Given a host name: how to verify it."""


@implementer(IAgent)
class Agent:
    """One pool for each scheme, host and port. ``timeout`` seconds is what a response may take to begin or go on."""

    def __init__(
        self,
        reactor: Any,
        deadlines: Deadlines,
        tls_for: TLSFor,
        settings: PoolSettings | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._reactor = reactor
        self._deadlines = deadlines
        self._tls_for = tls_for
        self._settings = settings or PoolSettings()
        self._timeout = timeout
        self._pools: dict[tuple[bytes, bytes, int], Pool] = {}

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: HeadersObject | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Cancelling gives the connection up."""
        where = URI.fromBytes(uri)
        pairs = [(b"host", where.netloc)]
        for name, values in (headers or HeadersObject()).getAllRawHeaders():
            pairs += [(name.lower(), value) for value in values if name.lower() != b"host"]
        chunked = False
        if bodyProducer is not None:
            chunked = bodyProducer.length is UNKNOWN_LENGTH
            pairs.append(
                (b"transfer-encoding", b"chunked") if chunked else (b"content-length", b"%d" % bodyProducer.length)
            )
        call = _Call(method, request_head(method, where.originForm, pairs), chunked, bodyProducer, self._timeout)
        pool = self._pool(where)
        connection = pool.take()
        if connection is not None:
            call.begin(connection)
        else:
            call.connecting = pool.connect()
            call.connecting.addCallbacks(call.begin, call.fail)
        return call.answer

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _pool(self, where: URI) -> Pool:
        key = (where.scheme, where.host, where.port)
        if key not in self._pools:
            host = where.host.decode("ascii")
            tls = self._tls_for(host) if where.scheme == b"https" else None
            endpoint = endpoint_to(self._reactor, host, where.port, self._settings.connect_timeout, tls)
            self._pools[key] = Pool(endpoint, self._settings, self._deadlines)
        return self._pools[key]


class _Call:
    """One call on its way: the upstream connection's receiver, and the consumer of the request's body."""

    connecting: Deferred[Any] | None = None
    _connection: UpstreamConnection | None = None
    _response: Response | None = None
    disconnecting = False

    def __init__(self, method: bytes, head: bytes, chunked: bool, body: IBodyProducer | None, timeout: float) -> None:
        self._method = method
        self._head = head
        self._chunked = chunked
        self._body = body
        self._timeout = timeout
        self.answer: Deferred[IResponse] = Deferred(lambda _: self.abandon())

    def begin(self, connection: UpstreamConnection) -> None:
        self.connecting = None
        self._connection = connection
        connection.send(self._head, self, self._timeout, self._method == b"HEAD", upgrade=False, chunked=self._chunked)
        if self._body is None:
            connection.finish()
        else:
            self._body.startProducing(self).addCallbacks(lambda _: connection.finish(), self._body_failed)

    def fail(self, failure: Failure) -> None:
        if not self.answer.called and not failure.check(CancelledError):
            self.answer.errback(failure)

    def abandon(self) -> None:
        if self.connecting is not None:
            self.connecting.cancel()
        if self._connection is not None:
            self._connection.abandon()

    def _body_failed(self, failure: Failure) -> None:
        self.abandon()
        self.fail(failure)

    # IConsumer, for the body's producer.

    def write(self, data: bytes) -> None:
        assert self._connection is not None
        self._connection.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Bodies of a program's own calls are small: they are not slowed down."""

    def unregisterProducer(self) -> None: ...

    # wire.upstream_connection.Receiver

    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...

    def response_started(self, status: int, reason: bytes, headers: Headers) -> None:
        assert self._connection is not None
        self._response = Response(status, reason, headers, self._connection)
        self.answer.callback(self._response)

    def response_received(self, data: bytes) -> None:
        assert self._response is not None
        self._response.received(data)

    def response_paused(self) -> None: ...

    def response_finished(self) -> None:
        assert self._response is not None
        self._response.ended(Failure(ResponseDone()))

    def response_failed(self, error: UpstreamError) -> None:
        if self._response is not None:
            self._response.ended(Failure(ResponseFailed([Failure(error)])))
        elif not self.answer.called:
            self.answer.errback(Failure(error))


@implementer(IResponse)
class Response:
    """What comes before ``deliverBody`` is kept, so treq may be asked for the body at any time."""

    version = (b"HTTP", 1, 1)
    request = None
    previousResponse = None

    def __init__(self, code: int, phrase: bytes, headers: Headers, connection: UpstreamConnection) -> None:
        self.code = code
        self.phrase = phrase
        self.headers = HeadersObject()
        for name, value in headers:
            self.headers.addRawHeader(name, value)
        length = first(headers, b"content-length")
        self.length = int(length) if length is not None else UNKNOWN_LENGTH
        self._connection = connection
        self._kept: list[bytes] = []
        self._reader: IProtocol | None = None
        self._reason: Failure | None = None

    def deliverBody(self, protocol: IProtocol) -> None:
        protocol.makeConnection(_BodyTransport(self._connection))
        self._reader = protocol
        for data in self._kept:
            protocol.dataReceived(data)
        self._kept.clear()
        if self._reason is not None:
            protocol.connectionLost(self._reason)

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response

    def received(self, data: bytes) -> None:
        if self._reader is None:
            self._kept.append(data)
        else:
            self._reader.dataReceived(data)

    def ended(self, reason: Failure) -> None:
        self._reason = reason
        if self._reader is not None:
            self._reader.connectionLost(reason)


class _BodyTransport:
    """What a reader of a body may ask of its connection: to be quicker than the end of it."""

    disconnecting = False

    def __init__(self, connection: UpstreamConnection) -> None:
        self.loseConnection = self.stopProducing = self.abortConnection = connection.abandon
        self.pauseProducing = connection.pause_response
        self.resumeProducing = connection.resume_response


