# Compiled: see docs/decisions/compiled.md
"""A service's circuit: the breaker with its timer, health checks, log and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from apigw.config.model import CircuitBreaker
from apigw.upstream.breaker import Breaker, State, Status, Transition

log = Logger(namespace=__name__)

Probe = Callable[[], Deferred[bool]]
"""Runs the health check of every target at once; fires with whether one passed, as soon as that is known."""


class Circuit:
    """``admit``, ``check``, ``success``, ``failure`` and ``cancel`` are the breaker's; times are the clock's."""

    def __init__(
        self, service: str, config: CircuitBreaker, clock: Any, on_transition: Callable[[str], None], probed: bool
    ) -> None:
        self._service = service
        self._clock = clock
        self._on_transition = on_transition
        self._breaker = Breaker(config, probed, self._changed)
        self._timer: IDelayedCall | None = None
        self._stopped = False
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
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def status(self) -> Status:
        return self._breaker.status(self._clock.seconds())

    def open(self) -> None:
        """By hand: refuse every request until ``free``."""
        self._breaker.open(self._clock.seconds())

    def close(self) -> None:
        """By hand: let every request pass until ``free``."""
        self._breaker.close(self._clock.seconds())

    def free(self) -> None:
        """Let the circuit decide by itself again."""
        self._breaker.free(self._clock.seconds())

    def _changed(self, transition: Transition) -> None:
        if self._stopped:
            return
        log.warn("circuit of {service} {what}", service=self._service, what=str(transition))
        self._on_transition(str(transition.to))
        self._cancel_timer()
        if transition.to is State.OPEN:
            at = self._breaker.probe_at
            if at is not None:
                self._timer = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._advance)
        elif transition.to is State.HALF_OPEN and self.probe is not None:
            self.probe().addCallback(self._probed)

    def _advance(self) -> None:
        self._timer = None
        self._breaker.advance(self._clock.seconds())

    def _probed(self, passed: bool) -> None:
        now = self._clock.seconds()
        if passed:
            self._breaker.health_passed(now)
        else:
            self._breaker.health_failed(now)
