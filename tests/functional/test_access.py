"""Who may call, by what other programs and operators say: one gateway, asked over the wire."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.client import Answer, Client
from support.daemon import LOOPBACK, Daemon, gateway
from support.h2_client import H2Client
from support.samples import value
from support.services import Gone, Received, Service, port_nobody_listens_on

from .conftest import Start

GRPC = ("content-type", "application/grpc")
COOKIES = ["session=; Max-Age=0", "why=expired"]
PAGE = b"<p>Please log in.</p>"


def decide(received: Received) -> None:
    """The checker: what it says is in the path of the request."""
    said = received.get("x-forwarded-uri") or ""
    answer = received.conversation.answer
    _, _, wanted = said.partition("/checked/")
    if wanted.startswith("pass"):
        answer(200, "X-Tenant: acme", "X-Other: not asked for", body=b"fine")
    elif wanted.startswith("large"):
        with suppress(Gone):  # it is given up
            answer(200, body=b"x" * 10 * 1024 * 1024)
    elif wanted.startswith("hang"):
        received.conversation.wait_for_end()
    elif wanted.startswith("garbage"):
        received.conversation.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        received.conversation.close()
    else:
        status = int(wanted[:3])
        answer(
            status, *(f"Set-Cookie: {each}" for each in COOKIES), "Location: /login", "WWW-Authenticate: Key", body=PAGE
        )


@pytest.fixture(scope="module")
def checker() -> Iterator[Service]:
    with closing(Service()) as service:
        service.behave = decide
        yield service
        assert service.failures == []


@pytest.fixture(scope="module")
def daemon(in_front: Start, module_service: Service, checker: Service) -> Daemon:
    checks = {
        "opa": {"url": f"{checker.url}/v1/check?x=1", "take": ["X-Tenant"], "timeout": "400ms"},
        "gone": {"url": f"http://127.0.0.1:{port_nobody_listens_on()}/"},
    }
    routes = [
        {"path": "/checked/*", "service": "main", "check_with": "opa"},
        {"name": "few", "path": "/checked/401/few", "service": "main", "check_with": "opa"},
        {"path": "/gone", "service": "main", "check_with": "gone"},
        {"path": "/open", "service": "main"},
        {"path": "/closed", "service": "main", "deny": ["127.0.0.0/8"]},
    ]
    listen = [LOOPBACK, "tcp6:0:interface=\\:\\:"]
    document = gateway(services={"main": module_service.url}, routes=routes, listen=listen)
    limits = [{"route": "few", "limit": 2, "window": "60s", "by": ["address"]}]
    return in_front({**document, "checks": checks, "rate_limits": limits})


def test_a_pass(daemon: Daemon, service: Service, checker: Service) -> None:
    """The checker is asked what it must know; the service gets the body, and what is taken of the checker's answer."""
    checker.requests.clear()
    answer = daemon.request("POST", "/checked/pass?b=c", "Authorization: Key 1", "X-Tenant: forged", body=b"body")
    assert (answer.status, answer.json["body"]) == (200, "body")
    assert (service.last.get("x-tenant"), service.last.get("x-other")) == ("acme", None)
    (asked,) = checker.requests
    assert (asked.method, asked.target, asked.get("authorization")) == ("GET", "/v1/check?x=1", "Key 1")
    told = {name: asked.get(f"x-forwarded-{name}") for name in ("method", "proto", "host", "uri", "for")}
    assert told == {
        "method": "POST",
        "proto": "http",
        "host": "localhost",
        "uri": "/checked/pass?b=c",
        "for": "127.0.0.1",
    }
    daemon.get("/open", "X_Tenant: forged")
    assert "x_tenant" not in dict(service.last.headers)


@pytest.mark.parametrize("status", [302, 401, 403])
def test_a_refusal(daemon: Daemon, service: Service, status: int) -> None:
    """Status, body, cookies and challenge are the checker's, over both versions; the service hears nothing of it."""
    with daemon.connect() as client:
        answers: list[Answer] = [client.get(f"/checked/{status}") for _ in range(2)]
    with H2Client(daemon.address) as h2:
        over_h2 = h2.request("GET", f"/checked/{status}")
    for answer in (*answers, over_h2):
        assert (answer.status, answer.body, answer.get("location")) == (status, PAGE, "/login")
        assert (answer.all("set-cookie"), answer.get("www-authenticate")) == (COOKIES, "Key")
    assert not service.requests


def test_guesses_are_limited(daemon: Daemon, checker: Service) -> None:
    """A 401 of the checker counts in limits by address; when one is used up, the checker is not asked."""
    checker.requests.clear()
    assert [daemon.get("/checked/401/few").status for _ in range(4)] == [401, 401, 429, 429]
    assert len(checker.requests) == 2


@pytest.mark.parametrize(
    "path", ["/checked/500", "/checked/404", "/checked/large", "/checked/hang", "/checked/garbage", "/gone"]
)
def test_no_verdict(daemon: Daemon, service: Service, path: str) -> None:
    """Whatever else the checker does, it is 503, and the next request is served."""
    with daemon.connect() as client:
        answer = client.get(path)
        assert (answer.status, answer.code, answer.get("retry-after")) == (503, "auth_unavailable", "1")
        assert not service.requests
        assert client.get("/checked/pass").status == 200


def test_calls_of_grpc(daemon: Daemon, service: Service) -> None:
    """A refusal is a status of gRPC."""
    with H2Client(daemon.address) as client:
        found = {
            path: client.request("POST", path, GRPC).get("grpc-status")
            for path in ("/checked/401", "/checked/403", "/checked/302", "/gone", "/closed")
        }
    assert found == {"/checked/401": "16", "/checked/403": "7", "/checked/302": "7", "/gone": "14", "/closed": "7"}


def test_mapped_addresses(daemon: Daemon, service: Service) -> None:
    """A client of IPv4 is that on a listener for both, too: for lists, and for services."""
    with Client(("127.0.0.1", daemon.addresses[1][1])) as client:
        assert client.get("/closed").code == "address_denied"
        assert client.get("/open").status == 200
    assert service.last.get("x-forwarded-for") == "127.0.0.1"
    with Client(("::1", daemon.addresses[1][1])) as client:
        assert client.get("/closed").status == 200
    assert (value(daemon, "gateway_addresses_refused_total") or 0) >= 1


def test_the_program_of_the_page_asks_opa() -> None:
    """The checker that the how-to page prints gives OPA the question as `input`, and takes its result."""
    page = (Path(__file__).parents[2] / "docs/howto/external-check.md").read_text()
    program = page.partition("cat > run/desk.py <<'END'\n")[2].partition("END\n")[0]
    names: dict[str, Any] = {"__name__": "desk"}
    exec(program, names)
    with ThreadingHTTPServer(("127.0.0.1", 0), Opa) as opa:
        threading.Thread(target=opa.serve_forever, daemon=True).start()
        names["OPA"] = f"http://127.0.0.1:{opa.server_port}/v1/data/apigw"
        assert [names["decide"]({"cookie": f"desk={each}"}) for each in ("blue", "red")] == ["acme", None]
        opa.shutdown()


class Opa(BaseHTTPRequestHandler):
    """The data API of OPA: 200 in any case, and no result where the rule is undefined."""

    def do_POST(self) -> None:
        assert self.path == "/v1/data/apigw"
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        self.send_response(200)
        self.end_headers()
        result = {"result": {"tenant": "acme"}} if asked["cookie"] == "desk=blue" else {}
        self.wfile.write(json.dumps(result).encode())

    def log_message(self, *_: object) -> None: ...
