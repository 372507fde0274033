# Compiled: see docs/decisions/compiled.md
"""The circuit breaker of a service, as in Nygard's *Release It!*: decisions only.

``now`` is in seconds of any monotonic clock, the same one in all calls. Nothing is scheduled here: the owner reads
``probe_at`` and calls ``advance``. Three states: closed, where outcomes are counted; open, where every
request is refused; half-open, where the service is tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from math import ceil, inf

from attrs import frozen

from apigw.config.model import CircuitBreaker
from apigw.errors import CircuitOpen

LONGEST_OPEN = 300.0
"""Seconds: the maximum of the doubled ``open_for``, unless it is configured longer."""

LEASE = 5.0
"""Seconds for which a probe has a place in a half-open circuit. One that takes longer, because its client does, leaves
the place to another; its outcome still counts."""

Permit = int
"""Permission to send one request, returned with its outcome. Permits since the last transition are not below the number
of that transition."""


class State(IntEnum):
    """The state. Its value is that of the metric; ``str`` is the metric's label."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2

    def __str__(self) -> str:
        return ("closed", "open", "half-open")[self]


# Looking up the members on the class takes as long as the rest of ``admit``.
CLOSED, OPEN, HALF_OPEN = State


@frozen
class Transition:
    """A change of state. ``str`` is for the log: ``opened: 31 of 52 failed in 60 s``.

    ``open_for``: seconds that the circuit stays open. ``None`` if an operator opened it, and for other transitions.
    """

    was: State
    to: State
    why: str
    at: float
    open_for: float | None = None

    def __str__(self) -> str:
        return f"{('closed', 'opened', 'half-open')[self.to]}: {self.why}"


@frozen
class Status:
    """The state of a circuit for operators. Times are seconds relative to now.

    ``since`` is ``None`` before the first transition, ``retry_in`` unless the circuit will become half-open by itself;
    ``failures`` of ``total`` outcomes are in the window, all since the last transition; ``forced`` says whether an
    operator opened or closed it; ``opened`` counts how often it opened.
    """

    state: State
    why: str
    since: float | None
    retry_in: float | None
    failures: int
    total: int
    forced: bool
    opened: int


class Outcomes:
    """Successes and failures of the last ``window`` seconds in one-second buckets, for seconds with outcomes."""

    def __init__(self, window: float) -> None:
        self._seconds = max(1, ceil(window))
        self._buckets: deque[list[int]] = deque()
        self.clear()

    def clear(self) -> None:
        self._buckets.clear()
        self._latest = [0, 0, 0]
        self._second = -inf
        self.total = self.failures = 0

    def add(self, failed: bool, now: float) -> None:
        if now >= self._second + 1:
            self.expire(now)
            second = int(now)
            self._second = float(second)
            self._latest = [second, 0, 0]
            self._buckets.append(self._latest)
        self._latest[1] += 1
        self.total += 1
        if failed:
            self._latest[2] += 1
            self.failures += 1

    def expire(self, now: float) -> None:
        buckets = self._buckets
        oldest = int(now) - self._seconds
        if self._second <= oldest:
            self.clear()
        while buckets and buckets[0][0] <= oldest:
            _, total, failures = buckets.popleft()
            self.total -= total
            self.failures -= failures


class Breaker:
    """The circuit of one service.

    A closed circuit opens with at least ``min_requests`` outcomes, of which ``error_rate`` are failures. After
    ``open_for`` it is half-open. With a health check no request goes through then, until ``health_passed`` or
    ``health_failed`` is called. Without one, ``half_open_requests`` at a time go through, each holding its place for up
    to ``LEASE``; as many successes close it, and one failure opens it for as long again. Opening within ``window`` of
    closing doubles the time that it stays open, up to ``LONGEST_OPEN``; opening later, or after an operator's ``open``
    or ``close``, starts from ``open_for`` anew.

    Each permit must be returned exactly once, by ``success``, ``failure`` or ``cancel``. One from before the last
    transition is ignored, because its outcome is out of date. ``on_transition`` is called after each transition, and
    may call this circuit: on ``HALF_OPEN`` the owner runs its health check, on ``OPEN`` it sets its timer.
    """

    def __init__(
        self, config: CircuitBreaker, has_health_check: bool, on_transition: Callable[[Transition], None]
    ) -> None:
        self._config = config
        self._has_health_check = has_health_check
        self._on_transition = on_transition
        self._state = CLOSED
        self._generation: Permit = 0
        self._last: Permit = 0
        self._why = "new"
        self._since: float | None = None
        self._forced = False
        self._opened = 0
        self._open_for = config.open_for
        self._closed_at: float | None = None
        self._outcomes = Outcomes(config.window)
        self._out: dict[Permit, float] = {}
        """Probes that have a place, and until when; in the order in which they end."""
        self._passed = 0

    @property
    def state(self) -> State:
        return self._state

    @property
    def forced(self) -> bool:
        """Whether an operator opened or closed the circuit, and did not free it."""
        return self._forced

    @property
    def probe_at(self) -> float | None:
        """When ``advance`` will make an open circuit half-open; ``None`` if it will not by itself."""
        if self._state is not OPEN or self._forced or self._since is None:
            return None
        return self._since + self._open_for

    def admit(self, now: float) -> Permit:
        """A permit to send a request. Raises ``CircuitOpen``, with ``Retry-After`` in whole seconds, at least 1."""
        if self._state is not CLOSED:
            self.check(now)
            if self._state is HALF_OPEN:
                self._last += 1
                self._out[self._last] = now + LEASE
                return self._last
        return self._generation

    def check(self, now: float) -> None:
        """Raises ``CircuitOpen`` if ``admit`` would, without taking a permit."""
        if self._state is CLOSED:
            return
        self.advance(now)
        if self._state is CLOSED:
            return
        if self._state is HALF_OPEN and not self._has_health_check:
            for permit in [permit for permit, until in self._out.items() if until <= now]:
                del self._out[permit]
            if len(self._out) < self._config.half_open_requests:
                return
        retry_after = max(1, ceil(self._retry_in(now)))
        raise CircuitOpen(
            f"The service is failing, so its circuit is open; try again in {retry_after} s.",
            [(b"retry-after", b"%d" % retry_after)],
        )

    def success(self, permit: Permit, now: float) -> None:
        """The service answered, and not with a failure of its own."""
        if permit < self._generation:
            return
        if self._state is CLOSED:
            self._outcomes.add(False, now)
            if self._outcomes.failures:
                self._judge(now)
            return
        self._out.pop(permit, None)
        self._passed += 1
        if self._passed >= self._config.half_open_requests:
            self._close(f"{self._passed} of {self._passed} probes succeeded", now)

    def failure(self, permit: Permit, now: float) -> None:
        """The service failed, after every retry."""
        if permit < self._generation:
            return
        if self._state is CLOSED:
            self._outcomes.add(True, now)
            self._judge(now)
            return
        self._become(OPEN, "a probe failed", now)

    def cancel(self, permit: Permit, now: float) -> None:
        """The exchange ended without saying anything about the service."""
        self._out.pop(permit, None)

    def health_passed(self, now: float) -> None:
        """A target passed its health check: closes a half-open circuit; no effect otherwise."""
        if self._state is HALF_OPEN:
            self._close("a health check passed", now)

    def health_failed(self, now: float) -> None:
        """No target passed its health check: opens a half-open circuit; no effect otherwise."""
        if self._state is HALF_OPEN:
            self._become(OPEN, "no health check passed", now)

    def advance(self, now: float) -> None:
        """Make an open circuit half-open, if its time has passed."""
        # A timer set for ``probe_at`` may fire a rounding error before it.
        if self._state is OPEN and not self._forced and self._retry_in(now) < 0.001:
            self._become(HALF_OPEN, f"{self._open_for:g} s have passed", now)

    def open(self, now: float) -> None:
        """By an operator: refuse every request until ``close`` or ``free``."""
        self._forced = True
        self._open_for = self._config.open_for
        if self._state is not OPEN:
            self._become(OPEN, "by an operator", now)

    def close(self, now: float) -> None:
        """By an operator: admit every request, whatever the outcome, until ``open`` or ``free``."""
        self._forced = True
        if self._state is not CLOSED:
            self._become(CLOSED, "by an operator", now)
        self._closed_at = None

    def free(self, now: float) -> None:
        """By an operator: end ``open``, which makes it half-open, or ``close``; no effect otherwise."""
        if not self._forced:
            return
        self._forced = False
        if self._state is OPEN:
            self._become(HALF_OPEN, "freed by an operator", now)

    def status(self, now: float) -> Status:
        """The state at ``now``."""
        self._outcomes.expire(now)
        return Status(
            state=self._state,
            why=self._why,
            since=None if self._since is None else max(0.0, now - self._since),
            retry_in=None if self.probe_at is None else max(0.0, self._retry_in(now)),
            failures=self._outcomes.failures,
            total=self._outcomes.total,
            forced=self._forced,
            opened=self._opened,
        )

    def _judge(self, now: float) -> None:
        failures, total = self._outcomes.failures, self._outcomes.total
        if total < self._config.min_requests or failures / total < self._config.error_rate or self._forced:
            return
        again = self._closed_at is not None and now - self._closed_at <= self._config.window
        longest = max(LONGEST_OPEN, self._config.open_for)
        self._open_for = min(2 * self._open_for, longest) if again else self._config.open_for
        self._become(OPEN, f"{failures} of {total} failed in {self._config.window:g} s", now)

    def _close(self, why: str, now: float) -> None:
        self._closed_at = now
        self._become(CLOSED, why, now)

    def _retry_in(self, now: float) -> float:
        """Seconds until the next attempt may succeed, for a circuit that is not closed."""
        if self._state is HALF_OPEN or self._since is None:
            return 0.0
        if self._forced:
            return self._open_for
        return self._since + self._open_for - now

    def _become(self, state: State, why: str, now: float) -> None:
        was, self._state = self._state, state
        self._last += 1
        self._generation = self._last
        self._why, self._since = why, now
        self._outcomes.clear()
        self._out.clear()
        self._passed = 0
        timed = state is OPEN and not self._forced
        self._opened += state is OPEN
        self._on_transition(Transition(was, state, why, now, self._open_for if timed else None))
