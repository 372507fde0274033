"""A TCP transport without a socket, which refuses what a real one would forgive or turn into a fault much later.

As over a real one, nothing arrives while reading is paused, and a lost connection is told about in a later turn.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

HIGH_WATER = 64 * 1024
"""As in ``abstract.FileDescriptor.bufferSize``."""


class Misuse(AssertionError):
    """A protocol asked its transport for what makes no sense."""


@implementer(ITCPTransport, IConsumer)
class FakeTransport:
    """``taken`` is what the other side has read so far; while ``stalled`` it reads nothing."""

    disconnecting = False

    def __init__(self, clock: Clock) -> None:
        self.reactor = clock
        self.protocol: Any = None
        self.taken = b""
        self.stalled = False
        self.reading = True
        self.most_buffered = 0
        self.half_closed = False
        """Whether the other side has been told that nothing more comes."""
        self.closed = False
        self.aborted = False
        self.lost = False
        self.unread = b""
        """What the other side has sent, and nobody has read."""
        self.ended = False
        """Whether nothing comes behind it."""
        self._told = False
        self._buffer = b""
        self._finishing = False
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._producer: Any = None
        self._producer_paused = False

    # What the other side does.

    def connect(self, protocol: Any) -> FakeTransport:
        self.protocol = protocol
        protocol.makeConnection(self)
        return self

    def deliver(self, data: bytes) -> None:
        """The other side sends."""
        self.unread += data
        self._read()

    def end(self) -> None:
        """The other side ends its side of the connection, and still reads."""
        self.ended = True
        self._read()

    def announce(self) -> None:
        """Something has arrived, but the reactor did not get around to reading it."""
        self.getHandle()
        assert self._ends is not None
        self._ends[1].send(b"!")

    def take(self) -> bytes:
        """What the other side has read since it was last asked."""
        taken, self.taken = self.taken, b""
        return taken

    def drain(self, size: int | None = None) -> None:
        """The stalled other side reads so many bytes, or all."""
        if size is None:
            self.stalled = False
            size = len(self._buffer)
        self.taken += self._buffer[:size]
        self._buffer = self._buffer[size:]
        self._written()

    def disconnect(self, reason: Exception | None = None) -> None:
        """The other side closes, or its machine dies of ``reason``."""
        self._lose(reason or ConnectionDone())

    # ITransport.

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise Misuse(f"{type(data)} is written")
        if self.lost:
            return
        if self._finishing or self.disconnecting or self.aborted:
            raise Misuse("write after close")
        self._buffer += data
        if not self.stalled:
            self.taken += self._buffer
            self._buffer = b""
            return
        self.most_buffered = max(self.most_buffered, len(self._buffer))
        if len(self._buffer) > HIGH_WATER and self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        if self._producer is not None:
            raise Misuse("closed, while a producer still writes")
        if self.lost:
            return
        if self.aborted:
            raise Misuse("closed after it was aborted")
        self.stopProducing()

    def loseWriteConnection(self) -> None:
        if self._producer is not None:
            raise Misuse("closed, while a producer still writes")
        if self._finishing or self.disconnecting or self.aborted:
            raise Misuse("half closed twice")
        self._finishing = True
        self._written()

    def abortConnection(self) -> None:
        if self.lost:
            return
        self.aborted = True
        self.reading = False
        self._buffer = b""
        self.reactor.callLater(0, self._lose, ConnectionAborted())

    def getHandle(self) -> socket.socket:
        if self._ends is None:
            self._ends = socket.socketpair()
        return self._ends[0]

    def unsent(self) -> int:
        return len(self._buffer)

    # IPushProducer and IConsumer.

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if not (self.lost or self.disconnecting or self.aborted):
            self.reading = True
            self.reactor.callLater(0, self._read)

    def stopProducing(self) -> None:
        self.disconnecting = True
        self.reading = False
        self._written()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise Misuse("a second producer is registered")
        if not streaming:
            raise Misuse("a pull producer is registered")
        self._producer = producer
        self._producer_paused = False
        if self.lost:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        self._producer = None
        if self.disconnecting:
            self._written()

    # IReadDescriptor.

    def connectionLost(self, reason: Failure) -> None:
        assert isinstance(reason.value, Exception)
        self._lose(reason.value)

    # Addresses and options.

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 40000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.2", 80)

    def setTcpNoDelay(self, enabled: bool) -> None: ...
    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None: ...
    def getTcpKeepAlive(self) -> bool:
        return False

    # Inside.

    def _read(self) -> None:
        if self.unread and self.reading and not self.lost:
            data, self.unread = self.unread, b""
            self.protocol.dataReceived(data)
        if self.ended and self.reading and not (self.unread or self.lost or self._told):
            self._told = True
            self.reading = False
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.readConnectionLost()
            else:
                self._lose(ConnectionDone())

    def _written(self) -> None:
        if self._buffer:
            if not self.stalled:
                self.drain()
            return
        if self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        elif self.disconnecting and not self.closed:
            self.closed = True
            self.reactor.callLater(0, self._lose, ConnectionDone())
        elif self._finishing:
            self.half_closed = True

    def _lose(self, reason: Exception) -> None:
        if self.lost:
            return
        self.lost = True
        for end in self._ends or ():
            end.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))
