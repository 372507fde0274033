"""Two connections joined into one: what a WebSocket is once the handshake is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class End(NamedTuple):
    """A connection that was given up for a tunnel. ``close`` ends it when what was written to it is sent, or nobody
    takes that in time."""

    transport: Any
    early: bytes
    """What its other side sent behind the handshake."""
    close: Callable[[], None]


def join(client: End, upstream: End) -> Deferred[None]:
    """Copy both ways, each side at the pace of the other, until either closes. What came early goes first.

    When one side is lost, the other is closed. Fires when both are gone.
    """
    done: Deferred[None] = Deferred()
    left = [client, upstream]

    def lost(end: End) -> None:
        left.remove(end)
        for other in left:
            other.close()
        if not left:
            done.callback(None)

    _Side(client, upstream.transport, lost)
    _Side(upstream, client.transport, lost)
    for source, sink in ((client, upstream), (upstream, client)):
        if source.early:
            sink.transport.write(source.early)
    return done


class _Side:
    """The protocol of one end from now on. The one before it is still told when its connection is lost."""

    def __init__(self, end: End, sink: Any, lost: Callable[[End], None]) -> None:
        self._end = end
        self._lost = lost
        self.dataReceived = sink.write
        transport = end.transport
        if hasattr(transport, "wrappedProtocol"):  # over TLS
            self._before, transport.wrappedProtocol = transport.wrappedProtocol, self
        else:
            self._before, transport.protocol = transport.protocol, self
        sink.registerProducer(transport, True)

    def connectionLost(self, reason: Failure) -> None:
        self._before.connectionLost(reason)
        self._lost(self._end)
