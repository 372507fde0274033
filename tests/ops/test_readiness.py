"""Readiness: what is asked, how often, and what is said when nobody answers."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from apigw.ops.readiness import FRESH_FOR, Check, Readiness, Report


class Asked:
    """A check that answers when it is told to, and counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0
        self.cancelled = 0
        self._waiting: list[Deferred[object]] = []

    def __call__(self) -> Deferred[object]:
        self.times += 1
        waiting: Deferred[object] = Deferred(lambda _: self._cancel())
        self._waiting.append(waiting)
        return waiting

    def _cancel(self) -> None:
        self.cancelled += 1

    def answer(self, error: Exception | None = None) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if error is None:
                one.callback(None)
            else:
                one.errback(error)


def readiness(**checks: Check) -> tuple[Readiness, Clock]:
    clock = Clock()
    made = Readiness(clock)
    made.checks = checks
    return made, clock


def told(readiness: Readiness) -> list[Report]:
    """Fills when the report is there."""
    reports: list[Report] = []
    readiness.report().addCallback(reports.append)
    return reports


def test_nothing_to_check_is_ready() -> None:
    """A gateway without critical services never gets a request."""
    made, _ = readiness()
    (report,) = told(made)
    assert report.ready


def test_each_check_is_named() -> None:
    """An operator sees that something is wrong, but not what."""
    made, _ = readiness(
        good=lambda: succeed(None), bad=lambda: fail(ValueError("is down")), odd=lambda: fail(KeyError())
    )
    (report,) = told(made)
    assert not report.ready
    assert report.passed == ("good",)
    assert report.failed == {"bad": "is down", "odd": "KeyError"}


def test_a_check_that_raises_has_failed() -> None:
    """A mistake in one check hides the others."""

    def broken() -> Deferred[object]:
        raise RuntimeError("broken")

    made, _ = readiness(broken=broken, good=lambda: succeed(None))
    (report,) = told(made)
    assert (report.passed, report.failed) == (("good",), {"broken": "broken"})


def test_checks_run_side_by_side() -> None:
    """Ten slow services take ten times as long as one."""
    one, other = Asked(), Asked()
    made, _ = readiness(one=one, other=other)
    reports = told(made)
    assert (one.times, other.times) == (1, 1)
    other.answer()
    assert reports == []
    one.answer()
    assert reports[0].passed == ("one", "other")


def test_many_who_ask_are_one_question() -> None:
    """Load balancers that ask often load the services."""
    check = Asked()
    made, clock = readiness(only=check)
    several = [told(made) for _ in range(5)]
    check.answer()
    assert check.times == 1
    assert all(reports[0].ready for reports in several)
    clock.advance(FRESH_FOR - 0.01)
    assert told(made)[0].ready
    assert check.times == 1
    clock.advance(0.01)
    late = told(made)
    assert (check.times, late) == (2, [])
    check.answer(ValueError("is down"))
    assert late[0].failed == {"only": "is down"}


def test_a_check_without_end_is_given_up() -> None:
    """One service that hangs makes the answer hang."""
    hanging = Asked()
    made, clock = readiness(hanging=hanging, good=lambda: succeed(None))
    reports = told(made)
    clock.advance(10)
    assert hanging.cancelled == 1
    assert reports[0].failed == {"hanging": "no answer in 10 s"}
    assert clock.getDelayedCalls() == []


def test_new_checks_make_old_answers_void() -> None:
    """After a reload the gateway still reports the services of before."""
    old, new = Asked(), Asked()
    made, _ = readiness(old=old)
    reports = told(made)
    made.checks = {"new": new}
    made.forget()
    old.answer(ValueError("is down"))
    assert reports[0].failed == {"old": "is down"}  # who had asked before is told what was found
    reports = told(made)
    new.answer()
    assert reports[0].passed == ("new",)
    made.forget()
    told(made)
    assert new.times == 2


def test_a_drain_is_not_ready_and_asks_nobody() -> None:
    """A gateway that shuts down still gets requests."""
    check = Asked()
    made, _ = readiness(only=check)
    made.draining = True
    (report,) = told(made)
    assert not report.ready
    assert check.times == 0
