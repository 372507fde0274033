"""An exchange's way through the stages, and each of its endings: told once, answered once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from apigw import errors
from apigw.policy.limits.limits import MemoryStore
from apigw.proxy.held_body import Buffers
from apigw.proxy.pipeline import Exchange, Gateway, _strip, refused
from apigw.proxy.stages import Stage
from apigw.wire.date import Dates
from apigw.wire.deadlines import Deadlines
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.request import Request


class Stream:
    """The client's side of an exchange: keeps what is sent, and complains of what is out of order."""

    peer = b"192.0.2.1"
    secure = False
    dates = Dates(lambda: 0.0)

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.body = b""
        self.ended = self.aborted = False

    def start_response(self, request: Request, status: int, reason: bytes, headers: Headers) -> None:
        assert not self.status
        self.status, self.headers = status, headers

    def send(self, data: bytes) -> None:
        assert self.status
        assert not self.ended
        self.body += data

    def flush(self) -> None: ...

    def end_response(self, request: Request) -> None:
        assert not self.ended
        assert not self.aborted
        self.ended = True

    def abort(self) -> None:
        assert not self.ended
        self.aborted = True


class Scene:
    """A gateway whose stages are the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *stages: Stage) -> None:
        monkeypatch.setattr("apigw.proxy.pipeline.STAGES", stages)
        self.accounted: list[Exchange] = []
        nothing: Any = None
        clock = Clock()
        self.gateway = Gateway(nothing, Deadlines(clock), MemoryStore(clock), self.accounted.append, Buffers(0))
        self.stream = Stream()

    def ask(self, path: bytes = b"/a", method: bytes = b"GET") -> Request:
        stream: Any = self.stream
        headers = [(b"x-request-id", b"mine")]
        request = Request(stream, method, path, path, b"", b"x", headers, b"HTTP/1.1", 0)
        request.body_complete = True
        self.gateway.render(request)
        return request


Make = Callable[..., Scene]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda *stages: Scene(monkeypatch, *stages)


def answer(exchange: Exchange) -> None:
    exchange.respond(200, [(b"content-length", b"2")], b"ok")


def refuse(exchange: Exchange) -> None:
    raise errors.NotFound("Nothing here.", [(b"x-why", b"because")])


def test_stages_are_walked_at_once_where_nothing_waits(scene: Make) -> None:
    """A request waits for a turn of the reactor at every stage."""
    walked: list[int] = []
    stages = [lambda _, number=number: walked.append(number) for number in range(3)]
    made = scene(*stages, answer)
    made.ask()
    assert walked == [0, 1, 2]
    assert (made.stream.status, made.stream.body, made.stream.ended) == (200, b"ok", True)
    assert (b"x-request-id", b"mine") in made.stream.headers
    assert (len(made.accounted), made.gateway.in_flight) == (1, 0)


def test_a_stage_that_waits_holds_up_the_rest(scene: Make) -> None:
    """A request is forwarded before it is known who sent it."""
    waiting: Deferred[None] = Deferred()
    walked: list[str] = []
    made = scene(lambda _: waiting, lambda _: walked.append("after"), lambda _: succeed(None), answer)
    made.ask()
    assert (walked, made.stream.status, made.gateway.in_flight) == ([], 0, 1)
    waiting.callback(None)
    assert (walked, made.stream.status, made.gateway.in_flight) == (["after"], 200, 0)


def test_a_refusal_ends_the_walk(scene: Make) -> None:
    """A refused request is forwarded all the same, or counted twice."""
    made = scene(refuse, answer)
    made.ask()
    assert made.stream.status == 404
    assert (b"x-why", b"because") in made.stream.headers
    document = json.loads(made.stream.body)
    assert (document["code"], document["request_id"], document["detail"]) == ("not_found", "mine", "Nothing here.")
    (exchange,) = made.accounted
    assert (exchange.status, exchange.refusal and exchange.refusal.code) == (404, "not_found")


def test_a_stage_that_answers_ends_the_walk(scene: Make) -> None:
    """A preflight is answered, and forwarded too."""
    made = scene(answer, refuse)
    made.ask()
    assert made.stream.status == 200


def test_a_refusal_may_come_late(scene: Make) -> None:
    """A token that turns out to be bad leaves the request hanging."""
    waiting: Deferred[None] = Deferred()
    made = scene(lambda _: waiting, answer)
    made.ask()
    waiting.errback(errors.Unauthorized("No."))
    assert (made.stream.status, len(made.accounted)) == (401, 1)


@pytest.mark.parametrize("late", [False, True])
def test_a_mistake_of_ours_is_a_500_that_says_nothing(scene: Make, late: bool) -> None:
    """A user is shown a traceback, or nothing at all; or nobody learns of it."""
    waiting: Deferred[None] = Deferred()

    def broken(exchange: Exchange) -> Deferred[None] | None:
        if late:
            return waiting
        raise RuntimeError("secret detail")

    logged: list[Any] = []
    observe: Any = logged.append
    globalLogPublisher.addObserver(observe)
    try:
        made = scene(broken, answer)
        made.ask()
        if late:
            waiting.errback(RuntimeError("secret detail"))
    finally:
        globalLogPublisher.removeObserver(observe)
    assert made.stream.status == 500
    assert json.loads(made.stream.body)["code"] == "internal_error"
    assert b"secret" not in made.stream.body
    assert "secret detail" in str([event["log_failure"].value for event in logged if "log_failure" in event])
    assert (len(made.accounted), made.gateway.in_flight) == (1, 0)


def test_a_client_that_leaves_is_waited_for_no_more(scene: Make) -> None:
    """Work goes on for a client that has gone, and is never accounted for."""
    cancelled: list[bool] = []
    waiting: Deferred[None] = Deferred(lambda _: cancelled.append(True))
    made = scene(lambda _: waiting, answer)
    request = made.ask()
    request.client_failed(ClientLost())
    assert cancelled == [True]
    assert (made.stream.status, made.gateway.in_flight) == (0, 0)
    (exchange,) = made.accounted
    assert exchange.status == 499
    request.client_failed(ClientLost())
    assert len(made.accounted) == 1


def test_what_the_wire_refuses_is_answered(scene: Make) -> None:
    """A client whose body is late waits for an answer that never comes."""
    waiting: Deferred[None] = Deferred(lambda _: None)
    made = scene(lambda _: waiting, answer)
    made.ask().client_failed(Refused(408, "Too slow."))
    assert made.stream.status == 408
    assert json.loads(made.stream.body)["code"] == "client_timeout"
    assert (len(made.accounted), made.gateway.in_flight) == (1, 0)


def test_after_an_answer_has_begun_there_is_no_other(scene: Make) -> None:
    """The end of one answer is a second one in its body."""

    def begin(exchange: Exchange) -> Deferred[None]:
        exchange.request.start(200, [])
        exchange.request.write(b"half")
        return waiting

    waiting: Deferred[None] = Deferred(lambda _: None)
    made = scene(begin)
    made.ask()
    waiting.errback(errors.UpstreamTimeout("Too late."))
    assert (made.stream.status, made.stream.body, made.stream.aborted) == (200, b"half", True)
    (exchange,) = made.accounted
    assert exchange.status in (0, 200)


def test_a_head_gets_no_body(scene: Make) -> None:
    """The body of an error spoils the next answer on the connection."""
    made = scene(refuse)
    made.ask(method=b"HEAD")
    assert (made.stream.status, made.stream.body) == (404, b"")
    assert int(dict(made.stream.headers)[b"content-length"]) > 0


@pytest.mark.parametrize(
    ("path", "segments", "rest"),
    [
        (b"/api/v1/users", 2, b"/users"),
        (b"/api/v1/users/", 2, b"/users/"),
        (b"/api/v1", 2, b"/"),
        (b"/api/v1/", 2, b"/"),
        (b"/api/users", 1, b"/users"),
        (b"/%61pi/a%20b", 1, b"/a%20b"),
    ],
)
def test_prefixes_are_cut_by_raw_segments(path: bytes, segments: int, rest: bytes) -> None:
    """A service gets a path that is not the rest of what was sent."""
    stream: Any = None
    request = Request(stream, b"GET", path + b"?a=/b", path, b"?a=/b", b"x", [], b"HTTP/1.1", 0)
    assert _strip(request, segments) == rest + b"?a=/b"


@pytest.mark.parametrize("status", [400, 405, 408, 413, 414, 431, 501])
def test_refusals_of_the_wire_keep_their_status(status: int) -> None:
    """A client is told the wrong reason."""
    error = refused(Refused(status, "Because."))
    assert (error.status, error.detail) == (status, "Because.")
