"""Certificates of clients as identity, through a gateway with several ways in."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from support.certificates import Authority
from support.client import Client, Truncated
from support.daemon import LOOPBACK, Document, gateway
from support.guarded import identity
from support.h2_client import H2Client
from support.services import Service

from .conftest import Start

CERTIFICATE, REALM = 'Certificate realm="apigw"', 'Bearer realm="apigw"'
CLAIMED = ("Client-Cert: :AAAA:", "X-Forwarded-Client-Cert: URI=spiffe://mesh/admin", "Client_Cert_Chain: :AAAA:")
OPTIONAL, REQUIRED, PLAIN = range(3)


def test_a_certificate_says_who_calls(start: Start, service: Service, tmp_path: Path) -> None:
    """Over both versions of HTTP, on every connection and request, by the authorities of its provider alone; a reload
    with others ends that on open connections, too."""
    (tmp_path / "renewed").mkdir()
    mesh, people, ours = (Authority(tmp_path, name) for name in ("mesh", "people", "ours"))
    certificates = [
        {"cert_file": pair.certificate, "key_file": pair.key}
        for pair in (ours.issue("localhost", "a.example"), ours.issue("b.example"))
    ]
    tls = {"certificates": certificates}
    listen: list[object] = [
        {"endpoint": LOOPBACK, "tls": {**tls, "client_certificates": "optional"}},
        {"endpoint": LOOPBACK, "tls": {**tls, "client_ca_file": people.file}},
        LOOPBACK,
    ]
    routes: list[Document] = [
        {"path": "/mesh", "providers": ["mesh"]},
        {"path": "/people", "providers": ["people"], "roles": ["ops"]},
        {"path": "/any", "providers": ["mesh", "people", "id"]},
        {"path": "/open", "auth": "none"},
        {"path": "/perhaps", "auth": "optional", "providers": ["mesh"]},
    ]
    document = gateway(
        services={"main": service.url}, routes=[{**route, "service": "main"} for route in routes], listen=listen
    )
    document["auth"] = {
        "mtls": [
            {"name": "mesh", "ca_file": mesh.file, "id": "uri"},
            {"name": "people", "ca_file": people.file, "id": "subject", "roles_from": "ou"},
        ],
        "jwt": [{"name": "id", "algorithm": "HS256", "secret": "0123456789abcdef" * 2, "issuer": "https://id"}],
    }
    daemon = start(document)
    unit = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "ops")
    subject = x509.Name([unit, x509.NameAttribute(NameOID.COMMON_NAME, "ada")])
    orders = mesh.sign("orders", x509.UniformResourceIdentifier("spiffe://mesh/orders"))
    nameless, ada = mesh.sign("nameless"), people.sign("ada", subject=subject)

    def client(authority: Authority | None, pair: object = None) -> ssl.SSLContext:
        context = ours.client()
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)  # type: ignore[attr-defined]
        return context

    def statuses(which: int, context: ssl.SSLContext | None, *paths: str) -> list[int]:
        with Client(daemon.addresses[which], context) as connected:
            return [connected.get(path, *CLAIMED).status for path in paths]

    every = ["/mesh", "/people", "/any", "/open", "/perhaps"]
    assert statuses(OPTIONAL, client(mesh, orders), *every) == [200, 401, 200, 200, 200]
    assert identity(service) == {
        "x-user-id": ["spiffe://mesh/orders"], "x-user-roles": [""], "x-auth-provider": ["mesh"]
    }  # fmt: skip
    for name in ("client-cert", "x-forwarded-client-cert", "client_cert_chain"):
        assert service.last.get(name) is None
    assert statuses(OPTIONAL, client(people, ada), *every) == [401, 200, 200, 200, 401]
    assert statuses(REQUIRED, client(people, ada), *every) == [401, 200, 200, 200, 401]
    assert statuses(OPTIONAL, client(mesh, nameless), *every) == [401, 401, 401, 200, 401]
    assert statuses(OPTIONAL, client(None), *every) == [401, 401, 401, 200, 200]
    assert statuses(PLAIN, None, *every) == [401, 401, 401, 200, 200]
    for which, context in ((REQUIRED, client(None)), (REQUIRED, client(mesh, orders))):
        with pytest.raises((ssl.SSLError, OSError, Truncated)):
            statuses(which, context, "/open")
    with Client(daemon.addresses[OPTIONAL], client(None)) as connected:
        answer = connected.get("/any")
        assert (answer.status, answer.all("www-authenticate")) == (401, [REALM, CERTIFICATE])
        assert connected.request("GET", "/open", host="b.example").status == 421
    with Client(daemon.addresses[OPTIONAL], client(mesh, orders), "b.example") as connected:
        assert connected.request("GET", "/mesh", host="b.example").status == 200
        assert connected.request("GET", "/mesh", host="a.example").status == 421
    with H2Client(daemon.addresses[OPTIONAL], client(mesh, orders)) as both:
        assert [both.request("GET", path).status for path in ("/mesh", "/people", "/any")] == [200, 401, 200]
        renewed = Authority(tmp_path / "renewed", "mesh")
        with Client(daemon.addresses[OPTIONAL], client(mesh, orders)) as old:
            assert old.get("/mesh").status == 200
            Path(mesh.file).write_bytes(Path(renewed.file).read_bytes())
            assert old.get("/mesh").status == 200
            assert daemon.reload()
            assert old.get("/mesh").status == 401
            assert both.request("GET", "/mesh").status == 401
    another = renewed.sign("orders", x509.UniformResourceIdentifier("spiffe://mesh/orders"))
    assert statuses(OPTIONAL, client(renewed, another), "/mesh") == [200]
    with pytest.raises((ssl.SSLError, OSError, Truncated)):
        statuses(OPTIONAL, client(mesh, orders), "/open")
