"""Health checks of targets: periodic ones, which remove targets from the rotation, and those of ``/ready``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredSemaphore, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from apigw.config.model import HealthCheck
from apigw.upstream import grpc_health
from apigw.upstream.target import Target
from apigw.upstream.upstream import Upstream
from apigw.wire.agent import endpoint_to
from apigw.wire.fetch import Uncompressed

AT_ONCE = 20
"""Maximum number of concurrent checks, of all services together: many at once would delay requests."""
FIRST_WITHIN = 10.0
"""Seconds over which first checks are spread, or their interval if that is shorter."""
DIAL_TIMEOUT = 2.0
"""Seconds in which a target without a health check must accept a connection."""
DIALLED_FOR = (2.5, 5.0)
"""Seconds for which a successful connection attempt is cached: at random between these, so that the attempts for many
services do not coincide."""
MAX_ANSWER = 64 * 1024


NO_ADDRESSES = "has no targets: none of its names has addresses"


class Unhealthy(Exception):
    """A target failed its check; the text says why."""


class Turns(DeferredSemaphore):
    """Limits concurrent checks. A cancelled check leaves the queue."""

    def __init__(self) -> None:
        super().__init__(AT_ONCE)


def ask(upstream: Upstream, target: Target, check: HealthCheck, clock: Any) -> Deferred[None]:
    """Fires when the target gives a complete answer to its health check, in time and with a good status; else fails."""
    headers = Headers({"user-agent": ["apigw-health"]})
    if check.host is not None:
        headers.setRawHeaders("host", [f"[{check.host}]" if ":" in check.host else check.host])
    elif target.config.called:
        headers.setRawHeaders("host", [target.authority.decode("ascii")])
    method, path, data = "GET", check.path, None
    grpc = upstream.service.protocol == "grpc" if check.grpc is None else check.grpc
    if grpc:
        method, path, data = "POST", grpc_health.PATH, grpc_health.question(check.grpc_service or "")
        headers.setRawHeaders("content-type", ["application/grpc"])
        headers.setRawHeaders("te", ["trailers"])
    # A client of its own for each call: treq's keeps cookies.
    asking: Deferred[Any] = maybeDeferred(
        HTTPClient(Uncompressed(target.agent or upstream.agent)).request,
        method,
        f"{target.name}{path}",
        headers=headers,
        data=data,
        allow_redirects=False,
        unbuffered=True,
    )

    def answered(response: Any) -> Deferred[None]:
        body = _Body()
        response.deliverBody(body)
        return body.ended.addCallback(judge_grpc if grpc else judge, response)

    def judge(_: bytes, response: Any) -> None:
        status = response.code
        if not (status < 400 if check.expected_status is None else status in check.expected_status):
            raise Unhealthy(f"answered its health check with {status}")

    def judge_grpc(body: bytes, response: Any) -> None:
        if response.code != 200:
            raise Unhealthy(f"answered its health check with {response.code}")
        status = dict(response.original.trailers).get(b"grpc-status")
        if status is None:
            status = response.headers.getRawHeaders(b"grpc-status", [b"none"])[0]
        if status != b"0":
            raise Unhealthy(f"answered its health check with grpc-status {status[:10].decode('latin-1')}")
        try:
            serving = grpc_health.status_in(body)
        except ValueError as error:
            raise Unhealthy(f"answered its health check with what is no answer: {error}") from None
        if serving != grpc_health.SERVING:
            raise Unhealthy("says that it is not serving")

    def late(result: Any, timeout: float) -> Any:
        if isinstance(result, Failure):
            raise Unhealthy(f"did not answer its health check in {timeout:g} s")
        return result

    return asking.addCallback(answered).addTimeout(check.timeout, clock, onTimeoutCancel=late)


class _Body(Protocol):
    """Reads a body to its end, so that the connection is not aborted."""

    transport: Any

    def __init__(self) -> None:
        self.ended: Deferred[bytes] = Deferred(lambda _: self.transport.loseConnection())
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_ANSWER and not self.ended.called:
            self.ended.errback(Unhealthy(f"answered its health check with more than {MAX_ANSWER} bytes"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            if reason.check(ResponseDone):
                self.ended.callback(bytes(self._body))
            else:
                self.ended.errback(Unhealthy("broke off in its answer to its health check"))


def dial(target: Target, reactor: Any) -> Deferred[object]:
    """Fires when a TCP connection to the target is made. It is closed at once, and is not taken from the pool."""
    endpoint = endpoint_to(reactor, target.config.host, target.config.port, DIAL_TIMEOUT, None)
    connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(Protocol))

    def late(result: Any, timeout: float) -> Any:
        if isinstance(result, Failure):
            raise Unhealthy(f"accepted no connection in {timeout:g} s")
        return result

    connecting.addTimeout(DIAL_TIMEOUT, reactor, onTimeoutCancel=late)
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


class Dialled:
    """Readiness of an upstream without health checks: whether a connection can be made, tried on demand."""

    def __init__(self, upstream: Upstream, reactor: Any, turns: Turns, random: Callable[[], float]) -> None:
        self._upstream = upstream
        self._reactor = reactor
        self._turns = turns
        self._random = random
        self._until = float("-inf")

    def any_answers(self) -> Deferred[object]:
        """Fires when a target accepts a connection, or if one has lately. Fails when none does."""
        if self._reactor.seconds() < self._until:
            return succeed(None)
        if not self._upstream.targets:
            return fail(Unhealthy(NO_ADDRESSES))
        dialling = first_success(self._turns.run(dial, target, self._reactor) for target in self._upstream.targets)
        return dialling.addCallback(self._answered)

    def _answered(self, result: object) -> object:
        least, most = DIALLED_FOR
        self._until = self._reactor.seconds() + least + self._random() * (most - least)
        return result


class HealthChecks:
    """The periodic checks of one upstream's targets. Some equal results in a row change a target's health.

    Of several workers one checks, from ``begin`` to ``end``; the others know its results. ``random`` gives numbers from
    0 to 1, for the moment of each first check.
    """

    def __init__(
        self, upstream: Upstream, check: HealthCheck, clock: Any, turns: Turns, random: Callable[[], float]
    ) -> None:
        self._upstream = upstream
        self._check = check
        self._clock = clock
        self._turns = turns
        self._random = random
        self._streaks: dict[Target, int] = {}
        self._last: dict[Target, Failure | None] = {}
        self._next: dict[Target, IDelayedCall | None] = {}
        self._probes: set[Deferred[Any]] = set()
        self._checking = False

    def start(self, checking: bool = True) -> None:
        """``checking``: whether this worker is the one that does."""
        self._checking = checking
        self._follow()
        self._upstream.targets_changed = self._follow
        if self._upstream.circuit is not None:
            self._upstream.circuit.probe = self.any_passes

    def _follow(self) -> None:
        """Start checks of new targets, and end those of removed ones."""
        for target in [target for target in self._next if target not in self._upstream.targets]:
            self._leave(target)
        for target in self._upstream.targets:
            if target not in self._next:
                self._next[target] = None
                if self._checking:
                    self._later(target, min(self._check.interval, FIRST_WITHIN) * self._random())

    def begin(self) -> None:
        """This worker checks from now on, and goes on from what the one before has found out last."""
        self._upstream.look()
        self._checking = True
        self._again()

    def end(self) -> None:
        """Another worker checks from now on. Running checks do not count."""
        self._checking = False
        self._again()

    def _again(self) -> None:
        for target in list(self._next):
            self._leave(target)
        self._follow()

    def _later(self, target: Target, delay: float) -> None:
        self._next[target] = self._clock.callLater(delay, self._run, target)

    def _run(self, target: Target) -> None:
        self._next[target] = None
        due = self._clock.seconds() + self._check.interval
        self.probe(target).addCallback(self._ran, target, due)

    def _ran(self, _: bool, target: Target, due: float) -> None:
        if self._checking and target in self._next and self._next[target] is None:
            self._later(target, max(0.0, due - self._clock.seconds()))

    def _leave(self, target: Target) -> None:
        call = self._next.pop(target)
        self._streaks.pop(target, None)
        self._last.pop(target, None)
        if call is not None:
            call.cancel()

    def stop(self) -> None:
        """Stop. Running checks are cancelled and do not count."""
        self._upstream.targets_changed = None
        for target in list(self._next):
            self._leave(target)
        for asking in list(self._probes):
            asking.cancel()

    def any_answers(self) -> Deferred[object]:
        """Fires when a target passed its last check; fails when none did. Targets without a check are checked now."""
        for target in self._upstream.targets:
            shared = target.shared
            if shared is not None and shared.is_known:
                self._last[target] = None if shared.passed else Failure(Unhealthy(shared.why))
        if not self._upstream.targets:
            return fail(Unhealthy(NO_ADDRESSES))
        known = [self._last[target] for target in self._upstream.targets if target in self._last]
        if None in known:
            return succeed(None)
        unknown = [target for target in self._upstream.targets if target not in self._last]
        if not unknown:
            return fail(known[-1])
        ended: Deferred[object] = Deferred(lambda _: None)  # the checks go on: their results count
        left = len(unknown)

        def probed(passed: bool, target: Target) -> None:
            nonlocal left
            left -= 1
            if ended.called:
                return
            if passed:
                ended.callback(None)
            elif not left:
                ended.errback(self._last.get(target) or Failure(Unhealthy("is no longer checked")))

        for target in unknown:
            self.probe(target).addCallback(probed, target)
        return ended

    def probe(self, target: Target) -> Deferred[bool]:
        """Check one target, after its turn in the queue. Fires with whether it passed."""
        return self._count(target, self._turns.run(ask, self._upstream, target, self._check, self._clock))

    def any_passes(self) -> Deferred[bool]:
        """Check every target now. Fires with True as soon as one passes, or with False when all have failed.

        It is for a half-open circuit, which refuses requests until then, so it does not queue for a turn.
        """
        ended: Deferred[bool] = Deferred()
        left = len(self._upstream.targets)
        if not left:
            return succeed(False)

        def probed(passed: bool) -> None:
            nonlocal left
            left -= 1
            if not ended.called and (passed or not left):
                ended.callback(passed)

        for target in self._upstream.targets:
            asking = ask(self._upstream, target, self._check, self._clock)
            self._count(target, asking).addCallback(probed)
        return ended

    def _count(self, target: Target, asking: Deferred[Any]) -> Deferred[bool]:
        # The circuit's check may coincide with the periodic one.
        self._probes.add(asking)
        return asking.addCallback(lambda _: None).addBoth(self._counted, target, asking)

    def _counted(self, result: Failure | None, target: Target, asking: Deferred[Any]) -> bool:
        self._probes.discard(asking)
        passed = result is None
        if target not in self._next:
            return passed
        self._last[target] = result
        if not self._checking:
            return passed
        streak = self._streaks.get(target, 0)
        streak = max(streak, 0) + 1 if passed else min(streak, 0) - 1
        self._streaks[target] = streak
        why = "" if result is None else result.getErrorMessage()
        if streak >= self._check.healthy_after:
            self._upstream.health_changed(target, True)
        elif -streak >= self._check.unhealthy_after:
            self._upstream.health_changed(target, False, why)
        if target.shared is not None:
            target.shared.checked(passed, target.healthy, why)
        return passed
