"""Key sets from a URL: fresh when the server is up, good when it is down, and never asked too often."""

from __future__ import annotations

import json
from functools import cache, partial
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from support.logged import logged
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from apigw.contract.principal import Principal
from apigw.errors import AuthUnavailable, GatewayError, Unauthorized
from apigw.policy.auth.jwt.jwks import DEADLINE, KeySet, Running, Source, carry_over, lifetime
from apigw.policy.auth.jwt.keys import MAX_SET_BYTES, key_set
from apigw.policy.auth.jwt.model import JWTVerifier
from apigw.policy.auth.jwt.public_keys import as_jwk
from apigw.policy.auth.jwt.tokens import Tokens
from apigw.policy.auth.model import Auth

URL = "https://user:password@id.example:8443/keys?token=hidden"


SOURCE = Source(URL)


@cache
def rsa(name: str) -> RSAKey:
    return RSAKey.generate_key(2048)


def jwk(name: str, **members: Any) -> dict[str, Any]:
    return {**rsa(name).as_dict(private=False), "kid": name, "use": "sig", "alg": "RS256", **members}


def document(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


class KeyServer:
    """Answers fetches: at once with ``keys``, not at all while ``silent``, with an error while ``down``."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.cache_control = ""
        self.down = False
        self.silent = False
        self.fetches = 0
        self.pending: list[Deferred[None]] = []

    async def fetch(self, url: str) -> tuple[bytes, dict[str, str]]:
        assert url == URL
        self.fetches += 1
        if self.silent:
            answered: Deferred[None] = Deferred()
            self.pending.append(answered)
            await answered
        if self.down:
            raise ConnectionRefusedError("nobody listens.")
        return document(*map(jwk, self.keys)), {"cache-control": self.cache_control}

    def answer(self) -> None:
        pending, self.pending = self.pending, []
        for answered in pending:
            answered.callback(None)


class Scene:
    """An authenticator whose keys come from a ``KeyServer``, and a clock."""

    def __init__(self, *keys: str) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.server = KeyServer(*keys)
        self.keys = KeySet(SOURCE, self.server.fetch, self.clock)
        self.authenticator = self.reloaded()

    def reloaded(self) -> Tokens:
        verifier = JWTVerifier("id", "RS256", jwks_url=URL)
        return Tokens(Auth((verifier,)), {SOURCE: self.keys})

    def token(self, key: str, **header: Any) -> bytes:
        claims = {"sub": "alice", "exp": self.clock.seconds() + 3600}
        signed = jwt.encode({"alg": "RS256", "kid": key, **header}, claims, rsa(key), algorithms=["RS256"])
        return b"Bearer " + signed.encode()

    def ask(self, token: bytes) -> list[object]:
        """What is answered, once it is: the id of the principal, or the class of the refusal."""
        answers: list[object] = []
        try:
            answer = self.authenticator.authenticate([token], self.clock.seconds())
        except GatewayError as error:
            return [type(error)]
        if isinstance(answer, Deferred):
            answer.addCallbacks(
                lambda principal: answers.append(principal.id), lambda failure: answers.append(failure.type)
            )
        else:
            assert isinstance(answer, Principal)
            answers.append(answer.id)
        return answers


def test_a_set_is_fetched_at_start_and_before_it_expires() -> None:
    """Keys are used long after the provider has taken them back, or are fetched for every request."""
    scene = Scene("a")
    assert scene.server.fetches == 0
    scene.keys.start()
    scene.keys.start()
    assert scene.server.fetches == 1
    assert scene.ask(scene.token("a")) == ["alice"]
    scene.clock.advance(479)
    assert scene.server.fetches == 1
    scene.clock.advance(1)
    assert scene.server.fetches == 2
    scene.server.cache_control = "public, max-age=1000"
    scene.clock.advance(480)
    scene.clock.advance(799)
    assert scene.server.fetches == 3
    scene.clock.advance(1)
    assert scene.server.fetches == 4


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 600),
        ({"cache-control": "public"}, 600),
        ({"cache-control": "public, max-age=900"}, 900),
        ({"cache-control": 'Max-Age="900"'}, 900),
        ({"cache-control": "s-maxage=5, max-age=900", "age": "100"}, 800),
        ({"cache-control": "max-age=900", "age": "soon"}, 900),
        ({"cache-control": "max-age=1"}, 60),
        ({"cache-control": "max-age=31536000"}, 3600),
        ({"cache-control": "max-age=99999999999999999999999"}, 3600),
        ({"cache-control": "no-cache"}, 60),
        ({"cache-control": "no-store, max-age=900"}, 60),
        ({"cache-control": "x-max-age=5"}, 600),
    ],
)
def test_how_long_a_set_is_good(headers: dict[str, str], seconds: float) -> None:
    """A provider's odd Cache-Control has us fetch all the time, or keep a revoked key for a year."""
    assert lifetime(headers) == seconds


def test_tokens_wait_for_the_first_fetch() -> None:
    """The first requests after a start are refused although their tokens are good."""
    scene = Scene("a")
    scene.server.silent = True
    scene.keys.start()
    answers = [scene.ask(scene.token("a")), scene.ask(scene.token("b")), scene.ask(scene.token("a"))]
    assert answers == [[], [], []]
    scene.server.answer()
    assert answers == [["alice"], [Unauthorized], ["alice"]]
    assert scene.server.fetches == 1


def test_keys_never_fetched_are_a_503() -> None:
    """Clients throw good tokens away because the key server was down when the gateway started."""
    scene = Scene("a")
    scene.server.down = True
    scene.keys.start()
    with pytest.raises(AuthUnavailable) as caught:
        scene.authenticator.authenticate([scene.token("a")], scene.clock.seconds())
    assert (caught.value.status, caught.value.headers) == (503, [(b"retry-after", b"1")])
    scene.server.down = False
    scene.clock.advance(1)
    assert scene.ask(scene.token("a")) == ["alice"]


def test_a_silent_server_is_given_up() -> None:
    """Requests hang for as long as a key server does not answer."""
    scene = Scene("a")
    scene.server.silent = True
    scene.keys.start()
    answers = scene.ask(scene.token("a"))
    scene.clock.advance(DEADLINE)
    assert answers == [AuthUnavailable]
    scene.clock.advance(1)
    assert scene.server.fetches == 2


def test_a_down_server_is_asked_ever_less_often() -> None:
    """A key server that comes back is kept down by the gateways that ask for keys."""
    scene = Scene("a")
    scene.server.down = True
    scene.keys.start()
    at, seen = [0], 1
    for second in range(1, 200):
        scene.clock.advance(1)
        if scene.server.fetches > seen:
            seen = scene.server.fetches
            at.append(second)
    assert at[:9] == [0, 1, 3, 7, 15, 31, 61, 91, 121]
    scene.clock.pump([30] * 2000)
    assert scene.keys.keys is None


def test_an_unknown_kid_fetches_at_most_every_30_seconds() -> None:
    """Anybody who invents key ids has us hammer the identity provider."""
    scene = Scene("a")
    scene.keys.start()
    for _ in range(50):
        assert scene.ask(scene.token("x", kid="invented")) == [Unauthorized]
    assert scene.server.fetches == 2
    scene.clock.advance(29.9)
    assert scene.ask(scene.token("x")) == [Unauthorized]
    assert scene.server.fetches == 2
    scene.clock.advance(0.1)
    assert scene.ask(scene.token("x")) == [Unauthorized]
    assert scene.server.fetches == 3


def test_a_wrong_signature_under_a_known_kid_fetches_nothing() -> None:
    """Forged tokens make the gateway fetch keys."""
    scene = Scene("a")
    scene.keys.start()
    assert scene.ask(scene.token("x", kid="a")) == [Unauthorized]
    assert scene.server.fetches == 1


def test_a_rotation_refuses_no_valid_token() -> None:
    """When the provider rotates its keys some callers are turned away until the next refresh."""
    scene = Scene("a")
    scene.keys.start()
    old = scene.token("a")
    assert scene.ask(old) == ["alice"]
    scene.server.keys = ("a", "b")
    scene.server.silent = True
    answers = [scene.ask(scene.token("b")) for _ in range(3)]
    assert scene.ask(old) == ["alice"]
    scene.server.answer()
    assert answers == [["alice"]] * 3
    assert scene.server.fetches == 2
    assert scene.ask(old) == ["alice"]


def test_a_key_that_leaves_the_set_ends_its_tokens() -> None:
    """A key is revoked, and the tokens that we have seen go on working; or all others have to be verified anew."""
    scene = Scene("a", "b")
    scene.keys.start()
    gone, kept = scene.token("a"), scene.token("b")
    assert (scene.ask(gone), scene.ask(kept)) == (["alice"], ["alice"])
    seen = scene.authenticator._seen[kept]
    scene.server.keys = ("b",)
    scene.clock.advance(480)
    assert scene.ask(gone) == [Unauthorized]
    assert scene.ask(kept) == ["alice"]
    assert scene.authenticator._seen[kept] is seen


def test_while_the_server_is_down_the_last_good_set_stays() -> None:
    """The identity provider's outage becomes the outage of everything behind the gateway."""
    scene = Scene("a")
    scene.keys.start()
    scene.server.down = True
    for _ in range(100):
        scene.clock.advance(60)
        assert scene.ask(scene.token("a")) == ["alice"]
    assert scene.ask(scene.token("b")) == [AuthUnavailable]
    scene.server.down = False
    scene.server.keys = ("a", "b")
    scene.clock.advance(30)
    assert scene.ask(scene.token("b")) == ["alice"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"keys": []}', b'{"keys": {}}', b'{"keys":[],"keys":[]}', b""])
def test_rubbish_instead_of_a_set_changes_nothing(body: bytes) -> None:
    """The provider's error page, sent with status 200, throws all keys away."""
    scene = Scene("a")
    scene.keys.start()

    async def rubbish(url: str) -> tuple[bytes, dict[str, str]]:
        return body, {}

    scene.keys._fetch = rubbish
    scene.clock.advance(480)
    assert scene.ask(scene.token("a")) == ["alice"]


def test_a_client_that_leaves_does_not_stop_the_fetch_of_others() -> None:
    """One caller hangs up while keys are fetched, and all who wait with it fail."""
    scene = Scene("a")
    scene.server.silent = True
    scene.keys.start()
    leaving = scene.authenticator.authenticate([scene.token("a")], scene.clock.seconds())
    staying = scene.ask(scene.token("a"))
    assert isinstance(leaving, Deferred)
    leaving.addErrback(lambda _: None)
    leaving.cancel()
    scene.server.answer()
    assert staying == ["alice"]


def test_who_waits_may_be_cancelled_by_who_was_told_first() -> None:
    """The fetch is over for both: neither is told twice, and what comes next is fetched as ever."""
    scene = Scene("a")
    scene.server.silent = True
    scene.keys.start()
    told: list[int] = []
    waiters = [waiter for waiter in (scene.keys.wanted(), scene.keys.wanted(), scene.keys.wanted()) if waiter]
    for number, waiter in enumerate(waiters):
        waiter.addCallback(partial(lambda number, _: told.append(number), number))
        waiter.addErrback(lambda failure: failure.trap(CancelledError))
    waiters[0].addCallback(lambda _: waiters[1].cancel())
    scene.server.answer()
    waiters[2].cancel()
    assert told == [0, 2]
    assert scene.ask(scene.token("a")) == ["alice"]
    scene.clock.advance(480)
    assert scene.server.fetches == 2


def test_a_reload_keeps_the_sets_that_stay() -> None:
    """After each reload tokens are refused until the keys have been fetched again."""
    scene = Scene("a")
    first, running = {SOURCE: scene.keys}, Running()
    running.use(first)
    second = carry_over(
        [SOURCE, Source("https://new")], first, lambda source: KeySet(source, scene.server.fetch, scene.clock)
    )
    assert second[SOURCE] is scene.keys
    assert scene.server.fetches == 1
    scene.authenticator = scene.reloaded()
    running.use({SOURCE: scene.keys})
    assert scene.ask(scene.token("a")) == ["alice"]
    assert scene.server.fetches == 1
    running.use({})
    assert scene.clock.getDelayedCalls() == []


def test_a_set_that_goes_ends_its_fetch_only_for_nobody() -> None:
    """A reload fails a request that waits for keys, or leaves a fetch running for ever."""
    scene = Scene("a")
    scene.server.silent = True
    scene.keys.start()
    waiting = scene.ask(scene.token("a"))
    scene.keys.stop()
    scene.server.answer()
    assert waiting == ["alice"]
    scene.keys.start()
    scene.keys.stop()
    assert scene.clock.getDelayedCalls() == []
    assert scene.server.pending[0].called
    assert scene.ask(scene.token("a")) == ["alice"]


def test_a_silent_server_is_said_in_words() -> None:
    """How long it was waited for, and no name of a class of ours."""
    scene = Scene("a")
    scene.server.silent = True
    with logged() as events:
        scene.keys.start()
        scene.clock.advance(DEADLINE)
    lines = list(map(str, events))
    assert any(f"no answer in {DEADLINE:g} s" in line for line in lines)
    assert not any("'Deferred'" in line for line in lines)


def test_nothing_secret_of_the_url_is_logged() -> None:
    """Credentials in the URL of a key set end up in the log."""
    with logged() as events:
        scene = Scene("a")
        scene.server.down = True
        scene.keys.start()
        scene.keys.stop()
    lines = [*map(str, events), *map(str, map(formatEvent, events))]
    assert any("https://id.example:8443/keys cannot be used: nobody listens; no set" in line for line in lines)
    assert not any("password" in line or "hidden" in line for line in lines)


EC = {**RSAKey.generate_key(2048).as_dict(private=False), "kty": "EC"}
UNUSABLE = [
    {"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"},
    {"kty": "oct", "alg": "RS256", "kid": "a", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"},
    EC,
    jwk("a", use="enc"),
    jwk("a", alg="RS512"),
    jwk("a", key_ops=["sign"]),
    jwk("a", key_ops="verify"),
    jwk("a", kid=7),
    jwk("a", kid=""),
    jwk("a", kid="k" * 257),
    jwk("a", n=jwk("a")["n"][:172]),
    jwk("a", n="AQAB"),
    jwk("a", n=5),
    jwk("a", n="A" * 100_000),
    jwk("a", n=jwk("a")["n"] + "="),
    jwk("a", e="AAAA"),
    jwk("a", e="Ag"),
    jwk("a", e="f" * 40),
    {"kty": "RSA"},
    {"kty": "OKP", "crv": "P-256", "x": "A" * 43, "y": "A" * 43},
    {"kty": "EC", "crv": "Ed25519", "x": "A" * 43, "y": "A" * 43},
    {},
    "key",
    None,
]


@pytest.mark.parametrize("member", UNUSABLE)
def test_keys_that_must_not_verify_are_passed_over(member: Any) -> None:
    """A published secret, a weak key or one for another use verifies tokens; or one odd key spoils the whole set."""
    good = jwk("b")
    assert [key.id for key in key_set(document(member, good), ("RS256",))] == ["b"]
    with pytest.raises(ValueError, match="without a key for RS256: 1 that"):
        key_set(document(member), ("RS256",))


def test_private_members_are_not_read() -> None:
    """A provider that publishes its private key by mistake breaks our verification, or we keep that key."""
    private = rsa("a").as_dict(private=True)
    (key,) = key_set(document({**private, "kid": "a", "p": "broken"}), ("RS256",))
    assert set(as_jwk(key.public)) == {"kty", "n", "e"}


def test_sets_are_bounded() -> None:
    """A key server that sends too much makes the gateway slow, or run out of memory."""
    with pytest.raises(ValueError, match="larger"):
        key_set(document(jwk("a")) + b" " * MAX_SET_BYTES, ("RS256",))
    with pytest.raises(ValueError, match="more than 100"):
        key_set(document(*[jwk("a")] * 101), ("RS256",))
    with pytest.raises(ValueError, match="same kid"):
        key_set(document(*[jwk("a")] * 9), ("RS256",))
    assert len(list(key_set(document(*[jwk("a", kid=str(number)) for number in range(100)]), ("RS256",)))) == 100
