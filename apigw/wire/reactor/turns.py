# Compiled: see docs/decisions/compiled.md
"""A turn of the reactor: everything is read, then everything is sent.

``epoll`` has the rest of the reactor, on Twisted's classes, which are not compiled.
"""

from __future__ import annotations

import select
import sys
import time
from errno import EINTR
from fcntl import ioctl
from typing import Any, Final, final

from mypy_extensions import mypyc_attr
from twisted.python import log

_READABLE: Final = select.EPOLLIN


@mypyc_attr(allow_interpreted_subclasses=True)
class Turns:
    """A mixin for Twisted's epoll reactor. The attributes are those of that class, but for the first three."""

    writes_of_turn: list[Any] | None = None
    """The transports with something to send at the end of this turn, by ``send_held``. None between turns."""
    turn: int = 0
    """The number of this turn. Bytes that arrive in the turn of a write cannot be an answer to it."""
    looping: bool = False
    """Whether Twisted's main loop runs. What it does around a turn takes as long as a turn with one event. So turns
    follow each other here while that loop has nothing to do."""
    threadCallQueue: list[Any]
    running: Any
    _justStopped: Any
    _newTimedCalls: list[Any]
    _pendingTimedCalls: list[Any]
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
        """Wait up to ``timeout`` seconds, and do a turn; further ones while ``looping``."""
        self._turn(timeout)
        while self.looping and self.running and not (self.threadCallQueue or self._newTimedCalls or self._justStopped):
            pending = self._pendingTimedCalls
            left: float | None = None
            if pending:
                left = pending[0].time - time.monotonic()
                if left <= 0:
                    return
            self._turn(left)

    @final
    def _turn(self, timeout: float | None) -> None:
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
