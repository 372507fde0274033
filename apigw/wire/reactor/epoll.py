"""An epoll reactor for proxies: each turn first reads from all ready sockets, then writes.

Sending at the end of the turn wakes a process on the other side once for many messages. It adds little latency: a turn
lasts only while there is something to read.

Twisted calls each descriptor through ``log.callWithLogger``, so that legacy log messages carry its prefix. That is six
function calls for each event. The gateway does not log that way, so descriptors are called directly.

``seconds()`` and all timers use the monotonic clock. Twisted uses the wall clock: when that is set, timeouts fire at
once or late. Code that needs Unix time gets ``time.time``.
"""

from __future__ import annotations

import select
import sys
import time
from functools import cache
from typing import Any

from twisted.internet.main import installReactor

from apigw.wire.reactor.turns import Turns


def install() -> None:
    """Install this reactor, unless another is installed or the system has no epoll."""
    if "twisted.internet.reactor" not in sys.modules and sys.platform == "linux":
        installReactor(_make())


def _make() -> Any:
    return _of_own_class()()


@cache
def _of_own_class() -> Any:
    """Made once: a worker, which makes a reactor of its own, shares the class with its master."""
    from twisted.internet.epollreactor import EPollReactor

    class DirectEPollReactor(Turns, EPollReactor):
        seconds = staticmethod(time.monotonic)
        doIteration = Turns.doPoll

        def mainLoop(self) -> None:
            self.looping = True
            try:
                super().mainLoop()
            finally:
                self.looping = False

        def addExclusive(self, reader: Any) -> None:
            """Read from a socket that other processes have in their epoll too: one of those that sleep is woken."""
            self._add_once(reader, select.EPOLLIN | select.EPOLLEXCLUSIVE)

        def addEdge(self, reader: Any) -> None:
            """Call ``doRead`` now, and then for each write, whether or not anything is read."""
            self._add_once(reader, select.EPOLLIN | select.EPOLLET)

        def _add_once(self, reader: Any, events: int) -> None:
            # Such a descriptor is never written to: an exclusive one cannot be modified (epoll_ctl(2): EINVAL).
            descriptor = reader.fileno()
            if descriptor not in self._reads:
                self._poller.register(descriptor, events)
                self._reads.add(descriptor)
                self._selectables[descriptor] = reader

    return DirectEPollReactor
