"""A network in memory: connections without sockets, and a clock that is moved."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IConsumer, IProtocol, IStreamClientEndpoint, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

HIGH_WATER = 64 * 1024
"""Bytes that nobody reads, from which on their sender is paused; as in ``abstract.FileDescriptor.bufferSize``."""


class AtOnce:
    """A thread pool that runs what it is given in the caller's thread, at once."""

    def callInThread(self, run: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        run(*arguments, **named)

    def callInThreadWithCallback(
        self, ended: Callable[[bool, Any], Any], run: Callable[..., Any], *arguments: Any, **named: Any
    ) -> None:
        try:
            result = run(*arguments, **named)
        except BaseException:
            ended(False, Failure())
        else:
            ended(True, result)


class Time(Clock):
    """What a gateway asks of its reactor, where nothing happens by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._pool = AtOnce()

    def callFromThread(self, run: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        self.callLater(0, run, *arguments, **named)

    def callWhenRunning(self, run: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        self.callLater(0, run, *arguments, **named)

    def getThreadPool(self) -> AtOnce:
        return self._pool

    def addSystemEventTrigger(self, *arguments: Any, **named: Any) -> None:
        """The process does not end with this reactor."""

    def next_event(self, within: float) -> bool:
        """Go on to the next call that is due within so many seconds, and make it. Returns whether there was one."""
        due = [call.getTime() for call in self.getDelayedCalls()]
        if not due or min(due) > self.seconds() + within:
            return False
        self.advance(max(0.0, min(due) - self.seconds()))
        return True


@implementer(ITCPTransport, IConsumer)
class End:
    """One end of a connection. What it writes arrives at ``other`` in the next turn."""

    other: End
    protocol: Any
    disconnecting = False

    def __init__(self, time: Time, port: int) -> None:
        self.reactor = self._time = time
        self._port = port
        self._inbox = b""
        self._reading = True
        self._lost = False
        self._producer: Any = None
        self._paused = False
        self._ends: tuple[socket.socket, socket.socket] | None = None

    # ITransport

    def write(self, data: bytes) -> None:
        if self._lost or self.disconnecting or not data:
            return
        self.other._inbox += data
        self._time.callLater(0, self.other._deliver)
        if len(self.other._inbox) > HIGH_WATER and self._producer is not None and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._time.callLater(0, self._close)

    def loseWriteConnection(self) -> None:
        self.loseConnection()

    def abortConnection(self) -> None:
        self.disconnecting = True
        self._reading = False
        self._time.callLater(0, self.lose, ConnectionAborted())
        self._time.callLater(0, self.other.lose, ConnectionDone())

    def getHandle(self) -> socket.socket:
        """A socket that is never readable: who asks wants to know whether the other side has closed."""
        if self._ends is None:
            self._ends = socket.socketpair()
        return self._ends[0]

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self._port)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self._port)

    def setTcpNoDelay(self, enabled: bool) -> None: ...
    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None: ...
    def getTcpKeepAlive(self) -> bool:
        return False

    # IPushProducer and IConsumer

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        if not self._lost:
            self._reading = True
            self._time.callLater(0, self._deliver)

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer, self._paused = producer, False

    def unregisterProducer(self) -> None:
        self._producer = None

    # Inside

    def _deliver(self) -> None:
        if not self._inbox or not self._reading or self._lost:
            return
        data, self._inbox = self._inbox[:HIGH_WATER], self._inbox[HIGH_WATER:]
        self.protocol.dataReceived(data)
        if self._inbox:
            self._time.callLater(0, self._deliver)
        sender = self.other
        if sender._paused and len(self._inbox) <= HIGH_WATER:
            sender._paused = False
            if sender._producer is not None:
                sender._producer.resumeProducing()

    def _close(self) -> None:
        if self.other._inbox and not self.other._lost:
            self._time.callLater(0.001, self._close)  # when the other side has read it
            return
        self.lose(ConnectionDone())
        self.other.lose(ConnectionDone())

    def lose(self, reason: Exception) -> None:
        if self._lost:
            return
        self._lost = True
        for end in self._ends or ():
            end.close()
        self.protocol.connectionLost(Failure(reason))


class Network:
    """Which factory listens on which port."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._factories: dict[int, Any] = {}
        self._last = 40000

    def listen(self, factory: Any) -> int:
        """The port."""
        self._last += 1
        self._factories[self._last] = factory
        return self._last

    def endpoint(self, reactor: Any, host: str, port: int, timeout: float, tls: object) -> IStreamClientEndpoint:
        """In place of ``wire.agent.endpoint_to``."""
        return Endpoint(self, port)

    def connect(self, port: int, protocol: Any) -> bool:
        """Connect ``protocol`` with who listens on the port; False if nobody does."""
        factory = self._factories.get(port)
        served = None if factory is None else factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", port))
        if served is None:
            return False
        ours, theirs = End(self._time, port), End(self._time, port)
        ours.other, theirs.other = theirs, ours
        ours.protocol, theirs.protocol = protocol, served
        served.makeConnection(theirs)
        protocol.makeConnection(ours)
        return True


@implementer(IStreamClientEndpoint)
class Endpoint:
    """A port of the network."""

    def __init__(self, network: Network, port: int) -> None:
        self._network = network
        self._port = port

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        protocol = protocolFactory.buildProtocol(IPv4Address("TCP", "127.0.0.1", self._port))
        if not self._network.connect(self._port, protocol):
            return fail(ConnectionRefusedError())
        return succeed(protocol)
