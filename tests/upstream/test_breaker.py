"""When a circuit opens, is tried, and closes: in one process, and with two workers that have it together."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import pytest
from support.records import Records

from apigw.config.model import CircuitBreaker
from apigw.errors import CircuitOpen
from apigw.shared.page import Page
from apigw.upstream.breaker import LEASE, LONGEST_OPEN, Breaker, Transition
from apigw.upstream.record import Outcomes, State

CONFIG = CircuitBreaker(error_rate=0.5, window=60, min_requests=20, open_for=30, half_open_requests=3)


class Circuit:
    """The breakers of one circuit, and what they said. Each call is another worker's."""

    records = Records()

    def __init__(self, config: CircuitBreaker = CONFIG, has_health_check: bool = False) -> None:
        self.transitions: list[Transition] = []
        said = self.transitions.append
        self._breakers = cycle([Breaker(config, has_health_check, said, record) for record in self.records(config)])

    @property
    def breaker(self) -> Breaker:
        return next(self._breakers)

    @property
    def state(self) -> str:
        return str(self.breaker.state)

    @property
    def said(self) -> list[str]:
        return list(map(str, self.transitions))

    def fail(self, now: float, times: int = 20) -> None:
        for _ in range(times):
            self.breaker.failure(self.breaker.admit(now), now)

    def succeed(self, now: float, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.success(self.breaker.admit(now), now)


@pytest.fixture(scope="module")
def shared(page: Page) -> Records:
    return Records(page)


@pytest.fixture(autouse=True, params=["one process", "two workers"])
def records(request: pytest.FixtureRequest, shared: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds for both."""
    if request.param == "two workers":
        monkeypatch.setattr(Circuit, "records", shared)


def refused(circuit: Circuit, now: float) -> int:
    """The ``Retry-After`` of a refusal."""
    with pytest.raises(CircuitOpen) as raised:
        circuit.breaker.admit(now)
    ((name, value),) = raised.value.headers
    assert name == b"retry-after" and f"try again in {value.decode()} s" in raised.value.detail
    return int(value)


def opened(has_health_check: bool = False) -> Circuit:
    """Opened at 100, so until 130."""
    circuit = Circuit(has_health_check=has_health_check)
    circuit.fail(100)
    assert circuit.state == "open"
    return circuit


# Closed


def test_opens_at_the_error_rate_with_its_numbers() -> None:
    """A service that fails half of its requests would go on being asked, or nobody could tell why it is not."""
    circuit = Circuit()
    circuit.succeed(5, 21)
    circuit.fail(30, 20)
    assert circuit.state == "closed"
    circuit.breaker.failure(0, 59.9)
    assert circuit.said == ["opened: 21 of 42 failed in 60 s"]
    assert circuit.transitions == [Transition(State.CLOSED, State.OPEN, "21 of 42 failed in 60 s", 59.9, 30)]


@pytest.mark.parametrize(("rate", "failures", "total"), [(0.07, 7, 100), (0.29, 29, 100), (0.1, 3, 30), (1.0, 20, 20)])
def test_the_rate_is_reached_exactly(rate: float, failures: int, total: int) -> None:
    """Rounding would let a service fail once more than configured."""
    circuit = Circuit(CircuitBreaker(error_rate=rate, min_requests=20))
    circuit.succeed(0, total - failures)
    circuit.fail(0, failures - 1)
    assert circuit.state == "closed"
    circuit.fail(0, 1)
    assert circuit.state == "open"


def test_old_successes_leave_the_window_too() -> None:
    """Yesterday's successes would hide today's failures."""
    circuit = Circuit()
    circuit.succeed(0, 100)
    circuit.fail(59, 20)
    assert circuit.state == "closed"
    circuit.succeed(60)
    assert circuit.said == ["opened: 20 of 21 failed in 60 s"]


def test_a_window_shorter_than_a_second() -> None:
    """A short window would keep nothing, and the circuit never open."""
    circuit = Circuit(CircuitBreaker(window=0.25))
    circuit.fail(7.9)
    assert circuit.said == ["opened: 20 of 20 failed in 0.25 s"]


# Open


def test_refuses_until_its_time_is_over() -> None:
    """A broken service would be asked too early, or its callers told to come back too early."""
    circuit = opened()
    assert [refused(circuit, now) for now in (100, 100.1, 129, 129.9)] == [30, 30, 1, 1]
    assert circuit.breaker.probe_at == 130
    circuit.breaker.admit(130)
    assert circuit.said[1:] == ["half-open: 30 s have passed"]
    assert circuit.breaker.probe_at is None


def test_outcomes_from_before_a_transition_are_ignored() -> None:
    """Answers that were on their way would decide about a service that has changed since."""
    circuit = Circuit()
    before = [circuit.breaker.admit(0) for _ in range(100)]
    circuit.fail(0)
    for permit in before[:30]:
        circuit.breaker.success(permit, 1)
    probe = circuit.breaker.admit(30)
    for permit in before[30:60]:
        circuit.breaker.success(permit, 30)
        circuit.breaker.failure(permit, 30)
        circuit.breaker.cancel(permit, 30)
    others = [circuit.breaker.admit(30) for _ in range(2)]
    assert refused(circuit, 30) == 1
    for permit in others:
        circuit.breaker.success(permit, 30)
    assert circuit.state == "half-open"
    circuit.breaker.success(probe, 30)
    for permit in before[60:]:
        circuit.breaker.failure(permit, 31)
    assert (circuit.state, circuit.breaker.status(31).total) == ("closed", 0)


# Half-open, without a health check


def test_lets_a_few_through_at_a_time() -> None:
    """A service that is just back would get all its requests at once."""
    circuit = opened()
    probes = [circuit.breaker.admit(130) for _ in range(3)]
    assert refused(circuit, 130) == 1
    circuit.breaker.success(probes[0], 131)
    probes.append(circuit.breaker.admit(131))
    assert refused(circuit, 131) == 1
    circuit.breaker.success(probes[1], 132)
    assert circuit.state == "half-open"
    circuit.breaker.success(probes[2], 132)
    assert circuit.said[1:] == ["half-open: 30 s have passed", "closed: 3 of 3 probes succeeded"]
    circuit.breaker.failure(probes[3], 133)
    assert circuit.breaker.status(133).total == 0


def test_one_failed_probe_opens_it_for_as_long_again() -> None:
    """A service that is still broken would be asked until it had failed by the dozen."""
    circuit = opened()
    probes = [circuit.breaker.admit(130) for _ in range(3)]
    circuit.breaker.success(probes[0], 131)
    circuit.breaker.failure(probes[1], 135)
    assert circuit.said[2:] == ["opened: a probe failed"]
    assert circuit.transitions[-1].open_for == 30
    circuit.breaker.success(probes[2], 136)
    assert refused(circuit, 136) == 29
    circuit.breaker.admit(165)
    assert circuit.state == "half-open"


def test_a_cancelled_probe_gives_its_place_back() -> None:
    """A client that leaves in the wrong second would keep the circuit half-open for ever."""
    circuit = opened()
    for _ in range(50):
        circuit.breaker.cancel(circuit.breaker.admit(130), 130)
    circuit.succeed(131, 3)
    assert circuit.state == "closed"


def test_a_probe_holds_its_place_for_a_while() -> None:
    """Callers who are slow keep no others out, whatever the service does; what their probes tell still counts."""
    for succeeds in (True, False):
        circuit = opened()
        slow = [circuit.breaker.admit(130) for _ in range(3)]
        assert refused(circuit, 130 + LEASE - 0.1) == 1
        later = circuit.breaker.admit(130 + LEASE)
        circuit.breaker.cancel(slow[0], 136)
        circuit.breaker.cancel(later, 136)
        if succeeds:
            circuit.breaker.success(slow[1], 137)
            circuit.breaker.success(slow[2], 137)
            circuit.succeed(138, 1)
            assert circuit.state == "closed"
        else:
            circuit.breaker.failure(slow[1], 137)
            assert circuit.state == "open"


# Half-open, with a health check


def test_a_health_check_decides() -> None:
    """Requests would be spent on finding out what a health check can tell."""
    circuit = opened(has_health_check=True)
    circuit.breaker.health_passed(110)
    circuit.breaker.health_failed(110)
    assert circuit.state == "open"
    circuit.breaker.advance(129)
    assert circuit.state == "open"
    circuit.breaker.advance(130)
    assert circuit.state == "half-open"
    assert refused(circuit, 130) == 1
    circuit.breaker.health_failed(132)
    assert circuit.said[2:] == ["opened: no health check passed"]
    assert circuit.breaker.probe_at == 162
    assert refused(circuit, 162) == 1
    circuit.breaker.health_passed(163)
    assert circuit.said[3:] == ["half-open: 30 s have passed", "closed: a health check passed"]
    circuit.succeed(163)


@pytest.mark.parametrize("passes", [True, False])
def test_a_health_check_that_answers_at_once(passes: bool) -> None:
    """The request that finds the open time over would be lost between two states."""

    def check(transition: Transition) -> None:
        if transition.to is State.HALF_OPEN:
            (breaker.health_passed if passes else breaker.health_failed)(transition.at)

    (record, *_) = Circuit.records(CONFIG)
    breaker = Breaker(CONFIG, True, check, record)
    for _ in range(20):
        breaker.failure(breaker.admit(0), 0)
    if passes:
        breaker.success(breaker.admit(30), 30)
        assert breaker.status(30).total == 1
    else:
        with pytest.raises(CircuitOpen):
            breaker.admit(30)
        assert breaker.probe_at == 60


# Opening again


def test_flapping_keeps_it_open_twice_as_long_each_time_up_to_five_minutes() -> None:
    """A service that answers its health check and nothing else would be tried every half minute."""
    circuit = Circuit(has_health_check=True)
    now, durations = 0.0, []
    for _ in range(7):
        circuit.fail(now)
        durations.append(circuit.transitions[-1].open_for)
        assert circuit.breaker.probe_at is not None
        now = circuit.breaker.probe_at
        circuit.breaker.advance(now)
        circuit.breaker.health_passed(now)
        now += 60
    assert durations == [30, 60, 120, 240, 300, 300, 300]
    circuit.fail(now + 1)
    assert circuit.transitions[-1].open_for == 30


def test_an_open_time_over_five_minutes_is_not_shortened() -> None:
    """Flapping would make a patient configuration less patient."""
    circuit = Circuit(CircuitBreaker(open_for=900))
    circuit.fail(0)
    circuit.succeed(900, 3)
    circuit.fail(901)
    assert circuit.transitions[-1].open_for == 900 > LONGEST_OPEN


# By hand


def test_an_operator_opens_it() -> None:
    """A service taken out by hand would be asked again after half a minute."""
    circuit = Circuit(has_health_check=True)
    circuit.breaker.open(10)
    assert refused(circuit, 10) == 30
    assert circuit.breaker.probe_at is None
    circuit.breaker.advance(10_000)
    circuit.breaker.health_passed(10_000)
    assert refused(circuit, 10_000) == 30
    with pytest.raises(CircuitOpen, match="An operator has taken the service out; try again in 30 s"):
        circuit.breaker.check(10_000)
    circuit.breaker.free(20_000)
    circuit.breaker.health_passed(20_001)
    assert circuit.said == [
        "opened: by an operator",
        "half-open: freed by an operator",
        "closed: a health check passed",
    ]
    assert [transition.open_for for transition in circuit.transitions] == [None] * 3


def test_an_operator_closes_it() -> None:
    """A service that must be asked whatever it answers would be left alone."""
    circuit = opened()
    circuit.breaker.close(101)
    circuit.fail(102, 100)
    assert circuit.said[1:] == ["closed: by an operator"]
    status = circuit.breaker.status(102)
    assert (status.failures, status.total, status.forced) == (100, 100, True)
    circuit.breaker.free(103)
    assert circuit.state == "closed"
    circuit.fail(103, 1)
    assert circuit.said[2:] == ["opened: 101 of 101 failed in 60 s"]
    assert circuit.transitions[-1].open_for == 30


@pytest.mark.parametrize("by_hand", [Breaker.open, Breaker.close])
def test_after_an_operator_the_open_time_begins_anew(by_hand: Callable[[Breaker, float], object]) -> None:
    """A service repaired by hand would be punished for what it did before."""
    circuit = opened()
    circuit.succeed(130, 3)
    circuit.fail(131)
    circuit.succeed(191, 3)
    by_hand(circuit.breaker, 192)
    circuit.breaker.free(193)
    circuit.fail(194, 1 if circuit.state == "half-open" else 20)
    assert circuit.breaker.probe_at == 224


# What operators see


def test_status() -> None:
    """The admin listener would show a wrong state, wrong numbers, or a negative time."""
    circuit = Circuit()
    new = circuit.breaker.status(0)
    assert (new.state, new.since, new.retry_in, new.total, new.opened) == (State.CLOSED, None, None, 0, 0)
    circuit.succeed(99, 2)
    circuit.fail(99, 1)
    counting = circuit.breaker.status(99)
    assert (counting.failures, counting.total) == (1, 3)
    circuit.fail(100, 17)
    status = circuit.breaker.status(110)
    assert (status.state, status.why) == (State.OPEN, "18 of 20 failed in 60 s")
    assert (status.since, status.retry_in, status.failures, status.total) == (10, 20, 0, 0)
    assert (status.forced, status.opened) == (False, 1)
    assert circuit.breaker.status(140).retry_in == 0


def test_states_are_the_values_of_the_gauge_and_the_labels_of_the_counter() -> None:
    """Dashboards would show open for closed."""
    assert [(int(state), str(state)) for state in State] == [(0, "closed"), (1, "open"), (2, "half-open")]


# Odd clocks


def test_a_timer_that_fires_a_rounding_error_early() -> None:
    """The health check would not be run when the open time ends, and nothing else would wake it."""
    circuit = opened(has_health_check=True)
    circuit.breaker.advance(129.999_999_9)
    assert circuit.state == "half-open"


def test_memory_does_not_grow() -> None:
    """A gateway that runs for weeks would run out of memory."""
    outcomes = Outcomes(60)
    for second in range(10_000):
        for _ in range(3):
            outcomes.add(second % 3 == 0, second + 0.5)
        assert len(outcomes._buckets) <= 60
    assert (outcomes.total, outcomes.failures) == (180, 60)
    outcomes.expire(10**6)
    assert (outcomes.total, outcomes.failures, len(outcomes._buckets)) == (0, 0, 0)
