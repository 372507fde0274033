"""The epoll reactor as a proxy wants it: a turn first reads everything that is there, then writes what came of it.

Sending at the end of the turn wakes the processes on the other side once for many messages, not once for each. It costs
no latency that the turn would not have cost anyway, as it only lasts while there is something to read.

Twisted calls each descriptor through ``log.callWithLogger``, so that legacy log messages carry its prefix. That is six
function calls an event; nothing here logs that way, so descriptors are called directly.

``seconds()`` is monotonic, and with it every timer: Twisted's is the wall clock, which administrators and time servers
set, and then all timeouts fire at once, or late. Whoever wants Unix time is given ``time.time``.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet.main import installReactor

from apigw.wire.reactor.eager import Turns


def install() -> None:
    """Make it the reactor, unless there is one already, which somebody chose, or this system has no epoll."""
    if "twisted.internet.reactor" not in sys.modules and sys.platform == "linux":
        installReactor(_make())


def _make() -> Any:
    from twisted.internet.epollreactor import EPollReactor

    class DirectEPollReactor(Turns, EPollReactor):
        seconds = staticmethod(time.monotonic)
        doIteration = Turns.doPoll

    return DirectEPollReactor()
