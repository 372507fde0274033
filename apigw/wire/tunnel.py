"""Two transports joined into one: what a WebSocket is once the handshake is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def join(client: Any, from_client: bytes, upstream: Any, from_upstream: bytes) -> Deferred[None]:
    """Copy both ways, each side at the pace of the other, until either closes. What came early goes first.

    The protocols of both transports keep being told when their connection is lost; only their data goes elsewhere. When
    one side is gone, ``close`` of the other's protocol has to end it. Fires when both are gone.
    """
    done: Deferred[None] = Deferred()
    left = [_protocol_of(client), _protocol_of(upstream)]

    def lost(protocol: Any) -> None:
        left.remove(protocol)
        for other in left:
            other.close()
        if not left:
            done.callback(None)

    _redirect(client, upstream, lost)
    _redirect(upstream, client, lost)
    if from_client:
        upstream.write(from_client)
    if from_upstream:
        client.write(from_upstream)
    return done


def _redirect(source: Any, sink: Any, lost: Callable[[Any], None]) -> None:
    """What comes from ``source`` goes to ``sink``, in place of the protocol that did the handshake."""
    protocol = _protocol_of(source)
    protocol.dataReceived = sink.write
    closed = protocol.connectionLost

    def connection_lost(reason: Failure) -> None:
        closed(reason)
        lost(protocol)

    protocol.connectionLost = connection_lost
    sink.registerProducer(source, True)


def _protocol_of(transport: Any) -> Any:
    """The protocol that a transport delivers to: over TLS the wrapped one."""
    return getattr(transport, "wrappedProtocol", None) or transport.protocol
