"""``twisted.web.iweb.IRequest`` for a request; its costly parts are made on first use.

What a Resource of ``twisted.web`` may do with its request is in ``twisted.web.server.Request``. That class builds all
of it for each request; here the same names are properties over what the wire has read.
"""

from __future__ import annotations

from email import message_from_bytes
from io import BytesIO
from typing import Any

from twisted.internet._producer_helpers import _PullToPush
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString, parse_qs
from twisted.web.http_headers import Headers as HeadersObject
from twisted.web.server import Request as TwistedRequest

from apigw.wire.errors import ClientLost
from apigw.wire.headers import HOP_BY_HOP, Headers
from apigw.wire.request import Request

_FORM = b"application/x-www-form-urlencoded"
_MULTIPART = b"multipart/form-data"


class WebRequest(TwistedRequest):
    """A ``wire.request.Request`` for Resources."""

    defaultContentType = b"text/html; charset=utf-8"
    prepath: list[bytes]
    postpath: list[bytes]
    sitepath: tuple[bytes, ...] = ()
    code_message: bytes = b""
    _begun_here = False
    """Whether the response was begun by ``write``: each piece then goes out at once, as Resources expect."""
    _producer: Any = None
    _notifications: tuple[Deferred[None], ...] = ()
    _request_headers: HeadersObject | None = None
    _response_headers: HeadersObject | None = None
    _args: dict[bytes, list[bytes]] | None = None
    _content: BytesIO | None = None
    _cookies: list[bytes] | None = None
    _components: dict[str, Any] | None = None
    _host: Any = None

    def __init__(self, request: Request) -> None:
        # That of the base is not called: it would build what the properties below build on demand.
        self.request = request
        self.method = request.method
        self.uri = request.uri
        self.path = request.path
        self.clientproto = request.clientproto
        self.authority = request.authority
        self.peer = request.stream.peer
        self.headers = request.headers
        self.identifier = request.identifier
        request.on_end = self._ended

    # What was asked.

    @property
    def requestHeaders(self) -> HeadersObject:  # type: ignore[override]  # an attribute there
        if self._request_headers is None:
            self._request_headers = HeadersObject()
            for name, value in self.headers:
                self._request_headers.addRawHeader(name, value)
        return self._request_headers

    @property
    def content(self) -> BytesIO:
        """The body, for those Resources whose body was read before they render."""
        if self._content is None:
            self._content = BytesIO()
        return self._content

    @content.setter
    def content(self, content: BytesIO) -> None:
        self._content = content

    @property
    def args(self) -> dict[bytes, list[bytes]]:  # type: ignore[override]  # an attribute there
        """Query arguments, and those of a form in a POST's body, which come before ones of the same name."""
        if self._args is None:
            self._args = parse_qs(self.request.query[1:], 1)
            if self.method == b"POST":
                kind = self.getHeader(b"content-type") or b""
                name = kind.partition(b";")[0].strip().lower()
                if name == _FORM:
                    self._args.update(parse_qs(self.content.getvalue(), 1))
                elif name == _MULTIPART:
                    self._args.update(_multipart(kind, self.content.getvalue()))
        return self._args

    @property
    def received_cookies(self) -> dict[bytes, bytes]:  # type: ignore[override]  # an attribute there
        fields = (value for name, value in self.headers if name == b"cookie")
        pairs = (part.strip().partition(b"=") for field in fields for part in field.split(b";"))
        return {name: value for name, mark, value in pairs if mark}

    # Who asked.

    @property
    def client(self) -> Any:
        return self.request.stream.transport.getPeer()

    @property
    def host(self) -> Any:
        return self._host or self.request.stream.transport.getHost()

    @host.setter
    def host(self, host: Any) -> None:
        self._host = host

    @property
    def transport(self) -> Any:  # type: ignore[override]  # an attribute there
        return self.request.stream.transport

    @property
    def channel(self) -> Any:  # type: ignore[override]  # an attribute there
        return self.request.stream

    def isSecure(self) -> bool:
        return self.request.stream.secure

    def getHost(self) -> Any:
        return self.host

    def getClientAddress(self) -> Any:
        return self.client

    # What is answered.

    @property
    def responseHeaders(self) -> HeadersObject:  # type: ignore[override]  # an attribute there
        if self._response_headers is None:
            self._response_headers = HeadersObject()
        return self._response_headers

    @property
    def cookies(self) -> list[bytes]:  # type: ignore[override]  # an attribute there
        if self._cookies is None:
            self._cookies = []
        return self._cookies

    @property
    def startedWriting(self) -> bool:  # type: ignore[override]  # an attribute there
        return self.request.started

    @property
    def finished(self) -> bool:  # type: ignore[override]  # an attribute there
        return self.request.finished

    @property
    def sentLength(self) -> int:  # type: ignore[override]  # an attribute there
        return self.request.bytes_sent

    def write(self, data: bytes) -> None:
        if self.finished or self._inFakeHead:
            return
        if not self.request.started:
            self._start()
        self.request.write(data)
        if self._begun_here:
            self.request.flush()

    def finish(self) -> None:
        if not self.finished and not self.request.started:
            self._start()
        self.request.finish()

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete response. ``responseHeaders`` and the like are not used."""
        self.request.respond(status, headers, body)

    def processingFailed(self, reason: Failure) -> Failure:
        """A Resource raised an exception. It is logged, and the answer does not show it."""
        self._log.failure("a resource failed", failure=reason)
        if self.request.started:
            self.request.abort()
        else:
            self.respond(500, [(b"content-length", b"0")], b"")
        return reason

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise ValueError("There is a producer already.")
        if streaming:
            self._producer = producer
        else:
            self._producer = _PullToPush(producer, self)
            self._producer.startStreaming()
        self.request.stream.set_producer(self._producer)

    def unregisterProducer(self) -> None:
        producer, self._producer = self._producer, None
        if isinstance(producer, _PullToPush):
            producer.stopStreaming()
        self.request.stream.set_producer(None)

    def notifyFinish(self) -> Deferred[None]:
        """Fires with None when the response is complete, fails when the client is lost before."""
        notification: Deferred[None] = Deferred()
        self._notifications = (*self._notifications, notification)
        return notification

    def _ended(self, error: ClientLost | None) -> None:
        """The exchange is over, one way or the other: whoever wanted to know is told."""
        self._disconnected = error is not None
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        notifications, self._notifications = self._notifications, ()
        for notification in notifications:
            if error is None:
                notification.callback(None)
            else:
                notification.errback(Failure(error))

    def _start(self) -> None:
        """Begin the response that ``setResponseCode``, ``responseHeaders`` and the like describe."""
        self._begun_here = True
        given = self.responseHeaders
        headers = [
            (lower, value)
            for name, values in given.getAllRawHeaders()
            if (lower := name.lower()) not in HOP_BY_HOP
            for value in values
        ]
        if self.lastModified is not None and not given.hasHeader(b"last-modified"):
            headers.append((b"last-modified", datetimeToString(self.lastModified)))
        if self.etag is not None and not given.hasHeader(b"etag"):
            headers.append((b"etag", self.etag))
        empty = self.code in (204, 304) or given.getRawHeaders(b"content-length") == [b"0"]
        if not empty and not given.hasHeader(b"content-type"):
            headers.append((b"content-type", self.defaultContentType))
        headers += [(b"set-cookie", cookie) for cookie in self._cookies or ()]
        self.request.start(self.code, headers, self.code_message)

    # twisted.python.components.Componentized, on which sessions stand.

    @property
    def _adapterCache(self) -> dict[str, Any]:  # type: ignore[override]  # an attribute there
        if self._components is None:
            self._components = {}
        return self._components


def _multipart(kind: bytes, content: bytes) -> dict[bytes, list[bytes]]:
    """The fields of a form in ``multipart/form-data`` (RFC 7578); none where it is malformed."""
    message = message_from_bytes(b"MIME-Version: 1.0\r\nContent-Type: " + kind + b"\r\n\r\n" + content)
    fields: dict[bytes, list[bytes]] = {}
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        if not part.is_multipart() and isinstance(name, str):
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            fields.setdefault(name.encode(), []).append(payload)
    return fields
