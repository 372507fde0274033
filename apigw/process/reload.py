"""SIGHUP: reload the configuration."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from apigw.config.errors import ConfigError, Problem
from apigw.process.handover import Handover
from apigw.process.outline import Outline
from apigw.process.systemd import notify, reloading

log = Logger()


class Reads(Protocol):
    def read(self) -> Deferred[Handover]: ...


class Takes(Protocol):
    """Who uses the configuration: this process (``Renewal``), or the workers. Each may return a Deferred."""

    def prepare(self, data: bytes) -> Any: ...
    def commit(self) -> Any: ...
    def abandon(self) -> Any: ...


MOST_LOGGED, MOST_TOLD = 20, 100
"""Lines of ``changed`` that are logged, and that are kept for the audit log. Of problems the latter are logged, too."""

_TOLD = (
    "succeeded",
    "count",
    "problems",
    "ended_at",
    "runs",
    "upgrades",
    "upgrading",
    "upgrade_problem",
    "digest",
    "changed",
)


class Progress(Service):
    """What operators are told of reloads and upgrades. The service does nothing where another process makes them."""

    succeeded: bool | None = None
    """Whether the last reload succeeded; None before the first one."""
    count: int = 0
    """Number of reloads that have ended."""
    problems: tuple[str, ...] = ()
    """Why the last reload failed."""
    ended_at: float = 0.0
    """When the last reload ended, in seconds of the reactor, which are the same in all processes of a machine."""
    runs: bool = False
    """Whether a reload is in progress."""
    upgrades: int = 0
    """Number of upgrades that have ended."""
    upgrading: bool = False
    """Whether an upgrade is in progress."""
    upgrade_problem: str = ""
    """Why the last upgrade failed."""
    digest: str = ""
    """That of the configuration in use; empty if it has no outline."""
    changed: Sequence[str] = ()
    """What the last reload has changed, if it succeeded."""

    def told(self) -> dict[str, Any]:
        """All of it, for ``follow`` in another process."""
        return {name: getattr(self, name) for name in _TOLD}

    def follow(self, told: dict[str, Any]) -> None:
        for name, value in told.items():
            setattr(self, name, value)


class Reload(Progress):
    """Reads a configuration, has it prepared, and then used. On failure nothing changes."""

    def __init__(
        self,
        reactor: Any,
        reading: Reads,
        takes: Takes,
        ended: Callable[[bool], object],
        began: Callable[[], object] = lambda: None,
        outline: Outline | None = None,
    ) -> None:
        """``ended`` is told of each reload whether it has succeeded. ``outline``: of the configuration in use."""
        self._outline = outline
        self.digest = "" if outline is None else outline.digest
        self._began = began
        self._reactor = reactor
        self._reading = reading
        self._takes = takes
        self._ended = ended
        self._running: Deferred[bool] | None = None
        self._held = False
        self.again = False
        """Whether another was asked for since the one that runs has begun, or while they are held."""

    def startService(self) -> None:
        super().startService()
        notify("READY=1")

    def stopService(self) -> None:
        """Give up a reload that runs."""
        super().stopService()
        self.again = False
        if self._running is not None:
            self._running.cancel()

    def reload(self) -> Deferred[bool]:
        """Fires with whether the new configuration is in use. Calls during a reload cause one more reload.

        So do calls while they are held, and fire with False.
        """
        if not self.running:
            return succeed(False)
        if self._running is not None or self._held:
            self.again = True
            return self._running or succeed(False)
        reloading()
        self.runs = True
        self._began()
        running = self._running = self._reload().addErrback(self._failed)
        return running.addCallback(self._done)

    @inlineCallbacks
    def _reload(self) -> Generator[Any, Any, bool]:
        handed = yield self._reading.read()
        try:
            yield self._takes.prepare(handed.data)
        except BaseException:
            self._takes.abandon()
            raise
        yield self._takes.commit()
        self.problems = ()
        self._outlined(handed.outline)
        log.info("configuration reloaded: {routes} routes", routes=handed.routes)
        for change in self.changed[:MOST_LOGGED]:
            log.info("reload: {change}", change=change.replace(": ", " ", 1))
        if len(self.changed) > MOST_LOGGED:
            log.info("reload: more has changed than these {number}", number=MOST_LOGGED)
        return True

    def _outlined(self, new: Outline | None) -> None:
        if self._outline is not None and new is not None:
            self.changed, self.digest, self._outline = self._outline.changed_to(new)[:MOST_TOLD], new.digest, new

    def _failed(self, failure: Failure) -> bool:
        error = failure.value
        self.changed = ()
        if isinstance(error, ConfigError):
            self.problems = _told(error.problems)
            for problem in self.problems:
                log.error("not reloaded: {problem}", problem=problem)
        elif isinstance(error, CancelledError):
            self.problems = ("the gateway stops",)
        else:
            self.problems = ("an error in the gateway; its log has the details",)
            log.failure("not reloaded", failure=failure)
        return False

    def _done(self, succeeded: bool) -> bool:
        self.runs = False
        self.count += 1
        self.succeeded, self.ended_at = succeeded, self._reactor.seconds()
        self._ended(succeeded)
        notify("READY=1")
        self._running = None
        self._next()
        return succeeded

    def hold(self) -> None:
        """Until ``release`` none begins: something else has its turn."""
        self._held = True

    def release(self) -> None:
        self._held = False
        self._next()

    def _next(self) -> None:
        if self.again and not self._held and self._running is None:
            self.again = False
            self.reload()


def _told(problems: Sequence[Problem]) -> tuple[str, ...]:
    """One mistake may be in each of thousands of routes. To log a line takes long enough to be noticed so often."""
    more = len(problems) - MOST_TOLD
    told = tuple(map(str, problems[:MOST_TOLD]))
    return told if more <= 0 else (*told, f"{more} more, which `apigw check` names")
