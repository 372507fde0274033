# Compiled: see docs/decisions/compiled.md
"""A service's circuit: the breaker with its timer, health checks, log and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from apigw.config.model import CircuitBreaker
from apigw.errors import Overloaded
from apigw.ops.series import ServiceSeries
from apigw.upstream.breaker import LEASE, Breaker, Status, Transition
from apigw.upstream.record import Permit, Record, State

log = Logger(namespace=__name__)

Probe = Callable[[], Deferred[bool]]
"""Runs the health check of every target at once; fires with whether one passed, as soon as that is known."""

TRIES: Final = 10
"""How often an operator's change is tried, if a worker that shares the circuit hangs with its lock."""


class Circuit:
    """``admit``, ``check``, ``success``, ``failure`` and ``cancel`` are the breaker's; times are the clock's.

    Several workers may share a circuit, by its ``record``. Who makes a transition logs it and counts it; the others
    notice when they ``look``.
    """

    def __init__(
        self,
        service: str,
        config: CircuitBreaker,
        clock: Any,
        series: ServiceSeries,
        check_timeout: float | None,
        record: Record | None = None,
    ) -> None:
        """``check_timeout``: that of the service's health check, in seconds; None if it has none."""
        self._service = service
        self._clock = clock
        self._series = series
        lease = LEASE if check_timeout is None else check_timeout + LEASE
        self._breaker = Breaker(config, check_timeout is not None, self._changed, record, lease)
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._seen: Permit = 0
        """The last transition that this worker knows of."""
        self.probe: Probe | None = None
        """Set by the health checks, if the service has them."""
        self.admit = self._breaker.admit
        self.check = self._breaker.check
        self.success = self._breaker.success
        self.failure = self._breaker.failure
        self.cancel = self._breaker.cancel

    @property
    def probing(self) -> bool:
        """Whether what goes through is to show how the service is."""
        return self._breaker.state is State.HALF_OPEN

    def stop(self) -> None:
        """The service was removed or replaced: no more log lines and metrics for its last exchanges."""
        self._stopped = True
        self._breaker.leave()
        self._cancel_timer()

    def look(self) -> None:
        """Notice what other workers have made of it. Called twice a second if there are others."""
        breaker, now = self._breaker, self._clock.seconds()
        breaker.look(now)
        number = breaker.generation
        if number != self._seen:
            self._seen = number
            self._series.circuit_is(str(breaker.state))
            self._wait()
        elif self.probe is not None and breaker.takes_over_check(now):
            self.probe().addCallback(self._probed)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def status(self) -> Status:
        return self._breaker.status(self._clock.seconds())

    def open(self) -> None:
        """By hand: refuse every request until ``free``. Raises ``Overloaded``, as the next two, if a worker hangs."""
        self._by_hand(self._breaker.open)

    def close(self) -> None:
        """By hand: let every request pass until ``free``."""
        self._by_hand(self._breaker.close)

    def free(self) -> None:
        """Let the circuit decide by itself again."""
        self._by_hand(self._breaker.free)

    def _by_hand(self, act: Callable[[float], bool]) -> None:
        for _ in range(TRIES):
            if act(self._clock.seconds()):
                return
        raise Overloaded("A worker that hangs has this circuit. It will be replaced; try again in some seconds.")

    def _changed(self, transition: Transition) -> None:
        if self._stopped:
            return
        self._seen = transition.number
        log.warn("circuit of {service} {what}", service=self._service, what=str(transition))
        self._series.circuit(str(transition.to))
        self._wait()
        if transition.to is State.HALF_OPEN and self.probe is not None:
            self.probe().addCallback(self._probed)

    def _wait(self) -> None:
        """For the end of the time that it is open. Every worker does: the first to notice makes it half-open."""
        self._cancel_timer()
        at = self._breaker.probe_at
        if at is not None:
            self._timer = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._advance)

    def _advance(self) -> None:
        self._timer = None
        self._breaker.advance(self._clock.seconds())

    def _probed(self, passed: bool) -> None:
        now = self._clock.seconds()
        if passed:
            self._breaker.health_passed(now)
        else:
            self._breaker.health_failed(now)
