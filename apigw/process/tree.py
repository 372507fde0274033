"""The tree of Twisted services: the ordered parent, and small services for parts of the program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from random import random
from typing import Any, Protocol

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from apigw.contract.machine import Machine
from apigw.ops.readiness import Check
from apigw.process.snapshot import UpstreamKey
from apigw.upstream.checks import Dialled, HealthChecks, Turns
from apigw.upstream.named_targets import IsOwn, NamedTargets
from apigw.upstream.names import Names
from apigw.upstream.upstream import Upstream
from apigw.wire.deadlines import Deadlines

log = Logger()


class CannotStart(SystemExit, Exception):
    """Exits with one line and code 1. Also an ``Exception``, so that twistd passes it to its parent process."""


class Ordered(MultiService):
    """Starts its services from first to last; stops them from last to first, waiting for each."""

    @inlineCallbacks
    def stopService(self) -> Any:
        Service.stopService(self)
        for service in reversed(list(self)):
            try:
                yield service.stopService()
            except Exception:
                log.failure("a service did not stop")


class Ticking(Service):
    """Runs the list of deadlines."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines

    def startService(self) -> None:
        super().startService()
        self._deadlines.start()

    def stopService(self) -> None:
        super().stopService()
        self._deadlines.stop()


class Runs(Protocol):
    """A part with ``start`` and ``stop``."""

    def start(self) -> object: ...
    def stop(self) -> Any: ...


class Running(Service):
    """Starts and stops a part. The stop waits if the part returns a Deferred."""

    def __init__(self, part: Runs) -> None:
        self._part = part

    def startService(self) -> None:
        super().startService()
        self._part.start()

    def stopService(self) -> Any:
        super().stopService()
        return self._part.stop()


class LogFile(Running):
    """A log, which is opened after the process has forked. ``name`` is that of its key."""

    def __init__(self, part: Runs, name: str) -> None:
        super().__init__(part)
        self._name = name

    def startService(self) -> None:
        try:
            super().startService()
        except OSError as error:
            raise CannotStart(f"apigw: cannot open the {self._name}: {error}") from None


class Upstreams(Service):
    """Owns the upstreams of the current snapshot: their pools, their health checks."""

    def __init__(
        self,
        reactor: Any,
        machine: Machine,
        names: Names,
        is_own: IsOwn = lambda host, port: False,
        random: Callable[[], float] = random,
    ) -> None:
        """``random`` gives numbers from 0 to 1, by which checks are spread over time."""
        self._names = names
        self._is_own = is_own
        self._named: dict[Upstream, NamedTargets] = {}
        self._reactor = reactor
        self._random = random
        self._turns = Turns()
        self._current: Mapping[UpstreamKey, Upstream] = {}
        self._retired: list[Upstream] = []
        """Those that are closed, and have exchanges still."""
        self._health: dict[Upstream, HealthChecks] = {}
        self._dialled: dict[Upstream, Dialled] = {}
        self._machine = machine
        self._checking = False

    def pools(self) -> Iterator[tuple[str, int, int]]:
        """Of each service its name, how many connections it has, and how many requests wait for one.

        May be called in a thread.
        """
        for upstream in list(self._current.values()):
            pools = [target.pool for target in list(upstream.targets)]
            yield upstream.name, sum(pool.connections for pool in pools), sum(pool.waiting for pool in pools)

    def adopt(self, upstreams: Mapping[UpstreamKey, Upstream]) -> None:
        """Use these upstreams from now on. Those in both generations are not touched; the others start or close."""
        for key, upstream in self._current.items():
            if upstreams.get(key) is not upstream:
                self._retire(upstream)
        new = [upstream for key, upstream in upstreams.items() if self._current.get(key) is not upstream]
        self._current = upstreams
        if self.running:
            for upstream in new:
                self._begin(upstream)

    def checks(self) -> dict[str, Check]:
        """The checks of ``/ready``: each critical service has a target that answers."""
        return {
            upstream.name: partial(self._any_answers, upstream)
            for upstream in self._current.values()
            if upstream.service.critical
        }

    def _any_answers(self, upstream: Upstream) -> Deferred[object]:
        health = self._health.get(upstream)
        if health is not None:
            return health.any_answers()
        dialled = self._dialled.get(upstream)
        if dialled is None:
            dialled = self._dialled[upstream] = Dialled(upstream, self._reactor, self._turns, self._random)
        return dialled.any_answers()

    def look(self) -> None:
        """Notice what other workers have found out."""
        self._names.look()
        for upstream in self._current.values():
            try:
                upstream.look()
            except Exception:
                log.failure("looking after {service} failed", service=upstream.name)
        self._retired = [upstream for upstream in self._retired if upstream.keep()]

    def startService(self) -> None:
        super().startService()
        for upstream in self._current.values():
            self._begin(upstream)
        self._machine.while_checks(self._begin_checks, self._end_checks)

    def stopService(self) -> None:
        super().stopService()
        for upstream in self._current.values():
            self._retire(upstream)
        self._names.stop()

    def _begin_checks(self) -> None:
        self._checking = True
        self._names.begin()
        for health in self._health.values():
            health.begin()

    def _end_checks(self) -> None:
        self._checking = False
        self._names.end()
        for health in self._health.values():
            health.end()

    def _begin(self, upstream: Upstream) -> None:
        upstream.start()
        if any(target.lookup for target in upstream.service.targets):
            self._named[upstream] = NamedTargets(upstream, self._names, self._is_own)
            self._named[upstream].start()
        check = upstream.service.health_check
        if check is not None:
            self._health[upstream] = HealthChecks(upstream, check, self._reactor, self._turns, self._random)
            self._health[upstream].start(self._checking)

    def _retire(self, upstream: Upstream) -> None:
        # First: a check that is given up must not count for its circuit.
        upstream.close()
        if upstream.keep():
            self._retired.append(upstream)
        named = self._named.pop(upstream, None)
        if named is not None:
            named.stop()
        self._dialled.pop(upstream, None)
        health = self._health.pop(upstream, None)
        if health is not None:
            health.stop()
