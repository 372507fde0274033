"""Two transports joined into one: what a WebSocket is once the handshake is over."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def join(client: Any, from_client: bytes, upstream: Any, from_upstream: bytes) -> Deferred[None]:
    """Copy both ways, each side at the pace of the other, until either closes. What came early goes first.

    The protocols of both transports keep being told when their connection is lost; only their data goes elsewhere.
    Fires when both sides are gone.
    """
    done: Deferred[None] = Deferred()
    ends = [_End(client, upstream), _End(upstream, client)]
    left = [2]

    def lost(end: _End) -> None:
        left[0] -= 1
        end.peer.unregisterProducer()
        end.peer.loseConnection()
        if not left[0]:
            done.callback(None)

    for end in ends:
        end.on_lost = lost
        end.attach()
    if from_client:
        upstream.write(from_client)
    if from_upstream:
        client.write(from_upstream)
    return done


class _End:
    """One side: takes its transport's data to the other, in place of the protocol that did the handshake."""

    on_lost: Any

    def __init__(self, transport: Any, peer: Any) -> None:
        self.transport = transport
        self.peer = peer
        self._protocol = _protocol_of(transport)

    def attach(self) -> None:
        protocol = self._protocol
        protocol.dataReceived = self.peer.write
        closed = protocol.connectionLost

        def connection_lost(reason: Failure) -> None:
            closed(reason)
            self.on_lost(self)

        protocol.connectionLost = connection_lost
        self.transport.registerProducer(self.peer, True)


def _protocol_of(transport: Any) -> Any:
    """The protocol that a transport delivers to: over TLS the wrapped one."""
    return getattr(transport, "wrappedProtocol", None) or transport.protocol
