# Compiled: see docs/decisions/compiled.md
"""Connections to one address, kept and shared out. Which protocol they speak is nobody's business here."""

from __future__ import annotations

from collections import deque
from errno import EMFILE, ENFILE

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ConnectFailed, PoolExhausted
from apigw.wire.interfaces import Make, UpstreamConnection
from apigw.wire.reactor.transport import OneConnection

NO_FILES = frozenset({EMFILE, ENFILE})
"""Errors that are about this machine, and not about the service."""


@frozen
class PoolSettings:
    """Times are seconds. ``max_pending`` exchanges wait for one of ``max_connections``, up to ``connect_timeout``."""

    connect_timeout: float = 5.0
    keepalive_timeout: float = 4.0
    max_connections: int = 256
    max_pending: int = 1024


class _Waiting:
    """An exchange's place in the queue for a connection."""

    def __init__(self, pool: Pool, deadline: float) -> None:
        self.deadline = deadline
        self.given: Deferred[UpstreamConnection] = Deferred(lambda _: pool._forget(self))
        self._pool = pool

    def deadline_passed(self) -> None:
        self._pool._forget(self)
        self.given.errback(PoolExhausted("no connection became free in time"))


class Pool:
    """The connections to one endpoint. An idle one is used again, the last used first, so that the rest can go away."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, make: Make, settings: PoolSettings, deadlines: Deadlines
    ) -> None:
        self._endpoint = endpoint
        self._make = make
        self._settings = settings
        self._deadlines = deadlines
        self._idle: list[UpstreamConnection] = []
        self._waiting: deque[_Waiting] = deque()
        self._open = 0  # connected or connecting, but for tunnels
        self._tunnels: set[UpstreamConnection] = set()
        self._closed = False
        self._dialling = False

    @property
    def connections(self) -> int:
        return self._open

    @property
    def tunnels(self) -> int:
        """Connections that became tunnels. They are as many as clients hold, and do not count as ``connections``."""
        return len(self._tunnels)

    def take(self, careful: bool = False) -> UpstreamConnection | None:
        """An idle connection, at once, or None.

        ``careful``: for an exchange that could not be repeated, one of which the end has not come, though unread.
        """
        idle = self._idle
        while idle:
            connection = idle.pop()
            if (connection.usable and not careful) or connection.is_quiet():
                return connection
            # The reactor is about to read what is there: its end, or what nobody asked for.
        return None

    def connect(self) -> Deferred[UpstreamConnection]:
        """A new connection, or where there are too many, the next that becomes free.

        Fails with ``ConnectFailed`` or ``PoolExhausted``.
        """
        if self._open < self._settings.max_connections:
            return self._dial()
        if len(self._waiting) >= self._settings.max_pending:
            return fail(PoolExhausted("too many requests wait for a connection"))
        waiting = _Waiting(self, self._deadlines.seconds() + self._settings.connect_timeout)
        self._waiting.append(waiting)
        self._deadlines.watch(waiting)
        return waiting.given

    def close(self) -> None:
        """Close what is idle now, and what is in use when its exchange has ended."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _dial(self) -> Deferred[UpstreamConnection]:
        given: Deferred[UpstreamConnection] = Deferred()
        self._dial_for(given)
        return given

    def _dial_for(self, given: Deferred[UpstreamConnection]) -> None:
        self._open += 1
        connection = self._make(self._free, self._set_apart, self._lose)
        connection.connect_until(self._deadlines.seconds() + self._settings.connect_timeout)

        def ready(connection: UpstreamConnection) -> None:
            if given.called:  # cancelled meanwhile
                self._free(connection)
            else:
                given.callback(connection)

        def failed(failure: Failure) -> None:
            if given.called:
                return
            if getattr(failure.value, "osError", None) in NO_FILES:
                given.errback(PoolExhausted("the process may open no more files"))
            else:
                given.errback(ConnectFailed(failure.getErrorMessage()))

        def not_connected(failure: Failure) -> None:
            self._lose(connection)
            connection.when_ready.errback(failure)

        connection.when_ready.addCallbacks(ready, failed)
        self._endpoint.connect(OneConnection(connection)).addErrback(not_connected)

    def _free(self, connection: UpstreamConnection) -> None:
        if self._waiting:
            self._next_waiting().callback(connection)
            return
        if self._closed:
            connection.close()
            return
        connection.deadline = self._deadlines.seconds() + self._settings.keepalive_timeout
        self._idle.append(connection)

    def _set_apart(self, connection: UpstreamConnection) -> None:
        """It is a tunnel now, which may last for hours: its place is free for exchanges."""
        self._tunnels.add(connection)
        self._open -= 1
        self._dial_for_waiting()

    def _lose(self, connection: UpstreamConnection) -> None:
        if connection in self._tunnels:
            self._tunnels.remove(connection)
            return
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        self._dial_for_waiting()

    def _dial_for_waiting(self) -> None:
        if self._dialling:
            return  # an attempt failed at once: the loop below goes on
        self._dialling = True
        while self._waiting and self._open < self._settings.max_connections:
            self._dial_for(self._next_waiting())
        self._dialling = False

    def _next_waiting(self) -> Deferred[UpstreamConnection]:
        waiting = self._waiting.popleft()
        self._deadlines.forget(waiting)
        return waiting.given

    def _forget(self, waiting: _Waiting) -> None:
        self._deadlines.forget(waiting)
        if waiting in self._waiting:
            self._waiting.remove(waiting)
