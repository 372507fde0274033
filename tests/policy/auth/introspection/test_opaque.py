"""Opaque tokens: who is asked about which, what is made of the answers, and what is remembered."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from attrs import evolve
from support.logged import logged
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.web.http_headers import Headers

from apigw.config.model import Secret
from apigw.contract.principal import Principal
from apigw.errors import AuthUnavailable, GatewayError, Unauthorized
from apigw.policy.auth.bearer import Bearer
from apigw.policy.auth.introspection.model import IntrospectionProvider
from apigw.policy.auth.introspection.opaque import REFUSED, REMEMBERED, Opaque
from apigw.policy.auth.introspection.server import AT_A_TIME, EACH, Server
from apigw.wire.errors import ConnectFailed
from apigw.wire.fetch import Answered, FetchFailed

from ..jwt.test_jwt import HS, NOW, hs256, using

LEGACY = IntrospectionProvider("legacy", "https://id.example/introspect", "gw", Secret(b"p+ss:w%rd"))
ADA = {"active": True, "sub": "ada", "scope": "a b", "roles": ["admin"], "exp": NOW + 600}
TOKEN = b"opaque-token"


class Scene:
    """A server that answers as a test says, by hand or with ``answer``, and the gateway's side."""

    def __init__(self, **more: Any) -> None:
        self.clock = Clock()
        self.asked: list[tuple[str, Headers, bytes]] = []
        self.pending: list[Deferred[Answered]] = []
        self.cancelled = 0
        self.answer: object = ADA
        self.counted: list[str] = []
        self.opaque = self.make(**more)
        self.bearer = Bearer(using(HS), [self.opaque], 8192)

    def make(self, **more: Any) -> Opaque:
        provider = evolve(LEGACY, **more)
        return Opaque(provider, Server(provider, self.ask, self.clock, self.counted.append), self.clock.seconds)

    async def ask(self, url: str, headers: Headers, form: bytes) -> Answered:
        self.asked.append((url, headers, form))
        if self.answer is None:
            waiting: Deferred[Answered] = Deferred(self._cancelled)
            self.pending.append(waiting)
            return await waiting
        if isinstance(self.answer, Exception):
            raise self.answer
        return answered(self.answer)

    def _cancelled(self, _: object) -> None:
        self.cancelled += 1

    def begin(self, token: bytes = TOKEN, caller: bytes = b"192.0.2.1", providers: Any = None) -> list[object]:
        """What comes of a request, once it does."""
        came: list[object] = []
        sent, now = [b"Bearer " + token], NOW + self.clock.seconds()
        try:
            found = self.bearer.remembered(sent, now) or self.bearer.verify(sent, now, providers, caller)
        except GatewayError as error:
            return [error]
        if isinstance(found, Deferred):
            found.addBoth(lambda result: came.append(getattr(result, "value", result)))
            came_of[id(came)] = found
        else:
            came.append(found)
        return came

    def ask_once(self, token: bytes = TOKEN, **more: Any) -> object:
        came = self.begin(token, **more)
        assert len(came) == 1
        return came[0]


came_of: dict[int, Deferred[Any]] = {}


def answered(answer: object) -> Answered:
    status, body = answer if isinstance(answer, tuple) else (200, answer)
    return Answered(status, [], body if isinstance(body, bytes) else json.dumps(body).encode())


def reason(outcome: object) -> object:
    """Of a 401; else the status, or the caller."""
    if isinstance(outcome, Principal):
        return f"{outcome.provider}/{outcome.id}"
    if isinstance(outcome, Unauthorized):
        assert [name for name, _ in outcome.headers] == [b"www-authenticate"]
        return outcome.reason
    assert isinstance(outcome, GatewayError), outcome
    return outcome.status


def test_what_is_asked() -> None:
    """The token, once, by POST; id and secret are form-encoded for Basic (RFC 6749 §2.3.1)."""
    scene = Scene(client_id="g w")
    principal = scene.ask_once()
    assert isinstance(principal, Principal)
    assert (principal.provider, principal.id, principal.roles) == ("legacy", "ada", ("admin",))
    assert (sorted(principal.scopes), principal.claims["exp"], principal.by_token) == (["a", "b"], NOW + 600, True)
    [(url, headers, form)] = scene.asked
    assert (url, parse_qs(form)) == (LEGACY.url, {b"token": [TOKEN], b"token_type_hint": [b"access_token"]})
    assert headers.getRawHeaders("authorization") == ["Basic Zyt3OnAlMkJzcyUzQXclMjVyZA=="]
    assert headers.getRawHeaders("content-type") == ["application/x-www-form-urlencoded"]
    assert scene.counted == ["active"]


ANSWERS: dict[str, tuple[object, object]] = {
    "active": (ADA, "legacy/ada"),
    "active, without expiry": ({"active": True, "sub": "ada"}, "legacy/ada"),
    "active, with null for what there is not": ({"active": True, "sub": "ada", "exp": None, "aud": None}, "legacy/ada"),
    "not active": ({"active": False}, "inactive"),
    "not active, with claims": ({**ADA, "active": False}, "inactive"),
    "expired": ({**ADA, "exp": NOW - 31}, "expired"),
    "not valid yet": ({**ADA, "nbf": NOW + 31}, "not_yet_valid"),
    "an expiry that is no number": ({**ADA, "exp": "2030"}, "claims"),
    "nobody": ({"active": True}, "claims"),
    "a bad id": ({**ADA, "sub": "a\r\nX-User-Roles: admin"}, "claims"),
    "an id that is a number": ({**ADA, "sub": 7}, "claims"),
    "active: a text": ({**ADA, "active": "true"}, 503),
    "active: 1": ({**ADA, "active": 1}, 503),
    "active: null": ({**ADA, "active": None}, 503),
    "no active": ({"sub": "ada"}, 503),
    "active twice": (b'{"active": false, "active": true, "sub": "ada"}', 503),
    "a list": ([ADA], 503),
    "no JSON": (b"<html>", 503),
    "nothing": (b"", 503),
    "not UTF-8": (b'{"active": true, "sub": "\xff"}', 503),
    "deep": (b'{"active": true, "a": ' + b"[" * 1000 + b"]" * 1000 + b"}", 503),
    "a redirect": ((302, b""), 503),
    "the gateway is not known there": ((401, b"{}"), 503),
    "a bad request": ((400, ADA), 503),
    "an error": ((500, ADA), 503),
    "another success": ((204, b""), 503),
    "too large": (FetchFailed("is larger than 16384 bytes"), 503),
    "compressed": (FetchFailed("is compressed"), 503),
    "gone": (ConnectFailed(), 503),
    "a fault": (RuntimeError(TOKEN), 503),
}


@pytest.mark.parametrize(("answer", "outcome"), [pytest.param(*case, id=name) for name, case in ANSWERS.items()])
def test_answers(answer: object, outcome: object) -> None:
    """Only `true` lets anybody in. What is no answer is 503, and asked for again; neither is a word of it logged."""
    scene = Scene()
    scene.answer = answer
    assert [reason(scene.ask_once()) for _ in range(2)] == [outcome] * 2
    assert len(scene.asked) == (2 if outcome == 503 else 1)
    assert scene.counted[0] == ("failed" if outcome == 503 else "inactive" if outcome == "inactive" else "active")


@pytest.mark.parametrize(
    ("more", "answer", "outcome"),
    [
        ({"issuer": "https://id"}, {"iss": "https://id"}, "legacy/ada"),
        ({"issuer": "https://id"}, {"iss": "https://other"}, "issuer"),
        ({"issuer": "https://id"}, {}, "issuer"),
        ({"audience": ("a",)}, {"aud": ["b", "a"]}, "legacy/ada"),
        ({"audience": ("a",)}, {"aud": "b"}, "audience"),
        ({"audience": ("a",)}, {}, "audience"),
        ({"token_type": "Bearer"}, {"token_type": "bearer"}, "legacy/ada"),
        ({"token_type": "Bearer"}, {"token_type": "DPoP"}, "type"),
        ({"token_type": "Bearer"}, {}, "type"),
        ({"claims": (("tenant", "acme"),)}, {"tenant": "acme"}, "legacy/ada"),
        ({"claims": (("tenant", "acme"),)}, {"tenant": "other"}, "claims"),
        ({"user_claim": "client_id"}, {"client_id": "batch"}, "legacy/batch"),
    ],
    ids=str,
)
def test_what_is_demanded_of_an_answer(more: dict[str, Any], answer: dict[str, Any], outcome: str) -> None:
    """Issuer, audience, type and claims, where the provider has them."""
    scene = Scene(**more)
    scene.answer = {**ADA, **answer}
    assert reason(scene.ask_once()) == outcome


def test_roles_are_confined() -> None:
    """As those of other tokens."""
    scene = Scene(roles_claim="realm.roles", roles_allowed=("app.*",))
    scene.answer = {**ADA, "realm": {"roles": ["app.user", "admin"]}}
    principal = scene.ask_once()
    assert isinstance(principal, Principal)
    assert principal.roles == ("app.user",)


def test_answers_are_remembered_for_a_while() -> None:
    """An active token for `cache`, and never beyond its expiry; another for 5 s."""
    scene = Scene()
    scene.answer = {**ADA, "exp": NOW + 40}
    for seconds, times in ((0, 1), (29.9, 1), (0.1, 2), (9.9, 2), (0.1, 3)):
        scene.clock.advance(seconds)
        assert reason(scene.ask_once()) == "legacy/ada"
        assert len(scene.asked) == times
    scene.answer = {"active": False}
    for seconds, times in ((0, 4), (4.9, 4), (0.1, 5)):
        scene.clock.advance(seconds)
        assert reason(scene.ask_once()) == "inactive"
        assert len(scene.asked) == times


def test_nothing_is_remembered_without_a_cache() -> None:
    """With `cache: 0s` each request asks."""
    scene = Scene(cache=0.0)
    assert [reason(scene.ask_once()) for _ in range(3)] == ["legacy/ada"] * 3
    assert len(scene.asked) == 3


def test_one_question_for_all_who_send_the_same_token() -> None:
    """Each gets an answer of its own. It is given up when all of them have left."""
    scene = Scene()
    scene.answer = None
    waiting = [scene.begin() for _ in range(3)]
    assert (len(scene.asked), waiting) == (1, [[], [], []])
    came_of[id(waiting[0])].cancel()
    assert scene.cancelled == 0
    scene.pending[0].callback(answered({"active": False}))
    assert [reason(each[0]) for each in waiting[1:]] == ["inactive"] * 2
    assert waiting[1][0] is not waiting[2][0]
    waiting = [scene.begin(b"another") for _ in range(2)]
    for each in waiting:
        came_of[id(each)].cancel()
    assert (len(scene.asked), scene.cancelled) == (2, 1)
    assert scene.begin(b"another") == []
    assert len(scene.asked) == 3


def test_a_server_that_is_slow() -> None:
    """After the timeout it is 503, for all who wait, and the question is given up."""
    scene = Scene(timeout=1.5)
    scene.answer = None
    waiting = [scene.begin() for _ in range(2)]
    scene.clock.advance(1.4)
    assert waiting == [[], []]
    scene.clock.advance(0.2)
    assert [reason(each[0]) for each in waiting] == [503, 503]
    assert waiting[0][0] is not waiting[1][0]
    assert isinstance(waiting[0][0], AuthUnavailable)
    assert waiting[0][0].headers == [(b"retry-after", b"1")]
    assert scene.cancelled == 1


def test_questions_at_a_time_are_bounded() -> None:
    """In all, and for one client; a network of IPv6 is one. Who waits for an answer leaves its place with it."""
    scene = Scene()
    scene.answer = None
    for number in range(EACH):
        assert scene.begin(b"%d" % number, b"2001:db8::%x" % number) == []
    assert reason(scene.ask_once(b"one-more", caller=b"2001:db8::ffff")) == 503
    for number in range(EACH, AT_A_TIME):
        assert scene.begin(b"%d" % number, b"192.0.2.%d" % (number % 100)) == []
    assert reason(scene.ask_once(b"one-more", caller=b"198.51.100.1")) == 503
    scene.pending[0].callback(answered(ADA))
    assert scene.begin(b"one-more", b"2001:db8::1") == []


def test_inventing_tokens_pushes_out_nobody() -> None:
    """Those that are not active have a place of their own."""
    scene = Scene()
    scene.ask_once()
    scene.answer = {"active": False}
    for number in range(REFUSED + 1):
        scene.ask_once(b"%d" % number)
    asked = len(scene.asked)
    assert reason(scene.ask_once()) == "legacy/ada"
    scene.ask_once(b"%d" % REFUSED)
    assert len(scene.asked) == asked
    scene.ask_once(b"0")
    assert len(scene.asked) == asked + 1
    scene.answer = ADA
    for number in range(REMEMBERED):
        scene.ask_once(b"good%d" % number)
    asked = len(scene.asked)
    scene.ask_once()
    assert len(scene.asked) == asked + 1


ROUTED: dict[str, tuple[bytes, Any, object, bool]] = {
    "a JWT of a verifier": (hs256(), None, "hs/alice", False),
    "a bad JWT of a verifier": (hs256()[:-4] + b"AAAA", None, "signature", False),
    "an expired one": (hs256(exp=NOW - 100), None, "expired", False),
    "a JWT of another issuer": (hs256(iss="https://elsewhere"), None, "legacy/ada", True),
    "a JWT of a verifier, where only opaque ones are taken": (hs256(), {"legacy"}, "provider", False),
    "an opaque token": (TOKEN, None, "legacy/ada", True),
    "an opaque token, where none are taken": (TOKEN, {"hs"}, "malformed", False),
    "three parts that are no JWT": (b"a.b.c", None, "legacy/ada", True),
    "a token with odd characters": (b"op{aque}", None, "malformed", False),
    "a token with a space": (b"opa que", None, "malformed", False),
    "no token": (b"", None, "malformed", False),
    "a token that is too large": (b"a" * 8193, None, "too_large", False),
}


@pytest.mark.parametrize(
    ("token", "providers", "outcome", "asks"), [pytest.param(*case, id=name) for name, case in ROUTED.items()]
)
def test_who_decides(token: bytes, providers: Any, outcome: object, asks: bool) -> None:
    """A token that a verifier could take, by its issuer, is not shown to the server."""
    scene = Scene()
    scene.bearer = Bearer(using(evolve(HS, issuer="https://id")), [scene.opaque], 8192)
    assert reason(scene.ask_once(token, providers=providers)) == outcome
    assert bool(scene.asked) == asks


def test_spellings_of_a_token_are_one() -> None:
    """Whatever the capitals of the scheme, and the spaces behind it."""
    scene = Scene()
    scene.ask_once()
    for value in (b"bearer opaque-token", b"BEARER   opaque-token "):
        assert scene.bearer.remembered([value], NOW) is not None
    assert scene.bearer.remembered([b"Basic opaque-token"], NOW) is None
    assert scene.bearer.remembered([b"Bearer opaque-token"] * 2, NOW) is None


def test_reloads() -> None:
    """What is remembered goes on to hold where the provider is the same."""
    scene = Scene()
    scene.ask_once()
    known = scene.bearer
    for more, times in (({}, 1), ({"client_id": "other"}, 2)):
        scene.bearer = Bearer(using(HS), [scene.make(**more)], 8192)
        scene.bearer.take_over(known)
        scene.ask_once()
        assert len(scene.asked) == times
        known = scene.bearer


def test_a_reload_that_adds_a_verifier() -> None:
    """A JWT that the server was asked about is verified from now on."""
    scene, elsewhere = Scene(), evolve(HS, issuer="https://elsewhere")
    scene.bearer = Bearer(using(elsewhere), [scene.opaque], 8192)
    assert reason(scene.ask_once(hs256())) == "legacy/ada"
    known, scene.bearer = scene.bearer, Bearer(using(HS), [scene.make()], 8192)
    scene.bearer.take_over(known)
    assert reason(scene.ask_once(hs256())) == "hs/alice"


def test_the_log_does_not_grow_with_questions() -> None:
    """A server that fails at one token, and knows the next, is told of every ten seconds: clients choose the tokens."""
    scene = Scene()

    def ask(seconds: int) -> list[str]:
        with logged() as events:
            for number in range(seconds):
                for answer in (ConnectFailed("refused"), {"active": False}):
                    scene.answer = answer
                    scene.ask_once(f"token-{scene.clock.seconds()}-{number}".encode())
                scene.clock.advance(1)
        return [formatEvent(event).partition(": ")[2] for event in events]

    lines = ["the server cannot be reached: refused", "answers again"]
    assert ask(10) == lines
    assert ask(20) == lines * 2
