"""Who may call: tokens of identity providers and of the gateway's own, as clients send them over HTTP."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session as OauthlibSession

from apigw.policy.client_secrets import hash_generated, hash_secret, new_secret

from .client import Answer, Client
from .conftest import Start
from .daemon import Daemon, Document, gateway
from .services import Service
from .tokens import Provider, bearer, claims, encode, hs256
from .waiting import eventually

HS_SECRET = b"0123456789abcdef0123456789abcdef"
HS_ISSUER = "https://legacy.example"
GATEWAY = "https://gateway.example"
SECRET, CHOSEN = new_secret(), "correct+horse/battery=staple"
REALM = 'Bearer realm="apigw"'
FORM = "Content-Type: application/x-www-form-urlencoded"

ROUTES = [
    {"path": "/api/*", "service": "main"},
    {"path": "/open/*", "service": "main", "auth": "none"},
    {"path": "/optional/*", "service": "main", "auth": "optional"},
    {"path": "/admin/*", "service": "main", "roles": ["admin", "root"]},
    {"path": "/scoped/*", "service": "main", "scopes": ["orders.read", "orders.write"]},
    {"path": "/partner/*", "service": "main", "roles": ["partner"], "scopes": ["orders.read"]},
    {"path": "/hidden/*", "service": "main", "forward_token": False},
    {"path": "/guess/*", "service": "main"},
]


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider("https://id.example")


@pytest.fixture(scope="module")
def stranger() -> Provider:
    """Calls itself the same, and has another key."""
    return Provider("https://id.example")


def with_auth(directory: Path, provider: Provider, service: Service, **settings: Any) -> Document:
    """Two verifiers and the token endpoint; the keys are written to ``directory``."""
    (directory / "main.pem").write_bytes(provider.public_pem)
    own = Provider(GATEWAY)
    (directory / "token.key").write_bytes(own.private_pem)
    clients = [
        {"id": "acme", "secret_hash": [hash_generated(SECRET)], "roles": ["partner"], "scopes": ["orders.read", "a.b"]},
        {"id": "choosy", "secret_hash": [hash_secret(CHOSEN)]},
    ]
    document = gateway(services={"main": service.url}, routes=ROUTES, **settings)
    document["auth"] = {
        "jwt": [
            {
                "name": "main",
                "algorithm": "RS256",
                "public_key_file": str(directory / "main.pem"),
                "key_id": "main",
                "issuer": provider.issuer,
                "audience": ["orders"],
                "roles_claim": "realm_access.roles",
            },
            {"name": "legacy", "algorithm": "HS256", "secret": HS_SECRET.decode(), "issuer": HS_ISSUER},
        ],
        "oauth": {
            "signing": {"algorithm": "RS256", "key_id": "k1", "private_key_file": str(directory / "token.key")},
            "issuer": GATEWAY,
            "rate_limit": {"limit": 10_000, "window": "60s"},
            "refresh_tokens": True,
            "clients": clients,
        },
    }
    document["rate_limits"] = [{"endpoint": "/guess/*", "limit": 3, "window": "60s", "scope": "ip"}]
    return document


@pytest.fixture(scope="module")
def daemon(
    in_front: Start, module_service: Service, provider: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Daemon:
    directory = tmp_path_factory.mktemp("keys")
    access_log = {"file": str(directory / "access.log"), "format": "json"}
    document = with_auth(directory, provider, module_service, access_log=access_log)
    return in_front(document, "--log-decisions")


@pytest.fixture(scope="module")
def told(daemon: Daemon) -> Iterator[Callable[[str], str]]:
    """Remembers what is secret. At the end nothing that the gateway has written may hold any of it."""
    secrets = {SECRET, CHOSEN, HS_SECRET.decode()}

    def remember(secret: str) -> str:
        secrets.update(part for part in (secret, *secret.split(".")) if len(part) >= 20)
        return secret

    yield remember
    access_log = Path(daemon._document["gateway"]["access_log"]["file"])
    daemon.get("/open/the-last")
    eventually(lambda: "/open/the-last" in access_log.read_text())
    with Client(daemon.admin) as client:
        metrics = client.get("/metrics").body.decode()
    assert 'gateway_auth_failures_total{reason="signature"}' in metrics
    for secret in secrets:
        for spelled in {secret, quote(secret, safe=""), b64encode(secret.encode()).decode()}:
            for place, text in (("log", daemon.log), ("access log", access_log.read_text()), ("metrics", metrics)):
                assert spelled not in text, f"in the {place}"


@pytest.fixture
def get(daemon: Daemon, service: Service, told: Callable[[str], str]) -> Callable[..., Answer]:
    """GET with a token. A refusal must not repeat anything of it, and not reach the service."""

    def get(target: str, token: str | None = None, *headers: str) -> Answer:
        lines = headers if token is None else (bearer(told(token)), *headers)
        answer = daemon.get(target, *lines)
        if answer.status >= 400:
            assert service.requests == []
            check_silent(answer, token or "")
        return answer

    return get


def check_silent(answer: Answer, *secrets: str) -> None:
    text = answer.body.decode() + str(answer.headers)
    for secret in secrets:
        for part in secret.split("."):
            assert len(part) < 20 or part not in text


Get = Callable[..., Answer]

# What a good token gives.


def identity(service: Service) -> dict[str, list[str]]:
    names = ("x-user-id", "x-user-roles", "x-auth-provider")
    return {name: service.last.all(name) for name in names if service.last.all(name)}


def test_a_service_learns_who_calls(get: Get, service: Service, provider: Provider) -> None:
    """The service behind does not learn who the caller is, or in a form that it does not know."""
    token = provider.token(realm_access={"roles": ["user", "admin"]})
    for _ in range(2):  # the second time from the cache
        assert get("/api/a", token).status == 200
        assert identity(service) == {
            "x-user-id": ["alice"], "x-user-roles": ["user,admin"], "x-auth-provider": ["main"]
        }  # fmt: skip
        assert service.last.get("authorization") == f"Bearer {token}"
    assert get("/api/a", hs256(HS_SECRET, HS_ISSUER, sub="bob")).status == 200
    assert identity(service) == {"x-user-id": ["bob"], "x-user-roles": ["user"], "x-auth-provider": ["legacy"]}


FORGED = [
    "X-User-ID: root", "x-user-id: root", "X_User_ID: root", "X.User.ID: root", "x-USER_id: root",
    "X-User-Roles: admin", "X_USER_ROLES: admin", "x.user.roles: admin",
    "X-Auth-Provider: forged", "X_Auth_Provider: forged", "X.AUTH-Provider: forged",
]  # fmt: skip
TRICKS = [
    (),
    ("Connection: X-User-ID, X-User-Roles, X-Auth-Provider",),
    ("Connection: close, x_user_id",),
]


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: " ".join(trick) or "plain")
@pytest.mark.parametrize("path", ["/api/a", "/optional/a", "/hidden/a", "/open/a"])
def test_what_a_caller_claims_to_be_is_replaced(
    get: Get, service: Service, provider: Provider, path: str, trick: tuple[str, ...]
) -> None:
    """A caller with a token of its own becomes administrator by a header."""
    assert get(path, provider.token(), *FORGED, *trick).status == 200
    raw = service.last.raw
    assert b"root" not in raw
    assert b"admin" not in raw
    assert b"forged" not in raw
    if path != "/open/a":
        assert identity(service) == {"x-user-id": ["alice"], "x-user-roles": [""], "x-auth-provider": ["main"]}
    else:
        assert identity(service) == {}


@pytest.mark.parametrize("path", ["/optional/a", "/open/a"])
def test_nobody_is_nobody(get: Get, service: Service, path: str) -> None:
    """Without any token a caller becomes administrator by a header, on a route that lets everybody in."""
    assert get(path, None, *FORGED, "Connection: x-user-id").status == 200
    assert identity(service) == {}
    assert b"root" not in service.last.raw


def test_a_token_that_belongs_to_the_connection_is_none(get: Get, service: Service, provider: Provider) -> None:
    """The gateway takes a header for its own that it must not pass on, and the service sees a caller without a token."""
    assert get("/api/a", provider.token(), "Connection: authorization").get("www-authenticate") == REALM
    assert get("/optional/a", provider.token(), "Connection: authorization").status == 200
    assert identity(service) == {}


def test_the_same_on_http_2(daemon: Daemon, service: Service, provider: Provider, told: Callable[[str], str]) -> None:
    """All of that holds for HTTP/1.1 only."""

    def curl(path: str, *headers: str) -> str:
        url = "http://{}:{}{}".format(*daemon.address, path)
        fields = [word for line in headers for word in ("-H", line)]
        words = ["curl", "-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]
        return subprocess.run([*words, *fields, url], capture_output=True, text=True, check=True).stdout

    token = told(provider.token())
    assert curl("/api/a", bearer(token), *FORGED) == "200 2"
    assert identity(service) == {"x-user-id": ["alice"], "x-user-roles": [""], "x-auth-provider": ["main"]}
    assert b"root" not in service.last.raw
    assert curl("/open/a", *FORGED) == "200 2"
    assert identity(service) == {}
    service.requests.clear()
    assert curl("/api/a") == "401 2"
    assert curl("/api/a", bearer(told(token[:-4] + "AAAA"))) == "401 2"
    assert curl("/api/a", bearer(token), bearer(token)) == "401 2"
    assert service.requests == []


def test_the_token_stays_here_where_the_route_says_so(get: Get, service: Service, provider: Provider) -> None:
    """A service that has no business with tokens gets them all the same."""
    token = provider.token()
    assert get("/hidden/a", token).status == 200
    assert service.last.all("authorization") == []
    assert token not in service.last.raw.decode()
    assert identity(service)["x-user-id"] == ["alice"]


# What a route demands.


def test_required_optional_and_none(get: Get, service: Service, provider: Provider) -> None:
    """A route that demands nothing by itself is open, or one that is open turns people away."""
    answer = get("/api/a")
    assert (answer.status, answer.code, answer.get("www-authenticate")) == (401, "unauthorized", REALM)
    assert get("/optional/a").status == get("/open/a").status == 200
    service.requests.clear()
    bad = provider.token(exp=1)
    answer = get("/optional/a", bad)
    assert (answer.status, 'error="invalid_token"' in (answer.get("www-authenticate") or "")) == (401, True)
    assert get("/open/a", bad).status == 200
    assert get("/optional/a", None, "Authorization: Basic YTpi").status == 200
    service.requests.clear()
    assert get("/api/a", None, "Authorization: Basic YTpi").get("www-authenticate") == REALM


def test_any_role_and_all_scopes(get: Get, service: Service, provider: Provider) -> None:
    """Everybody with a token is an administrator, or an administrator is not let in."""
    answer = get("/admin/a", provider.token(realm_access={"roles": ["user"]}))
    assert (answer.status, answer.code) == (403, "insufficient_scope")
    assert 'error="insufficient_scope"' in (answer.get("www-authenticate") or "")
    answer = get("/scoped/a", provider.token(scope="orders.read orders.list"))
    assert answer.status == 403
    assert 'scope="orders.read orders.write"' in (answer.get("www-authenticate") or "")
    assert get("/admin/a", provider.token(realm_access={"roles": ["x", "root"]})).status == 200
    assert get("/scoped/a", provider.token(scope="orders.write a orders.read")).status == 200


def test_guessing_ends_in_a_429(get: Get, service: Service, provider: Provider) -> None:
    """Whoever guesses tokens may do so for ever."""
    answers = [get("/guess/a", provider.token(exp=1)) for _ in range(4)]
    assert [answer.status for answer in answers] == [401, 401, 401, 429]
    assert 0 < int(answers[3].get("retry-after") or 0) <= 60
    assert answers[2].get("x-ratelimit-remaining") == "0"
    assert get("/guess/a").status == 429
    assert get("/api/a", provider.token()).status == 200


# Bad tokens. Each: what the answer says of it, and how it is made from a good provider and a stranger with its name.

NOW = int(time.time())
ENDLESS = b'{"iss": "https://id.example", "aud": "orders", "sub": "alice", "exp": 1e999}'
Make = Callable[[Provider, Provider], str]


def tampered(token: str, part: int, **changes: Any) -> str:
    parts = token.split(".")
    parts[part] = encode(claims("https://id.example", sub="root")) if part == 1 else encode({"alg": "RS256", **changes})
    return ".".join(parts)


def by_secret(secret: Callable[[Provider], bytes], issuer: str = HS_ISSUER) -> Make:
    return lambda provider, _: hs256(secret(provider), issuer, {"kid": "main"})


def embedded(**header: Any) -> Make:
    """Signed by the stranger, who sends the key along."""
    return lambda _, stranger: stranger.token({"jwk": stranger.jwk, **header})


def duplicated(provider: Provider, _: Provider) -> str:
    good = json.dumps(claims(provider.issuer))
    return provider.token(payload=f'{good[:-1]}, "sub": "root"}}'.encode())


def with_claim(**changes: Any) -> Make:
    return lambda provider, _: provider.token(**changes)


def with_header(**header: Any) -> Make:
    return lambda provider, _: provider.token(header)


def es256(signature: bytes) -> Make:
    head = {"alg": "ES256", "typ": "JWT", "kid": "main"}
    return lambda provider, _: f"{encode(head)}.{encode(claims(provider.issuer))}.{encode(signature)}"


def unsigned(algorithm: str) -> Make:
    return lambda provider, _: f"{encode({'alg': algorithm})}.{encode(claims(provider.issuer))}."


BAD = {
    "expired": ("has expired", with_claim(exp=NOW - 31)),
    "not yet valid": ("not valid yet", with_claim(nbf=NOW + 600)),
    "issued in the future": ("issued in the future", with_claim(iat=NOW + 600)),
    "no expiry": ("no expiry", with_claim(exp=...)),
    "tampered header": ("signature", lambda p, _: tampered(p.token(), 0, kid="main", typ="JWT", x=1)),
    "tampered payload": ("signature", lambda p, _: tampered(p.token(), 1)),
    "tampered signature": ("signature", lambda p, _: p.token()[:-8] + "AAAAAAAA"),
    "no signature": ("signature", lambda p, _: p.token().rpartition(".")[0] + "."),
    "two parts": ("well-formed", lambda p, _: p.token().rpartition(".")[0]),
    "four parts": ("well-formed", lambda p, _: p.token() + ".AAAA"),
    "padded": ("well-formed", lambda p, _: p.token() + "=="),
    "the other base64": ("well-formed", lambda p, _: p.token()[:-1] + "+"),
    "somebody else's key": ("signature", lambda _, s: s.token()),
    "alg none": ("algorithm", unsigned("none")),
    "alg None": ("algorithm", unsigned("None")),
    "alg RS512": ("algorithm", with_header(alg="RS512")),
    "no alg": ("algorithm", with_header(alg="")),
    "alg is no string": ("well-formed", with_header(alg=["RS256"])),
    "public key as secret": ("signature", by_secret(lambda p: p.public_pem)),
    "public key as secret, stripped": ("signature", by_secret(lambda p: p.public_pem.strip())),
    "public key as secret, its issuer": ("issuer", by_secret(lambda p: p.public_pem, "https://id.example")),
    "empty secret": ("signature", by_secret(lambda _: b"")),
    "embedded jwk": ("signature", embedded()),
    "embedded jwk, unknown kid": ("no key", embedded(kid="mine")),
    "jku": ("signature", embedded(jku="http://127.0.0.1:1/jwks.json")),
    "x5u": ("signature", embedded(x5u="http://127.0.0.1:1/cert.pem")),
    "x5c": ("signature", embedded(x5c=["AAAA"])),
    "kid with a path": ("no key", with_header(kid="../../../../dev/null")),
    "kid with SQL": ("no key", with_header(kid="' OR 1=1; --")),
    "kid is a number": ("well-formed", with_header(kid=7)),
    "kid of 10 KB": ("larger", with_header(kid="k" * 10_000)),
    "unknown crit": ("extension", with_header(crit=["exp2"], exp2=1)),
    "empty crit": ("extension", with_header(crit=[])),
    "b64 false": ("extension", with_header(b64=False)),
    "b64 false, crit": ("extension", with_header(b64=False, crit=["b64"])),
    "duplicate claims": ("twice", duplicated),
    "blank ES256 signature": ("algorithm", es256(bytes(64))),
    "empty ES256 signature": ("algorithm", es256(b"")),
    "huge": ("larger", with_claim(x="x" * 9000)),
    "payload is no JSON": ("well-formed", lambda p, _: p.token(payload=b"hello")),
    "payload is a list": ("well-formed", lambda p, _: p.token(payload=[1])),
    "payload is not UTF-8": ("well-formed", lambda p, _: p.token(payload=b'{"sub": "\xff"}')),
    "payload with NaN": ("well-formed", lambda p, _: p.token(payload=b'{"exp": NaN}')),
    "payload deep": ("well-formed", lambda p, _: p.token(payload=b"[" * 5000)),
    "header is no JSON": ("well-formed", lambda p, _: "AAAA." + p.token().partition(".")[2]),
    "no token": ("well-formed", lambda p, _: "hello"),
    "exp is a string": ("number", with_claim(exp=str(NOW + 600))),
    "exp is true": ("number", with_claim(exp=True)),
    "exp is null": ("number", with_claim(exp=None)),
    "exp is a list": ("number", with_claim(exp=[NOW + 600])),
    "exp in milliseconds": ("number", with_claim(exp=NOW * 1000)),
    "exp is endless": ("number", lambda p, _: p.token(payload=ENDLESS)),
    "nbf is a string": ("number", with_claim(nbf="0")),
    "iat is a string": ("number", with_claim(iat="0")),
    "iat is negative": ("number", with_claim(iat=-1)),
    "iss is a list": ("issuer", with_claim(iss=["https://id.example"])),
    "sub is missing": ("name its user", with_claim(sub=...)),
    "sub is a number": ("must be a string", with_claim(sub=7)),
    "sub is a list": ("must be a string", with_claim(sub=["alice"])),
    "sub is empty": ("name its user", with_claim(sub="")),
    "sub with a line break": ("name its user", with_claim(sub="alice\r\nX-User-Roles: admin")),
    "sub with NUL": ("name its user", with_claim(sub="alice\0")),
    "jti is a number": ("must be a string", with_claim(jti=7)),
    "roles are a string": ("roles", with_claim(realm_access={"roles": "admin"})),
    "roles are numbers": ("roles", with_claim(realm_access={"roles": [1]})),
    "a role with a comma": ("roles", with_claim(realm_access={"roles": ["user,admin"]})),
    "a role with a line break": ("roles", with_claim(realm_access={"roles": ["a\nb"]})),
    "realm_access is a string": ("roles", with_claim(realm_access="admin")),
    "scope is a number": ("scopes", with_claim(scope=7)),
    "aud is a number": ("audience", with_claim(aud=7)),
    "aud holds a number": ("audience", with_claim(aud=["orders", 7])),
    "another audience": ("another audience", with_claim(aud=["billing"])),
    "no audience": ("another audience", with_claim(aud=...)),
    "another issuer": ("another issuer", with_claim(iss="https://evil.example")),
    "no issuer": ("another issuer", with_claim(iss=...)),
    "the gateway's issuer": ("not an access token", with_claim(iss=GATEWAY)),
    "the gateway's issuer and type": ("no key", lambda p, _: p.token({"typ": "at+jwt"}, iss=GATEWAY)),
    "the gateway's key id": ("signature", lambda p, _: p.token({"typ": "at+jwt", "kid": "k1"}, iss=GATEWAY)),
}  # fmt: skip


@pytest.mark.parametrize(("says", "make"), [pytest.param(*case, id=name) for name, case in BAD.items()])
def test_a_bad_token_is_refused(get: Get, provider: Provider, stranger: Provider, says: str, make: Make) -> None:
    """Somebody gets in with a token that is none, or is not told why it does not work."""
    answer = get("/api/a", make(provider, stranger))
    assert (answer.status, answer.code) == (401, "unauthorized")
    challenge = answer.get("www-authenticate") or ""
    assert challenge.startswith(f'{REALM}, error="invalid_token", error_description="')
    assert says in challenge
    assert says in answer.json["detail"]


def test_tokens_that_only_just_hold(get: Get, provider: Provider) -> None:
    """Clocks a few seconds apart turn people away."""
    now = int(time.time())
    assert get("/api/a", provider.token(exp=now - 15)).status == 200
    assert get("/api/a", provider.token(nbf=now + 15, iat=now + 15)).status == 200


def test_a_token_larger_than_a_header_may_be(get: Get, provider: Provider) -> None:
    """A huge token ends in something else than an answer."""
    assert get("/api/a", provider.token(x="x" * 40_000)).code == "headers_too_large"


def test_several_authorization_headers(get: Get, service: Service, provider: Provider) -> None:
    """The gateway verifies one token, and the service reads another."""
    good, other = provider.token(), provider.token(sub="root")
    for second in (bearer(other), bearer(good), "Authorization: Basic YTpi", "authorization:"):
        for path in ("/api/a", "/optional/a"):
            answer = get(path, good, second)
            assert (answer.status, answer.code) == (401, "unauthorized")
            assert 'error="invalid_request"' in (answer.get("www-authenticate") or "")


def test_a_token_in_the_query_is_none(get: Get, service: Service, provider: Provider, told: Callable[[str], str]) -> None:
    """Tokens are taken from where they end up in histories and logs."""
    token = told(provider.token())
    for name in ("access_token", "token", "jwt"):
        assert get(f"/api/a?{name}={token}").get("www-authenticate") == REALM
    assert get("/optional/a?access_token=" + token).status == 200
    assert identity(service) == {}


# The token endpoint, with real clients.


@pytest.fixture
def insecure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client libraries want https, even on loopback."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


def url(daemon: Daemon, path: str) -> str:
    return "http://{}:{}{}".format(*daemon.address, path)


@pytest.mark.usefixtures("insecure")
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlibs_session(daemon: Daemon, service: Service, told: Callable[[str], str], method: str) -> None:
    """A partner that uses authlib gets no token, or one that is not taken."""
    with AuthlibSession("acme", SECRET, scope="orders.read", token_endpoint_auth_method=method) as session:
        token = session.fetch_token(url(daemon, "/oauth/token"), grant_type="client_credentials")
        told(token["access_token"])
        told(token["refresh_token"])
        assert (token["token_type"], token["expires_in"], token["scope"]) == ("Bearer", 3600, "orders.read")
        assert session.get(url(daemon, "/partner/a")).status_code == 200
        assert identity(service) == {"x-user-id": ["acme"], "x-user-roles": ["partner"], "x-auth-provider": ["oauth"]}
        again = session.refresh_token(url(daemon, "/oauth/token"))
        assert again["access_token"] != token["access_token"]
        assert told(again["refresh_token"]) != token["refresh_token"]
        assert session.get(url(daemon, "/partner/b")).status_code == 200


@pytest.mark.usefixtures("insecure")
@pytest.mark.parametrize("in_body", [False, True])
def test_requests_oauthlibs_session(daemon: Daemon, service: Service, told: Callable[[str], str], in_body: bool) -> None:
    """A partner that uses requests-oauthlib gets no token, or one that is not taken."""
    with OauthlibSession(client=BackendApplicationClient("choosy")) as session:
        token = session.fetch_token(
            url(daemon, "/oauth/token"), client_id="choosy", client_secret=CHOSEN, include_client_id=in_body
        )
        told(token["access_token"])
        told(token["refresh_token"])
        assert session.get(url(daemon, "/api/a")).status_code == 200
        assert identity(service) == {"x-user-id": ["choosy"], "x-user-roles": [""], "x-auth-provider": ["oauth"]}
        assert session.get(url(daemon, "/partner/a")).status_code == 403


def test_the_documents_about_it(daemon: Daemon) -> None:
    """Others cannot verify the gateway's tokens, or find its endpoint."""
    keys = daemon.get("/.well-known/jwks.json").json["keys"]
    assert [(key["kid"], key["kty"], key["alg"], "d" in key) for key in keys] == [("k1", "RSA", "RS256", False)]
    metadata = daemon.get("/.well-known/oauth-authorization-server").json
    assert (metadata["issuer"], metadata["token_endpoint"]) == (GATEWAY, f"{GATEWAY}/oauth/token")
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = daemon.request(method, "/oauth/token")
        assert (answer.status, answer.get("allow")) == (405, "POST")


def basic(id: str, secret: str) -> str:
    return "Authorization: Basic " + b64encode(f"{id}:{secret}".encode()).decode()


ACME = basic("acme", SECRET)
GRANT = "grant_type=client_credentials"
IN_BODY = urlencode({"client_id": "acme", "client_secret": SECRET})
WRONG = new_secret()
WRONG_REQUESTS = {
    "empty": ((FORM, ACME), "", 400, "invalid_request"),
    "no content type": ((ACME,), GRANT, 400, "invalid_request"),
    "JSON": (("Content-Type: application/json", ACME), '{"grant_type": "client_credentials"}', 400, "invalid_request"),
    "two content types": ((FORM, "Content-Type: text/plain", ACME), GRANT, 400, "invalid_request"),
    "multipart": (("Content-Type: multipart/form-data; boundary=x", ACME), GRANT, 400, "invalid_request"),
    "grant type twice": ((FORM, ACME), f"{GRANT}&{GRANT}", 400, "invalid_request"),
    "scope twice": ((FORM, ACME), f"{GRANT}&scope=a.b&scope=orders.read", 400, "invalid_request"),
    "secret twice": ((FORM,), f"{GRANT}&{IN_BODY}&client_secret=x", 400, "invalid_request"),
    "both kinds of credentials": ((FORM, ACME), f"{GRANT}&{IN_BODY}", 400, "invalid_request"),
    "two Authorization headers": ((FORM, ACME, ACME), GRANT, 400, "invalid_request"),
    "no grant type": ((FORM, ACME), "scope=a.b", 400, "invalid_request"),
    "not UTF-8": ((FORM, ACME), f"{GRANT}&scope=%ff", 400, "invalid_request"),
    "oversized": ((FORM, ACME), f"{GRANT}&x={'x' * 9000}", 400, "invalid_request"),
    "too many parameters": ((FORM, ACME), GRANT + "&a=1" * 40, 400, "invalid_request"),
    "unknown grant": ((FORM, ACME), "grant_type=password&username=a&password=b", 400, "unsupported_grant_type"),
    "authorization code": ((FORM, ACME), "grant_type=authorization_code&code=x", 400, "unsupported_grant_type"),
    "unknown scope": ((FORM, ACME), f"{GRANT}&scope=orders.write", 400, "invalid_scope"),
    "no credentials": ((FORM,), GRANT, 401, "invalid_client"),
    "no secret": ((FORM,), f"{GRANT}&client_id=acme", 401, "invalid_client"),
    "wrong secret": ((FORM, basic("acme", WRONG)), GRANT, 401, "invalid_client"),
    "wrong secret in the body": ((FORM,), f"{GRANT}&client_id=acme&client_secret={WRONG}", 401, "invalid_client"),
    "unknown client": ((FORM, basic("nobody", WRONG)), GRANT, 401, "invalid_client"),
    "bad base64": ((FORM, "Authorization: Basic !!!!"), GRANT, 401, "invalid_client"),
    "base64 without padding": ((FORM, "Authorization: Basic YWNtZTp4eA"), GRANT, 401, "invalid_client"),
    "no colon": ((FORM, "Authorization: Basic " + b64encode(b"acme").decode()), GRANT, 401, "invalid_client"),
    "not UTF-8 in Basic": ((FORM, "Authorization: Basic //4="), GRANT, 401, "invalid_client"),
    "NUL in Basic": ((FORM, basic("acme\0", SECRET)), GRANT, 401, "invalid_client"),
    "bearer": ((FORM, "Authorization: Bearer abc"), GRANT, 401, "invalid_client"),
    "foreign refresh token": ((FORM, ACME), "grant_type=refresh_token&refresh_token=abc", 400, "invalid_grant"),
    "no refresh token": ((FORM, ACME), "grant_type=refresh_token", 400, "invalid_request"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "body", "status", "error"), [pytest.param(*case, id=name) for name, case in WRONG_REQUESTS.items()]
)
def test_a_wrong_request_for_a_token(
    daemon: Daemon, told: Callable[[str], str], headers: tuple[str, ...], body: str, status: int, error: str
) -> None:
    """A partner's mistake is answered by something that its library does not understand, or by a token."""
    told(WRONG)
    answer = daemon.request("POST", "/oauth/token", *headers, body=body.encode())
    assert (answer.status, answer.json["error"]) == (status, error), answer
    assert answer.get("content-type") == "application/json"
    assert answer.get("cache-control") == "no-store"
    assert set(answer.json) <= {"error", "error_description"}
    assert (answer.get("www-authenticate") or "").startswith("Basic ") == (status == 401)
    check_silent(answer, SECRET, WRONG)


def test_credentials_in_the_query_are_none(daemon: Daemon) -> None:
    """Secrets are taken from where they end up in logs."""
    for headers, body in (((FORM,), GRANT.encode()), ((FORM,), b"")):
        answer = daemon.request("POST", f"/oauth/token?{GRANT}&{IN_BODY}", *headers, body=body)
        assert answer.status in (400, 401)
        check_silent(answer, SECRET)


def test_a_body_that_no_token_request_has(daemon: Daemon) -> None:
    """Somebody fills the memory through the token endpoint."""
    answer = daemon.request("POST", "/oauth/token", FORM, ACME, body=b"x" * 65537)
    assert answer.code == "body_too_large"


# Reloads.


def test_a_reload_that_removes_a_key_ends_its_tokens(
    start: Start, service: Service, provider: Provider, tmp_path: Path
) -> None:
    """A key that was stolen and taken out goes on opening doors, as long as its tokens are remembered."""
    document = with_auth(tmp_path, provider, service)
    daemon = start(document)
    token = bearer(provider.token())
    with daemon.connect() as client:
        assert client.get("/api/a", token).status == client.get("/api/a", token).status == 200
        after = Provider(provider.issuer, "next")
        (tmp_path / "next.pem").write_bytes(after.public_pem)
        verifier = document["auth"]["jwt"][0]
        verifier.update(public_key_file=str(tmp_path / "next.pem"), key_id="next")
        assert daemon.reload(document)
        answer = client.get("/api/a", token)
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert client.get("/api/a", bearer(after.token())).status == 200


def test_authentication_is_not_lost_by_a_reload(
    start: Start, service: Service, provider: Provider, tmp_path: Path
) -> None:
    """A file is forgotten in a deployment, and every service is open to everybody."""
    document = with_auth(tmp_path, provider, service)
    daemon = start(document)
    without = {**document, "routes": [{"path": "/api/*", "service": "main"}]}
    del without["auth"]
    assert not daemon.reload(without)
    assert "auth" in daemon.log.rpartition("not reloaded: ")[2]
    assert daemon.get("/api/a").status == 401
    assert daemon.reload({**without, "gateway": {**without["gateway"], "auth_default": "none"}})
    assert daemon.get("/api/a").status == 200


@pytest.mark.parametrize(("default", "without", "bad"), [("required", 401, 401), ("optional", 200, 401), ("none", 200, 200)])
def test_the_default(
    start: Start, service: Service, provider: Provider, tmp_path: Path, default: str, without: int, bad: int
) -> None:
    """A route that says nothing does something else than the configuration says."""
    document = with_auth(tmp_path, provider, service, auth_default=default)
    document["routes"] = [{"path": "/a", "service": "main"}]
    daemon = start(document)
    assert daemon.get("/a").status == without
    assert daemon.get("/a", bearer("a.b.c")).status == bad
    assert ("1 of 1 routes are open" in daemon.log) == (default == "none")


# Guessing at secrets.


class Guesses:
    """Clients that never pause, each with a wrong secret, for clients that exist and for others."""

    def __init__(self, daemon: Daemon, clients: int = 8) -> None:
        self.answers: list[Answer] = []
        self._daemon = daemon
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._guess, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> Guesses:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _guess(self, number: int) -> None:
        with self._daemon.connect() as client:
            guessed = 0
            while not self._stop.is_set():
                guessed += 1
                who = ("choosy", "acme", f"nobody{number}-{guessed}")[guessed % 3]
                body = f"{GRANT}&client_id={who}&client_secret={new_secret()}".encode()
                self.answers.append(client.request("POST", "/oauth/token", FORM, body=body))

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in list(self.answers))


def test_guessing_ends_before_anything_is_hashed(
    start: Start, service: Service, provider: Provider, tmp_path: Path
) -> None:
    """Whoever guesses at secrets goes on until he has one, and keeps the gateway busy with hashing."""
    document = with_auth(tmp_path, provider, service)
    document["auth"]["oauth"]["rate_limit"] = {"limit": 5, "window": "1h"}
    daemon = start(document)
    token = bearer(provider.token())
    with Guesses(daemon) as guesses, daemon.connect() as client:
        others = []
        while len(guesses.answers) < 400 or len(others) < 200:
            others.append(client.get("/api/a", token).status)
    assert set(others) == {200}
    statuses = guesses.statuses
    # A 401 has cost a hash: for one address there are six times the limit, however many clients it names
    assert statuses[401] == 30
    assert statuses[429] == len(guesses.answers) - 30
    for answer in guesses.answers:
        assert (answer.status == 429) == (answer.get("retry-after") is not None)
        assert answer.json["error"] == {401: "invalid_client", 429: "temporarily_unavailable"}[answer.status]


def test_hashing_keeps_nobody_waiting(start: Start, service: Service, provider: Provider, tmp_path: Path) -> None:
    """Where limits are wide, a flood of wrong secrets stops everybody else."""
    daemon = start(with_auth(tmp_path, provider, service))
    token = bearer(provider.token())
    with Guesses(daemon, clients=48) as guesses, daemon.connect() as client:
        others = [client.get("/api/a", token).status]
        while len(guesses.answers) < 60 or len(others) < 300:
            others.append(client.get("/api/a", token).status)
    assert set(others) == {200}
    # At most so many wait for a thread; who comes then is told to come again, in no time
    assert set(guesses.statuses) <= {401, 503}
    assert guesses.statuses[503] > 0
    assert all(answer.get("retry-after") == "1" for answer in guesses.answers if answer.status == 503)
    right = daemon.request("POST", "/oauth/token", FORM, ACME, body=GRANT.encode())
    assert right.status in (200, 503)
