"""Ports: they accept connections from sockets that are bound and listen already."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort

from apigw.wire.reactor.gate import Gate
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


class _Gated:
    """A port of several processes: it accepts one connection in a turn of the reactor, and while the gate is open."""

    reactor: Any
    gate: Gate

    def startReading(self) -> None:
        self.reactor.addExclusive(self)

    def doRead(self) -> None:
        self.accept(1)
        self.gate.accepted()

    def accept(self, most: int) -> None:
        port: Any = self
        port.numberAccepts = most
        tcp.Port.doRead(port)


class GatedPort(_Gated, EagerPort):
    pass


class GatedUnixPort(_Gated, UnixPort):
    pass


def serve(reactor: Any, listening: socket.socket, factory: Any, gate: Gate | None = None) -> IListeningPort:
    """Accept from ``listening``. Closing the port leaves the socket open.

    ``gate``: that of this process, where others accept from the socket too.
    """
    listening.setblocking(False)
    port: Any
    if listening.family == socket.AF_UNIX:
        unix_port = UnixPort if gate is None else GatedUnixPort
        port = unix_port._fromListeningDescriptor(reactor, listening.fileno(), factory)
    else:
        tcp_port = EagerPort if gate is None else GatedPort
        port = tcp_port._fromListeningDescriptor(reactor, listening.fileno(), listening.family, factory)
    port.gate = gate
    port.startListening()
    if gate is not None:
        gate.add(port)
    accepting: IListeningPort = port
    return accepting
