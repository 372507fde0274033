"""Opaque tokens, and the server that knows them: over real connections, in good days and bad ones."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import parse_qs, unquote_plus

import pytest
from support.client import Client
from support.daemon import Daemon, gateway
from support.guarded import REALM, identity
from support.services import Received, Service
from support.waiting import eventually

from .conftest import Start

SECRET = "p+ss w%rd:ü".encode()
TOKENS = {
    "ada-token": {"active": True, "sub": "ada", "roles": ["user"], "scope": "orders.read"},
    "old-token": {"active": False},
    "brief-token": {"active": True, "sub": "brief", "exp": 1},
}


class Authorization:
    """An authorization server that is as strict as RFC 7662 and RFC 6749 say, until it is told to fail."""

    def __init__(self) -> None:
        self.service = Service(self._answer)
        self.asked: list[str] = []
        self.failing = ""

    def _answer(self, received: Received) -> None:
        assert (received.method, received.target) == ("POST", "/introspect?realm=a")
        scheme, _, encoded = (received.get("authorization") or "").partition(" ")
        client, _, secret = b64decode(encoded).decode().partition(":")
        assert (scheme, unquote_plus(client), unquote_plus(secret)) == ("Basic", "g:w", SECRET.decode())
        assert received.get("content-type") == "application/x-www-form-urlencoded"
        form = parse_qs(received.body().decode(), strict_parsing=True)
        assert set(form) == {"token", "token_type_hint"}
        [token] = form["token"]
        self.asked.append(token)
        said = json.dumps(TOKENS.get(token, {"active": False})).encode()
        conversation = received.conversation
        if self.failing == "redirects":
            conversation.answer(302, f"Location: http://127.0.0.1:1/{token}")
        elif self.failing == "is large":
            conversation.answer(200, body=said + b" " * 10_000_000)
        elif self.failing == "says rubbish":
            conversation.answer(200, body=b"<html>" + token.encode())
        elif self.failing == "hangs":
            conversation.wait_for_end()
        elif self.failing == "breaks off":
            conversation.send(b"HTTP/1.1 200 " + token.encode() + b"\r\nContent-Length: 100\r\n\r\n{")
            conversation.close()
        else:
            conversation.answer(200, "Content-Type: application/json", body=said)


@pytest.fixture(scope="module")
def server() -> Iterator[Authorization]:
    server = Authorization()
    with closing(server.service):
        yield server
        assert server.service.failures == []


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, server: Authorization) -> Daemon:
    document = gateway(
        services={"main": module_service.url},
        routes=[
            {"path": "/any", "service": "main"},
            {"path": "/scoped", "service": "main", "providers": ["legacy"], "scopes": ["orders.write"]},
        ],
    )
    document["auth"] = {
        "jwt": [{"name": "id", "algorithm": "HS256", "secret": "0123456789abcdef" * 2, "issuer": "https://id"}],
        "introspection": [
            {
                "name": "legacy",
                "url": f"{server.service.url}/introspect?realm=a",
                "client_id": "g:w",
                "client_secret": SECRET.decode(),
                "timeout": "500ms",
            }
        ],
    }
    return in_front(document)


def test_a_token_is_asked_about(daemon: Daemon, service: Service, server: Authorization) -> None:
    """Once in each worker; the service gets who it is of. Others are 401, and 403 without a scope."""
    for _ in range(3):
        assert daemon.get("/any", "Authorization: Bearer ada-token").status == 200
    assert identity(service) == {"x-user-id": ["ada"], "x-user-roles": ["user"], "x-auth-provider": ["legacy"]}
    assert daemon.get("/scoped", "Authorization: Bearer ada-token").status == 403
    assert server.asked in (["ada-token"], ["ada-token"] * 2)
    for token, description in (("old-token", "the token is not active"), ("brief-token", "the token has expired")):
        answer = daemon.get("/any", f"Authorization: Bearer {token}")
        challenge = f'{REALM}, error="invalid_token", error_description="{description}"'
        assert (answer.status, answer.all("www-authenticate")) == (401, [challenge])
    answer = daemon.get("/any")
    assert (answer.status, answer.all("www-authenticate")) == (401, [REALM])
    with Client(daemon.admin) as client:
        metrics = client.get("/metrics").body.decode()
    assert 'gateway_introspections_total{provider="legacy",result="inactive"} 1.0' in metrics


@pytest.mark.parametrize("failing", ["redirects", "is large", "says rubbish", "hangs", "breaks off"])
def test_a_server_that_fails(daemon: Daemon, service: Service, server: Authorization, failing: str) -> None:
    """It is 503 for tokens that are not known, in time, and never a way in; others are served. Then it is asked again.
    No token is logged."""
    token = f"token-while-it-{failing.replace(' ', '-')}"
    TOKENS[token] = {"active": True, "sub": "late"}
    with daemon.connect() as client:  # of one worker: each knows the tokens that it has asked about
        client.get("/any", "Authorization: Bearer ada-token")
        server.failing = failing
        began = time.monotonic()
        answer = client.get("/any", f"Authorization: Bearer {token}")
        assert (answer.status, answer.code, answer.get("retry-after")) == (503, "auth_unavailable", "1")
        assert time.monotonic() - began < 10
        assert client.get("/any", "Authorization: Bearer ada-token").status == 200
        server.failing = ""
        assert client.get("/any", f"Authorization: Bearer {token}").status == 200
    eventually(lambda: "answers again" in daemon.log)
    assert token not in daemon.log
    assert SECRET.decode() not in daemon.log


def test_a_server_that_is_gone(start: Start, service: Service) -> None:
    """It is 503, as for keys that cannot be fetched; JWTs of other providers do not need it."""
    with closing(Service()) as gone:
        url = gone.url
    document = gateway(services={"main": service.url}, routes=[{"path": "/*", "service": "main"}])
    document["auth"] = {"introspection": [{"name": "legacy", "url": url, "client_id": "a", "client_secret": "b"}]}
    daemon = start(document)
    assert daemon.get("/any", "Authorization: Bearer ada-token").status == 503
    eventually(lambda: "introspection by legacy: the server" in daemon.log)
