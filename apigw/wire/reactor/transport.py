"""Twisted's TCP transports, with writes that are sent at once if nothing is queued before them.

``FileDescriptor.write`` queues, registers with epoll, goes through the reactor, sends and unregisters. For a
proxy, whose writes nearly always fit the socket buffer, two system calls and a turn of the reactor can be saved.

On a ``DirectEPollReactor`` (see ``epoll``), the writes of one turn are sent together at its end: several for one
connection become one, and a sleeping process on the other side is woken once for many.
"""

from __future__ import annotations

from collections.abc import Iterable
from termios import FIONREAD, TIOCOUTQ
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from apigw.wire.reactor.eager import Eager, queued_in

if TYPE_CHECKING:
    # At run time this mixes into tcp.Server and tcp.Client alike.
    _Connection: TypeAlias = tcp.Connection
else:
    _Connection = object


class _Eager(Eager, _Connection):
    def queue(self, data: bytes) -> None:
        tcp.Connection.write(self, data)

    def loseConnection(self, *reason: Any) -> None:
        self.send_held()
        super().loseConnection(*reason)

    def loseWriteConnection(self) -> None:
        self.send_held()
        super().loseWriteConnection()

    def abortConnection(self) -> None:
        self.forget_held()
        super().abortConnection()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def unsent(self) -> int:
        """Bytes that the other side has not acknowledged yet: those queued here, and in the kernel."""
        return (
            len(self.dataBuffer)
            - self.offset
            + self._tempDataLen
            + self.held()
            + queued_in(self.socket.fileno(), TIOCOUTQ)
        )

    def arrived(self) -> int:
        """Bytes that have arrived and were not read yet."""
        return queued_in(self.socket.fileno(), FIONREAD)

    def close_if_sent(self) -> bool:
        """Close at once, unless something is queued. Returns whether it was closed."""
        self.send_held()
        if self.dataBuffer or self._tempDataLen:
            return False
        self.connectionLost(connectionDone)
        return True


def _nothing() -> None:
    """The rest of an event of a connection that has failed."""


class EagerClient(_Eager, tcp.Client):
    """The client's side of a connection."""

    def _connectDone(self) -> None:
        self.setTcpNoDelay(True)
        super()._connectDone()

    def connectionLost(self, reason: Failure) -> None:
        connector = getattr(self, "connector", None)
        super().connectionLost(reason)
        self._part(connector)

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


class EagerConnector(tcp.Connector):
    def _makeTransport(self) -> EagerClient:
        return EagerClient(self.host, self.port, self.bindAddress, self, self.reactor)


class OneConnection(ClientFactory):
    """A factory for one connection whose protocol exists already."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._protocol


class EagerReactor:
    """A reactor whose TCP clients write eagerly. Give it to an endpoint in place of the reactor itself.

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
        connector = EagerConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector
