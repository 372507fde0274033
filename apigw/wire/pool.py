# Compiled: see docs/decisions/compiled.md
"""A pool of connections to one address, each with one exchange at a time (HTTP/1.1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from errno import EMFILE, ENFILE
from os import strerror
from random import random
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from apigw.wire.allowance import Allowance
from apigw.wire.alpn import OtherProtocol, take_over
from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.errors import ConnectFailed, PoolExhausted, UpstreamError
from apigw.wire.interfaces import Connections, Make, UpstreamConnection
from apigw.wire.reactor.connecting import OneConnection
from apigw.wire.slowest import Slowest

PATIENCE: Final = 0.25
"""Seconds that a request waits for a connection before the slowest client is cut; then the next slowest, and so on."""
LOOKS_EVERY: Final = 1.0
"""Seconds between two samples of the clients' rates, while the pool is full and no request waits."""

NO_FILES: Final = frozenset({EMFILE, ENFILE})
"""Errors of this machine, not of the service."""


ENDLESS: Final = 2**31
"""More requests than one connection carries."""


@frozen
class PoolSettings:
    """Times are seconds. Up to ``max_pending`` exchanges wait for a connection, for up to ``connect_timeout``.

    A connection takes no further exchange after ``max_age``, or ``max_requests``. ``allowance`` is shared with others,
    and has the maxima; without one, each pool has its own.
    """

    connect_timeout: float = 5.0
    keepalive_timeout: float = 4.0
    max_connections: int = 256
    max_pending: int = 1024
    max_age: float = NEVER
    max_requests: int = ENDLESS
    allowance: Allowance | None = None

    def allowed(self) -> Allowance:
        return self.allowance or Allowance(self.max_connections, self.max_pending)


def jittered(most: float) -> float:
    """Up to a tenth less, at random, so that connections that began together do not end together."""
    return most * (1 - random() / 10)


OnOther = Callable[[Any, list[Deferred[UpstreamConnection]]], None]
"""Gets the transport of a connection for which the service chose the other protocol, and what waits for connections."""


class Queued:
    """An exchange's place in the queue for a connection. ``forget`` removes it there."""

    def __init__(self, since: float, deadline: float, forget: Callable[[Queued], None]) -> None:
        self.since = since
        self.deadline = deadline
        self.given: Deferred[UpstreamConnection] = Deferred(lambda _: forget(self))
        self.error: UpstreamError = PoolExhausted("no connection became free in time")
        """The reason for which it has waited in vain at its deadline."""
        self._forget = forget

    def deadline_passed(self) -> None:
        self._forget(self)
        self.given.errback(self.error)


def why_not(failure: Failure) -> UpstreamError:
    """The error for a failed connection attempt: of the service, or of this process, which has no more files.

    In the words of the system where it has some: "Connection refused".
    """
    number = getattr(failure.value, "osError", None)
    if number in NO_FILES:
        return PoolExhausted("the process may open no more files")
    return ConnectFailed(strerror(number) if isinstance(number, int) else failure.getErrorMessage())


class Dialling:
    """A connection attempt: the look-up of the name, and the attempts for each of its addresses."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.late = False
        self.connecting: Deferred[Any] | None = None

    def deadline_passed(self) -> None:
        self.deadline = NEVER
        self.late = True
        if self.connecting is not None:
            self.connecting.cancel()


class Pool(Connections):
    """The connections to one endpoint. The last used idle one is taken first (LIFO), so that unneeded ones time out."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, make: Make, settings: PoolSettings, deadlines: Deadlines
    ) -> None:
        self._endpoint = endpoint
        self._make = make
        self._settings = settings
        self._allowance = settings.allowed()
        self._allowance.retries(self._dial_for_waiting)
        self._deadlines = deadlines
        self._idle: list[UpstreamConnection] = []
        self._waiting: deque[Queued] = deque()
        self._open: dict[UpstreamConnection, None] = {}  # connected or connecting, but for tunnels
        self._tunnels: set[UpstreamConnection] = set()
        self._closed = False
        self._dialling = False
        self._slowest = Slowest()
        self.deadline = NEVER
        """When the clients' rates are sampled next; only while the pool is full."""
        self.on_other: OnOther | None = None
        """Set if the service may choose HTTP/2 for a connection instead."""

    @property
    def connections(self) -> int:
        return len(self._open)

    @property
    def tunnels(self) -> int:
        return len(self._tunnels)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, careful: bool = False) -> UpstreamConnection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if (connection.usable and not careful) or connection.is_quiet():
                return connection
            # The reactor will read what has arrived: its end, or unrequested bytes.
        return None

    def connect(self) -> Deferred[UpstreamConnection]:
        if self._allowance.take():
            return self._dial()
        if not self._allowance.wait():
            return fail(PoolExhausted("too many requests wait for a connection"))
        now = self._deadlines.seconds()
        waiting = Queued(now, now + self._settings.connect_timeout, self._forget)
        self._waiting.append(waiting)
        self.deadline = min(self.deadline, now + PATIENCE)
        self._deadlines.watch(waiting)
        return waiting.given

    def deadline_passed(self) -> None:
        """The pool is full: sample the clients' rates, and cut the slowest if requests wait."""
        if not self._allowance.is_full:
            self.deadline = NEVER
            self._deadlines.forget(self)
            self._slowest.forget()
            return
        now = self._deadlines.seconds()
        waiting = self._waiting
        self.deadline = now + (PATIENCE if waiting else LOOKS_EVERY)
        slowest = self._slowest.look(self._open, now)
        if slowest is not None and waiting and now - waiting[0].since >= PATIENCE:
            slowest.too_slow()

    def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def adopt(self, transport: Any) -> None:
        """Add a connection that was made elsewhere, and whose handshake is complete."""
        connection = self._make(self._free, self._set_apart, self._lose)
        self._allowance.take_anyway()
        self._opened(connection)
        connection.when_ready.addCallbacks(self._free, lambda _: None)
        take_over(transport, connection)

    def _opened(self, connection: UpstreamConnection) -> None:
        self._open[connection] = None
        settings = self._settings
        connection.expires = self._deadlines.seconds() + jittered(settings.max_age)
        connection.left = max(1, round(jittered(settings.max_requests)))
        if self.deadline == NEVER and self._allowance.is_full:
            self.deadline = self._deadlines.seconds()
            self._deadlines.watch(self)

    def _dial(self) -> Deferred[UpstreamConnection]:
        given: Deferred[UpstreamConnection] = Deferred()
        self._dial_for(given)
        return given

    def _dial_for(self, given: Deferred[UpstreamConnection]) -> None:
        connection = self._make(self._free, self._set_apart, self._lose)
        self._opened(connection)
        dialling = Dialling(self._deadlines.seconds() + self._settings.connect_timeout)
        connection.connect_until(dialling.deadline)
        self._deadlines.watch(dialling)

        def ready(connection: UpstreamConnection) -> None:
            if given.called:  # cancelled meanwhile
                self._free(connection)
            else:
                given.callback(connection)

        def failed(failure: Failure) -> None:
            if given.called:
                return
            given.errback(why_not(failure))

        def connected(_: object) -> None:
            # From here on, for instance during a TLS handshake, the connection has the same deadline itself.
            self._deadlines.forget(dialling)

        def not_connected(failure: Failure) -> None:
            self._deadlines.forget(dialling)
            self._lose(connection)
            if self.on_other is not None and isinstance(failure.value, OtherProtocol):
                self.on_other(failure.value.transport, [given])
                return
            if dialling.late:
                failure = Failure(ConnectFailed(f"no connection within {self._settings.connect_timeout:g} s"))
            connection.when_ready.errback(failure)

        connection.when_ready.addCallbacks(ready, failed)
        dialling.connecting = self._endpoint.connect(OneConnection(connection))
        dialling.connecting.addCallbacks(connected, not_connected)

    def _free(self, connection: UpstreamConnection) -> None:
        now = self._deadlines.seconds()
        if connection.used:
            connection.left -= 1
        if connection.left <= 0 or connection.expires <= now:
            del self._open[connection]  # it may take its time to close, and its place is free
            self._allowance.give_back()
            connection.close()
            self._dial_for_waiting()
            return
        if not self._allowance.alone and self._allowance.is_wanted and self._allowance.gives_way(bool(self._waiting)):
            connection.close()  # its place is free when it is closed: the service never has more than it may
            return
        if self._waiting:
            self._next_waiting().callback(connection)
            return
        if self._closed:
            connection.close()
            return
        deadline = now + self._settings.keepalive_timeout
        connection.deadline = deadline if deadline < connection.expires else connection.expires
        self._idle.append(connection)

    def _set_apart(self, connection: UpstreamConnection) -> None:
        """The connection is a tunnel now, which may last for hours. Its place in the pool is free."""
        self._tunnels.add(connection)
        del self._open[connection]
        self._allowance.give_back()
        self._dial_for_waiting()

    def _lose(self, connection: UpstreamConnection) -> None:
        if connection in self._tunnels:
            self._tunnels.remove(connection)
            return
        if connection in self._open:
            del self._open[connection]
            self._allowance.give_back()
        if connection in self._idle:
            self._idle.remove(connection)
        self._dial_for_waiting()

    def _dial_for_waiting(self) -> None:
        if self._dialling:
            return  # an attempt failed at once: the loop below goes on
        self._dialling = True
        while self._waiting and self._allowance.take():
            self._dial_for(self._next_waiting())
        self._dialling = False

    def _next_waiting(self) -> Deferred[UpstreamConnection]:
        waiting = self._waiting.popleft()
        self._allowance.leave()
        self._deadlines.forget(waiting)
        return waiting.given

    def _forget(self, waiting: Queued) -> None:
        self._deadlines.forget(waiting)
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            self._allowance.leave()

    def give_way(self) -> None:
        idle = self._idle
        for connection in idle[: (len(idle) + 1) // 2]:
            if not self._allowance.is_wanted:
                break
            idle.remove(connection)
            connection.close()
