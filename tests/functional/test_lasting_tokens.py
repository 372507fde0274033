"""What lasts ends with its token: WebSockets and event streams, by time and by a reload."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from support.client import HANDSHAKE, Client, encode
from support.daemon import Daemon, Document, gateway
from support.services import SWITCH, Received, Service
from support.tokens import bearer, hs256
from support.waiting import eventually

from .conftest import Start

SECRET = b"0123456789abcdef0123456789abcdef"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"


def configured(service: Service, directory: Path, *issuers: str) -> Document:
    document = gateway(
        services={"main": service.url},
        routes=[{"path": "/*", "service": "main"}],
        access_log={"file": str(directory / "access.log"), "format": "json"},
    )
    document["auth"] = {
        "jwt": [
            {"name": issuer, "algorithm": "HS256", "secret": SECRET.decode(), "issuer": issuer, "leeway": "0s"}
            for issuer in issuers
        ]
    }
    return document


def endless(received: Received) -> None:
    """A tunnel or an event stream, which the service keeps open."""
    conversation = received.conversation
    conversation.send(SWITCH if received.get("upgrade") else STREAM)
    assert conversation.wait_for_end()
    conversation.end()


def opened(daemon: Daemon, path: str, token: str) -> Client:
    client = daemon.connect()
    if path == "/socket":
        answer = client.send(encode("GET", path, *HANDSHAKE, bearer(token))).head()
        assert answer.status == 101
    else:
        answer = client.send(encode("GET", path, bearer(token))).head()
        assert (answer.status, answer.get("content-type")) == (200, "text/event-stream")
    return client


@pytest.mark.parametrize("path", ["/socket", "/events"])
def test_it_ends_when_its_token_expires(start: Start, service: Service, tmp_path: Path, path: str) -> None:
    """On both sides, and not before; the log says why, and one whose token holds goes on."""
    daemon = start(configured(service, tmp_path, "a"))
    service.behave = endless
    short, long = hs256(SECRET, "a", exp=int(time.time()) + 3), hs256(SECRET, "a")
    with opened(daemon, path, long) as staying, opened(daemon, path, short) as ending:
        began = time.time()
        _until_cut(ending)
        assert time.time() - began > 1
        eventually(lambda: service.connections == 1)
        log = tmp_path / "access.log"
        eventually(lambda: b"\n" in log.read_bytes())
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        status = 101 if path == "/socket" else 200
        assert [(line["status"], line["code"]) for line in lines] == [(status, "unauthorized")]
        eventually(lambda: "the token has expired" in daemon.log)
        assert daemon.get(path, bearer(short)).status == 401
        staying.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            _until_cut(staying)


def test_it_ends_with_a_reload_that_takes_its_verifier_away(start: Start, service: Service, tmp_path: Path) -> None:
    """Soon after; what another verifier let in goes on, and so does everything over a reload that changes nothing."""
    document = configured(service, tmp_path, "a", "b")
    daemon = start(document)
    service.behave = endless
    tokens = {issuer: hs256(SECRET, issuer) for issuer in "ab"}
    clients = {
        (path, issuer): opened(daemon, path, tokens[issuer]) for path in ("/socket", "/events") for issuer in "ab"
    }
    assert daemon.reload(document)
    assert daemon.reload(configured(service, tmp_path, "b"))
    for path in ("/socket", "/events"):
        _until_cut(clients[path, "a"])
    eventually(lambda: service.connections == 2)
    for path in ("/socket", "/events"):
        clients[path, "b"].socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            _until_cut(clients[path, "b"])
    for client in clients.values():
        client.close()


def _until_cut(client: Client) -> None:
    """Read until the gateway closes, which must not look like the end of a body."""
    said = b""
    while True:
        try:
            data = client.socket.recv(65536)
        except ConnectionResetError:
            break
        if not data:
            break
        said += data
    assert not said.endswith(b"0\r\n\r\n")
