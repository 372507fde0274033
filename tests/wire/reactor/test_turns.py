"""Turns of the reactor follow each other without Twisted's main loop while that has nothing to do."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apigw.wire.reactor import epoll

ENOUGH = 5


@pytest.fixture
def reactor() -> Iterator[Any]:
    reactor: Any = epoll._make()
    reactor.startRunning(installSignalHandlers=False)
    yield reactor
    reactor.removeAll()
    reactor._poller.close()


class Reader:
    """Always readable. In turn ``ENOUGH`` it does ``act``."""

    def __init__(self, sock: socket.socket, act: Callable[[], object]) -> None:
        self.fileno = sock.fileno
        self.reads = 0
        self._act = act

    def doRead(self) -> None:
        self.reads += 1
        if self.reads == ENOUGH:
            self._act()

    def connectionLost(self, reason: object) -> None: ...

    def logPrefix(self) -> str:
        return "reader"


def read_by(reactor: Any, act: Callable[[], object], looping: bool) -> int:
    """How often a reader is read before ``doPoll`` returns."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"a")
        reader = Reader(ours, act)
        reactor.addReader(reader)
        reactor.looping = looping
        reactor.doPoll(1.0)
        reactor.removeReader(reader)
    return reader.reads


@pytest.mark.parametrize("act", ["a timed call", "a call from a thread", "a stop"])
def test_the_main_loop_has_its_turn_when_it_has_something_to_do(reactor: Any, act: str) -> None:
    """New timed calls, calls from threads and a stop end the series of turns."""
    acts: dict[str, Callable[[], object]] = {
        "a timed call": lambda: reactor.callLater(10, lambda: None),
        "a call from a thread": lambda: reactor.callFromThread(lambda: None),
        "a stop": reactor.stop,
    }
    assert read_by(reactor, acts[act], looping=True) == ENOUGH


def test_a_timed_call_that_is_due_has_its_turn(reactor: Any) -> None:
    """It is run at its time, however busy the sockets are."""
    reactor.callLater(0.01, lambda: None)
    reactor.runUntilCurrent()
    assert 0 < read_by(reactor, lambda: None, looping=True) < 1_000_000


def test_outside_of_the_main_loop_there_is_one_turn(reactor: Any) -> None:
    """``iterate`` returns after one turn."""
    assert read_by(reactor, lambda: None, looping=False) == 1
