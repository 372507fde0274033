"""SIGUSR2: the master executes the program anew, in its own process, and loses no connection (docs/howto/upgrade.md).

First a trial: the new program is started as it will be, reads the configuration, constructs everything, and ends. Only
if it could does the master execute it. The old workers serve until the new ones do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from attrs import asdict, frozen
from twisted.application.service import Service
from twisted.internet.process import ProcessReader
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.config.model import Gateway
from apigw.process.master import Master, OldWorker
from apigw.process.own_log import OwnLog
from apigw.process.reload import Reload
from apigw.process.signals import HANDED, TAKEN
from apigw.process.sockets import bind_others
from apigw.process.systemd import expect_within, notify, reloading
from apigw.process.tree import CannotStart

TRIAL = "APIGW_TRIAL"
"""Variable of the environment: this is a trial, and what it must know of the running program (``may_follow``)."""

FORMAT = 1
"""Of what is handed over, and of what the master and its workers say to each other: the workers of one program are, for
a while, those of the next. It changes with any change that the other program would not understand."""

PATIENCE = 60.0
"""Seconds that the trial may take."""

STARTS_WITHIN = 2 * PATIENCE
"""Seconds for which the service manager's watchdog waits for the new program, which must do what its trial did."""

QUIET_WITHIN = 5.0
"""Seconds in which nothing is half said between the master and its workers."""

LOOK = 0.01

log = Logger()


@frozen
class Handed:
    """What the program before has handed over. ``sockets`` are endpoints and descriptors, ``page`` is a descriptor."""

    sockets: list[tuple[str, int]]
    page: int
    workers: list[OldWorker]
    gone: str | None
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
        return cls(workers=workers, sockets=sockets, **facts)


def may_follow(gateway: Gateway, workers: int, told: str) -> None:
    """In the trial: whether this program can take over from the running one, which has ``told`` what it is.

    Raises ``CannotStart``: once the running one has executed this one, there is nobody to go back to.
    """
    running = json.loads(told)
    if running["format"] != FORMAT:
        raise CannotStart("the program on disk cannot take over from the one that runs: restart the gateway")
    if workers == 1:
        raise CannotStart("gateway.workers: with one worker there is no master to take over: restart the gateway")
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
    ) -> None:
        self._reactor = reactor
        self._command = list(command)
        self._pidfile = pidfile
        self._master = master
        self._reload = reload
        self._own_log = own_log
        self._told = told
        self._trial: Trial | None = None

    def stopService(self) -> None:
        super().stopService()
        if self._trial is not None:
            self._trial.end()

    def upgrade(self) -> None:
        """Begin, unless one is under way. What comes of it is logged, and in ``/status``."""
        if not self.running:
            return
        if self._reload.upgrading:
            log.warn("no other upgrade: one is under way")
            return
        if any(worker.old for worker in self._master.workers()):
            self._failed("workers of the program before still finish what is in flight; try again later")
            return
        log.info("upgrade: trying the program on disk")
        self._reload.upgrading, self._reload.upgrade_problem = True, ""
        self._told()
        told = json.dumps({"format": FORMAT, "endpoints": self._master.life.sockets.endpoints()})
        self._trial = Trial(self._reactor, self._command, told, self._tried)
        self._trial.start()

    def _tried(self, problem: str) -> None:
        self._trial = None
        if not self.running:
            return
        if problem:
            self._failed(problem)
        else:
            self._when_quiet(self._reactor.seconds() + QUIET_WITHIN)

    def _failed(self, problem: str) -> None:
        for line in problem.splitlines():
            log.error("not upgraded: {line}", line=line)
        self._reload.upgrading, self._reload.upgrade_problem = False, problem
        self._reload.upgrades += 1
        self._told()

    def _when_quiet(self, until: float) -> None:
        if not self.running:
            return
        if self._master.quiet and not self._reload.runs:
            self._execute()
        elif self._reactor.seconds() >= until and not self._reload.runs:
            self._failed("the workers do not answer")
        else:
            self._reactor.callLater(LOOK, self._when_quiet, until)

    def _execute(self) -> None:
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
            "pidfile": self._pidfile,
            "progress": self._progress(),
        }
        file = os.memfd_create("apigw", 0)
        os.write(file, json.dumps(facts).encode())
        if self._own_log is not None:
            self._own_log.flush()
        # They have no handlers until the new program has set its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
        try:
            os.execve(self._command[0], self._command, {**os.environ, HANDED: str(file)})
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)
            os.close(file)
            expect_within(os.environ)
            self._master.keep()
            notify("READY=1")
            self._failed(f"the new program cannot be executed: {error}")

    def _progress(self) -> dict[str, Any]:
        """The new program has read the configuration, so that a reload that failed before it matters no more."""
        upgraded = {"upgrades": self._reload.upgrades + 1, "upgrading": False}
        return {**self._reload.told(), **upgraded, "succeeded": self._reload.succeeded or None, "problems": ()}


class Trial:
    """Starts the program with ``told`` in ``TRIAL``. ``tried`` is called with why it cannot be used, or no text."""

    def __init__(self, reactor: Any, command: Sequence[str], told: str, tried: Callable[[str], object]) -> None:
        self._reactor = reactor
        self._command = command
        self._told = told
        self._tried = tried
        self._said: list[bytes] = []
        self._why = ""

    def start(self) -> None:
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                close_fds=False,
                env={**os.environ, TRIAL: self._told},
            )
        except OSError as error:
            self._tried(f"the new program cannot be started: {error}")
            return
        assert self._process.stderr is not None
        ProcessReader(self._reactor, self, "err", self._process.stderr.fileno())
        self._late = self._reactor.callLater(PATIENCE, self._give_up)

    def end(self) -> None:
        """End it: whether the program can be used does not matter any more."""
        self._process.kill()

    def _give_up(self) -> None:
        self._why = f"the new program was not ready within {PATIENCE:g} s"
        self.end()

    def childDataReceived(self, name: str, data: bytes) -> None:
        self._said.append(data)

    def childConnectionLost(self, name: str, reason: Failure) -> None:
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._ended()

    def _ended(self) -> None:
        code = self._process.poll()
        if code is None:  # its standard error is closed a moment before its end, or by itself
            self._reactor.callLater(LOOK, self._ended)
            return
        if self._late.active():
            self._late.cancel()
        said = _end(b"".join(self._said).decode(errors="replace").strip())
        self._tried("" if code == 0 else self._why or said or f"the new program ended with {code}")


def _end(said: str) -> str:
    """Of a traceback, where it ended and why."""
    lines = said.splitlines()
    if any(line.startswith("Traceback ") for line in lines):
        last = max((number for number, line in enumerate(lines) if line.startswith("  File ")), default=0)
        return "\n".join(line.strip() for line in lines[last:])
    return said
