"""The epoll reactor as a proxy wants it: a turn first reads everything that is there, then writes what came of it.

Sending at the end of the turn wakes the processes on the other side once for many messages, not once for each. It costs
no latency that the turn would not have cost anyway, as it only lasts while there is something to read.

Twisted calls each descriptor through ``log.callWithLogger``, so that legacy log messages carry its prefix. That is six
function calls an event; nothing here logs that way, so descriptors are called directly.

``seconds()`` is monotonic, and with it every timer: Twisted's is the wall clock, which administrators and time servers
set, and then all timeouts fire at once, or late. Whoever wants Unix time is given ``time.time``.
"""

from __future__ import annotations

import errno
import sys
import time
from typing import Any

from twisted.internet.main import installReactor

from apigw.wire.reactor.eager import read_all, send_all


def install() -> None:
    """Make it the reactor, unless there is one already, which somebody chose, or this system has no epoll."""
    if "twisted.internet.reactor" not in sys.modules and sys.platform == "linux":
        installReactor(_make())


def _make() -> Any:
    from twisted.internet.epollreactor import EPollReactor

    class DirectEPollReactor(EPollReactor):
        writes_of_turn: list[Any] | None = None
        """During a turn: the transports that hold something to send. Each has ``send_held``."""
        turn = 0
        """Counts up. What arrives in the turn in which something was written cannot be an answer to it."""

        seconds = staticmethod(time.monotonic)

        def doPoll(self, timeout: float | None) -> None:
            try:
                ready = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
            except OSError as error:
                if error.errno == errno.EINTR:
                    return
                raise
            self.turn += 1
            turn: list[Any] = []
            self.writes_of_turn = turn
            read_all(self, ready, self._selectables)
            self.writes_of_turn = None
            send_all(turn)

        doIteration = doPoll

    return DirectEPollReactor()
