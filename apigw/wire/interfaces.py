# Compiled: see docs/decisions/compiled.md
"""The interfaces between a proxy and the client side of HTTP: the connection that sends a request, and its receiver.

A proxy sends a request by an ``UpstreamConnection``, which it gets from ``Connections``, and implements ``Receiver``
for the answer. Nothing here depends on the version of HTTP: each protocol renders requests for itself. The interfaces
of the server side, ``Listener`` and ``Stream``, are in ``request``.

All calls are made in the reactor's thread. Times are seconds of the reactor's clock. Names of fields are in lower case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred

from apigw.wire.deadlines import NEVER
from apigw.wire.errors import UpstreamError
from apigw.wire.headers import Headers
from apigw.wire.tunnel import End

MAX_HEAD: Final = 256 * 1024
"""Bytes of the head of a service's answer. Clients are held to ``max_header_size``; services are trusted with more."""
MAX_HEADERS: Final = 1000
MAX_INTERIM: Final = 32
"""Interim responses before the final one. More carry no information, but keep the gateway busy."""
EVENT_STREAM: Final = b"text/event-stream"


class Receiver(Protocol):
    """Receives the answer to one request.

    The order of calls is either ``response_whole`` alone, or ``response_started``, then any number of
    ``response_received`` and ``response_paused``, then ``response_trailers`` if there are any, then
    ``response_finished``. ``response_failed`` may come at any point
    instead of the rest. ``response_whole``, ``response_finished`` and ``response_failed`` are the last call for a
    request. After ``UpstreamConnection.abandon`` there are no more calls either.
    """

    def response_started(self, status: int, reason: bytes, headers: Headers) -> None:
        """The head of the final response; interim responses (1xx) are dropped.

        ``status`` is 200 to 599, or 101 for a request with ``upgrade``. 101 is the last call: the receiver must call
        ``UpstreamConnection.give_up``. ``headers`` have been validated. They have no hop-by-hop fields, except
        ``Upgrade`` and ``Connection`` of a 426 (RFC 9110 §15.5.22), and no ``Transfer-Encoding``.
        """

    def response_whole(self, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        """The final response with its whole ``body``, if it was complete when it was read; replaces all other calls."""

    def response_received(self, data: bytes) -> None:
        """A piece of the response's body, not empty and without framing: all of it that was read together."""

    def response_paused(self) -> None:
        """All data that has arrived was passed on, and the response is not complete: flush what was written so far."""

    def response_trailers(self, trailers: Headers) -> None:
        """The trailers, validated as ``headers`` are. They may have fields that are not for trailers
        (``headers.NOT_IN_TRAILERS``)."""

    def response_finished(self) -> None:
        """The response is complete. The connection may already carry another exchange."""

    def response_failed(self, error: UpstreamError) -> None:
        """The response is invalid or incomplete, and the exchange is over.

        ``UpstreamLost``: the connection closed or the stream was reset; ``UpstreamMalformed``: not valid HTTP;
        ``UpstreamTimedOut``: the request's ``timeout`` has passed.
        """

    def pause_body(self) -> None:
        """Back-pressure: the buffer towards the service is full. Write no more of the request's body."""

    def resume_body(self) -> None:
        """The buffer has drained: go on after ``pause_body``."""

    def moved(self) -> int | None:
        """How many bytes have come from the client and been taken by it; None while the client is not waited for.

        Called a few times a second, while others wait for a connection.
        """

    def too_slow(self) -> None:
        """End the exchange, because others wait for its connection."""


class UpstreamConnection(ABC):
    """A connection to a service that carries one exchange at a time; with HTTP/2, one stream of a connection.

    For one exchange call ``send``, then ``write`` any number of times, then ``finish``. The answer goes to the
    receiver, and may come before ``finish``. A base class, because mypyc does not compile calls by a Protocol.
    """

    when_ready: Deferred[UpstreamConnection]
    """Fires with the connection when it is established, and over TLS the server's certificate verified. Fails with the
    reason of the loss otherwise."""
    deadline: float
    """When ``deadlines.Deadlines`` ends the connection or its exchange, in seconds; ``NEVER`` while nothing is waited
    for. While the connection is idle, its pool sets it."""
    usable: bool
    """Whether it is idle, and can tell later whether it was already closed when the next request was sent. Then that
    request can be repeated safely, and ``is_quiet``, a system call, is not needed before it."""
    used: bool
    """Whether it has completed an exchange. The service may be closing a used connection for being idle."""
    receiver: Receiver | None
    """The receiver of the exchange in progress."""
    expires: float
    """When its pool closes it, in seconds: as soon as it is idle. Its pool sets it."""
    left: int
    """The number of exchanges that it may still carry, with the present one."""
    timeout: float
    """That of ``send``. A change holds from the next wait on."""
    version: bytes
    """The HTTP version of the last response, for ``Via``: ``HTTP/1.1``, as in ``Request.clientproto``."""

    def __init__(self) -> None:
        self.when_ready = Deferred()
        self.deadline = NEVER
        self.usable = False
        self.used = False
        self.expires = NEVER
        self.left = 0
        self.timeout = 0.0
        self.version = b"HTTP/1.1"
        self.receiver = None

    # The exchange's side.

    @abstractmethod
    def send(
        self,
        method: bytes,
        target: bytes,
        authority: bytes,
        fields: Headers,
        content_length: int | None,
        upgrade: bool,
        timeout: float,
        receiver: Receiver,
        trailers: bool = False,
    ) -> None:
        """Begin an exchange. The head is sent with the first ``write``, ``flush`` or ``finish``.

        The parts of the request have been validated, so a protocol sends them without further checks.
        ``method``: in capitals as registered.
        ``target``: in origin-form, path and query (RFC 9112 §3.2.1).
        ``authority``: the value of ``Host``, or of ``:authority``.
        ``fields``: pairs of name and value, without ``Host``, without hop-by-hop fields (``headers.HOP_BY_HOP``), and
        without ``Content-Length`` and ``Transfer-Encoding``: the protocol adds its own.
        ``content_length``: bytes of the body; 0 if there is none, None if the length is unknown.
        ``upgrade``: whether to ask for a WebSocket (RFC 6455 §4.1).
        ``timeout``: seconds that the service may take to the head of the answer, and then between two pieces of its
        body.
        ``trailers``: whether to tell the service that trailers are welcome (``TE``, RFC 9110 §10.1.4). Over HTTP/1.1 it
        is not told.

        Raises ``RuntimeError`` if the connection is not idle.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send a piece of the request's body at once. No effect if it is empty, or if the connection is closing.

        Raises ``RuntimeError`` if no request is being sent.
        """

    @abstractmethod
    def flush(self) -> None:
        """Send what is buffered."""

    @abstractmethod
    def finish(self, trailers: Headers | None = None) -> None:
        """The request is complete. From now on the request's ``timeout`` runs. Raises as ``write`` does.

        ``trailers`` have been validated. HTTP/1.1 drops them: no service says there that it takes any.
        """

    @property
    @abstractmethod
    def event_stream(self) -> bool:
        """Whether the response that has begun is a ``text/event-stream``, to which no ``timeout`` applies."""

    @abstractmethod
    def pause_response(self) -> None:
        """Back-pressure: read no more of the response, because the client is slow. The ``timeout`` stops meanwhile."""

    @abstractmethod
    def resume_response(self) -> None:
        """Read on after ``pause_response``. The ``timeout`` starts again."""

    @abstractmethod
    def abandon(self) -> None:
        """Cancel the exchange. The receiver gets no more calls. HTTP/1.1 closes the connection, HTTP/2 the stream."""

    @abstractmethod
    def give_up(self) -> End:
        """After a 101: the transport for a tunnel, with what arrived behind the response. It carries no more exchanges.

        Raises ``RuntimeError`` if there was no 101.
        """

    # The pool's side.

    @abstractmethod
    def connect_until(self, deadline: float) -> None:
        """Set the deadline, in seconds, for establishing the connection. No effect once that is done."""

    @abstractmethod
    def is_quiet(self) -> bool:
        """Whether it is idle and its socket has nothing to read: neither its end nor an unsolicited answer.

        Costs a system call.
        """

    @abstractmethod
    def close(self) -> None:
        """Close an idle connection, or a tunnel, after the written data is sent."""


Told = Callable[[UpstreamConnection], None]
"""A callback with the connection that it is about."""
Make = Callable[[Told, Told, Told], UpstreamConnection]
"""Makes a connection that is not established yet, from three callbacks: ``on_free`` is called each time that an
exchange is complete and the connection can carry the next one, ``on_tunnel`` when it becomes a tunnel, and ``on_lost``
once, when it is closed."""


class Connections(ABC):
    """A pool of the connections to one address: ``pool.Pool`` for HTTP/1.1, ``http2.streams.Streams`` for HTTP/2."""

    @property
    @abstractmethod
    def connections(self) -> int:
        """The number of connections, established or being established, without tunnels."""

    @property
    @abstractmethod
    def tunnels(self) -> int:
        """The number of connections that became tunnels. No limit but that of clients' connections applies to them."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """How many exchanges wait for a connection."""

    @abstractmethod
    def take(self, careful: bool = False) -> UpstreamConnection | None:
        """A connection for an exchange that can begin at once, or None.

        ``careful`` is for requests that must not be repeated: it checks, by a system call, that the service has not
        closed the connection (``UpstreamConnection.is_quiet``).
        """

    @abstractmethod
    def connect(self) -> Deferred[UpstreamConnection]:
        """A new connection, or at the maximum number the next one that becomes free. Cancel it to stop waiting.

        Fails with ``ConnectFailed``, or with ``PoolExhausted`` if too many wait already or none becomes free in time.
        """

    @abstractmethod
    def give_way(self) -> None:
        """Give up connections that other processes wait for. Called twice a second where there are others."""

    @abstractmethod
    def close(self) -> None:
        """Close idle connections now, and each other one when its exchange has ended. Tunnels stay."""
