"""``/circuits`` of several workers: the worst state, and sums of what each counts."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from support.machines import linked
from twisted.internet.task import Clock

from apigw.admin.circuits import Circuits, Row, row_of, summed
from apigw.admin.writes import Writes
from apigw.config.model import CircuitBreaker, Service, Target
from apigw.contract.machine import Machine
from apigw.ops.metrics import Metrics
from apigw.upstream.build import build
from apigw.upstream.upstream import Upstream
from apigw.wire.deadlines import Deadlines


class Worker:
    """A worker with two services, one of which has a circuit."""

    def __init__(self, machine: Machine) -> None:
        clock: Any = Clock()
        metrics = Metrics(CollectorRegistry(), "0")
        self.upstreams = [
            build(service, clock, Deadlines(clock), metrics.service(service.name)) for service in (MAIN, OTHER)
        ]
        self.circuits = Circuits(lambda: self.upstreams, Writes(clock.seconds, lambda: None), machine)

    @property
    def main(self) -> Upstream:
        return self.upstreams[0]

    def rows(self) -> list[Row]:
        return [row_of(upstream) for upstream in self.upstreams]


TARGETS = Target("http", "127.0.0.1", 9001), Target("http", "127.0.0.1", 9002)
MAIN = Service("main", TARGETS, circuit_breaker=CircuitBreaker())
OTHER = Service("other", TARGETS[:1], circuit_breaker=None)


def workers(number: int) -> list[Worker]:
    return [Worker(machine) for machine in linked(number)]


def of_all(workers: list[Worker]) -> list[Row]:
    own, *others = (worker.rows() for worker in workers)
    return summed(own, others)


def act(worker: Worker, machine: Machine, action: str) -> list[Row]:
    found: list[Row] = []
    asked: Any = machine.ask("circuit", {"service": "main", "action": action})
    asked.addCallback(lambda answers: found.extend(worker.circuits._shown(answers)["circuits"]))
    return found


def test_one_is_shown_as_it_is() -> None:
    """Nothing is added to what the only worker says."""
    worker = Worker(Machine(0))
    assert summed(worker.rows(), []) == worker.rows()


def test_the_worst_state_is_shown() -> None:
    """Whoever is asked, with its reason: of circuits that the workers do not share."""
    one, other = workers(2)
    assert one.main.circuit is not None and other.main.circuit is not None
    other.main.circuit.open()
    for both in ([one, other], [other, one]):
        shown = of_all(both)[0]
        assert (shown["state"], shown["forced"], shown["opened"]) == ("open", True, 1)
        assert shown["why"] == other.main.circuit.status().why


def test_a_target_is_in_use_if_it_is_for_all() -> None:
    """And its connections are those of all."""
    one, other = workers(2)
    other.main.targets[1].healthy = other.main.targets[1].available = False
    first, second = of_all([one, other])[0]["targets"]
    assert (first["healthy"], first["available"], first["connections"]) == (True, True, 0)
    assert (second["healthy"], second["available"]) == (False, False)


def test_connections_are_added_up() -> None:
    """What a circuit has counted is not: it is one for all workers."""
    one, other = workers(2)
    mine, theirs = one.rows(), other.rows()
    mine[0] |= {"failures": 2, "total": 5}
    theirs[0] |= {"failures": 2, "total": 5}
    mine[1]["targets"][0]["connections"], theirs[1]["targets"][0]["connections"] = 3, 4
    main, second = summed(mine, [theirs])
    assert (main["failures"], main["total"]) == (2, 5)
    assert second["state"] is None
    assert second["targets"][0]["connections"] == 7


def test_a_service_that_another_worker_does_not_have_yet() -> None:
    """During a reload: the services are those of the worker that was asked."""
    one, other = workers(2)
    assert [row["service"] for row in summed(one.rows(), [other.rows()[:1]])] == ["main", "other"]
    assert [row["service"] for row in summed(one.rows()[:1], [other.rows()])] == ["main"]


def test_what_is_done_by_hand_is_done_in_all() -> None:
    """Through whichever worker it was asked."""
    machines = linked(2)
    one, other = (Worker(machine) for machine in machines)
    (shown,) = act(other, machines[1], "open")
    assert shown["state"] == "open"
    for worker in (one, other):
        assert worker.main.circuit is not None
        assert str(worker.main.circuit.status().state) == "open"
    (shown,) = act(one, machines[0], "close")
    assert (shown["state"], shown["forced"]) == ("closed", True)
