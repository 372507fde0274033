"""Even load: which of the processes that share a listening socket accepts the next connection.

The kernel wakes whichever sleeps, and would give the idle of 8 processes twice the mean of 64 connections. So a process
with more connections than another leaves the next ones to it (docs/decisions/even-load.md).
"""

from __future__ import annotations

import os
import select
from typing import Any, Final, Protocol

LOOK: Final = 0.025
"""Seconds between two looks of a process that leaves connections to others. What waits at two looks in a row, it takes
itself: the others are stopped, dead, or busier than this one. Unless it has no file and another accepts: what it can
only hang up on, it leaves."""

HELP: Final = 16
"""Connections that it takes then at most."""

RETRY: Final = 0.5
"""Seconds after which a process that has no file for another connection looks whether it has one again."""


class Counts(Protocol):
    """The connections of clients that each process has, as all of them see it."""

    def put(self, connections: int) -> None:
        """This process has so many."""

    def least(self) -> int:
        """The smallest number of the others, of those that accept and are alive. If none does, one above any count."""

    def another(self) -> bool:
        """Whether any of the others accepts and is alive."""

    def total(self) -> int:
        """Of all processes."""

    def away(self, away: bool) -> None:
        """This process accepts none for now; or it does again."""

    def leave(self) -> bool:
        """This process accepts no more. Returns whether another does."""


def bell() -> int:
    """An eventfd for all processes. Each write wakes those that watch for its edge, and is never read."""
    return os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def ring(bell: int) -> None:
    """Wake those that watch."""
    os.eventfd_write(bell, 1)


def allowed(least: int) -> int:
    """The most connections with which a process accepts another, where the least of the others is ``least``."""
    return least + 1 + least // 16


class Gate:
    """Opens and closes the ports of this process together. The sockets stay open, and others accept from them.

    The process with the least connections is open. So when the least rises, whoever made it rise rings the bell, and
    those that are closed compare again. A process that is woken for a connection takes it, because the kernel wakes no
    other for it: the gate is closed after a turn in which too many were accepted, and never instead of accepting.

    Nor may it accept what it must hang up on while others have room: after each connection it looks whether there is a
    file for one more, and if not, it is away until there is.
    """

    def __init__(self, reactor: Any, counts: Counts, bell: int) -> None:
        self._reactor = reactor
        self._counts = counts
        self._bell = bell
        self._connections = 0
        self._ports: list[Any] = []
        self._poll = select.poll()
        self._timer: Any = None
        """Closes the gate, and then looks. None while it is open."""
        self._away = False
        self._left = False
        self._waited = False
        """Whether connections waited when it looked last."""

    def add(self, port: Any) -> None:
        """A port that accepts, from now on as long as the gate is open."""
        self._ports.append(port)
        if self._timer is not None:
            port.stopReading()
        self._poll.register(port.fileno(), select.POLLIN)

    def count(self, connections: int) -> None:
        """The process has so many connections of clients now."""
        self._connections = connections
        self._counts.put(connections)
        self._open_if_due()

    def total(self) -> int:
        """The number of clients' connections of all processes."""
        return self._counts.total()

    def accepted(self) -> None:
        """A port has accepted a connection."""
        if self._timer is not None or self._left:
            return
        mine, least = self._connections, self._counts.least()
        if not self._has_file():
            self._go_away()
        elif mine > allowed(least):
            self._timer = self._reactor.callLater(0, self._close)
        elif mine <= least <= allowed(mine):  # it had the least, alone, and another may accept now
            ring(self._bell)

    def leave(self) -> bool:
        """The ports are about to close, for good. Returns whether another process accepts what still waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._reactor.removeReader(self)
        self._left = True
        self._ports.clear()
        another = self._counts.leave()
        ring(self._bell)
        return another

    # What the reactor calls: the bell was rung.

    def fileno(self) -> int:
        return self._bell

    def doRead(self) -> None:
        self._open_if_due()

    def logPrefix(self) -> str:
        return "gate"

    def connectionLost(self, reason: object) -> None: ...

    def _has_file(self) -> bool:
        try:
            os.close(os.dup(self._bell))
        except OSError:
            return False
        return True

    def _go_away(self) -> None:
        self._away = True
        self._counts.away(True)
        ring(self._bell)
        self._timer = self._reactor.callLater(0, self._close)
        self._reactor.callLater(RETRY, self._come_back)

    def _come_back(self) -> None:
        if self._left:
            return
        if not self._has_file():
            self._reactor.callLater(RETRY, self._come_back)
            return
        self._away = False
        self._counts.away(False)
        self._open_if_due()

    def _close(self) -> None:
        self._timer = self._reactor.callLater(LOOK, self._look)
        self._waited = False
        for port in self._ports:
            port.stopReading()
        # An edge is reported at once, so that the counts are compared once more: the least may have risen just now.
        self._reactor.addEdge(self)

    def _open_if_due(self) -> None:
        if self._timer is not None and not self._away and self._connections <= allowed(self._counts.least()):
            self._timer.cancel()
            self._timer = None
            self._reactor.removeReader(self)
            for port in self._ports:
                port.startReading()

    def _look(self) -> None:
        self._timer = self._reactor.callLater(LOOK, self._look)
        waiting = {descriptor for descriptor, _ in self._poll.poll(0)}
        if self._waited and not (self._away and self._counts.another()):
            for port in self._ports:
                if port.fileno() in waiting:
                    port.accept(HELP)
        self._waited = bool(waiting)
        self._open_if_due()
