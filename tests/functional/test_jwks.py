"""Keys that are fetched from a server, which rotates them, goes down and comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.daemon import Document, gateway
from support.services import Received, Service
from support.tokens import Provider, bearer
from support.waiting import eventually

from .conftest import Start

ISSUER = "https://id.example"


class KeyServer:
    """Publishes the keys of some providers, on a port that it keeps while it is down."""

    def __init__(self, *published: Provider) -> None:
        self.published = published
        self.fetched = 0
        self.service = Service(self._answer)
        self.port = self.service.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    def down(self) -> None:
        self.service.close()

    def up(self) -> None:
        self.service = Service(self._answer, port=self.port)

    def _answer(self, received: Received) -> None:
        self.fetched += 1
        body = json.dumps({"keys": [provider.jwk for provider in self.published]}).encode()
        received.body()
        received.conversation.answer(200, "Content-Type: application/json", body=body)


@pytest.fixture
def server() -> Iterator[KeyServer]:
    server = KeyServer(Provider(ISSUER, "a"))
    yield server
    server.down()


def configured(service: Service, server: KeyServer) -> Document:
    document = gateway(services={"main": service.url}, routes=[{"path": "/api/*", "service": "main"}])
    document["auth"] = {"jwt": [{"name": "main", "algorithm": "RS256", "jwks_url": server.url, "issuer": ISSUER}]}
    return document


def test_keys_are_rotated_and_the_server_comes_and_goes(start: Start, service: Service, server: KeyServer) -> None:
    """No caller is turned away while keys are rotated, or their server is away; what it could not be asked is 503."""
    document = configured(service, server)
    daemon = start(document)
    (a,) = server.published
    b, c = Provider(ISSUER, "b"), Provider(ISSUER, "c")

    def answered(*providers: Provider) -> set[int]:
        return {daemon.get("/api/a", bearer(provider.token())).status for provider in providers * 2}

    assert answered(a) == {200}
    server.down()
    server.published = (a, b, c)
    answer = daemon.get("/api/a", bearer(b.token()))
    assert (answer.status, answer.code) == (503, "auth_unavailable")
    assert 1 <= int(answer.get("retry-after") or 0) <= 30
    assert answered(a) == {200}
    server.up()
    eventually(lambda: answered(b) == {200})
    assert answered(a, b, c) == {200}
    fetched = server.fetched
    server.down()
    assert daemon.reload(document)
    assert answered(a, b, c) == {200}
    assert answered(Provider(ISSUER, "a")) == {401}
    assert server.fetched == fetched
