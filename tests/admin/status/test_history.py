"""The last minutes as the status page shows them, from counters and a clock."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from apigw.admin.status.history import SECONDS, History, Sum
from apigw.ops.metrics import Metrics
from apigw.ops.packing import pack


class Watched:
    """A gateway's counters, and their history."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self.metrics = Metrics(CollectorRegistry(), "1.2.3")
        self.history = History(self.clock, self.metrics.routes)
        self.history.start()

    def send(self, path: str, status: int = 200, seconds: float | None = 0.002, times: int = 1) -> None:
        for _ in range(times):
            self.metrics.route(path).observe(b"GET", status, seconds)

    def passes(self, seconds: int) -> None:
        self.clock.pump([1.0] * seconds)


def test_rates_are_per_second() -> None:
    """The plot shows sums since the start, or twice what was sent."""
    watched = Watched()
    watched.send("/a", times=30)
    watched.send("/a", 503, times=10)
    watched.passes(1)
    watched.send("/b", times=5)
    watched.passes(2)
    assert [(each.requests, each.failed) for each in watched.history.seconds] == [(40, 10), (5, 0), (0, 0)]


def test_a_late_sample_does_not_look_like_a_burst() -> None:
    """After the process stood still for ten seconds, ten times the traffic is shown."""
    watched = Watched()
    watched.send("/a", times=100)
    watched.clock.advance(10)
    assert watched.history.seconds[0].requests == 10


def test_memory_is_bounded() -> None:
    """A gateway that runs for a year fills its memory with what nobody looks at."""
    watched = Watched()
    for _ in range(2 * SECONDS):
        watched.send("/a")
        watched.passes(1)
    assert len(watched.history.seconds) == SECONDS
    assert 60 <= watched.history.lately(("/a", "/a"))["GET"].requests <= 70


def test_the_last_minute_forgets() -> None:
    """A route that failed this morning is shown as failing."""
    watched = Watched()
    watched.send("/a", 500, times=7)
    watched.passes(30)
    assert watched.history.lately(("/a", "/a"))["GET"].failed == 7
    watched.send("/a", 429, times=2)
    watched.passes(45)  # a minute and up to ten seconds are looked back
    found = watched.history.lately(("/a", "/a"))["GET"]
    assert (found.requests, found.failed, found.limited) == (2, 0, 2)
    watched.passes(60)
    assert watched.history.lately(("/a", "/a")) == {}


def test_the_span_is_what_the_tallies_are_of() -> None:
    """In its first minute a gateway shows a sixtieth of its traffic."""
    watched = Watched()
    watched.send("/a", times=20)
    watched.passes(4)
    assert watched.history.lately(("/a", "/a"))["GET"].seconds == 4
    watched.passes(56)
    watched.send("/late", times=1)
    watched.passes(2)
    assert watched.history.lately(("/late", "/late"))["GET"].seconds == 60  # before it there were none
    for _ in range(200):
        watched.send("/a", times=10)
        watched.passes(1)
    found = watched.history.lately(("/a", "/a"))["GET"]
    assert found.requests / found.seconds == pytest.approx(10, rel=0.02)


def test_a_route_that_comes_back_begins_anew() -> None:
    """After a reload that removed and one that brought back a route, its rate is negative."""
    watched = Watched()
    watched.send("/a", times=50)
    watched.passes(1)
    watched.metrics.retain({("/b", "/b")}, set())
    watched.metrics.retain({("/a", "/a")}, set())
    watched.send("/a", times=3)
    watched.passes(1)
    assert watched.history.seconds[-1].requests == 3
    watched.metrics.retain({("/b", "/b")}, set())
    watched.passes(1)
    assert watched.history.lately(("/a", "/a")) == {}


def test_percentiles_are_those_of_prometheus() -> None:
    """The page and the dashboard show different latencies for the same traffic."""
    watched = Watched()
    watched.send("/a", seconds=0.002, times=20)
    watched.send("/a", seconds=0.2, times=80)
    watched.passes(1)
    latest = watched.history.seconds[-1]
    assert latest.p50 == pytest.approx(0.1 + 0.15 * 0.3 / 0.8)
    assert latest.p95 == pytest.approx(0.1 + 0.15 * 0.75 / 0.8)


def test_what_has_no_duration_has_no_percentile() -> None:
    """Event streams that end after a day are shown as answers that took none."""
    watched = Watched()
    watched.send("/a", seconds=None)
    watched.passes(1)
    assert watched.history.seconds[-1].requests == 1
    assert watched.history.seconds[-1].p95 is None
    assert watched.history.lately(("/a", "/a"))["GET"].quantile(0.5) is None


def test_beyond_the_highest_bound() -> None:
    """A request of an hour breaks the page."""
    watched = Watched()
    watched.send("/a", seconds=3600.0)
    watched.passes(1)
    assert watched.history.seconds[-1].p99 == 30.0


def test_stopping_ends_it() -> None:
    """A stopped gateway goes on counting."""
    watched = Watched()
    watched.history.stop()
    watched.history.stop()
    assert watched.clock.getDelayedCalls() == []


def summed(*watched: Watched) -> Sum:
    return Sum([pack(each.history.lines()) for each in watched], lambda: None)


def test_the_sum_of_one_is_its_history() -> None:
    """Nothing is lost on the way to another worker."""
    watched = Watched()
    watched.send("/a", seconds=0.002, times=20)
    watched.passes(3)
    watched.send("/a", 503, times=2)
    watched.passes(1)
    found = summed(watched)
    assert found.seconds == list(watched.history.seconds)
    tally, own = found.lately(("/a", "/a"))["GET"], watched.history.lately(("/a", "/a"))["GET"]
    assert (tally.requests, tally.failed, tally.buckets, tally.seconds) == (22, 2, own.buckets, own.seconds)
    assert found.lately(("/b", "/b")) == {}


def test_histories_are_summed_second_by_second() -> None:
    """Also those of a worker that came later, and that samples at another moment of the second."""
    one, other = Watched(), Watched()
    one.send("/a", times=10)
    one.passes(2)
    other.clock.advance(1.2)  # before its first sample it was late
    one.send("/a", seconds=0.2, times=30)
    other.send("/a", 500, seconds=0.2, times=8)
    other.send("/b", times=2)
    one.passes(1)
    other.clock.advance(1.8)
    found = summed(one, other)
    assert [second.at for second in found.seconds] == [1_000_001, 1_000_002, 1_000_003]
    assert [second.requests for second in found.seconds][::2] == [10, pytest.approx(30 + 10 / 1.8)]
    assert found.seconds[-1].p50 == pytest.approx(0.1 + 0.15 * (20 - 2) / 38)
    assert found.lately(("/a", "/a"))["GET"].requests == 48
    assert found.lately(("/a", "/a"))["GET"].failed == 8
    assert found.lately(("/b", "/b"))["GET"].requests == 2


def test_the_sum_ends_where_all_have_sampled() -> None:
    """A worker that is a moment late is no dip at the end of the plot; one that hangs does not stop it."""
    one, other = Watched(), Watched()
    one.passes(5)
    other.passes(4)
    assert summed(one, other).seconds[-1].at == 1_000_004
    one.passes(10)
    assert summed(one, other).seconds[-1].at == 1_000_013
    assert summed(Watched(), Watched()).seconds == []


def test_samples_are_taken_at_whole_seconds() -> None:
    """Whenever a worker has started, so that those of all can be added up."""
    watched = Watched()
    watched.history.stop()
    watched.clock.advance(0.3)
    watched.history.start()
    watched.clock.advance(0.7)
    assert [second.at for second in watched.history.seconds] == [1_000_001]
    watched.clock.pump([1.0] * 3)
    assert [second.at for second in watched.history.seconds] == [1_000_001, 1_000_002, 1_000_003, 1_000_004]
