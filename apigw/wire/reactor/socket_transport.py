# Compiled: see docs/decisions/compiled.md
"""The transport of a connection, to a client or to a service (docs/decisions/new-connections.md).

Twisted's ``tcp.Server`` makes and ends a connection in some sixty calls of interpreted code and with six system calls
more. This has its interface, and what the protocols of the gateway need of its behaviour.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from termios import FIONREAD, TIOCOUTQ
from typing import Any, Final, final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IPushProducer,
    IReadWriteDescriptor,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw.wire.reactor.sending import Sending
from apigw.wire.reactor.turns import queued_in

READ_SIZE: Final = 65536
"""Bytes that a read asks for."""
MOST_READ: Final = 262144
"""Bytes that a read asks for after some that were full: of a large body, fewer and larger pieces are cheaper."""
LEAST_READ: Final = 4096
LONG: Final = 0.002
"""Seconds in which other connections are not served. A read that took longer is followed by one of half the size: 64
KiB may be thousands of chunks, frames or records of TLS, and take as long as thousands of requests."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of 0: closing resets the connection."""
_LOST: Final = Failure(CONNECTION_LOST)
_read: Final = os.read

log = Logger(namespace=__name__)


@final
class SocketTransport(Sending):
    """One connection, as ``descriptor``. What is written in a turn of the reactor is sent at its end.

    One that was accepted is read from once before the reactor is told of it: what a client asks for has mostly arrived
    by then.
    """

    def __init__(self, descriptor: int, other: tuple[Any, ...], reactor: Any) -> None:
        """``other`` is the other side's address as ``accept`` gives it."""
        super().__init__(descriptor, reactor)
        self.protocol: Any = None
        self._other = other
        self._reading = True
        self._read_size = READ_SIZE
        self._known = False
        """Whether the reactor knows that it reads."""
        self._aborting = False

    def begin(self, protocol: Any) -> None:
        """Connect the protocol, and read what has arrived."""
        self.protocol = protocol
        protocol.makeConnection(self)
        if self._reading and not self._known:
            self.doRead()
            if self._reading and not self._known:
                self._tell_reading()

    def begin_late(self, protocol: Any) -> None:
        """Take a protocol that somebody else connects; nothing is read before."""
        self.protocol = protocol
        self._tell_reading()

    # From the reactor.

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        if not self._reading:
            return
        try:
            data = _read(self._descriptor, self._read_size)
        except BlockingIOError:
            return
        except OSError:
            self.connectionLost(_LOST)
            return
        if not data:
            self._ended()
        elif len(data) == self._read_size:
            self._read_full(data)
        else:
            if len(data) < READ_SIZE < self._read_size:
                self._read_size = READ_SIZE
            self.protocol.dataReceived(data)

    def _read_full(self, data: bytes) -> None:
        """There may be more. How much of it is read at once depends on how long this takes."""
        seconds = self.reactor.seconds
        began = seconds()
        self.protocol.dataReceived(data)
        if seconds() - began > LONG:
            self._read_size = max(len(data) // 2, LEAST_READ)
        else:
            self._read_size = min(2 * len(data), MOST_READ)

    def doWrite(self) -> Any:
        if self._aborting:
            return None
        return None if self.write_on() else CONNECTION_LOST

    def readConnectionLost(self, reason: Failure) -> None:
        """The other side has ended. The reactor reads no more."""
        self._reading = self._known = False
        self._tell_end(reason)

    def writeConnectionLost(self, reason: Failure) -> None:
        self.connectionLost(reason)

    def _ended(self) -> None:
        self._reading = False
        self._tell_end(connectionDone)
        # Only now, because it costs a system call, and most connections are closed.
        self._forget_reading()

    def _tell_end(self, reason: Failure) -> None:
        protocol = self.protocol
        if not IHalfCloseableProtocol.providedBy(protocol):
            self.connectionLost(reason)
            return
        try:
            protocol.readConnectionLost()
        except Exception:
            log.failure("the end of a connection was not handled")
            self.connectionLost(Failure())

    def connectionLost(self, reason: Failure) -> None:
        if self.disconnected:
            return
        self.disconnected = True
        self.connected = self._reading = False
        self._held = None
        self._queue.clear()
        self.queued = 0
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        descriptor = self._descriptor
        turns = self._turns
        if turns is not None:
            turns.forget(descriptor)
        elif self._known or self._writing:
            self.reactor.removeReader(self)
            self.reactor.removeWriter(self)
        self._known = self._writing = False
        if self._aborting:
            self._set_reset()
        self._descriptor = -1
        try:
            os.close(descriptor)
        except OSError:
            log.failure("a connection could not be closed")
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(reason)

    def logPrefix(self) -> str:
        return "connection"

    # To the protocol: its transport.

    def unsent(self) -> int:
        """Bytes that the other side has not acknowledged yet: those kept here, and in the kernel."""
        return self.queued + self.held() + queued_in(self._descriptor, TIOCOUTQ)

    def arrived(self) -> int:
        """Bytes that have arrived and were not read yet."""
        return queued_in(self._descriptor, FIONREAD)

    def close_if_sent(self) -> bool:
        """Close at once, unless something is queued. Returns whether it was closed."""
        if self._held:
            held, self._held = self._held, []
            self._send_all(held)
        if self._queue:
            return False
        self.connectionLost(connectionDone)
        return True

    def loseConnection(self, *reason: Any) -> None:
        if not self.connected or self.disconnecting:
            return
        self.disconnecting = True
        self._reading = False
        self._end_after_turn()

    def loseWriteConnection(self) -> None:
        if not self.connected or self._half_closed:
            return
        self._half_closing = True
        self._end_after_turn()

    def abortConnection(self) -> None:
        if self.disconnected or self._aborting:
            return
        self._aborting = True
        self.connected = False
        self._held = None
        self._stop_reading()
        self._stop_writing()
        self.reactor.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    def pauseProducing(self) -> None:
        self._stop_reading()

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting and not self._reading:
            self._reading = True
            self._tell_reading()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getHandle(self) -> int:
        return self._descriptor

    def getPeer(self) -> Any:
        return _address(self._other)

    def getHost(self) -> Any:
        with as_socket(self._descriptor) as connected:
            return _address(connected.getsockname())

    def getTcpNoDelay(self) -> bool:
        with as_socket(self._descriptor) as connected:
            return bool(connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        with as_socket(self._descriptor) as connected:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        with as_socket(self._descriptor) as connected:
            return bool(connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        with as_socket(self._descriptor) as connected:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    # Closing.

    def _end_after_turn(self) -> None:
        """Close, or close half, at the end of the turn: whoever asks for it is in the middle of something."""
        if self._held is not None:
            return
        turns = self._turns
        turn = None if turns is None else turns.writes_of_turn
        if turn is None:
            if not self._reading:
                self._forget_reading()
            self._start_writing()
        else:
            self._held = []
            turn.append(self)

    def end_if_sent(self) -> None:
        if not self.connected:
            return
        if self._queue or (self.producer is not None and (self._producer_paused or not self._streaming)):
            if self.disconnecting:
                self._forget_reading()
            self._start_writing()
        elif self.disconnecting:
            self.connectionLost(connectionDone)
        elif self._half_closing and not self._half_closed:
            self._half_close()

    def _half_close(self) -> None:
        self._half_closed = True
        try:
            with as_socket(self._descriptor) as connected:
                connected.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side is gone, which reading tells
        protocol = self.protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            try:
                protocol.writeConnectionLost()
            except Exception:
                log.failure("the end of writing was not handled")
                self.connectionLost(Failure())

    def _set_reset(self) -> None:
        try:
            with as_socket(self._descriptor) as connected:
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass  # it is reset already

    # What the reactor is told.

    def _tell_reading(self) -> None:
        self._known = True
        turns = self._turns
        if turns is not None and not self._writing:
            turns.begin_reading(self._descriptor, self)
        else:
            self.reactor.addReader(self)

    def _stop_reading(self) -> None:
        self._reading = False
        self._forget_reading()

    def _forget_reading(self) -> None:
        if self._known:
            self._known = False
            self.reactor.removeReader(self)


@contextmanager
def as_socket(descriptor: int) -> Iterator[socket.socket]:
    """What is seldom asked of a socket needs an object for it. Raises ``OSError``."""
    connected = socket.socket(fileno=descriptor)
    try:
        yield connected
    finally:
        connected.detach()


def _address(address: tuple[Any, ...]) -> Any:
    return IPv4Address("TCP", *address) if len(address) == 2 else IPv6Address("TCP", *address)


classImplements(SocketTransport, ITCPTransport, IConsumer, IPushProducer, ISystemHandle)
classImplements(SocketTransport, IReadWriteDescriptor, IHalfCloseableDescriptor)
