"""Health checks of targets: periodic ones, which remove targets from the rotation, and those of ``/ready``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from apigw.config.model import HealthCheck
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.agent import endpoint_to

DIAL_TIMEOUT = 2.0
"""Seconds within which a target without a health check must accept a connection."""
MAX_ANSWER = 64 * 1024


class Unhealthy(Exception):
    """A target failed its check; the text says why."""


def any_answers(upstream: Upstream, reactor: Any) -> Deferred[object]:
    """Fires when one target passes its health check, or without one accepts a TCP connection; else fails."""
    check = upstream.service.health_check
    if check is None:
        return first_success(dial(target, reactor) for target in upstream.targets)
    return first_success(ask(upstream, target, check, reactor) for target in upstream.targets)


def ask(upstream: Upstream, target: Target, check: HealthCheck, clock: Any) -> Deferred[None]:
    """Fires if the target answers its health check completely, in time and with a status below 400; else fails."""
    # A client of its own for each call: treq's keeps cookies.
    asking: Deferred[Any] = maybeDeferred(
        HTTPClient(upstream.agent).get,
        f"{target.name}{check.path}",
        headers=Headers({"user-agent": ["apigw-health"]}),
        allow_redirects=False,
        unbuffered=True,
    )

    def answered(response: Any) -> Deferred[None]:
        body = _Ignored()
        response.deliverBody(body)
        return body.ended.addCallback(judge, response.code)

    def judge(_: None, status: int) -> None:
        if status >= 400:
            raise Unhealthy(f"answered its health check with {status}")

    def late(result: Any, timeout: float) -> Any:
        if isinstance(result, Failure):
            raise Unhealthy(f"did not answer its health check in {timeout:g} s")
        return result

    return asking.addCallback(answered).addTimeout(check.timeout, clock, onTimeoutCancel=late)


class _Ignored(Protocol):
    """Reads a body to its end, so that the service need not be cut short, and keeps nothing of it."""

    transport: Any

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred(lambda _: self.transport.loseConnection())
        self._length = 0

    def dataReceived(self, data: bytes) -> None:
        self._length += len(data)
        if self._length > MAX_ANSWER and not self.ended.called:
            self.ended.errback(Unhealthy(f"answered its health check with more than {MAX_ANSWER} bytes"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            if reason.check(ResponseDone):
                self.ended.callback(None)
            else:
                self.ended.errback(Unhealthy("broke off in its answer to its health check"))


def dial(target: Target, reactor: Any) -> Deferred[object]:
    """Fires when a TCP connection to the target can be made. It is closed at once, and not one of the pool."""
    endpoint = endpoint_to(reactor, target.config.host, target.config.port, DIAL_TIMEOUT, None)
    connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(Protocol))
    return connecting.addCallback(lambda connected: connected.transport.abortConnection())


def first_success(attempts: Iterable[Deferred[Any]]) -> Deferred[object]:
    """Fires with the first success, and cancels the others; fails with the last failure if there is none."""
    attempts = list(attempts)
    left = len(attempts)

    def cancel(_: object = None) -> None:
        for attempt in attempts:
            attempt.cancel()

    result: Deferred[object] = Deferred(cancel)

    def succeeded(value: object) -> None:
        if not result.called:
            result.callback(value)
            cancel()

    def failed(failure: Failure) -> None:
        nonlocal left
        left -= 1
        if not left and not result.called:
            result.errback(failure)

    for attempt in attempts:
        attempt.addCallbacks(succeeded, failed)
    return result


class HealthChecks:
    """The periodic checks of one upstream's targets. Several equal results in a row change a target's health."""

    def __init__(self, upstream: Upstream, check: HealthCheck, clock: Any) -> None:
        self._upstream = upstream
        self._check = check
        self._clock = clock
        self._streaks: dict[Target, int] = {}
        self._loops: dict[Target, LoopingCall] = {}
        self._probes: set[Deferred[Any]] = set()

    def start(self) -> None:
        self._follow()
        self._upstream.targets_changed = self._follow
        if self._upstream.circuit is not None:
            self._upstream.circuit.probe = self.any_passes

    def _follow(self) -> None:
        """Check the targets that there are now, and no others."""
        for target in [target for target in self._loops if target not in self._upstream.targets]:
            self._loops.pop(target).stop()
            self._streaks.pop(target, None)
        for target in self._upstream.targets:
            if target not in self._loops:
                loop = self._loops[target] = LoopingCall(self.probe, target)
                loop.clock = self._clock
                loop.start(self._check.interval)

    def stop(self) -> None:
        """Stop. Running checks are cancelled and do not count."""
        self._upstream.targets_changed = None
        for loop in self._loops.values():
            loop.stop()
        self._loops.clear()
        for asking in list(self._probes):
            asking.cancel()

    def probe(self, target: Target) -> Deferred[bool]:
        """Check one target now. Fires with whether it passed."""
        asking: Deferred[Any] = ask(self._upstream, target, self._check, self._clock)
        # The circuit may ask while the periodic check is under way.
        self._probes.add(asking)
        return asking.addCallbacks(lambda _: True, lambda _: False).addCallback(partial(self._count, target, asking))

    def any_passes(self) -> Deferred[bool]:
        """Check every target now. Fires with True as soon as one passes, else with False when all have failed."""
        ended: Deferred[bool] = Deferred()
        left = len(self._upstream.targets)

        def probed(passed: bool) -> None:
            nonlocal left
            left -= 1
            if not ended.called and (passed or not left):
                ended.callback(passed)

        for target in self._upstream.targets:
            self.probe(target).addCallback(probed)
        return ended

    def _count(self, target: Target, asking: Deferred[Any], passed: bool) -> bool:
        self._probes.discard(asking)
        if target not in self._loops:
            return passed
        streak = self._streaks.get(target, 0)
        streak = max(streak, 0) + 1 if passed else min(streak, 0) - 1
        self._streaks[target] = streak
        if streak >= self._check.healthy_after:
            self._upstream.health_changed(target, True)
        elif -streak >= self._check.unhealthy_after:
            self._upstream.health_changed(target, False)
        return passed
