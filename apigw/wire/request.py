# Compiled: see docs/decisions/compiled.md
"""One request and its response, the same for HTTP/1.1 and HTTP/2.

A proxy uses what is here: raw header pairs, ``read_body``, ``start``, ``write``, ``flush``, ``finish``. A Resource of
``twisted.web`` is given the same as an ``IRequest``: see ``web_request``.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.web.http import RESPONSES

from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.tunnel import End

BODYLESS_STATUS = frozenset({204, 304})
_REASONS = {
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
    """Who is told what the client sends after the headers."""

    def body_received(self, data: bytes) -> None:
        """A piece of the request's body. More follow until ``Request.pause_body``."""

    def body_finished(self) -> None:
        """The body is complete; without a body this is called as soon as it is asked for."""

    def client_failed(self, error: Refused | ClientLost) -> None:
        """The body is malformed or late (``Refused``, which can be answered unless the response began), or the client
        is gone (``ClientLost``). Called at most once, and not after ``finish``."""


class Stream(Protocol):
    """The connection, or HTTP/2 stream, on which a request came."""

    transport: ITransport
    secure: bool
    peer: bytes

    def start_response(self, request: Request, status: int, reason: bytes, headers: Headers) -> None: ...
    def respond(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None: ...
    def send(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def end_response(self, request: Request) -> None: ...
    def abort(self) -> None: ...
    def unsent(self) -> int:
        """How many bytes the client has not taken yet."""

    def want_body(self, request: Request) -> None: ...
    def pause_body(self) -> None: ...
    def resume_body(self) -> None: ...
    def set_producer(self, producer: IPushProducer | None) -> None: ...
    def start_tunnel(self, request: Request, headers: Headers) -> End: ...


class Request:
    """Attributes, all bytes as sent: ``method``, ``uri`` (the target in origin-form), ``path``, ``query`` (with its
    ``?``), ``headers`` (pairs, lower-case names, without those of one hop), ``authority`` (the Host), ``clientproto``,
    ``stream.peer``.

    ``content_length`` is None where the body is of unknown length, 0 where there is none.
    """

    identifier: bytes = b""
    """What the program calls it, in its answer and its log, where it has a name."""
    listener: Listener | None
    on_end: Callable[[ClientLost | None], None] | None = None
    """Told once, when the response is complete or the client is lost."""
    body_complete: bool = False
    upgrade: bool = False
    """Whether the client asks for a WebSocket."""
    body_wanted: bool = False
    bytes_received: int = 0
    started: bool = False
    finished: bool = False
    code: int = 200
    bytes_sent: int = 0
    """Of the response's body."""
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
        """Forget fields that were for one hop only (RFC 9110 §7.6.1)."""
        if names:
            self.headers = [header for header in self.headers if header[0] not in names]

    # What the client sends.

    def read_body(self) -> None:
        """Begin to deliver the body to the listener; this is what sends ``100 Continue``."""
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
        """Ask the client, by way of flow control, to wait."""
        self.stream.pause_body()

    def resume_body(self) -> None:
        if not self.body_complete:
            self.stream.resume_body()

    def body_received(self, data: bytes) -> None:
        """For the stream: a piece of the body came in. What nobody wants yet is kept, and the client made to wait."""
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
        """For the stream: the body is complete."""
        self.body_complete = True
        if self.body_wanted and not self.finished:
            assert self.listener is not None
            self.listener.body_finished()

    def client_failed(self, error: Refused | ClientLost) -> None:
        """For the stream: nothing more will come."""
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
        """A piece of the response's body, which goes out with the next ``flush`` or ``finish``."""
        if not self.finished:
            self.bytes_sent += len(data)
            self.stream.send(data)

    def flush(self) -> None:
        self.stream.flush()

    def finish(self) -> None:
        """The response is complete."""
        if not self.finished:
            self.finished = True
            self.stream.end_response(self)
            self._ended(None)

    def abort(self) -> None:
        """Cut the response short, in a way that no client can take for its end."""
        if not self.finished:
            self.finished = True
            self.stream.abort()
            self._ended(ClientLost())

    def respond(self, status: int, headers: Headers, body: bytes, reason: bytes = b"") -> None:
        """A whole response at once, to which a ``date`` is added where it has none."""
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
        """Answer 101 and give up the connection."""
        self.started = True
        self.code = 101
        self.finished = True
        return self.stream.start_tunnel(self, headers)

    def _ended(self, error: ClientLost | None) -> None:
        if self.on_end is not None:
            self.on_end(error)
