"""Circuits against a model that keeps everything: in one process, and with two workers that have one together."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.records import Records

from apigw.config.model import CircuitBreaker
from apigw.errors import CircuitOpen
from apigw.shared.page import Page
from apigw.upstream.breaker import LEASE, Breaker, Transition
from apigw.upstream.record import Permit, State


class AgainstModel(RuleBasedStateMachine):
    """Any order of requests, outcomes, waiting and operators; the model recounts from the whole history each time."""

    records = Records()

    @initialize(
        config=st.builds(
            CircuitBreaker,
            error_rate=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
            window=st.sampled_from([1.0, 3.0, 60.0]),
            min_requests=st.integers(1, 6),
            open_for=st.sampled_from([1.0, 5.0, 200.0]),
            half_open_requests=st.integers(1, 4),
        ),
        has_health_check=st.booleans(),
        start=st.integers(0, 100),
    )
    def begin(self, config: CircuitBreaker, has_health_check: bool, start: int) -> None:
        self.config, self.has_health_check, self.now = config, has_health_check, start
        self.breakers = cycle([Breaker(config, has_health_check, self.hear, one) for one in self.records(config)])
        self.heard: list[Transition] = []
        self.state = State.CLOSED
        self.forced: State | None = None
        self.epoch = 0
        self.history: list[tuple[int, bool]] = []
        self.in_flight: list[tuple[Permit, int, int]] = []
        self.passed = 0
        self.open_for, self.opened_at, self.closed_at = config.open_for, 0, -(10**9)

    @property
    def breaker(self) -> Breaker:
        return next(self.breakers)

    def hear(self, transition: Transition) -> None:
        assert transition.was is not transition.to
        assert not self.heard or self.heard[-1].to is transition.was
        assert self.breaker.state is transition.to
        self.heard.append(transition)

    def become(self, state: State) -> None:
        self.state, self.epoch, self.history, self.passed = state, self.epoch + 1, [], 0
        if state is State.OPEN:
            self.opened_at = self.now
        if state is State.CLOSED:
            self.closed_at = self.now

    def window(self) -> list[bool]:
        return [failed for second, failed in self.history if second > self.now - self.config.window]

    def probing(self) -> int:
        return sum(epoch == self.epoch and self.now < asked + LEASE for _, epoch, asked in self.in_flight)

    def half_open_when_due(self) -> None:
        if self.state is State.OPEN and self.forced is None and self.now >= self.opened_at + self.open_for:
            self.become(State.HALF_OPEN)

    def record(self, failed: bool) -> None:
        self.history.append((self.now, failed))
        seen = self.window()
        enough = len(seen) >= self.config.min_requests and sum(seen) / len(seen) >= self.config.error_rate
        if self.forced is not None or not enough:
            return
        if self.now - self.closed_at <= self.config.window:
            self.open_for = min(self.open_for * 2, 300.0)
        else:
            self.open_for = self.config.open_for
        self.become(State.OPEN)
        assert str(self.heard[-1]) == f"opened: {sum(seen)} of {len(seen)} failed in {self.config.window:g} s"
        assert self.heard[-1].open_for == self.open_for

    @rule(seconds=st.sampled_from([0, 1, 1, 2, 5, 30, 61, 300]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(times=st.integers(1, 5))
    def ask(self, times: int) -> None:
        for _ in range(times):
            self.half_open_when_due()
            free = self.probing() < self.config.half_open_requests and not self.has_health_check
            try:
                permit = self.breaker.admit(self.now)
            except CircuitOpen as refusal:
                assert self.state is State.OPEN or (self.state is State.HALF_OPEN and not free)
                retry_after = int(refusal.headers[0][1])
                assert 1 <= retry_after <= 300
                if self.state is State.OPEN and self.forced is None:
                    assert retry_after == self.opened_at + self.open_for - self.now
            else:
                assert self.state is State.CLOSED or (self.state is State.HALF_OPEN and free)
                self.in_flight.append((permit, self.epoch, self.now))

    def take(self, which: int) -> tuple[Permit, bool]:
        permit, epoch, _ = self.in_flight.pop(which % len(self.in_flight))
        return permit, epoch == self.epoch

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 99))
    def succeed(self, which: int) -> None:
        permit, current = self.take(which)
        self.breaker.success(permit, self.now)
        if current and self.state is State.CLOSED:
            self.record(False)
        elif current:
            self.passed += 1
            if self.passed == self.config.half_open_requests:
                self.become(State.CLOSED)

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 99))
    def fail(self, which: int) -> None:
        permit, current = self.take(which)
        self.breaker.failure(permit, self.now)
        if current and self.state is State.CLOSED:
            self.record(True)
        elif current:
            self.become(State.OPEN)

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 99))
    def leave(self, which: int) -> None:
        self.breaker.cancel(self.take(which)[0], self.now)

    @precondition(lambda self: self.state is State.OPEN)
    @rule()
    def wait_until_due(self) -> None:
        self.now = max(self.now, int(self.opened_at + self.open_for))
        self.timer()

    @precondition(lambda self: self.state is State.CLOSED)
    @rule(left=st.integers(0, 3))
    def break_down(self, left: int) -> None:
        self.ask(8)
        while len(self.in_flight) > left:
            self.fail(0)

    @rule()
    def timer(self) -> None:
        self.half_open_when_due()
        self.breaker.advance(self.now)

    @rule(passes=st.booleans())
    def health(self, passes: bool) -> None:
        if self.state is State.HALF_OPEN:
            self.become(State.CLOSED if passes else State.OPEN)
        (self.breaker.health_passed if passes else self.breaker.health_failed)(self.now)

    @rule(state=st.sampled_from([State.OPEN, State.CLOSED]))
    def hold(self, state: State) -> None:
        act: Callable[[float], object] = self.breaker.open if state is State.OPEN else self.breaker.close
        act(self.now)
        self.forced = state
        if self.state is not state:
            self.become(state)
        if state is State.OPEN:
            self.open_for = self.config.open_for
        else:
            self.closed_at = -(10**9)

    @rule()
    def free(self) -> None:
        self.breaker.free(self.now)
        if self.forced is State.OPEN:
            self.become(State.HALF_OPEN)
        self.forced = None

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "breakers"):
            return
        status = self.breaker.status(self.now)
        seen = self.window()
        assert (status.state, status.forced) == (self.state, self.forced is not None)
        assert (status.failures, status.total) == (sum(seen), len(seen))
        assert status.opened == sum(transition.to is State.OPEN for transition in self.heard)
        assert len(self.heard) == self.epoch
        due = self.opened_at + self.open_for if self.state is State.OPEN and self.forced is None else None
        assert self.breaker.probe_at == due
        assert self.state is not State.HALF_OPEN or self.probing() <= self.config.half_open_requests


class WorkersAgainstModel(AgainstModel):
    """The same with two workers, in turn."""

    records = Records(Page.make(2, 1024 * 1024))


for machine in (AgainstModel, WorkersAgainstModel):
    machine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAgainstModel = AgainstModel.TestCase
TestWorkersAgainstModel = WorkersAgainstModel.TestCase
