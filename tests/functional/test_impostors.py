"""Somebody in a server's place, with a certificate of the right authority: nobody in the gateway believes him."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from support.certificates import Authority
from support.daemon import Daemon, Document, gateway
from support.secure_peer import SecurePeer
from support.services import Service
from support.tokens import Provider, bearer
from support.waiting import eventually

from .conftest import check_log

ISSUER = "https://id.example"
PASSWORD = b"pa55word"
COOKIE = "Cookie: session=s3cret"
RIGHT = (x509.DNSName("localhost"), x509.UniformResourceIdentifier("spiffe://mesh/service"))
IMPOSTORS = {
    "no names": (),
    "a URI and another's name": (x509.UniformResourceIdentifier("urn:uuid:1234"), x509.DNSName("evil.test")),
    "another's name": (x509.DNSName("evil.test"),),
}
AnsweredBy = Callable[[bytes], bytes]


@pytest.fixture(params=[RIGHT, IMPOSTORS["another's name"]], ids=["the right one", "another's name"])
def names(request: pytest.FixtureRequest) -> tuple[x509.GeneralName, ...]:
    """All that the gateway asks verify alike: every impostor tries to be a service, and one the others."""
    return tuple(request.param)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def standing(tmp_path: Path, authority: Authority, document: Document, *peers: SecurePeer) -> Iterator[Daemon]:
    """A daemon that trusts the authority as the platform's. The peers have read everything that it sent afterwards."""
    with ExitStack() as stack:
        for peer in peers:
            stack.callback(peer.close)
        daemon = Daemon(tmp_path / "gateway", document)
        stack.callback(check_log, daemon)
        stack.callback(daemon.kill)
        yield daemon.start({"SSL_CERT_FILE": authority.file})


def http(document: object) -> AnsweredBy:
    body = json.dumps(document).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return lambda _: head + body


@pytest.mark.parametrize("names", [RIGHT, *IMPOSTORS.values()], ids=["the right one", *IMPOSTORS])
def test_services_and_their_checks(tmp_path: Path, authority: Authority, names: tuple[x509.GeneralName, ...]) -> None:
    """A service's impostor receives no request, no cookie and no health check."""
    context = authority.server(authority.sign("localhost", *names))
    asked, checked = SecurePeer(context, http({})), SecurePeer(context, http({}))
    services = {
        "main": f"https://localhost:{asked.port}",
        "checked": {
            "targets": [f"https://LocalHost:{checked.port}"],
            "health_check": {"path": "/well", "interval": "100ms"},
        },
    }
    document = gateway(services=services, routes=[{"path": "/*", "service": "main"}])
    with standing(tmp_path, authority, document, asked, checked) as daemon:
        answer = daemon.get("/a", COOKIE)
        eventually(lambda: checked.accepted > 1 or checked.received)
    if names == RIGHT:
        assert answer.status == 200
        assert b"s3cret" in asked.received
        assert checked.received.startswith(b"GET /well ")
    else:
        assert (answer.status, answer.code) == (502, "upstream_unreachable")
        assert asked.accepted
        assert (asked.received, checked.received) == (b"", b"")
        eventually(lambda: "the certificate is refused: it " in daemon.log)


def test_key_sets(
    tmp_path: Path, authority: Authority, module_service: Service, names: tuple[x509.GeneralName, ...]
) -> None:
    """A key server's impostor receives no request, and nobody logs in with his keys."""
    provider = Provider(ISSUER)
    peer = SecurePeer(authority.server(authority.sign("localhost", *names)), http({"keys": [provider.jwk]}))
    document = gateway(services={"main": module_service.url}, routes=[{"path": "/*", "service": "main"}])
    url = f"https://localhost:{peer.port}/keys"
    document["auth"] = {"jwt": [{"name": "main", "algorithm": "RS256", "jwks_url": url, "issuer": ISSUER}]}
    with standing(tmp_path, authority, document, peer) as daemon:
        answer = daemon.get("/a", bearer(provider.token()))
    assert peer.accepted
    if names == RIGHT:
        assert answer.status == 200
        assert peer.received.startswith(b"GET /keys ")
    else:
        assert (answer.status, answer.code) == (503, "auth_unavailable")
        assert peer.received == b""


def sharing(url: str, service: Service, tmp_path: Path, **redis: object) -> Document:
    document = gateway(services={"main": service.url}, routes=[{"path": "/*", "service": "main"}])
    file = tmp_path / "password"
    file.write_bytes(PASSWORD)
    limits = [{"endpoint": "/*", "scope": "ip", "limit": 5, "window": "1m"}]
    return {**document, "redis": {"url": url, "password_file": str(file), **redis}, "rate_limits": limits}


@pytest.mark.parametrize(
    ("names", "own"), [(RIGHT, True), (RIGHT, False), ((), True), (IMPOSTORS["another's name"], False)]
)
def test_redis(
    tmp_path: Path, authority: Authority, module_service: Service, names: tuple[x509.GeneralName, ...], own: bool
) -> None:
    """Redis' impostor receives neither a password nor a command."""
    peer = SecurePeer(authority.server(authority.sign("localhost", *names)))
    more = {"ca_file": authority.file} if own else {}
    document = sharing(f"rediss://localhost:{peer.port}", module_service, tmp_path, **more)
    with standing(tmp_path, authority, document, peer) as daemon:
        eventually(lambda: PASSWORD in peer.received if names == RIGHT else peer.accepted > 1)
        assert daemon.get("/a").status == 200
    if names != RIGHT:
        assert peer.received == b""
        eventually(lambda: "Redis is unavailable: the certificate is refused: it " in daemon.log)


def test_sentinels(
    tmp_path: Path, authority: Authority, module_service: Service, names: tuple[x509.GeneralName, ...]
) -> None:
    """A sentinel's impostor is not asked where the master is, and cannot say that he is."""
    context = authority.server(authority.sign("localhost", *names))
    master = SecurePeer(context)
    reply = b"*2\r\n$9\r\nlocalhost\r\n$%d\r\n%d\r\n" % (len(str(master.port)), master.port)
    sentinel = SecurePeer(context, lambda _: reply)
    sentinels = {"sentinels": [f"localhost:{sentinel.port}"], "sentinel_name": "limits", "ca_file": authority.file}
    document = sharing("rediss://localhost:1", module_service, tmp_path, **sentinels)
    with standing(tmp_path, authority, document, sentinel, master) as daemon:
        eventually(lambda: PASSWORD in master.received if names == RIGHT else sentinel.accepted > 1)
        assert daemon.get("/a").status == 200
    if names == RIGHT:
        assert b"GET-MASTER-ADDR-BY-NAME" in sentinel.received
        assert PASSWORD not in sentinel.received
    else:
        assert (sentinel.received, master.accepted) == (b"", 0)
