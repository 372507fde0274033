"""The token endpoint: who gets a token, for what, and how it refuses."""

from __future__ import annotations

import json
import logging
from base64 import b64encode, urlsafe_b64decode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import RSAKey
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import ILogObserver, globalLogPublisher

from apigw.config.errors import ConfigError
from apigw.config.model import Secret
from apigw.contract.principal import Principal
from apigw.errors import AuthUnavailable, Overloaded
from apigw.policy.auth.jwt.tokens import Tokens
from apigw.policy.auth.model import Auth
from apigw.policy.auth.secrets import Cost, SecretHash, hash_generated, hash_secret, new_secret
from apigw.policy.oauth.clients import Run
from apigw.policy.oauth.endpoint import TokenEndpoint, TokenResponse, metadata
from apigw.policy.oauth.model import OAuth, OAuthClient, OAuthSigning, Quota
from apigw.policy.oauth.refresh import LIFETIME, MemoryFamilies
from apigw.policy.oauth.signing import Signer, load_signer, own_tokens

NOW = 1_800_000_000.0
GENERATED, OTHER = new_secret(), new_secret()
CHOSEN = "correct+horse/battery=staple"
SIGNING = OAuthSigning("HS256", "k1", secret=Secret(b"0123456789abcdef0123456789abcdef"))
ACME = OAuthClient("acme", (hash_generated(GENERATED),), ("partner",), ("orders.read", "orders.write"))
CHOOSY = OAuthClient("choosy", (hash_secret(CHOSEN),))
CONFIG = OAuth(SIGNING, "https://gateway.example", ("gateway",), rate_limit=Quota(1000, 60.0), clients=(ACME, CHOOSY))
FORM = (b"content-type", b"application/x-www-form-urlencoded")

T = TypeVar("T")


def now_or_never(deferred: Deferred[T]) -> T:
    results: list[T] = []
    failures: list[Any] = []
    deferred.addCallbacks(results.append, failures.append)
    for failure in failures:
        failure.raiseException()
    return results[0]


class Windows:
    """Counts per key, without ever forgetting."""

    def __init__(self) -> None:
        self.counts: defaultdict[bytes, int] = defaultdict(int)

    def allow(self, counts: Sequence[tuple[bytes, int]], window: float) -> float | None:
        if any(self.counts.get(key, 0) >= limit for key, limit in counts):
            return window / 2 - 0.75
        for key, _ in counts:
            self.counts[key] += 1
        return None


def at_once(work: Callable[[], bool], id: str) -> Deferred[bool]:
    return maybeDeferred(work)


class Scene:
    """An endpoint with everything that it needs, and a way to ask it."""

    def __init__(self, config: OAuth = CONFIG, run: Run = at_once) -> None:
        self.config = config
        self.signer: Signer = load_signer(config.signing)
        self.families = MemoryFamilies()
        self.windows = Windows()
        self.run = run
        self.endpoint: TokenEndpoint | None = None
        self.reload(config)

    def reload(self, config: OAuth) -> None:
        self.endpoint = TokenEndpoint(
            config, self.signer, self.windows.allow, self.run, self.families, previous=self.endpoint
        )

    def ask(
        self,
        body: bytes | dict[str, str],
        *headers: tuple[bytes, bytes],
        address: str = "192.0.2.1",
        networks: tuple[str, ...] = (),
        now: float = NOW,
    ) -> TokenResponse:
        raw = body if isinstance(body, bytes) else urlencode(body).encode()
        return now_or_never(self.respond([FORM, *headers], raw, (address, *networks), now))

    def respond(
        self,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        addresses: tuple[str, ...] = ("192.0.2.1",),
        now: float = NOW,
    ) -> Deferred[TokenResponse]:
        assert self.endpoint is not None
        return self.endpoint.respond(headers, body, addresses, now)

    def token(self, **form: str) -> TokenResponse:
        return self.ask({"grant_type": "client_credentials", **form}, basic("acme", GENERATED))

    def principal(self, response: TokenResponse) -> Principal:
        token = content(response)["access_token"].encode()
        authenticator = Tokens(Auth(), own=own_tokens(self.config, self.signer))
        principal = authenticator.authenticate([b"Bearer " + token], NOW)
        assert isinstance(principal, Principal)
        return principal


def basic(id: str, secret: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Basic " + b64encode(f"{id}:{secret}".encode())


def content(response: TokenResponse) -> dict[str, Any]:
    return dict(json.loads(response.body))


def claims(response: TokenResponse) -> dict[str, Any]:
    payload = content(response)["access_token"].split(".")[1]
    return dict(json.loads(urlsafe_b64decode(payload + "==")))


def error(response: TokenResponse) -> tuple[int, str]:
    assert dict(response.headers)[b"cache-control"] == b"no-store"
    assert response.error == content(response)["error"]
    return response.status, content(response)["error"]


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Everything that is logged, through Twisted or the standard library."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    def observe(event: dict[str, Any]) -> None:
        lines.append(str(event))

    root, observer = logging.getLogger(), Lines()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(observer)
    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    yield lines
    globalLogPublisher.removeObserver(cast(ILogObserver, observe))
    root.removeHandler(observer)
    root.setLevel(level)


def test_a_partner_gets_a_token_and_calls_with_it() -> None:
    """A partner with the right secret gets no token, or one that the gateway does not take."""
    scene = Scene()
    response = scene.token()
    assert response.status == 200
    assert response.client == "acme"
    assert {name: value for name, value in content(response).items() if name != "access_token"} == {
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "orders.read orders.write",
    }
    headers = dict(response.headers)
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == b"%d" % len(response.body)
    said = claims(response)
    assert len(said.pop("jti")) >= 16
    assert said == {
        "iss": "https://gateway.example",
        "aud": "gateway",
        "sub": "acme",
        "client_id": "acme",
        "roles": ["partner"],
        "scope": "orders.read orders.write",
        "iat": NOW,
        "exp": NOW + 3600,
    }
    principal = scene.principal(response)
    assert (principal.provider, principal.id, principal.roles) == ("oauth", "acme", ("partner",))
    assert principal.scopes == {"orders.read", "orders.write"}
    assert claims(scene.token())["jti"] != claims(scene.token())["jti"]


def test_a_token_without_audience_is_for_the_issuer() -> None:
    """Without a configured audience the gateway refuses the tokens that it has just issued."""
    scene = Scene(evolve(CONFIG, audience=()))
    assert claims(scene.token())["aud"] == "https://gateway.example"
    assert scene.principal(scene.token()).id == "acme"
    assert claims(Scene(evolve(CONFIG, audience=("a", "b"))).token())["aud"] == ["a", "b"]


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("orders.read", "orders.read"),
        ("orders.write orders.read", "orders.read orders.write"),
        ("", "orders.read orders.write"),
    ],
)
def test_a_client_gets_the_scopes_that_it_asks_for(asked: str, granted: str) -> None:
    """A client that asks for less gets more, and its token can do more damage when it leaks."""
    response = Scene().token(scope=asked)
    assert content(response)["scope"] == claims(response)["scope"] == granted


CREDENTIALS = {"client_id": "acme", "client_secret": GENERATED}


@pytest.mark.parametrize(
    "secret", [CHOSEN, CHOSEN.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")], ids=["plain", "escaped"]
)
def test_credentials_come_in_every_spelling(secret: str) -> None:
    """Clients that escape the parts of Basic, as the RFC says, get in and the others do not; or the other way round."""
    grant = {"grant_type": "client_credentials"}
    assert Scene().ask(grant, basic("choosy", secret)).status == 200
    assert Scene().ask({**grant, "client_id": "choosy", "client_secret": CHOSEN}).status == 200
    assert Scene().ask({**grant, "client_id": "acme"}, basic("acme", GENERATED)).status == 200
    assert Scene().ask(grant, (b"Authorization", BASIC[1].replace(b"Basic", b"bASIC  "))).status == 200


G = b"grant_type=client_credentials"
BASIC = basic("acme", GENERATED)


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        pytest.param(b"", [BASIC], (400, "invalid_request"), id="empty"),
        pytest.param(b"&&&", [BASIC], (400, "invalid_request"), id="nothing but separators"),
        pytest.param(G + b"&x=" + b"y" * 9000, [BASIC], (400, "invalid_request"), id="oversized"),
        pytest.param(G + b"&a=1" * 40, [BASIC], (400, "invalid_request"), id="many parameters"),
        pytest.param(G + b"&" + G, [BASIC], (400, "invalid_request"), id="grant_type twice"),
        pytest.param(G + b"&scope=a&scope=b", [BASIC], (400, "invalid_request"), id="scope twice"),
        pytest.param(G + b"&scope=&scope=orders.read", [BASIC], (400, "invalid_request"), id="scope twice, one empty"),
        pytest.param(G + b"&x=%ff", [BASIC], (400, "invalid_request"), id="not UTF-8"),
        pytest.param(G + b"&x=\xff", [BASIC], (400, "invalid_request"), id="not ASCII"),
        pytest.param(b"grant_type=", [BASIC], (400, "invalid_request"), id="no value"),
        pytest.param(b'{"grant_type":"client_credentials"}', [BASIC], (400, "invalid_request"), id="JSON"),
        pytest.param(b"grant_type=password", [BASIC], (400, "unsupported_grant_type"), id="unknown grant"),
        pytest.param(b"grant_type=client_credentials%20", [BASIC], (400, "unsupported_grant_type"), id="a space"),
        pytest.param(
            b"grant_type=refresh_token", [BASIC], (400, "unsupported_grant_type"), id="refresh not configured"
        ),
        pytest.param(G + b"&scope=admin", [BASIC], (400, "invalid_scope"), id="foreign scope"),
        pytest.param(G + b"&scope=orders.read%0Aadmin", [BASIC], (400, "invalid_scope"), id="scope with a newline"),
        pytest.param(G, [], (401, "invalid_client"), id="no credentials"),
        pytest.param(G + b"&client_id=acme", [], (401, "invalid_client"), id="id alone"),
        pytest.param(G, [basic("acme", "")], (401, "invalid_client"), id="empty secret"),
        pytest.param(G, [basic("", GENERATED)], (401, "invalid_client"), id="empty id"),
        pytest.param(G, [basic("acme", OTHER)], (401, "invalid_client"), id="wrong secret"),
        pytest.param(G, [basic("acme", GENERATED + "\n")], (401, "invalid_client"), id="secret and newline"),
        pytest.param(G, [basic("acme", "x" * 5000)], (401, "invalid_client"), id="huge secret"),
        pytest.param(G, [basic("nobody", GENERATED)], (401, "invalid_client"), id="unknown client"),
        pytest.param(G, [basic("ACME", GENERATED)], (401, "invalid_client"), id="another case"),
        pytest.param(G, [basic("ac\0me", GENERATED)], (401, "invalid_client"), id="NUL in the id"),
        pytest.param(G, [(b"authorization", b"Basic")], (401, "invalid_client"), id="Basic alone"),
        pytest.param(G, [(b"authorization", b"Basic !!!!")], (401, "invalid_client"), id="bad base64"),
        pytest.param(G, [(b"authorization", BASIC[1].rstrip(b"=") + b"*")], (401, "invalid_client"), id="bad padding"),
        pytest.param(
            G, [(b"authorization", b"Basic " + b64encode(b"\xff:\xff"))], (401, "invalid_client"), id="Latin-1"
        ),
        pytest.param(G, [(b"authorization", b"Basic " + b64encode(b"acme"))], (401, "invalid_client"), id="no colon"),
        pytest.param(G, [(b"authorization", b"Bearer abc")], (401, "invalid_client"), id="another scheme"),
        pytest.param(G, [BASIC, BASIC], (400, "invalid_request"), id="Authorization twice"),
        pytest.param(
            G + b"&client_secret=" + GENERATED.encode(),
            [BASIC],
            (400, "invalid_request"),
            id="both kinds",
        ),
        pytest.param(G + b"&client_id=choosy", [BASIC], (400, "invalid_request"), id="another id in the body"),
    ],
)
def test_a_bad_request_has_its_error(
    body: bytes, headers: list[tuple[bytes, bytes]], expected: tuple[int, str], log: list[str]
) -> None:
    """A bad request gets a token, or an answer that no OAuth client understands, or one that repeats a secret."""
    response = Scene().ask(body, *headers)
    assert error(response) == expected
    challenge = dict(response.headers).get(b"www-authenticate")
    assert (challenge is not None and challenge.startswith(b"Basic realm=")) == (response.status == 401)
    said = response.body.decode() + "".join(log)
    assert not any(secret in said for secret in (GENERATED, OTHER, BASIC[1].decode()))


@pytest.mark.parametrize(
    "types", [[], [b"application/json"], [b"text/plain"], [FORM[1], FORM[1]], [b"multipart/form-data"]]
)
def test_only_forms_are_read(types: list[bytes]) -> None:
    """A web page can make a browser send a token request as plain text."""
    headers = [BASIC, *((b"content-type", value) for value in types)]
    assert error(now_or_never(Scene().respond(headers, G))) == (400, "invalid_request")
    with_charset = [BASIC, (b"Content-Type", b"Application/X-WWW-Form-Urlencoded; charset=UTF-8")]
    assert now_or_never(Scene().respond(with_charset, G)).status == 200


@given(st.binary(max_size=200), st.lists(st.tuples(st.just(b"authorization"), st.binary(max_size=60)), max_size=2))
def test_no_bytes_break_it(body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Rubbish becomes a 500."""
    assert error(SHARED.ask(body, *headers))[0] in {400, 401}


SHARED = Scene(evolve(CONFIG, clients=(ACME,)))


def test_an_unknown_client_looks_like_a_wrong_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the answer or by its work one can find out which clients exist, and how they keep their secrets."""
    work: list[Cost] = []
    matches = SecretHash.matches

    def counting(self: SecretHash, secret: str) -> bool:
        work.append(self.cost)
        return matches(self, secret)

    monkeypatch.setattr(SecretHash, "matches", counting)
    rotating = OAuthClient("rotating", (hash_generated(OTHER), hash_generated(GENERATED)))
    disabled = OAuthClient("disabled", ())
    scene = Scene(evolve(CONFIG, clients=(ACME, CHOOSY, rotating, disabled)))
    answers, works = set(), []
    for id in ("acme", "choosy", "rotating", "disabled", "nobody"):
        work.clear()
        response = scene.ask(G, basic(id, "wrong wrong wrong"))
        answers.add((response.status, tuple(response.headers), response.body))
        works.append(Counter(work))
    assert len(answers) == 1
    assert works == [Counter({None: 2, (2**14, 8, 1): 1})] * 5


def test_during_a_rotation_both_secrets_work() -> None:
    """Changing a secret locks the client out until both sides have changed it."""
    rotating = evolve(ACME, secret_hash=(hash_generated(OTHER), *ACME.secret_hash))
    scene = Scene(evolve(CONFIG, clients=(rotating,)))
    for secret in (GENERATED, OTHER):
        assert scene.ask(G, basic("acme", secret)).status == 200
    scene.reload(evolve(CONFIG, clients=(evolve(ACME, secret_hash=(hash_generated(OTHER),)),)))
    assert error(scene.ask(G, basic("acme", GENERATED))) == (401, "invalid_client")


def hashing_scene(limit: int) -> tuple[Scene, list[int]]:
    hashed: list[int] = []

    def run(work: Callable[[], bool], id: str) -> Deferred[bool]:
        hashed.append(1)
        return succeed(False)

    return Scene(evolve(CONFIG, rate_limit=Quota(limit, 60.0)), run), hashed


def test_guessing_is_limited_before_anything_is_hashed() -> None:
    """Guessing secrets keeps both cores busy."""
    for id in ("acme", "nobody"):
        scene, hashed = hashing_scene(3)
        for _ in range(3):
            assert error(scene.ask(G, basic(id, OTHER))) == (401, "invalid_client")
        response = scene.ask(G, basic(id, OTHER))
        assert error(response) == (429, "temporarily_unavailable")
        assert dict(response.headers)[b"retry-after"] == b"30"
        assert len(hashed) == 3


def test_one_address_cannot_guess_at_many_clients() -> None:
    """The limit is got round by naming another client each time."""
    scene, hashed = hashing_scene(3)
    answers = Counter(error(scene.ask(G, basic(f"client{number}", OTHER)))[0] for number in range(30))
    assert answers == {401: 18, 429: 12}
    assert len(hashed) == 18
    assert len(scene.windows.counts) == 19, "the address, and those that it was not refused for"
    assert scene.ask(G, BASIC, address="192.0.2.2").status == 200


def test_one_network_cannot_guess_from_many_addresses() -> None:
    """The wider the network, the more it may ask: six times a client's limit for an address, and six times that."""
    scene, _ = hashing_scene(2)
    answers = Counter(
        error(scene.ask(G, basic(f"client{n}", OTHER), address=f"2001:db8:0:{n}", networks=("2001:db8:0",)))[0]
        for n in range(100)
    )
    assert answers == {401: 72, 429: 28}
    assert scene.ask(G, BASIC, address="2001:db8:1:1", networks=("2001:db8:1",)).status == 200


def test_nobody_locks_a_client_out_by_naming_it() -> None:
    """Whoever knows a client's id can keep it from getting tokens."""
    scene, _ = hashing_scene(3)
    for _ in range(50):
        scene.ask(G, basic("acme", OTHER), address="198.51.100.7")
    assert scene.ask(G, BASIC).status == 200


def test_one_client_is_limited_over_all_its_addresses() -> None:
    """A client with many addresses gets more tokens than its limit says."""
    scene, _ = hashing_scene(3)
    answers = [scene.ask(G, BASIC, address=f"192.0.2.{number}").status for number in range(5)]
    assert answers == [200, 200, 200, 429, 429]


def test_when_too_many_secrets_wait_it_says_so() -> None:
    """A flood of requests piles up in memory."""

    def full(work: Callable[[], bool], id: str) -> Deferred[bool]:
        raise Overloaded("full", [(b"retry-after", b"1")])

    response = Scene(run=full).ask(G, basic("choosy", CHOSEN))
    assert error(response) == (503, "temporarily_unavailable")
    assert dict(response.headers)[b"retry-after"] == b"1"


def refreshing() -> tuple[Scene, str]:
    scene = Scene(evolve(CONFIG, refresh_tokens=True))
    token: str = content(scene.token())["refresh_token"]
    return scene, token


def refreshed(scene: Scene, token: str, *headers: tuple[bytes, bytes], now: float = NOW, **form: str) -> TokenResponse:
    body = {"grant_type": "refresh_token", "refresh_token": token, **form}
    return scene.ask(body, *(headers or (BASIC,)), now=now)


def test_a_refresh_token_is_good_for_one_use(log: list[str]) -> None:
    """A stolen refresh token works for ever beside the client's own."""
    scene, first = refreshing()
    response = refreshed(scene, first)
    second = content(response)["refresh_token"]
    assert second != first
    assert scene.principal(response).id == "acme"
    third = content(refreshed(scene, second))["refresh_token"]
    assert error(refreshed(scene, first)) == (400, "invalid_grant")
    assert error(refreshed(scene, third)) == (400, "invalid_grant")
    assert len(scene.families) == 0
    said = "".join(log)
    assert "used twice" in said
    tokens = (first, second, third, *first.split("."), content(response)["access_token"])
    assert not any(token in said for token in tokens)


def test_two_refreshes_at_once_do_not_both_succeed() -> None:
    """The thief and the client refresh in the same moment, and both get a token."""
    scene, token = refreshing()
    waiting: list[tuple[Deferred[Any], Any]] = []
    replace = scene.families.replace

    def slowly(*arguments: Any) -> Deferred[bool]:
        answer: Deferred[bool] = Deferred()
        waiting.append((answer, arguments))
        return answer

    scene.families.replace = slowly  # type: ignore[assignment, method-assign]
    body = urlencode({"grant_type": "refresh_token", "refresh_token": token}).encode()
    answers = [scene.respond([FORM, BASIC], body) for _ in range(2)]
    for answer, arguments in waiting:
        answer.callback(now_or_never(replace(*arguments)))
    assert [now_or_never(answer).status for answer in answers] == [200, 400]
    assert len(scene.families) == 0


def test_a_refresh_asks_for_no_more_than_was_granted() -> None:
    """A client widens its scopes by refreshing, or keeps those that it has lost since."""
    scene = Scene(evolve(CONFIG, refresh_tokens=True))
    token = content(scene.token(scope="orders.read"))["refresh_token"]
    assert error(refreshed(scene, token, scope="orders.write")) == (400, "invalid_scope")
    response = refreshed(scene, token)
    assert content(response)["scope"] == "orders.read"
    wide = content(scene.token())["refresh_token"]
    less = evolve(ACME, scopes=("orders.read",), roles=())
    scene.reload(evolve(CONFIG, refresh_tokens=True, clients=(less,)))
    response = refreshed(scene, wide)
    assert (claims(response)["scope"], claims(response)["roles"]) == ("orders.read", [])


def test_a_refresh_token_is_bound_to_its_client_and_ends() -> None:
    """A refresh token works for whoever has it, without a secret, or for ever."""
    scene, token = refreshing()
    assert error(refreshed(scene, token, basic("choosy", CHOSEN))) == (400, "invalid_grant")
    assert error(refreshed(scene, token, basic("acme", OTHER))) == (401, "invalid_client")
    assert error(refreshed(scene, token + "x")) == (400, "invalid_grant")
    assert error(refreshed(scene, "")) == (400, "invalid_request")
    assert error(refreshed(scene, token, now=NOW + LIFETIME)) == (400, "invalid_grant")
    assert refreshed(scene, token, now=NOW + LIFETIME - 1).status == 200


def test_refresh_tokens_are_bounded_and_kept_as_digests() -> None:
    """Memory grows with every token, or reading it gives tokens that work."""
    scene = Scene(evolve(CONFIG, refresh_tokens=True))
    scene.families = MemoryFamilies(capacity=3)
    scene.reload(evolve(CONFIG, refresh_tokens=True))
    tokens = [content(scene.token())["refresh_token"] for _ in range(5)]
    assert len(scene.families) == 3
    assert error(refreshed(scene, tokens[0])) == (400, "invalid_grant")
    assert refreshed(scene, tokens[4]).status == 200
    assert not any(token.split(".")[1] in repr(scene.families._families) for token in tokens)


def test_metadata_says_where_everything_is() -> None:
    """Client libraries that configure themselves find nothing, or a grant that is not there."""
    assert metadata(CONFIG) == {
        "issuer": "https://gateway.example",
        "token_endpoint": "https://gateway.example/oauth/token",
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
    }
    signing = OAuthSigning("RS256", "k1", "token.pem")
    document = metadata(evolve(CONFIG, issuer="https://gateway.example/", signing=signing, refresh_tokens=True))
    assert document["token_endpoint"] == "https://gateway.example/oauth/token"
    assert document["jwks_uri"] == "https://gateway.example/.well-known/jwks.json"
    assert document["grant_types_supported"] == ["client_credentials", "refresh_token"]


def test_clients_that_cannot_be_used_are_named() -> None:
    """A mistake in one client's entry is found when that client first calls."""
    bad = (
        ACME,
        OAuthClient("acme", (ACME.secret_hash[0], "plain text")),
        OAuthClient("a:b", ("scrypt$1024$8$1$" + "A" * 22 + "$" + "A" * 43,), ("a,b",), ('say "x"',)),
    )
    with pytest.raises(ConfigError) as caught:
        Scene(evolve(CONFIG, clients=bad))
    places = [str(problem).split(": ")[0] for problem in caught.value.problems]
    prefix = "auth.oauth.clients"
    assert places == [
        f"{prefix}[1].id",
        f"{prefix}[1].secret_hash[1]",
        f"{prefix}[2].id",
        f"{prefix}[2].roles[0]",
        f"{prefix}[2].scopes[0]",
        f"{prefix}[2].secret_hash[0]",
    ]
    assert "plain text" not in str(caught.value)


def test_a_real_client_library_verifies_the_published_key(tmp_path: Any) -> None:
    """A service that verifies tokens by ``/.well-known/jwks.json`` refuses ours."""
    from joserfc import jwt
    from joserfc.jwk import KeySet

    pem = RSAKey.generate_key(2048).as_pem(private=True)
    (tmp_path / "token.pem").write_bytes(pem)
    scene = Scene(evolve(CONFIG, signing=OAuthSigning("RS256", "k1", str(tmp_path / "token.pem"))))
    published = json.loads(json.dumps(scene.signer.jwks()))
    token = jwt.decode(content(scene.token())["access_token"], KeySet.import_key_set(published), algorithms=["RS256"])
    assert token.header == {"alg": "RS256", "typ": "at+jwt", "kid": "k1"}
    assert token.claims["sub"] == "acme"


def test_without_its_store_a_client_still_gets_a_token() -> None:
    """Redis is down, and no partner can log in any more."""
    scene = Scene(evolve(CONFIG, refresh_tokens=True))
    token = content(scene.token())["refresh_token"]

    def unavailable(*_: object) -> Deferred[Any]:
        return fail(AuthUnavailable("gone", [(b"retry-after", b"1")]))

    scene.families.put = scene.families.get = unavailable  # type: ignore[assignment, method-assign]
    response = scene.token()
    assert response.status == 200
    assert "refresh_token" not in content(response)
    assert scene.principal(response).id == "acme"
    response = refreshed(scene, token)
    assert error(response) == (503, "temporarily_unavailable")
    assert (b"retry-after", b"1") in response.headers
