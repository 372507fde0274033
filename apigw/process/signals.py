"""The signal handlers of the process, from its beginning.

| signal | what happens |
|---|---|
| SIGTERM, SIGINT | ``Stop``: drain, then exit with 0; a second one cuts the drain short |
| SIGHUP | a reload |
| SIGUSR1 | new log files, for logrotate |
| SIGUSR2 | an upgrade: the master executes the program anew |

Without a handler, each of them ends the process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

ENDING = (signal.SIGTERM, signal.SIGINT)
TAKEN = (*ENDING, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

HANDED = "APIGW_HANDED"
"""Variable of the environment of a program that another has executed: the descriptor of what that has handed over."""

Action = Callable[[], object]

log = Logger()


@contextmanager
def held_back() -> Iterator[None]:
    """Signals wait meanwhile. A thread that is started, and a program that is executed, begins with them blocked.

    They wait only if no other thread takes them, so each thread of the master is started like this.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Signals:
    """Signals before the program runs are stored, and handled when it runs. Only SIGTERM and SIGINT end the process at
    once, until ``hold`` is called, because nothing is open yet.

    Handlers and stored signals survive the fork of daemonising.
    """

    def __init__(self) -> None:
        self._actions: dict[int, list[Action]] = {number: [] for number in TAKEN}
        self._kept: dict[int, None] = {}
        self._holding = False
        self._call: Callable[..., object] | None = None
        self.ending = False
        """Whether a signal has come that ends the program."""
        self.due: list[int] = []
        """Those that have come since the program runs, and are not acted on yet. Unlike a number, it is changed by one
        call, which no signal interrupts."""

    def install(self, ignoring: Collection[int] = ()) -> None:
        """``ignoring``: those that are another process's to act on."""
        try:
            for number in TAKEN:
                signal.signal(number, signal.SIG_IGN if number in ignoring else self._arrived)
            # Blocked while the program was executed anew, or this process was forked: until here they had no handler.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)
        except ValueError:  # not the main thread: an embedding program has its own signals
            return

    def on(self, number: int, action: Action) -> None:
        """Call ``action`` in the reactor's thread for each such signal; once for several that arrive together."""
        self._actions[number].append(action)

    def replace_those_of(self, reactor: Any) -> None:
        """Twisted's reactors set a handler of their own for SIGTERM when they start: let it be this one."""
        reactor.sigTerm = self._arrived

    def hold(self) -> None:
        """From now on SIGTERM and SIGINT are stored, too."""
        self._holding = True

    def obey(self, call_from_thread: Callable[..., object]) -> None:
        """The reactor runs: handle the stored signals, and further ones as they arrive."""
        self._call = call_from_thread
        kept, self._kept = self._kept, {}
        for number in kept:
            self._arrived(number, None)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        self.ending = self.ending or number in ENDING
        if self._call is not None:
            self.due.append(number)
            self._call(self._act, number)
        elif number in ENDING and not self._holding:
            os._exit(0)  # an exception would be lost in a finaliser, or in the callback of a weakref
        else:
            self._kept[number] = None

    def _act(self, number: int) -> None:
        self.due.pop()
        for action in self._actions[number]:
            action()


class Obeying(Service):
    """The service that handles signals from when the reactor runs, until the process ends."""

    def __init__(self, reactor: Any, signals: Signals) -> None:
        self._reactor = reactor
        self._signals = signals
        signals.replace_those_of(reactor)

    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._signals.obey, self._reactor.callFromThread)


class Stop:
    """The first call stops the reactor, and with it all services. Further calls call ``cut``, which ends their waits.

    Twisted's own handlers would end twistd by the signal, and ignore a second one.
    """

    def __init__(self, reactor: Any, *cut: Action) -> None:
        self._reactor = reactor
        self._cut = cut
        self._stopping = False

    def __call__(self) -> None:
        if self._stopping:
            for cut in self._cut:
                cut()
        else:
            self._stopping = True
            log.info("stopping")
            self._reactor.stop()
