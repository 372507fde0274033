"""Two connections joined into one: what a WebSocket is once the handshake is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from apigw.wire.deadlines import NEVER, Deadlines
from apigw.wire.reactor.transport import replace_protocol


class End(NamedTuple):
    """A connection that was given up for a tunnel. ``close`` ends it when what was written to it is sent, or nobody
    takes that in time."""

    transport: Any
    early: bytes
    """What its other side sent behind the handshake."""
    close: Callable[[], None]


def join(client: End, upstream: End, deadlines: Deadlines, idle_timeout: float) -> Deferred[None]:
    """Copy both ways, each side at the pace of the other, until either closes. What came early goes first.

    When one side is lost, the other is closed; when nothing has come from either for ``idle_timeout`` seconds, both
    are. Fires when both are gone. Cancelling closes both.
    """
    return _Tunnel(client, upstream, deadlines, idle_timeout).done


class _Tunnel:
    def __init__(self, client: End, upstream: End, deadlines: Deadlines, idle_timeout: float) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self.deadline_passed())
        self._deadlines = deadlines
        self._idle_timeout = idle_timeout
        self._ends = [client, upstream]
        self.moved()
        deadlines.watch(self)
        _Side(self, client, upstream.transport)
        _Side(self, upstream, client.transport)
        for source, sink in ((client, upstream), (upstream, client)):
            if source.early:
                sink.transport.write(source.early)

    def moved(self) -> None:
        self.deadline = self._deadlines.seconds() + self._idle_timeout

    def deadline_passed(self) -> None:
        self.deadline = NEVER
        for end in self._ends:
            end.close()

    def lost(self, end: End) -> None:
        self._ends.remove(end)
        for other in self._ends:
            other.close()
        if not self._ends:
            self._deadlines.forget(self)
            if not self.done.called:  # by who cancelled it
                self.done.callback(None)


class _Side:
    """The protocol of one end from now on. The one before it is still told when its connection is lost."""

    def __init__(self, tunnel: _Tunnel, end: End, sink: Any) -> None:
        self._tunnel = tunnel
        self._end = end
        self._sink = sink
        self._before = replace_protocol(end.transport, self)
        sink.registerProducer(end.transport, True)

    def dataReceived(self, data: bytes) -> None:
        self._tunnel.moved()
        self._sink.write(data)

    def connectionLost(self, reason: Failure) -> None:
        self._before.connectionLost(reason)
        self._tunnel.lost(self._end)
