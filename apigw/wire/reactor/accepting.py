# Compiled: see docs/decisions/compiled.md
"""Accepts new connections."""

from __future__ import annotations

import os
import socket
from typing import Any, final

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw.wire.reactor.socket_transport import SocketTransport

log = Logger(namespace=__name__)


@final
class Peer:
    """The address of a client: what factories want to know of it."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port


def accept(listening: Any, factory: Any, reactor: Any, most: int) -> int:
    """Accept up to ``most`` connections. Returns how many. Raises ``OSError`` where none can be accepted."""
    for accepted in range(most):
        try:
            descriptor, client = listening._accept()
        except BlockingIOError:
            return accepted
        os.set_blocking(descriptor, False)
        if len(client) == 4 and client[3]:
            # The zone of a link-local address (RFC 4007 §11.2) is a part of it.
            numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
            client = (socket.getnameinfo(client, numeric)[0], *client[1:])
        transport = SocketTransport(descriptor, client, reactor)
        try:
            protocol = factory.buildProtocol(Peer(client[0], client[1]))
            if protocol is None:
                transport.connectionLost(connectionDone)
            else:
                transport.begin(protocol)
        except Exception:
            log.failure("a new connection could not be served")
            transport.connectionLost(Failure())
    return most


classImplements(Peer, IAddress)
