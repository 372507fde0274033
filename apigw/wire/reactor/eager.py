# Compiled: see docs/decisions/compiled.md
"""The hot path of the TCP transport and of the reactor's turn: reading, and sending at once.

``transport`` and ``epoll`` have the rest, on Twisted's classes. This module is separate because it is compiled (see
setup.py).
"""

from __future__ import annotations

import select
import sys
from errno import EINTR
from fcntl import ioctl
from typing import Any, ClassVar, Final, final

from mypy_extensions import mypyc_attr
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python import log

MOST_HELD: Final = 16
"""Maximum writes that are sent as one. Then they are sent, so that back-pressure reaches the producer in time."""
READ_SIZE: Final = 65536
"""Bytes that a read asks for."""
MOST_READ: Final = 262144
"""Bytes that a read from a service asks for after some that were full: of a large answer, fewer and larger pieces are
cheaper. Uploads are not read so: what a service's buffer does not take of a piece is copied."""
_READABLE: Final = select.EPOLLIN


def next_size(asked: int, got: int) -> int:
    """The bytes to ask for, after a read that asked for some and got some."""
    if got == asked:
        return min(2 * asked, MOST_READ)
    return READ_SIZE if got < READ_SIZE else asked


@mypyc_attr(allow_interpreted_subclasses=True)
class Eager:
    """A mixin for ``twisted.internet.tcp.Connection``. The attributes are those of that class, but for ``_held``."""

    __deletable__: ClassVar = ["socket", "protocol"]

    reactor: Any
    socket: Any
    protocol: Any
    bufferSize: int = READ_SIZE
    connected: int = 0
    dataBuffer: bytes = b""
    _tempDataLen: int = 0
    _writeDisconnected: bool = False
    _held: list[bytes] | None = None
    _read_size: int = READ_SIZE

    def queue(self, data: bytes) -> None:
        """Send when the socket has room again, as Twisted's ``write`` does."""
        raise NotImplementedError

    def doRead(self) -> Any:
        asked = self._read_size
        try:
            data = self.socket.recv(asked)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self._read_size = next_size(asked, len(data))
        self.protocol.dataReceived(data)
        return None

    @final
    def write(self, data: bytes) -> None:
        held = self._held
        if held is not None:
            held.append(data)
            if len(held) == MOST_HELD:
                self.send_held()
            return
        turn = getattr(self.reactor, "writes_of_turn", None)
        if turn is None:
            self._send(data)
        else:
            self._held = [data]
            turn.append(self)

    @final
    def send_held(self) -> None:
        """Send what is held: at the end of the turn, or before the connection is closed."""
        held, self._held = self._held, None
        if held is not None:
            self._send(held[0] if len(held) == 1 else b"".join(held))

    @final
    def forget_held(self) -> None:
        self._held = None

    @final
    def held(self) -> int:
        """Bytes that are held until the end of the turn."""
        return sum([len(data) for data in self._held or ()])

    @final
    def _send(self, data: bytes) -> None:
        if self._tempDataLen or self.dataBuffer or not self.connected or self._writeDisconnected:
            self.queue(data)
            return
        try:
            sent: int = self.socket.send(data)
        except OSError:
            # The buffer is full, or the connection broken: the queued write finds out later which it is.
            sent = 0
        if sent != len(data):
            self.queue(data[sent:])


@mypyc_attr(allow_interpreted_subclasses=True)
class Turns:
    """A mixin for Twisted's epoll reactor. The attributes are those of that class, but for the first two."""

    writes_of_turn: list[Any] | None = None
    """The transports with something to send at the end of this turn, by ``send_held``. None between turns."""
    turn: int = 0
    """The number of this turn. Bytes that arrive in the turn of a write cannot be an answer to it."""
    _poller: Any
    _reads: set[int]
    _writes: set[int]
    _selectables: dict[int, Any]

    @final
    def begin_reading(self, descriptor: int, reader: Any) -> None:
        """As ``addReader``, for a socket that the reactor does not know."""
        self._poller.register(descriptor, _READABLE)
        self._reads.add(descriptor)
        self._selectables[descriptor] = reader

    @final
    def forget(self, descriptor: int) -> None:
        """A socket is about to be closed. epoll forgets it by itself then, unless another process has a copy of it."""
        self._reads.discard(descriptor)
        self._writes.discard(descriptor)
        self._selectables.pop(descriptor, None)

    def doPoll(self, timeout: float | None) -> None:
        selectables = self._selectables
        try:
            ready: list[tuple[int, int]] = self._poller.poll(-1 if timeout is None else timeout, len(selectables))
        except OSError as error:
            if error.errno == EINTR:
                return
            raise
        self.turn += 1
        turn: list[Any] = []
        self.writes_of_turn = turn
        read_all(self, ready, selectables)
        self.writes_of_turn = None
        send_all(turn)


def read_all(reactor: Any, ready: list[tuple[int, int]], selectables: dict[int, Any]) -> None:
    """The first half of a turn: read from every descriptor that epoll reports."""
    for descriptor, event in ready:
        selectable = selectables.get(descriptor)
        if selectable is None:
            continue
        if event != _READABLE:
            reactor._doReadOrWrite(selectable, descriptor, event)
            continue
        # The usual event: readable, and nothing else.
        try:
            lost = selectable.doRead()
        except Exception as error:
            log.err()
            lost = error
        if lost:
            reactor._disconnectSelectable(selectable, lost, True)


def send_all(turn: list[Any]) -> None:
    """The second half of a turn: send what the transports in ``turn`` hold."""
    for holder in turn:
        try:
            holder.send_held()
        except Exception:
            log.err()


def queued_in(descriptor: int, queue: int) -> int:
    """Bytes in a queue of the kernel for a socket, ``TIOCOUTQ`` or ``FIONREAD``; 0 where that is unknown."""
    try:
        return int.from_bytes(ioctl(descriptor, queue, b"\0\0\0\0"), sys.byteorder)
    except OSError:
        return 0
