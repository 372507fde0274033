"""Keys that are fetched from a server, which rotates them, goes down and comes back while requests flow."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from support.daemon import Daemon, Document, gateway
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


class Traffic:
    """Clients that never pause. Each has a token that was seen before, and comes with new ones in between."""

    def __init__(self, daemon: Daemon, *providers: Provider, clients: int = 3) -> None:
        self.providers = providers
        self.answers: Counter[tuple[str, int]] = Counter()
        self._daemon = daemon
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def flows(self, requests: int = 60) -> None:
        """Wait until as many more were answered for each provider."""
        before = Counter(self.answers)
        for provider in self.providers:
            key = (provider.key_id, 200)
            eventually(lambda key=key: self.answers[key] >= before[key] + requests)  # type: ignore[misc]

    def _ask(self) -> None:
        kept: dict[str, str] = {}
        with self._daemon.connect() as client:
            while not self._stop.is_set():
                for provider in self.providers:
                    seen = kept.setdefault(provider.key_id, provider.token())
                    for token in (seen, provider.token()):
                        status = client.get("/api/a", bearer(token)).status
                        with self._lock:
                            self.answers[provider.key_id, status] += 1


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
    """No caller is turned away while keys are rotated, or their server is away."""
    document = configured(service, server)
    daemon = start(document)
    (a,) = server.published
    b, c = Provider(ISSUER, "b"), Provider(ISSUER, "c")
    with Traffic(daemon, a) as traffic:
        traffic.flows()
        # The next keys are published, and the next is used at once
        server.published = (a, b, c)
        traffic.providers = (a, b)
        traffic.flows()
        server.down()
        traffic.flows()
        # A reload, and the next rotation, with the server away
        assert daemon.reload(document)
        traffic.providers = (b, c)
        traffic.flows()
        server.published = (c,)
        server.up()
        traffic.providers = (c,)
        traffic.flows()
    assert {status for _, status in traffic.answers} == {200}
    assert server.fetched == 2
    assert daemon.get("/api/a", bearer(Provider(ISSUER, "a").token())).status == 401


def test_a_key_that_came_while_the_server_was_down(start: Start, service: Service, server: KeyServer) -> None:
    """A token whose key could not be fetched is 503, and good as soon as it can."""
    daemon = start(configured(service, server))
    (a,) = server.published
    b = Provider(ISSUER, "b")
    assert daemon.get("/api/a", bearer(a.token())).status == 200
    server.published = (a, b)
    server.down()
    answer = daemon.get("/api/a", bearer(b.token()))
    assert (answer.status, answer.code) == (503, "auth_unavailable")
    assert 1 <= int(answer.get("retry-after") or 0) <= 30
    with Traffic(daemon, a) as traffic:
        traffic.flows()
        server.up()
        eventually(lambda: daemon.get("/api/a", bearer(b.token())).status == 200)
        traffic.providers = (a, b)
        traffic.flows()
    assert {status for _, status in traffic.answers} == {200}
