"""``/metrics``, whichever worker is asked."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.machines import linked
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from apigw.contract.machine import Answer, Machine
from apigw.ops.exposition import Page
from apigw.ops.metrics import Metrics
from apigw.ops.totals import gone, packed
from apigw.proxy.resources import SAID_FOR, metrics_page


class Worker:
    def __init__(self, machine: Machine) -> None:
        self.metrics = Metrics(CollectorRegistry(), "1.2.3")
        self.in_flight = 0
        self.clock: Any = Clock()
        self.page = metrics_page(machine, self.metrics, self.measure, maybeDeferred, self.clock)

    def measure(self) -> None:
        self.metrics.in_flight = self.in_flight

    def asked(self) -> str:
        return text_of(self.page(False))


def text_of(page: Deferred[Page]) -> str:
    found: list[Page] = []
    page.addCallback(found.append)
    return found[0][1].decode()


@pytest.mark.parametrize("asked", [0, 1])
def test_whoever_is_asked_speaks_for_all(asked: int) -> None:
    """Those who are gone, too."""
    machines = linked(2)
    workers = [Worker(machine) for machine in machines]
    for worker in workers:
        worker.metrics.route("/a").observe(b"GET", 200, 0.1)
        worker.in_flight = 2
    machines[asked].gone = [Answer(-1, 0, gone(None, packed(workers[0].metrics, 0), 0))]
    text = workers[asked].asked()
    assert 'gateway_requests_total{method="GET",path="/a",route="/a",status="200"} 3\n' in text
    assert "gateway_requests_in_flight 4.0\n" in text
    assert 'gateway_worker_deaths_total{worker="0"} 1.0\n' in text


def test_an_answer_is_repeated_for_half_a_second() -> None:
    """Workers that ask each other all the time cost little."""
    worker, other = (Worker(machine) for machine in linked(2))
    worker.in_flight = 1
    assert "gateway_requests_in_flight 1.0\n" in worker.asked()
    worker.in_flight = 2
    assert "gateway_requests_in_flight 1.0\n" in other.asked()
    worker.clock.advance(SAID_FOR)
    assert "gateway_requests_in_flight 2.0\n" in other.asked()


def test_who_is_alone_asks_nobody() -> None:
    """The page of one process is rendered as it is."""
    worker = Worker(Machine(7))
    worker.in_flight = 1
    assert "gateway_requests_in_flight 1.0\n" in worker.asked()
    assert "worker" not in worker.asked()
