"""Asking a checker: how often, for how long, and what is remembered. The clock is the test's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.logged import logged
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers as HeadersObject

from apigw.errors import AuthUnavailable, RateLimited
from apigw.policy.check.checker import AT_A_TIME, CLIENTS, EACH, FAILURES, REMEMBERED, Checker
from apigw.policy.check.model import Check
from apigw.policy.check.series import CheckSeries
from apigw.policy.check.verdict import Verdict
from apigw.wire.errors import UpstreamLost, UpstreamMalformed
from apigw.wire.fetch import Answered, FetchFailed

PASS = Answered(200, [(b"x-tenant", b"acme"), (b"date", b"today")], b"")


class Program:
    """The checker's program: ``calls`` are the questions that are not answered, each with its Deferred."""

    def __init__(self, **keys: Any) -> None:
        self.clock: Any = Clock()
        self.registry = CollectorRegistry()
        self.calls: list[tuple[HeadersObject, Deferred[Answered]]] = []
        self.cancelled = 0
        self.series = CheckSeries(self.registry)
        self.checker = self.made(**keys)

    def made(self, **keys: Any) -> Checker:
        check = Check("opa", "http://opa.internal/check", take=("X-Tenant",), **keys)
        ask: Any = self.ask
        return Checker(check, ask, self.clock, self.series)

    async def ask(self, url: str, headers: HeadersObject) -> Answered:
        assert url == "http://opa.internal/check"
        answer: Deferred[Answered] = Deferred(self._cancel)
        self.calls.append((headers, answer))
        return await answer

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    def answer(self, with_: Answered | Exception = PASS) -> None:
        _, answer = self.calls.pop(0)
        if isinstance(with_, Exception):
            answer.errback(with_)
        else:
            answer.callback(with_)

    def check(self, uri: bytes = b"/a", before: Callable[[], object] = lambda: None, caller: bytes = b"") -> Any:
        """The verdict, an error, or the Deferred of either."""
        try:
            found = self.checker.verdict([(b"x-forwarded-uri", uri)], before, caller)
        except AuthUnavailable as error:
            return error
        if isinstance(found, Verdict):
            return found
        outcome: list[Any] = []
        found.addBoth(lambda result: outcome.append(result.value if isinstance(result, Failure) else result))
        return outcome[0] if outcome else (found, outcome)

    def counted(self, result: str) -> float:
        return self.registry.get_sample_value("gateway_checks_total", {"check": "opa", "result": result}) or 0.0


def test_a_pass() -> None:
    """A pass gives what is to be taken, and nothing else; without a cache each request is asked for."""
    program = Program()
    for _ in range(2):
        _, outcome = program.check()
        program.answer()
        assert [outcome[0].taken, outcome[0].status] == [[(b"x-tenant", b"acme")], 0]
    assert program.counted("passed") == 2


@pytest.mark.parametrize(
    "answer",
    [
        *(Answered(status, [], b"") for status in (100, 199, 304, 400, 402, 404, 407, 429, 500, 503, 600)),
        FetchFailed("is larger than 65536 bytes"),
        ConnectionRefusedError(),
    ],
    ids=lambda answer: str(answer.status) if isinstance(answer, Answered) else type(answer).__name__,
)
def test_no_verdict(answer: Answered | Exception) -> None:
    """Whatever is neither a pass nor a refusal is 503, and says nothing of the checker."""
    program = Program()
    _, outcome = program.check()
    program.answer(answer)
    assert isinstance(outcome[0], AuthUnavailable) and outcome[0].headers == [(b"retry-after", b"1")]
    assert "opa" not in outcome[0].detail and program.counted("failed") == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399, 401, 403])
def test_a_refusal(status: int) -> None:
    """A refusal comes with its body and its fields, but for those of the connection and of the message."""
    program = Program(cache=60.0)
    fields = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"location", b"/login"), (b"server", b"x")]
    for _ in range(2):
        _, outcome = program.check()
        program.answer(Answered(status, [*fields, (b"content-length", b"2"), (b"connection", b"close")], b"no"))
        verdict = outcome[0]
        assert [verdict.status, verdict.headers, verdict.body] == [status, fields[:3], b"no"]
    assert program.counted("refused") == 2  # it is not remembered


def test_one_that_hangs() -> None:
    """It has its time, for the whole answer, and is given up then."""
    program = Program(timeout=0.5)
    _, outcome = program.check()
    program.clock.advance(0.49)
    assert not outcome
    program.clock.advance(0.02)
    assert isinstance(outcome[0], AuthUnavailable) and program.cancelled == 1


def test_a_client_that_leaves() -> None:
    """The question is given up, and is no failure of the checker's."""
    program = Program()
    for _ in range(FAILURES + 1):
        asking, outcome = program.check()
        asking.cancel()
        assert not isinstance(outcome[0], AuthUnavailable)
    assert program.cancelled == FAILURES + 1 and not program.counted("failed")


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_client_that_leaves_while_the_checker_is_left_alone(seconds: float) -> None:
    """Its question is the only one for a second, and is answered for all others."""
    program = Program(cache=seconds)
    for _ in range(FAILURES):
        program.check()
        program.answer(ConnectionRefusedError())
    program.clock.advance(1.0)
    asking, outcome = program.check()
    asking.cancel()
    assert outcome and not program.cancelled
    assert isinstance(program.check(b"/b"), AuthUnavailable)
    program.answer()
    assert isinstance(program.check(b"/b"), tuple)


def test_requests_do_not_pile_up() -> None:
    """So many wait at a time; one more is 503 at once, until one of them is answered."""
    program = Program()
    for number in range(AT_A_TIME):
        program.check(caller=b"192.0.2.%d" % (number % 4))
    other = b"192.0.2.4"
    assert isinstance(program.check(caller=other), AuthUnavailable) and len(program.calls) == AT_A_TIME
    program.answer()
    assert isinstance(program.check(caller=other), tuple)


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_one_client_leaves_room_for_others(seconds: float) -> None:
    """Of one address, of IPv6 a /64, fewer wait than may wait in all."""
    program = Program(cache=seconds)
    for number in range(EACH):
        program.check(b"/%d" % number, caller=b"2001:db8::%x" % number)
    assert isinstance(program.check(caller=b"2001:db8::ffff"), AuthUnavailable)
    assert isinstance(program.check(caller=b"2001:db8:0:1::1"), tuple)
    program.answer()
    assert isinstance(program.check(caller=b"2001:db8::ffff"), tuple)


@pytest.mark.parametrize(
    "answer",
    [
        Answered(431, [], b""),
        Answered(500, [], b""),
        FetchFailed("is larger than 65536 bytes"),
        UpstreamLost("it closed the connection"),
        UpstreamMalformed("it is no answer"),
    ],
)
def test_a_question_at_which_it_fails(answer: Answered | Exception) -> None:
    """What is no verdict is 503 for that request; the checker is there, and is asked for all others."""
    program = Program()
    for _ in range(FAILURES + 1):
        _, outcome = program.check()
        program.answer(answer)
        assert isinstance(outcome[0], AuthUnavailable)
    assert isinstance(program.check(), tuple) and program.counted("failed") == FAILURES + 1


@pytest.mark.parametrize(("clients", "left_alone"), [(CLIENTS - 1, False), (CLIENTS, True)])
def test_questions_that_take_it_long(clients: int, left_alone: bool) -> None:
    """Of a few clients they keep nobody else from being asked about; of more the checker is taken to be gone."""
    program = Program(timeout=1.0)
    for number in range(FAILURES + CLIENTS):
        program.check(caller=b"192.0.2.%d" % (number % clients))
        program.clock.advance(1.0)
    program.calls.clear()
    for _ in range(3):
        program.check(caller=b"198.51.100.1")
    assert len(program.calls) == (1 if left_alone else 3)


def test_one_that_waits_has_another_leave() -> None:
    """What the first does with the verdict can end the second; the third gets it all the same."""
    program = Program(cache=60.0)
    waiting: list[Deferred[Verdict]] = []
    for _ in range(3):
        found = program.checker.verdict([(b"x-forwarded-uri", b"/a")], lambda: None)
        assert isinstance(found, Deferred)
        waiting.append(found)
    waiting[1].addErrback(lambda _: None)
    waiting[0].addCallback(lambda _: waiting[1].cancel())
    program.answer()
    assert isinstance(waiting[2].result, Verdict) and waiting[0].result is None


def test_one_that_is_gone_is_left_alone() -> None:
    """After some failures in a row it is asked once a second; the first answer ends that, also a refusal."""
    program = Program()
    for _ in range(FAILURES):
        program.check()
        program.answer(ConnectionRefusedError())
    assert isinstance(program.check(), AuthUnavailable) and not program.calls
    for _ in range(3):
        program.clock.advance(1.0)
        assert isinstance(program.check(), tuple) and isinstance(program.check(), AuthUnavailable)
        program.answer(ConnectionRefusedError())
    program.clock.advance(1.0)
    program.check()
    program.answer(Answered(403, [], b""))
    assert isinstance(program.check(), tuple) and isinstance(program.check(), tuple)


def test_a_pass_is_remembered() -> None:
    """For its time, for the same question, and no other."""
    program = Program(cache=60.0)
    program.check(b"/a")
    program.answer()
    assert program.check(b"/a").taken == [(b"x-tenant", b"acme")] and not program.calls
    assert isinstance(program.check(b"/b"), tuple)
    program.clock.advance(60.0)
    assert isinstance(program.check(b"/a"), tuple) and program.counted("remembered") == 1


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_fields_do_not_run_into_each_other(seconds: float) -> None:
    """Two questions that differ in what belongs to which field are two."""
    program = Program(cache=seconds)
    one, other = [(b"cookie", b"a"), (b"x", b"b")], [(b"cookie", b"a1:x1:b")]
    for asked in (one, other):
        assert isinstance(program.checker.verdict(asked, lambda: None), Deferred)
    assert len(program.calls) == 2


def test_the_same_question_at_the_same_time() -> None:
    """With a cache it is asked once for all, as long as one of them waits, and each gets its own answer."""
    program = Program(cache=60.0)
    waiting = [program.check() for _ in range(3)]
    assert len(program.calls) == 1
    waiting[0][0].cancel()
    program.answer(ConnectionRefusedError())
    errors = [outcome[0] for _, outcome in waiting[1:]]
    assert all(isinstance(error, AuthUnavailable) for error in errors) and errors[0] is not errors[1]
    (one, _), (other, _) = program.check(), program.check()
    one.cancel()
    assert program.cancelled == 0
    other.cancel()
    assert program.cancelled == 1
    program.calls.clear()
    assert isinstance(program.check(), tuple) and len(program.calls) == 1


def test_memory_is_bounded() -> None:
    """So many passes are remembered, the longest unused leave; those with much to take are not."""
    program = Program(cache=60.0)
    for number in range(REMEMBERED + 1):
        program.check(b"%d" % number)
        program.answer()
    assert isinstance(program.check(b"0"), tuple)
    program.calls.clear()
    assert isinstance(program.check(b"2"), Verdict)
    program.check(b"long")
    program.answer(Answered(200, [(b"x-tenant", b"x" * 1017)], b""))
    assert isinstance(program.check(b"long"), tuple)


def test_over_a_reload() -> None:
    """What was remembered of the same check goes on to hold."""
    program = Program(cache=60.0)
    program.check()
    program.answer()
    before, program.checker = program.checker, program.made(cache=60.0)
    program.checker.take_over(before)
    assert isinstance(program.check(), Verdict)


def test_who_is_limited_asks_nothing() -> None:
    """A caller who would be refused anyway costs the checker nothing; what is remembered costs nobody anything."""

    def limited() -> None:
        raise RateLimited("")

    program = Program(cache=60.0)
    with pytest.raises(RateLimited):
        program.check(before=limited)
    assert not program.calls
    program.check()
    program.answer()
    assert isinstance(program.check(before=limited), Verdict)


def test_series_are_those_of_the_configuration() -> None:
    """They begin with zero, and go with their check."""
    program = Program()
    program.series.retain({"opa", "other"})
    assert program.registry.get_sample_value("gateway_checks_total", {"check": "other", "result": "failed"}) == 0
    program.series.retain({"opa"})
    assert program.registry.get_sample_value("gateway_checks_total", {"check": "other", "result": "failed"}) is None


def test_the_log_does_not_grow_with_questions() -> None:
    """A program that fails at one question, and answers the next, is told of every ten seconds: clients choose the
    questions."""
    program = Program()
    with logged() as events:
        for number in range(20):
            for answer in (FetchFailed("is larger than 65536 bytes"), PASS):
                program.check(b"/%d" % number)
                program.answer(answer)
            program.clock.advance(1)
    assert [formatEvent(event) for event in events] == ["check opa: no verdict: is larger than 65536 bytes"] * 2
