"""An exchange's way through the stages, and each of its endings: told once, answered once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.logged import failures, logged
from twisted.internet.defer import Deferred, succeed

from apigw import errors
from apigw.contract.awaited import wait_for
from apigw.contract.choice import Choice
from apigw.contract.exchange import (
    Answer,
    AtEnd,
    Exchange,
    Head,
    Hook,
    OnRefusal,
    Outcome,
    Route,
    Stage,
    Waiting,
)
from apigw.contract.peers import Peers
from apigw.ops.metrics import Metrics
from apigw.proxy.forward import ChooseService
from apigw.proxy.pipeline import Pipeline, Table
from apigw.proxy.refusals import refused
from apigw.routing.router import Router
from apigw.routing.trie import Entry
from apigw.wire.errors import ClientLost, Refused
from apigw.wire.headers import Headers
from apigw.wire.request import Request, Stream


class Client(Stream):
    """The client's side of an exchange: keeps what is sent, and complains of what is out of order."""

    def __init__(self) -> None:
        super().__init__(b"192.0.2.1", False)
        self.status = 0
        self.headers: Headers = []
        self.body = b""
        self.ended = self.aborted = False

    def start_response(self, request: Request, status: int, reason: bytes, headers: Headers) -> None:
        assert not self.status
        self.status, self.headers = status, headers

    def respond(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None:
        self.start_response(request, status, reason, headers)
        if request.method != b"HEAD":
            self.send(body)
        self.end_response(request)

    def send(self, data: bytes) -> None:
        assert self.status
        assert not self.ended
        self.body += data

    def flush(self) -> None: ...

    def end_response(self, request: Request, trailers: Headers | None = None) -> None:
        assert not self.ended
        assert not self.aborted
        self.ended = True

    def abort(self, code: int = 2) -> None:
        assert not self.ended
        self.aborted = True


class Do(Stage):
    """A stage that is a function of the test's."""

    def __init__(self, run: Callable[[Exchange], Outcome]) -> None:
        self._run = run

    def run(self, exchange: Exchange) -> Outcome:
        return self._run(exchange)


class Scene:
    """A pipeline with one route, whose stages are the test's."""

    def __init__(self, *stages: Callable[[Exchange], Any], on_refusal: tuple[OnRefusal, ...] = ()) -> None:
        self.accounted: list[Exchange] = []
        self.resources: list[Request] = []
        series = Metrics(CollectorRegistry(), "0").route("/a")
        self.route = Route("/a", None, None, series, tuple(map(Do, stages)), (), on_refusal)
        table = self.table(100)
        self.shed: list[str] = []
        self.pipeline = Pipeline(table, lambda: 0.0, self.accounted.append, self.resources.append, self.shed.append)
        self.stream = Client()

    def table(self, most: int) -> Table:
        return Table(Router([Entry("/a", None, self.route)]), None, self.route, Peers(), most, False)

    def ask(self, path: bytes = b"/a", method: bytes = b"GET") -> Request:
        stream = self.stream
        headers = [(b"x-request-id", b"mine")]
        request = Request(stream, method, path, path, b"", b"x", headers, b"HTTP/1.1", 0)
        request.body_complete = True
        self.pipeline.on_request(request)
        return request


def answer(exchange: Exchange) -> Outcome:
    return Answer(200, [(b"content-length", b"2")], b"ok")


def refuse(exchange: Exchange) -> Outcome:
    raise errors.NotFound("Nothing here.", [(b"x-why", b"because")])


def until(waiting: Deferred[Any]) -> Callable[[Exchange], Outcome]:
    return lambda exchange: wait_for(exchange, waiting)


def test_stages_are_walked_at_once_where_nothing_waits() -> None:
    """Stages run in order, in one turn, until one answers."""
    walked: list[int] = []
    stages = [lambda _, number=number: walked.append(number) for number in range(3)]
    made = Scene(*stages, answer, refuse)
    made.ask()
    assert walked == [0, 1, 2]
    assert (made.stream.status, made.stream.body, made.stream.ended) == (200, b"ok", True)
    assert (b"x-request-id", b"mine") in made.stream.headers
    assert (len(made.accounted), made.pipeline.in_flight) == (1, 0)


class Note(Stage):
    def __init__(self, walked: list[str], name: str) -> None:
        self._walked, self._name = walked, name

    def run(self, exchange: Exchange) -> Outcome:
        self._walked.append(self._name)
        return None


class Either(Choice):
    def choose(self, exchange: Exchange) -> int:
        return 1


@pytest.mark.parametrize("waits", [False, True])
def test_the_last_stage_may_choose_the_rest(waits: bool) -> None:
    """The walk goes on with the stages of the route that was chosen, also after a wait; those before run once."""
    walked: list[str] = []
    waiting: Deferred[None] = Deferred()
    before = until(waiting) if waits else lambda _: None
    made = Scene(lambda _: walked.append("first"), before)
    choose = ChooseService(Either(("a", "b")))
    common = (*made.route.stages, choose)
    made.route.stages = common
    routes = []
    for name in ("a", "b"):
        routes.append(Route("/a", None, name, made.route.series, (*common, Note(walked, name), Do(answer))))
    choose.routes = tuple(routes)
    made.ask()
    if waits:
        waiting.callback(None)
    assert walked == ["first", "b"]
    assert (made.stream.status, len(made.accounted), made.accounted[0].route) == (200, 1, routes[1])


def test_so_many_exchanges_at_a_time() -> None:
    """One more is 503 at once, without a stage having run; when one ends there is room again."""
    waiting: Deferred[None] = Deferred()
    walked: list[str] = []
    made = Scene(lambda _: walked.append("first"), until(waiting), answer)
    made.pipeline.use(made.table(2))
    for _ in range(3):
        made.stream = Client()
        made.ask()
    assert (made.stream.status, len(walked), made.pipeline.in_flight) == (503, 2, 2)
    assert (b"retry-after", b"1") in made.stream.headers
    assert [exchange.refusal.code for exchange in made.accounted if exchange.refusal] == ["overloaded"]
    assert made.shed == ["full"]
    waiting.callback(None)
    assert (len(made.accounted), made.pipeline.in_flight) == (3, 0)
    made.stream = Client()
    made.ask()
    assert made.stream.status == 200


def test_a_late_gateway_takes_no_new_exchange() -> None:
    """Each is 503 at once, without a stage having run, also after a reload; what has begun ends, and health is told."""
    waiting: Deferred[None] = Deferred()
    walked: list[str] = []
    made = Scene(lambda _: walked.append("first"), until(waiting), answer)
    made.pipeline.reserved = frozenset([b"/health"])
    begun = made.stream
    made.ask()
    made.pipeline.late(True)
    for _ in range(2):
        made.stream = Client()
        made.ask()
        assert (made.stream.status, walked, made.shed.pop()) == (503, ["first"], "late")
        assert (b"retry-after", b"1") in made.stream.headers
        made.pipeline.use(made.table(100))
    made.ask(b"/health")
    assert len(made.resources) == 1
    waiting.callback(None)
    assert begun.status == 200
    made.pipeline.late(False)
    made.stream = Client()
    made.ask()
    assert (made.stream.status, made.shed, made.pipeline.in_flight) == (200, [], 0)


class Count(AtEnd):
    def __init__(self) -> None:
        self.runs = 0

    def run(self, exchange: Exchange) -> None:
        self.runs += 1


@pytest.mark.parametrize("end", ["answer", "refuse", "fail", "leave"])
def test_what_is_told_of_the_end(end: str) -> None:
    """A stage that took something gives it back once, however the exchange ends."""
    count = Count()
    waiting: Deferred[None] = Deferred()

    def take(exchange: Exchange) -> Outcome:
        exchange.at_end = (*exchange.at_end, count)
        return None

    def fail(exchange: Exchange) -> Outcome:
        raise RuntimeError("a bug")

    after: dict[str, Callable[[Exchange], Outcome]] = {"answer": answer, "refuse": refuse, "fail": fail}
    made = Scene(take, after.get(end, until(waiting)))
    request = made.ask()
    if end == "leave":
        assert count.runs == 0
        request.client_failed(ClientLost())
    assert count.runs == 1


def test_a_stage_that_waits_holds_up_the_rest() -> None:
    """What comes after a stage runs when what it waited for is there."""
    waiting: Deferred[None] = Deferred()
    walked: list[str] = []
    made = Scene(until(waiting), lambda _: walked.append("after"), until(succeed(None)), answer)
    made.ask()
    assert (walked, made.stream.status, made.pipeline.in_flight) == ([], 0, 1)
    waiting.callback(None)
    assert (walked, made.stream.status, made.pipeline.in_flight) == (["after"], 200, 0)


def test_what_is_waited_for_may_be_the_answer() -> None:
    """A Deferred may fire with an answer, at once or late."""
    late: Deferred[Answer] = Deferred()
    for deferred in (succeed(Answer(204, [])), late):
        made = Scene(until(deferred), refuse)
        made.ask()
        if deferred is late:
            late.callback(Answer(204, []))
        assert made.stream.status == 204


def test_a_refusal_ends_the_walk() -> None:
    """After a refusal no stage runs, and the answer is a problem document."""
    made = Scene(refuse, answer)
    made.ask()
    assert made.stream.status == 404
    assert (b"x-why", b"because") in made.stream.headers
    document = json.loads(made.stream.body)
    assert (document["code"], document["request_id"], document["detail"]) == ("not_found", "mine", "Nothing here.")
    (exchange,) = made.accounted
    assert (exchange.status, exchange.refusal and exchange.refusal.code) == (404, "not_found")


@pytest.mark.parametrize("late", [False, True])
def test_a_refusal_may_come_late(late: bool) -> None:
    """A Deferred that fails with a gateway's error refuses the request, whether or not it was waited for."""
    waiting: Deferred[None] = Deferred()
    if not late:
        waiting.errback(errors.Unauthorized("No."))
    made = Scene(until(waiting), answer)
    made.ask()
    if late:
        waiting.errback(errors.Unauthorized("No."))
    assert (made.stream.status, len(made.accounted)) == (401, 1)


class Instead(OnRefusal):
    """Waits for the test where it is told to, and replaces one error by another."""

    def __init__(self, error: errors.GatewayError | None, wait: bool = False) -> None:
        self.asked: list[errors.GatewayError] = []
        self.error = error
        self.wait = wait
        self.exchange: Exchange | None = None

    def run(self, exchange: Exchange, error: errors.GatewayError) -> Waiting | None:
        self.asked.append(error)
        if self.wait:
            self.exchange = exchange
            return Forever()
        if self.error is not None:
            raise self.error
        return None


class Forever(Waiting):
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def test_a_refusal_may_become_another() -> None:
    """Each ``on_refusal`` is asked once, with the error as it stands, and the last word is sent."""
    limited = errors.RateLimited("Too many.")
    first, second = Instead(limited), Instead(None)
    made = Scene(refuse, on_refusal=(first, second))
    made.ask()
    assert made.stream.status == 429
    assert [error.status for error in first.asked] == [404]
    assert second.asked == [limited]


@pytest.mark.parametrize("error", [None, errors.RateLimited("Too many.")])
def test_a_refusal_may_have_to_wait(error: errors.GatewayError | None) -> None:
    """Nothing is answered while an ``on_refusal`` waits; then those after it are asked."""
    first, second = Instead(None, wait=True), Instead(None)
    made = Scene(refuse, on_refusal=(first, second))
    made.ask()
    assert (made.stream.status, second.asked) == (0, [])
    assert first.exchange is not None
    if error is None:
        first.exchange.resume(None)
    else:
        first.exchange.fail(error)
    assert made.stream.status == (404 if error is None else 429)
    assert len(second.asked) == len(made.accounted) == 1


class Broken(OnRefusal):
    def run(self, exchange: Exchange, error: errors.GatewayError) -> Waiting | None:
        raise RuntimeError("broken")


def test_a_refusal_stands_though_one_who_is_asked_fails() -> None:
    """An exception in an ``on_refusal`` is logged, and the request refused as it was to be."""
    made = Scene(refuse, on_refusal=(Broken(), Instead(None)))
    with logged() as events:
        made.ask()
    assert (made.stream.status, len(made.accounted)) == (404, 1)
    assert failures(events) == ["broken"]


def test_what_failed_at_once_is_not_waited_for() -> None:
    """An exchange that ended while a stage was about to wait keeps nothing of it."""
    waiting = Forever()

    def fails(exchange: Exchange) -> Outcome:
        exchange.fail(errors.Overloaded("Too many."))
        return waiting

    made = Scene(fails)
    made.ask()
    (exchange,) = made.accounted
    assert (made.stream.status, exchange.waiting) == (503, None)


def test_a_refusal_that_waits_is_what_is_waited_for() -> None:
    """Whatever failed at once: a stage, or who was asked before."""
    dead = Forever()

    def fails(exchange: Exchange) -> Outcome:
        exchange.fail(errors.Unauthorized("Who?"))
        return dead

    class FailsAtOnce(OnRefusal):
        def run(self, exchange: Exchange, error: errors.GatewayError) -> Waiting | None:
            exchange.fail(errors.Unauthorized("Who?"))
            return dead

    for before in ((), (FailsAtOnce(),)):
        patient = Instead(None, wait=True)
        made = Scene(fails, on_refusal=(*before, patient))
        request = made.ask()
        assert patient.exchange is not None
        living = patient.exchange.waiting
        assert isinstance(living, Forever)
        assert living is not dead
        request.client_failed(ClientLost())
        assert living.cancelled
        assert not dead.cancelled


@pytest.mark.parametrize("late", [False, True])
def test_a_mistake_of_ours_is_a_500_that_says_nothing(late: bool) -> None:
    """An exception is answered with 500 and logged, and the client sees nothing of it."""
    waiting: Deferred[None] = Deferred()

    def broken(exchange: Exchange) -> Outcome:
        if late:
            return wait_for(exchange, waiting)
        raise RuntimeError("secret detail")

    made = Scene(broken, answer)
    with logged() as events:
        made.ask()
        if late:
            waiting.errback(RuntimeError("secret detail"))
    assert made.stream.status == 500
    assert json.loads(made.stream.body)["code"] == "internal_error"
    assert b"secret" not in made.stream.body
    assert failures(events) == ["secret detail"]
    assert (len(made.accounted), made.pipeline.in_flight) == (1, 0)


def test_a_client_that_leaves_is_waited_for_no_more() -> None:
    """What is waited for is cancelled when the client leaves, and the exchange is accounted for once, as 499."""
    cancelled: list[bool] = []
    waiting: Deferred[None] = Deferred(lambda _: cancelled.append(True))
    made = Scene(until(waiting), answer)
    request = made.ask()
    request.client_failed(ClientLost())
    assert cancelled == [True]
    assert (made.stream.status, made.pipeline.in_flight) == (0, 0)
    (exchange,) = made.accounted
    assert exchange.status == 499
    request.client_failed(ClientLost())
    assert len(made.accounted) == 1


def test_what_the_wire_refuses_is_answered() -> None:
    """A body that is late is answered while a stage waits."""
    waiting: Deferred[None] = Deferred(lambda _: None)
    made = Scene(until(waiting), answer)
    made.ask().client_failed(Refused(408, "Too slow."))
    assert made.stream.status == 408
    assert json.loads(made.stream.body)["code"] == "client_timeout"
    assert (len(made.accounted), made.pipeline.in_flight) == (1, 0)


def test_after_an_answer_has_begun_there_is_no_other() -> None:
    """An error behind the beginning of an answer cuts it short."""

    def begin(exchange: Exchange) -> Outcome:
        exchange.request.start(200, [])
        exchange.request.write(b"half")
        return wait_for(exchange, waiting)

    waiting: Deferred[None] = Deferred(lambda _: None)
    made = Scene(begin)
    made.ask()
    waiting.errback(errors.UpstreamTimeout("Too late."))
    assert (made.stream.status, made.stream.body, made.stream.aborted) == (200, b"half", True)
    (exchange,) = made.accounted
    assert exchange.status in (0, 200)


class Sign(Hook):
    def run(self, exchange: Exchange, head: Head) -> None:
        head.headers = [*head.headers, (b"x-seen", b"own" if head.own else b"service")]


def test_hooks_see_the_gateways_own_answers() -> None:
    """A route's hooks may change the head of an answer and of a refusal."""
    for stage in (answer, refuse):
        made = Scene(stage)
        made.route.hooks = (Sign(),)
        made.ask()
        assert (b"x-seen", b"own") in made.stream.headers


def test_a_head_gets_no_body() -> None:
    """The body of an error spoils the next answer on the connection."""
    made = Scene(refuse)
    made.ask(method=b"HEAD")
    assert (made.stream.status, made.stream.body) == (404, b"")
    assert int(dict(made.stream.headers)[b"content-length"]) > 0


@pytest.mark.parametrize("status", [400, 405, 408, 413, 414, 431, 501])
def test_refusals_of_the_wire_keep_their_status(status: int) -> None:
    """A client is told the wrong reason."""
    error = refused(Refused(status, "Because."))
    assert (error.status, error.detail) == (status, "Because.")
