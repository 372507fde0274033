"""SIGUSR2: the master executes the program anew, in its own process, and loses no connection (docs/howto/upgrade.md).

First a trial: the new program is started as it will be, reads the configuration, constructs everything, and ends. Only
if it could does the master execute it. The old workers serve until the new ones do: then the upgrade has ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from attrs import asdict, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.config.model import Gateway
from apigw.process.child import Child, Ended
from apigw.process.master import Master, OldWorker
from apigw.process.own_log import OwnLog
from apigw.process.reload import Reload
from apigw.process.signals import HANDED, held_back
from apigw.process.sockets import bind_others
from apigw.process.systemd import expect_within, notify, reloading
from apigw.process.tree import CannotStart
from apigw.shared.slots import MOST_WORKERS

TRIAL = "APIGW_TRIAL"
"""Variable of the environment: this is a trial, and what it must know of the running program (``may_follow``)."""

ABLE = "apigw: this program can follow"
"""The line on its standard error with which a trial ends that has succeeded. That it ends with 0 says less: any module
that it loads could have ended it, and would end the gateway once that is this program."""

FORMAT = 2
"""Of what is handed over, and of what the master and its workers say to each other: the workers of one program are, for
a while, those of the next. It changes with any change that the other program would not understand."""

PATIENCE = 60.0
"""Seconds that the trial may take."""

STARTS_WITHIN = 2 * PATIENCE
"""Seconds for which the service manager's watchdog waits for the new program, which must do what its trial did."""

QUIET_WITHIN = 5.0
"""Seconds in which nothing is half said between the master and its workers."""

READY_WITHIN = 60.0
"""Seconds in which all workers of the new program must be ready, or the upgrade has failed: 10,000 routes take some 2 s
of CPU for each of them."""

LOOK = 0.01

log = Logger()


@frozen
class Handed:
    """What the program before has handed over. ``sockets`` are endpoints and descriptors, ``page`` is a descriptor."""

    sockets: list[tuple[str, int]]
    page: int
    workers: list[OldWorker]
    gone: str | None
    last: dict[str, str]
    """What each worker has counted, by its index."""
    pidfile: str
    progress: dict[str, Any]

    @classmethod
    def take(cls, environ: Any) -> Handed | None:
        """None in a program that was not executed by another."""
        number = environ.pop(HANDED, None)
        if number is None:
            return None
        with open(int(number), "rb") as file:
            file.seek(0)
            facts = json.load(file)
        workers = [OldWorker(**each) for each in facts.pop("workers")]
        sockets = [(endpoint, descriptor) for endpoint, descriptor in facts.pop("sockets")]
        known = {name: facts[name] for name in ("page", "gone", "last", "pidfile", "progress")}
        return cls(workers=workers, sockets=sockets, **known)


def may_follow(gateway: Gateway, workers: int, told: str) -> None:
    """In the trial: whether this program can take over from the running one, which has ``told`` what it is.

    Raises ``CannotStart``: once the running one has executed this one, there is nobody to go back to.
    """
    running: dict[str, Any] = json.loads(told)
    if running["format"] != FORMAT:
        raise CannotStart("the program on disk cannot take over from the one that runs: restart the gateway")
    if workers == 1:
        raise CannotStart("gateway.workers: with one worker there is no master to take over: restart the gateway")
    if running.get("workers", 0) + workers > MOST_WORKERS:
        raise CannotStart(f"there is no room for {workers} workers beside those that run: restart the gateway")
    bind_others(gateway, running["endpoints"])


class Upgrade(Service):
    """A trial that runs is ended with the service.

    ``command`` starts the program, as it was started; ``pidfile`` is that of twistd, which the new one must keep."""

    def __init__(
        self,
        reactor: Any,
        command: Sequence[str],
        pidfile: str,
        master: Master,
        reload: Reload,
        own_log: OwnLog | None,
        told: Callable[[], object],
        ended: Callable[[bool], object] = lambda _: None,
        due: Callable[[], bool] = lambda: False,
    ) -> None:
        """``told`` is called when what is known of the upgrade has changed, ``ended`` with whether it has succeeded.
        ``due``: whether a signal has come that is not acted on yet."""
        self._reactor = reactor
        self._command = list(command)
        self._pidfile = pidfile
        self._master = master
        self._reload = reload
        self._own_log = own_log
        self._told = told
        self._ended = ended
        self.due = due
        self._trial: Child | None = None

    def stopService(self) -> None:
        super().stopService()
        if self._trial is not None:
            self._trial.ended.cancel()

    def upgrade(self) -> None:
        """Begin, unless one is under way. What comes of it is logged, and in ``/status``.

        While workers of the program before drain it waits for them. Those that serve, as not all of this program have
        become ready, are passed on.
        """
        if not self.running:
            return
        if self._reload.upgrading:
            log.warn("no other upgrade: one is under way")
            return
        self._reload.upgrading, self._reload.upgrade_problem = True, ""
        self._told()
        draining = [worker.ended for worker in self._master.workers() if worker.old and worker.drains]
        if draining:
            log.info("upgrade: {count} workers of the program before finish what is in flight", count=len(draining))
        DeferredList(draining).addCallback(self._try)

    def follow(self) -> None:
        """Another program has executed this one, for an upgrade, which goes on until all workers are ready."""
        self._reload.upgrading = True
        self._reload.hold()
        late = self._reactor.callLater(READY_WITHIN, self._not_ready)
        self._master.complete.addCallback(self._ready, late)

    def _ready(self, _: object, late: IDelayedCall) -> None:
        log.info("upgraded: all workers of the new program are ready")
        if late.active():
            late.cancel()
            self._end(True)

    def _not_ready(self) -> None:
        new = sum(not worker.old for worker in self._master.living())
        self._failed(
            f"{new} of {self._master.life.workers} workers of the new program are ready after {READY_WITHIN:g} s; "
            "those of the program before serve, too"
        )

    def _try(self, _: object) -> None:
        if not self.running:
            return
        log.info("upgrade: trying the program on disk")
        told = {
            "format": FORMAT,
            "endpoints": self._master.life.sockets.endpoints(),
            "workers": len(self._master.workers()),
        }
        try:
            self._trial = Child(self._reactor, self._command, PATIENCE, environ={TRIAL: json.dumps(told)}, output=False)
        except OSError as error:
            self._failed(f"the new program cannot be started: {error}")
            return
        self._trial.ended.addCallbacks(self._tried, _given_up)

    def _tried(self, ended: Ended) -> None:
        self._trial = None
        if not self.running:
            return
        problem = verdict(ended)
        if problem:
            self._failed(problem)
        else:
            # Of many reloads the next comes after the upgrade.
            self._reload.hold()
            self._when_quiet(self._reactor.seconds() + QUIET_WITHIN)

    def _failed(self, problem: str) -> None:
        for line in problem.splitlines():
            log.error("not upgraded: {line}", line=line)
        self._reload.upgrade_problem = problem
        self._end(False)

    def _end(self, succeeded: bool) -> None:
        self._reload.upgrading = False
        self._reload.upgrades += 1
        self._ended(succeeded)
        self._told()
        self._reload.release()

    def _when_quiet(self, until: float) -> None:
        if not self.running:
            return
        if self._master.quiet and not self._reload.runs:
            self._execute(until)
        elif self._reactor.seconds() >= until and not self._reload.runs:
            self._failed("the workers do not answer")
        else:
            self._reactor.callLater(LOOK, self._when_quiet, until)

    def _execute(self, until: float) -> None:
        try:
            with held_back():  # until the new program has handlers of its own
                # What has come before is this program's to act on.
                if self._master.ending():
                    return
                if not self.due():
                    self._become_the_new_program()
            self._reactor.callLater(0, self._when_quiet, until)
        except OSError as error:
            expect_within(os.environ)
            self._master.keep()
            notify("READY=1")
            self._failed(f"the new program cannot be executed: {error}")

    def _become_the_new_program(self) -> NoReturn:
        log.info("upgrade: executing the program on disk")
        reloading()
        expect_within(os.environ, STARTS_WITHIN)
        life = self._master.life
        self._master.outlived.add_up()
        os.set_inheritable(life.page.descriptor, True)
        facts = {
            "sockets": life.sockets.hand_over(),
            "page": life.page.descriptor,
            "workers": [asdict(each) for each in self._master.hand_over()],
            "gone": self._master.outlived.total,
            "last": self._master.outlived.last,
            "pidfile": self._pidfile,
            "progress": self._progress(),
        }
        with open(os.memfd_create("apigw", 0), "wb", buffering=0) as file:
            file.write(json.dumps(facts).encode())
            if self._own_log is not None:
                self._own_log.flush()
            os.execve(self._command[0], self._command, {**os.environ, HANDED: str(file.fileno())})

    def _progress(self) -> dict[str, Any]:
        """The new program has read the configuration, so that a reload that failed before it matters no more."""
        again = {"again": self._reload.again}
        return {**self._reload.told(), **again, "succeeded": self._reload.succeeded or None, "problems": ()}


def verdict(trial: Ended) -> str:
    """Why the program that was tried cannot be used, or no text."""
    if not trial.code:
        able = ABLE in trial.said.splitlines()
        return "" if able else "the new program ended with exit code 0, and has not said that it can be used"
    if trial.late:
        return f"the new program was not ready within {PATIENCE:g} s"
    return _end(trial.said) or f"the new program ended with exit code {trial.code}"


def _given_up(failure: Failure) -> None:
    failure.trap(CancelledError)


def _end(said: str) -> str:
    """Of a traceback, where it ended and why."""
    lines = said.splitlines()
    if any(line.startswith("Traceback ") for line in lines):
        last = max((number for number, line in enumerate(lines) if line.startswith("  File ")), default=0)
        return "\n".join(line.strip() for line in lines[last:])
    return said
