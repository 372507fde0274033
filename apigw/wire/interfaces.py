# Compiled: see docs/decisions/compiled.md
"""What is spoken between a proxy and the protocols towards services: a message, its connection, who is told.

Each protocol renders a message for itself, and nobody above it knows which one carries it. The same for clients stands
in ``request``, with the class whose two sides they are: ``Listener`` and ``Stream``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from apigw.wire.deadlines import NEVER
from apigw.wire.errors import UpstreamError
from apigw.wire.headers import Headers
from apigw.wire.tunnel import End


class Message:
    """A request up to its body, which has been checked: what is in it can be sent as it is.

    ``target`` is in origin-form, ``authority`` what the service is called. ``fields`` have lower-case names, and are
    neither the authority, nor of one hop (``HOP_BY_HOP``), nor framing: a protocol writes those as it has them.
    ``content_length`` is None where the body is of unknown length, and 0 where there is none. ``upgrade`` asks for a
    WebSocket. ``timeout`` is how many seconds the answer may take to begin, and then between two pieces of it.
    """

    def __init__(
        self,
        method: bytes,
        target: bytes,
        authority: bytes,
        fields: Headers,
        content_length: int | None,
        upgrade: bool,
        timeout: float,
    ) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.fields = fields
        self.content_length = content_length
        self.upgrade = upgrade
        self.timeout = timeout


class Receiver(Protocol):
    """Who asked, and is told the answer. After ``response_finished`` or ``response_failed`` nothing more is called."""

    def response_started(self, status: int, reason: bytes, headers: Headers) -> None:
        """The final response's head. Names are in lower case; framing has been checked.

        101 is the answer to a message with ``upgrade``, and the last call: ``give_up`` the connection then.
        """

    def response_whole(self, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        """The final response, which came complete: in place of all other calls."""

    def response_received(self, data: bytes) -> None:
        """A piece of its body."""

    def response_paused(self) -> None:
        """No more for now: what is held can be flushed."""

    def response_finished(self) -> None:
        """The body is complete."""

    def response_failed(self, error: UpstreamError) -> None:
        """There will be no (more) answer."""

    def pause_body(self) -> None:
        """The service does not take more of the request's body for now."""

    def resume_body(self) -> None: ...

    def moved(self) -> int | None:
        """How many bytes have come from the client and been taken by it; None while it is not the client that is waited
        for. Asked while others wait for a connection, a few times a second."""

    def too_slow(self) -> None:
        """End the exchange: others wait for its connection."""


class UpstreamConnection(ABC):
    """A connection to a service, which carries one exchange at a time.

    ``send`` a message, then ``write`` and ``finish`` its body; the answer goes to the receiver. A base class and no
    Protocol, because calls by way of a Protocol are not compiled.
    """

    when_ready: Deferred[UpstreamConnection]
    """Fires when an exchange may begin: connected, and over TLS the peer verified."""
    deadline: float
    """When it gives up what it waits for, as ``deadlines.Timed``. While it is idle, the pool's to set."""
    usable: bool
    """Whether the next exchange may begin, and would be repeated on another connection if this one has ended."""
    used: bool
    """Whether an exchange has been completed on it, so that the service may be closing it for being idle."""

    def __init__(self) -> None:
        self.when_ready = Deferred()
        self.deadline = NEVER
        self.usable = False
        self.used = False

    @property
    @abstractmethod
    def receiver(self) -> Receiver | None:
        """Whose exchange it carries."""

    # The exchange's side.

    @abstractmethod
    def send(self, message: Message, receiver: Receiver) -> None:
        """Begin an exchange. The message may wait for the first ``write``, ``flush`` or ``finish``."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """A piece of the request's body, which is sent at once. An empty one is nothing."""

    @abstractmethod
    def flush(self) -> None:
        """Send what is held."""

    @abstractmethod
    def finish(self) -> None:
        """The request is complete; from now on the service is waited for."""

    @property
    @abstractmethod
    def event_stream(self) -> bool:
        """Whether the response that has begun is one that may be silent for as long as it likes."""

    @abstractmethod
    def pause_response(self) -> None:
        """The client reads slower than the service sends. Meanwhile the service is not waited for."""

    @abstractmethod
    def resume_response(self) -> None: ...

    @abstractmethod
    def abandon(self) -> None:
        """Nobody wants the answer any more; the receiver is told nothing more."""

    @abstractmethod
    def give_up(self) -> End:
        """After a 101: what the connection is from then on."""

    # The pool's side.

    @abstractmethod
    def connect_until(self, deadline: float) -> None:
        """It is being connected, and given up when that is not done by then."""

    @abstractmethod
    def is_quiet(self) -> bool:
        """Whether it is idle and nothing waits to be read: neither its end nor an answer that nobody asked for."""

    @abstractmethod
    def close(self) -> None:
        """Close an idle connection, or a tunnel, when what was written is sent."""


Told = Callable[[UpstreamConnection], None]
Make = Callable[[Told, Told, Told], UpstreamConnection]
"""Makes a connection that is not connected yet. It calls the first when it may carry the next exchange, the second when
it has become a tunnel, which is no exchange any more, and the third when it is gone."""
