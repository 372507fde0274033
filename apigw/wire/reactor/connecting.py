"""Connections to services: Twisted makes them, with its endpoints; then each gets a ``SocketTransport``."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, connectionDone
from zope.interface import directlyProvides, providedBy

from apigw.wire.reactor.socket_transport import SocketTransport


def _nothing() -> None:
    """The rest of an event of a connection that has failed."""


class Connecting(tcp.Client):
    """An attempt to connect. The connection itself is a ``SocketTransport``, as those of clients are."""

    def _connectDone(self) -> None:
        self.setTcpNoDelay(True)
        connector = self.connector
        protocol = connector.buildProtocol(self.getPeer())
        connection = SocketTransport(self.socket.detach(), self.realAddress, self.reactor)
        self.doRead = self.doWrite = _nothing  # type: ignore[method-assign]  # which are its own here
        self.fileno = partial(int, connection.fileno())  # the reactor compares it after this event
        self._part(connector)
        if protocol is None:
            connection.connectionLost(connectionDone)
        else:
            connection.begin_late(protocol)
            protocol.makeConnection(connection)

    def failIfNotConnected(self, err: Any) -> None:
        connector = getattr(self, "connector", None)
        super().failIfNotConnected(err)
        if not hasattr(self, "connector"):  # it has failed
            self.doRead = self.doWrite = _nothing  # type: ignore[method-assign]  # which were its own
            self._part(connector)

    def _part(self, connector: Any) -> None:
        """Forget what knows this object: else all of it would wait for the garbage collector."""
        self.__dict__.pop("connector", None)
        if connector is not None:
            connector.transport = connector.factory = None


class _Connector(tcp.Connector):
    def _makeTransport(self) -> Connecting:
        return Connecting(self.host, self.port, self.bindAddress, self, self.reactor)


class OneConnection(ClientFactory):
    """A factory for one connection whose protocol exists already."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._protocol


class ConnectingReactor:
    """A reactor whose TCP connections are ``SocketTransport``. Give it to an endpoint in place of the reactor itself.

    Their sockets have TCP_NODELAY (RFC 9293 §3.7.4): what is written to one in two pieces, a head and its body or two
    frames, is sent at once, and not when the other side has acknowledged the first piece, which it delays by 40 ms.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> IConnector:
        connector = _Connector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector
