"""Who may call: what a good token gives, what routes demand, and what a reload changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.guarded import HS_ISSUER, HS_SECRET, REALM, Guarded, identity, with_auth
from support.services import Service
from support.tokens import Provider, bearer, hs256
from support.waiting import eventually

from .conftest import Get, Start


@pytest.fixture(scope="module")
def daemon(guarded: Guarded) -> Daemon:
    return guarded.daemon


@pytest.fixture(scope="module")
def provider(guarded: Guarded) -> Provider:
    return guarded.provider


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
    """The gateway believes a header that it then does not pass on, and the service wonders who calls."""
    assert get("/api/a", provider.token(), "Connection: authorization").get("www-authenticate") == REALM
    assert get("/optional/a", provider.token(), "Connection: authorization").status == 200
    assert identity(service) == {}


def test_the_same_on_http_2(daemon: Daemon, service: Service, provider: Provider, guarded: Guarded) -> None:
    """All of that holds for HTTP/1.1 only."""

    def curl(path: str, *headers: str) -> str:
        url = "http://{}:{}{}".format(*daemon.address, path)
        fields = [word for line in headers for word in ("-H", line)]
        words = ["curl", "-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]
        return subprocess.run([*words, *fields, url], capture_output=True, text=True, check=True).stdout

    token = guarded.told(provider.token())
    assert curl("/api/a", bearer(token), *FORGED) == "200 2"
    assert identity(service) == {"x-user-id": ["alice"], "x-user-roles": [""], "x-auth-provider": ["main"]}
    assert b"root" not in service.last.raw
    assert curl("/open/a", *FORGED) == "200 2"
    assert identity(service) == {}
    service.requests.clear()
    assert curl("/api/a") == "401 2"
    assert curl("/api/a", bearer(guarded.told(token[:-4] + "AAAA"))) == "401 2"
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
    eventually(lambda: "auth" in daemon.log.rpartition("not reloaded: ")[2])
    assert daemon.get("/api/a").status == 401
    assert daemon.reload({**without, "gateway": {**without["gateway"], "auth_default": "none"}})
    assert daemon.get("/api/a").status == 200


@pytest.mark.parametrize(
    ("default", "without", "bad"), [("required", 401, 401), ("optional", 200, 401), ("none", 200, 200)]
)
def test_the_default(
    start: Start, service: Service, provider: Provider, tmp_path: Path, default: str, without: int, bad: int
) -> None:
    """A route that says nothing does something else than the configuration says."""
    document = with_auth(tmp_path, provider, service, auth_default=default)
    document["routes"] = [{"path": "/a", "service": "main"}]
    daemon = start(document)
    assert daemon.get("/a").status == without
    assert daemon.get("/a", bearer("a.b.c")).status == bad
    eventually(lambda: ("1 of 1 routes needs no authentication: /" in daemon.log) == (default == "none"))
