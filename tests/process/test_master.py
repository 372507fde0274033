"""The master ends workers that hang, and nobody else."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.forked import Child, child
from support.turning import Turning
from twisted.internet.defer import Deferred

from apigw.config.model import Config
from apigw.process.control import Control, connect
from apigw.process.machine import Life
from apigw.process.master import LONGEST_PAUSE, MISSED, TICK, Master, OldWorker
from apigw.process.reports import Reports
from apigw.process.sockets import Sockets
from apigw.shared.page import Page

MINUTE = 60.0


class Scene:
    """A master with two workers of the program before: real processes, for which the test answers."""

    def __init__(self, stack: ExitStack) -> None:
        self.reactor: Any = Turning()
        self.hangs: set[int] = set()
        """The workers that do not answer."""
        self.ticks = [0, 0]
        """How often each was asked."""
        page = Page.make(2, 1024 * 1024)
        stack.callback(page.close)
        config = Config()
        life = Life(0, config, Sockets(config.gateway), page, "/", False, None)
        self.master = Master(self.reactor, life, _never, lambda: None, Reports(False))
        self.processes = [stack.enter_context(child(_drain)) for _ in range(2)]
        for process in self.processes:
            process.wait_so_far()
        self.master.adopt([self._old(index, process) for index, process in enumerate(self.processes)])
        self.master.startService()

    def _old(self, index: int, process: Child) -> OldWorker:
        ours, theirs = socket.socketpair()

        def tick(*_: object) -> Deferred[None] | None:
            self.ticks[index] += 1
            return Deferred() if index in self.hangs else None

        connect(self.reactor, theirs, Control({"tick": tick}, lambda: None))
        return OldWorker(index, process.pid, ours.detach(), "")

    def tick(self) -> None:
        """Until both workers have been asked once more, and the master has the answers."""
        before = self.ticks[:]
        self.reactor.advance(TICK)
        self.reactor.turn_until(lambda: all(now > then for now, then in zip(self.ticks, before, strict=True)))
        self.reactor.turn_until(lambda: all(not worker.missed for worker in self.answering))

    @property
    def answering(self) -> list[Any]:
        return [worker for worker in self.master.living() if worker.index not in self.hangs]

    @property
    def living(self) -> list[int]:
        return [worker.index for worker in self.master.living()]


def _drain(so_far: Callable[[], None]) -> None:
    """For as long as it takes."""
    faulthandler.disable()  # pytest's, which would write down where it is ended
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    so_far()
    signal.pause()


def _never(life: Life, index: int, end: socket.socket, reactor: Any) -> int:
    os._exit(1)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        stack.callback(gc.unfreeze)
        yield Scene(stack)


def test_a_worker_that_does_not_answer_is_ended(scene: Scene) -> None:
    """After five ticks in a row, and not the other one."""
    scene.hangs.add(0)
    for _ in range(MISSED):
        scene.tick()
    assert scene.living == [0, 1]
    scene.reactor.advance(TICK)
    scene.reactor.turn_until(lambda: scene.living == [1])


def test_workers_that_hang_while_all_drain_are_ended_too(scene: Scene) -> None:
    """Else the gateway would never end."""
    stopped = scene.master.stopService()
    scene.hangs = {0, 1}
    for _ in range(MISSED):
        scene.tick()
    assert scene.living == [0, 1]
    scene.reactor.advance(TICK)
    scene.reactor.turn_until(lambda: stopped.called)
    assert scene.living == []


def test_one_that_answers_again_begins_anew(scene: Scene) -> None:
    for _ in range(3):
        scene.hangs = {0}
        for _ in range(MISSED - 1):
            scene.tick()
        scene.hangs = set()
        scene.tick()
    assert scene.living == [0, 1]


def test_a_machine_that_was_paused_ends_nobody(scene: Scene) -> None:
    """However long all stood still: after it each is asked once, and answers."""
    for _ in range(3):
        scene.tick()
        scene.reactor.advance(MINUTE)
        scene.tick()
    assert scene.ticks == [6, 6]
    assert scene.living == [0, 1]


def test_the_pause_before_a_replacement_is_bounded(scene: Scene) -> None:
    """However often one has died in a row."""
    worker = scene.master.living()[0]
    assert [scene.master._pause(worker) for _ in range(3)] == [0.0, 0.1, 0.2]
    assert {scene.master._pause(worker) for _ in range(2000)} >= {LONGEST_PAUSE}
