# Compiled: see docs/decisions/compiled.md
"""What a protocol asks of its connection, whether TLS is between them or not."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import ISSLTransport

from apigw.wire.reactor.socket_transport import SocketTransport

_is_tls: Final[Callable[[Any], bool]] = ISSLTransport.providedBy


def beneath_tls(transport: Any) -> Any:
    """The socket's transport, under however many layers of TLS."""
    while not isinstance(transport, SocketTransport) and _is_tls(transport):
        transport = transport.transport
    return transport


def unsent(transport: Any) -> int:
    """Bytes that the other side of a transport has not acknowledged yet; 0 where that is unknown."""
    held = 0
    while not isinstance(transport, SocketTransport) and _is_tls(transport):
        held += transport.held() if hasattr(transport, "held") else 0
        transport = transport.transport
    return held + transport.unsent() if hasattr(transport, "unsent") else 0


def all_is_sent(transport: Any) -> bool:
    """Whether the kernel has taken all that was written, but for what was written in this turn. Asks nobody."""
    return isinstance(transport, SocketTransport) and not transport.queued


def arrived(transport: Any) -> int:
    """Bytes that have arrived at the socket of a transport and were not read yet; 0 where that is unknown."""
    base = beneath_tls(transport)
    return base.arrived() if hasattr(base, "arrived") else 0


def close_if_sent(transport: Any) -> bool:
    """Close a transport at once. ``loseConnection`` waits a turn of the reactor, and bytes that arrive in it are lost.

    Returns whether it was closed: it is not if something is queued, or over TLS, which has to send close_notify.
    """
    return not _is_tls(transport) and hasattr(transport, "close_if_sent") and bool(transport.close_if_sent())


def is_readable(transport: Any) -> bool:
    """Whether a socket's transport has something to read: data, or its end."""
    poll = select.poll()
    poll.register(transport.getHandle(), select.POLLIN)
    return bool(poll.poll(0))


def replace_protocol(transport: Any, protocol: Any) -> Any:
    """Replace the protocol of a connection. Returns the previous one."""
    if isinstance(transport, SocketTransport) or not hasattr(transport, "wrappedProtocol"):
        before = transport.protocol
        transport.protocol = protocol
    else:  # TLS
        before = transport.wrappedProtocol
        transport.wrappedProtocol = protocol
    return before
