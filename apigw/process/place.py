"""Where a program runs: ``Alone`` in its gateway, or ``Sharing`` it with the other workers."""

from __future__ import annotations

import gc
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.registry import Collector
from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.logger import Logger

from apigw.config.model import Config, Listen
from apigw.contract.machine import Machine
from apigw.process.crowd import SharedCrowd
from apigw.process.drain import LastAnswers
from apigw.process.garbage import settle
from apigw.process.listeners import Counts, Listener
from apigw.process.machine import Siblings, WhileChecking
from apigw.process.outline import outline_of
from apigw.process.page_series import PageSeries
from apigw.process.pulse import Pulse
from apigw.process.reading import Reading
from apigw.process.reload import Progress, Reload, Takes
from apigw.process.signals import Signals
from apigw.process.sockets import Socket, Sockets
from apigw.process.watching import Watching
from apigw.shared.page import Page
from apigw.shared.slots import CONNECTIONS, IN_FLIGHT
from apigw.shared.tally import SharedTally, Tally
from apigw.wire.channel import ChannelFactory
from apigw.wire.reactor.gate import Gate
from apigw.wire.room import Crowd
from apigw.wire.server import Crowded

LOOKS_EVERY = 0.5
"""Seconds after which, at most, a worker knows of what others have found out about services."""

Ended = Callable[[bool, bool], object]
"""Called with whether a reload has succeeded, and whether this process counts it for the gateway."""

log = Logger()


class Place(ABC):
    """All that depends on whether there are other workers."""

    machine: Machine
    page: Page | None
    """What the workers share; None where there is one."""
    speaks: bool
    """Whether the log of this process says what concerns the whole gateway."""
    gate: Gate | None
    """Which worker accepts the next connection; None where there is one."""
    crowd: Crowded
    """How many connections each client has with the gateway."""

    @abstractmethod
    def tally(self, word: int) -> Tally:
        """A number, and its sum over all workers, which have it in this ``word`` of their slots."""

    @abstractmethod
    def load_of(self, worker: int) -> tuple[int, int]:
        """The connections of a worker's clients and its requests in flight, as far as it tells without being asked."""

    @abstractmethod
    def socket(self, index: int) -> Socket | None:
        """The socket of ``gateway.listen[index]`` that the master has bound. None: bind it."""

    @abstractmethod
    def admin(self, where: Listen, channels: ChannelFactory) -> Iterable[Service]:
        """The admin listener, of which the gateway has one at a time."""

    @abstractmethod
    def collectors(self) -> Iterable[Collector]:
        """Of metrics that are there only in such a place."""

    @abstractmethod
    def services(self, look: Callable[[], object]) -> Iterable[Service]:
        """Those that are there only in such a place. ``look`` notices what other workers have found out."""

    @abstractmethod
    def reloading(
        self, signals: Signals, directory: str, takes: Takes, ended: Ended, config: Callable[[], Config]
    ) -> Progress:
        """The service that reloads the configuration in ``directory``, or is told by the master that does. ``config``
        is the one in use."""

    @abstractmethod
    def at_start(self) -> None:
        """Everything has started: keep the garbage collector away from it."""


class Alone(Place):
    """``workers: 1``."""

    page = None
    speaks = True
    gate = None

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.machine = Machine()
        self._watching: Watching | None = None
        self.crowd = Crowd()

    def tally(self, word: int) -> Tally:
        return Tally()

    def load_of(self, worker: int) -> tuple[int, int]:
        return 0, 0  # it is never asked for: who is alone answers himself

    def socket(self, index: int) -> None:
        return None

    def admin(self, where: Listen, channels: ChannelFactory) -> Iterable[Service]:
        return (Listener(self._reactor, where, channels),)

    def collectors(self) -> Iterable[Collector]:
        return ()

    def services(self, look: Callable[[], object]) -> Iterable[Service]:
        return () if self._watching is None else (self._watching,)

    def reloading(
        self, signals: Signals, directory: str, takes: Takes, ended: Ended, config: Callable[[], Config]
    ) -> Progress:
        reload = Reload(
            self._reactor,
            Reading(self._reactor, directory),
            takes,
            lambda succeeded: ended(succeeded, True),
            outline=outline_of(config()),
        )
        signals.on(signal.SIGHUP, reload.reload)
        signals.on(signal.SIGUSR2, lambda: log.warn("not upgraded: with one worker, restart instead"))
        self._watching = Watching(self._reactor, directory, config, reload.reload)
        return reload

    def at_start(self) -> None:
        settle()


class Sharing(Place):
    """One of several workers. The master has the sockets, reads the configuration, and speaks in the log."""

    speaks = False

    def __init__(self, reactor: Any, machine: Siblings, page: Page, sockets: Sockets) -> None:
        """``page`` knows already which worker this is."""
        self.machine: Siblings = machine
        self.page: Page = page
        self._reactor = reactor
        self._sockets = sockets
        self._progress = Progress()
        self._ended: Ended
        self.gate = Gate(reactor, Counts(page.slots, page.worker, reactor.seconds), sockets.bell)
        self.crowd = SharedCrowd(page, page.worker, reactor.seconds)

    def tally(self, word: int) -> Tally:
        return SharedTally(self.page.slots, self.page.worker, word)

    def load_of(self, worker: int) -> tuple[int, int]:
        return self.page.slots.get(worker, CONNECTIONS), self.page.slots.get(worker, IN_FLIGHT)

    def socket(self, index: int) -> Socket:
        return self._sockets.public[index]

    def admin(self, where: Listen, channels: ChannelFactory) -> Iterable[Service]:
        operators = Listener(self._reactor, where, channels, self._sockets.admin)
        return LastAnswers(self._reactor, channels), WhileChecking(self.machine, operators)

    def collectors(self) -> Iterable[Collector]:
        return (PageSeries(self.page),)

    def services(self, look: Callable[[], object]) -> Iterable[Service]:
        looking = TimerService(LOOKS_EVERY, look)
        looking.clock = self._reactor
        return looking, Pulse(self._reactor, self.page, self.machine.checker_changed)

    def reloading(
        self, signals: Signals, directory: str, takes: Takes, ended: Ended, config: Callable[[], Config]
    ) -> Progress:
        self._ended = ended
        return self._progress

    def reloads(self, told: dict[str, Any], ended: bool) -> None:
        """How the master's reloads go. One that has ``ended`` is to be counted here, and by no other worker."""
        self._progress.follow(told)
        if told["succeeded"] is not None:
            self._ended(told["succeeded"], ended)

    def at_start(self) -> None:
        # What was there before the fork is shared with other processes as long as nobody looks at it.
        gc.freeze()
