"""Readiness: runs checks in parallel, at most once a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

FRESH_FOR = 1.0

Check = Callable[[], Deferred[object]]
"""Fires if the check passes. Fails, within a timeout of its own, with an exception that says why."""


@frozen
class Report:
    """Results of the checks by name. ``failed`` has one sentence for each, why it failed."""

    passed: tuple[str, ...]
    failed: Mapping[str, str]

    @property
    def ready(self) -> bool:
        return not self.failed


class Readiness:
    """Runs the checks. Results are cached for a second; concurrent requests share one run."""

    def __init__(self, clock: IReactorTime, timeout: float = 10.0) -> None:
        """``timeout``: seconds after which a check without a timeout of its own fails."""
        self.checks: Mapping[str, Check] = {}
        self.draining = False
        self._clock = clock
        self._timeout = timeout
        self._report: Report | None = None
        self._until = 0.0
        self._asking: list[Deferred[Report]] | None = None
        self._outdated = False

    def report(self) -> Deferred[Report]:
        if self.draining:
            return succeed(Report((), {"drain": "the gateway is shutting down"}))
        if self._report is not None and self._clock.seconds() < self._until:
            return succeed(self._report)
        answer: Deferred[Report] = Deferred()
        if self._asking is not None:
            self._asking.append(answer)
            return answer
        self._asking = [answer]
        names = list(self.checks)
        results = [self._run(self.checks[name]) for name in names]
        DeferredList(results, consumeErrors=True).addCallback(self._done, names)
        return answer

    def forget(self) -> None:
        """Drop the cached results, because the checks have changed."""
        self._report = None
        self._outdated = self._asking is not None

    def _run(self, check: Check) -> Deferred[object]:
        try:
            running = check()
        except Exception:
            running = Deferred()
            running.errback(Failure())
        return running.addTimeout(self._timeout, self._clock, onTimeoutCancel=_late)

    def _done(self, results: list[tuple[bool, object]], names: list[str]) -> None:
        failed = {}
        for name, (passed, result) in zip(names, results, strict=True):
            if not passed:
                assert isinstance(result, Failure)
                failed[name] = result.getErrorMessage() or type(result.value).__name__
        report = Report(tuple(name for name in names if name not in failed), failed)
        if not self._outdated:
            self._report = report
            self._until = self._clock.seconds() + FRESH_FOR
        self._outdated = False
        asking, self._asking = self._asking or [], None
        for answer in asking:
            answer.callback(report)


def _late(result: object, timeout: float) -> object:
    if isinstance(result, Failure):
        raise TimeoutError(f"no answer in {timeout:g} s")
    return result
