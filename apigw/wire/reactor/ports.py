"""Ports: they accept connections from sockets that are bound and listen already."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort

from apigw.wire.reactor.transport import EagerServer


class EagerPort(tcp.Port):
    transport = EagerServer


class UnixPort(unix.Port):
    """Unlike Twisted's, it leaves the socket's file to whoever bound it: its mode, and its removal."""

    factory: Any
    socket: Any
    fileno: Any

    def startListening(self) -> None:
        tcp._reservedFD.reserve()
        self.factory.doStart()
        self._shouldShutdown = False
        self.connected = True
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        self.fileno = self.socket.fileno
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Any) -> None:
        tcp.Port.connectionLost(self, reason)


def serve(reactor: Any, listening: socket.socket, factory: Any) -> IListeningPort:
    """Accept from ``listening``. Closing the port leaves the socket open."""
    listening.setblocking(False)
    port: Any
    if listening.family == socket.AF_UNIX:
        port = UnixPort._fromListeningDescriptor(reactor, listening.fileno(), factory)
    else:
        port = EagerPort._fromListeningDescriptor(reactor, listening.fileno(), listening.family, factory)
    port.startListening()
    accepting: IListeningPort = port
    return accepting
