"""Processes that this one has forked: how one is made, and how its end is noticed."""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from apigw.process.signals import held_back

Main = Callable[[Any], int]
"""The program of a child, from its own reactor to its exit code."""


def fork(reactor: Any, main: Main, install: Callable[[], None]) -> int:
    """Fork a child that runs ``main`` with a new reactor, made by ``install``, and return its process id.

    The child never returns from here: it ends by ``os._exit``, so that nothing of the parent's is finished twice. Its
    signals are blocked until ``main`` has its own handlers, by ``Signals.install``: the parent's would swallow them.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with held_back():
        process = os.fork()
        if process == 0:
            _become(reactor, main, install)
    return process


def _become(reactor: Any, main: Main, install: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        gc.freeze()  # what a reload has brought to the parent is shared, too, as long as no collection writes to it
        signal.set_wakeup_fd(-1)
        _close(reactor)
        sys.modules.pop("twisted.internet.reactor", None)
        install()
        from twisted.internet import reactor as own

        code = main(own)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def _close(reactor: Any) -> None:
    """Close the child's copies of what the parent's reactor watches.

    The epoll descriptor goes first: what is taken from it would be taken from the parent's, too.
    """
    reactor._poller.close()
    for watched in list(reactor._selectables.values()):
        held = getattr(watched, "socket", None)
        if held is None:
            os.close(watched.fileno())
        else:
            held.close()


@implementer(IReadDescriptor)
class Watch:
    """Calls ``ended`` with the exit status, as ``os.waitpid`` has it, when a child has ended.

    A descriptor of the process (pidfd_open(2)) is readable then; no signal can be lost or arrive too early.
    """

    def __init__(self, reactor: Any, process: int, ended: Callable[[int], object]) -> None:
        self._reactor = reactor
        self._process = process
        self._ended = ended
        self._descriptor = os.pidfd_open(process)
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "a child"

    def doRead(self) -> None:
        self._reactor.removeReader(self)
        os.close(self._descriptor)
        _, status = os.waitpid(self._process, 0)
        self._ended(status)

    def connectionLost(self, reason: object) -> None:
        """The reactor stops: whoever is left is nobody's business any more."""


def how(status: int) -> str:
    """The end of a process, in words that follow "worker 2"."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"was ended by {signal.Signals(number).name}"
        except ValueError:
            return f"was ended by signal {number}"
    return f"ended with exit code {os.waitstatus_to_exitcode(status)}"


def settle_for_forks() -> None:
    """Before the first fork: children share what is frozen now, as no collection of theirs writes to it."""
    gc.collect()
    gc.freeze()
