"""Tunnels and event streams end with the token that opened them, and no sooner."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import evolve
from joserfc import jwt
from prometheus_client import CollectorRegistry
from support.certificates import Authority
from twisted.internet.task import Clock

from apigw.config.model import Secret
from apigw.contract.exchange import Exchange, Route
from apigw.contract.peers import Peers
from apigw.contract.principal import Principal
from apigw.errors import GatewayError, Unauthorized
from apigw.ops.metrics import Metrics
from apigw.policy.auth.authenticator import Authenticator
from apigw.policy.auth.bearer import Bearer
from apigw.policy.auth.jwt.jwks import KeySet
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.jwt.tokens import Tokens
from apigw.policy.auth.lasting import REVIEW, Lasting
from apigw.policy.auth.model import Auth
from apigw.policy.auth.mtls.certificates import Certificates
from apigw.proxy.pipeline import Pipeline, Table
from apigw.routing.router import Router
from apigw.routing.trie import Entry
from apigw.wire.deadlines import Deadlines
from apigw.wire.request import Request, Stream

from .introspection.test_opaque import TOKEN
from .introspection.test_opaque import Scene as Introspected
from .jwt.test_jwks import SOURCE, URL, document, jwk, rsa
from .jwt.test_jwt import HS, NOW, accept, hs256, using
from .mtls.test_certificates import SPIFFE, provider, shown


class Client(Stream):
    def abort(self, code: int = 2) -> None: ...


class Scene:
    def __init__(self) -> None:
        self.clock = Clock()
        self.route = Route("/a", None, None, Metrics(CollectorRegistry(), "0").route("/a"), ())
        table = Table(Router([Entry("/a", None, self.route)]), None, self.route, Peers(), 100, False)
        self.ended: list[Exchange] = []
        self.failed: list[str] = []
        self.pipeline = Pipeline(table, self.clock.seconds, self.ended.append, lambda request: None)
        self.deadlines = Deadlines(self.clock)
        self.lasting = Lasting(self.deadlines, lambda: NOW + self.clock.seconds(), self.failed.append)
        self.authenticator = using(HS)
        self.use(self.authenticator)
        self.deadlines.start()

    def use(self, tokens: Tokens) -> None:
        self.lasting.use(Authenticator([tokens]))

    @property
    def refused(self) -> list[GatewayError | None]:
        """With what each was ended."""
        return [exchange.refusal for exchange in self.ended]

    def open(self, token: bytes | None) -> Exchange:
        stream = Client(b"192.0.2.1", False)
        headers = [] if token is None else [(b"authorization", b"Bearer " + token)]
        request = Request(stream, b"GET", b"/a", b"/a", b"", b"x", headers, b"HTTP/1.1", 0)
        request.started = True
        exchange = Exchange(self.pipeline, request, Peers(), 0.0)
        exchange.route = self.route
        if token is not None:
            exchange.principal = accept(self.authenticator, token, NOW + self.clock.seconds())
        self.lasting.run(exchange)
        return exchange

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds * 10))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_one_ends_when_its_token_does(scene: Scene) -> None:
    """To the second, with the leeway that requests have; one without a token goes on."""
    scene.open(hs256(exp=NOW + 25))
    scene.open(None)
    scene.pass_time(25 + HS.leeway - 0.2)
    assert scene.refused == []
    scene.pass_time(0.4)
    (error,) = scene.refused
    assert isinstance(error, Unauthorized)
    assert (error.reason, scene.failed) == ("expired", ["expired"])
    assert len(scene.lasting) == 0


def test_one_that_ended_by_itself_is_forgotten(scene: Scene) -> None:
    """Whatever its token's lifetime: nothing is kept of thousands that come and go."""
    exchange = scene.open(hs256(exp=NOW + 10**6))
    exchange.ended = True
    scene.pass_time(REVIEW + 0.2)
    assert (len(scene.lasting), scene.deadlines._watched, scene.refused) == (0, {}, [])


OTHER_SECRET = evolve(HS, secret=Secret(b"fedcba9876543210fedcba9876543210"))
RELOADED = {
    "the same": ((HS,), None),
    "one more": ((HS, evolve(OTHER_SECRET, name="more", issuer="https://more")), None),
    "another name and more leeway": ((evolve(HS, name="renamed", leeway=60.0),), None),
    "another secret": ((OTHER_SECRET,), "signature"),
    "another issuer": ((evolve(HS, issuer="https://other"),), "issuer"),
    "another audience": ((evolve(HS, audience=("others",)),), "audience"),
    "another verifier": ((JWTVerifier("rs", "RS256", jwks_url=URL),), "algorithm"),
}


@pytest.mark.parametrize(("verifiers", "reason"), [pytest.param(*case, id=name) for name, case in RELOADED.items()])
def test_one_ends_soon_after_a_reload_that_takes_its_verifier_away(
    scene: Scene, verifiers: tuple[JWTVerifier, ...], reason: str | None
) -> None:
    """With the reason that a request with its token would get; all others go on."""
    for _ in range(50):
        scene.open(hs256(exp=NOW + 10**6))
    key_set = KeySet(SOURCE, None, scene.clock)  # type: ignore[arg-type]  # which is not started
    scene.use(Tokens(Auth(verifiers), {SOURCE: key_set}))
    scene.pass_time(0.2)
    assert [getattr(error, "reason", None) for error in scene.refused] == ([reason] * 50 if reason else [])
    scene.pass_time(100)
    assert len(scene.refused) == (50 if reason else 0)


def test_one_ends_when_authentication_is_dropped(scene: Scene) -> None:
    """Nothing says any more that its caller may have it."""
    scene.open(hs256(exp=NOW + 10**6))
    scene.lasting.use(None)
    scene.pass_time(0.2)
    assert len(scene.refused) == 1


def test_after_a_reload_tokens_are_looked_at_a_few_at_a_time(scene: Scene) -> None:
    """A thousand streams are a second's work, which requests must not wait for."""
    for _ in range(1000):
        scene.open(hs256(exp=NOW + 10**6))
    scene.use(using(OTHER_SECRET))
    ended = []
    for _ in range(12):
        scene.pass_time(0.1)
        ended.append(len(scene.refused))
    assert ended[-1] == 1000
    assert max(later - earlier for earlier, later in pairwise(ended)) <= 120


def test_while_keys_cannot_be_fetched_a_token_holds_until_it_expires(scene: Scene) -> None:
    """A provider that is down ends nobody's stream; a key that it has taken back does."""
    answers: list[bytes] = []

    async def fetch(url: str) -> tuple[bytes, dict[str, str]]:
        if not answers:
            raise ConnectionRefusedError
        return answers[0], {}

    answers.append(document(jwk("a")))
    key_set = KeySet(SOURCE, fetch, scene.clock)
    key_set.start()
    token = jwt.encode({"alg": "RS256", "kid": "a"}, {"sub": "a", "exp": NOW + 10_000}, rsa("a"), algorithms=["RS256"])
    verifier = JWTVerifier("id", "RS256", jwks_url=URL)
    scene.authenticator = Tokens(Auth((verifier,)), {SOURCE: key_set})
    scene.use(scene.authenticator)
    scene.open(token.encode())
    answers.clear()
    fresh = KeySet(SOURCE, fetch, scene.clock)
    fresh.start()
    scene.use(Tokens(Auth((verifier,)), {SOURCE: fresh}))
    scene.pass_time(60)
    assert scene.refused == []
    answers.append(document(jwk("b")))
    scene.pass_time(60)
    assert [type(error) for error in scene.refused] == [Unauthorized]


def test_one_ends_when_its_server_says_that_its_token_is_not_active(scene: Scene) -> None:
    """It is asked again when the answer is too old; one that does not answer ends nobody's stream."""
    answers: list[object] = [{"active": True, "sub": "ada"}]
    opaque = Introspected()
    opaque.answer = answers[0]
    scene.lasting.use(Authenticator([opaque.bearer]))
    principal = opaque.ask_once()
    assert isinstance(principal, Principal)
    exchange = scene.open(None)
    exchange.principal = principal
    exchange.request.headers = [(b"authorization", b"Bearer " + TOKEN)]
    scene.lasting.run(exchange)
    for answer, ended in ((answers[0], 0), ((500, b""), 0), (None, 0), ({"active": False}, 1)):
        opaque.answer = answer
        opaque.clock.advance(31)
        scene.pass_time(REVIEW + 0.2)
        assert len(scene.refused) == ended
    assert scene.failed == ["inactive"]


def test_the_server_that_has_vouched_for_a_token_is_asked_again_and_no_other(scene: Scene) -> None:
    """A token of one provider is not for the eyes of another."""
    other, its_own = Introspected(), Introspected(name="its-own")
    other.answer = {"active": False}
    principal = its_own.ask_once()
    assert isinstance(principal, Principal)
    exchange = scene.open(None)
    exchange.principal = principal
    exchange.request.headers = [(b"authorization", b"Bearer " + TOKEN)]
    scene.lasting.use(Authenticator([Bearer(using(HS), [other.opaque, its_own.opaque], 8192)]))
    scene.lasting.run(exchange)
    its_own.clock.advance(31)
    scene.pass_time(REVIEW + 0.2)
    assert (other.asked, len(its_own.asked), scene.refused) == ([], 2, [])


def test_one_lasts_as_long_as_its_certificate_is_taken(scene: Scene, tmp_path: Path) -> None:
    """It belongs to the connection; a reload with other authorities ends it."""
    mesh, other = Authority(tmp_path, "mesh"), Authority(tmp_path, "other")
    sent = shown(mesh.sign("a", SPIFFE).certificate)
    method = Certificates([provider(mesh)])
    exchange = scene.open(None)
    exchange.request.stream.transport = SimpleNamespace(certificates=sent)
    exchange.principal = method.verify(sent, NOW)
    scene.lasting.use(Authenticator([method]))
    scene.lasting.run(exchange)
    scene.pass_time(2 * REVIEW + 0.2)
    assert scene.refused == []
    scene.lasting.use(Authenticator([Certificates([provider(other)])]))
    scene.pass_time(0.2)
    assert scene.failed == ["authority"]
