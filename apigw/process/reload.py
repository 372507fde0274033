"""SIGHUP: reload the configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.config.errors import ConfigError, Problem
from apigw.config.model import Config
from apigw.process.current import Current
from apigw.process.listeners import Listener
from apigw.process.rules import RULES
from apigw.process.snapshot import Snapshot
from apigw.process.systemd import notify

log = Logger()

Load = Callable[[], Config]
Compile = Callable[[Config, Snapshot | None], Snapshot]


class Reload(Service):
    """Loads and compiles in a thread, then swaps snapshots in the reactor's. On failure nothing changes."""

    def __init__(
        self,
        reactor: Any,
        load: Load,
        compile: Compile,
        listeners: Iterable[Listener],
        current: Current,
    ) -> None:
        self._reactor = reactor
        self._load = load
        self._compile = compile
        self._listeners = listeners
        self._current = current
        self._running: Deferred[bool] | None = None
        self._again = False
        self.succeeded: bool | None = None
        """Whether the last reload succeeded; None before the first one."""
        self.count = 0
        """Number of reloads that have ended."""
        self.problems: tuple[str, ...] = ()
        """Why the last reload failed."""
        self.ended_at = 0.0
        """When the last reload ended, in seconds of the reactor."""

    def startService(self) -> None:
        super().startService()
        notify("READY=1")

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        self._again = False
        return self._running or succeed(None)

    @property
    def runs(self) -> bool:
        """Whether a reload is in progress."""
        return self._running is not None

    def reload(self) -> Deferred[bool]:
        """Fires with whether the new configuration is in use. Calls during a reload cause one more reload."""
        if not self.running:
            return succeed(False)
        if self._running is not None:
            self._again = True
            return self._running
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        preparing: Deferred[Any] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._prepare)
        self._running = preparing.addCallback(self._swap).addErrback(self._failed).addCallback(self._done)
        return self._running

    def _prepare(self) -> tuple[Snapshot, list[Callable[[], None]]]:
        current = self._current.snapshot
        config = self._load()
        problems = needs_restart(current.config, config)
        if problems:
            raise ConfigError(problems)
        snapshot = self._compile(config, current)
        return snapshot, [listener.load() for listener in self._listeners]

    def _swap(self, prepared: tuple[Snapshot, list[Callable[[], None]]]) -> bool:
        snapshot, certificates = prepared
        self._current.use(snapshot)
        for use in certificates:
            use()
        self.problems = ()
        log.info("configuration reloaded: {routes} routes", routes=len(snapshot.config.routes))
        return True

    def _failed(self, failure: Failure) -> bool:
        error = failure.value
        if isinstance(error, ConfigError):
            self.problems = tuple(map(str, error.problems))
            for problem in self.problems:
                log.error("not reloaded: {problem}", problem=problem)
        else:
            self.problems = ("an error in the gateway; its log has the details",)
            log.failure("not reloaded", failure=failure)
        return False

    def _done(self, succeeded: bool) -> bool:
        self.count += 1
        self.succeeded, self.ended_at = succeeded, self._reactor.seconds()
        self._current.reload_ended(succeeded)
        notify("READY=1")
        self._running = None
        if self._again:
            self._again = False
            self.reload()
        return succeeded


def needs_restart(old: Config, new: Config) -> list[Problem]:
    """Problems for changes that need a restart. Certificates may change, but not the list of their files."""

    def fixed(config: Config) -> dict[tuple[str, ...], object]:
        gateway = config.gateway
        return {
            ("gateway", "listen"): gateway.listen,
            ("gateway", "admin"): gateway.admin,
            ("redis", "url"): config.redis and evolve(config.redis, timeout=0),
        }

    before, after = fixed(old), fixed(new)
    problems = [
        Problem("a change here needs a restart", path, new.origins.get(path))
        for path, value in after.items()
        if value != before[path]
    ]
    return [*problems, *(problem for refuse in RULES.refuse for problem in refuse(old, new))]
