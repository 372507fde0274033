"""What the master answers for workers that are gone, or do not answer."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from apigw.contract.machine import GONE
from apigw.ops.metrics import Metrics
from apigw.ops.totals import packed, page
from apigw.process.outlived import MOST_KEPT, ROUTES, TELLS_EVERY, Outlived, Tells


def said(index: int, requests: int) -> list[Any]:
    """The answer of a worker that has served so many."""
    metrics = Metrics(CollectorRegistry(), "1.2.3")
    for _ in range(requests):
        metrics.route("/a").observe(b"GET", 200, 0.1)
    metrics.route("/a")
    return [index, 1000 + index, packed(metrics, index, lambda: None)]


def shown(answers: list[list[Any]]) -> dict[str, float]:
    """Requests of all, and starts and deaths of worker 1."""
    living = [value for index, _, value in answers if index >= 0]
    dead = [value for index, _, value in answers if index < 0]
    text = page(living, dead, False, lambda: None)[1].decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        "requests": sum(each.value for each in samples if each.name == "gateway_requests_total"),
        "starts": sum(
            each.value
            for each in samples
            if each.name == "gateway_worker_starts_total" and each.labels["worker"] == "1"
        ),
        "deaths": sum(
            each.value
            for each in samples
            if each.name == "gateway_worker_deaths_total" and each.labels["worker"] == "1"
        ),
    }


def test_nobody_is_answered_for_while_all_live() -> None:
    """The answers are those of the workers."""
    answers = [said(0, 1), said(1, 2)]
    assert Outlived().heard("metrics", answers) == answers


def test_what_a_dead_worker_counted_stays() -> None:
    """From the moment of its death, and when its successor has died too."""
    outlived = Outlived()
    outlived.heard("metrics", [said(0, 1), said(1, 5)])
    outlived.left(1)
    assert shown(outlived.heard("metrics", [said(0, 1)])) == {"requests": 6, "starts": 1, "deaths": 1}
    assert shown(outlived.heard("metrics", [said(0, 1), said(1, 2)])) == {"requests": 8, "starts": 2, "deaths": 1}
    outlived.last_word(1, said(1, 3)[2])
    outlived.left(1)
    assert shown(outlived.heard("metrics", [said(0, 1)])) == {"requests": 9, "starts": 2, "deaths": 1}, (
        "it has not died"
    )


def test_one_that_does_not_answer_in_time_is_answered_for() -> None:
    """With what it said last, and only until it answers again."""
    outlived = Outlived()
    outlived.heard("metrics", [said(0, 1), said(1, 5)])
    assert shown(outlived.heard("metrics", [said(0, 1)])) == {"requests": 6, "starts": 1, "deaths": 0}
    assert shown(outlived.heard("metrics", [said(0, 1), said(1, 6)])) == {"requests": 7, "starts": 1, "deaths": 0}


def test_deaths_are_counted_while_nobody_asks() -> None:
    """However many, in bounded memory."""
    outlived = Outlived()
    for _ in range(2 * MOST_KEPT):
        outlived.left(1)
    assert len(outlived._gone) <= MOST_KEPT
    found = shown(outlived.heard("metrics", [said(0, 0)]))
    assert found == {"requests": 0, "starts": 2 * MOST_KEPT, "deaths": 2 * MOST_KEPT}


def test_other_questions_are_none_of_its_business() -> None:
    """Nobody is answered for who is asked something else."""
    outlived = Outlived()
    outlived.left(1)
    assert outlived.heard("status", [[0, 1000, {}]]) == [[0, 1000, {}]]
    assert [answer[0] for answer in outlived.heard("metrics", [said(0, 1)])] == [0, GONE]


def test_who_asks_hears_what_those_counted_that_are_gone() -> None:
    """For his question: of those that died, and of those that do not answer in time."""
    outlived = Outlived()
    assert outlived.heard("limits", [[0, 1000, {}]]) == [[0, 1000, {}]]
    for index, refused in enumerate((1, 2, 4)):
        counts = {"limits": {"a": refused, "b": 8}, "other": {"a": 16}}
        outlived.said(index, packed(Metrics(CollectorRegistry(), "1.2.3"), index, lambda: None, counts))
    outlived.left(1)
    answers: list[list[Any]] = [[0, 1000, {}], [2, 1002, None]]
    expected = [*answers, [GONE, 0, {"a": 6, "b": 16}]]
    assert outlived.heard("limits", answers) == expected
    outlived.add_up()
    assert outlived.heard("limits", answers) == expected


def test_a_word_that_cannot_be_read_is_dropped() -> None:
    """A worker that has gone mad harms nobody else's numbers."""
    outlived = Outlived()
    outlived.heard("metrics", [said(0, 1), said(1, 5)])
    outlived.last_word(1, "no metrics")
    outlived.left(1)
    assert shown(outlived.heard("metrics", [said(0, 1)]))["requests"] == 1


def test_what_a_worker_has_told_stays_though_nobody_asked() -> None:
    """Up to its death."""
    outlived = Outlived()
    outlived.said(1, said(1, 5)[2])
    outlived.left(1)
    assert shown(outlived.heard("metrics", [said(0, 1)])) == {"requests": 6, "starts": 1, "deaths": 1}


def test_one_that_gives_no_answer_is_answered_for() -> None:
    outlived = Outlived()
    outlived.said(1, said(1, 5)[2])
    assert shown(outlived.heard("metrics", [said(0, 1), [1, 1001, None]]))["requests"] == 6


class Telling:
    """A worker with so many routes, whose master hears what it tells when the test says so."""

    def __init__(self, routes: int) -> None:
        self.clock = Clock()
        self.told: list[Deferred[None]] = []
        self.tells = Tells(self.clock, lambda: succeed("metrics"), self._tell, lambda: routes)
        self.tells.startService()

    def _tell(self, said: str) -> Deferred[None]:
        self.told.append(Deferred())
        return self.told[-1]


def test_a_worker_tells_now_and_then_what_it_has_counted() -> None:
    """But not again before it was heard, nor after its end."""
    telling = Telling(10)
    telling.clock.pump([TELLS_EVERY] * 3)
    assert len(telling.told) == 1
    telling.told[0].callback(None)
    telling.clock.advance(TELLS_EVERY)
    assert len(telling.told) == 2
    telling.tells.stopService()
    telling.told[1].callback(None)
    assert telling.clock.getDelayedCalls() == []


def test_with_many_routes_it_tells_less_often() -> None:
    telling = Telling(10 * ROUTES)
    telling.clock.pump([1.0] * 9)
    assert telling.told == []
    telling.clock.advance(1.0)
    assert len(telling.told) == 1
