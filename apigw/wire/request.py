# Compiled: see docs/decisions/compiled.md
"""One request and its response, the same for HTTP/1.1 and HTTP/2.

A proxy uses it directly: raw header pairs, ``read_body``, ``start``, ``write``, ``flush``, ``finish``. A Resource of
``twisted.web`` gets it as an ``IRequest``; see ``web_request``.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Protocol

from mypy_extensions import mypyc_attr
from twisted.internet.interfaces import IPushProducer
from twisted.web.http import RESPONSES

from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.tunnel import End

UNIX_PEER: Final = b"unix:"
"""The peer of a connection over a unix socket, which has no address."""
BODYLESS_STATUS: Final = frozenset({204, 304})
_REASONS: Final = {
    **RESPONSES,
    **{status.value: status.phrase.encode("ascii") for status in HTTPStatus},
    413: b"Content Too Large",
    414: b"URI Too Long",
    422: b"Unprocessable Content",
    431: b"Request Header Fields Too Large",
}


def reason_of(status: int) -> bytes:
    """The reason phrase of a status (RFC 9110 §15)."""
    return _REASONS.get(status, b"Unknown")


class Listener(Protocol):
    """Receives the request's body, and its end."""

    def body_received(self, data: bytes) -> None:
        """A piece of the request's body. Further pieces follow, unless ``Request.pause_body`` is called."""

    def body_finished(self) -> None:
        """The body is complete; without a body, called by ``Request.read_body``."""

    def client_failed(self, error: Refused | ClientLost) -> None:
        """The body is malformed or late (``Refused``, which can be answered unless the response began), or the client
        is gone (``ClientLost``). Called at most once, and not after ``finish``."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Stream:
    """The connection, or HTTP/2 stream, of a request. A base class: mypyc does not compile calls by a Protocol."""

    def __init__(self, peer: bytes, secure: bool) -> None:
        """``peer`` is its address, or ``UNIX_PEER``."""
        self.peer = peer
        self.secure = secure
        self.transport: Any = None

    def start_response(self, request: Request, status: int, reason: bytes, headers: Headers) -> None:
        raise NotImplementedError

    def respond(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        raise NotImplementedError

    def end_response(self, request: Request, trailers: Headers | None = None) -> None:
        raise NotImplementedError

    def abort(self, code: int = 2) -> None:
        raise NotImplementedError

    def unsent(self) -> int:
        """How many bytes the client has not taken yet."""
        raise NotImplementedError

    def want_body(self, request: Request) -> None:
        raise NotImplementedError

    def pause_body(self) -> None:
        raise NotImplementedError

    def resume_body(self) -> None:
        raise NotImplementedError

    def set_producer(self, producer: IPushProducer | None) -> None:
        raise NotImplementedError

    def start_tunnel(self, request: Request, headers: Headers) -> End:
        raise NotImplementedError


class Request:
    """Attributes, all bytes as sent: ``method``, ``uri`` (the target in origin-form), ``path``, ``query`` (with its
    ``?``), ``headers`` (pairs, lower-case names, without those of one hop), ``authority`` (the Host), ``clientproto``,
    ``stream.peer``.

    ``content_length`` is None where the body is of unknown length, 0 where there is none.
    """

    identifier: bytes = b""
    """The request id, for the answer and the log; empty if there is none."""
    listener: Listener | None
    on_end: Callable[[ClientLost | None], None] | None = None
    """Called once, when the response is complete (None) or the client is lost."""
    body_complete: bool = False
    upgrade: bool = False
    """Whether the client asks for a WebSocket."""
    wants_trailers: bool = False
    """Whether the client sent ``TE: trailers`` (RFC 9110 §10.1.4). Over HTTP/2 it gets trailers anyway."""
    trailers: Headers | None = None
    """Those of the body, validated, when it is complete; None if there are none."""
    odd: int = 0
    """Oddities of its path that are kept: bits of ``wire.target``."""
    body_wanted: bool = False
    is_stream: bool = False
    """Whether its body, of unknown length, is sent on as it comes: then ``stream_idle_timeout`` applies to it."""
    bytes_received: int = 0
    started: bool = False
    finished: bool = False
    code: int = 200
    bytes_sent: int = 0
    """Bytes of the response's body."""
    _unread: bytes = b""

    def __init__(
        self,
        stream: Stream,
        method: bytes,
        uri: bytes,
        path: bytes,
        query: bytes,
        authority: bytes,
        headers: Headers,
        protocol: bytes,
        content_length: int | None,
    ) -> None:
        self.listener = None
        self.stream = stream
        self.method = method
        self.uri = uri
        self.path = path
        self.query = query
        self.authority = authority
        self.headers = headers
        self.clientproto = protocol
        self.content_length = content_length

    def drop_headers(self, names: frozenset[bytes]) -> None:
        """Remove hop-by-hop fields (RFC 9110 §7.6.1)."""
        if names:
            self.headers = [header for header in self.headers if header[0] not in names]

    # What the client sends.

    def read_body(self) -> None:
        """Start to deliver the body to the listener. Sends ``100 Continue`` if the client expects it."""
        self.body_wanted = True
        assert self.listener is not None
        complete = self.body_complete  # before the stream delivers what it may hold, and says the rest by itself
        if not complete:
            self.stream.want_body(self)
            self.stream.resume_body()
        if self._unread:
            data, self._unread = self._unread, b""
            self.listener.body_received(data)
        if complete and not self.finished:
            self.listener.body_finished()

    def moved(self) -> int:
        """Bytes of bodies that have come from the client, and that it has taken. About: what frames them counts too."""
        return self.bytes_received + self.bytes_sent - self.stream.unsent()

    def pause_body(self) -> None:
        """Stop reading the body (back-pressure)."""
        self.stream.pause_body()

    def resume_body(self) -> None:
        if not self.body_complete:
            self.stream.resume_body()

    def body_came_whole(self, body: bytes) -> None:
        """Called by the stream, before the exchange begins: the body came together with the head."""
        self._unread = body
        self.bytes_received = len(body)
        self.body_complete = True

    def put_back(self, body: bytes) -> None:
        """The body, which has been read to its end, is ``body``, and is to be read anew."""
        self._unread = body
        self.bytes_received = self.content_length = len(body)
        self.body_wanted = False

    def body_received(self, data: bytes) -> None:
        """Called by the stream with a piece of the body. It is buffered, and reading pauses, until ``read_body``."""
        self.bytes_received += len(data)
        if self.finished:
            return
        if self.body_wanted:
            assert self.listener is not None
            self.listener.body_received(data)
        else:
            self._unread += data
            self.stream.pause_body()

    def body_finished(self) -> None:
        """Called by the stream: the body is complete."""
        self.body_complete = True
        if self.body_wanted and not self.finished:
            assert self.listener is not None
            self.listener.body_finished()

    def client_failed(self, error: Refused | ClientLost) -> None:
        """Called by the stream: the request has failed."""
        if self.finished:
            return
        if isinstance(error, ClientLost):
            self.finished = True
            self._ended(error)
        if self.listener is not None:
            self.listener.client_failed(error)

    # What the client gets.

    def start(self, status: int, headers: Headers, reason: bytes = b"") -> None:
        """Begin the response, to which a ``date`` is added where it has none. Without a ``content-length`` the body is
        framed as the client's version allows."""
        if not self.finished:
            self.started = True
            self.code = status
            self.stream.start_response(self, status, reason or reason_of(status), headers)

    def write(self, data: bytes) -> None:
        """A piece of the response's body, sent with the next ``flush`` or ``finish``."""
        if not self.finished:
            self.bytes_sent += len(data)
            self.stream.send(data)

    def flush(self) -> None:
        self.stream.flush()

    def finish(self, trailers: Headers | None = None) -> None:
        """The response is complete. Its ``trailers`` are sent to who takes them."""
        if not self.finished:
            self.finished = True
            self.stream.end_response(self, trailers)
            self._ended(None)

    def abort(self, code: int = 2) -> None:
        """Cut the response, so that the client cannot mistake it for complete. Over HTTP/2 its stream is reset with
        ``code``, by default INTERNAL_ERROR."""
        if not self.finished:
            self.finished = True
            self.stream.abort(code)
            self._ended(ClientLost())

    def respond(self, status: int, headers: Headers, body: bytes, reason: bytes = b"") -> None:
        """Send a complete response. A ``date`` is added if it has none."""
        if self.finished:
            return
        self.started = self.finished = True
        self.code = status
        if self.method != b"HEAD":
            self.bytes_sent += len(body)
        self.stream.respond(self, status, reason or reason_of(status), headers, body)
        if self.on_end is not None:
            self.on_end(None)

    def start_tunnel(self, headers: Headers) -> End:
        """Answer 101, and return the connection for a tunnel."""
        self.started = True
        self.code = 101
        self.finished = True
        return self.stream.start_tunnel(self, headers)

    def _ended(self, error: ClientLost | None) -> None:
        if self.on_end is not None:
            self.on_end(error)
