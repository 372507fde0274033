"""The master: with several workers, the process that ``twistd`` starts.

It owns the listening sockets, the shared page and the signals, forks the workers, replaces those that end, and passes
on what they ask each other. It carries no traffic.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count, islice
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from apigw.config.model import Config
from apigw.config.units import counted
from apigw.process.children import Watch, fork, how, settle_for_forks
from apigw.process.control import Control, Give, connect
from apigw.process.machine import Life
from apigw.process.outlived import Outlived
from apigw.process.reports import Reports
from apigw.process.starting import FAILED, READY, until_ready
from apigw.process.systemd import notify
from apigw.shared.slots import TICK as TICKED

log = Logger()

TICK = 1.0
"""Seconds between two questions to each worker whether it still answers."""

MISSED = 5
"""Ticks in a row without an answer after which a worker is ended. Counted by the master's own ticks, so that a machine
that was paused ends nobody."""

STARTS_WITHIN = 60
"""Ticks in which a worker must become ready: 10,000 routes take some 2 s."""

DUMPS = 1.0
"""Seconds that a worker which hangs gets to write down where."""

ANSWERS_WITHIN = 2.0
"""Seconds in which a worker must answer a question of another."""

SILENT = 1000
"""Milliseconds without a sign of life, of which each worker gives four a second, after which no answer is expected."""

SILENT_WITHIN = 0.1
"""Seconds in which it may answer nevertheless."""

STEADY = 10.0
"""Seconds of life after which a worker's death is not one of a series."""

MOST_SAID = 64 * 1024 * 1024
"""Bytes of the longest message of a worker: its metrics of 10,000 routes take half a megabyte, its history more."""

LONGEST_PAUSE = 10.0
"""Seconds: the longest pause before a worker that dies again and again is replaced. The first one is replaced at once,
then after 0.1 s, and twice as long each time."""


@frozen
class OldWorker:
    """A worker on its way into the program that the master executes. ``control`` is a descriptor."""

    index: int
    process: int
    control: int
    unread: str
    """The bytes of a message whose end has not arrived, in hexadecimal digits."""
    drains: bool = False


@define(eq=False)
class Worker:
    """A living worker, as the master knows it."""

    index: int
    process: int
    since: float
    control: Control
    ready: bool = False
    old: bool = False
    """Whether it is of the program before this one: it serves until those of this one do."""
    drains: bool = False
    """Whether it was told to end. A second time would cut what is in flight."""
    missed: int = 0
    ended: Deferred[None] = field(factory=Deferred)


class Master(Service):
    """``live`` is called in each child, and never here: with what it starts with, its index, its end of the control
    connection and its reactor. It returns an exit code."""

    def __init__(
        self,
        reactor: Any,
        life: Life,
        live: Callable[[Life, int, socket.socket, Any], int],
        install_reactor: Callable[[], None],
        reports: Reports,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        """``ending``: whether a signal has come that ends the gateway."""
        self._reports = reports
        self.ending = ending
        self._reactor = reactor
        self.life = life
        """What workers that are forked from now on start with."""
        self._live = live
        self._install = install_reactor
        self._started: dict[int, tuple[int, socket.socket]] = {}
        self._workers: dict[int, Worker] = {}
        self._deaths: dict[int, int] = {}
        self.outlived = Outlived()
        self.asking = 0
        """Number of workers' questions that are not answered yet."""
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor
        self._lost = 0
        self.came: Callable[[Worker], object] = lambda _: None
        """Called when a worker has become ready."""
        self.complete: Deferred[None] = Deferred()
        """Fires when all workers of this program have become ready for the first time."""

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self.life.sockets.bind()

    def startService(self) -> None:
        """Fork the workers, and wait until one is ready. Raises ``CannotStart`` if three end before that."""
        super().startService()
        self._reports.in_use(self.life.config)
        settle_for_forks()
        free = (index for index in count() if index not in self._workers)
        for index in islice(free, self.life.workers):
            self._fork(index)
        if not self._workers:
            until_ready(self._started, self._fork, self.ending)
        for index in list(self._started):
            self._meet(index)
        self._ticking.start(TICK, now=False)
        self._reports.started(self.life.config)

    def adopt(self, old: Iterable[OldWorker]) -> None:
        """Before the start: the workers of the program before, which this process has forked, too."""
        for each in old:
            worker = self._take_up(each.index, each.process, socket.socket(fileno=each.control))
            worker.ready, worker.old, worker.drains = True, True, each.drains
            if each.unread:
                worker.control.dataReceived(bytes.fromhex(each.unread))

    def hand_over(self) -> list[OldWorker]:
        """The workers, for ``adopt`` in the program that this process is about to execute."""
        for worker in self.workers():
            if not worker.ready:
                self._kill(worker, signal.SIGKILL)
                os.waitpid(worker.process, 0)
                self.life.page.died(worker.index)
        return [
            OldWorker(each.index, each.process, each.control.hand_over(), each.control.unread.hex(), each.drains)
            for each in self.living()
        ]

    def keep(self) -> None:
        """The other program was not executed: its descriptors are this one's alone again."""
        for worker in self.living():
            worker.control.keep()
        self.life.sockets.keep()
        os.set_inheritable(self.life.page.descriptor, False)

    @property
    def quiet(self) -> bool:
        """Whether nothing is half said between this process and a worker."""
        return not self.asking and all(worker.control.flushed for worker in self.workers())

    @property
    def serves(self) -> bool:
        """Whether a worker has answered lately."""
        return any(worker.missed <= 1 for worker in self.living())

    def living(self) -> list[Worker]:
        """The workers that are ready, by index."""
        return [worker for _, worker in sorted(self._workers.items()) if worker.ready]

    def workers(self) -> list[Worker]:
        """All of them, also those that are not ready yet."""
        return list(self._workers.values())

    def use(self, config: Config) -> None:
        """Workers that are forked from now on start with this configuration."""
        self.life = evolve(self.life, config=config)
        self._reports.in_use(config)

    def replace(self, worker: Worker, why: str) -> None:
        """End a worker at once; another takes its place."""
        log.error("worker {index} (process {process}) {why}", index=worker.index, process=worker.process, why=why)
        self._kill(worker, signal.SIGKILL)

    def tell(self, what: str, argument: Any, *only: Worker) -> None:
        """Call all workers that are ready, or some; whether they have heard it does not matter."""
        for worker in only or self.living():
            worker.control.call(what, argument).addErrback(lambda _: None)

    def tell_one(self, what: str, argument: Any) -> None:
        """Call one worker that is ready, for what is to be counted once; one of this program if there is one."""
        living = self.living()
        self.tell(what, argument, *([each for each in living if not each.old] or living)[:1])

    def lost(self, lines: int) -> None:
        """So many lines of this process's log were lost: a worker counts them, now or when there is one."""
        self._lost += lines
        if self._lost and self.living():
            lost, self._lost = self._lost, 0
            self.tell("lost", lost, self.living()[0])

    def signal(self, number: int) -> None:
        for worker in self._workers.values():
            with suppress(ProcessLookupError):
                os.kill(worker.process, number)

    def stopService(self) -> Deferred[Any]:
        """Have all workers drain; fires when they have ended. One that hangs meanwhile is ended."""
        super().stopService()
        notify("STOPPING=1")
        ends = [worker.ended for worker in self._workers.values()]
        for worker in self.workers():
            self.drain(worker)
        # Until then clients may connect: the workers wait as long before they close their copies.
        closing = self._reactor.callLater(self.life.config.gateway.drain_delay, self.life.sockets.close_public)
        return DeferredList(ends).addCallback(self._all_ended, closing)

    def drain(self, worker: Worker) -> None:
        """Have a worker end when nothing is in flight; only the first time."""
        if not worker.drains:
            worker.drains = True
            self._kill(worker, signal.SIGTERM)

    def _all_ended(self, _: object, closing: IDelayedCall) -> None:
        self._ticking.stop()
        if closing.active():
            closing.cancel()
        self.life.sockets.close()

    def _fork(self, index: int) -> None:
        ours, theirs = socket.socketpair()

        def child(reactor: Any) -> int:
            ours.close()
            for _, end in self._started.values():
                end.close()
            return self._live(self.life, index, theirs, reactor)

        with theirs:
            try:
                process = fork(self._reactor, child, self._install)
            except OSError:
                ours.close()
                raise
        self._started[index] = process, ours

    def _meet(self, index: int) -> None:
        """The reactor runs, or is about to: take up the control connection of a worker that was forked."""
        process, end = self._started.pop(index)
        self._take_up(index, process, end)

    def _take_up(self, index: int, process: int, end: socket.socket) -> Worker:
        # What a worker may call here. It speaks for itself alone.
        gives: dict[str, Give] = {
            READY: lambda *_: self._ready(worker),
            FAILED: lambda reason, _: log.error("{reason}", reason=reason),
            "ask": lambda asked, _: self._ask(*asked),
            "counted": lambda metrics, _: self.outlived.said(index, metrics),
            "leave": lambda metrics, _: self.outlived.last_word(index, metrics),
        }
        control = Control(gives, lambda: None, MOST_SAID)
        worker = self._workers[index] = Worker(index, process, self._reactor.seconds(), control)
        Watch(self._reactor, process, partial(self._ended, worker))
        connect(self._reactor, end, control)
        return worker

    def _ready(self, worker: Worker) -> None:
        worker.ready, worker.missed = True, 0
        self.lost(0)
        self.came(worker)
        new = [each for each in self.living() if not each.old]
        if len(new) == self.life.workers:
            if not self.complete.called:
                self.complete.callback(None)
            for each in self.workers():
                if each.old:
                    self.drain(each)

    def _ended(self, worker: Worker, status: int) -> None:
        del self._workers[worker.index]
        worker.control.close()
        replaced = self.running and not worker.old
        pause = self._pause(worker) if replaced else 0.0
        if replaced:
            self._reactor.callLater(pause, self._replace, worker.index)
        worker.ended.callback(None)
        locks = self._tidy_up_after(worker)
        if replaced:
            say = log.error if status else log.warn  # one that was sent SIGTERM has drained
            say(
                "worker {index} (process {process}) {how}{held}; replaced {when}",
                index=worker.index,
                process=worker.process,
                how=how(status),
                held=f"; it held {counted(locks, 'lock')}, now free again" if locks else "",
                when=f"in {pause:g} s" if pause else "at once",
            )

    def _tidy_up_after(self, worker: Worker) -> int:
        """Free what it held, and keep what it counted. Returns how many locks it held."""
        locks = 0
        try:
            locks = len(self.life.page.died(worker.index).locks)
            self.life.sockets.ring()
            if self.running:
                self.outlived.left(worker.index)
        except Exception:  # whatever it has left there: another takes its place
            log.failure("what worker {index} held could not be freed", index=worker.index)
        return locks

    def _pause(self, worker: Worker) -> float:
        in_a_row = 0 if self._reactor.seconds() - worker.since >= STEADY else self._deaths.get(worker.index, 0)
        self._deaths[worker.index] = in_a_row + 1
        return min(0.05 * 2 ** min(in_a_row, 16), LONGEST_PAUSE) if in_a_row else 0.0

    def _replace(self, index: int) -> None:
        if not self.running:
            return
        try:
            self._fork(index)
        except OSError as error:
            log.error("worker {index} cannot be replaced: {error}", index=index, error=error)
            self._reactor.callLater(LONGEST_PAUSE, self._replace, index)
        else:
            self._meet(index)

    def _tick(self) -> None:
        for worker in self.workers():
            if worker.missed == (MISSED if worker.ready else STARTS_WITHIN):
                self._end(worker)
            worker.missed += 1
            worker.control.call("tick").addCallbacks(lambda _, worker=worker: self._answered(worker), lambda _: None)

    def _answered(self, worker: Worker) -> None:
        worker.missed = 0

    def _end(self, worker: Worker) -> None:
        """End one that hangs. SIGABRT has it write its stack, which one that is stopped cannot."""
        log.error(
            "worker {index} (process {process}) {what} for {missed:g} s",
            index=worker.index,
            process=worker.process,
            what="has not answered" if worker.ready else "has not become ready",
            missed=worker.missed * TICK,
        )
        for after, number in ((0.0, signal.SIGABRT), (DUMPS, signal.SIGKILL)):
            self._reactor.callLater(after, self._kill, worker, number)

    def _kill(self, worker: Worker, number: int) -> None:
        if self._workers.get(worker.index) is worker:
            os.kill(worker.process, number)

    def _ask(self, question: str, argument: Any) -> Deferred[list[Any]]:
        """Ask every worker for one of them: index, process and value of each, which is None if it gives no answer."""
        workers = self.living()
        now = int(self._reactor.seconds() * 1000)
        asked = [
            worker.control.call("give", [question, argument]).addTimeout(self._patience(worker, now), self._reactor)
            for worker in workers
        ]
        self.asking += 1
        return DeferredList(asked, consumeErrors=True).addCallback(self._given, workers, question)

    def _patience(self, worker: Worker, now: int) -> float:
        lately = self.life.page.slots.get(worker.index, TICKED)
        return SILENT_WITHIN if now - lately > SILENT else ANSWERS_WITHIN

    def _given(self, answers: list[tuple[bool, Any]], workers: list[Worker], question: str) -> list[list[Any]]:
        self.asking -= 1
        given = [
            [worker.index, worker.process, value if succeeded else None]
            for worker, (succeeded, value) in zip(workers, answers, strict=True)
        ]
        return self.outlived.heard(question, given)
