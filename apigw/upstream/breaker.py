# Compiled: see docs/decisions/compiled.md
"""The circuit breaker of a service, as in Nygard's *Release It!*: decisions only.

``now`` is in seconds of any monotonic clock, the same one in all calls. Nothing is scheduled here: the owner reads
``probe_at`` and calls ``advance``. Three states: closed, where outcomes are counted; open, where every
request is refused; half-open, where the service is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final

from attrs import field, frozen

from apigw.config.model import CircuitBreaker
from apigw.errors import CircuitOpen
from apigw.upstream.record import CLOSED, HALF_OPEN, OPEN, Permit, Record, State

LONGEST_OPEN: Final = 300.0
"""Seconds: the maximum of the doubled ``open_for``, unless it is configured longer."""

LEASE: Final = 5.0
"""Seconds for which a probe has a place in a half-open circuit. One that takes longer, because its client does, leaves
the place to another; its outcome still counts."""


@frozen
class Transition:
    """A change of state. ``str`` is for the log: ``opened: 31 of 52 failed in 60 s``.

    ``open_for``: seconds that the circuit stays open. ``None`` if an operator opened it, and for other transitions.
    ``number``: that of this transition, the ``generation`` after it.
    """

    was: State
    to: State
    why: str
    at: float
    open_for: float | None = None
    number: Permit = field(default=0, eq=False)

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


class Breaker:
    """The circuit of one service.

    A closed circuit opens with at least ``min_requests`` outcomes, of which ``error_rate`` are failures. After
    ``open_for`` it is half-open. With a health check no request goes through then, until ``health_passed`` or
    ``health_failed`` is called. Without one, ``half_open_requests`` at a time go through, each holding its place for up
    to ``LEASE``; as many successes close it, and one failure opens it for as long again. Opening within ``window`` of
    closing doubles the time that it stays open, up to ``LONGEST_OPEN``; opening later, or after an operator's ``open``
    or ``close``, starts from ``open_for`` anew.

    Each permit must be returned exactly once, by ``success``, ``failure`` or ``cancel``. One from before the last
    transition is ignored, because its outcome is out of date. ``on_transition`` is called after each transition that is
    made here, and may call this circuit: on ``HALF_OPEN`` the owner runs its health check, on ``OPEN`` it sets its
    timer.

    ``record`` may be shared by the breakers of several workers. What cannot be recorded, because the record cannot be
    had, is left out, and what needs it to be admitted is refused.
    """

    def __init__(
        self,
        config: CircuitBreaker,
        has_health_check: bool,
        on_transition: Callable[[Transition], None],
        record: Record | None = None,
        check_lease: float = LEASE,
    ) -> None:
        """``check_lease``: seconds after which a health check is run again, by whoever notices, if it has no result."""
        self._config = config
        self._has_health_check = has_health_check
        self._on_transition = on_transition
        self._record = Record(config) if record is None else record
        self._check_lease = check_lease
        self._made: Transition | None = None
        self._undecided = False
        """Whether the last outcomes were counted, but the record could not be had to decide by them."""

    @property
    def state(self) -> State:
        self._record.look()
        return self._record.state

    @property
    def generation(self) -> Permit:
        """The number of the last transition."""
        self._record.look()
        return self._record.generation

    @property
    def forced(self) -> bool:
        """Whether an operator opened or closed the circuit, and did not free it."""
        self._record.look()
        return self._record.forced

    @property
    def probe_at(self) -> float | None:
        """When ``advance`` will make an open circuit half-open; ``None`` if it will not by itself."""
        record = self._record
        record.look()
        if record.state is not OPEN or record.forced or record.since is None:
            return None
        return record.since + record.open_for

    def leave(self) -> None:
        """The service was removed or replaced: what its last exchanges tell no longer counts."""
        self._record = Record(self._config)

    def look(self, now: float) -> None:
        """Do what is due. Called twice a second where others share this circuit."""
        self._record.used(now)
        if self._undecided:
            self._judge(now)
        self.advance(now)

    def admit(self, now: float) -> Permit:
        """A permit to send a request. Raises ``CircuitOpen``, with ``Retry-After`` in whole seconds, at least 1."""
        record = self._record
        record.look()
        if record.state is CLOSED:
            return record.generation
        return self._pass(now, True)

    def check(self, now: float) -> None:
        """Raises ``CircuitOpen`` if ``admit`` would, without taking a permit."""
        record = self._record
        record.look()
        if record.state is not CLOSED:
            self._pass(now, False)

    def success(self, permit: Permit, now: float) -> None:
        """The service answered, and not with a failure of its own."""
        record = self._record
        record.look()
        if permit < record.generation:
            return
        if record.state is CLOSED:
            if record.add(False, now):
                self._judge(now)
        elif record.begin(now):
            if permit >= record.generation:
                record.probes.pop(permit, None)
                record.passed += 1
                if record.passed >= self._config.half_open_requests:
                    self._close(f"{record.passed} of {record.passed} probes succeeded", now)
            self._end()

    def failure(self, permit: Permit, now: float) -> None:
        """The service failed, after every retry."""
        record = self._record
        record.look()
        if permit < record.generation:
            return
        if record.state is CLOSED:
            if record.add(True, now):
                self._judge(now)
        elif record.begin(now):
            if permit >= record.generation:
                self._become(OPEN, "a probe failed", now)
            self._end()

    def cancel(self, permit: Permit, now: float) -> None:
        """The exchange ended without saying anything about the service."""
        record = self._record
        record.look()
        if record.state is HALF_OPEN and permit >= record.generation and record.begin(now):
            record.probes.pop(permit, None)
            self._end()

    def health_passed(self, now: float) -> None:
        """A target passed its health check: closes a half-open circuit; no effect otherwise."""
        record = self._record
        record.look()
        if record.state is HALF_OPEN and record.begin(now):
            if record.state is HALF_OPEN:
                self._close("a health check passed", now)
            self._end()

    def health_failed(self, now: float) -> None:
        """No target passed its health check: opens a half-open circuit; no effect otherwise."""
        record = self._record
        record.look()
        if record.state is HALF_OPEN and record.begin(now):
            if record.state is HALF_OPEN:
                self._become(OPEN, "no health check passed", now)
            self._end()

    def takes_over_check(self, now: float) -> bool:
        """Whether the caller is to run a half-open circuit's health check, as who began it has no result in time."""
        record = self._record
        record.look()
        if record.state is not HALF_OPEN or not self._has_health_check or not record.begin(now):
            return False
        takes = record.state is HALF_OPEN and record.checked_until <= now
        if takes:
            record.checked_until = now + self._check_lease
        self._end()
        return takes

    def advance(self, now: float) -> None:
        """Make an open circuit half-open, if its time has passed."""
        record = self._record
        record.look()
        if self._is_due(now) and record.begin(now):
            if self._is_due(now):
                self._become(HALF_OPEN, f"{record.open_for:g} s have passed", now)
            self._end()

    def open(self, now: float) -> bool:
        """By an operator: refuse every request until ``close`` or ``free``. False if it cannot be done just now."""
        record = self._record
        if not record.begin(now):
            return False
        record.forced = True
        record.open_for = self._config.open_for
        if record.state is not OPEN:
            self._become(OPEN, "by an operator", now)
        self._end()
        return True

    def close(self, now: float) -> bool:
        """By an operator: admit every request, whatever the outcome, until ``open`` or ``free``. False as ``open``."""
        record = self._record
        if not record.begin(now):
            return False
        record.forced = True
        if record.state is not CLOSED:
            self._become(CLOSED, "by an operator", now)
        record.closed_at = None
        self._end()
        return True

    def free(self, now: float) -> bool:
        """By an operator: end ``open``, which makes it half-open, or ``close``. False as ``open``."""
        record = self._record
        if not record.begin(now):
            return False
        if record.forced:
            record.forced = False
            if record.state is OPEN:
                self._become(HALF_OPEN, "freed by an operator", now)
        self._end()
        return True

    def status(self, now: float) -> Status:
        """The state at ``now``."""
        record = self._record
        record.look()
        if record.begin(now):
            record.end(False)
        probe_at = self.probe_at
        return Status(
            state=record.state,
            why=record.why,
            since=None if record.since is None else max(0.0, now - record.since),
            retry_in=None if probe_at is None else max(0.0, self._retry_in(now)),
            failures=record.failures,
            total=record.total,
            forced=record.forced,
            opened=record.opened,
        )

    def _pass(self, now: float, takes: bool) -> Permit:
        """What ``admit`` and ``check`` do if the circuit was not closed. ``takes`` a probe's place, if there is one."""
        self.advance(now)
        record = self._record
        if record.state is CLOSED:
            return record.generation
        if record.state is HALF_OPEN and not self._has_health_check and record.begin(now):
            permit = self._place(now, takes)
            self._end()
            if permit is not None:
                return permit
        retry_after = max(1, ceil(self._retry_in(now)))
        why = (
            "An operator has taken the service out"
            if record.forced
            else "The service is failing, so its circuit is open"
        )
        raise CircuitOpen(
            f"{why}; try again in {retry_after} s.",
            [(b"retry-after", b"%d" % retry_after)],
        )

    def _place(self, now: float, takes: bool) -> Permit | None:
        record = self._record
        if record.state is CLOSED:
            return record.generation
        if record.state is OPEN:
            return None
        probes = record.probes
        for permit in [permit for permit, until in probes.items() if until <= now]:
            del probes[permit]
        if len(probes) >= self._config.half_open_requests:
            return None
        if takes:
            record.last += 1
            probes[record.last] = now + LEASE
        return record.last

    def _judge(self, now: float) -> None:
        record, config = self._record, self._config
        if not record.begin(now):
            self._undecided = True
            return
        self._undecided = False
        failures, total = record.failures, record.total
        if (
            record.state is CLOSED
            and not record.forced
            and total >= config.min_requests
            and failures / total >= config.error_rate
        ):
            again = record.closed_at is not None and now - record.closed_at <= config.window
            longest = max(LONGEST_OPEN, config.open_for)
            record.open_for = min(2 * record.open_for, longest) if again else config.open_for
            self._become(OPEN, f"{failures} of {total} failed in {config.window:g} s", now)
        if self._made is None:
            record.end(False)
        else:
            self._end()

    def _close(self, why: str, now: float) -> None:
        self._record.closed_at = now
        self._become(CLOSED, why, now)

    def _is_due(self, now: float) -> bool:
        # A timer set for ``probe_at`` may fire a rounding error before it.
        return self._record.state is OPEN and not self._record.forced and self._retry_in(now) < 0.001

    def _retry_in(self, now: float) -> float:
        """Seconds until the next attempt may succeed, for a circuit that is not closed."""
        record = self._record
        if record.state is HALF_OPEN or record.since is None:
            return 0.0
        if record.forced:
            return record.open_for
        return record.since + record.open_for - now

    def _become(self, state: State, why: str, now: float) -> None:
        record = self._record
        was, record.state = record.state, state
        record.last += 1
        record.generation = record.last
        record.why, record.since = why, now
        record.forget()
        record.checked_until = now + self._check_lease
        timed = state is OPEN and not record.forced
        record.opened += state is OPEN
        self._made = Transition(was, state, why, now, record.open_for if timed else None, record.generation)

    def _end(self) -> None:
        """Give the record back, changed, and tell of the transition."""
        self._record.end(True)
        made, self._made = self._made, None
        if made is not None:
            self._on_transition(made)
