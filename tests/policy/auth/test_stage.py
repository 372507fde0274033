"""Authentication on a request's way: what is asked before a token is verified, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.limits import limit
from twisted.internet.task import Clock

from apigw import errors
from apigw.contract.exchange import Answer, Exchange, Outcome, Route, Screen, Stage
from apigw.contract.peers import Peers
from apigw.ops.metrics import Metrics
from apigw.policy.auth.jwt.keys import Key
from apigw.policy.auth.stage import Accepted, Authenticate, CountFailure
from apigw.policy.limits.keys import Callers
from apigw.policy.limits.memory import MemoryStore
from apigw.policy.limits.selection import Selection
from apigw.policy.limits.stage import ChargeAddress, Count, Counting, RefuseSpent
from apigw.proxy.pipeline import Pipeline, Table
from apigw.routing.router import Router
from apigw.routing.trie import Entry
from apigw.wire.headers import Headers
from apigw.wire.request import Request, Stream

from .jwt.test_jwt import HS, NOW, hs256, using


class Client(Stream):
    def __init__(self) -> None:
        super().__init__(b"192.0.2.1", False)

    def respond(self, request: Request, status: int, reason: bytes, headers: Headers, body: bytes) -> None: ...


class Welcome(Stage):
    def run(self, exchange: Exchange) -> Outcome:
        return Answer(200, [(b"content-length", b"0")])


class Noting(Screen):
    """Refuses while it is ``shut``, and notes each time that it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.shut = False

    def run(self, exchange: Exchange) -> None:
        self.asked += 1
        if self.shut:
            raise errors.RateLimited("Too many.")


class Scene:
    """A route behind authentication, with what policies of the test's add."""

    def __init__(self, required: bool = True, **added: Any) -> None:
        self.clock = Clock()
        before, after = added.pop("before", ()), added.pop("after", ())
        stage = Authenticate(Accepted(using(HS), None), required, None, lambda: NOW)
        series = Metrics(CollectorRegistry(), "0").route("/a")
        route = Route("/a", None, None, series, (*before, stage, *after, Welcome()), **added)
        table = Table(Router([Entry("/a", None, route)]), None, route, Peers(), 100, False)
        self.ended: list[Exchange] = []
        self.pipeline = Pipeline(table, self.clock.seconds, self.ended.append, lambda request: None)

    def ask(self, *tokens: bytes) -> int:
        stream = Client()
        headers = [(b"authorization", token) for token in tokens]
        request = Request(stream, b"GET", b"/a", b"/a", b"", b"x", headers, b"HTTP/1.1", 0)
        self.pipeline.on_request(request)
        return self.ended[-1].status


def token(**changes: Any) -> bytes:
    return b"Bearer " + hs256(**changes)


GOOD, FORGED = token(), token()[:-8] + b"AAAAAAAA"


def test_screens_are_asked_before_a_token_is_verified_and_not_again(tried: list[Key]) -> None:
    """A token that was seen pays for none; where one refuses, no signature is looked at."""
    screen = Noting()
    scene = Scene(screens=(screen,))
    assert [scene.ask(GOOD) for _ in range(3)] == [200, 200, 200]
    assert (screen.asked, len(tried)) == (1, 1)
    screen.shut = True
    assert [scene.ask(GOOD), scene.ask(FORGED), scene.ask(token(sub="bob"))] == [200, 429, 429]
    assert (screen.asked, len(tried)) == (3, 1)
    screen.shut = False
    assert [scene.ask(FORGED), scene.ask(token(sub="bob")), scene.ask()] == [401, 200, 401]
    assert (screen.asked, len(tried)) == (6, 3)


def test_who_needs_no_token_and_has_none_pays_for_no_screen() -> None:
    """An anonymous caller of a route where that is optional."""
    screen = Noting()
    assert Scene(False, screens=(screen,)).ask() == 200
    assert screen.asked == 0


def test_who_is_turned_away_is_counted_by_the_reason() -> None:
    """A 401 or 403 of authentication, and no other refusal; where an address has used up its limit, that is a 429."""
    failed, one = list[str](), limit(2, 60, "log")
    parts = (Selection((one,)), Counting(MemoryStore(Clock(), lambda: 0.0), Callers(), lambda limit: None))
    counting, charge, screen = CountFailure(failed.append), ChargeAddress(*parts), RefuseSpent(*parts)
    scene = Scene(on_refusal=(counting, charge), screens=(screen,))
    assert [scene.ask(FORGED), scene.ask(), scene.ask(), scene.ask(FORGED)] == [401, 401, 429, 429]
    assert failed == ["signature", "missing"]


@pytest.mark.parametrize("required", [True, False])
def test_no_bad_token_is_verified_for_an_address_that_has_used_up_its_limit(tried: list[Key], required: bool) -> None:
    """Its answer is the 429 that it would get anyway; when the limit has room again, tokens are looked at again."""
    one, violated = limit(3, 60, "log"), list[Any]()
    store = MemoryStore(Clock(), lambda: 0.0)
    selection = Selection((one,))
    parts = (selection, Counting(store, Callers(), violated.append))
    scene = Scene(required, after=(Count(*parts),), on_refusal=(ChargeAddress(*parts),), screens=(RefuseSpent(*parts),))
    assert [scene.ask(FORGED) for _ in range(10)] == [401] * 3 + [429] * 7
    assert len(tried) == 3
    assert violated == [one] * 7
    assert dict(scene.ended[-1].added)[b"retry-after"] == b"60"
    assert scene.ask(GOOD) == 429
    assert len(tried) == 3
    scene.clock.advance(60)
    assert [scene.ask(GOOD), scene.ask(GOOD), scene.ask(FORGED), scene.ask(FORGED)] == [200, 200, 401, 429]
    assert len(tried) == 5
