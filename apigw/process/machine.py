"""What a worker shares with the others of its gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from attrs import frozen
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from apigw.config.model import Config
from apigw.contract.machine import Answer, Machine
from apigw.errors import Overloaded
from apigw.process.control import Control
from apigw.process.own_log import OwnLog
from apigw.process.sockets import Sockets
from apigw.shared.page import Page

ANSWERS_WITHIN = 8.0
"""Seconds in which the master must have the answers of all workers. It asks them for two at most, but may itself be
executing another program. Prometheus waits for ten."""


class Siblings(Machine):
    """The machine, from one of several workers: what is asked goes through the master to all of them."""

    def __init__(self, index: int, workers: int, clock: Any) -> None:
        super().__init__()
        self._clock = clock
        self.index = index
        self.workers = workers
        self.control: Control
        """To the master; set before anything is asked."""
        self._checks = False
        self._roles: list[tuple[Callable[[], object], Callable[[], object]]] = []
        self._when_joined: list[Callable[[], object]] = []

    @property
    def checks(self) -> bool:
        return self._checks

    def while_checks(self, begin: Callable[[], object], end: Callable[[], object]) -> None:
        self._roles.append((begin, end))
        if self._checks:
            begin()

    def checker_changed(self, checks: bool) -> None:
        """This worker has become the one that checks, or is it no longer."""
        self._checks = checks
        for begin, end in self._roles:
            (begin if checks else end)()

    def when_joined(self, call: Callable[[], object]) -> None:
        self._when_joined.append(call)

    def joined(self) -> None:
        """The master knows that this worker is ready."""
        for call in self._when_joined:
            call()

    def ask(self, question: str, argument: Any = None, silent: bool = False) -> Deferred[list[Answer]]:
        def answers(given: list[list[Any]]) -> list[Answer]:
            return [Answer(*each) for each in given if silent or each[2] is not None]

        asking = self.control.call("ask", [question, argument]).addTimeout(ANSWERS_WITHIN, self._clock)
        return asking.addCallbacks(answers, _unanswered)


def _unanswered(failure: Failure) -> NoReturn:
    failure.trap(ConnectionLost, TimeoutError)
    raise Overloaded("The gateway's master does not answer; try again in some seconds.")


@frozen
class Life:
    """What every worker is forked with."""

    workers: int
    config: Config
    sockets: Sockets
    page: Page
    directory: str
    log_decisions: bool
    own_log: OwnLog | None


class WhileChecking(Service):
    """Runs a service while this worker is the one that checks: what is there once for the machine."""

    def __init__(self, machine: Machine, service: IService) -> None:
        self._service = service
        self._machine = machine

    def startService(self) -> None:
        super().startService()
        self._machine.while_checks(self._begin, self._end)

    def stopService(self) -> Any:
        super().stopService()
        return self._end()

    def _begin(self) -> None:
        if self.running and not self._service.running:
            self._service.startService()

    def _end(self) -> Any:
        return self._service.stopService() if self._service.running else None
