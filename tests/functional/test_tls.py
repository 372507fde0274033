"""TLS on both sides: who is shown which certificate, and who is believed."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from cryptography import x509
from support.certificates import Authority, Pair
from support.client import Answer, Client, Truncated
from support.daemon import LOOPBACK, Daemon, Document, gateway
from support.services import Service
from support.waiting import eventually

from apigw import __version__, is_compiled

from .conftest import Start


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers"), "strangers")


def listen(*pairs: Pair, **more: object) -> Document:
    certificates = [{"cert_file": pair.certificate, "key_file": pair.key} for pair in pairs]
    return {"endpoint": LOOPBACK, "tls": {"certificates": certificates, **more}}


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, authority: Authority) -> Daemon:
    first, second = authority.issue("a.example", "localhost"), authority.issue("b.example", "*.wild.example")
    listeners = [
        LOOPBACK,
        listen(first, second),
        listen(first, min_version="1.3"),
        listen(first, client_ca_file=authority.file),
    ]
    routes = [{"path": "/*", "service": "main"}]
    return in_front(gateway(services={"main": module_service.url}, routes=routes, listen=listeners))


PLAIN, TWO, NEW, KNOWN = range(4)
GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"


def get(daemon: Daemon, which: int, tls: ssl.SSLContext, name: str = "localhost", path: str = "/a") -> Answer:
    with Client(daemon.addresses[which], tls, name) as client:
        return client.get(path)


def shown(daemon: Daemon, which: int, name: str | None) -> list[str]:
    """The names in the certificate that a client is shown which asks for ``name``."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(daemon.addresses[which], 10)
    with context.wrap_socket(plain, server_hostname=name) as secure:
        certificate = secure.getpeercert(binary_form=True)
    assert certificate
    found = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.DNSName)


def test_a_request_over_tls_says_so(daemon: Daemon, service: Service, authority: Authority) -> None:
    """A service is told that a request came over TLS."""
    assert get(daemon, TWO, authority.client()).status == 200
    assert service.last.get("x-forwarded-proto") == "https"
    assert daemon.get("/a").status == 200
    assert service.last.get("x-forwarded-proto") == "http"


def test_a_client_must_show_a_certificate_where_one_is_wanted(
    daemon: Daemon, service: Service, authority: Authority, stranger: Authority
) -> None:
    """Where a listener wants client certificates, none but a right one gets in."""
    for context in (authority.client(), authority.client(stranger.issue("intruder"))):
        with pytest.raises((ssl.SSLError, OSError, Truncated)):
            get(daemon, KNOWN, context)
    assert service.requests == []
    friend = authority.client(authority.issue("friend"))
    assert get(daemon, KNOWN, friend).status == 200
    with Client(daemon.addresses[KNOWN], friend, "localhost") as client:
        assert client.request("GET", "/a", host="A.example:8443").status == 200
        assert client.request("GET", "/a", host="b.example").status == 421


@pytest.mark.parametrize("which", [TWO, NEW, KNOWN])
@pytest.mark.parametrize("pieces", [[GET], [b"G", b"ET /a HTTP/1.1\r\n"], [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]])
def test_a_client_without_tls_is_told_to_use_it(
    daemon: Daemon, service: Service, which: int, pieces: list[bytes]
) -> None:
    """Who speaks HTTP without TLS to a port that needs it gets one answer, 400, that says so, and is not served."""
    with Client(daemon.addresses[which]) as client:
        for piece in pieces:
            client.send(piece)
        answer = client.answer()
        assert (answer.status, answer.code, answer.get("connection")) == (400, "bad_request", "close")
        assert answer.json["detail"] == "The client does not speak TLS, which this port needs: use https://."
        client.send(GET)
        assert client.is_closed()
    assert service.requests == []


@pytest.mark.parametrize("cut", [1, 2, 100, None])
def test_a_client_with_tls_is_told_that_there_is_none(daemon: Daemon, cut: int | None) -> None:
    """Who begins TLS on a port without it gets 400, and the reason names TLS."""
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
    with Client(daemon.addresses[PLAIN]) as client:
        answer = client.send(hello.read()[:cut]).answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        assert answer.json["detail"] == "The client speaks TLS, which this port does not: use http://."
        assert client.is_closed()


def curl(*arguments: str) -> str:
    done = subprocess.run(["curl", "-sS", "--max-time", "10", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl_gets_http_2_by_alpn_and_http_1_if_it_wants(
    daemon: Daemon, service: Service, authority: Authority
) -> None:
    """ALPN decides between HTTP/2 and HTTP/1.1."""
    url = f"https://localhost:{daemon.addresses[TWO][1]}/a"
    for wanted, version in (("--http2", "2"), ("--http1.1", "1.1")):
        said = curl("--cacert", authority.file, wanted, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", url)
        assert said == f"200 {version}"


@pytest.fixture
def secret(authority: Authority) -> Iterator[Service]:
    """A service that speaks TLS."""
    with closing(Service(tls=authority.server(authority.issue("secret.internal", "localhost")))) as service:
        yield service


def by_name(service: Service) -> str:
    return f"https://localhost:{service.port}"


def test_a_service_is_believed_if_its_certificate_is_right(
    start: Start, secret: Service, authority: Authority, stranger: Authority
) -> None:
    """A service with a wrong certificate is 502, and receives nothing."""
    services = {
        "right": {"targets": [by_name(secret)], "tls": {"ca_file": authority.file}},
        "named": {"targets": [secret.url], "tls": {"ca_file": authority.file, "server_name": "secret.internal"}},
        "stranger": {"targets": [by_name(secret)], "tls": {"ca_file": stranger.file}},
        "unknown": by_name(secret),
        "misnamed": {"targets": [by_name(secret)], "tls": {"ca_file": authority.file, "server_name": "other.internal"}},
        "address": {"targets": [secret.url], "tls": {"ca_file": authority.file}},
        "plain": f"http://localhost:{secret.port}",
    }
    daemon = start(gateway(services=services, routes=[{"path": f"/{name}", "service": name} for name in services]))
    for good in ("/right", "/named"):
        assert daemon.get(good).status == 200
        assert secret.last.target == good
    for bad in ("/stranger", "/unknown", "/misnamed", "/address"):
        answer = daemon.get(bad)
        assert (answer.status, answer.code) == (502, "upstream_unreachable")
    assert daemon.get("/plain").status == 502
    assert {received.target for received in secret.requests} == {"/right", "/named"}
    body = bytes(range(256)) * 4096
    assert daemon.request("PUT", "/right", body=body).json["body"] == body.decode("latin-1")


def test_a_service_that_knows_its_callers_knows_the_gateway(start: Start, authority: Authority, tmp_path: Path) -> None:
    """The gateway shows its certificate to a service that wants one. Where it has none to show, the log says so."""
    with closing(Service(tls=authority.server(authority.issue("localhost"), verify_clients=True))) as service:
        own = authority.issue("gateway")
        trust = {"ca_file": authority.file}
        services = {
            "known": {
                "targets": [by_name(service)],
                "tls": {**trust, "client_cert_file": own.certificate, "client_key_file": own.key},
                "health_check": {"path": "/well", "interval": "100ms"},
                "critical": True,
            },
            "nobody": {"targets": [by_name(service)], "tls": trust},
        }
        log = tmp_path / "access.log"
        routes = [{"path": f"/{name}", "service": name} for name in services]
        daemon = start(gateway(services=services, routes=routes, access_log={"file": str(log)}))
        assert daemon.get("/known").status == 200
        assert daemon.get("/nobody").status == 502
        eventually(lambda: "TLS failed: the other side demands a client certificate" in log.read_text())
        # The gateway's own questions are asked as its requests are.
        eventually(lambda: "/well" in {received.target for received in service.requests})
        with Client(daemon.admin) as client:
            assert client.get("/ready").json == {"status": "ready", "checks": {"known": "ok"}}


def test_the_log_says_what_runs_and_which_ports_speak_tls(daemon: Daemon) -> None:
    """Version, whether it is compiled, how much it has loaded; and ``tls:`` before such an endpoint."""
    kind = "compiled" if is_compiled() else "not compiled"
    eventually(lambda: re.search(rf"\] apigw {re.escape(__version__)}, {kind}: 1 route to 1 service\n", daemon.log))
    eventually(lambda: ": tls:tcp:0:interface=127.0.0.1\n" in daemon.log)


def test_a_renewed_certificate_is_used_after_a_reload(
    start: Start, module_service: Service, tmp_path: Path, authority: Authority
) -> None:
    """After a reload new connections see the new certificate."""
    pair = authority.issue("old.example", "localhost", file="renewed")
    document = gateway(
        services={"main": module_service.url}, routes=[{"path": "/*", "service": "main"}], listen=[listen(pair)]
    )
    daemon = start(document)
    with Client(daemon.address, authority.client()) as old:
        assert old.get("/a").status == 200
        authority.issue("new.example", "localhost", file="renewed")
        assert shown(daemon, 0, "localhost")[0] == "old.example"
        assert daemon.reload()
        assert shown(daemon, 0, "localhost")[0] == "new.example"
        assert old.get("/a").status == 200  # who was connected stays so

    Path(pair.key).write_text("nonsense")
    assert not daemon.reload()
    assert shown(daemon, 0, "localhost")[0] == "new.example"
    Path(pair.key).write_text(Path(authority.issue("other.example").key).read_text())
    assert not daemon.reload()
    eventually(lambda: "not reloaded: " in daemon.log)
    assert shown(daemon, 0, "localhost")[0] == "new.example"


def test_a_renewed_authority_of_a_service_is_used_after_a_reload(
    start: Start, secret: Service, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    """After a reload a service is believed by the new authority."""
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Path(stranger.file).read_bytes())
    service = {"targets": [by_name(secret)], "tls": {"ca_file": str(trusted)}}
    daemon = start(gateway(services={"main": service}, routes=[{"path": "/*", "service": "main"}]))
    assert daemon.get("/a").status == 502
    trusted.write_bytes(Path(stranger.file).read_bytes() + Path(authority.file).read_bytes())
    assert daemon.reload()
    assert daemon.get("/a").status == 200


def handshake(daemon: Daemon, which: int, tls: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    """A connection that has been answered, so that its session's ticket is here."""
    plain = socket.create_connection(daemon.addresses[which], 10)
    secure = tls.wrap_socket(plain, server_hostname="localhost", session=session)
    secure.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert secure.recv(65536).startswith(b"HTTP/1.1 200 ")
    return secure


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def test_a_certificate_of_a_client_is_verified_each_time(
    daemon: Daemon, authority: Authority, version: ssl.TLSVersion
) -> None:
    """It may have expired since: the session is not resumed. Who asks for that, as nginx does, gets in as before."""
    tls, own = authority.client(), authority.issue("client.example")
    tls.maximum_version = version
    tls.load_cert_chain(own.certificate, own.key)
    with handshake(daemon, KNOWN, tls, None) as first:
        session = first.session
    with handshake(daemon, KNOWN, tls, session) as second:
        assert not second.session_reused


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def test_a_session_resumes_on_every_worker(
    start: Start, service: Service, authority: Authority, version: ssl.TLSVersion, workers: int
) -> None:
    """Whichever of them has given it."""
    listening, routes = [listen(authority.issue("localhost"))], [{"path": "/*", "service": "main"}]
    daemon = start(gateway(services={"main": service.url}, routes=routes, listen=listening, workers=workers))
    eventually(lambda: len(daemon.status().get("workers", [0])) == workers)
    tls = authority.client()
    tls.maximum_version = version
    with ExitStack() as stack:
        first = stack.enter_context(handshake(daemon, 0, tls, None))
        for _ in range(3 * workers):
            assert stack.enter_context(handshake(daemon, 0, tls, first.session)).session_reused


def test_a_session_is_not_resumed_where_another_certificate_is_demanded(daemon: Daemon, authority: Authority) -> None:
    """Nobody gets in by a session of a listener that asks for no certificate."""
    tls = authority.client()
    with handshake(daemon, TWO, tls, None) as first:
        session = first.session
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(daemon, KNOWN, tls, session)


def test_a_client_that_offers_other_protocols_is_refused(daemon: Daemon, authority: Authority) -> None:
    """RFC 7301 §3.2: with an alert that says why, and nothing in the log; one that offers none speaks HTTP/1.1."""
    tls = authority.client()
    tls.set_alpn_protocols(["http/0.9", "spdy/3"])
    with pytest.raises(ssl.SSLError, match="no application protocol"):
        handshake(daemon, TWO, tls, None)
    handshake(daemon, TWO, authority.client(), None).close()
    assert "Traceback" not in daemon.log
