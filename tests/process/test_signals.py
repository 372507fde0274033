"""What comes of a signal, by when it arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.selectreactor import SelectReactor

from apigw.process.signals import TAKEN, Signals


class Scene:
    """Signals with their handlers, whose actions are noted, and a reactor that does what it is given at once."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.signals = Signals()
        for number in TAKEN:
            self.signals.on(number, self._noting(number))
        self.signals.install()

    def _noting(self, number: int) -> Callable[[], None]:
        return lambda: self.done.append(number)

    def send(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def run(self) -> None:
        self.signals.obey(lambda call, *arguments: call(*arguments))


@pytest.fixture
def scene() -> Iterator[Scene]:
    before = {number: signal.getsignal(number) for number in TAKEN}
    yield Scene()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_comes_early_is_done_once_when_the_program_runs(scene: Scene) -> None:
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP):
        scene.send(number)
    assert scene.done == []
    scene.run()
    assert scene.done == [signal.SIGHUP, signal.SIGUSR1]
    scene.run()
    assert len(scene.done) == 2


def test_what_has_come_is_due_until_it_is_done(scene: Scene) -> None:
    """Also what has come before the program runs."""
    later: list[Callable[[], object]] = []
    scene.send(signal.SIGHUP)
    assert scene.signals.due == []
    scene.signals.obey(lambda call, *arguments: later.append(lambda: call(*arguments)))
    scene.send(signal.SIGUSR1)
    assert (scene.signals.due, scene.done) == ([signal.SIGHUP, signal.SIGUSR1], [])
    for each in later:
        each()
    assert (scene.signals.due, scene.done) == ([], [signal.SIGHUP, signal.SIGUSR1])


IGNORING = """
import os, signal
from apigw.process.signals import TAKEN, Signals

signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGHUP)
signals = Signals()
signals.on(signal.SIGHUP, lambda: print("a reload"))
signals.on(signal.SIGUSR1, lambda: print("a new log"))
signals.install(ignoring=(signal.SIGINT, signal.SIGHUP))
os.kill(os.getpid(), signal.SIGUSR1)
signals.obey(lambda call, *arguments: call(*arguments))
os.kill(os.getpid(), signal.SIGHUP)
"""


def test_what_another_process_acts_on_is_ignored_also_if_it_came_while_signals_were_blocked() -> None:
    """So it is for a worker while it is forked: an interrupt from the terminal must not end it."""
    done = subprocess.run([sys.executable, "-c", IGNORING], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a new log\n", "")


STARTING = """
import os
from apigw.process.signals import Signals

Signals().install()

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), {number})

Finalised()
print("it goes on")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_an_end_is_at_once_while_nothing_is_open(number: int) -> None:
    """Wherever Python is, also in a finaliser, where an exception is ignored."""
    code = STARTING.format(number=int(number))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_waits_for_the_program_when_something_may_be_open(scene: Scene, number: int) -> None:
    scene.signals.hold()
    scene.send(number)
    assert scene.done == []
    scene.run()
    assert scene.done == [number]


def test_the_handler_that_a_reactor_sets_when_it_starts_is_the_same(scene: Scene) -> None:
    """No signal is lost to another in between."""
    scene.signals.hold()
    reactor: Any = SelectReactor()
    scene.signals.replace_those_of(reactor)
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    scene.send(signal.SIGTERM)
    assert scene.done == []
    scene.run()
    assert scene.done == [signal.SIGTERM]


def test_several_may_want_the_same_signal(scene: Scene) -> None:
    scene.signals.on(signal.SIGUSR1, lambda: scene.done.append(0))
    scene.run()
    scene.send(signal.SIGUSR1)
    assert scene.done == [signal.SIGUSR1, 0]
