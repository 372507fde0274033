"""Ports: they accept connections from sockets that are bound and listen already."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort

from apigw.wire.reactor.accepting import accept
from apigw.wire.reactor.gate import Gate
from apigw.wire.reactor.socket_transport import SocketTransport

MOST_ACCEPTED = 16
"""Connections that a port accepts in a turn of the reactor, so that others are served too."""


def _made_by_twisted(
    accepted: socket.socket, protocol: Any, client: tuple[Any, ...], port: Any, number: int, reactor: Any
) -> SocketTransport:
    """The transport that Twisted's port has made."""
    transport = SocketTransport(accepted.detach(), client, reactor)
    transport.begin_late(protocol)
    return transport


class _Adopted:
    """A port whose socket listens already. Whoever made it listen has logged that."""

    factory: Any
    socket: Any
    fileno: Any
    _preexistingSocket: Any
    connected: Any
    startReading: Callable[[], None]

    def startListening(self) -> None:
        tcp._reservedFD.reserve()
        self.factory.doStart()
        self._shouldShutdown = False
        self.connected = True
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        self.fileno = self.socket.fileno
        self.numberAccepts = 100
        self.startReading()

    def _logConnectionLostMsg(self) -> None:
        """Nothing: the socket may be open still, for others."""


class TCPPort(_Adopted, tcp.Port):
    transport = staticmethod(_made_by_twisted)  # type: ignore[assignment]  # it only calls it

    def startListening(self) -> None:
        self._realPortNumber = self._preexistingSocket.getsockname()[1]
        super().startListening()

    def doRead(self) -> None:
        """Accept about as many as in the last turn: to ask once more than there are costs a system call."""
        most = min(self.numberAccepts, MOST_ACCEPTED)
        accepted = self.accept(most)
        self.numberAccepts = 2 * most if accepted == most else max(1, accepted)

    def accept(self, most: int) -> int:
        try:
            return accept(self.socket, self.factory, self.reactor, most)
        except OSError:
            # Twisted's says why none can be accepted, and hangs up where there is no file for another.
            self.numberAccepts = 1
            super().doRead()
            return 0


class UnixPort(_Adopted, unix.Port):
    """Unlike Twisted's, it leaves the socket's file to whoever bound it: its mode, and its removal."""

    def connectionLost(self, reason: Any) -> None:
        tcp.Port.connectionLost(self, reason)

    def accept(self, most: int) -> int:
        before: int = self.sessionno
        self.numberAccepts = most
        tcp.Port.doRead(self)
        return self.sessionno - before


class _Gated:
    """A port of several processes: it accepts one connection in a turn of the reactor, and while the gate is open."""

    reactor: Any
    gate: Gate
    accept: Callable[[int], int]

    def startReading(self) -> None:
        self.reactor.addExclusive(self)

    def doRead(self) -> None:
        self.accept(1)
        self.gate.accepted()


class GatedPort(_Gated, TCPPort):
    pass


class GatedUnixPort(_Gated, UnixPort):
    pass


def serve(reactor: Any, listening: socket.socket, factory: Any, gate: Gate | None = None) -> IListeningPort:
    """Accept from ``listening``. Closing the port leaves the socket open.

    ``gate``: that of this process, where others accept from the socket too.
    """
    listening.setblocking(False)
    if listening.family != socket.AF_UNIX:
        # Connections have it from the socket that they are accepted from (RFC 9293 §3.7.4, and ``ConnectingReactor``).
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port: Any
    if listening.family == socket.AF_UNIX:
        unix_port = UnixPort if gate is None else GatedUnixPort
        port = unix_port._fromListeningDescriptor(reactor, listening.fileno(), factory)
    else:
        tcp_port = TCPPort if gate is None else GatedPort
        port = tcp_port._fromListeningDescriptor(reactor, listening.fileno(), listening.family, factory)
    port.gate = gate
    port.startListening()
    if gate is not None:
        gate.add(port)
    accepting: IListeningPort = port
    return accepting
